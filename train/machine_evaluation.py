"""The detectors of one machine on its labelled clips: areas with their resamples, false alarms, level in disguise."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from edge_asd.detector import Detector
from edge_asd.logmel import LogMelParameters

from .bootstrap import RESAMPLES, Bootstrap
from .corpus import Clip, CorpusError, Windows, load_windows, read_clips
from .false_alarms import TARGET, Count, count_beyond, silent_about_clips, without_trained
from .rank_correlation import rank_correlation
from .scorers import (
    AS_IT_IS,
    COMBINATION,
    ENERGY,
    MEAN_DISTANCE,
    Floats,
    Member,
    MemberScores,
    distance_to_mean,
    members_of,
    score_windows,
    smallest_p,
)

FEW_RECORDINGS = 12
"""Of a label, over all ids; with fewer, intervals of 95 % hold less often (simulated at an AUC of 0.7 to 0.8: 95 % with
12 on four ids, 91 % with 8 on one id, 85 % with 8 on four, 70 % with 3)."""


@dataclass(frozen=True)
class Choices:
    """What an evaluation is asked for."""

    normal: Path | None = None
    """Further normal sound to count false alarms on, in the DCASE layout: ``NORMAL/MACHINE/train``."""
    recording_digits: int = 1
    """Clips whose numbers agree but for so many last digits are of one recording."""
    target: float = TARGET
    """Share of normal windows that a threshold is for."""
    resamples: int = RESAMPLES
    combine: Callable[[Floats], Floats] = smallest_p
    """Rarities ``[detector, window]`` to those of the machine, ``[window]``; the daemon's rule unless given."""


@dataclass(frozen=True)
class MachineEvaluation:
    """What was found on one machine; dictionaries are by name of scorer unless they say otherwise."""

    machine: str
    members: list[Member]
    clips: dict[str, dict[str, int]]
    """By machine id: numbers of clips and of recordings."""
    per_id: dict[str, dict[str, tuple[float, float]]]
    """AUC and pAUC, by machine id."""
    areas: dict[str, Floats]
    """AUC and pAUC, means over ids, as they are and in each resample: ``[2, 1 + resample]``."""
    level_correlation: dict[str, float | None]
    """Rank correlation with the level over normal clips, within ids."""
    test_alarms: dict[str, Count]
    """Normal test windows beyond the target's rarity, of detectors and their combination."""
    other_alarms: dict[str, Count]
    """The same on further normal sound; empty where there is none."""
    notes: list[str] = field(default_factory=list)
    """What the reader must know, in words."""


def variant_name(member: str, label: str) -> str:
    """Name of a scorer: the member's, and what was changed."""
    return f"{member}, {label}" if label else member


def evaluate_machine(detectors: Sequence[Detector], data: Path, machine: str, choices: Choices) -> MachineEvaluation:
    """Judge detectors on ``DATA/MACHINE/test``.

    Args:
        detectors: of this machine, in the order in which they are to be named.
        data: folder in the DCASE layout; its train folder, where there is one, makes the trivial scorers' mean.
        machine: folder within it.
        choices: see there.

    Raises:
        CorpusError: no labelled clips, or of ids that a detector does not know.
        DetectorError: a detector cannot score.
        ValueError: a target that is no share, or a number of digits that cannot be.
    """
    members = members_of(detectors)
    notes: list[str] = []
    clips = _known_clips(members, read_clips(data, machine, "test", recording_digits=choices.recording_digits), notes)
    clips = _not_trained(clips, detectors, f"test clips of {data}", notes)
    windows = load_windows(clips, _one_log_mel(detectors), title=f"log-Mel of {machine} test")
    owners = [clips[i].machine_id for i in windows.clip]
    found = score_windows(members, windows, owners, title=f"{machine} test")

    # In windows first, then a clip's score is the mean over its windows.
    scores = {variant_name(m, label): s for m in found for label, s in found[m].scores.items()}
    if len(members) > 1:
        scores[COMBINATION] = _combined(found, choices)
    scores[ENERGY] = windows.level_dbfs
    if (data / machine / "train").is_dir():
        scores[MEAN_DISTANCE] = _mean_distance(read_clips(data, machine, "train"), windows, owners, machine)
    heard = np.unique(windows.clip)
    per_clip = {name: np.array([s[windows.clip == i].mean() for i in heard]) for name, s in scores.items()}
    labelled = [clips[i] for i in heard]
    try:
        bootstrap = Bootstrap(
            [c.machine_id for c in labelled],
            [c.is_anomaly for c in labelled],
            [c.recording for c in labelled],
            resamples=choices.resamples,
            # Of the machine alone: the same resamples whatever else is evaluated beside it.
            seed=zlib.crc32(machine.encode()),
        )
    except ValueError:
        raise CorpusError(
            f"{data / machine / 'test'}: no machine id has both normal and anomalous test clips that were not"
            " trained on: there is nothing to judge"
        ) from None
    counts = _counts(labelled)
    _note_few_recordings({i: counts[i] for i in bootstrap.ids}, notes)
    by_id = {name: bootstrap.areas(s) for name, s in per_clip.items()}
    normal = np.array([not c.is_anomaly for c in labelled])
    ids = np.array([c.machine_id for c in labelled])
    return MachineEvaluation(
        machine=machine,
        members=members,
        clips=counts,
        per_id={
            name: {i: (float(a[0, 0]), float(a[1, 0])) for i, a in zip(bootstrap.ids, areas, strict=True)}
            for name, areas in by_id.items()
        },
        areas={name: areas.mean(axis=0) for name, areas in by_id.items()},
        level_correlation={
            name: rank_correlation(s[normal], per_clip[ENERGY][normal], ids[normal]) for name, s in per_clip.items()
        },
        test_alarms=_alarms(found, np.array([not clips[i].is_anomaly for i in windows.clip]), choices),
        other_alarms=_other_alarms(members, machine, choices, notes),
        notes=notes,
    )


