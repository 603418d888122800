"""Clips of a machine's normal sound, and which of them follow each other without a gap.

What `edge-asd record` writes has a manifest that tells when each clip began. Any other recordings are separate.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from edge_asd.audio.recording import SUFFIXES, find_recordings
from edge_asd.audio.windows import WINDOW_SECONDS
from edge_asd.clip_folder import MANIFEST
from edge_asd.dcase import parse_clip_name
from edge_asd.errors import RecordingError, UsageError

CLIP_DIGITS = 16
"""Hexadecimal digits of a clip's sha256 that a detector keeps of each clip it was trained on."""
_FOLLOWS_WITHIN_SECONDS = 0.5
"""Clips that lie so near to each other are one stretch: the device's clock may be off by 300 ppm, and is followed."""


@dataclass(frozen=True)
class NormalClip:
    """A recording of normal sound."""

    path: Path
    follows: bool
    """It begins where the one before it in the list ends."""


@dataclass(frozen=True)
class _Entry:
    """A line of the manifest."""

    session: str
    start: datetime


def find_normal_sound(paths: Sequence[Path], machine: str, ids: frozenset[str]) -> tuple[list[NormalClip], int]:
    """Clips in the order of time, as far as that is known.

    Args:
        paths: data sets (the machine's folder in them is taken), a machine's folder (its ``train`` is taken), or any
            folders or files of recordings.
        machine: its name in the configuration, and of its folder.
        ids: the machine ids that its detectors have it as; of clips of several machines only those are taken.

    Returns:
        The clips, and how many of other machine ids there were.

    Raises:
        RecordingError: a path that does not exist or holds no recording, or a clip that is labelled an anomaly.
        UsageError: clips of several machines, and it is not clear which are meant; or a damaged manifest.
    """
    clips: dict[Path, NormalClip] = {}
    for path in paths:
        folder, manifest = _folder_of(path, machine)
        files = find_recordings([folder])
        for file in files:
            if (name := parse_clip_name(file)) is not None and name.is_anomaly:
                raise RecordingError(file, "is labelled an anomaly; only normal sound calibrates")
        for clip in _in_order(files, manifest):
            clips.setdefault(_real(clip.path), clip)
    return _of_ids(list(clips.values()), ids)


def clip_digest(path: Path) -> str:
    """What a detector remembers of a clip: the first digits of the sha256 of its content.

    Raises:
        RecordingError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:CLIP_DIGITS]
    except OSError as error:
        raise RecordingError(path, error.strerror or str(error)) from None


def _folder_of(path: Path, machine: str) -> tuple[Path, Path | None]:
    """Where the clips lie, and their manifest, where there is one."""
    if not path.is_dir():
        return path, None
    folder = path / machine if (path / machine).is_dir() else path
    if (folder / "train").is_dir():
        folder = folder / "train"
    elif folder is path and (others := sorted(p.parent.name for p in path.glob("*/train") if p.is_dir())):
        raise UsageError(f"calibrate: {path} has no folder {machine}; give the one that is meant: {', '.join(others)}")
    manifest = folder.parent / MANIFEST if folder.name == "train" else folder / MANIFEST
    return folder, manifest if manifest.is_file() else None


def _in_order(files: Sequence[Path], manifest: Path | None) -> list[NormalClip]:
    """Clips of the manifest in its order, then the others in the order of their names."""
    entries = {} if manifest is None else _read_manifest(manifest)
    known = {_real(f): f for f in files}
    clips: list[NormalClip] = []
    before: _Entry | None = None
    for path, entry in entries.items():
        file = known.pop(path, None)
        if file is None:
            continue  # removed, or never finished
        follows = False
        if before is not None and before.session == entry.session:
            apart = (entry.start - before.start).total_seconds()
            follows = abs(apart - WINDOW_SECONDS) <= _FOLLOWS_WITHIN_SECONDS
        clips.append(NormalClip(file, follows))
        before = entry
    return clips + [NormalClip(f, False) for f in known.values()]


def _read_manifest(path: Path) -> dict[Path, _Entry]:
    entries: dict[Path, _Entry] = {}
    try:
        # A line that a crash cut off has no end yet: its clip was never finished.
        lines = path.read_bytes().split(b"\n")[:-1]
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or error}") from None
    for number, line in enumerate(lines, 1):
        try:
            entry = json.loads(line)
            if not isinstance(entry, dict):
                raise ValueError("is no JSON object")
            if "clip" not in entry:
                continue  # a stretch that was refused
            clip, session, start = (entry[key] for key in ("clip", "session", "start"))
            if not all(isinstance(value, str) for value in (clip, session, start)):
                raise ValueError("clip, session and start must be texts")
            when = datetime.fromisoformat(start)
            if when.tzinfo is None or Path(clip).suffix.lower() not in SUFFIXES:
                raise ValueError("start must be in UTC, and clip a WAV or FLAC file")
        except KeyError as error:
            raise UsageError(f"{path}:{number}: has no {error.args[0]}") from None
        except (ValueError, RecursionError) as error:
            raise UsageError(f"{path}:{number}: is damaged: {error}") from None
        file = _real(path.parent / clip)
        entries.pop(file, None)  # of a clip that was never finished, and whose name was used again
        entries[file] = _Entry(session, when)
    return entries


def _real(path: Path) -> Path:
    """Unlike Path.resolve() it takes links that go round in a circle."""
    return Path(os.path.realpath(path))


def _of_ids(clips: list[NormalClip], ids: frozenset[str]) -> tuple[list[NormalClip], int]:
    """Of clips of several machines, those of one."""
    named = [parse_clip_name(c.path) for c in clips]
    there = {n.machine_id for n in named if n is not None}
    if len(there) < 2:
        return clips, 0  # a site's own: whatever its name says
    wanted = there & ids
    if len(wanted) != 1:
        raise UsageError(
            f"calibrate: these are clips of several machines ({', '.join(sorted(there))}), and the detectors have this "
            f"one as {', '.join(sorted(ids))}; give the folder of one"
        )
    taken: list[NormalClip] = []
    is_broken = False
    for clip, name in zip(clips, named, strict=True):
        if name is not None and name.machine_id not in wanted:
            is_broken = True
            continue
        taken.append(NormalClip(clip.path, clip.follows and not is_broken))
        is_broken = False
    return taken, len(clips) - len(taken)
