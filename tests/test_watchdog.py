"""The watchdog with a real notification socket, and the daemon under it."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Callable, Hashable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edge_asd import watchdog as watchdog_module
from edge_asd.config_publish import MqttSection
from edge_asd.publish import mqtt_connection
from edge_asd.publish.back_off import BackOff
from edge_asd.publish.log import Log
from edge_asd.publish.metrics import Metrics
from edge_asd.publish.mqtt import MqttPublisher
from edge_asd.publish.outbox import Outbox
from edge_asd.scheduler import Scheduler
from edge_asd.watchdog import Watchdog, watch_over, watchdog_seconds

PATIENCE = 0.4
"""``WatchdogSec=`` of these tests."""
CONNECTED = bytes([0x20, 3, 0, 0, 0])
"""MQTT version 5: CONNACK, success, no properties."""


class Systemd:
    """Its end of the notification socket."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._messages: list[str] = []
        # Always read, as systemd does: the kernel holds ten messages, and the eleventh makes its sender wait.
        threading.Thread(target=self._read, daemon=True).start()

    def take(self) -> list[str]:
        time.sleep(0.05)
        taken, self._messages = self._messages, []
        return taken

    def _read(self) -> None:
        while message := self._socket.recv(4096):
            self._messages.append(message.decode())

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


@pytest.fixture
def supervisor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Systemd]:
    systemd = Systemd(tmp_path / "notify")
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    monkeypatch.setenv("WATCHDOG_USEC", str(int(PATIENCE * 1e6)))
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
    yield systemd
    systemd.close()


class Work:
    """Something that can get on, hang, or be over."""

    def __init__(self) -> None:
        self.under_way: dict[str, Hashable] = {}

    def __call__(self) -> dict[str, Hashable]:
        return dict(self.under_way)


