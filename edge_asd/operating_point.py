"""The threshold that keeps raised incidents to so many per machine and day.

The figure asked for is incidents after everything: several detectors combined, k of n, clearing and rest, at the
configured hop. So weeks of normal sound are drawn from the calibration (`edge_asd.normal_rarity`), and the alarm's own
code is run over them.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from edge_asd.alarm import AlarmRule
from edge_asd.calibration import MAX_RARITY, Calibration
from edge_asd.normal_rarity import (
    BLOCK_WINDOWS,
    SIMULATED_WINDOWS,
    block_bootstrap,
    simulate_normal_rarity,
    sound_of,
)
from edge_asd.rate_curve import LOWEST, MIN_INCIDENTS, SECONDS_PER_DAY, count_incidents, rate_curve, windows_for

MOST_PER_DAY = 100.0
"""An alarm that is false more often than every quarter of an hour is none."""
_REPEATS = 30
"""Calibrations drawn for the uncertainty of a rate: enough for an interval of `CONFIDENCE`, few enough for seconds."""
_REPEATED_WINDOWS = 60_000
"""Of normal sound of each, at most."""
CONFIDENCE = 0.9
"""Of a rate's interval."""
STAYS_RAISED = 0.7
"""Share of windows that do not clear, above which incidents are not counted: they hardly end."""
_OUTER_BLOCKS = 20
"""A series is drawn anew in so many blocks at least: long ones, for what changes slowly."""
_SEED = 21


@dataclass(frozen=True)
class IncidentRate:
    """Incidents that normal sound raises, and what a calibration as long as this one leaves open of that."""

    per_day: float
    """Incidents per machine and day."""
    low: float
    """Likewise: the lower end of an interval of `CONFIDENCE`."""
    high: float

    def __str__(self) -> str:
        return f"{self.per_day:.2g} a day (roughly {self.low:.2g} to {self.high:.2g})"


@dataclass(frozen=True)
class OperatingPoint:
    """A threshold and what is known of the false alarms at it."""

    threshold: float
    """Rarity."""
    false_alarms_per_day: float
    """As asked for."""
    supported_per_day: float
    """The lowest rate that the normal sound of the calibration can carry: its threshold lies within what was heard."""
    rate: IncidentRate | None = None
    """How uncertain the rate is; None where nobody asked, see `with_uncertainty`."""

    @property
    def is_extrapolated(self) -> bool:
        """The rate asked for is lower than the calibration can carry."""
        return self.false_alarms_per_day < self.supported_per_day

    def __str__(self) -> str:
        text = f"threshold {self.threshold:.2f} for {self.false_alarms_per_day:g} false alarms a day"
        if self.is_extrapolated:
            text += f" (extrapolated: the calibration supports down to {self.supported_per_day:.3g} a day)"
        if self.rate is not None:
            text += f"; that is roughly {self.rate.low:.2g} to {self.rate.high:.2g} a day"
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
    windows = windows_for(false_alarms_per_day, hop_seconds, SIMULATED_WINDOWS)
    rarity = simulate_normal_rarity(calibrations, hop_seconds, windows)
    days = rarity.size * hop_seconds / SECONDS_PER_DAY

    def rate_at(threshold: float) -> float:
        return count_incidents(rarity, replace(rule, threshold=threshold), hop_seconds) / days

    curve = rate_curve(rate_at, MIN_INCIDENTS / days, false_alarms_per_day)
    if curve is None:
        # A rule so strict that normal sound hardly ever meets it: any threshold keeps the rate.
        return OperatingPoint(LOWEST, false_alarms_per_day, 0.0)
    found = curve.threshold_at(false_alarms_per_day)
    if not found < MAX_RARITY:
        raise ValueError(
            f"{false_alarms_per_day:g} false alarms a day needs a rarity above {MAX_RARITY:g}; allow more, or let more "
            "windows agree, as in raise_after: 5 of 5"
        )
    # The rarest of N normal windows has a probability of about 1/N; with D detectors all that is worth log10 D less.
    heard = float(np.log10(min(len(c.scores) for c in calibrations) / len(calibrations)))
    is_below = heard < curve.thresholds[-1]
    return OperatingPoint(
        found, false_alarms_per_day, rate_at(max(heard, LOWEST)) if is_below else curve.rate_at(heard)
    )


