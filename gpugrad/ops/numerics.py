"""The special functions of ``gpugrad/ops/special_functions.py`` on ndarrays, computed in float64; those of Bessel and
Airy are in ``gpugrad/ops/numerics_bessel.py``.

The twin of ``kernels/special.h``: the same methods, vectorised. The tables are read from
``kernels/coefficients.h``, so that they stand in one place. Loaded when first needed.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np

from gpugrad.backends import kernel_source
from gpugrad.ops.special import _scaled_erfc, erf, erfc

Array = Any  # numpy.ndarray of float64
EPS = 2.0**-53


@functools.cache
def table(name: str) -> Array:
    """The numbers of ``GG_<name>`` in kernels/coefficients.h."""
    found = re.search(rf"GG_{name}\[\] = \{{(.*?)\}};", kernel_source.text("coefficients.h"), re.DOTALL)
    if found is None:
        raise KeyError(name)
    return np.array([float(x) for x in found[1].replace(",", " ").split()])


def wide(function: Callable[..., Array]) -> Callable[..., Array]:
    """Computes ``function`` in float64, on flat arrays of one length; the result has the operands' dtype."""

    @functools.wraps(function)
    def call(*inputs: Any) -> Array:
        dtype = np.result_type(*inputs)
        arrays = np.broadcast_arrays(*[np.asarray(x, np.float64) for x in inputs])
        return function(*[a.ravel() for a in arrays]).reshape(arrays[0].shape).astype(dtype)

    return call


def choose(cases: list[tuple[Array, Callable[..., Array]]], *inputs: Array) -> Array:
    """Of the (condition, function) pairs the first whose condition is true, element by element, computed there
    only; NaN where none is."""
    result = np.full(inputs[0].shape, np.nan)
    free = np.ones(inputs[0].shape, bool)
    for condition, function in cases:
        here = free & condition
        if here.any():
            result[here] = function(*[x[here] for x in inputs])
            free &= ~here
    return result


def polynomial(name: str, x: Array) -> Array:
    return np.polyval(table(name)[::-1], x)


def chebyshev(name: str, t: Array) -> Array:
    c = table(name)
    one, two = np.zeros_like(t), np.zeros_like(t)
    for k in range(len(c) - 1, 0, -1):
        one, two = 2 * t * one - two + c[k], one
    return t * one - two + c[0] / 2


def constant(value: float) -> Callable[..., Array]:
    return lambda x, *others: np.full(x.shape, value)


# -- error function ---------------------------------------------------------------------------


def _grow(x: Array) -> Array:
    """exp(x^2), the square split so that its rounding error is not blown up."""
    x = np.minimum(np.abs(x), 30.0)
    coarse = np.trunc(x * 16.0) / 16.0
    return np.exp(coarse * coarse) * np.exp((x - coarse) * (x + coarse))


def _erfcx(x: Array) -> Array:
    return choose(
        [
            (x > 0.46875, _scaled_erfc),
            (x >= -0.46875, lambda x: _grow(x) * erfc(x)),
            (x < 0, lambda x: 2 * _grow(x) - _scaled_erfc(-x)),
        ],
        x,
    )


erfcx = wide(_erfcx)


def _erfc_inverse(q: Array, p: Array) -> Array:
    """The x with erfc(x) = q = 1 - p, q in (0, 1]: the formula of S. Winitzki, "A handy approximation for the
    error function and its inverse" (2008), then Halley's iteration."""
    log_term = np.log(q) + np.log(2 - q)
    h = 2 / (math.pi * 0.147) + log_term / 2
    x = np.where(p < 0.01, p * (math.sqrt(math.pi) / 2), np.sqrt(np.sqrt(h * h - log_term / 0.147) - h))
    start = x
    for _ in range(3):
        slope = 2 / math.sqrt(math.pi) * np.exp(-x * x)
        miss = np.where(p < 0.5, p - erf(x), erfc(x) - q) / slope
        x = np.where(slope == 0, x, x + miss / (1 - x * miss))
    tiny = (q < 1e-30) & (q > 0)
    if tiny.any():
        x[tiny] = _erfc_inverse_tiny(q[tiny], start[tiny])
    return np.where(q == 0, np.inf, x)


def _erfc_inverse_tiny(q: Array, x: Array) -> Array:
    """Newton's iteration on the logarithm: erfc itself loses its digits among the denormals."""
    for _ in range(3):
        scaled = _erfcx(x)
        x = x + (np.log(scaled) - x * x - np.log(q)) * scaled * (math.sqrt(math.pi) / 2)
    return x


@wide
def erfinv(x: Array) -> Array:
    size = np.abs(x)
    return choose(
        [(x == 0, lambda x, s: x), (size <= 1, lambda x, s: np.copysign(_erfc_inverse(1 - s, s), x))], x, size
    )


@wide
def ndtri(p: Array) -> Array:
    def inside(p: Array) -> Array:
        low = p < 0.5
        x = _erfc_inverse(np.where(low, 2 * p, 2 * (1 - p)), np.abs(1 - 2 * p)) * math.sqrt(2)
        return np.where(low, -x, x)

    return choose([((p >= 0) & (p <= 1), inside)], p)


