"""Reloads of a daemon that hears its machines, one after another, and while it ends."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from parts.reloading import LOUD, NORMAL, RATE, Plant, noise
from parts.waiting import until

from edge_asd import daemon as daemon_module
from edge_asd import machine as machine_module
from edge_asd import reload as reload_module
from edge_asd.clock import boot_time
from edge_asd.pipeline import Reading
from edge_asd.publish.payloads import MachineState

ALARM = "alarm: {threshold: %g, raise_after: 2 of 3, clear_after: 3, rest_seconds: 0}"


class Day(Plant):
    """A plant whose recordings are played as fast as the test wants, second by second."""

    def __init__(self, folder: Path, tiny: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(folder, tiny)
        self._seconds, began = 0.0, boot_time()
        monkeypatch.setattr(machine_module, "boot_time", lambda: began + self._seconds)
        monkeypatch.setattr(daemon_module, "_TICK_SECONDS", 0.01)
        self.readings: dict[str, list[Reading]] = {"rail-7": [], "rail-8": []}
        self.in_turn: list[bool] = []

    def run(self) -> None:
        announcer, tell = self.daemon._announcer, self.daemon._announcer.tell

        def listen(state: MachineState, reading: Reading, evidence: Any = None) -> None:
            self.in_turn.append(self.machine(state.place.machine).turn.locked())
            tell(state, reading, evidence)
            self.readings[state.place.machine].append(reading)

        announcer.tell = listen  # type: ignore[method-assign]
        super().run()
        until(lambda: any(line["event"] == "ready" for line in self.log()), "the start")
        self._seconds = 0.3  # the machines begin up to 0.1 s apart

    def hear(self, seconds: int) -> None:
        """Play so much, and wait until every window of it was told of."""
        for _ in range(seconds):
            self._seconds += 1
            windows = max(0, int(self._seconds) - 9)
            until(lambda n=windows: all(len(told) >= n for told in self.readings.values()), "the windows")


def test_sound_and_incident_run_through_it(
    tmp_path: Path, tiny: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine breaks and is repaired, and in all that its detector and threshold change again and again."""
    day = Day(tmp_path, tiny, monkeypatch)
    first, second = day.put("a.onnx"), day.put("b.onnx", "other")
    heard = noise(day.folder / "sound.wav", (12, NORMAL), (12, LOUD), (16, NORMAL))
    day.write(f"name: rail-7, {ALARM % 2}", f"name: rail-8, {ALARM % 2}")
    day.begin()
    rail = day.machine("rail-7")
    day.run()
    day.hear(20)
    incident = rail.pipeline.alarm.incident
    assert incident is not None
    for turn in range(4):
        detector, threshold = [("b.onnx", 2.5), ("a.onnx", 2.0)][turn % 2]
        day.write(f"name: rail-7, detectors: [{detector}], {ALARM % threshold}", f"name: rail-8, {ALARM % 2}")
        day.daemon.reload()
        day.hear(1)  # while it is read and verified
        until(lambda n=turn: len(day.outcomes()) > n, "the reload")
        assert rail.pipeline.alarm.incident == incident, "a reload clears nothing"
        day.hear(1)
    day.hear(12)
    day.join()
    for name, told in day.readings.items():
        assert [r.start for r in told] == [n * RATE for n in range(heard // RATE - 9)], "each window once, in order"
        assert {r.result for r in told} == {"scored"}
        assert day.metric("audio_frames_total", machine=name) == heard
        assert day.metric("audio_lost_frames_total", machine=name) == 0
    scored = {(r.detectors[0].sha256, r.threshold) for r in day.readings["rail-7"]}
    assert scored == {(first, 2.0), (second, 2.5)} and all(day.in_turn), "none with half of it"
    alerts = [line["alert"] for line in day.log() if line["event"] == "alert" and line["alert"]["machine"] == "rail-7"]
    assert [(a["event"], a["incident"], a["sequence"]) for a in alerts] == [
        ("raised", incident, 1),
        ("cleared", incident, 2),
    ]


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
