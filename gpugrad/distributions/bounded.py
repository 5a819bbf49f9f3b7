"""More continuous distributions of one variable: functions of uniform and exponential ones, and the circle."""

from __future__ import annotations

import math
from typing import Any

import gpugrad as gg
from gpugrad.distributions import constraints as c
from gpugrad.distributions.continuous import Exponential, Normal, Uniform
from gpugrad.distributions.distribution import (
    Distribution,
    ProbsOrLogits,
    broadcast,
    clamp_probs,
    one_of,
    uniform_open,
)
from gpugrad.distributions.transforms import (
    AffineTransform,
    ExpTransform,
    PowerTransform,
    StickBreakingTransform,
    TransformedDistribution,
)

_EULER = 0.57721566490153286


class _Made(TransformedDistribution):
    """A transformed distribution that is known by parameters of its own, which are kept as attributes."""

    def _keep(self, **parameters: Any) -> None:
        self.__dict__.update(zip(parameters, broadcast(*parameters.values()), strict=True))

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        shape = tuple(batch_shape)
        parameters = {name: getattr(self, name).expand(shape) for name in self.arg_constraints}
        return type(self)(**parameters, validate_args=False)

    def __repr__(self) -> str:
        return Distribution.__repr__(self)


class Weibull(_Made):
    """``scale`` times the power 1 / ``concentration`` of an exponential variable."""

    arg_constraints = {"scale": c.positive, "concentration": c.positive}
    support = c.positive
    scale: Any
    concentration: Any

    def __init__(self, scale: Any, concentration: Any, validate_args: bool | None = None) -> None:
        self._keep(scale=scale, concentration=concentration)
        base = Exponential(gg.ones_like(self.scale), validate_args=False)
        power = PowerTransform(self.concentration.reciprocal())
        super().__init__(base, [power, AffineTransform(0.0, self.scale)], validate_args)

    def _gamma(self, n: int) -> Any:
        return gg.lgamma(1 + n / self.concentration)

    @property
    def mean(self) -> Any:
        return self.scale * self._gamma(1).exp()

    @property
    def mode(self) -> Any:
        k = self.concentration
        return self.scale * ((k - 1) / k) ** k.reciprocal()

    @property
    def variance(self) -> Any:
        return self.scale.square() * (self._gamma(2).exp() - (2 * self._gamma(1)).exp())

    def entropy(self) -> Any:
        k = self.concentration
        return _EULER * (1 - k.reciprocal()) + gg.log(self.scale / k) + 1


class Pareto(_Made):
    """Above ``scale``, with a tail that falls off as the power ``alpha``."""

    arg_constraints = {"alpha": c.positive, "scale": c.positive}
    scale: Any
    alpha: Any

    def __init__(self, scale: Any, alpha: Any, validate_args: bool | None = None) -> None:
        self._keep(scale=scale, alpha=alpha)
        base = Exponential(self.alpha, validate_args=False)
        super().__init__(base, [ExpTransform(), AffineTransform(0.0, self.scale)], validate_args)

    @property
    def support(self) -> Any:
        return c.greater_than_eq(self.scale)

    @property
    def mean(self) -> Any:
        a = self.alpha.clamp(min=1)
        return a * self.scale / (a - 1)

    @property
    def mode(self) -> Any:
        return self.scale

    @property
    def variance(self) -> Any:
        a = self.alpha.clamp(min=2)
        return self.scale.square() * a / ((a - 1).square() * (a - 2))

    def entropy(self) -> Any:
        return gg.log(self.scale / self.alpha) + 1 + self.alpha.reciprocal()


class Kumaraswamy(_Made):
    """On (0, 1), much like Beta, with a distribution function in closed form: 1 - (1 - x**a)**b."""

    arg_constraints = {"concentration1": c.positive, "concentration0": c.positive}
    support = c.unit_interval
    concentration1: Any
    concentration0: Any

    def __init__(self, concentration1: Any, concentration0: Any, validate_args: bool | None = None) -> None:
        self._keep(concentration1=concentration1, concentration0=concentration0)
        base = Uniform(gg.zeros_like(self.concentration0), gg.ones_like(self.concentration0), validate_args=False)
        outer, inner = (PowerTransform(v.reciprocal()) for v in (self.concentration1, self.concentration0))
        super().__init__(base, [inner, AffineTransform(1.0, -1.0), outer], validate_args)

    def _moment(self, n: int) -> Any:
        a, b = self.concentration1, self.concentration0
        top = 1 + n / a
        return b * (gg.lgamma(top) + gg.lgamma(b) - gg.lgamma(top + b)).exp()

    @property
    def mean(self) -> Any:
        return self._moment(1)

    @property
    def mode(self) -> Any:
        a, b = self.concentration1, self.concentration0
        inside = (a >= 1) & (b >= 1) & (a * b > 1)
        return gg.where(inside, ((a - 1) / (a * b - 1)).clamp(min=0) ** a.reciprocal(), math.nan)

    @property
    def variance(self) -> Any:
        return self._moment(2) - self._moment(1).square()

    def entropy(self) -> Any:
        a, b = self.concentration1, self.concentration0
        harmonic = gg.digamma(b + 1) + _EULER
        return (1 - b.reciprocal()) + (1 - a.reciprocal()) * harmonic - a.log() - b.log()


