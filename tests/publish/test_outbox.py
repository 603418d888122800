"""The outbox: what is handed in survives, in order; disks that are full, gone or hung."""

from __future__ import annotations

import json
import os
import random
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from parts.outboxes import Opened, message, opened
from parts.waiting import until

from edge_asd.errors import ConfigurationError
from edge_asd.publish import outbox as outbox_module
from edge_asd.publish.outbox_file import OLD_SECONDS, OutboxFile
from edge_asd.publish.outbox_lock import database_path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "press.sqlite"


def test_what_was_handed_in_is_there_after_a_restart(path: Path) -> None:
    messages = [message(f"rail-{n % 3}", str(n)) for n in range(12)]
    with opened(path) as first:
        for number, one in enumerate(messages):
            first.outbox.put([one], {"alarm/rail-0": {"number": number}})
        first.stored()
        assert first.deliver(4) == messages[:3] + messages[3:4]
    with opened(path) as second:
        assert second.outbox.recall("alarm/rail-0") == {"number": 11}
        assert second.outbox.recall("alarm/rail-1") is None
        assert second.metric("outbox_messages") == second.outbox.unsent == 8
        assert second.metric("outbox_oldest_timestamp_seconds") == pytest.approx(messages[4].created, abs=1e-5)
        assert sorted(second.deliver(), key=lambda m: int(m.payload)) == messages[4:]
        until(lambda: second.metric("outbox_messages") == 0, "the count")
        assert second.metric("outbox_oldest_timestamp_seconds") == 0
    with opened(path) as third:
        assert third.outbox.unsent == 0
        assert third.outbox.take(lambda _: True) is None


def test_a_topic_is_in_order_and_holds_up_no_other(path: Path) -> None:
    with opened(path) as one:
        one.outbox.put([message("a", "1"), message("a", "2"), message("b", "3")], {})
        one.stored()
        first = until(lambda: one.outbox.take(lambda topic: topic == "a"), "a's")
        assert first.payload == "1" and one.outbox.take(lambda topic: topic == "a") == first, "until it is settled"
        other = until(lambda: one.outbox.take(lambda topic: topic != "a"), "b's")
        assert other.payload == "3"
        one.outbox.settle(other)
        assert one.outbox.take(lambda topic: topic != "a") is None
        one.outbox.settle(first)
        assert until(lambda: one.outbox.take(lambda _: True), "a's next").payload == "2"


def test_nothing_is_offered_before_it_is_on_disk(path: Path) -> None:
    """Looked at from another process's point of view: another connection to the file."""
    with opened(path) as one:
        for number in range(50):
            sent = message("a", str(number))
            one.outbox.put([sent], {"alarm/a": number})
            offered = until(lambda: one.outbox.take(lambda _: True), "it")
            with sqlite3.connect(path) as reader:
                assert reader.execute("SELECT id FROM message WHERE delivered IS NULL").fetchall() == [(offered.id,)]
                assert json.loads(reader.execute("SELECT value FROM memory").fetchone()[0]) == number
            reader.close()
            one.outbox.settle(offered)


def test_an_alert_and_the_state_it_changes_are_one_transaction(path: Path) -> None:
    """A copy of the files as they are at any moment, which is what a power cut leaves, has both or neither."""
    writer = (
        "import sys, uuid; from pathlib import Path; sys.path[:0] = sys.argv[2:];"
        "from edge_asd.publish.outbox_file import Message, OutboxFile\n"
        "file = OutboxFile(Path(sys.argv[1]), 64_000_000)\n"
        "for n in range(10**6): file.store([Message(str(uuid.uuid4()), 'a', str(n), 0.0)], {'alarm/a': str(n)}, {})"
    )
    path.parent.mkdir()
    process = subprocess.Popen([sys.executable, "-c", writer, str(path), *sys.path])
    try:
        until(path.exists, "the file")
        seen = set()
        for number in range(25):
            time.sleep(0.03)
            copy = path.parent / f"copy-{number}.sqlite"
            os.kill(process.pid, 19)
            for part in ("", "-wal"):
                source = path.with_name(path.name + part)
                if source.exists():
                    copy.with_name(copy.name + part).write_bytes(source.read_bytes())
            os.kill(process.pid, 18)
            file = OutboxFile(copy, 64_000_000)
            count, memory = file.waiting(), file.memory()
            assert memory == ({"alarm/a": count - 1} if count else {})
            file.close()
            seen.add(count)
        assert len(seen) > 10
    finally:
        process.kill()
        process.wait()


