"""Max-unpooling, and pooling over windows drawn at random (Graham 2014)."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

from gpugrad import dtypes
from gpugrad.nn.functional.shapes import batched, per_dim
from gpugrad.ops import creation, sampling
from gpugrad.ops.joining import cat
from gpugrad.tensor import Tensor


def _max_unpool(
    op: str, n: int, input: Tensor, indices: Tensor, kernel_size: Any, stride: Any, padding: Any, output_size: Any
) -> Tensor:
    x, alone = batched(input, n, op)
    if indices.dtype is not dtypes.int64:
        raise RuntimeError(f"{op}: indices must be int64, as max_pool{n}d returns them, not {indices.dtype}")
    if tuple(indices.shape) != tuple(input.shape):
        raise RuntimeError(
            f"{op}: indices of shape {tuple(indices.shape)} must have the shape of input {tuple(input.shape)}"
        )
    kernel = per_dim(kernel_size, n, "kernel_size", op)
    empty = stride is None or (isinstance(stride, Sequence) and len(stride) == 0)
    stride = kernel if empty else per_dim(stride, n, "stride", op)
    padding = per_dim(padding, n, "padding", op)
    least = [(s - 1) * t + k - 2 * p for s, t, k, p in zip(x.shape[2:], stride, kernel, padding, strict=True)]
    size = least if output_size is None else _asked(op, n, output_size, least, stride)
    batch, channels = x.shape[:2]
    count = prod(x.shape[2:])
    at = indices.reshape(batch, channels, count)
    zeros = creation.zeros((batch, channels, prod(size)), dtype=x.dtype, device=x.device)
    try:
        y = zeros.scatter(2, at, x.reshape(batch, channels, count)).reshape(batch, channels, *size)
    except IndexError as error:
        raise RuntimeError(f"{op}: an index lies outside the output of size {tuple(size)} ({error})") from None
    return y.squeeze(0) if alone else y


def _asked(op: str, n: int, output_size: Sequence[int], least: Sequence[int], stride: Sequence[int]) -> list[int]:
    size = list(output_size)
    if len(size) == n + 2:
        size = size[2:]
    if len(size) != n:
        raise ValueError(f"{op}: output_size {tuple(output_size)} must have {n} or {n + 2} entries")
    if any(not d - t < s < d + t for s, d, t in zip(size, least, stride, strict=True)):
        raise ValueError(
            f"{op}: output_size {tuple(size)} is too far from {tuple(least)}, the size this pooling goes with; "
            f"stay within the stride {tuple(stride)}"
        )
    return [int(s) for s in size]


def max_unpool1d(
    input: Tensor, indices: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0, output_size: Any = None
) -> Tensor:
    """Maxima ``[n, c, l]`` put back where ``indices`` (of max_pool1d) say, zeros elsewhere; ``output_size``
    chooses between the sizes that pool to l. Raises RuntimeError, ValueError."""
    return _max_unpool("max_unpool1d", 1, input, indices, kernel_size, stride, padding, output_size)


def max_unpool2d(
    input: Tensor, indices: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0, output_size: Any = None
) -> Tensor:
    """Maxima ``[n, c, h, w]`` put back; see :func:`max_unpool1d`."""
    return _max_unpool("max_unpool2d", 2, input, indices, kernel_size, stride, padding, output_size)


def max_unpool3d(
    input: Tensor, indices: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0, output_size: Any = None
) -> Tensor:
    """Maxima ``[n, c, d, h, w]`` put back; see :func:`max_unpool1d`."""
    return _max_unpool("max_unpool3d", 3, input, indices, kernel_size, stride, padding, output_size)


# -- fractional -------------------------------------------------------------------------


def _fractional(
    op: str, n: int, input: Tensor, kernel_size: Any, output_size: Any, output_ratio: Any, samples: Tensor | None
) -> tuple[Tensor, Tensor]:
    x, alone = batched(input, n, op)
    kernel = per_dim(kernel_size, n, "kernel_size", op)
    if (output_size is None) == (output_ratio is None):
        raise ValueError(f"{op}: give either output_size or output_ratio, got {output_size=} and {output_ratio=}")
    sizes = tuple(x.shape[2:])
    if output_size is None:
        ratios = tuple(output_ratio) if isinstance(output_ratio, Sequence) else (output_ratio,) * n
        if len(ratios) != n or not all(0.0 < r < 1.0 for r in ratios):
            raise ValueError(f"{op}: output_ratio {output_ratio} must hold {n} numbers between 0 and 1")
        out = tuple(int(s * r) for s, r in zip(sizes, ratios, strict=True))
    else:
        out = per_dim(output_size, n, "output_size", op)
    if any(o < 1 or k < 1 or o + k - 1 > s for o, k, s in zip(out, kernel, sizes, strict=True)):
        raise RuntimeError(f"{op}: {out} windows of size {kernel} do not fit input of shape {tuple(input.shape)}")
    batch, channels = x.shape[:2]
    if samples is None:
        samples = sampling.rand(batch, channels, n, dtype=x.dtype, device=x.device)
    elif samples.dim() != 3 or samples.shape[0] < batch or tuple(samples.shape[1:]) != (channels, n):
        raise RuntimeError(f"{op}: _random_samples must have shape {(batch, channels, n)}, not {tuple(samples.shape)}")
    else:
        samples = samples[:batch]
    index: Any = 0
    for i, (s, o, k) in enumerate(zip(sizes, out, kernel, strict=True)):
        # In 2-d the first random number belongs to the width, in 3-d to the depth, as in PyTorch.
        start = _starts(samples[..., n - 1 - i if n == 2 else i], s, o, k)
        places = start.unsqueeze(-1) + creation.arange(k, device=x.device)
        shape = [batch, channels] + [o if j == i else 1 for j in range(n)] + [k if j == i else 1 for j in range(n)]
        index = index * s + places.reshape(shape)
    flat = index.reshape(batch, channels, prod(out) * prod(kernel))
    values = x.reshape(batch, channels, prod(sizes)).gather(2, flat).reshape(batch, channels, *out, prod(kernel))
    best, which = values.max(-1)
    at = index.reshape(batch, channels, *out, prod(kernel)).gather(-1, which.unsqueeze(-1)).squeeze(-1)
    return (best.squeeze(0), at.squeeze(0)) if alone else (best, at)


def _starts(u: Tensor, size: int, out: int, kernel: int) -> Tensor:
    """Where the ``out`` windows along a dimension begin: int64 ``[n, c, out]`` for random ``u`` ``[n, c]``."""
    last = creation.full((*u.shape, 1), size - kernel, dtype=dtypes.int64, device=u.device)
    if out == 1:
        return last
    alpha = (size - kernel) / (out - 1)
    u = u.unsqueeze(-1)
    i = creation.arange(out - 1, device=u.device).to(dtype=u.dtype)
    return cat([(((i + u) * alpha).to(dtype=dtypes.int64) - (u * alpha).to(dtype=dtypes.int64)), last], -1)


def fractional_max_pool2d_with_indices(
    input: Tensor,
    kernel_size: Any,
    output_size: Any = None,
    output_ratio: Any = None,
    return_indices: bool = False,
    _random_samples: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Maxima of ``[n, c, h, w]`` over windows whose places are drawn per channel so that ``output_size`` (or
    ``output_ratio`` of the size) of them span the input (Graham 2014), and their flattened positions."""
    return _fractional("fractional_max_pool2d", 2, input, kernel_size, output_size, output_ratio, _random_samples)


