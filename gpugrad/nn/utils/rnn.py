"""Sequences of different lengths as one tensor: padded with a value, or packed without gaps.

A packed sequence holds the rows of all sequences step by step: first step 0 of every sequence, then
step 1 of those that have one, and so on, the longest sequence first in each step.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from gpugrad import dtypes
from gpugrad.ops import creation
from gpugrad.ops.joining import pad_constant, stack
from gpugrad.tensor import Tensor


class _Fields(NamedTuple):
    data: Tensor
    batch_sizes: Tensor
    sorted_indices: Tensor | None
    unsorted_indices: Tensor | None


class PackedSequence(_Fields):
    """What :func:`pack_padded_sequence` and :func:`pack_sequence` return, and recurrent layers take and return.

    ``data`` ``[sum of lengths, *]``; ``batch_sizes`` (CPU, int64): how many sequences have each step;
    ``sorted_indices``, ``unsorted_indices``: the order by length of the original batch and its inverse, None if
    it was in order."""

    def __new__(
        cls,
        data: Any,
        batch_sizes: Tensor | None = None,
        sorted_indices: Tensor | None = None,
        unsorted_indices: Tensor | None = None,
    ) -> PackedSequence:
        if batch_sizes is None:
            if not isinstance(data, (list, tuple)) or len(data) != 2:
                raise AssertionError("PackedSequence: without batch_sizes, data must be a pair (data, batch_sizes)")
            data, batch_sizes = data
        if not batch_sizes.is_cpu:
            raise ValueError(
                f"PackedSequence: batch_sizes is on {batch_sizes.device} and must be on the CPU; call .cpu()"
            )
        if unsorted_indices is None:
            unsorted_indices = invert_permutation(sorted_indices)
        return _Fields.__new__(cls, data, batch_sizes, sorted_indices, unsorted_indices)

    def to(self, *args: Any, **kwargs: Any) -> PackedSequence:
        """``data`` converted as :meth:`Tensor.to` does, the indices moved along; itself if nothing changes."""
        data = self.data.to(*args, **kwargs)
        if data is self.data:
            return self
        indices = (None if i is None else i.to(data.device) for i in (self.sorted_indices, self.unsorted_indices))
        return type(self)(data, self.batch_sizes, *indices)

    def cuda(self, *args: Any, **kwargs: Any) -> PackedSequence:
        """On a CUDA device (the first unless given)."""
        return self.to(self.data.new_empty(0).cuda(*args, **kwargs).device)

    def cpu(self) -> PackedSequence:
        """On the CPU."""
        return self.to(device="cpu")

    def double(self) -> PackedSequence:
        """As float64."""
        return self.to(dtype=dtypes.float64)

    def float(self) -> PackedSequence:
        """As float32."""
        return self.to(dtype=dtypes.float32)

    def half(self) -> PackedSequence:
        """As float16."""
        return self.to(dtype=dtypes.float16)

    def long(self) -> PackedSequence:
        """As int64."""
        return self.to(dtype=dtypes.int64)

    def int(self) -> PackedSequence:
        """As int32."""
        return self.to(dtype=dtypes.int32)

    def short(self) -> PackedSequence:
        """As int16."""
        return self.to(dtype=dtypes.int16)

    def char(self) -> PackedSequence:
        """As int8."""
        return self.to(dtype=dtypes.int8)

    def byte(self) -> PackedSequence:
        """As uint8."""
        return self.to(dtype=dtypes.uint8)

    def pin_memory(self) -> PackedSequence:
        """Itself: no memory is pinned here."""
        return self

    def is_pinned(self) -> bool:
        """False: no memory is pinned here."""
        return False

    @property
    def is_cuda(self) -> bool:
        """Whether ``data`` is on a CUDA device."""
        return self.data.is_cuda


def invert_permutation(permutation: Tensor | None) -> Tensor | None:
    """The permutation that undoes this one (1-d, int64); None for None."""
    if permutation is None:
        return None
    places = creation.arange(permutation.numel(), device=permutation.device, dtype=permutation.dtype)
    return creation.empty_like(permutation).scatter(0, permutation, places)


def _lengths(lengths: Any) -> np.ndarray:
    values = lengths.tolist() if isinstance(lengths, Tensor) else [n.__index__() for n in lengths]
    return np.asarray(values).astype(np.int64).reshape(-1)


def _counts(descending: np.ndarray, upto: int) -> np.ndarray:
    """How many of the lengths, longest first, exceed 0, 1, ..., upto - 1."""
    return np.searchsorted(-descending, -np.arange(upto), side="left")


def pack_padded_sequence(
    input: Tensor, lengths: Tensor | Sequence[int], batch_first: bool = False, enforce_sorted: bool = True
) -> PackedSequence:
    """``input`` ``[steps, batch, *]`` (``batch_first``: ``[batch, steps, *]``) without what lies beyond ``lengths``.

    ``lengths``: one per sequence, at least 1 and at most ``steps``, in falling order unless
    ``enforce_sorted`` is False. Raises RuntimeError otherwise, IndexError for a 1-d input."""
    if input.dim() < 2:
        raise IndexError(f"pack_padded_sequence: input of shape {tuple(input.shape)} must be [steps, batch, *]")
    sizes = _lengths(lengths)
    batch, steps = input.shape[:2] if batch_first else input.shape[1::-1]
    if not input.numel():
        raise RuntimeError(f"pack_padded_sequence: an empty tensor cannot be packed, got {tuple(input.shape)}")
    if len(sizes) != batch:
        raise RuntimeError(f"pack_padded_sequence: {len(sizes)} lengths for a batch of {batch}")
    if sizes.min() < 1 or sizes.max() > steps:
        raise RuntimeError(f"pack_padded_sequence: lengths must lie in [1, {steps}] here, got {sizes.tolist()}")
    order = np.arange(batch)
    if not enforce_sorted:
        order = np.argsort(-sizes, kind="stable")
        sizes = sizes[order]
    elif (np.diff(sizes) > 0).any():
        raise RuntimeError(
            f"pack_padded_sequence: lengths must not grow, got {sizes.tolist()}; pass enforce_sorted=False to have "
            "the batch sorted"
        )
    counts = _counts(sizes, int(sizes[0]))
    step, place = np.repeat(np.arange(len(counts)), counts), np.concatenate([order[:n] for n in counts])
    rows = place * steps + step if batch_first else step * batch + place
    flat = input.reshape(batch * steps, *input.shape[2:])
    data = flat.index_select(0, creation.tensor(rows, device=input.device))
    sorting = None if enforce_sorted else creation.tensor(order, device=input.device)
    return PackedSequence(data, creation.tensor(counts, dtype=dtypes.int64, device="cpu"), sorting, None)


def pad_packed_sequence(
    sequence: PackedSequence, batch_first: bool = False, padding_value: float = 0.0, total_length: int | None = None
) -> tuple[Tensor, Tensor]:
    """The inverse of :func:`pack_padded_sequence`: ``[steps, batch, *]`` (``batch_first``: ``[batch, steps, *]``)
    in the original order, and the lengths (CPU, int64). ``total_length``: steps to pad to, at least those of the
    longest sequence (else ValueError)."""
    counts = np.asarray(sequence.batch_sizes.tolist(), np.int64)
    steps, batch = len(counts), int(counts[0])
    if total_length is not None:
        if total_length < steps:
            raise ValueError(
                f"pad_packed_sequence: total_length={total_length} is less than the {steps} steps of the longest "
                "sequence"
            )
        steps = total_length
    step = np.repeat(np.arange(len(counts)), counts)
    place = np.concatenate([np.arange(n) for n in counts])
    rows = place * steps + step if batch_first else step * batch + place
    data, rest = sequence.data, tuple(sequence.data.shape[1:])
    out = creation.full((batch * steps, *rest), padding_value, dtype=data.dtype, device=data.device)
    out = out.index_copy(0, creation.tensor(rows, device=data.device), data)
    out = out.reshape(*((batch, steps) if batch_first else (steps, batch)), *rest)
    lengths = creation.tensor(
        (counts[:, None] > np.arange(batch)).sum(0).astype(np.int64), dtype=dtypes.int64, device="cpu"
    )
    if sequence.unsorted_indices is not None:
        out = out.index_select(0 if batch_first else 1, sequence.unsorted_indices)
        lengths = lengths.index_select(0, sequence.unsorted_indices.cpu())
    return out, lengths


def pad_sequence(
    sequences: Tensor | Iterable[Tensor],
    batch_first: bool = False,
    padding_value: float = 0.0,
    padding_side: str = "right",
) -> Tensor:
    """Tensors ``[length, *]`` as one ``[longest, batch, *]`` (``batch_first``: ``[batch, longest, *]``), with
    ``padding_value`` after (``padding_side="left"``: before) the shorter ones. The dtype is that of the first.
    Raises RuntimeError where sizes other than the length differ."""
    if not isinstance(sequences, Iterable):
        raise RuntimeError(f"pad_sequence: expected tensors in a list or tuple, got {type(sequences).__name__}")
    if padding_side not in ("left", "right"):
        raise RuntimeError(f"pad_sequence: padding_side must be 'left' or 'right', not {padding_side!r}")
    parts = list(sequences.unbind(0) if isinstance(sequences, Tensor) else sequences)
    if not parts or any(p.dim() == 0 for p in parts):
        raise RuntimeError("pad_sequence: expected at least one tensor, each of 1 dimension or more")
    longest = max(p.shape[0] for p in parts)
    padded = []
    for p in parts:
        missing = longest - p.shape[0]
        if missing:
            width = (missing, 0) if padding_side == "left" else (0, missing)
            p = pad_constant(p, (0, 0) * (p.dim() - 1) + width, padding_value)
        padded.append(p.to(parts[0].dtype))
    return stack(padded, 0 if batch_first else 1)


def unpad_sequence(padded_sequences: Tensor, lengths: Tensor, batch_first: bool = False) -> list[Tensor]:
    """The first ``lengths[i]`` steps of each sequence of ``[steps, batch, *]`` (``batch_first``:
    ``[batch, steps, *]``), as a list."""
    sequences = padded_sequences.unbind(0 if batch_first else 1)
    return [s[:n] for s, n in zip(sequences, _lengths(lengths).tolist(), strict=True)]


def pack_sequence(sequences: Sequence[Tensor], enforce_sorted: bool = True) -> PackedSequence:
    """Tensors ``[length, *]`` as a packed sequence; in falling order of length unless ``enforce_sorted`` is
    False (else RuntimeError)."""
    lengths = [s.shape[0] for s in sequences]
    return pack_padded_sequence(pad_sequence(sequences), lengths, enforce_sorted=enforce_sorted)


def unpack_sequence(packed_sequences: PackedSequence) -> list[Tensor]:
    """The sequences of a packed sequence, as a list in the original order."""
    padded, lengths = pad_packed_sequence(packed_sequences, batch_first=True)
    return unpad_sequence(padded, lengths, batch_first=True)
