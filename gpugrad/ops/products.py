"""Small products: kron, cross, inner, combinations, the powers of a line, chains of matrices."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from gpugrad import dtypes, layout
from gpugrad.ops import elementwise as e
from gpugrad.ops import table
from gpugrad.ops.contraction import tensordot
from gpugrad.ops.creation import cast, clone, empty, full_like, rounded_once
from gpugrad.ops.indexing import index_select
from gpugrad.ops.joining import cat, flip, meshgrid, roll, stack
from gpugrad.ops.linear import dot, mm, outer
from gpugrad.ops.movement import broadcast_tensors, expand, reshape, unsqueeze
from gpugrad.ops.table import Sample as S
from gpugrad.ops.table import composite, describe, same_device


@composite(
    reference=np.kron,
    samples=(
        S(((2, 3), (3, 2))),
        S(((2,), (3, 2))),
        S(((2, 1, 2), (3,))),
        S(((), (2, 2))),
        S(((0, 2), (2, 2))),
    ),
)
def kron(input: Any, other: Any) -> Any:
    """Kronecker's product: each element of ``input`` replaced by itself times ``other``. The one with fewer
    dimensions gets leading ones; dtypes are promoted."""
    a, b = tuple(input._array.shape), tuple(other._array.shape)
    ndim = max(len(a), len(b))
    a, b = (1,) * (ndim - len(a)) + a, (1,) * (ndim - len(b)) + b
    left = reshape(input, [n for m in a for n in (m, 1)])
    right = reshape(other, [n for m in b for n in (1, m)])
    return reshape(e.mul(left, right), [n * m for n, m in zip(a, b, strict=True)])


def _cross_reference(a: np.ndarray, b: np.ndarray, dim: int | None = None) -> np.ndarray:
    a, b = np.broadcast_arrays(a, b)
    d = a.shape.index(3) if dim is None else dim
    return np.cross(a, b, axis=d)


@composite(
    reference=_cross_reference,
    samples=(
        S(((3,), (3,)), {"dim": 0}),
        S(((2, 3), (2, 3)), {"dim": 1}),
        S(((3, 4), (3, 1)), {"dim": 0}),
        S(((0, 3), (0, 3)), {"dim": -1}),
    ),
    dtypes="f",
)
def cross(input: Any, other: Any, dim: int | None = None) -> Any:
    """The vector product along ``dim``, of size 3 (the first of that size unless given), of two tensors that
    broadcast and have as many dimensions. Raises RuntimeError where there is none."""
    same_device("cross", (input, other))
    if input._array.ndim != other._array.ndim or input.dtype is not other.dtype:
        raise RuntimeError(f"cross: expected as many dimensions and one dtype, got {describe(input, other)}")
    a, b = broadcast_tensors(input, other)
    shape = a._array.shape
    if dim is None:
        if 3 not in shape:
            raise RuntimeError(f"cross: no dimension has size 3, got {describe(input, other)}")
        dim = list(shape).index(3)
    d = layout.normalize_axis(dim, len(shape), "cross")
    if not shape or input._array.shape[d] != 3 or other._array.shape[d] != 3:
        raise RuntimeError(f"cross: dimension {dim} must have size 3, got {describe(input, other)}")
    return _cross(a, b, d)


@rounded_once
def _cross(a: Any, b: Any, d: int) -> Any:
    return e.sub(e.mul(roll(a, -1, d), roll(b, -2, d)), e.mul(roll(a, -2, d), roll(b, -1, d)))


@composite(
    reference=np.inner,
    samples=(S(((3,), (3,))), S(((2, 4), (3, 4))), S(((), (2, 3))), S(((0, 3), (3,)))),
    dtypes="fi",
)
def inner(input: Any, other: Any) -> Any:
    """Sums of products over the last dimensions; with a 0-d tensor the elementwise product."""
    if not input._array.ndim or not other._array.ndim:
        return e.mul(input, other)
    if input._array.shape[-1] != other._array.shape[-1]:
        raise RuntimeError(f"inner: the last sizes must be equal, got {describe(input, other)}")
    if input._array.ndim == other._array.ndim == 1:
        return dot(input, other)
    return tensordot(input, other, ([-1], [-1]))


def vdot(input: Any, other: Any) -> Any:
    """:func:`dot`: there are no complex numbers to conjugate."""
    return dot(input, other)


def ger(input: Any, vec2: Any) -> Any:
    """:func:`outer`."""
    return outer(input, vec2)


@composite(
    reference=lambda x, N=None, increasing=False: np.vander(x, N, increasing),
    samples=(S(((3,),)), S(((3,),), {"N": 5}), S(((4,),), {"N": 2, "increasing": True}), S(((0,),), {"N": 2})),
)
def vander(x: Any, N: int | None = None, increasing: bool = False) -> Any:
    """``[n, N]``: the powers N-1, ..., 1, 0 of the n numbers in ``x`` (0, 1, ... if ``increasing``); N: n unless
    given. Integers and bools give int64. Vandermonde's matrix."""
    from gpugrad.ops.scans import cumprod

    if x._array.ndim != 1:
        raise RuntimeError(f"vander: expected a 1-d tensor, got {describe(x)}")
    n = x._array.size if N is None else N
    if n < 0:
        raise RuntimeError(f"vander: N must not be negative, got {n}")
    x = x if x.dtype.is_floating_point else cast(x, dtypes.int64)
    column = unsqueeze(x, 1)
    if n == 0:
        return reshape(x, (-1, 1))[:, :0]
    powers = full_like(column, 1)
    if n > 1:
        powers = cat([powers, cumprod(expand(column, (x._array.size, n - 1)), 1)], 1)
    return powers if increasing else flip(powers, 1)


