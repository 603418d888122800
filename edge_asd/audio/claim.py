"""One process for each device: who comes second is told who was first.

The claim is a Unix socket in Linux's abstract namespace: it leaves no file behind, is seen by all users and through
systemd's private folders, and ends with its process however that ends. The kernel says who listens there.
"""

from __future__ import annotations

import contextlib
import hashlib
import socket
import struct
from pathlib import Path

from edge_asd.errors import DeviceError

_PEER = struct.Struct("3i")
"""``struct ucred``: pid, uid, gid."""
_CONNECT_SECONDS = 1.0


class Claim:
    """To one device, as the configuration names it."""

    def __init__(self, device: str) -> None:
        """``device``: the same text means the same device."""
        self.device = device
        self._address = "\0edge-asd/device/" + hashlib.sha256(device.encode()).hexdigest()
        self._socket: socket.socket | None = None

    def take(self) -> None:
        """Claim the device; nothing happens where it is ours already.

        Raises:
            DeviceError: another process has it; the message names that.
        """
        if self._socket is not None:
            return
        claimed = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            claimed.bind(self._address)
            claimed.listen(1)
        except OSError:
            claimed.close()
            raise DeviceError(f"{self.device} is held by {self._holder()}") from None
        self._socket = claimed

    def give_back(self) -> None:
        """End the claim."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _holder(self) -> str:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
            asking.settimeout(_CONNECT_SECONDS)
            with contextlib.suppress(OSError):
                asking.connect(self._address)
                pid, _, _ = _PEER.unpack(asking.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
                return f"{_command(pid)} (pid {pid})"
        return "another edge-asd"


def _command(pid: int) -> str:
    """A process's command, the interpreter left out; what cannot be seen is called edge-asd, for it holds our claim."""
    try:
        words = (Path("/proc") / str(pid) / "cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return "edge-asd"
    if words and Path(words[0]).name.startswith("python"):
        words = words[1:]
    return " ".join([Path(words[0]).name, *words[1:]]).strip() if words and words[0] else "edge-asd"
