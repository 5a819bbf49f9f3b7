"""PyTorch's module of this name: ``torch.nn.modules.distance``, for programs that import from there."""

from gpugrad.nn.linear import (
    CosineSimilarity,
    PairwiseDistance,
)

__all__ = [
    "CosineSimilarity",
    "PairwiseDistance",
]
