"""Asks PulseAudio, or PipeWire in its place, where a stream's sound comes from.

When a source disappears, the sound server moves its streams to another one without a word: PortAudio goes on giving
samples, of another machine. So each block waits until the server has said, after its arrival, that the stream is where
it was.
"""

from __future__ import annotations

import contextlib
import os
import threading
from dataclasses import dataclass
from typing import Any

from edge_asd.clock import boot_time
from edge_asd.errors import DeviceError

_LOCATE_SECONDS = 2.0
_RETRY_SECONDS = 0.05


@dataclass(frozen=True)
class Source:
    """Where a stream's sound comes from."""

    name: str
    rate: int
    """Hz, its own."""
    channels: int


class StreamWatch:
    """Watches the stream that this process has just opened. A server that hangs holds up this object's thread only."""

    def __init__(self) -> None:
        self.source: Source | None = None
        """Once found; stays None where the stream does not go through a sound server."""
        self.vouched_until = float("-inf")
        """Sound that arrived by then came from `source`, `edge_asd.clock.boot_time`."""
        self.moved_to: str | None = None
        """The source that the server has moved the stream to."""
        self._answered = threading.Event()
        self._asked = threading.Event()
        self._located = threading.Event()
        self._closed = False
        threading.Thread(target=self._run, name="sound-server", daemon=True).start()

    def locate(self, seconds: float = _LOCATE_SECONDS) -> bool:
        """Wait until the stream was found (true), or is known not to go through a sound server.

        Raises:
            DeviceError: the server does not answer.
        """
        if not self._located.wait(seconds):
            raise DeviceError(f"the sound server has not answered for {seconds:g} s")
        return self.source is not None

    def ask(self) -> None:
        """Have the server asked soon whether the stream is where it was; `wait_for_answer` waits for it."""
        self._answered.clear()
        self._asked.set()

    def wait_for_answer(self, seconds: float) -> None:
        """Wait until what was asked last has been answered, for so long at most."""
        self._answered.wait(seconds)

    def close(self) -> None:
        """Stop; does not wait."""
        self._closed = True
        self._asked.set()

    def _run(self) -> None:
        try:
            import pulsectl

            pulse = pulsectl.Pulse("edge-asd", connect=False, threading_lock=False)
            pulse.connect(autospawn=False)
        except Exception:  # no libpulse, or no sound server: the stream cannot go through one
            self._located.set()
            return
        # Whatever goes wrong from here on, nothing is vouched for any more; unlocated, the stream is not accepted.
        with contextlib.suppress(Exception), pulse:
            self._watch(pulse)

    def _watch(self, pulse: Any) -> None:
        stream = self._find(pulse)
        if stream is None:
            self._located.set()
            return
        place = stream.source
        self.source = _source(pulse.source_info(place))
        self._located.set()
        while True:
            self._asked.wait()
            self._asked.clear()
            if self._closed:
                return
            asked = boot_time()
            now = pulse.source_output_info(stream.index).source
            if now == place:
                self.vouched_until = asked
            else:
                self.moved_to = pulse.source_info(now).name
            self._answered.set()

    def _find(self, pulse: Any) -> Any:
        """Our newest stream; None where this process has none at the server, not even after a while."""
        for _ in range(round(_LOCATE_SECONDS / 4 / _RETRY_SECONDS)):
            ours = [
                s for s in pulse.source_output_list() if s.proplist.get("application.process.id") == str(os.getpid())
            ]
            if ours:
                return max(ours, key=lambda s: s.index)
            if self._asked.wait(_RETRY_SECONDS):
                return None
        return None


def _source(info: Any) -> Source:
    return Source(info.name, info.sample_spec.rate, info.sample_spec.channels)
