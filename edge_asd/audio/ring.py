"""The last seconds of a machine's sound in memory, as 16-bit samples, from its windows."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_asd.audio.windows import Window
from edge_asd.logmel import Float32Array

_FULL_SCALE = 32_768.0


@dataclass(frozen=True)
class Clip:
    """A stretch of a stream."""

    start: int
    """Position of its first sample, which was heard."""
    samples: NDArray[np.int16]
    """Shape ``[sample]``; zeros where nothing was heard."""
    gaps: list[tuple[int, int]]
    """From and to, in samples of the clip, where samples were lost or belong to no window."""


class SoundRing:
    """What was heard of one machine last; takes 2 bytes a sample.

    It is filled from the windows in their order, so that it ends exactly where the window ends that is looked at.
    Samples of a 16-bit converter at the windows' own rate are kept exactly; others are rounded.
    """

    def __init__(self, seconds: float, sample_rate: int) -> None:
        """``seconds`` are kept."""
        self.seconds = seconds
        self._kept = round(seconds * sample_rate)
        self._pieces: deque[tuple[int, NDArray[np.int16]]] = deque()
        self._end = 0

    def hear(self, window: Window) -> None:
        """Take what is new in the next window; of one that a gap cut short, what came before the gap.

        One that came too late has no sound any more: what no other window holds of it is a gap.
        """
        if not window.has_sound:
            return
        end = window.start + window.samples.size - window.lost  # what was lost is always its end
        new = min(end - self._end, end - window.start)
        if new <= 0:
            return
        stop = end - window.start
        self._pieces.append((end - new, _16_bit(window.samples[stop - new : stop])))
        self._end = end
        oldest = end - self._kept
        while self._pieces[0][0] + self._pieces[0][1].size <= oldest:
            self._pieces.popleft()
        at, piece = self._pieces[0]
        if at < oldest:
            self._pieces[0] = oldest, piece[oldest - at :].copy()  # a view would keep the whole

    def clip(self, start: int, end: int) -> Clip | None:
        """Samples from ``start`` (or from where they were heard) up to ``end``; None where nothing was heard."""
        pieces = [(at, piece) for at, piece in self._pieces if at < end and at + piece.size > start]
        if not pieces:
            return None
        start, end = max(start, pieces[0][0]), min(end, self._end)
        samples = np.zeros(end - start, np.int16)
        gaps, done = [], start
        for at, piece in pieces:
            first, last = max(at, start), min(at + piece.size, end)
            samples[first - start : last - start] = piece[first - at : last - at]
            if first > done:
                gaps.append((done - start, first - start))
            done = last
        return Clip(start, samples, gaps)


def _16_bit(samples: Float32Array) -> NDArray[np.int16]:
    exact: NDArray[np.int16] = np.clip(np.rint(samples * _FULL_SCALE), -_FULL_SCALE, _FULL_SCALE - 1.0).astype(np.int16)
    return exact
