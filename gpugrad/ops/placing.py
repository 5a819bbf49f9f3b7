"""Copies with a part replaced, and methods that change where a tensor looks: the scatter forms of views,
and the views made in place (``t_``, ``squeeze_``, ..., ``resize_``, ``set_``)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import numpy as np

from gpugrad import layout
from gpugrad.autograd.graph import edge_of, storage_of
from gpugrad.autograd.modes import enable_grad
from gpugrad.ops import inplace, movement, strided, table
from gpugrad.ops.creation import clone
from gpugrad.ops.diagonals import diagonal
from gpugrad.ops.table import Sample as S
from gpugrad.ops.table import composite, describe, same_device

# -- a copy with one of its views replaced ---------------------------------------------------


def _placed(op: str, input: Any, src: Any, part_of: Callable[[Any], Any]) -> Any:
    """A copy of ``input`` in which the view ``part_of(copy)`` holds ``src``."""
    same_device(op, (input, table.as_tensor_arg(op, src)))
    out = clone(input)
    part = part_of(out)
    if part._array.shape != src._array.shape:
        raise RuntimeError(f"{op}: src must have shape {tuple(part._array.shape)}, got {describe(src)}")
    if src.dtype is not input.dtype:
        from gpugrad.ops.creation import cast

        src = cast(src, input.dtype)
    inplace.write(op, part, src)
    return out


def _numpy_placed(a: np.ndarray, src: np.ndarray, part: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    out = a.copy()
    part(out)[...] = src
    return out


def _writable_diagonal(a: np.ndarray, *where: int) -> np.ndarray:
    line = np.diagonal(a, *where)
    line.flags.writeable = True
    return line


@composite(
    reference=lambda a, src, offset=0, dim1=0, dim2=1: _numpy_placed(
        a, src, lambda x: _writable_diagonal(x, offset, dim1, dim2)
    ),
    samples=(
        S(((3, 4), (3,))),
        S(((3, 4), (2,)), {"offset": -1}),
        S(((2, 3, 3), (3, 2)), {"offset": 1, "dim1": 0, "dim2": 2}),
    ),
)
def diagonal_scatter(input: Any, src: Any, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Any:
    """A copy of ``input`` with its :func:`diagonal` replaced by ``src``, which has that shape."""
    return _placed("diagonal_scatter", input, src, lambda x: diagonal(x, offset, dim1, dim2))


@composite(
    reference=lambda a, src, dim, index: _numpy_placed(a, src, lambda x: np.moveaxis(x, dim, 0)[index, ...]),
    samples=(S(((3, 4), (4,)), {"dim": 0, "index": 1}), S(((3, 4), (3,)), {"dim": -1, "index": -2})),
)
def select_scatter(input: Any, src: Any, dim: int, index: int) -> Any:
    """A copy of ``input`` with element ``index`` along ``dim`` replaced by ``src``."""
    return _placed("select_scatter", input, src, lambda x: movement.select(x, dim, index))


@composite(
    reference=lambda a, src, dim=0, start=None, end=None, step=1: _numpy_placed(
        a, src, lambda x: np.moveaxis(np.moveaxis(x, dim, 0)[start:end:step], 0, dim)
    ),
    samples=(
        S(((4, 3), (4, 3))),
        S(((5, 3), (2, 3)), {"start": 1, "end": 4, "step": 2}),
        S(((2, 5), (2, 2)), {"dim": -1, "start": -2}),
        S(((3,), (0,)), {"start": 2, "end": 1}),
    ),
)
def slice_scatter(
    input: Any, src: Any, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1
) -> Any:
    """A copy of ``input`` with ``input[start:end:step]`` along ``dim`` replaced by ``src``."""
    if step < 1:
        raise RuntimeError(f"slice_scatter: step must be positive, got {step}")
    d = layout.normalize_axis(dim, input._array.ndim, "slice_scatter")
    index = (slice(None),) * d + (slice(start, end, step),)
    return _placed("slice_scatter", input, src, lambda x: movement.slice_view(x, index=index))


def as_strided_scatter(
    input: Any, src: Any, size: Sequence[int], stride: Sequence[int], storage_offset: int | None = None
) -> Any:
    """A copy of ``input`` in which what :func:`as_strided` shows of it is replaced by ``src``. The copy is
    laid out in C order. Raises RuntimeError for a geometry in which elements share memory."""
    return _placed("as_strided_scatter", input, src, lambda x: strided.as_strided(x, size, stride, storage_offset))


# -- the same tensor under another geometry ---------------------------------------------------------


def _become(name: str, x: Any, view_of: Callable[[Any], Any]) -> Any:
    """``x`` itself turned into the view ``view_of(x)``: its memory, its place in the graph."""
    inplace.check_inplace(name, x)
    edge = edge_of(x)
    if edge is None or edge is x:
        view = view_of(x)
    else:  # what x was has a history, whose shape the gradient must have, whether or not recording is on
        with enable_grad():
            view = view_of(x)
    x._array, x._offset = view._array, view._offset
    if edge is not x:
        x._node = view._node
    if x._base is None:
        x._generation += 1  # views of x are read from its new geometry
    elif edge_of(x._base) is not None:
        x._generation -= 1  # x is read from its base again, of which it may now show another part
    storage_of(x).version += 1
    storage_of(x).changed_by = name
    return x


def _geometry_method(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    def method(input: Any, *args: Any, **options: Any) -> Any:
        return _become(name, input, lambda x: function(x, *args, **options))

    method.__name__ = method.__qualname__ = name
    method.__doc__ = f"In place: this tensor becomes the view ``{name[:-1]}`` of itself, with the same memory."
    return method


t_ = _geometry_method("t_", movement.t)
transpose_ = _geometry_method("transpose_", movement.transpose)
swapaxes_ = _geometry_method("swapaxes_", movement.swapaxes)
swapdims_ = _geometry_method("swapdims_", movement.swapdims)
squeeze_ = _geometry_method("squeeze_", movement.squeeze)
unsqueeze_ = _geometry_method("unsqueeze_", movement.unsqueeze)
as_strided_ = _geometry_method("as_strided_", strided.as_strided)


def resize_(input: Any, *sizes: Any, memory_format: Any = None) -> Any:
    """In place: this tensor with shape ``sizes`` in C order over its memory, of which it keeps as much as there
    is; a larger shape moves it to new memory, where what is added is uninitialised. Views of the old
    memory stay there. Raises RuntimeError for a tensor that requires grad."""
    from gpugrad.ops.creation import shape_of

    shape = shape_of(sizes, "resize_")
    if input.requires_grad:
        raise RuntimeError("resize_: a tensor that requires grad cannot be resized; resize a detach()ed one")
    if shape == tuple(input._array.shape):
        return input
    array, backend = input._array, input._backend
    item = array.itemsize
    strides = layout.contiguous_strides(shape, item)
    if input._offset + prod(shape) * item <= storage_of(input).nbytes:
        input._array = backend.as_strided(array, shape, strides, 0)
    else:
        wide = backend.empty(shape, array.dtype)
        kept = (storage_of(input).nbytes - input._offset) // item
        if kept:
            line = backend.as_strided(array, (kept,), (item,), 0)
            backend.copy(line, out=backend.as_strided(wide, (kept,), (item,), 0))
        _move(input, wide)
    input._generation += 1 if input._base is None else 0
    return input


def _move(x: Any, array: Any, storage: Any = None, offset: int = 0) -> None:
    """``x`` as the owner of other memory, which its views do not follow."""
    x._generation += 1
    x._array, x._storage, x._offset, x._base = array, storage, offset, None


def resize_as_(input: Any, the_template: Any, *, memory_format: Any = None) -> Any:
    """In place: :func:`resize_` to the shape of ``the_template``."""
    return resize_(input, the_template._array.shape)


def set_(
    input: Any,
    source: Any = None,
    storage_offset: int | None = None,
    size: Sequence[int] | None = None,
    stride: Sequence[int] | None = None,
) -> Any:
    """In place: this tensor shows the memory of ``source``, a tensor of its dtype and device, in that tensor's
    geometry, or in the one given (numbers of elements, from the start of its storage). Without ``source``
    it becomes empty. Raises RuntimeError for other dtypes and tensors that require grad."""
    if input.requires_grad:
        raise RuntimeError("set_: a tensor that requires grad cannot change its memory; set a detach()ed one")
    if source is None:
        _move(input, input._backend.empty((0,), input._array.dtype))
        return input
    table.as_tensor_arg("set_", source)
    if source.dtype is not input.dtype or source._backend is not input._backend:
        raise RuntimeError(f"set_: source must have the dtype and device of the tensor, got {describe(input, source)}")
    view = source
    if size is not None:
        steps = layout.contiguous_strides(size, 1) if stride is None else stride
        view = strided.as_strided(source.detach(), size, steps, storage_offset or 0)
    _move(input, view._array, storage_of(source), view._offset)
    return input
