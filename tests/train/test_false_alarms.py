"""Counts of false alarms and their exact intervals, and clips that a detector was trained on."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from math import comb
from pathlib import Path

import numpy as np
import pytest
from edge_asd_train.corpus import Clip, digest
from edge_asd_train.false_alarms import (
    Count,
    count_beyond,
    exact_interval,
    silent_about_clips,
    without_trained,
)

from edge_asd.detector import Detector


@pytest.mark.parametrize(
    ("beyond", "windows", "low", "high"),
    [
        # From scipy.stats.binomtest(...).proportion_ci(method="exact"); with 0 of n the end is 1 - 0.025 ** (1 / n).
        (0, 10, 0.0, 1 - 0.025 ** (1 / 10)),
        (10, 10, 0.025 ** (1 / 10), 1.0),
        (0, 1, 0.0, 0.975),
        (1, 10, 0.0025285785444617783, 0.44501611702183696),
        (5, 10, 0.18708602844739876, 0.8129139715526013),
        (3, 400, 0.0015493589499056574, 0.0217606685144171),
        (100, 10000, 0.008143596567611065, 0.012149504886061608),
    ],
)
def test_known_intervals(beyond: int, windows: int, low: float, high: float) -> None:
    assert exact_interval(beyond, windows) == pytest.approx((low, high), abs=1e-9)


@pytest.mark.parametrize(("beyond", "windows"), [(1, 7), (4, 30), (29, 30), (2, 200)])
def test_the_ends_are_where_the_tails_are_a_fortieth(beyond: int, windows: int) -> None:
    def at_most(most: int, p: float) -> float:
        return sum(comb(windows, k) * p**k * (1 - p) ** (windows - k) for k in range(most + 1))

    low, high = exact_interval(beyond, windows)
    assert 1 - at_most(beyond - 1, low) == pytest.approx(0.025) and at_most(beyond, high) == pytest.approx(0.025)


def test_counts_that_cannot_be() -> None:
    for beyond, windows in [(-1, 5), (6, 5), (0, 0)]:
        with pytest.raises(ValueError, match="is no count"):
            exact_interval(beyond, windows)


def test_the_threshold_is_the_rarity_of_the_target() -> None:
    rarities = [0.0, 1.0, 1.999, 2.0, 3.5]
    assert count_beyond(rarities, 0.01) == Count(2, 5)
    assert count_beyond(rarities, 0.1) == Count(4, 5)
    assert Count(2, 5) + Count(1, 95) == Count(3, 100)
    for target in (0.0, 1.0, -0.1, float("nan")):
        with pytest.raises(ValueError, match="is not a share"):
            count_beyond(rarities, target)


def test_a_count_in_the_document() -> None:
    found = Count(1, 10).as_dict()
    assert found["share"] == 0.1 and found["interval"] == pytest.approx([0.0025286, 0.4450161], abs=1e-6)
    assert Count(0, 0).as_dict() == {"beyond": 0, "windows": 0, "share": None, "interval": None}


def test_clips_that_were_trained_on_are_recognised_by_content(tiny: Callable[..., bytes], tmp_path: Path) -> None:
    clips = []
    for number in range(4):
        path = tmp_path / f"normal_id_00_{number:08d}.wav"
        path.write_bytes(bytes([number]) * 100)
        clips.append(Clip(path, "id_00", False, "id_00/0"))
    digests = [hashlib.sha256(bytes([n]) * 100).hexdigest()[:16] for n in range(4)]
    assert [digest(c) for c in clips] == digests

    def detector(name: str, known: list[str] | None) -> Detector:
        data = {} if known is None else {"clips_sha256": known}
        return Detector(Path(name), tiny(document=lambda d: d.update(data=data)))

    one, two, silent = detector("1", digests[:1]), detector("2", digests[2:3]), detector("3", None)
    assert without_trained(clips, [one, two, silent]) == [clips[1], clips[3]]
    assert without_trained(clips, [silent]) == clips and without_trained(clips, [detector("0", [])]) == clips
    assert silent_about_clips([one, silent]) == ["3"]
    clips[1].path.write_bytes(clips[0].path.read_bytes())
    assert without_trained(clips, [one]) == clips[2:], "another name is no other clip"


def test_many_windows_take_no_time() -> None:
    low, high = exact_interval(1000, 100_000)
    assert 0.0093 < low < 0.01 < high < 0.0107 and np.isfinite([low, high]).all()
