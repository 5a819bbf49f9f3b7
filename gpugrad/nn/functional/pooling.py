"""Pooling over windows: maximum, average, p-norm, and the adaptive ones of a given output size."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from gpugrad import dtypes, ops
from gpugrad.errors import DTypeError
from gpugrad.nn.functional.conv import _pairs
from gpugrad.nn.functional.shapes import batched, per_dim
from gpugrad.ops import compound, creation
from gpugrad.ops.creation import rounded_once
from gpugrad.ops.fused import widened
from gpugrad.tensor import Tensor


def _count(size: int, kernel: int, stride: int, padding: int, dilation: int, ceil_mode: bool) -> int:
    """Windows along one dimension. With ``ceil_mode`` a last one may hang over the end, provided
    it starts inside the input or its left padding."""
    room = size + 2 * padding - dilation * (kernel - 1) - 1
    if not ceil_mode:
        return room // stride + 1
    n = -(-room // stride) + 1
    return n - 1 if (n - 1) * stride >= size + padding else n


def _geometry(
    op: str, n: int, x: Tensor, kernel_size: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool
) -> tuple[tuple[int, ...], ...]:
    """Checked kernel, stride, padding, dilation, padding after, and number of windows per dimension."""
    kernel = per_dim(kernel_size, n, "kernel_size", op)
    empty = stride is None or (isinstance(stride, Sequence) and len(stride) == 0)
    stride = kernel if empty else per_dim(stride, n, "stride", op)
    padding, dilation = per_dim(padding, n, "padding", op), per_dim(dilation, n, "dilation", op)
    if min(kernel) < 1 or min(stride) < 1 or min(dilation) < 1:
        raise RuntimeError(f"{op}: kernel_size {kernel}, stride {stride} and dilation {dilation} must be positive")
    if any(p < 0 or 2 * p > d * (k - 1) + 1 for p, k, d in zip(padding, kernel, dilation, strict=True)):
        raise RuntimeError(
            f"{op}: padding {padding} is more than half of what a kernel of size {kernel} with dilation {dilation} "
            "spans; pad less, or pad the input beforehand with F.pad"
        )
    size = x.shape[2:]
    out = tuple(_count(*args, ceil_mode) for args in zip(size, kernel, stride, padding, dilation, strict=True))
    if any(m < 1 for m in out):
        raise RuntimeError(
            f"{op}: input of shape {tuple(x.shape)} with kernel_size {kernel}, stride {stride}, padding "
            f"{padding} gives an empty output of size {out}"
        )
    after = tuple(
        max(0, (m - 1) * t + d * (k - 1) + 1 - s - p)
        for m, t, d, k, s, p in zip(out, stride, dilation, kernel, size, padding, strict=True)
    )
    return kernel, stride, padding, dilation, after, out


def _max_pool(
    op: str,
    n: int,
    input: Tensor,
    kernel_size: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    ceil_mode: bool,
) -> tuple[Tensor, Tensor]:
    x, alone = batched(input, n, op)
    if x.dtype is dtypes.bool_:
        raise DTypeError(f"{op}: not defined for bool; convert the input with .float()")
    if 0 in x.shape[1:]:
        raise RuntimeError(f"{op}: of an input only the batch may be empty, got shape {tuple(input.shape)}")
    kernel, stride, before, dilation, after, _ = _geometry(op, n, x, kernel_size, stride, padding, dilation, ceil_mode)
    if any(before) or any(after):
        low = -float("inf") if x.is_floating_point() else dtypes.iinfo(x.dtype).min
        values, index = ops.max_pool(ops.pad(x, _pairs(before, after), "constant", low), kernel, stride, dilation)
        index = _unpadded(index, tuple(x.shape[2:]), before, after)
    else:
        values, index = ops.max_pool(x, kernel, stride, dilation)
    return (values.squeeze(0), index.squeeze(0)) if alone else (values, index)


def _unpadded(index: Tensor, size: Sequence[int], before: Sequence[int], after: Sequence[int]) -> Tensor:
    """Positions in the flattened padded input as positions in the flattened input. Where a window
    held -inf only, the padding may have won: it counts as the nearest element inside."""
    result: Any = 0
    weight = 1
    rest = index
    for s, b, a in reversed(list(zip(size, before, after, strict=True))):
        full = s + b + a
        result = result + ((rest % full) - b).clamp(0, s - 1) * weight
        rest = rest // full
        weight *= s
    return result


def max_pool1d(
    input: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """Largest element of each window of ``[n, c, l]``; with ``return_indices`` also its int64 position in the
    flattened spatial dimensions. Padding is -inf. Raises RuntimeError for sizes that do not fit."""
    pair = _max_pool("max_pool1d", 1, input, kernel_size, stride, padding, dilation, ceil_mode)
    return pair if return_indices else pair[0]


def max_pool2d(
    input: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """Largest element of each window of ``[n, c, h, w]``; see :func:`max_pool1d`."""
    pair = _max_pool("max_pool2d", 2, input, kernel_size, stride, padding, dilation, ceil_mode)
    return pair if return_indices else pair[0]


def max_pool3d(
    input: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """Largest element of each window of ``[n, c, d, h, w]``; see :func:`max_pool1d`."""
    pair = _max_pool("max_pool3d", 3, input, kernel_size, stride, padding, dilation, ceil_mode)
    return pair if return_indices else pair[0]


def max_pool1d_with_indices(*args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
    """:func:`max_pool1d` with ``return_indices=True``."""
    return max_pool1d(*args[:6], **{**kwargs, "return_indices": True})


def max_pool2d_with_indices(*args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
    """:func:`max_pool2d` with ``return_indices=True``."""
    return max_pool2d(*args[:6], **{**kwargs, "return_indices": True})


def max_pool3d_with_indices(*args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
    """:func:`max_pool3d` with ``return_indices=True``."""
    return max_pool3d(*args[:6], **{**kwargs, "return_indices": True})


def _divisors(
    x: Tensor,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    out: Sequence[int],
    count_include_pad: bool,
) -> np.ndarray:
    """How many elements each window averages over: ``[*out]``, the product of counts per dimension."""
    result = np.ones((), np.float64)
    for size, k, t, p, m in zip(x.shape[2:], kernel, stride, padding, out, strict=True):
        start = np.arange(m) * t - p
        end = np.minimum(start + k, size + p)
        if not count_include_pad:
            start, end = np.maximum(start, 0), np.minimum(end, size)
        result = np.multiply.outer(result, end - start)
    return result


def _avg_pool(
    op: str,
    n: int,
    input: Tensor,
    kernel_size: Any,
    stride: Any,
    padding: Any,
    ceil_mode: bool,
    count_include_pad: bool,
    divisor_override: int | None,
) -> Tensor:
    x, alone = batched(input, n, op)
    whole = x.dtype is dtypes.int64  # the one integer type PyTorch averages, towards zero
    if not x.is_floating_point() and not whole:
        raise NotImplementedError(f"{op}: not implemented for {x.dtype}; convert with .float()")
    if divisor_override == 0:
        raise RuntimeError(f"{op}: divisor_override=0 would divide by zero; leave it out or pass another number")
    kernel, stride, before, one, after, out = _geometry(op, n, x, kernel_size, stride, padding, 1, ceil_mode)
    dtype, x = x.dtype, widened(x)
    if any(before) or any(after):
        padded = ops.pad(x, _pairs(before, after))
    else:
        padded = x
    total = ops.windows(padded, kernel=kernel, stride=stride, dilation=one).sum(dim=tuple(range(2 + n, 2 + 2 * n)))
    if whole:
        counts = _divisors(x, kernel, stride, before, out, count_include_pad)
        counts = np.full_like(counts, divisor_override) if divisor_override is not None else counts
        divisor = creation.tensor(counts.astype(np.int64), device=x.device)
        y = compound.div(total, divisor, rounding_mode="trunc")
    elif divisor_override is not None:
        y = total * (1.0 / divisor_override)
    elif not any(before) and not any(after):
        y = total * (1.0 / prod(kernel))
    else:
        scale = 1.0 / _divisors(x, kernel, stride, before, out, count_include_pad)
        y = total * creation.tensor(scale, dtype=x.dtype, device=x.device)
    y = y.to(dtype=dtype)
    return y.squeeze(0) if alone else y


def avg_pool1d(
    input: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Tensor:
    """Mean of each window of ``[n, c, l]``; zeros of the padding count unless ``count_include_pad=False``.
    Raises RuntimeError for sizes that do not fit."""
    return _avg_pool("avg_pool1d", 1, input, kernel_size, stride, padding, ceil_mode, count_include_pad, None)


def avg_pool2d(
    input: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    """Mean of each window of ``[n, c, h, w]``, or the sum over ``divisor_override``; see :func:`avg_pool1d`."""
    return _avg_pool(
        "avg_pool2d", 2, input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override
    )


def avg_pool3d(
    input: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    """Mean of each window of ``[n, c, d, h, w]``; see :func:`avg_pool2d`."""
    return _avg_pool(
        "avg_pool3d", 3, input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override
    )


@rounded_once
def _lp_pool(n: int, input: Tensor, norm_type: float, kernel_size: Any, stride: Any, ceil_mode: bool) -> Tensor:
    kernel = per_dim(kernel_size, n, "kernel_size", f"lp_pool{n}d")
    if abs(norm_type) == float("inf"):  # the limits: the largest and the smallest magnitude
        sign = 1.0 if norm_type > 0 else -1.0
        return _max_pool(f"lp_pool{n}d", n, input.abs() * sign, kernel, stride, 0, 1, ceil_mode)[0] * sign
    mean = _avg_pool(f"lp_pool{n}d", n, input.pow(norm_type), kernel, stride, 0, ceil_mode, True, None)
    return (mean.sign() * mean.abs().relu() * prod(kernel)).pow(1.0 / norm_type)


def lp_pool1d(input: Tensor, norm_type: float, kernel_size: Any, stride: Any = None, ceil_mode: bool = False) -> Tensor:
    """(sum of x^p over each window)^(1/p) of ``[n, c, l]``."""
    return _lp_pool(1, input, norm_type, kernel_size, stride, ceil_mode)


def lp_pool2d(input: Tensor, norm_type: float, kernel_size: Any, stride: Any = None, ceil_mode: bool = False) -> Tensor:
    """(sum of x^p over each window)^(1/p) of ``[n, c, h, w]``."""
    return _lp_pool(2, input, norm_type, kernel_size, stride, ceil_mode)


def lp_pool3d(input: Tensor, norm_type: float, kernel_size: Any, stride: Any = None, ceil_mode: bool = False) -> Tensor:
    """(sum of x^p over each window)^(1/p) of ``[n, c, d, h, w]``."""
    return _lp_pool(3, input, norm_type, kernel_size, stride, ceil_mode)


# -- adaptive: window i of m over a size s covers floor(i s / m) to ceil((i + 1) s / m) -----------
def _target(output_size: Any, n: int, x: Tensor, op: str) -> tuple[int, ...]:
    """``output_size`` per dimension; None keeps a dimension's size."""
    given = (output_size,) * n if output_size is None or isinstance(output_size, int) else tuple(output_size)
    if len(given) != n:
        raise RuntimeError(f"{op}: output_size must be an int or {n} ints, got {output_size!r}")
    out = tuple(int(s if o is None else o) for o, s in zip(given, x.shape[2:], strict=True))
    if any(o < 1 for o in out) or 0 in x.shape[2:]:
        raise RuntimeError(f"{op}: output_size {out} and the sizes of input {tuple(x.shape)} must be positive")
    return out


