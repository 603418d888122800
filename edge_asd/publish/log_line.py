"""One event is one line, whatever its fields hold: as JSON, as text, and as the journal wants either of them."""

from __future__ import annotations

import json
import math
import numbers
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Literal

from edge_asd.publish.journal import Level, escaped, priority
from edge_asd.publish.payloads import iso

Form = Literal["text", "json"]
Line = Callable[[str, Level, Mapping[str, Any]], str]
"""Event, level and fields (plain, see `plain`) to a line."""

_MOST_BYTES = 40_000
"""journald makes two entries of a line of more than 48 KiB (``LineMax=``)."""
_MOST_CHARACTERS = 4_000
"""Of one text."""
_MOST_ITEMS = 1_000
"""Of one list or mapping."""
_MOST_DEPTH = 10
"""The document of an alert has five levels."""


def line_format(form: Form, *, is_journal: bool = False) -> Line:
    """What makes lines, each with its end.

    Args:
        form: ``json``, one object a line; or ``text``, ``TIME LEVEL EVENT KEY=VALUE …``.
        is_journal: the journal reads: it is told the level as sd-daemon(3) says, ``<4>``, and knows the time itself.
    """

    def line(event: str, level: Level, fields: Mapping[str, Any]) -> str:
        head = priority(level) if is_journal else ""
        if form == "json":
            document = {"time": iso(datetime.now(UTC)), "level": level, "event": event, **fields}
            return head + escaped(json.dumps(document, allow_nan=False)) + "\n"
        if not is_journal:
            head = f"{iso(datetime.now(UTC))} {level} "
        return head + " ".join([escaped(event), *(f"{escaped(k)}={_in_text(v)}" for k, v in fields.items())]) + "\n"

    def line_that_fits(event: str, level: Level, fields: Mapping[str, Any]) -> str:
        kept = dict(fields)
        for longest in sorted(kept, key=lambda key: -len(_in_text(kept[key]))):
            if len((made := line(event, level, kept)).encode()) <= _MOST_BYTES:
                return made
            kept[longest] = f"left out: {len(_in_text(kept[longest]))} characters"
        return line(event, level, kept)

    return line_that_fits


def plain(value: Any, depth: int = 0) -> Any:
    """What JSON can hold, made of anything: numbers stay numbers, and nothing has no end."""
    match value:
        case None | bool():
            return value
        case str():
            more = len(value) - _MOST_CHARACTERS
            return value if more <= 0 else f"{value[:_MOST_CHARACTERS]}… ({more} characters more)"
        case numbers.Integral():
            return int(value) if abs(int(value)) < 2**64 else "a number of more than 64 bits"
        case numbers.Real():  # numpy's, too
            number = float(value)
            return number if math.isfinite(number) else str(number)
        case Mapping() if depth < _MOST_DEPTH:
            return {_text(key): plain(item, depth + 1) for key, item in list(value.items())[:_MOST_ITEMS]}
        case list() | tuple() | set() | frozenset() if depth < _MOST_DEPTH:
            return [plain(item, depth + 1) for item in list(value)[:_MOST_ITEMS]]
        case list() | tuple() | set() | frozenset() | Mapping():
            return f"a {type(value).__name__}, too deep within others"
        case _:
            return plain(_text(value))


def _text(value: Any) -> str:
    try:
        return str(value)
    except Exception:  # whatever it is
        return f"a {type(value).__name__} that cannot be shown"


def _in_text(value: Any) -> str:
    """Quotes only where a reader, or ``cut``, could mistake something."""
    if isinstance(value, str) and value.isprintable() and value and not set(value) & set(" \"'=\\{["):
        return value
    return escaped(json.dumps(value, ensure_ascii=False, separators=(",", ":")))
