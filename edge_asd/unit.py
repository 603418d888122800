"""The package's systemd unit of a configuration: who its daemon is there, what it may see, whence its secrets come.

For commands that root gives before a start: root may read and write everything, the daemon's user has no rights.
"""

from __future__ import annotations

import json
import os
import pwd
import re
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from grp import getgrnam
from pathlib import Path
from typing import Any

from edge_asd.config import Config
from edge_asd.config_publish import MetricsSection, MqttSection

CONFIGURATIONS = Path("/etc/edge-asd")
"""Of the Debian package's instances: ``NAME.yaml`` each."""
_INSTANCE = re.compile("[A-Za-z0-9_-]{1,27}")
_RUNNING = Path("/run/credentials")
_STORES = tuple(Path(p, "credstore") for p in ("/etc", "/run", "/usr/local/lib", "/usr/lib"))
"""Where systemd looks for a credential whose path is relative (systemd.exec(5))."""
_ASKED = (
    *("LoadCredential", "LoadCredentialEncrypted", "SupplementaryGroups", "User"),
    *("ProtectHome", "PrivateTmp", "PrivateUsers", "ReadWritePaths"),
)
_ASK_SECONDS = 10.0
_HOMES = Path("/home"), Path("/root"), Path("/run/user")
_TEMPORARY = Path("/tmp"), Path("/var/tmp")


@dataclass(frozen=True)
class Unit:
    """What there is to know of it; unless systemd could be asked, as the package has it."""

    name: str
    """``edge-asd@press-hall``."""
    credentials: Mapping[str, Path] | None
    """Where each comes from that it is handed; None where systemd cannot be asked."""
    encrypted: frozenset[str] = frozenset()
    """Those that cannot be read here."""
    user: int | None = None
    """Number of its user, where that is there while it does not run."""
    groups: frozenset[int] = frozenset()
    """Its user is in."""
    knows_groups: bool = False
    """It sees them as they are (PrivateUsers=no), and may give files to them."""
    hidden: tuple[Path, ...] = (*_HOMES, *_TEMPORARY)
    """Folders that it does not see."""
    writable: tuple[Path, ...] = ()
    """Folders that it may write to besides its state and cache, where their modes allow."""
    state: Path = field(default=Path("/var/lib/edge-asd"))
    """Its state folder."""

    def with_credentials(self, config: Config) -> Config:
        """The configuration, with passwords and keys where systemd takes them from at a start."""
        sections = {"mqtt": config.mqtt, "metrics": config.metrics}
        return config.model_copy(update={name: self._handed(s) for name, s in sections.items() if s is not None})

    def is_elsewhere(self, secret: Path) -> bool:
        """Whether a secret that is not here may be handed to the daemon all the same."""
        unknown = self.credentials is None or secret.name in self.encrypted
        return unknown and secret.name not in (self.credentials or {}) and not secret.exists()

    def whereabouts(self, secret: Path) -> str:
        """Of a secret that is elsewhere, for the person who has to know."""
        if self.credentials is None:
            return f"is it in LoadCredential= of {self.name}? systemd cannot be asked here"
        return f"LoadCredentialEncrypted= of {self.name} names it: it can be read while that runs, and not before"

    def obstacle(self, path: Path, wanted: int) -> Path | None:
        """What keeps the daemon's user from a file or folder: itself, or a folder above it; None if nothing does.

        Args:
            path: that is there.
            wanted: `os.R_OK`, `os.W_OK`, `os.X_OK`, or several; the folders above must be open (x).

        Raises:
            OSError: it is not there.
        """
        above = dict.fromkeys((*reversed(path.absolute().parents), *reversed(_real(path).parents)))
        for one in above:
            if not self._may(one, os.X_OK):
                return one
        return None if self._may(path, wanted) else path

    def hides(self, path: Path) -> bool:
        """Whether it lies in a folder that the daemon does not see."""
        return any(_real(path).is_relative_to(folder) for folder in self.hidden)

    def owns(self, path: Path) -> bool:
        """Whether it lies in the state folder, which systemd gives to the daemon's user at each start."""
        return _real(path).is_relative_to(_real(self.state))

    def can_write(self, folder: Path) -> bool:
        """Whether the unit leaves it writable; modes are another matter."""
        return any(_real(folder).is_relative_to(_real(place)) for place in self.writable)

    def _may(self, path: Path, wanted: int) -> bool:
        found = path.stat()
        shift = 6 if found.st_uid == self.user else 3 if found.st_gid in self.groups else 0
        return (found.st_mode >> shift) & wanted == wanted

    def _handed(self, section: MqttSection | MetricsSection) -> MqttSection | MetricsSection:
        handed = self.credentials or {}
        update: dict[str, object] = {}
        if section.password_file is not None:
            update["password_file"] = handed.get(section.password_file.name, section.password_file)
        if section.tls is not None and section.tls.key is not None:
            key = handed.get(section.tls.key.name, section.tls.key)
            update["tls"] = section.tls.model_copy(update={"key": key})
        return section.model_copy(update=update)


