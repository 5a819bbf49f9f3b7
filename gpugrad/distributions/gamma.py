"""Distributions made of gamma variables. The derivative of a gamma sample with respect to its shape is the implicit
one (see ``gpugrad/ops/numerics_gamma.py``); that of the others follows from it."""

from __future__ import annotations

import math
from typing import Any

import gpugrad as gg
from gpugrad.distributions import constraints as c
from gpugrad.distributions.continuous import Normal
from gpugrad.distributions.distribution import Distribution, broadcast
from gpugrad.ops.special_functions import standard_gamma_grad
from gpugrad.ops.variates import standard_gamma


class _StandardGamma(gg.autograd.Function):
    @staticmethod
    def forward(ctx: Any, concentration: Any) -> Any:
        x = standard_gamma(concentration)
        ctx.save_for_backward(concentration, x)
        return x

    @staticmethod
    @gg.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Any) -> Any:
        return gradient * standard_gamma_grad(*ctx.saved_tensors)


def gamma_sample(concentration: Any, shape: Any) -> Any:
    """Gamma numbers of rate 1, above 0, with a derivative with respect to ``concentration``."""
    x = _StandardGamma.apply(concentration.expand(tuple(shape)))
    return x.clamp(min=gg.finfo(x.dtype).tiny)


class Gamma(Distribution):
    """Gamma with shape ``concentration`` and ``rate``."""

    arg_constraints = {"concentration": c.positive, "rate": c.positive}
    support = c.nonnegative
    has_rsample = True

    def __init__(self, concentration: Any, rate: Any, validate_args: bool | None = None) -> None:
        self.concentration, self.rate = broadcast(concentration, rate)
        super().__init__(self.concentration.shape, validate_args=validate_args)

    @property
    def mean(self) -> Any:
        return self.concentration / self.rate

    @property
    def mode(self) -> Any:
        return ((self.concentration - 1) / self.rate).clamp(min=0)

    @property
    def variance(self) -> Any:
        return self.concentration / self.rate.square()

    def rsample(self, sample_shape: Any = ()) -> Any:
        value = gamma_sample(self.concentration, self._extended_shape(sample_shape)) / self.rate
        return value.clamp(min=gg.finfo(value.dtype).tiny)

    def log_prob(self, value: Any) -> Any:
        value = self._check(value)
        a, b = self.concentration, self.rate
        return gg.xlogy(a, b) + gg.xlogy(a - 1, value) - b * value - gg.lgamma(a)

    def cdf(self, value: Any) -> Any:
        return gg.special.gammainc(self.concentration, self.rate * self._check(value))

    def entropy(self) -> Any:
        a = self.concentration
        return a - self.rate.log() + gg.lgamma(a) + (1 - a) * gg.digamma(a)


class Chi2(Gamma):
    """Chi-squared with ``df`` degrees of freedom: the sum of that many squared normal variables."""

    arg_constraints = {"df": c.positive}

    def __init__(self, df: Any, validate_args: bool | None = None) -> None:
        (self.df,) = broadcast(df)
        super().__init__(0.5 * self.df, 0.5, validate_args=validate_args)


class InverseGamma(Distribution):
    """The reciprocal of a gamma variable."""

    arg_constraints = {"concentration": c.positive, "rate": c.positive}
    support = c.positive
    has_rsample = True

    def __init__(self, concentration: Any, rate: Any, validate_args: bool | None = None) -> None:
        self.concentration, self.rate = broadcast(concentration, rate)
        super().__init__(self.concentration.shape, validate_args=validate_args)

    @property
    def mean(self) -> Any:
        return gg.where(self.concentration > 1, self.rate / (self.concentration - 1), math.inf)

    @property
    def mode(self) -> Any:
        return self.rate / (self.concentration + 1)

    @property
    def variance(self) -> Any:
        a = self.concentration
        return gg.where(a > 2, self.rate.square() / ((a - 1).square() * (a - 2)), math.inf)

    def rsample(self, sample_shape: Any = ()) -> Any:
        return Gamma(self.concentration, self.rate, validate_args=False).rsample(sample_shape).reciprocal()

    def log_prob(self, value: Any) -> Any:
        value = self._check(value)
        base = Gamma(self.concentration, self.rate, validate_args=False)
        return base.log_prob(value.reciprocal()) - 2 * value.log()

    def cdf(self, value: Any) -> Any:
        return gg.special.gammaincc(self.concentration, self.rate / self._check(value))

    def entropy(self) -> Any:
        a = self.concentration
        return a + self.rate.log() + gg.lgamma(a) - (1 + a) * gg.digamma(a)


class Dirichlet(Distribution):
    """Points of the simplex; ``concentration`` has them in its last dimension."""

    arg_constraints = {"concentration": c.positive_vector}
    support = c.simplex
    has_rsample = True

    def __init__(self, concentration: Any, validate_args: bool | None = None) -> None:
        if concentration.dim() < 1:
            raise ValueError("Dirichlet: concentration must have at least one dimension")
        self.concentration = concentration
        super().__init__(concentration.shape[:-1], concentration.shape[-1:], validate_args=validate_args)

    @property
    def mean(self) -> Any:
        return self.concentration / self.concentration.sum(-1, True)

    @property
    def mode(self) -> Any:
        less = (self.concentration - 1).clamp(min=0.0)
        mode = less / less.sum(-1, True)
        corner = (self.concentration < 1).all(-1, keepdim=True)
        peak = gg.nn.functional.one_hot(self.concentration.argmax(-1), self.concentration.shape[-1]).to(mode.dtype)
        return gg.where(corner, peak, mode)

    @property
    def variance(self) -> Any:
        total = self.concentration.sum(-1, True)
        return self.concentration * (total - self.concentration) / (total.square() * (total + 1))

    def rsample(self, sample_shape: Any = ()) -> Any:
        drawn = gamma_sample(self.concentration, self._extended_shape(sample_shape))
        return drawn / drawn.sum(-1, True)

    def log_prob(self, value: Any) -> Any:
        a = self.concentration
        return gg.xlogy(a - 1, self._check(value)).sum(-1) + gg.lgamma(a.sum(-1)) - gg.lgamma(a).sum(-1)

    def entropy(self) -> Any:
        a, k = self.concentration, self.concentration.shape[-1]
        total = a.sum(-1)
        spread = gg.lgamma(a).sum(-1) - gg.lgamma(total)
        return spread - (k - total) * gg.digamma(total) - ((a - 1) * gg.digamma(a)).sum(-1)


