"""Layers, losses and functions of nn against PyTorch's values, and their errors."""

from __future__ import annotations

import math
import re
import warnings

import numpy as np
import pytest

import gpugrad as gg
from gpugrad import nn
from gpugrad.nn import functional as F
from tests import gradients
from tests.nn_cases import CASES, REFERENCE, record, run


@pytest.fixture(scope="module")
def reference():
    expected = {}
    with np.load(REFERENCE) as file:
        for key in file.files:
            name, _, result = key.partition("/")
            expected.setdefault(name, {})[result] = file[key]
    return expected


@pytest.mark.parametrize("name", list(CASES))
def test_like_pytorch(name, device, reference):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = run(gg, CASES[name], device)
    expected = reference[name]
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert found[key].shape == value.shape, key
        np.testing.assert_allclose(found[key], value, rtol=3e-4, atol=3e-5, err_msg=key)


def test_the_recorded_values_are_pytorchs(torch, reference):
    again = record(torch)
    assert {f"{name}/{key}" for name, values in reference.items() for key in values} == again.keys()
    for key, value in again.items():
        name, _, result = key.partition("/")
        np.testing.assert_allclose(value, reference[name][result], rtol=1e-5, atol=1e-6, err_msg=key)


_POSITIVE = np.random.RandomState(0).rand(2, 3) + 0.5
_TARGET = np.array([1, 0])
_SECOND = {
    "linear": (lambda x, w, b: F.linear(x, w, b), ((2, 3), (4, 3), (4,))),
    "bilinear": (lambda x, y, w: F.bilinear(x, y, w), ((2, 3), (2, 2), (2, 3, 2))),
    "conv2d": (lambda x, w, b: F.conv2d(x, w, b, stride=2, padding=1), ((1, 2, 4, 3), (2, 2, 3, 2), (2,))),
    "conv_transpose1d": (lambda x, w: F.conv_transpose1d(x, w, stride=2, padding=1), ((1, 2, 4), (2, 2, 3))),
    "avg_pool2d": (lambda x: F.avg_pool2d(x, 2, padding=1) ** 2, ((1, 1, 4, 3),)),
    "max_pool2d": (lambda x: F.max_pool2d(x, 2, 1, 1) ** 2, ((1, 1, 3, 3),)),
    "batch_norm": (lambda x, w, b: F.batch_norm(x, None, None, w, b, training=True), ((3, 2, 2), (2,), (2,))),
    "layer_norm": (lambda x, w: F.layer_norm(x, (3,), w), ((2, 3), (3,))),
    "group_norm": (lambda x: F.group_norm(x, 2), ((2, 4, 2),)),
    "rms_norm": (lambda x: F.rms_norm(x, (3,)), ((2, 3),)),
    "gelu": (lambda x: F.gelu(x), ((2, 3),)),
    "logsigmoid": (lambda x: F.logsigmoid(x), ((2, 3),)),
    "mish": (lambda x: F.mish(x), ((2, 3),)),
    "celu": (lambda x: F.celu(x, 0.7), ((2, 3),)),
    "softmax": (lambda x: F.softmax(x, 1), ((2, 3),)),
    "cross_entropy": (lambda x: F.cross_entropy(x, gg.tensor(_TARGET), label_smoothing=0.1), ((2, 3),)),
    "bce_logits": (lambda x: F.binary_cross_entropy_with_logits(x, gg.tensor(_POSITIVE / 2)), ((2, 3),)),
    "embedding": (lambda w: F.embedding(gg.tensor([0, 2, 2]), w) ** 3, ((3, 2),)),
    "cosine_similarity": (lambda x, y: F.cosine_similarity(x, y), ((2, 3), (2, 3))),
}


@pytest.mark.parametrize("name", list(_SECOND))
def test_first_and_second_derivative(name):
    function, shapes = _SECOND[name]
    rng = np.random.RandomState(3)
    arrays = [rng.standard_normal(s) for s in shapes]
    gradients.check_first(function, arrays)
    gradients.check_second(function, arrays)


@pytest.mark.parametrize("dtype, tolerance", [("float16", 0.02), ("bfloat16", 0.1)])
@pytest.mark.parametrize(
    "name", ["BatchNorm2d", "LayerNorm", "GroupNorm", "RMSNorm", "Linear", "Net", "conv2d_padded", "gelu"]
)
def test_half_types(name, dtype, tolerance, device, reference):
    found = run(gg, CASES[name], device, dtype)["out0"]
    assert found.dtype.name == dtype
    np.testing.assert_allclose(found.astype(np.float32), reference[name]["out0"], rtol=tolerance, atol=tolerance)


