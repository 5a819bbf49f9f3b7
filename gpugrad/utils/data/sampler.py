"""Samplers: the order in which a dataset's items are taken.

Random ones draw from gpugrad's generator (or their own), on the host.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence, Sized
from typing import Any, Generic, TypeVar

from gpugrad import dtypes
from gpugrad.ops import creation, sampling

T_co = TypeVar("T_co", covariant=True)


class Sampler(Generic[T_co]):
    """Base: subclasses define ``__iter__`` over positions (or lists of them), and ``__len__`` if known."""

    def __init__(self, data_source: Any = None) -> None:
        del data_source  # taken for compatibility; a sampler keeps its own reference

    def __iter__(self) -> Iterator[T_co]:
        raise NotImplementedError(f"{type(self).__name__} must define __iter__")


class SequentialSampler(Sampler[int]):
    """0, 1, ... n-1."""

    def __init__(self, data_source: Sized) -> None:
        self.data_source = data_source

    def __iter__(self) -> Iterator[int]:
        return iter(range(len(self.data_source)))

    def __len__(self) -> int:
        return len(self.data_source)


class RandomSampler(Sampler[int]):
    """A random permutation, or with ``replacement`` independent draws; ``num_samples`` of them (default: one
    pass). Raises TypeError, ValueError."""

    def __init__(
        self,
        data_source: Sized,
        replacement: bool = False,
        num_samples: int | None = None,
        generator: Any = None,
    ) -> None:
        if not isinstance(replacement, bool):
            raise TypeError(f"{type(self).__name__}: replacement must be a bool, not {replacement!r}")
        if num_samples is not None and (
            isinstance(num_samples, bool) or not isinstance(num_samples, int) or num_samples <= 0
        ):
            raise ValueError(f"{type(self).__name__}: num_samples must be an int of at least 1, got {num_samples!r}")
        if num_samples is None and len(data_source) == 0:
            raise ValueError(f"{type(self).__name__}: the dataset has no items to draw from")
        self.data_source = data_source
        self.replacement = replacement
        self._num_samples = num_samples
        self.generator = generator

    @property
    def num_samples(self) -> int:
        """Positions per pass; follows the dataset's length unless it was given."""
        return len(self.data_source) if self._num_samples is None else self._num_samples

    def __iter__(self) -> Iterator[int]:
        n, left = len(self.data_source), self.num_samples
        if n == 0:
            return
        if self.replacement:
            yield from sampling.randint(0, n, (left,), generator=self.generator, device="cpu").tolist()
            return
        while left > 0:
            order = sampling.randperm(n, generator=self.generator, device="cpu").tolist()
            yield from order[:left]
            left -= n

    def __len__(self) -> int:
        return self.num_samples


class SubsetRandomSampler(Sampler[int]):
    """A random permutation of ``indices``."""

    def __init__(self, indices: Sequence[int], generator: Any = None) -> None:
        self.indices = indices
        self.generator = generator

    def __iter__(self) -> Iterator[int]:
        for i in sampling.randperm(len(self.indices), generator=self.generator, device="cpu").tolist():
            yield self.indices[i]

    def __len__(self) -> int:
        return len(self.indices)


class WeightedRandomSampler(Sampler[int]):
    """``num_samples`` positions drawn with probabilities proportional to ``weights``. Raises ValueError."""

    def __init__(
        self, weights: Sequence[float], num_samples: int, replacement: bool = True, generator: Any = None
    ) -> None:
        if isinstance(num_samples, bool) or not isinstance(num_samples, int) or num_samples <= 0:
            raise ValueError(f"{type(self).__name__}: num_samples must be an int of at least 1, got {num_samples!r}")
        if not isinstance(replacement, bool):
            raise ValueError(f"{type(self).__name__}: replacement must be a bool, not {replacement!r}")
        self.weights = creation.as_tensor(weights, dtype=dtypes.float64, device="cpu")
        if self.weights.dim() != 1:
            raise ValueError(
                f"WeightedRandomSampler: weights must have one dimension, not shape {tuple(self.weights.shape)}"
            )
        self.num_samples = num_samples
        self.replacement = replacement
        self.generator = generator

    def __iter__(self) -> Iterator[int]:
        drawn = sampling.multinomial(self.weights, self.num_samples, self.replacement, generator=self.generator)
        return iter(drawn.tolist())

    def __len__(self) -> int:
        return self.num_samples


class BatchSampler(Sampler[list[int]]):
    """Positions of ``sampler`` in lists of ``batch_size``; the last, shorter one dropped with ``drop_last``.
    Raises ValueError."""

    def __init__(self, sampler: Iterable[int], batch_size: int, drop_last: bool) -> None:
        if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size <= 0:
            raise ValueError(f"BatchSampler: batch_size must be an int of at least 1, got {batch_size!r}")
        if not isinstance(drop_last, bool):
            raise ValueError(f"BatchSampler: drop_last must be a bool, not {drop_last!r}")
        self.sampler = sampler
        self.batch_size = batch_size
        self.drop_last = drop_last

    def __iter__(self) -> Iterator[list[int]]:
        batch: list[int] = []
        for position in self.sampler:
            batch.append(position)
            if len(batch) == self.batch_size:
                yield batch
                batch = []
        if batch and not self.drop_last:
            yield batch

    def __len__(self) -> int:
        n = len(self.sampler)  # type: ignore[arg-type]
        return n // self.batch_size if self.drop_last else -(-n // self.batch_size)
