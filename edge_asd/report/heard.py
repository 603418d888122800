"""What a report keeps of a replay while it is read: findings, incidents, and the few windows that it will show.

Samples of all windows would fill the memory: two hours at a hop of 1 s are 5 gigabytes. So only the most telling
windows are kept, on shelves of a fixed size, and scored again at the end for their maps.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from edge_asd.audio.health import Finding, SignalHealth
from edge_asd.audio.windows import Window
from edge_asd.logmel import Float32Array
from edge_asd.pipeline import Pipeline, Reading
from edge_asd.replayed import Listener, ReplayedRecording

MOST_INCIDENTS = 24
"""Incidents of which windows are kept: the rarest."""
WINDOWS_PER_INCIDENT = 2
STRANGEST, MOST_ORDINARY = 4, 2
"""Windows (recordings) kept beside: of each label the most and the least anomalous."""
_KEEP_SECONDS = 5.0
"""Beyond a window, how far back the signal's health is asked; as `edge_asd.audio.stream` has it."""

Rank = tuple[float, ...]


@dataclass(frozen=True, eq=False)
class Kept:
    """A window with its samples, and what was said of it."""

    track: Track
    window: Window
    reading: Reading
    finding: Finding | None

    @property
    def rank(self) -> Rank:
        """How anomalous: rarity ends somewhere, scores do not."""
        detectors = self.reading.detectors
        highest = max((d.rarity for d in detectors), default=0.0), max((d.score for d in detectors), default=0.0)
        return (self.reading.rarity or 0.0, *highest)

    def overlaps(self, other: Kept) -> bool:
        """Whether they share sound."""
        near = abs(self.window.start - other.window.start) < self.window.samples.size
        return self.track is other.track and near


class Shelf:
    """The few windows with the highest rank (or the lowest) of all that are offered; none overlaps another."""

    def __init__(self, places: int, *, lowest: bool = False) -> None:
        self._places, self._lowest = places, lowest
        self._kept: list[tuple[Rank, Kept]] = []

    def __iter__(self) -> Iterator[Kept]:
        """The most telling first."""
        return (kept for _, kept in self._kept)

    def offer(self, kept: Kept, rank: Rank | None = None) -> None:
        """Keep a window if it is worth it; ``rank`` is its own unless given."""
        rank = kept.rank if rank is None else rank
        beside = [other for other in self._kept if other[1].overlaps(kept)]
        if any(self._is_before(theirs, rank) or theirs == rank for theirs, _ in beside):
            return
        self._kept = [other for other in self._kept if other not in beside]
        self._kept.append((rank, kept))
        self._kept.sort(key=lambda one: one[0], reverse=not self._lowest)
        del self._kept[self._places :]

    def _is_before(self, one: Rank, other: Rank) -> bool:
        return one < other if self._lowest else one > other


@dataclass(eq=False)
class HeardIncident:
    """An alarm, from raised to cleared."""

    number: int
    """Counted over the whole page, from 1."""
    track: Track
    uuid: str
    raised: float
    """Seconds from the start of the track."""
    cleared: float | None = None
    """Likewise; None if it was still open at the end."""
    windows: int = 0
    """Scored since the first anomalous one that counted towards raising."""
    anomalous: int = 0
    """Of these, at or over the threshold."""
    sick: int = 0
    """Of these, with a finding about the signal."""
    peak: Rank = ()
    """Rank of its most anomalous window; its rarity first."""
    shelf: Shelf | None = field(default_factory=lambda: Shelf(WINDOWS_PER_INCIDENT))
    """None where there are too many incidents to show."""

    def take(self, kept: Kept) -> None:
        """A window of it."""
        self.windows += 1
        self.anomalous += kept.reading.is_anomalous
        self.sick += kept.finding is not None
        self.peak = max(self.peak, kept.rank)
        if self.shelf is not None and kept.reading.is_anomalous:
            self.shelf.offer(kept)

    @property
    def end(self) -> float:
        """Seconds; that of the track where it was never cleared."""
        return self.track.recording.seconds if self.cleared is None else self.cleared


@dataclass(eq=False)
class Track:
    """One recording by itself, or one stream of several."""

    recording: ReplayedRecording
    pipeline: Pipeline
    files: list[tuple[Path, float]] = field(default_factory=list)
    """The files it is made of, and where each begins, seconds."""
    findings: dict[int, Finding] = field(default_factory=dict)
    """What is wrong with the signal, by the number of the window."""
    incidents: list[HeardIncident] = field(default_factory=list)

    def file_at(self, seconds: float) -> tuple[Path, float]:
        """The file that is heard at a time of the track, and the time within it."""
        within = [(path, seconds - begin) for path, begin in self.files if begin <= seconds + 1e-6]
        return within[-1] if within else (self.recording.path, seconds)


