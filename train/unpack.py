"""The clips of a downloaded archive, unpacked whole or not at all; nothing that it says is trusted."""

from __future__ import annotations

import os
import re
import shutil
import stat
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Collection
from pathlib import Path, PurePosixPath

from tqdm import tqdm

from .download import FetchError, check_space

_CLIP = re.compile(r"(?:(?:normal|anomaly)_)?id_\d{2}_\d{8}\.wav")
_MOST_EXPANSION = 10
"""Of all clips to their archive. Sound of 16 bits shrinks to two thirds at best: more is an archive made to burst."""
_ENCRYPTED = 0x1


def unpack(archive: Path, machine: str, splits: Collection[str], target: Path) -> dict[str, int]:
    """Unpack ``MACHINE/SPLIT/*.wav`` of an archive as ``TARGET/SPLIT/*.wav``.

    Unpacked beside it and then renamed: a split is there whole, or not. One that is there already is left as it is.
    Other files in the archive are left out.

    Args:
        archive: zip file.
        machine: folder in it.
        splits: the folders that must be in it.
        target: of the machine.

    Returns:
        How many clips each split has.

    Raises:
        FetchError: it is damaged, lacks a split, does not fit on the disk, or holds what no such archive needs: paths
            that lead out of it, links, encrypted or much too large files.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            clips = _clips_of(opened, archive, machine)
            for split in splits:
                if not clips[split]:
                    raise FetchError(f"{archive}: holds no {machine}/{split}/normal_id_XX_NNNNNNNN.wav or the like")
            size = sum(info.file_size for split in splits for info in clips[split])
            if size > _MOST_EXPANSION * archive.stat().st_size:
                raise FetchError(f"{archive}: would unpack to {size} bytes, far more than sound can; delete it")
            target.mkdir(parents=True, exist_ok=True)
            check_space(target, size, f"{archive.name}, unpacked,")
            aside = target / ".unpacking"
            shutil.rmtree(aside, ignore_errors=True)  # of a run that was killed
            for split in splits:
                (aside / split).mkdir(parents=True)
                for info in tqdm(clips[split], desc=f"unpack {split}", unit="clip", leave=False):
                    with (
                        opened.open(info) as packed,
                        (aside / split / PurePosixPath(info.filename).name).open("wb") as out,
                    ):
                        shutil.copyfileobj(packed, out, 1 << 20)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise FetchError(f"{archive}: cannot be unpacked ({error}): delete it and fetch it again") from None
    os.sync()  # after a power cut, a folder that is there must not hold empty files: its archive is deleted
    for split in splits:
        if not clips_in(target / split):
            (aside / split).rename(target / split)
    shutil.rmtree(aside)
    return {split: len(clips[split]) for split in splits}


def clips_in(folder: Path) -> list[Path]:
    """The recordings of a split, where it is there."""
    return [path for path in folder.glob("*") if path.suffix in (".wav", ".flac")]


def _clips_of(opened: zipfile.ZipFile, archive: Path, machine: str) -> dict[str, list[zipfile.ZipInfo]]:
    """The clips of each split."""
    clips: dict[str, list[zipfile.ZipInfo]] = defaultdict(list)
    seen = set()
    for info in opened.infolist():
        path = PurePosixPath(info.filename)
        if path.is_absolute() or ".." in path.parts or "\\" in info.filename or ":" in info.filename:
            raise FetchError(f"{archive}: names {info.filename!r}, a path that leads out of it; delete the archive")
        kind = stat.S_IFMT(info.external_attr >> 16)
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise FetchError(f"{archive}: {info.filename!r} is a link or a special file; delete the archive")
        if info.filename in seen:
            raise FetchError(f"{archive}: names {info.filename!r} twice; delete the archive")
        seen.add(info.filename)
        if info.is_dir() or len(path.parts) != 3 or path.parts[0] != machine or not _CLIP.fullmatch(path.name):
            continue
        if info.flag_bits & _ENCRYPTED:
            raise FetchError(f"{archive}: {info.filename!r} is encrypted; delete the archive")
        clips[path.parts[1]].append(info)
    return clips
