"""Special functions: one row each, as in ``gpugrad/ops/elementwise.py``.

On the host they are computed by ``gpugrad/ops/numerics.py`` and ``numerics_bessel.py``, on devices by
``kernels/special.h`` (the ``sf_`` functions), with the same methods.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from gpugrad import dtypes
from gpugrad.ops import elementwise as e
from gpugrad.ops import table
from gpugrad.ops.creation import cast, rounded_once
from gpugrad.ops.mapping import elementwise
from gpugrad.ops.table import Sample as S
from gpugrad.ops.table import composite

# Named by derivatives above the row that defines them.
digamma: Any
zeta: Any
i1: Any
i0e: Any
i1e: Any
bessel_j1: Any
bessel_y1: Any
k0e: Any
k1e: Any
xlogy: Any
xlog1py: Any


def _host(name: str) -> Callable[..., Any]:
    """The function ``name`` of numerics.py or numerics_bessel.py, which are loaded by the first call of any."""

    def function(*inputs: Any) -> Any:
        from gpugrad.ops import numerics, numerics_bessel

        return (getattr(numerics, name, None) or getattr(numerics_bessel, name))(*inputs)

    return function


def _special(name: str, c: str, vjp: Any, **row: Any) -> Any:
    """The row of a function of numerics.py; it promotes integers to floating numbers."""
    row.setdefault("torch", f"special.{name}")
    row.setdefault("dtypes", "f")  # of the tests; every row takes integers
    return elementwise(name, _host(name), c, vjp, rule="float", **row)


def _no_derivative(name: str, argument: str) -> Callable[[Any], Any]:
    def vjp(g: Any) -> Any:
        raise NotImplementedError(
            f"{name}: the derivative with respect to {argument} is not there (it has no closed form); detach() it"
        )

    return vjp


def _where_zero(a: Any, value: Any, otherwise: Callable[[Any], Any]) -> Any:
    """``value`` where ``a`` is 0, else ``otherwise(a)``, which never sees a 0."""
    zero = e.eq(a, 0)
    return e.where(zero, value, otherwise(e.where(zero, 1.0, a)))


def _plus(a: Any, number: float) -> Any:
    return e.add(a, number) if isinstance(a, table.Tensor) else a + number


# -- error function -----------------------------------------------------------------

_ROOT_PI = math.sqrt(math.pi)
erfinv = _special(
    "erfinv",
    "sf_erfinv(a)",
    lambda g, y: e.mul(g, e.mul(e.exp(e.square(y)), _ROOT_PI / 2)),
    domain=(-0.9, 0.9),
    dtypes="fib",
)
erfcx = _special("erfcx", "sf_erfcx(a)", lambda g, a, y: e.mul(g, e.sub(e.mul(e.mul(a, y), 2.0), 2 / _ROOT_PI)))
ndtri = _special(
    "ndtri",
    "sf_ndtri(a)",
    lambda g, y: e.mul(g, e.mul(e.exp(e.mul(e.square(y), 0.5)), math.sqrt(2 * math.pi))),
    domain=(0.05, 0.95),
)
log_ndtr = _special(
    "log_ndtr",
    "sf_log_ndtr(a)",
    lambda g, a: e.div(e.mul(g, math.sqrt(2 / math.pi)), erfcx(e.mul(a, -math.sqrt(0.5)))),
)


@composite(reference=lambda a: np.exp(_host("log_ndtr")(a)), samples=(S(((3, 4),)), S(((),))), torch="special.ndtr")
@rounded_once
def ndtr(input: Any) -> Any:
    """The normal distribution function: the area under the standard normal density left of x."""
    return e.mul(e.erfc(e.mul(input, -math.sqrt(0.5))), 0.5)


# -- gamma function ------------------------------------------------------------------

lgamma = _special(
    "lgamma", "sf_lgamma(a)", lambda g, a: e.mul(g, digamma(a)), domain=(0.2, 4.0), torch="lgamma", dtypes="fib"
)
digamma = _special("digamma", "sf_digamma(a)", lambda g, a: e.mul(g, zeta(2.0, a)), domain=(0.2, 4.0))
_ORDERS = lambda r: r.integers(2, 7, (3, 4))  # noqa: E731
zeta = _special(
    "zeta",
    "sf_zeta(a, b)",
    (_no_derivative("zeta", "input"), lambda g, a, b: e.neg(e.mul(g, e.mul(a, zeta(_plus(a, 1), b))))),
    arity=2,
    domain=(0.3, 5.0),
    samples=(S((_ORDERS, (3, 4))), S((_ORDERS, (3, 1)))),
    dtypes="f",
)


def polygamma(n: int, input: Any) -> Any:
    """The ``n``-th derivative of :func:`digamma`. Raises RuntimeError for a negative ``n``."""
    if isinstance(n, table.Tensor) or isinstance(input, int):  # as a method the tensor comes first
        n, input = input, n
    if not isinstance(n, int):
        raise TypeError(f"polygamma: the order n must be an int, got {type(n).__name__}")
    if n < 0:
        raise RuntimeError(f"polygamma: the order must not be negative, got {n}")
    if n == 0:
        return digamma(input)
    factor = float(math.factorial(n)) if n <= 170 else math.inf
    return e.mul(zeta(float(n + 1), input), factor if n % 2 else -factor)


@composite(
    reference=lambda a, p: sum(_host("lgamma")(a - j / 2) for j in range(p)) + p * (p - 1) / 4 * math.log(math.pi),
    samples=(S(((3, 4),), {"p": 3}), S(((),), {"p": 1}), S(((0, 2),), {"p": 2})),
    domain=(1.5, 4.0),
    dtypes="f",
)
def mvlgamma(input: Any, p: int) -> Any:
    """The logarithm of the multivariate gamma function of dimension ``p``. Raises RuntimeError for ``p`` < 1."""
    if p < 1:
        raise RuntimeError(f"mvlgamma: the dimension p must be at least 1, got {p}")
    return _mvlgamma(input, p)


@rounded_once
def _mvlgamma(input: Any, p: int) -> Any:
    total = lgamma(input)
    for j in range(1, p):
        total = e.add(total, lgamma(e.sub(input, j / 2)))
    return e.add(total, p * (p - 1) / 4 * math.log(math.pi)) if p > 1 else total


def _gamma_density(a: Any, b: Any) -> Any:
    """x^(a-1) exp(-x) / gamma(a)"""
    log_gamma = lgamma(a) if isinstance(a, table.Tensor) else math.lgamma(a)
    return e.exp(e.sub(e.sub(xlogy(_plus(a, -1), b), b), log_gamma))


_SHAPES = (
    S((lambda r: r.integers(1, 9, (3, 4)), (3, 4))),
    S((lambda r: r.integers(1, 9, (3, 1)), (4,))),
    S((lambda r: r.integers(1, 9, (0, 2)), ())),
)
igamma = _special(
    "igamma",
    "sf_igamma(a, b, 0)",
    (_no_derivative("igamma", "input"), lambda g, a, b: e.mul(g, _gamma_density(a, b))),
    arity=2,
    domain=(0.3, 9.0),
    samples=_SHAPES,
    dtypes="f",
    torch="igamma",
)
igammac = _special(
    "igammac",
    "sf_igamma(a, b, 1)",
    (_no_derivative("igammac", "input"), lambda g, a, b: e.neg(e.mul(g, _gamma_density(a, b)))),
    arity=2,
    domain=(0.3, 9.0),
    samples=_SHAPES,
    dtypes="f",
    torch="igammac",
)


def _gamma_gradient(*inputs: Any) -> Any:
    from gpugrad.ops import numerics_gamma

    return numerics_gamma.standard_gamma_grad(*inputs)


# What gamma numbers of shape ``input`` change by where it does: the derivative of a sample.
standard_gamma_grad = elementwise(
    "standard_gamma_grad",
    _gamma_gradient,
    "sf_gamma_gradient(a, b)",
    (_no_derivative("standard_gamma_grad", "input"), _no_derivative("standard_gamma_grad", "output")),
    rule="float",
    arity=2,
    domain=(0.3, 9.0),
    differentiable=False,
    dtypes="f",
    torch="",  # PyTorch's is a fit, which tests/test_distributions_more.py compares
)

# -- Bessel functions -------------------------------------------------------------------


def _over(y: Any, a: Any) -> Any:
    return _where_zero(a, 0.5, lambda safe: e.div(y, safe))


def _i0e_slope(a: Any) -> Any:
    return e.sub(i1e(a), e.mul(e.sign(a), i0e(a)))


def _i1e_slope(a: Any) -> Any:
    y = i1e(a)
    return e.sub(e.sub(i0e(a), _over(y, a)), e.mul(e.sign(a), y))


def _k0e_slope(a: Any) -> Any:
    return e.sub(k0e(a), k1e(a))


def _k1e_slope(a: Any) -> Any:
    y = k1e(a)
    return e.sub(e.sub(y, k0e(a)), e.div(y, a))


i0 = _special("i0", "sf_i0(a)", lambda g, a: e.mul(g, i1(a)), dtypes="fib")
i1 = _special("i1", "sf_i1(a)", lambda g, a, y: e.mul(g, e.sub(i0(a), _over(y, a))))
# Where differences cancel, not of the result, which half types have rounded.
i0e = _special("i0e", "sf_i0e(a)", lambda g, a: e.mul(g, _i0e_slope(a)))
i1e = _special("i1e", "sf_i1e(a)", lambda g, a: e.mul(g, _i1e_slope(a)))
# PyTorch has no derivatives of the following.
_BESSEL: dict[str, Any] = {"torch": "", "domain": (0.3, 12.0), "dtypes": "f"}
bessel_j0 = _special("bessel_j0", "sf_j0(a)", lambda g, a: e.neg(e.mul(g, bessel_j1(a))), **_BESSEL)
bessel_j1 = _special("bessel_j1", "sf_j1(a)", lambda g, a, y: e.mul(g, e.sub(bessel_j0(a), _over(y, a))), **_BESSEL)
bessel_y0 = _special("bessel_y0", "sf_y0(a)", lambda g, a: e.neg(e.mul(g, bessel_y1(a))), **_BESSEL)
bessel_y1 = _special("bessel_y1", "sf_y1(a)", lambda g, a, y: e.mul(g, e.sub(bessel_y0(a), e.div(y, a))), **_BESSEL)
k0e = _special("k0e", "sf_k0e(a)", lambda g, a: e.mul(g, _k0e_slope(a)), **_BESSEL)
k1e = _special("k1e", "sf_k1e(a)", lambda g, a: e.mul(g, _k1e_slope(a)), **_BESSEL)
# The derivative of Ai is no function of Ai alone.
airy_ai = _special("airy_ai", "sf_airy(a)", _no_derivative("airy_ai", "input"), torch="", samples=())


def modified_bessel_k0(input: Any) -> Any:
    """Modified Bessel function of the second kind of order 0, for x > 0."""
    return e.mul(k0e(input), e.exp(e.mul(input, -1.0)))


def modified_bessel_k1(input: Any) -> Any:
    """Modified Bessel function of the second kind of order 1, for x > 0."""
    return e.mul(k1e(input), e.exp(e.mul(input, -1.0)))


def spherical_bessel_j0(input: Any) -> Any:
    """sin(x) / x, 1 at 0 and 0 at infinity."""
    sine = e.where(e.isinf(input), 0.0, e.sin(e.where(e.isinf(input), 0.0, input)))
    return _where_zero(input, 1.0, lambda safe: e.div(sine, safe))


# -- logarithms, sinc ---------------------------------------------------------------------

logit_row = elementwise(
    "logit",
    lambda a: np.log(a / (1 - a)),
    "log(a / ((T)1 - a))",
    lambda g, a: e.where(e.logical_and(e.ge(a, 0), e.le(a, 1)), e.div(g, e.mul(a, e.sub(1.0, a))), math.nan),
    rule="float",
    domain=(0.1, 0.9),
    dtypes="fb",
)


def logit(input: Any, eps: float | None = None) -> Any:
    """log(x / (1 - x)); with ``eps``, x is first cut to [eps, 1 - eps]. NaN outside [0, 1] without."""
    if eps is None:
        return logit_row(input)
    wide = input if input.dtype.is_floating_point else cast(input, dtypes.get_default_dtype())
    return logit_row(e.clamp(wide, eps, 1 - eps))


def _logit_inplace(x: Any, eps: float | None = None) -> Any:
    if eps is not None:
        x.clamp_(eps, 1 - eps)
    return logit_row.inplace(x)


table.public("logit")(logit)
logit.inplace = _logit_inplace  # type: ignore[attr-defined]


def _nothing(a: Any, b: Any, limit: float) -> Any:
    """Where 0 log(b) is 0 by definition, though log(b) is none."""
    return e.logical_and(e.eq(a, 0), e.le(b, limit) if isinstance(b, table.Tensor) else b <= limit)


def _x_log(log: Any) -> Callable[[Any, Any], Any]:
    def function(a: Any, b: Any) -> Any:
        return np.where(np.isnan(b), b, np.where(np.equal(a, 0), np.zeros_like(a), a * log(b)))

    return function


xlogy = elementwise(
    "xlogy",
    _x_log(np.log),
    "isnan(b) ? b : a == 0 ? (T)0 : a * log(b)",
    (
        lambda g, a, b: e.where(_nothing(a, b, 0), 0.0, xlogy(g, b)),
        lambda g, a, b: e.mul(g, e.div(a, b)),
    ),
    arity=2,
    rule="float",
    domain=(0.3, 3.0),
)
xlog1py = elementwise(
    "xlog1py",
    _x_log(np.log1p),
    "isnan(b) ? b : a == 0 ? (T)0 : a * log1p(b)",
    (
        lambda g, a, b: e.where(_nothing(a, b, -1), 0.0, xlog1py(g, b)),
        lambda g, a, b: e.mul(g, e.div(a, e.add(b, 1.0))),
    ),
    arity=2,
    rule="float",
    domain=(0.3, 3.0),
    dtypes="f",
    torch="special.xlog1py",
)
entr = elementwise(
    "entr",
    lambda a: np.where(a == 0, np.zeros_like(a), np.where(a < 0, -np.inf, -a * np.log(a))),
    "a == 0 ? (T)0 : a < 0 ? -GG_INF : -a * log(a)",
    lambda g, a: e.neg(e.mul(g, e.add(e.log(a), 1.0))),
    rule="float",
    domain=(0.2, 3.0),
    dtypes="f",
    torch="special.entr",
)
logaddexp2 = elementwise(
    "logaddexp2",
    np.logaddexp2,
    "isinf(GG_MAX(a, b)) ? GG_MAX(a, b) : GG_MAX(a, b) + log1p(exp2(-fabs(a - b))) * K(1.44269504088896340736)",
    (
        lambda g, a, b: e.mul(g, e.sigmoid(e.mul(e.sub(a, b), math.log(2.0)))),
        lambda g, a, b: e.mul(g, e.sigmoid(e.mul(e.sub(b, a), math.log(2.0)))),
    ),
    arity=2,
    rule="float",
    dtypes="f",
)


def _sinc_slope(a: Any) -> Any:
    """The derivative of sinc; near 0 by its series, where the formula cancels."""
    z = e.mul(a, math.pi)
    near = e.lt(e.abs(z), 0.3)
    small = e.square(e.where(near, z, 0.0))
    series = e.mul(small, -10 / math.factorial(11))
    for k in (4, 3, 2):
        series = e.mul(e.add(series, (-1) ** k * 2 * k / math.factorial(2 * k + 1)), small)
    series = e.mul(e.add(series, -1 / 3), z)
    far = e.where(near, 1.0, z)
    formula = e.div(e.sub(e.cos(far), e.div(e.sin(far), far)), far)
    return e.mul(e.where(near, series, formula), math.pi)


sinc = elementwise(
    "sinc",
    lambda a: np.where(a == 0, np.ones_like(a), np.sin(np.pi * a) / (np.pi * a)),
    "a == 0 ? (T)1 : GG_TRIG(sin, K(3.14159265358979323846) * a) / (K(3.14159265358979323846) * a)",
    lambda g, a: e.mul(g, _sinc_slope(a)),
    rule="float",
)

# The names of gpugrad.special.
gammaln, psi, expit, multigammaln = lgamma, digamma, e.sigmoid, mvlgamma
gammainc, gammaincc = igamma, igammac
modified_bessel_i0, modified_bessel_i1 = i0, i1
scaled_modified_bessel_k0, scaled_modified_bessel_k1 = k0e, k1e
