"""The convolutional autoencoder: what it cannot reconstruct of a window is scored.

Trained on random crops of the standardised log-Mel of normal sound. At scoring, crops on a fixed grid are reconstructed
and put together; the statistics of the residual are scored as those of a ``statistics`` detector are. The plain mean
squared error is given beside it as ``report_score``.
"""

from __future__ import annotations

import itertools
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from edge_asd.detector import Detector
from edge_asd.errors import UsageError
from edge_asd.logmel import Float32Array

from .clip_scorer import ClipScorer, fit_clip_scorer
from .collapse import CollapseError
from .crops import cut, join, random_crops
from .training import Standardise, TrainingSet, finish, report

COLLAPSE_RATIO = 0.95
"""Mean squared error over variance on held-out normal clips above which a network has learnt nothing but the mean."""


@dataclass(frozen=True)
class CaeSettings:
    """How the autoencoder is built and trained."""

    crop_frames: int = 64
    """Frames of a crop; a multiple of 16."""
    channels: tuple[int, int, int, int] = (8, 16, 32, 32)
    """Of the four convolutions, each of which halves mels and frames."""
    skip: bool = False
    """Connections past the bottleneck (they copy the input, anomalies too)."""
    batch_norm: bool = True
    """Batch normalisation after each convolution."""
    dropout: float = 0.1
    """Share of channels dropped after each encoder convolution."""
    epochs: int = 30
    """Passes over the clips, with as many random crops of each as fit into it."""
    batch: int = 64
    """Crops."""
    learning_rate: float = 2e-3
    """Peak of the one-cycle schedule (Smith 2018), Adam."""

    def __post_init__(self) -> None:
        if self.crop_frames < 16 or self.crop_frames % 16:
            raise ValueError(f"crop_frames {self.crop_frames} is not a multiple of 16")
        if self.epochs < 1 or self.batch < 1:
            raise ValueError(f"{self.epochs} epochs of batches of {self.batch} crops: both must be at least 1")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout {self.dropout:g} is not from 0 to below 1")
        if not 0 < self.learning_rate < 1:
            raise ValueError(f"learning_rate {self.learning_rate:g} is not between 0 and 1")


class Autoencoder(nn.Module):
    """Four convolutions down, four up: ``[crop, 1, mel, frame]`` in and out."""

    def __init__(self, settings: CaeSettings) -> None:
        super().__init__()
        sizes = (1, *settings.channels)
        pairs = list(itertools.pairwise(sizes))
        self.skip = settings.skip
        self.down = nn.ModuleList(
            self._stage(nn.Conv2d(i, o, 3, 2, 1), o, settings, settings.dropout) for i, o in pairs
        )
        self.up = nn.ModuleList(
            self._stage(nn.ConvTranspose2d(o * (2 if self.skip and deep else 1), i, 4, 2, 1), i, settings, 0.0)
            for deep, (i, o) in zip((False, True, True), reversed(pairs[1:]), strict=True)
        )
        self.last = nn.ConvTranspose2d(sizes[1] * (2 if self.skip else 1), 1, 4, 2, 1)

    @staticmethod
    def _stage(convolution: nn.Module, channels: int, settings: CaeSettings, dropout: float) -> nn.Sequential:
        layers: list[nn.Module] = [convolution]
        if settings.batch_norm:
            layers.append(nn.BatchNorm2d(channels))
        layers.append(nn.ReLU())
        if dropout:
            layers.append(nn.Dropout2d(dropout))
        return nn.Sequential(*layers)

    def forward(self, crops: Tensor) -> Tensor:
        passed: list[Tensor] = []
        hidden = crops
        for stage in self.down:
            hidden = stage(hidden)
            passed.append(hidden)
        passed.pop()
        for stage in self.up:
            hidden = stage(hidden)
            if self.skip:
                hidden = torch.cat([hidden, passed.pop()], dim=1)
        reconstruction: Tensor = self.last(hidden)
        return reconstruction


