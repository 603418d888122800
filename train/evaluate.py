"""Judges detectors on labelled clips: beside trivial scorers, beside themselves without a part, beside each other.

The document that `evaluate` gives, and `edge-asd-train evaluate --json` prints:

``schema``
    1.
``settings``
    ``max_fpr`` of the pAUC, ``target`` share of windows and its ``rarity``, ``resamples``, ``confidence``,
    ``disturbance`` of the test clips (``snr_db``, ``gain_db``, ``noise``, ``seed``) or None.
``machines``
    By folder name: ``detectors`` (by name: ``kind``, and of each file ``files``, ``sha256``, ``ids``), ``clips`` (by
    machine id: ``normal``, ``anomalous``, ``normal_recordings``, ``anomalous_recordings``), ``scorers``,
    ``differences``, ``false_alarms``, ``recall``, ``notes``, and ``recordings``: of each test clip ``file``,
    ``machine_id``, ``label``, ``scores`` (by scorer) and ``rarity`` (by detector).
``all``
    ``machines`` (names), ``scorers``, ``differences``, ``false_alarms``, ``recall``: means over machines and sums of
    counts, of the scorers that every machine has; None where there is one machine.

``scorers``: by name, ``auc`` and ``pauc`` (means over machine ids: ``value``, ``interval``), ``level_correlation``
(Spearman's, over normal clips within ids; None where it has no meaning), and for one machine ``per_id`` (``auc``,
``pauc``) and ``without_id_06`` (``auc``, ``pauc``, as above, over the ids 00, 02 and 04 that some reports stop at; None
where the ids are others). ``differences``: list of ``scorer``, ``reference``, ``auc``, ``pauc`` (scorer less reference:
``value``, and the ``interval`` of the paired resamples). ``false_alarms``: by detector, ``test`` and ``other`` (None
without further normal sound), each ``beyond``, ``windows``, ``share`` and its exact ``interval``. ``recall``: by
detector, the share of anomalous windows beyond the same rarity, mean over ids: ``value``, ``interval``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edge_asd.detector import Detector
from edge_asd.roc import MAX_FPR

from .bootstrap import CONFIDENCE, estimate, estimated_areas
from .corpus import CorpusError
from .dcase2020 import without_id_06
from .disturb import Disturbance
from .false_alarms import Count
from .machine_evaluation import Choices, MachineEvaluation, evaluate_machine
from .scorers import COMBINATION, ENERGY, MEAN_DISTANCE, Floats

SCHEMA = 1


def evaluate(
    detectors: Sequence[Detector],
    data: Path,
    machines: Sequence[str] | None = None,
    choices: Choices | None = None,
) -> dict[str, Any]:
    """AUC, pAUC, paired differences and false alarms on ``DATA/MACHINE/test``.

    Args:
        detectors: of one or several machine types.
        data: folder in the DCASE layout.
        machines: folders within it. Where the detectors are of several machine types, those to take; where they are of
            one, folders to judge all of them on. The detectors' machine types unless given.
        choices: the rest.

    Returns:
        The document described above.

    Raises:
        CorpusError: no labelled clips, of ids that a detector does not know, or no detector for a machine.
        DetectorError: a detector cannot score.
        ValueError: choices that cannot be.
    """
    choices = choices or Choices()
    return as_document(evaluate_machines(detectors, data, machines, choices), choices)


def evaluate_machines(
    detectors: Sequence[Detector], data: Path, machines: Sequence[str] | None, choices: Choices
) -> list[MachineEvaluation]:
    """What `evaluate` makes its document of; the same arguments and errors."""
    return [evaluate_machine(own, data, name, choices) for name, own in _by_machine(detectors, machines).items()]


def as_document(found: Sequence[MachineEvaluation], choices: Choices) -> dict[str, Any]:
    """The document described above."""
    return {
        "schema": SCHEMA,
        "settings": {
            "max_fpr": MAX_FPR,
            "target": choices.target,
            "rarity": -math.log10(choices.target),
            "resamples": choices.resamples,
            "confidence": CONFIDENCE,
            "disturbance": None if choices.disturbance is None else _disturbance_document(choices.disturbance),
        },
        "machines": {e.machine: _machine_document(e) for e in found},
        "all": _all_document(found) if len(found) > 1 else None,
    }


def comparisons(members: Sequence[tuple[str, str]], areas: dict[str, Floats]) -> list[tuple[str, str]]:
    """Which scorers are to be compared with which.

    Args:
        members: name and kind of each detector, in the order given.
        areas: of every scorer there is, ``[2, 1 + resample]``.

    Returns:
        (scorer, reference): a detector and what remains of it without a part; trivial scorers; the first of kind
        ``statistics`` and the first of its own kind; and the combination and the best of its members.
    """
    pairs = []
    statistics = next((name for name, kind in members if kind == "statistics"), None)
    for name, kind in members:
        references = [other for other in areas if other.startswith(f"{name}, ")]
        first = next(other for other, its in members if its == kind)
        references += [r for r in (first, statistics) if r is not None and r != name]
        references += [r for r in (ENERGY, MEAN_DISTANCE) if r in areas]
        pairs += [(name, r) for r in dict.fromkeys(references)]
    if COMBINATION in areas:
        best = max((name for name, _ in members), key=lambda name: float(areas[name][0, 0]))
        pairs.append((COMBINATION, best))
    return pairs


def _by_machine(detectors: Sequence[Detector], machines: Sequence[str] | None) -> dict[str, list[Detector]]:
    by_type: dict[str, list[Detector]] = {}
    for detector in detectors:
        by_type.setdefault(detector.metadata.machine_type, []).append(detector)
    if not machines:
        return by_type
    names = list(dict.fromkeys(machines))
    if len(by_type) == 1:
        return dict.fromkeys(names, next(iter(by_type.values())))
    for name in names:
        if name not in by_type:
            raise CorpusError(f"no detector is for {name}; they are for {', '.join(by_type)}")
    return {name: by_type[name] for name in names}


def _machine_document(found: MachineEvaluation) -> dict[str, Any]:
    scorers = _scorers(found.areas, found.level_correlation)
    reported = without_id_06(found.areas_of_id)
    without_06 = None if reported is None else found.mean_areas(reported)
    for name, per_id in found.per_id.items():
        scorers[name]["per_id"] = {i: {"auc": whole, "pauc": partial} for i, (whole, partial) in per_id.items()}
        scorers[name]["without_id_06"] = None if without_06 is None else estimated_areas(without_06[name])
    return {
        "detectors": {
            m.name: {
                "kind": m.kind,
                "files": [d.path.name for d in m.detectors],
                "sha256": [d.sha256 for d in m.detectors],
                "ids": [list(d.metadata.ids) for d in m.detectors],
            }
            for m in found.members
        },
        "clips": found.counts,
        "scorers": scorers,
        "differences": _differences([(m.name, m.kind) for m in found.members], found.areas),
        "false_alarms": _false_alarms(found.test_alarms, found.other_alarms),
        "recall": {name: estimate(r).as_dict() for name, r in found.recall.items()},
        "notes": found.notes,
        "recordings": [
            {
                "file": clip.path.name,
                "machine_id": clip.machine_id,
                "label": "anomaly" if clip.is_anomaly else "normal",
                "scores": {name: float(s[number]) for name, s in found.scores.items()},
                "rarity": {name: float(r[number]) for name, r in found.rarity.items()},
            }
            for number, clip in enumerate(found.clips)
        ],
    }


def _disturbance_document(disturbance: Disturbance) -> dict[str, Any]:
    return {**vars(disturbance), "noise": None if disturbance.snr_db is None else str(disturbance.noise)}


def _all_document(found: Sequence[MachineEvaluation]) -> dict[str, Any]:
    first = found[0]
    areas = _means([e.areas for e in found])
    levels = {name: [e.level_correlation[name] for e in found] for name in areas}
    known = {name: [v for v in values if v is not None] for name, values in levels.items()}
    return {
        "machines": [e.machine for e in found],
        "scorers": _scorers(areas, {name: float(np.mean(v)) if v else None for name, v in known.items()}),
        "differences": _differences([(m.name, m.kind) for m in first.members if m.name in areas], areas),
        "false_alarms": _false_alarms(_sums([e.test_alarms for e in found]), _sums([e.other_alarms for e in found])),
        "recall": {name: estimate(r).as_dict() for name, r in _means([e.recall for e in found]).items()},
    }


def _means(machines: Sequence[dict[str, Floats]]) -> dict[str, Floats]:
    shared = [name for name in machines[0] if all(name in m for m in machines)]
    return {name: np.mean([m[name] for m in machines], axis=0) for name in shared}


def _scorers(areas: dict[str, Floats], level: dict[str, float | None]) -> dict[str, dict[str, Any]]:
    return {name: {**estimated_areas(a), "level_correlation": level[name]} for name, a in areas.items()}


def _differences(members: Sequence[tuple[str, str]], areas: dict[str, Floats]) -> list[dict[str, Any]]:
    return [
        {"scorer": scorer, "reference": reference, **estimated_areas(areas[scorer] - areas[reference])}
        for scorer, reference in comparisons(members, areas)
    ]


def _false_alarms(test: dict[str, Count], other: dict[str, Count]) -> dict[str, Any]:
    return {
        name: {"test": count.as_dict(), "other": other[name].as_dict() if name in other else None}
        for name, count in test.items()
    }


def _sums(counts: Sequence[dict[str, Count]]) -> dict[str, Count]:
    shared = [name for name in counts[0] if all(name in c for c in counts)]
    return {name: sum((c[name] for c in counts), Count(0, 0)) for name in shared}
