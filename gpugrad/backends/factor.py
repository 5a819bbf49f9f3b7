"""Factorizations of batched matrices on the host, by NumPy (LAPACK) and, where NumPy has none, by our own loops.

:data:`ROUTINES` is the specification of ``Backend.factorize``: what each kind takes and returns. Matrices are the last
two dimensions, dimensions before them a batch, which all arrays of a call share. Arrays are float32 or float64 and may
have any strides. ``info`` is int32 over the batch: 0, or the 1-based position of the pivot that was not as it must be
(the other matrices of the batch are right all the same).
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from gpugrad.backends.blas import numpy_blas
from gpugrad.errors import HostTripWarning, LinAlgError

Arrays = tuple[np.ndarray, ...]
_BLOCK = 32  # columns that are factorized one by one before the rest is updated by a matrix product


def compute(kind: str, arrays: Arrays, **params: Any) -> Arrays:
    """Run the routine ``kind``, with floating-point warnings off and BLAS on one thread, as its bits depend on how many
    there are. Raises LinAlgError where an iteration fails."""
    with np.errstate(all="ignore"), numpy_blas():
        try:
            results = ROUTINES[kind](*arrays, **params)
        except np.linalg.LinAlgError as error:
            raise LinAlgError(f"{error}; the input may hold NaN or infinity") from None
    return tuple(np.asarray(r, order="C") for r in results)


_announced: set[tuple[str, str]] = set()


def announce(device: str, kind: str) -> None:
    """Warn, the first time, that ``device`` leaves ``kind`` to the host; the warning points at the user's line."""
    if (device, kind) in _announced:
        return
    _announced.add((device, kind))
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == "gpugrad":
        level, frame = level + 1, frame.f_back
    warnings.warn(
        f"{kind}: device {device} has no routine for this factorization, so NumPy computes it on the host and the data "
        "goes there and back (said once per routine; silence it with "
        'warnings.filterwarnings("ignore", category=gpugrad.errors.HostTripWarning))',
        HostTripWarning,
        stacklevel=level,
    )


def _no_info(a: np.ndarray) -> np.ndarray:
    return np.zeros(a.shape[:-2], np.int32)


# -- LU and what rests on it ---------------------------------------------------------------------


def _lu(a: np.ndarray, pivot: bool = True) -> Arrays:
    """``a[perm] = L U``, packed: U on and above the diagonal, L (whose diagonal is 1) below. Also the row exchanges
    as LAPACK tells them (int32, 1-based), the permutation they amount to (int64), and info."""
    *batch, m, n = a.shape
    work = np.array(a.reshape(-1, m, n) if a.size else np.zeros((int(np.prod(batch, dtype=int)), m, n), a.dtype))
    count, k = work.shape[0], min(m, n)
    rows = np.arange(count)
    pivots = np.empty((count, k), np.int32)
    permutation = np.tile(np.arange(m, dtype=np.int64), (count, 1))
    info = np.zeros(count, np.int32)
    for start in range(0, k, _BLOCK):
        end = min(start + _BLOCK, k)
        for j in range(start, end):
            size = np.abs(work[:, j:, j])
            best = j + np.argmax(size, axis=1) if pivot else np.full(count, j)
            pivots[:, j] = best + 1
            for array in (work, permutation):
                array[rows, j], array[rows, best] = array[rows, best], array[rows, j].copy()
            diagonal = work[:, j, j]
            zero = diagonal == 0
            info[zero & (info == 0)] = j + 1
            work[:, j + 1 :, j] /= np.where(zero, 1, diagonal)[:, None]
            work[:, j + 1 :, j + 1 : end] -= work[:, j + 1 :, j, None] * work[:, j, None, j + 1 : end]
        if end < n:
            upper = _substitute(work[:, start:end, start:end], work[:, start:end, end:], False, True)
            work[:, start:end, end:] = upper
            work[:, end:, end:] -= work[:, end:, start:end] @ upper
    shape = tuple(batch)
    return (
        work.reshape(a.shape),
        pivots.reshape(*shape, k),
        permutation.reshape(*shape, m),
        info.reshape(shape),
    )


