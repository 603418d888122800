"""A microphone with somebody who takes all that it gives, as the daemon does."""

from __future__ import annotations

import threading
import time

from parts.waiting import until

from edge_asd.audio.device import DeviceSettings
from edge_asd.audio.ledger import Stretch
from edge_asd.audio.microphone import Microphone
from edge_asd.audio.stream import DeviceStreams, MachineStream
from edge_asd.audio.windows import WINDOW_SECONDS, Window, WindowCutter
from edge_asd.clock import boot_time

RATE = 16_000
"""Hz, the detectors'."""
_TICK_SECONDS = 0.1


class Listening:
    """A context: the microphone is open within it."""

    def __init__(self, settings: DeviceSettings) -> None:
        self.microphone = Microphone(settings)
        self.stretches: list[Stretch] = []
        self.windows: list[Window] = []
        self.missing = 0.0
        """After the end: seconds that should have come and are not accounted for."""
        window = round(WINDOW_SECONDS * RATE)
        self.stream = MachineStream(WindowCutter(window, window), RATE)
        self._streams = DeviceStreams({"rig": (1, self.stream)})
        self._stopping = threading.Event()
        self._taker = threading.Thread(target=self._take_all)

    def __enter__(self) -> Listening:
        self.microphone.start()
        self._taker.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.microphone.stop()
        now = boot_time()
        self._stopping.set()
        self._taker.join()
        ledger = self.microphone.ledger
        self.missing = (ledger.expected(now) - ledger.captured - ledger.lost) / ledger.rate

    @property
    def reason(self) -> str:
        """Why nothing is heard."""
        return self.microphone.status.reason or "it is heard"

    def wait_until_heard(self, seconds: float) -> float:
        """How many seconds it took."""
        began = time.monotonic()
        until(lambda: self.microphone.status.is_heard, f"the device ({self.reason})", seconds)
        return time.monotonic() - began

    def wait_until_lost(self, seconds: float) -> float:
        """How many seconds it took."""
        began = time.monotonic()
        until(lambda: not self.microphone.status.is_heard, "the loss of the device", seconds)
        return time.monotonic() - began

    def _take_all(self) -> None:
        while True:
            is_last = self._stopping.wait(_TICK_SECONDS)
            for stretch in self.microphone.take():
                self.stretches.append(stretch)
                self.windows += [window for _, window in self._streams.push(stretch)]
            if is_last:
                return
