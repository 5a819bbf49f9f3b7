"""The kernel backends' convolution: which way for which shape. See ``kernels.py``.

- Few channels in a group (depthwise): summed up in place, ``kernels/direct.c``.
- CPU-type devices: columns packed in the cache and multiplied there, ``kernels/convolve.c``, if there are enough of
  them to share out.
- Otherwise columns in memory and a matrix product, as in ``base.py``; a 1x1 kernel needs no columns.

The gradient of the input is, for the first two, the convolution of the padded gradient with the kernel turned round.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from gpugrad import layout
from gpugrad.backends.base import StridedArray
from gpugrad.backends.kernel_core import Plan, elements
from gpugrad.backends.kernel_source import SHORT, symbol, type_defines
from gpugrad.backends.kernel_windows import WindowOps, check_spatial, three

_F32 = np.dtype(np.float32)
_FEW = 4  # channels of a group, both in and out, that are convolved directly
_TILE_ROWS, _TILE_VECTORS = 6, 4
_CHUNK = {"forward": 512, "weight": 256}  # rows packed at a time: 128 and 64 KiB
_ITEMS = 32  # of a launch, where there is so much to share out
_BLOCK_ROWS = 48  # of an item at least, as it packs the columns for itself
_POSITIONS = 256  # to add up for the weight's gradient, below which the products win


class ConvolveOps(WindowOps):
    """Convolution and its two adjoints."""

    def convolve(
        self,
        x: StridedArray,
        weight: StridedArray,
        stride: Sequence[int],
        dilation: Sequence[int],
        groups: int,
        dtype: np.dtype | None = None,
    ) -> StridedArray:
        dtype = dtype or x.dtype
        counts = layout.window_counts(x.shape[2:], weight.shape[2:], stride, dilation)
        shape = (x.shape[0], weight.shape[0], *counts)
        way = self._way(x, weight.shape, shape, groups, stride)
        if way is None:
            return super().convolve(x, weight, stride, dilation, groups, dtype)
        if way == "empty":
            return self.full(shape, 0, dtype)
        if x.itemsize == 2 and self.cpu_shapes:
            wide = self.convolve(self.copy(x, _F32), self.copy(weight, _F32), stride, dilation, groups)
            return wide if wide.dtype == dtype else self.copy(wide, dtype)
        weight = self._dense(weight)
        key = ("convolve", x.dtype.num, dtype.num, x.shape, x.strides, x.offset, weight.shape, weight.offset,
               tuple(stride), tuple(dilation), groups)  # fmt: skip
        plan = self._plans.get(key)
        if plan is None:
            make = self._direct_plan if way == "direct" else self._columns_plan
            plan = make("forward", x, weight.offset, 0, weight.shape, shape, stride, dilation, groups, dtype)
            self._remember(key, plan.result(shape, dtype))
        result = self._result(plan)
        self._launch(plan.kernel, plan.groups, x.buffer, weight.buffer, result.buffer, plan.params)
        return result

    def convolve_input_grad(
        self,
        gradient: StridedArray,
        weight: StridedArray,
        size: Sequence[int],
        stride: Sequence[int],
        dilation: Sequence[int],
        groups: int,
        dtype: np.dtype | None = None,
    ) -> StridedArray:
        dtype = dtype or gradient.dtype
        o, inner, *kernel = weight.shape
        turned = (groups * inner, o // groups, *kernel)
        shape = (gradient.shape[0], groups * inner, *size)
        way = self._way(gradient, turned, shape, groups, (1,) * len(kernel))
        if way == "empty":
            return self.full(shape, 0, dtype)
        if way is None and _is_pointwise(kernel, stride):
            w = self._view(weight, (groups, o // groups, inner)).transpose((0, 2, 1))
            g = self._view(gradient, (shape[0], groups, o // groups, prod(size)))
            w = w.view((shape[0], *w.shape), (0, *w.strides), 0)
            return self._view(self.matmul(w, g, dtype), shape)
        # Between the elements of the gradient of a strided convolution lie zeros: too many for a product.
        if way is None or (way == "columns" and any(t != 1 for t in stride)):
            return super().convolve_input_grad(gradient, weight, size, stride, dilation, groups, dtype)
        w = self._view(weight, (groups, o // groups, inner, *kernel))
        s = len(kernel)
        w = w.transpose((0, 2, 1, *range(3, 3 + s)))[(slice(None),) * 3 + (slice(None, None, -1),) * s]
        w = self.copy(w)
        around = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
        padded = self._spread(gradient, [n + a for n, a in zip(size, around, strict=True)], around, stride)
        return self.convolve(padded, w.view(turned, layout.contiguous_strides(turned, w.itemsize), 0),
                             (1,) * s, dilation, groups, dtype)  # fmt: skip

    def _spread(
        self, array: StridedArray, size: Sequence[int], start: Sequence[int], step: Sequence[int]
    ) -> StridedArray:
        """``[n, c, *size]`` of zeros but for ``array``, from ``start`` on ``step`` apart."""
        if tuple(size) == array.shape[2:]:
            return array
        result = self.full((*array.shape[:2], *size), 0, array.dtype)
        cut = tuple(slice(a, a + (n - 1) * t + 1, t) for a, n, t in zip(start, array.shape[2:], step, strict=True))
        self.copy(array, out=result[(slice(None), slice(None), *cut)])
        return result

    def convolve_weight_grad(
        self,
        gradient: StridedArray,
        x: StridedArray,
        kernel: Sequence[int],
        stride: Sequence[int],
        dilation: Sequence[int],
        groups: int,
    ) -> StridedArray:
        n, o = gradient.shape[:2]
        inner = x.shape[1] // groups
        way = self._way(x, (o, inner, *kernel), gradient.shape, groups, None)
        if way == "empty":
            return self.full((o, inner, *kernel), 0, x.dtype)
        if way is None:
            return self._weight_grad_by_columns(gradient, x, kernel, stride, dilation, groups)
        if x.itemsize == 2 and self.cpu_shapes:
            wide = self.convolve_weight_grad(self.copy(gradient, _F32), self.copy(x, _F32), kernel, stride, dilation,
                                             groups)  # fmt: skip
            return self.copy(wide, x.dtype)
        gradient = self._dense(gradient)
        key = ("convolve_weight_grad", x.dtype.num, x.shape, x.strides, x.offset, gradient.shape, gradient.offset,
               tuple(kernel), tuple(stride), tuple(dilation), groups)  # fmt: skip
        plan = self._plans.get(key)
        if plan is None:
            make = self._direct_plan if way == "direct" else self._columns_plan
            plan = self._remember(key, make("weight", x, gradient.offset, gradient.size, (o, inner, *kernel),
                                            gradient.shape, stride, dilation, groups, x.dtype))  # fmt: skip
        parts = self._result(plan)
        self._launch(plan.kernel, plan.groups, gradient.buffer, x.buffer, parts.buffer, plan.params)
        total = self.reduce("sum", parts, (0,), x.dtype)
        if way == "columns":  # [groups, inner * taps, outputs in whole vectors]
            total = total[:, :, : o // groups].transpose((0, 2, 1))
        return self._view(total, (o, inner, *kernel))

    def _weight_grad_by_columns(
        self,
        gradient: StridedArray,
        x: StridedArray,
        kernel: Sequence[int],
        stride: Sequence[int],
        dilation: Sequence[int],
        groups: int,
    ) -> StridedArray:
        """As in the base class, but transposed: the columns are many times larger than the gradient, so it is
        the gradient that should be the operand which a product rearranges."""
        n, o = gradient.shape[:2]
        columns, _ = self._columns(x, kernel, stride, dilation, groups)
        g = self._view(gradient, (n, groups, o // groups, -1))
        # Half types are rounded once the images are added up.
        partial = self.matmul(columns, g.transpose((0, 1, 3, 2)), _F32 if x.itemsize == 2 else None)
        total = self.reduce("sum", partial, (0,), x.dtype)
        return self._view(total.transpose((0, 2, 1)), (o, x.shape[1] // groups, *kernel))

    def _columns(
        self, x: StridedArray, kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int], groups: int
    ) -> tuple[StridedArray, tuple[int, ...]]:
        if not _is_pointwise(kernel, stride):
            return super()._columns(x, kernel, stride, dilation, groups)
        out = x.shape[2:]
        return self._view(x, (x.shape[0], groups, x.shape[1] // groups, prod(out))), out

    # -- plans --------------------------------------------------------------------------
    def _way(
        self,
        x: StridedArray,
        weight: Sequence[int],
        result: Sequence[int],
        groups: int,
        stride: Sequence[int] | None,
    ) -> str | None:
        """How a convolution of a ``weight`` of this shape is done, or without ``stride`` the gradient of the weight:
        "direct", in "columns" that are never written down, or None for matrix products; "empty" where there is
        nothing to add up."""
        if not (x.size and prod(weight) and prod(result)):
            return "empty"
        check_spatial("convolution", len(weight) - 2)
        if groups > 1 and weight[1] <= _FEW and weight[0] // groups <= _FEW:
            return "direct"
        n, positions = result[0], prod(result[2:])
        if not self.cpu_shapes:
            return None
        if stride is None:
            return "columns" if n * positions >= _POSITIONS else None
        if _is_pointwise(weight[2:], stride):
            return None
        panels = -(-positions // (_TILE_VECTORS * self.vector_bytes // 4))
        return "columns" if n * groups * panels * 2 >= _ITEMS else None

    def _geometry(
        self, x: StridedArray, kernel: Sequence[int], counts: Sequence[int], stride: Sequence[int],
        dilation: Sequence[int],
    ) -> tuple[list[int], list[int]]:  # fmt: skip
        """Windows, taps and the steps to either; then where ``x`` lies and ends, in elements."""
        steps = elements(x.strides, x.itemsize)
        hop = [s * t for s, t in zip(steps[2:], stride, strict=True)]
        reach = [s * d for s, d in zip(steps[2:], dilation, strict=True)]
        _, high = layout.byte_range(x.shape, x.strides, x.itemsize)
        return ([*three(counts, 1), *three(kernel, 1), *three(hop, 0), *three(reach, 0)],
                [x.offset // x.itemsize, steps[0], steps[1], (x.offset + high) // x.itemsize])  # fmt: skip

    def _indices(self, x: StridedArray, *others: tuple[int, Sequence[int]]) -> tuple[str, str]:
        """As :meth:`_index_type`, of ``x`` and of contiguous arrays, each its first element and its shape."""
        flat = [((prod(shape),), (1,), start, 1) for start, shape in others]
        return self._index_type([(x.shape, x.strides, x.offset, x.itemsize), *flat])

    def _vectors(self, short: str) -> dict[str, Any]:
        """The definitions of a vector of a floating dtype, on a CPU-type device."""
        width = self.vector_bytes // (4 if short == "f32" else 8)
        return {"VW": width, "V": f"{'float' if short == 'f32' else 'double'}{width}"}

    def _direct_plan(
        self,
        op: str,
        x: StridedArray,
        other_offset: int,
        other_size: int,
        weight: Sequence[int],
        result: Sequence[int],
        stride: Sequence[int],
        dilation: Sequence[int],
        groups: int,
        dtype: np.dtype,
    ) -> Plan:
        o, inner, *kernel = weight
        n, counts, size = result[0], result[2:], x.itemsize
        geometry, place = self._geometry(x, kernel, counts, stride, dilation)
        start = other_offset // size
        index, code = self._indices(x, (start, weight), (start, result), (0, (n, *weight)))
        short = SHORT[x.dtype]
        name = symbol("direct", short)
        defines = {"NAME": name, "X": short, "O": SHORT[dtype], "R": short if short == "f64" else "f32", "IDX": index,
                   "GG_CONTRACT": 1, **type_defines(short)}  # fmt: skip
        if self.cpu_shapes:
            defines |= self._vectors(short)
        if op == "forward":
            items = prod(result) // (counts[-1] if self.cpu_shapes else 1)
            offsets = [other_offset // size, 0, 0]
        else:
            items = n * prod(weight)
            offsets = [0, other_offset // size, other_offset // size + other_size]
        values = [items, o, inner, o // groups, *geometry, *place, *offsets]
        names = [f"{name}_forward", f"{name}_weight_grad"]
        local = 4 if self.cpu_shapes else self.shape["LOCAL_SIZE"]
        plan = Plan(None, self._groups(items, local), struct.pack(f"={len(values)}{code}", *values))
        plan.kernel = self.kernel("direct", defines, names[op != "forward"], names, local)
        return plan.result((n, *weight), x.dtype if short == "f64" else _F32)

    def _columns_plan(
        self,
        op: str,
        x: StridedArray,
        other_offset: int,
        other_size: int,
        weight: Sequence[int],
        result: Sequence[int],
        stride: Sequence[int],
        dilation: Sequence[int],
        groups: int,
        dtype: np.dtype,
    ) -> Plan:
        o, inner, *kernel = weight
        n, counts, size = result[0], result[2:], x.itemsize
        outer, depth, positions = o // groups, inner * prod(kernel), prod(counts)
        geometry, place = self._geometry(x, kernel, counts, stride, dilation)
        short = SHORT[x.dtype]
        vectors = self._vectors(short)
        panel = _TILE_VECTORS * vectors["VW"]
        width = -(-outer // vectors["VW"]) * vectors["VW"]
        share = 1  # images of an item
        if op == "forward":
            panels, rows, parts = -(-positions // panel), outer, n
        else:
            panels, rows = -(-width // panel), depth
            share = max(1, n * groups * panels // _ITEMS)
            parts = -(-n // share)
        blocks = min(-(-rows // _BLOCK_ROWS), -(-_ITEMS // (parts * groups * panels)))
        block = -(-rows // (blocks * _TILE_ROWS)) * _TILE_ROWS
        blocks = -(-rows // block)
        items = parts * groups * panels * blocks
        shape = tuple(result) if op == "forward" else (parts, groups, depth, width)
        index, code = self._indices(x, (other_offset // size, weight), (other_offset // size, result), (0, shape))
        chunk = _even_parts(depth if op == "forward" else positions, _CHUNK[op])
        values = [items, groups, inner, outer, depth, positions, panels, blocks, block, chunk, *geometry, *place,
                  other_offset // size, n, share, width]  # fmt: skip
        name = symbol("convolve", op, short)
        defines = {"NAME": name, "X": short, "IDX": index, "GG_CONTRACT": 1, "CHUNK": _CHUNK[op], op.upper(): 1,
                   **vectors, **type_defines(short)}  # fmt: skip
        plan = Plan(None, items, struct.pack(f"={len(values)}{code}", *values))
        plan.kernel = self.kernel("convolve", defines, name, [name], 1)
        return plan.result(shape, dtype)


def _is_pointwise(kernel: Sequence[int], stride: Sequence[int]) -> bool:
    """Whether each window is one element, and all are looked at."""
    return all(k == 1 for k in kernel) and all(t == 1 for t in stride)


def _even_parts(n: int, most: int) -> int:
    """The size of the fewest, about equal parts of ``n`` that are no larger than ``most``."""
    return -(-n // -(-n // most))
