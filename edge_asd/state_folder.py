"""Where a daemon keeps what must outlive it: alarms and unsent alerts, maintenance, the site's calibrations, evidence.

``--state DIR``, else ``$STATE_DIRECTORY`` (of systemd), else a folder of the user's own, named after the configuration
and where it lies: two configurations of one file name share nothing.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

from edge_asd.errors import ConfigurationError
from edge_asd.instances import Instance, running_instances

_PACKAGE = Path("/etc/edge-asd"), Path("/var/lib/edge-asd")
"""Configurations and state folders of the Debian package's instances, each by its name."""
_MODE = 0o755
"""Of state folders that systemd makes: StateDirectoryMode= in systemd.exec(5)."""
_DIGITS = 8


def state_folder(config: Path, given: Path | None = None, environment: Mapping[str, str] = os.environ) -> Path:
    """Of the daemon that this process, or another with this environment, is. It need not be there yet.

    Args:
        config: file of the configuration.
        given: ``--state``.
        environment: of the process.

    Raises:
        ConfigurationError: the user has no home, and no other folder is named.
    """
    named = given or systemds_folder(environment)
    if named is not None:
        return named
    path = os.path.normpath(config.absolute())
    digest = hashlib.sha256(os.fsencode(path)).hexdigest()[:_DIGITS]
    return _home(environment) / "edge-asd" / f"{Path(path).stem}-{digest}"


def state_folder_in_use(config: Path, given: Path | None = None, *, proc: Path = Path("/proc")) -> Path:
    """Of a configuration's daemon, for commands that another user may run, root for one, and while it does not run.

    Where none is named, the folder of the daemon that runs with this configuration, if `running_instances` believes it,
    else the one that the package's unit gives it, if this user may write there or make it, else as `state_folder` says.

    Args:
        config: file of the configuration.
        given: ``--state``.
        proc: where processes are looked for.

    Raises:
        ConfigurationError: see `state_folder`.
    """
    if given is None and systemds_folder(os.environ) is None:
        own = os.path.realpath(config)  # unlike Path.resolve() it takes links that go round in a circle
        for instance in running_instances(proc):
            if instance.config is not None and os.path.realpath(instance.config) == own:
                folder = folder_of(instance)
                if folder is not None:
                    return folder
        configurations, states = _PACKAGE
        packaged = states / config.stem
        if config.absolute().parent == configurations and _may_write(packaged):
            return packaged
    return state_folder(config, given)


def make_state_folder(folder: Path) -> None:
    """Before the daemon's first start, where it is missing.

    The package's is made as systemd makes it, whatever the umask of whoever mutes or calibrates: at the start systemd
    gives it, with all that is in it, to the user that it makes up.

    Args:
        folder: from `state_folder_in_use`.

    Raises:
        OSError: it cannot be made.
    """
    states = _PACKAGE[1]
    if folder.parent == states:
        for path in (states, folder):
            if not path.is_dir():
                path.mkdir(_MODE)
                path.chmod(_MODE)
    folder.mkdir(parents=True, exist_ok=True)


def systemds_folder(environment: Mapping[str, str]) -> Path | None:
    """``StateDirectory=`` of a unit, where there is one; the first of several."""
    named = environment.get("STATE_DIRECTORY", "").split(":")[0]
    return Path(named) if named else None


def folder_of(instance: Instance) -> Path | None:
    """Of a daemon that runs; None where that cannot be told."""
    if instance.state is not None or instance.config is None or instance.environment is None:
        return instance.state
    return state_folder(instance.config, None, instance.environment)


def _may_write(folder: Path) -> bool:
    """Into a folder, after making it where it is missing."""
    nearest = next(path for path in (folder, *folder.parents) if os.path.exists(path))  # noqa: PTH110 (nothing is raised)
    return os.access(nearest, os.W_OK | os.X_OK)


def _home(environment: Mapping[str, str]) -> Path:
    """Where programs of a user keep their state (XDG)."""
    named = Path(environment.get("XDG_STATE_HOME", ""))
    if named.is_absolute():
        return named
    try:
        home = Path(environment.get("HOME") or Path.home())
    except RuntimeError:
        raise ConfigurationError("this user has no home to keep the daemon's state in: give --state DIR") from None
    return home / ".local" / "state"
