"""Keeps PortAudio's debugging aids off standard error.

Debian's PortAudio prints a handful of lines for each failed call, ``Expression 'r' failed in …``, which come back as an
error that says more; while a device is looked for, that would fill the journal. Everything else passes.
"""

from __future__ import annotations

import atexit
import contextlib
import faulthandler
import os
import sys
import threading

_NOISE = (b"Expression '", b"ALSA lib ")
_LAST_WORDS_SECONDS = 1.0


def filter_standard_error() -> None:
    """From now on, for the life of the process; what Python itself writes does not take this way."""
    real = os.dup(2)
    reading, writing = os.pipe()
    os.dup2(writing, 2)
    os.close(writing)
    sys.stderr = open(real, "w", buffering=1, errors="backslashreplace", closefd=False)  # noqa: SIM115 (it stays open)
    faulthandler.enable(sys.stderr)  # a crash leaves no time for the way round
    forwarder = threading.Thread(target=_forward, args=(reading, real), name="stderr", daemon=True)
    forwarder.start()

    def let_last_words_through() -> None:
        os.dup2(real, 2)  # closes the pipe
        forwarder.join(_LAST_WORDS_SECONDS)

    atexit.register(let_last_words_through)


def _forward(reading: int, real: int) -> None:
    rest = b""
    while data := os.read(reading, 65_536):
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            _pass_on(line + b"\n", real)
    _pass_on(rest, real)


def _pass_on(line: bytes, real: int) -> None:
    if line and not line.startswith(_NOISE):
        with contextlib.suppress(OSError):  # its reader may be gone; this pipe must be emptied all the same
            os.write(real, line)
