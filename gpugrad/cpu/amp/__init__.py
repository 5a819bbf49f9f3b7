"""Old names of ``gpugrad.amp``, for the CPU."""

from gpugrad.cpu.amp.autocast_mode import autocast
from gpugrad.cpu.amp.grad_scaler import GradScaler

__all__ = ["GradScaler", "autocast"]
