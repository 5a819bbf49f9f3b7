"""PyTorch's module of this name: ``torch.nn.modules.lazy``, for programs that import from there."""

from gpugrad.nn.lazy import LazyModuleMixin
from gpugrad.nn.parameter import is_lazy

__all__ = [
    "LazyModuleMixin",
    "is_lazy",
]
