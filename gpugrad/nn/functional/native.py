"""PyTorch's functions below ``nn.functional`` that programs call by name: with their order of arguments, and with
the moments that normalisations save beside their result."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gpugrad import ops
from gpugrad.nn import functional as F
from gpugrad.nn.functional.grid import _MODES, _PADDINGS
from gpugrad.ops import creation
from gpugrad.ops.fused import widened
from gpugrad.ops.normalization import moments
from gpugrad.tensor import Tensor


def constant_pad_nd(input: Tensor, pad: Sequence[int], value: float = 0) -> Tensor:
    """:func:`gpugrad.nn.functional.pad` with a constant."""
    return ops.pad(input, pad, "constant", value)


def _saved(x: Tensor, mean: Tensor, var: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    return mean.to(dtype=x.dtype), (var + eps).rsqrt().to(dtype=x.dtype)


def native_layer_norm(
    input: Tensor, normalized_shape: Sequence[int], weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """:func:`gpugrad.nn.functional.layer_norm`, the means and the reciprocal standard deviations (with dimensions
    of size 1), which have no graph."""
    y = F.layer_norm(input, normalized_shape, weight, bias, eps)
    dims = tuple(range(input.dim() - len(normalized_shape), input.dim()))
    _, mean, var = moments(widened(input), dims)
    mean, scale = _saved(input, mean, var, eps)
    return y, mean.detach(), scale.detach()


def native_group_norm(
    input: Tensor, weight: Tensor | None, bias: Tensor | None, N: int, C: int, HxW: int, group: int, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """:func:`gpugrad.nn.functional.group_norm` of ``[N, C, *]`` with ``HxW`` elements per channel, and ``[N, group]``
    means and reciprocal standard deviations. Raises RuntimeError where the sizes are not those of the input."""
    if input.numel() != N * C * HxW:
        raise RuntimeError(f"native_group_norm: input of shape {tuple(input.shape)} is not {N} x {C} x {HxW}")
    y = F.group_norm(input, group, weight, bias, eps)
    _, mean, var = moments(widened(input).reshape(N, group, C // group * HxW), (2,))
    return y, *(m.squeeze(2) for m in _saved(input, mean, var, eps))


def native_batch_norm(
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    training: bool,
    momentum: float,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """:func:`gpugrad.nn.functional.batch_norm`, and in training the mean and the reciprocal standard deviation of
    each channel (else two empty tensors), which have no graph."""
    y = F.batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)
    if not training:
        nothing = creation.zeros(0, dtype=input.dtype, device=input.device)
        return y, nothing, nothing.clone()
    _, mean, var = moments(widened(input), (0, *range(2, input.dim())))
    return y, *(m.flatten().detach() for m in _saved(input, mean, var, eps))


def grid_sampler(
    input: Tensor, grid: Tensor, interpolation_mode: int, padding_mode: int, align_corners: bool
) -> Tensor:
    """:func:`gpugrad.nn.functional.grid_sample` with its modes by number: 0 bilinear, 1 nearest, 2 bicubic; 0 zeros,
    1 border, 2 reflection. Raises RuntimeError for other numbers."""
    if interpolation_mode not in (0, 1, 2) or padding_mode not in (0, 1, 2):
        raise RuntimeError(
            f"grid_sampler: interpolation_mode {interpolation_mode} and padding_mode {padding_mode} must be 0, 1 or 2"
        )
    return F.grid_sample(input, grid, _MODES[interpolation_mode], _PADDINGS[padding_mode], align_corners)


def _sampler(n: int) -> Any:
    def sampler(input: Tensor, grid: Tensor, interpolation_mode: int, padding_mode: int, align_corners: bool) -> Tensor:
        if input.dim() != n + 2:
            raise RuntimeError(
                f"grid_sampler_{n}d: expected input of {n + 2} dimensions, got shape {tuple(input.shape)}"
            )
        return grid_sampler(input, grid, interpolation_mode, padding_mode, align_corners)

    sampler.__name__ = sampler.__qualname__ = f"grid_sampler_{n}d"
    sampler.__doc__ = f":func:`grid_sampler` of {n + 2}-dimensional inputs."
    return sampler


grid_sampler_2d, grid_sampler_3d = _sampler(2), _sampler(3)
