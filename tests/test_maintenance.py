"""Maintenance: its file, and the command that writes it."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import stat
import tempfile
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from parts.muting import mute

from edge_asd import cli
from edge_asd.maintenance import (
    MOST_HOURS,
    Maintenance,
    MaintenanceBook,
    MaintenanceError,
    Presence,
    maintenance_path,
    read_book,
)
from edge_asd.state_folder import state_folder

NOW = datetime(2026, 11, 24, 17, 0, tzinfo=UTC)
TOPIC = "edge_asd/plant-3/hall/machine/{}/maintenance/set"
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return maintenance_path(tmp_path, "press")


# ---------------------------------------------------------------------------------------------------------- the file


def test_what_was_written_is_read(path: Path) -> None:
    assert read_book(path) == MaintenanceBook()
    maintenance = mute(path, "rail-7")
    mute(path, "rail-8", 0.5)
    book = read_book(path)
    assert book.of("rail-7", datetime.now(UTC)) == maintenance
    assert book.of("rail-9", datetime.now(UTC)) is None
    assert (maintenance.until - maintenance.since) == timedelta(hours=2)
    assert [p.name for p in path.parent.iterdir()] == ["press.maintenance.json"], "nothing else is left"
    assert stat.S_IMODE(path.stat().st_mode) == 0o644, "the daemon may be another user"


@pytest.mark.parametrize("hours", [0.0, -1.0, MOST_HOURS + 0.1, float("nan"), float("inf")])
def test_hours_that_nobody_means(hours: float) -> None:
    with pytest.raises(ValueError, match=r"at most 744 \(31 days\)"):
        Maintenance.of(hours, "mia", NOW)


def test_it_lasts_until_its_end_and_never_longer_than_the_longest() -> None:
    book = MaintenanceBook().noted("rail-7", Maintenance.of(2, "mia", NOW))
    for hours, is_muted in [(0, True), (1.99, True), (2, False), (1000, False), (-MOST_HOURS + 3, True)]:
        assert (book.of("rail-7", NOW + timedelta(hours=hours)) is not None) is is_muted, hours
    # The clock was set back by years: nobody is to be deaf for years.
    assert book.of("rail-7", NOW - timedelta(days=900)) is None
    ended = Maintenance.of(2, "mia", NOW).ended("tom", NOW + timedelta(hours=1))
    assert not ended.lasts(NOW + timedelta(hours=1)) and ended.by == "tom"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "no JSON"),
        (b'{"machines": {"rail-7": {"until": "20', "no JSON"),
        (b"[" * 100_000, "no JSON"),
        (b"\xff", "no JSON"),
        (b"[]", "is damaged at the top"),
        (b'{"schema": 2}', "is damaged at schema"),
        (b'{"machines": {"rail-7": {"since": "2026-11-24T17:00:00", "until": "x", "by": "a"}}}', "machines.rail-7"),
    ],
)
def test_a_damaged_file_is_an_error_that_says_what_to_do(path: Path, content: bytes, says: str) -> None:
    path.write_bytes(content)
    with pytest.raises(MaintenanceError, match=rf"^{re.escape(str(path))}: .*{re.escape(says)}.*; remove it$"):
        read_book(path)


def test_writers_at_the_same_time_lose_nothing(path: Path) -> None:
    names = [f"rail-{n}" for n in range(12)]
    threads = [threading.Thread(target=mute, args=(path, name)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(read_book(path).machines) == set(names)


def test_who_keeps_the_folder_locked_cannot_stop_the_daemon(path: Path) -> None:
    handle = os.open(path.parent, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    began = time.monotonic()
    try:
        with pytest.raises(MaintenanceError, match="another process keeps it locked"):
            mute(path, "rail-7")
    finally:
        os.close(handle)
    assert time.monotonic() - began < 5 and not path.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_root_and_the_daemons_user_replace_each_others_file() -> None:
    """As under systemd's DynamicUser: the folder is the daemon's, the command is root's."""
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    nobody = 65534
    try:
        os.chown(folder, nobody, nobody)
        folder.chmod(0o755)
        path = maintenance_path(folder, "press")

        def as_user(user: int) -> int:
            child = os.fork()
            if child == 0:
                status = 1
                try:
                    os.setgid(user)
                    os.setuid(user)
                    mute(path, f"of-{user}")
                    status = 0
                except MaintenanceError as error:
                    status = 2 if "run it as root, or as the daemon's user" in str(error) else 3
                finally:
                    os._exit(status)
            return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

        mute(path, "of-root")
        assert as_user(nobody) == 0
        mute(path, "of-root-again")
        assert as_user(nobody) == 0
        assert as_user(12345) == 2, "anybody else is told what to do"
        assert set(read_book(path).machines) == {"of-root", "of-root-again", f"of-{nobody}"}
    finally:
        shutil.rmtree(folder)


