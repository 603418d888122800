"""Scores an image by how far its statistics are from those of normal clips.

Each block of statistics has a mean for each machine id and one covariance pooled over them, shrunk after Ledoit and
Wolf (2004). Its score is the logarithm of the Mahalanobis distance, standardised on scores of clips that were held out
by recording; the clip's score is the mean over the blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from .clip_statistics import Block, EventShape, Flux, Mean, Peaks

_EPSILON = 1e-9


def default_blocks(mels: int) -> list[Block]:
    """What the study behind this project found to carry: mostly what is not stationary."""
    return [Mean(mels), Flux(mels), Flux(mels, pooled=2), Peaks(mels), EventShape(mels)]


class Distance(nn.Module):
    """Squared Mahalanobis distance of features from the mean of their machine id, with a pooled covariance."""

    def __init__(self, mean: NDArray[np.float64], spread: NDArray[np.float64], precision: NDArray[np.float64]) -> None:
        """
        Args:
            mean: shape ``[id, feature]``.
            spread: of the within-id residuals, shape ``[feature]``; they are divided by it.
            precision: inverse covariance of the scaled residuals, shape ``[feature, feature]``.
        """
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32))
        self.register_buffer("scale", torch.tensor(1.0 / spread, dtype=torch.float32))
        # The distance is computed as the length of a whitened vector: never negative, and well conditioned in float32.
        factor = np.linalg.cholesky(precision)
        self.register_buffer("whitening", torch.tensor(factor, dtype=torch.float32))

    def forward(self, features: Tensor, machine_id: Tensor) -> tuple[Tensor, Tensor]:
        """Squared distance ``[window]`` and what each feature adds to it ``[window, feature]`` (it can be negative)."""
        residual = (features - self.mean[machine_id]) * self.scale
        white = residual @ self.whitening
        return (white**2).sum(dim=1), residual * (white @ self.whitening.T)


def fit_distance(features: NDArray[np.float64], machine_index: NDArray[np.intp], ids: int) -> Distance:
    """Fit means and the pooled, shrunk covariance to features ``[window, feature]`` of normal windows."""
    mean = np.stack([features[machine_index == i].mean(axis=0) for i in range(ids)])
    residual = features - mean[machine_index]
    spread = residual.std(axis=0) + 1e-6
    return Distance(mean, spread, np.linalg.inv(shrunk_covariance(residual / spread)))


def shrunk_covariance(centred: NDArray[np.float64]) -> NDArray[np.float64]:
    """Covariance of centred samples ``[sample, feature]``, shrunk towards a sphere.

    Ledoit and Wolf, "A well-conditioned estimator for large-dimensional covariance matrices", J. Multivar. Anal. 88,
    2004, equations 14 to 16 (the same as scikit-learn's ``ledoit_wolf``).
    """
    samples, size = centred.shape
    covariance = centred.T @ centred / samples
    mean_variance = np.trace(covariance) / size
    distance = ((covariance - mean_variance * np.eye(size)) ** 2).sum() / size
    fourth = ((centred**2).T @ centred**2).sum() / samples
    error = (fourth - (covariance**2).sum()) / (size * samples)
    shrinkage = min(error, distance) / distance if distance > 0 else 1.0
    return (1 - shrinkage) * covariance + shrinkage * mean_variance * np.eye(size)


class ClipScorer(nn.Module):
    """Image and machine id in, score and anomaly map out."""

    def __init__(self, blocks: Sequence[Block], distances: Sequence[Distance], centre: Tensor, spread: Tensor) -> None:
        """
        Args:
            blocks: of statistics.
            distances: one for each block.
            centre: mean log distance of held-out normal clips, shape ``[block, id]``.
            spread: its standard deviation, pooled over ids, shape ``[block]``.
        """
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.distances = nn.ModuleList(distances)
        self.register_buffer("centre", centre.float())
        self.register_buffer("spread", spread.float())

    def forward(self, image: Tensor, machine_id: Tensor) -> tuple[Tensor, Tensor]:
        """Score ``[window]`` and anomaly map ``[window, mel, frame]`` of an image of the map's shape.

        The map shows where the distance beyond the usual comes from; its mean over the cells is what the blocks that
        deviate more than usual add to the score.
        """
        scores, maps = [], []
        for number, (block, distance) in enumerate(zip(self.blocks, self.distances, strict=True)):
            squared, parts = distance(block(image), machine_id)
            log_distance = torch.log(squared + _EPSILON) / 2
            score = (log_distance - self.centre[number][machine_id]) / self.spread[number]
            parts = parts.clamp(min=0)
            share = parts / (parts.sum(dim=1, keepdim=True) + _EPSILON)
            maps.append(block.spread(image, share * score.clamp(min=0)[:, None]))
            scores.append(score)
        cells = image.shape[1] * image.shape[2]
        return torch.stack(scores).mean(dim=0), torch.stack(maps).mean(dim=0) * cells


@dataclass(frozen=True)
class FittedScorer:
    """A scorer fitted to all windows, and scores as windows get them that were not trained on."""

    scorer: ClipScorer
    held_out: NDArray[np.float64]
    """Out-of-fold score of every training window, shape ``[window]``."""


def fit_clip_scorer(
    images: NDArray[np.float32],
    machine_index: NDArray[np.intp],
    ids: int,
    folds: NDArray[np.intp],
    *,
    blocks: Callable[[int], list[Block]] = default_blocks,
) -> FittedScorer:
    """Fit on normal images.

    Args:
        images: shape ``[window, mel, frame]``; residuals must be out of fold already, of folds that may be others.
        machine_index: index of each window's machine id, shape ``[window]``.
        ids: how many machine ids there are.
        folds: fold of each window, split by recording, shape ``[window]``.
        blocks: makes the statistics for a number of mels.
    """
    made = blocks(images.shape[1])
    distances, centres, spreads = [], [], []
    held_out = np.zeros(len(images))
    for block in made:
        features = block_features(block, images)
        log_distances = np.zeros(len(images))
        for fold in np.unique(folds):
            out = folds == fold
            fitted = fit_distance(features[~out], machine_index[~out], ids)
            log_distances[out] = _log_distances(fitted, features[out], machine_index[out])
        centre = np.array([log_distances[machine_index == i].mean() for i in range(ids)])
        deviation = log_distances - centre[machine_index]
        spread = float(np.sqrt((deviation**2).mean())) + 1e-6
        held_out += deviation / spread / len(made)
        distances.append(fit_distance(features, machine_index, ids))
        centres.append(centre)
        spreads.append(spread)
    scorer = ClipScorer(made, distances, torch.tensor(np.stack(centres)), torch.tensor(spreads))
    return FittedScorer(scorer.eval(), held_out)


@torch.no_grad()
def block_features(block: Block, images: NDArray[np.float32], batch: int = 64) -> NDArray[np.float64]:
    """Features of many images, shape ``[window, feature]``."""
    parts = [block(torch.from_numpy(images[i : i + batch])) for i in range(0, len(images), batch)]
    return torch.cat(parts).double().numpy()


@torch.no_grad()
def _log_distances(
    distance: Distance, features: NDArray[np.float64], machine_index: NDArray[np.intp]
) -> NDArray[np.float64]:
    squared, _ = distance(torch.tensor(features, dtype=torch.float32), torch.from_numpy(machine_index))
    return (torch.log(squared + _EPSILON) / 2).double().numpy()
