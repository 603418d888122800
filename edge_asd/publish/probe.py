"""A login at the broker, a test message if wanted, and in words what came of it: for `edge-asd check`."""

from __future__ import annotations

import json
import select
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.reasoncodes import ReasonCode

from edge_asd.config_publish import MqttSection
from edge_asd.errors import ConfigurationError
from edge_asd.publish.mqtt_client import (
    CONNECT_SECONDS,
    client_factory,
    close,
    connect,
    in_words,
    publish_properties,
    refusal_in_words,
    silence_in_words,
)
from edge_asd.publish.payloads import SCHEMA, iso
from edge_asd.publish.topics import ROOT, daemon_topic

_NO_MATCHING_SUBSCRIBERS = 0x10
_EXPIRY_SECONDS = 60
_TICK_SECONDS = 0.1


@dataclass
class Outcome:
    """What the broker said."""

    lines: list[str] = field(default_factory=list)
    """Step by step, for people."""
    is_connected: bool = False
    """TCP, TLS and login went well."""
    is_taken: bool = False
    """The broker took the message."""
    is_heard: bool = False
    """And somebody subscribes to it."""


@dataclass
class _Heard:
    connected: ReasonCode | None = None
    answer: ReasonCode | None = None
    trouble: str | None = None


def probe(
    settings: MqttSection,
    *,
    site: str,
    node: str,
    instance: str,
    seconds: float = CONNECT_SECONDS,
    publish: bool = True,
) -> Outcome:
    """Connect, publish to ``edge_asd/SITE/NODE/daemon/INSTANCE/test`` (QoS 1), and tell what the broker answered.

    The client id is another than the daemon's, which may run meanwhile. It changes nothing that is retained.

    Args:
        settings: of the configuration.
        site: first part of the topic.
        node: second part.
        instance: of the daemon.
        seconds: to wait for each answer.
        publish: else it only logs in.

    Returns:
        What came of it; never an exception for anything that a broker or a network does.
    """
    outcome, heard = Outcome(), _Heard()
    topic = daemon_topic(site, node, instance, "test")
    address = f"{settings.host}:{settings.port}"
    say = outcome.lines.append
    try:
        client = client_factory(settings, f"{ROOT}-{site}-{node}-{instance}-test")()
    except ConfigurationError as error:
        say(str(error))
        return outcome
    _listen(client, heard)
    try:
        connect(client, settings)
    except (OSError, ValueError) as error:
        say(f"{address}: {in_words(error, settings)}")
        return outcome
    try:
        _turn(client, seconds, lambda: heard.connected is not None)
        if heard.connected is None or heard.connected.is_failure:
            say(f"{address}: {_why_not(client, heard, settings, seconds)}")
            return outcome
        outcome.is_connected = True
        say(f"{address}: connected{'' if settings.tls is None else f', {_tls_version(client)}'}")
        if publish:
            document = {"schema": SCHEMA, "site": site, "node": node, "instance": instance}
            expiry = publish_properties(is_json=True, expiry_seconds=_EXPIRY_SECONDS)
            client.publish(topic, json.dumps(document | {"time": iso(datetime.now(UTC))}), qos=1, properties=expiry)
            _turn(client, seconds, lambda: heard.answer is not None)
            say(f"{topic}: {_what_became(outcome, heard, seconds)}")
        client.disconnect()
        _turn(client, 1.0, lambda: client.socket() is None)
    finally:
        close(client)
    return outcome


def _listen(client: paho.Client, heard: _Heard) -> None:
    def on_connect(_client: Any, _data: Any, _flags: Any, reason: ReasonCode, _properties: Any) -> None:
        heard.connected = reason

    def on_publish(_client: Any, _data: Any, _number: int, reason: ReasonCode, _properties: Any) -> None:
        heard.answer = reason

    def on_log(_client: Any, _data: Any, level: int, text: str) -> None:
        if level == paho.MQTT_LOG_ERR:
            heard.trouble = text

    client.on_connect, client.on_publish, client.on_log = on_connect, on_publish, on_log


def _turn(client: paho.Client, seconds: float, is_done: Callable[[], bool]) -> None:
    """Let paho read and write until something is so, the connection has ended, or the time is up."""
    end = time.monotonic() + seconds
    while not is_done() and time.monotonic() < end and (link := client.socket()) is not None:
        poll = select.poll()
        poll.register(link, select.POLLIN)
        pending = getattr(link, "pending", lambda: 0)() > 0
        if pending or poll.poll(_TICK_SECONDS * 1000):
            client.loop_read()
        if client.want_write() and client.socket() is not None:
            client.loop_write()


def _why_not(client: paho.Client, heard: _Heard, settings: MqttSection, seconds: float) -> str:
    if heard.connected is not None:
        return f"the broker refuses the connection: {refusal_in_words(heard.connected)}"
    return silence_in_words(heard.trouble, None if client.socket() is None else seconds, settings)


def _what_became(outcome: Outcome, heard: _Heard, seconds: float) -> str:
    if heard.answer is None:
        return f"no answer within {seconds:g} s" + ("" if heard.trouble is None else f": {heard.trouble}")
    if heard.answer.is_failure:
        return f"the broker refuses the message: {heard.answer}; may this user write to edge_asd/#?"
    outcome.is_taken = True
    if heard.answer.value == _NO_MATCHING_SUBSCRIBERS:
        return "the broker takes the message, but nobody subscribes to it (whoever subscribes to edge_asd/# does)"
    outcome.is_heard = True
    return "the broker takes the message, and somebody subscribes to it"


def _tls_version(client: paho.Client) -> str:
    link = client.socket()
    return str(link.version()) if link is not None and hasattr(link, "version") else "TLS"
