"""PyTorch's private package of the loader's parts, for the programs that import :mod:`collate` from it."""

from gpugrad.utils.data._utils import collate

__all__ = ["collate"]
