"""``gpugrad.signal``: windows of signals."""

from gpugrad.signal import windows

__all__ = ["windows"]
