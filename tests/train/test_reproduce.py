"""Rows trained and scored in a folder: resumed, refused for other recordings, and what is printed of them."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from edge_asd_train import cli
from edge_asd_train.cae_network import PRESETS
from edge_asd_train.dense_baseline import DenseSettings
from edge_asd_train.recording_set import RecordingSet
from edge_asd_train.report_rows import DENSE, GRID, PEER, REPORT, ROWS, Published, Row, chosen_rows
from edge_asd_train.reproduce import ReproduceError, Reproduction
from edge_asd_train.reproduce_table import reproduction_table

from edge_asd.errors import UsageError
from edge_asd.pipeline import AlarmSettings
from edge_asd.replay import Replayer
from edge_asd.verification import load_detector

STATISTICS = Row("statistics", "statistics, no network", "ours", "statistics")
BASELINE = Row("dcase-baseline", "DCASE 2020 baseline", PEER, DENSE, DenseSettings(epochs=2))
SHORT = replace(PRESETS["report"], epochs=1, channels=(4, 4, 4, 4))
CAE = Row("report-cae", "CAE", REPORT, "cae", SHORT, Published(without_id_06=(0.904, 0.766)))


@pytest.fixture(scope="module")
def recordings(dataset: Path) -> RecordingSet:
    return RecordingSet.read("development", dataset, "slider", recording_digits=0)


@pytest.fixture(scope="module")
def finished(recordings: RecordingSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the row without a network is finished: to be copied."""
    folder = tmp_path_factory.mktemp("finished") / "out"
    Reproduction(recordings, folder, recording_digits=0).row(STATISTICS)
    return folder


@pytest.fixture
def out(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "out"))


def test_scores_are_those_of_replay(recordings: RecordingSet, out: Path) -> None:
    made = Reproduction(recordings, out, recording_digits=0).row(STATISTICS)
    replayer = Replayer([load_detector(out / "statistics.onnx")], AlarmSettings(threshold=3.0), hop_seconds=10)
    scores = {json.loads(line)[0]: json.loads(line)[1] for line in (out / "statistics.scores.jsonl").open()}
    for number in (0, 7, 20):
        assert replayer.replay_file(recordings.test[number].path).score == scores[number]
    per_id = made["per_id"]
    assert made["mean"]["auc"]["value"] == pytest.approx(np.mean([per_id[i]["auc"] for i in per_id]))
    assert made["without_id_06"] is None and made["collapsed"] is None and made["minutes"] > 0


def test_a_killed_run_goes_on(recordings: RecordingSet, out: Path, tmp_path: Path) -> None:
    assert not Reproduction(recordings, tmp_path / "new", recording_digits=0).is_done(STATISTICS)
    whole = Reproduction(recordings, out, recording_digits=0)
    assert whole.is_done(STATISTICS)
    first = whole.row(STATISTICS)
    scores = out / "statistics.scores.jsonl"
    lines = scores.read_bytes().splitlines(keepends=True)
    # Killed in the middle of the sixth line, and the detector is not made again.
    scores.write_bytes(b"".join(lines[:5]) + lines[5][:4])
    detector = (out / "statistics.onnx").stat()
    again = Reproduction(recordings, out, recording_digits=0).row(STATISTICS)
    assert {**again, "minutes": 0} == {**first, "minutes": 0}
    assert (out / "statistics.onnx").stat().st_mtime_ns == detector.st_mtime_ns
    assert sorted(scores.read_bytes().splitlines(keepends=True)) == sorted(lines)
    scores.write_text("[0, no number]\n")
    with pytest.raises(ReproduceError, match=r"statistics\.scores\.jsonl: is damaged; delete it"):
        Reproduction(recordings, out, recording_digits=0).row(STATISTICS)


