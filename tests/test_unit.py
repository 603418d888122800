"""What ``check`` says as root of a configuration whose daemon systemd starts, as a user without rights."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge_asd.check import Subject, check_configuration, check_surroundings
from edge_asd.check_names import check_names
from edge_asd.config_file import load_config
from edge_asd.unit import unit_of

HEAD = "site: plant\nnode: hall\n"
BROKER = "mqtt: {host: 127.0.0.1, port: 9, username: edge, password_file: mqtt-password}\n"
AS_PACKAGED: dict[str, Any] = {
    "LoadCredential": [],
    "LoadCredentialEncrypted": [],
    "SupplementaryGroups": ["audio"],
    "User": "asd-hall",
    "ProtectHome": "yes",
    "PrivateTmp": True,
    "PrivateUsers": True,
    "ReadWritePaths": [],
}
"""As busctl of Debian 12 gives it of our unit; tests/system/test_package.py asks the real one."""


@pytest.fixture
def etc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Configurations of units, seen by root."""
    folder = tmp_path / "etc"
    folder.mkdir()
    monkeypatch.setattr("edge_asd.unit.CONFIGURATIONS", folder)
    monkeypatch.setattr("edge_asd.unit._RUNNING", tmp_path / "credentials")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
    (tmp_path / "bin").mkdir()
    return folder


@pytest.fixture
def systemd(tmp_path: Path, etc: Path) -> Callable[..., None]:
    """Answers for it, with what drop-ins have changed."""

    def answer(**changed: Any) -> None:
        lines = [json.dumps({"type": "?", "data": value}) for value in (AS_PACKAGED | changed).values()]
        program = tmp_path / "bin/busctl"
        program.write_text("#!/bin/sh\ncat <<'END'\n" + "\n".join(lines) + "\nEND\n")
        program.chmod(0o755)

    return answer


def check(config: Path) -> dict[str, tuple[str, str]]:
    """Findings by what was checked; of several, the last. Nothing is scored."""
    subject = Subject([config], config.parent.parent / "state")
    findings = [f for one in (check_configuration, check_surroundings) for f in one(subject)]
    return {f.check: (f.state, f.text) for f in findings}


def configure(etc: Path, more: str = "") -> Path:
    (etc / "hall.yaml").write_text(HEAD + more + "machines: [{name: m, recordings: r, detectors: [m.onnx]}]\n")
    return etc / "hall.yaml"


def test_secrets_are_looked_for_where_the_unit_takes_them_from(
    etc: Path, systemd: Callable[..., None], tmp_path: Path
) -> None:
    config, word = configure(etc, BROKER), tmp_path / "secrets/its password"
    systemd(LoadCredential=[["mqtt-password", str(word)]])
    found = check(config)
    assert found["secret"][0] == "failed" and found["secret"][1].endswith(f"{word} cannot be read: no such file")
    word.parent.mkdir()
    word.write_text("swordfish\n")
    word.chmod(0o600)
    found = check(config)
    assert found["secret"] == (
        "ok",
        f"{config}:3:50: mqtt.password_file: {word} can be read, and not by everybody",
    )
    assert "nothing listens there" in found["broker"][1], "the login is tried with it"


def test_a_secret_that_nobody_hands_over(etc: Path, systemd: Callable[..., None]) -> None:
    config = configure(etc, BROKER)
    systemd()
    hint = "cannot be read: no such file, and no LoadCredential= of edge-asd@hall names mqtt-password"
    assert check(config)["secret"] == ("failed", f"{config}:3:50: mqtt.password_file: {etc / 'mqtt-password'} {hint}")


def test_an_encrypted_secret_can_be_read_while_the_unit_runs(
    etc: Path, systemd: Callable[..., None], tmp_path: Path
) -> None:
    config = configure(etc, BROKER)
    systemd(LoadCredentialEncrypted=[["mqtt-password", "/etc/credstore.encrypted/word"]])
    found = check(config)
    assert found["secret"][0] == "warning"
    assert "is not here; LoadCredentialEncrypted= of edge-asd@hall names it" in found["secret"][1]
    assert found["broker"] == ("warning", f"{config}:3:1: mqtt: not tried, as mqtt-password is not here")
    running = tmp_path / "credentials/edge-asd@hall.service"
    running.mkdir(parents=True)
    (running / "mqtt-password").write_text("swordfish\n")
    found = check(config)
    assert f"{running / 'mqtt-password'} can be read" in found["secret"][1]
    assert "nothing listens there" in found["broker"][1]


def test_without_systemd_nobody_knows_where_a_secret_is(etc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    found = check(configure(etc, BROKER))
    assert found["secret"][0] == found["broker"][0] == "warning"
    assert found["secret"][1].endswith("is it in LoadCredential= of edge-asd@hall? systemd cannot be asked here")


def test_other_configurations_and_other_users_have_no_unit(etc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert unit_of(etc / "deep" / "hall.yaml") is None
    assert unit_of(etc / "hall.yaml") is not None
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert unit_of(etc / "hall.yaml") is None


@pytest.mark.parametrize("user", [0, 1000])
def test_a_name_that_no_unit_can_have(etc: Path, monkeypatch: pytest.MonkeyPatch, user: int) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: user)
    config = load_config(configure(etc))

    def say(name: str) -> list[str]:
        return [f.text for f in check_names([(etc / name, config)], [])]

    limits = "no unit can have this name: at most 27 letters (a to z), digits, - and _ before .yaml"
    assert say(f"{'a' * 27}.yaml") == say("Press-Hall_1.yaml") == []
    for name in (f"{'a' * 28}.yaml", "press.hall.yaml", "press hall.yaml", "größe.yaml"):
        assert say(name) == [f"{etc / name}: {limits}"]
    assert say("press.yml") == [
        f"{etc / 'press.yml'}: its unit reads press.yaml: sudo mv {etc / 'press.yml'} {etc / 'press.yaml'}"
    ]
    monkeypatch.setattr("edge_asd.unit.CONFIGURATIONS", etc.parent)
    assert say("press hall.yml") == []
