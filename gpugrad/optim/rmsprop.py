"""RMSprop (Hinton 2012, lecture 6e of his neural networks course)."""

from __future__ import annotations

from typing import Any

from gpugrad.backends.update import Update
from gpugrad.ops import creation, updates
from gpugrad.optim.elementwise import ElementwiseOptimizer, Numbers, decayed
from gpugrad.optim.optimizer import State, at, at_least, check_flags, check_lr, new_number
from gpugrad.tensor import Tensor


class RMSprop(ElementwiseOptimizer):
    """v = alpha v + (1 - alpha) g^2, less the square of the running mean of g where ``centered``;
    u = g / (sqrt(v) + eps);  p -= lr * u, or with momentum b = momentum b + u, p -= lr * b.

    ``foreach`` is accepted and changes nothing. Raises ValueError for options out of range."""

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

    def _new_state(self, p: Tensor, group: dict[str, Any]) -> State:
        state = {"step": new_number(p, group["capturable"])}
        state |= {name: creation.zeros_like(p.detach()) for name in _state_names(group)}
        return state

    def _plan(self, group: dict[str, Any]) -> tuple[Update, tuple[str, ...]]:
        update = updates.rmsprop(group["momentum"] > 0, bool(group["centered"]), bool(group["weight_decay"]))
        return update, _state_names(group)

    def _scalars(self, group: dict[str, Any], state: State, p: Tensor | None) -> Numbers:
        momentum, decay, alpha = group["momentum"], group["weight_decay"], group["alpha"]
        numbers = (alpha, 1 - alpha, group["eps"], *((momentum, 1.0) if momentum > 0 else ()), -at(group["lr"], p))
        return (decay, *numbers) if decay else numbers

    def _formula(self, group: dict[str, Any], p: Tensor, g: Tensor, state: State, numbers: Numbers) -> None:
        momentum = group["momentum"] > 0
        g, numbers = decayed(g, p, numbers, 6 if momentum else 4)
        alpha, rest, eps, *_, step = numbers
        spread = state["square_avg"].mul_(alpha).add_(g * g * rest)
        if group["centered"]:
            mean = state["grad_avg"].mul_(alpha).add_(g * rest)
            spread = spread - mean * mean
        update = g / (spread.sqrt() + eps)
        if momentum:
            update = state["momentum_buffer"].mul_(numbers[3]).add_(update)
        p.add_(update * step)


def _state_names(group: dict[str, Any]) -> tuple[str, ...]:
    """The state that the step takes, in its order."""
    momentum, centered = group["momentum"] > 0, group["centered"]
    return ("square_avg", *(("grad_avg",) if centered else ()), *(("momentum_buffer",) if momentum else ()))
