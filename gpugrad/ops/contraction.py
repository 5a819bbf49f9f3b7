"""Contractions: tensordot and einsum, brought to products of matrices."""

from __future__ import annotations

import string
from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from gpugrad import layout
from gpugrad.ops import elementwise as e
from gpugrad.ops import table
from gpugrad.ops.diagonals import diagonal
from gpugrad.ops.linear import matmul, unlisted_matmul
from gpugrad.ops.movement import expand, permute, reshape
from gpugrad.ops.reductions import sum as sum_
from gpugrad.ops.table import Sample as S
from gpugrad.ops.table import composite, describe, same_device


@composite(
    reference=lambda a, b, dims=2: np.tensordot(a, b, dims),
    samples=(
        S(((2, 3, 4), (3, 4, 5)), {"dims": 2}),
        S(((2, 3, 4), (4, 3)), {"dims": ([1, 2], [1, 0])}),
        S(((2, 3), (4,)), {"dims": 0}),
        S(((0, 3), (3, 2)), {"dims": 1}),
    ),
    dtypes="fi",
)
def tensordot(a: Any, b: Any, dims: Any = 2) -> Any:
    """Sum of products over ``dims`` dimensions: the last of ``a`` with the first of ``b``, or two
    lists of dimensions (or a ``[2, n]`` integer tensor of them). A size of 1 goes with any other."""
    for x in (a, b):
        table.as_tensor_arg("tensordot", x)
    same_device("tensordot", (a, b))
    left, right = _contracted(a, b, dims)
    for i, j in zip(left, right, strict=True):
        n, m = a._array.shape[i], b._array.shape[j]
        if n != m:
            if 1 not in (n, m):
                raise RuntimeError(f"tensordot: the sizes over dims {dims} differ; got {describe(a, b)}")
            if n == 1:
                b = sum_(b, j, keepdim=True, dtype=b.dtype)
            else:
                a = sum_(a, i, keepdim=True, dtype=a.dtype)
    keep_a = [i for i in range(a._array.ndim) if i not in left]
    keep_b = [i for i in range(b._array.ndim) if i not in right]
    shape_a, shape_b = [a._array.shape[i] for i in keep_a], [b._array.shape[i] for i in keep_b]
    k = prod(a._array.shape[d] for d in left)
    rows = reshape(permute(a, keep_a + left), (prod(shape_a), k))
    columns = reshape(permute(b, right + keep_b), (k, prod(shape_b)))
    product = unlisted_matmul if prod(shape_a) * prod(shape_b) == 1 else matmul
    return reshape(product(rows, columns), shape_a + shape_b)


def _contracted(a: Any, b: Any, dims: Any) -> tuple[list[int], list[int]]:
    """The dimensions of ``a`` and of ``b`` that ``dims`` names."""
    dims = dims.tolist() if isinstance(dims, table.Tensor) else dims
    if isinstance(dims, int):
        if dims < 0 or dims > min(a._array.ndim, b._array.ndim):
            raise RuntimeError(f"tensordot: dims must be from 0 to the number of dimensions, got {dims}")
        return list(range(a._array.ndim - dims, a._array.ndim)), list(range(dims))
    left, right = ([d] if isinstance(d, int) else list(d) for d in dims)
    if len(left) != len(right):
        raise RuntimeError(f"tensordot: both lists of dims must be equally long, got {left} and {right}")
    left = [layout.normalize_axis(d, a._array.ndim, "tensordot") for d in left]
    right = [layout.normalize_axis(d, b._array.ndim, "tensordot") for d in right]
    if len(set(left)) != len(left) or len(set(right)) != len(right):
        raise RuntimeError(f"tensordot: dims {dims} name one dimension twice")
    return left, right


_EINSUM = (
    S(((3, 4), (4, 5)), {"equation": "ij,jk->ik"}),
    S(((2, 3, 4), (2, 4, 5)), {"equation": "bij,bjk"}),
    S(((3, 3),), {"equation": "ii->i"}),
    S(((3, 4), (4,), (3,)), {"equation": "ij,j,i->"}),
    S(((2, 3, 4), (5, 4)), {"equation": "...d,ed->...e"}),
    S(((2, 3), (2, 3)), {"equation": "Ab,Ab->b"}),
    S(((2, 3, 3), (3,)), {"equation": "...ii,i"}),
)


def _einsum_reference(*operands: Any, equation: str) -> Any:
    return np.einsum(equation, *operands)


