"""Products of matrices."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from gpugrad import dtypes, layout
from gpugrad.autograd.modes import mode
from gpugrad.errors import DTypeError
from gpugrad.ops import elementwise as e
from gpugrad.ops import table
from gpugrad.ops.autocast import listed
from gpugrad.ops.creation import rounded_once
from gpugrad.ops.movement import expand, reshape, squeeze, transpose, unsqueeze
from gpugrad.ops.reductions import sum as sum_
from gpugrad.ops.table import Sample as S
from gpugrad.ops.table import composite, describe, primitive, public, same_device


def _turned(x: Any) -> Any:
    return transpose(x, -1, -2)


_MATMUL = (
    S(((3, 4), (4, 5))),
    S(((4,), (4,))),
    S(((3, 4), (4,))),
    S(((4,), (4, 5))),
    S(((2, 3, 4), (2, 4, 5))),
    S(((2, 1, 3, 4), (3, 4, 2))),
    S(((2, 3, 4), (4, 5))),
    S(((0, 4), (4, 2))),
    S(((3, 0), (0, 2))),
)


#: half types -> the dtype in which their products are added up, and had where there is more to add
SUMS = dict.fromkeys(dtypes.HALVES, np.dtype(np.float32))


def _left_grad(g: Any, b: Any, turn_a: bool, turn_b: bool) -> Any:
    return _matmul(b, g, turn_a=turn_b, turn_b=True) if turn_a else _matmul(g, b, turn_a=False, turn_b=not turn_b)


def _right_grad(g: Any, a: Any, turn_a: bool, turn_b: bool) -> Any:
    return _matmul(g, a, turn_a=True, turn_b=turn_a) if turn_b else _matmul(a, g, turn_a=not turn_a, turn_b=False)


@primitive("matmul", (_left_grad, _right_grad), reference=np.matmul, samples=_MATMUL, dtypes="fi", by_shape=True)
def _matmul(backend: Any, a: Any, b: Any, turn_a: bool, turn_b: bool) -> Any:
    """``a @ b``, each with its last two dimensions exchanged first if told so: that costs nothing here, where a view
    would be an op with a derivative of its own."""
    return backend.matmul(_exchanged(a) if turn_a else a, _exchanged(b) if turn_b else b)


def _exchanged(array: Any) -> Any:
    n = array.ndim
    return array.transpose((1, 0) if n == 2 else (*range(n - 2), n - 1, n - 2))


@listed("matmul")
@public("matmul")
def matmul(input: Any, other: Any) -> Any:
    """Matrix product over the last two dimensions, batch dimensions broadcast; a 1-d operand is a
    row (left) or a column (right) that the result lacks. Half types accumulate in float32.

    Raises RuntimeError if the inner sizes or the dtypes differ."""
    _check_operands(input, other)
    x, y = input._array, other._array
    if x.ndim == 2 and y.ndim == 2:
        return _matmul(input, other, turn_a=False, turn_b=False)
    if x.ndim == 1:
        return (
            squeeze(matmul(unsqueeze(input, 0), other), -2)
            if y.ndim > 1
            else reshape(_matmul(unsqueeze(input, 0), unsqueeze(other, 1), turn_a=False, turn_b=False), ())
        )
    if y.ndim == 1:
        return squeeze(matmul(input, unsqueeze(other, 1)), -1)
    if y.ndim == 2:  # one matrix for all: the batch is just more rows
        rows = reshape(input, (prod(x.shape[:-1]), x.shape[-1]))
        return reshape(_matmul(rows, other, turn_a=False, turn_b=False), (*x.shape[:-1], y.shape[-1]))
    try:
        batch = layout.broadcast_shapes(x.shape[:-2], y.shape[:-2])
    except ValueError:
        raise RuntimeError(f"matmul: batch dimensions do not broadcast; got {describe(input, other)}") from None
    return _matmul(_widen(input, batch), _widen(other, batch), turn_a=False, turn_b=False)


#: :func:`matmul` whatever autocast says, for what PyTorch does by other means
unlisted_matmul = matmul.__wrapped__


def _check_operands(input: Any, other: Any) -> None:
    """Raises TypeError, DeviceError, RuntimeError where there is no product of the two."""
    for x in (input, other):
        table.as_tensor_arg("matmul", x)
    if input._backend is not other._backend:
        same_device("matmul", (input, other))
    x, y = input._array, other._array
    if x.dtype != y.dtype:
        raise RuntimeError(
            f"matmul: expected operands of one dtype, got {describe(input, other)}; convert one with .to(dtype)"
        )
    if not x.ndim or not y.ndim:
        raise RuntimeError(f"matmul: both operands need at least 1 dimension, got {describe(input, other)}")
    if x.shape[-1] != y.shape[-2 if y.ndim > 1 else 0]:
        raise RuntimeError(
            f"matmul: the last size of the first operand ({x.shape[-1]}) must equal the "
            f"{'second last' if y.ndim > 1 else 'only'} size of the second ({y.shape[-2 if y.ndim > 1 else 0]}); "
            f"got {describe(input, other)}"
        )
    if x.dtype == bool:
        raise DTypeError(f"matmul: not defined for bool tensors; got {describe(input, other)}")


def _widen(x: Any, batch: tuple[int, ...]) -> Any:
    shape = x._array.shape
    return x if shape[:-2] == batch else expand(x, (*batch, *shape[-2:]))


@listed("mm")
def mm(input: Any, mat2: Any) -> Any:
    """``[n, k] @ [k, m]``. Raises RuntimeError for other numbers of dimensions."""
    _check_matrices(input, mat2)
    return matmul(input, mat2)


def _check_matrices(input: Any, mat2: Any) -> None:
    if input._array.ndim != 2 or mat2._array.ndim != 2:
        raise RuntimeError(f"mm: expected two matrices, got {describe(input, mat2)}; use matmul() for other shapes")


@listed("bmm")
def bmm(input: Any, mat2: Any) -> Any:
    """``[batch, n, k] @ [batch, k, m]``. Raises RuntimeError for other shapes."""
    _check_batches(input, mat2)
    return matmul(input, mat2)


def _check_batches(input: Any, mat2: Any) -> None:
    if input._array.ndim != 3 or mat2._array.ndim != 3 or input._array.shape[0] != mat2._array.shape[0]:
        raise RuntimeError(f"bmm: expected [b, n, k] and [b, k, m] of one batch size, got {describe(input, mat2)}")


@listed("mv")
def mv(input: Any, vec: Any) -> Any:
    """``[n, k] @ [k]``."""
    _check_matrix_and_vector(input, vec)
    return matmul(input, vec)


def _check_matrix_and_vector(input: Any, vec: Any) -> None:
    if input._array.ndim != 2 or vec._array.ndim != 1:
        raise RuntimeError(f"mv: expected a matrix and a vector, got {describe(input, vec)}")


@listed("dot")
def dot(input: Any, tensor: Any) -> Any:
    """Inner product of two 1-d tensors of one size."""
    if input._array.ndim != 1 or tensor._array.ndim != 1:
        raise RuntimeError(f"dot: expected two 1-d tensors, got {describe(input, tensor)}")
    return matmul(input, tensor)


@composite(reference=np.outer, samples=(S(((3,), (4,))),))
def outer(input: Any, vec2: Any) -> Any:
    """All products of the elements of two 1-d tensors, ``[n, m]``."""
    if input._array.ndim != 1 or vec2._array.ndim != 1:
        raise RuntimeError(f"outer: expected two 1-d tensors, got {describe(input, vec2)}")
    return e.mul(unsqueeze(input, 1), vec2)


# -- what is more than a product, rounded once -----------------------------------------------------------


def _wide_product(backend: Any, a: Any, b: Any, turn_a: bool, turn_b: bool) -> Any:
    """``a @ b`` in the dtype that its elements are added up in."""
    a, b = _exchanged(a) if turn_a else a, _exchanged(b) if turn_b else b
    wide = SUMS.get(a.dtype)
    return backend.matmul(a, b) if wide is None else backend.matmul(a, b, wide)


def _multiple(a: Any, b: Any, turn_a: bool, turn_b: bool, alpha: float) -> Any:
    """``alpha * (a @ b)``, each turned first if told so."""
    if alpha == 1:
        return _matmul(a, b, turn_a=turn_a, turn_b=turn_b)
    return _scaled_matmul(a, b, turn_a=turn_a, turn_b=turn_b, alpha=alpha)


@primitive(
    "matmul_scaled",
    (
        lambda g, b, turn_a, turn_b, alpha: (
            _multiple(b, g, turn_b, True, alpha) if turn_a else _multiple(g, b, False, not turn_b, alpha)
        ),
        lambda g, a, turn_a, turn_b, alpha: (
            _multiple(g, a, True, turn_a, alpha) if turn_b else _multiple(a, g, not turn_a, False, alpha)
        ),
    ),
    dtypes="f",
    torch="",
)
def _scaled_matmul(backend: Any, a: Any, b: Any, turn_a: bool, turn_b: bool, alpha: float) -> Any:
    """``alpha * (a @ b)``, rounded once."""
    product = _wide_product(backend, a, b, turn_a, turn_b)
    out = product if product.dtype == a.dtype else None
    return backend.map(e.mul.kernel, (product, alpha), product.dtype, a.dtype, out)


@primitive(
    "product_sum",
    (
        lambda g, b, alpha: _multiple(g, b, False, True, alpha),
        lambda g, a, alpha: _multiple(a, g, True, False, alpha),
        lambda g, beta: g if beta == 1 else e.mul(g, beta),
    ),
    dtypes="f",
    torch="",
)
def _product_sum(backend: Any, a: Any, b: Any, c: Any, alpha: float, beta: float) -> Any:
    """``beta * c + alpha * (a @ b)`` for ``c`` of the product's shape, rounded once."""
    product = _wide_product(backend, a, b, False, False)
    wide = product.dtype
    if alpha != 1:
        product = backend.map(e.mul.kernel, (product, alpha), wide, wide, product)
    if beta != 1:
        c = backend.map(e.mul.kernel, (c, beta), wide, wide)
    return backend.map(e.add.kernel, (c, product), wide, a.dtype, product if wide == a.dtype else None)


