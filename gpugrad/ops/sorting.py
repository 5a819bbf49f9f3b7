"""Order: sort, argsort, topk and what follows from them; search in what is sorted."""

from __future__ import annotations

import math
import operator
from typing import Any

import numpy as np

from gpugrad import dtypes, layout
from gpugrad.errors import DTypeError
from gpugrad.ops import elementwise as e
from gpugrad.ops import table
from gpugrad.ops.creation import cast, contiguous, full, full_like, zeros
from gpugrad.ops.indexing import embedding, gather
from gpugrad.ops.joining import cat
from gpugrad.ops.movement import narrow, select
from gpugrad.ops.reductions import argmax, extreme_vjp
from gpugrad.ops.reductions import sum as sum_
from gpugrad.ops.scans import iota, running_last
from gpugrad.ops.scattering import scatter_add
from gpugrad.ops.table import Sample as S
from gpugrad.ops.table import composite, describe, pair, primitive, public

_SORTS = (
    S(((3, 5),)),
    S(((3, 5),), {"dim": 0, "descending": True}),
    S(([3.0, float("nan"), -1.0, float("inf")],)),
    S(((0, 3),)),
    S(((),)),
)


def _sort_reference(a: np.ndarray, dim: int = -1, descending: bool = False) -> np.ndarray:
    if not a.ndim:
        return a
    value = np.sort(a, axis=dim, kind="stable")
    return np.flip(value, dim) if descending else value


@primitive(
    "sort",
    (lambda g, a_shape, second, dim: scatter_add(zeros(a_shape, dtype=g.dtype, device=g.device), dim, second, g),),
    reference=_sort_reference,
    samples=_SORTS,
)
def _sort(backend: Any, a: Any, dim: int, descending: bool) -> Any:
    return backend.sort(a, dim, descending)


@public("sort")
def sort(input: Any, dim: int = -1, descending: bool = False, stable: bool | None = False) -> Any:
    """(values, indices) of ``input`` in order along ``dim``. Always stable; NaN counts as the greatest.
    Raises IndexError for a dimension out of range."""
    d = layout.normalize_axis(dim, input._array.ndim, "sort")
    if not input._array.ndim:
        return pair("sort", "values indices", (input.clone(), full_like(input, 0, dtype=dtypes.int64)))
    return pair("sort", "values indices", _sort(input, dim=d, descending=bool(descending)))


def argsort(input: Any, dim: int = -1, descending: bool = False, stable: bool | None = False) -> Any:
    """The int64 indices of :func:`sort`."""
    return sort(input.detach(), dim, descending)[1]


def msort(input: Any) -> Any:
    """Values sorted along the first dimension."""
    return sort(input, 0)[0]


# -- by rank -----------------------------------------------------------------------


def _refuse_bool(op: str, x: Any) -> None:
    if x.dtype is dtypes.bool_:
        raise DTypeError(f"{op}: not defined for bool tensors ({describe(x)}); convert with .to(gpugrad.uint8)")


def topk(input: Any, k: int, dim: int = -1, largest: bool = True, sorted: bool = True) -> Any:
    """(values, indices) of the ``k`` largest (or smallest) elements along ``dim``, in order. Raises
    RuntimeError for k out of range, DTypeError for bools."""
    d = layout.normalize_axis(dim, input._array.ndim, "topk")
    _refuse_bool("topk", input)
    n = input._array.shape[d] if input._array.ndim else 1
    k = operator.index(k)
    if not 0 <= k <= n:
        raise RuntimeError(f"topk: k = {k} is out of range for dimension {d} of size {n}")
    values, indices = sort(input, d, largest)
    if input._array.ndim:
        values, indices = contiguous(narrow(values, d, 0, k)), contiguous(narrow(indices, d, 0, k))
    return pair("topk", "values indices", (values, indices))


