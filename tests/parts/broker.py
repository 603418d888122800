"""mosquitto, and a subscriber that hears everything."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from parts.waiting import START_SECONDS, free_port, until

TOPIC = "edge_asd/plant-3/hall"


class Mosquitto:
    """The process, of any configuration that listens on the loopback."""

    def __init__(self, config: Path, port: int) -> None:
        program = shutil.which("mosquitto", path=f"{os.environ['PATH']}:/usr/sbin")
        assert program is not None, "mosquitto is not installed: make apt"
        self.port, self._config, self._program = port, config, program
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> Self:
        with self._config.with_suffix(".log").open("ab") as log:
            self.process = subprocess.Popen([self._program, "-c", str(self._config)], stderr=log)
        until(self._answers, "the broker")
        return self

    def stop(self) -> None:
        """As a power cut would."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def _answers(self) -> bool:
        assert self.process is not None and self.process.poll() is None, "the broker has ended"
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
        except OSError:
            return False
        return True


class Broker(Mosquitto):
    """mosquitto on a free loopback port."""

    def __init__(self, folder: Path, *options: str, port: int | None = None) -> None:
        super().__init__(folder / "mosquitto.conf", port or free_port())
        folder.mkdir(parents=True, exist_ok=True)
        lines = [f"listener {self.port} 127.0.0.1", "log_dest none", *(options or ["allow_anonymous true"])]
        if os.geteuid() == 0:
            lines.append("user root")  # else it becomes a user that may not read the test's folder
        self._config.write_text("\n".join(lines) + "\n")


@dataclass(frozen=True)
class Message:
    topic: str
    text: str
    qos: int
    retained: bool
    expiry: int | None
    content_type: str | None
    arrived: float

    @property
    def document(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.text)
        return found


class Subscriber:
    """Hears everything below a topic."""

    def __init__(self, port: int, topic: str = f"{TOPIC}/#", login: tuple[str, str] | None = None) -> None:
        self.messages: list[Message] = []
        self._subscribed = threading.Event()
        self._client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
        self._client.on_message = self._on_message
        self._client.on_connect = lambda client, *_: client.subscribe(topic, qos=1)
        self._client.on_subscribe = lambda *_: self._subscribed.set()
        if login is not None:
            self._client.username_pw_set(*login)
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        assert self._subscribed.wait(START_SECONDS)

    def _on_message(self, _client: Any, _data: Any, message: paho.MQTTMessage) -> None:
        properties = message.properties
        self.messages.append(
            Message(
                message.topic,
                message.payload.decode(),
                message.qos,
                message.retain,
                getattr(properties, "MessageExpiryInterval", None),
                getattr(properties, "ContentType", None),
                time.monotonic(),
            )
        )

    def of(self, topic: str) -> list[Message]:
        return [m for m in self.messages if m.topic == f"{TOPIC}/{topic}"]

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()
