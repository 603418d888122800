"""Whether looking for devices once more can bring anything new.

PortAudio sees new devices only when it is initialised again, and loses 12 kB each time (measured, 19.6 on Debian 12):
for a device that is away for months that would be too much. So the cards of the kernel, and the sources of the sound
server, are looked at first.
"""

from __future__ import annotations

import threading
import time
from pathlib import Path

_ANSWER_SECONDS = 1.0
_ANYWAY_SECONDS = 600.0
"""However little seems to have changed: there may be inputs that show neither here nor there."""


class Surroundings:
    """Compares what is there with what was there."""

    def __init__(self, proc: Path = Path("/proc")) -> None:
        """``proc``: where procfs is mounted."""
        self._proc = proc
        self._seen: object = None
        self._seen_at = float("-inf")

    def have_changed(self) -> bool:
        """Since this was last true."""
        found, now = (_cards(self._proc), _sources()), time.monotonic()
        if found == self._seen and now - self._seen_at < _ANYWAY_SECONDS:
            return False
        self._seen, self._seen_at = found, now
        return True


def _cards(proc: Path) -> tuple[str, ...]:
    """The kernel's cards, and which of their inputs are held: what was held at the start is listed without channels."""
    try:
        cards = (proc / "asound" / "cards").read_text(errors="replace")
        inputs = sorted((proc / "asound").glob("card*/pcm*c/sub*/status"))
        return (cards, *(f"{path} {path.read_text(errors='replace').startswith('closed')}" for path in inputs))
    except OSError:  # no cards, or one that goes just now
        return ()


def _sources() -> object:
    """The sound server's sources; None without a server. In a thread of its own, since a server may hang."""
    found: list[object] = []

    def ask() -> None:
        try:
            import pulsectl

            with pulsectl.Pulse("edge-asd", connect=False) as pulse:
                pulse.connect(autospawn=False)
                found.append((pulse.server_info().cookie, *sorted(s.name for s in pulse.source_list())))
        except Exception:  # no libpulse, or no server
            found.append(None)

    asking = threading.Thread(target=ask, name="surroundings", daemon=True)
    asking.start()
    asking.join(_ANSWER_SECONDS)
    return found[0] if found else "no answer"
