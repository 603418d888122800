"""A tiny autoencoder, end to end; and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from edge_asd_train.cae_network import PRESETS, CaeSettings
from edge_asd_train.cli import main
from edge_asd_train.corpus import load_windows, read_clips

from edge_asd.verification import load_detector

TINY = ["--id", "id_00", "--folds", "2", "--iterations", "60", "--batch", "16", "--learning-rate", "0.005"]
TINY += ["--channels", "6", "8", "12", "16"]


def test_a_tiny_autoencoder_end_to_end(dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "slider.cae.onnx"
    assert main(["cae", "--data", str(dataset), "--machine", "slider", "--out", str(out), *TINY]) == 0
    said = capsys.readouterr().out
    assert f"{out}: cae for slider (id_00)" in said and "on held-out normal clips: mse_over_variance 0." in said
    detector = load_detector(out)
    told = detector.metadata.settings
    assert (told["preset"], told["iterations"], told["folds"], told["crop_frames"]) == ("default", 60, 2, 64)
    assert 0 < told["collapse"]["mse_over_variance"] < 0.8 and not told["collapse"]["collapsed"]

    # Scores of faulty clips are higher, by the detector's own score and beside the trivial scorers.
    test = dataset.parent / "only-id-00"
    for split in ("train", "test"):
        (test / "slider" / split).mkdir(parents=True)
        for clip in (dataset / "slider" / split).glob("*_id_00_*"):
            (test / "slider" / split / clip.name).symlink_to(clip)
    assert main(["evaluate", str(out), "--data", str(test), "--json"]) == 0
    scorers = json.loads(capsys.readouterr().out)["machines"]["slider"]["scorers"]
    assert {"cae", "cae, report_score", "cae, mean_image", "energy", "distance to the mean log-Mel"} <= set(scorers)
    assert scorers["cae"]["auc"]["value"] > 0.8

    faulty = [clip for clip in read_clips(test, "slider", "test") if clip.is_anomaly][:1]
    found = detector.score(load_windows(faulty, detector.log_mel_parameters, title="one").log_mel[0])
    assert found.report_score is not None and found.report_score > 0
    assert found.anomaly_map.shape == (128, 313) and np.isfinite(found.anomaly_map).all()

    # Without its network it is another detector; the error left is then the variance of the standardised image.
    image = load_windows(faulty, detector.log_mel_parameters, title="one").log_mel[0]
    without = detector.score(image, ablation="mean_image")
    assert without.score != found.score and without.report_score is not None
    assert without.report_score > found.report_score


def test_a_network_that_learnt_nothing_is_refused(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "x.onnx"
    stingy = [*TINY[:4], "--batch", "4", "--iterations", "1", "--learning-rate", "1e-6"]
    arguments = ["cae", "--data", str(dataset), "--machine", "slider", "--out", str(out), *stingy]
    assert main(arguments) == 1
    error = capsys.readouterr().err
    assert "collapsed: the reconstruction leaves" in error and "--allow-collapse" in error and not out.exists()
    assert "1 of" not in error.rpartition("\r")[2], "no progress bar after the message"

    assert main([*arguments, "--allow-collapse", "--no-statistics"]) == 0
    marked = load_detector(out).metadata.settings["collapse"]
    assert marked["collapsed"] and marked["allowed"] and marked["mse_over_variance"] > 0.8
    assert "collapsed True" in capsys.readouterr().out


@pytest.mark.parametrize("skip", [True, False])
@pytest.mark.parametrize("normalisation", ["global", "none"])
def test_the_reports_autoencoders(dataset: Path, tmp_path: Path, skip: bool, normalisation: str) -> None:
    """All four of its table: the score is the reconstruction error and nothing else."""
    out = tmp_path / "report.onnx"
    told = ["--skip" if skip else "--no-skip", "--normalisation", normalisation]
    short = ["--id", "id_00", "--folds", "2", "--epochs", "2", "--channels", "4", "4", "4", "4"]
    arguments = ["cae", "--data", str(dataset), "--machine", "slider", "--out", str(out), "--preset", "report"]
    assert main([*arguments, *told, *short]) == 0
    detector = load_detector(out)
    settings = detector.metadata.settings
    assert (settings["preset"], settings["epochs"], settings["dropout"]) == ("report", 2, PRESETS["report"].dropout)
    assert settings["collapse"]["allowed"] and settings["skip"] == skip and settings["normalisation"] == normalisation
    window = load_windows(read_clips(dataset, "slider", "test")[:1], detector.log_mel_parameters, title="one")
    found = detector.score(window.log_mel[0])
    assert found.score == found.report_score == pytest.approx(found.anomaly_map.mean(), rel=1e-4)
    assert detector.score(window.log_mel[0], ablation="mean_image").score != found.score


def test_the_same_seed_gives_the_same_scores(dataset: Path, tmp_path: Path) -> None:
    scores = []
    for name, seed in (("a", "0"), ("b", "0"), ("c", "1")):
        out = tmp_path / f"{name}.onnx"
        few = ["--data", str(dataset), "--machine", "slider", "--out", str(out), "--id", "id_00", "--folds", "2"]
        assert main(["cae", *few, "--preset", "report", "--epochs", "1", "--seed", seed]) == 0
        scores.append(load_detector(out).metadata.calibration["id_00"].scores)
    assert scores[0] == scores[1] != scores[2]


@pytest.mark.parametrize(
    "wrong",
    [
        {"crop_frames": 60},
        {"crop_frames": 0},
        {"iterations": 0},
        {"epochs": -1},
        {"channels": (8, 8, 8)},
        {"normalisation": "yes"},
        {"batch": 0},
        {"dropout": 1.0},
        {"dropout": float("nan")},
        {"learning_rate": float("nan")},
        {"learning_rate": -1.0},
    ],
)
def test_settings_that_cannot_be(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        CaeSettings(**wrong)  # type: ignore[arg-type]


def test_crops_longer_than_a_window(dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["cae", "--data", str(dataset), "--machine", "slider", "--out", str(tmp_path / "x.onnx"), *TINY]
    assert main([*arguments, "--crop-frames", "320"]) == 2
    error = capsys.readouterr().err
    assert "edge-asd-train: crop_frames 320 is more than the 313 frames of a window\n" in error


@pytest.mark.parametrize(
    ("kind", "stated", "read"),
    [
        ("cae", "default: 0; report: 100)", "default: 0.003; report: 0.001, our reading)"),
        ("anogan", "default: 64; report: 100)", "default: 16; report: 500, our reading)"),
    ],
)
def test_help_tells_what_the_report_states_from_our_reading(
    capsys: pytest.CaptureFixture[str], kind: str, stated: str, read: str
) -> None:
    with pytest.raises(SystemExit, match="0"):
        main([kind, "--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert stated in said and read in said
