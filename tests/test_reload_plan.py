"""What a reload cannot take up: named, and left whole until a restart."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from parts.reloading import Plant

from edge_asd.logmel import LogMelParameters

HEAD = "evidence: {pictures: false}"


@pytest.mark.parametrize(
    ("machine", "head", "places"),
    [
        (
            "hop_seconds: 2, alarm: {threshold: 3}",
            HEAD,
            ["5:20: machines.1.hop_seconds", "5:44: machines.1.alarm.threshold"],
        ),
        ("recordings: r.wav", HEAD, ["5:20: machines.1.recordings"]),
        ("repeat: true, detectors: [b.onnx]", HEAD, ["5:20: machines.1.repeat", "5:34: machines.1.detectors"]),
        ("repeat: false", "metrics: {listen: '127.0.0.1:0'}", ["3:1: metrics", "1:1: evidence"]),
        ("repeat: false", "evidence: {pictures: false, keep_megabytes: 100}", ["3:29: evidence.keep_megabytes"]),
        ("repeat: false", f"{HEAD}\nscoring: {{cores: 1}}", ["4:11: scoring.cores"]),
    ],
)
def test_what_cannot_be_taken_up_is_named_and_left_and_the_rest_is_taken_up(
    plant: Plant, machine: str, head: str, places: list[str]
) -> None:
    before = plant.essence()
    plant.put("b.onnx", "other")
    shutil.copy(plant.config.with_name("sound.wav"), plant.config.with_name("r.wav"))
    plant.write(f"name: rail-7, {machine}", "name: rail-8, alarm: {threshold: 4}", head=head)
    for _ in range(2):  # it is needed until it is done
        told = plant.reload()
        assert (told["event"], told["level"]) == ("reloaded", "warning")
        assert told["restart_needed"] == [f"{plant.config}:{place}" for place in places]
    assert plant.essence()["rail-7"] == before["rail-7"], "half of it would be worse than none"
    assert plant.machine("rail-8").pipeline.rule.threshold == 4
    assert plant.metric("config_last_reload_successful") == 1


def test_other_machines_need_a_restart(plant: Plant) -> None:
    before = plant.essence()
    plant.write("name: rail-9", "name: rail-7, alarm: {threshold: 3}")
    told = plant.reload()
    assert told["restart_needed"] == [
        f"{plant.config}:5:5: machines.1",
        f"{plant.config}:4:1: machines: rail-8 is no longer there",
    ]
    assert told["changed"] == {"rail-7": ["alarm"]} and plant.essence()["rail-8"] == before["rail-8"]


def test_a_topic_needs_a_restart(tmp_path: Path, tiny: Callable[..., bytes]) -> None:
    plant = Plant(tmp_path, tiny)
    head = "mqtt: {host: 127.0.0.1, port: 9}"
    gate = 'active_when: {topic: plc/7, on: "1", off: "%s"}'
    plant.write(f"name: rail-7, {gate % 0}", head=head)
    plant.begin()
    for other in (gate % 2, "active_when: {level_above_dbfs: -60}", "repeat: false"):
        plant.write(f"name: rail-7, {other}", head=head)
        (place,) = plant.reload()["restart_needed"]
        assert "machines.1.active_when" in place
        assert plant.machine("rail-7").pipeline.active_above_dbfs is None
    plant.write(f"name: rail-7, {gate % 0}, alarm: {{threshold: 3}}", head=head)
    told = plant.reload()
    assert (told["changed"], told["restart_needed"]) == ({"rail-7": ["alarm"]}, [])
    plant.end()


def test_a_detector_of_other_windows_needs_a_restart(plant: Plant) -> None:
    before = plant.essence()
    halved = LogMelParameters(sample_rate=8000, hop_length=256, n_fft=512, fmax=4000.0).as_dict()
    plant.put("b.onnx", log_mel=halved)
    plant.write("name: rail-7, detectors: [b.onnx]", "name: rail-8")
    told = plant.reload()
    assert told["restart_needed"] == [f"{plant.config}:5:20: machines.1.detectors"] and told["changed"] == {}
    assert plant.essence() == before
