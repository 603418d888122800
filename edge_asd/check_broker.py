"""Does the broker answer? A connection as the daemon makes it; with ``--publish`` a test message, too."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.reasoncodes import ReasonCode

from edge_asd.config import Config
from edge_asd.config_publish import MqttSection
from edge_asd.errors import ConfigurationError
from edge_asd.finding import Finding, State
from edge_asd.publish.client_tls import client_tls
from edge_asd.secrets_file import read_secret

_SECONDS = 10.0
"""To wait for TCP, TLS and the broker's answer, each."""


def check_broker(config: Config, instance: str, *, publish: bool) -> Iterator[Finding]:
    """Connect, log in and leave; the client id is another than the daemon's, which may run meanwhile.

    Args:
        config: whose broker.
        instance: name of the daemon.
        publish: also send a test message and wait until the broker acknowledges it.
    """
    if config.mqtt is None:
        return
    place, settings = config.place("mqtt"), config.mqtt
    address = f"{settings.host}:{settings.port}"
    if publish:
        yield from _publish(config, instance, place)
        return
    problem = _connect(settings, f"edge_asd-{config.site}-{config.node}-{instance}-check")
    if problem is not None:
        yield Finding("broker", "failed", f"{place}: {address}: {problem}")
        return
    text = f"{address}: connected and logged in; --publish also sends a test message"
    yield Finding("broker", "ok", text if settings.tls is None else f"{text}; with TLS")
    if settings.tls is None and settings.password_file is not None:
        hint = "the password goes over the network as it is; use mqtt.tls"
        yield Finding("broker", "warning", f"{place}: {address}: {hint}")


def _publish(config: Config, instance: str, place: str) -> Iterator[Finding]:
    assert config.mqtt is not None
    from edge_asd.publish.probe import probe

    outcome = probe(config.mqtt, site=config.site, node=config.node, instance=instance)
    for number, line in enumerate(outcome.lines, 1):
        is_good = number < len(outcome.lines) or outcome.is_heard
        state: State = "ok" if is_good else "warning" if outcome.is_taken else "failed"
        yield Finding("broker", state, line if is_good else f"{place}: {line}")


def _connect(settings: MqttSection, client_id: str) -> str | None:
    """What went wrong, in words; None if all went well."""
    answered = threading.Event()
    answers: list[ReasonCode] = []

    def on_connect(_client: Any, _data: Any, _flags: Any, reason: ReasonCode, _properties: Any) -> None:
        answers.append(reason)
        answered.set()

    def on_disconnect(*_: Any) -> None:
        answered.set()

    client = paho.Client(CallbackAPIVersion.VERSION2, client_id, protocol=paho.MQTTv5)
    client.connect_timeout = _SECONDS
    client.on_connect, client.on_disconnect = on_connect, on_disconnect
    try:
        _log_in(client, settings)
        client.connect(settings.host, settings.port)
    except (ConfigurationError, OSError, ValueError) as error:
        return _in_words(error, settings)
    client.loop_start()
    has_answered = answered.wait(_SECONDS)
    client.disconnect()
    client.loop_stop()
    if not answers:
        hint = "does the port want TLS? then mqtt.tls is missing" if settings.tls is None else "is it an MQTT broker?"
        return f"{'closed the connection' if has_answered else 'no answer'} after it was connected: {hint}"
    if answers[0].is_failure:
        return f"the broker refuses the login: {answers[0]}; look at mqtt.username and mqtt.password_file"
    return None


def _log_in(client: paho.Client, settings: MqttSection) -> None:
    if settings.username is not None:
        file = settings.password_file
        client.username_pw_set(settings.username, read_secret(file, "mqtt.password_file") if file else None)
    if settings.tls is not None:
        client.tls_set_context(client_tls(settings.tls))


def _in_words(error: Exception, settings: MqttSection) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not accepted: {error.verify_message}; look at mqtt.tls.ca, and at the clock"
    if isinstance(error, ssl.SSLError):
        return f"TLS fails ({error.reason}): does this port speak TLS (often 8883)?"
    if isinstance(error, ConnectionResetError) and settings.tls is not None:
        return "closed while TLS began: does this port speak TLS (often 8883)?"
    if isinstance(error, ConnectionRefusedError):
        return "nothing listens there (connection refused): does the broker run, and is the port right?"
    if isinstance(error, TimeoutError):
        hint = f"is it the right network, and does a firewall let port {settings.port} out?"
        return f"no answer within {_SECONDS:g} s: {hint}"
    if isinstance(error, OSError) and type(error).__name__ == "gaierror":
        return f"the name {settings.host} cannot be resolved: is it written right, and does the plant's DNS know it?"
    return str(getattr(error, "strerror", None) or error)
