"""What several tests need: recordings, simulated and real; detectors, trained on them and made by hand; the schemas."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import soundfile
from jsonschema import Draft202012Validator
from onnx import TensorProto, helper, numpy_helper
from parts.reloading import Plant

from edge_asd.calibration import Calibration
from edge_asd.demo.clips import write_dataset
from edge_asd.detector import Detector
from edge_asd.logmel import LogMelParameters
from edge_asd.metadata import FORMAT, KEY, DetectorMetadata, PackedLogMel, SelfCheck
from edge_asd.verification import load_detector

WriteRecording = Callable[..., Path]
REPOSITORY = Path(__file__).parents[1]
IDS = ("id_00", "id_02")
SHAPE = (128, 313)
"""Mels and frames of a window of 10 s."""


@pytest.fixture
def write_recording(tmp_path: Path) -> WriteRecording:
    """Writes samples, shape ``[sample]`` or ``[sample, channel]``, below the test's folder; options as soundfile's."""

    def write(name: str, samples: Any, rate: int = 16_000, **options: Any) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, np.asarray(samples), rate, **options)
        return path

    return write


@pytest.fixture(scope="session")
def recordings_folder() -> Path:
    """Real recordings in the DCASE layout, which are not part of the project."""
    folder = os.environ.get("EDGE_ASD_RECORDINGS")
    if not folder:
        pytest.skip("EDGE_ASD_RECORDINGS names no folder of real recordings")
    if not Path(folder).is_dir():
        pytest.fail(f"EDGE_ASD_RECORDINGS={folder} is not a folder")
    return Path(folder)


@pytest.fixture(scope="session", autouse=True)
def cache_of_this_run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """No test reads or leaves verdicts in the user's cache, or alarms in the user's state folder."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.delenv("CACHE_DIRECTORY", raising=False)
        patch.setenv("XDG_CACHE_HOME", str(folder))
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield folder / "edge-asd" / "verified"


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Simulated slide rails in the DCASE layout: two ids, 24 training clips and 12 test clips of each, 10 s long."""
    folder = tmp_path_factory.mktemp("simulated") / "data"
    write_dataset(folder, seed=1, ids=IDS, train_clips=24, test_normal=6, test_per_fault=2)
    return folder


@pytest.fixture(scope="session")
def statistics_file(dataset: Path, cache_of_this_run: Path) -> Path:
    """A statistics detector of both ids."""
    return _train_statistics(dataset, dataset.parent / "both.onnx")


@pytest.fixture(scope="session")
def site_file(dataset: Path, cache_of_this_run: Path) -> Path:
    """A statistics detector of id_00 alone, as a machine on a site has it."""
    return _train_statistics(dataset, dataset.parent / "site.onnx", ("id_00",))


@pytest.fixture(scope="session")
def statistics(statistics_file: Path) -> Detector:
    """`statistics_file`, verified and loaded."""
    return load_detector(statistics_file)


@pytest.fixture(scope="session")
def site(site_file: Path) -> Detector:
    """`site_file`, verified and loaded."""
    return load_detector(site_file)


@pytest.fixture(scope="session")
def tiny() -> Callable[..., bytes]:
    """Makes the content of a detector whose score is the mean of the log-Mel; see `tiny_detector`."""
    return tiny_detector


@pytest.fixture(scope="session")
def schema() -> Callable[[str], Draft202012Validator]:
    """The validator of a published schema, by its name: alert, state, score, replay, calibration."""

    def validator(name: str) -> Draft202012Validator:
        document = json.loads((REPOSITORY / "deploy" / "schemas" / f"{name}.schema.json").read_text())
        Draft202012Validator.check_schema(document)
        return Draft202012Validator(document, format_checker=Draft202012Validator.FORMAT_CHECKER)

    return validator


def tiny_detector(
    *,
    ids: tuple[str, ...] = ("id_00",),
    document: Callable[[dict[str, Any]], Any] = lambda _: None,
    model: Callable[[onnx.ModelProto], Any] = lambda _: None,
    metadata: str | None = None,
) -> bytes:
    """A detector of a few kilobytes whose score is the mean of the log-Mel.

    Args:
        ids: that it serves.
        document: changes the metadata's JSON document.
        model: changes the graph.
        metadata: text to put in place of the whole metadata document; empty for none at all.
    """
    reference = np.linspace(-80.0, -20.0, 128 * 313, dtype=np.float32).reshape(1, *SHAPE)
    packed = PackedLogMel.pack(reference)
    made = DetectorMetadata(
        format=FORMAT,
        kind="tiny",
        machine_type="none",
        ids=ids,
        log_mel=LogMelParameters().as_dict(),
        window_seconds=10.0,
        calibration={
            i: Calibration.from_scores(np.linspace(-60, -40, 40).tolist(), level_dbfs=-36.0, source="made up")
            for i in ids
        },
        self_check=SelfCheck(log_mel=packed, score=float(packed.unpack().mean()), tolerance=1e-2),
    )
    inputs = [helper.make_tensor_value_info("log_mel", TensorProto.FLOAT, ["window", *SHAPE])]
    initialisers = [numpy_helper.from_array(np.array([1, 2], np.int64), "axes")]
    if len(ids) > 1:
        inputs.append(helper.make_tensor_value_info("machine_id", TensorProto.INT64, ["machine_ids"]))
        initialisers.append(numpy_helper.from_array(np.zeros(1, np.int64), "machine_id"))
    graph = helper.make_graph(
        [
            helper.make_node("ReduceMean", ["log_mel", "axes"], ["score"], name="mean", keepdims=0),
            helper.make_node("Identity", ["log_mel"], ["anomaly_map"], name="map"),
        ],
        "tiny",
        inputs,
        [
            helper.make_tensor_value_info("score", TensorProto.FLOAT, ["window"]),
            helper.make_tensor_value_info("anomaly_map", TensorProto.FLOAT, ["window", *SHAPE]),
        ],
        initialisers,
    )
    made_model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    loose = json.loads(made.to_json())
    document(loose)
    text = json.dumps(loose) if metadata is None else metadata
    if text:
        helper.set_model_props(made_model, {KEY: text})
    model(made_model)
    content: bytes = made_model.SerializeToString()
    return content


def _train_statistics(data: Path, out: Path, ids: tuple[str, ...] | None = None) -> Path:
    # Imported late: torch takes seconds and much memory, and most rooms do without it.
    from edge_asd_train.statistics import train
    from edge_asd_train.training import read_training_set

    train(read_training_set(data, "slider", ids=ids), out)
    return out


@pytest.fixture
def plant(tmp_path: Path, tiny: Callable[..., bytes]) -> Iterator[Plant]:
    """A daemon of two machines that can be reloaded; it need not run."""
    plant = Plant(tmp_path, tiny)
    plant.write("name: rail-7", "name: rail-8")
    plant.begin()
    yield plant
    plant.end()
