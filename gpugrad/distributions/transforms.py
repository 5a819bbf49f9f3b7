"""Invertible functions with the logarithm of their derivative, and distributions pushed through them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import gpugrad as gg
from gpugrad.distributions import constraints as c
from gpugrad.distributions.continuous import Normal
from gpugrad.distributions.distribution import Distribution, broadcast, sum_last
from gpugrad.nn.functional import softplus


class Transform:
    """``y = t(x)``, ``x = t.inv(y)``; ``log_abs_det_jacobian(x, y)`` is log|dy/dx|, summed over the
    ``event_dim`` dimensions that the function takes together. ``cache_size`` is accepted and kept."""

    bijective = True
    event_dim = 0
    domain = c.real
    codomain = c.real

    def __init__(self, cache_size: int = 0) -> None:
        self._cache_size = cache_size

    @property
    def inv(self) -> Any:
        """The inverse as a transform."""
        return _Inverse(self)

    @property
    def sign(self) -> Any:
        """1 if increasing, -1 if decreasing."""
        return 1

    def __call__(self, x: Any) -> Any:
        """t(x). Subclasses may define PyTorch's ``_call`` instead."""
        return self._call(x)

    def _call(self, x: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__} does not define _call")

    def _inverse(self, y: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__} has no inverse")

    def log_abs_det_jacobian(self, x: Any, y: Any) -> Any:
        """log|dy/dx| at x, y = t(x)."""
        raise NotImplementedError(f"{type(self).__name__} has no log_abs_det_jacobian")

    def forward_shape(self, shape: Any) -> Any:
        """Shape of the result for an input of ``shape``."""
        return shape

    inverse_shape = forward_shape

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return False
        mine, theirs = ({k: v for k, v in vars(t).items() if k not in _FOLLOWS} for t in (self, other))
        return mine.keys() == theirs.keys() and all(_equal(v, theirs[k]) for k, v in mine.items())

    def __hash__(self) -> int:
        return hash(type(self))

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


# What follows from the other attributes of a transform, or changes nothing.
_FOLLOWS = frozenset(("_cache_size", "domain", "codomain", "bijective"))


def _dims(t: Transform) -> tuple[int, int]:
    """How many dimensions an event has before ``t`` and after it: others where a transform changes their number."""
    before, after = t.domain.event_dim, t.codomain.event_dim
    return (before, after) if max(before, after) >= t.event_dim else (t.event_dim, t.event_dim)


def _span(transforms: Sequence[Transform]) -> tuple[int, int]:
    """The same for one transform after the other."""
    taken = given = 0
    for t in reversed(transforms):
        before, after = _dims(t)
        taken = max(taken + before - after, before)
    for t in transforms:
        before, after = _dims(t)
        given = max(given + after - before, after)
    return taken, given


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, gg.Tensor) or isinstance(b, gg.Tensor):
        same = a == b
        return bool(same.all()) if isinstance(same, gg.Tensor) else bool(same)
    return bool(a == b)


class _Inverse(Transform):
    def __init__(self, base: Transform) -> None:
        super().__init__(base._cache_size)
        self._base = base
        self.bijective, self.event_dim = base.bijective, base.event_dim
        self.domain, self.codomain = base.codomain, base.domain

    @property
    def inv(self) -> Transform:
        return self._base

    @property
    def sign(self) -> Any:
        return self._base.sign

    def __call__(self, x: Any) -> Any:
        return self._base._inverse(x)

    def _inverse(self, y: Any) -> Any:
        return self._base(y)

    def log_abs_det_jacobian(self, x: Any, y: Any) -> Any:
        return -self._base.log_abs_det_jacobian(y, x)

    def forward_shape(self, shape: Any) -> Any:
        return self._base.inverse_shape(shape)

    def inverse_shape(self, shape: Any) -> Any:
        return self._base.forward_shape(shape)

    def __repr__(self) -> str:
        return f"{self._base!r}.inv"


class ExpTransform(Transform):
    """exp(x)."""

    codomain = c.positive

    def __call__(self, x: Any) -> Any:
        return x.exp()

    def _inverse(self, y: Any) -> Any:
        return y.log()

    def log_abs_det_jacobian(self, x: Any, y: Any) -> Any:
        return x


class PowerTransform(Transform):
    """x ** exponent, of positive numbers."""

    domain = codomain = c.positive

    def __init__(self, exponent: Any, cache_size: int = 0) -> None:
        super().__init__(cache_size)
        (self.exponent,) = broadcast(exponent)

    def __call__(self, x: Any) -> Any:
        return x.pow(self.exponent)

    def _inverse(self, y: Any) -> Any:
        return y.pow(1 / self.exponent)

    @property
    def sign(self) -> Any:
        return self.exponent.sign()

    def log_abs_det_jacobian(self, x: Any, y: Any) -> Any:
        return (self.exponent * y / x).abs().log()


