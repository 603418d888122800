"""The daemon as a process, a real broker, a real subscriber: brokers that come and go, rights, recordings."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from parts.broker import TOPIC, Broker, Subscriber
from parts.daemon import Daemon, write_config
from parts.sounds import write_sound
from parts.waiting import free_port, until

from edge_asd.demo.slide_rail import Fault

pytestmark = pytest.mark.system

ALARM_TEXT = "{threshold: 2.0, raise_after: 2 of 3, clear_after: 2, rest_seconds: 60}"
FIRST_WINDOW_RAISES = "{threshold: 0.001, raise_after: 1 of 1, clear_after: 100, rest_seconds: 0}"


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    broker = Broker(tmp_path / "broker").start()
    yield broker
    broker.stop()


@pytest.fixture
def start(tmp_path: Path, site_file: Path) -> Iterator[Callable[..., Daemon]]:
    """Starts daemons with one machine, rail-7, that plays a faulty rail again and again; ends them after the test."""
    sound = write_sound(tmp_path / "faulty" / "0.wav", (12, Fault.LOOSE_BELT))
    started: list[Daemon] = []

    def start(mqtt: str | None, *options: str, name: str = "press", **environment: str) -> Daemon:
        machine = (
            f"name: rail-7, recordings: {sound.parent}, repeat: true, detectors: [{site_file}], "
            f"hop_seconds: 1, alarm: {FIRST_WINDOW_RAISES}"
        )
        config = write_config(tmp_path / f"{name}.yaml", machine, mqtt=mqtt)
        started.append(Daemon(config, *options, **environment))
        return started[-1]

    yield start
    for daemon in started:
        daemon.kill()


# ------------------------------------------------------------------------------------------- brokers that come and go


def test_last_will_after_kill(broker: Broker, start: Callable[..., Daemon]) -> None:
    daemon = start(f"host: 127.0.0.1, port: {broker.port}")
    subscriber = Subscriber(broker.port)
    until(lambda: [m for m in subscriber.of("daemon/press/status") if m.text == "online"], "the word online")
    daemon.process.send_signal(signal.SIGKILL)
    began = time.monotonic()
    until(lambda: [m for m in subscriber.of("daemon/press/status") if m.text == "offline"], "the last will", 5)
    assert time.monotonic() - began < 2
    late = Subscriber(broker.port)
    until(lambda: [m for m in late.of("daemon/press/status") if m.text == "offline" and m.retained], "it retained")
    for one in (subscriber, late):
        one.close()


def test_a_broker_that_was_away_is_told_everything_again(
    broker: Broker, start: Callable[..., Daemon], tmp_path: Path
) -> None:
    daemon = start(f"host: 127.0.0.1, port: {broker.port}")
    daemon.wait_for("mqtt_connected")
    broker.stop()
    daemon.wait_for("mqtt_disconnected")
    assert daemon.metric("edge_asd_mqtt_connected") == 0
    time.sleep(1.5)  # long enough for an attempt to fail
    # Without persistence: the new broker knows nothing.
    again = Broker(tmp_path / "again", port=broker.port).start()
    try:
        subscriber = Subscriber(again.port)
        until(lambda: subscriber.of("machine/rail-7/state"), "the state", 10)
        assert [m.text for m in subscriber.of("daemon/press/status")] == ["online"]
        assert daemon.metric("edge_asd_mqtt_connected") == 1
        assert len(daemon.events("mqtt_connected")) == 2
        subscriber.close()
        assert daemon.terminate() == 0
    finally:
        again.stop()


def test_the_newest_state_is_what_stays_after_an_outage(
    broker: Broker, start: Callable[..., Daemon], tmp_path: Path
) -> None:
    """The client sends unanswered messages again after it has connected: an old state must not be the last word."""
    daemon = start(f"host: 127.0.0.1, port: {broker.port}")
    daemon.wait_for("mqtt_connected")
    assert broker.process is not None
    broker.process.send_signal(signal.SIGSTOP)  # takes messages, and answers none
    daemon.wait_for("alert", 20)
    until(lambda: len(daemon.events("state")) >= 1, "a state that is not answered")
    broker.stop()
    again = Broker(tmp_path / "again", port=broker.port).start()
    try:
        subscriber = Subscriber(again.port)
        until(lambda: subscriber.of("machine/rail-7/state"), "the state", 10)
        time.sleep(1.5)
        times = [m.document["time"] for m in subscriber.of("machine/rail-7/state")]
        late = Subscriber(again.port)
        (retained,) = until(lambda: late.of("machine/rail-7/state"), "what is retained")
        assert retained.retained and retained.document["time"] == max(times)
        late.close()
        subscriber.close()
    finally:
        again.stop()


def test_alerts_that_were_not_delivered_are_told_at_the_end(start: Callable[..., Daemon]) -> None:
    daemon = start(f"host: 127.0.0.1, port: {free_port()}")
    daemon.wait_for("alert", 20)
    assert daemon.terminate() == 0
    (unsent,) = daemon.events("mqtt_unsent")
    assert unsent["alerts"] == 1


def test_without_a_broker_the_daemon_runs_on(start: Callable[..., Daemon], tmp_path: Path) -> None:
    """And an alert of that time reaches the broker when it comes."""
    port = free_port()
    daemon = start(f"host: 127.0.0.1, port: {port}")
    daemon.wait_for("ready")
    daemon.wait_for("mqtt_unreachable")
    incident = daemon.wait_for("alert", 20)["alert"]["incident"]
    assert daemon.metric("edge_asd_mqtt_connected") == 0
    assert daemon.get("/healthz") == (200, "ok\n")
    broker = Broker(tmp_path / "late", port=port).start()
    try:
        subscriber = Subscriber(port)
        alerts = until(lambda: subscriber.of("machine/rail-7/alert"), "the alert", 20)
        assert [m.document["incident"] for m in alerts] == [incident]
        until(lambda: subscriber.of("machine/rail-7/state"), "the state")
        subscriber.close()
        assert daemon.terminate() == 0
    finally:
        broker.stop()


def test_without_a_broker_it_stops_at_once(start: Callable[..., Daemon]) -> None:
    daemon = start(f"host: 127.0.0.1, port: {free_port()}")
    daemon.wait_for("ready")
    began = time.monotonic()
    assert daemon.terminate() == 0
    assert time.monotonic() - began < 3


def test_without_mqtt_events_go_to_the_log(start: Callable[..., Daemon]) -> None:
    daemon = start(None)
    alert = daemon.wait_for("alert", 20)["alert"]
    assert (alert["event"], alert["machine"], alert["sequence"]) == ("raised", "rail-7", 1)
    assert daemon.terminate() == 0


# --------------------------------------------------------------------------------------- who may and who listens


@pytest.fixture
def guarded_broker(tmp_path: Path) -> Iterator[Broker]:
    """Knows two users; ``edge`` may write everything but alerts."""
    folder = tmp_path / "guarded"
    folder.mkdir()
    passwords = folder / "passwords"
    for number, (user, word) in enumerate([("edge", "s3cret"), ("reader", "r3ader")]):
        create = [] if number else ["-c"]
        subprocess.run(["mosquitto_passwd", "-b", *create, str(passwords), user, word], check=True, capture_output=True)
    (folder / "acl").write_text(
        "user edge\n"
        + "".join(f"topic write {TOPIC}/{t}\n" for t in ("daemon/#", "machine/+/state", "machine/+/score"))
        + f"user reader\ntopic read {TOPIC}/#\n"
    )
    broker = Broker(folder, "allow_anonymous false", f"password_file {passwords}", f"acl_file {folder / 'acl'}").start()
    yield broker
    broker.stop()


def test_a_refused_alert_is_counted(guarded_broker: Broker, start: Callable[..., Daemon], tmp_path: Path) -> None:
    (tmp_path / "mqtt-password").write_text("s3cret\n")
    subscriber = Subscriber(guarded_broker.port, login=("reader", "r3ader"))
    daemon = start(f"host: 127.0.0.1, port: {guarded_broker.port}, username: edge, password_file: mqtt-password")
    refused = daemon.wait_for("mqtt_message_refused", 25)
    assert refused["topic"] == f"{TOPIC}/machine/rail-7/alert" and refused["reason"] == "Not authorized"
    assert daemon.metric("edge_asd_mqtt_refused_total") == 1
    until(lambda: len(subscriber.of("machine/rail-7/score")) >= 2, "scores, which are not refused")
    until(lambda: daemon.metric("edge_asd_mqtt_acknowledged_total") >= 3, "status and two states")
    assert daemon.metric("edge_asd_mqtt_refused_total") == 1
    assert not subscriber.of("machine/rail-7/alert")
    assert subscriber.of("machine/rail-7/state")[-1].document["last_alert"]["event"] == "raised"
    subscriber.close()
    assert daemon.terminate() == 0


def test_an_alert_that_nobody_hears_is_counted(broker: Broker, start: Callable[..., Daemon]) -> None:
    subscriber = Subscriber(broker.port, f"{TOPIC}/machine/+/state")
    daemon = start(f"host: 127.0.0.1, port: {broker.port}")
    assert daemon.wait_for("mqtt_unheard", 25)["topic"] == f"{TOPIC}/machine/rail-7/alert"
    assert daemon.metric("edge_asd_mqtt_unheard_total") == 1
    assert daemon.metric("edge_asd_mqtt_refused_total") == 0
    subscriber.close()
    assert daemon.terminate() == 0


def test_systemd_credentials_come_first(guarded_broker: Broker, start: Callable[..., Daemon], tmp_path: Path) -> None:
    (tmp_path / "mqtt-password").write_text("an old one\n")
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    (credentials / "mqtt-password").write_text("s3cret")
    settings = f"host: 127.0.0.1, port: {guarded_broker.port}, username: edge, password_file: mqtt-password"
    subscriber = Subscriber(guarded_broker.port, login=("reader", "r3ader"))
    daemon = start(settings, CREDENTIALS_DIRECTORY=str(credentials))
    until(lambda: subscriber.of("daemon/press/status"), "the word online")
    assert daemon.terminate() == 0
    assert "s3cret" not in json.dumps(daemon.log)

    # Where the credentials folder lacks it, the file beside the configuration is taken; this one is wrong.
    (credentials / "mqtt-password").unlink()
    wrong = start(settings, name="wrong", CREDENTIALS_DIRECTORY=str(credentials))
    assert wrong.wait_for("mqtt_refused")["reason"].startswith("Not authorized: look at mqtt.username")
    assert wrong.metric("edge_asd_mqtt_connected") == 0
    assert not subscriber.of("daemon/wrong/status")
    subscriber.close()
    assert wrong.terminate() == 0


# ------------------------------------------------------------------------------------------------- recordings


def test_until_end_and_files_that_cannot_be_read(site_file: Path, tmp_path: Path) -> None:
    write_sound(tmp_path / "sound" / "0.wav", (6, None))
    (tmp_path / "sound" / "1.wav").write_bytes(b"RIFF")
    write_sound(tmp_path / "sound" / "2.wav", (5, None))
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "0.flac").write_bytes(b"fLaC")
    machines = [
        f"name: {name}, recordings: {folder}, detectors: [{site_file}], alarm: {ALARM_TEXT}"
        for name, folder in [("rail-7", "sound"), ("rail-8", "bad")]
    ]
    (tmp_path / "sound" / "good").symlink_to(tmp_path / "sound" / "0.wav")
    good = machines[0].replace("recordings: sound", "recordings: sound/good")
    daemon = Daemon(write_config(tmp_path / "once.yaml", *machines, mqtt=None), "--until-end")
    all_good = Daemon(write_config(tmp_path / "good.yaml", good, mqtt=None), "--until-end")
    try:
        # As replay does: 0 where all could be read, 1 where some could not.
        assert all_good.process.wait(30) == 0
        assert daemon.process.wait(30) == 1
        until(lambda: daemon.events("stopped"), "the last line")
        failed = [(line["machine"], line["error"].split(": ")[0]) for line in daemon.events("recording_failed")]
        assert sorted(failed) == [
            ("rail-7", str(tmp_path / "sound" / "1.wav")),
            ("rail-8", str(tmp_path / "bad" / "0.flac")),
        ]
        assert {(line["machine"], line["seconds"]) for line in daemon.events("recordings_ended")} == {
            ("rail-7", 11.0),
            ("rail-8", 0.0),
        }
        last = {line["machine"]: (line["signal"], line["reason"]) for line in daemon.events("state")}
        assert last == {
            "rail-7": ("none", "the recordings have ended"),
            "rail-8": ("none", "none of the recordings could be read"),
        }
        assert daemon.errors.read_text() == ""
    finally:
        daemon.kill()
        all_good.kill()


def test_the_port_of_the_metrics_is_taken(site_file: Path, tmp_path: Path) -> None:
    """The machine is heard all the same, and the metrics are served once the port is free."""
    sound = write_sound(tmp_path / "0.wav", (1, None))
    machine = f"name: rail-7, recordings: {sound}, detectors: [{site_file}], alarm: {ALARM_TEXT}"
    config = write_config(tmp_path / "taken.yaml", machine, mqtt=None)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        config.write_text(config.read_text().replace("127.0.0.1:0", f"127.0.0.1:{port}"))
        daemon = Daemon(config)
        told = daemon.wait_for("metrics_not_served")
        assert told["error"] == f"metrics.listen: 127.0.0.1:{port}: Address already in use"
        assert daemon.wait_for("ready")["metrics"] is None
    assert daemon.wait_for("metrics_served", 10)["port"] == port
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        assert b"edge_asd_build_info" in answer.read()
    assert daemon.terminate() == 0


def test_sigint_stops_as_sigterm_does(start: Callable[..., Daemon]) -> None:
    daemon = start(None)
    daemon.wait_for("ready")
    daemon.process.send_signal(signal.SIGINT)
    assert daemon.process.wait(5) == 0
