"""Sets in which parameters and samples of distributions lie."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gpugrad as gg


class Constraint:
    """A set of values. ``check(value)`` says, for each element or (``event_dim`` dimensions together)
    each event, whether it lies within."""

    def __init__(
        self, name: str, inside: Callable[[Any], Any], event_dim: int = 0, is_discrete: bool = False, **bounds: Any
    ) -> None:
        self.name = name
        self._inside = inside
        self.event_dim = event_dim
        self.is_discrete = is_discrete
        self.__dict__.update(bounds)

    def check(self, value: Any) -> Any:
        """Bool tensor: which elements (or events) lie within."""
        return self._inside(value)

    def __repr__(self) -> str:
        return self.name


def _whole(v: Any) -> Any:
    return v == v.floor() if v.is_floating_point() else gg.ones_like(v, dtype=gg.bool)


def greater_than(lower_bound: Any) -> Constraint:
    """Numbers above ``lower_bound``."""
    return Constraint(f"GreaterThan(lower_bound={lower_bound})", lambda v: v > lower_bound, lower_bound=lower_bound)


def greater_than_eq(lower_bound: Any) -> Constraint:
    """Numbers from ``lower_bound`` up."""
    return Constraint(f"GreaterThanEq(lower_bound={lower_bound})", lambda v: v >= lower_bound, lower_bound=lower_bound)


def less_than(upper_bound: Any) -> Constraint:
    """Numbers below ``upper_bound``."""
    return Constraint(f"LessThan(upper_bound={upper_bound})", lambda v: v < upper_bound, upper_bound=upper_bound)


def interval(lower_bound: Any, upper_bound: Any) -> Constraint:
    """Numbers from ``lower_bound`` to ``upper_bound``."""
    return Constraint(
        f"Interval(lower_bound={lower_bound}, upper_bound={upper_bound})",
        lambda v: (v >= lower_bound) & (v <= upper_bound),
        lower_bound=lower_bound,
        upper_bound=upper_bound,
    )


half_open_interval = interval


def integer_interval(lower_bound: Any, upper_bound: Any) -> Constraint:
    """Whole numbers from ``lower_bound`` to ``upper_bound``."""
    return Constraint(
        f"IntegerInterval(lower_bound={lower_bound}, upper_bound={upper_bound})",
        lambda v: _whole(v) & (v >= lower_bound) & (v <= upper_bound),
        is_discrete=True,
        lower_bound=lower_bound,
        upper_bound=upper_bound,
    )


def independent(base: Constraint, dims: int) -> Constraint:
    """``base`` for all elements of the last ``dims`` dimensions at once."""

    def inside(value: Any) -> Any:
        found = base.check(value)
        return found.flatten(found.dim() - dims).all(-1) if dims else found

    return Constraint(f"Independent({base}, {dims})", inside, base.event_dim + dims, base.is_discrete)


def _one_hot(v: Any) -> Any:
    return ((v == 0) | (v == 1)).all(-1) & (v.sum(-1) == 1)


def _positive_definite(v: Any) -> Any:
    return (gg.linalg.cholesky_ex(v).info == 0) & (v - v.mT).abs().amax((-2, -1)).lt(1e-6)


def _lower_cholesky(v: Any) -> Any:
    return (v.tril() == v).flatten(-2).all(-1) & (v.diagonal(dim1=-2, dim2=-1) > 0).all(-1)


real = Constraint("Real()", lambda v: v == v)
real_vector = independent(real, 1)
positive = greater_than(0.0)
nonnegative = greater_than_eq(0.0)
positive_vector = independent(positive, 1)
unit_interval = interval(0.0, 1.0)
boolean = Constraint("Boolean()", lambda v: (v == 0) | (v == 1), is_discrete=True)
nonnegative_integer = Constraint("IntegerGreaterThan(0)", lambda v: _whole(v) & (v >= 0), is_discrete=True)
positive_integer = Constraint("IntegerGreaterThan(1)", lambda v: _whole(v) & (v >= 1), is_discrete=True)
simplex = Constraint("Simplex()", lambda v: (v >= 0).all(-1) & ((v.sum(-1) - 1).abs() < 1e-6), event_dim=1)
one_hot = Constraint("OneHot()", _one_hot, event_dim=1, is_discrete=True)
lower_cholesky = Constraint("LowerCholesky()", _lower_cholesky, event_dim=2)
positive_definite = Constraint("PositiveDefinite()", _positive_definite, event_dim=2)
