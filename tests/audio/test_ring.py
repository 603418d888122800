"""The last seconds of sound: the very samples, however the windows overlap, and gaps where there were gaps."""

from __future__ import annotations

import numpy as np
import pytest

from edge_asd.audio.ring import SoundRing
from edge_asd.audio.windows import WindowCutter

RATE = 100
"""Hz: windows of 1 s are 100 samples here."""


def sound(seconds: float, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(-32768, 32768, round(seconds * RATE)).astype(np.int16)


def as_float(samples: np.ndarray) -> np.ndarray:
    return (samples / 32768).astype(np.float32)


@pytest.mark.parametrize("hop", [10, 37, 100])
def test_it_holds_what_was_played_up_to_the_end_of_the_last_window(hop: int) -> None:
    played = sound(20)
    ring, cutter = SoundRing(5.0, RATE), WindowCutter(100, hop)
    for window in cutter.push(as_float(played)):
        ring.hear(window)
        end = window.start + 100
        clip = ring.clip(0, end)
        assert clip is not None and clip.gaps == []
        assert clip.start == max(0, end - 500), "as much as it keeps, and no more"
        assert np.array_equal(clip.samples, played[clip.start : end])


def test_a_part_of_it() -> None:
    played = sound(9)
    ring = SoundRing(5.0, RATE)
    for window in WindowCutter(100, 50).push(as_float(played)):
        ring.hear(window)
    clip = ring.clip(630, 795)
    assert clip is not None and clip.start == 630
    assert np.array_equal(clip.samples, played[630:795])
    assert ring.clip(0, 100) is None, "long forgotten"


def test_a_gap_is_silent_and_marked() -> None:
    before, after = sound(2.5), sound(3, seed=1)
    ring, cutter = SoundRing(10.0, RATE), WindowCutter(100, 50)
    pushed = [*cutter.push(as_float(before)), *cutter.push_lost(130), *cutter.push(as_float(after))]
    for window in pushed:
        ring.hear(window)
    clip = ring.clip(0, 10_000)
    assert clip is not None
    assert clip.gaps == [(250, 380)]
    assert np.array_equal(clip.samples, [*before, *np.zeros(130, np.int16), *after])


def test_a_window_that_came_too_late_leaves_nothing() -> None:
    """Its sound was dropped while it waited, of one that a gap cut short too."""
    before, after = sound(3.5), sound(3, seed=1)
    ring, cutter = SoundRing(10.0, RATE), WindowCutter(100, 100)
    pushed = [*cutter.push(as_float(before)), *cutter.push_lost(130), *cutter.push(as_float(after))]
    assert [(w.start, w.lost) for w in pushed[:4]] == [(0, 0), (100, 0), (200, 0), (300, 50)]
    for number, window in enumerate(pushed):
        ring.hear(window.without_sound() if number in (1, 3) else window)
    clip = ring.clip(0, 10_000)
    assert clip is not None
    assert clip.gaps == [(100, 200), (300, 480)]
    assert not clip.samples[100:200].any() and not clip.samples[300:480].any()
    assert np.array_equal(clip.samples[200:300], before[200:300])


def test_what_lies_between_windows_is_marked_too() -> None:
    ring, played = SoundRing(10.0, RATE), sound(4.5)
    for window in WindowCutter(100, 150).push(as_float(played)):
        ring.hear(window)
    clip = ring.clip(0, 450)
    assert clip is not None and clip.gaps == [(100, 150), (250, 300)]
    assert np.array_equal(clip.samples[150:250], played[150:250])


def test_sound_that_is_not_of_16_bit_is_rounded_and_never_wraps() -> None:
    ring = SoundRing(10.0, RATE)
    values = np.resize(np.array([1.0, -1.0, 1.5, 0.4 / 32768, 0.6 / 32768], np.float32), 100)
    for window in WindowCutter(100, 100).push(values):
        ring.hear(window)
    clip = ring.clip(0, 100)
    assert clip is not None
    assert clip.samples[:5].tolist() == [32767, -32768, 32767, 0, 1]


def test_memory_does_not_grow() -> None:
    ring = SoundRing(5.0, RATE)
    for window in WindowCutter(100, 10).push(as_float(sound(300))):
        ring.hear(window)
        assert sum(piece.size for _, piece in ring._pieces) <= 500
        assert all(piece.base is None or piece.base.size <= 100 for _, piece in ring._pieces), "no views of windows"
