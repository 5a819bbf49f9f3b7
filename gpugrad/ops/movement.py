"""Ops that move elements without changing them: views wherever a view is possible."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from gpugrad import layout
from gpugrad.ops import table
from gpugrad.ops.creation import clone, is_contiguous, shape_of, zeros
from gpugrad.ops.table import OPS, Op, composite, describe, primitive, public, same_device, view, wrap
from gpugrad.ops.table import Sample as S

# -- views by geometry -----------------------------------------------------------


@view("reshape", lambda g, a_shape: reshape(g, a_shape), reference=np.reshape,
      samples=(S(((3, 4),), {"shape": (2, 6)}), S(((2, 3, 4),), {"shape": (-1,)}), S(((0, 3),), {"shape": (3, 0)})))  # fmt: skip
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


@view("permute", lambda g, dims: permute(g, _inverse(dims)), reference=lambda a, dims: np.transpose(a, dims),
      samples=(S(((2, 3, 4),), {"dims": (2, 0, 1)}), S(((3, 4),), {"dims": (1, 0)}), S(((2, 0, 3),), {"dims": (-1, 0, 1)})))  # fmt: skip
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
    dst = [layout.normalize_axis(d, ndim, "movedim") for d in ([destination] if isinstance(destination, int) else destination)]
    if len(src) != len(dst) or len(set(src)) != len(src) or len(set(dst)) != len(dst):
        raise RuntimeError(f"movedim: source {source} and destination {destination} must be as many, without repeats")
    order = [d for d in range(ndim) if d not in src]
    for d, s in sorted(zip(dst, src, strict=True)):
        order.insert(d, s)
    return permute(x, order)


@view("expand", lambda g, a_shape: _sum_to(g, a_shape), reference=lambda a, shape: np.broadcast_to(a, shape),
      samples=(S(((3, 1),), {"shape": (2, 3, 4)}), S(((4,),), {"shape": (3, 4)}), S(((),), {"shape": (2,)})))  # fmt: skip
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


@view("slice", lambda g, a_shape, index: _slice_scatter(g, shape=a_shape, index=index), reference=lambda a, index: a[index],
      samples=(S(((4, 5),), {"index": (slice(1, 3), slice(None, None, 2))}), S(((4, 5),), {"index": (2, None, Ellipsis)}),
               S(((5,),), {"index": (slice(3, 1),)})), torch="Tensor.__getitem__")  # fmt: skip
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


@view("diagonal", lambda g, a_shape, offset, dim1, dim2: _diagonal_scatter(g, shape=a_shape, offset=offset, dim1=dim1, dim2=dim2),
      reference=lambda a, offset=0, dim1=0, dim2=1: np.diagonal(a, offset, dim1, dim2),
      samples=(S(((4, 5),)), S(((4, 5),), {"offset": 1}), S(((2, 4, 3),), {"offset": -1, "dim1": 1, "dim2": 2})))  # fmt: skip
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


@primitive("diagonal_scatter_into_zeros", (lambda g, offset, dim1, dim2: _diagonal(g, offset=offset, dim1=dim1, dim2=dim2),))
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


@view("as_strided", lambda g, a_shape, base_strides, shape, strides, offset: _place(
    g, size=a_shape, base_strides=base_strides, shape=shape, strides=strides, offset=offset))  # fmt: skip
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
            f"as_strided: size {shape}, stride {tuple(stride)} from element {start // item} reaches outside the storage "
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


@primitive("place", (lambda g, size, base_strides, shape, strides, offset: _pick(
    g, base_strides=base_strides, shape=shape, strides=strides, offset=offset),))  # fmt: skip
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


@primitive("pick", (lambda g, a_shape, base_strides, shape, strides, offset: _place(
    g, size=a_shape, base_strides=base_strides, shape=shape, strides=strides, offset=offset),))  # fmt: skip
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


@primitive("as_strided_scatter", (
    lambda g, base_strides, shape, strides, offset: _without(g, base_strides, shape, strides, offset),
    lambda g, base_strides, shape, strides, offset: _pick(
        g, base_strides=base_strides, shape=shape, strides=strides, offset=offset),
))  # fmt: skip
def as_strided_scatter_raw(backend: Any, a: Any, b: Any, shape: Any, strides: Any, offset: int, base_strides: Any) -> Any:
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


@view("windows", lambda g, a_shape, kernel, stride, dilation: fold_windows(
    g, size=tuple(a_shape[2:]), stride=stride, dilation=dilation),
    samples=(S(((2, 2, 5, 6),), {"kernel": (2, 3), "stride": (1, 2), "dilation": (2, 1)}), S(((1, 2, 7),), {"kernel": (3,), "stride": (2,), "dilation": (1,)})))  # fmt: skip
def windows(array: Any, kernel: Any, stride: Any, dilation: Any) -> Any:
    """View ``[n, c, *out, *kernel]`` of all windows of ``[n, c, *size]``; tuples per dimension."""
    shape, strides = layout.windows(array.shape, array.strides, kernel, stride, dilation)
    return shape, strides, 0


@primitive("fold_windows", (lambda g, a_shape, size, stride, dilation: windows(
    g, kernel=tuple(a_shape[2 + len(size):]), stride=stride, dilation=dilation),),
    samples=(S(((2, 2, 2, 2, 2, 3),), {"size": (6, 5), "stride": (3, 2), "dilation": (2, 1)}),))  # fmt: skip
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
    return _as_strided(x, shape=(*shape, size), strides=(*strides, array.strides[d]), offset=0, base_strides=array.strides)


# -- joining and splitting ----------------------------------------------------------------


def _cat_vjp(g: Any, dim: int, shapes: Any, needed: Any) -> list[Any]:
    result, start = [], 0
    for shape, wanted in zip(shapes, needed, strict=True):
        result.append(narrow(g, dim, start, shape[dim]) if wanted else None)
        start += shape[dim]
    return result


_cat = Op("cat", "variadic", _cat_vjp, reference=lambda arrays, dim=0: np.concatenate(arrays, dim),
          samples=(S(((2, 3), (1, 3)), args_as_list=True), S(((2, 3), (2, 1), (2, 0)), {"dim": -1}, args_as_list=True)))  # fmt: skip


@public("cat")
def cat(tensors: Sequence[Any], dim: int = 0) -> Any:
    """The tensors one after the other along ``dim``. Shapes agree but there; dtypes are
    promoted. Raises RuntimeError otherwise."""
    tensors = list(tensors)
    if not tensors:
        raise ValueError("cat: expected at least one tensor")
    for x in tensors:
        table.as_tensor_arg("cat", x)
    backend = same_device("cat", tensors)
    # PyTorch lets an empty 1-d tensor stand among tensors of any shape.
    solid = [x for x in tensors if x._array.shape != (0,)] or tensors[:1]
    first = solid[0]._array
    d = layout.normalize_axis(dim, first.ndim, "cat")
    if first.ndim == 0:
        raise RuntimeError("cat: zero-dimensional tensors cannot be joined; use stack()")
    for x in solid[1:]:
        shape = x._array.shape
        if len(shape) != first.ndim or any(n != m for i, (n, m) in enumerate(zip(shape, first.shape, strict=True)) if i != d):
            raise RuntimeError(
                f"cat: shapes must agree except in dimension {d}, got {', '.join(str(tuple(s.shape)) for s in tensors)}"
            )
    from gpugrad.ops.creation import cast

    dtype = table.result_type(*(x.dtype for x in tensors))
    solid = [cast(x, dtype) for x in solid]
    shape = list(first.shape)
    shape[d] = sum(x._array.shape[d] for x in solid)
    array = backend.empty(tuple(shape), dtype.numpy)
    start = 0
    for x in solid:
        n = x._array.shape[d]
        if x._array.size:
            backend.copy(x._array, out=array[(slice(None),) * d + (slice(start, start + n),)])
        start += n
    out = wrap(array, backend)
    edges = table._edges(solid)
    if edges is not None:
        table.record(_cat, out, solid, edges, {"dim": d})
    return out


concat = concatenate = cat


@composite(reference=lambda arrays, dim=0: np.stack(arrays, dim),
           samples=(S(((2, 3), (2, 3)), args_as_list=True), S(((2, 3), (2, 3)), {"dim": -1}, args_as_list=True)))  # fmt: skip
def stack(tensors: Sequence[Any], dim: int = 0) -> Any:
    """Tensors of one shape joined along a new dimension ``dim``."""
    tensors = list(tensors)
    if not tensors:
        raise RuntimeError("stack: expected at least one tensor")
    shape = tuple(tensors[0].shape)
    for x in tensors:
        if tuple(x.shape) != shape:
            raise RuntimeError(f"stack: all tensors must have one shape, got {describe(*tensors)}")
    d = layout.normalize_axis(dim, len(shape), "stack", 1)
    return cat([unsqueeze(x, d) for x in tensors], d)


def hstack(tensors: Sequence[Any]) -> Any:
    """Joined along the second dimension (the first, if they are 1-d)."""
    rows = [reshape(x, 1) if x._array.ndim == 0 else x for x in tensors]
    return cat(rows, 0 if rows[0]._array.ndim == 1 else 1)


def vstack(tensors: Sequence[Any]) -> Any:
    """Joined along the first dimension, 1-d tensors as rows."""
    return cat([reshape(x, (1, -1)) if x._array.ndim < 2 else x for x in tensors], 0)


def split(x: Any, split_size_or_sections: Any, dim: int = 0) -> tuple[Any, ...]:
    """Views of consecutive parts along ``dim``: of one size (the last may be smaller), or of
    the sizes listed."""
    n = x._array.shape[layout.normalize_axis(dim, x._array.ndim, "split")]
    if isinstance(split_size_or_sections, int):
        size = split_size_or_sections
        if size < 0 or (size == 0 and n):
            raise RuntimeError(f"split: the size of a part must be positive, got {size}")
        sections = [min(size, n - i) for i in range(0, n, size)] if n else [0]
    else:
        sections = [int(s) for s in split_size_or_sections]
        if sum(sections) != n or any(s < 0 for s in sections):
            raise RuntimeError(f"split: sections {sections} must add up to the size {n} of dimension {dim}")
    parts, start = [], 0
    for s in sections:
        parts.append(narrow(x, dim, start, s))
        start += s
    return tuple(parts)


def chunk(x: Any, chunks: int, dim: int = 0) -> tuple[Any, ...]:
    """At most ``chunks`` views of equal size along ``dim`` (the last may be smaller)."""
    if chunks < 1:
        raise RuntimeError(f"chunk: the number of chunks must be positive, got {chunks}")
    n = x._array.shape[layout.normalize_axis(dim, x._array.ndim, "chunk")]
    return split(x, max(1, -(-n // chunks)), dim)


def unbind(x: Any, dim: int = 0) -> tuple[Any, ...]:
    """Views of the elements along ``dim``, which they lack."""
    return tuple(select(x, dim, i) for i in range(x._array.shape[layout.normalize_axis(dim, x._array.ndim, "unbind")]))


# -- copies with elements rearranged ----------------------------------------------------------


@primitive("flip", (lambda g, dims: flip(g, dims),), reference=lambda a, dims: np.flip(a, dims),
           samples=(S(((3, 4),), {"dims": (0,)}), S(((2, 3, 4),), {"dims": (0, -1)})))  # fmt: skip
def _flip(backend: Any, a: Any, dims: tuple[int, ...]) -> Any:
    index = tuple(slice(None, None, -1) if i in dims else slice(None) for i in range(a.ndim))
    return backend.copy(a[index] if dims and a.size else a)


@public("flip")
def flip(x: Any, *axes: Any, dims: Any = None) -> Any:
    """A copy with the order along ``dims`` reversed."""
    dims = axes if dims is None else (dims,) if isinstance(dims, int) else tuple(dims)
    if len(dims) == 1 and not isinstance(dims[0], int):
        dims = tuple(dims[0])
    return _flip(x, dims=layout.normalize_axes(dims, x._array.ndim, "flip") if dims else ())


def fliplr(x: Any) -> Any:
    """Columns in reverse order."""
    return flip(x, 1)


def flipud(x: Any) -> Any:
    """Rows in reverse order."""
    return flip(x, 0)


@composite(reference=lambda a, shifts, dims=None: np.roll(a, shifts, dims),
           samples=(S(((3, 4),), {"shifts": 2}), S(((3, 4),), {"shifts": (1, -2), "dims": (0, 1)}), S(((0, 3),), {"shifts": 1, "dims": 0})))  # fmt: skip
def roll(x: Any, shifts: Any, dims: Any = None) -> Any:
    """Elements moved ``shifts`` places along ``dims``, those pushed out re-entering at the
    other end; without ``dims`` over the flattened tensor."""
    if dims is None or dims == ():
        return reshape(roll(reshape(x, -1), shifts if isinstance(shifts, int) else sum(shifts), 0), x._array.shape)
    shifts = (shifts,) if isinstance(shifts, int) else tuple(shifts)
    dims = (dims,) if isinstance(dims, int) else tuple(dims)
    if len(shifts) != len(dims):
        raise RuntimeError(f"roll: {len(shifts)} shifts for {len(dims)} dimensions")
    for s, d in zip(shifts, dims, strict=True):
        n = x._array.shape[layout.normalize_axis(d, x._array.ndim, "roll")]
        s = s % n if n else 0
        if s:
            x = cat([narrow(x, d, n - s, s), narrow(x, d, 0, n - s)], d)
    return clone(x) if not is_contiguous(x) else x


def _pad_reference(a: np.ndarray, pad: Sequence[int], value: float = 0.0) -> np.ndarray:
    widths = [(0, 0)] * a.ndim
    for i in range(len(pad) // 2):
        widths[a.ndim - 1 - i] = (max(pad[2 * i], 0), max(pad[2 * i + 1], 0))
    wide = np.pad(a, widths, constant_values=value)
    cut = [slice(None)] * a.ndim
    for i in range(len(pad) // 2):
        lo, hi = pad[2 * i], pad[2 * i + 1]
        cut[a.ndim - 1 - i] = slice(-min(lo, 0), wide.shape[a.ndim - 1 - i] + min(hi, 0))
    return wide[tuple(cut)]


@primitive("pad", (lambda g, pad: pad_constant(g, tuple(-p for p in pad), 0.0),), reference=_pad_reference,
           samples=(S(((2, 3),), {"pad": (1, 2)}), S(((2, 3, 4),), {"pad": (1, -1, 0, 2), "value": 3.0})))  # fmt: skip
def _pad(backend: Any, a: Any, pad: tuple[int, ...], value: float) -> Any:
    widths = [(0, 0)] * a.ndim
    for i in range(len(pad) // 2):
        widths[a.ndim - 1 - i] = (pad[2 * i], pad[2 * i + 1])
    shape = tuple(n + lo + hi for n, (lo, hi) in zip(a.shape, widths, strict=True))
    out = backend.empty(shape, a.dtype)
    backend.fill(out, value)
    inner = tuple(slice(max(lo, 0), max(n - max(hi, 0), 0)) for n, (lo, hi) in zip(shape, widths, strict=True))
    source = tuple(slice(max(-lo, 0), n - max(-hi, 0)) for n, (lo, hi) in zip(a.shape, widths, strict=True))
    part = a[source]
    if part.size:
        backend.copy(part, out=out[inner])
    return out


@public("pad", torch="nn.functional.pad")
def pad_constant(x: Any, pad: Sequence[int], value: float = 0.0) -> Any:
    """``x`` with ``pad = (left, right, top, bottom, ...)`` elements of ``value`` around it, from the
    last dimension on; negative widths cut off. Raises RuntimeError if nothing fits."""
    pad = tuple(int(p) for p in pad)
    shape = x._array.shape
    if len(pad) % 2 or len(pad) > 2 * len(shape):
        raise RuntimeError(f"pad: {pad} must be pairs for at most the {len(shape)} dimensions of shape {tuple(shape)}")
    for i in range(len(pad) // 2):
        if shape[-1 - i] + pad[2 * i] + pad[2 * i + 1] < 0:
            raise RuntimeError(f"pad: {pad} leaves a negative size in dimension {len(shape) - 1 - i} of shape {tuple(shape)}")
    return _pad(x, pad=pad, value=value)


def _pad_index(n: int, before: int, after: int, mode: str) -> np.ndarray:
    """Which of n elements stands at each place of a padded line."""
    i = np.arange(-before, n + after)
    if mode == "replicate":
        return np.clip(i, 0, n - 1)
    if mode == "circular":
        return i % n
    period = max(2 * (n - 1), 1)
    i = np.abs(i) % period
    return np.where(i >= n, period - i, i)


def pad(x: Any, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> Any:
    """:func:`pad_constant`, or padding with the tensor's own elements: ``mode`` reflect,
    replicate or circular. Raises RuntimeError where they do not reach that far."""
    if mode == "constant":
        return pad_constant(x, pad, 0.0 if value is None else value)
    if mode not in ("reflect", "replicate", "circular"):
        raise NotImplementedError(f"pad: mode {mode!r} is unknown; there are constant, reflect, replicate and circular")
    if value is not None:
        raise ValueError(f"pad: value goes with mode constant, not {mode}")
    from gpugrad.ops.indexing import index_select

    ndim = x._array.ndim
    if len(pad) % 2 or len(pad) > 2 * ndim:
        raise RuntimeError(f"pad: {tuple(pad)} must be pairs for at most the {ndim} dimensions")
    for k in range(len(pad) // 2):
        d = ndim - 1 - k
        n, before, after = x._array.shape[d], pad[2 * k], pad[2 * k + 1]
        limit = {"reflect": n - 1, "circular": n, "replicate": max(before, after)}[mode]
        if max(before, after) > limit or n == 0 or n + before + after < 1:
            raise RuntimeError(f"pad: {mode} padding ({before}, {after}) is too wide for dimension {d} of size {n}")
        if before < 0 or after < 0:  # cut off first, then pad what is left
            x = narrow(x, d, max(-before, 0), n + min(before, 0) + min(after, 0))
            n, before, after = x._array.shape[d], max(before, 0), max(after, 0)
        if before or after:
            index = _pad_index(n, before, after, mode)
            backend = x._backend
            x = index_select(x, d, wrap(backend.from_host(index.astype(np.int64)), backend))
    return x


def repeat(x: Any, *sizes: Any) -> Any:
    """``x`` copied ``sizes`` times along each dimension; extra leading sizes add dimensions."""
    counts = shape_of(sizes, "repeat")
    shape = x._array.shape
    if len(counts) < len(shape):
        raise RuntimeError(f"repeat: {len(counts)} repeats for a tensor of {len(shape)} dimensions")
    full = (1,) * (len(counts) - len(shape)) + tuple(shape)
    pairs = [n for c, m in zip(counts, full, strict=True) for n in (1, m)]
    wide = [n for c, m in zip(counts, full, strict=True) for n in (c, m)]
    return reshape(expand(reshape(x, pairs), wide), [c * m for c, m in zip(counts, full, strict=True)])


def tile(x: Any, *dims: Any) -> Any:
    """:func:`repeat`, with missing leading counts taken as 1."""
    counts = shape_of(dims, "tile")
    return repeat(x, *((1,) * (x._array.ndim - len(counts)) + counts))


def meshgrid(*tensors: Any, indexing: str = "ij") -> tuple[Any, ...]:
    """Coordinate grids of 1-d tensors: as many tensors of shape ``[n0, n1, ...]``; with
    ``indexing="xy"`` the first two dimensions are exchanged."""
    if len(tensors) == 1 and isinstance(tensors[0], (list, tuple)):
        tensors = tuple(tensors[0])
    if indexing not in ("ij", "xy"):
        raise RuntimeError(f"meshgrid: indexing must be 'ij' or 'xy', not {indexing!r}")
    sizes = [x._array.size for x in tensors]
    grids = []
    for i, x in enumerate(tensors):
        shape = [1] * len(sizes)
        shape[i] = sizes[i]
        grids.append(expand(reshape(x, shape), sizes))
    if indexing == "xy" and len(grids) > 1:
        grids = [transpose(x, 0, 1) for x in grids]
    return tuple(grids)
