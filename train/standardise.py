"""The image that networks are shown of a window: its log-Mel, unless told otherwise without its level and standardised
per mel and machine id, so that gain does not matter and no mel outweighs the others."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edge_asd.logmel import Float32Array

from .clip_scorer import Images
from .scratch import chunks, scratch

_LEAST_SPREAD_DB = 0.1


PER_MEL, GLOBAL, NONE = "per-mel", "global", "none"
NORMALISATIONS = (PER_MEL, GLOBAL, NONE)
"""Level taken away, then mean and spread of each mel and id; one mean and spread of all sound, level kept; dB."""


class Standardise(nn.Module):
    """Log-Mel to image: (log-Mel - offset) / spread."""

    offset: Tensor
    spread: Tensor
    typical: Tensor

    def __init__(
        self,
        offset: NDArray[np.float32],
        spread: NDArray[np.float32],
        typical: NDArray[np.float32],
        *,
        without_level: bool = True,
    ) -> None:
        """
        Args:
            offset: dB, shape ``[id, mel]``.
            spread: dB, same shape.
            typical: mean over the training windows of an id and their frames, of the image, same shape.
            without_level: each clip's mean level is taken away first.
        """
        super().__init__()
        self.without_level = without_level
        for name, value in (("offset", offset), ("spread", spread), ("typical", typical)):
            self.register_buffer(name, torch.from_numpy(value.astype(np.float32)))

    @classmethod
    def fit(
        cls,
        log_mel: Float32Array,
        machine_index: NDArray[np.intp],
        ids: int,
        normalisation: str = PER_MEL,
    ) -> Standardise:
        """Means and spreads over windows ``[window, mel, frame]`` and their frames.

        Raises:
            ValueError: no such normalisation.
        """
        if normalisation not in NORMALISATIONS:
            raise ValueError(f"normalisation {normalisation!r} is none of {', '.join(NORMALISATIONS)}")
        sums, squares = np.zeros((2, ids, log_mel.shape[1]))
        for some in chunks(len(log_mel)):
            shown = log_mel[some]
            if normalisation == PER_MEL:
                shown = shown - shown.mean(axis=(1, 2), keepdims=True)
            # Added up in float64, and both at once: the windows are read from disk but once.
            precise = shown.astype(np.float64)
            np.add.at(sums, machine_index[some], precise.sum(axis=2))
            np.add.at(squares, machine_index[some], np.square(precise, out=precise).sum(axis=2))
        cells = np.bincount(machine_index, minlength=ids)[:, None] * log_mel.shape[2]
        mean = sums / cells
        offset, spread = np.zeros_like(mean), np.ones_like(mean)
        if normalisation == PER_MEL:
            offset, spread = mean, _spread(squares / cells, mean) + _LEAST_SPREAD_DB
        elif normalisation == GLOBAL:
            of_all = float(sums.sum() / (cells.sum() * sums.shape[1]))
            of_squares = squares.sum() / (cells.sum() * sums.shape[1])
            offset, spread = offset + of_all, spread * (_spread(of_squares, of_all) + _LEAST_SPREAD_DB)
        return cls(offset, spread, (mean - offset) / spread, without_level=normalisation == PER_MEL)

    def forward(self, log_mel: Tensor, machine_id: Tensor) -> Tensor:
        """Both arguments with one entry for each window; shape stays ``[window, mel, frame]``."""
        offset = self.offset[machine_id][:, :, None]
        if self.without_level:  # taken away with the offset, as another pass over all cells takes its time
            offset = offset + log_mel.mean(dim=(1, 2), keepdim=True)
        return (log_mel - offset) / self.spread[machine_id][:, :, None]

    def undo(self, image: Tensor, log_mel: Tensor, machine_id: Tensor) -> Tensor:
        """The way back from images to dB, ``[window, mel, frame]``, with the level of the log-Mels they stand for."""
        level = log_mel.mean(dim=(1, 2), keepdim=True) if self.without_level else torch.zeros(1)
        return image * self.spread[machine_id][:, :, None] + self.offset[machine_id][:, :, None] + level

    def mean_image(self, machine_id: Tensor) -> Tensor:
        """What the training windows of an id look like on average, ``[window, mel, 1]``."""
        return self.typical[machine_id][:, :, None]

    @torch.no_grad()
    def apply(self, log_mel: Float32Array, machine_index: NDArray[np.intp]) -> Float32Array:  # type: ignore[override]
        """The same for arrays, of any number of windows; the result is a working file, see `edge_asd_train.scratch`."""
        done: Float32Array = scratch(log_mel.shape)
        for some in chunks(len(log_mel)):
            part = torch.from_numpy(np.array(log_mel[some]))  # a copy, as torch wants to be allowed to write
            done[some] = self(part, torch.from_numpy(machine_index[some])).numpy()
        return done

    def centred(self, images: Float32Array, machine_index: NDArray[np.intp]) -> Float32Array:
        """Images ``[window, mel, frame]`` less the mean image of their id; a working file too."""
        less: Float32Array = scratch(images.shape)
        for some in chunks(len(images)):
            mean = self.mean_image(torch.from_numpy(machine_index[some])).numpy()
            np.subtract(images[some], mean, out=less[some])
        return less


def _spread(mean_square: NDArray[np.float64], mean: NDArray[np.float64] | float) -> NDArray[np.float64]:
    """Standard deviation, of the means of the values and of their squares."""
    return np.sqrt(np.maximum(mean_square - np.square(mean), 0.0))


def standardise_each(machines: Sequence[Images], normalisation: str = PER_MEL) -> list[Images]:
    """Log-Mels of other machines to images, each by its own normal sound."""
    made = []
    for machine in machines:
        ids = int(machine.machine_index.max()) + 1
        standardise = Standardise.fit(machine.values, machine.machine_index, ids, normalisation)
        made.append(Images(standardise.apply(machine.values, machine.machine_index), machine.machine_index))
    return made
