"""Images and signals of another size: ``interpolate`` and its older names.

Every mode but ``area`` is separable, so it is one list of source elements ("taps") and weights per
axis: a gather, a product and a sum, differentiated as such. The lists depend on sizes only and are
made on the host.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gpugrad import dtypes
from gpugrad.nn.functional.pooling import adaptive_avg_pool1d, adaptive_avg_pool2d, adaptive_avg_pool3d
from gpugrad.ops import creation
from gpugrad.tensor import Tensor

_DIMS = {"linear": 3, "bilinear": 4, "bicubic": 4, "trilinear": 5}
_CORNERED = tuple(_DIMS)
_FREE = ("nearest", "nearest-exact", "area")


def interpolate(
    input: Tensor,
    size: Any = None,
    scale_factor: Any = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
    antialias: bool = False,
) -> Tensor:
    """``[n, c, *sizes]`` with one to three spatial dimensions, resampled to ``size`` or by ``scale_factor``
    (a number, or one per dimension; exactly one of the two).

    ``mode``: nearest, nearest-exact, area, linear (3-d input), bilinear, bicubic (4-d; Keys 1981) or trilinear
    (5-d). ``align_corners`` (linear and cubic modes): the centres of the outermost elements stay in place,
    instead of their outer edges. ``recompute_scale_factor``: step by the ratio of the sizes rather than by
    ``scale_factor``. ``antialias`` (bilinear, bicubic): widen the filter when shrinking. Floating inputs and
    uint8 (combined in integers, rounded per dimension). Raises ValueError, NotImplementedError, RuntimeError."""
    op = "interpolate"
    n = input.dim() - 2
    _check_mode(op, input, mode, align_corners, antialias)
    out, scales = _sizes(op, input, n, size, scale_factor, recompute_scale_factor)
    if min(out) < 1 or min(input.shape[2:]) < 1 or input.shape[1] < 1:
        raise RuntimeError(f"{op}: input of shape {tuple(input.shape)} and output size {out} must not be empty")
    if mode == "area":
        pool = (adaptive_avg_pool1d, adaptive_avg_pool2d, adaptive_avg_pool3d)[n - 1]
        return pool(input, out)
    steps = [_step(i, o, s, bool(align_corners)) for i, o, s in zip(input.shape[2:], out, scales, strict=True)]
    if mode.startswith("nearest"):
        return _nearest(input, out, scales, 0.5 if mode == "nearest-exact" else 0.0)
    cubic = mode == "bicubic"
    taps: list[tuple[np.ndarray, np.ndarray]] = []
    for i, o, step in zip(input.shape[2:], out, steps, strict=True):
        if antialias and i == o:
            taps.append((np.arange(i)[:, None], np.ones((i, 1))))
        elif antialias:
            taps.append(_antialiased(i, o, step, cubic))
        else:
            taps.append((_cubic if cubic else _linear)(i, o, _sources(o, step, bool(align_corners), cubic)))
    return _combine(input, taps)


def _check_mode(op: str, x: Tensor, mode: str, align_corners: bool | None, antialias: bool) -> None:
    if mode in _FREE:
        if align_corners is not None:
            raise ValueError(f"{op}: align_corners goes with the modes {', '.join(_CORNERED)}, not with {mode}")
        fits = x.dim() in (3, 4, 5)
    elif mode in _DIMS:
        fits = x.dim() == _DIMS[mode]
    else:
        raise NotImplementedError(f"{op}: mode {mode!r} is unknown; use one of {', '.join(_FREE + _CORNERED)}")
    if not fits:
        raise NotImplementedError(
            f"{op}: mode {mode!r} does not go with an input of shape {tuple(x.shape)}: linear takes 3 dimensions, "
            "bilinear and bicubic 4, trilinear 5, the others 3 to 5"
        )
    if antialias and not (mode in ("bilinear", "bicubic") and x.dim() == 4):
        raise ValueError(f"{op}: antialias=True goes with bilinear and bicubic of 4-d inputs, not with {mode}")
    if not x.is_floating_point() and not (x.dtype is dtypes.uint8 and x.dim() == 4 or mode in _FREE[:2]):
        raise NotImplementedError(f"{op}: not implemented for {x.dtype} in mode {mode!r}; convert with .float()")
    if not x.is_floating_point() and x.dtype is not dtypes.uint8:
        raise NotImplementedError(f"{op}: not implemented for {x.dtype}; convert with .float()")


def _listed(op: str, value: Any, n: int, name: str) -> tuple[Any, ...]:
    if isinstance(value, Sequence):
        if len(value) != n:
            raise ValueError(f"{op}: {name}={tuple(value)} must have one entry for each of the {n} spatial dimensions")
        return tuple(value)
    return (value,) * n


def _sizes(
    op: str, x: Tensor, n: int, size: Any, scale_factor: Any, recompute: bool | None
) -> tuple[tuple[int, ...], tuple[float | None, ...]]:
    """Output sizes, and the factor to step by per dimension (None: the ratio of the sizes)."""
    if (size is None) == (scale_factor is None):
        raise ValueError(f"{op}: give either size or scale_factor, got {size=} and {scale_factor=}")
    if size is not None:
        if recompute:
            raise ValueError(f"{op}: recompute_scale_factor=True needs a scale_factor to recompute, not a size")
        sizes = _listed(op, size, n, "size")
        if any(isinstance(s, float) for s in sizes):
            raise TypeError(f"{op}: size must hold ints, got {size!r}; use scale_factor for ratios")
        return tuple(int(s) for s in sizes), (None,) * n
    factors = tuple(float(f) for f in _listed(op, scale_factor, n, "scale_factor"))
    out = tuple(math.floor(s * f) for s, f in zip(x.shape[2:], factors, strict=True))
    return out, (None,) * n if recompute else factors


def _step(size: int, out: int, factor: float | None, align_corners: bool) -> float:
    """Distance in the input from one output element to the next."""
    if align_corners:
        return (size - 1) / (out - 1) if out > 1 else 0.0
    return 1.0 / factor if factor is not None and factor > 0 else size / out


def _sources(out: int, step: float, align_corners: bool, cubic: bool) -> np.ndarray:
    """Where in the input the centre of each output element lies."""
    at = np.arange(out, dtype=np.float64)
    if align_corners:
        return step * at
    at = step * (at + 0.5) - 0.5
    return at if cubic else np.maximum(at, 0.0)


def _linear(size: int, out: int, at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    low = np.minimum(at.astype(np.int64), size - 1)
    share = np.clip(at - low, 0.0, 1.0)
    return np.stack([low, np.minimum(low + 1, size - 1)], 1), np.stack([1.0 - share, share], 1)


def _keys(x: np.ndarray, a: float) -> np.ndarray:
    """The cubic convolution kernel of Keys (1981) with parameter ``a``."""
    x = np.abs(x)
    near = ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
    far = (((x - 5.0) * x + 8.0) * x - 4.0) * a
    return np.where(x < 1.0, near, np.where(x < 2.0, far, 0.0))


def _cubic(size: int, out: int, at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    low = np.floor(at)
    offsets = np.arange(-1, 3)
    index = low[:, None].astype(np.int64) + offsets
    return np.clip(index, 0, size - 1), _keys((at - low)[:, None] - offsets, -0.75)


def _antialiased(size: int, out: int, step: float, cubic: bool) -> tuple[np.ndarray, np.ndarray]:
    """A triangle or a cubic kernel (a = -1/2), as wide as ``step`` when shrinking, normalised inside."""
    kernel: Callable[[np.ndarray], np.ndarray]
    kernel = (lambda x: _keys(x, -0.5)) if cubic else (lambda x: np.maximum(1.0 - np.abs(x), 0.0))
    wide = max(step, 1.0)
    support = (2.0 if cubic else 1.0) * wide
    centre = step * (np.arange(out) + 0.5)
    first = np.maximum((centre - support + 0.5).astype(np.int64), 0)
    last = np.minimum((centre + support + 0.5).astype(np.int64), size)
    index = first[:, None] + np.arange(int((last - first).max()))
    weights = np.where(index < last[:, None], kernel((index - centre[:, None] + 0.5) / wide), 0.0)
    total = weights.sum(1, keepdims=True)
    return np.minimum(index, size - 1), weights / np.where(total == 0.0, 1.0, total)


def _combine(x: Tensor, taps: Sequence[tuple[np.ndarray, np.ndarray]]) -> Tensor:
    """Along each spatial dimension the weighted sums of the elements that ``taps`` lists."""
    dtype, bytes_ = x.dtype, x.dtype is dtypes.uint8
    y = x if dtype is dtypes.float64 else x.to(dtype=dtypes.int32 if bytes_ else dtypes.float32)
    # The last dimension first: with bytes, which are rounded in between, the order shows.
    for dim, (index, weights) in reversed(list(enumerate(taps, start=2))):
        out, k = index.shape
        if out == y.shape[dim] and (index[:, 0] == np.arange(out)).all() and (weights[:, 0] == 1.0).all():
            continue  # this size stays as it is
        at = creation.tensor(index.reshape(-1), dtype=dtypes.int64, device=x.device)
        shape = (out, k) + (1,) * (y.dim() - dim - 1)
        weights, shift = _fixed_point(weights) if bytes_ else (weights, 0)
        factor = creation.tensor(weights.reshape(shape), dtype=y.dtype, device=x.device)
        picked = y.index_select(dim, at).reshape(*y.shape[:dim], out, k, *y.shape[dim + 1 :])
        y = (picked * factor).sum(dim + 1, dtype=y.dtype)
        if bytes_:
            y = ((y + (1 << shift >> 1)) >> shift).clamp(0, 255)
    return y.clone() if y is x else y.to(dtype=dtype)


def _fixed_point(weights: np.ndarray) -> tuple[np.ndarray, int]:
    """``weights`` as 16-bit integers, and the power of two they are multiplied by: bytes are combined in integers, as
    in Pillow and PyTorch, so that halves are rounded alike everywhere."""
    shift, largest = 0, float(weights.max())
    while shift < 22 and int(0.5 + largest * (1 << (shift + 1))) < 1 << 15:
        shift += 1
    return np.trunc(weights * (1 << shift) + np.copysign(0.5, weights)).astype(np.int64), shift


def _nearest(x: Tensor, out: Sequence[int], scales: Sequence[float | None], shift: float) -> Tensor:
    y = x
    for dim, (o, factor) in enumerate(zip(out, scales, strict=True), start=2):
        size = x.shape[dim]
        if o == size and x.dim() == 4 and not shift:
            continue  # whatever the factor: PyTorch leaves such a dimension of an image alone
        step = np.float32(_step(size, o, factor, False))
        index = np.minimum(np.floor((np.arange(o, dtype=np.float32) + np.float32(shift)) * step), size - 1)
        if o % size == 0 and (index == np.arange(o) // (o // size)).all():
            if o != size:  # whole repeats: their gradient is a plain sum
                y = (
                    y.unsqueeze(dim + 1)
                    .expand(*y.shape[: dim + 1], o // size, *y.shape[dim + 1 :])
                    .flatten(dim, dim + 1)
                )
        else:
            y = y.index_select(dim, creation.tensor(index.astype(np.int64), device=x.device))
    return y.clone() if y is x else y


def upsample(
    input: Tensor, size: Any = None, scale_factor: Any = None, mode: str = "nearest", align_corners: bool | None = None
) -> Tensor:
    """The older name of :func:`interpolate`."""
    warnings.warn("upsample: this is the older name of interpolate; use F.interpolate", stacklevel=2)
    return interpolate(input, size, scale_factor, mode, align_corners)


def upsample_nearest(input: Tensor, size: Any = None, scale_factor: Any = None) -> Tensor:
    """``interpolate(mode="nearest")``."""
    warnings.warn("upsample_nearest: use F.interpolate(mode='nearest')", stacklevel=2)
    return interpolate(input, size, scale_factor, mode="nearest")


def upsample_bilinear(input: Tensor, size: Any = None, scale_factor: Any = None) -> Tensor:
    """``interpolate(mode="bilinear", align_corners=True)``."""
    warnings.warn("upsample_bilinear: use F.interpolate(mode='bilinear', align_corners=True)", stacklevel=2)
    return interpolate(input, size, scale_factor, mode="bilinear", align_corners=True)
