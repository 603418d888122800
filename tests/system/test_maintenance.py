"""A shift in the plant: machines are muted, stand still as a PLC says, and are discovered, over the real broker."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import paho.mqtt.client as paho
import paho.mqtt.publish as paho_publish
import pytest
import soundfile
from parts.broker import TOPIC, Broker, Subscriber
from parts.daemon import Daemon, write_config
from parts.waiting import until

from edge_asd.demo.clips import simulate
from edge_asd.demo.slide_rail import Fault

pytestmark = pytest.mark.system

RATE = 16_000
PLC = "plc/rail-8/running"


def mute(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """edge-asd mute in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "edge_asd.cli", "mute", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        env={k: v for k, v in os.environ.items() if k != "STATE_DIRECTORY"},
    )


@dataclass
class Shift:
    """All that was seen."""

    subscriber: Subscriber
    first: Daemon
    second: Daemon
    early: subprocess.CompletedProcess[str]
    late: subprocess.CompletedProcess[str]
    late_took_seconds: float = 0.0
    marks: dict[str, Any] = field(default_factory=dict)

    def documents(self, topic: str) -> list[dict[str, Any]]:
        return [m.document for m in self.subscriber.of(f"machine/{topic}")]


@pytest.fixture(scope="module")
def shift(tmp_path_factory: pytest.TempPathFactory, site_file: Path) -> Iterator[Shift]:
    """rail-7 is broken, and muted before the daemon starts; rail-8 is sound, and its PLC says that it stands."""
    folder = tmp_path_factory.mktemp("shift")
    state = folder / "state"
    for name, fault in [("rail-7", Fault.LOOSE_BELT), ("rail-8", None)]:
        (folder / name).mkdir()
        sound = simulate("id_00", 12, seed=40, fault=fault, severity=1.0)
        soundfile.write(folder / name / "0.wav", np.asarray(sound), RATE, subtype="PCM_16")
    broker = Broker(folder / "broker").start()
    subscriber = Subscriber(broker.port)

    def say(topic: str, text: str, *, retain: bool = False) -> None:
        paho_publish.single(
            topic, text, qos=1, retain=retain, hostname="127.0.0.1", port=broker.port, protocol=paho.MQTTv5
        )

    def last(topic: str) -> dict[str, Any]:
        messages = subscriber.of(f"machine/{topic}")
        return messages[-1].document if messages else {}

    common = f"repeat: true, detectors: [{site_file}], hop_seconds: 1"
    alarm = "alarm: {threshold: 0.001, raise_after: 1 of 1, clear_after: 100, rest_seconds: 0}"
    config = write_config(
        folder / "press.yaml",
        f"name: rail-7, recordings: rail-7, {common}, {alarm}",
        f"name: rail-8, recordings: rail-8, {common}, alarm: {{threshold: 11}}, "
        f'active_when: {{topic: {PLC}, on: "1", off: "0"}}',
        mqtt=f"host: 127.0.0.1, port: {broker.port}, discovery: true",
    )
    say(PLC, "0", retain=True)
    state.mkdir()
    early = mute("rail-7", "--hours", "2", "-c", config, "--state", state)
    options = ("--state", str(state))
    first = Daemon(config, *options)
    daemons = [first]
    marks: dict[str, Any] = {}
    command = f"{TOPIC}/machine/rail-7/maintenance/set"
    try:
        until(lambda: len(subscriber.of("machine/rail-7/score")) >= 3, "scores in maintenance", 25)
        marks["metrics"] = first.get("/metrics")[1]
        marks["alerts in maintenance"] = len(subscriber.of("machine/rail-7/alert"))
        marks["idle"] = len(subscriber.of("machine/rail-8/score"))
        say(PLC, "1", retain=True)
        say(command, "off")
        until(lambda: last("rail-7/state").get("maintenance", 1) is None, "the answer to off")
        marks["off"] = time.monotonic()
        until(lambda: subscriber.of("machine/rail-7/alert"), "the alert after maintenance", 25)
        until(lambda: last("rail-8/score").get("result") == "scored", "a window of the machine that runs again")
        say(PLC, "banana")
        say(command, '{"hours": 1, "by": "shift lead"}', retain=True)
        marks["until"] = until(lambda: last("rail-7/state")["maintenance"], "the answer to the command")["until"]
        marks["incident"] = last("rail-7/state")["incident"]
        marks["before the crash"] = len(subscriber.of("machine/rail-7/state"))
        until(lambda: len(first.events("muted")) == 2, "the log to tell")
        first.process.send_signal(signal.SIGKILL)
        first.process.wait(10)
        second = Daemon(config, *options)
        daemons.append(second)
        second.wait_for("mqtt_connected")
        until(lambda: len(subscriber.of("machine/rail-7/state")) >= marks["before the crash"] + 2, "states again")
        time.sleep(1.5)  # the retained command has come again
        marks["after the crash"] = last("rail-7/state")
        began = time.monotonic()
        late = mute("rail-7", "--off", "--state", state)
        until(lambda: last("rail-7/state")["maintenance"] is None, "the daemon to heed the command")
        took = time.monotonic() - began
        marks["retained"] = Subscriber(broker.port, "homeassistant/#")
        until(lambda: len(marks["retained"].messages) >= 2, "discovery")
        marks["retained"].close()
        # A live "off" after a retained command, which the broker gives again to the next process.
        say(command, "on", retain=True)
        until(lambda: last("rail-7/state")["maintenance"], "the answer to on")
        say(command, "off")
        until(lambda: last("rail-7/state")["maintenance"] is None, "the answer to off")
        assert second.terminate() == 0
        third = Daemon(config, *options)
        daemons.append(third)
        third.wait_for("mqtt_connected")
        time.sleep(1.5)
        marks["after the restart"] = last("rail-7/state")
        say(command, '{"hours": 1}')
        until(lambda: last("rail-7/state")["maintenance"], "the answer to a command right after the connection")
        assert third.terminate() == 0
        marks["third"] = third
        yield Shift(subscriber, first, second, early, late, took, marks)
    finally:
        for daemon in daemons:
            daemon.kill()
        subscriber.close()
        broker.stop()


