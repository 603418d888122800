"""The publisher against a real broker: what is refused, not answered, announced, asked for."""

from __future__ import annotations

import io
import json
import signal
import socket
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from parts.broker import TOPIC, Broker, Subscriber
from parts.certificates import Authority
from parts.waiting import free_port, until

from edge_asd.config_publish import MqttSection, TlsSection
from edge_asd.publish import delivery
from edge_asd.publish.back_off import BackOff
from edge_asd.publish.log import Log
from edge_asd.publish.metrics import Metrics
from edge_asd.publish.mqtt import MqttPublisher
from edge_asd.publish.outbox import Outbox
from edge_asd.publish.outbox_file import Message, OutboxFile
from edge_asd.publish.payloads import Place

pytestmark = pytest.mark.system


class Publisher:
    """An outbox and the MQTT end of a daemon."""

    def __init__(self, path: Path, port: int, tls: TlsSection | None = None, **options: Any) -> None:
        self.lines, self.metrics = io.StringIO(), Metrics()
        self.log = Log(self.lines)
        self.outbox = Outbox(path, log=self.log, metrics=self.metrics)
        self.outbox.open()
        self.mqtt = MqttPublisher(
            MqttSection(host="localhost", port=port, tls=tls) if tls else MqttSection(host="127.0.0.1", port=port),
            site="plant-3",
            node="hall",
            instance="press",
            outbox=self.outbox,
            log=self.log,
            metrics=self.metrics,
            on_connected=lambda: None,
            back_off=BackOff(0.1, 0.5),
            **options,
        )
        self.mqtt.start()

    def alert(self, machine: str, text: str = "{}") -> str:
        message = Message(str(uuid.uuid4()), f"{TOPIC}/machine/{machine}/alert", text, time.time())
        self.outbox.put([message], {})
        return message.id

    def events(self, name: str) -> list[dict[str, Any]]:
        return [line for line in map(json.loads, self.lines.getvalue().splitlines()) if line["event"] == name]

    def value(self, name: str) -> float:
        return self.metrics.registry.get_sample_value(f"edge_asd_{name}") or 0.0

    def connected(self) -> Publisher:
        until(lambda: self.value("mqtt_connected"), "the connection")
        return self

    def stop(self) -> None:
        self.mqtt.stop()
        self.outbox.close()


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    (tmp_path / "acl").write_text(f"topic readwrite {TOPIC}/#\n")
    options = ("allow_anonymous true", f"acl_file {tmp_path / 'acl'}")
    broker = Broker(tmp_path / "broker", *options).start()
    yield broker
    broker.stop()


@pytest.fixture
def publish(tmp_path: Path) -> Iterator[Callable[..., Publisher]]:
    made: list[Publisher] = []

    def publish(port: int, **options: Any) -> Publisher:
        made.append(Publisher(tmp_path / f"{len(made)}.sqlite", port, **options))
        return made[-1]

    yield publish
    for one in made:
        one.stop()


def answers(port: int) -> bool:
    with socket.socket() as link:
        return link.connect_ex(("127.0.0.1", port)) == 0


def reload_acl(broker: Broker, folder: Path, *lines: str) -> None:
    (folder / "acl").write_text("\n".join(lines) + "\n")
    assert broker.process is not None
    broker.process.send_signal(signal.SIGHUP)
    time.sleep(0.3)


def test_a_refused_alert_waits_and_holds_up_no_other(
    broker: Broker, publish: Callable[..., Publisher], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "_PARKED_SECONDS", 1.0)
    reload_acl(broker, tmp_path, f"topic read {TOPIC}/#", f"topic write {TOPIC}/machine/good/#")
    subscriber = Subscriber(broker.port)
    one = publish(broker.port).connected()
    for number in range(3):
        one.alert("bad", str(number))
        one.alert("good", str(number))
    until(lambda: len(subscriber.of("machine/good/alert")) == 3, "the others", 5)
    assert not subscriber.of("machine/bad/alert")
    assert one.outbox.unsent == 3
    refused = [e for e in one.events("mqtt_message_refused") if e["topic"].endswith("/alert")]
    assert refused[0]["reason"] == "Not authorized" and refused[0]["tried_again_after_seconds"] == 1
    reload_acl(broker, tmp_path, f"topic readwrite {TOPIC}/#")
    until(lambda: len(subscriber.of("machine/bad/alert")) == 3, "the refused ones", 10)
    assert [m.text for m in subscriber.of("machine/bad/alert")] == ["0", "1", "2"]
    until(lambda: one.outbox.unsent == 0, "the last answer")
    subscriber.close()


