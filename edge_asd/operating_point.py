"""The threshold that keeps raised incidents to so many per machine and day.

The figure asked for is incidents after everything: several detectors combined, k of n, clearing and rest, at the
configured hop. So the series of normal scores is drawn again and again in contiguous blocks (block bootstrap, Künsch
1989) into weeks of normal sound, in which disturbances may be rarer than any that was heard, and the alarm's own code
is run over it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from edge_asd.alarm import Alarm, AlarmRule
from edge_asd.calibration import MAX_RARITY, Calibration
from edge_asd.logmel import Float64Array

SECONDS_PER_DAY = 86_400.0
_SIMULATED_INCIDENTS = 400
_SIMULATED_WINDOWS = (40_000, 400_000)
"""As many windows as give so many incidents, within these bounds."""
_BLOCK_WINDOWS = 12
"""Two minutes at the usual hop: longer than most disturbances of a normal machine."""
_STRETCH_WINDOWS = 2_000
"""Windows that share one draw of the tail: more than an incident lasts, few enough for many draws."""
_SEED = 20
_MIN_INCIDENTS = 20
"""Fewer incidents in the simulated weeks, and the rate is extrapolated from higher ones instead of counted."""
_FIT_POINTS = 6
"""Thresholds that an extrapolation is fitted to, the highest that were counted: three neighbours are all noise."""
_HIGHEST, _STEP = 6.0, 0.1
"""Thresholds tried, from the highest down."""
_HALF = 0.3
"""The lowest threshold: half of all normal windows are rarer."""
MOST_PER_DAY = 100.0
"""An alarm that is false more often than every quarter of an hour is none."""
_LEAST_SLOPE = 0.5
"""Decades of rate to a unit of rarity: less cannot be, since a rarity is a decade of probability."""


@dataclass(frozen=True)
class OperatingPoint:
    """A threshold and what is known of the false alarms at it."""

    threshold: float
    """Rarity."""
    false_alarms_per_day: float
    """As asked for."""
    supported_per_day: float
    """The lowest rate that the normal sound of the calibration can carry: its threshold lies within what was heard."""

    @property
    def is_extrapolated(self) -> bool:
        """The rate asked for is lower than the calibration can carry."""
        return self.false_alarms_per_day < self.supported_per_day

    def __str__(self) -> str:
        text = f"threshold {self.threshold:.2f} for {self.false_alarms_per_day:g} false alarms a day"
        if self.is_extrapolated:
            text += f" (extrapolated: the calibration supports down to {self.supported_per_day:.3g} a day)"
        return text


@lru_cache(maxsize=256)
def operating_point(
    calibrations: tuple[Calibration, ...], rule: AlarmRule, hop_seconds: float, false_alarms_per_day: float
) -> OperatingPoint:
    """Find the threshold at which normal sound raises so many incidents a day.

    Args:
        calibrations: one for each of the machine's detectors.
        rule: k of n, clearing and rest; its threshold is not looked at.
        hop_seconds: from window to window, as configured.
        false_alarms_per_day: incidents per machine and day, above 0, at most `MOST_PER_DAY`. A rule so strict that
            normal sound raises fewer at any threshold gets the threshold at which it raises most.

    Raises:
        ValueError: the rate is not in range, or needs a rarity above the highest there is.
    """
    if not 0 < false_alarms_per_day <= MOST_PER_DAY:
        raise ValueError(
            f"false_alarms_per_day must be above 0 and at most {MOST_PER_DAY:g}, not {false_alarms_per_day:g}"
        )
    # Fewer days are enough where incidents are frequent, and counting those takes longer.
    windows = int(
        np.clip(_SIMULATED_INCIDENTS / false_alarms_per_day * SECONDS_PER_DAY / hop_seconds, *_SIMULATED_WINDOWS)
    )
    rarity = simulate_normal_rarity(calibrations, hop_seconds, windows)
    days = rarity.size * hop_seconds / SECONDS_PER_DAY

    def rate_at(threshold: float) -> float:
        return count_incidents(rarity, replace(rule, threshold=threshold), hop_seconds) / days

    curve = _rate_curve(rate_at, _MIN_INCIDENTS / days, false_alarms_per_day)
    if curve is None:
        # A rule so strict that normal sound hardly ever meets it: any threshold keeps the rate.
        return OperatingPoint(_HALF, false_alarms_per_day, 0.0)
    found = curve.threshold_at(false_alarms_per_day)
    if not found < MAX_RARITY:
        raise ValueError(f"{false_alarms_per_day:g} false alarms a day needs a rarity above {MAX_RARITY:g}")
    # The rarest of N normal windows has a probability of about 1/N; with D detectors all that is worth log10 D less.
    heard = float(np.log10(min(len(c.scores) for c in calibrations) / len(calibrations)))
    is_below = heard < curve.thresholds[-1]
    return OperatingPoint(found, false_alarms_per_day, rate_at(max(heard, _HALF)) if is_below else curve.rate_at(heard))


@dataclass(frozen=True)
class _RateCurve:
    """Incidents a day against the threshold: counted where there are enough, a line of their logarithm above."""

    thresholds: list[float]
    """From the highest down."""
    rates: list[float]
    """Per day, rising."""

    def _line(self) -> tuple[float, float]:
        """Slope and offset of log10 rate over threshold, of the highest thresholds that were counted."""
        points = self.thresholds[:_FIT_POINTS], np.log10(self.rates[:_FIT_POINTS])
        slope, offset = np.polyfit(*points, 1)
        return min(float(slope), -_LEAST_SLOPE), float(offset)

    def threshold_at(self, rate: float) -> float:
        """The threshold of a rate; the lowest of the curve for a rate that is never reached."""
        if rate < self.rates[0]:
            slope, offset = self._line()
            return max(self.thresholds[0], (float(np.log10(rate)) - offset) / slope)
        return float(np.interp(np.log10(rate), np.log10(self.rates), self.thresholds))

    def rate_at(self, threshold: float) -> float:
        """The rate of a threshold."""
        if threshold > self.thresholds[0]:
            slope, offset = self._line()
            return min(self.rates[0], float(10 ** (offset + slope * threshold)))
        return float(10 ** np.interp(threshold, self.thresholds[::-1], np.log10(self.rates[::-1])))


def _rate_curve(rate_at: Callable[[float], float], least: float, wanted: float) -> _RateCurve | None:
    """Count from high thresholds down until the rate wanted is passed, in finer steps where a strict rule needs them.

    Returns:
        None where no threshold raises enough incidents to be counted.
    """
    curve = _RateCurve([], [])
    for step in (_STEP, _STEP / 5):
        begin = curve.thresholds[0] + _STEP if curve.thresholds else _HIGHEST
        curve = _RateCurve([], [])
        for threshold in np.arange(begin, _HALF, -step):
            rate = rate_at(float(threshold))
            if curve.rates and rate < curve.rates[-1] / 2:
                break  # so low a threshold that incidents grow together: from here on there are only fewer
            if rate >= least:
                curve.thresholds.append(float(threshold))
                curve.rates.append(max([rate, *curve.rates[-1:]]))
            if len(curve.rates) >= _FIT_POINTS and curve.rates[-1] >= wanted:
                return curve
    return curve if len(curve.rates) >= 2 else None


def simulate_normal_rarity(
    calibrations: Sequence[Calibration], hop_seconds: float, windows: int = _SIMULATED_WINDOWS[1], seed: int = _SEED
) -> Float64Array:
    """A machine's rarity over a long stretch of normal sound, shape ``[window]``.

    Detectors calibrated on the same windows are drawn together, so that what they have in common is kept; others
    separately. With a shorter hop than the calibration's, neighbouring windows overlap and hear the same: each drawn
    rarity then lasts for as many windows as fit into the calibration's hop.
    """
    rng = np.random.default_rng(seed)
    lasting = max(1, int(np.ceil(min(c.hop_seconds for c in calibrations) / hop_seconds)))
    windows = -(-windows // lasting)
    shared = len({c.stretches for c in calibrations}) == 1
    picks, begins = _block_bootstrap(calibrations[0].stretches, windows, rng)
    drawn = rng.random(begins.size)
    highest = np.zeros(windows)
    for number, calibration in enumerate(calibrations):
        if number and not shared:
            picks, begins = _block_bootstrap(calibration.stretches, windows, rng)
            drawn = rng.random(begins.size)
        np.maximum(highest, _drawn_rarity(calibration, picks, begins, drawn, rng), out=highest)
    combined: Float64Array = np.maximum(0.0, highest - np.log10(len(calibrations)))
    return np.repeat(combined, lasting)


def _drawn_rarity(
    calibration: Calibration,
    picks: NDArray[np.intp],
    begins: NDArray[np.intp],
    drawn: Float64Array,
    random: np.random.Generator,
) -> Float64Array:
    """Rarity of drawn windows, shape ``[window]``: by rank, and beyond what was heard for the rarest of a block.

    The window of rank r from the top (from 0) among n stands for probabilities from r / n to (r + 1) / n. In each block
    the rarest one gets one of them, ``drawn`` from 0 to 1, and carries its neighbours along: a disturbance that lasts
    is stronger or weaker as a whole. Drawn one by one, they would fall apart, and k of n would be met too seldom.
    """
    rank = np.empty(len(calibration.scores))
    rank[np.argsort(calibration.scores)[::-1]] = np.arange(rank.size)
    top = np.minimum.reduceat(rank[picks], begins)
    factor = np.repeat((top + 1.0 - drawn) / (top + 0.5), np.diff(begins, append=picks.size))
    rarity: Float64Array = -np.log10(np.minimum(1.0, (rank[picks] + 0.5) / rank.size * factor))
    return _with_uncertain_tail(calibration, rarity, random)


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


def count_incidents(rarity: Float64Array, rule: AlarmRule, hop_seconds: float) -> int:
    """Incidents that a rule raises over a series, shape ``[window]``; the alarm's own code decides."""
    over = np.concatenate([np.zeros(rule.raise_window, np.intp), np.cumsum(rarity >= rule.threshold)])
    votes = over[rule.raise_window :] - over[: -rule.raise_window]
    ripe = np.flatnonzero(votes >= rule.raise_count)
    alarm, incidents, position = Alarm(rule), 0, 0
    rest = int(np.ceil(rule.rest_seconds / hop_seconds)) + rule.raise_window
    while (ahead := int(np.searchsorted(ripe, position))) < ripe.size:
        # At rest, nothing happens before the next window that ends a stretch of n with k votes: begin n before it.
        begin, quiet_until = int(ripe[ahead]) - rule.raise_window + 1, rarity.size
        if begin > position:
            alarm, position = Alarm(rule), begin
        while position < min(quiet_until, rarity.size):
            event = alarm.step(float(rarity[position]), position * hop_seconds, hop_seconds)
            if event is not None and event.event == "raised":
                incidents, quiet_until = incidents + 1, rarity.size
            elif event is not None:
                quiet_until = position + rest
            position += 1
    return incidents


def _block_bootstrap(
    stretches: tuple[int, ...], windows: int, rng: np.random.Generator
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Indices into a series, in blocks that never span two stretches, shape ``[windows]``; where the blocks begin."""
    lengths = np.asarray(stretches)
    ends = np.repeat(np.cumsum(lengths), lengths)
    first = rng.integers(0, ends.size, windows)
    lasting = np.minimum(ends[first] - first, _BLOCK_WINDOWS)
    used = int(np.searchsorted(np.cumsum(lasting), windows)) + 1
    first, lasting = first[:used], lasting[:used]
    begins = np.cumsum(lasting) - lasting
    offsets = np.arange(int(lasting.sum())) - np.repeat(begins, lasting)
    picks: NDArray[np.intp] = np.repeat(first, lasting) + offsets
    return picks[:windows], begins[begins < windows]
