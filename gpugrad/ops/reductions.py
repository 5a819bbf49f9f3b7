"""Reductions over dimensions, scans, and the statistics composed of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from gpugrad import dtypes, layout
from gpugrad.ops import elementwise as e
from gpugrad.ops import table
from gpugrad.ops.creation import cast, full_like, require_dtype
from gpugrad.ops.joining import flip, pad_constant
from gpugrad.ops.movement import expand, narrow, reshape, unsqueeze
from gpugrad.ops.table import Sample as S
from gpugrad.ops.table import composite, primitive, public

_DIMS = (
    S(((3, 4),)),
    S(((3, 4),), {"dim": 1}),
    S(((2, 3, 4),), {"dim": (0, 2), "keepdim": True}),
    S(((),)),
    S(((0, 3),), {"dim": 0}),
)
_DIM = (S(((3, 4),), {"dim": 1}), S(((2, 3, 4),), {"dim": 0, "keepdim": True}), S(((5,),), {"dim": -1}))


def _spread(g: Any, shape: Sequence[int], dim: Sequence[int], keepdim: bool) -> Any:
    """A reduced gradient back over the dimensions that were reduced."""
    if not keepdim:
        g = reshape(g, layout.reduced_shape(shape, dim, True))
    return expand(g, shape)


def _restore(x: Any, shape: Sequence[int], dim: Sequence[int], keepdim: bool) -> Any:
    """A reduced result as if keepdim had been asked."""
    return x if keepdim else reshape(x, layout.reduced_shape(shape, dim, True))


def _finish(backend: Any, value: Any, shape: Sequence[int], dim: Sequence[int], keepdim: bool) -> Any:
    return backend._view(value, layout.reduced_shape(shape, dim, True)) if keepdim else value


# -- sum, prod ---------------------------------------------------------------


@primitive(
    "sum",
    (lambda g, a_shape, dim, keepdim: _spread(g, a_shape, dim, keepdim),),
    samples=_DIMS,
    reference=lambda a, dim=None, keepdim=False: np.sum(a, axis=dim, keepdims=keepdim),
)
def _sum(backend: Any, a: Any, dim: tuple[int, ...], keepdim: bool, dtype: np.dtype) -> Any:
    return _finish(backend, backend.reduce("sum", a, dim, dtype), a.shape, dim, keepdim)


def _total_dtype(x: Any, dtype: Any) -> np.dtype:
    """Integers and bools add up in int64 unless told otherwise."""
    if dtype is not None:
        d = dtypes.as_dtype(dtype)
        require_dtype(x._backend, d, "sum")
        return d.numpy
    return x._array.dtype if x.dtype.is_floating_point else np.dtype(np.int64)


@public("sum")
def sum(x: Any, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Any:
    """Sum of all elements, or over the dimension(s) ``dim``. Integers and bools give int64;
    half types accumulate in float32; the order of additions is fixed by the shape alone."""
    axes = layout.normalize_axes(dim, x._array.ndim, "sum")
    return _sum(x, dim=axes, keepdim=keepdim, dtype=_total_dtype(x, dtype))


def sum_to(g: Any, shape: Sequence[int]) -> Any:
    """``g`` summed over the dimensions along which ``shape`` was broadcast to its shape."""
    have = g._array.shape
    if have == tuple(shape):
        return g
    lead = len(have) - len(shape)
    axes = tuple(i for i, n in enumerate(have) if i < lead or (shape[i - lead] == 1 and n != 1))
    if axes:
        g = _sum(g, dim=axes, keepdim=False, dtype=g._array.dtype)
    return reshape(g, tuple(shape))


def _prod_vjp(g: Any, a: Any, dim: tuple[int, ...], keepdim: bool) -> Any:
    """For each element the product of the others: forward times backward partial products,
    so zeros need no special case."""
    shape = a._array.shape
    order = [i for i in range(len(shape)) if i not in dim] + list(dim)
    from gpugrad.ops.movement import permute

    moved = permute(a, order)
    kept = tuple(n for i, n in enumerate(shape) if i not in dim)
    rows = reshape(moved, (*kept, -1)) if a._array.size else moved
    if not a._array.size:
        return full_like(a, 0)
    n = rows._array.shape[-1]
    before = narrow(cumprod(pad_constant(rows, (1, 0), 1.0), -1), -1, 0, n)
    after = flip(narrow(cumprod(pad_constant(flip(rows, -1), (1, 0), 1.0), -1), -1, 0, n), -1)
    others = reshape(e.mul(before, after), [shape[i] for i in order])
    inverse = [order.index(i) for i in range(len(order))]
    return e.mul(_spread(g, shape, dim, keepdim), permute(others, inverse))


@primitive(
    "prod",
    (_prod_vjp,),
    reference=lambda a, dim=None, keepdim=False: np.prod(a, axis=dim, keepdims=keepdim),
    samples=(
        S(((3, 4),)),
        S(((3, 4),), {"dim": 1}),
        S(((2, 3, 4),), {"dim": 0, "keepdim": True}),
        S(([[0.0, 2.0], [3.0, 0.0]],), {"dim": 1}),
        S(((0, 3),), {"dim": 0}),
    ),
)
def _prod(backend: Any, a: Any, dim: tuple[int, ...], keepdim: bool, dtype: np.dtype) -> Any:
    return _finish(backend, backend.reduce("prod", a, dim, dtype), a.shape, dim, keepdim)


@public("prod")
def prod(x: Any, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Any:
    """Product of all elements, or over ``dim``. Integers and bools give int64."""
    axes = layout.normalize_axes(dim, x._array.ndim, "prod")
    return _prod(x, dim=axes, keepdim=keepdim, dtype=_total_dtype(x, dtype))


# -- extremes ------------------------------------------------------------------


def _extreme_vjp(g: Any, a: Any, y: Any, dim: tuple[int, ...], keepdim: bool) -> Any:
    """The gradient shared evenly among the elements equal to the extreme."""
    shape = a._array.shape
    hit = cast(e.eq(a, _restore(y, shape, dim, keepdim)), g.dtype)
    share = e.div(hit, sum(hit, dim, keepdim=True) if dim else hit)
    return e.mul(_spread(g, shape, dim, keepdim), share)


_EXTREME = (S(((3, 4),)), S(((3, 4),), {"dim": (1,)}), S(((2, 3, 4),), {"dim": (0, 2), "keepdim": True}), S(((),)))


@primitive(
    "amax",
    (_extreme_vjp,),
    samples=_EXTREME,
    reference=lambda a, dim=None, keepdim=False: np.max(a, axis=dim, keepdims=keepdim),
)
def _amax(backend: Any, a: Any, dim: tuple[int, ...], keepdim: bool) -> Any:
    return _finish(backend, backend.reduce("max", a, dim, a.dtype), a.shape, dim, keepdim)


@primitive(
    "amin",
    (_extreme_vjp,),
    samples=_EXTREME,
    reference=lambda a, dim=None, keepdim=False: np.min(a, axis=dim, keepdims=keepdim),
)
def _amin(backend: Any, a: Any, dim: tuple[int, ...], keepdim: bool) -> Any:
    return _finish(backend, backend.reduce("min", a, dim, a.dtype), a.shape, dim, keepdim)


def _need_elements(x: Any, axes: Sequence[int], op: str, whole: bool = False) -> None:
    if 0 in [x._array.shape[i] for i in axes]:
        kind = RuntimeError if whole else IndexError
        raise kind(
            f"{op}: no elements to choose from, shape {tuple(x.shape)} is empty along {tuple(axes)}; "
            "give a dim whose size is not zero"
        )


@public("amax")
def amax(x: Any, dim: Any = (), keepdim: bool = False) -> Any:
    """The largest elements over ``dim`` (all, if not given); NaN passes on. Equal ones share the
    gradient. Raises RuntimeError for no elements."""
    axes = layout.normalize_axes(dim, x._array.ndim, "amax")
    _need_elements(x, axes, "amax", dim in ((), None))
    return _amax(x, dim=axes, keepdim=keepdim)


@public("amin")
def amin(x: Any, dim: Any = (), keepdim: bool = False) -> Any:
    """The smallest elements over ``dim`` (all, if not given); as :func:`amax`."""
    axes = layout.normalize_axes(dim, x._array.ndim, "amin")
    _need_elements(x, axes, "amin", dim in ((), None))
    return _amin(x, dim=axes, keepdim=keepdim)


def aminmax(x: Any, *, dim: int | None = None, keepdim: bool = False) -> Any:
    """(min, max) of all elements or along ``dim``."""
    axes = () if dim is None else (dim,)
    return table.pair("aminmax", "min max", (amin(x, axes, keepdim), amax(x, axes, keepdim)))


@primitive(
    "argmax",
    reference=lambda a, dim=None, keepdim=False: np.argmax(a, axis=dim, keepdims=keepdim),
    samples=(S(((3, 4),)), *_DIM),
)
def _argmax(backend: Any, a: Any, dim: int) -> Any:
    return backend.arg_reduce("argmax", a, dim)


@primitive(
    "argmin",
    reference=lambda a, dim=None, keepdim=False: np.argmin(a, axis=dim, keepdims=keepdim),
    samples=(S(((3, 4),)), *_DIM),
)
def _argmin(backend: Any, a: Any, dim: int) -> Any:
    return backend.arg_reduce("argmin", a, dim)


def _arg(call: Any, name: str, x: Any, dim: int | None, keepdim: bool) -> Any:
    ndim = x._array.ndim
    if x._array.dtype == bool:
        raise TypeError(f"{name}: not defined for bool tensors; convert with .to(gpugrad.uint8)")
    if dim is None:
        flat = reshape(x, -1)
        _need_elements(flat, (0,), name)
        index = call(flat, dim=0)
        return reshape(index, (1,) * ndim) if keepdim else index
    d = layout.normalize_axis(dim, ndim, name)
    if not ndim:
        return full_like(x, 0, dtype=dtypes.int64)
    _need_elements(x, (d,), name)
    index = call(x, dim=d)
    return unsqueeze(index, d) if keepdim else index


@public("argmax")
def argmax(x: Any, dim: int | None = None, keepdim: bool = False) -> Any:
    """int64 position of the largest element along ``dim`` (without: in the flattened tensor); the
    first of equals, the first NaN if there is one."""
    return _arg(_argmax, "argmax", x, dim, keepdim)


@public("argmin")
def argmin(x: Any, dim: int | None = None, keepdim: bool = False) -> Any:
    """int64 position of the smallest element; as :func:`argmax`."""
    return _arg(_argmin, "argmin", x, dim, keepdim)


def _extreme_along(x: Any, dim: int, keepdim: bool, arg: Any, name: str) -> Any:
    from gpugrad.ops.indexing import gather

    d = layout.normalize_axis(dim, x._array.ndim, name)
    if not x._array.ndim:
        return table.pair(name, "values indices", (e.mul(x, 1), full_like(x, 0, dtype=dtypes.int64)))
    if x._array.dtype == bool:
        values, index = _extreme_along(cast(x, dtypes.uint8), dim, keepdim, arg, name)
        return table.pair(name, "values indices", (cast(values, dtypes.bool_), index))
    index = arg(x, d, True)
    values = gather(x, d, index)
    if not keepdim:
        shape = layout.reduced_shape(x._array.shape, (d,), False)
        values, index = reshape(values, shape), reshape(index, shape)
    return table.pair(name, "values indices", (values, index))


def max(x: Any, dim: Any = None, keepdim: bool = False) -> Any:
    """The largest element; with ``dim`` a pair (values, indices) along it; with a tensor as second
    argument :func:`maximum`."""
    if isinstance(dim, table.Tensor):
        return e.maximum(x, dim)
    return amax(x) if dim is None else _extreme_along(x, dim, keepdim, argmax, "max")


def min(x: Any, dim: Any = None, keepdim: bool = False) -> Any:
    """The smallest element; as :func:`max`."""
    if isinstance(dim, table.Tensor):
        return e.minimum(x, dim)
    return amin(x) if dim is None else _extreme_along(x, dim, keepdim, argmin, "min")


# -- truth -------------------------------------------------------------------------


@primitive("any", samples=_DIMS, reference=lambda a, dim=None, keepdim=False: np.any(a, axis=dim, keepdims=keepdim))
def _any(backend: Any, a: Any, dim: tuple[int, ...], keepdim: bool) -> Any:
    return _finish(backend, backend.reduce("any", a, dim, np.dtype(bool)), a.shape, dim, keepdim)


@primitive("all", samples=_DIMS, reference=lambda a, dim=None, keepdim=False: np.all(a, axis=dim, keepdims=keepdim))
def _all(backend: Any, a: Any, dim: tuple[int, ...], keepdim: bool) -> Any:
    return _finish(backend, backend.reduce("all", a, dim, np.dtype(bool)), a.shape, dim, keepdim)


@public("any")
def any(x: Any, dim: Any = None, keepdim: bool = False) -> Any:
    """Whether any element is non-zero, over ``dim`` or all; bool."""
    return _any(x, dim=layout.normalize_axes(dim, x._array.ndim, "any"), keepdim=keepdim)


@public("all")
def all(x: Any, dim: Any = None, keepdim: bool = False) -> Any:
    """Whether all elements are non-zero, over ``dim`` or all; bool."""
    return _all(x, dim=layout.normalize_axes(dim, x._array.ndim, "all"), keepdim=keepdim)


@composite(
    reference=lambda a, dim=None: np.count_nonzero(a, axis=dim),
    samples=(S(([[0, 1], [2, 0]],)), S(([[0, 1], [2, 0]],), {"dim": 1})),
    differentiable=False,
)
def count_nonzero(x: Any, dim: Any = None) -> Any:
    """How many elements are not zero; int64."""
    return sum(e.ne(x, 0), dim)


# -- scans -------------------------------------------------------------------------


@primitive(
    "cumsum",
    (lambda g, dim: flip(cumsum(flip(g, dim), dim), dim),),
    samples=_DIM + (S(((0, 3),), {"dim": 0}),),
    reference=lambda a, dim, keepdim=False: np.cumsum(a, axis=dim),
)
def _cumsum(backend: Any, a: Any, dim: int, dtype: np.dtype) -> Any:
    return backend.scan("sum", a, dim, dtype)


_SCANS = (S(((3, 4),), {"dim": 1}), S(((2, 3, 4),), {"dim": 0}), S(((0, 3),), {"dim": 0}), S(((5,),), {"dim": -1}))


@public("cumsum", samples=_SCANS)
def cumsum(x: Any, dim: int, *, dtype: Any = None) -> Any:
    """Running sums along ``dim``. Integers and bools give int64."""
    d = layout.normalize_axis(dim, x._array.ndim, "cumsum")
    if not x._array.ndim:
        return cast(e.add(x, 0), dtypes.from_numpy(_total_dtype(x, dtype)))
    return _cumsum(x, dim=d, dtype=_total_dtype(x, dtype))


def _cumprod_vjp(g: Any, a: Any, dim: int) -> Any:
    """Sum over the results j that follow element i of g_j times the product of the other
    factors. As a reverse linear recurrence where no factor is zero it would be a quotient;
    to be exact with zeros too it is computed from the lower triangle of partial products."""
    from gpugrad.ops.creation import triu
    from gpugrad.ops.movement import transpose

    rows = transpose(a, dim, -1)
    gs = transpose(g, dim, -1)
    n = rows._array.shape[-1]
    # others[i, j] = product of a_k for k <= j, k != i, defined for j >= i
    grid = expand(unsqueeze(rows, -2), (*rows._array.shape[:-1], n, n))
    from gpugrad.ops.creation import eye

    unit = eye(n, dtype=dtypes.bool_, device=a.device)
    others = cumprod(e.where(unit, full_like(grid, 1), grid), -1)
    return transpose(sum(triu(e.mul(others, unsqueeze(gs, -2))), -1), dim, -1)


@primitive(
    "cumprod",
    (_cumprod_vjp,),
    samples=_SCANS + (S(([0.0, 2.0, 0.0, 3.0],), {"dim": 0}),),
    reference=lambda a, dim: np.cumprod(a, axis=dim),
)
def _cumprod(backend: Any, a: Any, dim: int, dtype: np.dtype) -> Any:
    return backend.scan("prod", a, dim, dtype)


@public("cumprod")
def cumprod(x: Any, dim: int, *, dtype: Any = None) -> Any:
    """Running products along ``dim``. Integers and bools give int64."""
    d = layout.normalize_axis(dim, x._array.ndim, "cumprod")
    if not x._array.ndim:
        return cast(e.mul(x, 1), dtypes.from_numpy(_total_dtype(x, dtype)))
    return _cumprod(x, dim=d, dtype=_total_dtype(x, dtype))


# -- statistics -----------------------------------------------------------------------


def _count(x: Any, axes: Sequence[int]) -> int:
    return math.prod(x._array.shape[i] for i in axes)


def _floating(x: Any, op: str) -> None:
    if not x.dtype.is_floating_point:
        raise RuntimeError(f"{op}: expected a floating-point tensor, got {x.dtype.name}; convert it with .float()")


@composite(
    reference=lambda a, dim=None, keepdim=False: np.mean(a, axis=dim, keepdims=keepdim), samples=_DIMS[:4], dtypes="f"
)
def mean(x: Any, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Any:
    """Arithmetic mean over ``dim`` or all elements. Raises RuntimeError for integers."""
    if dtype is not None:
        x = cast(x, dtypes.as_dtype(dtype))
    _floating(x, "mean")
    axes = layout.normalize_axes(dim, x._array.ndim, "mean")
    n = _count(x, axes)
    return e.mul(sum(x, axes, keepdim) if axes else x, 1.0 / n if n else math.nan)


def _correction(unbiased: Any, correction: Any) -> float:
    if correction is not None:
        return float(correction)
    return 1.0 if unbiased is None or unbiased else 0.0


_VAR = (
    S(((3, 4),)),
    S(((3, 4),), {"dim": 1}),
    S(((2, 3, 4),), {"dim": (0, 2), "keepdim": True}),
    S(((3, 4),), {"dim": 1, "correction": 0}),
)


@composite(
    reference=lambda a, dim=None, correction=1, keepdim=False: np.var(a, axis=dim, ddof=correction, keepdims=keepdim),
    samples=_VAR,
    dtypes="f",
)
def var(x: Any, dim: Any = None, unbiased: bool | None = None, keepdim: bool = False, *, correction: Any = None) -> Any:
    """Variance over ``dim`` or all elements: squared deviations from the mean, summed and divided
    by n - ``correction`` (1 unless given; ``unbiased=False`` means 0)."""
    if isinstance(dim, bool):  # var(x, unbiased)
        dim, unbiased = None, dim
    _floating(x, "var")
    axes = layout.normalize_axes(dim, x._array.ndim, "var")
    centered = e.sub(x, mean(x, axes, keepdim=True) if axes else x)
    n = _count(x, axes) - _correction(unbiased, correction)
    total = sum(e.square(centered), axes, keepdim) if axes else e.square(centered)
    return e.div(total, n if n > 0 else 0.0)


@composite(
    reference=lambda a, dim=None, correction=1, keepdim=False: np.std(a, axis=dim, ddof=correction, keepdims=keepdim),
    samples=_VAR,
    dtypes="f",
)
def std(x: Any, dim: Any = None, unbiased: bool | None = None, keepdim: bool = False, *, correction: Any = None) -> Any:
    """Square root of :func:`var`."""
    return e.sqrt(var(x, dim, unbiased, keepdim, correction=correction))


def var_mean(
    x: Any, dim: Any = None, unbiased: bool | None = None, keepdim: bool = False, *, correction: Any = None
) -> Any:
    """(variance, mean)."""
    return var(x, dim, unbiased, keepdim, correction=correction), mean(x, dim, keepdim)


def std_mean(
    x: Any, dim: Any = None, unbiased: bool | None = None, keepdim: bool = False, *, correction: Any = None
) -> Any:
    """(standard deviation, mean)."""
    return std(x, dim, unbiased, keepdim, correction=correction), mean(x, dim, keepdim)


def _logsumexp_reference(a: Any, dim: Any, keepdim: bool = False) -> Any:
    top = np.max(a, axis=dim, keepdims=True)
    return np.log(np.sum(np.exp(a - top), axis=dim, keepdims=keepdim)) + (top if keepdim else np.squeeze(top, dim))


@composite(
    reference=_logsumexp_reference,
    samples=(S(((3, 4),), {"dim": 1}), S(((2, 3, 4),), {"dim": (0, 2), "keepdim": True})),
    dtypes="f",
)
def logsumexp(x: Any, dim: Any, keepdim: bool = False) -> Any:
    """log(sum(exp(x))) over ``dim``, without overflow."""
    axes = layout.normalize_axes(dim, x._array.ndim, "logsumexp")
    if not axes:
        return e.mul(x, 1)
    if _count(x, axes) == 0:
        return e.log(sum(e.exp(x), axes, keepdim))
    top = amax(x.detach(), axes, keepdim=True)
    top = e.where(e.isfinite(top), top, 0.0)  # all -inf: log(0) below; any inf: exp(inf) below
    total = e.add(e.log(sum(e.exp(e.sub(x, top)), axes, True)), top)
    return total if keepdim else reshape(total, layout.reduced_shape(x._array.shape, axes, False))


def _norm_reference(a: Any, p: Any = 2, dim: Any = None, keepdim: bool = False) -> Any:
    axes = tuple(range(a.ndim)) if dim is None else dim
    size = np.abs(a)
    if p == math.inf:
        return np.max(size, axis=axes, keepdims=keepdim)
    if p == 0:
        return np.sum(size != 0, axis=axes, keepdims=keepdim).astype(a.dtype)
    return np.sum(size**p, axis=axes, keepdims=keepdim) ** (1 / p)


_NORMS = (
    S(((3, 4),)),
    S(((3, 4),), {"p": 1, "dim": 1}),
    S(((3, 4),), {"p": 3, "dim": 0, "keepdim": True}),
    S(((3, 4),), {"p": math.inf, "dim": 1}),
)


@composite(reference=_norm_reference, samples=_NORMS, dtypes="f", domain=(0.2, 2.0))
def norm(x: Any, p: Any = 2, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Any:
    """The vector ``p``-norm over ``dim`` or all elements: (sum |x|**p)**(1/p); p = inf, -inf, 0 and
    "fro" (2) as usual. The gradient of the 2-norm at 0 is 0."""
    if dtype is not None:
        x = cast(x, dtypes.as_dtype(dtype))
    _floating(x, "norm")
    axes = layout.normalize_axes(dim, x._array.ndim, "norm")
    if p in ("fro", None):
        p = 2
    if isinstance(p, str):
        raise NotImplementedError(f"norm: p={p!r} is not supported; use a number, inf or 'fro'")
    if p == 2:
        return _norm2(x, dim=axes, keepdim=keepdim)
    size = e.abs(x)
    if p == math.inf:
        return amax(size, axes, keepdim)
    if p == -math.inf:
        return amin(size, axes, keepdim)
    if p == 0:
        return sum(cast(e.ne(x, 0), x.dtype), axes, keepdim)
    if p == 1:
        return sum(size, axes, keepdim)
    return e.pow(sum(e.pow(size, p), axes, keepdim), 1.0 / p)


def _norm2_vjp(g: Any, a: Any, y: Any, dim: Any, keepdim: bool) -> Any:
    shape = a._array.shape
    y, g = _restore(y, shape, dim, keepdim), _restore(g, shape, dim, keepdim)
    return e.mul(a, e.where(e.eq(y, 0), 0.0, e.div(g, y)))


@primitive("norm2", (_norm2_vjp,), torch="linalg.vector_norm", dtypes="f")
def _norm2(backend: Any, a: Any, dim: tuple[int, ...], keepdim: bool) -> Any:
    squares = backend.map(e.mul.kernel, (a, a), a.dtype, _wide(a.dtype))
    total = backend.reduce("sum", squares, dim, squares.dtype)
    return _finish(backend, backend.map(e.sqrt.kernel, (total,), total.dtype, a.dtype), a.shape, dim, keepdim)


def _wide(dtype: np.dtype) -> np.dtype:
    return np.dtype(np.float32) if dtype in dtypes.HALVES else dtype
