"""Kullback-Leibler divergences between distributions of one kind, and the register of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import gpugrad as gg
from gpugrad.distributions import composed, continuous, discrete, gamma, multivariate, transforms
from gpugrad.distributions.distribution import sum_last

_RULES: dict[tuple[type, type], Callable[[Any, Any], Any]] = {}


def register_kl(type_p: type, type_q: type) -> Callable[[Callable[[Any, Any], Any]], Callable[[Any, Any], Any]]:
    """Decorator: the function computes ``kl_divergence(p, q)`` for these types and their subclasses."""

    def declare(function: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
        _RULES[type_p, type_q] = function
        return function

    return declare


def kl_divergence(p: Any, q: Any) -> Any:
    """Expected value under ``p`` of ``p.log_prob - q.log_prob``, of the batch shape of the two.
    Raises NotImplementedError if no rule for the two types is registered."""
    for a in type(p).__mro__:
        for b in type(q).__mro__:
            rule = _RULES.get((a, b))
            if rule is not None:
                return rule(p, q)
    raise NotImplementedError(
        f"kl_divergence: no formula for {type(p).__name__} and {type(q).__name__}; estimate it as the mean of "
        "p.log_prob(x) - q.log_prob(x) over samples x of p"
    )


@register_kl(continuous.Normal, continuous.Normal)
def _normal(p: Any, q: Any) -> Any:
    ratio = (p.scale / q.scale).square()
    return 0.5 * (ratio + ((p.loc - q.loc) / q.scale).square() - 1 - ratio.log())


@register_kl(transforms.LogNormal, transforms.LogNormal)
def _lognormal(p: Any, q: Any) -> Any:
    return _normal(p.base_dist, q.base_dist)


@register_kl(continuous.Laplace, continuous.Laplace)
def _laplace(p: Any, q: Any) -> Any:
    ratio = p.scale / q.scale
    distance = (p.loc - q.loc).abs()
    return -ratio.log() + distance / q.scale + ratio * gg.exp(-distance / p.scale) - 1


@register_kl(continuous.Exponential, continuous.Exponential)
def _exponential(p: Any, q: Any) -> Any:
    ratio = q.rate / p.rate
    return ratio - ratio.log() - 1


@register_kl(continuous.Uniform, continuous.Uniform)
def _uniform(p: Any, q: Any) -> Any:
    value = gg.log((q.high - q.low) / (p.high - p.low))
    return gg.where((q.low > p.low) | (q.high < p.high), math.inf, value)


@register_kl(continuous.HalfNormal, continuous.HalfNormal)
def _half_normal(p: Any, q: Any) -> Any:
    ratio = (p.scale / q.scale).square()
    return 0.5 * (ratio - 1 - ratio.log())


@register_kl(gamma.Gamma, gamma.Gamma)
def _gamma(p: Any, q: Any) -> Any:
    return (
        q.concentration * (p.rate / q.rate).log()
        + gg.lgamma(q.concentration)
        - gg.lgamma(p.concentration)
        + (p.concentration - q.concentration) * gg.digamma(p.concentration)
        + (q.rate - p.rate) * p.concentration / p.rate
    )


@register_kl(gamma.Dirichlet, gamma.Dirichlet)
def _dirichlet(p: Any, q: Any) -> Any:
    a, b = p.concentration, q.concentration
    total = a.sum(-1)
    norm = gg.lgamma(total) - gg.lgamma(b.sum(-1)) + (gg.lgamma(b) - gg.lgamma(a)).sum(-1)
    return norm + ((a - b) * (gg.digamma(a) - gg.digamma(total).unsqueeze(-1))).sum(-1)


@register_kl(gamma.Beta, gamma.Beta)
def _beta(p: Any, q: Any) -> Any:
    return _dirichlet(p._pair, q._pair)


@register_kl(discrete.Bernoulli, discrete.Bernoulli)
def _bernoulli(p: Any, q: Any) -> Any:
    softplus = gg.nn.functional.softplus
    yes = p.probs * (softplus(-q.logits) - softplus(-p.logits))
    no = (1 - p.probs) * (softplus(q.logits) - softplus(p.logits))
    yes = gg.where(q.probs == 0, math.inf, yes)
    no = gg.where(q.probs == 1, math.inf, no)
    return gg.where(p.probs == 0, 0.0, yes) + gg.where(p.probs == 1, 0.0, no)


@register_kl(discrete.Categorical, discrete.Categorical)
def _categorical(p: Any, q: Any) -> Any:
    terms = p.probs * (p.logits - q.logits)
    terms = gg.where((q.probs == 0).expand(terms.shape), math.inf, terms)
    return gg.where((p.probs == 0).expand(terms.shape), 0.0, terms).sum(-1)


@register_kl(discrete.OneHotCategorical, discrete.OneHotCategorical)
def _one_hot(p: Any, q: Any) -> Any:
    return _categorical(p._categorical, q._categorical)


@register_kl(discrete.Geometric, discrete.Geometric)
def _geometric(p: Any, q: Any) -> Any:
    return -p.entropy() - gg.log1p(-q.probs) / p.probs - q.logits


@register_kl(discrete.Poisson, discrete.Poisson)
def _poisson(p: Any, q: Any) -> Any:
    return p.rate * (p.rate.log() - q.rate.log()) - (p.rate - q.rate)


@register_kl(discrete.Binomial, discrete.Binomial)
def _binomial(p: Any, q: Any) -> Any:
    value = p.total_count * (p.probs * (p.logits - q.logits) + gg.log1p(-p.probs) - gg.log1p(-q.probs))
    return gg.where(p.total_count > q.total_count, math.inf, value)


@register_kl(multivariate.MultivariateNormal, multivariate.MultivariateNormal)
def _multivariate(p: Any, q: Any) -> Any:
    if p.event_shape != q.event_shape:
        raise ValueError(f"kl_divergence: event shapes {tuple(p.event_shape)} and {tuple(q.event_shape)} differ")
    n = p.event_shape[0]
    batch = gg.broadcast_shapes(p._tril.shape[:-2], q._tril.shape[:-2])
    factor = gg.linalg.solve_triangular(q._tril.expand(*batch, n, n), p._tril.expand(*batch, n, n), upper=False)
    distance = multivariate.mahalanobis(q._tril, q.loc - p.loc)
    return q._half_log_det() - p._half_log_det() + 0.5 * (factor.square().sum((-2, -1)) + distance - n)


@register_kl(composed.Independent, composed.Independent)
def _independent(p: Any, q: Any) -> Any:
    if p.reinterpreted_batch_ndims != q.reinterpreted_batch_ndims:
        raise NotImplementedError("kl_divergence: two Independent with different numbers of dimensions")
    return sum_last(kl_divergence(p.base_dist, q.base_dist), p.reinterpreted_batch_ndims)


@register_kl(transforms.TransformedDistribution, transforms.TransformedDistribution)
def _transformed(p: Any, q: Any) -> Any:
    same = [type(t) for t in p.transforms] == [type(t) for t in q.transforms]
    if not same or p.event_shape != q.event_shape:
        raise NotImplementedError("kl_divergence: two transformed distributions with different transforms")
    extra = len(p.event_shape) - len(p.base_dist.event_shape)
    return sum_last(kl_divergence(p.base_dist, q.base_dist), extra)
