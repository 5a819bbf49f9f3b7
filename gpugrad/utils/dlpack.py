"""DLPack under PyTorch's names; see :func:`gpugrad.from_dlpack`."""

from gpugrad.namespace import from_dlpack, to_dlpack

__all__ = ["from_dlpack", "to_dlpack"]
