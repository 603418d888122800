"""The broker of deploy/mosquitto with real clients: certificate, passwords, who may do what, and a power cut."""

from __future__ import annotations

import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion
from parts.deployed import Client, DeployedBroker, copy_of_deploy
from parts.waiting import until

pytestmark = pytest.mark.system

MACHINE = "edge_asd/plant-3/hall/machine/rail-7"
MAY_PUBLISH = {
    "edge": {f"{MACHINE}/alert", "edge_asd/plant-3/hall/daemon/press/status", "homeassistant/device/rail-7/config"},
    "reader": set[str](),
    "operator": {f"{MACHINE}/maintenance/set"},
    "plc": {"plc/press-7/running"},
}
TOPICS = sorted({*set().union(*MAY_PUBLISH.values()), "something/else", "$SYS/broker/version"})
MAY_READ = {
    "edge": {f"{MACHINE}/maintenance/set", "plc/press-7/running"},
    "reader": {
        f"{MACHINE}/alert",
        f"{MACHINE}/maintenance/set",
        "edge_asd/plant-3/hall/daemon/press/status",
        "homeassistant/device/rail-7/config",
    },
    "plc": set[str](),
}


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DeployedBroker]:
    broker = DeployedBroker(copy_of_deploy(tmp_path_factory.mktemp("plant"))).start()
    yield broker
    broker.stop()


@pytest.mark.parametrize("user", MAY_PUBLISH)
def test_who_may_publish(broker: DeployedBroker, user: str) -> None:
    client = Client(broker, user)
    may = {topic for topic in TOPICS if client.may_publish(topic)}
    client.close()
    # Whoever may write below edge_asd/ may write what stands below it.
    own = MAY_PUBLISH[user] | ({f"{MACHINE}/maintenance/set"} if user == "edge" else set())
    assert may == own


@pytest.mark.parametrize("user", MAY_READ)
def test_who_may_read(broker: DeployedBroker, user: str) -> None:
    client = Client(broker, user)
    for topic in ("edge_asd/#", "homeassistant/#", "plc/#"):
        client.subscribe(topic)
    for writer, topics in MAY_PUBLISH.items():
        sender = Client(broker, writer)
        for topic in sorted(topics):
            assert sender.may_publish(topic, text=f"for {user}")
        sender.close()
    until(lambda: MAY_READ[user] <= {m.topic for m in client.messages}, f"what {user} may read", 5)
    time.sleep(0.3)  # what must not come would have come by now
    assert {m.topic for m in client.messages} == MAY_READ[user]
    client.close()


def test_strangers_stay_outside(broker: DeployedBroker) -> None:
    for user, password in [("edge", "wrong"), ("nobody", "x")]:
        client = Client(broker, user, password)
        assert str(client.connack) == "Not authorized"
        client.close()
    plain = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
    answers: list[object] = []
    plain.on_connect = lambda *a: answers.append(a)
    plain.connect("localhost", broker.port)  # TCP only
    plain.loop_start()
    time.sleep(0.5)
    plain.loop_stop()
    assert answers == []
    unknown = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
    unknown.tls_set_context(ssl.create_default_context())
    with pytest.raises(ssl.SSLCertVerificationError):
        unknown.connect("localhost", broker.port)


def test_a_power_cut_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    """What is retained, and what waits for a subscriber that is away."""
    broker = DeployedBroker(copy_of_deploy(tmp_path)).start()
    try:
        away = Client(broker, "reader", session="database")
        away.subscribe("edge_asd/#")
        away.close()
        edge = Client(broker, "edge")
        assert edge.may_publish(f"{MACHINE}/state", "the state", retain=True)
        assert edge.may_publish(f"{MACHINE}/alert", "the alert")
        time.sleep(1.1)  # written within a second
        broker.stop()
        broker.start()
        again = Client(broker, "reader", session="database")
        until(lambda: again.heard(f"{MACHINE}/alert") == [b"the alert"], "the alert", 5)
        late = Client(broker, "reader")
        late.subscribe("edge_asd/#")
        until(lambda: late.heard(f"{MACHINE}/state") == [b"the state"], "the state", 5)
        for client in (edge, again, late):
            client.close()
    finally:
        broker.stop()
