"""What is sent over a connection, in which order, and what the broker's answers mean.

At most 20 messages are unanswered, one of each topic: so paho's own queue never grows, alerts of a machine arrive in
order, and one that is refused holds up no other machine's. An alert leaves the outbox when the broker has answered that
it took it; that nobody listens counts as taken, and is said. Until then it is sent again at every connection.
"""

from __future__ import annotations

import random
import threading
import time
from collections import deque
from dataclasses import dataclass

import paho.mqtt.client as paho
from paho.mqtt.reasoncodes import ReasonCode

from edge_asd.publish.log import Log
from edge_asd.publish.metrics import Metrics
from edge_asd.publish.mqtt_client import publish_properties
from edge_asd.publish.outbox import Outbox
from edge_asd.publish.outbox_file import Message

MOST_UNANSWERED = 20
_STUCK_SECONDS = 20.0
"""A broker that owes an answer for so long is taken for dead, whatever the connection looks like."""
_PARKED_SECONDS, _PARKED_LONGEST_SECONDS = 30.0, 600.0
"""How long a refused alert waits before it is tried again; doubled each time."""
_FRUITLESS_CONNECTIONS = 3
"""So many in a row ended with alerts unanswered and none answered: from then on one alert is sent at a time."""
_NO_MATCHING_SUBSCRIBERS = 0x10
_SCORE_EXPIRY_SECONDS = 60
_MOST_SCORES = 1000
"""That wait for a slow connection; the oldest are dropped."""


@dataclass(frozen=True)
class _Sent:
    topic: str
    alert: Message | None
    at: float


@dataclass(frozen=True)
class _Retained:
    text: str
    alerts: str | None


@dataclass
class _Parked:
    seconds: float
    until: float


