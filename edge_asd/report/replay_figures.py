"""Windows of a replay as figures: which are shown, and how many fit into the page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from edge_asd.explanation import Explanation
from edge_asd.report.clip_figure import ClipFigure
from edge_asd.report.heard import Heard, Kept
from edge_asd.report.names import Names
from edge_asd.report.picture import strongest
from edge_asd.report.sound import doublings_for
from edge_asd.report.timeline import clock

_WEAKER = 0.25
"""Quantile of the anomalous windows' strongest cells that sets what all overlays have in common."""
_FIRST_INCIDENTS = 12
"""So many come before what there is outside of incidents, the others after that."""


@dataclass
class Shelved:
    """Figures that stand together outside of incidents."""

    title: str
    note: str
    figures: list[ClipFigure] = field(default_factory=list)


@dataclass
class Figures:
    """All figures of a page."""

    of_incident: dict[int, list[ClipFigure]] = field(default_factory=dict)
    """By the incident's number, the most anomalous window first."""
    shelves: list[Shelved] = field(default_factory=list)
    doublings: int = 0
    """How often the amplitude of all sounds was doubled."""
    left_out: int = 0
    """Figures that had no room."""

    @property
    def count(self) -> int:
        """Of figures."""
        return sum(map(len, self.of_incident.values())) + sum(len(shelf.figures) for shelf in self.shelves)


def make_figures(heard: Heard, names: Names, room: int, tell: Callable[[str], None] = lambda _: None) -> Figures:
    """Score the kept windows again and make figures of them, while there is room.

    Args:
        heard: what was kept.
        names: of recordings.
        room: bytes that all figures may take up. What does not fit goes without its sound, or is left out: first the
            second windows of incidents, then the lesser incidents.
        tell: told of the progress.

    Raises:
        DetectorError: a detector cannot score a window a second time.
    """
    made = Figures()
    incidents = sorted((i for i in heard.incidents if i.shelf is not None), key=lambda i: i.peak, reverse=True)
    windows = {i.number: list(i.shelf or ()) for i in incidents}
    firsts: list[tuple[Kept, Callable[[ClipFigure], None]]] = []
    seconds: list[tuple[Kept, Callable[[ClipFigure], None]]] = []
    for number, of_it in windows.items():
        put = made.of_incident.setdefault(number, []).append
        firsts += [(one, put) for one in of_it[:1]]
        seconds += [(one, put) for one in of_it[1:]]
    seen = {id(one) for of_it in windows.values() for one in of_it}
    beside = []
    for shelf, found in _shelves(heard):
        fresh = [one for one in found if id(one) not in seen]
        seen |= {id(one) for one in fresh}
        if fresh:
            made.shelves.append(shelf)
            beside += [(one, shelf.figures.append) for one in fresh]
    wanted = [*firsts[:_FIRST_INCIDENTS], *beside, *firsts[_FIRST_INCIDENTS:], *seconds]
    made.doublings = doublings_for(kept.window.samples for kept, _ in wanted)
    explained = []
    for done, (kept, _) in enumerate(wanted, 1):
        tell(f"picture {done} of {len(wanted)}")
        explained.append(kept.track.pipeline.explain(kept.window))
    floor = _shared_scale([kept for kept, _ in wanted], explained)
    for (kept, put), explanation in zip(wanted, explained, strict=True):
        figure = _figure(kept, explanation, floor, made.doublings, names, heard.joined)
        if figure.size > room:
            figure = replace(figure, sound=None)
        if figure.size > room:
            made.left_out += 1
            continue
        room -= figure.size
        put(figure)
    made.shelves = [shelf for shelf in made.shelves if shelf.figures]
    return made