# -- what PyTorch has no table for -------------------------------------------------------
def test_dropout_masks_are_the_same_on_every_device(device):
    results = []
    for where in ("cpu", device):
        gg.manual_seed(7)
        results.append(F.dropout(gg.ones(1000, device=where), 0.3).cpu().numpy())
    np.testing.assert_array_equal(*results)
    kept = results[0] != 0
    np.testing.assert_allclose(results[0][kept], 1 / 0.7, rtol=1e-6)
    assert 0.62 < kept.mean() < 0.78


def test_dropout_modes(device):
    x = gg.ones(4, 5, 3, device=device, requires_grad=True)
    layer = nn.Dropout(0.5)
    y = layer(x)
    y.sum().backward()
    np.testing.assert_array_equal(x.grad.cpu().numpy(), y.detach().cpu().numpy())  # the gradient has the same mask
    assert layer.eval()(x) is x
    assert F.dropout(x, 1.0).sum().item() == 0.0
    channels = F.dropout1d(x.detach(), 0.5).cpu().numpy()
    assert (channels == channels[:, :, :1]).all() and 0 < (channels == 0).mean() < 1
    with pytest.raises(ValueError, match="is not a probability"):
        nn.Dropout(1.5)


def test_alpha_dropout_keeps_mean_and_variance():
    x = gg.randn(200, 200)
    y = F.alpha_dropout(x, 0.2, training=True).numpy()
    assert abs(y.mean()) < 0.03 and abs(y.std() - 1) < 0.03
    assert F.alpha_dropout(x, 0.2) is x
    assert nn.FeatureAlphaDropout(0.5)(gg.randn(3, 4, 2, 2)).shape == (3, 4, 2, 2)


def test_gumbel_softmax(device):
    y = F.gumbel_softmax(gg.zeros(50, 4, device=device, requires_grad=True), hard=True)
    assert sorted(set(y.detach().cpu().numpy().round(5).ravel())) == [0.0, 1.0]
    np.testing.assert_allclose(y.detach().sum(1).cpu().numpy(), 1.0, rtol=1e-6)


def test_max_pool_of_minus_infinity_stays_inside(device):
    x = gg.full((1, 1, 3, 3), -math.inf, device=device)
    values, index = F.max_pool2d(x, 3, 2, 1, return_indices=True)
    assert (values == -math.inf).all().item()
    assert 0 <= index.min().item() and index.max().item() < 9


def test_max_pool_of_integers(device):
    x = gg.arange(16, device=device).reshape(1, 1, 4, 4)
    assert F.max_pool2d(x, 2, padding=1).tolist() == [[[[0, 2, 3], [8, 10, 11], [12, 14, 15]]]]


def test_in_place_activations(device):
    for name in ("relu", "elu", "silu", "hardtanh", "leaky_relu", "selu", "celu", "mish", "hardswish", "relu6"):
        x = gg.tensor([-2.0, 0.5, 8.0], device=device)
        expected = getattr(F, name)(x).cpu().numpy()
        assert getattr(F, name)(x, inplace=True) is x
        np.testing.assert_array_equal(x.cpu().numpy(), expected)


def test_batch_norm_running_moments_follow_the_data(device):
    layer = nn.BatchNorm1d(2, momentum=None).to(device)
    data = np.random.RandomState(0).standard_normal((5, 40, 2)).astype(np.float32) * [2.0, 3.0] + [1.0, -1.0]
    for batch in data.astype(np.float32):
        layer(gg.tensor(batch, device=device))
    assert layer.num_batches_tracked.item() == 5
    np.testing.assert_allclose(layer.running_mean.cpu().numpy(), data.mean((0, 1)), rtol=1e-4)
    np.testing.assert_allclose(layer.running_var.cpu().numpy(), data.var(1, ddof=1).mean(0), rtol=1e-4)
    layer.eval()
    before = layer.running_mean.clone()
    layer(gg.randn(3, 2, device=device))
    assert (layer.running_mean == before).all().item()


def test_embedding_max_norm_changes_the_used_rows(device):
    layer = nn.Embedding(4, 3, max_norm=1.0).to(device)
    with gg.no_grad():
        layer.weight.fill_(2.0)
    layer(gg.tensor([1, 3, 3], device=device))
    norms = layer.weight.detach().norm(dim=1).cpu().numpy()
    np.testing.assert_allclose(norms, [12**0.5, 1, 12**0.5, 1], rtol=1e-5)


