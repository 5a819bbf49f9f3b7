"""DataLoader: batches of a dataset in a chosen order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

import numpy as np

from gpugrad.ops import creation
from gpugrad.random import Generator
from gpugrad.tensor import Tensor
from gpugrad.utils.data.collate import default_collate, default_convert
from gpugrad.utils.data.dataset import IterableDataset, Subset, TensorDataset
from gpugrad.utils.data.sampler import BatchSampler, RandomSampler, SequentialSampler


class DataLoader:
    """Iterates over batches of ``dataset``.

    ``batch_size`` (None: single items, as they are), ``shuffle``, ``drop_last``; or a ``sampler`` of positions, or a
    ``batch_sampler`` of lists of positions; ``collate_fn`` makes a batch of a list of samples.

    The order is drawn from ``generator``, else from gpugrad's own. With ``seed``, it is a function of the seed and
    the epoch alone: the epoch counts up with each pass, and :meth:`set_epoch` sets it, so that a resumed run meets the
    same batches. A :class:`TensorDataset` (or a Subset of one) is batched with one index_select per tensor.

    Batches are made in this process: ``num_workers`` above 0 raises NotImplementedError. ``pin_memory``,
    ``persistent_workers``, ``in_order`` and the like are accepted and change nothing.
    Raises ValueError for options that exclude each other."""

    def __init__(
        self,
        dataset: Any,
        batch_size: int | None = 1,
        shuffle: bool | None = None,
        sampler: Iterable[int] | None = None,
        batch_sampler: Iterable[list[int]] | None = None,
        num_workers: int = 0,
        collate_fn: Callable[[list[Any]], Any] | None = None,
        pin_memory: bool = False,
        drop_last: bool = False,
        timeout: float = 0,
        worker_init_fn: Callable[[int], None] | None = None,
        multiprocessing_context: Any = None,
        generator: Any = None,
        *,
        prefetch_factor: int | None = None,
        persistent_workers: bool = False,
        pin_memory_device: str = "",
        in_order: bool = True,
        seed: int | None = None,
    ) -> None:
        _check_workers(num_workers, prefetch_factor, persistent_workers, timeout)
        iterable = isinstance(dataset, IterableDataset)
        if iterable and shuffle:
            raise ValueError(
                "DataLoader with IterableDataset: expected unspecified shuffle option, but got shuffle=True"
            )
        if iterable and (sampler is not None or batch_sampler is not None):
            raise ValueError(
                "DataLoader with IterableDataset: expected unspecified sampler and batch_sampler option: "
                "the stream gives the order"
            )
        if sampler is not None and shuffle:
            raise ValueError("sampler option is mutually exclusive with shuffle")
        if seed is not None and generator is not None:
            raise ValueError("DataLoader: give either seed or generator, not both")
        if batch_sampler is not None:
            if batch_size != 1 or shuffle or sampler is not None or drop_last:
                raise ValueError(
                    "batch_sampler option is mutually exclusive with batch_size, shuffle, sampler, and drop_last"
                )
            batch_size = None
        elif batch_size is None and drop_last:
            raise ValueError("batch_size=None option disables auto-batching and is mutually exclusive with drop_last")
        if seed is not None:
            generator = Generator()
        if sampler is None and not iterable and batch_sampler is None:
            sampler = RandomSampler(dataset, generator=generator) if shuffle else SequentialSampler(dataset)
        if batch_size is not None and not iterable:
            assert sampler is not None
            batch_sampler = BatchSampler(sampler, batch_size, drop_last)
        self.dataset = dataset
        self.batch_size = batch_size
        self.drop_last = drop_last
        self.sampler = sampler
        self.batch_sampler = batch_sampler
        self.num_workers = num_workers
        self.pin_memory = pin_memory
        self.timeout = timeout
        self.worker_init_fn = worker_init_fn
        self.generator = generator
        self.seed = seed
        self.epoch = 0
        self._batching = batch_sampler is not None or batch_size is not None
        self.collate_fn = collate_fn or (default_collate if self._batching else default_convert)

    def set_epoch(self, epoch: int) -> None:
        """The next pass is the one of number ``epoch`` (with ``seed``)."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[Any]:
        if self.seed is not None:
            # Far apart for neighbouring seeds, so that (seed 0, epoch 1) is not (seed 1, epoch 0).
            self.generator.manual_seed(self.seed * 0x9E3779B97F4A7C15 + self.epoch)
        self.epoch += 1
        if isinstance(self.dataset, IterableDataset):
            return self._stream()
        if self.batch_sampler is None:
            return (self.collate_fn(self.dataset[i]) for i in self.sampler or ())
        source = _tensor_source(self.dataset) if self.collate_fn is default_collate else None
        if source is not None:
            return self._tensor_batches(*source)
        return self._batches()

    def __len__(self) -> int:
        if isinstance(self.dataset, IterableDataset):
            n = len(self.dataset)  # type: ignore[arg-type]
            if self.batch_size is None:
                return n
            return n // self.batch_size if self.drop_last else -(-n // self.batch_size)
        return len(self.sampler if self.batch_sampler is None else self.batch_sampler)  # type: ignore[arg-type]

    # -- the ways to make batches ------------------------------------------------
    def _stream(self) -> Iterator[Any]:
        items = iter(self.dataset)
        if self.batch_size is None:
            for item in items:
                yield self.collate_fn(item)
            return
        while batch := list(islice(items, self.batch_size)):
            if len(batch) < self.batch_size and self.drop_last:
                return
            yield self.collate_fn(batch)

    def _batches(self) -> Iterator[Any]:
        fetch = getattr(self.dataset, "__getitems__", None)
        for positions in self.batch_sampler or ():
            samples = fetch(positions) if callable(fetch) else [self.dataset[i] for i in positions]
            yield self.collate_fn(samples)

    def _tensor_batches(self, tensors: tuple[Tensor, ...], indices: np.ndarray | None) -> Iterator[list[Tensor]]:
        """Batches of tensors, all samples of a batch at once. ``indices``: a subset's positions."""
        for positions in self._position_batches():
            chosen = positions if indices is None else indices[positions]
            yield _select(tensors, chosen)

    def _position_batches(self) -> Iterator[np.ndarray]:
        """What the batch sampler gives, as arrays. Its own kind is cut from one array of the whole
        order, which saves making a Python list of every batch."""
        sampler = self.batch_sampler
        if type(sampler) is BatchSampler:
            order = _order(sampler.sampler)
            size = sampler.batch_size
            end = len(order) // size * size if sampler.drop_last else len(order)
            for start in range(0, end, size):
                yield order[start : start + size]
            return
        for positions in sampler or ():
            yield np.asarray(positions, np.int64)


