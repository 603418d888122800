"""`edge-asd record`: normal sound of one machine, as the daemon would hear it, for training."""

from __future__ import annotations

import math
import signal
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any

from edge_asd.audio.ledger import Stretch
from edge_asd.audio.level import level_bar, level_dbfs
from edge_asd.audio.microphone import Microphone, Status
from edge_asd.audio.stream import DeviceStreams, MachineStream
from edge_asd.audio.windows import WINDOW_SECONDS, Window, WindowCutter
from edge_asd.clip_folder import ClipFolder, ClipFolderError
from edge_asd.clock import is_synchronised, utc
from edge_asd.config import Config, MachineSection
from edge_asd.errors import EXIT_DONE, EXIT_SOME_FAILED, DeviceError, UsageError
from edge_asd.logmel import LogMelParameters
from edge_asd.machine import device_settings
from edge_asd.publish.payloads import iso
from edge_asd.recording_gate import recording_gate

_TICK_SECONDS = 0.1
_METER_SECONDS = 0.5
_LINE_SECONDS = 60.0
"""Where standard error is no terminal: a line so often instead of a meter."""
_OPENING_SECONDS = 15.0


@dataclass(frozen=True)
class Order:
    """What is to be recorded."""

    machine: str
    machine_id: str
    hours: float
    out: Path
    most_gigabytes: float
    is_for_training: bool = True
    """Else nothing is said of the next step."""


class Recorder:
    """One run of the command."""

    def __init__(self, config: Config, order: Order, state: Path | None = None) -> None:
        """
        Args:
            config: of the machine and its device.
            order: what is to be recorded.
            state: where the site's calibrations may lie; a learned gate is as the daemon's.

        Raises:
            UsageError: the configuration has no such machine, or it does not listen to a device.
            ConfigurationError: a learned gate without a detector, or a topic as gate.
            ClipFolderError: there is no writing there.
        """
        machine = _machine(config, order.machine)
        assert config.device is not None and machine.channel is not None  # a machine with a channel has a device
        self._order, self._channel = order, machine.channel
        self._gate = recording_gate(config, machine, state)
        self._rate = LogMelParameters().sample_rate
        window = round(WINDOW_SECONDS * self._rate)
        self._stream = MachineStream(WindowCutter(window, window), self._rate)
        self._streams = DeviceStreams({order.machine: (machine.channel, self._stream)})
        self._has_heard = False
        self._lost = 0
        """Samples since the last clip."""
        self._microphone = Microphone(device_settings(config.device), needed_channels=machine.channel)
        self._session = iso(datetime.now(UTC))
        self._wanted = math.ceil(order.hours * 3600 / WINDOW_SECONDS - 1e-6)
        self._refused: Counter[str] = Counter()
        self._stretch: dict[str, Any] | None = None
        """Windows that are being refused for one reason, for the manifest."""
        self._stopping = threading.Event()
        self._display = _Display()
        self._folder = ClipFolder(
            order.out,
            order.machine,
            order.machine_id,
            most_bytes=round(order.most_gigabytes * 1e9),
            sample_rate=self._rate,
        )

    def run(self) -> int:
        """Record until there is enough, or SIGINT or SIGTERM comes.

        Returns:
            The exit status: 1 where there is not enough yet; the same command goes on from there.

        Raises:
            DeviceError: the device is not there at the start, or held by somebody else.
            ClipFolderError: a clip cannot be written; those before it are safe.
        """
        if self._folder.clips >= self._wanted:
            print(f"{self._folder.train}: {_time(self._seconds)} are there already")
            return EXIT_DONE
        if self._folder.clips:
            self._display.say(f"going on: {_time(self._seconds)} are there already")
        before = {number: signal.signal(number, self._stop) for number in (signal.SIGINT, signal.SIGTERM)}
        self._microphone.start()
        try:
            self._wait_for_device()
            self._record()
            self._end_stretch()
        finally:
            self._microphone.stop()
            self._folder.close()
            self._display.end()
            for number, handler in before.items():
                signal.signal(number, handler)
        return self._report()

    @property
    def _seconds(self) -> float:
        return self._folder.clips * WINDOW_SECONDS

    def _stop(self, _number: int, _frame: FrameType | None) -> None:
        self._stopping.set()

    def _wait_for_device(self) -> None:
        """A device that is not there now is an error, since somebody stands by; later it is waited for."""
        end = time.monotonic() + _OPENING_SECONDS
        while time.monotonic() < end and not self._stopping.is_set():
            if self._microphone.wait_until_known(_TICK_SECONDS):
                break
        if self._stopping.is_set():
            return
        if self._microphone.failure is not None:
            raise self._microphone.failure
        if self._microphone.status.opening is None:
            raise DeviceError(self._microphone.status.reason or "the device does not open")

    def _record(self) -> None:
        status: Status | None = None
        while self._folder.clips < self._wanted and not self._stopping.wait(_TICK_SECONDS):
            if self._microphone.status != status:
                status = self._microphone.status
                self._display.say("listening" if status.is_heard else f"no signal: {status.reason}")
            for stretch in self._microphone.take():
                self._display.level = self._level(stretch)
                for _, window in self._streams.push(stretch):
                    if self._folder.clips < self._wanted:
                        self._take(window)
                heard, lost = self._stream.take_counts()
                self._lost += lost if self._has_heard else 0
                self._has_heard |= heard > 0
            self._display.show(self._progress())

    def _take(self, window: Window) -> None:
        reason = self._objection(window)
        start = utc(self._microphone.ledger.time_at(window.start / self._rate))
        if reason is not None:
            self._refuse(reason, window, start)
            return
        self._end_stretch()
        opening = self._microphone.status.opening
        self._folder.write(
            window.samples,
            {
                "session": self._session,
                "start": iso(start),
                "clock_synchronised": is_synchronised(),
                "level_dbfs": round(level_dbfs(window.samples), 2),
                "gap_before_seconds": round(self._lost / self._rate, 3),
                "device": opening.device.name if opening else None,
                "channel": self._channel,
            },
        )
        self._lost = 0

    def _objection(self, window: Window) -> str | None:
        """Why a window is no normal sound to learn from."""
        if window.lost:
            return "gap"
        if window.finding is not None:
            return window.finding.reason
        level = window.level_dbfs
        return "idle" if self._gate is not None and (level is None or level < self._gate) else None

    def _refuse(self, reason: str, window: Window, start: datetime) -> None:
        if self._stretch is not None and self._stretch["refused"] != reason:
            self._end_stretch()
        if self._stretch is None:
            if window.finding is not None:
                self._display.say(f"refused: {window.finding.text}")
            self._stretch = {
                "refused": reason,
                "session": self._session,
                "start": iso(start),
                "seconds": 0.0,
                "lost_seconds": 0.0,
            }
        self._stretch["seconds"] += window.samples.size / self._rate
        self._stretch["lost_seconds"] += window.lost / self._rate
        self._refused[reason] += 1

    def _end_stretch(self) -> None:
        stretch, self._stretch = self._stretch, None
        if stretch is not None:
            stretch["seconds"], stretch["lost_seconds"] = (round(stretch[k], 3) for k in ("seconds", "lost_seconds"))
            try:
                self._folder.note(stretch)
            except OSError as error:
                raise ClipFolderError(f"{self._folder.folder}: {error.strerror or error}") from None

    def _level(self, stretch: Stretch) -> float | None:
        return None if stretch.samples is None else level_dbfs(stretch.samples[:, self._channel - 1])

    def _progress(self) -> str:
        done = f"{_time(self._seconds)} of {_time(self._wanted * WINDOW_SECONDS)}"
        return f"{done}, refused: {self._all_refused()}" if self._refused else done

    def _all_refused(self) -> str:
        return ", ".join(f"{n} {reason}" for reason, n in self._refused.items())

    def _report(self) -> int:
        order, folder = self._order, self._folder
        print(f"{folder.train}: {folder.clips} clips, {_time(self._seconds)}, {folder.bytes / 1e6:.0f} MB")
        if self._refused:
            print(f"windows refused: {self._all_refused()}")
        if folder.clips < self._wanted:
            print("stopped before the end; the same command goes on from here")
            return EXIT_SOME_FAILED
        if order.is_for_training:
            print(
                f"next: edge-asd-train statistics --data {order.out} --machine {order.machine} "
                f"--out {order.machine}.onnx"
            )
        return EXIT_DONE