def test_conv_transpose_output_size(device):
    conv, back = (
        nn.Conv2d(2, 3, 3, stride=2, padding=1).to(device),
        nn.ConvTranspose2d(3, 2, 3, stride=2, padding=1).to(device),
    )
    x = gg.randn(1, 2, 7, 8, device=device)
    assert back(conv(x), output_size=x.shape).shape == x.shape
    with pytest.raises(ValueError, match="output_size .* cannot come from an input of shape .*choose between"):
        back(conv(x), output_size=(20, 20))


def test_unflatten_and_identity():
    x = gg.arange(12).reshape(2, 6)
    assert nn.Unflatten(1, (2, 3))(x).shape == (2, 2, 3)
    assert nn.Flatten(0)(x).shape == (12,)
    assert nn.Identity(3, key=1)(x) is x


# -- errors: one sentence each ------------------------------------------------------------
_ERRORS = [
    (lambda: F.linear(gg.ones(2, 3), gg.ones(4, 5)), RuntimeError, r"linear: .*\(2, 3\).*\(4, 5\)"),
    (
        lambda: F.conv2d(gg.ones(1, 3, 4, 4), gg.ones(2, 4, 3, 3)),
        RuntimeError,
        r"conv2d: weight of shape \(2, 4, 3, 3\) .* takes 4 channels, the input of shape \(1, 3, 4, 4\) has 3",
    ),
    (
        lambda: F.conv2d(gg.ones(3, 3), gg.ones(2, 3, 3, 3)),
        RuntimeError,
        r"conv2d: input of shape \(3, 3\) must have 3 dimensions, or 4",
    ),
    (lambda: F.conv2d(gg.ones(1, 3, 2, 2), gg.ones(2, 3, 3, 3)), RuntimeError, r"kernel spans \(3, 3\)"),
    (lambda: F.conv1d(gg.ones(1, 3, 8), gg.ones(4, 3, 3), gg.ones(5)), RuntimeError, r"bias must have shape \(4,\)"),
    (
        lambda: F.conv1d(gg.ones(1, 3, 8), gg.ones(4, 3, 3), padding="same", stride=2),
        RuntimeError,
        "conv1d: padding='same' needs stride 1",
    ),
    (lambda: F.conv1d(gg.ones(1, 3, 8), gg.ones(4, 3, 3), stride="2"), TypeError, "stride must be an int or 1 ints"),
    (lambda: F.conv2d(gg.ones(1, 3, 8, 8), gg.ones(4, 3, 3, 3), stride=(1, 2, 3)), RuntimeError, "int or 2 ints"),
    (
        lambda: F.conv_transpose1d(gg.ones(1, 2, 3), gg.ones(2, 1, 2), output_padding=1),
        RuntimeError,
        "output_padding .* is too large",
    ),
    (lambda: nn.Conv2d(3, 4, 3, groups=2), ValueError, "Conv2d: in_channels=3 cannot be split evenly into groups=2"),
    (lambda: nn.Conv2d(3, 4, 3, padding_mode="zero"), ValueError, "Conv2d: padding_mode 'zero' is unknown"),
    (lambda: nn.Conv2d(3, 4, 3, padding="full"), ValueError, "Conv2d: padding must be .* not 'full'"),
    (lambda: F.max_pool2d(gg.ones(1, 1, 4, 4), 2, padding=2), RuntimeError, "max_pool2d: padding .* is more than half"),
    (lambda: F.max_pool2d(gg.ones(1, 1, 2, 2), 3), RuntimeError, "empty output"),
    (lambda: F.avg_pool2d(gg.ones(1, 1, 4, 4), 2, divisor_override=0), RuntimeError, "divisor_override=0"),
    (
        lambda: F.adaptive_avg_pool2d(gg.ones(1, 1, 4, 4), (1, 2, 3)),
        RuntimeError,
        "output_size must be an int or 2 ints",
    ),
    (
        lambda: nn.BatchNorm2d(3)(gg.ones(2, 3)),
        ValueError,
        r"BatchNorm2d: input of shape \(2, 3\) must have 4 dimensions",
    ),
    (lambda: nn.BatchNorm2d(3)(gg.ones(2, 4, 2, 2)), RuntimeError, "running_mean should contain 4 elements"),
    (
        lambda: nn.BatchNorm1d(3)(gg.ones(1, 3)),
        ValueError,
        r"input of shape \(1, 3\) has at most one value per channel",
    ),
    (
        lambda: F.layer_norm(gg.ones(2, 3), (4,)),
        RuntimeError,
        re.escape("layer_norm: input of shape (2, 3) does not end in normalized_shape (4,)"),
    ),
    (
        lambda: F.group_norm(gg.ones(2, 3, 4), 2),
        RuntimeError,
        r"group_norm: 3 channels .* cannot be split evenly into num_groups=2",
    ),
    (lambda: nn.GroupNorm(2, 3), ValueError, "num_channels=3 cannot be split evenly into num_groups=2"),
    (lambda: F.cross_entropy(gg.ones(2, 3), gg.tensor([0, 3])), IndexError, "3"),
    (lambda: F.cross_entropy(gg.ones(2, 3), gg.tensor([0, -1])), IndexError, "-1"),
    (
        lambda: F.cross_entropy(gg.ones(2, 3), gg.tensor([0, 1, 2])),
        ValueError,
        r"expected target of shape \(2,\).*got \(3,\)",
    ),
    (lambda: F.cross_entropy(gg.ones(2, 3), gg.tensor([0.0, 1.0])), RuntimeError, "class targets must be integers"),
    (
        lambda: F.cross_entropy(gg.ones(2, 3), gg.tensor([0, 1]), gg.ones(2)),
        RuntimeError,
        r"weight of shape \(2,\) must have shape \(3,\)",
    ),
    (
        lambda: F.cross_entropy(gg.ones(2, 3), gg.tensor([0, 1]), reduction="avg"),
        ValueError,
        "reduction 'avg' is unknown",
    ),
    (lambda: F.cross_entropy(gg.ones(2, 3), gg.tensor([0, 1]), label_smoothing=2.0), RuntimeError, "label_smoothing"),
    (lambda: nn.MSELoss(reduction="avg"), ValueError, "reduction 'avg' is unknown"),
    (lambda: F.binary_cross_entropy(gg.ones(2), gg.ones(3)), ValueError, r"\(3,\).*\(2,\)"),
    (
        lambda: F.binary_cross_entropy_with_logits(gg.ones(2), gg.ones(3)),
        ValueError,
        r"target of shape \(3,\) must have the shape of input \(2,\)",
    ),
    (lambda: F.embedding(gg.tensor([4]), gg.ones(3, 2)), IndexError, "4"),
    (lambda: F.embedding(gg.tensor([0.5]), gg.ones(3, 2)), RuntimeError, "indices must be integers"),
    (lambda: F.embedding(gg.tensor([0]), gg.ones(3, 2), sparse=True), NotImplementedError, "sparse=False"),
    (lambda: F.one_hot(gg.tensor([0, 5]), 3), RuntimeError, "class 5 does not fit num_classes=3"),
    (lambda: F.one_hot(gg.tensor([-1])), RuntimeError, "the smallest here is -1"),
    (lambda: F.glu(gg.ones(3)), RuntimeError, "size 3 is odd"),
    (lambda: F.gelu(gg.ones(3), approximate="sigmoid"), RuntimeError, "'none' or 'tanh'"),
    (lambda: F.prelu(gg.ones(2, 3), gg.ones(2)), RuntimeError, r"weight of shape \(2,\) .* 3 channels"),
    (lambda: F.celu(gg.ones(2), 0.0), RuntimeError, "celu: alpha=0"),
    (
        lambda: F.gaussian_nll_loss(gg.ones(2), gg.ones(2), gg.tensor([1.0, -1.0])),
        ValueError,
        "var holds negative values",
    ),
    (
        lambda: F.margin_ranking_loss(gg.ones(2), gg.ones(2, 1), gg.ones(2)),
        RuntimeError,
        "differ in their number of dimensions",
    ),
    (
        lambda: nn.Bilinear(2, 3, 4)(gg.ones(5, 2), gg.ones(4, 3)),
        RuntimeError,
        r"bilinear: .*\(5, 2\) and \(4, 3\) must be equal",
    ),
]


@pytest.mark.parametrize("call, kind, text", _ERRORS, ids=[str(i) for i in range(len(_ERRORS))])
def test_errors(call, kind, text):
    with pytest.raises(kind, match=text):
        call()


def test_class_out_of_range_on_every_device(device):
    with pytest.raises(IndexError, match="3"):
        F.cross_entropy(gg.ones(2, 3, device=device), gg.tensor([0, 3], device=device)).item()


def test_warnings():
    with pytest.warns(UserWarning, match="broadcasting"):
        F.mse_loss(gg.ones(3, 1), gg.ones(3))
    with pytest.warns(UserWarning, match="batchmean"):
        F.kl_div(gg.zeros(2), gg.ones(2))
    with pytest.warns(UserWarning, match="softmax: without dim the dimension is guessed"):
        F.softmax(gg.ones(2, 2))
