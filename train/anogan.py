"""Training of an AnoGAN on crops of the log-Mel of normal sound.

Generator and discriminator are trained against each other on random crops of normal sound (Radford et al. 2016: strided
convolutions, batch norm, Adam at 2e-4 with beta1 0.5; Miyato et al. 2018: spectral norm in the discriminator). An
encoder finds the latent to start the search from (f-AnoGAN, Schlegl et al. 2019), with one difference: it is trained
along with the generator, which is asked to bring every crop back (Larsen et al. 2016). On factory noise a generator
that was trained against the discriminator alone draws a plausible texture but not *this* texture: searching it leaves
80 % of the variance of held-out slide-rail crops, and under 50 % when it was trained with the encoder.
"""

from __future__ import annotations

import copy

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from .anogan_networks import IMAGE_FRAMES, IMAGE_MELS, MELS_AVERAGED, AnoGan, AnoGanSettings, average_mels, crops
from .crops import random_crops
from .reproducible import device, reproducible

_RECOUNT_BATCHES = 30
_DRAWS = 64


def train_anogan(
    log_mels: NDArray[np.float32],
    settings: AnoGanSettings,
    *,
    progress: bool = True,
    title: str = "anogan",
) -> AnoGan:
    """Train the networks on normal sound.

    Args:
        log_mels: standardised per mel and id, ``[clip, mel, frame]``.
        settings: how.
        progress: show a bar with the time left.
        title: of the bar.

    Returns:
        The networks in evaluation mode on the CPU; the same for the same seed, data and machine.

    Raises:
        ValueError: the clips have the wrong shape, are shorter than a crop, or hold NaN or infinity.
    """
    images = _long_images(log_mels)
    shuffled = np.random.default_rng(settings.seed).permutation(len(images))
    images = images[torch.from_numpy(np.sort(shuffled[round(settings.validation * len(images)) :]))]
    bar = tqdm(range(settings.batches(len(images))), desc=title, unit="batch", disable=not progress)
    with reproducible():
        torch.manual_seed(settings.seed)
        model = AnoGan(settings)
        return _fit(model, images, settings, device(), bar)


def _long_images(log_mels: NDArray[np.float32]) -> Tensor:
    mels = IMAGE_MELS * MELS_AVERAGED
    if log_mels.ndim != 3 or not len(log_mels) or log_mels.shape[1] != mels or log_mels.shape[2] < IMAGE_FRAMES:
        raise ValueError(f"expected clips of {mels} mels and {IMAGE_FRAMES} frames or more, got {log_mels.shape}")
    if not np.isfinite(log_mels).all():
        raise ValueError("the log-Mels hold NaN or infinity")
    return average_mels(torch.from_numpy(np.ascontiguousarray(log_mels, np.float32)))


def _fit(model: AnoGan, images: Tensor, settings: AnoGanSettings, where: torch.device, bar: tqdm[int]) -> AnoGan:
    model.to(where).train()
    averaged = copy.deepcopy(model)
    networks = model.generator, model.discriminator, model.encoder
    rates = settings.learning_rate, settings.discriminator_learning_rate, settings.encoder_learning_rate
    optimisers = [
        torch.optim.Adam(network.parameters(), rate, (settings.beta1, settings.beta2))
        for network, rate in zip(networks, rates, strict=True)
    ]
    random = torch.Generator().manual_seed(settings.seed)

    for batch in bar:
        real = random_crops(images, settings.batch_crops, IMAGE_FRAMES, random).to(where)
        z = torch.randn(settings.batch_draws, settings.latent, generator=random).to(where)
        made = _generate(model, z, real)
        drawn, reconstruction = made[: len(z)], made[len(z) :]

        model.discriminator.requires_grad_(True)
        real_features = model.discriminator.features(real)
        verdict = functional.softplus(-model.discriminator.head(real_features)).mean()
        verdict = verdict + functional.softplus(model.discriminator(drawn.detach())).mean()
        optimisers[1].zero_grad()
        torch.autograd.backward(verdict)
        optimisers[1].step()

        model.discriminator.requires_grad_(False)
        fooling = functional.softplus(-model.discriminator(drawn)).mean()
        loss, told = fooling, {"verdict": verdict}
        if settings.encoder:
            residual = (real - reconstruction).abs().mean()
            distance = (real_features.detach() - model.discriminator.features(reconstruction)).abs().mean()
            loss = loss + settings.reconstruction_weight * ((1 - settings.lam) * residual + settings.lam * distance)
            told["residual"] = residual
        optimisers[0].zero_grad()
        optimisers[2].zero_grad()
        torch.autograd.backward(loss)
        optimisers[0].step()
        if settings.encoder:
            optimisers[2].step()

        decay = min(settings.average_decay, (1 + batch) / (10 + batch))  # forget the random start soon
        for kept, trained in zip(averaged.parameters(), model.parameters(), strict=True):
            kept.data.lerp_(trained.data, 1.0 - decay)
        if not bar.disable and batch % 50 == 0:
            bar.set_postfix({name: f"{value.item():.3f}" for name, value in told.items()}, refresh=False)

    averaged.discriminator = model.discriminator
    _recount_batch_norms(averaged, images, settings, random, where)
    return averaged.cpu().eval().requires_grad_(True)


@torch.no_grad()
def _recount_batch_norms(
    model: AnoGan, images: Tensor, settings: AnoGanSettings, random: torch.Generator, where: torch.device
) -> None:
    """Averaged weights have other statistics than the weights they average (Izmailov et al. 2018)."""
    model.train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None  # the plain mean over all batches
    for _ in range(_RECOUNT_BATCHES):
        real = random_crops(images, settings.batch_crops, IMAGE_FRAMES, random).to(where)
        z = torch.randn(settings.batch_draws, settings.latent, generator=random).to(where)
        _generate(model, z, real)


def _generate(model: AnoGan, z: Tensor, real: Tensor) -> Tensor:
    """Images of drawn z and, where there is an encoder, of encoded crops: in one pass, so that the generator's batch
    norm sees both as one population."""
    made: Tensor = model.generator(torch.cat([z, model.encoder(real)]) if model.settings.encoder else z)
    return made


@torch.no_grad()
def variety(model: AnoGan, log_mels: NDArray[np.float32]) -> float:
    """Spread of generated images over z, over the spread of real crops; 0 is one image for every z.

    Args:
        model: trained.
        log_mels: normal sound that was not trained on, standardised ``[clip, mel, frame]``.
    """
    query = crops(torch.from_numpy(np.ascontiguousarray(log_mels, np.float32)))
    z = torch.randn(_DRAWS, model.settings.latent, generator=torch.Generator().manual_seed(model.settings.seed))
    drawn = copy.deepcopy(model.generator).eval()(z)
    return float(drawn.std(0).mean() / query.std(0).mean())
