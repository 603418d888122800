"""Passwords and keys in files of their own, which systemd may have put elsewhere (``LoadCredential=``)."""

from __future__ import annotations

import os
from pathlib import Path

from edge_asd.errors import ConfigurationError

_MOST_BYTES = 65_536
"""No password is longer; what is named by mistake may have no end."""


def find_secret(path: Path) -> Path:
    """Where a secret's file is: in ``$CREDENTIALS_DIRECTORY`` under its name, if it is there; else where it is said."""
    credentials = os.environ.get("CREDENTIALS_DIRECTORY")
    if not credentials:
        return path
    place = Path(credentials) / path.name
    try:
        return place if place.exists() else path
    except OSError:
        return place  # whoever reads it says what is wrong


def read_secret(path: Path, key: str) -> str:
    """The first line of a secret's file.

    Args:
        path: as the configuration says.
        key: of the configuration, for the error: ``mqtt.password_file``.

    Raises:
        ConfigurationError: the file cannot be read, or its first line is empty.
    """
    place = find_secret(path)
    try:
        with place.open("rb") as file:
            secret = file.read(_MOST_BYTES).decode("utf-8").split("\n", 1)[0].removesuffix("\r")
    except FileNotFoundError:
        raise ConfigurationError(f"{key}: {place}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{key}: {place}: {error}") from None
    if not secret:
        raise ConfigurationError(f"{key}: {place}: its first line is empty")
    return secret
