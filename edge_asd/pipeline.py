"""One machine: window in, reading out. Replay and the daemon run the same, with another source at its head."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from edge_asd.alarm import Alarm, AlarmEvent, AlarmRule
from edge_asd.audio.health import Finding
from edge_asd.audio.windows import Window, WindowCutter
from edge_asd.calibration import MAX_RARITY, Calibration, combined_rarity, learned_gate
from edge_asd.detector import Detector
from edge_asd.detector_reading import DetectorReading
from edge_asd.errors import DetectorError
from edge_asd.explanation import Explanation, explain
from edge_asd.logmel import Float32Array, LogMelParameters, log_mel
from edge_asd.operating_point import OperatingPoint, operating_point

Condition = Literal["starting", "normal", "anomalous", "idle", "maintenance"]
Signal = Literal["ok", "none", "suspect"]
Result = Literal["scored", "gap", "suspect", "idle", "late", "failed"]
"""What became of a window: scored, or not scored because samples were lost, its signal is sick, the machine stands
still, there was no time for it, or a detector failed."""


@dataclass(frozen=True)
class AlarmSettings:
    """What a user says of the alarm."""

    false_alarms_per_day: float = 0.1
    """Raised incidents per machine and day that normal sound may cause."""
    raise_count: int = 3
    raise_window: int = 5
    clear_after: int = 5
    rest_seconds: float = 300.0
    threshold: float | None = None
    """Rarity; overrides ``false_alarms_per_day``."""

    def rule(self, threshold: float = 1.0) -> AlarmRule:
        """The rule at a threshold; raises ValueError where it can never fire."""
        chosen = threshold if self.threshold is None else self.threshold
        return AlarmRule(chosen, self.raise_count, self.raise_window, self.clear_after, self.rest_seconds)


@dataclass(frozen=True)
class MachineDetector:
    """A detector as one machine uses it."""

    detector: Detector
    machine_id: str
    """The id within the detector."""
    name: str
    """Of the file, for people."""

    calibration: Calibration
    """Of this machine."""

    @classmethod
    def of(cls, detector: Detector, machine_id: str | None, name: str | None = None) -> MachineDetector:
        """With the calibration that lies in the detector.

        Raises:
            DetectorError: the id is not known, or not said and there are several.
        """
        known = detector.metadata.ids[detector.index_of(machine_id)]
        return cls(detector, known, name or detector.path.name, detector.metadata.calibration[known])

    def calibrated(self, calibration: Calibration) -> MachineDetector:
        """The same with another calibration, such as the site's own."""
        return replace(self, calibration=calibration)


@dataclass(frozen=True)
class Reading:
    """All that is known after a window."""

    start: int
    """First sample of the window, counted from the start of the stream."""
    end: int
    """The sample after its last."""
    sample_rate: int
    """Hz."""
    result: Result
    is_repeated: bool
    """The recording was shorter than a window."""
    lost: int
    """Samples lost within the window."""
    level_dbfs: float | None
    """Of what was heard; None where all was lost."""
    level_change_db: float | None
    """Against the normal level of the first detector's calibration."""
    rarity: float | None
    """The machine's; None where the window was not scored."""
    threshold: float
    clear_below: float
    detectors: tuple[DetectorReading, ...]
    condition: Condition
    event: AlarmEvent | None
    incident: str | None
    """Open after this window."""
    finding: Finding | None = None
    """What is wrong with the signal."""

    @property
    def is_anomalous(self) -> bool:
        """This window by itself."""
        return self.rarity is not None and self.rarity >= self.threshold

    @property
    def agreeing(self) -> list[str]:
        """Detectors whose own rarity reaches the threshold."""
        return [d.name for d in self.detectors if d.rarity >= self.threshold]


