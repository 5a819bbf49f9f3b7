"""Random tensors. What is drawn depends on the generator's seed, on how many draws were made
before and on the element's position; never on the device (``gpugrad/backends/philox.py``)."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpugrad import dtypes, layout
from gpugrad.ops import elementwise as e
from gpugrad.ops import inplace, table
from gpugrad.ops.creation import _finish, backend_for, cast, require_dtype, shape_of
from gpugrad.ops.movement import narrow, reshape
from gpugrad.random import Generator, default_generator


def _draw(kind: str, shape: tuple[int, ...], dtype: dtypes.DType, backend: Any, generator: Generator | None) -> Any:
    seed, stream = (generator or default_generator).next_stream()
    return table.wrap(backend.random(kind, shape, dtype.numpy, seed, stream), backend)


def _float_dtype(dtype: Any, op: str) -> dtypes.DType:
    d = dtypes.get_default_dtype() if dtype is None else dtypes.as_dtype(dtype)
    if not d.is_floating_point:
        raise RuntimeError(f"{op}: expected a floating-point dtype, got {d.name}; use randint for integers")
    return d


def rand(
    *size: Any, generator: Generator | None = None, dtype: Any = None, device: Any = None, requires_grad: bool = False
) -> Any:
    """Uniform on [0, 1)."""
    d = _float_dtype(dtype, "rand")
    return _finish(
        _draw("uniform", shape_of(size, "rand"), d, backend_for(device, d, "rand"), generator), requires_grad
    )


def randn(
    *size: Any, generator: Generator | None = None, dtype: Any = None, device: Any = None, requires_grad: bool = False
) -> Any:
    """Normal with mean 0 and variance 1."""
    d = _float_dtype(dtype, "randn")
    return _finish(
        _draw("normal", shape_of(size, "randn"), d, backend_for(device, d, "randn"), generator), requires_grad
    )


def _integers(low: int, high: int, shape: tuple[int, ...], backend: Any, generator: Generator | None, op: str) -> Any:
    if high <= low:
        raise RuntimeError(f"{op}: expected low < high, got {low} and {high}")
    bits = _draw("bits", shape, dtypes.int64, backend, generator)
    positive = e.bitwise_and(bits, 2**63 - 1)
    return e.add(e.remainder(positive, high - low), low)


def randint(
    low: int,
    high: Any = None,
    size: Any = None,
    *,
    generator: Generator | None = None,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Any:
    """Integers from ``low`` (0 unless given) up to but without ``high``: ``randint(low, high, size)`` or
    ``randint(high, size)``. The remainder of 63 random bits: biased by less than (high-low)/2**63."""
    if size is None:
        low, high, size = 0, low, high
    if size is None or isinstance(high, (tuple, list)):
        raise TypeError("randint: call it as randint(high, size) or randint(low, high, size) with a tuple as size")
    d = dtypes.int64 if dtype is None else dtypes.as_dtype(dtype)
    backend = backend_for(device, d, "randint")
    out = _integers(int(low), int(high), shape_of((size,), "randint"), backend, generator, "randint")
    return _finish(cast(out, d), requires_grad)


def randperm(n: int, *, generator: Generator | None = None, dtype: Any = None, device: Any = None) -> Any:
    """The integers 0 to n-1 in random order: those of a stable sort of n random words."""
    d = dtypes.int64 if dtype is None else dtypes.as_dtype(dtype)
    backend = backend_for(device, d, "randperm")
    bits = _draw("bits", shape_of((n,), "randperm"), dtypes.int64, backend, generator)
    return cast(table.wrap(backend.sort(bits._array, 0, False)[1], backend), d)


def rand_like(input: Any, *, dtype: Any = None, device: Any = None, generator: Generator | None = None) -> Any:
    """:func:`rand` of the shape, dtype and device of ``input``."""
    return rand(input._array.shape, dtype=dtype or input.dtype, device=device or input.device, generator=generator)


def randn_like(input: Any, *, dtype: Any = None, device: Any = None, generator: Generator | None = None) -> Any:
    """:func:`randn` of the shape, dtype and device of ``input``."""
    return randn(input._array.shape, dtype=dtype or input.dtype, device=device or input.device, generator=generator)


def randint_like(input: Any, low: int, high: Any = None, *, dtype: Any = None, device: Any = None) -> Any:
    """:func:`randint` of the shape, dtype and device of ``input``."""
    low, high = (0, low) if high is None else (low, high)
    return randint(low, high, tuple(input._array.shape), dtype=dtype or input.dtype, device=device or input.device)


def bernoulli(input: Any, p: float | None = None, *, generator: Generator | None = None) -> Any:
    """1 with probability ``input`` (elementwise) or ``p``, else 0; of the dtype of ``input``."""
    drawn_in = input.dtype if input.dtype.is_floating_point else dtypes.get_default_dtype()
    require_dtype(input._backend, drawn_in, "bernoulli")
    draw = _draw("uniform", tuple(input._array.shape), drawn_in, input._backend, generator)
    if p is not None and not 0 <= p <= 1:
        raise RuntimeError(f"bernoulli: p={p} is not a probability; it lies in [0, 1]")
    return cast(e.lt(draw, input.detach() if p is None else p), input.dtype)


def multinomial(input: Any, num_samples: int, replacement: bool = False, *, generator: Generator | None = None) -> Any:
    """int64 indices drawn from the weights in the last dimension of ``input`` (1-d or 2-d, not
    negative, need not add up to 1). With replacement by inverting the cumulative sum; without,
    the ``num_samples`` largest of log(weight) + Gumbel noise (Gumbel-top-k).

    Raises RuntimeError for negative weights, or too few non-zero ones."""
    from gpugrad.ops.reductions import cumsum
    from gpugrad.ops.sorting import searchsorted, topk

    weights = input.detach()
    if weights._array.ndim not in (1, 2) or not weights.dtype.is_floating_point:
        raise RuntimeError(f"multinomial: expected 1-d or 2-d floating-point weights, got {table.describe(input)}")
    rows = weights if weights._array.ndim == 2 else reshape(weights, (1, -1))
    host = rows.cpu().float().numpy() if rows.dtype in (dtypes.float16, dtypes.bfloat16) else rows.cpu().numpy()
    if not np.isfinite(host).all() or (host < 0).any() or (host.sum(-1) <= 0).any():
        raise RuntimeError("multinomial: weights must be finite, not negative, and not all zero")
    n, k = rows._array.shape
    if not replacement and num_samples > (host > 0).sum(-1).min(initial=k):
        raise RuntimeError(
            f"multinomial: cannot draw {num_samples} samples without replacement from fewer non-zero weights"
        )
    if replacement:
        total = cumsum(rows, -1)
        u = _draw("uniform", (n, num_samples), rows.dtype, rows._backend, generator)
        found = searchsorted(total, e.mul(u, narrow(total, -1, k - 1, 1)), right=True)
        out = e.clamp_max(found, k - 1)
    else:
        u = _draw("uniform", (n, k), rows.dtype, rows._backend, generator)
        noise = e.neg(e.log(e.neg(e.log(e.clamp_min(u, dtypes.finfo(rows.dtype).tiny)))))
        out = topk(e.add(e.log(rows), noise), num_samples)[1]
    return out if weights._array.ndim == 2 else reshape(out, -1)


def normal(
    mean: Any = 0.0,
    std: Any = 1.0,
    size: Any = None,
    *,
    generator: Generator | None = None,
    dtype: Any = None,
    device: Any = None,
) -> Any:
    """Normal with ``mean`` and ``std``: numbers with ``size``, or tensors."""
    tensors = [x for x in (mean, std) if isinstance(x, table.Tensor)]
    if not tensors:
        return e.add(e.mul(randn(size, generator=generator, dtype=dtype, device=device), std), mean)
    try:
        shape = layout.broadcast_shapes(*(x._array.shape for x in tensors))
    except ValueError as error:
        raise RuntimeError(f"normal: {error}") from None
    noise = randn(shape, dtype=table.result_type(*tensors), device=tensors[0].device, generator=generator)
    return e.add(e.mul(noise, std), mean)


# -- in place ------------------------------------------------------------------


def _fill(name: str, x: Any, value: Any) -> Any:
    return inplace.write(name, x, cast(value, x.dtype))


def uniform_(x: Any, a: float = 0.0, b: float = 1.0, *, generator: Generator | None = None) -> Any:
    """Fill ``x`` with numbers uniform on [a, b)."""
    if not a <= b:
        raise RuntimeError(f"uniform_: expected from <= to, got {a} and {b}")
    u = _draw("uniform", tuple(x._array.shape), _float_dtype(x.dtype, "uniform_"), x._backend, generator)
    return _fill("uniform_", x, e.add(e.mul(u, b - a), a) if (a, b) != (0.0, 1.0) else u)


def normal_(x: Any, mean: float = 0.0, std: float = 1.0, *, generator: Generator | None = None) -> Any:
    """Fill ``x`` with normal numbers."""
    if std < 0:
        raise RuntimeError(f"normal_: std must not be negative, got {std}")
    z = _draw("normal", tuple(x._array.shape), _float_dtype(x.dtype, "normal_"), x._backend, generator)
    return _fill("normal_", x, e.add(e.mul(z, std), mean) if (mean, std) != (0.0, 1.0) else z)


def bernoulli_(x: Any, p: Any = 0.5, *, generator: Generator | None = None) -> Any:
    """Fill ``x`` with 1 (probability ``p``) and 0."""
    d = x.dtype if x.dtype.is_floating_point else dtypes.get_default_dtype()
    u = _draw("uniform", tuple(x._array.shape), d, x._backend, generator)
    return _fill("bernoulli_", x, e.lt(u, p))


def random_(x: Any, low: int = 0, high: int | None = None, *, generator: Generator | None = None) -> Any:
    """Fill ``x`` with integers from ``low`` up to but without ``high`` (all its dtype counts to)."""
    if high is None:
        high = 2 ** (dtypes.finfo(x.dtype).bits // 2) if x.dtype.is_floating_point else dtypes.iinfo(x.dtype).max
    return _fill("random_", x, _integers(low, high, tuple(x._array.shape), x._backend, generator, "random_"))


def exponential_(x: Any, lambd: float = 1.0, *, generator: Generator | None = None) -> Any:
    """Fill ``x`` with exponentially distributed numbers of rate ``lambd``."""
    u = _draw("uniform", tuple(x._array.shape), _float_dtype(x.dtype, "exponential_"), x._backend, generator)
    return _fill("exponential_", x, e.mul(e.log1p(e.neg(u)), -1.0 / lambd))
