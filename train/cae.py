"""The convolutional autoencoder (CAE): trained on random crops of the log-Mel to give them back.

What it cannot reconstruct of a window is scored: by the same statistics as the ``statistics`` detector takes of the
window itself, or by its mean square alone, as the report does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from edge_asd.detector import Detector
from edge_asd.errors import UsageError
from edge_asd.logmel import Float32Array

from .cae_network import Autoencoder, CaeSettings
from .clip_scorer import ClipScorer, Images, fit_clip_scorer
from .collapse import figures_of, level_correlation
from .crops import cut, join, random_crops
from .reproducible import device, machine, reproducible
from .scratch import all_rows, chunks, scratch
from .standardise import Standardise, standardise_each
from .training import MEAN_IMAGE, TrainingSet, finish
from .training_curve import WINDOWS, TrainingCurve
from .work_folder import NetworkWork, Resumable, WorkFolder, make_resumably

_BATCH = 16
"""Windows that are reconstructed at a time."""


class CaeDetector(nn.Module):
    """Standardise, reconstruct crop by crop, score the residual."""

    def __init__(
        self, standardise: Standardise, network: Autoencoder, scorer: ClipScorer | None, crop_frames: int
    ) -> None:
        """
        Args:
            standardise: log-Mel to image.
            network: trained on crops of such images.
            scorer: of residuals; its second variant of images less their mean, for the ablation. Without one the score
                is the mean squared error.
            crop_frames: of a crop.
        """
        super().__init__()
        self.standardise, self.network, self.scorer, self.crop_frames = standardise, network, scorer, crop_frames

    def forward(self, log_mel: Tensor, machine_id: Tensor, ablation: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Score ``[window]``, anomaly map ``[window, mel, frame]``, mean squared error ``[window]``, reconstruction in
        dB ``[window, mel, frame]``.

        With ablation 1 the reconstruction is the training mean.
        """
        image = self.standardise(log_mel, machine_id)
        reconstruction = reconstruct(self.network, image, self.crop_frames)
        reconstruction = torch.where(ablation == 0, reconstruction, self.standardise.mean_image(machine_id))
        residual, reconstructed = image - reconstruction, self.standardise.undo(reconstruction, log_mel, machine_id)
        squares = residual**2
        if self.scorer is None:
            return squares.mean(dim=(1, 2)), squares, squares.mean(dim=(1, 2)).clone(), reconstructed
        score, anomaly_map = self.scorer(residual, machine_id, ablation)
        return score, anomaly_map, squares.mean(dim=(1, 2)), reconstructed


def train(
    training: TrainingSet,
    out: Path,
    settings: CaeSettings | None = None,
    *,
    licence: str | None = None,
    preset: str = "default",
    allow_collapse: bool = False,
) -> Detector:
    """Train on every fold but one for held-out residuals, then on all; calibrate and write. Prints progress.

    A training that was killed goes on where it was, see `edge_asd_train.work_folder`.

    Raises:
        UsageError: crops that are longer than a window.
        CollapseError: the networks give the mean image whatever they are shown, or the score is the level.
        WorkError: another process trains the same detector.
    """
    chosen = settings or CaeSettings()
    frames = training.log_mel.shape[2]
    if chosen.crop_frames > frames:
        raise UsageError(f"crop_frames {chosen.crop_frames} is more than the {frames} frames of a window")

    def make(work: WorkFolder) -> Detector:
        return _train(training, out, chosen, work, licence=licence, preset=preset, allow_collapse=allow_collapse)

    return make_resumably("cae", training, out, chosen, make)


