"""Messages that are not on disk yet: the disk will have them soon, or they are sent from here."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator

from edge_asd.publish.outbox_file import Message

MOST = 1000
"""Messages that wait in memory while the disk takes none."""


class FreshMessages:
    """Oldest first; for one thread at a time. Times are on the monotonic clock."""

    def __init__(self) -> None:
        self._waiting: dict[str, tuple[Message, float]] = {}
        """By id: and since when."""

    def __len__(self) -> int:
        return len(self._waiting)

    def __iter__(self) -> Iterator[Message]:
        return (message for message, _ in self._waiting.values())

    def add(self, message: Message) -> Message | None:
        """Take one; gives the one that had to make room for it."""
        lost = next(iter(self)) if len(self) >= MOST else None
        if lost is not None:
            self.remove(lost.id)
        self._waiting[message.id] = message, time.monotonic()
        return lost

    def remove(self, message_id: str) -> bool:
        """It is on disk, or was received; whether it was here."""
        return self._waiting.pop(message_id, None) is not None

    def oldest(self, before: float, topics: Collection[str], is_free: Callable[[str], bool]) -> Message | None:
        """What may be sent from here: the oldest of its topic, if nothing older may still be on its way to the disk.

        Args:
            before: what has been here since then is left to the disk no longer.
            topics: with older messages on disk, which come first.
            is_free: whether a message of this topic may be sent now.
        """
        passed = set(topics)
        for message, since in self._waiting.values():
            if since > before:
                return None
            if message.topic not in passed and is_free(message.topic):
                return message
            passed.add(message.topic)
        return None

    def awaits_disk(self, before: float, topic: str | None = None) -> bool:
        """Whether one (of a topic) is left to the disk, which will have it soon."""
        return any(since > before and topic in (None, message.topic) for message, since in self._waiting.values())
