"""From a device to the windows of its machines: the right channel, the right moment, the right samples."""

from __future__ import annotations

import random
from collections.abc import Iterable

import numpy as np
import pytest
import soxr

from edge_asd.audio.ledger import Stretch
from edge_asd.audio.stream import DeviceStreams, MachineStream
from edge_asd.audio.windows import Window, WindowCutter
from edge_asd.logmel import Float32Array

RATE = 16_000
WINDOW = 2 * RATE
Given = list[tuple[str, Window]]


def noise(frames: int, channels: int = 1, seed: int = 0) -> Float32Array:
    sound = 0.05 * np.random.default_rng(seed).standard_normal((frames, channels))
    return sound.astype(np.float32)


def machine(window: int = WINDOW, hop: int | None = None) -> MachineStream:
    return MachineStream(WindowCutter(window, hop or window), RATE)


class Feed:
    """Pushes sound and gaps one after the other."""

    def __init__(self, machines: dict[str, tuple[int, MachineStream]], rate: int) -> None:
        self.streams, self.machines, self.rate, self.position = DeviceStreams(machines), machines, rate, 0
        self.given: Given = []

    def hear(self, sound: Float32Array, sizes: Iterable[int] = ()) -> None:
        at = 0
        for size in [*sizes, len(sound)]:
            part = sound[at : at + size]
            if len(part):
                self.given += self.streams.push(Stretch(self.position, len(part), self.rate, part))
            at += len(part)
            self.position += len(part)

    def lose(self, frames: int) -> None:
        self.given += self.streams.push(Stretch(self.position, frames, self.rate, None))
        self.position += frames

    def change_rate(self, rate: int) -> None:
        self.position = round(self.position * rate / self.rate)
        self.rate = rate

    def windows(self, name: str = "one") -> list[Window]:
        return [w for n, w in self.given if n == name]


def one(rate: int, **options: int) -> tuple[Feed, MachineStream]:
    stream = machine(**options)
    return Feed({"one": (1, stream)}, rate), stream


def sizes(seed: int) -> list[int]:
    chance = random.Random(seed)
    return [chance.choice([1, 7, 160, 4_410, 4_800, 50_000]) for _ in range(300)]


def test_each_machine_hears_its_channel():
    sound = noise(5 * RATE, 4)
    feed = Feed({name: (channel, machine()) for name, channel in [("a", 1), ("c", 3), ("d", 4), ("c2", 3)]}, RATE)
    feed.hear(sound, sizes(0))
    for name, channel in [("a", 1), ("c", 3), ("d", 4), ("c2", 3)]:
        windows = feed.windows(name)
        assert [w.start for w in windows] == [0, WINDOW]
        for window in windows:
            assert window.lost == 0 and window.finding is None
            expected = sound[window.start : window.start + WINDOW, channel - 1]
            assert window.samples.tobytes() == expected.tobytes()


