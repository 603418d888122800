"""Alerts that arrive: broker and daemon killed at any moment, a broker that was away, disks full or without power."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import soundfile
from parts.alarms import LOUD, QUIET
from parts.broker import TOPIC, Broker, Subscriber
from parts.chaos import PARTS, Chaos
from parts.daemon import Daemon, write_config
from parts.plant import Plant
from parts.waiting import free_port, until

from edge_asd.demo.clips import simulate
from edge_asd.demo.slide_rail import Fault
from edge_asd.publish import outbox as outbox_module
from edge_asd.publish.outbox_file import OutboxFile
from edge_asd.publish.outbox_packing import unpack
from edge_asd.state_folder import state_folder

pytestmark = pytest.mark.system

KILLS = int(os.environ.get("EDGE_ASD_SOAK_KILLS", "40"))
ALERTS = int(os.environ.get("EDGE_ASD_SOAK_ALERTS", "3000"))


def test_no_alert_is_lost_or_doubled_whatever_is_killed(tmp_path: Path) -> None:
    """`make test-soak` does it with 1,000 kills and 100,000 alerts."""
    chaos = Chaos(tmp_path, seed=int(os.environ.get("EDGE_ASD_SOAK_SEED", "1")))
    try:
        chaos.start()
        for _ in range(KILLS):
            chaos.kill()
        chaos.settle(ALERTS, 60 + ALERTS / 50)
        result = chaos.result()
    finally:
        chaos.stop()
    print(f"{KILLS} kills, {result.stored} alerts, {result.heard - result.stored} heard twice")
    assert (result.lost, result.unknown, result.disorder, result.unsent) == ([], [], [], 0)
    assert result.stored >= ALERTS


def test_a_broker_that_is_away_for_a_day(tmp_path: Path) -> None:
    """8,640 windows of three machines, an incident of each every five minutes, a restart in between."""
    port = free_port()
    plant = Plant(tmp_path / "alarms.sqlite", port, machines=3)
    cycle = [QUIET] * 14 + [LOUD, LOUD, LOUD] + [QUIET] * 13
    for _ in range(144):
        plant.hear(*cycle)
    plant.stop()
    plant = Plant(tmp_path / "alarms.sqlite", port, machines=3)
    assert plant.outbox.unsent == 3 * 2 * 144
    for _ in range(144):
        plant.hear(*cycle)
    broker = Broker(tmp_path / "broker", "allow_anonymous true", port=port)
    try:
        broker.start()
        subscriber = Subscriber(port, f"{TOPIC}/machine/+/alert")
        # Whoever subscribes after the first alerts went is told so by the metric, not by a loss.
        until(lambda: plant.outbox.unsent == 0, "the last answer", 60)
        unheard = int(plant.metrics.registry.get_sample_value("edge_asd_mqtt_unheard_total") or 0)
        until(lambda: len(subscriber.messages) == 3 * 2 * 288 - unheard, "all of them", 10)
        for machine in ("rail-0", "rail-1", "rail-2"):
            alerts = [m.document for m in subscriber.of(f"machine/{machine}/alert")]
            numbers = [a["sequence"] for a in alerts]
            assert numbers == list(range(577 - len(numbers), 577)), "in order, without a gap"
            assert [a["event"] for a in alerts[-2:]] == ["raised", "cleared"]
        subscriber.close()
    finally:
        plant.stop()
        broker.stop()


def test_memory_does_not_grow_while_the_broker_is_away(tmp_path: Path) -> None:
    """Nor with what waits on disk: below 1 MB from 1,000 to 9,000 alerts, not counting libraries that are mapped."""
    database = tmp_path / "alarms.sqlite"
    command = [sys.executable, "-P", str(PARTS / "alarms.py"), str(database), str(free_port()), "40", str(10**9)]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log)

    def kilobytes() -> int:
        found = re.search(r"RssAnon:\s+(\d+)", Path(f"/proc/{process.pid}/status").read_text())
        assert found
        return int(found[1])

    def waiting() -> int:
        try:
            with sqlite3.connect(database, timeout=5) as connection:
                return int(connection.execute("SELECT max(number) FROM message").fetchone()[0] or 0)
        except sqlite3.OperationalError:
            return 0

    try:
        until(lambda: waiting() > 1_000, "alerts", 60)
        before = kilobytes()
        until(lambda: waiting() > 9_000, "more alerts", 120)
        grown = kilobytes() - before
    finally:
        process.kill()
        process.wait()
    print(f"{grown} kB")
    assert grown < 1_000


# ------------------------------------------------------------------------------------------------------ disks


@contextmanager
def mounted(folder: Path, *options: str) -> Iterator[Path]:
    folder.mkdir()
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    done = subprocess.run(["mount", *options, str(folder)], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"mounting is not possible here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_stops_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Alerts go from memory; when there is room again, the disk takes up what it missed."""
    monkeypatch.setattr(outbox_module, "_RETRY_SECONDS", 0.5)
    broker = Broker(tmp_path / "broker").start()
    try:
        with mounted(tmp_path / "disk", "-t", "tmpfs", "-o", "size=4m", "tmpfs") as disk:
            subscriber = Subscriber(broker.port, f"{TOPIC}/machine/+/alert")
            plant = Plant(disk / "alarms.sqlite", broker.port)
            plant.hear(LOUD, LOUD)
            until(lambda: len(subscriber.messages) == 1, "the first alert")
            filler = disk / "filler"
            with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
                while True:
                    file.write(b"x" * 4096)
            for _ in range(40):
                plant.hear(QUIET, QUIET, LOUD, LOUD)
            until(lambda: len(subscriber.messages) == 81, "all alerts, by way of memory", 30)
            assert [m.document["sequence"] for m in subscriber.messages] == list(range(1, 82))
            assert "full" in str(plant.events("outbox_failing")[0]["error"])
            filler.unlink()
            until(lambda: plant.events("outbox_recovered"), "the disk", 10)
            plant.hear(QUIET, QUIET)
            until(lambda: len(subscriber.messages) == 82 and not plant.outbox.unsent, "the next alert")
            plant.stop()
            again = Plant(disk / "alarms.sqlite", broker.port)
            assert (again.states[0].sequence, again.outbox.unsent) == (82, 0)
            again.stop()
            subscriber.close()
    finally:
        broker.stop()


