"""How much is measured: all of it, or just enough to see that it runs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Scale:
    """Rounds, steps and sounds."""

    rounds: int = 11
    """Turns of what takes milliseconds."""
    slow_rounds: int = 5
    """Turns of what takes seconds."""
    timed_steps: int = 40
    """Of a search whose step is timed; the more, the less its start and end weigh."""
    deep_steps: int = 1000
    """The report's."""
    held_out_windows: int = 12
    """Whose losses are compared."""
    more_machines: int = 10
    """Of a daemon, to see what another one costs."""
    replayed_clips: int = 60
    fitted_clips: int = 60
    """Of the statistics detector."""
    quick: bool = False


FULL = Scale()
QUICK = Scale(
    rounds=1,
    slow_rounds=1,
    timed_steps=2,
    deep_steps=3,
    held_out_windows=2,
    more_machines=1,
    replayed_clips=2,
    quick=True,
)
"""Its figures mean nothing. The search's graph is taken from the detector's file, and no statistics are fitted."""
