"""The latent search as PyTorch programmers write it: what ours is compared with.

All give A(x) of the best z that was seen, as the detector does, so that they can be checked against each other.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable

import torch
from edge_asd_train.latent_search import BETA1, BETA2, EPSILON, LatentSearch
from torch import Tensor, nn

Search = Callable[[Tensor, int], Tensor]
"""Query ``[crop, 1, mel, frame]`` and steps to A(x) ``[crop]``."""


def frozen_eager(model: LatentSearch) -> Search:
    """The fair baseline: folded batch norms, no gradients but z's, Adam by hand and in place."""
    generator, features, lam = model.generator, model.features, model.lam

    def loss_at(z: Tensor, query: Tensor, query_features: Tensor) -> Tensor:
        image = generator(z)
        residual = (query - image).abs().sum((1, 2, 3))
        distance = (query_features - features(image)).abs().sum((1, 2, 3))
        return torch.add((1.0 - lam) * residual, distance, alpha=lam)

    def search(query: Tensor, steps: int) -> Tensor:
        with torch.no_grad():
            query_features, z = model.start(query)
            momentum, variance = torch.zeros_like(z), torch.zeros_like(z)
            best = torch.full((len(query),), torch.inf)
        for number in range(1, steps + 1):
            z.requires_grad_(True)
            loss = loss_at(z, query, query_features)
            (slope,) = torch.autograd.grad(loss.sum(), z)
            with torch.no_grad():
                best = torch.minimum(best, loss)
                momentum.mul_(BETA1).add_(slope, alpha=1.0 - BETA1)
                variance.mul_(BETA2).addcmul_(slope, slope, value=1.0 - BETA2)
                size = (variance / (1.0 - BETA2**number)).sqrt_().add_(EPSILON)
                rate = model.learning_rate * model.rate_decay ** (number - 1) / (1.0 - BETA1**number)
                z = torch.addcdiv(z, momentum, size, value=-rate)
        with torch.no_grad():
            return torch.minimum(best, loss_at(z, query, query_features))

    return search


def without_onednn(search: Search) -> Search:
    """The same with torch's own convolutions, which are faster for a single crop, and slower for several."""

    def plain(query: Tensor, steps: int) -> Tensor:
        with warnings.catch_warnings():  # of a setting for graphics cards, whatever is asked for
            warnings.simplefilter("ignore")
            with torch.backends.mkldnn.flags(enabled=False):
                return search(query, steps)

    return plain


def plain_autograd(model: LatentSearch) -> Search:
    """As in a first notebook: batch norms as layers, every parameter with a gradient, ``backward``, ``optim.Adam``."""
    generator = _with_batch_norms(model.generator)
    features = copy.deepcopy(model.features).requires_grad_(True)

    def loss_at(z: Tensor, query: Tensor, query_features: Tensor) -> Tensor:
        image = generator(z)
        residual = (query - image).abs().sum((1, 2, 3))
        distance = (query_features - features(image)).abs().sum((1, 2, 3))
        total: Tensor = (1.0 - model.lam) * residual + model.lam * distance
        return total

    def search(query: Tensor, steps: int) -> Tensor:
        with torch.no_grad():
            query_features, start = model.start(query)
        z = start.clone().requires_grad_(True)
        adam = torch.optim.Adam([z], lr=model.learning_rate)
        schedule = torch.optim.lr_scheduler.ExponentialLR(adam, model.rate_decay)
        best = torch.full((len(query),), torch.inf)
        for _ in range(steps):
            adam.zero_grad()
            loss = loss_at(z, query, query_features)
            loss.sum().backward()
            adam.step()
            schedule.step()
            best = torch.minimum(best, loss.detach())
        with torch.no_grad():
            return torch.minimum(best, loss_at(z, query, query_features))

    return search


def _with_batch_norms(folded: nn.Module) -> nn.Sequential:
    """The same function with a batch norm behind every layer but the last, as in training."""
    layers: list[nn.Module] = []
    children = list(folded.children())
    for layer in children:
        layer = copy.deepcopy(layer)
        layers.append(layer)
        if isinstance(layer, nn.ConvTranspose2d) and len(layers) and layer.out_channels > 1:
            norm = nn.BatchNorm2d(layer.out_channels)
            assert layer.bias is not None and norm.running_var is not None
            with torch.no_grad():
                norm.running_var.fill_(1.0 - norm.eps)  # neither scales nor, but for the bias, shifts
                norm.bias.copy_(layer.bias)
            layer.bias = None
            layers.append(norm)
    return nn.Sequential(*layers).eval().requires_grad_(True)