def _order(sampler: Iterable[int]) -> np.ndarray:
    """All positions of a sampler: int64 ``[n]``."""
    if type(sampler) is SequentialSampler:
        return np.arange(len(sampler))
    return np.fromiter(sampler, np.int64)


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


def _select(tensors: tuple[Tensor, ...], positions: np.ndarray) -> list[Tensor]:
    """The slices of every tensor at ``positions``, as fresh tensors."""
    n = tensors[0].shape[0]
    if len(positions) and not (-n <= positions.min() and positions.max() < n):
        raise IndexError(
            f"index {positions[(positions < -n) | (positions >= n)][0]} is out of range for a dataset of length {n}"
        )
    positions = np.where(positions < 0, positions + n, positions)
    if len(positions) and np.array_equal(positions, np.arange(positions[0], positions[0] + len(positions))):
        start, stop = int(positions[0]), int(positions[0]) + len(positions)
        return [t[start:stop].clone() for t in tensors]
    index = creation.from_numpy(np.ascontiguousarray(positions))
    return [t.index_select(0, index.to(device=t.device)) for t in tensors]


def _check_workers(num_workers: int, prefetch_factor: int | None, persistent_workers: bool, timeout: float) -> None:
    if num_workers < 0:
        raise ValueError("num_workers option should be non-negative; use num_workers=0 to disable multiprocessing.")
    if timeout < 0:
        raise ValueError("timeout option should be non-negative")
    if num_workers > 0:
        raise NotImplementedError(
            f"DataLoader: num_workers={num_workers} is not supported yet: batches are made in "
            "this process; use num_workers=0 (and a TensorDataset, which is batched without a "
            "Python loop)"
        )
    if prefetch_factor is not None:
        raise ValueError("prefetch_factor option could only be specified in multiprocessing: let num_workers > 0")
    if persistent_workers:
        raise ValueError("persistent_workers option needs num_workers > 0")
