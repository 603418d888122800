"""The latent search as an ONNX graph: its step, differentiated and traced, becomes the body of a ``Loop``.

Neither exporter of torch takes ``torch.func.grad``; ``make_fx`` traces it to plain operators first, with the backward
of a convolution written as a convolution, since ONNX has no other. Both functions of torch are semi-private, hence the
pinned version and the parity tests.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn
from torch._decomp import get_decompositions
from torch.fx.experimental.proxy_tensor import make_fx

from .latent_search import DECAYS, LatentSearch

aten = torch.ops.aten

_TRACED_CROPS = 5  # torch specialises a batch of 1 (and, at times, 2); no other first dimension is as long
Z_START = "search/z_start"
"""Where the search begins, in the graph."""
_STATE = ("z", "momentum", "variance", "decay", "best_loss", "best_image")


def _convolution_backward(
    grad: Tensor,
    x: Tensor,
    w: Tensor,
    _bias: Any,
    stride: list[int],
    pad: list[int],
    dilation: list[int],
    transposed: bool,
    _out_pad: list[int],
    groups: int,
    _mask: list[bool],
) -> tuple[Tensor, None, None]:
    """Gradient of a convolution by its input, in operators that ONNX has; weights are frozen and get none."""
    if transposed:  # the backward of a transposed convolution is a convolution with the same weight
        back = aten.convolution(grad, w, None, stride, pad, dilation, False, [0] * len(stride), groups)
    else:
        sizes = zip(x.shape[2:], grad.shape[2:], stride, pad, dilation, w.shape[2:], strict=True)
        rest = [int(n - ((g - 1) * s - 2 * p + d * (k - 1) + 1)) for n, g, s, p, d, k in sizes]
        back = aten.convolution(grad, w, None, stride, pad, dilation, True, rest, groups)
    return back, None, None


def _threshold_backward(grad: Tensor, x: Tensor, threshold: float) -> Tensor:
    """Gradient of ReLU as a product: ONNX Runtime's ``Where`` against a scalar takes several times as long."""
    return grad * (x > threshold).to(grad.dtype)


def _leaky_relu_backward(grad: Tensor, x: Tensor, slope: float, _x_is_result: bool) -> Tensor:
    return grad * ((x > 0).to(grad.dtype) * (1.0 - slope) + slope)


_DECOMPOSITIONS: dict[Any, Callable[..., Any]] = {
    **get_decompositions([aten.tanh_backward, aten.sigmoid_backward, aten.elu_backward, aten.silu_backward]),
    aten.convolution_backward.default: _convolution_backward,
    aten.threshold_backward.default: _threshold_backward,
    aten.leaky_relu_backward.default: _leaky_relu_backward,
}


def _export(part: nn.Module, example: dict[str, Tensor], outputs: Sequence[str]) -> onnx.ModelProto:
    """Export ``part``; tensors whose first dimension is the traced batch get a symbolic ``crop`` dimension."""
    graph = make_fx(
        part.eval(), decomposition_table=_DECOMPOSITIONS, tracing_mode="symbolic", _allow_non_fake_inputs=True
    )(*example.values())
    graph.graph.eliminate_dead_code()
    graph.recompile()
    crop = torch.export.Dim("crop")
    shapes = tuple({0: crop} if len(value) == _TRACED_CROPS else {} for value in example.values())
    with warnings.catch_warnings():  # on torch's own tree specs, and on the one axis name that all inputs share
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            graph.eval(),
            tuple(example.values()),
            input_names=list(example),
            output_names=list(outputs),
            dynamic_shapes=shapes,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    return program.model_proto


class _Step(nn.Module):
    """One step with its inputs in a row, as the exporter wants them."""

    def __init__(self, model: LatentSearch) -> None:
        super().__init__()
        self.model = model

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        *state, query, query_features = inputs
        return self.model.step(state, query, query_features)


class _Start(_Step):
    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        return self.model.start(*inputs)


_Key = tuple[tuple[int, ...], str, bytes]


def _parts(model: LatentSearch, image_shape: tuple[int, int]) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    query = torch.zeros(_TRACED_CROPS, 1, *image_shape)
    query_features, z = model.start(query)
    loss = torch.full((_TRACED_CROPS,), torch.inf)
    # Every example is a tensor of its own: make_fx takes one that is passed twice for one and the same input.
    state = (z, torch.zeros_like(z), torch.zeros_like(z), torch.ones(DECAYS), loss, torch.zeros_like(query))
    inputs = dict(zip((*_STATE, "query", "query_features"), (*state, query, query_features), strict=True))
    return (
        _export(_Start(model), {"query": query}, ("query_features", "z_start")),
        _export(_Step(model), inputs, [f"next_{name}" for name in _STATE]),
    )


