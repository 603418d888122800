"""The picture of an incident: small, readable by Pillow, bright where a tone was, glowing where a detector says so."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edge_asd.audio.windows import Window
from edge_asd.detector import Detector
from edge_asd.explanation import Explanation
from edge_asd.logmel import Float32Array, LogMelParameters, hz_to_mel, log_mel
from edge_asd.pipeline import AlarmSettings, DetectorReading, MachineDetector, Pipeline, Reading
from edge_asd.report.clip_figure import frequency_ticks
from edge_asd.report.incident_picture import MOST_BYTES, incident_picture

RATE = 16_000
END = datetime(2026, 11, 24, 23, 59, 59, tzinfo=UTC)
PARAMETERS = LogMelParameters()
LEFT, WIDTH, HEIGHT = 104, 939, 256
"""Of a panel, in pixels."""
TICKS = len(frequency_ticks(PARAMETERS))


def hum(seed: int = 0) -> Float32Array:
    return (0.003 * np.random.default_rng(seed).standard_normal(10 * RATE)).astype(np.float32)


def with_tone(hz: float, begin: float, end: float) -> Float32Array:
    samples, time = hum(), np.arange(10 * RATE) / RATE
    samples += (0.1 * np.sin(2 * np.pi * hz * time) * ((time >= begin) & (time < end))).astype(np.float32)
    return samples


@pytest.fixture(scope="module")
def reading(tiny: Callable[..., bytes]) -> Reading:
    """Of a detector that only knows how loud it is."""
    used = MachineDetector.of(Detector(Path("tiny.onnx"), tiny()), None)
    return Pipeline([used], AlarmSettings(threshold=2.0), hop_seconds=10.0).read(Window(0, hum(), 0))


def of_detectors(reading: Reading, *rarities: float) -> Reading:
    (tiny,) = reading.detectors
    detectors = tuple(replace(tiny, name=f"d{i}.onnx", rarity=rarity) for i, rarity in enumerate(rarities))
    return replace(reading, detectors=detectors, rarity=max(rarities))


def panels(picture: Image.Image) -> list[int]:
    """Tops of the panels: where each frequency axis has the first of its ticks, 8 kHz."""
    pixels = np.asarray(picture.convert("L"), float)
    rows = np.flatnonzero((pixels[:, LEFT - 8 : LEFT - 1] > 100).all(axis=1))
    ticks = rows[np.append(True, np.diff(rows) > 4)]
    assert ticks.size % TICKS == 0
    return [int(y) + 1 for y in ticks[::TICKS]]


def glow(panel: np.ndarray) -> np.ndarray:
    """Pixels that are more orange than mako ever is."""
    found: np.ndarray = panel[..., 0].astype(int) - panel[..., 2] > 40
    return found


def test_a_tone_is_bright_where_it_was_and_the_map_glows_there(reading: Reading) -> None:
    samples = with_tone(2000.0, 3.0, 5.0)
    heard = log_mel(samples, PARAMETERS)
    found = np.where(heard > np.median(heard) + 25, 1.0, 0.0).astype(np.float32)
    shown = of_detectors(reading, 5.0)
    content = incident_picture("rail-7", END, shown, Explanation(PARAMETERS, heard, {"d0.onnx": found}), samples)
    assert len(content) < MOST_BYTES
    picture = Image.open(io.BytesIO(content))
    picture.load()
    assert picture.format == "PNG"
    top, glowing_top = panels(picture)
    colours = np.asarray(picture.convert("RGB"))
    lightness = np.asarray(picture.convert("L"), float)[top : top + HEIGHT, LEFT : LEFT + WIDTH]
    low, high = hz_to_mel(np.array([PARAMETERS.fmin, PARAMETERS.fmax]))
    row = round(HEIGHT * (1 - (hz_to_mel(np.array([2000.0]))[0] - low) / (high - low)))
    inside = lightness[row - 4 : row + 4, round(WIDTH * 0.32) : round(WIDTH * 0.48)].max(axis=0)
    assert inside.min() > 180 > 150 > np.percentile(lightness, 90)
    assert lightness[row - 4 : row + 4, : round(WIDTH * 0.28)].max() < inside.min() - 20, "not before it began"

    over = glow(colours[glowing_top : glowing_top + HEIGHT, LEFT : LEFT + WIDTH])
    rows, columns = np.nonzero(over)
    assert over.sum() > 600 and not glow(colours[top : top + HEIGHT, LEFT : LEFT + WIDTH]).any()
    assert abs(np.median(rows) - row) < 6
    assert (columns.min() / WIDTH * 10, columns.max() / WIDTH * 10) == pytest.approx((3.0, 5.0), abs=0.15)


def test_what_a_detector_finds_normal_glows_less(reading: Reading) -> None:
    samples = with_tone(2000.0, 3.0, 5.0)
    heard = log_mel(samples, PARAMETERS)
    found = np.where(heard > np.median(heard) + 25, 1.0, 0.0).astype(np.float32)
    maps = {"d0.onnx": found, "d1.onnx": found}
    content = incident_picture(
        "rail-7", END, of_detectors(reading, 0.1, 5.0), Explanation(PARAMETERS, heard, maps), samples
    )
    picture = Image.open(io.BytesIO(content))
    _, first, second = panels(picture)
    colours = np.asarray(picture.convert("RGB"), int)
    strength = [
        (
            colours[top : top + HEIGHT, LEFT : LEFT + WIDTH, 0] - colours[top : top + HEIGHT, LEFT : LEFT + WIDTH, 2]
        ).max()
        for top in (first, second)
    ]
    assert strength[0] > strength[1] + 60, "the rarest comes first, and glows"


@pytest.mark.parametrize("name", ["noise", "silence", "full scale"])
def test_any_sound_and_any_number_of_detectors_give_a_small_picture(reading: Reading, name: str) -> None:
    samples = {
        "noise": np.random.default_rng(1).uniform(-1, 1, 10 * RATE).astype(np.float32),
        "silence": np.zeros(10 * RATE, np.float32),
        "full scale": np.ones(10 * RATE, np.float32),
    }[name]
    heard = log_mel(samples, PARAMETERS)
    rng = np.random.default_rng(2)
    maps = {f"d{i}.onnx": rng.exponential(1.0, heard.shape).astype(np.float32) for i in range(5)}
    content = incident_picture(
        "m" * 63, END, of_detectors(reading, 1, 2, 3, 4, 5), Explanation(PARAMETERS, heard, maps), samples
    )
    assert len(content) <= MOST_BYTES
    picture = Image.open(io.BytesIO(content))
    assert len(panels(picture)) == 4, "what was heard, and three detectors"
    # A long name is written smaller, and not over the edge.
    title = np.asarray(picture.convert("L"), float)[20:75]
    assert title[:, -20:].max() < 60 < 200 < title[:, 100:800].max()


def test_facts_are_in_the_file(reading: Reading) -> None:
    heard = log_mel(hum(), PARAMETERS)
    content = incident_picture(
        "rail-7", END, of_detectors(reading, 5.0), Explanation(PARAMETERS, heard, {}), hum(), {"Incident": "abc"}
    )
    picture = Image.open(io.BytesIO(content))
    picture.load()
    assert picture.info["Incident"] == "abc"


def test_detectors_are_named_by_what_they_say(reading: Reading) -> None:
    assert isinstance(reading.detectors[0], DetectorReading)
    assert of_detectors(reading, 1.99, 2.0, 5.0).agreeing == ["d1.onnx", "d2.onnx"]
