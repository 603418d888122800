"""Noise and gain: as loud as asked, the same for the same clip, never clipped."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import WriteRecording
from edge_asd_train import cli
from edge_asd_train.corpus import Clip, CorpusError
from edge_asd_train.disturb import WHITE, Disturbance, disturbed

from edge_asd.errors import UsageError

RATE = 16_000


def tone() -> np.ndarray:
    return (0.5 * np.sin(np.arange(RATE * 4) / 3)).astype(np.float32)


@pytest.mark.parametrize("noise", ["white", "pink"])
@pytest.mark.parametrize("snr", [-20.0, 6.0])
def test_noise_has_the_power_that_was_asked_for(noise: str, snr: float) -> None:
    added = Disturbance(snr, noise=noise).apply(tone(), RATE, "a.wav") - tone()
    assert 10 * np.log10(np.mean(tone() ** 2) / np.mean(added**2)) == pytest.approx(snr, abs=0.01)


def test_pink_noise_has_as_much_power_in_every_octave() -> None:
    added = Disturbance(0.0).apply(tone(), RATE, "a.wav") - tone()
    power = np.abs(np.fft.rfft(added)) ** 2
    octaves = [power[k : 2 * k].sum() for k in (64, 512, 4096, 16384)]
    assert max(octaves) / min(octaves) < 1.5
    white = np.abs(np.fft.rfft(Disturbance(0.0, noise=WHITE).apply(tone(), RATE, "a.wav") - tone())) ** 2
    assert white[16384:32000].sum() / white[64:128].sum() > 100


def test_gain_lies_evenly_within_its_bounds() -> None:
    gains = [
        20 * np.log10(np.abs(Disturbance(gain_db=6.0).apply(tone(), RATE, f"{k}.wav")).max() / np.abs(tone()).max())
        for k in range(200)
    ]
    assert -6 <= min(gains) < -5 and 5 < max(gains) <= 6 and abs(np.mean(gains)) < 1


def test_the_draw_depends_on_seed_and_name_alone() -> None:
    first = Disturbance(0.0, 6.0).apply(tone(), RATE, "a.wav")
    assert np.array_equal(first, Disturbance(0.0, 6.0).apply(tone(), RATE, "a.wav"))
    assert not np.array_equal(first, Disturbance(0.0, 6.0).apply(tone(), RATE, "b.wav"))
    assert not np.array_equal(first, Disturbance(0.0, 6.0, seed=1).apply(tone(), RATE, "a.wav"))


def test_noise_from_recordings(write_recording: WriteRecording, tmp_path: Path) -> None:
    loop = np.random.default_rng(0).normal(0, 0.1, 1000).astype(np.float32)
    folder = write_recording("noise/hall.wav", loop, subtype="FLOAT").parent
    added = Disturbance(0.0, noise=folder).apply(tone(), RATE, "a.wav") - tone()
    assert np.allclose(added[:1000], added[1000:2000], atol=1e-6), "a short recording is repeated"
    silent = Disturbance(0.0).apply(np.zeros(100, np.float32), RATE, "a.wav")
    assert not silent.any(), "there is no power to measure noise against"


def test_copies_are_exact_and_keep_what_is_known_of_them(write_recording: WriteRecording, tmp_path: Path) -> None:
    path = write_recording("normal_id_00_00000010.flac", tone())
    clip = Clip(path, "id_00", False, "id_00/0000001")
    broken = Clip(write_recording("x.wav", tone()), "id_00", False, "id_00/1")
    broken.path.write_bytes(b"no sound")
    (made,) = disturbed([clip, broken], Disturbance(-10.0, 6.0), tmp_path / "made", title="")
    samples, rate = soundfile.read(made.path, dtype="float32")
    read = soundfile.read(path, dtype="float32")[0]
    assert np.array_equal(samples, Disturbance(-10.0, 6.0).apply(read, RATE, path.name)) and rate == RATE
    assert np.abs(samples).max() > 1, "louder than full scale, and not clipped"
    assert (made.machine_id, made.recording, made.path.name) == ("id_00", "id_00/0000001", "normal_id_00_00000010.wav")
    with pytest.raises(CorpusError, match="none of its 1 recordings can be read"):
        disturbed([broken], Disturbance(0.0), tmp_path / "none", title="")
    with pytest.raises(CorpusError, match=r"noise: .*x\.wav"):
        disturbed([clip], Disturbance(0.0, noise=broken.path), tmp_path / "none", title="")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--snr", "200"], "an SNR of 200 dB is not from -60 to 100"),
        (["--gain", "-3"], "a gain jitter of -3 dB is not from 0 to 40"),
        (["--gain", "nan"], "a gain jitter of nan dB is not from 0 to 40"),
        (["--snr", "0", "--noise", "purple"], "--noise purple: is neither white nor pink, and no such file"),
        (["--snr", "0", "--seed", "-1"], "--seed -1: must not be negative"),
    ],
)
def test_options_that_cannot_be(options: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["evaluate", "x.onnx", "--data", ".", *options]) == UsageError.exit_status == 2
    assert words in capsys.readouterr().err
