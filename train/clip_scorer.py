"""Scores an image by how far its statistics are from those of normal clips.

Each block of statistics has a mean for each machine id and one covariance pooled over them (and over other machines of
the site, where there are any), shrunk after Ledoit and Wolf (2004). Its score is the logarithm of the Mahalanobis
distance, standardised on scores of clips that were held out by recording; the clip's score is a soft maximum over the
blocks: a fault need not show in all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from .clip_statistics import Block, EventShape, Flux, FluxCorrelation, Mean, Peaks
from .distance import Distance, fit_distance, scaled_residuals
from .scratch import chunks, scratch
from .splits import Split

_EPSILON = 1e-9
_WINDOWS = 4096
"""Whose distances are computed at a time."""
_LEAST_SPREAD = 0.02
"""Of log distances; real ones have 0.1 and more. Less would let one block of statistics rule all scores."""


def default_blocks(mels: int) -> list[Block]:
    """What carries: mostly what is not stationary."""
    return [Mean(mels), Flux(mels), Flux(mels, bands=32), FluxCorrelation(mels), Peaks(mels), EventShape(mels)]


class ClipScorer(nn.Module):
    """Image and machine id in, score and anomaly map out.

    It may hold several variants of its distances, fitted to different images of the same clips: what an ablation is
    scored with must have been fitted to what the ablation sees.
    """

    centre: Tensor
    spread: Tensor

    def __init__(self, blocks: Sequence[Block], distances: Sequence[Distance], centre: Tensor, spread: Tensor) -> None:
        """
        Args:
            blocks: of statistics.
            distances: one for each block.
            centre: mean log distance of held-out normal clips, shape ``[variant, block, id]``.
            spread: its standard deviation, pooled over ids, shape ``[variant, block]``.
        """
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.distances = nn.ModuleList(distances)
        self.register_buffer("centre", centre.float())
        self.register_buffer("spread", spread.float())

    @classmethod
    def of_variants(cls, scorers: Sequence[ClipScorer]) -> ClipScorer:
        """One scorer with the distances of several, which must have the same blocks and ids."""
        return cls(
            [block for block in scorers[0].blocks if isinstance(block, Block)],
            [
                Distance.of_variants([d for d in of_block if isinstance(d, Distance)])
                for of_block in zip(*(s.distances for s in scorers), strict=True)
            ],
            torch.cat([s.centre for s in scorers]),
            torch.cat([s.spread for s in scorers]),
        )

    def forward(self, image: Tensor, machine_id: Tensor, variant: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Score ``[window]`` and anomaly map ``[window, mel, frame]`` of an image of the map's shape.

        The map shows where the distance beyond the usual comes from: each block's score as far as it is above that of
        usual sound, by its share in the soft maximum, spread over the cells it came from.

        Args:
            image: ``[window, mel, frame]``.
            machine_id: index ``[window]``.
            variant: index ``[]``; the first unless given.
        """
        centre, spread = _of_variant(self.centre, variant), _of_variant(self.spread, variant)
        scores, parts = [], []
        for number, (block, distance) in enumerate(zip(self.blocks, self.distances, strict=True)):
            squared, of_feature = distance(block(image), machine_id, variant)
            scores.append((torch.log(squared + _EPSILON) / 2 - centre[number][machine_id]) / spread[number])
            parts.append(of_feature.clamp(min=0))
        score, shares = soft_maximum(torch.stack(scores))
        total, cells = torch.zeros(1), image.shape[1] * image.shape[2]
        for number, block in enumerate(self.blocks):
            of_feature = parts[number] / (parts[number].sum(dim=1, keepdim=True) + _EPSILON)
            # Times the cells, as the map's mean, not its sum, is what deviates.
            weight = of_feature * (shares[number] * scores[number].clamp(min=0) * cells)[:, None]
            total = total + block.spread(image, weight)  # type: ignore[operator]  # a stack of all takes 6 times as long
        return score, total


def soft_maximum(scores: Tensor) -> tuple[Tensor, Tensor]:
    """log of the mean of exp over blocks ``[block, window]``: ``[window]``; and each block's share in it."""
    highest = scores.amax(dim=0)
    weights = torch.exp(scores - highest)
    return highest + torch.log(weights.mean(dim=0)), weights / weights.sum(dim=0)


