"""Discrete distributions."""

from __future__ import annotations

import math
from typing import Any

import gpugrad as gg
from gpugrad.distributions import constraints as c
from gpugrad.distributions.distribution import (
    Distribution,
    ProbsOrLogits,
    broadcast,
    one_of,
)
from gpugrad.distributions.gamma import Gamma
from gpugrad.nn.functional import binary_cross_entropy_with_logits, one_hot, softplus


class _Binary(ProbsOrLogits):
    """Given by the probability ``probs`` of a success or its ``logits``; the other is derived."""

    arg_constraints = {"probs": c.unit_interval, "logits": c.real}

    def _take(self, probs: Any, logits: Any, *others: Any) -> tuple[Any, ...]:
        name, value = one_of(type(self).__name__, probs=probs, logits=logits)
        value, *rest = broadcast(value, *others)
        self.__dict__[name] = value
        return tuple(rest)

    @property
    def param_shape(self) -> Any:
        """Shape of the parameter that was given."""
        return self._param.size()


class Bernoulli(_Binary):
    """1 with probability ``probs``, else 0."""

    support = c.boolean
    has_enumerate_support = True

    def __init__(self, probs: Any = None, logits: Any = None, validate_args: bool | None = None) -> None:
        self._take(probs, logits)
        super().__init__(self._param.shape, validate_args=validate_args)

    @property
    def mean(self) -> Any:
        return self.probs

    @property
    def mode(self) -> Any:
        mode = (self.probs >= 0.5).to(self.probs.dtype)
        return gg.where(self.probs == 0.5, math.nan, mode)

    @property
    def variance(self) -> Any:
        return self.probs * (1 - self.probs)

    def sample(self, sample_shape: Any = ()) -> Any:
        with gg.no_grad():
            return gg.bernoulli(self.probs.expand(tuple(self._extended_shape(sample_shape))))

    def log_prob(self, value: Any) -> Any:
        logits, value = gg.broadcast_tensors(self.logits, self._check(value))
        return -binary_cross_entropy_with_logits(logits, value.to(logits.dtype), reduction="none")

    def entropy(self) -> Any:
        return binary_cross_entropy_with_logits(self.logits, self.probs, reduction="none")

    def enumerate_support(self, expand: bool = True) -> Any:
        values = gg.arange(2, dtype=self._param.dtype, device=self._param.device)
        values = values.view(-1, *(1,) * len(self._batch_shape))
        return values.expand(-1, *self._batch_shape) if expand else values


class Geometric(_Binary):
    """The number of failures before the first success."""

    support = c.nonnegative_integer

    def __init__(self, probs: Any = None, logits: Any = None, validate_args: bool | None = None) -> None:
        self._take(probs, logits)
        super().__init__(self._param.shape, validate_args=validate_args)
        if self._validate_args and probs is not None and not bool((self.probs > 0).all()):
            raise ValueError(f"Geometric: probs must be above 0, got {self.probs}")

    @property
    def mean(self) -> Any:
        return 1 / self.probs - 1

    @property
    def mode(self) -> Any:
        return gg.zeros_like(self.probs)

    @property
    def variance(self) -> Any:
        return (1 / self.probs - 1) / self.probs

    def sample(self, sample_shape: Any = ()) -> Any:
        with gg.no_grad():
            shape = tuple(self._extended_shape(sample_shape))
            u = gg.rand(shape, dtype=self.probs.dtype, device=self.probs.device)
            return (gg.log(u.clamp(min=gg.finfo(u.dtype).tiny)) / gg.log1p(-self.probs)).floor()

    def log_prob(self, value: Any) -> Any:
        value, probs = gg.broadcast_tensors(self._check(value), self.probs)
        probs = gg.where((probs == 1) & (value == 0), 0.0, probs)
        return value * gg.log1p(-probs) + self.probs.log()

    def entropy(self) -> Any:
        return binary_cross_entropy_with_logits(self.logits, self.probs, reduction="none") / self.probs


class Binomial(_Binary):
    """The number of successes in ``total_count`` trials."""

    arg_constraints = {"total_count": c.nonnegative_integer, "probs": c.unit_interval, "logits": c.real}

    def __init__(
        self, total_count: Any = 1, probs: Any = None, logits: Any = None, validate_args: bool | None = None
    ) -> None:
        (self.total_count,) = self._take(probs, logits, total_count)
        super().__init__(self._param.shape, validate_args=validate_args)

    @property
    def support(self) -> Any:
        return c.integer_interval(0, self.total_count)

    @property
    def mean(self) -> Any:
        return self.total_count * self.probs

    @property
    def mode(self) -> Any:
        return gg.minimum(((self.total_count + 1) * self.probs).floor(), self.total_count)

    @property
    def variance(self) -> Any:
        return self.total_count * self.probs * (1 - self.probs)

    def sample(self, sample_shape: Any = ()) -> Any:
        with gg.no_grad():
            shape = tuple(self._extended_shape(sample_shape))
            return gg.binomial(self.total_count.expand(shape), self.probs.expand(shape))

    def log_prob(self, value: Any) -> Any:
        value = self._check(value)
        ways = gg.lgamma(self.total_count + 1) - gg.lgamma(value + 1) - gg.lgamma(self.total_count - value + 1)
        return ways + value * self.logits - self.total_count * softplus(self.logits)

    def entropy(self) -> Any:
        values = self.enumerate_support(expand=False)
        logs = self.log_prob(values)
        return -(logs.exp() * logs).sum(0)

    def enumerate_support(self, expand: bool = True) -> Any:
        most = int(self.total_count.max().item())
        if int(self.total_count.min().item()) != most:
            raise NotImplementedError("Binomial: total_count differs between members, so does the number of values")
        values = gg.arange(1 + most, dtype=self._param.dtype, device=self._param.device)
        values = values.view(-1, *(1,) * len(self._batch_shape))
        return values.expand(-1, *self._batch_shape) if expand else values


