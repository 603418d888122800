"""The window cutter: windows depend on the stream and never on the blocks it came in."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_asd.audio.windows import Window, WindowCutter
from edge_asd.logmel import Float32Array, LogMelParameters, log_mel

RATE = 16_000
Stretches = list[tuple[int, bool]]
"""Lengths, and whether lost."""
WindowsAndCutter = tuple[list[Window], WindowCutter]


def ramp(length: int) -> Float32Array:
    """Every sample differs from every other."""
    return np.arange(1, length + 1, dtype=np.float32)


def cut(stream: Float32Array, is_lost: np.ndarray, window: int, hop: int, cuts: list[int]) -> WindowsAndCutter:
    """Feed a stream in blocks that end at the cuts and wherever sound turns into loss or back."""
    cutter, windows = WindowCutter(window, hop), []
    turns = np.flatnonzero(np.diff(is_lost)) + 1
    bounds = sorted({0, stream.size, *(c for c in cuts if c <= stream.size), *map(int, turns)})
    for begin, end in pairwise(bounds):
        if is_lost[begin]:
            windows += cutter.push_lost(end - begin)
        else:
            windows += cutter.push(stream[begin:end])
    return windows, cutter


@given(
    stretches=st.lists(st.tuples(st.integers(1, 60), st.booleans()), max_size=6),
    window=st.integers(1, 25),
    hop=st.integers(1, 60),
    cuts=st.lists(st.integers(0, 360), max_size=40),
)
def test_windows_are_those_of_the_whole_stream_however_it_is_cut(stretches: Stretches, window, hop, cuts):
    is_lost = np.repeat([lost for _, lost in stretches], [n for n, _ in stretches]).astype(bool)
    stream = ramp(is_lost.size)
    windows, cutter = cut(stream, is_lost, window, hop, cuts)
    stream[is_lost] = 0
    assert cutter.position == stream.size
    # Windows begin at multiples of the hop, counted from the end of the last gap.
    origins = [0, *(np.flatnonzero(np.diff(is_lost.astype(int)) == -1) + 1).tolist(), stream.size]
    expected = []
    for origin, end in pairwise(origins):
        starts = list(range(origin, end - window + 1, hop))
        expected += [(start, start + window) for start in starts]
        rest = starts[-1] + hop if starts else origin
        if end < stream.size and rest < end and 0 < is_lost[rest:end].sum() < end - rest:
            expected.append((rest, end))
    assert [(w.start, w.start + w.samples.size) for w in windows] == expected
    for got, (start, end) in zip(windows, expected, strict=True):
        assert got.samples.dtype == np.float32
        assert got.samples.tobytes() == stream[start:end].tobytes()
        assert got.lost == is_lost[start:end].sum()
        assert not got.is_repeated


@pytest.mark.parametrize("hop_seconds", [1, 10, 25])
def test_windows_and_log_mels_are_the_same_to_the_bit_in_any_blocks(hop_seconds):
    rng = np.random.default_rng(3)
    stream = rng.standard_normal(32 * RATE).astype(np.float32)
    is_lost = np.zeros(stream.size, bool)
    is_lost[12 * RATE + 123 : 12 * RATE + 4567] = True
    whole, _ = cut(stream, is_lost, 10 * RATE, hop_seconds * RATE, [])
    for size in [333, 512, 16_000, 70_001]:
        blocks, _ = cut(stream, is_lost, 10 * RATE, hop_seconds * RATE, list(range(0, stream.size, size)))
        assert [(w.start, w.lost) for w in blocks] == [(w.start, w.lost) for w in whole]
        for one, other in zip(blocks, whole, strict=True):
            assert one.samples.tobytes() == other.samples.tobytes()
    mels = [log_mel(w.samples, LogMelParameters()).tobytes() for w in (*whole[:2], *blocks[:2])]
    assert mels[: len(mels) // 2] == mels[len(mels) // 2 :]


def test_a_gap_marks_the_windows_it_touches_and_no_others():
    cutter = WindowCutter(window=10, hop=5)
    windows = [*cutter.push(ramp(12)), *cutter.push_lost(3), *cutter.push(ramp(15))]
    assert [(w.start, w.lost) for w in windows] == [(0, 0), (5, 3), (10, 3), (15, 0), (20, 0)]
    assert list(windows[1].samples[7:]) == [0, 0, 0]
    assert [w.samples.size for w in windows] == [10, 10, 5, 10, 10], "cut short by the gap, given as far as it came"


def test_a_gap_of_hours_moves_the_windows_on():
    cutter = WindowCutter(window=10, hop=7)
    list(cutter.push(ramp(4)))
    lost = sum(w.lost == 10 for w in cutter.push_lost(100_000))
    assert cutter.position == 100_004
    assert lost == len(range(7, 100_004 - 10 + 1, 7))
    following = list(cutter.push(ramp(40)))
    assert [(w.start, w.lost) for w in following] == [(100_004 + n, 0) for n in range(0, 31, 7)]


def test_what_was_lost_has_no_level_and_does_not_lower_that_of_the_rest():
    loud = np.full(10, 0.1, np.float32)
    loud[4:] = 0
    assert Window(0, loud, 6).level_dbfs == pytest.approx(-20, abs=1e-3)
    assert Window(0, np.zeros(10, np.float32), 10).level_dbfs is None


def test_given_windows_do_not_change_afterwards():
    cutter = WindowCutter(window=4, hop=2)
    block = ramp(4)
    (first,) = cutter.push(block)
    block[:] = -1
    list(cutter.push(ramp(10)))
    assert list(first.samples) == [1, 2, 3, 4]


def test_a_short_stream_is_repeated_to_fill_a_window():
    cutter = WindowCutter(window=10, hop=3)
    assert cutter.repeated() is None, "nothing came yet"
    assert not list(cutter.push(ramp(4)))
    short = cutter.repeated()
    assert short is not None
    assert short.is_repeated
    assert (short.start, short.lost) == (0, 0)
    assert list(short.samples) == [1, 2, 3, 4, 1, 2, 3, 4, 1, 2]


def test_losses_are_repeated_with_the_rest():
    cutter = WindowCutter(window=10, hop=3)
    [*cutter.push(ramp(3)), *cutter.push_lost(1)]
    short = cutter.repeated()
    assert short is not None
    assert short.lost == 2


@pytest.mark.parametrize("hop", [3, 10, 15])
def test_nothing_is_repeated_once_a_window_was_full(hop):
    cutter = WindowCutter(window=10, hop=hop)
    assert len(list(cutter.push(ramp(12)))) == 1
    assert cutter.repeated() is None


@pytest.mark.parametrize(("window", "hop"), [(0, 1), (1, 0), (-5, 1), (10, -1)])
def test_lengths_below_one_are_refused(window, hop):
    with pytest.raises(ValueError, match="must be at least 1"):
        WindowCutter(window, hop)


@pytest.mark.parametrize(
    ("samples", "level"),
    [
        (np.ones(1000), 0.0),
        (np.sin(2 * np.pi * np.arange(1000) / 100), -3.0103),
        (np.full(1000, 1e-3), -60.0),
        (np.full(1000, 1e-9), -120.0),
        (np.zeros(1000), -120.0),
    ],
)
def test_level_is_the_mean_power_re_full_scale(samples, level):
    assert Window(0, samples.astype(np.float32), 0).level_dbfs == pytest.approx(level, abs=1e-3)


def test_a_window_without_sound_has_its_length_and_level() -> None:
    samples = np.random.default_rng(1).normal(0, 0.1, 1000).astype(np.float32)
    samples[:100] = 0
    for lost in (0, 100):
        window = Window(7, samples, lost)
        short = window.without_sound()
        assert short.level_dbfs == pytest.approx(window.level_dbfs, abs=1e-4)
        assert (short.start, short.samples.shape, short.lost) == (7, (1000,), lost)
        assert short.samples.strides == (0,), "it still holds its sound"
        assert window.has_sound and not short.has_sound


def test_a_window_is_not_changed_by_what_comes_after_it() -> None:
    cutter = WindowCutter(window=4, hop=3)
    (first,) = cutter.push(np.arange(4, dtype=np.float32))
    (second,) = cutter.push(np.arange(4, 7, dtype=np.float32))
    assert first.samples.tolist() == [0, 1, 2, 3] and second.samples.tolist() == [3, 4, 5, 6]
