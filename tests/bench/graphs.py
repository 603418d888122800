"""The search alone as ONNX Runtime runs it, with its start as an input and the loss of every step as an output."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from edge_asd_train.anogan_networks import IMAGE_FRAMES, IMAGE_MELS
from edge_asd_train.latent_search import LatentSearch
from edge_asd_train.search_graph import Z_START, search_model
from numpy.typing import NDArray
from onnx import TensorProto, helper

from edge_asd.detector import session_options
from edge_asd.logmel import Float32Array

_BEST = "loss"
_CURVE = "bench/losses"


@dataclass(frozen=True)
class SearchGraph:
    """A search in ONNX Runtime, one thread."""

    session: ort.InferenceSession

    def loss(self, query: Float32Array, steps: int) -> Float32Array:
        """A(x) ``[crop]`` of crops ``[crop, 1, mel, frame]``, from the file's own start."""
        (loss,) = self.session.run(["loss"], {"query": query, "search_steps": np.array(steps, np.int64)})
        return loss


def export(search: LatentSearch, steps: int) -> onnx.ModelProto:
    """As training exports it. Takes ten seconds."""
    return search_model(search, image_shape=(IMAGE_MELS, IMAGE_FRAMES), default_steps=steps)


def cut_out(detector: Path) -> onnx.ModelProto:
    """The search that lies in a detector's file, with the steps that the file says unless told."""
    model = onnx.load(detector)
    needed, nodes = {"loss"}, []
    for node in reversed(model.graph.node):
        if needed & set(node.output) and "query" not in node.output:
            nodes.insert(0, node)
            bodies = [a.g for a in node.attribute if a.type == onnx.AttributeProto.GRAPH]
            needed |= set(node.input) | {name for body in bodies for inner in body.node for name in inner.input}
    steps = next(i for i in model.graph.input if i.name == "search_steps")
    query = helper.make_tensor_value_info("query", TensorProto.FLOAT, ["crop", 1, IMAGE_MELS, IMAGE_FRAMES])
    loss = helper.make_tensor_value_info("loss", TensorProto.FLOAT, ["crop"])
    weights = [tensor for tensor in model.graph.initializer if tensor.name in needed]
    graph = helper.make_graph(nodes, "search", [query, steps], [loss], weights)
    return helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)


def timed(model: onnx.ModelProto) -> SearchGraph:
    """Just as it is."""
    return SearchGraph(_session(model))


@dataclass(frozen=True)
class SearchCurve:
    """A search that begins where it is told and says its loss after every step."""

    session: ort.InferenceSession

    def __call__(self, query: Float32Array, start: Float32Array, steps: int) -> NDArray[np.float32]:
        """Loss of the best z after 0, 1, ... steps: ``[steps + 1, crop]``.

        Args:
            query: ``[crop, 1, mel, frame]``.
            start: z ``[crop, latent]``.
            steps: 1 or more.
        """
        feed = {"query": query, Z_START: start, "search_steps": np.array(steps, np.int64)}
        (losses,) = self.session.run([_CURVE], feed)
        return losses


def curve(model: onnx.ModelProto, latent: int) -> SearchCurve:
    """Make of a search's model one that tells its losses on the way."""
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    graph = changed.graph
    place = next(i for i, node in enumerate(graph.node) if Z_START in node.output)
    graph.node[place].output[:] = ["bench/unused" if o == Z_START else o for o in graph.node[place].output]
    graph.input.append(helper.make_tensor_value_info(Z_START, TensorProto.FLOAT, ["crop", latent]))
    loop = next(node for node in graph.node if node.op_type == "Loop")
    body = next(a.g for a in loop.attribute if a.name == "body")
    best = body.output[1 + list(loop.output).index(_BEST)].name  # the first output is whether to go on
    body.node.append(helper.make_node("Identity", [best], ["bench/loss"], name="bench/loss"))
    body.output.append(helper.make_tensor_value_info("bench/loss", TensorProto.FLOAT, ["crop"]))
    loop.output.append(_CURVE)
    graph.output.append(helper.make_tensor_value_info(_CURVE, TensorProto.FLOAT, ["step", "crop"]))
    return SearchCurve(_session(changed))


def _session(model: onnx.ModelProto) -> ort.InferenceSession:
    return ort.InferenceSession(model.SerializeToString(), session_options(), providers=["CPUExecutionProvider"])
