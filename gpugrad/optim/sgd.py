"""Stochastic gradient descent, with momentum (Polyak 1964, Nesterov 1983)."""

from __future__ import annotations

from typing import Any

from gpugrad.autograd import is_grad_enabled
from gpugrad.ops import creation, updates
from gpugrad.optim.elementwise import ElementwiseOptimizer, Numbers, check_mixed, decayed, has_tensors
from gpugrad.optim.optimizer import State, at, at_least, check_flags, check_lr
from gpugrad.tensor import Tensor


class SGD(ElementwiseOptimizer):
    """g = grad + weight_decay * p;  b = momentum * b + (1 - dampening) * g (the first b is g);
    p -= lr * (g + momentum * b if nesterov else b), or without momentum p -= lr * g.

    ``foreach``, ``fused`` are accepted and change nothing; ``max_grad_norm`` and ``master_weights`` as for
    :class:`~gpugrad.optim.Adam`. Raises ValueError for options out of range."""

    traceable = True

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
        max_grad_norm: float | None = None,
        master_weights: bool = False,
    ) -> None:
        check_flags(foreach, fused, differentiable)
        super().__init__(params, {
            "lr": lr, "momentum": momentum, "dampening": dampening, "weight_decay": weight_decay, "nesterov": nesterov,
            "maximize": maximize, "foreach": foreach, "differentiable": differentiable, "fused": fused,
            **check_mixed(max_grad_norm, master_weights),
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
        momentum = bool(group["momentum"])
        if momentum or group.get("master_weights"):
            params, grads, states = self._active(group, lambda p: {"momentum_buffer": None} if momentum else {})
        else:  # no state, so that state_dict() has none either
            params = [p for p in group["params"] if p._grad is not None]
            grads, states = [p._grad for p in params], [{}] * len(params)
        if not params:
            return
        by_formula = is_grad_enabled() or has_tensors(group)
        grads, clip = self._gradients(group, grads, by_formula)
        if by_formula:
            for p, g, state in zip(params, grads, states, strict=True):
                self._formula(group, p, g, state, self._scalars(group, state, p))
        else:
            self._fused(group, params, grads, states, clip)
        self._round_masters(group)

    def _fused(self, group: dict[str, Any], params: Any, grads: Any, states: Any, clip: Tensor | None) -> None:
        """The step of numbers that are no tensors."""
        momentum = bool(group["momentum"])
        update = updates.sgd(momentum, bool(momentum and group["nesterov"]), bool(group["weight_decay"]))
        if not momentum:
            self._step_parts(group, update, [params, grads], states, clip)
            return
        # The first steps of parameters are done apart from the others: their buffers are 0 and become the gradient.
        fresh = [s["momentum_buffer"] is None for s in states]
        for first in sorted(set(fresh)):
            members = [i for i, f in enumerate(fresh) if f is first]
            chosen = [states[i] for i in members]
            if first:
                for i in members:
                    states[i]["momentum_buffer"] = creation.zeros_like(params[i].detach())
                chosen = [{**s, "step": 0} for s in chosen]
            columns = [
                [params[i] for i in members],
                [grads[i] for i in members],
                [s["momentum_buffer"] for s in chosen],
            ]
            self._step_parts(group, update, columns, chosen, clip)

    def _advance(self, group: dict[str, Any], state: State) -> None:
        if "step" in state:  # counted from the first step on, while that is compiled
            state["step"] += 1

    def _key(self, state: State) -> Any:
        return None

    def _scalars(self, group: dict[str, Any], state: State, p: Tensor | None) -> Numbers:
        momentum, decay, step = group["momentum"], group["weight_decay"], -at(group["lr"], p)
        numbers = (decay,) if decay else ()
        if not momentum:
            return (*numbers, step)
        numbers += (0.0, 1.0) if state.get("step") == 1 else (momentum, 1 - group["dampening"])
        return (*numbers, momentum, step) if group["nesterov"] else (*numbers, step)

    def _formula(self, group: dict[str, Any], p: Tensor, g: Tensor, state: State, numbers: Numbers) -> None:
        momentum, nesterov = bool(group["momentum"]), bool(group["nesterov"])
        g, numbers = decayed(g, p, numbers, 1 + 2 * momentum + (momentum and nesterov))
        if momentum:
            keep, take = numbers[:2]
            if state["momentum_buffer"] is None:
                state["momentum_buffer"] = g.detach().clone()
            else:
                state["momentum_buffer"].mul_(keep).add_(g * take if take != 1 else g)
            g = g + state["momentum_buffer"] * numbers[2] if nesterov else state["momentum_buffer"]
        p.add_(g * numbers[-1])
