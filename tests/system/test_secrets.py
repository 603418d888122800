"""The real daemon with wrong secrets: it says what is wrong, and nothing of what it printed holds a secret."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from parts.broker import Broker
from parts.certificates import Authority
from parts.daemon import Daemon, write_config
from parts.waiting import until

pytestmark = pytest.mark.system

PASSWORD = "Tr0ub4dor-and-3"
WRONG = "Swordf1sh-wrong"
PASSPHRASE = "Corr3ct-horse"
LOGIN = "edge-of-hall-9"
SECRETS = (PASSWORD, WRONG, PASSPHRASE, LOGIN)


@pytest.fixture
def plant(tmp_path: Path, tiny: Callable[..., bytes]) -> Iterator[Authority]:
    """A broker with TLS and a password; its port is in a file beside the secrets."""
    (tmp_path / "a.onnx").write_bytes(tiny())
    soundfile.write(tmp_path / "r.wav", np.zeros(16_000), 16_000)
    authority = Authority(tmp_path / "ca")
    certificate, key = authority.issue("broker")
    (tmp_path / "users").touch(mode=0o600)
    subprocess.run(["mosquitto_passwd", "-b", str(tmp_path / "users"), LOGIN, PASSWORD], check=True)
    broker = Broker(
        tmp_path / "broker",
        f"certfile {certificate}",
        f"keyfile {key}",
        "allow_anonymous false",
        f"password_file {tmp_path / 'users'}",
    )
    broker.start()
    (tmp_path / "password").write_text(PASSWORD + "\n")
    (tmp_path / "wrong").write_text(WRONG + "\n")
    (tmp_path / "port").write_text(str(broker.port))
    yield authority
    broker.stop()


def run(folder: Path, mqtt: str, event: str | None, *options: str) -> str:
    """Everything that a daemon printed until it said ``event``, or ended with 78."""
    mqtt = mqtt.replace("PORT", (folder / "port").read_text())
    config = write_config(folder / "hall.yaml", "name: m, recordings: r.wav, detectors: [a.onnx]", mqtt=mqtt)
    daemon = Daemon(config, *options, CREDENTIALS_DIRECTORY="", PYTHONUNBUFFERED="1")
    try:
        if event is None:
            assert daemon.process.wait(30) == 78
        else:
            until(lambda: event in said(daemon), f"the daemon's {event}")
            daemon.process.terminate()
            assert daemon.process.wait(30) == 0
        daemon._reader.join(5)
        return said(daemon)
    finally:
        with contextlib.suppress(ProcessLookupError):
            daemon.kill()


def said(daemon: Daemon) -> str:
    return "".join([*map(str, daemon.log), *daemon.other_lines, daemon.errors.read_text()])


def secrets_in(text: str) -> list[str]:
    return [secret for secret in SECRETS if secret in text]


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_password_is_unsaid_right_or_wrong(plant: Authority, tmp_path: Path, form: str) -> None:
    tls = f"tls: {{ca: {plant.certificate}}}"
    for file, event in (("wrong", "mqtt_refused"), ("password", "mqtt_connected")):
        mqtt = f"host: localhost, port: PORT, {tls}, username: {LOGIN}, password_file: {file}"
        text = run(tmp_path, mqtt, event, "--log", form)
        assert not secrets_in(text), text
        assert ("ready" in text and "stopped" in text) and "Traceback" not in text


def test_a_broker_that_speaks_no_tls_hears_nothing_of_it_in_the_log(plant: Authority, tmp_path: Path) -> None:
    text = run(tmp_path, f"host: localhost, port: PORT, username: {LOGIN}, password_file: wrong", "mqtt_unreachable")
    assert not secrets_in(text), text


def test_what_cannot_be_used_ends_with_78_names_key_and_file_and_tells_no_secret(
    plant: Authority, tmp_path: Path
) -> None:
    certificate, locked = plant.issue("locked", passphrase=PASSPHRASE)
    (tmp_path / "pasted.key").write_text(f"-----BEGIN PRIVATE KEY-----\n{WRONG}\n")
    (tmp_path / "bytes").write_bytes(PASSWORD.encode() + b"\xff")
    (tmp_path / "empty").write_text(f"\n{PASSWORD}\n")
    user = f"username: {LOGIN}"
    for mqtt, words in [
        (f"host: localhost, {user}, password_file: none", f"mqtt.password_file: {tmp_path / 'none'}: no such file"),
        (f"host: localhost, {user}, password_file: .", f"mqtt.password_file: {tmp_path}: Is a directory"),
        (f"host: localhost, {user}, password_file: bytes", f"mqtt.password_file: {tmp_path / 'bytes'}: is no text"),
        (f"host: localhost, {user}, password_file: empty", "first line is empty"),
        (f"host: localhost, {user}, password: {PASSWORD}", "did you mean password_file?"),
        (f"host: 'mqtt://{LOGIN}:{PASSWORD}@localhost:PORT'", "mqtt.host: 'mqtt://…@localhost:"),
        (f"host: '{LOGIN}:{PASSWORD}@localhost'", "mqtt.host: '…@localhost'"),
        (f"host: localhost, tls: {{certificate: {certificate}, key: {locked}}}", f"{certificate}, {locked}: "),
        (f"host: localhost, tls: {{certificate: {certificate}, key: none.key}}", f"mqtt.tls.key: {tmp_path}/none.key"),
        (f"host: localhost, tls: {{certificate: {certificate}, key: pasted.key}}", "pasted.key: "),
        (
            f"host: localhost, tls: {{certificate: {certificate}, key: '-----BEGIN X {WRONG}'}}",
            "itself does not belong",
        ),
    ]:
        text = run(tmp_path, mqtt, None)
        assert words in text and text.count("\n") == 1 and not secrets_in(text), text