def test_a_muted_machine_is_scored_and_raises_nothing(shift: Shift, schema: Any) -> None:
    assert (shift.early.returncode, shift.marks["alerts in maintenance"]) == (0, 0)
    assert "no daemon reads" in shift.early.stderr, "it was not running yet"
    scores = shift.documents("rail-7/score")[:3]
    assert [(s["result"], s["condition"], s["anomalous"]) for s in scores] == [("scored", "maintenance", True)] * 3
    states = shift.documents("rail-7/state")
    assert {s["condition"] for s in states[:2]} == {"maintenance"} and states[0]["maintenance"]["by"]
    for document in states:
        schema("state").validate(document)
    assert 'edge_asd_muted{machine="rail-7"} 1.0' in shift.marks["metrics"]
    assert 'edge_asd_muted{machine="rail-8"} 0.0' in shift.marks["metrics"]
    assert 'edge_asd_condition{condition="maintenance",machine="rail-7"} 1.0' in shift.marks["metrics"]


def test_after_it_only_windows_that_began_later_count(shift: Shift) -> None:
    (alert,) = shift.subscriber.of("machine/rail-7/alert")
    assert alert.document["event"] == "raised"
    assert 9.0 < alert.arrived - shift.marks["off"] < 14.0, "the first window after it is 10 s long"


def test_the_log_tells(shift: Shift) -> None:
    def told(daemon: Daemon) -> list[tuple[str, str]]:
        return [(e["event"], e["by"]) for e in daemon.log if e["event"] in ("muted", "unmuted")]

    user = shift.documents("rail-7/state")[0]["maintenance"]["by"]
    assert told(shift.first) == [("muted", user), ("unmuted", "mqtt"), ("muted", "shift lead")]
    assert told(shift.second)[:2] == [("muted", "shift lead"), ("unmuted", user)]
    assert told(shift.second)[2:] == [("muted", "mqtt"), ("unmuted", "mqtt")]
    assert told(shift.marks["third"]) == [("muted", "mqtt")]
    for daemon in (shift.first, shift.second, shift.marks["third"]):
        assert not [line for line in daemon.log if line["level"] == "error"]


def test_it_outlives_a_crash_and_a_retained_command_counts_once(shift: Shift) -> None:
    assert shift.marks["incident"] is not None, "the open incident was held"
    after = shift.marks["after the crash"]
    assert (after["condition"], after["maintenance"]) == (
        "maintenance",
        {"until": shift.marks["until"], "by": "shift lead"},
    )
    assert datetime.fromisoformat(shift.marks["until"])


def test_a_retained_command_does_not_undo_a_later_one_that_was_not_retained(shift: Shift) -> None:
    assert shift.marks["after the restart"]["maintenance"] is None
    assert shift.marks["after the restart"]["condition"] != "maintenance"


def test_the_command_is_heeded_by_a_running_daemon(shift: Shift) -> None:
    assert (shift.late.returncode, shift.late.stderr) == (0, "")
    assert shift.late.stdout == "rail-7: maintenance is over\n"
    assert shift.late_took_seconds < 5, "about a second, and the start of a process"


def test_a_topic_says_whether_a_machine_runs(shift: Shift) -> None:
    idle = shift.documents("rail-8/score")[: shift.marks["idle"]]
    assert len(idle) >= 2 and all((s["result"], s["rarity"]) == ("idle", None) for s in idle)
    assert [s for s in shift.documents("rail-8/score") if s["result"] == "scored"]
    events = [e["event"] for e in shift.first.log if e.get("machine") == "rail-8" and "topic" in e]
    assert events == ["active_when", "machine_stands_still", "machine_runs", "active_topic_unknown"]
    # What is retained is heard again by the next process: 1.
    assert not [e for e in shift.second.log if e["event"] in ("machine_stands_still", "active_topic_silent")]


def test_home_assistant_discovers_the_machines(shift: Shift) -> None:
    found = {m.topic: m for m in shift.marks["retained"].messages}
    assert len(found) == 2
    for message in found.values():
        assert message.retained and message.topic.startswith("homeassistant/device/edge_asd-plant-3-hall-rail-")
        known = {m.topic for m in shift.subscriber.messages}
        document = message.document
        topics = {c["state_topic"] for c in document["components"].values()}
        topics |= {a["topic"] for a in document["availability"]}
        assert topics <= known, "all of them are published"
