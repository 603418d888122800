"""Messages on disk: of each topic the oldest is at hand to be sent, or is still to be read."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from edge_asd.publish.outbox_file import Message


@dataclass(frozen=True, eq=False)
class Sought:
    """Where a topic's next message is to be read."""

    after: int
    """Number of the message before it."""
    since: float


class StoredMessages:
    """For one thread at a time. Times are on the monotonic clock."""

    def __init__(self) -> None:
        self._heads: dict[str, tuple[int, Message]] = {}
        """By topic: the oldest unsent message, and its number on disk."""
        self._sought: dict[str, Sought] = {}
        """By topic. It outlives a file that is closed: what lies there is still older than what is new."""

    def __iter__(self) -> Iterator[Message]:
        """Those at hand."""
        return (message for _, message in self._heads.values())

    @property
    def sought(self) -> dict[str, Sought]:
        """By topic, what is to be read now."""
        return dict(self._sought)

    def begin(self, topics: Iterable[str]) -> None:
        """A file was opened, with unsent messages of these topics; what was sought before has been so since then."""
        now, former = time.monotonic(), self._sought
        self._heads.clear()
        self._sought = {topic: Sought(0, former[topic].since if topic in former else now) for topic in topics}

    def add(self, topic: str) -> None:
        """A message of this topic has come to the disk."""
        if topic not in self._heads:
            self._sought.setdefault(topic, Sought(0, time.monotonic()))

    def find(self, topic: str, sought: Sought, found: tuple[int, Message] | None) -> None:
        """It was read: a number and a message, or that there is none."""
        if self._sought.get(topic) is sought:
            del self._sought[topic]
            if found is not None:
                self._heads[topic] = found

    def settle(self, message: Message) -> None:
        """It was received; if it was at hand, its topic's next is to be read."""
        number, head = self._heads.get(message.topic, (0, None))
        if head is not None and head.id == message.id:
            del self._heads[message.topic]
            self._sought[message.topic] = Sought(number, time.monotonic())

    def oldest(self, is_free: Callable[[str], bool]) -> Message | None:
        """One at hand whose topic may be sent now."""
        return next((message for message in self if is_free(message.topic)), None)

    def awaited(self, before: float) -> set[str]:
        """Topics whose next message will be read soon; what is sought since before then is given up."""
        return {topic for topic, sought in self._sought.items() if sought.since > before}

    def topics(self, before: float) -> set[str]:
        """Those whose messages here come first: at hand, or `awaited`."""
        return self._heads.keys() | self.awaited(before)
