"""Adam (Kingma & Ba 2014), AMSGrad (Reddi et al. 2018), AdamW (Loshchilov & Hutter 2017)."""

from __future__ import annotations

import math
from typing import Any

from gpugrad.backends.update import Update
from gpugrad.ops import creation, updates
from gpugrad.ops.elementwise import maximum
from gpugrad.optim.elementwise import ElementwiseOptimizer, Numbers, check_mixed, decayed
from gpugrad.optim.optimizer import State, at, at_least, check_betas, check_flags, check_lr, new_number
from gpugrad.tensor import Tensor


def bias_correction(beta: float, step: Any) -> Any:
    """1 - beta^step, for a count that is a number or a tensor."""
    if isinstance(step, Tensor):
        return 1.0 - (step * math.log(beta)).exp() if beta > 0 else step.clamp(max=1.0)
    return 1.0 - beta**step


def square_root(x: Any) -> Any:
    """sqrt of a number or a tensor."""
    return x.sqrt() if isinstance(x, Tensor) else math.sqrt(x)


class Adam(ElementwiseOptimizer):
    """m = beta1 m + (1 - beta1) g;  v = beta2 v + (1 - beta2) g^2;
    p -= lr / (1 - beta1^t) * m / (sqrt(v / (1 - beta2^t)) + eps), with v its running maximum under AMSGrad. Weight
    decay adds weight_decay * p to g, or where decoupled scales p by 1 - lr * weight_decay first.

    ``foreach`` and ``fused`` are accepted and change nothing; ``capturable`` keeps the step count on
    the device. ``max_grad_norm``: the step is that of gradients whose norm, of all parameters together, is at most this
    (``clip_grad_norm_``), in the same pass; ``p.grad`` stays as it is, and ``grad_norm`` is the norm it had.
    ``master_weights``: float32 copies of half parameters, in the state, are what is updated, and so are their moments.
    Raises ValueError for options out of range."""

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
        max_grad_norm: float | None = None,
        master_weights: bool = False,
    ) -> None:
        check_flags(foreach, fused, differentiable)
        if foreach and not capturable and any(isinstance(x, Tensor) for x in (lr, *betas)):
            raise ValueError("Adam: with foreach=True and capturable=False, lr and betas must be numbers, not tensors")
        super().__init__(params, {
            "lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "amsgrad": amsgrad,
            "maximize": maximize, "foreach": foreach, "capturable": capturable, "differentiable": differentiable,
            "fused": fused, "decoupled_weight_decay": decoupled_weight_decay,
            **check_mixed(max_grad_norm, master_weights),
        })  # fmt: skip

    def _check_group(self, group: dict[str, Any]) -> None:
        check_lr(group["lr"])
        at_least(group["eps"], 0.0, "eps")
        check_betas(group["betas"])
        at_least(group["weight_decay"], 0.0, "weight_decay")

    def _new_state(self, p: Tensor, group: dict[str, Any]) -> State:
        state = {
            "step": new_number(p, group["capturable"]),
            "exp_avg": creation.zeros_like(p.detach()),
            "exp_avg_sq": creation.zeros_like(p.detach()),
        }
        if group["amsgrad"]:
            state["max_exp_avg_sq"] = creation.zeros_like(p.detach())
        return state

    def _plan(self, group: dict[str, Any]) -> tuple[Update, tuple[str, ...]]:
        amsgrad = group["amsgrad"]
        update = updates.adam(bool(amsgrad), bool(group["weight_decay"]) and not group["decoupled_weight_decay"])
        return update, ("exp_avg", "exp_avg_sq", "max_exp_avg_sq") if amsgrad else ("exp_avg", "exp_avg_sq")

    def _scalars(self, group: dict[str, Any], state: State, p: Tensor | None) -> Numbers:
        lr, decay, step = at(group["lr"], p), group["weight_decay"], state["step"]
        beta1, beta2 = group["betas"] if group["differentiable"] else map(float, group["betas"])
        rate = lr / bias_correction(beta1, step)
        root = square_root(bias_correction(beta2, step))
        numbers = (beta1, 1.0 - beta1, beta2, 1.0 - beta2, 1.0, rate, root, group["eps"])
        if not decay:
            return numbers
        if group["decoupled_weight_decay"]:
            return (*numbers[:4], 1.0 - lr * decay, *numbers[5:])
        return (decay, *numbers)

    def _formula(self, group: dict[str, Any], p: Tensor, g: Tensor, state: State, numbers: Numbers) -> None:
        g, (beta1, take, beta2, rest, shrink, rate, root, eps) = decayed(g, p, numbers, 8)
        m, v = state["exp_avg"], state["exp_avg_sq"]
        if group["weight_decay"] and group["decoupled_weight_decay"]:
            p.mul_(shrink)
        m.mul_(beta1).add_(g * take)
        v.mul_(beta2).add_(g * g * rest)
        if group["amsgrad"]:
            v = state["max_exp_avg_sq"].copy_(maximum(state["max_exp_avg_sq"], v))
        p.sub_(m / (v.sqrt() / root + eps) * rate)


class AdamW(Adam):
    """Adam with decoupled weight decay; see :class:`Adam`."""

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
        max_grad_norm: float | None = None,
        master_weights: bool = False,
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
            max_grad_norm=max_grad_norm,
            master_weights=master_weights,
        )
