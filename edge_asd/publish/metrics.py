"""Prometheus metrics on a registry of their own; `edge_asd.publish.metrics_server` serves them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, disable_created_metrics

from edge_asd import __version__
from edge_asd.audio.health import SuspectReason
from edge_asd.audio.ledger import Kind
from edge_asd.pipeline import Condition, MachineDetector, Pipeline, Reading, Result, Signal
from edge_asd.publish.evidence_folder import SkippedReason

_DURATIONS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Metrics:
    """All that a daemon counts; names begin with ``edge_asd_``, those of the process itself with ``process_``."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        """``registry``: a fresh one unless given."""
        self.registry = registry or CollectorRegistry()
        disable_created_metrics()  # type: ignore[no-untyped-call]
        ProcessCollector(registry=self.registry)
        of_machine = ["machine"]
        self.rarity = self._gauge(
            "machine_rarity",
            "Minus log10 of the probability of such sound when normal; NaN before the first window.",
            of_machine,
        )
        self.threshold = self._gauge("machine_rarity_threshold", "Rarity from which a window is anomalous.", of_machine)
        self.condition = self._gauge("condition", "1 for the condition a machine is in.", ["machine", "condition"])
        self.signal = self._gauge("signal", "1 for the state its sound signal is in.", ["machine", "signal"])
        self.suspect = self._gauge("signal_suspect", "1 for what is wrong with its signal.", ["machine", "reason"])
        self.muted = self._gauge("muted", "1 while a machine is in maintenance and raises nothing.", of_machine)
        self.level = self._gauge(
            "audio_level_dbfs", "Mean power of the last window, dB re full scale; -120 is digital silence.", of_machine
        )
        self.windows = self._counter("windows", "Windows by what became of them.", ["machine", "result"])
        self.frames = self._counter(
            "audio_frames", "Audio samples at the detectors' rate, lost ones not counted.", of_machine
        )
        self.lost_frames = self._counter(
            "audio_lost_frames", "Audio samples at the detectors' rate that were lost.", of_machine
        )
        self.disturbances = self._counter(
            "audio_disturbances", "What delayed (burst) or cost (gap, overflow, loss) samples of the device.", ["kind"]
        )
        self.device_up: Gauge | None = None
        """Once there is a device."""
        self.last_score = self._gauge(
            "last_score_timestamp_seconds", "When a window was last scored; 0 before the first.", of_machine
        )
        self.hop = self._gauge("hop_seconds", "From window to window.", of_machine)
        self.incidents = self._counter("incidents", "Incidents raised.", of_machine)
        of_detector = ["machine", "detector"]
        self.score = self._gauge(
            "detector_score", "Score of the last window, without a unit; NaN before the first.", of_detector
        )
        self.duration = Histogram(
            "edge_asd_scoring_duration_seconds",
            "Time from a window to a detector's score, its log-Mel included.",
            of_detector,
            buckets=_DURATIONS,
            registry=self.registry,
        )
        self.info = self._gauge("detector_info", "1 for each detector.", [*of_detector, "sha256", "kind"])
        self.budget = self._gauge(
            "scoring_budget_ratio",
            "Scoring time over the time that the allowed cores have; above 1 windows are skipped.",
        )
        self.mqtt_connected = self._gauge("mqtt_connected", "1 while the broker is connected; NaN without a broker.")
        self.mqtt_connected.set(math.nan)  # `== 0` must not hold of a daemon that has no broker
        self.mqtt_acknowledged = self._counter("mqtt_acknowledged", "Messages that the broker acknowledged.")
        self.mqtt_refused = self._counter("mqtt_refused", "Messages that the broker refused.")
        self.mqtt_unheard = self._counter("mqtt_unheard", "Alerts that had no subscriber.")
        self.evidence_bytes = self._gauge("evidence_bytes", "Bytes that pictures and clips of incidents take up.")
        self.evidence_skipped = self._counter("evidence_skipped", "Pictures and clips that were not kept.", ["reason"])
        for reason in get_args(SkippedReason):
            self.evidence_skipped.labels(reason)
        self.outbox_messages = self._gauge("outbox_messages", "Alerts that no broker has acknowledged yet.")
        self.outbox_oldest = self._gauge(
            "outbox_oldest_timestamp_seconds", "When the oldest of them was made; 0: none."
        )
        self.outbox_dropped = self._counter("outbox_dropped", "Alerts that were lost, at least, by why.", ["reason"])
        for reason in ("full", "expired", "corrupt"):
            self.outbox_dropped.labels(reason)
        self.outbox_errors = self._counter("outbox_errors", "Attempts to use the outbox's file that failed.")
        self.reload_successful = self._gauge(
            "config_last_reload_successful", "1 where the last attempt to load the configuration succeeded."
        )
        self.reload_time = self._gauge(
            "config_last_reload_success_timestamp_seconds", "When the configuration was last loaded."
        )
        self._gauge("build_info", "1, with the version.", ["version"]).labels(__version__).set(1)

    def introduce(self, machine: str, pipeline: Pipeline) -> None:
        """Make all series of a machine exist before anything happens, so that rates and alerts work from the start."""
        self.hop.labels(machine).set(pipeline.hop_seconds)
        for result in get_args(Result):
            self.windows.labels(machine, result)
        for counter in (self.frames, self.lost_frames, self.incidents):
            counter.labels(machine)
        for unheard in (self.rarity, self.level):
            unheard.labels(machine).set(math.nan)
        self.last_score.labels(machine)
        self.muted.labels(machine).set(0)
        self.exchange(machine, (), pipeline)
        self.be(machine, "starting", "none", None)

    def exchange(self, machine: str, former: Sequence[MachineDetector], pipeline: Pipeline) -> None:
        """Series of a machine's detectors in place of those that it had; names and files that are gone have none."""
        self.threshold.labels(machine).set(pipeline.rule.threshold)
        for gone in former:
            self.info.remove(machine, gone.name, gone.detector.sha256, gone.detector.metadata.kind)
        for name in {d.name for d in former} - {d.name for d in pipeline.detectors}:
            self.score.remove(machine, name)
            self.duration.remove(machine, name)
        stays = {(d.name, d.detector.sha256) for d in former}
        for used in pipeline.detectors:
            self.info.labels(machine, used.name, used.detector.sha256, used.detector.metadata.kind).set(1)
            if (used.name, used.detector.sha256) not in stays:
                self.score.labels(machine, used.name).set(math.nan)
            self.duration.labels(machine, used.name)

    def introduce_device(self) -> None:
        """Make the series of the audio device exist; without one there are none."""
        for kind in (*get_args(Kind), "loss"):
            self.disturbances.labels(kind)
        self.device_up = self._gauge("audio_device_up", "1 while the device gives samples.")

    def be(self, machine: str, condition: Condition, signal: Signal, suspect: SuspectReason | None) -> None:
        """Set condition and signal, and what makes the signal suspect."""
        for name in get_args(Condition):
            self.condition.labels(machine, name).set(name == condition)
        for name in get_args(Signal):
            self.signal.labels(machine, name).set(name == signal)
        for reason in get_args(SuspectReason):
            self.suspect.labels(machine, reason).set(reason == suspect)

    def count(self, machine: str, reading: Reading, now: float) -> None:
        """Take a reading; ``now`` in seconds since 1970."""
        self.windows.labels(machine, reading.result).inc()
        # A level that was never heard must not stay at what it was, nor look like silence.
        self.level.labels(machine).set(math.nan if reading.level_dbfs is None else reading.level_dbfs)
        if reading.rarity is not None:
            self.rarity.labels(machine).set(reading.rarity)
            self.last_score.labels(machine).set(now)
        if reading.event is not None and reading.event.event == "raised":
            self.incidents.labels(machine).inc()
        for detector in reading.detectors:
            self.score.labels(machine, detector.name).set(detector.score)
            self.duration.labels(machine, detector.name).observe(detector.seconds)

    def _gauge(self, name: str, text: str, labels: list[str] | None = None) -> Gauge:
        return Gauge(f"edge_asd_{name}", text, labels or [], registry=self.registry)

    def _counter(self, name: str, text: str, labels: list[str] | None = None) -> Counter:
        return Counter(f"edge_asd_{name}", text, labels or [], registry=self.registry)
