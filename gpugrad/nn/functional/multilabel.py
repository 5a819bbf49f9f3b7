"""Losses of several classes per sample."""

from __future__ import annotations

from gpugrad import dtypes
from gpugrad.nn.functional.activation import logsigmoid
from gpugrad.nn.functional.shapes import check_reduction, is_integer, reduced, reduction_of
from gpugrad.ops import creation
from gpugrad.ops.creation import rounded_once
from gpugrad.ops.elementwise import where
from gpugrad.tensor import Tensor


@rounded_once
def multilabel_margin_loss(
    input: Tensor,
    target: Tensor,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Sum over classes j of the target and i not of it of max(0, 1 - (x_j - x_i)) / c, for ``[n, c]`` (or ``[c]``)
    and int64 targets of the same shape: the classes of each sample up to the first -1. Raises RuntimeError."""
    op = "multilabel_margin_loss"
    reduction = reduction_of(size_average, reduce, reduction)
    check_reduction(reduction, op)
    if input.dim() > 2 or tuple(target.shape) != tuple(input.shape):
        raise RuntimeError(
            f"{op}: expected input [n, c] or [c] and a target of its shape, got {tuple(input.shape)} and "
            f"{tuple(target.shape)}"
        )
    if not is_integer(target):
        raise RuntimeError(f"{op}: targets must be int64, not {target.dtype}; convert with .long()")
    alone = input.dim() < 2
    x, t = (input.reshape(1, -1), target.reshape(1, -1)) if alone else (input, target)
    classes = x.shape[1]
    given = (t >= 0).to(dtype=dtypes.int64).cumprod(1)
    index = where(given == 1, t, 0).to(dtype=dtypes.int64)
    wanted = x.gather(1, index, op=op)
    hits = creation.zeros(tuple(x.shape), dtype=dtypes.int64, device=x.device).scatter_add(1, index, given)
    gap = (1.0 - (wanted.unsqueeze(2) - x.unsqueeze(1))).clamp(min=0)
    counted = (given == 1).unsqueeze(2).logical_and((hits == 0).unsqueeze(1))
    loss = where(counted, gap, 0.0).sum((1, 2)) / max(classes, 1)
    return reduced(loss.squeeze(0) if alone else loss, reduction, op)


@rounded_once
def multilabel_soft_margin_loss(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Binary cross-entropy of the logits ``[*, c]`` and targets of 0 and 1, averaged over the classes;
    ``weight`` ``[c]`` scales them."""
    reduction = reduction_of(size_average, reduce, reduction)
    loss = -(target * logsigmoid(input) + (1.0 - target) * logsigmoid(-input))
    if weight is not None:
        loss = loss * weight
    return reduced(loss.sum(-1) / input.shape[-1], reduction, "multilabel_soft_margin_loss")
