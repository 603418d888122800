"""Recordings of a simulated rail."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile

from edge_asd.demo.clips import simulate
from edge_asd.demo.slide_rail import Fault

RATE = 16_000


def write_sound(path: Path, *phases: tuple[float, Fault | None], seed: int = 40) -> Path:
    """Phases of so many seconds, each sound or with a fault, in one file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    parts = [simulate("id_00", seconds, seed=seed, fault=fault, severity=1.0) for seconds, fault in phases]
    soundfile.write(path, np.concatenate(parts), RATE, subtype="PCM_16")
    return path
