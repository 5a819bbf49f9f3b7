"""Adadelta (Zeiler 2012)."""

from __future__ import annotations

from typing import Any

from gpugrad.backends.update import Update
from gpugrad.ops import creation, updates
from gpugrad.optim.elementwise import ElementwiseOptimizer, Numbers, decayed
from gpugrad.optim.optimizer import State, at, at_least, check_flags, check_lr, new_number
from gpugrad.tensor import Tensor


class Adadelta(ElementwiseOptimizer):
    """Steps scaled by the running sizes of earlier steps and of gradients.

    v = rho v + (1 - rho) g^2;  u = sqrt(a + eps) / sqrt(v + eps) * g;  a = rho a + (1 - rho) u^2;  p -= lr * u.
    ``foreach`` is accepted and changes nothing. Raises ValueError for options out of range."""

    _numbers = ("step",)

    def __init__(
        self,
        params: Any,
        lr: Any = 1.0,
        rho: float = 0.9,
        eps: float = 1e-6,
        weight_decay: float = 0,
        foreach: bool | None = None,
        *,
        capturable: bool = False,
        maximize: bool = False,
        differentiable: bool = False,
    ) -> None:
        check_flags(foreach, None, differentiable)
        super().__init__(params, {
            "lr": lr, "rho": rho, "eps": eps, "weight_decay": weight_decay, "maximize": maximize,
            "capturable": capturable, "foreach": foreach, "differentiable": differentiable,
        })  # fmt: skip

    def _check_group(self, group: dict[str, Any]) -> None:
        check_lr(group["lr"])
        if not 0.0 <= group["rho"] <= 1.0:
            raise ValueError(f"rho must lie in [0, 1], got {group['rho']}")
        at_least(group["eps"], 0.0, "eps")
        at_least(group["weight_decay"], 0.0, "weight_decay")

    def _new_state(self, p: Tensor, group: dict[str, Any]) -> State:
        return {
            "step": new_number(p, group["capturable"]),
            "square_avg": creation.zeros_like(p.detach()),
            "acc_delta": creation.zeros_like(p.detach()),
        }

    def _plan(self, group: dict[str, Any]) -> tuple[Update, tuple[str, ...]]:
        return updates.adadelta(bool(group["weight_decay"])), ("square_avg", "acc_delta")

    def _scalars(self, group: dict[str, Any], state: State, p: Tensor | None) -> Numbers:
        rho, decay = group["rho"], group["weight_decay"]
        numbers = (rho, 1 - rho, group["eps"], -at(group["lr"], p))
        return (decay, *numbers) if decay else numbers

    def _formula(self, group: dict[str, Any], p: Tensor, g: Tensor, state: State, numbers: Numbers) -> None:
        g, (rho, rest, eps, step) = decayed(g, p, numbers, 4)
        v = state["square_avg"].mul_(rho).add_(g * g * rest)
        update = (state["acc_delta"] + eps).sqrt() / (v + eps).sqrt() * g
        state["acc_delta"].mul_(rho).add_(update * update * rest)
        p.add_(update * step)
