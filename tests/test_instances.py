"""Daemons that run now, found by what /proc shows."""

from __future__ import annotations

from pathlib import Path

import pytest
from parts.daemon import Daemon, write_config

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


def write_process(proc: Path, pid: int, *arguments: str, cwd: Path | None, environment: bytes = b"") -> None:
    folder = proc / str(pid)
    folder.mkdir(parents=True)
    (folder / "cmdline").write_bytes(b"".join(a.encode() + b"\0" for a in arguments))
    (folder / "environ").write_bytes(environment)
    if cwd is not None:
        (folder / "cwd").symlink_to(cwd)


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
