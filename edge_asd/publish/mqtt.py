"""MQTT version 5: status, states, alerts and scores to a broker.

A message leaves the outbox by `Delivery`, over a `Connection` that comes and goes. Status, states and announcements are
retained by the broker and sent again at every connection, for it may be another broker, or one that forgot.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import paho.mqtt.client as paho

from edge_asd.config_publish import MqttSection
from edge_asd.publish.back_off import BackOff
from edge_asd.publish.delivery import Delivery
from edge_asd.publish.log import Log
from edge_asd.publish.metrics import Metrics
from edge_asd.publish.mqtt_client import client_factory
from edge_asd.publish.mqtt_connection import Connection
from edge_asd.publish.outbox import Outbox
from edge_asd.publish.payloads import Place
from edge_asd.publish.topics import ROOT, Hearer, daemon_topic, machine_topic


class MqttPublisher:
    """One daemon at one broker."""

    def __init__(
        self,
        settings: MqttSection,
        *,
        site: str,
        node: str,
        instance: str,
        outbox: Outbox,
        log: Log,
        metrics: Metrics,
        on_connected: Callable[[], None],
        subscriptions: Mapping[str, Hearer] | None = None,
        announcements: Callable[[], Iterable[tuple[str, str]]] = tuple,
        back_off: BackOff | None = None,
    ) -> None:
        """
        Args:
            settings: of the configuration.
            site: first part of the topics.
            node: second part.
            instance: of the daemon; part of the client id.
            outbox: that alerts come from.
            log: told of connections, refusals and alerts that nobody heard.
            metrics: counts acknowledgements.
            on_connected: called at every connection, to send all states again.
            subscriptions: by topic, without wildcards: who hears its messages, on the connection's thread.
            announcements: asked at every connection for topics and documents to be retained, such as discovery.
            back_off: waiting times between attempts to connect.

        Raises:
            ConfigurationError: a file of the settings cannot be used.
        """
        self._log, self._metrics, self._outbox = log, metrics, outbox
        metrics.mqtt_connected.set(0)  # there is a broker to connect to
        self._on_connected, self._announcements = on_connected, announcements
        self._status = daemon_topic(site, node, instance, "status")
        self._make_client = client_factory(settings, f"{ROOT}-{site}-{node}-{instance}")
        self._delivery = Delivery(outbox, log=log, metrics=metrics)
        self._connection = Connection(
            settings,
            self._client_with_will,
            self._delivery,
            log=log,
            subscriptions=subscriptions or {},
            back_off=back_off or BackOff(),
        )
        self._connection.on_change = self._note_change
        outbox.on_ready = self._connection.wake

    @property
    def turns(self) -> int:
        """Grows as long as the thread that talks to the broker turns, whatever the broker does."""
        return self._connection.turns

    def start(self) -> None:
        """Connect in the background, and again whenever the connection is lost."""
        self._connection.start()

    def stop(self) -> None:
        """Send what waits, for a moment at most, and disconnect; the broker says ``offline`` for us."""
        self._connection.stop()
        unsent = self._outbox.unsent
        if unsent:
            self._log("mqtt_unsent", "warning", alerts=unsent, hint="they are kept, and sent after the next start")

    def state(self, place: Place, document: dict[str, Any]) -> None:
        """Send a machine's state, retained, after the alerts that it tells of are on disk.

        Not while the broker is away, since it is sent again at connection.
        """
        self._delivery.retain(machine_topic(place, "state"), json.dumps(document), machine_topic(place, "alert"))
        self._connection.wake()

    def score(self, place: Place, document: dict[str, Any]) -> None:
        """Send a window's score, QoS 0, which the broker forgets after a minute; not while the broker is away."""
        self._delivery.score(machine_topic(place, "score"), json.dumps(document))
        self._connection.wake()

    def announce(self, topic: str, text: str) -> None:
        """Send a document to be retained, beside those of every connection; not while the broker is away."""
        self._delivery.retain(topic, text)
        self._connection.wake()

    def _client_with_will(self) -> paho.Client:
        client = self._make_client()
        client.will_set(self._status, "offline", qos=1, retain=True)
        return client

    def _note_change(self, is_connected: bool) -> None:
        self._metrics.mqtt_connected.set(is_connected)
        if is_connected:
            self._delivery.retain(self._status, "online")
            for topic, text in self._announcements():
                self._delivery.retain(topic, text)
            self._on_connected()
