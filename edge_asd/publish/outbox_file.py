"""The SQLite file behind the outbox: messages, sent and unsent, and what must be remembered with them.

WAL: a commit is one append and one fsync, and a reader (``sqlite3 FILE``) never stops the daemon. Rows carry a
checksum, for SQLite does not tell a bit that flipped within one.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_asd.publish.outbox_packing import pack, unpack

OLD_SECONDS = 90 * 86_400.0
"""Unsent alerts older than this go first where there is no room."""
_VERSION = 2
_PLAIN_VERSION = 1
"""Its payloads are not packed; they stay as they are until they go."""
_APPLICATION_ID = 0x65617364  # "easd"
_WAL_PAGES = 256
"""The log is folded into the database at 1 MB."""
_FULL_SHARE, _TRIMMED_SHARE = 0.95, 0.9
"""Of the bound: how full it may become, and how full it is after making room."""
_CACHE_KILOBYTES = 512
"""Of pages in memory: SQLite's own 2 MB fill up as alerts wait, and look like memory that grows."""
_ROWS_AT_ONCE = 100
_SMALLEST_FILE = 512
"""Bytes: SQLite takes what is shorter for a new database."""
_ROW_BYTES = 512
"""What a row needs beside its payload, indices included, at most."""
_COLUMNS = "number, id, topic, payload, created, checksum"
_SICK_FILE = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR, sqlite3.SQLITE_MISMATCH,
              sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_SCHEMA, sqlite3.SQLITE_TOOBIG}  # fmt: skip
_SCHEMA = f"""
CREATE TABLE message (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    topic TEXT NOT NULL,
    payload BLOB NOT NULL,
    created REAL NOT NULL,
    checksum INTEGER NOT NULL,
    delivered REAL
);
CREATE INDEX waiting ON message (topic, number) WHERE delivered IS NULL;
CREATE TABLE memory (key TEXT PRIMARY KEY, value TEXT NOT NULL, checksum INTEGER NOT NULL) WITHOUT ROWID;
PRAGMA application_id = {_APPLICATION_ID};
PRAGMA user_version = {_VERSION};
"""


@dataclass(frozen=True)
class Message:
    """What is to reach the broker."""

    id: str
    """UUID; a message that comes twice has the same."""
    topic: str
    payload: str
    created: float
    """Seconds since 1970."""


@dataclass
class Losses:
    """What could not be kept."""

    history: int = 0
    """Delivered messages; nobody misses them."""
    expired: int = 0
    full: int = 0
    corrupt: int = 0


