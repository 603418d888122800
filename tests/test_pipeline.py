"""One machine's pipeline, live and replayed: the same scores to the bit; and what it tells of a machine."""

from __future__ import annotations

import itertools
import json
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from parts.pipelines import QUICK, RATE, essence, pipeline_of, write

from edge_asd.audio.health import Finding
from edge_asd.audio.player import RecordingPlayer
from edge_asd.audio.windows import Window
from edge_asd.calibration import learned_gate
from edge_asd.clock import boot_time
from edge_asd.demo.clips import simulate
from edge_asd.demo.slide_rail import Fault
from edge_asd.detector import Detector
from edge_asd.errors import DetectorError
from edge_asd.logmel import Float32Array
from edge_asd.pipeline import AlarmSettings, Pipeline, Reading
from edge_asd.publish import payloads
from edge_asd.publish.payloads import MachineState, Place
from edge_asd.replay import Replayer

Schema = Callable[[str], Draft202012Validator]


@pytest.fixture(scope="module")
def incident_sound() -> Float32Array:
    """Thirty seconds of a slide rail: sound, damaged, sound again."""
    parts = [(12, None), (10, Fault.RAIL_DAMAGE), (11, None)]
    return np.concatenate([simulate("id_00", s, seed=5, fault=fault, severity=1.0) for s, fault in parts])


def read_all(pipeline: Pipeline, blocks: Iterable[Float32Array]) -> list[Reading]:
    cutter = pipeline.cutter()
    return [pipeline.read(window) for block in blocks for window in cutter.push(block)]


@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sizes=st.lists(st.one_of(st.integers(1, 999), st.integers(1_000, 400_000)), min_size=1, max_size=12))
def test_scores_and_events_do_not_depend_on_blocks(
    incident_sound: Float32Array, statistics: Detector, sizes: list[int]
) -> None:
    pipeline = pipeline_of(statistics)
    whole = essence(read_all(pipeline, [incident_sound]))
    pipeline.reset()
    # The sizes in turn; where they are tiny, the rest comes at once, or a test would take minutes.
    ends = [
        min(end, incident_sound.size) for end in itertools.accumulate(itertools.islice(itertools.cycle(sizes), 300))
    ]
    blocks = [incident_sound[a:b] for a, b in itertools.pairwise([0, *ends, incident_sound.size])]
    assert essence(read_all(pipeline, blocks)) == whole
    assert [w["event"] for w in whole if w["event"]] == ["raised", "cleared"]


@pytest.mark.parametrize(("rate", "suffix"), [(16_000, ".wav"), (44_100, ".wav"), (8_000, ".flac")])
def test_live_and_replay_agree_to_the_bit(
    incident_sound: Float32Array, statistics: Detector, tmp_path: Path, rate: int, suffix: str
) -> None:
    """The same file, once as fast as it goes and once in what a clock of odd ticks makes due; two channels of three."""
    noise = np.random.default_rng(0).normal(0, 0.1, incident_sound.size).astype(np.float32)
    path = write(tmp_path / f"two{suffix}", np.stack([noise, incident_sound], axis=1), rate)
    failed: list[Exception] = []
    replayer = Replayer([statistics], QUICK, hop_seconds=5.0, machine_id="id_00", channel=2)
    replayed = replayer.replay_file(path)
    pipeline = pipeline_of(statistics, hop=5.0)
    player = RecordingPlayer([path], sample_rate=RATE, channel=2, on_failure=failed.append)

    def due() -> Iterable[Float32Array]:
        position = 0
        for tick in itertools.cycle([1601, 1598, 4, 0, 33_000]):
            if player.has_ended:
                return
            position += tick
            yield player.take(position)

    live = read_all(pipeline, due())
    assert not failed and not replayed.failed
    assert player.given == round(replayed.seconds * RATE) == pytest.approx(incident_sound.size * RATE / rate, abs=2)
    assert essence(live) == essence(replayed.readings)
    windows = (player.given - 10 * RATE) // (5 * RATE) + 1
    assert len(live) == windows and all(r.result == "scored" for r in live)