def test_a_state_names_an_incident_whose_alert_is_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = OutboxFile.store

    def slow(file: OutboxFile, *arguments: Any) -> int:
        time.sleep(0.5)
        return store(file, *arguments)

    broker = Broker(tmp_path / "broker").start()
    subscriber = Subscriber(broker.port, f"{TOPIC}/machine/+/state")
    plant = Plant(tmp_path / "alarms.sqlite", broker.port)
    try:
        connected = "edge_asd_mqtt_connected"
        until(lambda: plant.metrics.registry.get_sample_value(connected) == 1, "the connection")
        plant.hear(QUIET)
        until(lambda: subscriber.messages and not plant.outbox._memory, "the first state, and the disk")
        monkeypatch.setattr(OutboxFile, "store", slow)
        plant.hear(LOUD, LOUD)
        document = until(
            lambda: subscriber.messages[-1].document["incident"] and subscriber.messages[-1].document, "it"
        )
        with contextlib.closing(sqlite3.connect(plant.outbox.path)) as connection:
            (payload,) = connection.execute("SELECT payload FROM message").fetchone()
        alert = json.loads(unpack(payload) or "")
        assert alert["incident"] == document["incident"] == document["last_alert"]["incident"]
    finally:
        plant.stop()
        subscriber.close()
        broker.stop()


