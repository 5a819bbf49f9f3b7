"""Random numbers of other distributions: poisson, binomial, and the tensor methods that fill with them.

One call takes one stream of the generator, however many rounds of rejection it needs: the rounds draw from
a generator of their own, seeded by that stream. So what a program draws next does not depend on values.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from gpugrad import dtypes, layout
from gpugrad.ops import elementwise as e
from gpugrad.ops import table
from gpugrad.ops.creation import cast, full_like, tensor
from gpugrad.ops.indexing import embedding
from gpugrad.ops.mapping import elementwise
from gpugrad.ops.movement import expand
from gpugrad.ops.reductions import any as any_
from gpugrad.ops.reductions import require_floating, wide_dtype
from gpugrad.ops.sampling import draw, fill
from gpugrad.ops.special_functions import erfinv
from gpugrad.ops.table import describe
from gpugrad.random import Generator, default_generator

_MIX = 0x9E3779B97F4A7C15  # 2**64 over the golden ratio: neighbouring streams get distant seeds
_INVERSION_BELOW = 10.0  # mean from which rejection is the better way
_MOST_STEPS = 64  # a Poisson number of mean 10 is above this with probability 1e-28

# log k! less Stirling's formula, for k below 10; see _tail.
_TAIL = tuple(
    math.lgamma(k + 1) - (0.5 * math.log(2 * math.pi) + (k + 0.5) * math.log(k + 1) - (k + 1)) for k in range(10)
)

_rate = elementwise(
    "poisson_rate",
    lambda a: a,
    "a",
    check=lambda a: a < 0,
    c_check="a < 0",
    error=(RuntimeError, "poisson: the rate {a} is negative"),
    samples=(),
)


def _rounds(generator: Generator | None) -> Generator:
    seed, stream = (generator or default_generator).next_stream()
    return Generator().manual_seed(seed + (stream + 1) * _MIX)


def _tail(k: Any) -> Any:
    """log k! - (log(2 pi)/2 + (k + 1/2) log(k + 1) - (k + 1)), for integers k >= 0 of a floating dtype."""
    few = tensor(_TAIL, dtype=k.dtype, device=k.device)
    small = embedding(cast(e.clamp(k, 0, 9), dtypes.int64), few)
    next_ = e.add(e.clamp_min(k, 9.0), 1.0)
    square = e.square(next_)
    series = e.div(e.sub(1 / 12, e.div(e.sub(1 / 360, e.div(1 / 1260, square)), square)), next_)
    return e.where(e.lt(k, 10), small, series)


def _until_accepted(
    result: Any, pending: Any, attempt: Callable[[Any, Any], tuple[Any, Any]], source: Generator
) -> Any:
    """``result`` with its ``pending`` elements replaced by the first candidate that ``attempt(u, v)``
    accepts, where u and v are uniform. Reads one flag back for each round."""
    shape = tuple(result._array.shape)
    while bool(any_(pending).item()):
        u = draw("uniform", shape, result.dtype, result._backend, source)
        v = draw("uniform", shape, result.dtype, result._backend, source)
        candidate, accepted = attempt(e.sub(u, 0.5), v)
        here = e.logical_and(pending, accepted)
        result, pending = e.where(here, candidate, result), e.logical_and(pending, e.logical_not(accepted))
    return result


def _by_inversion(first: Any, ratio: Callable[[int], Any], mean: Any, u: Any) -> Any:
    """The least k at which the probabilities, from ``first`` on each the one before times ``ratio(k)``, add
    up to more than ``u``. Past the mean it stops where they are too small to add up in this dtype."""
    p, count = first, full_like(u, 0)
    going = e.ge(u, p)
    for k in range(1, _MOST_STEPS + 1):
        u = e.sub(u, p)
        p = e.mul(p, ratio(k))
        count = e.add(count, cast(going, count.dtype))
        worth = e.logical_or(e.gt(p, 2.0**-30), e.lt(float(k), mean))
        going = e.logical_and(e.logical_and(going, e.ge(u, p)), worth)
    return count


def poisson(input: Any, generator: Generator | None = None) -> Any:
    """Poisson numbers whose means are the elements of ``input``, of its shape and floating dtype. By inversion
    for means below 10, else by W. Hörmann's transformed rejection (PTRS, Insurance: Mathematics and
    Economics 12, 1993). Raises RuntimeError for negative means and integers."""
    require_floating(input, "poisson")
    mean = cast(_rate(input.detach()), dtypes.from_numpy(wide_dtype(input._array.dtype)))
    source = _rounds(generator)
    large = e.logical_and(e.ge(mean, _INVERSION_BELOW), e.isfinite(mean))
    few = e.clamp_max(mean, _INVERSION_BELOW)
    u = draw("uniform", tuple(mean._array.shape), mean.dtype, mean._backend, source)
    result = _by_inversion(e.exp(e.neg(few)), lambda k: e.div(few, float(k)), few, u)
    result = e.where(e.isfinite(mean), result, mean)
    many = e.where(large, mean, _INVERSION_BELOW)
    b = e.add(e.mul(e.sqrt(many), 2.53), 0.931)
    a = e.sub(e.mul(b, 0.02483), 0.059)
    alpha = e.add(e.div(1.1328, e.sub(b, 3.4)), 1.1239)
    quick = e.sub(0.9277, e.div(3.6224, e.sub(b, 2.0)))

    def attempt(u: Any, v: Any) -> tuple[Any, Any]:
        us = e.sub(0.5, e.abs(u))
        k = e.floor(e.add(e.add(e.mul(e.add(e.div(e.mul(a, 2.0), us), b), u), many), 0.43))
        bound = e.log(e.div(e.mul(v, alpha), e.add(e.div(a, e.square(us)), b)))
        valid = e.ge(k, 0)
        k = e.where(valid, k, 0.0)
        beyond = e.sub(e.add(k, 1.0), many)
        log_p = e.sub(beyond, e.mul(e.add(k, 0.5), e.log1p(e.div(beyond, many))))
        log_p = e.sub(log_p, e.add(e.mul(e.log(e.mul(many, 2 * math.pi)), 0.5), _tail(k)))
        slow = e.logical_and(e.le(bound, log_p), e.logical_or(e.ge(us, 0.013), e.le(v, us)))
        fast = e.logical_and(e.ge(us, 0.07), e.le(v, quick))
        return k, e.logical_and(valid, e.logical_or(fast, slow))

    return cast(_until_accepted(result, large, attempt, source), input.dtype)


def binomial(count: Any, prob: Any, generator: Generator | None = None) -> Any:
    """How often each of ``count`` trials succeeds with probability ``prob`` (they broadcast, and have one floating
    dtype, which the result has). By inversion where fewer than 10 successes (or failures) are expected, else by
    W. Hörmann's transformed rejection (BTRS, J. Stat. Comput. Simul. 46, 1993). A count below 0 is 0, a
    probability is cut to [0, 1]. Raises ValueError for integers, RuntimeError for two dtypes."""
    for name, x in (("count", count), ("prob", prob)):
        if not table.as_tensor_arg("binomial", x).dtype.is_floating_point:
            raise ValueError(f"binomial: {name} must be floating-point, got {describe(x)}; convert it with .float()")
    if count.dtype is not prob.dtype:
        raise RuntimeError(f"binomial: count and prob must have one dtype, got {describe(count, prob)}")
    table.same_device("binomial", (count, prob))
    try:
        shape = layout.broadcast_shapes(count._array.shape, prob._array.shape)
    except ValueError as error:
        raise RuntimeError(f"binomial: {error}; got {describe(count, prob)}") from None
    kind = dtypes.from_numpy(wide_dtype(count._array.dtype))
    n, p = (expand(cast(x.detach(), kind), shape) for x in (count, prob))
    n, p = e.floor(e.clamp_min(n, 0.0)), e.clamp(p, 0.0, 1.0)
    flipped = e.gt(p, 0.5)
    p = e.where(flipped, e.sub(1.0, p), p)
    source = _rounds(generator)
    mean = e.mul(n, p)
    large = e.logical_and(e.ge(mean, _INVERSION_BELOW), e.isfinite(mean))
    u = draw("uniform", tuple(shape), kind, n._backend, source)
    few_n, few_p = e.where(large, 1.0, n), e.where(large, 0.0, p)
    odds = e.div(few_p, e.sub(1.0, few_p))
    none = e.exp(e.mul(few_n, e.log1p(e.neg(few_p))))
    result = _by_inversion(none, lambda k: e.mul(odds, e.div(e.sub(few_n, k - 1.0), float(k))), e.mul(few_n, few_p), u)
    attempt = _binomial_attempt(e.where(large, n, 100.0), e.where(large, p, 0.5))
    result = e.minimum(_until_accepted(result, large, attempt, source), n)
    return cast(e.where(flipped, e.sub(n, result), result), count.dtype)


def _binomial_attempt(n: Any, p: Any) -> Callable[[Any, Any], tuple[Any, Any]]:
    """One round of BTRS for p <= 1/2 and n p >= 10. The logarithms of ratios near 1 are written with
    log1p of the difference, so that float32 serves for large n too."""
    spread = e.sqrt(e.mul(e.mul(n, p), e.sub(1.0, p)))
    b = e.add(e.mul(spread, 2.53), 1.15)
    a = e.add(e.add(e.mul(b, 0.0248), e.mul(p, 0.01)), -0.0873)
    centre = e.add(e.mul(n, p), 0.5)
    quick = e.sub(0.92, e.div(4.2, b))
    alpha = e.mul(e.add(e.div(5.1, b), 2.83), spread)
    odds = e.div(p, e.sub(1.0, p))
    m = e.floor(e.mul(e.add(n, 1.0), p))
    rest_m = e.add(e.sub(n, m), 1.0)
    tails = e.add(_tail(m), _tail(e.sub(n, m)))

    def attempt(u: Any, v: Any) -> tuple[Any, Any]:
        us = e.sub(0.5, e.abs(u))
        k = e.floor(e.add(e.mul(e.add(e.div(e.mul(a, 2.0), us), b), u), centre))
        valid = e.logical_and(e.ge(k, 0), e.le(k, n))
        k = e.where(valid, k, m)
        bound = e.log(e.div(e.mul(v, alpha), e.add(e.div(a, e.square(us)), b)))
        rest_k, gap = e.add(e.sub(n, k), 1.0), e.sub(m, k)
        log_p = e.mul(e.add(m, 0.5), e.add(e.log1p(e.div(gap, e.add(k, 1.0))), e.log1p(e.div(gap, rest_m))))
        log_p = e.sub(log_p, e.mul(gap, e.log(e.div(e.mul(odds, rest_k), e.add(k, 1.0)))))
        log_p = e.add(log_p, e.mul(e.add(n, 1.0), e.log1p(e.div(e.neg(gap), rest_k))))
        log_p = e.add(log_p, e.sub(tails, e.add(_tail(k), _tail(e.sub(n, k)))))
        fast = e.logical_and(e.ge(us, 0.07), e.le(v, quick))
        return k, e.logical_and(valid, e.logical_or(fast, e.le(bound, log_p)))

    return attempt


def standard_gamma(concentration: Any, generator: Generator | None = None) -> Any:
    """Gamma numbers of shape ``concentration`` (floating, above 0) and rate 1: a cubed normal number is accepted
    or not (G. Marsaglia and W. W. Tsang, ACM Trans. Math. Software 26, 2000). Below 1 that of one more is drawn
    and multiplied by ``u ** (1 / concentration)``."""
    require_floating(concentration, "standard_gamma")
    a = cast(concentration.detach(), dtypes.from_numpy(wide_dtype(concentration._array.dtype)))
    source = _rounds(generator)
    shape = tuple(a._array.shape)
    small = e.lt(a, 1.0)
    d = e.sub(e.where(small, e.add(a, 1.0), a), 1 / 3)
    scale = e.div(1.0, e.sqrt(e.mul(d, 9.0)))

    def attempt(u: Any, v: Any) -> tuple[Any, Any]:
        x = e.mul(erfinv(e.mul(u, 2.0)), math.sqrt(2.0))
        base = e.add(e.mul(scale, x), 1.0)
        cubed = e.mul(e.square(base), base)
        positive = e.logical_and(e.gt(base, 0.0), e.isfinite(x))
        log = e.log(e.where(positive, cubed, 1.0))
        limit = e.add(e.mul(e.square(x), 0.5), e.mul(d, e.add(e.sub(1.0, cubed), log)))
        return e.mul(d, cubed), e.logical_and(positive, e.lt(e.log(v), limit))

    drawn = _until_accepted(full_like(a, 0), e.eq(a, a), attempt, source)
    u = draw("uniform", shape, a.dtype, a._backend, source)
    u = e.clamp_min(u, dtypes.finfo(a.dtype).tiny)
    boost = e.where(small, e.exp(e.div(e.log(u), a)), 1.0)
    return cast(e.mul(drawn, boost), concentration.dtype)


# -- in place ---------------------------------------------------------------------------


def _uniform(name: str, x: Any, generator: Generator | None, discrete: bool = False) -> Any:
    """Uniform numbers for the elements of ``x``, in float32 for half types (and integers, if allowed)."""
    if not discrete:
        require_floating(x, name)
    kind = dtypes.from_numpy(wide_dtype(x._array.dtype)) if x.dtype.is_floating_point else dtypes.float32
    return draw("uniform", tuple(x._array.shape), kind, x._backend, generator)


def exponential_(x: Any, lambd: float = 1.0, *, generator: Generator | None = None) -> Any:
    """Fill ``x`` with exponentially distributed numbers of rate ``lambd``, above 0. Raises RuntimeError for
    integers and a rate that is not above 0."""
    if not lambd > 0:
        raise RuntimeError(f"exponential_: the rate lambd must be above 0, got {lambd}")
    u = e.clamp_min(_uniform("exponential_", x, generator), 2.0**-25)
    return fill("exponential_", x, e.mul(e.log1p(e.neg(u)), -1.0 / lambd))


def geometric_(x: Any, p: float, *, generator: Generator | None = None) -> Any:
    """Fill ``x`` with geometrically distributed numbers: the trial, counted from 1, that first succeeds with
    probability ``p``. Raises RuntimeError unless 0 < p < 1."""
    if not 0 < p < 1:
        raise RuntimeError(f"geometric_: p must be between 0 and 1, both excluded, got {p}")
    u = _uniform("geometric_", x, generator, discrete=True)
    failures = e.floor(e.div(e.log1p(e.neg(u)), math.log1p(-p)))
    return fill("geometric_", x, e.add(failures, 1.0))


def cauchy_(x: Any, median: float = 0.0, sigma: float = 1.0, *, generator: Generator | None = None) -> Any:
    """Fill ``x`` with Cauchy-distributed numbers around ``median`` of half width ``sigma``. Raises
    RuntimeError for integers and sigma <= 0."""
    if not sigma > 0:
        raise RuntimeError(f"cauchy_: sigma must be above 0, got {sigma}")
    u = _uniform("cauchy_", x, generator)
    return fill("cauchy_", x, e.add(e.mul(e.tan(e.mul(e.sub(u, 0.5), math.pi)), sigma), median))


def log_normal_(x: Any, mean: float = 1.0, std: float = 2.0, *, generator: Generator | None = None) -> Any:
    """Fill ``x`` with numbers whose logarithm is normal with ``mean`` and ``std``. Raises RuntimeError for
    integers and std <= 0."""
    if not std > 0:
        raise RuntimeError(f"log_normal_: std must be above 0, got {std}")
    require_floating(x, "log_normal_")
    kind = dtypes.from_numpy(wide_dtype(x._array.dtype))
    z = draw("normal", tuple(x._array.shape), kind, x._backend, generator)
    return fill("log_normal_", x, e.exp(e.add(e.mul(z, std), mean)))
