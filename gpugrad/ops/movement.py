"""Ops that move elements without changing them: views wherever a view is possible."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from gpugrad import layout
from gpugrad.ops import table
from gpugrad.ops.creation import clone, zeros
from gpugrad.ops.table import OPS, primitive, public, view
from gpugrad.ops.table import Sample as S

# -- views by geometry -----------------------------------------------------------


@view(
    "reshape",
    lambda g, a_shape: reshape(g, a_shape),
    reference=np.reshape,
    samples=(S(((3, 4),), {"shape": (2, 6)}), S(((2, 3, 4),), {"shape": (-1,)}), S(((0, 3),), {"shape": (3, 0)})),
)
def _reshape(array: Any, shape: tuple[int, ...]) -> Any:
    strides = layout.view_strides(array.shape, array.strides, shape, array.itemsize)
    if strides is None:
        raise RuntimeError(
            f"view: shape {shape} cannot be laid over a tensor of shape {tuple(array.shape)} with strides "
            f"{tuple(s // array.itemsize for s in array.strides)}; use reshape(), which copies where it must"
        )
    return shape, strides, 0


def _target_shape(x: Any, shape: tuple[Any, ...], op: str) -> tuple[int, ...]:
    if len(shape) == 1 and not isinstance(shape[0], (int, np.integer)):
        shape = tuple(shape[0])
    try:
        return layout.infer_shape(x._array.size, shape)
    except ValueError as error:
        raise RuntimeError(f"{op}: {error}; the tensor has shape {tuple(x._array.shape)}") from None


def view_as_shape(x: Any, *shape: Any) -> Any:
    """``x.view(*shape)``: the same memory under another shape (one size may be -1). Raises
    RuntimeError where the strides do not allow it."""
    return _reshape(x, shape=_target_shape(x, shape, "view"))


@public("reshape")
def reshape(x: Any, *sizes: Any, shape: Any = None) -> Any:
    """``x`` under another shape with as many elements (one size may be -1): a view where the
    strides allow, else a copy."""
    target = _target_shape(x, sizes if shape is None else (shape,), "reshape")
    array = x._array
    if layout.view_strides(array.shape, array.strides, target, array.itemsize) is None:
        x = clone(x)
    return _reshape(x, shape=target)


@view(
    "permute",
    lambda g, dims: permute(g, _inverse(dims)),
    reference=lambda a, dims: np.transpose(a, dims),
    samples=(
        S(((2, 3, 4),), {"dims": (2, 0, 1)}),
        S(((3, 4),), {"dims": (1, 0)}),
        S(((2, 0, 3),), {"dims": (-1, 0, 1)}),
    ),
)
def _permute(array: Any, dims: tuple[int, ...]) -> Any:
    return [array.shape[i] for i in dims], [array.strides[i] for i in dims], 0


def _inverse(dims: Sequence[int]) -> tuple[int, ...]:
    inverse = [0] * len(dims)
    for i, d in enumerate(dims):
        inverse[d] = i
    return tuple(inverse)


@public("permute")
def permute(x: Any, *order_of: Any, dims: Any = None) -> Any:
    """A view with the dimensions in the order ``dims``."""
    dims = order_of if dims is None else dims
    if len(dims) == 1 and not isinstance(dims[0], (int, np.integer)):
        dims = tuple(dims[0])
    ndim = x._array.ndim
    order = tuple(layout.normalize_axis(d, ndim, "permute") for d in dims)
    if sorted(order) != list(range(ndim)):
        raise RuntimeError(f"permute: dims {dims} must name each of the {ndim} dimensions once")
    return _permute(x, dims=order)


def transpose(x: Any, dim0: int, dim1: int) -> Any:
    """A view with two dimensions exchanged."""
    ndim = x._array.ndim
    i, j = (layout.normalize_axis(d, ndim, "transpose") for d in (dim0, dim1))
    order = list(range(ndim))
    if ndim:
        order[i], order[j] = order[j], order[i]
    return _permute(x, dims=tuple(order))


def t(x: Any) -> Any:
    """The transpose of a matrix (0-d and 1-d tensors as they are)."""
    if x._array.ndim > 2:
        raise RuntimeError(f"t: expected at most 2 dimensions, got shape {tuple(x.shape)}; use transpose() or .mT")
    return x if x._array.ndim < 2 else transpose(x, 0, 1)


def movedim(x: Any, source: Any, destination: Any) -> Any:
    """Dimensions ``source`` moved to the places ``destination``, the rest in order."""
    ndim = x._array.ndim
    src = [layout.normalize_axis(d, ndim, "movedim") for d in ([source] if isinstance(source, int) else source)]
    dst = [
        layout.normalize_axis(d, ndim, "movedim")
        for d in ([destination] if isinstance(destination, int) else destination)
    ]
    if len(src) != len(dst) or len(set(src)) != len(src) or len(set(dst)) != len(dst):
        raise RuntimeError(f"movedim: source {source} and destination {destination} must be as many, without repeats")
    order = [d for d in range(ndim) if d not in src]
    for d, s in sorted(zip(dst, src, strict=True)):
        order.insert(d, s)
    return permute(x, order)


@view(
    "expand",
    lambda g, a_shape: _sum_to(g, a_shape),
    reference=lambda a, shape: np.broadcast_to(a, shape),
    samples=(S(((3, 1),), {"shape": (2, 3, 4)}), S(((4,),), {"shape": (3, 4)}), S(((),), {"shape": (2,)})),
)
def _expand(array: Any, shape: tuple[int, ...]) -> Any:
    return shape, layout.expand_strides(array.shape, array.strides, shape), 0


def _sum_to(g: Any, shape: Sequence[int]) -> Any:
    from gpugrad.ops.reductions import sum_to

    return sum_to(g, shape)


@public("expand")
def expand(x: Any, *sizes: Any, shape: Any = None) -> Any:
    """A view that repeats dimensions of size 1 (and new leading ones) without copying; -1
    keeps a size."""
    shape = sizes if shape is None else shape
    if len(shape) == 1 and not isinstance(shape[0], (int, np.integer)):
        shape = tuple(shape[0])
    old = tuple(x._array.shape)
    lead = len(shape) - len(old)
    target = tuple(operator.index(n) for n in shape)
    if lead >= 0:
        target = tuple(old[i - lead] if n == -1 and i >= lead else n for i, n in enumerate(target))
    if lead < 0 or any(n < 0 for n in target) or any(n not in (1, m) for n, m in zip(old, target[lead:], strict=True)):
        raise RuntimeError(f"expand: a tensor of shape {old} cannot be expanded to {shape}; only sizes of 1 can grow")
    return _expand(x, shape=target)


def broadcast_to(x: Any, shape: Sequence[int]) -> Any:
    """:func:`expand` under NumPy's name."""
    return expand(x, *shape)


