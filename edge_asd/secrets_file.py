"""Passwords and keys: in files of their own, where systemd may have put them (``LoadCredential=``); in no message."""

from __future__ import annotations

import os
import re
from pathlib import Path

from edge_asd.errors import ConfigurationError

_MOST_BYTES = 65_536
"""No password is longer; what is named by mistake may have no end."""
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*:)?//")
_SECRET_KEYS = ("pass", "secret", "token", "user", "login", "credential", "auth")


def is_secret(key: str) -> bool:
    """Whether what stands behind a key, one that is not known too, may be a secret, which no message may quote."""
    return key.lower() in ("key", "pwd", "pw") or any(word in key.lower() for word in _SECRET_KEYS)


def without_login(text: str) -> str:
    """A text that may be a URL, without user and password: ``mqtt://…@broker``."""
    login, at, rest = text.rpartition("@")
    scheme = _SCHEME.match(login)
    return f"{scheme[0] if scheme else ''}…@{rest}" if at else text


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


def are_credentials_seen() -> bool:
    """Not by what systemd 252 runs for ``ExecReload=``: it has the folder's name, but only the daemon may look in."""
    credentials = os.environ.get("CREDENTIALS_DIRECTORY")
    try:
        Path(credentials or "/").stat()
    except OSError as error:
        return not isinstance(error, PermissionError)  # one that is not there hides nothing
    return True


def why_missing(path: Path) -> str:
    """What to say of a secret's file that is nowhere, for the person who has to put it there."""
    credentials = os.environ.get("CREDENTIALS_DIRECTORY")
    hint = f", and no {path.name} in {credentials}: does LoadCredential= of the unit name it?" if credentials else ""
    return f"no such file{hint}"


def why_unreadable(error: OSError) -> str:
    """Likewise, of a file that is there."""
    hint = "; give it to the daemon's user, or name it in LoadCredential= of the unit"
    return f"{error.strerror or error}{hint if isinstance(error, PermissionError) else ''}"


def read_secret(path: Path, key: str) -> str:
    """The first line of a secret's file, without the white space at its end and a byte order mark before it.

    Editors leave both (Notepad for one), and no login would say that it failed because of them.

    Args:
        path: as the configuration says.
        key: of the configuration, for the error: ``mqtt.password_file``.

    Raises:
        ConfigurationError: the file cannot be read, or its first line is empty.
    """
    place = find_secret(path)
    try:
        with place.open("rb") as file:
            secret = file.read(_MOST_BYTES).decode("utf-8-sig").split("\n", 1)[0].rstrip()
    except FileNotFoundError:
        raise ConfigurationError(f"{key}: {place}: {why_missing(path)}") from None
    except UnicodeDecodeError as error:  # whose own words have a byte of the secret
        raise ConfigurationError(f"{key}: {place}: is no text, as the {error.encoding} codec reads it") from None
    except OSError as error:
        raise ConfigurationError(f"{key}: {place}: {why_unreadable(error)}") from None
    if not secret:
        raise ConfigurationError(f"{key}: {place}: its first line is empty")
    return secret
