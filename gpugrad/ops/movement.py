"""Ops that move elements without changing them: views wherever a view is possible."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from functools import lru_cache
from math import prod
from typing import Any

import numpy as np

from gpugrad import dtypes, layout
from gpugrad.ops import table
from gpugrad.ops.creation import cast, clone, zeros
from gpugrad.ops.table import OPS, primitive, public, view
from gpugrad.ops.table import Sample as S

# -- views by geometry -----------------------------------------------------------


@view(
    "reshape",
    lambda g, a_shape: reshape(g, a_shape),
    reference=np.reshape,
    by_shape=True,
    samples=(S(((3, 4),), {"shape": (2, 6)}), S(((2, 3, 4),), {"shape": (-1,)}), S(((0, 3),), {"shape": (3, 0)})),
)
def _reshape(array: Any, shape: tuple[int, ...]) -> Any:
    strides = _laid_over(array.shape, array.strides, shape, array.itemsize)
    if strides is None:
        raise RuntimeError(
            f"view: shape {shape} cannot be laid over a tensor of shape {tuple(array.shape)} with strides "
            f"{tuple(s // array.itemsize for s in array.strides)}; use reshape(), which copies where it must"
        )
    return shape, strides, 0


#: strides of views are asked for again and again with the same layouts
_laid_over = lru_cache(2048)(layout.view_strides)


def _target_shape(x: Any, shape: tuple[Any, ...], op: str) -> tuple[int, ...]:
    if len(shape) == 1 and not isinstance(shape[0], (int, np.integer)):
        shape = tuple(shape[0])
    try:
        return layout.infer_shape(x._array.size, shape)
    except ValueError as error:
        raise RuntimeError(f"{op}: {error}; the tensor has shape {tuple(x._array.shape)}") from None


def view_as_shape(input: Any, *shape: Any) -> Any:
    """``input.view(*shape)``: the same memory under another shape (one size may be -1). Raises
    RuntimeError where the strides do not allow it."""
    return _reshape(input, shape=_target_shape(input, shape, "view"))


@public("reshape")
def reshape(input: Any, *sizes: Any, shape: Any = None) -> Any:
    """``input`` under another shape with as many elements (one size may be -1): a view where the
    strides allow, else a copy."""
    target = _target_shape(input, sizes if shape is None else (shape,), "reshape")
    array = input._array
    if _laid_over(array.shape, array.strides, target, array.itemsize) is None:
        input = clone(input)
    return _reshape(input, shape=target)


@view(
    "permute",
    lambda g, dims: permute(g, _inverse(dims)),
    reference=lambda a, dims: np.transpose(a, dims),
    by_shape=True,
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
def permute(input: Any, *order_of: Any, dims: Any = None) -> Any:
    """A view with the dimensions in the order ``dims``."""
    dims = order_of if dims is None else dims
    if len(dims) == 1 and not isinstance(dims[0], (int, np.integer)):
        dims = tuple(dims[0])
    ndim = input._array.ndim
    order = tuple(layout.normalize_axis(d, ndim, "permute") for d in dims)
    if sorted(order) != list(range(ndim)):
        raise RuntimeError(f"permute: dims {dims} must name each of the {ndim} dimensions once")
    return _permute(input, dims=order)


def transpose(input: Any, dim0: int, dim1: int) -> Any:
    """A view with two dimensions exchanged."""
    ndim = input._array.ndim
    i, j = (layout.normalize_axis(d, ndim, "transpose") for d in (dim0, dim1))
    order = list(range(ndim))
    if ndim:
        order[i], order[j] = order[j], order[i]
    return _permute(input, dims=tuple(order))


def t(input: Any) -> Any:
    """The transpose of a matrix (0-d and 1-d tensors as they are)."""
    if input._array.ndim > 2:
        raise RuntimeError(f"t: expected at most 2 dimensions, got shape {tuple(input.shape)}; use transpose() or .mT")
    return input if input._array.ndim < 2 else transpose(input, 0, 1)


def movedim(input: Any, source: Any, destination: Any) -> Any:
    """Dimensions ``source`` (an int or several) moved to the places ``destination``, the rest in
    order. Raises RuntimeError unless they are as many and without repeats."""
    ndim = input._array.ndim
    if isinstance(source, int) != isinstance(destination, int):
        raise TypeError(
            f"movedim: source and destination must both be ints or both sequences, got {source}, {destination}"
        )
    src, dst = (
        [layout.normalize_axis(d, ndim, "movedim") for d in ((ds,) if isinstance(ds, int) else tuple(ds))]
        for ds in (source, destination)
    )
    if len(src) != len(dst) or len(set(src)) != len(src) or len(set(dst)) != len(dst):
        raise RuntimeError(f"movedim: source {source} and destination {destination} must be as many, without repeats")
    if not ndim:
        return permute(input, ())
    order = [d for d in range(ndim) if d not in src]
    for d, s in sorted(zip(dst, src, strict=True)):
        order.insert(d, s)
    return permute(input, order)


moveaxis = movedim


def swapdims(input: Any, dim0: int, dim1: int) -> Any:
    """:func:`transpose` under another name."""
    return transpose(input, dim0, dim1)


def swapaxes(input: Any, axis0: int, axis1: int) -> Any:
    """:func:`transpose` under NumPy's name."""
    return transpose(input, axis0, axis1)


