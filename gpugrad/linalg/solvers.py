"""Inverses, systems of equations, least squares."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from gpugrad import dtypes, layout
from gpugrad.linalg.checks import alike, common_batch, floating, matrices, square, succeed
from gpugrad.ops import creation, factor, orthogonal, table
from gpugrad.ops import elementwise as e
from gpugrad.ops.factor import main_diagonal, turned
from gpugrad.ops.linear import matmul
from gpugrad.ops.movement import movedim, reshape, squeeze, unsqueeze
from gpugrad.ops.reductions import sum as sum_
from gpugrad.ops.table import Sample as S
from gpugrad.ops.table import composite, describe, pair, public

_SINGULAR = "the matrix is singular, so it has no inverse; pinv() and lstsq() take such matrices"


# -- inverse ---------------------------------------------------------------------------------------


def inv_ex(A: Any, *, check_errors: bool = False) -> Any:
    """(inverse, info): as :func:`inv`, but a singular matrix raises only with ``check_errors``; else its inverse is
    NaN and its ``info`` (int32) the 1-based position of the zero pivot."""
    inverse, info = factor.inv(square("linalg.inv", A))
    if check_errors:
        succeed("linalg.inv", info, _SINGULAR)
    return pair("linalg_inv_ex", "inverse info", (inverse, info))


@public("inv")
def inv(A: Any) -> Any:
    """The inverse of square matrices, ``[*, n, n]``. Raises LinAlgError for a singular one."""
    return inv_ex(A, check_errors=True).inverse


def cutoff(A: Any, atol: Any, rtol: Any) -> Any:
    """largest singular value (``[*, 1]``) -> what counts as zero: the larger of ``atol`` and ``rtol`` times it. Without
    either, ``rtol`` is the larger size of the matrix times the dtype's eps; with ``atol`` alone it is 0."""
    default = dtypes.finfo(A.dtype).eps * max(A._array.shape[-2:])

    def limit(x: Any) -> Any:
        return unsqueeze(creation.cast(x, A.dtype), -1) if isinstance(x, table.Tensor) else float(x)

    absolute = None if atol is None else limit(atol)
    if rtol is not None:
        relative = limit(rtol)
    elif isinstance(absolute, table.Tensor):
        relative = e.where(e.gt(absolute, 0), 0.0, default)
    else:
        relative = 0.0 if absolute else default

    def value(largest: Any) -> Any:
        scaled = e.mul(largest, relative)
        return scaled if absolute is None else e.maximum(scaled, e.add(e.mul(scaled, 0), absolute))

    return value


@public("pinv")
def pinv(A: Any, rcond: Any = None, hermitian: bool = False, *, atol: Any = None, rtol: Any = None) -> Any:
    """The Moore-Penrose pseudo-inverse, ``[*, n, m]`` of ``[*, m, n]``.

    Singular values up to ``max(atol, rtol * largest)`` count as zero (numbers, or a tensor over the batch);
    ``rcond`` is an older name of ``rtol``. ``hermitian``: A is symmetric, of which the lower triangle is read.
    The derivative holds where the rank does not change nearby."""
    matrices("linalg.pinv", A)
    if hermitian:
        square("linalg.pinv", A)
    return orthogonal.pinv(A, cutoff(A, atol, rcond if rtol is None else rtol), hermitian)


# -- systems of equations --------------------------------------------------------------------------


def solve_ex(A: Any, B: Any, *, left: bool = True, check_errors: bool = False) -> Any:
    """(result, info): as :func:`solve`, but a singular A raises only with ``check_errors``."""
    op = "linalg.solve"
    square(op, A)
    alike(op, A, B)
    vector = B._array.ndim == 1 or (
        A._array.ndim - 1 == B._array.ndim and tuple(B._array.shape) == tuple(A._array.shape[:-1])
    )
    if vector:
        B = unsqueeze(B, -1)
    _fits(op, A, B, left)
    if not left:
        A, B = turned(A), turned(B)
    result, info = factor.solve(*common_batch(op, A, B))
    if check_errors:
        succeed(op, info, _SINGULAR)
    if not left:
        result = turned(result)
    return pair("linalg_solve_ex", "result info", (squeeze(result, -1) if vector else result, info))


@public("solve")
def solve(A: Any, B: Any, *, left: bool = True) -> Any:
    """X with ``A X = B``, or ``X A = B`` unless ``left``. A is ``[*, n, n]``; B ``[*, n, k]``, or a batch of vectors
    ``[n]`` or ``[*, n]``; batches broadcast. Raises LinAlgError for a singular A."""
    return solve_ex(A, B, left=left, check_errors=True).result


