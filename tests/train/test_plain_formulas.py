"""What is written for few passes over the cells, against the same written plainly."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from edge_asd_train.clip_scorer import ClipScorer, default_blocks
from edge_asd_train.clip_statistics import EventShape, Flux, FluxCorrelation, Peaks
from edge_asd_train.crops import crop_starts, cut, join
from edge_asd_train.distance import Distance
from edge_asd_train.export import to_onnx
from edge_asd_train.standardise import Standardise
from edge_asd_train.statistics import StatisticsDetector
from torch import Tensor

MELS, FRAMES = 32, 63
_EPSILON = 1e-6


def some_images() -> Tensor:
    """Noise, noise with a knock, and silence."""
    images = 3 * torch.randn(3, MELS, FRAMES, generator=torch.Generator().manual_seed(5))
    images[1, 5:9, 20:23] += 12
    images[2] = 0
    return images


def some_weights(size: int) -> Tensor:
    return torch.rand(3, size, generator=torch.Generator().manual_seed(6))


def to_both_frames(of_difference: np.ndarray) -> np.ndarray:
    cells = np.zeros((len(of_difference), of_difference.shape[1] + 1))
    cells[:, :-1] += of_difference / 2
    cells[:, 1:] += of_difference / 2
    return cells


def test_flux_correlation_pair_by_pair() -> None:
    block, images = FluxCorrelation(MELS), some_images()
    pooling, weights = block.pooling.double().numpy(), some_weights(block.size)
    features, cells = block(images), block.spread(images, weights)
    for window, image in enumerate(images.double().numpy()):
        moved = np.diff(pooling @ image)
        moved -= moved.mean(axis=1, keepdims=True)
        moved /= np.sqrt((moved**2).mean(axis=1, keepdims=True) + _EPSILON)
        bands, found = np.zeros((16, FRAMES - 1)), []
        for number, (x, y) in enumerate(zip(*np.triu_indices(16, 1), strict=True)):
            product = moved[x] * moved[y]
            found.append(product.mean())
            share = np.abs(product) + _EPSILON
            for band in (x, y):
                bands[band] += float(weights[window, number]) / 2 * share / share.sum()
        assert features[window].numpy() == pytest.approx(np.array(found), abs=1e-5)
        assert cells[window].numpy() == pytest.approx(pooling.T @ to_both_frames(bands), rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("bands", [None, 24])
def test_flux_mel_by_mel(bands: int | None) -> None:
    block, images = Flux(MELS, bands), some_images()
    pooling = np.eye(MELS) if bands is None else block.pooling.double().numpy()
    weights = some_weights(block.size)
    features, cells = block(images), block.spread(images, weights)
    for window, image in enumerate(images.double().numpy()):
        differences = np.diff(pooling @ image)
        squares = (differences - differences.mean(axis=1, keepdims=True)) ** 2
        assert features[window].numpy() == pytest.approx(np.sqrt(squares.mean(axis=1) + _EPSILON), rel=1e-4)
        shares = (squares + _EPSILON) / (squares + _EPSILON).sum(axis=1, keepdims=True)
        wanted = pooling.T @ to_both_frames(shares * weights[window].numpy()[:, None])
        assert cells[window].numpy() == pytest.approx(wanted, rel=1e-4, abs=1e-6)


def test_peaks_cell_by_cell() -> None:
    block, images, weights = Peaks(MELS), some_images(), some_weights(MELS)
    cells = block.spread(images, weights)
    for window, image in enumerate(images.numpy()):
        among = image >= np.sort(image)[:, -6:-5]  # all frames of silence
        wanted = among / among.sum(axis=1, keepdims=True) * weights[window].numpy()[:, None]
        assert cells[window].numpy() == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("frames", [FRAMES, 30])
def test_event_shape_rise_by_rise(frames: int) -> None:
    """Also where a window is so short that all its rises are near one taken before."""
    block, images = EventShape(MELS), some_images()[:, :, :frames]
    pooling, weights = block.pooling.double().numpy(), some_weights(block.size)
    features, cells = block(images), block.spread(images, weights)
    for window, image in enumerate(images.double().numpy()):
        banded = pooling @ image
        courses, bands = np.zeros((24, 11)), np.zeros((24, frames))
        for band, course in enumerate(banded):
            rise = np.diff(course)[2 : frames - 1 - 7]
            for _ in range(6):
                at = int(rise.argmax())
                rise[max(at - 4, 0) : at + 5] = -1e4
                courses[band] += course[at : at + 11] / 6
                bands[band, at : at + 11] += weights[window].numpy().reshape(24, 11)[band] / 6
        assert features[window].numpy() == pytest.approx(courses.ravel(), rel=1e-4, abs=1e-5)
        assert cells[window].numpy() == pytest.approx(pooling.T @ bands, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize(("frames", "crop_frames"), [(64, 64), (128, 64), (313, 64), (100, 64), (313, 128), (70, 16)])
def test_joined_crops_are_their_mean_where_they_overlap(frames: int, crop_frames: int) -> None:
    starts = crop_starts(frames, crop_frames)
    crops = torch.randn(2 * len(starts), 1, 4, crop_frames, generator=torch.Generator().manual_seed(1))
    sums, count = np.zeros((2, 4, frames)), np.zeros(frames)
    for number, start in enumerate(starts):
        sums[:, :, start : start + crop_frames] += crops.numpy().reshape(2, len(starts), 4, -1)[:, number]
        count[start : start + crop_frames] += 1
    # A crop of the model is [1, mel, frame]; join is given what a network gives back.
    assert join(crops, frames).numpy() == pytest.approx(sums / count, abs=1e-6)
    image = torch.randn(2, 4, frames, generator=torch.Generator().manual_seed(2))
    assert torch.equal(join(cut(image, crop_frames), frames), image), "what is cut and joined is what it was"


def test_an_image_is_the_log_mel_less_level_and_offset_over_spread() -> None:
    rng = np.random.default_rng(3)
    log_mel = rng.normal(-60, 9, (6, MELS, FRAMES)).astype(np.float32)
    index = np.arange(6) % 2
    standardise = Standardise.fit(log_mel, index, 2)
    offset, spread = (b.double().numpy()[index][:, :, None] for b in (standardise.offset, standardise.spread))
    wanted = (log_mel - log_mel.mean(axis=(1, 2), keepdims=True, dtype=np.float64) - offset) / spread
    assert standardise(torch.from_numpy(log_mel), torch.from_numpy(index)).numpy() == pytest.approx(wanted, abs=1e-5)


def test_no_tensor_of_the_graph_is_larger_than_the_image() -> None:
    """A tensor of every pair of bands at every frame was the dearest of them all."""
    blocks = default_blocks(MELS)
    distances = [Distance(torch.zeros(1, 1, b.size), torch.ones(1, b.size), torch.eye(b.size)[None]) for b in blocks]
    scorer = ClipScorer(blocks, distances, torch.zeros(1, len(blocks), 1), torch.ones(1, len(blocks)))
    model = onnx.shape_inference.infer_shapes(to_onnx(StatisticsDetector(scorer), (MELS, FRAMES)))
    of_window = [d for v in model.graph.value_info if (d := v.type.tensor_type.shape.dim) and d[0].dim_param]
    assert len(of_window) > 100
    assert max(np.prod([n.dim_value for n in dims[1:]]) for dims in of_window) <= MELS * FRAMES
