"""Convolution and pooling of the CPU backend: NumPy over parts of the batch, on all threads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product

import numpy as np

from gpugrad import layout
from gpugrad.backends.base import Backend
from gpugrad.backends.cpu_blocks import row_blocks
from gpugrad.backends.threads import Workers
from gpugrad.dtypes import HALVES

_F32 = np.dtype(np.float32)
_I64 = np.dtype(np.int64)


class WindowOps(Backend):
    """The half of the CPU backend that looks through windows."""

    _workers: Workers

    def _share(self, function: Callable[[int], None], count: int) -> None:
        """``function(i)`` for each i below ``count``, on all threads, without floating-point warnings."""
        raise NotImplementedError

    def fold(
        self, windows: np.ndarray, size: Sequence[int], stride: Sequence[int], dilation: Sequence[int]
    ) -> np.ndarray:
        s = len(size)
        kernel = windows.shape[2 + s :]
        work = _F32 if windows.dtype in HALVES else windows.dtype
        out = np.zeros((*windows.shape[:2], *size), work)
        for offset in product(*(range(k) for k in kernel)):
            part = out[_window_slices(windows.shape[2 : 2 + s], offset, stride, dilation)]
            part += windows[(slice(None),) * (2 + s) + offset]
        return out.astype(windows.dtype, copy=False)

    def convolve(
        self, x: np.ndarray, weight: np.ndarray, stride: Sequence[int], dilation: Sequence[int], groups: int
    ) -> np.ndarray:
        out = layout.window_counts(x.shape[2:], weight.shape[2:], stride, dilation)
        result = self.empty((x.shape[0], weight.shape[0], *out), x.dtype)
        whole = super().convolve

        def compute(part: slice) -> None:
            result[part] = whole(x[part], weight, stride, dilation, groups)

        self._workers.each(compute, _chunks(x, weight.shape[2:], out))
        return result

    def convolve_input_grad(
        self,
        gradient: np.ndarray,
        weight: np.ndarray,
        size: Sequence[int],
        stride: Sequence[int],
        dilation: Sequence[int],
        groups: int,
    ) -> np.ndarray:
        result = self.empty((gradient.shape[0], weight.shape[1] * groups, *size), gradient.dtype)
        whole = super().convolve_input_grad

        def compute(part: slice) -> None:
            result[part] = whole(gradient[part], weight, size, stride, dilation, groups)

        self._workers.each(compute, _chunks(result, weight.shape[2:], gradient.shape[2:]))
        return result

    def convolve_weight_grad(
        self,
        gradient: np.ndarray,
        x: np.ndarray,
        kernel: Sequence[int],
        stride: Sequence[int],
        dilation: Sequence[int],
        groups: int,
    ) -> np.ndarray:
        work = _F32 if x.dtype in HALVES else x.dtype
        total = np.zeros((gradient.shape[1], x.shape[1] // groups, *kernel), work)
        whole = super().convolve_weight_grad

        def compute(part: slice) -> np.ndarray:
            return whole(gradient[part], x[part], kernel, stride, dilation, groups)

        for share in self._workers.each(compute, _chunks(x, kernel, gradient.shape[2:])):
            total += share  # in the order of the batch, whichever thread was first
        return total.astype(x.dtype, copy=False)

    def max_pool(
        self, array: np.ndarray, kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int]
    ) -> tuple[np.ndarray, np.ndarray]:
        out = layout.window_counts(array.shape[2:], kernel, stride, dilation)
        shape = (*array.shape[:2], *out)
        best, index = self.empty(shape, array.dtype), self.empty(shape, _I64)
        step, count = row_blocks(array.shape) if array.size else (0, 0)

        def images(i: int) -> None:
            part = slice(i * step, (i + 1) * step)
            best[part], index[part] = self._max_pool_part(array[part], out, kernel, stride, dilation)

        self._share(images, count)
        return best, index

    def _max_pool_part(
        self,
        array: np.ndarray,
        out: Sequence[int],
        kernel: Sequence[int],
        stride: Sequence[int],
        dilation: Sequence[int],
    ) -> tuple[np.ndarray, np.ndarray]:
        size = array.shape[2:]
        offsets = list(product(*(range(k) for k in kernel)))
        parts = [array[_window_slices(out, o, stride, dilation)] for o in offsets]
        best = np.array(parts[0], order="C")
        for part in parts[1:]:
            np.maximum(best, part, out=best)  # NaN wins
        nan = best.dtype.kind not in "biu" and bool(np.isnan(best).any())
        which = np.zeros(best.shape, np.uint8 if len(offsets) < 256 else np.int64)
        for k in range(len(offsets) - 1, -1, -1):  # downwards, so that the first of equals stays
            hit = parts[k] == best
            if nan:
                hit |= np.isnan(parts[k])
            np.copyto(which, k, where=hit, casting="unsafe")
        inside = np.array([_positions(size, (1,) * len(size), o, stride, dilation).item() for o in offsets], np.int64)
        origin = _positions(size, out, (0,) * len(size), stride, dilation)
        return best, inside[which] + origin

    def max_pool_grad(
        self,
        gradient: np.ndarray,
        index: np.ndarray,
        size: Sequence[int],
        kernel: Sequence[int],
        stride: Sequence[int],
        dilation: Sequence[int],
    ) -> np.ndarray:
        planes = gradient.shape[0] * gradient.shape[1]
        area = int(np.prod(size, dtype=np.int64))
        work = _F32 if gradient.dtype in HALVES else gradient.dtype
        total = self.empty((planes, area), work)
        where, source = index.reshape(planes, -1), gradient.reshape(planes, -1)
        apart = all(t > d * (k - 1) for k, t, d in zip(kernel, stride, dilation, strict=True))
        step, count = row_blocks((planes, area)) if planes * area else (0, 0)

        def some(i: int) -> None:
            part = slice(i * step, (i + 1) * step)
            target = total[part].reshape(-1)
            target.fill(0)
            first = (np.arange(len(total[part]), dtype=np.int64) * area)[:, None]
            at, values = (where[part] + first).reshape(-1), source[part].reshape(-1)
            if apart:
                target[at] = values
            else:
                np.add.at(target, at, values.astype(work, copy=False))

        self._share(some, count)
        return total.reshape(*gradient.shape[:2], *size).astype(gradient.dtype, copy=False)


_COLUMNS = 1 << 20  # bytes of im2col columns at a time: they should stay in a core's cache


def _chunks(x: np.ndarray, kernel: Sequence[int], out: Sequence[int]) -> list[slice]:
    """Slices of the batch whose columns take about ``_COLUMNS`` bytes."""
    per_sample = x.shape[1] * int(np.prod(kernel, dtype=np.int64) * np.prod(out, dtype=np.int64)) * x.itemsize
    step = max(1, _COLUMNS // max(per_sample, 1))
    return [slice(i, i + step) for i in range(0, x.shape[0], step)]


def _window_slices(
    out: Sequence[int], offset: Sequence[int], stride: Sequence[int], dilation: Sequence[int]
) -> tuple[slice, ...]:
    """Where the windows' element ``offset`` lies in ``[n, c, *size]``."""
    return (slice(None), slice(None)) + tuple(
        slice(o * d, o * d + (n - 1) * t + 1, t) for n, o, t, d in zip(out, offset, stride, dilation, strict=True)
    )


def _positions(
    size: Sequence[int], out: Sequence[int], offset: Sequence[int], stride: Sequence[int], dilation: Sequence[int]
) -> np.ndarray:
    """Flat position in ``size`` of each window's element ``offset``: shape ``out``."""
    place = np.zeros((1,) * len(out), np.int64)
    for i, (m, n, o, t, d) in enumerate(zip(size, out, offset, stride, dilation, strict=True)):
        along = np.arange(n, dtype=np.int64) * t + o * d
        place = place * m + along.reshape((n,) + (1,) * (len(out) - i - 1))
    return place
