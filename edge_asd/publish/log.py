"""The log: one JSON line an event on standard output, where journald or a pipe takes it up."""

from __future__ import annotations

import atexit
import json
import queue
import sys
import threading
from datetime import UTC, datetime
from typing import Any, TextIO

from edge_asd.publish.payloads import iso

_MOST_WAITING = 10_000
_FAREWELL_SECONDS = 2.0


class Log:
    """Writes JSON lines; may be used from any thread.

    A thread of its own writes: a reader that stalls (a full pipe) must stop neither the listening nor the stopping.
    Lines that find no room are counted, and the count is the next line.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        """``stream``: standard output unless given."""
        self._stream = stream or sys.stdout
        self._waiting: queue.Queue[str | None] = queue.Queue(_MOST_WAITING)
        self._dropped = 0
        self._writer = threading.Thread(target=self._write, name="log", daemon=True)
        self._writer.start()
        atexit.register(self.close)

    def __call__(self, event: str, level: str = "info", **fields: Any) -> None:
        """Write one line.

        Args:
            event: a short constant name, such as ``ready``.
            level: ``info``, ``warning`` or ``error``.
            fields: anything that JSON can hold.
        """
        try:
            if self._dropped:
                self._waiting.put_nowait(_line("lines_lost", "warning", lines=self._dropped))
                self._dropped = 0
            self._waiting.put_nowait(_line(event, level, **fields))
        except queue.Full:
            self._dropped += 1

    def close(self) -> None:
        """Write what waits, for a moment at most."""
        atexit.unregister(self.close)
        try:
            self._waiting.put_nowait(None)
        except queue.Full:
            return
        self._writer.join(_FAREWELL_SECONDS)

    def _write(self) -> None:
        while (line := self._waiting.get()) is not None:
            try:
                self._stream.write(line)
                self._stream.flush()
            except (OSError, ValueError):
                # A closed pipe must not stop the listening: MQTT and metrics still tell.
                continue


def _line(event: str, level: str, **fields: Any) -> str:
    return json.dumps({"time": iso(datetime.now(UTC)), "level": level, "event": event, **fields}, default=str) + "\n"
