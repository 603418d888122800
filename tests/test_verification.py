"""Verification in a child process: what crashes, loops or eats memory there never reaches this process."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edge_asd import verification
from edge_asd.errors import DetectorError
from edge_asd.verification import TIME_LIMIT_SECONDS, load_detector

Tiny = Callable[..., bytes]

HOSTILE_FILES = 200


def refusal(path: Path, cache: Path) -> str:
    """The reason for which a file is refused; one line that names the file as given, not the child's copy."""
    with pytest.raises(DetectorError) as caught:
        load_detector(path, cache)
    text = str(caught.value)
    assert text.startswith(f"{path}: ") and "\n" not in text and "Traceback" not in text and len(text) < 500
    assert not list(cache.glob("*.verified")), "a refused file must not be remembered as verified"
    return caught.value.reason


def test_a_trained_detector_passes(statistics_file: Path, tmp_path: Path) -> None:
    assert load_detector(statistics_file, tmp_path).metadata.kind == "statistics"


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("text", lambda tiny: b"machine: slide-rail\n" * 50, "is not an ONNX model"),
        ("empty", lambda tiny: b"", "is empty"),
        ("half", lambda tiny: tiny()[: len(tiny()) // 2], "is not an ONNX model"),
        ("bytes", lambda tiny: tiny().replace(b"ReduceMean", b"Reduce\xed\xe9an"), "is not an ONNX model that can be"),
        ("plain", lambda tiny: tiny(metadata=""), "is ONNX, but not a detector"),
        ("foreign", lambda tiny: tiny(document=lambda d: d.update(format=7)), "has detector format 7"),
        ("failing", lambda tiny: tiny(document=lambda d: d["self_check"].update(score=3.0)), "fails its self-check"),
        (
            "unreadable",
            lambda tiny: tiny(document=lambda d: d["self_check"]["log_mel"].update(data="A")),
            "its self-check cannot be read",
        ),
    ],
)
def test_refusals_come_back_from_the_child(
    tiny: Tiny, tmp_path: Path, name: str, change: Callable[[Tiny], bytes], words: str
) -> None:
    path = tmp_path / f"{name}.onnx"
    path.write_bytes(change(tiny))
    assert words in refusal(path, tmp_path / "cache")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    assert refusal(tmp_path / "none.onnx", tmp_path) == "No such file or directory"


