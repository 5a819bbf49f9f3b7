"""Random tensors. What is drawn depends on the generator's seed, on how many draws were made
before and on the element's position; never on the device (``gpugrad/backends/philox.py``)."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpugrad import dtypes, layout
from gpugrad.errors import DTypeError
from gpugrad.ops import elementwise as e
from gpugrad.ops import inplace, table
from gpugrad.ops.creation import _finish, backend_for, cast, check_options, shape_of, zeros
from gpugrad.ops.mapping import elementwise
from gpugrad.ops.movement import narrow, reshape
from gpugrad.random import Generator, default_generator


def draw(kind: str, shape: tuple[int, ...], dtype: dtypes.DType, backend: Any, generator: Generator | None) -> Any:
    """A tensor of ``kind`` (uniform, normal, bits): the next stream of ``generator``, the default one if None."""
    seed, stream = (generator or default_generator).next_stream()
    return table.wrap(backend.random(kind, shape, dtype.numpy, seed, stream), backend)


def _float_dtype(dtype: Any, op: str) -> dtypes.DType:
    d = dtypes.get_default_dtype() if dtype is None else dtypes.as_dtype(dtype)
    if not d.is_floating_point:
        raise DTypeError(f"{op}: expected a floating-point dtype, got {d.name}; use randint for integers")
    return d


def rand(
    *size: Any,
    generator: Generator | None = None,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
    **options: Any,
) -> Any:
    """Uniform on [0, 1)."""
    check_options("rand", options)
    d = _float_dtype(dtype, "rand")
    return _finish(draw("uniform", shape_of(size, "rand"), d, backend_for(device, d, "rand"), generator), requires_grad)


def randn(
    *size: Any,
    generator: Generator | None = None,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
    **options: Any,
) -> Any:
    """Normal with mean 0 and variance 1."""
    check_options("randn", options)
    d = _float_dtype(dtype, "randn")
    return _finish(
        draw("normal", shape_of(size, "randn"), d, backend_for(device, d, "randn"), generator), requires_grad
    )


def _integers(low: int, high: int, shape: tuple[int, ...], backend: Any, generator: Generator | None, op: str) -> Any:
    if high <= low:
        raise RuntimeError(f"{op}: expected low < high, got {low} and {high}")
    bits = draw("bits", shape, dtypes.int64, backend, generator)
    positive = e.bitwise_and(bits, 2**63 - 1)
    return e.add(e.remainder(positive, high - low) if high - low < 2**63 else positive, low)


def randint(
    low: Any = None,
    high: Any = None,
    size: Any = None,
    *,
    generator: Generator | None = None,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
    **options: Any,
) -> Any:
    """Integers from ``low`` (0 unless given) up to but without ``high``: ``randint(low, high, size)`` or
    ``randint(high, size)``. The remainder of 63 random bits: biased by less than (high-low)/2**63."""
    check_options("randint", options)
    if size is None:
        low, high, size = 0, low, high
    low, high = (0, low) if high is None else (low or 0, high)
    if size is None or high is None or isinstance(high, (tuple, list)):
        raise TypeError("randint: call it as randint(high, size) or randint(low, high, size) with a tuple as size")
    d = dtypes.int64 if dtype is None else dtypes.as_dtype(dtype)
    backend = backend_for(device, d, "randint")
    out = _integers(int(low), int(high), shape_of((size,), "randint"), backend, generator, "randint")
    return _finish(cast(out, d), requires_grad)


def randperm(
    n: int,
    *,
    generator: Generator | None = None,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
    **options: Any,
) -> Any:
    """The integers 0 to n-1 in random order: those of a stable sort of n random words."""
    check_options("randperm", options)
    d = dtypes.int64 if dtype is None else dtypes.as_dtype(dtype)
    backend = backend_for(device, d, "randperm")
    bits = draw("bits", shape_of((n,), "randperm"), dtypes.int64, backend, generator)
    return _finish(cast(table.wrap(backend.sort(bits._array, 0, False)[1], backend), d), requires_grad)


def _as_of(input: Any, dtype: Any, device: Any) -> dict[str, Any]:
    """The dtype and the device asked for, else those of ``input``."""
    return {"dtype": input.dtype if dtype is None else dtype, "device": input.device if device is None else device}


def rand_like(input: Any, *, dtype: Any = None, device: Any = None, **options: Any) -> Any:
    """:func:`rand` of the shape, dtype and device of ``input``; takes its other arguments."""
    return rand(input._array.shape, **_as_of(input, dtype, device), **options)


def randn_like(input: Any, *, dtype: Any = None, device: Any = None, **options: Any) -> Any:
    """:func:`randn` of the shape, dtype and device of ``input``; takes its other arguments."""
    return randn(input._array.shape, **_as_of(input, dtype, device), **options)


def randint_like(
    input: Any, low: Any = None, high: Any = None, *, dtype: Any = None, device: Any = None, **options: Any
) -> Any:
    """:func:`randint` of the shape, dtype and device of ``input``; takes its other arguments."""
    return randint(low, high, tuple(input._array.shape), **_as_of(input, dtype, device), **options)


def _probability(op: str, p: float) -> None:
    if not 0 <= p <= 1:
        raise RuntimeError(f"{op}: p={p} is not a probability; it lies in [0, 1]")


def bernoulli(input: Any, p: float | None = None, *, generator: Generator | None = None) -> Any:
    """1 with probability ``input`` (elementwise, floating-point) or ``p``, else 0; of the dtype of ``input``.
    Raises RuntimeError for what is not a probability."""
    from gpugrad.ops.reductions import require_floating
    from gpugrad.ops.statistics import as_probability

    if p is None:
        require_floating(input, "bernoulli")
        bound = as_probability(input.detach())
    else:
        _probability("bernoulli", p)
        bound = p
    drawn_in = input.dtype if input.dtype.is_floating_point else dtypes.float32
    uniform = draw("uniform", tuple(input._array.shape), drawn_in, input._backend, generator)
    return inplace.constant_in(input, cast(e.lt(uniform, bound), input.dtype))


def _weight_check(name: str, c: str, check: Any) -> Any:
    return elementwise(
        name,
        lambda a: a,
        "a",
        check=lambda a: ~check(a),
        c_check=f"!({c})",
        error=(RuntimeError, "multinomial: weights must be finite, not negative, and not all zero (found {a})"),
        samples=(),
    )


_weight = _weight_check("multinomial_weight", "a >= 0 && isfinite(a)", lambda a: (a >= 0) & np.isfinite(a))
_sum_of_weights = _weight_check("multinomial_total", "a > 0", lambda a: a > 0)


def multinomial(input: Any, num_samples: int, replacement: bool = False, *, generator: Generator | None = None) -> Any:
    """int64 indices drawn from the weights in the last dimension of ``input`` (1-d or 2-d, not
    negative, need not add up to 1). With replacement by inverting the cumulative sum; without,
    the ``num_samples`` largest of log(weight) + Gumbel noise (Gumbel-top-k); weights of zero come last.

    Raises RuntimeError for negative, infinite or only zero weights, where the data is: at the next read."""
    from gpugrad.ops.reductions import wide_dtype
    from gpugrad.ops.scans import cumsum
    from gpugrad.ops.sorting import searchsorted, topk

    weights = input.detach()
    if weights._array.ndim not in (1, 2) or not weights.dtype.is_floating_point:
        raise RuntimeError(f"multinomial: expected 1-d or 2-d floating-point weights, got {table.describe(input)}")
    rows = weights if weights._array.ndim == 2 else reshape(weights, (1, -1))
    n, k = rows._array.shape
    if num_samples <= 0:
        raise RuntimeError(f"multinomial: num_samples must be above 0, got {num_samples}")
    if not replacement and num_samples > k:
        raise RuntimeError(f"multinomial: cannot draw {num_samples} samples without replacement from {k} weights")
    if not n or not k:
        if n:
            raise RuntimeError(f"multinomial: there are no weights, the shape is {tuple(input.shape)}")
        return zeros((n, num_samples), dtype=dtypes.int64, device=input.device)
    rows = cast(_weight(rows), dtypes.from_numpy(wide_dtype(rows._array.dtype)))
    total = cumsum(rows, -1)
    whole = _sum_of_weights(narrow(total, -1, k - 1, 1))
    if replacement:
        u = draw("uniform", (n, num_samples), rows.dtype, rows._backend, generator)
        found = searchsorted(total, e.mul(u, whole), right=True)
        out = e.clamp_max(found, k - 1)
    else:
        u = draw("uniform", (n, k), rows.dtype, rows._backend, generator)
        noise = e.neg(e.log(e.neg(e.log(e.clamp_min(u, dtypes.finfo(rows.dtype).tiny)))))
        out = topk(e.add(e.log(rows), noise), num_samples)[1]
    return out if weights._array.ndim == 2 else reshape(out, -1)


_deviation = elementwise(
    "standard_deviation",
    lambda a: a,
    "a",
    check=lambda a: ~(a >= 0),
    c_check="!(a >= 0)",
    error=(RuntimeError, "normal: the standard deviation {a} is not 0 or above"),
    samples=(),
)


def normal(
    mean: Any = 0.0,
    std: Any = 1.0,
    size: Any = None,
    *,
    generator: Generator | None = None,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
    **options: Any,
) -> Any:
    """Normal with ``mean`` and ``std``: two numbers with a ``size``, or a tensor and a number or two tensors
    (which broadcast; the dtype is that of the first). Raises TypeError for other combinations,
    RuntimeError for a negative ``std``, integer tensors, and shapes that do not broadcast."""
    check_options("normal", options)
    tensors = [x for x in (mean, std) if isinstance(x, table.Tensor)]
    if not isinstance(std, table.Tensor) and std < 0:
        raise RuntimeError(f"normal: std must not be negative, got {std}")
    if bool(tensors) == (size is not None):
        raise TypeError("normal: call it as normal(mean, std, size) with numbers and a tuple, or with tensors alone")
    if not tensors:
        noise = randn(size, generator=generator, dtype=dtype, device=device)
        return _finish(e.add(e.mul(noise, std), mean), requires_grad)
    mean, std = (x.detach() if isinstance(x, table.Tensor) else x for x in (mean, std))
    kind = _float_dtype(tensors[0].dtype, "normal")
    backend = table.same_device("normal", tensors)
    try:
        shape = layout.broadcast_shapes(*(x._array.shape for x in tensors))
    except ValueError as error:
        raise RuntimeError(f"normal: {error}") from None
    noise = draw("normal", tuple(shape), kind, backend, generator)
    if isinstance(std, table.Tensor):
        std = cast(_deviation(std), kind)
    return e.add(e.mul(noise, std), cast(mean, kind) if isinstance(mean, table.Tensor) else mean)


# -- in place ------------------------------------------------------------------


def fill(name: str, x: Any, value: Any) -> Any:
    """In place ``name``: ``value``, converted to the dtype of ``x``, stored in it."""
    return inplace.write(name, x, cast(value, x.dtype))


def _bounds(op: str, args: tuple[Any, ...], named: dict[str, Any], low: Any, high: Any) -> tuple[Any, Any]:
    """(from, to), given by position or by these names, of which the first is a keyword of the language."""
    given = dict(zip(("from", "to"), args, strict=False))
    if len(args) > 2 or set(given) & set(named) or set(named) - {"from", "to"}:
        raise TypeError(f"{op}: takes from and to, by position or by name; got {args} and {sorted(named)}")
    given |= named
    return given.get("from", low), given.get("to", high)


def uniform_(x: Any, *args: float, generator: Generator | None = None, **named: float) -> Any:
    """``uniform_(from=0, to=1)``: fill ``x`` with numbers uniform on [from, to). Raises RuntimeError for
    integers and from > to."""
    a, b = _bounds("uniform_", args, named, 0.0, 1.0)
    if not a <= b:
        raise RuntimeError(f"uniform_: expected from <= to, got {a} and {b}")
    u = draw("uniform", tuple(x._array.shape), _float_dtype(x.dtype, "uniform_"), x._backend, generator)
    return fill("uniform_", x, e.add(e.mul(u, b - a), a) if (a, b) != (0.0, 1.0) else u)


def normal_(x: Any, mean: float = 0.0, std: float = 1.0, *, generator: Generator | None = None) -> Any:
    """Fill ``x`` with normal numbers."""
    if std < 0:
        raise RuntimeError(f"normal_: std must not be negative, got {std}")
    z = draw("normal", tuple(x._array.shape), _float_dtype(x.dtype, "normal_"), x._backend, generator)
    return fill("normal_", x, e.add(e.mul(z, std), mean) if (mean, std) != (0.0, 1.0) else z)


def bernoulli_(x: Any, p: Any = 0.5, *, generator: Generator | None = None) -> Any:
    """Fill ``x`` with 1 (probability ``p``, a number or a tensor that broadcasts) and 0. Raises
    RuntimeError for what is not a probability."""
    from gpugrad.ops.statistics import as_probability

    if isinstance(p, table.Tensor):
        p = as_probability(p.detach())
    else:
        _probability("bernoulli_", p)
    d = x.dtype if x.dtype.is_floating_point else dtypes.float32
    u = draw("uniform", tuple(x._array.shape), d, x._backend, generator)
    return fill("bernoulli_", x, e.lt(u, p))


def random_(x: Any, *args: int, generator: Generator | None = None, **named: Any) -> Any:
    """``random_(from, to)``, ``random_(to)`` or ``random_()``: fill ``x`` with integers from ``from`` (0) up to
    but without ``to``; without it all that an integer dtype counts to, or up to which a floating dtype holds
    every integer. Raises RuntimeError for from >= to."""
    low, high = _bounds("random_", (0, *args) if len(args) == 1 else args, named, 0, None)
    if high is None:
        if x.dtype.is_floating_point:
            high = round(2 / dtypes.finfo(x.dtype).eps) + 1
        else:
            high = 2 if x.dtype.category == 0 else dtypes.iinfo(x.dtype).max + 1
    return fill("random_", x, _integers(int(low), int(high), tuple(x._array.shape), x._backend, generator, "random_"))
