"""PyTorch's module of this name: ``torch.nn.modules.flatten``, for programs that import from there."""

from gpugrad.nn.linear import (
    Flatten,
    Unflatten,
)

__all__ = [
    "Flatten",
    "Unflatten",
]