class GeneralizedPareto(Distribution):
    """Excesses over the threshold ``loc``: ``concentration`` 0 is exponential, above it the tail is heavier, below
    it the support ends."""

    arg_constraints = {"loc": c.real, "scale": c.positive, "concentration": c.real}
    has_rsample = True

    def __init__(self, loc: Any, scale: Any, concentration: Any, validate_args: bool | None = None) -> None:
        self.loc, self.scale, self.concentration = broadcast(loc, scale, concentration)
        super().__init__(self.loc.shape, validate_args=validate_args)

    @property
    def support(self) -> Any:
        k = self.concentration
        end = self.loc - self.scale / gg.where(k < 0, k, -1.0)
        return c.interval(self.loc, gg.where(k < 0, end, math.inf))

    def _bent(self) -> tuple[Any, Any]:
        """Where the concentration is too near 0 to divide by, and one that is not."""
        flat = self.concentration.abs() < 2 * gg.finfo(self.loc.dtype).eps
        return flat, gg.where(flat, 1.0, self.concentration)

    def _log_survival(self, value: Any) -> Any:
        flat, k = self._bent()
        z = (value - self.loc) / self.scale
        return gg.where(flat, -z, -gg.log1p(k * z) / k)

    def rsample(self, sample_shape: Any = ()) -> Any:
        return self.icdf(uniform_open(self._extended_shape(sample_shape), self.loc))

    def log_prob(self, value: Any) -> Any:
        return (1 + self.concentration) * self._log_survival(self._check(value)) - self.scale.log()

    def log_survival_function(self, value: Any) -> Any:
        """Logarithm of the probability of more than ``value``."""
        return self._log_survival(self._check(value))

    def log_cdf(self, value: Any) -> Any:
        """Logarithm of :meth:`cdf`."""
        return gg.log(-gg.expm1(self._log_survival(self._check(value))))

    def cdf(self, value: Any) -> Any:
        return -gg.expm1(self._log_survival(self._check(value)))

    def icdf(self, value: Any) -> Any:
        flat, k = self._bent()
        depth = -gg.log1p(-value)
        return self.loc + self.scale * gg.where(flat, depth, gg.expm1(k * depth) / k)

    @property
    def mean(self) -> Any:
        k = self.concentration
        return gg.where(k < 1, self.loc + self.scale / (1 - k), math.inf)

    @property
    def variance(self) -> Any:
        k = self.concentration
        return gg.where(k < 0.5, self.scale.square() / ((1 - k).square() * (1 - 2 * k)), math.inf)

    @property
    def mode(self) -> Any:
        return self.loc

    def entropy(self) -> Any:
        return self.scale.log() + self.concentration + 1


class ContinuousBernoulli(ProbsOrLogits):
    """On [0, 1] with a density proportional to probs**x (1 - probs)**(1 - x) (Loaiza-Ganem and Cunningham, 2019).
    Between ``lims``, where the formulas divide by nearly 0, series stand for them."""

    arg_constraints = {"probs": c.unit_interval, "logits": c.real}
    support = c.unit_interval
    has_rsample = True

    def __init__(
        self,
        probs: Any = None,
        logits: Any = None,
        lims: tuple[float, float] = (0.499, 0.501),
        validate_args: bool | None = None,
    ) -> None:
        name, value = one_of("ContinuousBernoulli", probs=probs, logits=logits)
        (value,) = broadcast(value)
        self._lims = lims
        self.__dict__[name] = value
        super().__init__(value.shape, validate_args=validate_args)
        if name == "probs":
            self.probs = clamp_probs(value)

    def _probs_of(self, logits: Any) -> Any:
        return clamp_probs(super()._probs_of(logits))

    def _away(self) -> tuple[Any, Any, Any]:
        """Where probs is outside ``lims``; there probs itself; its squared distance from 1/2."""
        p = self.probs
        outside = (p <= self._lims[0]) | (p > self._lims[1])
        return outside, gg.where(outside, p, self._lims[0]), (p - 0.5).square()

    def _log_norm(self) -> Any:
        outside, p, square = self._away()
        exact = gg.log((gg.log1p(-p) - p.log()) / (1 - 2 * p))
        return gg.where(outside, exact, math.log(2.0) + (4 / 3 + 104 / 45 * square) * square)

    @property
    def mean(self) -> Any:
        outside, p, square = self._away()
        exact = p / (2 * p - 1) + 1 / (gg.log1p(-p) - p.log())
        return gg.where(outside, exact, 0.5 + (1 / 3 + 16 / 45 * square) * (self.probs - 0.5))

    @property
    def variance(self) -> Any:
        outside, p, square = self._away()
        exact = p * (p - 1) / (1 - 2 * p).square() + 1 / (gg.log1p(-p) - p.log()).square()
        return gg.where(outside, exact, 1 / 12 - (1 / 15 - 128 / 945 * square) * square)

    @property
    def param_shape(self) -> Any:
        """Shape of probs and logits."""
        return self._batch_shape

    def rsample(self, sample_shape: Any = ()) -> Any:
        return self.icdf(uniform_open(self._extended_shape(sample_shape), self.probs))

    def log_prob(self, value: Any) -> Any:
        value = self._check(value)
        logits = self.logits
        return value * logits - gg.nn.functional.softplus(logits) + self._log_norm()

    def cdf(self, value: Any) -> Any:
        value = self._check(value)
        outside, p, _ = self._away()
        exact = (p**value * (1 - p) ** (1 - value) + p - 1) / (2 * p - 1)
        inside = gg.where(outside, exact, value)
        return gg.where(value <= 0, 0.0, gg.where(value >= 1, 1.0, inside))

    def icdf(self, value: Any) -> Any:
        outside, p, _ = self._away()
        exact = (gg.log1p(-p + value * (2 * p - 1)) - gg.log1p(-p)) / (p.log() - gg.log1p(-p))
        return gg.where(outside, exact, value)

    def entropy(self) -> Any:
        return -self.mean * self.logits + gg.nn.functional.softplus(self.logits) - self._log_norm()


