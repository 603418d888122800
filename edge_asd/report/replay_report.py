"""``edge-asd replay --report``: one page that says whether the detector will do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from markupsafe import Markup

from edge_asd import __version__
from edge_asd.dcase import parse_clip_name
from edge_asd.replay import Replayer, roc_of
from edge_asd.replayed import ReplayedRecording
from edge_asd.report.heard import Heard, HeardIncident
from edge_asd.report.names import Names, shortened
from edge_asd.report.page import render, write_page
from edge_asd.report.plot import Curve, Group, histogram, roc
from edge_asd.report.replay_figures import Figures, make_figures
from edge_asd.report.replay_timeline import timelines
from edge_asd.report.timeline import clock
from edge_asd.report.verdict import duration, verdict
from edge_asd.roc import RocSummary, roc_curve

MAX_BYTES = 20_000_000
"""Of a page, always: it opens at once, and can be sent."""
MAX_FIGURE_BYTES = 12_000_000
"""Of its figures together: about 35 windows with their sound."""
_MARGIN_BYTES = 100_000
"""For what surrounds figures."""
MOST_RECORDINGS, MOST_INCIDENTS, MOST_LISTED, MOST_IDS = 2000, 500, 200, 12
"""Rows of the page's tables, lines of its lists, machine ids with plots of their own; the rest is counted."""


@dataclass(frozen=True)
class ScorePlots:
    """How well normal and anomalous recordings of one machine id are told apart."""

    machine_id: str
    summaries: list[tuple[str, RocSummary]]
    """By the score's name."""
    roc: Markup
    histograms: list[tuple[str, Markup]] = field(default_factory=list)


def write_report(
    path: Path,
    replayer: Replayer,
    heard: Heard,
    recordings: Sequence[ReplayedRecording],
    paths: Sequence[Path],
    tell: Callable[[str], None] = lambda _: None,
) -> str:
    """Make the page and write it.

    Args:
        path: of the page.
        replayer: that was told to let ``heard`` listen.
        heard: what was kept meanwhile.
        recordings: all that were replayed, those that failed included.
        paths: recordings and folders, as given.
        tell: told of the progress.

    Returns:
        What was written, in one line.

    Raises:
        ReportError: it cannot be written.
        DetectorError: a detector cannot score a window a second time.
    """
    names = Names([p for track in heard.tracks for p, _ in track.files])
    values = _values(replayer, heard, recordings, paths, names)
    bare = len(_page(values, Figures()).encode("utf-8", "backslashreplace"))
    room = min(MAX_FIGURE_BYTES, MAX_BYTES - bare - _MARGIN_BYTES)
    figures = make_figures(heard, names, room, tell)
    size = write_page(path, _page(values, figures))
    count = "1 window" if figures.count == 1 else f"{figures.count} windows"
    return f"report: {path}, {size / 1e6:.1f} MB, with picture and sound of {count}"


def _page(values: dict[str, Any], figures: Figures) -> str:
    return render("replay.html", figures=figures, **values)


def _values(
    replayer: Replayer,
    heard: Heard,
    recordings: Sequence[ReplayedRecording],
    paths: Sequence[Path],
    names: Names,
) -> dict[str, Any]:
    """All that the template asks for, but the figures."""
    scores = _scores(replayer)
    scored = [recording for recording in recordings if recording.is_scored]
    by_score = [(name, roc_of(scored, index)) for name, index in scores]
    failed = [(error.path, error.reason) for recording in recordings for error in recording.failed]
    by_rarity = sorted(heard.tracks, key=lambda track: track.recording.rarity or 0.0, reverse=True)
    shown = {id(track) for track in by_rarity[:MOST_RECORDINGS]}
    findings = [(track, index, finding) for track in heard.tracks for index, finding in sorted(track.findings.items())]
    return {
        "version": __version__,
        "made": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "paths": [shortened(str(p)) for p in paths[:MOST_LISTED]],
        "further_paths": max(0, len(paths) - MOST_LISTED),
        "folder": shortened(str(names.folder)),
        "detectors": [
            (shortened(str(d.path)), d.metadata.kind, d.metadata.machine_type, d.sha256) for d in replayer.detectors
        ],
        "hop_seconds": replayer.hop_seconds,
        "joined": heard.joined,
        "verdict": verdict(heard, by_score, len(failed)),
        "timelines": timelines(heard, names),
        "incidents": [_incident_row(incident, names) for incident in heard.incidents[:MOST_INCIDENTS]],
        "further_incidents": max(0, len(heard.incidents) - MOST_INCIDENTS),
        "score_plots": _score_plots(scored, by_score, scores),
        "score_names": [name for name, index in scores if index is not None],
        "rows": [
            _recording_row(t.recording, len(t.findings), len(replayer.detectors), names)
            for t in ([] if heard.joined else heard.tracks)
            if id(t) in shown
        ],
        "further_rows": max(0, len(heard.tracks) - MOST_RECORDINGS),
        "findings": [
            (names(track.recording.path), clock(_seconds(track.recording, index)), finding.reason, finding.text)
            for track, index, finding in findings[:MOST_LISTED]
        ],
        "further_findings": max(0, len(findings) - MOST_LISTED),
        "failed": [(shortened(str(p)), shortened(reason)) for p, reason in failed[:MOST_LISTED]],
        "further_failed": max(0, len(failed) - MOST_LISTED),
    }


