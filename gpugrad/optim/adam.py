"""Adam (Kingma & Ba 2014), AMSGrad (Reddi et al. 2018), AdamW (Loshchilov & Hutter 2017)."""

from __future__ import annotations

import math
from typing import Any

from gpugrad.autograd import is_grad_enabled
from gpugrad.ops import creation, updates
from gpugrad.ops.elementwise import maximum
from gpugrad.optim.optimizer import (
    Optimizer,
    at,
    at_least,
    check_betas,
    check_flags,
    check_lr,
    new_number,
)
from gpugrad.tensor import Tensor


def bias_correction(beta: float, step: Any) -> Any:
    """1 - beta^step, for a count that is a number or a tensor."""
    if isinstance(step, Tensor):
        return 1.0 - (step * math.log(beta)).exp() if beta > 0 else step.clamp(max=1.0)
    return 1.0 - beta**step


def square_root(x: Any) -> Any:
    """sqrt of a number or a tensor."""
    return x.sqrt() if isinstance(x, Tensor) else math.sqrt(x)


def _plain(*numbers: Any) -> bool:
    """Whether all are Python numbers, and nothing is to be differentiated through the step."""
    return not is_grad_enabled() and not any(isinstance(x, Tensor) for x in numbers)


def adam_step(
    params: list[Tensor],
    grads: list[Tensor],
    exp_avgs: list[Tensor],
    exp_avg_sqs: list[Tensor],
    max_exp_avg_sqs: list[Tensor],
    steps: list[Any],
    *,
    lr: Any,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    decoupled: bool,
    amsgrad: bool,
    maximize: bool,
) -> None:
    """One step in place. ``steps`` count this step too (numbers, or 0-d tensors on the device).

    m = beta1 m + (1 - beta1) g;  v = beta2 v + (1 - beta2) g^2;
    p -= lr / (1 - beta1^t) * m / (sqrt(v / (1 - beta2^t)) + eps), with v its running maximum under
    AMSGrad. Weight decay adds weight_decay * p to g, or where ``decoupled`` scales p by
    1 - lr * weight_decay first."""
    for i, (p, grad, m, v, step) in enumerate(zip(params, grads, exp_avgs, exp_avg_sqs, steps, strict=True)):
        g = -grad if maximize else grad
        if not amsgrad and _plain(lr, step, beta1, beta2) and updates.fusible(p, g, m, v):
            if weight_decay and not decoupled:
                g = updates.add_scaled(g, p, weight_decay)
            updates.adam_(
                p, g, m, v, beta1=beta1, beta2=beta2, eps=eps,
                decay=1.0 - lr * weight_decay if decoupled else 1.0,
                rate=lr / bias_correction(beta1, step), root=math.sqrt(bias_correction(beta2, step)))  # fmt: skip
            continue
        rate = at(lr, p)
        if weight_decay:
            if decoupled:
                p.mul_(1.0 - rate * weight_decay)
            else:
                g = g + p * weight_decay
        m.mul_(beta1).add_(g * (1.0 - beta1))
        v.mul_(beta2).add_(g * g * (1.0 - beta2))
        if amsgrad:
            v = max_exp_avg_sqs[i].copy_(maximum(max_exp_avg_sqs[i], v))
        denominator = v.sqrt() / square_root(bias_correction(beta2, step)) + eps
        p.sub_(m / denominator * (rate / bias_correction(beta1, step)))


class Adam(Optimizer):
    """Adam; see :func:`adam_step` for the formula.

    ``foreach`` and ``fused`` are accepted and change nothing; ``capturable`` keeps the step count on
    the device. Raises ValueError for options out of range."""

    _numbers = ("step",)

    def __init__(
        self,
        params: Any,
        lr: Any = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        amsgrad: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        decoupled_weight_decay: bool = False,
    ) -> None:
        check_flags(foreach, fused, differentiable)
        if foreach and not capturable and any(isinstance(x, Tensor) for x in (lr, *betas)):
            raise ValueError("Adam: with foreach=True and capturable=False, lr and betas must be numbers, not tensors")
        super().__init__(params, {
            "lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "amsgrad": amsgrad,
            "maximize": maximize, "foreach": foreach, "capturable": capturable, "differentiable": differentiable,
            "fused": fused, "decoupled_weight_decay": decoupled_weight_decay,
        })  # fmt: skip

    def _check_group(self, group: dict[str, Any]) -> None:
        check_lr(group["lr"])
        at_least(group["eps"], 0.0, "eps")
        check_betas(group["betas"])
        at_least(group["weight_decay"], 0.0, "weight_decay")

    def _update(self, group: dict[str, Any]) -> None:
        amsgrad = group["amsgrad"]

        def new_state(p: Tensor) -> dict[str, Any]:
            state = {
                "step": new_number(p, group["capturable"]),
                "exp_avg": creation.zeros_like(p.detach()),
                "exp_avg_sq": creation.zeros_like(p.detach()),
            }
            if amsgrad:
                state["max_exp_avg_sq"] = creation.zeros_like(p.detach())
            return state

        params, grads, states = self._active(group, new_state)
        for state in states:
            state["step"] += 1
        beta1, beta2 = group["betas"] if group["differentiable"] else map(float, group["betas"])
        adam_step(
            params, grads, [s["exp_avg"] for s in states], [s["exp_avg_sq"] for s in states],
            [s["max_exp_avg_sq"] for s in states] if amsgrad else [], [s["step"] for s in states],
            lr=group["lr"], beta1=beta1, beta2=beta2, eps=group["eps"], weight_decay=group["weight_decay"],
            decoupled=group["decoupled_weight_decay"], amsgrad=amsgrad, maximize=group["maximize"])  # fmt: skip


class AdamW(Adam):
    """Adam with decoupled weight decay; see :func:`adam_step`."""

    def __init__(
        self,
        params: Any,
        lr: Any = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
    ) -> None:
        super().__init__(
            params,
            lr,
            betas,
            eps,
            weight_decay,
            amsgrad,
            foreach=foreach,
            maximize=maximize,
            capturable=capturable,
            differentiable=differentiable,
            fused=fused,
            decoupled_weight_decay=True,
        )
