"""Evaluation with detectors made by hand, whose scores are known: what is compared, counted, left out and printed."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import soundfile
from edge_asd_train import cli
from edge_asd_train.corpus import CorpusError, Windows
from edge_asd_train.evaluate import comparisons, evaluate
from edge_asd_train.machine_evaluation import Choices, evaluate_machine
from edge_asd_train.scorers import Member, Variant, mean_rarity, members_of, score_windows, smallest_p
from onnx import TensorProto, helper, numpy_helper

from edge_asd.calibration import Calibration, combined_rarity
from edge_asd.detector import Detector

Make = Callable[..., Detector]
IDS = ("id_00", "id_02")


@pytest.fixture(scope="session")
def loud(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noise of two machines and two ids; what is anomalous is 6 dB louder, with 3 dB of chance: not quite separable."""
    folder = tmp_path_factory.mktemp("loud") / "data"
    rng = np.random.default_rng(0)
    for machine in ("fan", "pump"):
        for machine_id in IDS:
            for split, label, clips in (("train", "normal", 4), ("test", "normal", 8), ("test", "anomaly", 6)):
                for number in range(clips):
                    level = rng.normal(-40 + 6 * (label == "anomaly"), 3)
                    path = folder / machine / split / f"{label}_{machine_id}_{number:07d}0.flac"
                    path.parent.mkdir(parents=True, exist_ok=True)
                    soundfile.write(path, rng.normal(size=160_000) * 10 ** (level / 20), 16_000)
    return folder


def searching(model: onnx.ModelProto) -> None:
    """Adds inputs and a report score: the order of scores is turned around by 0 search steps, and by each ablation.

    score = mean * (search_steps ? 1 : -1) * (ablation ? -1 : 1), report_score = -mean.
    """
    initialisers = {"search_steps": np.array(10), "ablation": np.array(0), "zero": np.array(0)}
    initialisers |= {"one": np.array(1, np.float32), "minus": np.array(-1, np.float32)}
    for name, value in initialisers.items():
        model.graph.initializer.append(numpy_helper.from_array(value, name))
    for name in ("search_steps", "ablation"):
        model.graph.input.append(helper.make_tensor_value_info(name, TensorProto.INT64, []))
    model.graph.node[0].output[0] = "mean_level"
    for operator, given, made in [
        ("Greater", ["search_steps", "zero"], "searches"),
        ("Where", ["searches", "one", "minus"], "way"),
        ("Greater", ["ablation", "zero"], "lacks"),
        ("Where", ["lacks", "minus", "one"], "other_way"),
        ("Mul", ["mean_level", "way"], "turned"),
        ("Mul", ["turned", "other_way"], "score"),
        ("Neg", ["mean_level"], "report_score"),
    ]:
        model.graph.node.append(helper.make_node(operator, given, [made], name=made))
    model.graph.output.append(helper.make_tensor_value_info("report_score", TensorProto.FLOAT, ["window"]))


@pytest.fixture
def make(tiny: Callable[..., bytes], tmp_path: Path) -> Make:
    """Writes a detector whose score is the mean of the log-Mel: 13 dB above the level, -27 for a normal clip."""

    def make(
        name: str, kind: str = "statistics", machine: str = "fan", ids: tuple[str, ...] = IDS, **more: Any
    ) -> Detector:
        calibration = Calibration.from_scores(np.linspace(-33, -21, 60).tolist(), level_dbfs=-40.0, source="made up")

        def document(loose: dict[str, Any]) -> None:
            loose.update(kind=kind, machine_type=machine, **more)
            loose["calibration"] = {i: json.loads(calibration.model_dump_json(by_alias=True)) for i in ids}

        with_parts = {"model": searching} if "ablations" in more else {}
        path = tmp_path / name
        path.write_bytes(tiny(ids=ids, document=document, **with_parts))
        return Detector(path, path.read_bytes())

    return make