def test_a_folder_is_of_one_set_of_recordings(recordings: RecordingSet, dataset: Path, tmp_path: Path) -> None:
    Reproduction(recordings, tmp_path / "out", recording_digits=0)
    fewer = RecordingSet.read("development", dataset, "slider", ids=["id_02"])
    with pytest.raises(UsageError, match="holds rows of other recordings or another seed; take a new folder"):
        Reproduction(fewer, tmp_path / "out", recording_digits=0)
    with pytest.raises(UsageError, match="another seed"):
        Reproduction(recordings, tmp_path / "out", recording_digits=0, seed=1)


def test_rows_that_collapse_are_marked_and_go_on(recordings: RecordingSet, tmp_path: Path) -> None:
    made = Reproduction(recordings, tmp_path, recording_digits=0)
    row = made.row(CAE)
    assert row["published"]["without_id_06"] == (0.904, 0.766)
    assert "mse_over_variance" in row["collapsed"] and 0 <= row["mean"]["auc"]["value"] <= 1
    # An epoch of 48 clips less those left out is a batch: a point of it.
    assert [point[0] for point in row["curve"]] == [1] and all(len(point) == 3 for point in row["curve"])
    settings = load_detector(tmp_path / "report-cae.onnx").metadata
    left_out = sum(len(c.scores) for c in settings.calibration.values())
    assert settings.settings["folds"] == 1 and 16 <= left_out < 48, "a part is left out once, as the report does"


def test_rows_that_cannot_be_trained_are_told_and_go_on(recordings: RecordingSet, tmp_path: Path) -> None:
    made = Reproduction(recordings, tmp_path, recording_digits=0)
    # Ours may not collapse: it is refused by its first network.
    refused = made.row(replace(CAE, key="ours", table="ours"))
    assert refused["failed"].startswith("collapsed: ") and "mean" not in refused
    assert not (tmp_path / "ours.onnx").exists()


def test_a_row_that_has_changed_is_not_taken_for_the_old_one(
    recordings: RecordingSet, finished: Path, tmp_path: Path
) -> None:
    made = Reproduction(recordings, tmp_path, recording_digits=0)
    shutil.copy(finished / "statistics.onnx", tmp_path / "report-cae.onnx")
    with pytest.raises(
        ReproduceError, match=r"report-cae\.onnx: was trained with crop_frames None, the row has 64; del"
    ):
        made.row(CAE)


def test_scores_of_a_detector_that_is_gone_are_not_taken(recordings: RecordingSet, out: Path) -> None:
    made = Reproduction(recordings, out, recording_digits=0)
    # A row with another key, of the same kind: the scores are of nothing that is there.
    (out / "other.scores.jsonl").write_text("".join(f"[{i}, 0.0]\n" for i in range(24)))
    shutil.move(out / "statistics.onnx", out / "kept.onnx")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Reproduction, "_train", lambda self, row, path: shutil.copy(out / "kept.onnx", path))
        row = made.row(replace(STATISTICS, key="other"))
    assert row["mean"]["auc"]["value"] != 0.5, "it was scored anew"


def test_the_tables(recordings: RecordingSet, out: Path) -> None:
    made = Reproduction(recordings, out, recording_digits=0)
    baseline = made.row(BASELINE)
    cae = {**baseline, "title": "CAE", "table": REPORT, "collapsed": "mse_over_variance 0.95", "curve": [[9, 0.5, 0.6]]}
    cae["published"] = {"per_id": {}, "mean": None, "without_id_06": (0.904, 0.766)}
    rows = [cae, baseline, made.row(STATISTICS), *made.trivial()]
    rows.append({"key": "x", "title": "diverged", "table": REPORT, "published": None, "failed": "it diverged"})
    text = reproduction_table({"sets": {"development": {"data": made.data, "rows": rows}}})
    lines = text.splitlines()
    assert lines[0] == "development: slider, id_00, id_02; 48 training clips, 24 test clips"
    line = next(line for line in lines if line.startswith("    CAE "))
    assert "published: 0.904 / 0.766 (00, 02, 04)" in line and "COLLAPSED: mse_over_variance" in line
    assert "    CAE                           0.6 (0.5)" in lines
    assert "    diverged                      it diverged" in lines
    ours = next(line for line in lines if line.startswith("    statistics, no network"))
    assert "published" not in ours, "nobody else has published ours"
    energy = next(r for r in rows if r["key"] == "energy")
    assert f"    energy                        {energy['mean']['auc']['value']:.3f} / " in text
    assert "published by others" in text and "UMINHO 2020" in text and "where the report is silent" in text
    # Of another set nothing was published.
    other = reproduction_table({"sets": {"evaluation": {"data": made.data, "rows": rows}}})
    assert "published: 0.904" not in other and max(map(len, lines)) <= 170


