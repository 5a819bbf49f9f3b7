"""What programs from outside stumbled over: layers that write in place, copies of models, gradients' memory,
checkpoints that recompute, and modules of PyTorch that programs import from."""

from __future__ import annotations

import copy
import importlib
import warnings

import numpy as np
import pytest

import gpugrad as gg
from gpugrad import nn
from gpugrad.nn import functional as F
from gpugrad.utils.checkpoint import CheckpointError, checkpoint, checkpoint_sequential

RNG = np.random.default_rng(8)
X = RNG.standard_normal((4, 3)).astype(np.float32)


@pytest.mark.parametrize(
    "name",
    ["relu", "relu6", "silu", "mish", "hardswish", "elu", "selu", "celu", "leaky_relu", "hardtanh", "hardsigmoid"],
)
def test_activations_in_place_have_the_same_gradient(name, device):
    results = []
    for inplace in (False, True):
        x = gg.tensor(X, device=device, requires_grad=True)
        h = x * 2.5
        y = getattr(F, name)(h, inplace=inplace)
        assert (y is h) is inplace
        (y * gg.arange(12, device=device).reshape(4, 3)).sum().backward()
        results.append((y.detach().cpu().numpy(), x.grad.cpu().numpy()))
    np.testing.assert_allclose(results[0][0], results[1][0], rtol=1e-6)
    np.testing.assert_allclose(results[0][1], results[1][1], rtol=1e-6)


@pytest.mark.parametrize("layer", ["SiLU", "Mish", "Hardswish", "ELU", "SELU", "CELU"])
def test_layers_in_place_train(layer):
    net = nn.Sequential(nn.Linear(3, 4), getattr(nn, layer)(inplace=True), nn.Linear(4, 1))
    net(gg.tensor(X)).sum().backward()
    assert all(p.grad is not None for p in net.parameters())


def test_kl_divergence_shows_targets_that_are_no_probabilities():
    loss = F.kl_div(gg.zeros(4), gg.tensor([float("nan"), -1.0, 0.0, 1.0]), reduction="none")
    np.testing.assert_array_equal(loss.numpy(), [np.nan, np.nan, 0.0, 0.0])


def test_batch_norm_of_an_empty_batch(device):
    norm = nn.BatchNorm2d(3).to(device)
    x = gg.empty((0, 3, 2, 2), device=device, requires_grad=True)
    y = norm(x)
    y.sum().backward()
    assert y.shape == (0, 3, 2, 2) and x.grad.shape == (0, 3, 2, 2)
    assert norm.weight.grad.tolist() == [0.0] * 3 and norm.running_var.tolist() == [1.0] * 3
    with pytest.raises(ValueError, match="at most one value per channel"):
        norm(gg.ones((1, 3, 1, 1), device=device))


@pytest.mark.parametrize("targets", ["classes", "probabilities"])
def test_linear_cross_entropy_with_further_dimensions(targets):
    loss = nn.LinearCrossEntropyLoss(3, 5, out_features=(2,), bias=True, label_smoothing=0.1)
    assert loss.linear.weight.shape == (10, 3)
    x = gg.tensor(X)
    target = gg.tensor(RNG.integers(0, 5, (4, 2)))
    if targets == "probabilities":
        target = F.softmax(gg.tensor(RNG.standard_normal((4, 5, 2)).astype(np.float32)), dim=1)
    want = F.cross_entropy(loss.linear(x).reshape(4, 5, 2), target, label_smoothing=0.1)
    np.testing.assert_allclose(loss(x, target).item(), want.item(), rtol=1e-6)


def test_attention_names_its_last_layer_as_pytorch_does():
    assert "NonDynamicallyQuantizableLinear(in_features=4" in repr(nn.MultiheadAttention(4, 2))
    from gpugrad.nn.modules.linear import NonDynamicallyQuantizableLinear

    assert issubclass(NonDynamicallyQuantizableLinear, nn.Linear)


def test_a_copied_model_has_no_gradients():
    net = nn.Linear(3, 2)
    net(gg.tensor(X)).sum().backward()
    twin = copy.deepcopy(net)
    assert net.weight.grad is not None and twin.weight.grad is None and twin.bias.grad is None
    assert type(twin.weight) is nn.Parameter and twin.weight.requires_grad
    t = gg.ones(2, requires_grad=True)
    t.sum().backward()
    assert copy.deepcopy(t).grad.tolist() == [1.0, 1.0]  # a plain tensor keeps its gradient, in PyTorch too