def test_a_detector_is_verified_once(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, moved, cache = tmp_path / "a.onnx", tmp_path / "b.onnx", tmp_path / "cache"
    path.write_bytes(tiny())
    moved.write_bytes(tiny())
    load_detector(path, cache)
    assert len(list(cache.iterdir())) == 1
    # Without an interpreter for the child nothing can be verified any more: only what is remembered loads.
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    load_detector(path, cache)
    load_detector(moved, cache)
    path.write_bytes(tiny(document=lambda d: d.update(made="another day")))
    with pytest.raises(FileNotFoundError, match="/nonexistent/python"):
        load_detector(path, cache)


def test_content_that_is_loaded_already_is_neither_verified_nor_loaded_again(tiny: Tiny, tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(tiny())
    first = load_detector(tmp_path / "a.onnx", tmp_path / "cache")
    shutil.copy(tmp_path / "a.onnx", tmp_path / "b.onnx")
    empty = tmp_path / "empty"
    assert load_detector(tmp_path / "b.onnx", empty, {first.sha256: first}) is first and not empty.exists()
    (tmp_path / "b.onnx").write_bytes(tiny(ids=("id_02",)))
    assert load_detector(tmp_path / "b.onnx", empty, {first.sha256: first}).metadata.ids == ("id_02",)


def test_another_runtime_verifies_anew(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, cache = tmp_path / "a.onnx", tmp_path / "cache"
    path.write_bytes(tiny())
    load_detector(path, cache)
    monkeypatch.setattr(sys, "version", "3.99")
    load_detector(path, cache)
    assert len(list(cache.iterdir())) == 2


def test_a_cache_that_cannot_be_written_is_no_reason_to_fail(tiny: Tiny, tmp_path: Path) -> None:
    path, file = tmp_path / "a.onnx", tmp_path / "file"
    path.write_bytes(tiny())
    file.touch()
    assert load_detector(path, file / "cache").metadata.kind == "tiny"


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert verification.default_cache() == tmp_path / "edge-asd" / "verified"
    monkeypatch.setenv("CACHE_DIRECTORY", "/var/cache/edge-asd:/other")
    assert verification.default_cache() == Path("/var/cache/edge-asd/verified")


def endless(model: onnx.ModelProto) -> None:
    """The score waits for a loop of 2**62 rounds."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["more"], ["still_more"], name="on"),
            helper.make_node("Sin", ["state"], ["next_state"], name="turn"),
        ],
        "body",
        [
            helper.make_tensor_value_info("round", TensorProto.INT64, []),
            helper.make_tensor_value_info("more", TensorProto.BOOL, []),
            helper.make_tensor_value_info("state", TensorProto.FLOAT, ["window"]),
        ],
        [
            helper.make_tensor_value_info("still_more", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next_state", TensorProto.FLOAT, ["window"]),
        ],
    )
    graph = model.graph
    graph.initializer.append(numpy_helper.from_array(np.array(2**62, np.int64), "rounds"))
    graph.initializer.append(numpy_helper.from_array(np.array(True), "go"))
    graph.node[0].output[0] = "mean"
    graph.node.append(helper.make_node("Loop", ["rounds", "go", "mean"], ["score"], name="loop", body=body))


def test_a_detector_that_loops_for_ever_is_refused_in_time(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verification, "TIME_LIMIT_SECONDS", 2)
    path = tmp_path / "endless.onnx"
    path.write_bytes(tiny(model=endless))
    began = time.monotonic()
    assert refusal(path, tmp_path / "cache") == "takes more than 2 s to load and check itself"
    assert time.monotonic() - began < 5


def of_size(*shape: int) -> Callable[[onnx.ModelProto], None]:
    """The score waits for the mean over a tensor of a shape, made out of nothing."""

    def change(model: onnx.ModelProto) -> None:
        graph = model.graph
        graph.initializer.append(numpy_helper.from_array(np.array([1, *shape], np.int64), "sizes"))
        graph.node[0].output[0] = "mean"
        graph.node.extend(
            [
                helper.make_node("Expand", ["mean", "sizes"], ["hog"], name="grow"),
                helper.make_node("Sin", ["hog"], ["hog_too"], name="touch"),
                helper.make_node("ReduceMean", ["hog_too"], ["one"], name="shrink", keepdims=0),
                helper.make_node("Add", ["mean", "one"], ["score"], name="use"),
            ]
        )

    return change


@pytest.mark.parametrize("shape", [(2**40,), (2**31, 3), (2**60, 2**60)])
def test_a_detector_that_takes_all_memory_is_refused(tiny: Tiny, tmp_path: Path, shape: tuple[int, ...]) -> None:
    path = tmp_path / "hog.onnx"
    path.write_bytes(tiny(model=of_size(*shape)))
    began = time.monotonic()
    reason = refusal(path, tmp_path / "cache")
    assert any(word in reason for word in ("cannot score", "needs more than 3 GB", "breaks the ONNX runtime")), reason
    assert time.monotonic() - began < TIME_LIMIT_SECONDS


def test_a_child_that_dies_is_a_refusal(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreter for the child is replaced by one that kills itself, as a crash of the runtime would."""
    dying = tmp_path / "python"
    dying.write_text("#!/bin/sh\nkill -SEGV $$\n")
    dying.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(dying))
    path = tmp_path / "a.onnx"
    path.write_bytes(tiny())
    assert refusal(path, tmp_path / "cache") == "breaks the ONNX runtime (exit status -11 while verifying)"


def test_the_runtime_writes_nothing_of_its_own_to_the_terminal(
    tiny: Tiny, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.onnx"
    path.write_bytes(tiny()[:-3000])
    refusal(path, tmp_path)
    assert capfd.readouterr() == ("", "")


def hostile(content: bytes, count: int) -> list[bytes]:
    """Truncated and bit-flipped copies; the same at every run."""
    rng = np.random.default_rng(62)
    made = []
    for number in range(count):
        damaged = bytearray(content)
        if number % 4 == 0:
            del damaged[int(rng.integers(1, len(content))) :]
        else:
            # Anywhere, or within the first part of the file, where the graph and not the weights are.
            reach = len(content) if number % 4 == 1 else 12_000
            for place in rng.integers(0, reach, 2 ** int(rng.integers(0, 7))):
                damaged[place] ^= 1 << int(rng.integers(0, 8))
        made.append(bytes(damaged))
    return made


ONE_CHILD_EACH = """
import json, os, resource, sys
from pathlib import Path
import edge_asd.verification as verification

for path in sys.argv[1:]:
    came, went = os.pipe()
    child = os.fork()
    if not child:
        os.dup2(went, 1)
        verification.TIME_LIMIT_SECONDS = 10
        verification._main(Path(path), Path(path))
        os._exit(0)
    os.close(went)
    said = os.fdopen(came).read()
    _, status, used = os.wait4(child, 0)
    print(json.dumps([path, os.waitstatus_to_exitcode(status), said, used.ru_utime + used.ru_stime, used.ru_maxrss]))
    sys.stdout.flush()
"""
"""What the child does, each time in a fork of a process that has imported all: 200 interpreters would take a minute."""


def test_damaged_files_are_refused_or_load(statistics_file: Path, tmp_path: Path) -> None:
    """Whatever the damage: an answer of the child within time and memory, or a death that counts as a refusal."""
    paths = [tmp_path / f"{number:03d}.onnx" for number in range(HOSTILE_FILES)]
    for path, content in zip(paths, hostile(statistics_file.read_bytes(), HOSTILE_FILES), strict=True):
        path.write_bytes(content)
    done = subprocess.run(
        [sys.executable, "-c", ONE_CHILD_EACH, *map(str, paths)],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    verdicts = [json.loads(line) for line in done.stdout.splitlines()]
    assert [v[0] for v in verdicts] == [str(p) for p in paths]
    passed, refused, died = [], [], []
    for path, status, said, seconds, kilobytes in verdicts:
        assert seconds <= 12 and kilobytes < 3 * 2**20
        if status == 0:
            reason = json.loads(said)["refused"]
            assert "\n" not in reason and len(reason) < 500
            (refused if reason else passed).append(path)
        else:
            died.append(path)
    # The damage must be such that both ways are taken; a file that passed in the child loads here.
    assert len(refused) > HOSTILE_FILES // 2 and len(passed) > 5, (len(refused), len(passed), len(died))
    for path in map(Path, [*passed[:4], *died[:4], *refused[:4]]):
        try:
            load_detector(path, tmp_path / "cache")
        except DetectorError as error:
            assert str(path) not in passed
            assert "\n" not in str(error) and str(error).startswith(f"{path}: ")
        else:
            assert str(path) in passed


def test_limits_are_set_in_the_child(tmp_path: Path, tiny: Tiny) -> None:
    """Seen from inside: the limits on time, memory and core dumps of a child that checks a file."""
    path = tmp_path / "a.onnx"
    path.write_bytes(tiny())
    code = (
        "import resource, sys; from pathlib import Path; from edge_asd.verification import _main;"
        f"_main(Path({str(path)!r}), Path('x')); print();"
        "print([resource.getrlimit(r) for r in (resource.RLIMIT_AS, resource.RLIMIT_CPU, resource.RLIMIT_CORE)])"
    )
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    # Standard output is for the verdict alone: what is printed after `_main` has begun goes to standard error.
    assert json.loads(child.stdout) == {"refused": ""}
    assert child.stderr.strip() == str([(verification.MEMORY_LIMIT_BYTES,) * 2, (TIME_LIMIT_SECONDS,) * 2, (0, 0)])


def test_nothing_is_imported_from_the_current_folder(
    statistics_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "numpy.py").write_text("raise SystemExit(3)")
    monkeypatch.chdir(tmp_path)
    load_detector(statistics_file, tmp_path / "cache")
