"""Mahalanobis distance of features from the mean of their machine, with a covariance pooled over machines.

A machine has a handful of recordings, too few for a covariance of its own; how features vary from recording to
recording is much the same for the machines of a site, though, since it is the site that varies.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from .scratch import all_rows, chunks, scratch

_CHUNK = 4096
"""Windows whose features are computed with at a time."""
_LEAST_SPREAD = 1e-6
_LEAST_SHRINKAGE = 1e-4
"""Keeps a covariance of fewer different windows than features invertible, whatever the estimate says."""


class Distance(nn.Module):
    """Squared Mahalanobis distance of features from the mean of their machine id, with a pooled covariance."""

    mean: Tensor
    scale: Tensor
    whitening: Tensor

    def __init__(self, mean: Tensor, scale: Tensor, whitening: Tensor) -> None:
        """
        Args:
            mean: shape ``[variant, id, feature]``.
            scale: one over the spread of the within-id residuals, shape ``[variant, feature]``.
            whitening: its product with its own transpose is the inverse covariance of the scaled residuals, shape
                ``[variant, feature, feature]``. So the distance is the length of a whitened vector: never negative, and
                well conditioned in float32.
        """
        super().__init__()
        for name, value in (("mean", mean), ("scale", scale), ("whitening", whitening)):
            self.register_buffer(name, value.float())

    @classmethod
    def of_variants(cls, distances: Sequence[Distance]) -> Distance:
        """One module with the variants of several; see `edge_asd_train.clip_scorer.ClipScorer`."""
        return cls(*(torch.cat([getattr(d, name) for d in distances]) for name in ("mean", "scale", "whitening")))

    def forward(self, features: Tensor, machine_id: Tensor, variant: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Squared distance ``[window]`` and what each feature adds to it ``[window, feature]`` (it can be negative).

        Args:
            features: ``[window, feature]``.
            machine_id: index ``[window]``.
            variant: index ``[]``; the first unless given.
        """
        index = torch.zeros(1, dtype=torch.int64) if variant is None else variant.reshape(1)
        mean, scale, whitening = (b.index_select(0, index).squeeze(0) for b in (self.mean, self.scale, self.whitening))
        residual = (features - mean[machine_id]) * scale
        white = residual @ whitening
        return (white**2).sum(dim=1), residual * (white @ whitening.T)


def fit_distance(
    features: NDArray[np.float64],
    machine_index: NDArray[np.intp],
    ids: int,
    others: Sequence[NDArray[np.float64]] = (),
    rows: NDArray[np.intp] | None = None,
) -> Distance:
    """Fit means and the pooled, shrunk covariance to normal windows.

    Args:
        features: shape ``[window, feature]``.
        machine_index: index of each window's machine id, ``[window]``.
        ids: how many machine ids there are, all of them among the windows.
        others: scaled residuals of other machines, each ``[window, feature]``; see `scaled_residuals`.
        rows: indices of the windows that are fitted; all unless given.
    """
    rows = all_rows(len(features)) if rows is None else rows
    mean, spread = _mean_and_spread(features, machine_index, ids, rows)
    covariance = _shrunk(
        itertools.chain(
            (part / spread for part in _residuals(features, machine_index, mean, rows)),
            *((other[some] for some in chunks(len(other), _CHUNK)) for other in others),
        )
    )
    whitening = np.linalg.cholesky(np.linalg.inv(covariance))
    return Distance(torch.tensor(mean)[None], torch.tensor(1.0 / spread)[None], torch.tensor(whitening)[None])


def scaled_residuals(features: NDArray[np.float64], machine_index: NDArray[np.intp]) -> NDArray[np.float64]:
    """Features ``[window, feature]`` less the mean of their id, over their spread: what varies within the machines."""
    rows = all_rows(len(features))
    mean, spread = _mean_and_spread(features, machine_index, int(machine_index.max()) + 1, rows)
    scaled = scratch(features.shape, np.float64)
    parts = _residuals(features, machine_index, mean, rows)
    for some, part in zip(chunks(len(rows), _CHUNK), parts, strict=True):
        np.divide(part, spread, out=scaled[some])
    return scaled


def shrunk_covariance(centred: NDArray[np.float64]) -> NDArray[np.float64]:
    """Covariance of centred samples ``[sample, feature]``, shrunk towards a sphere.

    Ledoit and Wolf, "A well-conditioned estimator for large-dimensional covariance matrices", J. Multivar. Anal. 88,
    2004, equations 14 to 16 (the same as scikit-learn's ``ledoit_wolf``).
    """
    return _shrunk(centred[some] for some in chunks(len(centred), _CHUNK))


def _mean_and_spread(
    features: NDArray[np.float64], machine_index: NDArray[np.intp], ids: int, rows: NDArray[np.intp]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean of each id ``[id, feature]``, and standard deviation of what remains without it ``[feature]``.

    It is 1 for a feature that never varies, which would else be infinitely telling. An id without windows has mean 0.
    """
    mean = np.zeros((ids, features.shape[1]))
    for some in chunks(len(rows), _CHUNK):
        of, part = machine_index[rows[some]], features[rows[some]]
        for i in np.unique(of):
            mean[i] += part[of == i].sum(axis=0)
    mean /= np.maximum(np.bincount(machine_index[rows], minlength=ids), 1)[:, None]
    squares = sum((part**2).sum(axis=0) for part in _residuals(features, machine_index, mean, rows))
    spread: NDArray[np.float64] = np.sqrt(squares / len(rows))
    return mean, np.where(spread < _LEAST_SPREAD, 1.0, spread)


def _residuals(
    features: NDArray[np.float64], machine_index: NDArray[np.intp], mean: NDArray[np.float64], rows: NDArray[np.intp]
) -> Iterator[NDArray[np.float64]]:
    """Features of some windows less the mean of their id, ``[window, feature]``, chunk by chunk."""
    for some in chunks(len(rows), _CHUNK):
        yield features[rows[some]] - mean[machine_index[rows[some]]]


def _shrunk(parts: Iterable[NDArray[np.float64]]) -> NDArray[np.float64]:
    """The shrunk covariance of centred samples that come in parts; see `shrunk_covariance`."""
    samples, covariance, fourth = 0, np.zeros(()), 0.0
    for part in parts:
        samples += len(part)
        covariance = covariance + part.T @ part
        # The sum over both features of the products of their squares, of each sample.
        fourth += float(((part**2).sum(axis=1) ** 2).sum())
    size = len(covariance)
    covariance, fourth = covariance / samples, fourth / samples
    mean_variance = np.trace(covariance) / size
    if mean_variance <= 0:  # nothing varies at all
        return np.eye(size)
    distance = ((covariance - mean_variance * np.eye(size)) ** 2).sum() / size
    error = (fourth - (covariance**2).sum()) / (size * samples)
    shrinkage = max(min(error, distance) / distance, _LEAST_SHRINKAGE) if distance > 0 else 1.0
    return (1 - shrinkage) * covariance + shrinkage * mean_variance * np.eye(size)
