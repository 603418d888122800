"""Could the daemon that systemd starts do what it must? Its user has no rights; root, who asks, has all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from grp import getgrnam
from pathlib import Path

from edge_asd.audio.recording import find_recordings
from edge_asd.config import Config
from edge_asd.errors import RecordingError
from edge_asd.finding import Finding
from edge_asd.site_calibration import site_calibration_path
from edge_asd.unit import CONFIGURATIONS, Unit


def check_unit(config: Config, unit: Unit) -> Iterator[Finding]:
    """Whether the daemon's user may read what the configuration names, and write where evidence is to be kept.

    Args:
        config: with secrets where the unit takes them from.
        unit: that its daemon is to run in.
    """
    found = [*_files(config, unit), *_recordings(config, unit), *_secrets(config, unit), *_evidence(config, unit)]
    yield from found
    if not found:
        yield Finding("unit", "ok", f"{unit.name} may read what {config.file} names")


def _files(config: Config, unit: Unit) -> Iterator[Finding]:
    places = {config.file: str(config.file)}
    for number, machine in enumerate(config.machines):
        for index, entry in enumerate(machine.detectors):
            place = config.place("machines", number, "detectors", index)
            places.setdefault(entry.file, place)
            calibration = site_calibration_path(entry.file, machine.name, None)
            if calibration.is_file():
                places.setdefault(calibration, place)
    if config.mqtt is not None and config.mqtt.tls is not None:
        for name in ("ca", "certificate"):
            file = getattr(config.mqtt.tls, name)
            if file is not None:
                places.setdefault(file, config.place("mqtt", "tls", name))
    if config.metrics is not None and config.metrics.tls is not None:
        places.setdefault(config.metrics.tls.certificate, config.place("metrics", "tls", "certificate"))
    for file, place in places.items():
        why = _why_not(unit, file)
        if why is not None:
            yield Finding("unit", "failed", f"{place}: {why}")


def _recordings(config: Config, unit: Unit) -> Iterator[Finding]:
    """The first of each machine that is kept from the daemon: the others are like it."""
    for number, machine in enumerate(config.machines):
        if machine.recordings is None:
            continue
        try:
            paths = dict.fromkeys((machine.recordings, *find_recordings([machine.recordings])))
        except RecordingError:  # others tell of it
            continue
        folders = {folder for file in paths for folder in file.parents if folder.is_relative_to(machine.recordings)}
        why = next((why for path in (*sorted(folders), *paths) if (why := _why_not(unit, path)) is not None), None)
        if why is not None:
            yield Finding("unit", "failed", f"{config.place('machines', number, 'recordings')}: {why}")


def _secrets(config: Config, unit: Unit) -> Iterator[Finding]:
    """Those that systemd does not hand over; those that it does are for it alone to read."""
    handed = set((unit.credentials or {}).values())
    for name, section in (("mqtt", config.mqtt), ("metrics", config.metrics)):
        if section is None:
            continue
        secrets = {("password_file",): section.password_file, ("tls", "key"): section.tls and section.tls.key}
        for key, file in secrets.items():
            if not isinstance(file, Path) or file in handed or _why_not(unit, file) is None:
                continue
            text = f"{config.place(name, *key)}: {file} is kept from {unit.name}"
            if unit.credentials is None:
                yield Finding("unit", "warning", f"{text}, unless its {_line(file)}; systemd cannot be asked here")
            else:
                hint = f"`sudo systemctl edit {unit.name}`, and there [Service] and {_line(file)}"
                yield Finding("unit", "failed", f"{text}: {hint}")


def _line(secret: Path) -> str:
    return f"LoadCredential={secret.name}:{secret}"


def _evidence(config: Config, unit: Unit) -> Iterator[Finding]:
    section = config.evidence
    if section is None or not (section.pictures or section.clips):
        return
    if section.group is not None:
        yield from _group(config, section.group, unit)
    folder = section.folder
    if folder is None or unit.owns(folder):
        return
    text = f"{config.place('evidence', 'folder')}: {folder}"
    hint = f"leave it out: evidence is then kept in {unit.state / 'evidence'}"
    if unit.hides(folder):
        yield Finding("unit", "failed", f"{text} is not what {unit.name} has there (homes, /tmp); {hint}")
    elif not unit.can_write(folder):
        hint += f"; or ReadWritePaths={folder} by `sudo systemctl edit {unit.name}`"
        yield Finding("unit", "failed", f"{text} is read-only for {unit.name} (ProtectSystem=strict); {hint}")
    elif folder.is_dir() and (obstacle := unit.obstacle(folder, os.W_OK | os.X_OK)) is not None:
        hint = f"sudo install -d -g {section.group or 'GROUP'} -m 2770 {folder}, for a group that the unit is in"
        yield Finding(
            "unit", "failed", f"{text} cannot be written by {unit.name}, for {obstacle} is not for it: {hint}"
        )


def _group(config: Config, group: str, unit: Unit) -> Iterator[Finding]:
    try:
        number = getgrnam(group).gr_gid
    except KeyError:  # others tell of it
        return
    if number not in unit.groups or not unit.knows_groups:
        lines = f"SupplementaryGroups={group}, PrivateUsers=no and SystemCallFilter=@chown"
        text = (
            f"{unit.name} cannot give files to {group}: `sudo systemctl edit {unit.name}`, and there [Service], {lines}"
        )
        yield Finding("unit", "failed", f"{config.place('evidence', 'group')}: {text}")


def _why_not(unit: Unit, path: Path) -> str | None:
    """Why the daemon cannot read a file or folder, with what to type; None if it can, or if it is not there."""
    if unit.owns(path):
        return None
    if unit.hides(path):
        return f"{path} is where {unit.name} sees nothing (homes, /tmp); move it, for example to {CONFIGURATIONS}"
    is_folder = path.is_dir()
    try:
        obstacle = unit.obstacle(path, os.R_OK | os.X_OK if is_folder else os.R_OK)
    except OSError:  # others tell of it
        return None
    if obstacle is None:
        return None
    wanted = "a+x" if obstacle != path else "a+rx" if is_folder else "a+r"
    return f"{path} cannot be read by {unit.name}, whose user has no rights: sudo chmod {wanted} {obstacle}"
