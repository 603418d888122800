"""Who is in maintenance until when: ``INSTANCE.maintenance.json`` in the state folder.

A muted machine is a machine in maintenance: its windows are scored and published as ever, but it raises nothing, and
an incident that is open stays open. There is one file for each daemon, written by `edge-asd mute` and by the daemon
itself (at a command over MQTT), whole or not at all, one writer at a time. The daemon reads it again when it changes.

Both may be different users: root runs the command, the daemon may be a user that systemd made up. So the file is
readable by all, and is replaced, never written into: that asks for nothing but the right to write to the folder.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import math
import os
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from edge_asd.config_types import Name
from edge_asd.errors import EdgeAsdError

SUFFIX = ".maintenance.json"
MOST_HOURS = 31 * 24
"""Nobody means to be deaf for longer; what is forgotten ends."""
MOST_BY = 64
"""Characters that say who it was."""
_MAX_BYTES = 1_000_000
_LOCK_SECONDS = 2.0


class MaintenanceError(EdgeAsdError):
    """The file cannot be read or written."""


class Maintenance(BaseModel):
    """Of one machine; one that was ended early has ``until`` in the past."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    since: AwareDatetime
    until: AwareDatetime
    by: Annotated[str, Field(max_length=MOST_BY)]
    """The user, or who sent the command."""

    @classmethod
    def of(cls, hours: float, by: str, now: datetime) -> Maintenance:
        """From now on.

        Raises:
            ValueError: hours that are none, or more than `MOST_HOURS`.
        """
        if not 0 < hours <= MOST_HOURS:
            raise ValueError(f"hours must be above 0 and at most {MOST_HOURS} (31 days), not {hours:g}")
        until = now + timedelta(seconds=math.ceil(hours * 3600))
        return cls(since=now, until=until, by="".join(c for c in by if c.isprintable())[:MOST_BY])

    def ended(self, by: str, now: datetime) -> Maintenance:
        """The same, ended now."""
        return self.model_copy(update={"until": now, "by": by})

    def lasts(self, now: datetime) -> bool:
        """Whether it is in force; never longer than the longest, should the clock have been set back."""
        return now < self.until <= now + timedelta(hours=MOST_HOURS)


class MaintenanceBook(BaseModel):
    """The whole file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_number: Annotated[Literal[1], Field(alias="schema")] = 1
    machines: dict[Name, Maintenance | None] = {}
    """Of each machine of the daemon, as far as it has told; the last maintenance."""
    commands: dict[Name, str] = {}
    """Of a machine: the last command over MQTT that was taken and is retained: a broker gives it again and again."""

    def of(self, machine: str, now: datetime) -> Maintenance | None:
        """What is in force."""
        last = self.machines.get(machine)
        return last if last is not None and last.lasts(now) else None

    def noted(self, machine: str, maintenance: Maintenance | None, command: str | None = None) -> MaintenanceBook:
        """With another maintenance of a machine, and the command that said so."""
        commands = self.commands if command is None else self.commands | {machine: command}
        return self.model_copy(update={"machines": self.machines | {machine: maintenance}, "commands": commands})

    def of_machines(self, names: list[str]) -> MaintenanceBook:
        """With these machines and no others."""
        return self.model_copy(
            update={
                "machines": {name: self.machines.get(name) for name in names},
                "commands": {name: c for name, c in self.commands.items() if name in names},
            }
        )


def maintenance_path(folder: Path, instance: str) -> Path:
    """The file of a daemon."""
    return folder / f"{instance}{SUFFIX}"


def instances_in(folder: Path) -> list[str]:
    """Daemons that have a file there."""
    return sorted(path.name.removesuffix(SUFFIX) for path in folder.glob(f"[!.]*{SUFFIX}"))


def read_book(path: Path) -> MaintenanceBook:
    """Read the file; where there is none, nobody is in maintenance.

    Raises:
        MaintenanceError: it cannot be read, or is damaged.
    """
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_BYTES)
    except FileNotFoundError:
        return MaintenanceBook()
    except OSError as error:
        raise MaintenanceError(f"{path}: {error.strerror or error}") from None
    try:
        return MaintenanceBook.model_validate(json.loads(content))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise MaintenanceError(f"{path}: is damaged at {place or 'the top'} ({first['msg']}); remove it") from None
    except (ValueError, RecursionError):
        raise MaintenanceError(f"{path}: is damaged, no JSON; remove it") from None


def change_book(path: Path, change: Callable[[MaintenanceBook], MaintenanceBook]) -> MaintenanceBook:
    """Read the file, change what it says, and write it; nobody else writes meanwhile.

    Args:
        path: from `maintenance_path`; its folder must be there.
        change: gives the book as it shall be. What it raises leaves the file as it is.

    Raises:
        MaintenanceError: it cannot be read or written.
    """
    part: Path | None = None
    try:
        with _alone(path.parent):
            book = change(read_book(path))
            for left in path.parent.glob(f".{path.name}.*.part"):
                left.unlink(missing_ok=True)  # of a process that was killed
            handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
            part = Path(name)
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(book.model_dump_json(by_alias=True, indent=1) + "\n")
                file.flush()
                os.fchmod(file.fileno(), 0o644)
                os.fsync(file.fileno())
            part.replace(path)
    except OSError as error:
        if part is not None:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)
        hint = ": run it as root, or as the daemon's user" if error.errno in (errno.EACCES, errno.EPERM) else ""
        raise MaintenanceError(f"{path}: {error.strerror or error}{hint}") from None
    return book


class Presence:
    """Says that a daemon reads a file, so that `edge-asd mute` does not write where nobody looks.

    It is an address in Linux's abstract namespace, made of the folder's numbers: those are the same whatever the
    folder is called, within systemd's private view of it too, and the address is gone when its process is.
    """

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        with contextlib.suppress(OSError):  # no folder, or another daemon with this name: nothing hangs on it
            self._socket.bind(_address(path))

    def end(self) -> None:
        """Nobody reads it any more."""
        self._socket.close()


def is_read(path: Path) -> bool:
    """Whether a daemon that runs now reads a file."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as asking:
        try:
            asking.connect(_address(path))
        except OSError:
            return False
    return True


def _address(path: Path) -> str:
    folder = path.parent.stat()
    return f"\0edge-asd/maintenance/{folder.st_dev}/{folder.st_ino}/{path.name}"[:108]


def _lock(handle: int, folder: Path) -> None:
    """It is held for a moment only and ends with its process; but who may look into the folder can hold it too."""
    end = time.monotonic() + _LOCK_SECONDS
    while True:
        try:
            return fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > end:
                raise MaintenanceError(f"{folder}: another process keeps it locked") from None
            time.sleep(0.02)


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """No other process is between reading and writing."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        _lock(handle, folder)
        yield
    finally:
        os.close(handle)