def test_plain_sgd_keeps_no_state():
    p = nn.Parameter(gg.ones(2))
    optimizer = gg.optim.SGD([p], lr=0.1)
    p.grad = gg.ones(2)
    optimizer.step()
    assert optimizer.state_dict()["state"] == {} and p.tolist() == pytest.approx([0.9, 0.9])


def test_gradients_share_no_memory_under_create_graph(device):
    a, b = (gg.ones(3, device=device, requires_grad=True) for _ in "ab")
    given = gg.ones(3, device=device)
    ((a + b) ** 2).backward(given, create_graph=True)
    assert a.grad is not b.grad and a.grad is not given
    with gg.no_grad():
        a.grad.mul_(0.5)
    assert a.grad.tolist() == [2.0] * 3 and b.grad.tolist() == [4.0] * 3 and given.tolist() == [1.0] * 3
    first, b.grad = b.grad, None
    first.sum().backward()
    assert b.grad.tolist() == [2.0] * 3


@pytest.mark.parametrize("create_graph", [False, True])
def test_gradients_of_parameters_can_be_flattened(create_graph, device):
    w = nn.Parameter(gg.tensor(X[:3], device=device))
    x = gg.tensor(X, device=device)
    fast = w - 0.1 * gg.autograd.grad(F.linear(x, w).pow(2).sum(), w, create_graph=True)[0]
    (F.linear(x, fast).sum() + F.linear(x, w).sum()).backward(create_graph=create_graph)
    assert w.grad.is_contiguous() and w.grad.view(-1).shape == (9,)
    s = gg.ones((2, 3), device=device, requires_grad=True)
    s.sum().backward(create_graph=create_graph)
    with gg.no_grad():
        s.grad[0, 0] = 5.0  # not the one value of an expanded scalar
    assert s.grad.tolist() == [[5.0, 1.0, 1.0], [1.0, 1.0, 1.0]]


# -- utils.checkpoint ----------------------------------------------------------------
def _net():
    gg.manual_seed(3)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Dropout(0.5), nn.Linear(4, 2), nn.Sigmoid())


@pytest.mark.parametrize("use_reentrant", [True, False])
@pytest.mark.parametrize("sequential", [True, False])
def test_checkpoint_changes_no_gradient(use_reentrant, sequential, device):
    results = []
    for recompute in (False, True):
        net = _net().to(device)
        x = gg.tensor(X, device=device, requires_grad=True)
        gg.manual_seed(4)
        if not recompute:
            y = net(x)
        elif sequential:
            y = checkpoint_sequential(net, 2, x, use_reentrant=use_reentrant)
        else:
            y = checkpoint(net, x, use_reentrant=use_reentrant)
        (y.sum() + gg.rand(1, device=device).sum()).backward()
        results.append(
            [y.detach().cpu().numpy(), x.grad.cpu().numpy()] + [p.grad.cpu().numpy() for p in net.parameters()]
        )
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_checkpoint_runs_the_function_again_and_keeps_hooks_single():
    w, runs, seen = nn.Parameter(gg.ones(3)), [], []
    w.register_hook(lambda g: seen.append(g.tolist()) or g * 2)

    def part(x, *, scale):
        runs.append(gg.is_grad_enabled())
        return x * w * scale, x > 0, "note"

    y, mask, note = checkpoint(part, gg.tensor(X), scale=3.0, use_reentrant=False)
    assert note == "note" and not mask.requires_grad and y.requires_grad and len(runs) == 1
    assert gg.autograd.grad(y.sum(), w, retain_graph=True)[0].tolist() == pytest.approx((6 * X.sum(0)).tolist())
    y.sum().backward()
    assert len(runs) == 3 and len(seen) == 2
    np.testing.assert_allclose(w.grad.numpy(), 6 * X.sum(0), rtol=1e-5)


def test_checkpoint_says_what_it_cannot_do():
    x = gg.tensor(X)
    w = nn.Parameter(gg.ones(3))
    with pytest.warns(UserWarning, match="no input requires a gradient"):
        assert not checkpoint(lambda h: h * w, x, use_reentrant=True).requires_grad
    with pytest.warns(UserWarning, match="explicitly"):
        checkpoint(lambda h: h * w, x.clone().requires_grad_())
    with pytest.raises(ValueError, match="foo"):
        checkpoint(lambda h: h, x, use_reentrant=True, foo=1)
    sizes = iter([2, 3])
    y = checkpoint(lambda h: h[: next(sizes)], x.clone().requires_grad_(), use_reentrant=False)
    with pytest.raises(CheckpointError, match="the same each time"):
        y.sum().backward()
    with gg.no_grad():
        assert not checkpoint(lambda h: h * w, x, use_reentrant=False).requires_grad


