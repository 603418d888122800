"""What the alarm makes of a machine in maintenance, and of one that stands still."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from parts.pipelines import RATE, pipeline_of

from edge_asd.audio.windows import Window
from edge_asd.clock import boot_time
from edge_asd.config import MachineSection
from edge_asd.demo.clips import simulate
from edge_asd.demo.slide_rail import Fault
from edge_asd.detector import Detector
from edge_asd.logmel import Float32Array
from edge_asd.machine import Machine
from edge_asd.pause import Pause
from edge_asd.pipeline import AlarmSettings
from edge_asd.publish.payloads import Place


@pytest.fixture(scope="module")
def sounds() -> dict[bool, Float32Array]:
    """Ten seconds of a rail, by whether it is broken."""
    return {
        is_broken: simulate("id_00", 10, seed=5, fault=Fault.RAIL_DAMAGE if is_broken else None, severity=1.0)
        for is_broken in (False, True)
    }


def test_nothing_is_raised_or_cleared_in_maintenance(sounds: dict[bool, Float32Array], site: Detector) -> None:
    rule = AlarmSettings(threshold=2.0, raise_count=2, raise_window=3, clear_after=2, rest_seconds=0.0)
    pipeline = pipeline_of(site, alarm=rule, hop=10.0)
    position = 0

    def hear(is_broken: bool, *, is_held: bool = False) -> tuple[str | None, str]:
        nonlocal position
        reading = pipeline.read(Window(position, sounds[is_broken], 0), is_held=lambda: is_held)
        position += 10 * RATE
        assert reading.result == "scored" and reading.rarity is not None and reading.detectors
        return (reading.event.event if reading.event else None), reading.condition

    pipeline.is_in_maintenance = True
    assert [hear(True, is_held=True) for _ in range(5)] == [(None, "maintenance")] * 5
    pipeline.is_in_maintenance = False
    # The window of the end is not heard by the alarm either; then k of n are counted anew.
    assert hear(True, is_held=True) == (None, "normal")
    assert [hear(True), hear(True)] == [(None, "normal"), ("raised", "anomalous")]
    incident = pipeline.alarm.incident
    assert hear(False) == (None, "anomalous")
    pipeline.is_in_maintenance = True
    assert [hear(False, is_held=True) for _ in range(5)] == [(None, "maintenance")] * 5
    assert pipeline.alarm.incident == incident is not None, "it is held"
    pipeline.is_in_maintenance = False
    assert [hear(False), hear(False)] == [(None, "anomalous"), ("cleared", "normal")]


def test_a_window_that_began_before_the_end_belongs_to_the_pause() -> None:
    pause = Pause()
    assert not pause.covers(0.0) and not pause.end(5.0)
    assert pause.begin() and not pause.begin() and pause.is_on
    assert pause.covers(-100.0) and pause.covers(100.0)
    assert pause.end(20.0) and not pause.end(30.0) and not pause.is_on
    assert [pause.covers(start) for start in (10.0, 19.9, 20.0, 25.0)] == [True, True, False, False]


def test_a_machine_tells_its_pipeline(
    sounds: dict[bool, Float32Array], site: Detector, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = MachineSection(name="rail-7", recordings=Path("sound"))
    machine = Machine(settings, pipeline_of(site, hop=10.0), Place("plant-3", "hall", "press", "rail-7"))
    began = boot_time() - 10.0
    machine.state.time_of = lambda position: began + position / RATE
    window = Window(0, sounds[True], 0)
    # Somebody mutes it while the window is scored.
    detector = machine.pipeline.detectors[0].detector
    score = detector.score

    def score_and_mute(*arguments: Any) -> Any:
        machine.maintenance.begin()
        return score(*arguments)

    with monkeypatch.context() as slow:
        slow.setattr(detector, "score", score_and_mute)
        reading = machine.read(window)
    assert (reading.result, reading.event) == ("scored", None)
    machine.standstill.begin()
    reading = machine.read(window)
    assert (reading.result, reading.rarity, reading.condition) == ("idle", None, "idle")
    machine.standstill.end(began + 3)
    assert machine.read(window).result == "idle", "it began while the machine stood"
    machine.maintenance.end(began + 4)
    later = Window(4 * RATE, np.ascontiguousarray(sounds[True]), 0)
    reading = machine.read(later)
    assert reading.result == "scored" and reading.event is not None and reading.event.event == "raised"
