"""The ONNX contract: what is refused, in which words, and that a score is of its window alone."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edge_asd.audio.recording import read_windows
from edge_asd.detector import MAX_BYTES, Detector, read_detector_file
from edge_asd.errors import EXIT_CONFIGURATION, DetectorError
from edge_asd.logmel import log_mel

Tiny = Callable[..., bytes]
PATH = Path("somewhere/slide-rail.onnx")
WINDOW = np.linspace(-70, -30, 128 * 313, dtype=np.float32).reshape(128, 313)


def refusal(content: bytes) -> str:
    """The reason for which a content is refused; it must be one line that names the file."""
    with pytest.raises(DetectorError) as caught:
        Detector(PATH, content)
    return checked(caught.value)


def checked(error: DetectorError) -> str:
    text = str(error)
    assert text.startswith(f"{error.path}: ") and "\n" not in text and len(text) < 500
    assert error.exit_status == EXIT_CONFIGURATION
    return error.reason


def test_the_tiny_detector_is_one(tiny: Tiny) -> None:
    detector = Detector(PATH, tiny())
    detector.check_itself()
    assert detector.score(WINDOW).score == pytest.approx(float(WINDOW.mean()), abs=1e-3)
    assert detector.score(WINDOW).report_score is None
    assert detector.score(WINDOW).anomaly_map.shape == WINDOW.shape


@pytest.mark.parametrize("content", [b"not onnx at all", b"\0" * 4096, b"RIFF\0\0\0\0WAVEfmt ", b"\x08"])
def test_what_is_not_onnx_is_refused(content: bytes) -> None:
    assert "ONNX" in refusal(content)


def test_plain_onnx_is_told_from_a_detector(tiny: Tiny) -> None:
    assert "is ONNX, but not a detector" in refusal(tiny(metadata=""))


def drop(key: str) -> Callable[[dict[str, Any]], Any]:
    return lambda document: document.pop(key)


def put(value: Any, *keys: str) -> Callable[[dict[str, Any]], Any]:
    """Sets a value deep in the document."""

    def change(document: dict[str, Any]) -> None:
        for key in keys[:-1]:
            document = document[key]
        document[keys[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (put(2, "format"), "has detector format 2; this version of edge-asd reads format 1"),
        (put(0, "format"), "format 0"),
        (put("1", "format"), "no format number"),
        (put(True, "format"), "no format number"),
        (drop("format"), "no format number"),
        (drop("kind"), "kind: Field required"),
        (drop("calibration"), "calibration"),
        (drop("self_check"), "self_check"),
        (put("x", "surprise"), "surprise"),
        (put([], "ids"), "ids"),
        (put(["id_00", "id_00"], "ids"), "an id twice"),
        (put(["id_01"], "ids"), "do not match: id_00, id_01"),
        (put(0.0, "window_seconds"), "window_seconds"),
        (put(1e-6, "window_seconds"), "window_seconds"),
        (put(20.0, "window_seconds"), "the self-check's input is not [window, 128, 626]"),
        (put(0, "log_mel", "hop_length"), "hop_length 0"),
        (put(10**9, "log_mel", "n_mels"), "n_mels"),
        (put(128.0, "log_mel", "n_mels"), "n_mels must be a whole number"),
        (put(True, "log_mel", "n_fft"), "n_fft"),
        (put("16000", "log_mel", "sample_rate"), "log-Mel parameters do not fit"),
        (put("htk", "log_mel", "mel_scale"), "mel_scale = 'htk'; only 'slaney' is made here"),
        (put(1, "log_mel", "colour"), "colour"),
        (put(float("nan"), "self_check", "score"), "self_check.score"),
        (put(-1.0, "self_check", "tolerance"), "self_check.tolerance"),
        (put([1.0] * 4, "calibration", "id_00", "scores"), "calibration.id_00.scores"),
        (put([40, 1], "calibration", "id_00", "stretches"), "stretches of 41 windows for 40 scores"),
        (put(float("inf"), "calibration", "id_00", "tail", "scale"), "calibration.id_00.tail.scale"),
    ],
)
def test_metadata_that_mean_nothing_are_refused(tiny: Tiny, change: Callable[[Any], Any], words: str) -> None:
    assert words in refusal(tiny(document=change))


@pytest.mark.parametrize("text", ["{", "[" * 100_000, "null", "[]", "1", '"edge_asd"', "\ud7ff", '{"format": 1}'])
def test_metadata_that_are_no_document_are_refused(tiny: Tiny, text: str) -> None:
    assert "metadata" in refusal(tiny(metadata=text))


def renamed(old: str, new: str) -> Callable[[onnx.ModelProto], None]:
    def change(model: onnx.ModelProto) -> None:
        for value in [*model.graph.input, *model.graph.output]:
            value.name = new if value.name == old else value.name
        for node in model.graph.node:
            node.input[:] = [new if name == old else name for name in node.input]
            node.output[:] = [new if name == old else name for name in node.output]

    return change


def without_output(name: str) -> Callable[[onnx.ModelProto], None]:
    def change(model: onnx.ModelProto) -> None:
        kept = [o for o in model.graph.output if o.name != name]
        del model.graph.output[:]
        model.graph.output.extend(kept)

    return change


def sized(value: str, *shape: int | str) -> Callable[[onnx.ModelProto], None]:
    """Declares another shape for the input or output of a name."""

    def change(model: onnx.ModelProto) -> None:
        if value == "log_mel":  # the map has the input's shape: declared with it, the model stays consistent
            without_output("anomaly_map")(model)
            model.graph.output.append(helper.make_tensor_value_info("anomaly_map", TensorProto.FLOAT, shape))
        for one in [*model.graph.input, *model.graph.output]:
            if one.name == value:
                one.CopyFrom(helper.make_tensor_value_info(value, TensorProto.FLOAT, shape))

    return change


def double_input(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.DOUBLE
    for output in model.graph.output:
        output.type.tensor_type.elem_type = TensorProto.DOUBLE


def double_score(model: onnx.ModelProto) -> None:
    model.graph.node[0].output[0] = "score_32"
    model.graph.node.append(helper.make_node("Cast", ["score_32"], ["score"], name="cast", to=TensorProto.DOUBLE))
    next(o for o in model.graph.output if o.name == "score").type.tensor_type.elem_type = TensorProto.DOUBLE


def another_input(model: onnx.ModelProto) -> None:
    model.graph.input.append(helper.make_tensor_value_info("gain", TensorProto.FLOAT, [1]))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (renamed("log_mel", "mel"), "must have the one input log_mel without a default, has mel"),
        (another_input, "has log_mel, gain"),
        (renamed("score", "loss"), "has no output score"),
        (without_output("score"), "has no output score"),
        (without_output("anomaly_map"), "has no output anomaly_map"),
        (double_input, "its log_mel is tensor(double)"),
        (double_score, "its score is tensor(double)"),
        (sized("log_mel", "window", 64, 313), "its log_mel is tensor(float) ['window', 64, 313]"),
        (sized("log_mel", "window", 128, 100), "instead of tensor(float) ['window', 128, 313]"),
        (sized("log_mel", 1, 128, 313), "its log_mel is tensor(float) [1, 128, 313]"),
    ],
)
def test_other_inputs_and_outputs_are_refused(tiny: Tiny, change: Callable[[Any], Any], words: str) -> None:
    assert words in refusal(tiny(model=change))


def test_several_ids_need_a_machine_id(tiny: Tiny) -> None:
    ids = ("id_00", "id_02")
    assert Detector(PATH, tiny(ids=ids)).optional_inputs == {"machine_id"}

    def without_default(model: onnx.ModelProto) -> None:
        kept = [i for i in model.graph.input if i.name == "log_mel"]
        del model.graph.input[:]
        model.graph.input.extend(kept)

    assert "no input machine_id with a default" in refusal(tiny(ids=ids, model=without_default))

    def as_float(model: onnx.ModelProto) -> None:
        model.graph.input[1].type.tensor_type.elem_type = TensorProto.FLOAT
        model.graph.initializer[1].CopyFrom(numpy_helper.from_array(np.zeros(1, np.float32), "machine_id"))

    assert "no input machine_id with a default" in refusal(tiny(ids=ids, model=as_float))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (put(-1.0, "self_check", "score"), "fails its self-check: -50"),
        (put("!!!", "self_check", "log_mel", "data"), "its self-check cannot be read"),
        (put("AAAA", "self_check", "log_mel", "data"), "its self-check cannot be read"),
        (put([1, 128, 313], "self_check", "log_mel", "shape"), None),
        (put([2, 128, 313], "self_check", "log_mel", "shape"), "does not fill its shape"),
        (put([10**9, 128, 313], "self_check", "log_mel", "shape"), "is too large"),
        (put(3, "self_check", "search_steps"), "does not search"),
    ],
)
def test_the_self_check(tiny: Tiny, change: Callable[[Any], Any], words: str | None) -> None:
    detector = Detector(PATH, tiny(document=change))
    if words is None:
        detector.check_itself()
        return
    with pytest.raises(DetectorError) as caught:
        detector.check_itself()
    assert words in checked(caught.value)


def test_a_score_that_is_no_number_is_refused(tiny: Tiny) -> None:
    def nan(model: onnx.ModelProto) -> None:
        model.graph.node[0].op_type = "ReduceLogSum"

    with pytest.raises(DetectorError, match="gave a score of nan"):
        Detector(PATH, tiny(model=nan)).score(WINDOW)


def test_a_map_of_another_size_than_declared_is_refused(tiny: Tiny) -> None:
    def turned(model: onnx.ModelProto) -> None:
        """A shape that depends on the input's values: no shape inference finds it."""
        del model.graph.node[1]
        zero, sizes = np.zeros(1, np.float32), np.array([1, 313, 128], np.int64)
        model.graph.initializer.append(numpy_helper.from_array(zero, "zero"))
        model.graph.initializer.append(numpy_helper.from_array(sizes, "sizes"))
        for kind, given, made, more in [
            ("Mul", ["score", "zero"], "nothing", {}),
            ("Cast", ["nothing"], "none", {"to": TensorProto.INT64}),
            ("Add", ["sizes", "none"], "turned", {}),
            ("Reshape", ["log_mel", "turned"], "anomaly_map", {}),
        ]:
            model.graph.node.append(helper.make_node(kind, given, [made], name=made, **more))
        without_output("anomaly_map")(model)
        model.graph.output.append(helper.make_tensor_value_info("anomaly_map", TensorProto.FLOAT, ["w", "m", "f"]))

    with pytest.raises(DetectorError, match=re.escape("gave shapes (1,) and (1, 313, 128) for one window")):
        Detector(PATH, tiny(model=turned)).score(WINDOW)


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    empty, huge = tmp_path / "empty.onnx", tmp_path / "huge.onnx"
    empty.touch()
    with huge.open("wb") as file:
        file.truncate(MAX_BYTES + 1)  # sparse: takes no disk
    for path, words in [
        (empty, "is empty"),
        (huge, "is larger than 256 MB"),
        (tmp_path / "missing.onnx", "No such file"),
        (tmp_path, "is not a file"),
    ]:
        with pytest.raises(DetectorError) as caught:
            read_detector_file(path)
        assert str(path) in str(caught.value) and words in checked(caught.value)


