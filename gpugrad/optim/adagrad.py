"""Adagrad (Duchi et al. 2011)."""

from __future__ import annotations

from typing import Any

from gpugrad.ops import creation
from gpugrad.optim.optimizer import Optimizer, at, at_least, check_flags, check_lr
from gpugrad.tensor import Tensor


def adagrad_step(
    params: list[Tensor],
    grads: list[Tensor],
    sums: list[Tensor],
    steps: list[int],
    *,
    lr: Any,
    lr_decay: float,
    weight_decay: float,
    eps: float,
    maximize: bool,
) -> None:
    """One step in place: s += g^2;  p -= lr / (1 + (t - 1) lr_decay) * g / (sqrt(s) + eps)."""
    for p, grad, s, step in zip(params, grads, sums, steps, strict=True):
        g = -grad if maximize else grad
        if weight_decay:
            g = g + p * weight_decay
        s.add_(g * g)
        p.sub_(g / (s.sqrt() + eps) * (at(lr, p) / (1 + (step - 1) * lr_decay)))


class Adagrad(Optimizer):
    """Adagrad; see :func:`adagrad_step` for the formula. Raises ValueError for options out of range."""

    _numbers = ("step",)

    def __init__(
        self,
        params: Any,
        lr: Any = 1e-2,
        lr_decay: float = 0,
        weight_decay: float = 0,
        initial_accumulator_value: float = 0,
        eps: float = 1e-10,
        foreach: bool | None = None,
        *,
        maximize: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
    ) -> None:
        check_flags(foreach, fused, differentiable)
        super().__init__(params, {
            "lr": lr, "lr_decay": lr_decay, "eps": eps, "weight_decay": weight_decay,
            "initial_accumulator_value": initial_accumulator_value, "foreach": foreach, "maximize": maximize,
            "differentiable": differentiable, "fused": fused,
        })  # fmt: skip
        for group in self.param_groups:
            for p in group["params"]:
                self.state[p].update(self._new_state(p, group))

    def _check_group(self, group: dict[str, Any]) -> None:
        check_lr(group["lr"])
        at_least(group["lr_decay"], 0.0, "lr_decay")
        at_least(group["weight_decay"], 0.0, "weight_decay")
        at_least(group["initial_accumulator_value"], 0.0, "initial_accumulator_value")
        at_least(group["eps"], 0.0, "eps")

    def _new_state(self, p: Tensor, group: dict[str, Any]) -> dict[str, Any]:
        return {"step": 0, "sum": creation.full_like(p.detach(), group["initial_accumulator_value"])}

    def _update(self, group: dict[str, Any]) -> None:
        params, grads, states = self._active(group, lambda p: self._new_state(p, group))
        for state in states:
            state["step"] += 1
        adagrad_step(
            params, grads, [s["sum"] for s in states], [s["step"] for s in states], lr=group["lr"],
            lr_decay=group["lr_decay"], weight_decay=group["weight_decay"], eps=group["eps"],
            maximize=group["maximize"])  # fmt: skip
