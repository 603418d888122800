"""The test message to the broker: what is said where broker, network, login or TLS is not as it should be."""

from __future__ import annotations

import json
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from parts.broker import TOPIC, Broker, Subscriber
from parts.certificates import Authority
from parts.waiting import free_port, until

from edge_asd.config_publish import MqttSection, TlsSection
from edge_asd.publish.probe import Outcome, probe

pytestmark = pytest.mark.system

TEST_TOPIC = f"{TOPIC}/daemon/press/test"


def ask(port: int, host: str = "127.0.0.1", seconds: float = 5.0, **settings: Any) -> Outcome:
    outcome = probe(
        MqttSection(host=host, port=port, **settings), site="plant-3", node="hall", instance="press", seconds=seconds
    )
    print(*outcome.lines, sep="\n")
    return outcome


def flags(outcome: Outcome) -> tuple[bool, bool, bool]:
    return outcome.is_connected, outcome.is_taken, outcome.is_heard


@pytest.fixture(scope="module")
def open_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    broker = Broker(tmp_path_factory.mktemp("open")).start()
    yield broker
    broker.stop()


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """Knows ``edge``, who may write all but test messages."""
    folder = tmp_path_factory.mktemp("guarded")
    subprocess.run(["mosquitto_passwd", "-b", "-c", folder / "passwords", "edge", "s3cret"], check=True)
    (folder / "acl").write_text(f"user edge\ntopic write {TOPIC}/machine/#\n")
    options = ["allow_anonymous false", f"password_file {folder}/passwords", f"acl_file {folder}/acl"]
    broker = Broker(folder, *options).start()
    (folder / "good").write_text("s3cret\n")
    (folder / "bad").write_text("wrong\n")
    broker.folder = folder  # type: ignore[attr-defined]
    yield broker
    broker.stop()


@pytest.fixture(scope="module")
def authorities(tmp_path_factory: pytest.TempPathFactory) -> tuple[Authority, Authority]:
    folder = tmp_path_factory.mktemp("certificates")
    return Authority(folder, "plant"), Authority(folder, "stranger")


def tls_broker(folder: Path, authority: Authority, *more: str, **sign: Any) -> Broker:
    certificate, key = authority.issue(folder.name, **sign)
    options = ["allow_anonymous true", f"cafile {authority.certificate}", f"certfile {certificate}", f"keyfile {key}"]
    return Broker(folder, *options, *more).start()


def test_heard_and_unheard(open_broker: Broker) -> None:
    unheard = ask(open_broker.port)
    assert flags(unheard) == (True, True, False) and "nobody subscribes to it" in unheard.lines[-1]
    subscriber = Subscriber(open_broker.port)
    heard = ask(open_broker.port)
    assert flags(heard) == (True, True, True) and heard.lines == [
        f"127.0.0.1:{open_broker.port}: connected",
        f"{TEST_TOPIC}: the broker takes the message, and somebody subscribes to it",
    ]
    (message,) = until(lambda: subscriber.of("daemon/press/test"), "the message")
    assert not message.retained and message.content_type == "application/json" and message.expiry is not None
    assert json.loads(message.text)["instance"] == "press"
    assert subscriber.of("daemon/press/status") == [], "it must not look like the daemon"
    subscriber.close()


def test_nobody_there() -> None:
    port = free_port()
    assert ask(port).lines == [f"127.0.0.1:{port}: nothing listens there (connection refused)"]
    assert "the host name nowhere.invalid cannot be resolved" in ask(port, host="nowhere.invalid").lines[0]


def test_something_that_says_nothing() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        began = time.monotonic()
        outcome = ask(silent.getsockname()[1], seconds=0.5)
        assert time.monotonic() - began < 3
    assert flags(outcome) == (False, False, False)
    words = "connected, but no answer within 0.5 s: does the port want TLS? then mqtt.tls is missing"
    assert outcome.lines[0].endswith(words)


