"""The kernel backends' scans, order, indexing and random numbers. See ``kernels.py``."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from gpugrad import layout
from gpugrad.backends import philox
from gpugrad.backends.base import StridedArray
from gpugrad.backends.kernel_core import MAX_DIMS, KernelCore, Plan, coalesce, elements, pad, reduction
from gpugrad.backends.kernel_source import SHORT, symbol, type_defines
from gpugrad.errors import OutOfRangeError

_INT64 = np.dtype(np.int64)
_SORT_BLOCK = 16


def _without(values: Sequence[int], axis: int) -> list[int]:
    return [v for i, v in enumerate(values) if i != axis]


class OrderedOps(KernelCore):
    """Operations whose kernels follow order or position rather than arithmetic."""

    def _lanes(
        self, op: str, array: StridedArray, axis: int, *strides: Sequence[int]
    ) -> tuple[list[int], list[list[int]]]:
        """The dimensions but ``axis``, merged, with each operand's strides in elements."""
        shape, steps = coalesce(_without(array.shape, axis), *(_without(s, axis) for s in strides))
        if len(shape) > MAX_DIMS:
            raise RuntimeError(
                f"{op}: a tensor of shape {array.shape} has more than {MAX_DIMS} dimensions that cannot "
                "be merged, which is not possible on this device: make it contiguous first"
            )
        return shape, steps

    # -- scans --------------------------------------------------------------------
    def scan(self, kind: str, array: StridedArray, axis: int, dtype: np.dtype) -> StridedArray:
        result = self.empty(array.shape, dtype)
        if result.size:
            self._scan(kind, array, axis, result)
        return result

    def _scan(self, kind: str, array: StridedArray, axis: int, result: StridedArray, paired: bool = False) -> None:
        """``paired``: both hold sums in two words, the second right after the first (kernels/scan.c)."""
        dtype = result.dtype
        wide = np.dtype(np.float32) if SHORT[dtype] in ("f16", "bf16") else dtype
        n = array.shape[axis]
        x_steps, out_steps = elements(array.strides, array.itemsize), elements(result.strides, result.itemsize)
        shape, steps = self._lanes("scan", array, axis, x_steps, out_steps)
        m = prod(shape)
        chunk = n if n <= 2048 else 1024
        splits = -(-n // chunk)
        index, code = self._index_type([(array.shape, array.strides, array.offset, array.itemsize),
                                        (array.shape, result.strides, 0, result.itemsize)])  # fmt: skip
        values = [m, n, chunk, splits, x_steps[axis], out_steps[axis], array.offset // array.itemsize,
                  len(shape), *pad(shape, 1), *pad(steps[0]), *pad(steps[1])]  # fmt: skip
        params = struct.pack(f"={len(values)}{code}", *values)
        compensated = kind == "sum" and wide.kind == "f"
        name = symbol("scan", kind, *["pairs"] * paired, SHORT[array.dtype])
        join, start = reduction(kind, SHORT[wide])
        defines = {"NAME": name, "X": SHORT[array.dtype], "R": SHORT[dtype], "JOIN(a, b)": join, "START": start,
                   "IDX": index, **type_defines(SHORT[wide])}  # fmt: skip
        if compensated:
            defines["COMPENSATED"] = "1"
        if paired:
            defines["PAIRED"] = "1"
        names = [f"{name}_total", f"{name}_apply"]
        groups = self._groups(m * splits)
        carry = array
        if splits > 1:
            totals, carry = (self.empty((m, splits, 1 + compensated), wide) for _ in range(2))
            self._launch(self.kernel("scan", defines, names[0], names), groups, array.buffer, totals.buffer, params)
            self._scan(kind, totals[:, :, 0], 1, carry[:, :, 0], compensated)
        self._launch(self.kernel("scan", defines, names[1], names), groups,
                     array.buffer, carry.buffer, result.buffer, params)  # fmt: skip

    # -- order ----------------------------------------------------------------------
    def arg_reduce(self, kind: str, array: StridedArray, axis: int) -> StridedArray:
        result = self.empty(_without(array.shape, axis), _INT64)
        if result.size == 0:
            return result
        n = array.shape[axis]
        steps = elements(array.strides, array.itemsize)
        shape, (lane_steps,) = self._lanes(kind, array, axis, steps)
        m = prod(shape)
        chunk = n if n <= 2048 else 1024
        splits = -(-n // chunk)
        index, code = self._index_type([(array.shape, array.strides, array.offset, array.itemsize)])
        values = [m, n, chunk, splits, steps[axis], array.offset // array.itemsize,
                  len(shape), *pad(shape, 1), *pad(lane_steps)]  # fmt: skip
        params = struct.pack(f"={len(values)}{code}", *values)
        short = SHORT[array.dtype]
        name = symbol(kind, short)
        sign = ">" if kind == "argmax" else "<"
        better = f"((a) {sign} (b) || ((a) != (a) && (b) == (b)))"
        defines = {"NAME": name, "X": short, "BETTER(a, b)": better, "IDX": index, **type_defines(short)}
        names = [f"{name}_part", f"{name}_pick"]
        parts = result if splits == 1 else self.empty((m, splits), _INT64)
        part = self.kernel("arg_reduce", defines, names[0], names)
        self._launch(part, self._groups(m * splits), array.buffer, parts.buffer, params)
        if splits > 1:
            pick = self.kernel("arg_reduce", defines, names[1], names)
            self._launch(pick, self._groups(m), array.buffer, parts.buffer, result.buffer, params)
        return result

    def sort(self, array: StridedArray, axis: int, descending: bool) -> tuple[StridedArray, StridedArray]:
        if array.ndim == 0:
            return self.copy(array), self.full((), 0, _INT64)
        if array.size == 0:
            return self.empty(array.shape, array.dtype), self.empty(array.shape, _INT64)
        order = [*(i for i in range(array.ndim) if i != axis), axis]
        back = [order.index(i) for i in range(array.ndim)]
        rows = self._dense(array.transpose(order))
        values, positions = self._sort_rows(rows, descending)
        return values.transpose(back), positions.transpose(back)

    def _dense(self, array: StridedArray) -> StridedArray:
        return array if array.is_contiguous else self.copy(array)

    def _sort_rows(self, x: StridedArray, descending: bool) -> tuple[StridedArray, StridedArray]:
        """Sort a contiguous array along its last axis: blocks first, then merges of doubling width."""
        n = x.shape[-1]
        rows = x.size // n
        short = SHORT[x.dtype]
        index, code = self._index_type([(x.shape, x.strides, x.offset, x.itemsize)])
        if descending:
            before = "((a) > (b) || ((a) != (a) && (b) == (b)))"
        else:
            before = "((a) < (b) || ((b) != (b) && (a) == (a)))"
        name = symbol("sort", "descending" if descending else "ascending", short)
        defines = {"NAME": name, "X": short, "BEFORE(a, b)": before, "BLOCK": _SORT_BLOCK, "IDX": index,
                   **type_defines(short)}  # fmt: skip
        names = [f"{name}_block", f"{name}_merge"]
        block = self.kernel("sort", defines, names[0], names)
        values, positions = self.empty(x.shape, x.dtype), self.empty(x.shape, _INT64)
        items = rows * -(-n // _SORT_BLOCK)
        start = x.offset // x.itemsize
        self._launch(block, self._groups(items), x.buffer, values.buffer, positions.buffer,
                     struct.pack(f"=6{code}", items, rows, n, 0, 0, start))  # fmt: skip
        width = _SORT_BLOCK
        if width < n:
            merge = self.kernel("sort", defines, names[1], names)
            other = self.empty(x.shape, x.dtype), self.empty(x.shape, _INT64)
        while width < n:
            run = min(self.shape["MERGE"], 2 * width)
            items = rows * -(-n // run)
            self._launch(merge, self._groups(items), values.buffer, positions.buffer, other[0].buffer, other[1].buffer,
                         struct.pack(f"=6{code}", items, rows, n, width, run, 0))  # fmt: skip
            (values, positions), other = other, (values, positions)
            width *= 2
        return values, positions

    # -- indexing ---------------------------------------------------------------------
    def take(self, array: StridedArray, index: StridedArray, axis: int, op: str) -> StridedArray:
        shape = (*array.shape[:axis], index.shape[0], *array.shape[axis + 1 :])
        strides = [0] * array.ndim
        strides[axis] = index.strides[0]
        return self._gather(array, index, strides, shape, axis, op)

    def gather(self, array: StridedArray, index: StridedArray, axis: int, op: str) -> StridedArray:
        return self._gather(array, index, index.strides, index.shape, axis, op)

    def _gather(
        self,
        array: StridedArray,
        index: StridedArray,
        index_strides: Sequence[int],
        shape: tuple[int, ...],
        axis: int,
        op: str,
    ) -> StridedArray:
        key = ("gather", op, axis, array.dtype.num, array.shape, array.strides, array.offset,
               index.dtype.num, shape, tuple(index_strides), index.offset)  # fmt: skip
        plan = self._plans.get(key)
        if plan is None:
            plan = self._remember(key, self._gather_plan(array, index, index_strides, shape, axis, op))
        result = self._result(plan)
        if plan.groups:
            self._launch(plan.kernel, plan.groups, array.buffer, index.buffer, result.buffer, plan.params,
                         self._flag_buffer(), plan.flag)  # fmt: skip
        return result

    def _gather_plan(
        self,
        array: StridedArray,
        index: StridedArray,
        index_strides: Sequence[int],
        shape: tuple[int, ...],
        axis: int,
        op: str,
    ) -> Plan:
        x_steps = elements(array.strides, array.itemsize)
        moving = [0 if i == axis else s for i, s in enumerate(x_steps)]
        out_strides = layout.contiguous_strides(shape, array.itemsize)
        dims, steps = coalesce(shape, moving, elements(index_strides, index.itemsize),
                               elements(out_strides, array.itemsize))  # fmt: skip
        if len(dims) > MAX_DIMS:
            raise RuntimeError(
                f"{op}: operands of shape {array.shape} and {index.shape} have more than {MAX_DIMS} "
                "dimensions that cannot be merged, which is not possible on this device"
            )
        idx, code = self._index_type([(array.shape, array.strides, array.offset, array.itemsize),
                                      (shape, index_strides, index.offset, index.itemsize),
                                      (shape, out_strides, 0, array.itemsize)])  # fmt: skip
        pieces = -(-dims[-1] // self.shape["RUN"])
        items = prod(dims) // dims[-1] * pieces if prod(dims) else 0
        values = [items, pieces, dims[-1], len(dims) - 1, *pad(dims[:-1], 1),
                  array.offset // array.itemsize, index.offset // index.itemsize, 0, *(s[-1] for s in steps),
                  *pad(steps[0][:-1]), *pad(steps[1][:-1]), *pad(steps[2][:-1]),
                  x_steps[axis], array.shape[axis]]  # fmt: skip
        plan = Plan(None, self._groups(items), struct.pack(f"={len(values)}{code}", *values)).result(shape, array.dtype)
        plan.flag = self._index_message(op, axis, array.shape)
        if items:
            width = f"u{8 * array.itemsize}"
            name = symbol(width, SHORT[index.dtype])
            defines = {"NAME": name, "U": width, "I": SHORT[index.dtype], "IDX": idx}
            plan.kernel = self.kernel("index", defines, f"{name}_gather", [f"{name}_gather"])
        return plan

    def _index_message(self, op: str, axis: int, shape: Sequence[int]) -> bytes:
        return self._message(OutOfRangeError, f"{op}: index {{value}} is out of range for size {shape[axis]}")

    def scatter(
        self, out: StridedArray, index: StridedArray, source: StridedArray, axis: int, mode: str, op: str
    ) -> None:
        if index.size == 0:
            return
        source = self._clear_of(source, out)
        # Along `rows` the index repeats itself, along `lanes` it differs.
        rows = [i for i in range(index.ndim) if i != axis and (index.strides[i] == 0 or index.shape[i] == 1)]
        lanes = [i for i in range(index.ndim) if i != axis and i not in rows]
        keys = index
        for i in reversed(rows):
            keys = keys[(slice(None),) * i + (0,)]
        order = [*(i for i in range(index.ndim) if i in lanes), axis]
        present = [i for i in range(index.ndim) if i not in rows]
        keys = self._dense(keys.transpose([present.index(i) for i in order]))
        sorted_keys, positions = self._sort_rows(keys, False)
        out_steps, source_steps = elements(out.strides, out.itemsize), elements(source.strides, source.itemsize)
        pick = [[s[i] for i in lanes] for s in (out_steps, source_steps)]
        lane_shape, lane_steps = coalesce([index.shape[i] for i in lanes], *pick)
        pick = [[s[i] for i in rows] for s in (out_steps, source_steps)]
        row_shape, row_steps = coalesce([index.shape[i] for i in rows], *pick)
        if max(len(lane_shape), len(row_shape)) > MAX_DIMS:
            raise RuntimeError(
                f"{op}: operands of shape {out.shape} and {index.shape} have more than {MAX_DIMS} "
                "dimensions that cannot be merged, which is not possible on this device"
            )
        idx, code = self._index_type([(out.shape, out.strides, out.offset, out.itemsize),
                                      (index.shape, source.strides, source.offset, source.itemsize),
                                      (index.shape, (0,) * index.ndim, 0, 8)])  # fmt: skip
        count = index.shape[axis]
        pieces = -(-row_shape[-1] // self.shape["RUN"])
        row_items = prod(row_shape[:-1]) * pieces
        items = prod(lane_shape) * count * row_items
        values = [items, pieces, row_shape[-1], count, out.shape[axis],
                  out.offset // out.itemsize, source.offset // source.itemsize, out_steps[axis], source_steps[axis],
                  row_steps[0][-1], row_steps[1][-1],
                  len(lane_shape), *pad(lane_shape, 1), *pad(lane_steps[0]), *pad(lane_steps[1]),
                  len(row_shape) - 1, row_items, *pad(row_shape[:-1], 1), *pad(row_steps[0][:-1]),
                  *pad(row_steps[1][:-1])]  # fmt: skip
        short = SHORT[out.dtype]
        join = "(b)" if mode == "set" else reduction({"add": "sum", "multiply": "prod"}.get(mode, mode), short)[0]
        name = symbol("scatter", mode, short)
        defines = {"NAME": name, "SCATTER": 1, "X": short, "I": SHORT[index.dtype], "JOIN(a, b)": join, "IDX": idx,
                   **type_defines(short)}  # fmt: skip
        kernel = self.kernel("index", defines, f"{name}_combine", [f"{name}_combine"])
        self._launch(kernel, self._groups(items), out.buffer, sorted_keys.buffer, positions.buffer, source.buffer,
                     struct.pack(f"={len(values)}{code}", *values), self._flag_buffer(),
                     self._index_message(op, axis, out.shape))  # fmt: skip

    # -- random -----------------------------------------------------------------------
    def random(self, kind: str, shape: Sequence[int], dtype: np.dtype, seed: int, stream: int) -> StridedArray:
        result = self.empty(shape, dtype)
        n = result.size
        if n == 0:
            return result
        short = SHORT[dtype]
        per_item = 4 if dtype.itemsize == 8 else 8
        name = symbol(kind, short)
        index, code = self._index_type([((n,), (dtype.itemsize,), 0, dtype.itemsize)])
        defines: dict[str, Any] = {"NAME": name, "R": short, kind.upper(): 1, "PER_ITEM": per_item, "IDX": index,
                                   **type_defines(short)}  # fmt: skip
        if kind == "uniform":
            digits = {"f64": 53, "f32": 24, "f16": 11, "bf16": 8}[short]
            defines |= {"DIGITS": digits, "UNIT": f"0x1p-{digits}"}
        elif kind == "normal":
            tables = (philox.ATANH64, philox.SIN64, philox.COS64) if short == "f64" else (
                philox.LOG32, philox.SIN32, philox.COS32)  # fmt: skip
            for table, values in zip(("LOG", "SIN", "COS"), tables, strict=True):
                defines[table] = ", ".join(_literal(v, short == "f64") for v in values)
        kernel = self.kernel("random", defines, name, [name])
        mask = (1 << 64) - 1
        self._launch(kernel, self._groups(-(-n // per_item)), result.buffer, struct.pack("=Q", seed & mask),
                     struct.pack("=Q", stream & mask), struct.pack("=" + code, n))  # fmt: skip
        return result


def _literal(value: float, double: bool) -> str:
    """A hexadecimal literal: the same bits for every compiler."""
    return float(value).hex() if double else float(np.float32(value)).hex() + "f"