def _of_variant(values: Tensor, variant: Tensor | None) -> Tensor:
    return values[0] if variant is None else values.index_select(0, variant.reshape(1)).squeeze(0)


@dataclass(frozen=True)
class Images:
    """What a scorer is fitted to: log-Mels less their level, or residuals."""

    values: NDArray[np.float32]
    """``[window, mel, frame]``."""
    machine_index: NDArray[np.intp]
    """Index of each window's machine id, ``[window]``."""


@dataclass(frozen=True)
class FittedScorer:
    """A scorer fitted to all windows, and scores as windows get them that were not trained on."""

    scorer: ClipScorer
    held_out: NDArray[np.float64]
    """Out-of-fold score of every training window, shape ``[window]``."""


def fit_clip_scorer(
    images: Images,
    ids: int,
    split: Split,
    *,
    background: Sequence[Images] = (),
    blocks: Callable[[int], list[Block]] = default_blocks,
) -> FittedScorer:
    """Fit on normal images.

    Args:
        images: residuals must be out of fold already, of folds that may be others.
        ids: how many machine ids there are.
        split: by recording.
        background: images of other machines recorded on the same site; what varies there within an id joins the
            covariance.
        blocks: makes the statistics for a number of mels.
    """
    index = images.machine_index
    made = blocks(images.values.shape[1])
    features = features_of_blocks(made, images.values)
    of_others = [(features_of_blocks(made, b.values), b.machine_index) for b in background]
    distances, centres, spreads, scores = [], [], [], []
    for number, own in enumerate(features):
        others = [scaled_residuals(theirs[number], their_index) for theirs, their_index in of_others]
        log_distances = np.zeros(len(own))
        for fit, out in map(_rows_of, split.parts()):
            fitted = fit_distance(own, index, ids, others, rows=fit)
            log_distances[out] = _log_distances(fitted, own, index, out)
        centre = np.array([log_distances[index == i].mean() for i in range(ids)])
        deviation = log_distances - centre[index]
        spread = max(float(np.sqrt((deviation**2).mean())), _LEAST_SPREAD)
        scores.append(deviation / spread)
        distances.append(fit_distance(own, index, ids, others))
        centres.append(centre)
        spreads.append(spread)
    scorer = ClipScorer(made, distances, torch.tensor(np.stack(centres))[None], torch.tensor(spreads)[None])
    held_out, _ = soft_maximum(torch.tensor(np.stack(scores)))
    return FittedScorer(scorer.eval(), held_out.numpy())


@torch.no_grad()
def features_of_blocks(blocks: Sequence[Block], images: NDArray[np.float32]) -> list[NDArray[np.float64]]:
    """Features of many images, for each block ``[window, feature]`` in a working file.

    All blocks see an image while it is in memory: reading it anew for each would take as long again where there are
    more images than fit.
    """
    features = [scratch((len(images), block.size), np.float64) for block in blocks]
    for some in chunks(len(images)):
        part = torch.from_numpy(np.array(images[some]))
        for block, own in zip(blocks, features, strict=True):
            own[some] = block(part).numpy()
    return features


def block_features(block: Block, images: NDArray[np.float32]) -> NDArray[np.float64]:
    """Features of many images, shape ``[window, feature]``."""
    return features_of_blocks([block], images)[0]


def _rows_of(masks: tuple[NDArray[np.bool_], NDArray[np.bool_]]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    return np.flatnonzero(masks[0]), np.flatnonzero(masks[1])


@torch.no_grad()
def _log_distances(
    distance: Distance, features: NDArray[np.float64], machine_index: NDArray[np.intp], rows: NDArray[np.intp]
) -> NDArray[np.float64]:
    """Of the windows with these indices."""
    found = np.empty(len(rows))
    for some in chunks(len(rows), _WINDOWS):
        part = torch.tensor(features[rows[some]], dtype=torch.float32)
        squared, _ = distance(part, torch.from_numpy(machine_index[rows[some]]))
        found[some] = (torch.log(squared + _EPSILON) / 2).numpy()
    return found