@wide
def log_ndtr(x: Array) -> Array:
    t = x * math.sqrt(0.5)
    return choose(
        [
            (x < -1, lambda t: np.log(_erfcx(-t) / 2) - t * t),
            (x >= -1, lambda t: np.log1p(-erfc(t) / 2)),
        ],
        t,
    )


# -- gamma function ---------------------------------------------------------------------------


def _lgamma1p(x: Array) -> Array:
    """log gamma(1 + x) for |x| <= 1/2, accurate where it is tiny, as log gamma has a zero at 1; it has another at 2."""
    return x * polynomial("LGAMMA_1", x) + 0.0  # log gamma(1) is not -0


def _lgamma2p(x: Array) -> Array:
    return x * polynomial("LGAMMA_2", x)


def _stirling(x: Array) -> Array:
    return polynomial("STIRLING", 1 / (x * x)) / x


def _lgamma_medium(x: Array) -> Array:
    product = np.ones_like(x)
    for _ in range(7):
        large = x > 3
        x = np.where(large, x - 1, x)
        product = np.where(large, product * x, product)
    return _lgamma2p(x - 2) + np.log(product)


def _lgamma_leading(x: Array) -> Array:
    """(x - 1/2) log(x) - x for x >= 10. log(x) - 1 is taken in two parts, of which the first has few digits: rounding
    the logarithm of 10 alone would cost two units of the last place."""
    part, power = np.frexp(x)
    low = part < math.sqrt(0.5)
    part, power = np.where(low, 2 * part, part), power - low
    first = power * 0.693145751953125 - 1  # 16 digits of log 2, so that this is exact
    second = power * 1.42860682030941723212e-6 + np.log(part)
    return (x - 0.5) * first + ((x - 0.5) * second - 0.5)


def _lgamma_large(x: Array) -> Array:
    near = _lgamma_leading(x) + (0.5 * math.log(2 * math.pi) + _stirling(x))
    return np.where(x > 1e17, x * (np.log(x) - 1), near)


def _lgamma_positive(x: Array) -> Array:
    return choose(
        [
            (x < 0.5, lambda x: _lgamma1p(x) - np.log(x)),
            (x <= 1.25, lambda x: _lgamma1p(x - 1)),
            (x < 1.75, lambda x: polynomial("LGAMMA_MIDDLE", x - 1.5)),
            (x <= 3, lambda x: _lgamma2p(x - 2)),
            (x < 10, _lgamma_medium),
            (x >= 10, _lgamma_large),
        ],
        x,
    )


def _lgamma_negative(x: Array) -> Array:
    part = np.abs(np.sin(math.pi * (x - np.rint(x))))
    return math.log(math.pi) - np.log(part) - np.log(-x) - _lgamma_positive(-x)


def _lgamma(x: Array) -> Array:
    return choose(
        [
            (x > 0, _lgamma_positive),
            (x == np.floor(x), constant(np.inf)),
            (x > -1e-20, lambda x: -np.log(-x)),
            (x < 0, _lgamma_negative),
        ],
        x,
    )


lgamma = wide(_lgamma)


def _digamma_positive(x: Array) -> Array:
    result = np.zeros_like(x)
    for _ in range(10):
        small = x < 10
        result = np.where(small, result - 1 / x, result)
        x = np.where(small, x + 1, x)
    z = 1 / (x * x)
    return result + (np.log(x) - 0.5 / x - z * polynomial("BERNOULLI", z))


@wide
def digamma(x: Array) -> Array:
    return choose(
        [
            (x == 0, lambda x: np.copysign(np.inf, -x)),
            (x > 0, _digamma_positive),
            (x == np.floor(x), constant(np.nan)),
            (x < 0, lambda x: _digamma_positive(1 - x) - math.pi / np.tan(math.pi * (x - np.rint(x)))),
        ],
        x,
    )


def _zeta_positive(s: Array, q: Array) -> Array:
    """Hurwitz zeta for s > 1, q > 0 by the Euler-Maclaurin formula."""
    total, a = np.zeros_like(q), q
    open_ = np.ones(q.shape, bool)
    least = np.where(s < 60, 10 + s / 2, 40)
    for k in range(64):
        if k:
            open_ &= a < least
        if not open_.any():
            break
        term = np.where(open_, np.power(a, -s), 0.0)
        total = total + term
        a = np.where(open_, a + 1, a)
    w = np.power(a, -s)
    whole = np.power(a, 1 - s)  # for a large a, w alone may vanish
    tail = np.where(np.isinf(s), 0.0, whole / (s - 1) + w / 2)
    t = w * s / a
    for k, c in enumerate(table("EULER")):
        tail = tail + c * t
        t = t * (s + 2 * k + 1) * (s + 2 * k + 2) / (a * a)
    # Far down the tail vanishes while its formula, for a large s, does not converge.
    tail = np.where(w == 0, whole / (s - 1), tail)
    return np.where((total > 0) & (whole <= EPS / 8 * (s - 1) * total), total, total + tail)


