"""The graph of an AnoGAN detector, in torch and in ONNX.

Three graphs become one: the log-Mel is standardised and cut into crops; the latent search reconstructs them; the
residual is scored.
"""

from __future__ import annotations

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from .anogan_networks import AnoGan, average_mels, crops
from .clip_scorer import ClipScorer
from .crops import join
from .export import export_quietly
from .latent_search import search
from .search_graph import Z_START
from .standardise import Standardise
from .training import MEAN_IMAGE, UNTRAINED_START

ABLATIONS = (MEAN_IMAGE, UNTRAINED_START)


class Before(nn.Module):
    """Log-Mel to the crops that are searched for."""

    def __init__(self, standardise: Standardise) -> None:
        super().__init__()
        self.standardise = standardise

    def forward(self, log_mel: Tensor, machine_id: Tensor) -> Tensor:
        """``[window, mel, frame]`` and ``[window]`` to ``[window * crop, 1, mel / 2, crop frame]``."""
        return crops(self.standardise(log_mel, machine_id))


class After(nn.Module):
    """Reconstructed crops to the detector's outputs."""

    def __init__(self, standardise: Standardise, scorer: ClipScorer | None, crops_per_window: int) -> None:
        """
        Args:
            standardise: log-Mel to image.
            scorer: of residuals; its second variant of images as they are, for the ablation. Without one the score is
                A(x), and the map the size of the residual.
            crops_per_window: in a row of crops.
        """
        super().__init__()
        self.standardise, self.scorer, self.crops_per_window = standardise, scorer, crops_per_window

    def forward(
        self, log_mel: Tensor, machine_id: Tensor, ablation: Tensor, reconstruction: Tensor, loss: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Score ``[window]``, anomaly map ``[window, mel, frame]``, mean A(x) ``[window]``, reconstruction in dB
        ``[window, mel, frame]``.

        With the ablation `MEAN_IMAGE` the reconstruction is the training mean.
        """
        image = average_mels(self.standardise(log_mel, machine_id))
        is_mean = ablation == ABLATIONS.index(MEAN_IMAGE) + 1
        joined = join(reconstruction, log_mel.shape[2])
        mean = average_mels(self.standardise.mean_image(machine_id)).expand_as(joined)
        joined = torch.where(is_mean, mean, joined)
        residual = image - joined
        mean_loss = loss.reshape(-1, self.crops_per_window).mean(dim=1)
        if self.scorer is None:
            score, coarse = mean_loss.clone(), residual.abs()
        else:
            score, coarse = self.scorer(residual, machine_id, is_mean.to(torch.int64))
        mels = log_mel.shape[1] // coarse.shape[1]
        reconstructed = self.standardise.undo(joined.repeat_interleave(mels, dim=1), log_mel, machine_id)
        return score, coarse.repeat_interleave(mels, dim=1), mean_loss, reconstructed


class AnoGanDetector(nn.Module):
    """The whole in torch: what the exported file must compute."""

    def __init__(self, before: Before, networks: AnoGan, after: After, search_steps: int) -> None:
        super().__init__()
        self.before, self.after, self.search_steps = before, after, search_steps
        self.encoded, self.untrained = networks.latent_search(), networks.latent_search(warm_start=False)

    def forward(
        self, log_mel: Tensor, machine_id: Tensor, ablation: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """As `After`; no ablation unless given."""
        ablation = torch.tensor(0) if ablation is None else ablation
        is_untrained = int(ablation) == ABLATIONS.index(UNTRAINED_START) + 1
        searched = self.untrained if is_untrained else self.encoded
        reconstruction, loss = search(searched, self.before(log_mel, machine_id), self.search_steps)
        outputs: tuple[Tensor, Tensor, Tensor, Tensor] = self.after(log_mel, machine_id, ablation, reconstruction, loss)
        return outputs


def compose(before: Before, searching: onnx.ModelProto, after: After, shape: tuple[int, ...]) -> onnx.ModelProto:
    """One graph with inputs ``log_mel``, ``machine_id``, ``ablation``, and ``search_steps`` (with a default).

    Args:
        before: log-Mel to crops.
        searching: the search, from `AnoGan.search_model`; becomes part of the result.
        after: reconstructions to outputs.
        shape: (mel, frame) of a window.
    """
    windows = 3
    log_mel, machine_id = torch.randn(windows, *shape), torch.zeros(windows, dtype=torch.int64)
    ablation = torch.tensor(0)
    query = before(log_mel, machine_id)
    window = torch.export.Dim("window", min=1, max=4096)
    crop = window * after.crops_per_window
    first = export_quietly(
        before,
        (log_mel, machine_id),
        input_names=["log_mel", "machine_id"],
        output_names=["query"],
        dynamic_shapes=({0: window}, {0: window}),
    )
    last = export_quietly(
        after,
        (log_mel, machine_id, ablation, query, torch.zeros(len(query))),
        input_names=["log_mel", "machine_id", "ablation", "reconstruction", "loss"],
        output_names=["score", "anomaly_map", "report_score", "reconstructed"],
        dynamic_shapes=({0: window}, {0: window}, None, {0: crop}, {0: crop}),
    )
    middle = onnx.ModelProto()
    middle.CopyFrom(searching)
    _make_start_untrained(middle.graph)
    _rename(first.graph, "before/", {"log_mel", "machine_id", "query"})
    shared = {"log_mel", "machine_id", "ablation", "reconstruction", "loss"}
    _rename(last.graph, "after/", shared | {o.name for o in last.graph.output})
    graph = helper.make_graph(
        [*first.graph.node, *middle.graph.node, *last.graph.node],
        "anogan",
        [
            *first.graph.input,
            *(i for i in last.graph.input if i.name == "ablation"),
            *(i for i in middle.graph.input if i.name == "search_steps"),
        ],
        list(last.graph.output),
        [*first.graph.initializer, *middle.graph.initializer, *last.graph.initializer],
    )
    return helper.make_model(graph, opset_imports=middle.opset_import, ir_version=middle.ir_version)


def _make_start_untrained(graph: onnx.GraphProto) -> None:
    """Let the ablation multiply the encoder's z by zero."""
    number = numpy_helper.from_array(np.array(ABLATIONS.index(UNTRAINED_START) + 1, np.int64), "untrained/number")
    graph.initializer.append(number)
    place = next(i for i, node in enumerate(graph.node) if Z_START in node.output)
    graph.node[place].output[:] = ["untrained/encoded" if o == Z_START else o for o in graph.node[place].output]
    switch = [
        helper.make_node("Equal", ["ablation", "untrained/number"], ["untrained/is"], name="untrained/equal"),
        helper.make_node("Not", ["untrained/is"], ["untrained/is_not"], name="untrained/not"),
        helper.make_node("Cast", ["untrained/is_not"], ["untrained/kept"], name="untrained/cast", to=TensorProto.FLOAT),
        helper.make_node("Mul", ["untrained/encoded", "untrained/kept"], [Z_START], name="untrained/start"),
    ]
    nodes = [*graph.node[: place + 1], *switch, *graph.node[place + 1 :]]
    del graph.node[:]
    graph.node.extend(nodes)


def _rename(graph: onnx.GraphProto, prefix: str, keep: set[str]) -> None:
    """Prefix every name of a flat graph but those that join it to others."""

    def renamed(name: str) -> str:
        return name if not name or name in keep else prefix + name

    for node in graph.node:
        node.name = prefix + node.name
        node.input[:] = [renamed(n) for n in node.input]
        node.output[:] = [renamed(n) for n in node.output]
    for value in (*graph.input, *graph.output, *graph.initializer):
        value.name = renamed(value.name)
