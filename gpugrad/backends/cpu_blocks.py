"""Large elementwise operations and reductions of the CPU backend, in blocks that fit the cache, on all threads.

Where a block begins depends on shapes alone, never on the number of threads, so neither do results.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

#: elements of a block: its operands still fit a core's caches, and the interpreter's share of the time is small
#: (16M elements of tanh(x*2+y)*exp(-x*x): 43 ms with 2**13, 23 to 25 with 2**15 to 2**17; AdamW: 45, 28, 17 ms)
BLOCK = 1 << 17
#: from how many elements on work is done in blocks, and shared out
LARGE = 1 << 18

#: elements on which a function of several NumPy calls works at a time, so that its temporaries stay in the cache
PART = 1 << 17
#: NumPy lets go of the interpreter lock only where a call has more than 500 rows; rows are cut into pieces of at most
#: this many elements, and blocks of 2**18 elements then have more
PIECE = 512
#: rows of at most so many elements have their maxima found by halving them, which takes 0.43 of the time for 64
NARROW = 96
#: blocks of as many times BLOCK elements where rows are summed, so that a call has more than those 500
SUMMED = 4

Share = Callable[[Callable[[int], None], int], None]


class Scratch(threading.local):
    """Memory that each thread keeps under a name, for temporaries of blocks."""

    def __init__(self) -> None:
        self._kept: dict[tuple[str, np.dtype], np.ndarray] = {}

    def array(self, name: str, shape: Sequence[int], dtype: np.dtype) -> np.ndarray:
        """Uninitialised; what was last got under this name holds the same memory."""
        size = _size(shape)
        if size > 4 * BLOCK:  # a very long row: not worth keeping
            return np.empty(shape, dtype)
        found = self._kept.get((name, dtype))
        if found is None or found.size < size:
            found = self._kept[name, dtype] = np.empty(size, dtype)
        return found[:size].reshape(shape)


_scratch = Scratch()
_ones = {np.dtype(t): np.ones(PIECE, t) for t in ("f4", "f8")}


def _pieces(n: int) -> tuple[int, int]:
    """In how many pieces of which length to cut a row of ``n``; fewer elements than pieces are left over."""
    count = -(-n // PIECE)
    return count, n // count


def row_dots(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The sums of the products of the rows of two arrays ``[rows, n]``, whose elements of a row lie side by side."""
    rows, n = a.shape
    if n <= PIECE:
        return np.vecdot(a, b)
    count, length = _pieces(n)
    whole = count * length
    total = np.vecdot(*(x[:, :whole].reshape(rows, count, length) for x in (a, b))).sum(axis=1)
    if whole < n:
        total += row_dots(a[:, whole:], b[:, whole:])
    return total


def row_sums(x: np.ndarray) -> np.ndarray:
    """The sums of the rows of ``[rows, n]`` in float32 or float64, the elements of a row side by side.

    By BLAS, as products with ones: 4096 rows of 4096 take 0.9 ms on two threads, and 1.4 ms by NumPy's sum; the error
    of both is 4.2e-8 of the sum (root mean square; PyTorch's 4.9e-8)."""
    rows, n = x.shape
    ones = _ones[x.dtype]
    if n <= PIECE:
        return np.vecdot(x, ones[:n])
    count, length = _pieces(n)
    whole = count * length
    total = np.vecdot(x[:, :whole].reshape(rows, count, length), ones[:length]).sum(axis=1)
    if whole < n:
        total += row_sums(x[:, whole:])  # what is left over may itself be more than a piece
    return total


def row_maxima(x: np.ndarray) -> np.ndarray:
    """The largest element of each row of ``[rows, n]``, NaN where there is one; the elements of a row side by side."""
    rows, n = x.shape
    if n <= NARROW and rows > n:
        while n > 16:
            half = n - n // 2
            x, n = np.maximum(x[:, :half], x[:, n - half :]), half
        return np.maximum.reduce(np.ascontiguousarray(x.T), axis=0)
    if n <= PIECE:
        return np.maximum.reduce(x, axis=1)
    count, length = _pieces(n)
    whole = count * length
    top = np.maximum.reduce(np.maximum.reduce(x[:, :whole].reshape(rows, count, length), axis=2), axis=1)
    return top if whole == n else np.maximum(top, np.maximum.reduce(x[:, whole:], axis=1))


