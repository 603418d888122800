"""The unit, the man page and the completion beside what they are about."""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_asd.cli import _parser, main

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
    text, changed = re.subn(r"(?m)^(ExecStart|ExecReload)=/opt/\S+", r"\1=/bin/true", UNIT.read_text())
    assert changed == 2
    path.write_text(text)
    return path


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """The package's documents, as installed."""
    subprocess.run([SYSTEMD / "package/install-documents.sh", tmp_path], check=True)
    return tmp_path


def test_links_of_the_packages_documents_lead_somewhere(package: Path) -> None:
    documents = package / "usr/share/doc/edge-asd"
    assert {"README.md", "security.md", "integration.md", "copyright"} <= {p.name for p in documents.iterdir()}
    for document in documents.glob("*.md"):
        text = document.read_text()
        headings = {re.sub("[^a-z0-9 -]", "", h.lower()).replace(" ", "-") for h in re.findall(r"(?m)^#+ (.*)", text)}
        for link in re.findall(r"\]\((?!https?:)([^)]*)\)", text):
            file, _, heading = link.partition("#")
            there = (documents / file).resolve() if file else document
            assert there.exists() and there.is_relative_to(documents), f"{document.name}: {link}"
            assert file or heading in headings, f"{document.name}: {link}"
        assert "../" not in text and " in the README" not in text and "this folder" not in text, document.name


def test_files_that_the_packages_texts_name_are_installed(package: Path) -> None:
    example = (package / "etc/edge-asd/example.yaml").read_text()
    schema = re.match(r"# yaml-language-server: \$schema=/(\S+)\n", example)
    assert schema and (package / schema[1]).is_file()
    assert example.splitlines()[1:] == (SYSTEMD.parent / "deploy/edge-asd.example.yaml").read_text().splitlines()[1:]
    manual = (SYSTEMD / "package/edge-asd.1").read_text()
    assert (package / re.findall(r"/(usr/share/doc/\S+)", manual)[0]).is_file()
    events = set(re.findall(r"(?m)^\| `(\w+)`", (SYSTEMD / "README.md").read_text().partition("\n## Logs\n")[2]))
    known = set(re.findall(r"`(\w+)`", (SYSTEMD.parent / "README.md").read_text()))
    assert events and events <= known


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


def test_a_reload_is_asked_of_the_daemon_and_fails_where_something_is_wrong(
    tmp_path: Path, tiny: Callable[..., bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    found = re.findall(r"(?m)^ExecReload=(\S+) (.+)$", UNIT.read_text())
    (kill, how), (program, arguments) = found
    assert (program, kill, how) == ("/opt/edge-asd/bin/edge-asd", "/bin/kill", "-HUP $MAINPID")
    config = tmp_path / "press.yaml"
    machine = "{name: rail, recordings: none, detectors: [a.onnx], alarm: {threshold: 3}}"
    config.write_text(f"site: a\nnode: b\nmqtt: {{host: 127.0.0.1, port: 9}}\nmachines: [{machine}]\n")
    command = arguments.replace("/etc/edge-asd/%i.yaml", str(config)).split()
    assert main(command) == 78
    assert f"failed   configuration  {config}:4:55: machines.1.detectors.1: " in capsys.readouterr().out
    (tmp_path / "a.onnx").write_bytes(tiny())
    assert main(command) == 78
    assert f"failed   configuration  {config}:4:25: machines.1.recordings: " in capsys.readouterr().out
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "a.wav").write_bytes(b"it is read when it is played")
    assert main(command) == 0, "the broker need not be there"
    assert {line.split()[1] for line in capsys.readouterr().out.splitlines()} == {"configuration"}


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
