"""What the log says again and again is said ten times, and then counted."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from edge_asd.publish.journal import Level

MOST_REPEATS = 10
RUN_SECONDS = 600.0
"""Ten in ten minutes, not in one: at the usual hop of 10 s, a detector that fails at every window says so six times a
minute, and would never be held back."""
QUIET_SECONDS = 60.0
"""Nothing for so long, and the flood has ended."""
MOST_NEW = 10
"""That say something new are written beyond the ten: a peer that always finds other words must not fill the disk."""

NEVER_KEPT_BACK = frozenset(
    [
        # What an incident is told from afterwards, and what became of its alerts.
        *("alert", "alert_lost", "alerts_lost", "alarm_restored", "alarm_not_restored", "state", "muted", "unmuted"),
        # Of the start and the end: for each of a hundred machines there is one.
        *("ready", "stopped", "operating_point", "active_when", "calibration", "calibration_not_used"),
        *("evidence", "recordings_ended"),
        # Somebody waits for it.
        *("reloaded", "reload_failed"),
        # Ends the daemon, or sets its database aside.
        *("hangs", "sound_system_hangs", "outbox_corrupt"),
    ]
)

_NUMBER = re.compile(r"[-+]?\d[\d.]*(?:e[-+]?\d+)?")


class Kept(NamedTuple):
    """What was kept back."""

    event: str
    machine: str | None
    level: Level
    times: int
    seconds: float


@dataclass
class _Run:
    """Lines with the same event, machine and level."""

    began: float
    last: float
    written: int = 0
    kept: int = 0
    words: set[int] = field(default_factory=set)
    """Hashes of what was written."""


class Repeats:
    """Decides what is written; may be used from any thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._runs: dict[tuple[str, str | None, Level], _Run] = {}
        self._lock = threading.Lock()

    def admit(self, event: str, level: Level, fields: Mapping[str, Any]) -> bool:
        """Whether a line is to be written; call `ended` before.

        Beyond ten lines, only those that say something new are: what differs in numbers only does not.
        """
        if event in NEVER_KEPT_BACK:
            return True
        machine = fields.get("machine")
        words = hash(_NUMBER.sub("0", str(fields)))
        with self._lock:
            now = self._clock()
            key = (event, None if machine is None else str(machine), level)
            run = self._runs.setdefault(key, _Run(now, now))
            run.last = now
            most = MOST_REPEATS + (MOST_NEW if words not in run.words else 0)
            if run.written >= most:
                run.kept += 1
                return False
            run.written += 1
            run.words.add(words)
            return True

    def ended(self, *, all_of_them: bool = False) -> list[Kept]:
        """What was kept back in floods that have ended, or have lasted for long; they begin anew."""
        kept = []
        with self._lock:
            now = self._clock()
            for key, run in list(self._runs.items()):
                if all_of_them or now - run.began >= RUN_SECONDS or now - run.last >= QUIET_SECONDS:
                    del self._runs[key]
                    if run.kept:
                        kept.append(Kept(*key, run.kept, run.last - run.began))
        return kept
