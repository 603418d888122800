"""Why a window scored as it did: its log-Mel, and the anomaly map of each detector over it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_asd.detector import Detector
from edge_asd.logmel import Float32Array, LogMelParameters, hz_to_mel, log_mel, mel_frequencies


@dataclass(frozen=True)
class Explanation:
    """One window as the detectors saw it."""

    parameters: LogMelParameters
    """Of the log-Mel: the first detector's."""
    log_mel: Float32Array
    """dB, shape ``[mel, frame]``."""
    maps: dict[str, Float32Array]
    """What each cell added, by the detector's name, shape ``[mel, frame]``, on the grid of ``log_mel``."""


def explain(samples: Float32Array, detectors: Sequence[tuple[str, Detector, int]]) -> Explanation:
    """Score a window again, for its maps: they are the same as when it was scored.

    Args:
        samples: shape ``[sample]``, full scale 1.0, at the detectors' rate.
        detectors: name, detector and index of the machine id; of detectors with the same name the later get a number.

    Raises:
        DetectorError: a detector cannot score it.
    """
    parameters = detectors[0][1].log_mel_parameters
    mels: dict[LogMelParameters, Float32Array] = {}
    maps: dict[str, Float32Array] = {}
    for name, detector, machine_index in detectors:
        theirs = detector.log_mel_parameters
        if theirs not in mels:
            mels[theirs] = log_mel(samples, theirs)
        found = detector.score(mels[theirs], machine_index).anomaly_map
        unique, number = name, 2
        while unique in maps:
            unique, number = f"{name} ({number})", number + 1
        maps[unique] = found if theirs == parameters else _on_grid(found, theirs, parameters, mels[parameters].shape)
    return Explanation(parameters, mels[parameters], maps)


def _on_grid(
    found: Float32Array, theirs: LogMelParameters, ours: LogMelParameters, shape: tuple[int, ...]
) -> Float32Array:
    """A map of another log-Mel on our grid, shape ``[mel, frame]``: each cell is the one that lies nearest."""
    bands = _nearest(_centres(theirs), _centres(ours))
    frames = _nearest(
        np.arange(found.shape[1]) * theirs.hop_length / theirs.sample_rate,
        np.arange(shape[1]) * ours.hop_length / ours.sample_rate,
    )
    return found[np.ix_(bands, frames)]


def _centres(parameters: LogMelParameters) -> NDArray[np.float64]:
    return hz_to_mel(mel_frequencies(parameters)[1:-1])


def _nearest(theirs: NDArray[np.float64], ours: NDArray[np.float64]) -> NDArray[np.intp]:
    """For each of ours the index of the nearest of theirs."""
    nearest: NDArray[np.intp] = np.abs(ours[:, None] - theirs[None, :]).argmin(axis=1)
    return nearest
