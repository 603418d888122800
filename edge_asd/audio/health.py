"""Finds a sick microphone: silence, a driver that repeats itself, clipping, an offset.

A sick microphone is a finding of its own and not an anomaly of the machine. The sound is judged as the device gives it,
before resampling, in chunks of 0.1 s. Chunks are counted from the stream's start or from the end of the last gap, so
that a verdict is the same in whatever blocks the sound arrived. ``gain_jump.py`` finds the fifth reason.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from edge_asd.audio.repetition import STUCK_RUN_SECONDS, Repetitions
from edge_asd.logmel import Float32Array

SuspectReason = Literal["silence", "clipping", "dc", "stuck", "jump"]

CHUNKS_PER_SECOND = 10
SILENCE_SECONDS = 1.0
"""Chosen. An analogue input never gives the same value twice for long: 6 samples in a row were the most in 880 real
recordings."""
CLIPPED_CHUNK_SHARE = 0.01
"""Chosen: a chunk is clipped when this share of its samples lies exactly at its maximum or at its minimum. The tops
of a rounded 16-bit tone come to 0.005 at ``CLIPPED_PEAK``; of 880 real recordings 27 are as loud and come to 0.0006."""
CLIPPED_PEAK = 0.25
"""Chosen: -12 dB. Inputs that clip lower exist, but so do quiet sounds of few different values."""
CLIPPED_WINDOW_SHARE = 0.001
"""Chosen: 10 ms in 10 s; a few knocks that touch full scale stay below it."""
DC_OFFSET = 0.02
"""Chosen. 880 real recordings have at most 0.00002, but their recorders took the offset out; cheap inputs are known for
some thousandths. A tone of full scale and 2 Hz leaves at most 0.016 in 10 s."""


@dataclass(frozen=True)
class Finding:
    """What is wrong with an input."""

    reason: SuspectReason
    text: str
    """One line for a technician, with the figure."""


class ChunkBuffer:
    """Cuts a stream into chunks of equal length, whatever blocks it arrives in; a gap starts a new count.

    What remains before a gap and is shorter than a chunk is dropped.
    """

    def __init__(self, chunk: int, history: int = 0, channels: tuple[int, ...] = ()) -> None:
        """
        Args:
            chunk: samples in a chunk.
            history: samples before the chunk that are kept with it.
            channels: shape of one sample, ``()`` or ``(channels,)``.
        """
        self.samples = np.zeros((history + chunk, *channels), np.float32)
        """The history, then the chunk; shape ``[sample]`` or ``[sample, channel]``."""
        self.known = 0
        """How much of the history is sound of this side of the last gap."""
        self.position = 0
        """Samples seen so far, lost ones included."""
        self._chunk, self._history, self._filled = chunk, history, 0

    def push(self, block: Float32Array) -> Iterator[int]:
        """Position of each chunk's first sample, while ``samples`` holds the chunk. Exhaust the iterator."""
        offset = 0
        while offset < len(block):
            used = min(self._chunk - self._filled, len(block) - offset)
            at = self._history + self._filled
            # Adding 0 makes 0.0 of -0.0: equal values shall have equal bits.
            np.add(block[offset : offset + used], np.float32(0.0), out=self.samples[at : at + used])
            self._filled += used
            self.position += used
            offset += used
            if self._filled == self._chunk:
                yield self.position - self._chunk
                self.samples[: self._history] = self.samples[self._chunk :].copy()
                self.known = min(self._history, self.known + self._chunk)
                self._filled = 0

    def push_lost(self, count: int) -> None:
        """A gap of ``count`` samples; 0 is none."""
        if count > 0:
            self.position += count
            self.known = self._filled = 0


@dataclass(frozen=True)
class _Chunk:
    start: int
    end: int
    total: float
    """Sum of its samples."""
    clipped: int
    head: int
    """Samples equal to the first, from the first on."""
    tail: int
    """Samples equal to the last, up to the last."""
    value: float
    """Of its first sample."""
    is_continued: bool
    """Its first sample equals the one before it."""
    repeated: int
    """Samples at which it repeats earlier sound."""
    lag: int


