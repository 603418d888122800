"""Keeps PortAudio's debugging aids off standard error.

Debian's PortAudio prints a handful of lines for each failed call, ``Expression 'r' failed in …``, which come back as an
error that says more; while a device is looked for, that would fill the journal. Everything else passes.
"""

from __future__ import annotations

import os
import sys
import threading

_NOISE = (b"Expression '", b"ALSA lib ")


def filter_standard_error() -> None:
    """From now on, for the life of the process; what Python itself writes does not take this way."""
    real = os.dup(2)
    reading, writing = os.pipe()
    os.dup2(writing, 2)
    os.close(writing)
    sys.stderr = open(real, "w", buffering=1, errors="backslashreplace", closefd=False)  # noqa: SIM115 (no path; it stays)
    threading.Thread(target=_forward, args=(reading, real), name="stderr", daemon=True).start()


def _forward(reading: int, real: int) -> None:
    rest = b""
    while data := os.read(reading, 65_536):
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            if not line.startswith(_NOISE):
                os.write(real, line + b"\n")
