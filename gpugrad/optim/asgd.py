"""Averaged stochastic gradient descent (Polyak & Juditsky 1992)."""

from __future__ import annotations

from typing import Any

from gpugrad.ops import creation
from gpugrad.optim.optimizer import Optimizer, at, at_least, check_flags, check_lr, new_number
from gpugrad.tensor import Tensor


class ASGD(Optimizer):
    """Gradient descent that keeps, from step ``t0`` on, the mean of the parameters in ``state[p]["ax"]``.

    p = (1 - lambd eta) p - eta g, where eta = lr / (1 + lambd lr t)^alpha; ax += mu (p - ax), where
    mu = 1 / max(1, t - t0). ``foreach`` is accepted and changes nothing. Raises ValueError for options out of
    range."""

    _numbers = ("step", "eta", "mu")

    def __init__(
        self,
        params: Any,
        lr: Any = 1e-2,
        lambd: float = 1e-4,
        alpha: float = 0.75,
        t0: float = 1e6,
        weight_decay: float = 0,
        foreach: bool | None = None,
        maximize: bool = False,
        differentiable: bool = False,
        capturable: bool = False,
    ) -> None:
        check_flags(foreach, None, differentiable)
        super().__init__(params, {
            "lr": lr, "lambd": lambd, "alpha": alpha, "t0": t0, "weight_decay": weight_decay, "foreach": foreach,
            "maximize": maximize, "differentiable": differentiable, "capturable": capturable,
        })  # fmt: skip

    def _check_group(self, group: dict[str, Any]) -> None:
        check_lr(group["lr"])
        at_least(group["weight_decay"], 0.0, "weight_decay")

    def _update(self, group: dict[str, Any]) -> None:
        def new_state(p: Tensor) -> dict[str, Any]:
            capturable = group["capturable"]
            return {
                "step": new_number(p, capturable),
                "eta": new_number(p, capturable, float(group["lr"])),
                "mu": new_number(p, capturable, 1.0),
                "ax": creation.zeros_like(p.detach()),
            }

        lambd, alpha, t0 = group["lambd"], group["alpha"], group["t0"]
        for p, grad, state in zip(*self._active(group, new_state), strict=True):
            g = -grad if group["maximize"] else grad
            if group["weight_decay"]:
                g = g + p * group["weight_decay"]
            state["step"] += 1
            t, eta, mu, ax = state["step"], state["eta"], state["mu"], state["ax"]
            p.mul_(1.0 - eta * lambd)
            p.sub_(g * eta)
            if isinstance(mu, Tensor) or mu != 1:
                ax.add_((p - ax) * mu)
            else:
                ax.copy_(p)
            rate = at(group["lr"], p)
            state["eta"] = rate / (1.0 + lambd * rate * t) ** alpha
            state["mu"] = 1.0 / ((t - t0).clamp(min=1.0) if isinstance(t, Tensor) else max(1.0, t - t0))