def test_ids(statistics: Detector, site: Detector) -> None:
    assert [statistics.index_of(i) for i in ("id_00", "id_02")] == [0, 1]
    assert site.index_of(None) == 0 and site.index_of("id_00") == 0
    for wrong, words in [(None, "serves several machines, and no id is given"), ("id_04", "does not know id_04")]:
        with pytest.raises(DetectorError) as caught:
            statistics.index_of(wrong)
        assert checked(caught.value) == f"{words}; it knows id_00, id_02"


def test_the_metadata_tell_the_story(statistics: Detector, site: Detector) -> None:
    told = json.loads(statistics.metadata.to_json())
    assert (told["kind"], told["machine_type"], told["ids"]) == ("statistics", "slider", ["id_00", "id_02"])
    assert told["data"]["clips"] == 48 and re.fullmatch("[0-9a-f]{64}", told["data"]["fingerprint"])
    assert {"torch", "onnxruntime", "numpy"} <= set(told["versions"])
    assert len(told["calibration"]["id_02"]["scores"]) == 24
    assert site.sha256 != statistics.sha256


def test_a_score_does_not_depend_on_other_windows(dataset: Path, statistics: Detector) -> None:
    """In another order, twice, after an other, by another loaded copy: the same to the bit."""
    files = sorted((dataset / "slider" / "test").glob("*.flac"))[::5]
    mels = [
        log_mel(window.samples, statistics.log_mel_parameters)
        for file in files
        for window in read_windows(file, sample_rate=16_000, window=160_000, hop=160_000)
    ]
    first = [statistics.score(mel, 1) for mel in mels]
    backwards = [statistics.score(mel, 1) for mel in reversed(mels)][::-1]
    again = Detector(statistics.path, statistics.path.read_bytes())
    alone = [again.score(mel, 1) for mel in mels]
    assert len(mels) == 5 and len({s.score for s in first}) == 5
    for one, two, three in zip(first, backwards, alone, strict=True):
        assert one.score == two.score == three.score
        assert np.array_equal(one.anomaly_map, two.anomaly_map) and np.array_equal(one.anomaly_map, three.anomaly_map)
    assert statistics.score(mels[0], 0).score != first[0].score, "the machine id must matter"


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.onnx")
    with pytest.raises(DetectorError, match="is not a file"):
        read_detector_file(tmp_path / "pipe.onnx")


