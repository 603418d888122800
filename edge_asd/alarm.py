"""Rarity of window after window in, raised and cleared out.

An incident is raised when the rarity reaches the threshold in k of the last n scored windows. It is cleared after m
scored windows in a row below a lower threshold, and the alarm rests before it may be raised again. A window that was
not scored neither raises nor clears.
"""

from __future__ import annotations

import uuid
from collections import deque
from dataclasses import dataclass, field
from typing import Literal

from edge_asd.calibration import MAX_RARITY

CLEAR_SHARE = 0.5
"""The lower threshold as a share of the threshold: at half the rarity, p is the square root of p at the threshold."""


@dataclass(frozen=True)
class AlarmRule:
    """When to raise and when to clear."""

    threshold: float
    """Rarity from which a window counts as anomalous."""
    raise_count: int = 3
    """k: anomalous windows needed."""
    raise_window: int = 5
    """n: among how many of the last scored windows."""
    clear_after: int = 5
    """m: scored windows in a row below the lower threshold."""
    rest_seconds: float = 300.0
    """After a clearing, nothing is raised for this long."""

    def __post_init__(self) -> None:
        if not 0 < self.threshold < MAX_RARITY:
            raise ValueError(
                f"a threshold of {self.threshold:g} can never work: rarity lies between 0 and {MAX_RARITY:g}"
            )
        if not 1 <= self.raise_count <= self.raise_window:
            raise ValueError(f"{self.raise_count} of {self.raise_window} windows can never be reached")
        if self.clear_after < 1:
            raise ValueError("clear_after must be at least 1 window")
        if not self.rest_seconds >= 0:
            raise ValueError("rest_seconds must not be negative")

    @property
    def clear_below(self) -> float:
        """Rarity below which a window counts towards clearing."""
        return self.threshold * CLEAR_SHARE

    def __str__(self) -> str:
        return f"{self.raise_count} of {self.raise_window}"


@dataclass(frozen=True)
class AlarmEvent:
    """The beginning or the end of an incident."""

    event: Literal["raised", "cleared"]
    incident: str
    """UUID, the same in both events of an incident."""


@dataclass
class Alarm:
    """State of one machine's alarm; `step` takes it from window to window."""

    rule: AlarmRule
    incident: str | None = None
    """The open incident."""
    _votes: deque[bool] = field(init=False)
    _quiet: int = field(default=0, init=False)
    _rests_until: float = field(default=float("-inf"), init=False)
    _last_scored: float = field(default=float("-inf"), init=False)

    def __post_init__(self) -> None:
        self._votes = deque(maxlen=self.rule.raise_window)

    def step(self, rarity: float | None, time: float, hop: float) -> AlarmEvent | None:
        """Take one window.

        Args:
            rarity: the machine's; None where the window was not scored.
            time: of the window's end, seconds on any clock that never goes back.
            hop: seconds from window to window; after a pause longer than the rule's n windows all votes are forgotten.

        Returns:
            What happened, if anything did.
        """
        if rarity is None:
            return None
        if time - self._last_scored > (self.rule.raise_window + 0.5) * hop:
            self._votes.clear()
        self._last_scored = time
        self._votes.append(rarity >= self.rule.threshold)
        if self.incident is None:
            if sum(self._votes) >= self.rule.raise_count and time >= self._rests_until:
                self.incident, self._quiet = str(uuid.uuid4()), 0
                return AlarmEvent("raised", self.incident)
            return None
        self._quiet = self._quiet + 1 if rarity < self.rule.clear_below else 0
        if self._quiet < self.rule.clear_after:
            return None
        event = AlarmEvent("cleared", self.incident)
        self.incident = None
        self._votes.clear()
        self._rests_until = time + self.rule.rest_seconds
        return event
