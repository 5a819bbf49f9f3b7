"""Reading and writing by index: index_select, gather, scatter, and ``x[...]``.

Everything comes down to three things that a backend does: ``take`` (whole slices along a
dimension), ``gather`` (single elements along a dimension) and ``scatter``. They check indices.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from gpugrad import dtypes, layout
from gpugrad.autograd.modes import mode
from gpugrad.ops import elementwise as e
from gpugrad.ops import inplace, table
from gpugrad.ops.creation import cast, contiguous, full, tensor, zeros
from gpugrad.ops.mapping import elementwise
from gpugrad.ops.movement import expand, movedim, reshape, slice_view, unsqueeze
from gpugrad.ops.table import Sample, composite, describe, primitive, public, same_device

_INT = np.dtype(np.int64)


def _indices(high: int, *shape: int) -> Any:
    return lambda r: r.integers(0, high, shape)


def _check_index(op: str, x: Any, index: Any) -> Any:
    table.as_tensor_arg(op, index)
    if index.dtype.category != 1:
        raise IndexError(f"{op}: the index must be an integer tensor, got {index.dtype.name}")
    if index._backend is not x._backend:
        same_device(op, (x, index))
    return cast(index, dtypes.int64)


# Negative indices count from the end; which elements are out of range is checked where the
# data is. b is the size.
def _wrapping(name: str, op: str) -> Any:
    return elementwise(
        name,
        lambda a, b: np.where(a < 0, a + b, a),
        "a < 0 ? a + b : a",
        arity=2,
        check=lambda a, b: (a < -b) | (a >= b),
        c_check="a < -b || a >= b",
        error=(IndexError, op + ": index {a} is out of range for size {b}"),
        samples=(),
    )


_wrap_index = _wrapping("wrap_index", "index")
_wrap_take = _wrapping("wrap_take", "take")


# -- whole slices ------------------------------------------------------------


@primitive(
    "index_select",
    (lambda g, a_shape, b, dim: _index_add_zeros(g, b, shape=a_shape, dim=dim), None),
    reference=lambda a, i, dim: np.take(a, i, axis=dim),
    samples=(
        Sample(((4, 3), [2, 0, 2]), {"dim": 0}),
        Sample(((2, 5, 3), [[1, 1, 4, 0]][0]), {"dim": 1}),
        Sample(((3, 2), _indices(3, 0)), {"dim": 0}),
    ),
)
def _index_select(backend: Any, a: Any, index: Any, dim: int, op: str = "index_select") -> Any:
    return backend.take(a, index, dim, op)


@primitive("index_add_into_zeros", (lambda g, b, dim: _index_select(g, b, dim=dim), None))
def _index_add_zeros(backend: Any, a: Any, index: Any, shape: tuple[int, ...], dim: int) -> Any:
    """Zeros of ``shape`` to which the slices of ``a`` are added: the adjoint of index_select."""
    out = backend.empty(shape, a.dtype)
    backend.fill(out, 0)
    backend.scatter(out, _along(backend, index, a.shape, dim), a, dim, "add", "index_add")
    return out


def _along(backend: Any, index: Any, shape: Sequence[int], dim: int) -> Any:
    """A 1-d index shown as one of ``shape``, the same for every line along ``dim``."""
    strides = [0] * len(shape)
    strides[dim] = index.strides[0]
    return backend.as_strided(index, shape, strides, 0)


def index_select(x: Any, dim: int, index: Any, op: str = "index_select") -> Any:
    """The slices of ``x`` along ``dim`` that the 1-d integer ``index`` names, in its order.
    Raises IndexError outside [0, n)."""
    index = _check_index(op, x, index)
    if index._array.ndim > 1:
        raise IndexError(f"{op}: the index must be 1-d, got shape {tuple(index.shape)}")
    if not x._array.ndim:
        return reshape(index_select(reshape(x, 1), 0, reshape(index, -1)), ())
    index = reshape(index, -1)
    return _index_select(x, index, dim=layout.normalize_axis(dim, x._array.ndim, op), op=op)


public("index_select")(index_select)
_index_select.op.function = lambda x, index, dim: index_select(x, dim, index)  # type: ignore[attr-defined]


def embedding(index: Any, weight: Any, op: str = "embedding") -> Any:
    """Rows of ``weight`` ``[n, d]`` named by an integer ``index`` of any shape: ``[*index.shape, d]``."""
    index = _check_index(op, weight, index)
    rows = _index_select(weight, reshape(index, -1), dim=0, op=op)
    return reshape(rows, (*index._array.shape, *weight._array.shape[1:]))


# -- single elements -----------------------------------------------------------------


@primitive(
    "gather",
    (lambda g, a_shape, b, dim: scatter_add(zeros(a_shape, dtype=g.dtype, device=g.device), dim, b, g), None),
    reference=lambda a, i, dim: np.take_along_axis(a, i, dim),
    samples=(Sample(((3, 4), _indices(4, 3, 2)), {"dim": 1}), Sample(((3, 4), _indices(3, 5, 4)), {"dim": 0})),
)
def _gather(backend: Any, a: Any, index: Any, dim: int, op: str = "gather") -> Any:
    return backend.gather(a, index, dim, op)


def _check_gather(op: str, x: Any, index: Any, dim: int) -> int:
    d = layout.normalize_axis(dim, x._array.ndim, op)
    shape, want = index._array.shape, x._array.shape
    if len(shape) != len(want) or (
        index._array.size and any(n > m for i, (n, m) in enumerate(zip(shape, want, strict=True)) if i != d)
    ):
        raise RuntimeError(
            f"{op}: the index of shape {tuple(shape)} must have as many dimensions as the tensor of shape "
            f"{tuple(want)} "
            f"and be no larger except in dimension {d}"
        )
    return d


def gather(x: Any, dim: int, index: Any, *, op: str = "gather") -> Any:
    """``out[i][j] = x[index[i][j]][j]`` for dim 0, and so on. Raises IndexError outside [0, n), in
    the name of ``op``."""
    index = _check_index(op, x, index)
    if not x._array.ndim:
        return reshape(gather(reshape(x, 1), 0, reshape(index, -1), op=op), index._array.shape)
    return _gather(x, index, dim=_check_gather(op, x, index, dim), op=op)


public("gather")(gather)
_gather.op.function = lambda x, index, dim: gather(x, dim, index)  # type: ignore[attr-defined]


def take_along_dim(x: Any, index: Any, dim: int | None = None) -> Any:
    """:func:`gather` with ``x`` and ``index`` broadcast but along ``dim``; without, flattened."""
    if dim is None:
        return gather(reshape(x, -1), 0, reshape(index, -1))
    d = layout.normalize_axis(dim, x._array.ndim, "take_along_dim")
    a, b = list(x._array.shape), list(index._array.shape)
    n, m = a[d], b[d]
    a[d] = b[d] = 1
    common = list(layout.broadcast_shapes(a, b))
    return gather(expand(x, common[:d] + [n] + common[d + 1 :]), d, expand(index, common[:d] + [m] + common[d + 1 :]))


def take(x: Any, index: Any) -> Any:
    """Elements of the flattened ``x``, in the shape of ``index``; negative ones from the end."""
    index = _wrap_take(_check_index("take", x, index), x._array.size)
    return reshape(index_select(reshape(x, -1), 0, reshape(index, -1), "take"), index._array.shape)


# -- scatter -----------------------------------------------------------------------------


def _scatter_reference(ufunc: Any) -> Any:
    def reference(a: Any, index: Any, src: Any, dim: int) -> Any:
        out = a.copy()
        where = [
            np.arange(n).reshape([-1 if i == j else 1 for j in range(index.ndim)]) for i, n in enumerate(index.shape)
        ]
        where[dim] = index
        src = src[tuple(slice(0, n) for n in index.shape)]
        if ufunc is None:
            out[tuple(where)] = src
        else:
            ufunc.at(out, tuple(where), src)
        return out

    return reference


def _permuted(n: int, rows: int, columns: int) -> Any:
    return lambda r: np.stack([r.permutation(n)[:rows] for _ in range(columns)], 1)


@primitive(
    "scatter",
    (lambda g, b, dim: scatter(g, dim, b, 0.0), None, lambda g, b, dim: gather(g, dim, b)),
    reference=_scatter_reference(None),
    samples=(Sample(((4, 3), _permuted(4, 2, 3), (2, 3)), {"dim": 0}),),
)
def _scatter(backend: Any, a: Any, index: Any, src: Any, dim: int) -> Any:
    out = backend.copy(a)
    backend.scatter(out, index, src, dim, "set", "scatter")
    return out


@primitive(
    "scatter_add",
    (lambda g: g, None, lambda g, b, dim: gather(g, dim, b)),
    reference=_scatter_reference(np.add),
    samples=(
        Sample(((4, 3), _indices(4, 5, 3), (5, 3)), {"dim": 0}),
        Sample(((2, 3), _indices(3, 2, 6), (2, 6)), {"dim": 1}),
    ),
)
def _scatter_add(backend: Any, a: Any, index: Any, src: Any, dim: int) -> Any:
    out = backend.copy(a)
    backend.scatter(out, index, src, dim, "add", "scatter_add")
    return out


def _scatter_reduce_grads(g: Any, a: Any, b: Any, c: Any, y: Any, dim: int, mode: str) -> tuple[Any, Any]:
    if mode == "multiply":
        whole = e.mul(g, y)
        return e.div(whole, a), e.div(gather(whole, dim, b), c)
    hit_a = cast(e.eq(a, y), g.dtype)
    hit_c = cast(e.eq(c, gather(y, dim, b)), g.dtype)
    share = e.div(g, scatter_add(hit_a, dim, b, hit_c))
    return e.mul(share, hit_a), e.mul(gather(share, dim, b), hit_c)


@primitive(
    "scatter_reduce",
    (
        lambda g, a, b, c, y, dim, mode: _scatter_reduce_grads(g, a, b, c, y, dim, mode)[0],
        None,
        lambda g, a, b, c, y, dim, mode: _scatter_reduce_grads(g, a, b, c, y, dim, mode)[1],
    ),
)
def _scatter_reduce(backend: Any, a: Any, index: Any, src: Any, dim: int, mode: str) -> Any:
    out = backend.copy(a)
    backend.scatter(out, index, src, dim, mode, "scatter_reduce")
    return out


def _scatter_arguments(op: str, x: Any, dim: int, index: Any, src: Any) -> tuple[Any, int, Any, Any]:
    index = _check_index(op, x, index)
    d = _check_gather(op, x, index, dim)
    if not isinstance(src, table.Tensor):
        src = full(index._array.shape, src, dtype=x.dtype, device=x.device)
    if src.dtype is not x.dtype:
        raise RuntimeError(f"{op}: src must have the dtype of the tensor, got {describe(x, src)}")
    same_device(op, (x, src))
    if len(src._array.shape) != len(index._array.shape) or any(
        n < m for n, m in zip(src._array.shape, index._array.shape, strict=True)
    ):
        raise RuntimeError(
            f"{op}: src of shape {tuple(src.shape)} is smaller than the index of shape {tuple(index.shape)}"
        )
    if src._array.shape != index._array.shape:
        src = slice_view(src, index=tuple(slice(0, n) for n in index._array.shape))
    return index, d, src, x


_REDUCE_MODES = {"sum": "add", "add": "add", "prod": "multiply", "multiply": "multiply", "amax": "max", "amin": "min"}


def scatter(x: Any, dim: int, index: Any, src: Any, *, reduce: str | None = None) -> Any:
    """A copy of ``x`` with ``x[index[i][j]][j] = src[i][j]`` (dim 0, and so on); ``src`` a tensor or a
    number. Where an index repeats the last one stays. ``reduce``: add or multiply instead."""
    index, d, src, x = _scatter_arguments("scatter", x, dim, index, src)
    if reduce is None:
        return _scatter(x, index, src, dim=d)
    return _reduced(x, index, src, d, reduce, "scatter")


def _reduced(x: Any, index: Any, src: Any, d: int, reduce: str, op: str) -> Any:
    if reduce not in _REDUCE_MODES:
        raise RuntimeError(f"{op}: reduce must be one of {', '.join(_REDUCE_MODES)}, not {reduce!r}")
    kind = _REDUCE_MODES[reduce]
    if kind == "add":
        return _scatter_add(x, index, src, dim=d)
    return _scatter_reduce(x, index, src, dim=d, mode=kind)


_scatter.op.function = lambda x, index, src, dim: scatter(x, dim, index, src)  # type: ignore[attr-defined]


def scatter_add(x: Any, dim: int, index: Any, src: Any) -> Any:
    """A copy of ``x`` with ``src`` added where ``index`` says; duplicates add up in a fixed order."""
    index, d, src, x = _scatter_arguments("scatter_add", x, dim, index, src)
    return _scatter_add(x, index, src, dim=d)


_scatter_add.op.function = lambda x, index, src, dim: scatter_add(x, dim, index, src)  # type: ignore[attr-defined]


def scatter_reduce(x: Any, dim: int, index: Any, src: Any, reduce: str, *, include_self: bool = True) -> Any:
    """:func:`scatter` combining by ``reduce``: sum, prod, mean, amax, amin; without
    ``include_self`` the elements of ``x`` that are written to do not take part."""
    index, d, src, x = _scatter_arguments("scatter_reduce", x, dim, index, src)
    if not include_self:
        floor = {"sum": 0, "mean": 0, "prod": 1}.get(reduce)
        if floor is None:
            if x.dtype.is_floating_point:
                limit: Any = float("inf")
            else:
                info = dtypes.iinfo(x.dtype)
                limit = info.max if reduce == "amin" else info.min
            floor = -limit if reduce == "amax" and x.dtype.is_floating_point else limit
        x = scatter(x, d, index, floor)
    if reduce == "mean":
        ones = full(index._array.shape, 1, dtype=x.dtype, device=x.device)
        count = scatter_add(
            full(x._array.shape, 1 if include_self else 0, dtype=x.dtype, device=x.device), d, index, ones
        )
        total = _scatter_add(x, index, src, dim=d)
        count = e.clamp_min(count, 1)
        return e.div(total, count) if x.dtype.is_floating_point else e.floor_divide(total, count)
    return _reduced(x, index, src, d, reduce, "scatter_reduce")


def _whole_slices(op: str, x: Any, dim: int, index: Any, source: Any) -> tuple[int, Any]:
    """``index`` (1-d) shown in the shape of ``source``, for the slice-wise forms."""
    d = layout.normalize_axis(dim, x._array.ndim, op)
    index = reshape(_check_index(op, x, index), -1)
    want = list(x._array.shape)
    want[d] = index._array.size
    if list(source._array.shape) != want:
        kind = IndexError if op == "index_copy" else RuntimeError
        raise kind(f"{op}: source of shape {tuple(source.shape)} should have shape {tuple(want)} for this index")
    line = reshape(index, [-1 if i == d else 1 for i in range(len(want))])
    return d, expand(line, want)


def index_add(x: Any, dim: int, index: Any, source: Any, *, alpha: float = 1) -> Any:
    """A copy of ``x`` with the slices of ``alpha * source`` added at ``index`` along ``dim``."""
    d, wide = _whole_slices("index_add", x, dim, index, source)
    return scatter_add(x, d, wide, source if alpha == 1 else e.mul(source, alpha))


def index_copy(x: Any, dim: int, index: Any, source: Any) -> Any:
    """A copy of ``x`` with its slices at ``index`` along ``dim`` replaced by those of ``source``."""
    d, wide = _whole_slices("index_copy", x, dim, index, source)
    return scatter(x, d, wide, source)


def index_fill(x: Any, dim: int, index: Any, value: Any) -> Any:
    """A copy of ``x`` with its slices at ``index`` along ``dim`` set to ``value``."""
    shape = list(x._array.shape)
    shape[layout.normalize_axis(dim, len(shape), "index_fill")] = index._array.size
    value = value.item() if isinstance(value, table.Tensor) else value
    return index_copy(x, dim, index, full(shape, value, dtype=x.dtype, device=x.device))


@composite(
    reference=lambda a, mask, value: np.where(mask, value, a),
    samples=(Sample(((3, 4), lambda r: r.random((3, 4)) > 0.5), {"value": 7.0}),),
)
def masked_fill(x: Any, mask: Any, value: Any) -> Any:
    """``x`` with ``value`` (a number or a 0-d tensor) where the bool ``mask`` is true."""
    if mask.dtype is not dtypes.bool_:
        raise RuntimeError(f"masked_fill: the mask must be a bool tensor, got {mask.dtype.name}")
    if isinstance(value, table.Tensor):
        if value._array.ndim:
            raise RuntimeError(f"masked_fill: value must be a number or a 0-d tensor, got shape {tuple(value.shape)}")
        value = cast(value, x.dtype)
    elif not x.dtype.is_floating_point:
        value = bool(value) if x.dtype is dtypes.bool_ else int(value)
    return e.where(mask, value, x)


def masked_select(x: Any, mask: Any) -> Any:
    """The elements of ``x`` where ``mask`` (broadcast with it) is true, 1-d."""
    if mask.dtype is not dtypes.bool_:
        raise RuntimeError(f"masked_select: the mask must be a bool tensor, got {mask.dtype.name}")
    try:
        shape = layout.broadcast_shapes(x._array.shape, mask._array.shape)
    except ValueError as error:
        raise RuntimeError(f"masked_select: {error}") from None
    return getitem(expand(x, shape), expand(mask, shape))


# -- nonzero --------------------------------------------------------------------------------


def nonzero(x: Any, *, as_tuple: bool = False) -> Any:
    """int64 indices of the elements that are not zero: ``[count, ndim]``, or a tuple with one 1-d
    tensor per dimension. Waits for the device, which alone knows how many there are."""
    columns = _nonzero_columns(x)
    if as_tuple:
        return tuple(columns) if columns else (table.wrap(x._backend.nonzero(x._array), x._backend),)
    if not columns:
        count = x._backend.nonzero(x._array).shape[0]
        return zeros((count, 0), dtype=dtypes.int64, device=x.device)
    from gpugrad.ops.joining import stack

    return stack(columns, 1)


argwhere = nonzero


def _nonzero_columns(x: Any) -> list[Any]:
    flat = table.wrap(x._backend.nonzero(x._array), x._backend)
    columns = []
    shape = x._array.shape
    for i in range(len(shape)):
        inner = prod(shape[i + 1 :])
        column = e.floor_divide(flat, inner) if inner > 1 else flat
        columns.append(e.remainder(column, shape[i]) if i and shape[i] > 0 else column)
    return columns


# -- x[...] -----------------------------------------------------------------------------------


def getitem(x: Any, index: Any) -> Any:
    """``x[index]`` with integers, slices, ``...``, None (views), integer and bool tensors, arrays or
    lists (copies). An integer beside a tensor index is taken first, as in PyTorch."""
    basic, advanced = _split_index(x, index)
    if basic is not None:
        x = slice_view(x, index=basic)
    if not advanced:
        return x
    if len(advanced) == 1:
        dim, i = advanced[0]
        n = x._array.shape[dim]
        picked = index_select(x, dim, reshape(_wrap_index(i, n), -1), "index")
        return _put_dims(picked, x._array.shape, dim, i._array.shape)
    dims = [d for d, _ in advanced]
    rows, linear, shape = _linearise(x, advanced)
    picked = reshape(index_select(rows, 0, reshape(linear, -1), "index"), (*shape, *rows._array.shape[1:]))
    if dims == list(range(dims[0], dims[0] + len(dims))) and dims[0]:
        return movedim(picked, tuple(range(len(shape))), tuple(range(dims[0], dims[0] + len(shape))))
    return picked


def _put_dims(picked: Any, old: Sequence[int], dim: int, shape: Sequence[int]) -> Any:
    return reshape(picked, (*old[:dim], *shape, *old[dim + 1 :])) if len(shape) != 1 else picked


def _linearise(x: Any, advanced: list[tuple[int, Any]]) -> tuple[Any, Any, tuple[int, ...]]:
    """``x`` with the indexed dimensions first and merged, and one index into that."""
    sizes = [x._array.shape[d] for d, _ in advanced]
    try:
        shape = layout.broadcast_shapes(*(i._array.shape for _, i in advanced))
    except ValueError as error:
        raise IndexError(f"index: the index tensors do not broadcast: {error}") from None
    linear = None
    for n, (_, i) in zip(sizes, advanced, strict=True):
        i = _wrap_index(i, n)
        linear = i if linear is None else e.add(e.mul(linear, n), i)
    linear = expand(linear, shape)
    front = movedim(x, tuple(d for d, _ in advanced), tuple(range(len(advanced))))
    rest = front._array.shape[len(advanced) :]
    return reshape(front, (prod(sizes), *rest)), linear, shape


def _split_index(x: Any, index: Any) -> tuple[tuple[Any, ...] | None, list[tuple[int, Any]]]:
    """The basic part of an index (None if it changes nothing), and (dimension after the basic
    part, int64 tensor) for each index tensor."""
    items = index if isinstance(index, tuple) else (index,)
    items = tuple(_as_index(i, x) for i in items)
    ndim = x._array.ndim
    used = sum(
        0 if i is None or i is Ellipsis or i is True or i is False else i._array.ndim if _is_mask(i) else 1
        for i in items
    )
    if used > ndim:
        raise IndexError(f"index: too many indices ({used}) for a tensor of {ndim} dimensions")
    if sum(1 for i in items if i is Ellipsis) > 1:
        raise IndexError("index: an index can have only one ellipsis ('...')")
    basic: list[Any] = []
    advanced: list[tuple[int, Any]] = []
    where = axis = 0  # dimension of the result of the basic part; dimension of x
    for i in items:
        if isinstance(i, table.Tensor):
            if _is_mask(i):
                want = x._array.shape[axis : axis + i._array.ndim]
                if i._array.shape != want:
                    raise IndexError(
                        f"index: the mask of shape {tuple(i.shape)} does not match the tensor of shape "
                        f"{tuple(x.shape)} "
                        f"from dimension {axis} on"
                    )
                for column in _nonzero_columns(i):
                    basic.append(slice(None))
                    advanced.append((where, column))
                    where += 1
                axis += i._array.ndim
            else:
                basic.append(slice(None))
                advanced.append((where, cast(i, dtypes.int64)))
                where += 1
                axis += 1
        elif i is True or i is False:
            basic.append(None)
            advanced.append((where, zeros(1 if i else 0, dtype=dtypes.int64, device=x.device)))
            where += 1
        else:
            basic.append(i)
            if i is None:
                where += 1
            elif i is Ellipsis:
                where += ndim - used
                axis += ndim - used
            elif isinstance(i, slice):
                where += 1
                axis += 1
            else:
                axis += 1
    trivial = all(i is Ellipsis or (isinstance(i, slice) and i == slice(None)) for i in basic)
    # x[...] and x[:] make a view too, but an index tensor alone needs no view below it
    return (None if trivial and advanced else tuple(basic)), advanced


def _is_mask(i: Any) -> bool:
    return isinstance(i, table.Tensor) and i.dtype.category == 0


def _as_index(i: Any, x: Any) -> Any:
    if i is None or i is Ellipsis or isinstance(i, bool):
        return i
    if isinstance(i, slice):
        parts = [p.item() if isinstance(p, (table.Tensor, np.generic)) else p for p in (i.start, i.stop, i.step)]
        if parts[2] is not None and parts[2] < 0:
            raise ValueError("index: slices with a negative step are not supported; use flip()")
        return slice(*parts)
    if isinstance(i, (list, range, np.ndarray)):
        i = tensor(i if isinstance(i, np.ndarray) else list(i), device=x.device)
        if not i._array.size and i.dtype.category == 2:
            i = cast(i, dtypes.int64)
    if isinstance(i, table.Tensor):
        if i.dtype.category == 2:
            raise IndexError(
                f"index: a tensor of {i.dtype.name} cannot index another; convert with .long() or compare for a mask"
            )
        if i._array.ndim == 0 and i._backend.name == "cpu":
            return bool(i.item()) if i.dtype.category == 0 else int(i.item())
        if i._backend is not x._backend:
            if i._backend.name != "cpu":
                same_device("index", (x, i))
            i = i.to(x.device)
        return i
    try:
        return operator.index(i)
    except TypeError:
        raise IndexError(
            f"index: {type(i).__name__} is not an index; use integers, slices, '...', None, or integer or bool tensors"
        ) from None


def setitem(x: Any, index: Any, value: Any) -> None:
    """``x[index] = value``, in place; ``value`` a number or a tensor that broadcasts."""
    basic, advanced = _split_index(x, index)
    target = x if basic is None else slice_view(x, index=basic)
    if not advanced:
        value = _as_value("index assignment", x, value, target._array.shape)
        inplace.write("index assignment", target, value)
        return
    rows, linear, shape = _linearise(target, advanced)
    dims = [d for d, _ in advanced]
    adjacent = dims == list(range(dims[0], dims[0] + len(dims)))
    rest = rows._array.shape[1:]
    place = dims[0] if adjacent else 0
    value = _as_value("index assignment", x, value, (*rest[:place], *shape, *rest[place:]))
    if place:
        value = movedim(value, tuple(range(place, place + len(shape))), tuple(range(len(shape))))
    flat = reshape(value, (linear._array.size, *rest))
    recording = mode.enabled and (x.requires_grad or value.requires_grad)
    if not recording and rows._storage is not None and rows._storage is target._storage:
        inplace.check_inplace("index assignment", x)
        line = contiguous(reshape(linear, -1))
        wide = _along(x._backend, line._array, flat._array.shape, 0) if rest else line._array
        x._backend.scatter(rows._array, wide, flat._array, 0, "set", "index assignment")
        inplace.changed("index assignment", x)
        return
    updated = index_copy(rows, 0, reshape(linear, -1), flat)
    front = reshape(updated, [*(target._array.shape[d] for d in dims), *rest])
    inplace.write("index assignment", target, movedim(front, tuple(range(len(dims))), tuple(dims)))


def _as_value(op: str, x: Any, value: Any, shape: Sequence[int]) -> Any:
    if not isinstance(value, table.Tensor):
        value = (
            tensor(value, device=x.device)
            if not isinstance(value, (bool, int, float))
            else full((), value, dtype=x.dtype, device=x.device)
        )
    if value._backend is not x._backend:
        if value._array.ndim:
            same_device(op, (x, value))
        value = value.to(x.device)
    value = cast(value, x.dtype)
    extra = value._array.ndim - len(shape)
    if extra > 0 and value._array.shape[:extra] == (1,) * extra:
        value = reshape(value, value._array.shape[extra:])
    try:
        fits = layout.broadcast_shapes(value._array.shape, shape) == tuple(shape)
    except ValueError:
        fits = False
    if not fits:
        raise RuntimeError(
            f"{op}: a value of shape {tuple(value.shape)} does not broadcast to the indexed shape {tuple(shape)}"
        )
    return expand(value, shape)


def one_hot(index: Any, num_classes: int = -1) -> Any:
    """int64 ``[*index.shape, num_classes]``: 1 where the class is the index, else 0."""
    index = cast(index, dtypes.int64)
    if num_classes < 0:
        if not index._array.size:
            raise RuntimeError("one_hot: num_classes must be given for an index without elements")
        num_classes = int(index.max().item()) + 1
    out = zeros((*index._array.shape, num_classes), dtype=dtypes.int64, device=index.device)
    return scatter(out, -1, unsqueeze(index, -1), 1)
