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
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from .anogan_networks import IMAGE_FRAMES, IMAGE_MELS, MELS_AVERAGED, AnoGan, AnoGanSettings, average_mels, crops
from .crops import random_crops
from .reproducible import device, reproducible
from .scratch import all_rows, chunks
from .training_curve import WINDOWS, TrainingCurve
from .work_folder import NetworkWork, Resumable

_RECOUNT_BATCHES = 30
_DRAWS = 64


def train_anogan(
    images: NDArray[np.float32],
    settings: AnoGanSettings,
    *,
    rows: NDArray[np.intp] | None = None,
    progress: bool = True,
    title: str = "anogan",
    work: NetworkWork | None = None,
    left_out: NDArray[np.intp] | None = None,
) -> AnoGan:
    """Train the networks on normal sound.

    Args:
        images: standardised log-Mels, ``[clip, mel, frame]``.
        settings: how.
        rows: indices of the clips that are trained on; all unless given.
        progress: show a bar with the time left.
        title: of the bar.
        work: how far the training has come, where that is kept.
        left_out: indices of clips that are not trained on, for the curve of the training.

    Returns:
        The networks in evaluation mode on the CPU; the same for the same seed, data and machine. Their ``curve`` is the
        error of the encoder's reconstruction, or without an encoder the discriminator's loss on real crops.

    Raises:
        ValueError: the clips have the wrong shape, are shorter than a crop, or hold NaN or infinity.
    """
    rows = all_rows(len(images)) if rows is None else rows
    _check(images, rows)
    work = work or NetworkWork()
    state = work.finished()
    if state is None:
        with (
            reproducible(),
            tqdm(total=settings.batches(len(rows)), desc=title, unit="batch", disable=not progress) as bar,
        ):
            torch.manual_seed(settings.seed)
            state = _fit(AnoGan(settings), _Batches(images, rows, settings), device(), bar, work, left_out)
        work.finish(state)
    # Always made anew from the state: networks that were kept must not differ from ones that were not, to the bit.
    with torch.random.fork_rng():
        model = AnoGan(settings)
    model.load_state_dict(state["networks"])
    model.curve = state["curve"]
    return model.eval()


def _check(images: NDArray[np.float32], rows: NDArray[np.intp]) -> None:
    mels = IMAGE_MELS * MELS_AVERAGED
    if images.ndim != 3 or not len(images) or images.shape[1] != mels or images.shape[2] < IMAGE_FRAMES:
        raise ValueError(f"expected clips of {mels} mels and {IMAGE_FRAMES} frames or more, got {images.shape}")
    if not all(np.isfinite(images[rows[some]]).all() for some in chunks(len(rows))):
        raise ValueError("the log-Mels hold NaN or infinity")


class _Batches:
    """Random crops, and random z beside them: the same for the same seed, whatever device they go to."""

    def __init__(self, images: NDArray[np.float32], rows: NDArray[np.intp], settings: AnoGanSettings) -> None:
        self.random = torch.Generator().manual_seed(settings.seed)
        self._images, self._rows, self._settings = torch.from_numpy(images), rows, settings

    def draw(self) -> tuple[Tensor, Tensor]:
        """Crops ``[crop, 1, mel / 2, frame]`` and z ``[draw, latent]`` of a batch."""
        settings = self._settings
        found = random_crops(self._images, self._rows, settings.batch_crops, IMAGE_FRAMES, self.random)
        z = torch.randn(settings.batch_draws, settings.latent, generator=self.random)
        return average_mels(found[:, 0])[:, None], z

    def crops_of(self, rows: NDArray[np.intp]) -> Tensor:
        """All crops of a few of these windows, ``[crop, 1, mel / 2, frame]``."""
        some = rows[np.unique(np.linspace(0, len(rows) - 1, min(len(rows), WINDOWS)).round().astype(np.intp))]
        return crops(self._images[torch.from_numpy(some)])


