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
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn
from tqdm import tqdm

from edge_asd.detector import Detector
from edge_asd.logmel import Float32Array

from .anogan import train_anogan, variety
from .anogan_networks import AnoGan, AnoGanSettings, average_mels, crops
from .clip_scorer import ClipScorer, Images, fit_clip_scorer
from .collapse import CollapseError, figures_of, level_correlation
from .crops import join
from .export import export_quietly
from .latent_search import search
from .reproducible import machine
from .search_graph import Z_START
from .standardise import Standardise, standardise_each
from .training import MEAN_IMAGE, UNTRAINED_START, TrainingSet, finish, report

SELF_CHECK_STEPS = 3
"""Few, since long searches are mildly chaotic and processors differ."""
ABLATIONS = (MEAN_IMAGE, UNTRAINED_START)
_BATCH = 16
_CHECKED = 32
"""Windows that the final networks are checked on."""


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


def train(
    training: TrainingSet,
    out: Path,
    settings: AnoGanSettings | None = None,
    *,
    licence: str | None = None,
    preset: str = "default",
    allow_collapse: bool = False,
) -> Detector:
    """Train on every fold but one for held-out residuals, then on all; calibrate and write. Prints progress.

    Raises:
        CollapseError: networks that do not follow their input, or a score that is the level.
    """
    started = time.monotonic()
    settings = settings or AnoGanSettings()
    index, ids, folds = training.machine_index, len(training.ids), training.split.count
    standardise = Standardise.fit(training.log_mel, index, ids, settings.normalisation)
    images = standardise.apply(training.log_mel, index)
    centred = averaged(standardise.centred(images, index))
    residuals, losses, varieties = np.zeros_like(centred), np.zeros(len(images)), []
    for number, (fit, out_of_fold) in enumerate(training.split.parts()):
        networks = _networks(images[fit], settings, training.seed + number, f"AnoGAN {number + 1} of {folds + 1}")
        residuals[out_of_fold], losses[out_of_fold] = residuals_of(networks, images[out_of_fold])
        varieties.append(variety(networks, images[out_of_fold]))
        # Networks that collapsed are known by the first fold: no need to train the others.
        figures_of(residuals[out_of_fold], centred[out_of_fold], variety=varieties[-1]).check(allow_collapse)
    networks = _networks(images, settings, training.seed + folds, f"AnoGAN {folds + 1} of {folds + 1}")
    # Of clips that it was trained on: not the figures to state, but a network that collapsed has bad ones here too.
    some = np.linspace(0, len(images) - 1, min(len(images), _CHECKED)).round().astype(np.intp)
    left, _ = residuals_of(networks, images[some])
    figures_of(left, centred[some], variety=variety(networks, images)).check(allow_collapse)
    scorer, held_out = None, losses
    if settings.statistics:
        others = standardise_each([b.images for b in training.background], settings.normalisation)
        # In the networks' own folds: a network is another than those whose residuals the distances were fitted to, and
        # the held-out scores must have that in them, or the shipped one would find all sound unusual.
        fitted = fit_clip_scorer(
            Images(residuals, index),
            ids,
            training.split,
            background=[Images(residuals_of(networks, o.values)[0], o.machine_index) for o in others],
        )
        without = fit_clip_scorer(
            Images(centred, index),
            ids,
            training.split,
            background=[Images(averaged(o.values), o.machine_index) for o in others],
        )
        scorer, held_out = ClipScorer.of_variants([fitted.scorer, without.scorer]), fitted.held_out
    figures = figures_of(
        residuals,
        centred,
        variety=float(np.min(varieties)),
        level=level_correlation(held_out, training.windows.level_dbfs, index),
    )
    figures.check(allow_collapse)
    crops_per_window = crops(torch.from_numpy(images[:1])).shape[0]
    before, after = Before(standardise).eval(), After(standardise, scorer, crops_per_window).eval()
    detector = finish(
        "anogan",
        AnoGanDetector(before, networks, after, SELF_CHECK_STEPS),
        training,
        held_out,
        out,
        settings={
            "preset": preset,
            **dataclasses.asdict(settings),
            **machine(),
            "seed": training.seed,
            "folds": folds,
            "collapse": figures.as_settings(allow_collapse),
        },
        licence=licence,
        ablations=ABLATIONS if settings.statistics and settings.encoder else (),
        model=compose(before, networks, after, images.shape[1:]),
        search_steps=SELF_CHECK_STEPS,
    )
    report(detector, training, started)
    return detector


def residuals_of(networks: AnoGan, images: Float32Array) -> tuple[Float32Array, NDArray[np.float64]]:
    """What the search leaves of standardised windows ``[window, mel, frame]``.

    Returns:
        Windows less their reconstructions ``[window, mel / 2, frame]``, and mean A(x) ``[window]``.

    Raises:
        CollapseError: the loss is not finite: the networks diverged.
    """
    searched = networks.latent_search()
    residuals, losses = [], []
    batches = tqdm(range(0, len(images), _BATCH), desc="search", unit="batch", leave=False)
    for begin in batches:
        image = torch.from_numpy(images[begin : begin + _BATCH])
        reconstruction, loss = search(searched, crops(image), networks.settings.search_steps)
        residuals.append((average_mels(image) - join(reconstruction, image.shape[2])).numpy())
        losses.append(loss.reshape(len(image), -1).mean(dim=1).double().numpy())
    if not np.isfinite(all_losses := np.concatenate(losses)).all():
        raise CollapseError("the networks diverged: A(x) is not finite; take smaller learning rates")
    return np.concatenate(residuals), all_losses


def averaged(images: Float32Array) -> Float32Array:
    """Standardised windows as the networks see them: neighbouring mels averaged, ``[window, mel / 2, frame]``."""
    done: Float32Array = average_mels(torch.from_numpy(images)).numpy()
    return done


def compose(before: Before, networks: AnoGan, after: After, shape: tuple[int, ...]) -> onnx.ModelProto:
    """One graph with inputs ``log_mel``, ``machine_id``, ``ablation``, and ``search_steps`` (with a default).

    Args:
        before: log-Mel to crops.
        networks: with their search.
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
    middle = networks.search_model()
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


def _networks(images: Float32Array, settings: AnoGanSettings, seed: int, title: str) -> AnoGan:
    return train_anogan(images, dataclasses.replace(settings, seed=seed), title=title)


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