def broadcast_tensors(*tensors: Any) -> tuple[Any, ...]:
    """All tensors expanded to their common shape."""
    try:
        shape = layout.broadcast_shapes(*(t._array.shape for t in tensors))
    except ValueError as error:
        raise RuntimeError(f"broadcast_tensors: {error}") from None
    return tuple(expand(t, shape) for t in tensors)


def squeeze(x: Any, dim: Any = None) -> Any:
    """A view without the dimensions of size 1: all, or those in ``dim``."""
    shape = x._array.shape
    if dim is None:
        drop = set(range(len(shape)))
    else:
        dims = (dim,) if isinstance(dim, int) else dim
        drop = {layout.normalize_axis(d, len(shape), "squeeze") for d in dims}
    return _reshape_view(x, tuple(n for i, n in enumerate(shape) if n != 1 or i not in drop))


def unsqueeze(x: Any, dim: int) -> Any:
    """A view with a new dimension of size 1 at ``dim``."""
    shape = x._array.shape
    d = layout.normalize_axis(dim, len(shape), "unsqueeze", 1)
    return _reshape_view(x, (*shape[:d], 1, *shape[d:]))


def _reshape_view(x: Any, shape: tuple[int, ...]) -> Any:
    return _reshape(x, shape=shape)


def flatten(x: Any, start_dim: int = 0, end_dim: int = -1) -> Any:
    """Dimensions ``start_dim`` to ``end_dim`` merged into one."""
    shape = x._array.shape
    if not shape:
        return reshape(x, 1)
    a, b = (layout.normalize_axis(d, len(shape), "flatten") for d in (start_dim, end_dim))
    if a > b:
        raise RuntimeError(f"flatten: start_dim {start_dim} comes after end_dim {end_dim}")
    return reshape(x, (*shape[:a], prod(shape[a : b + 1]), *shape[b + 1 :]))


