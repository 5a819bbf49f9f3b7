"""Automatic mixed precision, as ``torch.amp`` has it: :class:`autocast` and :class:`GradScaler`."""

from gpugrad.amp.autocast_mode import autocast, custom_bwd, custom_fwd, is_autocast_available
from gpugrad.amp.grad_scaler import GradScaler

__all__ = ["GradScaler", "autocast", "custom_bwd", "custom_fwd", "is_autocast_available"]
