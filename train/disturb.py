"""The same recordings in noise, and as another gain would have recorded them: how much of that a detector stands.

What the noise is like, how loud and how the gain lies depends on the seed and the clip's name alone.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import soundfile
from tqdm import tqdm

from edge_asd.audio.recording import find_recordings, probe, read_blocks
from edge_asd.errors import RecordingError, UsageError
from edge_asd.logmel import Float32Array

from .corpus import Clip, CorpusError

WHITE, PINK = "white", "pink"


@dataclass(frozen=True)
class Disturbance:
    """What is done to a clip."""

    snr_db: float | None = None
    """Mean power of the clip over that of the noise added to it; None adds none."""
    gain_db: float = 0.0
    """Each clip is made louder or quieter by a gain drawn evenly from plus or minus so much."""
    noise: str | Path = PINK
    """``white``, ``pink`` (as much power in every octave), or a recording, or a folder of them, to draw from."""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.snr_db is not None and not -60 <= self.snr_db <= 100:
            raise UsageError(f"an SNR of {self.snr_db:g} dB is not from -60 to 100")
        if not 0 <= self.gain_db <= 40:
            raise UsageError(f"a gain jitter of {self.gain_db:g} dB is not from 0 to 40")

    def apply(self, samples: Float32Array, sample_rate: int, name: str) -> Float32Array:
        """A disturbed clip.

        Args:
            samples: shape ``[sample]``. Silence stays without noise: there is no power to measure it against.
            sample_rate: Hz.
            name: of the clip.

        Raises:
            RecordingError: the noise cannot be read.
        """
        rng = np.random.default_rng([self.seed, zlib.crc32(name.encode())])
        gain = 10 ** (rng.uniform(-self.gain_db, self.gain_db) / 20)
        mixed = samples.astype(np.float64)
        if self.snr_db is not None:
            noise = self._noise(samples.size, sample_rate, rng)
            wanted = np.sqrt(np.mean(mixed**2)) * 10 ** (-self.snr_db / 20)
            mixed = mixed + noise * (wanted / max(float(np.sqrt(np.mean(noise**2))), 1e-12))
        return (mixed * gain).astype(np.float32)

    def _noise(self, size: int, sample_rate: int, rng: np.random.Generator) -> np.ndarray:
        if self.noise == WHITE:
            return rng.normal(size=size)
        if self.noise == PINK:
            return _pink(size, rng)
        files = _noise_files(Path(self.noise))
        sound = _sound(files[rng.integers(len(files))], sample_rate)
        return np.take(sound, np.arange(size) + rng.integers(sound.size), mode="wrap").astype(np.float64)


def disturbed(clips: Sequence[Clip], disturbance: Disturbance, folder: Path, *, title: str) -> list[Clip]:
    """Disturbed copies of clips, in the same order.

    Args:
        clips: whose names must differ.
        disturbance: what is done.
        folder: to write to; WAV files of 32-bit floats, so that nothing clips.
        title: of the progress bar.

    Raises:
        CorpusError: none of them, or no noise, can be read.
    """
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for clip in (progress := tqdm(clips, desc=title, unit="clip", leave=False)):
        try:
            rate = probe(clip.path).sample_rate
            samples = np.concatenate(list(read_blocks(clip.path, sample_rate=rate)))
        except RecordingError as error:
            progress.write(f"left out: {error}")
            continue
        try:
            samples = disturbance.apply(samples, rate, clip.path.name)
        except RecordingError as error:
            raise CorpusError(f"noise: {error}") from None
        path = folder / clip.path.with_suffix(".wav").name
        soundfile.write(path, samples, rate, subtype="FLOAT")
        made.append(replace(clip, path=path))
    if not made:
        raise CorpusError(f"{clips[0].path.parent}: none of its {len(clips)} recordings can be read")
    return made


def _pink(size: int, rng: np.random.Generator) -> np.ndarray:
    """Noise whose power falls with the frequency, 3 dB an octave, made in the spectrum."""
    spectrum = rng.normal(size=size // 2 + 1) + 1j * rng.normal(size=size // 2 + 1)
    return np.fft.irfft(spectrum / np.sqrt(np.maximum(np.arange(spectrum.size), 1)), n=size)


@lru_cache(maxsize=4)
def _noise_files(path: Path) -> list[Path]:
    return find_recordings([path])


@lru_cache(maxsize=16)
def _sound(path: Path, sample_rate: int) -> Float32Array:
    sound: Float32Array = np.concatenate(list(read_blocks(path, sample_rate=sample_rate)))
    return sound
