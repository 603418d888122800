"""A disk that goes while alerts lie on it: nothing turns in vain."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path
from typing import Any, NoReturn

import pytest
from parts.outboxes import message, opened
from parts.waiting import until

from edge_asd.publish import outbox as outbox_module
from edge_asd.publish.outbox_file import OutboxFile


class Disk:
    """A disk that can fail, whatever is asked of it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.code: int | None = None
        """Of SQLite, while it fails."""
        self.attempts = 0
        """To open the database, since it fails."""
        for name in ("__init__", "store", "oldest"):
            self._watch(monkeypatch, name, getattr(OutboxFile, name))

    def _watch(self, monkeypatch: pytest.MonkeyPatch, name: str, asked: Any) -> None:
        def ask(file: OutboxFile, *arguments: Any) -> Any:
            if self.code is None:
                return asked(file, *arguments)
            self.attempts += name == "__init__"
            return fail(self.code)

        monkeypatch.setattr(OutboxFile, name, ask)


def fail(code: int) -> NoReturn:
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorcode = code
    raise error


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    monkeypatch.setattr(outbox_module, "_RETRY_SECONDS", 0.1)
    return Disk(monkeypatch)


def test_a_full_disk_without_a_database_is_asked_no_more_often(tmp_path: Path, disk: Disk) -> None:
    """What lay there is settled meanwhile, and the next is to be read."""
    with opened(tmp_path / "press.sqlite") as one:
        one.outbox.put([message(text="1"), message(text="2")], {})
        first = until(lambda: one.outbox.take(lambda _: True), "the first")
        disk.code = sqlite3.SQLITE_IOERR
        one.outbox.put([], {"alarm/rail-7": 1})
        until(lambda: disk.attempts, "that it is opened again")
        disk.code = sqlite3.SQLITE_FULL
        one.outbox.settle(first)
        began = disk.attempts
        time.sleep(0.35)
        assert 2 <= disk.attempts - began <= 5
        disk.code = None
        assert [m.payload for m in one.deliver()] == ["2"]
