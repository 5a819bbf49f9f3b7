"""Limited-memory BFGS (Liu & Nocedal 1989; Nocedal & Wright, Numerical Optimization, chapters 3 and 7)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from gpugrad.autograd import enable_grad, no_grad
from gpugrad.ops import creation, joining, linear
from gpugrad.optim.optimizer import Optimizer, check_lr
from gpugrad.tensor import Tensor


@dataclass
class Point:
    """A point on the line that is searched: how far along, the loss there, its gradient, and the gradient's
    component along the line."""

    t: float
    loss: float
    grad: Tensor
    slope: float


def cubic_minimum(a: Point, b: Point, bounds: tuple[float, float] | None = None) -> float:
    """Where the cubic through both points with their slopes is lowest, within ``bounds`` (default: between them);
    the middle of the bounds where it has no minimum. Nocedal & Wright, equation 3.59."""
    low, high = bounds if bounds is not None else (min(a.t, b.t), max(a.t, b.t))
    if a.t > b.t:
        a, b = b, a
    if a.t == b.t:
        return (low + high) / 2.0
    d1 = a.slope + b.slope - 3.0 * (a.loss - b.loss) / (a.t - b.t)
    square = d1 * d1 - a.slope * b.slope
    if not square >= 0:  # a NaN too
        return (low + high) / 2.0
    d2 = math.sqrt(square)
    below = b.slope - a.slope + 2.0 * d2
    if below == 0:
        return (low + high) / 2.0
    return min(max(b.t - (b.t - a.t) * ((b.slope + d2 - d1) / below), low), high)


def strong_wolfe(
    evaluate: Callable[[float], Point],
    start: Point,
    t: float,
    longest: float,
    *,
    c1: float = 1e-4,
    c2: float = 0.9,
    tolerance: float = 1e-9,
    most: int = 25,
) -> tuple[Point, int]:
    """A point along the line that meets the strong Wolfe conditions (Nocedal & Wright, algorithms 3.5 and 3.6), and
    how often the loss was evaluated.

    ``start``: the point at 0; ``t``: the first trial; ``longest``: the largest element of the direction, by which the
    bracket's width is measured against ``tolerance``; ``most``: trials after the first."""

    def too_high(p: Point) -> bool:
        return p.loss > start.loss + c1 * p.t * start.slope

    def flat(p: Point) -> bool:
        return abs(p.slope) <= -c2 * start.slope

    # First a bracket: two points with an acceptable one between them.
    previous, here, tried = start, evaluate(t), 1
    bracket: list[Point] = []
    for trial in range(most):
        if too_high(here) or (trial > 1 and here.loss >= previous.loss) or here.slope >= 0 and not flat(here):
            bracket = [previous, here]
            break
        if flat(here):
            return here, tried
        bounds = (here.t + 0.01 * (here.t - previous.t), here.t * 10)
        further = cubic_minimum(previous, here, bounds)
        previous, here = here, evaluate(further)
        tried += 1
    else:
        bracket = [start, here]
        return min(bracket, key=lambda p: p.loss), tried

    # Then smaller and smaller ones around it.
    low, high = (0, 1) if bracket[0].loss <= bracket[1].loss else (1, 0)
    stuck = False
    while tried <= most:
        near, far = sorted(p.t for p in bracket)
        if (far - near) * longest < tolerance:
            break
        t = cubic_minimum(bracket[0], bracket[1])
        margin = 0.1 * (far - near)
        if min(far - t, t - near) < margin:  # so near an end that the bracket hardly shrinks: once is allowed
            if stuck or t >= far or t <= near:
                t = far - margin if abs(t - far) < abs(t - near) else near + margin
                stuck = False
            else:
                stuck = True
        else:
            stuck = False
        here = evaluate(t)
        tried += 1
        if too_high(here) or here.loss >= bracket[low].loss:
            bracket[high] = here
            low, high = (0, 1) if bracket[0].loss <= bracket[1].loss else (1, 0)
            continue
        done = flat(here)
        if not done and here.slope * (bracket[high].t - bracket[low].t) >= 0:
            bracket[high] = bracket[low]
        bracket[low] = here
        if done:
            break
    return bracket[low], tried


