"""What a start would refuse is refused by a reload, and by the check that comes before it, in the same words."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from parts.certificates import Authority
from parts.reloading import Plant

from edge_asd.cli import main
from edge_asd.config_file import load_config
from edge_asd.errors import EXIT_CONFIGURATION, EXIT_DONE, EdgeAsdError
from edge_asd.startable import verify_startable

USUAL = "evidence: {pictures: false}"
METRICS = "metrics: {listen: 127.0.0.1:0"


@pytest.mark.parametrize(
    ("head", "machine", "place", "says"),
    [
        ("mqtt: {host: b, tls: {ca: no.pem}}", "", "3:17: mqtt.tls", "mqtt.tls.ca: {}/no.pem: no such file"),
        ("mqtt: {host: b, username: e, password_file: gone}", "", "3:30: mqtt.password_file", "{}/gone: no such file"),
        (f"{METRICS}, username: e, password_file: gone}}", "", "3:45: metrics.password_file", "{}/gone: no such file"),
        (f"{METRICS}, tls: {{certificate: a.pem, key: a.key}}}}", "", "3:32: metrics.tls", "a.pem: No such file"),
        ("evidence: {group: asd-nobody}", "", "3:12: evidence.group", "there is no group asd-nobody on this computer"),
        (USUAL, ", recordings: gone", "6:20: machines.2.recordings", "{}/gone: does not exist"),
        (USUAL, ", recordings: empty", "6:20: machines.2.recordings", "{}/empty: holds no .wav or .flac file"),
    ],
)
def test_it_is_refused_before_a_person_restarts(
    plant: Plant, capsys: pytest.CaptureFixture[str], head: str, machine: str, place: str, says: str
) -> None:
    (plant.folder / "empty").mkdir()
    plant.write("name: rail-7, alarm: {threshold: 3}", f"name: rail-8{machine}", head=head)
    before, reason = plant.essence(), says.format(plant.folder)
    told = plant.reload()
    assert told["event"] == "reload_failed" and plant.essence() == before
    assert told["error"].startswith(f"{plant.config}:{place}: ") and reason in told["error"]
    assert main(["check", "--only-configuration", "--json", "-c", str(plant.config)]) == EXIT_CONFIGURATION
    findings = json.loads(capsys.readouterr().out)["findings"]
    assert [f["text"] for f in findings if f["state"] == "failed"] == [told["error"]]
    running = plant.daemon
    plant.folder.joinpath("state").rename(plant.folder / "its state")  # another daemon's lock is not what is refused
    try:
        with pytest.raises(EdgeAsdError) as refused:
            plant.begin()
        assert reason in str(refused.value), "the start does too"
    finally:
        plant.daemon = running


def test_all_of_it_is_said_at_once_and_nothing_where_all_can_be_used(
    tmp_path: Path, plant: Plant, capsys: pytest.CaptureFixture[str]
) -> None:
    plant.write(
        "name: rail-7",
        head="mqtt: {host: b, username: e, password_file: password, tls: {ca: ca.pem, certificate: e.pem, "
        f"key: e.key}}}}\n{METRICS}, username: e, password_file: password, tls: {{certificate: e.pem, "
        "key: e.key}}",
    )
    with pytest.raises(EdgeAsdError) as refused:
        verify_startable(load_config(plant.config))
    keys = [line.split(": ")[1] for line in str(refused.value).splitlines()]
    assert keys == ["mqtt.password_file", "metrics.password_file", "mqtt.tls", "metrics.tls"]
    Authority(tmp_path).issue("e")
    (tmp_path / "password").write_text("s3cret\n")
    verify_startable(load_config(plant.config))
    assert plant.reload()["event"] == "reloaded"
    assert main(["check", "--only-configuration", "-c", str(plant.config)]) == EXIT_DONE
    assert "failed" not in capsys.readouterr().out


def test_secrets_that_only_the_daemon_may_see_are_left_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in what systemd runs for ExecReload=: it has the name of the folder, and may not look."""
    config = tmp_path / "press.yaml"
    config.write_text(
        "site: plant\nnode: hall\ndevice: {name: d}\nmachines: [{name: rail, channel: 1}]\n"
        "mqtt: {host: b, username: e, password_file: gone, tls: {certificate: e.pem, key: e.key}}\n"
        f"{METRICS}, username: e, password_file: gone, tls: {{certificate: e.pem, key: e.key}}}}\n"
    )
    loaded = load_config(config)
    config.write_text(config.read_text().replace("tls: {", "tls: {ca: gone.pem, ", 1))
    without_ca = load_config(config)
    (tmp_path / "credentials").mkdir(mode=0)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path / "credentials" / "press.service"))
    user = os.geteuid()
    if user == 0:
        os.seteuid(65_534)  # root may look everywhere
    try:
        verify_startable(loaded)
        with pytest.raises(EdgeAsdError, match=r"5:51: mqtt.tls: .*: mqtt.tls.ca: "):
            verify_startable(without_ca)
    finally:
        os.seteuid(user)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path / "none"))
    with pytest.raises(EdgeAsdError, match=r"mqtt.password_file: .*gone: no such file"):
        verify_startable(loaded)
