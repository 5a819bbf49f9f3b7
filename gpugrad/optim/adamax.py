"""Adamax (Kingma & Ba 2014, section 7.1)."""

from __future__ import annotations

from typing import Any

from gpugrad.ops import creation
from gpugrad.ops.elementwise import maximum
from gpugrad.optim.adam import bias_correction
from gpugrad.optim.optimizer import Optimizer, at, at_least, check_betas, check_flags, check_lr, new_number
from gpugrad.tensor import Tensor


class Adamax(Optimizer):
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

    def _update(self, group: dict[str, Any]) -> None:
        def new_state(p: Tensor) -> dict[str, Any]:
            return {
                "step": new_number(p, group["capturable"]),
                "exp_avg": creation.zeros_like(p.detach()),
                "exp_inf": creation.zeros_like(p.detach()),
            }

        beta1, beta2 = group["betas"]
        for p, grad, state in zip(*self._active(group, new_state), strict=True):
            g = -grad if group["maximize"] else grad
            if group["weight_decay"]:
                g = g + p * group["weight_decay"]
            state["step"] += 1
            m = state["exp_avg"].mul_(beta1).add_(g * (1.0 - beta1))
            u = state["exp_inf"].copy_(maximum(state["exp_inf"] * beta2, g.abs() + group["eps"]))
            p.sub_(m / u * (at(group["lr"], p) / bias_correction(beta1, state["step"])))
