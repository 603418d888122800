"""What a line needs for the journal and for a terminal: its priority, and nothing that breaks it."""

from __future__ import annotations

import contextlib
import json
import os
from typing import Literal, TextIO

Level = Literal["info", "notice", "warning", "error"]
"""``notice`` is normal, but worth knowing: ready, cleared, connected again."""

_PRIORITIES: dict[Level, int] = {"error": 3, "warning": 4, "notice": 5, "info": 6}
"""Of syslog."""


def is_journal(stream: TextIO | None) -> bool:
    """Whether what is written to a stream comes to the journal: ``$JOURNAL_STREAM`` in systemd.exec(5)."""
    with contextlib.suppress(OSError, ValueError):  # it is closed, or no file of the system
        if stream is not None:
            found = os.fstat(stream.fileno())
            return os.environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"
    return False


def is_for_people(stream: TextIO | None) -> bool:
    """Whether people read a stream: in the journal, or on a terminal."""
    with contextlib.suppress(ValueError):  # it is closed
        return is_journal(stream) or (stream is not None and stream.isatty())
    return False


def priority(level: Level) -> str:
    """What journald takes off the beginning of a line, and for its level: sd-daemon(3)."""
    return f"<{_PRIORITIES[level]}>"


def error_line(message: str, stream: TextIO | None) -> str:
    """A command's last word, as it is written to standard error."""
    return f"{priority('error') if is_journal(stream) else ''}edge-asd: {escaped(message)}"


def escaped(text: str) -> str:
    """Without anything that ends a line, steers a terminal or cannot be written, as JSON escapes it."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else "\\u007f" if c == "\x7f" else json.dumps(c)[1:-1] for c in text)
