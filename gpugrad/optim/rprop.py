"""Resilient backpropagation (Riedmiller & Braun 1993)."""

from __future__ import annotations

from typing import Any

from gpugrad.live import live
from gpugrad.ops import creation
from gpugrad.ops.elementwise import where
from gpugrad.optim.optimizer import Optimizer, check_flags, check_lr, new_number
from gpugrad.tensor import Tensor


class Rprop(Optimizer):
    """Every element has a step of its own: times ``etas[1]`` while its gradient keeps its sign, times ``etas[0]``
    (and no move this time) where it changed; within ``step_sizes``. Only signs of gradients count, so it is for
    whole data sets, not for batches. ``foreach`` is accepted and changes nothing. Raises ValueError."""

    _numbers = ("step",)
    traceable = True

    def __init__(
        self,
        params: Any,
        lr: Any = 1e-2,
        etas: tuple[float, float] = (0.5, 1.2),
        step_sizes: tuple[float, float] = (1e-6, 50),
        *,
        capturable: bool = False,
        foreach: bool | None = None,
        maximize: bool = False,
        differentiable: bool = False,
    ) -> None:
        check_flags(foreach, None, differentiable)
        super().__init__(params, {
            "lr": lr, "etas": etas, "step_sizes": step_sizes, "foreach": foreach, "maximize": maximize,
            "differentiable": differentiable, "capturable": capturable,
        })  # fmt: skip

    def _check_group(self, group: dict[str, Any]) -> None:
        check_lr(group["lr"])
        low, high = group["etas"]
        if not 0.0 < low < 1.0 < high:
            raise ValueError(f"etas must be a factor in (0, 1) and one above 1, got {low}, {high}")

    def _update(self, group: dict[str, Any]) -> None:
        def new_state(p: Tensor) -> dict[str, Any]:
            return {
                "step": new_number(p, group["capturable"]),
                "prev": creation.zeros_like(p.detach()),
                "step_size": creation.full_like(p.detach(), float(group["lr"])),
            }

        shrink, grow = group["etas"]
        smallest, largest = group["step_sizes"]
        params, grads, states = self._active(group, new_state)

        def count() -> tuple[float, ...]:
            for state in states:
                state["step"] += 1
            return ()

        if group["capturable"]:  # the counts are tensors
            count()
        else:
            live(count)
        for p, grad, state in zip(params, grads, states, strict=True):
            g = -grad if group["maximize"] else grad
            turned = g * state["prev"]
            size = state["step_size"]
            size.copy_(where(turned > 0, size * grow, where(turned < 0, size * shrink, size)).clamp(smallest, largest))
            g = where(turned < 0, creation.zeros_like(g), g)
            p.sub_(g.sign() * size)
            state["prev"].copy_(g)
