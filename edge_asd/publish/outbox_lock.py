"""Where a daemon's database lies, and that no second daemon uses it."""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path

from edge_asd.errors import ConfigurationError


def database_path(state: Path, instance: str) -> Path:
    """``INSTANCE.sqlite`` in the state folder of the daemon with this name."""
    return state / f"{instance}.sqlite"


class DatabaseLock:
    """Held while the daemon runs; the kernel ends it with the process, however that ends.

    A lock of its own beside the database: SQLite's would not say who holds it, and would come and go.
    """

    def __init__(self, database: Path) -> None:
        """
        Raises:
            ConfigurationError: another process holds it; the message names that process.
            OSError: the folder cannot be written.
        """
        self.path = database.with_name(f"{database.name}.lock")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(self._file, 20).decode(errors="replace").strip()
            os.close(self._file)
            who = f"another edge-asd (pid {holder})" if holder else "another edge-asd"
            raise ConfigurationError(
                f"{database} is in use by {who}: stop it, or give this one a state folder of its own (--state DIR)"
            ) from None
        with contextlib.suppress(OSError):  # a full disk: the lock holds all the same, only its holder is not named
            os.ftruncate(self._file, 0)
            os.pwrite(self._file, f"{os.getpid()}\n".encode(), 0)

    def give_back(self) -> None:
        """Let others have the database. The file stays: removing it would let two hold a lock of the same name."""
        os.close(self._file)