class Heard(Listener):
    """Gathers a report's material from a replay."""

    def __init__(self, *, joined: bool) -> None:
        """``joined``: streams are read, of which windows are shown; else recordings are."""
        self.joined = joined
        self.tracks: list[Track] = []
        self.incidents: list[HeardIncident] = []
        """Of all tracks, in order."""
        self.strangest: dict[bool | None, Shelf] = {}
        """By label: outside of incidents the most anomalous windows, or those of the most anomalous recordings."""
        self.most_ordinary: dict[bool | None, Shelf] = {}
        """By label: the least anomalous."""
        self._track: Track | None = None
        self._waiting: deque[Kept] = deque()
        """Windows that may yet turn out to be those that raised an incident."""

    def begin(self, recording: ReplayedRecording, pipeline: Pipeline) -> None:
        """A recording, or a stream, begins."""
        self._track = Track(recording, pipeline)
        seconds = pipeline.window / pipeline.sample_rate + _KEEP_SECONDS
        self._health = SignalHealth(pipeline.sample_rate, seconds)
        self._waiting.clear()
        self._of_recording = Shelf(1)
        self._quietest = Shelf(1, lowest=True)

    def file(self, path: Path, position: int) -> None:
        """A file begins."""
        assert self._track is not None  # a recording has begun
        self._track.files.append((path, position / self._track.pipeline.sample_rate))

    def block(self, samples: Float32Array) -> None:
        """Sound, for its health."""
        self._health.push(samples)

    def window(self, window: Window, reading: Reading) -> None:
        """Keep it where it is telling."""
        assert self._track is not None  # as above
        finding = self._health.verdict(reading.start, reading.end)
        if finding is not None:
            self._track.findings[len(self._track.recording.readings) - 1] = finding
        kept = Kept(self._track, window, reading, finding)
        if reading.rarity is None:
            return
        is_raised = reading.event is not None and reading.event.event == "raised"
        if is_raised:
            self._raise(kept)
        elif reading.incident is not None or reading.event is not None:
            self._track.incidents[-1].take(kept)
            if reading.event is not None:
                self._track.incidents[-1].cleared = reading.end / reading.sample_rate
        else:
            self._waiting.append(kept)
            if len(self._waiting) >= self._track.pipeline.rule.raise_window:
                self._set_aside(self._waiting.popleft())

    def end(self, recording: ReplayedRecording) -> None:
        """Take what was gathered, unless the recording failed."""
        track, self._track = self._track, None
        if track is None or track.recording is not recording or not recording.is_scored:
            return
        while self._waiting:
            self._set_aside(self._waiting.popleft())
        self.tracks.append(track)
        for incident in track.incidents:
            incident.number = len(self.incidents) + 1
            self.incidents.append(incident)
        self._bound()
        if not self.joined:
            # A recording stands on the shelves by what it is as a whole, and shows its most telling window.
            label = recording.is_anomaly
            rank = (recording.rarity or 0.0, recording.score or 0.0)
            windows = [*self._of_recording, *(kept for incident in track.incidents for kept in incident.shelf or ())]
            rarest = sorted(windows, key=lambda kept: kept.rank)[-1:]
            for shown in rarest:
                self._shelf(self.strangest, label, STRANGEST).offer(shown, rank)
            # Of an anomalous recording that hardly seems so, the question is what there would have been to hear.
            for shown in rarest if label else self._quietest:
                self._shelf(self.most_ordinary, label, MOST_ORDINARY, lowest=True).offer(shown, rank)

    def _raise(self, kept: Kept) -> None:
        assert self._track is not None and kept.reading.event is not None  # something was raised in it
        seconds = kept.reading.end / kept.reading.sample_rate
        incident = HeardIncident(0, self._track, kept.reading.event.incident, seconds)
        self._track.incidents.append(incident)
        for earlier in self._waiting:
            if earlier.reading.is_anomalous:
                incident.take(earlier)
            else:
                self._set_aside(earlier)
        self._waiting.clear()
        incident.take(kept)
        self._bound()

    def _set_aside(self, kept: Kept) -> None:
        """A window that belongs to no incident."""
        if self.joined:
            self._shelf(self.strangest, None, STRANGEST).offer(kept)
            self._shelf(self.most_ordinary, None, MOST_ORDINARY, lowest=True).offer(kept)
        else:
            self._of_recording.offer(kept)
            self._quietest.offer(kept)

    def _bound(self) -> None:
        """No more than so many incidents keep windows, and the one that is open, of which more may come."""
        over = self.incidents if self._track is None else [*self.incidents, *self._track.incidents[:-1]]
        shown = [incident for incident in over if incident.shelf is not None]
        shown.sort(key=lambda incident: incident.peak, reverse=True)
        for incident in shown[MOST_INCIDENTS:]:
            incident.shelf = None

    @staticmethod
    def _shelf(shelves: dict[bool | None, Shelf], label: bool | None, places: int, *, lowest: bool = False) -> Shelf:
        return shelves.setdefault(label, Shelf(places, lowest=lowest))