def test_each_part_is_compared_with_the_whole(make: Make, loud: Path) -> None:
    parts = ["mean_image", "untrained_start"]
    detectors = [make("a.onnx"), make("b.onnx", "anogan", ablations=parts)]
    found = evaluate(detectors, loud, choices=Choices(resamples=200))
    machine = found["machines"]["fan"]
    assert found["all"] is None and machine["notes"] == []
    auc = {name: scorer["auc"]["value"] for name, scorer in machine["scorers"].items()}
    assert list(auc) == [
        "statistics",
        "anogan",
        "anogan, mean_image",
        "anogan, untrained_start",
        "anogan, search_steps 0",
        "anogan, search_steps 0, untrained_start",
        "anogan, report_score",
        "combination",
        "energy",
        "distance to the mean log-Mel",
    ]
    own = auc["statistics"]
    assert 0.8 < own < 1 and auc["anogan"] == auc["energy"] == auc["anogan, search_steps 0, untrained_start"] == own
    for turned in ("mean_image", "untrained_start", "search_steps 0", "report_score"):
        assert auc[f"anogan, {turned}"] == pytest.approx(1 - own)
    assert machine["scorers"]["anogan, report_score"]["level_correlation"] < -0.9
    assert machine["scorers"]["energy"]["level_correlation"] == pytest.approx(1)

    differences = {(d["scorer"], d["reference"]): d for d in machine["differences"]}
    assert differences["anogan", "statistics"]["auc"] == {"value": 0.0, "interval": [0.0, 0.0]}
    turned = differences["anogan", "anogan, mean_image"]["auc"]
    assert turned["value"] == pytest.approx(2 * own - 1) and turned["interval"][0] > 0
    assert ("combination", "statistics") in differences and len(differences) == 2 + 5 + 3 + 1


def test_numbers_are_those_of_the_bootstrap(make: Make, loud: Path) -> None:
    found = evaluate_machine([make("a.onnx")], loud, "fan", Choices())
    assert found.counts["id_02"] == {
        "normal": 8,
        "anomalous": 6,
        "normal_recordings": 8,
        "anomalous_recordings": 6,
    }
    again = evaluate_machine([make("a.onnx")], loud, "fan", Choices())
    assert np.array_equal(found.areas["statistics"], again.areas["statistics"])
    wider = evaluate_machine([make("a.onnx")], loud, "fan", Choices(recording_digits=8))
    assert wider.counts["id_02"]["normal_recordings"] == 1 and wider.notes[0].startswith("2 recordings of a label: ")
    assert np.ptp(wider.areas["statistics"], axis=1).tolist() == [0, 0]
    assert found.per_id["statistics"]["id_00"][0] + found.per_id["statistics"]["id_02"][0] == pytest.approx(
        2 * found.areas["statistics"][0, 0]
    )


def test_several_machines(make: Make, loud: Path) -> None:
    """The mean over machines is that of their resamples, and what one machine lacks has no mean."""
    fan, pump = make("a.onnx"), make("b.onnx", machine="pump")
    both = evaluate([fan, pump, make("c.onnx", "cae")], loud, choices=Choices(resamples=200, target=0.3))
    assert list(both["machines"]) == ["fan", "pump"] and both["all"]["machines"] == ["fan", "pump"]
    assert list(both["all"]["scorers"]) == ["statistics", "energy", "distance to the mean log-Mel"]
    assert {d["scorer"] for d in both["all"]["differences"]} == {"statistics"}
    one, two, mean = (part["scorers"]["statistics"]["auc"] for part in (*both["machines"].values(), both["all"]))
    assert mean["value"] == pytest.approx((one["value"] + two["value"]) / 2)
    widths = [np.ptp(part["interval"]) for part in (one, two, mean)]
    assert 0 < widths[2] < max(widths[:2])
    counts = [part["false_alarms"]["statistics"]["test"] for part in (*both["machines"].values(), both["all"])]
    assert [c["windows"] for c in counts] == [16, 16, 32]
    assert counts[2]["beyond"] == counts[0]["beyond"] + counts[1]["beyond"] > 0

    alone = evaluate([fan, pump], loud, ["pump"], Choices(resamples=200))
    assert alone["machines"]["pump"]["scorers"]["statistics"] == both["machines"]["pump"]["scorers"]["statistics"]
    assert list(evaluate([fan], loud, ["pump", "fan"], Choices(resamples=20))["machines"]) == ["pump", "fan"]
    with pytest.raises(CorpusError, match="no detector is for valve; they are for fan, pump"):
        evaluate([fan, pump], loud, ["valve"])


def test_files_of_one_id_each_are_one_member(make: Make, loud: Path) -> None:
    whole = make("all.onnx")
    single = [make(f"{i}.onnx", ids=(i,)) for i in IDS]
    assert [(m.name, len(m.detectors)) for m in members_of([whole, *single])] == [
        ("statistics", 1),
        ("statistics 2", 2),
    ]
    found = evaluate([whole, *single], loud, choices=Choices(resamples=100))["machines"]["fan"]
    assert found["detectors"]["statistics 2"]["files"] == ["id_00.onnx", "id_02.onnx"]
    assert found["scorers"]["statistics 2"]["auc"] == found["scorers"]["statistics"]["auc"]
    assert ("statistics 2", "statistics") in {(d["scorer"], d["reference"]) for d in found["differences"]}


