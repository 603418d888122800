"""The AnoGAN: its crops, its training and its export, on a few synthetic clips."""

from __future__ import annotations

import copy
from dataclasses import replace
from itertools import pairwise

import numpy as np
import onnxruntime
import pytest
import torch
from edge_asd_train.anogan import train_anogan, variety
from edge_asd_train.anogan_detector import averaged, residuals_of
from edge_asd_train.anogan_networks import PRESETS, AnoGan, AnoGanSettings, average_mels, crops
from edge_asd_train.crops import crop_starts, join
from edge_asd_train.latent_search import search

TINY = AnoGanSettings(
    latent=8,
    generator_channels=2,
    discriminator_channels=2,
    encoder_channels=4,
    iterations=150,
    batch_crops=8,
    batch_draws=4,
    learning_rate=2e-3,
    search_steps=4,
)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def strokes(clips: int, seed: int) -> np.ndarray:
    """Bands that swell and fade with a period and a phase of their own, and a little noise ``[clip, 128, 313]``."""
    random = np.random.default_rng(seed)
    frames, mels = np.arange(313), np.arange(128)[:, None]
    made = []
    for _ in range(clips):
        phase, centre = random.uniform(0, 2 * np.pi), random.uniform(30, 100)
        band = np.exp(-(((mels - centre) / 25.0) ** 2))
        made.append(2.5 * band * np.sin(2 * np.pi * frames / 40 + phase) + 0.1 * random.standard_normal((128, 313)))
    return np.stack(made).astype(np.float32)


@pytest.fixture(scope="module")
def trained() -> AnoGan:
    return train_anogan(strokes(12, seed=1), TINY, progress=False)


@pytest.mark.parametrize("frames", [64, 65, 128, 129, 313, 344])
def test_crops_cover_a_window_from_its_first_frame_to_its_last(frames: int) -> None:
    starts = crop_starts(frames, 64)
    assert starts[0] == 0 and starts[-1] == frames - 64
    assert all(0 < after - before <= 64 for before, after in pairwise(starts))
    windows = torch.randn(3, 128, frames, generator=torch.Generator().manual_seed(0))
    images = crops(windows)
    assert images.shape == (3 * len(starts), 1, 64, 64)
    torch.testing.assert_close(join(images, frames), average_mels(windows))


def test_ten_seconds_are_five_crops() -> None:
    assert crop_starts(313, 64) == [0, 62, 124, 187, 249]
    with pytest.raises(ValueError, match="shorter"):
        crop_starts(63, 64)


def test_crops_and_back_are_exported_for_any_number_of_windows() -> None:
    class AndBack(torch.nn.Module):
        def forward(self, windows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            images = crops(windows)
            return images, join(images, windows.shape[2])

    program = torch.onnx.export(
        AndBack().eval(),
        (torch.randn(3, 128, 313),),
        dynamo=True,
        dynamic_shapes=({0: torch.export.Dim("window")},),
        verbose=False,
    )
    session = onnxruntime.InferenceSession(program.model_proto.SerializeToString())
    for count in (1, 4):
        windows = torch.randn(count, 128, 313)
        images, back = session.run(None, {session.get_inputs()[0].name: windows.numpy()})
        np.testing.assert_allclose(images, crops(windows), atol=1e-6)
        np.testing.assert_allclose(back, join(crops(windows), 313), atol=1e-6)


def unexplained(model: AnoGan, clips: np.ndarray, search_steps: int) -> float:
    """Squared error of the searched reconstruction over the variance."""
    searched = copy.deepcopy(model)
    searched.settings = replace(model.settings, search_steps=search_steps)
    residuals, _ = residuals_of(searched, clips)
    return float((residuals**2).mean() / averaged(clips).var())


def test_training_learns_what_the_machine_does(trained: AnoGan) -> None:
    held_out = strokes(6, seed=2)
    found = unexplained(trained, held_out, TINY.search_steps)
    assert found < 0.7 and variety(trained, held_out) > 0.3
    assert unexplained(trained, held_out, 50) < found


def test_a_generator_of_one_image_has_no_variety() -> None:
    model = AnoGan(TINY).eval()
    torch.nn.init.zeros_(model.generator[-1].weight)
    assert variety(model, strokes(4, seed=1)) < 1e-3


def test_a_strange_window_has_a_higher_loss(trained: AnoGan) -> None:
    normal = strokes(6, seed=2)
    strange = normal.copy()
    strange[:, :, ::9] += 3.0
    model = trained.latent_search()
    losses = [search(model, crops(torch.from_numpy(x)), 10)[1].unflatten(0, (6, 5)).mean(1) for x in (normal, strange)]
    assert (losses[1] > losses[0]).all()


def test_the_same_seed_gives_the_same_networks() -> None:
    settings = replace(TINY, iterations=6)
    once, again, other = (
        train_anogan(strokes(4, seed=1), s, progress=False) for s in (settings, settings, replace(settings, seed=1))
    )
    for key, value in once.state_dict().items():
        assert torch.equal(value, again.state_dict()[key]), key
    assert not torch.equal(once.generator[1].weight, other.generator[1].weight)


def test_training_leaves_the_callers_random_numbers_alone() -> None:
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    train_anogan(strokes(2, seed=1), replace(TINY, iterations=1), progress=False)
    assert torch.equal(torch.rand(1), expected)


def test_export_agrees_with_pytorch(trained: AnoGan) -> None:
    session = onnxruntime.InferenceSession(trained.search_model().SerializeToString())
    query = crops(torch.from_numpy(strokes(2, seed=4)))
    expected, expected_loss = search(trained.latent_search(), query, TINY.search_steps)
    reconstruction, loss = session.run(["reconstruction", "loss"], {"query": query.numpy()})
    np.testing.assert_allclose(loss, expected_loss, rtol=5e-6)
    np.testing.assert_allclose(reconstruction, expected, atol=1e-4)


def test_the_reports_adversaries_train_without_an_encoder() -> None:
    """Its settings to the letter but for the numbers that cost time; the search begins at zeros."""
    settings = replace(
        PRESETS["report"], epochs=2, batch_crops=4, batch_draws=4, generator_channels=2, discriminator_channels=2
    )
    model = train_anogan(strokes(10, seed=1), settings, progress=False)
    assert settings.batches(9) == 6, "a tenth of the ten clips is kept for validation"
    assert model.latent_search().encoder is None
    query = crops(torch.from_numpy(strokes(1, seed=2)))
    _, z = model.latent_search().start(query)
    assert not z.any()
    before = AnoGan(settings).encoder.state_dict()["0.weight"].shape
    assert model.encoder.state_dict()["0.weight"].shape == before


@pytest.mark.parametrize(
    ("clips", "complaint"),
    [
        (np.zeros((2, 64, 313), np.float32), "128 mels"),
        (np.zeros((2, 128, 63), np.float32), "64 frames"),
        (np.zeros((0, 128, 313), np.float32), "expected clips"),
        (np.full((2, 128, 313), np.nan, np.float32), "NaN"),
    ],
)
def test_clips_that_cannot_be_trained_on(clips: np.ndarray, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        train_anogan(clips, TINY, progress=False)


@pytest.mark.parametrize(
    "wrong",
    [
        {"lam": 1.5},
        {"latent": 0},
        {"batch_crops": 1},
        {"search_steps": -1},
        {"validation": 0.9},
        {"beta1": 1.0},
        {"learning_rate": 0.0},
        {"held_out_windows": 7},
    ],
)
def test_settings_that_make_no_sense(wrong: dict) -> None:
    with pytest.raises(ValueError):
        replace(TINY, **wrong)