class OutboxFile:
    """One connection to one file, for one thread."""

    def __init__(self, path: Path, most_bytes: int) -> None:
        """Open, or make, and check it.

        Raises:
            sqlite3.Error: it cannot be used, or is damaged; see `is_damage`.
        """
        self.path = path
        self._most_bytes = most_bytes
        self.losses = Losses()
        if path.exists() and 0 < path.stat().st_size < _SMALLEST_FILE:
            raise sqlite3.DatabaseError("it is cut short")
        self._connection = connect(path)
        try:
            self._open()
        except BaseException:
            self._connection.close()
            raise

    def _open(self) -> None:
        run = self._connection.execute
        if run("PRAGMA journal_mode = WAL").fetchone() != ("wal",):
            raise sqlite3.OperationalError("this file system allows no write-ahead log")
        run(f"PRAGMA wal_autocheckpoint = {_WAL_PAGES}")
        run(f"PRAGMA journal_size_limit = {_WAL_PAGES * 4096}")
        run("PRAGMA synchronous = FULL")
        (page_size,) = run("PRAGMA page_size").fetchone()
        run(f"PRAGMA max_page_count = {max(self._most_bytes // page_size, 64)}")
        if run("SELECT count(*) FROM sqlite_master").fetchone() == (0,):
            self._connection.executescript(f"BEGIN IMMEDIATE;{_SCHEMA}COMMIT;")
        (version,) = run("PRAGMA user_version").fetchone()
        if version not in (_PLAIN_VERSION, _VERSION):
            raise sqlite3.DatabaseError("it was written by another version of edge-asd")
        if version != _VERSION:
            run(f"PRAGMA user_version = {_VERSION}")
        found = [text for (text,) in run("PRAGMA integrity_check(3)")]
        if found != ["ok"]:
            raise sqlite3.DatabaseError("; ".join(found))

    def close(self) -> None:
        """Fold the log into the file and close it."""
        with contextlib.suppress(sqlite3.Error):
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self._connection.close()

    def store(self, messages: Iterable[Message], memory: Mapping[str, str], delivered: Mapping[str, float]) -> int:
        """All of it or nothing.

        Args:
            messages: new ones, oldest first; one that is there already (by its id) stays as it is.
            memory: JSON by key, takes the place of what was there.
            delivered: when, by id of the message, seconds since 1970.

        Returns:
            How many messages were marked as delivered that had not been.

        Raises:
            sqlite3.Error: nothing was stored.
        """
        packed = [(message, pack(message.payload)) for message in messages]
        run = self._connection.execute
        # A mark that is lost in a power cut only makes a message come twice. A message or a memory must not be lost.
        run(f"PRAGMA synchronous = {'FULL' if packed or memory else 'NORMAL'}")
        if packed:
            self._make_room(sum(_ROW_BYTES + 2 * len(payload) for _, payload in packed))
        run("BEGIN IMMEDIATE")
        try:
            for message, payload in packed:
                self._insert(None, message, payload)
            for key, value in memory.items():
                self._remember(key, value)
            marked = self._connection.executemany(
                "UPDATE message SET delivered = ? WHERE id = ? AND delivered IS NULL",
                [(when, message_id) for message_id, when in delivered.items()],
            ).rowcount
            run("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                run("ROLLBACK")
            raise
        return max(marked, 0)

    def oldest(self, topic: str, after: int = 0) -> tuple[int, Message] | None:
        """The oldest unsent message of a topic and its number; ``after`` a number. Damaged rows are dropped."""
        while True:
            row = self._connection.execute(
                f"SELECT {_COLUMNS} FROM message INDEXED BY waiting "
                "WHERE topic = ? AND delivered IS NULL AND number > ? ORDER BY number LIMIT 1",
                (topic, after),
            ).fetchone()
            if row is None:
                return None
            if (message := _checked(row)) is not None:
                return row[0], message
            after = row[0]
            with contextlib.suppress(sqlite3.OperationalError):  # a full disk lets none go: passed over for now
                self._connection.execute("DELETE FROM message WHERE number = ?", (after,))
                self.losses.corrupt += 1

    def topics(self) -> list[str]:
        """Those with unsent messages."""
        rows = self._connection.execute("SELECT topic FROM message WHERE delivered IS NULL GROUP BY topic")
        return [topic for (topic,) in rows]

    def waiting(self) -> int:
        """Number of unsent messages."""
        (count,) = self._connection.execute("SELECT count(*) FROM message WHERE delivered IS NULL").fetchone()
        return int(count)

    def memory(self) -> dict[str, Any]:
        """What is remembered, by key; damaged rows are left out."""
        found = {}
        for key, value in read_memory(self._connection):
            if value is None:
                self.losses.corrupt += 1
            else:
                found[key] = json.loads(value)
        return found

    def take_over(self, messages: Iterable[tuple[int, Message]], memory: Iterable[tuple[str, str | None]]) -> None:
        """What another file held, as far as it can be read: numbers and messages; keys and JSON, None where damaged."""
        run = self._connection.execute
        run("BEGIN IMMEDIATE")
        with contextlib.suppress(sqlite3.Error):
            for key, value in memory:
                if value is not None:
                    self._remember(key, value)
        with contextlib.suppress(sqlite3.Error):
            for number, message in messages:
                self._insert(number, message, pack(message.payload))
        run("COMMIT")

    def _insert(self, number: int | None, message: Message, packed: bytes) -> None:
        self._connection.execute(
            "INSERT OR IGNORE INTO message (number, id, topic, payload, created, checksum) VALUES (?, ?, ?, ?, ?, ?)",
            (number, message.id, message.topic, packed, message.created, _checksum(*_all_of(message))),
        )

    def _remember(self, key: str, value: str) -> None:
        self._connection.execute("INSERT OR REPLACE INTO memory VALUES (?, ?, ?)", (key, value, _checksum(key, value)))

    def _make_room(self, needed: int) -> None:
        """For so many bytes: the oldest that was delivered goes, then what is very old, then the oldest."""
        if self._used() + needed < _FULL_SHARE * self._most_bytes:
            return
        long_ago = time.time() - OLD_SECONDS
        for kind, which in [
            ("history", "delivered IS NOT NULL"),
            ("expired", f"delivered IS NULL AND created < {long_ago}"),
            ("full", "delivered IS NULL"),
        ]:
            while self._used() + needed >= _TRIMMED_SHARE * self._most_bytes:
                gone = self._connection.execute(
                    f"DELETE FROM message WHERE number IN "
                    f"(SELECT number FROM message WHERE {which} ORDER BY number LIMIT {_ROWS_AT_ONCE})"
                ).rowcount
                if not gone:
                    break
                setattr(self.losses, kind, getattr(self.losses, kind) + gone)

    def _used(self) -> int:
        pages, free, size = (
            self._connection.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("page_count", "freelist_count", "page_size")
        )
        return int((pages - free) * size)


def is_damage(error: Exception) -> bool:
    """Whether the file is at fault, and not the disk that it lies on."""
    if not isinstance(error, sqlite3.Error):
        return isinstance(error, UnicodeDecodeError)  # what SQLite complains of in the schema is no text any more
    code = getattr(error, "sqlite_errorcode", None)
    # Errors that sqlite3 itself or `OutboxFile` raises have no code.
    return type(error) is sqlite3.DatabaseError if code is None else code & 0xFF in _SICK_FILE


def connect(path: Path) -> sqlite3.Connection:
    """A connection of our kind: transactions are ours, and no text can stop the reading."""
    connection = sqlite3.connect(path, timeout=5.0, isolation_level=None, check_same_thread=False)
    connection.execute(f"PRAGMA cache_size = -{_CACHE_KILOBYTES}")
    connection.text_factory = lambda raw: raw.decode(errors="replace")  # the checksum tells what is damaged
    return connection


def read_memory(connection: sqlite3.Connection) -> Iterator[tuple[str, str | None]]:
    """Keys and JSON; None where the row is damaged."""
    for key, value, checksum in connection.execute("SELECT key, value, checksum FROM memory"):
        is_whole = isinstance(key, str) and isinstance(value, str) and _checksum(key, value) == checksum
        yield str(key), value if is_whole else None


def read_unsent(connection: sqlite3.Connection) -> Iterator[tuple[int, Message]]:
    """Numbers and messages, oldest first, past damaged rows; by the table alone, whatever its indices say."""
    rows = connection.execute(f"SELECT {_COLUMNS} FROM message NOT INDEXED WHERE delivered IS NULL ORDER BY number")
    for row in rows:
        if (message := _checked(row)) is not None:
            yield row[0], message


def _checked(row: tuple[Any, ...]) -> Message | None:
    message = Message(row[1], row[2], unpack(row[3]) or "", row[4])
    is_whole = all(isinstance(text, str) for text in _texts(message)) and isinstance(message.created, float)
    covered = _texts(message) if isinstance(row[3], str) else _all_of(message)  # plain: of `_PLAIN_VERSION`
    return message if is_whole and _checksum(*covered) == row[5] else None


def _texts(message: Message) -> tuple[str, str, str]:
    return message.id, message.topic, message.payload


def _all_of(message: Message) -> tuple[str, ...]:
    return *_texts(message), repr(message.created)


def _checksum(*texts: str) -> int:
    return zlib.crc32("\0".join(texts).encode())
