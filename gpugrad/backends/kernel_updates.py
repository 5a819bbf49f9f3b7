"""Steps of optimizers as kernels: one launch per tensor, which reads and writes each array once."""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np

from gpugrad.backends.base import StridedArray
from gpugrad.backends.kernel_core import KernelCore, Plan, dense_order, elements
from gpugrad.backends.kernel_source import SHORT, symbol, type_defines
from gpugrad.backends.update import Update

_LETTER = re.compile(r"\b[a-g]\b")
_WIDE = 16  # bytes of an array that an item of a GPU reads at once


class UpdateOps(KernelCore):
    """What the kernel backends offer for optimizers; ``gpugrad/ops/updates.py`` says what each takes and returns."""

    #: elements of an item on the host, where its loop is as the compiler likes it; None elsewhere
    update_run: int | None = None

    def fused_update(self, update: Update, columns: Sequence[Sequence[StridedArray]], numbers: Sequence[Any]) -> None:
        dtype = columns[0][0].dtype
        there = tuple([k for k, x in enumerate(numbers) if isinstance(x, StridedArray)])
        if any(numbers[k].offset for k in there):
            numbers = [self.copy(x) if k in there else x for k, x in enumerate(numbers)]
        with np.errstate(over="ignore"):
            plain = [0.0 if k in there else x for k, x in enumerate(numbers)]
            values = np.array(plain, np.float64).astype(dtype).tobytes()
        pointers = [numbers[k].buffer for k in there]
        for arrays in zip(*columns, strict=True):
            first = arrays[0]
            if not all(a.is_contiguous or a.strides == first.strides for a in arrays):
                self._one_by_one(update, arrays, numbers)
                continue
            key = (update, there, dtype.num, first.shape, first.strides, *[a.offset for a in arrays])
            plan = self._plans.get(key)
            if plan is None:
                plan = self._remember(key, self._update_plan(update, arrays, there))
            if plan is _NOT_DENSE:
                self._one_by_one(update, arrays, numbers)
            elif plan.groups:
                self._launch(plan.kernel, plan.groups, *[a.buffer for a in arrays], *pointers, values, plan.params)

    def _one_by_one(self, update: Update, arrays: Sequence[StridedArray], numbers: Sequence[Any]) -> None:
        dtype = arrays[0].dtype
        values: list[Any] = [*arrays, *numbers, *[None] * update.temporaries]
        for target, kernel, operands in update.places:
            values[target] = self.map(kernel, [values[i] for i in operands], dtype, dtype, values[target])

    def _update_plan(self, update: Update, arrays: Sequence[StridedArray], there: tuple[int, ...]) -> Plan:
        first, size = arrays[0], arrays[0].itemsize
        same = all(a.strides == first.strides for a in arrays)
        if not all(a.is_contiguous for a in arrays) and not (
            same and dense_order(first.shape, elements(first.strides, size), 1)
        ):
            return _NOT_DENSE
        short = SHORT[first.dtype]
        index, code = self._index_type([((first.size,), (size,), a.offset, size) for a in arrays])
        wide = not self.cpu_shapes and all(a.offset % _WIDE == 0 for a in arrays)
        items = -(-first.size // (self.update_run or (_WIDE // size if wide else self.shape["RUN"])))
        params = struct.pack(f"={1 + len(arrays)}{code}", first.size, *[a.offset // size for a in arrays])
        plan = Plan(None, self._groups(items), params)
        if plan.groups:
            name = symbol("update", update.name + "".join(f"_{k}" for k in there), short)
            names = [f"{name}_dense"] if self.cpu_shapes else [f"{name}_dense", f"{name}_wide"]
            defines: dict[str, Any] = {"NAME": name, "IDX": index, **_defines(update, there), **type_defines(short)}
            if self.update_run is not None:
                defines["MANY"] = self.update_run
            plan.kernel = self.kernel("optimizer", defines, names[-1] if wide else names[0], names)
        return plan


_NOT_DENSE = Plan(None, 0, b"")


def _spelled(expression: str, names: dict[str, str]) -> str:
    """``expression`` with the letters of its operands replaced by these names."""
    return _LETTER.sub(lambda match: names[match[0]], expression)


def _defines(update: Update, there: tuple[int, ...] = ()) -> dict[str, Any]:
    """What ``kernels/optimizer.c`` wants to know of an update. ``there``: the numbers in the device's memory."""
    arrays, numbers = len(update.arrays), len(update.numbers)
    variables = [f"x{k}" for k in range(arrays)]
    variables += [f"s{k}" if k in there else f"numbers.n[{k}]" for k in range(numbers)]
    variables += [f"h{k}" for k in range(update.temporaries)]
    body = "".join(f"T s{k} = q{k}[0]; " for k in there) + "".join(f"T h{k}; " for k in range(update.temporaries))
    for target, kernel, operands in update.places:
        names = dict(zip("abcdefg", (variables[i] for i in operands), strict=False))
        body += f"{variables[target]} = {_spelled(kernel.c['f'], names)}; "
    every, written = range(arrays), update.written
    return {
        "ARRAYS": arrays,
        "NUMBERS": numbers,
        "POINTERS": "".join(f"GLOBAL T *p{k}, " for k in every) + "".join(f"GLOBAL T *q{k}, " for k in there),
        "LOADS(FROM)": " ".join(f"T x{k} = FROM({k}, p{k});" for k in every),
        "STORES(TO)": " ".join(f"TO({k}, p{k}) = x{k};" for k in written),
        "BODY": body,
        "BUFFERS": " ".join(f"T v{k}[RUN] __attribute__((aligned(RUN * sizeof(T))));" for k in every),
        "FETCHES": " ".join(f"FETCH({k}, v{k}, p{k})" for k in every),
        "PICKS": " ".join(f"T x{k} = v{k}[gg_j];" for k in every),
        "PUTS": " ".join(f"v{k}[gg_j] = x{k};" for k in written),
        "RETURNS": " ".join(f"RETURN({k}, v{k}, p{k})" for k in written),
        "WIDE_LOADS(FROM)": " ".join(f"w[{k}] = FROM({k}, p{k});" for k in every),
        "WIDE_STORES(TO)": " ".join(f"TO({k}, p{k}) = w[{k}];" for k in written),
    }
