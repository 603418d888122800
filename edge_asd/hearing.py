"""Normal sound through a machine's own pipeline: the scores that a calibration is made of."""

from __future__ import annotations

import hashlib
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from edge_asd.audio.recording import read_blocks
from edge_asd.audio.stream import MachineStream
from edge_asd.audio.windows import WindowCutter
from edge_asd.calibration import Calibration
from edge_asd.errors import RecordingError
from edge_asd.normal_sound import CLIP_DIGITS, NormalClip, clip_digest
from edge_asd.pipeline import Pipeline, Reading


@dataclass
class NormalSound:
    """What was heard of a machine, window by window, one after another and not overlapping."""

    scores: list[tuple[float, ...]] = field(default_factory=list)
    """Of each window, by detector."""
    rarities: list[tuple[float, ...]] = field(default_factory=list)
    """Likewise, by the calibrations that count so far."""
    machine_rarities: list[float] = field(default_factory=list)
    """Likewise, of all detectors together."""
    levels: list[float] = field(default_factory=list)
    """dBFS, of each window."""
    stretches: list[int] = field(default_factory=list)
    """Lengths of contiguous stretches, windows."""
    window_seconds: float = 0.0
    left_out: Counter[str] = field(default_factory=Counter)
    """Windows (clips, where they were not read) that do not count, by reason."""
    failed: list[RecordingError] = field(default_factory=list)
    fingerprint: str = ""
    """Of the windows that count: equal for the same ones in the same order."""

    @property
    def hours(self) -> float:
        """Of the windows that count."""
        return len(self.scores) * self.window_seconds / 3600

    def calibration(self, detector: int, source: str) -> Calibration:
        """The new calibration of a detector, by its number.

        Raises:
            ValueError: fewer than `MIN_SCORES` windows, or all with the same score.
        """
        return Calibration.from_scores(
            [s[detector] for s in self.scores],
            level_dbfs=float(np.median(self.levels)),
            level_low_dbfs=float(np.quantile(self.levels, 0.01)),
            source=source,
            stretches=self.stretches,
            hop_seconds=self.window_seconds,
            sound=self.fingerprint,
        )


TRAINED = "trained on"
BESIDE_TRAINED = "beside those"
TOO_SHORT = "too short"


def hear(
    clips: Sequence[NormalClip],
    pipeline: Pipeline,
    trained: frozenset[str],
    channel: int,
    tell: Callable[[str], None] = lambda _: None,
) -> NormalSound:
    """Score normal sound as the daemon would: the same refusals, windows, log-Mel and scores.

    Clips that a detector was trained on are left out, for all of them: so they have heard the same. So are clips that
    begin or end where one of those does, since neighbouring seconds of a machine are alike.

    Args:
        clips: in the order of time.
        pipeline: with the calibrations that count so far; its hop must be a window.
        trained: digests of the clips that a detector was trained on.
        channel: of the recordings, from 1.
        tell: told of the progress.
    """
    sound = NormalSound(window_seconds=pipeline.window / pipeline.sample_rate)
    digests: list[str | None] = []
    for clip in clips:
        try:
            digests.append(clip_digest(clip.path))
        except RecordingError as error:
            digests.append(None)
            sound.failed.append(error)
    spoilt = _spoilt(clips, digests, trained)
    fingerprint = hashlib.sha256()
    goes_on = False
    for number, (clip, digest) in enumerate(zip(clips, digests, strict=True)):
        tell(f"{number + 1} of {len(clips)}")
        goes_on &= clip.follows
        if digest is None or number in spoilt:
            goes_on = False
            if digest is not None:
                sound.left_out[spoilt[number]] += 1
            continue
        try:
            readings = _read(clip, pipeline, channel)
        except RecordingError as error:
            sound.failed.append(error)
            goes_on = False
            continue
        if not readings:
            sound.left_out[TOO_SHORT] += 1
            goes_on = False
        for index, reading in enumerate(readings):
            goes_on = _take(reading, sound, goes_on)
            if goes_on:
                fingerprint.update(f"{digest} {channel} {index}\n".encode())
    sound.fingerprint = fingerprint.hexdigest()[:CLIP_DIGITS]
    return sound


def _spoilt(clips: Sequence[NormalClip], digests: Sequence[str | None], trained: frozenset[str]) -> dict[int, str]:
    """Clips that do not count, by number, each with the reason."""
    reasons = {n: TRAINED for n, digest in enumerate(digests) if digest in trained}
    for number in list(reasons):
        if clips[number].follows:
            reasons.setdefault(number - 1, BESIDE_TRAINED)
        if number + 1 < len(clips) and clips[number + 1].follows:
            reasons.setdefault(number + 1, BESIDE_TRAINED)
    return reasons


def _read(clip: NormalClip, pipeline: Pipeline, channel: int) -> list[Reading]:
    """All windows of a clip, scored or not; raises RecordingError before any of them counts."""
    # As the daemon plays a recording, its signal's health included.
    stream = MachineStream(WindowCutter(pipeline.window, pipeline.window), pipeline.sample_rate)
    readings: list[Reading] = []
    given = 0
    for block in read_blocks(clip.path, sample_rate=pipeline.sample_rate, channel=channel):
        readings += [pipeline.read(window) for window in stream.push(given, pipeline.sample_rate, block)]
        given += block.size
    return readings


def _take(reading: Reading, sound: NormalSound, goes_on: bool) -> bool:
    """Note a window; whether the stretch goes on after it."""
    if reading.result != "scored":
        sound.left_out[reading.finding.reason if reading.finding else reading.result] += 1
        return False
    assert reading.rarity is not None and reading.level_dbfs is not None  # it was scored
    sound.scores.append(tuple(d.score for d in reading.detectors))
    sound.rarities.append(tuple(d.rarity for d in reading.detectors))
    sound.machine_rarities.append(reading.rarity)
    sound.levels.append(reading.level_dbfs)
    if goes_on:
        sound.stretches[-1] += 1
    else:
        sound.stretches.append(1)
    return True


def progress(text: str) -> None:
    """On a terminal, one line again and again."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)
