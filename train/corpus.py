"""Folders in the DCASE 2020 Task 2 layout, in; clips and their log-Mels, out.

``DATA/MACHINE/train`` holds normal clips, ``DATA/MACHINE/test`` normal and anomalous ones, named
``{normal,anomaly}_id_XX_NNNNNNNN.{wav,flac}``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_asd.audio.recording import find_recordings
from edge_asd.clip_folder import MANIFEST
from edge_asd.dcase import parse_clip_name
from edge_asd.errors import EdgeAsdError
from edge_asd.logmel import Float32Array, LogMelParameters
from edge_asd.normal_sound import CLIP_DIGITS

from .feature_cache import features_of

MIN_CLIPS = 8
"""Normal clips of one machine id that training and calibration need at the very least."""


class CorpusError(EdgeAsdError):
    """A folder does not hold what training or evaluation needs."""


@dataclass(frozen=True)
class Clip:
    """One recording of about a window's length."""

    path: Path
    machine_id: str
    is_anomaly: bool
    recording: str
    """Clips of one recording (microphones of an array, neighbours in time) are never on both sides of a split."""
    start: float | None = None
    """Of a clip that ``edge-asd record`` wrote: when it began, seconds since 1970."""


@dataclass(frozen=True)
class Windows:
    """Windows of a set of clips and what is known of each; all arrays have one entry for each window."""

    log_mel: Float32Array
    """dB, shape ``[window, mel, frame]``."""
    level_dbfs: NDArray[np.float64]
    clip: NDArray[np.intp]
    """Index into the clips that were asked for."""
    offset: NDArray[np.float64]
    """Of each window in its clip, seconds."""

    def __len__(self) -> int:
        return int(self.log_mel.shape[0])

    @property
    def heard(self) -> NDArray[np.intp]:
        """Indices of the clips that gave a window, in order, ``[clip]``."""
        return np.unique(self.clip)

    def per_clip(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Mean over the windows of each clip of `heard`, ``[clip]``, of a value for each window, ``[window]``."""
        heard, place = np.unique(self.clip, return_inverse=True)
        sums = np.bincount(place, weights=values, minlength=len(heard))
        means: NDArray[np.float64] = sums / np.bincount(place, minlength=len(heard))
        return means


def read_clips(
    data: Path, machine: str, split: str, *, recording_digits: int = 1, labels: Mapping[str, bool] | None = None
) -> list[Clip]:
    """The clips of one split of one machine.

    Args:
        data: folder that holds a folder for each machine.
        machine: name of that folder.
        split: ``train`` or ``test``.
        recording_digits: clips of an id whose numbers agree but for so many last digits belong to one recording.
        labels: of test clips whose names carry none, as in DCASE's evaluation set: True for anomalous, by the name
            without its ending (see `ground_truth.read_ground_truth`).

    Raises:
        CorpusError: a folder is missing, empty, or a name does not follow the layout.
        ValueError: a number of digits that cannot be.
    """
    if not 0 <= recording_digits <= 8:
        raise ValueError(f"recording_digits {recording_digits}: must be from 0 to 8")
    folder = data / machine / split
    if not folder.is_dir():
        there = sorted(p.parent.name for p in data.glob("*/train") if p.is_dir())
        hint = f"; it holds {', '.join(there)}" if there else ""
        raise CorpusError(f"{folder}: no such folder{hint}")
    starts = _starts(folder.parent)
    clips = []
    for path in find_recordings([folder]):
        name = parse_clip_name(path)
        is_anomaly = None if name is None else name.is_anomaly
        if name is not None and is_anomaly is None and labels is not None and split == "test":
            is_anomaly = labels.get(path.stem)
            if is_anomaly is None:
                raise CorpusError(f"{path}: has no label, neither in its name nor in the ground truth")
        if name is None or is_anomaly is None:
            raise CorpusError(f"{path}: is not named like normal_id_00_00000000.wav or anomaly_id_00_00000000.wav")
        if split == "train" and is_anomaly:
            raise CorpusError(f"{path}: an anomalous clip among the training clips, which must all be normal")
        recording = f"{name.machine_id}/{name.number[: max(0, len(name.number) - recording_digits)]}"
        start = starts.get(f"{folder.name}/{path.name}")
        clips.append(Clip(path, name.machine_id, is_anomaly, recording, start))
    return clips


def load_windows(clips: Sequence[Clip], parameters: LogMelParameters, *, title: str) -> Windows:
    """Log-Mels of all clips; a clip of several windows gives several, one that cannot be read is named and left out.

    They are computed once, kept in the cache, and mapped from there: read-only, and in memory only as far as there is
    room for them.

    Raises:
        CorpusError: no clip can be read.
    """
    found = features_of([c.path for c in clips], parameters, title=title)
    if found is None:
        raise CorpusError(f"{clips[0].path.parent}: none of its {len(clips)} recordings can be read")
    return Windows(found.log_mel, found.level_dbfs, found.clip, found.offset)


def fingerprint(clips: Sequence[Clip]) -> str:
    """sha256 over the names and contents of all clips: says whether two detectors had the same training data."""
    digest = hashlib.sha256()
    for clip in sorted(clips, key=lambda c: c.path.name):
        digest.update(clip.path.name.encode() + b"\0")
        digest.update(bytes.fromhex(_sha256(clip.path)))
    return digest.hexdigest()


def digests(clips: Sequence[Clip]) -> list[str]:
    """The first 16 hex digits of the sha256 of each clip's content: what was trained on must not be calibrated on."""
    return sorted(digest(clip) for clip in clips)


def digest(clip: Clip) -> str:
    """The first 16 hex digits of the sha256 of a clip's content.

    Raises:
        CorpusError: it cannot be read.
    """
    try:
        return _sha256(clip.path)[:CLIP_DIGITS]
    except OSError as error:
        raise CorpusError(f"{clip.path}: {error.strerror or error}") from None


def _sha256(path: Path) -> str:
    status = path.stat()
    return _sha256_of_content(path, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=2**18)
def _sha256_of_content(path: Path, size: int, mtime_ns: int) -> str:
    """Size and time of change are those of the content that is remembered; it is asked for several times."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _starts(folder: Path) -> dict[str, float]:
    """When each clip began, from the manifest that ``edge-asd record`` leaves beside them: name to seconds.

    Raises:
        CorpusError: a line that cannot be read.
    """
    path = folder / MANIFEST
    if not path.is_file():
        return {}
    starts = {}
    # A line that a crash cut off has no end yet: its clip was never finished.
    for number, line in enumerate(path.read_bytes().split(b"\n")[:-1], start=1):
        try:
            told = json.loads(line)
            if "clip" in told:
                starts[told["clip"]] = datetime.fromisoformat(told["start"]).timestamp()
        except (ValueError, KeyError, TypeError) as error:
            raise CorpusError(f"{path}:{number}: is not a line that edge-asd record writes: {error}") from None
    return starts