class CaeDetector(nn.Module):
    """Standardise, reconstruct crop by crop, score the statistics of the residual."""

    def __init__(self, standardise: Standardise, network: Autoencoder, scorer: ClipScorer, crop_frames: int) -> None:
        super().__init__()
        self.standardise, self.network, self.scorer, self.crop_frames = standardise, network, scorer, crop_frames

    def forward(self, log_mel: Tensor, machine_id: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Score ``[window]``, anomaly map ``[window, mel, frame]``, mean squared error ``[window]``."""
        image = self.standardise(log_mel, machine_id)
        residual = image - reconstruct(self.network, image, self.crop_frames)
        score, anomaly_map = self.scorer(residual, machine_id)
        return score, anomaly_map, (residual**2).mean(dim=(1, 2))


def train(
    training: TrainingSet, out: Path, settings: CaeSettings | None = None, *, licence: str | None = None
) -> Detector:
    """Train on every fold but one for held-out residuals, then on all; calibrate and write. Prints progress.

    Raises:
        UsageError: crops that are longer than a window.
        CollapseError: the network gives the mean image whatever it is shown.
    """
    started = time.monotonic()
    settings = settings or CaeSettings()
    frames = training.log_mel.shape[2]
    if settings.crop_frames > frames:
        raise UsageError(f"crop_frames {settings.crop_frames} is more than the {frames} frames of a window")
    ids = len(training.ids)
    standardise = Standardise.fit(training.log_mel, training.machine_index, ids)
    images = standardise.apply(training.log_mel, training.machine_index)
    folds = int(training.folds.max()) + 1
    bar = tqdm(total=(folds + 1) * settings.epochs, desc=f"CAE of {training.machine}", unit="epoch")
    residuals = np.zeros_like(images)
    for fold in range(folds):
        out_of_fold = training.folds == fold
        network = fit_network(images[~out_of_fold], settings, training.seed + fold, bar)
        residuals[out_of_fold] = residuals_of(network, images[out_of_fold], settings.crop_frames)
    ratio = float((residuals**2).mean() / images.var())
    if ratio > COLLAPSE_RATIO:
        bar.close()
        raise CollapseError(
            f"the autoencoder collapsed: its error on held-out normal clips is {ratio:.2f} of their variance;"
            " train longer, on more clips, or with another learning rate"
        )
    network = fit_network(images, settings, training.seed + folds, bar)
    bar.close()
    # In the networks' own folds: a network is another than those whose residuals the distances were fitted to, and
    # the held-out scores must have that in them, or the shipped one would find all sound unusual.
    fitted = fit_clip_scorer(residuals, training.machine_index, ids, training.folds)
    detector = finish(
        "cae",
        CaeDetector(standardise, network, fitted.scorer, settings.crop_frames).eval(),
        training,
        fitted.held_out,
        out,
        settings={
            **asdict(settings),
            "seed": training.seed,
            "folds": folds,
            "held_out_mse_over_variance": round(ratio, 4),
        },
        licence=licence,
    )
    report(detector, training, started)
    print(f"  error on held-out normal clips: {ratio:.2f} of their variance")
    return detector


def fit_network(images: Float32Array, settings: CaeSettings, seed: int, bar: tqdm) -> Autoencoder:  # type: ignore[type-arg]
    """Train one network on random crops of images ``[window, mel, frame]``; the same seed gives the same network."""
    torch.manual_seed(seed)
    random = torch.Generator().manual_seed(seed)
    windows = torch.from_numpy(images)
    network = Autoencoder(settings).to(memory_format=torch.channels_last)
    per_epoch = images.shape[0] * images.shape[2] // settings.crop_frames
    steps = max(1, per_epoch // settings.batch)
    optimiser = torch.optim.Adam(network.parameters(), lr=settings.learning_rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, settings.learning_rate, total_steps=settings.epochs * steps, cycle_momentum=False
    )
    for _ in range(settings.epochs):
        total = 0.0
        for _ in range(steps):
            crops = random_crops(windows, settings.batch, settings.crop_frames, random)
            loss = nn.functional.mse_loss(network(crops), crops)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            schedule.step()
            total += float(loss.detach())
        bar.set_postfix(error=f"{total / steps:.3f}", refresh=False)
        bar.update()
    return network.to(memory_format=torch.contiguous_format).eval()


def reconstruct(network: Autoencoder, images: Tensor, crop_frames: int) -> Tensor:
    """Images ``[window, mel, frame]`` as the network gives them back, crop by crop."""
    return join(network(cut(images, crop_frames)), images.shape[2])


@torch.no_grad()
def residuals_of(network: Autoencoder, images: Float32Array, crop_frames: int) -> Float32Array:
    """Image less its reconstruction, ``[window, mel, frame]``."""
    parts = []
    for start in range(0, len(images), 16):
        image = torch.from_numpy(images[start : start + 16])
        parts.append((image - reconstruct(network, image, crop_frames)).numpy())
    return np.concatenate(parts)
