"""Initial values: their distribution, and that they are the same on every device."""

from __future__ import annotations

import math

import numpy as np
import pytest

import gpugrad as gg
from gpugrad import nn


def _net():
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Linear(6, 5), nn.Embedding(4, 3), nn.PReLU())


def test_a_seed_gives_the_same_weights_on_every_device(device):
    found = []
    for where in ("cpu", device):
        gg.manual_seed(11)
        with gg.device(where):
            net = _net()
        assert all(p.device.type == where for p in net.parameters())
        found.append([p.detach().cpu().numpy() for p in net.parameters()])
    for a, b in zip(*found, strict=True):
        np.testing.assert_array_equal(a, b)


def test_default_bounds():
    layer = nn.Linear(25, 400)
    w, b = layer.weight.detach().numpy(), layer.bias.detach().numpy()
    assert abs(w).max() <= 1 / 5 and abs(w).max() > 0.19
    assert abs(b).max() <= 1 / 5 and abs(b).max() > 0.19
    w = nn.Conv2d(4, 50, 5).weight.detach().numpy()
    assert abs(w).max() <= 1 / 10 and abs(w).max() > 0.099
    assert nn.Embedding(5, 3, padding_idx=2).weight[2].tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    "fill, mean, std",
    [
        (lambda t: nn.init.uniform_(t, -1, 3), 1.0, 4 / math.sqrt(12)),
        (lambda t: nn.init.normal_(t, 2.0, 0.5), 2.0, 0.5),
        (lambda t: nn.init.xavier_uniform_(t, gain=2.0), 0.0, 2 * math.sqrt(2 / 500)),
        (lambda t: nn.init.xavier_normal_(t), 0.0, math.sqrt(2 / 500)),
        (lambda t: nn.init.kaiming_uniform_(t, nonlinearity="relu"), 0.0, math.sqrt(2 / 200)),
        (lambda t: nn.init.kaiming_normal_(t, a=1.0, mode="fan_out"), 0.0, math.sqrt(1 / 300)),
        (lambda t: nn.init.trunc_normal_(t), 0.0, 0.8796),
    ],
)
def test_moments(fill, mean, std):
    t = gg.empty(300, 200)
    assert fill(t) is t
    values = t.numpy()
    assert abs(values.mean() - mean) < 5 * std / math.sqrt(values.size)
    assert abs(values.std() / std - 1) < 0.02


def test_truncation():
    values = nn.init.trunc_normal_(gg.empty(20000), mean=1.0, std=2.0, a=0.0, b=2.0).numpy()
    assert values.min() >= 0 and values.max() <= 2
    # within half a standard deviation the density falls by exp(-1/8): nearly, but not quite, uniform
    assert 0.555 < values.std() < 0.578
    with pytest.warns(UserWarning, match="two std="):
        nn.init.trunc_normal_(gg.empty(4), mean=10.0)


def test_fixed_values(device):
    t = gg.empty(2, 3, device=device)
    assert nn.init.constant_(t, 1.5).tolist() == [[1.5] * 3] * 2
    assert nn.init.ones_(t).tolist() == [[1.0] * 3] * 2
    assert nn.init.zeros_(t).tolist() == [[0.0] * 3] * 2
    assert nn.init.eye_(t).tolist() == [[1, 0, 0], [0, 1, 0]]


def test_dirac_hands_channels_through():
    w = nn.init.dirac_(gg.empty(4, 2, 3, 3), groups=2)
    x = gg.randn(1, 4, 5, 5)
    np.testing.assert_array_equal(nn.functional.conv2d(x, w, padding=1, groups=2).numpy(), x.numpy())


@pytest.mark.parametrize("shape", [(5, 3), (3, 5), (4, 2, 2)])
def test_orthogonal(shape):
    w = nn.init.orthogonal_(gg.empty(*shape), gain=2.0).numpy().reshape(shape[0], -1)
    product = w @ w.T if w.shape[0] <= w.shape[1] else w.T @ w
    np.testing.assert_allclose(product, 4 * np.eye(len(product)), atol=1e-5)


def test_sparse():
    w = nn.init.sparse_(gg.empty(10, 6), sparsity=0.35).numpy()
    assert ((w == 0).sum(0) == 4).all()


def test_gains():
    assert nn.init.calculate_gain("relu") == math.sqrt(2)
    assert nn.init.calculate_gain("tanh") == 5 / 3
    assert nn.init.calculate_gain("leaky_relu", 1.0) == 1.0
    assert nn.init.calculate_gain("conv2d") == 1
    with pytest.raises(ValueError, match="nonlinearity 'cube' is unknown"):
        nn.init.calculate_gain("cube")


def test_parameters_stay_leaves_and_errors():
    p = nn.Parameter(gg.empty(3, 3))
    assert nn.init.normal_(p) is p and p.is_leaf and p.requires_grad
    with pytest.raises(ValueError, match="least 2 dimensions"):
        nn.init.xavier_normal_(gg.empty(3))
    with pytest.raises(ValueError, match="mode 'fan' is unknown; use 'fan_in' or 'fan_out'"):
        nn.init.kaiming_normal_(p, mode="fan")
    with pytest.raises(ValueError, match=r"eye_: the tensor must have exactly 2 dimensions, not shape \(3,\)"):
        nn.init.eye_(gg.empty(3))
    with pytest.warns(UserWarning, match="no elements to fill"):
        nn.init.kaiming_uniform_(gg.empty(0, 3))
