"""What a collapsed network is, and what is done about it.

Its output does not vary with its input, so that its score is the distance to a constant, or the level. Numbers can
look good even so, on recordings whose anomalies are louder: training stops with the figure rather than write such a
detector. All figures are of normal clips that the fit they are taken of had not heard.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_asd.errors import EdgeAsdError

from .rank_correlation import rank_correlation
from .scratch import all_rows, chunks

MAX_MSE_OVER_VARIANCE = 0.8
"""Squared error of the reconstruction over the variance of the images; the mean image has 1."""
MIN_VARIETY = 0.15
"""Spread of generated images over z, over the spread of real crops. Working generators have 0.5 and more."""
MAX_LEVEL_CORRELATION = 0.9
"""Size of the rank correlation of score and level, its mean over ids."""
_LEAST_WINDOWS = 8


class CollapseError(EdgeAsdError):
    """Training ended with a network that does not follow its input."""


@dataclass(frozen=True)
class Figures:
    """What tells a working detector from a collapsed one; None where it does not apply."""

    mse_over_variance: float | None = None
    variety: float | None = None
    level_correlation: float | None = None

    def complaints(self) -> list[str]:
        """What is wrong, in words."""
        found = []
        if self.mse_over_variance is not None and not self.mse_over_variance <= MAX_MSE_OVER_VARIANCE:
            found.append(
                f"the reconstruction leaves {self.mse_over_variance:.2f} of the variance of normal clips that were not"
                f" trained on (at most {MAX_MSE_OVER_VARIANCE}): train for longer or on more clips"
            )
        if self.variety is not None and not self.variety >= MIN_VARIETY:
            found.append(
                f"the generator draws the same image from every z: variety {self.variety:.2f} (at least {MIN_VARIETY})"
            )
        if self.level_correlation is not None and not self.level_correlation <= MAX_LEVEL_CORRELATION:
            found.append(
                f"the score orders normal clips as their level does: rank correlation {self.level_correlation:.2f}"
                f" (at most {MAX_LEVEL_CORRELATION})"
            )
        return found

    def check(self, allowed: bool) -> None:
        """Refuse a collapsed detector, unless that is allowed; one that diverged always.

        Raises:
            CollapseError: with the figures.
        """
        if any(value is not None and not np.isfinite(value) for value in vars(self).values()):
            raise CollapseError("the networks diverged: their output is not finite; take a smaller learning rate")
        if (complaints := self.complaints()) and not allowed:
            raise CollapseError(f"collapsed: {'; '.join(complaints)}. --allow-collapse keeps it")

    def as_settings(self, allowed: bool) -> dict[str, object]:
        """For the metadata of a detector file."""
        figures = {name: None if value is None else round(value, 4) for name, value in vars(self).items()}
        return {**figures, "collapsed": bool(self.complaints()), "allowed": allowed}


def figures_of(
    residuals: NDArray[np.float32],
    centred: NDArray[np.float32],
    *,
    rows: NDArray[np.intp] | None = None,
    variety: float | None = None,
    level: float | None = None,
) -> Figures:
    """Figures of a reconstruction. A network that follows the level alone is not credited for it.

    Args:
        residuals: images less their reconstructions, ``[window, mel, frame]``.
        centred: images less the mean image, same shape.
        rows: indices of the windows that count; all unless given.
        variety: of the generator.
        level: correlation of the score with it.
    """
    rows = all_rows(len(residuals)) if rows is None else rows
    left = there = 0.0
    for some in chunks(len(rows)):
        left += _variation(residuals[rows[some]])
        there += _variation(centred[rows[some]])
    cells = max(len(rows), 1) * residuals.shape[1] * residuals.shape[2]
    return Figures(left / max(there, 1e-12 * cells), variety, level)


def _variation(part: NDArray[np.float32]) -> float:
    """Sum of the squares of windows ``[window, mel, frame]``, each less its mean."""
    return float(((part - part.mean(axis=(1, 2), keepdims=True)) ** 2).sum(dtype=np.float64))


def level_correlation(
    scores: NDArray[np.float64], level_dbfs: NDArray[np.float64], machine_index: NDArray[np.intp]
) -> float | None:
    """Size of the rank correlation of held-out scores and level, all arguments ``[window]``: 0 to 1, mean over windows.

    Taken in each id by itself and without its sign, since a distance to a constant can rise with the level of one id
    and fall with another's. None with so few windows of every id that chance alone could give `MAX_LEVEL_CORRELATION`.
    NaN where a score is.
    """
    if not np.isfinite(scores).all():
        return float("nan")
    sizes, weights = [], []
    for i in np.unique(machine_index):
        own = machine_index == i
        found = rank_correlation(scores[own], level_dbfs[own]) if own.sum() >= _LEAST_WINDOWS else None
        if found is not None:
            sizes.append(abs(found))
            weights.append(int(own.sum()))
    return float(np.average(sizes, weights=weights)) if sizes else None
