"""What training reads: a site's own continuous recordings, and the other machines of the site."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from edge_asd_train import statistics
from edge_asd_train.clip_scorer import Images, fit_clip_scorer
from edge_asd_train.corpus import CorpusError, digests, read_clips
from edge_asd_train.splits import GUARD_SECONDS, SplitError
from edge_asd_train.statistics import levelled
from edge_asd_train.training import read_training_set

from edge_asd.clip_folder import MANIFEST

BEGIN = datetime(2026, 11, 2, 6, 0, 0, tzinfo=UTC)
PAUSE_AFTER = 13


@pytest.fixture(scope="module")
def recorded(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 clips as ``edge-asd record`` leaves them: one session, a pause, another."""
    data = tmp_path_factory.mktemp("site")
    folder = data / "press" / "train"
    folder.mkdir(parents=True)
    clips = [c for c in read_clips(dataset, "slider", "train") if c.machine_id == "id_00"]
    lines = [json.dumps({"schema": 1, "refused": "gap", "seconds": 30.0})]
    for number, clip in enumerate(clips):
        name = f"normal_id_00_{number:08d}.flac"
        shutil.copy(clip.path, folder / name)
        start = BEGIN + timedelta(seconds=10 * number + (7200 if number > PAUSE_AFTER else 0))
        lines.append(json.dumps({"schema": 1, "clip": f"train/{name}", "start": start.isoformat()}))
    (folder.parent / MANIFEST).write_text("\n".join(lines) + "\n")
    return data


def test_continuous_recordings_are_split_by_time(recorded: Path) -> None:
    training = read_training_set(recorded, "press", folds=2)
    assert training.starts is not None and len(training.starts) == 24
    for split in (training.split, training.fine_split):
        for fit, out in split.parts():
            assert fit.any() and out.any()
            assert np.abs(training.starts[fit][:, None] - training.starts[out]).min() >= GUARD_SECONDS


def test_their_calibration_keeps_what_follows_on_what(recorded: Path, tmp_path: Path) -> None:
    detector = statistics.train(read_training_set(recorded, "press"), tmp_path / "press.onnx")
    assert detector.metadata.calibration["id_00"].stretches == (PAUSE_AFTER + 1, 24 - PAUSE_AFTER - 1)
    clips = read_clips(recorded, "press", "train")
    assert detector.metadata.data["clips_sha256"] == digests(clips) and len(set(digests(clips))) == 24


def test_too_short_a_recording(recorded: Path, tmp_path: Path) -> None:
    shutil.copytree(recorded / "press", tmp_path / "press")
    for path in sorted((tmp_path / "press" / "train").iterdir())[PAUSE_AFTER:]:
        path.unlink()
    with pytest.raises(SplitError, match="record for longer"):
        read_training_set(tmp_path, "press")


def test_a_clip_that_was_put_there_by_hand_is_named(recorded: Path, tmp_path: Path) -> None:
    shutil.copytree(recorded / "press", tmp_path / "press")
    folder = tmp_path / "press" / "train"
    shutil.copy(folder / "normal_id_00_00000003.flac", folder / "normal_id_00_00000090.flac")
    with pytest.raises(CorpusError, match=r"normal_id_00_00000090\.flac: is not in the manifest"):
        read_training_set(tmp_path, "press")


def test_a_line_that_a_crash_cut_off_is_no_line(recorded: Path, tmp_path: Path) -> None:
    shutil.copytree(recorded / "press", tmp_path / "press")
    with (tmp_path / "press" / MANIFEST).open("a") as file:
        file.write('{"schema": 1, "clip": "train/norm')
    assert len(read_training_set(tmp_path, "press").clips) == 24


def test_a_manifest_that_cannot_be_read(recorded: Path, tmp_path: Path) -> None:
    shutil.copytree(recorded / "press", tmp_path / "press")
    manifest = tmp_path / "press" / MANIFEST
    manifest.write_text(manifest.read_text() + json.dumps({"clip": "train/x.flac", "start": "yesterday"}) + "\n")
    with pytest.raises(CorpusError, match=rf"{manifest}:26: is not a line that edge-asd record writes"):
        read_training_set(tmp_path, "press")


def test_background(dataset: Path, recorded: Path) -> None:
    """Other machines, and other ids of the machine itself, are named, and change the covariance."""

    def read(*background: Path) -> tuple[dict[str, int], list[float]]:
        training = read_training_set(dataset, "slider", ids=["id_02"], background=background)
        own = Images(levelled(training.log_mel), training.machine_index)
        others = [replace(b.images, values=levelled(b.images.values)) for b in training.background]
        held_out = fit_clip_scorer(own, 1, training.fine_split, background=others).held_out
        return {b.name: b.clips for b in training.background}, held_out.tolist()

    alone, other, site = read(), read(recorded / "press"), read(recorded, dataset, recorded / "press")
    assert alone[0] == {} and other[0] == {"press": 24}
    assert site[0] == {"press": 24, "slider": 24}, "the other id, and no folder twice"
    assert alone[1] != other[1] != site[1]


def test_no_background_there(dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=f"{tmp_path}: holds no machine's folder with normal sound in train"):
        read_training_set(dataset, "slider", background=[tmp_path])
    all_of_it = read_training_set(dataset, "slider", background=[dataset / "slider"])
    assert all_of_it.background == (), "the machine itself is no background"
    copied = shutil.copytree(dataset / "slider", tmp_path / "copy" / "press")
    assert read_training_set(dataset, "slider", background=[copied]).background == (), "nor is a copy of it"
