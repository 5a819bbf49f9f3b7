"""Sums, means and maxima of rows of a table: embeddings of bags."""

from __future__ import annotations

import warnings

from gpugrad.nn.functional.linear import embedding
from gpugrad.nn.functional.shapes import is_integer
from gpugrad.ops import creation
from gpugrad.ops.elementwise import where
from gpugrad.ops.sorting import searchsorted
from gpugrad.tensor import Tensor

_MODES = ("sum", "mean", "max")


def _check(
    input: Tensor, weight: Tensor, offsets: Tensor | None, mode: str, by_freq: bool, factors: Tensor | None
) -> None:
    op = "embedding_bag"
    if mode not in _MODES:
        raise ValueError(f"{op}: mode {mode!r} is unknown; use 'sum', 'mean' or 'max'")
    if input.dim() not in (1, 2):
        raise ValueError(f"{op}: input must be 1-d with offsets or 2-d [bags, size], got shape {tuple(input.shape)}")
    if input.dim() == 2 and offsets is not None:
        raise ValueError(f"{op}: a 2-d input holds a bag in each row; offsets go with a 1-d input only")
    if input.dim() == 1 and (offsets is None or offsets.dim() != 1):
        got = "none" if offsets is None else f"shape {tuple(offsets.shape)}"
        raise ValueError(f"{op}: a 1-d input needs 1-d offsets, where each bag starts; got {got}")
    if mode == "max" and by_freq:
        raise ValueError(f"{op}: scale_grad_by_freq does not go with mode 'max'")
    if factors is not None:
        if tuple(factors.shape) != tuple(input.shape):
            raise ValueError(
                f"{op}: per_sample_weights of shape {tuple(factors.shape)} must have the shape of input, "
                f"{tuple(input.shape)}"
            )
        if mode != "sum":
            raise NotImplementedError(f"{op}: per_sample_weights go with mode 'sum' only, not {mode!r}")
        if factors.dtype is not weight.dtype:
            raise RuntimeError(
                f"{op}: per_sample_weights are {factors.dtype.name} and the weights {weight.dtype.name}; convert one"
            )
    if not is_integer(input) or (offsets is not None and not is_integer(offsets)):
        raise RuntimeError(f"{op}: input and offsets must be integers; convert with .long()")


def _bag_of_each(input: Tensor, offsets: Tensor | None, include_last_offset: bool) -> tuple[Tensor, int]:
    """For each element of ``input``, flattened, the number of its bag; and how many bags there are."""
    if offsets is None:
        bags, size = input.shape
        numbers = creation.arange(bags, device=input.device)
        return numbers.unsqueeze(1).expand(bags, size).reshape(bags * size), bags
    bags = offsets.shape[0] - (1 if include_last_offset else 0)
    if bags < 0:
        raise RuntimeError("embedding_bag: with include_last_offset there is at least one offset, the end")
    if bags == 0:
        return input.long(), 0
    places = creation.arange(input.shape[0], device=input.device)
    return searchsorted(offsets[:bags].long(), places, right=True) - 1, bags


def embedding_bag(
    input: Tensor,
    weight: Tensor,
    offsets: Tensor | None = None,
    max_norm: float | None = None,
    norm_type: float = 2,
    scale_grad_by_freq: bool = False,
    mode: str = "mean",
    sparse: bool = False,
    per_sample_weights: Tensor | None = None,
    include_last_offset: bool = False,
    padding_idx: int | None = None,
) -> Tensor:
    """Sum, mean or maximum (``mode``) of the rows of ``weight`` ``[n, d]`` that each bag of integers names: ``[bags,
    d]``, 0 for an empty bag.

    ``input`` ``[bags, size]``, or ``[total]`` with ``offsets`` ``[bags]``, where each bag starts (the first at 0;
    with ``include_last_offset`` the end of the last one too). ``per_sample_weights``: a factor for each row, for
    sums. ``padding_idx``: left out of its bag. ``max_norm``, ``norm_type``, ``scale_grad_by_freq``: as
    :func:`embedding`. Raises ValueError, RuntimeError, IndexError, NotImplementedError for sparse gradients."""
    if is_integer(weight) and input.is_floating_point():
        warnings.warn("embedding_bag: the indices come first, then the table; they were exchanged", stacklevel=2)
        input, weight = weight, input
    if sparse:
        raise NotImplementedError("embedding_bag: sparse gradients do not exist here; use sparse=False")
    _check(input, weight, offsets, mode, scale_grad_by_freq, per_sample_weights)
    rows_of_table, width = weight.shape
    bag, bags = _bag_of_each(input, offsets, include_last_offset)
    if bags == 0:
        return weight.new_zeros(0, width)
    index = input.reshape(-1)
    held = bags
    if padding_idx is not None:
        if not -rows_of_table <= padding_idx < rows_of_table:
            raise RuntimeError(f"embedding_bag: padding_idx={padding_idx} must be within the {rows_of_table} rows")
        bag = where(index == padding_idx % rows_of_table, bags, bag)  # a bag more, which is thrown away
        held = bags + 1
    rows = embedding(index, weight, None, max_norm, norm_type, scale_grad_by_freq)
    if per_sample_weights is not None:
        rows = rows * per_sample_weights.reshape(-1, 1)
    result = weight.detach().new_zeros(held, width)
    if mode == "max":
        wide = bag.unsqueeze(1).expand(index.shape[0], width)
        result = result.scatter_reduce(0, wide, rows, "amax", include_self=False)
    else:
        result = result.index_add(0, bag, rows)
    if mode == "mean":
        ones = rows.detach().new_ones(index.shape[0])
        counts = result.detach().new_zeros(held).index_add(0, bag, ones).clamp(min=1)
        result = result / counts.unsqueeze(1)
    return result if held == bags else result[:bags]
