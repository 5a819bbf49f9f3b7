"""Distinct elements and how often they occur: unique, isin, bincount, histograms; reduction by segments.

The shapes of unique's results and of bincount's depend on values, so these wait for the device;
the rest does not.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

from gpugrad import dtypes, layout
from gpugrad.errors import DTypeError
from gpugrad.ops import elementwise as e
from gpugrad.ops import table
from gpugrad.ops.creation import arange, cast, full, full_like, ones_like, zeros
from gpugrad.ops.indexing import embedding, index_select, nonzero
from gpugrad.ops.joining import cat
from gpugrad.ops.movement import expand, flatten, movedim, narrow, reshape, select
from gpugrad.ops.reductions import amax, amin, require_floating, wide_dtype
from gpugrad.ops.reductions import any as any_
from gpugrad.ops.scans import cumsum, diff
from gpugrad.ops.scattering import scatter, scatter_add, scatter_reduce
from gpugrad.ops.sorting import run_starts, searchsorted, sort
from gpugrad.ops.table import Sample as S
from gpugrad.ops.table import composite, describe, pair

# -- distinct elements ---------------------------------------------------------------


def _results(values: Any, inverse: Any, counts: Any, wanted: tuple[bool, bool]) -> Any:
    parts = [values, *(p for p, want in ((inverse, wanted[0]), (counts, wanted[1])) if want)]
    return tuple(parts) if len(parts) > 1 else values


def _lines(op: str, input: Any, dim: int) -> tuple[int, Any]:
    """The dimension, and ``input`` as one row for each slice along it."""
    if not input._array.ndim:
        raise IndexError(f"{op}: dim={dim} for a 0-d tensor; leave dim out")
    d = layout.normalize_axis(dim, input._array.ndim, op)
    shape = input._array.shape
    if 0 in (*shape[:d], *shape[d + 1 :]):
        raise RuntimeError(f"{op}: slices of shape {tuple(shape)} along dimension {d} have no elements to compare")
    return d, flatten(movedim(input, d, 0), 1) if input._array.ndim > 1 else reshape(input, (-1, 1))


def _ranks(rows: Any) -> Any:
    """Of each element its rank among the distinct ones of its column; int64."""
    values, order = sort(rows, 0)
    rank = e.sub(cumsum(run_starts(values, 0), 0), 1)
    return scatter(rank, 0, order, rank)


def _row_ranks(rows: Any) -> Any:
    """The rank of each row among the distinct rows, compared column by column: neighbouring
    columns are merged in pairs, rank a and rank b to a n + b, until one is left."""
    n = rows._array.shape[0]
    ranks = _ranks(rows)
    while ranks._array.shape[1] > 1:
        m = ranks._array.shape[1]
        halves = reshape(narrow(ranks, 1, 0, m - m % 2), (n, m // 2, 2))
        merged = _ranks(e.add(e.mul(select(halves, 2, 0), n), select(halves, 2, 1)))
        ranks = cat([merged, narrow(ranks, 1, m - 1, 1)], 1) if m % 2 else merged
    return select(ranks, 1, 0)


def _runs(changes: Any) -> tuple[Any, Any, Any]:
    """Of a 1-d bool that marks where runs start: the starts, each element's run, the lengths."""
    starts = select(nonzero(changes), 1, 0)
    end = full((1,), changes._array.size, dtype=dtypes.int64, device=changes.device)
    return starts, e.sub(cumsum(changes, 0), 1), diff(cat([starts, end]))


@composite(
    samples=(S(([[3, 1, 2], [2, 2, 1]],)), S(([[2, 1], [1, 2], [2, 1], [1, 1]],), {"dim": 0})),
    reference=lambda a, dim=None: np.unique(a, axis=dim),
    differentiable=False,
)
def unique(
    input: Any, sorted: bool = True, return_inverse: bool = False, return_counts: bool = False, dim: int | None = None
) -> Any:
    """The distinct elements, ascending (whatever ``sorted``); with ``dim`` the distinct slices along it, in
    lexicographic order. Each NaN is distinct. Beside them, if asked for: which of them each element (slice)
    is, and how often each occurs (int64). Raises RuntimeError for slices without elements, IndexError
    for ``dim`` out of range."""
    x = table.as_tensor_arg("unique", input).detach()
    wanted = (return_inverse, return_counts)
    if dim is None:
        values, order = sort(reshape(x, -1), 0)
        starts, run, counts = _runs(run_starts(values, 0))
        inverse = reshape(scatter(full_like(run, 0), 0, order, run), x._array.shape)
        return _results(index_select(values, 0, starts), inverse, counts, wanted)
    d, rows = _lines("unique", x, dim)
    if not rows._array.shape[0]:
        nothing = zeros(0, dtype=dtypes.int64, device=x.device)
        return _results(x.clone(), nothing, nothing, wanted)
    keys, order = sort(_row_ranks(rows), 0)
    starts, run, counts = _runs(run_starts(keys, 0))
    inverse = scatter(full_like(run, 0), 0, order, run)
    return _results(index_select(x, d, index_select(order, 0, starts)), inverse, counts, wanted)