@pytest.mark.parametrize("output", ["report_score", "anomaly_map"])
def test_nan_beside_the_score_is_refused(tiny: Tiny, output: str) -> None:
    """Else it would reach JSON, which has no NaN."""

    def add_nan(model: onnx.ModelProto) -> None:
        model.graph.initializer.append(numpy_helper.from_array(np.float32(np.nan), "nan"))
        if output == "anomaly_map":
            model.graph.node[1].CopyFrom(helper.make_node("Add", ["log_mel", "nan"], ["anomaly_map"]))
        else:
            model.graph.node.append(helper.make_node("Add", ["score", "nan"], ["report_score"]))
            model.graph.output.append(helper.make_tensor_value_info("report_score", TensorProto.FLOAT, ["window"]))

    with pytest.raises(DetectorError, match=r"NaN|of nan"):
        Detector(Path("nan.onnx"), tiny(model=add_nan)).check_itself()


def with_ablation(model: onnx.ModelProto, dtype: type = np.int64, default: bool = True) -> None:
    """The score is the mean plus a hundred times the input ``ablation``."""
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    model.graph.input.append(helper.make_tensor_value_info("ablation", kind, []))
    if default:
        model.graph.initializer.append(numpy_helper.from_array(np.array(0, dtype), "ablation"))
    model.graph.initializer.append(numpy_helper.from_array(np.float32(100), "hundred"))
    model.graph.node[0].output[0] = "plain"
    for operator, given, made, more in [
        ("Cast", ["ablation"], "number", {"to": TensorProto.FLOAT}),
        ("Mul", ["number", "hundred"], "added", {}),
        ("Add", ["plain", "added"], "score", {}),
    ]:
        model.graph.node.append(helper.make_node(operator, given, [made], name=made, **more))


