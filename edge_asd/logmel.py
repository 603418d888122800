"""Log-Mel spectrogram of one window of sound, in numpy.

The one log-Mel of training, replay and the daemon. It follows librosa's ``melspectrogram`` (centred frames, zero
padding, periodic Hann window, Slaney mel scale and area normalisation) followed by ``10 log10(max(amin, S))``; librosa
itself is the reference in the tests. All powers are float64, summed without BLAS, so that a window has one log-Mel,
to the bit, whatever the number of threads.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

Float32Array = NDArray[np.float32]
Float64Array = NDArray[np.float64]

# Slaney's mel scale (Auditory Toolbox, 1998): linear below 1 kHz, logarithmic above.
_HZ_PER_LINEAR_MEL = 200.0 / 3.0
_BREAK_HZ = 1000.0
_BREAK_MEL = _BREAK_HZ / _HZ_PER_LINEAR_MEL
_LOG_STEP = np.log(6.4) / 27.0

_DB_PER_NEPER = 10.0 / np.log(10.0)
"""Of power."""
_BLOCK_FRAMES = 32
"""Frames transformed at a time: what they need stays in the processor's cache, which halves the time of a window."""


@dataclass(frozen=True)
class LogMelParameters:
    """What defines a log-Mel; a detector file carries its own."""

    sample_rate: int = 16_000
    """Hz."""
    n_fft: int = 1024
    """Samples in a frame."""
    hop_length: int = 512
    """Samples from frame to frame."""
    n_mels: int = 128
    """Mel bands."""
    fmin: float = 0.0
    """Lower edge of the lowest band, Hz."""
    fmax: float = 8000.0
    """Upper edge of the highest band, Hz."""
    amin: float = 1e-10
    """Smallest power that is told apart from silence; sets the floor, -100 dB."""

    def __post_init__(self) -> None:
        if not 8_000 <= self.sample_rate <= 192_000:
            raise ValueError(f"sample_rate {self.sample_rate} is outside 8000 to 192000 Hz")
        if not 64 <= self.n_fft <= 16_384 or self.n_fft % 2:
            raise ValueError(f"n_fft {self.n_fft} is not an even number from 64 to 16384")
        if not 1 <= self.hop_length <= self.n_fft:
            raise ValueError(f"hop_length {self.hop_length} is not between 1 and n_fft")
        if not 1 <= self.n_mels <= 512:
            raise ValueError(f"n_mels {self.n_mels} is not between 1 and 512")
        if not 0 <= self.fmin < self.fmax <= self.sample_rate / 2:
            raise ValueError(f"bands from {self.fmin} to {self.fmax} Hz do not fit a rate of {self.sample_rate} Hz")
        if not 1e-20 <= self.amin < 1:
            raise ValueError(f"amin {self.amin} is not between 1e-20 and 1")

    @property
    def floor_db(self) -> float:
        """The value of a silent cell, dB."""
        return float(10.0 * np.log10(self.amin))

    def frames(self, samples: int) -> int:
        """Frames of a window of ``samples`` samples."""
        return 1 + samples // self.hop_length

    def as_dict(self) -> dict[str, Any]:
        """For the detector's metadata, with the choices that are not parameters spelled out."""
        return asdict(self) | FIXED_CHOICES


FIXED_CHOICES = {
    "window": "hann",
    "center": True,
    "pad_mode": "constant",
    "mel_scale": "slaney",
    "norm": "slaney",
    "power": 2,
    "top_db": None,
}
"""What every log-Mel here has in common; a detector that says otherwise is refused."""


def hz_to_mel(hz: Float64Array) -> Float64Array:
    """Slaney mel of frequencies in Hz; same shape."""
    linear = hz / _HZ_PER_LINEAR_MEL
    logarithmic = _BREAK_MEL + np.log(np.maximum(hz, _BREAK_HZ) / _BREAK_HZ) / _LOG_STEP
    return np.where(hz >= _BREAK_HZ, logarithmic, linear)


def mel_to_hz(mel: Float64Array) -> Float64Array:
    """Frequencies in Hz of Slaney mels; same shape."""
    linear = mel * _HZ_PER_LINEAR_MEL
    logarithmic = _BREAK_HZ * np.exp(_LOG_STEP * (mel - _BREAK_MEL))
    return np.where(mel >= _BREAK_MEL, logarithmic, linear)


def mel_frequencies(parameters: LogMelParameters) -> Float64Array:
    """Edges and centres of the bands, Hz, shape ``[n_mels + 2]``: band k runs from k to k + 2, its peak is at k + 1."""
    low, high = hz_to_mel(np.array([parameters.fmin, parameters.fmax]))
    return mel_to_hz(np.linspace(low, high, parameters.n_mels + 2))


@dataclass(frozen=True)
class _Slopes:
    """The triangular filters, cut at their edges and centres: between two of these one filter rises, one falls."""

    rising: Float64Array
    """Weight of each bin in the filter that rises there, ``[n_fft / 2 + 1]``; one less it is that of the falling."""
    starts: list[int]
    """First bin behind each edge, ``[n_mels + 2]``."""
    height: Float64Array
    """Of each filter, ``[n_mels, 1]``: unit area (``norm='slaney'``)."""


