"""Rows of the table for factorizations with orthogonal factors: QR, singular values, eigenvectors; and the
pseudo-inverse. Loaded with ``gpugrad.linalg``; ``gpugrad/ops/factor.py`` says what holds for all.

Derivatives: M. Giles, "An extended collection of matrix derivative results for forward and reverse mode automatic
differentiation" (2008); J. Townsend, "Differentiating the singular value decomposition" (2016); G. Golub and V.
Pereyra, "The differentiation of pseudo-inverses" (1973); S. Walter and L. Lehmann, "Algorithmic differentiation of
linear algebra functions with application in optimum experimental design" (2010).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gpugrad import dtypes
from gpugrad.autograd.graph import edge_of
from gpugrad.autograd.modes import mode, no_grad
from gpugrad.ops import elementwise as e
from gpugrad.ops.creation import tril, triu, zeros_like
from gpugrad.ops.diagonals import diag_embed
from gpugrad.ops.factor import (
    ANY,
    A,
    chain,
    identity,
    main_diagonal,
    no_derivative,
    scale_columns,
    scale_rows,
    solve,
    solve_triangular,
    total,
    turned,
)
from gpugrad.ops.joining import cat
from gpugrad.ops.linear import matmul
from gpugrad.ops.movement import narrow, unsqueeze
from gpugrad.ops.reductions import amax
from gpugrad.ops.several import SeveralNode
from gpugrad.ops.table import Op, primitive, record, wrap
from gpugrad.ops.table import Sample as S

# -- several differentiable results ---------------------------------------------------------------------


def factorization(
    name: str, rule: Callable[..., Any], **row: Any
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Declare a row of one input and several differentiable results; ``rule(gradients, results, **params)`` gives the
    gradient of the input. The decorated function becomes ``call(x, **params)``."""
    op = Op(name, "factorization", None, **({"differentiable": True} | row))

    def gradients_of_all(gradients: list[Any], results: list[Any], needed: Sequence[bool], **params: Any) -> Any:
        return (rule(gradients, results, **params),)

    def declare(forward: Callable[..., Any]) -> Callable[..., Any]:
        def call(x: Any, **params: Any) -> tuple[Any, ...]:
            backend = x._backend
            outs = tuple(wrap(v, backend) for v in forward(backend, x._array, **params))
            edge = edge_of(x) if mode.enabled else None
            if edge is not None:
                saved = [(t, -1 - i) for i, t in enumerate(outs)]  # the results are all that is saved
                SeveralNode(op, gradients_of_all, (edge,), outs, saved, params)
            return outs

        call.__name__ = call.__qualname__ = name
        call.__doc__ = forward.__doc__
        call.op = op  # type: ignore[attr-defined]
        op.function = call
        return call

    return declare


def _qr_vjp(gradients: list[Any], results: list[Any], complete: bool) -> Any:
    (gq, gr), (q, r) = gradients, results
    m, n = q._array.shape[-2], r._array.shape[-1]
    k = min(m, n)
    if complete and m > n:
        raise RuntimeError(
            f"qr: with mode='complete' the derivative is not defined for more rows than columns ({m} x {n}), as the "
            "last columns of Q are arbitrary; use mode='reduced'"
        )
    gq = zeros_like(q) if gq is None else gq
    r1, rest = narrow(r, -1, 0, k), None
    gr1 = None if gr is None else narrow(triu(gr), -1, 0, k)
    if n > k:
        # The last columns are Y = Q R2, so R2's gradient reaches Y through Q, and Q through Y = Q R2.
        g2 = zeros_like(narrow(r, -1, k, n - k)) if gr is None else narrow(gr, -1, k, n - k)
        rest = matmul(q, g2)
        gq = e.add(gq, chain(q, narrow(r, -1, k, n - k), turned(g2)))
    middle = e.neg(matmul(turned(gq), q))
    if gr1 is not None:
        middle = e.add(middle, matmul(r1, turned(gr1)))
    symmetric = e.add(tril(middle), turned(tril(middle, -1)))
    whole = e.add(gq, matmul(q, symmetric))
    first = turned(solve_triangular(r1, turned(whole), upper=True, unit=False))  # whole R1^-T
    return first if rest is None else cat((first, rest), -1)


