"""What one detector says of one window."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class DetectorReading:
    """What one detector says of one window."""

    name: str
    kind: str
    sha256: str
    score: float
    """No unit."""
    threshold: float
    """The score at which this detector alone would make the window anomalous."""
    rarity: float
    report_score: float | None
    seconds: float
    """Time it took."""
