"""The connection to the broker: made, kept, found dead, made again.

One thread owns it, and all of paho with it: it alone publishes, and hears the answers, so no answer can come before its
message is known. Whoever has something to send wakes it. A lost broker is a state, never the end of anything.
"""

from __future__ import annotations

import contextlib
import functools
import os
import select
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import paho.mqtt.client as paho
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from edge_asd.config_publish import MqttSection
from edge_asd.publish.back_off import BackOff
from edge_asd.publish.log import Log
from edge_asd.publish.mqtt_client import (
    CONNECT_SECONDS,
    ClientFactory,
    close,
    connect,
    in_words,
    refusal_in_words,
    silence_in_words,
)
from edge_asd.publish.mqtt_speaker import Speaker
from edge_asd.publish.topics import Hearer

_TICK_SECONDS = 0.5
"""How often something is looked at though nobody woke us."""
_LASTING_SECONDS = 5.0
"""A connection that ends sooner is none to come back from at once: maybe two clients throw each other out."""
_SHORT_ONES = 3
"""So many in a row are worth a line."""
_UNSTEADY_HINT = "no connection lasts: do two daemons have the same site, node and configuration name?"
_FAREWELL_SECONDS = 2.0

_Callback = TypeVar("_Callback", bound=Callable[..., None])


def _guarded(callback: _Callback) -> _Callback:
    """An exception in a callback must not end the thread."""

    @functools.wraps(callback)
    def guarded(self: Connection, *arguments: Any) -> None:
        try:
            callback(self, *arguments)
        except Exception as error:  # whatever it is
            self._log("mqtt_error", "error", where=callback.__name__, error=repr(error))

    return guarded  # type: ignore[return-value]


