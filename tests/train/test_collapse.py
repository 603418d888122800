"""What counts as collapsed."""

from __future__ import annotations

import numpy as np
import pytest
from edge_asd_train.collapse import CollapseError, Figures, figures_of, level_correlation

GOOD = {"mse_over_variance": 0.5, "variety": 0.6, "level_correlation": 0.3}


def test_a_working_detector_passes() -> None:
    Figures(**GOOD).check(allowed=False)
    Figures().check(allowed=False)
    assert Figures(**GOOD).as_settings(allowed=True) == {**GOOD, "collapsed": False, "allowed": True}


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"mse_over_variance": 0.81}, "leaves 0.81 of the variance"),
        ({"variety": 0.1}, "same image from every z: variety 0.10"),
        ({"level_correlation": 0.95}, "as their level does: rank correlation 0.95"),
    ],
)
def test_each_figure_is_refused_by_name_unless_allowed(wrong: dict[str, float], words: str) -> None:
    figures = Figures(**{**GOOD, **wrong})
    with pytest.raises(CollapseError, match=words):
        figures.check(allowed=False)
    figures.check(allowed=True)
    assert figures.as_settings(allowed=True)["collapsed"]


def test_what_diverged_is_refused_even_where_collapse_is_allowed() -> None:
    for name in GOOD:
        with pytest.raises(CollapseError, match="diverged"):
            Figures(**{**GOOD, name: float("nan")}).check(allowed=True)


def test_the_level_in_disguise() -> None:
    level = np.random.default_rng(0).normal(-30, 4, 40)
    index = np.arange(40) % 2
    assert level_correlation(level**3, level, index) == pytest.approx(1.0)
    # A distance to a constant that lies between two ids rises with the level of one and falls with the other's.
    apart = level + 100 * index
    assert level_correlation(np.abs(apart - 20), apart, index) == pytest.approx(1.0)
    # One id that is louder and odder than the other is no level in disguise.
    random = np.random.default_rng(1).normal(size=40) + 100 * index
    assert (level_correlation(random, apart, index) or 0.0) < 0.5
    assert level_correlation(level[:8], level[:8], index[:8]) is None
    assert np.isnan(level_correlation(np.full(40, np.nan), level, index) or 0.0)


def test_following_the_level_alone_explains_nothing() -> None:
    random = np.random.default_rng(0)
    level = random.normal(size=(6, 1, 1)) * 10
    texture = random.normal(size=(6, 8, 20))
    images = (level + texture).astype(np.float32)
    mean_of_each = np.broadcast_to(images.mean(axis=(1, 2), keepdims=True), images.shape)
    assert figures_of(images - mean_of_each, images).mse_over_variance == pytest.approx(1.0)
    assert figures_of(images - level.astype(np.float32), images).mse_over_variance == pytest.approx(1.0)
    assert figures_of(images - images, images).mse_over_variance == 0.0
