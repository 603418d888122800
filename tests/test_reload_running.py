"""Reloads of a daemon that hears its machines, one after another, and while it ends."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from parts.reloading import LOUD, NORMAL, RATE, Plant, noise
from parts.waiting import until

from edge_asd import machine as machine_module
from edge_asd import reload as reload_module
from edge_asd.clock import boot_time

SPEED = 10.0
"""So much faster than in real time are recordings played here."""
ALARM = "alarm: {threshold: %g, raise_after: 2 of 3, clear_after: 3, rest_seconds: 0}"


@pytest.fixture
def plant(tmp_path: Path, tiny: Callable[..., bytes]) -> Iterator[Plant]:
    plant = Plant(tmp_path, tiny)
    plant.write("name: rail-7", "name: rail-8")
    plant.begin()
    yield plant
    plant.end()


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    began = boot_time()
    monkeypatch.setattr(machine_module, "boot_time", lambda: began + SPEED * (boot_time() - began))


def test_sound_and_incident_run_through_it(fast: None, tmp_path: Path, tiny: Callable[..., bytes]) -> None:
    """A machine breaks and is repaired, and in all that its detector and threshold change again and again."""
    plant = Plant(tmp_path, tiny)
    first, second = plant.put("a.onnx"), plant.put("b.onnx", "other")
    heard = noise(plant.folder / "sound.wav", (12, NORMAL), (12, LOUD), (21, NORMAL))
    plant.write(f"name: rail-7, {ALARM % 2}", f"name: rail-8, {ALARM % 2}")
    plant.begin()
    readings: dict[str, list[Any]] = {"rail-7": [], "rail-8": []}
    in_turn: list[bool] = []
    announcer = plant.daemon._announcer
    tell = announcer.tell

    def listen(state: Any, reading: Any, evidence: Any = None) -> None:
        readings[state.place.machine].append(reading)
        in_turn.append(plant.machine(state.place.machine).turn.locked())
        tell(state, reading, evidence)

    announcer.tell = listen  # type: ignore[method-assign]
    plant.run()
    until(lambda: plant.machine("rail-7").state.sequence, "the alert")
    incident = plant.machine("rail-7").pipeline.alarm.incident
    assert incident is not None
    turns = 0
    while readings["rail-7"][-1].start < 20 * RATE:  # while it is still loud; then it has the time to be cleared
        detector, threshold = [("b.onnx", 2.5), ("a.onnx", 2.0)][turns % 2]
        plant.write(f"name: rail-7, detectors: [{detector}], {ALARM % threshold}", f"name: rail-8, {ALARM % 2}")
        plant.daemon.reload()
        turns += 1
        until(lambda wanted=turns: len(plant.outcomes()) == wanted, "the reload")
        assert plant.machine("rail-7").pipeline.alarm.incident == incident, "a reload clears nothing"
        time.sleep(0.15)  # a window or two
    plant.join()
    assert turns >= 2
    for name, told in readings.items():
        assert [r.start for r in told] == [n * RATE for n in range(heard // RATE - 9)], "each window once, in order"
        assert not any(r.lost for r in told)
        assert plant.metric("audio_frames_total", machine=name) == heard
        assert plant.metric("audio_lost_frames_total", machine=name) == 0
    scored = {(r.detectors[0].sha256, r.threshold) for r in readings["rail-7"] if r.detectors}
    assert scored == {(first, 2.0), (second, 2.5)} and all(in_turn), "none with half of it"
    alerts = [line["alert"] for line in plant.log() if line["event"] == "alert"]
    told = [(a["event"], a["incident"], a["sequence"]) for a in alerts if a["machine"] == "rail-7"]
    assert told == [("raised", incident, 1), ("cleared", incident, 2)]


def test_what_is_asked_for_meanwhile_comes_once_and_afterwards(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    goes_on, at_work, read = threading.Event(), [], reload_module.load_config

    def slow(path: Path) -> Any:
        at_work.append(threading.current_thread())
        goes_on.wait(10)
        return read(path)

    monkeypatch.setattr(reload_module, "load_config", slow)
    reloader = plant.daemon._reloader
    plant.daemon.reload()
    for _ in range(5):
        reloader.heed()
        until(lambda: at_work, "the reload")
        plant.daemon.reload()
    assert len(at_work) == 1 and not plant.outcomes()
    goes_on.set()
    until(lambda: len(plant.outcomes()) == 2, "both")
    until(lambda: not at_work[0].is_alive(), "its end")
    reloader.heed()
    time.sleep(0.1)
    assert len(at_work) == len(plant.outcomes()) == 2


def test_nothing_is_taken_up_once_the_daemon_stops(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    before, goes_on, read = plant.essence(), threading.Event(), reload_module.load_config
    monkeypatch.setattr(reload_module, "load_config", lambda path: goes_on.wait(10) and read(path))
    plant.write("name: rail-7, alarm: {threshold: 3}", "name: rail-8")
    plant.daemon.reload()
    plant.daemon._reloader.heed()
    threading.Timer(0.1, goes_on.set).start()
    plant.daemon._reloader.stop()
    assert plant.essence() == before and not plant.outcomes()


SLEEPER = """
import os, signal, sys, time
from edge_asd import systemd
if sys.argv[1] == "terminal":
    os.setsid()
    os.open(os.ttyname(os.openpty()[1]), os.O_RDWR)  # the first that is opened becomes the session's terminal
systemd.heed_hangup(lambda: print("asked", flush=True))
os.kill(os.getpid(), signal.SIGHUP)
time.sleep(0.01)
"""


@pytest.mark.parametrize(
    ("place", "is_supervised", "expected"),
    [("service", True, (0, "asked\n")), ("alone", False, (0, "asked\n")), ("terminal", False, (-1, ""))],
)
def test_a_closed_terminal_still_ends_the_process(place: str, is_supervised: bool, expected: tuple[int, str]) -> None:
    environment = {k: v for k, v in os.environ.items() if k != "NOTIFY_SOCKET"}
    environment |= {"NOTIFY_SOCKET": "/nowhere"} if is_supervised else {}
    done = subprocess.run(
        [sys.executable, "-c", SLEEPER, place],
        env=environment,
        capture_output=True,
        text=True,
        start_new_session=place != "terminal",
        check=False,
    )
    assert (done.returncode, done.stdout) == expected, done.stderr
