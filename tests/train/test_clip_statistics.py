"""Statistics of a clip: what they measure, and where they say it came from."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from edge_asd_train.clip_statistics import Block, EventShape, Flux, FluxCorrelation, Mean, Peaks

from edge_asd.logmel import Float32Array


def some_images(count: int, mels: int = 32, frames: int = 63) -> Float32Array:
    images = np.random.default_rng(3).normal(0, 3, (count, mels, frames)).astype(np.float32)
    images[:, 5:9, 20:23] += 12
    return images


BLOCKS = [Mean(32), Flux(32), Peaks(32), Flux(32, bands=8), FluxCorrelation(32, bands=8), EventShape(32, bands=16)]


@pytest.mark.parametrize("block", BLOCKS, ids=lambda b: type(b).__name__ + str(b.size))
def test_weights_spread_over_cells_keep_their_sum(block: Block) -> None:
    images = torch.from_numpy(np.concatenate([some_images(3), np.zeros((1, 32, 63), np.float32)]))
    features = block(images)
    assert features.shape == (4, block.size) and torch.isfinite(features).all()
    weight = torch.rand(4, block.size, generator=torch.Generator().manual_seed(1))
    cells = block.spread(images, weight)
    assert cells.shape == images.shape and (cells >= 0).all()
    assert torch.allclose(cells.sum(dim=(1, 2)), weight.sum(dim=1), rtol=1e-4)


@pytest.mark.parametrize("block", BLOCKS[:3], ids=lambda b: type(b).__name__ + str(b.size))
def test_a_feature_of_a_mel_spreads_over_that_mel(block: Block) -> None:
    images = torch.from_numpy(some_images(2))
    weight = torch.zeros(2, block.size)
    weight[:, 7] = 1.0
    cells = block.spread(images, weight)
    assert torch.allclose(cells[:, 7].sum(dim=1), torch.ones(2), rtol=1e-4) and cells.sum() == cells[:, 7].sum()
    if not isinstance(block, Mean):
        assert (cells[:, 7, 18:25].sum(dim=1) > 0.3).all(), "where the bump is"


def test_event_shape_finds_a_rise_wherever_it_is() -> None:
    image = torch.zeros(2, 24, 63)
    image[0, :, 20:25] = 10.0
    image[1, :, 40:45] = 10.0
    block = EventShape(24, bands=24, events=1)
    first, second = block(image)
    assert torch.equal(first, second)
    # Three frames before the rise, then the five that are loud.
    assert first.reshape(24, 11)[0].tolist() == [0, 0, 0, 10, 10, 10, 10, 10, 0, 0, 0]


def test_flux_of_bands_hears_what_happens_in_all_their_mels() -> None:
    """Averaging mels keeps a stroke that all of them have, and quarters the variance of what each has for itself."""
    random = torch.Generator().manual_seed(0)
    alone = torch.randn(1, 8, 2001, generator=random)
    together = torch.randn(1, 1, 2001, generator=random).expand(1, 8, 2001)
    block = Flux(8, bands=2)
    assert block(alone).mean() == pytest.approx(np.sqrt(2 / 4), rel=0.05)
    assert block(together).mean() == pytest.approx(np.sqrt(2), rel=0.05)


def test_flux_correlation_is_that_of_numpy() -> None:
    images = some_images(3)
    block = FluxCorrelation(32, bands=4)
    for image, found in zip(images, block(torch.from_numpy(images)), strict=True):
        wanted = np.corrcoef(np.diff(image.reshape(4, 8, -1).mean(axis=1)))
        assert found.numpy() == pytest.approx(wanted[np.triu_indices(4, 1)], abs=1e-4)


def test_flux_correlation_points_at_the_moment_two_bands_moved_together() -> None:
    image = torch.randn(1, 16, 63, generator=torch.Generator().manual_seed(1))
    image[:, [0, 1, 2, 3, 12, 13, 14, 15], 30] += 20.0
    block = FluxCorrelation(16, bands=4)
    weight = torch.zeros(1, block.size)
    weight[0, 2] = 1.0  # bands 0 and 3
    cells = block.spread(image, weight)
    assert cells[0, :, 29:32].sum() > 0.9 and cells[0, 4:12].sum() == 0
