"""`edge-asd calibrate`, from the command line to the daemon that uses what it wrote."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from jsonschema import Draft202012Validator

from edge_asd import cli
from edge_asd.demo.clips import write_dataset
from edge_asd.detector import Detector
from edge_asd.normal_sound import clip_digest
from edge_asd.pipeline import AlarmSettings
from edge_asd.replay import Replayer
from edge_asd.site_calibration import read_site_calibration, site_calibration_path
from edge_asd.state_folder import state_folder

RATE = 16_000
ALARM = "{false_alarms_per_day: 20, raise_after: 1 of 1}"
"""Frequent: found within a second."""


@pytest.fixture(scope="session")
def normal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of normal sound that no detector has heard: 24 clips of a machine called rail."""
    folder = tmp_path_factory.mktemp("normal")
    write_dataset(folder / "simulated", seed=77, ids=("id_00",), train_clips=24, test_normal=1, test_per_fault=0)
    (folder / "simulated" / "slider").rename(folder / "rail")
    shutil.rmtree(folder / "rail" / "test")
    return folder


class Plant:
    """A configuration with one machine, and the command."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self._capsys = folder, capsys
        self.config = folder / "edge.yaml"
        soundfile.write(folder / "short.wav", np.zeros(RATE), RATE, subtype="PCM_16")
        self.machine()

    def machine(self, *detectors: str, name: str = "rail", recordings: str = "short.wav", more: str = "") -> None:
        files = ", ".join(detectors or ("rail.onnx",))
        self.config.write_text(
            f"site: plant\nnode: hall\nmachines:\n  - {{name: {name}, recordings: {recordings}, detectors: [{files}], "
            f"alarm: {ALARM}{more}}}\n"
        )

    def calibrate(self, *arguments: str | Path, machine: str = "rail") -> tuple[int, str, str]:
        self._capsys.readouterr()
        status = cli.main(["calibrate", "-c", str(self.config), "--machine", machine, *map(str, arguments)])
        said = self._capsys.readouterr()
        assert "Traceback" not in said.err
        return status, said.out, said.err

    def run(self, *arguments: str | Path, **environment: str) -> tuple[int, list[dict[str, Any]], str]:
        """The daemon, until its recording of a second has been played."""
        done = subprocess.run(
            [
                *(sys.executable, "-m", "edge_asd.cli", "run", "-c", self.config, "--until-end", "--log", "json"),
                *map(str, arguments),
            ],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env=os.environ | environment,
        )
        return done.returncode, [json.loads(line) for line in done.stdout.splitlines()], done.stderr


@pytest.fixture
def plant(
    tmp_path: Path, tiny: Callable[..., bytes], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Plant:
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)
    (tmp_path / "rail.onnx").write_bytes(tiny())
    return Plant(tmp_path, capsys)


def threshold(lines: list[dict[str, Any]]) -> str:
    (found,) = [line["text"] for line in lines if line["event"] == "operating_point"]
    return str(found).split(" for ")[0]


def test_from_recordings_to_the_daemons_threshold(
    plant: Plant, site_file: Path, normal: Path, schema: Callable[[str], Draft202012Validator]
) -> None:
    shutil.copy(site_file, plant.folder / "rail.onnx")
    path = state_folder(plant.config) / "rail.rail.calibration.json"
    before = plant.run()[1]
    status, out, errors = plant.calibrate("--from", normal, "--dry-run")
    assert (status, errors) == (0, "") and not path.exists() and f"not written, as --dry-run says: {path}" in out
    status, said, errors = plant.calibrate("--from", normal)
    assert (status, errors) == (0, "")
    assert said.splitlines()[:-2] == out.splitlines()[:-1], "the dry run shows it all"
    document = json.loads(path.read_text())
    schema("calibration").validate(document)
    detector = Detector(site_file, site_file.read_bytes())
    assert (document["sha256"], document["machine"], document["id"]) == (detector.sha256, "rail", "id_00")
    replayer = Replayer([detector], AlarmSettings(), hop_seconds=10.0)
    replayed = [replayer.replay_file(p).score for p in sorted((normal / "rail" / "train").iterdir())]
    assert document["calibration"]["scores"] == replayed, "to the bit"
    assert document["calibration"]["stretches"] == [1] * 24 and document["calibration"]["sound"] is not None
    assert "rail: 24 normal windows in 24 stretches, 0.07 hours, level -3" in out
    old, new = detector.metadata.calibration["id_00"], read_site_calibration(path).calibration
    assert f"score at rarity 2: {old.score_at(2.0):.3f} before, {new.score_at(2.0):.3f} after" in out
    beyond = sum(old.rarity(s) >= 1 for s in new.scores)
    assert f"past rarity 1: {beyond} of 24 windows" in out and "95 % interval" in out
    assert "false alarms a day" in out and "roughly" in out and "The range says" in out
    assert "cannot be checked" not in out, "the detector says which clips it was trained on"
    status, lines, _ = plant.run()
    (told,) = [line for line in lines if line["event"] == "calibration"]
    assert (told["file"], told["windows"], told["level"]) == (str(path), 24, "info")
    assert status == 0 and threshold(lines) != threshold(before)
    assert f"after:  {threshold(lines)} for 20 false alarms" in said


def test_the_state_folder(plant: Plant, normal: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = plant.folder / "state"
    assert plant.calibrate("--from", normal, "--state", state)[0] == 0
    (path,) = state.iterdir()
    assert path.name == "rail.rail.calibration.json"
    for lines in (plant.run("--state", state)[1], plant.run(STATE_DIRECTORY=str(state))[1]):
        assert [line["file"] for line in lines if line["event"] == "calibration"] == [str(path)]
    assert not [line for line in plant.run()[1] if line["event"] == "calibration"]
    monkeypatch.setenv("STATE_DIRECTORY", str(state))
    status, out, _ = plant.calibrate("--from", normal)
    assert status == 0 and f"written: {path} (the former one is now rail.rail.calibration.former-1.json)" in out
    assert "old calibration: rail.rail.calibration.json, 24 windows" in out


def test_of_another_detector_it_is_not_used_and_that_is_said(
    plant: Plant, normal: Path, tiny: Callable[..., bytes]
) -> None:
    plant.calibrate("--from", normal)
    (plant.folder / "rail.onnx").write_bytes(tiny(document=lambda d: d.update(made="later")))
    status, lines, _ = plant.run()
    (warning,) = [line for line in lines if line["event"] == "calibration_not_used"]
    assert status == 0 and warning["level"] == "warning" and warning["machine"] == "rail"
    assert "rail.rail.calibration.json: is for another detector file" in warning["reason"]
    assert not [line for line in lines if line["event"] == "calibration"]
    status, out, errors = plant.calibrate("--from", normal)
    assert status == 0 and "not used: " in errors and "is for another detector file" in errors
    assert "old calibration: the detector's own" in out
    assert [line["event"] for line in plant.run()[1]].count("calibration") == 1


def test_a_damaged_file_stops_the_daemon_and_calibrating_mends_it(plant: Plant, normal: Path) -> None:
    path = site_calibration_path(plant.folder / "rail.onnx", "rail", None)
    path.write_text('{"schema": 1,\n oh')
    status, _, errors = plant.run()
    assert status == 78
    assert errors.startswith(f"edge-asd: {plant.config}:4:") and f"{path}:2:2: is damaged" in errors
    assert plant.calibrate("--from", normal)[0] == 0
    assert plant.run()[0] == 0


def test_clips_that_were_trained_on_are_left_out(plant: Plant, normal: Path, tiny: Callable[..., bytes]) -> None:
    data = plant.folder / "data"
    shutil.copytree(normal, data)
    clips = sorted((data / "rail" / "train").iterdir())
    began = datetime(2026, 1, 2, tzinfo=UTC)
    with (data / "rail" / "manifest.jsonl").open("w") as manifest:
        for number, clip in enumerate(clips):
            start = (began + timedelta(seconds=10 * number)).isoformat()
            manifest.write(json.dumps({"clip": f"train/{clip.name}", "session": "a", "start": start}) + "\n")

    def knows(*numbers: int) -> bytes:
        return tiny(document=lambda d: d.update(data={"clips_sha256": [clip_digest(clips[n]) for n in numbers]}))

    (plant.folder / "rail.onnx").write_bytes(knows(4, 5))
    (plant.folder / "other.onnx").write_bytes(knows(20))
    plant.machine("rail.onnx", "other.onnx")
    status, out, _ = plant.calibrate("--from", data)
    assert status == 0 and "left out: 2 beside those, 3 trained on" not in out
    assert "3 trained on" in out and "4 beside those" in out and "cannot be checked" not in out
    state = state_folder(plant.config)
    found = [read_site_calibration(state / f"{n}.rail.calibration.json").calibration for n in ("rail", "other")]
    assert [c.stretches for c in found] == [(3, 12, 2)] * 2
    assert found[0].sound == found[1].sound is not None
    (plant.folder / "rail.onnx").write_bytes(knows(*range(18)))
    status, out, errors = plant.calibrate("--from", data)
    assert (status, out) == (2, "")
    assert "calibrate: 2 normal windows remain of 24 clips; at least 8 are needed" in errors
    assert "19 trained on" in errors and "3 beside those" in errors


def test_what_the_daemon_would_not_score_does_not_count(plant: Plant, normal: Path) -> None:
    data = plant.folder / "data"
    shutil.copytree(normal / "rail", data)
    rng = np.random.default_rng(1)
    for name, sound in {
        "quiet": 1e-4 * rng.standard_normal(10 * RATE),
        "dead": np.r_[0.1 * rng.standard_normal(7 * RATE), np.zeros(3 * RATE)],
        "short": 0.1 * rng.standard_normal(4 * RATE),
    }.items():
        soundfile.write(data / f"{name}.wav", sound, RATE, subtype="PCM_24")
    shutil.copy(data / "quiet.wav", data / "train" / "quiet.wav")
    for name in ("dead", "short"):
        shutil.move(data / f"{name}.wav", data / "train" / f"{name}.wav")
    (data / "train" / "broken.wav").write_bytes(b"RIFF")
    plant.machine(more=", active_when: {level_above_dbfs: -60}")
    status, out, errors = plant.calibrate("--from", data)
    assert status == 1 and "broken.wav" in errors, "named; the rest was done"
    assert "rail: 24 normal windows" in out and "written" in out
    assert all(f"1 {reason}" in out for reason in ("idle", "silence", "too short"))


def test_the_machines_own_recordings(plant: Plant, normal: Path) -> None:
    plant.machine(recordings=str(normal / "rail"))
    status, out, _ = plant.calibrate("--dry-run")
    assert status == 0 and "24 normal windows" in out


def test_a_fixed_threshold_and_a_sound_that_is_all_other(plant: Plant, normal: Path) -> None:
    text = plant.config.read_text().replace(ALARM, "{threshold: 2.5}")
    plant.config.write_text(text)
    status, out, _ = plant.calibrate("--from", normal, "--dry-run")
    assert status == 0 and "before: threshold 2.50, as the configuration says" in out
    assert "false alarms: " in out


@pytest.mark.parametrize(
    ("arguments", "machine", "status", "complaint"),
    [
        (["--from", "gone"], "rail", 1, "gone: does not exist"),
        (["--from", "x"], "fan", 2, "the configuration has no machine 'fan'; it has rail"),
        (["--from", "x", "--channel", "0"], "rail", 2, "channels are counted from 1"),
        (["--hours", "1"], "rail", 2, "there are recordings to take instead"),
        ([], "rail", 2, "0 normal windows remain of 1 clips"),
    ],
)
def test_what_cannot_be(plant: Plant, arguments: list[str], machine: str, status: int, complaint: str) -> None:
    found, out, errors = plant.calibrate(*arguments, machine=machine)
    assert (found, out) == (status, "") and complaint in errors


def test_a_machine_that_listens_says_where_to_begin(plant: Plant) -> None:
    plant.config.write_text(
        "site: plant\nnode: hall\ndevice: {name: any}\nmachines:\n"
        "  - {name: rail, channel: 1, detectors: [rail.onnx]}\n  - {name: bare, channel: 1}\n"
    )
    status, _, errors = plant.calibrate()
    assert status == 2 and "`edge-asd record`" in errors and "--hours" in errors
    status, _, errors = plant.calibrate(machine="bare")
    assert status == 78 and f"{plant.config}:6:" in errors and "bare has no detectors" in errors