# -- modules that programs import from -------------------------------------------------
IMPORTS = [
    ("backends.cudnn", "benchmark deterministic enabled"),
    ("distributions.normal", "Normal"),
    ("distributions.categorical", "Categorical"),
    ("distributions.multivariate_normal", "MultivariateNormal"),
    ("distributions.one_hot_categorical", "OneHotCategorical OneHotCategoricalStraightThrough"),
    ("distributions.utils", "broadcast_all clamp_probs lazy_property logits_to_probs probs_to_logits"),
    ("nn.common_types", "_size_1_t _size_2_t _size_3_t _size_any_t _ratio_2_t"),
    ("optim.adamw", "AdamW"),
    ("utils.checkpoint", "checkpoint checkpoint_sequential CheckpointError"),
    ("utils.data._utils.collate", "default_collate default_convert"),
]


@pytest.mark.parametrize(("path", "names"), IMPORTS)
def test_modules_of_pytorch(path, names):
    module = importlib.import_module(f"gpugrad.{path}")
    assert all(hasattr(module, n) for n in names.split())


def test_every_home_of_a_distribution_is_pytorchs():
    pytest.importorskip("torch")
    from gpugrad.distributions.homes import HOMES

    for name, classes in HOMES.items():
        theirs = importlib.import_module(f"torch.distributions.{name}")
        assert all(hasattr(theirs, c) for c in classes.split()), name


def test_switches_are_modules_that_refuse_unknown_names():
    import gpugrad.backends.cudnn as cudnn

    before = cudnn.benchmark
    cudnn.benchmark = True
    assert gg.backends.cudnn.benchmark is True and gg.backends.cudnn is cudnn
    cudnn.benchmark = before
    with pytest.raises(AttributeError, match="no switch nonsense"):
        cudnn.nonsense = 1


def test_helpers_for_distributions():
    utils = importlib.import_module("gpugrad.distributions.utils")
    a, b = utils.broadcast_all(gg.ones((2, 1), dtype=gg.float64), 0.5)
    assert b.dtype == gg.float64 and a.shape == b.shape == (2, 1)
    with pytest.raises(ValueError, match="list"):
        utils.broadcast_all([1.0], 2.0)
    p = gg.tensor([0.2, 0.8])
    np.testing.assert_allclose(utils.logits_to_probs(utils.probs_to_logits(p)).numpy(), p.numpy(), rtol=1e-6)
    back = utils.logits_to_probs(utils.probs_to_logits(p, is_binary=True), is_binary=True)
    np.testing.assert_allclose(back.numpy(), p.numpy(), rtol=1e-6)
    assert 0 < utils.clamp_probs(gg.zeros(1)).item() < 1e-6


# -- against PyTorch -------------------------------------------------------------------
def test_losses_and_empty_batches_as_in_pytorch():
    torch = pytest.importorskip("torch")
    target = np.array([[0.3, 0.0, 0.7], [np.nan, -0.5, 1.0]], np.float32)
    logp = np.log(np.full((2, 3), 1 / 3, np.float32))
    results = []
    for library in (torch, gg):
        t, x = library.tensor(target, requires_grad=True), library.tensor(logp, requires_grad=True)
        loss = library.nn.functional.kl_div(x, t, reduction="none")
        loss.sum().backward()
        results.append([loss.detach().numpy(), x.grad.numpy(), t.grad.numpy()])
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = torch.nn.LinearCrossEntropyLoss(3, 5, out_features=(2, 2), bias=True)
    ours = nn.LinearCrossEntropyLoss(3, 5, out_features=(2, 2), bias=True)
    ours.load_state_dict({k: gg.tensor(v.numpy()) for k, v in theirs.state_dict().items()})
    y = RNG.integers(0, 5, (4, 2, 2))
    np.testing.assert_allclose(
        ours(gg.tensor(X), gg.tensor(y)).item(), theirs(torch.tensor(X), torch.tensor(y)).item(), rtol=1e-5
    )
