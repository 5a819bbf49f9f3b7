"""The kernel backends' routines for many tensors at once: ``kernels/tensors.c``, a launch for up to COUNT tensors.

Clipping the gradients of the examples' tiny GPT, fifty tensors, takes 0.14 of the time that it takes one by one (PoCL).

What each takes and returns is in ROUTINES of ``gpugrad/ops/updates.py``.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import numpy as np

from gpugrad.backends.base import StridedArray
from gpugrad.backends.kernel_core import Plan, dense_order, elements
from gpugrad.backends.kernel_rows import RowOps, _work
from gpugrad.backends.kernel_source import SHORT, symbol, type_defines

#: tensors of a launch: with 64-bit indices their arguments take 600 of the 1,024 bytes that every OpenCL device allows
COUNT = 16
#: elements of a block. What an item adds up one after the other is 128 vectors on CPU-type devices, 8 on GPUs
_CPU_BLOCK, _GPU_BLOCK = 1 << 11, 1 << 13
_WIDE = 16  # bytes that an item of a GPU reads at once


class _TensorsPlan(Plan):
    """A launch for some tensors, and how many blocks they are."""

    __slots__ = ("blocks",)
    blocks: int


class TensorsOps(RowOps):
    """Norm and scaling of all gradients together."""

    def fused_total_norm(self, arrays: Sequence[StridedArray]) -> StridedArray:
        dtype = arrays[0].dtype
        work = _work(dtype)
        given = [a if _dense(a) else self.copy(a) for a in arrays if a.size]
        if not given:
            return self.full((), 0.0, work)
        launches, place = [], 0
        for first in range(0, len(given), COUNT):
            part = given[first : first + COUNT]
            plan = self._tensors_plan("squares", part, place)
            launches.append((plan, part))
            place += plan.blocks
        sums = self.empty((place,), work)
        for plan, part in launches:
            self._launch(plan.kernel, plan.groups, *_buffers(part), sums.buffer, plan.params)
        total = self.reduce("sum", sums, (0,), work) if place > 1 else sums
        root = self.empty((), work)
        self._launch(self._tensors_kernel("root", dtype, "i32", 1), 1, total.buffer, root.buffer)
        return root

    def fused_scale(self, arrays: Sequence[StridedArray], factor: StridedArray) -> None:
        factor = self.copy(factor) if factor.offset else factor
        given = [a if _dense(a) else self.copy(a) for a in arrays if a.size]
        for first in range(0, len(given), COUNT):
            part = given[first : first + COUNT]
            plan = self._tensors_plan("scale", part, 0)
            self._launch(plan.kernel, plan.groups, *_buffers(part), factor.buffer, plan.params)
        for own, scaled in zip((a for a in arrays if a.size), given, strict=True):
            if scaled is not own:
                self.copy(scaled, out=own)

    def _tensors_kernel(self, which: str, dtype: np.dtype, index: str, local: int) -> Any:
        short = SHORT[dtype]
        name = symbol("tensors", short)
        every = range(COUNT)
        picked = "".join(f"(k) == {k} ? p{k} : " for k in every[:-1]) + f"p{COUNT - 1}"
        defines = {"NAME": name, "X": short, "X_BYTES": dtype.itemsize, "IDX": index, "COUNT": COUNT,
                   "BLOCK": self._tensors_block, "POINTERS": "".join(f"GLOBAL S(X) *p{k}, " for k in every),
                   "PICKED(k)": f"({picked})", **type_defines(short)}  # fmt: skip
        names = [f"{name}_{kind}" for kind in ("squares", "root", "scale")]
        return self.kernel("tensors", defines, f"{name}_{which}", names, local)

    @property
    def _tensors_block(self) -> int:
        return _CPU_BLOCK if self.cpu_shapes else _GPU_BLOCK

    def _tensors_plan(self, which: str, arrays: Sequence[StridedArray], place: int) -> _TensorsPlan:
        dtype = arrays[0].dtype
        key = ("tensors", which, dtype.num, place, *[(a.size, a.offset) for a in arrays])
        plan = self._plans.get(key)
        if plan is not None:
            return plan
        size, block = dtype.itemsize, self._tensors_block
        firsts, total = [], 0
        for a in arrays:
            firsts.append(total)
            total += -(-a.size // block)
        missing = [0] * (COUNT - len(arrays))
        firsts += [total for _ in missing]
        offsets = [a.offset for a in arrays]
        index, code = self._index_type([((a.size + block,), (size,), a.offset, size) for a in arrays])
        whole = self.cpu_shapes or not any(o % _WIDE for o in offsets)
        sizes, starts = [a.size for a in arrays], [o // size for o in offsets]
        params = struct.pack(
            f"={3 + 3 * COUNT}{code}", total, place, whole, *firsts, *sizes, *missing, *starts, *missing
        )
        local = 4 if self.cpu_shapes else self.shape["GROUP"]
        plan = _TensorsPlan(self._tensors_kernel(which, dtype, index, local), self._row_groups(total, local), params)
        plan.blocks = total
        return self._remember(key, plan)


def _dense(array: StridedArray) -> bool:
    """Whether the elements lie without gaps, in whatever order."""
    return array.is_contiguous or dense_order(array.shape, elements(array.strides, array.itemsize), 1)


def _buffers(arrays: Sequence[StridedArray]) -> list[Any]:
    """Those of COUNT arrays; the first one stands for what is missing, and is not looked at as such."""
    return [a.buffer for a in arrays] + [arrays[0].buffer] * (COUNT - len(arrays))
