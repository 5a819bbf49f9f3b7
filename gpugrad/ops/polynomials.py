"""Orthogonal polynomials by their three-term recurrences (NIST Handbook of Mathematical Functions, 2010, 18.9).

Differentiable with respect to the input. The degree ``n`` is a number or a tensor that broadcasts with the
input; a tensor's largest value is read back, as it says how long the recurrence runs. Negative degrees give 0.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from gpugrad import dtypes
from gpugrad.ops import elementwise as e
from gpugrad.ops import table
from gpugrad.ops.creation import cast, full_like
from gpugrad.ops.reductions import amax
from gpugrad.ops.reductions import any as logical_any

_MOST = 100_000  # degrees; each is a step of the recurrence

Step = Callable[[int, Any, Any, Any], Any]  # (k, x, p_k, p_(k-1)) -> p_(k+1)


def _sequence(x: Any, first: Any, step: Step, n: int) -> Iterator[Any]:
    """The polynomials of degree 0 to ``n`` at ``x``, or up to where none is finite any more. Raises
    NotImplementedError where that is beyond ``_MOST``."""
    p, q = first, full_like(x, 1)
    yield q
    if n:
        yield p
    for k in range(1, n):
        if k == _MOST:
            raise NotImplementedError(f"polynomials of degree {n} would take as many steps; degrees end at {_MOST}")
        p, q = step(k, x, p, q), p
        yield p
        if k % 128 == 0 and not bool(logical_any(e.isfinite(q)).item()):  # q: p may still turn from inf into NaN
            return


def _evaluate(name: str, input: Any, n: Any, first: Callable[[Any], Any], step: Step) -> Any:
    if not isinstance(input, table.Tensor):
        if not isinstance(n, table.Tensor):
            raise TypeError(f"{name}: at least one of input and n must be a Tensor, got {input!r} and {n!r}")
        d = table.result_type(float(input), n)
        input = full_like(n, input, dtype=d)
    x = input if input.dtype.is_floating_point else cast(input, dtypes.get_default_dtype())
    if not isinstance(n, table.Tensor):
        degree = int(n)
        return full_like(x, 0) if degree < 0 else deque(_sequence(x, first(x), step, degree), maxlen=1)[0]
    if not n.numel():
        return e.mul(e.add(x, n), 0.0)
    whole = e.trunc(n) if n.dtype.category else cast(n, dtypes.int64)
    result = e.where(e.lt(whole, 0), 0.0, full_like(x, 1))
    if whole.dtype.is_floating_point:
        whole = e.where(e.isfinite(whole), whole, -1.0)  # what is no degree counts as a negative one
        result = e.where(e.lt(whole, 0), 0.0, result)
    last = 0
    for last, value in enumerate(_sequence(x, first(x), step, max(int(amax(whole).item()), 0))):
        result = e.where(e.eq(whole, last), value, result)
    return e.where(e.gt(whole, last), value, result)


def _chebyshev_step(k: int, x: Any, p: Any, q: Any) -> Any:
    return e.sub(e.mul(e.mul(x, 2.0), p), q)


def _line(slope: float, start: float) -> Callable[[Any], Any]:
    return lambda x: e.add(e.mul(x, slope), start) if start else e.mul(x, slope)


def chebyshev_polynomial_t(input: Any, n: Any) -> Any:
    """Chebyshev polynomials of the first kind, T_n."""
    return _evaluate("chebyshev_polynomial_t", input, n, _line(1.0, 0.0), _chebyshev_step)


def chebyshev_polynomial_u(input: Any, n: Any) -> Any:
    """Chebyshev polynomials of the second kind, U_n."""
    return _evaluate("chebyshev_polynomial_u", input, n, _line(2.0, 0.0), _chebyshev_step)


def chebyshev_polynomial_v(input: Any, n: Any) -> Any:
    """Chebyshev polynomials of the third kind, V_n."""
    return _evaluate("chebyshev_polynomial_v", input, n, _line(2.0, -1.0), _chebyshev_step)


def chebyshev_polynomial_w(input: Any, n: Any) -> Any:
    """Chebyshev polynomials of the fourth kind, W_n."""
    return _evaluate("chebyshev_polynomial_w", input, n, _line(2.0, 1.0), _chebyshev_step)


def _shifted(input: Any) -> Any:
    return e.sub(e.mul(input, 2.0), 1.0) if isinstance(input, table.Tensor) else 2.0 * input - 1.0


def shifted_chebyshev_polynomial_t(input: Any, n: Any) -> Any:
    """:func:`chebyshev_polynomial_t` at 2x - 1."""
    return chebyshev_polynomial_t(_shifted(input), n)


def shifted_chebyshev_polynomial_u(input: Any, n: Any) -> Any:
    """:func:`chebyshev_polynomial_u` at 2x - 1."""
    return chebyshev_polynomial_u(_shifted(input), n)


def shifted_chebyshev_polynomial_v(input: Any, n: Any) -> Any:
    """:func:`chebyshev_polynomial_v` at 2x - 1."""
    return chebyshev_polynomial_v(_shifted(input), n)


def shifted_chebyshev_polynomial_w(input: Any, n: Any) -> Any:
    """:func:`chebyshev_polynomial_w` at 2x - 1."""
    return chebyshev_polynomial_w(_shifted(input), n)


def hermite_polynomial_h(input: Any, n: Any) -> Any:
    """Hermite polynomials H_n of physics: H_2 = 4x^2 - 2."""

    def step(k: int, x: Any, p: Any, q: Any) -> Any:
        return e.sub(e.mul(e.mul(x, 2.0), p), e.mul(q, 2.0 * k))

    return _evaluate("hermite_polynomial_h", input, n, _line(2.0, 0.0), step)


def hermite_polynomial_he(input: Any, n: Any) -> Any:
    """Hermite polynomials He_n of probability theory: He_2 = x^2 - 1."""

    def step(k: int, x: Any, p: Any, q: Any) -> Any:
        return e.sub(e.mul(x, p), e.mul(q, float(k)))

    return _evaluate("hermite_polynomial_he", input, n, _line(1.0, 0.0), step)


def laguerre_polynomial_l(input: Any, n: Any) -> Any:
    """Laguerre polynomials L_n."""

    def step(k: int, x: Any, p: Any, q: Any) -> Any:
        return e.mul(e.sub(e.mul(e.sub(2.0 * k + 1, x), p), e.mul(q, float(k))), 1.0 / (k + 1))

    return _evaluate("laguerre_polynomial_l", input, n, _line(-1.0, 1.0), step)


def legendre_polynomial_p(input: Any, n: Any) -> Any:
    """Legendre polynomials P_n."""

    def step(k: int, x: Any, p: Any, q: Any) -> Any:
        return e.mul(e.sub(e.mul(e.mul(x, p), 2.0 * k + 1), e.mul(q, float(k))), 1.0 / (k + 1))

    return _evaluate("legendre_polynomial_p", input, n, _line(1.0, 0.0), step)
