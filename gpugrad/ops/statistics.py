"""Statistics: mean, variance, quantiles, covariance."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gpugrad import dtypes, layout
from gpugrad.ops import elementwise as e
from gpugrad.ops import table
from gpugrad.ops.creation import cast, full, full_like, rounded_once
from gpugrad.ops.diagonals import diagonal
from gpugrad.ops.indexing import gather
from gpugrad.ops.linear import matmul
from gpugrad.ops.mapping import elementwise
from gpugrad.ops.movement import expand, movedim, reshape, squeeze, transpose, unsqueeze
from gpugrad.ops.reductions import _sum, nansum, require_floating, wide_dtype
from gpugrad.ops.reductions import sum as sum_
from gpugrad.ops.table import Sample as S
from gpugrad.ops.table import composite, describe

_DIMS = (
    S(((3, 4),)),
    S(((3, 4),), {"dim": 1}),
    S(((2, 3, 4),), {"dim": (0, 2), "keepdim": True}),
    S(((),)),
)


def _count(x: Any, axes: Sequence[int]) -> int:
    return math.prod(x._array.shape[i] for i in axes)


def _widened(x: Any) -> Any:
    """Half types in float32, so that what is computed in several steps is rounded once."""
    return cast(x, dtypes.from_numpy(wide_dtype(x._array.dtype)))


# -- mean ------------------------------------------------------------------------


@composite(
    reference=lambda a, dim=None, keepdim=False: np.mean(a, axis=dim, keepdims=keepdim), samples=_DIMS, dtypes="f"
)
def mean(input: Any, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Any:
    """Arithmetic mean over ``dim`` or all elements, NaN of none. Raises RuntimeError for integers
    (unless a floating ``dtype`` is given to compute in)."""
    if dtype is not None:
        input = cast(input, dtypes.as_dtype(dtype))
    require_floating(input, "mean")
    axes = layout.normalize_axes(dim, input._array.ndim, "mean")
    if axes and input._array.dtype.itemsize > 2:
        total = _sum(input, dim=axes, keepdim=keepdim, dtype=input._array.dtype)
        return e.div(total, float(_count(input, axes)))
    x = _widened(input)
    return cast(e.div(sum_(x, axes, keepdim) if axes else x, float(_count(x, axes))), input.dtype)


@composite(
    reference=lambda a, dim=None, keepdim=False: np.nanmean(a, axis=dim, keepdims=keepdim),
    samples=(*_DIMS[:3], S(([[1.0, math.nan, 4.0], [2.0, 3.0, math.nan]],), {"dim": 1})),
    dtypes="f",
)
def nanmean(input: Any, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Any:
    """:func:`mean` of the elements that are not NaN; NaN where there is none."""
    if dtype is not None:
        input = cast(input, dtypes.as_dtype(dtype))
    require_floating(input, "nanmean")
    x = _widened(input)
    present = sum_(e.logical_not(e.isnan(x)), dim, keepdim)
    return cast(e.div(nansum(x, dim, keepdim), present), input.dtype)


# -- variance ----------------------------------------------------------------------


def _variance(op: str, input: Any, dim: Any, unbiased: Any, keepdim: bool, correction: Any) -> tuple[Any, Any]:
    """(variance, mean): squared deviations from the mean, added up and divided by n - correction."""
    require_floating(input, op)
    if isinstance(dim, bool):  # var(x, unbiased)
        if unbiased is not None:
            raise TypeError(f"{op}: unbiased is given twice; as second argument it stands alone")
        dim, unbiased = None, dim
    if unbiased is not None and correction is not None:
        raise TypeError(f"{op}: give unbiased or correction, not both")
    if correction is None:
        correction = 1.0 if unbiased is None or unbiased else 0.0
    axes = layout.normalize_axes(dim, input._array.ndim, op)
    x = _widened(input)
    n = _count(x, axes)
    centre = e.div(sum_(x, axes, True) if axes else x, float(n))
    squares = e.square(e.sub(x, centre))
    total = sum_(squares, axes, keepdim) if axes else squares
    variance = e.div(total, max(n - float(correction), 0.0))
    if axes and not keepdim:
        centre = reshape(centre, layout.reduced_shape(x._array.shape, axes, False))
    return variance, centre


_VAR = (
    S(((3, 4),)),
    S(((3, 4),), {"dim": 1}),
    S(((2, 3, 4),), {"dim": (0, 2), "keepdim": True}),
    S(((3, 4),), {"dim": 1, "correction": 0}),
)


@composite(
    reference=lambda a, dim=None, correction=1, keepdim=False: np.var(a, axis=dim, ddof=correction, keepdims=keepdim),
    samples=_VAR,
    dtypes="f",
)
def var(
    input: Any, dim: Any = None, unbiased: bool | None = None, keepdim: bool = False, *, correction: Any = None
) -> Any:
    """Variance over ``dim`` or all elements: squared deviations from the mean, summed and divided
    by n - ``correction`` (1 unless given; ``unbiased=False`` means 0); ``var(x, unbiased)`` is
    understood too. NaN of one element. Raises RuntimeError for integers."""
    return cast(_variance("var", input, dim, unbiased, keepdim, correction)[0], input.dtype)


@composite(
    reference=lambda a, dim=None, correction=1, keepdim=False: np.std(a, axis=dim, ddof=correction, keepdims=keepdim),
    samples=_VAR,
    dtypes="f",
)
def std(
    input: Any, dim: Any = None, unbiased: bool | None = None, keepdim: bool = False, *, correction: Any = None
) -> Any:
    """Square root of :func:`var`."""
    return cast(e.sqrt(_variance("std", input, dim, unbiased, keepdim, correction)[0]), input.dtype)


def var_mean(
    input: Any, dim: Any = None, unbiased: bool | None = None, keepdim: bool = False, *, correction: Any = None
) -> tuple[Any, Any]:
    """(variance, mean), as :func:`var` and :func:`mean`."""
    variance, centre = _variance("var_mean", input, dim, unbiased, keepdim, correction)
    return cast(variance, input.dtype), cast(centre, input.dtype)


def std_mean(
    input: Any, dim: Any = None, unbiased: bool | None = None, keepdim: bool = False, *, correction: Any = None
) -> tuple[Any, Any]:
    """(standard deviation, mean), as :func:`std` and :func:`mean`."""
    variance, centre = _variance("std_mean", input, dim, unbiased, keepdim, correction)
    return cast(e.sqrt(variance), input.dtype), cast(centre, input.dtype)


# -- quantiles ---------------------------------------------------------------------

# Itself, for a probability; the check runs where the data is.
as_probability = elementwise(
    "as_probability",
    lambda a: a,
    "a",
    lambda g: g,
    check=lambda a: ~((a >= 0) & (a <= 1)),
    c_check="!(a >= 0 && a <= 1)",
    error=(RuntimeError, "{a} is not in [0, 1], as a probability or the q of a quantile must be"),
    samples=(),
)

_INTERPOLATIONS = ("linear", "lower", "higher", "midpoint", "nearest")


def _quantile_points(op: str, input: Any, q: Any, interpolation: str) -> Any:
    """``q`` as a checked tensor of the input's dtype."""
    require_floating(input, op)
    if input.dtype not in (dtypes.float32, dtypes.float64):
        raise RuntimeError(f"{op}: expected float32 or float64, got {input.dtype.name}; convert it with .float()")
    if interpolation not in _INTERPOLATIONS:
        raise RuntimeError(f"{op}: interpolation must be one of {', '.join(_INTERPOLATIONS)}, not {interpolation!r}")
    if not input._array.size:
        raise RuntimeError(f"{op}: the tensor of shape {tuple(input.shape)} has no elements to choose from")
    if isinstance(q, table.Tensor):
        if q.dtype is not input.dtype or q._array.ndim > 1:
            raise RuntimeError(f"{op}: q must be 0-d or 1-d and of the dtype of the input; got {describe(input, q)}")
        table.same_device(op, (input, q))
        return as_probability(q)
    if isinstance(q, bool) or not isinstance(q, (int, float, np.floating, np.integer)):
        raise TypeError(f"{op}: q must be a number or a tensor, got {type(q).__name__}; make one of it with tensor()")
    if not 0 <= q <= 1:
        raise RuntimeError(f"{op}: q = {q} is not in [0, 1]")
    return full((), float(q), dtype=input.dtype, device=input.device)


