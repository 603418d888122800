"""Training end to end on simulated sound, its parts, and what it says of data that cannot be trained on."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from edge_asd_train import cli
from edge_asd_train.corpus import MIN_CLIPS, CorpusError, fingerprint, load_windows, read_clips
from edge_asd_train.export import PARITY_TOLERANCE, ExportError, Made, write_detector

from edge_asd.calibration import Calibration
from edge_asd.detector import Detector
from edge_asd.errors import DetectorError
from edge_asd.logmel import Float32Array
from edge_asd.verification import load_detector

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """edge-asd-train in this process; gives exit status, standard output and the last line of standard error."""

    def run(*arguments: str | Path) -> tuple[int, str, str]:
        capsys.readouterr()
        status = cli.main([str(a) for a in arguments])
        said = capsys.readouterr()
        assert "Traceback" not in said.err
        return status, said.out, (said.err.replace("\r", "\n").rstrip("\n").rpartition("\n")[2])

    return run


# --------------------------------------------------------------------------------------------------------- end to end


def test_statistics_end_to_end(run: Run, dataset: Path, statistics: Detector, tmp_path: Path) -> None:
    """Trains, writes, verifies, evaluates; and the same seed gives the scores of the detector trained before."""
    out = tmp_path / "new" / "folder" / "slider.onnx"
    licence = "simulated; no licence needed"
    train = ["--data", dataset, "--machine", "slider", "--out", out, "--licence", licence]
    status, said, _ = run("statistics", *train)
    assert status == 0
    assert f"{out}: statistics for slider (id_00, id_02)" in said and "48 clips of 6 recordings" in said
    assert [p.name for p in out.parent.iterdir()] == ["slider.onnx"]
    assert out.stat().st_mode & 0o777 == 0o644

    detector = load_detector(out)
    assert detector.metadata.data["licence"] == licence
    assert detector.metadata.calibration.keys() == {"id_00", "id_02"}
    windows = load_windows(read_clips(dataset, "slider", "test"), detector.log_mel_parameters, title="test")
    for number in (0, 7, 23):
        mine, theirs = (d.score(windows.log_mel[number], 1) for d in (detector, statistics))
        assert mine.score == theirs.score and np.array_equal(mine.anomaly_map, theirs.anomaly_map)
    for machine_id, calibration in detector.metadata.calibration.items():
        assert calibration.scores == statistics.metadata.calibration[machine_id].scores

    status, table, _ = run("evaluate", out, "--data", dataset)
    assert status == 0
    status, text, _ = run("evaluate", out, "--data", dataset, "--machine", "slider", "--json")
    found = json.loads(text)
    slider = found["machines"]["slider"]
    assert {i: (c["normal"], c["anomalous"]) for i, c in slider["clips"].items()} == {"id_00": (6, 6), "id_02": (6, 6)}
    assert list(slider["scorers"]) == ["statistics", "energy", "distance to the mean log-Mel"]
    own = slider["scorers"]["statistics"]
    assert own["auc"]["value"] > 0.9 and own["pauc"]["value"] > 0.8
    assert slider["scorers"]["energy"]["auc"]["value"] < 0.75, "the simulation must not be separable by level"
    assert "  statistics is slider.onnx" in table.splitlines()
    assert f" {own['auc']['value']:.3f} " in table and "statistics - energy" in table


def test_held_out_scores_are_higher_than_those_of_the_fit(statistics: Detector, dataset: Path) -> None:
    """A calibration on clips that were trained on would promise too few false alarms."""
    clips = [c for c in read_clips(dataset, "slider", "train") if c.machine_id == "id_02"]
    windows = load_windows(clips, statistics.log_mel_parameters, title="train")
    fitted = [statistics.score(log_mel, 1).score for log_mel in windows.log_mel]
    held_out = statistics.metadata.calibration["id_02"].scores
    assert np.mean(held_out) > np.mean(fitted) + 0.5


def test_the_map_shows_where(statistics: Detector, dataset: Path) -> None:
    """A burst put into a normal window is found at its mels and frames, and the map's mean is a part of the score."""
    clips = [c for c in read_clips(dataset, "slider", "test") if c.machine_id == "id_00" and not c.is_anomaly][:1]
    log_mel = load_windows(clips, statistics.log_mel_parameters, title="one").log_mel[0]
    burst = log_mel.copy()
    burst[100:110, 150:154] += 40.0
    before, after = statistics.score(log_mel), statistics.score(burst)
    assert after.score > before.score + 1
    assert (after.anomaly_map >= 0).all() and after.anomaly_map.mean() >= after.score - 1e-3

    def near(cells: Float32Array) -> float:
        """Share of what lies in the hundredth of the map around the burst."""
        return float(cells[95:115, 142:162].sum() / cells.sum())

    assert near(after.anomaly_map) > 0.3 and near(before.anomaly_map) < 0.05


