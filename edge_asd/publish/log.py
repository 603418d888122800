"""The log: one JSON line an event on standard output, where journald or a pipe takes it up."""

from __future__ import annotations

import json
import sys
import threading
from datetime import UTC, datetime
from typing import Any, TextIO

from edge_asd.publish.payloads import iso


class Log:
    """Writes JSON lines; may be used from any thread."""

    def __init__(self, stream: TextIO | None = None) -> None:
        """``stream``: standard output unless given."""
        self._stream = stream or sys.stdout
        self._lock = threading.Lock()

    def __call__(self, event: str, level: str = "info", **fields: Any) -> None:
        """Write one line.

        Args:
            event: a short constant name, such as ``ready``.
            level: ``info``, ``warning`` or ``error``.
            fields: anything that JSON can hold.
        """
        line = json.dumps({"time": iso(datetime.now(UTC)), "level": level, "event": event, **fields}, default=str)
        with self._lock:
            try:
                self._stream.write(line + "\n")
                self._stream.flush()
            except (OSError, ValueError):
                # A closed pipe must not stop the listening: MQTT and metrics still tell.
                pass
