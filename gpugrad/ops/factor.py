"""Rows of the table for factorizations of matrices, and their derivatives. Loaded with ``gpugrad.linalg``.

Every row takes matrices in the last two dimensions of float32 or float64, with one batch shape for all inputs, and
leaves the computing to ``Backend.factorize``; ``gpugrad/linalg`` checks, broadcasts and raises.

Derivatives: M. Giles, "An extended collection of matrix derivative results for forward and reverse mode automatic
differentiation" (2008). Factorizations with orthogonal factors are in ``gpugrad/ops/orthogonal.py``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gpugrad import dtypes
from gpugrad.ops import elementwise as e
from gpugrad.ops import table
from gpugrad.ops.creation import eye, tensor, tril, triu
from gpugrad.ops.diagonals import diag_embed, diagonal
from gpugrad.ops.indexing import gather
from gpugrad.ops.joining import cat
from gpugrad.ops.linear import matmul
from gpugrad.ops.movement import expand, narrow, reshape, transpose, unsqueeze
from gpugrad.ops.reductions import any as any_
from gpugrad.ops.reductions import prod as prod_
from gpugrad.ops.table import Sample as S
from gpugrad.ops.table import primitive

A = [[4.0, 1.0, -0.5], [0.8, 3.0, 0.3], [-0.2, 0.6, 2.5]]
B = [[1.5, -0.4, 0.2], [0.3, -2.0, 0.9], [0.7, 0.1, 1.0]]
_SQUARE = (S((A,)), S(([A, B],)), S(((0, 2, 2),)), S(((0, 0),)))
TALL = [[1.0, 2.0], [-0.5, 1.5], [2.0, 0.3], [0.7, -1.2]]
WIDE = [[1.0, -0.5, 2.0, 0.7], [2.0, 1.5, 0.3, -1.2]]
ANY = (S((A,)), S((TALL,)), S((WIDE,)), S(([TALL, TALL],)), S(((0, 3),)))


# -- small helpers -------------------------------------------------------------------------------


def turned(x: Any) -> Any:
    """The matrices transposed."""
    return transpose(x, -1, -2)


def chain(*matrices: Any) -> Any:
    """Their product, from the left."""
    result = matrices[0]
    for m in matrices[1:]:
        result = matmul(result, m)
    return result


def identity(n: int, like: Any, m: int | None = None, dtype: Any = None) -> Any:
    """The ``[n, m]`` identity on the device of ``like`` and of its dtype."""
    return eye(n, m, dtype=dtype or like.dtype, device=table.device_of(like._backend))


def main_diagonal(x: Any) -> Any:
    return diagonal(x, 0, -2, -1)


def scale_columns(x: Any, d: Any) -> Any:
    """``x @ diag(d)``."""
    return e.mul(x, unsqueeze(d, -2))


def scale_rows(d: Any, x: Any) -> Any:
    """``diag(d) @ x``."""
    return e.mul(unsqueeze(d, -1), x)


def take_rows(x: Any, order: Any) -> Any:
    """Rows of each matrix in the order of the int64 ``order`` (``[*batch, rows]``)."""
    index = expand(unsqueeze(order, -1), (*order._array.shape, x._array.shape[-1]))
    return gather(x, x._array.ndim - 2, index)


def total(*terms: Any) -> Any:
    """The sum of the terms that are not None."""
    result = None
    for t in terms:
        if t is not None:
            result = t if result is None else e.add(result, t)
    return result


# -- inverse and solutions -------------------------------------------------------------------------


@primitive(
    "inv",
    (lambda g, y: e.neg(chain(turned(y), g, turned(y))),),
    samples=_SQUARE,
    reference=np.linalg.inv,
    dtypes="f",
    torch="linalg.inv",
)
def inv(backend: Any, a: Any) -> Any:
    """The inverse of each matrix, and info: 0, or the position of a zero pivot (the inverse then holds NaN)."""
    return backend.factorize("inv", (a,))


def _solve_ga(g: Any, a: Any, y: Any) -> Any:
    return e.neg(matmul(solve(turned(a), g)[0], turned(y)))


@primitive(
    "solve",
    (_solve_ga, lambda g, a: solve(turned(a), g)[0]),
    samples=(S((A, TALL[:3])), S(([A, B], [TALL[:3], TALL[1:]])), S(((2, 2), (2, 0)))),
    reference=np.linalg.solve,
    dtypes="f",
    torch="linalg.solve",
)
def solve(backend: Any, a: Any, b: Any) -> Any:
    """``x`` with ``a x = b``, and info as of :func:`inv`."""
    return backend.factorize("solve", (a, b))


def _triangle(x: Any, upper: bool, unit: bool = False) -> Any:
    return triu(x, 1 if unit else 0) if upper else tril(x, -1 if unit else 0)


def _triangular_ga(g: Any, a: Any, y: Any, upper: bool, unit: bool) -> Any:
    gb = solve_triangular(turned(a), g, upper=not upper, unit=unit)
    return _triangle(e.neg(matmul(gb, turned(y))), upper, unit)


def _triangular_reference(a: np.ndarray, b: np.ndarray, upper: bool, unit: bool) -> np.ndarray:
    a = np.triu(a) if upper else np.tril(a)
    if unit:
        i = np.arange(a.shape[-1])
        a[..., i, i] = 1
    return np.linalg.solve(a, b)


@primitive(
    "solve_triangular",
    (_triangular_ga, lambda g, a, upper, unit: solve_triangular(turned(a), g, upper=not upper, unit=unit)),
    samples=(
        S((A, TALL[:3]), {"upper": True, "unit": False}),
        S(([A, B], [TALL[:3], TALL[1:]]), {"upper": False, "unit": True}),
        S(((2, 2), (2, 0)), {"upper": False, "unit": False}),
    ),
    reference=_triangular_reference,
    dtypes="f",
    torch="",
)
def solve_triangular(backend: Any, a: Any, b: Any, upper: bool, unit: bool) -> Any:
    """``x`` with ``a x = b``, reading one triangle of ``a`` (with ``unit`` without its diagonal, taken as 1)."""
    return backend.factorize("triangular", (a, b), upper=upper, unit=unit)[0]


# -- determinants ------------------------------------------------------------------------------------


def _cofactors(a: Any, y: Any) -> Any:
    """The derivative of the determinant. Where no matrix is singular the inverse gives it; else it is put together
    from singular values and the products of all but one of them."""
    if not bool(any_(e.eq(y, 0)).item()):
        return scale_columns(turned(inv(a)[0]), unsqueeze(y, -1))
    from gpugrad.ops.orthogonal import svd

    u, s, vh = svd(a, full=False)
    n = s._array.shape[-1]
    grid = expand(unsqueeze(s, -2), (*s._array.shape, n))
    others = prod_(e.where(identity(n, s, dtype=dtypes.bool_), 1.0, grid), -1)
    return scale_columns(matmul(scale_columns(u, others), vh), unsqueeze(e.mul(det(u), det(vh)), -1))


@primitive(
    "det",
    (lambda g, a, y: e.mul(reshape(g, (*g._array.shape, 1, 1)), _cofactors(a, y)),),
    samples=_SQUARE + (S(([[1.0, 2.0], [2.0, 4.0]],)),),
    reference=np.linalg.det,
    dtypes="f",
    torch="linalg.det",
)
def det(backend: Any, a: Any) -> Any:
    """The determinant of each matrix."""
    return backend.factorize("det", (a,))[0]


@primitive(
    "slogdet",
    (lambda g, a: e.mul(reshape(g, (*g._array.shape, 1, 1)), turned(inv(a)[0])),),
    samples=_SQUARE,
    reference=lambda a: np.linalg.slogdet(a)[1],
    dtypes="f",
    torch="",
)
def slogdet(backend: Any, a: Any) -> Any:
    """log|det| of each matrix, and the sign of its determinant."""
    return backend.factorize("slogdet", (a,))


# -- Cholesky, LU --------------------------------------------------------------------------------------


def _cholesky_vjp(g: Any, y: Any) -> Any:
    """Symmetric: only one triangle of the input is read, but its gradient is spread over both."""
    p = tril(matmul(turned(y), tril(g)))
    p = e.sub(p, e.mul(diag_embed(main_diagonal(p)), 0.5))
    left = solve_triangular(turned(y), p, upper=True, unit=False)
    whole = turned(solve_triangular(turned(y), turned(left), upper=True, unit=False))
    return e.mul(e.add(whole, turned(whole)), 0.5)


@primitive(
    "cholesky",
    (_cholesky_vjp,),
    # no samples: finite differences would leave the symmetric matrices; tests/test_linalg.py has some
    dtypes="f",
    torch="linalg.cholesky",
)
def cholesky(backend: Any, a: Any) -> Any:
    """The lower factor of each matrix, of which the lower triangle is read, and info."""
    return backend.factorize("cholesky", (a,))


def permutation(pivots: Any, rows: int, inverse: bool = False) -> Any:
    """The int64 order of rows that LAPACK's exchanges amount to. Reads the exchanges back to the host."""
    swaps = pivots.detach().cpu().to_numpy()
    flat = swaps.reshape(-1, swaps.shape[-1]) if swaps.size else np.zeros((int(np.prod(swaps.shape[:-1])), 0), int)
    order = np.tile(np.arange(rows), (len(flat), 1))
    each = np.arange(len(flat))
    for j in range(flat.shape[1]):
        other = flat[:, j] - 1
        order[each, j], order[each, other] = order[each, other], order[each, j].copy()
    if inverse:
        order = np.argsort(order, axis=-1)
    return tensor(order.reshape(*swaps.shape[:-1], rows), dtype=dtypes.int64, device=table.device_of(pivots._backend))


