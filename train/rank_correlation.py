"""Rank correlation: whether a score orders normal clips as their level does, that is, is the energy in disguise."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def rank_correlation(first: ArrayLike, second: ArrayLike, groups: ArrayLike | None = None) -> float | None:
    """Spearman's correlation, -1 to 1; with groups, of the ranks within each group, pooled.

    Scores of several machine ids must not correlate only because one id is both louder and odder than another.

    Args:
        first: shape ``[clip]``.
        second: likewise.
        groups: machine id of each clip; one group unless given.

    Returns:
        None where it has no meaning: fewer than two clips in every group, or all the same.

    Raises:
        ValueError: shapes that do not match, or NaN.
    """
    first, second = np.asarray(first, float), np.asarray(second, float)
    owners = np.zeros(first.shape, int) if groups is None else np.asarray(groups)
    if first.ndim != 1 or first.shape != second.shape or owners.shape != first.shape:
        raise ValueError(f"shapes {first.shape}, {second.shape} and {owners.shape} do not match")
    if np.isnan(first).any() or np.isnan(second).any():
        raise ValueError("a value is NaN")
    one, two = (np.zeros(first.shape) for _ in range(2))
    for group in np.unique(owners):
        own = owners == group
        one[own], two[own] = _centred_ranks(first[own]), _centred_ranks(second[own])
    spread = float(np.sqrt((one**2).sum() * (two**2).sum()))
    return float((one * two).sum() / spread) if spread > 0 else None


def _centred_ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ranks between -1/2 and 1/2, equal values share their mean rank; the mean over all is 0."""
    ordered = np.sort(values)
    ranks = (np.searchsorted(ordered, values, "left") + np.searchsorted(ordered, values, "right") - 1) / 2
    centred: NDArray[np.float64] = (ranks - (values.size - 1) / 2) / values.size
    return centred
