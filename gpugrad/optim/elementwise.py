"""Optimizers whose step treats every element alike: done in one pass where a backend offers it.

Such an optimizer names the state its step works on and the numbers it takes; how the step is computed is an
:class:`~gpugrad.backends.update.Update` in ``gpugrad/ops/updates.py``, and once more a formula of tensor operations,
for half types and for options that are tensors.

Two options are the same for all of them. ``max_grad_norm``: the step is that of gradients which ``clip_grad_norm_``
made no longer than this; the factor is a number on the device that the step's own pass multiplies by, so gradients
are read
once for their norm and once for the step, and not written. ``master_weights``: parameters of half types have a float32
copy in the state, which the step changes, and are set to it rounded (Micikevicius et al., "Mixed precision training",
2018).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from gpugrad import dtypes
from gpugrad.autograd import is_grad_enabled, no_grad
from gpugrad.backends.update import Update
from gpugrad.live import live
from gpugrad.ops import joining, updates
from gpugrad.optim.optimizer import Optimizer, State, at_least
from gpugrad.tensor import Tensor

Numbers = tuple[Any, ...]
Columns = list[list[Any]]


class ElementwiseOptimizer(Optimizer):
    """What the step is, is said by :meth:`_plan`, :meth:`_scalars` and :meth:`_formula`; the state by
    :meth:`_new_state`.

    Whatever changes from step to step is among the numbers, which :func:`gpugrad.live.live` computes, so that a
    compiled step computes them anew."""

    traceable = True
    #: with ``max_grad_norm``: the norm that the gradients had at the last step, a tensor without dimensions
    grad_norm: Tensor | None = None
    #: ``max_grad_norm`` -> what this step's gradients are multiplied by
    _factors: dict[float, Tensor] | None = None

    def _new_state(self, p: Tensor, group: dict[str, Any]) -> State:
        """The state of a parameter before its first step."""
        raise NotImplementedError

    def _plan(self, group: dict[str, Any]) -> tuple[Update, tuple[str, ...]]:
        """The step, and the names of the state that it takes after parameter and gradient."""
        raise NotImplementedError

    def _advance(self, group: dict[str, Any], state: State) -> None:
        """Count one step."""
        state["step"] += 1

    def _key(self, state: State) -> Any:
        """What decides about a parameter's numbers besides the options."""
        return state["step"]

    def _scalars(self, group: dict[str, Any], state: State, p: Tensor | None) -> Numbers:
        """The numbers of the step that ``state`` was advanced to, in the order of the plan. Where options or counts are
        tensors (then ``p`` is the parameter) they may be tensors."""
        raise NotImplementedError

    def _formula(self, group: dict[str, Any], p: Tensor, g: Tensor, state: State, numbers: Numbers) -> None:
        """The step of one parameter by tensor operations."""
        raise NotImplementedError

    def _prepare(self) -> None:
        """The factors by which gradients are clipped, those of all groups with one limit together."""
        limits: set[float] = {
            group["max_grad_norm"] for group in self.param_groups if group.get("max_grad_norm") is not None
        }
        self._factors = None
        for limit in sorted(limits):
            own = [group for group in self.param_groups if group.get("max_grad_norm") == limit]
            grads = [p._grad for group in own for p in group["params"] if p._grad is not None]
            if not grads:
                continue
            with no_grad():
                total = total_norm(grads)
                if self.grad_norm is None or self.grad_norm._backend is not total._backend:
                    self.grad_norm = total.clone()
                else:  # in place, so that a compiled step can do it
                    self.grad_norm.copy_(total)
                self._factors = self._factors or {}
                self._factors[limit] = (limit / (total + 1e-6)).clamp(max=1.0)

    def _clip(self, group: dict[str, Any]) -> Tensor | None:
        """What the gradients of ``group`` are to be multiplied by."""
        limit = group.get("max_grad_norm")
        return None if self._factors is None or limit is None else self._factors.get(limit)

    def _gradients(self, group: dict[str, Any], grads: list[Any], by_formula: bool) -> tuple[list[Any], Any]:
        """The gradients as the step takes them, and what it still has to multiply them by, or None."""
        clip = self._clip(group)
        if group["maximize"]:
            grads = [-g for g in grads]
        if clip is not None and (by_formula or not updates.takes(grads, clip)):
            grads = [g * clip.to(device=g.device, dtype=g.dtype) for g in grads]
            clip = None
        return grads, clip

    def _update(self, group: dict[str, Any]) -> None:
        params, grads, states = self._active(group, lambda p: self._new_state(p, group))
        if not params:
            return
        by_formula = is_grad_enabled() or has_tensors(group)
        grads, clip = self._gradients(group, grads, by_formula)
        if by_formula:
            for p, g, state in zip(params, grads, states, strict=True):
                self._advance(group, state)
                self._formula(group, p, g, state, self._scalars(group, state, p))
        else:
            update, names = self._plan(group)
            columns = [params, grads, *[[s[name] for s in states] for name in names]]
            self._step_parts(group, update, columns, states, clip)
        self._round_masters(group)

    # -- float32 copies of half parameters -----------------------------------------------------------
    def _active(self, group: dict[str, Any], new_state: Callable[[Tensor], State]) -> tuple[list[Any], ...]:
        """With ``master_weights``, float32 copies in place of parameters of half types, and gradients in float32."""
        if not group.get("master_weights"):
            return super()._active(group, new_state)

        def with_master(p: Tensor) -> State:
            if p.dtype.itemsize >= 4:
                return new_state(p)
            master = p.detach().to(dtypes.float32)
            return {"master": master, **new_state(master)}

        params, grads, states = super()._active(group, with_master)
        grads = [g.to(dtypes.float32) if "master" in s else g for g, s in zip(grads, states, strict=True)]
        return [s.get("master", p) for p, s in zip(params, states, strict=True)], grads, states

    def _round_masters(self, group: dict[str, Any]) -> None:
        """Set half parameters to their float32 copies, which a step has changed."""
        if group.get("master_weights"):
            for p in group["params"]:
                if p._grad is not None and "master" in self.state[p]:
                    p.copy_(self.state[p]["master"])

    def _loaded(self, key: str, value: Any, p: Tensor) -> Any:
        half = isinstance(value, Tensor) and value.is_floating_point() and p.dtype.itemsize < 4 and key != "step"
        if half and key not in self._numbers and self._keeps_master(p):
            return value.detach().to(device=p.device, dtype=dtypes.float32).clone()
        return super()._loaded(key, value, p)

    def _keeps_master(self, p: Tensor) -> bool:
        return any(group.get("master_weights") and any(q is p for q in group["params"]) for group in self.param_groups)

    def _step_parts(
        self,
        group: dict[str, Any],
        update: Update,
        columns: Columns,
        states: list[State],
        clip: Tensor | None = None,
    ) -> None:
        """The step of parameters whose numbers may differ: together as far as they are the same."""
        key = self._key(states[0])
        fused, more = (update, ()) if clip is None else (updates.clipped(update), (clip._array,))
        if all(self._key(s) == key for s in states) and updates.fusible(columns):
            updates.run(fused, columns, (*live(self._counting(group, states)), *more))
            return
        if clip is not None:
            columns = [columns[0], [g * clip for g in columns[1]], *columns[2:]]
        parts: dict[Any, list[int]] = {}
        for i, state in enumerate(states):
            array = columns[0][i]._array
            place = (id(columns[0][i]._backend), array.dtype) if updates.fusible([[c[i]] for c in columns]) else None
            parts.setdefault((self._key(state), place), []).append(i)
        for (_, place), members in parts.items():
            chosen = [states[i] for i in members]
            numbers = live(self._counting(group, chosen))
            if place is not None:
                updates.run(update, [[column[i] for i in members] for column in columns], numbers)
                continue
            for i in members:
                self._formula(group, columns[0][i], columns[1][i], states[i], numbers)

    def _counting(self, group: dict[str, Any], states: Sequence[State]) -> Callable[[], tuple[float, ...]]:
        """What counts a step of all ``states`` and returns its numbers."""

        def numbers() -> tuple[float, ...]:
            for state in states:
                self._advance(group, state)
            return tuple(map(float, self._scalars(group, states[0], None)))

        return numbers