def adjoint(input: Any) -> Any:
    """The last two dimensions exchanged: real tensors have no conjugate to take."""
    if input._array.ndim == 1:
        raise RuntimeError("adjoint: a 1-d tensor has no second dimension; use unsqueeze() first")
    return transpose(input, -2, -1) if input._array.ndim else transpose(input, 0, 0)


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
def expand(input: Any, *sizes: Any, size: Any = None, shape: Any = None) -> Any:
    """A view that repeats dimensions of size 1 (and new leading ones) without copying; -1
    keeps a size."""
    shape = size if size is not None else sizes if shape is None else shape
    if len(shape) == 1 and not isinstance(shape[0], (int, np.integer)):
        shape = tuple(shape[0])
    old = tuple(input._array.shape)
    lead = len(shape) - len(old)
    target = tuple(operator.index(n) for n in shape)
    if lead >= 0:
        target = tuple(old[i - lead] if n == -1 and i >= lead else n for i, n in enumerate(target))
    if lead < 0 or any(n < 0 for n in target) or any(n not in (1, m) for n, m in zip(old, target[lead:], strict=True)):
        raise RuntimeError(f"expand: a tensor of shape {old} cannot be expanded to {shape}; only sizes of 1 can grow")
    return _expand(input, shape=target)


def broadcast_to(input: Any, size: Sequence[int]) -> Any:
    """:func:`expand` under NumPy's name."""
    return expand(input, tuple(size))


def broadcast_tensors(*tensors: Any) -> tuple[Any, ...]:
    """All tensors expanded to their common shape."""
    if len(tensors) == 1 and isinstance(tensors[0], (list, tuple)):
        tensors = tuple(tensors[0])
    try:
        shape = layout.broadcast_shapes(*(t._array.shape for t in tensors))
    except ValueError as error:
        raise RuntimeError(f"broadcast_tensors: {error}") from None
    return tuple(expand(t, shape) for t in tensors)


def broadcast_shapes(*shapes: Any) -> Any:
    """The shape to which all ``shapes`` (sequences, or ints for one dimension) broadcast. Raises
    RuntimeError if there is none."""
    given = [(operator.index(s),) if isinstance(s, (int, np.integer)) else tuple(s) for s in shapes]
    if any(n < 0 for s in given for n in s):
        raise RuntimeError(f"broadcast_shapes: sizes must not be negative, got {given}")
    try:
        shape = layout.broadcast_shapes(*given)
    except ValueError as error:
        raise RuntimeError(f"broadcast_shapes: {error}") from None
    return expand(zeros((), device="cpu"), shape).shape  # no memory beyond one element


def sum_to_size(input: Any, *size: Any) -> Any:
    """``input`` summed over the dimensions along which ``size`` would have to be expanded to its shape.
    Raises RuntimeError where it would not."""
    if len(size) == 1 and not isinstance(size[0], (int, np.integer)):
        size = tuple(size[0])
    have = input._array.shape
    lead = len(have) - len(size)
    if lead < 0 or any(n not in (1, m) for n, m in zip(size, have[lead:], strict=True)):
        raise RuntimeError(f"sum_to_size: size {tuple(size)} does not expand to the tensor's shape {tuple(have)}")
    if input.dtype.category < 2 and (not size or tuple(size) != tuple(have[lead:]) or lead):
        input = cast(input, dtypes.int64)  # as sum() has it
    return _sum_to(input, tuple(size))