# ----------------------------------------------------------------------------------------------------------- bad input


@pytest.fixture
def few(dataset: Path, tmp_path: Path) -> Path:
    """A folder with 16 training clips of id_00, two recordings, to be spoilt."""
    folder = tmp_path / "data" / "slider" / "train"
    folder.mkdir(parents=True)
    for number in range(16):
        shutil.copy(dataset / "slider" / "train" / f"normal_id_00_{number:08d}.flac", folder)
    return folder


def train(run: Run, data: Path, out: Path, *more: str, machine: str = "slider") -> tuple[int, str]:
    """Exit status and the last line of error of a training that must not succeed, nor leave a file."""
    status, _, error = run("statistics", "--data", data, "--machine", machine, "--out", out, *more)
    assert status != 0 and not out.exists() and not list(out.parent.glob(".*.onnx.*"))
    assert error.startswith("edge-asd-train: ")
    return status, error


def test_folders_that_are_not_there(run: Run, dataset: Path, tmp_path: Path) -> None:
    out = tmp_path / "x.onnx"
    for data, machine, words in [
        (tmp_path / "none", "slider", f"{tmp_path / 'none' / 'slider' / 'train'}: no such folder"),
        (dataset, "pump", "no such folder; it holds slider"),
        (dataset / "slider", "slider", "no such folder"),
    ]:
        status, error = train(run, data, out, machine=machine)
        assert status == 1 and words in error
    (tmp_path / "empty" / "slider" / "train").mkdir(parents=True)
    assert "holds no .wav or .flac file" in train(run, tmp_path / "empty", out)[1]


def test_clips_that_cannot_be_trained_on(run: Run, few: Path, tmp_path: Path) -> None:
    data, out = few.parents[1], tmp_path / "x.onnx"
    first = few / "normal_id_00_00000000.flac"

    moved = first.rename(few / "anomaly_id_00_00000000.flac")
    status, error = train(run, data, out)
    assert status == 1 and f"{moved}: an anomalous clip among the training clips" in error

    moved = moved.rename(few / "monday.flac")
    assert f"{moved}: is not named like normal_id_00_00000000.wav" in train(run, data, out)[1]

    moved.unlink()
    for path in sorted(few.iterdir())[MIN_CLIPS - 1 :]:
        path.unlink()
    words = f"id_00: {MIN_CLIPS - 1} normal windows of 10 s; {MIN_CLIPS} at least are needed"
    assert words in train(run, data, out)[1]

    assert "no clips of id_04; of id_00" in train(run, data, out, "--id", "id_04")[1]


def test_one_recording_cannot_be_split(run: Run, few: Path, tmp_path: Path) -> None:
    error = train(run, few.parents[1], tmp_path / "x.onnx", "--recording-digits", "8")[1]
    assert "id_00: 1 recording(s) cannot be split into 2 folds" in error and "--recording-digits" in error


