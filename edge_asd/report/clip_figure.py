"""One window of sound for a page: what the macro ``clip_figure`` of ``clip.html`` shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edge_asd.logmel import Float32Array, LogMelParameters, hz_to_mel
from edge_asd.report.axes import nice_ticks, number
from edge_asd.report.picture import overlay, spectrogram, where
from edge_asd.report.sound import playable

_FREQUENCIES = (50, 100, 200, 500, 1000, 2000, 4000, 8000, 16_000, 32_000, 64_000)
"""Hz. Ticks of the frequency axis, so far as the picture reaches."""
_LEAST_TICK_GAP = 7.0
"""Percent of the picture's height between two ticks: below, their words overlap."""


@dataclass(frozen=True)
class Tick:
    """A mark at the edge of a picture."""

    words: str
    percent: float
    """Of the picture's width from the left, or of its height from the bottom."""


@dataclass(frozen=True)
class Overlay:
    """What one detector found strange."""

    detector: str
    picture: str
    """Data URI, see `edge_asd.report.picture.overlay`."""
    where: str
    """Bands and seconds in words."""


@dataclass(frozen=True)
class ClipFigure:
    """One window: picture, overlays, sound and facts."""

    caption: str
    spectrogram: str
    """Data URI."""
    overlays: Sequence[Overlay]
    sound: str | None
    """Data URI; None where it is left out."""
    seconds: float
    """That the picture is wide."""
    frequency_ticks: Sequence[Tick]
    time_ticks: Sequence[Tick]
    facts: Sequence[tuple[str, str]]
    """(name, value), in order."""

    @classmethod
    def of(
        cls,
        caption: str,
        log_mel: Float32Array,
        maps: Mapping[str, Float32Array],
        samples: Float32Array | None,
        parameters: LogMelParameters,
        *,
        facts: Sequence[tuple[str, str]] = (),
        highest: Mapping[str, float] | None = None,
        low_db: float | None = None,
        high_db: float | None = None,
        doublings: int = 0,
    ) -> ClipFigure:
        """Make the pictures and the sound of a window.

        Args:
            caption: one line above it.
            log_mel: dB, shape ``[mel, frame]``.
            maps: anomaly maps by the detector's name, each shape ``[mel, frame]``.
            samples: to play, shape ``[sample]``, at the rate of ``parameters``; None for a figure without sound.
            parameters: of the log-Mel.
            facts: such as ``[("rarity", "3.20")]``.
            highest: by the detector's name, see `edge_asd.report.picture.overlay`.
            low_db, high_db: see `edge_asd.report.picture.spectrogram`.
            doublings: see `edge_asd.report.sound.playable`.
        """
        frames, frame = log_mel.shape[1], parameters.hop_length / parameters.sample_rate
        seconds = frames * frame
        return cls(
            caption=caption,
            spectrogram=spectrogram(log_mel, low_db=low_db, high_db=high_db),
            overlays=[
                Overlay(name, overlay(found, (highest or {}).get(name)), where(found, parameters).words)
                for name, found in maps.items()
            ],
            sound=None if samples is None else playable(samples, parameters.sample_rate, doublings=doublings),
            seconds=seconds,
            frequency_ticks=frequency_ticks(parameters),
            time_ticks=time_ticks(frames, frame),
            facts=facts,
        )

    @property
    def size(self) -> int:
        """About how many bytes it takes up in a page."""
        pictures = len(self.spectrogram) + sum(len(one.picture) for one in self.overlays)
        return pictures + len(self.sound or "") + 6000


def frequency_ticks(parameters: LogMelParameters) -> list[Tick]:
    """Where frequencies lie among the mels of a picture: row k of the picture is centred on the peak of band k."""
    low, high = hz_to_mel(np.array([parameters.fmin, parameters.fmax]))
    step = (high - low) / (parameters.n_mels + 1)
    ticks: list[Tick] = []
    for frequency in _FREQUENCIES:
        row = float((hz_to_mel(np.array([float(frequency)]))[0] - low) / step - 1.0)
        percent = 100.0 * (row + 0.5) / parameters.n_mels
        if -0.1 <= percent <= 100.4 and (not ticks or percent - ticks[-1].percent >= _LEAST_TICK_GAP):
            words = f"{frequency / 1000:g} kHz" if frequency >= 1000 else f"{frequency} Hz"
            ticks.append(Tick(words, percent))
    return ticks


def time_ticks(frames: int, frame: float) -> list[Tick]:
    """Seconds along a picture of so many frames, which are ``frame`` seconds apart and centred on multiples of that."""
    return [Tick(number(t), 100.0 * (t / frame + 0.5) / frames) for t in nice_ticks(0.0, frames * frame)]
