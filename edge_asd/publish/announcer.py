"""Tells everybody what became of the machines: metrics, then log, then the broker; alerts by way of the outbox."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from edge_asd.alarm import AlarmEvent
from edge_asd.maintenance import Maintenance
from edge_asd.pipeline import Pipeline, Reading, Signal
from edge_asd.publish import memory, payloads
from edge_asd.publish.evidence import Evidence
from edge_asd.publish.log import Log
from edge_asd.publish.metrics import Metrics
from edge_asd.publish.mqtt import MqttPublisher
from edge_asd.publish.outbox import Outbox
from edge_asd.publish.outbox_file import Message
from edge_asd.publish.payloads import MachineState
from edge_asd.publish.topics import machine_topic


class Announcer:
    """May be called from any thread; what is said of one machine is said in order."""

    def __init__(self, log: Log, metrics: Metrics, outbox: Outbox) -> None:
        self.mqtt: MqttPublisher | None = None
        """The broker's end, where there is one; it in turn calls `say_all_soon`."""
        self._log, self._metrics, self._outbox = log, metrics, outbox
        outbox.reconcile = memory.reconcile
        self._restored: set[str] = set()
        """Machines that go on where the last process ended, as far as anything is known of that."""
        self._logged: dict[str, tuple[str | None, ...]] = {}
        """By machine: the state that the log knows."""
        self._saved: dict[str, dict[str, Any]] = {}
        """By machine: the essence of what the outbox remembers."""
        self._lock = threading.Lock()
        self._say_all_at = float("inf")
        """When all states are to be sent again, on the monotonic clock."""

    def restore(self, states: Sequence[MachineState]) -> None:
        """Go on where the last process ended; before the first reading. While the database is away, `tell` does it."""
        if self._outbox.can_recall:
            for state in states:
                self._restore(state, self._outbox.recall(memory.key(state.place.machine)))

    def tell(self, state: MachineState, reading: Reading, evidence: Evidence | None = None) -> None:
        """Tell of a reading, the next of its machine, whose ``state`` takes it up, with what there is to show."""
        with self._lock:
            has_changed = state.take(reading)
            has_changed = self._catch_up(state, reading) or has_changed
            # The last windows are scored when the sound has ended or the device is gone; a gap tells nothing new.
            if state.signal != "none" and not reading.lost:
                found = reading.finding
                heard = state.hear("ok", None) if found is None else state.hear("suspect", found.text, found.reason)
                has_changed = heard or has_changed
            self._metrics.count(state.place.machine, reading, time.time())
            alerts = self._alerts(state, reading, evidence)
            for alert in alerts:
                self._log(
                    "alert",
                    "warning" if alert["event"] == "raised" else "notice",
                    machine=state.place.machine,
                    change=alert["event"],
                    rarity=alert["rarity"],
                    threshold=alert["threshold"],
                    alert=alert,
                )
            self._keep(state, reading, alerts)
            if self.mqtt is not None:
                self.mqtt.score(state.place, payloads.score(state, reading))
            if has_changed or alerts:
                self._say(state)

    def hear(self, state: MachineState, signal: Signal, reason: str | None) -> None:
        """Tell that a machine's sound is there or gone, if that has changed; readings say whether it is suspect."""
        with self._lock:
            if state.hear(signal, reason):
                self._say(state)

    def maintain(self, state: MachineState, maintenance: Maintenance | None) -> None:
        """Tell of a maintenance that begins, ends (None) or has another end; its machine's pipeline knows already."""
        with self._lock:
            state.maintain(maintenance)
            self._metrics.muted.labels(state.place.machine).set(maintenance is not None)
            self._say(state)

    def adopt(self, state: MachineState, other: Pipeline) -> None:
        """Let a machine's pipeline adopt another, and tell of it; whoever calls sees to it that no window is read."""
        with self._lock:
            former = state.pipeline.detectors
            state.pipeline.adopt(other)
            self._metrics.exchange(state.place.machine, former, state.pipeline)
            self._say(state)

    def say_again(self, state: MachineState) -> None:
        """Answer whoever asked."""
        with self._lock:
            self._say(state)

    def say_all_soon(self) -> None:
        """A connection was made."""
        self._say_all_at = time.monotonic()

    def say_all_if_due(self, states: Sequence[MachineState]) -> None:
        """Send all states to the broker again, once it is time."""
        if time.monotonic() < self._say_all_at or self.mqtt is None:
            return
        self._say_all_at = float("inf")
        with self._lock:
            for state in states:
                self.mqtt.state(state.place, payloads.machine_state(state))

    def _restore(self, state: MachineState, remembered: Any | None) -> bool:
        machine = state.place.machine
        self._restored.add(machine)
        if remembered is None:
            return False
        try:
            memory.restore(state, remembered)
        except ValueError as error:
            self._log("alarm_not_restored", "error", machine=machine, error=str(error))
            return False
        self._metrics.be(machine, state.condition, state.signal, state.suspect)
        incident = state.pipeline.alarm.incident
        self._log("alarm_restored", machine=machine, incident=incident, sequence=state.sequence)
        return True

    def _catch_up(self, state: MachineState, reading: Reading) -> bool:
        """Where the database was away at the start: go on with what it remembers as soon as it is there."""
        if state.place.machine in self._restored or not self._outbox.can_recall:
            return False
        found = self._outbox.recall(memory.key(state.place.machine))
        self._saved.pop(state.place.machine, None)
        made = memory.remember(state, reading.end)
        return self._restore(state, None if found is None else memory.reconcile(found, made))

    def _alerts(self, state: MachineState, reading: Reading, evidence: Evidence | None) -> list[dict[str, Any]]:
        """What a reading raises or clears, after what is still to be cleared of a former process."""
        if reading.event is not None and state.place.machine not in self._restored:
            # The last number is not known, and none may be lower than one before.
            state.sequence = max(state.sequence, int(time.time()))
        alerts = []
        if reading.result == "scored":
            for incident in state.overtaken:
                alerts.append(payloads.alert(state, replace(reading, event=AlarmEvent("cleared", incident))))
            state.overtaken = []
        if reading.event is not None:
            alerts.append(payloads.alert(state, reading, evidence))
        return alerts

    def _keep(self, state: MachineState, reading: Reading, alerts: Sequence[dict[str, Any]]) -> None:
        """Alerts and alarm's state in one transaction. Normal sound changes nothing, and writes nothing."""
        essence = memory.essence(state)
        if not alerts and essence == self._saved.get(state.place.machine):
            return
        self._saved[state.place.machine] = essence
        messages = []
        if self.mqtt is not None:
            topic = machine_topic(state.place, "alert")
            messages = [Message(alert["id"], topic, json.dumps(alert), time.time()) for alert in alerts]
        self._outbox.put(messages, {memory.key(state.place.machine): memory.remember(state, reading.end)})

    def _say(self, state: MachineState) -> None:
        self._metrics.be(state.place.machine, state.condition, state.signal, state.suspect)
        told = state.condition, state.signal, state.signal_reason
        if self._logged.get(state.place.machine) != told:
            self._logged[state.place.machine] = told
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