def test_unreadable_clips_are_named_and_left_out(
    few: Path, capsys: pytest.CaptureFixture[str], statistics: Detector
) -> None:
    paths = sorted(few.iterdir())
    paths[3].write_bytes(b"")
    paths[5].write_bytes(b"fLaC" + bytes(100))
    clips = read_clips(few.parents[1], "slider", "train")
    windows = load_windows(clips, statistics.log_mel_parameters, title="some")
    said = "".join(capsys.readouterr())
    assert len(windows) == 14 and {3, 5}.isdisjoint(windows.clip.tolist())
    assert f"left out: {paths[3]}: is empty" in said and f"left out: {paths[5]}: " in said
    for path in paths:
        path.write_bytes(b"")
    with pytest.raises(CorpusError, match="none of its 16 recordings can be read"):
        load_windows(clips, statistics.log_mel_parameters, title="none")


def test_arguments_that_cannot_be(run: Run, dataset: Path, tmp_path: Path) -> None:
    given = ["--data", dataset, "--machine", "slider"]
    assert run("statistics", *given, "--out", tmp_path)[::2] == (
        2,
        f"edge-asd-train: --out {tmp_path}: is a folder; give the name of a file",
    )
    status, _, error = run("statistics", *given, "--out", tmp_path / "x.onnx", "--seed", "-1")
    assert status == 2 and "--seed -1: must not be negative" in error
    status, _, error = run("statistics", *given, "--out", tmp_path / "x.onnx", "--seed", str(10**20))
    assert status == 2 and f"--seed {10**20}: must be below 2^62" in error
    (tmp_path / "file").touch()
    status, _, error = run("statistics", *given, "--out", tmp_path / "file" / "x.onnx")
    assert status == 1 and str(tmp_path / "file") in error


def test_evaluate_says_what_is_missing(
    run: Run, dataset: Path, few: Path, statistics_file: Path, tmp_path: Path
) -> None:
    for arguments, status, words in [
        ([tmp_path / "no.onnx", "--data", dataset], 78, "no.onnx: No such file"),
        ([statistics_file, "--data", tmp_path / "none"], 1, "no such folder"),
        ([statistics_file, "--data", few.parents[1]], 1, "slider/test: no such folder"),
    ]:
        given, _, error = run("evaluate", *arguments)
        assert given == status and words in error
    test = few.parent / "test"
    test.mkdir()
    clip = next((dataset / "slider" / "test").glob("normal_id_00_*"))
    shutil.copy(clip, test / "normal_id_00_00000000.flac")
    assert "there is nothing to judge" in run("evaluate", statistics_file, "--data", few.parents[1])[2]
    shutil.copy(clip, test / "anomaly_id_08_00000000.flac")
    error = run("evaluate", statistics_file, "--data", few.parents[1])[2]
    assert "both.onnx: does not know id_08; it knows id_00, id_02" in error


