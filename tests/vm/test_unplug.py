"""Real ALSA hardware is unplugged and plugged in again, within the guest of run.sh.

Nothing here is faked: PortAudio, ALSA and the kernel's driver are those of a factory PC, and so is how they behave when
a card is gone (callbacks stop without a sign while PortAudio spins, and the kernel waits for us to let go).
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from parts.daemon import Daemon
from parts.waiting import until
from vm.listening import RATE, Listening
from vm.sound_card import NAME, SoundCard, check_counter, load_driver, wait_for_player, write_counter

import edge_asd.demo
from edge_asd.audio.device import DeviceSettings
from edge_asd.audio.quiet import filter_standard_error
from edge_asd.clock import utc

LOST_WITHIN = 3.0
BACK_WITHIN = 10.0
BLOCK_SECONDS = 0.1
IDLE_SHARE = 0.3
"""Of a core, while the device is looked for: PortAudio with a stream to hardware that is gone takes all of one."""
START_SECONDS = 60.0
"""The guest is slow to load things."""
EDGE_ASD = [sys.executable, "-m", "edge_asd.cli"]
SCORED = 'edge_asd_windows_total{machine="rail",result="scored"}'


@pytest.fixture(scope="session")
def both() -> tuple[SoundCard, SoundCard]:
    filter_standard_error()
    return load_driver()


@pytest.fixture
def cards(both: tuple[SoundCard, SoundCard]) -> Iterator[tuple[SoundCard, SoundCard]]:
    """Two cards that are not plugged in."""
    yield both
    for card in both:
        card.put_away()


@pytest.fixture
def rig(cards: tuple[SoundCard, SoundCard]) -> SoundCard:
    return cards[0]


@pytest.fixture(scope="session")
def upwards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_counter(tmp_path_factory.mktemp("up") / "counter", 1)


@pytest.fixture(scope="session")
def downwards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_counter(tmp_path_factory.mktemp("down") / "counter", -1)


@pytest.fixture(scope="session")
def noise(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A minute, -30 dBFS."""
    path = tmp_path_factory.mktemp("noise") / "noise"
    (np.random.default_rng(1).standard_normal(60 * 48_000) * 10 ** (-30 / 20)).astype(np.float32).tofile(path)
    return path


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """One machine on the microphone."""
    detector = Path(edge_asd.demo.__file__).with_name("slide-rail.cae.onnx")
    path = tmp_path / "rig.yaml"
    path.write_text(f"""\
site: plant-3
node: hall
device: {{name: "{NAME}", port: snd_aloop.0, rate: 48000, channels: 1}}
machines:
  - {{name: rail, channel: 1, detectors: [{detector}], hop_seconds: 1}}
metrics: {{listen: "127.0.0.1:0"}}
""")
    return path


def test_clock_steps_do_not_disturb_what_is_heard(rig: SoundCard, upwards: Path) -> None:
    """The guest's own clock is set, an hour back and a day on, as NTP does at boot."""
    rig.plug(upwards, 48_000)
    wait_for_player()
    with Listening(DeviceSettings(name=NAME)) as listening:
        listening.wait_until_heard(BACK_WITHIN)
        ledger = listening.microphone.ledger
        lost = ledger.lost
        for step in (-3600.0, 86_400.0):
            time.sleep(4)
            time.clock_settime(time.CLOCK_REALTIME, time.time() + step)
            told = utc(ledger.time_at(ledger.position / ledger.rate)).timestamp()
            assert abs(told - time.time()) < 1, "what is heard now is told in the time that it is now"
        time.sleep(8)
        assert listening.microphone.status.is_heard and ledger.lost == lost
    assert abs(listening.missing) <= BLOCK_SECONDS
    check_counter(listening.stretches, 1)
    assert [w.lost for w in listening.windows] == [0] * len(listening.windows) and listening.windows


