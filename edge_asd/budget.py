"""Whether the time suffices: what scoring takes, of the time that the allowed cores have.

The ratio is seconds of scoring per second of sound and core: at 1 every core scores without a pause, above it windows
are skipped. A machine's windows are scored one at a time, so the ratio is never below that of the costliest machine
alone, however many cores there are.

**Wall time is what counts.** A window that computes for 60 ms and waits 60 ms for a core that another process has is
120 ms late, and 120 ms are gone. So the ratio grows when other processes take the cores, which is meant: what is asked
is whether this daemon, here and now, will be done in time. Processor time is kept beside it and told with every
warning, so that one can see who is to blame: a ``processor_ratio`` far below the ratio is competition.

One slow window is no news. Each machine's cost is a mean over about the last minute of its sound. What is skipped
counts at that mean, not as nothing, so the ratio says by how much the work is too much. Windows of a machine that
stands still count as what they are, next to nothing; those with a gap or a sick signal do not count at all.
"""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass
from typing import Literal

from edge_asd.publish.log import Log

State = Literal["ok", "tight", "exceeded"]

TIGHT = 0.8
"""Warned from here on: above it, a window comes late as soon as anything else happens on the computer."""
EXCEEDED = 1.0
_MARGIN = 0.1
"""A state ends when the ratio is so far below where it begins: it must not come and go with every window."""
_MEMORY_SECONDS = 60.0
"""Of sound, over which a machine's cost is averaged."""
_LEAST_WINDOWS = 3
"""Of each machine, before anything is said: its first windows also pay for what is set up once."""
_NAMED = 3
"""Costliest machines named in a warning."""


@dataclass
class _Cost:
    """Of one machine: weighted sums, the weights falling with the age of a window."""

    wall: float = 0.0
    processor: float = 0.0
    weight: float = 0.0
    windows: int = 0

    def add(self, wall: float, processor: float, keep: float) -> None:
        self.wall = keep * self.wall + (1 - keep) * wall
        self.processor = keep * self.processor + (1 - keep) * processor
        self.weight = keep * self.weight + (1 - keep)
        self.windows += 1


class Budget:
    """Takes what each window cost; may be used from any thread."""

    def __init__(self, cores: int, log: Log) -> None:
        """
        Args:
            cores: that may score at once.
            log: told when time becomes short, runs out, and suffices again.
        """
        self.cores = cores
        self._log = log
        self._lock = threading.Lock()
        self._costs: dict[str, _Cost] = {}
        self._forgotten: set[str] = set()
        self.state: State = "ok"

    def add(self, machine: str, hop_seconds: float, wall_seconds: float, processor_seconds: float) -> float:
        """Take one window; returns the ratio after it.

        Args:
            machine: its name.
            hop_seconds: from window to window.
            wall_seconds: from its begin to its end on a worker, waiting for a core included.
            processor_seconds: of that worker's thread.
        """
        keep = math.exp(-hop_seconds / _MEMORY_SECONDS)
        with self._lock:
            if machine in self._forgotten:
                return self._ratio()
            cost = self._costs.setdefault(machine, _Cost())
            cost.add(wall_seconds / hop_seconds, processor_seconds / hop_seconds, keep)
            ratio = self._ratio()
            if all(c.windows >= _LEAST_WINDOWS for c in self._costs.values()):
                self._heed(ratio)
            return ratio

    def forget(self, machine: str) -> float:
        """Nothing more comes of a machine; returns the ratio of the others."""
        with self._lock:
            # Its last windows may still be on a worker.
            self._forgotten.add(machine)
            self._costs.pop(machine, None)
            return self._ratio()

    def _ratio(self) -> float:
        each = [cost.wall / cost.weight for cost in self._costs.values()]
        return max(sum(each) / self.cores, *each) if each else 0.0

    def _heed(self, ratio: float) -> None:
        state = next_state(self.state, ratio)
        if state == self.state:
            return
        self.state = state
        costliest = sorted(self._costs.items(), key=lambda item: -item[1].wall / item[1].weight)[:_NAMED]
        self._log(
            "budget",
            "info" if state == "ok" else "warning",
            state=state,
            text=_TEXT[state],
            ratio=round(ratio, 3),
            processor_ratio=round(sum(c.processor / c.weight for c in self._costs.values()) / self.cores, 3),
            cores=self.cores,
            costliest={name: round(cost.wall / cost.weight, 4) for name, cost in costliest},
        )


def next_state(state: State, ratio: float) -> State:
    """Where a ratio leads to: up at a limit, down only a margin below it."""
    if ratio >= EXCEEDED or (state == "exceeded" and ratio >= EXCEEDED - _MARGIN):
        return "exceeded"
    if ratio >= TIGHT or (state != "ok" and ratio >= TIGHT - _MARGIN):
        return "tight"
    return "ok"


_TEXT: dict[State, str] = {
    "ok": "windows are scored in time, with room to spare",
    "tight": "scoring takes most of the time there is; `edge-asd check -c CONFIG` says what costs how much",
    "exceeded": "there is more to score than time: the oldest windows are skipped, machine by machine in turn "
    "(result late); give it more cores, longer hops, fewer or cheaper detectors",
}
