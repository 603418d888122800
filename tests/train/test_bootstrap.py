"""Intervals of AUCs: against the definition, against what is known, and where there is little to resample."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
import pytest
from edge_asd_train.bootstrap import Bootstrap, Estimate, estimate, weighted_areas
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_asd.roc import MAX_FPR, auc

Scores = st.lists(st.integers(-3, 3), min_size=1, max_size=9)


@settings(max_examples=100, deadline=None)
@given(normal=Scores, anomalous=Scores, seed=st.integers(0, 999))
def test_weighted_areas_are_those_of_repeated_clips(normal: list[int], anomalous: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    weights = []
    for clips in (normal, anomalous):
        drawn = rng.integers(0, 4, (5, len(clips)))
        drawn[:, rng.integers(len(clips))] += 1  # no resample is empty
        weights.append(drawn)
    found = weighted_areas(np.array(normal, float), np.array(anomalous, float), *(w.astype(float) for w in weights))
    for row in range(5):
        repeated = [np.repeat(s, w[row]) for s, w in zip((normal, anomalous), weights, strict=True)]
        assert found[0, row] == pytest.approx(auc(*repeated), abs=1e-12)
        assert found[1, row] == pytest.approx(auc(*repeated, MAX_FPR), abs=1e-12)
        kernel = np.sign(np.subtract.outer(anomalous, normal)) / 2 + 0.5
        pairs = weights[1][row] @ kernel @ weights[0][row] / weights[0][row].sum() / weights[1][row].sum()
        assert found[0, row] == pytest.approx(pairs, abs=1e-12)


def clips_of(ids: int, normal: int, anomalous: int) -> tuple[list[str], np.ndarray, list[str]]:
    """Ids, labels and recordings of clips that are all of recordings of their own."""
    of = [f"id_{i:02d}" for i in range(ids) for _ in range(normal + anomalous)]
    labels = np.tile(np.arange(normal + anomalous) >= normal, ids)
    return of, labels, [str(n) for n in range(len(of))]


def test_the_first_column_is_the_value_itself() -> None:
    ids, labels, recordings = clips_of(2, 6, 5)
    scores = np.random.default_rng(0).normal(size=len(ids)) + labels
    bootstrap = Bootstrap(ids, labels, recordings, resamples=50)
    areas = bootstrap.areas(scores)
    assert bootstrap.ids == ["id_00", "id_01"] and areas.shape == (2, 2, 51)
    for number, machine_id in enumerate(bootstrap.ids):
        own = np.array(ids) == machine_id
        normal, anomalous = scores[own & ~labels], scores[own & labels]
        assert areas[number, 0, 0] == pytest.approx(auc(normal, anomalous))
        assert areas[number, 1, 0] == pytest.approx(auc(normal, anomalous, MAX_FPR))


def test_the_same_seed_gives_the_same_and_another_gives_another() -> None:
    clips = clips_of(1, 8, 8)
    scores = np.random.default_rng(1).normal(size=16)
    one, two, three = (Bootstrap(*clips, resamples=40, seed=s).areas(scores) for s in (3, 3, 4))
    assert np.array_equal(one, two)
    assert np.array_equal(one[..., 0], three[..., 0]) and not np.array_equal(one, three)


def test_intervals_hold_as_often_as_they_say() -> None:
    """Four ids with 3 normal and 3 anomalous recordings each; the true AUC is 0.7.

    Drawing as many recordings as there are, the interval holds 0.90 to 0.91 of the time.
    """
    ids, labels, recordings = clips_of(4, 3, 3)
    rng = np.random.default_rng(0)
    distance = NormalDist().inv_cdf(0.7) * np.sqrt(2)
    trials, held = 600, 0
    for seed in range(trials):
        scores = rng.normal(size=len(ids)) + distance * labels
        areas = Bootstrap(ids, labels, recordings, resamples=400, seed=seed).areas(scores)
        found = estimate(areas.mean(axis=0)[0])
        held += found.low <= 0.7 <= found.high
    assert 0.93 <= held / trials <= 0.97


def test_differences_are_paired() -> None:
    """Two scorers that make the same mistakes differ by nothing, however unsure each of them is."""
    clips = clips_of(1, 10, 10)
    scores = np.random.default_rng(2).normal(size=20) + clips[1]
    bootstrap = Bootstrap(*clips, resamples=400)
    one, same, other = (bootstrap.areas(s)[0, 0] for s in (scores, 3 * scores + 1, scores[::-1]))
    assert estimate(one).high - estimate(one).low > 0.1
    assert estimate(one - same) == Estimate(0.0, 0.0, 0.0)
    assert not np.array_equal(one, other)


def test_clips_of_a_recording_stay_together() -> None:
    """Ten clips each of two recordings say hardly more than two clips; of a label apart, though the names agree."""
    ids, labels, _ = clips_of(1, 20, 20)
    recordings = [f"id_00/{n % 2}" for n in range(40)]
    scores = np.where(labels, 1.0, np.arange(40) % 2 * 2.0)  # normal: half of them above all that is anomalous
    together = Bootstrap(ids, labels, recordings, resamples=200).areas(scores)[0, 0]
    assert together[0] == 0.5 and set(together[1:]) == {0.0, 1.0}
    apart = estimate(Bootstrap(ids, labels, [str(n) for n in range(40)], resamples=200).areas(scores)[0, 0])
    assert 0.2 < apart.low < 0.5 < apart.high < 0.8


def test_one_clip_of_a_label() -> None:
    """One recording of each label cannot be resampled: no width. More of the other label: its share."""
    areas = Bootstrap(["a", "a"], [False, True], ["0", "1"], resamples=20).areas([0.0, 1.0])
    assert (areas[0, 0] == 1).all() and estimate(areas[0, 0]) == Estimate(1.0, 1.0, 1.0)
    areas = Bootstrap(["a"] * 9, [True] + [False] * 8, list("012345678"), resamples=300).areas([3.5, *range(8)])
    found = estimate(areas[0, 0])
    assert found.value == 0.5 and found.low < 0.3 and found.high > 0.7


def test_ids_with_one_label_are_left_out_and_none_is_an_error() -> None:
    bootstrap = Bootstrap(["a", "a", "b"], [False, True, True], ["0", "1", "2"], resamples=3)
    assert bootstrap.ids == ["a"] and bootstrap.areas([0, 1, 5]).shape == (1, 2, 4)
    with pytest.raises(ValueError, match="no machine id has both"):
        Bootstrap(["a", "b"], [False, True], ["0", "1"])


def test_scores_that_cannot_be() -> None:
    bootstrap = Bootstrap(["a", "a"], [False, True], ["0", "1"], resamples=3)
    with pytest.raises(ValueError, match="NaN"):
        bootstrap.areas([0.0, float("nan")])
    with pytest.raises(ValueError, match=r"shape \(3,\) for 2 clips"):
        bootstrap.areas([0.0, 1.0, 2.0])


def test_an_interval_is_of_percentiles() -> None:
    found = estimate(np.arange(-1.0, 101.0))
    assert (found.value, found.low, found.high) == pytest.approx((-1.0, 2.5, 97.5))
