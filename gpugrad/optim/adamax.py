"""Adamax (Kingma & Ba 2014, section 7.1)."""

from __future__ import annotations

from typing import Any

from gpugrad.backends.update import Update
from gpugrad.ops import creation, updates
from gpugrad.ops.elementwise import maximum
from gpugrad.optim.adam import bias_correction
from gpugrad.optim.elementwise import ElementwiseOptimizer, Numbers, decayed
from gpugrad.optim.optimizer import State, at, at_least, check_betas, check_flags, check_lr, new_number
from gpugrad.tensor import Tensor


class Adamax(ElementwiseOptimizer):
    """Adam with the infinity norm: u = max(beta2 u, |g| + eps);  p -= lr / (1 - beta1^t) * m / u.

    ``foreach`` is accepted and changes nothing. Raises ValueError for options out of range."""

    _numbers = ("step",)

    def __init__(
        self,
        params: Any,
        lr: Any = 2e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        foreach: bool | None = None,
        *,
        maximize: bool = False,
        differentiable: bool = False,
        capturable: bool = False,
    ) -> None:
        check_flags(foreach, None, differentiable)
        super().__init__(params, {
            "lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "foreach": foreach,
            "maximize": maximize, "differentiable": differentiable, "capturable": capturable,
        })  # fmt: skip

    def _check_group(self, group: dict[str, Any]) -> None:
        check_lr(group["lr"])
        at_least(group["eps"], 0.0, "eps")
        check_betas(group["betas"])
        at_least(group["weight_decay"], 0.0, "weight_decay")

    def _new_state(self, p: Tensor, group: dict[str, Any]) -> State:
        return {
            "step": new_number(p, group["capturable"]),
            "exp_avg": creation.zeros_like(p.detach()),
            "exp_inf": creation.zeros_like(p.detach()),
        }

    def _plan(self, group: dict[str, Any]) -> tuple[Update, tuple[str, ...]]:
        return updates.adamax(bool(group["weight_decay"])), ("exp_avg", "exp_inf")

    def _scalars(self, group: dict[str, Any], state: State, p: Tensor | None) -> Numbers:
        (beta1, beta2), decay = group["betas"], group["weight_decay"]
        rate = at(group["lr"], p) / bias_correction(beta1, state["step"])
        numbers = (beta1, 1.0 - beta1, beta2, group["eps"], rate)
        return (decay, *numbers) if decay else numbers

    def _formula(self, group: dict[str, Any], p: Tensor, g: Tensor, state: State, numbers: Numbers) -> None:
        g, (beta1, take, beta2, eps, rate) = decayed(g, p, numbers, 5)
        m = state["exp_avg"].mul_(beta1).add_(g * take)
        u = state["exp_inf"].copy_(maximum(state["exp_inf"] * beta2, g.abs() + eps))
        p.sub_(m / u * rate)
