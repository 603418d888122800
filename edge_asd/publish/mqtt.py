"""MQTT version 5: status, state, alerts and scores to a broker.

The reason code of every PUBACK is read: a broker says there that it refused a message, or that nobody listens. A lost
broker is a state, never the end of the daemon; paho's thread reconnects with back-off.
"""

from __future__ import annotations

import contextlib
import functools
import json
import ssl
import threading
from collections.abc import Callable
from typing import Any, TypeVar

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from edge_asd.config_publish import MqttSection
from edge_asd.errors import ConfigurationError
from edge_asd.publish.log import Log
from edge_asd.publish.metrics import Metrics
from edge_asd.publish.payloads import Place
from edge_asd.secrets_file import read_secret

ROOT = "edge_asd"
_NO_MATCHING_SUBSCRIBERS = 0x10
_KEEPALIVE_SECONDS = 30
_LONGEST_BACK_OFF_SECONDS = 60
_QUEUED_MESSAGES = 1000
"""Alerts that wait in memory while the broker is away."""
_SCORE_EXPIRY_SECONDS = 60
_FAREWELL_SECONDS = 2.0

_Callback = TypeVar("_Callback", bound=Callable[..., None])


def _guarded(callback: _Callback) -> _Callback:
    """An exception in a callback would end paho's network thread while everything still looks connected."""

    @functools.wraps(callback)
    def guarded(self: MqttPublisher, *arguments: Any) -> None:
        try:
            callback(self, *arguments)
        except Exception as error:  # whatever it is, the thread must live
            self._log("mqtt_error", "error", where=callback.__name__, error=repr(error))

    return guarded  # type: ignore[return-value]


