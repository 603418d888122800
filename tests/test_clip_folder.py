"""Clips on disk: exact, counted, within their budget, and whole whatever happens."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from edge_asd.clip_folder import ClipFolder, ClipFolderError, DiskBudgetError
from edge_asd.dcase import parse_clip_name

RATE = 16_000
FACTS = {"session": "2026-01-01T00:00:00.000Z", "level_dbfs": -30.0}


def folder(out: Path, **options: Any) -> ClipFolder:
    return ClipFolder(out, "rail-7", "id_02", **({"most_bytes": 10**9, "sample_rate": RATE} | options))


def noise(seed: int = 0, seconds: float = 1.0) -> np.ndarray:
    return (0.1 * np.random.default_rng(seed).standard_normal(round(seconds * RATE))).astype(np.float32)


def lines(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "rail-7" / "manifest.jsonl").read_text().splitlines()]


def test_a_clip_is_exact_in_16_bits_where_it_came_in_16_and_else_in_24(tmp_path: Path) -> None:
    clips = folder(tmp_path)
    coarse = np.round(noise() * 32768).astype(np.float32) / 32768
    fine = noise()
    paths = [clips.write(coarse, FACTS), clips.write(fine, FACTS)]
    assert [soundfile.info(p).subtype for p in paths] == ["PCM_16", "PCM_24"]
    assert np.array_equal(soundfile.read(paths[0], dtype="float32")[0], coarse)
    assert np.abs(soundfile.read(paths[1])[0] - fine).max() <= 2.0**-24
    assert [p.name for p in paths] == ["normal_id_02_00000000.flac", "normal_id_02_00000001.flac"]
    assert all((name := parse_clip_name(p)) and name.machine_id == "id_02" and not name.is_anomaly for p in paths)
    assert lines(tmp_path) == [{"schema": 1, "clip": f"train/{p.name}", **FACTS} for p in paths]
    assert clips.bytes == sum(p.stat().st_size for p in paths) and clips.clips == 2


def test_a_later_session_begins_a_new_ten(tmp_path: Path) -> None:
    for count, first in [(3, 0), (8, 10), (1, 20)]:
        clips = folder(tmp_path)
        names = [clips.write(noise(), FACTS).stem for _ in range(count)]
        assert names == [f"normal_id_02_{first + n:08d}" for n in range(count)]
        clips.close()
    assert folder(tmp_path).clips == 12


def test_what_a_crash_left_is_cleared_away(tmp_path: Path) -> None:
    clips = folder(tmp_path)
    clips.write(noise(), FACTS)
    clips.close()
    part = tmp_path / "rail-7" / "train" / ".normal_id_02_00000001.flac.part"
    part.write_bytes(b"fLaC")
    with (tmp_path / "rail-7" / "manifest.jsonl").open("a") as file:
        file.write('{"schema": 1, "clip"')
    clips = folder(tmp_path)
    assert not part.exists() and clips.clips == 1
    clips.write(noise(), FACTS)
    assert [line["clip"] for line in lines(tmp_path)] == [f"train/normal_id_02_{n:08d}.flac" for n in (0, 10)]


def test_one_process_writes_at_a_time(tmp_path: Path) -> None:
    clips = folder(tmp_path)
    with pytest.raises(ClipFolderError, match="another recording is writing here"):
        folder(tmp_path)
    clips.close()
    folder(tmp_path)


def test_the_budget_counts_what_is_there_already(tmp_path: Path) -> None:
    clips = folder(tmp_path)
    size = clips.write(noise(), FACTS).stat().st_size
    clips.close()
    clips = folder(tmp_path, most_bytes=size + 3 * RATE)
    clips.write(noise(1), FACTS)
    with pytest.raises(DiskBudgetError, match=r"disk budget of .* GB is used up; see --max-gigabytes"):
        clips.write(noise(2), FACTS)
    assert len(lines(tmp_path)) == clips.clips == 2


def test_a_disk_is_never_filled_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_asd.clip_folder.KEEP_FREE_BYTES", 10**18)
    with pytest.raises(DiskBudgetError, match="would be left free on this disk"):
        folder(tmp_path).write(noise(), FACTS)
    assert not list((tmp_path / "rail-7" / "train").iterdir())


def test_a_write_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    """A limit on the size of files stands in for a full disk: the write fails half-way."""
    code = f"""
import resource, signal
from pathlib import Path
import numpy as np
from edge_asd.clip_folder import ClipFolder, ClipFolderError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
clips = ClipFolder(Path({str(tmp_path)!r}), "rail-7", "id_02", most_bytes=10**9, sample_rate=16000)
sound = np.random.default_rng(0).standard_normal(160000).astype(np.float32) * 0.1
clips.write(sound, {{}})
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, resource.RLIM_INFINITY))
try:
    clips.write(sound, {{}})
except ClipFolderError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    place = tmp_path / "rail-7" / "train" / "normal_id_02_00000001.flac"
    assert done.stdout.startswith(f"{place}: "), done.stdout
    assert [p.name for p in place.parent.iterdir()] == ["normal_id_02_00000000.flac"]
    assert len(lines(tmp_path)) == 1


@pytest.mark.parametrize("what", ["a file", "no permission"])
def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, what: str) -> None:
    if what == "a file":
        (tmp_path / "rail-7").write_text("in the way")
        out = tmp_path
    else:
        out = Path("/proc/nothing")
    with pytest.raises(ClipFolderError, match=str(out)):
        folder(out)
