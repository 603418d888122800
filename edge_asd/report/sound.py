"""A window of sound that a browser plays, inside the page."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable

import numpy as np
import soundfile
import soxr

from edge_asd.logmel import Float32Array

MAX_RATE = 48_000
"""Hz. Nobody hears more, and browsers play no more everywhere."""
MAX_DOUBLINGS = 5
"""30 dB: a machine at -40 dBFS is then well heard, and a silent room does not roar."""
_FULL_SCALE = 32_767


def playable(samples: Float32Array, sample_rate: int, *, doublings: int = 0) -> str:
    """Data URI of a 16-bit FLAC, which Chrome, Firefox and Safari play.

    Args:
        samples: one channel, shape ``[sample]``, full scale 1.0.
        sample_rate: Hz; above `MAX_RATE` it is brought down to that.
        doublings: how often the amplitude is doubled, 6 dB each. Doubling shifts bits, which FLAC stores for nothing.
    """
    if sample_rate > MAX_RATE:
        samples, sample_rate = soxr.resample(samples, sample_rate, MAX_RATE, quality="HQ"), MAX_RATE
    exact = np.round(np.clip(samples, -1.0, 1.0) * _FULL_SCALE).astype(np.int32)
    limit = _FULL_SCALE >> doublings
    louder = (np.clip(exact, -limit, limit) << doublings).astype(np.int16)
    content = io.BytesIO()
    # Level 8 of FLAC: the smallest file, still in milliseconds.
    soundfile.write(content, louder, sample_rate, format="FLAC", subtype="PCM_16", compression_level=1.0)
    return "data:audio/flac;base64," + base64.b64encode(content.getvalue()).decode()


def doublings_for(sounds: Iterable[Float32Array]) -> int:
    """How often the amplitude of all these can be doubled before the loudest of them reaches full scale.

    One number for a whole page: what sounds louder there was louder.
    """
    peak = max((float(np.abs(samples).max(initial=0.0)) for samples in sounds), default=0.0)
    if peak <= 0.0:
        return 0
    return int(np.clip(np.floor(np.log2(1.0 / peak)), 0, MAX_DOUBLINGS))
