"""A daemon that no state folder was named to, and a command of somebody with another home."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from parts.daemon import Daemon, write_config

from edge_asd.state_folder import state_folder

pytestmark = pytest.mark.system


def test_it_keeps_all_in_one_folder_and_mute_finds_it(tmp_path: Path, tiny: Callable[..., bytes]) -> None:
    (tmp_path / "good.onnx").write_bytes(tiny())
    machine = "name: press, channel: 1, detectors: [good.onnx], hop_seconds: 1, alarm: {threshold: 11}"
    config = write_config(tmp_path / "press.yaml", machine, mqtt=None, device="name: no such")
    daemon = Daemon(config)  # gives it a home of its own
    try:
        daemon.wait_for("ready")
        folder = state_folder(config, None, {"XDG_STATE_HOME": str(tmp_path / "state")})
        names = {path.name for path in folder.iterdir()}
        assert {"press.sqlite", "press.sqlite.lock", "press.maintenance.json"} <= names
        assert daemon.wait_for("evidence")["folder"] == str(folder / "evidence")
        done = subprocess.run(
            [sys.executable, "-m", "edge_asd.cli", "mute", "press", "--hours", "1", "-c", "press.yaml"],
            cwd=tmp_path,
            env=os.environ | {"XDG_STATE_HOME": str(tmp_path / "another")},
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, ""), "a daemon reads it"
        assert daemon.wait_for("muted", 10)["machine"] == "press"
    finally:
        daemon.kill()
