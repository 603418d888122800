"""How long to wait before the next attempt."""

from __future__ import annotations

import random
from dataclasses import dataclass


@dataclass
class BackOff:
    """Waiting times that double, and never are quite the same: a plant's clients must not all come back at once."""

    first: float = 1.0
    longest: float = 60.0
    _next: float = 0.0

    def seconds(self) -> float:
        """The next."""
        chosen = max(self._next, self.first)
        self._next = min(2 * chosen, self.longest)
        return random.uniform(0.5, 1.0) * chosen

    def reset(self) -> None:
        """All is well again."""
        self._next = 0.0
