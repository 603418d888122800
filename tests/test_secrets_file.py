"""Passwords in files of their own."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_asd.errors import EXIT_CONFIGURATION, ConfigurationError
from edge_asd.secrets_file import find_secret, read_secret


@pytest.fixture(autouse=True)
def no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)


@pytest.mark.parametrize(
    "content",
    [
        "s3 crêt",
        "s3 crêt\n",
        "s3 crêt\r\nmore\n",
        "s3 crêt\n\n",
        "\ufeffs3 crêt\r\n",
        "s3 crêt \t\n",
        "s3 crêt \r\n",
        "s3 crêt\u00a0\n",
    ],
)
def test_the_first_line_is_the_secret(tmp_path: Path, content: str) -> None:
    """As editors leave it: Notepad's byte order mark, and what a copied text has at its end, are not meant."""
    (tmp_path / "word").write_bytes(content.encode())
    assert read_secret(tmp_path / "word", "mqtt.password_file") == "s3 crêt"


def test_a_credential_of_systemd_comes_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    own, credentials = tmp_path / "word", tmp_path / "credentials"
    credentials.mkdir()
    own.write_text("own")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(credentials))
    assert read_secret(own, "mqtt.password_file") == "own"
    (credentials / "word").write_text("given")
    assert read_secret(own, "mqtt.password_file") == "given"
    assert find_secret(Path("/nowhere/word")) == credentials / "word"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "no such file"),
        (b"", "first line is empty"),
        (b"\nx", "first line is empty"),
        (b" \nx", "first line is empty"),
        (b"\xff", "codec"),
    ],
)
def test_what_cannot_be_a_secret_is_an_error(tmp_path: Path, content: bytes | None, words: str) -> None:
    path = tmp_path / "word"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigurationError, match=rf"^metrics\.password_file: {path}: .*{words}") as caught:
        read_secret(path, "metrics.password_file")
    assert caught.value.exit_status == EXIT_CONFIGURATION
