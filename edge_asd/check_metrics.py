"""Whether the metrics can be served where the configuration says: the daemon does not start where they cannot."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path

from edge_asd.config import Config
from edge_asd.finding import Finding
from edge_asd.publish.metrics_listener import bound, in_words, is_there, missing
from edge_asd.unit import Unit

_LISTENS = "0A"
"""State of a socket in /proc/net/tcp."""
_FIRST_FREE = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start")


def check_metrics(config: Config, unit: Unit | None = None, running: int | None = None) -> Iterator[Finding]:
    """Listen there for a moment.

    Args:
        config: whose metrics.
        unit: that its daemon is to run in, where it is known: root may listen where that may not.
        running: number of the daemon's process, if it runs now: it has the port.
    """
    if config.metrics is None:
        return
    host, port = config.metrics.address
    place, well = config.place("metrics", "listen"), f"/metrics on {config.metrics.listen}"
    if unit is not None and 0 < port < _first_free_port():
        hint = f"{unit.name} may not: name a port from {_first_free_port()}"
        yield Finding("metrics", "failed", f"{place}: {host}:{port}: Permission denied: {hint}")
        return
    if not is_there(host):
        yield Finding("metrics", "warning", f"{place}: {missing(host)}")
        return
    try:
        bound(host, port).close()
    except (OSError, UnicodeError) as error:
        is_taken = getattr(error, "errno", None) == errno.EADDRINUSE
        if is_taken and running is not None and _may_listen(running, port):
            yield Finding("metrics", "ok", f"{well}, by the daemon that runs as pid {running}")
        else:
            hint = "; `sudo ss -ltnp` shows by what" if is_taken else ""
            yield Finding("metrics", "failed", f"{place}: {host}:{port}: {in_words(error)}{hint}")
        return
    yield Finding("metrics", "ok", well)


def _first_free_port() -> int:
    """For everybody, as ip(7) has it."""
    with contextlib.suppress(OSError, ValueError):
        return int(_FIRST_FREE.read_text())
    return 1024


def _may_listen(pid: int, port: int, proc: Path = Path("/proc")) -> bool:
    """Whether a process listens to a port; True where that cannot be seen."""
    try:
        sockets = {str(file.readlink()) for file in (proc / str(pid) / "fd").iterdir()}
        lines = [
            line.split()
            for name in ("tcp", "tcp6")
            if (file := proc / str(pid) / "net" / name).exists()
            for line in file.read_text().splitlines()[1:]
        ]
    except OSError:
        return True
    # local_address is the second field, the state the fourth, the inode the tenth.
    listening = [f"socket:[{f[9]}]" for f in lines if f[3] == _LISTENS and int(f[1].rpartition(":")[2], 16) == port]
    return any(name in sockets for name in listening)
