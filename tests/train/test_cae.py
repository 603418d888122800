"""A tiny autoencoder, end to end; and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from edge_asd_train.cae import CaeSettings
from edge_asd_train.cli import main
from edge_asd_train.corpus import load_windows, read_clips

from edge_asd.verification import load_detector

TINY = ["--id", "id_00", "--folds", "2", "--epochs", "12", "--batch", "32", "--learning-rate", "0.005"]


def test_a_tiny_autoencoder_end_to_end(dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "slider.cae.onnx"
    assert main(["cae", "--data", str(dataset), "--machine", "slider", "--out", str(out), *TINY]) == 0
    said = capsys.readouterr().out
    assert f"{out}: cae for slider (id_00)" in said and "error on held-out normal clips: 0." in said
    detector = load_detector(out)
    told = detector.metadata.settings
    assert (told["epochs"], told["folds"], told["crop_frames"]) == (12, 2, 64)
    assert 0 < told["held_out_mse_over_variance"] < 0.95

    # Scores of faulty clips are higher, by the detector's own score and beside the trivial scorers.
    test = dataset.parent / "only-id-00"
    for split in ("train", "test"):
        (test / "slider" / split).mkdir(parents=True)
        for clip in (dataset / "slider" / split).glob("*_id_00_*"):
            (test / "slider" / split / clip.name).symlink_to(clip)
    assert main(["evaluate", str(out), "--data", str(test), "--json"]) == 0
    scorers = json.loads(capsys.readouterr().out)["machines"]["slider"]["scorers"]
    assert {"cae", "cae, report_score", "energy", "distance to the mean log-Mel"} <= set(scorers)
    assert scorers["cae"]["auc"]["value"] > 0.8

    faulty = [clip for clip in read_clips(test, "slider", "test") if clip.is_anomaly][:1]
    found = detector.score(load_windows(faulty, detector.log_mel_parameters, title="one").log_mel[0])
    assert found.report_score is not None and found.report_score > 0
    assert found.anomaly_map.shape == (128, 313) and np.isfinite(found.anomaly_map).all()


def test_a_network_that_learnt_nothing_is_refused(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "x.onnx"
    stingy = [*TINY[:4], "--epochs", "1", "--learning-rate", "1e-6"]
    assert main(["cae", "--data", str(dataset), "--machine", "slider", "--out", str(out), *stingy]) == 1
    assert "the autoencoder collapsed" in capsys.readouterr().err and not out.exists()


@pytest.mark.parametrize(
    "wrong",
    [
        {"crop_frames": 60},
        {"crop_frames": 0},
        {"epochs": 0},
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