@pytest.mark.parametrize("rate", [8_000, 44_100, 48_000, 96_000])
@pytest.mark.parametrize("seed", [0, 1])
def test_resampled_in_any_blocks_it_is_the_whole_resampled_to_the_bit(rate, seed):
    sound = noise(9 * rate)
    whole = soxr.ResampleStream(rate, RATE, 1, dtype="float32", quality="HQ").resample_chunk(sound[:, 0], last=True)
    feed, _ = one(rate)
    feed.hear(sound, sizes(seed))
    windows = feed.windows()
    assert len(windows) == 4
    for window in windows:
        assert window.samples.tobytes() == whole[window.start : window.start + WINDOW].tobytes()


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100, 48_000])
def test_positions_do_not_drift_over_thousands_of_gaps(rate):
    feed, stream = one(rate, window=RATE // 10)
    chance = random.Random(rate)
    for _ in range(3000):
        feed.hear(noise(chance.randint(1, rate // 50)))
        lost = chance.choice([1, 2, 3, 100, chance.randint(1, rate)])
        feed.lose(lost)
        # A gap of less than a sample is a sample, which the next longer one makes up for.
        assert abs(stream.cutter.position - feed.position * RATE / rate) <= (1 if lost > 99 else 10)
    heard, lost = stream.take_counts()
    assert heard + lost == stream.cutter.position
    assert stream.take_counts() == (0, 0)


@pytest.mark.parametrize("rate", [16_000, 44_100, 48_000])
def test_after_a_gap_sound_is_that_of_a_fresh_stream(rate):
    before, after = noise(3 * rate + 17, seed=1), noise(5 * rate, seed=2)
    fresh, _ = one(rate)
    fresh.hear(after)
    feed, _ = one(rate)
    feed.hear(before, sizes(3))
    feed.lose(rate // 3)
    feed.hear(after, sizes(4))
    cut_short, *whole = feed.windows()[1:]
    assert cut_short.lost and cut_short.finding is None
    start = round((len(before) + rate // 3) * RATE / rate)
    assert [w.start for w in whole] == pytest.approx([start, start + WINDOW], abs=1)
    for window, expected in zip(whole, fresh.windows(), strict=True):
        assert window.lost == 0
        assert window.samples.tobytes() == expected.samples.tobytes()


def test_what_comes_before_a_gap_is_heard_to_its_end():
    feed, stream = one(48_000)
    feed.hear(noise(48_000))
    assert stream.take_counts()[0] < RATE  # the resampler holds some back
    feed.lose(48_000)
    assert stream.cutter.position == 2 * RATE
    _, lost = stream.take_counts()
    assert lost == pytest.approx(RATE, abs=1)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_block_with_a_number_that_is_none_counts_as_lost(bad):
    feed = Feed({"one": (1, machine()), "two": (2, machine())}, RATE)
    feed.hear(noise(RATE, 2))
    sick = noise(1600, 2)
    sick[800, 1] = bad
    feed.hear(sick)
    feed.hear(noise(3 * RATE, 2))
    for name, (_, stream) in feed.machines.items():
        first, second = feed.windows(name)
        assert first.lost == 1600 and np.isfinite(first.samples).all()
        assert second.lost == 0 and second.start == RATE + 1600
        assert stream.take_counts() == (4 * RATE, 1600)


@pytest.mark.parametrize("rate", [16_000, 48_000])
def test_a_finding_is_of_the_window_that_has_it(rate):
    feed, _ = one(rate)
    sound = noise(12 * rate)
    sound[4 * rate + 100 : 6 * rate - 100] = 0.0
    sound[8 * rate : 10 * rate] += 0.2
    feed.hear(sound, sizes(1))
    reasons = [w.finding.reason if w.finding else None for w in feed.windows()]
    assert reasons[:5] == [None, None, "silence", None, "dc"]


@pytest.mark.parametrize("lost", [1, 4_800, 480_000])
def test_after_a_gap_a_finding_is_still_of_its_window(lost):
    rate = 48_000
    feed, _ = one(rate)
    feed.hear(noise(rate))
    feed.lose(lost)
    sound = noise(8 * rate, seed=3)
    sound[4 * rate : 6 * rate] = 0.0
    feed.hear(sound, sizes(5))
    origin = round((rate + lost) * RATE / rate)
    found = {(w.start - origin) // WINDOW: w.finding for w in feed.windows() if w.start >= origin - 1 and not w.lost}
    reasons = [finding.reason for finding in found.values() if finding]
    assert reasons == ["silence"]


def test_a_jump_of_all_channels_is_of_both_machines():
    sound = noise(6 * RATE, 2)
    sound[5 * RATE // 2 :] *= 8
    feed = Feed({"one": (1, machine()), "two": (2, machine())}, RATE)
    feed.hear(sound, sizes(2))
    for name in ("one", "two"):
        reasons = [w.finding.reason if w.finding else None for w in feed.windows(name)]
        assert reasons == [None, "jump", None]


@pytest.mark.parametrize("before, after", [(48_000, 44_100), (16_000, 48_000), (44_100, 16_000)])
def test_the_rate_may_change_at_a_gap(before, after):
    feed, stream = one(before)
    feed.hear(noise(3 * before))
    feed.lose(before)
    feed.change_rate(after)
    feed.lose(after // 2)
    sound = noise(6 * after, seed=4)
    sound[2 * after : 4 * after] = 0.0
    feed.hear(sound, sizes(6))
    feed.lose(1000)
    fresh, _ = one(after)
    fresh.hear(sound)
    whole = [w for w in feed.windows() if w.start >= 4.5 * RATE - 1][:2]
    assert [w.start for w in whole] == pytest.approx([4.5 * RATE, 6.5 * RATE], abs=1)
    for window, expected in zip(whole, fresh.windows(), strict=False):
        assert window.samples.tobytes() == expected.samples.tobytes()
    assert [w.finding.reason if w.finding else None for w in whole] == [None, "silence"]
    assert abs(stream.cutter.position - feed.position * RATE / after) <= 1
    assert sum(stream.take_counts()) == stream.cutter.position


@pytest.mark.parametrize("frames", [1, 2])
@pytest.mark.parametrize("rate", [44_100, 48_000, 96_000])
@pytest.mark.parametrize("before", [0, 1, 2])
def test_a_gap_of_a_frame_marks_its_window(rate, frames, before):
    feed, _ = one(rate)
    feed.hear(noise(rate + before))
    feed.lose(frames)
    feed.hear(noise(4 * rate))
    first = feed.windows()[0]
    assert first.lost or first.start + first.samples.size <= RATE + 1


def test_a_rate_at_which_nothing_was_heard_does_not_shift_the_health():
    feed, _ = one(48_000)
    feed.hear(noise(48_000))
    feed.change_rate(44_100)
    feed.lose(441_000)
    feed.change_rate(48_000)
    feed.lose(1)
    sound = noise(8 * 48_000, seed=3)
    sound[4 * 48_000 : 6 * 48_000] = 0.0
    feed.hear(sound)
    reasons = [w.finding.reason for w in feed.windows() if w.finding]
    assert reasons == ["silence"]


def test_a_device_may_come_back_with_more_channels_or_fewer():
    one_machine = machine()
    streams = DeviceStreams({"m": (1, one_machine)})
    position, windows = 0, []
    for channels in (1, 2, 1, 4):
        samples = noise(3 * RATE, channels, seed=channels)
        windows += list(streams.push(Stretch(position, 3 * RATE, RATE, samples)))
        windows += list(streams.push(Stretch(position + 3 * RATE, RATE, RATE, None)))
        position += 4 * RATE
    assert one_machine.cutter.position == position
    assert sum(not w.lost for _, w in windows) >= 4
