"""Spearman's rank correlation, against its definition, and within groups."""

from __future__ import annotations

import numpy as np
import pytest
from edge_asd_train.rank_correlation import rank_correlation


def test_known_values() -> None:
    # Without ties it is 1 - 6 sum d^2 / (n (n^2 - 1)): d = (0, 0, 1, -1), so 1 - 12 / 60.
    assert rank_correlation([1, 2, 3, 4], [10, 20, 40, 30]) == pytest.approx(0.8)
    assert rank_correlation([1, 5, 9], [-2, 0, 100]) == pytest.approx(1)
    assert rank_correlation([1, 5, 9], [3, 2, 1]) == pytest.approx(-1)
    # With ties: Pearson's of the ranks (1.5, 1.5, 3) and (1, 2, 3).
    assert rank_correlation([0, 0, 1], [1, 2, 3]) == pytest.approx(np.sqrt(0.75))


def test_it_is_that_of_ranks() -> None:
    rng = np.random.default_rng(0)
    one = rng.normal(size=50)
    two = one + rng.normal(size=50)
    ranks = [np.argsort(np.argsort(v)) for v in (one, two)]
    assert rank_correlation(one, two) == pytest.approx(np.corrcoef(ranks)[0, 1])
    assert rank_correlation(np.exp(one), two**3) == pytest.approx(rank_correlation(one, two))


def test_what_differs_between_groups_does_not_count() -> None:
    """One id is louder and odder; within both ids, the louder clips are the less odd."""
    scores, levels = [1, 2, 3, 11, 12, 13], [-38, -39, -40, -18, -19, -20]
    assert rank_correlation(scores, levels) > 0.5
    assert rank_correlation(scores, levels, ["a"] * 3 + ["b"] * 3) == pytest.approx(-1)


def test_where_it_has_no_meaning() -> None:
    assert rank_correlation([1.0], [2.0]) is None
    assert rank_correlation([1, 1, 1], [1, 2, 3]) is None
    assert rank_correlation([1, 2], [1, 2], ["a", "b"]) is None
    with pytest.raises(ValueError, match="do not match"):
        rank_correlation([1, 2], [1, 2, 3])
    with pytest.raises(ValueError, match="NaN"):
        rank_correlation([1, float("nan")], [1, 2])