def _plus_product(op: str, input: Any, a: Any, b: Any, beta: float, alpha: float) -> Any:
    """``beta * input + alpha * (a @ b)`` of matrices, or batches of one size, in the shape of the product; with
    ``beta`` 0 not even a NaN of ``input`` shows. Raises RuntimeError for other dtypes and for shapes that do not
    expand to it."""
    _check_operands(a, b)
    shape = (*a._array.shape[:-1], b._array.shape[-1])
    input = _summand(op, input, a, shape, beta)
    if a.dtype.is_floating_point:
        if beta == 0:
            return _multiple(a, b, False, False, alpha)
        return _product_sum(a, b, input, alpha=alpha, beta=beta)
    return _plus(input, matmul(a, b), int(beta), int(alpha))


def _plus(input: Any, product: Any, beta: float, alpha: float) -> Any:
    """``beta * input + alpha * product`` by steps."""
    if alpha != 1:
        product = e.mul(product, alpha)
    return product if beta == 0 else e.add(input if beta == 1 else e.mul(input, beta), product)


def _summand(op: str, input: Any, other: Any, shape: tuple[int, ...], beta: float) -> Any:
    """``input`` as it is added to a product of ``other``, which has ``shape``."""
    table.as_tensor_arg(op, input)
    if input.dtype is not other.dtype:
        raise RuntimeError(f"{op}: expected one dtype, got {describe(input, other)}; convert one with .to(dtype)")
    same_device(op, (input, other))
    if beta == 0 or input._array.shape == shape:
        return input
    try:
        return expand(input, shape)
    except RuntimeError:
        raise RuntimeError(
            f"{op}: input of shape {tuple(input._array.shape)} does not expand to the product's, {shape}"
        ) from None