def row_blocks(shape: Sequence[int], block: int | None = None) -> tuple[int, int]:
    """(rows in a block, number of blocks) along the first dimension, for blocks of ``block`` or ``BLOCK`` elements."""
    rows = shape[0]
    width = 1
    for n in shape[1:]:
        width *= n
    step = min(max(1, (block or BLOCK) // max(width, 1)), rows)
    return step, -(-rows // step)


def flattened(values: Sequence[Any], shape: tuple[int, ...]) -> tuple[list[Any], tuple[int, ...]] | None:
    """Operands whose first dimension can be cut into blocks, and the shape they then have; None where that would
    not pay: operands that are not C-contiguous, or few rows."""
    same = True
    for v in values:
        if type(v) is np.ndarray and v.ndim:
            if not v.flags.c_contiguous:
                return None
            same = same and v.shape == shape
    if same:
        return [v.reshape(-1) if type(v) is np.ndarray and v.ndim else v for v in values], (_size(shape),)
    if shape[0] < 8:
        return None
    return list(values), shape


def _size(shape: Sequence[int]) -> int:
    n = 1
    for s in shape:
        n *= s
    return n


def map_blocks(
    function: Callable[..., Any], values: Sequence[Any], out: np.ndarray, shape: tuple[int, ...], share: Share,
    cast: Callable[[np.ndarray], np.ndarray] | None = None,
) -> None:  # fmt: skip
    """``out[...] = function(*values)`` block by block; ``values`` and ``shape`` from :func:`flattened`, ``out`` of
    that shape. ``cast`` converts each array operand's block first."""
    step, count = row_blocks(shape)
    rows, ndim = shape[0], len(shape)
    cut = [type(v) is np.ndarray and v.ndim == ndim and v.shape[0] == rows for v in values]
    direct = isinstance(function, np.ufunc) and cast is None

    def block(i: int) -> None:
        part = slice(i * step, min((i + 1) * step, rows))
        operands = [v[part] if c else v for v, c in zip(values, cut, strict=True)]
        if direct:
            function(*operands, out=out[part], casting="unsafe")
            return
        target, size = out[part], part.stop - part.start
        inner = min(size, max(1, PART * step // BLOCK))
        for first in range(0, size, inner):
            piece = slice(first, min(first + inner, size))
            some = [v[piece] if c else v for v, c in zip(operands, cut, strict=True)]
            if cast is not None:
                some = [cast(v) if type(v) is np.ndarray else v for v in some]
            np.copyto(target[piece], function(*some), "unsafe")

    share(block, count)


def _summing(ufunc: np.ufunc, array: np.ndarray, kind: np.dtype) -> Callable[[np.ndarray], np.ndarray] | None:
    """How to sum the rows of blocks of ``array`` in ``kind`` by :func:`row_sums`, or None where that is not asked."""
    if ufunc is not np.add or kind not in _ones:
        return None
    if array.dtype == kind:
        return row_sums
    if array.dtype.itemsize > 2 or array.dtype.kind in "iub":
        return None

    def converted(x: np.ndarray) -> np.ndarray:
        wide = _scratch.array("rows", x.shape, kind)
        np.copyto(wide, x, "unsafe")
        return row_sums(wide)

    return converted


def reduce_blocks(
    ufunc: np.ufunc, array: np.ndarray, axes: Sequence[int], dtype: np.dtype | None, share: Share
) -> np.ndarray | None:
    """``ufunc.reduce`` of a large C-contiguous ``array`` over ``axes`` that lie side by side, or None where that is
    not so. Partial results are combined in order of their place."""
    shape = array.shape
    if not array.flags.c_contiguous or list(axes) != list(range(axes[0], axes[-1] + 1)):
        return None
    outer, length = _size(shape[: axes[0]]), _size(shape[axes[0] : axes[-1] + 1])
    inner = _size(shape[axes[-1] + 1 :])
    cube = array.reshape(outer, length, inner)
    options: dict[str, Any] = {} if dtype is None else {"dtype": dtype}
    kind = array.dtype if dtype is None else dtype
    sums = _summing(ufunc, array, kind) if inner == 1 else None
    block = BLOCK if sums is None else SUMMED * BLOCK
    if length * inner <= block:
        result = np.empty((outer, inner), kind)
        step, count = row_blocks((outer, length * inner), block)

        if inner == 1:
            cube, target = cube[:, :, 0], result[:, 0]
        else:
            target = result

        def rows(i: int) -> None:
            part = slice(i * step, min((i + 1) * step, outer))
            if sums is not None:
                target[part] = sums(cube[part])
            else:
                ufunc.reduce(cube[part], axis=1, out=target[part], **options)

        share(rows, count)
    else:
        step = max(1, block // inner)
        count = -(-length // step)
        partial = np.empty((outer, count, inner), kind)

        def pieces(i: int) -> None:
            o, p = divmod(i, count)
            piece = cube[o, p * step : min((p + 1) * step, length)]
            if sums is not None:
                partial[o, p] = sums(piece.T)
            else:
                partial[o, p] = ufunc.reduce(piece[:, 0] if inner == 1 else piece, axis=0, **options)

        share(pieces, outer * count)
        result = ufunc.reduce(partial, axis=1, **options)
    return result.reshape(shape[: axes[0]] + shape[axes[-1] + 1 :])


def add_slices(
    out: np.ndarray, index: np.ndarray, source: np.ndarray, share: Callable[[Callable[[int], None], int], None]
) -> None:
    """``out[index[i]] += source[i]`` for each i in order.

    Destinations are shared out in blocks that fit the cache. Slices that come up to three times are added one after the
    other; what the others get is added up first. (An embedding of 8192 rows of 256 among 32768, forward and backward:
    4.8 ms, with whole arrays in each round 6.2, by ``np.add.at`` 16.7.)"""
    keys = index.astype(np.uint16) if out.shape[0] <= 1 << 16 else index  # a radix sort
    order = np.argsort(keys, kind="stable")
    keys = index[order]
    starts = np.flatnonzero(np.concatenate(([True], keys[1:] != keys[:-1])))
    counts = np.diff(starts, append=len(keys))
    few = counts <= 3
    places, times = starts[few], counts[few]
    step = max(1, (BLOCK >> 1) // max(math.prod(out.shape[1:]), 1))

    def block(i: int) -> None:
        first, number = places[i * step : (i + 1) * step], times[i * step : (i + 1) * step]
        rows = keys[first]
        total = out.take(rows, 0)
        total += source.take(order[first], 0)
        for k in (1, 2):
            more = np.flatnonzero(number > k)
            if len(more):
                total[more] += source.take(order[first[more] + k], 0)
        out[rows] = total

    def rest(_: int) -> None:
        many = order[np.repeat(~few, counts)]
        first = np.cumsum(counts[~few]) - counts[~few]
        out[keys[starts[~few]]] += np.add.reduceat(source[many], first, axis=0)

    share(block, -(-len(places) // step))
    if not few.all():
        share(rest, 1)
