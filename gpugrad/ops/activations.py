"""Activations whose value and derivative are rows of their own: each is one pass over its operands.

The NumPy functions work on temporaries in place; the CPU backend calls them on blocks that fit the cache.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gpugrad.errors import DTypeError
from gpugrad.ops import elementwise as e
from gpugrad.ops import special
from gpugrad.ops.creation import rounded_once
from gpugrad.ops.mapping import elementwise
from gpugrad.ops.table import Sample, composite

_ROOT_HALF = math.sqrt(0.5)
_PEAK = 1 / math.sqrt(2 * math.pi)  # of the normal density
_TANH_SLOPE = 2 * math.sqrt(2 / math.pi)  # (1 + tanh(u)) / 2 is the sigmoid of 2u
_TANH_CUBE = 0.044715
_ANY = (Sample(((3, 4),)), Sample(((),)), Sample(((0, 3),)))


def _floating(x: Any, op: str) -> Any:
    if not x.dtype.is_floating_point:
        raise DTypeError(f"{op}: expected a floating-point tensor, got {x.dtype.name}; convert it with .float()")
    return x


# Named by derivatives above the row that defines them.
_gelu_exact_backward: Any
_gelu_tanh_backward: Any
_silu_backward: Any


# -- gelu, exactly ---------------------------------------------------------------------------------


def _gelu(a: Any) -> Any:
    y = special.normal_cdf(a)
    y *= a
    return y


def _gelu_backward(g: Any, a: Any) -> Any:
    slope = a * a
    slope *= -0.5
    slope = special.into(np.exp, slope)
    slope *= a
    slope *= _PEAK
    slope += special.normal_cdf(a)
    return special.times(slope, g)


def _gelu_curvature(g: Any, a: Any) -> Any:
    square = e.square(a)
    density = e.mul(e.exp(e.mul(square, -0.5)), _PEAK)
    return e.mul(g, e.mul(density, e.sub(2.0, square)))


_C_CDF = f"K(0.5) * (K(1) + erf({{}} * K({_ROOT_HALF!r})))"
_gelu_exact = elementwise(
    "gelu_exact",
    _gelu,
    f"a * ({_C_CDF.format('a')})",
    lambda g, a: _gelu_exact_backward(g, a),
    rule="float",
    dtypes="f",
    samples=(),
)
_gelu_exact_backward = elementwise(
    "gelu_exact_backward",
    _gelu_backward,
    f"a * ({_C_CDF.format('b')} + b * exp(K(-0.5) * b * b) * K({_PEAK!r}))",
    (lambda g, b: _gelu_exact_backward(g, b), lambda g, a, b: _gelu_curvature(e.mul(g, a), b)),
    arity=2,
    rule="float",
    dtypes="f",
    samples=(),
)

# -- gelu by a tanh, written as a sigmoid -----------------------------------------------------------


def _tanh_sigmoid(a: Any) -> Any:
    """1 + exp(-v) for v the argument of the sigmoid."""
    t = a * a
    t *= _TANH_CUBE
    t += 1.0
    t *= a
    t *= -_TANH_SLOPE
    t = special.into(np.exp, t)
    t += 1.0
    return t


def _gelu_tanh_numpy(a: Any) -> Any:
    t = _tanh_sigmoid(a)
    return np.divide(a, t, out=t) if type(t) is np.ndarray else a / t


def _gelu_tanh_backward_numpy(g: Any, a: Any) -> Any:
    s = _tanh_sigmoid(a)
    s = special.into(np.reciprocal, s)
    slope = a * a
    slope *= 3 * _TANH_CUBE * _TANH_SLOPE
    slope += _TANH_SLOPE
    rest = 1.0 - s
    rest *= a  # first: far out it is 0, the rest may be infinite
    slope *= rest
    slope += 1.0
    slope *= s
    return special.times(slope, g)


def _gelu_tanh_curvature(g: Any, a: Any) -> Any:
    square = e.square(a)
    s = e.sigmoid(e.mul(e.mul(e.add(e.mul(square, _TANH_CUBE), 1.0), a), _TANH_SLOPE))
    spread = e.mul(s, e.sub(1.0, s))
    first = e.add(e.mul(square, 3 * _TANH_CUBE * _TANH_SLOPE), _TANH_SLOPE)
    bend = e.add(e.mul(e.square(first), e.sub(1.0, e.mul(s, 2.0))), e.mul(a, 6 * _TANH_CUBE * _TANH_SLOPE))
    return e.mul(g, e.mul(spread, e.add(e.mul(first, 2.0), e.mul(a, bend))))


_C_SIGMOID = f"(K(1) / (K(1) + exp(K({-_TANH_SLOPE!r}) * ({{0}} + K({_TANH_CUBE}) * {{0}} * {{0}} * {{0}}))))"
_C_FIRST = f"(K({_TANH_SLOPE!r}) + K({3 * _TANH_CUBE * _TANH_SLOPE!r}) * b * b)"
_gelu_tanh = elementwise(
    "gelu_tanh",
    _gelu_tanh_numpy,
    f"a * {_C_SIGMOID.format('a')}",
    lambda g, a: _gelu_tanh_backward(g, a),
    rule="float",
    dtypes="f",
    samples=(),
)
_gelu_tanh_backward = elementwise(
    "gelu_tanh_backward",
    _gelu_tanh_backward_numpy,
    "a * {0} * (K(1) + b * (K(1) - {0}) * {1})".format(_C_SIGMOID.format("b"), _C_FIRST),
    (lambda g, b: _gelu_tanh_backward(g, b), lambda g, a, b: _gelu_tanh_curvature(e.mul(g, a), b)),
    arity=2,
    rule="float",
    dtypes="f",
    samples=(),
)


def _gelu_reference(a: Any, approximate: str = "none") -> Any:
    if approximate == "tanh":
        return 0.5 * a * (1 + np.tanh(math.sqrt(2 / math.pi) * (a + 0.044715 * a**3)))
    return 0.5 * a * (1 + special.erf(a / math.sqrt(2)))


@composite(
    reference=_gelu_reference,
    samples=(*_ANY, Sample(((3, 4),), {"approximate": "tanh"})),
    dtypes="f",
    torch="nn.functional.gelu",
)
def gelu(input: Any, approximate: str = "none") -> Any:
    """x times the normal distribution function of x, exactly or by a tanh (Hendrycks and Gimpel,
    "Gaussian error linear units", 2016)."""
    x = _floating(input, "gelu")
    if approximate == "tanh":
        return _gelu_tanh(x)
    if approximate != "none":
        raise RuntimeError(f"gelu: approximate must be 'none' or 'tanh', not {approximate!r}")
    return _gelu_exact(x)


# -- silu -------------------------------------------------------------------------------------------


def _one_plus_exp(a: Any) -> Any:
    t = special.into(np.exp, -a)
    t += 1.0
    return t


def _silu_numpy(a: Any) -> Any:
    t = _one_plus_exp(a)
    return np.divide(a, t, out=t) if type(t) is np.ndarray else a / t


def _silu_backward_numpy(g: Any, a: Any) -> Any:
    s = special.into(np.reciprocal, _one_plus_exp(a))
    slope = 1.0 - s
    slope *= a
    slope += 1.0
    slope *= s
    return special.times(slope, g)


def _silu_curvature(g: Any, a: Any) -> Any:
    s = e.sigmoid(a)
    bend = e.add(e.mul(a, e.sub(1.0, e.mul(s, 2.0))), 2.0)
    return e.mul(g, e.mul(e.mul(s, e.sub(1.0, s)), bend))


_silu = elementwise(
    "silu_value",
    _silu_numpy,
    "a / (K(1) + exp(-a))",
    lambda g, a: _silu_backward(g, a),
    rule="float",
    dtypes="f",
    samples=(),
)
_silu_backward = elementwise(
    "silu_backward",
    _silu_backward_numpy,
    "a / (K(1) + exp(-b)) * (K(1) + b * (K(1) - K(1) / (K(1) + exp(-b))))",
    (lambda g, b: _silu_backward(g, b), lambda g, a, b: _silu_curvature(e.mul(g, a), b)),
    arity=2,
    rule="float",
    dtypes="f",
    samples=(),
)


@composite(reference=lambda a: a / (1 + np.exp(-a)), samples=_ANY, dtypes="f", torch="nn.functional.silu")
def silu(input: Any) -> Any:
    """x sigmoid(x)."""
    return _silu(_floating(input, "silu"))


# -- composed ----------------------------------------------------------------------------------------


@composite(
    reference=lambda a: np.where(a > 0, a, 0.01 * a),
    samples=_ANY,
    domain=(0.1, 2.0),
    dtypes="f",
    torch="nn.functional.leaky_relu",
)
def leaky_relu(input: Any, negative_slope: float = 0.01) -> Any:
    """x where positive, else ``negative_slope`` x."""
    return e.where(e.gt(input, 0), input, e.mul(input, negative_slope))


@composite(reference=lambda a: np.logaddexp(a, 0), samples=_ANY, dtypes="f", torch="nn.functional.softplus")
@rounded_once
def softplus(input: Any, beta: float = 1.0, threshold: float = 20.0) -> Any:
    """log(1 + exp(beta x)) / beta; x itself where beta x exceeds ``threshold``."""
    x = _floating(input, "softplus")
    scaled = e.mul(x, beta) if beta != 1 else x
    big = e.gt(scaled, threshold)
    soft = e.log1p(e.exp(e.where(big, 0.0, scaled)))
    return e.where(big, x, e.mul(soft, 1.0 / beta) if beta != 1 else soft)