@factorization(
    "qr",
    _qr_vjp,
    samples=tuple(S(s.inputs, {"complete": False}) for s in ANY),
    reference=lambda a, complete: np.linalg.qr(a)[0],
    dtypes="f",
    torch="",
)
def qr(backend: Any, a: Any, complete: bool) -> Any:
    """Q with orthonormal columns, and upper triangular R; signs are LAPACK's."""
    return backend.factorize("qr", (a,), complete=complete)


_QR = "linalg.qr(A, mode='reduced')"


@primitive(
    "qr_r",
    (lambda g: no_derivative(g, "qr with mode='r'", _QR),),
    samples=ANY,
    reference=lambda a: np.linalg.qr(a, "r") if a.size else np.zeros((0, a.shape[-1])),
    differentiable=False,
    dtypes="f",
    torch="",
)
def qr_r(backend: Any, a: Any) -> Any:
    """R alone. Its derivative needs Q, and raises RuntimeError."""
    return backend.factorize("qr", (a,), complete=False)[1]


@primitive(
    "geqrf",
    (lambda g: no_derivative(g, "geqrf", _QR),),
    samples=ANY[:-1],
    reference=lambda a: np.swapaxes(np.linalg.qr(a, "raw")[0], -1, -2),
    differentiable=False,
    dtypes="f",
    torch="",
)
def geqrf(backend: Any, a: Any) -> Any:
    """R and packed reflectors, and their factors."""
    return backend.factorize("geqrf", (a,))


def _gaps(d: Any) -> Any:
    """``d_j - d_i``, and 1 on the diagonal."""
    n = d._array.shape[-1]
    return e.where(identity(n, d, dtype=dtypes.bool_), 1.0, e.sub(unsqueeze(d, -2), unsqueeze(d, -1)))


def _svd_vjp(gradients: list[Any], results: list[Any], full: bool) -> Any:
    """Results beyond the first min(m, n) vectors are arbitrary, so gradients with respect to them are left out."""
    (gu, gs, gvh), (u, s, vh) = gradients, results
    k, m, n = s._array.shape[-1], u._array.shape[-2], vh._array.shape[-1]
    u, vh = narrow(u, -1, 0, k), narrow(vh, -2, 0, k)
    gu = None if gu is None else narrow(gu, -1, 0, k)
    gvh = None if gvh is None else narrow(gvh, -2, 0, k)
    v = turned(vh)
    if gu is None and gvh is None:
        return matmul(scale_columns(u, gs), vh)
    gaps = _gaps(e.square(s))
    middle = None if gs is None else diag_embed(gs)
    if gu is not None:
        turn = matmul(turned(u), gu)
        middle = total(middle, scale_columns(e.div(e.sub(turn, turned(turn)), gaps), s))
    if gvh is not None:
        turn = matmul(vh, turned(gvh))
        middle = total(middle, scale_rows(s, e.div(e.sub(turn, turned(turn)), gaps)))
    left = matmul(u, middle)
    if gu is not None and m > k:
        outside = e.sub(gu, chain(u, turned(u), gu))
        left = e.add(left, e.div(outside, unsqueeze(s, -2)))
    whole = matmul(left, vh)
    if gvh is not None and n > k:
        outside = e.sub(gvh, chain(gvh, v, vh))
        whole = e.add(whole, matmul(u, e.div(outside, unsqueeze(s, -1))))
    return whole


@factorization(
    "svd",
    _svd_vjp,
    samples=tuple(S(s.inputs, {"full": False}) for s in ANY),
    reference=lambda a, full: np.linalg.svd(a, full)[0],
    dtypes="f",
    torch="",
)
def svd(backend: Any, a: Any, full: bool) -> Any:
    """U, the singular values in descending order, and V transposed."""
    return backend.factorize("svd", (a,), full=full)


def _eigh_vjp(gradients: list[Any], results: list[Any], upper: bool) -> Any:
    (gl, gv), (values, v) = gradients, results
    if gv is None:
        return matmul(scale_columns(v, gl), turned(v))
    turn = matmul(turned(v), gv)
    middle = e.div(e.mul(e.sub(turn, turned(turn)), 0.5), _gaps(values))
    return chain(v, middle if gl is None else e.add(middle, diag_embed(gl)), turned(v))


def _svdvals_vjp(g: Any, a: Any) -> Any:
    u, _, vh = svd(a, full=False)
    return matmul(scale_columns(u, g), vh)


