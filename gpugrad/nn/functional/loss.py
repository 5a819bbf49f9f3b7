"""Losses. ``reduction`` is 'mean' (default), 'sum' or 'none' (a loss per element).

The old arguments ``size_average`` and ``reduce`` choose a reduction too: none without ``reduce``, else the mean
or, without ``size_average``, the sum.
"""

from __future__ import annotations

import math
import warnings
from typing import Any

from gpugrad import dtypes, ops
from gpugrad.autograd import Function
from gpugrad.nn.functional.activation import logsigmoid
from gpugrad.nn.functional.shapes import check_reduction, is_half, is_integer, reduced, reduction_of
from gpugrad.ops import creation
from gpugrad.ops.creation import rounded_once
from gpugrad.ops.elementwise import where
from gpugrad.ops.statistics import as_probability
from gpugrad.tensor import Tensor


# -- classification ---------------------------------------------------------------
def _class_dim(op: str, input: Tensor) -> int:
    if input.dim() == 0:
        raise RuntimeError(f"{op}: input must have a class dimension, got a 0-d tensor")
    return 0 if input.dim() == 1 else 1


def _check_targets(op: str, input: Tensor, target: Tensor, dim: int) -> None:
    expected = tuple(n for i, n in enumerate(input.shape) if i != dim)
    if tuple(target.shape) != expected:
        # PyTorch's choice: a ValueError for another number of samples, else a RuntimeError.
        same_batch = input.dim() > 1 and target.dim() > 0 and target.shape[0] == input.shape[0]
        raise (RuntimeError if same_batch else ValueError)(
            f"{op}: expected target of shape {expected} (a class for each position of input "
            f"{tuple(input.shape)}), got {tuple(target.shape)}"
        )
    if not is_integer(target):
        raise RuntimeError(
            f"{op}: class targets must be integers, not {target.dtype}; convert with .long(), or pass "
            "probabilities of the input's shape to cross_entropy"
        )


def _check_weight(op: str, weight: Tensor | None, input: Tensor, classes: int) -> None:
    if weight is not None and weight.dtype is not input.dtype:
        raise RuntimeError(f"{op}: weight and input must have one dtype, got {weight.dtype} and {input.dtype}")
    if weight is not None and tuple(weight.shape) != (classes,):
        raise RuntimeError(
            f"{op}: weight of shape {tuple(weight.shape)} must have shape ({classes},), one value for each class"
        )


def _checked_classes(
    op: str, input: Tensor, target: Tensor, weight: Tensor | None, reduction: str
) -> tuple[int, Tensor]:
    """The dimension of the classes, and the target, after all of what can be checked without their values."""
    dim = _class_dim(op, input)
    if input.dim() == 1 and tuple(target.shape) == (1,):
        target = target.squeeze(0)
    _check_targets(op, input, target, dim)
    _check_weight(op, weight, input, input.shape[dim])
    check_reduction(reduction, op)
    return dim, target


def _of_classes(
    input: Tensor, target: Tensor, weight: Tensor | None, ignore_index: int, reduction: str, op: str = "cross_entropy"
) -> Tensor:
    """Cross-entropy of floating logits and class indices, one row of logits for each."""
    dim, target = _checked_classes(op, input, target, weight, reduction)
    rows = input.movedim(1, -1) if dim and input.dim() > 2 else input
    index = target.to(dtype=dtypes.int64).reshape(-1)
    mean = reduction == "mean"
    loss = ops.fused.cross_entropy(rows.reshape(-1, input.shape[dim]), index, weight, ignore_index, op, mean)
    if not mean:
        loss = loss.sum() if reduction == "sum" else loss.reshape(target.shape)
    return loss.to(dtype=input.dtype)


def _nll(
    op: str,
    log_probs: Tensor,
    target: Tensor,
    weight: Tensor | None,
    ignore_index: int,
    reduction: str,
    label_smoothing: float,
) -> Tensor:
    dim, target = _checked_classes(op, log_probs, target, weight, reduction)
    classes = log_probs.shape[dim]
    used = target != ignore_index
    index = where(used, target, 0).to(dtype=dtypes.int64)
    chosen = log_probs.gather(dim, index.unsqueeze(dim), op=op).squeeze(dim)
    share = used
    if weight is not None:
        own = weight.index_select(0, index.reshape(-1)).reshape(index.shape)
        chosen = chosen * own
        share = where(used, own, 0.0)
    if label_smoothing:
        smooth = log_probs if weight is None else log_probs * _along(weight, dim, log_probs.dim())
        chosen = chosen * (1.0 - label_smoothing) + smooth.sum(dim) * (label_smoothing / classes)
    # where() and not a product: what an ignored place holds may be infinite.
    gain = where(used, chosen, 0.0)
    if reduction == "mean":
        # Over many pixels both sums would overflow float16.
        wide = dtypes.float32 if is_half(gain) else gain.dtype
        return -(gain.sum(dtype=wide) / share.sum(dtype=wide)).to(dtype=gain.dtype)
    return reduced(-gain, reduction, op)


