"""Datasets: things with a length and items, or streams of items."""

from __future__ import annotations

import math
import warnings
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, chain
from typing import Any, Generic, TypeVar

from gpugrad.ops import sampling
from gpugrad.tensor import Tensor

T_co = TypeVar("T_co", covariant=True)


class Dataset(Generic[T_co]):
    """Items by position: subclasses define ``__getitem__`` and, for most samplers, ``__len__``.

    They may define ``__getitems__(list of positions)`` too, to fetch a batch at once."""

    def __getitem__(self, index: Any) -> T_co:
        raise NotImplementedError(f"{type(self).__name__} must define __getitem__(index)")

    def __add__(self, other: Dataset[T_co]) -> ConcatDataset[T_co]:
        return ConcatDataset([self, other])


class IterableDataset(Dataset[T_co]):
    """A stream of items: subclasses define ``__iter__``."""

    def __iter__(self) -> Iterator[T_co]:
        raise NotImplementedError(f"{type(self).__name__} must define __iter__()")

    def __add__(self, other: Dataset[T_co]) -> Any:
        return ChainDataset([self, other])


class TensorDataset(Dataset[tuple[Tensor, ...]]):
    """Tensors of equal first dimension; item i is the tuple of their slices i. Raises AssertionError.

    A DataLoader fetches whole batches of it with one index_select per tensor."""

    def __init__(self, *tensors: Tensor) -> None:
        sizes = [tuple(t.shape[:1]) for t in tensors]
        if not tensors or any(s != sizes[0] or not s for s in sizes):
            raise AssertionError(
                "TensorDataset: tensors must be equally long in their first dimension, got shapes "
                f"{[tuple(t.shape) for t in tensors]}"
            )
        self.tensors = tensors

    def __getitem__(self, index: Any) -> tuple[Tensor, ...]:
        return tuple(t[index] for t in self.tensors)

    def __len__(self) -> int:
        return self.tensors[0].shape[0]


class StackDataset(Dataset[Any]):
    """Several datasets side by side: item i is the tuple (or, from keywords, the dict) of their items i."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if bool(args) == bool(kwargs):
            raise ValueError("StackDataset takes datasets either as arguments (tuples come out) or as keywords (dicts)")
        self.datasets: Any = args or kwargs
        lengths = {len(d) for d in (args or kwargs.values())}
        if len(lengths) != 1:
            raise ValueError(f"StackDataset: datasets must be equally long, got lengths {sorted(lengths)}")
        self._length = lengths.pop()

    def __getitem__(self, index: Any) -> Any:
        if isinstance(self.datasets, dict):
            return {k: d[index] for k, d in self.datasets.items()}
        return tuple(d[index] for d in self.datasets)

    def __getitems__(self, indices: list[int]) -> list[Any]:
        """The items at several positions, fetched at once from the datasets that can do so. Raises ValueError where
        one gives another number of items."""
        named = isinstance(self.datasets, dict)
        columns = []
        for d in self.datasets.values() if named else self.datasets:
            fetch = getattr(d, "__getitems__", None)
            column = fetch(indices) if callable(fetch) else [d[i] for i in indices]
            if len(column) != len(indices):
                raise ValueError(f"StackDataset: __getitems__ gave {len(column)} items for {len(indices)} positions")
            columns.append(column)
        rows = zip(*columns, strict=True)
        return [dict(zip(self.datasets, row, strict=True)) for row in rows] if named else list(rows)

    def __len__(self) -> int:
        return self._length


class ConcatDataset(Dataset[T_co]):
    """Datasets one after the other, by position. Raises AssertionError for none, and for an IterableDataset."""

    def __init__(self, datasets: Iterable[Dataset[T_co]]) -> None:
        self.datasets = list(datasets)
        if not self.datasets:
            raise AssertionError("ConcatDataset: the list of datasets is empty")
        if any(isinstance(d, IterableDataset) for d in self.datasets):
            raise AssertionError("ConcatDataset: an IterableDataset has no index to join by; use ChainDataset")
        self.cumulative_sizes = list(accumulate(len(d) for d in self.datasets))  # type: ignore[arg-type]

    def __len__(self) -> int:
        return self.cumulative_sizes[-1]

    def __getitem__(self, index: int) -> T_co:
        n = len(self)
        if not -n <= index < n:
            kind = ValueError if index < 0 else IndexError  # the latter ends a loop over the dataset
            raise kind(f"index {index} is out of range for a dataset of length {n}")
        index %= n
        which = bisect_right(self.cumulative_sizes, index)
        return self.datasets[which][index - (self.cumulative_sizes[which - 1] if which else 0)]


class ChainDataset(IterableDataset[Any]):
    """Streams one after the other. Raises AssertionError, when read, for anything but an IterableDataset."""

    def __init__(self, datasets: Iterable[Any]) -> None:
        super().__init__()
        self.datasets = datasets

    def __iter__(self) -> Iterator[Any]:
        return chain.from_iterable(map(_stream, self.datasets))

    def __len__(self) -> int:
        return sum(len(_stream(d)) for d in self.datasets)


def _stream(dataset: Any) -> Any:
    if not isinstance(dataset, IterableDataset):
        raise AssertionError(f"ChainDataset: {type(dataset).__name__} is no IterableDataset; use ConcatDataset")
    return dataset


class Subset(Dataset[T_co]):
    """The items of ``dataset`` at ``indices``."""

    def __init__(self, dataset: Dataset[T_co], indices: Sequence[int]) -> None:
        self.dataset = dataset
        self.indices = indices

    def __getitem__(self, index: Any) -> T_co:
        if isinstance(index, list):
            return self.dataset[[self.indices[i] for i in index]]
        return self.dataset[self.indices[index]]

    def __getitems__(self, indices: list[int]) -> list[T_co]:
        """The items at several positions."""
        chosen = [self.indices[i] for i in indices]
        fetch = getattr(self.dataset, "__getitems__", None)
        return fetch(chosen) if callable(fetch) else [self.dataset[i] for i in chosen]

    def __len__(self) -> int:
        return len(self.indices)


def random_split(dataset: Any, lengths: Sequence[int | float], generator: Any = None) -> list[Subset[Any]]:
    """Disjoint random subsets of the given lengths, or of the given fractions, which add up to 1 (what rounding
    leaves goes to the first ones, one each). Raises ValueError where they do not add up."""
    n = len(dataset)
    if math.isclose(sum(lengths), 1) and sum(lengths) <= 1 + 1e-9 and not all(isinstance(v, int) for v in lengths):
        for i, fraction in enumerate(lengths):
            if not 0 <= fraction <= 1:
                raise ValueError(f"random_split: fraction {fraction} (number {i}) is outside [0, 1]")
        sizes = [math.floor(n * fraction) for fraction in lengths]
        for i in range(n - sum(sizes)):
            sizes[i % len(sizes)] += 1
    else:
        sizes = [int(v) for v in lengths]
    if sum(sizes) != n:
        raise ValueError(f"random_split: lengths {list(lengths)} add up to {sum(sizes)}, the dataset has {n} items")
    order = sampling.randperm(n, generator=generator, device="cpu").tolist()
    for i, size in enumerate(sizes):
        if size == 0:
            warnings.warn(f"random_split: part {i} has no items", stacklevel=2)
    return [Subset(dataset, order[end - size : end]) for end, size in zip(accumulate(sizes), sizes, strict=True)]
