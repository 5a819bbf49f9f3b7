"""Batch norm of the CPU backend: blocks of samples and channels, on all threads.

What the routines take and return is in ROUTINES of ``gpugrad/ops/fused.py``.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gpugrad.backends.cpu_blocks import row_dots, row_sums
from gpugrad.backends.cpu_rows import ROW_BLOCK, RowOps, in_work_dtype, reciprocal_root, work_dtype


class ChannelOps(RowOps):
    """The fused routines of the CPU backend."""

    def fused_batch_norm(
        self, x: np.ndarray, weight: np.ndarray | None, bias: np.ndarray | None, eps: float
    ) -> tuple[np.ndarray, np.ndarray]:
        n, c, m = x.shape
        work = work_dtype(x.dtype)
        y, moments = self._pool.empty(x.shape, x.dtype), np.empty((2, c), work)
        cuts = _channel_blocks(n, c, m)
        partial = np.zeros((len(cuts), c), work)
        mean, var = moments

        def sums(i: int, first: int, last: int) -> None:
            for k in range(first, last):
                samples, channels = cuts[k]
                _channel_sums(self._loaded("x", x[samples, channels], work), partial[k, channels])

        self._in_blocks(sums, len(cuts), ROW_BLOCK)
        mean[...] = self._calm(_averaged, partial, n * m)

        def squares(i: int, first: int, last: int) -> None:
            for k in range(first, last):
                samples, channels = cuts[k]
                part = self._loaded("x", x[samples, channels], work)
                centred = np.subtract(part, mean[channels, None], out=self._temporary("out", part.shape, work))
                _channel_dots(centred, centred, partial[k, channels])

        self._in_blocks(squares, len(cuts), ROW_BLOCK)
        var[...] = self._calm(_averaged, partial, n * m)
        scale = self._calm(_factor, var, eps, in_work_dtype(weight, work))
        offset = None if bias is None else in_work_dtype(bias, work)

        def apply(i: int, first: int, last: int) -> None:
            for k in range(first, last):
                samples, channels = cuts[k]
                part = self._loaded("x", x[samples, channels], work)
                target = y[samples, channels]
                out = target if x.dtype == work else self._temporary("out", part.shape, work)
                np.subtract(part, mean[channels, None], out=out)
                np.multiply(out, scale[channels, None], out=out)
                if offset is not None:
                    np.add(out, offset[channels, None], out=out)
                if out is not target:
                    np.copyto(target, out, "unsafe")

        self._in_blocks(apply, len(cuts), ROW_BLOCK)
        return y, moments

    def fused_batch_norm_backward(
        self,
        gradient: np.ndarray,
        x: np.ndarray,
        weight: np.ndarray | None,
        moments: np.ndarray,
        eps: float,
        needed: Sequence[bool],
    ) -> tuple[np.ndarray | None, np.ndarray | None, np.ndarray | None]:
        n, c, m = x.shape
        work = work_dtype(x.dtype)
        cuts = _channel_blocks(n, c, m)
        partial = np.zeros((2, len(cuts), c), work)
        mean, scale = moments[0], self._calm(reciprocal_root, moments[1], eps)

        def sums(i: int, first: int, last: int) -> None:
            for k in range(first, last):
                samples, channels = cuts[k]
                g = self._loaded("g", gradient[samples, channels], work)
                part = self._loaded("x", x[samples, channels], work)
                centred = np.subtract(part, mean[channels, None], out=self._temporary("out", part.shape, work))
                _channel_dots(g, centred, partial[0, k, channels])
                _channel_sums(g, partial[1, k, channels])

        self._in_blocks(sums, len(cuts), ROW_BLOCK)
        # dx = (g - dbias / count - normal * dweight / count) * factor, with normal = (x - mean) * scale
        dweight, dbias, slope, level = self._calm(_channel_gradients, partial, scale, n * m)
        factor = self._calm(_factor, moments[1], eps, in_work_dtype(weight, work))
        dx = None
        if needed[0]:
            dx = self._pool.empty(x.shape, x.dtype)
            result = dx

            def apply(i: int, first: int, last: int) -> None:
                for k in range(first, last):
                    samples, channels = cuts[k]
                    part = self._loaded("x", x[samples, channels], work)
                    g = self._loaded("g", gradient[samples, channels], work)
                    target = result[samples, channels]
                    out = target if x.dtype == work else self._temporary("out", part.shape, work)
                    np.subtract(part, mean[channels, None], out=out)
                    np.multiply(out, slope[channels, None], out=out)
                    np.add(out, level[channels, None], out=out)
                    np.subtract(g, out, out=out)
                    np.multiply(out, factor[channels, None], out=out)
                    if out is not target:
                        np.copyto(target, out, "unsafe")

            self._in_blocks(apply, len(cuts), ROW_BLOCK)
        for_weight = self._calm(dweight.astype, x.dtype) if needed[1] else None
        return dx, for_weight, self._calm(dbias.astype, x.dtype) if needed[2] else None


# -- helpers -------------------------------------------------------------------


def _factor(var: np.ndarray, eps: float, weight: np.ndarray | None) -> np.ndarray:
    scale = reciprocal_root(var, eps)
    return scale if weight is None else scale * weight


def _averaged(partial: np.ndarray, count: int) -> np.ndarray:
    return partial.sum(axis=0) / count


def _channel_gradients(partial: np.ndarray, scale: np.ndarray, count: int) -> tuple[np.ndarray, ...]:
    """Gradients of weight and bias from the blocks' sums, and what of x and 1 is taken from each gradient of x."""
    dweight, dbias = partial.sum(axis=1)
    dweight *= scale
    return dweight, dbias, dweight * scale / count, dbias / count


def _channel_blocks(n: int, c: int, m: int) -> list[tuple[slice, slice]]:
    """Blocks of ``[n, c, m]``: several whole samples, or some channels of one."""
    if c * m >= ROW_BLOCK:
        width = max(1, ROW_BLOCK // m)
        return [(slice(i, i + 1), slice(j, min(j + width, c))) for i in range(n) for j in range(0, c, width)]
    step = ROW_BLOCK // (c * m)
    return [(slice(i, min(i + step, n)), slice(0, c)) for i in range(0, n, step)]


def _channel_sums(x: np.ndarray, out: np.ndarray) -> None:
    """The sums of ``[k, c, m]`` over its first and last dimension."""
    k, c, m = x.shape
    if m == 1:
        np.add.reduce(x[:, :, 0], axis=0, out=out)
    else:
        np.add.reduce(row_sums(np.ascontiguousarray(x).reshape(k * c, m)).reshape(k, c), axis=0, out=out)


def _channel_dots(a: np.ndarray, b: np.ndarray, out: np.ndarray) -> None:
    """The sums of the products of two ``[k, c, m]`` over the first and last dimension."""
    k, c, m = a.shape
    if m == 1:
        np.einsum("ij,ij->j", a[:, :, 0], b[:, :, 0], out=out)
    else:
        rows = (np.ascontiguousarray(x).reshape(k * c, m) for x in (a, b))
        np.add.reduce(row_dots(*rows).reshape(k, c), axis=0, out=out)