def why_no_unit(config: Path) -> str | None:
    """What is wrong with the name of a configuration of the package's folder; None for all others."""
    if config.absolute().parent != CONFIGURATIONS:
        return None
    if config.suffix != ".yaml":
        return f"its unit reads {config.stem}.yaml: sudo mv {config} {config.with_suffix('.yaml')}"
    if not _INSTANCE.fullmatch(config.stem):
        # A user's name has 31 characters at most, and this one begins with asd-.
        return "no unit can have this name: at most 27 letters (a to z), digits, - and _ before .yaml"
    return None


def unit_of(config: Path) -> Unit | None:
    """The package's, where root asks for a configuration of its folder; None for all others."""
    if os.geteuid() != 0 or config.absolute().parent != CONFIGURATIONS or why_no_unit(config) is not None:
        return None
    name = f"edge-asd@{config.stem}"
    state = Path("/var/lib/edge-asd", config.stem)
    found = _ask(f"{name}.service")
    if found is None:
        return Unit(name, None, groups=frozenset(_groups(["audio"])), state=state)
    handed = {file.name: file for file in _files(_RUNNING / f"{name}.service")}
    handed |= {key: _source(path) for key, path in found["LoadCredential"]}
    homes = _HOMES if found["ProtectHome"] in ("yes", "tmpfs") else ()
    return Unit(
        name,
        handed,
        frozenset(key for key, _ in found["LoadCredentialEncrypted"]),
        _number(found["User"]),
        frozenset(_groups(found["SupplementaryGroups"])),
        not found["PrivateUsers"],
        (*homes, *(_TEMPORARY if found["PrivateTmp"] else ())),
        tuple(Path(path.lstrip("-+")) for path in found["ReadWritePaths"]),
        state,
    )


def secrets_of(section: MqttSection | MetricsSection | None) -> list[Path]:
    """Files of passwords and keys that a section names."""
    if section is None:
        return []
    key = None if section.tls is None else section.tls.key
    return [file for file in (section.password_file, key) if file is not None]


def _real(path: Path) -> Path:
    """Unlike Path.resolve() it takes links that go round in a circle."""
    return Path(os.path.realpath(path))


def _ask(service: str) -> dict[str, Any] | None:
    """Of systemd, for a unit that need not be loaded; None where it is not there."""
    # Not `systemctl show`: that of Debian 12 calls credentials unprintable.
    label = re.sub("[^A-Za-z0-9]", lambda m: "".join(f"_{b:02x}" for b in m[0].encode()), service)
    systemd = "org.freedesktop.systemd1"
    command = ["busctl", "--json=short", "get-property", systemd, f"/org/freedesktop/systemd1/unit/{label}"]
    try:
        done = subprocess.run(
            [*command, f"{systemd}.Service", *_ASKED],
            capture_output=True, text=True, timeout=_ASK_SECONDS, check=True,
        )  # fmt: skip
        values = [json.loads(line)["data"] for line in done.stdout.splitlines()]
        return dict(zip(_ASKED, values, strict=True))
    except (OSError, subprocess.SubprocessError, ValueError, KeyError):
        return None


def _source(path: str) -> Path:
    places = [Path(path)] if path.startswith("/") else [store / path for store in _STORES]
    return next((place for place in places if place.exists()), places[0])


def _files(folder: Path) -> list[Path]:
    return [file for file in folder.iterdir() if file.is_file()] if folder.is_dir() else []


def _number(user: str) -> int | None:
    try:
        return pwd.getpwnam(user).pw_uid
    except KeyError:
        return None


def _groups(names: list[str]) -> Iterator[int]:
    for name in names:
        try:
            yield int(name) if name.isdecimal() else getgrnam(name).gr_gid
        except KeyError:
            continue
