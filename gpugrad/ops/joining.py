"""Ops that join, repeat and rearrange elements into new memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gpugrad import layout
from gpugrad.ops import table
from gpugrad.ops.creation import cast, clone, shape_of
from gpugrad.ops.movement import expand, narrow, reshape, transpose, unsqueeze
from gpugrad.ops.table import Op, composite, describe, primitive, public, same_device, wrap
from gpugrad.ops.table import Sample as S


def _cat_vjp(g: Any, dim: int, shapes: Any, needed: Any) -> list[Any]:
    result, start = [], 0
    for shape, wanted in zip(shapes, needed, strict=True):
        result.append(narrow(g, dim, start, shape[dim]) if wanted else None)
        start += shape[dim]
    return result


_cat = Op(
    "cat",
    "variadic",
    _cat_vjp,
    reference=lambda arrays, dim=0: np.concatenate(arrays, dim),
    samples=(S(((2, 3), (1, 3)), args_as_list=True), S(((2, 3), (2, 1), (2, 0)), {"dim": -1}, args_as_list=True)),
)


@public("cat")
def cat(tensors: Sequence[Any], dim: int = 0) -> Any:
    """The tensors one after the other along ``dim``. Shapes agree but there; dtypes are
    promoted. Raises RuntimeError otherwise."""
    _not_one("cat", tensors)
    tensors = list(tensors)
    if not tensors:
        raise ValueError("cat: expected at least one tensor")
    for x in tensors:
        table.as_tensor_arg("cat", x)
    backend = same_device("cat", tensors)
    # PyTorch lets an empty 1-d tensor stand among tensors of any shape, and be joined along any dimension.
    solid = [x for x in tensors if x._array.shape != (0,)] or tensors[:1]
    first = solid[0]._array
    d = layout.normalize_axis(dim, first.ndim, "cat") if first.shape != (0,) else 0
    if first.ndim == 0:
        raise RuntimeError("cat: zero-dimensional tensors cannot be joined; use stack()")
    for x in solid[1:]:
        shape = x._array.shape
        if len(shape) != first.ndim or any(
            n != m for i, (n, m) in enumerate(zip(shape, first.shape, strict=True)) if i != d
        ):
            raise RuntimeError(
                f"cat: shapes must agree except in dimension {d}, got {', '.join(str(tuple(s.shape)) for s in tensors)}"
            )
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


@composite(
    reference=lambda arrays, dim=0: np.stack(arrays, dim),
    samples=(S(((2, 3), (2, 3)), args_as_list=True), S(((2, 3), (2, 3)), {"dim": -1}, args_as_list=True)),
)
def stack(tensors: Sequence[Any], dim: int = 0) -> Any:
    """Tensors of one shape joined along a new dimension ``dim``."""
    _not_one("stack", tensors)
    tensors = list(tensors)
    if not tensors:
        raise RuntimeError("stack: expected at least one tensor")
    shape = tuple(tensors[0].shape)
    for x in tensors:
        if tuple(x.shape) != shape:
            raise RuntimeError(f"stack: all tensors must have one shape, got {describe(*tensors)}")
    d = layout.normalize_axis(dim, len(shape), "stack", 1)
    return cat([unsqueeze(x, d) for x in tensors], d)


def _not_one(op: str, tensors: Any) -> None:
    if isinstance(tensors, table.Tensor):
        raise TypeError(f"{op}: expected a list or tuple of tensors, got one tensor; [tensor] is a list of one")


def _listed(op: str, tensors: Any) -> list[Any]:
    """The tensors of a list or tuple. Raises TypeError, RuntimeError if there is none."""
    _not_one(op, tensors)
    given = [table.as_tensor_arg(op, x) for x in tensors]
    if not given:
        raise RuntimeError(f"{op}: expected at least one tensor")
    return given


def _each(op: str, tensors: tuple[Any, ...], change: Any) -> Any:
    """``change`` of a tensor; of each, as a tuple, if several or a list are given."""
    if len(tensors) == 1 and isinstance(tensors[0], table.Tensor):
        return change(tensors[0])
    many = tensors[0] if len(tensors) == 1 and isinstance(tensors[0], (list, tuple)) else tensors
    return tuple(change(table.as_tensor_arg(op, x)) for x in many)


def _raise_to_1d(x: Any) -> Any:
    return x if x._array.ndim else reshape(x, 1)


def _raise_to_2d(x: Any) -> Any:
    return x if x._array.ndim > 1 else reshape(x, (1, -1)) if x._array.size else reshape(x, (1, *x._array.shape))


def _raise_to_3d(x: Any) -> Any:
    return x if x._array.ndim > 2 else unsqueeze(_raise_to_2d(x), -1)


def atleast_1d(*tensors: Any) -> Any:
    """A view with at least one dimension; of several tensors (or a list of them) a tuple."""
    return _each("atleast_1d", tensors, _raise_to_1d)


def atleast_2d(*tensors: Any) -> Any:
    """A view with at least two dimensions: a number or a line becomes a row. Several give a tuple."""
    return _each("atleast_2d", tensors, _raise_to_2d)


def atleast_3d(*tensors: Any) -> Any:
    """A view with at least three dimensions: ``[n]`` becomes ``[1, n, 1]``, ``[n, m]`` ``[n, m, 1]``."""
    return _each("atleast_3d", tensors, _raise_to_3d)


_LINES = (S(((3,), (3,)), args_as_list=True), S(((), ()), args_as_list=True), S(((2, 3), (2, 3)), args_as_list=True))


@composite(reference=np.hstack, samples=_LINES)
def hstack(tensors: Sequence[Any]) -> Any:
    """Joined along the second dimension (the first, if they are 1-d)."""
    rows = [_raise_to_1d(x) for x in _listed("hstack", tensors)]
    return cat(rows, 0 if rows[0]._array.ndim == 1 else 1)


@composite(reference=np.vstack, samples=_LINES)
def vstack(tensors: Sequence[Any]) -> Any:
    """Joined along the first dimension, 1-d tensors as rows."""
    return cat([_raise_to_2d(x) for x in _listed("vstack", tensors)], 0)


row_stack = vstack


@composite(reference=np.dstack, samples=_LINES)
def dstack(tensors: Sequence[Any]) -> Any:
    """Joined along the third dimension, which :func:`atleast_3d` gives those that lack it."""
    return cat([_raise_to_3d(x) for x in _listed("dstack", tensors)], 2)


@composite(reference=np.column_stack, samples=_LINES)
def column_stack(tensors: Sequence[Any]) -> Any:
    """Joined along the second dimension, 0-d and 1-d tensors as columns."""
    columns = [reshape(x, (x._array.size, 1)) if x._array.ndim < 2 else x for x in _listed("column_stack", tensors)]
    return cat(columns, 1)


# -- copies with elements rearranged ----------------------------------------------------------


@primitive(
    "flip",
    (lambda g, dims: flip(g, dims),),
    reference=lambda a, dims: np.flip(a, dims),
    samples=(S(((3, 4),), {"dims": (0,)}), S(((2, 3, 4),), {"dims": (0, -1)})),
)
def _flip(backend: Any, a: Any, dims: tuple[int, ...]) -> Any:
    index = tuple(slice(None, None, -1) if i in dims else slice(None) for i in range(a.ndim))
    return backend.copy(a[index] if dims and a.size else a)


@public("flip")
def flip(input: Any, *axes: Any, dims: Any = None) -> Any:
    """A copy with the order along ``dims`` reversed."""
    dims = axes if dims is None else (dims,) if isinstance(dims, int) else tuple(dims)
    if len(dims) == 1 and not isinstance(dims[0], int):
        dims = tuple(dims[0])
    return _flip(input, dims=layout.normalize_axes(dims, input._array.ndim, "flip") if dims else ())


def fliplr(input: Any) -> Any:
    """Columns in reverse order."""
    if input._array.ndim < 2:
        raise RuntimeError(f"fliplr: expected at least 2 dimensions, got shape {tuple(input._array.shape)}")
    return flip(input, 1)


def flipud(input: Any) -> Any:
    """Rows in reverse order."""
    if not input._array.ndim:
        raise RuntimeError("flipud: expected at least 1 dimension, got a 0-d tensor")
    return flip(input, 0)


@composite(
    reference=lambda a, k=1, dims=(0, 1): np.rot90(a, k, dims),
    samples=(
        S(((3, 4),)),
        S(((3, 4),), {"k": 2}),
        S(((2, 3, 4),), {"k": -1, "dims": (1, 2)}),
        S(((2, 0),), {"k": 3, "dims": (-1, 0)}),
        S(((3, 2),), {"k": 4}),
    ),
)
def rot90(input: Any, k: int = 1, dims: Sequence[int] = (0, 1)) -> Any:
    """A copy turned ``k`` quarters from the first of two dimensions towards the second."""
    ndim = input._array.ndim
    if len(dims) != 2 or ndim < 2:
        raise RuntimeError(
            f"rot90: expected two dims of a tensor of at least 2, got {tuple(dims)} for {describe(input)}"
        )
    first, second = (layout.normalize_axis(d, ndim, "rot90") for d in dims)
    if first == second:
        raise RuntimeError(f"rot90: dims {tuple(dims)} must be two different ones")
    turns = k % 4
    if not turns:
        return clone(input)
    if turns == 2:
        return flip(input, (first, second))
    turned = transpose(input, first, second)
    return flip(turned, first if turns == 1 else second)


@composite(
    reference=lambda a, shifts, dims=None: np.roll(a, shifts, dims),
    samples=(
        S(((3, 4),), {"shifts": 2}),
        S(((3, 4),), {"shifts": (1, -2), "dims": (0, 1)}),
        S(((0, 3),), {"shifts": 1, "dims": 0}),
    ),
)
def roll(input: Any, shifts: Any, dims: Any = None) -> Any:
    """Elements moved ``shifts`` places along ``dims``, those pushed out re-entering at the
    other end; without ``dims`` over the flattened tensor."""
    shifts = (shifts,) if isinstance(shifts, int) else tuple(shifts)
    dims = () if dims is None else (dims,) if isinstance(dims, int) else tuple(dims)
    if not shifts or (not dims and len(shifts) > 1) or (dims and len(shifts) != len(dims)):
        raise RuntimeError(f"roll: shifts {shifts} and dims {dims} must be as many (or one shift without dims)")
    shape = input._array.shape
    if not dims:
        return reshape(roll(reshape(input, -1), shifts, 0), shape)
    rolled = input
    for s, d in zip(shifts, dims, strict=True):
        if not shape:
            raise IndexError(f"roll: dimension {d} is out of range for a 0-d tensor; leave dims out")
        n = shape[layout.normalize_axis(d, len(shape), "roll")]
        s = s % n if n else 0
        if s:
            rolled = cat([narrow(rolled, d, n - s, s), narrow(rolled, d, 0, n - s)], d)
    return clone(rolled) if rolled is input else rolled


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


@primitive(
    "pad",
    (lambda g, pad: pad_constant(g, tuple(-p for p in pad), 0.0),),
    reference=_pad_reference,
    samples=(S(((2, 3),), {"pad": (1, 2)}), S(((2, 3, 4),), {"pad": (1, -1, 0, 2), "value": 3.0})),
)
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
def pad_constant(input: Any, pad: Sequence[int], value: float = 0.0) -> Any:
    """``input`` with ``pad = (left, right, top, bottom, ...)`` elements of ``value`` around it, from the
    last dimension on; negative widths cut off. Raises RuntimeError if nothing fits."""
    pad = tuple(int(p) for p in pad)
    shape = input._array.shape
    if len(pad) % 2 or len(pad) > 2 * len(shape):
        raise RuntimeError(f"pad: {pad} must be pairs for at most the {len(shape)} dimensions of shape {tuple(shape)}")
    for i in range(len(pad) // 2):
        if shape[-1 - i] + min(pad[2 * i], 0) + min(pad[2 * i + 1], 0) < 0:
            raise RuntimeError(
                f"pad: {pad} leaves a negative size in dimension {len(shape) - 1 - i} of shape {tuple(shape)}"
            )
    return _pad(input, pad=pad, value=value) if pad else clone(input)


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


def pad(input: Any, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> Any:
    """:func:`pad_constant`, or padding with the tensor's own elements: ``mode`` reflect,
    replicate or circular. Raises RuntimeError where they do not reach that far."""
    if mode == "constant":
        return pad_constant(input, pad, 0.0 if value is None else value)
    if mode not in ("reflect", "replicate", "circular"):
        raise NotImplementedError(f"pad: mode {mode!r} is unknown; there are constant, reflect, replicate and circular")
    if value:
        raise RuntimeError(f"pad: value goes with mode constant, not {mode}")
    from gpugrad.ops.indexing import index_select

    ndim = input._array.ndim
    if len(pad) % 2 or len(pad) > 2 * ndim:
        raise RuntimeError(f"pad: {tuple(pad)} must be pairs for at most the {ndim} dimensions")
    out = input
    for k in range(len(pad) // 2):
        d = ndim - 1 - k
        n, before, after = out._array.shape[d], pad[2 * k], pad[2 * k + 1]
        left = n + min(before, 0) + min(after, 0)  # circular: what is cut off does not come round again
        limit = {"reflect": n - 1, "circular": left, "replicate": max(before, after, 0)}[mode]
        if max(before, after, 0) > limit or n == 0 or n + before + after < (mode == "reflect"):
            raise RuntimeError(f"pad: {mode} padding ({before}, {after}) is too wide for dimension {d} of size {n}")
        if mode == "circular" and left < n:
            out = narrow(out, d, max(-before, 0), left)
            n, before, after = left, max(before, 0), max(after, 0)
        if before or after:
            index = _pad_index(n, before, after, mode)
            backend = out._backend
            out = index_select(out, d, wrap(backend.from_host(index.astype(np.int64)), backend))
    return clone(out) if out._storage is input._storage or out is input else out


def repeat(input: Any, *sizes: Any, repeats: Any = None) -> Any:
    """``input`` copied ``repeats`` times along each dimension; extra leading counts add dimensions."""
    if not sizes and repeats is None:
        raise TypeError("repeat: say how often to repeat each dimension")
    counts = shape_of(sizes if repeats is None else (repeats,), "repeat")
    shape = input._array.shape
    if len(counts) < len(shape):
        raise RuntimeError(f"repeat: {len(counts)} repeats for a tensor of {len(shape)} dimensions")
    full = (1,) * (len(counts) - len(shape)) + tuple(shape)
    pairs = [n for m in full for n in (1, m)]
    wide = [n for c, m in zip(counts, full, strict=True) for n in (c, m)]
    out = reshape(expand(reshape(input, pairs), wide), [c * m for c, m in zip(counts, full, strict=True)])
    return clone(out) if out._storage is not None and out._storage is input._storage else out


def tile(input: Any, *sizes: Any, dims: Any = None) -> Any:
    """:func:`repeat`, with missing leading counts taken as 1."""
    counts = shape_of(sizes if dims is None else (dims,), "tile")
    return repeat(input, repeats=(1,) * (input._array.ndim - len(counts)) + tuple(counts))


def meshgrid(*tensors: Any, indexing: str = "ij") -> tuple[Any, ...]:
    """Coordinate grids of 1-d tensors: as many tensors of shape ``[n0, n1, ...]``; with
    ``indexing="xy"`` the first two dimensions are exchanged."""
    if len(tensors) == 1 and isinstance(tensors[0], (list, tuple)):
        tensors = tuple(tensors[0])
    if indexing not in ("ij", "xy"):
        raise RuntimeError(f"meshgrid: indexing must be 'ij' or 'xy', not {indexing!r}")
    if not tensors:
        raise RuntimeError("meshgrid: expected at least one tensor")
    if any(x._array.ndim > 1 or x.dtype is not tensors[0].dtype for x in tensors):
        raise RuntimeError(f"meshgrid: expected 0-d or 1-d tensors of one dtype, got {describe(*tensors)}")
    same_device("meshgrid", tensors)
    sizes = [x._array.size for x in tensors]
    grids = []
    for i, x in enumerate(tensors):
        shape = [1] * len(sizes)
        shape[i] = sizes[i]
        grids.append(expand(reshape(x, shape), sizes))
    if indexing == "xy" and len(grids) > 1:
        grids = [transpose(x, 0, 1) for x in grids]
    return tuple(grids)
