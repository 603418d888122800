"""Maintenance: its file, the command that writes it, and what the daemon's alarm makes of it."""

from __future__ import annotations

import fcntl
import io
import json
import os
import re
import shutil
import stat
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jsonschema import Draft202012Validator
from parts.pipelines import RATE, pipeline_of

from edge_asd import cli
from edge_asd.audio.windows import Window
from edge_asd.clock import boot_time
from edge_asd.config import MachineSection
from edge_asd.demo.clips import simulate
from edge_asd.demo.slide_rail import Fault
from edge_asd.detector import Detector
from edge_asd.logmel import Float32Array
from edge_asd.machine import Machine
from edge_asd.maintenance import (
    MOST_HOURS,
    Maintenance,
    MaintenanceBook,
    MaintenanceError,
    Presence,
    change_book,
    maintenance_path,
    read_book,
)
from edge_asd.maintenance_watch import Command, CommandError, MaintenanceWatch
from edge_asd.pause import Pause
from edge_asd.pipeline import AlarmSettings
from edge_asd.publish import payloads
from edge_asd.publish.announcer import Announcer
from edge_asd.publish.log import Log
from edge_asd.publish.metrics import Metrics
from edge_asd.publish.outbox import Outbox
from edge_asd.publish.payloads import Place

NOW = datetime(2026, 11, 24, 17, 0, tzinfo=UTC)
TOPIC = "edge_asd/plant-3/hall/machine/{}/maintenance/set"
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return maintenance_path(tmp_path, "press")


def mute(path: Path, machine: str, hours: float = 2.0, by: str = "mia") -> Maintenance:
    maintenance = Maintenance.of(hours, by, datetime.now(UTC))
    change_book(path, lambda book: book.noted(machine, maintenance))
    return maintenance


# ---------------------------------------------------------------------------------------------------------- the file


def test_what_was_written_is_read(path: Path) -> None:
    assert read_book(path) == MaintenanceBook()
    maintenance = mute(path, "rail-7")
    mute(path, "rail-8", 0.5)
    book = read_book(path)
    assert book.of("rail-7", datetime.now(UTC)) == maintenance
    assert book.of("rail-9", datetime.now(UTC)) is None
    assert (maintenance.until - maintenance.since) == timedelta(hours=2)
    assert [p.name for p in path.parent.iterdir()] == ["press.maintenance.json"], "nothing else is left"
    assert stat.S_IMODE(path.stat().st_mode) == 0o644, "the daemon may be another user"


@pytest.mark.parametrize("hours", [0.0, -1.0, MOST_HOURS + 0.1, float("nan"), float("inf")])
def test_hours_that_nobody_means(hours: float) -> None:
    with pytest.raises(ValueError, match=r"at most 744 \(31 days\)"):
        Maintenance.of(hours, "mia", NOW)


def test_it_lasts_until_its_end_and_never_longer_than_the_longest() -> None:
    book = MaintenanceBook().noted("rail-7", Maintenance.of(2, "mia", NOW))
    for hours, is_muted in [(0, True), (1.99, True), (2, False), (1000, False), (-MOST_HOURS + 3, True)]:
        assert (book.of("rail-7", NOW + timedelta(hours=hours)) is not None) is is_muted, hours
    # The clock was set back by years: nobody is to be deaf for years.
    assert book.of("rail-7", NOW - timedelta(days=900)) is None
    ended = Maintenance.of(2, "mia", NOW).ended("tom", NOW + timedelta(hours=1))
    assert not ended.lasts(NOW + timedelta(hours=1)) and ended.by == "tom"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "no JSON"),
        (b'{"machines": {"rail-7": {"until": "20', "no JSON"),
        (b"[" * 100_000, "no JSON"),
        (b"\xff", "no JSON"),
        (b"[]", "is damaged at the top"),
        (b'{"schema": 2}', "is damaged at schema"),
        (b'{"machines": {"rail-7": {"since": "2026-11-24T17:00:00", "until": "x", "by": "a"}}}', "machines.rail-7"),
    ],
)
def test_a_damaged_file_is_an_error_that_says_what_to_do(path: Path, content: bytes, says: str) -> None:
    path.write_bytes(content)
    with pytest.raises(MaintenanceError, match=rf"^{re.escape(str(path))}: .*{re.escape(says)}.*; remove it$"):
        read_book(path)


