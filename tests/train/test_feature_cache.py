"""Log-Mels are computed once, whatever happens to the file that they are kept in."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from edge_asd_train import feature_file
from edge_asd_train.cache_folder import cache_folder, cache_in
from edge_asd_train.corpus import Clip, CorpusError, Windows, load_windows

from edge_asd.audio.level import level_dbfs
from edge_asd.logmel import LogMelParameters, log_mel

PARAMETERS = LogMelParameters(n_mels=16, hop_length=1024)
ROW_BYTES = 4 * 16 * (1 + 160_000 // 1024)

Count = Callable[[], int]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path) -> Iterator[Path]:
    """An empty cache of this test."""
    with cache_in(tmp_path / "cache"):
        yield tmp_path / "cache"


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> Count:
    """How many log-Mels have been computed since it was asked last."""
    calls: list[int] = []

    def counted(*arguments: object) -> object:
        calls.append(1)
        return log_mel(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(feature_file, "log_mel", counted)

    def since() -> int:
        count = len(calls)
        calls.clear()
        return count

    return since


@pytest.fixture
def clips(tmp_path: Path) -> list[Clip]:
    """Six short clips; the third has two windows."""
    (tmp_path / "train").mkdir()
    return [write(tmp_path / "train" / f"normal_id_00_{n:08d}.wav", n, 21.0 if n == 2 else 0.5) for n in range(6)]


def write(path: Path, seed: int, seconds: float) -> Clip:
    samples = np.random.default_rng(seed).normal(0, 0.1, round(16_000 * seconds)).astype(np.float32)
    soundfile.write(path, samples, 16_000, subtype="FLOAT")
    return Clip(path, "id_00", False, "id_00/0")


def expected(clips: list[Clip]) -> Windows:
    """The long way, held in memory."""
    mels, levels, owners, offsets = [], [], [], []
    for index, clip in enumerate(clips):
        samples, _ = soundfile.read(clip.path, dtype="float32")
        samples = samples if samples.size >= 160_000 else np.resize(samples, 160_000)
        for number in range(samples.size // 160_000):
            window = samples[number * 160_000 : (number + 1) * 160_000]
            mels.append(log_mel(window, PARAMETERS))
            levels.append(level_dbfs(window))
            owners.append(index)
            offsets.append(10.0 * number)
    return Windows(np.stack(mels), np.array(levels), np.array(owners), np.array(offsets))


def check(clips: list[Clip]) -> Windows:
    """What is loaded is what is expected, to the bit."""
    found, wanted = load_windows(clips, PARAMETERS, title="test"), expected(clips)
    for name in ("log_mel", "level_dbfs", "clip", "offset"):
        assert np.array_equal(getattr(found, name), getattr(wanted, name)), name
    return found


def is_mapped(array: Any) -> bool:
    """Whether it is a view of a file."""
    while array is not None and not isinstance(array, np.memmap):
        array = getattr(array, "base", None)
    return array is not None


def only(cache: Path, suffix: str) -> Path:
    (path,) = cache.glob(f"*{suffix}")
    return path


def test_computed_once_and_mapped(
    clips: list[Clip], cache: Path, computed: Count, capsys: pytest.CaptureFixture[str]
) -> None:
    first = check(clips)
    assert computed() == 7
    assert f"are kept in {only(cache, '.f32')} (0 MB)" in capsys.readouterr().err
    again = check(clips)
    assert computed() == 0 and "kept in" not in capsys.readouterr().err
    for windows in (first, again):
        assert is_mapped(windows.log_mel) and not windows.log_mel.flags.writeable
    part = check(clips[2:4])
    assert is_mapped(part.log_mel) and computed() == 0


def test_another_order_and_several_folders(clips: list[Clip], tmp_path: Path, computed: Count) -> None:
    (tmp_path / "more").mkdir()
    more = [write(tmp_path / "more" / f"normal_id_02_{n:08d}.wav", 10 + n, 0.5) for n in range(2)]
    check([clips[4], more[1], clips[2], more[0], clips[0]])
    assert computed() == 6
    check([*clips, *more])
    assert computed() == 3


def test_clips_that_were_changed_or_added(clips: list[Clip], computed: Count) -> None:
    before = check(clips[:4])
    kept = before.log_mel.copy()
    write(clips[1].path, 77, 0.5)
    check(clips)
    assert computed() == 5 + 3, "the changed clip and the two that are new"
    assert np.array_equal(before.log_mel, kept), "what was loaded before is as it was"
    status = clips[0].path.stat()
    write(clips[0].path, 78, 0.5)  # as long as before
    os.utime(clips[0].path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    check(clips)
    assert computed() == 1
    check(clips)
    assert computed() == 0


def test_other_parameters_have_a_file_of_their_own(clips: list[Clip], cache: Path, computed: Count) -> None:
    check(clips)
    load_windows(clips, LogMelParameters(n_mels=20, hop_length=1024), title="other")
    check(clips)
    assert computed() == 7 + 7 and len(list(cache.glob("*.f32"))) == 2


def test_an_unreadable_clip_is_named_each_time(
    clips: list[Clip], computed: Count, capsys: pytest.CaptureFixture[str]
) -> None:
    content = clips[2].path.read_bytes()
    clips[2].path.write_bytes(content[: len(content) - 8 * 16_000])  # after its first window
    clips[3].path.write_bytes(b"")
    clips[5].path.unlink()
    for _ in range(2):
        found = load_windows(clips, PARAMETERS, title="test")
        assert found.clip.tolist() == [0, 1, 4]
        said = capsys.readouterr().out
        assert all(f"left out: {clips[n].path}: " in said for n in (2, 3, 5))
    assert np.array_equal(found.log_mel, expected([clips[n] for n in (0, 1, 4)]).log_mel)
    with pytest.raises(CorpusError, match="none of its 1 recordings can be read"):
        load_windows(clips[3:4], PARAMETERS, title="test")


def test_a_killed_run_goes_on_where_it_was(clips: list[Clip], cache: Path, computed: Count) -> None:
    """Killed for good, while it writes the fourth clip, and once more while it writes a line of the index."""
    program = f"""