def _zeta_negative(s: Array, q: Array) -> Array:
    """For q below 0 and a whole s: the terms below 0 mirrored, so that no loop is long."""
    below = _zeta_positive(s, np.ceil(q) - q) - _zeta_positive(s, 1 - q)
    return _zeta_positive(s, q - np.floor(q)) + np.where(np.fmod(s, 2) == 0, below, -below)


@wide
def zeta(s: Array, q: Array) -> Array:
    return choose(
        [
            (np.isnan(s) | np.isnan(q) | (s < 1), constant(np.nan)),
            (s == 1, constant(np.inf)),
            (q == np.inf, constant(0.0)),
            (q > 0, _zeta_positive),
            (q == np.floor(q), constant(np.inf)),
            ((s == np.floor(s)) & np.isfinite(s), _zeta_negative),
        ],
        s,
        q,
    )


# -- incomplete gamma functions ---------------------------------------------------------------


def _log1p_gap(mu: Array) -> Array:
    """mu - log(1 + mu)"""
    t = mu / (2 + mu)
    z = t * t
    total = np.zeros_like(mu)
    for k in range(18, 0, -1):
        total = total * z + 1.0 / (2 * k + 1)
    return np.where((mu < -0.5) | (mu > 1), mu - np.log1p(mu), t * (mu - 2 * z * total))


def _gamma_factor(a: Array, x: Array) -> Array:
    """x^a exp(-x) / gamma(a + 1)"""
    return choose(
        [
            (a < 10, lambda a, x: np.exp(a * np.log(x) - x - _lgamma_positive(a + 1))),
            (
                a >= 10,
                lambda a, x: np.exp(-a * _log1p_gap((x - a) / a) - _stirling(a)) / np.sqrt(2 * math.pi * a),
            ),
        ],
        a,
        x,
    )


def _igamma_temme(a: Array, x: Array, upper: bool) -> Array:
    """Temme's expansion for large a near x (NIST Handbook of Mathematical Functions, 2010, 8.12)."""
    mu = (x - a) / a
    gap = _log1p_gap(mu)
    eta = np.copysign(np.sqrt(2 * gap), mu)
    total = np.zeros_like(a)
    for row in table("TEMME").reshape(-1, 16)[::-1]:
        total = total / a + np.polyval(row[::-1], eta)
    rest = np.exp(-a * gap) / np.sqrt(2 * math.pi * a) * total
    side = eta * np.sqrt(a / 2)
    return erfc(side) / 2 + rest if upper else erfc(-side) / 2 - rest


def _igamma_series(a: Array, x: Array) -> Array:
    """The lower function by its power series."""
    term, total = np.ones_like(a), np.ones_like(a)
    for n in range(1, 2000):
        term = term * (x / (a + n))
        total = total + term
        if not (term > total * (EPS / 8)).any():
            break
    return _gamma_factor(a, x) * total


def _igamma_fraction(a: Array, x: Array) -> Array:
    """The upper function by its continued fraction (Lentz's evaluation)."""
    b = x + 1 - a
    c = np.full_like(a, np.inf)
    d = 1 / b
    f = d
    going = np.ones(a.shape, bool)
    for n in range(1, 2000):
        step = n * (a - n)
        b = b + 2
        d = 1 / (step * d + b)
        c = b + step / c
        change = c * d
        f = np.where(going, f * change, f)
        going &= ~(np.abs(change - 1) < EPS)
        if not going.any():
            break
    return _gamma_factor(a, x) * a * f


def _igamma_near_zero(a: Array, x: Array) -> Array:
    """The upper function as 1 - P, without the cancellation."""
    term, total = np.ones_like(a), np.zeros_like(a)
    for n in range(1, 40):
        term = term * (-x / n)
        total = total + term / (a + n)
    gamma = choose([(a <= 0.5, _lgamma1p), (a > 0.5, lambda a: _lgamma_positive(a + 1))], a)
    power = a * np.log(x) - gamma
    return -np.expm1(power) - a * np.exp(power) * total


def _igamma(a: Array, x: Array, upper: bool) -> Array:
    bad = ~((a >= 0) & (x >= 0)) | ((a == 0) & (x == 0)) | (np.isinf(a) & np.isinf(x))
    cases: list[tuple[Array, Callable[..., Array]]] = [
        (bad, constant(np.nan)),
        ((a == 0) | np.isinf(x), constant(0.0 if upper else 1.0)),
        ((x == 0) | np.isinf(a), constant(1.0 if upper else 0.0)),
        ((a > 500) & (np.abs(x - a) < 0.3 * a), lambda a, x: _igamma_temme(a, x, upper)),
    ]
    if upper:
        cases.append(((x < 1.1) & (a < 1), _igamma_near_zero))
    small = (x <= 1) | (x < a + 1)
    cases.append((small, (lambda a, x: 1 - _igamma_series(a, x)) if upper else _igamma_series))
    cases.append((~small, _igamma_fraction if upper else lambda a, x: 1 - _igamma_fraction(a, x)))
    return choose(cases, a, x)


@wide
def igamma(a: Array, x: Array) -> Array:
    return _igamma(a, x, False)


@wide
def igammac(a: Array, x: Array) -> Array:
    return _igamma(a, x, True)