def _bounds(size: int, out: int) -> list[tuple[int, int]]:
    return [(i * size // out, -(-(i + 1) * size // out)) for i in range(out)]


def _adaptive_input(op: str, n: int, input: Tensor, output_size: Any) -> tuple[Tensor, bool]:
    if n > 1 and isinstance(output_size, Sequence) and input.dim() <= n:
        raise ValueError(f"{op}: input of shape {tuple(input.shape)} needs at least {n + 1} dimensions")
    return batched(input, n, op)


def _adaptive_avg(op: str, n: int, input: Tensor, output_size: Any) -> Tensor:
    x, alone = _adaptive_input(op, n, input, output_size)
    out = _target(output_size, n, x, op)
    if all(s % o == 0 for s, o in zip(x.shape[2:], out, strict=True)):
        kernel = tuple(s // o for s, o in zip(x.shape[2:], out, strict=True))
        y = _avg_pool(op, n, x, kernel, kernel, 0, False, True, None)
        return y.squeeze(0) if alone else y
    # The windows of one dimension do not depend on the others: one small matrix for each.
    x = widened(x)
    for dim, (s, o) in enumerate(zip(x.shape[2:], out, strict=True), start=2):
        matrix = np.zeros((s, o))
        for i, (a, b) in enumerate(_bounds(s, o)):
            matrix[a:b, i] = 1.0 / (b - a)
        m = creation.tensor(matrix, dtype=x.dtype, device=x.device)
        x = x.transpose(dim, -1).matmul(m).transpose(dim, -1)
    x = x.to(dtype=input.dtype)
    return x.squeeze(0) if alone else x


def _adaptive_max(op: str, n: int, input: Tensor, output_size: Any) -> tuple[Tensor, Tensor]:
    x, alone = _adaptive_input(op, n, input, output_size)
    out = _target(output_size, n, x, op)
    size = tuple(x.shape[2:])
    if all(s % o == 0 for s, o in zip(size, out, strict=True)):
        kernel = tuple(s // o for s, o in zip(size, out, strict=True))
        values, index = ops.max_pool(x, kernel, kernel, (1,) * n)
    else:
        values, index = _ragged_max(x, size, out, n)
    return (values.squeeze(0), index.squeeze(0)) if alone else (values, index)


def _ragged_max(x: Tensor, size: Sequence[int], out: Sequence[int], n: int) -> tuple[Tensor, Tensor]:
    """Windows of unequal length: laid side by side, each filled up by repeating its last element,
    they become windows of equal length that do not overlap."""
    kernel = []
    tables = []
    for dim, (s, o) in enumerate(zip(size, out, strict=True), start=2):
        bounds = _bounds(s, o)
        k = max(b - a for a, b in bounds)
        places = [min(a + j, b - 1) for a, b in bounds for j in range(k)]
        table = creation.tensor(places, dtype=dtypes.int64, device=x.device)
        x = x.index_select(dim, table)
        kernel.append(k)
        tables.append(table)
    values, index = ops.max_pool(x, tuple(kernel), tuple(kernel), (1,) * n)
    position: Any = 0
    weight = 1
    rest = index
    for s, table in reversed(list(zip(size, tables, strict=True))):
        m = table.shape[0]
        position = position + table.index_select(0, (rest % m).reshape(-1)).reshape(index.shape) * weight
        rest = rest // m
        weight *= s
    return values, position


def adaptive_avg_pool1d(input: Tensor, output_size: Any) -> Tensor:
    """Means of ``[n, c, l]`` over ``output_size`` windows that share the length out."""
    return _adaptive_avg("adaptive_avg_pool1d", 1, input, output_size)


def adaptive_avg_pool2d(input: Tensor, output_size: Any) -> Tensor:
    """Means of ``[n, c, h, w]`` to ``[n, c, *output_size]`` (None keeps a size)."""
    return _adaptive_avg("adaptive_avg_pool2d", 2, input, output_size)


def adaptive_avg_pool3d(input: Tensor, output_size: Any) -> Tensor:
    """Means of ``[n, c, d, h, w]`` to ``[n, c, *output_size]`` (None keeps a size)."""
    return _adaptive_avg("adaptive_avg_pool3d", 3, input, output_size)


def adaptive_max_pool1d(input: Tensor, output_size: Any, return_indices: bool = False) -> Any:
    """Maxima of ``[n, c, l]`` over ``output_size`` windows that share the length out."""
    pair = _adaptive_max("adaptive_max_pool1d", 1, input, output_size)
    return pair if return_indices else pair[0]


def adaptive_max_pool2d(input: Tensor, output_size: Any, return_indices: bool = False) -> Any:
    """Maxima of ``[n, c, h, w]`` to ``[n, c, *output_size]``, and with ``return_indices`` their positions."""
    pair = _adaptive_max("adaptive_max_pool2d", 2, input, output_size)
    return pair if return_indices else pair[0]


def adaptive_max_pool3d(input: Tensor, output_size: Any, return_indices: bool = False) -> Any:
    """Maxima of ``[n, c, d, h, w]`` to ``[n, c, *output_size]``, and with ``return_indices`` their positions."""
    pair = _adaptive_max("adaptive_max_pool3d", 3, input, output_size)
    return pair if return_indices else pair[0]


def adaptive_max_pool1d_with_indices(
    input: Tensor, output_size: Any, return_indices: bool = False
) -> tuple[Tensor, Tensor]:
    """:func:`adaptive_max_pool1d` with ``return_indices=True``."""
    return _adaptive_max("adaptive_max_pool1d", 1, input, output_size)


def adaptive_max_pool2d_with_indices(
    input: Tensor, output_size: Any, return_indices: bool = False
) -> tuple[Tensor, Tensor]:
    """:func:`adaptive_max_pool2d` with ``return_indices=True``."""
    return _adaptive_max("adaptive_max_pool2d", 2, input, output_size)


def adaptive_max_pool3d_with_indices(
    input: Tensor, output_size: Any, return_indices: bool = False
) -> tuple[Tensor, Tensor]:
    """:func:`adaptive_max_pool3d` with ``return_indices=True``."""
    return _adaptive_max("adaptive_max_pool3d", 3, input, output_size)
