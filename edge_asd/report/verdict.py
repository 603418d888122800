"""What a replay means, in words and in a few large figures: will the detector do?"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from edge_asd.rate_curve import SECONDS_PER_DAY
from edge_asd.report.axes import number
from edge_asd.report.heard import Heard, Track
from edge_asd.roc import RocSummary, mean_over_ids

_UNLIKELY = 0.05
"""More incidents than chance gives with this probability are more than promised."""
_MOST_NAMED = 10
"""Incidents listed in a sentence."""


@dataclass
class Verdict:
    """The top of the page."""

    headline: str
    is_warning: bool
    sentences: list[str] = field(default_factory=list)
    tiles: list[tuple[str, str]] = field(default_factory=list)
    """(figure, what it is)."""


def verdict(heard: Heard, by_score: Sequence[tuple[str, dict[str, RocSummary]]], failed: int) -> Verdict:
    """Sum up a replay.

    Args:
        heard: what was heard.
        by_score: (name, AUC by machine id) of each detector, and of all combined, where there are labels.
        failed: recordings that could not be read.
    """
    readings = [reading for track in heard.tracks for reading in track.recording.readings]
    seconds = math.fsum(track.recording.seconds for track in heard.tracks)
    anomalous = sum(reading.is_anomalous for reading in readings)
    raised, expected = len(heard.incidents), _expected(heard.tracks)
    is_too_many = expected is not None and _at_least(raised, expected) < _UNLIKELY
    made = Verdict(_headline(heard), is_warning=is_too_many or failed > 0 or not readings)
    if not readings:
        made.sentences.append("Nothing could be scored.")
        return made
    made.tiles = [
        (duration(seconds), "of sound"),
        (f"{len(readings):,}", f"windows, {anomalous:,} of them at or over the threshold"),
    ]
    if not _all_too_short(heard):
        made.tiles.append((str(raised), "incidents raised" if raised != 1 else "incident raised"))
    if expected is not None:
        made.tiles.append((f"{expected:.2g}", "expected at most, if all of it was normal"))
        made.sentences.append(_promise(raised, expected, is_too_many, heard))
    for name, summaries in by_score:
        mean = mean_over_ids(summaries)
        if mean is not None:
            made.tiles.append((f"{mean[0]:.3f}", f"AUC of {name} (pAUC {mean[1]:.3f})"))
    made.sentences += _thresholds(heard.tracks)
    made.sentences += _alarm(heard)
    made.sentences += _signal(heard)
    if failed:
        made.sentences.append(f"{_count(failed, 'recording')} could not be read; they are named at the end.")
    return made


def duration(seconds: float) -> str:
    """A length of time for people."""
    if seconds < 120.0:
        return f"{number(seconds)} s"
    return f"{number(seconds / 60.0)} min" if seconds < 2 * 3600.0 else f"{number(seconds / 3600.0)} h"


def _headline(heard: Heard) -> str:
    if not heard.tracks:
        return "There was nothing to hear."
    alarms = _alarms(heard)
    if heard.joined:
        return alarms
    text = _found(heard.tracks)
    return text if _all_too_short(heard) else f"{text} {alarms}"


def _alarms(heard: Heard) -> str:
    raised = len(heard.incidents)
    if not raised:
        return "The alarm was never raised."
    still = ", and is raised at the end" if heard.joined and heard.incidents[-1].cleared is None else ""
    times = {1: "once", 2: "twice"}.get(raised, f"{raised} times")
    return f"The alarm was raised {times}{still}."


def _found(tracks: Sequence[Track]) -> str:
    """Recordings over the threshold, by label: their mean rarity, as the recording's score is a mean."""
    counts: dict[bool | None, list[int]] = {}
    for track in tracks:
        recording = track.recording
        if recording.rarity is not None:
            both = counts.setdefault(recording.is_anomaly, [0, 0])
            both[0] += recording.rarity >= recording.readings[0].threshold
            both[1] += 1
    kinds = {True: "anomalous recording", False: "normal recording", None: "recording"}
    parts = [
        f"{over} of {_count(total, kinds[label])}" for label, (over, total) in sorted(counts.items(), key=str)[::-1]
    ]
    return f"At or over the threshold: {', '.join(parts)}."


