"""The log: one line an event on standard output, where journald or a pipe takes it up."""

from __future__ import annotations

import atexit
import os
import queue
import select
import sys
import threading
from typing import Any, TextIO

from edge_asd.publish.journal import Level, is_for_people, is_journal
from edge_asd.publish.log_line import Form, line_format, plain
from edge_asd.publish.log_repeats import Repeats

_MOST_WAITING = 10_000
_FAREWELL_SECONDS = 2.0
_LOOK_SECONDS = 1.0
"""Between looks for floods that have ended."""


class Log:
    """Writes lines; may be used from any thread, and never raises.

    A thread of its own writes: a reader that stalls (a full pipe) must stop neither the listening nor the stopping.
    Lines that find no room are counted, and the count is the next line.
    """

    def __init__(
        self, stream: TextIO | None = None, *, form: Form | None = None, repeats: Repeats | None = None
    ) -> None:
        """
        Args:
            stream: standard output unless given.
            form: of the lines, see `line_format`; text unless given where people read, on a terminal and in the
                journal, and JSON where programs do. The journal is found by itself.
            repeats: keeps repeats back; without it everything is written.
        """
        self._stream = stream or sys.stdout
        usual: Form = "text" if is_for_people(self._stream) else "json"
        self._line = line_format(form or usual, is_journal=is_journal(self._stream))
        self._repeats = repeats
        self._waiting: queue.Queue[tuple[str, int] | None] = queue.Queue(_MOST_WAITING)
        """Lines, and how many events each stands for."""
        self._dropped = 0
        self._lock = threading.Lock()
        self._is_torn = False
        """The last line was not written to its end."""
        self._writer = threading.Thread(target=self._write, name="log", daemon=True)
        self._writer.start()
        atexit.register(self.close)

    def __call__(self, event: str, level: Level = "info", **fields: Any) -> None:
        """Write one line.

        Args:
            event: a short constant name, such as ``ready``.
            level: how much it matters.
            fields: anything; what JSON cannot hold is written as text. No secrets.
        """
        try:
            shown = plain(fields)
        except Exception as error:  # another thread changes a field, say: this is no reason to stop
            shown = {"unreadable": repr(error)}
        self._tell_kept_back()
        if self._repeats is None or self._repeats.admit(event, level, shown):
            self._put(event, level, shown)

    def close(self) -> None:
        """Write what waits, for a moment at most."""
        atexit.unregister(self.close)
        self._tell_kept_back(is_last=True)
        try:
            self._waiting.put_nowait(None)
        except queue.Full:
            return
        self._writer.join(_FAREWELL_SECONDS)

    def _put(self, event: str, level: Level, fields: dict[str, Any]) -> None:
        with self._lock:
            try:
                if self._dropped:
                    lost = self._line("lines_lost", "warning", {"lines": self._dropped})
                    self._waiting.put_nowait((lost, self._dropped))
                    self._dropped = 0
                self._waiting.put_nowait((self._line(event, level, fields), 1))
            except queue.Full:
                self._dropped += 1

    def _tell_kept_back(self, *, is_last: bool = False) -> None:
        for kept in () if self._repeats is None else self._repeats.ended(all_of_them=is_last):
            who = {} if kept.machine is None else {"machine": kept.machine}
            self._put(
                "repeated", kept.level, {"of": kept.event, **who, "count": kept.times, "seconds": round(kept.seconds)}
            )

    def _write(self) -> None:
        while True:
            try:
                waiting = self._waiting.get(timeout=None if self._repeats is None else _LOOK_SECONDS)
            except queue.Empty:
                self._tell_kept_back()
                continue
            if waiting is None:
                return
            line, events = waiting
            try:
                self._write_line(line)
            except (OSError, ValueError, AttributeError):
                # A closed pipe or a full disk must not stop the listening: MQTT and metrics still tell.
                with self._lock:
                    self._dropped += events

    def _write_line(self, line: str) -> None:
        """Past Python's buffers: after a full disk they would write what they still hold, parts of lines."""
        try:
            number = self._stream.fileno()
        except OSError:  # no file of the system
            self._stream.write(line)
            self._stream.flush()
            return
        rest = (("\n" if self._is_torn else "") + line).encode("utf-8", "backslashreplace")
        while rest:
            try:
                written = os.write(number, rest)
            except BlockingIOError:  # another process has made the pipe so
                select.select([], [number], [])
                continue
            rest = rest[written:]
            self._is_torn = bool(rest)
