"""Cuts a stream of samples into windows by counting samples, whatever blocks they arrive in."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

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
    has_sound: bool = True
    """The samples are what was heard, see `without_sound`."""

    @property
    def level_dbfs(self) -> float | None:
        """Level of what was heard, see `edge_asd.audio.level.level_dbfs`; None where all was lost."""
        heard = self.samples.size - self.lost
        return level_dbfs(self.samples, heard) if heard > 0 else None

    def without_sound(self) -> Window:
        """For a window that will not be scored: of the same length and level, but it takes no memory."""
        power = np.mean(np.square(self.samples, dtype=np.float64))
        level = np.broadcast_to(np.float32(np.sqrt(power)), self.samples.shape)
        return replace(self, samples=level, has_sound=False)


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
        self._buffer = np.empty(window, np.float32)
        self._is_lost: NDArray[np.bool_] | None = None
        """Which samples of the buffer were lost; None while none was."""
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
        lost = 0 if self._is_lost is None else int(np.resize(self._is_lost[: self._filled], self.window).sum())
        return Window(0, samples, lost, is_repeated=True)

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
            if lost and self._is_lost is None:
                self._is_lost = np.zeros(self.window, np.bool_)
            if self._is_lost is not None:
                self._is_lost[stretch] = lost
            self._filled += used
            offset += used
            if self._filled == self.window:
                window = Window(self._start, self._buffer, self._lost())
                self._advance()
                yield window

    def _begin_anew(self) -> Iterator[Window]:
        """Here, after a gap; the window that was begun is given as it is."""
        lost = self._lost()
        if lost < self._filled and lost:
            yield Window(self._start, self._buffer[: self._filled].copy(), lost)
        self._start, self._filled, self._skip = self.position, 0, 0
        self._is_lost = None

    def _lost(self) -> int:
        return 0 if self._is_lost is None else int(self._is_lost[: self._filled].sum())

    def _advance(self) -> None:
        kept = max(0, self.window - self.hop)
        # The full buffer is the window's from now on. The pages of a new one come as it fills: while the windows of a
        # hundred machines wait, the buffers of the next ones take up next to nothing.
        full, self._buffer = self._buffer, np.empty(self.window, np.float32)
        self._buffer[:kept] = full[self.window - kept :]
        if self._is_lost is not None:
            left = self._is_lost[self.window - kept :]
            self._is_lost = np.concatenate([left, np.zeros(self.window - kept, np.bool_)]) if left.any() else None
        self._filled = kept
        self._skip = max(0, self.hop - self.window)
        self._start += self.hop
        self._windows += 1
