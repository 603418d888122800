"""Maintenance in the daemon: its file and commands over MQTT are heeded."""

from __future__ import annotations

import fcntl
import io
import json
import os
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from jsonschema import Draft202012Validator
from parts.muting import mute
from parts.pipelines import pipeline_of

from edge_asd.config import MachineSection
from edge_asd.detector import Detector
from edge_asd.machine import Machine
from edge_asd.maintenance import (
    Maintenance,
    change_book,
    maintenance_path,
    read_book,
)
from edge_asd.maintenance_command import Command, CommandError
from edge_asd.maintenance_watch import MaintenanceWatch
from edge_asd.publish import payloads
from edge_asd.publish.announcer import Announcer
from edge_asd.publish.log import Log
from edge_asd.publish.metrics import Metrics
from edge_asd.publish.mqtt import MqttPublisher
from edge_asd.publish.outbox import Outbox
from edge_asd.publish.payloads import Place

TOPIC = "edge_asd/plant-3/hall/machine/{}/maintenance/set"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return maintenance_path(tmp_path, "press")


@pytest.mark.parametrize(
    ("text", "hours", "by"),
    [
        ("on", 744, "mqtt"),
        (" ON\n", 744, "mqtt"),
        ("off", None, "mqtt"),
        ('{"hours": 2}', 2, "mqtt"),
        ('{"hours": 0.25, "by": " shift lead "}', 0.25, "shift lead"),
    ],
)
def test_commands(text: str, hours: float | None, by: str) -> None:
    assert Command.parse(text) == Command(hours, by)


@pytest.mark.parametrize(
    "text",
    [
        *("", "2", "yes", "{}", "[]", "null", "{" * 5000),
        *('{"hours": "2"}', '{"hours": true}', '{"hours": 0}', '{"hours": 1e9}', '{"hours": NaN}'),
        *('{"hours": 2, "until": 3}', '{"hours": 2, "by": 7}', '{"hours": 2, "by": ""}'),
    ],
)
def test_what_is_no_command(text: str) -> None:
    with pytest.raises(CommandError):
        Command.parse(text)


class Hall:
    """A daemon's machines, rail-7 and rail-8, without sound."""

    def __init__(self, path: Path, detector: Detector) -> None:
        self.stream, self.metrics = io.StringIO(), Metrics()
        self._log = Log(self.stream)
        self.machines = {}
        for name in ("rail-7", "rail-8"):
            settings = MachineSection(name=name, recordings=Path("sound"))
            pipeline = pipeline_of(detector)
            self.machines[name] = Machine(settings, pipeline, Place("plant-3", "hall", "press", name))
            self.metrics.introduce(name, pipeline)
        outbox = Outbox(path.with_suffix(".sqlite"), log=self._log, metrics=self.metrics)
        announcer = Announcer(self._log, self.metrics, outbox)
        self.answers: list[dict[str, Any]] = []
        self.detector = detector
        announcer.mqtt = cast(MqttPublisher, SimpleNamespace(state=lambda _, document: self.answers.append(document)))
        self.watch = MaintenanceWatch(path, self.machines, announcer, self._log)
        self.watch.heed()

    def command(self, text: str, machine: str = "rail-7", *, is_retained: bool = False) -> None:
        self.watch.hear(TOPIC.format(machine), text.encode(), is_retained)
        self.look()

    def look(self) -> None:
        """As its thread does, and then the daemon's loop."""
        self.watch.look()
        self.watch.heed()

    def document(self, machine: str = "rail-7") -> dict[str, Any]:
        return json.loads(json.dumps(payloads.machine_state(self.machines[machine].state)))

    def muted(self, machine: str = "rail-7") -> float | None:
        return self.metrics.registry.get_sample_value("edge_asd_muted", {"machine": machine})

    def log(self) -> list[dict[str, Any]]:
        """Everything logged; nothing can be logged after that."""
        self._log.close()
        return [json.loads(line) for line in self.stream.getvalue().splitlines()]


@pytest.fixture
def hall(path: Path, site: Detector) -> Iterator[Hall]:
    hall = Hall(path, site)
    yield hall
    hall.watch.stop()


def test_a_command_is_told_kept_and_ended(
    hall: Hall, path: Path, site: Detector, schema: Callable[[str], Draft202012Validator]
) -> None:
    assert set(read_book(path).machines) == {"rail-7", "rail-8"}, "so that `edge-asd mute` knows them"
    assert hall.document()["maintenance"] is None and hall.muted() == 0
    hall.command('{"hours": 2, "by": "shift lead"}')
    document = hall.document()
    assert document["condition"] == "maintenance" and document["maintenance"]["by"] == "shift lead"
    until = datetime.fromisoformat(document["maintenance"]["until"])
    assert abs((until - datetime.now(UTC)).total_seconds() - 7200) < 5
    schema("state").validate(document)
    assert (hall.muted(), hall.muted("rail-8")) == (1, 0)
    condition = {"machine": "rail-7", "condition": "maintenance"}
    assert hall.metrics.registry.get_sample_value("edge_asd_condition", condition) == 1
    assert hall.document("rail-8")["condition"] == "starting"
    # Another process, after a crash: the same until the same moment.
    again = Hall(path, site)
    assert again.document()["maintenance"] == document["maintenance"]
    assert again.document()["condition"] == "maintenance" and again.muted() == 1
    hall.command("off")
    assert hall.document()["maintenance"] is None and hall.document()["condition"] == "starting"
    assert hall.muted() == 0
    told = [(line["event"], line["by"]) for line in hall.log() if line["event"] in ("muted", "unmuted")]
    assert told == [("muted", "shift lead"), ("unmuted", "mqtt")]