def test_delivered_history_goes_first_then_what_is_old_then_the_oldest(path: Path) -> None:
    text, most = random.Random(1).randbytes(1_000).hex(), 1_000_000  # a kilobyte, however it is packed

    def fill(one: Opened, topic: str, batches: int, age: float = 0.0) -> None:
        for _ in range(batches):
            one.outbox.put([message(topic, text, age) for _ in range(50)], {})
            one.stored()

    with opened(path, most_bytes=most) as one:
        fill(one, "a", 8)
        one.deliver()
        fill(one, "a", 8)
        assert {e["reason"] for e in one.events() if e["event"] == "outbox_made_room"} == {"history"}
        assert one.outbox.unsent == 400
        assert [one.metric("outbox_dropped_total", reason=r) for r in ("full", "expired", "corrupt")] == [0, 0, 0]
        one.deliver()
        fill(one, "old", 4, OLD_SECONDS + 60)
        fill(one, "new", 20)
        until(lambda: one.metric("outbox_dropped_total", reason="full") > 0, "the count")
        assert one.metric("outbox_dropped_total", reason="expired") == 200
        dropped = int(one.metric("outbox_dropped_total", reason="full"))
        until(lambda: one.outbox.unsent == 1000 - dropped, "what is left")
        # Of each topic one was on offer already when it had to go.
        assert 300 < 1000 - dropped <= len(one.deliver()) <= 1002 - dropped
        assert path.stat().st_size <= most


def test_two_daemons_do_not_share_a_database(path: Path) -> None:
    with opened(path) as one:
        assert not one.events()
        with pytest.raises(ConfigurationError, match=rf"is in use by another edge-asd \(pid {os.getpid()}\): stop it"):
            Opened(path)
    with opened(path):
        pass


def test_a_folder_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file in the folder's place")
    with opened(tmp_path / "state" / "press.sqlite") as one:
        sent = message()
        one.outbox.put([sent], {"alarm/rail-7": 1})
        assert until(lambda: one.outbox.take(lambda _: True), "it, from memory", 12) == sent
        failing = next(e for e in one.events() if e["event"] == "outbox_failing")
        assert (failing["level"], failing["file"]) == ("error", str(tmp_path / "state" / "press.sqlite"))
        assert one.metric("outbox_errors_total") >= 1
        until(lambda: one.metric("outbox_messages") == 1, "the count", 10)
        one.outbox.settle(sent)
        assert one.outbox.unsent == 0 and one.outbox.take(lambda _: True) is None


def test_memory_is_bounded_and_the_disk_takes_it_when_it_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox_module, "_RETRY_SECONDS", 0.3)
    (tmp_path / "state").write_text("a file in the folder's place")
    path = tmp_path / "state" / "press.sqlite"
    with opened(path) as one:
        messages = [message("a", str(n)) for n in range(1005)]
        for sent in messages:
            one.outbox.put([sent], {"alarm/a": sent.payload})
        assert one.metric("outbox_dropped_total", reason="full") == 5
        assert one.outbox.take(lambda _: True) == messages[5]
        (tmp_path / "state").unlink()
        one.stored()
        assert "outbox_recovered" in [e["event"] for e in one.events()]
    with opened(path) as one:
        assert one.outbox.recall("alarm/a") == "1004"
        assert one.deliver() == messages[5:]


def test_a_hung_disk_does_not_hold_alerts_back(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An fsync that takes a minute, say: handing in returns at once, and the alert goes from memory."""
    monkeypatch.setattr(outbox_module, "_PATIENCE_SECONDS", 0.3)
    with opened(path) as one:
        store, hung = OutboxFile.store, []

        def slow(file: OutboxFile, *arguments: Any) -> int:
            hung.append(time.monotonic())
            time.sleep(1.0)
            return store(file, *arguments)

        monkeypatch.setattr(OutboxFile, "store", slow)
        began = time.monotonic()
        sent = message()
        one.outbox.put([sent], {"alarm/rail-7": 1})
        assert time.monotonic() - began < 0.1
        until(lambda: hung, "the write")
        assert one.outbox.take(lambda _: True) is None
        assert until(lambda: one.outbox.take(lambda _: True), "it, from memory", 0.9) == sent
        one.outbox.settle(sent)
        monkeypatch.undo()
        one.stored()
        time.sleep(0.1)
        assert one.outbox.take(lambda _: True) is None, "it was delivered, though the disk got it after that"
    with opened(path) as one:
        assert (one.outbox.unsent, one.outbox.recall("alarm/rail-7")) == (0, 1)


def test_where_the_database_lies(tmp_path: Path) -> None:
    assert database_path(tmp_path, "press") == tmp_path / "press.sqlite"


def test_it_waits_without_working(path: Path) -> None:
    """Nothing to do costs nothing."""
    with opened(path) as one:
        one.outbox.put([message()], {"alarm/rail-7": 1})
        one.stored()
        time.sleep(0.2)
        calls = []
        one.outbox.on_ready = lambda: calls.append(1)
        time.sleep(0.3)
        assert not calls
