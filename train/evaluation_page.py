"""An evaluation as one HTML page: tables, ROC curves, histograms, and the clips that say most, to see and to hear."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jinja2
import numpy as np

from edge_asd.audio.recording import read_windows
from edge_asd.explanation import explain
from edge_asd.logmel import Float32Array, log_mel
from edge_asd.report.clip_figure import ClipFigure
from edge_asd.report.page import render
from edge_asd.report.picture import spectrogram
from edge_asd.report.plot import Curve, Group, histogram, roc
from edge_asd.report.sound import doublings_for
from edge_asd.roc import roc_curve

from .machine_evaluation import MachineEvaluation
from .scorers import COMBINATION, ENERGY, MEAN_DISTANCE, Floats

SHOWN = 4
"""Clips of the most, and of the least anomalous."""
MISTAKES = 2
"""Clips of each label that look most like the other."""
_CONTRAST = (2.0, 99.7)
"""Percentiles of a clip's log-Mel that are darkest and lightest, in its reconstructions too."""


@dataclass(frozen=True)
class Reconstruction:
    """What a detector's networks make of a clip."""

    detector: str
    picture: str
    """Data URI."""


@dataclass(frozen=True)
class ShownClip:
    """A clip with all that detectors say of it."""

    figure: ClipFigure
    reconstructions: list[Reconstruction]
    is_anomaly: bool


@dataclass(frozen=True)
class ShownGroup:
    """Clips that are shown for one reason."""

    title: str
    clips: list[ShownClip]


def evaluation_page(found: Sequence[MachineEvaluation], document: dict[str, Any]) -> str:
    """The page, complete in itself.

    Args:
        found: machine by machine; the recordings are read again for what is shown of them.
        document: of the same evaluation, see `edge_asd_train.evaluate`.

    Raises:
        RecordingError: a recording that was scored cannot be read any more.
        DetectorError: a detector cannot score.
    """
    parts = []
    for one in found:
        told = document["machines"][one.machine]
        parts.append(
            {
                "name": one.machine,
                "told": told,
                "roc": [(i, roc(_curves(one, i))) for i in one.areas_of_id],
                "histograms": [_histograms(one, name, document["settings"]["rarity"]) for name in one.rarity],
                "groups": _groups(one),
            }
        )
    return render(
        "evaluation.html",
        templates=[jinja2.PackageLoader("edge_asd_train")],
        document=document,
        machines=parts,
        rarity=document["settings"]["rarity"],
    )


def _curves(one: MachineEvaluation, machine_id: str) -> list[Curve]:
    """Of what stands by itself: detectors, their combination, and the trivial scorers."""
    names = [n for n in one.scores if n in one.rarity or n in (COMBINATION, ENERGY, MEAN_DISTANCE)]
    own = np.array([c.machine_id == machine_id for c in one.clips])
    label = np.array([c.is_anomaly for c in one.clips])
    curves = []
    for name in names:
        false, true = roc_curve(one.scores[name][own & ~label], one.scores[name][own & label])
        curves.append(Curve(f"{name}, {one.per_id[name][machine_id][0]:.3f}", false, true))
    return curves


def _histograms(one: MachineEvaluation, name: str, rarity: float) -> tuple[str, Any, Any]:
    """Name, histogram of its scores (None for the combination, whose score is a rarity), histogram of its rarities."""
    label = np.array([c.is_anomaly for c in one.clips])

    def groups(values: Floats) -> list[Group]:
        return [Group("normal", values[~label]), Group("anomalous", values[label])]

    scores = None if name == COMBINATION else histogram(groups(one.scores[name]), None, counted="clips")
    return (
        name,
        scores,
        histogram(groups(one.rarity[name]), rarity, label="rarity", counted="clips", may_be_logarithmic=False),
    )


def _groups(one: MachineEvaluation) -> list[ShownGroup]:
    order = _order(one)
    label = [c.is_anomaly for c in one.clips]
    normal, anomalous = ([i for i in order if label[i] == wanted] for wanted in (False, True))
    chosen = [
        ("Most anomalous", order[::-1][:SHOWN]),
        ("Least anomalous", order[:SHOWN]),
        ("Normal clips that look most anomalous", normal[::-1][:MISTAKES]),
        ("Anomalous clips that look most normal", anomalous[:MISTAKES]),
    ]
    samples = {i: _loudest_evidence(one, i) for _, numbers in chosen for i in numbers}
    doublings = doublings_for(samples.values())
    made = {i: _shown(one, i, sound, doublings) for i, sound in samples.items()}
    return [ShownGroup(title, [made[i] for i in numbers]) for title, numbers in chosen]


def _order(one: MachineEvaluation) -> list[int]:
    """Clips from the least to the most anomalous, as the daemon would see them: by rarity, then by the first score.

    Scores cannot be compared between ids, and rarity ends at 0 and at its highest value.
    """
    name = COMBINATION if COMBINATION in one.rarity else one.members[0].name
    first = one.scores[one.members[0].name]
    order: list[int] = np.lexsort((first, one.rarity[name])).tolist()
    return order


def _loudest_evidence(one: MachineEvaluation, number: int) -> Float32Array:
    """Samples of a clip's window that the first detector finds most anomalous."""
    clip = one.clips[number]
    detector, index = one.members[0].detector_of(clip.machine_id)
    parameters, length = detector.log_mel_parameters, detector.metadata.window_samples
    windows = [
        w.samples for w in read_windows(clip.path, sample_rate=parameters.sample_rate, window=length, hop=length)
    ]
    if len(windows) == 1:
        return windows[0]
    return max(windows, key=lambda w: detector.score(log_mel(w, parameters), index).score)


def _shown(one: MachineEvaluation, number: int, samples: Float32Array, doublings: int) -> ShownClip:
    clip = one.clips[number]
    used = [(member.name, *member.detector_of(clip.machine_id)) for member in one.members]
    explained = explain(samples, used)
    low, high = (float(p) for p in np.percentile(explained.log_mel, _CONTRAST))
    reconstructions = [
        Reconstruction(name, spectrogram(again, low_db=low, high_db=high))
        for name, detector, index in used
        if (again := detector.reconstruct(explained.log_mel, index)) is not None
    ]
    label = "anomalous" if clip.is_anomaly else "normal"
    facts = [("label", f"{label}, {clip.machine_id}")]
    facts += [(f"rarity, {name}", f"{r[number]:.2f}") for name, r in one.rarity.items()]
    figure = ClipFigure.of(
        clip.path.name,
        explained.log_mel,
        explained.maps,
        samples,
        explained.parameters,
        facts=facts,
        low_db=low,
        high_db=high,
        doublings=doublings,
    )
    return ShownClip(figure, reconstructions, clip.is_anomaly)
