"""Utilities around training."""

from gpugrad.utils import data

__all__ = ["data"]
