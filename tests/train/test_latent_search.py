"""The exported search against the search in PyTorch."""

from __future__ import annotations

import copy

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from edge_asd_train.export import ExportError
from edge_asd_train.latent_search import LatentSearch, frozen, search
from edge_asd_train.search_graph import search_model
from edge_asd_train.search_parity import LOSS_TOLERANCES, body_of, check_search
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

LATENT, SIDE, DEFAULT_STEPS = 6, 16, 7


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def networks() -> tuple[nn.Module, nn.Module, nn.Module]:
    """Small ones with all that is folded, and with batch norms that have seen something."""
    generator = nn.Sequential(
        nn.Unflatten(1, (LATENT, 1, 1)),
        nn.ConvTranspose2d(LATENT, 12, 4, 1, 0, bias=False),
        nn.BatchNorm2d(12),
        nn.ReLU(),
        nn.ConvTranspose2d(12, 8, 4, 2, 1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.ConvTranspose2d(8, 1, 4, 2, 1),
    )
    features = nn.Sequential(
        spectral_norm(nn.Conv2d(1, 8, 4, 2, 1)), nn.LeakyReLU(0.2), spectral_norm(nn.Conv2d(8, 12, 4, 2, 1)), nn.ReLU()
    )
    encoder = nn.Sequential(
        nn.Conv2d(1, 8, 4, 2, 1, bias=False),
        nn.BatchNorm2d(8),
        nn.LeakyReLU(0.2),
        nn.Conv2d(8, LATENT, SIDE // 2, bias=False),
        nn.BatchNorm2d(LATENT, affine=False),
        nn.Flatten(),
    )
    for _ in range(20):
        image = torch.randn(16, 1, SIDE, SIDE)
        generator(torch.randn(16, LATENT)), features(image), encoder(image)
    return generator.eval(), features.eval(), encoder.eval()


@pytest.fixture(scope="module", params=["encoder", "zeros"])
def model(request) -> LatentSearch:
    torch.manual_seed(5)
    generator, features, encoder = networks()
    start = encoder if request.param == "encoder" else None
    return LatentSearch(generator, features, start, latent=LATENT, lam=0.1, learning_rate=0.05, rate_decay=0.98)


@pytest.fixture(scope="module")
def exported(model: LatentSearch) -> onnx.ModelProto:
    return search_model(model, image_shape=(SIDE, SIDE), default_steps=DEFAULT_STEPS)


def session_of(model: onnx.ModelProto, threads: int = 1) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])


@pytest.fixture(scope="module")
def run(exported: onnx.ModelProto):
    session = session_of(exported)

    def run(query: Tensor, steps: int | None = None) -> list[np.ndarray]:
        given = {} if steps is None else {"search_steps": np.array(steps, np.int64)}
        return session.run(["reconstruction", "loss"], {"query": query.numpy(), **given})

    return run


@pytest.fixture(scope="module")
def query() -> Tensor:
    return torch.randn(5, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(3))


def test_gradient_of_one_step(model: LatentSearch, exported: onnx.ModelProto, query: Tensor) -> None:
    features, _ = model.start(query)
    z = torch.randn(5, LATENT, generator=torch.Generator().manual_seed(4), requires_grad=True)
    loss, image = model.loss(z, query, features)
    (slope,) = torch.autograd.grad(loss.sum(), z)

    zeros = np.zeros((5, LATENT), np.float32)
    outputs = session_of(body_of(exported)).run(
        None,
        {
            "step/number": np.array(0),
            "step/go_on": np.array(True),
            "step/z": z.detach().numpy(),
            "step/momentum": zeros,
            "step/variance": zeros,
            "step/decay": np.ones(3, np.float32),
            "step/best_loss": np.full(5, np.inf, np.float32),
            "step/best_image": np.zeros(query.shape, np.float32),
            "query": query.numpy(),
            "search/query_features": features.numpy(),
        },
    )
    _, _, momentum, _, _, best_loss, best_image = outputs
    found = momentum / np.float32(1.0 - 0.9)  # the first momentum is (1 - beta1) times the gradient
    assert np.abs(found - slope.numpy()).max() <= 1e-6 * slope.abs().max().item()
    np.testing.assert_allclose(best_loss, loss.detach(), rtol=1e-6)
    np.testing.assert_allclose(best_image, image.detach(), atol=1e-6)


def test_long_searches_agree_too_and_with_float64(
    model: LatentSearch, exported: onnx.ModelProto, query: Tensor
) -> None:
    parity = check_search(model, exported, query)
    assert set(parity.losses) == set(LOSS_TOLERANCES) == {100, 500}
    assert 0 < parity.gradient_from_float64 < 1e-6 and 0 < parity.loss_from_float64 < 5e-6


