"""Evidence on disk: the budget at every moment, leftovers, foreign files, rights, disks that are short."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_asd.publish.evidence_folder import BudgetError, EvidenceFolder, ShortDiskError

BEGIN = datetime(2026, 11, 24, 12, 0, 0, tzinfo=UTC)
LIMIT = 100_000


def size_of(folder: Path) -> int:
    """All bytes below it, as ``du`` or as ``ls`` counts them, whatever is more; without the folders themselves."""
    files = [p.lstat() for p in folder.rglob("*") if not p.is_dir()]
    return max(sum(f.st_size for f in files), sum(f.st_blocks * 512 for f in files))


def incidents(folder: Path) -> set[str]:
    return {p.stem.split("-", 1)[1] for p in folder.rglob("*.*") if not p.name.startswith(".")}


class Writer:
    """Writes incident after incident, a minute apart."""

    def __init__(self, folder: EvidenceFolder) -> None:
        self.folder, self.number = folder, 0

    def __call__(self, size: int, *, machine: str = "rail-7", kind: str = "png", open_: Any = ()) -> str:
        self.number += 1
        incident = str(uuid.UUID(int=self.number))
        self.folder.write(machine, incident, BEGIN + timedelta(minutes=self.number), kind, b"x" * size, open_)
        return incident


class Watch:
    """Looks all the time at how much there is in a folder."""

    def __init__(self, folder: Path) -> None:
        self.most, self._folder, self._stop = 0, folder, threading.Event()
        self._thread = threading.Thread(target=self._look)

    def _look(self) -> None:
        while not self._stop.is_set():
            try:
                self.most = max(self.most, size_of(self._folder))
            except OSError:
                continue  # a file went while it was looked at

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


# --------------------------------------------------------------------------------------------------------- budget


@settings(max_examples=30, deadline=None)
@given(
    sizes=st.lists(st.tuples(st.integers(0, 130_000), st.booleans(), st.sampled_from(["rail", "fan"])), max_size=12),
    leftovers=st.lists(st.integers(0, 60_000), max_size=3),
)
def test_the_budget_holds_whatever_is_written(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[tuple[int, bool, str]], leftovers: list[int]
) -> None:
    root = tmp_path_factory.mktemp("evidence")
    (root / "rail").mkdir()
    for number, size in enumerate(leftovers):
        (root / "rail" / f".20261124T120000Z-{uuid.UUID(int=number)}.png.part").write_bytes(b"y" * size)
    folder = EvidenceFolder(root, most_bytes=LIMIT)
    folder.tidy()
    write, open_ = Writer(folder), set[str]()
    for size, stays_open, machine in sizes:
        before = incidents(root)
        try:
            incident = write(size, machine=machine, open_=open_)
        except BudgetError:
            assert -(-size // 4096) * 4096 > LIMIT and incidents(root) == before, "nothing goes in vain"
            continue
        assert incident in incidents(root)
        assert size_of(root) <= LIMIT and folder.bytes <= LIMIT and folder.bytes >= size_of(root)
        gone = before - incidents(root)
        assert not gone & open_ or not (incidents(root) - {incident} - open_), "open incidents go last"
        if stays_open:
            open_.add(incident)


def test_the_budget_holds_at_every_moment(tmp_path: Path) -> None:
    folder = EvidenceFolder(tmp_path, most_bytes=400_000)
    folder.tidy()
    write = Writer(folder)
    with Watch(tmp_path) as watch:
        for number in range(60):
            write(30_000 + 1000 * number)
    assert 300_000 < watch.most <= 400_000


def test_the_oldest_goes_first_and_open_incidents_last(tmp_path: Path) -> None:
    write = Writer(EvidenceFolder(tmp_path, most_bytes=LIMIT))
    first, second, third = (write(28_000) for _ in range(3))  # 28,672 each
    assert incidents(tmp_path) == {first, second, third}
    fourth = write(28_000, open_={first})
    assert incidents(tmp_path) == {first, third, fourth}
    fifth = write(80_000, open_={first, third})
    assert incidents(tmp_path) == {fifth}, "open ones too, where nothing else is left"


def test_one_incident_never_gives_way_to_its_own_sound(tmp_path: Path) -> None:
    folder = EvidenceFolder(tmp_path, most_bytes=LIMIT)
    incident = str(uuid.uuid4())
    other = Writer(folder)(20_000)
    folder.write("rail-7", incident, BEGIN, "png", b"p" * 50_000, ())
    with pytest.raises(BudgetError, match=r"0\.1 MB more do not fit into 0\.1 MB"):
        folder.write("rail-7", incident, BEGIN, "flac", b"s" * 60_000, ())
    assert set(folder.find("rail-7", incident)) == {"png"}
    assert incidents(tmp_path) == {incident, other}, "nothing was given up for what does not fit anyway"
    folder.write("rail-7", incident, BEGIN, "flac", b"s" * 40_000, ())
    assert set(folder.find("rail-7", incident)) == {"png", "flac"} and incidents(tmp_path) == {incident}
    assert folder.find("rail-8", incident) == {}


def test_a_smaller_budget_counts_at_the_next_start(tmp_path: Path) -> None:
    write = Writer(EvidenceFolder(tmp_path, most_bytes=LIMIT))
    made = [write(20_000) for _ in range(4)]
    smaller = EvidenceFolder(tmp_path, most_bytes=45_000)
    smaller.tidy()
    assert incidents(tmp_path) == set(made[2:]) and smaller.bytes == 2 * 20_480


def test_several_daemons_share_a_folder(tmp_path: Path) -> None:
    """Neither takes what the other is writing for a leftover, and together they keep to the budget."""
    failures: list[Exception] = []

    def run(machine: str) -> None:
        write = Writer(EvidenceFolder(tmp_path, most_bytes=LIMIT))
        try:
            for _ in range(40):
                write(15_000, machine=machine)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(name,)) for name in ("rail", "fan", "pump")]
    EvidenceFolder(tmp_path, most_bytes=LIMIT).tidy()
    with Watch(tmp_path) as watch:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert failures == [] and 0 < watch.most <= LIMIT


# -------------------------------------------------------------------------------------- what crashes and people leave


def test_leftovers_go_and_foreign_files_stay(tmp_path: Path) -> None:
    machine = tmp_path / "rail-7"
    machine.mkdir()
    name = f"20261124T120000Z-{uuid.uuid4()}"
    leftover = machine / f".{name}.flac.part"
    leftover.write_bytes(b"x" * 90_000)
    foreign = [
        tmp_path / "notes.txt",
        tmp_path / f"{name}.png",  # not in a machine's folder
        machine / "20261124T120000Z-holiday.png",
        machine / f"{name}.jpeg",
        machine / f"{name.upper()}.png",
        machine / ".draft.part",
        tmp_path / "Lost and Found" / f"{name}.png",
    ]
    foreign[-1].parent.mkdir()
    for path in foreign:
        path.write_bytes(b"f" * 50_000)
    (machine / f"{name}.png").symlink_to(tmp_path / "notes.txt")
    folder = EvidenceFolder(tmp_path, most_bytes=LIMIT)
    folder.tidy()
    assert not leftover.exists() and folder.bytes == 0
    write = Writer(folder)
    for _ in range(10):
        write(40_000)
    assert all(path.read_bytes() == b"f" * 50_000 for path in foreign)
    assert (machine / f"{name}.png").is_symlink()
    ours = [p for p in machine.iterdir() if p.read_bytes().startswith(b"x")]
    assert sum(p.stat().st_size for p in ours) == 80_000


def test_a_killed_writer_leaves_nothing_that_counts(tmp_path: Path) -> None:
    """Killed again and again while it writes: what has a name is whole, and the next one cleans up."""
    code = (
        "import sys, uuid, datetime as d; from pathlib import Path\n"
        "from edge_asd.publish.evidence_folder import EvidenceFolder\n"
        "f = EvidenceFolder(Path(sys.argv[1]), most_bytes=3_000_000); print('go', flush=True)\n"
        "while True: f.write('rail', str(uuid.uuid4()), d.datetime.now(d.UTC), 'png', b'x' * 900_000, ())\n"
    )
    for number in range(4):
        process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE)
        assert process.stdout is not None and process.stdout.readline() == b"go\n"
        time.sleep(0.05 + 0.03 * number)
        process.kill()
        process.communicate()
        assert size_of(tmp_path) <= 3_000_000
        assert all(p.stat().st_size == 900_000 for p in tmp_path.rglob("*.png"))
    (tmp_path / "rail" / f".20261124T120000Z-{uuid.uuid4()}.png.part").write_bytes(b"half")
    EvidenceFolder(tmp_path, most_bytes=3_000_000).tidy()
    assert not list(tmp_path.rglob(".*.part"))


# --------------------------------------------------------------------------------------------------------- rights


@pytest.fixture
def strict_umask() -> Iterator[None]:
    before = os.umask(0o077)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_group_may_read_and_nobody_else(tmp_path: Path, strict_umask: None) -> None:
    group = 12_345 if os.geteuid() == 0 else os.getegid()
    root = tmp_path / "state" / "evidence"
    folder = EvidenceFolder(root, most_bytes=LIMIT, group=group)
    path = folder.write("rail-7", str(uuid.uuid4()), BEGIN, "flac", b"sound", ())
    assert path.parent == root / "rail-7" and path.name.startswith("20261124T120000Z-")
    assert (mode(root), mode(root / "rail-7"), mode(path)) == (0o750, 0o750, 0o640)
    assert {p.stat().st_gid for p in (root, root / "rail-7", path)} == {group}


def test_a_folder_that_was_set_up_keeps_its_rights(tmp_path: Path) -> None:
    tmp_path.chmod(0o2770)
    EvidenceFolder(tmp_path, most_bytes=LIMIT, group=12_345 if os.geteuid() == 0 else None).tidy()
    assert mode(tmp_path) == 0o2770 and tmp_path.stat().st_gid != 12_345


# ---------------------------------------------------------------------------------------------------- short disks


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("only root mounts a file system")
    place = tmp_path / "disk"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", place], capture_output=True).returncode:
        pytest.skip("nothing can be mounted here")
    yield place
    subprocess.run(["umount", place], check=True)


def test_nothing_is_written_on_a_short_disk(small_disk: Path) -> None:
    write = Writer(EvidenceFolder(small_disk / "evidence", most_bytes=3_000_000))
    kept = write(1_000_000)
    other = small_disk / "other"
    other.write_bytes(b"o" * 2_700_000)  # some 490 kB are left; 210 kB stay free
    with pytest.raises(ShortDiskError, match=r"evidence: only 0 MB are free on this disk; 0 MB stay free"):
        write(350_000)
    assert incidents(small_disk / "evidence") == {kept}, "what is there stays"
    small = write(100_000)
    other.unlink()
    large = write(350_000)
    assert incidents(small_disk / "evidence") == {kept, small, large}, "and on it goes"


def test_the_limit_is_checked_against_the_real_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = os.statvfs(tmp_path)
    monkeypatch.setattr("edge_asd.publish.evidence_folder.KEEP_FREE_SHARE", 1.0)
    monkeypatch.setattr("edge_asd.publish.evidence_folder.KEEP_FREE_BYTES", disk.f_bavail * disk.f_frsize + 10**9)
    folder = EvidenceFolder(tmp_path / "evidence", most_bytes=LIMIT)
    with pytest.raises(ShortDiskError):
        Writer(folder)(1000)
    assert size_of(tmp_path) == 0


def full(place: Path) -> Callable[[], None]:
    """Fills a disk to its last block."""
    with (place / "filler").open("wb", buffering=0) as file:
        while True:
            try:
                file.write(b"f" * 4096)
            except OSError:
                break
    return (place / "filler").unlink


def test_a_disk_that_fills_up_meanwhile_leaves_no_part_behind(
    small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(EvidenceFolder, "_check_disk", lambda *_: None)  # somebody else writes after the look
    folder = EvidenceFolder(small_disk / "evidence", most_bytes=3_000_000)
    folder.tidy()
    make_room = full(small_disk)
    with pytest.raises(OSError, match="No space left"):
        Writer(folder)(500_000)
    assert not list((small_disk / "evidence").rglob("*.*png*"))
    make_room()
    assert Writer(folder)(500_000) in incidents(small_disk / "evidence")
