"""What a call of the backend contract has to move and to compute: bytes and floating-point operations.

**Bytes**: every operand read once and every result written once; elements that broadcasting repeats count once. It is
the least that any implementation moves, so "achieved GB/s" compares with the bandwidth of a copy. Of what an index
picks from, only the picked elements count.

**FLOPs**, in floating dtypes only:

* elementwise: for each element of the result, the operators and function calls in the kernel's C expression, each of
  them one (``exp`` is one; a choice ``p ? x : y`` is none, comparing is one);
* products: two for each multiplication with its addition; convolutions and their adjoints likewise;
* reductions, scans and pooling: one for each element that goes in; the routines in ``_PER_ELEMENT`` as stated there;
* factorizations that end after a fixed number of steps: their leading terms; the iterative ones count none;
* copies, fills, indices, sorting, random numbers: none.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from math import prod
from typing import Any

import numpy as np

from gpugrad.backends.base import Elementwise
from gpugrad.dtypes import HALVES

_CONSTANT = re.compile(r"\bK\([^()]*\)|\((?:T|[iuf]\d+|int)\)")  # a constant, or a cast
_OPERATION = re.compile(r"\w+(?=\()|[=!<>]=|<<|>>|&&|\|\||[-+*/%<>&|^~!]")
_expressions: dict[str, int] = {}

#: operations for each element of what a fused routine takes: maximum, difference, exponential, sum and one more
_PER_ELEMENT = {"fused_softmax": 5, "fused_log_softmax": 5}


def operations(expression: str) -> int:
    """How many operators and function calls the C ``expression`` has; constants and casts are none."""
    count = _expressions.get(expression)
    if count is None:
        count = _expressions[expression] = len(_OPERATION.findall(_CONSTANT.sub("k", expression)))
    return count


def is_array(x: Any) -> bool:
    """Whether ``x`` is an array of a backend (a NumPy scalar has a layout too, but is none)."""
    return hasattr(x, "strides") and not isinstance(x, np.generic)


def arrays(values: Any) -> Iterator[Any]:
    """The arrays among ``values``, those in tuples and lists included."""
    for x in values:
        if isinstance(x, (tuple, list)):
            yield from arrays(x)
        elif is_array(x):
            yield x


def touched(array: Any) -> int:
    """Bytes of the distinct elements of ``array``."""
    count = array.itemsize
    for n, stride in zip(array.shape, array.strides, strict=True):
        if stride or not n:
            count *= n
    return count


def _floating(dtype: Any) -> bool:
    return dtype.kind == "f" or dtype in HALVES


def _total(*values: Any) -> int:
    return sum(touched(x) for x in arrays(values))


def _moved(value: Any, /, *args: Any, **kwargs: Any) -> tuple[int, int]:
    """No arithmetic; a result written into an operand counts as that operand alone."""
    read = list(arrays((args, list(kwargs.values()))))
    written = [x for x in arrays((value,)) if all(x is not y for y in read)]
    return _total(read, written), 0


def _map(
    value: Any, /, kernel: Elementwise, inputs: Any, compute: Any, result: Any, out: Any = None
) -> tuple[int, int]:
    work = value.size * operations(kernel.c["f"]) if _floating(compute) and "f" in kernel.c else 0
    return _total(inputs, value), work


def _transfer(value: Any, /, array: Any) -> tuple[int, int]:
    """Between host and device: once over the way."""
    return touched(array), 0


def _copy(value: Any, /, array: Any, dtype: Any = None, out: Any = None) -> tuple[int, int]:
    return _total(array, value), 0


def _reduce(value: Any, /, kind: str, array: Any, *rest: Any, **named: Any) -> tuple[int, int]:
    adds = kind not in ("any", "all") and _floating(array.dtype)
    return _total(array, value), array.size if adds else 0


def _matmul(value: Any, /, a: Any, b: Any, *rest: Any, **named: Any) -> tuple[int, int]:
    return _total(a, b, value), 2 * value.size * a.shape[-1] if _floating(a.dtype) else 0


def _convolution(gradient: Any, weight_shape: Any) -> int:
    """Of ``[n, o, *out]`` with ``[o, c/groups, *kernel]``, and of both adjoints."""
    return 2 * gradient.size * prod(weight_shape[1:]) if _floating(gradient.dtype) else 0


def _convolve(value: Any, /, x: Any, weight: Any, *rest: Any, **named: Any) -> tuple[int, int]:
    return _total(x, weight, value), _convolution(value, weight.shape)


def _convolve_input_grad(value: Any, /, gradient: Any, weight: Any, *rest: Any, **named: Any) -> tuple[int, int]:
    return _total(gradient, weight, value), _convolution(gradient, weight.shape)


def _convolve_weight_grad(value: Any, /, gradient: Any, x: Any, *rest: Any, **named: Any) -> tuple[int, int]:
    return _total(gradient, x, value), _convolution(gradient, value.shape)


def _picked(value: Any, /, array: Any, index: Any, *rest: Any, **named: Any) -> tuple[int, int]:
    return 2 * touched(value) + touched(index), 0


def _scatter(value: Any, /, out: Any, index: Any, source: Any, axis: int, mode: str, op: str) -> tuple[int, int]:
    """What is combined with is read and written, what is set only written."""
    adds = mode != "set"
    there = source.size * out.itemsize
    return _total(index, source) + there * (1 + adds), source.size if adds and _floating(out.dtype) else 0


def _fold(value: Any, /, windows: Any, *rest: Any, **named: Any) -> tuple[int, int]:
    return _total(windows, value), windows.size if _floating(windows.dtype) else 0


def _max_pool(value: Any, /, array: Any, kernel: Any, *rest: Any, **named: Any) -> tuple[int, int]:
    return _total(array, value), value[0].size * prod(kernel) if _floating(array.dtype) else 0


def _max_pool_grad(value: Any, /, gradient: Any, index: Any, *rest: Any, **named: Any) -> tuple[int, int]:
    return _total(gradient, index, value), gradient.size if _floating(gradient.dtype) else 0


def _factorize(value: Any, /, kind: str, arrays: Any, **params: Any) -> tuple[int, int]:
    *batch, m, n = arrays[0].shape
    k, columns = min(m, n), arrays[-1].shape[-1]
    steps = {
        "cholesky": n**3 / 3,
        "lu": m * n * k - (m + n) * k**2 / 2 + k**3 / 3,
        "det": 2 * n**3 / 3,
        "slogdet": 2 * n**3 / 3,
        "inv": 2 * n**3,
        "solve": 2 * n**3 / 3 + 2 * n**2 * columns,
        "triangular": n**2 * columns,
        "qr": 2 * m * n**2 - 2 * n**3 / 3 if m >= n else 2 * n * m**2 - 2 * m**3 / 3,
    }  # Golub and Van Loan, "Matrix Computations"
    return _total(arrays, value), round(prod(batch) * steps.get(kind, 0))


_COSTS: dict[str, Callable[..., tuple[int, int]]] = {
    "map": _map,
    "copy": _copy,
    "from_host": _transfer,
    "to_host": _transfer,
    "reduce": _reduce,
    "arg_reduce": _reduce,
    "scan": _reduce,
    "matmul": _matmul,
    "convolve": _convolve,
    "convolve_input_grad": _convolve_input_grad,
    "convolve_weight_grad": _convolve_weight_grad,
    "take": _picked,
    "gather": _picked,
    "scatter": _scatter,
    "fold": _fold,
    "max_pool": _max_pool,
    "max_pool_grad": _max_pool_grad,
    "factorize": _factorize,
}


def cost(method: str) -> Callable[..., tuple[int, int]]:
    """The function ``(result, *args, **kwargs) -> (bytes, FLOPs)`` for calls of the contract's ``method``."""
    each = _PER_ELEMENT.get(method)
    if each is None:
        return _COSTS.get(method, _moved)

    def fused(value: Any, /, array: Any, *rest: Any, **named: Any) -> tuple[int, int]:
        return _total(array, value), array.size * each if _floating(array.dtype) else 0

    return fused