def squeeze(input: Any, dim: Any = None) -> Any:
    """A view without the dimensions of size 1: all, or those in ``dim`` (an int or several)."""
    shape = input._array.shape
    if dim is None:
        drop = set(range(len(shape)))
    else:
        dims = (dim,) if isinstance(dim, int) else tuple(dim)
        drop = {layout.normalize_axis(d, len(shape), "squeeze") for d in dims}
        if len(drop) != len(dims):
            raise RuntimeError(f"squeeze: dim {dim} names one dimension twice")
    return _reshape_view(input, tuple(n for i, n in enumerate(shape) if n != 1 or i not in drop))


def unsqueeze(input: Any, dim: int) -> Any:
    """A view with a new dimension of size 1 at ``dim``."""
    shape = input._array.shape
    d = layout.normalize_axis(dim, len(shape), "unsqueeze", 1)
    return _reshape_view(input, (*shape[:d], 1, *shape[d:]))


def _reshape_view(x: Any, shape: tuple[int, ...]) -> Any:
    return _reshape(x, shape=shape)


def flatten(input: Any, start_dim: int = 0, end_dim: int = -1) -> Any:
    """Dimensions ``start_dim`` to ``end_dim`` merged into one."""
    shape = input._array.shape
    if not shape:
        return reshape(input, 1)
    a, b = (layout.normalize_axis(d, len(shape), "flatten") for d in (start_dim, end_dim))
    if a > b:
        raise RuntimeError(f"flatten: start_dim {start_dim} comes after end_dim {end_dim}")
    if a == b:
        return input
    return reshape(input, (*shape[:a], prod(shape[a : b + 1]), *shape[b + 1 :]))


def ravel(input: Any) -> Any:
    """``input`` with one dimension, in C order without gaps: a view of what lies so already, else a copy."""
    flat = reshape(input, -1)
    array = flat._array
    return flat if layout.is_contiguous(array.shape, array.strides, array.itemsize) else clone(flat)


def unflatten(input: Any, dim: int, sizes: Sequence[int]) -> Any:
    """Dimension ``dim`` split into ``sizes`` (one may be -1)."""
    shape = input._array.shape
    d = layout.normalize_axis(dim, len(shape), "unflatten")
    if not len(sizes):
        raise RuntimeError("unflatten: sizes must not be empty")
    try:
        inner = layout.infer_shape(shape[d] if shape else 1, sizes)
    except ValueError as error:
        raise RuntimeError(f"unflatten: {error} (dimension {dim} of shape {tuple(shape)})") from None
    return reshape(input, (*shape[:d], *inner, *shape[d + 1 :]))


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


def narrow(input: Any, dim: int, start: Any, length: int) -> Any:
    """A view of ``length`` elements along ``dim`` from ``start`` on, a number or a 0-d integer tensor;
    a negative one counts from the end. Raises RuntimeError where they are not all there."""
    shape = input._array.shape
    if not shape:
        raise RuntimeError("narrow: a 0-d tensor has no dimension to narrow")
    d = layout.normalize_axis(dim, len(shape), "narrow")
    n = shape[d]
    if isinstance(start, table.Tensor):
        if start._array.ndim or start.dtype.category != 1:
            raise RuntimeError(f"narrow: start must be a number or a 0-d integer tensor, got {table.describe(start)}")
        start = start.item()
    if not -n <= start <= n:
        raise IndexError(f"narrow: start {start} is out of range for dimension {dim} of size {n}")
    if start < 0:
        start += n
    if length < 0 or start > n - length:
        raise RuntimeError(f"narrow: start {start} with length {length} exceeds dimension {dim} of size {n}")
    return slice_view(input, index=(slice(None),) * d + (slice(start, start + length),))


def narrow_copy(input: Any, dim: int, start: int, length: int) -> Any:
    """A copy of what :func:`narrow` shows."""
    return clone(narrow(input, dim, start, length))


def select(input: Any, dim: int, index: int) -> Any:
    """A view without dimension ``dim``: its element ``index``. Raises IndexError."""
    if not input._array.ndim:
        raise IndexError("select: a 0-d tensor has no dimension to select from")
    d = layout.normalize_axis(dim, input._array.ndim, "select")
    return slice_view(input, index=(slice(None),) * d + (operator.index(index),))
