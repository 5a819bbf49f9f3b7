"""RMSprop (Hinton 2012, lecture 6e of his neural networks course)."""

from __future__ import annotations

from typing import Any

from gpugrad.ops import creation
from gpugrad.optim.optimizer import Optimizer, at, at_least, check_flags, check_lr, new_number
from gpugrad.tensor import Tensor


def rmsprop_step(
    params: list[Tensor],
    grads: list[Tensor],
    square_avgs: list[Tensor],
    grad_avgs: list[Tensor],
    buffers: list[Tensor],
    *,
    lr: Any,
    alpha: float,
    eps: float,
    weight_decay: float,
    momentum: float,
    centered: bool,
    maximize: bool,
) -> None:
    """One step in place.

    v = alpha v + (1 - alpha) g^2, less the square of the running mean of g where ``centered``;
    u = g / (sqrt(v) + eps);  p -= lr * u, or with momentum b = momentum b + u, p -= lr * b."""
    for i, (p, grad, v) in enumerate(zip(params, grads, square_avgs, strict=True)):
        g = -grad if maximize else grad
        if weight_decay:
            g = g + p * weight_decay
        v.mul_(alpha).add_(g * g * (1 - alpha))
        spread = v
        if centered:
            mean = grad_avgs[i].mul_(alpha).add_(g * (1 - alpha))
            spread = v - mean * mean
        update = g / (spread.sqrt() + eps)
        if momentum > 0:
            update = buffers[i].mul_(momentum).add_(update)
        p.sub_(update * at(lr, p))


class RMSprop(Optimizer):
    """RMSprop; see :func:`rmsprop_step` for the formula. Raises ValueError for options out of range."""

    _numbers = ("step",)

    def __init__(
        self,
        params: Any,
        lr: Any = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0,
        momentum: float = 0,
        centered: bool = False,
        capturable: bool = False,
        foreach: bool | None = None,
        maximize: bool = False,
        differentiable: bool = False,
    ) -> None:
        check_flags(foreach, None, differentiable)
        super().__init__(params, {
            "lr": lr, "momentum": momentum, "alpha": alpha, "eps": eps, "centered": centered,
            "weight_decay": weight_decay, "capturable": capturable, "foreach": foreach, "maximize": maximize,
            "differentiable": differentiable,
        })  # fmt: skip

    def _check_group(self, group: dict[str, Any]) -> None:
        check_lr(group["lr"])
        at_least(group["eps"], 0.0, "eps")
        at_least(group["momentum"], 0.0, "momentum")
        at_least(group["weight_decay"], 0.0, "weight_decay")
        at_least(group["alpha"], 0.0, "alpha")

    def _update(self, group: dict[str, Any]) -> None:
        def new_state(p: Tensor) -> dict[str, Any]:
            state = {"step": new_number(p, group["capturable"]), "square_avg": creation.zeros_like(p.detach())}
            if group["momentum"] > 0:
                state["momentum_buffer"] = creation.zeros_like(p.detach())
            if group["centered"]:
                state["grad_avg"] = creation.zeros_like(p.detach())
            return state

        params, grads, states = self._active(group, new_state)
        for state in states:
            state["step"] += 1
        rmsprop_step(
            params, grads, [s["square_avg"] for s in states],
            [s["grad_avg"] for s in states] if group["centered"] else [],
            [s["momentum_buffer"] for s in states] if group["momentum"] > 0 else [],
            lr=group["lr"], alpha=group["alpha"], eps=group["eps"], weight_decay=group["weight_decay"],
            momentum=group["momentum"], centered=group["centered"], maximize=group["maximize"])  # fmt: skip
