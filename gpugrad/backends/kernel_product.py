"""Launch plans of matrix products: which kernel of ``kernels/matmul.c`` in which shape. See ``kernels.py``."""

from __future__ import annotations

import struct
from math import prod
from typing import Any

import numpy as np

from gpugrad.backends.base import StridedArray
from gpugrad.backends.kernel_core import MAX_DIMS, KernelCore, Plan, coalesce, elements, pad
from gpugrad.backends.kernel_source import SHORT, kind, symbol, type_defines

_TILE_ROWS, _TILE_VECTORS = 6, 4  # of the result, in registers
_PACK_ROWS = 64
_ITEM_WORK = 400_000  # multiply-adds worth an item of their own
_F32 = np.dtype(np.float32)


class ProductPlan(Plan):
    """A plan that may first rearrange the right operand (``rearrange``) or be done in a wider dtype (``widen``)."""

    __slots__ = ("rearrange", "widen")

    def __init__(self, kernel: Any, groups: int, params: bytes) -> None:
        super().__init__(kernel, groups, params)
        self.rearrange: Plan | None = None
        self.widen: np.dtype | None = None


def product_plan(device: KernelCore, a: StridedArray, b: StridedArray) -> ProductPlan:
    """The plan of ``a @ b``. Without groups there is nothing to launch and the result is zero or empty."""
    *batch, m, k = a.shape
    n = b.shape[-1]
    shape = (*batch, m, n)
    plan = ProductPlan(None, 0, b"")
    plan.result(shape, a.dtype)
    if not k or not prod(shape):
        return plan
    size = a.itemsize
    a_steps, b_steps = elements(a.strides, size), elements(b.strides, size)
    dims, (a_batch, b_batch) = coalesce(batch, a_steps[:-2], b_steps[:-2])
    if len(dims) > MAX_DIMS:
        raise RuntimeError(
            f"matmul: operands of shape {a.shape} and {b.shape} have more than {MAX_DIMS} batch "
            "dimensions that cannot be merged: make them contiguous first"
        )
    index, code = device._index_type([(a.shape, a.strides, a.offset, size), (b.shape, b.strides, b.offset, size),
                                      (shape, plan.strides, 0, size)])  # fmt: skip
    if not device.cpu_shapes or kind(SHORT[a.dtype]) != "f":
        return _tile_plan(device, plan, a, b, dims, a_batch, b_batch, index, code)
    if size == 2:
        plan.groups, plan.widen = 1, _F32
        return plan
    return _panel_plan(device, plan, a, b, dims, a_batch, b_batch, index, code)


def _tile_plan(
    device: KernelCore, plan: ProductPlan, a: StridedArray, b: StridedArray,
    dims: list[int], a_batch: list[int], b_batch: list[int], index: str, code: str,
) -> ProductPlan:  # fmt: skip
    """A group of items for each tile of the result."""
    (m, k), n, size = a.shape[-2:], b.shape[-1], a.itemsize
    tile = device.shape["TILE"]
    tiles_m, tiles_n = -(-m // tile), -(-n // tile)
    values = [m, n, k, tiles_m, tiles_n, a.offset // size, b.offset // size,
              *elements(a.strides[-2:], size), *elements(b.strides[-2:], size),
              len(dims), *pad(dims, 1), *pad(a_batch), *pad(b_batch)]  # fmt: skip
    short = SHORT[a.dtype]
    name = symbol("matmul", short)
    defines = {"NAME": name, "X": short, "IDX": index, "GG_CONTRACT": 1, **type_defines(short)}
    plan.kernel = device.kernel("matmul", defines, f"{name}_tile", [f"{name}_tile"], tile * tile)
    plan.groups = prod(dims) * tiles_m * tiles_n
    plan.params = struct.pack(f"={len(values)}{code}", *values)
    return plan


def _panel_plan(
    device: KernelCore, plan: ProductPlan, a: StridedArray, b: StridedArray,
    dims: list[int], a_batch: list[int], b_batch: list[int], index: str, code: str,
) -> ProductPlan:  # fmt: skip
    """An item for each block of rows and four vectors of columns, on a CPU-type device."""
    (m, k), n, size = a.shape[-2:], b.shape[-1], a.itemsize
    (a_m, a_k), (b_k, b_n) = elements(a.strides[-2:], size), elements(b.strides[-2:], size)
    short = SHORT[a.dtype]
    width = device.vector_bytes // size
    vectors = -(-n // width)
    name = symbol("matmul", short)
    vector_type = ("float" if short == "f32" else "double") + str(width)
    defines = {"NAME": name, "X": short, "IDX": index, "GG_CONTRACT": 1, "VW": width, "V": vector_type,
               "PACK_ROWS": _PACK_ROWS,
               **type_defines(short)}  # fmt: skip
    names = [f"{name}_pack", f"{name}_panel"]
    b_offset, b_step, b_vector = b.offset // size, b_k, width
    # Rows a multiple of 4 KiB apart share cache sets, which costs more than copying once many rows of a follow.
    crowded = b_k * size % 4096 == 0 and k >= 128 and m >= 64
    packed = b_n != 1 or n < width or crowded or b_k < 0
    if packed:
        count, panel_size = 1, vectors * k * width
        moving = [i for i, s in enumerate(b_batch) if s != 0 and dims[i] != 1]
        new_batch = [0] * len(dims)
        for i in reversed(moving):
            new_batch[i] = count * panel_size
            count *= dims[i]
        pieces = max(1, k // _PACK_ROWS)
        items = count * vectors * pieces
        values = [items, pieces, k, n, vectors, b_offset, b_k, b_n, len(moving),
                  *pad([dims[i] for i in moving], 1), *pad([b_batch[i] for i in moving])]  # fmt: skip
        pack = device.kernel("matmul", defines, names[0], names, 1)
        plan.rearrange = Plan(pack, items, struct.pack(f"={len(values)}{code}", *values))
        plan.rearrange.nbytes = count * panel_size * size
        b_offset, b_step, b_vector, b_batch = 0, width, k * width, new_batch
    panels = max(1, vectors // _TILE_VECTORS)
    rows = _TILE_ROWS * max(1, _ITEM_WORK // (_TILE_ROWS * _TILE_VECTORS * width * k))
    rows = min(rows, _TILE_ROWS * -(-m // _TILE_ROWS))
    row_blocks = -(-m // rows)
    items = prod(dims) * panels * row_blocks
    values = [items, m, n, k, row_blocks, rows, panels, a.offset // size, a_m, a_k, b_offset, b_step, b_vector,
              int(packed), len(dims), *pad(dims, 1), *pad(a_batch), *pad(b_batch)]  # fmt: skip
    plan.kernel = device.kernel("matmul", defines, names[1], names, 1)
    plan.groups = items
    plan.params = struct.pack(f"={len(values)}{code}", *values)
    return plan
