"""Splits: nothing that sounds alike because it was recorded together stands on both sides."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from edge_asd_train.corpus import read_clips
from edge_asd_train.splits import (
    GUARD_SECONDS,
    SplitError,
    held_out_share,
    split_by_recording,
    split_by_time,
    stretches_in_time,
)
from hypothesis import given, settings
from hypothesis import strategies as st


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    sizes=st.lists(st.lists(st.integers(1, 9), min_size=4, max_size=12), min_size=1, max_size=3),
    folds=st.integers(2, 4),
    seed=st.integers(0, 99),
    order=st.randoms(use_true_random=False),
)
def test_recordings_stay_whole(sizes: list[list[int]], folds: int, seed: int, order: object) -> None:
    recordings = [f"id_{i:02d}/{r:07d}" for i, own in enumerate(sizes) for r, n in enumerate(own) for _ in range(n)]
    order.shuffle(recordings)  # type: ignore[attr-defined]
    made = split_by_recording(recordings, folds, seed)
    split = made.fold
    assert len(split) == len(recordings) and made.count == folds
    for fit, out in made.parts():
        assert (fit ^ out).all() and fit.any() and out.any()
    assert len(set(zip(recordings, split.tolist(), strict=True))) == len(set(recordings))
    for number, own in enumerate(sizes):
        counts = [
            sum(r.startswith(f"id_{number:02d}/") and f == fold for r, f in zip(recordings, split, strict=True))
            for fold in range(folds)
        ]
        # The next recording goes where least is: no fold is ahead of another by more than one recording.
        assert min(counts) > 0 and max(counts) - min(counts) <= max(own)


def test_too_few_recordings_to_split() -> None:
    with pytest.raises(SplitError, match=r"id_02: 2 recording\(s\) cannot be split into 3 folds"):
        split_by_recording(["id_00/1", "id_00/2", "id_00/3", "id_02/1", "id_02/2", "id_02/2"], 3, 0)


def test_another_seed_splits_otherwise(dataset: Path) -> None:
    recordings = [c.recording for c in read_clips(dataset, "slider", "train")]
    folds = [split_by_recording(recordings, 2, seed).fold.tolist() for seed in range(6)]
    assert folds[0] == split_by_recording(recordings, 2, 0).fold.tolist()
    assert any(other != folds[0] for other in folds[1:])


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    counts=st.lists(st.integers(60, 200), min_size=1, max_size=3),
    pauses=st.lists(st.integers(0, 199), max_size=5),
    folds=st.integers(2, 10),
    guard=st.floats(0, 100),
    order=st.randoms(use_true_random=False),
)
def test_stretches_of_time_with_a_guard(
    counts: list[int], pauses: list[int], folds: int, guard: float, order: object
) -> None:
    """Whatever the pauses and the order: no fit hears a window that begins within the guard of a held-out one."""
    windows = [
        (machine, 10.0 * n + 500.0 * sum(p <= n for p in pauses))
        for machine, count in enumerate(counts)
        for n in range(count)
    ]
    order.shuffle(windows)  # type: ignore[attr-defined]
    machine, starts = np.array([w[0] for w in windows]), np.array([w[1] for w in windows])
    split = split_by_time(machine, starts, folds, guard)
    assert split.count == folds
    heard = np.zeros(len(windows), int)
    for fit, out in split.parts():
        heard += out
        for m in range(len(counts)):
            assert fit[machine == m].any() and out[machine == m].any()
            apart = np.abs(starts[fit & (machine == m)][:, None] - starts[out & (machine == m)])
            assert apart.min() >= max(10.0, guard)
            held_out = np.flatnonzero(out & (machine == m))
            between = (starts >= starts[held_out].min()) & (starts <= starts[held_out].max()) & (machine == m)
            assert between.sum() == len(held_out), "a stretch without holes"
    assert (heard == 1).all()


def test_too_short_for_a_guard() -> None:
    with pytest.raises(
        SplitError, match=r"16 windows of 10 s, cut into 2 stretches with a guard of 60 s, leave 3 to fit"
    ):
        split_by_time(np.zeros(16, int), np.arange(16) * 10.0, 2, GUARD_SECONDS)


def test_stretches_end_where_a_window_is_missing() -> None:
    starts = np.array([0.0, 10.0, 20.2, 40.0, 50.0, 1000.0])
    assert stretches_in_time(starts, 10.0) == (3, 2, 1)
    assert stretches_in_time(starts[:0], 10.0) == ()


def test_a_share_is_left_out_once() -> None:
    index = np.array([0] * 60 + [1] * 40, np.intp)
    recordings = [f"id_0{i}/{k // 4}" for i, k in zip(index, range(100), strict=True)]
    split = split_by_recording(recordings, 10, 0)
    fit, out = held_out_share(split, index, 0.1, 4)
    assert not (fit & out).any() and (fit | out).all(), "nothing is guarded, so nothing is lost"
    assert 4 <= out[index == 1].sum() <= 8 and not {recordings[k] for k in np.flatnonzero(fit)} & {
        recordings[k] for k in np.flatnonzero(out)
    }
    # As many as calibration needs of the smaller id, if a tenth is less.
    fit, out = held_out_share(split, index, 0.1, 12)
    assert out[index == 1].sum() >= 12 and out.mean() < 0.5
    with pytest.raises(SplitError, match="39 windows of each id cannot be left out of training"):
        held_out_share(split, index, 0.1, 39)


def test_what_is_near_in_time_is_neither_left_out_nor_fitted() -> None:
    starts = np.arange(120) * 10.0
    split = split_by_time(np.zeros(120, np.intp), starts, 10, GUARD_SECONDS)
    fit, out = held_out_share(split, np.zeros(120, np.intp), 0.1, 8)
    assert np.abs(starts[fit][:, None] - starts[out]).min() >= GUARD_SECONDS
    assert 0 < 120 - fit.sum() - out.sum() <= 12