class MqttPublisher:
    """One connection of one daemon."""

    def __init__(
        self,
        settings: MqttSection,
        *,
        site: str,
        node: str,
        instance: str,
        log: Log,
        metrics: Metrics,
        on_connected: Callable[[], None],
    ) -> None:
        """
        Args:
            settings: of the configuration.
            site: first part of the topics.
            node: second part.
            instance: of the daemon; part of the client id.
            log: told of connections, refusals and messages that nobody heard.
            metrics: counts acknowledgements.
            on_connected: called at every connection, to send all states again.

        Raises:
            ConfigurationError: a file of the settings cannot be used.
        """
        self._log, self._metrics, self._on_connected_again = log, metrics, on_connected
        self._prefix = f"{ROOT}/{site}/{node}"
        self._status = f"{self._prefix}/daemon/{instance}/status"
        self._address = f"{settings.host}:{settings.port}"
        # The broker may answer before `publish` has returned the message's number: whichever comes second settles it.
        self._topics: dict[int, tuple[str, int]] = {}
        self._early_answers: dict[int, ReasonCode] = {}
        self._settling = threading.Lock()
        self._is_connected = False
        self._is_stopping = False
        self._has_warned_unheard: set[str] = set()
        self._client = paho.Client(
            CallbackAPIVersion.VERSION2, f"edge_asd-{site}-{node}-{instance}", protocol=paho.MQTTv5
        )
        self._client.max_queued_messages_set(_QUEUED_MESSAGES)
        self._client.reconnect_delay_set(1, _LONGEST_BACK_OFF_SECONDS)
        self._client.will_set(self._status, "offline", qos=1, retain=True)
        self._client.on_connect = self._on_connect
        self._client.on_connect_fail = self._on_connect_fail
        self._client.on_disconnect = self._on_disconnect
        self._client.on_publish = self._on_publish
        if settings.username is not None:
            file = settings.password_file
            password = None if file is None else read_secret(file, "mqtt.password_file")
            self._client.username_pw_set(settings.username, password)
        if settings.tls is not None:
            try:
                context = ssl.create_default_context(cafile=settings.tls.ca)
                if settings.tls.certificate is not None:
                    context.load_cert_chain(settings.tls.certificate, settings.tls.key)
            except (OSError, ssl.SSLError) as error:
                raise ConfigurationError(f"mqtt.tls: a certificate or key cannot be used: {error}") from None
            self._client.tls_set_context(context)
        self._client.connect_async(settings.host, settings.port, _KEEPALIVE_SECONDS)

    def start(self) -> None:
        """Connect in the background, and again whenever the connection is lost."""
        self._client.loop_start()

    def stop(self) -> None:
        """Say offline, wait a moment for what is under way, and disconnect."""
        if self._is_connected:
            farewell = self._send(self._status, "offline", qos=1, retain=True)
            with contextlib.suppress(RuntimeError, ValueError):
                farewell.wait_for_publish(_FAREWELL_SECONDS)
        self._is_stopping = True
        with self._settling:
            unsent = sum(topic.endswith("/alert") for topic, _ in self._topics.values())
        if unsent:
            self._log("mqtt_unsent", "error", alerts=unsent, hint="the broker did not acknowledge them before the stop")
        self._client.disconnect()
        self._client.loop_stop()

    def alert(self, place: Place, document: dict[str, Any]) -> None:
        """Send an alert, QoS 1; while the broker is away it waits in memory."""
        self._publish(self._topic(place, "alert"), document, qos=1)

    def state(self, place: Place, document: dict[str, Any]) -> None:
        """Send a machine's state, retained; not while the broker is away, since it is sent again at connection."""
        if self._is_connected:
            self._publish(self._topic(place, "state"), document, qos=1, retain=True)

    def score(self, place: Place, document: dict[str, Any]) -> None:
        """Send a window's score, QoS 0, which the broker forgets after a minute."""
        if self._is_connected:
            expiry = _properties()
            expiry.MessageExpiryInterval = _SCORE_EXPIRY_SECONDS
            self._publish(self._topic(place, "score"), document, qos=0, properties=expiry)

    def _topic(self, place: Place, kind: str) -> str:
        return f"{self._prefix}/machine/{place.machine}/{kind}"

    def _publish(
        self,
        topic: str,
        document: dict[str, Any],
        *,
        qos: int,
        retain: bool = False,
        properties: Properties | None = None,
    ) -> None:
        self._send(topic, json.dumps(document), qos=qos, retain=retain, properties=properties or _properties())

    def _send(
        self, topic: str, text: str, *, qos: int, retain: bool, properties: Properties | None = None
    ) -> paho.MQTTMessageInfo:
        message = self._client.publish(topic, text, qos=qos, retain=retain, properties=properties)
        if message.rc == paho.MQTT_ERR_QUEUE_SIZE:
            self._log("mqtt_queue_full", "error", topic=topic, queued=_QUEUED_MESSAGES)
        elif qos or message.rc == paho.MQTT_ERR_SUCCESS:
            with self._settling:
                answer = self._early_answers.pop(message.mid, None)
                if answer is None:
                    self._topics[message.mid] = topic, qos
            if answer is not None:
                self._settle(topic, qos, answer)
        return message

    @_guarded
    def _on_connect(self, _client: Any, _data: Any, _flags: Any, reason: ReasonCode, _properties: Any) -> None:
        if reason.is_failure:
            self._log("mqtt_refused", "error", broker=self._address, reason=str(reason))
            return
        self._is_connected = True
        self._metrics.mqtt_connected.set(1)
        self._log("mqtt_connected", broker=self._address)
        self._send(self._status, "online", qos=1, retain=True)
        self._on_connected_again()

    @_guarded
    def _on_connect_fail(self, _client: Any, _data: Any) -> None:
        self._log("mqtt_unreachable", "warning", broker=self._address)

    @_guarded
    def _on_disconnect(self, _client: Any, _data: Any, _flags: Any, reason: ReasonCode, _properties: Any) -> None:
        was_connected, self._is_connected = self._is_connected, False
        self._metrics.mqtt_connected.set(0)
        if was_connected and not self._is_stopping:
            self._log("mqtt_disconnected", "warning", broker=self._address, reason=str(reason))

    @_guarded
    def _on_publish(self, _client: Any, _data: Any, message_id: int, reason: ReasonCode, _properties: Any) -> None:
        with self._settling:
            sent = self._topics.pop(message_id, None)
            if sent is None:
                self._early_answers[message_id] = reason
        if sent is not None:
            self._settle(*sent, reason)

    def _settle(self, topic: str, qos: int, reason: ReasonCode) -> None:
        """Count what the broker answered to a message; to those of QoS 0 it answers nothing."""
        if not qos:
            return
        if reason.is_failure:
            self._metrics.mqtt_refused.inc()
            self._log("mqtt_message_refused", "error", topic=topic, reason=str(reason))
            return
        self._metrics.mqtt_acknowledged.inc()
        if reason.value == _NO_MATCHING_SUBSCRIBERS and topic.endswith("/alert"):
            self._metrics.mqtt_unheard.inc()
            if topic not in self._has_warned_unheard:
                self._has_warned_unheard.add(topic)
                self._log("mqtt_unheard", "warning", topic=topic, hint="nobody subscribes to these alerts")


def _properties() -> Properties:
    properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    properties.ContentType = "application/json"
    return properties
