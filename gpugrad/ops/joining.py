"""Ops that join, split, repeat and rearrange: those of them that make a view do, the rest copy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gpugrad import layout
from gpugrad.ops import table
from gpugrad.ops.creation import cast, clone, is_contiguous, shape_of
from gpugrad.ops.movement import expand, narrow, reshape, select, transpose, unsqueeze
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


@composite(
    reference=lambda a, shifts, dims=None: np.roll(a, shifts, dims),
    samples=(
        S(((3, 4),), {"shifts": 2}),
        S(((3, 4),), {"shifts": (1, -2), "dims": (0, 1)}),
        S(((0, 3),), {"shifts": 1, "dims": 0}),
    ),
)
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
def pad_constant(x: Any, pad: Sequence[int], value: float = 0.0) -> Any:
    """``x`` with ``pad = (left, right, top, bottom, ...)`` elements of ``value`` around it, from the
    last dimension on; negative widths cut off. Raises RuntimeError if nothing fits."""
    pad = tuple(int(p) for p in pad)
    shape = x._array.shape
    if len(pad) % 2 or len(pad) > 2 * len(shape):
        raise RuntimeError(f"pad: {pad} must be pairs for at most the {len(shape)} dimensions of shape {tuple(shape)}")
    for i in range(len(pad) // 2):
        if shape[-1 - i] + pad[2 * i] + pad[2 * i + 1] < 0:
            raise RuntimeError(
                f"pad: {pad} leaves a negative size in dimension {len(shape) - 1 - i} of shape {tuple(shape)}"
            )
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
