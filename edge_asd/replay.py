"""Scores recordings at full speed through the daemon's own pipeline."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from edge_asd.audio.recording import probe, read_blocks
from edge_asd.audio.windows import Window
from edge_asd.dcase import parse_clip_name
from edge_asd.detector import Detector
from edge_asd.errors import DetectorError, RecordingError, UsageError
from edge_asd.pipeline import AlarmSettings, MachineDetector, Pipeline, Reading
from edge_asd.replayed import Listener, ReplayedRecording
from edge_asd.roc import RocSummary, mean_over_ids, summarise

SCHEMA = 1


class Replayer:
    """Detectors and an alarm, applied to recording after recording."""

    def __init__(
        self,
        detectors: Sequence[Detector],
        alarm: AlarmSettings,
        *,
        hop_seconds: float,
        machine_id: str | None = None,
        channel: int = 1,
        listener: Listener | None = None,
    ) -> None:
        """
        Args:
            detectors: combined as on one machine.
            alarm: what the user says of it.
            hop_seconds: from window to window.
            machine_id: for detectors of several; taken from the file's name unless given.
            channel: of the recordings, from 1.
            listener: told of everything that is read.
        """
        self.detectors = list(detectors)
        self.alarm = alarm
        self.hop_seconds = hop_seconds
        self.machine_id = machine_id
        self.channel = channel
        self._listener = listener or Listener()
        self._pipelines: dict[str | None, Pipeline] = {}

    def pipeline(self, path: Path) -> tuple[Pipeline, str | None]:
        """The pipeline for a recording, its alarm reset, and the machine id it is for.

        Raises:
            RecordingError: the id is not known to a detector, or neither given nor in the name.
            UsageError: the alarm can never fire.
        """
        machine_id = self.machine_id
        name = parse_clip_name(path)
        if machine_id is None and name is not None and any(len(d.metadata.ids) > 1 for d in self.detectors):
            machine_id = name.machine_id
        if machine_id not in self._pipelines:
            # A detector with a single id is a site's own: it takes every recording, whatever its name says.
            try:
                used = [MachineDetector.of(d, machine_id if len(d.metadata.ids) > 1 else None) for d in self.detectors]
            except DetectorError as error:
                raise RecordingError(path, f"not scored: {error}") from None
            try:
                self._pipelines[machine_id] = Pipeline(used, self.alarm, hop_seconds=self.hop_seconds)
            except ValueError as error:
                raise UsageError(f"alarm: {error}") from None
        pipeline = self._pipelines[machine_id]
        pipeline.reset()
        return pipeline, machine_id

    def replay_file(self, path: Path) -> ReplayedRecording:
        """Score one recording by itself; what cannot be read is noted in ``failed``."""
        name = parse_clip_name(path)
        replayed = ReplayedRecording(path, self.machine_id, name.is_anomaly if name else None)
        try:
            pipeline, replayed.machine_id = self.pipeline(path)
            recorded = probe(path).sample_rate
            if recorded < pipeline.sample_rate:
                replayed.flags.append(f"recorded_at_{recorded}_hz")
            course = _Course(replayed, pipeline, self._listener)
            course.read(path, self.channel)
            course.finish()
        except RecordingError as error:
            replayed.failed.append(error)
            replayed.readings.clear()
        self._listener.end(replayed)
        return replayed

    def replay_stream(
        self, folder: Path, paths: Sequence[Path], on_reading: Callable[[Reading], None]
    ) -> ReplayedRecording:
        """Score recordings joined in order as one stream.

        A file that cannot be read, or is of another machine than the first, is noted in ``failed`` and left out; what
        was read of it before stays.

        Args:
            folder: names the result.
            paths: the recordings, at least one.
            on_reading: told of each window as it comes.
        """
        replayed = ReplayedRecording(folder, self.machine_id, None)
        try:
            pipeline, replayed.machine_id = self.pipeline(paths[0])
        except RecordingError as error:
            replayed.failed.append(error)
            return replayed
        course = _Course(replayed, pipeline, self._listener, on_reading)
        for path in paths:
            try:
                self._check_same_machine(path, replayed.machine_id)
                course.read(path, self.channel)
            except RecordingError as error:
                replayed.failed.append(error)
        course.finish()
        self._listener.end(replayed)
        return replayed

    def _check_same_machine(self, path: Path, machine_id: str | None) -> None:
        """A stream is of one machine: with detectors of several, the names must not say otherwise."""
        name = parse_clip_name(path)
        if self.machine_id is None and machine_id is not None and name is not None and name.machine_id != machine_id:
            raise RecordingError(path, f"not scored: is of {name.machine_id} in a stream of {machine_id}")


class _Course:
    """One recording, or several joined, on the way through a pipeline."""

    def __init__(
        self,
        replayed: ReplayedRecording,
        pipeline: Pipeline,
        listener: Listener,
        on_reading: Callable[[Reading], None] = lambda _: None,
    ) -> None:
        self._replayed, self._pipeline, self._listener = replayed, pipeline, listener
        self._on_reading = on_reading
        self._cutter = pipeline.cutter()
        listener.begin(replayed, pipeline)

    def read(self, path: Path, channel: int) -> None:
        """Take a file to its end; raises RecordingError, perhaps after some windows."""
        self._listener.file(path, self._cutter.position)
        for block in read_blocks(path, sample_rate=self._pipeline.sample_rate, channel=channel):
            self._listener.block(block)
            for window in self._cutter.push(block):
                self._take(window)

    def finish(self) -> None:
        """There is no more; what is shorter than a window counts, too."""
        if (short := self._cutter.repeated()) is not None:
            self._take(short)
        _note_length(self._replayed, self._cutter.position, self._pipeline)

    def _take(self, window: Window) -> None:
        reading = self._pipeline.read(window)
        self._replayed.readings.append(reading)
        self._on_reading(reading)
        self._listener.window(window, reading)


def _note_length(replayed: ReplayedRecording, samples: int, pipeline: Pipeline) -> None:
    replayed.seconds = samples / pipeline.sample_rate
    if 0 < samples < pipeline.window:
        replayed.flags.append("repeated")
    elif samples > pipeline.window:
        rest = (samples - pipeline.window) % pipeline.hop if pipeline.hop <= pipeline.window else 0
        if rest >= 0.1 * pipeline.sample_rate:
            replayed.flags.append(f"last_{rest / pipeline.sample_rate:.1f}_s_not_scored")


def roc_of(recordings: Sequence[ReplayedRecording], detector: int | None) -> dict[str, RocSummary]:
    """AUC and pAUC by machine id of labelled recordings, by one detector's score or (None) by the recording's."""
    scores = []
    for recording in recordings:
        name = parse_clip_name(recording.path)
        score = recording.score if detector is None else recording.detector_score(detector)
        if name is not None and recording.is_anomaly is not None and score is not None:
            scores.append((name.machine_id, recording.is_anomaly, score))
    return summarise(scores)


def as_document(replayer: Replayer, recordings: Sequence[ReplayedRecording]) -> dict[str, Any]:
    """The document of ``replay --json``; its schema is ``deploy/schemas/replay.schema.json``."""
    return {
        "schema": SCHEMA,
        "detectors": [
            {
                "file": str(d.path),
                "kind": d.metadata.kind,
                "sha256": d.sha256,
                "auc": _auc_document(roc_of(recordings, number)),
            }
            for number, d in enumerate(replayer.detectors)
        ],
        "hop_seconds": replayer.hop_seconds,
        "recordings": [_recording_document(r) for r in recordings if r.is_scored],
        "failed": [{"file": str(e.path), "reason": e.reason} for r in recordings for e in r.failed],
        "auc": _auc_document(roc_of(recordings, None)),
    }


def _recording_document(recording: ReplayedRecording) -> dict[str, Any]:
    first = recording.readings[0]
    name = parse_clip_name(recording.path)
    return {
        "file": str(recording.path),
        "machine_id": recording.machine_id or (name.machine_id if name else None),
        "label": {None: None, True: "anomaly", False: "normal"}[recording.is_anomaly],
        "seconds": round(recording.seconds, 6),
        "score": recording.score,
        "report_score": recording.mean(lambda r: r.detectors[0].report_score if r.detectors else None),
        "rarity": recording.rarity,
        "threshold": first.threshold,
        "flags": recording.flags,
        "windows": [window_document(r) for r in recording.readings],
    }


def window_document(reading: Reading) -> dict[str, Any]:
    """One window of a recording."""
    assert reading.level_dbfs is not None  # nothing of a recording is lost
    return {
        "start_seconds": reading.start / reading.sample_rate,
        "result": reading.result,
        "level_dbfs": round(reading.level_dbfs, 3),
        "rarity": reading.rarity,
        "anomalous": reading.is_anomalous,
        "condition": reading.condition,
        "event": None if reading.event is None else reading.event.event,
        "incident": reading.incident if reading.event is None else reading.event.incident,
        "detectors": [
            {"score": d.score, "report_score": d.report_score, "rarity": d.rarity, "threshold": d.threshold}
            for d in reading.detectors
        ],
    }


def _auc_document(summaries: dict[str, RocSummary]) -> dict[str, Any] | None:
    mean = mean_over_ids(summaries)
    if mean is None:
        return None
    ids = {
        i: {"auc": s.auc, "pauc": s.pauc, "normal": s.normal, "anomalous": s.anomalous} for i, s in summaries.items()
    }
    return {"per_id": ids, "mean": {"auc": mean[0], "pauc": mean[1]}}
