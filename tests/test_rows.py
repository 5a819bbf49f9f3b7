"""Corners of elementwise rows that samples do not reach: dtypes they refuse, Python numbers as operands of ``pow``,
gradients at zeros and with mixed signs, numbers as truth values; against PyTorch, and alike on every device."""

from __future__ import annotations

import math

import numpy as np
import pytest

import gpugrad as gg
from gpugrad.errors import DTypeError
from gpugrad.ops import OPS, elementwise

# -- what is refused ------------------------------------------------------------------------------------

BOOLS = ["sub", "neg", "floor_divide", "remainder", "fmod", "floor", "ceil", "trunc", "round", "relu"]


@pytest.mark.parametrize("name", BOOLS)
def test_no_arithmetic_of_bools(name, device):
    b = gg.tensor([True, False], device=device)
    function = getattr(elementwise, name)
    with pytest.raises(DTypeError, match="bool"):
        function(*[b] * len(OPS[name].samples[0].inputs))


def test_a_bool_is_not_subtracted_from_anything(device):
    b, i = gg.tensor([True, False], device=device), gg.tensor([1, 2], device=device)
    for left, right in ((i, b), (b, i), (b, 1), (1, b), (b, i.float())):
        with pytest.raises(DTypeError, match="sub|bool"):
            left - right
    assert (i - 1).tolist() == [0, 1]


@pytest.mark.parametrize("name", ["bitwise_and", "bitwise_or", "bitwise_xor", "bitwise_not", "bitwise_left_shift",
                                  "bitwise_right_shift"])  # fmt: skip
def test_no_bits_of_floats(name, device):
    x, b = gg.tensor([1.0, 2.0], device=device), gg.tensor([True, False], device=device)
    function = getattr(elementwise, name)
    arity = 1 if name == "bitwise_not" else 2
    with pytest.raises(DTypeError, match="floating-point"):
        function(*[x] * arity)
    if "shift" in name:
        with pytest.raises(DTypeError, match="bool"):
            function(b, b)
    else:
        assert function(*[b] * arity).dtype is gg.bool


@pytest.mark.parametrize("name", ["hypot", "logaddexp", "frac", "atan2", "copysign", "div", "sqrt", "sigmoid", "erf"])
def test_integers_become_floats(name, device):
    i = gg.tensor([1, 2, 3], device=device)
    operands = [i] * len(OPS[name].samples[0].inputs)
    got = getattr(elementwise, name)(*operands)
    assert got.dtype is gg.float32
    wide = getattr(elementwise, name)(*[t.float() for t in operands])
    np.testing.assert_array_equal(got.cpu().numpy(), wide.cpu().numpy())


# -- truth values ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["logical_and", "logical_or", "logical_xor", "logical_not"])
@pytest.mark.parametrize("dtype", ["float32", "int64", "uint8", "float16"])
def test_numbers_as_truth_values(name, dtype, device):
    """2 is as true as 3, and NaN is true."""
    a = np.array([0, 2, 3, 0, 2, 1], dtype)
    b = np.array([0, 3, 3, 2, 0, 4], dtype)
    if dtype.startswith("float"):
        a[0], b[5] = np.nan, -0.0
    inputs = [a] if name == "logical_not" else [a, b]
    got = getattr(gg, name)(*[gg.tensor(x, device=device) for x in inputs])
    assert got.dtype is gg.bool
    np.testing.assert_array_equal(got.cpu().numpy(), getattr(np, name)(*inputs))


# -- pow with a number ----------------------------------------------------------------------------------

POWERS = [
    "x ** 0", "x ** 1", "x ** 2", "x ** 3", "x ** 4.0", "x ** 0.5", "x ** -1", "x ** -2", "x ** 1.5", "x ** 2.0",
    "2 ** x", "2.5 ** x", "0 ** x", "0.0 ** x", "1 ** x", "(-2.0) ** x", "x ** 0.0", "x ** True",
]  # fmt: skip