def test_only_ids_that_all_know(make: Make, loud: Path) -> None:
    found = evaluate([make("a.onnx"), make("b.onnx", "cae", ids=("id_02",))], loud)["machines"]["fan"]
    assert list(found["clips"]) == ["id_02"]
    assert found["notes"][0] == f"{loud / 'fan' / 'test'}: only id_02, which all detectors know, of id_00, id_02"
    assert found["notes"][1].startswith("6 recordings of a label: the intervals of this machine are too narrow")
    site = evaluate([make("c.onnx", ids=("id_07",))], loud)["machines"]["fan"]
    assert list(site["clips"]) == list(IDS), "a site's own name for its machine serves all"
    with pytest.raises(CorpusError, match=r"a\.onnx: does not know id_00; it knows id_02, id_04"):
        evaluate([make("a.onnx", ids=("id_02", "id_04"))], loud)
    with pytest.raises(CorpusError, match="no machine id in common: statistics knows id_00; cae knows id_02"):
        evaluate([make("a.onnx", ids=("id_00",)), make("b.onnx", "cae", ids=("id_02",))], loud)


def test_the_combination_is_the_daemons(make: Make, loud: Path) -> None:
    rarities = np.array([[0.0, 1.0, 3.0], [0.2, 2.0, 1.0]])
    assert smallest_p(rarities).tolist() == [combined_rarity(c) for c in ([0.0, 0.2], [1.0, 2.0], [3.0, 1.0])]
    assert mean_rarity(rarities) == pytest.approx([0.1 - np.log10(np.e), 1.5 - np.log10(np.e), 2 - np.log10(np.e)])
    detectors = [make("a.onnx"), make("b.onnx", "anogan", ablations=[])]
    for rule in (smallest_p, mean_rarity):
        found = evaluate_machine(detectors, loud, "fan", Choices(target=0.5, resamples=20, combine=rule))
        assert found.test_alarms.keys() == {"statistics", "anogan", "combination"}
        # Both rarities are the same: the rule takes log10(2), or log10(e), off each.
        assert 0 < found.test_alarms["combination"].beyond < found.test_alarms["statistics"].beyond


def test_other_normal_sound_without_what_was_trained_on(make: Make, loud: Path, tmp_path: Path) -> None:
    trained = sorted((loud / "fan" / "train").iterdir())[:3]
    digests = [hashlib.sha256(p.read_bytes()).hexdigest()[:16] for p in trained]
    knows = make("a.onnx", data={"clips_sha256": digests})
    found = evaluate([knows], loud, choices=Choices(normal=loud, resamples=20))["machines"]["fan"]
    assert found["false_alarms"]["statistics"]["other"]["windows"] == 5
    assert found["notes"] == [f"3 of 8 normal clips of {loud} were trained on and are left out"]
    found = evaluate([make("b.onnx")], loud, choices=Choices(normal=loud, resamples=20))["machines"]["fan"]
    assert found["false_alarms"]["statistics"]["other"]["windows"] == 8
    assert "b.onnx: no list of the clips it was trained on" in found["notes"][0]

    # A test clip that was trained on proves nothing either.
    leaked = tmp_path / "leaked"
    shutil.copytree(loud / "fan" / "test", leaked / "fan" / "test")
    shutil.copy(trained[0], leaked / "fan" / "test" / "normal_id_00_00009990.flac")
    found = evaluate([knows], leaked, choices=Choices(resamples=20))["machines"]["fan"]
    assert found["clips"]["id_00"]["normal"] == 8
    assert found["notes"] == [f"1 of 29 test clips of {leaked} were trained on and are left out"]
    with pytest.raises(CorpusError, match="the detectors were trained on every one of them"):
        all_of = [hashlib.sha256(p.read_bytes()).hexdigest()[:16] for p in (loud / "fan" / "train").iterdir()]
        evaluate([make("c.onnx", data={"clips_sha256": all_of})], loud, choices=Choices(normal=loud))