import os, signal
from edge_asd_train import feature_file
from edge_asd_train.cache_folder import cache_in
from edge_asd_train.corpus import Clip, load_windows
from pathlib import Path
real, count = feature_file.log_mel, 0
def log_mel(*arguments):
    global count
    count += 1
    if count == 5:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*arguments)
feature_file.log_mel = log_mel
clips = [Clip(Path(p), "id_00", False, "r") for p in {[str(c.path) for c in clips]!r}]
with cache_in(Path({str(cache)!r})):
    load_windows(clips, feature_file.LogMelParameters(n_mels=16, hop_length=1024), title="killed")
"""
    killed = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True)
    assert killed.returncode == -9, killed.stderr
    with only(cache, ".f32").open("ab") as file:
        file.write(b"half a row")
    with only(cache, ".jsonl").open("ab") as file:
        file.write(b'{"name": "normal_id_00_000')
    check(clips)
    assert computed() == 7 - 4
    check(clips)
    assert computed() == 0


@pytest.mark.parametrize(
    "damage",
    ["rows cut off", "a row changed", "a number in the index", "a size in the index", "no index", "no rows", "foreign"],
)
def test_what_is_damaged_is_never_trusted(clips: list[Clip], cache: Path, computed: Count, damage: str) -> None:
    check(clips)
    computed()
    rows, index = only(cache, ".f32"), only(cache, ".jsonl")
    lines = index.read_bytes().splitlines(keepends=True)
    again = 7
    if damage == "rows cut off":
        os.truncate(rows, 3 * ROW_BYTES)
    elif damage == "a row changed":
        with rows.open("r+b") as file:
            file.seek(5 * ROW_BYTES + 100)
            file.write(b"\0\0\0\0")
        again = 1
    elif damage == "a number in the index":
        index.write_bytes(index.read_bytes().replace(b'"row": 2', b'"row": 1'))
    elif damage == "a size in the index":
        size = clips[3].path.stat().st_size
        index.write_bytes(b"".join(lines).replace(b'"size": %d' % size, b'"size": %d' % (size + 1)))
    elif damage == "no index":
        index.unlink()
    elif damage == "no rows":
        rows.unlink()
    else:
        header = json.loads(lines[0].rpartition(b" ")[0])
        header["versions"]["numpy"] = "1.0"
        text = json.dumps(header).encode()
        index.write_bytes(b"%s %08x\n" % (text, zlib.crc32(text)) + b"".join(lines[1:]))
    check(clips)
    assert computed() == again
    check(clips)
    assert computed() == 0


def test_a_cache_that_is_made_anew_leaves_others_what_they_read(clips: list[Clip], cache: Path) -> None:
    windows = check(clips)
    kept = windows.log_mel.copy()
    only(cache, ".jsonl").write_bytes(b"what is this\n")
    check(clips[:1])
    assert np.array_equal(windows.log_mel, kept)


def test_clips_that_change_often_do_not_fill_the_disk(clips: list[Clip], cache: Path) -> None:
    for n in range(9):
        for number, clip in enumerate(clips[:2]):
            write(clip.path, 100 + 2 * n + number, 0.5)
        check(clips[:2])
    assert only(cache, ".f32").stat().st_size <= 6 * ROW_BYTES


@pytest.mark.parametrize("way", ["a file", "full"])
def test_a_cache_that_cannot_be_written(
    clips: list[Clip], tmp_path: Path, way: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    if way == "full":
        # The real disk's answer, after two clips; the temporary file has no cache folder.
        real = feature_file.FeatureFile.add

        def add(self: feature_file.FeatureFile, path: Path) -> feature_file.Entry:
            if hasattr(self, "path") and len(list(self._entries)) == 2:
                with Path("/dev/full").open("wb", buffering=0) as full:
                    full.write(b"0")
            return real(self, path)

        monkeypatch.setattr(feature_file.FeatureFile, "add", add)
    with cache_in(tmp_path / ("file" if way == "a file" else "cache")):
        check(clips)
    said = capsys.readouterr().err.replace("\r", "\n").splitlines()
    (warning,) = [line for line in said if "cannot be kept" in line]
    assert ("No space left on device" if way == "full" else "file") in warning


def test_two_processes_at_one_folder(clips: list[Clip], cache: Path, computed: Count) -> None:
    """Both add clips at the same time, and what is there afterwards is whole."""
    program = f"""
