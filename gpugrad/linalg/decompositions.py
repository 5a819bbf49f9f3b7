"""Factorizations with PyTorch's names and results; signs of vectors are LAPACK's."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpugrad.linalg.checks import alike, common_batch, matrices, square, succeed
from gpugrad.ops import creation, factor, inplace, orthogonal
from gpugrad.ops import elementwise as e
from gpugrad.ops.factor import take_rows, turned
from gpugrad.ops.linear import matmul
from gpugrad.ops.movement import select, squeeze, unsqueeze
from gpugrad.ops.table import Sample as S
from gpugrad.ops.table import composite, describe, pair, public

_DRIVERS = (None, "gesvd", "gesvdj", "gesvda")


def cholesky_ex(A: Any, *, upper: bool = False, check_errors: bool = False) -> Any:
    """(L, info): as :func:`cholesky`, but only with ``check_errors`` is it an error that a matrix is not positive
    definite; else its ``info`` (int32) is the order of the first minor that is not."""
    factor_, info = factor.cholesky(turned(square("linalg.cholesky", A)) if upper else square("linalg.cholesky", A))
    if check_errors:
        succeed("linalg.cholesky", info, "the matrix is not positive definite")
    return pair("linalg_cholesky_ex", "L info", (turned(factor_) if upper else factor_, info))


@public("cholesky")
def cholesky(A: Any, *, upper: bool = False) -> Any:
    """Lower triangular L with ``L L^T = A`` for symmetric positive definite A, of which the lower triangle is read;
    with ``upper`` the upper factor, from the upper triangle. Raises LinAlgError if A is not positive definite."""
    return cholesky_ex(A, upper=upper, check_errors=True).L


def qr(A: Any, mode: str = "reduced") -> Any:
    """(Q, R) with orthonormal columns and upper triangular R. ``mode``: "reduced" (Q ``[*, m, k]``, k = min(m, n)),
    "complete" (Q ``[*, m, m]``; not differentiable if m > n), "r" (Q empty; not differentiable)."""
    op = "linalg.qr"
    matrices(op, A)
    if mode not in ("reduced", "complete", "r"):
        raise RuntimeError(f"{op}: mode must be 'reduced', 'complete' or 'r', not {mode!r}")
    if mode == "r":
        return pair("linalg_qr", "Q R", (creation.zeros(0, dtype=A.dtype, device=A.device), orthogonal.qr_r(A)))
    return pair("linalg_qr", "Q R", orthogonal.qr(A, complete=mode == "complete"))


def svd(A: Any, full_matrices: bool = True, *, driver: str | None = None) -> Any:
    """(U, S, Vh) with ``A = U diag(S) Vh``, S descending. Without ``full_matrices`` U and Vh have min(m, n) columns and
    rows; with it the further ones are arbitrary, and gradients with respect to them are left out. ``driver`` (one of
    cuSOLVER's) changes nothing. Raises LinAlgError for NaN or infinity."""
    matrices("linalg.svd", A)
    if driver not in _DRIVERS:
        raise RuntimeError(f"linalg.svd: driver must be 'gesvd', 'gesvdj' or 'gesvda', not {driver!r}")
    return pair("linalg_svd", "U S Vh", orthogonal.svd(A, full=bool(full_matrices)))


@public("svdvals")
def svdvals(A: Any, *, driver: str | None = None) -> Any:
    """The singular values, descending. ``driver`` as in :func:`svd`."""
    matrices("linalg.svdvals", A)
    if driver not in _DRIVERS:
        raise RuntimeError(f"linalg.svdvals: driver must be 'gesvd', 'gesvdj' or 'gesvda', not {driver!r}")
    return orthogonal.svdvals(A)


def _upper(op: str, UPLO: str) -> bool:
    if not isinstance(UPLO, str) or UPLO.upper() not in ("L", "U"):
        raise RuntimeError(f"{op}: UPLO must be 'L' or 'U', not {UPLO!r}")
    return UPLO.upper() == "U"


def eigh(A: Any, UPLO: str = "L") -> Any:
    """(eigenvalues, eigenvectors) of symmetric matrices, ascending, the vectors as columns; ``UPLO`` says which
    triangle is read. The derivative needs distinct eigenvalues where it passes through the vectors."""
    square("linalg.eigh", A)
    return pair("linalg_eigh", "eigenvalues eigenvectors", orthogonal.eigh(A, upper=_upper("linalg.eigh", UPLO)))


def eigvalsh(A: Any, UPLO: str = "L") -> Any:
    """The eigenvalues of symmetric matrices, ascending."""
    square("linalg.eigvalsh", A)
    return orthogonal.eigvalsh(A, upper=_upper("linalg.eigvalsh", UPLO))


def eig(A: Any) -> Any:
    """(eigenvalues, eigenvectors) of matrices whose eigenvalues are real, as real tensors. Raises
    NotImplementedError for complex ones: see :func:`eigh` for symmetric matrices, whose eigenvalues are always real."""
    return pair("linalg_eig", "eigenvalues eigenvectors", orthogonal.eig(square("linalg.eig", A)))


def eigvals(A: Any) -> Any:
    """The eigenvalues alone; as :func:`eig`."""
    return orthogonal.eig(square("linalg.eigvals", A))[0]


# -- LU ------------------------------------------------------------------------------------------------


def lu_factor_ex(A: Any, *, pivot: bool = True, check_errors: bool = False) -> Any:
    """(LU, pivots, info): as :func:`lu_factor`, but a zero pivot raises only with ``check_errors``; else ``info`` tells
    its 1-based position."""
    packed, pivots, info = factor.lu_factor(matrices("linalg.lu_factor", A), pivot=bool(pivot))
    if check_errors:
        succeed("linalg.lu_factor", info, "U has a zero on its diagonal, so nothing can be solved with it")
    return pair("linalg_lu_factor_ex", "LU pivots info", (packed, pivots, info))


@public("lu_factor")
def lu_factor(A: Any, *, pivot: bool = True) -> Any:
    """(LU, pivots): L (below the diagonal; its own is 1) and U in one matrix, and the row exchanges as LAPACK tells
    them (int32, from 1). Raises LinAlgError if U has a zero on its diagonal."""
    return pair("linalg_lu_factor", "LU pivots", tuple(lu_factor_ex(A, pivot=pivot, check_errors=True))[:2])


def lu(A: Any, *, pivot: bool = True) -> Any:
    """(P, L, U) with ``A = P L U``: a permutation, lower triangular with ones on the diagonal, upper triangular.
    Without ``pivot`` P is empty."""
    packed, pivots, _ = lu_factor_ex(A, pivot=pivot)
    lower, upper = factor.split_lu(packed)
    p = permutation_matrix(pivots, packed) if pivot else creation.zeros(0, dtype=A.dtype, device=A.device)
    return pair("linalg_lu", "P L U", (p, lower, upper))


def permutation_matrix(pivots: Any, packed: Any) -> Any:
    """P of ``A = P L U``."""
    m = packed._array.shape[-2]
    order = factor.permutation(pivots, m, inverse=True)
    wide = factor.identity(m, packed)
    return take_rows(wide.expand((*packed._array.shape[:-2], m, m)), order)


# -- symmetric and indefinite ---------------------------------------------------------------------------


def ldl_factor_ex(A: Any, *, hermitian: bool = False, check_errors: bool = False) -> Any:
    """(LD, pivots, info): as :func:`ldl_factor`; ``info`` is the 1-based position of a zero in D, an error only with
    ``check_errors``."""
    packed, pivots, info = factor.ldl_factor(square("linalg.ldl_factor", A))
    if check_errors:
        succeed("linalg.ldl_factor", info, "D has a zero on its diagonal, so nothing can be solved with it")
    return pair("linalg_ldl_factor_ex", "LD pivots info", (packed, pivots, info))


def ldl_factor(A: Any, *, hermitian: bool = False) -> Any:
    """(LD, pivots): ``A = P L D L^T P^T`` for symmetric A, of which the lower triangle is read, D with blocks of size 1
    and 2; packed, and exchanges (int32) as LAPACK has them. ``hermitian`` makes no difference for real numbers. Not
    differentiable. Raises LinAlgError for a zero in D. Computed on the host."""
    return pair("linalg_ldl_factor", "LD pivots", tuple(ldl_factor_ex(A, check_errors=True))[:2])


def ldl_solve(LD: Any, pivots: Any, B: Any, *, hermitian: bool = False) -> Any:
    """X with ``A X = B`` from ``ldl_factor(A)``; differentiable in B."""
    op = "linalg.ldl_solve"
    square(op, LD)
    alike(op, LD, B)
    if B._array.ndim < 2:
        raise IndexError(f"{op}: B must have at least 2 dimensions, got {describe(LD, B)}; see unsqueeze(-1)")
    if B._array.shape[-2] != LD._array.shape[-1]:
        raise RuntimeError(f"{op}: B must have as many rows as LD; got {describe(LD, B)}")
    if pivots.dtype.category != 1 or tuple(pivots._array.shape) != tuple(LD._array.shape[:-1]):
        raise RuntimeError(f"{op}: pivots must be those that ldl_factor() gave with LD; got {describe(LD, pivots)}")
    LD, order, B = common_batch(op, LD, unsqueeze(pivots, -1), B)
    return factor.ldl_solve(LD, squeeze(order, -1), B)


# -- reflectors ----------------------------------------------------------------------------------------


def reflector(A: Any, i: int) -> Any:
    """Column ``i`` of packed reflectors as ``[*, m, 1]``: 0 above the diagonal, 1 on it."""
    m = A._array.shape[-2]
    below = select(creation.tril(A, -1), -1, i)
    return unsqueeze(e.add(below, select(factor.identity(m, A), 0, i)), -1)


def reflect(A: Any, tau: Any, i: int, x: Any) -> Any:
    """``H_i x`` for the reflector ``H_i = I - tau_i v v^T``."""
    v = reflector(A, i)
    scale = unsqueeze(unsqueeze(select(tau, -1, i), -1), -1)
    return e.sub(x, matmul(e.mul(v, scale), matmul(turned(v), x)))


def check_reflectors(op: str, A: Any, tau: Any, tall: bool) -> None:
    """Raises RuntimeError unless ``tau`` belongs to the reflectors in A."""
    matrices(op, A)
    alike(op, A, tau)
    m, n = A._array.shape[-2:]
    if tall and m < n:
        raise RuntimeError(f"{op}: expected at least as many rows as columns, got {describe(A)}")
    if tuple(tau._array.shape[:-1]) != tuple(A._array.shape[:-2]) or not tau._array.ndim:
        raise RuntimeError(f"{op}: tau must have the batch shape of the reflectors and one more dimension: "
                           f"{describe(A, tau)}")  # fmt: skip
    if tau._array.shape[-1] > min(m, n):
        raise RuntimeError(f"{op}: more factors tau than columns of reflectors: {describe(A, tau)}")


def _product_reference(a: np.ndarray, tau: np.ndarray) -> np.ndarray:
    m, n = a.shape[-2:]
    q = np.broadcast_to(np.eye(m), (*a.shape[:-2], m, m))
    for i in range(tau.shape[-1]):
        v = np.tril(a, -1)[..., i : i + 1] + np.eye(m)[:, i : i + 1]
        q = q @ (np.eye(m) - tau[..., None, i : i + 1] * v * np.swapaxes(v, -1, -2))
    return q[..., :n]


@composite(
    samples=(S(((4, 3), (3,))), S(((2, 3, 3), (2, 2)))),
    reference=_product_reference,
    dtypes="f",
    torch="linalg.householder_product",
)
def householder_product(A: Any, tau: Any) -> Any:
    """The first n columns of ``H_1 H_2 ... H_k`` for the reflectors that ``geqrf`` packs into ``A`` (``[*, m, n]``,
    m >= n) and their factors ``tau`` (``[*, k]``)."""
    check_reflectors("linalg.householder_product", A, tau, True)
    m, n = A._array.shape[-2:]
    q = factor.identity(m, A, n).expand((*A._array.shape[:-2], m, n))
    for i in reversed(range(tau._array.shape[-1])):
        q = reflect(A, tau, i, q)
    return creation.contiguous(q) if tau._array.shape[-1] else inplace.constant_in(A, creation.clone(q))
