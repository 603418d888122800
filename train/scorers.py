"""What is compared in an evaluation, as scores of windows: detectors, what they are without a part, trivial scorers."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from edge_asd.calibration import combined_rarity
from edge_asd.detector import Detector, Score
from edge_asd.logmel import Float32Array

from .corpus import Windows
from .scratch import chunks

Floats = NDArray[np.float64]
ENERGY, MEAN_DISTANCE, COMBINATION = "energy", "distance to the mean log-Mel", "combination"
REPORT_SCORE = "report_score"
ALONE = "each id alone"
"""Label of what was fitted to one machine id at a time."""
_AT_ONCE = 256
"""Windows that are handed to the threads before the answers to all of them are taken."""


@dataclass(frozen=True)
class Variant:
    """A way to ask a detector for a score."""

    label: str
    """Empty for the detector as the daemon asks it."""
    search_steps: int | None = None
    ablation: str | None = None


AS_IT_IS = Variant("")


@dataclass(frozen=True)
class Member:
    """A detector as a machine has it: one file, or several of a kind that know different machine ids."""

    name: str
    """Its kind; the second of the same kind is "KIND 2"."""
    detectors: tuple[Detector, ...]

    @property
    def kind(self) -> str:
        """Of its detectors."""
        return self.detectors[0].metadata.kind

    @property
    def ids(self) -> tuple[str, ...]:
        """The machine ids it knows."""
        return tuple(i for d in self.detectors for i in d.metadata.ids)

    def detector_of(self, machine_id: str) -> tuple[Detector, int]:
        """The detector for a machine id, and the id's index there; the only id there is serves any machine.

        Raises:
            DetectorError: it does not know that id.
        """
        for detector in self.detectors:
            if machine_id in detector.metadata.ids:
                return detector, detector.index_of(machine_id)
        return self.detectors[0], self.detectors[0].index_of(None if len(self.ids) == 1 else machine_id)

    @property
    def variants(self) -> list[Variant]:
        """The detector as it is, without each of its parts, and without its search where it searches."""
        ablations = [
            a for a in self.detectors[0].metadata.ablations if all(a in d.metadata.ablations for d in self.detectors)
        ]
        found = [AS_IT_IS, *(Variant(a, ablation=a) for a in ablations)]
        if all("search_steps" in d.optional_inputs for d in self.detectors):
            found.append(Variant("search_steps 0", search_steps=0))
            if "untrained_start" in ablations:
                found.append(Variant("search_steps 0, untrained_start", 0, "untrained_start"))
        return found


@dataclass(frozen=True)
class MemberScores:
    """What a member says of windows."""

    scores: dict[str, Floats]
    """By label of the variant, and `REPORT_SCORE` where the detector gives one that is not its score; ``[window]``."""
    rarity: Floats
    """Of the detector as it is, by its own calibration, ``[window]``."""


def members_of(detectors: Sequence[Detector]) -> list[Member]:
    """Detectors of one machine, in the order given; those of a kind that share no id are one member.

    So the files of a site, one for each machine, are judged beside one file that knows all of them.
    """
    groups: list[list[Detector]] = []
    for detector in detectors:
        for group in groups:
            known = {i for d in group for i in d.metadata.ids}
            if group[0].metadata.kind == detector.metadata.kind and known.isdisjoint(detector.metadata.ids):
                group.append(detector)
                break
        else:
            groups.append([detector])
    members: list[Member] = []
    for group in groups:
        kind = group[0].metadata.kind
        earlier = sum(m.kind == kind for m in members)
        members.append(Member(kind if not earlier else f"{kind} {earlier + 1}", tuple(group)))
    return members


def score_windows(
    members: Sequence[Member],
    windows: Windows,
    ids: Sequence[str],
    *,
    title: str,
    variants: Callable[[Member], Sequence[Variant]] = lambda member: member.variants,
) -> dict[str, MemberScores]:
    """Score every window once with every variant of every member.

    Args:
        members: of one machine.
        windows: to be scored.
        ids: machine id of each window.
        title: of the progress bar.
        variants: that are wanted of a member; `AS_IT_IS` must be the first.

    Returns:
        By name of the member.

    Raises:
        DetectorError: one of them cannot score.
    """
    wanted = {m.name: list(variants(m)) for m in members}
    found = {}
    with tqdm(total=len(windows) * sum(map(len, wanted.values())), desc=title, unit="score", leave=False) as progress:
        for member in members:
            progress.set_postfix_str(member.name)
            found[member.name] = _score(member, wanted[member.name], windows.log_mel, ids, progress)
    return found


def _score(
    member: Member, variants: Sequence[Variant], log_mels: Float32Array, ids: Sequence[str], progress: tqdm[Any]
) -> MemberScores:
    def ask(number: int) -> list[Score]:
        detector, index = member.detector_of(ids[number])
        return [detector.score(log_mels[number], index, v.search_steps, ablation=v.ablation) for v in variants]

    scores: dict[str, list[float]] = {v.label: [] for v in variants}
    reports, rarities = [], []
    for machine_id, answers in zip(ids, _in_threads(ask, len(log_mels)), strict=True):
        for variant, found in zip(variants, answers, strict=True):
            scores[variant.label].append(found.score)
            if variant == AS_IT_IS:
                reports.append(found.report_score)
                detector, index = member.detector_of(machine_id)
                calibration = detector.metadata.calibration[detector.metadata.ids[index]]
                rarities.append(calibration.rarity(found.score))
            progress.update()
    arrays = {label: np.array(values) for label, values in scores.items()}
    if None not in reports and reports != scores[AS_IT_IS.label]:
        arrays[REPORT_SCORE] = np.array(reports, float)
    return MemberScores(arrays, np.array(rarities))


def _in_threads(ask: Callable[[int], list[Score]], count: int) -> Iterator[list[Score]]:
    """Answers for 0, 1 and so on, in order, by as many threads as there are cores.

    A detector's session has one thread of its own and lets go of Python's lock, so the cores are used by scoring as
    many windows at once; each by itself, so that no score depends on how many there are.
    """
    pool = ThreadPoolExecutor(len(os.sched_getaffinity(0)))
    try:
        for some in chunks(count, _AT_ONCE):  # all at once, what is asked and answered would pile up
            yield from pool.map(ask, range(some.start, some.stop))
    finally:
        pool.shutdown(cancel_futures=True)


def smallest_p(rarities: Floats) -> Floats:
    """What the daemon does with the rarities ``[detector, window]`` of a machine's detectors; gives ``[window]``."""
    return np.array([combined_rarity(column) for column in rarities.T.tolist()])


