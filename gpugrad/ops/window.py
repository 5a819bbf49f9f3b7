"""Convolution and pooling over windows, for any number of spatial dimensions.

Convolution, its gradient with respect to the input and its gradient with respect to the weight
are three rows whose derivatives are each other, so every order of derivative exists.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np

from gpugrad import layout
from gpugrad.ops.creation import cast
from gpugrad.ops.elementwise import add
from gpugrad.ops.linear import SUMS
from gpugrad.ops.reductions import sum as sum_
from gpugrad.ops.table import Sample, describe, primitive, public, same_device

_CONV = (
    Sample(((2, 2, 7), (3, 2, 3)), {"stride": (2,), "dilation": (1,), "groups": 1}),
    Sample(((2, 3, 6, 7), (4, 3, 3, 2)), {"stride": (1, 2), "dilation": (1, 1), "groups": 1}),
    Sample(((1, 4, 6, 6), (6, 2, 2, 2)), {"stride": (1, 1), "dilation": (2, 1), "groups": 2}),
)


def _conv_reference(x: Any, w: Any, bias: Any = None, *, stride: Any, dilation: Any, groups: int) -> np.ndarray:
    """By definition: a loop over the elements of the kernel."""
    out = layout.window_counts(x.shape[2:], w.shape[2:], stride, dilation)
    result = np.zeros((x.shape[0], w.shape[0], *out), np.result_type(x, w))
    per_in, per_out = w.shape[1], w.shape[0] // groups
    for g in range(groups):
        xs = x[:, g * per_in : (g + 1) * per_in]
        ws = w[g * per_out : (g + 1) * per_out]
        for k in product(*(range(n) for n in w.shape[2:])):
            cut = tuple(
                slice(i * d, i * d + (n - 1) * s + 1, s) for i, d, n, s in zip(k, dilation, out, stride, strict=True)
            )
            result[:, g * per_out : (g + 1) * per_out] += np.einsum(
                "nc...,oc->no...", xs[(slice(None), slice(None), *cut)], ws[(slice(None), slice(None), *k)]
            )
    return result if bias is None else result + np.reshape(bias, (-1,) + (1,) * (x.ndim - 2))


@primitive(
    "convolution",
    (
        lambda g, a_shape, b, stride, dilation, groups: _input_grad(
            g, b, size=tuple(a_shape[2:]), stride=stride, dilation=dilation, groups=groups
        ),
        lambda g, a, b_shape, stride, dilation, groups: _weight_grad(
            g, a, kernel=tuple(b_shape[2:]), stride=stride, dilation=dilation, groups=groups
        ),
        lambda g: sum_(g, (0, *range(2, g._array.ndim))),
    ),
    reference=_conv_reference,
    samples=(*_CONV, *(Sample((*s.inputs, s.inputs[1][:1]), s.kwargs) for s in _CONV)),
    dtypes="f",
    torch="",
)
def _convolution(backend: Any, a: Any, b: Any, c: Any = None, *, stride: Any, dilation: Any, groups: int) -> Any:
    """With ``c`` a number is added for each channel of the result; half types are rounded once, after it."""
    wide = SUMS.get(a.dtype)
    if c is None:
        return backend.convolve(a, b, stride, dilation, groups)
    out = backend.convolve(a, b, stride, dilation, groups, *(() if wide is None else (wide,)))
    s = len(stride)
    c = backend.as_strided(c, (1, c.shape[0], *(1,) * s), (0, c.strides[0], *(0,) * s), 0)
    return backend.map(add.kernel, (out, c), out.dtype, a.dtype)


@primitive(
    "convolution_input_grad",
    (
        lambda g, b, stride, dilation, groups: _convolution(
            _alike(g, b), b, stride=stride, dilation=dilation, groups=groups
        ),
        lambda g, a, b_shape, stride, dilation, groups: _weight_grad(
            a, _alike(g, a), kernel=tuple(b_shape[2:]), stride=stride, dilation=dilation, groups=groups
        ),
    ),
    samples=(
        Sample(((2, 4, 4, 3), (4, 3, 3, 2)), {"size": (6, 7), "stride": (1, 2), "dilation": (1, 1), "groups": 1}),
    ),
    dtypes="f",
    torch="",
)
def _input_grad(
    backend: Any, a: Any, b: Any, size: Any, stride: Any, dilation: Any, groups: int, wide: bool = False
) -> Any:
    """With ``wide`` half types give float32, as more is to be added before they are rounded."""
    dtype = SUMS.get(a.dtype) if wide else None
    return backend.convolve_input_grad(a, b, size, stride, dilation, groups, *(() if dtype is None else (dtype,)))


def _alike(g: Any, x: Any) -> Any:
    return g if g.dtype is x.dtype else cast(g, x.dtype)


@primitive(
    "convolution_weight_grad",
    (
        lambda g, b, stride, dilation, groups: _convolution(b, g, stride=stride, dilation=dilation, groups=groups),
        lambda g, a, b_shape, stride, dilation, groups: _input_grad(
            a, g, size=tuple(b_shape[2:]), stride=stride, dilation=dilation, groups=groups
        ),
    ),
    samples=(
        Sample(((2, 4, 4, 3), (2, 3, 6, 7)), {"kernel": (3, 2), "stride": (1, 2), "dilation": (1, 1), "groups": 1}),
    ),
    dtypes="f",
    torch="",
)
def _weight_grad(backend: Any, a: Any, b: Any, kernel: Any, stride: Any, dilation: Any, groups: int) -> Any:
    return backend.convolve_weight_grad(a, b, kernel, stride, dilation, groups)


def _check_conv(op: str, x: Any, weight: Any, channels: int, groups: int) -> None:
    same_device(op, (x, weight))
    if x.dtype is not weight.dtype:
        raise RuntimeError(f"{op}: input and weight must have one dtype, got {describe(x, weight)}")
    if x._array.ndim != weight._array.ndim or x._array.ndim < 3:
        raise RuntimeError(
            f"{op}: expected [n, c, *size] and a weight with as many dimensions, got {describe(x, weight)}"
        )
    if x._array.shape[1] != channels:
        raise RuntimeError(
            f"{op}: the weight is for {channels} input channels in {groups} groups, got {describe(x, weight)}"
        )
    if groups < 1 or weight._array.shape[0] % groups:
        raise RuntimeError(f"{op}: {weight._array.shape[0]} channels do not divide into {groups} groups")


@public("convolution")
def convolution(
    x: Any, weight: Any, stride: Sequence[int], dilation: Sequence[int], groups: int = 1, bias: Any = None
) -> Any:
    """Cross-correlation without padding: ``[n, c, *size]`` with ``[o, c/groups, *kernel]`` gives
    ``[n, o, *out]``, to which ``bias``, ``[o]`` of the same dtype, is added. Tuples have one entry per spatial
    dimension. Raises RuntimeError."""
    _check_conv("convolution", x, weight, weight._array.shape[1] * groups, groups)
    _check_window("convolution", x, weight._array.shape[2:], stride, dilation)
    options = {"stride": tuple(stride), "dilation": tuple(dilation), "groups": groups}
    return _convolution(x, weight, **options) if bias is None else _convolution(x, weight, bias, **options)


_convolution.op.function = lambda x, weight, bias=None, **options: convolution(  # type: ignore[attr-defined]
    x, weight, bias=bias, **options
)


def _check_window(op: str, x: Any, kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int]) -> None:
    size = x._array.shape[2:]
    if any(s < 1 for s in stride) or any(d < 1 for d in dilation) or any(k < 1 for k in kernel):
        raise RuntimeError(
            f"{op}: kernel {tuple(kernel)}, stride {tuple(stride)} and dilation {tuple(dilation)} must be positive"
        )
    if any(n < 1 for n in layout.window_counts(size, kernel, stride, dilation)):
        raise RuntimeError(
            f"{op}: the kernel of size {tuple(kernel)} (dilation {tuple(dilation)}) does not fit an input of size "
            f"{tuple(size)} "
            "after padding; make the input larger or the kernel smaller"
        )


@public("convolution_input_grad")
def convolution_transpose(
    x: Any,
    weight: Any,
    size: Sequence[int],
    stride: Sequence[int],
    dilation: Sequence[int],
    groups: int = 1,
    wide: bool = False,
) -> Any:
    """The adjoint of :func:`convolution` in its input: ``[n, o, *out]`` with ``[o, c/groups, *kernel]``
    gives ``[n, c, *size]``, of float32 for half types if ``wide``."""
    _check_conv("convolution_transpose", x, weight, weight._array.shape[0], groups)
    want = layout.window_counts(size, weight._array.shape[2:], stride, dilation)
    if tuple(want) != tuple(x._array.shape[2:]):
        raise RuntimeError(
            f"convolution_transpose: an output of size {tuple(size)} does not belong to an input of {describe(x)}"
        )
    options = {"size": tuple(size), "stride": tuple(stride), "dilation": tuple(dilation), "groups": groups}
    return _input_grad(x, weight, **options, wide=True) if wide else _input_grad(x, weight, **options)


def _pool_reference(a: np.ndarray, kernel: Any, stride: Any, dilation: Any) -> np.ndarray:
    shape, strides = layout.windows(a.shape, a.strides, kernel, stride, dilation)
    view = np.ndarray(shape, a.dtype, np.ascontiguousarray(a), 0, strides)
    return view.max(axis=tuple(range(2 + len(kernel), view.ndim)))


_POOL = (
    Sample(((2, 3, 6, 7),), {"kernel": (2, 2), "stride": (2, 2), "dilation": (1, 1)}),
    Sample(((1, 2, 9),), {"kernel": (3,), "stride": (1,), "dilation": (2,)}),
)


@primitive(
    "max_pool",
    (
        lambda g, a_shape, second, kernel, stride, dilation: _pool_grad(
            g, second, size=tuple(a_shape[2:]), kernel=kernel, stride=stride, dilation=dilation
        ),
    ),
    samples=_POOL,
    reference=_pool_reference,
    dtypes="f",
    torch="",
)
def _max_pool(backend: Any, a: Any, kernel: Any, stride: Any, dilation: Any) -> Any:
    return backend.max_pool(a, kernel, stride, dilation)


def _pick_pooled(g: Any, index: Any) -> Any:
    """The elements of ``[n, c, *size]`` that ``index`` ``[n, c, *out]`` names."""
    from gpugrad.ops.indexing import gather
    from gpugrad.ops.movement import reshape

    n, c = g._array.shape[:2]
    return reshape(gather(reshape(g, (n, c, -1)), 2, reshape(index, (n, c, -1))), index._array.shape)


@primitive("max_pool_grad", (lambda g, b: _pick_pooled(g, b), None), dtypes="f", torch="")
def _pool_grad(backend: Any, a: Any, index: Any, size: Any, kernel: Any, stride: Any, dilation: Any) -> Any:
    return backend.max_pool_grad(a, index, size, kernel, stride, dilation)


@public("max_pool")
def max_pool(x: Any, kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int]) -> tuple[Any, Any]:
    """(largest element of each window of ``[n, c, *size]``, its int64 position in the flattened
    ``size``). No padding. Raises RuntimeError if no window fits."""
    if x._array.ndim != 2 + len(kernel):
        raise RuntimeError(f"max_pool: expected [n, c, *size] with {len(kernel)} spatial dimensions, got {describe(x)}")
    _check_window("max_pool", x, kernel, stride, dilation)
    return _max_pool(x, kernel=tuple(kernel), stride=tuple(stride), dilation=tuple(dilation))
