"""The unit, the man page and the completion beside what they are about."""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from edge_asd.cli import _parser

SYSTEMD = Path(__file__).parents[2] / "systemd"
UNIT = SYSTEMD / "edge-asd@.service"


def options_of_commands() -> dict[str, set[str]]:
    """Long options, by command."""
    actions = _parser()._actions
    commands = next(a for a in actions if isinstance(a, argparse._SubParsersAction)).choices
    return {
        name: {o for action in parser._actions for o in action.option_strings if o.startswith("--")} - {"--help"}
        for name, parser in commands.items()
    }


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """The unit as installed, but for the program, which is not here."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    path = tmp_path / "edge-asd@.service"
    text, changed = re.subn(r"(?m)^ExecStart=\S+", "ExecStart=/bin/true", UNIT.read_text())
    assert changed == 1
    path.write_text(text)
    return path


def test_the_unit_has_nothing_to_complain_about(unit: Path) -> None:
    command = ["systemd-analyze", "verify", "--man=no", str(unit.with_name("edge-asd@press-hall.service"))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_unit_is_locked_in(unit: Path) -> None:
    command = ["systemd-analyze", "security", "--no-pager", "--offline=yes", "--threshold=15", str(unit)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-300:]


def test_the_unit_starts_again_whatever_happens_but_not_with_a_wrong_configuration() -> None:
    lines = UNIT.read_text().splitlines()
    for line in ("Type=notify", "Restart=always", "StartLimitIntervalSec=0", "RestartPreventExitStatus=78"):
        assert line in lines


@pytest.mark.parametrize("command", sorted(options_of_commands()))
def test_the_completion_knows_every_option(command: str) -> None:
    if shutil.which("bash") is None:
        pytest.skip("bash is not installed")
    script = (
        f"source {SYSTEMD / 'package/edge-asd.bash-completion'}\n"
        f"COMP_WORDS=(edge-asd {command} --); COMP_CWORD=2; _edge_asd; printf '%s\\n' \"${{COMPREPLY[@]}}\""
    )
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) - {"--help"} == options_of_commands()[command]


def test_completion_and_man_page_know_every_command() -> None:
    commands = set(options_of_commands())
    text = (SYSTEMD / "package/edge-asd.bash-completion").read_text()
    found = re.search(r'COMP_CWORD == 1.*\n.*compgen -W "([^"]*)"', text)
    assert found is not None
    assert {word for word in found[1].split() if not word.startswith("-")} == commands
    page = (SYSTEMD / "package/edge-asd.1").read_text().split(".SH COMMANDS")[1].split(".SH EXIT")[0]
    assert set(re.findall(r'^\.(?:BI "|B )([a-z]+)\b(?!-)', page, re.MULTILINE)) == commands