@composite(
    samples=(S(([3, 3, 1, 2, 2, 3],)), S(([[2, 1], [2, 1], [1, 2], [2, 1]],), {"dim": 0})),
    reference=lambda a, dim=None: a[np.r_[True, np.any(np.diff(a.reshape(len(a), -1), axis=0), 1)]],
    differentiable=False,
)
def unique_consecutive(
    input: Any, return_inverse: bool = False, return_counts: bool = False, dim: int | None = None
) -> Any:
    """``input`` (flattened, or its slices along ``dim``) without the elements equal to the one before;
    beside it, if asked for, which of the results each is and the lengths of the runs, as :func:`unique`."""
    x = table.as_tensor_arg("unique_consecutive", input).detach()
    wanted = (return_inverse, return_counts)
    if dim is None:
        flat = reshape(x, -1)
        starts, run, counts = _runs(run_starts(flat, 0))
        return _results(index_select(flat, 0, starts), reshape(run, x._array.shape), counts, wanted)
    d, rows = _lines("unique_consecutive", x, dim)
    starts, run, counts = _runs(any_(run_starts(rows, 0), 1))
    return _results(index_select(x, d, starts), run, counts, wanted)


@composite(
    samples=(S(([[1, 2], [3, 4]], [2, 4, 9])), S(([[1, 2], [3, 4]], [2, 4, 9]), {"invert": True})),
    reference=lambda a, b, assume_unique=False, invert=False: np.isin(a, b, invert=invert),
    differentiable=False,
)
def isin(elements: Any, test_elements: Any, *, assume_unique: bool = False, invert: bool = False) -> Any:
    """Whether each of ``elements`` is among ``test_elements`` (``invert``: is not); bool, of the shape of
    ``elements``. One of the two may be a number. NaN is never found. Found by search in the sorted test
    elements, whatever ``assume_unique``. Raises RuntimeError for bools."""
    tensors = [x for x in (elements, test_elements) if isinstance(x, table.Tensor)]
    if not tensors:
        raise TypeError("isin: one of the arguments must be a tensor; make one with gpugrad.tensor(...)")
    kind = table.result_type(elements, test_elements)
    if any(x.dtype is dtypes.bool_ for x in tensors):
        raise RuntimeError(f"isin: not defined for bool tensors ({describe(*tensors)}); convert with .byte()")
    device = tensors[0].device
    table.same_device("isin", tensors)
    mine, tests = (
        cast(x.detach(), kind) if isinstance(x, table.Tensor) else full((), x, dtype=kind, device=device)
        for x in (elements, test_elements)
    )
    tests = sort(reshape(tests, -1), 0)[0]
    n = tests._array.shape[0]
    if n:
        place = e.clamp_max(searchsorted(tests, mine), n - 1)
        found = e.eq(embedding(place, tests, "isin"), mine)
    else:
        found = full_like(mine, False, dtype=dtypes.bool_)
    return e.logical_not(found) if invert else found


# -- counting ---------------------------------------------------------------------------


def _count_into(size: int, index: Any, weights: Any, dtype: dtypes.DType) -> Any:
    """How often (or with what weight in all) each of 0 .. size - 1 is in the 1-d ``index``."""
    out = zeros(size, dtype=dtype, device=index.device)
    return scatter_add(out, 0, index, ones_like(index, dtype=dtype) if weights is None else cast(weights, dtype))


