"""``edge-asd replay --report``: the page says what --json says, shows what there is to hear, and stays small."""

from __future__ import annotations

import gc
import json
import re
import shutil
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from parts.html import Element, assert_complete, read_html

from edge_asd.audio.stream import MachineStream
from edge_asd.audio.windows import Window
from edge_asd.cli import main
from edge_asd.demo.clips import simulate
from edge_asd.demo.slide_rail import Fault
from edge_asd.detector import Detector
from edge_asd.errors import RecordingError
from edge_asd.logmel import Float32Array
from edge_asd.pipeline import AlarmSettings, MachineDetector, Pipeline
from edge_asd.replay import Replayer
from edge_asd.replayed import ReplayedRecording
from edge_asd.report.heard import MOST_INCIDENTS, MOST_ORDINARY, STRANGEST, WINDOWS_PER_INCIDENT, Heard
from edge_asd.report.replay_report import MAX_BYTES, write_report

RATE = 16_000
QUICK = AlarmSettings(threshold=2.0, raise_count=1, raise_window=1, clear_after=1, rest_seconds=0.0)
Report = Callable[..., tuple[int, Any, Element]]


@pytest.fixture
def report(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Report:
    """Runs ``edge-asd replay --json --report``; gives the exit status, the JSON document and the page."""

    def run(*arguments: str | Path) -> tuple[int, Any, Element]:
        page = tmp_path / "page" / "report.html"
        page.parent.mkdir(exist_ok=True)
        capsys.readouterr()
        status = main(["replay", "--json", "--report", str(page), *map(str, arguments)])
        said = capsys.readouterr()
        assert "Traceback" not in said.err
        size = page.stat().st_size
        assert f"report: {page}, {size / 1e6:.1f} MB" in said.err and size < MAX_BYTES
        assert [p.name for p in page.parent.iterdir()] == ["report.html"]
        read = read_html(page.read_text("utf-8"))
        assert_complete(read)
        return status, json.loads(said.out), read

    return run


def write(path: Path, samples: Float32Array) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, RATE, subtype="FLOAT")
    return path


def values(row: Element) -> list[float | None]:
    """What a table's row sorts by."""
    cells = [cell.attributes.get("data-value") for cell in row.all("td")]
    return [None if cell is None else float(cell) for cell in cells]


def broken_rail(minutes: float = 4.0) -> Float32Array:
    """A slide rail that is damaged in the middle third."""
    seconds = 20 * minutes
    parts = [simulate("id_00", seconds, seed=5, fault=fault, severity=1.0) for fault in (None, Fault.RAIL_DAMAGE, None)]
    return np.concatenate(parts)


# -------------------------------------------------------------------------------------------- recordings by themselves


def test_the_page_has_the_numbers_of_the_document(
    report: Report, dataset: Path, statistics_file: Path, site_file: Path
) -> None:
    """Several ids, several detectors, both labels."""
    status, document, page = report("--detector", statistics_file, site_file, "--", dataset / "slider" / "test")
    assert status == 0
    rows = {row.all("bdi")[0].text: row for row in page.all("tr", "recording-row")}
    assert len(rows) == len(document["recordings"]) == 24
    for recording in document["recordings"]:
        row = rows[Path(recording["file"]).name]
        rarity, first, second = [v for v in values(row) if v is not None][:3]
        (window,) = recording["windows"]
        assert [rarity, first, second] == [recording["rarity"], *(d["score"] for d in window["detectors"])]
        assert f"{recording['rarity']:.2f}" in row.text
        assert row.all("td")[1].text == recording["machine_id"]
        assert row.all("td")[2].text == {"anomaly": "anomalous", "normal": "normal"}[recording["label"]]
        assert ("over" in row.all("span")[0].classes) == window["anomalous"]
    aucs = [auc["per_id"] for auc in (*(d["auc"] for d in document["detectors"]), document["auc"])]
    expected = [aucs[score][i]["auc"] for i in ("id_00", "id_02") for score in range(3)]
    assert [values(row)[1] for row in page.all("tr", "auc-row")] == expected
    tiles = {tile.all("span")[0].text: tile.all("b")[0].text for tile in page.all("div", "tile")}
    means = [*(d["auc"]["mean"] for d in document["detectors"]), document["auc"]["mean"]]
    for name, mean in zip(("both.onnx", "site.onnx", "combined"), means, strict=True):
        assert tiles[f"AUC of {name} (pAUC {mean['pauc']:.3f})"] == f"{mean['auc']:.3f}"
    over = [sum(r["label"] == label and r["rarity"] >= r["threshold"] for r in document["recordings"]) for label in
            ("anomaly", "normal")]  # fmt: skip
    assert page.all("h1")[0].text == (
        f"At or over the threshold: {over[0]} of 12 anomalous recordings, {over[1]} of 12 normal recordings."
    )


