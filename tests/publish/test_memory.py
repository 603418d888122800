"""What is remembered of a machine: through JSON and the outbox into the next process, on its own clock."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from parts.alarms import HOP_SECONDS, LOUD, QUIET, RATE, machine_state, reading
from parts.waiting import until

from edge_asd.clock import boot_time
from edge_asd.maintenance import Maintenance
from edge_asd.publish import memory, payloads
from edge_asd.publish import outbox as outbox_module
from edge_asd.publish.announcer import Announcer
from edge_asd.publish.log import Log
from edge_asd.publish.metrics import Metrics
from edge_asd.publish.outbox import Outbox
from edge_asd.publish.payloads import MachineState


class Process:
    """A daemon's announcer, with an outbox on disk and one machine."""

    def __init__(self, path: Path) -> None:
        self.lines, self.metrics = io.StringIO(), Metrics()
        log = Log(self.lines)
        self.outbox = Outbox(path, log=log, metrics=self.metrics)
        self.announcer = Announcer(log, self.metrics, self.outbox)
        self.state = machine_state("rail-7")
        self.outbox.open()
        self.announcer.restore([self.state])
        self.heard = 0

    def hear(self, *rarities: float | None) -> list[dict[str, Any]]:
        """Alerts that came of it."""
        before = self.state.sequence
        alerts = []
        for rarity in rarities:
            self.announcer.tell(self.state, reading(self.state, self.heard, rarity))
            self.heard += 1
            if self.state.sequence > before:
                before = self.state.sequence
                alerts.append(dict(self.state.last_alert or {}))
        return alerts

    def events(self, name: str) -> list[dict[str, Any]]:
        time.sleep(0.05)
        return [line for line in map(json.loads, self.lines.getvalue().splitlines()) if line["event"] == name]


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "press.sqlite"


def test_an_incident_lives_on(path: Path) -> None:
    first = Process(path)
    (raised,) = first.hear(QUIET, LOUD, LOUD, LOUD)
    assert (raised["event"], raised["sequence"]) == ("raised", 1)
    first.hear(QUIET)
    since = first.state.since
    first.outbox.close()

    second = Process(path)
    assert second.state.pipeline.alarm.incident == raised["incident"]
    assert (second.state.condition, second.state.last_alert) == ("anomalous", raised)
    assert abs((second.state.since - since).total_seconds()) < 0.002
    value = second.metrics.registry.get_sample_value
    assert value("edge_asd_condition", {"machine": "rail-7", "condition": "anomalous"}) == 1
    assert second.events("alarm_restored")[0]["incident"] == raised["incident"]
    (cleared,) = second.hear(QUIET)
    assert (cleared["event"], cleared["sequence"], cleared["incident"]) == ("cleared", 2, raised["incident"])
    second.outbox.close()

    third = Process(path)
    assert third.state.pipeline.alarm.incident is None and third.state.last_alert == cleared
    assert third.state.condition == "starting"
    (again,) = third.hear(QUIET, LOUD, LOUD)
    assert again["sequence"] == 3 and again["incident"] != raised["incident"]
    third.outbox.close()


def test_a_vote_lives_on(path: Path) -> None:
    first = Process(path)
    assert not first.hear(QUIET, LOUD)
    first.outbox.close()
    second = Process(path)
    assert [a["event"] for a in second.hear(LOUD)] == ["raised"]
    second.outbox.close()


