"""Bessel functions and Airy's, on ndarrays, computed in float64: as in ``gpugrad/ops/numerics.py``, of which this is
the second half. Loaded when first needed.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from gpugrad.ops.numerics import Array, chebyshev, choose, constant, table, wide

_LN2 = math.log(2)


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
    return np.where(np.signbit(x), -y, y)


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
        return np.exp(x) * (chebyshev("K0_NEAR", x * x / 2 - 1) - (np.log(x) - _LN2) * _i0(x))

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
        return np.exp(x) * (x * chebyshev("K1_NEAR", x * x / 2 - 1) + (np.log(x) - _LN2) * _i1(x) + 1 / x)

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
        y = (p * sine + q * cosine if second else p * cosine - q * sine) / (math.sqrt(math.pi) * np.sqrt(x))
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
    return np.where(np.signbit(x), -y, y)


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
