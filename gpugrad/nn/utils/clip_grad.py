"""Gradient clipping, by norm (Pascanu et al. 2013) and by value."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable

from gpugrad.autograd import no_grad
from gpugrad.ops import creation, joining, updates
from gpugrad.tensor import Tensor


def _tensors(tensors: Tensor | Iterable[Tensor]) -> list[Tensor]:
    return [tensors] if isinstance(tensors, Tensor) else list(tensors)


def get_total_norm(
    tensors: Tensor | Iterable[Tensor],
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
    foreach: bool | None = None,
) -> Tensor:
    """The norm of all ``tensors`` taken together as one vector, as a 0-d tensor on the first
    one's device. ``foreach`` is accepted and changes nothing.

    Raises RuntimeError with ``error_if_nonfinite`` where the norm is nan or infinite."""
    given = _tensors(tensors)
    if not given:
        return creation.tensor(0.0)
    device = given[0].device
    total = updates.total_norm(given) if norm_type == 2 else None
    if total is None:
        with no_grad():
            norms = joining.stack([t.detach().norm(norm_type).to(device) for t in given])
            total = norms.norm(norm_type)
    if error_if_nonfinite and not math.isfinite(total.item()):
        raise RuntimeError(
            f"the gradients have a non-finite norm (norm_type={norm_type}); look for infinities and "
            "NaNs in them, or pass error_if_nonfinite=False to go on regardless"
        )
    return total


def clip_grads_with_norm_(
    parameters: Tensor | Iterable[Tensor], max_norm: float, total_norm: Tensor, foreach: bool | None = None
) -> None:
    """Scale the gradients in place by ``max_norm / total_norm`` where that is below 1.
    Nothing is read back from the device."""
    scale = (max_norm / (total_norm + 1e-6)).clamp(max=1.0)
    with no_grad():
        updates.scale_([p.grad for p in _tensors(parameters) if p.grad is not None], scale)


def clip_grad_norm_(
    parameters: Tensor | Iterable[Tensor],
    max_norm: float,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
    foreach: bool | None = None,
) -> Tensor:
    """Scale all gradients in place so that their norm together is at most ``max_norm``.
    Returns the norm before (0-d tensor)."""
    params = _tensors(parameters)
    total = get_total_norm([p.grad for p in params if p.grad is not None], norm_type, error_if_nonfinite)
    clip_grads_with_norm_(params, float(max_norm), total)
    return total


def clip_grad_norm(
    parameters: Tensor | Iterable[Tensor],
    max_norm: float,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
    foreach: bool | None = None,
) -> Tensor:
    """The old name of :func:`clip_grad_norm_`."""
    warnings.warn("clip_grad_norm: the old name of clip_grad_norm_", FutureWarning, stacklevel=2)
    return clip_grad_norm_(parameters, max_norm, norm_type, error_if_nonfinite, foreach)


def clip_grad_value_(parameters: Tensor | Iterable[Tensor], clip_value: float, foreach: bool | None = None) -> None:
    """Clamp every element of every gradient in place to ``[-clip_value, clip_value]``."""
    value = float(clip_value)
    with no_grad():
        for p in _tensors(parameters):
            if p.grad is not None:
                p.grad.copy_(p.grad.clamp(-value, value))