def test_the_most_telling_recordings_are_shown(report: Report, dataset: Path, site_file: Path) -> None:
    _, document, page = report("--detector", site_file, "--", dataset / "slider" / "test")
    by_rarity = sorted(document["recordings"], key=lambda r: (r["rarity"], r["score"]))
    captions = [clip.all("figcaption")[0].text for clip in page.all("figure", "clip")]
    for label, edge in [("anomaly", -1), ("anomaly", 0), ("normal", -1), ("normal", 0)]:
        name = Path([r for r in by_rarity if r["label"] == label][edge]["file"]).name
        assert any(name in caption for caption in captions), (label, edge)
    assert len(captions) == len(set(captions)) == 2 * (STRANGEST + MOST_ORDINARY)
    for clip in page.all("figure", "clip"):
        assert clip.all("audio") and clip.all("img", "clip-overlay") and "carried by" in clip.text


def test_recordings_without_labels(report: Report, site_file: Path, tmp_path: Path) -> None:
    write(tmp_path / "in" / "long.wav", broken_rail())
    write(tmp_path / "in" / "short.wav", simulate("id_00", 4.0, seed=8))
    status, document, page = report("--detector", site_file, "--", tmp_path / "in")
    assert status == 0 and document["auc"] is None
    assert "AUC" not in page.all("main")[0].text
    assert "shorter than a window, repeated to fill it" in page.text
    (raised,) = [w for w in document["recordings"][0]["windows"] if w["event"] == "raised"]
    (incident,) = page.all("tr", "incident-row")
    assert incident.attributes["data-uuid"] == raised["incident"]
    assert values(incident)[1] == raised["start_seconds"] + 10.0
    assert "The alarm was raised once." in page.all("h1")[0].text
    titles = [title.text for card in page.all("div", "card") for title in card.all("h3")]
    assert titles == ["", "long.wav"] or titles == ["long.wav"]


# ------------------------------------------------------------------------------------------------------------ a stream


def test_a_stream_shows_its_incident(report: Report, site_file: Path, tmp_path: Path) -> None:
    sound = broken_rail()
    for number, part in enumerate(np.split(sound, 4)):
        write(tmp_path / "in" / f"{number}.wav", part)
    status, document, page = report("--detector", site_file, "--stream", "--hop", "5", "--", tmp_path / "in")
    (stream,) = document["recordings"]
    windows = stream["windows"]
    (raised,) = [w for w in windows if w["event"] == "raised"]
    (cleared,) = [w for w in windows if w["event"] == "cleared"]
    during = [w for w in windows if w["incident"] == raised["incident"]]
    assert status == 0 and 80 <= raised["start_seconds"] <= 110
    (row,) = page.all("tr", "incident-row")
    at, lasted, peak, anomalous = (v for v in values(row) if v is not None)
    assert at == raised["start_seconds"] + 10.0
    assert lasted == pytest.approx(cleared["start_seconds"] - raised["start_seconds"])
    assert peak == max(w["rarity"] for w in during)
    assert anomalous >= sum(w["anomalous"] for w in during), "and those that counted towards raising"
    assert "1.wav" in row.text, "the file that it began in"
    (section,) = page.all("section")
    assert section.attributes["id"] == "incident-1" and page.all("a")[0].attributes["href"] == "#incident-1"
    clips = section.all("figure", "clip")
    assert len(clips) == WINDOWS_PER_INCIDENT
    assert f"{peak:.2f}, at or over the threshold of {stream['threshold']:.2f}" in clips[0].text
    assert page.all("h1")[0].text == "The alarm was raised once."
    assert "far too many" in page.all("div", "verdict")[0].text, "if it was normal"


