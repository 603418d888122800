"""Evidence of incidents: the very sound and picture of what raised them, and alerts that go out whatever happens."""

from __future__ import annotations

import io
import json
import os
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from jsonschema import Draft202012Validator
from parts.daemon import Daemon, write_config
from parts.waiting import until
from PIL import Image

import edge_asd
from edge_asd.audio.windows import Window
from edge_asd.clock import boot_time
from edge_asd.config_file import load_config
from edge_asd.config_publish import EvidenceSection
from edge_asd.demo.clips import simulate
from edge_asd.demo.slide_rail import Fault
from edge_asd.detector import Detector
from edge_asd.errors import ConfigurationError
from edge_asd.logmel import Float32Array
from edge_asd.pipeline import AlarmSettings, MachineDetector, Pipeline
from edge_asd.publish import evidence, payloads
from edge_asd.publish.evidence import Evidence, EvidenceKeeper
from edge_asd.publish.evidence_folder import EvidenceFolder
from edge_asd.publish.log import Log
from edge_asd.publish.metrics import Metrics
from edge_asd.publish.patience import Patience
from edge_asd.publish.payloads import MachineState, Place

RATE = 16_000
CAE = Path(edge_asd.__file__).parent / "demo" / "slide-rail.cae.onnx"
ALARM = AlarmSettings(threshold=2.0, raise_count=2, raise_window=3, clear_after=2, rest_seconds=0.0)


@pytest.fixture(scope="module")
def cae() -> Detector:
    return Detector(CAE, CAE.read_bytes())


@pytest.fixture(scope="module")
def day() -> Float32Array:
    """A rail that runs for 16 s, has a loose belt for 10 s, and runs again for 20 s; as 16 bits hold it."""
    parts = [
        simulate("id_00", s, seed=40, fault=f, severity=1.0)
        for s, f in [(16, None), (10, Fault.LOOSE_BELT), (20, None)]
    ]
    return (np.rint(np.concatenate(parts) * 32768).clip(-32768, 32767) / 32768).astype(np.float32)


class Plant:
    """One machine, and who keeps its evidence."""

    def __init__(self, detector: Detector, folder: Path | None, hop: float = 2.0, **section: Any) -> None:
        self.pipeline = Pipeline([MachineDetector.of(detector, None)], ALARM, hop_seconds=hop)
        began = boot_time()
        place = Place("plant-3", "hall", "press", "rail-7")
        self.state = MachineState(place, self.pipeline, lambda position: began + position / RATE)
        self.metrics, self.stream = Metrics(), io.StringIO()
        self.log = Log(self.stream)
        chosen = EvidenceSection(**section)
        kept = None if folder is None else EvidenceFolder(folder, most_bytes=round(chosen.keep_megabytes * 1e6))
        self.keeper = EvidenceKeeper(chosen, kept, [self.state], self.log, self.metrics)
        self.cutter = self.pipeline.cutter()
        self.alerts: list[dict[str, Any]] = []
        self.raised_at = 0
        """Position where the raising window ended."""

    def hear(self, samples: Float32Array, lost: tuple[int, int] | None = None) -> list[Evidence]:
        """Play sound, with a gap if wanted; what was taken at each event."""
        taken, cutter = list[Evidence](), self.cutter
        pieces = [samples] if lost is None else [samples[: lost[0]], lost[1] - lost[0], samples[lost[1] :]]
        for piece in pieces:
            for window in cutter.push_lost(piece) if isinstance(piece, int) else cutter.push(piece):
                reading = self.pipeline.read(window)
                found = self.keeper.take("rail-7", window, reading)
                if reading.event is None:
                    assert found is None
                    continue
                assert found is not None
                taken.append(found)
                self.alerts.append(payloads.alert(self.state, reading, found))
                if reading.event.event == "raised":
                    self.raised_at = reading.end
        return taken

    def lines(self, event: str) -> list[dict[str, Any]]:
        self.log.close()
        return [line for line in map(json.loads, self.stream.getvalue().splitlines()) if line["event"] == event]

    def skipped(self, reason: str) -> float | None:
        return self.metrics.registry.get_sample_value("edge_asd_evidence_skipped_total", {"reason": reason})


def read_clip(path: Path) -> tuple[np.ndarray, str]:
    with soundfile.SoundFile(path) as file:
        assert (file.format, file.subtype, file.samplerate, file.channels) == ("FLAC", "PCM_16", RATE, 1)
        return file.read(dtype="int16"), file.comment


