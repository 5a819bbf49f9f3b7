"""Reductions over dimensions: sums, products, extremes, truth. Statistics are in ``statistics.py``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from gpugrad import dtypes, layout
from gpugrad.errors import DTypeError
from gpugrad.ops import elementwise as e
from gpugrad.ops import table
from gpugrad.ops.creation import cast, full_like, require_dtype
from gpugrad.ops.joining import flip, pad_constant
from gpugrad.ops.movement import narrow, reshape, unsqueeze
from gpugrad.ops.table import Sample as S
from gpugrad.ops.table import composite, primitive, public, view

_INT64 = np.dtype(np.int64)
_DIMS = (
    S(((3, 4),)),
    S(((3, 4),), {"dim": 1}),
    S(((2, 3, 4),), {"dim": (0, 2), "keepdim": True}),
    S(((),)),
    S(((0, 3),), {"dim": 0}),
)
_DIM = (S(((3, 4),), {"dim": 1}), S(((2, 3, 4),), {"dim": 0, "keepdim": True}), S(((5,),), {"dim": -1}))


@view("spread", (lambda g, dim, keepdim: _sum(g, dim=dim, keepdim=keepdim, dtype=g._array.dtype),))
def _spread_view(
    array: Any, shape: Sequence[int], dim: Sequence[int], keepdim: bool
) -> tuple[Sequence[int], Sequence[int], int]:
    """A reduced array as a view of what it was reduced from: stride 0 along ``dim``."""
    strides = list(array.strides)
    if keepdim:
        return shape, [0 if i in dim else s for i, s in enumerate(strides)], 0
    kept = iter(strides)
    return shape, [0 if i in dim else next(kept) for i in range(len(shape))], 0


def _spread(g: Any, shape: Sequence[int], dim: Sequence[int], keepdim: bool) -> Any:
    """A reduced gradient back over the dimensions that were reduced."""
    return _spread_view(g, shape=shape, dim=dim, keepdim=keepdim)


def restore_dims(x: Any, shape: Sequence[int], dim: Sequence[int], keepdim: bool) -> Any:
    """A reduced result as if keepdim had been asked."""
    return x if keepdim else reshape(x, layout.reduced_shape(shape, dim, True))


def keep_dims(backend: Any, value: Any, shape: Sequence[int], dim: Sequence[int], keepdim: bool) -> Any:
    return backend._view(value, layout.reduced_shape(shape, dim, True)) if keepdim else value


# -- sum, prod ---------------------------------------------------------------


@primitive(
    "sum",
    (lambda g, a_shape, dim, keepdim: _spread(g, a_shape, dim, keepdim),),
    samples=_DIMS,
    reference=lambda a, dim=None, keepdim=False: np.sum(a, axis=dim, keepdims=keepdim),
    by_shape=True,
)
def _sum(backend: Any, a: Any, dim: tuple[int, ...], keepdim: bool, dtype: np.dtype) -> Any:
    return keep_dims(backend, backend.reduce("sum", a, dim, dtype), a.shape, dim, keepdim)


def wide_dtype(dtype: np.dtype) -> np.dtype:
    """In which dtype to add up elements of ``dtype``: half types in float32."""
    return np.dtype(np.float32) if dtype in dtypes.HALVES else dtype


def require_floating(x: Any, op: str) -> None:
    """Raises DTypeError unless ``x`` is a floating-point tensor."""
    if not table.as_tensor_arg(op, x).dtype.is_floating_point:
        raise DTypeError(f"{op}: expected a floating-point tensor, got {x.dtype.name}; convert it with .float()")


def total_dtype(x: Any, dtype: Any) -> np.dtype:
    """Integers and bools add up in int64 unless told otherwise."""
    if dtype is not None:
        d = dtypes.as_dtype(dtype)
        require_dtype(x._backend, d, "sum")
        return d.numpy
    own = x._array.dtype
    return own if own.kind == "f" or own in dtypes.HALVES else _INT64


@public("sum")
def sum(input: Any, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Any:
    """Sum of all elements, or over the dimension(s) ``dim``. Integers and bools give int64;
    half types accumulate in float32; the order of additions is fixed by the shape alone."""
    axes = layout.normalize_axes(dim, input._array.ndim, "sum")
    return _sum(input, dim=axes, keepdim=keepdim, dtype=total_dtype(input, dtype))


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
    from gpugrad.ops.movement import permute
    from gpugrad.ops.scans import cumprod

    order = [i for i in range(len(shape)) if i not in dim] + list(dim)
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
    widens=True,
)
def _prod(backend: Any, a: Any, dim: tuple[int, ...], keepdim: bool, dtype: np.dtype) -> Any:
    return keep_dims(backend, backend.reduce("prod", a, dim, dtype), a.shape, dim, keepdim)


@public("prod")
def prod(input: Any, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Any:
    """Product of all elements, or over ``dim``. Integers and bools give int64."""
    axes = layout.normalize_axes(dim, input._array.ndim, "prod")
    return _prod(input, dim=axes, keepdim=keepdim, dtype=total_dtype(input, dtype))


# -- extremes ------------------------------------------------------------------


def extreme_vjp(g: Any, a: Any, y: Any, dim: tuple[int, ...], keepdim: bool) -> Any:
    """The gradient shared evenly among the elements equal to the extreme."""
    shape = a._array.shape
    hit = cast(e.eq(a, restore_dims(y, shape, dim, keepdim)), g.dtype)
    share = e.div(hit, sum(hit, dim, keepdim=True) if dim else hit)
    return e.mul(_spread(g, shape, dim, keepdim), share)


_EXTREME = (S(((3, 4),)), S(((3, 4),), {"dim": (1,)}), S(((2, 3, 4),), {"dim": (0, 2), "keepdim": True}), S(((),)))


@primitive(
    "amax",
    (extreme_vjp,),
    samples=_EXTREME,
    reference=lambda a, dim=None, keepdim=False: np.max(a, axis=dim, keepdims=keepdim),
)
def _amax(backend: Any, a: Any, dim: tuple[int, ...], keepdim: bool) -> Any:
    return keep_dims(backend, backend.reduce("max", a, dim, a.dtype), a.shape, dim, keepdim)


@primitive(
    "amin",
    (extreme_vjp,),
    samples=_EXTREME,
    reference=lambda a, dim=None, keepdim=False: np.min(a, axis=dim, keepdims=keepdim),
)
def _amin(backend: Any, a: Any, dim: tuple[int, ...], keepdim: bool) -> Any:
    return keep_dims(backend, backend.reduce("min", a, dim, a.dtype), a.shape, dim, keepdim)


def need_elements(x: Any, axes: Sequence[int], op: str, whole: bool = False) -> None:
    if 0 in [x._array.shape[i] for i in axes]:
        kind = RuntimeError if whole else IndexError
        raise kind(
            f"{op}: no elements to choose from, shape {tuple(x.shape)} is empty along {tuple(axes)}; "
            "give a dim whose size is not zero"
        )


@public("amax")
def amax(input: Any, dim: Any = (), keepdim: bool = False) -> Any:
    """The largest elements over ``dim`` (all, if not given); NaN passes on. Equal ones share the
    gradient. Raises RuntimeError for no elements."""
    axes = layout.normalize_axes(dim, input._array.ndim, "amax")
    need_elements(input, axes, "amax", dim in ((), None))
    return _amax(input, dim=axes, keepdim=keepdim)


@public("amin")
def amin(input: Any, dim: Any = (), keepdim: bool = False) -> Any:
    """The smallest elements over ``dim`` (all, if not given); as :func:`amax`."""
    axes = layout.normalize_axes(dim, input._array.ndim, "amin")
    need_elements(input, axes, "amin", dim in ((), None))
    return _amin(input, dim=axes, keepdim=keepdim)


def aminmax(input: Any, *, dim: int | None = None, keepdim: bool = False) -> Any:
    """(min, max) of all elements or along ``dim``. Raises RuntimeError for no elements, IndexError for
    none along ``dim``."""
    axes: Any = () if dim is None else dim
    return table.pair("aminmax", "min max", (amin(input, axes, keepdim), amax(input, axes, keepdim)))


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
        raise DTypeError(f"{name}: not defined for bool tensors; convert with .to(gpugrad.uint8)")
    if dim is None:
        flat = reshape(x, -1)
        need_elements(flat, (0,), name)
        index = call(flat, dim=0)
        return reshape(index, (1,) * ndim) if keepdim else index
    d = layout.normalize_axis(dim, ndim, name)
    if not ndim:
        return full_like(x, 0, dtype=dtypes.int64)
    need_elements(x, (d,), name)
    index = call(x, dim=d)
    return unsqueeze(index, d) if keepdim else index


@public("argmax")
def argmax(input: Any, dim: int | None = None, keepdim: bool = False) -> Any:
    """int64 position of the largest element along ``dim`` (without: in the flattened tensor); the
    first of equals, the first NaN if there is one."""
    return _arg(_argmax, "argmax", input, dim, keepdim)


@public("argmin")
def argmin(input: Any, dim: int | None = None, keepdim: bool = False) -> Any:
    """int64 position of the smallest element; as :func:`argmax`."""
    return _arg(_argmin, "argmin", input, dim, keepdim)


def _extreme_along(x: Any, dim: int, keepdim: bool, arg: Any, name: str) -> Any:
    from gpugrad.ops.indexing import gather

    d = layout.normalize_axis(dim, x._array.ndim, name)
    if not x._array.ndim:
        return table.pair(name, "values indices", (x.clone(), full_like(x, 0, dtype=dtypes.int64)))
    if x._array.dtype == bool:
        values, index = _extreme_along(cast(x, dtypes.uint8), dim, keepdim, arg, name)
        return table.pair(name, "values indices", (cast(values, dtypes.bool_), index))
    index = arg(x, d, True)
    values = gather(x, d, index)
    if not keepdim:
        shape = layout.reduced_shape(x._array.shape, (d,), False)
        values, index = reshape(values, shape), reshape(index, shape)
    return table.pair(name, "values indices", (values, index))


def _overloads(name: str, input: Any, dim: Any, keepdim: bool, other: Any, ops: tuple[Any, Any, Any]) -> Any:
    whole, position, two = ops
    if isinstance(dim, table.Tensor):
        dim, other = None, dim
    if other is not None:
        if dim is not None or keepdim:
            raise TypeError(f"{name}: give a second tensor, or dim and keepdim, not both")
        return two(input, table.as_tensor_arg(name, other))
    if dim is None:
        if keepdim:
            raise TypeError(f"{name}: keepdim is for a dim; use a{name}(input, keepdim=True) to reduce them all")
        return whole(input)
    return _extreme_along(input, dim, keepdim, position, name)


def max(input: Any, dim: Any = None, keepdim: bool = False, *, other: Any = None) -> Any:
    """The largest element, of which equal ones share the gradient; with ``dim`` a pair (values, indices)
    along it; with a tensor as second argument, or as ``other``, :func:`maximum`. Raises RuntimeError
    for no elements, IndexError for none along ``dim``."""
    return _overloads("max", input, dim, keepdim, other, (amax, argmax, e.maximum))


def min(input: Any, dim: Any = None, keepdim: bool = False, *, other: Any = None) -> Any:
    """The smallest element; as :func:`max`."""
    return _overloads("min", input, dim, keepdim, other, (amin, argmin, e.minimum))


# -- truth -------------------------------------------------------------------------


@primitive("any", samples=_DIMS, reference=lambda a, dim=None, keepdim=False: np.any(a, axis=dim, keepdims=keepdim))
def _any(backend: Any, a: Any, dim: tuple[int, ...], keepdim: bool) -> Any:
    return keep_dims(backend, backend.reduce("any", a, dim, np.dtype(bool)), a.shape, dim, keepdim)


@primitive("all", samples=_DIMS, reference=lambda a, dim=None, keepdim=False: np.all(a, axis=dim, keepdims=keepdim))
def _all(backend: Any, a: Any, dim: tuple[int, ...], keepdim: bool) -> Any:
    return keep_dims(backend, backend.reduce("all", a, dim, np.dtype(bool)), a.shape, dim, keepdim)


def _truth(op: str, call: Any, input: Any, dim: Any, keepdim: bool) -> Any:
    table.as_tensor_arg(op, input)
    if isinstance(dim, (tuple, list)) and not dim:
        value = e.ne(input, 0)
    else:
        value = call(input, dim=layout.normalize_axes(dim, input._array.ndim, op), keepdim=keepdim)
    return cast(value, dtypes.uint8) if input.dtype is dtypes.uint8 else value


@public("any")
def any(input: Any, dim: Any = None, keepdim: bool = False) -> Any:
    """Whether any element is non-zero, over ``dim`` or all; bool, but uint8 for uint8. An empty tuple
    reduces nothing."""
    return _truth("any", _any, input, dim, keepdim)


@public("all")
def all(input: Any, dim: Any = None, keepdim: bool = False) -> Any:
    """Whether all elements are non-zero, over ``dim`` or all; bool, but uint8 for uint8. An empty tuple
    reduces nothing."""
    return _truth("all", _all, input, dim, keepdim)


@composite(
    reference=lambda a, dim=None: np.count_nonzero(a, axis=dim),
    samples=(S(([[0, 1], [2, 0]],)), S(([[0, 1], [2, 0]],), {"dim": 1})),
    differentiable=False,
)
def count_nonzero(input: Any, dim: Any = None) -> Any:
    """How many elements are not zero; int64."""
    return sum(e.ne(input, 0), dim)


@composite(
    reference=lambda a, dim=None, keepdim=False: np.nansum(a, axis=dim, keepdims=keepdim),
    samples=(*_DIMS, S(([[1.0, math.nan], [math.nan, math.nan]],), {"dim": 1})),
)
def nansum(input: Any, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Any:
    """:func:`sum` with NaN taken as 0."""
    kind = table.as_tensor_arg("nansum", input).dtype
    clean = e.where(e.isnan(input), 0.0, input) if kind.is_floating_point else input
    return sum(clean, dim, keepdim, dtype=dtype)


# -- log-sum-exp ------------------------------------------------------------------


def _logsumexp_reference(a: Any, dim: Any, keepdim: bool = False) -> Any:
    top = np.max(a, axis=dim, keepdims=True)
    return np.log(np.sum(np.exp(a - top), axis=dim, keepdims=keepdim)) + (top if keepdim else np.squeeze(top, dim))


@composite(
    reference=_logsumexp_reference,
    samples=(S(((3, 4),), {"dim": 1}), S(((2, 3, 4),), {"dim": (0, 2), "keepdim": True})),
    dtypes="f",
)
def logsumexp(input: Any, dim: Any, keepdim: bool = False) -> Any:
    """log(sum(exp(input))) over ``dim``, without overflow; half types are added up in float32.
    Integers give the default float."""
    axes = layout.normalize_axes(dim, input._array.ndim, "logsumexp")
    kind = input.dtype if input.dtype.is_floating_point else dtypes.get_default_dtype()
    x = cast(input, dtypes.from_numpy(wide_dtype(kind.numpy)))
    if not axes:
        return cast(input, kind, copy=True)
    if 0 in [x._array.shape[i] for i in axes]:
        return cast(e.log(sum(e.exp(x), axes, keepdim)), kind)
    top = amax(x.detach(), axes, keepdim=True)
    top = e.where(e.isfinite(top), top, 0.0)  # all -inf: log(0) below; any inf: exp(inf) below
    total = e.add(e.log(sum(e.exp(e.sub(x, top)), axes, True)), top)
    return cast(total if keepdim else reshape(total, layout.reduced_shape(x._array.shape, axes, False)), kind)
