"""Tells of what becomes of the audio device: heard, not heard and why, and what disturbed it."""

from __future__ import annotations

from typing import Any

from edge_asd.audio.device import missing_band
from edge_asd.audio.microphone import Status
from edge_asd.machine import DeviceFeed
from edge_asd.publish import payloads
from edge_asd.publish.announcer import Announcer
from edge_asd.publish.journal import Level
from edge_asd.publish.log import Log
from edge_asd.publish.metrics import Metrics


class DeviceNews:
    """Of one device, to the log, to Prometheus, and to whoever asks for its machines' signal."""

    def __init__(self, feed: DeviceFeed, log: Log, metrics: Metrics, announcer: Announcer) -> None:
        self._microphone, self._machines = feed.microphone, feed.machines
        self._log, self._metrics, self._announcer = log, metrics, announcer
        self._status: Status | None = None

    def heed(self) -> None:
        """Tell of what happened since the last tick.

        Raises:
            ConfigurationError: there is no PortAudio to listen with.
        """
        if self._microphone.failure is not None:
            raise self._microphone.failure
        self._tell_disturbances()
        before, status = self._status, self._microphone.status
        if status == before:
            return
        self._status = status
        assert self._metrics.device_up is not None  # introduced with the device
        self._metrics.device_up.set(status.is_heard)
        if status.is_heard:
            assert status.opening is not None  # what is heard was opened
            self._log("device_heard", "notice", **payloads.opening(status.opening), **self._books())
            self._tell_missing_band(status.opening.rate)
        else:
            if before is not None and before.is_heard:
                self._metrics.disturbances.labels("loss").inc()
            level: Level = "warning" if status.opening is None else "info"
            self._log("device_not_heard", level, reason=status.reason, **self._books())
        for machine in self._machines.values():
            if status.is_heard:
                self._announcer.hear(machine.state, "ok", None)
            else:
                self._announcer.hear(machine.state, "none", status.reason)

    def close(self) -> None:
        """Tell of the end; after the microphone was stopped."""
        self._tell_disturbances()
        self._log("device_closed", **self._books())

    def _tell_disturbances(self) -> None:
        for disturbance in self._microphone.take_disturbances():
            self._metrics.disturbances.labels(disturbance.kind).inc()
            self._log("audio_disturbance", "warning", kind=disturbance.kind, seconds=round(disturbance.seconds, 3))

    def _tell_missing_band(self, rate: int) -> None:
        wanted = max(machine.pipeline.sample_rate for machine in self._machines.values())
        if rate < wanted:
            self._log("device_rate_low", "warning", rate=rate, wanted=wanted, hint=missing_band(rate, wanted))

    def _books(self) -> dict[str, Any]:
        ledger = self._microphone.ledger
        return {"captured": ledger.captured, "lost": ledger.lost, "rate": ledger.rate}