def _fit(
    model: AnoGan,
    batches: _Batches,
    where: torch.device,
    bar: tqdm[Any],
    work: NetworkWork,
    left_out: NDArray[np.intp] | None,
) -> dict[str, Any]:
    """The state of the trained networks, and the curve of their training."""
    settings = model.settings
    model.to(where).train()
    averaged = copy.deepcopy(model)
    networks = model.generator, model.discriminator, model.encoder
    rates = settings.learning_rate, settings.discriminator_learning_rate, settings.encoder_learning_rate
    optimisers = [
        torch.optim.Adam(network.parameters(), rate, (settings.beta1, settings.beta2))
        for network, rate in zip(networks, rates, strict=True)
    ]
    end = int(bar.total or 0)
    curve = TrainingCurve(end, None if left_out is None else _error_on(batches.crops_of(left_out).to(where), model))
    resumable = Resumable(
        {
            "model": model,
            "averaged": averaged,
            "curve": curve,
            **{f"optimiser {n}": o for n, o in enumerate(optimisers)},
        },
        batches.random,
    )
    begin = work.begin(resumable)
    bar.update(begin)

    for batch in range(begin, end):
        real, z = (drawn.to(where) for drawn in batches.draw())
        made = _generate(model, z, real)
        drawn, reconstruction = made[: len(z)], made[len(z) :]

        model.discriminator.requires_grad_(True)
        real_features = model.discriminator.features(real)
        error = functional.softplus(-model.discriminator.head(real_features)).mean()
        verdict = error + functional.softplus(model.discriminator(drawn.detach())).mean()
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
            told["residual"] = error = residual
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
        curve.after_batch(batch + 1, error)
        bar.update()
        work.after_batch(resumable, batch + 1)

    averaged.discriminator = model.discriminator
    _recount_batch_norms(averaged, batches, where)
    state = {name: value.cpu().contiguous() for name, value in averaged.state_dict().items()}
    return {"networks": state, "curve": curve.rounded()}


def _error_on(real: Tensor, model: AnoGan) -> Callable[[], float]:
    """Takes the error of a curve on crops that are not trained on."""

    @torch.no_grad()
    def error() -> float:
        model.eval()
        if model.settings.encoder:
            found = (real - model.generator(model.encoder(real))).abs().mean()
        else:
            found = functional.softplus(-model.discriminator(real)).mean()
        model.train()
        return float(found)

    return error


@torch.no_grad()
def _recount_batch_norms(model: AnoGan, batches: _Batches, where: torch.device) -> None:
    """Averaged weights have other statistics than the weights they average (Izmailov et al. 2018)."""
    model.train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None  # the plain mean over all batches
    for _ in range(_RECOUNT_BATCHES):
        real, z = (drawn.to(where) for drawn in batches.draw())
        _generate(model, z, real)


def _generate(model: AnoGan, z: Tensor, real: Tensor) -> Tensor:
    """Images of drawn z and, where there is an encoder, of encoded crops: in one pass, so that the generator's batch
    norm sees both as one population."""
    made: Tensor = model.generator(torch.cat([z, model.encoder(real)]) if model.settings.encoder else z)
    return made


@torch.no_grad()
def variety(model: AnoGan, images: NDArray[np.float32], rows: NDArray[np.intp] | None = None) -> float:
    """Spread of generated images over z, over the spread of real crops; 0 is one image for every z.

    Args:
        model: trained.
        images: standardised log-Mels ``[clip, mel, frame]``.
        rows: indices of clips that were not trained on; all unless given.
    """
    rows = all_rows(len(images)) if rows is None else rows
    count, sums, squares = 0, torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    for some in chunks(len(rows)):
        real = crops(torch.from_numpy(images[rows[some]])).double()
        count, sums, squares = count + len(real), sums + real.sum(0), squares + (real**2).sum(0)
    spread = ((squares - sums**2 / count) / (count - 1)).clamp(min=0).sqrt()
    z = torch.randn(_DRAWS, model.settings.latent, generator=torch.Generator().manual_seed(model.settings.seed))
    drawn = copy.deepcopy(model.generator).eval()(z)
    return float(drawn.std(0).mean() / spread.mean())