def test_unplugged_five_times_while_it_listens(rig: SoundCard, upwards: Path) -> None:
    rig.plug(upwards, 48_000)
    wait_for_player()
    with Listening(DeviceSettings(name=NAME)) as listening:
        listening.wait_until_heard(BACK_WITHIN)
        opening = listening.microphone.status.opening
        assert opening is not None and (opening.rate, opening.channels) == (48_000, 1)
        for away in (8.0, 0.0, 1.0, 2.5, 0.0):
            time.sleep(3)
            rig.unplug()
            lost = listening.wait_until_lost(LOST_WITHIN)
            assert "has given no samples for 2.5 s" in listening.reason
            rig.wait_until_gone()
            work = time.process_time()
            time.sleep(away)
            if away > 5:
                share = (time.process_time() - work) / away
                print(f"\n  {listening.reason}; {share:.0%} of a core", end="")
                assert "is there; inputs are: none" in listening.reason and share < IDLE_SHARE
            rig.plug(upwards, 48_000)
            back = listening.wait_until_heard(BACK_WITHIN)
            print(f"\n  lost after {lost:.2f} s; {away:g} s later plugged in, heard after {back:.2f} s", end="")
        time.sleep(3)
    ledger = listening.microphone.ledger
    heard, lost_at_rate = listening.stream.take_counts()
    runs = check_counter(listening.stretches, 1)
    print(f"\n  captured {ledger.captured} + lost {ledger.lost}, missing {listening.missing:.4f} s; runs of {runs}")
    print(f"  resampled: heard {heard} + lost {lost_at_rate}; lost in windows {[w.lost for w in listening.windows]}")
    assert abs(listening.missing) < BLOCK_SECONDS
    # What was lost before the device's rate was known is counted at another.
    accounted = sum(s.frames * ledger.rate / s.rate for s in listening.stretches)
    assert abs(accounted - ledger.captured - ledger.lost) <= 1
    assert sum(s.frames for s in listening.stretches if s.samples is not None) == ledger.captured
    assert len(runs) == 6
    # The resampler keeps back some samples until the end.
    assert (heard + lost_at_rate) / RATE == pytest.approx((ledger.captured + ledger.lost) / 48_000, abs=0.05)


def test_without_resampling_windows_are_what_was_played(rig: SoundCard, upwards: Path) -> None:
    rig.plug(upwards, RATE)
    wait_for_player()
    with Listening(DeviceSettings(name=NAME)) as listening:
        listening.wait_until_heard(BACK_WITHIN)
        time.sleep(11)
        rig.unplug()
        listening.wait_until_lost(LOST_WITHIN)
        rig.plug(upwards, RATE)
        listening.wait_until_heard(BACK_WITHIN)
        time.sleep(11)
    runs = check_counter(listening.stretches, 1)
    whole = [w for w in listening.windows if not w.lost]
    print(f"\n  runs of {runs} samples, missing {listening.missing:.4f} s; {len(whole)} whole windows")
    assert len(runs) == 2 and len(whole) >= 2 and abs(listening.missing) < BLOCK_SECONDS
    for window in whole:
        steps = np.diff(window.samples.astype(np.float64) * 2**20)
        assert (steps == 1).all()


def test_another_card_under_its_number_is_never_taken(
    cards: tuple[SoundCard, SoundCard], upwards: Path, downwards: Path
) -> None:
    mine, other = cards
    mine.plug(upwards, 48_000)
    other.plug(downwards, 48_000)
    wait_for_player()
    with Listening(DeviceSettings(name=NAME, port=mine.port, channels=1, rate=48_000)) as listening:
        listening.wait_until_heard(BACK_WITHIN)
        before = mine.number, other.number
        time.sleep(3)
        mine.unplug()
        other.put_away()
        listening.wait_until_lost(LOST_WITHIN)
        other.plug(downwards, 48_000)
        captured = listening.microphone.ledger.captured
        time.sleep(6)
        assert other.number == before[0] and listening.microphone.ledger.captured == captured
        print(f"\n  cards {before} before, {other.port} is {other.number} now: {listening.reason}")
        assert f"no input {NAME!r} at {mine.port} is there" in listening.reason
        mine.plug(upwards, 48_000)
        back = listening.wait_until_heard(BACK_WITHIN)
        print(f"  {mine.port} back as card {mine.number}, heard after {back:.2f} s", end="")
        assert mine.number == before[1]
        time.sleep(3)
    runs = check_counter(listening.stretches, 1)
    print(f", runs of {runs} samples")
    assert len(runs) == 2


