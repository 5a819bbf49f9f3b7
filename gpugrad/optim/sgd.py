"""Stochastic gradient descent, with momentum (Polyak 1964, Nesterov 1983)."""

from __future__ import annotations

from typing import Any

from gpugrad.autograd import is_grad_enabled
from gpugrad.ops import updates
from gpugrad.optim.optimizer import Optimizer, at, at_least, check_flags, check_lr
from gpugrad.tensor import Tensor


def sgd_step(
    params: list[Tensor],
    grads: list[Tensor],
    buffers: list[Tensor | None],
    *,
    lr: Any,
    momentum: float,
    dampening: float,
    weight_decay: float,
    nesterov: bool,
    maximize: bool,
) -> list[Tensor | None]:
    """One step in place; returns the momentum buffers (None where momentum is 0).

    g = grad + weight_decay * p;  b = momentum * b + (1 - dampening) * g (the first b is g);
    p -= lr * (g + momentum * b if nesterov else b)."""
    new: list[Tensor | None] = []
    for p, grad, buffer in zip(params, grads, buffers, strict=True):
        g = -grad if maximize else grad
        if not is_grad_enabled() and not isinstance(lr, Tensor) and updates.fusible(p, g):
            new.append(_in_place(p, g, buffer, lr, momentum, dampening, weight_decay, nesterov))
            continue
        if weight_decay:
            g = g + p * weight_decay
        if momentum:
            if buffer is None:
                buffer = g.detach().clone()
            else:
                buffer.mul_(momentum).add_(g * (1 - dampening) if dampening else g)
            g = g + buffer * momentum if nesterov else buffer
        p.sub_(g * at(lr, p))
        new.append(buffer)
    return new


def _in_place(
    p: Tensor, g: Tensor, buffer: Tensor | None, lr: float, momentum: float, dampening: float, weight_decay: float,
    nesterov: bool,
) -> Tensor | None:  # fmt: skip
    """The same step in few passes; returns the momentum buffer."""
    if weight_decay:
        g = updates.add_scaled(g, p, weight_decay)
    if momentum:
        if buffer is None:
            buffer = g.detach().clone()
        else:
            updates.blend_(buffer, g, momentum, 1 - dampening)
        g = updates.add_scaled(g, buffer, momentum) if nesterov else buffer
    updates.add_scaled_(p, g, -lr)
    return buffer


class SGD(Optimizer):
    """Stochastic gradient descent; see :func:`sgd_step` for the formula.

    ``foreach``, ``fused`` are accepted and change nothing. Raises ValueError for options out of range."""

    def __init__(
        self,
        params: Any,
        lr: Any = 1e-3,
        momentum: float = 0,
        dampening: float = 0,
        weight_decay: float = 0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        differentiable: bool = False,
        fused: bool | None = None,
    ) -> None:
        check_flags(foreach, fused, differentiable)
        super().__init__(params, {
            "lr": lr, "momentum": momentum, "dampening": dampening, "weight_decay": weight_decay, "nesterov": nesterov,
            "maximize": maximize, "foreach": foreach, "differentiable": differentiable, "fused": fused,
        })  # fmt: skip

    def _check_group(self, group: dict[str, Any]) -> None:
        check_lr(group["lr"])
        at_least(group["momentum"], 0.0, "momentum")
        at_least(group["weight_decay"], 0.0, "weight_decay")
        if group["nesterov"] and (group["momentum"] <= 0 or group["dampening"] != 0):
            raise ValueError(
                f"SGD: nesterov=True needs momentum > 0 and dampening = 0, got momentum={group['momentum']}, "
                f"dampening={group['dampening']}"
            )

    def _update(self, group: dict[str, Any]) -> None:
        buffers: list[Tensor | None]
        if group["momentum"]:
            params, grads, states = self._active(group, lambda p: {"momentum_buffer": None})
            buffers = [s["momentum_buffer"] for s in states]
        else:  # no state, so that state_dict() has none either
            params = [p for p in group["params"] if p.grad is not None]
            grads, states, buffers = [p.grad for p in params], [], [None] * len(params)
        buffers = sgd_step(
            params, grads, buffers,
            lr=group["lr"], momentum=group["momentum"], dampening=group["dampening"],
            weight_decay=group["weight_decay"], nesterov=group["nesterov"], maximize=group["maximize"])  # fmt: skip
        for state, buffer in zip(states, buffers if states else [], strict=True):
            state["momentum_buffer"] = buffer
