"""NAdam (Dozat 2016, "Incorporating Nesterov Momentum into Adam")."""

from __future__ import annotations

from typing import Any

from gpugrad.backends.update import Update
from gpugrad.ops import creation, updates
from gpugrad.optim.adam import bias_correction, square_root
from gpugrad.optim.elementwise import ElementwiseOptimizer, Numbers, decayed
from gpugrad.optim.optimizer import State, at, at_least, check_betas, check_flags, check_lr, new_number
from gpugrad.tensor import Tensor


class NAdam(ElementwiseOptimizer):
    """Adam with Nesterov momentum.

    With mu(t) = beta1 (1 - 0.96^(t * momentum_decay) / 2), M the product of mu(1) ... mu(t), and Adam's m, v:
    p -= lr ((1 - mu(t)) / (1 - M) * g + mu(t + 1) / (1 - M mu(t + 1)) * m) / (sqrt(v / (1 - beta2^t)) + eps).
    ``foreach`` is accepted and changes nothing. Raises ValueError for options out of range."""

    _numbers = ("step", "mu_product")

    def __init__(
        self,
        params: Any,
        lr: Any = 2e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        momentum_decay: float = 4e-3,
        decoupled_weight_decay: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
    ) -> None:
        check_flags(foreach, None, differentiable)
        super().__init__(params, {
            "lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "momentum_decay": momentum_decay,
            "decoupled_weight_decay": decoupled_weight_decay, "maximize": maximize, "foreach": foreach,
            "capturable": capturable, "differentiable": differentiable,
        })  # fmt: skip

    def _check_group(self, group: dict[str, Any]) -> None:
        check_lr(group["lr"])
        at_least(group["eps"], 0.0, "eps")
        check_betas(group["betas"])
        at_least(group["weight_decay"], 0.0, "weight_decay")
        at_least(group["momentum_decay"], 0.0, "momentum_decay")

    def _new_state(self, p: Tensor, group: dict[str, Any]) -> State:
        return {
            "step": new_number(p, group["capturable"]),
            "mu_product": new_number(p, group["capturable"], 1.0),
            "exp_avg": creation.zeros_like(p.detach()),
            "exp_avg_sq": creation.zeros_like(p.detach()),
        }

    def _plan(self, group: dict[str, Any]) -> tuple[Update, tuple[str, ...]]:
        decay = bool(group["weight_decay"]) and not group["decoupled_weight_decay"]
        return updates.nadam(decay), ("exp_avg", "exp_avg_sq")

    def _advance(self, group: dict[str, Any], state: State) -> None:
        state["step"] += 1
        state["mu_product"] *= _mu(group, state["step"])

    def _key(self, state: State) -> Any:
        return state["step"], state["mu_product"]

    def _scalars(self, group: dict[str, Any], state: State, p: Tensor | None) -> Numbers:
        lr, decay, (beta1, beta2) = at(group["lr"], p), group["weight_decay"], group["betas"]
        step, product = state["step"], state["mu_product"]
        mu_next = _mu(group, step + 1)
        root = square_root(bias_correction(beta2, step))
        numbers = (beta1, 1.0 - beta1, beta2, 1.0 - beta2, lr * mu_next / (1.0 - product * mu_next),
                   lr * (1.0 - _mu(group, step)) / (1.0 - product), 1.0, 1.0, root, group["eps"])  # fmt: skip
        if not decay:
            return numbers
        if group["decoupled_weight_decay"]:
            return (*numbers[:6], 1.0 - lr * decay, *numbers[7:])
        return (decay, *numbers)

    def _formula(self, group: dict[str, Any], p: Tensor, g: Tensor, state: State, numbers: Numbers) -> None:
        g, (beta1, take, beta2, rest, coming, now, shrink, _, root, eps) = decayed(g, p, numbers, 10)
        if group["weight_decay"] and group["decoupled_weight_decay"]:
            p.mul_(shrink)
        m = state["exp_avg"].mul_(beta1).add_(g * take)
        v = state["exp_avg_sq"].mul_(beta2).add_(g * g * rest)
        p.sub_((m * coming + g * now) / (v.sqrt() / root + eps))


def _mu(group: dict[str, Any], step: Any) -> Any:
    """Nesterov's momentum at ``step``, a number or a tensor."""
    return group["betas"][0] * (1.0 - 0.5 * 0.96 ** (step * group["momentum_decay"]))
