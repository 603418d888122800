"""Where a daemon keeps its state, and that the commands find the same."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
from parts.processes import write_process

from edge_asd import state_folder as module
from edge_asd.calibration import Calibration
from edge_asd.errors import ConfigurationError
from edge_asd.publish.outbox_lock import database_path
from edge_asd.site_calibration import SiteCalibration, site_calibration_path, write_site_calibration
from edge_asd.state_folder import make_state_folder, state_folder, state_folder_in_use


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's, and no folder is named."""
    for name in ("STATE_DIRECTORY", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def test_what_is_said_comes_first_then_systemd_then_the_users(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = Path("/plant/press hall.yaml")
    digits = hashlib.sha256(b"/plant/press hall.yaml").hexdigest()[:8]
    own = f"edge-asd/press hall-{digits}"
    assert state_folder(config) == home / ".local/state" / own
    monkeypatch.setenv("XDG_STATE_HOME", "not/absolute")
    assert state_folder(config) == home / ".local/state" / own
    monkeypatch.setenv("XDG_STATE_HOME", "/states")
    assert state_folder(config) == Path("/states") / own
    monkeypatch.setenv("STATE_DIRECTORY", "/var/lib/edge-asd/press:/var/lib/other")
    assert state_folder(config) == state_folder_in_use(config) == Path("/var/lib/edge-asd/press")
    assert state_folder(config, Path("kept")) == state_folder_in_use(config, Path("kept")) == Path("kept")


def test_two_configurations_of_one_name_share_nothing_and_one_is_the_same_from_everywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = tmp_path / "a" / "press.yaml", tmp_path / "b" / "press.yaml"
    assert database_path(state_folder(first), "press") != database_path(state_folder(second), "press")
    first.parent.mkdir()
    monkeypatch.chdir(first.parent)
    assert state_folder(Path("press.yaml")) == state_folder(Path("../a/press.yaml")) == state_folder(first)


def test_a_user_without_a_home_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("pwd.getpwuid", {}.__getitem__)  # raises KeyError: the user has no entry
    with pytest.raises(ConfigurationError, match="give --state DIR"):
        state_folder(Path("press.yaml"))


@pytest.mark.parametrize(
    ("options", "environment", "found"),
    [
        (("--state", "kept"), b"XDG_STATE_HOME=/states\0", "/hall/kept"),
        ((), b"STATE_DIRECTORY=/var/lib/x\0HOME=/home/bob\0", "/var/lib/x"),
        ((), b"HOME=/home/bob\0", "/home/bob/.local/state/edge-asd/press-"),
        ((), None, None),  # another user's daemon, seen by none but root
    ],
)
def test_root_finds_the_folder_of_the_daemon_that_runs(
    home: Path, tmp_path: Path, options: tuple[str, ...], environment: bytes | None, found: str | None
) -> None:
    config, proc = tmp_path / "press.yaml", tmp_path / "proc"
    daemon = ("edge-asd", "run", "-c")
    write_process(proc, 7, *daemon, str(config), "--state", "/stranger's", users=(65_534,) * 4)
    write_process(proc, 8, *daemon, str(tmp_path / "other.yaml"), "--state", "other")
    write_process(proc, 9, *daemon, str(config), *options, environment=environment)
    folder = str(state_folder_in_use(config, proc=proc))
    assert folder.startswith(found or str(home))
    assert state_folder_in_use(config, Path("/given"), proc=proc) == Path("/given")


def test_a_daemon_whose_file_is_a_link_to_itself_is_in_nobodys_way(home: Path, tmp_path: Path) -> None:
    config, circle, proc = (tmp_path / name for name in ("press.yaml", "circle.yaml", "proc"))
    circle.symlink_to(circle.name)
    daemon = ("edge-asd", "run", "-c")
    write_process(proc, 8, *daemon, str(circle), "--state", "other")
    write_process(proc, 9, *daemon, str(config), "--state", "kept")
    assert state_folder_in_use(config, proc=proc) == Path("/hall/kept")
    assert state_folder_in_use(circle, proc=proc) == Path("/hall/other")


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the state folders of its units are made; its configurations are in the folder ``etc``."""
    monkeypatch.setattr(module, "_PACKAGE", (tmp_path / "etc", tmp_path / "lib" / "edge-asd"))
    (tmp_path / "proc").mkdir()
    (tmp_path / "lib").mkdir()
    return tmp_path / "lib" / "edge-asd"


def test_root_finds_the_folder_of_the_packages_unit_while_it_does_not_run(
    home: Path, tmp_path: Path, package: Path
) -> None:
    config, proc = tmp_path / "etc" / "press.yaml", tmp_path / "proc"
    package.touch()  # no folder can be made in it
    assert state_folder_in_use(config, proc=proc) == state_folder(config)
    package.unlink()
    (package / "press").mkdir(parents=True)
    assert state_folder_in_use(config, proc=proc) == package / "press"
    assert state_folder(config).is_relative_to(home), "only systemd starts the daemon there"
    elsewhere = tmp_path / "press.yaml"
    assert state_folder_in_use(elsewhere, proc=proc) == state_folder(elsewhere)


@pytest.mark.parametrize("is_first", [True, False])
def test_root_makes_the_folder_of_the_packages_unit_before_its_first_start_as_systemd_would(
    home: Path, tmp_path: Path, package: Path, is_first: bool
) -> None:
    """Else what is muted or calibrated before the first start went where no daemon looks."""
    if not is_first:
        package.mkdir()
    folder = state_folder_in_use(tmp_path / "etc" / "press.yaml", proc=tmp_path / "proc")
    assert folder == package / "press" and not folder.exists(), "`check` only looks"
    before = os.umask(0o077)
    try:
        make_state_folder(folder)
        make_state_folder(folder)
        make_state_folder(home / "a" / "b")
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in (package, folder)} == {0o755}
    assert (home / "a" / "b").stat().st_mode & 0o777 == 0o700, "a user's own is as the user wants it"


def test_what_root_calibrates_before_the_first_start_is_there(tmp_path: Path, package: Path) -> None:
    folder = state_folder_in_use(tmp_path / "etc" / "press.yaml", proc=tmp_path / "proc")
    path = site_calibration_path(tmp_path / "etc" / "cae.onnx", "rail", folder)
    calibration = Calibration.from_scores([float(n) for n in range(20)], level_dbfs=-30.0, source="drawn by a test")
    before = os.umask(0o077)
    try:
        write_site_calibration(
            path, SiteCalibration(sha256="ab" * 32, machine="rail", id="id_00", calibration=calibration)
        )
    finally:
        os.umask(before)
    assert path.parent == package / "press" and path.parent.stat().st_mode & 0o777 == 0o755
