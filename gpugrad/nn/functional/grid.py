"""Sampling at arbitrary positions: ``grid_sample`` and the grids of affine maps
(Jaderberg et al. 2015, Spatial Transformer Networks)."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from gpugrad import dtypes
from gpugrad.nn.functional.shapes import is_half
from gpugrad.ops import creation
from gpugrad.ops.elementwise import where
from gpugrad.ops.joining import cat, stack
from gpugrad.tensor import Tensor

_MODES = ("bilinear", "nearest", "bicubic")
_PADDINGS = ("zeros", "border", "reflection")


def grid_sample(
    input: Tensor,
    grid: Tensor,
    mode: str = "bilinear",
    padding_mode: str = "zeros",
    align_corners: bool | None = None,
) -> Tensor:
    """``input`` ``[n, c, h, w]`` at the positions ``grid`` ``[n, oh, ow, 2]`` (x, then y; -1 and 1 are the
    borders): ``[n, c, oh, ow]``; or ``[n, c, d, h, w]`` with ``[n, od, oh, ow, 3]``.

    ``mode``: bilinear (in 5-d over eight neighbours), nearest, bicubic (4-d only). ``padding_mode``: what lies
    outside is zeros, the nearest border element, or the reflection. ``align_corners``: whether -1 and 1 are the
    centres of the outermost elements or their outer edges (default). Differentiable in both inputs. A NaN
    position gives NaN with zeros (0 with nearest), otherwise it counts as -1.

    Raises ValueError for unknown modes, RuntimeError for shapes and dtypes that do not fit."""
    op = "grid_sample"
    if mode not in _MODES:
        raise ValueError(f"{op}: mode {mode!r} is unknown; use one of {', '.join(_MODES)}")
    if padding_mode not in _PADDINGS:
        raise ValueError(f"{op}: padding_mode {padding_mode!r} is unknown; use one of {', '.join(_PADDINGS)}")
    if align_corners is None:
        warnings.warn(f"{op}: align_corners is not given and taken to be False; say which you mean", stacklevel=2)
        align_corners = False
    _check(op, input, grid, mode)
    dtype = input.dtype
    x, positions = (input.float(), grid.float()) if is_half(input) else (input, grid)
    if padding_mode != "zeros":
        positions = where(positions != positions, -1.0, positions)
    sizes = tuple(x.shape[2:])
    # Coordinates come x first, dimensions y first.
    coordinates = [
        _in_elements(positions[..., len(sizes) - 1 - i], s, align_corners).flatten(1) for i, s in enumerate(sizes)
    ]
    if mode != "bicubic":
        coordinates = [_padded(c, s, padding_mode, align_corners) for c, s in zip(coordinates, sizes, strict=True)]
    if mode == "nearest":
        # A weight of 1 whose gradient is 0: the grid has a gradient in every mode.
        taps = [[(c.round(), c.round() * 0.0 + 1.0)] for c in coordinates]
    elif mode == "bilinear":
        taps = [_two(c) for c in coordinates]
    else:
        taps = [
            [(_padded(at, s, padding_mode, align_corners), w) for at, w in _four(c)]
            for c, s in zip(coordinates, sizes, strict=True)
        ]
    y = _gathered(x, sizes, taps, mode)
    return y.reshape(*x.shape[:2], *grid.shape[1:-1]).to(dtype=dtype)


def _check(op: str, x: Tensor, grid: Tensor, mode: str) -> None:
    n = x.dim() - 2
    if n not in (2, 3) or grid.dim() != x.dim() or grid.shape[-1] != n or grid.shape[0] != x.shape[0]:
        raise RuntimeError(
            f"{op}: expected [n, c, h, w] with a grid [n, oh, ow, 2], or [n, c, d, h, w] with [n, od, oh, ow, 3]; "
            f"got {tuple(x.shape)} and {tuple(grid.shape)}"
        )
    if x.dtype is not grid.dtype:
        raise RuntimeError(f"{op}: input and grid must have one dtype, got {x.dtype} and {grid.dtype}")
    if not x.is_floating_point():
        raise NotImplementedError(f"{op}: not implemented for {x.dtype}; convert with .float()")
    if any(s < 1 for s in x.shape[1:]):
        raise RuntimeError(f"{op}: input of shape {tuple(x.shape)} must not be empty but in its batch dimension")
    if mode == "bicubic" and n == 3:
        raise RuntimeError(f"{op}: mode bicubic takes 4-d inputs only, not {tuple(x.shape)}; use bilinear")


def _in_elements(c: Tensor, size: int, align_corners: bool) -> Tensor:
    """Positions in [-1, 1] as positions in elements."""
    return (c + 1.0) * ((size - 1) / 2.0) if align_corners else ((c + 1.0) * size - 1.0) * 0.5


def _padded(c: Tensor, size: int, padding_mode: str, align_corners: bool) -> Tensor:
    """Positions brought inside, as ``padding_mode`` says; from the border on without a gradient."""
    if padding_mode == "zeros":
        return c
    if padding_mode == "reflection":
        c = _reflected(c, 0.0, size - 1.0) if align_corners else _reflected(c, -0.5, size - 0.5)
    inside = (c > 0.0).logical_and(c < size - 1.0)
    return where(inside, c, c.detach().clamp(0.0, size - 1.0))


def _reflected(c: Tensor, low: float, high: float) -> Tensor:
    """Positions thrown back at ``low`` and ``high`` until they lie between them."""
    span = high - low
    if span <= 0.0:
        return c * 0.0
    away = (c - low).abs()
    turns = (away.detach() / span).floor()
    rest = away - turns * span
    return where(turns.remainder(2.0) == 0.0, rest + low, high - rest)


def _two(c: Tensor) -> list[tuple[Tensor, Tensor]]:
    low = c.detach().floor()
    share = c - low
    return [(low, 1.0 - share), (low + 1.0, share)]


def _four(c: Tensor) -> list[tuple[Tensor, Tensor]]:
    """The four neighbours and their weights by the cubic kernel of Keys (1981), a = -3/4."""
    low = c.detach().floor()
    t = c - low
    u = 1.0 - t
    weights = [_outer(t + 1.0), _inner(t), _inner(u), _outer(u + 1.0)]
    return [(low + float(i - 1), w) for i, w in enumerate(weights)]


def _inner(x: Tensor) -> Tensor:
    return (1.25 * x - 2.25) * x * x + 1.0


def _outer(x: Tensor) -> Tensor:
    return ((-0.75 * x + 3.75) * x - 6.0) * x + 3.0


def _gathered(x: Tensor, sizes: Sequence[int], taps: Sequence[Sequence[tuple[Tensor, Tensor]]], mode: str) -> Tensor:
    """``[n, c, points]``: the weighted sum over all combinations of the ``taps`` of each dimension; a tap
    outside counts nothing."""
    indices, weights = [], []
    for combination in itertools.product(*taps):
        index: Any = None
        inside: Any = None
        weight: Any = None
        for (at, w), s in zip(combination, sizes, strict=True):
            at = at.detach()
            within = (at >= 0.0).logical_and(at <= s - 1.0)
            place = where(within, at, 0.0).to(dtype=dtypes.int64)
            index = place if index is None else index * s + place
            inside = within if inside is None else inside.logical_and(within)
            weight = w if weight is None else weight * w
        indices.append(index)
        if mode != "nearest":
            inside = inside.logical_or(weight != weight)  # NaN stays NaN
        weights.append(where(inside, weight, 0.0))
    n, c = x.shape[:2]
    points = indices[0].shape[1]
    index = cat(indices, 1).unsqueeze(1).expand(n, c, len(indices) * points)
    values = x.reshape(n, c, prod(sizes)).gather(2, index, op="grid_sample").reshape(n, c, len(indices), points)
    return (values * stack(weights, 1).unsqueeze(1)).sum(2)


def affine_grid(theta: Tensor, size: Sequence[int], align_corners: bool | None = None) -> Tensor:
    """The grid for :func:`grid_sample` that ``theta`` ``[n, 2, 3]`` makes of an output of ``size`` (n, c, h, w):
    ``[n, h, w, 2]``; or ``[n, 3, 4]`` and (n, c, d, h, w): ``[n, d, h, w, 3]``. Raises ValueError,
    NotImplementedError, RuntimeError."""
    op = "affine_grid"
    size = tuple(int(s) for s in size)
    if not theta.is_floating_point():
        raise ValueError(f"{op}: theta must be floating, not {theta.dtype}; convert with .float()")
    n = len(size) - 2
    if n not in (2, 3):
        raise NotImplementedError(f"{op}: size {size} must be (n, c, h, w) or (n, c, d, h, w)")
    if theta.dim() != 3 or tuple(theta.shape[1:]) != (n, n + 1):
        raise ValueError(f"{op}: for size {size} theta must have shape [n, {n}, {n + 1}], not {tuple(theta.shape)}")
    if min(size) < 1:
        raise ValueError(f"{op}: size {size} must be positive")
    if theta.shape[0] != size[0]:
        raise RuntimeError(
            f"{op}: theta of shape {tuple(theta.shape)} does not hold {size[0]} maps, as size {size} asks"
        )
    if align_corners is None:
        warnings.warn(f"{op}: align_corners is not given and taken to be False; say which you mean", stacklevel=2)
        align_corners = False
    axes = [_centres(s, align_corners) for s in size[2:]]
    mesh = np.meshgrid(*axes, indexing="ij")
    base = np.stack([*reversed(mesh), np.ones_like(mesh[0])], -1).reshape(-1, n + 1)
    wide = theta.float() if is_half(theta) else theta
    points = creation.tensor(base, dtype=wide.dtype, device=theta.device)
    grid = points.matmul(wide.transpose(1, 2))
    return grid.reshape(size[0], *size[2:], n).to(dtype=theta.dtype)


def _centres(size: int, align_corners: bool) -> np.ndarray:
    if size == 1:
        return np.zeros(1)
    at = np.linspace(-1.0, 1.0, size)
    return at if align_corners else at * (size - 1) / size