def _all_too_short(heard: Heard) -> bool:
    """No recording has windows enough to raise the alarm."""
    return not heard.joined and all(len(t.recording.readings) < t.pipeline.rule.raise_count for t in heard.tracks)


def _promise(raised: int, expected: float, is_too_many: bool, heard: Heard) -> str:
    point = heard.tracks[0].pipeline.operating_point
    asked = "" if point is None else f"{point.false_alarms_per_day:g} incidents a day are promised for normal sound: "
    text = f"{asked}{expected:.2g} in this much, {raised} {'was' if raised == 1 else 'were'} raised. "
    if is_too_many:
        return text + (
            "If the machine was normal, that is far too many: calibrate on its own normal sound before it goes live. "
            "If something was wrong with it, look whether the incidents below begin where that began."
        )
    if raised:
        return text + "So much is within what chance may do."
    return text + "So it should be if the machine was normal. If something was wrong with it, that was not heard."


def _thresholds(tracks: Sequence[Track]) -> list[str]:
    """The operating point of each machine id."""
    points: dict[str | None, str] = {}
    for track in tracks:
        pipeline, machine_id = track.pipeline, track.recording.machine_id
        point = pipeline.operating_point
        points.setdefault(
            machine_id, f"threshold {pipeline.rule.threshold:.2f}, given" if point is None else str(point)
        )
    if len(set(points.values())) == 1:
        text = next(iter(points.values()))
        return [f"{text[0].upper()}{text[1:]}."]
    return [f"{machine_id}: {text}." for machine_id, text in points.items()]


def _alarm(heard: Heard) -> list[str]:
    rule = heard.tracks[0].pipeline.rule
    text = f"The alarm is raised by {rule} windows and cleared by {rule.clear_after} in a row below half the threshold"
    if heard.joined:
        return [text + "."]
    short = sum(len(track.recording.readings) < rule.raise_count for track in heard.tracks)
    text += "; it begins anew with each recording"
    if short:
        text += f". {short} of {_count(len(heard.tracks), 'recording')} are too short to raise it"
    return [text + "."]


def _signal(heard: Heard) -> list[str]:
    reasons = Counter(finding.reason for track in heard.tracks for finding in track.findings.values())
    if not reasons:
        return ["Nothing is wrong with the signal: no silence, no clipping, no offset, no driver that repeats itself."]
    listed = ", ".join(f"{reason} {count}" for reason, count in reasons.most_common())
    total = reasons.total()
    text = (
        f"{_count(total, 'window')} with a sick signal ({listed}): a finding about the microphone. The daemon "
        "would not have scored them; here they are."
    )
    sick = [f"{incident.number}" for incident in heard.incidents if incident.sick]
    if sick:
        further = f" and {len(sick) - _MOST_NAMED} more" if len(sick) > _MOST_NAMED else ""
        which = f"incident{'' if len(sick) == 1 else 's'} {', '.join(sick[:_MOST_NAMED])}{further}"
        text += f" They have a part in {which}."
    return [text]


def _count(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _expected(tracks: Sequence[Track]) -> float | None:
    """Incidents that the operating points promise at most, in sound long enough to raise any."""
    expected = 0.0
    for track in tracks:
        point = track.pipeline.operating_point
        if point is None:
            return None
        if len(track.recording.readings) >= track.pipeline.rule.raise_count:
            expected += point.false_alarms_per_day * track.recording.seconds / SECONDS_PER_DAY
    return expected if expected > 0.0 else None


def _at_least(count: int, expected: float) -> float:
    """Probability of ``count`` incidents or more where so many are to be expected (Poisson)."""
    below = math.fsum(math.exp(-expected) * expected**k / math.factorial(k) for k in range(min(count, 150)))
    return max(0.0, 1.0 - below)