def _quantile(op: str, input: Any, q: Any, dim: Any, keepdim: bool, interpolation: str, skip_nan: bool) -> Any:
    from gpugrad.ops.sorting import sort

    table.as_tensor_arg(op, input)
    q = _quantile_points(op, input, q, interpolation)
    ndim = input._array.ndim
    if dim is None:
        lines, kept = reshape(input, -1), (1,) * ndim
    else:
        d = layout.normalize_axis(dim, ndim, op)
        kept = layout.reduced_shape(input._array.shape, (d,), True)
        lines = movedim(input, d, -1) if ndim else reshape(input, -1)
    n = lines._array.shape[-1]
    lines = sort(lines, -1)[0]
    nan = e.isnan(lines)
    rank: Any
    if skip_nan:  # NaN sorts last
        rank = e.mul(e.sub(sum_(e.logical_not(nan), -1, keepdim=True), 1), reshape(q, -1))
        rank = e.clamp_min(rank, 0.0)
    else:
        top = expand(e.mul(reshape(q, -1), n - 1.0), (*lines._array.shape[:-1], q._array.size))
        rank = e.where(e.gt(sum_(nan, -1, keepdim=True), 0), float(n - 1), top)  # any NaN: take it
    if interpolation in ("lower", "higher", "nearest"):
        rounded = {"lower": e.floor, "higher": e.ceil, "nearest": e.round}[interpolation]
        value = gather(lines, -1, cast(rounded(rank), dtypes.int64))
    else:
        below = cast(e.floor(rank), dtypes.int64)
        share = full_like(rank, 0.5) if interpolation == "midpoint" else e.sub(rank, e.floor(rank))
        low, high = gather(lines, -1, below), gather(lines, -1, cast(e.ceil(rank), dtypes.int64))
        value = _lerp(low, high, share)
    front = movedim(value, -1, 0)  # q first
    shape = kept if keepdim else tuple(front._array.shape[1:])
    return reshape(front, (*q._array.shape, *shape))


