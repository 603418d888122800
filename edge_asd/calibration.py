"""From scores to rarity: how seldom normal sound scores this high.

A calibration is the series of scores that one detector gave to normal windows it was not trained on, and a fit of its
tail. Within the series a score's probability is read from the empirical distribution. Above the tail's start an
exponential law is assumed, whose scale is known from ``m`` exceedances only; its predictive distribution (Jeffreys'
prior) is a generalised Pareto law of shape 1/m, so that a short calibration makes no bold promises.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cached_property
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, model_validator

from edge_asd.logmel import Float64Array

MIN_SCORES = 8
"""Fewer normal windows say nothing about a tail."""
MAX_RARITY = 12.0
"""Rarity saturates here: at a window every 10 s, once in 300,000 years."""
_TAIL_SHARE = 0.25
_MAX_TAIL_SHARE_COUNT = 100
"""The tail is the upper quarter of the series, but at most this many scores: more no longer steadies the fit."""
_IDLE_MARGIN_DB = 6.0
"""A machine that runs is at most so much quieter than in its quietest normal windows: half the sound pressure."""


class Tail(BaseModel):
    """P(score > start + y) = probability * (1 + shape * y / scale) ** (-1 / shape)."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    start: FiniteFloat
    probability: Annotated[float, Field(gt=0, lt=1)]
    scale: Annotated[FiniteFloat, Field(gt=0)]
    shape: Annotated[float, Field(gt=0, le=1)]


