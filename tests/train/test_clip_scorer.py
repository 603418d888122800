"""Distances and the scorer made of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from edge_asd_train.clip_scorer import ClipScorer, Images, block_features, default_blocks, fit_clip_scorer, soft_maximum
from edge_asd_train.clip_statistics import Mean
from edge_asd_train.distance import fit_distance, scaled_residuals, shrunk_covariance
from edge_asd_train.splits import split_by_recording

from edge_asd.logmel import Float32Array

INDEX = np.arange(60) % 2
SPLIT = split_by_recording([f"id_{i % 2:02d}/{i // 20}" for i in range(60)], 3, 0)


def some_images(count: int) -> Float32Array:
    images = np.random.default_rng(3).normal(0, 3, (count, 32, 63)).astype(np.float32)
    images[:, 5:9, 20:23] += 12
    return images


def test_shrunk_covariance_of_a_case_done_by_hand() -> None:
    """S = diag(2, 1/2), mean variance 5/4; d2 = 9/16, b2 = 17/32, so 17/18 of it is the sphere."""
    centred = np.array([[2.0, 0.0], [-2.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    assert shrunk_covariance(centred) == pytest.approx(np.diag([31 / 24, 29 / 24]))
    assert shrunk_covariance(np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])) == pytest.approx(
        np.eye(2) / 2
    )


@pytest.mark.parametrize(("samples", "size"), [(200, 5), (40, 40), (24, 128)])
def test_shrunk_covariance_is_that_of_ledoit_and_wolf(samples: int, size: int) -> None:
    covariance = pytest.importorskip("sklearn.covariance")
    rng = np.random.default_rng(samples)
    drawn = rng.normal(size=(samples, size)) @ np.triu(rng.normal(size=(size, size)))
    centred = drawn - drawn.mean(axis=0)
    wanted, _ = covariance.ledoit_wolf(centred, assume_centered=True)
    assert shrunk_covariance(centred) == pytest.approx(wanted, rel=1e-9, abs=1e-9 * np.abs(wanted).max())


def test_a_distance_is_that_of_mahalanobis() -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(400, 3)) @ rng.normal(size=(3, 3)) + 5
    index = np.arange(400) % 2
    distance = fit_distance(features, index, 2)
    residual = features - np.stack([features[index == i].mean(axis=0) for i in range(2)])[index]
    inverse = np.linalg.inv(residual.T @ residual / len(residual))
    wanted = np.einsum("ij,jk,ik->i", residual, inverse, residual)
    squared, parts = distance(torch.tensor(features, dtype=torch.float32), torch.from_numpy(index))
    # Shrinkage is small with 400 samples of 3 features.
    assert squared.numpy() == pytest.approx(wanted, rel=0.1)
    assert torch.allclose(parts.sum(dim=1), squared, rtol=1e-4)


def test_other_machines_of_the_site_teach_what_is_nuisance() -> None:
    """The target's few recordings do not show that two features vary together; the background's many do."""
    rng = np.random.default_rng(1)

    def machine(count: int, scale: float) -> np.ndarray:
        return scale * (rng.normal(size=(count, 1)) + 0.1 * rng.normal(size=(count, 20)))

    few, many = machine(6, 1.0), machine(300, 7.0) + 40.0
    index = np.zeros(6, np.intp)
    others = [scaled_residuals(many, np.zeros(300, np.intp))]
    nuisance, fault = np.full((1, 20), 3.0), np.r_[[3.0] * 10, [-3.0] * 10][None]

    def ratio(distance: torch.nn.Module) -> float:
        """How much farther away a fault is than usual variation of the same size."""
        both = torch.tensor(np.concatenate([fault, nuisance]), dtype=torch.float32)
        squared, _ = distance(both, torch.zeros(2, dtype=torch.int64))
        return float(squared[0] / squared[1])

    assert ratio(fit_distance(few, index, 1, others)) > 3 * ratio(fit_distance(few, index, 1)) > 3


def test_features_that_never_vary_say_nothing() -> None:
    features = np.random.default_rng(0).normal(size=(30, 3))
    features[:, 1] = 7.0
    index = np.zeros(30, np.intp)
    distance = fit_distance(features, index, 1)
    moved = features[:1] + np.array([0.0, 1e-4, 0.0])
    squared, _ = distance(
        torch.tensor(np.r_[features[:1], moved], dtype=torch.float32), torch.zeros(2, dtype=torch.int64)
    )
    assert torch.isfinite(squared).all() and squared[1] == pytest.approx(float(squared[0]), rel=1e-3)
    constant = fit_distance(np.full((10, 4), 2.0), index[:10], 1)
    assert constant(torch.full((1, 4), 2.0), torch.zeros(1, dtype=torch.int64))[0].item() == 0.0


def test_soft_maximum_lies_between_mean_and_maximum() -> None:
    scores = torch.tensor([[0.0, 1.0, 500.0], [0.0, 3.0, -500.0]])
    found, shares = soft_maximum(scores)
    assert found[0] == 0.0 and 2.0 < found[1] < 3.0
    assert found[2] == pytest.approx(500.0 - np.log(2)), "no overflow"
    assert torch.allclose(shares.sum(dim=0), torch.ones(3)) and shares[1, 1] > shares[0, 1]


def test_the_map_adds_up_to_what_deviates() -> None:
    images = some_images(60)
    fitted = fit_clip_scorer(Images(images, INDEX), 2, SPLIT)
    odd, ids = torch.from_numpy(images[:4] * np.float32(1.5)), torch.from_numpy(INDEX[:4])
    with torch.no_grad():
        score, cells = fitted.scorer(odd, ids)
    # Far from usual every block deviates, so the map's mean is the blocks' mean weighted by their shares: above the
    # soft maximum, by less than the logarithm of their number.
    above = cells.mean(dim=(1, 2)) - score
    assert (above > -1e-3).all() and (above < np.log(len(fitted.scorer.blocks))).all() and (score > 1).all()


def test_held_out_scores_are_those_of_a_fit_without_the_fold() -> None:
    """Computed the long way for one fold and one block."""
    images = some_images(60)
    fitted = fit_clip_scorer(Images(images, INDEX), 2, SPLIT, blocks=lambda mels: [Mean(mels)])
    features = block_features(Mean(32), images)
    distances = np.zeros(60)
    for fit, out in SPLIT.parts():
        squared, _ = fit_distance(features[fit], INDEX[fit], 2)(
            torch.tensor(features[out], dtype=torch.float32), torch.from_numpy(INDEX[out])
        )
        distances[out] = 0.5 * np.log(squared.numpy())
    deviation = distances - np.array([distances[i == INDEX].mean() for i in range(2)])[INDEX]
    assert fitted.held_out == pytest.approx(deviation / np.sqrt((deviation**2).mean()), abs=1e-3)


def test_variants_score_as_the_scorers_they_were_made_of() -> None:
    images = some_images(60)
    first, second = (
        fit_clip_scorer(Images(values, INDEX), 2, SPLIT, blocks=default_blocks).scorer
        for values in (images, images**2 / np.float32(5))
    )
    both = ClipScorer.of_variants([first, second])
    window, ids = torch.from_numpy(images[:5]), torch.from_numpy(INDEX[:5])
    with torch.no_grad():
        for number, alone in enumerate((first, second)):
            for mine, theirs in zip(both(window, ids, torch.tensor(number)), alone(window, ids), strict=True):
                assert torch.allclose(mine, theirs)
        assert not torch.allclose(both(window, ids)[0], second(window, ids)[0])