def _fits(op: str, A: Any, B: Any, left: bool) -> None:
    if B._array.ndim < 2:
        raise RuntimeError(f"{op}: B must have at least 2 dimensions, got {describe(A, B)}; see unsqueeze(-1)")
    if A._array.shape[-1] != B._array.shape[-2 if left else -1]:
        equation = "A X = B" if left else "X A = B"
        raise RuntimeError(f"{op}: the sizes of A and B do not fit the equation {equation}: {describe(A, B)}")


def solve_triangular(A: Any, B: Any, *, upper: bool, left: bool = True, unitriangular: bool = False) -> Any:
    """X with ``A X = B`` (``X A = B`` unless ``left``) for triangular A, of which only that triangle is read, and with
    ``unitriangular`` not the diagonal, which is taken as 1. A zero on the diagonal gives infinity or NaN, no error."""
    op = "linalg.solve_triangular"
    square(op, A)
    alike(op, A, B)
    _fits(op, A, B, left)
    if not left:
        return turned(solve_triangular(turned(A), turned(B), upper=not upper, unitriangular=unitriangular))
    return factor.solve_triangular(*common_batch(op, A, B), upper=bool(upper), unit=bool(unitriangular))


def lu_solve(LU: Any, pivots: Any, B: Any, *, left: bool = True, adjoint: bool = False) -> Any:
    """X with ``A X = B`` from ``lu_factor(A)``; ``X A = B`` unless ``left``, A transposed with ``adjoint``."""
    op = "linalg.lu_solve"
    square(op, LU)
    alike(op, LU, B)
    _fits(op, LU, B, left)
    if pivots.dtype is not dtypes.int32:
        raise RuntimeError(f"{op}: pivots must be int32, as lu_factor() gives them; got {describe(pivots)}")
    if tuple(pivots._array.shape) != tuple(LU._array.shape[:-1]):
        raise RuntimeError(f"{op}: pivots must have the shape of LU without its last dimension: {describe(LU, pivots)}")
    if not left:
        return turned(lu_solve(LU, pivots, turned(B), adjoint=not adjoint))
    order = unsqueeze(factor.permutation(pivots, LU._array.shape[-1], inverse=adjoint), -1)
    LU, B, order = common_batch(op, LU, B, order)
    order = squeeze(order, -1)
    if adjoint:
        first = factor.solve_triangular(turned(LU), B, upper=False, unit=False)
        return factor.take_rows(factor.solve_triangular(turned(LU), first, upper=True, unit=True), order)
    first = factor.solve_triangular(LU, factor.take_rows(B, order), upper=False, unit=True)
    return factor.solve_triangular(LU, first, upper=True, unit=False)


def lstsq(A: Any, b: Any, rcond: float | None = None, *, driver: str | None = None) -> Any:
    """The X of least norm among those that make ``|A X - b|`` least: (solution, residuals, rank, singular_values).

    A is ``[*, m, n]``, b ``[*, m, k]`` or vectors ``[*, m]``. ``driver`` is one of LAPACK's, "gelsy" (the default),
    "gels", "gelsd", "gelss"; all are computed by singular values here, and it decides, as in PyTorch, which of the
    other results are not empty: ``residuals`` (sums of squares; where m > n, the rank is full and it is not "gelsy"),
    ``rank`` (not for "gels", which takes A to have full rank), ``singular_values`` ("gelsd" and "gelss")."""
    op = "linalg.lstsq"
    matrices(op, A)
    alike(op, A, b)
    driver = "gelsy" if driver is None else driver
    if driver not in ("gels", "gelsy", "gelsd", "gelss"):
        raise RuntimeError(f"{op}: driver must be 'gels', 'gelsy', 'gelsd' or 'gelss', not {driver!r}")
    (*batch, m, n), shape = A._array.shape, tuple(b._array.shape)
    vector = shape == (*batch, m) and len(shape) == len(batch) + 1
    if vector:
        b = unsqueeze(b, -1)
    if b._array.ndim < 2 or b._array.shape[-2] != m:
        raise RuntimeError(f"{op}: A and b must have as many rows; got {describe(A, b)}")
    A, b = common_batch(op, A, b)
    limit = cutoff(A, None, 0.0 if driver == "gels" else rcond)
    solution = matmul(orthogonal.pinv(A, limit), b)
    empty, none = creation.zeros(0, dtype=A.dtype, device=A.device), dtypes.int64
    rank, values, residuals = creation.zeros(0, dtype=none, device=A.device), empty, empty
    full = True
    if driver != "gels":
        values = orthogonal.svdvals(A.detach())
        rank = _rank(values, limit)
        full = driver != "gelsy" and m > n and bool(e.eq(rank, n).all().item())
        values = values if driver in ("gelsd", "gelss") else empty
    if full and m > n:
        residuals = sum_(e.square(e.sub(matmul(A, solution), b)), -2)
    fields = "solution residuals rank singular_values"
    return pair("linalg_lstsq", fields, (squeeze(solution, -1) if vector else solution, residuals, rank, values))