def mean_rarity(rarities: Floats) -> Floats:
    """Another rule to compare with: the mean over detectors less log10(e), of ``[detector, window]``.

    The geometric mean of p-values times e is a p-value again, however dependent they are (Vovk and Wang, "Combining
    p-values via averaging", Biometrika 107, 2020). Below 0 where it would be a probability above 1.
    """
    mean: Floats = rarities.mean(axis=0) - np.log10(np.e)
    return mean


def distance_to_mean(normal: Windows, owners: Sequence[str], windows: Windows, ids: Sequence[str]) -> Floats:
    """Mean squared distance of each window from the mean training log-Mel of its id, dB squared, ``[window]``.

    Args:
        normal: training windows.
        owners: their machine ids.
        windows: to be scored.
        ids: their machine ids; those without training windows are compared with the mean of all.
    """
    of = np.asarray(owners)
    counts = {str(i): int(count) for i, count in zip(*np.unique(of, return_counts=True), strict=True)}
    sums = {i: np.zeros(normal.log_mel.shape[1:]) for i in counts}
    for some in chunks(len(normal)):
        for i in np.unique(of[some]):
            sums[str(i)] += normal.log_mel[some][of[some] == i].sum(axis=0, dtype=np.float64)
    overall = (np.sum(list(sums.values()), axis=0) / len(normal)).astype(np.float32)
    means = {i: (sums[i] / count).astype(np.float32) for i, count in counts.items()}
    return np.array(
        [float(((x - means.get(i, overall)) ** 2).mean()) for x, i in zip(windows.log_mel, ids, strict=True)]
    )
