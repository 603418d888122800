"""The outbox: an alert and the alarm's state are on disk together before the alert is sent, and until it was received.

One thread owns the file; whoever hands something in or asks for it never waits for the disk. What is on disk is offered
to the sender, the oldest message of each topic, so that order is kept for each machine and one that is refused holds up
no other. While the disk is full, read-only, gone or hung, messages wait in memory, bounded, and are offered from there.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from edge_asd.publish.journal import Level
from edge_asd.publish.log import Log
from edge_asd.publish.metrics import Metrics
from edge_asd.publish.outbox_file import Losses, Message, OutboxFile, is_damage
from edge_asd.publish.outbox_fresh import FreshMessages
from edge_asd.publish.outbox_lock import DatabaseLock
from edge_asd.publish.outbox_memory import OutboxMemory, Reconcile
from edge_asd.publish.outbox_rescue import set_aside
from edge_asd.publish.outbox_stored import StoredMessages

MOST_BYTES = 64_000_000
"""Some 90,000 alerts of two detectors each, see tests/publish/test_outbox_packing.py."""
_RETRY_SECONDS = 5.0
_PATIENCE_SECONDS = 10.0
"""A message that the disk has not taken by then is sent from memory. On a disk that fails, older ones of its topic are
waited for as long, from when they could have been sent."""
_FAREWELL_SECONDS = 5.0
_LEVELS_OF_LOSSES: dict[str, Level] = {"history": "info", "expired": "warning", "full": "error", "corrupt": "error"}
_HINT = "alerts go from memory until the disk takes them; the alarm's state would not outlive a restart"


class Outbox:
    """May be used from any thread."""

    def __init__(self, path: Path, most_bytes: int = MOST_BYTES, *, log: Log, metrics: Metrics) -> None:
        """
        Args:
            path: of the database; folders are made.
            most_bytes: that the database may take up.
            log: told of a disk that fails, of damage, and of what had to go.
            metrics: counts messages and losses.
        """
        self.path = path
        self.on_ready: Callable[[], None] = lambda: None
        """Called on the outbox's thread when there is something to send."""
        self.reconcile: Reconcile = lambda found, made: made
        """Asked, on the outbox's thread, for what was put before it was known what lies on disk."""
        self._log, self._metrics, self._most_bytes = log, metrics, most_bytes
        self._change = threading.Condition(threading.RLock())
        self._fresh = FreshMessages()
        self._memory = OutboxMemory()
        self._settled: dict[str, float] = {}
        """By id: delivered, and when; not marked on disk yet."""
        self._stored = StoredMessages()
        self._waiting = 0
        """Messages on disk that are not marked as delivered there."""
        self._losses = Losses()
        """Already told."""
        self._file: OutboxFile | None = None
        self._failure: str | None = None
        """Why the disk took nothing at the last attempt."""
        self._lock: DatabaseLock | None = None
        self._is_storing = self._is_closing = False
        self._thread = threading.Thread(target=self._run, name="outbox", daemon=True)

    def open(self) -> None:
        """Open the database; where that fails, go on in memory and try again.

        Raises:
            ConfigurationError: another daemon uses it.
        """
        with contextlib.suppress(OSError):  # tried again, and told, with the file
            self._lock = DatabaseLock(self.path)
        self._attempt(self._work)
        self._tell()
        self._thread.start()

    @property
    def can_recall(self) -> bool:
        """The database was opened, if only lately."""
        return self._memory.is_found

    def recall(self, key: str) -> Any | None:
        """What was remembered under a key when the database was opened; None where nothing was, or it was not yet."""
        with self._change:
            return self._memory.recall(key)

    def put(self, messages: Iterable[Message], memory: Mapping[str, Any]) -> None:
        """Hand in messages and what is to be remembered, one transaction; returns at once.

        Args:
            messages: to be sent, oldest first.
            memory: anything JSON can hold, by key; takes the place of what was there (not recalled: `reconcile`).
        """
        texts = {key: json.dumps(value) for key, value in memory.items()}
        with self._change:
            for message in messages:
                if (lost := self._fresh.add(message)) is not None:
                    self._metrics.outbox_dropped.labels("full").inc()
                    self._log("alert_lost", "error", topic=lost.topic, id=lost.id, reason="the disk takes nothing")
            self._memory.put(texts)
            self._change.notify()

    def take(self, is_free: Callable[[str], bool]) -> Message | None:
        """A message that may be sent now: the oldest of a topic; None where there is none.

        Args:
            is_free: whether a message of this topic may be sent now. It is offered until it is settled.
        """
        with self._change:
            stored = self._stored.oldest(is_free)
            if stored is not None:
                return stored
            return self._fresh.oldest(self._given_up(), self._stored.topics(_out_of_patience()), is_free)

    def settle(self, message: Message) -> None:
        """A message was received; it will not be offered again, and the next of its topic will."""
        with self._change:
            self._stored.settle(message)
            was_fresh = self._fresh.remove(message.id)
            if not was_fresh or self._is_storing:
                self._settled[message.id] = time.time()
            self._change.notify()

    @property
    def is_busy(self) -> bool:
        """More will be offered as soon as the disk has done what it is about to do."""
        with self._change:
            awaits_disk = bool(self._stored.awaited(_out_of_patience())) or self._fresh.awaits_disk(self._given_up())
            return awaits_disk and self.unsent > 0

    def has_kept(self, topic: str) -> bool:
        """Whether all messages of a topic are on disk, as far as it takes any."""
        with self._change:
            return not self._fresh.awaits_disk(self._given_up(), topic)

    @property
    def unsent(self) -> int:
        """Messages that wait."""
        with self._change:
            return max(0, self._waiting - len(self._settled)) + len(self._fresh)

    def close(self) -> None:
        """Store what was handed in, for a moment at most."""
        with self._change:
            self._is_closing = True
            self._change.notify()
        self._thread.join(_FAREWELL_SECONDS)
        with self._change:
            if self._fresh:
                self._log("alerts_lost", "error", alerts=len(self._fresh), reason=self._failure or "the disk is slow")

    def _run(self) -> None:
        while True:
            with self._change:
                if self._failure is None:
                    self._change.wait_for(self._has_work)
                else:
                    # What is new can wait, since it goes from memory; what a full disk still holds is sent on.
                    self._change.wait_for(self._has_work_though_failing, _RETRY_SECONDS)
                is_closing = self._is_closing
            self._attempt(self._work)
            self._tell()
            self.on_ready()
            if is_closing:
                break
        self._close_file()
        if self._lock is not None:
            self._lock.give_back()

    def _given_up(self) -> float:
        """Messages that came before then, on the monotonic clock, wait for the disk no longer."""
        return float("inf") if self._failure is not None else _out_of_patience()

    def _has_work(self) -> bool:
        return bool(self._fresh or self._memory or self._settled or self._stored.sought or self._is_closing)

    def _has_work_though_failing(self) -> bool:
        return self._is_closing or (self._file is not None and bool(self._stored.sought))

    def _attempt(self, work: Callable[[], None]) -> None:
        """Do something with the file; whatever goes wrong there must not stop anything else."""
        try:
            work()
        except Exception as error:
            if is_damage(error) and self._begin_anew(str(error)):
                return
            self._metrics.outbox_errors.inc()
            if self._failure is None:
                self._log("outbox_failing", "error", file=str(self.path), error=str(error), hint=_HINT)
            self._failure = str(error)
            if getattr(error, "sqlite_errorcode", None) != sqlite3.SQLITE_FULL:
                self._close_file()  # a full disk can still be read; anything else is looked at anew
        else:
            if self._failure is not None:
                self._log("outbox_recovered", "notice", file=str(self.path))
            self._failure = None

    def _open(self) -> OutboxFile:
        if self._lock is None:
            self._lock = DatabaseLock(self.path)  # where that failed at the start
        return self._take_up(OutboxFile(self.path, self._most_bytes))

    def _close_file(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _begin_anew(self, damage: str) -> bool:
        """With a new file in the damaged one's place; False if there can be none."""
        self._close_file()
        try:
            aside, new = set_aside(self.path, self._most_bytes)
        except (OSError, sqlite3.Error):
            return False
        self._metrics.outbox_dropped.labels("corrupt").inc()
        self._log("outbox_corrupt", "error", error=damage, set_aside=str(aside), alerts_rescued=new.waiting())
        self._take_up(new)
        return True

    def _take_up(self, file: OutboxFile) -> OutboxFile:
        """Begin with what lies in a file."""
        recalled, waiting, topics = file.memory(), file.waiting(), file.topics()
        with self._change:
            self._memory.find(recalled)
            self._file, self._waiting = file, waiting
            self._losses = Losses()
            self._stored.begin(topics)
        return file

    def _work(self) -> None:
        file = self._file or self._open()
        with self._change:
            messages = list(self._fresh)
            memory, settled = self._memory.due(), dict(self._settled)
            self._is_storing = True
        try:
            if messages or memory or settled:
                texts = {key: self._memory.text(key, one, self.reconcile) for key, one in memory.items()}
                marked = file.store(messages, texts, settled)
                self._note_stored(messages, settled, marked)
                with self._change:
                    self._memory.note_stored(memory)
        finally:
            self._is_storing = False
            self._seek(file)

    def _note_stored(self, messages: list[Message], settled: Mapping[str, float], marked: int) -> None:
        with self._change:
            self._waiting += len(messages) - marked
            for message in messages:
                # Where it went from memory meanwhile, it will be marked as delivered in the next round.
                self._fresh.remove(message.id)
                self._stored.add(message.topic)
            for message_id in settled:
                del self._settled[message_id]

    def _seek(self, file: OutboxFile) -> None:
        """Read the next message of each topic that has none to offer."""
        with self._change:
            everything = self._stored.sought
        for topic, sought in everything.items():
            found = file.oldest(topic, sought.after)
            while found is not None and found[1].id in self._settled:
                found = file.oldest(topic, found[0])
            with self._change:
                if found is None or found[1].id not in self._settled:  # else it was just received; read on next time
                    self._stored.find(topic, sought, found)

    def _tell(self) -> None:
        """Count, and say what had to go."""
        if self._file is not None:
            now = self._file.losses
            for kind, level in _LEVELS_OF_LOSSES.items():
                lost = getattr(now, kind) - getattr(self._losses, kind)
                if lost and kind != "history":
                    self._metrics.outbox_dropped.labels(kind).inc(lost)
                    with contextlib.suppress(sqlite3.Error):
                        self._waiting = self._file.waiting()
                if lost:
                    self._log("outbox_made_room", level, reason=kind, messages=lost)
            self._losses = Losses(now.history, now.expired, now.full, now.corrupt)
        with self._change:
            self._metrics.outbox_messages.set(self.unsent)
            ages = [message.created for messages in (self._stored, self._fresh) for message in messages]
            self._metrics.outbox_oldest.set(min(ages, default=0.0))


def _out_of_patience() -> float:
    """What waits for the disk since before then, on the monotonic clock, waits no longer."""
    return time.monotonic() - _PATIENCE_SECONDS
