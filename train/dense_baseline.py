"""The baseline of DCASE 2020 Task 2, to be measured against: a dense autoencoder of five stacked frames.

Written anew from its public description: Koizumi et al., "Description and Discussion on DCASE2020 Challenge Task 2"
(https://arxiv.org/abs/2006.05822), and https://github.com/y-kawagu/dcase2020_task2_baseline. One network for all ids of
a machine type. Five neighbouring frames of 128 mels, in dB as they are, make a vector of 640; layers of four times 128,
8, four times 128 and 640 units, with batch normalisation and ReLU between; Adam, 1e-3, batches of 512, 100 epochs. A
clip's score is the mean over its vectors of their mean squared error.

The original on the slide rail of the development set (AUC, pAUC): id_00 .963 .818, id_02 .788 .629, id_04 .946 .740,
id_06 .702 .490. Known differences: this log-Mel pads with zeros and ends at -100 dB (librosa of that time mirrored, and
ended at -156 dB), and no tenth of the vectors is set aside, which the original used for a curve only.

It is a scorer to compare with and makes no detector file.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from math import ceil
from typing import Any

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from edge_asd.logmel import Float32Array

from .reproducible import device, reproducible

_GROUP = 512
"""Windows in memory at a time while training, 80 MB: their vectors are shuffled together."""
_SCORED_AT_ONCE = 16
"""Windows."""


@dataclass(frozen=True)
class DenseSettings:
    """What the baseline leaves to be set; its own values."""

    epochs: int = 100
    """Times that each vector is seen."""
    batch: int = 512
    """Vectors of a step, about."""
    learning_rate: float = 1e-3
    """Of Adam."""
    frames: int = 5
    """Neighbouring frames that make a vector."""
    hidden: int = 128
    """Units of a layer."""
    bottleneck: int = 8
    """Units of the middle one."""

    def steps(self, windows: int) -> int:
        """Epochs times groups of windows, which is what a progress bar counts."""
        return self.epochs * _groups(windows)


class DenseAutoencoder(nn.Module):
    """Vectors ``[vector, frames x mels]``, dB, and what is left of them after a bottleneck."""

    def __init__(self, mels: int, settings: DenseSettings) -> None:
        super().__init__()
        self.frames = settings.frames
        size, hidden = settings.frames * mels, settings.hidden
        widths = [size, *[hidden] * 4, settings.bottleneck, *[hidden] * 4]
        layers: list[nn.Module] = []
        for fed, fed_to in pairwise(widths):
            # Momentum and epsilon as Keras has them.
            layers += [nn.Linear(fed, fed_to), nn.BatchNorm1d(fed_to, momentum=0.01, eps=1e-3), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Linear(hidden, size))
        for layer in self.layers:
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)

    def forward(self, vectors: Tensor) -> Tensor:
        """The same shape again."""
        reconstruction: Tensor = self.layers(vectors)
        return reconstruction


def fit(log_mels: Float32Array, settings: DenseSettings, seed: int, bar: tqdm[Any] | None = None) -> DenseAutoencoder:
    """Train a network on the normal windows of a machine type; the same seed and number of threads give the same one.

    Args:
        log_mels: dB, shape ``[window, mel, frame]``; may be a memory map larger than memory. Each epoch reads each
            window once, in random order.
        settings: of the network and its training.
        seed: of the weights and of the order.
        bar: is moved on by `DenseSettings.steps`.

    Raises:
        ValueError: no windows, or windows of fewer frames than a vector has.
    """
    count, mels, frames = log_mels.shape
    if not count or frames < settings.frames:
        raise ValueError(f"{count} windows of {frames} frames: {settings.frames} frames at least make a vector")
    where = device()
    random = np.random.default_rng(seed)
    with reproducible():
        torch.manual_seed(seed)
        network = DenseAutoencoder(mels, settings).to(where).train()
        optimiser = torch.optim.Adam(network.parameters(), lr=settings.learning_rate)
        for _ in range(settings.epochs):
            for group in np.array_split(random.permutation(count), _groups(count)):
                errors = []
                for batch in _batches(log_mels, group, settings, random):
                    vectors = torch.from_numpy(batch).to(where)
                    loss = nn.functional.mse_loss(network(vectors), vectors)
                    optimiser.zero_grad(set_to_none=True)
                    torch.autograd.backward(loss)
                    optimiser.step()
                    errors.append(loss.detach())
                if bar is not None:
                    bar.set_postfix(error=f"{float(torch.stack(errors).mean()):.2f}", refresh=False)
                    bar.update()
    return network.cpu().eval()


@torch.no_grad()
def scores(network: DenseAutoencoder, log_mels: Float32Array) -> NDArray[np.float64]:
    """Mean over the vectors of a window of their mean squared error, dB squared, shape ``[window]``.

    Args:
        network: as `fit` gives it.
        log_mels: dB, shape ``[window, mel, frame]``; may be a memory map.
    """
    found = [np.zeros(0)]
    for start in range(0, len(log_mels), _SCORED_AT_ONCE):
        vectors = _vectors(log_mels[start : start + _SCORED_AT_ONCE], network.frames)
        flat = torch.from_numpy(np.ascontiguousarray(vectors).reshape(-1, vectors.shape[2]))
        errors = ((network(flat) - flat) ** 2).mean(dim=1)
        found.append(errors.reshape(vectors.shape[:2]).double().mean(dim=1).numpy())
    return np.concatenate(found)


def _groups(windows: int) -> int:
    return ceil(windows / _GROUP)


def _batches(
    log_mels: Float32Array, group: NDArray[np.intp], settings: DenseSettings, random: np.random.Generator
) -> Iterator[Float32Array]:
    """All vectors of some windows, in random order, ``[vector, frames x mels]``."""
    vectors = _vectors(log_mels[np.sort(group)], settings.frames)  # a file is read from front to back
    count, each = vectors.shape[:2]
    order = random.permutation(count * each)
    # Of almost the same size: a last batch of a few vectors would upset the batch normalisation.
    for part in np.array_split(order, ceil(len(order) / settings.batch)):
        yield vectors[part // each, part % each]


def _vectors(log_mels: Float32Array, frames: int) -> Float32Array:
    """Every run of neighbouring frames, first frame first, as a view ``[window, position, frames x mels]``."""
    count, mels, length = log_mels.shape
    in_time = np.ascontiguousarray(np.moveaxis(log_mels, 1, 2), np.float32).reshape(count, length * mels)
    return sliding_window_view(in_time, frames * mels, axis=1)[:, ::mels]