@composite(
    samples=(
        S(([3, 1, 2, 2],)),
        S(([3, 1, 2, 2],), {"minlength": 7}),
        S(([3, 1, 2, 2], [0.5, 1.0, 2.0, 3.0])),
    ),
    reference=lambda a, weights=None, minlength=0: np.bincount(a, weights, minlength),
    differentiable=False,
    dtypes="i",
)
def bincount(input: Any, weights: Any = None, minlength: int = 0) -> Any:
    """How often each of 0, 1, ... up to the greatest element (at least ``minlength`` of them) occurs in the
    1-d ``input`` of integers not below 0; int64. With ``weights``, of the same length, what they add up to:
    float32 for float32 weights, else float64 (float32 on a device without it). Raises RuntimeError otherwise."""
    x = table.as_tensor_arg("bincount", input)
    if x.dtype.category != 1 or x._array.ndim != 1:
        error = RuntimeError if x.dtype.category == 1 else DTypeError
        raise error(f"bincount: expected a 1-d tensor of integers, got {describe(x)}")
    if minlength < 0:
        raise RuntimeError(f"bincount: minlength must not be negative, got {minlength}")
    if weights is not None and weights._array.shape != x._array.shape:
        raise RuntimeError(f"bincount: weights must be 1-d and as many as the elements; got {describe(x, weights)}")
    if not x._array.size:
        return zeros(minlength, dtype=dtypes.int64, device=x.device)
    index = cast(x, dtypes.int64)
    low, high = (int(v) for v in cat([reshape(f(index), 1) for f in (amin, amax)]).tolist())
    if low < 0:
        raise RuntimeError(f"bincount: the element {low} is negative; only integers from 0 on are counted")
    size = max(minlength, high + 1)
    if weights is None:
        return _count_into(size, index, None, dtypes.int64)
    table.same_device("bincount", (x, weights))
    wide = dtypes.float64 if x._backend.supports(dtypes.float64.numpy) else dtypes.float32
    kind = dtypes.float32 if weights.dtype is dtypes.float32 else wide
    return _count_into(size, index, weights.detach(), kind)


# -- histograms ------------------------------------------------------------------------


def _outer_bounds(op: str, x: Any, bounds: Any, margin: float) -> tuple[float, float]:
    """The range to divide: as given, or that of the data; by ``margin`` wider at both ends if it is one value."""
    low, high = (0.0, 0.0) if bounds is None else (float(b) for b in bounds)
    if bounds is None and x._array.size:
        low, high = (float(v) for v in cat([reshape(f(x), 1) for f in (amin, amax)]).tolist())
    if low == high:
        low, high = (low - margin, high + margin) if x._array.size else (low, high + 1.0)
    if not (math.isfinite(low) and math.isfinite(high)):
        raise RuntimeError(f"{op}: the range from {low} to {high} is not finite; give min and max")
    if low > high:
        raise RuntimeError(f"{op}: the range must ascend, got {low} to {high}")
    return low, high


def _bins(op: str, bins: Any) -> int:
    bins = operator.index(bins)
    if bins <= 0:
        raise RuntimeError(f"{op}: the number of bins must be above 0, got {bins}")
    return bins


@composite(
    samples=(S(((3, 4),), {"bins": 4, "min": -1, "max": 1}), S(((20,),), {"bins": 5})),
    reference=lambda a, bins=100, min=0, max=0: np.histogram(a, bins, (min, max) if min != max else None)[0].astype(
        a.dtype
    ),
    differentiable=False,
    dtypes="f",
)
def histc(input: Any, bins: int = 100, min: float = 0, max: float = 0) -> Any:
    """Counts of the elements in ``bins`` equal parts of [``min``, ``max``] (of the data, if they are
    equal), in the dtype of ``input``; the rest, and NaN, is left out. Raises RuntimeError for integers, a
    range that is not finite or descends, and bins <= 0."""
    require_floating(input, "histc")
    bins = _bins("histc", bins)
    x = reshape(input.detach(), -1)
    if x.dtype not in (dtypes.float32, dtypes.float64):
        return cast(histc(cast(x, dtypes.float32), bins, min, max), input.dtype)
    low, high = _outer_bounds("histc", x, None if min == max else (min, max), 1.0)
    inside = e.logical_and(e.ge(x, low), e.le(x, high))
    place = cast(e.mul(e.sub(e.where(inside, x, low), low), bins / (high - low)), dtypes.int64)
    return _count_into(bins, e.clamp(place, 0, bins - 1), cast(inside, x.dtype), x.dtype)