@pytest.mark.parametrize("expression", POWERS)
def test_powers_with_a_number_as_pytorch(expression, torch):
    """Values, first and second gradients, at zeros of both signs and at negative numbers too."""
    results = []
    for library in (torch, gg):
        x = library.tensor([-2.0, -1.0, 0.0, 0.5, 1.0, 3.0], requires_grad=True)
        y = eval(expression, {"x": x})
        (g,) = library.autograd.grad((y * library.arange(1.0, 7.0)).sum(), x, create_graph=True)
        results.append([y.detach().numpy(), g.detach().numpy()])
        if g.requires_grad:
            (h,) = library.autograd.grad(g[3:].sum(), x)
            results[-1].append(h.numpy()[3:])
    for got, want in zip(results[1], results[0], strict=False):
        known = ~np.isnan(want) if expression.startswith("0") else slice(None)  # PyTorch's second has 0 * inf
        np.testing.assert_allclose(got[known], want[known], rtol=1e-5)


DTYPES_OF_POWERS = [
    "i ** 2", "i ** 2.0", "i ** 0.5", "i ** 1", "i ** 0", "i ** -1.0", "i ** True", "i ** False", "2 ** i", "2.0 ** i",
    "b ** 2", "b ** 2.0", "h ** 2", "h ** 0.5",
]  # fmt: skip


@pytest.mark.parametrize("expression", DTYPES_OF_POWERS)
def test_dtypes_of_powers_as_pytorch(expression, torch):
    results = []
    for library in (torch, gg):
        names = {"i": library.tensor([1, 2, 3]), "b": library.tensor([True, True]), "h": library.ones(2).half() * 4}
        results.append(eval(expression, names))
    want, got = results
    assert str(got.dtype).split(".")[-1] == str(want.dtype).split(".")[-1]
    np.testing.assert_allclose(got.double().numpy(), want.double().numpy(), rtol=1e-6)


def test_integers_to_negative_powers():
    i = gg.tensor([1, 2])
    for exponent in (-1, -3):
        with pytest.raises(RuntimeError, match="negative exponent"):
            i**exponent
    assert (i**-1.0).tolist() == [1.0, 0.5]
    x = gg.tensor([2.0, 4.0])
    assert (x**-1).tolist() == [0.5, 0.25] and (x**-3).tolist() == [0.125, 0.015625]


def test_cheaper_rows_stand_for_some_powers():
    x = gg.tensor([4.0, 9.0], requires_grad=True)
    for exponent, row in [(2, "square"), (2.0, "square"), (0.5, "sqrt"), (-1, "reciprocal"), (1, "mul"), (3, "pow")]:
        assert (x**exponent).grad_fn.title == row
    same = x**1
    assert same is not x and same.data_ptr() != x.data_ptr()


def test_powers_of_tensors_at_zero(torch):
    """d/db of 0 ** b is 0 for b >= 0; d/da of a ** 0 is 0 everywhere."""
    results = []
    for library in (torch, gg):
        a = library.tensor([0.0, 0.0, 0.0, 2.0, 0.0], requires_grad=True)
        b = library.tensor([0.0, 1.0, 2.5, 0.0, 3.0], requires_grad=True)
        results.append([g.numpy() for g in library.autograd.grad((a**b).sum(), [a, b])])
    for got, want in zip(results[1], results[0], strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-6)


# -- gradients with mixed signs --------------------------------------------------------------------------

