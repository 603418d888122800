"""What an evaluation sets beside the detectors: fitted statistics, each id alone, noise, recall, fewer ids, a page."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from edge_asd_train import cli
from edge_asd_train.bootstrap import Bootstrap
from edge_asd_train.disturb import Disturbance
from edge_asd_train.evaluate import evaluate
from edge_asd_train.machine_evaluation import Choices, evaluate_machine
from jsonschema import Draft202012Validator

from edge_asd.detector import Detector
from edge_asd.logmel import LogMelParameters, log_mel

FEW = 50
"""Resamples."""


@pytest.fixture
def loudness(tiny: Callable[..., bytes], tmp_path: Path) -> Detector:
    """A detector that no other is of a kind with, whose score is the mean of the log-Mel; of both simulated ids."""
    ids = ("id_00", "id_02")
    path = tmp_path / "loudness.onnx"
    path.write_bytes(tiny(ids=ids, document=lambda d: d.update(machine_type="slider")))
    return Detector(path, path.read_bytes())


def test_recall_is_the_share_of_what_is_anomalous() -> None:
    label = [False, True, True, False, True]
    boot = Bootstrap(["a", "a", "a", "b", "b"], label, ["1", "2", "3", "4", "5"], resamples=200)
    recall = boot.recall([1.0, 1.0, 0.0, 1.0, 1.0])
    assert recall[0] == (0.5 + 1.0) / 2 and set(recall[1:]) == {0.5, 1.0}


def test_statistics_are_fitted_where_none_are_given(
    loudness: Detector, statistics: Detector, dataset: Path, tmp_path: Path
) -> None:
    choices = Choices(refits=tmp_path / "refits", resamples=FEW)
    found = evaluate_machine([loudness], dataset, "slider", choices)
    assert [m.name for m in found.members] == ["tiny", "statistics"]
    assert list(found.scores) == ["tiny", "statistics", "energy", "distance to the mean log-Mel"]
    assert list(found.rarity) == ["tiny", "statistics"], "only what was given is combined"
    (made,) = (tmp_path / "refits").iterdir()
    before = made.stat().st_mtime_ns
    again = evaluate_machine([loudness], dataset, "slider", choices)
    assert made.stat().st_mtime_ns == before and np.array_equal(again.scores["statistics"], found.scores["statistics"])
    # The same as a detector that the command line makes.
    given = evaluate_machine([statistics], dataset, "slider", choices)
    assert np.array_equal(given.scores["statistics"], found.scores["statistics"])


def test_too_little_to_fit_statistics_is_a_note(loudness: Detector, dataset: Path, tmp_path: Path) -> None:
    data = tmp_path / "few"
    shutil.copytree(dataset / "slider" / "test", data / "slider" / "test")
    choices = Choices(refits=tmp_path / "refits", resamples=FEW)
    found = evaluate_machine([loudness], data, "slider", choices)
    assert any("no statistics detector beside, as none can be fitted: " in note for note in found.notes)
    (data / "slider" / "train").mkdir()
    for path in sorted((dataset / "slider" / "train").glob("*_id_00_*")):
        shutil.copy(path, data / "slider" / "train")
        shutil.copy(path, data / "slider" / "train" / path.name.replace("id_00", "id_04"))
    found = evaluate_machine([loudness], data, "slider", choices)
    assert any("has no clips of id_02" in note for note in found.notes)


def test_each_id_alone_is_what_a_plant_has(statistics: Detector, site: Detector, dataset: Path, tmp_path: Path) -> None:
    data = tmp_path / "data" / "slider"
    shutil.copytree(dataset / "slider" / "train", data / "train")
    shutil.copytree(dataset / "slider" / "test", data / "test", ignore=shutil.ignore_patterns("*_id_02_*"))
    choices = Choices(refits=tmp_path / "refits", each_id_alone=True, resamples=FEW)
    document = evaluate([statistics], data.parent, choices=choices)["machines"]["slider"]
    name = "statistics, each id alone"
    assert {("statistics", name)} <= {(d["scorer"], d["reference"]) for d in document["differences"]}
    assert name in document["false_alarms"] and name in document["recall"]
    clip = next(r for r in document["recordings"] if r["machine_id"] == "id_00")
    samples, _ = soundfile.read(dataset / "slider" / "test" / clip["file"], dtype="float32")
    assert clip["scores"][name] == site.score(log_mel(samples, LogMelParameters())).score


def test_test_clips_in_noise(statistics: Detector, dataset: Path, tmp_path: Path) -> None:
    disturbance = Disturbance(-10.0, 6.0, "white", seed=3)
    document = evaluate([statistics], dataset, choices=Choices(disturbance=disturbance, resamples=FEW))
    assert document["settings"]["disturbance"] == {"snr_db": -10.0, "gain_db": 6.0, "noise": "white", "seed": 3}
    clip = document["machines"]["slider"]["recordings"][0]
    path = dataset / "slider" / "test" / clip["file"].replace(".wav", ".flac")
    if not path.exists():
        path = path.with_suffix(".wav")
    samples, rate = soundfile.read(path, dtype="float32")
    heard = log_mel(disturbance.apply(samples, rate, path.name), LogMelParameters())
    assert clip["scores"]["statistics"] == statistics.score(heard, statistics.index_of(clip["machine_id"])).score


def test_a_data_set_in_noise(dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["disturb", "--data", str(dataset), "--machine", "slider", "--out", str(tmp_path / "loud")]
    assert cli.main(arguments) == 2
    assert "say how: --snr, --gain, or both" in capsys.readouterr().err
    assert cli.main([*arguments, "--gain", "6"]) == 0
    counts = {s: len(list((dataset / "slider" / s).iterdir())) for s in ("train", "test")}
    assert {s: len(list((tmp_path / "loud" / "slider" / s).iterdir())) for s in ("train", "test")} == counts
    assert cli.main([*arguments, "--gain", "6"]) == 2
    assert "holds something already; take a new folder" in capsys.readouterr().err


@pytest.fixture
def four_ids(tmp_path: Path) -> Path:
    """Short noise of four ids; what is anomalous is louder, but for id_06."""
    rng = np.random.default_rng(5)
    for machine_id in ("id_00", "id_02", "id_04", "id_06"):
        for label in ("normal", "anomaly"):
            for number in range(3):
                level = 0.01 if label == "normal" or machine_id == "id_06" else 0.03
                path = tmp_path / "four" / "slider" / "test" / f"{label}_{machine_id}_{number:07d}0.wav"
                path.parent.mkdir(parents=True, exist_ok=True)
                soundfile.write(path, rng.normal(size=16_000) * level, 16_000)
    return tmp_path / "four"


def test_means_over_four_ids_and_over_three(
    tiny: Callable[..., bytes],
    four_ids: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    schema: Callable[[str], Draft202012Validator],
) -> None:
    path = tmp_path / "loudness.onnx"
    ids = ("id_00", "id_02", "id_04", "id_06")
    path.write_bytes(tiny(ids=ids, document=lambda d: d.update(machine_type="slider")))
    assert cli.main(["evaluate", str(path), "--data", str(four_ids), "--out", str(tmp_path / "found.json")]) == 0
    document = json.loads((tmp_path / "found.json").read_text())
    schema("evaluate").validate(document)
    scorer = document["machines"]["slider"]["scorers"]["tiny"]
    hard = scorer["per_id"]["id_06"]["auc"]
    assert scorer["without_id_06"]["auc"] == {"value": 1.0, "interval": [1.0, 1.0]} and hard < 1
    assert scorer["auc"]["value"] == pytest.approx((3 + hard) / 4)
    text = capsys.readouterr().out
    assert "without id_06" in text and re.search(r"tiny .*  1\.000 / 1\.000  1\.000  1\.000  1\.000  0\.", text)


def test_the_page(statistics: Detector, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tmp_path / "data"
    shutil.copytree(dataset / "slider" / "test", data / "slider" / "test")
    evil = sorted((data / "slider" / "test").glob("anomaly*"))[0]
    evil.rename(evil.with_name(f"{evil.stem}<img src=x onerror=alert(1)>{evil.suffix}"))
    page = tmp_path / "page.html"
    arguments = ["evaluate", str(statistics.path), "--data", str(data), "--json"]
    assert cli.main([*arguments, "--snr", "20", "--report", str(page)]) == 0
    told = capsys.readouterr()
    document = json.loads(told.out)
    html = page.read_text()
    assert f"{page}: " in told.err and page.stat().st_size < 8e6
    assert "<img src=x" not in html and "&lt;img src=x onerror=alert(1)&gt;" in html
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", html), "it needs nothing from elsewhere"
    auc = document["machines"]["slider"]["scorers"]["statistics"]["auc"]
    assert f"{auc['value']:.3f}" in html and "pink noise at an SNR of 20 dB" in html
    assert html.count("data:audio/flac") == html.count("<figcaption><bdi>") >= 8
    for title in ("Most anomalous", "Least anomalous", "ROC curves by machine id"):
        assert title in html
    assert cli.main([*arguments, "--report", str(tmp_path)]) == 2
    assert "is a folder" in capsys.readouterr().err
