"""Continuous distributions of one variable."""

from __future__ import annotations

import math
from typing import Any

import gpugrad as gg
from gpugrad.distributions import constraints as c
from gpugrad.distributions.distribution import Distribution, broadcast, uniform_open

_HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)
_EULER = 0.57721566490153286


class _LocScale(Distribution):
    """A standard distribution, stretched by ``scale`` and moved by ``loc``."""

    arg_constraints = {"loc": c.real, "scale": c.positive}
    support = c.real
    has_rsample = True

    def __init__(self, loc: Any, scale: Any, validate_args: bool | None = None) -> None:
        self.loc, self.scale = broadcast(loc, scale)
        super().__init__(self.loc.shape, validate_args=validate_args)

    def rsample(self, sample_shape: Any = ()) -> Any:
        return self.loc + self.scale * self._standard(self._extended_shape(sample_shape))

    def _standard(self, shape: Any) -> Any:
        raise NotImplementedError

    def _z(self, value: Any) -> Any:
        return (self._check(value) - self.loc) / self.scale

    @property
    def mean(self) -> Any:
        return self.loc

    @property
    def mode(self) -> Any:
        return self.loc


class Normal(_LocScale):
    """Normal with mean ``loc`` and standard deviation ``scale``."""

    def _standard(self, shape: Any) -> Any:
        return gg.randn(tuple(shape), dtype=self.loc.dtype, device=self.loc.device)

    @property
    def variance(self) -> Any:
        return self.scale.square()

    @property
    def stddev(self) -> Any:
        return self.scale

    def log_prob(self, value: Any) -> Any:
        return -0.5 * self._z(value).square() - self.scale.log() - _HALF_LOG_2PI

    def cdf(self, value: Any) -> Any:
        return 0.5 * (1 + gg.erf(self._z(value) / math.sqrt(2)))

    def icdf(self, value: Any) -> Any:
        return self.loc + self.scale * gg.erfinv(2 * value - 1) * math.sqrt(2)

    def entropy(self) -> Any:
        return 0.5 + _HALF_LOG_2PI + self.scale.log()


class Laplace(_LocScale):
    """Laplace (double exponential) around ``loc``."""

    def _standard(self, shape: Any) -> Any:
        u = uniform_open(shape, self.loc) * 2 - 1
        return -u.sign() * gg.log1p(-u.abs().clamp(max=1 - gg.finfo(u.dtype).eps))

    @property
    def variance(self) -> Any:
        return 2 * self.scale.square()

    def log_prob(self, value: Any) -> Any:
        return -self._z(value).abs() - gg.log(2 * self.scale)

    def cdf(self, value: Any) -> Any:
        z = self._z(value)
        return 0.5 - 0.5 * z.sign() * gg.expm1(-z.abs())

    def icdf(self, value: Any) -> Any:
        term = value - 0.5
        return self.loc - self.scale * term.sign() * gg.log1p(-2 * term.abs())

    def entropy(self) -> Any:
        return 1 + gg.log(2 * self.scale)


class Cauchy(_LocScale):
    """Cauchy: no mean, no variance (NaN and inf)."""

    def _standard(self, shape: Any) -> Any:
        return gg.tan(math.pi * (uniform_open(shape, self.loc) - 0.5))

    @property
    def mean(self) -> Any:
        return gg.full_like(self.loc, math.nan)

    @property
    def variance(self) -> Any:
        return gg.full_like(self.loc, math.inf)

    def log_prob(self, value: Any) -> Any:
        return -math.log(math.pi) - self.scale.log() - gg.log1p(self._z(value).square())

    def cdf(self, value: Any) -> Any:
        return gg.atan(self._z(value)) / math.pi + 0.5

    def icdf(self, value: Any) -> Any:
        return gg.tan(math.pi * (value - 0.5)) * self.scale + self.loc

    def entropy(self) -> Any:
        return math.log(4 * math.pi) + self.scale.log()


class Gumbel(_LocScale):
    """Gumbel: of the largest of many values."""

    def _standard(self, shape: Any) -> Any:
        return -gg.log(-gg.log(uniform_open(shape, self.loc)))

    @property
    def mean(self) -> Any:
        return self.loc + self.scale * _EULER

    @property
    def variance(self) -> Any:
        return (math.pi**2 / 6) * self.scale.square()

    def log_prob(self, value: Any) -> Any:
        z = self._z(value)
        return -z - gg.exp(-z) - self.scale.log()

    def cdf(self, value: Any) -> Any:
        return gg.exp(-gg.exp(-self._z(value)))

    def icdf(self, value: Any) -> Any:
        return self.loc - self.scale * gg.log(-gg.log(value))

    def entropy(self) -> Any:
        return self.scale.log() + (1 + _EULER)