def _substitute(a: np.ndarray, b: np.ndarray, upper: bool, unit: bool) -> np.ndarray:
    """``x`` with ``a x = b`` for triangular ``a``, by halves: solve one, take its share off the other, solve that."""
    n = a.shape[-1]
    if n > _BLOCK:
        h = n // 2
        first, last = (slice(h, n), slice(0, h)) if upper else (slice(0, h), slice(h, n))
        x = np.empty(np.broadcast_shapes(a.shape[:-2], b.shape[:-2]) + b.shape[-2:], b.dtype)
        x[..., first, :] = _substitute(a[..., first, first], b[..., first, :], upper, unit)
        rest = b[..., last, :] - a[..., last, first] @ x[..., first, :]
        x[..., last, :] = _substitute(a[..., last, last], rest, upper, unit)
        return x
    x = np.array(b)
    for i in reversed(range(n)) if upper else range(n):
        if not unit:
            x[..., i, :] /= a[..., i, i, None]
        others = slice(0, i) if upper else slice(i + 1, n)
        x[..., others, :] -= a[..., others, i, None] * x[..., None, i, :]
    return x


def _triangular(a: np.ndarray, b: np.ndarray, upper: bool, unit: bool) -> Arrays:
    return (_substitute(a, b, upper, unit),)


def _by_matrix(function: Callable[..., np.ndarray], a: np.ndarray, *others: np.ndarray) -> Arrays:
    """``function`` on each matrix alone, after it failed on the batch: NaN and info where it fails. LU finds where."""
    shape = others[0].shape if others else a.shape
    out = np.full(shape, np.nan, a.dtype)
    info = _no_info(a)
    for at in np.ndindex(*a.shape[:-2]):
        try:
            out[at] = function(a[at], *(o[at] for o in others))
        except np.linalg.LinAlgError:
            info[at] = int(_lu(a[at])[3]) or a.shape[-1]
    return out, info


def _inv(a: np.ndarray) -> Arrays:
    try:
        return np.linalg.inv(a), _no_info(a)
    except np.linalg.LinAlgError:
        return _by_matrix(np.linalg.inv, a)


def _solve(a: np.ndarray, b: np.ndarray) -> Arrays:
    try:
        return np.linalg.solve(a, b), _no_info(a)
    except np.linalg.LinAlgError:
        return _by_matrix(np.linalg.solve, a, b)


def _det(a: np.ndarray) -> Arrays:
    return (np.linalg.det(a),)


def _slogdet(a: np.ndarray) -> Arrays:
    sign, logabs = np.linalg.slogdet(a)
    return logabs, sign


# -- symmetric ---------------------------------------------------------------------------------------


def _cholesky(a: np.ndarray) -> Arrays:
    """The lower factor (of the lower triangle of ``a``), and info."""
    try:
        factor = np.linalg.cholesky(a)
        missing = np.isnan(np.diagonal(factor, 0, -2, -1))  # some LAPACKs pass NaN on, others stop at it
        info = np.where(missing.any(-1), missing.argmax(-1) + 1, 0) if factor.size else _no_info(a)
        return factor, np.asarray(info, np.int32)
    except np.linalg.LinAlgError:
        pass
    out = np.tril(a)
    info = _no_info(a)
    for at in np.ndindex(*a.shape[:-2]):
        try:
            out[at] = np.linalg.cholesky(a[at])
        except np.linalg.LinAlgError:
            info[at] = _cholesky_column(out[at])
    return out, info