def _edges(op: str, x: Any, bins: Any, bounds: Any) -> Any:
    """Edges of the bins of the 1-d ``x``: given as a tensor, or equally spaced."""
    if isinstance(bins, table.Tensor):
        if bins._array.ndim != 1 or bins.dtype is not x.dtype or not bins._array.size:
            raise RuntimeError(f"{op}: edges must be 1-d and of the dtype of the input; got {describe(x, bins)}")
        table.same_device(op, (x, bins))
        return bins.detach()
    n = _bins(op, bins)
    low, high = _outer_bounds(op, x, bounds, 0.5)
    return table.wrap(x._backend.from_host(_even(low, high, n, x._array.dtype)), x._backend)


def _even(low: float, high: float, n: int, dtype: np.dtype) -> np.ndarray:
    """n + 1 edges from both ends inwards, each rounded in ``dtype``, so that both ends are exact."""
    kind = wide_dtype(dtype).type
    first, last = kind(low), kind(high)
    step = (last - first) / kind(n)
    place = np.arange(n + 1, dtype=kind)
    edges = np.where(place < (n + 1) // 2, first + step * place, last - step * place[::-1])
    return edges.astype(dtype)


def _histogram(op: str, rows: Any, bins: Sequence[Any], bounds: Any, weight: Any, density: bool) -> tuple[Any, Any]:
    """(histogram, edges) of the points ``[n, k]``."""
    require_floating(rows, op)
    k = rows._array.shape[1]
    if bounds is not None and len(bounds) != 2 * k:
        raise RuntimeError(f"{op}: range must hold a lower and an upper bound for each dimension, got {bounds}")
    place, inside, edges, shape = None, None, [], []
    for i in range(k):
        x = select(rows, 1, i)
        edge = _edges(op, x, bins[i], None if bounds is None else bounds[2 * i : 2 * i + 2])
        n = edge._array.shape[0] - 1
        at = e.sub(searchsorted(edge, x, right=True), 1)
        at = e.where(e.eq(x, select(edge, 0, n)), n - 1, at)  # the last bin holds its upper edge
        fits = e.logical_and(e.ge(at, 0), e.lt(at, n))
        at = e.clamp(at, 0, max(n - 1, 0))
        place = at if place is None else e.add(e.mul(place, n), at)
        inside = fits if inside is None else e.logical_and(inside, fits)
        edges.append(edge)
        shape.append(n)
    if place is None or not math.prod(shape):
        return zeros(shape, dtype=rows.dtype, device=rows.device), edges
    weights = cast(inside, rows.dtype) if weight is None else e.where(inside, reshape(weight.detach(), -1), 0.0)
    counts = reshape(_count_into(math.prod(shape), place, weights, rows.dtype), shape)
    if density:
        counts = e.div(counts, counts.sum())
        for i, edge in enumerate(edges):
            counts = e.div(counts, reshape(diff(edge), [-1 if j == i else 1 for j in range(k)]))
    return counts, edges


@composite(
    samples=(S(((3, 4),), {"bins": 3}), S(((3, 4), [-2.0, 0.5, 1.0, 2.0])), S(((9,),), {"bins": 4, "range": (-1, 1)})),
    reference=lambda a, bins, range=None: np.histogram(a, bins, range)[0].astype(a.dtype),
    differentiable=False,
    dtypes="f",
)
def histogram(input: Any, bins: Any, *, range: Any = None, weight: Any = None, density: bool = False) -> Any:
    """(hist, bin_edges) of all elements. ``bins``: how many equal parts of ``range`` (of the data, if not
    given), or a 1-d tensor of ascending edges; the last bin includes its upper edge. ``weight``: what each
    element counts; ``density``: divided so that the integral is 1. Raises RuntimeError for integers and where
    arguments do not fit."""
    x = table.as_tensor_arg("histogram", input).detach()
    if weight is not None and weight._array.shape != x._array.shape:
        raise RuntimeError(f"histogram: weight must have the shape of the input; got {describe(x, weight)}")
    counts, edges = _histogram("histogram", reshape(x, (-1, 1)), [bins], range, weight, density)
    return pair("histogram", "hist bin_edges", (counts, edges[0]))


def histogramdd(input: Any, bins: Any, *, range: Any = None, weight: Any = None, density: bool = False) -> Any:
    """(hist, bin_edges) of the points in the last dimension of ``[*, k]``, in k dimensions. ``bins``: a count,
    or for each dimension a count or a tensor of edges; ``range``: the 2 k bounds, flat; else as
    :func:`histogram`, with a tuple of edges."""
    x = table.as_tensor_arg("histogramdd", input).detach()
    if x._array.ndim < 2:
        raise RuntimeError(f"histogramdd: expected points in the last of two dimensions or more, got {describe(x)}")
    k = x._array.shape[-1]
    each = list(bins) if isinstance(bins, Sequence) else [bins] * k
    if len(each) != k:
        raise RuntimeError(f"histogramdd: {len(each)} bins for points of {k} dimensions; give one for each")
    if weight is not None and weight._array.shape != x._array.shape[:-1]:
        raise RuntimeError(f"histogramdd: weight must have the leading sizes of the input; {describe(x, weight)}")
    counts, edges = _histogram("histogramdd", flatten(x, 0, -2), each, range, weight, density)
    return pair("histogramdd", "hist bin_edges", (counts, tuple(edges)))


# -- segments -----------------------------------------------------------------------------


_NEUTRAL = {"sum": 0.0, "mean": 0.0, "prod": 1.0, "max": -math.inf, "min": math.inf}


def segment_reduce(
    data: Any,
    reduce: str,
    *,
    lengths: Any = None,
    indices: Any = None,
    offsets: Any = None,
    axis: int = 0,
    unsafe: bool = False,
    initial: float | None = None,
) -> Any:
    """``data`` reduced along its first dimension over consecutive segments of the given ``lengths`` (1-d,
    integers), or between neighbouring ``offsets``. ``reduce``: sum, mean, prod, max, min; ``initial``: what
    each segment starts from, so also the value of an empty one (else 0, NaN, 1, -inf, inf). Raises
    RuntimeError where arguments do not fit or the lengths do not add up to the size of the dimension
    (unless ``unsafe``: then the rest is left out), NotImplementedError for ``indices`` and another axis."""
    x = table.as_tensor_arg("segment_reduce", data)
    if indices is not None or axis != 0:
        raise NotImplementedError("segment_reduce: only lengths or offsets along axis 0 are supported; move it there")
    if reduce not in _NEUTRAL:
        raise RuntimeError(f"segment_reduce: reduce must be one of {', '.join(_NEUTRAL)}, not {reduce!r}")
    if (lengths is None) == (offsets is None):
        raise RuntimeError("segment_reduce: give lengths or offsets, one of them")
    require_floating(x, "segment_reduce")
    given = offsets if lengths is None else lengths
    if given.dtype not in (dtypes.int32, dtypes.int64) or given._array.ndim != 1 or not x._array.ndim:
        raise RuntimeError(f"segment_reduce: expected 1-d integers and data of a dimension, got {describe(x, given)}")
    table.same_device("segment_reduce", (x, given))
    ends = cumsum(given, 0) if offsets is None else narrow(cast(given, dtypes.int64), 0, 1, given._array.size - 1)
    sizes = cast(given, dtypes.int64) if offsets is None else diff(cast(given, dtypes.int64))
    n, size = ends._array.shape[0], x._array.shape[0]
    if not unsafe:
        bounds = cat([narrow(ends, 0, n - 1, 1), reshape(amin(sizes), 1)]).tolist() if n else [0, 0]
        if bounds[0] != size or bounds[1] < 0:
            raise RuntimeError(f"segment_reduce: segments must not be negative and add up to {size}, got {bounds[0]}")
    # Each element's segment is the number of segments that end before it; what is left over goes to one more.
    segment = searchsorted(ends, arange(size, device=x.device), right=True)
    start = full((n + 1, *x._array.shape[1:]), _NEUTRAL[reduce] if initial is None else initial, dtype=x.dtype,
                 device=x.device)  # fmt: skip
    index = expand(reshape(segment, (-1, *[1] * (x._array.ndim - 1))), x._array.shape)
    mode = {"mean": "sum", "max": "amax", "min": "amin"}.get(reduce, reduce)
    out = narrow(scatter_reduce(start, 0, index, x, mode), 0, 0, n)
    if reduce != "mean":
        return out
    count = reshape(sizes, (-1, *[1] * (x._array.ndim - 1)))
    quotient = e.div(out, count)
    return quotient if initial is None else e.where(e.eq(count, 0), out, quotient)