SIGNS = [
    "T.fmod(a, b)", "T.remainder(a, b)", "T.copysign(a, b)", "T.atan2(a, b)", "T.hypot(a, b)", "T.maximum(a, b)",
    "T.minimum(a, b)", "T.abs(a) * b", "T.sign(a) * b", "T.relu(a) + b", "T.fmod(a, 1.5) * b",
    "T.remainder(a, -1.5) * b", "a.frac() * b", "T.where(a > b, a, b * 2)", "T.clamp(a, -1.0, 1.5) * b",
    "T.clamp(a, b, T.full_like(b, 1.0))", "T.clamp(1.0 * a, T.full_like(b, -1.0), b)", "T.clamp_min(a, b)",
    "T.clamp_max(a, b)", "T.clamp(a, b, a)", "T.clamp(a, b, b * 1.0)", "T.logaddexp(a, b)", "T.floor(a) * b",
    "T.trunc(a) * b",
]  # fmt: skip


@pytest.mark.parametrize("expression", SIGNS)
def test_gradients_with_mixed_signs_as_pytorch(expression, torch):
    """Quotients of either sign, operands that are equal, and bounds that are met."""
    results = []
    for library in (torch, gg):
        a = library.tensor([-3.3, -3.3, 2.7, 2.7, 1.5, -1.5, -1.0, 0.25], requires_grad=True)
        b = library.tensor([1.2, -1.2, 1.2, -1.2, 1.5, 1.5, -1.0, 4.0], requires_grad=True)
        y = eval(expression, {"T": library, "a": a, "b": b})
        weights = library.arange(1.0, 9.0)
        results.append([y.detach(), *library.autograd.grad((y * weights).sum(), [a, b], allow_unused=True)])
    for got, want in zip(results[1], results[0], strict=True):
        assert (got is None) == (want is None)
        if want is not None:
            np.testing.assert_allclose(got.numpy(), want.numpy(), rtol=1e-5, atol=1e-6)


# -- the functions around rows -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["pow", "round", "where", "clamp"])
def test_rows_know_the_function_that_users_call(name):
    function = getattr(elementwise, name)
    assert OPS[name].function is function and function.op is OPS[name]


def test_where_takes_one_argument_or_three():
    c, x = gg.tensor([True, False, True]), gg.tensor([1.0, 2.0, 3.0])
    assert [t.tolist() for t in gg.where(c)] == [[0, 2]]
    assert gg.where(c, x, 0.0).tolist() == [1.0, 0.0, 3.0]
    for wrong in ({"input": x}, {"other": x}):
        with pytest.raises((TypeError, RuntimeError)):
            gg.where(c, **wrong)
    with pytest.raises(DTypeError, match="bool"):
        gg.where(x, x, x)


def test_rounding_to_decimals(torch):
    values = [1.005, -2.675, 1234.5678, 0.5, 1.5, -0.5]
    for decimals in (0, 1, 2, -2):
        want = torch.round(torch.tensor(values, dtype=torch.float64), decimals=decimals).numpy()
        got = gg.round(gg.tensor(values, dtype=gg.float64), decimals=decimals)
        np.testing.assert_allclose(got.numpy(), want, rtol=1e-12)
        assert gg.tensor([0.25, 1.5]).round_().tolist() == [0.0, 2.0]
        x = gg.tensor(values, dtype=gg.float64)
        assert x.round_(decimals=decimals) is x
        np.testing.assert_allclose(x.numpy(), want, rtol=1e-12)


def test_clamping_in_place(device):
    x = gg.tensor([-2.0, 0.5, 3.0], device=device)
    assert x.clone().clamp_(min=0.0).tolist() == [0.0, 0.5, 3.0]
    assert x.clone().clamp_(max=1.0).tolist() == [-2.0, 0.5, 1.0]
    assert x.clone().clamp_(0.0, 1.0).tolist() == [0.0, 0.5, 1.0]
    with pytest.raises(RuntimeError, match="neither min nor max"):
        x.clamp_()
    assert math.isnan(gg.tensor([math.nan], device=device).clamp_(0.0, 1.0).item())


def test_in_place_takes_the_dtype_of_the_tensor(device):
    i = gg.tensor([1, 2], device=device)
    with pytest.raises(RuntimeError):
        i.pow_(0.5)
    assert i.pow_(2).tolist() == [1, 4]