class SigmoidTransform(Transform):
    """sigmoid(x)."""

    codomain = c.unit_interval

    def __call__(self, x: Any) -> Any:
        info = gg.finfo(x.dtype)
        return gg.sigmoid(x).clamp(min=info.tiny, max=1.0 - info.eps)

    def _inverse(self, y: Any) -> Any:
        info = gg.finfo(y.dtype)
        y = y.clamp(min=info.tiny, max=1.0 - info.eps)
        return y.log() - gg.log1p(-y)

    def log_abs_det_jacobian(self, x: Any, y: Any) -> Any:
        return -softplus(-x) - softplus(x)


class TanhTransform(Transform):
    """tanh(x)."""

    codomain = c.interval(-1.0, 1.0)

    def __call__(self, x: Any) -> Any:
        return x.tanh()

    def _inverse(self, y: Any) -> Any:
        return gg.atanh(y)

    def log_abs_det_jacobian(self, x: Any, y: Any) -> Any:
        return 2.0 * (math.log(2.0) - x - softplus(-2.0 * x))  # log(1 - tanh(x)**2) without cancellation


class SoftplusTransform(Transform):
    """log(1 + exp(x))."""

    codomain = c.positive

    def __call__(self, x: Any) -> Any:
        return softplus(x)

    def _inverse(self, y: Any) -> Any:
        return (-y).expm1().neg().log() + y

    def log_abs_det_jacobian(self, x: Any, y: Any) -> Any:
        return -softplus(-x)


class AbsTransform(Transform):
    """|x|; not invertible."""

    bijective = False
    codomain = c.nonnegative

    def __call__(self, x: Any) -> Any:
        return x.abs()

    def _inverse(self, y: Any) -> Any:
        return y


class AffineTransform(Transform):
    """loc + scale * x."""

    def __init__(self, loc: Any, scale: Any, event_dim: int = 0, cache_size: int = 0) -> None:
        super().__init__(cache_size)
        self.loc, self.scale, self.event_dim = loc, scale, event_dim
        self.domain = self.codomain = c.independent(c.real, event_dim)

    @property
    def sign(self) -> Any:
        if isinstance(self.scale, gg.Tensor):
            return self.scale.sign()
        return (self.scale > 0) - (self.scale < 0)

    def __call__(self, x: Any) -> Any:
        return self.loc + self.scale * x

    def _inverse(self, y: Any) -> Any:
        return (y - self.loc) / self.scale

    def log_abs_det_jacobian(self, x: Any, y: Any) -> Any:
        if isinstance(self.scale, gg.Tensor):
            log = self.scale.abs().log().expand(x.shape)
        else:
            log = gg.full_like(x, math.log(abs(self.scale)))
        return sum_last(log, self.event_dim)


class SoftmaxTransform(Transform):
    """softmax over the last dimension; not one to one."""

    bijective = False
    event_dim = 1
    domain, codomain = c.real_vector, c.simplex

    def __call__(self, x: Any) -> Any:
        return gg.softmax(x, -1)

    def _inverse(self, y: Any) -> Any:
        return y.log()


class StickBreakingTransform(Transform):
    """n-1 real numbers to n weights that add up to 1: each breaks a piece off what is left of a stick."""

    event_dim = 1
    domain, codomain = c.real_vector, c.simplex

    def _offset(self, n: int, like: Any) -> Any:
        return gg.arange(n, 0, -1, dtype=like.dtype, device=like.device).log()

    def __call__(self, x: Any) -> Any:
        z = gg.sigmoid(x - self._offset(x.shape[-1], x))
        left = (1 - z).cumprod(-1)
        one = gg.ones_like(left[..., :1])
        return gg.cat([z, one], -1) * gg.cat([one, left], -1)

    def _inverse(self, y: Any) -> Any:
        piece = y[..., :-1]
        left = (1 - piece.cumsum(-1)).clamp(min=gg.finfo(y.dtype).tiny)
        return piece.log() - left.log() + self._offset(piece.shape[-1], y)

    def log_abs_det_jacobian(self, x: Any, y: Any) -> Any:
        x = x - self._offset(x.shape[-1], x)
        return (-x + gg.nn.functional.logsigmoid(x) + y[..., :-1].log()).sum(-1)

    def forward_shape(self, shape: Any) -> Any:
        return gg.Size((*shape[:-1], shape[-1] + 1))

    def inverse_shape(self, shape: Any) -> Any:
        return gg.Size((*shape[:-1], shape[-1] - 1))


