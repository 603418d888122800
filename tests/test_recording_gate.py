"""When a machine that is being recorded counts as running."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from edge_asd.calibration import learned_gate
from edge_asd.config import MachineSection
from edge_asd.config_file import load_config
from edge_asd.detector import Detector
from edge_asd.recording_gate import recording_gate


def machine(tmp_path: Path, *lines: str) -> tuple[Path, MachineSection]:
    path = tmp_path / "press.yaml"
    path.write_text(
        "site: plant\nnode: hall\nmqtt: {host: broker}\ndevice: {name: USB}\n"
        "machines:\n  - name: rail\n    channel: 1\n" + "".join(f"    {line}\n" for line in lines)
    )
    return path, load_config(path).machines[0]


def gate(path: Path) -> float | None:
    config = load_config(path)
    return recording_gate(config, config.machines[0], None)


def test_a_level_decides_as_it_does_for_the_daemon(tmp_path: Path, site: Detector, site_file: Path) -> None:
    assert gate(machine(tmp_path)[0]) is None
    assert gate(machine(tmp_path, "active_when: {level_above_dbfs: -50}")[0]) == -50
    path, _ = machine(tmp_path, "active_when: learned", f"detectors: [{site_file}]")
    assert gate(path) == learned_gate(site.metadata.calibration["id_00"])


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("active_when: learned", "learned needs a detector; give level_above_dbfs until there is one"),
        ('active_when: {topic: plc/rail, on: "1", off: "0"}', "nobody hears MQTT topics while sound is recorded"),
    ],
)
def test_what_nobody_could_decide_is_refused(tmp_path: Path, line: str, says: str) -> None:
    path, _ = machine(tmp_path, line)
    command = [sys.executable, "-m", "edge_asd.cli", "record", "-c", path, "--machine", "rail", "--hours", "1"]
    done = subprocess.run(  # a process of its own: the command lays hands on standard error
        [*command, "--out", tmp_path / "sound"], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 78 and not (tmp_path / "sound").exists()
    assert done.stderr.startswith(f"edge-asd: {path}:8:5: machines.1.active_when: ") and says in done.stderr
    assert done.stderr.count("\n") == 1
