"""Whether the exported search computes what PyTorch does: a condition of every export.

One step is compared by its gradient, long searches by the loss that they end at, both also with PyTorch in float64.
The gradient of an absolute difference is a sign: it jumps where a cell of G(z) meets its target, and with it which of
two ways a search takes. So a few crops go another way, in PyTorch's float32 as in ours, and the median over crops is
what can be asked for. A learning rate that decays lets most of them end at the same loss all the same: of crops through
a trained network, a quarter were off by more than 5e-6 after 100 steps without, one in ten with a decay of 0.98.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper
from torch import Tensor

from edge_asd.detector import session_options

from .export import ExportError
from .latent_search import BETA1, DECAYS, LatentSearch, search

GRADIENT_TOLERANCE = 1e-6
"""Of the entries of one step's gradient, over the largest of a crop, median over crops."""
LOSS_TOLERANCES = {100: 5e-6, 500: 5e-4}
"""Of the loss after so many steps, relative, median over crops."""
_NO_FURTHER = 2.0
"""Our float32 may be so much further from float64 than PyTorch's: both are rounding, which is never the same twice."""
_ROUNDING = 2e-7
"""Differences below this, relative, are the last bit or two of float32."""


@dataclass(frozen=True)
class SearchParity:
    """Relative differences; ``torch`` ones are those of PyTorch's float32 from its float64."""

    gradient: float
    gradient_from_float64: float
    gradient_torch_from_float64: float
    losses: dict[int, float]
    """After so many steps, median over crops."""
    loss_from_float64: float
    """After the fewest of those steps, median over crops."""
    loss_torch_from_float64: float


def check_search(model: LatentSearch, exported: onnx.ModelProto, query: Tensor) -> SearchParity:
    """Compare an exported search with its PyTorch.

    Args:
        model: what was exported.
        exported: by `edge_asd_train.search_graph.search_model`.
        query: crops as the search will be given, ``[crop, 1, mel, frame]``; the longest search takes the first five.

    Raises:
        ExportError: it differs by more than the tolerances above.
    """
    precise = copy.deepcopy(model).double()
    slopes = [_slope(model, query), _slope(precise, query.double()), _exported_slope(model, exported, query)]
    theirs, reference, ours = (s / np.abs(slopes[1]).max(1, keepdims=True) for s in slopes)
    gradient = _off(ours, theirs), _off(ours, reference), _off(theirs, reference)
    _refuse_above(GRADIENT_TOLERANCE, gradient[0], "the gradient of one step")
    _refuse_far("the gradient of one step", *gradient[1:], _ROUNDING)
    session = _session(exported)
    losses: dict[int, float] = {}
    from_float64: tuple[float, float] | None = None
    for steps, tolerance in LOSS_TOLERANCES.items():
        crops = query if from_float64 is None else query[:5]
        found = session.run(["loss"], {"query": crops.numpy(), "search_steps": np.array(steps)})[0].astype(np.float64)
        expected = search(model, crops, steps)[1].double().numpy()
        losses[steps] = _median(found, expected)
        what = f"the loss after {steps} steps"
        if from_float64 is None:
            exact = search(precise, crops.double(), steps)[1].numpy()
            from_float64 = _median(found, exact), _median(expected, exact)
            _refuse_far(what, *from_float64, tolerance)
            # Where PyTorch itself is further from the truth than is asked for, no more can be asked.
            tolerance = max(tolerance, _NO_FURTHER * from_float64[1])
        _refuse_above(tolerance, losses[steps], what)
    assert from_float64 is not None  # there are steps
    return SearchParity(*gradient, losses, *from_float64)


def _refuse_above(tolerance: float, found: float, what: str) -> None:
    if not found <= tolerance:
        raise ExportError(f"not written: in ONNX Runtime {what} differs from PyTorch's by {found:.2g}")


def _refuse_far(what: str, ours: float, theirs: float, at_least: float) -> None:
    if not ours <= max(_NO_FURTHER * theirs, at_least):
        raise ExportError(f"not written: {what} is {ours:.2g} from float64, where PyTorch's is {theirs:.2g}")


def body_of(exported: onnx.ModelProto) -> onnx.ModelProto:
    """The step, which is the loop's body, as a model of its own."""
    loop = next(node for node in exported.graph.node if node.op_type == "Loop")
    body = onnx.GraphProto()
    body.CopyFrom(loop.attribute[0].g)
    for name in ("query", "search/query_features"):
        body.input.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    return helper.make_model(body, opset_imports=exported.opset_import, ir_version=exported.ir_version)


def _slope(model: LatentSearch, query: Tensor) -> NDArray[np.float64]:
    """dA/dz at the start, by autograd."""
    features, z = model.start(query)
    z = z.detach().requires_grad_()
    (slope,) = torch.autograd.grad(model.loss(z, query, features)[0].sum(), z)
    return slope.double().numpy()


def _exported_slope(model: LatentSearch, exported: onnx.ModelProto, query: Tensor) -> NDArray[np.float64]:
    features, z = (value.detach().numpy() for value in model.start(query))
    zeros = np.zeros_like(z)
    first = {
        "step/number": np.array(0),
        "step/go_on": np.array(True),
        "step/z": z,
        "step/momentum": zeros,
        "step/variance": zeros,
        "step/decay": np.ones(DECAYS, np.float32),
        "step/best_loss": np.full(len(z), np.inf, np.float32),
        "step/best_image": query.numpy(),
        "query": query.numpy(),
        "search/query_features": features,
    }
    momentum: NDArray[np.float32] = _session(body_of(exported)).run(["step/next_momentum"], first)[0]
    return momentum.astype(np.float64) / float(
        np.float32(1.0 - BETA1)
    )  # of the first step: (1 - beta1) times the slope


def _session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(model.SerializeToString(), session_options(), ["CPUExecutionProvider"])


def _off(some: NDArray[np.float64], others: NDArray[np.float64]) -> float:
    """Largest difference of a crop's entries, median over crops: a cell that meets its target may jump in some."""
    return float(np.median(np.abs(some - others).max(1)))


def _median(found: NDArray[np.float64], expected: NDArray[np.float64]) -> float:
    return float(np.median(np.abs(found / expected - 1.0)))
