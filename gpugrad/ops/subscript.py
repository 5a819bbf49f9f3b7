"""``x[...]``: reading and assigning with every mix of integers, slices, masks and index tensors."""

from __future__ import annotations

import operator
import warnings
from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from gpugrad import dtypes, layout
from gpugrad.autograd.modes import mode
from gpugrad.ops import elementwise as e
from gpugrad.ops import inplace, table
from gpugrad.ops.creation import cast, clone, contiguous, full, tensor, zeros
from gpugrad.ops.indexing import along, index_select, nonzero_columns, wrap_index
from gpugrad.ops.movement import expand, movedim, reshape, slice_view
from gpugrad.ops.scattering import index_add, index_copy
from gpugrad.ops.table import describe, same_device


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
        picked = index_select(x, dim, reshape(wrap_index(i, n), -1), "index")
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
        i = wrap_index(i, n)
        linear = i if linear is None else e.add(e.mul(linear, n), i)
    linear = expand(linear, shape)
    front = movedim(x, tuple(d for d, _ in advanced), tuple(range(len(advanced))))
    rest = front._array.shape[len(advanced) :]
    return reshape(front, (prod(sizes), *rest)), linear, shape


def _split_index(x: Any, index: Any) -> tuple[tuple[Any, ...] | None, list[tuple[int, Any]]]:
    """The basic part of an index (None if it changes nothing), and (dimension after the basic
    part, int64 tensor) for each index tensor."""
    if isinstance(index, list) and _stands_for_tuple(index):
        warnings.warn(
            "a list that holds sequences, tensors or slices is read as a tuple of indices, one for each dimension; "
            "write x[tuple(index)], or x[gg.tensor(index)] for one index tensor",
            UserWarning,
            stacklevel=4,
        )
        index = tuple(index)
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
                if not i._array.ndim:  # as True or False, which only the device knows
                    basic.append(None)
                    advanced.append((where, nonzero_columns(reshape(i, 1))[0]))
                    where += 1
                    continue
                for column in nonzero_columns(i):
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


def _stands_for_tuple(index: list[Any]) -> bool:
    """Whether PyTorch takes a list for a tuple, which NumPy did once and both give up."""
    parts = (list, tuple, slice, range, np.ndarray, table.Tensor)
    return len(index) < 32 and any(i is None or i is Ellipsis or isinstance(i, parts) for i in index)


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
        if i.dtype is dtypes.uint8:
            warnings.warn("an index tensor of uint8 is read as a mask; make it bool", UserWarning, stacklevel=6)
            i = cast(i, dtypes.bool_)
        if i._array.ndim == 0 and i._backend.name == "cpu":
            return bool(i.item()) if i.dtype.category == 0 else int(i.item())
        return i if i._backend is x._backend else _follow(i, x)
    try:
        return operator.index(i)
    except TypeError:
        raise (TypeError if isinstance(i, str) else IndexError)(
            f"index: {type(i).__name__} is not an index; use integers, slices, '...', None, or integer or bool tensors"
        ) from None


def _follow(i: Any, x: Any) -> Any:
    """An index tensor on the device of ``x``: from the CPU it may travel. Raises DeviceError."""
    if i._backend.name != "cpu":
        same_device("index", (x, i))
    return i.to(x.device)


def setitem(x: Any, index: Any, value: Any) -> None:
    """``x[index] = value``, in place; ``value`` a number or a tensor that broadcasts."""
    op = "index assignment"
    if isinstance(index, table.Tensor) and _is_mask(index) and _is_single(value):
        _assign_where(op, x, index, value)
    else:
        _assign(op, x, index, value, "set")


def _is_single(value: Any) -> bool:
    return isinstance(value, (bool, int, float)) or isinstance(value, table.Tensor) and not value._array.ndim


def _assign_where(op: str, x: Any, mask: Any, value: Any) -> None:
    """One value where a mask is true: no need to know how many places that are."""
    shape, want = mask._array.shape, x._array.shape
    if shape != want[: len(shape)]:
        raise IndexError(f"{op}: the mask of shape {tuple(shape)} does not match the tensor of shape {tuple(want)}")
    value = _as_value(op, x, value, ())
    if mask._backend is not x._backend:
        mask = _follow(mask, x)
    wide = reshape(mask, (*shape, *(1 for _ in want[len(shape) :])))
    inplace.write(op, x, e.where(wide, value, x))


def _assign(op: str, x: Any, index: Any, value: Any, how: str) -> None:
    """``value`` written into ``x[index]`` ("set") or added to it ("add")."""
    basic, advanced = _split_index(x, index)
    target = x if basic is None else slice_view(x, index=basic)
    if not advanced:
        value = _as_value(op, x, value, target._array.shape)
        inplace.write(op, target, value if how == "set" else e.add(target, value))
        return
    rows, linear, shape = _linearise(target, advanced)
    dims = [d for d, _ in advanced]
    adjacent = dims == list(range(dims[0], dims[0] + len(dims)))
    rest = rows._array.shape[1:]
    place = dims[0] if adjacent else 0
    value = _as_value(op, x, value, (*rest[:place], *shape, *rest[place:]))
    if place:
        value = movedim(value, tuple(range(place, place + len(shape))), tuple(range(len(shape))))
    flat = reshape(value, (linear._array.size, *rest))
    recording = mode.enabled and (x.requires_grad or value.requires_grad)
    if not recording and rows._storage is not None and rows._storage is target._storage:
        inplace.check_inplace(op, x)
        line = contiguous(reshape(linear, -1))
        wide = along(x._backend, line._array, flat._array.shape, 0) if rest else line._array
        x._backend.scatter(rows._array, wide, flat._array, 0, how, op)
        inplace.changed(op, x)
        return
    updated = (index_copy if how == "set" else index_add)(rows, 0, reshape(linear, -1), flat)
    front = reshape(updated, [*(target._array.shape[d] for d in dims), *rest])
    inplace.write(op, target, movedim(front, tuple(range(len(dims))), tuple(dims)))


def index_put_(input: Any, indices: Sequence[Any], values: Any, accumulate: bool = False) -> Any:
    """In place: ``input[indices] = values``, or ``+=`` with ``accumulate``, where duplicates add up.

    ``indices``: a tuple of integer and bool tensors, None for a whole dimension. Raises RuntimeError unless
    ``values`` has the dtype of the tensor, IndexError for more indices than dimensions."""
    op = "index_put_"
    if not isinstance(indices, (tuple, list)):
        raise TypeError(f"{op}: indices must be a tuple of tensors, got {type(indices).__name__}")
    table.as_tensor_arg(op, values)
    if values.dtype is not input.dtype:
        raise RuntimeError(f"{op}: values must have the dtype of the tensor, got {describe(input, values)}")
    tensors = [i for i in indices if i is not None]
    if not tensors:
        raise RuntimeError(f"{op}: at least one index must be a tensor")
    for i in tensors:
        table.as_tensor_arg(op, i)
    if any(i._array.ndim for i in tensors):  # else 0-d ones would be taken as integers, before the others
        indices = [i if i is None or i._array.ndim or _is_mask(i) else reshape(i, 1) for i in indices]
    whole = tuple(slice(None) if i is None else i for i in indices)
    _assign(op, input, whole, values, "add" if accumulate else "set")
    return input


def index_put(input: Any, indices: Sequence[Any], values: Any, accumulate: bool = False) -> Any:
    """:func:`index_put_` on a copy."""
    return index_put_(clone(input), indices, values, accumulate)


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
