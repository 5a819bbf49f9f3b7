"""Optimizers whose step treats every element alike: done in one pass where a backend offers it.

Such an optimizer names the state its step works on and the numbers it takes; how the step is computed is an
:class:`~gpugrad.backends.update.Update` in ``gpugrad/ops/updates.py``, and once more a formula of tensor operations,
for half types and for options that are tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from gpugrad.autograd import is_grad_enabled
from gpugrad.backends.update import Update
from gpugrad.live import live
from gpugrad.ops import updates
from gpugrad.optim.optimizer import Optimizer, State
from gpugrad.tensor import Tensor

Numbers = tuple[Any, ...]
Columns = list[list[Any]]


class ElementwiseOptimizer(Optimizer):
    """What the step is, is said by :meth:`_plan`, :meth:`_scalars` and :meth:`_formula`; the state by
    :meth:`_new_state`.

    Whatever changes from step to step is among the numbers, which :func:`gpugrad.live.live` computes, so that a
    compiled step computes them anew."""

    traceable = True

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

    def _update(self, group: dict[str, Any]) -> None:
        params, grads, states = self._active(group, lambda p: self._new_state(p, group))
        if not params:
            return
        if group["maximize"]:
            grads = [-g for g in grads]
        if is_grad_enabled() or has_tensors(group):
            for p, g, state in zip(params, grads, states, strict=True):
                self._advance(group, state)
                self._formula(group, p, g, state, self._scalars(group, state, p))
            return
        update, names = self._plan(group)
        columns = [params, grads, *[[s[name] for s in states] for name in names]]
        self._step_parts(group, update, columns, states)

    def _step_parts(self, group: dict[str, Any], update: Update, columns: Columns, states: list[State]) -> None:
        """The step of parameters whose numbers may differ: together as far as they are the same."""
        key = self._key(states[0])
        if all(self._key(s) == key for s in states) and updates.fusible(columns):
            updates.run(update, columns, live(self._counting(group, states)))
            return
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
