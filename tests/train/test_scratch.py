"""What is computed chunk by chunk is what the whole gives, and memory does not grow with the number of windows."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from edge_asd_train import distance
from edge_asd_train.anogan import variety
from edge_asd_train.anogan_networks import AnoGan, AnoGanSettings, crops
from edge_asd_train.cache_folder import cache_in
from edge_asd_train.clip_scorer import block_features
from edge_asd_train.clip_statistics import Flux
from edge_asd_train.collapse import figures_of
from edge_asd_train.corpus import Windows
from edge_asd_train.crops import random_crops
from edge_asd_train.distance import fit_distance, scaled_residuals
from edge_asd_train.scorers import distance_to_mean
from edge_asd_train.scratch import CHUNK, ScratchError, chunks, scratch
from edge_asd_train.standardise import GLOBAL, NONE, PER_MEL, Standardise
from edge_asd_train.statistics import levelled

COUNT = 2 * CHUNK + 21
INDEX = np.arange(COUNT) % 3


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    random = np.random.default_rng(5)
    colour = random.normal(-50, 8, (3, 128, 1))[INDEX]
    loudness = random.normal(0, 6, (COUNT, 1, 1))
    return (colour + loudness + random.normal(0, 3, (COUNT, 128, 70))).astype(np.float32)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path) -> Iterator[Path]:
    with cache_in(tmp_path / "cache"):
        yield tmp_path / "cache"


def test_a_working_file_has_no_name(cache: Path) -> None:
    array = scratch((3, 4), np.float64)
    array[1] = 7.0
    assert array.sum() == 28.0 and list(cache.iterdir()) == []
    assert scratch((0, 4)).shape == (0, 4)


def test_without_a_cache_it_is_a_temporary_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with cache_in(tmp_path / "file"):
        assert not scratch((3, 4)).any()


def test_no_room_is_an_error_and_no_crash(cache: Path) -> None:
    with pytest.raises(ScratchError, match=rf"TB|GB of working files do not fit into {cache} or .*--cache"):
        scratch((2**50,))


def test_chunks_cover_everything() -> None:
    assert [(c.start, c.stop) for c in chunks(150)] == [(0, 64), (64, 128), (128, 150)]
    assert list(chunks(0)) == []


@pytest.mark.parametrize("normalisation", [PER_MEL, GLOBAL, NONE])
def test_standardised_as_a_whole(images: np.ndarray, normalisation: str) -> None:
    exact = images.astype(np.float64)
    shown = exact - exact.mean(axis=(1, 2), keepdims=True) if normalisation == PER_MEL else exact
    of_id = [shown[i == INDEX] for i in range(3)]
    mean = np.stack([part.mean(axis=(0, 2)) for part in of_id])
    offset, spread = np.zeros((3, 128)), np.ones((3, 128))
    if normalisation == PER_MEL:
        offset, spread = mean, np.stack([part.std(axis=(0, 2)) for part in of_id]) + 0.1
    elif normalisation == GLOBAL:
        offset, spread = offset + shown.mean(), spread * (shown.std() + 0.1)
    found = Standardise.fit(images, INDEX, 3, normalisation)
    assert found.offset.numpy() == pytest.approx(offset, rel=1e-6, abs=1e-6)
    assert found.spread.numpy() == pytest.approx(spread, rel=1e-6)
    wanted = (shown - offset[INDEX][:, :, None]) / spread[INDEX][:, :, None]
    made = found.apply(images, INDEX)
    np.testing.assert_allclose(made, wanted, atol=1e-4)
    assert np.array_equal(made, found(torch.from_numpy(images), torch.from_numpy(INDEX)).numpy()), "to the bit"
    of_mean = ((mean - offset) / spread)[INDEX][:, :, None]
    np.testing.assert_allclose(found.centred(made, INDEX), wanted - of_mean, atol=2e-4)


def test_levelled_as_a_whole(images: np.ndarray) -> None:
    assert np.array_equal(levelled(images), images - images.mean(axis=(1, 2), keepdims=True))


def test_figures_of_some_windows(images: np.ndarray) -> None:
    rows = np.flatnonzero(INDEX != 1)
    found = figures_of(images / 2, images, rows=rows).mse_over_variance
    assert found == pytest.approx(0.25)
    spoilt = images.copy()
    spoilt[INDEX == 1] += np.random.default_rng(0).normal(0, 50, (128, 70)).astype(np.float32)
    assert figures_of(spoilt / 2, images, rows=rows).mse_over_variance == found
    assert figures_of(spoilt / 2, images).mse_over_variance > found + 1  # type: ignore[operator]


def test_features_as_a_whole(images: np.ndarray) -> None:
    block = Flux(128, bands=32)
    assert np.array_equal(block_features(block, images), block(torch.from_numpy(images)).double().numpy())


def test_a_distance_fitted_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(2)
    features = random.normal(size=(COUNT, 9)) @ random.normal(size=(9, 9)) + INDEX[:, None]
    others = [scaled_residuals(random.normal(size=(31, 9)), np.arange(31) % 2)]
    rows = np.flatnonzero(np.arange(COUNT) % 5)
    whole, residuals = fit_distance(features[rows], INDEX[rows], 3, others), scaled_residuals(features, INDEX)
    monkeypatch.setattr(distance, "_CHUNK", 7)
    in_parts = fit_distance(features, INDEX, 3, others, rows=rows)
    for name in ("mean", "scale", "whitening"):
        assert getattr(in_parts, name).numpy() == pytest.approx(getattr(whole, name).numpy(), rel=1e-5, abs=1e-5)
    assert scaled_residuals(features, INDEX) == pytest.approx(residuals, rel=1e-9, abs=1e-9)


def test_crops_of_some_rows_are_those_of_a_copy(images: np.ndarray) -> None:
    rows = np.flatnonzero(INDEX == 2)
    some, copied = (
        random_crops(torch.from_numpy(of), among, 40, 64, torch.Generator().manual_seed(1))
        for of, among in ((images, rows), (images[rows], np.arange(len(rows))))
    )
    assert torch.equal(some, copied)


def test_variety_as_a_whole(images: np.ndarray) -> None:
    model = AnoGan(AnoGanSettings(latent=4, generator_channels=2, discriminator_channels=2, encoder_channels=2)).eval()
    rows = np.flatnonzero(INDEX != 0)
    with torch.no_grad():
        z = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
        wanted = model.generator(z).std(0).mean() / crops(torch.from_numpy(images[rows])).std(0).mean()
    assert variety(model, images, rows) == pytest.approx(float(wanted), rel=1e-5)


def test_distance_to_the_mean_as_a_whole(images: np.ndarray) -> None:
    owners = [f"id_{i:02d}" for i in INDEX]
    nothing = np.zeros(COUNT)
    windows = Windows(images, nothing, np.arange(COUNT), nothing)
    test = Windows(images[:4], nothing[:4], np.arange(4), nothing[:4])
    found = distance_to_mean(windows, owners, test, ["id_00", "id_01", "id_02", "id_09"])
    means = [images[i == INDEX].astype(np.float64).mean(axis=0) for i in range(3)]
    means.append(images.astype(np.float64).mean(axis=0))
    assert found == pytest.approx([((x - m) ** 2).mean() for x, m in zip(images, means, strict=False)], rel=1e-5)


MEASURED = """
import sys, threading
from pathlib import Path
import numpy as np
from edge_asd_train.cache_folder import cache_in
from edge_asd_train.clip_scorer import Images, fit_clip_scorer
from edge_asd_train.clip_statistics import Flux
from edge_asd_train.collapse import figures_of
from edge_asd_train.scratch import chunks, scratch
from edge_asd_train.splits import split_by_recording
from edge_asd_train.standardise import Standardise
from edge_asd_train.statistics import levelled

