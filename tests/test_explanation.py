"""Why a window scored as it did: the maps that made the score, on one grid."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_asd.audio.windows import Window
from edge_asd.demo.clips import simulate
from edge_asd.detector import Detector
from edge_asd.explanation import explain
from edge_asd.logmel import LogMelParameters, log_mel, mel_frequencies
from edge_asd.pipeline import AlarmSettings, MachineDetector, Pipeline

SOUND = simulate("id_00", 10.0, seed=4)


def test_it_is_what_the_detectors_saw(statistics: Detector, site: Detector) -> None:
    used = [MachineDetector.of(d, "id_00") for d in (statistics, site)]
    pipeline = Pipeline(used, AlarmSettings(threshold=2.0, raise_count=1, raise_window=1), hop_seconds=10.0)
    window = Window(0, SOUND, 0)
    before = pipeline.read(window)
    found = pipeline.explain(window)
    assert list(found.maps) == ["both.onnx", "site.onnx"]
    assert found.parameters == statistics.log_mel_parameters
    assert (found.log_mel == log_mel(SOUND, found.parameters)).all()
    for name, detector in (("both.onnx", statistics), ("site.onnx", site)):
        assert (found.maps[name] == detector.score(found.log_mel, detector.index_of("id_00")).anomaly_map).all()
    after = pipeline.read(window)
    assert [d.score for d in before.detectors] == [d.score for d in after.detectors]
    assert after.event is None or before.event is None, "an explanation is no window for the alarm"


def test_detectors_of_one_name_stay_apart(tiny: Callable[..., bytes]) -> None:
    detector = Detector(Path("a.onnx"), tiny())
    assert list(explain(SOUND, [("a", detector, 0)] * 3).maps) == ["a", "a (2)", "a (3)"]


def test_a_map_of_another_log_mel_comes_onto_the_first_ones_grid(tiny: Callable[..., bytes]) -> None:
    """The tiny detector's map is its log-Mel: a tone must lie at the same place in both."""
    other = LogMelParameters(fmin=50.0, fmax=6000.0)

    def narrower(document: dict[str, Any]) -> None:
        document["log_mel"] |= asdict(other)

    first, second = Detector(Path("a.onnx"), tiny()), Detector(Path("b.onnx"), tiny(document=narrower))
    tone = np.sin(2 * np.pi * 2500 * np.arange(160_000) / 16_000).astype(np.float32)
    found = explain(tone, [("a", first, 0), ("b", second, 0)])
    assert found.maps["a"].shape == found.maps["b"].shape == (128, 313)
    centres = mel_frequencies(found.parameters)[1:-1]
    for name in ("a", "b"):
        assert centres[found.maps[name][:, 100].argmax()] == pytest.approx(2500, rel=0.05)
