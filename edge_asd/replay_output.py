"""``edge-asd replay``: what it prints."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from edge_asd.audio.recording import find_recordings
from edge_asd.audio.windows import MIN_HOP_SECONDS
from edge_asd.errors import EXIT_DONE, EXIT_SOME_FAILED, RecordingError, UsageError
from edge_asd.pipeline import AlarmSettings, Reading
from edge_asd.replay import Replayer, as_document, roc_of
from edge_asd.replayed import ReplayedRecording
from edge_asd.roc import RocSummary, mean_over_ids
from edge_asd.verification import load_detector


def replay(options: argparse.Namespace) -> int:
    """Replay as the command line says; returns the exit status.

    Raises:
        UsageError: options that make no sense.
        DetectorError: a detector cannot be trusted, or does not know the machine.
    """
    if not MIN_HOP_SECONDS <= options.hop <= 3600:
        raise UsageError(f"--hop {options.hop:g}: must be from {MIN_HOP_SECONDS:g} to 3600 seconds")
    if options.channel < 1:
        raise UsageError(f"--channel {options.channel}: channels are counted from 1")
    heard = None
    if options.report is not None:
        from edge_asd.report.heard import Heard
        from edge_asd.report.page import check_page_path

        check_page_path(options.report)
        heard = Heard(joined=options.stream)
    replayer = Replayer(
        [load_detector(path) for path in options.detector],
        AlarmSettings(false_alarms_per_day=options.false_alarms_per_day),
        hop_seconds=options.hop,
        machine_id=options.id,
        channel=options.channel,
        listener=heard,
    )
    table = None if options.json else _Table(replayer)
    missing: list[RecordingError] = []
    recordings = _replay_all(replayer, options.paths, options.stream, table, missing)
    for lost in missing:
        recordings.append(ReplayedRecording(lost.path, None, None, failed=[lost]))
    if options.json:
        json.dump(as_document(replayer, recordings), sys.stdout, indent=1, allow_nan=False)
        print()
    else:
        assert table is not None
        table.finish(recordings)
    if heard is not None:
        from edge_asd.report.replay_report import write_report

        said = write_report(options.report, replayer, heard, recordings, options.paths, _progress)
        # With --json, standard output is one document.
        print(said, file=sys.stderr if options.json else sys.stdout)
    return EXIT_SOME_FAILED if any(r.failed for r in recordings) else EXIT_DONE


def _replay_all(
    replayer: Replayer, paths: Sequence[Path], joined: bool, table: _Table | None, missing: list[RecordingError]
) -> list[ReplayedRecording]:
    recordings: list[ReplayedRecording] = []
    groups: list[tuple[Path, list[Path]]] = []
    for path in paths:
        try:
            groups.append((path, find_recordings([path])))
        except RecordingError as error:
            missing.append(error)
            _complain(error)
    total = sum(len(files) for _, files in groups)
    done = 0
    for path, files in groups:
        if joined:
            recording = replayer.replay_stream(path, files, lambda r: None if table is None else table.window(r))
            recordings.append(recording)
            for lost in recording.failed:
                _complain(lost)
            continue
        for file in files:
            recording = replayer.replay_file(file)
            recordings.append(recording)
            done += 1
            for lost in recording.failed:
                _complain(lost)
            if table is not None:
                table.recording(recording)
            _progress(f"{done} of {total}")
    return recordings


def _progress(text: str) -> None:
    if sys.stderr.isatty():
        print(text, end="\r", file=sys.stderr)


def _complain(error: RecordingError) -> None:
    print(f"edge-asd: {error}", file=sys.stderr)


class _Table:
    """A line for each recording (or window, of a stream), then what follows from all of them."""

    def __init__(self, replayer: Replayer) -> None:
        self._replayer = replayer
        self._detectors = [d.path.name for d in replayer.detectors]
        self._has_head = False

    def recording(self, recording: ReplayedRecording) -> None:
        if not recording.is_scored:
            return
        scores = [recording.detector_score(i) for i in range(len(self._detectors))]
        first = recording.readings[0]
        heard = sum(r.is_anomalous for r in recording.readings)
        self._head("rarity  threshold  windows anomalous  recording")
        notes = f"  [{', '.join(recording.flags)}]" if recording.flags else ""
        print(
            "  ".join(f"{_number(s):>8}" for s in scores)
            + f"  {_number(recording.rarity):>6}  {first.threshold:9.2f}  {heard:>4} of {len(recording.readings):<8}"
            + f"  {recording.path}{notes}"
        )

    def window(self, reading: Reading) -> None:
        self._head("rarity  threshold  condition  time")
        seconds = reading.start / reading.sample_rate
        event = f"  {reading.event.event.upper()} {reading.event.incident}" if reading.event else ""
        scores: list[float | None] = [d.score for d in reading.detectors]
        scores = scores or [None] * len(self._detectors)
        print(
            "  ".join(f"{_number(s):>8}" for s in scores)
            + f"  {_number(reading.rarity):>6}  {reading.threshold:9.2f}  {reading.condition:<9}"
            + f"  {int(seconds // 60):3d}:{seconds % 60:04.1f}{event}"
        )

    def finish(self, recordings: Sequence[ReplayedRecording]) -> None:
        scored = [r for r in recordings if r.is_scored]
        print(f"{len(scored)} of {len(recordings)} scored")
        for number, name in enumerate(self._detectors):
            self._auc(name, roc_of(scored, number))
        if len(self._detectors) > 1:
            self._auc("combined", roc_of(scored, None))

    def _head(self, rest: str) -> None:
        if not self._has_head:
            print("score of " + ", ".join(self._detectors) + "; " + rest)
            self._has_head = True

    @staticmethod
    def _auc(name: str, summaries: dict[str, RocSummary]) -> None:
        mean = mean_over_ids(summaries)
        if mean is None:
            return
        print(f"AUC / pAUC of {name}: {mean[0]:.3f} / {mean[1]:.3f} (mean of {len(summaries)} ids)")
        for machine_id, one in summaries.items():
            print(f"  {machine_id}: {one.auc:.3f} / {one.pauc:.3f} ({one.normal} normal, {one.anomalous} anomalous)")


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