def turn(watchdog: Watchdog, seconds: float, work: Work | None = None) -> None:
    """The daemon's loop for a while; ``work`` gets on meanwhile."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if work is not None:
            work.under_way = {"a": object()}
        watchdog.tick()
        time.sleep(0.01)


def hanging(stream: io.StringIO, log: Log) -> list[dict[str, Any]]:
    log.close()
    return [line for line in map(json.loads, stream.getvalue().splitlines()) if line["event"] == "hangs"]


def test_it_is_fed_several_times_in_the_time_that_systemd_waits(supervisor: Systemd) -> None:
    watchdog = Watchdog(Log(io.StringIO()), look_seconds=0.02)
    turn(watchdog, 3 * PATIENCE)
    fed = supervisor.take()
    assert set(fed) == {"WATCHDOG=1"}
    assert 6 <= len(fed) <= 13


def test_it_is_not_fed_when_the_loop_does_not_turn(supervisor: Systemd) -> None:
    watchdog = Watchdog(Log(io.StringIO()), look_seconds=0.02)
    turn(watchdog, 0.05)
    supervisor.take()
    time.sleep(PATIENCE)
    assert supervisor.take() == []


def test_it_is_not_fed_when_something_hangs_and_says_what_once(supervisor: Systemd) -> None:
    stream, work = io.StringIO(), Work()
    log = Log(stream)
    watchdog = Watchdog(log, look_seconds=0.02)
    watchdog.watch(work)
    work.under_way = {"scoring press": 1, "scoring rail": 1}
    turn(watchdog, 2 * PATIENCE)
    supervisor.take()
    turn(watchdog, 2 * PATIENCE)
    assert supervisor.take() == []
    told = hanging(stream, log)
    assert len(told) == 1 and told[0]["level"] == "error"
    assert "scoring rail" in told[0]["error"]


def test_it_is_fed_while_work_gets_on_and_again_after_it_has_got_on(supervisor: Systemd) -> None:
    stream, work = io.StringIO(), Work()
    log = Log(stream)
    watchdog = Watchdog(log, look_seconds=0.02)
    watchdog.watch(work)
    turn(watchdog, 3 * PATIENCE, work)
    assert len(supervisor.take()) >= 6
    turn(watchdog, 2 * PATIENCE)  # it stands still
    supervisor.take()
    work.under_way = {}  # it is over
    turn(watchdog, PATIENCE)
    assert supervisor.take()
    assert len(hanging(stream, log)) == 1


def test_what_may_take_longer_may_take_longer(supervisor: Systemd) -> None:
    stream, work = io.StringIO(), Work()
    log = Log(stream)
    watchdog = Watchdog(log, look_seconds=0.02)
    watchdog.watch(work, {"scoring rail": 10 * PATIENCE})
    work.under_way = {"scoring rail": 1}
    turn(watchdog, 3 * PATIENCE)
    assert len(supervisor.take()) >= 6
    assert hanging(stream, log) == []


def test_a_process_that_stood_still_as_a_whole_does_not_hang(supervisor: Systemd) -> None:
    stream, work = io.StringIO(), Work()
    log = Log(stream)
    watchdog = Watchdog(log, look_seconds=0.02)
    watchdog.watch(work)
    work.under_way = {"scoring rail": 1}
    turn(watchdog, 0.05)
    supervisor.take()
    time.sleep(2 * PATIENCE)  # as after SIGCONT: nothing ran meanwhile
    watchdog.tick()
    assert supervisor.take() == ["WATCHDOG=1"]
    assert hanging(stream, log) == []


class Peer:
    """A broker that takes connections, or leaves them unanswered."""

    def __init__(self, answer: bytes) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._answer, self._links = answer, list[socket.socket]()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                self._links.append(self._listener.accept()[0])
                self._links[-1].sendall(self._answer)
            except OSError:
                return

    def close(self) -> None:
        for one in (self._listener, *self._links):
            one.close()


def publisher_of(port: int, path: Path, on_connected: Callable[[], None]) -> MqttPublisher:
    log, metrics = Log(io.StringIO()), Metrics()
    return MqttPublisher(
        MqttSection(host="127.0.0.1", port=port),
        site="plant",
        node="hall",
        instance="press",
        outbox=Outbox(path, log=log, metrics=metrics),
        log=log,
        metrics=metrics,
        on_connected=on_connected,
        back_off=BackOff(30.0, 30.0),
    )


@pytest.mark.parametrize("answers", [True, False])
def test_a_broker_that_is_not_there_or_does_not_answer_is_no_hang(
    supervisor: Systemd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answers: bool
) -> None:
    monkeypatch.setattr(watchdog_module, "_BROKER_SECONDS", PATIENCE)
    monkeypatch.setattr(mqtt_connection, "_TICK_SECONDS", 0.05)
    peer, stream = Peer(b""), io.StringIO()
    if not answers:
        peer.close()  # the connection is refused, and half a minute is waited then
    log, mqtt = Log(stream), publisher_of(peer.port, tmp_path / "a.sqlite", lambda: None)
    watchdog = watch_over(Scheduler([], 1, print, print), [], None, mqtt, log)
    watchdog._look_seconds = 0.02
    mqtt.start()
    try:
        turn(watchdog, 2 * PATIENCE)
        assert len(supervisor.take()) >= 4 and hanging(stream, log) == []
    finally:
        peer.close()
        mqtt.stop()


def test_a_thread_that_talks_to_the_broker_no_more_starves_the_watchdog(
    supervisor: Systemd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever is told of the connection never comes back; that may take longer than what systemd waits."""
    monkeypatch.setattr(watchdog_module, "_BROKER_SECONDS", 2 * PATIENCE)
    released = threading.Event()

    def never_come_back() -> None:
        released.wait(10)

    peer, stream = Peer(CONNECTED), io.StringIO()
    log, mqtt = Log(stream), publisher_of(peer.port, tmp_path / "a.sqlite", never_come_back)
    watchdog = watch_over(Scheduler([], 1, print, print), [], None, mqtt, log)
    watchdog._look_seconds = 0.02
    mqtt.start()
    try:
        turn(watchdog, 1.5 * PATIENCE)
        assert len(supervisor.take()) >= 3
        turn(watchdog, PATIENCE)
        supervisor.take()
        turn(watchdog, PATIENCE)
        assert supervisor.take() == []
        assert hanging(stream, log)[0]["error"] == "talking to the broker does not come back"
    finally:
        released.set()
        peer.close()
        mqtt.stop()


