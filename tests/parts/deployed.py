"""What deploy/ holds, made to run from a test's folder: the broker with its certificates, passwords and access list."""

from __future__ import annotations

import os
import shutil
import ssl
import subprocess
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from parts.broker import Mosquitto
from parts.waiting import free_port, until

DEPLOY = Path(__file__).parents[2] / "deploy"


def copy_of_deploy(folder: Path) -> Path:
    """A copy with secrets; ``/run/secrets`` in the configurations leads there."""
    copy = folder / "deploy"
    shutil.copytree(DEPLOY, copy, ignore=shutil.ignore_patterns("secrets", "__pycache__"))
    subprocess.run(["sh", str(copy / "make-secrets.sh"), "localhost"], check=True, capture_output=True)
    for name in ("mosquitto/mosquitto.conf", "prometheus/prometheus.yml", "prometheus/web.yml"):
        path = copy / name
        path.write_text(path.read_text().replace("/run/secrets", str(copy / "secrets")))
    return copy


class DeployedBroker(Mosquitto):
    """mosquitto with the configuration of deploy/, on a free port of the loopback."""

    def __init__(self, deploy: Path) -> None:
        self.secrets = deploy / "secrets"
        data = deploy / "mosquitto" / "data"
        data.mkdir()
        super().__init__(deploy / "mosquitto" / "mosquitto.conf", free_port())
        text = self._config.read_text()
        for found, instead in [
            ("listener 8883", f"listener {self.port} 127.0.0.1"),
            ("/mosquitto/config/", f"{deploy / 'mosquitto'}/"),
            ("/mosquitto/data/", f"{data}/"),
        ]:
            assert found in text
            text = text.replace(found, instead)
        if os.geteuid() == 0:
            text += "user root\n"  # else it becomes a user that may not read the test's folder
        self._config.write_text(text)

    def password(self, user: str) -> str:
        return (self.secrets / f"mqtt-{user}-password").read_text()


class Client:
    """A client of the deployed broker, with TLS and its certificate checked."""

    def __init__(
        self, broker: DeployedBroker, user: str, password: str | None = None, *, session: str | None = None
    ) -> None:
        """``session``: a name under which the broker keeps what waits for it."""
        self.messages: list[paho.MQTTMessage] = []
        self.connack: Any = None
        self._answers: dict[int, Any] = {}
        self._granted: dict[int, Any] = {}
        self._client = paho.Client(CallbackAPIVersion.VERSION2, session or "", protocol=paho.MQTTv5)
        self._client.tls_set_context(ssl.create_default_context(cafile=str(broker.secrets / "ca.crt")))
        self._client.username_pw_set(user, password if password is not None else broker.password(user))
        self._client.on_connect = lambda _c, _d, _f, reason, _p: setattr(self, "connack", reason)
        self._client.on_publish = lambda _c, _d, mid, reason, _p: self._answers.__setitem__(mid, reason)
        self._client.on_subscribe = lambda _c, _d, mid, reasons, _p: self._granted.__setitem__(mid, reasons[0])
        self._client.on_message = lambda _c, _d, message: self.messages.append(message)
        properties = paho.Properties(paho.PacketTypes.CONNECT)
        if session is not None:
            properties.SessionExpiryInterval = 3600
        self._client.connect("localhost", broker.port, clean_start=session is None, properties=properties)
        self._client.loop_start()
        until(lambda: self.connack is not None, "the broker's answer")

    def may_publish(self, topic: str, text: str = "x", retain: bool = False) -> bool:
        """What the broker answers to a message of QoS 1."""
        message = self._client.publish(topic, text, qos=1, retain=retain)
        until(lambda: message.mid in self._answers, f"the answer to {topic}")
        return not self._answers[message.mid].is_failure

    def subscribe(self, topic: str) -> None:
        """mosquitto grants every subscription, and withholds the messages that may not be read."""
        _, mid = self._client.subscribe(topic, qos=1)
        until(lambda: mid in self._granted, f"the answer to {topic}")

    def heard(self, topic: str) -> list[bytes]:
        return [m.payload for m in list(self.messages) if m.topic == topic]

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()
