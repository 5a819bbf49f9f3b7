"""Numbers on which arithmetic goes wrong first, for every dtype; and where gpugrad gives another answer on them than
PyTorch, with what has to hold there.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import ml_dtypes
import numpy as np

from gpugrad import dtypes
from gpugrad.ops import OPS

#: rows that refuse most numbers by design (indices, probabilities, rates), or only copy
ELSEWHERE = set(
    "overwrite where wrap_index wrap_take as_probability as_weight multinomial_weight multinomial_total poisson_rate "
    "standard_deviation".split()
)
#: those of four operands and more are steps of optimizers
MOST = 3
DTYPES = ["float32", "float64", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool"]


def floats(dtype: np.dtype) -> np.ndarray:
    """Zeros, denormals, the ends of the range, what surrounds 1, NaN, infinities, and ordinary numbers."""
    limits = ml_dtypes.finfo(dtype)
    least, small, large = float(limits.smallest_subnormal), float(limits.tiny), float(limits.max)
    eps = float(limits.eps)
    sizes = [0.5, 1, 1.5, 2, 3, math.pi / 2, 7.25, 20, 100, min(2.0**24, large / 4), large, 1 - eps / 2, 1 + eps]
    sizes += [small, least, 3 * least, small / 2, math.inf, 1e-4, 0.0]
    if large > 1e30:
        sizes += [2.0**31, 2.0**63, 1e10, 1e-10, 1e30, 1e-30]
    with np.errstate(all="ignore"):
        return np.array([*sizes, *(-x for x in sizes), math.nan]).astype(dtype)


def integers(dtype: np.dtype) -> np.ndarray:
    """The ends of the range, what float64 cannot hold, shifts by the width, and ordinary numbers."""
    low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
    values = [low, low + 1, low // 2, 0, 1, 2, 3, 5, 7, 8, 31, 32, 63, 64, high // 2, high - 1, high]
    if low < 0:
        values += [-1, -2, -3, -7]
    if high > 2**60:
        values += [2**53 + 1, 2**53 - 1, -(2**53) - 1, 2**31, 2**32 + 1, -(2**31) - 1, 2**62 + 1]
    return np.array(sorted(set(values)), dtype)


def grid(op: str, dtype: str, arity: int) -> list[np.ndarray]:
    """Every combination of the numbers of a dtype (of every third with three operands), less those that the row
    refuses: zero divisors."""
    d = dtypes.as_dtype(dtype)
    values = np.array([False, True]) if d.category == 0 else (integers if d.category == 1 else floats)(d.numpy)
    if arity > 2:
        values = values[::3]
    arrays = [a.ravel() for a in np.meshgrid(*[values] * arity, indexing="ij")]
    if op == "floor_divide" or (op in ("remainder", "fmod") and d.category != 2):
        keep = arrays[1] != 0
        arrays = [a[keep] for a in arrays]
    return [a.copy() for a in arrays]


def arity(op) -> int:
    kernel = getattr(op.function, "kernel", None)
    return (
        kernel.arity
        if kernel
        else {"pow": 2, "heaviside": 2, "nextafter": 2, "round": 1, "logit": 1, "clamp": 3}[op.name]
    )


ROWS = [op for op in OPS.values() if op.elementwise and op.name not in ELSEWHERE and arity(op) <= MOST]


def defined(op, dtype: str) -> bool:
    halves = op.name == "nextafter" and dtypes.as_dtype(dtype).numpy in dtypes.HALVES
    return "bif"[dtypes.as_dtype(dtype).category] in op.dtypes and not halves


def wide(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float64) if array.dtype.kind not in "biu" else array


RELATIVE = {"float16": 2e-3, "bfloat16": 1.6e-2, "float32": 2e-5, "float64": 1e-10}


def differing(got: np.ndarray, want: np.ndarray, dtype: str) -> np.ndarray:
    """Where two results are not the same: NaN, infinities and signs of zeros exactly, other numbers nearly; denormals
    to some 64 of their steps, since what they were computed from was rounded to such steps as well."""
    if want.dtype.kind in "biu":
        return got != want
    d = dtypes.as_dtype(dtype)
    step = float(ml_dtypes.finfo(d.numpy if d.category == 2 else np.float32).smallest_subnormal)
    a, b = wide(got), wide(want)
    with np.errstate(all="ignore"):
        near = np.abs(a - b) <= RELATIVE.get(dtype, 2e-5) * np.abs(b) + 64 * step
    same = (np.isnan(a) & np.isnan(b)) | (a == b) | (near & np.isfinite(a) & np.isfinite(b))
    return ~same | ((a == 0) & (b == 0) & (np.signbit(a) != np.signbit(b)))


def describe(where: np.ndarray, got: np.ndarray, want: np.ndarray, arrays: list[np.ndarray]) -> str:
    found = np.flatnonzero(where)
    shown = [f"({', '.join(str(a[i]) for a in arrays)}) gives {got[i]}, not {want[i]}" for i in found[:8]]
    return f"{len(found)} of {where.size}: " + "; ".join(shown)


# -- where PyTorch gives something else ------------------------------------------------------------


class Deviation(NamedTuple):
    """``holds(got, want, *inputs)``: where gpugrad's result is right although PyTorch's is another, elementwise."""

    holds: Callable[..., np.ndarray]
    reason: str


def _zeros(got, want, *inputs):
    return (got == 0) & (want == 0)


def _remainder(got, want, a, b):
    return (np.isnan(want) & ~differing(got, np.remainder(a, b), "bfloat16")) | _zeros(got, want)


def _fmod(got, want, a, b):
    return np.isnan(want) & np.isfinite(a) & (b != 0) & ~differing(got, np.fmod(a, b), "bfloat16")


def _erf(got, want, a):
    return (want == 0) & np.isclose(got, a * (2 / math.sqrt(math.pi)), rtol=2e-2, atol=0)


def _gcd(got, want, a, b):
    exact = np.array([math.gcd(int(x), int(y)) for x, y in zip(a, b, strict=True)], object)
    return (got.astype(object) == exact) & (want.astype(object) == -exact)


def _digamma(got, want, a):
    return np.isclose(got, -1 / (a + 1), rtol=1e-12)  # next to its pole at -1


def _zeta(got, want, s, q):
    undefined = np.isnan(s) | np.isnan(q) | ((q < 0) & np.isinf(s))
    limit = np.where((s > 100) & (q > 1), 0.0, np.where(q > 1e30, q ** (1 - s) / (s - 1), np.nan))
    return (undefined & np.isnan(got)) | np.isclose(got, limit, rtol=1e-5, atol=0)


def _igamma(got, want, a, x):
    """With a near 0 all of the distribution is at 0; with a far above x none of it is reached."""
    limit = np.where((a < 1e-9) & (x > 0), 1.0, np.where(a > 1e9, 0.0, np.where((a == 1) & (x < 1e-30), x, np.nan)))
    digits = (np.abs(want) < 1e-90) | (a == 100)
    digits &= np.isclose(got, want, rtol=1e-3, atol=0)
    return np.where(np.isnan(a) | np.isnan(x), np.isnan(got), digits | np.isclose(got, limit, rtol=1e-2, atol=1e-30))


def _igammac(got, want, a, x):
    limit = np.where(a > 1e9, 1.0, np.where((a == 100) & (x == 100), 0.48670120172085, np.nan))
    small = (a < 1e-9) & (got <= 800 * a)  # a times the integral of exp(-t) / t from x on
    digits = np.isclose(got, want, rtol=1e-3, atol=1e-41) & ((a == np.float32(1e-4)) | (x == 100))
    right = small | digits | np.isclose(got, limit, rtol=1e-12, atol=0)
    return np.where(np.isnan(a) | np.isnan(x), np.isnan(got), right)


def _i1(got, want, a):
    return (np.isinf(a) & np.isnan(want) & (got == a)) | ((a == 0) & (np.signbit(got) == np.signbit(a)))


def _i0(got, want, a):
    return np.isinf(a) & np.isnan(want) & (got == np.inf)


def _oscillates(got, want, a):
    """0 at infinity; far out no larger than the wave; elsewhere PyTorch's has eight digits."""
    far = (np.abs(a) > 1e6) & (np.abs(got) <= 1 / np.sqrt(np.abs(a)))
    return np.where(np.isinf(a), got == 0, far | np.isclose(got, want, rtol=1e-4, atol=0))