class Beta(Distribution):
    """Beta on (0, 1): the first coordinate of a Dirichlet variable of two."""

    arg_constraints = {"concentration1": c.positive, "concentration0": c.positive}
    support = c.unit_interval
    has_rsample = True

    def __init__(self, concentration1: Any, concentration0: Any, validate_args: bool | None = None) -> None:
        self.concentration1, self.concentration0 = broadcast(concentration1, concentration0)
        super().__init__(self.concentration1.shape, validate_args=validate_args)

    @property
    def _pair(self) -> Dirichlet:
        return Dirichlet(gg.stack([self.concentration1, self.concentration0], -1), validate_args=False)

    @property
    def mean(self) -> Any:
        return self.concentration1 / (self.concentration1 + self.concentration0)

    @property
    def mode(self) -> Any:
        return self._pair.mode[..., 0]

    @property
    def variance(self) -> Any:
        total = self.concentration1 + self.concentration0
        return self.concentration1 * self.concentration0 / (total.square() * (total + 1))

    def rsample(self, sample_shape: Any = ()) -> Any:
        return self._pair.rsample(sample_shape)[..., 0]

    def log_prob(self, value: Any) -> Any:
        value = self._check(value)
        return self._pair.log_prob(gg.stack([value, 1.0 - value], -1))

    def entropy(self) -> Any:
        return self._pair.entropy()


class StudentT(Distribution):
    """Student's t with ``df`` degrees of freedom, stretched by ``scale`` and moved by ``loc``."""

    arg_constraints = {"df": c.positive, "loc": c.real, "scale": c.positive}
    support = c.real
    has_rsample = True

    def __init__(self, df: Any, loc: Any = 0.0, scale: Any = 1.0, validate_args: bool | None = None) -> None:
        self.df, self.loc, self.scale = broadcast(df, loc, scale)
        super().__init__(self.df.shape, validate_args=validate_args)

    @property
    def mean(self) -> Any:
        return gg.where(self.df > 1, self.loc, math.nan)

    @property
    def mode(self) -> Any:
        return self.loc

    @property
    def variance(self) -> Any:
        spread = self.scale.square() * self.df / (self.df - 2)
        return gg.where(self.df > 2, spread, gg.where(self.df > 1, math.inf, gg.full_like(self.df, math.nan)))

    def rsample(self, sample_shape: Any = ()) -> Any:
        x = Normal(gg.zeros_like(self.df), 1.0, validate_args=False).sample(sample_shape)
        z = Chi2(self.df, validate_args=False).rsample(sample_shape)
        return self.loc + self.scale * x * gg.rsqrt(z / self.df)

    def log_prob(self, value: Any) -> Any:
        y = (self._check(value) - self.loc) / self.scale
        half = 0.5 * self.df
        norm = (
            self.scale.log() + 0.5 * self.df.log() + 0.5 * math.log(math.pi) + gg.lgamma(half) - gg.lgamma(half + 0.5)
        )
        return -(half + 0.5) * gg.log1p(y.square() / self.df) - norm

    def entropy(self) -> Any:
        half = 0.5 * self.df
        beta = gg.lgamma(half) + math.lgamma(0.5) - gg.lgamma(half + 0.5)
        return (
            self.scale.log() + (half + 0.5) * (gg.digamma(half + 0.5) - gg.digamma(half)) + 0.5 * self.df.log() + beta
        )


class FisherSnedecor(Distribution):
    """F: the ratio of two chi-squared variables, each divided by its degrees of freedom."""

    arg_constraints = {"df1": c.positive, "df2": c.positive}
    support = c.positive
    has_rsample = True

    def __init__(self, df1: Any, df2: Any, validate_args: bool | None = None) -> None:
        self.df1, self.df2 = broadcast(df1, df2)
        super().__init__(self.df1.shape, validate_args=validate_args)

    @property
    def mean(self) -> Any:
        return gg.where(self.df2 > 2, self.df2 / (self.df2 - 2), math.nan)

    @property
    def mode(self) -> Any:
        return gg.where(self.df1 > 2, (self.df1 - 2) / self.df1 * self.df2 / (self.df2 + 2), math.nan)

    @property
    def variance(self) -> Any:
        a, b = self.df1, self.df2
        spread = 2 * b.square() * (a + b - 2) / (a * (b - 2).square() * (b - 4))
        return gg.where(b > 4, spread, math.nan)

    def rsample(self, sample_shape: Any = ()) -> Any:
        upper = Gamma(self.df1 / 2, self.df1, validate_args=False).rsample(sample_shape)
        return upper / Gamma(self.df2 / 2, self.df2, validate_args=False).rsample(sample_shape)

    def log_prob(self, value: Any) -> Any:
        value = self._check(value)
        a, b, ratio = self.df1 / 2, self.df2 / 2, self.df1 / self.df2
        constant = gg.lgamma(a + b) - gg.lgamma(a) - gg.lgamma(b)
        return constant + a * ratio.log() + (a - 1) * value.log() - (a + b) * gg.log1p(ratio * value)
