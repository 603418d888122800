"""For work that may hang, such as writing to a share whose server is gone: nobody waits for it for long."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


class Patience:
    """Does one thing after another on threads of their own; may be used from any thread."""

    def __init__(self, seconds: float) -> None:
        """``seconds`` are waited for each thing."""
        self._seconds = seconds
        self._hanging: threading.Thread | None = None

    def do(self, task: Callable[[], T]) -> T:
        """Do something, and give what it gives or raise what it raises.

        Raises:
            TimeoutError: it has not come to an end in time, and goes on by itself; or an earlier thing still hangs, and
                this one was not begun.
        """
        if self._hanging is not None and self._hanging.is_alive():
            raise TimeoutError("the disk still does not answer")
        outcome: list[T] = []
        failure: list[Exception] = []

        def run() -> None:
            try:
                outcome.append(task())
            except Exception as error:  # it is raised where it is waited for
                failure.append(error)

        thread = threading.Thread(target=run, name="evidence", daemon=True)
        thread.start()
        thread.join(self._seconds)
        if thread.is_alive():
            self._hanging = thread
            raise TimeoutError(f"the disk has not answered for {self._seconds:g} s")
        if failure:
            raise failure[0]
        return outcome[0]
