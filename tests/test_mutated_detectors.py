"""Whatever has become of a detector file: it is refused, or it loads, hears and can be calibrated; no daemon is lost.

`tests/test_verification.py` damages bytes. Here the metadata are hostile too: JSON that is read, with values that
nobody meant. What passes the child must do in the daemon all that a detector does there.
"""

from __future__ import annotations

import base64
import json
import os
import random
import signal
import subprocess
import sys
import zlib
from collections.abc import Callable
from datetime import datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any

import pytest
from mutations import ODD_VALUES, mutated_bytes, mutated_document

from edge_asd.metadata import KEY

MANY = int(os.environ.get("EDGE_ASD_MUTATED_DETECTORS", "1000"))
"""In `make test-system`."""
MOST_SECONDS = 5.0
"""Of the processor, for one file."""
MADE = "2026-01-01T00:00:00Z"
"""When the calibration was, in every file: with the day's own time a mutation was another one each time, and how many
of fifty pass was chance."""
DEMO = Path(__file__).parents[1] / "edge_asd" / "demo"
HOSTILE: list[Any] = [
    *ODD_VALUES,
    [2**40, 128, 313],
    [1, 2**31, 2**31],
    [1, 128, 314],
    base64.b64encode(zlib.compress(bytes(200_000_000))).decode(),
    "A" * 100_000,
    [0.0] * 5000,
    [1e308, -1e308] * 30,
    [5] * 200_000,
    {str(n): n for n in range(2000)},
    16_000,
    48_000_000,
    1024.0,
    "id_00\n",
    -1e9,
    60.0,
]
"""What metadata hold, gone wrong."""

ONE_CHILD_EACH = """
import json, os, signal, sys, traceback
from pathlib import Path
import numpy as np
import edge_asd.verification as verification
from edge_asd.config_file import load_config
from edge_asd.errors import EdgeAsdError
from edge_asd.machine import load_machines
from edge_asd.publish.log import Log

def as_the_daemon(path):
    machines = load_machines(load_config(path.with_suffix(".yaml")), "hall", Log(open(os.devnull, "w")), None)
    pipeline = machines[0].pipeline
    samples = pipeline.detectors[0].detector.metadata.window_samples
    sound = 0.01 * np.random.default_rng(1).standard_normal(samples)
    windows = list(pipeline.cutter().push(sound.astype(np.float32)))
    assert windows, "no window in as much sound as a window has"
    for window in windows:
        machines[0].read(window)
        pipeline.explain(window)

def answer_of(work):
    # A limit on memory and time, as the child that verifies has, so that a hang or a bomb is seen as one.
    came, went = os.pipe()
    child = os.fork()
    if not child:
        os.dup2(went, 1)
        signal.alarm(60)  # what hangs without work dies of it
        try:
            work()
        except EdgeAsdError as error:
            os.write(1, json.dumps({"refused": str(error)}).encode())
        except BaseException:
            os.write(1, json.dumps({"traceback": traceback.format_exc()[-3000:]}).encode())
        os._exit(0)
    os.close(went)
    said = os.fdopen(came, errors="replace").read()
    _, status, used = os.wait4(child, 0)
    return os.waitstatus_to_exitcode(status), said, used.ru_utime + used.ru_stime

verification.verify = lambda *_: None  # what the daemon does after it
import edge_asd.machine
for path in map(Path, sys.argv[1:]):
    verified = answer_of(lambda: verification._main(path, path))
    heard = None
    if verified[0] == 0 and json.loads(verified[1]).get("refused") == "":
        heard = answer_of(lambda: as_the_daemon(path))
    print(json.dumps([path.name, verified, heard]), flush=True)
"""
"""The child's work, and the daemon's with what passed, each in a fork: an interpreter for each would take minutes."""


def mutation(seed: int, tiny: Callable[..., bytes]) -> bytes:
    """One of them; its number is all that is needed to see it again."""
    rng = random.Random(seed)

    def hostile(document: dict[str, Any]) -> None:
        dated(document)
        changed = mutated_document(document, rng, HOSTILE)
        document.clear()
        document.update(changed)

    if seed % 5 == 0:
        whole = (DEMO / "slide-rail.cae.onnx").read_bytes() if seed % 25 == 0 else tiny(document=dated)
        return mutated_bytes(whole, rng)
    if seed % 5 == 1:
        text = json.dumps(_document(tiny(document=dated)))
        return tiny(metadata=mutated_bytes(text.encode(), rng).decode("utf-8", "replace"))
    return tiny(document=hostile)


class Tomorrow(datetime):
    @classmethod
    def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
        return datetime.now(tz) + timedelta(days=1)


def dated(document: dict[str, Any]) -> None:
    document["calibration"]["id_00"]["made"] = MADE


def _document(content: bytes) -> dict[str, Any]:
    import onnx

    model = onnx.load_model_from_string(content)
    found: dict[str, Any] = json.loads(next(p.value for p in model.metadata_props if p.key == KEY))
    return found


def survive(folder: Path, seeds: range, tiny: Callable[..., bytes]) -> tuple[int, int]:
    """How many pass and how many are refused; fails the test for anything else."""
    paths = []
    for seed in seeds:
        path = folder / f"{seed}.onnx"
        path.write_bytes(mutation(seed, tiny))
        path.with_suffix(".yaml").write_text(
            f"site: a\nnode: b\nmachines: [{{name: m, recordings: r, detectors: [{{file: {seed}.onnx, id: id_00}}]}}]\n"
        )
        paths.append(str(path))
    done = subprocess.run(
        [sys.executable, "-c", ONE_CHILD_EACH, *paths], capture_output=True, text=True, timeout=1800, check=True
    )
    passed = refused = 0
    for line in done.stdout.splitlines():
        name, (status, said, seconds), heard = json.loads(line)
        assert seconds < MOST_SECONDS and status != -signal.SIGALRM, f"{name}: {seconds} s"
        # A death of the child is a refusal; see test_a_child_that_dies_is_a_refusal.
        verdict = json.loads(said) if status == 0 else {"refused": f"status {status}"}
        reason = verdict["refused"]
        assert "\n" not in reason and len(reason) < 600, f"{name}: {reason}"
        assert not reason.startswith("cannot be checked"), f"{name}: {reason}"
        refused += bool(reason)
        if heard is not None:
            passed += 1
            assert heard[0] == 0 and "traceback" not in heard[1], f"{name}: {heard}"
            assert heard[2] < MOST_SECONDS, f"{name}: {heard[2]} s in the daemon"
    assert passed + refused == len(paths)
    return passed, refused


def test_fifty_hostile_detectors(tmp_path: Path, tiny: Callable[..., bytes]) -> None:
    passed, refused = survive(tmp_path, range(50), tiny)
    assert (passed, refused) == (3, 47), "other metadata are other mutations: do still some pass, and most not?"


def test_a_mutation_is_the_same_one_tomorrow(tiny: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    undated, today = tiny(), [mutation(seed, tiny) for seed in range(1, 25)]
    monkeypatch.setattr("edge_asd.calibration.datetime", Tomorrow)
    assert [mutation(seed, tiny) for seed in range(1, 25)] == today
    assert tiny() != undated, "the clock is not read where it is thought to be"


@pytest.mark.system
def test_a_thousand_hostile_detectors(tmp_path: Path, tiny: Callable[..., bytes]) -> None:
    passed, refused = survive(tmp_path, range(1000, 1000 + MANY), tiny)
    assert passed > 0.04 * MANY and refused > 0.9 * MANY, (passed, refused)
