"""Norms, and distances between vectors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from gpugrad import dtypes, layout
from gpugrad.ops import elementwise as e
from gpugrad.ops import table
from gpugrad.ops.creation import cast, rounded_once, zeros_like
from gpugrad.ops.indexing import index_select
from gpugrad.ops.linear import matmul
from gpugrad.ops.movement import expand, transpose, unsqueeze
from gpugrad.ops.reductions import amax, amin, keep_dims, require_floating, restore_dims, wide_dtype
from gpugrad.ops.reductions import sum as sum_
from gpugrad.ops.table import Sample as S
from gpugrad.ops.table import composite, describe, primitive

# -- norms -----------------------------------------------------------------------


def _power_norm_vjp(g: Any, a: Any, y: Any, p: float, dim: tuple[int, ...], keepdim: bool) -> Any:
    """g sign(a) (|a| / y)**(p-1), and 0 where a is 0 (for p < 2) or all are: a ratio of at most 1 for
    p > 0, so that nothing overflows, and no power of 0 whose own derivative would be infinite."""
    shape = a._array.shape
    if p == 0:
        return zeros_like(a)
    y, g = restore_dims(y, shape, dim, keepdim), restore_dims(g, shape, dim, keepdim)
    if p == 2:
        at_zero = e.eq(y, 0)
        return e.mul(a, e.where(at_zero, 0.0, e.div(g, e.where(at_zero, 1.0, y))))
    none = e.logical_or(e.eq(a, 0), e.eq(y, 0)) if p < 2 else e.eq(y, 0)
    ratio = e.div(e.where(none, 1.0, e.abs(a)), e.where(e.eq(y, 0), 1.0, y))
    return e.where(none, 0.0, e.mul(g, e.mul(e.sign(a), e.pow(ratio, p - 1.0))))


@primitive("power_norm", (_power_norm_vjp,), dtypes="f", widens=True)
def _power_norm(backend: Any, a: Any, p: float, dim: tuple[int, ...], keepdim: bool) -> Any:
    """(sum |a|**p) ** (1/p), for p = 0 how many are not 0; half types are added up in float32."""
    wide = wide_dtype(a.dtype)
    if p == 0:
        powers = backend.map(e.ne.kernel, (a, 0), wide, wide)
    elif p == 2:
        powers = backend.map(e.mul.kernel, (a, a), wide, wide)
    else:
        powers = backend.map(_POW, (backend.map(e.abs.kernel, (a,), wide, wide), float(p)), wide, wide)
    total = backend.reduce("sum", powers, dim, wide)
    if p == 2:
        value = backend.map(e.sqrt.kernel, (total,), wide, a.dtype)
    elif p == 0:
        value = backend.copy(total, a.dtype)
    else:
        value = backend.map(_POW, (total, 1.0 / p), wide, a.dtype)
    return keep_dims(backend, value, a.shape, dim, keepdim)


_POW = e._pow.kernel


def vector_norm(x: Any, p: float, axes: tuple[int, ...], keepdim: bool) -> Any:
    """The ``p``-norm of the floating-point ``x`` over ``axes`` (normalised)."""
    if not axes and p != 0:
        return e.abs(x)
    if math.isinf(p):
        return (amax if p > 0 else amin)(e.abs(x), axes, keepdim)
    if p == 1:
        return sum_(e.abs(x), axes, keepdim)
    return _power_norm(x, p=float(p), dim=axes, keepdim=keepdim)


def _norm_reference(a: Any, p: Any = 2, dim: Any = None, keepdim: bool = False) -> Any:
    axes = tuple(range(a.ndim)) if dim is None else dim
    size = np.abs(a)
    if p == math.inf:
        return np.max(size, axis=axes, keepdims=keepdim)
    if p == -math.inf:
        return np.min(size, axis=axes, keepdims=keepdim)
    if p == 0:
        return np.sum(size != 0, axis=axes, keepdims=keepdim).astype(a.dtype)
    return np.sum(size**p, axis=axes, keepdims=keepdim) ** (1 / p)


_NORMS = (
    S(((3, 4),)),
    S(((3, 4),), {"p": 1, "dim": 1}),
    S(((3, 4),), {"p": 3, "dim": 0, "keepdim": True}),
    S(((3, 4),), {"p": math.inf, "dim": 1}),
    S(((3, 4),), {"p": -math.inf, "dim": 1}),
    S(((2, 3, 4),), {"p": 1.5, "dim": (0, 2)}),
    S(((3, 4),), {"p": -1, "dim": 1}),
    S(((),), {"p": 3}),
    S(((0, 3),), {"dim": 0}),
)


@composite(reference=_norm_reference, samples=_NORMS, dtypes="f", domain=(0.2, 2.0))
def norm(input: Any, p: Any = "fro", dim: Any = None, keepdim: bool = False, out: Any = None, dtype: Any = None) -> Any:
    """The vector ``p``-norm over ``dim`` or all elements: (sum |x|**p)**(1/p); p = inf, -inf, 0 and
    "fro" (2) as usual; "nuc", the sum of the singular values, over two dimensions. The gradient at 0
    is 0. ``dtype``: converted to before. Raises RuntimeError for integers, an unknown ``p``, and for p =
    inf or below 0 of no elements."""
    if out is not None:
        raise TypeError("norm: out= is handled above this function")
    require_floating(input, "norm")
    if dtype is not None:
        input = cast(input, dtypes.as_dtype(dtype))
    if p == "nuc":
        return _nuclear(input, dim, keepdim)
    if p in ("fro", None):
        p = 2
    if isinstance(p, str):
        raise RuntimeError(f"norm: p must be a number, inf, 'fro' or 'nuc', not {p!r}")
    axes = layout.normalize_axes(dim, input._array.ndim, "norm")
    if (p < 0 or p == math.inf) and 0 in [input._array.shape[i] for i in axes]:
        raise RuntimeError(f"norm: the {p}-norm of no elements is undefined, the shape is {tuple(input.shape)}")
    return vector_norm(input, p, axes, keepdim)


def norm_except_dim(v: Any, pow: int = 2, dim: int = 0) -> Any:
    """The ``pow``-norm of each slice of ``v`` along ``dim``, the other dimensions kept with size 1; of all
    elements (0-d) for ``dim=-1``."""
    require_floating(v, "norm_except_dim")
    if dim == -1:
        return norm(v, pow)
    d = layout.normalize_axis(dim, v._array.ndim, "norm_except_dim")
    return vector_norm(v, pow, tuple(i for i in range(v._array.ndim) if i != d), True)


def _nuclear(x: Any, dim: Any, keepdim: bool) -> Any:
    from importlib import import_module

    axes = tuple(range(x._array.ndim)) if dim is None else dim
    if not isinstance(axes, Sequence) or len(axes) != 2:
        raise RuntimeError(f"norm: p='nuc' is for two dimensions, got dim={dim} for shape {tuple(x.shape)}")
    return import_module("gpugrad.linalg").matrix_norm(x, "nuc", tuple(axes), keepdim)


@composite(
    samples=(S(((3, 4), (3, 4))), S(((3, 4), (4,)), {"p": 3}), S(((3,), (3,)), {"p": math.inf}), S(((), ()))),
    reference=lambda a, b, p=2: _norm_reference(a - b, p),
    dtypes="f",
)
def dist(input: Any, other: Any, p: float = 2) -> Any:
    """The ``p``-norm of ``input - other`` (broadcast); 0-d."""
    return _norm_of_difference(input, other, p)


@rounded_once
def _norm_of_difference(x: Any, y: Any, p: float, eps: float = 0.0, dim: Any = None, keepdim: bool = False) -> Any:
    gap = e.sub(x, y)
    return norm(e.add(gap, eps) if eps else gap, p, dim, keepdim)


@composite(
    samples=(S(((3, 4),), {"p": 2, "dim": 0, "maxnorm": 1.0}), S(((2, 3, 4),), {"p": 1, "dim": -1, "maxnorm": 5.0})),
    reference=lambda a, p, dim, maxnorm: _renorm_reference(a, p, dim, maxnorm),
    dtypes="f",
)
def renorm(input: Any, p: float, dim: int, maxnorm: float) -> Any:
    """``input`` with each slice along ``dim`` whose ``p``-norm is above ``maxnorm`` scaled down to it.
    Raises RuntimeError for p <= 0, a negative ``maxnorm`` and fewer than two dimensions."""
    require_floating(input, "renorm")
    ndim = input._array.ndim
    if p <= 0 or maxnorm < 0 or ndim < 2:
        raise RuntimeError(
            f"renorm: expected p > 0, maxnorm >= 0 and at least two dimensions, got p={p}, maxnorm={maxnorm} and "
            f"{describe(input)}"
        )
    d = layout.normalize_axis(dim, ndim, "renorm")
    return _renorm(input, p, tuple(i for i in range(ndim) if i != d), maxnorm)


@rounded_once
def _renorm(input: Any, p: float, axes: tuple[int, ...], maxnorm: float) -> Any:
    size = vector_norm(input, p, axes, True)
    scale = e.where(e.gt(size, maxnorm), e.div(maxnorm, e.add(size, 1e-7)), 1.0)
    return e.mul(input, scale)


def _renorm_reference(a: Any, p: float, dim: int, maxnorm: float) -> Any:
    axes = tuple(i for i in range(a.ndim) if i != dim % a.ndim)
    size = _norm_reference(a, p, axes, True)
    return a * np.where(size > maxnorm, maxnorm / (size + 1e-7), 1.0)


# -- all pairs --------------------------------------------------------------------


def _pair_grad(g: Any, mine: Any, others: Any, y: Any) -> Any:
    """For each of ``mine`` the sum over the others of g (mine - other) / distance; 0 at distance 0."""
    same = e.eq(y, 0)
    pull = e.where(same, 0.0, e.div(g, e.where(same, 1.0, y)))
    return e.sub(e.mul(mine, sum_(pull, -1, keepdim=True)), matmul(pull, others))


@primitive(
    "euclidean_pairs",
    (
        lambda g, a, b, y: _pair_grad(g, a, b, y),
        lambda g, a, b, y: _pair_grad(transpose(g, -1, -2), b, a, transpose(y, -1, -2)),
    ),
    dtypes="f",
    widens=True,
)
def _euclidean_pairs(backend: Any, a: Any, b: Any, by_product: bool) -> Any:
    """Distances ``[*batch, n, m]`` of the rows of ``[*batch, n, k]`` and ``[*batch, m, k]``; ``by_product``:
    from |a|^2 + |b|^2 - 2ab, which needs no array of n m k differences but loses digits of small ones."""
    wide = wide_dtype(a.dtype)
    last = len(a.shape) - 1
    if not by_product:
        left = backend._view(a, (*a.shape[:-1], 1, a.shape[-1]))
        right = backend._view(b, (*b.shape[:-2], 1, *b.shape[-2:]))
        gap = backend.map(e.sub.kernel, (left, right), wide, wide)
        total = backend.reduce("sum", backend.map(e.mul.kernel, (gap, gap), wide, wide), (last + 1,), wide)
        return backend.map(e.sqrt.kernel, (total,), wide, a.dtype)
    a, b, kind = backend.copy(a, wide), backend.copy(b, wide), a.dtype
    rows = backend.reduce("sum", backend.map(e.mul.kernel, (a, a), wide, wide), (last,), wide)
    columns = backend.reduce("sum", backend.map(e.mul.kernel, (b, b), wide, wide), (last,), wide)
    order = (*range(last - 1), last, last - 1)
    product = backend.map(e.mul.kernel, (backend.matmul(a, b.transpose(order)), 2.0), wide, wide)
    squares = backend.map(
        e.add.kernel,
        (backend._view(rows, (*rows.shape, 1)), backend._view(columns, (*columns.shape[:-1], 1, columns.shape[-1]))),
        wide,
        wide,
    )
    squares = backend.map(e.sub.kernel, (squares, product), wide, wide)
    squares = backend.map(e.maximum.kernel, (squares, 0.0), wide, wide)
    return backend.map(e.sqrt.kernel, (squares,), wide, kind)


_MODES = ("use_mm_for_euclid_dist_if_necessary", "use_mm_for_euclid_dist", "donot_use_mm_for_euclid_dist")


def _cdist_reference(a: Any, b: Any, p: float = 2.0, compute_mode: Any = None) -> Any:
    return _norm_reference(a[..., :, None, :] - b[..., None, :, :], p, -1)


@composite(
    samples=(
        S(((3, 4), (5, 4))),
        S(((2, 3, 4), (5, 4)), {"p": 1.0}),
        S(((2, 1, 3, 2), (4, 2, 2)), {"p": 3.0}),
        S(((3, 4), (2, 4)), {"p": math.inf}),
        S(((3, 4), (2, 4)), {"p": 0.0}),
        S(((3, 4), (5, 4)), {"compute_mode": "use_mm_for_euclid_dist"}),
        S(((0, 4), (5, 4))),
    ),
    reference=_cdist_reference,
    dtypes="f",
)
def cdist(x1: Any, x2: Any, p: float = 2.0, compute_mode: Any = None) -> Any:
    """``p``-norm distances ``[*batch, n, m]`` of each row of ``x1`` ``[*batch, n, k]`` to each of ``x2``
    ``[*batch, m, k]``; batches broadcast. ``compute_mode`` says whether 2-norms come from a matrix product:
    ``use_mm_for_euclid_dist_if_necessary`` (with more than 25 rows, the default),
    ``use_mm_for_euclid_dist``, ``donot_use_mm_for_euclid_dist``. The gradient at distance 0 is 0. Raises
    RuntimeError for integers, p < 0 and shapes that do not fit, ValueError for an unknown mode."""
    for x in (x1, x2):
        require_floating(x, "cdist")
        if x._array.ndim < 2:
            raise RuntimeError(f"cdist: expected two dimensions or more, got {describe(x1, x2)}")
    if p < 0:
        raise RuntimeError(f"cdist: p must not be negative, got {p}")
    if x1.dtype is not x2.dtype or x1._array.shape[-1] != x2._array.shape[-1]:
        raise RuntimeError(f"cdist: rows must be of one dtype and one length, got {describe(x1, x2)}")
    mode = _MODES[0] if compute_mode is None else compute_mode
    if mode not in _MODES:
        raise ValueError(f"cdist: compute_mode must be one of {', '.join(_MODES)}, not {compute_mode!r}")
    table.same_device("cdist", (x1, x2))
    try:
        batch = layout.broadcast_shapes(x1._array.shape[:-2], x2._array.shape[:-2])
    except ValueError:
        raise RuntimeError(f"cdist: the batch dimensions do not broadcast: {describe(x1, x2)}") from None
    x1, x2 = expand(x1, (*batch, *x1._array.shape[-2:])), expand(x2, (*batch, *x2._array.shape[-2:]))
    n, m, k = x1._array.shape[-2], x2._array.shape[-2], x1._array.shape[-1]
    if not k or not n or not m:
        return sum_(e.sub(unsqueeze(x1, -2), unsqueeze(x2, -3)), -1)
    if p == 2:
        return _euclidean_pairs(x1, x2, by_product=mode == _MODES[1] or (mode == _MODES[0] and (n > 25 or m > 25)))
    return _gap_norm(unsqueeze(x1, -2), unsqueeze(x2, -3), p)


@rounded_once
def _gap_norm(x: Any, y: Any, p: float) -> Any:
    gap = e.sub(x, y)
    return vector_norm(gap, p, (gap._array.ndim - 1,), False)


@composite(
    samples=(S(((4, 3),)), S(((4, 3),), {"p": 1.0}), S(((3, 2),), {"p": math.inf}), S(((1, 3),))),
    reference=lambda a, p=2.0: _cdist_reference(a, a, p)[np.triu_indices(len(a), 1)],
    torch="pdist",
    dtypes="f",
)
def pdist(input: Any, p: float = 2.0) -> Any:
    """``p``-norm distances of all pairs of rows of ``[n, k]``, as a 1-d tensor: (0, 1), (0, 2), ...,
    (1, 2), ... Raises RuntimeError unless 2-d and for p < 0."""
    require_floating(input, "pdist")
    if input._array.ndim != 2 or p < 0:
        raise RuntimeError(f"pdist: expected a 2-d tensor and p >= 0, got p={p} and {describe(input)}")
    first, second = np.triu_indices(input._array.shape[0], 1)
    place = [table.wrap(input._backend.from_host(i.astype(np.int64)), input._backend) for i in (first, second)]
    return _row_distances(input, *place, p)


@rounded_once
def _row_distances(x: Any, first: Any, second: Any, p: float) -> Any:
    gap = e.sub(index_select(x, 0, first), index_select(x, 0, second))
    return vector_norm(gap, p, (1,), False) if gap._array.size else sum_(gap, 1)


# -- one by one -------------------------------------------------------------------


def _along_both(op: str, x1: Any, x2: Any) -> tuple[Any, Any]:
    shape = layout.broadcast_shapes(x1._array.shape, x2._array.shape)
    return expand(x1, shape), expand(x2, shape)


def _cosine_reference(a: Any, b: Any, dim: int = 1, eps: float = 1e-8) -> Any:
    def size(x: Any) -> Any:
        return np.maximum(np.sqrt(np.sum(x * x, dim, keepdims=True)), eps)

    return np.sum(a / size(a) * (b / size(b)), dim)


@composite(
    samples=(S(((3, 4), (3, 4))), S(((2, 3, 4), (2, 3, 4)), {"dim": -1})),
    reference=_cosine_reference,
    dtypes="f",
)
def cosine_similarity(x1: Any, x2: Any, dim: int = 1, eps: float = 1e-8) -> Any:
    """Cosine of the angle between ``x1`` and ``x2`` along ``dim`` (they broadcast); a length below ``eps``
    counts as ``eps``. Raises RuntimeError for integers and shapes that do not broadcast."""
    kind = dtypes.promote_types(x1.dtype, x2.dtype)
    if not kind.is_floating_point:
        raise RuntimeError(f"cosine_similarity: expected floating-point tensors, got {describe(x1, x2)}")
    try:
        x1, x2 = _along_both("cosine_similarity", cast(x1, kind), cast(x2, kind))
    except ValueError:
        raise RuntimeError(f"cosine_similarity: the shapes do not broadcast: {describe(x1, x2)}") from None
    d = layout.normalize_axis(dim, x1._array.ndim, "cosine_similarity")
    return _cosine(x1, x2, d, eps)


@rounded_once
def _cosine(x1: Any, x2: Any, d: int, eps: float) -> Any:
    parts = [e.div(x, e.clamp_min(norm(x, 2, d, True), eps)) for x in (x1, x2)]
    return sum_(e.mul(*parts), d)


@composite(
    samples=(S(((3, 4), (3, 4))), S(((3, 4), (4,)), {"p": 1.0, "keepdim": True})),
    reference=lambda a, b, p=2.0, eps=1e-6, keepdim=False: _norm_reference(a - b + eps, p, -1, keepdim),
    dtypes="f",
)
def pairwise_distance(x1: Any, x2: Any, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False) -> Any:
    """``p``-norm of ``x1 - x2 + eps`` over the last dimension; ``x1`` and ``x2`` broadcast."""
    return _norm_of_difference(x1, x2, p, eps, -1, keepdim)
