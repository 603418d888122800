"""May it read what it needs, and write what it must keep? Secrets, certificates, folders, and the room in them."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from edge_asd.config import Config
from edge_asd.errors import ConfigurationError
from edge_asd.finding import Finding, State
from edge_asd.secrets_file import find_secret, read_secret
from edge_asd.unit import Unit
from edge_asd.verification import default_cache

_LITTLE_BYTES = 500_000_000
_TOO_LITTLE_BYTES = 50_000_000
"""The state and the log of some weeks without a broker."""
_TOO_FEW_FILES = 100


def check_secrets(config: Config, unit: Unit | None = None) -> Iterator[Finding]:
    """Whether passwords and keys can be read, and by whom else; and certificates.

    Args:
        config: whose secrets, see `Unit.with_credentials`.
        unit: that its daemon is to run in, where it is known.
    """
    mqtt, metrics = config.mqtt, config.metrics
    if mqtt is not None:
        yield from _secret(config, unit, mqtt.password_file, "mqtt", "password_file")
        if mqtt.tls is not None:
            yield from _secret(config, unit, mqtt.tls.key, "mqtt", "tls", "key")
            yield from _readable(config, mqtt.tls.certificate, "mqtt", "tls", "certificate")
            yield from _readable(config, mqtt.tls.ca, "mqtt", "tls", "ca")
    if metrics is not None:
        yield from _secret(config, unit, metrics.password_file, "metrics", "password_file")
        if metrics.tls is not None:
            yield from _secret(config, unit, metrics.tls.key, "metrics", "tls", "key")
            yield from _readable(config, metrics.tls.certificate, "metrics", "tls", "certificate")


def check_folders(config: Config, state: Path) -> Iterator[Finding]:
    """Whether state, evidence and verdicts can be written, and whether there is room.

    Args:
        config: whose evidence.
        state: the state folder.
    """
    yield from _writable("state", state, "failed", "the alarms' state and maintenance cannot be kept")
    yield from _room("state", state, 0)
    evidence = config.evidence
    if evidence is not None:
        folder = evidence.folder or state / "evidence"
        yield from _writable("evidence", folder, "failed", "pictures and clips of incidents cannot be kept")
        yield from _room("evidence", folder, int(1e6 * evidence.keep_megabytes))
    yield from _writable(
        "cache", default_cache(), "warning", "each start verifies the detectors anew, which takes longer"
    )


def _secret(config: Config, unit: Unit | None, path: Path | None, *key: str) -> Iterator[Finding]:
    if path is None:
        return
    place, file = config.place(*key), find_secret(path)
    if unit is not None and unit.is_elsewhere(path):
        yield Finding("secret", "warning", f"{place}: {file} is not here; {unit.whereabouts(path)}")
        return
    try:
        if key[-1] == "password_file":
            read_secret(path, ".".join(key))
        else:
            _read(file)
        mode = file.stat().st_mode
    except (ConfigurationError, OSError) as error:
        found = _cannot_be_read("secret", place, file, error)
        if unit is not None and file not in (unit.credentials or {}).values() and not file.exists():
            found = replace(found, text=f"{found.text}, and no LoadCredential= of {unit.name} names {file.name}")
        yield found
        return
    if mode & (stat.S_IROTH | stat.S_IWOTH):
        who = "written" if mode & stat.S_IWOTH else "read"
        hint = f"everybody on this computer; chmod o-rwx {file}"
        yield Finding("secret", "warning", f"{place}: {file} can be {who} by {hint}")
    else:
        yield Finding("secret", "ok", f"{place}: {file} can be read, and not by everybody")


def _readable(config: Config, path: Path | None, *key: str) -> Iterator[Finding]:
    if path is None:
        return
    try:
        _read(path)
    except OSError as error:
        yield _cannot_be_read("certificate", config.place(*key), path, error)
        return
    yield Finding("certificate", "ok", f"{config.place(*key)}: {path} can be read")


def _read(path: Path) -> None:
    if path.exists() and not path.is_file():
        raise OSError(f"{path}: is not a file")
    with path.open("rb") as file:
        file.read(1)


def _cannot_be_read(check: str, place: str, file: Path, error: Exception) -> Finding:
    if isinstance(error, PermissionError) or "Permission denied" in str(error):
        owner = f"it belongs to user {file.parent.stat().st_uid}" if not os.access(file.parent, os.X_OK) else ""
        hint = f"{owner or 'this user may not'}; give it to the user of edge-asd, or use LoadCredential= of systemd"
        return Finding(check, "failed", f"{place}: {file} cannot be read: {hint}")
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return Finding(check, "failed", f"{place}: {file} cannot be read: {reason.rpartition(': ')[2]}")


def _writable(check: str, folder: Path, otherwise: State, loss: str) -> Iterator[Finding]:
    """``otherwise`` is the finding's state where it cannot be written, ``loss`` what that means."""
    base = _existing(folder)
    if not base.is_dir():
        yield Finding(check, otherwise, f"{base} is not a folder: {loss}; remove it or name another one")
    elif not os.access(base, os.W_OK | os.X_OK):
        what = folder if base == folder else f"{base}, where {folder.name} is to be made,"
        yield Finding(check, otherwise, f"{what} cannot be written by this user (number {os.geteuid()}): {loss}")
    elif base == folder and base.stat().st_mode & stat.S_IWOTH and not base.stat().st_mode & stat.S_ISVTX:
        yield Finding(check, "warning", f"{folder} can be written by everybody on this computer; chmod o-w {folder}")
    else:
        yield Finding(check, "ok", f"{folder} {'can be written' if base == folder else 'can be made'}")


def _room(check: str, folder: Path, wanted: int) -> Iterator[Finding]:
    base = _existing(folder)
    free, files = shutil.disk_usage(base).free, os.statvfs(base)
    used = sum(f.stat().st_size for f in base.iterdir() if f.is_file()) if wanted and base == folder else 0
    figures = {"folder": str(folder), "free_bytes": free}
    text = f"{free / 1e6:.0f} MB are free where {folder} is"
    if free < _TOO_LITTLE_BYTES or (files.f_files and files.f_favail < _TOO_FEW_FILES):
        hint = "it cannot keep what it must; make room there"
        yield Finding("disk", "failed", f"{text} ({files.f_favail} more files): {hint}", figures)
    elif wanted and free + used < wanted + _TOO_LITTLE_BYTES:
        hint = f"evidence may take {wanted / 1e6:.0f} MB; lower evidence.keep_megabytes, or make room"
        yield Finding("disk", "warning", f"{text}: {hint}", figures)
    elif free < _LITTLE_BYTES:
        yield Finding("disk", "warning", f"{text}: make room before it is full", figures)
    else:
        yield Finding("disk", "ok", text, figures)


def _existing(folder: Path) -> Path:
    """The folder, or the nearest above it that is there."""
    folder = folder.absolute()
    while not os.path.lexists(folder) and folder != folder.parent:
        folder = folder.parent
    return folder
