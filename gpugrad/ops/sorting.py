"""Order: sort, argsort, topk and what follows from them."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpugrad import dtypes, layout
from gpugrad.ops import table
from gpugrad.ops.creation import cast, contiguous, full_like, zeros
from gpugrad.ops.indexing import gather, scatter_add
from gpugrad.ops.movement import narrow, reshape, select
from gpugrad.ops.table import Sample as S
from gpugrad.ops.table import pair, primitive, public

_SORTS = (
    S(((3, 5),)),
    S(((3, 5),), {"dim": 0, "descending": True}),
    S(([3.0, float("nan"), -1.0, float("inf")],)),
    S(((0, 3),)),
)


def _sort_reference(a: np.ndarray, dim: int = -1, descending: bool = False) -> np.ndarray:
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
def sort(x: Any, dim: int = -1, descending: bool = False, stable: bool = False) -> Any:
    """(values, indices) of ``x`` in order along ``dim``. Always stable; NaN counts as the greatest."""
    d = layout.normalize_axis(dim, x._array.ndim, "sort")
    if not x._array.ndim:
        return pair("sort", "values indices", (x.clone(), full_like(x, 0, dtype=dtypes.int64)))
    return pair("sort", "values indices", _sort(x, dim=d, descending=descending))


def argsort(x: Any, dim: int = -1, descending: bool = False, stable: bool = False) -> Any:
    """The int64 indices of :func:`sort`."""
    return sort(x.detach(), dim, descending)[1]


def topk(x: Any, k: int, dim: int = -1, largest: bool = True, sorted: bool = True) -> Any:
    """(values, indices) of the ``k`` largest (or smallest) elements along ``dim``, in order."""
    d = layout.normalize_axis(dim, x._array.ndim, "topk")
    n = x._array.shape[d] if x._array.ndim else 1
    if not 0 <= k <= n:
        raise RuntimeError(f"topk: k = {k} is out of range for dimension {d} of size {n}")
    values, indices = sort(x, d, largest)
    if x._array.ndim:
        values, indices = contiguous(narrow(values, d, 0, k)), contiguous(narrow(indices, d, 0, k))
    return pair("topk", "values indices", (values, indices))


def kthvalue(x: Any, k: int, dim: int = -1, keepdim: bool = False) -> Any:
    """(value, index) of the ``k``-th smallest element along ``dim``, counted from 1."""
    d = layout.normalize_axis(dim, x._array.ndim, "kthvalue")
    n = x._array.shape[d] if x._array.ndim else 1
    if not 1 <= k <= n:
        raise RuntimeError(f"kthvalue: k = {k} is out of range for dimension {d} of size {n}")
    values, indices = sort(x, d)
    if x._array.ndim:
        take = narrow if keepdim else select
        args = (d, k - 1, 1) if keepdim else (d, k - 1)
        values, indices = take(values, *args), take(indices, *args)
    return pair("kthvalue", "values indices", (values, indices))


def median(x: Any, dim: int | None = None, keepdim: bool = False) -> Any:
    """The lower median of all elements, or (values, indices) along ``dim``. NaN if there is one."""
    from gpugrad.ops import elementwise as e
    from gpugrad.ops.reductions import any as any_

    if dim is None:
        flat = reshape(x, -1)
        if not flat._array.size:
            raise RuntimeError("median: no elements to choose from")
        value = kthvalue(flat, (flat._array.size + 1) // 2)[0]
        return e.where(any_(e.isnan(x)), float("nan"), value) if x.dtype.is_floating_point else value
    d = layout.normalize_axis(dim, x._array.ndim, "median")
    n = x._array.shape[d] if x._array.ndim else 1
    values, indices = sort(x, d)
    if not x._array.ndim:
        return pair("median", "values indices", (values, indices))
    place = full_like(narrow(indices, d, 0, 1), (n - 1) // 2)
    if x.dtype.is_floating_point:  # the first NaN stands after all numbers
        from gpugrad.ops.reductions import sum as sum_

        nans = sum_(e.isnan(x), d, keepdim=True)
        place = e.where(e.gt(nans, 0), e.sub(n, nans), place)
    values, indices = gather(values, d, place), gather(indices, d, place)
    if not keepdim:
        values, indices = select(values, d, 0), select(indices, d, 0)
    return pair("median", "values indices", (values, indices))


def msort(x: Any) -> Any:
    """Values sorted along the first dimension."""
    return sort(x, 0)[0]


def searchsorted(
    sorted_sequence: Any, values: Any, *, right: bool = False, out_int32: bool = False, side: str | None = None
) -> Any:
    """For each of ``values`` where it would stand in the 1-d ``sorted_sequence`` (or row by row, if
    both have the same leading sizes): how many elements are smaller (``right``: or equal)."""
    from gpugrad.ops import elementwise as e
    from gpugrad.ops.movement import unsqueeze
    from gpugrad.ops.reductions import sum as sum_

    if side is not None:
        right = side == "right"
    if not isinstance(values, table.Tensor):
        values = full_like(select(sorted_sequence, -1, 0), values)
    compare = e.le if right else e.lt
    if sorted_sequence._array.ndim == 1:
        hits = compare(sorted_sequence, unsqueeze(values, -1))
    else:
        hits = compare(unsqueeze(sorted_sequence, -2), unsqueeze(values, -1))
    count = sum_(hits, -1)
    return cast(count, dtypes.int32) if out_int32 else count