def split_lu(packed: Any) -> tuple[Any, Any]:
    """L (``[*, m, k]``, its diagonal 1) and U (``[*, k, n]``) of a packed factorization."""
    m, n = packed._array.shape[-2:]
    k = min(m, n)
    lower = e.add(tril(narrow(packed, -1, 0, k), -1), identity(m, packed, k))
    return lower, triu(narrow(packed, -2, 0, k))


def _lu_vjp(g: Any, y: Any, second: Any) -> Any:
    m, n = y._array.shape[-2:]
    k = min(m, n)
    lower, upper = split_lu(y)
    l1, u1 = narrow(lower, -2, 0, k), narrow(upper, -1, 0, k)
    g_lower, g_upper = tril(narrow(g, -1, 0, k), -1), triu(narrow(g, -2, 0, k))
    low = matmul(turned(l1), narrow(g_lower, -2, 0, k))
    up = matmul(narrow(g_upper, -1, 0, k), turned(u1))
    if n > m:
        rest = narrow(g_upper, -1, k, n - k)
        low = e.sub(low, matmul(rest, turned(narrow(upper, -1, k, n - k))))
    if m > n:
        rest = narrow(g_lower, -2, k, m - k)
        up = e.sub(up, matmul(turned(narrow(lower, -2, k, m - k)), rest))
    middle = e.add(tril(low, -1), triu(up))
    if m <= n:
        middle = turned(solve_triangular(u1, turned(middle), upper=True, unit=False))  # middle U1^-T
        middle = cat((middle, rest), -1) if n > m else middle
        whole = solve_triangular(turned(l1), middle, upper=True, unit=True)
    else:
        middle = cat((solve_triangular(turned(l1), middle, upper=True, unit=True), rest), -2)
        whole = turned(solve_triangular(u1, turned(middle), upper=True, unit=False))
    return take_rows(whole, permutation(second, m, inverse=True))


