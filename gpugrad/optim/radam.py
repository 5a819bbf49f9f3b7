"""RAdam (Liu et al. 2019, "On the Variance of the Adaptive Learning Rate and Beyond")."""

from __future__ import annotations

from typing import Any

from gpugrad.ops import creation
from gpugrad.ops.elementwise import where
from gpugrad.optim.adam import bias_correction, square_root
from gpugrad.optim.optimizer import Optimizer, at, at_least, check_betas, check_flags, check_lr, new_number
from gpugrad.tensor import Tensor


class RAdam(Optimizer):
    """Adam whose adaptive rate is rectified, and left out for the first steps.

    With R = 2 / (1 - beta2) - 1 and r = R - 2 t beta2^t / (1 - beta2^t): where r > 5, Adam's step (eps added to
    sqrt(v) itself) times sqrt((r - 4)(r - 2) R / ((R - 4)(R - 2) r)); else p -= lr * m / (1 - beta1^t).
    ``foreach`` is accepted and changes nothing. Raises ValueError for options out of range."""

    _numbers = ("step",)

    def __init__(
        self,
        params: Any,
        lr: Any = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        decoupled_weight_decay: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
    ) -> None:
        check_flags(foreach, None, differentiable)
        super().__init__(params, {
            "lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "maximize": maximize,
            "foreach": foreach, "capturable": capturable, "decoupled_weight_decay": decoupled_weight_decay,
            "differentiable": differentiable,
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
                "exp_avg_sq": creation.zeros_like(p.detach()),
            }

        beta1, beta2 = group["betas"]
        for p, grad, state in zip(*self._active(group, new_state), strict=True):
            g = -grad if group["maximize"] else grad
            rate = at(group["lr"], p)
            if group["weight_decay"]:
                if group["decoupled_weight_decay"]:
                    p.mul_(1.0 - rate * group["weight_decay"])
                else:
                    g = g + p * group["weight_decay"]
            state["step"] += 1
            m = state["exp_avg"].mul_(beta1).add_(g * (1.0 - beta1))
            v = state["exp_avg_sq"].mul_(beta2).add_(g * g * (1.0 - beta2))
            p.sub_(m * _scale(v, state["step"], beta2, group["eps"]) * (rate / bias_correction(beta1, state["step"])))


def _scale(v: Tensor, step: Any, beta2: float, eps: float) -> Any:
    """What the mean of the gradients is multiplied by: the rectified adaptive rate, or 1 in the first steps."""
    longest = 2.0 / (1.0 - beta2) - 1.0
    correction = bias_correction(beta2, step)
    length = longest - 2.0 * step * (beta2**step if not isinstance(step, Tensor) else 1.0 - correction) / correction
    early = not isinstance(step, Tensor) and length <= 5.0
    if early:
        return 1.0
    if isinstance(step, Tensor):  # also evaluated in the first steps, where it must not be the root of a negative
        length = length.clamp(min=5.0)
    rectified = (length - 4.0) * (length - 2.0) * longest / ((longest - 4.0) * (longest - 2.0) * length)
    adaptive = square_root(correction) / (v.sqrt() + eps) * square_root(rectified)
    return where(length > 5.0, adaptive, 1.0) if isinstance(step, Tensor) else adaptive
