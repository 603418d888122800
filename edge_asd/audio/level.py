"""How loud: mean power in dB re full scale (dBFS)."""

from __future__ import annotations

import numpy as np

from edge_asd.logmel import Float32Array

SILENCE_DBFS = -120.0
"""Level of digital silence: below anything that a converter gives, and a number rather than -infinity."""
_BAR_FROM_DBFS = -80.0


def level_dbfs(samples: Float32Array, heard: int | None = None) -> float:
    """Mean power in dB, 0 for a square wave of full scale (a full-scale sine has -3); digital silence is -120.

    Args:
        samples: any shape, full scale 1.0.
        heard: how many of them were heard, at least 1; the others are zeros and do not count. All unless given.
    """
    power = float(np.sum(np.square(samples, dtype=np.float64))) / max(1, samples.size if heard is None else heard)
    return max(SILENCE_DBFS, 10.0 * float(np.log10(power))) if power > 0 else SILENCE_DBFS


def level_bar(level: float, width: int = 20) -> str:
    """A level as a bar from -80 dBFS to full scale, and as a number."""
    filled = round(width * min(max(1 - level / _BAR_FROM_DBFS, 0.0), 1.0))
    number = "silence" if level <= SILENCE_DBFS else f"{level:.1f} dBFS"
    return f"[{'#' * filled}{' ' * (width - filled)}] {number:>11}"
