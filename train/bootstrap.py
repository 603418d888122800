"""How sure an AUC is: resamples of recordings, the same for every scorer, so that differences are paired.

Within each machine id and label, whole recordings are drawn with replacement, one fewer than there are: drawing as many
as there are makes intervals too narrow, by half in variance where there are two (Rao and Wu, "Resampling inference with
complex survey data", J. Am. Stat. Assoc. 83, 1988, with m = n - 1). Intervals are percentiles of the resampled values;
a pAUC of few clips is biased in resamples, so that its interval can lie off its value. Where every resample gives the
same (a score without a mistake, one recording of each label) the interval has no width, which says that the clips are
too few or too easy, not that the score is certain.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edge_asd.roc import MAX_FPR

Floats = NDArray[np.float64]
RESAMPLES = 4000
"""Percentiles of 2.5 % then rest on 100 values."""
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Estimate:
    """A value and its interval of `CONFIDENCE`."""

    value: float
    low: float
    high: float

    def as_dict(self) -> dict[str, float | list[float]]:
        """``value`` and ``interval`` [low, high]."""
        return {"value": self.value, "interval": [self.low, self.high]}


@dataclass(frozen=True)
class _Stratum:
    """The clips of one machine id."""

    normal: NDArray[np.intp]
    anomalous: NDArray[np.intp]
    normal_weight: Floats
    """How often each clip stands in each resample, shape ``[1 + resample, clip]``; the first row is all ones."""
    anomalous_weight: Floats


class Bootstrap:
    """Resamples of one set of clips; any number of scorers can be asked for, and their results subtracted."""

    def __init__(
        self,
        ids: Sequence[str],
        anomalous: ArrayLike,
        recordings: Sequence[str],
        *,
        resamples: int = RESAMPLES,
        seed: int = 0,
    ) -> None:
        """
        Args:
            ids: machine id of each clip.
            anomalous: label of each clip, shape ``[clip]``.
            recordings: of each clip; those of one recording stay together.
            resamples: how many.
            seed: same clips, resamples and seed: same result.

        Raises:
            ValueError: no machine id has both normal and anomalous clips.
        """
        id_of, label, recording = np.asarray(ids), np.asarray(anomalous, bool), np.asarray(recordings)
        rng = np.random.default_rng(seed)
        self.clips = len(id_of)
        self._strata: dict[str, _Stratum] = {}
        for machine_id in sorted(set(ids)):
            parts = [np.flatnonzero((id_of == machine_id) & (label == wanted)) for wanted in (False, True)]
            if not parts[0].size or not parts[1].size:
                continue
            weights = [_weights(recording[part], resamples, rng) for part in parts]
            self._strata[machine_id] = _Stratum(parts[0], parts[1], weights[0], weights[1])
        if not self._strata:
            raise ValueError("no machine id has both normal and anomalous clips")

    @property
    def ids(self) -> list[str]:
        """The machine ids that have both labels."""
        return list(self._strata)

    def areas(self, scores: ArrayLike) -> Floats:
        """AUC and pAUC of a scorer, as they are and in every resample.

        Args:
            scores: of every clip, shape ``[clip]``; higher is more anomalous.

        Returns:
            Shape ``[machine id, 2, 1 + resample]``: AUC, then pAUC up to ``MAX_FPR`` after McClish; the first column is
            the value itself. Differences and means of such arrays are those of the paired resamples.

        Raises:
            ValueError: another number of scores than of clips, or NaN.
        """
        given = np.asarray(scores, float)
        if given.shape != (self.clips,):
            raise ValueError(f"scores of shape {given.shape} for {self.clips} clips")
        if np.isnan(given).any():
            raise ValueError("a score is NaN")
        return np.stack(
            [
                weighted_areas(given[s.normal], given[s.anomalous], s.normal_weight, s.anomalous_weight)
                for s in self._strata.values()
            ]
        )

    def recall(self, shares: ArrayLike) -> Floats:
        """Share of what is anomalous that was noticed, mean over machine ids, as it is and in every resample.

        Args:
            shares: of the windows of every clip that were noticed, shape ``[clip]``.

        Returns:
            Shape ``[1 + resample]``.
        """
        given = np.asarray(shares, float)
        of_ids = [
            s.anomalous_weight @ given[s.anomalous] / s.anomalous_weight.sum(axis=1) for s in self._strata.values()
        ]
        mean: Floats = np.mean(of_ids, axis=0)
        return mean


def estimate(values: Floats) -> Estimate:
    """Value and percentile interval of an array ``[1 + resample]`` whose first entry is the value."""
    tail = 50 * (1 - CONFIDENCE)
    low, high = np.percentile(values[1:], [tail, 100 - tail])
    return Estimate(float(values[0]), float(low), float(high))


def estimated_areas(areas: Floats) -> dict[str, dict[str, float | list[float]]]:
    """``auc`` and ``pauc``, each ``value`` and ``interval``, of areas ``[2, 1 + resample]``."""
    return {"auc": estimate(areas[0]).as_dict(), "pauc": estimate(areas[1]).as_dict()}


def weighted_areas(normal: Floats, anomalous: Floats, normal_weight: Floats, anomalous_weight: Floats) -> Floats:
    """AUC and pAUC where each clip counts as often as its weight says; ties count half.

    Args:
        normal: scores, shape ``[n]``.
        anomalous: scores, shape ``[a]``.
        normal_weight: shape ``[resample, n]``, each row with a sum above 0.
        anomalous_weight: shape ``[resample, a]``, likewise.

    Returns:
        Shape ``[2, resample]``.
    """
    # Corners of the ROC curve lie between distinct scores, from the highest down.
    thresholds, place = np.unique(np.concatenate([normal, anomalous]), return_inverse=True)
    place = thresholds.size - 1 - place
    false = _rates(place[: normal.size], normal_weight, thresholds.size)
    true = _rates(place[normal.size :], anomalous_weight, thresholds.size)
    whole = _area(false, true, 1.0)
    chance = MAX_FPR**2 / 2
    partial = 0.5 * (1.0 + (_area(false, true, MAX_FPR) - chance) / (MAX_FPR - chance))
    return np.stack([whole, partial])


def _rates(place: NDArray[np.intp], weight: Floats, thresholds: int) -> Floats:
    """Share of the weight at or above each threshold, from the highest down, after a first column of 0."""
    columns = np.zeros((place.size, thresholds))
    columns[np.arange(place.size), place] = 1.0
    rates = np.cumsum(weight @ columns, axis=1) / weight.sum(axis=1, keepdims=True)
    return np.pad(rates, ((0, 0), (1, 0)))


def _area(false: Floats, true: Floats, limit: float) -> Floats:
    """Area under each row's polygon up to a false-positive rate, shape ``[resample]``."""
    width = np.diff(false, axis=1)
    taken = np.clip(limit - false[:, :-1], 0.0, width)
    share = np.divide(taken, width, out=np.zeros_like(width), where=width > 0)
    rise = np.diff(true, axis=1)
    area: Floats = (taken * (true[:, :-1] + rise * share / 2)).sum(axis=1)
    return area


def _weights(recordings: NDArray[np.str_], resamples: int, rng: np.random.Generator) -> Floats:
    """Shape ``[1 + resample, clip]``."""
    names, index = np.unique(recordings, return_inverse=True)
    drawn = rng.multinomial(max(1, names.size - 1), np.full(names.size, 1 / names.size), size=resamples)
    return np.concatenate([np.ones((1, recordings.size)), drawn[:, index].astype(float)])