def _cholesky_column(a: np.ndarray) -> int:
    """Factorize the lower triangle ``a`` in place up to the first pivot that is not positive; its 1-based position."""
    n = a.shape[0]
    for j in range(n):
        pivot = a[j, j] - a[j, :j] @ a[j, :j]
        if not pivot > 0:
            return j + 1
        a[j, j] = np.sqrt(pivot)
        a[j + 1 :, j] = (a[j + 1 :, j] - a[j + 1 :, :j] @ a[j, :j]) / a[j, j]
    return n


def _eigh(a: np.ndarray, upper: bool) -> Arrays:
    values, vectors = np.linalg.eigh(a, "U" if upper else "L")
    return values, vectors


def _eigvalsh(a: np.ndarray, upper: bool) -> Arrays:
    return (np.linalg.eigvalsh(a, "U" if upper else "L"),)


# -- symmetric and indefinite ----------------------------------------------------------------------

_BUNCH_KAUFMAN = (1 + np.sqrt(17)) / 8  # bounds the growth of elements best for the two kinds of pivots together


def _ldl(a: np.ndarray) -> Arrays:
    """``L D L^T`` of the lower triangle, D with blocks of 1 and 2, packed; LAPACK's exchanges (negative twice for a
    block of 2); info. J. Bunch, L. Kaufman, "Some stable methods for calculating inertia and solving symmetric linear
    systems" (1977)."""
    out = np.tril(a)
    pivots, info = np.empty(a.shape[:-1], np.int32), _no_info(a)
    for at in np.ndindex(*a.shape[:-2]):
        k = 0
        while k < a.shape[-1]:
            k += _ldl_step(out[at], pivots[at], k)
        zero = np.flatnonzero((np.diagonal(out[at]) == 0) & (pivots[at] > 0))
        info[at] = zero[0] + 1 if zero.size else 0
    return out, pivots, info


def _ldl_pivot(a: np.ndarray, k: int) -> tuple[int, int]:
    """Which row to exchange with, and the size of the block, 1 or 2, to eliminate next."""
    column = np.abs(a[k + 1 :, k])
    size = abs(a[k, k])
    largest = column.max(initial=0)
    if largest == 0 or size >= _BUNCH_KAUFMAN * largest:
        return k, 1
    row = k + 1 + int(column.argmax())
    in_row = max(np.abs(a[row, k:row]).max(), np.abs(a[row + 1 :, row]).max(initial=0))
    if size >= _BUNCH_KAUFMAN * largest * (largest / in_row):
        return k, 1
    return row, 1 if abs(a[row, row]) >= _BUNCH_KAUFMAN * in_row else 2


def _ldl_step(a: np.ndarray, pivots: np.ndarray, k: int) -> int:
    """Eliminate the block that starts at ``k`` of the lower triangle ``a``, in place; its size."""
    other, step = _ldl_pivot(a, k)
    last = k + step - 1
    if other != last:  # exchange both rows and columns, within the lower triangle
        a[other + 1 :, [last, other]] = a[other + 1 :, [other, last]]
        a[last + 1 : other, last], a[other, last + 1 : other] = (
            a[other, last + 1 : other].copy(),
            a[last + 1 : other, last].copy(),
        )
        a[last, last], a[other, other] = a[other, other], a[last, last]
        if step == 2:
            a[last, k], a[other, k] = a[other, k], a[last, k]
    pivots[k : last + 1] = other + 1 if step == 1 else -(other + 1)
    below = a[last + 1 :, k : last + 1].copy()
    if step == 1:
        if a[k, k] != 0:
            a[last + 1 :, k] /= a[k, k]
    else:
        block = np.array([[a[k, k], a[last, k]], [a[last, k], a[last, last]]])
        a[last + 1 :, k : last + 1] = np.linalg.solve(block, below.T).T
    a[last + 1 :, last + 1 :] -= np.tril(a[last + 1 :, k : last + 1] @ below.T)
    return step