def test_an_ablation_is_asked_for_by_its_name(tiny: Tiny) -> None:
    names = ["mean_image", "untrained_start"]
    detector = Detector(PATH, tiny(document=put(names, "ablations"), model=with_ablation))
    assert detector.metadata.ablations == ("mean_image", "untrained_start")
    assert detector.optional_inputs == {"ablation"}
    detector.check_itself()
    plain = detector.score(WINDOW).score
    assert plain == pytest.approx(float(WINDOW.mean()), abs=1e-3)
    found = [detector.score(WINDOW, ablation=name).score - plain for name in names]
    assert found == pytest.approx([100, 200], abs=1e-3)
    with pytest.raises(DetectorError) as caught:
        detector.score(WINDOW, ablation="no_network")
    assert checked(caught.value) == "has no ablation no_network; it has mean_image, untrained_start"


def test_a_detector_without_ablations_has_none(tiny: Tiny) -> None:
    for content in (tiny(), tiny(document=drop("ablations"))):  # files from before there were any
        detector = Detector(PATH, content)
        assert detector.metadata.ablations == ()
        with pytest.raises(DetectorError) as caught:
            detector.score(WINDOW, ablation="mean_image")
        assert checked(caught.value) == "has no ablation mean_image; it has none"


@pytest.mark.parametrize(
    ("names", "change", "words"),
    [
        (["mean_image"], lambda model: None, "names ablations (mean_image), but has no int64 input ablation with a"),
        (["mean_image"], lambda model: with_ablation(model, np.float32), "has no int64 input ablation with a default"),
        (["mean_image"], lambda model: with_ablation(model, default=False), "has log_mel, ablation"),
        (["a", "a"], with_ablation, "an ablation twice: a, a"),
        (["Mean image"], with_ablation, "ablations.0"),
        ([1], with_ablation, "ablations.0"),
        ("mean_image", with_ablation, "ablations"),
        ([f"a{n}" for n in range(17)], with_ablation, "ablations"),
    ],
)
def test_ablations_that_cannot_be_asked_for_are_refused(
    tiny: Tiny, names: Any, change: Callable[[Any], Any], words: str
) -> None:
    assert words in refusal(tiny(document=put(names, "ablations"), model=change))
