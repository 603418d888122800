"""Maintenance as `edge-asd mute` writes it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from edge_asd.maintenance import Maintenance, change_book


def mute(path: Path, machine: str, hours: float = 2.0, by: str = "mia") -> Maintenance:
    """Put a machine into maintenance, in the file of its daemon."""
    maintenance = Maintenance.of(hours, by, datetime.now(UTC))
    change_book(path, lambda book: book.noted(machine, maintenance))
    return maintenance
