"""Daemons that run now, found by what /proc shows."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from parts.daemon import Daemon, write_config
from parts.processes import write_process
from parts.waiting import until

from edge_asd.instances import run_options, running_instances


@pytest.mark.parametrize(
    ("line", "options"),
    [
        ("/opt/venv/bin/python3 /opt/venv/bin/edge-asd run -c a.yaml", ["-c", "a.yaml"]),
        ("edge-asd run -c a.yaml", ["-c", "a.yaml"]),
        ("python -X dev -m edge_asd.cli run --config=a.yaml", ["--config=a.yaml"]),
        ("edge-asd record -c a.yaml", None),
        ("edge-asd", None),
        ("sudo edge-asd run -c a.yaml", None),
        ("vim edge-asd run", None),
        ("python -m pytest run", None),
    ],
)
def test_what_is_a_daemon(line: str, options: list[str] | None) -> None:
    assert run_options(line.split()) == options


def test_paths_start_where_the_daemon_does(tmp_path: Path) -> None:
    proc, hall = tmp_path / "proc", tmp_path / "hall"
    (proc / "self").mkdir(parents=True)
    write_process(proc, 10, "edge-asd", "run", "-c", "press.yaml", cwd=hall, environment=b"A=1\0STATE_DIRECTORY=/s\0")
    write_process(proc, 9, "edge-asd", "run", "-cpress.yaml", "--state", "state", cwd=hall)
    write_process(proc, 11, "edge-asd", "run", "--config=/etc/p.yaml", cwd=None)
    write_process(proc, 12, "edge-asd", "run", "-c", "p.yaml", cwd=None)
    write_process(proc, 13, "edge-asd", "replay", "-c", "p.yaml", cwd=hall)
    found = {i.pid: (i.config, i.state) for i in running_instances(proc)}
    assert list(found) == [9, 10, 11, 12]
    assert found[9] == (hall / "press.yaml", hall / "state")
    assert found[10] == (hall / "press.yaml", Path("/s"))
    assert found[11] == (Path("/etc/p.yaml"), None)
    assert found[12] == (None, None)
    assert "p.yaml is relative to a folder that cannot be seen" in (running_instances(proc)[3].reason or "")


def named_by(proc: Path, pid: int, **more: object) -> str | None:
    """What is said against a process that names /etc/p.yaml; None where it is believed."""
    write_process(proc, pid, "edge-asd", "run", "-c", "/etc/p.yaml", "--state", "/s", **more)  # type: ignore[arg-type]
    found = next(i for i in running_instances(proc) if i.pid == pid)
    assert (found.config, found.state) == ((Path("/etc/p.yaml"), Path("/s")) if found.reason is None else (None, None))
    return found.reason


def test_a_command_line_is_believed_of_root_oneself_and_systemds_users(tmp_path: Path) -> None:
    me = os.geteuid()
    for pid, user in enumerate((0, me, 61_184, 65_519), start=10):
        assert named_by(tmp_path, pid, users=(user,) * 4) is None
    for pid, user in enumerate({1_000, 61_183, 65_520, 65_534} - {me}, start=20):
        assert "who can call any program so" in (named_by(tmp_path, pid, users=(user,) * 4) or "")
    assert "belongs to user nobody" in (named_by(tmp_path, 30, users=(65_534,) * 4) or "")


def test_what_anybody_may_run_as_root_is_not_believed(tmp_path: Path) -> None:
    """``exec -a edge-asd su run -c ...``: the effective user is root while su asks; with sudo all of them are."""
    assert "who can call any program so" in (named_by(tmp_path / "proc", 10, users=(1_000, 0, 0, 0)) or "")
    sudo = tmp_path / "sudo"
    sudo.touch()
    sudo.chmod(0o4755)
    assert "anybody can start" in (named_by(tmp_path / "proc", 11, users=(0, 0, 0, 0), exe=sudo) or "")


@pytest.fixture
def stranger(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process of user nobody's, called like a daemon of /etc/edge-asd/press.yaml."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to be another user")
    arguments = ["python3", "-c", "read -r line", "edge-asd", "run", "-c", "/etc/edge-asd/press.yaml"]
    with subprocess.Popen(
        [*arguments, "--state", str(tmp_path)], executable="/bin/sh", user=65_534, cwd="/", stdin=subprocess.PIPE
    ) as process:
        yield process
        process.kill()


def test_another_users_program_is_not_believed(stranger: subprocess.Popen[bytes]) -> None:
    found = until(lambda: [i for i in running_instances() if i.pid == stranger.pid], "the process")[0]
    assert (found.config, found.state) == (None, None)
    assert found.reason == "it belongs to user nobody, who can call any program so"


def test_a_real_daemon_is_found(tmp_path: Path, write_recording: object, tiny: object) -> None:
    """Even before it is ready, and even though its configuration names nothing that is there."""
    config = write_config(tmp_path / "hall.yaml", "name: a, recordings: no.wav, detectors: [no.onnx]", mqtt=None)
    daemon = Daemon(config)
    try:
        found = []
        while not found and daemon.process.poll() is None:
            found = [i for i in running_instances() if i.pid == daemon.process.pid]
        assert found and found[0].config == config
    finally:
        daemon.kill()
