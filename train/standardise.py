"""The image that networks are shown of a window: its log-Mel, level taken away, standardised per mel and machine id."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edge_asd.logmel import Float32Array

from .clip_scorer import Images

_LEAST_SPREAD_DB = 0.1


class Standardise(nn.Module):
    """Log-Mel less its clip's mean level, then less the mean and over the spread of each mel of its machine id.

    Or, for the sake of comparison, the log-Mel as it is.
    """

    mean: Tensor
    spread: Tensor

    def __init__(self, mean: NDArray[np.float32], spread: NDArray[np.float32], *, normalise: bool = True) -> None:
        """
        Args:
            mean: of the (levelled) log-Mel, shape ``[id, mel]``, dB.
            spread: its standard deviation, same shape.
            normalise: else images are log-Mels as they are.
        """
        super().__init__()
        self.normalise = normalise
        self.register_buffer("mean", torch.from_numpy(mean))
        self.register_buffer("spread", torch.from_numpy(spread))

    @classmethod
    def fit(
        cls, log_mel: Float32Array, machine_index: NDArray[np.intp], ids: int, *, normalise: bool = True
    ) -> Standardise:
        """Means and spreads over windows ``[window, mel, frame]`` and their frames."""
        levelled = log_mel - log_mel.mean(axis=(1, 2), keepdims=True) if normalise else log_mel
        of_id = [levelled[machine_index == i] for i in range(ids)]
        mean = np.stack([part.mean(axis=(0, 2)) for part in of_id])
        spread = np.stack([part.std(axis=(0, 2)) + _LEAST_SPREAD_DB for part in of_id])
        return cls(mean.astype(np.float32), spread.astype(np.float32), normalise=normalise)

    def forward(self, log_mel: Tensor, machine_id: Tensor) -> Tensor:
        """Both arguments with one entry for each window; shape stays ``[window, mel, frame]``."""
        if not self.normalise:
            return log_mel
        levelled = log_mel - log_mel.mean(dim=(1, 2), keepdim=True)
        return (levelled - self.mean[machine_id][:, :, None]) / self.spread[machine_id][:, :, None]

    def mean_image(self, machine_id: Tensor) -> Tensor:
        """What the training windows of an id look like on average, ``[window, mel, 1]``."""
        mean = self.mean[machine_id][:, :, None]
        return torch.zeros_like(mean) if self.normalise else mean

    @torch.no_grad()
    def apply(self, log_mel: Float32Array, machine_index: NDArray[np.intp]) -> Float32Array:  # type: ignore[override]
        """The same for arrays."""
        done: Float32Array = self(torch.from_numpy(log_mel), torch.from_numpy(machine_index)).numpy()
        return done

    def centred(self, images: Float32Array, machine_index: NDArray[np.intp]) -> Float32Array:
        """Images ``[window, mel, frame]`` less the mean image of their id."""
        less: Float32Array = images - self.mean_image(torch.from_numpy(machine_index)).numpy()
        return less


def standardise_each(machines: Sequence[Images], *, normalise: bool = True) -> list[Images]:
    """Log-Mels of other machines to images, each by its own normal sound."""
    made = []
    for machine in machines:
        ids = int(machine.machine_index.max()) + 1
        standardise = Standardise.fit(machine.values, machine.machine_index, ids, normalise=normalise)
        made.append(Images(standardise.apply(machine.values, machine.machine_index), machine.machine_index))
    return made
