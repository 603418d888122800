"""The convolutional autoencoder: settings and network."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .standardise import GLOBAL, NORMALISATIONS, PER_MEL


def check_validation(share: float, statistics: bool) -> None:
    """Refuse a share of clips to leave out that cannot be.

    Raises:
        ValueError: with the reason.
    """
    if not 0.0 <= share <= 0.5:
        raise ValueError(f"validation {share:g} is not from 0 to a half")
    if share and statistics:
        raise ValueError(f"validation {share:g}: statistics need every clip left out once; it must be 0 with them")


@dataclass(frozen=True)
class CaeSettings:
    """How the autoencoder is built, trained and scored."""

    crop_frames: int = 64
    """Frames of a crop; a multiple of 16."""
    channels: tuple[int, int, int, int] = (8, 16, 32, 32)
    """Of the four convolutions, each of which halves mels and frames."""
    skip: bool = False
    """Connections past the bottleneck (they copy the input, anomalies too)."""
    normalisation: str = PER_MEL
    """per-mel: level taken away, then mean and spread of each mel of the machine id; global: one mean and spread of all
    sound, level kept; none: the log-Mel as it is."""
    batch_norm: bool = True
    """Batch normalisation after each convolution."""
    dropout: float = 0.1
    """Share of channels dropped after each encoder convolution."""
    iterations: int = 500
    """Batches of random crops, where no number of epochs is given."""
    epochs: int = 0
    """As many random crops as there are clips make an epoch; 0: as many iterations as told instead."""
    batch: int = 48
    """Crops."""
    learning_rate: float = 3e-3
    """Adam's; with the schedule, its peak."""
    one_cycle: bool = True
    """Let the learning rate rise and fall over the training (Smith 2018); else it is constant."""
    validation: float = 0.0
    """Share of the clips, in whole recordings, that is left out of training and calibrated on, where the mean squared
    error is scored; 0: every fold is left out in turn, and the network that is kept is trained on all."""
    statistics: bool = True
    """Score the statistics of the residual; else the mean squared error, as the report does."""

    def __post_init__(self) -> None:
        if self.crop_frames < 16 or self.crop_frames % 16:
            raise ValueError(f"crop_frames {self.crop_frames} is not a multiple of 16")
        if len(self.channels) != 4 or min(self.channels) < 1:
            raise ValueError(f"channels {self.channels}: four numbers of at least 1 are wanted")
        if self.iterations < 1 or self.batch < 1 or self.epochs < 0:
            raise ValueError(
                f"iterations {self.iterations}, batch {self.batch}: both must be at least 1; epochs {self.epochs}: at"
                " least 0"
            )
        if self.normalisation not in NORMALISATIONS:
            raise ValueError(f"normalisation {self.normalisation!r} is none of {', '.join(NORMALISATIONS)}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout {self.dropout:g} is not from 0 to below 1")
        check_validation(self.validation, self.statistics)
        if not 0 < self.learning_rate < 1:
            raise ValueError(f"learning_rate {self.learning_rate:g} is not between 0 and 1")

    def batches(self, clips: int) -> int:
        """Batches of training with so many clips."""
        return self.epochs * max(1, -(-clips // self.batch)) if self.epochs else self.iterations


PRESETS = {
    "default": CaeSettings(),
    # Stated: four convolutions with dropout and ReLU, random crops, 100 epochs, normalised and without skips (the row
    # of its Table I that does best; --skip and --normalisation none give the others), scored by reconstruction error.
    # Our reading, with usual values, as the report was not at hand: `OUR_READING`.
    "report": CaeSettings(
        channels=(32, 64, 128, 256),
        normalisation=GLOBAL,
        batch_norm=False,
        dropout=0.2,
        epochs=100,
        batch=32,
        learning_rate=1e-3,
        one_cycle=False,
        validation=0.1,
        statistics=False,
    ),
}
OUR_READING = frozenset(
    {"channels", "normalisation", "batch_norm", "dropout", "batch", "learning_rate", "one_cycle", "validation"}
)
"""What the report's preset sets without the report, as far as we know it, stating it."""


class Autoencoder(nn.Module):
    """Four convolutions down, four up: ``[crop, 1, mel, frame]`` in and out."""

    curve: list[list[float]] | None = None
    """Of the training, see `edge_asd_train.training_curve`."""

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
