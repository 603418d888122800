"""The daemon in this process: what it does when a detector fails while it listens."""

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
from onnx import helper, numpy_helper

from edge_asd.config_file import load_config
from edge_asd.daemon import Daemon
from edge_asd.demo.clips import simulate
from edge_asd.publish.log import Log

RATE = 16_000


def fails_on_whispers(tiny: Callable[..., bytes]) -> bytes:
    """A detector that gives sqrt(mean + 90): NaN for all that is quieter than -90 dB."""

    def model(made: onnx.ModelProto) -> None:
        made.graph.node[0].output[0] = "mean_db"
        made.graph.initializer.append(numpy_helper.from_array(np.float32(90), "ninety"))
        made.graph.node.append(helper.make_node("Add", ["mean_db", "ninety"], ["above"]))
        made.graph.node.append(helper.make_node("Sqrt", ["above"], ["score"]))

    def document(loose: dict[str, Any]) -> None:
        loose["self_check"]["score"] = float(np.sqrt(loose["self_check"]["score"] + 90))

    return tiny(model=model, document=document)


def test_a_detector_that_fails_is_told_and_is_not_healthy(tiny: Callable[..., bytes], tmp_path: Path) -> None:
    (tmp_path / "odd.onnx").write_bytes(fails_on_whispers(tiny))
    (tmp_path / "good.onnx").write_bytes(tiny())
    whisper = 1e-7 * np.random.default_rng(4).standard_normal(20 * RATE)
    soundfile.write(tmp_path / "whisper.wav", whisper, RATE, subtype="FLOAT")
    soundfile.write(tmp_path / "rail.wav", simulate("id_00", 20, seed=3), RATE, subtype="PCM_16")
    alarm = "hop_seconds: 1, alarm: {threshold: 11}"
    config = tmp_path / "edge.yaml"
    config.write_text(
        "site: plant\nnode: hall\nmachines:\n"
        f"  - {{name: deaf, recordings: whisper.wav, detectors: [odd.onnx], {alarm}}}\n"
        f"  - {{name: rail, recordings: rail.wav, detectors: [good.onnx], {alarm}}}\n"
    )
    stream = io.StringIO()
    daemon = Daemon(load_config(config), instance="edge", state=tmp_path / "state", log=Log(stream))
    thread = threading.Thread(target=daemon.run)
    thread.start()
    try:
        time.sleep(11)
        assert daemon.complaint() is None, "one window failed: not yet a reason"
        end = time.monotonic() + 8
        while daemon.complaint() is None and time.monotonic() < end:
            time.sleep(0.1)
        assert (daemon.complaint() or "").startswith("deaf: no window was scored for ")
    finally:
        daemon.stop()
        thread.join(10)
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    failed = [line for line in lines if line["event"] == "scoring_failed"]
    assert len(failed) >= 3 and {line["machine"] for line in failed} == {"deaf"}
    assert "odd.onnx: gave a score of nan" in failed[0]["error"]
    assert any(line["event"] == "state" and line["machine"] == "rail" for line in lines), "the other machine goes on"