def _lu_reference(a: np.ndarray) -> np.ndarray:
    """Crout's order: every entry from the finished ones, matrix by matrix."""
    out = np.array(a)
    for x in out.reshape(-1, *a.shape[-2:]) if a.size else ():
        for j in range(min(x.shape)):
            best = j + int(np.argmax(np.abs(x[j:, j])))
            x[[j, best]] = x[[best, j]]
            for i in range(j + 1, x.shape[0]):
                x[i, j] /= x[j, j]
                x[i, j + 1 :] -= x[i, j] * x[j, j + 1 :]
    return out


@primitive(
    "lu_factor",
    (_lu_vjp,),
    samples=ANY,
    reference=_lu_reference,
    dtypes="f",
    torch="linalg.lu_factor",
)
def lu_factor(backend: Any, a: Any, pivot: bool = True) -> Any:
    """Packed L and U, LAPACK's row exchanges (int32, 1-based), info."""
    packed, pivots, _, info = backend.factorize("lu", (a,), pivot=pivot)
    return packed, pivots, info


def no_derivative(g: Any, op: str, instead: str) -> Any:
    raise RuntimeError(f"{op}: not differentiable; use {instead}")


@primitive(
    "ldl_factor",
    (lambda g: no_derivative(g, "ldl_factor", "linalg.cholesky, linalg.eigh or linalg.solve"),),
    dtypes="f",
    differentiable=False,
)
def ldl_factor(backend: Any, a: Any) -> Any:
    """Packed L and D of the lower triangle of symmetric matrices, exchanges, info."""
    return backend.factorize("ldl", (a,))


@primitive(
    "ldl_solve",
    (
        lambda g: no_derivative(g, "ldl_solve with respect to LD", "linalg.solve"),
        None,
        lambda g, a, b: ldl_solve(a, b, g),  # A is symmetric
    ),
    dtypes="f",
)
def ldl_solve(backend: Any, a: Any, pivots: Any, b: Any) -> Any:
    """``x`` with ``A x = b`` from :func:`ldl_factor`."""
    return backend.factorize("ldl_solve", (a, pivots, b))[0]
