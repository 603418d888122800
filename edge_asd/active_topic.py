"""Machines that run or stand still as an MQTT topic says: a PLC knows it better than any level.

What cannot be understood counts as running, with a warning, and so does a topic that says nothing: a machine that is
heard in vain costs a false alarm, one that is not heard may cost the machine. While the broker is away the last word
counts, since it is told again what is retained as soon as it is back.
"""

from __future__ import annotations

import time
from collections.abc import Iterable

from edge_asd.clock import boot_time
from edge_asd.config import ActiveWhen
from edge_asd.pause import Pause
from edge_asd.publish.log import Log
from edge_asd.publish.topics import Hearer

_SILENT_SECONDS = 10.0
"""A broker gives what is retained at once; a topic that is silent for so long is likely not retained, or misspelt."""


class ActiveTopics:
    """The topics of all machines; one topic may speak for several."""

    def __init__(self, machines: Iterable[tuple[str, ActiveWhen | None, Pause]], log: Log) -> None:
        """
        Args:
            machines: the name of each, what the configuration says of it, and its standstill.
            log: told of machines that stop and start, and of what cannot be understood.
        """
        self._log = log
        self._gates: dict[str, list[tuple[str, ActiveWhen, Pause]]] = {}
        for name, gate, standstill in machines:
            if gate is not None and gate.topic is not None:
                self._gates.setdefault(gate.topic, []).append((name, gate, standstill))
        self._silent = set(self._gates)
        self._odd: dict[tuple[str, str], str | None] = {}
        """What was not understood last, by machine and topic."""
        self._silent_at = float("inf")

    def subscriptions(self) -> dict[str, Hearer]:
        """For `edge_asd.publish.mqtt.MqttPublisher`."""
        return dict.fromkeys(self._gates, self.hear)

    def note_connection(self) -> None:
        """The broker was reached: what is retained comes now."""
        self._silent_at = min(self._silent_at, time.monotonic() + _SILENT_SECONDS)

    def heed(self) -> None:
        """Tell of topics that say nothing; call it often."""
        if time.monotonic() < self._silent_at or not self._silent:
            return
        for topic in sorted(self._silent):
            for name, _, _ in self._gates[topic]:
                self._log("active_topic_silent", "warning", machine=name, topic=topic, hint="taken as running")
        self._silent.clear()

    def hear(self, topic: str, payload: bytes, is_retained: bool = False) -> None:
        """Take a message; from any thread."""
        self._silent.discard(topic)
        text = payload.decode(errors="replace").strip()
        for name, gate, standstill in self._gates[topic]:
            is_odd = text not in (gate.on, gate.off)
            if is_odd and self._odd.get((name, topic)) != text:
                self._log(
                    "active_topic_unknown",
                    "warning",
                    machine=name,
                    topic=topic,
                    said=text[:100],
                    hint=f"neither {gate.on!r} nor {gate.off!r}: taken as running",
                )
            self._odd[name, topic] = text if is_odd else None
            changed = standstill.begin() if text == gate.off else standstill.end(boot_time())
            if changed:
                self._log("machine_stands_still" if standstill.is_on else "machine_runs", machine=name, topic=topic)
