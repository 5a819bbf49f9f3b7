"""What CUDA and OpenCL share, assembled: elementwise operations and reductions as kernels.

``kernel_source.py`` (texts), ``kernel_core.py`` (memory, cache, plans), ``kernel_order.py`` (scans, order, indexing,
random numbers), ``kernel_product.py``, ``kernel_windows.py`` and ``kernel_convolve.py`` are the other parts.
``opencl.py`` and ``cuda.py`` subclass :class:`KernelBackend` and add what the two APIs do differently.
"""

from __future__ import annotations

import itertools
import re
import struct
from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import numpy as np

from gpugrad import layout
from gpugrad.backends import kernel_source
from gpugrad.backends.base import Array, Elementwise, Scalar, StridedArray
from gpugrad.backends.kernel_attention import AttentionOps
from gpugrad.backends.kernel_convolve import ConvolveOps
from gpugrad.backends.kernel_copies import transpose_plan
from gpugrad.backends.kernel_core import (
    MAX_DIMS,
    Plan,
    Strides,
    coalesce,
    dense_order,
    elements,
    pad,
    reduction,
    scalar_packer,
)
from gpugrad.backends.kernel_product import ProductOps
from gpugrad.backends.kernel_source import SHORT, symbol, type_defines
from gpugrad.backends.kernel_tensors import TensorsOps
from gpugrad.backends.kernel_updates import UpdateOps

_BOOL = np.dtype(bool)
_WIDTH = 4  # elements that an item of a GPU reads and writes at once
_LETTERS = "abcdefgh"
_CALL = re.compile(r"(\w+)\(a\)")
_VECTOR_MATH = frozenset("exp2 log2 log10 sin cos tan asin acos atan sinh cosh asinh acosh atanh erfc".split())
_VECTOR_MATH_OF = {"f32": _VECTOR_MATH, "f64": _VECTOR_MATH | {"expm1", "log", "log1p", "erf"}}
"""What is called on vectors; kernels/vector_math.h has the others for f32."""


