"""Sets in which parameters and samples of distributions lie."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import gpugrad as gg


class Constraint:
    """A set of values. ``check(value)`` says, for each element or (``event_dim`` dimensions together)
    each event, whether it lies within."""

    name = ""
    event_dim = 0
    is_discrete = False
    _test: Callable[[Any], Any] | None = None

    def __init__(
        self,
        name: str = "",
        inside: Callable[[Any], Any] | None = None,
        event_dim: int | None = None,
        is_discrete: bool | None = None,
        **bounds: Any,
    ) -> None:
        if name:
            self.name = name
        self._test = inside
        if event_dim is not None:
            self.event_dim = event_dim
        if is_discrete is not None:
            self.is_discrete = is_discrete
        self.__dict__.update(bounds)

    def check(self, value: Any) -> Any:
        """Bool tensor: which elements (or events) lie within."""
        if self._test is None:
            raise NotImplementedError(f"{type(self).__name__}: a constraint has to define check(value)")
        return self._test(value)

    def __repr__(self) -> str:
        return self.name or f"{type(self).__name__}()"


def kind_of(constraint: Any) -> Any:
    """What constraints that differ in their bounds alone have in common: the name before the bounds, or the class of
    a user's own."""
    if isinstance(constraint, type):
        return constraint
    if not isinstance(constraint, Constraint):
        raise TypeError(f"expected a constraint, got {type(constraint).__name__}")
    return constraint.name.partition("(")[0] or type(constraint)


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

    return Constraint(
        f"IndependentConstraint({base}, {dims})",
        inside,
        base.event_dim + dims,
        base.is_discrete,
        base_constraint=base,
        reinterpreted_batch_ndims=dims,
    )


def _dependent(value: Any) -> Any:
    raise ValueError("a dependent constraint is known when there are parameters only: ask the distribution's support")


class dependent_property(property):
    """A property of a distribution that is a constraint made of its parameters. ``@dependent_property`` or
    ``@dependent_property(is_discrete=..., event_dim=...)``."""

    def __init__(self, fn: Any = None, *, is_discrete: Any = None, event_dim: Any = None) -> None:
        super().__init__(fn)
        self.is_discrete, self.event_dim = is_discrete, event_dim

    def __call__(self, fn: Any) -> dependent_property:
        return dependent_property(fn, is_discrete=self.is_discrete, event_dim=self.event_dim)


def is_dependent(constraint: Any) -> bool:
    """Whether ``constraint`` is known when there are parameters only."""
    return isinstance(constraint, dependent_property) or constraint is dependent


def multinomial(upper_bound: Any) -> Constraint:
    """Vectors of counts that add up to ``upper_bound``."""
    return Constraint(
        "Multinomial()",
        lambda v: (_whole(v) & (v >= 0)).all(-1) & (v.sum(-1) == upper_bound),
        1,
        True,
        upper_bound=upper_bound,
    )


def cat(cseq: Sequence[Constraint], dim: int = 0, lengths: Sequence[int] | None = None) -> Constraint:
    """``cseq`` one after the other along ``dim``, each for as many elements as ``lengths`` says (1 unless given)."""
    sizes = [1] * len(cseq) if lengths is None else list(lengths)

    def inside(value: Any) -> Any:
        parts = value.split(sizes, dim)
        return gg.cat([constraint.check(v) for constraint, v in zip(cseq, parts, strict=True)], dim)

    return _joined("Cat", cseq, inside, dim=dim, lengths=sizes)


def stack(cseq: Sequence[Constraint], dim: int = 0) -> Constraint:
    """One of ``cseq`` for each slice along ``dim``."""

    def inside(value: Any) -> Any:
        return gg.stack([constraint.check(v) for constraint, v in zip(cseq, value.unbind(dim), strict=True)], dim)

    return _joined("Stack", cseq, inside, dim=dim)


def _joined(name: str, cseq: Sequence[Constraint], inside: Callable[[Any], Any], **bounds: Any) -> Constraint:
    event_dim = max(constraint.event_dim for constraint in cseq)
    if name == "Stack":
        event_dim += bounds["dim"] + event_dim < 0
    discrete = any(constraint.is_discrete for constraint in cseq)
    return Constraint(f"{name}({list(cseq)})", inside, event_dim, discrete, cseq=list(cseq), **bounds)


def _one_hot(v: Any) -> Any:
    return ((v == 0) | (v == 1)).all(-1) & (v.sum(-1) == 1)


def _positive_definite(v: Any) -> Any:
    return (gg.linalg.cholesky_ex(v).info == 0) & (v - v.mT).abs().amax((-2, -1)).lt(1e-6)


def _lower_cholesky(v: Any) -> Any:
    return (v.tril() == v).flatten(-2).all(-1) & (v.diagonal(dim1=-2, dim2=-1) > 0).all(-1)


def _square(v: Any) -> Any:
    return gg.full(tuple(v.shape[:-2]), v.shape[-2] == v.shape[-1], dtype=gg.bool, device=v.device)


def _symmetric(v: Any) -> Any:
    return _square(v) if v.shape[-2] != v.shape[-1] else gg.isclose(v, v.mT, atol=1e-6).all(-2).all(-1)


def _positive_semidefinite(v: Any) -> Any:
    symmetric = _symmetric(v)
    return symmetric & (gg.linalg.eigvalsh(v) >= 0).all(-1) if bool(symmetric.all()) else symmetric


def _corr_cholesky(v: Any) -> Any:
    eps = gg.finfo(v.dtype).eps * v.shape[-1] * 10  # of the sums of squares of the rows
    return _lower_cholesky(v) & ((v.norm(dim=-1) - 1).abs() <= eps).all(-1)


dependent = Constraint("Dependent()", _dependent)
real = Constraint("Real()", lambda v: v == v)
real_vector = independent(real, 1)
positive = greater_than(0.0)
nonnegative = greater_than_eq(0.0)
positive_vector = independent(positive, 1)
unit_interval = interval(0.0, 1.0)
boolean = Constraint("Boolean()", lambda v: (v == 0) | (v == 1), is_discrete=True)
nonnegative_integer = Constraint("IntegerGreaterThan(lower_bound=0)", lambda v: _whole(v) & (v >= 0), is_discrete=True)
positive_integer = Constraint("IntegerGreaterThan(lower_bound=1)", lambda v: _whole(v) & (v >= 1), is_discrete=True)
simplex = Constraint("Simplex()", lambda v: (v >= 0).all(-1) & ((v.sum(-1) - 1).abs() < 1e-6), event_dim=1)
one_hot = Constraint("OneHot()", _one_hot, event_dim=1, is_discrete=True)
lower_triangular = Constraint("LowerTriangular()", lambda v: (v.tril() == v).flatten(-2).all(-1), event_dim=2)
square = Constraint("Square()", _square, event_dim=2)
symmetric = Constraint("Symmetric()", _symmetric, event_dim=2)
positive_semidefinite = Constraint("PositiveSemidefinite()", _positive_semidefinite, event_dim=2)
corr_cholesky = Constraint("CorrCholesky()", _corr_cholesky, event_dim=2)
lower_cholesky = Constraint("LowerCholesky()", _lower_cholesky, event_dim=2)
positive_definite = Constraint("PositiveDefinite()", _positive_definite, event_dim=2)
