"""Losses of margins and of embeddings: hinge, ranking, cosine, triplet. Reductions as in ``loss.py``."""

from __future__ import annotations

from collections.abc import Callable

from gpugrad.nn.functional.activation import softplus
from gpugrad.nn.functional.shapes import reduced, reduction_of
from gpugrad.ops.creation import rounded_once
from gpugrad.ops.distances import pairwise_distance
from gpugrad.ops.elementwise import minimum, where
from gpugrad.tensor import Tensor


@rounded_once
def hinge_embedding_loss(
    input: Tensor,
    target: Tensor,
    margin: float = 1.0,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """x where t = 1, max(0, margin - x) where t = -1."""
    reduction = reduction_of(size_average, reduce, reduction)
    loss = where(target != 1, (margin - input).clamp(min=0), 0.0) + where(target != -1, input, 0.0)
    return reduced(loss, reduction, "hinge_embedding_loss")


@rounded_once
def max_margin_loss(input: Tensor, target: Tensor, margin: float = 1.0, reduction: str = "mean") -> Tensor:
    """max(0, margin - t x) for targets 1 and -1: the loss of a support-vector machine (Cortes & Vapnik 1995).
    Not in PyTorch. Raises RuntimeError where the shapes differ."""
    if input.shape != target.shape:
        raise RuntimeError(
            f"max_margin_loss: input has shape {tuple(input.shape)}, target {tuple(target.shape)}; they must be equal"
        )
    return reduced((margin - target * input).clamp(min=0), reduction, "max_margin_loss")


@rounded_once
def margin_ranking_loss(
    input1: Tensor,
    input2: Tensor,
    target: Tensor,
    margin: float = 0.0,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """max(0, -t (x1 - x2) + margin), t being 1 where x1 should rank higher, else -1. Raises RuntimeError."""
    reduction = reduction_of(size_average, reduce, reduction)
    if not input1.dim() == input2.dim() == target.dim():
        raise RuntimeError(
            f"margin_ranking_loss: input1 {tuple(input1.shape)}, input2 {tuple(input2.shape)} and target "
            f"{tuple(target.shape)} differ in their number of dimensions"
        )
    return reduced((-target * (input1 - input2) + margin).clamp(min=0), reduction, "margin_ranking_loss")


@rounded_once
def cosine_embedding_loss(
    input1: Tensor,
    input2: Tensor,
    target: Tensor,
    margin: float = 0.0,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """1 - cos(x1, x2) where t = 1, max(0, cos(x1, x2) - margin) where t = -1; ``[n, d]`` and ``[n]``, or
    ``[d]`` and ``[]``. Raises RuntimeError."""
    reduction = reduction_of(size_average, reduce, reduction)
    if target.dim() > 1 or input1.dim() != target.dim() + 1 or input2.dim() != target.dim() + 1:
        raise RuntimeError(
            f"cosine_embedding_loss: expected inputs [n, d] with target [n], or [d] with [], got "
            f"{tuple(input1.shape)}, {tuple(input2.shape)} and {tuple(target.shape)}"
        )
    eps = 1e-12  # under the root, so that its gradient at a zero vector is finite
    dot = (input1 * input2).sum(-1)
    cosine = dot / (((input1 * input1).sum(-1) + eps) * ((input2 * input2).sum(-1) + eps)).sqrt()
    zero = cosine * 0.0
    loss = where(target == 1, 1.0 - cosine, zero) + where(target == -1, (cosine - margin).clamp(min=0), zero)
    return reduced(loss, reduction, "cosine_embedding_loss")


@rounded_once
def soft_margin_loss(
    input: Tensor,
    target: Tensor,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """log(1 + exp(-t x)), t being 1 or -1."""
    reduction = reduction_of(size_average, reduce, reduction)
    return reduced(softplus(-target * input, threshold=80.0), reduction, "soft_margin_loss")


@rounded_once
def triplet_margin_loss(
    anchor: Tensor,
    positive: Tensor,
    negative: Tensor,
    margin: float = 1.0,
    p: float = 2,
    eps: float = 1e-6,
    swap: bool = False,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """max(0, d(anchor, positive) - d(anchor, negative) + margin) with the p-norm distance over the last
    dimension; ``swap`` takes the nearer of anchor and positive to the negative (Balntas et al. 2016)."""
    reduction = reduction_of(size_average, reduce, reduction)

    def distance(a: Tensor, b: Tensor) -> Tensor:
        return pairwise_distance(a, b, p, eps)

    return triplet_margin_with_distance_loss(
        anchor, positive, negative, distance_function=distance, margin=margin, swap=swap, reduction=reduction
    )


def triplet_margin_with_distance_loss(
    anchor: Tensor,
    positive: Tensor,
    negative: Tensor,
    *,
    distance_function: Callable[[Tensor, Tensor], Tensor] | None = None,
    margin: float = 1.0,
    swap: bool = False,
    reduction: str = "mean",
) -> Tensor:
    """:func:`triplet_margin_loss` with any distance."""
    if margin <= 0:
        raise ValueError(f"triplet_margin_loss: margin must be positive, got {margin}")
    if not anchor.dim() == positive.dim() == negative.dim():
        raise RuntimeError(
            f"triplet_margin_loss: anchor {tuple(anchor.shape)}, positive {tuple(positive.shape)} and negative "
            f"{tuple(negative.shape)} differ in their number of dimensions"
        )
    distance = pairwise_distance if distance_function is None else distance_function
    near, far = distance(anchor, positive), distance(anchor, negative)
    if swap:
        far = minimum(far, distance(positive, negative))
    return reduced((near - far + margin).clamp(min=0), reduction, "triplet_margin_loss")
