"""Elementwise ops on the parts and kinds of numbers: mantissa and sign, NaN and infinities, common divisors,
the real parts of numbers that are all real. One row each, as in ``gpugrad/ops/elementwise.py``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from gpugrad import dtypes
from gpugrad.errors import DTypeError
from gpugrad.ops import elementwise as e
from gpugrad.ops import table
from gpugrad.ops.compound import sub
from gpugrad.ops.creation import cast, full_like, zeros_like
from gpugrad.ops.mapping import elementwise
from gpugrad.ops.table import Sample as S
from gpugrad.ops.table import composite, describe

_exponent: Any  # named by a derivative above its row

# -- composed ------------------------------------------------------------------------------


@composite(
    reference=np.nan_to_num,
    samples=(S(([[1.0, math.nan], [math.inf, -math.inf]],), {"posinf": 2.0, "neginf": -3.0}), S(((2, 3),)), S(((),))),
)
def nan_to_num(input: Any, nan: float | None = 0.0, posinf: float | None = None, neginf: float | None = None) -> Any:
    """``input`` with NaN replaced by ``nan`` and infinities by ``posinf`` and ``neginf``, by default
    the largest and the smallest number of the dtype."""
    if not input.dtype.is_floating_point:
        return input.clone()
    limits = dtypes.finfo(input.dtype)
    high, low = float(limits.max if posinf is None else posinf), float(limits.min if neginf is None else neginf)
    result = e.where(e.isnan(input), 0.0 if nan is None else float(nan), input)
    return e.where(isneginf(input), low, e.where(isposinf(input), high, result))


def ldexp(input: Any, other: Any) -> Any:
    """``input`` times 2 to the power ``other``; floating."""
    return e.mul(input, e.pow(2.0, other))


def float_power(input: Any, exponent: Any) -> Any:
    """``input`` to the power ``exponent``, both (tensors or numbers) in float64. Raises on devices
    without float64."""
    if not isinstance(input, table.Tensor) and not isinstance(exponent, table.Tensor):
        raise TypeError(f"float_power: at least one operand must be a Tensor, got {input!r} and {exponent!r}")
    base, power = (cast(x, dtypes.float64) if isinstance(x, table.Tensor) else float(x) for x in (input, exponent))
    return e.pow(base, power)


def float_power_(x: Any, exponent: Any) -> Any:
    """In place: :func:`float_power`. Raises RuntimeError unless the tensor is float64."""
    if x.dtype is not dtypes.float64:
        raise RuntimeError(f"float_power_: the result is float64 and cannot be stored in {describe(x)}")
    return x.pow_(cast(exponent, dtypes.float64) if isinstance(exponent, table.Tensor) else float(exponent))


def frexp(input: Any) -> Any:
    """(mantissa, exponent) with ``input`` = mantissa 2^exponent, |mantissa| in [0.5, 1) and an int32
    exponent. Raises RuntimeError for integers."""
    if not input.dtype.is_floating_point:
        raise DTypeError(f"frexp: expected a floating-point tensor, got {describe(input)}; convert it with .float()")
    return table.pair("frexp", "mantissa exponent", (_mantissa(input), _exponent(input)))


_mantissa = elementwise(
    "frexp_mantissa",
    lambda a: np.frexp(a)[0],
    "sf_mantissa(a)",
    lambda g, a: e.div(g, e.exp2(cast(_exponent(a), a.dtype))),
    rule="float",
    domain=(0.55, 0.95),
    dtypes="f",
)
_exponent = elementwise(
    "frexp_exponent", lambda a: np.frexp(a)[1], "sf_exponent(a)", rule="exponent", dtypes="f", domain=(0.55, 3.9)
)


def rsub(input: Any, other: Any, alpha: float = 1) -> Any:
    """``other - alpha * input``. Raises RuntimeError for bool tensors."""
    if table.as_tensor_arg("rsub", input)._array.dtype == bool:
        raise RuntimeError(f"rsub: not defined for bool tensors ({describe(input, other)}); use ~ or logical_xor")
    return sub(other, input, alpha=alpha)


# -- larger, smaller, signs -------------------------------------------------------------------


def _first_wins(compare: Any) -> Callable[[Any, Any], Any]:
    return lambda a, b: e.logical_or(compare(a, b), e.isnan(b) if isinstance(b, table.Tensor) else b != b)


_above, _below = _first_wins(e.ge), _first_wins(e.le)
fmax = elementwise(
    "fmax",
    np.fmax,
    {"f": "fmax(a, b)", "i": "GG_MAX(a, b)", "b": "GG_MAX(a, b)"},
    (lambda g, a, b: e.where(_above(a, b), g, 0.0), lambda g, a, b: e.where(_above(a, b), 0.0, g)),
    arity=2,
)
fmin = elementwise(
    "fmin",
    np.fmin,
    {"f": "fmin(a, b)", "i": "GG_MIN(a, b)", "b": "GG_MIN(a, b)"},
    (lambda g, a, b: e.where(_below(a, b), g, 0.0), lambda g, a, b: e.where(_below(a, b), 0.0, g)),
    arity=2,
)
heaviside_row = elementwise(
    "heaviside",
    lambda a, b: np.asarray(np.where(np.equal(a, 0), b, np.greater(a, 0)), np.result_type(a, b)),
    "a == 0 ? b : (T)(a > 0)",
    arity=2,
    samples=(S(((3, 4), (3, 4))), S(([[-1.5, 0.0, 2.0]], [[0.5], [3.0]])), S(((0, 3), (3,)))),
)


def _same_dtype(input: Any, values: Any) -> None:
    for x in (input, values):
        table.as_tensor_arg("heaviside", x)
    if input.dtype is not values.dtype:
        raise RuntimeError(f"heaviside: input and values must have one dtype: {describe(input, values)}")


def heaviside(input: Any, values: Any) -> Any:
    """0 where ``input`` is negative or NaN, ``values`` where it is 0, else 1. Both are tensors of one
    dtype; raises RuntimeError otherwise."""
    _same_dtype(input, values)
    return heaviside_row(input, values)


def _heaviside_inplace(x: Any, values: Any) -> Any:
    _same_dtype(x, values)
    return heaviside_row.inplace(x, values)


table.public("heaviside")(heaviside)
heaviside.inplace = _heaviside_inplace  # type: ignore[attr-defined]

nextafter_row = elementwise(
    "nextafter",
    np.nextafter,
    "nextafter(a, b)",
    (lambda g: g, lambda g: zeros_like(g)),
    arity=2,
    rule="float",
    dtypes="f",
)


def _full_width(name: str, *inputs: Any) -> None:
    d = table.result_type(*inputs)
    if not d.is_floating_point or d.itemsize < 4:
        raise NotImplementedError(f"{name}: defined for float32 and float64, not for {d.name}; convert with .float()")


def nextafter(input: Any, other: Any) -> Any:
    """The next representable number after ``input`` towards ``other``. Raises NotImplementedError for
    half types and integers."""
    _full_width("nextafter", input, other)
    return nextafter_row(input, other)


def _nextafter_inplace(x: Any, other: Any) -> Any:
    _full_width("nextafter_", x, other)
    return nextafter_row.inplace(x, other)


# Half types are computed in float32, whose next number rounds back to the half it started from.
nextafter_row.op.samples = ()
table.public("nextafter")(nextafter)
nextafter.inplace = _nextafter_inplace  # type: ignore[attr-defined]

_EDGES = (S(([0.0, -0.0, 1.5, -2.0, math.inf, -math.inf],)), S(((2, 3),)), S(((),)))
signbit = elementwise(
    "signbit",
    lambda a: np.signbit(a) if a.dtype.kind == "f" else a < 0,
    {"f": "signbit(a) != 0", "i": "a < 0", "b": "0"},
    rule="compare",
    samples=_EDGES,
)
isposinf = elementwise(
    "isposinf",
    lambda a: np.isposinf(a) if a.dtype.kind == "f" else np.zeros(a.shape, bool),
    {"f": "a == GG_INF", "i": "0", "b": "0"},
    rule="compare",
    samples=_EDGES,
)
isneginf = elementwise(
    "isneginf",
    lambda a: np.isneginf(a) if a.dtype.kind == "f" else np.zeros(a.shape, bool),
    {"f": "a == -GG_INF", "i": "0", "b": "0"},
    rule="compare",
    samples=_EDGES,
)

# -- integers, angles ---------------------------------------------------------------------------

_WHOLE = (
    S((lambda r: r.integers(-60, 60, (3, 4)), lambda r: r.integers(-60, 60, (3, 4)))),
    S(([12, 0, -8, 7], [[18], [0]])),
)
gcd = elementwise("gcd", np.gcd, {"i": "sf_gcd(a, b)"}, arity=2, rule="shift", dtypes="i", samples=_WHOLE)
lcm = elementwise(
    "lcm",
    lambda a, b: np.abs(np.lcm(a, b)),  # where the product wraps, NumPy's may come out negative
    {"i": "sf_lcm(a, b)"},
    arity=2,
    rule="shift",
    dtypes="i",
    samples=_WHOLE,
)


def _scaling(name: str, factor: float) -> Any:
    return elementwise(
        name, lambda a: a * factor, f"a * K({factor!r})", lambda g: e.mul(g, factor), rule="float", dtypes="fib"
    )


deg2rad = _scaling("deg2rad", math.pi / 180)
rad2deg = _scaling("rad2deg", 180 / math.pi)
angle = elementwise(
    "angle",
    lambda a: np.where(np.isnan(a), a, np.where(a < 0, np.full_like(a, math.pi), np.zeros_like(a))),
    "isnan(a) ? a : a < 0 ? K(3.14159265358979323846) : (T)0",
    lambda g: e.zeros_like(g),
    rule="float",
    domain=(0.3, 2.0),
)

# -- complex numbers, of which only the real ones exist ------------------------------------------------


def real(input: Any) -> Any:
    """``input`` itself: every tensor is real."""
    return table.as_tensor_arg("real", input)


def imag(input: Any) -> Any:
    """Raises RuntimeError: a real tensor has no imaginary part that shares its memory."""
    table.as_tensor_arg("imag", input)
    raise RuntimeError(f"imag: only complex tensors have one, this is {describe(input)}; zeros_like(x) has its values")


conj = conj_physical = conj_physical_ = resolve_conj = resolve_neg = real


def positive(input: Any) -> Any:
    """``input`` itself. Raises RuntimeError for a bool tensor."""
    if table.as_tensor_arg("positive", input)._array.dtype == bool:
        raise RuntimeError("positive: not defined for bool tensors; convert it with .int()")
    return input


def isreal(input: Any) -> Any:
    """True for every element: there are no complex tensors."""
    return full_like(input, True, dtype=dtypes.bool_)


def is_neg(input: Any) -> bool:
    """False: no tensor stands for the negative of its memory."""
    return table.as_tensor_arg("is_neg", input).is_neg()


def is_conj(input: Any) -> bool:
    """False: there are no complex tensors."""
    return table.as_tensor_arg("is_conj", input).is_conj()
