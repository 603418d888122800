"""Cuts a stream of samples into windows by counting samples, whatever blocks they arrive in."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from edge_asd.audio.health import Finding
from edge_asd.audio.level import level_dbfs
from edge_asd.logmel import Float32Array

WINDOW_SECONDS = 10.0
"""Length of a window everywhere in this project."""
MIN_HOP_SECONDS = 1.0


@dataclass(frozen=True)
class Window:
    """One window of one channel."""

    start: int
    """Index of its first sample, counted from the first sample of the stream, lost ones included."""
    samples: Float32Array
    """Shape ``[sample]``, full scale 1.0; zeros where samples were lost."""
    lost: int
    """How many of its samples were lost; a window with any is marked by this and not scored."""
    is_repeated: bool = False
    """The recording was shorter than a window and was repeated to fill it."""
    finding: Finding | None = None
    """What is wrong with its signal: a window with a finding is not scored."""

    @property
    def level_dbfs(self) -> float | None:
        """Level of what was heard, see `edge_asd.audio.level.level_dbfs`; None where all was lost."""
        heard = self.samples.size - self.lost
        return level_dbfs(self.samples, heard) if heard > 0 else None


class WindowCutter:
    """Samples in, windows out; windows begin at every multiple of the hop, counted from the end of the last gap.

    So a device that is back is heard again after one window, wherever in a window it was lost. A window that a gap has
    cut short is given as far as it came, marked by what was lost, if anything of it was heard.

    >>> cutter = WindowCutter(window=4, hop=2)
    >>> [w.start for w in cutter.push(np.zeros(7, np.float32))]
    [0, 2]
    """

    def __init__(self, window: int, hop: int) -> None:
        """
        Args:
            window: samples in a window.
            hop: samples from the start of a window to that of the next, 1 or more; more than ``window`` skips some.

        Raises:
            ValueError: a length below 1.
        """
        if window < 1 or hop < 1:
            raise ValueError(f"window of {window} and hop of {hop} samples: both must be at least 1")
        self.window = window
        self.hop = hop
        self._buffer = np.zeros(window, np.float32)
        self._is_lost = np.zeros(window, np.bool_)
        self._start = 0
        self._filled = 0
        self._skip = 0
        self._windows = 0
        self._is_in_gap = False

    @property
    def position(self) -> int:
        """Samples seen so far, lost ones included."""
        return self._start + self._filled - self._skip

    def repeated(self) -> Window | None:
        """What came so far, repeated to fill a window; None if a window was full already or nothing came."""
        if self._windows or not self._filled:
            return None
        samples = np.resize(self._buffer[: self._filled], self.window)
        lost = np.resize(self._is_lost[: self._filled], self.window)
        return Window(0, samples, int(lost.sum()), is_repeated=True)

    def push(self, samples: Float32Array) -> Iterator[Window]:
        """Windows that end within these samples, shape ``[sample]``, any number of them. Exhaust the iterator."""
        if self._is_in_gap and samples.size:
            self._is_in_gap = False
            yield from self._begin_anew()
        yield from self._feed(samples, lost=False)

    def push_lost(self, count: int) -> Iterator[Window]:
        """Windows that end within a gap of ``count`` lost samples. Exhaust the iterator."""
        self._is_in_gap |= count > 0
        for begin in range(0, count, self.window):
            yield from self._feed(np.zeros(min(self.window, count - begin), np.float32), lost=True)

    def _feed(self, samples: Float32Array, *, lost: bool) -> Iterator[Window]:
        offset = 0
        while offset < samples.size:
            if self._skip:
                used = min(self._skip, samples.size - offset)
                self._skip -= used
                offset += used
                continue
            used = min(self.window - self._filled, samples.size - offset)
            stretch = slice(self._filled, self._filled + used)
            self._buffer[stretch] = samples[offset : offset + used]
            self._is_lost[stretch] = lost
            self._filled += used
            offset += used
            if self._filled == self.window:
                window = Window(self._start, self._buffer.copy(), int(self._is_lost.sum()))
                self._advance()
                yield window

    def _begin_anew(self) -> Iterator[Window]:
        """Here, after a gap; the window that was begun is given as it is."""
        lost = int(self._is_lost[: self._filled].sum())
        if lost < self._filled and lost:
            yield Window(self._start, self._buffer[: self._filled].copy(), lost)
        self._start, self._filled, self._skip = self.position, 0, 0

    def _advance(self) -> None:
        kept = max(0, self.window - self.hop)
        self._buffer[:kept] = self._buffer[self.window - kept :].copy()
        self._is_lost[:kept] = self._is_lost[self.window - kept :].copy()
        self._filled = kept
        self._skip = max(0, self.hop - self.window)
        self._start += self.hop
        self._windows += 1