def _i0e(got, want, a):
    return (np.abs(a) == 7.25) & np.isclose(got, 0.1514, rtol=4e-3)


def _airy(got, want, a):
    wave = (a < -1e6) & (np.abs(got) <= np.abs(a) ** -0.25)
    return wave | (np.isinf(a) & (got == 0)) | ((a == -3) & (np.abs(got + 0.37881429367765827) < 1e-13))


def _k0(got, want, a):
    return (a < 1e-43) & (np.abs(got + np.log(a) - math.log(2) + np.euler_gamma) < 1e-5)


def _k1(got, want, a):
    return (a < 1e-43) & (got == np.inf)


def _logaddexp2(got, want, a, b):
    return (np.abs(a + 1) < 1e-2) & (np.abs(b + 1) < 1e-2) & (np.abs(got - (a + b + 2) / 2) <= 1.2e-7)


_WAVE = Deviation(_oscillates, "0 at infinity; all digits of float64, also at arguments in the millions")
_LIMITS = "NaN passes on; the limits for tiny and for huge first arguments; more digits in the tails"
DEVIATIONS = {
    "remainder": Deviation(_remainder, "a zero has the sign of the divisor, as in Python; huge quotients are exact"),
    "fmod": Deviation(_fmod, "huge quotients are exact where PyTorch's vectorised routine gives NaN"),
    "relu": Deviation(_zeros, "relu(-0.0) is 0.0"),
    "fmax": Deviation(_zeros, "fmax(0.0, -0.0) may be either zero"),
    "fmin": Deviation(_zeros, "fmin(0.0, -0.0) may be either zero"),
    "erf": Deviation(_erf, "tiny halves stay what they are; PyTorch flushes them to 0"),
    "gcd": Deviation(_gcd, "not negative with the least integer among the operands"),
    "digamma": Deviation(_digamma, "accurate next to its poles"),
    "zeta": Deviation(_zeta, "NaN passes on; the limits for large s or q"),
    "igamma": Deviation(_igamma, _LIMITS),
    "igammac": Deviation(_igammac, _LIMITS),
    "i0": Deviation(_i0, "infinite at infinity"),
    "i0e": Deviation(_i0e, "of bfloat16 computed in float32, rounded once"),
    "i1": Deviation(_i1, "infinite at infinity; a zero keeps its sign"),
    "i1e": Deviation(_i1, "a zero keeps its sign"),
    "bessel_j0": _WAVE,
    "bessel_j1": _WAVE,
    "bessel_y0": _WAVE,
    "bessel_y1": _WAVE,
    "k0e": Deviation(_k0, "finite at the least denormals"),
    "k1e": Deviation(_k1, "infinite at the least denormals"),
    "airy_ai": Deviation(_airy, "0 at infinity; accurate between -2.1 and -6 and at large negative arguments"),
    "logaddexp2": Deviation(_logaddexp2, "accurate where the result is next to 0"),
}  # fmt: skip