def test_what_is_not_scored_neither_raises_nor_clears(incident_sound: Float32Array, site: Detector) -> None:
    pipeline = pipeline_of(site, hop=10.0, active_above_dbfs=-60.0)
    cutter = pipeline.cutter()
    sound, faulty = incident_sound[: 10 * RATE], incident_sound[12 * RATE : 22 * RATE]
    heard: list[Reading] = []
    for samples in (np.zeros(10 * RATE, np.float32), sound, faulty):
        heard += map(pipeline.read, cutter.push(samples))
    heard += map(pipeline.read, cutter.push_lost(10 * RATE))
    heard += map(pipeline.read, cutter.push(sound[: 5 * RATE]))
    heard += map(pipeline.read, cutter.push_lost(1))
    heard += map(pipeline.read, cutter.push(np.zeros(10 * RATE, np.float32)))
    heard += [pipeline.read(Window(cutter.position, sound, 0, finding=Finding("clipping", "flat tops")))]
    late = Window(cutter.position, sound, 0)
    heard += [pipeline.skip(late, "late"), pipeline.skip(late, "failed"), pipeline.read(late)]
    assert [(r.result, r.condition, r.lost) for r in heard] == [
        ("idle", "idle", 0),
        ("scored", "normal", 0),
        ("scored", "anomalous", 0),
        ("gap", "anomalous", 160_000),
        ("gap", "anomalous", 1),
        ("idle", "anomalous", 0),
        ("suspect", "anomalous", 0),
        ("late", "anomalous", 0),
        ("failed", "anomalous", 0),
        ("scored", "normal", 0),
    ]
    assert [None if r.event is None else r.event.event for r in heard] == [None, None, "raised", *[None] * 6, "cleared"]
    assert len({r.incident for r in heard[2:-1]}) == 1
    assert all((r.rarity is None) == (r.result != "scored") == (not r.detectors) for r in heard)


def test_a_learned_gate_lies_below_the_quietest_normal_windows(incident_sound: Float32Array, site: Detector) -> None:
    pipeline = pipeline_of(site, hop=10.0, active_above_dbfs="learned")
    calibration = site.metadata.calibration["id_00"]
    assert calibration.level_low_dbfs is not None
    assert calibration.level_dbfs - 6 < calibration.level_low_dbfs <= calibration.level_dbfs
    gate = pipeline.active_above_dbfs
    assert gate == calibration.level_low_dbfs - 6
    sound = incident_sound[: 10 * RATE]
    level = Window(0, sound, 0).level_dbfs
    assert level is not None
    for change, result in [(0.0, "scored"), (gate - level + 0.1, "scored"), (gate - level - 0.1, "idle")]:
        assert pipeline.read(Window(0, sound * np.float32(10 ** (change / 20)), 0)).result == result
    old = calibration.model_copy(update={"level_low_dbfs": None})
    assert learned_gate(old) == calibration.level_dbfs - 6, "calibrations that did not note it"


def test_what_is_adopted_scores_the_next_window_as_if_it_had_always_been_there(
    incident_sound: Float32Array, statistics: Detector, site: Detector
) -> None:
    sound, faulty = incident_sound[: 10 * RATE], incident_sound[12 * RATE : 22 * RATE]
    pipeline = pipeline_of(site, alarm=replace(QUICK, raise_count=2, raise_window=3), hop=10.0)
    alarm = pipeline.alarm
    other = pipeline_of(site, statistics, alarm=replace(QUICK, threshold=2.5), hop=10.0, active_above_dbfs=-90.0)
    assert pipeline.read(Window(0, faulty, 0)).event is None, "one vote of two"
    pipeline.adopt(pipeline_of(site, alarm=replace(QUICK, raise_count=2, raise_window=2), hop=10.0))
    raised = pipeline.read(Window(10 * RATE, faulty, 0)).event
    assert raised is not None and raised.event == "raised", "the vote counts: detector and threshold are the same"
    pipeline.adopt(other)
    assert pipeline.alarm is alarm and alarm.incident == raised.incident and pipeline.condition == "anomalous"
    found, expected = (p.read(Window(20 * RATE, sound, 0)) for p in (pipeline, other))
    assert essence([found])[0]["detectors"] == essence([expected])[0]["detectors"]
    assert found.rarity == expected.rarity and (found.threshold, len(found.detectors)) == (2.5, 2)
    assert found.event is not None and (found.event.event, found.event.incident) == ("cleared", raised.incident)
    assert pipeline.read(Window(30 * RATE, np.zeros(10 * RATE, np.float32), 0)).result == "idle", "the gate as well"


def test_votes_of_another_detector_or_threshold_do_not_count(
    incident_sound: Float32Array, statistics: Detector, site: Detector
) -> None:
    faulty = incident_sound[12 * RATE : 22 * RATE]
    two = replace(QUICK, raise_count=2, raise_window=2)
    for other in (pipeline_of(statistics, alarm=two), pipeline_of(site, alarm=replace(two, threshold=2.5))):
        pipeline = pipeline_of(site, alarm=two)
        assert pipeline.read(Window(0, faulty, 0)).event is None
        pipeline.adopt(other)
        assert [pipeline.read(Window(n * RATE, faulty, 0)).event is not None for n in (2, 4)] == [False, True]


