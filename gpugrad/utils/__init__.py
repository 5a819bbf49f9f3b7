"""Utilities around training."""

from gpugrad.utils import data, dlpack

__all__ = ["data", "dlpack"]
