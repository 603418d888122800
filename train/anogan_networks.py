"""The networks of an AnoGAN: generator, discriminator, encoder, and what they are given: crops of the log-Mel.

An image is a crop of 64 frames with pairs of mels averaged: ``[1, 64, 64]`` of standardised log-Mel.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from edge_asd.calibration import MIN_SCORES

from .cae_network import check_validation
from .crops import cut
from .latent_search import LatentSearch
from .search_graph import search_model
from .standardise import GLOBAL, NORMALISATIONS, PER_MEL

MELS_AVERAGED = 2
"""Mels to a row of the image; pairs halve the work and the noise of single cells."""
IMAGE_MELS, IMAGE_FRAMES = 64, 64
"""Size of an image, the DCGAN's own."""


@dataclass(frozen=True)
class AnoGanSettings:
    """How an AnoGAN is built, trained and searched."""

    normalisation: str = PER_MEL
    """per-mel: level taken away, then mean and spread of each mel of the machine id; global: one mean and spread of all
    sound, level kept; none: the log-Mel as it is."""
    latent: int = 64
    """Entries of z, drawn from N(0, 1)."""
    generator_channels: int = 12
    """Channels of the generator's last hidden layer; each layer before has twice as many. Decides the search's cost: 12
    takes two thirds of the time of 16 and hears as much; 8 takes half, but hears less."""
    discriminator_channels: int = 8
    """Channels of the discriminator's first layer; each layer after has twice as many."""
    encoder_channels: int = 16
    """Channels of the encoder's first layer, where there is one; it runs once per crop, so it may be wider."""
    iterations: int = 600
    """Batches of training, where no number of epochs is given."""
    epochs: int = 0
    """As many random crops as there are clips make an epoch; 0: as many iterations as told instead."""
    validation: float = 0.0
    """Share of the clips, in whole recordings, that is left out of training and calibrated on, where A(x) is scored;
    0: every fold is left out in turn, and the networks that are kept are trained on all."""
    batch_crops: int = 32
    """Random crops of normal sound in a batch."""
    batch_draws: int = 16
    """Images drawn from random z in a batch."""
    learning_rate: float = 1e-3
    """Adam's step for the generator. DCGAN's 2e-4 is for adversaries alone; bringing crops back wants more."""
    discriminator_learning_rate: float = 4e-4
    """Adam's step for the discriminator."""
    encoder_learning_rate: float = 1e-3
    """Adam's step for the encoder, where there is one."""
    beta1: float = 0.5
    """Adam's momentum in training; 0.9 makes the two networks chase each other."""
    beta2: float = 0.999
    """Adam's memory of the size of gradients."""
    average_decay: float = 0.995
    """The generator and encoder that are kept are running averages of their weights with this decay per batch."""
    reconstruction_weight: float = 10.0
    """Weight of reconstruction, with an encoder, against the discriminator's verdict in the generator's loss."""
    encoder: bool = True
    """Train an encoder along with the generator, and search from its z; else there is none, and from zeros."""
    lam: float = 0.1
    """Lambda: share of the discriminator's features in A(x), 0 to 1."""
    search_steps: int = 10
    """Steps of the search where the detector's user asks for no other number."""
    search_learning_rate: float = 0.1
    """Adam's step in z in the search."""
    search_rate_decay: float = 0.98
    """What that step is multiplied with after each, so that a search comes to rest, at the same place on every machine;
    1: it stays."""
    statistics: bool = True
    """Score the statistics of the residual; else A(x), as the report does."""
    held_out_windows: int = 100
    """Held-out windows of each machine id that are searched for the calibration where A(x) is the score; spread evenly.
    A search of 1,000 steps takes seconds a window. The statistics need all of them."""
    seed: int = 0
    """Of the weights at the start, and of the crops and z that are drawn."""

    def __post_init__(self) -> None:
        if not 0.0 <= self.lam <= 1.0:
            raise ValueError(f"lambda {self.lam} is not between 0 and 1")
        channels = "generator_channels", "discriminator_channels", "encoder_channels"
        for name in ("latent", *channels, "iterations"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} {getattr(self, name)} is not positive")
        if self.held_out_windows < MIN_SCORES:
            raise ValueError(f"held_out_windows {self.held_out_windows}: a calibration needs {MIN_SCORES} at least")
        if self.batch_crops < 2 or self.batch_draws < 2:
            raise ValueError("batch norm needs at least 2 crops and 2 draws in a batch")
        if self.normalisation not in NORMALISATIONS:
            raise ValueError(f"normalisation {self.normalisation!r} is none of {', '.join(NORMALISATIONS)}")
        if self.search_steps < 0 or self.epochs < 0:
            raise ValueError(f"search_steps {self.search_steps} or epochs {self.epochs} is negative")
        check_validation(self.validation, self.statistics)
        if not 0.0 < self.search_rate_decay <= 1.0:
            raise ValueError(f"search_rate_decay {self.search_rate_decay:g} is not above 0 and at most 1")
        for name in ("beta1", "beta2", "average_decay"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ValueError(f"{name} {getattr(self, name):g} is not from 0 to below 1")
        for name in ("learning_rate", "discriminator_learning_rate", "encoder_learning_rate", "search_learning_rate"):
            if not 0.0 < getattr(self, name) < 1.0:
                raise ValueError(f"{name} {getattr(self, name):g} is not between 0 and 1")

    def batches(self, clips: int) -> int:
        """Batches of training with so many clips."""
        return self.epochs * max(1, -(-clips // self.batch_crops)) if self.epochs else self.iterations


PRESETS = {
    "default": AnoGanSettings(),
    # Stated: 300 epochs, learning rate 0.01, batches of 500, a tenth for validation, betas 0.9 and 0.999, latent 100,
    # 1,000 search steps at 0.001, lambda 0.1, no encoder. Our reading: `OUR_READING`, and the networks, which are those
    # of the default: like a DCGAN's, but narrower, with spectral norm in the discriminator and a linear end. Each crop
    # of a window is searched and their A(x) averaged, where the report draws one at random.
    "report": AnoGanSettings(
        normalisation=GLOBAL,
        latent=100,
        epochs=300,
        validation=0.1,
        batch_crops=500,
        batch_draws=500,
        learning_rate=0.01,
        discriminator_learning_rate=0.01,
        beta1=0.9,
        average_decay=0.0,
        encoder=False,
        search_steps=1000,
        search_learning_rate=0.001,
        search_rate_decay=1.0,
        statistics=False,
    ),
}
OUR_READING = frozenset({"normalisation", "batch_draws", "average_decay"})
"""What the report's preset sets without the report stating it."""


def generator(settings: AnoGanSettings) -> nn.Sequential:
    """z ``[crop, latent]`` to image ``[crop, 1, 64, 64]``, linear at the end: standardised log-Mel has no bounds."""
    width = settings.generator_channels
    layers: list[nn.Module] = [nn.Unflatten(1, (settings.latent, 1, 1))]
    before, stride, padding = settings.latent, 1, 0
    for channels in (8 * width, 4 * width, 2 * width, width):  # 4, 8, 16, 32 rows and columns
        layers += [nn.ConvTranspose2d(before, channels, 4, stride, padding, bias=False)]
        layers += [nn.BatchNorm2d(channels), nn.ReLU()]
        before, stride, padding = channels, 2, 1
    return nn.Sequential(*layers, nn.ConvTranspose2d(width, 1, 4, 2, 1))


class Discriminator(nn.Module):
    """Image ``[crop, 1, 64, 64]`` to the logit of being real ``[crop, 1]``.

    ``features`` ``[crop, 4 channels, 8, 8]`` is what A(x) compares. No batch norm: a crop is judged by itself.
    """

    def __init__(self, settings: AnoGanSettings) -> None:
        super().__init__()
        width = settings.discriminator_channels

        def layer(before: int, after: int) -> list[nn.Module]:
            return [spectral_norm(nn.Conv2d(before, after, 4, 2, 1)), nn.LeakyReLU(0.2)]

        self.features = nn.Sequential(*layer(1, width), *layer(width, 2 * width), *layer(2 * width, 4 * width))
        self.head = nn.Sequential(*layer(4 * width, 8 * width), spectral_norm(nn.Conv2d(8 * width, 1, 4)), nn.Flatten())

    def forward(self, image: Tensor) -> Tensor:
        logit: Tensor = self.head(self.features(image))
        return logit


def encoder(settings: AnoGanSettings) -> nn.Sequential:
    """Image ``[crop, 1, 64, 64]`` to z ``[crop, latent]``.

    It ends in a batch norm without affine part, so that over normal sound its z has the moments of the N(0, 1) that the
    generator is drawn from. All convolutions: unlike a matrix product they do not depend on the batch a crop is in.
    """
    width = settings.encoder_channels
    layers: list[nn.Module] = []
    before = 1
    for channels in (width, 2 * width, 4 * width, 8 * width):
        layers += [nn.Conv2d(before, channels, 4, 2, 1, bias=False), nn.BatchNorm2d(channels), nn.LeakyReLU(0.2)]
        before = channels
    last = nn.Conv2d(before, settings.latent, 4, bias=False)
    return nn.Sequential(*layers, last, nn.BatchNorm2d(settings.latent, affine=False), nn.Flatten())


class AnoGan(nn.Module):
    """The three networks of a detector, with the settings that made them."""

    curve: list[list[float]] | None = None
    """Of the training, see `edge_asd_train.training_curve`."""

    def __init__(self, settings: AnoGanSettings) -> None:
        super().__init__()
        self.settings = settings
        self.generator = generator(settings)
        self.discriminator = Discriminator(settings)
        self.encoder = encoder(settings)

    def latent_search(self, *, warm_start: bool = True) -> LatentSearch:
        """The frozen search over these networks, from the encoder's z or, without ``warm_start``, from zeros."""
        return LatentSearch(
            self.generator,
            self.discriminator.features,
            self.encoder if warm_start and self.settings.encoder else None,
            latent=self.settings.latent,
            lam=self.settings.lam,
            learning_rate=self.settings.search_learning_rate,
            rate_decay=self.settings.search_rate_decay,
        )

    def search_model(self) -> onnx.ModelProto:
        """The search for ONNX Runtime; see :func:`edge_asd_train.search_graph.search_model`."""
        return search_model(
            self.latent_search(), image_shape=(IMAGE_MELS, IMAGE_FRAMES), default_steps=self.settings.search_steps
        )


def average_mels(log_mel: Tensor) -> Tensor:
    """Mean over neighbouring mels: ``[window, mel, frame]`` to ``[window, mel / 2, frame]``."""
    windows, mels, frames = log_mel.shape
    return log_mel.reshape(windows, mels // MELS_AVERAGED, MELS_AVERAGED, frames).mean(2)


def crops(standardised: Tensor) -> Tensor:
    """Windows ``[window, mel, frame]`` to images ``[window * crop, 1, mel / 2, 64]``, a window's crops in a row."""
    return cut(average_mels(standardised), IMAGE_FRAMES)