def test_rows_by_key() -> None:
    assert chosen_rows(None, grid=False) == list(ROWS) and chosen_rows(None, grid=True) == [*ROWS, *GRID]
    assert [r.key for r in chosen_rows(["statistics", "report-cae"], grid=False)] == ["report-cae", "statistics"]
    assert chosen_rows([GRID[0].key], grid=False) == [GRID[0]]
    with pytest.raises(ValueError, match="no row is called gan; there are report-cae, "):
        chosen_rows(["gan"], grid=False)
    assert len({r.key for r in (*ROWS, *GRID)}) == len(ROWS) + len(GRID)


def test_both_sets_from_the_command_line(
    dataset: Path, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The evaluation set's test clips carry no label in their names: the ground truth has them."""
    hidden = tmp_path / "evaluation" / "slider"
    shutil.copytree(dataset / "slider" / "train", hidden / "train")
    (hidden / "test").mkdir()
    truth = ["slider"]
    for number, path in enumerate(sorted((dataset / "slider" / "test").iterdir())):
        label, _, rest = path.name.partition("_")
        name = f"{rest[:6]}{number:08d}{path.suffix}"
        shutil.copy(path, hidden / "test" / name)
        truth.append(f"{name},{int(label == 'anomaly')}")
    (tmp_path / "truth.csv").write_text("\n".join(truth) + "\n")
    arguments = ["reproduce", "--development", str(dataset), "--evaluation", str(hidden.parent), "--rows", "statistics"]
    arguments += ["--out", str(tmp_path / "out"), "--recording-digits", "0"]
    assert cli.main(arguments) == 1
    assert "test clips have no label in their names, and there is no" in capsys.readouterr().err
    # Trained already; what is left to do is scoring.
    for name in ("development", "evaluation"):
        (tmp_path / "out" / name).mkdir(parents=True)
        shutil.copy(finished / "statistics.onnx", tmp_path / "out" / name)
    assert cli.main([*arguments, "--ground-truth", str(tmp_path / "truth.csv")]) == 0
    told = capsys.readouterr()
    document = json.loads((tmp_path / "out" / "reproduce.json").read_text())
    one, two = (document["sets"][name]["rows"][0] for name in ("development", "evaluation"))
    assert one["per_id"] == two["per_id"], "the same clips, the same detector"
    assert "development: slider, " in told.out and "evaluation: slider, " in told.out
    assert "development: statistics, 1 of 2; about" in told.err and "evaluation: statistics, 2 of 2" in told.err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--rows", "gan"], "--rows: no row is called gan"),
        (["--seed", "-1"], "--seed -1: must not be negative"),
        (["--recording-digits", "9"], "--recording-digits 9: must be from 0 to 8"),
        (["--ground-truth", "x.csv"], "--ground-truth labels the evaluation set: give --evaluation too"),
    ],
)
def test_options_that_cannot_be(
    dataset: Path, tmp_path: Path, options: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["reproduce", "--development", str(dataset), "--out", str(tmp_path / "out"), *options]
    assert cli.main(arguments) == 2
    assert words in capsys.readouterr().err