@listed("addmm")
@composite(
    reference=lambda m, a, b, beta=1, alpha=1: beta * m + alpha * (a @ b),
    samples=(
        S(((3, 5), (3, 4), (4, 5))),
        S(((5,), (3, 4), (4, 5)), {"beta": 2.0, "alpha": 0.5}),
        S(((), (3, 0), (0, 2)), {"beta": 0.5}),
    ),
    dtypes="f",
    domain=(0.5, 2.0),  # so that half types cancel no digits
)
def addmm(input: Any, mat1: Any, mat2: Any, *, beta: float = 1, alpha: float = 1) -> Any:
    """``beta * input + alpha * (mat1 @ mat2)``."""
    _check_matrices(mat1, mat2)
    return _plus_product("addmm", input, mat1, mat2, beta, alpha)


@listed("baddbmm")
@composite(
    reference=lambda m, a, b, beta=1, alpha=1: beta * m + alpha * (a @ b),
    samples=(S(((2, 3, 5), (2, 3, 4), (2, 4, 5))), S(((5,), (2, 3, 4), (2, 4, 5)), {"beta": 2.0, "alpha": 0.5})),
    dtypes="f",
    domain=(0.5, 2.0),  # so that half types cancel no digits
)
def baddbmm(input: Any, batch1: Any, batch2: Any, *, beta: float = 1, alpha: float = 1) -> Any:
    """:func:`addmm` over a batch."""
    _check_batches(batch1, batch2)
    return _plus_product("baddbmm", input, batch1, batch2, beta, alpha)