def test_two_of_one_name(cards: tuple[SoundCard, SoundCard], upwards: Path, downwards: Path) -> None:
    mine, other = cards
    mine.plug(upwards, 48_000)
    other.plug(downwards, 48_000)
    wait_for_player()
    with Listening(DeviceSettings(name=NAME, channels=1, rate=48_000)) as listening:
        until(lambda: "several" in listening.reason, "the refusal")
        print(f"\n  {listening.reason}")
        assert mine.port in listening.reason and other.port in listening.reason
        time.sleep(2)
        assert listening.microphone.ledger.captured == 0
        other.put_away()
        listening.wait_until_heard(BACK_WITHIN)
        time.sleep(2)
        mine.unplug()
        listening.wait_until_lost(LOST_WITHIN)
        other.plug(downwards, 48_000)
        captured = listening.microphone.ledger.captured
        time.sleep(6)
        print(f"  {listening.reason}")
        assert "it is another one" in listening.reason and listening.microphone.ledger.captured == captured
        mine.plug(upwards, 48_000)
        back = listening.wait_until_heard(BACK_WITHIN)
        print(f"  both there, {mine.port} as card {mine.number}: heard after {back:.2f} s", end="")
        time.sleep(3)
    runs = check_counter(listening.stretches, 1)
    print(f", runs of {runs} samples")
    assert len(runs) == 2


def test_held_by_another_program(rig: SoundCard, upwards: Path, config: Path, tmp_path: Path) -> None:
    rig.plug(upwards, 48_000)
    wait_for_player()
    other = rig.record(48_000)
    time.sleep(1)
    with Listening(DeviceSettings(name=NAME)) as listening:
        try:
            time.sleep(3)
            print(f"\n  {listening.reason}", end="")
            assert f"held by arecord (pid {other.pid})" in listening.reason
        finally:
            other.terminate()
            other.wait()
        back = listening.wait_until_heard(BACK_WITHIN)
        print(f"; let go, heard after {back:.2f} s", end="")
        refused = record(config, tmp_path / "out")  # its configuration names the device otherwise
        assert refused.returncode == 1 and f"(pid {os.getpid()})" in refused.stderr


def test_devices_are_listed(rig: SoundCard, noise: Path, config: Path) -> None:
    rig.plug(noise, 48_000)
    wait_for_player()
    found = subprocess.run([*EDGE_ASD, "devices", "-c", config], capture_output=True, text=True, timeout=START_SECONDS)
    print(f"\n{found.stdout}{found.stderr}", end="")
    line, meter = found.stdout.partition("* ")[2].splitlines()[:2]
    assert (found.returncode, found.stderr) == (0, "")
    assert line.startswith(f"'Loopback: PCM (hw:{rig.number},1)'  1 channel(s), 48 kHz") and line.endswith(rig.port)
    assert -31 < float(re.findall(r"1: \[#* *\] +(-\d+\.\d) dBFS", meter)[0]) < -29


def test_the_daemon(rig: SoundCard, noise: Path, config: Path, tmp_path: Path) -> None:
    rig.plug(noise, 48_000)
    wait_for_player()
    daemon = Daemon(config)
    try:
        daemon.wait_for("device_heard", START_SECONDS)
        until(lambda: daemon.metric(SCORED) > 0, "a score", START_SECONDS)
        refused = record(config, tmp_path / "out")
        assert refused.returncode == 1 and f"-c {config} (pid {daemon.process.pid})" in refused.stderr
        told = len(daemon.events("device_not_heard"))
        rig.unplug()
        until(lambda: len(daemon.events("device_not_heard")) > told, "the loss", LOST_WITHIN)
        assert "has given no samples for 2.5 s" in daemon.events("device_not_heard")[told]["reason"]
        time.sleep(2)  # what was under way
        before = daemon.metric(SCORED)
        rig.plug(noise, 48_000)
        until(lambda: len(daemon.events("device_heard")) == 2, "the device", BACK_WITHIN)
        began = time.monotonic()
        until(lambda: daemon.metric(SCORED) > before, "a score", 20)
        print(f"  {before:g} windows were scored, the next {time.monotonic() - began:.1f} s after the return")
        assert daemon.terminate() == 0
    finally:
        daemon.kill()
        for line in daemon.log:
            print(" ", line["time"], line["event"], line.get("reason") or "")


def record(config: Path, out: Path) -> subprocess.CompletedProcess[str]:
    order = ["record", "-c", str(config), "--machine", "rail", "--hours", "1", "--out", str(out)]
    found = subprocess.run([*EDGE_ASD, *order], capture_output=True, text=True, timeout=START_SECONDS)
    print(f"\n  edge-asd record: {found.stderr.strip()}")
    return found