class Connection:
    """One thread, one broker, one connection at a time."""

    def __init__(
        self,
        settings: MqttSection,
        make_client: ClientFactory,
        speaker: Speaker,
        *,
        log: Log,
        subscriptions: Mapping[str, Hearer],
        back_off: BackOff,
    ) -> None:
        """
        Args:
            settings: of the configuration.
            make_client: makes a client with its will, for each connection.
            speaker: sends over it.
            log: told of connections made, lost and refused.
            subscriptions: who hears what comes on a topic (no wildcards), on the connection's thread.
            back_off: waiting times between attempts.
        """
        self.is_connected = False
        self.turns = 0
        """Grows as long as the thread turns, whatever the broker does; no wait but one to connect is long."""
        self.on_change: Callable[[bool], None] = lambda is_connected: None
        """Called when a connection was made or lost."""
        self._settings, self._make_client, self._speaker = settings, make_client, speaker
        self._log, self._subscriptions, self._back_off = log, subscriptions, back_off
        self._address = f"{settings.host}:{settings.port}"
        self._stopping = threading.Event()
        self._failure: str | None = None
        """Why the last attempt failed."""
        self._trouble: str | None = None
        """What paho said of the connection's end."""
        self._was_answered = self._has_answered = False
        """The broker took or refused the connection; and it has answered to a message since."""
        self._since = 0.0
        """When the connection was made, on the monotonic clock."""
        self._short_ones = 0
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._thread = threading.Thread(target=self._run, name="mqtt", daemon=True)

    def start(self) -> None:
        """Connect in the background, and again whenever the connection is lost."""
        self._thread.start()

    def wake(self) -> None:
        """There is something to send."""
        with contextlib.suppress(OSError):  # a full pipe wakes as well
            os.write(self._wake_write, b"\0")

    def stop(self) -> None:
        """Say what is left to be said, for a moment at most, and disconnect."""
        self._stopping.set()
        self.wake()
        # A name that is being resolved cannot be interrupted; the thread ends with the process then.
        self._thread.join(2 * _FAREWELL_SECONDS)

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._converse()
            except Exception as error:  # a broker that talks nonsense, say
                self._lose(f"{error!r}")
            if not self._stopping.is_set():
                self._rest(self._back_off.seconds())

    def _rest(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while not self._stopping.is_set() and (left := end - time.monotonic()) > 0:
            self._stopping.wait(min(left, _TICK_SECONDS))
            self.turns += 1

    def _converse(self) -> None:
        """One connection from its beginning to its end."""
        client = self._make_client()
        client.on_connect, client.on_disconnect = self._on_connect, self._on_disconnect
        client.on_publish, client.on_message = self._on_publish, self._on_message
        client.on_subscribe, client.on_log = self._on_subscribe, self._on_log
        self._trouble, self._was_answered, self._has_answered = None, False, False
        try:
            connect(client, self._settings)
        except (OSError, ValueError) as error:
            self._note_failure(in_words(error, self._settings))
            return
        try:
            self._talk(client)
        finally:
            close(client)

    def _talk(self, client: paho.Client) -> None:
        deadline = time.monotonic() + CONNECT_SECONDS
        while client.socket() is not None:
            self._wait(client)
            client.loop_misc()
            if self.is_connected:
                self._speaker.speak()
                if self._speaker.is_stuck:
                    self._lose("the broker takes messages and answers none")
                    return
                if self._stopping.is_set():
                    self._take_leave(client)
                    return
            elif self._stopping.is_set():
                return
            elif time.monotonic() > deadline:
                self._note_failure(silence_in_words(self._trouble, CONNECT_SECONDS, self._settings))
                return
        if self.is_connected:
            self._lose("closed by the broker")
        elif not self._was_answered:
            self._note_failure(silence_in_words(self._trouble, None, self._settings))

    def _wait(self, client: paho.Client) -> None:
        """Until something can be read, written or is to be said; and do the first two."""
        self.turns += 1
        link = client.socket()
        if link is None:
            return
        poll = select.poll()
        poll.register(self._wake_read, select.POLLIN)
        poll.register(link, select.POLLIN | (select.POLLOUT if client.want_write() else 0))
        pending = getattr(link, "pending", lambda: 0)() > 0  # TLS has read more than it gave
        number = link.fileno()
        ready = dict(poll.poll(0 if pending else int(_TICK_SECONDS * 1000)))
        if self._wake_read in ready:
            with contextlib.suppress(OSError):
                os.read(self._wake_read, 4096)
        happened = ready.get(number, 0)
        if pending or happened & ~select.POLLOUT:
            client.loop_read()
        if client.want_write() and client.socket() is not None:
            client.loop_write()

    def _take_leave(self, client: paho.Client) -> None:
        end = time.monotonic() + _FAREWELL_SECONDS
        while client.socket() is not None and time.monotonic() < end and not self._speaker.is_done:
            self._wait(client)
            self._speaker.speak()
        self._part()
        # The last will then says "offline", also where there was no time to say everything.
        client.disconnect(ReasonCode(PacketTypes.DISCONNECT, "Disconnect with will message"))
        while client.socket() is not None and client.want_write() and time.monotonic() < end:
            client.loop_write()

    def _note_failure(self, reason: str) -> None:
        """The first of a row is worth a line; the same again is none."""
        if reason != self._failure:
            self._log("mqtt_unreachable", "warning", broker=self._address, reason=reason)
        self._failure = reason

    def _lose(self, reason: str) -> None:
        if self._part() and not self._stopping.is_set():
            self._log("mqtt_disconnected", "warning", broker=self._address, reason=reason)

    def _part(self) -> bool:
        was_connected, self.is_connected = self.is_connected, False
        if was_connected:
            self._speaker.end()
            self.on_change(False)
            self._judge()
        return was_connected

    def _judge(self) -> None:
        """Whether the connection was one to come back to soon: that it was accepted says little."""
        if self._has_answered and time.monotonic() - self._since > _LASTING_SECONDS:
            self._back_off.reset()
            self._short_ones = 0
            return
        self._short_ones += 1
        if self._short_ones == _SHORT_ONES and not self._stopping.is_set():
            self._log("mqtt_unsteady", "error", broker=self._address, hint=_UNSTEADY_HINT)

    @_guarded
    def _on_connect(
        self, client: paho.Client, _data: Any, _flags: Any, reason: ReasonCode, properties: Properties | None
    ) -> None:
        self._was_answered = True
        if reason.is_failure:
            said = refusal_in_words(reason)
            if said != self._failure:
                self._log("mqtt_refused", "error", broker=self._address, reason=said)
            self._failure = said
            return
        self.is_connected, self._failure, self._since = True, None, time.monotonic()
        self._log("mqtt_connected", "notice", broker=self._address)
        if self._subscriptions:
            options = SubscribeOptions(qos=1, retainAsPublished=True)  # a live message may be one to be retained
            client.subscribe([(topic, options) for topic in self._subscriptions])
        self._speaker.begin(client, getattr(properties, "ReceiveMaximum", 65_535))
        self.on_change(True)

    @_guarded
    def _on_disconnect(self, _client: Any, _data: Any, _flags: Any, reason: ReasonCode, _properties: Any) -> None:
        self._lose(self._trouble or str(reason))

    @_guarded
    def _on_publish(self, _client: Any, _data: Any, number: int, reason: ReasonCode, _properties: Any) -> None:
        if self._speaker.hear_answer(number, reason):
            self._has_answered = True

    @_guarded
    def _on_message(self, _client: Any, _data: Any, message: paho.MQTTMessage) -> None:
        handler = self._subscriptions.get(message.topic)
        if handler is not None:
            handler(message.topic, bytes(message.payload), message.retain)

    @_guarded
    def _on_subscribe(
        self, _client: Any, _data: Any, _number: int, reasons: list[ReasonCode], _properties: Any
    ) -> None:
        for topic, reason in zip(self._subscriptions, reasons, strict=False):
            if reason.is_failure:
                self._log("mqtt_subscription_refused", "error", topic=topic, reason=str(reason))

    @_guarded
    def _on_log(self, _client: Any, _data: Any, level: int, text: str) -> None:
        if level == paho.MQTT_LOG_ERR:
            self._trouble = text
