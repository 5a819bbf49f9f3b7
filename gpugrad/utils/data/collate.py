"""From a list of samples to a batch."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, MutableMapping, MutableSequence, Sequence
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
        return _like_mapping(data, {k: default_convert(v) for k, v in data.items()})
    if isinstance(data, tuple) and hasattr(data, "_fields"):
        return type(data)(*(default_convert(v) for v in data))
    if isinstance(data, Sequence):
        return _like_sequence(data, [default_convert(v) for v in data])
    return data


def _like_mapping(model: Mapping[Any, Any], values: dict[Any, Any]) -> Any:
    """``values`` in a mapping of the model's type, with what else that holds (as a default factory)."""
    return _rebuilt(model, values, MutableMapping, lambda x: x.update(values))


def _like_sequence(model: Sequence[Any], values: list[Any]) -> Any:
    """``values`` in a sequence of the model's type; a list for a tuple, as PyTorch has it."""
    if isinstance(model, tuple):
        return values
    return _rebuilt(model, values, MutableSequence, lambda x: x.__setitem__(slice(None), values))


def _rebuilt(model: Any, values: Any, changeable: Any, fill: Callable[[Any], None]) -> Any:
    try:
        if isinstance(model, changeable):
            clone = copy.copy(model)
            fill(clone)
            return clone
        return type(model)(values)
    except TypeError:  # a type that cannot be copied or built that way (a range, a frozen mapping)
        return values


def default_collate(batch: Sequence[Any]) -> Any:
    """Samples of one structure joined along a new first dimension: tensors are stacked, arrays and numbers become
    tensors (Python floats float64, ints int64), strings stay as they are; dicts, tuples and lists are gone into.
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
        return batch
    if isinstance(first, (np.ndarray, np.generic)):
        if first.dtype.kind in "SUO":
            raise TypeError(
                "default_collate: samples are made of tensors, arrays, numbers, strings, dicts and sequences, not of "
                f"an array of {first.dtype}"
            )
        return default_collate([creation.as_tensor(b) for b in batch])
    if isinstance(first, float):
        return creation.tensor(list(batch), dtype=dtypes.float64)
    if isinstance(first, int):
        return creation.tensor(list(batch))
    if isinstance(first, Mapping):
        return _like_mapping(first, {k: default_collate([sample[k] for sample in batch]) for k in first})
    if isinstance(first, Sequence):
        if any(len(sample) != len(first) for sample in batch):
            raise RuntimeError(
                "default_collate: the sequences in the samples differ in length; pass a collate_fn that pads them"
            )
        columns = [default_collate(column) for column in zip(*batch, strict=True)]
        named = isinstance(first, tuple) and hasattr(first, "_fields")
        return type(first)(*columns) if named else _like_sequence(first, columns)
    raise TypeError(
        "default_collate: samples are made of tensors, arrays, numbers, strings, dicts and sequences, not of "
        f"{type(first).__name__}; pass a collate_fn"
    )
