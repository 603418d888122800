"""From a trained AnoGAN to a detector: what the search cannot reconstruct of a window is scored.

The statistics of the residual are scored as those of a ``statistics`` detector are, or A(x) alone, as the report does.
The mean of A(x) over a window's crops is given beside it as ``report_score``.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from edge_asd.detector import Detector
from edge_asd.logmel import Float32Array

from .anogan import train_anogan, variety
from .anogan_graph import ABLATIONS, After, AnoGanDetector, Before, compose
from .anogan_networks import IMAGE_MELS, AnoGan, AnoGanSettings, average_mels, crops
from .clip_scorer import ClipScorer, Images, fit_clip_scorer
from .collapse import CollapseError, figures_of, level_correlation
from .crops import join
from .latent_search import search
from .reproducible import machine
from .scratch import all_rows, chunks, scratch
from .search_log import SearchLog
from .search_parity import check_search
from .standardise import Standardise, standardise_each
from .training import TrainingSet, finish
from .work_folder import NetworkWork, WorkFolder, make_resumably

SELF_CHECK_STEPS = 3
"""Few, since long searches are mildly chaotic and processors differ."""
_BATCH = 16
_CHECKED = 32
"""Windows that the final networks are checked on."""
_SEARCHES_COMPARED = 2
"""Windows whose long searches are compared with PyTorch's; some seconds."""


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

    A training that was killed goes on where it was, see `edge_asd_train.work_folder`.

    Raises:
        CollapseError: networks that do not follow their input, or a score that is the level.
        ExportError: ONNX Runtime computes something else than PyTorch, see `edge_asd_train.search_parity`.
        WorkError: another process trains the same detector.
    """
    chosen = settings or AnoGanSettings()

    def make(work: WorkFolder) -> Detector:
        return _train(training, out, chosen, work, licence=licence, preset=preset, allow_collapse=allow_collapse)

    return make_resumably("anogan", training, out, chosen, make)


def _train(
    training: TrainingSet,
    out: Path,
    settings: AnoGanSettings,
    work: WorkFolder,
    *,
    licence: str | None,
    preset: str,
    allow_collapse: bool,
) -> Detector:
    index, ids = training.machine_index, len(training.ids)
    parts = training.parts(settings.validation)
    trainings = len(parts) + (0 if settings.validation else 1)
    standardise = Standardise.fit(training.log_mel, index, ids, settings.normalisation)
    images = standardise.apply(training.log_mel, index)
    centred = averaged(standardise.centred(images, index))
    residuals, losses, varieties = scratch(centred.shape), np.full(len(images), np.nan), []
    is_scored = np.logical_or.reduce([out for _, out in parts])
    if not settings.statistics:
        is_scored &= some_of_each(np.where(is_scored, index, -1), training.split.fold, settings.held_out_windows)
    curves = []
    for number, (fit, out_of_fold) in enumerate(parts):
        kept = work.network(number)
        title = f"AnoGAN {number + 1} of {trainings}"
        left_out = np.flatnonzero(out_of_fold)
        networks = _networks(images, np.flatnonzero(fit), settings, training.seed + number, title, kept, left_out)
        curves.append(networks.curve)
        varieties.append(variety(networks, images, np.flatnonzero(out_of_fold)))
        rows = np.flatnonzero(out_of_fold & is_scored)
        residuals_of(networks, images, rows=rows, residuals=residuals, losses=losses, log=kept.search_log)
        # Networks that collapsed are known by the first fold: no need to train the others.
        figures_of(residuals, centred, rows=rows, variety=varieties[-1]).check(allow_collapse)
    heard = np.flatnonzero(is_scored)
    if not settings.validation:
        everything, last = all_rows(len(images)), len(parts)
        title = f"AnoGAN {trainings} of {trainings}"
        networks = _networks(images, everything, settings, training.seed + last, title, work.network(last), None)
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
        rows=heard,
        variety=float(np.min(varieties)),
        level=level_correlation(held_out[heard], training.windows.level_dbfs[heard], index[heard]),
    )
    figures.check(allow_collapse)
    crops_per_window = crops(torch.from_numpy(images[:1])).shape[0]
    searching = networks.search_model()
    some = np.unique(np.linspace(0, len(images) - 1, _SEARCHES_COMPARED).round().astype(np.intp))
    check_search(networks.latent_search(), searching, crops(torch.from_numpy(images[some])))
    before, after = Before(standardise).eval(), After(standardise, scorer, crops_per_window).eval()
    return finish(
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
            "folds": len(parts),
            "collapse": figures.as_settings(allow_collapse),
            "curve": curves[0],
        },
        licence=licence,
        ablations=ABLATIONS if settings.statistics and settings.encoder else (),
        model=compose(before, searching, after, images.shape[1:]),
        search_steps=SELF_CHECK_STEPS,
        heard=heard,
    )


def residuals_of(
    networks: AnoGan,
    images: Float32Array,
    *,
    rows: NDArray[np.intp] | None = None,
    residuals: Float32Array | None = None,
    losses: NDArray[np.float64] | None = None,
    log: Path | None = None,
) -> tuple[Float32Array, NDArray[np.float64]]:
    """What the search leaves of standardised windows.

    Args:
        networks: trained.
        images: ``[window, mel, frame]``.
        rows: indices of the windows that are searched; all unless given.
        residuals: where windows less their reconstructions are put, at the same indices, ``[window, mel / 2, frame]``;
            a new working file unless given.
        losses: the same for mean A(x), ``[window]``.
        log: file that keeps what was found, and from which it is taken where it is there already.

    Returns:
        Residuals and losses.

    Raises:
        CollapseError: the loss is not finite: the networks diverged.
    """
    rows = all_rows(len(images)) if rows is None else rows
    residuals = scratch((len(images), IMAGE_MELS, images.shape[2])) if residuals is None else residuals
    losses = np.full(len(images), np.nan) if losses is None else losses
    searched = networks.latent_search()
    with (
        SearchLog(log, residuals.shape[1:]) as kept,
        tqdm(total=len(rows), desc="search", unit="window", leave=False) as bar,
    ):
        done = 0
        for residual, mean_loss in kept.found(len(rows), _BATCH):
            residuals[rows[done]], losses[rows[done]] = residual, mean_loss
            done += 1
        bar.update(done)
        for some in (s for s in chunks(len(rows), _BATCH) if s.stop > done):
            image = torch.from_numpy(images[rows[some]])
            reconstruction, loss = search(searched, crops(image), networks.settings.search_steps)
            left = (average_mels(image) - join(reconstruction, image.shape[2])).numpy()
            mean_losses = loss.reshape(len(image), -1).mean(dim=1).numpy()
            if not np.isfinite(mean_losses).all():
                raise CollapseError("the networks diverged: A(x) is not finite; take smaller learning rates")
            residuals[rows[some]], losses[rows[some]] = left, mean_losses
            kept.add(left, mean_losses)
            bar.update(len(image))
    return residuals, losses


def averaged(images: Float32Array) -> Float32Array:
    """Standardised windows as the networks see them: neighbouring mels averaged, ``[window, mel / 2, frame]``."""
    done: Float32Array = scratch((len(images), IMAGE_MELS, images.shape[2]))
    for some in chunks(len(images)):
        done[some] = average_mels(torch.from_numpy(images[some])).numpy()
    return done


def some_of_each(machine_index: NDArray[np.intp], fold: NDArray[np.intp], count: int) -> NDArray[np.bool_]:
    """Mask ``[window]`` of ``count`` windows of each machine id, spread evenly over its folds and within them.

    Args:
        machine_index: of every window, ``[window]``.
        fold: of every window, ``[window]``.
        count: 1 or more; all of an id that has no more windows.
    """
    chosen = np.zeros(len(fold), bool)
    for i in np.unique(machine_index):
        own = np.flatnonzero(machine_index == i)
        own = own[np.argsort(fold[own], kind="stable")]
        chosen[own[np.unique(np.linspace(0, len(own) - 1, min(count, len(own))).round().astype(np.intp))]] = True
    return chosen


def _networks(
    images: Float32Array,
    rows: NDArray[np.intp],
    settings: AnoGanSettings,
    seed: int,
    title: str,
    work: NetworkWork,
    left_out: NDArray[np.intp] | None,
) -> AnoGan:
    settings = dataclasses.replace(settings, seed=seed)
    return train_anogan(images, settings, rows=rows, title=title, work=work, left_out=left_out)
