"""A damaged database is kept for whoever wants to look at it; what can still be read of it goes into a new one."""

from __future__ import annotations

import contextlib
import sqlite3
from datetime import UTC, datetime
from pathlib import Path

from edge_asd.publish.outbox_file import OutboxFile, connect, read_memory, read_unsent

_KEPT = 3
"""Damaged files, the newest."""
_PARTS = ("-wal", "-shm", "")
"""What SQLite keeps beside a database; the database last, so that a kill in between leaves nothing unnoticed."""


def set_aside(path: Path, most_bytes: int) -> tuple[Path, OutboxFile]:
    """Begin a new file with what can be read of a damaged one, then move that out of the way.

    The write-ahead log moves along: what is in it belongs to the damaged file.

    Returns:
        Where the damaged file lies now, and the new one, with the unsent messages and the memory that could be read.

    Raises:
        OSError: it cannot be moved.
        sqlite3.Error: no new one can be made.
    """
    fresh = path.with_name(f"{path.name}.new")
    _remove(fresh)  # of an attempt that was killed
    new = OutboxFile(fresh, most_bytes)
    with contextlib.suppress(sqlite3.Error, UnicodeDecodeError):
        old = connect(path)
        try:
            new.take_over(read_unsent(old), read_memory(old))
        finally:
            old.close()
    new.close()
    aside = path.with_name(f"{path.name}.corrupt-{datetime.now(UTC):%Y%m%dT%H%M%S.%f}")
    for part in _PARTS:
        with contextlib.suppress(FileNotFoundError):
            _part(path, part).rename(_part(aside, part))
    fresh.rename(path)
    for former in sorted(path.parent.glob(f"{path.name}.corrupt-*[0-9]"))[:-_KEPT]:
        _remove(former)
    return aside, OutboxFile(path, most_bytes)


def _remove(path: Path) -> None:
    for part in _PARTS:
        _part(path, part).unlink(missing_ok=True)


def _part(path: Path, part: str) -> Path:
    return path.with_name(path.name + part)
