"""Commands over MQTT that put a machine into maintenance, and end it.

One comes on ``edge_asd/SITE/NODE/machine/MACHINE/maintenance/set``: ``on`` (until ``off``, at most 31 days), ``off``,
or a JSON object such as ``{"hours": 2, "by": "shift lead"}``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from edge_asd.errors import EdgeAsdError
from edge_asd.maintenance import MOST_HOURS

_MOST_CHARACTERS = 1000
_BY_MQTT = "mqtt"


class CommandError(EdgeAsdError):
    """Nothing that a command may say."""


@dataclass(frozen=True)
class Command:
    """What somebody wants of a machine."""

    hours: float | None
    """None: its maintenance is over."""
    by: str

    @classmethod
    def parse(cls, text: str) -> Command:
        """Read a payload.

        Raises:
            CommandError: it is none of those above.
        """
        if len(text) > _MOST_CHARACTERS:
            raise CommandError(f"must have at most {_MOST_CHARACTERS} characters")
        word = text.strip().lower()
        if word in ("on", "off"):
            return cls(MOST_HOURS if word == "on" else None, _BY_MQTT)
        try:
            said = json.loads(text)
        except (ValueError, RecursionError):
            said = None
        if not isinstance(said, dict) or not {"hours"} <= set(said) <= {"hours", "by"}:
            raise CommandError('must be on, off, or an object such as {"hours": 2, "by": "shift lead"}')
        hours, by = said["hours"], said.get("by", _BY_MQTT)
        if isinstance(hours, bool) or not isinstance(hours, int | float) or not 0 < hours <= MOST_HOURS:
            raise CommandError(f"hours must be a number above 0, at most {MOST_HOURS} (31 days)")
        if not isinstance(by, str) or not by.strip():
            raise CommandError("by must be a text that says who it is")
        return cls(float(hours), by.strip())