def test_several_detectors_are_combined(incident_sound: Float32Array, statistics: Detector, site: Detector) -> None:
    both = read_all(pipeline_of(statistics, site), [incident_sound])
    each = [read_all(pipeline_of(d), [incident_sound]) for d in (statistics, site)]
    assert len(both) == 10
    for together, one, other in zip(both, *each, strict=True):
        assert [d.score for d in together.detectors] == [one.detectors[0].score, other.detectors[0].score]
        assert together.rarity == max(0.0, max(one.rarity or 0, other.rarity or 0) - math.log10(2))
        for detector in together.detectors:
            # The score at which a detector alone takes the machine over its threshold.
            is_over = detector.rarity - math.log10(2) >= together.threshold
            assert is_over == (detector.score >= detector.threshold)


def test_detectors_of_other_windows_do_not_combine(tiny: Callable[..., bytes], site: Detector) -> None:
    def at_8_khz(document: dict[str, Any]) -> None:
        document["log_mel"] |= {"sample_rate": 8_000, "hop_length": 256, "fmax": 4_000.0}

    other = Detector(Path("slow.onnx"), tiny(document=at_8_khz))
    with pytest.raises(DetectorError, match=r"slow\.onnx: wants other windows than site\.onnx"):
        pipeline_of(site, other)


def test_messages_of_a_machine_fit_their_schemas(
    incident_sound: Float32Array, statistics: Detector, site: Detector, schema: Schema
) -> None:
    began = boot_time()
    # A long rest: windows that fall silent half-way sound wrong, and would raise again.
    pipeline = pipeline_of(statistics, site, alarm=replace(QUICK, rest_seconds=100.0), active_above_dbfs=-60.0)
    state = MachineState(
        Place("plant-3", "hall", "edge-asd", "rail-7"), pipeline, lambda position: began + position / RATE
    )
    assert abs(state.utc(RATE).timestamp() - time.time() - 1) < 0.1
    states, alerts, scores = [payloads.machine_state(state)], [], []
    silence = np.zeros(15 * RATE, np.float32)
    for reading in read_all(pipeline, [incident_sound, silence]):
        state.take(reading)
        state.hear("ok", None)
        scores.append(payloads.score(state, reading))
        if reading.event is not None:
            alerts.append(payloads.alert(state, reading))
        states.append(payloads.machine_state(state))
    assert state.hear("none", "the recordings have ended")
    states.append(payloads.machine_state(state))
    sick = Window(0, silence[: 10 * RATE], 0, finding=Finding("dc", "an offset of 0.1"))
    gone = Window(0, silence[: 10 * RATE], 10 * RATE)
    for window in (sick, gone):
        scores.append(payloads.score(state, pipeline.read(window)))
    assert [(s["suspect"], s["level_dbfs"]) for s in scores[-2:]] == [("dc", -120.0), (None, None)]
    assert state.hear("suspect", sick.finding.text, "dc") and not state.hear("suspect", "an offset of 0.2", "dc")
    states.append(payloads.machine_state(state))
    assert state.hear("suspect", "repeats itself", "stuck")
    for name, documents in [("alert", alerts), ("score", scores), ("state", states)]:
        for document in documents:
            schema(name).validate(json.loads(json.dumps(document)))
            assert not schema(name).is_valid(document | {"more": 1}), "a key that no schema knows must not pass"
    assert [(a["event"], a["sequence"]) for a in alerts] == [("raised", 1), ("cleared", 2)]
    assert alerts[0]["incident"] == alerts[1]["incident"] and alerts[0]["rarity"] >= alerts[0]["threshold"]
    assert {s["result"] for s in scores} == {"scored", "idle", "suspect", "gap"}
    assert all(isinstance(a["clock_synchronised"], bool) for a in alerts), "Linux knows"
    assert states[-1]["last_alert"] == {k: alerts[1][k] for k in ("event", "incident", "sequence", "time")}
    start, end = (datetime.fromisoformat(scores[1]["window"][k]) for k in ("start", "end"))
    assert abs((end - start).total_seconds() - 10) < 0.01
    assert scores[1]["time"] == scores[1]["window"]["end"]


@pytest.mark.parametrize("name", ["alert", "state", "score", "replay", "calibration"])
def test_schemas_describe_every_property(schema: Schema, name: str) -> None:
    def objects(node: Any) -> Iterable[dict[str, Any]]:
        if isinstance(node, dict):
            if "properties" in node:
                yield node
            for inner in node.values():
                yield from objects(inner)

    found = list(objects(schema(name).schema))
    assert len(found) >= 2
    for node in found:
        assert node["additionalProperties"] is False and sorted(node["required"]) == sorted(node["properties"])
        for key, value in node["properties"].items():
            assert value["description"].endswith("."), key
            assert "\n" not in value["description"], key


def test_a_threshold_that_two_detectors_cannot_reach_is_refused(site: Detector, statistics: Detector) -> None:
    with pytest.raises(ValueError, match="can never be reached by 2 detectors"):
        pipeline_of(site, statistics, alarm=AlarmSettings(threshold=11.9))
    assert pipeline_of(site, alarm=AlarmSettings(threshold=11.9)).rule.threshold == 11.9
