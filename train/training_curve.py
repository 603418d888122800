"""How the error falls over a training, on what is trained on and on what is not: the validation figure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

POINTS = 25
"""Of a curve, evenly spread over the training."""
WINDOWS = 16
"""Left-out windows that the error is taken of; more would cost more than they tell."""


class TrainingCurve:
    """Points of a curve; part of what a training that goes on must find again (`work_folder.Stateful`)."""

    def __init__(self, batches: int, left_out: Callable[[], float] | None) -> None:
        """
        Args:
            batches: of the training.
            left_out: the error on windows that are not trained on, now; without it no curve is drawn.
        """
        self.points: list[list[float]] = []
        """[batch, mean error on the crops trained on since the point before, error on windows left out]"""
        self._batches, self._left_out = batches, left_out
        self._every = max(1, batches // POINTS)
        self._sum, self._count = 0.0, 0

    def after_batch(self, done: int, error: Tensor) -> None:
        """Take note of a batch's error, and draw a point where it is time."""
        if self._left_out is None:
            return
        self._sum += float(error.detach())
        self._count += 1
        if done % self._every == 0 or done == self._batches:
            self.points.append([float(done), self._sum / self._count, self._left_out()])
            self._sum, self._count = 0.0, 0

    def state_dict(self) -> dict[str, Any]:
        """All that was noted."""
        return {"points": self.points, "sum": self._sum, "count": self._count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Back to it."""
        self.points = [list(point) for point in state["points"]]
        self._sum, self._count = float(state["sum"]), int(state["count"])

    def rounded(self) -> list[list[float]] | None:
        """For the metadata of a detector file; None where nothing was drawn."""
        return [[int(batch), *(float(f"{v:.4g}") for v in values)] for batch, *values in self.points] or None