def _train(
    training: TrainingSet,
    out: Path,
    settings: CaeSettings,
    work: WorkFolder,
    *,
    licence: str | None,
    preset: str,
    allow_collapse: bool,
) -> Detector:
    index, ids = training.machine_index, len(training.ids)
    standardise = Standardise.fit(training.log_mel, index, ids, settings.normalisation)
    images = standardise.apply(training.log_mel, index)
    centred = standardise.centred(images, index)
    parts = training.parts(settings.validation)
    total = sum(settings.batches(int(fit.sum())) for fit, _ in parts)
    total += 0 if settings.validation else settings.batches(len(images))
    residuals, curves = scratch(images.shape), []
    heard = np.flatnonzero(np.logical_or.reduce([out for _, out in parts]))
    with tqdm(total=total, desc=f"CAE of {training.machine}", unit="batch") as bar:
        for number, (fit, out_of_fold) in enumerate(parts):
            fitted_rows, held_out_rows = np.flatnonzero(fit), np.flatnonzero(out_of_fold)
            seed, kept = training.seed + number, work.network(number)
            network = fit_network(images, fitted_rows, settings, seed, bar, kept, left_out=held_out_rows)
            curves.append(network.curve)
            residuals_of(network, images, settings.crop_frames, rows=held_out_rows, out=residuals)
            # A network that collapsed is known by the first fold: no need to train the others.
            figures_of(residuals, centred, rows=held_out_rows).check(allow_collapse)
        if not settings.validation:
            everything, last = all_rows(len(images)), len(parts)
            network = fit_network(images, everything, settings, training.seed + last, bar, work.network(last))
            # Of clips that it was trained on: not the figure to state, but a network that collapsed has a bad one here.
            figures_of(residuals_of(network, images, settings.crop_frames), centred).check(allow_collapse)
    scorer, held_out = None, mean_squares(residuals)
    if settings.statistics:
        others = standardise_each([b.images for b in training.background], settings.normalisation)
        # In the networks' own folds: a network is another than those whose residuals the distances were fitted to, and
        # the held-out scores must have that in them, or the shipped one would find all sound unusual.
        fitted = fit_clip_scorer(
            Images(residuals, index),
            ids,
            training.split,
            background=[Images(residuals_of(network, o.values, settings.crop_frames), o.machine_index) for o in others],
        )
        without = fit_clip_scorer(Images(centred, index), ids, training.split, background=others)
        scorer, held_out = ClipScorer.of_variants([fitted.scorer, without.scorer]), fitted.held_out
    level = level_correlation(held_out[heard], training.windows.level_dbfs[heard], index[heard])
    figures = figures_of(residuals, centred, rows=heard, level=level)
    figures.check(allow_collapse)
    return finish(
        "cae",
        CaeDetector(standardise, network, scorer, settings.crop_frames).eval(),
        training,
        held_out,
        out,
        settings={
            "preset": preset,
            **asdict(settings),
            **machine(),
            "seed": training.seed,
            "folds": len(parts),
            "collapse": figures.as_settings(allow_collapse),
            "curve": curves[0],
        },
        licence=licence,
        ablations=(MEAN_IMAGE,),
        reconstructs=True,
        heard=heard,
    )


def fit_network(
    images: Float32Array,
    rows: NDArray[np.intp],
    settings: CaeSettings,
    seed: int,
    bar: tqdm[Any],
    work: NetworkWork | None = None,
    *,
    left_out: NDArray[np.intp] | None = None,
) -> Autoencoder:
    """Train one network on random crops of images ``[window, mel, frame]``; the same seed gives the same network.

    On a GPU where there is one. Batches are drawn on the CPU, so the draw does not depend on that.

    Args:
        images: of which some are trained on.
        rows: their indices.
        settings: how.
        seed: of the weights and the draw.
        bar: is moved on by one for each batch.
        work: how far the training has come, where that is kept.
        left_out: indices of images that are not trained on, for the network's ``curve`` (mean squared errors).
    """
    work = work or NetworkWork()
    state = work.finished()
    if state is None:
        state = _fit(images, rows, settings, seed, bar, work, left_out)
        work.finish(state)
    else:
        bar.update(settings.batches(len(rows)))
    # Always made anew from the state: a network that was kept must not differ from one that was not, to the bit.
    with torch.random.fork_rng():
        network = Autoencoder(settings)
    network.load_state_dict(state["network"])
    network.curve = state["curve"]
    return network.eval()


