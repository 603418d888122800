"""One picture of an incident, for a phone or a dashboard: what was heard, what each detector found strange, how loud.

A PNG that needs nothing else to be understood: machine, time, rarity, axes. It shows the very window that was scored.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from datetime import datetime, timedelta

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from edge_asd.audio.level import SILENCE_DBFS
from edge_asd.detector_reading import DetectorReading
from edge_asd.explanation import Explanation
from edge_asd.logmel import Float32Array, Float64Array, LogMelParameters, hz_to_mel
from edge_asd.pipeline import Reading
from edge_asd.report.axes import nice_ticks
from edge_asd.report.clip_figure import frequency_ticks, time_ticks
from edge_asd.report.picture import Where, overlay_image, spectrogram_image, strongest, where

MOST_BYTES = 200_000
"""Of a picture: it may go over a slow line."""
MOST_DETECTORS = 3
"""That are shown, the rarest first; more would make the picture too high for a phone."""

_WIDTH, _LEFT, _RIGHT = 1080, 104, 37
_CELL_WIDTH, _CELL_HEIGHT = 3, 2
"""Pixels of a frame and of a mel: a window of 313 frames fills the width."""
_LEVEL_HEIGHT, _GAP = 110, 14
_GROUND, _INK, _FAINT, _STRONG = "#14171c", "#eceff4", "#9aa4b2", "#ffb04d"
"""Dark, as the spectrogram is; the strong bands and seconds are marked in the colour of the anomaly map."""
_TITLE, _TEXT, _TICK = 46, 30, 25
"""Pixels. A phone shows a third of them: a tick is then about as high as small print."""
_LINE = 60
"""Characters that surely fit."""
_COLOURS = (256, 128, 64, 32)
"""Of the palette; fewer where a picture would be too large."""


def incident_picture(
    machine: str,
    time: datetime,
    reading: Reading,
    explanation: Explanation,
    samples: Float32Array,
    facts: Mapping[str, str] | None = None,
) -> bytes:
    """Draw the window that raised an incident.

    Args:
        machine: its name.
        time: of the window's end, UTC.
        reading: of the window.
        explanation: of the same window.
        samples: of the window, shape ``[sample]``, full scale 1.0.
        facts: text to store in the file beside the picture, such as the incident.

    Returns:
        Content of a PNG, `MOST_BYTES` at most.
    """
    shown = _rarest(reading)
    frames, mels = explanation.log_mel.shape[1], explanation.log_mel.shape[0]
    panel = (frames * _CELL_WIDTH, mels * _CELL_HEIGHT)
    lines = _heading(time, reading, explanation, samples.size)
    height = 30 + _TITLE + 16 + len(lines) * (_TEXT + 10) + 16
    height += (1 + len(shown)) * (_TEXT + 16 + panel[1] + _GAP) + _TEXT + 16 + _LEVEL_HEIGHT + _TICK + 24
    image = Image.new("RGB", (max(_WIDTH, _LEFT + panel[0] + _RIGHT), height), _GROUND)
    draw = ImageDraw.Draw(image)

    y = 24
    _write(draw, _RIGHT, y, machine, _TITLE, stroke=1)
    y += _TITLE + 22
    for words, colour in lines:
        _write(draw, _RIGHT, y, words, _TEXT, colour)
        y += _TEXT + 10
    y += 12

    heard = spectrogram_image(explanation.log_mel).convert("RGB").resize(panel, Image.Resampling.NEAREST)
    _write(draw, _LEFT, y, "heard", _TEXT)
    y += _TEXT + 12
    image.paste(heard, (_LEFT, y))
    _frequency_axis(draw, y, panel[1], explanation.parameters)
    y += panel[1] + _GAP
    for detector, found in ((d, explanation.maps[d.name]) for d in shown if d.name in explanation.maps):
        strong = where(found, explanation.parameters)
        _write(draw, _LEFT, y, f"{detector.name}: rarity {detector.rarity:.1f}", _TEXT)
        y += _TEXT + 12
        image.paste(_glowing(heard, found, detector.rarity / reading.threshold), (_LEFT, y))
        _frequency_axis(draw, y, panel[1], explanation.parameters)
        _mark(draw, y, panel, strong, explanation.parameters, frames)
        y += panel[1] + _GAP
    _level(draw, y, panel[0], samples, explanation.parameters, frames)
    return _png(image, facts or {})


def _rarest(reading: Reading) -> list[DetectorReading]:
    return sorted(reading.detectors, key=lambda d: -d.rarity)[:MOST_DETECTORS]


def _heading(time: datetime, reading: Reading, explanation: Explanation, samples: int) -> list[tuple[str, str]]:
    """Lines under the machine's name, each with its colour."""
    begin = time - timedelta(seconds=samples / reading.sample_rate)
    agreeing, known = len(reading.agreeing), len(reading.detectors)
    rarity = "not scored" if reading.rarity is None else f"rarity {reading.rarity:.1f}"
    agree = f"; {agreeing} of {known} detectors agree" if known > 1 else ""
    found = [m for d in _rarest(reading)[:1] if (m := explanation.maps.get(d.name)) is not None]
    strong = [where(each, explanation.parameters).words for each in found]
    return [
        (f"{begin:%Y-%m-%d %H:%M:%S} to {time:%H:%M:%S} UTC", _FAINT),
        (f"{rarity}, threshold {reading.threshold:.1f}{agree}", _INK),
        *((words, _STRONG) for both in strong for words in ([both] if len(both) <= _LINE else both.split("; "))),
        (_level_in_words(reading), _FAINT),
    ]


