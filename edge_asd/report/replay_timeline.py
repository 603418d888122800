"""The timelines of a replay: one for each stream, or one for each machine id with its recordings one after another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from edge_asd.dcase import parse_clip_name
from edge_asd.pipeline import Reading
from edge_asd.report.heard import Heard, Track
from edge_asd.report.names import Names
from edge_asd.report.timeline import Incident, Lane, Moment, Span, timeline

MOST_TIMELINES = 12
"""Of each kind, on a page."""
_LONG_FROM = 6
"""Windows from which a recording has a timeline of its own."""


@dataclass(frozen=True)
class Titled:
    """A timeline and what it is of."""

    title: str
    plot: Markup


def timelines(heard: Heard, names: Names) -> list[Titled]:
    """Of a whole page, in order."""
    if heard.joined:
        return [
            Titled(names(track.recording.path), _together([track], "time")) for track in heard.tracks[:MOST_TIMELINES]
        ]
    by_id: dict[str, list[Track]] = {}
    for track in heard.tracks:
        name = parse_clip_name(track.recording.path)
        machine_id = track.recording.machine_id or (name.machine_id if name else "")
        by_id.setdefault(machine_id, []).append(track)
    label = "sound, one recording after another"
    made = [Titled(machine_id, _together(tracks, label)) for machine_id, tracks in sorted(by_id.items())]
    made = made[:MOST_TIMELINES]
    long = [track for track in heard.tracks if len(track.recording.readings) >= _LONG_FROM]
    if len(long) == len(heard.tracks) <= MOST_TIMELINES:
        made = []  # each will have its own
    # The most anomalous ones, in their order.
    chosen = {id(t) for t in sorted(long, key=lambda track: -(track.recording.rarity or 0.0))[:MOST_TIMELINES]}
    return made + [Titled(names(t.recording.path), _together([t], "time")) for t in long if id(t) in chosen]


def _together(tracks: Sequence[Track], label: str) -> Markup:
    """Tracks with one pipeline, one after another."""
    pipeline = tracks[0].pipeline
    moments: list[Moment] = []
    conditions: list[Span] = []
    signals: list[Span] = []
    labels: list[Span] = []
    incidents: list[Incident] = []
    boundaries: list[float] = []
    reasons = sorted({finding.reason for track in tracks for finding in track.findings.values()})
    suspect = f"suspect ({', '.join(reasons)})"
    offset = 0.0
    for track in tracks:
        if offset:
            boundaries.append(offset)
        for index, reading in enumerate(track.recording.readings):
            begin, end = _stretch(reading, index, pipeline.hop_seconds, track.recording.seconds)
            begin, end = offset + begin, offset + end
            moments.append(Moment(begin, end, reading.rarity))
            conditions.append(Span(begin, end, reading.condition, reading.condition))
            is_sick = index in track.findings
            signals.append(Span(begin, end, "suspect" if is_sick else "ok", suspect if is_sick else "ok"))
        labels += _labels(track, offset)
        incidents += [
            Incident(i.number, offset + i.raised, offset + i.end, f"#incident-{i.number}") for i in track.incidents
        ]
        offset += track.recording.seconds
    lanes = [Lane("signal", signals, ["suspect", "ok"])]
    if incidents or len(tracks) == 1:
        lanes.insert(0, Lane("condition", conditions, ["anomalous", "idle", "normal", "starting"]))
    if labels:
        lanes.append(Lane("label", labels, ["label-anomalous", "label-normal"]))
    return timeline(
        moments,
        seconds=offset,
        threshold=pipeline.rule.threshold,
        clear_below=pipeline.rule.clear_below,
        incidents=incidents,
        lanes=lanes,
        boundaries=boundaries,
        label=label,
    )


def _stretch(reading: Reading, index: int, hop_seconds: float, seconds: float) -> tuple[float, float]:
    """What a window stands for: what is new in it, where windows overlap."""
    begin, end = reading.start / reading.sample_rate, min(reading.end / reading.sample_rate, seconds)
    return (begin if index == 0 else max(begin, end - hop_seconds)), end


def _labels(track: Track, offset: float) -> list[Span]:
    """What the names of the files say."""
    ends = [begin for _, begin in track.files[1:]] + [track.recording.seconds]
    spans = []
    for (path, begin), end in zip(track.files, ends, strict=True):
        name = parse_clip_name(path)
        if name is not None and name.is_anomaly is not None:
            state = "anomalous" if name.is_anomaly else "normal"
            spans.append(Span(offset + begin, offset + end, f"label-{state}", state))
    return spans
