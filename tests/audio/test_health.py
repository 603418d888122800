"""What a sick microphone gives is found; what a machine does, however loud, is not."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_asd.audio.health import Finding, SignalHealth
from edge_asd.audio.recording import find_recordings
from edge_asd.demo.clips import MACHINE_IDS, simulate
from edge_asd.demo.slide_rail import SAMPLE_RATE, Fault
from edge_asd.logmel import Float32Array

RATES = (8_000, 16_000, 44_100, 48_000, 192_000)
LSB = 1.0 / 32768.0


def noise(samples: int, amplitude: float = 0.05, seed: int = 0) -> Float32Array:
    """White noise as a 16-bit converter gives it."""
    return quantised(amplitude * np.random.default_rng(seed).standard_normal(samples))


def quantised(sound: Any) -> Float32Array:
    return (np.clip(np.round(np.asarray(sound) / LSB), -32768, 32767) * LSB).astype(np.float32)


def tone(rate: int, hz: float, amplitude: float, seconds: float = 10.0) -> np.ndarray:
    return amplitude * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate)) / rate)


def judged(sound: Float32Array, rate: int = SAMPLE_RATE, block: int = 4_800) -> Finding | None:
    """The verdict on all of a sound."""
    health = SignalHealth(rate, len(sound) / rate + 1)
    for begin in range(0, len(sound), block):
        health.push(sound[begin : begin + block])
    return health.verdict(0, len(sound))


def reason(sound: Float32Array, rate: int = SAMPLE_RATE) -> str | None:
    finding = judged(sound, rate)
    return finding.reason if finding else None


@pytest.mark.parametrize("rate", RATES)
def test_working_inputs_are_never_suspect(rate):
    size = 10 * rate
    assert reason(noise(size), rate) is None
    assert reason(noise(size, 0.5 * LSB), rate) is None, "the quiet of an analogue input"
    assert reason(quantised(tone(rate, 100, 20 * LSB) + noise(size, 0.3 * LSB)), rate) is None, "quiet hum"
    assert reason(quantised(tone(rate, 20.3, 0.9) + noise(size, 0.001)), rate) is None, "a low, loud tone"
    loud = noise(size)
    assert reason(loud * np.float32(0.99 / np.abs(loud).max()), rate) is None


@pytest.mark.parametrize("fault", [None, *Fault])
@pytest.mark.parametrize("machine_id", MACHINE_IDS)
def test_no_simulated_machine_is_suspect(machine_id, fault):
    for seed in range(3):
        sound = simulate(machine_id, 10, seed=seed, fault=fault, severity=1.0)
        assert judged(sound) is None
        assert judged(quantised(sound)) is None
    lone = simulate(machine_id, 10, seed=4, fault=fault, snr_db=300)
    assert judged(lone) is None
    assert judged(quantised(lone * np.float32(0.99 / np.abs(lone).max()))) is None


def test_a_machine_that_becomes_louder_is_not_a_sick_microphone():
    sound = simulate("id_00", 10, seed=5)
    sound[80_000:] *= 4
    assert judged(sound) is None


@pytest.mark.parametrize("value", [0.0, -0.2, 3 * LSB])
def test_a_second_of_one_value_is_silence_and_less_is_not(value):
    sound = noise(160_000)
    sound[50_123 : 50_123 + 15_900] = value
    assert judged(sound) is None
    sound[50_123 : 50_123 + 51_200] = value
    finding = judged(sound)
    assert finding is not None and finding.reason == "silence"
    assert "for 3.2 s" in finding.text
    assert ("digital silence" in finding.text) == (value == 0.0)


def test_silence_is_counted_within_the_window_only():
    sound = noise(320_000)
    sound[140_000:200_000] = 0
    health = SignalHealth(SAMPLE_RATE, 20)
    health.push(sound)
    for start, end, expected in [
        (0, 150_000, None),  # 0.6 s of it
        (0, 160_000, "silence"),
        (190_000, 320_000, None),
        (176_000, 320_000, "silence"),
    ]:
        finding = health.verdict(start, end)
        assert (finding.reason if finding else None) == expected, (start, end)


def test_silence_does_not_reach_across_a_gap():
    health = SignalHealth(SAMPLE_RATE, 10)
    for _ in range(5):
        health.push(np.zeros(14_400, np.float32))
        health.push_lost(100)
        health.push(noise(1_600))
    assert health.verdict(0, 100_000) is None


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("top", [1.0, 0.5, 0.26])
def test_flat_tops_are_clipping(rate, top):
    sound = noise(10 * rate, 0.5 * top)
    finding = judged(np.clip(sound, -top, top).astype(np.float32), rate)
    assert finding is not None and finding.reason == "clipping"
    assert finding.text.startswith("4.")


def test_clipping_of_one_side_or_of_a_tenth_of_the_window_is_found():
    sound = noise(160_000, 0.1)
    assert reason(np.minimum(sound, np.float32(0.25))) is None, "0.6 % of the samples at the top"
    assert reason(np.minimum(3 * sound, np.float32(0.5))) == "clipping"
    sound[:16_000] = np.clip(5 * sound[:16_000], -1, 1)
    assert reason(sound) == "clipping"


def test_a_few_knocks_that_touch_full_scale_are_not_clipping():
    sound = noise(160_000)
    for at in (10_100, 60_000, 120_000):
        sound[at : at + 40] = 1.0
    assert reason(sound) is None


@pytest.mark.parametrize(("offset", "expected"), [(0.03, "dc"), (-0.03, "dc"), (0.01, None)])
def test_an_offset_is_found(offset, expected):
    finding = judged(simulate("id_02", 10, seed=1) + np.float32(offset))
    assert (finding.reason if finding else None) == expected
    assert finding is None or f"{offset:+.3f}" in finding.text


@pytest.mark.parametrize("hz", [2.03, 5.01, 12.37])
def test_a_low_tone_is_no_offset(hz):
    assert reason(quantised(tone(16_000, hz, 0.9) + noise(160_000, 0.001))) is None


def stuck(sound: Float32Array, at: int, lag: int, count: int) -> Float32Array:
    """From ``at`` on, ``count`` samples repeat the ``lag`` samples before, again and again."""
    out = sound.copy()
    out[at : at + count] = np.resize(out[at - lag : at], count)
    return out


@pytest.mark.parametrize("rate", [16_000, 44_100, 48_000])
@pytest.mark.parametrize("amplitude", [0.05, 5 * LSB])
def test_a_block_that_comes_twice_is_stuck(rate, amplitude):
    sound = noise(4 * rate, amplitude)
    for lag in (rate // 100, 1024, rate // 50, rate // 10, 4096, rate // 2, rate):
        for at in (rate + 17, 2 * rate - rate // 200):
            finding = judged(stuck(sound, at, lag, lag), rate)
            assert finding is not None and finding.reason == "stuck", (lag, at)
            assert f"{1e3 * lag / rate:.1f} ms before" in finding.text


@given(lag=st.integers(48, 48_000), at=st.integers(48_000, 90_000), count=st.integers(480, 5_000))
@settings(max_examples=60, deadline=None)
def test_any_repetition_of_10_ms_is_found(lag, at, count):
    assert reason(stuck(noise(96_000), at, lag, count), 48_000) == "stuck"


def test_a_driver_that_repeats_forever_is_stuck():
    for rate in RATES:
        for lag in (rate // 500, rate // 100, 1024, rate // 10):
            assert reason(stuck(noise(4 * rate), rate, lag, 3 * rate), rate) == "stuck", (rate, lag)


def test_what_repeats_for_less_than_the_shortest_block_is_not_stuck():
    assert reason(stuck(noise(96_000), 50_000, 1_000, 440), 48_000) is None


def test_nothing_repeats_across_a_gap():
    sound, health = noise(8_000), SignalHealth(SAMPLE_RATE, 10)
    for _ in range(4):
        health.push(sound)
        health.push_lost(1)
    assert health.verdict(0, 40_000) is None


@pytest.mark.parametrize("rate", [8_000, 16_000, 48_000])
def test_quiet_sound_of_few_steps_does_not_repeat(rate):
    size = 30 * rate
    for amplitude in (0.2, 0.3, 0.5, 1.0):
        sound = noise(size, amplitude * LSB)
        assert reason(sound, rate) is None
        assert reason(quantised(tone(rate, 1000, 2 * LSB, 30) + sound), rate) is None
    rare = (np.random.default_rng(1).random(size) < 0.004).astype(np.float32) * np.float32(LSB)
    assert reason(rare, rate) is None, "a step now and then"


def test_the_first_of_several_reasons_is_named():
    everything = np.clip(noise(160_000, 0.5) + np.float32(0.2), -0.5, 0.5).astype(np.float32)
    assert reason(everything) == "clipping"
    everything = stuck(everything, 50_000, 1_024, 3_000)
    assert reason(everything) == "stuck"
    everything[100_000:120_000] = 0.5
    assert reason(everything) == "silence"


def sick_stream() -> Float32Array:
    """16 s of 8 kHz: clean, silent, stuck, clipped, with an offset."""
    sound = noise(128_000)
    sound[20_123:32_000] = 0
    sound = stuck(sound, 45_000, 333, 1_000)
    sound[60_000:62_000] = np.clip(8 * sound[60_000:62_000], -0.5, 0.5)
    sound[80_000:] += np.float32(0.1)
    return sound


@given(cuts=st.lists(st.integers(1, 127_999), max_size=60), gap=st.integers(1, 120_000), lost=st.integers(1, 5_000))
@settings(max_examples=25, deadline=None)
def test_verdicts_are_the_same_in_whatever_blocks_the_sound_arrives(cuts, gap, lost):
    sound, verdicts = sick_stream(), []
    for bounds in ([0, gap, sound.size], sorted({0, gap, sound.size, *cuts})):
        health = SignalHealth(8_000, 30)
        for begin, end in pairwise(bounds):
            if begin == gap:
                health.push_lost(lost)
            health.push(sound[begin:end])
        verdicts.append([health.verdict(s, s + n) for n in (8_000, 40_000, 80_000) for s in range(0, 120_000, 7_000)])
    assert verdicts[0] == verdicts[1]
    assert None in verdicts[0]


def test_chunks_that_reach_out_of_the_window_do_not_count():
    sound = noise(48_000)
    sound[16_000:17_600] = np.clip(10 * sound[16_000:17_600], -0.5, 0.5)
    health = SignalHealth(SAMPLE_RATE, 10)
    health.push(sound)
    assert health.verdict(0, 17_599) is None
    assert health.verdict(16_001, 40_000) is None
    assert health.verdict(0, 17_600) is not None
    assert health.verdict(5, 5) is health.verdict(100_000, 200_000) is None


def test_memory_is_bounded():
    health = SignalHealth(8_000, 10)
    for _ in range(300):
        health.push(noise(8_000))
        health.push_lost(77)
    assert len(health._chunks) <= 10 * 12
    assert health._buffer.samples.size < 2 * 8_000
    assert health._repetitions._sources.size < 200
    assert health.verdict(0, 80_000) is None, "forgotten"
    health.push_lost(10**12)
    assert not health._chunks


def test_what_was_kept_can_be_asked_for():
    health = SignalHealth(8_000, 10)
    for _ in range(30):
        health.push(np.full(8_000, 0.5, np.float32))
    for start in range(160_000, 232_000, 800):
        finding = health.verdict(start, start + 8_000)
        assert finding is not None and finding.reason == "silence"


@pytest.mark.parametrize(("rate", "keep"), [(999, 10), (8_000, 0), (8_000, float("nan"))])
def test_what_cannot_be_is_refused(rate, keep):
    with pytest.raises(ValueError, match="at least 1000 Hz"):
        SignalHealth(rate, keep)


def test_no_real_recording_is_suspect(recordings_folder: Path):
    for path in find_recordings([recordings_folder])[::8]:
        sound, rate = soundfile.read(path, dtype="float32", always_2d=True)
        assert judged(np.ascontiguousarray(sound[:, 0]), rate) is None, path
