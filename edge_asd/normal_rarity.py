"""Weeks of a machine's normal sound, drawn from its calibrations.

The series of normal scores is drawn again and again in contiguous blocks (block bootstrap, Künsch 1989), in which
disturbances may be rarer than any that was heard.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_asd.calibration import MAX_RARITY, Calibration
from edge_asd.logmel import Float64Array

SIMULATED_WINDOWS = 400_000
"""Some weeks at the usual hop."""
BLOCK_WINDOWS = 12
"""Two minutes at the usual hop: longer than most disturbances of a normal machine."""
_STRETCH_WINDOWS = 2_000
"""Windows that share one draw of the tail: more than an incident lasts, few enough for many draws."""
_JUDGED_STEP = 0.02
"""Rarities at which another calibration is asked; between them lies a line."""
_SEED = 20


def simulate_normal_rarity(
    calibrations: Sequence[Calibration],
    hop_seconds: float,
    windows: int = SIMULATED_WINDOWS,
    seed: int = _SEED,
    *,
    judged_by: Sequence[Calibration] | None = None,
) -> Float64Array:
    """A machine's rarity over a long stretch of normal sound, shape ``[window]``.

    Detectors calibrated on the same sound are drawn together, so that what they have in common is kept; others
    separately. With a shorter hop than the calibration's, neighbouring windows overlap and hear the same: each drawn
    rarity then lasts for as many windows as fit into the calibration's hop.

    Args:
        calibrations: one for each of the machine's detectors: what normal sound is like.
        hop_seconds: from window to window, as configured.
        windows: how many.
        seed: of the drawing.
        judged_by: the calibrations that the machine runs with, where those are others. The tails of ``calibrations``
            then count as known.
    """
    rng = np.random.default_rng(seed)
    lasting = max(1, int(np.ceil(min(c.hop_seconds for c in calibrations) / hop_seconds)))
    windows = -(-windows // lasting)
    draws: dict[Hashable, _Draw] = {}
    highest = np.zeros(windows)
    for number, calibration in enumerate(calibrations):
        key = sound_of(calibration)
        if key not in draws:
            draws[key] = _draw(calibration.stretches, windows, rng)
        rarity = _drawn_rarity(calibration, draws[key])
        if judged_by is None:
            rarity = _with_uncertain_tail(calibration, rarity, rng)
        else:
            rarity = _judged(calibration, judged_by[number], rarity)
        np.maximum(highest, rarity, out=highest)
    combined: Float64Array = np.maximum(0.0, highest - np.log10(len(calibrations)))
    return np.repeat(combined, lasting)


def sound_of(calibration: Calibration) -> Hashable:
    """What calibrations on the same sound have in common."""
    return calibration.sound, calibration.stretches


@dataclass(frozen=True)
class _Draw:
    """Windows drawn from a series."""

    picks: NDArray[np.intp]
    """Indices into it, shape ``[window]``."""
    begins: NDArray[np.intp]
    """Where a block begins, shape ``[block]``."""
    level: Float64Array
    """Of each block, from 0 to 1: which of the probabilities that its rarest window stands for."""


def _draw(stretches: tuple[int, ...], windows: int, rng: np.random.Generator) -> _Draw:
    picks, begins = block_bootstrap(stretches, windows, rng)
    return _Draw(picks, begins, rng.random(begins.size))


def _drawn_rarity(calibration: Calibration, draw: _Draw) -> Float64Array:
    """Rarity of drawn windows, shape ``[window]``: by rank, and beyond what was heard for the rarest of a block.

    The window of rank r from the top (from 0) among n stands for probabilities from r / n to (r + 1) / n. In each block
    the rarest one gets one of them, ``level`` from 0 to 1, and carries its neighbours along: a disturbance that lasts
    is stronger or weaker as a whole. Drawn one by one, they would fall apart, and k of n would be met too seldom.
    """
    rank = np.empty(len(calibration.scores))
    rank[np.argsort(calibration.scores)[::-1]] = np.arange(rank.size)
    top = np.minimum.reduceat(rank[draw.picks], draw.begins)
    factor = np.repeat((top + 1.0 - draw.level) / (top + 0.5), np.diff(draw.begins, append=draw.picks.size))
    rarity: Float64Array = -np.log10(np.minimum(1.0, (rank[draw.picks] + 0.5) / rank.size * factor))
    return rarity


def _with_uncertain_tail(calibration: Calibration, rarity: Float64Array, random: np.random.Generator) -> Float64Array:
    """Give every simulated stretch of some hours a tail of its own, as steep as the calibration's exceedances allow.

    The rarity of one window has that uncertainty in it already (the generalised Pareto law is its average), but k of n
    windows share one tail: where it is flatter than fitted, they pass the threshold together.
    """
    count = round(1 / calibration.tail.shape)
    stretches = -(-rarity.size // _STRETCH_WINDOWS)
    # Scale over its estimate, and with it an exponential excess: count / gamma(count), from Jeffreys' posterior.
    steepness = np.repeat(random.gamma(count, size=stretches), _STRETCH_WINDOWS)[: rarity.size]
    start = -np.log10(calibration.tail.probability)
    excess = np.maximum(0.0, rarity - start) * np.log(10.0)
    return np.where(rarity > start, start + count * np.log10(1.0 + excess / steepness), rarity)


def _judged(calibration: Calibration, judge: Calibration, rarity: Float64Array) -> Float64Array:
    """The rarity that another calibration gives to scores of these rarities, shape ``[window]``.

    Beyond the tail's start the law is exponential, with the fitted scale: its uncertainty is the caller's to draw.
    """
    asked = np.arange(0.0, MAX_RARITY, _JUDGED_STEP)
    tail = calibration.tail
    start = -np.log10(tail.probability)
    scores = [
        calibration.score_at(r) if r <= start else tail.start + tail.scale * np.log(10.0) * (r - start) for r in asked
    ]
    judged: Float64Array = np.interp(rarity, asked, [judge.rarity(float(s)) for s in scores])
    return judged


def block_bootstrap(
    stretches: Sequence[int], windows: int, rng: np.random.Generator, block: int = BLOCK_WINDOWS
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Indices into a series, in blocks that never span two stretches, shape ``[windows]``; where the blocks begin."""
    lengths = np.asarray(stretches)
    ends = np.repeat(np.cumsum(lengths), lengths)
    first = rng.integers(0, ends.size, windows)
    lasting = np.minimum(ends[first] - first, block)
    used = int(np.searchsorted(np.cumsum(lasting), windows)) + 1
    first, lasting = first[:used], lasting[:used]
    begins = np.cumsum(lasting) - lasting
    offsets = np.arange(int(lasting.sum())) - np.repeat(begins, lasting)
    picks: NDArray[np.intp] = np.repeat(first, lasting) + offsets
    return picks[:windows], begins[begins < windows]
