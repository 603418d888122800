"""A disk that goes while alerts lie on it: order is kept for a while, and nothing turns in vain."""

from __future__ import annotations

import sqlite3
import threading
import time
from pathlib import Path
from typing import Any, NoReturn

import pytest
from parts.outboxes import Opened, message, opened
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
        self.failing = ["__init__", "store", "oldest"]
        for name in self.failing:
            self._watch(monkeypatch, name, getattr(OutboxFile, name))

    def _watch(self, monkeypatch: pytest.MonkeyPatch, name: str, asked: Any) -> None:
        def ask(file: OutboxFile, *arguments: Any) -> Any:
            if self.code is None or name not in self.failing:
                return asked(file, *arguments)
            self.attempts += name == "__init__"
            return fail(self.code)

        monkeypatch.setattr(OutboxFile, name, ask)

    def goes(self, one: Opened) -> None:
        """It fails from now on, and the outbox knows."""
        self.code = sqlite3.SQLITE_IOERR
        one.outbox.put([], {"alarm/rail-7": 1})
        until(lambda: one.outbox._failure, "that it fails")


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
        disk.goes(one)
        until(lambda: disk.attempts, "that it is opened again")
        disk.code = sqlite3.SQLITE_FULL
        one.outbox.settle(first)
        began = disk.attempts
        time.sleep(0.35)
        assert 2 <= disk.attempts - began <= 5
        disk.code = None
        assert [m.payload for m in one.deliver()] == ["2"]


def take(one: Opened) -> str | None:
    found = one.outbox.take(lambda _: True)
    return None if found is None else found.payload


def put_and_send_the_first(one: Opened, disk: Disk) -> None:
    """1 and 2 lie on disk, which goes then; 1 is sent."""
    one.outbox.put([message(text="1"), message(text="2")], {})
    first = until(lambda: one.outbox.take(lambda _: True), "the first")
    one.stored()
    disk.goes(one)
    one.outbox.settle(first)


def test_an_alert_waits_for_an_older_one_of_its_machine_on_a_disk_that_is_away(tmp_path: Path, disk: Disk) -> None:
    with opened(tmp_path / "press.sqlite") as one:
        put_and_send_the_first(one, disk)
        one.outbox.put([message(text="3")], {})
        began = disk.attempts
        until(lambda: disk.attempts > began + 1, "that it is opened again")
        assert take(one) is None and one.outbox.is_busy
        one.outbox.put([message("rail-8", "another's")], {})
        assert take(one) == "another's"
        disk.code = None
        order = [m.payload for m in one.deliver() if m.topic == "rail-7"]
        assert order == ["2", "3"]


@pytest.mark.parametrize("failing", [["__init__", "store", "oldest"], ["store", "oldest"]])
def test_no_alert_waits_for_ever_for_a_disk_that_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, disk: Disk, failing: list[str]
) -> None:
    """Also if it can be opened, and nothing can be read then."""
    monkeypatch.setattr(outbox_module, "_PATIENCE_SECONDS", 0.5)
    disk.failing = failing
    with opened(tmp_path / "press.sqlite") as one:
        put_and_send_the_first(one, disk)
        began = time.monotonic()
        one.outbox.put([message(text="3")], {})
        assert take(one) is None
        third = until(lambda: one.outbox.take(lambda _: True), "the third, from memory", 2)
        assert third.payload == "3" and time.monotonic() - began > 0.4
        one.outbox.settle(third)
        assert not one.outbox.is_busy
        one.outbox.put([message(text="4")], {})
        assert take(one) == "4", "it is known by now"
        disk.code = None
        until(lambda: take(one) == "2", "what lies on disk comes first again")
        assert [m.payload for m in one.deliver()] == ["2", "4"]


def test_no_alert_waits_for_ever_for_a_read_that_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox_module, "_PATIENCE_SECONDS", 0.2)
    with opened(tmp_path / "press.sqlite") as one:
        one.outbox.put([message(text="1"), message(text="2")], {})
        first = until(lambda: one.outbox.take(lambda _: True), "the first")
        one.stored()
        oldest, hangs, goes_on = OutboxFile.oldest, threading.Event(), threading.Event()

        def hang(file: OutboxFile, *arguments: Any) -> Any:
            hangs.set()
            goes_on.wait(5)
            return oldest(file, *arguments)

        monkeypatch.setattr(OutboxFile, "oldest", hang)
        one.outbox.settle(first)
        assert hangs.wait(2)
        one.outbox.put([message(text="3")], {})
        assert take(one) is None
        until(lambda: take(one) == "3", "the third, from memory", 2)
        goes_on.set()
        until(lambda: take(one) == "2", "the second, which can be read")
