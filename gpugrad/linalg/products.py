"""Powers, exponentials and products of matrices and vectors."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

from gpugrad import dtypes, layout
from gpugrad.dtypes import HALVES
from gpugrad.errors import DTypeError
from gpugrad.linalg.checks import alike, floating, need_square
from gpugrad.linalg.solvers import inv
from gpugrad.ops import creation, diagonals, factor, inplace, linear, products, table
from gpugrad.ops import elementwise as e
from gpugrad.ops.creation import cast, rounded_once
from gpugrad.ops.joining import cat
from gpugrad.ops.linear import matmul as _matmul
from gpugrad.ops.movement import expand, reshape, unsqueeze
from gpugrad.ops.reductions import amax
from gpugrad.ops.reductions import sum as sum_
from gpugrad.ops.scans import cumprod
from gpugrad.ops.table import Sample as S
from gpugrad.ops.table import composite, describe


def matmul(input: Any, other: Any) -> Any:
    """:func:`gpugrad.matmul`."""
    return linear.matmul(input, other)


def diagonal(A: Any, *, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Any:
    """A view of the diagonals of the matrices in two dimensions, by default the last two."""
    return diagonals.diagonal(A, offset, dim1, dim2)


_SMALL = [[0.5, 1.0, -0.3], [0.2, -0.6, 0.4], [0.9, 0.1, 0.3]]


@composite(
    samples=(S(((3, 3),), {"n": 5}), S((_SMALL,), {"n": -2}), S(((0, 0),), {"n": 3})),
    reference=lambda a, n: np.linalg.matrix_power(a, n),
    dtypes="f",
    torch="linalg.matrix_power",
)
def matrix_power(A: Any, n: int) -> Any:
    """``A @ A @ ... @ A``, n times, in about 2 log2(n) products; n = 0 gives the identity, a negative n the power of
    the inverse. Raises LinAlgError for that of a singular matrix."""
    op = "linalg.matrix_power"
    need_square(op, A)
    if isinstance(n, bool) or not isinstance(n, (int, np.integer)):
        raise TypeError(f"{op}: n must be an integer, not {type(n).__name__}")
    n = operator.index(n)
    if n == 0:
        unit = factor.identity(A._array.shape[-1], A)
        return inplace.constant_in(A, creation.clone(expand(unit, A._array.shape)))
    if n < 0:
        return matrix_power(inv(A), -n)
    if n == 1:
        return creation.clone(A)
    result, square = None, A
    while n:
        if n & 1:
            result = square if result is None else _matmul(result, square)
        n >>= 1
        if n:
            square = _matmul(square, square)
    return result


_DEGREE = 20  # of the Taylor polynomial, a multiple of 4
_RADIUS = {8: 1.4}  # by itemsize: where the terms left out, r**21 / 21!, are below the precision of float64 ...
_WIDE_RADIUS = 3.0  # ... and of float32


def _exp_reference(a: np.ndarray) -> np.ndarray:
    """By eigenvectors, so of matrices that have enough of them."""
    if not a.size:
        return a
    values, v = np.linalg.eig(a)
    return np.real(v * np.exp(values)[..., None, :] @ np.linalg.inv(v))


@composite(
    samples=(S((_SMALL,)), S(([_SMALL, [[3.0, 1.0, 0.0], [-2.0, 4.0, 1.0], [0.5, 0.3, -6.0]]],)), S(((0, 2, 2),))),
    reference=_exp_reference,
    dtypes="f",
    torch="linalg.matrix_exp",
)
def matrix_exp(A: Any) -> Any:
    """The exponential of square matrices. Each is halved s times until its 1-norm is small, the Taylor polynomial of
    that is taken in few products (M. Paterson and L. Stockmeyer, 1973) and squared s times. Reads s back to the
    host."""
    op = "linalg.matrix_exp"
    need_square(op, A)
    floating(op, A)
    return _matrix_exp(A) if A._array.size else creation.clone(A)


@rounded_once
def _matrix_exp(A: Any) -> Any:
    size = amax(sum_(e.abs(A.detach()), -2, True), (-1,), True)
    radius = _RADIUS.get(A._array.dtype.itemsize, _WIDE_RADIUS)
    steps = e.clamp(e.ceil(e.log2(e.div(size, radius))), 0.0, 1100.0)
    steps = e.where(e.isfinite(size), steps, 0.0)  # NaN and infinity come out by themselves
    power = _exp_taylor(e.mul(A, cast(e.exp2(e.neg(steps)), A.dtype)))
    for i in range(int(amax(steps).item())):
        power = e.where(e.gt(steps, i), _matmul(power, power), power)
    return power


def _exp_taylor(x: Any) -> Any:
    """sum x**k / k! up to the degree, as a polynomial in x**4 whose coefficients are cubic in x."""
    x2 = _matmul(x, x)
    powers_ = [factor.identity(x._array.shape[-1], x), x, x2, _matmul(x2, x)]
    x4 = _matmul(x2, x2)
    result = e.mul(x4, 1.0 / math.factorial(_DEGREE))
    for k in range(_DEGREE - 4, -1, -4):
        if k < _DEGREE - 4:
            result = _matmul(result, x4)
        for j, power in enumerate(powers_):
            result = e.add(result, e.mul(power, 1.0 / math.factorial(k + j)))
    return result


@composite(
    samples=(
        S(((2, 5), (5, 3), (3, 4)), args_as_list=True),
        S(((5,), (5, 3), (3,)), args_as_list=True),
        S(((0, 2), (2, 3)), args_as_list=True),
    ),
    reference=lambda arrays: np.linalg.multi_dot(arrays),
    dtypes="f",
    torch="linalg.multi_dot",
)
def multi_dot(tensors: Sequence[Any]) -> Any:
    """The product of two or more matrices in the order that needs the fewest multiplications; the first and the last
    may be vectors. Raises RuntimeError if sizes or dtypes do not fit."""
    op = "linalg.multi_dot"
    if isinstance(tensors, table.Tensor):
        raise TypeError(f"{op}: expected a list of tensors, got one tensor")
    tensors = list(tensors)
    if len(tensors) < 2:
        raise RuntimeError(f"{op}: expected at least 2 tensors, got {len(tensors)}")
    alike(op, *tensors)
    last = len(tensors) - 1
    for i, t in enumerate(tensors):
        if t._array.ndim != 2 and not (t._array.ndim == 1 and i in (0, last)):
            raise RuntimeError(
                f"{op}: tensor {i} must be a matrix (the first and last: or a vector), got {describe(t)}"
            )
    row, column = tensors[0]._array.ndim == 1, tensors[-1]._array.ndim == 1
    tensors[0] = unsqueeze(tensors[0], 0) if row else tensors[0]
    tensors[-1] = unsqueeze(tensors[-1], 1) if column else tensors[-1]
    for a, b in zip(tensors, tensors[1:], strict=False):
        if a._array.shape[1] != b._array.shape[0]:
            raise RuntimeError(f"{op}: the inner sizes of two neighbours differ: {describe(a, b)}")
    result = products.chain_matmul(*tensors)
    shape = tuple(result._array.shape)
    return reshape(result, (() if row else shape[:1]) + (() if column else shape[1:]))


# -- vectors -------------------------------------------------------------------------------------------


def cross(input: Any, other: Any, *, dim: int = -1) -> Any:
    """The cross product of vectors of 3 elements along ``dim``; the other dimensions broadcast. Raises RuntimeError."""
    alike("linalg.cross", input, other)
    return products.cross(input, other, dim)


@composite(
    samples=(S(((2, 3), (3,))), S(((2, 3), (2, 3)), {"dim": 0}), S(((0, 3), (0, 3)))),
    reference=lambda a, b, dim=-1: np.sum(a * b, dim),
    dtypes="f",
    torch="linalg.vecdot",
)
def vecdot(x: Any, y: Any, *, dim: int = -1) -> Any:
    """``sum(x * y)`` along ``dim``, the other dimensions broadcast. Raises RuntimeError."""
    op = "linalg.vecdot"
    floating(op, x)
    alike(op, x, y)
    try:
        shape = layout.broadcast_shapes(x._array.shape, y._array.shape)
    except ValueError:
        raise RuntimeError(f"{op}: the shapes do not broadcast: {describe(x, y)}") from None
    return _inner(x, y, layout.normalize_axis(dim, len(shape), op))


@rounded_once
def _inner(x: Any, y: Any, axis: int) -> Any:
    return sum_(e.mul(x, y), axis)


def vander(x: Any, *, N: int | None = None) -> Any:
    """``[*, n, N]``: the powers 0..N-1 of the elements of ``[*, n]``; N is n unless given. Integers give int64. Raises
    RuntimeError for N < 2, half and bool."""
    op = "linalg.vander"
    table.as_tensor_arg(op, x)
    if x._array.dtype in HALVES or x.dtype is dtypes.bool_:
        raise DTypeError(f"{op}: not defined for {x.dtype.name}, got {describe(x)}")
    count = N if N is not None else (x._array.shape[-1] if x._array.ndim else 1)
    if count < 2:
        raise RuntimeError(f"{op}: N must be 2 or more, got {count}")
    return powers(x if x._array.ndim else unsqueeze(x, 0), count)


def powers(x: Any, count: int) -> Any:
    """The powers 0..count-1 along a new last dimension."""
    x = x if x.dtype.is_floating_point else cast(x, dtypes.int64)
    one = creation.ones_like(unsqueeze(x.detach(), -1))
    if count < 2:
        return one if count else creation.zeros((*x._array.shape, 0), dtype=x.dtype, device=x.device)
    wide = expand(unsqueeze(x, -1), (*x._array.shape, count - 1))
    return cat((one, cumprod(wide, -1)), -1)
