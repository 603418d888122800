"""What the outbox remembers by key: what waits for the disk, and what was found there when it was first read.

A disk that is away at the start does not stop the daemon, so something may be remembered before it is known what lies
on disk. Such a text never takes the place of what lies there: it is reconciled with it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Reconcile = Callable[[Any, Any], Any]
"""From what was found on disk and what was made without knowing that: what shall lie there."""


@dataclass(frozen=True, eq=False)
class Remembered:
    """Waits for the disk."""

    text: str
    """JSON."""
    knows: bool
    """Whoever made it knew what lay on disk."""


class OutboxMemory:
    """For one thread at a time; its length is the number of keys that wait for the disk."""

    def __init__(self) -> None:
        self._found: dict[str, Any] | None = None
        self._known: set[str] = set()
        """Keys that were recalled."""
        self._waiting: dict[str, Remembered] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def is_found(self) -> bool:
        """The disk was read."""
        return self._found is not None

    def find(self, found: Mapping[str, Any]) -> None:
        """The disk was read; only the first time counts."""
        if self._found is None:
            self._found = dict(found)

    def recall(self, key: str) -> Any | None:
        """What was found under a key; None where nothing was, or the disk was not read yet."""
        if self._found is None:
            return None
        self._known.add(key)
        return self._found.get(key)

    def put(self, texts: Mapping[str, str]) -> None:
        """To be remembered, JSON by key; takes the place of what waits."""
        self._waiting |= {key: Remembered(text, key in self._known) for key, text in texts.items()}

    def due(self) -> dict[str, Remembered]:
        """What waits now."""
        return dict(self._waiting)

    def text(self, key: str, one: Remembered, reconcile: Reconcile) -> str:
        """As it shall lie on disk, which was read."""
        assert self._found is not None  # nothing is stored before that
        if one.knows or key not in self._found:
            return one.text
        return json.dumps(reconcile(self._found[key], json.loads(one.text)))

    def note_stored(self, stored: Mapping[str, Remembered]) -> None:
        """It is on disk; what was put meanwhile still waits."""
        for key, one in stored.items():
            if self._waiting.get(key) is one:
                del self._waiting[key]
