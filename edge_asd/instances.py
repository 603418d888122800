"""The daemons that run on this computer now, and their configurations, as /proc shows them."""

from __future__ import annotations

import os
import pwd
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_MODULES = ("edge_asd", "edge_asd.cli")
_MADE_BY_SYSTEMD = range(61_184, 65_520)
"""Users of units with DynamicUser=, who are nobody else's: systemd.exec(5)."""


@dataclass(frozen=True)
class Instance:
    """One ``edge-asd run``."""

    pid: int
    config: Path | None
    """Absolute; None where it cannot be told, or not be believed."""
    state: Path | None
    """The state folder that it was given, by ``--state`` or systemd."""
    reason: str | None = None
    """Why there is no configuration."""
    environment: Mapping[str, str] | None = None
    """None where it cannot be seen."""


def running_instances(proc: Path = Path("/proc")) -> list[Instance]:
    """Every ``edge-asd run`` but this process, in order of pid.

    Anybody may call a program of his own so, and root's commands write where it says that it keeps its state. So what
    it says is believed of root's processes, this user's, and those of a user whom systemd made up.

    Processes whose command line cannot be seen (``hidepid``) are not found.
    """
    found = []
    for folder in sorted((p for p in proc.iterdir() if p.name.isdecimal()), key=lambda p: int(p.name)):
        pid = int(folder.name)
        if pid == os.getpid():
            continue
        try:
            arguments = [os.fsdecode(a) for a in (folder / "cmdline").read_bytes().split(b"\0")[:-1]]
            options = run_options(arguments)
            if options is None:
                continue
            doubt = _doubt(folder)
        except OSError:  # it has ended, or is hidden
            continue
        found.append(_instance(folder, pid, options) if doubt is None else Instance(pid, None, None, doubt))
    return found


def run_options(arguments: Sequence[str]) -> list[str] | None:
    """What follows ``run`` in the command line of a daemon; None for any other process."""
    for at, argument in enumerate(arguments[:-1]):
        is_ours = Path(argument).name == "edge-asd" or (argument in _MODULES and at > 0 and arguments[at - 1] == "-m")
        # The interpreter and its own options may stand before it, nothing else.
        if is_ours and arguments[at + 1] == "run" and (at == 0 or "python" in Path(arguments[0]).name):
            return list(arguments[at + 2 :])
    return None


def _doubt(folder: Path) -> str | None:
    """Why what a process says of itself may be anybody's invention; raises OSError where it has ended."""
    lines = (folder / "status").read_text(errors="replace").splitlines()
    # Real, effective, saved, and the file system's.
    users = {int(number) for line in lines if line.startswith("Uid:") for number in line.split()[1:]}
    strangers = [user for user in users - {0, os.geteuid()} if user not in _MADE_BY_SYSTEMD]
    if strangers:
        return f"it belongs to {_named(strangers[0])}, who can call any program so"
    if 0 not in users:
        return None
    # Root's too is what `su` and `sudo` do for anybody, who gives them any name and arguments.
    try:
        is_set_uid = (folder / "exe").stat().st_mode & stat.S_ISUID
    except PermissionError:
        return "it belongs to root, and this user cannot see what program it is"
    return "anybody can start this program of root's, and call it so" if is_set_uid else None


def _named(user: int) -> str:
    try:
        return f"user {pwd.getpwuid(user).pw_name}"
    except KeyError:
        return f"user number {user}"


def _instance(folder: Path, pid: int, options: list[str]) -> Instance:
    given = _value(options, "--config", "-c")
    if given is None:
        return Instance(pid, None, None, "its command line names no configuration")
    try:
        base = (folder / "cwd").readlink()
        variables = os.fsdecode((folder / "environ").read_bytes()).split("\0")
        environment: dict[str, str] | None = dict(v.split("=", 1) for v in variables if "=" in v)
    except OSError as error:
        if not Path(given).is_absolute():
            return Instance(pid, None, None, f"{given} is relative to a folder that cannot be seen: {error.strerror}")
        base, environment = Path("/"), None
    state = _value(options, "--state") or (environment or {}).get("STATE_DIRECTORY", "").split(":")[0]
    return Instance(pid, base / given, base / state if state else None, environment=environment)


def _value(options: Sequence[str], *names: str) -> str | None:
    """Of an option, as argparse takes it: ``--config FILE``, ``--config=FILE``, ``-c FILE``, ``-cFILE``; the last."""
    found = None
    for at, option in enumerate(options):
        for name in names:
            if option == name and at + 1 < len(options):
                found = options[at + 1]
            elif name.startswith("--") and option.startswith(f"{name}="):
                found = option[len(name) + 1 :]
            elif not name.startswith("--") and option.startswith(name) and len(option) > len(name):
                found = option[len(name) :].removeprefix("=")
    return found
