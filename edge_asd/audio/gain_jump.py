"""Finds a step of an input's gain: every channel of a device louder or quieter at once, by the same, in all bands.

A machine that starts or becomes louder changes its own channel, or its own bands, or goes on changing. A knob, an
automatic gain or a new attenuator changes everything, and once.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np

from edge_asd.audio.health import CHUNKS_PER_SECOND, ChunkBuffer, Finding, check_arguments
from edge_asd.logmel import Float32Array, Float64Array

JUMP_DB = 5.0
"""A step of 6 dB shall be found; 1 dB is left to what the machine does at the same time."""
JUMP_CHANNELS_DB = 3.0
"""Chosen: the steps of any two channels differ by no more."""
JUMP_BANDS_DB, JUMP_BANDS_SHARE = 2.0, 0.75
"""So many of all channels' bands are so near to the middle step of their channel; a weak band may be the noise of the
converter. Measured: 1.75 dB loses more true jumps than it spares false ones, 3 dB takes more drones for jumps."""
JUMP_KEPT = 0.5
"""The 0.3 s beside the step differ by at least this share of it, and so do the first and the last 0.3 s: it was sharp,
and it lasts. Measured, all of the above together, on 880 real recordings that two microphones hear: of the 474 that are
not of drones none is taken for a jump, of 406 drones (whose propellers change speed) 5; true jumps of 9 dB or more are
found in 98 of 100, of 6 dB in 9 of 10."""
LOWEST_BAND_HZ = 62.5
HIGHEST_BAND_HZ = 16_000.0
"""Octaves from and to here, so far as the device reaches: 6 at 8 kHz, 7 at 16 kHz, 8 at 48 kHz."""
_SIDE = CHUNKS_PER_SECOND
"""Chunks of the second before and of the second after."""
_PART = 3
"""Chunks that ``JUMP_KEPT`` compares. Their median bears one that differs: steps 0.4 s apart may pass, 0.5 s not."""
_ZONE = 2
"""Chunks between them, 0.2 s, in which all channels make their step."""
_SPAN = _SIDE + _ZONE + _SIDE


@dataclass(frozen=True)
class _Jump:
    position: int
    """Middle of the 0.2 s in which it happened, samples."""
    step_db: float
    channels: int


class GainJump:
    """All channels of a device: did its gain change?

    A machine that every microphone hears, and that grows louder in all its bands within a moment and stays so, cannot
    be told from a gain. One that starts or brakes in the same second may hide a jump.
    """

    def __init__(self, sample_rate: int, channels: int, keep_seconds: float) -> None:
        """
        Args:
            sample_rate: of the device, Hz.
            channels: how many it has; with one, nothing is ever found.
            keep_seconds: how far back ``verdict`` may be asked, counted from the last sample pushed.

        Raises:
            ValueError: a rate below 1000 Hz, no channel, or nothing to keep.
        """
        check_arguments(sample_rate, keep_seconds)
        if channels < 1:
            raise ValueError(f"{channels} channels: must be at least 1")
        self._rate = sample_rate
        self._keep = round(keep_seconds * sample_rate)
        self._chunk = sample_rate // CHUNKS_PER_SECOND
        self._buffer = ChunkBuffer(self._chunk, channels=(channels,))
        # Without a taper, a strong tone would leak into every band and carry all of them with it.
        self._taper = np.hanning(self._chunk).astype(np.float32)
        octaves = int(np.log2(min(HIGHEST_BAND_HZ, sample_rate / 2) / LOWEST_BAND_HZ) + 1e-9)
        edges_hz = LOWEST_BAND_HZ * 2.0 ** np.arange(octaves + 1)
        self._edges = np.round(edges_hz * self._chunk / sample_rate).astype(np.intp)
        self._powers: deque[Float64Array] = deque(maxlen=_SPAN)
        """Of the latest chunks without a gap between them, ``[channel, band]``; 0 in digital silence."""
        self._jumps: deque[_Jump] = deque()

    def push(self, block: Float32Array) -> None:
        """Sound as the device gave it, shape ``[frame, channel]``, any number of frames, all finite."""
        for start in self._buffer.push(block):
            if self._buffer.samples.shape[1] < 2:
                continue
            self._powers.append(self._measure())
            if len(self._powers) == _SPAN and (step := _step(np.array(self._powers))):
                position = start + self._chunk * (1 - _SIDE - _ZONE // 2)
                self._jumps.append(_Jump(position, *step))
            self._forget()

    def push_lost(self, count: int) -> None:
        """A gap of ``count`` frames. Nothing is compared across it."""
        if count > 0:
            self._buffer.push_lost(count)
            self._powers.clear()
            self._forget()

    def verdict(self, start: int, end: int) -> Finding | None:
        """A jump that touches the frames between two positions, counted in frames pushed and lost; None without one.

        A jump is known when the second after it has been heard. One that lies less than 1.1 s before ``end`` is
        therefore left to the next window, and one up to 1.1 s before ``start`` is reported here.
        """
        heard = (_SIDE + _ZONE // 2) * self._chunk
        jumps = [jump for jump in self._jumps if start < jump.position + heard <= end]
        if not jumps:
            return None
        largest = max(jumps, key=lambda jump: abs(jump.step_db))
        louder = "louder" if largest.step_db > 0 else "quieter"
        return Finding(
            "jump",
            f"all {largest.channels} channels {abs(largest.step_db):.0f} dB {louder} at once, in every band: "
            "the input's gain was changed",
        )

    def _measure(self) -> Float64Array:
        """Power in each octave of the chunk, ``[channel, band]``."""
        samples = np.ascontiguousarray(self._buffer.samples.T)
        spectrum = np.fft.rfft(samples * self._taper)[:, : self._edges[-1]]
        energy = spectrum.real**2 + spectrum.imag**2
        powers: Float64Array = np.add.reduceat(energy, self._edges[:-1], axis=1, dtype=np.float64)
        powers[np.all(samples == samples[:, :1], axis=1)] = 0.0
        return powers

    def _forget(self) -> None:
        while self._jumps and self._jumps[0].position < self._buffer.position - self._keep - 3 * self._rate:
            self._jumps.popleft()


def _step(powers: Float64Array) -> tuple[float, int] | None:
    """Step in dB between the second before and the second after, and on how many channels; None where there is none.

    Args:
        powers: of the chunks before, between and after, ``[chunk, channel, band]``.
    """
    is_silent = np.all(powers == 0.0, axis=2)
    # An input that nothing is connected to does not count; one that falls silent or wakes up is not a gain.
    live = ~np.all(is_silent, axis=0)
    if np.count_nonzero(live) < 2 or np.any(is_silent[:, live]):
        return None
    powers = powers[:, live]
    levels = _decibels(powers.sum(axis=2))
    before, after = levels[:_SIDE], levels[-_SIDE:]
    steps = _difference(before, after)
    # Of different sign they differ by 10 dB, which is more than channels may.
    if np.min(np.abs(steps)) < JUMP_DB or np.ptp(steps) > JUMP_CHANNELS_DB:
        return None
    for one, other in ((before[-_PART:], after[:_PART]), (before[:_PART], after[-_PART:])):
        if np.min(_difference(one, other) / steps) < JUMP_KEPT:
            return None
    bands = _decibels(powers)
    band_steps = _difference(bands[:_SIDE], bands[-_SIDE:])
    middle = _median(band_steps.T)
    # Else one loud tone in one band would do.
    if np.max(np.abs(middle - steps)) > JUMP_CHANNELS_DB:
        return None
    is_near = np.abs(band_steps - middle[:, None]) <= JUMP_BANDS_DB
    if np.mean(is_near) < JUMP_BANDS_SHARE:
        return None
    return float(np.mean(steps)), steps.size


def _decibels(powers: Float64Array) -> Float64Array:
    levels: Float64Array = 10.0 * np.log10(np.maximum(powers, np.finfo(np.float64).tiny))
    return levels


def _difference(before: Float64Array, after: Float64Array) -> Float64Array:
    """Of the medians over the chunks, which stand first: a knock in one of them is no step."""
    return _median(after) - _median(before)


def _median(levels: Float64Array) -> Float64Array:
    # As np.median along the first axis, which takes ten times as long for a few numbers.
    ordered = np.sort(levels, axis=0)
    median: Float64Array = 0.5 * (ordered[(len(levels) - 1) // 2] + ordered[len(levels) // 2])
    return median