class Delivery:
    """The connection's `Speaker`. Other threads hand in retained documents and scores; alerts come from the outbox."""

    def __init__(self, outbox: Outbox, *, log: Log, metrics: Metrics) -> None:
        self._outbox, self._log, self._metrics = outbox, log, metrics
        self._client: paho.Client | None = None
        self._most = 0
        self._unanswered: dict[int, _Sent] = {}
        """By paho's number, oldest first."""
        self._parked: dict[str, _Parked] = {}
        self._handing_in = threading.Lock()
        self._retained: dict[str, _Retained] = {}
        """By topic; a newer document takes the place of one that was not sent yet."""
        self._scores: deque[tuple[str, str]] = deque(maxlen=_MOST_SCORES)
        self._has_warned: set[str] = set()
        self._fruitless = 0

    def retain(self, topic: str, text: str, alerts: str | None = None) -> None:
        """Hand in a document that the broker keeps; without a connection it is dropped.

        Args:
            topic: of the document.
            text: of the document.
            alerts: topic of the alerts that it may tell of: it is sent after the outbox has them on disk.
        """
        with self._handing_in:
            if self._client is not None:
                self._retained[topic] = _Retained(text, alerts)

    def score(self, topic: str, text: str) -> None:
        """Hand in a window's score; without a connection it is dropped."""
        with self._handing_in:
            if self._client is not None:
                self._scores.append((topic, text))

    @property
    def is_stuck(self) -> bool:
        """The broker owes an answer for too long."""
        oldest = next(iter(self._unanswered.values()), None)
        return oldest is not None and time.monotonic() - oldest.at > _STUCK_SECONDS

    @property
    def is_done(self) -> bool:
        """Nothing is left to be said or answered."""
        return not (self._unanswered or self._retained or self._outbox.is_busy or self._outbox.take(self._is_free))

    def begin(self, client: paho.Client, most_unanswered: int) -> None:
        """A connection was made."""
        with self._handing_in:
            self._client, self._most = client, min(MOST_UNANSWERED, most_unanswered)

    def end(self) -> None:
        """It is gone: what was not answered goes again at the next, from the outbox or as a newer state."""
        with self._handing_in:
            self._client = None
            self._retained.clear()
            self._scores.clear()
        self._suspect([sent for sent in self._unanswered.values() if sent.alert is not None])
        self._unanswered.clear()

    def speak(self) -> None:
        """Send what there is: retained documents, then alerts, then scores."""
        client = self._client
        if client is None:
            return
        while len(self._unanswered) < self._most and self._client is client:
            if not (self._send_retained(client) or self._send_alert(client)):
                break
        while self._scores and not client.want_write() and self._client is client:
            topic, text = self._scores.popleft()
            expiry = publish_properties(is_json=True, expiry_seconds=_SCORE_EXPIRY_SECONDS)
            client.publish(topic, text, qos=0, properties=expiry)

    def hear_answer(self, number: int, reason: ReasonCode) -> bool:
        """Count what the broker answered to a message, and let an alert go that it took."""
        sent = self._unanswered.pop(number, None)
        if sent is None:
            return False  # QoS 0: paho's own answer, once it is written
        if reason.is_failure:
            self._fruitless = 0
            self._note_refusal(sent, str(reason))
            return True
        self._metrics.mqtt_acknowledged.inc()
        if sent.alert is not None:
            self._fruitless = 0
            self._parked.pop(sent.topic, None)
            if reason.value == _NO_MATCHING_SUBSCRIBERS:
                self._note_unheard(sent.topic)
            self._outbox.settle(sent.alert)
        return True

    def _is_free(self, topic: str) -> bool:
        parked = self._parked.get(topic)
        if parked is not None and time.monotonic() < parked.until:
            return False
        return all(sent.topic != topic for sent in self._unanswered.values())

    def _send_retained(self, client: paho.Client) -> bool:
        with self._handing_in:
            topic = next(filter(self._is_free_for_retained, self._retained), None)
            if topic is None:
                return False
            text = self._retained.pop(topic).text
        self._send(client, topic, text, None)
        return True

    def _send_alert(self, client: paho.Client) -> bool:
        if self._fruitless >= _FRUITLESS_CONNECTIONS and any(s.alert is not None for s in self._unanswered.values()):
            return False
        alert = self._outbox.take(self._is_free)
        if alert is None:
            return False
        self._send(client, alert.topic, alert.payload, alert)
        return True

    def _is_free_for_retained(self, topic: str) -> bool:
        alerts = self._retained[topic].alerts
        if alerts is not None and not self._outbox.has_kept(alerts):
            return False
        return all(sent.topic != topic for sent in self._unanswered.values())

    def _send(self, client: paho.Client, topic: str, text: str, alert: Message | None) -> None:
        properties = publish_properties(is_json=text.startswith("{"))
        info = client.publish(topic, text, qos=1, retain=alert is None, properties=properties)
        # Where that failed, `end` was called meanwhile: nothing of this connection may be taken for the next one's.
        if self._client is client:
            self._unanswered[info.mid] = _Sent(topic, alert, time.monotonic())

    def _note_refusal(self, sent: _Sent, reason: str) -> None:
        self._metrics.mqtt_refused.inc()
        again = None if sent.alert is None else self._park(sent.topic)
        self._log("mqtt_message_refused", "error", topic=sent.topic, reason=reason, tried_again_after_seconds=again)

    def _suspect(self, unanswered: list[_Sent]) -> None:
        """Some brokers refuse a message by ending the connection: it must not end all others', too, for ever."""
        if len(unanswered) == 1 and self._fruitless >= _FRUITLESS_CONNECTIONS:
            self._note_refusal(unanswered[0], "the connection ended whenever it was sent")
        self._fruitless += bool(unanswered)

    def _park(self, topic: str) -> int:
        """Let the alerts of a topic wait; for how many seconds, about."""
        before = self._parked.get(topic)
        seconds = _PARKED_SECONDS if before is None else min(2 * before.seconds, _PARKED_LONGEST_SECONDS)
        again = seconds * random.uniform(1.0, 1.2)
        self._parked[topic] = _Parked(seconds, time.monotonic() + again)
        return round(again)

    def _note_unheard(self, topic: str) -> None:
        self._metrics.mqtt_unheard.inc()
        if topic not in self._has_warned:
            self._has_warned.add(topic)
            self._log("mqtt_unheard", "warning", topic=topic, hint="nobody subscribes to these alerts")