class _Display:
    """Progress and a level meter on standard error: one line again and again on a terminal, else a line a minute."""

    def __init__(self) -> None:
        self.level: float | None = None
        """dBFS of the last block."""
        self._is_terminal = sys.stderr.isatty()
        self._shown_at = float("-inf")

    def show(self, progress: str) -> None:
        now = time.monotonic()
        if now - self._shown_at < (_METER_SECONDS if self._is_terminal else _LINE_SECONDS):
            return
        self._shown_at = now
        meter = "[ no signal ]" if self.level is None else level_bar(self.level)
        if self._is_terminal:
            print(f"\r\x1b[K{meter}  {progress}", end="", file=sys.stderr, flush=True)
        else:
            print(f"{progress}  {meter}", file=sys.stderr, flush=True)

    def say(self, text: str) -> None:
        """A line that stays."""
        print(f"\r\x1b[K{text}" if self._is_terminal else text, file=sys.stderr, flush=True)

    def end(self) -> None:
        if self._is_terminal:
            print(file=sys.stderr)


def _machine(config: Config, name: str) -> MachineSection:
    for machine in config.machines:
        if machine.name == name:
            if machine.channel is None:
                raise UsageError(f"record: {name} plays recordings; give it a channel of the device to record from")
            return machine
    raise UsageError(
        f"record: the configuration has no machine {name!r}; it has {', '.join(m.name for m in config.machines)}"
    )


def _time(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"
