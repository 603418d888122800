"""Machines that run or stand still as a topic says."""

from __future__ import annotations

import io
import json
from typing import Any

from edge_asd.active_topic import ActiveTopics
from edge_asd.clock import boot_time
from edge_asd.config import ActiveWhen
from edge_asd.pause import Pause
from edge_asd.publish.log import Log

GATE = ActiveWhen(topic="plc/line", on="1", off="0")


class Line:
    """Two machines of one line, one with a topic of its own and other words, one without a topic."""

    def __init__(self) -> None:
        self._stream = io.StringIO()
        self._log = Log(self._stream)
        self.pauses = {name: Pause() for name in ("press", "rail", "fan", "pump")}
        gates = {"press": GATE, "rail": GATE, "fan": ActiveWhen(topic="plc/fan", on="run", off="stop"), "pump": None}
        self.topics = ActiveTopics(((n, gates[n], p) for n, p in self.pauses.items()), self._log)

    def say(self, payload: bytes, topic: str = "plc/line") -> set[str]:
        """Who stands still after a message."""
        self.topics.subscriptions()[topic](topic, payload)
        return {name for name, pause in self.pauses.items() if pause.is_on}

    def log(self) -> list[tuple[str, str]]:
        self._log.close()
        lines: list[dict[str, Any]] = [json.loads(line) for line in self._stream.getvalue().splitlines()]
        return [(line["event"], line["machine"]) for line in lines]


def test_one_topic_may_speak_for_several_machines() -> None:
    line = Line()
    assert set(line.topics.subscriptions()) == {"plc/line", "plc/fan"}
    assert line.say(b"0") == {"press", "rail"}
    assert line.say(b"stop", "plc/fan") == {"press", "rail", "fan"}
    assert line.say(b" 0\n") == {"press", "rail", "fan"}, "the same again"
    assert line.say(b"1") == {"fan"}
    now = boot_time()
    assert line.pauses["press"].covers(now - 1) and not line.pauses["press"].covers(now + 1)
    assert line.log() == [
        ("machine_stands_still", "press"),
        ("machine_stands_still", "rail"),
        ("machine_stands_still", "fan"),
        ("machine_runs", "press"),
        ("machine_runs", "rail"),
    ]


def test_what_is_not_understood_counts_as_running_and_is_told_once() -> None:
    line = Line()
    line.say(b"0")
    for payload in (b"", b"\xff\xfe", b"\xff\xfe", b"2" * 100_000, b"off"):
        assert line.say(payload) == set()
    line.say(b"0")
    assert line.say(b"off") == set()
    told = [machine for event, machine in line.log() if event == "active_topic_unknown"]
    assert told.count("press") == told.count("rail") == 5


def test_a_silent_topic_is_told_once(monkeypatch: Any) -> None:
    now = 1000.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    line = Line()
    now += 3600
    line.topics.heed()  # there was no connection yet: that is told elsewhere
    line.topics.note_connection()
    line.say(b"1")
    now += 9.9
    line.topics.heed()
    line.topics.note_connection()
    now += 0.2
    for _ in range(3):
        line.topics.heed()
    assert line.log() == [("active_topic_silent", "fan")]
    assert not line.pauses["fan"].is_on
