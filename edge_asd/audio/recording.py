"""Recordings: WAV and FLAC files of any rate and channel count, read in blocks.

The one reader of replay, the daemon and training. A recording is never held in memory as a whole: blocks of one second
are decoded by libsndfile, one channel is taken, and a stateful soxr stream brings it to the detector's sample rate.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr

from edge_asd.audio.wav_header import check_wav
from edge_asd.audio.windows import Window, WindowCutter
from edge_asd.errors import RecordingError
from edge_asd.logmel import Float32Array

SUFFIXES = (".wav", ".flac")
MIN_RATE, MAX_RATE = 1_000, 768_000
"""Hz. What a recording may have been sampled at."""
_UNKNOWN_LENGTH = 2**62
"""libsndfile's frame count for a FLAC stream that does not state its length is of this order."""


@dataclass(frozen=True)
class RecordingInfo:
    """What the header of a recording says."""

    path: Path
    sample_rate: int
    """Hz, as recorded."""
    channels: int
    frames: int | None
    """Samples per channel; None where the stream does not say."""

    @property
    def seconds(self) -> float | None:
        """Length as the header states it."""
        return None if self.frames is None else self.frames / self.sample_rate


def find_recordings(paths: Iterable[Path]) -> list[Path]:
    """Files as given, folders searched for ``.wav`` and ``.flac`` at any depth, each folder in order of its names.

    Raises:
        RecordingError: a path does not exist, or a folder holds no recording.
    """
    found: list[Path] = []
    for path in paths:
        try:
            is_folder, exists = path.is_dir(), path.exists()
        except OSError as error:  # a name that is too long
            raise RecordingError(path, error.strerror or str(error)) from None
        if not exists:
            raise RecordingError(path, "does not exist")
        if is_folder:
            inside = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
            if not inside:
                raise RecordingError(path, "holds no .wav or .flac file")
            found += inside
        else:
            found.append(path)
    return found


def probe(path: Path) -> RecordingInfo:
    """Read and check the header of a recording.

    Raises:
        RecordingError: missing, unreadable, empty, truncated, not WAV or FLAC, or without samples.
    """
    with _open(path) as sound:
        return _info(path, sound)


def read_blocks(path: Path, *, sample_rate: int, channel: int = 1) -> Iterator[Float32Array]:
    """Decode one channel of a recording, resampled, block by block (about one second each).

    Args:
        path: a WAV or FLAC file.
        sample_rate: Hz to resample to; a recording of that rate passes unchanged.
        channel: counted from 1.

    Yields:
        Samples, float32, shape ``[sample]``, full scale 1.0.

    Raises:
        RecordingError: as for `probe`; also a channel that is not there, NaN or infinity (with their place), or fewer
            samples than the header promises. It can come after blocks have been given.
    """
    with _open(path) as sound:
        info = _info(path, sound)
        if not 1 <= channel <= info.channels:
            raise RecordingError(path, f"has {info.channels} channel(s); there is no channel {channel}")
        resampler = None
        if info.sample_rate != sample_rate:
            resampler = soxr.ResampleStream(info.sample_rate, sample_rate, 1, dtype="float32", quality="HQ")
        done = given = 0
        while True:
            samples = _read(path, sound, info.sample_rate)[:, channel - 1]
            if not np.isfinite(samples).all():
                second = (done + int(np.flatnonzero(~np.isfinite(samples))[0])) / info.sample_rate
                raise RecordingError(path, f"holds NaN or infinity at {second:.3f} s")
            done += samples.size
            last = samples.size == 0
            if resampler is not None:
                samples = resampler.resample_chunk(samples, last=last)
                if not np.isfinite(samples).all():
                    second = done / info.sample_rate
                    raise RecordingError(path, f"holds values too large for sound before {second:.3f} s")
            if samples.size:
                given += samples.size
                yield np.ascontiguousarray(samples)
            if last:
                break
    if done == 0:
        raise RecordingError(path, "holds no samples")
    if given == 0:
        raise RecordingError(path, f"is too short: {done} sample(s) at {info.sample_rate} Hz")
    if info.frames is not None and done < info.frames:
        there = done / info.sample_rate
        raise RecordingError(path, f"is truncated: its header promises {info.seconds:.2f} s, {there:.2f} s are there")


def read_windows(
    path: Path,
    *,
    sample_rate: int,
    window: int,
    hop: int,
    channel: int = 1,
    on_length: Callable[[int], None] | None = None,
) -> Iterator[Window]:
    """Windows of one recording; one that is shorter than a window is repeated to fill it.

    Args:
        path: a WAV or FLAC file.
        sample_rate: Hz to resample to.
        window: samples in a window.
        hop: samples from window to window.
        channel: counted from 1.
        on_length: told at the end how many samples there were, at ``sample_rate``.

    Raises:
        RecordingError: as `read_blocks`.
    """
    cutter = WindowCutter(window, hop)
    for block in read_blocks(path, sample_rate=sample_rate, channel=channel):
        yield from cutter.push(block)
    short = cutter.repeated()
    if short is not None:
        yield short
    if on_length is not None:
        on_length(cutter.position)


class _ForwardSoundFile(soundfile.SoundFile):  # type: ignore[misc, unused-ignore]
    """Read from the front to the end only.

    soundfile seeks after every block of a file that it can seek in, which fails at the end of a FLAC stream that does
    not state its length.
    """

    def seekable(self) -> bool:
        return False


def _open(path: Path) -> soundfile.SoundFile:
    try:
        size = path.stat().st_size
        if not path.is_file() and not path.is_dir():
            raise RecordingError(path, "is not a file")  # opening a pipe would wait for its writer
        with path.open("rb") as file:
            magic = file.read(12)
            if size == 0:
                raise RecordingError(path, "is empty")
            if magic[:4] in (b"RIFF", b"RF64") and magic[8:12] == b"WAVE":
                check_wav(path, file, size)
            elif magic[:4] != b"fLaC":
                raise RecordingError(path, "is not a WAV or FLAC recording")
    except OSError as error:
        raise RecordingError(path, error.strerror or str(error)) from None
    except ValueError as error:  # a NUL within the path
        raise RecordingError(path, str(error)) from None
    try:
        # As bytes: a name need not be UTF-8.
        return _ForwardSoundFile(os.fsencode(path))
    except (soundfile.LibsndfileError, TypeError) as error:
        raise RecordingError(path, f"cannot be decoded: {_reason(error)}") from None


def _info(path: Path, sound: soundfile.SoundFile) -> RecordingInfo:
    if not MIN_RATE <= sound.samplerate <= MAX_RATE:
        raise RecordingError(path, f"claims {sound.samplerate} Hz; {MIN_RATE} to {MAX_RATE} Hz are read")
    frames = sound.frames if 0 < sound.frames < _UNKNOWN_LENGTH else None
    return RecordingInfo(path, sound.samplerate, sound.channels, frames)


def _read(path: Path, sound: soundfile.SoundFile, frames: int) -> Float32Array:
    try:
        block: Float32Array = sound.read(frames, dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, RuntimeError) as error:
        raise RecordingError(path, f"is truncated or damaged: {_reason(error)}") from None
    return block


def _reason(error: Exception) -> str:
    text = getattr(error, "error_string", None) or str(error)
    return text.strip().rstrip(".")
