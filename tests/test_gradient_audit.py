"""Gradients, error types, out=, in-place forms and views where they once differed from PyTorch's: one small
case for each kind."""

import numpy as np
import pytest

import gpugrad as gg
from gpugrad.nn import functional as F

# -- gradients --------------------------------------------------------------------------------------


def test_results_that_do_not_depend_on_an_input_have_a_graph_of_zeros(device):
    x = gg.rand(3, 3, device=device, requires_grad=True)
    for result in (gg.fill(x, 2.0), gg.bernoulli(x.detach().requires_grad_()), gg.linalg.matrix_power(x, 0)):
        assert result.requires_grad
    gg.fill(x, 2.0).sum().backward()
    assert x.grad.tolist() == np.zeros((3, 3)).tolist()
    value = gg.tensor(2.0, device=device, requires_grad=True)
    for_x, for_value = gg.autograd.grad(gg.fill(x, value).sum(), [x, value])
    assert for_x.tolist() == np.zeros((3, 3)).tolist() and for_value.item() == 9


def test_householder_product_of_no_reflectors_has_a_graph(device):
    A = gg.ones(2, 2, device=device, requires_grad=True)
    q = gg.linalg.householder_product(A, gg.empty(0, device=device))
    assert q.tolist() == [[1, 0], [0, 1]]
    assert gg.autograd.grad(q.sum(), A)[0].tolist() == [[0, 0], [0, 0]]


def test_nextafter_passes_the_gradient_to_its_first_argument(device):
    x = gg.tensor([1.0, 2.0], device=device, requires_grad=True)
    y = gg.tensor([2.0, 1.0], device=device, requires_grad=True)
    for_x, for_y = gg.autograd.grad((gg.nextafter(x, y) * 3).sum(), [x, y])
    assert for_x.tolist() == [3, 3] and for_y.tolist() == [0, 0]


def test_index_fill_writes_its_value_once_where_an_index_stands_twice(device):
    x = gg.zeros(2, 3, device=device, requires_grad=True)
    value = gg.tensor(1.0, device=device, requires_grad=True)
    out = gg.index_fill(x, 1, gg.tensor([0, 0, -2], device=device), value)
    assert out.tolist() == [[1, 1, 0], [1, 1, 0]]
    for_x, for_value = gg.autograd.grad(out.sum(), [x, value])
    assert for_x.tolist() == [[0, 0, 1], [0, 0, 1]] and for_value.item() == 4


def test_where_the_true_gradient_is_kept(device):
    """PyTorch gives the overwritten part of as_strided_scatter and, below, the unread triangle of a Cholesky factor
    gradients; they have no effect."""
    whole, part = gg.zeros(3, device=device, requires_grad=True), gg.ones(2, device=device, requires_grad=True)
    out = gg.as_strided_scatter(whole, part, (2,), (1,), 1)
    for_whole, for_part = gg.autograd.grad(out.sum(), [whole, part])
    assert for_whole.tolist() == [1, 0, 0] and for_part.tolist() == [1, 1]


def test_a_cholesky_factor_gets_a_gradient_in_its_triangle():
    L = gg.tensor([[2.0, 0.0], [0.5, 1.5]], dtype=gg.float64, requires_grad=True)
    assert gg.autograd.grad(gg.cholesky_inverse(L).sum(), L)[0][0, 1].item() == 0
    right = gg.ones(2, 1, dtype=gg.float64)
    assert gg.autograd.grad(gg.cholesky_solve(right, L).sum(), L)[0][0, 1].item() == 0


def test_an_index_without_elements_fits_any_tensor(device):
    x = gg.ones(5, device=device, requires_grad=True)
    out = gg.gather(x, 0, gg.empty(2, 0, dtype=gg.int64, device=device))
    assert out.shape == (2, 0)
    assert gg.autograd.grad(out.sum(), x)[0].tolist() == [0] * 5


def test_take_along_dim_counts_negative_indices_from_the_end(device):
    x = gg.arange(6.0, device=device).reshape(2, 3).requires_grad_()
    out = gg.take_along_dim(x, gg.tensor([[-1], [-3]], device=device), 1)
    assert out.tolist() == [[2], [3]]
    assert gg.autograd.grad(out.sum(), x)[0].tolist() == [[0, 0, 1], [1, 0, 0]]
    assert gg.take_along_dim(x, gg.tensor([-1, 0], device=device)).tolist() == [5, 0]


