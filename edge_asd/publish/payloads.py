"""What is said of a machine, as JSON documents; their schemas are in ``deploy/schemas``."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from edge_asd.audio.health import SuspectReason
from edge_asd.audio.opening import Opening
from edge_asd.clock import boot_time, is_synchronised, utc
from edge_asd.detector_reading import DetectorReading
from edge_asd.maintenance import Maintenance
from edge_asd.pipeline import Condition, Pipeline, Reading, Signal

if TYPE_CHECKING:  # which needs MachineState
    from edge_asd.publish.evidence import Evidence

SCHEMA = 1


@dataclass(frozen=True)
class Place:
    """Where a machine stands."""

    site: str
    node: str
    instance: str
    """Of the daemon: the name of its configuration file."""
    machine: str


@dataclass
class MachineState:
    """What is remembered of a machine from one message to the next."""

    place: Place
    pipeline: Pipeline
    time_of: Callable[[int], float] = lambda _: boot_time()
    """When a sample of the stream was heard, `edge_asd.clock.boot_time`."""
    signal: Signal = "none"
    signal_reason: str | None = "no sound yet"
    suspect: SuspectReason | None = None
    """What makes the signal suspect."""
    condition: Condition = "starting"
    since: datetime = field(default_factory=lambda: datetime.now(UTC))
    """When condition or signal last changed."""
    incident: str | None = None
    """Open, as far as was told: the pipeline knows of an incident before its alert exists."""
    sequence: int = 0
    """Of the last alert."""
    last_alert: dict[str, Any] | None = None
    overtaken: list[str] = field(default_factory=list)
    """Incidents of a former process that are still to be cleared, as this one has raised others without knowing."""
    reading: Reading | None = None
    """The last."""
    maintenance: Maintenance | None = None
    """In force: nothing is raised."""

    def take(self, reading: Reading) -> bool:
        """Remember a reading; true if the condition changed."""
        self.reading = reading
        # The reading may have been made while a maintenance began or ended.
        is_out_of_date = (reading.condition == "maintenance") != (self.maintenance is not None)
        self.incident = reading.incident
        condition = self._condition() if is_out_of_date else reading.condition
        changed = condition != self.condition
        self.condition = condition
        if changed:
            self.since = self.utc(reading.end)
        return changed

    def maintain(self, maintenance: Maintenance | None) -> None:
        """Remember what maintenance is in force; the pipeline knows already."""
        self.maintenance = maintenance
        condition = self._condition()
        if condition != self.condition:
            self.since = datetime.now(UTC)
        self.condition = condition

    def hear(self, signal: Signal, reason: str | None, suspect: SuspectReason | None = None) -> bool:
        """Remember what the signal is like; true if that changed. Other figures of the same finding are no change."""
        if signal == self.signal and suspect == self.suspect and (suspect is not None or reason == self.signal_reason):
            return False
        if signal != self.signal:
            self.since = datetime.now(UTC)
        self.signal, self.signal_reason, self.suspect = signal, reason, suspect
        return True

    def _condition(self) -> Condition:
        """The pipeline's, but for what its next reading tells of an incident."""
        condition = self.pipeline.condition
        if condition != "maintenance" and self.incident is not None:
            return "anomalous"
        return "normal" if condition == "anomalous" else condition

    def utc(self, sample: int) -> datetime:
        """UTC of a sample of the stream, as the wall clock has it now."""
        return utc(self.time_of(sample))


