"""A window of sound as a picture: its spectrogram, the anomaly map over it, and where that map is strong in words."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edge_asd.logmel import Float32Array, Float64Array, LogMelParameters, mel_frequencies

_MAKO = ("#0b0405", "#2e1e3b", "#413d7b", "#37659e", "#348fa7", "#40b7ad", "#8bdab2", "#def5e5")
"""Anchors of a perceptually uniform colour map, evenly spaced, from dark to light: "mako" of seaborn (M. Waskom)."""
_GLOW = ("#d9480f", "#ff7a1a", "#ffc94d")
"""Of the anomaly map, from weak to strong: orange stands out from mako's blues for the colour-blind too."""
_COLOURS = 64
"""Steps of a picture: about 1 dB each. More would only make the file larger."""
_CONTRAST_PERCENTILES = (2.0, 99.7)
_LEAST_RANGE_DB = 10.0
"""A picture of nothing but silence shall not turn its rounding into a pattern."""
_HIGHEST_PERCENTILE = 99.5
"""Of the anomaly map: a few extreme cells (0.5 %: some 200 of a window's 40,000) do not set its scale."""
_FAINTEST = 0.25
"""Share of the highest amplitude below which a cell stays clear."""
_MOST_OPAQUE = 0.95

_MOST_STRETCHES = 3
_CARRIED = 0.5
"""The strong bands and stretches carry so much of the score at least."""
_ALMOST = 0.8
"""So little weaker than the weakest of those is as strong."""
_EVEN = 0.4
"""If more than so many of the bands (frames) are as strong, the map is spread evenly."""
_LEAST_SHARE = 0.08
"""A stretch that carries less than this is not worth naming."""
_SMOOTH = 3
"""Bands and frames that one value is averaged over."""
_LEAST_GAP = 2
"""Stretches that are no more cells apart are one."""


def spectrogram(log_mel: Float32Array, *, low_db: float | None = None, high_db: float | None = None) -> str:
    """`spectrogram_image` as the data URI of a PNG."""
    return _uri(spectrogram_image(log_mel, low_db=low_db, high_db=high_db))


def spectrogram_image(
    log_mel: Float32Array, *, low_db: float | None = None, high_db: float | None = None
) -> Image.Image:
    """A picture of a log-Mel, as wide as its frames and as high as its mels, low ones at the bottom.

    Args:
        log_mel: dB, shape ``[mel, frame]``.
        low_db: darkest; the quietest 2 % unless given.
        high_db: lightest; the loudest 0.3 % unless given.
    """
    quiet, loud = (float(p) for p in np.percentile(log_mel, _CONTRAST_PERCENTILES))
    low = quiet if low_db is None else low_db
    high = max(loud if high_db is None else high_db, low + _LEAST_RANGE_DB)
    steps = np.round(np.clip((log_mel - low) / (high - low), 0.0, 1.0) * (_COLOURS - 1))
    return _image(steps.astype(np.uint8), _palette(_MAKO))


def overlay(anomaly_map: Float32Array, highest: float | None = None) -> str:
    """`overlay_image` as the data URI of a PNG with transparency."""
    return _uri(overlay_image(anomaly_map, highest))


def overlay_image(anomaly_map: Float32Array, highest: float | None = None) -> Image.Image:
    """A picture to lay over `spectrogram_image`: the more a cell added to the score, the more opaque.

    Opacity follows the square root of what a cell added: detectors add squared distances.

    Args:
        anomaly_map: a detector's, shape ``[mel, frame]``; negative cells count as 0.
        highest: value of what is fully opaque, such as `strongest` of another clip; `strongest` of this one if None.
    """
    top = strongest(anomaly_map) if highest is None else highest
    amplitude = np.sqrt(np.clip(anomaly_map / top, 0.0, 1.0)) if top > 0.0 else np.zeros_like(anomaly_map)
    steps = np.round(np.clip((amplitude - _FAINTEST) / (1.0 - _FAINTEST), 0.0, 1.0) * (_COLOURS - 1))
    opacity = np.round(np.linspace(0.0, _MOST_OPAQUE * 255.0, _COLOURS)).astype(np.uint8)
    image = _image(steps.astype(np.uint8), _palette(_GLOW))
    image.info["transparency"] = opacity.tobytes()
    return image


def strongest(anomaly_map: Float32Array) -> float:
    """What counts as a fully anomalous cell of a map, shape ``[mel, frame]``; 0 where nothing is.

    A percentile, so that a few extreme cells do not set the scale; of the cells above 0 where those are few.
    """
    found = float(np.percentile(anomaly_map, _HIGHEST_PERCENTILE))
    if found > 0.0:
        return found
    above = anomaly_map[anomaly_map > 0.0]
    return float(np.percentile(above, 50.0)) if above.size else 0.0


