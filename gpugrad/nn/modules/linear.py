"""PyTorch's module of this name: ``torch.nn.modules.linear``, for programs that import from there."""

from gpugrad.nn.lazy import LazyLinear
from gpugrad.nn.linear import (
    Bilinear,
    Identity,
    Linear,
    NonDynamicallyQuantizableLinear,
)

__all__ = [
    "Bilinear",
    "Identity",
    "LazyLinear",
    "Linear",
    "NonDynamicallyQuantizableLinear",
]
