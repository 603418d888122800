"""A paho client as the configuration wants it, and what goes wrong with it in words.

paho is used from one thread, by its calls for a loop of one's own (`loop_read`, `loop_write`, `loop_misc`). A client
serves one connection only: nothing of a former one, no unanswered message and no old state, comes back by itself.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Callable

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from edge_asd.config_publish import MqttSection
from edge_asd.publish.client_tls import client_tls
from edge_asd.secrets_file import read_secret

CONNECT_SECONDS = 10.0
"""For each step of a connection: TCP, TLS, the broker's answer."""
KEEPALIVE_SECONDS = 30
_LARGEST_RECEIVED = 65_536
"""Bytes; a broker drops what is larger."""

ClientFactory = Callable[[], paho.Client]


def client_factory(settings: MqttSection, client_id: str) -> ClientFactory:
    """Makes clients, one for each connection.

    Args:
        settings: of the configuration. Secrets are read now, and files that cannot be used are found now.
        client_id: the broker ends another connection with the same one.

    Raises:
        ConfigurationError: a file of the settings cannot be used.
    """
    file = settings.password_file
    password = None if file is None else read_secret(file, "mqtt.password_file")
    context = None if settings.tls is None else client_tls(settings.tls)

    def make() -> paho.Client:
        client = paho.Client(CallbackAPIVersion.VERSION2, client_id, protocol=paho.MQTTv5)
        client.connect_timeout = CONNECT_SECONDS
        if settings.username is not None:
            client.username_pw_set(settings.username, password)
        if context is not None:
            client.tls_set_context(context)
        return client

    return make


def connect(client: paho.Client, settings: MqttSection) -> None:
    """Begin a connection; the broker's answer comes by ``on_connect``.

    Always a clean start, and no session that outlives the connection: what must arrive is on our disk, which a kill and
    a new broker survive, and the broker answers "no matching subscribers" to whoever commands a daemon that is gone.

    Raises:
        OSError: TCP or TLS fails; see `in_words`.
    """
    wanted = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
    wanted.SessionExpiryInterval = 0
    wanted.MaximumPacketSize = _LARGEST_RECEIVED
    client.connect(settings.host, settings.port, KEEPALIVE_SECONDS, clean_start=True, properties=wanted)


def publish_properties(*, is_json: bool, expiry_seconds: int | None = None) -> Properties:
    """Content type, and after how many seconds the broker may forget the message."""
    properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    properties.ContentType = "application/json" if is_json else "text/plain"
    if expiry_seconds is not None:
        properties.MessageExpiryInterval = expiry_seconds
    return properties


def in_words(error: Exception, settings: MqttSection) -> str:
    """Why no connection came about, for the person who has to mend it."""
    if isinstance(error, socket.gaierror):
        hint = "is it written right, and does the plant's DNS know it?"
        return f"the host name {settings.host} cannot be resolved ({error.strerror}): {hint}"
    if isinstance(error, ssl.SSLCertVerificationError):
        hint = "look at mqtt.tls.ca and mqtt.host, and at the clock"
        return f"the broker's certificate is not accepted: {error.verify_message}: {hint}"
    if isinstance(error, ssl.SSLError):
        if error.reason == "WRONG_VERSION_NUMBER":
            return "the port does not speak TLS: leave mqtt.tls out, or name the port for TLS (often 8883)"
        return f"TLS failed: {error.reason or error}"
    if isinstance(error, ConnectionResetError) and settings.tls is not None:
        return "closed during the TLS handshake: does the port speak TLS (often 8883)?"
    if isinstance(error, TimeoutError):
        hint = f"is it the right network, and does a firewall let port {settings.port} out?"
        return f"no answer within {CONNECT_SECONDS:g} s: {hint}"
    if isinstance(error, ConnectionRefusedError):
        return "nothing listens there (connection refused)"
    return str(getattr(error, "strerror", None) or error)


def silence_in_words(trouble: str | None, seconds: float | None, settings: MqttSection) -> str:
    """Why there may be no answer to the login.

    Args:
        trouble: what paho said, where it said something.
        seconds: that were waited; None where the connection ended before.
        settings: of the configuration.
    """
    what = (
        "closed by the broker without an answer"
        if seconds is None
        else f"connected, but no answer within {seconds:g} s"
    )
    if settings.tls is None:
        hint = "does the port want TLS? then mqtt.tls is missing"
    elif settings.tls.certificate is None:
        hint = "does the broker want a client certificate? then mqtt.tls.certificate is missing"
    else:
        hint = f"does the broker accept {settings.tls.certificate}, and has it not expired?"
    return f"{what}{f' ({trouble})' if trouble else ''}: {hint}"


def refusal_in_words(reason: ReasonCode) -> str:
    """Why the broker refused a connection, with what to look at."""
    hint = _REFUSALS.get(reason.value)
    return f"{reason}: {hint}" if hint else str(reason)


def close(client: paho.Client) -> None:
    """End a connection at once; the broker sends the last will."""
    found = client.socket()
    if found is not None:
        with contextlib.suppress(OSError):
            found.close()


_REFUSALS = {
    0x84: "the broker does not speak MQTT version 5",
    0x85: "the broker does not accept this client id",
    0x86: "look at mqtt.username and mqtt.password_file",
    0x87: "look at mqtt.username and mqtt.password_file, and at what the broker allows",
    0x8C: "the broker wants another kind of login",
}
