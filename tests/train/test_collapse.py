"""What counts as collapsed."""

from __future__ import annotations

import numpy as np
import pytest
from edge_asd_train.collapse import CollapseError, Figures, level_correlation

GOOD = {"mse_over_variance": 0.5, "variety": 0.6, "level_correlation": -0.3}


def test_a_working_detector_passes() -> None:
    Figures(**GOOD).check(allowed=False)
    Figures().check(allowed=False)
    assert Figures(**GOOD).as_settings(allowed=True) == {**GOOD, "collapsed": False, "allowed": True}


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"mse_over_variance": 0.81}, "leaves 0.81 of the variance"),
        ({"mse_over_variance": float("nan")}, "leaves nan"),
        ({"variety": 0.1}, "same image from every z: variety 0.10"),
        ({"level_correlation": 0.95}, "as their level does: rank correlation 0.95"),
        ({"level_correlation": -0.95}, "rank correlation -0.95"),
    ],
)
def test_each_figure_is_refused_by_name_unless_allowed(wrong: dict[str, float], words: str) -> None:
    figures = Figures(**{**GOOD, **wrong})
    with pytest.raises(CollapseError, match=words):
        figures.check(allowed=False)
    figures.check(allowed=True)
    assert figures.as_settings(allowed=True)["collapsed"]


def test_the_level_in_disguise() -> None:
    level = np.random.default_rng(0).normal(-30, 4, 40)
    index = np.arange(40) % 2
    assert level_correlation(level**3, level, index) == pytest.approx(1.0)
    assert level_correlation(-level, level, index) == pytest.approx(-1.0)
    # One id that is louder and odder than the other is no level in disguise.
    apart = np.random.default_rng(1).normal(size=40) + 100 * index
    assert abs(level_correlation(apart, level + 20 * index, index) or 0.0) < 0.5
    assert level_correlation(level[:8], level[:8], index[:8]) is None
