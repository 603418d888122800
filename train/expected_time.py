"""How long the rows of a reproduction take, roughly: for the time left, until rows of this run have been timed.

Core-seconds measured on one core of the machine this was written on; a core elsewhere may take half or twice as long,
which the first row of a run corrects.
"""

from __future__ import annotations

import os
from typing import Any

_CAE_CROP, _CAE_CHANNELS, _CAE_POWER = 2e-3, 88, 1.35
"""A crop of 64 frames, forward and backward, with so many channels in all; and how that grows with them."""
_ANOGAN_IMAGE = 2e-3
"""An image, forward and backward through all networks."""
_SEARCH_STEP = 4.5e-3
"""One step of the search for all crops of a window."""
_SCORED = 0.02
"""A window through a detector that does not search."""
_DENSE_WINDOW = 0.012
"""All vectors of a window, forward and backward."""
_STATISTICS_WINDOW = 0.05
"""Features of a window, and its share in the fits of ten folds."""
_EXPORT = 25.0
"""Tracing, checking and writing a detector."""


def expected_seconds(kind: str, settings: Any, folds: int, train: int, test: int) -> float:
    """Seconds to train and to score.

    Args:
        kind: ``statistics``, ``cae``, ``anogan``, else the dense baseline.
        settings: of the kind.
        folds: parts of out-of-fold fits.
        train: windows to train on.
        test: windows to score.
    """
    cores = len(os.sched_getaffinity(0))
    if kind == "statistics":
        return _EXPORT + (_STATISTICS_WINDOW * train + _SCORED * test) / cores
    if kind not in ("cae", "anogan"):
        return _DENSE_WINDOW * settings.epochs * train / cores
    is_held_out = getattr(settings, "validation", 0) > 0
    fits = 1.0 if is_held_out else float(folds)  # each of the folds leaves one part out, and all are fitted once more
    left_out = settings.validation * train if is_held_out else train
    if kind == "cae":
        crop = _CAE_CROP * (sum(settings.channels) / _CAE_CHANNELS) ** _CAE_POWER
        work = settings.batches(train) * settings.batch * crop * fits
        searched = _SCORED * (left_out + test)
    else:
        work = settings.batches(train) * (settings.batch_crops + settings.batch_draws) * _ANOGAN_IMAGE * fits
        searched = _SEARCH_STEP * settings.search_steps * (left_out + test)
    return _EXPORT + (work + searched) / cores