import sys
from edge_asd_train.cache_folder import cache_in
from edge_asd_train.corpus import Clip, load_windows
from edge_asd.logmel import LogMelParameters
from pathlib import Path
clips = [Clip(Path(p), "id_00", False, "r") for p in sys.argv[2:]]
sys.stdin.readline()
with cache_in(Path({str(cache)!r})):
    for n in range(len(clips)):
        load_windows(clips[: n + 1], LogMelParameters(n_mels=16, hop_length=1024), title=sys.argv[1])
"""
    paths = [str(c.path) for c in clips]
    running = [
        subprocess.Popen([sys.executable, "-c", program, name, *order], stdin=subprocess.PIPE, stderr=subprocess.PIPE)
        for name, order in (("a", paths), ("b", paths[::-1]))
    ]
    for process in running:
        assert process.stdin is not None
        process.stdin.write(b"\n")
        process.stdin.flush()
    for process in running:
        _, said = process.communicate(timeout=60)
        assert process.returncode == 0, said
        assert b"damaged" not in said
    check(clips)
    assert computed() == 0
    assert only(cache, ".f32").stat().st_size == 7 * ROW_BYTES, "nothing was computed twice"


def test_where_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with cache_in(None):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        assert cache_folder() == tmp_path / "edge-asd" / "log-mel"
    with cache_in(tmp_path / "own"):
        assert cache_folder() == tmp_path / "own"


def test_the_files_are_not_where_clips_are_looked_for(clips: list[Clip], cache: Path, tmp_path: Path) -> None:
    check(clips)
    shutil.rmtree(cache)
    assert sorted(p.name for p in (tmp_path / "train").iterdir()) == [c.path.name for c in clips]
