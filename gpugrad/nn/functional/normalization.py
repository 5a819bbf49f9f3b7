"""Normalisation over the batch, over features, over groups of channels.

Half-precision inputs are normalised in float32 and rounded once at the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from gpugrad import dtypes, layout, ops
from gpugrad.autograd import no_grad
from gpugrad.autograd.modes import mode
from gpugrad.errors import DTypeError
from gpugrad.nn.functional.conv import pad
from gpugrad.nn.functional.pooling import avg_pool1d
from gpugrad.ops import autocast
from gpugrad.ops.fused import widened
from gpugrad.ops.normalization import moments
from gpugrad.tensor import Tensor


def _affine(y: Tensor, weight: Tensor | None, bias: Tensor | None, shape: Sequence[int]) -> Tensor:
    if weight is not None:
        y = y * weight.reshape(shape)
    return y if bias is None else y + bias.reshape(shape)


def _per_channel(op: str, x: Tensor, **vectors: Tensor | None) -> None:
    for name, v in vectors.items():
        if v is not None and v.numel() != x.shape[1]:
            raise RuntimeError(
                f"{op}: {name} should contain {x.shape[1]} elements, one per channel of input of shape "
                f"{tuple(x.shape)}, not {v.numel()}"
            )


def batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """(x - mean) / sqrt(var + eps) * weight + bias per channel of ``[n, c, *]`` (Ioffe & Szegedy 2015).

    In training the moments are those of the batch, and the running ones move towards them in place by
    ``momentum`` (the variance unbiased); otherwise the running ones are used. Raises ValueError with a
    single value per channel in training, RuntimeError for sizes that do not fit."""
    if eps < 0 or (training and not eps):
        raise ValueError(f"batch_norm: eps={eps} must be positive, as a variance may be 0")
    if input.dim() == 1 and not input.numel():
        return input.clone()
    if input.dim() < 2:
        raise RuntimeError(f"batch_norm: input of shape {tuple(input.shape)} needs at least 2 dimensions")
    _per_channel("batch_norm", input, running_mean=running_mean, running_var=running_var, weight=weight, bias=bias)
    shape = (1, -1) + (1,) * (input.dim() - 2)
    if training:
        count = input.numel() // max(input.shape[1], 1)
        if count == 0:  # nothing to normalise, and the running moments stay
            return _affine(widened(input), weight, bias, shape).to(dtype=input.dtype)
        if count == 1:
            raise ValueError(
                f"batch_norm: an input of shape {tuple(input.shape)} has at most one value per channel, which has no "
                "variance to train on; use a larger batch or eval()"
            )
        y, mean, var = ops.normalization.batch_norm(input, weight, bias, eps)
        _update_running(running_mean, mean, momentum, 1.0)
        _update_running(running_var, var, momentum, count / (count - 1))
        return y
    if running_mean is None or running_var is None:
        raise RuntimeError("batch_norm: running_mean and running_var must be given when training=False")
    # The scale is made per channel first: one pass over the data fewer.
    scale = (widened(running_var).reshape(shape) + eps).rsqrt()
    if weight is not None:
        scale = scale * widened(weight).reshape(shape)
    centred = widened(input) - running_mean.reshape(shape)
    return _affine(centred * scale, None, bias, shape).to(dtype=input.dtype)


def _update_running(running: Tensor | None, value: Tensor, momentum: float, correction: float) -> None:
    """Move ``running`` towards ``value`` (times ``correction``) by ``momentum``, in place."""
    if running is not None:
        with no_grad():
            latest = value.detach().reshape(running.shape)
            running.mul_(1.0 - momentum).add_(latest * (correction * momentum))


def instance_norm(
    input: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """As :func:`batch_norm`, with the moments of each channel of each sample (Ulyanov et al. 2016);
    running moments are those averaged over the batch."""
    if input.dim() < 3:
        raise RuntimeError(f"instance_norm: input of shape {tuple(input.shape)} needs at least 3 dimensions")
    _per_channel("instance_norm", input, running_mean=running_mean, running_var=running_var, weight=weight, bias=bias)
    if not use_input_stats:
        return batch_norm(input, running_mean, running_var, weight, bias, False, momentum, eps)
    shape = (1, -1) + (1,) * (input.dim() - 2)
    count = prod(input.shape[2:])
    if count <= 1:
        raise ValueError(
            f"instance_norm: an input of shape {tuple(input.shape)} has at most one element per channel, "
            "too few for a variance; it needs larger spatial sizes or running statistics"
        )
    if running_mean is not None or running_var is not None:
        _, mean, var = moments(widened(input.detach()), tuple(range(2, input.dim())))
        _update_running(running_mean, mean.mean(dim=0), momentum, 1.0)
        _update_running(running_var, var.mean(dim=0), momentum, count / (count - 1))
    y = ops.normalization.group_norm(widened(input), input.shape[1], eps) if input.numel() else input
    return _affine(y, weight, bias, shape).to(dtype=input.dtype)


def _trailing(
    op: str, whole: Sequence[int], normalized_shape: Sequence[int], **vectors: Tensor | None
) -> tuple[int, ...]:
    """The last dimensions of the shape ``whole``, checked to be ``normalized_shape``."""
    shape = tuple(normalized_shape)
    if not shape:
        raise RuntimeError(f"{op}: normalized_shape must name at least one dimension")
    if tuple(whole[-len(shape) :]) != shape:
        raise RuntimeError(f"{op}: input of shape {tuple(whole)} does not end in normalized_shape {shape}")
    for name, v in vectors.items():
        if v is not None and tuple(v.shape) != shape:
            raise RuntimeError(f"{op}: expected {name} of shape {shape} (normalized_shape), got {tuple(v.shape)}")
    return tuple(range(len(whole) - len(shape), len(whole)))


def layer_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """(x - mean) / sqrt(var + eps) * weight + bias over the last dimensions (Ba et al. 2016). Raises RuntimeError."""
    dims = _trailing("layer_norm", input.shape, normalized_shape, weight=weight, bias=bias)
    return ops.normalization.layer_norm(input, weight, bias, len(dims), eps)


def rms_norm(
    input: Tensor, normalized_shape: Sequence[int], weight: Tensor | None = None, eps: float | None = None
) -> Tensor:
    """x / sqrt(mean of x^2 + eps) * weight over the last dimensions (Zhang & Sennrich 2019); ``eps``
    defaults to the dtype's. Raises RuntimeError."""
    dims = _trailing("rms_norm", input.shape, normalized_shape, weight=weight)
    if eps is None:
        eps = dtypes.finfo(widened(input).dtype).eps
    return ops.normalization.rms_norm(input, weight, len(dims), eps)


