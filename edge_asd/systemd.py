"""Tells systemd what it wants to know; does nothing where it is not the parent."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections.abc import Callable

_SEND_SECONDS = 0.5
"""A systemd that has no time must not keep the daemon from its sound."""


def notify(message: str) -> None:
    """Send one message of sd_notify(3), such as ``READY=1``."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with (
        contextlib.suppress(OSError),
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel,
    ):
        channel.settimeout(_SEND_SECONDS)
        channel.sendto(message.encode(errors="backslashreplace"), address)


def heed_hangup(reload: Callable[[], None]) -> None:
    """Call ``reload`` on SIGHUP, as ``systemctl reload`` sends it.

    Where the process has a terminal, SIGHUP says that this was closed, and goes on to end the process.
    """
    if os.environ.get("NOTIFY_SOCKET") or not _has_terminal():
        signal.signal(signal.SIGHUP, lambda *_: reload())


def _has_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True
