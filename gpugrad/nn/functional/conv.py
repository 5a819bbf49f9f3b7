"""Convolution (cross-correlation, as in all of deep learning), its transpose, and padding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gpugrad import layout, ops
from gpugrad.nn.functional.shapes import batched, per_dim
from gpugrad.ops.autocast import listed
from gpugrad.tensor import Tensor


def _check_channels(op: str, x: Tensor, weight: Tensor, expected: int, groups: int) -> None:
    if x.shape[1] != expected:
        raise RuntimeError(
            f"{op}: weight of shape {tuple(weight.shape)} with groups={groups} takes {expected} channels, the "
            f"input of shape {tuple(x.shape)} has {x.shape[1]}"
        )


def _check_bias(op: str, bias: Tensor | None, weight: Tensor, channels: int) -> None:
    if bias is not None and bias.dtype is not weight.dtype:
        raise RuntimeError(f"{op}: bias and weight must have one dtype, got {bias.dtype} and {weight.dtype}")
    if bias is not None and tuple(bias.shape) != (channels,):
        raise RuntimeError(
            f"{op}: bias must have shape ({channels},), one element per output channel, not {tuple(bias.shape)}"
        )


def _convolve(
    op: str,
    n: int,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: int,
) -> Tensor:
    x, alone = batched(input, n, op)
    if weight.dim() != n + 2:
        raise RuntimeError(
            f"{op}: weight must have {n + 2} dimensions [out, in/groups, *kernel], not shape {tuple(weight.shape)}"
        )
    stride, dilation = per_dim(stride, n, "stride", op), per_dim(dilation, n, "dilation", op)
    if min(stride) < 1 or min(dilation) < 1 or groups < 1:
        raise RuntimeError(f"{op}: stride {stride}, dilation {dilation} and groups {groups} must be positive")
    if weight.shape[0] % groups:
        raise RuntimeError(f"{op}: {weight.shape[0]} output channels are not divisible by groups={groups}")
    _check_channels(op, x, weight, weight.shape[1] * groups, groups)
    _check_bias(op, bias, weight, weight.shape[0])
    kernel = tuple(weight.shape[2:])
    before, after = _padding(op, n, padding, kernel, stride, dilation)
    padded = [s + b + a for s, b, a in zip(x.shape[2:], before, after, strict=True)]
    extent = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
    if any(p < e for p, e in zip(padded, extent, strict=True)):
        raise RuntimeError(
            f"{op}: the kernel spans {tuple(extent)}, more than the padded input {tuple(padded)} has; "
            "add padding or use a smaller kernel"
        )
    if any(before) or any(after):
        x = ops.pad(x, _pairs(before, after))
    y = ops.convolution(x, weight, stride, dilation, groups, bias)
    return y.squeeze(0) if alone else y


def _pairs(before: Sequence[int], after: Sequence[int]) -> tuple[int, ...]:
    """Padding per dimension in the order ``pad`` wants: last dimension first."""
    return tuple(v for pair in reversed(list(zip(before, after, strict=True))) for v in pair)


def _padding(
    op: str, n: int, padding: Any, kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    if isinstance(padding, str):
        if padding == "valid":
            return (0,) * n, (0,) * n
        if padding != "same":
            raise RuntimeError(f"{op}: padding must be 'valid', 'same' or integers, not {padding!r}")
        if any(s != 1 for s in stride):
            raise RuntimeError(f"{op}: padding='same' needs stride 1, not {stride}; give the padding as integers")
        total = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
        return tuple(t // 2 for t in total), tuple(t - t // 2 for t in total)
    both = per_dim(padding, n, "padding", op)
    if min(both) < 0:
        raise RuntimeError(f"{op}: negative padding {both} is not supported")
    return both, both


def conv1d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor:
    """``[n, c, l]`` (or ``[c, l]``) with ``[o, c/groups, k]`` gives ``[n, o, l']``. ``padding`` is a
    number of zeros, 'valid' (none) or 'same' (size kept). Raises RuntimeError for shapes that do not fit."""
    return _convolve("conv1d", 1, input, weight, bias, stride, padding, dilation, groups)


def conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor:
    """``[n, c, h, w]`` (or ``[c, h, w]``) with ``[o, c/groups, kh, kw]`` gives ``[n, o, h', w']``; see
    :func:`conv1d`."""
    return _convolve("conv2d", 2, input, weight, bias, stride, padding, dilation, groups)


def conv3d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor:
    """``[n, c, d, h, w]`` with ``[o, c/groups, kd, kh, kw]`` gives ``[n, o, d', h', w']``; see :func:`conv1d`."""
    return _convolve("conv3d", 3, input, weight, bias, stride, padding, dilation, groups)


def _convolve_transpose(
    op: str,
    n: int,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Any,
    padding: Any,
    output_padding: Any,
    groups: int,
    dilation: Any,
) -> Tensor:
    x, alone = batched(input, n, op)
    if weight.dim() != n + 2:
        raise RuntimeError(
            f"{op}: weight must have {n + 2} dimensions [in, out/groups, *kernel], not shape {tuple(weight.shape)}"
        )
    stride, dilation = per_dim(stride, n, "stride", op), per_dim(dilation, n, "dilation", op)
    padding, extra = per_dim(padding, n, "padding", op), per_dim(output_padding, n, "output_padding", op)
    if min(stride) < 1 or min(dilation) < 1 or groups < 1:
        raise RuntimeError(f"{op}: stride {stride}, dilation {dilation} and groups {groups} must be positive")
    if min(padding) < 0 or min(extra) < 0:
        raise RuntimeError(f"{op}: negative padding {padding} or output_padding {extra} is not supported")
    if weight.shape[0] % groups:
        raise RuntimeError(f"{op}: {weight.shape[0]} input channels are not divisible by groups={groups}")
    _check_channels(op, x, weight, weight.shape[0], groups)
    _check_bias(op, bias, weight, weight.shape[1] * groups)
    for e, s, d in zip(extra, stride, dilation, strict=True):
        if e >= max(s, d):
            raise RuntimeError(
                f"{op}: output_padding {extra} is too large: in each dimension it has to stay below stride {stride} "
                f"or below dilation {dilation}"
            )
    kernel = tuple(weight.shape[2:])
    whole = [(m - 1) * s + d * (k - 1) + 1 for m, s, d, k in zip(x.shape[2:], stride, dilation, kernel, strict=True)]
    size = [w - 2 * p + e for w, p, e in zip(whole, padding, extra, strict=True)]
    if any(s < 1 for s in size):
        raise RuntimeError(
            f"{op}: input of shape {tuple(x.shape)} with kernel {kernel}, stride {stride} and padding "
            f"{padding} gives an empty output of size {tuple(size)}"
        )
    y = ops.convolution_transpose(x, weight, tuple(whole), stride, dilation, groups, wide=bias is not None)
    if any(padding) or any(extra):
        # No input reaches the extra rim that output_padding asks for: there it is the bias alone.
        y = ops.pad(y, _pairs([-p for p in padding], [e - p for e, p in zip(extra, padding, strict=True)]))
    if bias is not None:
        y = (y + bias.reshape((1, -1) + (1,) * n)).to(x.dtype)
    return y.squeeze(0) if alone else y


def conv_transpose1d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> Tensor:
    """Adjoint of :func:`conv1d`: ``[n, c, l]`` with ``[c, o/groups, k]`` gives
    ``[n, o, (l - 1) * stride - 2 * padding + dilation * (k - 1) + output_padding + 1]``."""
    return _convolve_transpose(
        "conv_transpose1d", 1, input, weight, bias, stride, padding, output_padding, groups, dilation
    )


def conv_transpose2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> Tensor:
    """Adjoint of :func:`conv2d`; sizes as in :func:`conv_transpose1d`."""
    return _convolve_transpose(
        "conv_transpose2d", 2, input, weight, bias, stride, padding, output_padding, groups, dilation
    )


def conv_transpose3d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> Tensor:
    """Adjoint of :func:`conv3d`; sizes as in :func:`conv_transpose1d`."""
    return _convolve_transpose(
        "conv_transpose3d", 3, input, weight, bias, stride, padding, output_padding, groups, dilation
    )


def conv_tbc(input: Tensor, weight: Tensor, bias: Tensor, pad: int = 0) -> Tensor:
    """Convolution over time of ``[time, n, c]`` with ``[k, c, o]`` and ``bias`` ``[o]``: ``[time', n, o]``. Raises
    RuntimeError for shapes that do not fit."""
    if input.dim() != 3 or weight.dim() != 3 or bias.dim() != 1:
        raise RuntimeError(
            f"conv_tbc: expected [time, n, c], [k, c, o] and [o], got {tuple(input.shape)}, {tuple(weight.shape)} and "
            f"{tuple(bias.shape)}"
        )
    return conv1d(input.permute(1, 2, 0), weight.permute(2, 1, 0), bias, padding=pad).permute(2, 0, 1)


def pad(input: Tensor, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> Tensor:
    """Pad the last ``len(pad) // 2`` dimensions: ``pad`` = (last before, last after, next-to-last before, ...).

    ``mode`` is constant (with ``value``, default 0; negative numbers crop), reflect, replicate or circular.
    Raises RuntimeError for padding that does not fit, NotImplementedError for another mode."""
    return _PADS.get((mode, len(pad)), ops.pad)(input, pad, mode, value)


#: (mode, numbers) -> the function, for those that autocast's lists name
_PADS = {("reflect", n): listed("reflection_pad", ops.pad) for n in (2, 4)} | {
    ("replicate", n): listed("replication_pad", ops.pad) for n in (2, 4, 6)
}


def unfold(input: Tensor, kernel_size: Any, dilation: Any = 1, padding: Any = 0, stride: Any = 1) -> Tensor:
    """im2col: ``[n, c, h, w]`` gives ``[n, c * kh * kw, windows]``."""
    x, alone = batched(input, 2, "unfold")
    kernel, dilation = per_dim(kernel_size, 2, "kernel_size", "unfold"), per_dim(dilation, 2, "dilation", "unfold")
    padding, stride = per_dim(padding, 2, "padding", "unfold"), per_dim(stride, 2, "stride", "unfold")
    if any(padding):
        x = ops.pad(x, _pairs(padding, padding))
    if min(layout.window_counts(x.shape[2:], kernel, stride, dilation)) < 1:
        raise RuntimeError(
            f"unfold: input of shape {tuple(input.shape)} with kernel_size {kernel}, dilation {dilation} and padding "
            f"{padding} has no window; pad more or use a smaller kernel"
        )
    view = ops.windows(x, kernel=kernel, stride=stride, dilation=dilation)  # [n, c, oh, ow, kh, kw]
    n, c, oh, ow, kh, kw = view.shape
    columns = view.permute(0, 1, 4, 5, 2, 3).reshape(n, c * kh * kw, oh * ow)
    return columns.squeeze(0) if alone else columns
