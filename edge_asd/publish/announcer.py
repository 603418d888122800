"""Tells everybody what became of the machines: metrics, then log, then the broker."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

from edge_asd.pipeline import Reading, Signal
from edge_asd.publish import payloads
from edge_asd.publish.log import Log
from edge_asd.publish.metrics import Metrics
from edge_asd.publish.mqtt import MqttPublisher
from edge_asd.publish.payloads import MachineState

_SETTLING_SECONDS = 0.5
"""After a connection the client first sends again what was under way, old states among it: ours come after that."""


class Announcer:
    """May be called from any thread; what is said of one machine is said in order."""

    def __init__(self, log: Log, metrics: Metrics) -> None:
        self.mqtt: MqttPublisher | None = None
        """The broker's end, where there is one; it in turn calls `say_all_soon`."""
        self._log, self._metrics = log, metrics
        self._lock = threading.Lock()
        self._say_all_at = float("inf")
        """When all states are to be sent again, on the monotonic clock."""

    def tell(self, state: MachineState, reading: Reading) -> None:
        """Tell of a reading, the next of its machine, whose ``state`` takes it up."""
        with self._lock:
            has_changed = state.take(reading)
            # The last windows are scored when the sound has ended or the device is gone; a gap tells nothing new.
            if state.signal != "none" and not reading.lost:
                found = reading.finding
                heard = state.hear("ok", None) if found is None else state.hear("suspect", found.text, found.reason)
                has_changed = heard or has_changed
            self._metrics.count(state.place.machine, reading, time.time())
            alert = None if reading.event is None else payloads.alert(state, reading)
            if alert is not None:
                self._log("alert", "warning" if alert["event"] == "raised" else "info", alert=alert)
            if self.mqtt is not None:
                if alert is not None:
                    self.mqtt.alert(state.place, alert)
                self.mqtt.score(state.place, payloads.score(state, reading))
            if has_changed or alert is not None:
                self._say(state)

    def hear(self, state: MachineState, signal: Signal, reason: str | None) -> None:
        """Tell that a machine's sound is there or gone, if that has changed; readings say whether it is suspect."""
        with self._lock:
            if state.hear(signal, reason):
                self._say(state)

    def say_all_soon(self) -> None:
        """A connection was made."""
        self._say_all_at = time.monotonic() + _SETTLING_SECONDS

    def say_all_if_due(self, states: Sequence[MachineState]) -> None:
        """Send all states to the broker again, once it is time."""
        if time.monotonic() < self._say_all_at or self.mqtt is None:
            return
        self._say_all_at = float("inf")
        with self._lock:
            for state in states:
                self.mqtt.state(state.place, payloads.machine_state(state))

    def _say(self, state: MachineState) -> None:
        self._metrics.be(state.place.machine, state.condition, state.signal, state.suspect)
        self._log(
            "state",
            "warning" if state.signal == "suspect" else "info",
            machine=state.place.machine,
            condition=state.condition,
            signal=state.signal,
            reason=state.signal_reason,
        )
        if self.mqtt is not None:
            self.mqtt.state(state.place, payloads.machine_state(state))
