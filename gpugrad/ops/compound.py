"""Elementwise ops composed of others, and the forms of ``add``, ``sub`` and ``div`` with options.

The operators (``a + b``) call the plain rows of ``gpugrad/ops/elementwise.py`` directly.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gpugrad import dtypes
from gpugrad.ops import elementwise as e
from gpugrad.ops import inplace, table
from gpugrad.ops.creation import cast, rounded_once, zeros_like
from gpugrad.ops.mapping import elementwise
from gpugrad.ops.table import Sample as S
from gpugrad.ops.table import composite


def add(input: Any, other: Any, *, alpha: float = 1) -> Any:
    """``input + alpha * other``."""
    return e.add(input, other if alpha == 1 and alpha is not True else _scaled("add", input, other, alpha))


def sub(input: Any, other: Any, *, alpha: float = 1) -> Any:
    """``input - alpha * other``. Raises TypeError for two bool tensors."""
    return e.sub(input, other if alpha == 1 and alpha is not True else _scaled("sub", input, other, alpha))


def _scaled(op: str, x: Any, other: Any, alpha: float) -> Any:
    """``alpha * other``, in the dtype that ``x`` and ``other`` have together: the factor takes no part in promotion."""
    if not isinstance(other, table.Tensor):
        return other * alpha
    dtype = table.result_type(x, other)
    if not dtype.is_floating_point and isinstance(alpha, float):
        raise RuntimeError(
            f"{op}: alpha is {alpha}, and {table.describe(x, other)} are not floating; pass an integer, or convert one "
            "of them with .float()"
        )
    if isinstance(alpha, bool) and dtype is not dtypes.bool_:
        raise RuntimeError(f"{op}: alpha is {alpha}, and {table.describe(x, other)} are not bool; pass a number")
    return e.mul(cast(other, dtype), bool(alpha) if dtype is dtypes.bool_ else alpha)


def add_(x: Any, other: Any, *, alpha: float = 1) -> Any:
    """In place: :func:`add`, stored in this tensor."""
    return e.add.inplace(x, other if alpha == 1 and alpha is not True else _scaled("add", x, other, alpha))


def sub_(x: Any, other: Any, *, alpha: float = 1) -> Any:
    """In place: :func:`sub`, stored in this tensor."""
    return e.sub.inplace(x, other if alpha == 1 and alpha is not True else _scaled("sub", x, other, alpha))


def div(input: Any, other: Any, *, rounding_mode: str | None = None) -> Any:
    """``input / other``; with ``rounding_mode`` "floor" or "trunc" the quotient rounded down or
    towards zero, which is an integer for integers. Raises ZeroDivisionError for integers
    rounded by zero."""
    if rounding_mode is None:
        return e.div(input, other)
    if rounding_mode not in ("floor", "trunc"):
        raise RuntimeError(f"div: rounding_mode must be None, 'floor' or 'trunc', not {rounding_mode!r}")
    if table.result_type(input, other).is_floating_point:
        return div_floor(input, other) if rounding_mode == "floor" else e.trunc(e.div(input, other))
    if rounding_mode == "trunc":
        input = e.sub(input, e.fmod(input, other))
    return e.floor_divide(input, other)


# Of the exact quotient, not of the one rounded to nearest: 1.0 / 0.1 is 9.99..., though the nearest float is 10.
div_floor = elementwise(
    "div_floor",
    np.floor_divide,
    "GG_FLOORDIV(a, b)",
    (lambda g: zeros_like(g), lambda g: zeros_like(g)),
    arity=2,
    rule="float",
    domain=(0.5, 4.0),
    dtypes="f",
)


def div_(x: Any, other: Any, *, rounding_mode: str | None = None) -> Any:
    """In place: :func:`div`, stored in this tensor."""
    if rounding_mode is None:
        return e.div.inplace(x, other)
    result = div(x, other, rounding_mode=rounding_mode)
    if result._array.shape != x._array.shape:
        raise RuntimeError(f"div_: the result does not fit the tensor; operands: {table.describe(x, other)}")
    return inplace.write("div_", x, cast(result, x.dtype))


_THREE = (S(((3, 4), (3, 4), (3, 4)), {"value": 0.5}), S(((3, 4), (4,), (3, 1))))


@composite(reference=lambda x, a, b, value=1: x + value * a * b, samples=_THREE, dtypes="f")
@rounded_once
def addcmul(input: Any, tensor1: Any, tensor2: Any, *, value: float = 1) -> Any:
    """``input + value * tensor1 * tensor2``."""
    product = e.mul(tensor1, tensor2)
    return e.add(input, product if value == 1 else e.mul(product, value))


@composite(reference=lambda x, a, b, value=1: x + value * a / b, samples=_THREE, dtypes="f", domain=(0.5, 2.0))
@rounded_once
def addcdiv(input: Any, tensor1: Any, tensor2: Any, *, value: float = 1) -> Any:
    """``input + value * tensor1 / tensor2``."""
    quotient = e.div(tensor1, tensor2)
    return e.add(input, quotient if value == 1 else e.mul(quotient, value))


@composite(
    reference=lambda a, b, weight: a + weight * (b - a),
    dtypes="f",
    samples=(S(((3, 4), (3, 4)), {"weight": 0.3}), S(((3, 1), (4,), (3, 4)))),
)
@rounded_once
def lerp(input: Any, end: Any, weight: Any) -> Any:
    """``input + weight * (end - input)``; ``weight`` a number or a tensor. From a weight of 1/2 on it is counted from
    the end, so that a weight of 1 gives the end itself."""
    way = e.sub(end, input)
    if not isinstance(weight, table.Tensor):
        near = abs(weight) < 0.5
        return e.add(input, e.mul(way, weight)) if near else e.sub(end, e.mul(way, 1.0 - weight))
    near = e.lt(e.abs(weight), 0.5)
    return e.where(near, e.add(input, e.mul(way, weight)), e.sub(end, e.mul(way, e.sub(1.0, weight))))


@composite(
    reference=lambda a, b, rtol=1e-5, atol=1e-8: np.isclose(a, b, rtol, atol),
    differentiable=False,
    dtypes="f",
    samples=(S(([1.0, 2.0, float("inf"), 0.0], [1.0, 2.1, float("inf"), 1e-9])), S(((3, 4), (4,)), {"rtol": 0.5})),
)
def isclose(input: Any, other: Any, rtol: float = 1e-05, atol: float = 1e-08, equal_nan: bool = False) -> Any:
    """Whether ``|input - other| <= atol + rtol * |other|``, elementwise; infinities equal
    themselves, and with ``equal_nan`` NaN does. Raises RuntimeError for two dtypes."""
    if rtol < 0 or atol < 0:
        raise RuntimeError(f"isclose: tolerances must not be negative, got rtol={rtol} and atol={atol}")
    if input.dtype is not other.dtype:
        raise RuntimeError(f"isclose: expected one dtype, got {table.describe(input, other)}")
    close = e.eq(input, other)
    if input.dtype.is_floating_point:
        gap = e.abs(e.sub(input, other))
        near = e.le(gap, e.add(e.mul(e.abs(other), rtol), atol))
        close = e.logical_or(close, e.logical_and(near, e.isfinite(gap)))
        if equal_nan:
            close = e.logical_or(close, e.logical_and(e.isnan(input), e.isnan(other)))
    elif input.dtype.category:
        wide = e.div(e.abs(e.sub(input, other)), 1)
        close = e.le(wide, e.add(e.mul(e.abs(other), rtol), atol))
    return close


def allclose(input: Any, other: Any, rtol: float = 1e-05, atol: float = 1e-08, equal_nan: bool = False) -> bool:
    """Whether all elements are close, as :func:`isclose` has it."""
    return bool(isclose(input, other, rtol, atol, equal_nan).all().item())


def equal(input: Any, other: Any) -> bool:
    """Whether two tensors have one shape and equal elements."""
    if tuple(input.shape) != tuple(other.shape):
        return False
    return bool(e.eq(input, other).all().item())


subtract, divide, true_divide = sub, div, div  # PyTorch's other names
subtract_, divide_, true_divide_ = sub_, div_, div_
