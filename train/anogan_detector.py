"""From a trained AnoGAN to a detector: what the search cannot reconstruct of a window is scored.

Three graphs become one: the log-Mel is standardised and cut into crops; the latent search reconstructs them; the
statistics of the residual are scored as those of a ``statistics`` detector are. The mean of A(x) over a window's crops
is given beside it as ``report_score``.
"""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import helper
from torch import Tensor, nn

from edge_asd.detector import Detector
from edge_asd.logmel import Float32Array

from .anogan import quality, train_anogan
from .anogan_networks import AnoGan, AnoGanSettings, average_mels, crops
from .clip_scorer import ClipScorer, fit_clip_scorer
from .crops import join
from .export import export_quietly
from .latent_search import search
from .training import Standardise, TrainingSet, finish, report

SELF_CHECK_STEPS = 3
"""Few, since long searches are mildly chaotic and processors differ."""
_BATCH = 16


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

    def __init__(self, standardise: Standardise, scorer: ClipScorer, crops_per_window: int) -> None:
        super().__init__()
        self.standardise, self.scorer, self.crops_per_window = standardise, scorer, crops_per_window

    def forward(
        self, log_mel: Tensor, machine_id: Tensor, reconstruction: Tensor, loss: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Score ``[window]``, anomaly map ``[window, mel, frame]``, mean A(x) ``[window]``."""
        image = average_mels(self.standardise(log_mel, machine_id))
        residual = image - join(reconstruction, log_mel.shape[2])
        score, coarse = self.scorer(residual, machine_id)
        anomaly_map = coarse.repeat_interleave(log_mel.shape[1] // coarse.shape[1], dim=1)
        return score, anomaly_map, loss.reshape(-1, self.crops_per_window).mean(dim=1)


class AnoGanDetector(nn.Module):
    """The whole in torch: what the exported file must compute."""

    def __init__(self, before: Before, networks: AnoGan, after: After, search_steps: int) -> None:
        super().__init__()
        self.before, self.after, self.search_steps = before, after, search_steps
        self.latent_search = networks.latent_search()

    def forward(self, log_mel: Tensor, machine_id: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """As `After`."""
        reconstruction, loss = search(self.latent_search, self.before(log_mel, machine_id), self.search_steps)
        outputs: tuple[Tensor, Tensor, Tensor] = self.after(log_mel, machine_id, reconstruction, loss)
        return outputs


def train(
    training: TrainingSet, out: Path, settings: AnoGanSettings | None = None, *, licence: str | None = None
) -> Detector:
    """Train on every fold but one for held-out residuals, then on all; calibrate and write. Prints progress.

    Raises:
        CollapseError: networks that do not follow their input.
    """
    started = time.monotonic()
    settings = settings or AnoGanSettings()
    ids = len(training.ids)
    standardise = Standardise.fit(training.log_mel, training.machine_index, ids)
    images = standardise.apply(training.log_mel, training.machine_index)
    folds = int(training.folds.max()) + 1
    residuals = np.zeros((len(images), images.shape[1] // 2, images.shape[2]), np.float32)
    unexplained = []
    for fold in range(folds):
        out_of_fold = training.folds == fold
        networks = _networks(images[~out_of_fold], settings, training.seed + fold, f"AnoGAN {fold + 1} of {folds + 1}")
        residuals[out_of_fold] = residuals_of(networks, images[out_of_fold])
        unexplained.append(quality(networks, images[out_of_fold][:_BATCH]).mse_over_variance)
    networks = _networks(images, settings, training.seed + folds, f"AnoGAN {folds + 1} of {folds + 1}")
    # In the networks' own folds: a network is another than those whose residuals the distances were fitted to, and
    # the held-out scores must have that in them, or the shipped one would find all sound unusual.
    fitted = fit_clip_scorer(residuals, training.machine_index, ids, training.folds)
    crops_per_window = crops(torch.from_numpy(images[:1])).shape[0]
    before, after = Before(standardise).eval(), After(standardise, fitted.scorer, crops_per_window).eval()
    ratio = float(np.mean(unexplained))
    detector = finish(
        "anogan",
        AnoGanDetector(before, networks, after, SELF_CHECK_STEPS),
        training,
        fitted.held_out,
        out,
        settings={
            **dataclasses.asdict(settings),
            "seed": training.seed,
            "folds": folds,
            "held_out_mse_over_variance": round(ratio, 4),
        },
        licence=licence,
        model=compose(before, networks, after, images.shape[1:]),
        search_steps=SELF_CHECK_STEPS,
    )
    report(detector, training, started)
    print(f"  error on held-out normal clips: {ratio:.2f} of their variance after {settings.search_steps} search steps")
    return detector


def residuals_of(networks: AnoGan, images: Float32Array) -> Float32Array:
    """Standardised windows ``[window, mel, frame]`` less their reconstructions, ``[window, mel / 2, frame]``."""
    searched = networks.latent_search()
    parts = []
    for begin in range(0, len(images), _BATCH):
        image = torch.from_numpy(images[begin : begin + _BATCH])
        reconstruction, _ = search(searched, crops(image), networks.settings.search_steps)
        parts.append((average_mels(image) - join(reconstruction, image.shape[2])).numpy())
    return np.concatenate(parts)


def compose(before: Before, networks: AnoGan, after: After, shape: tuple[int, ...]) -> onnx.ModelProto:
    """One graph with inputs ``log_mel``, ``machine_id`` and ``search_steps`` (with a default).

    Args:
        before: log-Mel to crops.
        networks: with their search.
        after: reconstructions to outputs.
        shape: (mel, frame) of a window.
    """
    windows = 3
    log_mel, machine_id = torch.randn(windows, *shape), torch.zeros(windows, dtype=torch.int64)
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
        (log_mel, machine_id, query, torch.zeros(len(query))),
        input_names=["log_mel", "machine_id", "reconstruction", "loss"],
        output_names=["score", "anomaly_map", "report_score"],
        dynamic_shapes=({0: window}, {0: window}, {0: crop}, {0: crop}),
    )
    middle = networks.search_model()
    _rename(first.graph, "before/", {"log_mel", "machine_id", "query"})
    shared = {"log_mel", "machine_id", "reconstruction", "loss", "score", "anomaly_map", "report_score"}
    _rename(last.graph, "after/", shared)
    graph = helper.make_graph(
        [*first.graph.node, *middle.graph.node, *last.graph.node],
        "anogan",
        [*first.graph.input, *(i for i in middle.graph.input if i.name == "search_steps")],
        list(last.graph.output),
        [*first.graph.initializer, *middle.graph.initializer, *last.graph.initializer],
    )
    return helper.make_model(graph, opset_imports=middle.opset_import, ir_version=middle.ir_version)


def _networks(images: Float32Array, settings: AnoGanSettings, seed: int, title: str) -> AnoGan:
    return train_anogan(images, dataclasses.replace(settings, seed=seed), title=title)


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
