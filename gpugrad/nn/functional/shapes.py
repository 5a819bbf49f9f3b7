"""What all windowed functions share: sizes per dimension, and inputs without a batch."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from gpugrad import dtypes
from gpugrad.tensor import Tensor

_INTEGERS = (int, np.integer)


def per_dim(value: Any, n: int, name: str, op: str) -> tuple[int, ...]:
    """``value`` (an int, or one per spatial dimension) as a tuple of ``n`` ints. Raises
    TypeError, RuntimeError."""
    if isinstance(value, _INTEGERS) and not isinstance(value, bool):
        return (int(value),) * n
    if isinstance(value, Sequence) and not isinstance(value, str):
        if len(value) == 1:
            value = tuple(value) * n
        if len(value) == n and all(isinstance(v, _INTEGERS) for v in value):
            return tuple(int(v) for v in value)
        raise RuntimeError(f"{op}: {name}={value!r} must be an int or {n} ints")
    raise TypeError(f"{op}: {name} must be an int or {n} ints, not {type(value).__name__}")


def batched(x: Tensor, n: int, op: str) -> tuple[Tensor, bool]:
    """``x`` as ``[batch, channel, *n sizes]``, and whether a batch dimension was added.
    Raises RuntimeError for any other number of dimensions."""
    if x.dim() == n + 2:
        return x, False
    if x.dim() == n + 1:
        return x.unsqueeze(0), True
    raise RuntimeError(
        f"{op}: input of shape {tuple(x.shape)} must have {n + 1} dimensions, or {n + 2} with a batch in front"
    )


def is_integer(x: Tensor) -> bool:
    """Whether ``x`` can hold classes or indices: neither floating nor bool."""
    return not x.is_floating_point() and x.dtype is not dtypes.bool_


def is_half(x: Tensor) -> bool:
    """Whether ``x`` is of a type for storage only, to be computed on in float32."""
    return x.dtype is dtypes.float16 or x.dtype is dtypes.bfloat16


def reduction_of(size_average: bool | None, reduce: bool | None, reduction: str) -> str:
    """The reduction that the old flags ``size_average`` and ``reduce`` ask for, or ``reduction`` without them."""
    if size_average is None and reduce is None:
        return reduction
    if reduce is not None and not reduce:
        chosen = "none"
    else:
        chosen = "mean" if size_average is None or size_average else "sum"
    warnings.warn(f"size_average and reduce are old arguments of losses; use reduction={chosen!r}", stacklevel=3)
    return chosen


def check_reduction(reduction: str, op: str) -> None:
    """Raise ValueError unless ``reduction`` is none, mean or sum."""
    if reduction not in ("none", "mean", "sum"):
        raise ValueError(f"{op}: reduction {reduction!r} is unknown; use 'none', 'mean' or 'sum'")


def reduced(loss: Tensor, reduction: str, op: str) -> Tensor:
    """``loss`` as ``reduction`` asks."""
    if reduction == "mean":
        return loss.mean()
    if reduction == "sum":
        return loss.sum()
    check_reduction(reduction, op)
    return loss
