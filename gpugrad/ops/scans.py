"""Along one dimension, in order: running sums, products and extremes, differences, integrals."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

from gpugrad import dtypes, layout
from gpugrad.ops import elementwise as e
from gpugrad.ops import reductions, table
from gpugrad.ops.creation import arange, cast, clone, full_like, zeros
from gpugrad.ops.fused import widened
from gpugrad.ops.indexing import gather
from gpugrad.ops.joining import cat, flip
from gpugrad.ops.movement import narrow, reshape
from gpugrad.ops.reductions import total_dtype, wide_dtype
from gpugrad.ops.table import Sample as S
from gpugrad.ops.table import composite, describe, primitive, public

_SCANS = (S(((3, 4),), {"dim": 1}), S(((2, 3, 4),), {"dim": 0}), S(((0, 3),), {"dim": 0}), S(((5,),), {"dim": -1}))
_SCANS_0D = (*_SCANS, S(((),), {"dim": 0}))


def iota(x: Any, dim: int) -> Any:
    """0, 1, ... along ``dim``, with size 1 in the other dimensions of ``x``; int64, on its device."""
    shape = [1] * x._array.ndim
    shape[dim] = -1
    return reshape(arange(x._array.shape[dim], device=x.device), shape)


def _recurrence(values: Any, factors: Any, dim: int) -> Any:
    """``y[i] = values[i] + factors[i] * y[i + 1]`` along ``dim``, where ``factors`` is one shorter.

    By doubling: after k steps y[i] holds the terms up to i + 2**k - 1 and factors[i] links i with
    i + 2**k, so log2(n) steps of elementwise ops do it (Kogge and Stone, IEEE Trans. Comput. 22, 1973)."""
    n = values._array.shape[dim]
    step = 1
    while step < n:
        head = e.add(narrow(values, dim, 0, n - step), e.mul(factors, narrow(values, dim, step, n - step)))
        values = cat([head, narrow(values, dim, n - step, step)], dim)
        left = n - 2 * step
        if left > 0:
            factors = e.mul(narrow(factors, dim, 0, left), narrow(factors, dim, step, left))
        step *= 2
    return values


# -- sums and products ---------------------------------------------------------


def _reference(function: Any) -> Any:
    return lambda a, dim: function(a, axis=dim) if a.ndim else function(a)[0]


@primitive(
    "cumsum",
    (lambda g, dim: flip(cumsum(flip(g, dim), dim), dim),),
    samples=_SCANS_0D,
    reference=_reference(np.cumsum),
)
def _cumsum(backend: Any, a: Any, dim: int, dtype: np.dtype) -> Any:
    return backend.scan("sum", a, dim, dtype)


@public("cumsum")
def cumsum(input: Any, dim: int, *, dtype: Any = None) -> Any:
    """Running sums along ``dim``. Integers and bools give int64 unless ``dtype`` says otherwise.
    Raises IndexError for a dimension out of range."""
    d = layout.normalize_axis(dim, input._array.ndim, "cumsum")
    kind = total_dtype(input, dtype)
    if not input._array.ndim:
        return cast(input, dtypes.from_numpy(kind), copy=True)
    return _cumsum(_converted(input, dtype), dim=d, dtype=kind)


def _converted(input: Any, dtype: Any) -> Any:
    """The input in the dtype asked for, so that the conversion has its own gradient."""
    return input if dtype is None else cast(input, dtypes.as_dtype(dtype))


def _cumprod_vjp(g: Any, a: Any, y: Any, dim: int) -> Any:
    """The product before element i times s[i] = g[i] + a[i+1] s[i+1]: no quotient, so zeros need
    no special case."""
    n = a._array.shape[dim]
    if not a._array.size:
        return full_like(a, 0)
    following = _recurrence(g, narrow(a, dim, 1, n - 1), dim)
    first = full_like(narrow(y, dim, 0, 1), 1)
    return e.mul(cat([first, narrow(y, dim, 0, n - 1)], dim), following)


@primitive(
    "cumprod",
    (_cumprod_vjp,),
    samples=(*_SCANS_0D, S(([0.0, 2.0, 0.0, 3.0],), {"dim": 0})),
    reference=_reference(np.cumprod),
    widens=True,
)
def _cumprod(backend: Any, a: Any, dim: int, dtype: np.dtype) -> Any:
    return backend.scan("prod", a, dim, dtype)


@public("cumprod")
def cumprod(input: Any, dim: int, *, dtype: Any = None) -> Any:
    """Running products along ``dim``. Integers and bools give int64 unless ``dtype`` says otherwise.
    Raises IndexError for a dimension out of range."""
    d = layout.normalize_axis(dim, input._array.ndim, "cumprod")
    kind = total_dtype(input, dtype)
    if not input._array.ndim:
        return cast(input, dtypes.from_numpy(kind), copy=True)
    return _cumprod(_converted(input, dtype), dim=d, dtype=kind)


# -- extremes ------------------------------------------------------------------


def _scan(x: Any, dim: int, kind: str) -> Any:
    return table.wrap(x._backend.scan(kind, x._array, dim, x._array.dtype), x._backend)


def running_last(marked: Any, dim: int) -> Any:
    """At each place the last position along ``dim``, up to there, where ``marked`` is true; else 0."""
    return _scan(e.where(marked, iota(marked, dim), 0), dim, "max")


def _running(x: Any, dim: int, kind: str, op: str) -> Any:
    d = layout.normalize_axis(dim, x._array.ndim, op)
    if not x._array.ndim:
        return table.pair(op, "values indices", (x.clone(), full_like(x, 0, dtype=dtypes.int64)))
    if not x._array.size:
        return table.pair(op, "values indices", (x.clone(), full_like(x, 0, dtype=dtypes.int64)))
    plain = cast(x, dtypes.uint8) if x.dtype is dtypes.bool_ else x.detach()
    record = e.eq(plain, _scan(plain, d, kind))
    if plain.dtype.is_floating_point:
        record = e.logical_or(record, e.isnan(plain))
    indices = running_last(record, d)
    return table.pair(op, "values indices", (gather(x, d, indices), indices))


@composite(samples=_SCANS_0D, reference=lambda a, dim: np.maximum.accumulate(a, dim) if a.ndim else a)
def cummax(input: Any, dim: int) -> Any:
    """(values, indices): the largest element so far along ``dim`` and its position, the last of equals.
    NaN counts as the largest. The gradient goes to the element chosen. Raises IndexError."""
    return _running(input, dim, "max", "cummax")


@composite(samples=_SCANS_0D, reference=lambda a, dim: np.minimum.accumulate(a, dim) if a.ndim else a)
def cummin(input: Any, dim: int) -> Any:
    """(values, indices): the smallest element so far along ``dim``; as :func:`cummax`."""
    return _running(input, dim, "min", "cummin")


# -- log-sum-exp -----------------------------------------------------------------


def _logcumsumexp_vjp(g: Any, a: Any, y: Any, dim: int) -> Any:
    """exp(a - y) r, with r[i] = g[i] + exp(y[i] - y[i+1]) r[i+1]. As y never falls, no factor is
    above 1 and nothing overflows."""
    n = a._array.shape[dim]
    if not a._array.size:
        return full_like(a, 0)
    nothing = e.eq(y, -math.inf)  # no term above -inf so far
    floor = e.where(nothing, 0.0, y)
    here, after = narrow(floor, dim, 0, n - 1), narrow(floor, dim, 1, n - 1)
    gone = narrow(nothing, dim, 0, n - 1)
    factors = e.where(gone, 0.0, e.exp(e.sub(e.where(gone, 0.0, here), e.where(gone, 0.0, after))))
    return e.mul(e.exp(e.sub(a, floor)), _recurrence(g, factors, dim))


@primitive(
    "logcumsumexp",
    (_logcumsumexp_vjp,),
    samples=_SCANS_0D,
    reference=lambda a, dim: np.logaddexp.accumulate(a, dim) if a.ndim else a,
    dtypes="f",
    widens=True,
)
def _logcumsumexp(backend: Any, a: Any, dim: int) -> Any:
    work = backend.copy(a, wide_dtype(a.dtype))
    lead = (slice(None),) * dim
    n, step = a.shape[dim], 1
    while step < n:  # by doubling, as in _recurrence
        later, earlier = work[(*lead, slice(step, None))], work[(*lead, slice(0, n - step))]
        backend.map(e.logaddexp.kernel, (later, earlier), work.dtype, work.dtype, later)
        step *= 2
    return work if work.dtype == a.dtype else backend.copy(work, a.dtype)


@public("logcumsumexp")
def logcumsumexp(input: Any, dim: int) -> Any:
    """log of the running sums of exp(input) along ``dim``, without overflow. Raises RuntimeError for
    integers, IndexError for a dimension out of range."""
    d = layout.normalize_axis(dim, input._array.ndim, "logcumsumexp")
    reductions.require_floating(input, "logcumsumexp")
    return _logcumsumexp(input, dim=d) if input._array.ndim else input.clone()


# -- differences and integrals -----------------------------------------------------


def _diff_reference(a: Any, n: int = 1, dim: int = -1) -> Any:
    return np.diff(a, n, dim)


@composite(
    samples=(S(((3, 4),)), S(((3, 4),), {"dim": 0, "n": 2}), S(((3,),), {"n": 4}), S(((0, 3),), {"dim": 1})),
    reference=_diff_reference,
)
def diff(input: Any, n: int = 1, dim: int = -1, prepend: Any = None, append: Any = None) -> Any:
    """The ``n``-th differences of neighbours along ``dim``, after joining ``prepend`` and ``append``
    to the ends; for bools whether neighbours differ. Raises RuntimeError for a 0-d tensor or n < 0."""
    if not input._array.ndim:
        raise RuntimeError("diff: expected a tensor of at least one dimension, got a 0-d one")
    n = operator.index(n)
    if n < 0:
        raise RuntimeError(f"diff: the order n must not be negative, got {n}")
    d = layout.normalize_axis(dim, input._array.ndim, "diff")
    if not n:  # nothing is joined to it either
        return clone(input)
    parts = [p for p in (prepend, input, append) if p is not None]
    if len({p._array.ndim for p in parts}) > 1:
        raise RuntimeError(f"diff: prepend and append need as many dimensions as the tensor; got {describe(*parts)}")
    x = cat(parts, d) if len(parts) > 1 else input
    subtract = e.logical_xor if x.dtype is dtypes.bool_ else e.sub
    for _ in range(min(n, x._array.shape[d])):
        size = x._array.shape[d]
        x = subtract(narrow(x, d, 1, size - 1), narrow(x, d, 0, size - 1))
    return x


def _neighbours(y: Any, d: int) -> tuple[Any, Any]:
    n = y._array.shape[d]
    return narrow(y, d, 0, max(n - 1, 0)), narrow(y, d, min(n, 1), max(n - 1, 0))


def _widths(x: Any, y: Any, d: int, op: str) -> Any:
    """The distances of sample points ``x``, ready to multiply neighbours of ``y`` along ``d``."""
    table.as_tensor_arg(op, x)
    ndim = y._array.ndim
    if x._array.ndim == 1 and ndim > 1:
        shape = [1] * ndim
        shape[d] = -1
        if x._array.shape[0] not in (1, y._array.shape[d]):
            raise RuntimeError(
                f"{op}: {x._array.shape[0]} sample points do not fit dimension {d} of a tensor of shape "
                f"{tuple(y.shape)}; give one for each of its {y._array.shape[d]} elements"
            )
        x = reshape(x, shape)
    elif x._array.ndim < ndim:
        x = reshape(x, (1,) * (ndim - x._array.ndim) + tuple(x._array.shape))
    left, right = _neighbours(x, d + x._array.ndim - ndim)
    return e.sub(right, left)


def _areas(y: Any, x: Any, dx: Any, dim: int, op: str) -> tuple[Any, int]:
    """Twice the area of each trapezoid, and the dimension."""
    table.as_tensor_arg(op, y)
    if not y._array.ndim:
        raise IndexError(f"{op}: expected a tensor of at least one dimension, got a 0-d one")
    if x is not None and dx is not None:
        raise TypeError(f"{op}: give sample points x or one spacing dx, not both")
    for name, t in (("y", y), ("x", x)):
        if t is not None and t.dtype is dtypes.bool_:
            raise RuntimeError(f"{op}: {name} is a bool tensor ({describe(t)}); convert it with .float()")
    d = layout.normalize_axis(dim, y._array.ndim, op)
    left, right = _neighbours(widened(y), d)
    both = e.add(left, right)
    if x is None:
        return (both if dx is None or dx == 1 else e.mul(both, dx)), d
    wide = _widths(widened(x), y, d, op)
    return e.mul(both, wide), d + max(wide._array.ndim - y._array.ndim, 0)


def _narrowed(area: Any, y: Any, x: Any) -> Any:
    """What was computed of ``y`` and ``x``, in their dtype if that is a half type."""
    tensors = (y,) if x is None else (y, x)
    half = any(t._array.dtype in dtypes.HALVES for t in tensors)
    return cast(area, table.result_type(*tensors)) if half else area


def _trapezoid_reference(y: Any, x: Any = None, dx: float = 1.0, dim: int = -1) -> Any:
    return np.trapezoid(y, x, dx, dim)


@composite(
    samples=(S(((3, 4),)), S(((3, 4),), {"dx": 0.5, "dim": 0}), S(((3, 4), (4,))), S(((0, 3),), {"dim": 1})),
    reference=_trapezoid_reference,
)
def trapezoid(y: Any, x: Any = None, *, dx: Any = None, dim: int = -1) -> Any:
    """The integral of ``y`` along ``dim`` by the trapezoidal rule, sampled at the points ``x`` (1-d, or
    broadcasting with ``y``) or at a constant spacing ``dx`` (1). Integers give the default float.
    Raises RuntimeError where ``x`` does not fit."""
    areas, d = _areas(y, x, dx, dim, "trapezoid")
    if not y._array.shape[layout.normalize_axis(dim, y._array.ndim)]:
        shape = layout.reduced_shape(areas._array.shape, (d,), False)
        return zeros(shape, dtype=y.dtype, device=y.device)
    return _narrowed(e.div(reductions.sum(areas, d), 2.0), y, x)


def _cumulative_reference(y: Any, dx: float = 1.0, dim: int = -1) -> Any:
    first, last = np.split(y, [1], dim)[1], np.split(y, [-1], dim)[0]
    return np.cumsum((first + last) * dx / 2, axis=dim)


@composite(
    samples=(S(((3, 4),)), S(((3, 4),), {"dx": 0.5, "dim": 0})),
    reference=_cumulative_reference,
)
def cumulative_trapezoid(y: Any, x: Any = None, *, dx: Any = None, dim: int = -1) -> Any:
    """The running integral of ``y`` along ``dim``, one element shorter than it; as :func:`trapezoid`."""
    areas, d = _areas(y, x, dx, dim, "cumulative_trapezoid")
    return _narrowed(cumsum(e.div(areas, 2.0), d), y, x)


# -- numerical derivative ------------------------------------------------------------


def _slope_uniform(x: Any, d: int, h: Any, edge_order: int) -> Any:
    n = x._array.shape[d]

    def at(i: int) -> Any:
        return narrow(x, d, i % n, 1)

    inner = e.div(e.sub(narrow(x, d, 2, n - 2), narrow(x, d, 0, n - 2)), 2.0 * h)
    if edge_order == 1:
        first, last = e.div(e.sub(at(1), at(0)), h), e.div(e.sub(at(-1), at(-2)), h)
    else:
        first = e.div(e.sub(e.sub(e.mul(at(1), 2.0), e.mul(at(0), 1.5)), e.mul(at(2), 0.5)), h)
        last = e.div(e.sub(e.add(e.mul(at(-1), 1.5), e.mul(at(-3), 0.5)), e.mul(at(-2), 2.0)), h)
    return cat([first, inner, last], d)


def _slope_at(x: Any, d: int, points: Any, edge_order: int) -> Any:
    """The derivative of the parabola through three neighbours; at the ends the straight line
    (edge_order 1) or the end of the parabola (2)."""
    n = x._array.shape[d]
    shape = [1] * x._array.ndim
    shape[d] = -1
    step = reshape(diff(points), shape)
    before, after = narrow(step, d, 0, n - 2), narrow(step, d, 1, n - 2)
    slopes = e.div(e.sub(narrow(x, d, 1, n - 1), narrow(x, d, 0, n - 1)), step)
    left, right = narrow(slopes, d, 0, n - 2), narrow(slopes, d, 1, n - 2)
    inner = e.div(e.add(e.mul(left, after), e.mul(right, before)), e.add(before, after))
    first, last = narrow(slopes, d, 0, 1), narrow(slopes, d, n - 2, 1)
    if edge_order == 2:
        bend = e.div(e.sub(right, left), e.add(before, after))  # half the second derivative
        first = e.sub(first, e.mul(narrow(bend, d, 0, 1), narrow(step, d, 0, 1)))
        last = e.add(last, e.mul(narrow(bend, d, n - 3, 1), narrow(step, d, n - 2, 1)))
    return cat([first, inner, last], d)


def gradient(input: Any, *, spacing: Any = None, dim: Any = None, edge_order: int = 1) -> tuple[Any, ...]:
    """Estimated derivatives along each of ``dim`` (all, if not given): central differences of second
    order, at the ends one-sided of ``edge_order`` 1 or 2. ``spacing``: a distance for all dimensions, or
    for each a distance or the 1-d tensor of its coordinates. Returns a tuple of tensors of the input's
    shape. Raises RuntimeError where arguments do not fit, or a dimension is too short."""
    if edge_order not in (1, 2):
        raise RuntimeError(f"gradient: edge_order must be 1 or 2, got {edge_order}")
    if input.dtype in (dtypes.bool_, dtypes.uint8):
        raise RuntimeError(f"gradient: not defined for {input.dtype.name} ({describe(input)}); convert with .float()")
    ndim = input._array.ndim
    spacing = 1 if spacing is None else spacing
    if dim is None:
        axes: list[int] = list(range(ndim))
        if isinstance(spacing, Sequence) and len(spacing) == 1 and isinstance(spacing[0], table.Tensor):
            axes = axes[:1] if ndim == 1 else axes
    else:
        axes = [layout.normalize_axis(a, ndim, "gradient") for a in (dim if isinstance(dim, Sequence) else (dim,))]
    if len(set(axes)) != len(axes):
        raise RuntimeError(f"gradient: dim {dim} names one dimension twice")
    each = list(spacing) if isinstance(spacing, Sequence) else [spacing] * len(axes)
    if len(each) != len(axes):
        raise RuntimeError(f"gradient: {len(each)} spacings for {len(axes)} dimensions; give one for each")
    x = input if input.dtype.is_floating_point else cast(input, dtypes.get_default_dtype())
    results = []
    for d, h in zip(axes, each, strict=True):
        if x._array.shape[d] < edge_order + 1:
            raise RuntimeError(
                f"gradient: dimension {d} of a tensor of shape {tuple(input.shape)} is too short: edge_order "
                f"{edge_order} needs at least {edge_order + 1} elements"
            )
        if isinstance(h, table.Tensor) and h._array.ndim:
            if tuple(h._array.shape) != (x._array.shape[d],):
                raise RuntimeError(
                    f"gradient: coordinates of shape {tuple(h.shape)} do not fit dimension {d} of size "
                    f"{x._array.shape[d]}"
                )
            results.append(_slope_at(x, d, h, edge_order))
        else:
            results.append(_slope_uniform(x, d, h, edge_order))
    return tuple(results)


trapz = trapezoid  # PyTorch's other name