def test_power_cut(tmp_path: Path) -> None:
    """The image of a mounted disk, copied at any moment, is what a power cut leaves: alert and state, or neither."""
    mkfs = shutil.which("mkfs.ext4", path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    if mkfs is None:
        pytest.skip("mkfs.ext4 is not there")
    image = tmp_path / "image"
    with image.open("wb") as file:
        file.truncate(24_000_000)
    subprocess.run([mkfs, "-q", "-F", str(image)], check=True)
    counts = set()
    with mounted(tmp_path / "disk", "-o", "loop", str(image)) as disk:
        with (tmp_path / "log").open("wb") as log:
            command = [str(PARTS / "alarms.py"), str(disk / "alarms.sqlite"), str(free_port()), "10", "3000"]
            process = subprocess.Popen([sys.executable, "-P", *command], stdout=log)
        try:
            until((disk / "alarms.sqlite").exists, "the database")
            for number in range(8):
                time.sleep(0.5)
                copy = tmp_path / f"copy-{number}"
                process.send_signal(signal.SIGSTOP)  # the copy must be of one moment
                shutil.copyfile(image, copy)
                process.send_signal(signal.SIGCONT)
                with mounted(tmp_path / f"after-{number}", "-o", "loop", str(copy)) as after:
                    counts.add(check_consistency(after / "alarms.sqlite"))
        finally:
            process.kill()
            process.wait()
    assert len(counts) >= 5, counts


def check_consistency(database: Path) -> int:
    """Alerts in it; each machine's state is the one after its last alert, or later."""
    file = OutboxFile(database, 64_000_000)
    memory = file.memory()
    file.close()
    with contextlib.closing(sqlite3.connect(database)) as connection:
        rows = list(connection.execute("SELECT payload FROM message ORDER BY number"))
    alerts = [json.loads(unpack(payload) or "") for (payload,) in rows]
    last = {a["machine"]: a for a in alerts}
    for name, value in memory.items():
        machine = name.removeprefix("alarm/")
        assert value["sequence"] == (last[machine]["sequence"] if machine in last else 0), machine
    assert set(last) <= {name.removeprefix("alarm/") for name in memory}
    return len(alerts)


# ------------------------------------------------------------------------------------------- the daemon itself


@pytest.fixture
def start(tmp_path: Path, site_file: Path) -> Iterator[Callable[[int], Daemon]]:
    """Starts the daemon with one machine, whose fault is there from the first window on."""
    sound = tmp_path / "faulty.wav"
    soundfile.write(sound, simulate("id_00", 12, seed=40, fault=Fault.LOOSE_BELT, severity=1.0), 16_000)
    alarm = "{threshold: 0.001, raise_after: 1 of 1, clear_after: 100, rest_seconds: 0}"
    machine = (
        f"name: rail-7, recordings: {sound}, repeat: true, detectors: [{site_file}], hop_seconds: 1, alarm: {alarm}"
    )
    started: list[Daemon] = []

    def start(port: int) -> Daemon:
        config = write_config(tmp_path / "press.yaml", machine, mqtt=f"host: 127.0.0.1, port: {port}")
        started.append(Daemon(config))
        return started[-1]

    yield start
    for daemon in started:
        daemon.kill()


def test_the_daemon_goes_on_after_a_kill(start: Callable[[int], Daemon], tmp_path: Path) -> None:
    """The broker is away when the alarm is raised; the daemon is killed; both come back: one alert, one incident."""
    port = free_port()
    first = start(port)
    alert = first.wait_for("alert", 30)["alert"]
    until(lambda: first.metric("edge_asd_outbox_messages") == 1, "its count")
    assert first.metric("edge_asd_outbox_oldest_timestamp_seconds") > 1.7e9
    second = start(port)
    assert second.process.wait(20) == 78
    environment = {"XDG_STATE_HOME": str(tmp_path / "state")}
    database = state_folder(tmp_path / "press.yaml", None, environment) / "press.sqlite"
    said = second.errors.read_text()
    assert f"{database} is in use by another edge-asd (pid {first.process.pid})" in said and said.count("\n") == 1
    first.process.send_signal(signal.SIGKILL)
    first.process.wait()

    third = start(port)
    restored = third.wait_for("alarm_restored")
    assert (restored["incident"], restored["sequence"]) == (alert["incident"], 1)
    third.wait_for("ready")
    broker = Broker(tmp_path / "broker", port=port).start()
    try:
        subscriber = Subscriber(port)
        arrived = until(lambda: subscriber.of("machine/rail-7/alert"), "the alert", 20)
        assert [m.document for m in arrived] == [alert]
        until(lambda: len(subscriber.of("machine/rail-7/score")) >= 3, "windows of the same sound", 20)
        assert len(subscriber.of("machine/rail-7/alert")) == 1, "the incident is the same, and was told"
        states = [m.document for m in subscriber.of("machine/rail-7/state")]
        assert {s["incident"] for s in states} == {alert["incident"]}
        assert {s["condition"] for s in states} == {"anomalous"} and states[-1]["last_alert"]["sequence"] == 1
        until(lambda: third.metric("edge_asd_outbox_messages") == 0, "the answer")
        subscriber.close()
        assert third.terminate() == 0
    finally:
        broker.stop()
