"""Any geometry over the same memory (``as_strided``), and the sliding windows made of it."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from gpugrad import layout
from gpugrad.ops import table
from gpugrad.ops.creation import zeros
from gpugrad.ops.movement import reshape
from gpugrad.ops.table import Sample as S
from gpugrad.ops.table import primitive, public, view


@view(
    "as_strided",
    lambda g, a_shape, base_strides, shape, strides, offset: _place(
        g, size=a_shape, base_strides=base_strides, shape=shape, strides=strides, offset=offset
    ),
)
def _as_strided(array: Any, shape: Any, strides: Any, offset: int, base_strides: Any) -> Any:
    return shape, strides, offset


@public("as_strided")
def as_strided(input: Any, size: Sequence[int], stride: Sequence[int], storage_offset: int | None = None) -> Any:
    """A view of ``size`` with ``stride`` (elements) from ``storage_offset`` (elements from the
    start of the storage; unless given, where ``input`` starts). Raises RuntimeError out of bounds."""
    array = input._array
    item = array.itemsize
    shape, strides = tuple(size), tuple(s * item for s in stride)
    if len(shape) != len(strides) or any(n < 0 for n in shape):
        raise RuntimeError(f"as_strided: size {tuple(size)} and stride {tuple(stride)} do not fit together")
    start = input._offset if storage_offset is None else storage_offset * item
    low, high = layout.byte_range(shape, strides, item)
    storage = table.storage_of(input)
    if start + low < 0 or start + high > storage.nbytes:
        raise RuntimeError(
            f"as_strided: size {shape}, stride {tuple(stride)} from element {start // item} reaches outside the "
            f"storage "
            f"of {storage.nbytes // item} elements"
        )
    return _as_strided(input, shape=shape, strides=strides, offset=start - input._offset, base_strides=array.strides)


def _positions(size: Any, base_strides: Any, shape: Any, strides: Any, offset: int, item: int) -> np.ndarray:
    """For each element of the view, which element of the base (row-major number) it is, or -1
    for memory between the base's elements."""
    n = prod(size)
    low, high = layout.byte_range(size, base_strides, item)
    low2, high2 = layout.byte_range(shape, strides, item)
    low, high = min(low, offset + low2), max(high, offset + high2)
    cells = np.full((high - low) // item, -1, np.int64)
    eight = [s // item * 8 for s in base_strides]
    base = np.ndarray(size, np.int64, cells, -low // item * 8, eight)
    base[...] = np.arange(n).reshape(size)
    return np.ndarray(shape, np.int64, cells, (offset - low) // item * 8, [s // item * 8 for s in strides]).copy()


def _covers(size: Any, base_strides: Any, shape: Any, strides: Any, offset: int, item: int) -> bool:
    """Whether a base of ``size`` lies without gaps and the view lies within it: it need not, where the base was
    itself given another geometry in place after the view was made."""
    low, high = layout.byte_range(shape, strides, item)
    return layout.is_contiguous(size, base_strides, item) and offset + low >= 0 and offset + high <= prod(size) * item


@primitive(
    "place",
    (
        lambda g, size, base_strides, shape, strides, offset: _pick(
            g, base_strides=base_strides, shape=shape, strides=strides, offset=offset
        ),
    ),
)
def _place(backend: Any, a: Any, size: Any, base_strides: Any, shape: Any, strides: Any, offset: int) -> Any:
    """The adjoint of ``as_strided``: zeros of ``size`` to which ``a`` is added through the view's
    geometry over a base with ``base_strides``."""
    out = backend.empty(size, a.dtype)
    backend.fill(out, 0)
    whole = _covers(size, base_strides, shape, strides, offset, a.itemsize)
    if whole and not layout.may_overlap_itself(shape, strides):
        backend.copy(a, out=backend.as_strided(out, shape, strides, offset))
        return out
    where = _positions(size, base_strides, shape, strides, offset, a.itemsize).reshape(-1)
    inside = np.flatnonzero(where >= 0)
    flat = backend._view(a, (a.size,))
    if inside.size != where.size:
        flat = backend.take(flat, backend.from_host(inside), 0, "as_strided")
    if inside.size:
        backend.scatter(backend._view(out, (out.size,)), backend.from_host(where[inside]), flat, 0, "add", "as_strided")
    return out


def _dense(backend: Any, a: Any) -> Any:
    return a if layout.is_contiguous(a.shape, a.strides, a.itemsize) else backend.copy(a)


@primitive(
    "pick",
    (
        lambda g, a_shape, base_strides, shape, strides, offset: _place(
            g, size=a_shape, base_strides=base_strides, shape=shape, strides=strides, offset=offset
        ),
    ),
)
def _pick(backend: Any, a: Any, base_strides: Any, shape: Any, strides: Any, offset: int) -> Any:
    """What ``as_strided`` would show of a tensor laid out with ``base_strides``, copied; zero
    between the base's elements."""
    if _covers(a.shape, base_strides, shape, strides, offset, a.itemsize):
        return backend.copy(backend.as_strided(_dense(backend, a), shape, strides, offset))
    where = _positions(a.shape, base_strides, shape, strides, offset, a.itemsize).reshape(-1)
    flat = backend.take(backend._view(a, (a.size,)), backend.from_host(np.maximum(where, 0)), 0, "as_strided")
    for hole in np.flatnonzero(where < 0):
        backend.fill(flat[hole : hole + 1], 0)
    return backend._view(flat, shape)


def _without(g: Any, base_strides: Any, shape: Any, strides: Any, offset: int) -> Any:
    kept = zeros(shape, dtype=g.dtype, device=g.device)
    return as_strided_scatter_raw(g, kept, shape=shape, strides=strides, offset=offset, base_strides=base_strides)


@primitive(
    "as_strided_scatter",
    (
        lambda g, base_strides, shape, strides, offset: _without(g, base_strides, shape, strides, offset),
        lambda g, base_strides, shape, strides, offset: _pick(
            g, base_strides=base_strides, shape=shape, strides=strides, offset=offset
        ),
    ),
)
def as_strided_scatter_raw(
    backend: Any, a: Any, b: Any, shape: Any, strides: Any, offset: int, base_strides: Any
) -> Any:
    """A copy of ``a`` (taken as laid out with ``base_strides``) with ``b`` written through the
    geometry: what an in-place write to a view makes of the base."""
    out = backend.copy(a)
    if _covers(a.shape, base_strides, shape, strides, offset, a.itemsize):
        backend.copy(b, out=backend.as_strided(out, shape, strides, offset))
        return out
    where = _positions(a.shape, base_strides, shape, strides, offset, a.itemsize).reshape(-1)
    inside = np.flatnonzero(where >= 0)
    flat = backend.take(backend._view(b, (b.size,)), backend.from_host(inside), 0, "as_strided")
    backend.scatter(backend._view(out, (out.size,)), backend.from_host(where[inside]), flat, 0, "set", "as_strided")
    return out


# -- sliding windows ------------------------------------------------------------------


@view(
    "windows",
    lambda g, a_shape, kernel, stride, dilation: fold_windows(
        g, size=tuple(a_shape[2:]), stride=stride, dilation=dilation
    ),
    samples=(
        S(((2, 2, 5, 6),), {"kernel": (2, 3), "stride": (1, 2), "dilation": (2, 1)}),
        S(((1, 2, 7),), {"kernel": (3,), "stride": (2,), "dilation": (1,)}),
    ),
)
def windows(array: Any, kernel: Any, stride: Any, dilation: Any) -> Any:
    """View ``[n, c, *out, *kernel]`` of all windows of ``[n, c, *size]``; tuples per dimension."""
    shape, strides = layout.windows(array.shape, array.strides, kernel, stride, dilation)
    return shape, strides, 0


@primitive(
    "fold_windows",
    (
        lambda g, a_shape, size, stride, dilation: windows(
            g, kernel=tuple(a_shape[2 + len(size) :]), stride=stride, dilation=dilation
        ),
    ),
    samples=(S(((2, 2, 2, 2, 2, 3),), {"size": (6, 5), "stride": (3, 2), "dilation": (2, 1)}),),
)
def fold_windows(backend: Any, a: Any, size: Any, stride: Any, dilation: Any) -> Any:
    """The adjoint of ``windows``: ``[n, c, *out, *kernel]`` summed into ``[n, c, *size]``."""
    return backend.fold(a, size, stride, dilation)


def unfold(input: Any, dimension: int, size: int, step: int) -> Any:
    """A view of all slices of ``size`` along ``dimension`` taken every ``step``, as a new last
    dimension."""
    array = input._array
    d = layout.normalize_axis(dimension, array.ndim, "unfold")
    n = array.shape[d] if array.ndim else 1
    if size > n or size < 0 or step < 1:
        raise RuntimeError(f"unfold: size {size} with step {step} does not fit dimension {dimension} of size {n}")
    if not array.ndim:
        return reshape(input, 1)[:size]
    shape = list(array.shape)
    strides = list(array.strides)
    shape[d] = (n - size) // step + 1
    strides[d] *= step
    return _as_strided(
        input, shape=(*shape, size), strides=(*strides, array.strides[d]), offset=0, base_strides=array.strides
    )