def fractional_max_pool3d_with_indices(
    input: Tensor,
    kernel_size: Any,
    output_size: Any = None,
    output_ratio: Any = None,
    return_indices: bool = False,
    _random_samples: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """As :func:`fractional_max_pool2d_with_indices`, of ``[n, c, d, h, w]``."""
    return _fractional("fractional_max_pool3d", 3, input, kernel_size, output_size, output_ratio, _random_samples)


def fractional_max_pool2d(
    input: Tensor,
    kernel_size: Any,
    output_size: Any = None,
    output_ratio: Any = None,
    return_indices: bool = False,
    _random_samples: Tensor | None = None,
) -> Any:
    """:func:`fractional_max_pool2d_with_indices`, with the positions only if ``return_indices``."""
    pair = fractional_max_pool2d_with_indices(input, kernel_size, output_size, output_ratio, True, _random_samples)
    return pair if return_indices else pair[0]


def fractional_max_pool3d(
    input: Tensor,
    kernel_size: Any,
    output_size: Any = None,
    output_ratio: Any = None,
    return_indices: bool = False,
    _random_samples: Tensor | None = None,
) -> Any:
    """:func:`fractional_max_pool3d_with_indices`, with the positions only if ``return_indices``."""
    pair = fractional_max_pool3d_with_indices(input, kernel_size, output_size, output_ratio, True, _random_samples)
    return pair if return_indices else pair[0]
