"""PyTorch's module of :class:`~gpugrad.optim.AdamW`, for programs that import from there."""

from gpugrad.optim.adam import AdamW

__all__ = ["AdamW"]
