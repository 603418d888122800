"""Labels from names, and the areas under the ROC curve that are computed with them."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from pathlib import PurePath

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_asd.dcase import ClipName, parse_clip_name
from edge_asd.roc import MAX_FPR, auc, mean_over_ids, roc_curve, summarise

Scores = st.lists(st.integers(-4, 4), min_size=1, max_size=25)
"""Few different values: many ties."""


def pairs_won(normal: list[int], anomalous: list[int]) -> float:
    """Chance that an anomalous score exceeds a normal one, ties counting half (Mann and Whitney)."""
    won = sum(Fraction(1) if a > n else Fraction(1, 2) if a == n else Fraction(0) for a in anomalous for n in normal)
    return float(won / (len(normal) * len(anomalous)))


def partial_area(normal: list[int], anomalous: list[int], limit: Fraction) -> float:
    """Area under the ROC polygon up to a false-positive rate, after McClish, in exact fractions."""
    corners = [(Fraction(0), Fraction(0))]
    for threshold in sorted({*normal, *anomalous}, reverse=True):
        false = Fraction(sum(n >= threshold for n in normal), len(normal))
        true = Fraction(sum(a >= threshold for a in anomalous), len(anomalous))
        corners.append((false, true))
    area = Fraction(0)
    for (x0, y0), (x1, y1) in pairwise(corners):
        stop = min(x1, limit)
        if stop > x0:
            area += (stop - x0) * (y0 + y0 + (y1 - y0) * (stop - x0) / (x1 - x0)) / 2
    chance = limit**2 / 2
    return float((1 + (area - chance) / (limit - chance)) / 2)


@given(normal=Scores, anomalous=Scores)
def test_auc_is_the_share_of_pairs_won(normal, anomalous):
    assert auc(normal, anomalous) == pytest.approx(pairs_won(normal, anomalous), abs=1e-12)


@given(normal=Scores, anomalous=Scores, limit=st.integers(1, 20).map(lambda n: Fraction(n, 20)))
def test_partial_auc_is_the_area_of_the_polygon(normal, anomalous, limit):
    assert auc(normal, anomalous, float(limit)) == pytest.approx(partial_area(normal, anomalous, limit), abs=1e-9)


@given(normal=Scores, anomalous=Scores)
def test_the_whole_curve_is_the_limit_of_the_partial_one(normal, anomalous):
    assert auc(normal, anomalous, 1.0) == pytest.approx(auc(normal, anomalous), abs=1e-12)


@given(normal=Scores, anomalous=Scores)
def test_only_the_order_of_scores_counts(normal, anomalous):
    assert auc(np.exp(normal), np.exp(anomalous), MAX_FPR) == auc(normal, anomalous, MAX_FPR)


@pytest.mark.parametrize(
    ("normal", "anomalous", "area", "partial"),
    [
        ([0, 1], [2, 3], 1.0, 1.0),
        ([2, 3], [0, 1], 0.0, 0.5 * (1 - 0.005 / 0.095)),
        ([1, 1, 1], [1, 1], 0.5, 0.5),
        # One normal clip in ten lies above all: the first tenth of the curve is lost.
        ([*range(9), 99], [50, 51], 0.9, 0.5 * (1 - 0.005 / 0.095)),
        # scikit-learn's documentation of roc_auc_score and roc_curve.
        ([0.1, 0.4], [0.35, 0.8], 0.75, 0.5 * (1 + (0.05 - 0.005) / 0.095)),
        ([float("-inf"), 0.0], [0.0, float("inf")], 0.875, 0.5 * (1 + (0.055 - 0.005) / 0.095)),
    ],
)
def test_known_values(normal, anomalous, area, partial):
    assert auc(normal, anomalous) == pytest.approx(area)
    assert auc(normal, anomalous, 0.1) == pytest.approx(partial)


def test_the_curve_runs_from_corner_to_corner():
    false, true = roc_curve([0.1, 0.4, 0.4], [0.35, 0.8])
    assert false == pytest.approx([0, 0, 2 / 3, 2 / 3, 1])
    assert true == pytest.approx([0, 0.5, 0.5, 1, 1])


@pytest.mark.parametrize(
    ("normal", "anomalous"), [([], [1.0]), ([1.0], []), ([1.0, float("nan")], [1.0]), ([1.0], [float("nan")])]
)
def test_scores_that_have_no_area_are_refused(normal, anomalous):
    with pytest.raises(ValueError):
        auc(normal, anomalous)


def test_every_id_is_judged_by_itself():
    scores = [
        ("id_02", False, 10.0),
        ("id_02", True, 11.0),
        ("id_00", False, 1.0),
        ("id_00", False, 3.0),
        ("id_00", True, 2.0),
        ("id_04", False, 0.0),
        ("id_06", True, 0.0),
    ]
    summaries = summarise(scores)
    assert list(summaries) == ["id_00", "id_02"], "an id with one label only has no area"
    assert (summaries["id_00"].auc, summaries["id_00"].normal, summaries["id_00"].anomalous) == (0.5, 2, 1)
    assert (summaries["id_02"].auc, summaries["id_02"].pauc) == (1.0, 1.0)
    means = mean_over_ids(summaries)
    assert means is not None
    assert means[0] == pytest.approx(0.75)
    assert means[1] == pytest.approx((1.0 + summaries["id_00"].pauc) / 2)
    assert mean_over_ids({}) is None


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("slider/test/normal_id_00_00000012.wav", ClipName("id_00", False, "00000012")),
        ("anomaly_id_06_00010070.flac", ClipName("id_06", True, "00010070")),
        ("id_02_00000001.wav", ClipName("id_02", None, "00000001")),
        ("normal_id_2_00000001.wav", None),
        ("abnormal_id_02_00000001.wav", None),
        ("my_normal_id_02_00000001.wav", None),
        ("normal_id_02.wav", None),
        ("00000001.wav", None),
    ],
)
def test_names_of_clips(name, expected):
    assert parse_clip_name(PurePath(name)) == expected
