"""From positions to a batch: sample by sample, or all at once where the dataset is made of tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

import numpy as np

from gpugrad.ops import creation
from gpugrad.tensor import Tensor
from gpugrad.utils.data.collate import default_collate
from gpugrad.utils.data.dataset import Subset, TensorDataset
from gpugrad.utils.data.sampler import BatchSampler, SequentialSampler


class Fetcher:
    """Makes the batch of given positions of ``dataset``."""

    def __init__(self, dataset: Any, collate: Callable[[list[Any]], Any]) -> None:
        self.dataset = dataset
        self.collate = collate
        self.tensors = _tensor_source(dataset) if collate is default_collate else None

    def __call__(self, positions: Any) -> Any:
        if self.tensors is not None:
            return _select(*self.tensors, np.asarray(positions, np.int64))
        chosen = positions.tolist() if isinstance(positions, np.ndarray) else positions
        fetch = getattr(self.dataset, "__getitems__", None)
        return self.collate(fetch(chosen) if callable(fetch) else [self.dataset[i] for i in chosen])


def stream(
    dataset: Iterable[Any], collate: Callable[[Any], Any], batch_size: int | None, drop_last: bool
) -> Iterator[Any]:
    """The batches of an IterableDataset; its items one by one without a batch size."""
    items = iter(dataset)
    if batch_size is None:
        yield from map(collate, items)
        return
    while batch := list(islice(items, batch_size)):
        if len(batch) == batch_size or not drop_last:
            yield collate(batch)


def position_batches(sampler: Any) -> Iterator[Any]:
    """What a batch sampler gives. The usual kind is cut from one array of the whole order, which saves making a
    Python list for every batch."""
    if type(sampler) is not BatchSampler or type(sampler.sampler).__module__ != BatchSampler.__module__:
        yield from sampler
        return
    inner, size = sampler.sampler, sampler.batch_size
    order = np.arange(len(inner)) if type(inner) is SequentialSampler else np.fromiter(inner, np.int64)
    end = len(order) // size * size if sampler.drop_last else len(order)
    for start in range(0, end, size):
        yield order[start : start + size]


def check_on_cpu(dataset: Any) -> None:
    """Raise ValueError for a TensorDataset on another device, which another process cannot read."""
    for t in (_tensor_source(dataset) or ((), None))[0]:
        if t.device.type != "cpu":
            raise ValueError(
                f"DataLoader: a dataset on {t.device} cannot be read by worker processes; use num_workers=0 "
                "(it is batched on its device), or keep it on the cpu and move the batches"
            )


def _tensor_source(dataset: Any) -> tuple[tuple[Tensor, ...], np.ndarray | None] | None:
    """The tensors of a TensorDataset, or of a Subset of one with its positions; else None."""
    if type(dataset) is TensorDataset:
        return dataset.tensors, None
    if type(dataset) is Subset:
        inner = _tensor_source(dataset.dataset)
        if inner is not None:
            mine = np.asarray(dataset.indices, np.int64)
            return inner[0], mine if inner[1] is None else inner[1][mine]
    return None


def _select(tensors: tuple[Tensor, ...], indices: np.ndarray | None, positions: np.ndarray) -> list[Tensor]:
    """The slices of every tensor at ``positions`` (of a subset: at ``indices[positions]``), as fresh tensors."""
    if indices is not None:
        positions = indices[positions]
    n = tensors[0].shape[0]
    if len(positions) and not (-n <= positions.min() and positions.max() < n):
        wrong = positions[(positions < -n) | (positions >= n)][0]
        raise IndexError(f"index {wrong} is out of range for a dataset of length {n}")
    positions = np.where(positions < 0, positions + n, positions)
    if len(positions) and np.array_equal(positions, np.arange(positions[0], positions[0] + len(positions))):
        start, stop = int(positions[0]), int(positions[0]) + len(positions)
        return [t[start:stop].clone() for t in tensors]
    index = creation.from_numpy(positions)
    return [t.index_select(0, index.to(device=t.device)) for t in tensors]