class ReshapeTransform(Transform):
    """The same numbers in another event shape."""

    def __init__(self, in_shape: Any, out_shape: Any, cache_size: int = 0) -> None:
        super().__init__(cache_size)
        self.in_shape, self.out_shape = gg.Size(in_shape), gg.Size(out_shape)
        if self.in_shape.numel() != self.out_shape.numel():
            raise ValueError(f"ReshapeTransform: {in_shape} and {out_shape} have different numbers of elements")
        self.domain = c.independent(c.real, len(self.in_shape))
        self.codomain = c.independent(c.real, len(self.out_shape))
        self.event_dim = len(self.in_shape)

    def _batch(self, x: Any, event: Any) -> tuple[int, ...]:
        return tuple(x.shape[: x.dim() - len(event)])

    def forward_shape(self, shape: Any) -> Any:
        return self._with_event(shape, self.in_shape, self.out_shape)

    def inverse_shape(self, shape: Any) -> Any:
        return self._with_event(shape, self.out_shape, self.in_shape)

    def _with_event(self, shape: Any, before: Any, after: Any) -> Any:
        batch = len(shape) - len(before)
        if batch < 0 or tuple(shape[batch:]) != before:
            raise ValueError(f"ReshapeTransform: expected a shape that ends in {tuple(before)}, got {tuple(shape)}")
        return gg.Size((*shape[:batch], *after))

    def __call__(self, x: Any) -> Any:
        return x.reshape(self._batch(x, self.in_shape) + self.out_shape)

    def _inverse(self, y: Any) -> Any:
        return y.reshape(self._batch(y, self.out_shape) + self.in_shape)

    def log_abs_det_jacobian(self, x: Any, y: Any) -> Any:
        return gg.zeros(self._batch(x, self.in_shape), dtype=x.dtype, device=x.device)


class ComposeTransform(Transform):
    """Several transforms, the first applied first."""

    def __init__(self, parts: Sequence[Transform], cache_size: int = 0) -> None:
        super().__init__(cache_size)
        self.parts = list(parts)
        self.bijective = all(p.bijective for p in self.parts)
        self.event_dim, given = _span(self.parts)
        self.domain = _with_dims(self.parts[0].domain if self.parts else c.real, self.event_dim)
        self.codomain = _with_dims(self.parts[-1].codomain if self.parts else c.real, given)

    @property
    def sign(self) -> Any:
        sign = 1
        for p in self.parts:
            sign = sign * p.sign
        return sign

    def __call__(self, x: Any) -> Any:
        for p in self.parts:
            x = p(x)
        return x

    def _inverse(self, y: Any) -> Any:
        for p in reversed(self.parts):
            y = p._inverse(y)
        return y

    def log_abs_det_jacobian(self, x: Any, y: Any) -> Any:
        total: Any = 0.0
        event_dim = self.event_dim
        for p in self.parts:
            y = p(x)
            before, after = _dims(p)
            total = total + sum_last(p.log_abs_det_jacobian(x, y), event_dim - before)
            event_dim += after - before
            x = y
        return total if self.parts else gg.zeros_like(x)

    def forward_shape(self, shape: Any) -> Any:
        for p in self.parts:
            shape = p.forward_shape(shape)
        return shape

    def inverse_shape(self, shape: Any) -> Any:
        for p in reversed(self.parts):
            shape = p.inverse_shape(shape)
        return shape

    def __repr__(self) -> str:
        parts = ",\n    ".join(repr(p) for p in self.parts)
        return f"{type(self).__name__}(\n    {parts}\n)"


class IndependentTransform(Transform):
    """``base`` with its last ``reinterpreted_batch_ndims`` dimensions taken as one event."""

    def __init__(self, base_transform: Transform, reinterpreted_batch_ndims: int, cache_size: int = 0) -> None:
        super().__init__(cache_size)
        self.base_transform, self.reinterpreted_batch_ndims = base_transform, reinterpreted_batch_ndims
        self.bijective = base_transform.bijective
        self.event_dim = base_transform.event_dim + reinterpreted_batch_ndims
        self.domain = c.independent(base_transform.domain, reinterpreted_batch_ndims)
        self.codomain = c.independent(base_transform.codomain, reinterpreted_batch_ndims)

    @property
    def sign(self) -> Any:
        return self.base_transform.sign

    def __call__(self, x: Any) -> Any:
        return self.base_transform(x)

    def _inverse(self, y: Any) -> Any:
        return self.base_transform._inverse(y)

    def log_abs_det_jacobian(self, x: Any, y: Any) -> Any:
        return sum_last(self.base_transform.log_abs_det_jacobian(x, y), self.reinterpreted_batch_ndims)

    def forward_shape(self, shape: Any) -> Any:
        return self.base_transform.forward_shape(shape)

    def inverse_shape(self, shape: Any) -> Any:
        return self.base_transform.inverse_shape(shape)


