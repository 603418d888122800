"""PortAudio and a real sound server: what is played is what is heard, to the bit, and every sample is accounted for."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from parts import capture
from parts.sound_server import SoundServer, VirtualMicrophone
from parts.waiting import until

from edge_asd.demo.clips import simulate
from edge_asd.detector import Detector
from edge_asd.logmel import Float32Array
from edge_asd.pipeline import AlarmSettings
from edge_asd.replay import Replayer

pytestmark = pytest.mark.system

RATE = 16_000
BLOCK_SECONDS = 0.1
SOAK_SECONDS = float(os.environ.get("EDGE_ASD_SOAK_SECONDS", "60"))
"""Half an hour and more by hand: EDGE_ASD_SOAK_SECONDS=1800 pytest -m system -k soak."""


class Capture:
    """`parts.capture` as a process."""

    def __init__(self, server: SoundServer, device: str, out: Path, detector: Path | None = None) -> None:
        self.out = out
        self.log = out.with_suffix(".log")
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, capture.__file__, device, str(out), *([str(detector)] if detector else [])],
                env=os.environ | server.environment,
                stdout=log,
                stderr=subprocess.DEVNULL,
            )

    def lines(self) -> list[str]:
        return [line.partition(" ")[2] for line in self.log.read_text().splitlines()]

    def disturbances(self) -> list[str]:
        return [line.split()[0] for line in self.lines() if "heard" not in line]

    def wait_for(self, line: str, seconds: float = 15.0, after: int = 0) -> None:
        until(lambda: any(one.startswith(line) for one in self.lines()[after:]), f"{line!r} in {self.lines()}", seconds)

    def end(self) -> dict[str, np.ndarray]:
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(30) == 0
        return dict(np.load(self.out))

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[SoundServer]:
    server = SoundServer(tmp_path / "sound").start()
    yield server
    server.kill()


def place_of(part: Float32Array, whole: Float32Array) -> int:
    """Where a piece of sound lies in another, to the bit; -1 if nowhere."""
    candidates = np.flatnonzero(whole[: whole.size - part.size + 1] == part[0])
    for n in range(1, 64):
        candidates = candidates[whole[candidates + n] == part[n]]
    return next((int(c) for c in candidates if np.array_equal(whole[c : c + part.size], part)), -1)


def assert_books_balance(found: dict[str, np.ndarray]) -> None:
    """Captured and lost are all there is, and the stretches say the same without hole or overlap."""
    rate = int(found["rate"])
    assert abs(int(found["expected"] - found["captured"] - found["lost"])) <= 1.5 * BLOCK_SECONDS * rate
    ends = found["starts"] + found["lengths"]
    assert all(end == start for end, start in zip(ends[:-1], found["starts"][1:], strict=True))
    assert found["lengths"][found["is_lost"]].sum() == found["lost"]
    assert found["samples"].shape[0] == found["captured"]


def write_counter(path: Path, seconds: float) -> None:
    """Sound in which each sample follows from the one before: a seam shows."""
    counter = np.arange(1, round(seconds) * RATE + 1, dtype=np.int64)
    soundfile.write(path, (counter * 7919 % 65_521 - 32_760).astype(np.int16), RATE)


def assert_every_seam_is_marked(found: dict[str, np.ndarray], listening: Capture) -> None:
    """Between neighbours that are given as such nothing is missing; where the player pauses there are zeros."""
    heard = (found["samples"][:, 0] * 32768).astype(np.int64)
    is_heard = ~found["is_lost"]
    edges = np.cumsum([0, *found["lengths"][is_heard]])
    starts = found["starts"][is_heard]
    # Position of each heard sample: neighbours in the array that are neighbours in the stream.
    position = np.repeat(starts - edges[:-1], found["lengths"][is_heard]) + np.arange(heard.size)
    is_seam = (np.diff(heard) % 65_521 != 7919) & (heard[:-1] != 0) & (heard[1:] != 0) & (np.diff(position) == 1)
    seams = [(round(float(position[n]) / RATE, 4), int(heard[n]), int(heard[n + 1])) for n in np.flatnonzero(is_seam)]
    assert not seams, f"gaps that are not marked, at seconds: {seams}; {listening.log.read_text()}"


def test_what_is_played_is_heard_to_the_bit_and_scores_as_replay_does(
    server: SoundServer, tmp_path: Path, site: Detector, site_file: Path
) -> None:
    played = simulate("id_00", 40, seed=60)
    wav = tmp_path / "rail.wav"
    soundfile.write(wav, played, RATE, subtype="PCM_16")
    played, _ = soundfile.read(wav, dtype="float32")
    listening = Capture(server, "vmic", tmp_path / "heard.npz", site_file)
    try:
        listening.wait_for("heard")
        assert server.play(wav).wait(60) == 0
        found = listening.end()
    finally:
        listening.kill()
    assert_books_balance(found)
    assert found["rate"] == RATE and not listening.disturbances(), "nothing happened on the way"
    heard = found["samples"][:, 0]
    first = int(np.flatnonzero(heard)[0])
    whole = heard[first : first + played.size - int(np.flatnonzero(played)[0])]
    assert place_of(whole, played) == int(np.flatnonzero(played)[0]), "every sample of it, in one piece"
    within = [(place_of(w, played), w, s) for w, s in zip(found["windows"], found["scores"], strict=True)]
    within = [one for one in within if one[0] >= 0]
    assert len(within) >= 2
    replayer = Replayer([site], AlarmSettings(threshold=2.0), hop_seconds=10.0)
    for place, window, score in within:
        excerpt = tmp_path / f"{place}.wav"
        soundfile.write(excerpt, played[place : place + window.size], RATE, subtype="PCM_16")
        assert replayer.replay_file(excerpt).readings[0].detectors[0].score == score, "to the bit"


def test_channels_and_rate_are_the_device_s_own(tmp_path: Path) -> None:
    server = SoundServer(tmp_path / "sound", VirtualMicrophone("stereo", 48_000, 2)).start()
    noise = np.random.default_rng(1).integers(-3000, 3000, (6 * 48_000, 2)).astype(np.int16)
    soundfile.write(tmp_path / "noise.wav", noise, 48_000, subtype="PCM_16")
    listening = Capture(server, "stereo", tmp_path / "heard.npz")
    try:
        listening.wait_for("heard")
        assert server.play(tmp_path / "noise.wav", "stereo").wait(30) == 0
        time.sleep(0.5)
        found = listening.end()
    finally:
        listening.kill()
        server.kill()
    assert_books_balance(found)
    assert found["rate"] == 48_000 and found["samples"].shape[1] == 2
    first = int(np.flatnonzero(found["samples"].any(axis=1))[0])
    assert np.array_equal(found["samples"][first : first + len(noise)] * 32768, noise)


def test_who_was_only_busy_has_lost_nothing(server: SoundServer, tmp_path: Path) -> None:
    noise = np.random.default_rng(2).integers(-3000, 3000, 20 * RATE).astype(np.int16)
    soundfile.write(tmp_path / "noise.wav", noise, RATE, subtype="PCM_16")
    listening = Capture(server, "vmic", tmp_path / "heard.npz")
    try:
        listening.wait_for("heard")
        player = server.play(tmp_path / "noise.wav")
        time.sleep(2)
        listening.process.send_signal(signal.SIGSTOP)
        time.sleep(4)
        listening.process.send_signal(signal.SIGCONT)
        listening.wait_for("burst")
        server.pause()
        time.sleep(1.5)
        server.resume()
        assert player.wait(40) == 0
        time.sleep(0.5)
        found = listening.end()
    finally:
        listening.kill()
    assert_books_balance(found)
    assert listening.disturbances() == ["burst", "burst"]
    first = int(np.flatnonzero(found["samples"][:, 0])[0])
    heard = found["samples"][first : first + noise.size, 0] * 32768
    assert np.array_equal(heard[: 5 * RATE], noise[: 5 * RATE]), "nothing is missing where this process stood still"


def test_no_sample_of_another_source_is_given_out(server: SoundServer, tmp_path: Path) -> None:
    """The sound server moves the stream: the other source plays noise, ours does not."""
    quiet, loud = np.full(30 * RATE, 100, np.int16), np.full(30 * RATE, 20_000, np.int16)
    soundfile.write(tmp_path / "quiet.wav", quiet, RATE, subtype="PCM_16")
    soundfile.write(tmp_path / "loud.wav", loud, RATE, subtype="PCM_16")
    listening = Capture(server, "vmic", tmp_path / "heard.npz")
    players = [server.play(tmp_path / "quiet.wav"), server.play(tmp_path / "loud.wav", "other")]
    try:
        listening.wait_for("heard")
        for _ in range(3):
            seen = len(listening.lines())
            began = time.monotonic()
            server.unload("vmic")
            listening.wait_for("not heard: the sound server has moved the stream to 'other'", 3, after=seen)
            assert time.monotonic() - began < 3
            time.sleep(1)
            seen = len(listening.lines())
            server.load("vmic")
            listening.wait_for("heard", 10, after=seen)
        found = listening.end()
    finally:
        listening.kill()
        for player in players:
            player.kill()
            player.wait()
    assert_books_balance(found)
    assert found["samples"].max() * 32768 == 100, "no sample of the other source"
    assert found["is_lost"].sum() >= 3


def test_competitors_on_all_cores_cost_nothing_or_are_counted(server: SoundServer, tmp_path: Path) -> None:
    """Ten minutes by hand: EDGE_ASD_SOAK_SECONDS=600 pytest -m system -k competitors."""
    seconds = min(SOAK_SECONDS, 600)
    write_counter(tmp_path / "counter.wav", seconds + 60)
    listening = Capture(server, "vmic", tmp_path / "heard.npz")
    player = server.play(tmp_path / "counter.wav")
    busy = []
    try:
        listening.wait_for("heard")
        busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2 * (os.cpu_count() or 2))]
        time.sleep(seconds)
        found = listening.end()
    finally:
        listening.kill()
        for process in (player, *busy):
            process.kill()
            process.wait()
    print(f"lost {found['lost'] / RATE:.2f} s of {seconds:g} s, {listening.lines()}")
    assert_books_balance(found)
    assert_every_seam_is_marked(found, listening)


@pytest.mark.parametrize("seed", [1])
def test_soak_the_books_balance_whatever_happens(server: SoundServer, tmp_path: Path, seed: int) -> None:
    """Faults at random, for EDGE_ASD_SOAK_SECONDS; what is heard between them is what was played."""
    rng = random.Random(seed)
    write_counter(tmp_path / "counter.wav", 600)
    listening = Capture(server, "vmic", tmp_path / "heard.npz")
    competitors: list[subprocess.Popen[bytes]] = []
    player = server.play(tmp_path / "counter.wav")
    end = time.monotonic() + SOAK_SECONDS
    faults = 0
    try:
        listening.wait_for("heard")
        while time.monotonic() < end:
            fault = rng.choice(["pause us", "pause server", "kill", "unload", "suspend", "compete"])
            seconds = rng.uniform(0.2, 8)
            faults += 1
            if fault == "pause us":
                listening.process.send_signal(signal.SIGSTOP)
                time.sleep(seconds)
                listening.process.send_signal(signal.SIGCONT)
            elif fault == "pause server":
                server.pause()
                time.sleep(min(seconds, 6))  # longer, and the process would leave with 70
                server.resume()
            elif fault == "kill":
                server.kill()
                time.sleep(seconds)
                server.start()
            elif fault == "unload":
                server.unload("vmic")
                time.sleep(seconds)
                server.load("vmic")
            elif fault == "suspend":
                server.suspend("vmic", True)
                time.sleep(seconds)
                server.suspend("vmic", False)
            else:
                competitors = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(4)]
                time.sleep(seconds)
            if player.poll() is not None:
                player = server.play(tmp_path / "counter.wav")
            time.sleep(rng.uniform(0.5, 12))
            for competitor in competitors:
                competitor.kill()
                competitor.wait()
            competitors = []
        time.sleep(10)
        found = listening.end()
    finally:
        listening.kill()
        player.kill()
        player.wait()
        for competitor in competitors:
            competitor.kill()
            competitor.wait()
    assert_books_balance(found)
    share = float(found["captured"] / (found["captured"] + found["lost"]))
    print(f"{faults} faults, {share:.0%} captured, {found['lost'] / RATE:.1f} s lost, {listening.lines()}")
    assert_every_seam_is_marked(found, listening)