def test_edge_asd_mute_is_heeded(hall: Hall, path: Path) -> None:
    mute(path, "rail-7")
    hall.watch.heed()
    assert hall.document()["maintenance"] is None, "the loop does not look at the disk"
    hall.look()
    assert hall.document()["maintenance"]["by"] == "mia"
    until = mute(path, "rail-7", hours=5).until
    hall.look()
    assert hall.document()["maintenance"]["until"] == payloads.iso(until), "it goes on for longer"
    path.unlink()
    hall.look()
    assert hall.document()["maintenance"] is None
    assert [line["event"] for line in hall.log() if "muted" in line["event"]] == ["muted", "muted", "unmuted"]


def test_it_ends_by_itself(hall: Hall, path: Path) -> None:
    now = datetime.now(UTC)
    short = Maintenance(since=now, until=now + timedelta(seconds=0.5), by="mia")
    change_book(path, lambda book: book.noted("rail-7", short))
    hall.look()
    assert hall.muted() == 1
    time.sleep(0.6)
    hall.watch.heed()
    assert hall.muted() == 0 and hall.document()["condition"] == "starting"
    (line,) = [line for line in hall.log() if line["event"] == "unmuted"]
    assert line["by"] is None


def test_a_retained_command_counts_once(hall: Hall, path: Path, site: Detector) -> None:
    hall.command('{"hours": 2}', is_retained=True)
    until = hall.document()["maintenance"]["until"]
    time.sleep(0.01)
    hall.watch.note_connection()
    hall.command('{"hours": 2}', is_retained=True)
    assert hall.document()["maintenance"]["until"] == until, "the broker gave it again"
    hall.command('{"hours": 2}')
    assert hall.document()["maintenance"]["until"] > until, "somebody said it, right after the connection"
    until = hall.document()["maintenance"]["until"]
    hall.watch._connected_at -= 60
    hall.command('{"hours": 2}', is_retained=True)
    assert hall.document()["maintenance"]["until"] > until, "somebody said it again"
    # After a restart too; and what was ended by hand meanwhile stays ended.
    change_book(path, lambda book: book.noted("rail-7", None))
    again = Hall(path, site)
    again.watch.note_connection()
    again.command('{"hours": 2}', is_retained=True)
    assert again.document()["maintenance"] is None
    again.command("on", is_retained=True)
    assert again.document()["maintenance"] is not None, "another command is a new one"


def test_a_retained_on_does_not_undo_a_later_off(hall: Hall) -> None:
    """Nobody removes the retained message: at every connection the broker gives it again."""
    hall.command("on", is_retained=True)
    hall.command("off")
    for _ in range(2):
        hall.watch.note_connection()
        hall.command("on", is_retained=True)
        assert hall.document()["maintenance"] is None
    # Removed and set anew it is a new command, and a live empty message removes nothing.
    hall.command("")
    hall.command("on", is_retained=True)
    assert hall.document()["maintenance"] is None
    hall.command("", is_retained=True)
    hall.command("on", is_retained=True)
    assert hall.document()["maintenance"] is not None


def test_what_is_no_command_changes_nothing(hall: Hall) -> None:
    hall.command("on")
    before = hall.document()["maintenance"]
    for text in ("of", "{", '{"hours": -1}', "x" * 5000):
        hall.command(text)
    hall.command("")  # a retained command is removed
    hall.watch.hear(TOPIC.format("rail-7"), b"\xff\xfe")
    hall.look()
    assert hall.document()["maintenance"] == before
    for _ in range(150):
        hall.watch.hear(TOPIC.format("rail-7"), b"what")
    hall.look()
    log = hall.log()
    assert len([line for line in log if line["event"] == "maintenance_command_refused"]) == 5 + 1, "the last counts"
    assert len(hall.answers) == 1 + 5 + 1, "every command is answered by the state, those taken at once by one"


def test_a_crowd_of_commands_loses_none_of_another_machine(hall: Hall) -> None:
    hall.command("on", "rail-8")
    for _ in range(500):
        hall.watch.hear(TOPIC.format("rail-7"), b"on")
    hall.watch.hear(TOPIC.format("rail-8"), b"off")
    for _ in range(500):
        hall.watch.hear(TOPIC.format("rail-7"), b"on")
    hall.look()
    assert (hall.muted(), hall.muted("rail-8")) == (1, 0)
    # A live one that came before what the broker gives again at a connection stands.
    hall.command("on", is_retained=True)
    hall.watch.note_connection()
    hall.watch.hear(TOPIC.format("rail-7"), b"off")
    hall.watch.hear(TOPIC.format("rail-7"), b"on", True)
    hall.look()
    assert hall.muted() == 0


