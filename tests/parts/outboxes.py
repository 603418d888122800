"""An outbox with its log and its metrics."""

from __future__ import annotations

import io
import json
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edge_asd.publish.log import Log
from edge_asd.publish.metrics import Metrics
from edge_asd.publish.outbox import Outbox
from edge_asd.publish.outbox_file import Message
from parts.waiting import until


class Opened:
    """An outbox, its log and its metrics."""

    def __init__(self, path: Path, most_bytes: int = 64_000_000) -> None:
        self.lines, self.metrics = io.StringIO(), Metrics()
        self.log = Log(self.lines)
        self.outbox = Outbox(path, most_bytes, log=self.log, metrics=self.metrics)
        self.outbox.open()

    def events(self) -> list[dict[str, Any]]:
        time.sleep(0.05)  # the log has a thread of its own
        return [json.loads(line) for line in self.lines.getvalue().splitlines()]

    def metric(self, name: str, **labels: str) -> float:
        value = self.metrics.registry.get_sample_value(f"edge_asd_{name}", labels)
        assert value is not None, name
        return value

    def stored(self) -> Opened:
        until(lambda: not (self.outbox._fresh or self.outbox._memory or self.outbox._settled), "the disk", 5)
        return self

    def deliver(self, most: int = 10_000) -> list[Message]:
        """All that is offered, each settled at once."""
        found: list[Message] = []
        while len(found) < most and self.outbox.unsent:
            message = self.outbox.take(lambda _: True)
            if message is None:
                time.sleep(0.0005)
                continue
            self.outbox.settle(message)
            found.append(message)
        return found


@contextmanager
def opened(path: Path, **options: int) -> Iterator[Opened]:
    one = Opened(path, **options)
    try:
        yield one
    finally:
        one.outbox.close()


def message(topic: str = "rail-7", text: str = "raised", age: float = 0.0) -> Message:
    return Message(str(uuid.uuid4()), topic, text, time.time() - age)