def _pick(op: str, values: Any, indices: Any, d: int, place: Any, keepdim: bool) -> Any:
    """Of what is sorted along ``d`` the element at ``place`` (size 1 there), as a named pair."""
    values, indices = gather(values, d, place), gather(indices, d, place)
    if not keepdim:
        values, indices = select(values, d, 0), select(indices, d, 0)
    return pair(op, "values indices", (values, indices))


def _ordered(op: str, input: Any, dim: int) -> tuple[int, Any, Any]:
    """The dimension, and the values and indices sorted along it. Raises IndexError where it is empty."""
    d = layout.normalize_axis(dim, input._array.ndim, op)
    if input._array.ndim and not input._array.shape[d]:
        raise IndexError(f"{op}: dimension {d} of a tensor of shape {tuple(input.shape)} has no elements")
    return d, *sort(input, d)


def kthvalue(input: Any, k: int, dim: int = -1, keepdim: bool = False) -> Any:
    """(value, index) of the ``k``-th smallest element along ``dim``, counted from 1. Raises
    RuntimeError for k out of range, IndexError for an empty dimension."""
    d, values, indices = _ordered("kthvalue", input, dim)
    _refuse_bool("kthvalue", input)
    n = input._array.shape[d] if input._array.ndim else 1
    if not 1 <= k <= n:
        raise RuntimeError(f"kthvalue: k = {k} is out of range for dimension {d} of size {n}")
    if not input._array.ndim:
        return pair("kthvalue", "values indices", (values, indices))
    place = full_like(narrow(indices, d, 0, 1), k - 1)
    return _pick("kthvalue", values, indices, d, place, keepdim)


@primitive("median_of_all", (extreme_vjp,), torch="median")
def _median_of_all(backend: Any, a: Any, dim: tuple[int, ...], keepdim: bool, skip_nan: bool) -> Any:
    """The lower median of all elements; equal ones share the gradient."""
    flat = table.wrap(backend._view(a, (-1,)), backend)
    return _median_along("median", flat, 0, False, skip_nan)[0]._array


