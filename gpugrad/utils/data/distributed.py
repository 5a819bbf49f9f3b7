"""The share of a dataset that one of several processes reads."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from gpugrad.ops import sampling
from gpugrad.random import Generator
from gpugrad.utils.data.sampler import Sampler


class DistributedSampler(Sampler[int]):
    """Every ``num_replicas``-th position, from number ``rank`` on, of an order that all processes agree on.

    The order is that of the dataset, or with ``shuffle`` a function of ``seed`` and the epoch, which
    :meth:`set_epoch` sets. All shares are of one length: positions from the front are repeated at the end, or with
    ``drop_last`` left out there. Raises ValueError for a rank out of range, RuntimeError without ``num_replicas`` and
    ``rank``, since there is no process group to ask."""

    def __init__(
        self,
        dataset: Any,
        num_replicas: int | None = None,
        rank: int | None = None,
        shuffle: bool = True,
        seed: int = 0,
        drop_last: bool = False,
    ) -> None:
        if num_replicas is None or rank is None:
            raise RuntimeError("DistributedSampler: there is no process group to ask; give num_replicas and rank")
        if not 0 <= rank < num_replicas:
            raise ValueError(f"DistributedSampler: rank {rank} is out of range for num_replicas={num_replicas}")
        self.dataset = dataset
        self.num_replicas = num_replicas
        self.rank = rank
        self.epoch = 0
        self.drop_last = drop_last
        n = len(dataset)
        self.num_samples = n // num_replicas if drop_last else -(-n // num_replicas)
        self.total_size = self.num_samples * num_replicas
        self.shuffle = shuffle
        self.seed = seed

    def __iter__(self) -> Iterator[int]:
        n = len(self.dataset)
        order = list(range(n))
        if self.shuffle:
            generator = Generator().manual_seed(self.seed + self.epoch)
            order = sampling.randperm(n, generator=generator, device="cpu").tolist()
        if n and self.total_size > n:
            order *= -(-self.total_size // n)
        return iter(order[self.rank : self.total_size : self.num_replicas])

    def __len__(self) -> int:
        return self.num_samples

    def set_epoch(self, epoch: int) -> None:
        """The next pass is shuffled as number ``epoch``. Without it, every pass has the same order."""
        self.epoch = epoch
