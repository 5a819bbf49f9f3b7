"""Ops that a backend may compute in one pass.

Each has one plain definition, in terms of other ops. ``offered`` is the one place where ops
ask a backend whether it has a faster routine of that name; tests compare the two. What a
routine ``fused_<name>`` of a backend takes and returns is in ``ROUTINES``. Derivatives are
written in ops as everywhere, so they are differentiable again.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from gpugrad import dtypes, layout
from gpugrad.errors import DTypeError
from gpugrad.ops import elementwise as e
from gpugrad.ops.creation import cast, rounded_once
from gpugrad.ops.movement import reshape
from gpugrad.ops.reductions import amax
from gpugrad.ops.reductions import sum as sum_
from gpugrad.ops.table import Sample, composite, primitive

ROUTINES = {
    "softmax": "(array, axis) -> array of the same shape and dtype; the array is not empty",
    "log_softmax": "(array, axis) -> array of the same shape and dtype; the array is not empty",
}


def offered(x: Any, name: str) -> Callable[..., Any] | None:
    """The routine ``name`` of the backend that ``x`` is on, or None."""
    return x._backend.offer(name)


_ROWS = (
    Sample(((3, 4),), {"dim": 1}),
    Sample(((2, 3, 4),), {"dim": 0}),
    Sample(((2, 0),), {"dim": 0}),
    Sample(([[1000.0, 1001.0], [-1000.0, 0.0]],), {"dim": -1}),
)


def _softmax_reference(a: Any, dim: int) -> Any:
    p = np.exp(a - a.max(axis=dim, keepdims=True)) if a.size else a
    return p / p.sum(axis=dim, keepdims=True)


def _floating(x: Any, dtype: Any, op: str) -> Any:
    if dtype is not None:
        return cast(x, dtypes.as_dtype(dtype))
    if not x.dtype.is_floating_point:
        raise DTypeError(f"{op}: expected a floating-point tensor, got {x.dtype.name}; convert it with .float()")
    return x


def _along(input: Any, dim: int, dtype: Any, op: str, fused: Callable[..., Any], plain: Callable[..., Any]) -> Any:
    """``fused`` where the backend offers ``op``, else ``plain`` of x less its maximum along ``dim``."""
    x = _floating(input, dtype, op)
    axis = layout.normalize_axis(dim, x._array.ndim, op)
    if not x._array.size:
        return e.mul(x, 1.0)
    if not x._array.ndim:
        return reshape(_along(reshape(x, 1), 0, None, op, fused, plain), ())
    if offered(x, op):
        return fused(x, axis=axis)
    return plain(e.sub(x, amax(x.detach(), axis, keepdim=True)), axis)


@primitive("softmax_fused", (lambda g, y, axis: e.mul(y, e.sub(g, sum_(e.mul(g, y), axis, keepdim=True))),))
def _softmax(backend: Any, a: Any, axis: int) -> Any:
    return backend.offer("softmax")(a, axis)


def _softmax_plain(z: Any, axis: int) -> Any:
    p = e.exp(z)
    return e.div(p, sum_(p, axis, keepdim=True))


@composite(reference=_softmax_reference, samples=_ROWS, dtypes="f")
def softmax(input: Any, dim: int, *, dtype: Any = None) -> Any:
    """exp(x) / sum(exp(x)) along ``dim``, computed without overflow."""
    return _along(input, dim, dtype, "softmax", _softmax, _softmax_plain)


def _log_softmax_reference(a: Any, dim: int) -> Any:
    z = a - a.max(axis=dim, keepdims=True) if a.size else a
    return z - np.log(np.exp(z).sum(axis=dim, keepdims=True))


@primitive("log_softmax_fused", (lambda g, y, axis: e.sub(g, e.mul(e.exp(y), sum_(g, axis, keepdim=True))),))
def _log_softmax(backend: Any, a: Any, axis: int) -> Any:
    return backend.offer("log_softmax")(a, axis)


def _log_softmax_plain(z: Any, axis: int) -> Any:
    return e.sub(z, e.log(sum_(e.exp(z), axis, keepdim=True)))


@composite(reference=_log_softmax_reference, samples=_ROWS, dtypes="f")
def log_softmax(input: Any, dim: int, *, dtype: Any = None) -> Any:
    """log(softmax(x)) along ``dim``, accurate where the probability is tiny."""
    return _along(input, dim, dtype, "log_softmax", _log_softmax, _log_softmax_plain)


_ANY = (Sample(((3, 4),)), Sample(((),)), Sample(((0, 3),)))


def _gelu_reference(a: Any, approximate: str = "none") -> Any:
    if approximate == "tanh":
        return 0.5 * a * (1 + np.tanh(math.sqrt(2 / math.pi) * (a + 0.044715 * a**3)))
    from gpugrad.ops.special import erf

    return 0.5 * a * (1 + erf(a / math.sqrt(2)))


@composite(
    reference=_gelu_reference,
    samples=(*_ANY, Sample(((3, 4),), {"approximate": "tanh"})),
    dtypes="f",
    torch="nn.functional.gelu",
)
@rounded_once
def gelu(input: Any, approximate: str = "none") -> Any:
    """x times the normal distribution function of x, exactly or by a tanh (Hendrycks and Gimpel,
    "Gaussian error linear units", 2016)."""
    x = _floating(input, None, "gelu")
    if approximate == "tanh":
        inner = e.mul(e.add(e.mul(e.mul(e.square(x), x), 0.044715), x), math.sqrt(2 / math.pi))
        return e.mul(e.mul(x, 0.5), e.add(e.tanh(inner), 1.0))
    if approximate != "none":
        raise RuntimeError(f"gelu: approximate must be 'none' or 'tanh', not {approximate!r}")
    return e.mul(e.mul(x, 0.5), e.add(e.erf(e.mul(x, 1 / math.sqrt(2))), 1.0))


@composite(reference=lambda a: a / (1 + np.exp(-a)), samples=_ANY, dtypes="f", torch="nn.functional.silu")
@rounded_once
def silu(input: Any) -> Any:
    """x sigmoid(x)."""
    x = _floating(input, None, "silu")
    return e.mul(x, e.sigmoid(x))


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
def softplus(input: Any, beta: float = 1.0, threshold: float = 20.0) -> Any:
    """log(1 + exp(beta x)) / beta; x itself where beta x exceeds ``threshold``."""
    x = _floating(input, None, "softplus")
    scaled = e.mul(x, beta) if beta != 1 else x
    big = e.gt(scaled, threshold)
    soft = e.log1p(e.exp(e.where(big, 0.0, scaled)))
    return e.where(big, x, e.mul(soft, 1.0 / beta) if beta != 1 else soft)
