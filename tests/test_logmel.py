"""The log-Mel against librosa, its reference."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import librosa
import numpy as np
import pytest

from edge_asd.audio.recording import find_recordings, read_blocks
from edge_asd.logmel import (
    Float32Array,
    Float64Array,
    LogMelParameters,
    hz_to_mel,
    log_mel,
    mel_frequencies,
    mel_spectrogram,
    mel_to_hz,
)

DESIGN = LogMelParameters()
OTHERS = [
    replace(DESIGN, n_fft=2048, hop_length=256, n_mels=64),
    replace(DESIGN, n_mels=256),
    replace(DESIGN, sample_rate=48_000, fmin=50.0, fmax=20_000.0),
    replace(DESIGN, fmin=300.0, fmax=3400.0, n_mels=40, hop_length=1024),
]
TOLERANCE_DB = 1e-4
SAMPLES = 160_000


def reference(samples: np.ndarray, parameters: LogMelParameters) -> Float64Array:
    power = librosa.feature.melspectrogram(
        y=samples.astype(np.float64),
        sr=parameters.sample_rate,
        n_fft=parameters.n_fft,
        hop_length=parameters.hop_length,
        n_mels=parameters.n_mels,
        fmin=parameters.fmin,
        fmax=parameters.fmax,
        window="hann",
        center=True,
        pad_mode="constant",
        power=2.0,
        dtype=np.float64,
    )
    return np.asarray(librosa.power_to_db(power, ref=1.0, amin=parameters.amin, top_db=None))


def sounds() -> dict[str, Float64Array]:
    rng, time = np.random.default_rng(5), np.arange(SAMPLES) / 16_000
    noise = rng.standard_normal(SAMPLES)
    impulses = np.zeros(SAMPLES)
    impulses[[0, 511, 512, 40_000, SAMPLES - 1]] = [1, -1, 0.5, 1, 1]
    chirp = np.sin(2 * np.pi * (20 * time + 390 * time**2))
    return {
        "noise": 0.1 * noise,
        "loud noise": 3.0 * noise,
        "tiny noise": 1e-6 * noise,
        "noise below the floor": 1e-12 * noise,
        "tone": 0.9 * np.sin(2 * np.pi * 1000 * time),
        "tone between bins": np.sin(2 * np.pi * 3333.3 * time),
        "low tone": np.sin(2 * np.pi * 30 * time),
        "chirp": 0.5 * chirp,
        "silence": np.zeros(SAMPLES),
        "constant": np.full(SAMPLES, 0.5),
        "impulses": impulses,
        "half silent": np.where(time < 5, 0.0, 0.2 * noise),
    }


SOUNDS = sounds()


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("name", SOUNDS)
def test_agrees_with_librosa(name: str, dtype: Any) -> None:
    samples = SOUNDS[name].astype(dtype)
    ours = log_mel(samples, DESIGN)
    assert ours.dtype == np.float32
    assert ours.shape == (128, 313) == (DESIGN.n_mels, DESIGN.frames(SAMPLES))
    assert np.abs(ours - reference(samples, DESIGN)).max() <= TOLERANCE_DB


@pytest.mark.parametrize("parameters", OTHERS, ids=str)
def test_agrees_with_librosa_for_other_parameters(parameters: LogMelParameters) -> None:
    samples = SOUNDS["noise"][: 2 * parameters.sample_rate]
    with_librosa = reference(samples, parameters)
    ours = log_mel(samples, parameters)
    assert ours.shape == with_librosa.shape
    assert np.abs(ours - with_librosa).max() <= TOLERANCE_DB


@pytest.mark.parametrize("length", [1, 2, 511, 512, 513, 1024, 1025, 16_001])
def test_agrees_with_librosa_for_any_length(length: int) -> None:
    samples = SOUNDS["noise"][:length]
    ours = log_mel(samples, DESIGN)
    assert ours.shape == (128, DESIGN.frames(length))
    # librosa warns where a frame is longer than the sound.
    with pytest.warns() if length < DESIGN.n_fft else nullcontext():
        expected = reference(samples, DESIGN)
    assert np.abs(ours - expected).max() <= TOLERANCE_DB


@pytest.mark.parametrize("parameters", [DESIGN, *OTHERS], ids=str)
def test_the_filterbank_is_librosas(parameters: LogMelParameters) -> None:
    with_librosa = librosa.filters.mel(
        sr=parameters.sample_rate,
        n_fft=parameters.n_fft,
        n_mels=parameters.n_mels,
        fmin=parameters.fmin,
        fmax=parameters.fmax,
        htk=False,
        norm="slaney",
        dtype=np.float64,
    )
    bins = parameters.n_fft // 2 + 1
    one_bin_each = np.eye(bins)  # a frame for each bin, with power in it alone, shows all weights of it
    ours = mel_spectrogram([one_bin_each], bins, parameters)
    assert ours == pytest.approx(with_librosa, rel=1e-9, abs=1e-15)


def test_the_mel_scale_is_librosas_and_inverts() -> None:
    hz = np.concatenate([np.linspace(0, 8000, 300), [999.999, 1000.0, 1000.001]])
    assert hz_to_mel(hz) == pytest.approx(librosa.hz_to_mel(hz), rel=1e-12)
    assert mel_to_hz(hz_to_mel(hz)) == pytest.approx(hz, rel=1e-12)
    assert mel_frequencies(DESIGN) == pytest.approx(librosa.mel_frequencies(n_mels=130, fmin=0, fmax=8000), rel=1e-12)


def test_silence_is_the_floor() -> None:
    assert DESIGN.floor_db == -100.0
    assert (log_mel(SOUNDS["silence"], DESIGN) == -100.0).all()


def test_ten_times_louder_is_twenty_db_more() -> None:
    quiet, loud = log_mel(SOUNDS["noise"], DESIGN), log_mel(10 * SOUNDS["noise"], DESIGN)
    assert loud - quiet == pytest.approx(20.0, abs=1e-4)


def test_the_same_window_has_the_same_log_mel_to_the_bit() -> None:
    samples = SOUNDS["noise"].astype(np.float32)
    padded = np.concatenate([np.zeros(3, np.float32), samples])[3:]
    strided = np.repeat(samples, 2)[::2]
    first = log_mel(samples, DESIGN).tobytes()
    assert {log_mel(view, DESIGN).tobytes() for view in (samples, padded, strided, samples.copy())} == {first}


@pytest.mark.parametrize(
    ("samples", "complaint"),
    [
        (np.zeros(0), "one channel"),
        (np.zeros((2, 100)), "one channel"),
        (np.float64(1.0), "one channel"),
        (np.array([0.0, np.nan]), "NaN or infinity"),
        (np.array([0.0, np.inf], np.float32), "NaN or infinity"),
        (np.array([-np.inf, 0.0]), "NaN or infinity"),
    ],
)
def test_bad_samples_are_refused(samples: Any, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        log_mel(samples, DESIGN)


@pytest.mark.parametrize(
    "wrong",
    [
        {"sample_rate": 4000},
        {"sample_rate": 400_000},
        {"n_fft": 32},
        {"n_fft": 1023},
        {"n_fft": 32_768},
        {"hop_length": 0},
        {"hop_length": 1025},
        {"n_mels": 0},
        {"n_mels": 513},
        {"fmin": -1.0},
        {"fmin": 8000.0},
        {"fmin": float("nan")},
        {"fmax": 8001.0},
        {"fmax": float("inf")},
        {"amin": 0.0},
        {"amin": -1e-10},
        {"amin": 1e-30},
        {"amin": float("nan")},
    ],
    ids=str,
)
def test_parameters_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        replace(DESIGN, **wrong)


def test_what_goes_into_the_metadata() -> None:
    document = DESIGN.as_dict()
    assert document["sample_rate"] == 16_000
    assert document["mel_scale"] == "slaney"
    assert document["top_db"] is None


def test_agrees_with_librosa_on_every_real_recording(recordings_folder) -> None:
    worst: dict[str, float] = {}
    for path in find_recordings([recordings_folder]):
        samples: Float32Array = np.concatenate([*read_blocks(path, sample_rate=DESIGN.sample_rate)])
        worst[path.name] = float(np.abs(log_mel(samples, DESIGN) - reference(samples, DESIGN)).max())
    assert {name: off for name, off in worst.items() if not off <= TOLERANCE_DB} == {}
