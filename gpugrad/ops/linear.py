"""Products of matrices."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from gpugrad import layout
from gpugrad.errors import DTypeError
from gpugrad.ops import elementwise as e
from gpugrad.ops import table
from gpugrad.ops.movement import expand, permute, reshape, squeeze, transpose, unsqueeze
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


@primitive(
    "matmul",
    (lambda g, b: matmul(g, _turned(b)), lambda g, a: matmul(_turned(a), g)),
    reference=np.matmul,
    samples=_MATMUL,
    dtypes="fi",
)
def _matmul(backend: Any, a: Any, b: Any) -> Any:
    return backend.matmul(a, b)


@public("matmul")
def matmul(a: Any, b: Any) -> Any:
    """Matrix product over the last two dimensions, batch dimensions broadcast; a 1-d operand is a
    row (left) or a column (right) that the result lacks. Half types accumulate in float32.

    Raises RuntimeError if the inner sizes or the dtypes differ."""
    for x in (a, b):
        table.as_tensor_arg("matmul", x)
    if a._backend is not b._backend:
        same_device("matmul", (a, b))
    x, y = a._array, b._array
    if x.dtype != y.dtype:
        raise RuntimeError(f"matmul: expected operands of one dtype, got {describe(a, b)}; convert one with .to(dtype)")
    if not x.ndim or not y.ndim:
        raise RuntimeError(f"matmul: both operands need at least 1 dimension, got {describe(a, b)}")
    if x.shape[-1] != y.shape[-2 if y.ndim > 1 else 0]:
        raise RuntimeError(
            f"matmul: the last size of the first operand ({x.shape[-1]}) must equal the "
            f"{'second last' if y.ndim > 1 else 'only'} size of the second ({y.shape[-2 if y.ndim > 1 else 0]}); "
            f"got {describe(a, b)}"
        )
    if x.dtype == bool:
        raise DTypeError(f"matmul: not defined for bool tensors; got {describe(a, b)}")
    if x.ndim == 2 and y.ndim == 2:
        return _matmul(a, b)
    if x.ndim == 1:
        return (
            squeeze(matmul(unsqueeze(a, 0), b), -2)
            if y.ndim > 1
            else reshape(_matmul(unsqueeze(a, 0), unsqueeze(b, 1)), ())
        )
    if y.ndim == 1:
        return squeeze(matmul(a, unsqueeze(b, 1)), -1)
    if y.ndim == 2:  # one matrix for all: the batch is just more rows
        rows = reshape(a, (prod(x.shape[:-1]), x.shape[-1]))
        return reshape(_matmul(rows, b), (*x.shape[:-1], y.shape[-1]))
    try:
        batch = layout.broadcast_shapes(x.shape[:-2], y.shape[:-2])
    except ValueError:
        raise RuntimeError(f"matmul: batch dimensions do not broadcast; got {describe(a, b)}") from None
    return _matmul(_widen(a, batch), _widen(b, batch))


def _widen(x: Any, batch: tuple[int, ...]) -> Any:
    shape = x._array.shape
    return x if shape[:-2] == batch else expand(x, (*batch, *shape[-2:]))


def mm(a: Any, b: Any) -> Any:
    """``[n, k] @ [k, m]``. Raises RuntimeError for other numbers of dimensions."""
    if a._array.ndim != 2 or b._array.ndim != 2:
        raise RuntimeError(f"mm: expected two matrices, got {describe(a, b)}; use matmul() for other shapes")
    return matmul(a, b)


def bmm(a: Any, b: Any) -> Any:
    """``[batch, n, k] @ [batch, k, m]``. Raises RuntimeError for other shapes."""
    if a._array.ndim != 3 or b._array.ndim != 3 or a._array.shape[0] != b._array.shape[0]:
        raise RuntimeError(f"bmm: expected [b, n, k] and [b, k, m] of one batch size, got {describe(a, b)}")
    return matmul(a, b)


def mv(a: Any, b: Any) -> Any:
    """``[n, k] @ [k]``."""
    if a._array.ndim != 2 or b._array.ndim != 1:
        raise RuntimeError(f"mv: expected a matrix and a vector, got {describe(a, b)}")
    return matmul(a, b)


def dot(a: Any, b: Any) -> Any:
    """Inner product of two 1-d tensors of one size."""
    if a._array.ndim != 1 or b._array.ndim != 1:
        raise RuntimeError(f"dot: expected two 1-d tensors, got {describe(a, b)}")
    return matmul(a, b)


@composite(reference=np.outer, samples=(S(((3,), (4,))),))
def outer(a: Any, b: Any) -> Any:
    """All products of the elements of two 1-d tensors, ``[n, m]``."""
    if a._array.ndim != 1 or b._array.ndim != 1:
        raise RuntimeError(f"outer: expected two 1-d tensors, got {describe(a, b)}")
    return e.mul(unsqueeze(a, 1), b)


@composite(
    reference=lambda m, a, b, beta=1, alpha=1: beta * m + alpha * (a @ b),
    samples=(S(((3, 5), (3, 4), (4, 5))), S(((5,), (3, 4), (4, 5)), {"beta": 2.0, "alpha": 0.5})),
    dtypes="f",
)
def addmm(input: Any, mat1: Any, mat2: Any, *, beta: float = 1, alpha: float = 1) -> Any:
    """``beta * input + alpha * (mat1 @ mat2)``."""
    product = mm(mat1, mat2)
    if alpha != 1:
        product = e.mul(product, alpha)
    return product if beta == 0 else e.add(input if beta == 1 else e.mul(input, beta), product)


def baddbmm(input: Any, batch1: Any, batch2: Any, *, beta: float = 1, alpha: float = 1) -> Any:
    """:func:`addmm` over a batch."""
    product = bmm(batch1, batch2)
    if alpha != 1:
        product = e.mul(product, alpha)
    return product if beta == 0 else e.add(input if beta == 1 else e.mul(input, beta), product)


@composite(
    reference=lambda a, b, dims=2: np.tensordot(a, b, dims),
    samples=(S(((2, 3, 4), (3, 4, 5)), {"dims": 2}), S(((2, 3, 4), (4, 3)), {"dims": ([1, 2], [1, 0])})),
)
def tensordot(a: Any, b: Any, dims: Any = 2) -> Any:
    """Sum of products over ``dims`` dimensions: the last of ``a`` with the first of ``b``, or two
    lists of dimensions."""
    if isinstance(dims, int):
        left = list(range(a._array.ndim - dims, a._array.ndim))
        right = list(range(dims))
    else:
        left, right = ([d] if isinstance(d, int) else list(d) for d in dims)
    left = [layout.normalize_axis(d, a._array.ndim, "tensordot") for d in left]
    right = [layout.normalize_axis(d, b._array.ndim, "tensordot") for d in right]
    sizes = [a._array.shape[d] for d in left]
    if sizes != [b._array.shape[d] for d in right]:
        raise RuntimeError(f"tensordot: the sizes over dims {dims} differ; got {describe(a, b)}")
    keep_a = [i for i in range(a._array.ndim) if i not in left]
    keep_b = [i for i in range(b._array.ndim) if i not in right]
    k = prod(sizes)
    rows = reshape(permute(a, keep_a + left), (-1 if k else prod(a._array.shape[i] for i in keep_a), k))
    columns = reshape(permute(b, right + keep_b), (k, -1 if k else prod(b._array.shape[i] for i in keep_b)))
    shape = [a._array.shape[i] for i in keep_a] + [b._array.shape[i] for i in keep_b]
    return reshape(matmul(rows, columns), shape)


_EINSUM = (
    S(((3, 4), (4, 5)), {"equation": "ij,jk->ik"}),
    S(((2, 3, 4), (2, 4, 5)), {"equation": "bij,bjk"}),
    S(((3, 3),), {"equation": "ii->i"}),
    S(((3, 4), (4,), (3,)), {"equation": "ij,j,i->"}),
    S(((2, 3, 4), (5, 4)), {"equation": "...d,ed->...e"}),
)


def _einsum_reference(*operands: Any, equation: str) -> Any:
    return np.einsum(equation, *operands)


@composite(reference=_einsum_reference, samples=_EINSUM)
def einsum(equation: str, *operands: Any) -> Any:
    """Sums of products by Einstein's convention, as ``numpy.einsum`` has it: ``...``, repeated
    letters (diagonals) and an implied result included. Pairs are contracted from the left."""
    if len(operands) == 1 and isinstance(operands[0], (list, tuple)):
        operands = tuple(operands[0])
    terms, result = _parse_einsum(equation, operands)
    tensors = []
    for x, term in zip(operands, terms, strict=True):
        x, term = _take_diagonals(x, term)
        tensors.append((x, term))
    for i in range(len(tensors)):  # sums over a letter that nobody else has
        x, term = tensors[i]
        others = set(result).union(*(t for j, (_, t) in enumerate(tensors) if j != i))
        lone = [k for k, c in enumerate(term) if c not in others]
        if lone:
            x = sum_(x, lone)
            term = [c for c in term if c in others]
        tensors[i] = (x, term)
    x, term = tensors[0]
    for k in range(1, len(tensors)):
        later = set(result).union(*(t for _, t in tensors[k + 1 :]))
        x, term = _contract(x, term, *tensors[k], later)
    return permute(x, [term.index(c) for c in result]) if term else x


def _parse_einsum(equation: str, operands: Any) -> tuple[list[list[str]], list[str]]:
    left, arrow, right = equation.replace(" ", "").partition("->")
    texts = left.split(",")
    if len(texts) != len(operands):
        raise RuntimeError(f"einsum: equation {equation!r} has {len(texts)} terms for {len(operands)} operands")
    terms = []
    widest = 0
    for text, x in zip(texts, operands, strict=True):
        letters = text.replace("...", "")
        extra = x._array.ndim - len(letters)
        if extra < 0 or (extra and "..." not in text):
            raise RuntimeError(f"einsum: term {text!r} does not fit a tensor of shape {tuple(x._array.shape)}")
        widest = extra if extra > widest else widest
        head, dots, tail = text.partition("...")
        terms.append([*head, *([f"...{extra - i}" for i in range(extra)] if dots else []), *tail])
    batch = [f"...{widest - i}" for i in range(widest)]
    if arrow:
        head, dots, tail = right.partition("...")
        result = [*head, *(batch if dots else []), *tail]
    else:
        flat = [c for term in terms for c in term]
        result = batch + sorted(c for c in set(flat) if flat.count(c) == 1 and not c.startswith("..."))
    unknown = set(result) - {c for term in terms for c in term}
    if unknown or len(set(result)) != len(result):
        raise RuntimeError(f"einsum: the result of {equation!r} must use letters of its terms, each once")
    return terms, result


def _take_diagonals(x: Any, term: list[str]) -> tuple[Any, list[str]]:
    from gpugrad.ops.movement import diagonal

    for c in set(term):
        while term.count(c) > 1:
            i = term.index(c)
            j = term.index(c, i + 1)
            if x._array.shape[i] != x._array.shape[j]:
                raise RuntimeError(f"einsum: index {c!r} has sizes {x._array.shape[i]} and {x._array.shape[j]}")
            x = diagonal(x, 0, i, j)
            term = [d for k, d in enumerate(term) if k not in (i, j)] + [c]
    return x, term


def _contract(x: Any, a: list[str], y: Any, b: list[str], later: set[str]) -> tuple[Any, list[str]]:
    """Product of two operands as one batched matmul: letters kept by both are batch, letters
    nobody needs later are summed."""
    size_x = dict(zip(a, x._array.shape, strict=True))
    size_y = dict(zip(b, y._array.shape, strict=True))
    for c in set(a) & set(b):
        if size_x[c] != size_y[c] and 1 not in (size_x[c], size_y[c]):
            raise RuntimeError(f"einsum: index {c!r} has sizes {size_x[c]} and {size_y[c]}")
    shared = [c for c in a if c in b]
    batch = [c for c in shared if c in later]
    summed = [c for c in shared if c not in later]
    only_a = [c for c in a if c not in b]
    only_b = [c for c in b if c not in a]
    sizes = {c: size_y[c] if size_x.get(c, 1) == 1 and c in size_y else size_x[c] for c in {*a, *b}}
    x = expand(permute(x, [a.index(c) for c in batch + only_a + summed]), [sizes[c] for c in batch + only_a + summed])
    y = expand(permute(y, [b.index(c) for c in batch + summed + only_b]), [sizes[c] for c in batch + summed + only_b])
    k, n, m = (prod(sizes[c] for c in part) for part in (summed, only_a, only_b))
    lead = [sizes[c] for c in batch]
    out = matmul(reshape(x, (*lead, n, k)), reshape(y, (*lead, k, m)))
    term = batch + only_a + only_b
    return reshape(out, [sizes[c] for c in term]), term


def linear(input: Any, weight: Any, bias: Any = None) -> Any:
    """``input @ weight.T + bias``: ``[*, in]``, ``[out, in]``, ``[out]`` give ``[*, out]``."""
    out = matmul(input, _turned(weight) if weight._array.ndim > 1 else weight)
    return out if bias is None else e.add(out, bias)