def _rank(values: Any, limit: Any) -> Any:
    """How many singular values are above the limit."""
    if not values._array.shape[-1]:
        return sum_(creation.cast(values, dtypes.int64), -1)
    largest = values.amax(-1, True)
    return sum_(e.gt(values, limit(largest)), -1)


def matrix_rank(A: Any, tol: Any = None, hermitian: bool = False, *, atol: Any = None, rtol: Any = None) -> Any:
    """How many singular values exceed ``max(atol, rtol * largest)``, int64 over the batch; ``tol`` is an older name of
    ``atol``. The default ``rtol`` is the larger size times the dtype's eps."""
    op = "linalg.matrix_rank"
    matrices(op, A)
    if hermitian:
        square(op, A)
        values = e.abs(orthogonal.eigvalsh(A, upper=False))
    else:
        values = orthogonal.svdvals(A)
    if tol is not None:  # an absolute limit and no other
        atol, rtol = tol, 0.0
    return _rank(values.detach(), cutoff(A, atol, rtol))


_FACTOR = [[2.0, 0.3, -0.4], [0.5, 1.5, 0.2], [-0.7, 0.4, 1.2]]
_RIGHT = [[1.0, -0.5], [0.3, 2.0], [-1.0, 0.4]]


# -- of Cholesky factors -----------------------------------------------------------------------------


def _cholesky_solve_reference(b: np.ndarray, low: np.ndarray, upper: bool = False) -> np.ndarray:
    low = np.swapaxes(np.triu(low), -1, -2) if upper else np.tril(low)
    return np.linalg.solve(low @ np.swapaxes(low, -1, -2), b)


@composite(
    samples=(S((_RIGHT, _FACTOR)), S(([_RIGHT, _RIGHT], _FACTOR), {"upper": True})),
    reference=_cholesky_solve_reference,
    dtypes="f",
)
def cholesky_solve(input: Any, input2: Any, upper: bool = False) -> Any:
    """X with ``(L L^T) X = B`` (with ``upper`` ``(L^T L) X = B``), from a Cholesky factor."""
    op, B, L = "cholesky_solve", input, input2
    square(op, L)
    alike(op, B, L)
    _fits(op, L, B, True)
    B, L = common_batch(op, B, L)
    first = factor.solve_triangular(turned(L) if upper else L, B, upper=False, unit=False)
    return factor.solve_triangular(L if upper else turned(L), first, upper=True, unit=False)


def cholesky_inverse(input: Any, upper: bool = False) -> Any:
    """The inverse of ``L L^T`` (with ``upper`` ``L^T L``), from a Cholesky factor. Raises LinAlgError if a diagonal
    element is zero."""
    op, L = "cholesky_inverse", input
    square(op, L)
    zero = e.eq(main_diagonal(L.detach()), 0)
    if bool(zero.any().item()):
        succeed(op, creation.cast(zero.any(-1), dtypes.int32), _SINGULAR)
    return cholesky_solve(factor.identity(L._array.shape[-1], L), L, upper)


# -- of more dimensions ------------------------------------------------------------------------------


def tensorinv(A: Any, ind: int = 2) -> Any:
    """The inverse of ``x -> tensordot(A, x, x.ndim)``: the first ``ind`` dimensions of A are the result's, their sizes
    multiply to what those of the rest do. Raises RuntimeError, LinAlgError."""
    op = "linalg.tensorinv"
    floating(op, A)
    if ind <= 0:
        raise RuntimeError(f"{op}: ind must be positive, got {ind}")
    first, last = A._array.shape[:ind], A._array.shape[ind:]
    if prod(first) != prod(last):
        raise RuntimeError(
            f"{op}: the sizes before and after dimension {ind} multiply to {prod(first)} and {prod(last)}, which must "
            f"be equal; got {describe(A)}"
        )
    return reshape(inv(reshape(A, (prod(first), prod(last)))), (*last, *first))


def tensorsolve(A: Any, other: Any, dims: Any = None) -> Any:
    """X with ``tensordot(A, X, X.ndim) = other``; ``dims`` of A are moved to its end first. Raises RuntimeError."""
    op = "linalg.tensorsolve"
    floating(op, A)
    alike(op, A, other)
    if dims is not None:
        axes = layout.normalize_axes(dims, A._array.ndim, op)
        A = movedim(A, axes, tuple(range(A._array.ndim - len(axes), A._array.ndim)))
    result = A._array.shape[other._array.ndim :]
    rows = prod(A._array.shape[: other._array.ndim])
    if prod(result) != rows or rows != other._array.size:
        raise RuntimeError(
            f"{op}: the first {other._array.ndim} sizes of A multiply to {rows}, the others to {prod(result)}, and "
            f"other has {other._array.size} elements; all three must be equal: {describe(A, other)}"
        )
    return reshape(solve(reshape(A, (rows, rows)), reshape(other, -1)), result)
