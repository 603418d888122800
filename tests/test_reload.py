"""SIGHUP: read and verify everything first; then take up what can be taken up, while the sound runs on."""

from __future__ import annotations

import gc
import json
import math
import random
import shutil
import time
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from mutations import mutated_text
from parts.reloading import Plant
from parts.waiting import until

from edge_asd.publish import payloads

# --------------------------------------------------------------------------------------------------- what is taken up


def test_what_is_new_is_taken_up_and_told(plant: Plant, schema: Callable[[str], Draft202012Validator]) -> None:
    rail = plant.machine("rail-7")
    pipeline, other = rail.pipeline, plant.essence()["rail-8"]
    b = plant.put("b.onnx", "other")
    plant.write(
        "name: rail-7, detectors: [b.onnx, a.onnx], alarm: {threshold: 3, raise_after: 1 of 1}, "
        "active_when: {level_above_dbfs: -70}",
        "name: rail-8",
    )
    told = plant.reload()
    assert (told["event"], told["level"], told["restart_needed"]) == ("reloaded", "notice", [])
    assert told["changed"] == {"rail-7": ["detectors", "alarm", "active_when"]}
    assert rail.pipeline is pipeline is rail.state.pipeline
    assert [d.name for d in pipeline.detectors] == ["b.onnx", "a.onnx"] and pipeline.active_above_dbfs == -70
    assert plant.essence()["rail-8"] == other
    document = json.loads(json.dumps(payloads.machine_state(rail.state)))
    schema("state").validate(document)
    assert (document["threshold"], document["detectors"][0]["sha256"]) == (3.0, b)
    assert plant.metric("machine_rarity_threshold", machine="rail-7") == 3
    assert plant.metric("detector_info", machine="rail-7", detector="b.onnx", sha256=b, kind="other") == 1
    assert plant.metric("scoring_duration_seconds_count", machine="rail-7", detector="b.onnx") == 0
    assert math.isnan(plant.metric("detector_score", machine="rail-7", detector="b.onnx") or 0)
    assert any(line["event"] == "state" and line["machine"] == "rail-7" for line in plant.log())


def test_nothing_new_changes_nothing(plant: Plant) -> None:
    plant.write("name: rail-7, alarm: {false_alarms_per_day: 1}", "name: rail-8, active_when: learned")
    assert set(plant.reload()["changed"]) == {"rail-7", "rail-8"}
    before = plant.essence()
    votes = plant.machine("rail-7").pipeline.alarm._votes
    votes.append(True)
    plant.write("name: rail-8, active_when: {learned: true}", "name: rail-7, alarm: {false_alarms_per_day: 1.0}")
    told = plant.reload()
    assert (told["event"], told["changed"], told["restart_needed"]) == ("reloaded", {}, [])
    for name, (settings, *rest) in plant.essence().items():
        assert settings.name == name and rest == list(before[name][1:])
    assert list(votes) == [True] and votes is plant.machine("rail-7").pipeline.alarm._votes
    points = [line for line in plant.log() if line["event"] == "operating_point"]
    assert len(points) == 1, "the log is told of what changes"


def test_another_content_at_the_same_path_is_noticed_and_the_old_one_is_let_go(plant: Plant) -> None:
    old = plant.machine("rail-7").pipeline.detectors[0].detector
    sha256, gone = old.sha256, weakref.ref(old)
    del old
    plant.daemon._metrics.score.labels("rail-7", "a.onnx").set(-45)
    new = plant.put("a.onnx", "other")
    told = plant.reload()
    assert told["changed"] == {"rail-7": ["detectors"], "rail-8": ["detectors"]}
    detectors = [plant.machine(name).pipeline.detectors[0].detector for name in ("rail-7", "rail-8")]
    assert detectors[0] is detectors[1] and detectors[0].sha256 == new
    assert plant.metric("detector_info", machine="rail-7", detector="a.onnx", sha256=sha256, kind="tiny") is None
    assert plant.metric("detector_info", machine="rail-7", detector="a.onnx", sha256=new, kind="other") == 1
    assert math.isnan(plant.metric("detector_score", machine="rail-7", detector="a.onnx") or 0)
    gc.collect()
    assert gone() is None, "a session for each reload would take all memory in the end"


def test_series_of_a_detector_that_is_gone_are_gone(plant: Plant) -> None:
    plant.put("b.onnx", "other")
    plant.write("name: rail-7, detectors: [b.onnx]", "name: rail-8")
    plant.reload()
    assert plant.metric("detector_score", machine="rail-7", detector="a.onnx") is None
    assert plant.metric("scoring_duration_seconds_count", machine="rail-7", detector="a.onnx") is None
    assert plant.metric("scoring_duration_seconds_count", machine="rail-8", detector="a.onnx") == 0