def _along(vector: Tensor, dim: int, ndim: int) -> Tensor:
    return vector.reshape(tuple(-1 if i == dim else 1 for i in range(ndim)))


def nll_loss(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    ignore_index: int = -100,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Negative of ``input`` (log-probabilities ``[n, c, *]`` or ``[c]``) at the classes ``target`` (integers
    ``[n, *]`` or ``[]``), times ``weight[class]``; the mean is weighted too. ``ignore_index``: a target that
    counts nothing. Raises IndexError for a class outside [0, c), ValueError, RuntimeError."""
    reduction = reduction_of(size_average, reduce, reduction)
    return _nll("nll_loss", input, target, weight, ignore_index, reduction, 0.0)


def cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    ignore_index: int = -100,
    reduce: bool | None = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """Cross-entropy of logits ``[n, c, *]`` (or ``[c]``) and targets: integer classes ``[n, *]``, or class
    probabilities of the input's shape. ``label_smoothing`` mixes the target with the uniform distribution
    (Szegedy et al. 2015). Raises as :func:`nll_loss`."""
    reduction = reduction_of(size_average, reduce, reduction)
    op = "cross_entropy"
    if not 0.0 <= label_smoothing <= 1.0:
        raise RuntimeError(f"{op}: label_smoothing={label_smoothing} is outside [0, 1]")
    dim = _class_dim(op, input)
    if tuple(target.shape) != tuple(input.shape):
        if input.is_floating_point() and not label_smoothing and input.numel():
            return _of_classes(input, target, weight, ignore_index, reduction)
        _check_weight(op, weight, input, input.shape[dim])
        return _of_logits(op, input, target, weight, ignore_index, reduction, label_smoothing)
    if not target.is_floating_point():
        raise RuntimeError(
            f"{op}: targets of the input's shape are class probabilities and must be floating, "
            f"not {target.dtype}; class indices would have one dimension fewer"
        )
    if ignore_index >= 0:
        raise RuntimeError(f"{op}: ignore_index={ignore_index} names a class, but the targets are probabilities")
    classes = input.shape[dim]
    _check_weight(op, weight, input, classes)
    return _of_probabilities(op, input, target, weight, reduction, label_smoothing)


@rounded_once
def _of_logits(
    op: str,
    input: Tensor,
    target: Tensor,
    weight: Tensor | None,
    ignore_index: int,
    reduction: str,
    label_smoothing: float,
) -> Tensor:
    log_probs = ops.log_softmax(input, _class_dim(op, input))
    return _nll(op, log_probs, target, weight, ignore_index, reduction, label_smoothing)


@rounded_once
def _of_probabilities(
    op: str, input: Tensor, target: Tensor, weight: Tensor | None, reduction: str, label_smoothing: float
) -> Tensor:
    dim = _class_dim(op, input)
    if label_smoothing:
        target = target * (1.0 - label_smoothing) + label_smoothing / input.shape[dim]
    weighted = ops.log_softmax(input, dim) * target
    if weight is not None:
        weighted = weighted * _along(weight, dim, input.dim())
    loss = -weighted.sum(dim)
    if reduction == "mean":
        return loss.sum() / max(loss.numel(), 1)
    return reduced(loss, reduction, op)


class _BinaryCrossEntropy(Function):
    """-(t log x + (1 - t) log(1 - x)), logarithms cut at -100. Written with its derivative, which for x of
    exactly 0 or 1 (a saturated sigmoid) would be 0 times infinity if it were put together from that of log."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, t: Tensor) -> Tensor:
        ctx.save_for_backward(x, t)
        return -(t * x.log().clamp(min=-100) + (1.0 - t) * (-x).log1p().clamp(min=-100))

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, t = ctx.saved_tensors
        for_x = g * (x - t) / ((1.0 - x) * x).clamp(min=1e-12) if ctx.needs_input_grad[0] else None
        for_t = None
        if ctx.needs_input_grad[1]:
            for_t = g * ((-x).log1p().clamp(min=-100) - x.log().clamp(min=-100))
        return for_x, for_t


@rounded_once
def binary_cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """-(t log x + (1 - t) log(1 - x)) for probabilities x; logarithms are cut at -100. Raises ValueError
    for different shapes, RuntimeError for what is no probability."""
    reduction = reduction_of(size_average, reduce, reduction)
    if tuple(input.shape) != tuple(target.shape):
        raise ValueError(
            f"binary_cross_entropy: target of shape {tuple(target.shape)} must have the shape of input "
            f"{tuple(input.shape)}"
        )
    loss = _BinaryCrossEntropy.apply(as_probability(input), target)
    return reduced(loss if weight is None else loss * weight, reduction, "binary_cross_entropy")


@rounded_once
def binary_cross_entropy_with_logits(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    pos_weight: Tensor | None = None,
) -> Tensor:
    """:func:`binary_cross_entropy` of sigmoid(x), computed without overflow; ``pos_weight`` scales the term
    of positive targets. Raises ValueError for different shapes."""
    reduction = reduction_of(size_average, reduce, reduction)
    if tuple(input.shape) != tuple(target.shape):
        raise ValueError(
            f"binary_cross_entropy_with_logits: target of shape {tuple(target.shape)} must have the shape of input "
            f"{tuple(input.shape)}"
        )
    log_p = logsigmoid(input)
    if pos_weight is None:
        loss = (1.0 - target) * input - log_p
    else:
        loss = (1.0 - target) * input - ((pos_weight - 1.0) * target + 1.0) * log_p
    return reduced(loss if weight is None else loss * weight, reduction, "binary_cross_entropy_with_logits")


@rounded_once
def kl_div(
    input: Tensor,
    target: Tensor,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    log_target: bool = False,
) -> Tensor:
    """t (log t - x) for log-probabilities x, t log t being 0 at t = 0; with ``log_target`` the targets are
    logarithms too. ``reduction='batchmean'`` divides the sum by the first dimension, which is the divergence."""
    reduction = reduction_of(size_average, reduce, reduction)
    if log_target:
        loss = target.exp() * (target - input)
    else:
        loss = target.xlogy(target) - target * input
    if reduction == "batchmean":
        return loss.sum() / input.shape[0] if input.dim() else loss
    if reduction == "mean":
        warnings.warn(
            "kl_div: reduction='mean' averages over every element, which is not the KL divergence; use "
            "reduction='batchmean', its average over the batch",
            stacklevel=3,
        )
    return reduced(loss, reduction, "kl_div")


def multi_margin_loss(
    input: Tensor,
    target: Tensor,
    p: int = 1,
    margin: float = 1.0,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """sum over classes i != t of max(0, margin - x_t + x_i)^p / c for ``[n, c]`` and classes ``[n]``."""
    reduction = reduction_of(size_average, reduce, reduction)
    op = "multi_margin_loss"
    check_reduction(reduction, op)
    if p not in (1, 2):
        raise ValueError(f"{op}: p must be 1 or 2, not {p}")
    alone = input.dim() < 2
    if input.dim() > 2 or target.numel() != (1 if alone else input.shape[0]) or target.dim() > 1:
        raise RuntimeError(
            f"{op}: expected input [n, classes] with targets [n], or [classes] with one target, got shapes "
            f"{tuple(input.shape)} and {tuple(target.shape)}"
        )
    x, t = (input.reshape(1, -1), target.reshape(1)) if alone else (input, target)
    _check_targets(op, x, t, 1)
    _check_weight(op, weight, x, x.shape[1])
    index = t.to(dtype=dtypes.int64).unsqueeze(1)
    loss = _multi_margin(x, index, p, margin, weight, op)
    return reduced(loss.squeeze(0) if alone and not target.dim() else loss, reduction, op)


@rounded_once
def _multi_margin(x: Tensor, index: Tensor, p: int, margin: float, weight: Tensor | None, op: str) -> Tensor:
    z = (margin - x.gather(1, index, op=op) + x).clamp(min=0)
    z = z * z if p == 2 else z
    if weight is not None:
        z = z * weight.index_select(0, index.reshape(-1)).unsqueeze(1)
    others = creation.arange(x.shape[1], device=x.device) != index
    return where(others, z, 0.0).sum(1) / x.shape[1]


# -- regression -------------------------------------------------------------------
def _check_broadcast(op: str, input: Tensor, target: Tensor) -> None:
    if tuple(input.shape) != tuple(target.shape):
        warnings.warn(
            f"{op}: target of shape {tuple(target.shape)} and input of shape {tuple(input.shape)} differ and are "
            "paired by broadcasting, which is rarely what a loss should compare; reshape one of them",
            stacklevel=4,
        )


def _weighted(loss: Tensor, weight: Tensor | None, reduction: str, op: str) -> Tensor:
    if weight is None:
        return reduced(loss, reduction, op)
    loss = loss * weight
    return loss.sum() / weight.expand(loss.shape).sum() if reduction == "mean" else reduced(loss, reduction, op)


@rounded_once
def mse_loss(
    input: Tensor,
    target: Tensor,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    weight: Tensor | None = None,
) -> Tensor:
    """(x - t)^2."""
    reduction = reduction_of(size_average, reduce, reduction)
    _check_broadcast("mse_loss", input, target)
    difference = input - target
    return _weighted(difference.square(), weight, reduction, "mse_loss")


@rounded_once
def l1_loss(
    input: Tensor,
    target: Tensor,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    weight: Tensor | None = None,
) -> Tensor:
    """|x - t|."""
    reduction = reduction_of(size_average, reduce, reduction)
    _check_broadcast("l1_loss", input, target)
    return _weighted((input - target).abs(), weight, reduction, "l1_loss")


@rounded_once
def smooth_l1_loss(
    input: Tensor,
    target: Tensor,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    beta: float = 1.0,
) -> Tensor:
    """(x - t)^2 / (2 beta) where |x - t| < beta, else |x - t| - beta / 2. Raises RuntimeError for beta < 0."""
    reduction = reduction_of(size_average, reduce, reduction)
    _check_broadcast("smooth_l1_loss", input, target)
    if beta < 0:
        raise RuntimeError(f"smooth_l1_loss: beta must not be negative, got {beta}")
    if beta == 0.0:
        return l1_loss(input, target, reduction=reduction)
    return reduced(_huber(input - target, beta) / beta, reduction, "smooth_l1_loss")


@rounded_once
def huber_loss(
    input: Tensor, target: Tensor, reduction: str = "mean", delta: float = 1.0, weight: Tensor | None = None
) -> Tensor:
    """(x - t)^2 / 2 where |x - t| <= delta, else delta (|x - t| - delta / 2) (Huber 1964). Raises RuntimeError."""
    _check_broadcast("huber_loss", input, target)
    if delta <= 0:
        raise RuntimeError(f"huber_loss: delta must be positive, got {delta}")
    loss = _huber(input - target, delta)
    # Unlike mse_loss and l1_loss, the mean of the weighted losses is over their number.
    return reduced(loss if weight is None else loss * weight, reduction, "huber_loss")


def _huber(difference: Tensor, delta: float) -> Tensor:
    size = difference.abs()
    return where(size <= delta, 0.5 * difference.square(), delta * (size - 0.5 * delta))


@rounded_once
def gaussian_nll_loss(
    input: Tensor,
    target: Tensor,
    var: Tensor | float,
    full: bool = False,
    eps: float = 1e-6,
    reduction: str = "mean",
) -> Tensor:
    """(log v + (x - t)^2 / v) / 2 with v = max(var, eps), whose clamping passes all gradients on; ``full``
    adds log(2 pi) / 2. ``var`` has input's shape, or lacks or has size 1 in its last dimension, or size 1
    elsewhere where it broadcasts. Raises ValueError for a var that does not fit or is negative."""
    op = "gaussian_nll_loss"
    if isinstance(var, Tensor):
        variance = var
    else:
        variance = creation.full(tuple(input.shape), float(var), dtype=input.dtype, device=input.device)
    if variance.dim() + 1 == input.dim() and tuple(variance.shape) == tuple(input.shape[:-1]):
        variance = variance.unsqueeze(-1)
    fits = variance.dim() == input.dim() and all(v in (1, s) for v, s in zip(variance.shape, input.shape, strict=True))
    if not fits:
        raise ValueError(
            f"{op}: var of shape {tuple(variance.shape)} does not fit input of shape {tuple(input.shape)}; give one "
            "variance per element, or a last dimension of size 1 or left out"
        )
    if (variance.detach() < 0).any().item():
        raise ValueError(f"{op}: var holds negative values; a variance is at least 0")
    clamped = variance + (variance.detach().clamp(min=eps) - variance.detach())
    difference = input - target
    loss = 0.5 * (clamped.log() + difference.square() / clamped)
    return reduced(loss + 0.5 * math.log(2.0 * math.pi) if full else loss, reduction, op)


@rounded_once
def poisson_nll_loss(
    input: Tensor,
    target: Tensor,
    log_input: bool = True,
    full: bool = False,
    size_average: bool | None = None,
    eps: float = 1e-8,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """exp(x) - t x, or x - t log(x + eps) without ``log_input``; ``full`` adds Stirling's approximation of
    log t! where t > 1."""
    reduction = reduction_of(size_average, reduce, reduction)
    loss = input.exp() - target * input if log_input else input - target * (input + eps).log()
    if full:
        large = where(target > 1, target, 1.0)
        stirling = large * large.log() - large + 0.5 * (2.0 * math.pi * large).log()
        loss = loss + where(target > 1, stirling, 0.0)
    return reduced(loss, reduction, "poisson_nll_loss")
