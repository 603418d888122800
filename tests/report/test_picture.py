"""Pictures of a window: right way up, robust, and in words what they show."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image

from edge_asd.logmel import Float32Array, LogMelParameters, log_mel
from edge_asd.report.picture import overlay, spectrogram, strongest, where

PARAMETERS = LogMelParameters()
SHAPE = (128, 313)


def decoded(uri: str) -> Image.Image:
    assert uri.startswith("data:image/png;base64,")
    return Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1], validate=True)))


def lightness(uri: str) -> np.ndarray:
    return np.asarray(decoded(uri).convert("L"), float)


def opacity(uri: str) -> np.ndarray:
    return np.asarray(decoded(uri).convert("RGBA"), float)[..., 3] / 255


def quiet_map() -> Float32Array:
    return np.random.default_rng(0).exponential(0.1, SHAPE).astype(np.float32)


def test_low_tones_are_at_the_bottom_and_loud_is_light() -> None:
    mels = np.full(SHAPE, -60, np.float32)
    mels[3, :] = -20
    mels[100, 200:210] = -20
    picture = lightness(spectrogram(mels))
    assert picture.shape == SHAPE and decoded(spectrogram(mels)).mode == "P"
    assert set(map(tuple, np.argwhere(picture > 150))) == {
        *((127 - 3, x) for x in range(313)),
        *((127 - 100, x) for x in range(200, 210)),
    }


def test_lightness_follows_level_step_by_step() -> None:
    ramp = np.repeat(np.linspace(-80, -20, 313, dtype=np.float32)[None], 128, axis=0)
    row = lightness(spectrogram(ramp, low_db=-80, high_db=-20))[0]
    assert (np.diff(row) >= -1).all() and row[-1] - row[0] > 200
    assert 50 <= len(np.unique(row)) <= 64, "about a step for each dB"


def test_contrast_follows_the_picture_or_what_is_said() -> None:
    mels = np.random.default_rng(0).normal(-50, 5, SHAPE).astype(np.float32)
    mels[0, 0] = 60  # one click must not darken all the rest
    assert lightness(spectrogram(mels)).std() > 30
    assert lightness(spectrogram(mels, low_db=-200, high_db=0)).std() < 10
    assert lightness(spectrogram(np.full(SHAPE, -100, np.float32))).std() == 0, "silence has no pattern"


def test_the_overlay_is_clear_where_nothing_is_and_survives_a_few_extreme_cells() -> None:
    found = quiet_map()
    found[60:70, 100:120] = 50.0
    found[5, 7] = 1e9
    shown = opacity(overlay(found))
    patch = shown[128 - 70 : 128 - 60, 100:120]
    assert patch.min() > 0.5
    assert shown[127 - 5, 7] > 0.9
    assert np.median(shown) == 0.0, "the rest stays clear"


def test_several_windows_can_share_a_scale() -> None:
    weak, strong = quiet_map(), quiet_map()
    strong[10:40, 50:90] = 30.0
    assert opacity(overlay(weak)).max() > 0.9, "by itself it glows"
    assert opacity(overlay(weak, strongest(strong))).mean() < 0.01
    assert opacity(overlay(strong, strongest(strong)))[128 - 40 : 128 - 10, 50:90].min() > 0.9


@pytest.mark.parametrize("value", [0.0, -3.0])
def test_a_map_without_anything(value: float) -> None:
    nothing = np.full(SHAPE, value, np.float32)
    assert strongest(nothing) == 0.0
    assert opacity(overlay(nothing)).max() == 0.0
    assert where(nothing, PARAMETERS).words == "spread evenly over all frequencies and the whole window"


def test_a_single_cell_still_shows() -> None:
    one = np.zeros(SHAPE, np.float32)
    one[20, 30] = 4.0
    assert np.argwhere(opacity(overlay(one)) > 0.9).tolist() == [[107, 30]]


def test_where_names_band_and_seconds() -> None:
    found = quiet_map() * 0.01
    frames = [round(s * 16_000 / 512) for s in (3.2, 4.1)]
    low, high = 40, 52  # bands of about 1.0 to 1.4 kHz
    found[low:high, slice(*frames)] = 20.0
    told = where(found, PARAMETERS)
    ((begin, end),) = told.seconds
    assert (begin, end) == pytest.approx((3.2, 4.1), abs=0.1)
    ((bottom, top),) = told.bands
    # What the filterbank says of these bands, by a tone in them.
    for band in (low + 1, high - 2):
        tone = loudest_tone(band)
        assert bottom < tone < top
    assert told.words == f"{bottom / 1000:.1f} to {top / 1000:.1f} kHz; {begin:.1f} to {end:.1f} s"


def loudest_tone(band: int) -> float:
    """The frequency of a tone that is loudest in a band, Hz."""
    times = np.arange(16_000) / 16_000
    for hz in range(600, 4000, 10):
        if log_mel(np.sin(2 * np.pi * hz * times), PARAMETERS)[:, 15].argmax() == band:
            return float(hz)
    raise AssertionError(band)


def test_where_says_that_it_is_spread() -> None:
    rng = np.random.default_rng(1)
    assert "spread evenly" in where(rng.uniform(1, 2, SHAPE).astype(np.float32), PARAMETERS).words
    hum = np.zeros(SHAPE, np.float32)
    hum[2:5] = 1.0
    assert where(hum, PARAMETERS).words.endswith(" Hz; all the time")


def test_many_knocks_are_counted() -> None:
    knocks = np.zeros(SHAPE, np.float32)
    for number in range(8):
        knocks[:, 20 + 35 * number : 23 + 35 * number] = 10.0 + number
    told = where(knocks, PARAMETERS)
    assert not told.bands and len(told.seconds) == 3
    assert told.further_seconds >= 1 and told.words.endswith(f"and {told.further_seconds} more")
    assert told.words.startswith("all frequencies; ")
