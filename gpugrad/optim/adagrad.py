"""Adagrad (Duchi et al. 2011)."""

from __future__ import annotations

from typing import Any

from gpugrad.backends.update import Update
from gpugrad.ops import creation, updates
from gpugrad.optim.elementwise import ElementwiseOptimizer, Numbers, decayed
from gpugrad.optim.optimizer import State, at, at_least, check_flags, check_lr
from gpugrad.tensor import Tensor


class Adagrad(ElementwiseOptimizer):
    """s += g^2;  p -= lr / (1 + (t - 1) lr_decay) * g / (sqrt(s) + eps).

    ``foreach``, ``fused`` are accepted and change nothing. Raises ValueError for options out of range."""

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

    def _new_state(self, p: Tensor, group: dict[str, Any]) -> State:
        return {"step": 0, "sum": creation.full_like(p.detach(), group["initial_accumulator_value"])}

    def _plan(self, group: dict[str, Any]) -> tuple[Update, tuple[str, ...]]:
        return updates.adagrad(bool(group["weight_decay"])), ("sum",)

    def _scalars(self, group: dict[str, Any], state: State, p: Tensor | None) -> Numbers:
        rate = at(group["lr"], p) / (1 + (state["step"] - 1) * group["lr_decay"])
        numbers, decay = (1.0, rate, group["eps"]), group["weight_decay"]
        return (decay, *numbers) if decay else numbers

    def _formula(self, group: dict[str, Any], p: Tensor, g: Tensor, state: State, numbers: Numbers) -> None:
        g, (_, rate, eps) = decayed(g, p, numbers, 3)
        state["sum"].add_(g * g)
        p.sub_(g / (state["sum"].sqrt() + eps) * rate)