def test_an_incident_leaves_a_picture_and_its_sound(
    cae: Detector, day: Float32Array, tmp_path: Path, schema: Callable[[str], Draft202012Validator]
) -> None:
    plant = Plant(cae, tmp_path / "evidence", clips=True, before_seconds=4)
    raised, cleared = plant.hear(day)
    for alert in plant.alerts:
        schema("alert").validate(alert)
    first, last = plant.alerts
    incident = first["incident"]
    assert raised.picture is not None and raised.clip is not None
    assert first["evidence"] == {"picture": str(raised.picture), "clip": str(raised.clip)} == last["evidence"]
    stamp = first["time"][:19].replace("-", "").replace(":", "") + "Z"
    assert raised.picture == tmp_path / "evidence" / "rail-7" / f"{stamp}-{incident}.png"
    picture = Image.open(raised.picture)
    picture.load()
    assert picture.info["Incident"] == incident and raised.picture.stat().st_size < 200_000

    # Sample by sample what was played: up to the raising window's end, from 4 s before the first window that counted.
    sound, comment = read_clip(raised.clip)
    end = plant.raised_at
    assert sound.size == round((10 + 2 + 4) * RATE), "2 of 3 windows, 2 s apart, and what came before"
    assert np.array_equal(sound, np.rint(day[end - sound.size : end] * 32768).astype(np.int16))
    assert incident in comment and "not heard" not in comment

    assert first["agree"] == {"anomalous": [CAE.name], "of": 1}
    assert first["where"]["words"] and (first["where"]["bands_hz"] or first["where"]["seconds"])
    assert last["event"] == "cleared" and last["where"] is None and last["agree"] == {"anomalous": [], "of": 1}
    assert plant.metrics.registry.get_sample_value("edge_asd_evidence_bytes") == sum(
        -(-p.stat().st_size // 4096) * 4096 for p in (raised.picture, raised.clip)
    )
    assert [plant.skipped(r) for r in ("budget", "disk", "error")] == [0, 0, 0]
    assert cleared.where is None


def test_the_picture_and_the_words_are_of_the_very_window_that_was_scored(
    cae: Detector, day: Float32Array, tmp_path: Path
) -> None:
    plant = Plant(cae, tmp_path)
    found = plant.hear(day)[0]
    window = Window(0, day[plant.raised_at - 10 * RATE : plant.raised_at], 0)
    other = Plant(cae, tmp_path / "other")
    reading = replace(other.pipeline.read(window), event=None)
    assert reading.rarity == pytest.approx(plant.alerts[0]["rarity"], abs=1e-4)
    explanation = other.pipeline.explain(window)
    from edge_asd.report.picture import where

    assert found.where == where(explanation.maps[CAE.name], explanation.parameters)


def test_sound_stays_off_the_disk_and_out_of_memory_unless_it_is_wanted(
    cae: Detector, day: Float32Array, tmp_path: Path
) -> None:
    plant = Plant(cae, tmp_path)
    raised = plant.hear(day)[0]
    assert raised.picture is not None and raised.clip is None and plant.alerts[0]["evidence"]["clip"] is None
    assert not list(tmp_path.rglob("*.flac")) and plant.keeper._heard == {}


@pytest.mark.parametrize("section", [{"pictures": False}, {}])
def test_without_evidence_the_event_still_says_where(cae: Detector, day: Float32Array, section: dict[str, Any]) -> None:
    plant = Plant(cae, None, **section)
    raised, cleared = plant.hear(day)
    assert (raised.picture, raised.clip) == (None, None) == (cleared.picture, cleared.clip)
    assert plant.alerts[0]["where"]["words"] and plant.alerts[0]["agree"]["anomalous"] == [CAE.name]


def test_a_gap_in_a_clip_is_silent_and_told(cae: Detector, day: Float32Array, tmp_path: Path) -> None:
    plant = Plant(cae, tmp_path, clips=True, before_seconds=10)
    gap = (11 * RATE, 12 * RATE)
    raised = plant.hear(day, lost=gap)[0]
    assert raised.clip is not None
    sound, comment = read_clip(raised.clip)
    start = plant.raised_at - sound.size
    assert start < gap[0] and not sound[gap[0] - start : gap[1] - start].any()
    begin, end = ((g - start) / RATE for g in gap)
    assert comment.endswith(f"not heard, and silent here: {begin:.3f} to {end:.3f} s")
    assert np.array_equal(sound[: gap[0] - start], np.rint(day[start : gap[0]] * 32768).astype(np.int16))


def test_many_machines_take_little_memory(cae: Detector) -> None:
    from edge_asd.publish.incident_clip import HeardLately

    pipeline = Pipeline([MachineDetector.of(cae, None)], replace(ALARM, raise_window=5), hop_seconds=10.0)
    one, many, most = (HeardLately(pipeline, 10.0, n).ring.seconds for n in (1, 100, 1000))
    assert (one, most) == (60.0, 10.0), "k of n windows and what came before; at least the window itself"
    assert 100 * many * RATE * 2 <= 64e6
    assert HeardLately(replace_hop(pipeline, 3600.0), 10.0, 1).ring.seconds == 120.0


def replace_hop(pipeline: Pipeline, hop: float) -> Pipeline:
    return Pipeline(pipeline.detectors, ALARM, hop_seconds=hop)


def test_nobody_draws_while_windows_wait(cae: Detector, day: Float32Array, tmp_path: Path) -> None:
    plant = Plant(cae, tmp_path, clips=True)
    late = boot_time() - 3600.0
    plant.state.time_of = lambda position: late + position / RATE
    raised = plant.hear(day)[0]
    assert raised.picture is None and raised.clip is not None and raised.where is not None
    assert plant.skipped("budget") == 1
    assert "there is no time to draw" in plant.lines("evidence_skipped")[0]["error"]


# ------------------------------------------------------------------------------------------- whatever the disk does


def test_what_does_not_fit_is_counted_and_told_once(cae: Detector, day: Float32Array, tmp_path: Path) -> None:
    plant = Plant(cae, tmp_path, keep_megabytes=1, clips=True)
    assert plant.keeper._folder is not None
    plant.keeper._folder._most = 200_000  # a picture fits, its sound does not
    for _ in range(2):
        raised, _cleared = plant.hear(day)
        assert raised.picture is not None and raised.clip is None and raised.where is not None
    assert (plant.skipped("budget"), plant.skipped("error")) == (2, 0)
    (line,) = plant.lines("evidence_skipped")
    assert (line["machine"], line["kind"], line["reason"]) == ("rail-7", "flac", "budget")


def test_a_folder_that_cannot_be_made_stops_nothing(cae: Detector, day: Float32Array, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    plant = Plant(cae, tmp_path / "file" / "evidence")
    raised, cleared = plant.hear(day)
    assert (raised.picture, cleared.picture) == (None, None) and raised.where is not None
    assert plant.skipped("error") == 1
    lines = plant.lines("evidence_skipped")
    assert len(lines) == 2 and all("Not a directory" in line["error"] for line in lines), "at the start, and then"


def test_it_is_told_again_after_it_went_well(cae: Detector, day: Float32Array, tmp_path: Path) -> None:
    plant = Plant(cae, tmp_path / "evidence")
    for is_broken in (True, True, False, True):
        machine = tmp_path / "evidence" / "rail-7"
        if is_broken:
            if machine.is_dir():
                machine.rename(tmp_path / f"away-{time.monotonic_ns()}")
            machine.write_text("in the way")
        else:
            machine.unlink()
        raised = plant.hear(day)[0]
        assert (raised.picture is None) is is_broken
    assert plant.skipped("error") == 3 and len(plant.lines("evidence_skipped")) == 2


def test_a_disk_that_hangs_is_not_waited_for(
    cae: Detector, day: Float32Array, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evidence, "_DISK_SECONDS", 0.3)
    plant = Plant(cae, tmp_path / "evidence", clips=True)
    # The lock of the folder is held as long as the one who holds it hangs.
    assert plant.keeper._folder is not None
    with plant.keeper._folder._lock:
        begun = time.monotonic()
        raised = plant.hear(day)[0]
        assert time.monotonic() - begun < 5
        assert (raised.picture, raised.clip) == (None, None) and raised.where is not None
        assert plant.skipped("disk") == 2
    until(lambda: list(tmp_path.rglob("*.png")), "what was being written, in the end")
    texts = [line["error"] for line in plant.lines("evidence_skipped")]
    assert "has not answered for 0.3 s" in texts[0] and "still does not answer" in texts[1]


def test_patience_gives_what_was_done_and_what_went_wrong() -> None:
    patience, gate = Patience(0.2), threading.Event()
    assert patience.do(lambda: 7) == 7
    with pytest.raises(FileNotFoundError):
        patience.do(lambda: os.stat("/nowhere/at/all"))  # noqa: PTH116
    with pytest.raises(TimeoutError, match=r"has not answered for 0\.2 s"):
        patience.do(gate.wait)
    begun = time.monotonic()
    with pytest.raises(TimeoutError, match="still does not answer"):
        patience.do(lambda: 7)
    assert time.monotonic() - begun < 0.1
    gate.set()
    until(lambda: not (patience._hanging and patience._hanging.is_alive()), "the end of what hung")
    assert patience.do(lambda: 8) == 8


def test_a_picture_that_cannot_be_drawn_costs_only_the_picture(
    cae: Detector, day: Float32Array, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> bytes:
        raise MemoryError

    monkeypatch.setattr("edge_asd.report.incident_picture.incident_picture", fail)
    plant = Plant(cae, tmp_path, clips=True)
    raised = plant.hear(day)[0]
    assert raised.picture is None and raised.clip is not None and raised.where is not None
    assert plant.skipped("error") == 1


# -------------------------------------------------------------------------------------------------- configuration


def keeper_of(text: str, folder: Path, state: Path) -> tuple[EvidenceKeeper, list[dict[str, Any]]]:
    config = folder / "press.yaml"
    config.write_text(
        f"site: plant\nnode: hall\nmachines:\n  - {{name: rail-7, recordings: s, detectors: [{CAE}]}}\n{text}\n"
    )
    stream = io.StringIO()
    log = Log(stream)
    keeper = EvidenceKeeper.of(load_config(config), state, [], log, Metrics())
    log.close()
    return keeper, [json.loads(line) for line in stream.getvalue().splitlines()]


@pytest.mark.parametrize("text", ["", "evidence:", "evidence: {}"])
def test_pictures_are_kept_in_the_state_folder(tmp_path: Path, text: str) -> None:
    _, lines = keeper_of(text, tmp_path, tmp_path / "state")
    assert [(line["event"], line["folder"], line["pictures"], line["clip_seconds"]) for line in lines] == [
        ("evidence", str(tmp_path / "state" / "evidence"), True, 0.0)
    ]


def test_nothing_is_kept_where_nothing_is_asked_for_and_a_folder_that_is_named_comes_first(tmp_path: Path) -> None:
    state = tmp_path / "state"
    assert keeper_of("evidence: {pictures: false}", tmp_path, state)[1] == []
    lines = keeper_of("evidence: {folder: kept}", tmp_path, state)[1]
    assert [line["folder"] for line in lines] == [str(tmp_path / "kept")]
    assert not state.exists()


def test_a_group_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"press\.yaml:5:12: evidence\.group: there is no group nobodys on"):
        keeper_of("evidence: {group: nobodys}", tmp_path, tmp_path)


# -------------------------------------------------------------------------------------------------- the real daemon


def test_the_daemon_shows_what_it_heard(day: Float32Array, tmp_path: Path) -> None:
    """The whole way, from a recording of a fault to the files that the alert names."""
    faulty = day[15 * RATE : 26 * RATE]
    soundfile.write(tmp_path / "rail.wav", faulty, RATE, subtype="PCM_16")
    config = write_config(
        tmp_path / "press.yaml",
        f"name: rail-7, recordings: rail.wav, detectors: [{CAE}], "
        "alarm: {threshold: 2.0, raise_after: 1 of 1, clear_after: 100}",
        mqtt=None,
    )
    config.write_text(f"{config.read_text()}evidence: {{clips: true}}\n")
    daemon = Daemon(config, "--state", str(tmp_path / "state"))
    try:
        alert = daemon.wait_for("alert", 30)["alert"]
        picture, clip = (Path(alert["evidence"][kind]) for kind in ("picture", "clip"))
        assert picture.parent == clip.parent == tmp_path / "state" / "evidence" / "rail-7"
        Image.open(picture).load()
        sound, _ = read_clip(clip)
        played = np.rint(faulty * 32768).astype(np.int16)
        assert np.array_equal(sound, played[: 10 * RATE])
        assert alert["agree"] == {"anomalous": [CAE.name], "of": 1} and alert["where"]["words"]
        until(lambda: daemon.metric("edge_asd_evidence_bytes") > 100_000, "the metric")
        assert daemon.metric('edge_asd_evidence_skipped_total{reason="disk"}') == 0
        assert daemon.metric('edge_asd_windows_total{machine="rail-7",result="late"}') == 0
        assert daemon.terminate() == 0
    finally:
        daemon.kill()