@listed("addmv")
@composite(
    reference=lambda m, a, b, beta=1, alpha=1: beta * m + alpha * (a @ b),
    samples=(S(((3,), (3, 4), (4,))), S(((), (3, 4), (4,)), {"beta": 2.0, "alpha": 0.5})),
    dtypes="f",
    domain=(0.5, 2.0),  # so that half types cancel no digits
)
def addmv(input: Any, mat: Any, vec: Any, *, beta: float = 1, alpha: float = 1) -> Any:
    """``beta * input + alpha * (mat @ vec)``."""
    _check_matrix_and_vector(mat, vec)
    _check_operands(mat, vec)
    input = _summand("addmv", input, mat, (mat._array.shape[0],), beta)
    column = input if beta == 0 else unsqueeze(input, 1)
    return squeeze(_plus_product("addmv", column, mat, unsqueeze(vec, 1), beta, alpha), 1)


@listed("addr")
@composite(
    reference=lambda m, a, b, beta=1, alpha=1: beta * m + alpha * np.outer(a, b),
    samples=(S(((3, 4), (3,), (4,))), S(((4,), (3,), (4,)), {"beta": 2.0, "alpha": 0.5})),
    dtypes="f",
    domain=(0.5, 2.0),  # so that half types cancel no digits
)
def addr(input: Any, vec1: Any, vec2: Any, *, beta: float = 1, alpha: float = 1) -> Any:
    """``beta * input + alpha * outer(vec1, vec2)``."""
    if vec1._array.ndim != 1 or vec2._array.ndim != 1:
        raise RuntimeError(f"addr: expected two 1-d tensors, got {describe(vec1, vec2)}")
    found = [x.dtype for x in (input, vec1, vec2)]
    if not any(d.is_floating_point for d in found) and (type(beta) is float or type(alpha) is float):
        raise RuntimeError(f"addr: beta={beta} and alpha={alpha} must be integers for {describe(input, vec1, vec2)}")
    if found == [dtypes.bool_] * 3:
        return e.logical_or(e.logical_and(input, bool(beta)), e.logical_and(outer(vec1, vec2), bool(alpha)))
    if not any(d.is_floating_point for d in found[1:]):
        beta, alpha = int(beta), int(alpha)
    if input.dtype is not table.result_type(vec1, vec2):
        raise RuntimeError(f"addr: expected one dtype, got {describe(input, vec1, vec2)}; convert one with .to(dtype)")
    return _plus_outer(input, vec1, vec2, beta, alpha)


@rounded_once
def _plus_outer(input: Any, vec1: Any, vec2: Any, beta: float, alpha: float) -> Any:
    product = outer(vec1, vec2)
    return _plus(_summand("addr", input, product, tuple(product._array.shape), beta), product, beta, alpha)


