"""False alarms on normal windows: how many, out of how many, and what share that can stand for."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edge_asd.binomial import exact_interval
from edge_asd.detector import Detector

from .corpus import Clip, digest

TARGET = 0.01
"""Share of normal windows that a threshold is chosen for: rarity 2."""


@dataclass(frozen=True)
class Count:
    """Windows beyond a threshold."""

    beyond: int
    windows: int

    def __add__(self, other: Count) -> Count:
        return Count(self.beyond + other.beyond, self.windows + other.windows)

    def as_dict(self) -> dict[str, Any]:
        """``beyond``, ``windows``, ``share`` and the exact ``interval`` of the share; None where there is no window."""
        if not self.windows:
            return {"beyond": 0, "windows": 0, "share": None, "interval": None}
        return {
            "beyond": self.beyond,
            "windows": self.windows,
            "share": self.beyond / self.windows,
            "interval": list(exact_interval(self.beyond, self.windows)),
        }


def is_beyond(rarities: ArrayLike, target: float) -> NDArray[np.bool_]:
    """Which rarities, ``[window]``, are those of a share of ``target`` of normal windows, or more.

    Raises:
        ValueError: a target that is no share.
    """
    if not 0 < target < 1:
        raise ValueError(f"a target of {target} is not a share of windows between 0 and 1")
    beyond: NDArray[np.bool_] = np.asarray(rarities, float) >= -math.log10(target)
    return beyond


def count_beyond(rarities: ArrayLike, target: float) -> Count:
    """How many of them; see `is_beyond`."""
    beyond = is_beyond(rarities, target)
    return Count(int(beyond.sum()), beyond.size)


def without_trained(clips: Sequence[Clip], detectors: Iterable[Detector]) -> list[Clip]:
    """The clips that none of the detectors was trained on, as far as the detectors say what they were trained on."""
    trained = {known for d in detectors for known in d.metadata.data.get("clips_sha256", ())}
    return [c for c in clips if digest(c) not in trained] if trained else list(clips)


def silent_about_clips(detectors: Iterable[Detector]) -> list[str]:
    """Names of the detector files that do not say which clips they were trained on."""
    return [d.path.name for d in detectors if "clips_sha256" not in d.metadata.data]