def cartesian_prod(*tensors: Any) -> Any:
    """``[n0 * n1 * ..., k]``: every choice of one element from each of k 1-d tensors, the last varying fastest;
    one tensor alone comes back as it is."""
    if len(tensors) == 1 and isinstance(tensors[0], (list, tuple)):
        tensors = tuple(tensors[0])
    for x in tensors:
        if table.as_tensor_arg("cartesian_prod", x)._array.ndim != 1:
            raise RuntimeError(f"cartesian_prod: expected 1-d tensors, got {describe(x)}")
    if not tensors:
        raise RuntimeError("cartesian_prod: expected at least one tensor")
    if len(tensors) == 1:
        return tensors[0]
    return stack([reshape(g, -1) for g in meshgrid(*tensors)], 1)


def combinations(input: Any, r: int = 2, with_replacement: bool = False) -> Any:
    """``[count, r]``: the choices of ``r`` elements of the 1-d ``input`` in their order, each once, or as often as
    one likes with ``with_replacement``."""
    if input._array.ndim != 1:
        raise RuntimeError(f"combinations: expected a 1-d tensor, got {describe(input)}")
    if r < 0:
        raise RuntimeError(f"combinations: r must not be negative, got {r}")
    if r == 0:
        return empty(0, dtype=input.dtype, device=input.device)
    choose = itertools.combinations_with_replacement if with_replacement else itertools.combinations
    flat = itertools.chain.from_iterable(choose(range(input._array.size), r))
    index = np.fromiter(flat, np.int64)
    where = table.wrap(input._backend.from_host(index), input._backend)
    return reshape(index_select(input, 0, where), (index.size // r, r))


def unravel_index(indices: Any, shape: Any) -> tuple[Any, ...]:
    """The coordinates, one tensor for each dimension of ``shape``, of elements numbered in C order, which
    is not checked to be within it. Raises TypeError for indices that are not integers."""
    table.as_tensor_arg("unravel_index", indices)
    if indices.dtype.category != 1:
        raise TypeError(f"unravel_index: indices must be integers, got {describe(indices)}")
    if isinstance(shape, table.Tensor):
        raise TypeError("unravel_index: shape must be an int or a sequence of ints, got a Tensor; use tolist()")
    sizes = [shape] if isinstance(shape, int) else [int(n) for n in shape]
    if any(n < 0 for n in sizes):
        raise ValueError(f"unravel_index: sizes must not be negative, got {tuple(sizes)}")
    indices = cast(indices, dtypes.int64)
    count = int(np.prod(sizes, dtype=np.int64))
    coordinates, step = [], count
    for n in sizes:
        step = step // n if n else 0
        coordinates.append(e.remainder(e.floor_divide(indices, step), n) if n and step else clone(indices))
    return tuple(coordinates)


def chain_matmul(*matrices: Any) -> Any:
    """The product of matrices in the order of multiplications that costs least (dynamic programming over
    where to cut; Cormen, Leiserson, Rivest, Stein, Introduction to Algorithms, 15.2)."""
    if len(matrices) == 1 and isinstance(matrices[0], (list, tuple)):
        matrices = tuple(matrices[0])
    if not matrices:
        raise RuntimeError("chain_matmul: expected at least one matrix")
    for m in matrices:
        if table.as_tensor_arg("chain_matmul", m)._array.ndim != 2:
            raise RuntimeError(f"chain_matmul: expected matrices, got {describe(*matrices)}")
    cuts = _best_cuts([m._array.shape[0] for m in matrices] + [matrices[-1]._array.shape[1]])

    def between(i: int, j: int) -> Any:
        return matrices[i] if i == j else mm(between(i, cuts[i, j]), between(cuts[i, j] + 1, j))

    return between(0, len(matrices) - 1)


def _best_cuts(sizes: Sequence[int]) -> dict[tuple[int, int], int]:
    """For matrices i to j of a chain the one after which to cut it."""
    n = len(sizes) - 1
    cost: dict[tuple[int, int], int] = {(i, i): 0 for i in range(n)}
    cuts: dict[tuple[int, int], int] = {}
    for length in range(1, n):
        for i in range(n - length):
            j = i + length
            cost[i, j], cuts[i, j] = min(
                (cost[i, k] + cost[k + 1, j] + sizes[i] * sizes[k + 1] * sizes[j + 1], k) for k in range(i, j)
            )
    return cuts
