"""The real daemon with more to score than time: windows are skipped fairly and told, no sample is lost."""

from __future__ import annotations

import io
import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import soundfile
from onnx import TensorProto, helper, numpy_helper
from prometheus_client import CollectorRegistry

from edge_asd.config_file import load_config
from edge_asd.daemon import Daemon
from edge_asd.demo.clips import simulate
from edge_asd.publish.log import Log

RATE = 16_000
MACHINES = 4
SECONDS = 22
STEPS = 1500


def slow(tiny: Callable[..., bytes], steps: int) -> bytes:
    """The tiny detector, with a search that does no more than take its time, in so many steps by default."""

    def model(made: onnx.ModelProto) -> None:
        graph = made.graph
        graph.initializer.extend(
            [
                numpy_helper.from_array(np.array(steps, np.int64), "search_steps"),
                numpy_helper.from_array(np.array(True), "go_on"),
                numpy_helper.from_array(np.array([0, 2], np.int64), "of_window"),
                numpy_helper.from_array(np.full((313, 313), 0.01, np.float32), "weights"),
            ]
        )
        graph.input.append(helper.make_tensor_value_info("search_steps", TensorProto.INT64, []))
        body = helper.make_graph(
            [
                helper.make_node("MatMul", ["z", "weights"], ["moved"]),
                helper.make_node("Tanh", ["moved"], ["next"]),
                helper.make_node("Identity", ["on"], ["still_on"]),
            ],
            "step",
            [
                helper.make_tensor_value_info("i", TensorProto.INT64, []),
                helper.make_tensor_value_info("on", TensorProto.BOOL, []),
                helper.make_tensor_value_info("z", TensorProto.FLOAT, None),
            ],
            [
                helper.make_tensor_value_info("still_on", TensorProto.BOOL, []),
                helper.make_tensor_value_info("next", TensorProto.FLOAT, None),
            ],
        )
        mean = graph.node[0]
        mean.output[0] = "mean_db"
        graph.initializer.append(numpy_helper.from_array(np.float32(0), "nothing"))
        graph.node.extend(
            [
                helper.make_node("Loop", ["search_steps", "go_on", "log_mel"], ["found"], body=body),
                helper.make_node("ReduceMean", ["found", "axes"], ["found_mean"], keepdims=0),
                helper.make_node("Mul", ["found_mean", "nothing"], ["no_score"]),
                helper.make_node("Add", ["mean_db", "no_score"], ["score"]),
            ]
        )
        del graph.initializer[[i.name for i in graph.initializer].index("of_window")]

    return tiny(model=model, document=lambda loose: loose["self_check"].update(search_steps=1))


def sample(registry: CollectorRegistry, name: str, **labels: str) -> float:
    value = registry.get_sample_value(f"edge_asd_{name}", labels)
    assert value is not None
    return value


def test_more_work_than_time(tiny: Callable[..., bytes], tmp_path: Path) -> None:
    (tmp_path / "slow.onnx").write_bytes(slow(tiny, STEPS))
    soundfile.write(tmp_path / "rail.wav", simulate("id_00", 60, seed=3), RATE, subtype="PCM_16")
    machine = "recordings: rail.wav, detectors: [slow.onnx], hop_seconds: 1, alarm: {threshold: 11}"
    config = tmp_path / "edge.yaml"
    config.write_text(
        "site: plant\nnode: hall\nscoring: {cores: 1}\nmachines:\n"
        + "".join(f"  - {{name: m{n}, {machine}}}\n" for n in range(MACHINES))
    )
    stream = io.StringIO()
    daemon = Daemon(load_config(config), instance="edge", state=tmp_path / "state", log=Log(stream))
    registry = daemon._metrics.registry
    names = [f"m{n}" for n in range(MACHINES)]
    thread = threading.Thread(target=daemon.run)
    began = time.monotonic()
    thread.start()
    try:
        time.sleep(SECONDS)
        # Each machine has to have had three turns before the budget is judged, and late windows are told in turns too:
        # more time where others have the cores.
        while time.monotonic() - began < 2 * SECONDS and (
            daemon._budget.state == "ok"
            or min(sample(registry, "windows_total", machine=m, result="late") for m in names) < 3
        ):
            time.sleep(0.1)
        passed = time.monotonic() - began
        frames = [sample(registry, "audio_frames_total", machine=m) for m in names]
        lost = [sample(registry, "audio_lost_frames_total", machine=m) for m in names]
        late = [sample(registry, "windows_total", machine=m, result="late") for m in names]
        scored = [sample(registry, "windows_total", machine=m, result="scored") for m in names]
        ratio = sample(registry, "scoring_budget_ratio")
        scorers = [t for t in threading.enumerate() if t.name.startswith("scorer-")]
    finally:
        daemon.stop()
        thread.join(20)
    assert len(scorers) == 1, "one core was allowed"
    assert lost == [0] * MACHINES and min(frames) >= (passed - 3) * RATE, "the sound must not wait for the scoring"
    assert min(late) >= 3, f"this is no overload: {late}, ratio {ratio}"
    # What is late is told when the machine's turn comes, so a round may be missing; turns themselves are equal.
    assert max(scored) - min(scored) <= 1, scored
    assert ratio > 1
    lines: list[dict[str, Any]] = [json.loads(line) for line in stream.getvalue().splitlines()]
    told = [line for line in lines if line["event"] == "budget"]
    assert [line["state"] for line in told] == ["exceeded"] and told[0]["cores"] == 1 and told[0]["ratio"] > 1
    for name in names:
        own = [line["start_seconds"] for line in lines if line["event"] == "window_late" and line["machine"] == name]
        assert own == sorted(own)