@dataclass(frozen=True)
class Where:
    """The few bands and stretches that carried a window's score."""

    bands: list[tuple[float, float]]
    """From and to, Hz, in order; empty where the map is spread evenly over them."""
    seconds: list[tuple[float, float]]
    """From and to, within the window, in order; likewise."""
    further_bands: int = 0
    """Weaker ones that are not named."""
    further_seconds: int = 0
    """Likewise, such as the other strokes of a machine that knocks at each."""

    @property
    def words(self) -> str:
        """For people, such as ``1.2 to 1.9 kHz; 3.2 to 4.1 s and 2 more``."""
        if not self.bands and not self.seconds:
            return "spread evenly over all frequencies and the whole window"
        bands = ", ".join(_band_in_words(*band) for band in self.bands) + _more(self.further_bands)
        seconds = ", ".join(f"{begin:.1f} to {end:.1f}" for begin, end in self.seconds) + " s"
        return (
            f"{bands or 'all frequencies'}; {seconds + _more(self.further_seconds) if self.seconds else 'all the time'}"
        )


def where(anomaly_map: Float32Array, parameters: LogMelParameters) -> Where:
    """Where an anomaly map is strong, from its sums over time and over frequency.

    Args:
        anomaly_map: shape ``[mel, frame]``; negative cells count as 0.
        parameters: of the log-Mel that it belongs to.
    """
    added = np.maximum(anomaly_map, 0.0, dtype=np.float64)
    edges = mel_frequencies(parameters)
    # A band's filter reaches from one neighbour's centre to the other's: its own share lies half-way to them.
    borders = np.concatenate([edges[:1], (edges[1:-2] + edges[2:-1]) / 2.0, edges[-1:]])
    frame = parameters.hop_length / parameters.sample_rate
    frames = anomaly_map.shape[1]
    strong_bands, further_bands = _stretches(added.sum(axis=1))
    strong_frames, further_seconds = _stretches(added.sum(axis=0))
    bands = [(float(borders[a]), float(borders[b])) for a, b in strong_bands]
    # Frames are centred on multiples of the hop; the first and the last reach over the window's ends.
    last = (frames - 1) * frame
    seconds = [(max(0.0, (a - 0.5) * frame), min(last, (b - 0.5) * frame)) for a, b in strong_frames]
    return Where(bands, seconds, further_bands, further_seconds)


def _stretches(profile: Float64Array) -> tuple[list[tuple[int, int]], int]:
    """The few stretches ``[from, to)`` that hold most of a profile, in order, and how many weaker ones there are.

    None where the profile is spread evenly.
    """
    total = float(profile.sum())
    if not total > 0.0:
        return [], 0
    padded = np.pad(profile, _SMOOTH // 2, mode="edge")
    smooth = np.convolve(padded, np.full(_SMOOTH, 1.0 / _SMOOTH), mode="valid")
    falling = np.sort(smooth)[::-1]
    needed = int(np.searchsorted(np.cumsum(falling), _CARRIED * smooth.sum()))
    # What is almost as strong counts too: a stretch shall not fall to pieces for a little less.
    is_strong = smooth >= _ALMOST * falling[min(needed, falling.size - 1)]
    if is_strong.sum() > _EVEN * profile.size:
        return [], 0
    cells = np.flatnonzero(is_strong)
    breaks = np.flatnonzero(np.diff(cells) > _LEAST_GAP + 1)
    begins, ends = cells[np.append(0, breaks + 1)], cells[np.append(breaks, cells.size - 1)] + 1
    runs = [(int(a), int(b)) for a, b in zip(begins, ends, strict=True)]
    share = {run: float(profile[slice(*run)].sum()) / total for run in runs}
    runs.sort(key=lambda run: -share[run])
    named = [run for run in runs[:_MOST_STRETCHES] if share[run] >= _LEAST_SHARE]
    # Where no stretch by itself is worth naming, many small ones carry it: it is spread.
    return (sorted(named), len(runs) - len(named)) if named else ([], 0)


def _band_in_words(low: float, high: float) -> str:
    if high < 1000.0:
        return f"{round(low, -1):.0f} to {round(high, -1):.0f} Hz"
    return f"{low / 1000.0:.1f} to {high / 1000.0:.1f} kHz"


def _more(count: int) -> str:
    return f" and {count} more" if count else ""


def _palette(anchors: tuple[str, ...]) -> bytes:
    """Colours between anchors, ``_COLOURS`` of them, as red, green, blue, red, ..."""
    points = np.array([[int(anchor[i : i + 2], 16) for i in (1, 3, 5)] for anchor in anchors], np.float64)
    at = np.linspace(0.0, len(anchors) - 1.0, _COLOURS)
    channels = [np.interp(at, np.arange(len(anchors)), points[:, c]) for c in range(3)]
    return bytes(np.round(np.stack(channels, axis=1)).astype(np.uint8).tobytes())


def _image(steps: NDArray[np.uint8], palette: bytes) -> Image.Image:
    """Palette picture; row 0 of ``steps`` is its bottom."""
    image = Image.fromarray(np.ascontiguousarray(steps[::-1]), "L")
    image.putpalette(palette)  # makes it a palette picture
    return image


def _uri(image: Image.Image) -> str:
    content = io.BytesIO()
    image.save(content, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(content.getvalue()).decode()
