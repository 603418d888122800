"""From a torch module to a detector file, refused unless the file computes what the module does."""

from __future__ import annotations

import logging
import os
import platform
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from edge_asd import __version__
from edge_asd.audio.windows import WINDOW_SECONDS
from edge_asd.calibration import Calibration
from edge_asd.detector import Detector
from edge_asd.errors import EdgeAsdError
from edge_asd.logmel import Float32Array, LogMelParameters
from edge_asd.metadata import FORMAT, KEY, DetectorMetadata, PackedLogMel, SelfCheck
from edge_asd.verification import default_cache, verify

OPSET = 20
PARITY_TOLERANCE = 2e-3
"""Largest difference of a score between torch and ONNX Runtime, over the spread of normal scores (1 at least)."""
SELF_CHECK_TOLERANCE = 2e-2
"""The same for another processor, which adds up in another order; a detector that is broken is off by far more."""
_PARITY_WINDOWS = 8


class ExportError(EdgeAsdError):
    """The file would not compute what was trained."""


@dataclass(frozen=True)
class Made:
    """What a detector says of its making; goes into the metadata."""

    kind: str
    machine_type: str
    ids: tuple[str, ...]
    calibration: dict[str, Calibration]
    settings: dict[str, Any]
    data: dict[str, Any]
    ablations: tuple[str, ...] = ()
    """Names of what the input ``ablation`` can take away."""
    log_mel: LogMelParameters = field(default_factory=LogMelParameters)


def to_onnx(
    module: nn.Module, shape: tuple[int, int], *, ablations: bool = False, reconstructs: bool = False
) -> onnx.ModelProto:
    """Trace a module that maps (log_mel ``[window, mel, frame]``, machine_id ``[window]``) to the detector's outputs.

    Args:
        module: gives score ``[window]``, anomaly map ``[window, mel, frame]`` and report score ``[window]``.
        shape: (mel, frame).
        ablations: the module takes a third argument, ablation int64 ``[]``.
        reconstructs: the module gives its reconstruction too, dB ``[window, mel, frame]``.

    Returns:
        Inputs ``log_mel``, ``machine_id`` (and ``ablation``), outputs ``score``, ``anomaly_map``, ``report_score`` (and
        ``reconstructed``).
    """
    example = (torch.randn(3, *shape), torch.zeros(3, dtype=torch.int64), torch.tensor(0))
    window = torch.export.Dim("window", min=1, max=4096)
    taken = 3 if ablations else 2
    return export_quietly(
        module.eval(),
        example[:taken],
        input_names=["log_mel", "machine_id", "ablation"][:taken],
        output_names=["score", "anomaly_map", "report_score", *(["reconstructed"] if reconstructs else [])],
        dynamic_shapes=({0: window}, {0: window}, None)[:taken],
    )


def export_quietly(module: nn.Module, example: tuple[Any, ...], **options: Any) -> onnx.ModelProto:
    """`torch.onnx.export` with this project's opset, without its progress and deprecation chatter."""
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(module, example, dynamo=True, opset_version=OPSET, verbose=False, **options)
    assert program is not None  # it is None only where a file is written instead
    model: onnx.ModelProto = program.model_proto
    return model


