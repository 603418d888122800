"""Scores windows of many machines on few threads: fairly, each machine's in order, never a growing queue.

When work exceeds time there is one policy. The machines take turns, one item each, so every machine that has something
to score is scored equally often, whatever it costs, and one that asks for less than its turn gets all that it asks
for. Of each machine a few items may wait; one more, and its oldest is given up: what is new says more of a machine
than what is old. So an item is late when so many newer ones of its machine came before its turn did.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Key = TypeVar("Key")
Work = TypeVar("Work")
MAX_WAITING = 2
"""Items that may wait for each key unless said otherwise; when one more comes, the oldest is given up and reported."""

_NICER = 5
"""Workers are so much nicer than the thread that hands in: sound that is not taken is lost, a window can wait."""
_SWITCH_SECONDS = 0.001
"""After so long a thread that computes in Python gives way to another; Python's own 5 ms are long for many threads."""


@dataclass
class _Queue(Generic[Work]):
    waiting: deque[Work] = field(default_factory=deque)
    dropped: list[Work] = field(default_factory=list)
    """Had to make room; reported before the next item is done, so that the order is kept."""
    is_taken: bool = False
    """A worker has it, or it stands in the line of queues with work."""


class Scheduler(Generic[Key, Work]):
    """A queue for each key; workers take turns over the queues and one item at a time."""

    def __init__(
        self,
        keys: list[Key],
        workers: int,
        do: Callable[[Key, Work], None],
        give_up: Callable[[Key, Work], None],
        *,
        most_waiting: Mapping[Key, int] | None = None,
        shorten: Callable[[Work], Work] = lambda work: work,
    ) -> None:
        """
        Args:
            keys: the machines.
            workers: threads.
            do: called on a worker, for one key never twice at once and always in order; must not raise.
            give_up: called on a worker, in order with ``do``, for an item that had to make room; must not raise.
            most_waiting: items that may wait, by key; `MAX_WAITING` where nothing is said.
            shorten: called by ``submit`` for an item that has to make room: what ``give_up`` needs of it. So what was
                given up takes no room while the item before it is still being done, however long that takes.
        """
        self._queues: dict[Key, _Queue[Work]] = {key: _Queue() for key in keys}
        self._line: deque[Key] = deque()
        self._change = threading.Condition()
        self._stopping = False
        self._most_waiting = dict(most_waiting or {})
        self._shorten = shorten
        self._do, self._give_up = do, give_up
        self._in_hand: dict[Key, int] = {}
        self._taken = 0
        self._threads = [threading.Thread(target=self._run, name=f"scorer-{i}", daemon=True) for i in range(workers)]

    def start(self) -> None:
        """Start the workers."""
        # What a worker computes in Python must not keep the thread that takes the sound waiting for its turn.
        sys.setswitchinterval(_SWITCH_SECONDS)
        for thread in self._threads:
            thread.start()

    def submit(self, key: Key, work: Work) -> None:
        """Hand in an item; returns at once."""
        with self._change:
            queue = self._queues[key]
            if len(queue.waiting) >= self._most_waiting.get(key, MAX_WAITING):
                queue.dropped.append(self._shorten(queue.waiting.popleft()))
            queue.waiting.append(work)
            if not queue.is_taken:
                queue.is_taken = True
                self._line.append(key)
                self._change.notify()

    def is_idle(self) -> bool:
        """Nothing waits and nothing is under way."""
        with self._change:
            return not any(queue.is_taken for queue in self._queues.values())

    def in_hand(self) -> dict[Key, int]:
        """Keys whose item is being done, with a number that differs from item to item."""
        with self._change:
            return dict(self._in_hand)

    def stop(self) -> None:
        """Let the workers finish what they have in hand; what waits is left."""
        with self._change:
            self._stopping = True
            self._change.notify_all()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        give_way()
        while True:
            with self._change:
                while not self._line and not self._stopping:
                    self._change.wait()
                if self._stopping:
                    return
                key = self._line.popleft()
                queue = self._queues[key]
                work = queue.waiting.popleft()
                dropped, queue.dropped = queue.dropped, []
                self._taken += 1
                self._in_hand[key] = self._taken
            for old in dropped:
                self._give_up(key, old)
            self._do(key, work)
            with self._change:
                del self._in_hand[key]
                queue.is_taken = bool(queue.waiting)
                if queue.is_taken:
                    self._line.append(key)
                    self._change.notify()


def give_way() -> None:
    """This thread, and what it starts, gets its core after the others; on Linux a priority is each thread's own."""
    with contextlib.suppress(OSError):
        me = threading.get_native_id()
        os.setpriority(os.PRIO_PROCESS, me, os.getpriority(os.PRIO_PROCESS, me) + _NICER)
