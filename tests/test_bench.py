"""That `make bench` runs, counts right and judges right; what it measures is not tested."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from bench.table import Row, Table
from bench.timing import Timings, interleaved

TESTS = Path(__file__).parent


def test_it_runs_and_writes_every_figure(tmp_path: Path) -> None:
    out = tmp_path / "bench.json"
    path = os.pathsep.join([str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-m", "bench", "--quick", "--strict", "--out", str(out)],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    document = json.loads(out.read_text())
    assert document["machine"]["cores"] and document["versions"]["onnxruntime"] and document["date"]
    rows = document["rows"]
    # A further machine may seem to take less than nothing, after a second.
    assert all(r["value"] >= 0 for r in rows if not re.search("less the report|further machine", r["what"]))
    found = {(row["what"], row["crops"]) for row in rows}
    for crops in (1, 5):
        for what in ("step, ONNX Runtime", "as fast as PyTorch eager, frozen", "as fast as plain autograd"):
            assert (what, crops) in found
        assert document_row(rows, "GFLOP/s of a step", crops)["net"] == "G12 D8 z64"
    for what in ("log-Mel as fast as librosa's", "window, cae", "daemon, start to ready", "resident, one machine"):
        assert (what, None) in found
        assert what in done.stdout
    warm, report = "loss, from the encoder, Adam 0.1", "loss, from random, Adam 0.001"
    losses = {name: [r["value"] for r in rows if r["what"] == name] for name in (warm, report)}
    assert losses[warm] == sorted(losses[warm], reverse=True)
    assert losses[warm][0] < losses[report][0]


def document_row(rows: list[dict[str, object]], what: str, crops: int) -> dict[str, object]:
    (row,) = (r for r in rows if (r["what"], r["crops"]) == (what, crops))
    return row


def test_a_limit_is_judged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        Row("slow", 5.01, "ms", at_most=5.0),
        Row("fast", 5.0, "ms", at_most=5.0),
        Row("too little", 2.4, "times", at_least=2.5),
        Row("enough", 2.5, "times", at_least=2.5),
        Row("just a figure", 1.0, "ms"),
    ]
    judged, quick = Table(), Table(judged=False)
    for row in rows:
        judged.add(row)
    assert [row.what for row in judged.missed] == ["slow", "too little"]
    assert "at most 5: NOT REACHED" in capsys.readouterr().out
    for row in rows:
        quick.add(row)
    assert quick.missed == []
    assert "at most" not in capsys.readouterr().out
    judged.write(tmp_path / "new" / "bench.json", seconds=1.0)
    written = json.loads((tmp_path / "new" / "bench.json").read_text())["rows"]
    assert [row["holds"] for row in written] == [False, True, False, True, None]


def test_a_ratio_is_of_the_same_round() -> None:
    # The second round met a neighbour: the ratio of the medians would be 4, that of any round is 2.
    processor = {"ours": [1.0, 5.0, 1.0, 1.0], "theirs": [2.0, 10.0, 2.0, 10.0]}
    timings = Timings(processor, processor | {"theirs": [2.0, 10.0, 2.0, 2.0]})
    assert timings.ratio("theirs", "ours") == 2.0
    assert timings.milliseconds("ours") == 1000.0


def test_works_take_turns() -> None:
    order: list[str] = []
    took = interleaved({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, 2)
    assert order == ["a", "b"] * 3  # the first turn does not count
    assert [len(took.wall["a"]), len(took.processor["b"])] == [2, 2]


def test_multiply_adds_of_the_default() -> None:
    from bench.search import step_multiply_adds  # late: torch takes seconds
    from edge_asd_train.anogan_networks import AnoGan, AnoGanSettings

    search = AnoGan(AnoGanSettings()).latent_search()
    # Inputs times a kernel of 16 cells for every output channel, then outputs times 16 for every input channel.
    generator = 16 * (64 * 96 + 16 * 96 * 48 + 64 * 48 * 24 + 256 * 24 * 12 + 1024 * 12 * 1)
    features = 16 * (1024 * 8 * 1 + 256 * 16 * 8 + 64 * 32 * 16)
    assert step_multiply_adds(search) == 2 * (generator + features)
