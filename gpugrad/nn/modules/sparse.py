"""PyTorch's module of this name: ``torch.nn.modules.sparse``, for programs that import from there."""

from gpugrad.nn.linear import (
    Embedding,
    EmbeddingBag,
)

__all__ = [
    "Embedding",
    "EmbeddingBag",
]
