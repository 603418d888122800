"""A time of which a machine's windows do not count: it is serviced, or somebody knows that it stands still."""

from __future__ import annotations

import threading


class Pause:
    """One kind of pause of one machine, on the clock of `edge_asd.clock.boot_time`; may be used from any thread.

    A window that began before the end of a pause holds sound of it and belongs to it as a whole, however late it is
    scored.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._is_on = False
        self._ended = float("-inf")

    @property
    def is_on(self) -> bool:
        """It lasts."""
        return self._is_on

    def begin(self) -> bool:
        """From now on; false if it lasts already."""
        with self._lock:
            changed, self._is_on = not self._is_on, True
        return changed

    def end(self, moment: float) -> bool:
        """It is over at a moment; false if there is none."""
        with self._lock:
            changed, self._is_on = self._is_on, False
            if changed:
                self._ended = moment
        return changed

    def covers(self, start: float) -> bool:
        """Whether a window that began at a moment, and is scored now, belongs to it."""
        with self._lock:
            return self._is_on or start < self._ended