def test_a_new_calibration_of_this_site_is_taken_up(plant: Plant) -> None:
    plant.write("name: rail-7, alarm: {false_alarms_per_day: 1}", "name: rail-8")
    plant.reload()
    session = plant.machine("rail-7").pipeline.detectors[0].detector
    plant.calibrate("a.onnx", "rail-7", 5.0)
    told = plant.reload()
    assert told["changed"] == {"rail-7": ["calibration"]}
    used = plant.machine("rail-7").pipeline.detectors[0]
    assert used.detector is session and used.calibration.source == "this hall"
    assert [line["detector"] for line in plant.log() if line["event"] == "calibration"] == ["a.onnx"]


def test_maintenance_goes_on(plant: Plant) -> None:
    plant.machine("rail-7").pipeline.is_in_maintenance = True
    plant.machine("rail-7").maintenance.begin()
    plant.write("name: rail-7, alarm: {threshold: 3}", "name: rail-8")
    plant.reload()
    assert plant.machine("rail-7").pipeline.condition == "maintenance" and plant.machine("rail-7").maintenance.is_on


def test_a_machine_takes_it_up_between_two_windows_and_holds_up_no_other(plant: Plant) -> None:
    plant.write("name: rail-7, alarm: {threshold: 3}", "name: rail-8, alarm: {threshold: 3}")
    with plant.machine("rail-7").turn:  # as while a window of it is scored
        plant.daemon.reload()
        plant.daemon._reloader.heed()
        until(lambda: plant.machine("rail-8").pipeline.rule.threshold == 3, "the other machine")
        time.sleep(0.2)
        assert plant.machine("rail-7").pipeline.rule.threshold == 2 and not plant.outcomes()
    until(plant.outcomes, "the reload")
    assert plant.machine("rail-7").pipeline.rule.threshold == 3


# ------------------------------------------------------------------------------------------------ what changes nothing


def broken_detector(plant: Plant) -> None:
    content = (plant.folder / "a.onnx").read_bytes()
    (plant.folder / "a.onnx").write_bytes(content[: len(content) // 2])


def damaged_calibration(plant: Plant) -> None:
    (plant.folder / "a.rail-8.calibration.json").write_text("{")


@pytest.mark.parametrize(
    ("break_it", "says"),
    [
        (lambda p: p.config.write_text(p.config.read_text() + "  - {name: [\n"), "press.yaml:8:1: is not YAML"),
        (
            lambda p: p.write("name: rail-7, chanel: 1", "name: rail-8"),
            "press.yaml:5:20: machines.1.chanel: is not a known key; did you mean channel?",
        ),
        (lambda p: p.write("name: rail-7", "name: rail-8, detectors: [no.onnx]"), "press.yaml:6:32: machines.2.det"),
        (lambda p: p.write("name: rail-7", "name: rail-9, detectors: []"), "press.yaml:6:5: machines.2: rail-9 has no"),
        (lambda p: p.write("name: rail-7, alarm: {threshold: 11.9}, detectors: [a.onnx, b.onnx]"), "never be reached"),
        (lambda p: p.config.unlink(), "press.yaml: No such file"),
        (broken_detector, "a.onnx: is not an ONNX model"),
        (damaged_calibration, "a.rail-8.calibration.json:1:2: is damaged"),
    ],
)
def test_what_is_wrong_changes_nothing(plant: Plant, break_it: Callable[[Plant], Any], says: str) -> None:
    before = plant.essence()
    plant.put("b.onnx", "other")
    loaded = plant.metric("config_last_reload_success_timestamp_seconds")
    assert loaded and abs(time.time() - loaded) < 60 and plant.metric("config_last_reload_successful") == 1
    plant.write("name: rail-7, alarm: {threshold: 3}", "name: rail-8")
    break_it(plant)
    told = plant.reload()
    assert (told["event"], told["level"]) == ("reload_failed", "error")
    assert told["error"].startswith(str(plant.config)) and says in told["error"], told["error"]
    assert plant.essence() == before
    assert plant.metric("config_last_reload_successful") == 0
    assert plant.metric("config_last_reload_success_timestamp_seconds") == loaded


def test_what_is_mended_is_taken_up(plant: Plant) -> None:
    plant.write("name: rail-7, alarm: {threshold: 3}", "name: rail-8, detectors: [b.onnx]")
    assert plant.reload()["event"] == "reload_failed"
    shutil.copy(plant.folder / "a.onnx", plant.folder / "b.onnx")
    loaded = plant.metric("config_last_reload_success_timestamp_seconds") or math.inf
    assert plant.reload()["changed"] == {"rail-7": ["alarm"], "rail-8": ["detectors"]}
    assert plant.metric("config_last_reload_successful") == 1
    assert (plant.metric("config_last_reload_success_timestamp_seconds") or 0) > loaded


def test_whatever_is_written_into_the_configuration_the_daemon_goes_on(plant: Plant) -> None:
    good = plant.config.read_text()
    events = set()
    for seed in range(40):
        plant.config.write_text(mutated_text(good, random.Random(seed)), encoding="utf-8", errors="surrogatepass")
        events.add(plant.reload()["event"])
    assert events == {"reloaded", "reload_failed"}
    plant.config.write_text(good)
    assert plant.reload()["event"] == "reloaded"
