"""DataLoader: batches of a dataset in a chosen order."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterable, Iterator
from itertools import repeat
from multiprocessing.context import BaseContext
from typing import Any, Generic, TypeVar

from gpugrad.random import Generator, default_generator
from gpugrad.utils.data.collate import default_collate, default_convert
from gpugrad.utils.data.dataset import IterableDataset
from gpugrad.utils.data.fetch import Fetcher, check_on_cpu, position_batches, stream
from gpugrad.utils.data.sampler import BatchSampler, RandomSampler, SequentialSampler
from gpugrad.utils.data.workers import Job, Workers

T_co = TypeVar("T_co", covariant=True)
_FIXED = frozenset(("dataset", "batch_size", "sampler", "batch_sampler", "drop_last", "persistent_workers"))


class DataLoader(Generic[T_co]):
    """Iterates over batches of ``dataset``.

    ``batch_size`` (None: single items, as they are), ``shuffle``, ``drop_last``; or a ``sampler`` of positions, or a
    ``batch_sampler`` of lists of positions; ``collate_fn`` makes a batch of a list of samples.

    The order is drawn from ``generator``, else from gpugrad's own. With ``seed``, it is a function of the seed and
    the epoch alone: the epoch counts up with each pass, and :meth:`set_epoch` sets it, so that a resumed run meets the
    same batches. A :class:`TensorDataset` (or a Subset of one) is batched with one index_select per tensor.

    With ``num_workers`` batches are made by that many processes, ``prefetch_factor`` (2) ahead each, in the same order;
    their datasets must stay on the CPU, and each computes with one thread. ``worker_init_fn(id)`` runs in each;
    ``timeout`` seconds without a batch is a RuntimeError; ``persistent_workers`` keeps them from pass to pass.
    ``pin_memory`` and ``in_order`` change nothing.
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
        _check_context(multiprocessing_context, num_workers)
        if num_workers > 0:
            check_on_cpu(dataset)
        iterable = isinstance(dataset, IterableDataset)
        if iterable and shuffle:
            raise ValueError("DataLoader: an IterableDataset comes in its own order; shuffle in the stream itself")
        if iterable and (sampler is not None or batch_sampler is not None):
            raise ValueError(
                "DataLoader: an IterableDataset comes in its own order; leave sampler and batch_sampler out"
            )
        if sampler is not None and shuffle:
            raise ValueError("DataLoader: sampler and shuffle=True both set the order; give one of them")
        if seed is not None and generator is not None:
            raise ValueError("DataLoader: give either seed or generator, not both")
        if batch_sampler is not None:
            if batch_size != 1 or shuffle or sampler is not None or drop_last:
                raise ValueError(
                    "DataLoader: batch_sampler makes the batches alone; leave out sampler, shuffle, batch_size and "
                    "drop_last"
                )
            batch_size = None
        elif batch_size is None and drop_last:
            raise ValueError("DataLoader: with batch_size=None there is no batch that drop_last could leave out")
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
        batching = batch_sampler is not None or batch_size is not None
        self.collate_fn = collate_fn or (default_collate if batching else default_convert)
        self.prefetch_factor = 2 if prefetch_factor is None and num_workers > 0 else prefetch_factor
        self.persistent_workers = persistent_workers
        self.multiprocessing_context = multiprocessing_context
        self.pin_memory_device = pin_memory_device
        self.in_order = in_order
        self._iterable = iterable
        self._workers: Workers | None = None
        self._built = True

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _FIXED and "_built" in self.__dict__:
            raise ValueError(f"DataLoader: {name} cannot be set any more; make another DataLoader")
        super().__setattr__(name, value)

    def set_epoch(self, epoch: int) -> None:
        """The next pass is the one of number ``epoch`` (with ``seed``)."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[Any]:
        if self.seed is not None:
            # Far apart for neighbouring seeds, so that (seed 0, epoch 1) is not (seed 1, epoch 0).
            self.generator.manual_seed(self.seed * 0x9E3779B97F4A7C15 + self.epoch)
        self.epoch += 1
        if self.num_workers > 0:
            return self._from_workers(self._positions())
        if self._iterable:
            return stream(self.dataset, self.collate_fn, self.batch_size, self.drop_last)
        if self.batch_sampler is None:
            return (self.collate_fn(self.dataset[i]) for i in self._positions())
        return map(Fetcher(self.dataset, self.collate_fn), self._positions())

    def _positions(self) -> Iterator[Any]:
        """What is fetched in this pass: positions, lists of them, or for a stream None without end."""
        if self._iterable:
            return repeat(None)
        source = iter(self.sampler or ()) if self.batch_sampler is None else position_batches(self.batch_sampler)
        # With a seed the order is drawn now: a pass begun before this one ends will seed the generator anew.
        return source if self.seed is None else iter(list(source))

    def _from_workers(self, positions: Iterator[Any]) -> Iterator[Any]:
        workers = self._workers
        if workers is None:
            job = Job(
                self.dataset, self.collate_fn, self._iterable, self.batch_size, self.drop_last, self.worker_init_fn
            )
            assert self.prefetch_factor is not None
            workers = Workers(job, self.num_workers, self.prefetch_factor, self.timeout, self.multiprocessing_context)
            if self.persistent_workers:
                self._workers = workers
        # Not drawn, which would use up a stream: the order is the same with and without workers.
        seed, draws = (default_generator if self.generator is None else self.generator).get_state()
        try:
            yield from workers.run(positions, (seed * 31 + draws * 1009) % 2**62)
        finally:
            if not self.persistent_workers:
                workers.stop()

    def __del__(self) -> None:
        workers = getattr(self, "_workers", None)
        if workers is not None:
            workers.stop()

    def __len__(self) -> int:
        if self._iterable:
            n = len(self.dataset)
            if self.batch_size is None:
                return n
            return n // self.batch_size if self.drop_last else -(-n // self.batch_size)
        return len(self.sampler if self.batch_sampler is None else self.batch_sampler)  # type: ignore[arg-type]


def _check_workers(num_workers: int, prefetch_factor: int | None, persistent_workers: bool, timeout: float) -> None:
    if num_workers < 0:
        raise ValueError(f"DataLoader: num_workers must be at least 0 (load in this process), got {num_workers}")
    if timeout < 0:
        raise ValueError(f"DataLoader: timeout must be at least 0 (wait for ever), got {timeout}")
    if prefetch_factor is not None and prefetch_factor < 1:
        raise ValueError(f"DataLoader: prefetch_factor must be at least 1, got {prefetch_factor}")
    if num_workers == 0 and prefetch_factor is not None:
        raise ValueError("DataLoader: prefetch_factor is for worker processes; set num_workers > 0 or leave it out")
    if num_workers == 0 and persistent_workers:
        raise ValueError("DataLoader: persistent_workers=True needs num_workers > 0")


def _check_context(context: Any, num_workers: int) -> None:
    if context is None:
        return
    if num_workers == 0:
        raise ValueError("DataLoader: multiprocessing_context is for worker processes; set num_workers > 0")
    known = multiprocessing.get_all_start_methods()
    if isinstance(context, str):
        if context not in known:
            raise ValueError(f"DataLoader: multiprocessing_context {context!r} is unknown; use one of {known}")
    elif not isinstance(context, BaseContext):
        raise TypeError(
            f"DataLoader: multiprocessing_context must be one of {known} or a context, not {type(context).__name__}"
        )
