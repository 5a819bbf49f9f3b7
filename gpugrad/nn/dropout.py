"""Dropout layers: active in training mode only."""

from __future__ import annotations

from typing import Any

from gpugrad.nn import functional as F
from gpugrad.nn.module import Module
from gpugrad.tensor import Tensor


class _Dropout(Module):
    _function: Any

    def __init__(self, p: float = 0.5, inplace: bool = False) -> None:
        super().__init__()
        if not 0.0 <= p <= 1.0:
            raise ValueError(f"{type(self).__name__}: p={p} is not a probability; it lies in [0, 1]")
        self.p = p
        self.inplace = inplace

    def forward(self, input: Tensor) -> Tensor:
        return type(self)._function(input, self.p, self.training, self.inplace)

    def extra_repr(self) -> str:
        return f"p={self.p}, inplace={self.inplace}"


class Dropout(_Dropout):
    """Each element 0 with probability ``p``, the others divided by 1 - p (Hinton et al. 2012)."""

    _function = staticmethod(F.dropout)


class Dropout1d(_Dropout):
    """Whole channels of ``[n, c, l]`` dropped."""

    _function = staticmethod(F.dropout1d)


class Dropout2d(_Dropout):
    """Whole channels of ``[n, c, h, w]`` dropped."""

    _function = staticmethod(F.dropout2d)


class Dropout3d(_Dropout):
    """Whole channels of ``[n, c, d, h, w]`` dropped."""

    _function = staticmethod(F.dropout3d)


class AlphaDropout(_Dropout):
    """Dropout that keeps mean and variance of SELU activations (Klambauer et al. 2017)."""

    _function = staticmethod(F.alpha_dropout)


class FeatureAlphaDropout(_Dropout):
    """:class:`AlphaDropout` of whole channels."""

    _function = staticmethod(F.feature_alpha_dropout)
