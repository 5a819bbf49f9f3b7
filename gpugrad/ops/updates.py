"""Steps of optimizers, each in as few passes over memory as it can be: elementwise rows that write in place.

They compute what the formulas in ``gpugrad/optim`` say, in the same order of operations. Half types and numbers
that are tensors take those formulas instead.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gpugrad.ops import inplace
from gpugrad.ops.mapping import elementwise
from gpugrad.ops.table import Sample as S

_F32, _F64 = np.dtype(np.float32), np.dtype(np.float64)


# The host's versions work in the temporaries they have: each one more would be another pass over memory.


def _axpy_host(a: Any, b: Any, c: Any) -> Any:
    t = b * c
    t += a
    return t


def _axpby_host(a: Any, b: Any, c: Any, d: Any) -> Any:
    s, t = a * c, b * d
    s += t
    return s


def _second_moment_host(a: Any, b: Any, c: Any, d: Any) -> Any:
    s, t = a * c, b * b
    t *= d
    s += t
    return s


def _adam_apply_host(a: Any, b: Any, c: Any, d: Any, e: Any, f: Any, g: Any) -> Any:
    t = np.sqrt(c)
    t /= f
    t += g
    t = np.divide(b, t, out=t if isinstance(t, np.ndarray) else None)
    t *= e
    s = a * d
    s -= t
    return s


_axpy = elementwise(
    "axpy",
    _axpy_host,
    "a + b * c",
    arity=3,
    rule="float",
    dtypes="f",
    samples=(S(((3, 4), (3, 4), ())), S(((0,), (0,), ()))),
)
_axpby = elementwise(
    "axpby",
    _axpby_host,
    "a * c + b * d",
    arity=4,
    rule="float",
    dtypes="f",
    samples=(S(((3, 4), (3, 4), (), ())),),
)
_second_moment = elementwise(
    "second_moment",
    _second_moment_host,
    "a * c + b * b * d",
    arity=4,
    rule="float",
    dtypes="f",
    samples=(S(((3, 4), (3, 4), (), ())),),
)
_adam_apply = elementwise(
    "adam_apply",
    _adam_apply_host,
    "a * d - b / (sqrt(c) / f + g) * e",
    arity=7,
    rule="float",
    dtypes="f",
    domain=(0.5, 2.0),
    samples=(S(((3, 4), (3, 4), (3, 4), (), (), (), ())),),
)


def fusible(*tensors: Any) -> Any:
    """Whether the steps here apply: float32 or float64 tensors of one shape and dtype on one device."""
    first = tensors[0]
    array, backend = first._array, first._backend
    return array.dtype in (_F32, _F64) and all(
        t._backend is backend and t._array.dtype == array.dtype and t._array.shape == array.shape for t in tensors[1:]
    )


def _store(row: Any, name: str, out: Any, *operands: Any) -> None:
    dtype = out._array.dtype
    arrays = [x._array if hasattr(x, "_array") else x for x in operands]
    out._backend.map(row.kernel, arrays, dtype, dtype, out._array)
    inplace.changed(name, out)


def add_scaled(x: Any, y: Any, factor: float) -> Any:
    """``x + factor * y``, a new tensor."""
    return _axpy(x, y, factor)


def add_scaled_(x: Any, y: Any, factor: float) -> None:
    """In place: ``x + factor * y``."""
    _store(_axpy, "step", x, x, y, factor)


def blend_(x: Any, y: Any, keep: float, take: float) -> None:
    """In place: ``keep * x + take * y``."""
    _store(_axpby, "step", x, x, y, keep, take)


def adam_(
    p: Any, g: Any, m: Any, v: Any, *, beta1: float, beta2: float, eps: float, decay: float, rate: float, root: float
) -> None:
    """In place one step of Adam: both moments of the gradient ``g``, then
    ``p = decay * p - rate * m / (sqrt(v) / root + eps)``."""
    _store(_axpby, "step", m, m, g, beta1, 1.0 - beta1)
    _store(_second_moment, "step", v, v, g, beta2, 1.0 - beta2)
    _store(_adam_apply, "step", p, p, m, v, decay, rate, root, eps)