def _median_along(op: str, input: Any, dim: int, keepdim: bool, skip_nan: bool) -> Any:
    d, values, indices = _ordered(op, input, dim)
    _refuse_bool(op, input)
    if not input._array.ndim:
        return pair(op, "values indices", (values, indices))
    n = input._array.shape[d]
    place = full_like(narrow(indices, d, 0, 1), (n - 1) // 2)
    if input.dtype.is_floating_point:  # NaN stands after all numbers
        numbers = e.sub(n, sum_(e.isnan(input.detach()), d, keepdim=True))
        if skip_nan:
            place = e.clamp_min(e.floor_divide(e.sub(numbers, 1), 2), 0)
        else:
            place = e.where(e.lt(numbers, n), numbers, place)
    return _pick(op, values, indices, d, place, keepdim)


def _median(op: str, input: Any, dim: int | None, keepdim: bool, skip_nan: bool) -> Any:
    table.as_tensor_arg(op, input)
    if dim is not None:
        return _median_along(op, input, dim, keepdim, skip_nan)
    if keepdim:
        raise TypeError(f"{op}: keepdim is for a dim; reshape the result")
    if not input._array.size:
        low: Any = input.dtype is dtypes.bool_  # the least int64, converted
        low = dtypes.iinfo(input.dtype).min if input.dtype in (dtypes.int32, dtypes.int64) else low
        nothing = math.nan if input.dtype.is_floating_point else low
        return full((), nothing, dtype=input.dtype, device=input.device)
    _refuse_bool(op, input)
    return _median_of_all(input, dim=tuple(range(input._array.ndim)), keepdim=False, skip_nan=skip_nan)


_MEDIANS = (S(((3, 4),)), S(((3, 5),), {"dim": 1}), S(((2, 3, 4),), {"dim": 0, "keepdim": True}), S(((),)))


@composite(samples=_MEDIANS, reference=lambda a, dim=None, keepdim=False: _median_values(a, dim, keepdim))
def median(input: Any, dim: int | None = None, keepdim: bool = False) -> Any:
    """The lower median of all elements, or (values, indices) along ``dim``. NaN if there is one. Equal
    elements share the gradient of the median of all. Raises IndexError for an empty dimension."""
    return _median("median", input, dim, keepdim, False)


@composite(
    samples=(*_MEDIANS[:2], S(([[1.0, math.nan, 4.0, 2.0], [2.0, 3.0, math.nan, math.nan]],), {"dim": 1})),
    reference=lambda a, dim=None, keepdim=False: _median_values(a, dim, keepdim),
)
def nanmedian(input: Any, dim: int | None = None, keepdim: bool = False) -> Any:
    """:func:`median` of the elements that are not NaN; NaN where there is none."""
    return _median("nanmedian", input, dim, keepdim, True)


def _median_values(a: Any, dim: int | None, keepdim: bool) -> Any:
    axis = 0 if dim is None else dim
    lines = np.sort(a.reshape(-1) if dim is None else a, axis)
    n = np.sum(~np.isnan(lines), axis, keepdims=True)
    value = np.take_along_axis(lines, np.maximum((n - 1) // 2, 0), axis)
    return value if keepdim else np.squeeze(value, axis)


def run_starts(values: Any, d: int) -> Any:
    """Where an element differs from the one before it along ``d``; bool, true at the first."""
    n = values._array.shape[d]
    if n < 2 or not values._array.size:
        return full_like(values, True, dtype=dtypes.bool_)
    first = full_like(narrow(values, d, 0, 1), True, dtype=dtypes.bool_)
    return cat([first, e.ne(narrow(values, d, 1, n - 1), narrow(values, d, 0, n - 1))], d)


@composite(
    samples=(S(([[2, 1, 2, 1, 3], [5, 5, 5, 1, 1]],)), S(([[2, 1], [2, 3], [1, 3]],), {"dim": 0, "keepdim": True})),
    reference=lambda a, dim=-1, keepdim=False: _mode_reference(a, dim, keepdim),
    differentiable=False,  # it is, but finite differences part what is equal
)
def mode(input: Any, dim: int = -1, keepdim: bool = False) -> Any:
    """(values, indices): the most frequent element along ``dim``, the smallest of equally frequent ones,
    and its last position. Raises IndexError for an empty dimension."""
    d, values, indices = _ordered("mode", input, dim)
    if not input._array.ndim:
        return pair("mode", "values indices", (values, indices))
    place = iota(values, d)
    length = e.sub(place, running_last(run_starts(values.detach(), d), d))
    return _pick("mode", values, indices, d, argmax(length, d, True), keepdim)


def _mode_reference(a: Any, dim: int, keepdim: bool) -> Any:
    def most(line: Any) -> Any:
        values, counts = np.unique(line, return_counts=True)
        return values[np.argmax(counts)]

    out = np.apply_along_axis(most, dim, a)
    return np.expand_dims(out, dim) if keepdim else out


# -- search --------------------------------------------------------------------------


def _search(op: str, edges: Any, values: Any, right: bool) -> Any:
    """int64, of the shape of ``values``: where each would stand in the sorted last dimension of
    ``edges``, by halving; the step count depends on the shape alone."""
    n = edges._array.shape[-1]
    low = full_like(values, 0, dtype=dtypes.int64)
    if not n:
        return low
    high = full_like(low, n)
    beyond = e.gt if right else e.ge  # NaN is beyond nothing and goes to the end
    for _ in range(n.bit_length()):
        middle = e.floor_divide(e.add(low, high), 2)
        inside = e.clamp_max(middle, n - 1)
        at = embedding(inside, edges, op) if edges._array.ndim == 1 else gather(edges, -1, inside, op=op)
        open_ = e.lt(low, high)
        stop = e.logical_or(beyond(at, values), e.logical_not(open_))
        low, high = e.where(stop, low, e.add(middle, 1)), e.where(e.logical_and(stop, open_), middle, high)
    return low


def _searched(op: str, edges: Any, values: Any, right: bool, out_int32: bool) -> Any:
    kind = table.result_type(edges, values)
    if kind is dtypes.bool_:
        raise DTypeError(f"{op}: not defined for bool tensors ({describe(edges, values)}); convert with .byte()")
    found = _search(op, cast(edges.detach(), kind), cast(values.detach(), kind), right)
    return cast(found, dtypes.int32) if out_int32 else found


def _side(op: str, right: bool, side: str | None) -> bool:
    if side not in (None, "left", "right"):
        raise RuntimeError(f"{op}: side must be 'left' or 'right', not {side!r}")
    if side == "left" and right:
        raise RuntimeError(f"{op}: right=True and side='left' contradict each other; give one of them")
    return right or side == "right"


def _number(op: str, value: Any, like: Any) -> Any:
    if isinstance(value, table.Tensor):
        return value
    kind = table.number_dtype(value)
    return full((), value, dtype=like.dtype if like.dtype.category >= kind.category else kind, device=like.device)


@composite(
    samples=(
        S(([1.0, 3.0, 5.0, 7.0], (3, 4))),
        S(([1, 3, 5, 7], [[0, 1, 9], [3, 4, 5]]), {"right": True}),
        S(([1, 3, 5, 7], [[0, 1, 9], [3, 4, 5]]), {"side": "left", "out_int32": True}),
    ),
    reference=lambda a, v, right=False, side="left", out_int32=False: np.searchsorted(a, v, "right" if right else side),
    differentiable=False,
)
def searchsorted(
    sorted_sequence: Any,
    input: Any,
    *,
    out_int32: bool = False,
    right: bool = False,
    side: str | None = None,
    sorter: Any = None,
) -> Any:
    """Where each of ``input`` (a tensor or a number) would stand in ``sorted_sequence``, ascending along
    its last dimension: 1-d, or of the leading sizes of ``input`` and searched row by row. How many elements
    are smaller (``right``, or ``side="right"``: or equal); NaN goes to the end. ``sorter``: int64, the order
    that sorts the sequence. int64, or int32 with ``out_int32``. Raises RuntimeError where arguments do not
    fit."""
    op = "searchsorted"
    edges = table.as_tensor_arg(op, sorted_sequence)
    right = _side(op, right, side)
    values = _number(op, input, edges)
    table.same_device(op, (edges, values))
    have, want = edges._array.shape, values._array.shape
    if not have or (len(have) > 1 and (len(have) != len(want) or have[:-1] != want[:-1])):
        raise RuntimeError(
            f"{op}: the sorted sequence must be 1-d or agree with the values in all dimensions but the last; got "
            f"{describe(edges, values)}"
        )
    if sorter is not None:
        table.as_tensor_arg(op, sorter)
        if sorter.dtype is not dtypes.int64 or sorter._array.shape != have:
            raise RuntimeError(f"{op}: sorter must be int64 of the sequence's shape; got {describe(edges, sorter)}")
        try:
            edges = gather(edges, -1, sorter, op=op)
        except IndexError as error:
            raise RuntimeError(f"{op}: the sorter does not hold positions of the sequence: {error}") from None
    return _searched(op, edges, values, right, out_int32)


@composite(
    samples=(S(((3, 4), [-1.0, 0.0, 1.0])), S(([[0, 1, 9], [3, 4, 5]], [1, 3, 5]), {"right": True})),
    reference=lambda v, edges, right=False: np.searchsorted(edges, v, "right" if right else "left"),
    differentiable=False,
)
def bucketize(input: Any, boundaries: Any, *, out_int32: bool = False, right: bool = False) -> Any:
    """In which bucket between the ascending 1-d ``boundaries`` each of ``input`` (a tensor or a number)
    falls: as :func:`searchsorted`. Raises RuntimeError unless ``boundaries`` is 1-d."""
    edges = table.as_tensor_arg("bucketize", boundaries)
    if edges._array.ndim != 1:
        raise RuntimeError(f"bucketize: boundaries must be 1-d, got {describe(edges)}")
    values = _number("bucketize", input, edges)
    table.same_device("bucketize", (edges, values))
    return _searched("bucketize", edges, values, right, out_int32)