class Uniform(Distribution):
    """Uniform on [low, high)."""

    arg_constraints = {"low": c.real, "high": c.real}
    has_rsample = True

    def __init__(self, low: Any, high: Any, validate_args: bool | None = None) -> None:
        self.low, self.high = broadcast(low, high)
        super().__init__(self.low.shape, validate_args=validate_args)
        if self._validate_args and not bool((self.low < self.high).all()):
            raise ValueError(f"Uniform: low must be below high everywhere, got {self.low} and {self.high}")

    @property
    def support(self) -> Any:
        return c.interval(self.low, self.high)

    @property
    def mean(self) -> Any:
        return (self.low + self.high) / 2

    @property
    def mode(self) -> Any:
        return gg.full_like(self.high, math.nan)

    @property
    def variance(self) -> Any:
        return (self.high - self.low).square() / 12

    def rsample(self, sample_shape: Any = ()) -> Any:
        u = gg.rand(tuple(self._extended_shape(sample_shape)), dtype=self.low.dtype, device=self.low.device)
        return self.low + u * (self.high - self.low)

    def log_prob(self, value: Any) -> Any:
        value = self._check(value)
        inside = (self.low <= value) & (self.high > value)
        return gg.log(inside.to(self.low.dtype)) - gg.log(self.high - self.low)

    def cdf(self, value: Any) -> Any:
        return ((value - self.low) / (self.high - self.low)).clamp(0, 1)

    def icdf(self, value: Any) -> Any:
        return value * (self.high - self.low) + self.low

    def entropy(self) -> Any:
        return gg.log(self.high - self.low)


class Exponential(Distribution):
    """Exponential with ``rate``."""

    arg_constraints = {"rate": c.positive}
    support = c.nonnegative
    has_rsample = True

    def __init__(self, rate: Any, validate_args: bool | None = None) -> None:
        (self.rate,) = broadcast(rate)
        super().__init__(self.rate.shape, validate_args=validate_args)

    @property
    def mean(self) -> Any:
        return self.rate.reciprocal()

    @property
    def mode(self) -> Any:
        return gg.zeros_like(self.rate)

    @property
    def variance(self) -> Any:
        return self.rate.pow(-2)

    @property
    def stddev(self) -> Any:
        return self.mean

    def rsample(self, sample_shape: Any = ()) -> Any:
        return -gg.log(uniform_open(self._extended_shape(sample_shape), self.rate)) / self.rate

    def log_prob(self, value: Any) -> Any:
        return self.rate.log() - self.rate * self._check(value)

    def cdf(self, value: Any) -> Any:
        return -gg.expm1(-self.rate * self._check(value))

    def icdf(self, value: Any) -> Any:
        return -gg.log1p(-value) / self.rate

    def entropy(self) -> Any:
        return 1 - self.rate.log()


class _Half(Distribution):
    """The absolute value of a distribution that is symmetric about 0."""

    arg_constraints = {"scale": c.positive}
    support = c.nonnegative
    has_rsample = True
    _whole: type[_LocScale]

    def __init__(self, scale: Any, validate_args: bool | None = None) -> None:
        (self.scale,) = broadcast(scale)
        super().__init__(self.scale.shape, validate_args=validate_args)

    @property
    def _base(self) -> _LocScale:
        return self._whole(gg.zeros_like(self.scale), self.scale, validate_args=False)

    @property
    def mode(self) -> Any:
        return gg.zeros_like(self.scale)

    def rsample(self, sample_shape: Any = ()) -> Any:
        return self._base.rsample(sample_shape).abs()

    def log_prob(self, value: Any) -> Any:
        value = self._check(value)
        return gg.where(value >= 0, self._base.log_prob(value) + math.log(2), -math.inf)

    def cdf(self, value: Any) -> Any:
        return 2 * self._base.cdf(self._check(value)) - 1

    def icdf(self, value: Any) -> Any:
        return self._base.icdf((value + 1) / 2)

    def entropy(self) -> Any:
        return self._base.entropy() - math.log(2)


class HalfNormal(_Half):
    """Absolute value of a normal variable of mean 0."""

    _whole = Normal

    @property
    def mean(self) -> Any:
        return self.scale * math.sqrt(2 / math.pi)

    @property
    def variance(self) -> Any:
        return self.scale.square() * (1 - 2 / math.pi)


class HalfCauchy(_Half):
    """Absolute value of a Cauchy variable around 0."""

    _whole = Cauchy

    @property
    def mean(self) -> Any:
        return gg.full_like(self.scale, math.inf)

    @property
    def variance(self) -> Any:
        return gg.full_like(self.scale, math.inf)