def test_a_broker_that_answers_nothing_is_left(
    broker: Broker, publish: Callable[..., Publisher], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes messages, its connection lives: only the answers tell."""
    monkeypatch.setattr(delivery, "_STUCK_SECONDS", 1.0)
    subscriber = Subscriber(broker.port)
    one = publish(broker.port).connected()
    one.alert("rail-7", "before")
    until(lambda: subscriber.of("machine/rail-7/alert"), "the first")
    assert broker.process is not None
    broker.process.send_signal(signal.SIGSTOP)
    one.alert("rail-7", "stuck")
    lost = until(lambda: one.events("mqtt_disconnected"), "the end of it", 5)
    assert lost[0]["reason"] == "the broker takes messages and answers none"
    assert one.value("mqtt_connected") == 0
    broker.process.send_signal(signal.SIGCONT)
    until(lambda: one.outbox.unsent == 0, "the answer", 20)
    assert {m.text for m in subscriber.of("machine/rail-7/alert")} == {"before", "stuck"}
    subscriber.close()


def test_nothing_is_queued_in_paho(broker: Broker, publish: Callable[..., Publisher]) -> None:
    """At most 20 are unanswered, one of each machine."""
    one = publish(broker.port).connected()
    assert broker.process is not None
    time.sleep(0.3)
    broker.process.send_signal(signal.SIGSTOP)
    for number in range(300):
        one.alert(f"rail-{number % 30}")
    until(lambda: len(one.mqtt._delivery._unanswered) == 20, "what is under way")
    time.sleep(0.5)
    sent = list(one.mqtt._delivery._unanswered.values())
    assert len(sent) == len({s.topic for s in sent}) == 20
    client = one.mqtt._delivery._client
    assert client is not None and len(client._out_messages) == 20
    broker.process.send_signal(signal.SIGCONT)
    until(lambda: one.outbox.unsent == 0, "all answers", 20)


def test_the_last_alert_is_waited_for_at_the_stop(
    broker: Broker, publish: Callable[..., Publisher], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its disk is slow, and the stop comes before it has the alert."""
    store = OutboxFile.store

    def slow(file: OutboxFile, *arguments: Any) -> int:
        time.sleep(0.3)
        return store(file, *arguments)

    monkeypatch.setattr(OutboxFile, "store", slow)
    publisher = publish(broker.port).connected()
    publisher.alert("rail-7")
    publisher.mqtt.stop()
    assert publisher.outbox.unsent == 0


def test_documents_are_announced_at_every_connection(
    broker: Broker, publish: Callable[..., Publisher], tmp_path: Path
) -> None:
    asked: list[int] = []

    def announcements() -> list[tuple[str, str]]:
        asked.append(1)
        return [(f"{TOPIC}/a", json.dumps({"number": len(asked)})), (f"{TOPIC}/b", "{}")]

    one = publish(broker.port, announcements=announcements).connected()
    one.mqtt.announce(f"{TOPIC}/c", "{}")
    until(lambda: one.value("mqtt_acknowledged_total") == 4, "the word online, and three documents")
    late = Subscriber(broker.port)
    until(lambda: len(late.messages) == 4, "what is retained")
    assert all(m.retained for m in late.messages) and late.of("a")[0].content_type == "application/json"
    assert late.of("daemon/press/status")[0].content_type == "text/plain"
    late.close()
    broker.stop()
    until(lambda: not one.value("mqtt_connected"), "the loss")
    again = Broker(tmp_path / "again", port=broker.port).start()
    try:
        late = Subscriber(again.port)
        until(lambda: late.of("b"), "what is announced again")
        assert late.of("a")[0].document == {"number": 2}
        late.close()
    finally:
        again.stop()


def test_a_command_is_heard_and_a_handler_that_fails_ends_nothing(
    broker: Broker, publish: Callable[..., Publisher], tmp_path: Path
) -> None:
    heard: list[tuple[str, bytes]] = []

    def handler(topic: str, payload: bytes, _is_retained: bool) -> None:
        heard.append((topic, payload))
        raise RuntimeError("a handler's own")

    topic = f"{TOPIC}/machine/rail-7/mute"
    one = publish(broker.port, subscriptions={topic: handler}).connected()
    reload_acl(broker, tmp_path, f"topic readwrite {TOPIC}/#")
    other = Subscriber(broker.port)
    for text in (b"1", b"2"):
        other._client.publish(topic, text, qos=1)
    other._client.publish(f"{TOPIC}/machine/rail-8/mute", b"3", qos=1)
    until(lambda: len(heard) == 2, "both commands")
    time.sleep(0.2)
    assert heard == [(topic, b"1"), (topic, b"2")]
    assert [e["error"] for e in one.events("mqtt_error")] == ['RuntimeError("a handler\'s own")'] * 2
    one.alert("rail-7")
    until(lambda: one.outbox.unsent == 0, "an alert, all the same")
    other.close()


def test_a_second_daemon_of_the_same_name_is_told(broker: Broker, publish: Callable[..., Publisher]) -> None:
    """Two clients of one id throw each other out; they must not do that without end and in a hurry."""
    one = publish(broker.port).connected()
    other = publish(broker.port)
    told = until(lambda: one.events("mqtt_unsteady") or other.events("mqtt_unsteady"), "the end of the patience")
    assert "two daemons" in told[0]["hint"]
    before = len(one.events("mqtt_connected")) + len(other.events("mqtt_connected"))
    time.sleep(3.0)
    after = len(one.events("mqtt_connected")) + len(other.events("mqtt_connected"))
    assert after - before < 3.0 / 0.2, "at the longest waiting time, which is 0.5 s here and a minute else"


def test_nobody_there_and_the_waiting_grows(publish: Callable[..., Publisher]) -> None:
    one = publish(free_port())
    one.alert("rail-7")
    time.sleep(1.5)
    assert [e["reason"] for e in one.events("mqtt_unreachable")] == ["nothing listens there (connection refused)"]
    assert one.outbox.unsent == 1
    began = time.monotonic()
    one.mqtt.stop()
    assert time.monotonic() - began < 1
    until(lambda: [e["alerts"] for e in one.events("mqtt_unsent")] == [1], "what is said of it")


def test_back_off_doubles_and_is_never_the_same() -> None:
    back_off = BackOff(1.0, 60.0)
    waits = [back_off.seconds() for _ in range(12)]
    for wait, most in zip(waits, [1, 2, 4, 8, 16, 32, 60, 60, 60, 60, 60, 60], strict=True):
        assert most / 2 <= wait <= most
    assert len(set(waits)) == 12
    back_off.reset()
    assert back_off.seconds() <= 1.0


def test_states_of_the_same_machine_are_not_piled_up(broker: Broker, publish: Callable[..., Publisher]) -> None:
    one = publish(broker.port).connected()
    subscriber = Subscriber(broker.port)
    assert broker.process is not None
    time.sleep(0.3)
    broker.process.send_signal(signal.SIGSTOP)
    for number in range(500):
        one.mqtt.state(Place("plant-3", "hall", "press", "rail-7"), {"number": number})
    time.sleep(0.2)
    assert len(one.mqtt._delivery._retained) <= 1
    broker.process.send_signal(signal.SIGCONT)
    until(lambda: [m for m in subscriber.of("machine/rail-7/state") if m.document["number"] == 499], "the last")
    assert len(subscriber.of("machine/rail-7/state")) < 10
    subscriber.close()


def test_over_tls(publish: Callable[..., Publisher], tmp_path: Path) -> None:
    """Large messages in both directions, and a broker whose certificate is another's."""
    plant, stranger = Authority(tmp_path / "tls", "plant"), Authority(tmp_path / "tls", "stranger")
    certificate, key = plant.issue("broker")
    plain = free_port()
    # A listener with TLS for the publisher, one without for the subscriber.
    tls = [f"cafile {plant.certificate}", f"certfile {certificate}", f"keyfile {key}"]
    broker = Broker(tmp_path / "broker", *tls, f"listener {plain} 127.0.0.1", "allow_anonymous true").start()
    heard: list[bytes] = []
    command = f"{TOPIC}/machine/rail-7/command"
    try:
        until(lambda: answers(plain), "the second listener")
        subscriber = Subscriber(plain, f"{TOPIC}/machine/+/alert")
        one = publish(
            broker.port,
            tls=TlsSection(ca=plant.certificate),
            subscriptions={command: lambda topic, payload, _: heard.append(payload)},
        ).connected()
        for number in range(200):
            one.alert(f"rail-{number % 10}", f"{number} " + "x" * 20_000)
        for number in range(50):
            subscriber._client.publish(command, f"{number} " + "y" * 20_000, qos=1)
        until(lambda: len(subscriber.messages) == 200 and len(heard) == 50, "all of them", 30)
        assert sorted(int(m.text.split()[0]) for m in subscriber.messages) == list(range(200))
        assert [int(payload.split()[0]) for payload in heard] == list(range(50))
        until(lambda: one.outbox.unsent == 0, "the last answer")
        subscriber.close()
        wrong = publish(broker.port, tls=TlsSection(ca=stranger.certificate))
        said = until(lambda: wrong.events("mqtt_unreachable"), "why there is no connection")
        assert said[0]["reason"].startswith("the broker's certificate is not accepted: ")
        time.sleep(1.0)
        assert len(wrong.events("mqtt_unreachable")) == 1 and not wrong.value("mqtt_connected")
    finally:
        broker.stop()
