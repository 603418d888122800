"""Rarity of window after window in, raised and cleared out.

An incident is raised when the rarity reaches the threshold in k of the last n scored windows. It is cleared after m
scored windows in a row below a lower threshold, and the alarm rests before it may be raised again. A window that was
not scored neither raises nor clears.
"""

from __future__ import annotations

import uuid
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

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
    _former_clock: Callable[[float], float] | None = field(default=None, init=False, compare=False)
    """After `restore`, until the first window: from this clock to the one that the times above are still on."""

    def __post_init__(self) -> None:
        self._votes = deque(maxlen=self.rule.raise_window)

    def forget(self) -> None:
        """Count the votes to raise and to clear anew; an open incident stays open."""
        self._votes.clear()
        self._quiet = 0

    def adopt(self, rule: AlarmRule) -> None:
        """Go on by another rule from the next window on.

        An open incident stays open. Of the votes the last n count, and a rest lasts as long after the clearing as the
        new rule has it.
        """
        self._rests_until += rule.rest_seconds - self.rule.rest_seconds
        self._votes = deque(self._votes, maxlen=rule.raise_window)
        self.rule = rule

    def step(self, rarity: float | None, time: float, hop: float) -> AlarmEvent | None:
        """Take one window.

        Args:
            rarity: the machine's; None where the window was not scored.
            time: of the window's end, seconds on any clock that never goes back.
            hop: seconds from window to window; after a pause longer than the rule's n windows all votes are forgotten.

        Returns:
            What happened, if anything did.
        """
        if self._former_clock is not None:
            self._change_clock(time - self._former_clock(time), time)
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

    def snapshot(self) -> dict[str, Any]:
        """What must outlive the process, as plain JSON; times are on the clock of `step`.

        It stays the same while nothing changes that matters: votes count only where there is one and no incident is
        open, and only then does it matter when the last was cast. So normal sound leaves nothing new to be saved.
        """
        votes = list(self._votes) if self.incident is None else []
        counting = votes[votes.index(True) :] if True in votes else []
        return {
            "incident": self.incident,
            "votes": counting,
            "last_scored": self._last_scored if counting else None,
            "quiet": 0 if self.incident is None else self._quiet,
            "rests_until": None if self._rests_until == float("-inf") else self._rests_until,
        }

    def restore(self, snapshot: Mapping[str, Any], former_clock: Callable[[float], float]) -> None:
        """Go on where another process ended; call it before the first `step`.

        Args:
            snapshot: what `snapshot` gave there.
            former_clock: what the clock of that process would show at a moment of this one's. Asked at the first
                window, when it is known how the new clock runs.

        Raises:
            ValueError: no snapshot; nothing was changed.
        """
        try:
            incident, quiet, votes = snapshot["incident"], int(snapshot["quiet"]), [bool(v) for v in snapshot["votes"]]
            last, rests = (snapshot[key] for key in ("last_scored", "rests_until"))
            times = [float("-inf") if time is None else float(time) for time in (last, rests)]
            if incident is not None:
                uuid.UUID(incident)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ValueError(f"no state of an alarm: {error!r}") from None
        self.incident, self._quiet = incident, quiet
        self._last_scored, self._rests_until = times
        self._votes.clear()
        self._votes.extend(votes)
        self._former_clock = former_clock

    def _change_clock(self, shift: float, now: float) -> None:
        self._former_clock = None
        self._last_scored += shift
        # However wrong a wall clock was meanwhile, the alarm never rests longer than it would have.
        self._rests_until = min(self._rests_until + shift, now + self.rule.rest_seconds)
