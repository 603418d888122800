"""Calibration: rarity says how seldom normal sound scores this high, and promises no more than it knows."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from edge_asd.calibration import MAX_RARITY, MIN_SCORES, Calibration, combined_rarity, fit_tail
from edge_asd.logmel import Float64Array


def calibration(scores: Any, **options: Any) -> Calibration:
    return Calibration.from_scores(scores, level_dbfs=-30.0, source="drawn by a test", **options)


def exponential_quantiles(count: int) -> Float64Array:
    """A series that is exponential as nearly as a series of that length can be."""
    return -np.log1p(-(np.arange(count) + 0.5) / count)


LAWS = {
    "normal": lambda rng, count: rng.normal(3.0, 0.5, count),
    "exponential": lambda rng, count: rng.exponential(2.0, count),
    "gamma": lambda rng, count: -100.0 + rng.gamma(4.0, 10.0, count),
}

Series = st.lists(st.floats(-1e6, 1e6), min_size=MIN_SCORES, max_size=60, unique=True).filter(
    lambda scores: sorted(scores)[-1] - sorted(scores)[-3] > 1e-3
)


@given(series=Series, places=st.lists(st.floats(-3.0, 30.0), min_size=2, max_size=20))
def test_a_higher_score_is_never_less_rare(series, places):
    fitted = calibration(series)
    low, spread = min(series), max(series) - min(series)
    rarities = [fitted.rarity(low + place * spread) for place in sorted(places)]
    assert all(0.0 <= r <= MAX_RARITY for r in rarities)
    assert all(below <= above + 1e-12 for below, above in pairwise(rarities))


@pytest.mark.parametrize("count", [MIN_SCORES, 9, 30, 400, 3000])
@pytest.mark.parametrize("law", LAWS)
def test_rarity_is_continuous_where_the_tail_begins(law, count):
    fitted = calibration(LAWS[law](np.random.default_rng(1), count))
    start, step = fitted.tail.start, 1e-9 * fitted.tail.scale
    assert fitted.rarity(start + step) == pytest.approx(fitted.rarity(start), abs=1e-6)
    assert fitted.rarity(start - step) == pytest.approx(fitted.rarity(start), abs=1e-6)
    assert fitted.survival(start) == fitted.tail.probability
    assert min(fitted.scores) < start < max(fitted.scores)


@pytest.mark.parametrize("count", [MIN_SCORES, 30, 400])
@pytest.mark.parametrize("law", LAWS)
def test_score_at_inverts_rarity(law, count):
    scores = LAWS[law](np.random.default_rng(2), count)
    fitted = calibration(scores)
    for rarity in np.linspace(fitted.rarity(float(scores.min())), 8.0, 50):
        assert fitted.rarity(fitted.score_at(float(rarity))) == pytest.approx(rarity, abs=1e-6)
    for score in scores:
        assert fitted.score_at(fitted.rarity(float(score))) == pytest.approx(score, abs=1e-6)


def test_rarity_saturates_at_both_ends():
    fitted = calibration(exponential_quantiles(100))
    assert fitted.rarity(-1e300) == 0.0
    assert fitted.rarity(1e300) == MAX_RARITY
    assert fitted.rarity(fitted.score_at(MAX_RARITY) * 2) == MAX_RARITY
    assert fitted.score_at(0.0) == min(fitted.scores)


@pytest.mark.parametrize("score", [float("nan"), float("inf"), -float("inf")])
def test_what_is_no_score_has_no_rarity(score):
    with pytest.raises(ValueError, match="has no rarity"):
        calibration(exponential_quantiles(20)).rarity(score)


def test_a_short_series_promises_less():
    """The same law known from fewer windows: the same score counts as less rare."""
    scores = [12, 40, 150, 600]
    tails = [calibration(exponential_quantiles(n)) for n in scores]
    shapes = [fitted.tail.shape for fitted in tails]
    assert shapes == sorted(shapes, reverse=True)
    rarities = [fitted.rarity(18.0) for fitted in tails]
    assert rarities == sorted(rarities)
    truth = 18.0 / np.log(10)
    assert rarities[0] < 0.75 * truth
    assert rarities[-1] == pytest.approx(truth, rel=0.1)


@pytest.mark.parametrize("law", LAWS)
def test_windows_of_rarity_two_are_one_in_a_hundred(law):
    """Within 15 % of 1 %: a series of 20,000 places that quantile to within 7 % (one standard deviation)."""
    rng = np.random.default_rng(3)
    fitted = calibration(LAWS[law](rng, 20_000))
    fresh = LAWS[law](rng, 1_000_000)
    limit = fitted.score_at(2.0)
    assert np.mean(fresh >= limit) == pytest.approx(0.01, rel=0.15)
    near = fresh[np.abs(fresh - limit) < fitted.tail.scale / 10][:200]
    assert [fitted.rarity(float(s)) >= 2.0 for s in near] == [bool(s >= limit) for s in near]


def test_the_tail_of_an_exponential_law_is_carried_on():
    """Rarity 4 and 5, far beyond most of the 400 windows heard: within a factor of 2 on average over calibrations."""
    rng = np.random.default_rng(4)
    for rarity in [3.0, 4.0, 5.0]:
        rates = [np.exp(-calibration(rng.exponential(size=400)).score_at(rarity)) for _ in range(300)]
        assert 0.5 < np.mean(rates) / 10**-rarity < 2.0


def test_small_series_do_not_cry_wolf_on_average():
    """Twelve windows only, rarity 3: a plain exponential fit would be wrong many times over."""
    rng = np.random.default_rng(5)
    rates = [np.exp(-calibration(rng.exponential(size=12)).score_at(3.0)) for _ in range(2000)]
    assert np.mean(rates) < 4e-3


@pytest.mark.parametrize("tied", [0.5, 0.9, 0.95, 0.97])
def test_scores_that_tie_with_the_tails_start_do_not_shorten_the_tail(tied):
    """Digital silence scores the same every time; what exceeds it is exponential."""
    rng, count = np.random.default_rng(6), 2000
    above = rng.exponential(1.0, count - int(tied * count))
    fitted = calibration(np.concatenate([np.zeros(int(tied * count)), above]))
    true_rate = (1 - tied) * np.exp(-fitted.score_at(3.0))
    assert 0.4 < true_rate / 1e-3 < 2.5


def test_a_calibration_survives_json():
    fitted = calibration(exponential_quantiles(30), stretches=[10, 20], hop_seconds=5)
    document = fitted.model_dump_json(by_alias=True)
    assert '"schema":1' in document
    again = Calibration.model_validate_json(document)
    assert again == fitted
    assert hash(again) == hash(fitted)
    for score in [-1.0, 0.5, 3.0, 20.0]:
        assert again.rarity(score) == fitted.rarity(score)
    assert again == fitted, "after use, too"
    assert again != calibration(exponential_quantiles(30), stretches=[10, 20], hop_seconds=5, sound="cafe")


@pytest.mark.parametrize(
    "change",
    [
        {"schema": 2},
        {"stretches": [29]},
        {"stretches": [30, 0]},
        {"scores": [1.0] * 7},
        {"scores": None},
        {"hop_seconds": 0.0},
        {"level_dbfs": float("nan")},
        {"tail": {"start": 0.0, "probability": 0.1, "scale": 0.0, "shape": 0.1}},
        {"tail": {"start": 0.0, "probability": 1.0, "scale": 1.0, "shape": 0.1}},
        {"tail": {"start": 0.0, "probability": 0.1, "scale": 1.0, "shape": 0.0}},
        {"surprise": 1},
    ],
    ids=str,
)
def test_a_document_that_is_no_calibration_is_refused(change):
    document = calibration(exponential_quantiles(30)).model_dump(by_alias=True) | change
    document["scores"] = tuple(document["scores"] or ())
    document["stretches"] = tuple(document["stretches"])
    with pytest.raises(ValidationError):
        Calibration.model_validate(document)


@pytest.mark.parametrize(
    ("scores", "complaint"),
    [
        ([], "0 normal windows are too few"),
        ([1.0] * (MIN_SCORES - 1), "too few"),
        ([5.0] * 50, "all score the same"),
        ([0.0] * 8 + [1.0] + [2.0] * 50, "all score the same"),
    ],
)
def test_nothing_to_calibrate_on(scores, complaint):
    with pytest.raises(ValueError, match=complaint):
        calibration(scores)
    with pytest.raises(ValueError, match=complaint):
        fit_tail(np.asarray(scores, float))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_scores_must_be_numbers(bad):
    with pytest.raises(ValueError):
        calibration([*exponential_quantiles(20), bad])


def test_stretches_must_cover_the_series():
    with pytest.raises(ValueError, match="stretches of 9 windows for 30 scores"):
        calibration(exponential_quantiles(30), stretches=[4, 5])


@pytest.mark.parametrize(
    ("rarities", "combined"),
    [([2.5], 2.5), ([1.0, 3.0], 3.0 - np.log10(2)), ([0.1, 0.1], 0.0), ([4.0, 4.0, 4.0, 4.0], 4.0 - np.log10(4))],
)
def test_several_detectors_are_combined_after_bonferroni(rarities, combined):
    assert combined_rarity(rarities) == pytest.approx(combined)
    assert combined_rarity(rarities[::-1]) == pytest.approx(combined)


def test_the_combined_rarity_keeps_its_promise():
    """Detectors that have nothing in common: the machine's rarity reaches r no more often than 10 ** -r."""
    rng = np.random.default_rng(7)
    each = -np.log10(rng.random((200_000, 3)))
    combined = each.max(axis=1) - np.log10(3)
    assert [combined_rarity(list(row)) for row in each[:100]] == pytest.approx(np.maximum(combined[:100], 0.0))
    assert np.mean(combined >= 2.0) == pytest.approx(0.01, rel=0.1)
