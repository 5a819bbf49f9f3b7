"""Distributions made of distributions, and relaxations of discrete ones."""

from __future__ import annotations

import math
from typing import Any

import gpugrad as gg
from gpugrad.distributions import constraints as c
from gpugrad.distributions.discrete import Categorical
from gpugrad.distributions.distribution import (
    Distribution,
    ProbsOrLogits,
    broadcast,
    clamp_probs,
    one_of,
    sum_last,
    uniform_open,
)


class Independent(Distribution):
    """``base_distribution`` with the last ``reinterpreted_batch_ndims`` batch dimensions counted as part of
    one event, whose probability is the product of theirs."""

    def __init__(
        self, base_distribution: Any, reinterpreted_batch_ndims: int, validate_args: bool | None = None
    ) -> None:
        if reinterpreted_batch_ndims > len(base_distribution.batch_shape):
            raise ValueError(
                f"Independent: {reinterpreted_batch_ndims} dimensions wanted of batch shape "
                f"{tuple(base_distribution.batch_shape)}"
            )
        self.base_dist, self.reinterpreted_batch_ndims = base_distribution, reinterpreted_batch_ndims
        shape = base_distribution.batch_shape + base_distribution.event_shape
        cut = len(base_distribution.batch_shape) - reinterpreted_batch_ndims
        super().__init__(shape[:cut], shape[cut:], validate_args=validate_args)

    @property
    def has_rsample(self) -> bool:  # type: ignore[override]
        return self.base_dist.has_rsample

    @property
    def support(self) -> Any:
        return c.independent(self.base_dist.support, self.reinterpreted_batch_ndims)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        held = self._event_shape[: self.reinterpreted_batch_ndims]
        return Independent(self.base_dist.expand((*batch_shape, *held)), self.reinterpreted_batch_ndims, False)

    @property
    def mean(self) -> Any:
        return self.base_dist.mean

    @property
    def mode(self) -> Any:
        return self.base_dist.mode

    @property
    def variance(self) -> Any:
        return self.base_dist.variance

    def sample(self, sample_shape: Any = ()) -> Any:
        return self.base_dist.sample(sample_shape)

    def rsample(self, sample_shape: Any = ()) -> Any:
        return self.base_dist.rsample(sample_shape)

    def log_prob(self, value: Any) -> Any:
        return sum_last(self.base_dist.log_prob(value), self.reinterpreted_batch_ndims)

    def entropy(self) -> Any:
        return sum_last(self.base_dist.entropy(), self.reinterpreted_batch_ndims)

    def __repr__(self) -> str:
        return f"Independent({self.base_dist}, {self.reinterpreted_batch_ndims})"


class MixtureSameFamily(Distribution):
    """One of the members in the last batch dimension of ``component_distribution``, chosen with the
    probabilities of the Categorical ``mixture_distribution``."""

    def __init__(
        self, mixture_distribution: Any, component_distribution: Any, validate_args: bool | None = None
    ) -> None:
        if not isinstance(mixture_distribution, Categorical):
            raise ValueError("MixtureSameFamily: the mixture distribution must be a Categorical")
        if not isinstance(component_distribution, Distribution):
            got = type(component_distribution).__name__
            raise ValueError(f"MixtureSameFamily: the components must be a Distribution, not {got}")
        members = component_distribution.batch_shape[-1] if component_distribution.batch_shape else None
        if members != mixture_distribution.logits.shape[-1]:
            raise ValueError(
                f"MixtureSameFamily: {mixture_distribution.logits.shape[-1]} weights for components of batch shape "
                f"{tuple(component_distribution.batch_shape)}, whose last size must be the same"
            )
        self.mixture_distribution, self.component_distribution = mixture_distribution, component_distribution
        super().__init__(
            component_distribution.batch_shape[:-1], component_distribution.event_shape, validate_args=validate_args
        )

    @property
    def support(self) -> Any:
        return self.component_distribution.support

    def _pad(self, x: Any) -> Any:
        return x.unsqueeze(-1 - len(self._event_shape))

    def _weights(self) -> Any:
        probs = self.mixture_distribution.probs
        return probs.reshape(*probs.shape, *(1,) * len(self._event_shape))

    @property
    def mean(self) -> Any:
        return (self._weights() * self.component_distribution.mean).sum(-1 - len(self._event_shape))

    @property
    def variance(self) -> Any:
        axis = -1 - len(self._event_shape)
        within = (self._weights() * self.component_distribution.variance).sum(axis)
        apart = (self.component_distribution.mean - self._pad(self.mean)).square()
        return within + (self._weights() * apart).sum(axis)

    def sample(self, sample_shape: Any = ()) -> Any:
        with gg.no_grad():
            axis = len(sample_shape) + len(self._batch_shape)
            drawn = self.component_distribution.sample(sample_shape)
            chosen = self.mixture_distribution.expand(tuple(self._batch_shape)).sample(sample_shape)
            index = chosen.reshape(*chosen.shape, 1, *(1,) * len(self._event_shape))
            index = index.expand(*chosen.shape, 1, *self._event_shape)
            return drawn.gather(axis, index).squeeze(axis)

    def log_prob(self, value: Any) -> Any:
        logs = self.component_distribution.log_prob(self._pad(self._check(value)))
        return gg.logsumexp(logs + gg.log_softmax(self.mixture_distribution.logits, dim=-1), dim=-1)

    def cdf(self, value: Any) -> Any:
        return (self.component_distribution.cdf(self._pad(value)) * self.mixture_distribution.probs).sum(-1)

    def __repr__(self) -> str:
        return f"MixtureSameFamily({self.mixture_distribution}, {self.component_distribution})"


