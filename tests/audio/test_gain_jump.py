"""A gain that changes is found; machines that start, stop, knock or become louder are not taken for one."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_asd.audio.gain_jump import GainJump
from edge_asd.audio.health import Finding
from edge_asd.audio.recording import find_recordings
from edge_asd.demo.clips import MACHINE_IDS, simulate
from edge_asd.demo.slide_rail import SAMPLE_RATE, Fault
from edge_asd.logmel import Float32Array

SECONDS = 10
JUMP_AT = 77_777
"""Sample at which gains change in these tests."""


def two_machines(seed: int = 0, fault: Fault | None = None) -> Float32Array:
    """A machine before each of two microphones, ``[frame, channel]``."""
    sounds = [simulate(machine_id, SECONDS, seed=seed, fault=fault) for machine_id in ("id_00", "id_04")]
    return np.stack(sounds, axis=1)


def noise(seconds: float, channels: int = 2, rate: int = SAMPLE_RATE) -> Float32Array:
    shape = (round(seconds * rate), channels)
    return np.random.default_rng(3).normal(0, 0.01, shape).astype(np.float32)


def gain(sound: Float32Array, *decibels: float, at: int = JUMP_AT) -> Float32Array:
    """From ``at`` on, each channel by as many dB."""
    out = sound.copy()
    out[at:] *= 10.0 ** (np.array(decibels, np.float32) / 20)
    return np.round(out * 32768).astype(np.float32) / 32768


def judged(sound: Float32Array, rate: int = SAMPLE_RATE) -> Finding | None:
    jump = GainJump(rate, sound.shape[1], SECONDS + 2)
    jump.push(sound)
    return jump.verdict(0, len(sound))


@pytest.mark.parametrize("decibels", [6, 12, 30, -6, -20])
def test_a_step_of_all_channels_is_a_jump(decibels):
    finding = judged(gain(noise(SECONDS), decibels, decibels))
    assert finding is not None and finding.reason == "jump"
    assert f"all 2 channels {abs(decibels)} dB {'louder' if decibels > 0 else 'quieter'}" in finding.text


@pytest.mark.parametrize("decibels", [9, 15, -9, -15])
def test_a_step_is_found_in_a_factory_too(decibels):
    """A carriage that starts or brakes in the same second may hide it; the hall does not."""
    found = 0
    for seed in range(10):
        hall = [simulate("id_00", SECONDS, seed=s, snr_db=-300) for s in (seed, seed + 50)]
        found += judged(gain(np.stack(hall, axis=1), decibels, decibels)) is not None
    assert found >= 8


@pytest.mark.parametrize("rate", [8_000, 44_100, 192_000])
def test_a_step_is_found_at_any_rate_and_with_any_number_of_channels(rate):
    sound = noise(4, channels=5, rate=rate)
    assert judged(sound, rate) is None
    assert judged(gain(sound, *[10.0] * 5, at=2 * rate + 123), rate) is not None


@pytest.mark.parametrize("decibels", [(12, 0), (0, -12), (12, -12), (16, 6), (3, 3), (-3, -3)])
def test_steps_that_differ_or_are_small_are_none(decibels):
    assert judged(gain(noise(SECONDS), *decibels)) is None
    for seed in range(5):
        assert judged(gain(two_machines(seed), *decibels)) is None


def test_one_channel_never_jumps():
    assert judged(gain(noise(SECONDS, channels=1), 12)) is None


@pytest.mark.parametrize("fault", [None, *Fault])
def test_machines_do_not_jump(fault):
    for seed in range(5):
        assert judged(two_machines(seed, fault)) is None
    for machine_id in MACHINE_IDS:
        sound = simulate(machine_id, SECONDS, seed=6, fault=fault)
        both = np.stack([sound, np.convolve(sound, [0.2, 0.1, 0.05, 0.1])[: len(sound)].astype(np.float32)], axis=1)
        assert judged(both) is None, "one machine before both"


def test_a_machine_that_starts_before_both_microphones_is_no_jump():
    """It brings its own bands, over the same hall."""
    for seed in range(5):
        sound = np.stack([simulate("id_00", SECONDS, seed=s, snr_db=-300) for s in (seed, seed + 50)], axis=1)
        machine = simulate("id_00", SECONDS, seed=seed, snr_db=300)
        sound[JUMP_AT:] += 2 * machine[JUMP_AT:, None]
        assert judged(sound) is None


def test_a_tone_that_starts_is_no_jump():
    """It is in one band; without a taper it would leak into all."""
    sound = noise(SECONDS)
    sound[JUMP_AT:] += (0.5 * np.sin(0.4321 * np.arange(len(sound) - JUMP_AT)))[:, None].astype(np.float32)
    assert judged(sound) is None


def test_a_knock_or_a_short_rise_is_no_jump():
    for frames in (1_000, 4_000, 7_000, 10_000):
        sound = noise(SECONDS)
        sound[JUMP_AT : JUMP_AT + frames] *= 20
        assert judged(sound) is None, frames


def test_channels_that_step_half_a_second_apart_are_no_jump():
    sound = gain(gain(noise(SECONDS), 12, 0), 0, 12, at=JUMP_AT + SAMPLE_RATE // 2)
    assert judged(sound) is None
    sound = gain(gain(noise(SECONDS), 12, 0), 0, 12, at=JUMP_AT + SAMPLE_RATE // 12)
    assert judged(sound) is not None


def test_silence_is_no_jump():
    sound = noise(SECONDS)
    sound[:JUMP_AT] = 0
    assert judged(sound) is None
    assert judged(sound[::-1]) is None
    sound = noise(SECONDS)
    sound[40_000:60_000, 0] = 0
    assert judged(sound) is None


def test_an_input_that_nothing_is_connected_to_does_not_count():
    sound = gain(noise(SECONDS, channels=3), 12, 12, 12)
    sound[:, 1] = 0
    finding = judged(sound)
    assert finding is not None and "all 2 channels" in finding.text
    sound[:, 2] = 0
    assert judged(sound) is None, "one channel is left"


def test_nothing_is_compared_across_a_gap():
    sound, jump = gain(noise(SECONDS), 12, 12), GainJump(SAMPLE_RATE, 2, 20)
    jump.push(sound[:JUMP_AT])
    jump.push_lost(0)
    jump.push_lost(50)
    jump.push(sound[JUMP_AT:])
    assert jump.verdict(0, 10**6) is None


def test_every_jump_is_reported_whatever_the_hop_and_only_when_the_second_after_was_heard():
    sound = noise(31)
    for at in (90_000, 155_000, 160_000, 170_000):
        for hop in (1, 7, 10):
            jump, found = GainJump(SAMPLE_RATE, 2, 12), []
            louder = gain(sound, 12, 12, at=at)
            for second in range(31):
                jump.push(louder[second * SAMPLE_RATE : (second + 1) * SAMPLE_RATE])
                end = (second + 1) * SAMPLE_RATE
                if second >= 9 and (second - 9) % hop == 0 and jump.verdict(end - 10 * SAMPLE_RATE, end):
                    found.append(end)
            assert found, (at, hop)
            assert at + SAMPLE_RATE <= found[0]
            assert found[-1] <= at + 11.5 * SAMPLE_RATE


@given(cuts=st.lists(st.integers(1, 47_999), max_size=40), gap=st.integers(1, 47_999), lost=st.integers(1, 3_000))
@settings(max_examples=20, deadline=None)
def test_verdicts_are_the_same_in_whatever_blocks_the_sound_arrives(cuts, gap, lost):
    sound, verdicts = gain(noise(6, rate=8_000), 9, 9, at=20_000), []
    for bounds in ([0, gap, len(sound)], sorted({0, gap, len(sound), *cuts})):
        jump = GainJump(8_000, 2, 10)
        for begin, end in pairwise(bounds):
            if begin == gap:
                jump.push_lost(lost)
            jump.push(sound[begin:end])
        verdicts.append([jump.verdict(start, start + 16_000) for start in range(0, 40_000, 2_000)])
    assert verdicts[0] == verdicts[1]


def test_memory_is_bounded():
    jump = GainJump(8_000, 2, 10)
    sound = noise(2, rate=8_000)
    for turn in range(200):
        jump.push(sound * np.float32(1 + 9 * (turn % 2)))
    assert 0 < len(jump._jumps) <= 10 * 14
    assert len(jump._powers) == 22
    jump.push_lost(10**9)
    assert not jump._jumps and not jump._powers


@pytest.mark.parametrize(("rate", "channels", "keep"), [(999, 2, 10), (8_000, 0, 10), (8_000, 2, 0)])
def test_what_cannot_be_is_refused(rate, channels, keep):
    with pytest.raises(ValueError, match="at least 1"):
        GainJump(rate, channels, keep)


def test_real_machines_before_two_microphones_hardly_ever_jump(recordings_folder: Path):
    """Drones do, now and then: with the speed of their propellers all bands change at once."""
    jumps, paths = [], find_recordings([recordings_folder])[::8]
    for path in paths:
        sound, rate = soundfile.read(path, dtype="float32", always_2d=True)
        other = np.convolve(sound[:, 0], [0.2, 0.1, 0.05, 0.1])[: len(sound)].astype(np.float32)
        if judged(np.stack([sound[:, 0], other], axis=1), rate):
            jumps.append(path)
    assert len(jumps) <= 0.03 * len(paths), jumps
    assert all("propeller" in path.parts for path in jumps)
