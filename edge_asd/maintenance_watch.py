"""The daemon's side of maintenance: it heeds its file, and commands over MQTT.

A command comes on ``edge_asd/SITE/NODE/machine/MACHINE/maintenance/set``: ``on`` (until ``off``, at most 31 days),
``off``, or a JSON object such as ``{"hours": 2, "by": "shift lead"}``. It is answered by the machine's state.
"""

from __future__ import annotations

import json
import queue
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from edge_asd.clock import boot_time
from edge_asd.errors import EdgeAsdError
from edge_asd.machine import Machine
from edge_asd.maintenance import (
    MOST_HOURS,
    Maintenance,
    MaintenanceBook,
    MaintenanceError,
    Presence,
    change_book,
    read_book,
)
from edge_asd.publish.announcer import Announcer
from edge_asd.publish.log import Log
from edge_asd.publish.payloads import iso

_LOOK_SECONDS = 1.0
_REPEATED_SECONDS = 10.0
"""A broker gives what is retained right after the connection: the same command in this time is no new one."""
_MOST_WAITING = 100
_MOST_CHARACTERS = 1000
_BY_MQTT = "mqtt"


class CommandError(EdgeAsdError):
    """Nothing that a command may say."""


@dataclass(frozen=True)
class Command:
    """What somebody wants of a machine."""

    hours: float | None
    """None: its maintenance is over."""
    by: str

    @classmethod
    def parse(cls, text: str) -> Command:
        """Read a payload.

        Raises:
            CommandError: it is none of those above.
        """
        word = text.strip().lower()
        if word in ("on", "off"):
            return cls(MOST_HOURS if word == "on" else None, _BY_MQTT)
        try:
            said = json.loads(text)
        except (ValueError, RecursionError):
            said = None
        if not isinstance(said, dict) or not {"hours"} <= set(said) <= {"hours", "by"}:
            raise CommandError('must be on, off, or an object such as {"hours": 2, "by": "shift lead"}')
        hours, by = said["hours"], said.get("by", _BY_MQTT)
        if isinstance(hours, bool) or not isinstance(hours, int | float) or not 0 < hours <= MOST_HOURS:
            raise CommandError(f"hours must be a number above 0, at most {MOST_HOURS} (31 days)")
        if not isinstance(by, str) or not by.strip():
            raise CommandError("by must be a text that says who it is")
        return cls(float(hours), by.strip())


class MaintenanceWatch:
    """Of all machines of a daemon. All but `hear` and `note_connection` is called by one thread."""

    def __init__(
        self, path: Path, machines: Mapping[str, Machine], announcer: Announcer, log: Log, *, is_kept: bool
    ) -> None:
        """
        Args:
            path: of the file; it need not be there.
            machines: by name.
            announcer: tells of what changes.
            log: likewise.
            is_kept: write the file now, with the names of the machines: its folder is there for that.
        """
        self._path, self._machines, self._announcer, self._log = path, machines, announcer, log
        self._book = MaintenanceBook()
        self._stamp: tuple[int, int, int] | None = None
        self._look_at = float("-inf")
        self._told: str | None = None
        """The last trouble with the file that was told."""
        self._commands: queue.Queue[tuple[str, str, float]] = queue.Queue(_MOST_WAITING)
        self._connected_at = float("-inf")
        if is_kept:
            self._register()
        self._presence = Presence(path)

    def subscriptions(self, prefix: str) -> dict[str, Callable[[str, bytes], None]]:
        """Topics of the commands, for `MqttPublisher`; ``prefix`` is ``edge_asd/SITE/NODE``."""
        return {f"{prefix}/machine/{name}/maintenance/set": self.hear for name in self._machines}

    def note_connection(self) -> None:
        """The broker was reached: what is retained comes now."""
        self._connected_at = time.monotonic()

    def hear(self, topic: str, payload: bytes) -> None:
        """Take a message from any thread; it is done at the next `heed`."""
        machine, text = topic.split("/")[-3], payload.decode(errors="replace")
        if not text.strip():
            return  # a retained command was removed
        try:
            self._commands.put_nowait((machine, text, time.monotonic()))
        except queue.Full:
            self._log("maintenance_command_dropped", "warning", machine=machine)

    def heed(self) -> None:
        """Look at the file and what was heard, and make it so; call it often."""
        if time.monotonic() >= self._look_at:
            self._look_at = time.monotonic() + _LOOK_SECONDS
            self._look()
        asked = self._take_commands()  # after the file, which knows the commands of a former process
        now = datetime.now(UTC)
        for name, machine in self._machines.items():
            current = self._book.of(name, now)
            if current != machine.state.maintenance:
                self._change(machine, current)
            elif name in asked:
                self._announcer.say_again(machine.state)

    def stop(self) -> None:
        """Nobody heeds the file any more."""
        self._presence.end()

    def _change(self, machine: Machine, current: Maintenance | None) -> None:
        if current is None:
            machine.pipeline.is_in_maintenance = False
            machine.maintenance.end(boot_time())
            last, former = self._book.machines.get(machine.name), machine.state.maintenance
            was_ended = last is not None and former is not None and last.until != former.until
            self._log("unmuted", machine=machine.name, by=last.by if was_ended and last else None)
        else:
            machine.maintenance.begin()
            machine.pipeline.is_in_maintenance = True
            self._log("muted", "warning", machine=machine.name, until=iso(current.until), by=current.by)
        self._announcer.maintain(machine.state, current)

    def _take_commands(self) -> set[str]:
        """Machines that somebody wanted something of."""
        asked = set()
        while not self._commands.empty():
            machine, text, heard = self._commands.get_nowait()
            asked.add(machine)
            if self._book.commands.get(machine) == text and heard - self._connected_at < _REPEATED_SECONDS:
                continue
            try:
                if len(text) > _MOST_CHARACTERS:
                    raise CommandError(f"must have at most {_MOST_CHARACTERS} characters")
                command = Command.parse(text)
            except CommandError as error:
                self._log("maintenance_command_refused", "warning", machine=machine, error=str(error), said=text[:100])
                continue
            self._do(machine, command, text)
        return asked

    def _do(self, machine: str, command: Command, text: str) -> None:
        now = datetime.now(UTC)

        def change(book: MaintenanceBook) -> MaintenanceBook:
            current = book.of(machine, now)
            if command.hours is not None:
                current = Maintenance.of(command.hours, command.by, now)
            elif current is not None:
                current = current.ended(command.by, now)
            return book.of_machines(list(self._machines)).noted(machine, current, text)

        try:
            self._book = change_book(self._path, change)
        except MaintenanceError as error:
            self._book = change(self._book)  # it counts all the same
            self._tell(f"{error} (what was commanded ends with this process)")
        self._stamp = _stamp(self._path)

    def _register(self) -> None:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            change_book(self._path, lambda book: book.of_machines(list(self._machines)))
        except OSError as error:
            self._tell(f"{self._path.parent}: {error.strerror or error}")
        except MaintenanceError as error:
            self._tell(str(error))

    def _look(self) -> None:
        stamp = _stamp(self._path)
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._book = read_book(self._path)
        except MaintenanceError as error:
            self._book = MaintenanceBook()
            self._tell(f"{error} (nobody is in maintenance)")
        else:
            self._told = None

    def _tell(self, text: str) -> None:
        if text != self._told:
            self._told = text
            self._log("maintenance_file", "error", error=text)


def _stamp(path: Path) -> tuple[int, int, int] | None:
    """Differs when the file does; None where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size
