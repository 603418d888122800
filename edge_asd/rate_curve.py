"""Incidents that a series of rarities raises, at one threshold or at many."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from edge_asd.alarm import Alarm, AlarmRule
from edge_asd.logmel import Float64Array

SECONDS_PER_DAY = 86_400.0
_SIMULATED_INCIDENTS = 400
_LEAST_WINDOWS = 40_000
"""As many windows as give so many incidents, but not fewer than this."""
MIN_INCIDENTS = 20
"""Fewer incidents in the simulated weeks, and the rate is extrapolated from higher ones instead of counted."""
_FIT_POINTS = 6
"""Thresholds that an extrapolation is fitted to, the highest that were counted: three neighbours are all noise."""
_HIGHEST, _STEP = 6.0, 0.1
"""Thresholds tried, from the highest down."""
LOWEST = 0.3
"""The lowest threshold: half of all normal windows are rarer."""
_LEAST_SLOPE = 0.5
"""Decades of rate to a unit of rarity: less cannot be, since a rarity is a decade of probability."""


def windows_for(rate: float, hop_seconds: float, most: int) -> int:
    """Fewer days are enough where incidents are frequent, and counting those takes longer."""
    return int(np.clip(_SIMULATED_INCIDENTS / rate * SECONDS_PER_DAY / hop_seconds, _LEAST_WINDOWS, most))


@dataclass(frozen=True)
class RateCurve:
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


def rate_curve(
    rate_at: Callable[[float], float], least: float, wanted: float, highest: float = _HIGHEST
) -> RateCurve | None:
    """Count from high thresholds down until the rate wanted is passed, in finer steps where a strict rule needs them.

    Returns:
        None where no threshold raises enough incidents to be counted.
    """
    curve = RateCurve([], [])
    for step in (_STEP, _STEP / 5):
        begin = min(highest, curve.thresholds[0] + _STEP) if curve.thresholds else highest
        curve = RateCurve([], [])
        for threshold in np.arange(begin, LOWEST, -step):
            rate = rate_at(float(threshold))
            if curve.rates and rate < curve.rates[-1] / 2:
                break  # so low a threshold that incidents grow together: from here on there are only fewer
            if rate >= least:
                curve.thresholds.append(float(threshold))
                curve.rates.append(max([rate, *curve.rates[-1:]]))
            if len(curve.rates) >= _FIT_POINTS and curve.rates[-1] >= wanted:
                return curve
    return curve if len(curve.rates) >= 2 else None


def count_incidents(rarity: Float64Array, rule: AlarmRule, hop_seconds: float) -> int:
    """Incidents that a rule raises over a series, shape ``[window]``; the alarm's own code decides."""
    over = np.flatnonzero(rarity >= rule.threshold)
    # Every k votes that lie within n windows: n end with all of them from the last one on, until the first one leaves.
    first, last = over[: max(0, over.size - rule.raise_count + 1)], over[rule.raise_count - 1 :]
    is_close = last - first < rule.raise_window
    ripe_from, ripe_to = last[is_close], np.minimum(first[is_close] + rule.raise_window, rarity.size) - 1
    alarm, incidents, position = Alarm(rule), 0, 0
    rest = int(np.ceil(rule.rest_seconds / hop_seconds)) + rule.raise_window
    while (ahead := int(np.searchsorted(ripe_to, position))) < ripe_to.size:
        # At rest, nothing happens before the next window that ends a stretch of n with k votes: begin n before it.
        ripe = max(position, int(ripe_from[ahead]))
        begin, quiet_until = ripe - rule.raise_window + 1, rarity.size
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
