"""Special functions that NumPy lacks, on ndarrays."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

# W. J. Cody, "Rational Chebyshev approximations for the error function", Math. Comp. 23 (1969):
# erf on |x| <= 0.46875, exp(x^2) erfc(x) on [0.46875, 4] and beyond; highest power first.
_ERF = (
    (
        1.85777706184603153e-1,
        3.16112374387056560e00,
        1.13864154151050156e02,
        3.77485237685302021e02,
        3.20937758913846947e03,
    ),
    (1.0, 2.36012909523441209e01, 2.44024637934444173e02, 1.28261652607737228e03, 2.84423683343917062e03),
)
_MIDDLE = (
    (
        2.15311535474403846e-8,
        5.64188496988670089e-1,
        8.88314979438837594e00,
        6.61191906371416295e01,
        2.98635138197400131e02,
        8.81952221241769090e02,
        1.71204761263407058e03,
        2.05107837782607147e03,
        1.23033935479799725e03,
    ),
    (
        1.0,
        1.57449261107098347e01,
        1.17693950891312499e02,
        5.37181101862009858e02,
        1.62138957456669019e03,
        3.29079923573345963e03,
        4.36261909014324716e03,
        3.43936767414372164e03,
        1.23033935480374942e03,
    ),
)
_TAIL = (
    (
        1.63153871373020978e-2,
        3.05326634961232344e-1,
        3.60344899949804439e-1,
        1.25781726111229246e-1,
        1.60837851487422766e-2,
        6.58749161529837803e-4,
    ),
    (
        1.0,
        2.56852019228982242e00,
        1.87295284992346725e00,
        5.27905102951428412e-1,
        6.05183413124413191e-2,
        2.33520497626869185e-3,
    ),
)
_EDGE = 0.46875


def _ratio(coefficients: tuple[tuple[float, ...], tuple[float, ...]], x: np.ndarray) -> np.ndarray:
    return np.polyval(coefficients[0], x) / np.polyval(coefficients[1], x)


def _scaled_erfc(x: np.ndarray) -> np.ndarray:
    """exp(x^2) erfc(x) for x > 0.46875."""
    result = _ratio(_MIDDLE, np.minimum(x, 4.0))
    far = x > 4.0
    if far.any():
        z = 1.0 / np.square(x[far])
        result[far] = (1.0 / np.sqrt(np.pi) - z * _ratio(_TAIL, z)) / x[far]
    return result


def _decay(x: np.ndarray) -> np.ndarray:
    """exp(-x^2), the square split so that its rounding error is not blown up."""
    coarse = np.trunc(x * 16.0) / 16.0
    return np.exp(-coarse * coarse) * np.exp(-(x - coarse) * (x + coarse))


def _erf_erfc(x: Any, complement: bool) -> Any:
    x = np.asarray(x)
    wide = np.atleast_1d(x.astype(np.float64))
    size = np.minimum(np.abs(wide), 30.0)  # NaN stays NaN
    result = np.array(wide)
    near = size <= _EDGE
    small = wide[near]
    value = small * _ratio(_ERF, small * small)
    result[near] = 1.0 - value if complement else value
    far = size > _EDGE
    tail = _decay(size[far]) * _scaled_erfc(size[far])
    sign = wide[far] < 0
    result[far] = np.where(sign, 2.0 - tail, tail) if complement else np.where(sign, tail - 1.0, 1.0 - tail)
    return result.reshape(x.shape).astype(x.dtype)


def erf(x: Any) -> Any:
    """The error function, any shape, computed in float64, returned in the dtype of ``x``."""
    return _erf_erfc(x, False)


def erfc(x: Any) -> Any:
    """1 - erf(x), accurate where that is tiny."""
    return _erf_erfc(x, True)


def into(ufunc: np.ufunc, x: Any) -> Any:
    """``ufunc(x)``, written over ``x`` where that is an array and not the scalar that NumPy makes of a 0-d one."""
    return ufunc(x, out=x) if type(x) is np.ndarray else ufunc(x)


# The normal distribution function is (1 + tanh(x q(x^2))) / 2 for a smooth q; these coefficients, highest power first,
# were fitted to it for x^2 up to 32, where float32 holds nothing but 1. Largest error 1.0e-7.
_CDF = (
    2.995019504e-11,
    3.046853140e-10,
    -1.059469754e-07,
    3.738677509e-06,
    -5.434454191e-05,
    -3.452238561e-05,
    3.633463390e-02,
    7.978846174e-01,
)


def normal_cdf(x: Any) -> Any:
    """(1 + erf(x / sqrt(2))) / 2, fresh: float32 to its precision by one tanh, other dtypes by :func:`erf`."""
    if x.dtype != np.float32:
        t = erf(x * math.sqrt(0.5))
    else:
        z = x * x
        z = np.minimum(z, np.float32(32.0), out=z) if type(z) is np.ndarray else np.minimum(z, np.float32(32.0))
        t = z * np.float32(_CDF[0])
        t += np.float32(_CDF[1])
        for c in _CDF[2:]:
            t *= z
            t += np.float32(c)
        t *= x
        t = into(np.tanh, t)
    t *= 0.5
    t += 0.5
    return t


def sign(a: Any) -> Any:
    """-1, 0 or 1; 0 for NaN."""
    if a.dtype == bool:
        return a
    value = np.sign(a)
    return np.where(np.isnan(value), a.dtype.type(0), value) if a.dtype.kind == "f" else value


def sigmoid(x: Any) -> Any:
    """1 / (1 + exp(-x))."""
    t = into(np.exp, -x)
    t += 1
    return into(np.reciprocal, t)


def sigmoid_backward(g: Any, y: Any) -> Any:
    """g y (1 - y)."""
    return times(times(1 - y, y), g)


def tanh_backward(g: Any, y: Any) -> Any:
    """g (1 - y^2)."""
    t = y * y
    t = np.subtract(1, t, out=t) if type(t) is np.ndarray else 1 - t
    return times(t, g)


def relu_backward(g: Any, y: Any) -> Any:
    """g where y is positive, else 0 (NaN where g is not finite). NumPy's ``where`` takes ten times as long."""
    return g * (y > _zero(y.dtype))


