"""`edge-asd record` and `edge-asd devices` as their user runs them, in front of a real sound server."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from parts.daemon import Daemon, write_config
from parts.sound_server import SoundServer, VirtualMicrophone
from parts.waiting import until

from edge_asd.demo.clips import simulate

pytestmark = pytest.mark.system

RATE = 16_000


@pytest.fixture
def server(tmp_path: Path) -> Iterator[SoundServer]:
    server = SoundServer(tmp_path / "sound").start()
    yield server
    server.kill()


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Two machines at one microphone; the second counts as running only when it is loud."""
    return write_config(
        tmp_path / "hall.yaml",
        "name: rail-7, channel: 1",
        "name: loud, channel: 1, active_when: {level_above_dbfs: -20}",
        "name: old, recordings: sounds, detectors: [x.onnx]",
        mqtt=None,
        device="name: vmic",
    )


class Recording:
    """The command as a process."""

    def __init__(self, server: SoundServer, config: Path, out: Path, machine: str, *options: str) -> None:
        arguments = ["record", "-c", str(config), "--machine", machine, "--out", str(out), *options]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "edge_asd.cli", *arguments],
            env=os.environ | server.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def end(self, seconds: float = 60) -> tuple[int, str, str]:
        out, errors = self.process.communicate(timeout=seconds)
        return self.process.returncode, out, errors


def manifest(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]


def clips(folder: Path) -> list[Path]:
    return sorted((folder / "train").glob("*.flac"))


def test_clips_are_what_was_played_and_train_a_detector(server: SoundServer, config: Path, tmp_path: Path) -> None:
    played = simulate("id_00", 60, seed=80)
    soundfile.write(tmp_path / "rail.wav", played, RATE, subtype="PCM_16")
    played, _ = soundfile.read(tmp_path / "rail.wav", dtype="float32")
    player = server.play(tmp_path / "rail.wav")
    out = tmp_path / "data"
    status, said, progress = Recording(server, config, out, "rail-7", "--hours", str(40 / 3600)).end()
    player.kill()
    player.wait()
    assert status == 0, progress
    assert re.search(r"rail-7/train: 4 clips, 0:00:40, \d+ MB\n", said) and "edge-asd-train statistics" in said
    assert re.search(r"^0:00:00 of 0:00:40", progress, re.MULTILINE)
    paths = clips(out / "rail-7")
    assert [p.name for p in paths] == [f"normal_id_00_{n:08d}.flac" for n in range(4)]
    heard = np.concatenate([soundfile.read(p, dtype="float32")[0] for p in paths])
    first = int(np.flatnonzero(heard)[0])
    start = int(
        np.flatnonzero(
            np.all(heard[first : first + 32] == played[np.arange(32)[:, None] + np.arange(played.size - 32)].T, axis=1)
        )[0]
    )
    assert np.array_equal(heard[first:], played[start : start + heard.size - first]), "to the bit, across clips"
    lines = manifest(out / "rail-7")
    assert [line["clip"] for line in lines] == [f"train/{p.name}" for p in paths]
    starts = [np.datetime64(line["start"].rstrip("Z")) for line in lines]
    assert all(abs((b - a) / np.timedelta64(1, "s") - 10) < 0.02 for a, b in pairwise(starts))
    for line, path in zip(lines, paths, strict=True):
        sound, _ = soundfile.read(path)
        assert line["level_dbfs"] == pytest.approx(10 * np.log10(np.mean(sound**2)), abs=0.02)
        assert line["clock_synchronised"] in (True, False) and line["device"] == "vmic" and line["channel"] == 1
    assert len({line["session"] for line in lines}) == 1