def _fit(
    images: Float32Array,
    rows: NDArray[np.intp],
    settings: CaeSettings,
    seed: int,
    bar: tqdm[Any],
    work: NetworkWork,
    left_out: NDArray[np.intp] | None,
) -> dict[str, Any]:
    """The state of the trained network, and the curve of its training."""
    where = device()
    random = torch.Generator().manual_seed(seed)
    windows = torch.from_numpy(images)
    with reproducible():
        torch.manual_seed(seed)
        network = Autoencoder(settings).to(where, memory_format=torch.channels_last)
        optimiser = torch.optim.Adam(network.parameters(), lr=settings.learning_rate)
        batches = settings.batches(len(rows))
        schedule = _one_cycle(optimiser, settings.learning_rate, batches) if settings.one_cycle else None
        error = None if left_out is None else _error_on(images, left_out, network, settings.crop_frames, where)
        curve = TrainingCurve(batches, error)
        parts = {"network": network, "optimiser": optimiser, "curve": curve}
        parts |= {"schedule": schedule} if schedule else {}
        resumable = Resumable(parts, random)
        begin = work.begin(resumable)
        bar.update(begin)
        for number in range(begin, batches):
            crops = random_crops(windows, rows, settings.batch, settings.crop_frames, random).to(where)
            loss = nn.functional.mse_loss(network(crops), crops)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            if schedule is not None:
                schedule.step()
            if number % 50 == 0:
                bar.set_postfix(error=f"{float(loss.detach()):.3f}", refresh=False)
            curve.after_batch(number + 1, loss)
            bar.update()
            work.after_batch(resumable, number + 1)
    state = {name: value.cpu().contiguous() for name, value in network.state_dict().items()}
    return {"network": state, "curve": curve.rounded()}


def _error_on(
    images: Float32Array, rows: NDArray[np.intp], network: Autoencoder, crop_frames: int, where: torch.device
) -> Callable[[], float]:
    """Takes the mean squared error on a few of these images."""
    some = rows[np.unique(np.linspace(0, len(rows) - 1, min(len(rows), WINDOWS)).round().astype(np.intp))]
    query = cut(torch.from_numpy(images[some]), crop_frames).to(where)

    @torch.no_grad()
    def error() -> float:
        network.eval()
        found = float(nn.functional.mse_loss(network(query), query))
        network.train()
        return found

    return error


def _one_cycle(optimiser: torch.optim.Optimizer, peak: float, batches: int) -> torch.optim.lr_scheduler.OneCycleLR:
    return torch.optim.lr_scheduler.OneCycleLR(optimiser, peak, total_steps=batches + 1, cycle_momentum=False)


def reconstruct(network: Autoencoder, images: Tensor, crop_frames: int) -> Tensor:
    """Images ``[window, mel, frame]`` as the network gives them back, crop by crop."""
    return join(network(cut(images, crop_frames)), images.shape[2])


@torch.no_grad()
def residuals_of(
    network: Autoencoder,
    images: Float32Array,
    crop_frames: int,
    *,
    rows: NDArray[np.intp] | None = None,
    out: Float32Array | None = None,
) -> Float32Array:
    """Image less its reconstruction, ``[window, mel, frame]``.

    Args:
        network: trained.
        images: ``[window, mel, frame]``.
        crop_frames: of a crop.
        rows: indices of the images that are wanted; all unless given.
        out: where their residuals are put, at the same indices; a new working file unless given.
    """
    rows = all_rows(len(images)) if rows is None else rows
    out = scratch(images.shape) if out is None else out
    for some in chunks(len(rows), _BATCH):
        image = torch.from_numpy(images[rows[some]])
        out[rows[some]] = (image - reconstruct(network, image, crop_frames)).numpy()
    return out


def mean_squares(residuals: Float32Array) -> NDArray[np.float64]:
    """Mean over the cells of each window ``[window, mel, frame]``: ``[window]``."""
    means = [(residuals[some] ** 2).mean(axis=(1, 2)) for some in chunks(len(residuals))]
    return np.concatenate(means).astype(np.float64)
