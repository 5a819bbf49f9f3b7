"""PyTorch's older linear algebra, at the top level of the package and as methods of Tensor: the same computations as
in ``gpugrad.linalg`` with other argument orders and results."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gpugrad import dtypes
from gpugrad.linalg import decompositions, norms, products, solvers
from gpugrad.linalg.checks import alike, matrices, square
from gpugrad.linalg.norms import logdet as logdet
from gpugrad.linalg.solvers import cholesky_inverse as cholesky_inverse
from gpugrad.linalg.solvers import cholesky_solve as cholesky_solve
from gpugrad.ops import creation, factor, orthogonal
from gpugrad.ops.factor import turned
from gpugrad.ops.table import describe, pair


def inverse(input: Any) -> Any:
    """:func:`gpugrad.linalg.inv`."""
    return solvers.inv(input)


def pinverse(input: Any, rcond: float = 1e-15) -> Any:
    """:func:`gpugrad.linalg.pinv` with a smaller default limit for what counts as zero."""
    return solvers.pinv(input, rcond)


def det(input: Any) -> Any:
    """:func:`gpugrad.linalg.det`."""
    return norms.det(input)


def slogdet(input: Any) -> Any:
    """:func:`gpugrad.linalg.slogdet`."""
    return pair("slogdet", "sign logabsdet", tuple(norms.slogdet(input)))


def matrix_power(input: Any, n: int) -> Any:
    """:func:`gpugrad.linalg.matrix_power`."""
    return products.matrix_power(input, n)


def matrix_exp(input: Any) -> Any:
    """:func:`gpugrad.linalg.matrix_exp`."""
    return products.matrix_exp(input)


def cholesky(input: Any, upper: bool = False) -> Any:
    """:func:`gpugrad.linalg.cholesky`."""
    return decompositions.cholesky(input, upper=upper)


def qr(input: Any, some: bool = True) -> Any:
    """:func:`gpugrad.linalg.qr`, reduced if ``some``, else complete."""
    return pair("qr", "Q R", tuple(decompositions.qr(input, "reduced" if some else "complete")))


def svd(input: Any, some: bool = True, compute_uv: bool = True) -> Any:
    """(U, S, V) with ``input = U diag(S) V^T`` (V not transposed); reduced if ``some``. Without ``compute_uv`` U and
    V are zeros, square."""
    matrices("svd", input)
    if compute_uv:
        u, s, vh = orthogonal.svd(input, full=not some)
        return pair("svd", "U S V", (u, s, turned(vh)))
    *batch, m, n = input._array.shape
    u, v = (creation.zeros((*batch, k, k), dtype=input.dtype, device=input.device) for k in (m, n))
    return pair("svd", "U S V", (u, orthogonal.svdvals(input), v))


def lu(A: Any, pivot: bool = True, get_infos: bool = False) -> Any:
    """(LU, pivots), and with ``get_infos`` info: :func:`gpugrad.linalg.lu_factor` and its ``_ex`` form."""
    packed, pivots, info = decompositions.lu_factor_ex(A, pivot=pivot, check_errors=not get_infos)
    return pair("_lu_with_info", "LU pivots info", (packed, pivots, info)) if get_infos else (packed, pivots)


def lu_solve(input: Any, LU_data: Any, LU_pivots: Any) -> Any:
    """:func:`gpugrad.linalg.lu_solve`, the right-hand side first."""
    return solvers.lu_solve(LU_data, LU_pivots, input)


def lu_unpack(LU_data: Any, LU_pivots: Any, unpack_data: bool = True, unpack_pivots: bool = True) -> Any:
    """(P, L, U) of what ``lu_factor`` gives; what is not asked for is empty."""
    matrices("lu_unpack", LU_data, halves=True)  # nothing is computed
    if unpack_pivots and LU_pivots.dtype is not dtypes.int32:
        raise RuntimeError(f"lu_unpack: LU_pivots must be int32, as lu_factor() gives them; got {describe(LU_pivots)}")
    nothing = creation.zeros(0, dtype=LU_data.dtype, device=LU_data.device)
    lower, upper = factor.split_lu(LU_data) if unpack_data else (nothing, nothing)
    p = decompositions.permutation_matrix(LU_pivots, LU_data) if unpack_pivots else nothing
    return pair("lu_unpack", "P L U", (p, lower, upper))


def triangular_solve(
    input: Any, A: Any, upper: bool = True, transpose: bool = False, unitriangular: bool = False
) -> Any:
    """(solution, cloned_coefficient): X with ``A X = input`` (``A^T X = input`` with ``transpose``) for triangular A,
    and a copy of A. See :func:`gpugrad.linalg.solve_triangular`."""
    square("triangular_solve", A)
    left = turned(A) if transpose else A
    x = solvers.solve_triangular(left, input, upper=upper != transpose, unitriangular=unitriangular)
    return pair("triangular_solve", "solution cloned_coefficient", (x, creation.clone(A)))


def geqrf(input: Any) -> Any:
    """(a, tau): R, below it the reflectors whose product is Q, and their factors. See ``orgqr``, ``ormqr``. Not
    differentiable."""
    return pair("geqrf", "a tau", orthogonal.geqrf(matrices("geqrf", input)))


def orgqr(input: Any, tau: Any) -> Any:
    """:func:`gpugrad.linalg.householder_product`."""
    return decompositions.householder_product(input, tau)


def ormqr(input: Any, tau: Any, other: Any, left: bool = True, transpose: bool = False) -> Any:
    """``Q @ other`` (``other @ Q`` unless ``left``; Q transposed with ``transpose``) for the square Q whose reflectors
    ``geqrf`` packed into ``input``, without forming Q."""
    decompositions.check_reflectors("ormqr", input, tau, False)
    alike("ormqr", input, other)
    if not left:
        return turned(ormqr(input, tau, turned(other), True, not transpose))
    if other._array.ndim < 2 or other._array.shape[-2] != input._array.shape[-2]:
        raise RuntimeError(f"ormqr: the sizes of Q and other do not fit: {describe(input, other)}")
    order = range(tau._array.shape[-1])
    for i in order if transpose else reversed(order):
        other = decompositions.reflect(input, tau, i, other)
    return other


def nuclear_norm(input: Any, dim: Sequence[int] = (-2, -1), keepdim: bool = False) -> Any:
    """The sum of the singular values of the matrices in the two dimensions ``dim``."""
    return norms.matrix_norm(input, "nuc", dim, keepdim)


def frobenius_norm(input: Any, dim: Any = (), keepdim: bool = False) -> Any:
    """The root of the sum of squares over ``dim``."""
    return norms.vector_norm(input, 2, dim, keepdim)
