"""Judges detectors on labelled clips, beside scorers so plain that a detector must beat them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from edge_asd.detector import Detector
from edge_asd.logmel import LogMelParameters
from edge_asd.roc import RocSummary, mean_over_ids, summarise

from .corpus import Clip, CorpusError, Windows, load_windows, read_clips

ENERGY, MEAN_DISTANCE = "energy", "distance to the mean log-Mel"


def evaluate(detectors: Sequence[Detector], data: Path, machine: str | None) -> dict[str, Any]:
    """AUC and pAUC of detectors and trivial scorers on ``DATA/MACHINE/test``.

    Args:
        detectors: of one machine type.
        data: folder in the DCASE layout.
        machine: folder within it; the detectors' machine type unless given.

    Returns:
        ``machine``, ``clips``, and ``scorers``: name to ``per_id`` and ``mean``.

    Raises:
        CorpusError: no labelled clips, or of ids that a detector does not know.
    """
    kinds = {d.metadata.machine_type for d in detectors}
    if machine is None and len(kinds) > 1:
        raise CorpusError(f"the detectors are for {', '.join(sorted(kinds))}; say with --machine what to evaluate on")
    machine = machine or kinds.pop()
    clips = read_clips(data, machine, "test")
    for detector in detectors:
        known = set(detector.metadata.ids)
        strange = sorted({c.machine_id for c in clips} - known) if len(known) > 1 else []
        if strange:
            raise CorpusError(
                f"{detector.path}: does not know {', '.join(strange)}; it knows {', '.join(sorted(known))}"
            )
    windows = load_windows(clips, LogMelParameters(), title=f"log-Mel of {machine} test")
    scorers: dict[str, NDArray[np.float64]] = {}
    for detector in detectors:
        name = f"{detector.metadata.kind} ({detector.path.name})"
        scores, reports = _detector_scores(detector, clips, windows)
        scorers[name] = scores
        if reports is not None and not np.array_equal(scores, reports):
            scorers[f"{name}, report_score"] = reports
    scorers[ENERGY] = windows.level_dbfs
    if (data / machine / "train").is_dir():
        scorers[MEAN_DISTANCE] = _distance_to_mean(read_clips(data, machine, "train"), clips, windows)
    return {
        "machine": machine,
        "clips": len(set(windows.clip.tolist())),
        "scorers": {name: _summary(clips, windows, values) for name, values in scorers.items()},
    }


def print_table(result: dict[str, Any]) -> None:
    """The result as lines of text: AUC / pAUC by id and their mean, best first."""
    scorers = result["scorers"]
    ids = list(next(iter(scorers.values()))["per_id"])
    print(f"{result['machine']}: {result['clips']} test clips; AUC / pAUC (max_fpr 0.1)")
    width = max(len(name) for name in scorers)
    print(f"{'scorer':<{width}}  {'mean':<13}" + "".join(f"  {i:<13}" for i in ids))
    for name, found in sorted(scorers.items(), key=lambda item: -item[1]["mean"]["auc"]):
        cells = [found["mean"], *(found["per_id"][i] for i in ids)]
        print(f"{name:<{width}}" + "".join(f"  {c['auc']:.3f} / {c['pauc']:.3f}" for c in cells))


def _detector_scores(
    detector: Detector, clips: Sequence[Clip], windows: Windows
) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
    scores, reports = [], []
    several = len(detector.metadata.ids) > 1
    for log_mel, clip in zip(
        tqdm(windows.log_mel, desc=detector.path.name, unit="window", leave=False), windows.clip, strict=True
    ):
        index = detector.index_of(clips[clip].machine_id if several else None)
        found = detector.score(log_mel, index)
        scores.append(found.score)
        if found.report_score is not None:
            reports.append(found.report_score)
    return np.array(scores), np.array(reports) if len(reports) == len(scores) else None


def _distance_to_mean(train: Sequence[Clip], clips: Sequence[Clip], windows: Windows) -> NDArray[np.float64]:
    """Mean squared distance of each test window from the mean training log-Mel of its id, in dB squared."""
    normal = load_windows(train, LogMelParameters(), title="log-Mel of training clips")
    owners = np.array([train[i].machine_id for i in normal.clip])
    means = {i: normal.log_mel[owners == i].mean(axis=0) for i in np.unique(owners)}
    overall = normal.log_mel.mean(axis=0)
    return np.array(
        [
            float(((log_mel - means.get(clips[clip].machine_id, overall)) ** 2).mean())
            for log_mel, clip in zip(windows.log_mel, windows.clip, strict=True)
        ]
    )


def _summary(clips: Sequence[Clip], windows: Windows, values: NDArray[np.float64]) -> dict[str, Any]:
    """A clip's score is the mean over its windows."""
    labelled = []
    for index in sorted(set(windows.clip.tolist())):
        clip = clips[index]
        labelled.append((clip.machine_id, clip.is_anomaly, float(values[windows.clip == index].mean())))
    summaries = summarise(labelled)
    mean = mean_over_ids(summaries)
    if mean is None:
        raise CorpusError("no machine id has both normal and anomalous test clips: there is nothing to judge")
    return {
        "per_id": {machine_id: _as_dict(s) for machine_id, s in summaries.items()},
        "mean": {"auc": mean[0], "pauc": mean[1]},
    }


def _as_dict(summary: RocSummary) -> dict[str, float]:
    return {"auc": summary.auc, "pauc": summary.pauc, "normal": summary.normal, "anomalous": summary.anomalous}
