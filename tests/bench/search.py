"""A step of the latent search: ONNX Runtime against PyTorch, and against what the machine can compute at all."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from edge_asd_train.latent_search import LatentSearch
from torch import Tensor, nn

from .eager import frozen_eager, plain_autograd, without_onednn
from .graphs import SearchGraph
from .networks import Networks
from .scale import Scale
from .table import Row, Table
from .timing import interleaved

_SGEMM = 1024
"""Rows and columns: large enough for the machine's best."""
_MUST_REACH = {1: 2.5, 5: 1.5}
"""By the number of crops: how many times as fast as PyTorch eager with frozen parameters. 5 crops are a window."""


def measure_steps(table: Table, networks: Networks, graph: SearchGraph, query: Tensor, scale: Scale) -> None:
    """Rows for a step with one crop and with a window's.

    Args:
        table: takes them.
        networks: the same on all sides.
        graph: ours.
        query: a window's crops ``[crop, 1, mel, frame]``.
        scale: how much.

    Raises:
        ValueError: the sides do not compute the same.
    """
    model, steps = networks.search(), scale.timed_steps
    eager, plain = frozen_eager(model), plain_autograd(model)
    own = without_onednn(eager)
    left, right = (np.random.default_rng(i).random((_SGEMM, _SGEMM), np.float32) for i in (0, 1))
    table.section(f"A step of the search: processor time, start and end of {steps} steps shared out among them")
    for crops in sorted({1, len(query)}):
        some = query[:crops].contiguous()
        for_ours = some.numpy()
        _check_that_all_agree(graph.loss(for_ours, steps), (eager(some, steps), own(some, steps), plain(some, steps)))
        works = {
            "ours": lambda q=for_ours: graph.loss(q, steps),
            "eager": lambda q=some: eager(q, steps),
            "own": lambda q=some: own(q, steps),
            "plain": lambda q=some: plain(q, steps),
            "sgemm": lambda: left @ right,
        }
        took = interleaved(works, scale.rounds)
        common = {"net": networks.name, "crops": crops, "steps": steps}
        for name, what in (
            ("ours", "step, ONNX Runtime"),
            ("eager", "step, PyTorch eager, frozen parameters"),
            ("own", "step, the same without oneDNN"),
            ("plain", "step, PyTorch with plain autograd"),
        ):
            per_step = took.milliseconds(name) / steps
            table.add(Row(what, per_step, "ms", **common, wall=took.wall_milliseconds(name) / steps))
        faster = min(took.ratio(baseline, "ours") for baseline in ("eager", "own"))  # against the better of the two
        table.add(Row("as fast as PyTorch eager, frozen", faster, "times", **common, at_least=_MUST_REACH.get(crops)))
        table.add(Row("as fast as plain autograd", took.ratio("plain", "ours"), "times", **common))
        operations = 2.0 * crops * step_multiply_adds(model)
        speed = operations / (1e6 * took.milliseconds("ours") / steps)
        peak = 2.0 * _SGEMM**3 / (1e6 * took.milliseconds("sgemm"))
        table.add(Row("GFLOP/s of a step", speed, "GFLOP/s", **common, note=f"{operations / 1e6:.1f} MFLOP a step"))
        share = took.ratio("sgemm", "ours") * steps * operations / (2.0 * _SGEMM**3)
        table.add(Row(f"of sgemm's, {peak:.0f} GFLOP/s for {_SGEMM} squared", share, "ratio", **common))


def step_multiply_adds(model: LatentSearch) -> int:
    """Multiply-adds of one crop's step: each convolution of G and D once forward, once back to its input.

    Borders count as if they were full; activations, sums and Adam do not count.
    """
    total = 0

    def count(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        if isinstance(layer, nn.Conv2d):  # every output sees a kernel of every input channel
            total += output.numel() * layer.in_channels * int(np.prod(layer.kernel_size))
        elif isinstance(layer, nn.ConvTranspose2d):  # every input is spread over a kernel of every output channel
            total += inputs[0].numel() * layer.out_channels * int(np.prod(layer.kernel_size))

    layers = [m for part in (model.generator, model.features) for m in part.modules()]
    hooks = [layer.register_forward_hook(count) for layer in layers]
    try:
        with torch.no_grad():
            model.features(model.generator(torch.zeros(1, model.latent)))
    finally:
        for hook in hooks:
            hook.remove()
    return 2 * total


def _check_that_all_agree(ours: np.ndarray, others: Sequence[Tensor]) -> None:
    for other in others:
        if not np.allclose(ours, other.numpy(), rtol=1e-3):
            raise ValueError(f"the searches that are compared end at {ours} and {other.numpy()}")