class RelaxedBernoulli(ProbsOrLogits):
    """Bernoulli smoothed by ``temperature`` so that samples have gradients: the sigmoid of logistic noise
    about the logits (Maddison et al., 2017)."""

    arg_constraints = {"probs": c.unit_interval, "logits": c.real}
    support = c.unit_interval
    has_rsample = True

    def __init__(
        self, temperature: Any, probs: Any = None, logits: Any = None, validate_args: bool | None = None
    ) -> None:
        name, value = one_of("RelaxedBernoulli", probs=probs, logits=logits)
        (value,) = broadcast(value)
        self.temperature = temperature
        self.__dict__[name] = value
        super().__init__(value.shape, validate_args=validate_args)

    def rsample(self, sample_shape: Any = ()) -> Any:
        u = clamp_probs(uniform_open(self._extended_shape(sample_shape), self.logits))
        return gg.sigmoid((u.log() - gg.log1p(-u) + self.logits) / self.temperature)

    def log_prob(self, value: Any) -> Any:
        value = clamp_probs(self._check(value))
        x = value.log() - gg.log1p(-value)
        difference = self.logits - x * self.temperature
        t = self.temperature
        log_t = t.log() if isinstance(t, gg.Tensor) else math.log(t)
        density = log_t + difference - 2 * gg.nn.functional.softplus(difference)
        return density - value.log() - gg.log1p(-value)


class RelaxedOneHotCategorical(Distribution):
    """One-hot vectors smoothed by ``temperature`` (Gumbel-softmax; Jang et al., 2017)."""

    arg_constraints = {"probs": c.simplex, "logits": c.real_vector}
    support = c.simplex
    has_rsample = True

    def __init__(
        self, temperature: Any, probs: Any = None, logits: Any = None, validate_args: bool | None = None
    ) -> None:
        self._categorical = Categorical(probs, logits, validate_args)
        self.temperature = temperature
        shape = self._categorical.param_shape
        super().__init__(shape[:-1], shape[-1:], validate_args=validate_args)

    @property
    def probs(self) -> Any:
        """Probabilities in the last dimension."""
        return self._categorical.probs

    @property
    def logits(self) -> Any:
        """Their logarithms."""
        return self._categorical.logits

    def rsample(self, sample_shape: Any = ()) -> Any:
        u = clamp_probs(uniform_open(self._extended_shape(sample_shape), self.logits))
        return gg.softmax((self.logits - (-u.log()).log()) / self.temperature, dim=-1)

    def log_prob(self, value: Any) -> Any:
        k, t = self._event_shape[0], self.temperature
        log_t = t.log() if isinstance(t, gg.Tensor) else math.log(t)
        logs = self._check(value).log()
        score = self.logits - logs * t
        score = (score - score.logsumexp(dim=-1, keepdim=True)).sum(-1)
        return score + math.lgamma(k) + log_t * (k - 1) - logs.sum(-1)