@pytest.fixture
def away(path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The disk is away until this link is removed; what is looked at again is so after 0.1 s."""
    monkeypatch.setattr(outbox_module, "_RETRY_SECONDS", 0.1)
    yield path.with_name(f"{path.name}.away")


def take_away(path: Path, away: Path) -> None:
    """As a disk that is mounted late: a folder is in the database's place."""
    path.rename(away)
    path.mkdir()


def bring_back(path: Path, away: Path, process: Process) -> None:
    path.rmdir()
    away.rename(path)
    until(lambda: process.outbox.can_recall, "the database", 5)


def test_a_disk_that_comes_late_brings_the_open_incident(path: Path, away: Path) -> None:
    first = Process(path)
    (raised,) = first.hear(QUIET, LOUD, LOUD)
    first.outbox.close()

    take_away(path, away)
    second = Process(path)
    assert not second.hear(QUIET, None)
    assert (second.state.sequence, second.state.condition) == (0, "normal"), "nothing is known, and scoring goes on"
    bring_back(path, away, second)
    until(lambda: not second.outbox._memory, "what was remembered meanwhile", 5)
    second.hear(QUIET)
    assert not second.events("alert")
    assert (second.state.condition, second.state.last_alert) == ("anomalous", raised)
    assert second.events("alarm_restored")[0]["incident"] == raised["incident"]
    (cleared,) = second.hear(QUIET, QUIET)
    assert (cleared["event"], cleared["sequence"], cleared["incident"]) == ("cleared", 2, raised["incident"])
    second.outbox.close()


def test_a_reload_before_the_disk_comes_leaves_no_vote_of_another_threshold(path: Path, away: Path) -> None:
    first = Process(path)
    assert not first.hear(QUIET, LOUD)
    first.outbox.close()

    take_away(path, away)
    second = Process(path)
    pipeline = second.state.pipeline
    pipeline.rule = replace(pipeline.rule, threshold=LOUD)
    pipeline.alarm.adopt(pipeline.rule)
    pipeline.alarm.forget()
    assert not second.hear(QUIET)
    bring_back(path, away, second)
    assert not second.hear(QUIET, LOUD), "the only one by this threshold"
    assert [a["event"] for a in second.hear(LOUD)] == ["raised"]
    second.outbox.close()


def told_without_the_disk(path: Path, away: Path) -> tuple[dict[str, Any], Process, dict[str, Any]]:
    """An alert whose incident stays open; a process that does not know of it, and what that raises."""
    first = Process(path)
    (former,) = first.hear(QUIET, LOUD, LOUD)
    first.outbox.close()

    take_away(path, away)
    second = Process(path)
    (raised,) = second.hear(LOUD, LOUD)
    return former, second, raised


def test_what_was_told_before_the_disk_came_goes_on_and_the_former_incident_is_cleared(path: Path, away: Path) -> None:
    former, second, raised = told_without_the_disk(path, away)
    assert raised["sequence"] > time.time() - 60, "its number is above any that may have been"
    bring_back(path, away, second)
    cleared, *others = second.hear(None, LOUD)
    assert (cleared["event"], cleared["incident"]) == ("cleared", former["incident"])
    assert (cleared["sequence"], others) == (raised["sequence"] + 1, [])
    assert second.state.pipeline.alarm.incident == raised["incident"] and second.state.condition == "anomalous"
    second.outbox.close()

    third = Process(path)
    assert third.state.pipeline.alarm.incident == raised["incident"] and third.state.last_alert == cleared
    (last,) = third.hear(QUIET, QUIET)
    assert (last["event"], last["incident"]) == ("cleared", raised["incident"])
    assert last["sequence"] == cleared["sequence"] + 1
    third.outbox.close()


def test_a_kill_right_after_the_disk_came_forgets_neither(path: Path, away: Path) -> None:
    """The disk took what was made without knowing it, and no window came after that."""
    former, second, raised = told_without_the_disk(path, away)
    bring_back(path, away, second)
    until(lambda: not second.outbox._memory, "the disk", 5)
    second.outbox.close()

    third = Process(path)
    assert third.state.pipeline.alarm.incident == raised["incident"]
    (cleared,) = third.hear(LOUD)
    assert (cleared["event"], cleared["incident"]) == ("cleared", former["incident"])
    assert cleared["sequence"] == raised["sequence"] + 1
    third.outbox.close()


@pytest.mark.parametrize("damaged", [None, {}, {"sequence": 5, "alarm": 3}, {"sequence": 5, "alarm": {"incident": 3}}])
def test_what_is_no_memory_is_not_reconciled_with(damaged: Any) -> None:
    state = machine_state("rail-7")
    for number in range(2):
        reading(state, number, LOUD)
    made = memory.remember(state, 0)
    assert made["alarm"]["incident"] and memory.reconcile(damaged, made) == made


def test_an_incident_is_said_to_be_open_when_it_is_told(path: Path) -> None:
    """The alarm has it before that: its picture may take seconds, and others ask for the state meanwhile."""
    one = Process(path)
    one.hear(QUIET, LOUD)
    found = reading(one.state, 2, LOUD)
    maintenance = Maintenance.of(1, "me", datetime.now(UTC))
    for said in (None, maintenance, None):
        if said is not one.state.maintenance:
            one.announcer.maintain(one.state, said)
        assert payloads.machine_state(one.state)["incident"] is None
        assert one.state.condition == "normal"
    one.announcer.tell(one.state, found)
    state = payloads.machine_state(one.state)
    assert (state["incident"], state["condition"]) == (found.incident, "anomalous")
    assert state["last_alert"]["incident"] == found.incident
    one.announcer.maintain(one.state, maintenance)
    assert payloads.machine_state(one.state)["incident"] == found.incident
    one.outbox.close()


def test_normal_sound_writes_nothing(path: Path) -> None:
    one = Process(path)
    one.hear(*[QUIET] * 3)
    until(lambda: not one.outbox._memory, "the disk")
    calls: list[int] = []
    one.outbox.on_ready = lambda: calls.append(1)
    one.hear(*[QUIET, None] * 10)
    time.sleep(0.2)
    assert not calls
    one.outbox.close()


def clocks(monkeypatch: pytest.MonkeyPatch, *, boot: float, wall: float, boot_id: str = "this") -> None:
    now = boot_time(), time.time()
    monkeypatch.setattr(memory, "boot_time", lambda: now[0] + boot)
    monkeypatch.setattr(memory.time, "time", lambda: now[1] + wall)
    monkeypatch.setattr(memory, "_boot_id", lambda: boot_id)


@pytest.mark.parametrize(
    ("boot", "wall", "boot_id", "passed"),
    [
        (100.0, 100.0, "this", 100.0),
        (100.0, -5_000.0, "this", 100.0),  # the wall clock was set meanwhile
        (-4_000.0, 100.0, "another", 100.0),  # the computer was restarted
        (-4_000.0, -5_000.0, "another", 0.0),  # and its clock has no battery
    ],
)
def test_how_much_time_has_passed(
    monkeypatch: pytest.MonkeyPatch, boot: float, wall: float, boot_id: str, passed: float
) -> None:
    def on_clock(state: MachineState) -> MachineState:
        began = memory.boot_time()
        state.time_of = lambda sample: began + sample / RATE
        return state

    clocks(monkeypatch, boot=0.0, wall=0.0)
    first = on_clock(machine_state("rail-7"))
    for number in range(2):
        reading(first, number, LOUD)
    remembered = json.loads(json.dumps(memory.remember(first, 2 * HOP_SECONDS * RATE)))
    clocks(monkeypatch, boot=boot + 20, wall=wall + 20, boot_id=boot_id)
    second = on_clock(machine_state("rail-7"))
    memory.restore(second, remembered)
    former = second.pipeline.alarm._former_clock
    assert former is not None
    assert former(10.0) == pytest.approx(20.0 + (passed + 10.0 if passed else 0.0), abs=0.01)


@pytest.mark.parametrize("wrong", [None, 5, [], {}, {"alarm": {}}, "text", {"sequence": "x"}])
def test_what_is_no_memory_changes_nothing(path: Path, wrong: Any) -> None:
    outbox = Outbox(path, log=Log(io.StringIO()), metrics=Metrics())
    outbox.open()
    whole = memory.remember(machine_state("rail-7"), 0)
    outbox.put([], {"alarm/rail-7": (whole | wrong) if isinstance(wrong, dict) and wrong else wrong})
    outbox.close()
    process = Process(path)
    assert (process.state.sequence, process.state.pipeline.alarm.incident) == (0, None)
    assert len(process.events("alarm_not_restored")) == (wrong is not None)
    assert [a["sequence"] for a in process.hear(LOUD, LOUD)] == [1]
    process.outbox.close()