def test_every_variant_scores_every_window_once(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    detector = make("b.onnx", "anogan", ablations=["untrained_start"])
    member = Member("anogan", (detector,))
    assert member.variants == [
        Variant(""),
        Variant("untrained_start", ablation="untrained_start"),
        Variant("search_steps 0", search_steps=0),
        Variant("search_steps 0, untrained_start", 0, "untrained_start"),
    ]
    asked: list[tuple[int, int | None, str | None]] = []
    plain = Detector.score

    def score(self: Detector, log_mel: Any, index: int, steps: int | None, *, ablation: str | None) -> Any:
        asked.append((round(float(log_mel[0, 0])), steps, ablation))
        return plain(self, log_mel, index, steps, ablation=ablation)

    monkeypatch.setattr(Detector, "score", score)
    windows = Windows(
        np.arange(3, dtype=np.float32)[:, None, None] * np.ones((1, 128, 313), np.float32), *[np.zeros(3)] * 3
    )
    found = score_windows([member], windows, [IDS[0]] * 3, title="three")["anogan"]
    assert len(asked) == len(set(asked)) == 3 * 4
    assert found.scores["search_steps 0"] == pytest.approx([0, -1, -2])
    assert found.scores["report_score"] == pytest.approx([0, -1, -2])


def test_comparisons() -> None:
    names = ["cae", "cae, mean_image", "cae 2", "cae 2, mean_image", "statistics", "combination", "energy"]
    areas = {name: np.full((2, 3), number / 10) for number, name in enumerate(names)}
    assert comparisons([("cae", "cae"), ("cae 2", "cae"), ("statistics", "statistics")], areas) == [
        ("cae", "cae, mean_image"),
        ("cae", "statistics"),
        ("cae", "energy"),
        ("cae 2", "cae 2, mean_image"),
        ("cae 2", "cae"),
        ("cae 2", "statistics"),
        ("cae 2", "energy"),
        ("statistics", "energy"),
        ("combination", "statistics"),
    ]


def test_the_tables(make: Make, loud: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [make("a.onnx"), make("b.onnx", "anogan", ablations=["mean_image"]), make("c.onnx", machine="pump")]
    out = tmp_path / "new" / "found.json"
    arguments = ["evaluate", *(str(d.path) for d in files), "--data", str(loud)]
    assert cli.main([*arguments, "--out", str(out), "--normal", str(loud)]) == 0
    text = capsys.readouterr().out
    document = json.loads(out.read_text())
    lines = text.splitlines()
    assert "fan: test clips of id_00, id_02: 16 normal (of 16 recordings) and 12 anomalous (of 12 recordings)" in lines
    assert "  anogan is b.onnx" in lines and "all 2 machines: means over fan, pump" in lines
    part = document["machines"]["fan"]["scorers"]["anogan, mean_image"]
    low, high = part["auc"]["interval"]
    row = next(line for line in lines if line.startswith("    mean_image "))
    assert f" {part['auc']['value']:.3f} {low:.3f}-{high:.3f} " in row
    assert row.endswith("".join(f"  {part['per_id'][i]['auc']:.3f}" for i in IDS))
    row = next(line for line in lines if line.startswith("  anogan - mean_image "))
    assert "* +" in row, "an interval that excludes 0 is marked"
    row = next(line for line in lines if line.startswith("  anogan - statistics "))
    assert "+0.000  +0.000 to +0.000" in row and "*" not in row
    count = document["all"]["false_alarms"]["statistics"]
    ends = [f"{100 * end:.1f}" for end in count["other"]["interval"]]
    assert f"other normal sound {count['other']['beyond']} of 16, " in text and f"({ends[0]} to {ends[1]} %)" in text
    assert max(map(len, lines)) <= 160 and all(line == line.rstrip() for line in lines)

    assert cli.main([*arguments, "--json", "--normal", str(loud)]) == 0
    assert json.loads(capsys.readouterr().out) == document


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--target", "0"], "--target 0: must be a share between 0 and 1"),
        (["--target", "1"], "--target 1: must be"),
        (["--target", "nan"], "--target nan: must be"),
        (["--recording-digits", "9"], "--recording-digits 9: must be from 0 to 8"),
        (["--out", "."], "--out .: is a folder"),
    ],
)
def test_options_that_cannot_be(
    make: Make, loud: Path, options: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["evaluate", str(make("a.onnx").path), "--data", str(loud), *options]) == 2
    assert words in capsys.readouterr().err


def test_one_log_mel_for_all(make: Make, loud: Path) -> None:
    other = make("b.onnx", "cae", log_mel={**make("a.onnx").metadata.log_mel, "fmax": 7000.0})
    with pytest.raises(CorpusError, match=r"b\.onnx: wants another log-Mel than .*a\.onnx"):
        evaluate([make("a.onnx"), other], loud)