def test_killed_and_gone_on_with(server: SoundServer, config: Path, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "rail.wav", simulate("id_00", 100, seed=81), RATE, subtype="PCM_16")
    player = server.play(tmp_path / "rail.wav")
    out, folder = tmp_path / "data", tmp_path / "data" / "rail-7"
    hours = ("--hours", str(50 / 3600))
    first = Recording(server, config, out, "rail-7", *hours)
    until(lambda: len(clips(folder)) == 2, "two clips", 30)
    first.process.kill()
    first.end()
    left = folder / "train" / ".normal_id_00_00000002.flac.part"
    left.write_bytes(b"half a clip")
    with (folder / "manifest.jsonl").open("a") as file:
        file.write('{"schema": 1, "clip": "train/norm')
    second = Recording(server, config, out, "rail-7", *hours)
    until(lambda: len(clips(folder)) == 3, "another clip", 20)
    second.process.send_signal(signal.SIGINT)
    status, said, progress = second.end()
    assert status == 1 and "stopped before the end; the same command goes on from here" in said
    assert "going on: 0:00:20 are there already" in progress
    status, said, _ = Recording(server, config, out, "rail-7", *hours).end()
    assert status == 0 and "5 clips, 0:00:50" in said
    player.kill()
    player.wait()
    assert [p.name[-13:-5] for p in clips(folder)] == ["00000000", "00000001", "00000010", "00000020", "00000021"]
    assert not left.exists()
    lines = manifest(folder)
    assert [line["clip"][-13:-5] for line in lines if "clip" in line] == [p.name[-13:-5] for p in clips(folder)]
    assert len({line["session"] for line in lines}) == 3
    status, said, _ = Recording(server, config, out, "rail-7", *hours).end()
    assert status == 0 and said == f"{folder / 'train'}: 0:00:50 are there already\n"


def test_what_is_no_normal_sound_is_refused(server: SoundServer, config: Path, tmp_path: Path) -> None:
    """Silence, a machine that stands still, a lost device; then what is wanted."""
    noise = np.random.default_rng(3).standard_normal(60 * RATE)
    sound = np.concatenate([0.01 * noise[: 22 * RATE], 0.2 * noise[: 38 * RATE]])
    soundfile.write(tmp_path / "noise.wav", sound, RATE, subtype="PCM_16")
    out, folder = tmp_path / "data", tmp_path / "data" / "loud"
    recording = Recording(server, config, out, "loud", "--hours", str(20 / 3600))
    time.sleep(13)  # silence
    player = server.play(tmp_path / "noise.wav")
    until(lambda: clips(folder), "a clip", 60)
    server.kill()
    player.wait()
    time.sleep(2)
    server.start()
    player = server.play(tmp_path / "noise.wav")
    until(lambda: len(clips(folder)) == 2, "the last clip", 60)
    status, said, progress = recording.end()
    player.kill()
    player.wait()
    assert status == 0
    assert "no signal: the sound system has ended the stream of 'vmic'" in progress
    assert "refused: digital silence for " in progress
    refused = [line for line in manifest(folder) if "refused" in line]
    assert {line["refused"] for line in refused} - {"gap"} == {"silence", "idle"}, "a gap may lie between two windows"
    assert all(line["seconds"] > 0 and (line["lost_seconds"] > 0) == (line["refused"] == "gap") for line in refused)
    before, after = (line["gap_before_seconds"] for line in manifest(folder) if "clip" in line)
    assert before == 0 and 2 <= after <= 12
    assert re.search(r"windows refused: .*\d+ idle", said)
    assert all(np.mean(soundfile.read(p)[0] ** 2) > 0.01 for p in clips(folder))


def test_a_device_that_is_held_or_absent_is_an_error_at_once(
    server: SoundServer, config: Path, tmp_path: Path, site_file: Path
) -> None:
    daemon_config = write_config(
        tmp_path / "press.yaml",
        f"name: rail-7, channel: 1, detectors: [{site_file}]",
        mqtt=None,
        device="name: vmic",
    )
    daemon = Daemon(daemon_config, **server.environment)
    try:
        daemon.wait_for("device_heard")
        status, said, errors = Recording(server, config, tmp_path / "data", "rail-7", "--hours", "1").end()
        assert (status, said) == (1, "")
        command = f"run -c {daemon_config} --log json (pid {daemon.process.pid})"
        assert re.search(rf"edge-asd: 'vmic' is held by .*{re.escape(command)}\n$", errors), errors
        assert daemon.terminate() == 0
    finally:
        daemon.kill()
    server.kill()
    status, _, errors = Recording(server, config, tmp_path / "data", "rail-7", "--hours", "1").end()
    assert (status, errors) == (1, "edge-asd: no input 'vmic' is there; inputs are: none\n")