class NegativeBinomial(_Binary):
    """The number of successes, of probability ``probs``, before ``total_count`` failures."""

    arg_constraints = {"total_count": c.nonnegative, "probs": c.unit_interval, "logits": c.real}
    support = c.nonnegative_integer

    def __init__(
        self, total_count: Any, probs: Any = None, logits: Any = None, validate_args: bool | None = None
    ) -> None:
        (self.total_count,) = self._take(probs, logits, total_count)
        super().__init__(self._param.shape, validate_args=validate_args)

    @property
    def mean(self) -> Any:
        return self.total_count * gg.exp(self.logits)

    @property
    def mode(self) -> Any:
        return ((self.total_count - 1) * self.logits.exp()).floor().clamp(min=0.0)

    @property
    def variance(self) -> Any:
        return self.mean / gg.sigmoid(-self.logits)

    def sample(self, sample_shape: Any = ()) -> Any:
        with gg.no_grad():
            rate = Gamma(self.total_count, gg.exp(-self.logits), validate_args=False).sample(sample_shape)
            return gg.poisson(rate)

    def log_prob(self, value: Any) -> Any:
        value = self._check(value)
        logsigmoid = gg.nn.functional.logsigmoid
        unnormalised = self.total_count * logsigmoid(-self.logits) + value * logsigmoid(self.logits)
        norm = -gg.lgamma(self.total_count + value) + gg.lgamma(1.0 + value) + gg.lgamma(self.total_count)
        return unnormalised - gg.where(self.total_count + value == 0, 0.0, norm)


class Poisson(Distribution):
    """Counts of independent events, ``rate`` of them on average."""

    arg_constraints = {"rate": c.nonnegative}
    support = c.nonnegative_integer

    def __init__(self, rate: Any, validate_args: bool | None = None) -> None:
        (self.rate,) = broadcast(rate)
        super().__init__(self.rate.shape, validate_args=validate_args)

    @property
    def mean(self) -> Any:
        return self.rate

    @property
    def mode(self) -> Any:
        return self.rate.floor()

    @property
    def variance(self) -> Any:
        return self.rate

    def sample(self, sample_shape: Any = ()) -> Any:
        with gg.no_grad():
            return gg.poisson(self.rate.expand(tuple(self._extended_shape(sample_shape))))

    def log_prob(self, value: Any) -> Any:
        value = self._check(value)
        return gg.xlogy(value, self.rate) - self.rate - gg.lgamma(value + 1)


class Categorical(ProbsOrLogits):
    """The numbers 0 to k-1 with weights in the last dimension of ``probs``, or with ``logits``."""

    arg_constraints = {"probs": c.independent(c.nonnegative, 1), "logits": c.real_vector}
    has_enumerate_support = True
    _binary = False

    def __init__(self, probs: Any = None, logits: Any = None, validate_args: bool | None = None) -> None:
        name, value = one_of("Categorical", probs=probs, logits=logits)
        if value.dim() < 1:
            raise ValueError(f"Categorical: {name} must have at least one dimension")
        if name == "probs":
            if validate_args is not False and self._validate_args and not bool((value.detach() >= 0).all()):
                raise ValueError(f"Categorical: probs must not be negative, got {value}")
            self.probs = value / value.sum(-1, keepdim=True)
        else:
            self.logits = value - value.logsumexp(dim=-1, keepdim=True)
        self._num_events = self._param.size(-1)
        super().__init__(self._param.shape[:-1], validate_args=validate_args)

    @property
    def support(self) -> Any:
        return c.integer_interval(0, self._num_events - 1)

    @property
    def param_shape(self) -> Any:
        """Shape of the parameter that was given."""
        return self._param.size()

    @property
    def mean(self) -> Any:
        return gg.full(tuple(self._batch_shape), math.nan, dtype=self._param.dtype, device=self._param.device)

    @property
    def variance(self) -> Any:
        return self.mean

    @property
    def mode(self) -> Any:
        return self.probs.argmax(dim=-1)

    def sample(self, sample_shape: Any = ()) -> Any:
        with gg.no_grad():
            rows = self.probs.reshape(-1, self._num_events)
            count = math.prod(sample_shape)
            if not count:
                shape = tuple(self._extended_shape(sample_shape))
                return gg.zeros(shape, dtype=gg.int64, device=rows.device)
            return gg.multinomial(rows, count, True).t().reshape(tuple(self._extended_shape(sample_shape)))

    def log_prob(self, value: Any) -> Any:
        value = self._check(value).long().unsqueeze(-1)
        value, logs = gg.broadcast_tensors(value, self.logits)
        return logs.gather(-1, value[..., :1]).squeeze(-1)

    def entropy(self) -> Any:
        logits = self.logits.clamp(min=gg.finfo(self.logits.dtype).min)
        return -(logits * self.probs).sum(-1)

    def enumerate_support(self, expand: bool = True) -> Any:
        values = gg.arange(self._num_events, device=self._param.device).view(-1, *(1,) * len(self._batch_shape))
        return values.expand(-1, *self._batch_shape) if expand else values


