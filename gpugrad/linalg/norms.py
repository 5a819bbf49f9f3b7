"""Norms, condition numbers, determinants."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from gpugrad import dtypes, layout
from gpugrad.errors import DTypeError
from gpugrad.linalg.checks import floating, matrices, square
from gpugrad.ops import creation, distances, factor, orthogonal, table
from gpugrad.ops import elementwise as e
from gpugrad.ops.movement import movedim, unsqueeze
from gpugrad.ops.reductions import amax, amin
from gpugrad.ops.reductions import sum as sum_
from gpugrad.ops.table import Sample as S
from gpugrad.ops.table import composite, describe, pair, public


def _converted(op: str, x: Any, dtype: Any) -> Any:
    """``x`` in ``dtype``, in which the norm is asked. Raises DTypeError if that is no wider floating dtype."""
    floating(op, x)
    if dtype is None:
        return x
    wanted = dtypes.as_dtype(dtype)
    if not wanted.is_floating_point or dtypes.promote_types(x.dtype, wanted) is not wanted:
        raise DTypeError(f"{op}: dtype must be a floating one that holds {x.dtype.name}, not {wanted.name}")
    return creation.cast(x, wanted)


def _number(op: str, ord: Any) -> float:
    if isinstance(ord, bool) or not isinstance(ord, (int, float, np.number)):
        raise TypeError(f"{op}: ord must be a number, not {type(ord).__name__}; matrix_norm() takes 'fro' and 'nuc'")
    return float(ord)


@composite(
    name="linalg_vector_norm",
    samples=(
        S(((3, 4),)),
        S(((3, 4),), {"ord": 3, "dim": 0, "keepdim": True}),
        S(((2, 3, 4),), {"ord": math.inf, "dim": (0, 2)}),
        S(((),), {"ord": 1}),
        S(((0, 3),), {"dim": 0}),
    ),
    reference=lambda a, ord=2, dim=None, keepdim=False: np.linalg.vector_norm(a, ord=ord, axis=dim, keepdims=keepdim),
    domain=(0.2, 2.0),
    dtypes="f",
    torch="linalg.vector_norm",
)
def vector_norm(x: Any, ord: float = 2, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Any:
    """``(sum |x|**ord)**(1/ord)`` over ``dim`` (all elements without it); ord inf, -inf: the largest and the smallest
    absolute value; 0: how many elements are not zero. Raises RuntimeError for an inf or negative norm of nothing."""
    op = "linalg.vector_norm"
    x = _converted(op, x, dtype)
    ord = _number(op, ord)
    axes = layout.normalize_axes(dim, x._array.ndim, op)
    if (ord < 0 or ord == math.inf) and any(x._array.shape[i] == 0 for i in axes):
        raise RuntimeError(f"{op}: the norm with ord={ord} is not defined for no elements; got {describe(x)}")
    return distances.vector_norm(x, ord, axes, keepdim)


def _two(op: str, x: Any, dim: Any) -> tuple[int, int]:
    if isinstance(dim, int) or dim is None:
        raise TypeError(f"{op}: dim must be two dimensions, not {dim!r}")
    if len(dim) != 2:
        raise RuntimeError(f"{op}: dim must be two dimensions, not {tuple(dim)}")
    first, second = (layout.normalize_axis(d, x._array.ndim, op) for d in dim)
    if first == second:
        raise RuntimeError(f"{op}: dim must be two different dimensions, not {tuple(dim)}")
    return first, second


@composite(
    samples=(
        S(((3, 4),)),
        S(((2, 3, 4),), {"ord": 1, "keepdim": True}),
        S(((2, 3, 4),), {"ord": math.inf, "dim": (0, 2)}),
        S(((0, 3),), {"ord": -math.inf, "dim": (1, 0)}),
    ),
    reference=lambda a, ord="fro", dim=(-2, -1), keepdim=False: (
        np.linalg.norm(a, ord, dim, keepdim) if a.size else np.array(0.0)
    ),
    domain=(0.2, 2.0),
    dtypes="f",
    torch="linalg.matrix_norm",
)
def matrix_norm(
    A: Any, ord: Any = "fro", dim: Sequence[int] = (-2, -1), keepdim: bool = False, *, dtype: Any = None
) -> Any:
    """The norm of the matrices in the two dimensions ``dim``. ``ord``: "fro" (root of the sum of squares), "nuc"
    (sum of singular values), inf and -inf (largest and smallest sum of absolute values of a row), 1 and -1 (of a
    column), 2 and -2 (largest and smallest singular value). Raises RuntimeError for others."""
    op = "linalg.matrix_norm"
    table.as_tensor_arg(op, A)
    if A._array.ndim < 2:
        raise RuntimeError(f"{op}: expected at least 2 dimensions, got {describe(A)}")
    A = _converted(op, A, dtype)
    rows, columns = _two(op, A, dim)
    if not isinstance(ord, (str, int, float)):
        raise TypeError(f"{op}: ord must be a number, 'fro' or 'nuc', not {ord!r}")
    if ord == "fro":
        return distances.vector_norm(A, 2, tuple(sorted((rows, columns))), keepdim)
    if not isinstance(ord, str) and abs(ord) in (1, math.inf):
        axis, other = (rows, columns) if abs(ord) == 1 else (columns, rows)
        sums = sum_(e.abs(A), axis, True)
        if not A._array.shape[other] and ord > 0:
            result = sum_(sums, other, True)  # of no columns: 0
        else:
            result = (amax if ord > 0 else amin)(sums, (other,), True)
    elif ord == "nuc" or ord in (2, -2):
        values = orthogonal.svdvals(matrices(op, movedim(A, (rows, columns), (-2, -1))))
        if ord == "nuc" or (not values._array.shape[-1] and ord == 2):
            result = sum_(values, -1)
        else:
            result = (amax if ord == 2 else amin)(values, (-1,))
        for d in sorted((rows, columns)) if keepdim else ():
            result = unsqueeze(result, d)
        return result
    else:
        raise RuntimeError(f"{op}: ord must be 'fro', 'nuc', inf, -inf, 1, -1, 2 or -2, not {ord!r}")
    return result if keepdim else result.squeeze((rows, columns))


def norm(input: Any, ord: Any = None, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Any:
    """The norm of vectors (``dim`` one dimension) or matrices (two dimensions). Without ``dim`` that of the whole
    tensor, which with ``ord`` must have 1 or 2 dimensions; without ``ord`` the root of the sum of squares.
    ``ord`` as in :func:`vector_norm` and :func:`matrix_norm`."""
    op = "linalg.norm"
    floating(op, input)
    dims = None if dim is None else (dim,) if isinstance(dim, int) else tuple(dim)
    if dims is not None and len(dims) not in (1, 2):
        raise RuntimeError(f"{op}: dim must be one or two dimensions, not {dims}")
    if ord is None:
        return vector_norm(input, 2, dims, keepdim, dtype=dtype)
    ndim = input._array.ndim
    if dims is None:
        if ndim not in (1, 2):
            raise RuntimeError(f"{op}: with ord and without dim the input must be a vector or a matrix, got "
                               f"{describe(input)}; give dim")  # fmt: skip
        dims = (0,) if ndim == 1 else (0, 1)
    if isinstance(ord, str) or len(dims) == 2:
        if ndim < 2 or len(dims) != 2:
            raise RuntimeError(
                f"{op}: ord={ord!r} is a norm of matrices, it takes two dimensions; got {describe(input)}"
            )
        return matrix_norm(input, ord, dims, keepdim, dtype=dtype)
    return vector_norm(input, ord, dims, keepdim, dtype=dtype)


def cond(A: Any, p: Any = None) -> Any:
    """The condition number: with ``p`` None or 2 the largest singular value over the smallest, with -2 its reciprocal;
    with "fro", "nuc", inf, -inf, 1, -1 the norm times that of the inverse (infinite for a singular matrix)."""
    op = "linalg.cond"
    matrices(op, A)
    if not (p is None or p in ("fro", "nuc") or (not isinstance(p, str) and abs(p) in (1, 2, math.inf))):
        raise RuntimeError(f"{op}: p must be None, 'fro', 'nuc', inf, -inf, 1, -1, 2 or -2, not {p!r}")
    if p is not None and (isinstance(p, str) or abs(p) != 2):
        square(op, A)
    if not A._array.size:
        return creation.zeros(A._array.shape[:-2], dtype=A.dtype, device=A.device)
    if p is None or p in (2, -2):
        values = orthogonal.svdvals(A)
        large, small = values.select(-1, 0), values.select(-1, -1)
        return e.div(small, large) if p == -2 else e.div(large, small)
    inverse, info = factor.inv(A)
    result = e.mul(matrix_norm(A, p), matrix_norm(e.where(_flags(info), 0.0, inverse), p))
    return e.where(e.ne(info, 0), math.inf, result)


def _flags(info: Any) -> Any:
    return unsqueeze(unsqueeze(e.ne(info, 0), -1), -1)


# -- determinants --------------------------------------------------------------------------------------


@public("det")
def det(A: Any) -> Any:
    """The determinant of square matrices; the derivative is exact for singular ones too."""
    return factor.det(square("linalg.det", A))


def slogdet(A: Any) -> Any:
    """(sign, logabsdet): the determinant's sign (0 if singular) and the logarithm of its absolute value."""
    logabs, sign = factor.slogdet(square("linalg.slogdet", A))
    return pair("linalg_slogdet", "sign logabsdet", (sign, logabs))


@composite(
    samples=(
        S(([[4.0, 1.0], [1.0, 3.0]],)),
        S(([[[4.0, 1.0], [1.0, 3.0]], [[0.0, 1.0], [-2.0, 1.0]]],)),
        S(((0, 2, 2),)),
    ),
    reference=lambda a: np.log(np.linalg.det(a)),
    dtypes="f",
)
def logdet(A: Any) -> Any:
    """The logarithm of the determinant: NaN where it is negative, -inf where it is zero."""
    logabs, sign = factor.slogdet(square("logdet", A))
    return e.where(e.lt(sign, 0), math.nan, logabs)