def add_layer_norm(
    input: Tensor,
    residual: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> tuple[Tensor, Tensor]:
    """``(layer_norm(input + residual, ...), input + residual)``: what a transformer's block with the norm in front
    (Xiong et al., "On layer normalization in the transformer architecture", 2020) does with the output of the part
    before and the stream that goes on. PyTorch has no such function.

    Shapes broadcast and dtypes promote as in ``input + residual``, and both results have the gradients of that; where
    both operands have one shape and dtype, and a backend offers it, the sum is read and written in the pass that
    normalises it. Raises RuntimeError as :func:`layer_norm` does."""
    if mode.autocast:
        total = input + residual
        return _cast_layer_norm(total, normalized_shape, weight, bias, eps), total
    shape = _sum_shape("add_layer_norm", input, residual)
    dims = _trailing("add_layer_norm", shape, normalized_shape, weight=weight, bias=bias)
    return ops.normalization.add_layer_norm(input, residual, weight, bias, len(dims), eps)


def add_rms_norm(
    input: Tensor,
    residual: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    eps: float | None = None,
) -> tuple[Tensor, Tensor]:
    """``(rms_norm(input + residual, ...), input + residual)``, as :func:`add_layer_norm`. ``eps`` defaults to the
    dtype's."""
    if mode.autocast:
        total = input + residual
        return _cast_rms_norm(total, normalized_shape, weight, eps), total
    shape = _sum_shape("add_rms_norm", input, residual)
    dims = _trailing("add_rms_norm", shape, normalized_shape, weight=weight)
    if eps is None:
        eps = dtypes.finfo(dtypes.promote_types(ops.table.result_type(input, residual), dtypes.float32)).eps
    return ops.normalization.add_rms_norm(input, residual, weight, len(dims), eps)


_cast_layer_norm = autocast.listed("layer_norm", layer_norm)
_cast_rms_norm = autocast.listed("rms_norm", rms_norm)


def _sum_shape(op: str, input: Tensor, residual: Tensor) -> tuple[int, ...]:
    """The shape of ``input + residual``. Raises DTypeError unless they are floating-point, RuntimeError where they do
    not broadcast."""
    for x in (input, residual):
        if not x.is_floating_point():
            raise DTypeError(f"{op}: expected floating-point tensors, got {x.dtype.name}; convert it with .float()")
    try:
        return layout.broadcast_shapes(tuple(input.shape), tuple(residual.shape))
    except ValueError:
        raise RuntimeError(
            f"{op}: the shapes of input and residual do not broadcast: {ops.table.describe(input, residual)}; give "
            "them one shape"
        ) from None


def group_norm(
    input: Tensor, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    """(x - mean) / sqrt(var + eps) * weight + bias, moments over each group of channels of ``[n, c, *]``
    (Wu & He 2018). Raises RuntimeError for channels that num_groups does not divide."""
    if input.dim() < 2:
        raise RuntimeError(f"group_norm: input of shape {tuple(input.shape)} needs at least 2 dimensions")
    c = input.shape[1]
    if num_groups < 1 or c % num_groups:
        raise RuntimeError(
            f"group_norm: {input.shape[1]} channels of input {tuple(input.shape)} cannot be split evenly into "
            f"num_groups={num_groups}"
        )
    _per_channel("group_norm", input, weight=weight, bias=bias)
    y = ops.normalization.group_norm(widened(input), num_groups, eps)
    return _affine(y, weight, bias, (1, -1) + (1,) * (input.dim() - 2)).to(dtype=input.dtype)


def local_response_norm(input: Tensor, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> Tensor:
    """x / (k + alpha * mean of x^2 over ``size`` neighbouring channels)^beta (Krizhevsky et al. 2012)."""
    if input.dim() < 3:
        raise ValueError(
            f"local_response_norm: input of shape {tuple(input.shape)} needs [batch, channel, *], at least 3 dimensions"
        )
    if input.numel() == 0:
        return input
    n, c = input.shape[:2]
    # Channels last: the windows run over them.
    square = (input * input).reshape(n, c, prod(input.shape[2:])).transpose(1, 2)
    square = pad(square, (size // 2, (size - 1) // 2))
    mean = avg_pool1d(square, size, stride=1).transpose(1, 2).reshape(input.shape)
    return input / (mean * alpha + k).pow(beta)