def test_differences_of_order_zero_join_nothing(device):
    x = gg.tensor([1.0, 4.0], device=device)
    assert gg.diff(x, 0, 0, x, x).tolist() == [1, 4]
    slope = gg.gradient(gg.tensor([1.0, 4.0, 9.0], device=device), spacing=None, dim=None)
    assert slope[0].tolist() == [3, 4, 5]


def test_moments_beside_a_normalisation_have_a_graph_where_they_have_one_in_pytorch():
    x = gg.rand(2, 4, requires_grad=True)
    for result, wanted in (
        (gg.native_layer_norm(x, (4,), None, None, 1e-5), [True, False, False]),
        (gg.native_batch_norm(x, None, None, None, None, True, 0.1, 1e-5), [True, False, False]),
        (gg.native_group_norm(x, None, None, 2, 4, 1, 2, 1e-5), [True, True, True]),
    ):
        assert [t.requires_grad for t in result] == wanted


# -- types of errors ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", "atan2 fmax gcd hypot igamma isclose logaddexp logical_and maximum".split())
def test_functions_of_two_tensors_take_no_number(name):
    kind = gg.int64 if name == "gcd" else gg.float32
    x = gg.ones(3, dtype=kind)
    function = getattr(gg, name)
    assert function(x, x).shape == (3,) and function(x, other=x).shape == (3,)
    for call in (
        lambda: function(x, 2),
        lambda: function(2, x),
        lambda: function(x, other=2),
        lambda: getattr(x, name)(2),
    ):
        with pytest.raises(TypeError, match="must be tensors"):
            call()
    if hasattr(x, name + "_"):
        with pytest.raises(TypeError, match="must be tensors"):
            getattr(x, name + "_")(2)
        assert getattr(x, name + "_")(x) is x


def test_an_index_out_of_range_is_both_errors(device):
    """PyTorch raises IndexError in some functions and RuntimeError in others."""
    x, index = gg.ones(3, device=device), gg.tensor([0, 7], device=device)
    for call in (
        lambda: gg.gather(x, 0, index),
        lambda: gg.scatter(x, 0, index, 1.0),
        lambda: gg.index_select(x, 0, index),
        lambda: F.embedding(index, gg.ones(3, 2, device=device)),
    ):
        for error in (IndexError, RuntimeError):
            with pytest.raises(error, match="index 7 is out of range for size 3"):
                call().tolist()


def test_a_dtype_that_an_op_is_not_defined_for_is_every_error_that_pytorch_raises_for_it(device):
    whole = gg.ones(3, dtype=gg.int64, device=device)
    for call in (
        lambda: gg.softmax(whole, 0),
        lambda: gg.bitwise_and(gg.ones(3, device=device), whole),
        lambda: gg.bincount(gg.ones(3, device=device)),
        lambda: gg.randn(3, dtype=gg.int64, device=device),
        lambda: gg.tril_indices(2, 2, dtype=gg.float32, device=device),
        lambda: F.silu(whole),
        lambda: F.elu(whole, inplace=True),
        lambda: F.leaky_relu(whole),
        lambda: F.hardswish(whole),
    ):
        for error in (NotImplementedError, RuntimeError, TypeError):
            with pytest.raises(error):
                call()


