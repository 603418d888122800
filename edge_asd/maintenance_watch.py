"""The daemon's side of maintenance: it heeds its file, and commands over MQTT, which the machine's state answers.

What waits for a disk or for a lock runs on a thread of its own (`MaintenanceWatch.look`), so that no sound is lost by
it; the daemon's loop makes it so (`MaintenanceWatch.heed`).
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from edge_asd.clock import boot_time
from edge_asd.machine import Machine
from edge_asd.maintenance import Maintenance, MaintenanceBook, MaintenanceError, Presence, change_book, read_book
from edge_asd.maintenance_command import Command, CommandError
from edge_asd.publish.announcer import Announcer
from edge_asd.publish.log import Log
from edge_asd.publish.payloads import iso
from edge_asd.publish.topics import Hearer

_LOOK_SECONDS = 1.0
"""Between looks. A command is looked at at once, but who repeats one all the time keeps neither disk nor log busy."""
_SAME_END_SECONDS = 60.0
"""A maintenance that is commanded anew and ends so little later is worth no line."""
_REPEATED_SECONDS = 10.0
"""A broker gives what is retained right after the connection: the same command in this time is no new one."""
_STOP_SECONDS = 5.0
"""A folder that is kept locked costs two."""

_Stamp = tuple[int, ...]


@dataclass(frozen=True)
class _Heard:
    """A command as it came."""

    machine: str
    text: str
    is_retained: bool
    moment: float
    """On the monotonic clock."""


@dataclass(frozen=True)
class _Unsaved:
    """A command that counts, and could not be written yet."""

    former: Maintenance | None
    """What the file said of the machine: who has written something else since has the last word."""
    maintenance: Maintenance | None
    retained: str | None


class MaintenanceWatch:
    """Of all machines of a daemon."""

    def __init__(self, path: Path, machines: Mapping[str, Machine], announcer: Announcer, log: Log) -> None:
        """Reads the file.

        Args:
            path: of the file; it is written now, with the names of the machines.
            machines: by name.
            announcer: tells of what changes.
            log: likewise.
        """
        self._path, self._machines, self._announcer, self._log = path, machines, announcer, log
        self._draft = MaintenanceBook()
        """What the thread that looks is at."""
        self._book = self._draft
        """What it has found, and written; replaced as a whole."""
        self._stamp: _Stamp | None = None
        """Of the file that was read last."""
        self._unsaved: dict[str, _Unsaved] = {}
        self._troubles: dict[str, str] = {}
        """With reading and with writing, that were told."""
        self._told: dict[str, Maintenance] = {}
        """By machine: what the log says of it."""
        self._commands: dict[tuple[str, bool], _Heard] = {}
        """The newest of each machine, retained or not: who repeats one crowds out nobody."""
        self._hearing = threading.Lock()
        self._asked: queue.SimpleQueue[str] = queue.SimpleQueue()
        """Machines that somebody wanted something of, and that is done."""
        self._connected_at = float("-inf")
        self._woken, self._stopping = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="maintenance", daemon=True)
        trouble = self._register()
        self.look()
        if trouble is not None and not self._troubles.get("reading", "").startswith(trouble):  # which says more
            self._tell("writing", trouble)
        self._presence = Presence(path)

    def subscriptions(self, prefix: str) -> dict[str, Hearer]:
        """Topics of the commands, for `MqttPublisher`; ``prefix`` is ``edge_asd/SITE/NODE``."""
        return {f"{prefix}/machine/{name}/maintenance/set": self.hear for name in self._machines}

    def note_connection(self) -> None:
        """The broker was reached: what is retained comes now. From any thread."""
        self._connected_at = time.monotonic()

    def hear(self, topic: str, payload: bytes, is_retained: bool = False) -> None:
        """Take a message from any thread; it is done at the next `look`."""
        heard = _Heard(topic.split("/")[-3], payload.decode(errors="replace"), is_retained, time.monotonic())
        with self._hearing:
            self._commands[heard.machine, is_retained] = heard
        self._woken.set()

    def start(self) -> None:
        """Look every second from now on, and at every command."""
        self._thread.start()

    def look(self) -> None:
        """Read the file and do what was heard; it may wait for the disk, and for who has the folder locked."""
        self._read()  # before the commands: it knows those of a former process
        asked = []
        with self._hearing:
            commands, self._commands = self._commands, {}
        for heard in sorted(commands.values(), key=lambda one: one.moment):
            if heard.text.strip():
                self._take(heard)
                asked.append(heard.machine)
            elif heard.is_retained and self._draft.commands.get(heard.machine):
                # It was removed: the same again is a new one.
                self._note(heard.machine, self._draft.machines.get(heard.machine), "")
        if self._unsaved:
            self._save()
        self._book = self._draft
        for machine in asked:
            self._asked.put(machine)

    def heed(self) -> None:
        """Make so what was found; call it often, always from the same thread. It never waits."""
        asked = set()
        while not self._asked.empty():
            asked.add(self._asked.get_nowait())
        book, now = self._book, datetime.now(UTC)
        for name, machine in self._machines.items():
            current = book.of(name, now)
            if current != machine.state.maintenance:
                self._change(machine, book.machines.get(name), current)
            elif name in asked:
                self._announcer.say_again(machine.state)

    def stop(self) -> None:
        """Do what was heard until now; nobody looks any more."""
        self._stopping.set()
        self._woken.set()
        if self._thread.is_alive():
            self._thread.join(_STOP_SECONDS)
        if not self._thread.is_alive():  # else a disk hangs
            self.look()
        self._presence.end()

    def _run(self) -> None:
        while not self._stopping.is_set():
            was_woken = self._woken.wait(_LOOK_SECONDS)
            self._woken.clear()
            try:
                self.look()
            except Exception as error:  # whatever it is, the next look may go well
                self._tell("looking", repr(error))
            if was_woken:
                self._stopping.wait(_LOOK_SECONDS)

    def _change(self, machine: Machine, last: Maintenance | None, current: Maintenance | None) -> None:
        if current is None:
            former = machine.state.maintenance
            self._told.pop(machine.name, None)
            machine.pipeline.is_in_maintenance = False
            machine.maintenance.end(boot_time())
            was_ended = last is not None and former is not None and last.until != former.until
            self._log("unmuted", "notice", machine=machine.name, by=last.by if was_ended and last else None)
        else:
            machine.maintenance.begin()
            machine.pipeline.is_in_maintenance = True
            if not _is_nearly(current, self._told.get(machine.name)):
                self._told[machine.name] = current
                self._log("muted", "warning", machine=machine.name, until=iso(current.until), by=current.by)
        self._announcer.maintain(machine.state, current)

    def _take(self, heard: _Heard) -> None:
        machine, text = heard.machine, heard.text
        is_known = heard.is_retained and self._draft.commands.get(machine) == text
        if is_known and heard.moment - self._connected_at < _REPEATED_SECONDS:
            return
        try:
            self._do(heard, Command.parse(text))
        except CommandError as error:
            self._log("maintenance_command_refused", "warning", machine=machine, error=str(error), said=text[:100])

    def _do(self, heard: _Heard, command: Command) -> None:
        now = datetime.now(UTC)
        current = self._draft.of(heard.machine, now)
        if command.hours is not None:
            current = Maintenance.of(command.hours, command.by, now)
        elif current is not None:
            current = current.ended(command.by, now)
        self._note(heard.machine, current, heard.text if heard.is_retained else None)

    def _note(self, machine: str, maintenance: Maintenance | None, retained: str | None) -> None:
        """It counts from now on; `_save` writes it."""
        known = self._unsaved.get(machine)
        former = self._draft.machines.get(machine) if known is None else known.former
        if retained is None and known is not None:
            retained = known.retained
        self._unsaved[machine] = _Unsaved(former, maintenance, retained)
        self._draft = self._draft.noted(machine, maintenance, retained)

    def _with_unsaved(self, book: MaintenanceBook) -> MaintenanceBook:
        for machine, unsaved in self._unsaved.items():
            written = book.machines.get(machine)
            book = book.noted(machine, unsaved.maintenance if written == unsaved.former else written, unsaved.retained)
        return book.of_machines(list(self._machines))

    def _save(self) -> None:
        try:
            self._draft = change_book(self._path, self._with_unsaved)
        except MaintenanceError as error:
            self._tell("writing", f"{error} (what was commanded counts, and is tried again; it ends with this process)")
        else:
            self._unsaved.clear()
            self._troubles.pop("writing", None)

    def _register(self) -> str | None:
        """What was wrong with that."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            change_book(self._path, lambda book: book.of_machines(list(self._machines)))
        except OSError as error:
            return f"{self._path.parent}: {error.strerror or error}"
        except MaintenanceError as error:
            return str(error)
        return None

    def _read(self) -> None:
        stamp = _stamp(self._path)  # of before: what is written meanwhile is read the next time
        if stamp == self._stamp:
            return
        try:
            book = read_book(self._path)
        except MaintenanceError as error:  # tried again at the next look
            now = datetime.now(UTC)
            muted = [name for name in self._machines if self._draft.of(name, now)]
            whom = f"still in maintenance: {', '.join(muted)}" if muted else "nobody is in maintenance"
            self._tell("reading", f"{error} ({whom})")
        else:
            self._stamp, self._draft = stamp, self._with_unsaved(book)
            self._troubles.pop("reading", None)

    def _tell(self, of: str, text: str) -> None:
        if text != self._troubles.get(of):
            self._troubles[of] = text
            self._log("maintenance_file", "error", error=text)


def _is_nearly(current: Maintenance, other: Maintenance | None) -> bool:
    if other is None or current.by != other.by:
        return False
    return abs((current.until - other.until).total_seconds()) < _SAME_END_SECONDS


def _stamp(path: Path) -> _Stamp:
    """Differs when the file does; empty where there is none."""
    try:
        found = path.stat()
    except OSError:
        return ()
    return found.st_ino, found.st_mtime_ns, found.st_size
