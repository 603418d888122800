"""The books of a device: what a simulated device delivers, in simulated time, is heard or counted as lost."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_asd.audio.ledger import LATE_SECONDS, Block, Disturbance, Ledger, Stretch
from edge_asd.logmel import Float32Array

RATE = 8_000
BLOCK = RATE // 10
BEGAN = 1234.5


class Device:
    """Gives frames that are their own true numbers, and checks what the ledger makes of them."""

    def __init__(self, *, rate: int = RATE, block: int = BLOCK, ppm: float = 0.0, tolerance: int | None = None) -> None:
        self.ledger = Ledger(rate, BEGAN)
        self.ledger.begin_stream()
        self.rate, self.block = rate, block
        self.pace = rate * (1 + ppm * 1e-6)
        """Frames a second of our clock."""
        self.tolerance = tolerance or block
        self.frame = 0
        """The device's next frame."""
        self.heard = self.lost = 0
        self.disturbances: list[Disturbance] = []
        self.most_held = 0
        self._free = self._last = BEGAN
        self._flagged = False
        self._delivered: deque[Float32Array] = deque()

    def now(self) -> float:
        return BEGAN + self.frame / self.pace

    def run(self, seconds: float, jitter: random.Random | None = None, catch_up: float = 20.0) -> None:
        """Deliver; what has waited comes ``catch_up`` times as fast as it was made."""
        for _ in range(round(seconds * self.rate / self.block)):
            first, self.frame = self.frame, self.frame + self.block
            arrived = self.now() + (jitter.uniform(0, 0.04) if jitter else 0.0)
            arrived = max(arrived, self._free, self._last + self.block / self.pace / catch_up)
            self._last = arrived
            samples = np.arange(first, self.frame, dtype=np.float32)[:, None]
            self._delivered.append(samples)
            self.note(self.ledger.take(Block(samples, arrived, self._flagged)))
            self.disturbances += self.ledger.disturbances
            self.ledger.disturbances.clear()
            self.most_held = max(self.most_held, sum(map(len, self._delivered)))
            self._flagged = False

    def drop(self, seconds: float, *, flagged: bool = False) -> None:
        """The device made frames that nobody will see."""
        self.frame += round(seconds * self.rate)
        self._flagged |= flagged

    def hold_up(self, seconds: float) -> None:
        """For so long nothing arrives; it is kept and comes afterwards."""
        self._free = self.now() + seconds

    def be_away(self, seconds: float) -> None:
        """Unplugged: what the ledger holds back is lost too; then it is opened again."""
        self.note(self.ledger.lose_until(self.now()))
        self.frame += round(seconds * self.rate)
        self.note(self.ledger.lose_until(self.now()))
        self._delivered.clear()
        self._last = self.now()
        self.ledger.begin_stream()

    def note(self, stretches: Iterable[Stretch]) -> None:
        """Contiguous, unchanged, in order, and where it belongs."""
        for stretch in stretches:
            assert stretch.start == self.heard + self.lost and stretch.frames > 0 and stretch.rate == self.rate
            if stretch.samples is None:
                self.lost += stretch.frames
                continue
            while self._delivered.popleft() is not stretch.samples:
                pass
            assert len(stretch.samples) == stretch.frames
            self.heard += stretch.frames
            off = stretch.start - int(stretch.samples[0, 0])
            most = (
                self.tolerance + LATE_SECONDS * self.rate
            )  # a block that was late before a gap may pass for one after it
            assert abs(off) <= most, f"given {off / self.rate:+.3f} s off its place"

    def finish(self) -> None:
        """The books balance, and nothing is held back for ever."""
        self.note(self.ledger.end_stream())
        assert (self.ledger.captured, self.ledger.lost) == (self.heard, self.lost)
        assert not self._delivered
        assert abs(self.ledger.position - self.frame) <= self.tolerance
        assert abs(self.ledger.position - self.ledger.expected(self.now())) <= self.tolerance


def kinds(device: Device) -> list[str]:
    return [d.kind for d in device.disturbances]


@pytest.mark.parametrize("jitter", [None, random.Random(1)])
@pytest.mark.parametrize("block", [80, 800, 2000])
def test_where_nothing_is_lost_nothing_is_counted(block, jitter):
    device = Device(block=block)
    device.run(120, jitter)
    device.finish()
    assert device.lost <= 0.04 * RATE  # from the first block's own jitter; a frame at least marks the opening
    assert not device.disturbances


