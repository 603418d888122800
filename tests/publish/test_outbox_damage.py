"""A database cut short, with flipped bits, or something else altogether: told, set aside, rescued from."""

from __future__ import annotations

import json
import os
import random
import sqlite3
from pathlib import Path

import pytest
from parts.outboxes import Opened, message, opened
from parts.waiting import until

from edge_asd.publish.outbox_file import Message, OutboxFile

ALL = [message(f"rail-{n % 4}", json.dumps({"number": n, "more": "x" * 300})) for n in range(12)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "press.sqlite"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, list[Message]]:
    """A database with 8 unsent alerts of 4 machines and what is remembered of them."""
    path = tmp_path_factory.mktemp("whole") / "press.sqlite"
    file = OutboxFile(path, 64_000_000)
    file.store(ALL, {f"alarm/rail-{n}": json.dumps(n) for n in range(4)}, {})
    file.store([], {}, {m.id: 1.0 for m in ALL[:4]})
    file.close()
    return path.read_bytes(), ALL[4:]


def check(path: Path, content: bytes, whole: list[Message]) -> tuple[int, int]:
    """The outbox starts, gives nothing that is wrong, and works; alerts that are left, and alerts that it counted."""
    for old in path.parent.glob("*"):
        old.unlink()
    path.write_bytes(content)
    one = Opened(path)
    try:
        given = one.deliver()
        # One that was delivered may come again, with its id: the mark that it was can be what is damaged.
        assert all(m in ALL for m in given), "never one that is damaged"
        assert all(one.outbox.recall(f"alarm/rail-{n}") in (n, None) for n in range(4))
        new = message("rail-0", "new")
        one.outbox.put([new], {"alarm/rail-0": 99})
        assert one.deliver() == [new]
        one.stored()
        return sum(m in whole for m in given), int(one.metric("outbox_dropped_total", reason="corrupt"))
    finally:
        one.outbox.close()


def test_a_file_cut_short_anywhere(path: Path, whole: tuple[bytes, list[Message]]) -> None:
    """At some bytes, the headers' ends among them; at every one where EDGE_ASD_EVERY_BYTE is set (`make test-soak`)."""
    content, messages = whole
    path.parent.mkdir()
    step = 1 if os.environ.get("EDGE_ASD_EVERY_BYTE") else 997
    for size in sorted({*range(0, len(content), step), 1, 15, 16, 99, 100, 4095, 4096, 4097, len(content) - 1}):
        left, counted = check(path, content[:size], messages)
        assert left == len(messages) or counted or size == 0, f"cut at {size}: a loss that is not told"


def test_flipped_bits(path: Path, whole: tuple[bytes, list[Message]]) -> None:
    content, messages = whole
    path.parent.mkdir()
    chance = random.Random(5)
    rounds = 20_000 if os.environ.get("EDGE_ASD_EVERY_BYTE") else 40
    survived = 0
    for _ in range(rounds):
        position, bit = chance.randrange(len(content)), chance.randrange(8)
        damaged = bytearray(content)
        damaged[position] ^= 1 << bit
        left, counted = check(path, bytes(damaged), messages)
        assert left >= len(messages) or counted, f"byte {position}, bit {bit}: a loss that is not told"
        survived += left
    assert survived > 0.8 * rounds * len(messages), "most of them can still be read"


def test_a_schema_that_is_no_text_any_more(path: Path, whole: tuple[bytes, list[Message]]) -> None:
    """SQLite's complaint cannot be read either; found by flipping bits."""
    content, messages = whole
    path.parent.mkdir()
    check(path, content.replace(b" UNIQUE", b" \xd5NIQUE", 1), messages)
    assert len(list(path.parent.glob("press.sqlite.corrupt-*[0-9]"))) == 1


def test_garbage_and_other_databases_are_set_aside(path: Path, whole: tuple[bytes, list[Message]]) -> None:
    path.parent.mkdir()
    assert check(path, b"\0" * 8192, whole[1])[0] == 0
    assert check(path, random.Random(0).randbytes(50_000), whole[1])[0] == 0
    assert len(list(path.parent.glob("press.sqlite.corrupt-*"))) == 1
    for old in path.parent.glob("*"):
        old.unlink()
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE message (number INTEGER)")
    other.commit()
    other.close()
    check(path, path.read_bytes(), whole[1])


def test_only_the_last_damaged_files_are_kept(path: Path) -> None:
    path.parent.mkdir()
    for number in range(6):
        path.write_bytes(f"damage {number}".encode() * 500)
        Opened(path).outbox.close()
    kept = sorted(path.parent.glob("press.sqlite.corrupt-*"))
    assert [p.read_bytes()[:8] for p in kept] == [b"damage 3", b"damage 4", b"damage 5"]


def test_damage_while_it_runs(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is set aside and the work goes on: what is in memory is not lost."""
    with opened(path) as one:
        one.outbox.put([message("a", str(n)) for n in range(3)], {"alarm/a": 1})
        one.stored()
        with path.open("r+b") as file:
            for page in range(1, path.stat().st_size // 4096):
                file.seek(page * 4096)
                file.write(b"\xff" * 64)
        wal = path.with_name("press.sqlite-wal")
        with wal.open("r+b") as file:
            file.write(b"\xff" * wal.stat().st_size)
        one.outbox.put([message("b", "new")], {"alarm/b": 2})
        assert until(lambda: one.outbox.take(lambda topic: topic == "b"), "the new one", 10).payload == "new"


def test_a_damaged_message_that_cannot_be_removed_is_passed_over(path: Path) -> None:
    """On a full disk nothing can be removed; the reading would begin at the same message for ever."""
    path.parent.mkdir()
    file = OutboxFile(path, 64_000_000)
    damaged, whole = message("a", "1"), message("a", "2")
    file.store([damaged, whole], {}, {})
    file._connection.execute("UPDATE message SET checksum = 0 WHERE id = ?", (damaged.id,))
    file._connection.execute("PRAGMA query_only = ON")
    assert file.oldest("a") == (2, whole) and file.losses.corrupt == 0
    file._connection.execute("PRAGMA query_only = OFF")
    assert file.oldest("a") == (2, whole) and file.losses.corrupt == 1
    assert file.waiting() == 1
    file.close()
