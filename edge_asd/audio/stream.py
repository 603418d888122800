"""From a device's stream to the windows of its machines: channels, health, resampling, cutting."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np
import soxr

from edge_asd.audio.gain_jump import GainJump
from edge_asd.audio.health import Finding, SignalHealth
from edge_asd.audio.ledger import Stretch
from edge_asd.audio.windows import Window, WindowCutter
from edge_asd.logmel import Float32Array

_KEEP_SECONDS = 5.0
"""Beyond a window, how far back health can be asked: what the resampler holds back, and the second before a jump."""


class MachineStream:
    """One channel at the device's rate in, the windows of one machine out."""

    def __init__(self, cutter: WindowCutter, sample_rate: int) -> None:
        """
        Args:
            cutter: cuts at ``sample_rate``.
            sample_rate: Hz, the detectors'.
        """
        self.cutter, self.sample_rate = cutter, sample_rate
        self._heard = self._lost = 0
        self._rate = self._origin = 0
        self._health: SignalHealth | None = None
        self._resampler: soxr.ResampleStream | None = None

    def push(self, start: int, rate: int, samples: Float32Array) -> Iterator[Window]:
        """Take samples of the device, shape ``[sample]``. Exhaust the iterator.

        Args:
            start: position of the first, counted at ``rate`` from the start of the stream, lost ones included.
            rate: Hz; may differ from the last only after a loss.
            samples: without NaN.
        """
        if rate != self._rate:
            self._rate, self._origin = rate, start
            seconds = self.cutter.window / self.sample_rate + _KEEP_SECONDS
            self._health = SignalHealth(rate, seconds)
        assert self._health is not None  # made with the rate
        self._health.push(samples)
        if rate != self.sample_rate:
            if self._resampler is None:
                self._resampler = _resampler(rate, self.sample_rate)
            samples = self._resampler.resample_chunk(samples)
        yield from self._cut(samples)

    def push_lost(self, start: int, rate: int, frames: int) -> Iterator[Window]:
        """Take a gap of the device's stream. Exhaust the iterator."""
        if self._resampler is not None:
            # What the resampler holds back belongs before the gap; after it, it starts anew.
            yield from self._cut(self._resampler.resample_chunk(np.zeros(0, np.float32), last=True))
            self._resampler = None
        if self._health is not None:
            self._health.push_lost(max(1, round(frames * self._rate / rate)))
        # By position, not by length: rounding must not add up. A sample at least, since a gap must leave its mark.
        lost = max(1, round((start + frames) * self.sample_rate / rate) - self.cutter.position)
        self._lost += lost
        yield from self.cutter.push_lost(lost)

    def take_counts(self) -> tuple[int, int]:
        """Samples at ``sample_rate`` that were heard and that were lost since this was asked last."""
        counts = self._heard, self._lost
        self._heard = self._lost = 0
        return counts

    def _cut(self, samples: Float32Array) -> Iterator[Window]:
        self._heard += samples.size
        for window in self.cutter.push(samples):
            begin, end = self.at_device(window.start), self.at_device(window.start + window.samples.size)
            assert self._health is not None  # as above
            finding = None if window.lost else self._health.verdict(begin - self._origin, end - self._origin)
            yield replace(window, finding=finding)

    def at_device(self, position: int) -> int:
        """A position of the cutter, in samples of the device."""
        return round(position * self._rate / self.sample_rate)


class DeviceStreams:
    """All machines of one device."""

    def __init__(self, machines: Mapping[str, tuple[int, MachineStream]]) -> None:
        """``machines``: by name, each with its channel, counted from 1."""
        self._machines = dict(machines)
        self._jump: GainJump | None = None
        self._rate = self._channels = self._origin = 0
        """Of the device, as it is heard now, and where in its stream that began."""

    def push(self, stretch: Stretch) -> Iterator[tuple[str, Window]]:
        """Windows that end within a stretch, each with the name of its machine. Exhaust the iterator."""
        samples = stretch.samples
        if samples is not None and not np.isfinite(samples).all():
            samples = None  # a driver that gives such numbers has given no sound
        if samples is not None and (stretch.rate, samples.shape[1]) != (self._rate, self._channels):
            self._rate, self._channels, self._origin = stretch.rate, samples.shape[1], stretch.start
            seconds = max(s.cutter.window / s.sample_rate for _, s in self._machines.values()) + _KEEP_SECONDS
            self._jump = GainJump(stretch.rate, samples.shape[1], seconds)
        if self._jump is not None and samples is None:
            self._jump.push_lost(max(1, round(stretch.frames * self._rate / stretch.rate)))
        elif self._jump is not None and samples is not None:
            self._jump.push(samples)
        for name, (channel, stream) in self._machines.items():
            if samples is None:
                windows = stream.push_lost(stretch.start, stretch.rate, stretch.frames)
            else:
                windows = stream.push(stretch.start, stretch.rate, np.ascontiguousarray(samples[:, channel - 1]))
            for window in windows:
                yield name, self._judged(window, stream)

    def _judged(self, window: Window, stream: MachineStream) -> Window:
        if window.lost or window.finding is not None or self._jump is None:
            return window
        begin, end = stream.at_device(window.start), stream.at_device(window.start + window.samples.size)
        finding: Finding | None = self._jump.verdict(begin - self._origin, end - self._origin)
        return replace(window, finding=finding) if finding else window


def _resampler(rate: int, sample_rate: int) -> soxr.ResampleStream:
    return soxr.ResampleStream(rate, sample_rate, 1, dtype="float32", quality="HQ")
