"""Elementwise ops: one row each.

A row gives the NumPy function, the C expression (``a``, ``b``, ``c`` are the inputs, of type
``T``; ``K(x)`` is a constant of that type; see ``kernels/math.h``), the derivative, the dtype
rule and the range of the numbers it is tested on. Vjps follow ``gpugrad/ops/table.py``.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gpugrad.errors import DivisionByZeroError, DTypeError
from gpugrad.ops import special, table
from gpugrad.ops.mapping import elementwise
from gpugrad.ops.table import Sample as S

_ZERO_DIVISION = (DivisionByZeroError, "remainder: integer modulo by zero")
_FMOD_ZERO_DIVISION = (DivisionByZeroError, "fmod: integer modulo by zero")
_ANY_ZERO_DIVISION = (DivisionByZeroError, "floor_divide: division by zero")
_INTEGER = "((T)1 / (T)2 == 0)"


# Named by derivatives above the row that defines them.
neg: Any
mul: Any
div: Any
sign: Any
floor: Any
trunc: Any
cos: Any
cosh: Any
tanh_backward: Any
sigmoid_backward: Any
relu_backward: Any

# -- arithmetic --------------------------------------------------------------

add = elementwise("add", np.add, "a + b", (lambda g: g, lambda g: g), arity=2)
sub = elementwise(
    "sub", np.subtract, "a - b", (lambda g: g, lambda g: neg(g)), arity=2, rule="number", dtypes="fi", bools=False
)
mul = elementwise("mul", np.multiply, "a * b", (lambda g, b: mul(g, b), lambda g, a: mul(g, a)), arity=2)
div = elementwise(
    "div",
    np.true_divide,
    "a / b",
    # Of its inputs alone, as PyTorch's: programs go on to change quotients in place.
    (lambda g, b: div(g, b), lambda g, a, b: neg(mul(g, div(div(a, b), b)))),
    arity=2,
    rule="float",
    domain=(0.5, 2.0),
)
neg = elementwise("neg", np.negative, "-a", lambda g: neg(g), rule="number", dtypes="fi")
abs = elementwise(
    "abs",
    np.abs,
    {"f": "fabs(a)", "i": "a < 0 ? -a : a", "b": "a"},
    lambda g, a: mul(g, sign(a)),
    domain=(0.3, 2.0),
    dtypes="fi",
)
sign = elementwise(
    "sign", special.sign, {"f": "GG_SIGN(a)", "i": "GG_SIGN(a)", "b": "a"}, lambda g: zeros_like(g), domain=(0.3, 2.0)
)
square = elementwise("square", np.square, "a * a", lambda g, a: mul(g, mul(a, 2.0)), rule="count")
reciprocal = elementwise(
    "reciprocal", lambda a: 1 / a, "(T)1 / a", lambda g, y: neg(mul(g, square(y))), rule="float", domain=(0.5, 2.0)
)

floor_divide = elementwise(
    "floor_divide",
    np.floor_divide,
    "GG_FLOORDIV(a, b)",
    arity=2,
    rule="number",
    check=lambda a, b: np.equal(b, 0),
    c_check="b == 0",
    error=_ANY_ZERO_DIVISION,
    domain=(0.5, 4.0),
    dtypes="fi",
)
remainder = elementwise(
    "remainder",
    np.remainder,
    "GG_REMAINDER(a, b)",
    (lambda g: g, lambda g, a, b: neg(mul(g, floor(div(a, b))))),
    arity=2,
    rule="number",
    check=lambda a, b: np.equal(b, 0) if np.result_type(a, b).kind in "iu" else np.False_,
    c_check=f"{_INTEGER} && b == 0",
    error=_ZERO_DIVISION,
    domain=(0.7, 2.3),
    dtypes="fi",
)
fmod = elementwise(
    "fmod",
    np.fmod,
    {"f": "fmod(a, b)", "i": "GG_FMOD(a, b)", "b": "0"},
    (lambda g: g, lambda g, a, b: neg(mul(g, trunc(div(a, b))))),
    arity=2,
    rule="number",
    check=lambda a, b: np.equal(b, 0) if np.result_type(a, b).kind in "iu" else np.False_,
    c_check=f"{_INTEGER} && b == 0",
    error=_FMOD_ZERO_DIVISION,
    domain=(0.7, 2.3),
    dtypes="fi",
)


def _pow_grad_base(g: Any, a: Any, b: Any) -> Any:
    if isinstance(b, table.Tensor):
        return where(eq(b, 0), 0.0, mul(g, mul(b, pow(a, sub(b, 1)))))
    return zeros_like(g) if b == 0 else mul(g, mul(pow(a, b - 1), b))


def _pow_grad_exponent(g: Any, a: Any, b: Any, y: Any) -> Any:
    # 0 ** b is 0 for every b > 0, so its derivative is 0 where log(0) would spoil it.
    if isinstance(a, table.Tensor):
        at_zero = logical_and(eq(a, 0), ge(b, 0))
        return where(at_zero, 0.0, mul(g, mul(y, log(a))))
    if a == 0:
        return where(ge(b, 0), 0.0, mul(g, mul(y, -math.inf)))
    return mul(g, mul(y, math.log(a) if a > 0 else math.nan))


_pow = elementwise(
    "pow",
    special.integer_power,
    {"f": "pow(a, b)", "i": "GG_IPOW(a, b)", "b": "a || !b"},
    (_pow_grad_base, _pow_grad_exponent),
    arity=2,
    domain=(0.5, 2.0),
    dtypes="fi",
)


def pow(input: Any, exponent: Any) -> Any:
    """``input ** exponent`` elementwise; at least one a tensor. Raises RuntimeError for an integer tensor
    to a negative integer number."""
    if isinstance(exponent, (int, float)) and isinstance(input, table.Tensor):
        floating = input._array.dtype.kind not in "biu"
        if exponent == 2 and (floating or isinstance(exponent, int)):
            return square(input)
        if floating:
            if exponent == 0.5:
                return sqrt(input)
            if exponent == -1:
                return reciprocal(input)
            if exponent == 1:
                return mul(input, 1)
        elif isinstance(exponent, int) and exponent < 0 and not isinstance(exponent, bool):
            raise RuntimeError(
                f"pow: an integer base has no integer result for the negative exponent {exponent} "
                f"({table.describe(input)}); convert with .float()"
            )
    return _pow(input, exponent)


pow.op = _pow.op  # type: ignore[attr-defined]
pow.inplace = _pow.inplace  # type: ignore[attr-defined]
_pow.op.function = pow


def _larger_grad(g: Any, mine: Any, other: Any) -> Any:
    """The larger one gets the gradient; equals share it."""
    return mul(g, add(gt(mine, other), mul(eq(mine, other), 0.5)))


maximum = elementwise(
    "maximum",
    np.maximum,
    "GG_MAX(a, b)",
    (lambda g, a, b: _larger_grad(g, a, b), lambda g, a, b: _larger_grad(g, b, a)),
    arity=2,
)
minimum = elementwise(
    "minimum",
    np.minimum,
    "GG_MIN(a, b)",
    (lambda g, a, b: _larger_grad(g, b, a), lambda g, a, b: _larger_grad(g, a, b)),
    arity=2,
)
hypot = elementwise(
    "hypot",
    np.hypot,
    "hypot(a, b)",
    (lambda g, a, y: mul(g, div(a, y)), lambda g, b, y: mul(g, div(b, y))),
    arity=2,
    rule="float",
    domain=(0.5, 2.0),
    dtypes="f",
)
atan2 = elementwise(
    "atan2",
    np.arctan2,
    "atan2(a, b)",
    (
        lambda g, a, b: mul(g, div(b, add(square(a), square(b)))),
        lambda g, a, b: neg(mul(g, div(a, add(square(a), square(b))))),
    ),
    arity=2,
    rule="float",
    domain=(0.5, 2.0),
)
copysign = elementwise(
    "copysign",
    np.copysign,
    "copysign(a, b)",
    (lambda g, a, y: mul(g, mul(sign(a), sign(y))), lambda g: zeros_like(g)),
    arity=2,
    rule="float",
    domain=(0.5, 2.0),
)

# -- comparison, tests ---------------------------------------------------------

eq = elementwise("eq", np.equal, "a == b", arity=2, rule="compare")
ne = elementwise("ne", np.not_equal, "a != b", arity=2, rule="compare")
lt = elementwise("lt", np.less, "a < b", arity=2, rule="compare")
le = elementwise("le", np.less_equal, "a <= b", arity=2, rule="compare")
gt = elementwise("gt", np.greater, "a > b", arity=2, rule="compare")
ge = elementwise("ge", np.greater_equal, "a >= b", arity=2, rule="compare")
_SPECIAL = (S(([float("nan"), float("inf"), -float("inf"), 0.0, 1.0],)), S(((2, 3),)), S(((0,),)))
isnan = elementwise("isnan", np.isnan, {"f": "isnan(a)", "i": "0", "b": "0"}, rule="compare", samples=_SPECIAL)
isinf = elementwise("isinf", np.isinf, {"f": "isinf(a)", "i": "0", "b": "0"}, rule="compare", samples=_SPECIAL)
isfinite = elementwise(
    "isfinite", np.isfinite, {"f": "isfinite(a)", "i": "1", "b": "1"}, rule="compare", samples=_SPECIAL
)

# -- logical, bitwise ------------------------------------------------------------

logical_and = elementwise("logical_and", np.logical_and, "a && b", arity=2, rule="logical")
logical_or = elementwise("logical_or", np.logical_or, "a || b", arity=2, rule="logical")
logical_xor = elementwise("logical_xor", np.logical_xor, "a != b", arity=2, rule="logical")
logical_not = elementwise("logical_not", np.logical_not, "!a", rule="logical")
bitwise_and = elementwise(
    "bitwise_and", np.bitwise_and, {"i": "a & b", "b": "a & b"}, arity=2, rule="integer", dtypes="ib"
)
bitwise_or = elementwise(
    "bitwise_or", np.bitwise_or, {"i": "a | b", "b": "a | b"}, arity=2, rule="integer", dtypes="ib"
)
bitwise_xor = elementwise(
    "bitwise_xor", np.bitwise_xor, {"i": "a ^ b", "b": "a ^ b"}, arity=2, rule="integer", dtypes="ib"
)
bitwise_not = elementwise("bitwise_not", np.bitwise_not, {"i": "~a", "b": "!a"}, rule="integer", dtypes="ib")
_SHIFTS = (S((lambda r: r.integers(0, 100, (3, 4)), lambda r: r.integers(0, 6, (3, 4)))), S(([1, 2, 3], [[0], [5]])))
_BITS = "(T)(8 * sizeof(T))"
bitwise_left_shift = elementwise(
    "bitwise_left_shift",
    lambda a, b: special.shift(a, b, True),
    {"i": f"(b < 0 || b >= {_BITS}) ? (T)0 : (T)(a << b)"},
    arity=2,
    rule="shift",
    dtypes="i",
    samples=_SHIFTS,
)
bitwise_right_shift = elementwise(
    "bitwise_right_shift",
    lambda a, b: special.shift(a, b, False),
    {"i": f"(b < 0 || b >= {_BITS}) ? (a < 0 ? (T)-1 : (T)0) : (T)(a >> b)"},
    arity=2,
    rule="shift",
    dtypes="i",
    samples=_SHIFTS,
)

# -- rounding ----------------------------------------------------------------------


def _keep(function: Any) -> Any:
    """Rounding leaves integers as they are."""
    return lambda a: function(a) if a.dtype.kind == "f" else a


def _c_round(name: str) -> dict[str, str]:
    return {"f": f"{name}(a)", "i": "a", "b": "a"}


floor = elementwise(
    "floor", _keep(np.floor), _c_round("floor"), lambda g: zeros_like(g), dtypes="fi", rule="number", domain=(0.1, 0.9)
)
ceil = elementwise(
    "ceil", _keep(np.ceil), _c_round("ceil"), lambda g: zeros_like(g), dtypes="fi", rule="number", domain=(0.1, 0.9)
)
trunc = elementwise(
    "trunc", _keep(np.trunc), _c_round("trunc"), lambda g: zeros_like(g), dtypes="fi", rule="number", domain=(0.1, 0.9)
)
_round = elementwise(
    "round", _keep(np.rint), _c_round("rint"), lambda g: zeros_like(g), dtypes="fi", rule="number", domain=(0.6, 1.4)
)
frac = elementwise(
    "frac", lambda a: a - np.trunc(a), "a - trunc(a)", lambda g: g, rule="float", domain=(0.1, 0.9), dtypes="f"
)


def round(a: Any, decimals: int = 0) -> Any:
    """To the nearest integer, halves to the even one; ``decimals`` digits after the point."""
    if decimals == 0:
        return _round(a)
    scale = 10.0**decimals
    return div(_round(mul(a, scale)), scale)


def _round_in_place(x: Any, decimals: int = 0) -> Any:
    if decimals == 0:
        return _round.inplace(x)
    scale = 10.0**decimals
    return div.inplace(_round.inplace(mul.inplace(x, scale)), scale)


round.op, round.inplace = _round.op, _round_in_place  # type: ignore[attr-defined]
_round.op.function = round

# -- powers, exponentials, logarithms -------------------------------------------------

sqrt = elementwise("sqrt", np.sqrt, "sqrt(a)", lambda g, y: div(g, mul(y, 2.0)), rule="float", domain=(0.2, 3.0))
rsqrt = elementwise(
    "rsqrt",
    lambda a: 1 / np.sqrt(a),
    "(T)1 / sqrt(a)",
    lambda g, y: mul(g, mul(mul(square(y), y), -0.5)),
    rule="float",
    domain=(0.2, 3.0),
)
exp = elementwise("exp", np.exp, "exp(a)", lambda g, y: mul(g, y), rule="float")
exp2 = elementwise("exp2", np.exp2, "exp2(a)", lambda g, y: mul(g, mul(y, math.log(2.0))), rule="float")
expm1 = elementwise("expm1", np.expm1, "expm1(a)", lambda g, y: mul(g, add(y, 1.0)), rule="float")
log = elementwise("log", np.log, "log(a)", lambda g, a: div(g, a), rule="float", domain=(0.2, 3.0))
log2 = elementwise(
    "log2", np.log2, "log2(a)", lambda g, a: div(g, mul(a, math.log(2.0))), rule="float", domain=(0.2, 3.0)
)
log10 = elementwise(
    "log10", np.log10, "log10(a)", lambda g, a: div(g, mul(a, math.log(10.0))), rule="float", domain=(0.2, 3.0)
)
log1p = elementwise("log1p", np.log1p, "log1p(a)", lambda g, a: div(g, add(a, 1.0)), rule="float", domain=(-0.5, 3.0))


def _logaddexp_grad(g: Any, mine: Any, other: Any) -> Any:
    return mul(g, sigmoid(sub(mine, other)))


_LOGADDEXP = "isinf(GG_MAX(a, b)) ? GG_MAX(a, b) : GG_MAX(a, b) + log1p(exp(-fabs(a - b)))"
logaddexp = elementwise(
    "logaddexp",
    np.logaddexp,
    _LOGADDEXP,
    (lambda g, a, b: _logaddexp_grad(g, a, b), lambda g, a, b: _logaddexp_grad(g, b, a)),
    arity=2,
    rule="float",
    dtypes="f",
)

# -- trigonometric, hyperbolic ------------------------------------------------------------

sin = elementwise("sin", np.sin, "GG_TRIG(sin, a)", lambda g, a: mul(g, cos(a)), rule="float")
cos = elementwise("cos", np.cos, "GG_TRIG(cos, a)", lambda g, a: neg(mul(g, sin(a))), rule="float")
tan = elementwise(
    "tan", np.tan, "GG_TRIG(tan, a)", lambda g, y: mul(g, add(square(y), 1.0)), rule="float", domain=(-1.2, 1.2)
)
asin = elementwise(
    "asin", np.arcsin, "asin(a)", lambda g, a: mul(g, rsqrt(sub(1.0, square(a)))), rule="float", domain=(-0.9, 0.9)
)
acos = elementwise(
    "acos", np.arccos, "acos(a)", lambda g, a: neg(mul(g, rsqrt(sub(1.0, square(a))))), rule="float", domain=(-0.9, 0.9)
)
atan = elementwise("atan", np.arctan, "atan(a)", lambda g, a: div(g, add(square(a), 1.0)), rule="float")
sinh = elementwise("sinh", np.sinh, "sinh(a)", lambda g, a: mul(g, cosh(a)), rule="float")
cosh = elementwise("cosh", np.cosh, "cosh(a)", lambda g, a: mul(g, sinh(a)), rule="float")
# Some OpenCL libraries stop an ulp short of 1, and the derivative 1 - y*y would then not vanish far out.
tanh = elementwise(
    "tanh",
    np.tanh,
    "fabs(a) > K(20) ? (a > 0 ? K(1) : K(-1)) : tanh(a)",
    lambda g, y: tanh_backward(g, y),
    rule="float",
)
# Derivatives that are rows: one pass over the data, where composed of others they would be three.
tanh_backward = elementwise(
    "tanh_backward",
    special.tanh_backward,
    "a * (K(1) - b * b)",
    (lambda g, b: tanh_backward(g, b), lambda g, a, b: mul(g, mul(a, mul(b, -2.0)))),
    arity=2,
    rule="float",
    dtypes="f",
)
asinh = elementwise("asinh", np.arcsinh, "asinh(a)", lambda g, a: mul(g, rsqrt(add(square(a), 1.0))), rule="float")
acosh = elementwise(
    "acosh", np.arccosh, "acosh(a)", lambda g, a: mul(g, rsqrt(sub(square(a), 1.0))), rule="float", domain=(1.2, 3.0)
)
atanh = elementwise(
    "atanh", np.arctanh, "atanh(a)", lambda g, a: div(g, sub(1.0, square(a))), rule="float", domain=(-0.8, 0.8)
)

# -- special functions, activations -----------------------------------------------------------

_TWO_OVER_SQRT_PI = 2.0 / math.sqrt(math.pi)
erf = elementwise(
    "erf", special.erf, "erf(a)", lambda g, a: mul(g, mul(exp(neg(square(a))), _TWO_OVER_SQRT_PI)), rule="float"
)
erfc = elementwise(
    "erfc", special.erfc, "erfc(a)", lambda g, a: mul(g, mul(exp(neg(square(a))), -_TWO_OVER_SQRT_PI)), rule="float"
)
sigmoid = elementwise(
    "sigmoid", special.sigmoid, "(T)1 / ((T)1 + exp(-a))", lambda g, y: sigmoid_backward(g, y), rule="float"
)
sigmoid_backward = elementwise(
    "sigmoid_backward",
    special.sigmoid_backward,
    "(K(1) - b) * b * a",
    (lambda g, b: sigmoid_backward(g, b), lambda g, a, b: mul(g, mul(a, sub(1.0, mul(b, 2.0))))),
    arity=2,
    rule="float",
    dtypes="f",
)
relu = elementwise(
    "relu",
    lambda a: np.maximum(a, 0),
    "GG_MAX(a, (T)0)",
    lambda g, y: relu_backward(g, y),
    domain=(0.1, 2.0),
    dtypes="fi",
    rule="number",
)
relu_backward = elementwise(
    "relu_backward",
    special.relu_backward,
    "b > 0 ? a : a * K(0)",
    (lambda g, b: relu_backward(g, b), lambda g: zeros_like(g)),
    arity=2,
    rule="float",
    dtypes="f",
    domain=(0.1, 2.0),
)

# -- choosing -------------------------------------------------------------------------------

_WHERE = (
    S((lambda r: r.random((3, 4)) > 0.5, (3, 4), (3, 4))),
    S((lambda r: r.random((3, 1)) > 0.5, (4,), ())),
    S((lambda r: r.random((0, 2)) > 0.5, (2,), (1,))),
)
_where = elementwise(
    "where",
    lambda a, b, c: np.where(a, b, c),
    "a != 0 ? b : c",
    (None, lambda g, a: where(a, g, 0.0), lambda g, a: where(a, 0.0, g)),
    arity=3,
    masked=True,
    samples=_WHERE,
)


def where(condition: Any, input: Any = None, other: Any = None) -> Any:
    """``input`` where ``condition``, else ``other``; broadcast. Tensors or numbers. With the
    condition alone: the indices of its true elements, a tuple with one tensor per dimension."""
    if input is None and other is None:
        from gpugrad.ops.indexing import nonzero

        return nonzero(condition, as_tuple=True)
    if isinstance(condition, table.Tensor) and condition._array.dtype != bool:
        raise DTypeError(
            f"where: the condition must be a bool tensor, not {condition.dtype.name}; compare it with something"
        )
    return _where(condition, input, other)


where.op = _where.op  # type: ignore[attr-defined]
_where.op.function = where

_clamp = elementwise(
    "clamp",
    lambda a, b, c: np.minimum(np.maximum(a, b), c),
    "GG_MIN(GG_MAX(a, b), c)",
    (
        lambda g, a, b, c: mul(g, logical_and(ge(a, b), le(a, c))),
        lambda g, a, b, c: mul(g, logical_and(lt(a, b), lt(b, c))),
        lambda g, a, b, c: mul(g, logical_or(gt(a, c), gt(b, c))),
    ),
    arity=3,
    dtypes="fi",
)


def clamp(input: Any, min: Any = None, max: Any = None) -> Any:
    """``input`` limited to [min, max]; each bound a number, a tensor or None (not both None).
    NaN stays NaN; where min > max the result is max."""
    if min is None and max is None:
        raise RuntimeError("clamp: neither min nor max is given; pass one of them or both")
    if min is None:
        return clamp_max(input, max)
    if max is None:
        return clamp_min(input, min)
    return _clamp(input, min, max)


clamp.op = _clamp.op  # type: ignore[attr-defined]
_clamp.op.function = clamp

clamp_min = elementwise(
    "clamp_min",
    np.maximum,
    "GG_MAX(a, b)",
    (lambda g, a, b: mul(g, ge(a, b)), lambda g, a, b: mul(g, lt(a, b))),
    arity=2,
    dtypes="fi",
)
clamp_max = elementwise(
    "clamp_max",
    np.minimum,
    "GG_MIN(a, b)",
    (lambda g, a, b: mul(g, le(a, b)), lambda g, a, b: mul(g, gt(a, b))),
    arity=2,
    dtypes="fi",
)


def zeros_like(x: Any) -> Any:
    """Zeros of the shape, dtype and device of ``x``."""
    from gpugrad.ops.creation import full_like

    return full_like(x, 0)


def _clamp_inplace(x: Any, min: Any = None, max: Any = None) -> Any:
    if min is None and max is None:
        raise RuntimeError("clamp_: neither min nor max is given; pass one of them or both")
    if min is None:
        return clamp_max.inplace(x, max)
    if max is None:
        return clamp_min.inplace(x, min)
    return _clamp.inplace(x, min, max)


clamp.inplace = _clamp_inplace  # type: ignore[attr-defined]

# PyTorch's other names for the same ops
multiply, negative, absolute = mul, neg, abs
greater, greater_equal, less, less_equal, not_equal = gt, ge, lt, le, ne
arcsin, arccos, arctan, arctan2, arcsinh, arccosh, arctanh = asin, acos, atan, atan2, asinh, acosh, atanh
fix, clip, sgn = trunc, clamp, sign
