"""No password, key or login is in a message, whatever was written in the wrong place; what is missing is named."""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from parts.certificates import Authority

from edge_asd.config_file import load_config
from edge_asd.config_publish import MetricsSection, MqttSection, ServerTlsSection, TlsSection
from edge_asd.errors import EXIT_CONFIGURATION, ConfigurationError
from edge_asd.publish.client_tls import client_tls
from edge_asd.publish.log import Log
from edge_asd.publish.mqtt_client import client_factory
from edge_asd.publish.server_certificate import ServerCertificate
from edge_asd.secrets_file import is_secret, read_secret, without_login

GOOD = "site: plant-3\nnode: hall\nmachines:\n  - name: rail-7\n    recordings: sound\n    detectors: [a.onnx]\n"


@pytest.fixture(autouse=True)
def no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """That every user may enter, unlike pytest's."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.mark.parametrize(
    "line",
    [
        "mqtt: mqtt://edge:s3cret@broker:1883",
        "mqtt: {host: 'mqtt://edge:s3cret@broker:1883'}",
        "mqtt: {host: 'edge:s3cret@broker'}",
        "mqtt: {host: 'edge:s3cret@" + "x" * 300 + "'}",
        "mqtt: {host: 'edge:s3cret@a..b'}",
        "mqtt: {host: b, tls: 'https://edge:s3cret@x'}",
        "mqtt: {host: b, port: 'edge:s3cret@" + "b" * 60 + "'}",
        "mqtt: {host: b, username: edge, password: s3cret}",
        "mqtt: {host: b, password: !s3cret x}",
        "mqtt: {host: b, password: 7_3331}",
        "mqtt: {host: b, password: 073331}",
        "mqtt: [{password: s3cret}]",
        "mqtt: {host: b, username: edge, password_file: {s3cret: 1}}",
        "mqtt: {host: b, username: edge, password_file: 73331}",
        "mqtt: {host: b, username: edge, password_file: $ecret-s3cret}",
        "mqtt: {host: b, username: edge, password_file: ~s3cret}",
        "mqtt: {host: b, username: 73331}",
        "mqtt: {host: b, tls: {certificate: c, key: [s3cret]}}",
        "mqtt: {host: b, tls: {certificate: c, key: '-----BEGIN PRIVATE KEY----- s3cret'}}",
        'mqtt: {host: b, tls: {certificate: c, key: "s3cret\\nmore"}}',
        "metrics: {tls: {certificate: c, key: '-----BEGIN PRIVATE KEY----- s3cret'}}",
        "metrics: {listen: 'edge:s3cret@127.0.0.1:9464'}",
        "metrics: {username: 'edge:s3cret', password_file: x}",
    ],
)
def test_a_secret_in_the_wrong_place_is_not_said(tmp_path: Path, line: str) -> None:
    path = tmp_path / "hall.yaml"
    path.write_text(GOOD + line + "\n")
    with pytest.raises(ConfigurationError) as caught:
        load_config(path)
    said = str(caught.value)
    assert said.startswith(f"{path}:7:") and len(said) > len(str(path)) + 20
    for secret in ("s3cret", "3331", "edge:", "edge@"):
        assert secret not in said, said


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("broker.plant-3:1883", "broker.plant-3:1883"),
        ("mqtt://edge:s3cret@broker:1883", "mqtt://…@broker:1883"),
        ("edge:s3c//r@et@broker", "…@broker"),
        ("//edge@broker", "//…@broker"),
    ],
)
def test_a_url_is_shown_without_its_login(text: str, shown: str) -> None:
    assert without_login(text) == shown


def test_what_may_be_a_secret() -> None:
    for key in ("password_file", "Password", "passwd", "api_token", "username", "key", "client_secret", "pw"):
        assert is_secret(key)
    for key in ("host", "port", "machines", "keep_megabytes", "hop_seconds", "detectors"):
        assert not is_secret(key)


@pytest.mark.parametrize("name", ["mqtt-password", "edge.key"])
@pytest.mark.parametrize("has_credentials", [False, True])
def test_a_file_that_is_nowhere_is_named_with_its_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, has_credentials: bool
) -> None:
    if has_credentials:
        monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path / "credentials"))
    certificate, _ = Authority(tmp_path).issue("edge")
    if name == "edge.key":
        settings = MqttSection(host="b", tls=TlsSection(certificate=certificate, key=tmp_path / name))
        key = "mqtt.tls: a certificate or key cannot be used: mqtt.tls.key"
    else:
        settings = MqttSection(host="b", username="edge", password_file=tmp_path / name)
        key = "mqtt.password_file"
    (tmp_path / "edge.key").unlink()
    with pytest.raises(ConfigurationError) as caught:
        client_factory(settings, "client")
    hint = f", and no {name} in {tmp_path / 'credentials'}: does LoadCredential= of the unit name it?"
    assert str(caught.value) == f"{key}: {tmp_path / name}: no such file{hint if has_credentials else ''}"
    assert caught.value.exit_status == EXIT_CONFIGURATION


def test_a_key_of_systemd_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate, key = Authority(tmp_path).issue("edge")
    (tmp_path / "credentials").mkdir()
    key.rename(tmp_path / "credentials" / "edge.key")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path / "credentials"))
    client_tls(TlsSection(certificate=certificate, key=key))


@pytest.mark.parametrize("what", ["ca", "certificate", "key"])
@pytest.mark.parametrize("content", [None, b"", b"/", b"s3cret \xff", b"-----BEGIN PRIVATE KEY-----\ns3cret\n"])
def test_tls_that_cannot_be_used_is_named_and_not_quoted(tmp_path: Path, what: str, content: bytes | None) -> None:
    authority = Authority(tmp_path)
    certificate, key = authority.issue("edge")
    paths = {"ca": authority.certificate, "certificate": certificate, "key": key}
    paths[what].unlink()
    if content == b"/":
        paths[what].mkdir()
    elif content is not None:
        paths[what].write_bytes(content)
    with pytest.raises(ConfigurationError) as caught:
        client_tls(TlsSection(**paths))
    said = str(caught.value)
    assert said.startswith("mqtt.tls: a certificate or key cannot be used: mqtt.tls.") and str(paths[what]) in said
    assert "s3cret" not in said and "\n" not in said and "_ssl.c" not in said and "Errno" not in said, said


def test_a_key_with_a_passphrase_is_refused_and_nobody_is_asked(tmp_path: Path) -> None:
    """OpenSSL would ask at the terminal, and wait."""
    certificate, key = Authority(tmp_path).issue("edge", passphrase="s3cret")
    with pytest.raises(ConfigurationError, match=r"mqtt\.tls\.certificate: .*edge\.key: ") as caught:
        client_tls(TlsSection(certificate=certificate, key=key))
    assert "s3cret" not in str(caught.value)


def test_a_password_file_that_is_none_is_named_without_errno(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=rf"^k\.password_file: {tmp_path}: Is a directory$"):
        read_secret(tmp_path, "k.password_file")
    (tmp_path / "bytes").write_bytes(b"s3cret\xfe")
    with pytest.raises(ConfigurationError) as caught:
        read_secret(tmp_path / "bytes", "k.password_file")
    assert "s3cret" not in str(caught.value) and "0xfe" not in str(caught.value)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be another user")
def test_what_this_user_may_not_says_what_to_do(open_folder: Path) -> None:
    """As the daemon's own user finds it, where root has written the files."""
    certificate, key = Authority(open_folder).issue("edge")
    key.chmod(0o600)
    advice = "Permission denied; give it to the daemon's user, or name it in LoadCredential= of the unit$"
    os.seteuid(65534)
    try:
        with pytest.raises(ConfigurationError, match=f"{key}: {advice}"):
            read_secret(key, "mqtt.password_file")
        with pytest.raises(ConfigurationError, match=f"{key}: {advice}"):
            client_tls(TlsSection(certificate=certificate, key=key))
        with pytest.raises(ConfigurationError, match=advice):
            ServerCertificate(ServerTlsSection(certificate=certificate, key=key), Log(io.StringIO()))
    finally:
        os.seteuid(0)


def test_settings_in_an_error_or_a_traceback_show_no_password(tmp_path: Path) -> None:
    """A configuration knows only where secrets are."""
    (tmp_path / "word").write_text("s3cret\n")
    for section in (
        MqttSection(host="b", username="edge", password_file=tmp_path / "word"),
        MetricsSection(username="edge", password_file=tmp_path / "word"),
    ):
        assert "s3cret" not in repr(section)