def _lerp(low: Any, high: Any, share: Any) -> Any:
    """Between ``low`` and ``high``, from the nearer of them."""
    gap = e.sub(high, low)
    from_low, from_high = e.add(low, e.mul(gap, share)), e.sub(high, e.mul(gap, e.sub(1.0, share)))
    return e.where(e.lt(share, 0.5), from_low, from_high)


def _quantile_reference(function: Any) -> Callable[..., Any]:
    def reference(a: Any, q: Any, dim: Any = None, keepdim: bool = False, interpolation: str = "linear") -> Any:
        return function(a, q, axis=dim, keepdims=keepdim, method=interpolation)

    return reference


_QUANTILES = (
    S(((3, 4),), {"q": 0.3}),
    S(((3, 4), [0.1, 0.5, 0.9]), {"dim": 1, "keepdim": True}),
    S(((3, 5),), {"q": 0.7, "dim": 0, "interpolation": "lower"}),
    S(((3, 5),), {"q": 0.7, "dim": 1, "interpolation": "higher"}),
    S(((3, 5),), {"q": 0.6, "dim": -1, "interpolation": "midpoint"}),
    S(((3, 5),), {"q": 0.6, "dim": -1, "interpolation": "nearest"}),
    S(((),), {"q": 0.5}),
)


@composite(samples=_QUANTILES, reference=_quantile_reference(np.quantile), dtypes="f")
def quantile(
    input: Any, q: Any, dim: int | None = None, keepdim: bool = False, *, interpolation: str = "linear"
) -> Any:
    """The ``q``-quantiles (a number or a 1-d tensor, in [0, 1]) along ``dim`` or of all elements; the
    dimension of ``q`` comes first in the result. Between two elements: ``linear``, ``lower``, ``higher``,
    ``midpoint`` or ``nearest``. NaN where there is a NaN. Raises RuntimeError unless float32 or float64,
    for no elements and for q outside [0, 1]."""
    return _quantile("quantile", input, q, dim, keepdim, interpolation, False)


@composite(
    samples=(*_QUANTILES[:2], S(([[1.0, math.nan, 4.0, 2.0], [2.0, 3.0, math.nan, math.nan]],), {"q": 0.4, "dim": 1})),
    reference=_quantile_reference(np.nanquantile),
    dtypes="f",
)
def nanquantile(
    input: Any, q: Any, dim: int | None = None, keepdim: bool = False, *, interpolation: str = "linear"
) -> Any:
    """:func:`quantile` of the elements that are not NaN; NaN where there is none."""
    return _quantile("nanquantile", input, q, dim, keepdim, interpolation, True)


