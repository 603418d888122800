"""Which labelled clips a machine's detectors can be judged on, and what the reader must know about them."""

from __future__ import annotations

from collections.abc import Sequence

from edge_asd.detector import Detector
from edge_asd.logmel import LogMelParameters

from .corpus import Clip, CorpusError
from .false_alarms import without_trained
from .scorers import Member

FEW_RECORDINGS = 12
"""Of a label, over all ids; with fewer, intervals of 95 % hold less often (simulated at an AUC of 0.7 to 0.8: 95 % with
12 on four ids, 91 % with 8 on one id, 85 % with 8 on four, 70 % with 3)."""


def known_clips(members: Sequence[Member], clips: Sequence[Clip], notes: list[str]) -> list[Clip]:
    """Clips of the ids that all members know. A file of one id that is not among the clips serves all of them.

    Args:
        members: of one machine.
        clips: at least one.
        notes: gets a line where ids are left out.

    Raises:
        CorpusError: a member does not know an id that no other knows either, or they share none.
    """
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


def not_trained(clips: list[Clip], detectors: Sequence[Detector], what: str, notes: list[str]) -> list[Clip]:
    """The clips that no detector was trained on, as far as the detectors say.

    Raises:
        CorpusError: there is none.
    """
    left = without_trained(clips, detectors)
    if not left:
        raise CorpusError(f"{what}: the detectors were trained on every one of them")
    if len(left) < len(clips):
        notes.append(f"{len(clips) - len(left)} of {len(clips)} {what} were trained on and are left out")
    return left


def one_log_mel(detectors: Sequence[Detector]) -> LogMelParameters:
    """The log-Mel that all of them want.

    Raises:
        CorpusError: they want different ones.
    """
    parameters = detectors[0].log_mel_parameters
    for other in detectors[1:]:
        if other.log_mel_parameters != parameters:
            raise CorpusError(f"{other.path}: wants another log-Mel than {detectors[0].path}; evaluate them apart")
    return parameters


def counts_of(clips: Sequence[Clip]) -> dict[str, dict[str, int]]:
    """By machine id: how many ``normal`` and ``anomalous`` clips, and of how many recordings."""
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


def note_few_recordings(counts: dict[str, dict[str, int]], notes: list[str]) -> None:
    """Warn where intervals cannot be trusted."""
    fewest = min(sum(c[f"{label}_recordings"] for c in counts.values()) for label in ("normal", "anomalous"))
    if fewest < FEW_RECORDINGS:
        notes.append(
            f"{fewest} recording{'s' if fewest > 1 else ''} of a label: the intervals of this machine are too narrow,"
            " and a difference that excludes 0 shows little"
        )
