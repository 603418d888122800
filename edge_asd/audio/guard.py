"""Ends the process where a call into the sound system never returns; systemd starts it anew.

A thread that hangs within PortAudio cannot be ended, nor can what it holds be given back: only the process can.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Callable, Iterator

from edge_asd.errors import EXIT_SOUND_SYSTEM_HUNG

LIMIT_SECONDS = 10.0
"""No call that returns at all takes so long: 0.1 s is usual, some seconds happen on a busy machine."""
_TICK_SECONDS = 0.25


class Guard:
    """Watches over the calls of one thread."""

    def __init__(self, on_hang: Callable[[str], None] | None = None, *, limit_seconds: float = LIMIT_SECONDS) -> None:
        """
        Args:
            on_hang: told what hangs, before the process ends with status 70; standard error unless given.
            limit_seconds: what a call may take.
        """
        self._on_hang = on_hang or (lambda message: print(f"edge-asd: {message}", file=sys.stderr, flush=True))
        self._limit = limit_seconds
        self._call: list[str] | None = None
        """A new list for each call: two calls with the same text are two."""
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="guard", daemon=True)
        self._thread.start()

    @contextlib.contextmanager
    def watch(self, what: str) -> Iterator[None]:
        """Within this, time counts; ``what`` is for the message, as in "opening 'vmic'"."""
        self._call = [what]
        try:
            yield
        finally:
            self._call = None

    def close(self) -> None:
        """Stop watching."""
        self._closed.set()

    def _watch(self) -> None:
        # Ticks are counted, not time: while the whole process stands still (a debugger, SIGSTOP) no call hangs.
        last: list[str] | None = None
        ticks = 0
        while not self._closed.wait(_TICK_SECONDS):
            call = self._call
            ticks = ticks + 1 if call is not None and call is last else 0
            last = call
            if ticks * _TICK_SECONDS >= self._limit:
                try:
                    self._on_hang(
                        f"the sound system hangs: {call[0] if call else ''} has not returned for {self._limit:g} s"
                    )
                finally:
                    os._exit(EXIT_SOUND_SYSTEM_HUNG)