@pytest.mark.parametrize(
    ("machine", "status", "words"),
    [
        ("rail-9", 2, "the configuration has no machine 'rail-9'; it has rail-7, loud, old"),
        ("old", 2, "old plays recordings; give it a channel of the device to record from"),
    ],
)
def test_a_machine_that_cannot_be_recorded(
    server: SoundServer, config: Path, tmp_path: Path, machine: str, status: int, words: str
) -> None:
    found, _, errors = Recording(server, config, tmp_path / "data", machine, "--hours", "1").end()
    assert found == status and words in errors and errors.count("\n") == 1


def test_a_disk_budget_is_kept(server: SoundServer, config: Path, tmp_path: Path) -> None:
    noise = np.random.default_rng(4).integers(-20_000, 20_000, 60 * RATE).astype(np.int16)
    soundfile.write(tmp_path / "noise.wav", noise, RATE)
    player = server.play(tmp_path / "noise.wav")
    out = tmp_path / "data"
    status, _, errors = Recording(server, config, out, "rail-7", "--hours", "1", "--max-gigabytes", "0.001").end()
    player.kill()
    player.wait()
    assert status == 1
    assert f"edge-asd: {out / 'rail-7'}: the disk budget of 0.001 GB is used up; see --max-gigabytes\n" in errors
    sizes = [p.stat().st_size for p in clips(out / "rail-7")]
    assert len(sizes) >= 1 and sum(sizes) <= 1_000_000
    assert len(manifest(out / "rail-7")) == len(sizes)


def test_devices(tmp_path: Path) -> None:
    server = SoundServer(tmp_path / "sound", VirtualMicrophone("stereo", 48_000, 2), VirtualMicrophone("vmic")).start()
    sound = np.zeros((20 * 48_000, 2))
    sound[:, 1] = 0.1
    sound[::2, 1] = -0.1
    soundfile.write(tmp_path / "tone.wav", sound, 48_000, subtype="PCM_16")
    player = server.play(tmp_path / "tone.wav", "stereo")

    def devices(*options: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "edge_asd.cli", "devices", *options],
            env=os.environ | server.environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    try:
        config = write_config(tmp_path / "a.yaml", "name: m, channel: 2", mqtt=None, device="name: stereo")
        shown = devices("-c", str(config))
        assert (shown.returncode, shown.stderr) == (0, "")
        assert re.search(
            r"^\* 'stereo'  2 channel\(s\), 48 kHz, source stereo\n"
            r"      1: \[ {20}\]     silence   2: \[#{15} {5}\]  -20\.0 dBFS$",
            shown.stdout,
            re.MULTILINE,
        ), shown.stdout
        assert "  'vmic'  1 channel(s), 16 kHz, source vmic\n" in shown.stdout
        assert shown.stdout.endswith("\n* is what the configuration takes.\n")
        document = json.loads(devices("-c", str(config), "--json").stdout)
        taken = [d for d in document["devices"] if d["taken_by_configuration"]]
        assert [(d["name"], d["rates"], d["channels"]) for d in taken] == [("stereo", [48_000], 2)]
        config = write_config(tmp_path / "b.yaml", "name: m, channel: 2", mqtt=None, device="name: ster")
        shown = devices("-c", str(config))
        assert (
            shown.returncode == 1 and "The configuration takes none of them: no input 'ster' is there" in shown.stdout
        )
        server.suspend("stereo", True)
        assert re.search(r"'stereo'.*\n      gives no samples within 2.5 s", devices().stdout)
    finally:
        player.kill()
        player.wait()
        server.kill()
    shown = devices()
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "no inputs: is a microphone plugged in" in shown.stdout
