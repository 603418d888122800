"""The daemons that run on this computer now, and their configurations, as /proc shows them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_MODULES = ("edge_asd", "edge_asd.cli")


@dataclass(frozen=True)
class Instance:
    """One ``edge-asd run``."""

    pid: int
    config: Path | None
    """Absolute; None where it cannot be told."""
    state: Path | None
    """The state folder that it was given, by ``--state`` or systemd."""
    reason: str | None = None
    """Why the configuration cannot be told."""
    environment: Mapping[str, str] | None = None
    """None where it cannot be seen."""


def running_instances(proc: Path = Path("/proc")) -> list[Instance]:
    """Every ``edge-asd run`` but this process, in order of pid.

    Processes whose command line cannot be seen (``hidepid``) are not found.
    """
    found = []
    for folder in sorted((p for p in proc.iterdir() if p.name.isdecimal()), key=lambda p: int(p.name)):
        pid = int(folder.name)
        if pid == os.getpid():
            continue
        try:
            arguments = [os.fsdecode(a) for a in (folder / "cmdline").read_bytes().split(b"\0")[:-1]]
        except OSError:  # it has ended, or is hidden
            continue
        options = run_options(arguments)
        if options is not None:
            found.append(_instance(folder, pid, options))
    return found


def run_options(arguments: Sequence[str]) -> list[str] | None:
    """What follows ``run`` in the command line of a daemon; None for any other process."""
    for at, argument in enumerate(arguments[:-1]):
        is_ours = Path(argument).name == "edge-asd" or (argument in _MODULES and at > 0 and arguments[at - 1] == "-m")
        # The interpreter and its own options may stand before it, nothing else.
        if is_ours and arguments[at + 1] == "run" and (at == 0 or "python" in Path(arguments[0]).name):
            return list(arguments[at + 2 :])
    return None


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
