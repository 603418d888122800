"""SIGHUP: read and verify everything first; then take up what can be taken up, while the sound runs on."""

from __future__ import annotations

import gc
import json
import math
import os
import random
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from mutations import mutated_text
from parts.reloading import LOUD, NORMAL, RATE, Plant, noise
from parts.waiting import until

from edge_asd import machine as machine_module
from edge_asd import reload as reload_module
from edge_asd.clock import boot_time
from edge_asd.logmel import LogMelParameters
from edge_asd.publish import payloads

SPEED = 10.0
"""So much faster than in real time are recordings played here."""
ALARM = "alarm: {threshold: %g, raise_after: 2 of 3, clear_after: 3, rest_seconds: 0}"


@pytest.fixture
def plant(tmp_path: Path, tiny: Callable[..., bytes]) -> Iterator[Plant]:
    plant = Plant(tmp_path, tiny)
    plant.write("name: rail-7", "name: rail-8")
    plant.begin()
    yield plant
    plant.end()


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    began = boot_time()
    monkeypatch.setattr(machine_module, "boot_time", lambda: began + SPEED * (boot_time() - began))


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
    assert (told["event"], told["level"], told["restart_needed"]) == ("reloaded", "info", [])
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


def lying_detector(plant: Plant) -> None:
    plant.put("a.onnx", self_check=None)


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
        (lying_detector, "a.onnx: "),
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
    broken_detector(plant)
    plant.reload()
    plant.put("a.onnx")
    plant.write("name: rail-7, alarm: {threshold: 3}", "name: rail-8")
    loaded = plant.metric("config_last_reload_success_timestamp_seconds") or math.inf
    assert plant.reload()["changed"] == {"rail-7": ["alarm"]}
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


# --------------------------------------------------------------------------------------------------- what must restart

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


# ------------------------------------------------------------------------------------------------------ while it runs


def test_sound_and_incident_run_through_it(fast: None, tmp_path: Path, tiny: Callable[..., bytes]) -> None:
    """A machine breaks and is repaired, and in all that its detector and threshold change again and again."""
    plant = Plant(tmp_path, tiny)
    first, second = plant.put("a.onnx"), plant.put("b.onnx", "other")
    heard = noise(plant.folder / "sound.wav", (15, NORMAL), (20, LOUD), (20, NORMAL))
    plant.write(f"name: rail-7, {ALARM % 2}", f"name: rail-8, {ALARM % 2}")
    plant.begin()
    readings: dict[str, list[Any]] = {"rail-7": [], "rail-8": []}
    in_turn: list[bool] = []
    announcer = plant.daemon._announcer
    tell = announcer.tell

    def listen(state: Any, reading: Any, evidence: Any = None) -> None:
        readings[state.place.machine].append(reading)
        in_turn.append(plant.machine(state.place.machine).turn.locked())
        tell(state, reading, evidence)

    announcer.tell = listen  # type: ignore[method-assign]
    plant.run()
    until(lambda: plant.machine("rail-7").state.sequence, "the alert")
    incident = plant.machine("rail-7").pipeline.alarm.incident
    assert incident is not None
    turns = 0
    while plant.machine("rail-7").pipeline.alarm.incident is not None:
        detector, threshold = [("b.onnx", 2.5), ("a.onnx", 2.0)][turns % 2]
        plant.write(f"name: rail-7, detectors: [{detector}], {ALARM % threshold}", f"name: rail-8, {ALARM % 2}")
        plant.daemon.reload()
        turns += 1
        until(lambda wanted=turns: len(plant.outcomes()) == wanted, "the reload")
        if turns == 1:
            assert plant.machine("rail-7").pipeline.alarm.incident == incident, "a reload clears nothing"
        time.sleep(0.3)  # a window or three; three in a row have to be quiet
    plant.join()
    assert turns >= 3
    for name, told in readings.items():
        assert [r.start for r in told] == [n * RATE for n in range(heard // RATE - 9)], "each window once, in order"
        assert not any(r.lost for r in told)
        assert plant.metric("audio_frames_total", machine=name) == heard
        assert plant.metric("audio_lost_frames_total", machine=name) == 0
    scored = {(r.detectors[0].sha256, r.threshold) for r in readings["rail-7"] if r.detectors}
    assert scored == {(first, 2.0), (second, 2.5)} and all(in_turn), "none with half of it"
    alerts = [line["alert"] for line in plant.log() if line["event"] == "alert"]
    told = [(a["event"], a["incident"], a["sequence"]) for a in alerts if a["machine"] == "rail-7"]
    assert told == [("raised", incident, 1), ("cleared", incident, 2)]


def test_what_is_asked_for_meanwhile_comes_once_and_afterwards(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    goes_on, at_work, read = threading.Event(), [], reload_module.load_config

    def slow(path: Path) -> Any:
        at_work.append(threading.current_thread())
        goes_on.wait(10)
        return read(path)

    monkeypatch.setattr(reload_module, "load_config", slow)
    reloader = plant.daemon._reloader
    plant.daemon.reload()
    for _ in range(5):
        reloader.heed()
        until(lambda: at_work, "the reload")
        plant.daemon.reload()
    assert len(at_work) == 1 and not plant.outcomes()
    goes_on.set()
    until(lambda: len(plant.outcomes()) == 2, "both")
    until(lambda: not at_work[0].is_alive(), "its end")
    reloader.heed()
    time.sleep(0.1)
    assert len(at_work) == len(plant.outcomes()) == 2


def test_nothing_is_taken_up_once_the_daemon_stops(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    before, goes_on, read = plant.essence(), threading.Event(), reload_module.load_config
    monkeypatch.setattr(reload_module, "load_config", lambda path: goes_on.wait(10) and read(path))
    plant.write("name: rail-7, alarm: {threshold: 3}", "name: rail-8")
    plant.daemon.reload()
    plant.daemon._reloader.heed()
    threading.Timer(0.1, goes_on.set).start()
    plant.daemon._reloader.stop()
    assert plant.essence() == before and not plant.outcomes()


SLEEPER = """
import os, signal, sys, time
from edge_asd import systemd
if sys.argv[1] == "terminal":
    os.setsid()
    os.open(os.ttyname(os.openpty()[1]), os.O_RDWR)  # the first that is opened becomes the session's terminal
systemd.heed_hangup(lambda: print("asked", flush=True))
os.kill(os.getpid(), signal.SIGHUP)
time.sleep(0.01)
"""


@pytest.mark.parametrize(
    ("place", "is_supervised", "expected"),
    [("service", True, (0, "asked\n")), ("alone", False, (0, "asked\n")), ("terminal", False, (-1, ""))],
)
def test_a_closed_terminal_still_ends_the_process(place: str, is_supervised: bool, expected: tuple[int, str]) -> None:
    environment = {k: v for k, v in os.environ.items() if k != "NOTIFY_SOCKET"}
    environment |= {"NOTIFY_SOCKET": "/nowhere"} if is_supervised else {}
    done = subprocess.run(
        [sys.executable, "-c", SLEEPER, place],
        env=environment,
        capture_output=True,
        text=True,
        start_new_session=place != "terminal",
        check=False,
    )
    assert (done.returncode, done.stdout) == expected, done.stderr
