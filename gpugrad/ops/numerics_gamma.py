"""How a gamma number moves with its shape parameter, on ndarrays in float64: the twin of ``sf_gamma_gradient`` in
``kernels/special.h``. Loaded when first needed.

The distribution function F(a, x) of a number x stays what it is when a changes, so dx/da = -(dF/da) / f with the
density f (M. Figurnov, S. Mohamed and A. Mnih, Implicit Reparameterization Gradients, NeurIPS 2018). F is summed, or
its continued fraction evaluated, together with the derivative.
"""

from __future__ import annotations

import numpy as np

from gpugrad.ops.numerics import EPS, Array, choose, digamma, wide


def _series(a: Array, x: Array) -> Array:
    """F = x f sum of t_n, t_n = x^n / (a (a+1) ... (a+n)); d log t_n / da with that of x f is log x - psi(a+n+1)."""
    term = 1 / a
    slope = np.log(x) - digamma(a + 1)
    total, size = term * slope, term
    for n in range(1, 4000):
        term = term * (x / (a + n))
        slope = slope - 1 / (a + n)
        total = total + term * slope
        size = size + term
        if not (term * (1 + np.abs(slope)) > size * (EPS / 8)).any():
            break
    return -x * total


def _fraction(a: Array, x: Array) -> Array:
    """1 - F = x f C with the continued fraction C, whose logarithm is differentiated along Lentz's steps."""
    b = x + 1 - a
    d, d_slope = 1 / b, 1 / b**2
    c, c_slope = np.full_like(a, np.inf), np.zeros_like(a)
    value, slope = d, d_slope / d
    going = np.ones(a.shape, bool)
    for n in range(1, 4000):
        step = n * (a - n)
        b = b + 2
        new_d = 1 / (step * d + b)
        d, d_slope = new_d, -(new_d**2) * (n * d + step * d_slope - 1)
        new_c = b + step / c
        c, c_slope = new_c, n / c - step * c_slope / c**2 - 1
        change, move = c * d, c_slope / c + d_slope / d
        value = np.where(going, value * change, value)
        slope = np.where(going, slope + move, slope)
        going &= (np.abs(change - 1) >= EPS) | (np.abs(move) >= EPS * np.abs(slope))
        if not going.any():
            break
    return x * value * (np.log(x) - digamma(a) + slope)


def _large(a: Array, x: Array) -> Array:
    """By the Cornish-Fisher expansion: x as a function of a and of the normal number z that has the same
    probability. z is found by Newton's method, then held."""
    r = np.sqrt(a)
    z = (x - a) / r
    z = z - (z**2 - 1) / (3 * r)
    for _ in range(5):
        there = a + r * z + (z**2 - 1) / 3 + (z**3 - 7 * z) / (36 * r) - (3 * z**4 + 7 * z**2 - 16) / (810 * a)
        there = there + (9 * z**5 + 256 * z**3 - 433 * z) / (38880 * a * r)
        z = z - (there - x) / (r + 2 * z / 3 + (3 * z**2 - 7) / (36 * r) - (12 * z**3 + 14 * z) / (810 * a))
    first = 1 + z / (2 * r) - (z**3 - 7 * z) / (72 * a * r)
    return first + (3 * z**4 + 7 * z**2 - 16) / (810 * a**2) - (9 * z**5 + 256 * z**3 - 433 * z) / (25920 * a**2 * r)


@wide
def standard_gamma_grad(a: Array, x: Array) -> Array:
    good = (a > 0) & (x >= 0) & np.isfinite(a) & np.isfinite(x)
    return choose(
        [
            (~good, lambda a, x: np.full_like(a, np.nan)),
            (x == 0, lambda a, x: np.zeros_like(a)),
            ((a > 1000) & (np.abs(x - a) < 0.3 * a), _large),
            ((x <= 1) | (x < a + 1), _series),
            (good, _fraction),
        ],
        a,
        x,
    )
