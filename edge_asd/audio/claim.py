"""One process for each device: who comes second is told who was first.

The claim is a Unix socket in Linux's abstract namespace: it leaves no file behind, is seen by all users and through
systemd's private folders, and ends with its process however that ends. The kernel says who listens there.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import socket
import struct
import threading
import time
from pathlib import Path

from edge_asd.audio.hardware import CardIdentity, hardware_numbers
from edge_asd.errors import DeviceError

_PEER = struct.Struct("3i")
"""``struct ucred``: pid, uid, gid."""
_CONNECT_SECONDS = 1.0


class Claim:
    """To one device at a time."""

    def __init__(self) -> None:
        self._address = ""
        self._socket: socket.socket | None = None
        self._answering: threading.Thread | None = None

    def take(self, name: str, card: CardIdentity | None) -> None:
        """Claim a device; nothing happens where it is ours already, and another one is given back.

        Args:
            name: as PortAudio lists it.
            card: behind it; the same socket or slot is the same device whatever it is called.

        Raises:
            DeviceError: another process has it; the message names that.
        """
        address = "\0edge-asd/device/" + hashlib.sha256(_key(name, card).encode()).hexdigest()
        if self._socket is not None and address == self._address:
            return
        self.give_back()
        self._address = address
        claimed = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            claimed.bind(self._address)
            claimed.listen()
        except OSError:
            claimed.close()
            raise DeviceError(f"{name!r} is held by {self._holder()}") from None
        self._socket = claimed
        self._answering = threading.Thread(target=_answer, args=(claimed,), name="claim", daemon=True)
        self._answering.start()

    def give_back(self) -> None:
        """End the claim."""
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)  # wakes the thread that answers
            if self._answering is not None:
                self._answering.join(_CONNECT_SECONDS)  # while it waits there, the kernel keeps the address
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


def _key(name: str, card: CardIdentity | None) -> str:
    numbers = hardware_numbers(name)
    if card is not None and numbers is not None:
        return f"{card.port} {numbers[1]}"
    # What is no hardware is a name in one user's configuration, at one sound server.
    return "\0".join([name, *(os.environ.get(v, "") for v in ("PULSE_SERVER", "XDG_RUNTIME_DIR", "HOME"))])


def _answer(claimed: socket.socket) -> None:
    """Who asks only wants to know who listens; unanswered, the askers would pile up."""
    while claimed.fileno() >= 0:
        try:
            claimed.accept()[0].close()
        except OSError as error:
            if error.errno == errno.EINVAL:  # given back
                return
            time.sleep(_CONNECT_SECONDS)  # no file descriptors are left, say


def _command(pid: int) -> str:
    """A process's command, the interpreter left out; what cannot be seen is called edge-asd, for it holds our claim."""
    try:
        words = (Path("/proc") / str(pid) / "cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return "edge-asd"
    if words and Path(words[0]).name.startswith("python"):
        words = words[2:] if words[1:2] == ["-m"] else words[1:]
    return " ".join([Path(words[0]).name, *words[1:]]).strip() if words and words[0] else "edge-asd"
