"""PyTorch's module of this name: ``torch.nn.modules.adaptive``, for programs that import from there."""

from gpugrad.nn.adaptive import AdaptiveLogSoftmaxWithLoss

__all__ = [
    "AdaptiveLogSoftmaxWithLoss",
]
