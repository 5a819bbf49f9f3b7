"""Softmax, layer norm, RMS norm and cross-entropy of the CPU backend: blocks of rows, on all threads.

What each routine takes and returns is in ROUTINES of ``gpugrad/ops/fused.py``. Where a block begins depends on shapes
alone. Sums of rows are dot products with ones, which BLAS does at the speed of memory (NumPy's own sum of a row takes
1.7 times as long) and no less accurately; rows are cut into pieces that BLAS does not share out among its threads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gpugrad.backends.cpu_blocks import Scratch, row_dots, row_maxima, row_sums
from gpugrad.dtypes import HALVES
from gpugrad.errors import OutOfRangeError

#: elements of a block. Two threads hand the interpreter to each other after every NumPy call, which costs more than
#: what smaller blocks save in the cache: layer norm of 4096x1024 takes 13.8 ms forward and backward with 2**15, 9.9
#: with 2**17 and 6.1 with 2**18, softmax 8.7, 6.1 and 4.3
ROW_BLOCK = 1 << 18
#: from how many elements on rows are shared out among threads
SHARED = 1 << 16
_F32 = np.dtype(np.float32)


def check_index(index: np.ndarray, n: int, op: str) -> None:
    """Raise OutOfRangeError, in the name of ``op``, unless all of ``index`` is in [0, n)."""
    if index.size:
        low, high = int(index.min()), int(index.max())
        if low < 0 or high >= n:
            bad = low if low < 0 else high
            raise OutOfRangeError(f"{op}: index {bad} is out of range for size {n}")


def work_dtype(dtype: np.dtype) -> np.dtype:
    return _F32 if dtype in HALVES else dtype


def _cut(rows: int, width: int) -> tuple[int, int]:
    """(rows in a block, number of blocks): two blocks at least where the work is worth sharing out."""
    step = max(1, ROW_BLOCK // max(width, 1))
    if rows * width >= SHARED:
        step = min(step, -(-rows // 2))
    return step, -(-rows // step)


class RowOps:
    """The fused routines of the CPU backend that go row by row."""

    _pool: Any
    _workers: Any
    _share: Callable[[Callable[[int], None], int], None]
    _scratch = Scratch()

    def _in_blocks(self, function: Callable[[int, int, int], None], rows: int, width: int) -> None:
        """``function(i, first, last)`` for the blocks of rows."""
        step, count = _cut(rows, width)

        def block(i: int) -> None:
            function(i, i * step, min((i + 1) * step, rows))

        def all_blocks(_: int) -> None:
            for i in range(count):
                block(i)

        if rows * width < SHARED:  # waking a thread would cost more
            self._share(all_blocks, 1)
        else:
            self._share(block, count)

    def _temporary(self, name: str, shape: Sequence[int], dtype: np.dtype) -> np.ndarray:
        """Uninitialised memory that this thread keeps for the name."""
        return self._scratch.array(name, shape, dtype)

    def _loaded(self, name: str, array: np.ndarray, work: np.dtype) -> np.ndarray:
        """``array`` in the work dtype: itself, or converted into scratch."""
        if array.dtype == work:
            return array
        copy = self._temporary(name, array.shape, work)
        np.copyto(copy, array, "unsafe")
        return copy

    # -- softmax ---------------------------------------------------------------------------------

    def fused_softmax(self, x: np.ndarray, axis: int) -> np.ndarray:
        return self._along((x,), axis, self._softmax_rows, _softmax)

    def fused_log_softmax(self, x: np.ndarray, axis: int) -> np.ndarray:
        return self._along((x,), axis, self._log_softmax_rows, _log_softmax)

    def fused_softmax_backward(self, gradient: np.ndarray, y: np.ndarray, axis: int) -> np.ndarray:
        return self._along((gradient, y), axis, _softmax_backward_rows, _softmax_backward)

    def fused_log_softmax_backward(self, gradient: np.ndarray, y: np.ndarray, axis: int) -> np.ndarray:
        return self._along((gradient, y), axis, _log_softmax_backward_rows, _log_softmax_backward)

    def _along(
        self,
        arrays: tuple[np.ndarray, ...],
        axis: int,
        rows: Callable[..., None],
        lines: Callable[..., np.ndarray],
    ) -> np.ndarray:
        """A result of the shape and dtype of the arrays, by ``rows(*blocks, out)`` where ``axis`` is the last, else by
        ``lines(*blocks)`` of ``[k, n, m]``, along its middle dimension."""
        shape, dtype = arrays[0].shape, arrays[0].dtype
        n, work = shape[axis], work_dtype(dtype)
        outer, inner = _product(shape[:axis]), _product(shape[axis + 1 :])
        arrays = tuple(np.ascontiguousarray(a).reshape(outer, n, inner) for a in arrays)
        result = self._pool.empty((outer, n, inner), dtype)
        if inner == 1:

            def row_block(i: int, first: int, last: int) -> None:
                loaded = [self._loaded(f"in{k}", a[first:last, :, 0], work) for k, a in enumerate(arrays)]
                target = result[first:last, :, 0]
                out = target if dtype == work else self._temporary("out", target.shape, work)
                rows(*loaded, out)
                if out is not target:
                    np.copyto(target, out, "unsafe")

            self._in_blocks(row_block, outer, n)
        else:
            # Whole lines of some columns: at least a cache line of them.
            columns = min(max(16, ROW_BLOCK // n), inner)
            pieces = -(-inner // columns)

            def line_block(i: int, first: int, last: int) -> None:
                for j in range(first, last):
                    o, c = divmod(j, pieces)
                    part = (slice(o, o + 1), slice(None), slice(c * columns, (c + 1) * columns))
                    result[part] = lines(*(a[part].astype(work, copy=False) for a in arrays))

            self._in_blocks(line_block, outer * pieces, n * columns)
        return result.reshape(shape)

    def _exponentials(self, x: np.ndarray, out: np.ndarray) -> np.ndarray:
        """exp(x - its row's maximum) into ``out``; the rows' sums."""
        np.subtract(x, row_maxima(x)[:, None], out=out)
        np.exp(out, out=out)
        return row_sums(out)

    def _softmax_rows(self, x: np.ndarray, out: np.ndarray) -> None:
        total = self._exponentials(x, out)
        np.multiply(out, np.reciprocal(total)[:, None], out=out)  # the sum is at least 1

    def _log_softmax_rows(self, x: np.ndarray, out: np.ndarray) -> None:
        np.subtract(x, row_maxima(x)[:, None], out=out)
        total = row_sums(np.exp(out, out=self._temporary("exp", out.shape, out.dtype)))
        np.subtract(out, np.log(total)[:, None], out=out)

    # -- layer norm --------------------------------------------------------------------------------

    def fused_layer_norm(
        self, x: np.ndarray, weight: np.ndarray | None, bias: np.ndarray | None, eps: float
    ) -> tuple[np.ndarray, np.ndarray]:
        return self._layer_norm(x, None, None, weight, bias, eps)

    def fused_add_layer_norm(
        self, x: np.ndarray, residual: np.ndarray, weight: np.ndarray | None, bias: np.ndarray | None, eps: float
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        total = self._pool.empty(x.shape, x.dtype)
        y, moments = self._layer_norm(x, residual, total, weight, bias, eps)
        return y, total, moments

    def _summed_block(
        self, x: np.ndarray, residual: np.ndarray | None, total: np.ndarray | None, first: int, last: int
    ) -> np.ndarray:
        """Some rows of ``x`` in the work dtype, or of ``x + residual``, which are written to ``total`` and read back
        as they were rounded."""
        work = work_dtype(x.dtype)
        part = self._loaded("x", x[first:last], work)
        if residual is None or total is None:
            return part
        other, own = self._loaded("residual", residual[first:last], work), total[first:last]
        if own.dtype == work:
            return np.add(part, other, out=own)
        np.copyto(own, np.add(part, other, out=part), "unsafe")
        return self._loaded("x", own, work)

    def _layer_norm(
        self,
        x: np.ndarray,
        residual: np.ndarray | None,
        total: np.ndarray | None,
        weight: np.ndarray | None,
        bias: np.ndarray | None,
        eps: float,
    ) -> tuple[np.ndarray, np.ndarray]:
        """The norm of the rows of ``x``, or of ``x + residual`` as written to ``total``."""
        rows, n = x.shape
        work = work_dtype(x.dtype)
        y, moments = self._pool.empty(x.shape, x.dtype), np.empty((2, rows), work)
        weight, bias = in_work_dtype(weight, work), in_work_dtype(bias, work)

        def block(i: int, first: int, last: int) -> None:
            part = self._summed_block(x, residual, total, first, last)
            out = y[first:last] if x.dtype == work else self._temporary("out", part.shape, work)
            mean = row_sums(part)
            mean /= n
            np.subtract(part, mean[:, None], out=out)
            var = row_dots(out, out)
            var /= n
            moments[0, first:last], moments[1, first:last] = mean, var
            np.multiply(out, reciprocal_root(var, eps)[:, None], out=out)
            _affine(out, weight, bias)
            if x.dtype != work:
                np.copyto(y[first:last], out, "unsafe")

        self._in_blocks(block, rows, n)
        return y, moments

    def fused_layer_norm_backward(
        self,
        gradient: np.ndarray,
        x: np.ndarray,
        weight: np.ndarray | None,
        moments: np.ndarray,
        eps: float,
        needed: Sequence[bool],
    ) -> tuple[np.ndarray | None, ...]:
        return self._layer_norm_backward(gradient, None, x, weight, moments, eps, needed)

    def fused_add_layer_norm_backward(
        self,
        gradient: np.ndarray,
        beside: np.ndarray | None,
        x: np.ndarray,
        weight: np.ndarray | None,
        moments: np.ndarray,
        eps: float,
        needed: Sequence[bool],
    ) -> tuple[np.ndarray | None, ...]:
        return self._layer_norm_backward(gradient, beside, x, weight, moments, eps, needed)

    def _layer_norm_backward(
        self,
        gradient: np.ndarray,
        beside: np.ndarray | None,
        x: np.ndarray,
        weight: np.ndarray | None,
        moments: np.ndarray,
        eps: float,
        needed: Sequence[bool],
    ) -> tuple[np.ndarray | None, ...]:
        rows, n = x.shape
        work = work_dtype(x.dtype)
        count = _cut(rows, n)[1]
        dx = self._pool.empty(x.shape, x.dtype) if needed[0] else None
        dweight, dbias = (np.empty((count, n), work) if wanted else None for wanted in needed[1:])
        scale = self._calm(reciprocal_root, moments[1], eps)
        weight = in_work_dtype(weight, work)

        def block(i: int, first: int, last: int) -> None:
            g, part = self._loaded("g", gradient[first:last], work), self._loaded("x", x[first:last], work)
            if dbias is not None:
                np.add.reduce(g, axis=0, out=dbias[i])
            if dweight is None and dx is None:
                return
            normal = self._temporary("normal", part.shape, work)
            np.subtract(part, moments[0, first:last, None], out=normal)
            np.multiply(normal, scale[first:last, None], out=normal)
            if dweight is not None:
                np.einsum("ij,ij->j", g, normal, out=dweight[i])
            if dx is None:
                return
            out = dx[first:last] if x.dtype == work else self._temporary("out", part.shape, work)
            t = g if weight is None else np.multiply(g, weight, out=out)
            mean, slope = row_sums(t), row_dots(t, normal)
            mean /= n
            slope /= n
            np.multiply(normal, slope[:, None], out=normal)
            np.add(normal, mean[:, None], out=normal)
            np.subtract(t, normal, out=out)
            np.multiply(out, scale[first:last, None], out=out)
            if beside is not None:
                np.add(out, self._loaded("beside", beside[first:last], work), out=out)
            if x.dtype != work:
                np.copyto(dx[first:last], out, "unsafe")

        self._in_blocks(block, rows, n)
        return dx, *(self._calm(_summed, a, x.dtype) for a in (dweight, dbias))

    # -- RMS norm ----------------------------------------------------------------------------------

    def fused_rms_norm(self, x: np.ndarray, weight: np.ndarray | None, eps: float) -> tuple[np.ndarray, np.ndarray]:
        return self._rms_norm(x, None, None, weight, eps)

    def fused_add_rms_norm(
        self, x: np.ndarray, residual: np.ndarray, weight: np.ndarray | None, eps: float
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        total = self._pool.empty(x.shape, x.dtype)
        y, squares = self._rms_norm(x, residual, total, weight, eps)
        return y, total, squares

    def _rms_norm(
        self,
        x: np.ndarray,
        residual: np.ndarray | None,
        total: np.ndarray | None,
        weight: np.ndarray | None,
        eps: float,
    ) -> tuple[np.ndarray, np.ndarray]:
        """As :meth:`_layer_norm`."""
        rows, n = x.shape
        work = work_dtype(x.dtype)
        y, squares = self._pool.empty(x.shape, x.dtype), np.empty(rows, work)
        weight = in_work_dtype(weight, work)

        def block(i: int, first: int, last: int) -> None:
            part = self._summed_block(x, residual, total, first, last)
            out = y[first:last] if x.dtype == work else self._temporary("out", part.shape, work)
            mean = row_dots(part, part)
            mean /= n
            squares[first:last] = mean
            np.multiply(part, reciprocal_root(mean, eps)[:, None], out=out)
            _affine(out, weight, None)
            if x.dtype != work:
                np.copyto(y[first:last], out, "unsafe")

        self._in_blocks(block, rows, n)
        return y, squares

    def fused_rms_norm_backward(
        self,
        gradient: np.ndarray,
        x: np.ndarray,
        weight: np.ndarray | None,
        squares: np.ndarray,
        eps: float,
        needed: Sequence[bool],
    ) -> tuple[np.ndarray | None, ...]:
        return self._rms_norm_backward(gradient, None, x, weight, squares, eps, needed)

    def fused_add_rms_norm_backward(
        self,
        gradient: np.ndarray,
        beside: np.ndarray | None,
        x: np.ndarray,
        weight: np.ndarray | None,
        squares: np.ndarray,
        eps: float,
        needed: Sequence[bool],
    ) -> tuple[np.ndarray | None, ...]:
        return self._rms_norm_backward(gradient, beside, x, weight, squares, eps, needed)

    def _rms_norm_backward(
        self,
        gradient: np.ndarray,
        beside: np.ndarray | None,
        x: np.ndarray,
        weight: np.ndarray | None,
        squares: np.ndarray,
        eps: float,
        needed: Sequence[bool],
    ) -> tuple[np.ndarray | None, ...]:
        rows, n = x.shape
        work = work_dtype(x.dtype)
        count = _cut(rows, n)[1]
        dx = self._pool.empty(x.shape, x.dtype) if needed[0] else None
        dweight = np.empty((count, n), work) if needed[1] else None
        scale = self._calm(reciprocal_root, squares, eps)
        weight = in_work_dtype(weight, work)

        def block(i: int, first: int, last: int) -> None:
            g, part = self._loaded("g", gradient[first:last], work), self._loaded("x", x[first:last], work)
            normal = np.multiply(part, scale[first:last, None], out=self._temporary("normal", part.shape, work))
            if dweight is not None:
                np.einsum("ij,ij->j", g, normal, out=dweight[i])
            if dx is None:
                return
            out = dx[first:last] if x.dtype == work else self._temporary("out", part.shape, work)
            t = g if weight is None else np.multiply(g, weight, out=out)
            slope = row_dots(t, normal)
            slope /= n
            np.multiply(normal, slope[:, None], out=normal)
            np.subtract(t, normal, out=out)
            np.multiply(out, scale[first:last, None], out=out)
            if beside is not None:
                np.add(out, self._loaded("beside", beside[first:last], work), out=out)
            if x.dtype != work:
                np.copyto(dx[first:last], out, "unsafe")

        self._in_blocks(block, rows, n)
        return dx, self._calm(_summed, dweight, x.dtype)

    # -- cross-entropy ---------------------------------------------------------------------------------

    def fused_cross_entropy(
        self, x: np.ndarray, target: np.ndarray, weight: np.ndarray | None, ignore: int, op: str
    ) -> tuple[np.ndarray, np.ndarray]:
        rows, n = x.shape
        work = work_dtype(x.dtype)
        used = target != ignore
        index = np.where(used, target, 0)
        check_index(index, n, op)
        loss, stats = np.empty(rows, work), np.empty((3, rows), work)
        top, total, share = stats

        def block(i: int, first: int, last: int) -> None:
            part = self._loaded("x", x[first:last], work)
            top[first:last] = row_maxima(part)
            shifted = self._temporary("out", part.shape, work)
            np.subtract(part, top[first:last, None], out=shifted)
            loss[first:last] = shifted[np.arange(last - first), index[first:last]]
            np.exp(shifted, out=shifted)
            total[first:last] = row_sums(shifted)

        def finish() -> None:
            np.subtract(np.log(total), loss, out=loss)
            share[...] = used if weight is None else np.where(used, in_work_dtype(weight, work)[index], 0)
            if weight is not None:
                np.multiply(loss, share, out=loss)
            np.copyto(loss, 0, where=~used)

        self._in_blocks(block, rows, n)
        self._calm(finish)
        return loss, stats

    def fused_cross_entropy_backward(
        self, gradient: np.ndarray, x: np.ndarray, target: np.ndarray, stats: np.ndarray
    ) -> np.ndarray:
        rows, n = x.shape
        work = work_dtype(x.dtype)
        dx = self._pool.empty(x.shape, x.dtype)
        top, total, share = stats
        used = share != 0

        def block(i: int, first: int, last: int) -> None:
            part = self._loaded("x", x[first:last], work)
            out = dx[first:last] if x.dtype == work else self._temporary("out", part.shape, work)
            own = used[first:last]
            factor = np.where(own, gradient[first:last] * share[first:last], 0)
            np.subtract(part, top[first:last, None], out=out)
            np.exp(out, out=out)
            np.multiply(out, (factor / total[first:last])[:, None], out=out)
            out[np.arange(last - first), np.where(own, target[first:last], 0)] -= factor
            if not own.all():
                out[~own] = 0  # whatever x was there
            if x.dtype != work:
                np.copyto(dx[first:last], out, "unsafe")

        self._in_blocks(block, rows, n)
        return dx

    def _calm(self, function: Callable[..., Any], *args: Any) -> Any:
        """``function(*args)`` with floating-point warnings off, for what is outside blocks."""
        results = []
        self._share(lambda _: results.append(function(*args)), 1)
        return results[0]


# -- along another dimension than the last: [k, n, m], along n ------------------------------------------


def _softmax(x: np.ndarray) -> np.ndarray:
    p = np.exp(x - x.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    return p


def _log_softmax(x: np.ndarray) -> np.ndarray:
    z = x - x.max(axis=1, keepdims=True)
    z -= np.log(np.exp(z).sum(axis=1, keepdims=True))
    return z


def _softmax_backward(g: np.ndarray, y: np.ndarray) -> np.ndarray:
    dx = g - (g * y).sum(axis=1, keepdims=True)
    dx *= y
    return dx


def _log_softmax_backward(g: np.ndarray, y: np.ndarray) -> np.ndarray:
    dx = np.exp(y)
    dx *= g.sum(axis=1, keepdims=True)
    return np.subtract(g, dx, out=dx)


def _softmax_backward_rows(g: np.ndarray, y: np.ndarray, out: np.ndarray) -> None:
    np.subtract(g, row_dots(g, y)[:, None], out=out)
    np.multiply(out, y, out=out)


def _log_softmax_backward_rows(g: np.ndarray, y: np.ndarray, out: np.ndarray) -> None:
    np.exp(y, out=out)
    np.multiply(out, row_sums(g)[:, None], out=out)
    np.subtract(g, out, out=out)


# -- helpers -----------------------------------------------------------------------------------------------


def _product(sizes: Sequence[int]) -> int:
    n = 1
    for s in sizes:
        n *= s
    return n


def in_work_dtype(vector: np.ndarray | None, work: np.dtype) -> Any:
    return vector if vector is None else vector.astype(work, copy=False)


def _affine(out: np.ndarray, weight: np.ndarray | None, bias: np.ndarray | None) -> None:
    if weight is not None:
        np.multiply(out, weight, out=out)
    if bias is not None:
        np.add(out, bias, out=out)


def reciprocal_root(var: np.ndarray, eps: float) -> np.ndarray:
    return np.reciprocal(np.sqrt(var + var.dtype.type(eps)))


def _summed(partial: np.ndarray | None, dtype: np.dtype) -> np.ndarray | None:
    """The blocks' sums added up in order, in ``dtype``."""
    return None if partial is None else partial.sum(axis=0).astype(dtype, copy=False)
