"""The player: recordings as a microphone would give them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edge_asd.audio.player import RecordingPlayer
from edge_asd.errors import RecordingError

RATE = 16_000


@pytest.fixture
def three(write_recording) -> list[Path]:
    """1.5, 0.1 and 2.2 s, the samples of each around a level of their own."""
    return [
        write_recording(f"{name}.wav", np.full(length, level), subtype="FLOAT")
        for name, length, level in [("a", 24_000, 0.25), ("b", 1600, 0.5), ("c", 35_200, 0.75)]
    ]


@pytest.fixture
def failures() -> list[RecordingError]:
    return []


def levels(samples: np.ndarray) -> list[tuple[float, int]]:
    values, counts = np.unique(samples, return_counts=True)
    return list(zip(values.tolist(), counts.tolist(), strict=True))


def test_recordings_are_joined_in_order_without_a_gap(three, failures):
    player = RecordingPlayer(three, sample_rate=RATE, on_failure=failures.append)
    samples = player.take(10**6)
    expected = np.repeat(np.float32([0.25, 0.5, 0.75]), [24_000, 1600, 35_200])
    assert samples.dtype == np.float32
    assert np.array_equal(samples, expected)
    assert player.has_ended
    assert player.given == samples.size
    assert player.take(2 * 10**6).size == 0
    assert not failures


@pytest.mark.parametrize("step", [1, 160, 12_345])
def test_what_is_due_is_given_whatever_the_clock_does(three, failures, step):
    whole = RecordingPlayer(three, sample_rate=RATE, on_failure=failures.append).take(30_000)
    player = RecordingPlayer(three, sample_rate=RATE, on_failure=failures.append)
    parts = []
    for position in [*range(0, 30_000, step * 7), 30_000]:
        part = player.take(position)
        assert player.given == position
        parts.append(part)
    assert np.array_equal(np.concatenate(parts), whole)
    assert not player.has_ended


def test_a_position_that_was_given_already_gives_nothing(three, failures):
    player = RecordingPlayer(three, sample_rate=RATE, on_failure=failures.append)
    assert player.take(1000).size == 1000
    assert player.take(1000).size == 0
    assert player.take(400).size == 0
    assert player.given == 1000
    assert player.take(1100).size == 100


def test_repeats_from_the_beginning(three, failures):
    player = RecordingPlayer(three, sample_rate=RATE, repeat=True, on_failure=failures.append)
    once = 24_000 + 1600 + 35_200
    samples = player.take(2 * once + 500)
    assert np.array_equal(samples[:once], samples[once : 2 * once])
    assert levels(samples[2 * once :]) == [(0.25, 500)]
    assert not player.has_ended


def test_a_bad_recording_is_told_and_the_next_one_follows(three, failures, tmp_path):
    bad, gone = tmp_path / "bad.wav", tmp_path / "gone.wav"
    bad.write_bytes(b"not sound")
    player = RecordingPlayer([three[0], bad, gone, three[1]], sample_rate=RATE, on_failure=failures.append)
    assert levels(player.take(10**6)) == [(0.25, 24_000), (0.5, 1600)]
    assert [error.path for error in failures] == [bad, gone]


def test_a_recording_that_breaks_off_gives_what_it_has(three, failures, write_recording):
    sound = np.full(3 * RATE, 0.125)
    sound[2 * RATE + 5] = np.nan
    broken = write_recording("broken.wav", sound, subtype="FLOAT")
    player = RecordingPlayer([broken, three[1]], sample_rate=RATE, on_failure=failures.append)
    assert levels(player.take(10**6)) == [(0.125, 2 * RATE), (0.5, 1600)]
    assert [error.path for error in failures] == [broken]


@pytest.mark.parametrize("repeat", [False, True])
def test_nothing_but_bad_recordings_is_an_end(tmp_path, failures, repeat):
    player = RecordingPlayer([tmp_path / "gone.wav"], sample_rate=RATE, repeat=repeat, on_failure=failures.append)
    assert player.take(RATE).size == 0
    assert player.has_ended
    assert len(failures) == 1


def test_channel_and_rate(write_recording, failures):
    stereo = np.tile([0.25, -0.5], (48_000, 1))
    path = write_recording("stereo.flac", stereo, 48_000)
    samples = RecordingPlayer([path], sample_rate=RATE, channel=2, on_failure=failures.append).take(10**6)
    assert samples.size == RATE
    assert samples[1000:-1000] == pytest.approx(-0.5, abs=1e-3)


def test_a_round_of_next_to_nothing_is_not_repeated_for_ever(write_recording, failures):
    paths = [write_recording("a.wav", np.zeros(5)), write_recording("b.wav", np.zeros(0))]
    player = RecordingPlayer(paths, sample_rate=RATE, repeat=True, on_failure=failures.append)
    assert player.take(10 * RATE).size == 5
    assert player.has_ended and len(failures) == 1


def test_a_bad_recording_is_complained_of_once_however_often_it_comes_round(write_recording, failures):
    paths = [write_recording("a.wav", np.zeros(2 * RATE)), write_recording("b.wav", np.zeros(0))]
    player = RecordingPlayer(paths, sample_rate=RATE, repeat=True, on_failure=failures.append)
    assert player.take(20 * RATE).size == 20 * RATE and not player.has_ended
    assert [error.path for error in failures] == [paths[1]]