def ravel(x: Any) -> Any:
    """``x`` with one dimension."""
    return reshape(x, -1)


def unflatten(x: Any, dim: int, sizes: Sequence[int]) -> Any:
    """Dimension ``dim`` split into ``sizes`` (one may be -1)."""
    shape = x._array.shape
    d = layout.normalize_axis(dim, len(shape), "unflatten")
    try:
        inner = layout.infer_shape(shape[d], sizes)
    except ValueError as error:
        raise RuntimeError(f"unflatten: {error} (dimension {dim} of shape {tuple(shape)})") from None
    return reshape(x, (*shape[:d], *inner, *shape[d + 1 :]))


@view(
    "slice",
    lambda g, a_shape, index: _slice_scatter(g, shape=a_shape, index=index),
    reference=lambda a, index: a[index],
    samples=(
        S(((4, 5),), {"index": (slice(1, 3), slice(None, None, 2))}),
        S(((4, 5),), {"index": (2, None, Ellipsis)}),
        S(((5,),), {"index": (slice(3, 1),)}),
    ),
    torch="Tensor.__getitem__",
)
def slice_view(array: Any, index: tuple[Any, ...]) -> Any:
    """Basic indexing: ``index`` of integers, slices, None and ``...``."""
    return layout.basic_index(array.shape, array.strides, index)


@primitive("slice_scatter_into_zeros", (lambda g, index: slice_view(g, index=index),))
def _slice_scatter(backend: Any, a: Any, shape: tuple[int, ...], index: tuple[Any, ...]) -> Any:
    """Zeros of ``shape`` with ``a`` at ``[index]``: the adjoint of ``slice``."""
    out = backend.empty(shape, a.dtype)
    backend.fill(out, 0)
    geometry = layout.basic_index(out.shape, out.strides, index)
    backend.copy(a, out=backend.as_strided(out, *geometry))
    return out


OPS["slice_scatter_into_zeros"].samples = (
    S(((2, 3),), {"shape": (4, 5), "index": (slice(1, 3), slice(None, None, 2))}),
)


def narrow(x: Any, dim: int, start: int, length: int) -> Any:
    """A view of ``length`` elements along ``dim`` from ``start`` on."""
    shape = x._array.shape
    d = layout.normalize_axis(dim, len(shape), "narrow")
    n = shape[d]
    start = start.item() if isinstance(start, table.Tensor) else start
    if start < 0:
        start += n
    if length < 0 or not 0 <= start <= n - length:
        raise RuntimeError(f"narrow: start {start} with length {length} exceeds dimension {dim} of size {n}")
    return slice_view(x, index=(slice(None),) * d + (slice(start, start + length),))


def select(x: Any, dim: int, index: int) -> Any:
    """A view without dimension ``dim``: its element ``index``."""
    d = layout.normalize_axis(dim, x._array.ndim, "select")
    return slice_view(x, index=(slice(None),) * d + (operator.index(index),))


@view(
    "diagonal",
    lambda g, a_shape, offset, dim1, dim2: _diagonal_scatter(g, shape=a_shape, offset=offset, dim1=dim1, dim2=dim2),
    reference=lambda a, offset=0, dim1=0, dim2=1: np.diagonal(a, offset, dim1, dim2),
    samples=(S(((4, 5),)), S(((4, 5),), {"offset": 1}), S(((2, 4, 3),), {"offset": -1, "dim1": 1, "dim2": 2})),
)
def _diagonal(array: Any, offset: int, dim1: int, dim2: int) -> Any:
    return _diagonal_geometry(array.shape, array.strides, offset, dim1, dim2)


