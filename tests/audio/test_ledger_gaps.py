"""The books of a device in its worst hours: gaps that hide in bursts, in an opening, and behind each other."""

from __future__ import annotations

import random

import numpy as np
import pytest

from edge_asd.audio.ledger import Block, Ledger

from .test_ledger import BEGAN, BLOCK, RATE, Device


@pytest.mark.parametrize("flagged", [False, True])
def test_a_gap_while_the_stream_opens_is_not_spliced(flagged):
    device = Device()
    device.run(0.5)
    device.drop(1.0, flagged=flagged)
    device.run(10)
    device.finish()


@pytest.mark.parametrize("block", [80, 160, 400])
def test_small_blocks_a_gap_in_a_burst(block):
    device = Device(block=block, tolerance=BLOCK)
    device.run(10)
    device.hold_up(2.0)
    device.run(1.0)
    device.drop(1.0)
    device.run(15, catch_up=5)
    device.finish()


@pytest.mark.parametrize("gap", [0.3, 0.5, 1.0, 3.0])
@pytest.mark.parametrize("catch_up", [20, 1000])
def test_a_full_buffer_keeps_the_oldest_and_drops_the_newest(gap, catch_up):
    """Nobody reads for 2 s + gap; 2 s of buffer are delivered, then what comes afterwards."""
    device = Device()
    device.run(10)
    device.hold_up(2.0 + gap)
    device.run(2.0, catch_up=catch_up)
    device.drop(gap)
    device.run(10, catch_up=catch_up)
    device.finish()


@pytest.mark.parametrize("apart", [1.0, 2.0, 2.5, 2.9])
def test_gaps_again_and_again_within_settling(apart):
    device = Device()
    device.run(10)
    for _ in range(20):
        device.drop(0.5)
        device.run(apart)
    device.run(15)
    device.finish()


@pytest.mark.parametrize(("block", "catch_up"), [(80, 1.25), (80, 1.5), (800, 1.2)])
def test_a_burst_that_is_caught_up_slowly_is_no_gap(block, catch_up):
    device = Device(block=block, tolerance=BLOCK)
    device.run(10)
    before = device.lost
    device.hold_up(2.0)
    device.run(40, catch_up=catch_up)
    device.finish()
    assert device.lost == before


def test_backlog_that_sinks_in_steps_does_not_fill_the_memory():
    ledger, held, most = Ledger(RATE, BEGAN), 0, 0
    arrived = BEGAN + 5
    for n in range(1, 5000):
        arrived += 0.1 - (0.03 if n % 29 == 0 else 0)
        held += BLOCK
        for s in ledger.take(Block(np.zeros((BLOCK, 1), np.float32), arrived)):
            if s.samples is not None:
                held -= s.frames
        most = max(most, held)
    assert most < 21 * RATE, most / RATE


def test_jitter_just_above_late():
    device = Device()
    chance = random.Random(3)
    device.run(10)
    before = device.lost
    for _ in range(36000):
        if chance.random() < 0.9:
            device.hold_up(chance.uniform(0.05, 0.2))
        device.run(0.1)
    device.run(10)
    device.finish()
    assert device.lost - before < 0.05 * RATE, (device.lost - before, len(device.disturbances))
