"""Time: one clock that never steps within, UTC on the outside."""

from __future__ import annotations

import ctypes
import os
import time
from datetime import UTC, datetime
from pathlib import Path

_TIME_ERROR = 5
"""What adjtimex(2) returns while nothing disciplines the clock."""
_TIMEX_BYTES = 512
"""Room for ``struct timex`` (208 bytes on 64-bit Linux); all zero asks and changes nothing."""


def boot_time() -> float:
    """Seconds since boot, sleep of the computer included; never steps, whatever is done to the wall clock."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def utc(moment: float) -> datetime:
    """UTC, as the wall clock has it now, of a moment of `boot_time`."""
    return datetime.fromtimestamp(time.time() - (boot_time() - moment), UTC)


def is_synchronised() -> bool | None:
    """Whether something (NTP, PTP) disciplines the wall clock, as the kernel knows; None where it cannot be asked."""
    try:
        state = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.create_string_buffer(_TIMEX_BYTES))
    except (OSError, AttributeError):
        return None
    return None if state < 0 else state != _TIME_ERROR


def seconds_since_process_start() -> float:
    """Since the kernel started this process, imports included."""
    ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    return boot_time() - ticks / os.sysconf("SC_CLK_TCK")
