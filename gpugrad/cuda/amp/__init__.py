"""Old names of ``gpugrad.amp``, for CUDA."""

from gpugrad.cuda import is_available
from gpugrad.cuda.amp.autocast_mode import autocast, custom_bwd, custom_fwd
from gpugrad.cuda.amp.grad_scaler import GradScaler

__all__ = ["GradScaler", "amp_definitely_not_available", "autocast", "custom_bwd", "custom_fwd"]


def amp_definitely_not_available() -> bool:
    """Whether there is no CUDA device."""
    return not is_available()