def alert(state: MachineState, reading: Reading, shown: Evidence | None = None) -> dict[str, Any]:
    """The document of a raised or cleared incident; takes the next sequence number and is remembered as last alert.

    ``shown``: what there is to see and to hear of it.
    """
    assert reading.event is not None  # asked for only where something happened
    state.sequence += 1
    document = {
        **_head(state.place),
        "id": str(uuid.uuid4()),
        "event": reading.event.event,
        "incident": reading.event.incident,
        "sequence": state.sequence,
        "time": iso(state.utc(reading.end)),
        "clock_synchronised": is_synchronised(),
        "window": {"start": iso(state.utc(reading.start)), "end": iso(state.utc(reading.end))},
        "rarity": _rounded(reading.rarity),
        "threshold": _rounded(reading.threshold),
        "clear_below": _rounded(reading.clear_below),
        "rule": str(state.pipeline.rule),
        "level_dbfs": _rounded(reading.level_dbfs),
        "level_change_db": _rounded(reading.level_change_db),
        "detectors": [_detector(d) for d in reading.detectors],
        "agree": {"anomalous": reading.agreeing, "of": len(reading.detectors)},
        "where": None if shown is None else _where(shown),
        "evidence": {
            "picture": None if shown is None or shown.picture is None else str(shown.picture),
            "clip": None if shown is None or shown.clip is None else str(shown.clip),
        },
    }
    state.last_alert = {k: document[k] for k in ("event", "incident", "sequence", "time")}
    return document


def score(state: MachineState, reading: Reading) -> dict[str, Any]:
    """The document of one window."""
    return {
        **_head(state.place),
        "time": iso(state.utc(reading.end)),
        "window": {"start": iso(state.utc(reading.start)), "end": iso(state.utc(reading.end))},
        "result": reading.result,
        "suspect": None if reading.finding is None else reading.finding.reason,
        "condition": reading.condition,
        "rarity": _rounded(reading.rarity),
        "threshold": _rounded(reading.threshold),
        "anomalous": reading.is_anomalous,
        "level_dbfs": _rounded(reading.level_dbfs),
        "level_change_db": _rounded(reading.level_change_db),
        "detectors": [_detector(d) for d in reading.detectors],
    }


def machine_state(state: MachineState) -> dict[str, Any]:
    """The retained document of a machine."""
    reading = state.reading
    return {
        **_head(state.place),
        "time": iso(datetime.now(UTC)),
        "condition": state.condition,
        "signal": state.signal,
        "signal_reason": state.signal_reason,
        "suspect": state.suspect,
        "since": iso(state.since),
        "incident": state.incident,
        "rarity": None if reading is None else _rounded(reading.rarity),
        "threshold": _rounded(state.pipeline.rule.threshold),
        "clear_below": _rounded(state.pipeline.rule.clear_below),
        "detectors": [
            {"name": d.name, "kind": d.detector.metadata.kind, "sha256": d.detector.sha256, "id": d.machine_id}
            for d in state.pipeline.detectors
        ],
        "last_alert": state.last_alert,
        "maintenance": None
        if state.maintenance is None
        else {"until": iso(state.maintenance.until), "by": state.maintenance.by},
    }


def opening(found: Opening) -> dict[str, Any]:
    """What was opened, for the log."""
    return {
        "device": found.device.name,
        "card": None if found.card is None else str(found.card),
        "source": None if found.source is None else found.source.name,
        "device_rate": found.rate,
        "channels": found.channels,
        "buffer_seconds": found.buffer_seconds,
    }


def iso(time: datetime) -> str:
    """UTC with milliseconds, as ISO 8601 with a Z."""
    return time.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _head(place: Place) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "site": place.site,
        "node": place.node,
        "instance": place.instance,
        "machine": place.machine,
    }


def _where(shown: Evidence) -> dict[str, Any] | None:
    if shown.where is None:
        return None
    return {
        "bands_hz": [[round(hz, 1) for hz in band] for band in shown.where.bands],
        "seconds": [[round(second, 3) for second in stretch] for stretch in shown.where.seconds],
        "words": shown.where.words,
    }


def _detector(reading: DetectorReading) -> dict[str, Any]:
    return {
        "name": reading.name,
        "kind": reading.kind,
        "sha256": reading.sha256,
        "score": _rounded(reading.score),
        "threshold": _rounded(reading.threshold),
        "rarity": _rounded(reading.rarity),
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