def test_nothing_is_given_before_the_device_is_trusted():
    device = Device()
    device.run(1.5)
    assert device.heard == 0
    device.run(0.2)
    assert device.heard == round(1.7 * RATE)


@pytest.mark.parametrize("seconds", [0.7, 1.9, 5.0, 9.0])
@pytest.mark.parametrize("catch_up", [4.0, 20.0, 1000.0])
def test_a_burst_is_late_and_not_lost(seconds, catch_up):
    device = Device()
    device.run(10)
    before = device.lost
    device.hold_up(seconds)
    device.run(3 * seconds + 10, catch_up=catch_up)
    device.finish()
    assert device.lost == before
    assert kinds(device) == ["burst"]
    # The first block of a burst would have come a block after the burst began.
    assert device.disturbances[0].seconds == pytest.approx(seconds - BLOCK / RATE, abs=0.11)


@pytest.mark.parametrize("flagged", [False, True])
@pytest.mark.parametrize("seconds", [0.1, 0.123, 0.5, 1.0, 2.4, 30.0, 4000.0])
def test_a_gap_is_counted_to_the_frame(seconds, flagged):
    device = Device()
    device.run(10)
    before = device.lost
    device.drop(seconds, flagged=flagged)
    device.run(10)
    device.finish()
    # A frame more was counted at the opening, so that it shows in the stream: a gap is shorter by that.
    assert device.lost - before == pytest.approx(round(seconds * RATE), abs=1)
    assert device.disturbances == [Disturbance("overflow" if flagged else "gap", pytest.approx(seconds, abs=2 / RATE))]


def test_a_gap_that_is_too_short_to_be_seen_is_believed_when_the_driver_tells():
    device = Device()
    device.run(10)
    before = device.lost
    device.drop(0.02, flagged=True)
    device.run(10)
    device.finish()
    assert device.lost - before == pytest.approx(round(0.02 * RATE), abs=1)
    assert kinds(device) == ["overflow"]


def test_an_overflow_that_cost_nothing_still_marks_its_place():
    device = Device()
    device.run(10)
    before = device.lost
    device.drop(0.0, flagged=True)
    device.run(10)
    device.finish()
    assert device.lost - before == 1
    assert kinds(device) == ["overflow"]


@pytest.mark.parametrize("apart", [0.3, 1.0, 2.9, 3.5, 20.0])
def test_two_gaps_are_counted_however_close(apart):
    device = Device()
    device.run(10)
    before = device.heard
    device.drop(0.5)
    device.run(apart)
    device.drop(0.7)
    device.run(20)
    device.finish()
    assert device.lost >= round(1.2 * RATE)
    # What lies between two gaps may be lost with them, and so may what came until the second was noticed.
    assert device.heard - before >= (20 - 3.2) * RATE


@pytest.mark.parametrize("late, gap", [(1.0, 0.2), (1.9, 0.3), (2.0, 1.5), (0.8, 3.0)])
def test_a_gap_while_a_burst_is_drained_is_counted_when_that_is_over(late, gap):
    device = Device()
    device.run(10)
    before = device.lost
    device.hold_up(late)
    device.run(late / 2)
    device.drop(gap)
    device.run(15)
    device.finish()
    counted = (device.lost - before) / RATE
    # What came out of the same buffer may be counted with it, and what came until the gap was told from the burst.
    assert gap <= counted + 2 / RATE and counted <= gap + late + 3.1
    assert kinds(device) == ["gap"]


@pytest.mark.parametrize("ppm", [-100.0, -20.0, 35.0, 100.0])
def test_a_clock_that_differs_is_followed_for_hours_and_not_counted(ppm):
    device = Device(ppm=ppm)
    device.run(4 * 3600, random.Random(2))
    before = device.lost
    assert not device.disturbances and before <= 0.04 * RATE
    device.drop(1.0)
    device.run(10)
    device.finish()
    # 0.1 s is what the drift of a minute and the jitter may hide.
    assert device.lost - before == pytest.approx(RATE, abs=0.06 * RATE)


@pytest.mark.parametrize("late", [0.4, 1.4, 2.5])
def test_a_device_that_begins_with_late_blocks_loses_these_at_most(late):
    device = Device()
    device.hold_up(late)
    device.run(20)
    device.finish()
    assert 1 <= device.lost <= (late + 0.5) * RATE and not device.disturbances