def _shelves(heard: Heard) -> list[tuple[Shelved, list[Kept]]]:
    """Titles of the shelves, and what stands on them, the most telling first."""
    texts: dict[bool | None, tuple[tuple[str, str], tuple[str, str]]]
    if heard.joined:
        outside = "Most anomalous outside of incidents" if heard.incidents else "Most anomalous"
        texts = {None: ((outside, ""), ("Least anomalous", "The machine at its most ordinary, to compare with."))}
    else:
        texts = {
            True: (
                ("Anomalous recordings: the most anomalous", "What the detector hears best."),
                ("Anomalous recordings: the least anomalous", "What it misses, if anything."),
            ),
            False: (
                ("Normal recordings: the most anomalous", "What would sooner be a false alarm than anything else."),
                ("Normal recordings: the least anomalous", "The machine at its most ordinary, to compare with."),
            ),
            None: (
                ("Most anomalous recordings", ""),
                ("Least anomalous recordings", "The machine at its most ordinary, to compare with."),
            ),
        }
    shelves = []
    for label, (strange, ordinary) in texts.items():
        if label in heard.strangest:
            shelves.append((Shelved(*strange), list(heard.strangest[label])))
        if label in heard.most_ordinary:
            shelves.append((Shelved(*ordinary), list(heard.most_ordinary[label])))
    return shelves


def _shared_scale(kept: Sequence[Kept], explained: Sequence[Explanation]) -> dict[str, float]:
    """By detector, what counts as fully anomalous at least: ordinary windows shall not glow as anomalous ones do.

    What the weaker of the anomalous windows reach; of all, where none is anomalous.
    """
    is_alarming = any(one.reading.is_anomalous for one in kept)
    found: dict[str, list[float]] = {}
    for one, explanation in zip(kept, explained, strict=True):
        if one.reading.is_anomalous or not is_alarming:
            for name, anomaly_map in explanation.maps.items():
                found.setdefault(name, []).append(strongest(anomaly_map))
    return {name: float(np.quantile(values, _WEAKER)) for name, values in found.items()}


def _figure(
    kept: Kept, explanation: Explanation, floor: dict[str, float], doublings: int, names: Names, joined: bool
) -> ClipFigure:
    reading, track = kept.reading, kept.track
    rate = reading.sample_rate
    begin, end = reading.start / rate, min(reading.end / rate, track.recording.seconds)
    path, within = track.file_at(begin)
    if joined:
        caption = f"{clock(begin)} to {clock(end)}: {names(path)} from {clock(max(0.0, within))}"
    else:
        caption = f"{names(path)}, {clock(begin)} to {clock(end)}"
    rarity = 0.0 if reading.rarity is None else reading.rarity
    verdict = "at or over" if reading.is_anomalous else "below"
    facts = [("rarity", f"{rarity:.2f}, {verdict} the threshold of {reading.threshold:.2f}")]
    if not joined and len(track.recording.readings) > 1 and track.recording.rarity is not None:
        facts.append(("mean of the recording", f"{track.recording.rarity:.2f}"))
    for detector in reading.detectors:
        facts.append((detector.name, f"score {detector.score:.2f}, rarity {detector.rarity:.2f}"))
    if reading.level_dbfs is not None and reading.level_change_db is not None:
        facts.append(("level", f"{reading.level_dbfs:.1f} dBFS, {reading.level_change_db:+.1f} dB against normal"))
    if reading.is_repeated:
        facts.append(("length", "shorter than a window, repeated to fill it"))
    if kept.finding is not None:
        facts.append(("signal", f"{kept.finding.reason}: {kept.finding.text}"))
    highest = {name: max(strongest(found), floor[name]) for name, found in explanation.maps.items()}
    # The detector that found the window rarest is seen first.
    by_rarity = sorted(zip(explanation.maps.items(), reading.detectors, strict=True), key=lambda both: -both[1].rarity)
    return ClipFigure.of(
        caption,
        explanation.log_mel,
        dict(one for one, _ in by_rarity),
        kept.window.samples,
        explanation.parameters,
        facts=facts,
        highest=highest,
        doublings=doublings,
    )