def _scores(replayer: Replayer) -> list[tuple[str, int | None]]:
    """Names of the scores there are, and the detector's number; None is all of them combined."""
    scores: list[tuple[str, int | None]] = [(d.path.name, number) for number, d in enumerate(replayer.detectors)]
    return [*scores, ("combined", None)] if len(scores) > 1 else scores


def _seconds(recording: ReplayedRecording, index: int) -> float:
    return recording.readings[index].start / recording.readings[index].sample_rate


def _incident_row(incident: HeardIncident, names: Names) -> dict[str, object]:
    path, within = incident.track.file_at(max(0.0, incident.raised - 1e-3))
    name = parse_clip_name(path)
    label = {None: "", True: "anomalous", False: "normal"}[name.is_anomaly if name else None]
    return {
        "number": incident.number,
        "uuid": incident.uuid,
        "raised": clock(incident.raised),
        "raised_seconds": incident.raised,
        "cleared": None if incident.cleared is None else clock(incident.cleared),
        "duration": duration(incident.end - incident.raised),
        "duration_seconds": incident.end - incident.raised,
        "peak": incident.peak[0],
        "anomalous": incident.anomalous,
        "windows": incident.windows,
        "file": names(path),
        "within": clock(within),
        "label": label,
        "stream": names(incident.track.recording.path),
    }


def _recording_row(recording: ReplayedRecording, findings: int, detectors: int, names: Names) -> dict[str, object]:
    name = parse_clip_name(recording.path)
    notes = [flag.replace("_", " ") for flag in recording.flags]
    if findings:
        notes.append(f"sick signal in {findings} of {len(recording.readings)} windows")
    return {
        "name": names(recording.path),
        "machine_id": recording.machine_id or (name.machine_id if name else ""),
        "label": {None: "", True: "anomalous", False: "normal"}[recording.is_anomaly],
        "rarity": recording.rarity,
        "is_over": recording.rarity is not None and recording.rarity >= recording.readings[0].threshold,
        "scores": [recording.detector_score(number) for number in range(detectors)],
        "anomalous": sum(reading.is_anomalous for reading in recording.readings),
        "windows": len(recording.readings),
        "raised": sum(r.event is not None and r.event.event == "raised" for r in recording.readings),
        "seconds": recording.seconds,
        "length": duration(recording.seconds),
        "notes": "; ".join(notes),
    }


def _score_plots(
    scored: Sequence[ReplayedRecording],
    by_score: Sequence[tuple[str, dict[str, RocSummary]]],
    scores: Sequence[tuple[str, int | None]],
) -> list[ScorePlots]:
    """ROC curves and histograms of each machine id that has both labels."""
    ids = sorted({machine_id for _, summaries in by_score for machine_id in summaries})
    plots = []
    for machine_id in ids[:MOST_IDS]:
        curves, histograms, summaries = [], [], []
        for (name, index), (_, summary) in zip(scores, by_score, strict=True):
            normal, anomalous = (_values_of(scored, machine_id, index, label) for label in (False, True))
            one = summary[machine_id]
            curves.append(Curve(f"{name} (AUC {one.auc:.3f})", *roc_curve(normal, anomalous)))
            summaries.append((name, one))
            groups = [Group("normal", normal), Group("anomalous", anomalous)]
            threshold = _threshold_of(scored, machine_id, index)
            label = "score" if index is not None else "rarity of the detector with the higher one"
            histograms.append((name, histogram(groups, threshold, label=label)))
        plots.append(ScorePlots(machine_id, summaries, roc(curves), histograms))
    return plots


def _values_of(
    scored: Sequence[ReplayedRecording], machine_id: str, index: int | None, is_anomaly: bool
) -> list[float]:
    found = []
    for recording in _of_id(scored, machine_id):
        score = recording.score if index is None else recording.detector_score(index)
        if recording.is_anomaly is is_anomaly and score is not None:
            found.append(score)
    return found


def _threshold_of(scored: Sequence[ReplayedRecording], machine_id: str, index: int | None) -> float | None:
    """Of a detector's score, at which it alone makes a window anomalous."""
    for recording in _of_id(scored, machine_id):
        for reading in recording.readings:
            if reading.detectors and index is not None:
                return reading.detectors[index].threshold
    return None


def _of_id(scored: Sequence[ReplayedRecording], machine_id: str) -> list[ReplayedRecording]:
    """By the id in the name, as the AUC counts them."""
    return [r for r in scored if (name := parse_clip_name(r.path)) is not None and name.machine_id == machine_id]
