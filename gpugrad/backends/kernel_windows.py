"""The kernel backends' folding and pooling. See ``kernels.py``."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import ml_dtypes
import numpy as np

from gpugrad import layout
from gpugrad.backends.base import StridedArray
from gpugrad.backends.kernel_core import Plan, elements
from gpugrad.backends.kernel_order import OrderedOps
from gpugrad.backends.kernel_source import SHORT, symbol, type_defines

_INT64 = np.dtype(np.int64)
_F32 = np.dtype(np.float32)
_HALVES = (np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16))


def three(values: Sequence[int], fill: int) -> list[int]:
    """``values`` of the spatial dimensions, as the three of a kernel argument."""
    return [*([fill] * (3 - len(values))), *values]


def check_spatial(op: str, dimensions: int) -> None:
    """Raise RuntimeError for more spatial dimensions than the kernels know."""
    if dimensions > 3:
        raise RuntimeError(f"{op}: {dimensions} spatial dimensions; at most 3 are possible on this device")


class WindowOps(OrderedOps):
    """What looks through windows, without products."""

    def fold(
        self, windows: StridedArray, size: Sequence[int], stride: Sequence[int], dilation: Sequence[int]
    ) -> StridedArray:
        s = len(size)
        n, c = windows.shape[:2]
        result = self.empty((n, c, *size), windows.dtype)
        if windows.size == 0:
            self.fill(result, 0)
            return result
        plan = self._window("fold", windows, c, size, windows.shape[2 : 2 + s], windows.shape[2 + s :],
                            stride, dilation)  # fmt: skip
        if plan.groups:
            self._launch(plan.kernel, plan.groups, windows.buffer, result.buffer, plan.params)
        return result

    def max_pool(
        self, array: StridedArray, kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int]
    ) -> tuple[StridedArray, StridedArray]:
        n, c, *size = array.shape
        counts = layout.window_counts(size, kernel, stride, dilation)
        values, index = self.empty((n, c, *counts), array.dtype), self.empty((n, c, *counts), _INT64)
        plan = self._window("max_pool", array, c, size, counts, kernel, stride, dilation)
        if plan.groups:
            self._launch(plan.kernel, plan.groups, array.buffer, values.buffer, index.buffer, plan.params)
        return values, index

    def max_pool_grad(
        self,
        gradient: StridedArray,
        index: StridedArray,
        size: Sequence[int],
        kernel: Sequence[int],
        stride: Sequence[int],
        dilation: Sequence[int],
    ) -> StridedArray:
        if gradient.dtype in _HALVES and self.cpu_shapes:  # added up where it is stored
            wide = self.max_pool_grad(self.copy(gradient, _F32), index, size, kernel, stride, dilation)
            return self.copy(wide, gradient.dtype)
        gradient, index = self._dense(gradient), self._dense(index)
        if index.offset:
            index = self.copy(index)
        n, c, *counts = gradient.shape
        result = self.empty((n, c, *size), gradient.dtype)
        plan = self._window("max_pool_grad", gradient, c, size, counts, kernel, stride, dilation)
        if plan.groups:
            self._launch(plan.kernel, plan.groups, gradient.buffer, index.buffer, result.buffer, plan.params)
        return result

    def _window(
        self,
        op: str,
        array: StridedArray,
        channels: int,
        size: Sequence[int],
        counts: Sequence[int],
        kernel: Sequence[int],
        stride: Sequence[int],
        dilation: Sequence[int],
    ) -> Plan:
        """The launch of one of the window kernels, which reads ``array``."""
        key = (op, array.dtype.num, array.shape, array.strides, array.offset, tuple(size), tuple(counts),
               tuple(kernel), tuple(stride), tuple(dilation))  # fmt: skip
        plan: Plan | None = self._plans.get(key)
        if plan is None:
            plan = self._remember(key, self._window_plan(op, array, channels, size, counts, kernel, stride, dilation))
        return plan

    def _window_plan(
        self,
        op: str,
        array: StridedArray,
        channels: int,
        size: Sequence[int],
        counts: Sequence[int],
        kernel: Sequence[int],
        stride: Sequence[int],
        dilation: Sequence[int],
    ) -> Plan:
        s = len(size)
        check_spatial(op, s)
        rows = counts if op == "max_pool" else size  # an item writes a piece of one of these
        pieces = -(-rows[-1] // self.shape["PIECE"])
        items = array.shape[0] * channels * pieces
        for n in rows[:-1]:
            items *= n
        local = self.shape["LOCAL_SIZE"]
        if op == "max_pool_grad" and self.cpu_shapes:
            items, local = array.shape[0] * channels * min(items, 1), 4
        if not items:
            return Plan(None, 0, b"")
        steps = elements(array.strides, array.itemsize)
        _, reach = layout.byte_range(array.shape, array.strides, array.itemsize)
        limit = (array.offset + reach) // array.itemsize
        index, code = self._index_type([(array.shape, array.strides, array.offset, array.itemsize),
                                        ((items, *size), (pieces, *([1] * s)), 0, 1)])  # fmt: skip
        reading, across = {  # the steps of windows and taps in what is read
            "fold": (steps[2 : 2 + s], steps[2 + s :]),
            "max_pool": (steps[2:], [0] * s),
            "max_pool_grad": ([0] * s, [0] * s),
        }[op]
        values = [items, pieces, channels, *three(size, 1), *three(counts, 1), *three(kernel, 1), *three(stride, 1),
                  *three(dilation, 1), array.offset // array.itemsize, steps[0], steps[1],
                  *three(reading, 0), *three(across, 0), limit]  # fmt: skip
        short = SHORT[array.dtype]
        name = symbol("window", short)
        defines: dict[str, Any] = {"NAME": name, "X": short, "IDX": index, **type_defines(short)}
        names = [f"{name}_fold", f"{name}_max_pool", f"{name}_max_pool_grad"]
        plan = Plan(None, self._groups(items, local), struct.pack(f"={len(values)}{code}", *values))
        plan.kernel = self.kernel("window", defines, f"{name}_{op}", names, local)
        return plan
