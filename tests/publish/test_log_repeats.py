"""Repeats: some are written, the rest is counted, and what matters is never kept back."""

from __future__ import annotations

import ast
import io
import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edge_asd.publish import log as log_module
from edge_asd.publish.journal import Level
from edge_asd.publish.log import Log
from edge_asd.publish.log_repeats import (
    MOST_NEW,
    MOST_REPEATS,
    NEVER_KEPT_BACK,
    QUIET_SECONDS,
    RUN_SECONDS,
    Repeats,
)

PACKAGE = Path(__file__).parents[2] / "edge_asd"


class Scene:
    """A log on a clock of its own."""

    def __init__(self) -> None:
        self.now = 0.0
        self.stream = io.StringIO()
        self.log = Log(self.stream, repeats=Repeats(lambda: self.now))

    def flood(self, event: str, seconds: float, every: float, level: Level = "warning", **fields: Any) -> int:
        """How many lines that were."""
        count = round(seconds / every)
        for number in range(count):
            self.log(event, level, start_seconds=number * every, **fields)
            self.now += every
        return count

    def lines(self) -> list[dict[str, Any]]:
        self.log.close()
        return [json.loads(line) for line in self.stream.getvalue().splitlines()]


@pytest.fixture
def scene() -> Iterator[Scene]:
    scene = Scene()
    yield scene
    scene.log.close()


def of(lines: list[dict[str, Any]], event: str, machine: str | None = None) -> list[dict[str, Any]]:
    return [line for line in lines if line["event"] == event and machine in (None, line.get("machine"))]


@pytest.mark.parametrize("every", [0.01, 1.0, 5.0])
def test_a_flood_is_ten_lines_and_a_count(scene: Scene, every: float) -> None:
    count = scene.flood("window_late", 595, every, machine="rail-7")
    lines = scene.lines()
    assert len(of(lines, "window_late")) == MOST_REPEATS == 10
    (kept,) = of(lines, "repeated")
    assert lines[-1] == kept, "at the end it is told"
    assert (kept["of"], kept["machine"], kept["level"]) == ("window_late", "rail-7", "warning")
    assert kept["count"] == count - 10 and kept["seconds"] == round(595 - every)


def test_a_flood_for_a_day_is_counted_every_ten_minutes_and_nothing_is_lost(scene: Scene) -> None:
    count = scene.flood("scoring_failed", 86_400, 10.0, "error", machine="rail-7", error="the graph is broken")
    lines = scene.lines()
    assert len(of(lines, "scoring_failed")) + sum(line["count"] for line in of(lines, "repeated")) == count
    assert len(lines) <= (MOST_REPEATS + 1) * 86_400 / RUN_SECONDS
    assert all(line["seconds"] <= RUN_SECONDS for line in of(lines, "repeated"))


def test_a_detector_that_fails_at_every_window_of_ten_seconds_is_a_flood(scene: Scene) -> None:
    scene.flood("scoring_failed", 590, 10.0, "error", machine="rail-7", error="the graph is broken")
    assert [line["event"] for line in scene.lines()] == ["scoring_failed"] * 10 + ["repeated"]


def test_one_machine_does_not_hide_another_nor_a_warning_an_error(scene: Scene) -> None:
    scene.flood("scoring_failed", 60, 0.1, "error", machine="rail-7")
    scene.log("scoring_failed", "error", machine="rail-8")
    scene.log("scoring_failed", "warning", machine="rail-7")
    scene.log("window_late", "error", machine="rail-7")
    lines = scene.lines()
    assert [(line["event"], line["machine"], line["level"]) for line in lines[10:13]] == [
        ("scoring_failed", "rail-8", "error"),
        ("scoring_failed", "rail-7", "warning"),
        ("window_late", "rail-7", "error"),
    ]


def test_an_error_that_says_something_new_is_written_but_not_without_end(scene: Scene) -> None:
    scene.flood("scoring_failed", 30, 0.1, "error", machine="rail-7", error="input 3 has 128 mels")
    scene.log("scoring_failed", "error", start_seconds=30, machine="rail-7", error="input 9 has 64 mels")
    scene.log("scoring_failed", "error", start_seconds=1e-9, machine="rail-7", error="no space left on device")
    scene.log("scoring_failed", "error", start_seconds=-2, machine="rail-7", error="no space left on device")
    for letter in range(500):
        scene.log("scoring_failed", "error", machine="rail-7", error=chr(ord("a") + letter))
    lines = scene.lines()
    errors = [line["error"] for line in of(lines, "scoring_failed")]
    assert errors[:11] == ["input 3 has 128 mels"] * 10 + ["no space left on device"]
    assert len(errors) == MOST_REPEATS + MOST_NEW
    assert sum(line["count"] for line in of(lines, "repeated")) == 300 + 3 + 500 - len(errors)


def test_what_ended_is_counted_within_a_minute_though_nothing_more_is_said(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_module, "_LOOK_SECONDS", 0.01)
    scene.log("first")  # the writer looks anew from now on
    scene.flood("window_late", 15, 1.0, machine="rail-7")
    scene.now += QUIET_SECONDS
    deadline = time.monotonic() + 10
    while '"repeated"' not in scene.stream.getvalue() and time.monotonic() < deadline:
        time.sleep(0.01)
    (kept,) = [line for line in map(json.loads, scene.stream.getvalue().splitlines()) if line["event"] == "repeated"]
    assert (kept["count"], kept["seconds"]) == (5, 14)
    scene.log("window_late", "warning", machine="rail-7")
    assert len(of(scene.lines(), "window_late")) == 11, "the next flood is told of from its beginning"


def test_now_and_then_is_no_flood(scene: Scene) -> None:
    count = scene.flood("mqtt_disconnected", 86_400, QUIET_SECONDS + 1)
    assert len(of(scene.lines(), "mqtt_disconnected")) == count


@pytest.mark.parametrize("event", sorted(NEVER_KEPT_BACK))
def test_what_matters_is_never_kept_back(scene: Scene, event: str) -> None:
    for _ in range(200):
        scene.log(event, "warning", machine="rail-7")
    lines = scene.lines()
    assert len(lines) == 200 and {line["event"] for line in lines} == {event}


def test_what_matters_is_what_the_daemon_says() -> None:
    assert {"alert", "ready", "stopped", "state", "muted", "alert_lost", "calibration"} <= NEVER_KEPT_BACK
    assert not {"window_late", "scoring_failed", "mqtt_unreachable"} & NEVER_KEPT_BACK
    assert events_of_the_daemon() >= NEVER_KEPT_BACK


def test_the_readme_names_what_the_daemon_says() -> None:
    section = (PACKAGE.parent / "README.md").read_text().partition("## Logs\n")[2].partition("\n## ")[0]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    named = {event for row in rows for event in re.findall(r"`(\w+)`", row)}
    assert len(named) > 25 and named <= events_of_the_daemon()


def events_of_the_daemon() -> set[str]:
    """Every constant that is said to a log."""
    found = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) in (
                *("log", "_log", "_say", "_put", "_line"),
            ):
                found |= {n.value for a in node.args[:1] for n in ast.walk(a) if isinstance(n, ast.Constant)}
    return {event for event in found if isinstance(event, str)}
