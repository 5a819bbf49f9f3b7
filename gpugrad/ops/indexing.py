"""Reading by index: whole slices, single elements, masks.

Everything comes down to two things that a backend does: ``take`` (whole slices along a
dimension) and ``gather`` (single elements along a dimension). They check indices. Writing is
in ``scattering.py``, ``x[...]`` in ``subscript.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from gpugrad import dtypes, layout
from gpugrad.ops import elementwise as e
from gpugrad.ops import table
from gpugrad.ops.creation import arange, cast, clone, full, zeros
from gpugrad.ops.mapping import elementwise
from gpugrad.ops.movement import expand, narrow, reshape, unsqueeze
from gpugrad.ops.table import Sample, composite, primitive, public, same_device


def _indices(high: int, *shape: int) -> Any:
    return lambda r: r.integers(0, high, shape)


def check_index(op: str, x: Any, index: Any) -> Any:
    """``index`` as int64. Raises RuntimeError unless it holds integers, DeviceError on another device."""
    table.as_tensor_arg(op, index)
    if index.dtype.category != 1:
        raise RuntimeError(f"{op}: the index must be an integer tensor, got {index.dtype.name}")
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


wrap_index = _wrapping("wrap_index", "index")
wrap_take = _wrapping("wrap_take", "take")


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
    backend.scatter(out, along(backend, index, a.shape, dim), a, dim, "add", "index_add")
    return out


def along(backend: Any, index: Any, shape: Sequence[int], dim: int) -> Any:
    """A 1-d index shown as one of ``shape``, the same for every line along ``dim``."""
    strides = [0] * len(shape)
    strides[dim] = index.strides[0]
    return backend.as_strided(index, shape, strides, 0)


def index_select(input: Any, dim: int, index: Any, op: str = "index_select") -> Any:
    """The slices of ``input`` along ``dim`` that the 1-d integer ``index`` names, in its order.
    Raises IndexError outside [0, n)."""
    index = check_index(op, input, index)
    if index._array.ndim > 1:
        raise IndexError(f"{op}: the index must be 1-d, got shape {tuple(index.shape)}")
    if not input._array.ndim:
        return reshape(index_select(reshape(input, 1), 0, reshape(index, -1)), ())
    index = reshape(index, -1)
    return _index_select(input, index, dim=layout.normalize_axis(dim, input._array.ndim, op), op=op)


public("index_select")(index_select)
_index_select.op.function = lambda x, index, dim: index_select(x, dim, index)  # type: ignore[attr-defined]


def embedding(index: Any, weight: Any, op: str = "embedding") -> Any:
    """Rows of ``weight`` ``[n, d]`` named by an integer ``index`` of any shape: ``[*index.shape, d]``."""
    index = check_index(op, weight, index)
    rows = _index_select(weight, reshape(index, -1), dim=0, op=op)
    return reshape(rows, (*index._array.shape, *weight._array.shape[1:]))


# -- single elements -----------------------------------------------------------------


@primitive(
    "gather",
    (lambda g, a_shape, b, dim: _ungather(g, b, a_shape, dim), None),
    reference=lambda a, i, dim: np.take_along_axis(a, i, dim),
    samples=(Sample(((3, 4), _indices(4, 3, 2)), {"dim": 1}), Sample(((3, 4), _indices(3, 5, 4)), {"dim": 0})),
)
def _gather(backend: Any, a: Any, index: Any, dim: int, op: str = "gather") -> Any:
    return backend.gather(a, index, dim, op)


def _ungather(g: Any, index: Any, shape: Sequence[int], dim: int) -> Any:
    from gpugrad.ops.scattering import scatter_add

    return scatter_add(zeros(shape, dtype=g.dtype, device=g.device), dim, index, g)


def check_gather(op: str, x: Any, index: Any, dim: int) -> int:
    """``dim`` from the front, if the shape of ``index`` goes with that of ``x``. Raises RuntimeError."""
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


def gather(input: Any, dim: int, index: Any, *, sparse_grad: bool = False, op: str = "gather") -> Any:
    """``out[i][j] = input[index[i][j]][j]`` for dim 0, and so on. Raises IndexError outside [0, n), in
    the name of ``op``. Gradients are dense: ``sparse_grad`` raises NotImplementedError."""
    if sparse_grad:
        raise NotImplementedError(f"{op}: sparse gradients do not exist here; leave sparse_grad out for a dense one")
    index = check_index(op, input, index)
    if not index._array.size and input._array.ndim != index._array.ndim:  # no index at all fits any tensor
        layout.normalize_axis(dim, input._array.ndim, op)
        return reshape(narrow(reshape(input, -1), 0, 0, 0), index._array.shape)
    if input._array.ndim <= 1 and index._array.ndim <= 1 and input._array.ndim != index._array.ndim:
        # PyTorch lets a 0-d tensor or index stand for one of one element.
        layout.normalize_axis(dim, input._array.ndim, op)
        return reshape(gather(reshape(input, -1), 0, reshape(index, -1), op=op), index._array.shape)
    if not input._array.ndim and not index._array.ndim:
        layout.normalize_axis(dim, 0, op)
        return reshape(gather(reshape(input, 1), 0, reshape(index, 1), op=op), ())
    return _gather(input, index, dim=check_gather(op, input, index, dim), op=op)


public("gather")(gather)
_gather.op.function = lambda x, index, dim: gather(x, dim, index)  # type: ignore[attr-defined]


def _take_along_reference(a: np.ndarray, indices: np.ndarray, dim: int | None = None) -> np.ndarray:
    return np.take_along_axis(a.ravel() if dim is None else a, indices.ravel() if dim is None else indices, dim or 0)


@composite(
    reference=_take_along_reference,
    samples=(
        Sample(((3, 4), _indices(12, 2, 3))),
        Sample(((3, 4), _indices(3, 2, 4)), {"dim": 0}),
        Sample(((2, 3, 4), _indices(4, 2, 3, 1)), {"dim": -1}),
    ),
)
def take_along_dim(input: Any, indices: Any, dim: int | None = None) -> Any:
    """:func:`gather` with ``input`` and ``indices`` (int64) broadcast but along ``dim``; without, flattened.
    Negative indices count from the end."""
    table.as_tensor_arg("take_along_dim", indices)
    if indices.dtype is not dtypes.int64:
        raise RuntimeError(f"take_along_dim: indices must be int64, got {indices.dtype.name}")
    if dim is None:
        return gather(reshape(input, -1), 0, wrap_index(reshape(indices, -1), input._array.size))
    if input._array.ndim != indices._array.ndim:
        raise RuntimeError(
            f"take_along_dim: the tensor and its indices must have as many dimensions, got "
            f"{table.describe(input, indices)}"
        )
    d = layout.normalize_axis(dim, input._array.ndim, "take_along_dim")
    if not input._array.ndim:
        return gather(input, 0, wrap_index(indices, 1))
    a, b = list(input._array.shape), list(indices._array.shape)
    n, m = a[d], b[d]
    a[d] = b[d] = 1
    try:
        common = list(layout.broadcast_shapes(a, b))
    except ValueError as error:
        raise RuntimeError(f"take_along_dim: {error}") from None
    source = expand(input, common[:d] + [n] + common[d + 1 :])
    return gather(source, d, expand(wrap_index(indices, n), common[:d] + [m] + common[d + 1 :]))


@composite(
    reference=lambda a, index: np.take(a, index),
    samples=(Sample(((3, 4), [[0, 11], [-1, 5]])), Sample(((), [0, -1])), Sample(((3,), _indices(3, 0)))),
)
def take(input: Any, index: Any) -> Any:
    """Elements of the flattened ``input``, in the shape of ``index`` (int64); negative ones from the end."""
    if table.as_tensor_arg("take", index).dtype is not dtypes.int64:
        raise RuntimeError(f"take: the index must be int64, got {index.dtype.name}")
    index = check_index("take", input, index)
    if not input._array.size and index._array.size:
        raise IndexError("take: a tensor without elements has none to take")
    index = wrap_take(index, input._array.size)
    return reshape(index_select(reshape(input, -1), 0, reshape(index, -1), "take"), index._array.shape)


@composite(
    reference=lambda a, repeats, dim=None: np.repeat(a, repeats, dim),
    samples=(
        Sample(((3, 4),), {"repeats": 2}),
        Sample(((3, 4),), {"repeats": 3, "dim": -1}),
        Sample(((3, 2), [2, 0, 1]), {"dim": 0}),
        Sample(((),), {"repeats": 2}),
        Sample(((0, 3),), {"repeats": 2, "dim": 0}),
    ),
)
def repeat_interleave(
    input: Any, repeats: Any = None, dim: int | None = None, *, output_size: int | None = None
) -> Any:
    """Each element (of the flattened ``input``), or each slice along ``dim``, as often as ``repeats`` says:
    an int, or an integer tensor with one number for all or one for each. ``repeat_interleave(repeats)``
    gives the positions themselves. ``output_size`` spares a device the question how many there are.
    Raises RuntimeError for negative repeats and where their number does not fit."""
    if repeats is None:
        table.as_tensor_arg("repeat_interleave", input)
        if input._array.ndim != 1:
            raise RuntimeError(f"repeat_interleave: repeats must be 1-d, got {table.describe(input)}")
        return _repeated_positions(input, output_size)
    if dim is None:
        input, dim = reshape(input, -1), 0
    if not isinstance(repeats, (int, np.integer, table.Tensor)):
        raise TypeError(f"repeat_interleave: repeats must be an int or a tensor, got {type(repeats).__name__}")
    d = layout.normalize_axis(dim, input._array.ndim, "repeat_interleave")
    n = input._array.shape[d] if input._array.ndim else 1
    if isinstance(repeats, table.Tensor):
        if repeats._array.size == 1 and n != 1:
            repeats = expand(reshape(repeats, -1), (n,))
    else:
        if repeats < 0:
            raise RuntimeError(f"repeat_interleave: repeats must not be negative, got {repeats}")
        source = input if input._array.ndim else reshape(input, 1)
        shape = source._array.shape
        if output_size is not None and output_size != n * repeats:
            raise RuntimeError(f"repeat_interleave: output_size {output_size} is not {n} elements {repeats} times")
        wide = clone(expand(unsqueeze(source, d + 1), (*shape[: d + 1], repeats, *shape[d + 1 :])))
        return reshape(wide, (*shape[:d], n * repeats, *shape[d + 1 :]))
    if repeats._array.ndim > 1 or repeats._array.size != n:
        raise RuntimeError(
            f"repeat_interleave: repeats of shape {tuple(repeats._array.shape)} must hold 1 or {n} numbers"
        )
    same_device("repeat_interleave", (input, repeats))
    source = input if input._array.ndim else reshape(input, 1)
    return index_select(source, d, _repeated_positions(reshape(repeats, -1), output_size))


def _repeated_positions(repeats: Any, output_size: int | None) -> Any:
    """Position i as often as the i-th of ``repeats`` says: the first end that lies beyond each place."""
    from gpugrad.ops.scans import cumsum
    from gpugrad.ops.sorting import searchsorted

    if repeats.dtype.name not in ("int32", "int64"):
        raise RuntimeError(f"repeat_interleave: repeats must be int32 or int64, got {repeats.dtype.name}")
    kind, place = repeats.dtype, repeats.device
    if not repeats._array.size:
        return zeros(0, dtype=kind, device=place)
    ends = cumsum(repeats, 0)
    if bool((repeats < 0).any().item()):
        raise RuntimeError("repeat_interleave: repeats must not be negative")
    if output_size is None:
        output_size = int(ends[-1].item())
    return cast(searchsorted(ends, arange(output_size, device=place), right=True), kind)


@composite(
    reference=lambda a, mask, value: np.where(mask, value, a),
    samples=(Sample(((3, 4), lambda r: r.random((3, 4)) > 0.5), {"value": 7.0}),),
)
def masked_fill(input: Any, mask: Any, value: Any) -> Any:
    """``input`` with ``value`` (a number or a 0-d tensor) where the bool ``mask`` is true. Raises
    RuntimeError for a number that the dtype cannot hold, and for masks of other dtypes."""
    table.as_tensor_arg("masked_fill", mask)
    if mask.dtype is not dtypes.bool_:
        raise RuntimeError(f"masked_fill: the mask must be a bool tensor, got {mask.dtype.name}")
    return e.where(mask, fill_value("masked_fill", input, value), input)


def fill_value(op: str, input: Any, value: Any) -> Any:
    """``value``, a number or a 0-d tensor, as one to write into ``input``. Raises RuntimeError."""
    if isinstance(value, table.Tensor):
        if value._array.ndim:
            raise RuntimeError(f"{op}: value must be a number or a 0-d tensor, got shape {tuple(value._array.shape)}")
        return cast(value, input.dtype)
    if input.dtype.category == 2:
        return value
    if input.dtype is dtypes.bool_:
        return bool(value)
    number = int(value)
    limits = dtypes.iinfo(input.dtype)
    if not (limits.min if limits.min else -limits.max) <= number <= limits.max:
        raise RuntimeError(f"{op}: {value} does not fit into {input.dtype.name}")
    return number


def masked_select(input: Any, mask: Any) -> Any:
    """The elements of ``input`` where ``mask`` (bool, the two broadcast) is true, 1-d. Waits for the
    device, which alone knows how many there are."""
    table.as_tensor_arg("masked_select", mask)
    if mask.dtype is not dtypes.bool_:
        raise RuntimeError(f"masked_select: the mask must be a bool tensor, got {mask.dtype.name}")
    same_device("masked_select", (input, mask))
    try:
        shape = layout.broadcast_shapes(input._array.shape, mask._array.shape)
    except ValueError as error:
        raise RuntimeError(f"masked_select: {error}") from None
    flat = table.wrap(mask._backend.nonzero(expand(mask, shape)._array), mask._backend)
    return index_select(reshape(expand(input, shape), -1), 0, flat)


# -- nonzero --------------------------------------------------------------------------------


def nonzero(input: Any, *, as_tuple: bool = False) -> Any:
    """int64 indices of the elements that are not zero: ``[count, ndim]``, or a tuple with one 1-d
    tensor per dimension. Waits for the device, which alone knows how many there are."""
    columns = nonzero_columns(input)
    if as_tuple:
        return tuple(columns) if columns else (table.wrap(input._backend.nonzero(input._array), input._backend),)
    if not columns:
        count = input._backend.nonzero(input._array).shape[0]
        return zeros((count, 0), dtype=dtypes.int64, device=input.device)
    from gpugrad.ops.joining import stack

    return stack(columns, 1)


def nonzero_static(input: Any, *, size: int, fill_value: int = -1) -> Any:
    """The first ``size`` rows of :func:`nonzero`; rows of ``fill_value`` where there are fewer. Raises RuntimeError."""
    if size < 0:
        raise RuntimeError(f"nonzero_static: size must not be negative, got {size}")
    from gpugrad.ops.joining import cat

    found = nonzero(input)
    count = found._array.shape[0]
    if count >= size:
        return clone(narrow(found, 0, 0, size))
    rest = full((size - count, input._array.ndim), fill_value, dtype=dtypes.int64, device=input.device)
    return cat([found, rest], 0)


def argwhere(input: Any) -> Any:
    """:func:`nonzero` as ``[count, ndim]``."""
    return nonzero(input)


def nonzero_columns(x: Any) -> list[Any]:
    """For each dimension the indices along it of the elements that are not zero."""
    flat = table.wrap(x._backend.nonzero(x._array), x._backend)
    columns = []
    shape = x._array.shape
    for i in range(len(shape)):
        inner = prod(shape[i + 1 :])
        column = e.floor_divide(flat, inner) if inner > 1 else flat
        columns.append(e.remainder(column, shape[i]) if i and shape[i] > 0 else column)
    return columns