def test_what_was_lost_before_the_device_was_there_is_counted_once():
    device = Device()
    for away in (0.3, 7.0, 61.0):
        device.be_away(away)
        device.run(5)
    device.finish()
    assert device.lost == pytest.approx(68.3 * RATE, abs=BLOCK)
    assert device.heard == pytest.approx(15 * RATE, abs=BLOCK)
    assert not device.disturbances  # an outage is told of by the microphone


def test_an_outage_takes_what_was_held_back():
    device = Device()
    device.run(10)
    device.drop(0.5)
    device.run(2)
    heard = device.heard
    device.be_away(3)
    assert device.heard == heard and device.lost == pytest.approx(5.5 * RATE, abs=BLOCK)
    device.run(10)
    device.finish()


@pytest.mark.parametrize("before, after", [(16_000, 48_000), (48_000, 44_100), (44_100, 8_000)])
def test_a_new_rate_goes_on_at_the_same_time(before, after):
    ledger = Ledger(before, BEGAN)
    list(ledger.lose_until(BEGAN + 100))
    ledger.change_rate(after)
    ledger.begin_stream()
    assert ledger.position == 100 * after == ledger.expected(BEGAN + 100)
    assert ledger.time_at(ledger.position / after) == pytest.approx(BEGAN + 100)
    stretches: list[Stretch] = []
    for n in range(1, 101):
        samples = np.full((after // 10, 1), n, np.float32)
        stretches += ledger.take(Block(samples, BEGAN + 100 + n / 10))
    assert ledger.position == pytest.approx(ledger.expected(BEGAN + 110), abs=1)
    assert {s.rate for s in stretches} == {after} and stretches[0].start == 100 * after


def test_a_device_that_never_settles_does_not_fill_the_memory():
    device = Device(ppm=-30e4, tolerance=10**9)  # three quarters of its rate: the backlog grows without an end
    device.run(600)
    assert device.most_held <= 21 * RATE
    device.finish()
    restless = Device(tolerance=10**9)
    for _ in range(300):
        restless.drop(random.Random(4).choice([0.06, 0.2, 0.5]))
        restless.run(1)
    assert restless.most_held <= 21 * RATE
    restless.finish()


Event = tuple[str, float]
events = st.lists(
    st.one_of(
        st.tuples(st.just("drop"), st.floats(0.1, 20)),
        st.tuples(st.just("overflow"), st.floats(0, 2)),
        st.tuples(st.just("hold_up"), st.floats(0.1, 4)),
        st.tuples(st.just("away"), st.floats(0.1, 30)),
        st.tuples(st.just("run"), st.floats(0.1, 8)),
    ),
    max_size=12,
)


def happen(device: Device, kind: str, seconds: float, jitter: random.Random) -> None:
    match kind:
        case "run":
            device.run(seconds, jitter)
        case "hold_up":
            device.hold_up(seconds)
            device.run(seconds + 2, jitter)  # until it is over
        case "away":
            device.be_away(seconds)
            device.run(3, jitter)
        case _:
            device.drop(seconds, flagged=kind == "overflow")


@settings(max_examples=300, deadline=None)
@given(happened=events, seed=st.integers(0, 99), ppm=st.sampled_from([-50.0, 0.0, 50.0]))
def test_whatever_happens_each_block_is_given_in_its_place_or_counted(happened: list[Event], seed, ppm):
    device, jitter = Device(ppm=ppm), random.Random(seed)
    device.run(5, jitter)
    for kind, seconds in happened:
        happen(device, kind, seconds, jitter)
        if kind in ("drop", "overflow"):
            device.run(12, jitter)  # what several gaps in a row do has tests of its own
    device.run(12, jitter)
    device.finish()


@pytest.mark.parametrize("seed", range(5))
def test_after_thirty_minutes_of_faults_the_books_balance_within_a_block(seed):
    chance = random.Random(seed)
    device = Device()
    device.run(5)
    while device.frame < 1800 * RATE:
        kind = chance.choice(["drop", "overflow", "hold_up", "away", "run"])
        happen(device, kind, chance.choice([0.1, 0.5, 2.0]) * chance.uniform(1, 2), chance)
        device.run(chance.choice([7, 15, 90]), chance)
    device.finish()
    assert device.heard > 1000 * RATE