def test_division_of_integers_by_zero_is_both_errors(device):
    whole = gg.ones(3, dtype=gg.int64, device=device)
    for error in (ZeroDivisionError, RuntimeError):
        for call in (lambda: whole // 0, lambda: whole % 0, lambda: gg.fmod(whole, 0)):
            with pytest.raises(error, match="by zero"):
                call().tolist()


@pytest.mark.parametrize("join", ["cat", "stack", "hstack", "vstack", "dstack"])
def test_one_tensor_is_no_list_of_tensors(join):
    with pytest.raises(TypeError, match="list"):
        getattr(gg, join)(gg.ones(2, 3))


X2 = gg.ones(2, 2)
CLASS = gg.zeros(2, dtype=gg.int64)
REFUSED = {
    "BCELoss, no probability": (RuntimeError, lambda: F.binary_cross_entropy(X2 * 2, X2).item()),
    "Function, called": (RuntimeError, lambda: gg.autograd.Function()(X2)),
    "data of integers": (RuntimeError, lambda: setattr(gg.ones(2, requires_grad=True), "data", CLASS)),
    "del": (TypeError, lambda: X2.__delitem__(0)),
    "float of several": (ValueError, lambda: float(X2)),
    "int of several": (ValueError, lambda: int(X2)),
    "item of several": (RuntimeError, lambda: X2.item()),
    "promote_types": (TypeError, lambda: gg.promote_types(1, 2)),
    "result_type": (TypeError, lambda: gg.result_type()),
    "repeat": (TypeError, lambda: X2.repeat()),
    "text as index": (TypeError, lambda: X2["a"]),
    "type": (ValueError, lambda: X2.type("abc")),
    "batch_norm, eps in training": (ValueError, lambda: F.batch_norm(X2, None, None, training=True, eps=0.0)),
    "batch_norm, eps": (ValueError, lambda: F.batch_norm(X2, CLASS * 1.0, CLASS + 1.0, eps=-1.0)),
    "LSTM, bias": (TypeError, lambda: gg.nn.LSTM(3, 5, bias=0)),
    "targets, other batch": (ValueError, lambda: F.nll_loss(gg.ones(3, 2), CLASS)),
    "targets, other sizes": (RuntimeError, lambda: F.cross_entropy(gg.ones(2, 3, 5), gg.zeros(2, 4, dtype=gg.int64))),
    "targets, too many": (RuntimeError, lambda: F.nll_loss(X2, CLASS.reshape(2, 1))),
    "weight of another dtype": (RuntimeError, lambda: F.nll_loss(X2, CLASS, gg.ones(2, dtype=gg.float64))),
    "adaptive_avg_pool2d": (ValueError, lambda: F.adaptive_avg_pool2d(X2, (2, 2))),
    "adaptive_max_pool3d": (ValueError, lambda: F.adaptive_max_pool3d(gg.ones(2, 2, 2), (2, 2, 2))),
    "bias of another dtype": (
        RuntimeError,
        lambda: F.conv1d(gg.ones(1, 1, 4), gg.ones(1, 1, 2), gg.ones(1, dtype=gg.float64)),
    ),
    "empty_permuted, too many": (RuntimeError, lambda: gg.empty_permuted((2,), (0, 1))),
    "empty_permuted, out of range": (RuntimeError, lambda: gg.empty_permuted((2,), (3,))),
    "ignored class, probabilities": (RuntimeError, lambda: F.cross_entropy(X2, X2, ignore_index=0)),
    "linear_cross_entropy, input": (RuntimeError, lambda: F.linear_cross_entropy(gg.ones(2, 3, 2), X2, CLASS)),
    "linear_cross_entropy, weight": (RuntimeError, lambda: F.linear_cross_entropy(X2, gg.ones(2), CLASS)),
    "max_pool1d without channels": (RuntimeError, lambda: F.max_pool1d(gg.ones(0, 10), 1)),
    "max_pool3d without size": (RuntimeError, lambda: F.max_pool3d(gg.ones(2, 1, 0, 2, 2), 1)),
    "multi_margin_loss, reduction": (ValueError, lambda: F.multi_margin_loss(X2, gg.ones(2), reduction="abc")),
    "multi_margin_loss, shapes": (RuntimeError, lambda: F.multi_margin_loss(X2, X2)),
    "multilabel_margin_loss, reduction": (ValueError, lambda: F.multilabel_margin_loss(X2, X2, reduction="abc")),
    "rrelu, bounds": (RuntimeError, lambda: F.rrelu(X2, 0.3, 0.1)),
}


@pytest.mark.parametrize("what", REFUSED)
def test_errors_have_the_type_they_have_in_pytorch(what):
    error, call = REFUSED[what]
    with pytest.raises(error):
        call()


def test_ignored_negative_class_goes_with_probabilities():
    assert F.cross_entropy(X2, X2 / 2).item() == pytest.approx(np.log(2), rel=1e-5)
    assert F.multi_margin_loss(gg.tensor(1.0), gg.tensor(0)).item() == 0
    assert F.nll_loss(gg.ones(3), gg.tensor([0]), reduction="none").shape == ()


def test_fractional_pooling_uses_as_many_random_samples_as_it_needs():
    samples = gg.tensor([[[0.1, 0.9]], [[0.5, 0.5]]])
    x = gg.arange(25.0).reshape(1, 5, 5)
    want = F.fractional_max_pool2d(x, 2, 2, _random_samples=samples[:1])
    assert F.fractional_max_pool2d(x, 2, 2, _random_samples=samples).tolist() == want.tolist()


# -- out= and in place ----------------------------------------------------------------------------------


def test_out_of_another_floating_dtype(device):
    """Functions that compute elementwise or reduce convert to out, the others do not."""
    x, half = gg.ones(2, 2, device=device), gg.empty(2, 2, dtype=gg.float16, device=device)
    assert gg.exp(x, out=half) is half and gg.sum(x, 0, out=half[0]).tolist() == [2, 2]
    wrong = gg.empty(2, dtype=gg.float16, device=device)
    right, index = gg.empty(2, device=device), gg.empty(2, dtype=gg.int64, device=device)
    for call in (
        lambda: gg.matmul(x, x, out=half),
        lambda: gg.abs(x, out=half),
        lambda: gg.max(x, 0, out=(wrong, index)),
        lambda: gg.sort(x[0], out=(right, gg.empty(2, dtype=gg.int32, device=device))),
        lambda: gg.linalg.inv(gg.eye(2, device=device), out=half),
        lambda: F.gelu(x, out=half),
        lambda: gg.ones(2, dtype=gg.float32, device=device, out=wrong),
    ):
        with pytest.raises(RuntimeError, match="cannot be stored in an out of"):
            call()
    with pytest.raises(TypeError, match="cannot be stored"):
        gg.cat([x, x], out=index)
    assert gg.max(x, 0, out=(right, index)).values is right
    assert gg.max(x, x + 1, out=half).tolist() == [[2, 2], [2, 2]]


def test_numbers_are_made_in_the_dtype_of_out():
    out = gg.empty(0, dtype=gg.float64)
    assert gg.linspace(0, 1, 3, out=out) is out
    gg.full((2,), 0.1, out=out.resize_(0))
    assert out.tolist() == [0.1, 0.1]  # not rounded to float32 first


def test_functions_of_layers_take_out():
    x, out = gg.ones(1, 2, 2), gg.empty(0)
    assert F.avg_pool2d(x, 2, out=out) is out and out.tolist() == [[[1]]]
    assert F.linear(gg.ones(2), gg.ones(3, 2), out=out.resize_(0)).tolist() == [2, 2, 2]
    assert F.normalize(gg.ones(1, 4), out=out.resize_(0)) is out and out.tolist() == [[0.5] * 4]


def test_in_place_results_that_do_not_fit(device):
    x, wide = gg.ones(3, device=device), gg.ones(2, 3, device=device)
    for call in (
        lambda: x.lerp_(wide, 0.5),
        lambda: x.addcmul_(wide, wide),
        lambda: x.masked_fill_(wide > 0, 1.0),
        lambda: x.div_(wide, rounding_mode="floor"),
        lambda: x.addmm_(wide, gg.ones(3, 3, device=device)),
    ):
        with pytest.raises(RuntimeError, match="fit"):
            call()
    assert x.tolist() == [1, 1, 1]


def test_round_in_place_to_decimals(device):
    x = gg.tensor([1.26, -0.14], device=device)
    assert x.round_(decimals=1) is x
    np.testing.assert_allclose(x.cpu().numpy(), [1.3, -0.1], rtol=1e-6)
    assert x.round_().tolist() == [1, 0]


def test_casts_take_a_memory_format():
    assert gg.ones(2).double(memory_format=gg.contiguous_format).dtype is gg.float64


# -- views -----------------------------------------------------------------------------------------------


def test_copies_are_copies(device):
    """Of one element, or by the factor 1, these could be views, and must not be."""
    one, image = gg.ones((), device=device), gg.ones(1, 4, 2, 2, device=device)
    for source, copy in (
        (one, gg.repeat_interleave(one, 3)),
        (image, gg.repeat_interleave(image, 1, 0)),
        (image, F.pixel_shuffle(image, 1)),
        (image, F.pixel_unshuffle(image, 1)),
        (image, image.to(device, gg.float32, False, True)),
    ):
        copy.fill_(5.0)
        assert source.sum().item() == source.numel()
    assert image.to(device, gg.float32, False, False) is image


def test_nothing_repeated_as_often_as_nothing_says():
    assert gg.tile(gg.tensor(3.0), ()).item() == 3 and gg.tensor(3.0).repeat(()).item() == 3


def test_flatten_of_one_dimension_is_the_tensor_itself(device):
    x = gg.ones(2, 3, device=device)
    assert x.flatten(1) is x and x.flatten(0, 0) is x and x.flatten() is not x


def test_is_view(device):
    x = gg.ones(2, 3, device=device)
    assert x.t()._is_view() and x[0]._is_view() and x.view_as(x)._is_view()
    assert not x._is_view() and not x.clone()._is_view() and not x.contiguous()._is_view()
