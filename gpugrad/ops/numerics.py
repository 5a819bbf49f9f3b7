"""The special functions of ``gpugrad/ops/special_functions.py`` on ndarrays, computed in float64.

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
    for _ in range(3):
        slope = 2 / math.sqrt(math.pi) * np.exp(-x * x)
        miss = np.where(p < 0.5, p - erf(x), erfc(x) - q) / slope
        x = np.where(slope == 0, x, x + miss / (1 - x * miss))
    return np.where(q == 0, np.inf, x)


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
    """log gamma(1 + x) for |x| <= 1/2, accurate where it is tiny."""
    return x * (1 - float(np.euler_gamma) + x * polynomial("ZETA_LESS_1_SIGNED", x)) - np.log1p(x)


def _stirling(x: Array) -> Array:
    return polynomial("STIRLING", 1 / (x * x)) / x


def _lgamma_medium(x: Array) -> Array:
    product = np.ones_like(x)
    for _ in range(8):
        large = x > 2.5
        x = np.where(large, x - 1, x)
        product = np.where(large, product * x, product)
    return _lgamma1p(x - 2) + np.log1p(x - 2) + np.log(product)


def _lgamma_large(x: Array) -> Array:
    near = (x - 0.5) * np.log(x) - x + 0.5 * math.log(2 * math.pi) + _stirling(x)
    return np.where(x > 1e17, x * (np.log(x) - 1), near)


def _lgamma_positive(x: Array) -> Array:
    return choose(
        [
            (x < 0.5, lambda x: _lgamma1p(x) - np.log(x)),
            (x <= 1.5, lambda x: _lgamma1p(x - 1)),
            (x <= 2.5, lambda x: _lgamma1p(x - 2) + np.log1p(x - 2)),
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
    tail = np.where(np.isinf(s), 0.0, w * a / (s - 1) + w / 2)
    t = w * s / a
    for k, c in enumerate(table("EULER")):
        tail = tail + c * t
        t = t * (s + 2 * k + 1) * (s + 2 * k + 2) / (a * a)
    # Far down the tail vanishes while its formula, for a large s, does not converge.
    return np.where(w * a <= EPS / 8 * (s - 1) * total, total, total + tail)


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
            (s == np.floor(s), _zeta_negative),
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


# -- Bessel functions -------------------------------------------------------------------------


def _i0e(x: Array) -> Array:
    x = np.abs(x)
    return choose(
        [
            (x <= 8, lambda x: chebyshev("I0_NEAR", x / 4 - 1)),
            (x > 8, lambda x: chebyshev("I0_FAR", 16 / x - 1) / np.sqrt(x)),
        ],
        x,
    )


def _i1e(x: Array) -> Array:
    size = np.abs(x)
    y = choose(
        [
            (size <= 8, lambda x: x * chebyshev("I1_NEAR", x / 4 - 1)),
            (size > 8, lambda x: chebyshev("I1_FAR", 16 / x - 1) / np.sqrt(x)),
        ],
        size,
    )
    return np.where(x < 0, -y, y)


def _unscaled(y: Array, x: Array) -> Array:
    """y exp(|x|), by halves: the exponential overflows before the Bessel function does."""
    half_way = np.exp(np.abs(x) / 2)
    return y * half_way * half_way


def _i0(x: Array) -> Array:
    return np.where(np.isinf(x), np.inf, _unscaled(_i0e(x), x))


def _i1(x: Array) -> Array:
    return np.where(np.isinf(x), x, _unscaled(_i1e(x), x))


i0e, i1e, i0, i1 = wide(_i0e), wide(_i1e), wide(_i0), wide(_i1)


@wide
def k0e(x: Array) -> Array:
    def near(x: Array) -> Array:
        return np.exp(x) * (chebyshev("K0_NEAR", x * x / 2 - 1) - np.log(x / 2) * _i0(x))

    far = x > 2
    return choose(
        [
            (x == 0, constant(np.inf)),
            (far, lambda x: chebyshev("K0_FAR", 4 / x - 1) / np.sqrt(x)),
            (x > 0, near),
        ],
        x,
    )


@wide
def k1e(x: Array) -> Array:
    def near(x: Array) -> Array:
        return np.exp(x) * (x * chebyshev("K1_NEAR", x * x / 2 - 1) + np.log(x / 2) * _i1(x) + 1 / x)

    far = x > 2
    return choose(
        [
            (x == 0, constant(np.inf)),
            (far, lambda x: chebyshev("K1_FAR", 4 / x - 1) / np.sqrt(x)),
            (x > 0, near),
        ],
        x,
    )


def _bessel_far(order: int, second: bool) -> Callable[[Array], Array]:
    """J (or Y) for x > 8, by modulus and phase."""

    def value(x: Array) -> Array:
        t = 128 / (x * x) - 1
        p, q = chebyshev(f"P{order}_FAR", t), chebyshev(f"Q{order}_FAR", t) / x
        s, c = np.sin(x), np.cos(x)
        cosine, sine = (s - c, -s - c) if order else (c + s, s - c)
        y = (p * sine + q * cosine if second else p * cosine - q * sine) / np.sqrt(math.pi * x)
        return np.where(np.isinf(x), 0.0, y)

    return value


def _zeros(name: str, x: Array) -> Array:
    z1, rest1, z2, rest2 = table(name)[:4]
    return (x - z1 - rest1) * (x + z1) * ((x - z2 - rest2) * (x + z2))


def _bessel_series(order: int) -> Callable[[Array], Array]:
    """The power series of J0(x) or 2 J1(x) / x, for x up to 2: there the Chebyshev sum loses a digit or two."""

    def value(x: Array) -> Array:
        total = np.ones_like(x)
        for k in range(13, 0, -1):
            total = 1 - x * x / (4 * k * (k + order)) * total
        return total

    return value


def _j0(x: Array) -> Array:
    x = np.abs(x)
    near = x <= 8
    return choose(
        [
            (x <= 2, _bessel_series(0)),
            (near, lambda x: chebyshev("J0_NEAR", x * x / 32 - 1) * _zeros("J0_ZEROS", x)),
            (~near, _bessel_far(0, False)),
        ],
        x,
    )


def _j1(x: Array) -> Array:
    size = np.abs(x)
    near = size <= 8
    series = _bessel_series(1)
    y = choose(
        [
            (size <= 2, lambda x: x / 2 * series(x)),
            (near, lambda x: x * chebyshev("J1_NEAR", x * x / 32 - 1) * _zeros("J1_ZEROS", x)),
            (~near, _bessel_far(1, False)),
        ],
        size,
    )
    return np.where(x < 0, -y, y)


def _y(order: int) -> Callable[[Array], Array]:
    def near(x: Array) -> Array:
        rest = chebyshev(f"Y{order}_NEAR", x * x / 32 - 1)
        if order:
            return x * rest + 2 / math.pi * (np.log(x) * _j1(x) - 1 / x)
        return rest + 2 / math.pi * np.log(x) * _j0(x)

    def value(x: Array) -> Array:
        cases: list[tuple[Array, Callable[..., Array]]] = [
            (x > 8, _bessel_far(order, True)),
            (x == 0, constant(-np.inf)),
            (x > 0, near),
        ]
        return choose(cases, x)

    return value


bessel_j0, bessel_j1, bessel_y0, bessel_y1 = wide(_j0), wide(_j1), wide(_y(0)), wide(_y(1))


def _airy_right(x: Array) -> Array:
    w = x * np.sqrt(x) * 2 / 3
    y = chebyshev("AIRY_RIGHT", 2 * (math.sqrt(32) / 3) / w - 1)
    return y * np.exp(-w) / (2 * math.sqrt(math.pi) * np.sqrt(np.sqrt(x)))


def _airy_left(x: Array) -> Array:
    w = -x * np.sqrt(-x) * 2 / 3
    t = 2 * (16 / 3 / w) ** 2 - 1
    s, c = np.sin(w), np.cos(w)
    y = chebyshev("AIRY_P", t) * (c + s) + chebyshev("AIRY_Q", t) / w * (s - c)
    return y / (math.sqrt(2 * math.pi) * np.sqrt(np.sqrt(-x)))


@wide
def airy_ai(x: Array) -> Array:
    return choose(
        [
            ((x >= -4) & (x <= 2), lambda x: chebyshev("AIRY_MIDDLE", (x + 1) / 3)),
            (np.isinf(x), constant(0.0)),
            (x > 2, _airy_right),
            (x < -4, _airy_left),
        ],
        x,
    )
