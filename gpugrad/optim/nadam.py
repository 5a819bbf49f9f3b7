"""NAdam (Dozat 2016, "Incorporating Nesterov Momentum into Adam")."""

from __future__ import annotations

from typing import Any

from gpugrad.ops import creation
from gpugrad.optim.adam import bias_correction, square_root
from gpugrad.optim.optimizer import Optimizer, at, at_least, check_betas, check_flags, check_lr, new_number
from gpugrad.tensor import Tensor


class NAdam(Optimizer):
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

    def _update(self, group: dict[str, Any]) -> None:
        capturable = group["capturable"]

        def new_state(p: Tensor) -> dict[str, Any]:
            return {
                "step": new_number(p, capturable),
                "mu_product": new_number(p, capturable, 1.0),
                "exp_avg": creation.zeros_like(p.detach()),
                "exp_avg_sq": creation.zeros_like(p.detach()),
            }

        beta1, beta2 = group["betas"]
        decay = group["momentum_decay"]
        for p, grad, state in zip(*self._active(group, new_state), strict=True):
            g = -grad if group["maximize"] else grad
            rate = at(group["lr"], p)
            if group["weight_decay"]:
                if group["decoupled_weight_decay"]:
                    p.mul_(1.0 - rate * group["weight_decay"])
                else:
                    g = g + p * group["weight_decay"]
            state["step"] += 1
            t = state["step"]
            mu = beta1 * (1.0 - 0.5 * 0.96 ** (t * decay))
            mu_next = beta1 * (1.0 - 0.5 * 0.96 ** ((t + 1) * decay))
            state["mu_product"] *= mu
            product = state["mu_product"]
            m = state["exp_avg"].mul_(beta1).add_(g * (1.0 - beta1))
            v = state["exp_avg_sq"].mul_(beta2).add_(g * g * (1.0 - beta2))
            denominator = v.sqrt() / square_root(bias_correction(beta2, t)) + group["eps"]
            p.sub_(g / denominator * (rate * (1.0 - mu) / (1.0 - product)))
            p.sub_(m / denominator * (rate * mu_next / (1.0 - product * mu_next)))
