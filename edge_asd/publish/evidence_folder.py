"""Evidence on disk: ``FOLDER/MACHINE/UTC-INCIDENT.png`` and ``.flac``, never more than a budget, never on a short disk.

A file is written under a temporary name, brought to the disk, and only then gets its own: what has a name is whole.
Room is made before a file is written, so the budget holds at every moment, with temporary files and what crashes left
of them. Files that do not carry such a name are not ours: they are neither counted nor touched.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import threading
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from edge_asd.config_types import NAME_PATTERN

KEEP_FREE_BYTES = 500_000_000
KEEP_FREE_SHARE = 0.05
"""Nothing is written that leaves less free than this share of the file system; of a large one, than these bytes."""
_BLOCK = 4096
"""Files take up whole blocks: so counted, ``ls`` and ``du`` both show no more than the budget."""
_FILE_MODE, _FOLDER_MODE = 0o640, 0o750
_LOCK = ".lock"
_LOCK_SECONDS = 2.0
_NAME = re.compile(r"(\d{8}T\d{6}Z)-([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\.(png|flac)")
_PART = re.compile(rf"\.{_NAME.pattern}\.part")


SkippedReason = Literal["budget", "disk", "error"]
"""Why evidence was not kept: no room or no time for it, a disk that is short or hangs, or something went wrong."""


class BudgetError(Exception):
    """The file does not fit, whatever is given up for it."""


class ShortDiskError(Exception):
    """Too little would be left free."""


@dataclass(frozen=True)
class _Kept:
    path: Path
    stamp: str
    incident: str
    size: int


class EvidenceFolder:
    """The evidence of all machines; may be used from any thread, and by several daemons at once."""

    def __init__(self, folder: Path, *, most_bytes: int, group: int | None = None) -> None:
        """
        Args:
            folder: made where it is missing, once there is something to write.
            most_bytes: that evidence may take up.
            group: id of the group that may read it; the process's own if None.
        """
        self.folder = folder
        self.bytes = 0
        """Taken up when it was last looked at."""
        self._most, self._group = most_bytes, group
        self._lock = threading.Lock()

    def tidy(self, open_incidents: Collection[str] = ()) -> None:
        """Remove what crashes left, and what is over the budget.

        Raises:
            OSError: the folder cannot be made, read or written.
        """
        with self._alone():
            self._make_room(0, keep="", spare=open_incidents)

    def write(
        self, machine: str, incident: str, end: datetime, kind: str, content: bytes, open_incidents: Collection[str]
    ) -> Path:
        """Write one file; the oldest incidents' evidence makes room for it, that of open incidents last.

        Args:
            machine: its name, and the folder's.
            incident: UUID.
            end: of the window that raised it.
            kind: ``png`` or ``flac``.
            content: of the file.
            open_incidents: that go on.

        Raises:
            ShortDiskError: nothing was written or removed.
            BudgetError: likewise.
            OSError: it cannot be written; nothing is left of it.
        """
        folder = self.folder / machine
        name = f"{end.astimezone(UTC):%Y%m%dT%H%M%SZ}-{incident}.{kind}"
        with self._alone():
            self._check_disk(len(content))
            self._make_room(_blocks(len(content)), keep=incident, spare=open_incidents)
            self._make(folder)
            self._write(folder / name, folder / f".{name}.part", content)
            self.bytes += _blocks(len(content))
        return folder / name

    def find(self, machine: str, incident: str) -> dict[str, Path]:
        """Files of an incident, by their kind; OSError where the folder cannot be read."""
        return {
            k.path.suffix[1:]: k.path for k in self._kept() if (k.path.parent.name, k.incident) == (machine, incident)
        }

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """No other thread or daemon writes here meanwhile: whatever is half-written now was left by a crash."""
        with self._lock:
            self._make(self.folder)
            descriptor = os.open(self.folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _FILE_MODE)
            try:
                _flock(descriptor)
                yield
            finally:
                os.close(descriptor)

    def _make(self, folder: Path) -> None:
        try:
            folder.mkdir(parents=folder == self.folder)
            folder.chmod(_FOLDER_MODE)
        except FileExistsError:
            found = folder.stat()
            # A folder that somebody else has set up keeps its owner's settings.
            if found.st_uid != os.geteuid() or found.st_mode & 0o777 != _FOLDER_MODE:
                return
        if self._group is not None and folder.stat().st_gid != self._group:
            os.chown(folder, -1, self._group)

    def _check_disk(self, size: int) -> None:
        disk = os.statvfs(self.folder)
        least = min(KEEP_FREE_BYTES, KEEP_FREE_SHARE * disk.f_blocks * disk.f_frsize)
        free = disk.f_bavail * disk.f_frsize
        if free - size < least:
            raise ShortDiskError(
                f"{self.folder}: only {free / 1e6:.0f} MB are free on this disk; {least / 1e6:.0f} MB stay free"
            )

    def _make_room(self, size: int, *, keep: str, spare: Collection[str]) -> None:
        """Remove leftovers, then evidence until ``size`` more bytes fit; never that of the incident ``keep``."""
        kept = self._kept(remove_parts=True)
        self.bytes = sum(k.size for k in kept)
        own = sum(k.size for k in kept if k.incident == keep)
        if own + size > self._most:
            raise BudgetError(f"{self.folder}: {size / 1e6:.1f} MB more do not fit into {self._most / 1e6:g} MB")
        for old in sorted(kept, key=lambda k: (k.incident in spare, k.stamp, k.incident)):
            if self.bytes + size <= self._most:
                break
            if old.incident != keep:
                old.path.unlink(missing_ok=True)
                self.bytes -= old.size

    def _kept(self, *, remove_parts: bool = False) -> list[_Kept]:
        found = []
        with os.scandir(self.folder) as folders:
            names = [entry.path for entry in folders if re.fullmatch(NAME_PATTERN, entry.name) and entry.is_dir()]
        files = [file for name in names for file in _inside(name) if file.is_file(follow_symlinks=False)]
        for file in files:
            path, match = Path(file.path), _NAME.fullmatch(file.name)
            if match is not None:
                with contextlib.suppress(FileNotFoundError):  # somebody tidies up by hand
                    found.append(_Kept(path, match[1], match[2], _blocks(file.stat(follow_symlinks=False).st_size)))
            elif remove_parts and _PART.fullmatch(file.name):
                path.unlink(missing_ok=True)
        return found

    def _write(self, path: Path, part: Path, content: bytes) -> None:
        try:
            # Nobody but us reads it until its group is the right one.
            descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                if self._group is not None:
                    os.fchown(descriptor, -1, self._group)
                os.fchmod(descriptor, _FILE_MODE)
                file.write(content)
                file.flush()
                os.fsync(descriptor)
            part.replace(path)
        except OSError:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)
            raise


def is_full(error: OSError) -> bool:
    """The disk, or what a user may have of it, is used up."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


def _inside(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as files:
            return list(files)
    except PermissionError:
        return []  # not one of ours


def _blocks(size: int) -> int:
    return -(-size // _BLOCK) * _BLOCK


def _flock(descriptor: int) -> None:
    end = time.monotonic() + _LOCK_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > end:
                raise
            time.sleep(0.02)
        except OSError:
            return  # a file system without locks: then one daemon alone must write here
