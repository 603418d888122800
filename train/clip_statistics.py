"""Statistics of a clip that change when a machine does: what all detectors score, of the sound or of their residual.

Every block takes an image ``[window, mel, frame]`` (a log-Mel less its mean level, or a residual) to a feature vector
and tells for each feature which cells it came from. All is written so that torch traces it into the detector file.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

_EPSILON = 1e-6


class Block(nn.Module):
    """A feature vector of an image, and the way back to its cells."""

    size: int
    """Features."""

    def forward(self, image: Tensor) -> Tensor:
        """Features ``[window, size]`` of an image ``[window, mel, frame]``."""
        raise NotImplementedError  # of the abstract block only

    def spread(self, image: Tensor, weight: Tensor) -> Tensor:
        """Spread weights of features, ``[window, size]``, over the cells they came from, ``[window, mel, frame]``.

        The sum over cells is the sum of the weights.
        """
        raise NotImplementedError  # of the abstract block only


class Mean(Block):
    """Mean over time of every mel: the stationary part, colour and hum."""

    def __init__(self, mels: int) -> None:
        super().__init__()
        self.size = mels

    def forward(self, image: Tensor) -> Tensor:
        return image.mean(dim=2)

    def spread(self, image: Tensor, weight: Tensor) -> Tensor:
        return (weight / image.shape[2])[:, :, None] * torch.ones_like(image)


class Flux(Block):
    """Standard deviation over time of the differences of neighbouring frames: how restless each mel or band is."""

    def __init__(self, mels: int, bands: int | None = None) -> None:
        """
        Args:
            mels: of the image.
            bands: neighbouring mels are averaged into so many before the difference is taken: what happens in all of
                them at once remains, the noise of single cells goes.
        """
        super().__init__()
        self.size = bands or mels
        self.register_buffer("pooling", band_pooling(mels, bands) if bands else None)

    def forward(self, image: Tensor) -> Tensor:
        return (self._squares(image).mean(dim=2) + _EPSILON).sqrt()

    def spread(self, image: Tensor, weight: Tensor) -> Tensor:
        squares = self._squares(image) + _EPSILON
        cells = _to_both_frames(squares / squares.sum(dim=2, keepdim=True)) * weight[:, :, None]
        return cells if self.pooling is None else self.pooling.T @ cells

    def _squares(self, image: Tensor) -> Tensor:
        differences = _differences(image if self.pooling is None else self.pooling @ image)
        return (differences - differences.mean(dim=2, keepdim=True)) ** 2


class FluxCorrelation(Block):
    """Correlation of the frame differences of every two of some bands: what moves together when something happens."""

    def __init__(self, mels: int, bands: int = 16) -> None:
        """
        Args:
            mels: of the image.
            bands: neighbouring mels are averaged into so many.
        """
        super().__init__()
        self.size = bands * (bands - 1) // 2
        first, second = torch.triu_indices(bands, bands, offset=1)
        self.register_buffer("pooling", band_pooling(mels, bands))
        self.register_buffer("first", first)
        self.register_buffer("second", second)

    def forward(self, image: Tensor) -> Tensor:
        return self._products(image).mean(dim=2)

    def spread(self, image: Tensor, weight: Tensor) -> Tensor:
        products = self._products(image).abs() + _EPSILON
        shares = products / products.sum(dim=2, keepdim=True) * (weight / 2)[:, :, None]
        bands = image.new_zeros(image.shape[0], self.pooling.shape[0], shares.shape[2])
        for index in (self.first, self.second):
            bands = bands.index_add(1, index, shares)
        return self.pooling.T @ _to_both_frames(bands)

    def _products(self, image: Tensor) -> Tensor:
        """Standardised differences of two bands, multiplied, ``[window, pair, frame - 1]``."""
        differences = _differences(self.pooling @ image)
        differences = differences - differences.mean(dim=2, keepdim=True)
        differences = differences / ((differences**2).mean(dim=2, keepdim=True) + _EPSILON).sqrt()
        return differences.index_select(1, self.first) * differences.index_select(1, self.second)


class Peaks(Block):
    """Mean of the largest frames of every mel: short events, wherever in the window they are."""

    def __init__(self, mels: int, count: int = 6) -> None:
        super().__init__()
        self.size = mels
        self.count = count

    def forward(self, image: Tensor) -> Tensor:
        return image.topk(self.count, dim=2).values.mean(dim=2)

    def spread(self, image: Tensor, weight: Tensor) -> Tensor:
        least = image.topk(self.count, dim=2).values[:, :, -1:]
        among = (image >= least).to(image.dtype)
        return among / among.sum(dim=2, keepdim=True) * weight[:, :, None]


class EventShape(Block):
    """In each of some bands the course of its steepest rises, averaged: the shape of strokes and knocks."""

    def __init__(
        self, mels: int, bands: int = 24, events: int = 6, before: int = 3, after: int = 7, apart: int = 5
    ) -> None:
        """
        Args:
            mels: of the image.
            bands: neighbouring mels are averaged into so many.
            events: rises taken in each band.
            before: frames taken before a rise.
            after: frames taken from the rise on, not counting itself.
            apart: least distance of two rises, frames.
        """
        super().__init__()
        self.bands, self.events, self.before, self.after, self.apart = bands, events, before, after, apart
        self.length = before + 1 + after
        self.size = bands * self.length
        self.register_buffer("pooling", band_pooling(mels, bands))
        self.register_buffer("course", torch.arange(self.length))

    def forward(self, image: Tensor) -> Tensor:
        banded = self.pooling @ image
        courses = [
            banded.gather(2, centre[:, :, None] - self.before + self.course[None, None, :])
            for centre in self._rises(banded)
        ]
        return torch.stack(courses).mean(dim=0).flatten(1)

    def spread(self, image: Tensor, weight: Tensor) -> Tensor:
        banded = self.pooling @ image
        weight = weight.reshape(-1, self.bands, self.length) / self.events
        cells = torch.zeros_like(banded)
        for centre in self._rises(banded):
            frames = centre[:, :, None] - self.before + self.course[None, None, :]
            cells = cells.scatter_add(2, frames, weight)
        return self.pooling.T @ cells

    def _rises(self, banded: Tensor) -> list[Tensor]:
        """Frames of the steepest rises of every band, each ``[window, band]``, the steepest first."""
        rise = banded[:, :, 1:] - banded[:, :, :-1]
        # Rises whose course would leave the window do not count. Index t of `rise` is the step from frame t to t + 1.
        rise = rise[:, :, self.before - 1 : rise.shape[2] - self.after]
        place = torch.arange(rise.shape[2])[None, None, :]
        found = []
        for _ in range(self.events):
            at = rise.argmax(dim=2)
            found.append(at + self.before)
            near = (place - at[:, :, None]).abs() < self.apart
            rise = torch.where(near, torch.full_like(rise, -1e4), rise)
        return found


def band_pooling(mels: int, bands: int) -> Tensor:
    """Matrix ``[band, mel]`` that averages neighbouring mels; its transpose gives a band's weight back to them."""
    edges = torch.linspace(0, mels, bands + 1).round().long()
    pooling = torch.zeros(bands, mels)
    for band in range(bands):
        pooling[band, edges[band] : edges[band + 1]] = 1.0 / float(edges[band + 1] - edges[band])
    return pooling


def _differences(image: Tensor) -> Tensor:
    return image[:, :, 1:] - image[:, :, :-1]


def _to_both_frames(of_difference: Tensor) -> Tensor:
    """A difference belongs to both of its frames: ``[..., frame - 1]`` to ``[..., frame]``, keeping the sum."""
    return (nn.functional.pad(of_difference, (0, 1)) + nn.functional.pad(of_difference, (1, 0))) / 2
