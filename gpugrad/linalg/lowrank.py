"""Singular values and principal components of large matrices of low rank, from products with few random vectors.

N. Halko, P. G. Martinsson, J. A. Tropp, "Finding structure with randomness" (2009), algorithms 4.4 and 5.1.
"""

from __future__ import annotations

from typing import Any

from gpugrad.linalg.checks import matrices
from gpugrad.ops import elementwise as e
from gpugrad.ops import orthogonal, sampling
from gpugrad.ops.factor import turned
from gpugrad.ops.linear import matmul


def _basis(A: Any, q: int, niter: int) -> Any:
    """``[*, m, q]``: orthonormal columns that nearly span what A makes of random vectors, sharpened by ``niter`` rounds
    of A and its transpose."""
    *batch, _, n = A._array.shape
    draw = sampling.randn(*batch, n, q, dtype=A.dtype, device=A.device)
    basis = orthogonal.qr(matmul(A, draw), complete=False)[0]
    for _ in range(niter):
        basis = orthogonal.qr(matmul(turned(A), basis), complete=False)[0]
        basis = orthogonal.qr(matmul(A, basis), complete=False)[0]
    return basis


def svd_lowrank(A: Any, q: int | None = 6, niter: int | None = 2, M: Any = None) -> Any:
    """(U, S, V) with ``U diag(S) V^T`` near A (or ``A - M``): ``[*, m, q]``, ``[*, q]``, ``[*, n, q]``; exact where the
    rank is at most ``q``, which is cut to min(m, n). Draws random numbers."""
    matrices("svd_lowrank", A)
    if M is not None:
        A = e.sub(A, M)
    m, n = A._array.shape[-2:]
    q, niter = min(6 if q is None else q, m, n), 2 if niter is None else niter
    if m < n:  # the smaller side is the one to project on
        v, s, u = svd_lowrank(turned(A), q, niter)
        return u, s, v
    basis = _basis(A, q, niter)
    u, s, vh = orthogonal.svd(matmul(turned(basis), A), full=False)
    return matmul(basis, u), s, turned(vh)


def pca_lowrank(A: Any, q: int | None = None, center: bool = True, niter: int = 2) -> Any:
    """(U, S, V): :func:`svd_lowrank` of the rows of A, less their mean unless ``center`` is False; the columns of V
    are the principal directions, ``S**2 / (m - 1)`` the variances along them. ``q`` is min(6, m, n) unless given.
    Raises ValueError for q above min(m, n) or a negative ``niter``."""
    matrices("pca_lowrank", A)
    m, n = A._array.shape[-2:]
    q = min(6, m, n) if q is None else q
    if not 0 <= q <= min(m, n) or niter < 0:
        raise ValueError(f"pca_lowrank: expected 0 <= q <= {min(m, n)} and niter >= 0, got {q} and {niter}")
    return svd_lowrank(e.sub(A, A.mean(-2, True)) if center else A, q, niter)
