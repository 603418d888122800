"""Archives: unpacked whole or not at all, and never beyond their folder."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from edge_asd_train.download import FetchError
from edge_asd_train.unpack import unpack
from parts.zenodo import zipped

CLIPS = {
    "slider/train/normal_id_00_00000000.wav": os.urandom(2000),
    "slider/train/normal_id_00_00000001.wav": os.urandom(2000),
    "slider/test/anomaly_id_00_00000000.wav": os.urandom(2000),
    "slider/test/id_01_00000007.wav": os.urandom(2000),
}


def found(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def test_splits_are_unpacked_and_other_files_left_out(tmp_path: Path) -> None:
    others = {"slider/": b"", "slider/README.txt": b"x", "fan/train/normal_id_00_00000000.wav": b"x", "a/b/c/d": b"x"}
    (tmp_path / "a.zip").write_bytes(zipped(others | CLIPS))
    target = tmp_path / "development" / "slider"
    (target / ".unpacking" / "train").mkdir(parents=True)  # of a run that was killed
    (target / ".unpacking" / "train" / "half.wav").touch()
    assert unpack(tmp_path / "a.zip", "slider", ("train", "test"), target) == {"train": 2, "test": 2}
    assert found(target.parent) == sorted(CLIPS)
    assert all((target.parent / name).read_bytes() == content for name, content in CLIPS.items())
    # A split that is there stays as it is.
    (target / "test" / "mine.wav").touch()
    (target / "train" / "normal_id_00_00000000.wav").unlink()
    unpack(tmp_path / "a.zip", "slider", ("train", "test"), target)
    assert found(target.parent) == sorted([*list(CLIPS)[1:], "slider/test/mine.wav"])


def as_link(info: zipfile.ZipInfo) -> None:
    if info.filename.endswith("7.wav"):
        info.external_attr = 0o120777 << 16


def as_device(info: zipfile.ZipInfo) -> None:
    if info.filename.endswith("7.wav"):
        info.external_attr = 0o020666 << 16


@pytest.mark.parametrize(
    ("files", "change", "complaint"),
    [
        ({"/etc/normal_id_00_00000000.wav": b"x"}, None, r"'/etc/normal_id_00_00000000\.wav', a path that leads out"),
        ({"slider/train/../../../x.wav": b"x"}, None, "a path that leads out of it"),
        ({"..\\x.wav": b"x"}, None, "a path that leads out of it"),
        ({}, as_link, r"'slider/test/id_01_00000007\.wav' is a link or a special file"),
        ({}, as_device, "is a link or a special file"),
        ({"slider/train/normal_id_00_00000002.wav": bytes(10_000_000)}, None, "to 10008000 bytes, far more than sound"),
    ],
)
def test_hostile_archives_leave_nothing(
    tmp_path: Path, files: dict[str, bytes], change: Callable[[zipfile.ZipInfo], None] | None, complaint: str
) -> None:
    archive = tmp_path / "a.zip"
    archive.write_bytes(zipped(CLIPS | files, change or (lambda _: None)))
    with pytest.raises(FetchError, match=complaint):
        unpack(archive, "slider", ("train", "test"), tmp_path / "out" / "slider")
    assert found(tmp_path) == ["a.zip"]


def test_a_size_that_lies_stays_bounded(tmp_path: Path) -> None:
    # The archive's table says 10 bytes, the stream behind it holds 10 million.
    content = bytearray(zipped({"slider/test/id_01_00000000.wav": bytes(10_000_000)}))
    stated = (10_000_000).to_bytes(4, "little")
    while (at := content.find(stated)) >= 0:
        content[at : at + 4] = (10).to_bytes(4, "little")
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(FetchError, match="cannot be unpacked"):
        unpack(tmp_path / "a.zip", "slider", ("test",), tmp_path / "out")
    assert not (tmp_path / "out" / "test").exists()
    assert sum(p.stat().st_size for p in (tmp_path / "out").rglob("*.wav")) <= 10


def test_damaged_and_wrong_archives(tmp_path: Path) -> None:
    archive = tmp_path / "a.zip"
    content = bytearray(zipped(CLIPS))
    content[200] ^= 0xFF  # within the first clip
    for bad, complaint in (
        (bytes(content), "cannot be unpacked .*delete it and fetch it again"),
        (b"<html>log in</html>", "cannot be unpacked"),
        (zipped({"slider/train/normal_id_00_00000000.wav": b"x"}), "holds no slider/test/"),
    ):
        archive.write_bytes(bad)
        with pytest.raises(FetchError, match=complaint):
            unpack(archive, "slider", ("train", "test"), tmp_path / "out")
        assert not (tmp_path / "out" / "train").exists()