@pytest.mark.parametrize("what", ["generator.1.weight", "features.0.bias", "learning rate"])
def test_a_search_that_is_another_is_refused(
    model: LatentSearch, exported: onnx.ModelProto, query: Tensor, what: str
) -> None:
    """In one part of the step, by a hundredth; the learning rate by a thousandth."""
    spoilt = onnx.ModelProto()
    spoilt.CopyFrom(exported)
    other = model
    if what == "learning rate":  # which no gradient tells
        other = copy.deepcopy(model)
        other.learning_rate *= 1.001
    else:
        body = next(node for node in spoilt.graph.node if node.op_type == "Loop").attribute[0].g
        tensor = next(tensor for tensor in body.initializer if tensor.name == what)
        tensor.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor) * np.float32(1.01), what))
    with pytest.raises(ExportError, match="loss after 100" if what == "learning rate" else "step"):
        check_search(other, spoilt, query)


@pytest.mark.parametrize("steps", [0, 1, 20, 100])
def test_search_agrees_with_pytorch(model: LatentSearch, run, query: Tensor, steps: int) -> None:
    reconstruction, loss = run(query, steps)
    expected, expected_loss = search(model, query, steps)
    np.testing.assert_allclose(loss, expected_loss, rtol=5e-6)
    np.testing.assert_allclose(reconstruction, expected, atol=1e-5 if steps < 50 else 1e-3)


def test_no_steps_give_the_loss_of_the_start(model: LatentSearch, run, query: Tensor) -> None:
    features, z = model.start(query)
    loss, image = model.loss(z, query, features)
    reconstruction, found = run(query, 0)
    np.testing.assert_allclose(found, loss, rtol=1e-6)
    np.testing.assert_allclose(reconstruction, image, atol=1e-6)


def test_loss_belongs_to_the_reconstruction(model: LatentSearch, run, query: Tensor) -> None:
    reconstruction, loss = (torch.from_numpy(value) for value in run(query, 100))
    residual = (query - reconstruction).abs().sum((1, 2, 3))
    distance = (model.features(query) - model.features(reconstruction)).abs().sum((1, 2, 3))
    torch.testing.assert_close(loss, 0.9 * residual + 0.1 * distance, rtol=1e-5, atol=0)


def test_crops_do_not_depend_on_their_batch(run, query: Tensor) -> None:
    together = run(query, 25)
    for k in range(len(query)):
        for whole, alone in zip(together, run(query[k : k + 1], 25), strict=True):
            np.testing.assert_array_equal(whole[k : k + 1], alone)
    order = torch.tensor([3, 0, 4, 1, 2])
    for whole, shuffled in zip(together, run(query[order], 25), strict=True):
        np.testing.assert_array_equal(whole[order.numpy()], shuffled)


def test_threads_do_not_change_the_result(exported: onnx.ModelProto, run, query: Tensor) -> None:
    feed = {"query": query.numpy(), "search_steps": np.array(25)}
    for one, two in zip(run(query, 25), session_of(exported, threads=2).run(None, feed), strict=True):
        np.testing.assert_array_equal(one, two)


def test_more_steps_never_raise_the_loss(run, query: Tensor) -> None:
    losses = np.stack([run(query, steps)[1] for steps in range(0, 60, 3)])
    assert (np.diff(losses, axis=0) <= 0).all()
    assert (losses[-1] < losses[0]).all()


def test_steps_have_a_default_that_can_be_overridden(exported: onnx.ModelProto, run, query: Tensor) -> None:
    default = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in exported.graph.initializer}["search_steps"]
    assert default == DEFAULT_STEPS and default.shape == () and default.dtype == np.int64
    assert [value.name for value in exported.graph.input] == ["query", "search_steps"]
    np.testing.assert_array_equal(run(query)[1], run(query, DEFAULT_STEPS)[1])
    assert (run(query)[1] != run(query, 1)[1]).any()


def test_weights_are_stored_once_but_for_the_features(model: LatentSearch, exported: onnx.ModelProto) -> None:
    body = next(node for node in exported.graph.node if node.op_type == "Loop").attribute[0].g
    inside, outside = ([tensor.name for tensor in graph.initializer] for graph in (body, exported.graph))
    assert len(set(inside + outside)) == len(inside + outside)
    expected = {name for name, _ in model.named_parameters() if not name.startswith("encoder.")}
    # ONNX Runtime takes its fastest convolutions only for weights of the graph that they are used in.
    assert expected <= set(inside)
    assert {f"start/{name}" for name in expected if name.startswith("features.")} <= set(outside)
    needed = sum(parameter.numel() for parameter in model.parameters()) * 4
    features = sum(parameter.numel() for parameter in model.features.parameters()) * 4
    overhead = 60_000  # nodes and small constants
    assert len(exported.SerializeToString()) < needed + features + overhead


def test_folding_leaves_the_networks_and_their_output_as_they_were() -> None:
    generator, features, _ = networks()
    for network, example in ((generator, torch.randn(3, LATENT)), (features, torch.randn(3, 1, SIDE, SIDE))):
        before = network(example)
        copy = frozen(network)
        torch.testing.assert_close(copy(example), before, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(network(example), before)
        assert not any(parameter.requires_grad for parameter in copy.parameters())
        assert not any("BatchNorm" in type(module).__name__ for module in copy.modules())


def test_a_batch_norm_that_cannot_be_folded_is_refused() -> None:
    with pytest.raises(ValueError, match="batch norm"):
        frozen(nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.BatchNorm2d(2)))