class OneHotCategorical(Distribution):
    """:class:`Categorical` with samples as one-hot vectors."""

    arg_constraints = {"probs": c.simplex, "logits": c.real_vector}
    support = c.one_hot
    has_enumerate_support = True

    def __init__(self, probs: Any = None, logits: Any = None, validate_args: bool | None = None) -> None:
        self._categorical = Categorical(probs, logits, validate_args)
        shape = self._categorical.param_shape
        super().__init__(shape[:-1], shape[-1:], validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        new = super().expand(batch_shape)
        new._categorical = self._categorical.expand(batch_shape)
        return new

    @property
    def probs(self) -> Any:
        """Probabilities in the last dimension."""
        return self._categorical.probs

    @property
    def logits(self) -> Any:
        """Their logarithms."""
        return self._categorical.logits

    @property
    def param_shape(self) -> Any:
        """Shape of ``probs`` and ``logits``."""
        return self._categorical.param_shape

    @property
    def mean(self) -> Any:
        return self.probs

    @property
    def mode(self) -> Any:
        return one_hot(self.probs.argmax(-1), self._event_shape[0]).to(self.probs.dtype)

    @property
    def variance(self) -> Any:
        return self.probs * (1 - self.probs)

    def sample(self, sample_shape: Any = ()) -> Any:
        return one_hot(self._categorical.sample(sample_shape), self._event_shape[0]).to(self.probs.dtype)

    def log_prob(self, value: Any) -> Any:
        return self._categorical.log_prob(self._check(value).argmax(-1))

    def entropy(self) -> Any:
        return self._categorical.entropy()

    def enumerate_support(self, expand: bool = True) -> Any:
        n = self._event_shape[0]
        values = gg.eye(n, dtype=self.probs.dtype, device=self.probs.device)
        values = values.view(n, *(1,) * len(self._batch_shape), n)
        return values.expand(n, *self._batch_shape, n) if expand else values


class OneHotCategoricalStraightThrough(OneHotCategorical):
    """With the gradient of ``probs`` passed straight through the sample (Bengio et al., 2013)."""

    has_rsample = True

    def rsample(self, sample_shape: Any = ()) -> Any:
        return self.sample(sample_shape) + (self.probs - self.probs.detach())


class Multinomial(Distribution):
    """How often each of k outcomes comes up in ``total_count`` draws."""

    arg_constraints = {"probs": c.simplex, "logits": c.real_vector}

    def __init__(
        self, total_count: int = 1, probs: Any = None, logits: Any = None, validate_args: bool | None = None
    ) -> None:
        if not isinstance(total_count, int):
            raise NotImplementedError("Multinomial: total_count must be one int; use several distributions")
        self.total_count = total_count
        self._categorical = Categorical(probs, logits, validate_args)
        shape = self._categorical.param_shape
        super().__init__(shape[:-1], shape[-1:], validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        new = super().expand(batch_shape)
        new._categorical = self._categorical.expand(batch_shape)
        return new

    @property
    def probs(self) -> Any:
        """Probabilities in the last dimension."""
        return self._categorical.probs

    @property
    def logits(self) -> Any:
        """Their logarithms."""
        return self._categorical.logits

    @property
    def param_shape(self) -> Any:
        """Shape of ``probs`` and ``logits``."""
        return self._categorical.param_shape

    @property
    def support(self) -> Any:
        return c.independent(c.integer_interval(0, self.total_count), 1)

    @property
    def mean(self) -> Any:
        return self.probs * self.total_count

    @property
    def variance(self) -> Any:
        return self.total_count * self.probs * (1 - self.probs)

    def sample(self, sample_shape: Any = ()) -> Any:
        drawn = self._categorical.sample((self.total_count, *sample_shape))
        return one_hot(drawn, self._event_shape[0]).sum(0).to(self.probs.dtype)

    def log_prob(self, value: Any) -> Any:
        logits, value = gg.broadcast_tensors(self.logits, self._check(value))
        ways = gg.lgamma(value.sum(-1) + 1) - gg.lgamma(value + 1).sum(-1)
        logits = gg.where((value == 0) & (logits == -math.inf), 0.0, logits)
        return ways + (logits * value).sum(-1)