def anonymous():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))

def watch():
    while not done.wait(0.002):
        seen.append(anonymous())

count = int(sys.argv[2])
with cache_in(Path(sys.argv[1])):
    log_mel, index = scratch((count, 128, 313)), np.zeros(count, np.intp)
    for some in chunks(count):
        log_mel[some] = np.random.default_rng(some.start).normal(0, 3, log_mel[some].shape)
    split = split_by_recording([f"id_00/{n // 10}" for n in range(count)], 2, 0)
    for warm_up in (True, False):
        done, seen = threading.Event(), []
        watching = threading.Thread(target=watch)
        watching.start()
        among = slice(0, 70 if warm_up else count)
        part, owner = log_mel[among], index[among]
        standardise = Standardise.fit(part, owner, 1)
        images = standardise.apply(part, owner)
        figures_of(images, standardise.centred(images, owner))
        if not warm_up:
            fit_clip_scorer(Images(levelled(images), owner), 1, split, blocks=lambda mels: [Flux(mels)])
        done.set()
        watching.join()
    print(max(seen))
"""


def test_memory_does_not_grow_with_the_number_of_windows(tmp_path: Path) -> None:
    """800 more, of 160 kB, and four copies of each; what lies in files is the kernel's to take back."""
    peaks = []
    for count in (200, 1000):
        done = subprocess.run(
            [sys.executable, "-c", MEASURED, tmp_path, str(count)], capture_output=True, check=True, text=True
        )
        peaks.append(int(done.stdout))
    assert peaks[1] < peaks[0] + 100_000, f"kB: {peaks}"