def _ldl_solve(a: np.ndarray, pivots: np.ndarray, b: np.ndarray) -> Arrays:
    """``x`` with ``A x = b`` from what :func:`_ldl` gives: down through L and D, and up through L's transpose."""
    out = np.array(b)
    for at in np.ndindex(*a.shape[:-2]):
        x, low, swaps = out[at], a[at], pivots[at]
        starts, k = [], 0
        while k < low.shape[0]:
            step = 1 if swaps[k] > 0 else 2
            last = k + step - 1
            other = abs(int(swaps[k])) - 1
            x[[last, other]] = x[[other, last]]
            x[last + 1 :] -= low[last + 1 :, k : last + 1] @ x[k : last + 1]
            corner = low[last, k]
            block = low[k : k + 1, k : k + 1] if step == 1 else [[low[k, k], corner], [corner, low[last, last]]]
            x[k : last + 1] = np.linalg.solve(block, x[k : last + 1]) if step == 2 else x[k : last + 1] / low[k, k]
            starts.append((k, last, other))
            k += step
        for k, last, other in reversed(starts):
            x[k : last + 1] -= low[last + 1 :, k : last + 1].T @ x[last + 1 :]
            x[[last, other]] = x[[other, last]]
    return (out,)


# -- general -----------------------------------------------------------------------------------------


def _eig(a: np.ndarray) -> Arrays:
    """Real parts of eigenvalues and eigenvectors, and the largest imaginary part of an eigenvalue."""
    values, vectors = np.linalg.eig(a) if a.size else (np.empty(a.shape[:-1], a.dtype), np.empty(a.shape, a.dtype))
    largest = np.abs(values.imag).max(initial=0.0)
    return values.real.astype(a.dtype), vectors.real.astype(a.dtype), np.asarray(largest, a.dtype)


def _qr(a: np.ndarray, complete: bool) -> Arrays:
    *batch, m, n = a.shape
    if not a.size:  # nothing to reflect: Q is the identity
        k = m if complete else min(m, n)
        q = np.broadcast_to(np.eye(m, k, dtype=a.dtype), (*batch, m, k))
        return q, np.zeros((*batch, k, n), a.dtype)
    q, r = np.linalg.qr(a, "complete" if complete else "reduced")
    return q, r


def _geqrf(a: np.ndarray) -> Arrays:
    """R and, below it, the reflectors; and their factors ``tau``."""
    if not a.size:
        return a, np.zeros((*a.shape[:-2], min(a.shape[-2:])), a.dtype)
    h, tau = np.linalg.qr(a, "raw")
    return np.swapaxes(h, -1, -2), tau


def _svd(a: np.ndarray, full: bool) -> Arrays:
    u, s, vh = np.linalg.svd(a, full)
    return u, s, vh


def _svdvals(a: np.ndarray) -> Arrays:
    return (np.linalg.svd(a, compute_uv=False),)


#: kind -> routine(*arrays, **params) -> results
ROUTINES: dict[str, Callable[..., Arrays]] = {
    "cholesky": _cholesky,  # a -> lower factor, info
    "det": _det,  # a -> det
    "eig": _eig,  # a -> values, vectors, largest imaginary part (all real)
    "eigh": _eigh,  # a, upper -> values ascending, vectors
    "eigvalsh": _eigvalsh,  # a, upper -> values
    "geqrf": _geqrf,  # a -> packed reflectors and R, tau
    "inv": _inv,  # a -> inverse, info
    "ldl": _ldl,  # a -> packed L and D, exchanges, info
    "ldl_solve": _ldl_solve,  # packed, exchanges, b -> x
    "lu": _lu,  # a, pivot -> packed L and U, exchanges, permutation, info
    "qr": _qr,  # a, complete -> Q, R
    "slogdet": _slogdet,  # a -> log|det|, sign
    "solve": _solve,  # a, b -> x, info
    "svd": _svd,  # a, full -> U, S descending, Vh
    "svdvals": _svdvals,  # a -> S
    "triangular": _triangular,  # a, b, upper, unit -> x; the other triangle of a is not read
}