class SignalHealth:
    """The sound of one channel: is it what a working microphone gives?

    >>> health = SignalHealth(48_000, keep_seconds=10)
    >>> health.push(np.zeros(480_000, np.float32))
    >>> health.verdict(0, 480_000).text
    'digital silence for 10.0 s: the input is muted or not connected'
    """

    def __init__(self, sample_rate: int, keep_seconds: float) -> None:
        """
        Args:
            sample_rate: of the device, Hz.
            keep_seconds: how far back ``verdict`` may be asked, counted from the last sample pushed.

        Raises:
            ValueError: a rate below 1000 Hz, or nothing to keep.
        """
        check_arguments(sample_rate, keep_seconds)
        self._rate = sample_rate
        self._keep = round(keep_seconds * sample_rate)
        chunk = sample_rate // CHUNKS_PER_SECOND
        self._repetitions = Repetitions(sample_rate, chunk)
        self._buffer = ChunkBuffer(chunk, self._repetitions.history)
        self._chunks: deque[_Chunk] = deque()

    def push(self, samples: Float32Array) -> None:
        """Sound as the device gave it, shape ``[sample]``, full scale 1.0, any number of samples, all finite."""
        for start in self._buffer.push(samples):
            self._chunks.append(self._judge(start))
            self._forget()

    def push_lost(self, count: int) -> None:
        """A gap of ``count`` samples. Nothing is compared across it."""
        self._buffer.push_lost(count)
        self._forget()

    def verdict(self, start: int, end: int) -> Finding | None:
        """What is wrong between two positions, counted in samples pushed and lost; None where nothing is.

        Uses the chunks that lie wholly between them. Of several reasons it names the first of: silence (one value for
        ``SILENCE_SECONDS``), stuck (earlier sound, exactly), clipping (flat tops), dc (an offset of the mean). A test
        tone made by a computer repeats exactly too and is called stuck: no microphone gives one.
        """
        chunks = [chunk for chunk in self._chunks if start <= chunk.start and chunk.end <= end]
        if not chunks:
            return None
        samples = sum(chunk.end - chunk.start for chunk in chunks)
        silent, value = _longest_constant(chunks)
        if silent >= SILENCE_SECONDS * self._rate:
            what = "digital silence" if value == 0.0 else f"nothing but the value {value:.4f}"
            return Finding("silence", f"{what} for {silent / self._rate:.1f} s: the input is muted or not connected")
        if stuck := max(chunks, key=lambda chunk: chunk.repeated).lag:
            seconds = max(STUCK_RUN_SECONDS, sum(chunk.repeated for chunk in chunks) / self._rate)
            ms = 1e3 * stuck / self._rate
            return Finding("stuck", f"{seconds:.2f} s repeat exactly what came {ms:.1f} ms before: the driver is stuck")
        clipped = sum(chunk.clipped for chunk in chunks) / samples
        if clipped >= CLIPPED_WINDOW_SHARE:
            return Finding("clipping", f"{clipped:.1%} of the samples are clipped: the input's gain is too high")
        mean = sum(chunk.total for chunk in chunks) / samples
        if abs(mean) >= DC_OFFSET:
            return Finding("dc", f"an offset of {mean:+.3f} of full scale: the input or its supply is faulty")
        return None

    def _judge(self, start: int) -> _Chunk:
        known = self._buffer.known
        samples = self._buffer.samples[self._repetitions.history :]
        before = self._buffer.samples[self._repetitions.history - 1]
        changes = np.flatnonzero(samples[1:] != samples[:-1])
        head, tail = samples.size, samples.size
        if changes.size:
            head, tail = int(changes[0]) + 1, samples.size - 1 - int(changes[-1])
        repeated, lag = self._repetitions.search(self._buffer.samples, known, start)
        return _Chunk(
            start=start,
            end=start + samples.size,
            total=float(np.sum(samples, dtype=np.float64)),
            clipped=_clipped(samples) if changes.size else 0,
            head=head,
            tail=tail,
            value=float(samples[0]),
            is_continued=known > 0 and bool(before == samples[0]),
            repeated=repeated,
            lag=lag,
        )

    def _forget(self) -> None:
        while self._chunks and self._chunks[0].start < self._buffer.position - self._keep - self._rate:
            self._chunks.popleft()


def check_arguments(sample_rate: int, keep_seconds: float) -> None:
    """Raises ValueError for a rate below 1000 Hz, or nothing to keep."""
    if sample_rate < 1000 or not keep_seconds > 0:
        raise ValueError(f"{sample_rate} Hz, {keep_seconds} s to keep: at least 1000 Hz, and more than 0 s")


def _longest_constant(chunks: list[_Chunk]) -> tuple[int, float]:
    """Samples of the longest stretch of one value, and the value; stretches within one chunk are left out."""
    longest, value, run, end = 0, 0.0, 0, -1
    for chunk in chunks:
        is_whole = chunk.head == chunk.end - chunk.start
        # What the chunk continues must lie in the window too, and directly before it.
        run = chunk.head + (run if chunk.is_continued and chunk.start == end else 0)
        if run > longest:
            longest, value = run, chunk.value
        run = run if is_whole else chunk.tail
        end = chunk.end
    return longest, value


def _clipped(samples: Float32Array) -> int:
    """How many samples of a chunk lie on flat tops."""
    clipped = 0
    for extreme in (samples.max(), samples.min()):
        mass = int(np.count_nonzero(samples == extreme))
        if abs(extreme) >= CLIPPED_PEAK and mass >= CLIPPED_CHUNK_SHARE * samples.size:
            clipped += mass
    return clipped
