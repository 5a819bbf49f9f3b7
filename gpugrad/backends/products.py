"""Matrix products of the CPU backend: NumPy's, and large ones in parts that are shared out among its threads.

BLAS has one thread meanwhile (``blas.py`` says why), and which parts there are follows from the shapes. Parts are rows
and columns of the result, or matrices of a batch; each is one call of BLAS, by the threads of ``kernels/host/pool.c``:
on two processors products from 128 x 128 x 128 to 2048 x 2048 x 2048 take 0.95 to 1.15 of the time of OpenBLAS's own
two threads. Where there is no C compiler, or another BLAS, Python's threads do the same parts.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import numpy as np

from gpugrad import layout
from gpugrad.backends.blas import Blas, Routines
from gpugrad.backends.cpu_blocks import row_dots
from gpugrad.backends.threads import Workers
from gpugrad.errors import DeviceError

_matmul = np.matmul

#: multiply-adds up to which OpenBLAS uses one thread anyway, in general, with a vector, and for ``x @ x.T``
ALONE, ALONE_VECTOR, ALONE_SQUARE = 1 << 18, 9000, 1 << 15
#: multiply-adds from which on a product has parts, and those of a product with a vector
SHARED, SHARED_VECTOR = 1 << 20, 1 << 18
MOST_PARTS = 64
#: the fewest rows or columns of a part, and of a vector's
LEAST, LEAST_VECTOR = 16, 64

Layout = tuple[bool, int]  # whether a matrix lies turned in memory; elements from one row, or column, to the next


def part_count(work: int, vector: bool) -> int:
    """Into how many parts ``work`` multiply-adds are cut, if shapes allow: 2 from 2**20 on, 4 from 2**23, 8 from 2**25
    and so on, as larger products have time for larger parts."""
    if work < (SHARED_VECTOR if vector else SHARED):
        return 1
    return min(MOST_PARTS, 1 << max(1, (work.bit_length() - (17 if vector else 20)) // 2))


def cuts(m: int, n: int, count: int) -> tuple[int, int]:
    """Into how many parts the rows and the columns of a result ``[m, n]`` are cut, ``count`` in all at most."""
    least = LEAST_VECTOR if min(m, n) == 1 else LEAST
    rows = columns = 1
    while rows * columns < count:
        tall, wide = m // rows, n // columns
        if max(tall, wide) < 2 * least:
            break
        if tall >= wide:
            rows *= 2
        else:
            columns *= 2
    return rows, columns


def _shares(shape: Sequence[int], k: int) -> tuple[int, int, int, int]:
    """Of a result of ``shape``, sums over ``k``: the parts of its rows and of its columns, how many matrices there are,
    and how many of them a part has."""
    *batch, m, n = shape
    matrices = prod(batch)
    count = part_count(prod(shape) * k, min(m, n) == 1)
    return *cuts(m, n, -(-count // matrices)), matrices, max(1, matrices // count)


def _layout(shape: Sequence[int], strides: Sequence[int], size: int) -> Layout | None:
    """How BLAS sees the last two dimensions of an array, or None if they are nothing for it."""
    (rows, columns), (down, across) = shape[-2:], strides[-2:]
    if (across == size or columns == 1) and (rows == 1 or (down >= columns * size and not down % size)):
        return False, columns if rows == 1 else down // size
    if (down == size or rows == 1) and (columns == 1 or (across >= rows * size and not across % size)):
        return True, rows if columns == 1 else across // size
    return None


def _for_blas(x: np.ndarray) -> np.ndarray:
    """``x``, or a copy of it whose matrices BLAS takes; a batch of one matrix, broadcast, is one matrix still."""
    if _layout(x.shape, x.strides, x.itemsize) is not None and not any(s % x.itemsize for s in x.strides):
        return x
    once = x[tuple(slice(0, 1) if s == 0 else slice(None) for s in x.strides[:-2])]
    return np.broadcast_to(np.ascontiguousarray(once), x.shape)


def _plan(a: np.ndarray, b: np.ndarray, out: np.ndarray, routines: Routines) -> Any:
    """What C is told of a product of such shapes and strides; None where it is nothing for the routines."""
    m, n, k = out.shape[-2], out.shape[-1], a.shape[-1]
    size = a.itemsize
    layouts = [_layout(x.shape, x.strides, size) for x in (a, b, out)]
    batch = out.shape[:-2]
    if None in layouts or layouts[2][0] or len(batch) > 60:  # type: ignore[index]
        return None
    (turn_a, lda), (turn_b, ldb), (_, ldc) = layouts  # type: ignore[misc]
    if routines.bits == 32 and max(m, n, k, lda, ldb, ldc) >= 1 << 31:
        return None
    numbers = [m, n, k, lda, ldb, ldc, turn_a, turn_b, *_shares(out.shape, k), len(batch)]
    steps = [np.broadcast_to(x, (*batch, *x.shape[-2:])).strides for x in (a, b)]
    for d, length in enumerate(batch):
        numbers += [length, steps[0][d] // size, steps[1][d] // size, out.strides[d] // size]
    return (ctypes.c_int64 * len(numbers))(*map(int, numbers))


class Products:
    """``products(a, b)`` is ``a @ b`` of float32 or float64 arrays of two dimensions and more, whose bits do not
    depend on any number of threads. ``empty(shape, dtype)`` makes what it returns."""

    def __init__(self, workers: Workers, blas: Blas, empty: Callable[..., np.ndarray]) -> None:
        self._workers, self._blas, self._empty = workers, blas, empty
        self._alone = ALONE if blas.is_openblas else 0
        self._found: dict[np.dtype, tuple[Any, Routines] | None] = {}
        self._plans: dict[Any, Any] = {}

    def __call__(self, a: np.ndarray, b: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """``a @ b``, in ``out`` if that is given, which overlaps neither. NumPy's warnings about numbers are the
        caller's to switch off."""
        m, n = a.shape[-2], b.shape[-1]
        work = max(a.size * n, b.size * m)  # of all matrices, or fewer if both operands are broadcast
        if work <= self._alone and (
            work <= ALONE_VECTOR or (m != 1 != n and (m != n or work <= ALONE_SQUARE or not np.may_share_memory(a, b)))
        ):
            return _matmul(a, b) if out is None else _matmul(a, b, out)
        if m == n == 1:
            return self._dots(a, b, out)
        if work < SHARED_VECTOR or (work < SHARED and m != 1 != n):
            with self._blas:
                return _matmul(a, b) if out is None else _matmul(a, b, out)
        return self._large(a, b, out)

    def _dots(self, a: np.ndarray, b: np.ndarray, out: np.ndarray | None) -> np.ndarray:
        """Sums of sums of short pieces: BLAS adds up a long product one after the other, in a few lanes."""
        rows, columns = np.broadcast_arrays(a[..., 0, :], b[..., 0])
        found = row_dots(rows.reshape(-1, a.shape[-1]), columns.reshape(-1, a.shape[-1])).reshape(
            *rows.shape[:-1], 1, 1
        )
        if out is None:
            return found
        np.copyto(out, found)
        return out

    def _large(self, a: np.ndarray, b: np.ndarray, out: np.ndarray | None) -> np.ndarray:
        target = out
        if target is None:
            batch = layout.broadcast_shapes(a.shape[:-2], b.shape[:-2]) if a.ndim + b.ndim > 4 else ()
            target = self._empty((*batch, a.shape[-2], b.shape[-1]), a.dtype)
        a, b = _for_blas(a), _for_blas(b)
        native = self._native(a.dtype)
        if native is not None:
            function, routines = native
            key = (a.shape, a.strides, b.shape, b.strides, target.shape, target.strides, a.dtype)
            plan = self._plans.get(key, False)
            if plan is False:
                if len(self._plans) > 1000:
                    self._plans.clear()
                plan = self._plans[key] = _plan(a, b, target, routines)
            if plan is not None:
                with self._blas:
                    function(plan, routines.pointers, a.ctypes.data, b.ctypes.data, target.ctypes.data)
                return target
        self._by_numpy(a, b, target)
        return target

    def _native(self, dtype: np.dtype) -> tuple[Any, Routines] | None:
        """The C function for products of ``dtype`` and what it calls; None where there is none."""
        if dtype not in self._found:
            self._found[dtype] = self._search(dtype)
        return self._found[dtype]

    def _search(self, dtype: np.dtype) -> tuple[Any, Routines] | None:
        routines = self._blas.routines(dtype)
        if routines is None:
            return None
        try:
            library = self._workers.native()
        except DeviceError:
            return None  # Python's threads do it
        function = getattr(library, f"gg_product_f{8 * dtype.itemsize}_i{routines.bits}")
        function.restype = None
        function.argtypes = (ctypes.c_void_p,) * 5
        return function, routines

    def _by_numpy(self, a: np.ndarray, b: np.ndarray, out: np.ndarray) -> None:
        """The same parts by NumPy, on Python's threads: ``dot`` lets go of the interpreter lock, ``matmul`` not."""
        *batch, m, n = out.shape
        rows, columns, matrices, group = _shares(out.shape, a.shape[-1])
        a, b = (np.broadcast_to(x, (*batch, *x.shape[-2:])) for x in (a, b))
        places = list(np.ndindex(*batch))

        def part(i: int) -> None:
            i, column = divmod(i, columns)
            which, row = divmod(i, rows)
            down = slice(m * row // rows, m * (row + 1) // rows)
            across = slice(n * column // columns, n * (column + 1) // columns)
            for place in places[which * group : (which + 1) * group]:
                out[place][down, across] = np.dot(a[place][down], b[place][:, across])

        with self._blas:
            self._workers.share(part, rows * columns * -(-matrices // group))
