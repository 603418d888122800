"""Area under the ROC curve, whole and partial, as the DCASE task counts it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

MAX_FPR = 0.1
"""DCASE 2020 Task 2 takes the partial area up to this false-positive rate."""


@dataclass(frozen=True)
class RocSummary:
    """How well scores tell anomalous from normal clips of one machine id."""

    auc: float
    """0 to 1; 0.5 is chance."""
    pauc: float
    """Partial area up to ``MAX_FPR``, standardised after McClish (1989): 0.5 is chance, 1 is perfect."""
    normal: int
    """Normal clips."""
    anomalous: int
    """Anomalous clips."""


def roc_curve(normal: ArrayLike, anomalous: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """False- and true-positive rates at every threshold, from (0, 0) to (1, 1), shapes ``[threshold]``."""
    normal, anomalous = np.sort(np.asarray(normal, float)), np.sort(np.asarray(anomalous, float))
    thresholds = np.unique(np.concatenate([normal, anomalous]))[::-1]
    false_positive = 1.0 - np.searchsorted(normal, thresholds, side="left") / normal.size
    true_positive = 1.0 - np.searchsorted(anomalous, thresholds, side="left") / anomalous.size
    return np.concatenate([[0.0], false_positive]), np.concatenate([[0.0], true_positive])


def auc(normal: ArrayLike, anomalous: ArrayLike, max_fpr: float | None = None) -> float:
    """Area under the ROC curve of scores where higher is more anomalous; ties count half.

    Args:
        normal: scores of normal clips, at least one.
        anomalous: scores of anomalous clips, at least one.
        max_fpr: take only the part up to this false-positive rate, standardised so that chance is 0.5 (McClish 1989,
            as scikit-learn's ``roc_auc_score(max_fpr=)``).

    Raises:
        ValueError: one of the two is empty or holds NaN.
    """
    normal, anomalous = np.asarray(normal, float), np.asarray(anomalous, float)
    if not normal.size or not anomalous.size:
        raise ValueError("an AUC needs normal and anomalous scores")
    if np.isnan(normal).any() or np.isnan(anomalous).any():
        raise ValueError("a score is NaN")
    false_positive, true_positive = roc_curve(normal, anomalous)
    if max_fpr is None:
        return float(np.trapezoid(true_positive, false_positive))
    stop = int(np.searchsorted(false_positive, max_fpr, side="right"))
    at_limit = np.interp(max_fpr, false_positive[stop - 1 : stop + 1], true_positive[stop - 1 : stop + 1])
    area = np.trapezoid(np.append(true_positive[:stop], at_limit), np.append(false_positive[:stop], max_fpr))
    chance = max_fpr**2 / 2
    return float(0.5 * (1.0 + (area - chance) / (max_fpr - chance)))


def summarise(scores: Sequence[tuple[str, bool, float]]) -> dict[str, RocSummary]:
    """AUC and pAUC of every machine id that has both labels.

    Args:
        scores: (machine id, is anomalous, score) of every clip.

    Returns:
        By machine id, in order of their names.
    """
    summaries = {}
    for machine_id in sorted({machine_id for machine_id, _, _ in scores}):
        normal = [s for i, anomalous, s in scores if i == machine_id and not anomalous]
        anomalous = [s for i, is_anomalous, s in scores if i == machine_id and is_anomalous]
        if normal and anomalous:
            summaries[machine_id] = RocSummary(
                auc(normal, anomalous), auc(normal, anomalous, MAX_FPR), len(normal), len(anomalous)
            )
    return summaries


def mean_over_ids(summaries: dict[str, RocSummary]) -> tuple[float, float] | None:
    """Arithmetic means of AUC and pAUC over machine ids, None where there are none."""
    if not summaries:
        return None
    values = summaries.values()
    return sum(s.auc for s in values) / len(values), sum(s.pauc for s in values) / len(values)
