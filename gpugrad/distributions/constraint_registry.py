"""Which transform leads from unconstrained numbers to a constraint: ``biject_to(c)`` (one to one) and
``transform_to(c)`` (may be simpler), as in ``torch.distributions.constraint_registry``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gpugrad.distributions import constraints as c
from gpugrad.distributions import joined_transforms as j
from gpugrad.distributions import transforms as t


class ConstraintRegistry:
    """Constraint -> factory of transforms; called with a constraint it makes the transform. Constraints of one kind
    (all intervals, whatever their bounds) share a factory, which is given the constraint."""

    def __init__(self) -> None:
        self._factories: dict[Any, Callable[[Any], Any]] = {}

    def register(self, constraint: Any, factory: Callable[[Any], Any] | None = None) -> Any:
        """Set the factory of ``constraint``'s kind, or of a subclass of Constraint. Without ``factory`` a
        decorator."""
        if factory is None:
            return lambda f: self.register(constraint, f)
        self._factories[c.kind_of(constraint)] = factory
        return factory

    def __call__(self, constraint: Any) -> Any:
        factory = self._factories.get(c.kind_of(constraint))
        if factory is None:
            raise NotImplementedError(f"no transform to {constraint} is known; register() one")
        return factory(constraint)


biject_to = ConstraintRegistry()
transform_to = ConstraintRegistry()


def _both(*constraints: Any) -> Callable[[Callable[[Any], Any]], Callable[[Any], Any]]:
    def declare(factory: Callable[[Any], Any]) -> Callable[[Any], Any]:
        for constraint in constraints:
            biject_to.register(constraint, factory)
            transform_to.register(constraint, factory)
        return factory

    return declare


@_both(c.real)
def _real(constraint: Any) -> Any:
    return t.identity_transform


@_both(c.positive, c.nonnegative)
def _above(constraint: Any) -> Any:
    low = constraint.lower_bound
    if not isinstance(low, c.gg.Tensor) and low == 0:
        return t.ExpTransform()
    return t.ComposeTransform([t.ExpTransform(), t.AffineTransform(low, 1)])


@_both(c.less_than(0.0))
def _below(constraint: Any) -> Any:
    return t.ComposeTransform([t.ExpTransform(), t.AffineTransform(constraint.upper_bound, -1)])


@_both(c.unit_interval)
def _interval(constraint: Any) -> Any:
    low, high = constraint.lower_bound, constraint.upper_bound
    if all(not isinstance(v, c.gg.Tensor) for v in (low, high)) and (low, high) == (0, 1):
        return t.SigmoidTransform()
    return t.ComposeTransform([t.SigmoidTransform(), t.AffineTransform(low, high - low)])


@_both(c.lower_cholesky)
def _lower_cholesky(constraint: Any) -> Any:
    return j.LowerCholeskyTransform()


@_both(c.positive_definite, c.positive_semidefinite)
def _positive_definite(constraint: Any) -> Any:
    return j.PositiveDefiniteTransform()


@_both(c.corr_cholesky)
def _corr_cholesky(constraint: Any) -> Any:
    return j.CorrCholeskyTransform()


biject_to.register(c.simplex, lambda constraint: t.StickBreakingTransform())
transform_to.register(c.simplex, lambda constraint: t.SoftmaxTransform())


def _of_parts(registry: ConstraintRegistry) -> None:
    registry.register(
        c.real_vector,
        lambda constraint: t.IndependentTransform(
            registry(constraint.base_constraint), constraint.reinterpreted_batch_ndims
        ),
    )
    registry.register(
        c.cat([c.real]),
        lambda constraint: j.CatTransform([registry(p) for p in constraint.cseq], constraint.dim, constraint.lengths),
    )
    registry.register(
        c.stack([c.real]), lambda constraint: j.StackTransform([registry(p) for p in constraint.cseq], constraint.dim)
    )


_of_parts(biject_to)
_of_parts(transform_to)