def _with_dims(constraint: Any, dims: int) -> Any:
    return c.independent(constraint, dims - constraint.event_dim) if dims > constraint.event_dim else constraint


identity_transform = ComposeTransform([])


class TransformedDistribution(Distribution):
    """What ``transforms`` make of a variable of ``base_distribution``."""

    def __init__(self, base_distribution: Any, transforms: Any, validate_args: bool | None = None) -> None:
        self.transforms = [transforms] if isinstance(transforms, Transform) else list(transforms)
        self.base_dist = base_distribution
        whole = ComposeTransform(self.transforms)
        shape = whole.forward_shape(base_distribution.batch_shape + base_distribution.event_shape)
        taken, given = _span(self.transforms)
        cut = len(shape) - given - max(len(base_distribution.event_shape) - taken, 0)
        super().__init__(shape[:cut], shape[cut:], validate_args=validate_args)

    @property
    def has_rsample(self) -> bool:  # type: ignore[override]
        return self.base_dist.has_rsample

    @property
    def support(self) -> Any:
        if not self.transforms:
            return self.base_dist.support
        last = self.transforms[-1].codomain
        extra = len(self._event_shape) - last.event_dim
        return c.independent(last, extra) if extra > 0 else last

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        extra = len(self._batch_shape) - len(self.base_dist.batch_shape)
        batch_shape = tuple(batch_shape)
        lifted = batch_shape if extra >= 0 else batch_shape + tuple(self.base_dist.batch_shape[extra:])
        return type(self)._of(self.base_dist.expand(lifted), self.transforms)

    @classmethod
    def _of(cls, base: Any, transforms: Any) -> Any:
        return TransformedDistribution(base, transforms, validate_args=False)

    def sample(self, sample_shape: Any = ()) -> Any:
        with gg.no_grad():
            return ComposeTransform(self.transforms)(self.base_dist.sample(sample_shape))

    def rsample(self, sample_shape: Any = ()) -> Any:
        return ComposeTransform(self.transforms)(self.base_dist.rsample(sample_shape))

    def log_prob(self, value: Any) -> Any:
        y = self._check(value)
        event_dim = len(self._event_shape)
        total: Any = 0.0
        for t in reversed(self.transforms):
            x = t.inv(y)
            before, after = _dims(t)
            event_dim += before - after
            total = total - sum_last(t.log_abs_det_jacobian(x, y), event_dim - before)
            y = x
        return total + sum_last(self.base_dist.log_prob(y), event_dim - len(self.base_dist.event_shape))

    def _monotone(self, value: Any, sign: Any) -> Any:
        return sign * (value - 0.5) + 0.5

    def cdf(self, value: Any) -> Any:
        whole = ComposeTransform(self.transforms)
        return self._monotone(self.base_dist.cdf(whole.inv(self._check(value))), whole.sign)

    def icdf(self, value: Any) -> Any:
        whole = ComposeTransform(self.transforms)
        return whole(self.base_dist.icdf(self._monotone(value, whole.sign)))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.base_dist}, {self.transforms})"


class LogNormal(TransformedDistribution):
    """exp of a normal variable."""

    arg_constraints = {"loc": c.real, "scale": c.positive}

    def __init__(self, loc: Any, scale: Any, validate_args: bool | None = None) -> None:
        super().__init__(Normal(loc, scale, validate_args=validate_args), ExpTransform(), validate_args=validate_args)

    @property
    def loc(self) -> Any:
        """Mean of the logarithm."""
        return self.base_dist.loc

    @property
    def scale(self) -> Any:
        """Standard deviation of the logarithm."""
        return self.base_dist.scale

    @property
    def mean(self) -> Any:
        return (self.loc + self.scale.square() / 2).exp()

    @property
    def mode(self) -> Any:
        return (self.loc - self.scale.square()).exp()

    @property
    def variance(self) -> Any:
        squared = self.scale.square()
        return squared.expm1() * (2 * self.loc + squared).exp()

    def entropy(self) -> Any:
        return self.base_dist.entropy() + self.loc

    @classmethod
    def _of(cls, base: Any, transforms: Any) -> Any:
        return cls(base.loc, base.scale, validate_args=False)


def __getattr__(name: str) -> Any:
    from gpugrad.distributions import joined_transforms

    if name.endswith("Transform") and hasattr(joined_transforms, name):
        return getattr(joined_transforms, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
