"""Functions of the package itself (``gpugrad.layer_norm``) that compute what ``nn.functional`` does.

Where PyTorch's function of that name takes the same arguments, it is the one of ``nn.functional``. Those below
take others: losses number their reductions (0 none, the default; 1 mean, 2 sum; the names are taken too), dropout has
no defaults, and normalisations and embedding order their arguments otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gpugrad.nn import functional as F
from gpugrad.nn.functional import (  # noqa: F401  (the same under both names)
    adaptive_avg_pool1d,
    affine_grid,
    avg_pool1d,
    bilinear,
    channel_shuffle,
    conv1d,
    conv2d,
    conv3d,
    conv_tbc,
    conv_transpose1d,
    conv_transpose2d,
    conv_transpose3d,
    native_channel_shuffle,
    pixel_shuffle,
    pixel_unshuffle,
    rms_norm,
)
from gpugrad.tensor import Tensor

_REDUCTIONS = ("none", "mean", "sum")


def _named(reduction: int | str) -> str:
    if isinstance(reduction, str):
        return reduction
    if reduction not in (0, 1, 2):
        raise ValueError(f"reduction={reduction} is unknown; use 0 (none), 1 (mean) or 2 (sum)")
    return _REDUCTIONS[reduction]


# -- losses ---------------------------------------------------------------------------
def binary_cross_entropy_with_logits(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    pos_weight: Tensor | None = None,
    reduction: int | str = 0,
) -> Tensor:
    """:func:`gpugrad.nn.functional.binary_cross_entropy_with_logits`."""
    return F.binary_cross_entropy_with_logits(input, target, weight, reduction=_named(reduction), pos_weight=pos_weight)


def cosine_embedding_loss(
    input1: Tensor, input2: Tensor, target: Tensor, margin: float = 0.0, reduction: int | str = 0
) -> Tensor:
    """:func:`gpugrad.nn.functional.cosine_embedding_loss`."""
    return F.cosine_embedding_loss(input1, input2, target, margin, reduction=_named(reduction))


def ctc_loss(
    log_probs: Tensor,
    targets: Tensor,
    input_lengths: Any,
    target_lengths: Any,
    blank: int = 0,
    reduction: int | str = 0,
    zero_infinity: bool = False,
) -> Tensor:
    """:func:`gpugrad.nn.functional.ctc_loss`."""
    return F.ctc_loss(log_probs, targets, input_lengths, target_lengths, blank, _named(reduction), zero_infinity)


def hinge_embedding_loss(input: Tensor, target: Tensor, margin: float = 1.0, reduction: int | str = 0) -> Tensor:
    """:func:`gpugrad.nn.functional.hinge_embedding_loss`."""
    return F.hinge_embedding_loss(input, target, margin, reduction=_named(reduction))


def kl_div(input: Tensor, target: Tensor, reduction: int | str = 0, *, log_target: bool = False) -> Tensor:
    """:func:`gpugrad.nn.functional.kl_div`."""
    return F.kl_div(input, target, reduction=_named(reduction), log_target=log_target)


def margin_ranking_loss(
    input1: Tensor, input2: Tensor, target: Tensor, margin: float = 0.0, reduction: int | str = 0
) -> Tensor:
    """:func:`gpugrad.nn.functional.margin_ranking_loss`."""
    return F.margin_ranking_loss(input1, input2, target, margin, reduction=_named(reduction))


def poisson_nll_loss(
    input: Tensor, target: Tensor, log_input: bool, full: bool, eps: float, reduction: int | str
) -> Tensor:
    """:func:`gpugrad.nn.functional.poisson_nll_loss`."""
    return F.poisson_nll_loss(input, target, log_input, full, eps=eps, reduction=_named(reduction))


def triplet_margin_loss(
    anchor: Tensor,
    positive: Tensor,
    negative: Tensor,
    margin: float = 1.0,
    p: float = 2,
    eps: float = 1e-6,
    swap: bool = False,
    reduction: int | str = 0,
) -> Tensor:
    """:func:`gpugrad.nn.functional.triplet_margin_loss`."""
    return F.triplet_margin_loss(anchor, positive, negative, margin, p, eps, swap, reduction=_named(reduction))


# -- dropout ----------------------------------------------------------------------------
def _feature_dropout(input: Tensor, p: float, train: bool, inplace: bool) -> Tensor:
    if input.dim() < 2:
        raise RuntimeError(
            f"feature_dropout: input of shape {tuple(input.shape)} must be [n, channels, *], at least 2 dimensions"
        )
    return F.dropout3d(input.reshape(*input.shape[:2], -1, 1, 1), p, train).reshape(input.shape)


def dropout(input: Tensor, p: float, train: bool) -> Tensor:
    """:func:`gpugrad.nn.functional.dropout`."""
    return F.dropout(input, p, train)


def dropout_(input: Tensor, p: float, train: bool) -> Tensor:
    """In place: :func:`dropout`."""
    return F.dropout(input, p, train, inplace=True)


def alpha_dropout(input: Tensor, p: float, train: bool) -> Tensor:
    """:func:`gpugrad.nn.functional.alpha_dropout`."""
    return F.alpha_dropout(input, p, train)


def alpha_dropout_(input: Tensor, p: float, train: bool) -> Tensor:
    """In place: :func:`alpha_dropout`."""
    return F.alpha_dropout(input, p, train, inplace=True)


def feature_dropout(input: Tensor, p: float, train: bool) -> Tensor:
    """Whole channels (dimension 1) set to 0 with probability ``p``, the others divided by 1 - p."""
    return _feature_dropout(input, p, train, False)


def feature_dropout_(input: Tensor, p: float, train: bool) -> Tensor:
    """In place: :func:`feature_dropout`."""
    return input.copy_(_feature_dropout(input, p, train, False))


def feature_alpha_dropout(input: Tensor, p: float, train: bool) -> Tensor:
    """:func:`gpugrad.nn.functional.feature_alpha_dropout`."""
    return F.feature_alpha_dropout(input, p, train)


def feature_alpha_dropout_(input: Tensor, p: float, train: bool) -> Tensor:
    """In place: :func:`feature_alpha_dropout`."""
    return F.feature_alpha_dropout(input, p, train, inplace=True)


# -- normalisation, embedding ---------------------------------------------------------------
def batch_norm(
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    training: bool,
    momentum: float,
    eps: float,
    cudnn_enabled: bool = True,
) -> Tensor:
    """:func:`gpugrad.nn.functional.batch_norm`, its arguments in another order. ``cudnn_enabled`` changes nothing."""
    return F.batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)


def instance_norm(
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    use_input_stats: bool,
    momentum: float,
    eps: float,
    cudnn_enabled: bool = True,
) -> Tensor:
    """:func:`gpugrad.nn.functional.instance_norm`, its arguments in another order. ``cudnn_enabled`` changes
    nothing."""
    return F.instance_norm(input, running_mean, running_var, weight, bias, use_input_stats, momentum, eps)


def layer_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    cudnn_enable: bool = True,
) -> Tensor:
    """:func:`gpugrad.nn.functional.layer_norm`. ``cudnn_enable`` changes nothing."""
    return F.layer_norm(input, normalized_shape, weight, bias, eps)


def group_norm(
    input: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    cudnn_enabled: bool = True,
) -> Tensor:
    """:func:`gpugrad.nn.functional.group_norm`. ``cudnn_enabled`` changes nothing."""
    return F.group_norm(input, num_groups, weight, bias, eps)


def embedding(
    weight: Tensor, indices: Tensor, padding_idx: int = -1, scale_grad_by_freq: bool = False, sparse: bool = False
) -> Tensor:
    """:func:`gpugrad.nn.functional.embedding`, the table first; ``padding_idx`` of -1 is none."""
    padding = None if padding_idx < 0 else padding_idx
    return F.embedding(indices, weight, padding, scale_grad_by_freq=scale_grad_by_freq, sparse=sparse)


# -- pooling, convolution -----------------------------------------------------------------------
def max_pool1d(
    input: Tensor, kernel_size: Any, stride: Any = (), padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False
) -> Tensor:
    """:func:`gpugrad.nn.functional.max_pool1d` without positions."""
    return F.max_pool1d(input, kernel_size, stride, padding, dilation, ceil_mode)


def max_pool1d_with_indices(
    input: Tensor, kernel_size: Any, stride: Any = (), padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False
) -> tuple[Tensor, Tensor]:
    """:func:`gpugrad.nn.functional.max_pool1d` with positions."""
    return F.max_pool1d(input, kernel_size, stride, padding, dilation, ceil_mode, return_indices=True)


def max_pool2d(
    input: Tensor, kernel_size: Any, stride: Any = (), padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False
) -> Tensor:
    """:func:`gpugrad.nn.functional.max_pool2d` without positions."""
    return F.max_pool2d(input, kernel_size, stride, padding, dilation, ceil_mode)


def max_pool3d(
    input: Tensor, kernel_size: Any, stride: Any = (), padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False
) -> Tensor:
    """:func:`gpugrad.nn.functional.max_pool3d` without positions."""
    return F.max_pool3d(input, kernel_size, stride, padding, dilation, ceil_mode)


def adaptive_max_pool1d(input: Tensor, output_size: Any) -> tuple[Tensor, Tensor]:
    """:func:`gpugrad.nn.functional.adaptive_max_pool1d` with positions."""
    return F.adaptive_max_pool1d(input, output_size, return_indices=True)


def convolution(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
) -> Tensor:
    """Convolution, or with ``transposed`` its adjoint, in as many dimensions as ``weight`` has kernel sizes."""
    n = weight.dim() - 2
    if n not in (1, 2, 3):
        raise RuntimeError(
            f"convolution: weight of shape {tuple(weight.shape)} must have 3 to 5 dimensions, [out, in, *kernel]"
        )
    if transposed:
        adjoint = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[n - 1]
        return adjoint(input, weight, bias, stride, padding, output_padding, groups, dilation)
    forward = (F.conv1d, F.conv2d, F.conv3d)[n - 1]
    return forward(input, weight, bias, stride, padding, dilation, groups)