class Pipeline:
    """Log-Mel, detectors and alarm of one machine."""

    def __init__(
        self,
        detectors: Sequence[MachineDetector],
        alarm: AlarmSettings,
        *,
        hop_seconds: float,
        active_above_dbfs: float | Literal["learned"] | None = None,
    ) -> None:
        """
        Args:
            detectors: one or more.
            alarm: what the user says.
            hop_seconds: from window to window.
            active_above_dbfs: quieter windows mean that the machine stands still; they are not scored. ``learned``:
                a little below the quietest windows of the first detector's calibration.

        Raises:
            DetectorError: detectors that want windows of different lengths or rates.
            ValueError: an alarm that can never fire.
        """
        first = detectors[0].detector
        self.sample_rate = first.log_mel_parameters.sample_rate
        self.window = first.metadata.window_samples
        for other in detectors[1:]:
            theirs = other.detector.log_mel_parameters.sample_rate, other.detector.metadata.window_samples
            if theirs != (self.sample_rate, self.window):
                raise DetectorError(other.detector.path, f"wants other windows than {detectors[0].name}: {theirs}")
        self.detectors = tuple(detectors)
        self.hop_seconds = hop_seconds
        self.hop = round(hop_seconds * self.sample_rate)
        self.active_above_dbfs: float | None = (
            learned_gate(detectors[0].calibration) if active_above_dbfs == "learned" else active_above_dbfs
        )
        self.operating_point: OperatingPoint | None = None
        if alarm.threshold is None:
            calibrations = tuple(d.calibration for d in self.detectors)
            self.operating_point = operating_point(calibrations, alarm.rule(), hop_seconds, alarm.false_alarms_per_day)
            self.rule = alarm.rule(self.operating_point.threshold)
        else:
            self.rule = alarm.rule()
        # A detector alone reaches the machine's threshold at a rarity that is higher by what Bonferroni takes.
        alone = self.rule.threshold + math.log10(len(detectors))
        if alone >= MAX_RARITY:
            raise ValueError(
                f"a threshold of {self.rule.threshold:g} can never be reached by {len(detectors)} detectors"
            )
        self._thresholds = [d.calibration.score_at(alone) for d in self.detectors]
        self.reset()

    def reset(self) -> None:
        """Forget the alarm's state."""
        self.alarm = Alarm(self.rule)
        self._has_scored = self._is_idle = False
        self.is_in_maintenance = False  # who sets it also tells `read` which windows are held

    def adopt(self, other: Pipeline) -> None:
        """Take over detectors, gate and rule of another that cuts alike; not while a window is being read.

        An open incident stays open. Votes that other detectors cast, or another threshold, do not count any more.
        """
        is_same_scale = (self.detectors, self.rule.threshold) == (other.detectors, other.rule.threshold)
        self.detectors, self._thresholds = other.detectors, other._thresholds
        self.active_above_dbfs, self.operating_point = other.active_above_dbfs, other.operating_point
        self.rule = other.rule
        self.alarm.adopt(other.rule)
        if not is_same_scale:
            self.alarm.forget()

    def cutter(self) -> WindowCutter:
        """A window cutter as this machine needs it."""
        return WindowCutter(self.window, self.hop)

    def read(
        self, window: Window, *, stands_still: bool = False, is_held: Callable[[], bool] = lambda: False
    ) -> Reading:
        """Score a window and let the alarm decide.

        Args:
            stands_still: somebody else says that the machine was not running all the time: it is not scored.
            is_held: the alarm does not hear of it, and counts its votes anew afterwards; asked once it is scored.

        Raises:
            DetectorError: a detector cannot score it.
        """
        level = window.level_dbfs
        result: Result = "scored"
        readings: tuple[DetectorReading, ...] = ()
        rarity: float | None = None
        if window.lost:
            result = "gap"
        elif window.finding is not None:
            result = "suspect"
        elif stands_still or (self.active_above_dbfs is not None and (level is None or level < self.active_above_dbfs)):
            result, self._is_idle = "idle", True
        else:
            readings = self._score(window)
            rarity = combined_rarity([r.rarity for r in readings])
            self._has_scored, self._is_idle = True, False
        return self._decide(window, level, result, readings, rarity, is_held())

    def skip(self, window: Window, result: Result) -> Reading:
        """Account for a window that is not scored, and why."""
        return self._decide(window, window.level_dbfs, result, (), None)

    def explain(self, window: Window) -> Explanation:
        """Where in time and frequency a window's scores come from; neither asks nor changes the alarm.

        Raises:
            DetectorError: a detector cannot score it.
        """
        used = [(d.name, d.detector, d.detector.index_of(d.machine_id)) for d in self.detectors]
        return explain(window.samples, used)

    def _decide(
        self,
        window: Window,
        level: float | None,
        result: Result,
        readings: tuple[DetectorReading, ...],
        rarity: float | None,
        is_held: bool = False,
    ) -> Reading:
        end = window.start + window.samples.size
        if is_held:
            self.alarm.forget()
        event = self.alarm.step(None if is_held else rarity, end / self.sample_rate, self.hop_seconds)
        return Reading(
            start=window.start,
            end=end,
            sample_rate=self.sample_rate,
            result=result,
            is_repeated=window.is_repeated,
            lost=window.lost,
            level_dbfs=level,
            level_change_db=None if level is None else level - self.detectors[0].calibration.level_dbfs,
            rarity=rarity,
            threshold=self.rule.threshold,
            clear_below=self.rule.clear_below,
            detectors=readings,
            condition=self.condition,
            event=event,
            incident=self.alarm.incident,
            finding=window.finding,
        )

    @property
    def condition(self) -> Condition:
        """Of the machine, after the last window."""
        if self.is_in_maintenance:
            return "maintenance"
        if self.alarm.incident is not None:
            return "anomalous"
        if self._is_idle:
            return "idle"
        return "normal" if self._has_scored else "starting"

    def _score(self, window: Window) -> tuple[DetectorReading, ...]:
        mels: dict[LogMelParameters, Float32Array] = {}
        readings = []
        for used, threshold in zip(self.detectors, self._thresholds, strict=True):
            begun = time.perf_counter()
            parameters = used.detector.log_mel_parameters
            if parameters not in mels:
                mels[parameters] = log_mel(window.samples, parameters)
            found = used.detector.score(mels[parameters], used.detector.index_of(used.machine_id))
            readings.append(
                DetectorReading(
                    name=used.name,
                    kind=used.detector.metadata.kind,
                    sha256=used.detector.sha256,
                    score=found.score,
                    threshold=threshold,
                    rarity=used.calibration.rarity(found.score),
                    report_score=found.report_score,
                    seconds=time.perf_counter() - begun,
                )
            )
        return tuple(readings)