def _known_clips(members: Sequence[Member], clips: Sequence[Clip], notes: list[str]) -> list[Clip]:
    """Clips of the ids that all members know. A file of one id that is not among the clips serves all of them."""
    there = {c.machine_id for c in clips}
    known = {m.name: there & set(m.ids) or (there if len(m.ids) == 1 else set()) for m in members}
    strange = sorted(there - set().union(*known.values()))
    for member in members:
        if strange and len(member.ids) > 1:
            known_here = ", ".join(sorted(member.ids))
            raise CorpusError(f"{member.detectors[0].path}: does not know {', '.join(strange)}; it knows {known_here}")
    shared = set.intersection(*known.values())
    if not shared:
        raise CorpusError(
            "the detectors know no machine id in common: "
            + "; ".join(f"{m.name} knows {', '.join(m.ids)}" for m in members)
        )
    if shared != there:
        ids = (", ".join(sorted(i)) for i in (shared, there))
        notes.append("{}: only {}, which all detectors know, of {}".format(clips[0].path.parent, *ids))
    return [c for c in clips if c.machine_id in shared]


def _not_trained(clips: list[Clip], detectors: Sequence[Detector], what: str, notes: list[str]) -> list[Clip]:
    left = without_trained(clips, detectors)
    if not left:
        raise CorpusError(f"{what}: the detectors were trained on every one of them")
    if len(left) < len(clips):
        notes.append(f"{len(clips) - len(left)} of {len(clips)} {what} were trained on and are left out")
    return left


def _one_log_mel(detectors: Sequence[Detector]) -> LogMelParameters:
    parameters = detectors[0].log_mel_parameters
    for other in detectors[1:]:
        if other.log_mel_parameters != parameters:
            raise CorpusError(f"{other.path}: wants another log-Mel than {detectors[0].path}; evaluate them apart")
    return parameters


def _combined(found: dict[str, MemberScores], choices: Choices) -> Floats:
    return choices.combine(np.stack([f.rarity for f in found.values()]))


def _mean_distance(train: Sequence[Clip], windows: Windows, owners: Sequence[str], machine: str) -> Floats:
    train = [c for c in train if c.machine_id in set(owners)] or list(train)
    normal = load_windows(train, LogMelParameters(), title=f"log-Mel of {machine} train")
    return distance_to_mean(normal, [train[i].machine_id for i in normal.clip], windows, owners)


def _counts(clips: Sequence[Clip]) -> dict[str, dict[str, int]]:
    counts = {}
    for machine_id in sorted({c.machine_id for c in clips}):
        normal, anomalous = (
            [c for c in clips if c.machine_id == machine_id and c.is_anomaly == a] for a in (False, True)
        )
        counts[machine_id] = {
            "normal": len(normal),
            "anomalous": len(anomalous),
            "normal_recordings": len({c.recording for c in normal}),
            "anomalous_recordings": len({c.recording for c in anomalous}),
        }
    return counts


def _note_few_recordings(counts: dict[str, dict[str, int]], notes: list[str]) -> None:
    fewest = min(sum(c[f"{label}_recordings"] for c in counts.values()) for label in ("normal", "anomalous"))
    if fewest < FEW_RECORDINGS:
        notes.append(
            f"{fewest} recording{'s' if fewest > 1 else ''} of a label: the intervals of this machine are too narrow,"
            " and a difference that excludes 0 shows little"
        )


def _alarms(found: dict[str, MemberScores], normal: np.ndarray, choices: Choices) -> dict[str, Count]:
    rarities = {name: f.rarity for name, f in found.items()}
    if len(found) > 1:
        rarities[COMBINATION] = _combined(found, choices)
    return {name: count_beyond(r[normal], choices.target) for name, r in rarities.items()}


def _other_alarms(members: list[Member], machine: str, choices: Choices, notes: list[str]) -> dict[str, Count]:
    if choices.normal is None:
        return {}
    detectors = [d for m in members for d in m.detectors]
    clips = _known_clips(members, read_clips(choices.normal, machine, "train"), notes)
    clips = _not_trained(clips, detectors, f"normal clips of {choices.normal}", notes)
    silent = silent_about_clips(detectors)
    if silent:
        notes.append(
            f"{', '.join(silent)}: no list of the clips it was trained on; make sure that {choices.normal} holds none"
        )
    windows = load_windows(clips, _one_log_mel(detectors), title=f"log-Mel of {machine} in {choices.normal}")
    owners = [clips[i].machine_id for i in windows.clip]
    title = f"{machine} in {choices.normal}"
    found = score_windows(members, windows, owners, title=title, variants=lambda _: [AS_IT_IS])
    return _alarms(found, np.ones(len(windows), bool), choices)