def test_a_quiet_stream_says_so(report: Report, site_file: Path, tmp_path: Path) -> None:
    write(tmp_path / "in" / "a.wav", simulate("id_00", 100.0, seed=6))
    _, document, page = report("--detector", site_file, "--stream", "--", tmp_path / "in")
    assert not any(w["event"] for w in document["recordings"][0]["windows"])
    assert page.all("h1")[0].text == "The alarm was never raised." and not page.all("tr", "incident-row")
    assert "warning" not in page.all("div", "verdict")[0].classes
    assert "So it should be if the machine was normal" in page.text
    (threshold,) = re.findall(r"Threshold ([\d.]+) for 0.1 false alarms a day", page.text)
    assert float(threshold) == pytest.approx(document["recordings"][0]["threshold"], abs=0.006)
    assert "Least anomalous" in page.text and "Most anomalous" in page.text


def test_findings_are_those_of_the_daemon(site: Detector, tmp_path: Path) -> None:
    sound = simulate("id_00", 60.0, seed=7)
    sound[12 * RATE : 14 * RATE] = 0.0
    sound[33 * RATE : 36 * RATE] = np.clip(sound[33 * RATE : 36 * RATE] * 1000, -0.5, 0.5)
    path = write(tmp_path / "sick.wav", sound)
    heard = Heard(joined=False)
    replayed = Replayer([site], QUICK, hop_seconds=5.0, listener=heard).replay_file(path)
    pipeline = Pipeline([MachineDetector.of(site, None)], QUICK, hop_seconds=5.0)
    stream = MachineStream(pipeline.cutter(), RATE)
    seconds = range(0, sound.size, RATE)
    daemons = [w.finding for begin in seconds for w in stream.push(begin, RATE, sound[begin : begin + RATE])]
    (track,) = heard.tracks
    assert [track.findings.get(index) for index in range(len(replayed.readings))] == daemons
    assert {f.reason for f in daemons if f} == {"silence", "clipping"}
    assert all(r.result == "scored" and r.finding is None for r in replayed.readings), "scores are as without a report"


def test_a_sick_signal_is_told(report: Report, site_file: Path, tmp_path: Path) -> None:
    sound = simulate("id_00", 60.0, seed=7)
    sound[12 * RATE : 14 * RATE] = 0.0
    path = write(tmp_path / "sick.wav", sound)
    _, document, page = report("--detector", site_file, "--", path)
    (row,) = page.all("tr", "finding-row")
    assert "silence" in row.text and "0:10" in row.text
    assert "1 window with a sick signal (silence 1)" in page.all("div", "verdict")[0].text
    assert [w["result"] for w in document["recordings"][0]["windows"]] == ["scored"] * 6


# -------------------------------------------------------------------------------------------------- names and failures