class LogisticNormal(TransformedDistribution):
    """Points of the simplex: normal vectors through :class:`StickBreakingTransform`."""

    arg_constraints = {"loc": c.real, "scale": c.positive}
    support = c.simplex

    def __init__(self, loc: Any, scale: Any, validate_args: bool | None = None) -> None:
        base = Normal(loc, scale, validate_args=validate_args)
        base = base if base.batch_shape else base.expand((1,))
        super().__init__(base, StickBreakingTransform(), validate_args=validate_args)

    @property
    def loc(self) -> Any:
        """Mean of the normal vectors."""
        return self.base_dist.loc

    @property
    def scale(self) -> Any:
        """Their standard deviations."""
        return self.base_dist.scale

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        base = self.base_dist.expand((*batch_shape, self.loc.shape[-1]))
        return LogisticNormal(base.loc, base.scale, validate_args=False)


class VonMises(Distribution):
    """Angles in [-pi, pi) around ``loc``; ``concentration`` is about the reciprocal of the variance."""

    arg_constraints = {"loc": c.real, "concentration": c.positive}
    support = c.real

    def __init__(self, loc: Any, concentration: Any, validate_args: bool | None = None) -> None:
        self.loc, self.concentration = broadcast(loc, concentration)
        super().__init__(self.loc.shape, validate_args=validate_args)

    @property
    def mean(self) -> Any:
        return self.loc

    @property
    def mode(self) -> Any:
        return self.loc

    @property
    def variance(self) -> Any:
        """One minus the length of the mean direction (circular)."""
        return 1 - gg.special.i1e(self.concentration) / gg.special.i0e(self.concentration)

    def log_prob(self, value: Any) -> Any:
        lowered = self.concentration * (gg.cos(self._check(value) - self.loc) - 1)
        return lowered - math.log(2 * math.pi) - gg.special.i0e(self.concentration).log()

    def sample(self, sample_shape: Any = ()) -> Any:
        """By rejection from a wrapped Cauchy distribution (D. J. Best and N. I. Fisher, Applied Statistics 28,
        1979), in a form without differences of nearly equal numbers."""
        with gg.no_grad():
            shape = tuple(self._extended_shape(sample_shape))
            k = self.concentration.clamp(min=1e-6).expand(shape)
            root = (1 + 4 * k.square()).sqrt()
            below = root + 1 + (2 + 2 * root).sqrt()
            rho = 2 * k / below
            short = (1 + 1 / (root + 2 * k) + (2 + 2 * root).sqrt()) / below  # 1 - rho
            r_less_1 = short.square() / (2 * rho)
            r_squared_less_1 = r_less_1 * (1 + rho).square() / (2 * rho)
            angle, waiting = gg.zeros_like(k), gg.ones_like(k, dtype=gg.bool)
            while bool(waiting.any()):
                turn, u = uniform_open(shape, k), uniform_open(shape, k)
                above = 2 * (math.pi / 2 * turn).cos().square()  # 1 + z, z = cos(pi turn)
                gap = r_less_1 * (2 - above) / (r_less_1 + above)  # 1 - f, f the cosine of the angle
                choice = k * r_squared_less_1 / (r_less_1 + above)
                accepted = (choice * (2 - choice) > u) | (gg.log(choice / u) + 1 - choice >= 0)
                here = waiting & accepted
                angle = gg.where(here, 2 * gg.asin((gap / 2).clamp(0, 1).sqrt()), angle)
                waiting = waiting & ~accepted
            side = gg.where(uniform_open(shape, k) < 0.5, -1.0, 1.0)
            return gg.remainder(side * angle + self.loc + math.pi, 2 * math.pi) - math.pi
