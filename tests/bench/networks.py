"""The default AnoGAN's trained networks, taken out of the detector that comes with the package.

Everything that is compared then has the same G and D. How the file keeps its weights is known here and nowhere else; a
state dict of a `LatentSearch` (.npz or .pt) can be given in their place.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import torch
from edge_asd_train.anogan_networks import AnoGanSettings, Discriminator, encoder, generator
from edge_asd_train.latent_search import LatentSearch, frozen, search
from onnx import numpy_helper
from torch import Tensor, nn

from edge_asd.detector import Detector, session_options
from edge_asd.logmel import Float32Array

_TOLERANCE = 1e-3
"""Relative, of a loss after some steps: sign() in the gradient makes searches drift apart."""


@dataclass(frozen=True)
class Networks:
    """Folded and frozen, with the settings that they were trained with."""

    settings: AnoGanSettings
    generator: nn.Module
    features: nn.Module
    encoder: nn.Module

    @property
    def name(self) -> str:
        """For the table's column: channels of G's last and D's first layer, entries of z."""
        s = self.settings
        return f"G{s.generator_channels} D{s.discriminator_channels} z{s.latent}"

    def search(self, *, learning_rate: float | None = None, warm_start: bool = True) -> LatentSearch:
        """The search over them, as the file has it or, with a learning rate of another, without decay."""
        return LatentSearch(
            self.generator,
            self.features,
            self.encoder if warm_start else None,
            latent=self.settings.latent,
            lam=self.settings.lam,
            learning_rate=self.settings.search_learning_rate if learning_rate is None else learning_rate,
            rate_decay=self.settings.search_rate_decay if learning_rate is None else 1.0,
        )


def load_networks(detector: Path, log_mel: Float32Array, weights: Path | None = None) -> Networks:
    """The networks of a detector file, checked against what the file computes.

    Args:
        detector: an AnoGAN's.
        log_mel: a window to check with, ``[mel, frame]``.
        weights: a state dict of its `LatentSearch`, for a file that keeps its weights in another way.

    Raises:
        ValueError: the weights do not fit, or the rebuilt search gives another loss than the file.
    """
    known = Detector(detector, detector.read_bytes()).metadata.settings
    names = {f.name for f in fields(AnoGanSettings)}
    settings = AnoGanSettings(**{name: value for name, value in known.items() if name in names})
    networks = Networks(
        settings,
        frozen(generator(settings)),
        frozen(Discriminator(settings).features),
        frozen(encoder(settings)),
    )
    if weights is None:
        _take(networks, onnx.load(detector))
    else:
        _take_state(networks, weights)
    query, _ = crops_of(detector, log_mel, 0)
    for steps in (0, settings.search_steps):
        _, wanted = crops_of(detector, log_mel, steps)
        found = search(networks.search(), torch.from_numpy(query), steps)[1].numpy()
        if not np.allclose(found, wanted, rtol=_TOLERANCE):
            raise ValueError(f"{detector}: after {steps} steps it gives losses {wanted}, the rebuilt networks {found}")
    return networks


def crops_of(detector: Path, log_mel: Float32Array, steps: int) -> tuple[Float32Array, Float32Array]:
    """What the file makes of a window on its way: the crops ``[crop, 1, mel, frame]`` and their A(x) ``[crop]``."""
    model = onnx.load(detector)
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in ("query", "loss"))
    session = ort.InferenceSession(model.SerializeToString(), session_options(), providers=["CPUExecutionProvider"])
    feed = {"log_mel": log_mel[None], "search_steps": np.array(steps, np.int64)}
    query, loss = session.run(["query", "loss"], feed)
    return query, loss


def _take(networks: Networks, model: onnx.ModelProto) -> None:
    """Weights by their names: G and D's features lie in the loop's body, E beside it."""
    body = next(a.g for n in model.graph.node if n.op_type == "Loop" for a in n.attribute if a.name == "body")
    stored = {tensor.name: tensor for graph in (model.graph, body) for tensor in graph.initializer}
    state = {
        name: torch.from_numpy(numpy_helper.to_array(tensor).copy())
        for name, tensor in stored.items()
        if name.startswith(("generator.", "features.", "encoder."))
    }
    _load(networks, state, "the detector")


def _take_state(networks: Networks, weights: Path) -> None:
    state: dict[str, Tensor]
    if weights.suffix == ".npz":
        with np.load(weights) as arrays:
            state = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    else:
        state = torch.load(weights, weights_only=True)
    _load(networks, state, str(weights))


def _load(networks: Networks, state: dict[str, Tensor], source: str) -> None:
    for name in ("generator", "features", "encoder"):
        part = {key.removeprefix(f"{name}."): value for key, value in state.items() if key.startswith(f"{name}.")}
        try:
            getattr(networks, name).load_state_dict(part)
        except RuntimeError as error:
            raise ValueError(f"{source}: has other weights than this detector's search: {error}") from None