def test_writers_at_the_same_time_lose_nothing(path: Path) -> None:
    names = [f"rail-{n}" for n in range(12)]
    threads = [threading.Thread(target=mute, args=(path, name)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(read_book(path).machines) == set(names)


def test_who_keeps_the_folder_locked_cannot_stop_the_daemon(path: Path) -> None:
    handle = os.open(path.parent, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    began = time.monotonic()
    try:
        with pytest.raises(MaintenanceError, match="another process keeps it locked"):
            mute(path, "rail-7")
    finally:
        os.close(handle)
    assert time.monotonic() - began < 5 and not path.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_root_and_the_daemons_user_replace_each_others_file() -> None:
    """As under systemd's DynamicUser: the folder is the daemon's, the command is root's."""
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    nobody = 65534
    try:
        os.chown(folder, nobody, nobody)
        folder.chmod(0o755)
        path = maintenance_path(folder, "press")

        def as_user(user: int) -> int:
            child = os.fork()
            if child == 0:
                status = 1
                try:
                    os.setgid(user)
                    os.setuid(user)
                    mute(path, f"of-{user}")
                    status = 0
                except MaintenanceError as error:
                    status = 2 if "run it as root, or as the daemon's user" in str(error) else 3
                finally:
                    os._exit(status)
            return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

        mute(path, "of-root")
        assert as_user(nobody) == 0
        mute(path, "of-root-again")
        assert as_user(nobody) == 0
        assert as_user(12345) == 2, "anybody else is told what to do"
        assert set(read_book(path).machines) == {"of-root", "of-root-again", f"of-{nobody}"}
    finally:
        shutil.rmtree(folder)


# ------------------------------------------------------------------------------------------------------- the command

CONFIG = """\
site: plant-3
node: hall
machines:
  - {name: rail-7, recordings: sound, detectors: [a.onnx]}
  - {name: rail-8, recordings: sound, detectors: [a.onnx]}
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "press.yaml"
    file.write_text(CONFIG)
    return file


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """edge-asd mute in this process; gives exit status, standard output and error."""
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)

    def run(*arguments: str | Path) -> tuple[int, str, str]:
        status = cli.main(["mute", *map(str, arguments)])
        said = capsys.readouterr()
        assert "Traceback" not in said.err
        return status, said.out, said.err

    return run


def test_mute_list_and_off(run: Run, config: Path, tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir()
    path = maintenance_path(state, "press")
    presence = Presence(path)
    status, out, errors = run("rail-7", "--hours", "0.5", "-c", config, "--state", state)
    assert (status, errors) == (0, ""), "a daemon reads it"
    current = read_book(path).of("rail-7", datetime.now(UTC))
    assert current is not None and current.until - current.since == timedelta(minutes=30) and current.by
    assert out.startswith("rail-7: in maintenance until 20")
    # Without the configuration, the file says which machines there are.
    status, out, _ = run("--list", "--state", state)
    assert status == 0 and re.fullmatch(r"rail-7  in maintenance until .+, by \w+\n", out)
    assert run("--list", "-c", config, "--state", state)[1].splitlines()[1] == "rail-8  -"
    assert run("rail-7", "--off", "--state", state) == (0, "rail-7: maintenance is over\n", "")
    assert run("rail-7", "--off", "--state", state) == (0, "rail-7: is not in maintenance\n", "")
    assert read_book(path).of("rail-7", datetime.now(UTC)) is None
    presence.end()
    assert "no daemon reads" in run("rail-7", "--hours", "1", "--state", state)[2]


def test_the_state_folder_is_systemds_then_the_configurations(
    run: Run, config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("rail-7", "--hours", "1", "-c", config)[0] == 0
    assert maintenance_path(tmp_path, "press").exists()
    (tmp_path / "systemd").mkdir()
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path / "systemd"))
    assert run("rail-8", "--hours", "1", "-c", config)[0] == 0
    assert set(read_book(maintenance_path(tmp_path / "systemd", "press")).machines) == {"rail-8"}


def test_what_cannot_be_meant_is_one_line(run: Run, config: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    two = tmp_path / "two"
    two.mkdir()
    for instance in ("hall-1", "hall-2"):
        mute(maintenance_path(two, instance), "rail-7")
    (tmp_path / "damaged").mkdir()
    maintenance_path(tmp_path / "damaged", "press").write_text("{")
    for arguments, expected, says in [
        (["rail-9", "--hours", "2", "-c", config], 2, "there is no machine 'rail-9'; there are: rail-7, rail-8"),
        (["rail-7", "--hours", "0", "-c", config], 2, "--hours must be above 0 and at most 744 (31 days), not 0"),
        (["rail-7", "--hours", "745", "-c", config], 2, "at most 744 (31 days)"),
        (["rail-7", "--hours", "nan", "-c", config], 2, "at most 744 (31 days)"),
        (["--off", "-c", config], 2, "say which MACHINE"),
        (["rail-7", "--list", "-c", config], 2, "leave MACHINE out"),
        (["rail-7", "--hours", "2"], 2, "-c FILE names the daemon's configuration, or --state DIR"),
        (["rail-7", "--hours", "2", "--state", empty], 2, "no daemon has kept its state in"),
        (["rail-7", "--hours", "2", "-c", config, "--state", tmp_path / "none"], 2, "is no folder"),
        (["rail-7", "--hours", "2", "--state", two], 2, "rail-7 is a machine of several daemons"),
        (["rail-7", "--hours", "2", "-c", config, "--state", tmp_path / "damaged"], 1, "is damaged, no JSON"),
        (["rail-7", "--hours", "2", "-c", tmp_path / "none.yaml"], 78, "No such file or directory"),
    ]:
        status, out, errors = run(*arguments)
        assert (status, out) == (expected, ""), arguments
        assert says in errors and errors.count("\n") == 1, errors
    assert not maintenance_path(tmp_path, "press").exists()


# ------------------------------------------------------------------------------------------------ commands over MQTT


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

    def __init__(self, path: Path, detector: Detector, *, is_started: bool = True) -> None:
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
        self.watch = MaintenanceWatch(path, self.machines, announcer, self._log, is_kept=True)
        if is_started:
            self.watch.heed()

    def command(self, text: str, machine: str = "rail-7") -> None:
        self.watch.hear(TOPIC.format(machine), text.encode())
        self.watch.heed()

    def look(self) -> None:
        """As a second later."""
        self.watch._look_at = float("-inf")
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
    assert hall.document()["maintenance"] is None, "the file is not looked at all the time"
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
    hall.command('{"hours": 2}')
    until = hall.document()["maintenance"]["until"]
    time.sleep(0.01)
    hall.watch.note_connection()
    hall.command('{"hours": 2}')
    assert hall.document()["maintenance"]["until"] == until, "the broker gave it again"
    hall.watch._connected_at -= 60
    hall.command('{"hours": 2}')
    assert hall.document()["maintenance"]["until"] > until, "somebody said it again"
    # After a restart too; and what was ended by hand meanwhile stays ended.
    mute(path, "rail-7", hours=1)
    change_book(path, lambda book: book.noted("rail-7", None))
    again = Hall(path, site, is_started=False)
    again.watch.note_connection()
    again.command('{"hours": 2}')  # before the first look at the file
    assert again.document()["maintenance"] is None
    again.command("on")
    assert again.document()["maintenance"] is not None, "another command is a new one"


def test_what_is_no_command_changes_nothing(hall: Hall) -> None:
    hall.command("on")
    before = hall.document()["maintenance"]
    for text in ("of", "{", '{"hours": -1}', "x" * 5000):
        hall.command(text)
    hall.command("")  # a retained command is removed
    hall.watch.hear(TOPIC.format("rail-7"), b"\xff\xfe")
    hall.watch.heed()
    assert hall.document()["maintenance"] == before
    for _ in range(150):
        hall.watch.hear(TOPIC.format("rail-7"), b"what")
    hall.watch.heed()
    log = hall.log()
    assert len([line for line in log if line["event"] == "maintenance_command_refused"]) == 5 + 100
    assert len([line for line in log if line["event"] == "maintenance_command_dropped"]) == 50
    states = [line for line in log if line["event"] == "state"]
    assert len(states) == 1 + 5 + 1, "every command is answered by the state, those taken at once by one"


def test_a_file_that_cannot_be_used_costs_no_alarm(path: Path, site: Detector) -> None:
    path.write_text("{")
    hall = Hall(path, site)
    assert hall.muted() == 0
    hall.command("on")
    assert hall.muted() == 1, "it counts all the same"
    hall.look()
    assert hall.muted() == 1
    errors = [line["error"] for line in hall.log() if line["level"] == "error"]
    assert any("nobody is in maintenance" in e for e in errors), errors
    assert any("what was commanded ends with this process" in e for e in errors), errors
    assert path.read_text() == "{"


# ------------------------------------------------------------------------------------------------------- the alarm


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
        reading = pipeline.read(Window(position, sounds[is_broken], 0), is_held=is_held)
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


def test_a_machine_tells_its_pipeline(sounds: dict[bool, Float32Array], site: Detector) -> None:
    settings = MachineSection(name="rail-7", recordings=Path("sound"))
    machine = Machine(settings, pipeline_of(site, hop=10.0), Place("plant-3", "hall", "press", "rail-7"))
    began = boot_time() - 10.0
    machine.state.time_of = lambda position: began + position / RATE
    window = Window(0, sounds[True], 0)
    machine.maintenance.begin()
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