def test_simulate(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "sim"
    few = ["--id", "id_05", "--train-clips", "2", "--test-normal", "1", "--test-per-fault", "1", "--seconds", "1"]
    status, said, _ = run("simulate", "--out", out, *few)
    assert status == 0 and said == f"{out / 'slider' / 'manifest.csv'}: what was made\n"
    assert len(read_clips(out, "slider", "train")) == 2 and len(read_clips(out, "slider", "test")) == 4
    for arguments, words in [
        (["--out", out, *few], "already holds slider"),
        (["--out", tmp_path / "b", *few, "--seed", "-1"], "must not be negative"),
        (["--out", tmp_path / "c", *few, "--severity", "2"], "severity 2.0 is outside 0 to 1"),
        (["--out", tmp_path / "d", *few, "--seconds", "nan"], "nan"),
    ]:
        status, _, error = run("simulate", *arguments)
        assert status == 2 and words in error


def test_help_of_each_command(capsys: pytest.CaptureFixture[str]) -> None:
    for name, words in [
        ("statistics", "distances of clip statistics"),
        ("cae", "--crop-frames"),
        ("anogan", "--search-steps"),
        ("evaluate", "DETECTOR"),
        ("simulate", "rail_damage"),
    ]:
        with pytest.raises(SystemExit) as done:
            cli.main([name, "--help"])
        assert done.value.code == 0 and words in capsys.readouterr().out


# --------------------------------------------------------------------------------------------------------------- parts


def test_recordings_are_told_by_their_digits(dataset: Path) -> None:
    wanted = {f"{machine_id}/000000{n}" for machine_id in ("id_00", "id_02") for n in range(3)}
    assert {c.recording for c in read_clips(dataset, "slider", "train")} == wanted
    by_digits = [
        len({c.recording for c in read_clips(dataset, "slider", "train", recording_digits=n)}) for n in (0, 1, 2)
    ]
    assert by_digits == [48, 6, 2]


def test_the_fingerprint_is_of_names_and_contents(few: Path) -> None:
    def now() -> str:
        return fingerprint(read_clips(few.parents[1], "slider", "train"))

    first = now()
    assert first == now() and len(first) == 64
    paths = sorted(few.iterdir())
    content = paths[0].read_bytes()
    paths[0].write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert now() != first
    paths[0].write_bytes(content)
    assert now() == first
    paths[0].rename(few / "normal_id_00_00000099.flac")
    assert now() != first


# -------------------------------------------------------------------------------------------------------------- export


@pytest.fixture
def made() -> Made:
    calibration = Calibration.from_scores(np.linspace(-60, -40, 40).tolist(), level_dbfs=-36.0, source="made up")
    return Made("tiny", "none", ("id_00",), {"id_00": calibration}, {}, {})


REFERENCE = np.random.default_rng(0).uniform(-80, -20, (4, 128, 313)).astype(np.float32)
INDEX = np.zeros(4, np.intp)


def test_export_writes_what_agrees(tiny: Callable[..., bytes], made: Made, tmp_path: Path) -> None:
    model, out = onnx.load_from_string(tiny(metadata="")), tmp_path / "a.onnx"
    expected = REFERENCE.mean(axis=(1, 2), dtype=np.float64)
    detector = write_detector(model, made, out, reference=REFERENCE, machine_index=INDEX, expected=expected)
    assert out.read_bytes() and load_detector(out).sha256 == detector.sha256
    assert detector.metadata.self_check.score == pytest.approx(expected[0], abs=0.1)


@pytest.mark.parametrize("off", [2 * PARITY_TOLERANCE, float("nan")])
def test_export_is_refused_where_scores_differ(
    tiny: Callable[..., bytes], made: Made, tmp_path: Path, off: float
) -> None:
    model, out = onnx.load_from_string(tiny(metadata="")), tmp_path / "a.onnx"
    expected = REFERENCE.mean(axis=(1, 2), dtype=np.float64)
    expected[2] += off * float(np.std(made.calibration["id_00"].scores))
    arguments = {"reference": REFERENCE, "machine_index": INDEX, "expected": expected}
    with pytest.raises(ExportError, match=r"a\.onnx: not written: ONNX Runtime scores differ from torch by"):
        write_detector(model, made, out, **arguments)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())
    out.write_bytes(b"the one before")
    with pytest.raises(ExportError):
        write_detector(model, made, out, **arguments)  # type: ignore[arg-type]
    assert out.read_bytes() == b"the one before" and len(list(tmp_path.iterdir())) == 1


def test_export_is_refused_where_the_daemon_would_refuse(
    tiny: Callable[..., bytes], made: Made, tmp_path: Path
) -> None:
    model = onnx.load_from_string(tiny(metadata=""))
    model.graph.output[0].name = model.graph.node[0].output[0] = "loss"
    expected = REFERENCE.mean(axis=(1, 2), dtype=np.float64)
    with pytest.raises(DetectorError, match="has no output score"):
        write_detector(model, made, tmp_path / "a.onnx", reference=REFERENCE, machine_index=INDEX, expected=expected)
    assert not list(tmp_path.iterdir())
