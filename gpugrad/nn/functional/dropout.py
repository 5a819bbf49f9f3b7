"""Dropout: elements or whole channels set to 0 at random in training.

The masks come from gpugrad's generator: one seed, the same masks on every device.
"""

from __future__ import annotations

import math
import warnings

from gpugrad import dtypes
from gpugrad.ops import sampling
from gpugrad.ops.elementwise import where
from gpugrad.tensor import Tensor


def _keep(input: Tensor, shape: tuple[int, ...], p: float) -> Tensor:
    """A bool mask, each element True with probability 1 - p."""
    return sampling.rand(shape, device=input.device, dtype=dtypes.float32) >= p


def _check(p: float) -> None:
    if not 0.0 <= p <= 1.0:
        raise ValueError(f"dropout: p={p} is not a probability; it lies in [0, 1]")


def _dropout(input: Tensor, shape: tuple[int, ...], p: float, training: bool, inplace: bool) -> Tensor:
    _check(p)
    if not training or p == 0.0 or input.numel() == 0:
        return input
    if p == 1.0:
        result = input * 0.0
    else:
        result = where(_keep(input, shape, p), input * (1.0 / (1.0 - p)), 0.0)
    return input.copy_(result) if inplace else result


def dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Each element 0 with probability ``p``, else x / (1 - p) (Hinton et al. 2012). Raises ValueError."""
    return _dropout(input, tuple(input.shape), p, training, inplace)


def _channels(input: Tensor, n: int, p: float, training: bool, inplace: bool, name: str) -> Tensor:
    if input.dim() not in (n + 1, n + 2):
        warnings.warn(
            f"{name}: received a {input.dim()}-D input, expected {n + 1}-D (unbatched) or {n + 2}-D (batched)",
            stacklevel=3,
        )
    lead = input.dim() - n if input.dim() > n else min(2, input.dim())
    shape = tuple(input.shape[:lead]) + (1,) * (input.dim() - lead)
    return _dropout(input, shape, p, training, inplace)


def dropout1d(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Whole channels of ``[n, c, l]`` or ``[c, l]`` set to 0 (Tompson et al. 2014)."""
    return _channels(input, 1, p, training, inplace, "dropout1d")


def dropout2d(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Whole channels of ``[n, c, h, w]`` set to 0; a 3-d input counts as ``[n, c, l]``."""
    if input.dim() == 3:
        return _channels(input, 1, p, training, inplace, "dropout2d")
    return _channels(input, 2, p, training, inplace, "dropout2d")


def dropout3d(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Whole channels of ``[n, c, d, h, w]`` or ``[c, d, h, w]`` set to 0."""
    return _channels(input, 3, p, training, inplace, "dropout3d")


_SATURATED = -1.7580993408473766  # where SELU saturates: -scale * alpha


def _alpha(input: Tensor, shape: tuple[int, ...], p: float, training: bool, inplace: bool) -> Tensor:
    _check(p)
    if not training or p == 0.0:
        return input
    if p == 1.0:
        result = input * 0.0
    else:
        a = 1.0 / math.sqrt((1.0 - p) * (1.0 + p * _SATURATED**2))
        b = -a * _SATURATED * p
        result = where(_keep(input, shape, p), input * a + b, a * _SATURATED + b)
    return input.copy_(result) if inplace else result


def alpha_dropout(input: Tensor, p: float = 0.5, training: bool = False, inplace: bool = False) -> Tensor:
    """Dropout to SELU's saturation value that keeps mean and variance (Klambauer et al. 2017)."""
    return _alpha(input, tuple(input.shape), p, training, inplace)


def feature_alpha_dropout(input: Tensor, p: float = 0.5, training: bool = False, inplace: bool = False) -> Tensor:
    """:func:`alpha_dropout` of whole channels (dimension 1)."""
    shape = tuple(input.shape[:2]) + (1,) * (input.dim() - 2)
    return _alpha(input, shape, p, training, inplace)