def test_what_could_not_be_read_is_named(report: Report, dataset: Path, site_file: Path, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    shutil.copy(dataset / "slider" / "test" / "normal_id_00_00000000.flac", folder)
    (folder / "broken.wav").write_bytes(b"no sound")
    status, document, page = report("--detector", site_file, "--", folder, tmp_path / "missing.wav")
    assert status == 1
    said = [item.text for item in page.all("li", "failed")]
    assert len(said) == len(document["failed"]) == 2
    for failed, text in zip(document["failed"], said, strict=True):
        assert failed["file"] in text and failed["reason"] in text
    assert "2 recordings could not be read" in page.text


def test_nothing_could_be_read(report: Report, site_file: Path, tmp_path: Path) -> None:
    for more in ([], ["--stream"]):
        status, _, page = report("--detector", site_file, *more, "--", tmp_path / "missing.wav")
        assert status == 1 and page.all("h1")[0].text == "There was nothing to hear."
        assert "missing.wav: does not exist" in page.text


@pytest.mark.parametrize("joined", [[], ["--stream"]])
def test_hostile_names_are_text(report: Report, site_file: Path, tmp_path: Path, joined: list[str]) -> None:
    folder = tmp_path / "<b>&amp;\"'"
    name = "<img src=x onerror=alert(1)>.wav"
    write(folder / name, broken_rail(2.0))
    (folder / "<script>alert(2)<").with_suffix(".wav").touch()
    shutil.copy(site_file, folder / "<i>{{ 7 * 7 }}.onnx")
    status, _, page = report("--detector", folder / "<i>{{ 7 * 7 }}.onnx", *joined, "--", folder)
    assert status == 1
    assert name in page.text and "<i>{{ 7 * 7 }}.onnx" in page.text and "<script>alert(2)<" in page.text
    assert not page.all("b", "") or all(b.text != "" for b in page.all("b"))
    assert len(page.all("script")) == 1 and not page.all("i")
    assert all(image.attributes["src"].startswith("data:") for image in page.all("img"))


def test_a_name_that_is_not_utf_8(report: Report, site_file: Path, tmp_path: Path) -> None:
    sound = write(tmp_path / "a.wav", simulate("id_00", 10.0, seed=1))
    odd = sound.rename(tmp_path / "caf\udce9.wav")
    _, _, page = report("--detector", site_file, "--", odd)
    assert "caf\\udce9.wav" in page.text


@pytest.mark.parametrize("where", ["", "none/x.html", "x.txt"])
def test_a_place_that_will_not_do_is_refused_at_once(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, where: str
) -> None:
    """Before the detector is looked at: it does not exist."""
    status = main(["replay", "--detector", "none.onnx", "--report", str(tmp_path / where), "--", str(tmp_path)])
    said = capsys.readouterr()
    assert (status, said.out) == (2, "") and said.err.startswith(f"edge-asd: {tmp_path / where}: ")
    assert said.err.count("\n") == 1 and not list(tmp_path.iterdir())


def test_the_table_tells_the_size(
    capsys: pytest.CaptureFixture[str], dataset: Path, site_file: Path, tmp_path: Path
) -> None:
    sound = dataset / "slider" / "test" / "normal_id_00_00000000.flac"
    capsys.readouterr()
    arguments = ["replay", "--detector", str(site_file), "--", str(sound)]
    assert main(arguments) == 0
    plain = capsys.readouterr().out
    assert main([*arguments[:1], "--report", str(tmp_path / "x.html"), *arguments[1:]]) == 0
    told = capsys.readouterr()
    assert told.err == "" and told.out.startswith(plain)
    size = (tmp_path / "x.html").stat().st_size
    assert told.out[len(plain) :] == (
        f"report: {tmp_path / 'x.html'}, {size / 1e6:.1f} MB, with picture and sound of 1 window\n"
    )


# ---------------------------------------------------------------------------------------------------------------- size


def two_hours(
    heard: Heard, detectors: list[Detector], hop: float, recording: ReplayedRecording, every: float
) -> list[weakref.ref[Window]]:
    """Two hours with an incident in each ``every`` seconds, of noise at full scale: the sound that packs worst.

    One window is really scored; the others are its copies at their own times, with the alarm run over them.
    """
    machine = [MachineDetector.of(d, "id_00", f"{n}.onnx") for n, d in enumerate(detectors)]
    pipeline = Pipeline(machine, QUICK, hop_seconds=hop)
    noise = np.random.default_rng(0).uniform(-1, 1, pipeline.window).astype(np.float32)
    one = pipeline.read(Window(0, noise, 0))
    pipeline.reset()
    heard.begin(recording, pipeline)
    heard.file(recording.path, 0)
    count = int((7200 - 10) / hop) + 1
    given = []
    for index in range(count):
        start = index * pipeline.hop
        rarity = index / count + (3.0 if (index * hop) % every < every / 2 else 0.0)
        event = pipeline.alarm.step(rarity, (start + pipeline.window) / RATE, hop)
        reading = replace(
            one,
            start=start,
            end=start + pipeline.window,
            rarity=rarity,
            event=event,
            incident=pipeline.alarm.incident,
            condition=pipeline.condition,
        )
        recording.readings.append(reading)
        window = Window(start, noise.copy(), 0)
        given.append(weakref.ref(window))
        heard.window(window, reading)
    recording.seconds = 7200.0
    heard.end(recording)
    return given


@pytest.mark.parametrize("hop", [10.0, 1.0])
def test_two_hours_with_an_incident_a_minute_stay_small(tiny: Callable[..., bytes], tmp_path: Path, hop: float) -> None:
    detectors = [Detector(Path(f"{n}.onnx"), tiny()) for n in range(3)]
    replayer = Replayer(detectors, QUICK, hop_seconds=hop)
    heard = Heard(joined=True)
    recording = ReplayedRecording(tmp_path / "hours", None, None)
    given = two_hours(heard, detectors, hop, recording, every=60.0)
    gc.collect()
    kept = sum(window() is not None for window in given)
    assert kept <= MOST_INCIDENTS * WINDOWS_PER_INCIDENT + STRANGEST + MOST_ORDINARY + 2, "memory is bounded"
    page = tmp_path / "page.html"
    said = write_report(page, replayer, heard, [recording], [recording.path])
    assert 1_000_000 < page.stat().st_size < MAX_BYTES and f"{page.stat().st_size / 1e6:.1f} MB" in said
    read = read_html(page.read_text())
    assert len(read.all("tr", "incident-row")) == len(heard.incidents) == 120
    clips = read.all("figure", "clip")
    assert sum(bool(clip.all("audio")) for clip in clips) >= 15
    # The rarest are shown: rarity grew from one to the next.
    shown = {int(section.attributes["id"].removeprefix("incident-")) for section in read.all("section")}
    assert shown and min(shown) > 120 - MOST_INCIDENTS and 120 in shown
    assert "Least anomalous" in read.text, "something to compare with"
    links = {a.attributes["href"].removeprefix("#") for a in read.all("a")}
    ids = [element.attributes["id"] for element in read.all() if "id" in element.attributes]
    assert links <= set(ids) and len(ids) == len(set(ids)), "every number leads somewhere"


def test_thousands_of_recordings_with_long_names_stay_small(tiny: Callable[..., bytes], tmp_path: Path) -> None:
    detectors = [Detector(Path(f"{n}.onnx"), tiny()) for n in range(3)]
    replayer = Replayer(detectors, QUICK, hop_seconds=10.0)
    machine = [MachineDetector.of(d, "id_00") for d in detectors]
    pipeline = Pipeline(machine, QUICK, hop_seconds=10.0)
    window = Window(0, np.random.default_rng(0).uniform(-1, 1, pipeline.window).astype(np.float32), 0)
    reading = pipeline.read(window)
    heard = Heard(joined=False)
    recordings = []
    for number in range(4200):
        label = "anomaly" if number % 2 else "normal"
        path = Path("/sound") / f"{label}_id_{number % 40:02d}_{number:08d}_{'<' * 200}.wav"
        recording = ReplayedRecording(path, None, label == "anomaly", seconds=10.0)
        recordings.append(recording)
        if number % 3 == 0:
            recording.failed.append(RecordingError(path, "is <truncated>" * 100))
            continue
        heard.begin(recording, pipeline)
        heard.file(path, 0)
        recording.readings.append(reading)
        heard.window(window, reading)
        heard.end(recording)
    page = tmp_path / "page.html"
    write_report(page, replayer, heard, recordings, [r.path for r in recordings])
    assert page.stat().st_size < MAX_BYTES
    read = read_html(page.read_text())
    assert len(read.all("tr", "recording-row")) == 2000 and "800 more recordings" in read.text
    assert len(read.all("li", "failed")) == 200 and "1,200 more recordings that could not be read" in read.text


def test_a_real_folder(report: Report, recordings_folder: Path, site_file: Path) -> None:
    status, document, page = report("--detector", site_file, "--", recordings_folder / "slider" / "test")
    assert status == 0
    assert len(page.all("tr", "recording-row")) == len(document["recordings"]) > 0
    assert not page.all("tr", "finding-row"), "these microphones are well"
