"""The baseline of DCASE 2020 Task 2 as a scorer to compare with."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from edge_asd_train.dense_baseline import DenseAutoencoder, DenseSettings, fit, scores
from numpy.typing import NDArray
from tqdm import tqdm

from edge_asd.logmel import Float32Array
from edge_asd.roc import auc

SMALL = DenseSettings(epochs=4, batch=64, hidden=16, bottleneck=4)
MELS, FRAMES = 8, 12


def windows(count: int, seed: int = 0) -> Float32Array:
    made = np.random.default_rng(seed).normal(-40, 8, (count, MELS, FRAMES))
    return made.astype(np.float32)


def state(log_mels: Any, settings: DenseSettings = SMALL, seed: int = 0) -> NDArray[np.float32]:
    network = fit(log_mels, settings, seed)
    return torch.cat([value.flatten().float() for value in network.state_dict().values()]).numpy()


class Reads:
    """Windows on disk, and a note of which were read together."""

    def __init__(self, of: Any) -> None:
        self.of, self.shape, self.groups = of, of.shape, []

    def __getitem__(self, chosen: NDArray[np.intp]) -> Float32Array:
        self.groups.append(chosen)
        read: Float32Array = self.of[chosen]
        return read


def tones(count: int, seed: int, harmonic: int) -> Float32Array:
    """Windows with two mels that rise and fall together in time, the fundamental and a harmonic."""
    random = np.random.default_rng(seed)
    made = random.normal(-60, 1, (count, MELS, FRAMES))
    phase = random.uniform(0, 2 * np.pi, (count, 1))
    rise = 15 * np.sin(phase + np.arange(FRAMES))
    made[:, 1] += rise
    made[:, harmonic] += rise
    return made.astype(np.float32)


def test_what_was_not_heard_in_training_scores_higher() -> None:
    normal = tones(200, 0, harmonic=4)
    settings = replace(SMALL, epochs=40, batch=128, learning_rate=0.01)
    with tqdm(total=settings.steps(len(normal)), file=io.StringIO()) as bar:
        network = fit(normal, settings, 0, bar)
    assert bar.n == bar.total == 40
    heard, new = scores(network, tones(20, 1, harmonic=4)), scores(network, tones(20, 2, harmonic=6))
    assert auc(heard, new) == 1.0
    # Not only apart: it gives back nearly all of the rise, which makes 28 dB^2 over all mels.
    assert heard.mean() < 12


def test_the_network_is_that_of_the_description() -> None:
    linear = [layer for layer in DenseAutoencoder(128, DenseSettings()).layers if isinstance(layer, torch.nn.Linear)]
    shapes = [tuple(layer.weight.shape) for layer in linear]
    assert shapes == [(128, 640), *[(128, 128)] * 3, (8, 128), (128, 8), *[(128, 128)] * 3, (640, 128)]


def test_a_score_is_the_mean_squared_error_of_five_frames_each() -> None:
    log_mels = windows(40)
    network = fit(log_mels, SMALL, 0)
    expected = []
    for window in log_mels:
        errors = []
        for start in range(FRAMES - 5 + 1):
            vector = np.concatenate([window[:, start + i] for i in range(5)])
            with torch.no_grad():
                back = network(torch.from_numpy(vector)[None])[0].numpy()
            errors.append(((back - vector) ** 2).mean())
        expected.append(np.mean(errors))
    np.testing.assert_allclose(scores(network, log_mels), expected, rtol=1e-4)
    assert scores(network, log_mels[:0]).shape == (0,)


def test_the_same_seed_gives_the_same_network() -> None:
    log_mels = windows(40)
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    first = state(log_mels)
    assert torch.equal(before, torch.random.get_rng_state())
    assert np.array_equal(first, state(log_mels))
    assert not np.array_equal(first, state(log_mels, seed=1))
    assert not np.array_equal(first, state(log_mels, replace(SMALL, epochs=5)))


def test_windows_on_disk_are_read_group_by_group(tmp_path: Path) -> None:
    log_mels = windows(1100)
    path = tmp_path / "mels.dat"
    np.memmap(path, np.float32, "w+", shape=log_mels.shape)[:] = log_mels
    mapped = Reads(np.memmap(path, np.float32, "r", shape=log_mels.shape))
    settings = replace(SMALL, epochs=2, batch=1024)
    network = fit(mapped, settings, 0)  # type: ignore[arg-type]
    assert [len(group) for group in mapped.groups] == [367, 367, 366] * 2
    for epoch in (mapped.groups[:3], mapped.groups[3:]):
        assert np.array_equal(np.sort(np.concatenate(epoch)), np.arange(1100))
    assert not np.array_equal(mapped.groups[0], mapped.groups[3])
    # No other network than of the same windows in memory.
    assert np.array_equal(scores(network, log_mels), scores(fit(log_mels, settings, 0), mapped.of))


@pytest.mark.parametrize(("count", "frames"), [(0, 5), (3, 4)])
def test_what_gives_no_vector_is_refused(count: int, frames: int) -> None:
    with pytest.raises(ValueError, match=f"{count} windows of {frames} frames: 5 frames at least make a vector"):
        fit(windows(count)[:, :, :frames], SMALL, 0)
