"""Tensors over given memory or strides, and memory read as another dtype."""

from __future__ import annotations

import operator
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from gpugrad import dtypes, layout
from gpugrad.autograd.graph import Storage, storage_of
from gpugrad.backends.base import StridedArray
from gpugrad.devices import device as resolve_device
from gpugrad.ops import table
from gpugrad.ops.creation import as_tensor, backend_for, cast, check_options, clone, empty, from_numpy, full, to_device
from gpugrad.ops.movement import permute


def _finish(t: Any, requires_grad: bool) -> Any:
    return t.requires_grad_() if requires_grad else t


def scalar_tensor(s: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False, **options: Any) -> Any:
    """A 0-d tensor of the number ``s``, in the default dtype unless given."""
    d = dtypes.get_default_dtype() if dtype is None else dtype
    return full((), s, dtype=d, device=device, requires_grad=requires_grad, **options)


def empty_strided(
    size: Sequence[int],
    stride: Sequence[int],
    *,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
    **options: Any,
) -> Any:
    """Uninitialised, of ``size`` with ``stride`` (elements), over as much memory as that reaches."""
    check_options("empty_strided", options)
    shape, steps = tuple(operator.index(n) for n in size), tuple(operator.index(n) for n in stride)
    if len(shape) != len(steps) or any(n < 0 for n in (*shape, *steps)):
        raise RuntimeError(f"empty_strided: size {shape} and stride {steps} must be as many, none negative")
    d = dtypes.get_default_dtype() if dtype is None else dtypes.as_dtype(dtype)
    backend = backend_for(device, d, "empty_strided")
    strides = tuple(s * d.itemsize for s in steps)
    nbytes = layout.byte_range(shape, strides, d.itemsize)[1]
    block = backend.empty((nbytes // d.itemsize,), d.numpy)
    t = table.wrap(backend.as_strided(block, shape, strides, 0), backend)
    t._storage = Storage(nbytes)
    return _finish(t, requires_grad)


def empty_permuted(
    size: Sequence[int],
    physical_layout: Sequence[int],
    *,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
    **options: Any,
) -> Any:
    """Uninitialised, of ``size``, with its dimensions in memory in the order ``physical_layout``, from the
    outermost."""
    order = list(physical_layout)
    if sorted(order) != list(range(len(size))):
        raise RuntimeError(f"empty_permuted: physical_layout {tuple(physical_layout)} must name each dimension once")
    dense = empty([size[d] for d in order], dtype=dtype, device=device, **options)
    return _finish(permute(dense, [order.index(d) for d in range(len(size))]).detach(), requires_grad)


def frombuffer(buffer: Any, *, dtype: Any, count: int = -1, offset: int = 0, requires_grad: bool = False) -> Any:
    """A 1-d CPU tensor that shares memory with ``buffer`` (bytearray, memoryview, ...): ``count`` elements of
    ``dtype`` from byte ``offset`` on, -1 for all. A read-only buffer is copied, with a warning. Raises
    ValueError where the buffer does not hold them."""
    d = dtypes.as_dtype(dtype)
    view = memoryview(buffer)
    if not view.nbytes or not 0 <= offset < view.nbytes:
        raise ValueError(f"frombuffer: offset {offset} lies outside the buffer of {view.nbytes} bytes")
    left = view.nbytes - offset
    if count == 0 or count < -1 or count * d.itemsize > left:
        raise ValueError(f"frombuffer: {count} elements of {d.name} do not fit into the {left} bytes after the offset")
    if count == -1 and left % d.itemsize:
        raise ValueError(f"frombuffer: {left} bytes after the offset are no whole number of {d.name} elements")
    array = np.frombuffer(buffer, d.numpy, count, offset)
    if not array.flags.writeable:
        warnings.warn("frombuffer: the buffer is read-only, so the tensor is a copy", UserWarning, stacklevel=2)
        array = array.copy()
    return _finish(from_numpy(array), requires_grad)


def asarray(
    obj: Any, *, dtype: Any = None, device: Any = None, copy: bool | None = None, requires_grad: bool | None = None
) -> Any:
    """``obj`` (a tensor, an array, a buffer, numbers in lists) as a tensor. ``copy``: True for new memory, False for
    shared memory or a ValueError, None to share where that can be. ``requires_grad``: None leaves a tensor in
    its graph, False takes it out."""
    if isinstance(obj, table.Tensor):
        source = obj.detach() if requires_grad is False and obj.requires_grad else obj
    elif isinstance(obj, (np.ndarray, np.generic)):
        source = (
            from_numpy(obj) if isinstance(obj, np.ndarray) and obj.flags.writeable else as_tensor(obj, device="cpu")
        )
    elif isinstance(obj, (bytearray, bytes, memoryview)) or hasattr(obj, "buffer_info"):
        source = frombuffer(obj, dtype=dtypes.get_default_dtype() if dtype is None else dtype)
    else:
        if copy is False:
            raise ValueError(f"asarray: a {type(obj).__name__} has no memory to share; leave copy out")
        return _finish(as_tensor(obj, dtype, device), bool(requires_grad))
    place = source.device if device is None else resolve_device(device)
    t = source if dtype is None else cast(source, dtypes.as_dtype(dtype))
    t = to_device(t, place)
    if t is not source:
        if copy is False:
            raise ValueError("asarray: another dtype or device needs a copy, which copy=False forbids")
    elif copy:
        t = clone(t)
    return _finish(t, True) if requires_grad and not t.requires_grad else t


def reinterpret(x: Any, dtype: Any) -> Any:
    """``x.view(dtype)``: the same memory read as ``dtype``. A wider one merges elements of the last dimension,
    a narrower one splits them. Outside the graph. Raises RuntimeError where strides or sizes do not allow it."""
    d = dtypes.as_dtype(dtype)
    array = x._array
    shape, strides, old, new = list(array.shape), list(array.strides), array.itemsize, d.itemsize
    if old != new:
        if not shape:
            raise RuntimeError(f"view: a 0-d {x.dtype.name} tensor cannot be read as {d.name}, of another width")
        if strides[-1] != old:
            raise RuntimeError(f"view: elements must be adjacent in the last dimension to be read as {d.name}")
        if new > old and (shape[-1] * old % new or x._offset % new or any(s % new for s in strides[:-1])):
            raise RuntimeError(
                f"view: shape {tuple(shape)} with strides {tuple(s // old for s in strides)} is no whole number of "
                f"{d.name} elements"
            )
        shape[-1], strides[-1] = shape[-1] * old // new, new
    if isinstance(array, np.ndarray):
        read = np.ndarray(shape, d.numpy, array, 0, strides) if array.flags.c_contiguous else array.view(d.numpy)
    elif isinstance(array, StridedArray):
        read = type(array)(array.buffer, array.offset, tuple(shape), tuple(strides), d.numpy)
    else:
        raise NotImplementedError(f"view: {x.device} cannot read memory as another dtype; move to the CPU first")
    out = table.wrap(read, x._backend)
    out._storage = storage_of(x)
    out._offset = x._offset
    return out


# -- new_*: like this tensor ------------------------------------------------------------------


def _like(input: Any, options: dict[str, Any]) -> dict[str, Any]:
    given = {k: v for k, v in options.items() if v is not None}
    return {"dtype": input.dtype, "device": input.device} | given


def new_empty_strided(input: Any, size: Sequence[int], stride: Sequence[int], **options: Any) -> Any:
    """:func:`empty_strided` with this dtype and device."""
    return empty_strided(size, stride, **_like(input, options))


def new(input: Any, *args: Any) -> Any:
    """The legacy constructor with this dtype and device: sizes (uninitialised), or a sequence of values, or
    nothing (empty)."""
    from gpugrad.ops.creation import tensor

    like = _like(input, {})
    sizes = args[0] if len(args) == 1 and type(args[0]).__name__ == "Size" else args
    if not args:
        return empty(0, **like)
    if all(isinstance(n, (int, np.integer)) for n in sizes):
        return empty(tuple(sizes), **like)
    return tensor(args[0], **like)
