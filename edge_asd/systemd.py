"""Tells systemd what it wants to know; does nothing where it is not the parent."""

from __future__ import annotations

import contextlib
import os
import signal
import socket

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
        channel.sendto(message.encode(), address)


def survive_reload() -> None:
    """Let ``systemctl reload`` (SIGHUP) change nothing; elsewhere SIGHUP is a closed terminal, and ends the process."""
    if os.environ.get("NOTIFY_SOCKET"):
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
