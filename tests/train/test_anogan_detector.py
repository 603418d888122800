"""AnoGAN detectors end to end: the file, its ablations, the report's preset."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from edge_asd_train.anogan_detector import some_of_each
from edge_asd_train.cli import main
from edge_asd_train.corpus import load_windows, read_clips

from edge_asd.detector import Detector
from edge_asd.logmel import Float32Array, LogMelParameters
from edge_asd.verification import load_detector

SMALL = ["--id", "id_00", "--folds", "2", "--generator-channels", "2", "--discriminator-channels", "2"]


def trained(dataset: Path, out: Path, *more: str) -> Detector:
    arguments = ["anogan", "--data", str(dataset), "--machine", "slider", "--out", str(out)]
    assert main([*arguments, *SMALL, "--encoder-channels", "2", "--allow-collapse", *more]) == 0
    return load_detector(out)


@pytest.fixture(scope="module")
def windows(dataset: Path) -> Float32Array:
    clips = [c for c in read_clips(dataset, "slider", "test") if c.machine_id == "id_00"][::4]
    return load_windows(clips, LogMelParameters(), title="test").log_mel


@pytest.fixture(scope="module")
def detector(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Detector:
    return trained(dataset, tmp_path_factory.mktemp("anogan") / "a.onnx", "--iterations", "40", "--search-steps", "4")


def test_ablations_change_what_they_name(detector: Detector, windows: Float32Array) -> None:
    """Their scores agree with torch's: the export checks each of them, or there would be no file."""
    assert detector.metadata.ablations == ("mean_image", "untrained_start")
    for window in windows:
        whole = detector.score(window)
        mean = detector.score(window, ablation="mean_image")
        untrained = detector.score(window, ablation="untrained_start")
        assert len({whole.score, mean.score, untrained.score}) == 3
        assert whole.report_score is not None and untrained.report_score is not None
        assert mean.report_score == whole.report_score, "A(x) is the search's, whatever is scored"
        # The loss of a search with few steps from z = 0 differs from one that an encoder starts.
        assert untrained.report_score != whole.report_score


def test_the_mean_image_does_not_depend_on_the_search(detector: Detector, windows: Float32Array) -> None:
    scores = [detector.score(windows[0], search_steps=n, ablation="mean_image").score for n in (0, 4)]
    assert scores[0] == pytest.approx(scores[1], abs=1e-5)


def test_without_a_step_and_without_an_encoder_every_crop_gets_the_same_image(
    detector: Detector, windows: Float32Array
) -> None:
    first, second = (detector.score(w, search_steps=0, ablation="untrained_start").report_score for w in windows[:2])
    assert first is not None and second is not None and first != second
    searched = [detector.score(windows[0], search_steps=n).report_score for n in (0, 4, 20)]
    assert sorted(set(searched), reverse=True) == searched, "more steps never make it worse, and some make it better"


def test_what_collapse_looks_like_is_noted(detector: Detector) -> None:
    noted = detector.metadata.settings["collapse"]
    assert noted["allowed"] and noted["variety"] > 0 and noted["mse_over_variance"] > 0


def test_the_reports_preset_scores_by_its_loss(dataset: Path, windows: Float32Array, tmp_path: Path) -> None:
    short = ["--epochs", "1", "--batch-crops", "4", "--batch-draws", "4", "--latent", "8", "--search-steps", "2"]
    report = trained(dataset, tmp_path / "r.onnx", "--preset", "report", *short, "--held-out-windows", "9")
    settings, calibration = report.metadata.settings, report.metadata.calibration["id_00"]
    assert len(calibration.scores) == 9 and np.isfinite(calibration.scores).all(), "of 24"
    assert calibration.source.startswith("some of the training clips")
    assert (settings["preset"], settings["learning_rate"], settings["lam"]) == ("report", 0.01, 0.1)
    found = report.score(windows[0])
    assert found.score == found.report_score and np.isfinite(found.anomaly_map).all()
    assert report.score(windows[0], search_steps=8).score <= found.score


def test_some_of_each_are_spread_evenly() -> None:
    index = np.array([0] * 10 + [1] * 3 + [0] * 10)
    fold = np.arange(23) % 2
    chosen = some_of_each(index, fold, 4)
    assert chosen[index == 1].all() and chosen[index == 0].sum() == 4
    assert np.flatnonzero(chosen & (index == 0)).tolist() == [0, 7, 16, 21], "two of each fold"
    assert some_of_each(index, fold, 100).all()
