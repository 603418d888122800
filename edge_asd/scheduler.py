"""Scores windows of many machines on few threads: fairly, each machine's in order, never a growing queue."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Key = TypeVar("Key")
Work = TypeVar("Work")
MAX_WAITING = 2
"""Items that may wait for each key unless said otherwise; when one more comes, the oldest is given up and reported."""


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
        most_waiting: int = MAX_WAITING,
    ) -> None:
        """
        Args:
            keys: the machines.
            workers: threads.
            do: called on a worker, for one key never twice at once and always in order; must not raise.
            give_up: called on a worker, in order with ``do``, for an item that had to make room; must not raise.
            most_waiting: items that may wait for each key.
        """
        self._queues: dict[Key, _Queue[Work]] = {key: _Queue() for key in keys}
        self._line: deque[Key] = deque()
        self._change = threading.Condition()
        self._stopping = False
        self._most_waiting = most_waiting
        self._do, self._give_up = do, give_up
        self._threads = [threading.Thread(target=self._run, name=f"scorer-{i}", daemon=True) for i in range(workers)]

    def start(self) -> None:
        """Start the workers."""
        for thread in self._threads:
            thread.start()

    def submit(self, key: Key, work: Work) -> None:
        """Hand in an item; returns at once."""
        with self._change:
            queue = self._queues[key]
            if len(queue.waiting) >= self._most_waiting:
                queue.dropped.append(queue.waiting.popleft())
            queue.waiting.append(work)
            if not queue.is_taken:
                queue.is_taken = True
                self._line.append(key)
                self._change.notify()

    def is_idle(self) -> bool:
        """Nothing waits and nothing is under way."""
        with self._change:
            return not any(queue.is_taken for queue in self._queues.values())

    def stop(self) -> None:
        """Let the workers finish what they have in hand; what waits is left."""
        with self._change:
            self._stopping = True
            self._change.notify_all()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
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
            for old in dropped:
                self._give_up(key, old)
            self._do(key, work)
            with self._change:
                queue.is_taken = bool(queue.waiting)
                if queue.is_taken:
                    self._line.append(key)
                    self._change.notify()
