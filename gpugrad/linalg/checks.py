"""What all functions of ``gpugrad.linalg`` ask of their arguments, and how they say no."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpugrad import layout
from gpugrad.dtypes import HALVES
from gpugrad.errors import DTypeError, LinAlgError
from gpugrad.ops import table
from gpugrad.ops.movement import expand
from gpugrad.ops.table import describe, same_device


def floating(op: str, x: Any) -> Any:
    """``x`` if it is a floating-point tensor. Raises TypeError, DTypeError."""
    table.as_tensor_arg(op, x)
    if not x.dtype.is_floating_point:
        raise DTypeError(f"{op}: expected a floating-point tensor, got {describe(x)}; convert it with .float()")
    return x


def matrices(op: str, x: Any, what: str = "the input", halves: bool = False) -> Any:
    """``x`` if it holds matrices of float32 or float64, or of half types if ``halves`` says so. Raises RuntimeError,
    DTypeError."""
    table.as_tensor_arg(op, x)
    if x._array.ndim < 2:
        raise RuntimeError(
            f"{op}: {what} must have at least 2 dimensions, the last two the matrices; got {describe(x)}"
        )
    floating(op, x)
    if x._array.dtype in HALVES and not halves:
        raise DTypeError(f"{op}: not computed in half precision, got {describe(x)}; convert it with .float()")
    return x


def need_square(op: str, x: Any) -> Any:
    """``x`` if its last two sizes are equal. Raises RuntimeError."""
    table.as_tensor_arg(op, x)
    if x._array.ndim < 2 or x._array.shape[-1] != x._array.shape[-2]:
        raise RuntimeError(f"{op}: expected square matrices in the last two dimensions, got {describe(x)}")
    return x


def square(op: str, x: Any) -> Any:
    """:func:`matrices` that are square."""
    return need_square(op, matrices(op, x))


def alike(op: str, *tensors: Any) -> None:
    """Raises RuntimeError unless all have one dtype, DeviceError unless one device."""
    for x in tensors:
        table.as_tensor_arg(op, x)
    same_device(op, tensors)
    if any(x._array.dtype != tensors[0]._array.dtype for x in tensors):
        raise RuntimeError(f"{op}: expected one dtype, got {describe(*tensors)}; convert one with .to(dtype)")


def common_batch(op: str, *tensors: Any) -> tuple[Any, ...]:
    """The tensors with their dimensions before the last two broadcast. Raises RuntimeError."""
    shapes = [x._array.shape for x in tensors]
    try:
        batch = layout.broadcast_shapes(*(s[:-2] for s in shapes))
    except ValueError:
        raise RuntimeError(f"{op}: the batch dimensions do not broadcast; got {describe(*tensors)}") from None
    return tuple(x if s[:-2] == batch else expand(x, (*batch, *s[-2:])) for x, s in zip(tensors, shapes, strict=True))


def succeed(op: str, info: Any, trouble: str) -> None:
    """Raises LinAlgError, saying which matrix of the batch and which of its pivots, where ``info`` is not 0."""
    codes = info.detach().cpu().to_numpy()
    if not codes.any():
        return
    where = ""
    at = np.unravel_index(int(np.argmax(codes != 0)), codes.shape)
    if codes.ndim:
        where = f" (matrix {tuple(int(i) for i in at)} of the batch)"
    raise LinAlgError(f"{op}: {trouble}{where}, as pivot {int(codes[at])} shows")
