"""Muon (Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks")."""

from __future__ import annotations

import math
from typing import Any

from gpugrad.ops import creation
from gpugrad.optim.optimizer import Optimizer, at, at_least, check_lr
from gpugrad.tensor import Tensor

_ADJUSTMENTS = (None, "original", "match_rms_adamw")


def orthogonalize(g: Tensor, coefficients: tuple[float, float, float], steps: int, eps: float) -> Tensor:
    """A matrix near the orthogonal factor of ``g`` (2-d, any floating dtype), in bfloat16.

    X = g / |g|, then ``steps`` times X = a X + b (X X') X + c (X X')^2 X, the quintic Newton-Schulz iteration with
    ``coefficients`` a, b, c. Raises ValueError."""
    if steps >= 100:
        raise ValueError(f"orthogonalize: {steps} steps are more than the 99 that make sense")
    if g.dim() != 2:
        raise ValueError(f"orthogonalize: a matrix has two dimensions, not shape {tuple(g.shape)}")
    if len(coefficients) != 3:
        raise ValueError(f"orthogonalize: there are three coefficients, not {len(coefficients)}")
    a, b, c = coefficients
    tall = g.shape[0] > g.shape[1]  # the products are of the shorter side
    x = g.bfloat16()
    x = x.T if tall else x
    x = x / x.norm().clamp(min=eps)
    for _ in range(steps):
        gram = x @ x.T
        x = x * a + (gram * b + (gram @ gram) * c) @ x
    return x.T if tall else x


class Muon(Optimizer):
    """Momentum whose matrix is replaced by a near-orthogonal one; for the matrices of hidden layers alone (biases,
    embeddings and the last layer are AdamW's).

    b = momentum b + (1 - momentum) g;  U = orthogonalize(b, or with ``nesterov`` momentum b + (1 - momentum) g);
    p = (1 - lr * weight_decay) p - r lr U, where r = sqrt(max(1, rows / columns)), or with
    ``adjust_lr_fn="match_rms_adamw"`` 0.2 sqrt(max(rows, columns)). Raises ValueError for parameters that are no
    matrices and options out of range."""

    def __init__(
        self,
        params: Any,
        lr: Any = 1e-3,
        weight_decay: float = 0.1,
        momentum: float = 0.95,
        nesterov: bool = True,
        ns_coefficients: tuple[float, float, float] = (3.4445, -4.7750, 2.0315),
        eps: float = 1e-7,
        ns_steps: int = 5,
        adjust_lr_fn: str | None = None,
    ) -> None:
        super().__init__(params, {
            "lr": lr, "weight_decay": weight_decay, "momentum": momentum, "nesterov": nesterov,
            "ns_coefficients": ns_coefficients, "eps": eps, "ns_steps": ns_steps, "adjust_lr_fn": adjust_lr_fn,
        })  # fmt: skip

    def _check_group(self, group: dict[str, Any]) -> None:
        check_lr(group["lr"])
        at_least(group["momentum"], 0.0, "momentum")
        at_least(group["weight_decay"], 0.0, "weight_decay")
        if group["adjust_lr_fn"] not in _ADJUSTMENTS:
            raise ValueError(f"adjust_lr_fn {group['adjust_lr_fn']!r} is unknown; use one of {_ADJUSTMENTS}")
        for p in group["params"]:
            if p.dim() != 2:
                raise ValueError(f"Muon: a parameter of shape {tuple(p.shape)} is no matrix; give it to AdamW")

    def _update(self, group: dict[str, Any]) -> None:
        def new_state(p: Tensor) -> dict[str, Any]:
            return {"momentum_buffer": creation.zeros_like(p.detach())}

        for p, grad, state in zip(*self._active(group, new_state), strict=True):
            keep = group["momentum"]
            update = state["momentum_buffer"].lerp_(grad, 1 - keep)
            if group["nesterov"]:
                update = grad.lerp(update, keep)
            update = orthogonalize(update, group["ns_coefficients"], group["ns_steps"], group["eps"])
            rows, columns = p.shape
            if group["adjust_lr_fn"] == "match_rms_adamw":
                ratio = 0.2 * math.sqrt(max(rows, columns))
            else:
                ratio = math.sqrt(max(1, rows / columns))
            rate = at(group["lr"], p)
            p.mul_(1.0 - rate * group["weight_decay"])
            p.sub_(update.to(p.dtype) * (rate * ratio))
