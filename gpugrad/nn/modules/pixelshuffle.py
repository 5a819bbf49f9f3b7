"""PyTorch's module of this name: ``torch.nn.modules.pixelshuffle``, for programs that import from there."""

from gpugrad.nn.resampling import (
    PixelShuffle,
    PixelUnshuffle,
)

__all__ = [
    "PixelShuffle",
    "PixelUnshuffle",
]