def _level_in_words(reading: Reading) -> str:
    if reading.level_dbfs is None or reading.level_change_db is None:
        return "level unknown"
    change = reading.level_change_db
    louder = "louder" if change > 0 else "quieter"
    words = "as loud as normal" if abs(change) < 0.5 else f"{abs(change):.1f} dB {louder} than normal"
    return f"level {reading.level_dbfs:.1f} dBFS, {words}"


def _glowing(heard: Image.Image, found: Float32Array, share: float) -> Image.Image:
    """The spectrogram with an anomaly map over it; what a detector finds normal (``share`` below 1) glows less."""
    top = strongest(found) / min(max(share, 0.25), 1.0)
    glow = overlay_image(found, top).convert("RGBA").resize(heard.size, Image.Resampling.NEAREST)
    return Image.alpha_composite(heard.convert("RGBA"), glow).convert("RGB")


def _frequency_axis(draw: ImageDraw.ImageDraw, top: int, height: int, parameters: LogMelParameters) -> None:
    ticks = frequency_ticks(parameters)
    for tick in ticks:
        y = top + height - height * tick.percent / 100.0
        draw.line([(_LEFT - 8, y), (_LEFT - 1, y)], _FAINT, 2)
    free = float("inf")
    for tick in ticks:  # from the bottom; words need more room than ticks do
        y = top + height - height * tick.percent / 100.0
        if free - y >= _TICK:
            _write(draw, _LEFT - 12, y, tick.words, _TICK, _FAINT, anchor="rm")
            free = y


def _mark(
    draw: ImageDraw.ImageDraw,
    top: int,
    panel: tuple[int, int],
    strong: Where,
    parameters: LogMelParameters,
    frames: int,
) -> None:
    """Strong bands as bars at the right edge, strong seconds at the bottom one."""
    width, height = panel
    frame = parameters.hop_length / parameters.sample_rate
    for begin, end in strong.seconds:
        x, till = (_LEFT + width * (t / frame + 0.5) / frames for t in (begin, end))
        draw.rectangle([x, top + height + 2, max(till, x + 3), top + height + 7], _STRONG)
    low, high = (float(hz_to_mel(np.array([f]))[0]) for f in (parameters.fmin, parameters.fmax))
    step = (high - low) / (parameters.n_mels + 1)
    for band in strong.bands:
        below, above = (
            height * (float((hz_to_mel(np.array([f]))[0] - low) / step) - 0.5) / parameters.n_mels for f in band
        )
        draw.rectangle(
            [_LEFT + width + 3, top + height - min(above, height), _LEFT + width + 9, top + height - max(below, 0)],
            _STRONG,
        )


def _level(
    draw: ImageDraw.ImageDraw,
    top: int,
    width: int,
    samples: Float32Array,
    parameters: LogMelParameters,
    frames: int,
) -> None:
    """How loud it was from moment to moment, and the time axis of all panels."""
    _write(draw, _LEFT, top, "level, dBFS", _TEXT)
    top += _TEXT + 16
    levels = _levels(samples, parameters.hop_length)
    ticks = nice_ticks(float(np.floor(levels.min())), float(np.ceil(max(levels.max(), levels.min() + 3.0))), 3)
    low = min(float(levels.min()), ticks[0])
    high = max(float(levels.max()), ticks[-1], low + 3.0)
    for tick in ticks:
        y = top + _LEVEL_HEIGHT * (high - tick) / (high - low)
        draw.line([(_LEFT, y), (_LEFT + width, y)], "#2c333d", 1)
        _write(draw, _LEFT - 12, y, f"{tick:.0f}", _TICK, _FAINT, anchor="rm")
    points = [
        (_LEFT + width * (i + 0.5) / frames, top + _LEVEL_HEIGHT * (high - level) / (high - low))
        for i, level in enumerate(levels)
    ]
    draw.line(points, _INK, 2)
    bottom = top + _LEVEL_HEIGHT
    for mark in time_ticks(frames, parameters.hop_length / parameters.sample_rate):
        x = _LEFT + width * mark.percent / 100.0
        draw.line([(x, bottom + 2), (x, bottom + 8)], _FAINT, 2)
        _write(draw, x, bottom + 12, f"{mark.words} s", _TICK, _FAINT, anchor="mt")


def _levels(samples: Float32Array, hop: int) -> Float64Array:
    """Mean power around each frame, dBFS."""
    # Frames are centred on multiples of the hop: of the first and the last only a half lies within the window.
    begins = np.append(0, np.arange(hop // 2, samples.size, hop))
    power = np.add.reduceat(np.square(samples, dtype=np.float64), begins) / np.diff(np.append(begins, samples.size))
    levels: Float64Array = np.maximum(10.0 * np.log10(np.maximum(power, 1e-12)), SILENCE_DBFS)
    return levels


def _write(
    draw: ImageDraw.ImageDraw,
    x: float,
    y: float,
    words: str,
    size: int,
    colour: str = _INK,
    *,
    anchor: str = "lt",
    stroke: int = 0,
) -> None:
    """Words on one line, smaller where they would not fit."""
    room = draw.im.size[0] - x - _RIGHT
    font = ImageFont.load_default(size)
    while anchor == "lt" and size > 12 and draw.textlength(words, font) > room:
        size -= 2
        font = ImageFont.load_default(size)
    draw.text((x, y), words, colour, font, anchor, stroke_width=stroke)


def _png(image: Image.Image, facts: Mapping[str, str]) -> bytes:
    information = PngInfo()
    for name, text in facts.items():
        information.add_text(name, text)
    for colours in _COLOURS:
        content = io.BytesIO()
        # The quickest ways of both: a scorer waits for it.
        few = image.quantize(colours, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
        few.save(content, "PNG", compress_level=6, pnginfo=information)
        if content.tell() <= MOST_BYTES:
            break
    return content.getvalue()