def _take(part: onnx.ModelProto, prefix: str, keep: dict[str, str], weights: dict[_Key, str]) -> onnx.GraphProto:
    """The part's graph, its initialisers named as ``weights`` says, other values by ``keep`` or else prefixed."""
    graph = part.graph
    if part.functions:
        raise ValueError("the exporter left functions that are not inlined")
    renamed, initialisers = dict(keep), {}
    for tensor in graph.initializer:
        array = numpy_helper.to_array(tensor)
        renamed[tensor.name] = keep.get(tensor.name) or weights.get(_key(array), f"{prefix}{tensor.name}")
        initialisers[renamed[tensor.name]] = array  # once, where several are equal
    for node in graph.node:
        for names in (node.input, node.output):
            names[:] = [renamed.get(n, f"{prefix}{n}") if n else n for n in names]
        node.name = f"{prefix}{node.name}"
        node.doc_string = ""
        del node.metadata_props[:]
    for value in (*graph.input, *graph.output):
        value.name = renamed.get(value.name, f"{prefix}{value.name}")
    del graph.initializer[:], graph.value_info[:]
    graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in initialisers.items())
    return graph


def _key(array: NDArray[Any]) -> _Key:
    return array.shape, array.dtype.str, array.tobytes()


def search_model(model: LatentSearch, *, image_shape: tuple[int, int], default_steps: int) -> onnx.ModelProto:
    """The whole search as one ONNX model.

    Args:
        model: the frozen networks with lambda and learning rate.
        image_shape: (mel, frame) of a crop.
        default_steps: the value of ``search_steps`` when the caller gives none.

    Returns:
        A model with inputs ``query`` float32 ``[crop, 1, mel, frame]`` and ``search_steps`` int64 ``[]`` (also an
        initialiser, hence optional), and outputs ``reconstruction`` ``[crop, 1, mel, frame]``, G of the best z, and
        ``loss`` ``[crop]``, A(x) there.

    Every other name begins with ``search/``, ``start/``, ``step/``, ``generator.``, ``features.`` or ``encoder.``.
    Compose it with others without a prefix: ``onnx.compose.add_prefix`` does not rename what the loop's body takes from
    outside.

    The loop turns once more than there are steps, so that the last z has its say without a second copy of the
    generator beside the loop's; what that turn makes of z is thrown away.
    """
    start, step = _parts(model, image_shape)
    names = {_key(value.numpy()): name for name, value in model.named_parameters()}
    outer = {"query": "query", "query_features": "search/query_features", "z_start": Z_START}
    inside = {key: name for key, name in names.items() if not name.startswith("encoder.")}
    # What both parts use must be stored in both: ONNX Runtime packs a weight for its fastest convolution only where it
    # lies in the graph that uses it. That is the features alone; the generator is in the loop's body only.
    outside = {key: name if name.startswith("encoder.") else f"start/{name}" for key, name in names.items()}
    before = _take(start, "start/", outer, outside)
    body = _take(step, "step/", outer, inside)
    del body.input[len(_STATE) :]  # query and its features come from outside the body
    body.input.insert(0, helper.make_tensor_value_info("step/number", TensorProto.INT64, []))
    body.input.insert(1, helper.make_tensor_value_info("step/go_on", TensorProto.BOOL, []))
    body.node.append(helper.make_node("Identity", ["step/go_on"], ["step/next_go_on"]))
    body.output.insert(0, helper.make_tensor_value_info("step/next_go_on", TensorProto.BOOL, []))
    body.name = "search_step"

    constants = {
        "search_steps": np.array(default_steps, np.int64),
        "search/one": np.array(1, np.int64),
        "search/go_on": np.array(True),
        "search/decay_start": np.ones(DECAYS, np.float32),
        "search/zero": np.zeros((), np.float32),
        "search/infinity": np.array(np.inf, np.float32),
    }
    initial = [
        helper.make_node("Add", ["search_steps", "search/one"], ["search/turns"]),
        helper.make_node("Mul", [Z_START, "search/zero"], ["search/no_momentum"]),
        helper.make_node("Shape", ["query"], ["search/crops"], end=1),
        helper.make_node("Expand", ["search/infinity", "search/crops"], ["search/no_loss"]),
    ]
    carried = [Z_START, "search/no_momentum", "search/no_momentum", "search/decay_start", "search/no_loss"]
    loop = helper.make_node(
        "Loop",
        ["search/turns", "search/go_on", *carried, "query"],
        [*(f"search/{name}" for name in _STATE[:-2]), "loss", "reconstruction"],
        name="search",
        body=body,
    )
    steps_input = helper.make_tensor_value_info("search_steps", TensorProto.INT64, [])
    graph = helper.make_graph(
        [*before.node, *initial, loop],
        "latent_search",
        [before.input[0], steps_input],
        [
            helper.make_tensor_value_info("reconstruction", TensorProto.FLOAT, ["crop", 1, *image_shape]),
            helper.make_tensor_value_info("loss", TensorProto.FLOAT, ["crop"]),
        ],
        [*(numpy_helper.from_array(value, name) for name, value in constants.items()), *before.initializer],
    )
    result = helper.make_model(graph, opset_imports=step.opset_import, ir_version=step.ir_version)
    onnx.checker.check_model(result, full_check=True)
    return result