def _diagonal_geometry(shape: Any, strides: Any, offset: int, dim1: int, dim2: int) -> Any:
    n, m = shape[dim1], shape[dim2]
    length = max(0, min(n, m - offset) if offset >= 0 else min(n + offset, m))
    start = 0
    if length:
        start = offset * strides[dim2] if offset >= 0 else -offset * strides[dim1]
    rest = [i for i in range(len(shape)) if i not in (dim1, dim2)]
    return [shape[i] for i in rest] + [length], [strides[i] for i in rest] + [strides[dim1] + strides[dim2]], start


@primitive(
    "diagonal_scatter_into_zeros", (lambda g, offset, dim1, dim2: _diagonal(g, offset=offset, dim1=dim1, dim2=dim2),)
)
def _diagonal_scatter(backend: Any, a: Any, shape: tuple[int, ...], offset: int, dim1: int, dim2: int) -> Any:
    """Zeros of ``shape`` with ``a`` on a diagonal: the adjoint of ``diagonal``."""
    out = backend.empty(shape, a.dtype)
    backend.fill(out, 0)
    backend.copy(a, out=backend.as_strided(out, *_diagonal_geometry(out.shape, out.strides, offset, dim1, dim2)))
    return out


@public("diagonal")
def diagonal(x: Any, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Any:
    """A view of a diagonal of two dimensions, as the last dimension."""
    ndim = x._array.ndim
    d1, d2 = (layout.normalize_axis(d, ndim, "diagonal") for d in (dim1, dim2))
    if d1 == d2:
        raise RuntimeError(f"diagonal: dim1 and dim2 are the same dimension {dim1}")
    return _diagonal(x, offset=offset, dim1=d1, dim2=d2)


# -- as_strided: any geometry over the same memory ---------------------------------


@view(
    "as_strided",
    lambda g, a_shape, base_strides, shape, strides, offset: _place(
        g, size=a_shape, base_strides=base_strides, shape=shape, strides=strides, offset=offset
    ),
)
def _as_strided(array: Any, shape: Any, strides: Any, offset: int, base_strides: Any) -> Any:
    return shape, strides, offset


@public("as_strided")
def as_strided(x: Any, size: Sequence[int], stride: Sequence[int], storage_offset: int | None = None) -> Any:
    """A view of ``size`` with ``stride`` (elements) from ``storage_offset`` (elements from the
    start of the storage; unless given, where ``x`` starts). Raises RuntimeError out of bounds."""
    array = x._array
    item = array.itemsize
    shape, strides = tuple(size), tuple(s * item for s in stride)
    if len(shape) != len(strides) or any(n < 0 for n in shape):
        raise RuntimeError(f"as_strided: size {tuple(size)} and stride {tuple(stride)} do not fit together")
    start = x._offset if storage_offset is None else storage_offset * item
    low, high = layout.byte_range(shape, strides, item)
    storage = table.storage_of(x)
    if start + low < 0 or start + high > storage.nbytes:
        raise RuntimeError(
            f"as_strided: size {shape}, stride {tuple(stride)} from element {start // item} reaches outside the "
            f"storage "
            f"of {storage.nbytes // item} elements"
        )
    return _as_strided(x, shape=shape, strides=strides, offset=start - x._offset, base_strides=array.strides)


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
    if layout.is_contiguous(size, base_strides, a.itemsize) and not layout.may_overlap_itself(shape, strides):
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
    if layout.is_contiguous(a.shape, base_strides, a.itemsize):
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
    if layout.is_contiguous(a.shape, base_strides, a.itemsize):
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


def unfold(x: Any, dimension: int, size: int, step: int) -> Any:
    """A view of all slices of ``size`` along ``dimension`` taken every ``step``, as a new last
    dimension."""
    array = x._array
    d = layout.normalize_axis(dimension, array.ndim, "unfold")
    n = array.shape[d] if array.ndim else 1
    if size > n or size < 0 or step < 1:
        raise RuntimeError(f"unfold: size {size} with step {step} does not fit dimension {dimension} of size {n}")
    if not array.ndim:
        return reshape(x, 1)[:size]
    shape = list(array.shape)
    strides = list(array.strides)
    shape[d] = (n - size) // step + 1
    strides[d] *= step
    return _as_strided(
        x, shape=(*shape, size), strides=(*strides, array.strides[d]), offset=0, base_strides=array.strides
    )