@listed("addbmm")
@composite(
    reference=lambda m, a, b, beta=1, alpha=1: beta * m + alpha * (a @ b).sum(0),
    samples=(S(((3, 5), (2, 3, 4), (2, 4, 5))), S(((5,), (2, 3, 4), (2, 4, 5)), {"beta": 2.0, "alpha": 0.5})),
    dtypes="f",
    domain=(0.5, 2.0),  # so that half types cancel no digits
)
def addbmm(input: Any, batch1: Any, batch2: Any, *, beta: float = 1, alpha: float = 1) -> Any:
    """``beta * input + alpha * (the sum of batch1[i] @ batch2[i] over i)``."""
    a, b = batch1._array.shape, batch2._array.shape
    if len(a) != 3 or len(b) != 3 or a[0] != b[0] or a[2] != b[1]:
        raise RuntimeError(f"addbmm: expected [b, n, k] and [b, k, m], got {describe(batch1, batch2)}")
    # The sum over the batch is part of one product with the batch laid along k.
    wide = reshape(transpose(batch1, 0, 1), (a[1], a[0] * a[2]))
    return _plus_product("addbmm", input, wide, reshape(batch2, (a[0] * a[2], b[2])), beta, alpha)


@primitive(
    "linear",
    (
        lambda g, b: _matmul(g, b, turn_a=False, turn_b=False),
        lambda g, a: _matmul(g, a, turn_a=True, turn_b=False),
        lambda g: sum_(g, 0),
    ),
    reference=lambda a, b, c: a @ b.T + c,
    samples=(S(((3, 4), (5, 4), (5,))), S(((0, 4), (2, 4), (2,))), S(((3, 0), (2, 0), (2,)))),
    dtypes="f",
    domain=(0.5, 2.0),  # so that half types cancel no digits
    torch="nn.functional.linear",
    by_shape=True,
)
def _linear(backend: Any, a: Any, b: Any, c: Any) -> Any:
    """``a @ b.T + c`` of two matrices and a row: one node in place of three, rounded once."""
    wide = SUMS.get(a.dtype)
    if wide is not None:
        return backend.map(e.add.kernel, (backend.matmul(a, _exchanged(b), wide), c), wide, a.dtype)
    out = backend.matmul(a, _exchanged(b))
    return backend.map(e.add.kernel, (out, c), out.dtype, out.dtype, out)


def linear_of_rows(input: Any, weight: Any, bias: Any) -> Any:
    """:func:`linear` in the usual case, a matrix of rows and a bias, all alike; None for what else there may be. Layers
    call it: the way through names, autocast and checks takes twice as long as a small product."""
    Tensor = table.Tensor
    if mode.autocast or not (isinstance(input, Tensor) and isinstance(weight, Tensor) and isinstance(bias, Tensor)):
        return None
    x, w, c = input._array, weight._array, bias._array
    dtype = x.dtype
    if x.ndim != 2 or w.ndim != 2 or x.shape[1] != w.shape[1] or c.shape != (w.shape[0],):
        return None
    if dtype != w.dtype or dtype != c.dtype or dtype.kind == "b":
        return None
    if input._backend is not weight._backend or input._backend is not bias._backend:
        return None
    return _linear(input, weight, bias)


@listed("linear")
def linear(input: Any, weight: Any, bias: Any = None) -> Any:
    """``input @ weight.T + bias``: ``[*, in]``, ``[out, in]``, ``[out]`` give ``[*, out]``."""
    x, w = input._array, weight._array
    backend = input._backend
    dtype = x.dtype
    usual = x.ndim and w.ndim == 2 and x.shape[-1] == w.shape[1] and backend is weight._backend
    if usual and dtype == w.dtype and dtype.kind != "b":
        if bias is None:
            return _of_rows(lambda rows: _matmul(rows, weight, turn_a=False, turn_b=True), input, w.shape[0])
        c = bias._array
        if c.ndim == 1 and c.shape[0] == w.shape[0] and backend is bias._backend and c.dtype == dtype:
            return _of_rows(lambda rows: _linear(rows, weight, bias), input, w.shape[0])
    # What is unusual, wrong operands among it
    weight = _turned(weight) if weight._array.ndim > 1 else weight
    return matmul(input, weight) if bias is None else _matmul_and_add(input, weight, bias)


@rounded_once
def _matmul_and_add(a: Any, b: Any, c: Any) -> Any:
    return e.add(matmul(a, b), c)


def _of_rows(function: Any, x: Any, width: int) -> Any:
    """``function`` of ``x`` as a matrix, which makes rows of ``width``; in the shape that ``x`` had before."""
    shape = x._array.shape
    if len(shape) == 2:
        return function(x)
    return reshape(function(reshape(x, (prod(shape[:-1]), shape[-1]))), (*shape[:-1], width))
