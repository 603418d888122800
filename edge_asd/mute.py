"""`edge-asd mute`: a machine is serviced, and shall raise nothing meanwhile."""

from __future__ import annotations

import argparse
import os
import pwd
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from edge_asd.config_file import instance_name, load_config
from edge_asd.errors import EXIT_DONE, UsageError
from edge_asd.maintenance import (
    Maintenance,
    MaintenanceBook,
    MaintenanceError,
    change_book,
    instances_in,
    is_read,
    maintenance_path,
    read_book,
)
from edge_asd.state_folder import make_state_folder, state_folder_in_use, systemds_folder


def mute(options: argparse.Namespace) -> int:
    """Mute as the options say; returns the exit status.

    Raises:
        UsageError: no such machine, or it is not clear where its daemon keeps its state.
        MaintenanceError: the file cannot be read or written.
    """
    if options.list and options.machine is not None:
        raise UsageError("mute: --list shows all machines; leave MACHINE out")
    if not options.list and options.machine is None:
        raise UsageError("mute: say which MACHINE")
    places = _places(options.config, options.state)
    if options.list:
        return _list(places)
    place = _place_of(options.machine, places)
    now = datetime.now(UTC)
    _make_folder(place.path.parent)
    if options.off:
        _end(place, options.machine, now)
    else:
        _begin(place, options.machine, options.hours, now)
    if not is_read(place.path):
        print(
            f"edge-asd: no daemon reads {place.path} now: it counts from its next start with this state folder "
            "(--state names another)",
            file=sys.stderr,
        )
    return EXIT_DONE


@dataclass(frozen=True)
class _Place:
    """A daemon's file, and the machines that it has."""

    path: Path
    machines: Sequence[str]


def _places(config: Path | None, state: Path | None) -> list[_Place]:
    if config is not None:
        loaded = load_config(config)
        if state is not None and not state.is_dir():
            raise UsageError(f"mute: {state} is no folder; --state names the daemon's state folder")
        path = maintenance_path(state_folder_in_use(config, state), instance_name(config))
        return [_Place(path, [m.name for m in loaded.machines])]
    state = state or systemds_folder(os.environ)
    if state is None:
        raise UsageError("mute: -c FILE names the daemon's configuration, or --state DIR its state folder")
    paths = [maintenance_path(state, instance) for instance in instances_in(state)]
    if not paths:
        raise UsageError(f"mute: no daemon has kept its state in {state} yet; -c FILE names its configuration")
    return [_Place(path, list(read_book(path).machines)) for path in paths]


def _place_of(machine: str, places: Sequence[_Place]) -> _Place:
    found = [p for p in places if machine in p.machines]
    if not found:
        known = ", ".join(name for p in places for name in p.machines)
        raise UsageError(f"mute: there is no machine {machine!r}; there are: {known or 'none'}")
    if len(found) > 1:
        files = ", ".join(str(p.path) for p in found)
        raise UsageError(f"mute: {machine} is a machine of several daemons ({files}); -c FILE names the configuration")
    return found[0]


def _make_folder(folder: Path) -> None:
    """The daemon has never run."""
    try:
        make_state_folder(folder)
    except OSError as error:
        raise MaintenanceError(
            f"{folder}: {error.strerror or error}: run it as root, or as the daemon's user"
        ) from None


def _begin(place: _Place, machine: str, hours: float, now: datetime) -> None:
    try:
        maintenance = Maintenance.of(hours, _user(), now)
    except ValueError as error:
        raise UsageError(f"mute: --{error}") from None
    change_book(place.path, lambda book: book.noted(machine, maintenance))
    print(f"{machine}: in maintenance until {_local(maintenance.until)}")


def _end(place: _Place, machine: str, now: datetime) -> None:
    was: list[Maintenance] = []

    def change(book: MaintenanceBook) -> MaintenanceBook:
        current = book.of(machine, now)
        was.extend([current] if current is not None else [])
        return book if current is None else book.noted(machine, current.ended(_user(), now))

    change_book(place.path, change)
    print(f"{machine}: {'maintenance is over' if was else 'is not in maintenance'}")


def _list(places: Sequence[_Place]) -> int:
    now = datetime.now(UTC)
    for place in places:
        book = read_book(place.path)
        for machine in place.machines:
            current = book.of(machine, now)
            text = "-" if current is None else f"in maintenance until {_local(current.until)}, by {current.by}"
            print(f"{machine}  {text}")
    return EXIT_DONE


def _local(moment: datetime) -> str:
    """As the clock on the wall shows it."""
    return moment.astimezone().strftime("%Y-%m-%d %H:%M:%S %Z")


def _user() -> str:
    """Who gave the command; behind sudo, who that was."""
    if (behind := os.environ.get("SUDO_USER")) and os.geteuid() == 0:
        return behind
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return f"uid {os.geteuid()}"
