"""Votes outlive a restart where detectors and threshold are the same; an open incident and a rest always do."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from parts.alarms import HOP_SECONDS, RATE
from parts.pipelines import QUICK, pipeline_of

from edge_asd.alarm import AlarmEvent
from edge_asd.detector import Detector
from edge_asd.pipeline import Pipeline
from edge_asd.publish import memory
from edge_asd.publish.payloads import MachineState, Place

TWO = replace(QUICK, raise_count=2, raise_window=3)


def step(state: MachineState, rarity: float) -> str | None:
    """What a window does that begins when the last has ended."""
    event: AlarmEvent | None = state.pipeline.alarm.step(rarity, HOP_SECONDS, HOP_SECONDS)
    return None if event is None else event.event


def restarted(state: MachineState, pipeline: Pipeline, **changes: Any) -> MachineState:
    """The machine in the next process, after a window of `step`."""
    remembered = json.loads(json.dumps(memory.remember(state, HOP_SECONDS * RATE)))
    other = MachineState(state.place, pipeline)
    memory.restore(other, {k: v for k, v in (remembered | changes).items() if v is not ...})
    return other


def machine(pipeline: Pipeline) -> MachineState:
    return MachineState(Place("plant-3", "hall", "press", "rail-7"), pipeline)


def recalibrated(detector: Detector) -> Pipeline:
    """By the same scores, heard anew."""
    pipeline = pipeline_of(detector, alarm=TWO)
    (used,) = pipeline.detectors
    pipeline.detectors = (used.calibrated(used.calibration.model_copy(update={"made": "2030-01-01T00:00:00Z"})),)
    return pipeline


def test_votes_count_only_by_the_scale_that_they_were_cast_by(statistics: Detector, site: Detector) -> None:
    first = machine(pipeline_of(site, alarm=TWO))
    assert step(first, 3.5) is None
    assert step(restarted(first, pipeline_of(site, alarm=TWO)), 3.5) == "raised"
    assert step(restarted(first, pipeline_of(site, alarm=replace(TWO, raise_window=2))), 3.5) == "raised"
    for other in (
        pipeline_of(site, alarm=replace(TWO, threshold=3.0)),
        pipeline_of(statistics, alarm=TWO),
        pipeline_of(site, statistics, alarm=TWO),
        recalibrated(site),
    ):
        second = restarted(first, other)
        assert [step(second, 3.5), step(second, 3.5)] == [None, "raised"]


def test_votes_of_a_version_that_did_not_note_it_do_not_count(site: Detector) -> None:
    first = machine(pipeline_of(site, alarm=TWO))
    step(first, 3.5)
    assert step(restarted(first, pipeline_of(site, alarm=TWO), scale=...), 3.5) is None


def test_an_open_incident_and_a_rest_outlive_another_threshold(site: Detector) -> None:
    calm = replace(QUICK, clear_after=2, rest_seconds=300.0)
    first = machine(pipeline_of(site, alarm=calm))
    assert [step(first, rarity) for rarity in (3.5, 0.1)] == ["raised", None]
    second = restarted(first, pipeline_of(site, alarm=replace(calm, threshold=3.0)))
    assert second.incident == second.pipeline.alarm.incident == first.pipeline.alarm.incident
    assert [step(second, rarity) for rarity in (0.1, 0.1)] == [None, "cleared"], "quiet windows count anew, too"
    third = restarted(second, pipeline_of(site, alarm=calm))
    assert [step(third, 3.5) for _ in range(3)] == [None] * 3, "it rests"