@lru_cache(maxsize=8)
def _slopes(parameters: LogMelParameters) -> _Slopes:
    edges = mel_frequencies(parameters)
    bins = np.fft.rfftfreq(parameters.n_fft, 1.0 / parameters.sample_rate)
    starts = np.searchsorted(edges, bins, side="right")  # how many edges lie below each bin
    slope = np.clip(starts - 1, 0, parameters.n_mels)
    return _Slopes(
        rising=(bins - edges[slope]) / (edges[slope + 1] - edges[slope]),
        starts=np.searchsorted(starts, np.arange(1, parameters.n_mels + 3)).tolist(),
        height=(2.0 / (edges[2:] - edges[:-2]))[:, None],
    )


@lru_cache(maxsize=8)
def _hann(length: int) -> Float64Array:
    return 0.5 - 0.5 * np.cos(2.0 * np.pi * np.arange(length) / length)


def power_spectrogram(samples: NDArray[np.floating[Any]], parameters: LogMelParameters) -> Iterator[Float64Array]:
    """Squared magnitude of the short-time Fourier transform.

    Yields:
        Some frames at a time, ``[frame, n_fft / 2 + 1]``, in an array that the next ones overwrite.
    """
    n_fft, bins = parameters.n_fft, parameters.n_fft // 2 + 1
    padded = np.zeros(samples.size + n_fft)
    padded[n_fft // 2 : n_fft // 2 + samples.size] = samples
    frames = np.lib.stride_tricks.sliding_window_view(padded, n_fft)[:: parameters.hop_length]
    windowed, spectrum = np.empty((_BLOCK_FRAMES, n_fft)), np.empty((_BLOCK_FRAMES, bins), np.complex128)
    power, imaginary = np.empty((_BLOCK_FRAMES, bins)), np.empty((_BLOCK_FRAMES, bins))
    for begin in range(0, len(frames), _BLOCK_FRAMES):
        block = frames[begin : begin + _BLOCK_FRAMES]
        count = len(block)
        np.multiply(block, _hann(n_fft), out=windowed[:count])
        np.fft.rfft(windowed[:count], axis=1, out=spectrum[:count])
        np.square(spectrum[:count].real, out=power[:count])
        power[:count] += np.square(spectrum[:count].imag, out=imaginary[:count])
        yield power[:count]


def mel_spectrogram(power: Iterable[Float64Array], frames: int, parameters: LogMelParameters) -> Float64Array:
    """Power in each band.

    Args:
        power: blocks of frames ``[frame, n_fft / 2 + 1]``.
        frames: in all of them.
        parameters: the detector's.

    Returns:
        Shape ``[n_mels, frame]``.
    """
    slopes = _slopes(parameters)
    parts = np.empty((len(slopes.rising), 2, frames))
    begin = 0
    for block in power:
        rising = block * slopes.rising
        parts[:, 0, begin : begin + len(block)] = rising.T
        np.subtract(block, rising, out=rising)
        parts[:, 1, begin : begin + len(block)] = rising.T
        begin += len(block)
    # Each slope spans a few bins only; summing them by themselves is faster than BLAS and always in the same order.
    sums = np.empty((parameters.n_mels + 1, 2, frames))
    for k, (start, stop) in enumerate(pairwise(slopes.starts)):
        np.add.reduce(parts[start:stop], axis=0, out=sums[k])
    mel = sums[:-1, 0] + sums[1:, 1]
    mel *= slopes.height
    return mel


def log_mel(samples: NDArray[np.floating[Any]], parameters: LogMelParameters) -> Float32Array:
    """Log-Mel of a whole window.

    Args:
        samples: one channel, shape ``[sample]``, full scale 1.0, at ``parameters.sample_rate``.
        parameters: the detector's.

    Returns:
        dB re full-scale power, float32, shape ``[n_mels, 1 + samples // hop_length]``.

    Raises:
        ValueError: the samples are not one channel, none at all, or hold NaN or infinity.
    """
    if samples.ndim != 1 or samples.size == 0:
        raise ValueError(f"expected one channel of samples, got shape {samples.shape}")
    if not np.isfinite(samples).all():
        raise ValueError("the samples hold NaN or infinity")
    frames = parameters.frames(samples.size)
    mel = mel_spectrogram(power_spectrogram(samples, parameters), frames, parameters)
    mel *= 1.0 / parameters.amin  # the logarithm of 1 is exact, so silence is the floor to the bit
    # Only now in float32, where a logarithm takes a fraction of the time; what is rounded is some 1e-5 dB.
    decibels = np.maximum(mel, 1.0, out=mel).astype(np.float32)
    np.log(decibels, out=decibels)  # takes half of log10's time
    decibels *= np.float32(_DB_PER_NEPER)
    decibels += np.float32(parameters.floor_db)
    return decibels
