"""The latent search of an AnoGAN as a graph that ONNX Runtime runs without torch.

For every crop x the search looks for the latent z whose image G(z) is closest to it (Schlegl et al. 2017, eq. 3 to 5):

    A(x) = min over z of  (1 - lambda) * sum |x - G(z)|  +  lambda * sum |F(x) - F(G(z))|

with Adam, from a start that is fixed: zeros, or what an encoder says (Schlegl et al. 2019). One step is differentiated
by ``torch.func.grad``, traced to plain operators, and becomes the body of an ONNX ``Loop``. ``LatentSearch`` is the
same arithmetic in PyTorch: the reference of the parity tests, and what training calibrates with.

The loss of a step is the one *before* its update; after the last step the last z is evaluated too, so with 0 steps it
is the loss of the start. Of all z that were seen the best counts, so more steps never make a crop's loss worse.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8
"""Adam's own defaults (Kingma & Ba 2015)."""
DECAYS = 3
"""Powers that are carried from step to step: of the two betas, and of the learning rate's decay."""


class LatentSearch(nn.Module):
    """Search for the latent of each crop.

    Args:
        generator: z ``[crop, latent]`` to image ``[crop, 1, mel, frame]``.
        features: image to the discriminator's features ``[crop, ...]``.
        encoder: image to the start of the search ``[crop, latent]``; zeros without one.
        latent: entries of z.
        lam: lambda, the share of the features in the loss. Both terms are sums, so their sizes weigh as well.
        learning_rate: Adam's step in z, which is N(0, 1) in training.
        rate_decay: what the learning rate is multiplied with after each step. The gradient of an absolute difference
            does not fade near the optimum: without decay z hops about it for ever, and where to is up to the last bit.

    The networks are copied, put into evaluation mode, frozen, and their batch norms folded.
    """

    def __init__(
        self,
        generator: nn.Module,
        features: nn.Module,
        encoder: nn.Module | None = None,
        *,
        latent: int,
        lam: float,
        learning_rate: float,
        rate_decay: float = 1.0,
    ) -> None:
        super().__init__()
        self.generator = frozen(generator)
        self.features = frozen(features)
        self.encoder = None if encoder is None else frozen(encoder)
        self.latent, self.lam, self.learning_rate, self.rate_decay = latent, lam, learning_rate, rate_decay
        self.eval()

    def start(self, query: Tensor) -> tuple[Tensor, Tensor]:
        """Features of the query, and z to start from ``[crop, latent]``."""
        if self.encoder is not None:
            return self.features(query), self.encoder(query)
        return self.features(query), query.new_zeros(query.shape[0], self.latent)

    def loss(self, z: Tensor, query: Tensor, query_features: Tensor) -> tuple[Tensor, Tensor]:
        """A of each crop at this z ``[crop]``, and the image G(z)."""
        image = self.generator(z)
        residual = (query - image).abs().sum((1, 2, 3))
        distance = (query_features - self.features(image)).abs().flatten(1).sum(1)
        return (1.0 - self.lam) * residual + self.lam * distance, image

    def gradient(self, z: Tensor, query: Tensor, query_features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """dA/dz ``[crop, latent]``, A ``[crop]`` and the image. The sum over crops gives each its own gradient."""

        def total(z: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
            loss, image = self.loss(z, query, query_features)
            return loss.sum(), (loss, image)

        slope, (loss, image) = torch.func.grad(total, has_aux=True)(z)
        return slope, loss, image

    def step(self, state: Sequence[Tensor], query: Tensor, query_features: Tensor) -> tuple[Tensor, ...]:
        """One step of Adam. ``state`` is (z, momentum, variance, decay, best loss, best image), as is what returns.

        ``decay`` holds the powers beta1^t, beta2^t and rate_decay^t: a product per step is the same in every runtime, a
        power is not.
        """
        z, momentum, variance, decay, best_loss, best_image = state
        slope, loss, image = self.gradient(z, query, query_features)
        best_loss, best_image = _keep_best(loss, image, best_loss, best_image)
        learning_rate = self.learning_rate * decay[2]
        decay = decay * torch.tensor([BETA1, BETA2, self.rate_decay], dtype=decay.dtype)
        momentum = BETA1 * momentum + (1.0 - BETA1) * slope
        variance = BETA2 * variance + (1.0 - BETA2) * slope * slope
        z = z - learning_rate * (momentum / (1.0 - decay[0])) / ((variance / (1.0 - decay[1])).sqrt() + EPSILON)
        return z, momentum, variance, decay, best_loss, best_image

    def finish(
        self, z: Tensor, best_loss: Tensor, best_image: Tensor, query: Tensor, query_features: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The last z has its say: best image and best loss."""
        loss, image = self.loss(z, query, query_features)
        best_loss, best_image = _keep_best(loss, image, best_loss, best_image)
        return best_image, best_loss


def _keep_best(loss: Tensor, image: Tensor, best_loss: Tensor, best_image: Tensor) -> tuple[Tensor, Tensor]:
    better = loss < best_loss
    return torch.where(better, loss, best_loss), torch.where(better[:, None, None, None], image, best_image)


def search(model: LatentSearch, query: Tensor, search_steps: int) -> tuple[Tensor, Tensor]:
    """The search in PyTorch.

    Args:
        model: the frozen networks.
        query: ``[crop, 1, mel, frame]``.
        search_steps: updates of z, 0 or more.

    Returns:
        reconstruction ``[crop, 1, mel, frame]`` and loss A(x) ``[crop]``.
    """
    with torch.no_grad():
        query_features, z = model.start(query)
        decay = torch.ones(DECAYS, dtype=query.dtype)
        best_loss = torch.full((len(query),), torch.inf, dtype=query.dtype)
        state: tuple[Tensor, ...] = (z, torch.zeros_like(z), torch.zeros_like(z), decay, best_loss, query)
        for _ in range(search_steps):
            state = model.step(state, query, query_features)
        z, *_, best_loss, best_image = state
        return model.finish(z, best_loss, best_image, query, query_features)


def frozen(network: nn.Module) -> nn.Module:
    """A copy for inference: evaluation mode, no gradients, spectral norms and batch norms folded into the weights.

    Batch norm is folded where it follows its convolution inside an ``nn.Sequential``.

    Raises:
        ValueError: a batch norm is left over, so the frozen network would be slower than it needs to be.
    """
    network = copy.deepcopy(network).eval().requires_grad_(False)
    for module in list(network.modules()):
        if parametrize.is_parametrized(module):
            _fix_parametrizations(module)
    for module in list(network.modules()):
        if isinstance(module, nn.Sequential):
            _fold_batch_norms(module)
    left = [name for name, module in network.named_modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    if left:
        raise ValueError(f"batch norm does not follow a convolution in a Sequential: {', '.join(left)}")
    return network.requires_grad_(False)


def _fix_parametrizations(module: nn.Module) -> None:
    """Not torch's ``remove_parametrizations``: that changes the class, which the copy shares with its original."""
    weights = {name: getattr(module, name).clone() for name in module.parametrizations}  # type: ignore[union-attr]
    module.__class__ = parametrize.type_before_parametrizations(module)
    del module.parametrizations
    for name, weight in weights.items():
        module.register_parameter(name, nn.Parameter(weight, requires_grad=False))


def _fold_batch_norms(sequence: nn.Sequential) -> None:
    layers = list(sequence.named_children())
    for (_, layer), (name, norm) in itertools.pairwise(layers):
        if isinstance(norm, nn.BatchNorm2d) and isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            transposed = isinstance(layer, nn.ConvTranspose2d)
            fused = nn.utils.fuse_conv_bn_eval(layer, norm, transpose=transposed)
            layer.weight, layer.bias = fused.weight, fused.bias
            delattr(sequence, name)