def test_who_repeats_a_command_all_the_time_fills_no_log_and_writes_no_disk_full(hall: Hall, path: Path) -> None:
    hall.watch.start()
    writes, end = set(), time.monotonic() + 2.5
    while time.monotonic() < end:
        hall.watch.hear(TOPIC.format("rail-7"), b'{"hours": 1}')
        hall.watch.heed()
        writes.add(path.stat().st_mtime_ns)
        time.sleep(0.02)
    hall.watch.stop()
    hall.watch.heed()
    assert len(writes) <= 5 and len(hall.answers) <= 5
    said = [line["event"] for line in hall.log()]
    assert (said.count("muted"), said.count("state")) == (1, 1)
    # Another end is worth a line.
    again = Hall(path, hall.detector)
    again.command('{"hours": 2}')
    assert [line["event"] for line in again.log()].count("muted") == 2


def test_a_file_that_cannot_be_used_costs_no_alarm(path: Path, site: Detector) -> None:
    path.write_text("{")
    hall = Hall(path, site)
    assert hall.muted() == 0
    hall.command("on")
    assert hall.muted() == 1, "it counts all the same"
    for _ in range(3):
        hall.look()
    assert hall.muted() == 1 and path.read_text() == "{"
    path.unlink()
    hall.look()
    assert hall.muted() == 1 and read_book(path).of("rail-7", datetime.now(UTC)), "written as soon as it can be"
    errors = [line["error"] for line in hall.log() if line["level"] == "error"]
    assert any("nobody is in maintenance" in e for e in errors), errors
    assert any("it ends with this process" in e for e in errors), errors
    assert len(errors) == len(set(errors)), "each is told once"
    assert all(e.endswith(")") for e in errors), "and says what it means for the machines"


def test_a_file_that_cannot_be_read_for_a_while_unmutes_nobody(
    hall: Hall, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hall.command("on")
    mute(path, "rail-8")
    with monkeypatch.context() as disk:
        disk.setattr(Path, "open", lambda *_, **__: os.open("/proc/self/mem/none", os.O_RDONLY))  # raises OSError
        hall.look()
    assert (hall.muted(), hall.muted("rail-8")) == (1, 0)
    hall.look()
    assert (hall.muted(), hall.muted("rail-8")) == (1, 1), "it is tried again, though the file is the same"
    path.write_text("{")
    hall.look()
    assert (hall.muted(), hall.muted("rail-8")) == (1, 1)
    path.unlink()
    hall.look()
    assert (hall.muted(), hall.muted("rail-8")) == (0, 0), "who removes it means it"
    errors = [line["error"] for line in hall.log() if line["event"] == "maintenance_file"]
    assert len(errors) == 2 and "still in maintenance: rail-7)" in errors[0], errors
    assert "still in maintenance: rail-7, rail-8)" in errors[1], errors


def test_who_writes_while_a_command_cannot_be_written_has_the_last_word(hall: Hall, path: Path) -> None:
    former = path.read_bytes()
    path.write_text("{")
    hall.command("on", is_retained=True)
    hall.command("on", "rail-8")
    assert (hall.muted(), hall.muted("rail-8")) == (1, 1)
    path.write_bytes(former)
    ended = Maintenance.of(1, "mia", datetime.now(UTC)).ended("mia", datetime.now(UTC))
    change_book(path, lambda book: book.noted("rail-7", ended))
    hall.look()
    assert (hall.muted(), hall.muted("rail-8")) == (0, 1)
    hall.watch.note_connection()
    hall.command("on", is_retained=True)
    assert hall.muted() == 0, "the command was taken once"


def test_a_folder_that_is_kept_locked_costs_the_loop_nothing(hall: Hall, path: Path) -> None:
    hall.watch.start()
    handle = os.open(path.parent, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    longest, began = 0.0, time.monotonic()
    for _ in range(3):
        hall.watch.hear(TOPIC.format("rail-7"), b"on")
    while hall.muted() == 0 and time.monotonic() - began < 10:
        turn = time.monotonic()
        hall.watch.heed()
        longest = max(longest, time.monotonic() - turn)
        time.sleep(0.01)
    os.close(handle)
    assert hall.muted() == 1 and time.monotonic() - began > 1.5 > longest, "what cannot be written counts all the same"


def test_what_was_acknowledged_before_the_end_is_kept(hall: Hall, path: Path) -> None:
    hall.watch.start()
    hall.watch.hear(TOPIC.format("rail-7"), b"on")
    hall.watch.stop()
    hall.watch.heed()
    assert hall.muted() == 1 and read_book(path).of("rail-7", datetime.now(UTC))