class Calibration(BaseModel):
    """Scores of normal windows under one detector and machine id, and the tail fitted to them."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    schema_number: Annotated[Literal[1], Field(alias="schema")] = 1
    scores: Annotated[tuple[FiniteFloat, ...], Field(min_length=MIN_SCORES, max_length=1_000_000)]
    """In the order of time within each stretch."""
    stretches: tuple[Annotated[int, Field(ge=1)], ...]
    """Lengths of the contiguous stretches that the series consists of, windows; all 1 for separate clips."""
    hop_seconds: Annotated[float, Field(gt=0)]
    """From window to window within a stretch."""
    tail: Tail
    level_dbfs: FiniteFloat
    """Median input level of these windows."""
    level_low_dbfs: FiniteFloat | None = None
    """Level that 1 in 100 of these windows stays below; None in calibrations that did not note it."""
    made: str
    """UTC, ISO 8601."""
    source: str
    """Where the windows came from, in words."""
    sound: str | None = None
    """Fingerprint of the windows: calibrations that agree in it heard the same ones, in the same order. None where it
    was not noted: then equal ``stretches`` are taken for that."""

    @model_validator(mode="after")
    def _stretches_cover_the_series(self) -> Self:
        if sum(self.stretches) != len(self.scores):
            raise ValueError(f"stretches of {sum(self.stretches)} windows for {len(self.scores)} scores")
        return self

    @classmethod
    def from_scores(
        cls,
        scores: Sequence[float],
        *,
        level_dbfs: float,
        level_low_dbfs: float | None = None,
        source: str,
        stretches: Sequence[int] | None = None,
        hop_seconds: float = 10.0,
        sound: str | None = None,
    ) -> Calibration:
        """Fit the tail of a series of scores.

        Args:
            scores: of normal windows that were not trained on.
            level_dbfs: median input level of those windows.
            level_low_dbfs: the level that 1 in 100 of them stays below.
            source: where they came from, in words.
            stretches: lengths of contiguous stretches; separate windows unless given.
            hop_seconds: from window to window within a stretch.
            sound: fingerprint of the windows.

        Raises:
            ValueError: fewer than `MIN_SCORES` scores, or all the same.
        """
        return cls(
            scores=tuple(float(s) for s in scores),
            stretches=(1,) * len(scores) if stretches is None else tuple(stretches),
            hop_seconds=float(hop_seconds),
            tail=fit_tail(np.asarray(scores, float)),
            level_dbfs=float(level_dbfs),
            level_low_dbfs=None if level_low_dbfs is None else float(level_low_dbfs),
            made=datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
            source=source,
            sound=sound,
        )

    def __eq__(self, other: object) -> bool:
        # Of the fields alone: what is cached beside them is an array, and no yes or no comes of comparing those.
        return isinstance(other, Calibration) and all(getattr(self, n) == getattr(other, n) for n in _FIELDS)

    def __hash__(self) -> int:
        return hash((self.scores, self.stretches, self.hop_seconds, self.sound))

    @cached_property
    def _ordered(self) -> Float64Array:
        return np.sort(np.asarray(self.scores))

    def survival(self, score: float) -> float:
        """Probability that normal sound scores higher than this, in (0, 1)."""
        if score > self.tail.start:
            excess = (score - self.tail.start) / self.tail.scale
            log_p = -np.log1p(self.tail.shape * excess) / self.tail.shape
            return self.tail.probability * float(np.exp(log_p))
        return _empirical_survival(self._ordered, score)

    def rarity(self, score: float) -> float:
        """-log10 of the probability of such a score or a higher one under normal sound, 0 to `MAX_RARITY`."""
        if not np.isfinite(score):
            raise ValueError(f"a score of {score} has no rarity")
        # Adding 0 turns the -0 of a certain score into 0.
        return min(MAX_RARITY, -float(np.log10(max(self.survival(score), 10.0**-MAX_RARITY))) + 0.0)

    def score_at(self, rarity: float) -> float:
        """The score whose rarity this is; the lowest of the series for a rarity that every score has."""
        probability = 10.0**-rarity
        if probability <= self.tail.probability:
            excess = ((probability / self.tail.probability) ** -self.tail.shape - 1.0) / self.tail.shape
            return float(self.tail.start + self.tail.scale * excess)
        return float(np.interp(-probability, -_plotting_positions(self._ordered.size), self._ordered))


_FIELDS = tuple(Calibration.model_fields)


def fit_tail(scores: Float64Array) -> Tail:
    """Fit the upper tail of a series, shape ``[window]``.

    Raises:
        ValueError: fewer than `MIN_SCORES` scores, or a tail without spread.
    """
    if scores.size < MIN_SCORES:
        raise ValueError(f"{scores.size} normal windows are too few to calibrate; {MIN_SCORES} at least")
    ordered = np.sort(scores)
    count = int(np.clip(round(scores.size * _TAIL_SHARE), 3, _MAX_TAIL_SHARE_COUNT))
    start = float(ordered[-count - 1])
    # Scores that tie with the start are no exceedances.
    excess = ordered[ordered > start] - start
    scale = float(excess.mean()) if excess.size else 0.0
    if scale <= 1e-12 * max(1.0, abs(start)):
        raise ValueError("the normal windows all score the same: there is nothing to calibrate on")
    return Tail(start=start, probability=_empirical_survival(ordered, start), scale=scale, shape=1.0 / excess.size)


def combined_rarity(rarities: Sequence[float]) -> float:
    """Rarity of a machine with several detectors: that of the smallest p, times their number (Bonferroni)."""
    return max(0.0, max(rarities) - float(np.log10(len(rarities))))


def _plotting_positions(size: int) -> Float64Array:
    """Survival at the ordered scores, from nearly 1 to nearly 0 (Hazen)."""
    return (size - np.arange(size) - 0.5) / size


def _empirical_survival(ordered: Float64Array, score: float) -> float:
    # Left of the lowest score the survival is 1: rarity 0.
    if score < ordered[0]:
        return 1.0
    return float(np.interp(score, ordered, _plotting_positions(ordered.size)))


def learned_gate(calibration: Calibration) -> float:
    """Level in dBFS below which a machine counts as standing still, from what it is like when it runs."""
    lowest = calibration.level_low_dbfs
    return (calibration.level_dbfs if lowest is None else lowest) - _IDLE_MARGIN_DB