# ------------------------------------------------------------------------------------------------------- the command

CONFIG = """\
site: plant-3
node: hall
machines:
  - {name: rail-7, recordings: sound, detectors: [a.onnx]}
  - {name: rail-8, recordings: sound, detectors: [a.onnx]}
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "press.yaml"
    file.write_text(CONFIG)
    return file


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """edge-asd mute in this process; gives exit status, standard output and error."""
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)

    def run(*arguments: str | Path) -> tuple[int, str, str]:
        status = cli.main(["mute", *map(str, arguments)])
        said = capsys.readouterr()
        assert "Traceback" not in said.err
        return status, said.out, said.err

    return run


def test_mute_list_and_off(run: Run, config: Path, tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir()
    path = maintenance_path(state, "press")
    presence = Presence(path)
    status, out, errors = run("rail-7", "--hours", "0.5", "-c", config, "--state", state)
    assert (status, errors) == (0, ""), "a daemon reads it"
    current = read_book(path).of("rail-7", datetime.now(UTC))
    assert current is not None and current.until - current.since == timedelta(minutes=30) and current.by
    assert out.startswith("rail-7: in maintenance until 20")
    # Without the configuration, the file says which machines there are.
    status, out, _ = run("--list", "--state", state)
    assert status == 0 and re.fullmatch(r"rail-7  in maintenance until .+, by \w+\n", out)
    assert run("--list", "-c", config, "--state", state)[1].splitlines()[1] == "rail-8  -"
    assert run("rail-7", "--off", "--state", state) == (0, "rail-7: maintenance is over\n", "")
    assert run("rail-7", "--off", "--state", state) == (0, "rail-7: is not in maintenance\n", "")
    assert read_book(path).of("rail-7", datetime.now(UTC)) is None
    presence.end()
    assert "no daemon reads" in run("rail-7", "--hours", "1", "--state", state)[2]


def test_the_state_folder_is_systemds_then_the_configurations(
    run: Run, config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("rail-7", "--hours", "1", "-c", config)[0] == 0
    assert set(read_book(maintenance_path(state_folder(config), "press")).machines) == {"rail-7"}
    monkeypatch.setenv("XDG_STATE_HOME", str(config))
    assert "Not a directory: run it as root, or as" in run("rail-7", "--hours", "1", "-c", config)[2]
    (tmp_path / "systemd").mkdir()
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path / "systemd"))
    assert run("rail-8", "--hours", "1", "-c", config)[0] == 0
    assert set(read_book(maintenance_path(tmp_path / "systemd", "press")).machines) == {"rail-8"}


def test_what_cannot_be_meant_is_one_line(run: Run, config: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    two = tmp_path / "two"
    two.mkdir()
    for instance in ("hall-1", "hall-2"):
        mute(maintenance_path(two, instance), "rail-7")
    (tmp_path / "damaged").mkdir()
    maintenance_path(tmp_path / "damaged", "press").write_text("{")
    for arguments, expected, says in [
        (["rail-9", "--hours", "2", "-c", config], 2, "there is no machine 'rail-9'; there are: rail-7, rail-8"),
        (["rail-7", "--hours", "0", "-c", config], 2, "--hours must be above 0 and at most 744 (31 days), not 0"),
        (["rail-7", "--hours", "745", "-c", config], 2, "at most 744 (31 days)"),
        (["rail-7", "--hours", "nan", "-c", config], 2, "at most 744 (31 days)"),
        (["--off", "-c", config], 2, "say which MACHINE"),
        (["rail-7", "--list", "-c", config], 2, "leave MACHINE out"),
        (["rail-7", "--hours", "2"], 2, "-c FILE names the daemon's configuration, or --state DIR"),
        (["rail-7", "--hours", "2", "--state", empty], 2, "no daemon has kept its state in"),
        (["rail-7", "--hours", "2", "-c", config, "--state", tmp_path / "none"], 2, "is no folder"),
        (["rail-7", "--hours", "2", "--state", two], 2, "rail-7 is a machine of several daemons"),
        (["rail-7", "--hours", "2", "-c", config, "--state", tmp_path / "damaged"], 1, "is damaged, no JSON"),
        (["rail-7", "--hours", "2", "-c", tmp_path / "none.yaml"], 78, "No such file or directory"),
    ]:
        status, out, errors = run(*arguments)
        assert (status, out) == (expected, ""), arguments
        assert says in errors and errors.count("\n") == 1, errors
    assert not maintenance_path(state_folder(config), "press").exists()