@pytest.mark.parametrize(
    ("microseconds", "pid", "expected"),
    [("30000000", None, 30.0), ("30000000", "1", None), ("0", None, None), ("soon", None, None), (None, None, None)],
)
def test_it_is_fed_only_where_systemd_waits_for_this_process(
    microseconds: str | None, pid: str | None, expected: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("WATCHDOG_USEC", microseconds), ("WATCHDOG_PID", pid)):
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)
    assert watchdog_seconds() == expected


def test_the_daemon_is_fed_without_a_microphone_and_tells_of_a_reload(
    supervisor: Systemd, tiny: Any, tmp_path: Path
) -> None:
    from parts.daemon import Daemon, write_config

    (tmp_path / "good.onnx").write_bytes(tiny())
    machine = "name: press, channel: 1, detectors: [good.onnx], hop_seconds: 1, alarm: {threshold: 11}"
    config = write_config(tmp_path / "edge.yaml", machine, mqtt="host: 127.0.0.1, port: 9", device="name: no such")
    environment = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "2000000", "WATCHDOG_PID": ""}
    daemon = Daemon(config, **environment)
    try:
        daemon.wait_for("ready")
        began = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        daemon.process.send_signal(signal.SIGHUP)
        time.sleep(4)  # two times what the watchdog waits
        supervisor_heard = supervisor.take()
        assert supervisor_heard[0] == "READY=1"
        assert supervisor_heard.count("WATCHDOG=1") >= 4
        reloading, reloaded = (m for m in supervisor_heard[1:] if m != "WATCHDOG=1")
        name, _, microseconds = reloading.partition("MONOTONIC_USEC=")
        assert name == "RELOADING=1\n" and 0 <= int(microseconds) * 1000 - began < 4e9
        assert re.fullmatch(r"READY=1\nSTATUS=\d\d:\d\d:\d\d reloaded, changed: nothing", reloaded)
        config.write_text("site: plant")
        daemon.process.send_signal(signal.SIGHUP)
        daemon.wait_for("reload_failed")
        *_, failed = (m for m in supervisor.take() if m != "WATCHDOG=1")
        assert re.fullmatch(r"READY=1\nSTATUS=\S+ reload failed, nothing changed: .*edge\.yaml:1:1: node: .*", failed)
        assert daemon.terminate() == 0
        assert supervisor.take()[-1] == "STOPPING=1"
    finally:
        daemon.kill()


def test_a_window_that_never_ends_starves_the_daemons_watchdog(supervisor: Systemd) -> None:
    released = threading.Event()
    scheduler: Scheduler[str, int] = Scheduler(["rail"], 1, lambda *_: bool(released.wait(10)), lambda *_: None)
    stream = io.StringIO()
    log = Log(stream)
    watchdog = Watchdog(log, look_seconds=0.02)
    watchdog.watch(scheduler.in_hand)
    scheduler.start()
    try:
        turn(watchdog, PATIENCE)
        assert supervisor.take()
        scheduler.submit("rail", 1)
        turn(watchdog, 2 * PATIENCE)
        supervisor.take()
        turn(watchdog, PATIENCE)
        assert supervisor.take() == []
        assert "rail" in hanging(stream, log)[0]["error"]
    finally:
        released.set()
        scheduler.stop()
    assert scheduler.in_hand() == {}