def test_login(guarded: Broker) -> None:
    folder: Path = guarded.folder  # type: ignore[attr-defined]
    for settings in ({}, {"username": "edge", "password_file": folder / "bad"}, {"username": "stranger"}):
        outcome = ask(guarded.port, **settings)
        assert flags(outcome) == (False, False, False)
        assert "the broker refuses the connection: Not authorized: look at mqtt.username" in outcome.lines[0]
    missing = ask(guarded.port, username="edge", password_file=folder / "none")
    assert missing.lines == [f"mqtt.password_file: {folder / 'none'}: no such file"]


def test_a_message_that_the_broker_refuses(guarded: Broker) -> None:
    outcome = ask(guarded.port, username="edge", password_file=guarded.folder / "good")  # type: ignore[attr-defined]
    assert flags(outcome) == (True, False, False)
    assert outcome.lines[-1] == (
        f"{TEST_TOPIC}: the broker refuses the message: Not authorized; may this user write to edge_asd/#?"
    )


def test_tls(authorities: tuple[Authority, Authority], tmp_path: Path) -> None:
    plant, stranger = authorities
    broker = tls_broker(tmp_path / "broker", plant)
    try:
        good = ask(broker.port, host="localhost", tls=TlsSection(ca=plant.certificate))
        assert flags(good) == (True, True, False) and good.lines[0].endswith("connected, TLSv1.3")
        wrong = ask(broker.port, host="localhost", tls=TlsSection(ca=stranger.certificate))
        assert "the broker's certificate is not accepted: " in wrong.lines[0] and "certificate" in wrong.lines[0]
        system = ask(broker.port, host="localhost", tls=TlsSection())
        assert "the broker's certificate is not accepted: " in system.lines[0]
        plain = ask(broker.port, host="localhost", seconds=1.0)
        assert flags(plain) == (False, False, False) and "does the port want TLS?" in plain.lines[0]
    finally:
        broker.stop()


def test_tls_to_a_port_that_speaks_none(open_broker: Broker, authorities: tuple[Authority, Authority]) -> None:
    outcome = ask(open_broker.port, host="localhost", tls=TlsSection(ca=authorities[0].certificate))
    assert flags(outcome) == (False, False, False) and "TLS" in outcome.lines[0]


def test_certificates_of_the_broker_that_do_not_hold(authorities: tuple[Authority, Authority], tmp_path: Path) -> None:
    plant, _ = authorities
    for name, sign, words in [
        ("expired", {"is_expired": True}, "certificate has expired"),
        ("elsewhere", {"host": "broker.plant-3"}, "Hostname mismatch"),
    ]:
        broker = tls_broker(tmp_path / name, plant, **sign)
        try:
            outcome = ask(broker.port, host="localhost", tls=TlsSection(ca=plant.certificate))
        finally:
            broker.stop()
        assert flags(outcome) == (False, False, False)
        assert "the broker's certificate is not accepted: " in outcome.lines[0] and words in outcome.lines[0]


def test_client_certificates(authorities: tuple[Authority, Authority], tmp_path: Path) -> None:
    plant, stranger = authorities
    broker = tls_broker(tmp_path / "broker", plant, "require_certificate true")
    try:
        for authority, name, is_expired, is_good in [
            (plant, "edge", False, True),
            (plant, "old-edge", True, False),
            (stranger, "edge", False, False),
        ]:
            certificate, key = authority.issue(name, is_expired=is_expired)
            tls = TlsSection(ca=plant.certificate, certificate=certificate, key=key)
            outcome = ask(broker.port, host="localhost", tls=tls)
            assert outcome.is_connected is is_good, outcome.lines
            if not is_good:
                assert outcome.lines[0].endswith(f"does the broker accept {certificate}, and has it not expired?")
        without = ask(broker.port, host="localhost", tls=TlsSection(ca=plant.certificate))
        assert flags(without) == (False, False, False) and "mqtt.tls.certificate is missing" in without.lines[0]
    finally:
        broker.stop()
