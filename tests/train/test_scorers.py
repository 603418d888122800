"""Windows are scored in as many threads as there are cores, and the scores are those of one after another."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edge_asd_train.corpus import Windows
from edge_asd_train.scorers import AS_IT_IS, Member, score_windows

from edge_asd.detector import Detector
from edge_asd.errors import DetectorError

COUNT = 300
"""More than are handed to the threads at once."""


@pytest.fixture
def member(tiny: Callable[..., bytes]) -> Member:
    return Member("tiny", (Detector(Path("tiny.onnx"), tiny()),))


def windows(values: np.ndarray) -> Windows:
    """Each of one value, which is its score."""
    log_mel = np.broadcast_to(values.astype(np.float32)[:, None, None], (len(values), 128, 313))
    nothing = np.zeros(len(values))
    return Windows(log_mel, nothing, np.arange(len(values)), nothing)


def test_in_order_and_identical_to_the_bit(member: Member) -> None:
    given = windows(np.random.default_rng(0).normal(-50, 9, COUNT))
    found = score_windows([member], given, ["id_00"] * COUNT, title="many")["tiny"]
    detector = member.detectors[0]
    calibration = detector.metadata.calibration["id_00"]
    one_by_one = [detector.score(window).score for window in given.log_mel]
    assert found.scores[AS_IT_IS.label].tolist() == one_by_one
    assert found.rarity.tolist() == [calibration.rarity(score) for score in one_by_one]


def test_two_windows_at_the_same_time(member: Member, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each waits for another to be scored beside it: one after another they would wait for ever."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    together, plain = threading.Barrier(2, timeout=30), Detector.score

    def score(self: Detector, *arguments: Any, **more: Any) -> Any:
        together.wait()
        return plain(self, *arguments, **more)

    monkeypatch.setattr(Detector, "score", score)
    found = score_windows([member], windows(np.arange(4.0)), ["id_00"] * 4, title="four")["tiny"]
    assert found.scores[AS_IT_IS.label].tolist() == [0.0, 1.0, 2.0, 3.0]


def test_one_that_cannot_be_scored(member: Member) -> None:
    spoilt = np.arange(float(COUNT))
    spoilt[3] = np.nan
    with pytest.raises(DetectorError, match="gave a score of nan"):
        score_windows([member], windows(spoilt), ["id_00"] * COUNT, title="many")
    assert threading.active_count() == 1 or not any("ThreadPool" in t.name for t in threading.enumerate())