def times(t: Any, x: Any) -> Any:
    """``t * x``, written over ``t`` where the product has its shape."""
    fits = type(t) is np.ndarray and type(x) is np.ndarray and t.shape == x.shape
    return np.multiply(t, x, out=t) if fits else t * x


def integer_power(a: Any, b: Any) -> Any:
    """``a ** b``; for integers a negative exponent gives the quotient truncated (0, or +-1)."""
    kind = np.result_type(a, b).kind
    if kind == "f":
        return np.power(a, b)
    if kind == "b":
        return np.logical_or(a, np.logical_not(b))
    value = np.power(a, np.maximum(b, 0))
    inverse = np.where(np.equal(a, 1), 1, np.where(np.equal(a, -1), 1 - 2 * np.bitwise_and(b, 1), 0))
    return np.where(np.less(b, 0), inverse, value).astype(value.dtype)


def shift(a: Any, b: Any, left: bool) -> Any:
    """Shift of integers; by the width or more (or by a negative count) every bit is shifted out."""
    a, b = np.broadcast_arrays(a, b)
    bits = 8 * a.dtype.itemsize
    over = np.less(b, 0) | np.greater_equal(b, bits)
    inside = np.where(over, 0, b).astype(b.dtype)
    gone = np.right_shift(a, bits - 1) if a.dtype.kind == "i" and not left else np.zeros_like(a)
    return np.where(over, gone, np.left_shift(a, inside) if left else np.right_shift(a, inside))


_ZEROS: dict[np.dtype, np.ndarray] = {}


def relu(a: Any) -> Any:
    """max(a, 0)."""
    return np.maximum(a, _zero(a.dtype))


def _zero(dtype: np.dtype) -> np.ndarray:
    """0 as an array of the dtype: to convert a Python number takes longer than a small maximum."""
    zero = _ZEROS.get(dtype)
    if zero is None:
        zero = _ZEROS[dtype] = np.zeros((), dtype)
    return zero
