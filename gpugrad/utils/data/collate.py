"""From a list of samples to a batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gpugrad import dtypes
from gpugrad.ops import creation, joining
from gpugrad.tensor import Tensor


def default_convert(data: Any) -> Any:
    """``data`` with its NumPy arrays as tensors, in the same structure."""
    if isinstance(data, (Tensor, str, bytes)):
        return data
    if isinstance(data, (np.ndarray, np.generic)):
        return data if data.dtype.kind in "SU" else creation.as_tensor(data)
    if isinstance(data, Mapping):
        return {k: default_convert(v) for k, v in data.items()}
    if isinstance(data, tuple) and hasattr(data, "_fields"):
        return type(data)(*(default_convert(v) for v in data))
    if isinstance(data, Sequence):
        return [default_convert(v) for v in data]
    return data


def default_collate(batch: Sequence[Any]) -> Any:
    """Samples of one structure joined along a new first dimension: tensors are stacked, arrays and numbers become
    tensors (Python floats float64, ints int64), strings stay a list; dicts, tuples and lists are gone into.
    Raises TypeError for other types, RuntimeError where samples differ in structure or shape."""
    first = batch[0]
    if isinstance(first, Tensor):
        for t in batch:
            if t.shape != first.shape:
                raise RuntimeError(
                    f"default_collate: samples must have equal shapes, got {tuple(first.shape)} and "
                    f"{tuple(t.shape)}; pass a collate_fn that pads them"
                )
        return joining.stack(list(batch), 0)
    if isinstance(first, (str, bytes)):
        return list(batch)
    if isinstance(first, (np.ndarray, np.generic)):
        if first.dtype.kind in "SUO":
            raise TypeError(
                "default_collate: samples are made of tensors, arrays, numbers, strings, dicts and sequences, not of "
                f"an array of {first.dtype}"
            )
        return default_collate([creation.as_tensor(b) for b in batch])
    if isinstance(first, bool):
        return creation.tensor(list(batch))
    if isinstance(first, float):
        return creation.tensor(list(batch), dtype=dtypes.float64)
    if isinstance(first, int):
        return creation.tensor(list(batch), dtype=dtypes.int64)
    if isinstance(first, Mapping):
        joined = {k: default_collate([sample[k] for sample in batch]) for k in first}
        try:
            return type(first)(joined)  # type: ignore[call-arg]
        except TypeError:  # a mapping that cannot be built from a dict
            return joined
    if isinstance(first, Sequence):
        if any(len(sample) != len(first) for sample in batch):
            raise RuntimeError(
                "default_collate: the sequences in the samples differ in length; pass a collate_fn that pads them"
            )
        columns = [default_collate(column) for column in zip(*batch, strict=True)]
        return type(first)(*columns) if isinstance(first, tuple) and hasattr(first, "_fields") else columns
    raise TypeError(
        "default_collate: samples are made of tensors, arrays, numbers, strings, dicts and sequences, not of "
        f"{type(first).__name__}; pass a collate_fn"
    )
