"""PyTorch's module of this name: ``torch.nn.modules.fold``, for programs that import from there."""

from gpugrad.nn.resampling import (
    Fold,
    Unfold,
)

__all__ = [
    "Fold",
    "Unfold",
]