def with_defaults(model: onnx.ModelProto, ids: int) -> onnx.ModelProto:
    """Give ``machine_id`` (the first id, for all windows) and ``ablation`` (none) defaults, where they are inputs.

    With one id there is no choice: the input ``machine_id`` is dropped.
    """
    graph = model.graph
    names = {i.name for i in graph.input}
    if "ablation" in names:
        graph.initializer.append(numpy_helper.from_array(np.array(0, np.int64), "ablation"))
    kept = [i for i in graph.input if i.name != "machine_id"]
    for node in graph.node:
        node.input[:] = ["machine_id_per_window" if name == "machine_id" else name for name in node.input]
    graph.initializer.append(numpy_helper.from_array(np.zeros(1, np.int64), "machine_id"))
    expand = [
        helper.make_node("Shape", ["log_mel"], ["windows"], name="count_windows", start=0, end=1),
        helper.make_node("Expand", ["machine_id", "windows"], ["machine_id_per_window"], name="expand_machine_id"),
    ]
    nodes = [*expand, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    del graph.input[:]
    graph.input.extend(kept)
    if ids > 1:
        graph.input.append(helper.make_tensor_value_info("machine_id", TensorProto.INT64, ["machine_ids"]))
    return model


def write_detector(
    model: onnx.ModelProto,
    made: Made,
    out: Path,
    *,
    reference: Float32Array,
    machine_index: NDArray[np.intp],
    expected: NDArray[np.float64],
    search_steps: int | None = None,
) -> Detector:
    """Add the metadata, compare with what the module gave, and write the file if it agrees.

    Args:
        model: inputs and outputs of the contract.
        made: its story.
        out: the file; replaced in one step or not at all.
        reference: log-Mels of some windows, ``[window, mel, frame]``.
        machine_index: of those windows.
        expected: scores the torch module gives them, ``[window]``, or with a row for no ablation and each ablation.
        search_steps: what the expected scores were computed with, where the detector searches.

    Returns:
        The detector as the daemon will load it.

    Raises:
        ExportError: scores differ by more than `PARITY_TOLERANCE`; nothing is written.
        DetectorError: the file is not what the daemon accepts.
    """
    packed = PackedLogMel.pack(reference[:1])
    spread = max(1.0, *(float(np.std(c.scores)) for c in made.calibration.values()))
    tolerance = SELF_CHECK_TOLERANCE * spread
    placeholder = SelfCheck(log_mel=packed, search_steps=search_steps, score=0.0, tolerance=tolerance)
    unchecked = Detector(out, _serialise(model, made, placeholder))
    check_parity(unchecked, reference, machine_index, expected, search_steps, PARITY_TOLERANCE * spread)
    score = unchecked.score(packed.unpack()[0], 0, search_steps).score
    content = _serialise(model, made, placeholder.model_copy(update={"score": score}))
    verify(out, content, default_cache())
    write_atomically(out, content)
    return Detector(out, content)


def check_parity(
    detector: Detector,
    reference: Float32Array,
    machine_index: NDArray[np.intp],
    expected: Sequence[float] | NDArray[np.float64],
    search_steps: int | None = None,
    tolerance: float = PARITY_TOLERANCE,
) -> float:
    """Largest difference between the scores of a detector, also under its ablations, and those expected.

    Raises:
        ExportError: it is more than the tolerance.
    """
    given = [
        [
            detector.score(log_mel, int(index), search_steps, ablation=ablation).score
            for log_mel, index in zip(reference, machine_index, strict=True)
        ]
        for ablation in (None, *detector.metadata.ablations)
    ]
    worst = float(np.abs(np.array(given) - np.atleast_2d(expected)).max())  # NaN where one is NaN
    if not worst <= tolerance:
        raise ExportError(f"{detector.path}: not written: ONNX Runtime scores differ from torch by {worst:.2g}")
    return worst


def parity_sample(windows: int, machine_index: NDArray[np.intp]) -> NDArray[np.intp]:
    """A few windows spread over all ids, the first of them of the first id."""
    order = np.argsort(machine_index, kind="stable")
    return order[np.unique(np.linspace(0, windows - 1, _PARITY_WINDOWS).round().astype(np.intp))]


def write_atomically(out: Path, content: bytes) -> None:
    """Write beside the file, flush to disk, then rename over it."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=out.parent, prefix=f".{out.name}.", delete=False) as file:
        try:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            Path(file.name).chmod(0o644)
            Path(file.name).replace(out)
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise


def _serialise(model: onnx.ModelProto, made: Made, check: SelfCheck) -> bytes:
    metadata = DetectorMetadata(
        format=FORMAT,
        kind=made.kind,
        machine_type=made.machine_type,
        ids=made.ids,
        ablations=made.ablations,
        log_mel=made.log_mel.as_dict(),
        window_seconds=WINDOW_SECONDS,
        calibration=made.calibration,
        self_check=check,
        settings=made.settings,
        data=made.data,
        versions={
            "edge-asd": __version__,
            "python": platform.python_version(),
            **{name: version(name) for name in ("numpy", "onnx", "onnxruntime", "torch")},
        },
        made=datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
    )
    labelled = onnx.ModelProto()
    labelled.CopyFrom(model)
    labelled.producer_name, labelled.producer_version = "edge-asd", __version__
    helper.set_model_props(labelled, {KEY: metadata.to_json()})
    # Node-by-node traces of torch's source paths say nothing to a user and name the machine that trained.
    for node in labelled.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    onnx.checker.check_model(labelled)
    content: bytes = labelled.SerializeToString()
    return content
