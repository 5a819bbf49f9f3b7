"""Elements moved between channels and space: fold, pixel and channel shuffles."""

from __future__ import annotations

from math import prod
from typing import Any

from gpugrad import layout, ops
from gpugrad.nn.functional.conv import _pairs
from gpugrad.nn.functional.shapes import per_dim
from gpugrad.ops.strided import fold_windows
from gpugrad.tensor import Tensor


def fold(
    input: Tensor, output_size: Any, kernel_size: Any, dilation: Any = 1, padding: Any = 0, stride: Any = 1
) -> Tensor:
    """The adjoint of :func:`unfold` (col2im): ``[n, c * kh * kw, windows]`` (or without n) summed into
    ``[n, c, *output_size]``. Raises RuntimeError where the sizes do not fit."""
    op = "fold"
    if input.dim() not in (2, 3):
        raise RuntimeError(f"{op}: expected [n, c * kh * kw, windows] or without n, got shape {tuple(input.shape)}")
    size, kernel = per_dim(output_size, 2, "output_size", op), per_dim(kernel_size, 2, "kernel_size", op)
    dilation, stride = per_dim(dilation, 2, "dilation", op), per_dim(stride, 2, "stride", op)
    padding = per_dim(padding, 2, "padding", op)
    if min(kernel) < 1 or min(dilation) < 1 or min(stride) < 1 or min(padding) < 0:
        raise RuntimeError(
            f"{op}: kernel_size {kernel}, dilation {dilation} and stride {stride} must be positive, padding "
            f"{padding} not negative"
        )
    x = input if input.dim() == 3 else input.unsqueeze(0)
    n, rows, columns = x.shape
    if rows % prod(kernel) or not rows:
        raise RuntimeError(f"{op}: {rows} rows of input {tuple(input.shape)} do not divide into kernels of {kernel}")
    padded = tuple(s + 2 * p for s, p in zip(size, padding, strict=True))
    out = layout.window_counts(padded, kernel, stride, dilation)
    if min(out) < 1 or prod(out) != columns:
        raise RuntimeError(
            f"{op}: output_size {size} with kernel_size {kernel}, dilation {dilation}, padding {padding} and stride "
            f"{stride} has {'x'.join(map(str, out))} windows, input {tuple(input.shape)} has {columns}"
        )
    windows = x.reshape(n, rows // prod(kernel), *kernel, *out).permute(0, 1, 4, 5, 2, 3)
    y = fold_windows(windows, size=padded, stride=stride, dilation=dilation)
    if any(padding):
        y = ops.pad(y, _pairs([-p for p in padding], [-p for p in padding]))
    return y if input.dim() == 3 else y.squeeze(0)


def pixel_shuffle(input: Tensor, upscale_factor: int) -> Tensor:
    """``[*, c * r * r, h, w]`` to ``[*, c, h * r, w * r]`` (Shi et al. 2016). Raises RuntimeError."""
    r = upscale_factor
    if input.dim() < 3 or r < 1 or input.shape[-3] % (r * r):
        raise RuntimeError(
            f"pixel_shuffle: input of shape {tuple(input.shape)} must be [*, channels, h, w] with channels that "
            f"upscale_factor squared ({r} x {r}) divides"
        )
    *batch, c, h, w = input.shape
    x = input.reshape(prod(batch), c // (r * r), r, r, h, w).permute(0, 1, 4, 2, 5, 3)
    return x.clone().reshape(*batch, c // (r * r), h * r, w * r)


def pixel_unshuffle(input: Tensor, downscale_factor: int) -> Tensor:
    """The reverse of :func:`pixel_shuffle`: ``[*, c, h * r, w * r]`` to ``[*, c * r * r, h, w]``. Raises
    RuntimeError."""
    r = downscale_factor
    if input.dim() < 3 or r < 1 or input.shape[-1] % r or input.shape[-2] % r:
        raise RuntimeError(
            f"pixel_unshuffle: input of shape {tuple(input.shape)} must be [*, channels, h, w] with sizes that "
            f"downscale_factor={r} divides"
        )
    *batch, c, h, w = input.shape
    x = input.reshape(prod(batch), c, h // r, r, w // r, r).permute(0, 1, 3, 5, 2, 4)
    return x.clone().reshape(*batch, c * r * r, h // r, w // r)


def channel_shuffle(input: Tensor, groups: int) -> Tensor:
    """Channels of ``[n, c, *]`` dealt out: channel j of group i goes to place i of j (Zhang et al. 2018). Raises
    RuntimeError."""
    if input.dim() < 3 or groups < 1 or input.shape[1] % groups:
        raise RuntimeError(
            f"channel_shuffle: input of shape {tuple(input.shape)} must be [n, channels, *] with channels that "
            f"groups={groups} divides"
        )
    n, c, *rest = input.shape
    return input.reshape(n, groups, c // groups, *rest).transpose(1, 2).reshape(n, c, *rest)


native_channel_shuffle = channel_shuffle
