"""Where a daemon's database lies, and that no second daemon uses it."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from pathlib import Path

from edge_asd.errors import ConfigurationError

_NO_LOCKS = {errno.ENOLCK, errno.EOPNOTSUPP}
"""What ``flock`` says on a share whose server or mount knows no locks (flock(2), nfs(5))."""


def database_path(state: Path, instance: str) -> Path:
    """``INSTANCE.sqlite`` in the state folder of the daemon with this name."""
    return state / f"{instance}.sqlite"


class DatabaseLock:
    """Held while the daemon runs; the kernel ends it with the process, however that ends.

    A lock of its own beside the database: SQLite's would not say who holds it, and would come and go. On a file system
    without locks there is none: then one daemon alone must use it.
    """

    def __init__(self, database: Path) -> None:
        """
        Raises:
            ConfigurationError: another process holds it; the message names that process.
            OSError: the folder cannot be written, or the disk fails.
        """
        self.path = database.with_name(f"{database.name}.lock")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            self._take(database)
        except BaseException:
            os.close(self._file)  # it is tried again every few seconds, for days
            raise

    def give_back(self) -> None:
        """Let others have the database. The file stays: removing it would let two hold a lock of the same name."""
        os.close(self._file)

    def _take(self, database: Path) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(self._file, 20).decode(errors="replace").strip()
            who = f"another edge-asd (pid {holder})" if holder else "another edge-asd"
            raise ConfigurationError(
                f"{database} is in use by {who}: stop it, or give this one a state folder of its own (--state DIR)"
            ) from None
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
        with contextlib.suppress(OSError):  # a full disk: the lock holds all the same, only its holder is not named
            os.ftruncate(self._file, 0)
            os.pwrite(self._file, f"{os.getpid()}\n".encode(), 0)
