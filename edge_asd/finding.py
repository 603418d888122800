"""What a check finds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

State = Literal["ok", "warning", "failed"]


@dataclass(frozen=True)
class Finding:
    """One line that a technician can act on."""

    check: str
    """What was checked, one word."""
    state: State
    text: str
    """What is so, and where it is not well, what to do."""
    figures: dict[str, Any] = field(default_factory=dict)
    """The same as numbers, for ``--json``."""
