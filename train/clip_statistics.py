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
        return (weight / image.shape[2])[:, :, None].expand_as(image).contiguous()


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
        # What all frames of a mel have in common is worked out before it meets them: they are many.
        cells = _to_both_frames(squares * (weight[:, :, None] / squares.sum(dim=2, keepdim=True)))
        return cells if self.pooling is None else _to_mels(cells, self.pooling)

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
        number = torch.full((bands, bands), self.size)
        number[first, second] = number[second, first] = torch.arange(self.size)
        self.register_buffer("pooling", band_pooling(mels, bands))
        self.register_buffer("pairs", first * bands + second)
        self.register_buffer("number", number.flatten())

    def forward(self, image: Tensor) -> Tensor:
        # All pairs at once are one small matrix; written out for every frame they would be a tensor as large as the
        # image.
        differences = self._standardised(image)
        products = differences @ differences.transpose(1, 2) / differences.shape[2]
        return products.flatten(1).index_select(1, self.pairs)

    def spread(self, image: Tensor, weight: Tensor) -> Tensor:
        # Of a pair's weight a frame gets by |x y| + epsilon, each of the two bands half of that. With the weights over
        # their sums in a symmetric matrix, what band x gets is |x| (matrix |y|) and a trifle that all frames share.
        size = self.pooling.shape[0]
        moved = self._standardised(image).abs()
        sums = moved @ moved.transpose(1, 2) + _EPSILON * moved.shape[2]
        none = torch.zeros_like(weight[:, :1])  # of a band with itself
        weights = torch.cat([weight, none], dim=1).index_select(1, self.number).reshape(-1, size, size)
        shares = weights / (2 * sums)
        bands = moved * (shares @ moved) + _EPSILON * shares.sum(dim=2, keepdim=True)
        return _to_mels(_to_both_frames(bands), self.pooling)

    def _standardised(self, image: Tensor) -> Tensor:
        """Frame differences of the bands, less their mean and over their spread, ``[window, band, frame - 1]``."""
        differences = _differences(self.pooling @ image)
        differences = differences - differences.mean(dim=2, keepdim=True)
        return differences / ((differences**2).mean(dim=2, keepdim=True) + _EPSILON).sqrt()


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
        return among * (weight[:, :, None] / among.sum(dim=2, keepdim=True))


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
        courses = banded.gather(2, self._frames(banded)).reshape(-1, self.bands, self.events, self.length)
        return courses.mean(dim=2).flatten(1)

    def spread(self, image: Tensor, weight: Tensor) -> Tensor:
        banded = self.pooling @ image
        weight = (weight / self.events).reshape(-1, self.bands, self.length).repeat(1, 1, self.events)
        cells = torch.zeros_like(banded).scatter_add(2, self._frames(banded), weight)
        return _to_mels(cells, self.pooling)

    def _frames(self, banded: Tensor) -> Tensor:
        """Of the courses of every band's steepest rises, one after the other, ``[window, band, event * length]``."""
        rise = banded[:, :, 1:] - banded[:, :, :-1]
        # Rises whose course would leave the window do not count. Index t of `rise` is the step from frame t to t + 1.
        rise = rise[:, :, self.before - 1 : rise.shape[2] - self.after]
        place = torch.arange(rise.shape[2], dtype=rise.dtype)[None, None, :]
        found = []
        for _ in range(self.events):
            at = rise.argmax(dim=2, keepdim=True)
            found.append(at + self.course)
            # In floats, which hold these numbers exactly and are compared several times as fast.
            near = (place - at.to(place.dtype)).abs() < self.apart
            rise = torch.where(near, -1e4, rise)
        return torch.cat(found, dim=2)


def band_pooling(mels: int, bands: int) -> Tensor:
    """Matrix ``[band, mel]`` that averages neighbouring mels; its transpose gives a band's weight back to them."""
    edges = torch.linspace(0, mels, bands + 1).round().long()
    pooling = torch.zeros(bands, mels)
    for band in range(bands):
        pooling[band, edges[band] : edges[band + 1]] = 1.0 / float(edges[band + 1] - edges[band])
    return pooling


def _to_mels(of_bands: Tensor, pooling: Tensor) -> Tensor:
    """``pooling.T @ of_bands``, ``[window, mel, frame]``: a mel has one band, so rows are copied, not multiplied."""
    per_mel = of_bands * pooling.amax(dim=1)[:, None]
    return per_mel.index_select(1, pooling.argmax(dim=0))


def _differences(image: Tensor) -> Tensor:
    return image[:, :, 1:] - image[:, :, :-1]


def _to_both_frames(of_difference: Tensor) -> Tensor:
    """A difference belongs to both of its frames: ``[..., frame - 1]`` to ``[..., frame]``, keeping the sum."""
    half = of_difference / 2
    return nn.functional.pad(half, (0, 1)) + nn.functional.pad(half, (1, 0))
