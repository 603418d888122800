"""``edge-asd replay``: what it says of the recordings that it was given."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from jsonschema import Draft202012Validator
from parts.pipelines import QUICK, RATE, essence, write

from edge_asd.cli import main
from edge_asd.demo.clips import simulate
from edge_asd.demo.slide_rail import Fault
from edge_asd.detector import Detector
from edge_asd.replay import Replayer, as_document

Schema = Callable[[str], Draft202012Validator]


@pytest.fixture
def replay(capsys: pytest.CaptureFixture[str], schema: Schema) -> Callable[..., tuple[int, Any, str]]:
    """Runs ``edge-asd replay``; gives exit status, standard output (a schema-valid document with --json) and error."""

    def run(*arguments: str | Path) -> tuple[int, Any, str]:
        capsys.readouterr()
        status = main(["replay", *map(str, arguments)])
        said = capsys.readouterr()
        assert "Traceback" not in said.err
        if "--json" not in arguments:
            return status, said.out, said.err
        document = json.loads(said.out, parse_constant=lambda text: pytest.fail(f"{text} is no JSON"))
        schema("replay").validate(document)
        return status, document, said.err

    return run


Replay = Callable[..., tuple[int, Any, str]]


def test_a_labelled_folder_gives_auc_by_id(replay: Replay, dataset: Path, statistics_file: Path) -> None:
    status, document, errors = replay("--detector", statistics_file, dataset / "slider" / "test", "--json")
    assert (status, errors) == (0, "")
    assert [r["label"] for r in document["recordings"]].count("anomaly") == 12 and len(document["recordings"]) == 24
    assert set(document["auc"]["per_id"]) == {"id_00", "id_02"}
    assert document["auc"]["mean"]["auc"] > 0.9
    assert document["auc"] == document["detectors"][0]["auc"]
    assert document["auc"]["per_id"]["id_02"] | {"auc": 0, "pauc": 0} == {
        "auc": 0,
        "pauc": 0,
        "normal": 6,
        "anomalous": 6,
    }
    for recording in document["recordings"]:
        assert recording["seconds"] == 10.0 and len(recording["windows"]) == 1 and not recording["flags"]
        assert recording["score"] == recording["windows"][0]["detectors"][0]["score"] == recording["report_score"]
        assert recording["machine_id"] in recording["file"]


def test_the_table_says_the_same(replay: Replay, dataset: Path, statistics_file: Path, site_file: Path) -> None:
    """In the form that names both detectors after one --detector, and the folder right behind them."""
    folder = dataset / "slider" / "test"
    status, table, errors = replay("--detector", statistics_file, site_file, folder)
    _, document, _ = replay("--detector", statistics_file, "--detector", site_file, "--json", folder)
    assert (status, errors) == (0, "")
    lines = table.splitlines()
    assert "24 of 24 scored" in lines
    assert lines[0].startswith("score of both.onnx, site.onnx; rarity")
    for line, recording in zip(lines[1:25], document["recordings"], strict=True):
        first, second, rarity = (float(word) for word in line.split()[:3])
        scores = [d["score"] for d in recording["windows"][0]["detectors"]]
        assert [first, second] == pytest.approx(scores, abs=0.006)
        assert rarity == pytest.approx(recording["rarity"], abs=0.006)
        assert line.endswith(recording["file"])
    mean = document["auc"]["mean"]
    assert f"AUC / pAUC of combined: {mean['auc']:.3f} / {mean['pauc']:.3f} (mean of 2 ids)" in lines
    assert len(document["detectors"]) == 2 and document["detectors"][1]["file"] == str(site_file)


def test_the_forms_of_the_detector_option(
    replay: Replay, dataset: Path, statistics_file: Path, site_file: Path
) -> None:
    sound = dataset / "slider" / "test" / "normal_id_00_00000000.flac"
    forms: list[list[str | Path]] = [
        ["--detector", statistics_file, site_file, sound],
        [sound, "--detector", statistics_file, site_file],
        ["--detector", statistics_file, "--detector", site_file, sound],
        ["--detector", statistics_file, site_file, "--", sound],
        ["--detector", statistics_file, sound, "--detector", site_file],
    ]
    documents = [replay(*["--json", *form])[1] for form in forms]
    assert len(documents[0]["recordings"]) == 1 and len(documents[0]["detectors"]) == 2
    assert all(document == documents[0] for document in documents[1:])


def test_a_short_recording_is_repeated_and_flagged(
    replay: Replay, dataset: Path, site_file: Path, tmp_path: Path
) -> None:
    sound, _ = soundfile.read(dataset / "slider" / "test" / "normal_id_00_00000001.flac", dtype="float32")
    short = write(tmp_path / "in" / "a-short.wav", sound[: 4 * RATE])
    write(tmp_path / "in" / "b-filled.wav", np.resize(sound[: 4 * RATE], 10 * RATE))
    write(tmp_path / "in" / "c-long.wav", np.concatenate([sound, sound[: 6 * RATE + 8000]]))
    write(tmp_path / "in" / "d-telephone.wav", sound[::2], RATE // 2)
    status, document, _ = replay("--json", "--detector", site_file, short.parent)
    a, b, c, d = document["recordings"]
    assert status == 0
    assert [(r["flags"], r["seconds"]) for r in (a, b, c, d)] == [
        (["repeated"], 4.0),
        ([], 10.0),
        (["last_6.5_s_not_scored"], 16.5),
        (["recorded_at_8000_hz"], 10.0),
    ]
    assert a["score"] == b["score"]
    assert "[repeated]" in replay("--detector", site_file, short)[1]


def test_a_bad_file_is_named_and_the_rest_is_scored(
    replay: Replay, dataset: Path, statistics_file: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "mixed"
    folder.mkdir()
    for name in ("normal_id_00_00000000.flac", "anomaly_id_00_00000000.flac"):
        shutil.copy(dataset / "slider" / "test" / name, folder)
    sound = simulate("id_00", 11.0, seed=3)
    whole = write(tmp_path / "whole.wav", sound).read_bytes()
    (folder / "normal_id_00_00000001.wav").touch()
    (folder / "normal_id_00_00000002.wav").write_bytes(whole[: len(whole) // 2])
    (folder / "normal_id_00_00000003.flac").write_bytes(b"not sound, but text\n" * 100)
    nan = sound.copy()
    nan[170_000] = np.nan  # after the first window: that one must not count either
    write(folder / "normal_id_00_00000004.wav", nan)
    write(folder / "normal_id_00_00000005.wav", np.zeros(0, np.float32))
    flac = (dataset / "slider" / "test" / "normal_id_00_00000002.flac").read_bytes()
    (folder / "normal_id_00_00000006.flac").write_bytes(flac[: len(flac) // 2])
    write(folder / "hall.wav", sound)
    missing = tmp_path / "missing.wav"

    status, document, errors = replay("--json", "--detector", statistics_file, "--", folder, missing)
    assert status == 1
    assert [Path(r["file"]).name for r in document["recordings"]] == [
        "anomaly_id_00_00000000.flac",
        "normal_id_00_00000000.flac",
    ]
    reasons = {Path(f["file"]).name: f["reason"] for f in document["failed"]}
    wanted = {
        "normal_id_00_00000001.wav": "is empty",
        "normal_id_00_00000002.wav": "is truncated",
        "normal_id_00_00000003.flac": "is not a WAV or FLAC recording",
        "normal_id_00_00000004.wav": "holds NaN or infinity at 10.625 s",
        "normal_id_00_00000005.wav": "holds no samples",
        "normal_id_00_00000006.flac": "",
        "hall.wav": "serves several machines, and no id is given; it knows id_00, id_02",
        "missing.wav": "does not exist",
    }
    assert set(reasons) == set(wanted)
    assert all(words in reasons[name] for name, words in wanted.items()), reasons
    lines = errors.splitlines()
    assert len(lines) == len(wanted) and all(line.startswith("edge-asd: ") for line in lines)
    assert all(any(name in line for line in lines) for name in wanted)
    assert document["auc"]["per_id"]["id_00"]["normal"] == 1

    status, table, _ = replay("--detector", statistics_file, folder)
    assert status == 1 and "2 of 9 scored" in table


def test_nothing_to_score_is_an_error(replay: Replay, site_file: Path, tmp_path: Path) -> None:
    status, document, errors = replay("--json", "--detector", site_file, tmp_path)
    assert status == 1 and document["recordings"] == [] and document["auc"] is None
    assert errors == f"edge-asd: {tmp_path}: holds no .wav or .flac file\n"


def test_machine_ids(replay: Replay, dataset: Path, statistics_file: Path, site_file: Path, tmp_path: Path) -> None:
    """From the file's name, from --id, an error that lists them; a site's own detector takes any name."""
    named = dataset / "slider" / "test" / "normal_id_02_00000000.flac"
    unnamed, stranger = tmp_path / "monday.flac", tmp_path / "normal_id_08_00000000.flac"
    for copy in (unnamed, stranger):
        shutil.copy(named, copy)

    def score(*arguments: str | Path) -> tuple[float, str | None]:
        status, document, errors = replay("--json", *arguments)
        assert (status, errors) == (0, "")
        return document["recordings"][0]["score"], document["recordings"][0]["machine_id"]

    by_name = score("--detector", statistics_file, named)
    assert by_name == (score("--detector", statistics_file, "--id", "id_02", unnamed)[0], "id_02")
    assert score("--detector", statistics_file, "--id", "id_00", named)[0] != by_name[0], "--id must win over the name"
    own = score("--detector", site_file, named)[0]
    assert score("--detector", site_file, unnamed) == (own, None)
    assert score("--detector", site_file, stranger)[0] == own
    for arguments, words in [
        ([unnamed], "no id is given; it knows id_00, id_02"),
        ([stranger], "does not know id_08; it knows id_00, id_02"),
        (["--id", "id_04", named], "does not know id_04; it knows id_00, id_02"),
    ]:
        status, document, errors = replay("--json", "--detector", statistics_file, *arguments)
        assert status == 1 and not document["recordings"]
        assert len(errors.splitlines()) == 1 and words in errors


def test_a_stream_raises_and_clears_one_incident(replay: Replay, site_file: Path, tmp_path: Path) -> None:
    """Normal, faulty, normal: cut into files in the middle of windows, which a stream must not notice."""
    phases: list[tuple[int, Fault | None]] = [(65, None), (95, Fault.LOOSE_BELT), (140, None)]
    joined = np.concatenate([simulate("id_00", s, seed=40, fault=fault, severity=1.0) for s, fault in phases])
    for number, part in enumerate(np.split(joined, [7 * RATE, 71 * RATE + 3, 72 * RATE, 200 * RATE])):
        write(tmp_path / "day" / f"{number:02d}.wav", part)
    status, document, errors = replay("--json", "--stream", "--detector", site_file, tmp_path / "day")
    assert (status, errors) == (0, "")
    (stream,) = document["recordings"]
    assert stream["file"] == str(tmp_path / "day") and stream["seconds"] == 300.0 and len(stream["windows"]) == 30
    events = [(w["event"], w["start_seconds"], w["incident"]) for w in stream["windows"] if w["event"]]
    assert [e[0] for e in events] == ["raised", "cleared"]
    assert 80 <= events[0][1] <= 110 and events[1][1] >= 190
    assert events[0][2] == events[1][2]
    conditions = [w["condition"] for w in stream["windows"]]
    assert set(conditions) == {"normal", "anomalous"} and conditions[0] == conditions[-1] == "normal"

    whole = write(tmp_path / "whole.wav", joined)
    alone = replay("--json", "--detector", site_file, whole)[1]["recordings"][0]
    assert [w["detectors"] for w in alone["windows"]] == [w["detectors"] for w in stream["windows"]]

    (tmp_path / "day" / "01b.wav").write_bytes(b"RIFF")
    status, table, errors = replay("--stream", "--detector", site_file, tmp_path / "day")
    assert status == 1 and "01b.wav" in errors
    assert table.count("RAISED") == table.count("CLEARED") == 1 and table.count("anomalous") >= 5


def test_a_file_is_scored_alone(site: Detector, dataset: Path) -> None:
    """The alarm is reset between files: an anomalous one before it changes nothing."""
    normal = dataset / "slider" / "test" / "normal_id_00_00000000.flac"
    faulty = dataset / "slider" / "test" / "anomaly_id_00_00000000.flac"
    replayer = Replayer([site], QUICK, hop_seconds=10.0)
    alone = replayer.replay_file(normal)
    raised = replayer.replay_file(faulty)
    after = replayer.replay_file(normal)
    assert raised.readings[0].condition == "anomalous"
    assert essence(alone.readings) == essence(after.readings)
    document = as_document(replayer, [alone, raised, after])
    assert document["recordings"][0] == document["recordings"][2]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--hop", "0.5"], "--hop 0.5: must be from 1 to 3600 seconds"),
        (["--hop", "nan"], "--hop nan"),
        (["--channel", "0"], "--channel 0: channels are counted from 1"),
        (["--false-alarms-per-day", "0"], "must be above 0 and at most 100, not 0"),
        (["--false-alarms-per-day", "nan"], "must be above 0 and at most 100, not nan"),
        (["--false-alarms-per-day", "1e9"], "must be above 0 and at most 100, not 1e+09"),
    ],
)
def test_options_that_make_no_sense(
    replay: Replay, dataset: Path, site_file: Path, options: list[str], words: str
) -> None:
    sound = dataset / "slider" / "test" / "normal_id_00_00000000.flac"
    status, out, errors = replay("--detector", site_file, *options, "--", sound)
    assert (status, out) == (2, "")
    assert words in errors and len(errors.splitlines()) == 1


def test_a_channel_that_is_not_there(replay: Replay, dataset: Path, site_file: Path) -> None:
    sound = dataset / "slider" / "test" / "normal_id_00_00000000.flac"
    status, _, errors = replay("--detector", site_file, "--channel", "2", "--", sound)
    assert status == 1 and errors == f"edge-asd: {sound}: has 1 channel(s); there is no channel 2\n"


def test_a_stream_is_of_one_machine(replay: Replay, dataset: Path, statistics_file: Path, tmp_path: Path) -> None:
    for number, machine_id in enumerate(["id_00", "id_02", "id_00"]):
        clip = dataset / "slider" / "test" / f"normal_{machine_id}_0000000{number}.flac"
        (tmp_path / "mixed").mkdir(exist_ok=True)
        (tmp_path / "mixed" / clip.name).symlink_to(clip)
    status, document, errors = replay("--detector", statistics_file, "--stream", "--json", tmp_path / "mixed")
    assert status == 1 and "is of id_02 in a stream of id_00" in errors
    (recording,) = document["recordings"]
    assert recording["machine_id"] == "id_00" and len(recording["windows"]) == 2
    assert [Path(f["file"]).name for f in document["failed"]] == ["normal_id_02_00000001.flac"]
