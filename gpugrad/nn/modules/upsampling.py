"""PyTorch's module of this name: ``torch.nn.modules.upsampling``, for programs that import from there."""

from gpugrad.nn.resampling import (
    Upsample,
    UpsamplingBilinear2d,
    UpsamplingNearest2d,
)

__all__ = [
    "Upsample",
    "UpsamplingBilinear2d",
    "UpsamplingNearest2d",
]