def check_mixed(max_grad_norm: float | None, master_weights: bool) -> dict[str, Any]:
    """The two options that all these optimizers have, where they are set. Raises ValueError for a norm that is none."""
    if max_grad_norm is not None:
        at_least(max_grad_norm, 0.0, "max_grad_norm")
    options: dict[str, Any] = {} if max_grad_norm is None else {"max_grad_norm": float(max_grad_norm)}
    return {**options, "master_weights": True} if master_weights else options


def total_norm(grads: list[Any]) -> Tensor:
    """The Euclidean norm of all gradients together, on the device of the first; half types as float32."""
    total = updates.total_norm(grads)
    if total is not None:
        return total
    device = grads[0].device
    wide = [g.detach().to(dtypes.float32) if g.dtype.itemsize < 4 else g.detach() for g in grads]
    return joining.stack([g.norm().to(device) for g in wide]).norm()


def has_tensors(group: dict[str, Any]) -> bool:
    """Whether options or counts of ``group`` are tensors."""
    if group.get("capturable") or isinstance(group["lr"], Tensor):
        return True
    betas = group.get("betas")
    return betas is not None and isinstance(betas[0], Tensor)


def decayed(g: Tensor, p: Tensor, numbers: Numbers, plain: int) -> tuple[Tensor, Numbers]:
    """The gradient with weight decay added if there is a number for it: more than the ``plain`` others, and first."""
    if len(numbers) == plain:
        return g, numbers
    return g + p * numbers[0], numbers[1:]