@primitive(
    "svdvals",
    (_svdvals_vjp,),
    samples=ANY,
    reference=lambda a: np.linalg.svd(a, compute_uv=False),
    dtypes="f",
    torch="linalg.svdvals",
)
def svdvals(backend: Any, a: Any) -> Any:
    """The singular values alone, which is faster; the derivative computes the vectors."""
    return backend.factorize("svdvals", (a,))[0]


@factorization(
    "eigh",
    _eigh_vjp,
    # no samples: finite differences would leave the symmetric matrices; tests/test_linalg.py has some
    dtypes="f",
    torch="",
)
def eigh(backend: Any, a: Any, upper: bool) -> Any:
    """Eigenvalues of symmetric matrices in ascending order, and eigenvectors as columns; one triangle is read."""
    return backend.factorize("eigh", (a,), upper=upper)


def _eigvalsh_vjp(g: Any, a: Any, upper: bool) -> Any:
    _, v = eigh(a, upper=upper)
    return matmul(scale_columns(v, g), turned(v))


@primitive(
    "eigvalsh",
    (_eigvalsh_vjp,),
    # no samples: finite differences would leave the symmetric matrices; tests/test_linalg.py has some
    dtypes="f",
    torch="",
)
def eigvalsh(backend: Any, a: Any, upper: bool) -> Any:
    """The eigenvalues alone, which is faster; the derivative computes the vectors."""
    return backend.factorize("eigvalsh", (a,), upper=upper)[0]


def _eig_vjp(gradients: list[Any], results: list[Any]) -> Any:
    """For eigenvectors of unit length."""
    (gl, gv), (values, v) = gradients, results
    middle = None
    if gv is not None:
        turn = matmul(turned(v), gv)
        fixed = scale_columns(matmul(turned(v), v), main_diagonal(turn))
        middle = e.div(e.sub(turn, fixed), _gaps(values))
        middle = e.where(identity(v._array.shape[-1], v, dtype=dtypes.bool_), 0.0, middle)
    if gl is not None:
        middle = total(middle, diag_embed(gl))
    return matmul(solve(turned(v), middle)[0], turned(v))


@factorization(
    "eig",
    _eig_vjp,
    samples=(S((A,)), S(((0, 2, 2),))),
    reference=lambda a: np.linalg.eig(a)[0] if a.size else np.empty(a.shape[:-1]),
    dtypes="f",
    torch="",
)
def eig(backend: Any, a: Any) -> Any:
    """Eigenvalues and eigenvectors of matrices whose eigenvalues are real. Raises NotImplementedError for others."""
    values, vectors, imaginary = backend.factorize("eig", (a,))
    if backend.to_host(imaginary) > 0:
        raise NotImplementedError(
            "eig: the eigenvalues of this matrix are complex, and there are no complex dtypes here; symmetric "
            "matrices have real ones, see linalg.eigh()"
        )
    return values, vectors


# -- pseudo-inverse ------------------------------------------------------------------------------------


def _pinv_vjp(g: Any, a: Any, y: Any) -> Any:
    """Of matrices whose rank does not change nearby (Golub and Pereyra's formula, transposed)."""
    m, n = a._array.shape[-2:]
    yt, gt = turned(y), turned(g)
    result = e.neg(chain(yt, g, yt))
    outside = e.sub(identity(m, a), matmul(a, y))
    inside = e.sub(identity(n, a), matmul(y, a))
    result = e.add(result, chain(outside, gt, y, yt))
    return e.add(result, chain(yt, y, gt, inside))


_pinv = Op(
    "pinv",
    "primitive",
    (_pinv_vjp,),
    samples=ANY[:-1],
    reference=np.linalg.pinv,
    dtypes="f",
    torch="linalg.pinv",
)


def pinv(a: Any, cutoff: Callable[[Any], Any], hermitian: bool = False) -> Any:
    """The pseudo-inverse; ``cutoff(largest singular value)`` (``[*batch, 1]``) gives what counts as zero."""
    with no_grad():
        if hermitian:
            values, v = eigh(a, upper=False)
            u, size, vh = v, e.abs(values), turned(v)
        else:
            u, values, vh = svd(a, full=False)
            size = values
        if size._array.shape[-1]:
            keep = e.gt(size, cutoff(amax(size, -1, True)))
            inverse = e.where(keep, e.reciprocal(e.where(keep, values, 1.0)), 0.0)
        else:
            inverse = size
        out = matmul(scale_columns(turned(vh), inverse), turned(u))
    edge = edge_of(a) if mode.enabled else None
    if edge is not None:
        record(_pinv, out, (a,), (edge,), {})
    return out