# -- covariance --------------------------------------------------------------------

# Itself, for a weight of cov.
_not_negative = elementwise(
    "as_weight",
    lambda a: a,
    "a",
    lambda g: g,
    check=lambda a: a < 0,
    c_check="a < 0",
    error=(RuntimeError, "cov: the weight {a} is negative"),
    samples=(),
)


def _weights(x: Any, fweights: Any, aweights: Any) -> Any:
    """The product of the two kinds of weights, None without any."""
    both = None
    for name, w, floating in (("fweights", fweights, False), ("aweights", aweights, True)):
        if w is None:
            continue
        table.as_tensor_arg("cov", w)
        if w._array.ndim > 1 or w._array.size != x._array.shape[1]:
            raise RuntimeError(f"cov: {name} must be 1-d with one weight per column; got {describe(x, w)}")
        if (w.dtype.category == 2) != floating or w.dtype.category == 0:
            want = "floating-point" if floating else "integer"
            raise RuntimeError(f"cov: {name} must be {want}, got {w.dtype.name}")
        w = _not_negative(reshape(w, -1))
        both = w if both is None else e.mul(both, w)
    return both


@composite(
    samples=(S(((3, 5),)), S(((3, 5),), {"correction": 0}), S(((5,),)), S(((3, 1),), {"correction": 0})),
    reference=lambda a, correction=1: np.cov(a, ddof=correction),
    dtypes="f",
)
def cov(input: Any, *, correction: int = 1, fweights: Any = None, aweights: Any = None) -> Any:
    """Covariance matrix ``[v, v]`` of ``v`` variables (rows) observed in the columns of ``[v, n]``, or the
    variance (0-d) of a 1-d tensor. ``fweights``: how often each column counts (integers); ``aweights``:
    relative weights; the divisor is as in ``numpy.cov``. Integers give the default float. Raises
    RuntimeError for more than two dimensions, bools, and weights that do not fit."""
    if input._array.ndim > 2 or input.dtype.category == 0:
        raise RuntimeError(f"cov: expected numbers in at most two dimensions, got {describe(input)}")
    x = reshape(input, (1, -1)) if input._array.ndim < 2 else input
    if not x.dtype.is_floating_point:
        x = cast(x, dtypes.get_default_dtype())
    weights = _weights(x, fweights, aweights)
    out = _cov(x, correction, weights, aweights)
    return squeeze(out) if out._array.size == 1 else out


@rounded_once
def _cov(x: Any, correction: int, weights: Any, aweights: Any) -> Any:
    n = x._array.shape[1]
    divisor: Any
    if weights is None:
        centre = (
            mean(x, 1, keepdim=True) if n else full((x._array.shape[0], 1), math.nan, dtype=x.dtype, device=x.device)
        )
        divisor = float(max(n - correction, 0))
    else:
        weights = cast(weights, table.result_type(x, weights))
        total = sum_(weights)
        centre = e.div(sum_(e.mul(x, weights), 1, keepdim=True), total)
        if aweights is None:
            divisor = e.sub(total, float(correction))
        else:
            divisor = e.sub(total, e.div(e.mul(sum_(e.mul(weights, aweights)), float(correction)), total))
        divisor = e.clamp_min(divisor, 0.0)
    centred = e.sub(x, centre)
    other = centred if weights is None else e.mul(centred, weights)
    return e.div(matmul(centred, transpose(other, 0, 1)), divisor)


@composite(samples=(S(((3, 5),)), S(((5,),))), reference=np.corrcoef, dtypes="f")
def corrcoef(input: Any) -> Any:
    """Pearson's correlation coefficients of the rows of ``[v, n]``: :func:`cov` over the standard
    deviations, clipped to [-1, 1]; 0-d for a 1-d tensor."""
    if input._array.ndim > 2:
        raise RuntimeError(f"corrcoef: expected at most two dimensions, got {describe(input)}")
    return _corrcoef(input)


@rounded_once
def _corrcoef(input: Any) -> Any:
    c = cov(input)
    if not c._array.ndim:
        return e.div(c, c)
    deviation = e.sqrt(diagonal(c))
    return e.clamp(e.div(e.div(c, unsqueeze(deviation, 1)), unsqueeze(deviation, 0)), -1.0, 1.0)