class LBFGS(Optimizer):
    """Quasi-Newton steps from the last ``history_size`` changes of gradient and parameters; for smooth losses of the
    whole data set.

    ``step(closure)`` makes up to ``max_iter`` iterations with up to ``max_eval`` evaluations of the closure (default
    1.25 times as many), and returns its first value. It ends early when no gradient is above ``tolerance_grad``, or
    loss or parameters change by less than ``tolerance_change``. ``line_search_fn``: None (steps of ``lr``) or
    "strong_wolfe". Values are read on the host in every iteration. Raises ValueError for several parameter groups,
    RuntimeError for another line search."""

    def __init__(
        self,
        params: Any,
        lr: Any = 1,
        max_iter: int = 20,
        max_eval: int | None = None,
        tolerance_grad: float = 1e-7,
        tolerance_change: float = 1e-9,
        history_size: int = 100,
        line_search_fn: str | None = None,
    ) -> None:
        if max_eval is None:
            max_eval = max_iter * 5 // 4
        super().__init__(params, {
            "lr": lr, "max_iter": max_iter, "max_eval": max_eval, "tolerance_grad": tolerance_grad,
            "tolerance_change": tolerance_change, "history_size": history_size, "line_search_fn": line_search_fn,
        })  # fmt: skip
        if len(self.param_groups) != 1:
            raise ValueError("LBFGS: all parameters are one vector, so there can be no parameter groups")
        self._params = self.param_groups[0]["params"]

    def _check_group(self, group: dict[str, Any]) -> None:
        check_lr(group["lr"])

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._params = self.param_groups[0]["params"]

    # -- parameters as one vector --------------------------------------------------
    def _gradient(self) -> Tensor:
        """The gradients of all parameters, 0 where there is none."""
        parts = [creation.zeros_like(p.detach()) if p.grad is None else p.grad for p in self._params]
        return joining.cat([g.detach().reshape(-1) for g in parts], 0)

    def _move(self, t: float, direction: Tensor) -> None:
        """Add ``t`` times the direction to the parameters."""
        offset = 0
        for p in self._params:
            n = p.numel()
            p.add_(direction[offset : offset + n].reshape(p.shape) * t)
            offset += n

    def _at(self, closure: Callable[[], Any], where: list[Tensor], t: float, direction: Tensor) -> Point:
        """The point at ``t`` along the direction from ``where``, to which the parameters return."""
        self._move(t, direction)
        loss = float(closure())
        grad = self._gradient()
        for p, value in zip(self._params, where, strict=True):
            p.copy_(value)
        return Point(t, loss, grad, _dot(grad, direction))

    # -- the step ------------------------------------------------------------------
    def step(self, closure: Callable[[], Any]) -> Any:
        """Minimise; ``closure()`` clears gradients, computes the loss, calls backward and returns the loss."""

        def evaluate() -> Any:
            with enable_grad():
                return closure()

        with no_grad():
            return self._minimize(evaluate)

    def _minimize(self, closure: Callable[[], Any]) -> Any:
        group = self.param_groups[0]
        state = self.state[self._params[0]]
        state.setdefault("func_evals", 0)
        state.setdefault("n_iter", 0)
        search = group["line_search_fn"]

        first = closure()
        loss, evaluations = float(first), 1
        state["func_evals"] += 1
        grad = self._gradient()
        if _largest(grad) <= group["tolerance_grad"]:
            return first

        for iteration in range(1, group["max_iter"] + 1):
            state["n_iter"] += 1
            direction = self._direction(state, grad, group["history_size"])
            state["prev_flat_grad"], state["prev_loss"] = grad, loss
            rate = float(group["lr"])
            t = min(1.0, 1.0 / float(grad.abs().sum())) * rate if state["n_iter"] == 1 else rate
            state["d"], state["t"] = direction, t
            slope = _dot(grad, direction)
            if slope > -group["tolerance_change"]:
                break
            previous, spent = loss, 0
            if search is not None:
                if search != "strong_wolfe":
                    raise RuntimeError(f"LBFGS: line_search_fn {search!r} is unknown; use 'strong_wolfe' or None")
                where = [p.detach().clone() for p in self._params]

                def along(t: float, where: list[Tensor] = where, direction: Tensor = direction) -> Point:
                    return self._at(closure, where, t, direction)

                found, spent = strong_wolfe(
                    along, Point(0.0, loss, grad, slope), t, _largest(direction), most=group["max_eval"] - evaluations
                )
                loss, grad, t = found.loss, found.grad, found.t
                state["t"] = t
                self._move(t, direction)
            else:
                self._move(t, direction)
                if iteration != group["max_iter"]:
                    loss, spent = float(closure()), 1
                    grad = self._gradient()
            evaluations += spent
            state["func_evals"] += spent
            if (
                evaluations >= group["max_eval"]
                or _largest(grad) <= group["tolerance_grad"]
                or _largest(direction) * abs(t) <= group["tolerance_change"]
                or abs(loss - previous) < group["tolerance_change"]
            ):
                break
        return first

    def _direction(self, state: dict[str, Any], grad: Tensor, history: int) -> Tensor:
        """Minus the gradient times the estimated inverse Hessian (Nocedal & Wright, algorithm 7.4), after the last
        step has entered the history."""
        if state["n_iter"] == 1:
            state.update(old_dirs=[], old_stps=[], ro=[], H_diag=1.0)
            return -grad
        change = grad - state["prev_flat_grad"]
        move = state["d"] * state["t"]
        ys = _dot(change, move)
        if ys > 1e-10:  # else the curvature is not positive, and the estimate would not stay so
            for name, value in (("old_dirs", change), ("old_stps", move), ("ro", 1.0 / ys)):
                state[name].append(value)
                del state[name][: max(0, len(state[name]) - history)]
            state["H_diag"] = ys / _dot(change, change)
        q = -grad
        weights = []
        for change, move, ro in reversed(list(zip(state["old_dirs"], state["old_stps"], state["ro"], strict=True))):
            weight = linear.dot(move, q) * ro
            q = q - change * weight
            weights.append(weight)
        q = q * state["H_diag"]
        for change, move, ro in zip(state["old_dirs"], state["old_stps"], state["ro"], strict=True):
            q = q + move * (weights.pop() - linear.dot(change, q) * ro)
        return q


def _dot(a: Tensor, b: Tensor) -> float:
    return float(linear.dot(a, b))


def _largest(x: Tensor) -> float:
    """The largest absolute value (0 of none)."""
    return float(x.abs().max()) if x.numel() else 0.0