def with_uncertainty(
    point: OperatingPoint, calibrations: Sequence[Calibration], rule: AlarmRule, hop_seconds: float
) -> OperatingPoint:
    """The same operating point, with the uncertainty of its rate. Takes some seconds."""
    at = replace(rule, threshold=point.threshold)
    return replace(point, rate=incident_rate(calibrations, at, hop_seconds))


def incident_rate(
    sound: Sequence[Calibration],
    rule: AlarmRule,
    hop_seconds: float,
    *,
    judged_by: Sequence[Calibration] | None = None,
    repeats: int = _REPEATS,
) -> IncidentRate:
    """Incidents a day that normal sound raises at a threshold, with an interval of `CONFIDENCE`.

    The calibration's series is drawn anew in long blocks again and again (bootstrap), each time as if the machine had
    been heard for as long another time. A machine that runs with the calibration itself is asked: calibrated on what
    was drawn, how often would this threshold be passed by what was heard? With other calibrations: how often do they
    let pass what was drawn? What none of the series has heard, such as another season, is not in the interval. Takes
    some seconds.

    Args:
        sound: calibrations that say what normal sound is like, one for each of the machine's detectors.
        rule: with its threshold.
        hop_seconds: from window to window, as configured.
        judged_by: the calibrations that the machine runs with, where those are others.
        repeats: how often the series is drawn.

    Raises:
        ValueError: nothing that was drawn could be calibrated on.
    """
    judges = sound if judged_by is None else judged_by
    estimate = _rate_at(sound, judges, rule, hop_seconds, _REPEATED_WINDOWS, seed=repeats)
    windows = windows_for(max(estimate, 1e-9), hop_seconds, _REPEATED_WINDOWS)
    rng = np.random.default_rng(_SEED)
    rates = []
    for number in range(repeats):
        try:
            heard = _drawn_anew(sound, rng)
        except ValueError:
            continue  # such as the same score again and again
        drawn, asked = (sound, heard) if judged_by is None else (heard, judges)
        rates.append(_rate_at(drawn, asked, rule, hop_seconds, windows, seed=number))
    if not rates:
        raise ValueError("the normal windows are too much alike: how uncertain their rate is cannot be told")
    low, high = np.quantile(rates, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return IncidentRate(estimate, float(low), float(high))


def _drawn_anew(calibrations: Sequence[Calibration], rng: np.random.Generator) -> list[Calibration]:
    """Calibrations from series of the same length; those on the same sound are drawn together."""
    draws: dict[Hashable, tuple[list[int], list[int]]] = {}
    made = []
    for calibration in calibrations:
        key, size = sound_of(calibration), len(calibration.scores)
        if key not in draws:
            block = max(BLOCK_WINDOWS, size // _OUTER_BLOCKS)
            picks, begins = block_bootstrap(calibration.stretches, size, rng, block)
            draws[key] = picks.tolist(), np.diff(begins, append=size).tolist()
        picked, stretches = draws[key]
        made.append(
            Calibration.from_scores(
                [calibration.scores[i] for i in picked],
                level_dbfs=calibration.level_dbfs,
                source=calibration.source,
                stretches=stretches,
                hop_seconds=calibration.hop_seconds,
                sound=calibration.sound,
            )
        )
    return made


def _rate_at(
    sound: Sequence[Calibration],
    judges: Sequence[Calibration],
    rule: AlarmRule,
    hop_seconds: float,
    windows: int,
    seed: int,
) -> float:
    """Incidents a day at the rule's threshold: counted where there are enough, else extrapolated from lower ones."""
    rarity = simulate_normal_rarity(sound, hop_seconds, windows, seed, judged_by=judges)
    days = rarity.size * hop_seconds / SECONDS_PER_DAY

    def counted(threshold: float) -> float:
        at = replace(rule, threshold=threshold)
        if np.mean(rarity >= at.clear_below) > STAYS_RAISED:
            return 0.0
        return count_incidents(rarity, at, hop_seconds) / days

    least, rate = MIN_INCIDENTS / days, counted(rule.threshold)
    if rate >= least:
        return rate
    curve = rate_curve(counted, least, least, highest=rule.threshold)
    return rate if curve is None else curve.rate_at(rule.threshold)
