"""Convolution and pooling of the CPU backend: NumPy over parts of the batch, on all threads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product

import numpy as np

from gpugrad import layout
from gpugrad.backends import cpu_convolution
from gpugrad.backends.base import Backend
from gpugrad.backends.cpu_blocks import row_blocks
from gpugrad.backends.cpu_convolution import Geometry, Multiply
from gpugrad.dtypes import HALVES

_F32 = np.dtype(np.float32)
_I64 = np.dtype(np.int64)
_PLAIN = (np.dtype(np.float32), np.dtype(np.float64))


class WindowOps(Backend):
    """The half of the CPU backend that looks through windows."""

    _multiply: Multiply

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
        self,
        x: np.ndarray,
        weight: np.ndarray,
        stride: Sequence[int],
        dilation: Sequence[int],
        groups: int,
        dtype: np.dtype | None = None,
    ) -> np.ndarray:
        out = layout.window_counts(x.shape[2:], weight.shape[2:], stride, dilation)
        if not x.size or not weight.size or 0 in out:
            return super().convolve(x, weight, stride, dilation, groups, dtype)
        dtype = dtype or x.dtype
        x, weight = _dense(x), _dense(weight)
        result = self.empty((x.shape[0], weight.shape[0], *out), x.dtype)
        for inputs, outputs in _groups(x.shape[1], weight.shape[0], groups):
            part = _dense(x[:, inputs])
            target = result[:, outputs] if groups == 1 or groups == x.shape[1] else self.empty(
                (x.shape[0], weight.shape[0] // groups, *out), x.dtype)  # fmt: skip
            geometry = Geometry(part.shape[1], x.shape[2:], weight.shape[2:], stride, dilation)
            if groups > 1 and groups == x.shape[1] == weight.shape[0]:
                cpu_convolution.depthwise(part, weight[:, 0], geometry, target, self._share)
            else:
                cpu_convolution.forward(part, weight[outputs], geometry, target, self._multiply)
                if groups > 1:
                    result[:, outputs] = target
        return result.astype(dtype, copy=False)

    def convolve_input_grad(
        self,
        gradient: np.ndarray,
        weight: np.ndarray,
        size: Sequence[int],
        stride: Sequence[int],
        dilation: Sequence[int],
        groups: int,
        dtype: np.dtype | None = None,
    ) -> np.ndarray:
        if not gradient.size or not weight.size or 0 in size:
            return super().convolve_input_grad(gradient, weight, size, stride, dilation, groups, dtype)
        dtype = dtype or gradient.dtype
        gradient, weight = _dense(gradient), _dense(weight)
        channels = weight.shape[1] * groups
        result = self.empty((gradient.shape[0], channels, *size), gradient.dtype)
        for inputs, outputs in _groups(channels, weight.shape[0], groups):
            whole = inputs.stop - inputs.start == channels
            target = result if whole else self.empty((gradient.shape[0], weight.shape[1], *size), gradient.dtype)
            geometry = Geometry(target.shape[1], size, weight.shape[2:], stride, dilation)
            if groups > 1 and whole:
                cpu_convolution.depthwise_input_grad(gradient, weight[:, 0], geometry, target, self._share)
            else:
                cpu_convolution.input_grad(gradient[:, outputs], weight[outputs], geometry, target, self._multiply)
                if not whole:
                    result[:, inputs] = target
        return result.astype(dtype, copy=False)

    def convolve_weight_grad(
        self,
        gradient: np.ndarray,
        x: np.ndarray,
        kernel: Sequence[int],
        stride: Sequence[int],
        dilation: Sequence[int],
        groups: int,
    ) -> np.ndarray:
        if not gradient.size or not x.size:
            return super().convolve_weight_grad(gradient, x, kernel, stride, dilation, groups)
        dtype = x.dtype
        gradient, x = _dense(gradient), _dense(x)
        outs, channels = gradient.shape[1], x.shape[1]
        result = np.empty((outs, channels // groups, *kernel), x.dtype)
        for inputs, outputs in _groups(channels, outs, groups):
            part = _dense(x[:, inputs])
            geometry = Geometry(part.shape[1], x.shape[2:], kernel, stride, dilation)
            if groups > 1 and groups == channels == outs:
                total = cpu_convolution.depthwise_weight_grad(gradient, part, geometry, self._share)
            else:
                total = cpu_convolution.weight_grad(gradient[:, outputs], part, geometry, self._multiply)
            result[outputs] = total.reshape(result[outputs].shape)
        return result.astype(dtype, copy=False)

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
        if tuple(kernel) == tuple(stride) == (2, 2) and tuple(dilation) == (1, 1) and array.dtype in _PLAIN:
            pairs = _max_of_pairs(array, out)
            if pairs is not None:
                return pairs
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
        places = int(np.prod(gradient.shape[2:], dtype=np.int64))
        where, source = index.reshape(planes, places), gradient.reshape(planes, places)
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


def _max_of_pairs(array: np.ndarray, out: Sequence[int]) -> tuple[np.ndarray, np.ndarray] | None:
    """Pooling by 2 x 2: the larger of two neighbours in a row, then of two rows; None where there is a NaN.

    On a tie the left one and the upper one stay: the first of equals. (64 x 64 planes of 24 x 24: a fifth of the time
    that comparing each of four places with the largest takes.)"""
    h, w = out
    rows = array[..., : 2 * h, : 2 * w]
    left, right = rows[..., 0::2], rows[..., 1::2]
    larger = np.maximum(left, right)
    to_right = right > left
    upper, lower = larger[..., 0::2, :], larger[..., 1::2, :]
    best = np.maximum(upper, lower)
    if np.isnan(best.sum()) and np.isnan(best).any():
        return None
    below = lower > upper
    step = np.where(below, to_right[..., 1::2, :], to_right[..., 0::2, :]).view(np.uint8)
    width = array.shape[-1]
    corner = np.arange(h, dtype=np.int64)[:, None] * (2 * width) + np.arange(w, dtype=np.int64) * 2
    index = below * np.int64(width)
    index += step
    index += corner
    return best, index


def _dense(x: np.ndarray) -> np.ndarray:
    """C-contiguous, half types as float32."""
    return np.ascontiguousarray(x, _F32 if x.dtype in HALVES else x.dtype)


def _groups(channels: int, outs: int, groups: int) -> list[tuple[slice, slice]]:
    """The input and output channels of each group; all at once where each channel is a group of its own."""
    if groups == channels == outs:
        return [(slice(0, channels), slice(0, outs))]
    c, o = channels // groups, outs // groups
    return [(slice(i * c, (i + 1) * c), slice(i * o, (i + 1) * o)) for i in range(groups)]


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
