"""The kernel backends' fused routines that go row by row: softmax, norms and cross-entropy, each one launch.

What each takes and returns is in ROUTINES of ``gpugrad/ops/fused.py``; ``kernels/rows.h`` says how a row is gone over.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from gpugrad.backends.base import StridedArray
from gpugrad.backends.kernel_core import KernelCore, Plan, scalar_packer
from gpugrad.backends.kernel_source import SHORT, symbol, type_defines
from gpugrad.errors import OutOfRangeError

_F32 = np.dtype(np.float32)
_PARTS = 2  # vectors of a row that are taken at a time, of kernels/rows.h
_WIDE = 16  # bytes that an item of a GPU reads at once
#: into how many blocks the rows of a norm are cut for the gradients of weight and bias: enough for all units of a
#: device, and few enough that adding up the blocks' sums costs little
_CPU_BLOCKS, _GPU_BLOCKS = 64, 1024


def _work(dtype: np.dtype) -> np.dtype:
    """What statistics of rows are stored in."""
    return _F32 if SHORT[dtype] in ("f16", "bf16") else dtype


class RowOps(KernelCore):
    """Routines of the kernel backends for contiguous rows."""

    #: whether rows are taken by vectors, as values of the language: what gcc does not make of loops over lanes by
    #: itself (softmax and layer norm of 4096x1024, forward and backward, on one thread: a quarter of the time)
    row_vectors = False

    # -- how rows are shared out ------------------------------------------------------
    def _row_launch(self, n: int, itemsize: int, *offsets: int) -> tuple[int, int]:
        """(elements of a row that are taken many at a time, items of a group); ``offsets`` are in bytes."""
        if self.cpu_shapes:
            lanes = self._row_width(itemsize)
            return n // lanes * lanes, 4
        wide = _WIDE // itemsize
        aligned = n % wide == 0 and not any(o % _WIDE for o in offsets)
        wanted, items = n // wide if aligned else n, 32
        while items < wanted and items < self.shape["GROUP"]:
            items *= 2
        return n if aligned else 0, items

    def _row_width(self, itemsize: int) -> int:
        """Elements of a row that an item of a CPU-type device takes at a time."""
        return self.shape["LANES"] if not self.row_vectors else _PARTS * self.vector_bytes // max(itemsize, 4)

    def _row_kernel(self, family: str, op: str, dtype: np.dtype, which: str, local: int, index: str) -> Any:
        short = SHORT[dtype]
        name = symbol(op, short)
        defines = {"NAME": name, "X": short, "X_BYTES": dtype.itemsize, "IDX": index, **_DEFINES.get(op, {}),
                   **type_defines(short)}  # fmt: skip
        if self.row_vectors:
            size = _work(dtype).itemsize
            width = self.vector_bytes // size
            defines |= {"VW": width, "V": f"{'float' if size == 4 else 'double'}{width}"}
            if family != "norm":  # where a difference of equals is to be 0
                defines["GG_CONTRACT"] = 1  # exp has a dozen products that are added to
        return self.kernel(family, defines, f"{name}_{which}", [f"{name}_{v}" for v in _KERNELS[family]], local)

    def _row_groups(self, rows: int, local: int) -> int:
        return self._groups(rows, local) if self.cpu_shapes else rows

    def _in_rows(self, array: StridedArray) -> StridedArray:
        return array if array.is_contiguous else self.copy(array)

    # -- softmax ------------------------------------------------------------------------
    def fused_softmax(self, x: StridedArray, axis: int) -> StridedArray:
        return self._softmax("softmax", "", axis, self._in_rows(x))

    def fused_log_softmax(self, x: StridedArray, axis: int) -> StridedArray:
        return self._softmax("log_softmax", "", axis, self._in_rows(x))

    def fused_softmax_backward(self, gradient: StridedArray, y: StridedArray, axis: int) -> StridedArray:
        return self._softmax("softmax", "_backward", axis, self._in_rows(gradient), self._in_rows(y))

    def fused_log_softmax_backward(self, gradient: StridedArray, y: StridedArray, axis: int) -> StridedArray:
        return self._softmax("log_softmax", "_backward", axis, self._in_rows(gradient), self._in_rows(y))

    def _softmax(self, op: str, direction: str, axis: int, *arrays: StridedArray) -> StridedArray:
        first = arrays[0]
        key = (op, direction, axis, first.dtype.num, first.shape, *[a.offset for a in arrays])
        plan = self._plans.get(key)
        if plan is None:
            plan = self._remember(key, self._softmax_plan(op, direction, axis, arrays))
        result = self._result(plan)
        if plan.groups:
            self._launch(plan.kernel, plan.groups, *[a.buffer for a in arrays], result.buffer, plan.params)
        return result

    def _softmax_plan(self, op: str, direction: str, axis: int, arrays: Sequence[StridedArray]) -> Plan:
        x = arrays[0]
        shape, size = x.shape, x.itemsize
        outer, n, inner = prod(shape[:axis]), shape[axis], prod(shape[axis + 1 :])
        offsets = [a.offset for a in arrays]
        index, code = self._index_type([(shape, x.strides, o, size) for o in offsets])
        whole, local = self._row_launch(n, size, *offsets)
        rows, pieces = outer, 1
        if inner == 1:
            groups, which = self._row_groups(rows, local), "row"
        else:
            pieces = -(-inner // self.shape["COLUMNS"])
            rows, local, which = outer * pieces, 8 if self.cpu_shapes else 64, "column"
            groups = self._groups(rows, local)
        starts = [o // size for o in offsets]
        params = struct.pack(f"=7{code}", rows, n, whole, inner, pieces, starts[0], starts[-1])
        plan = Plan(None, groups if x.size else 0, params).result(shape, x.dtype)
        if plan.groups:
            plan.kernel = self._row_kernel("softmax", op, x.dtype, which + direction, local, index)
        return plan

    # -- norms --------------------------------------------------------------------------
    def fused_layer_norm(
        self, x: StridedArray, weight: StridedArray | None, bias: StridedArray | None, eps: float
    ) -> tuple[StridedArray, StridedArray]:
        y, _, moments = self._norm("layer_norm", x, None, weight, bias, eps)
        return y, moments

    def fused_rms_norm(
        self, x: StridedArray, weight: StridedArray | None, eps: float
    ) -> tuple[StridedArray, StridedArray]:
        y, _, squares = self._norm("rms_norm", x, None, weight, None, eps)
        return y, squares

    def fused_add_layer_norm(
        self,
        x: StridedArray,
        residual: StridedArray,
        weight: StridedArray | None,
        bias: StridedArray | None,
        eps: float,
    ) -> tuple[StridedArray, StridedArray, StridedArray]:
        return self._norm("layer_norm", x, residual, weight, bias, eps)

    def fused_add_rms_norm(
        self, x: StridedArray, residual: StridedArray, weight: StridedArray | None, eps: float
    ) -> tuple[StridedArray, StridedArray, StridedArray]:
        return self._norm("rms_norm", x, residual, weight, None, eps)

    def _norm(
        self,
        op: str,
        x: StridedArray,
        residual: StridedArray | None,
        weight: StridedArray | None,
        bias: StridedArray | None,
        eps: float,
    ) -> tuple[StridedArray, StridedArray, StridedArray]:
        """The norm of x, or of x + residual; that sum (without a residual the norm once more); the moments."""
        given = [x, *[x if v is None else v for v in (weight, bias, residual)]]
        has = sum(1 << i for i, v in enumerate((weight, bias, residual)) if v is not None)
        key = (op, has, x.dtype.num, x.shape, *[a.offset for a in given])
        plan = self._plans.get(key)
        if plan is None:
            rows, n = x.shape
            whole, local = self._row_launch(n, x.itemsize, *[a.offset for a in given])
            index, code = self._index_type([(a.shape, a.strides, a.offset, a.itemsize) for a in given])
            starts = [a.offset // x.itemsize for a in given]
            params = struct.pack(f"=11{code}", rows, n, whole, 1, rows, has, starts[0], 0, *starts[1:])
            plan = Plan(None, self._row_groups(rows, local), params).result(x.shape, x.dtype)
            plan.kernel = self._row_kernel("norm", op, x.dtype, "forward", local, index)
            plan.pack = scalar_packer(SHORT[x.dtype])
            self._remember(key, plan)
        result = self._result(plan)
        total = result if residual is None else self._result(plan)
        kept = self.empty((2, x.shape[0]) if op == "layer_norm" else (x.shape[0],), _work(x.dtype))
        self._launch(plan.kernel, plan.groups, *[a.buffer for a in given], total.buffer, result.buffer, kept.buffer,
                     plan.pack(eps), plan.params)  # fmt: skip
        return result, total, kept

    def fused_layer_norm_backward(
        self,
        gradient: StridedArray,
        x: StridedArray,
        weight: StridedArray | None,
        moments: StridedArray,
        eps: float,
        needed: Sequence[bool],
    ) -> tuple[StridedArray | None, ...]:
        return self._norm_backward("layer_norm", gradient, None, x, weight, moments, eps, needed)

    def fused_rms_norm_backward(
        self,
        gradient: StridedArray,
        x: StridedArray,
        weight: StridedArray | None,
        squares: StridedArray,
        eps: float,
        needed: Sequence[bool],
    ) -> tuple[StridedArray | None, ...]:
        return self._norm_backward("rms_norm", gradient, None, x, weight, squares, eps, needed)

    def fused_add_layer_norm_backward(self, *args: Any) -> tuple[StridedArray | None, ...]:
        return self._norm_backward("layer_norm", *args)

    def fused_add_rms_norm_backward(self, *args: Any) -> tuple[StridedArray | None, ...]:
        return self._norm_backward("rms_norm", *args)

    def _norm_backward(
        self,
        op: str,
        gradient: StridedArray,
        beside: StridedArray | None,
        x: StridedArray,
        weight: StridedArray | None,
        moments: StridedArray,
        eps: float,
        needed: Sequence[bool],
    ) -> tuple[StridedArray | None, ...]:
        moments = moments if not moments.offset and moments.is_contiguous else self.copy(moments)
        given = [gradient, x, *[x if v is None else v for v in (weight, beside)]]
        needed = tuple(map(bool, needed))
        has = (weight is not None) + sum(2 << i for i, wanted in enumerate(needed) if wanted)
        has += 16 * (beside is not None)
        key = (op, "backward", has, x.dtype.num, x.shape, *[a.offset for a in given])
        plan = self._plans.get(key)
        if plan is None:
            plan = self._remember(key, self._norm_backward_plan(op, given, has, needed))
        work = _work(x.dtype)
        dx = self._result(plan)
        sums = self.empty((plan.blocks, len(needed) - 1, x.shape[1]) if any(needed[1:]) else (1,), work)
        self._launch(plan.kernel, plan.groups, *[a.buffer for a in given], moments.buffer, dx.buffer, sums.buffer,
                     plan.pack(eps), plan.params)  # fmt: skip
        vectors = (self.reduce("sum", sums[:, i], (0,), x.dtype) if n else None for i, n in enumerate(needed[1:]))
        return dx if needed[0] else None, *vectors

    def _norm_backward_plan(
        self, op: str, given: Sequence[StridedArray], has: int, needed: tuple[bool, ...]
    ) -> _NormPlan:
        x = given[1]
        rows, n = x.shape
        blocks = min(rows, _CPU_BLOCKS if self.cpu_shapes else _GPU_BLOCKS)
        block = -(-rows // blocks)
        blocks = -(-rows // block)
        whole, local = self._row_launch(n, x.itemsize, *[a.offset for a in given])
        if self.cpu_shapes:
            local = 1
        index, code = self._index_type([(a.shape, a.strides, a.offset, a.itemsize) for a in given])
        g, start, w, beside = (a.offset // x.itemsize for a in given)
        params = struct.pack(f"=11{code}", rows, n, whole, block, blocks, has, start, g, w, 0, beside)
        plan = _NormPlan(None, self._row_groups(blocks, local), params)
        plan.result(x.shape if needed[0] else (1,), x.dtype)
        plan.blocks = blocks
        plan.pack = scalar_packer(SHORT[x.dtype])
        plan.kernel = self._row_kernel("norm", op, x.dtype, "backward", local, index)
        return plan

    # -- cross-entropy --------------------------------------------------------------------
    def fused_cross_entropy(
        self, x: StridedArray, target: StridedArray, weight: StridedArray | None, ignore: int, op: str
    ) -> tuple[StridedArray, StridedArray]:
        given = [x, target, x if weight is None else weight]
        key = ("cross_entropy", op, weight is None, x.dtype.num, x.shape, *[a.offset for a in given])
        plan = self._plans.get(key)
        if plan is None:
            plan = self._remember(key, self._cross_entropy_plan(x, given, "forward", (x.shape[0],), weight is not None))
            text = f"{op}: index {{value}} is out of range for size {x.shape[1]}"
            plan.flag = self._message(OutOfRangeError, text)
            plan.dtype = _work(x.dtype)
        loss, stats = self.empty((x.shape[0],), plan.dtype), self.empty((3, x.shape[0]), plan.dtype)
        self._launch(plan.kernel, plan.groups, *[a.buffer for a in given], loss.buffer, stats.buffer,
                     struct.pack("=q", ignore), plan.params, self._flag_buffer(), plan.flag)  # fmt: skip
        return loss, stats

    def fused_cross_entropy_backward(
        self, gradient: StridedArray, x: StridedArray, target: StridedArray, stats: StridedArray
    ) -> StridedArray:
        stats = stats if not stats.offset and stats.is_contiguous else self.copy(stats)
        key = ("cross_entropy_backward", x.dtype.num, x.shape, x.offset, target.offset, gradient.strides,
               gradient.offset)  # fmt: skip
        plan = self._plans.get(key)
        if plan is None:
            plan = self._remember(
                key, self._cross_entropy_plan(x, [x, target, x], "backward", x.shape, False, gradient)
            )
        result = self._result(plan)
        self._launch(plan.kernel, plan.groups, gradient.buffer, x.buffer, target.buffer, stats.buffer, result.buffer,
                     plan.params)  # fmt: skip
        return result

    def _cross_entropy_plan(
        self,
        x: StridedArray,
        given: Sequence[StridedArray],
        which: str,
        result: tuple[int, ...],
        weighted: bool,
        gradient: StridedArray | None = None,
    ) -> Plan:
        rows, n = x.shape
        whole, local = self._row_launch(n, x.itemsize, x.offset)
        arrays = [*given] if gradient is None else [*given, gradient]
        index, code = self._index_type([(a.shape, a.strides, a.offset, a.itemsize) for a in arrays])
        starts = [a.offset // a.itemsize for a in given]
        g = (0, 0) if gradient is None else (gradient.offset, gradient.strides[0])
        size = _work(x.dtype).itemsize
        params = struct.pack(f"=9{code}", rows, n, whole, weighted, *starts, *(v // size for v in g))
        plan = Plan(None, self._row_groups(rows, local), params).result(result, x.dtype)
        plan.kernel = self._row_kernel("cross_entropy", "cross_entropy", x.dtype, which, local, index)
        return plan


class _NormPlan(Plan):
    """Also how many blocks the rows are cut into."""

    __slots__ = ("blocks",)
    blocks: int


#: the kernels of each family
_KERNELS = {
    "softmax": ("row", "row_backward", "column", "column_backward"),
    "norm": ("forward", "backward"),
    "cross_entropy": ("forward", "backward"),
}
#: what a routine defines beyond its dtype
_DEFINES = {"log_softmax": {"LOGARITHM": 1}, "layer_norm": {"CENTRED": 1}}
