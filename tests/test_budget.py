"""Whether the time suffices: what the ratio says, and when somebody is told."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest

from edge_asd.budget import Budget, State, next_state
from edge_asd.publish.log import Log


class Told:
    """A budget, and what it said."""

    def __init__(self, cores: int) -> None:
        self.stream = io.StringIO()
        self.log = Log(self.stream)
        self.budget = Budget(cores, self.log)

    def lines(self) -> list[dict[str, Any]]:
        self.log.close()
        return [json.loads(line) for line in self.stream.getvalue().splitlines()]


def test_the_ratio_is_work_over_sound_and_cores() -> None:
    told = Told(2)
    for _ in range(20):
        for name, seconds in (("a", 2.0), ("b", 4.0), ("c", 4.0)):
            ratio = told.budget.add(name, 10.0, seconds, seconds)
    assert ratio == pytest.approx((0.2 + 0.4 + 0.4) / 2)
    assert told.lines() == []


def test_one_machine_never_has_two_cores() -> None:
    told = Told(4)
    assert told.budget.add("a", 1.0, 1.2, 1.2) == pytest.approx(1.2)


def test_one_spike_does_not_shout() -> None:
    told = Told(1)
    for seconds in [3.0] * 10 + [12.0] + [3.0] * 10:
        told.budget.add("a", 10.0, seconds, seconds)
    assert told.lines() == []


def test_first_windows_do_not_shout() -> None:
    told = Told(1)
    for seconds in (15.0, 2.0, 2.0, 2.0, 2.0):
        told.budget.add("a", 10.0, seconds, seconds)
    assert told.lines() == []


def test_it_is_told_before_and_when_time_runs_out_and_when_all_is_well() -> None:
    told = Told(1)
    ratios = []
    for seconds in [0.5] * 60 + [0.9] * 600 + [1.3] * 600 + [0.3] * 600:
        ratios.append(told.budget.add("dear" if seconds else "", 1.0, seconds, seconds / 2))
        told.budget.add("cheap", 1.0, 0.01, 0.01)
    lines = told.lines()
    assert [(line["state"], line["level"]) for line in lines] == [
        ("tight", "warning"),
        ("exceeded", "warning"),
        ("tight", "warning"),
        ("ok", "info"),
    ]
    first = lines[0]
    assert first["event"] == "budget" and first["cores"] == 1 and 0.8 <= first["ratio"] < 0.85
    assert list(first["costliest"]) == ["dear", "cheap"]
    # Half of the wall time was somebody else's.
    assert first["processor_ratio"] == pytest.approx(first["ratio"] / 2, rel=0.1)


@pytest.mark.parametrize(
    ("state", "ratio", "then"),
    [
        ("ok", 0.79, "ok"),
        ("ok", 0.8, "tight"),
        ("tight", 0.71, "tight"),
        ("tight", 0.69, "ok"),
        ("tight", 1.0, "exceeded"),
        ("exceeded", 0.91, "exceeded"),
        ("exceeded", 0.89, "tight"),
        ("exceeded", 0.5, "ok"),
        ("ok", 1.5, "exceeded"),
    ],
)
def test_states_do_not_flutter(state: State, ratio: float, then: State) -> None:
    assert next_state(state, ratio) == then


def test_a_machine_that_has_ended_costs_nothing() -> None:
    told = Told(1)
    told.budget.add("a", 1.0, 0.5, 0.5)
    told.budget.add("b", 1.0, 0.2, 0.2)
    assert told.budget.forget("a") == pytest.approx(0.2)
    assert told.budget.add("a", 1.0, 0.5, 0.5) == pytest.approx(0.2), "its last window was still on a worker"
