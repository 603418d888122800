"""The detectors of one machine on its labelled clips: areas with their resamples, false alarms, level in disguise."""

from __future__ import annotations

import tempfile
import zlib
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from edge_asd.detector import Detector
from edge_asd.errors import EdgeAsdError
from edge_asd.logmel import LogMelParameters

from .bootstrap import RESAMPLES, Bootstrap
from .cache_folder import cache_in
from .corpus import Clip, CorpusError, Windows, load_windows, read_clips
from .disturb import Disturbance, disturbed
from .false_alarms import TARGET, Count, count_beyond, is_beyond, silent_about_clips
from .judged_clips import counts_of, known_clips, not_trained, note_few_recordings, one_log_mel
from .rank_correlation import rank_correlation
from .refit import Refits, can_refit
from .scorers import (
    ALONE,
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
    disturbance: Disturbance | None = None
    """Of the test clips."""
    refits: Path | None = None
    """Folder of what is fitted to be set beside the detectors: ``statistics``, where none is given; None fits none."""
    work: Path | None = None
    """Folder for disturbed clips, for the caller to delete; None: they are deleted when they have been scored."""
    each_id_alone: bool = False
    """Set beside each detector of several ids the same kind fitted to each id alone."""


@dataclass(frozen=True)
class MachineEvaluation:
    """What was found on one machine; dictionaries are by name of scorer unless they say otherwise."""

    machine: str
    members: list[Member]
    """Those that were given, and ``statistics`` where it was fitted beside them."""
    clips: list[Clip]
    """That were scored."""
    scores: dict[str, Floats]
    """Of each clip, the mean over its windows, ``[clip]``."""
    counts: dict[str, dict[str, int]]
    """By machine id: numbers of clips and of recordings."""
    per_id: dict[str, dict[str, tuple[float, float]]]
    """AUC and pAUC, by machine id."""
    areas_of_id: dict[str, dict[str, Floats]]
    """By machine id: AUC and pAUC, as they are and in each resample: ``[2, 1 + resample]``."""
    level_correlation: dict[str, float | None]
    """Rank correlation with the level over normal clips, within ids."""
    rarity: dict[str, Floats]
    """Of each clip, the mean over its windows, ``[clip]``; of detectors and their combination."""
    recall: dict[str, Floats]
    """Share of anomalous windows beyond the target's rarity, mean over ids, ``[1 + resample]``; likewise."""
    test_alarms: dict[str, Count]
    """Normal test windows beyond the target's rarity, likewise."""
    other_alarms: dict[str, Count]
    """The same on further normal sound; empty where there is none."""
    notes: list[str] = field(default_factory=list)
    """What the reader must know, in words."""

    @property
    def areas(self) -> dict[str, Floats]:
        """AUC and pAUC, means over ids: ``[2, 1 + resample]``."""
        return self.mean_areas(list(self.areas_of_id))

    def mean_areas(self, ids: Sequence[str]) -> dict[str, Floats]:
        """The same over some ids."""
        names = next(iter(self.areas_of_id.values()))
        return {name: np.mean([self.areas_of_id[i][name] for i in ids], axis=0) for name in names}


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
    clips = read_clips(data, machine, "test", recording_digits=choices.recording_digits)
    clips = not_trained(known_clips(members, clips, notes), detectors, f"test clips of {data}", notes)
    refits = None if choices.refits is None else Refits(choices.refits, data, choices.recording_digits)
    beside = _statistics_beside(members, machine, {c.machine_id for c in clips}, refits, notes)
    given, members = members, members + beside
    parameters = one_log_mel([d for m in members for d in m.detectors])
    with tempfile.TemporaryDirectory(prefix="edge-asd-") as folder:
        if choices.disturbance is not None:
            work = (choices.work or Path(folder)) / machine
            clips = disturbed(clips, choices.disturbance, work, title=f"{machine} test, disturbed")
        # What is disturbed is not worth keeping.
        with cache_in(Path(folder)) if choices.disturbance is not None else nullcontext():
            windows = load_windows(clips, parameters, title=f"log-Mel of {machine} test")
    owners = [clips[i].machine_id for i in windows.clip]
    found = score_windows(members, windows, owners, title=f"{machine} test")

    # In windows first, then a clip's score is the mean over its windows.
    scores = {variant_name(m, label): s for m in found for label, s in found[m].scores.items()}
    rarity = {name: f.rarity for name, f in found.items()}
    if len(given) > 1:
        scores[COMBINATION] = rarity[COMBINATION] = choices.combine(np.stack([rarity[m.name] for m in given]))
    if choices.each_id_alone and refits is not None:
        for name, alone in _alone(members, windows, owners, machine, refits, notes).items():
            scores[name], rarity[name] = alone.scores[AS_IT_IS.label], alone.rarity
    scores[ENERGY] = windows.level_dbfs
    if (data / machine / "train").is_dir():
        scores[MEAN_DISTANCE] = _mean_distance(read_clips(data, machine, "train"), windows, owners, machine)
    scores = {name: scores[name] for name in sorted(scores, key=lambda n: _place(n, members))}
    of_clips = {name: windows.per_clip(s) for name, s in scores.items()}
    labelled = [clips[i] for i in windows.heard]
    bootstrap = _bootstrap(labelled, data, machine, choices)
    counts = counts_of(labelled)
    note_few_recordings({i: counts[i] for i in bootstrap.ids}, notes)
    by_id = {name: bootstrap.areas(s) for name, s in of_clips.items()}
    normal = np.array([not c.is_anomaly for c in labelled])
    ids = np.array([c.machine_id for c in labelled])
    of_normal = np.array([not clips[i].is_anomaly for i in windows.clip])
    return MachineEvaluation(
        machine=machine,
        members=members,
        clips=labelled,
        scores=of_clips,
        counts=counts,
        per_id={
            name: {i: (float(a[0, 0]), float(a[1, 0])) for i, a in zip(bootstrap.ids, areas, strict=True)}
            for name, areas in by_id.items()
        },
        areas_of_id={i: {name: areas[k] for name, areas in by_id.items()} for k, i in enumerate(bootstrap.ids)},
        level_correlation={
            name: rank_correlation(s[normal], of_clips[ENERGY][normal], ids[normal]) for name, s in of_clips.items()
        },
        rarity={name: windows.per_clip(r) for name, r in rarity.items()},
        recall={
            name: bootstrap.recall(windows.per_clip(is_beyond(r, choices.target).astype(float)))
            for name, r in rarity.items()
        },
        test_alarms={name: count_beyond(r[of_normal], choices.target) for name, r in rarity.items()},
        other_alarms=_other_alarms(given, beside, machine, choices, notes),
        notes=notes,
    )


def _statistics_beside(
    members: Sequence[Member], machine: str, ids: set[str], refits: Refits | None, notes: list[str]
) -> list[Member]:
    """A ``statistics`` member that knows these ids, fitted, where none is given."""
    if refits is None or any(m.kind == "statistics" for m in members):
        return []
    try:
        known = {c.machine_id for c in read_clips(refits.data, machine, "train")}
        if len(known) > 1 and (strange := ", ".join(sorted(ids - known))):
            notes.append(f"no statistics detector beside: {refits.data / machine / 'train'} has no clips of {strange}")
            return []
        return [Member("statistics", (refits.statistics(machine),))]
    except EdgeAsdError as error:
        notes.append(f"no statistics detector beside, as none can be fitted: {error}")
        return []


def _alone(
    members: Sequence[Member], windows: Windows, owners: Sequence[str], machine: str, refits: Refits, notes: list[str]
) -> dict[str, MemberScores]:
    """What detectors say that were fitted to one id alone, by name of the scorer."""
    found: dict[str, MemberScores] = {}
    for member in members:
        if len(member.detectors) > 1 or len(member.ids) == 1 or not can_refit(member.detectors[0]):
            continue
        name = variant_name(member.name, ALONE)
        try:
            single = tuple(refits.alone(member.detectors[0], machine, i) for i in sorted(set(owners)))
        except EdgeAsdError as error:
            notes.append(f"no {name}: {error}")
            continue
        collapsed = [d.metadata.ids[0] for d in single if d.metadata.settings["collapse"]["collapsed"]]
        if collapsed:
            notes.append(f"{name}: collapsed on {', '.join(collapsed)}")
        alone = Member(name, single)
        title = f"{machine} test, {ALONE}"
        found |= score_windows([alone], windows, owners, title=title, variants=lambda _: [AS_IT_IS])
    return found


def _place(name: str, members: Sequence[Member]) -> int:
    """Members in their order, each before its variants; then the rest."""
    for number, member in enumerate(members):
        if name == member.name or name.startswith(f"{member.name}, "):
            return number
    return len(members)


def _bootstrap(clips: Sequence[Clip], data: Path, machine: str, choices: Choices) -> Bootstrap:
    try:
        return Bootstrap(
            [c.machine_id for c in clips],
            [c.is_anomaly for c in clips],
            [c.recording for c in clips],
            resamples=choices.resamples,
            # Of the machine alone: the same resamples whatever else is evaluated beside it.
            seed=zlib.crc32(machine.encode()),
        )
    except ValueError:
        raise CorpusError(
            f"{data / machine / 'test'}: no machine id has both normal and anomalous test clips that were not"
            " trained on: there is nothing to judge"
        ) from None


def _mean_distance(train: Sequence[Clip], windows: Windows, owners: Sequence[str], machine: str) -> Floats:
    train = [c for c in train if c.machine_id in set(owners)] or list(train)
    normal = load_windows(train, LogMelParameters(), title=f"log-Mel of {machine} train")
    return distance_to_mean(normal, [train[i].machine_id for i in normal.clip], windows, owners)


def _other_alarms(
    given: Sequence[Member], beside: Sequence[Member], machine: str, choices: Choices, notes: list[str]
) -> dict[str, Count]:
    if choices.normal is None:
        return {}
    members = [*given, *beside]
    detectors = [d for m in members for d in m.detectors]
    clips = known_clips(members, read_clips(choices.normal, machine, "train"), notes)
    clips = not_trained(clips, detectors, f"normal clips of {choices.normal}", notes)
    silent = silent_about_clips(detectors)
    if silent:
        notes.append(
            f"{', '.join(silent)}: no list of the clips it was trained on; make sure that {choices.normal} holds none"
        )
    windows = load_windows(clips, one_log_mel(detectors), title=f"log-Mel of {machine} in {choices.normal}")
    owners = [clips[i].machine_id for i in windows.clip]
    title = f"{machine} in {choices.normal}"
    found = score_windows(members, windows, owners, title=title, variants=lambda _: [AS_IT_IS])
    rarity = {name: f.rarity for name, f in found.items()}
    if len(given) > 1:
        rarity[COMBINATION] = choices.combine(np.stack([rarity[m.name] for m in given]))
    return {name: count_beyond(r, choices.target) for name, r in rarity.items()}
