"""Is it the right time? Alerts carry it, and a broker's certificate is judged by it."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Iterator
from dataclasses import dataclass

from edge_asd.finding import Finding

_EARLIEST = 1_767_225_600.0
"""The beginning of 2026: this program is not older."""
_FAR_OFF_SECONDS = 1.0
_STA_UNSYNC = 0x0040
_TIME_ERROR = 5


class _Timex(ctypes.Structure):
    """The beginning of Linux's ``struct timex`` (adjtimex(2)), and room for the rest."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("rest", ctypes.c_byte * 512),
    )


@dataclass(frozen=True)
class Clock:
    """What the kernel says of its clock."""

    is_synchronised: bool
    most_wrong_seconds: float
    """By its own reckoning."""


def kernel_clock() -> Clock | None:
    """Read, and not changed; None where it cannot be asked."""
    try:
        library = ctypes.CDLL(None, use_errno=True)
        answer = _Timex()
        state = library.adjtimex(ctypes.byref(answer))
    except (OSError, AttributeError):
        return None
    if state < 0:
        return None
    return Clock(state != _TIME_ERROR and not answer.status & _STA_UNSYNC, answer.maxerror / 1e6)


def check_clock(clock: Clock | None, now: float | None = None) -> Iterator[Finding]:
    """Whether something keeps the clock right.

    Args:
        clock: from `kernel_clock`.
        now: seconds since 1970; the clock's unless given.
    """
    now = time.time() if now is None else now
    shown = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(now))
    how = (
        "`timedatectl set-ntp true` starts systemd's time service; the plant's time server belongs into timesyncd.conf"
    )
    if now < _EARLIEST:
        text = (
            f"it is {shown} here, which cannot be: alerts carry a wrong time and TLS fails; set the clock, then {how}"
        )
        yield Finding("clock", "failed", text)
    elif clock is None:
        yield Finding("clock", "warning", f"it is {shown} here; whether it is kept right cannot be asked")
    elif not clock.is_synchronised:
        text = (
            f"it is {shown} here, but nothing keeps it right (not synchronised): alerts may carry a wrong time; {how}"
        )
        yield Finding("clock", "warning", text)
    else:
        figures = {"most_wrong_seconds": clock.most_wrong_seconds}
        text = f"{shown}, synchronised, wrong by {clock.most_wrong_seconds:.3f} s at most"
        yield Finding("clock", "ok" if clock.most_wrong_seconds < _FAR_OFF_SECONDS else "warning", text, figures)