@composite(reference=_einsum_reference, samples=_EINSUM)
def einsum(*args: Any) -> Any:
    """Sums of products by Einstein's convention: ``einsum("ij,jk->ik", a, b)``, or with lists of numbers for
    letters ``einsum(a, [0, 1], b, [1, 2], [0, 2])``. ``...`` (``Ellipsis`` in a list) stands for further
    dimensions, a letter repeated in a term takes a diagonal, and without a result it is ``...`` and the
    letters that appear once, in order. Pairs are contracted from the left. Raises RuntimeError, ValueError."""
    if not args:
        raise ValueError("einsum: expected an equation and operands")
    if isinstance(args[0], str):
        equation, operands = args[0], args[1:]
        if len(operands) == 1 and isinstance(operands[0], (list, tuple)):
            operands = tuple(operands[0])
    else:
        equation, operands = _from_lists(args)
    if not operands:
        raise ValueError("einsum: expected at least one operand")
    for x in operands:
        table.as_tensor_arg("einsum", x)
    same_device("einsum", operands)
    terms, result = _parse_einsum(equation, operands)
    tensors = [_take_diagonals(x, term) for x, term in zip(operands, terms, strict=True)]
    for i in range(len(tensors)):  # sums over a letter that nobody else has
        x, term = tensors[i]
        others = set(result).union(*(t for j, (_, t) in enumerate(tensors) if j != i))
        lone = [k for k, c in enumerate(term) if c not in others]
        if lone:
            # Alone, integers add up in int64 as in sum(); beside others they keep the dtype of the product.
            x = sum_(x, lone, dtype=None if len(tensors) == 1 else x.dtype)
            term = [c for c in term if c in others]
        tensors[i] = (x, term)
    x, term = tensors[0]
    for k in range(1, len(tensors)):
        later = set(result).union(*(t for _, t in tensors[k + 1 :]))
        x, term = _contract(x, term, *tensors[k], later)
    return permute(x, [term.index(c) for c in result]) if term else x


def _from_lists(args: Sequence[Any]) -> tuple[str, tuple[Any, ...]]:
    """The equation that the form with lists stands for, and the operands."""

    def letters(numbers: Any) -> str:
        for n in numbers:
            if n is not Ellipsis and not (isinstance(n, int) and 0 <= n < 52):
                raise ValueError(f"einsum: subscripts in lists must be from 0 to 51 or Ellipsis, got {n!r}")
        return "".join("..." if n is Ellipsis else string.ascii_letters[(n + 26) % 52] for n in numbers)

    pairs, rest = args[: len(args) // 2 * 2], args[len(args) // 2 * 2 :]
    equation = ",".join(letters(term) for term in pairs[1::2])
    return equation + ("->" + letters(rest[0]) if rest else ""), tuple(pairs[::2])


def _check_term(equation: str, text: str) -> None:
    rest = text.replace("...", "", 1)
    if any(c not in string.ascii_letters for c in rest):
        raise RuntimeError(f"einsum: term {text!r} of {equation!r} may hold letters and one '...' only")


def _parse_einsum(equation: str, operands: Any) -> tuple[list[list[str]], list[str]]:
    """The letters of each operand's dimensions and of the result's; those of ``...`` are called
    ``...1`` and so on from the last one."""
    left, arrow, right = equation.replace(" ", "").partition("->")
    texts = left.split(",")
    if len(texts) != len(operands):
        raise RuntimeError(f"einsum: equation {equation!r} has {len(texts)} terms for {len(operands)} operands")
    terms = []
    widest = 0
    for text, x in zip(texts, operands, strict=True):
        _check_term(equation, text)
        extra = x._array.ndim - len(text.replace("...", ""))
        if extra < 0 or (extra and "..." not in text):
            raise RuntimeError(f"einsum: term {text!r} does not fit a tensor of shape {tuple(x._array.shape)}")
        widest = max(widest, extra)
        head, dots, tail = text.partition("...")
        terms.append([*head, *([f"...{extra - i}" for i in range(extra)] if dots else []), *tail])
    batch = [f"...{widest - i}" for i in range(widest)]
    if arrow:
        _check_term(equation, right)
        head, dots, tail = right.partition("...")
        result = [*head, *(batch if dots else []), *tail]
    else:
        flat = [c for term in terms for c in term]
        result = batch + sorted(c for c in set(flat) if flat.count(c) == 1 and not c.startswith("..."))
    if set(result) - {c for term in terms for c in term} or len(set(result)) != len(result):
        raise RuntimeError(f"einsum: the result of {equation!r} must use letters of its terms, each once")
    return terms, result


def _take_diagonals(x: Any, term: list[str]) -> tuple[Any, list[str]]:
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
    term = batch + only_a + only_b
    lead = [sizes[c] for c in batch]
    if not summed:  # no sum, no product of matrices: elementwise, which bools and mixed dtypes have too
        x = reshape(x, (*lead, *(sizes[c] for c in only_a), *(1 for _ in only_b)))
        y = reshape(y, (*lead, *(1 for _ in only_a), *(sizes[c] for c in only_b)))
        return e.mul(x, y), term
    k, n, m = (prod(sizes[c] for c in part) for part in (summed, only_a, only_b))
    out = matmul(reshape(x, (*lead, n, k)), reshape(y, (*lead, k, m)))
    return reshape(out, [sizes[c] for c in term]), term