class KernelBackend(AttentionOps, TensorsOps, UpdateOps, ProductOps, ConvolveOps):
    """The contract's methods, as kernels."""

    #: whether the library of a CPU's language has functions of vectors
    vector_functions = True

    # -- elementwise ------------------------------------------------------------------
    def map(
        self,
        kernel: Elementwise,
        inputs: Sequence[Array | Scalar],
        compute: np.dtype,
        result: np.dtype,
        out: StridedArray | None = None,
    ) -> StridedArray:
        array_type = self.array_type
        if out is None:
            key: Any = (kernel, compute.num, result.num, *[
                (x.dtype.num, x.shape, x.strides, x.offset) if type(x) is array_type else None for x in inputs
            ])  # fmt: skip
        else:
            inputs = [self._clear_of(x, out) if type(x) is array_type else x for x in inputs]
            result = out.dtype
            key = (kernel, compute.num, out.dtype.num, out.shape, out.strides, out.offset, *[
                (x.dtype.num, x.shape, x.strides, x.offset) if type(x) is array_type else None for x in inputs
            ])  # fmt: skip
        plan = self._plans.get(key)
        if plan is None:
            plan = self._remember(key, self._map_plan(kernel, inputs, compute, result, out))
        if out is None:
            out = self._result(plan)
        if plan.groups:
            pack = plan.pack
            args = [x.buffer if type(x) is array_type else pack(x) for x in inputs]
            if plan.flag is None:
                self._launch(plan.kernel, plan.groups, *args, out.buffer, plan.params)
            else:
                self._launch(plan.kernel, plan.groups, *args, out.buffer, plan.params, self._flag_buffer(), plan.flag)
        return out

    def _map_plan(
        self,
        row: Elementwise,
        inputs: Sequence[Array | Scalar],
        compute: np.dtype,
        result: np.dtype,
        out: StridedArray | None,
    ) -> Plan:
        arrays = [x for x in inputs if type(x) is self.array_type]
        shape = out.shape if out is not None else layout.broadcast_shapes(*(x.shape for x in arrays))
        strides = [layout.expand_strides(x.shape, x.strides, shape) for x in arrays]
        if out is not None:
            strides.append(out.strides)
        else:
            strides.append(self._result_strides(shape, arrays, result.itemsize))
        return self._plan_elementwise(row, inputs, arrays, compute, result, shape, strides, out)

    def _result_strides(self, shape: tuple[int, ...], arrays: Sequence[StridedArray], itemsize: int) -> Strides:
        """The order that all operands of full shape share, else C order."""
        full = [elements(x.strides, x.itemsize) for x in arrays if x.shape == shape]
        if full and all(s == full[0] for s in full) and dense_order(shape, full[0], 1):
            return tuple(s * itemsize for s in full[0])
        return layout.contiguous_strides(shape, itemsize)

    def _plan_elementwise(
        self,
        row: Elementwise,
        inputs: Sequence[Array | Scalar],
        arrays: Sequence[StridedArray],
        compute: np.dtype,
        result: np.dtype,
        shape: tuple[int, ...],
        strides: Sequence[Strides],
        out: StridedArray | None,
    ) -> Plan:
        """The plan for ``row`` over ``arrays`` (and scalars) with ``strides`` as broadcast, the result's last."""
        sizes = [x.itemsize for x in arrays] + [result.itemsize]
        offsets = [x.offset for x in arrays] + [out.offset if out is not None else 0]
        dims, steps = coalesce(shape, *(elements(s, n) for s, n in zip(strides, sizes, strict=True)))
        where = [o // n for o, n in zip(offsets, sizes, strict=True)]
        index, code = self._index_type([(shape, s, o, n) for s, o, n in zip(strides, offsets, sizes, strict=True)])
        total = prod(shape)
        run = self.shape["RUN"]
        dense = all(s == steps[-1] for s in steps) and (dense_order(dims, steps[-1], 1))
        if dense:
            params = struct.pack(f"={1 + len(where)}{code}", total, *where)
            items, variant = -(-total // run), "dense"
            if not self.cpu_shapes and not any(o % _WIDTH for o in where):
                items, variant = -(-total // _WIDTH), "wide"
        else:
            if len(dims) > MAX_DIMS:
                raise RuntimeError(
                    f"{row.name}: {len(dims)} dimensions that cannot be merged; at most {MAX_DIMS} "
                    "are possible on this device: make the operands contiguous first"
                )
            piece = self.shape["PIECE"]
            pieces = -(-dims[-1] // piece)
            all_rows = total // dims[-1] if total else 0
            rows = max(1, piece // dims[-1]) if total else 1
            items, variant = -(-all_rows // rows) * pieces, "strided"
            values = [items, pieces, rows, all_rows, dims[-1], len(dims) - 1, *pad(dims[:-1], 1), *where,
                      *(s[-1] for s in steps)]  # fmt: skip
            values += itertools.chain.from_iterable(pad(s[:-1]) for s in steps)
            params = struct.pack(f"={len(values)}{code}", *values)
        # An item of a strided kernel does so much on a CPU that smaller groups share the work better.
        local = 16 if self.cpu_shapes and not dense else self.shape["LOCAL_SIZE"]
        plan = Plan(None, self._groups(items, local), params).result(shape, result, tuple(strides[-1]))
        plan.pack = scalar_packer(SHORT[compute])
        if row.c_check is not None and row.error is not None:
            plan.flag = self._message(row.error[0], row.error[1].replace("{a}", "{value}").replace("{b}", "{second}"))
        if plan.groups:
            name, defines = self._map_defines(row, inputs, compute, result, index)
            variants = ["dense", "strided"] if self.cpu_shapes else ["dense", "wide", "strided"]
            plan.kernel = self.kernel("map", defines, f"{name}_{variant}", [f"{name}_{v}" for v in variants], local)
        return plan

    def _map_defines(
        self, row: Elementwise, inputs: Sequence[Array | Scalar], compute: np.dtype, result: np.dtype, index: str
    ) -> tuple[str, dict[str, Any]]:
        """Symbol and definitions of one elementwise specialisation."""
        short = SHORT[compute]
        name = symbol("map", row.name, short)
        parameters, loads, buffers, fetches, picks, unbundles, count = "", "", "", "", "", "", 0
        stored = [SHORT[result]]
        for letter, x in zip(_LETTERS, inputs, strict=False):
            if type(x) is self.array_type:
                dtype = SHORT[x.dtype]
                parameters += f"GLOBAL const S_{dtype} *p{count}, "
                loads += f"T {letter} = CV({short}, LD({dtype}, p{count}, AT({count}))); "
                buffers += f"T v{count}[VECTOR] __attribute__((aligned(VECTOR * sizeof(T)))); "
                fetches += f"FETCH(v{count}, {dtype}, p{count}, {count}) "
                picks += f"T {letter} = v{count}[gg_j]; "
                unbundles += f"T {letter} = CV({short}, LD({dtype}, v{count}.held, gg_j)); "
                stored.append(dtype)
                count += 1
            else:
                parameters += f"T {letter}, "
        expression = row.c[kernel_source.kind(short)]
        defines = {"NAME": name, "EXPR": f"({expression})", "INPUTS": parameters,
                   "LOADS": loads, "R": SHORT[result], "OPERANDS": count + 1, "IDX": index,
                   "BUFFERS": buffers, "FETCHES": fetches, "PICKS": picks, "UNBUNDLES": unbundles,
                   "BUNDLES": " ".join(f"BUNDLE_OF({d})" for d in dict.fromkeys(stored)),
                   **type_defines(short)}  # fmt: skip
        if row is _MOVE:
            defines["COPY"] = 1
        function = _CALL.fullmatch(expression)
        if (
            self.cpu_shapes
            and self.vector_functions
            and count == 1
            and function
            and function[1] in _VECTOR_MATH_OF.get(short, ())
        ):
            width = self.shape["VECTOR"]
            defines |= {"FUNCTION": function[1], "V": f"{'float' if short == 'f32' else 'double'}{width}"}
        if row.c_check is not None:
            defines["CHECK"] = row.c_check
            defines["SECOND"] = "b" if row.arity > 1 else "0"
        return name, defines

    def copy(self, array: StridedArray, dtype: np.dtype | None = None, out: StridedArray | None = None) -> StridedArray:
        if out is not None:
            dtype = out.dtype
            array = self._clear_of(array, out)
            key: Any = ("copy", array.dtype.num, array.shape, array.strides, array.offset,
                        dtype.num, out.shape, out.strides, out.offset)  # fmt: skip
        else:
            dtype = array.dtype if dtype is None else np.dtype(dtype)
            key = ("copy", array.dtype.num, array.shape, array.strides, array.offset, dtype.num)
        plan = self._plans.get(key)
        if plan is None:
            plan = self._remember(key, self._copy_plan(array, dtype, out))
        target = out if out is not None else self._result(plan)
        if plan.groups:
            self._launch(plan.kernel, plan.groups, array.buffer, target.buffer, plan.params)
        return target

    def _copy_plan(self, array: StridedArray, dtype: np.dtype, out: StridedArray | None) -> Plan:
        shape = array.shape if out is None else out.shape
        source: Strides = layout.expand_strides(array.shape, array.strides, shape)
        target = layout.contiguous_strides(shape, dtype.itemsize) if out is None else out.strides
        if len(coalesce(shape, source, target)[0]) > MAX_DIMS:
            raise RuntimeError(
                f"copy: a tensor of shape {shape} and strides {source} has more than {MAX_DIMS} "
                "dimensions that cannot be merged, which is not possible on this device"
            )
        compute, stored = dtype, dtype
        if array.dtype == dtype:  # move bits: one kernel for each size of element
            compute = stored = np.dtype(f"u{dtype.itemsize}")
            array = self.array_type(array.buffer, array.offset, array.shape, array.strides, stored)
        elif SHORT[dtype] in ("f16", "bf16") and array.dtype == np.float64:
            compute = np.dtype(np.float64)  # round once
        row = _MOVE if array.dtype == stored else _COPY
        if row is _MOVE:
            offsets = array.offset, 0 if out is None else out.offset
            tiles = transpose_plan(self, shape, (source, target), offsets, stored)
            if tiles is not None:
                return tiles.result(shape, dtype, tuple(target))
        plan = self._plan_elementwise(row, [array], [array], compute, stored, shape, [source, target], out)
        plan.dtype = dtype
        return plan

    def fill(self, out: StridedArray, value: Scalar) -> None:
        key = ("fill", out.dtype.num, out.shape, out.strides, out.offset)
        plan = self._plans.get(key)
        if plan is None:
            stored = np.dtype(f"u{out.itemsize}")
            plan = self._plan_elementwise(_COPY, [0], [], stored, stored, out.shape, [out.strides], out)
            plan.pack = bits_packer(out.dtype)
            self._remember(key, plan)
        if plan.groups:
            self._launch(plan.kernel, plan.groups, plan.pack(value), out.buffer, plan.params)

    def arange(self, n: int, start: Scalar, step: Scalar, dtype: np.dtype) -> StridedArray:
        dtype = np.dtype(dtype)
        result = self.empty((n,), dtype)
        if n == 0:
            return result
        short = SHORT[dtype]
        compute = "i64" if kernel_source.kind(short) != "f" else "f64" if self.fp64 else "f32"
        index, code = self._index_type([((n,), (dtype.itemsize,), 0, dtype.itemsize)])
        name = symbol("arange", short)
        kernel = self.kernel("arange", {"NAME": name, "R": short, "IDX": index, **type_defines(compute)}, name, [name])
        pack = scalar_packer(compute)
        self._launch(kernel, self._groups(n), result.buffer, pack(start), pack(step), struct.pack("=" + code, n))
        return result

    # -- reductions ---------------------------------------------------------------------
    def reduce(self, kind: str, array: StridedArray, axes: Sequence[int], dtype: np.dtype) -> StridedArray:
        axes = tuple(axes)
        key = (kind, dtype.num, axes, array.dtype.num, array.shape, array.strides, array.offset)
        plans = self._plans.get(key)
        if plans is None:
            plans = self._remember(key, self._reduce_plans(kind, array, axes, dtype))
        if type(plans) is not list:
            return plans(array)
        for plan in plans:
            result = self._result(plan)
            self._launch(plan.kernel, plan.groups, array.buffer, result.buffer, plan.params)
            array = result
        return array

    def _reduce_plans(self, kind: str, array: StridedArray, axes: tuple[int, ...], dtype: np.dtype) -> Any:
        """The launches of a reduction, one reading the other's result; or a function where no kernel is needed."""
        shape = layout.reduced_shape(array.shape, axes, False)
        if not all(shape):
            return lambda array: self.empty(shape, dtype)
        if array.size == 0:
            return lambda array: self.full(shape, {"prod": 1, "all": 1}.get(kind, 0), dtype)
        if all(array.shape[a] == 1 for a in axes):
            steps = [s for i, s in enumerate(array.strides) if i not in axes]
            if kind in ("any", "all"):
                return lambda array: self.copy(self.copy(array.view(shape, steps, 0), _BOOL), dtype)
            return lambda array: self.copy(array.view(shape, steps, 0), dtype)
        plans: list[Plan] = []
        wide = np.dtype(np.float32) if SHORT[dtype] in ("f16", "bf16") else dtype
        current, reduced = array, axes
        while True:
            plan, parts = self._reduce_plan(kind, current, reduced, dtype, wide)
            plans.append(plan)
            if parts is None:
                return [*plans[:-1], plan.result(shape, dtype)]
            parts_shape, reduced = parts
            plan.result(parts_shape, wide)
            strides = layout.contiguous_strides(parts_shape, wide.itemsize)
            current = self.array_type(None, 0, parts_shape, strides, wide)

    def _reduce_plan(
        self, kind: str, array: StridedArray, axes: tuple[int, ...], dtype: np.dtype, wide: np.dtype
    ) -> tuple[Plan, tuple[tuple[int, ...], tuple[int, ...]] | None]:
        """One launch of a reduction and, unless it finishes the work, shape and axes of what is left."""
        steps = elements(array.strides, array.itemsize)
        kept = [i for i in range(array.ndim) if i not in axes]
        order = sorted(axes, key=lambda i: -abs(steps[i]))
        kept_shape, (kept_steps,) = coalesce([array.shape[i] for i in kept], [steps[i] for i in kept])
        inner_shape, (inner_steps,) = coalesce([array.shape[i] for i in order], [steps[i] for i in order])
        if max(len(kept_shape), len(inner_shape)) > MAX_DIMS:
            return self._reduce_plan(kind, self.copy(array), axes, dtype, wide)
        m, n = prod(kept_shape), prod(inner_shape)
        by_column = m > 1 and abs(inner_steps[-1]) > abs(kept_steps[-1])
        if by_column:
            chunk, variant, splits = 256, "column", -(-n // 256)
        elif n <= 32 and m >= 64:
            chunk, variant, splits = n, "short", 1
        else:
            chunk, variant, splits = 4096, "row", -(-n // 4096)
        columns = self.shape["COLUMNS"]
        pieces = -(-kept_shape[-1] // columns)
        index, code = self._index_type([(array.shape, array.strides, array.offset, array.itemsize)])
        starts = [array.offset // array.itemsize, *kept_steps]
        wide_reads = not self.cpu_shapes and inner_steps == [1] and not any(s % _WIDTH for s in starts)
        values = [m, n, chunk, splits, pieces, wide_reads, array.offset // array.itemsize,
                  len(kept_shape), *pad(kept_shape, 1), *pad(kept_steps),
                  len(inner_shape), *pad(inner_shape, 1), *pad(inner_steps)]  # fmt: skip
        stored = dtype if splits == 1 else wide
        name = symbol("reduce", kind, SHORT[array.dtype])
        compute = "bool" if kind in ("any", "all") else SHORT[wide]
        join, start = reduction(kind, compute)
        defines = {"NAME": name, "X": SHORT[array.dtype], "R": SHORT[stored], "JOIN(a, b)": join, "START": start,
                   "IDX": index, **type_defines(compute)}  # fmt: skip
        names = [f"{name}_{v}" for v in ("short", "row", "column")]
        local = None if variant != "row" else self.shape["GROUP"]
        if variant == "row":
            groups = m * splits
        elif variant == "short":
            groups = self._groups(m)
        else:
            local = 8 if self.cpu_shapes else 64
            groups = self._groups(m // kept_shape[-1] * pieces * splits, local)
        kernel = self.kernel("reduce", defines, f"{name}_{variant}", names, local)
        plan = Plan(kernel, groups, struct.pack(f"={len(values)}{code}", *values))
        if splits == 1:
            return plan, None
        return plan, ((splits, m), (0,)) if by_column else ((m, splits), (1,))


_COPY = Elementwise("copy", lambda a: a, "a", 1)
_MOVE = Elementwise("move", lambda a: a, "a", 1)  # a copy that converts nothing


def bits_packer(dtype: np.dtype) -> Callable[[Any], bytes]:
    """Packs a Python number as an element of ``dtype`` in memory."""
    short = SHORT[dtype]
    if kernel_source.kind(short) != "f":
        return scalar_packer(short)

    def pack(value: Any) -> bytes:
        with np.errstate(over="ignore"):
            return np.float64(value).astype(dtype).tobytes()

    return pack
