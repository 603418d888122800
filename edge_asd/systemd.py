"""Tells systemd what it wants to know; does nothing where it is not the parent."""

from __future__ import annotations

import contextlib
import os
import socket


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
        channel.sendto(message.encode(), address)
