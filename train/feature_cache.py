"""Log-Mels of clips, computed once: kept in a file for each folder, and mapped from there instead of held in memory."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from edge_asd.audio.windows import WINDOW_SECONDS
from edge_asd.errors import RecordingError
from edge_asd.logmel import Float32Array, LogMelParameters

from .cache_folder import cache_folder
from .feature_file import Entry, FeatureFile
from .scratch import chunks, scratch


@dataclass(frozen=True)
class Features:
    """Log-Mels of windows, in the order of the clips that were asked for; arrays have one entry for each window."""

    log_mel: Float32Array
    """dB, shape ``[window, mel, frame]``, read-only."""
    level_dbfs: NDArray[np.float64]
    clip: NDArray[np.intp]
    """Index into the clips."""
    offset: NDArray[np.float64]
    """Of each window in its clip, seconds."""


@dataclass
class _Part:
    """The clips of one folder."""

    rows: Float32Array
    """Of its file, ``[row, mel, frame]``."""
    entries: dict[int, Entry]
    """By index of the clip."""


def features_of(paths: Sequence[Path], parameters: LogMelParameters, *, title: str) -> Features | None:
    """Log-Mels of clips; one that cannot be read is named and left out. None where none can be read.

    Args:
        paths: of the clips.
        parameters: of the log-Mel.
        title: of the progress bar.
    """
    by_folder: dict[Path, list[int]] = {}
    for index, path in enumerate(paths):
        by_folder.setdefault(path.parent, []).append(index)
    with tqdm(total=len(paths), desc=title, unit="clip", leave=False) as bar:
        parts = [_read(folder, own, paths, parameters, bar) for folder, own in by_folder.items()]
    parts = [part for part in parts if part.entries]
    if not parts:
        return None
    found = sorted((index, number, e) for number, part in enumerate(parts) for index, e in part.entries.items())
    counts = np.array([len(e.levels) for _, _, e in found])
    in_clip = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    log_mel = _in_order(
        [part.rows for part in parts],
        np.repeat([number for _, number, _ in found], counts),
        np.repeat([e.row for _, _, e in found], counts) + in_clip,
    )
    levels = np.fromiter((level for _, _, e in found for level in e.levels), np.float64)
    return Features(log_mel, levels, np.repeat([index for index, _, _ in found], counts), in_clip * WINDOW_SECONDS)


def _read(
    folder: Path, own: Sequence[int], paths: Sequence[Path], parameters: LogMelParameters, bar: tqdm[Any]
) -> _Part:
    before, cache = bar.n, cache_folder()
    try:
        with FeatureFile(folder, parameters, cache) as file:
            is_new = not file.bytes
            part = _fill(file, own, paths, bar)
            if is_new and file.bytes:
                bar.write(f"log-Mels of {folder} are kept in {file.path} ({file.bytes / 1e6:.0f} MB)", file=sys.stderr)
            return part
    except OSError as error:
        reason = f"{error.filename or cache}: {error.strerror or error}"
        bar.write(f"log-Mels of {folder} cannot be kept ({reason}): computed for this once", file=sys.stderr)
        bar.update(before - bar.n)
        with FeatureFile(folder, parameters, None) as file:
            return _fill(file, own, paths, bar)


def _fill(file: FeatureFile, own: Sequence[int], paths: Sequence[Path], bar: tqdm[Any]) -> _Part:
    entries = {}
    for index in own:
        try:
            entries[index] = file.find(paths[index]) or file.add(paths[index])
        except RecordingError as error:
            bar.write(f"left out: {error}")
        bar.update()
    return _Part(file.rows() if entries else np.empty((0, 0, 0), np.float32), entries)


def _in_order(parts: Sequence[Float32Array], part_of: NDArray[np.intp], row_of: NDArray[np.intp]) -> Float32Array:
    """Rows of several files in the order wanted: as they lie there, if they lie so, else copied to a working file."""
    if len(parts) == 1 and (np.diff(row_of) == 1).all():
        return parts[0][row_of[0] : row_of[-1] + 1]
    gathered: Float32Array = scratch((len(row_of), *parts[0].shape[1:]))
    for some in chunks(len(row_of)):
        for number, rows in enumerate(parts):
            mine = np.flatnonzero(part_of[some] == number)
            gathered[some.start + mine] = rows[row_of[some][mine]]
    gathered.flags.writeable = False
    return gathered
