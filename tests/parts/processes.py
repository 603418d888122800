"""What /proc shows of a process, written by hand."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def write_process(
    proc: Path,
    pid: int,
    *arguments: str,
    cwd: Path | None = Path("/hall"),
    environment: bytes | None = b"",
    users: tuple[int, ...] = (),
    exe: Path = Path(sys.executable),
) -> None:
    """One process; without ``cwd`` or ``environment`` those cannot be seen.

    Args:
        proc: the folder of all.
        pid: its number.
        arguments: its command line.
        cwd: where it runs.
        environment: as the kernel shows it, with a NUL after each variable.
        users: real, effective, saved and file system's; this process's own unless given.
        exe: the program's file.
    """
    folder = proc / str(pid)
    folder.mkdir(parents=True)
    (folder / "cmdline").write_bytes(b"".join(a.encode() + b"\0" for a in arguments))
    numbers = "\t".join(str(user) for user in users or [os.geteuid()] * 4)
    (folder / "status").write_text(f"Name:\tpython3\nUmask:\t0022\nUid:\t{numbers}\nGid:\t0\t0\t0\t0\n")
    (folder / "exe").symlink_to(exe)
    if environment is not None:
        (folder / "environ").write_bytes(environment)
    if cwd is not None:
        (folder / "cwd").symlink_to(cwd)
