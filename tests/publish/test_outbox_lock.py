"""The database's lock where the disk gives none, or fails."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from parts.outboxes import message, opened

from edge_asd.publish import outbox_lock
from edge_asd.publish.outbox_lock import DatabaseLock


def flock_fails(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """As on a share; no file system that can be made here does so."""

    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(outbox_lock.fcntl, "flock", fail)


def open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_no_file_stays_open_where_the_disk_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is tried again every few seconds, and a process may have a thousand files open."""
    flock_fails(monkeypatch, errno.EIO)
    before = open_files()
    for _ in range(20):
        with pytest.raises(OSError, match="Input/output error"):
            DatabaseLock(tmp_path / "press.sqlite")
    assert open_files() < before + 20


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_share_without_locks_takes_alerts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    flock_fails(monkeypatch, number)
    path, sent = tmp_path / "press.sqlite", message()
    with opened(path) as one:
        one.outbox.put([sent], {"alarm/rail-7": 1})
        one.stored()
        assert not one.events()
    with opened(path) as one:
        assert (one.outbox.recall("alarm/rail-7"), one.deliver()) == (1, [sent])
