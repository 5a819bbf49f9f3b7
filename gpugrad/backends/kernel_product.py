"""Matrix products of the kernel backends: which kernel for which shape. See ``kernels.py``.

On CPU-type devices the panel of ``kernels/matmul.c``, its right operand rearranged or as it is; on GPUs a block of
``kernels/block.c``, which of them is tuned (``kernel_tuning.py``). All of these add up the products of an element of
the result in one order, which depends on shapes alone; so no choice changes a bit of it.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from math import prod
from typing import Any, NamedTuple

import numpy as np

from gpugrad.backends.base import StridedArray
from gpugrad.backends.kernel_core import MAX_DIMS, KernelCore, Plan, coalesce, elements, pad
from gpugrad.backends.kernel_source import SHORT, kind, symbol, type_defines
from gpugrad.backends.kernel_tuning import Tuner, rounded, stopwatch

_TILE_ROWS, _TILE_VECTORS = 6, 4  # of the result, in registers
_PACK_ROWS = 64
_ITEM_WORK = 400_000  # multiply-adds worth an item of their own
_TUNED_WORK = 1 << 25  # multiply-adds of a product worth trying kernels for: a millisecond of a slow device
_F32 = np.dtype(np.float32)


class Block(NamedTuple):
    """The block of the result that a group of a GPU computes, ``k`` deep at a time, and an item's part of it."""

    m: int
    n: int
    k: int
    item_m: int
    item_n: int

    @property
    def items(self) -> int:
        return self.m // self.item_m * (self.n // self.item_n)


_BLOCKS = {
    "block128": Block(128, 128, 8, 8, 8),
    "block64x128": Block(64, 128, 8, 4, 8),
    "block64": Block(64, 64, 16, 4, 4),
    "block32": Block(32, 32, 16, 4, 4),
}
_LOCAL_BYTES = 32768  # of local memory, which every device has
_BUSY = 96  # groups that keep a GPU busy


class ProductPlan(Plan):
    """A plan that may first rearrange the right operand (``rearrange``), be done in a wider dtype (``widen``), take
    its operands in the other order (``swapped``), or leave ``parts`` of the sum to be added up, in ``stored``."""

    __slots__ = ("rearrange", "widen", "swapped", "parts", "stored")

    def __init__(self, kernel: Any, groups: int, params: bytes) -> None:
        super().__init__(kernel, groups, params)
        self.rearrange: Plan | None = None
        self.widen: np.dtype | None = None
        self.swapped = False
        self.parts = 1
        self.stored = _F32


class ProductOps(KernelCore):
    """The contract's ``matmul``, as kernels."""

    @cached_property
    def tuner(self) -> Tuner:
        info = self.info()
        identity = (self.name, info.name, info.vendor, info.driver, *map(str, info.extra.values()),
                    "cpu" if self.cpu_shapes else "gpu")  # fmt: skip
        return Tuner(identity, ("matmul.c", "panel.h", "block.c"))

    def matmul(self, a: StridedArray, b: StridedArray, dtype: np.dtype | None = None) -> StridedArray:
        stored = dtype or a.dtype
        key = ("matmul", a.dtype.num, stored.num, a.shape, a.strides, a.offset, b.shape, b.strides, b.offset)
        plan = self._plans.get(key)
        if plan is None:
            plan = self._remember(key, product_plan(self, a, b, stored))
        if not plan.groups:
            result = self._result(plan)
            if result.size:
                self.fill(result, 0)
            return result
        if plan.widen is not None:
            result = self.matmul(self.copy(a, plan.widen), self.copy(b, plan.widen))
            return result if result.dtype == stored else self.copy(result, stored)
        return self._multiply(plan, a, b)

    def _multiply(self, plan: ProductPlan, a: StridedArray, b: StridedArray) -> StridedArray:
        left, right = (b.buffer, a.buffer) if plan.swapped else (a.buffer, b.buffer)
        if plan.rearrange is not None:
            right = self._allocate(plan.rearrange.nbytes)
            self._launch(plan.rearrange.kernel, plan.rearrange.groups, b.buffer, right, plan.rearrange.params)
        result = self._result(plan)
        self._launch(plan.kernel, plan.groups, left, right, result.buffer, plan.params)
        return result if plan.parts == 1 else self.reduce("sum", result, (0,), plan.stored)


@dataclass(frozen=True)
class _Product:
    """What all plans of one product start from. Strides, offsets and batch strides are in elements."""

    device: ProductOps
    a: StridedArray
    b: StridedArray
    stored: np.dtype  # of the result
    dims: list[int]
    a_batch: list[int]
    b_batch: list[int]
    parts: int  # of k, where the result is so small that its elements are too few to share out
    share: int
    index: str
    code: str

    @property
    def sizes(self) -> tuple[int, int, int]:
        return self.a.shape[-2], self.a.shape[-1], self.b.shape[-1]

    @property
    def a_steps(self) -> list[int]:
        return elements(self.a.strides[-2:], self.a.itemsize)

    @property
    def b_steps(self) -> list[int]:
        return elements(self.b.strides[-2:], self.b.itemsize)

    @property
    def offsets(self) -> tuple[int, int]:
        return self.a.offset // self.a.itemsize, self.b.offset // self.b.itemsize

    @property
    def batch(self) -> list[int]:
        """The last entries of a kernel's argument."""
        return [len(self.dims), *pad(self.dims, 1), *pad(self.a_batch), *pad(self.b_batch)]

    def defines(self, name: str) -> dict[str, Any]:
        short = SHORT[self.a.dtype]
        return {"NAME": name, "X": short, "R": SHORT[self.stored], "IDX": self.index, "GG_CONTRACT": 1,
                **type_defines(short)}  # fmt: skip

    def vectors(self) -> dict[str, Any]:
        size = self.a.itemsize
        width = self.device.vector_bytes // size
        return {"VW": width, "V": f"{'float' if size == 4 else 'double'}{width}"}

    def plan(self, values: list[int], groups: int, kernel: Any) -> ProductPlan:
        plan = ProductPlan(kernel, groups, struct.pack(f"={len(values)}{self.code}", *values))
        return self.shaped(plan)

    def shaped(self, plan: ProductPlan) -> ProductPlan:
        plan.result((*self.a.shape[:-1], self.b.shape[-1]), self.stored)
        return plan


Ways = dict[str, Callable[[], ProductPlan]]


def product_plan(device: ProductOps, a: StridedArray, b: StridedArray, stored: np.dtype) -> ProductPlan:
    """The plan of ``a @ b``, stored as ``stored``. Without groups there is nothing to launch and the result is zero or
    empty."""
    *batch, m, k = a.shape
    n = b.shape[-1]
    shape = (*batch, m, n)
    plan = ProductPlan(None, 0, b"")
    plan.result(shape, stored)
    if not k or not prod(shape):
        return plan
    size = a.itemsize
    floating = kind(SHORT[a.dtype]) == "f"
    if device.cpu_shapes and floating and size == 2:
        plan.groups, plan.widen = 1, _F32
        return plan
    a_steps, b_steps = elements(a.strides, size), elements(b.strides, size)
    dims, (a_batch, b_batch) = coalesce(batch, a_steps[:-2], b_steps[:-2])
    if len(dims) > MAX_DIMS:
        raise RuntimeError(
            f"matmul: operands of shape {a.shape} and {b.shape} have more than {MAX_DIMS} batch "
            "dimensions that cannot be merged: make them contiguous first"
        )
    parts, share = (1, k) if device.cpu_shapes else _shares(prod(dims), m, n, k)
    index, code = device._index_type([(a.shape, a.strides, a.offset, size), (b.shape, b.strides, b.offset, size),
                                      ((parts, *shape), (0, *plan.strides), 0, stored.itemsize)])  # fmt: skip
    given = _Product(device, a, b, stored, dims, a_batch, b_batch, parts, share, index, code)
    ways = _cpu_ways(given) if device.cpu_shapes and floating else _gpu_ways(given)
    return _choose(given, ways)


def _choose(given: _Product, ways: Ways) -> ProductPlan:
    """The plan that is fastest here, or the first where the product is too small to find out."""
    names = list(ways)
    m, k, n = given.sizes
    if prod(given.dims) * m * k * n < _TUNED_WORK:
        return ways[names[0]]()
    plans: dict[str, ProductPlan] = {}
    device = given.device

    def measure(name: str, times: int) -> float:
        plan = plans.get(name) or plans.setdefault(name, ways[name]())
        return stopwatch(device._finish, partial(device._multiply, plan, given.a, given.b), times)

    best = device.tuner.choose(_shape_class(given), names, measure)
    return plans.get(best) or ways[best]()


def _shape_class(given: _Product) -> str:
    """Products that share a choice: sizes about the same, operands laid out alike."""
    size, layouts = given.a.itemsize, ""
    for steps in (given.a_steps, given.b_steps):
        layouts += "n" if steps[1] == 1 else "t" if steps[0] == 1 else "s"
        layouts += "c" if max(map(abs, steps)) * size % 4096 == 0 else ""
    sizes = "x".join(str(rounded(s)) for s in (prod(given.dims), *given.sizes))
    return f"{SHORT[given.a.dtype]} {sizes} {layouts}"


# -- CPU-type devices ----------------------------------------------------------------------


def _cpu_ways(given: _Product) -> Ways:
    m, k, n = given.sizes
    rows = _matrix_by_vector(given)
    if rows is not None:
        return {"rows": rows}
    b_k, b_n = given.b_steps
    size = given.a.itemsize
    width = given.device.vector_bytes // size
    packed, plain = partial(_panel_plan, given, True), partial(_panel_plan, given, False)
    if b_n != 1 or n < width or b_k < 0:
        return {"packed": packed}
    # Rows a large power of two apart share few sets of the cache: once they are too many for those, copying b costs
    # less, if many rows of a follow. k = n = 2048: two thirds of the time; 1024: even; 128 rows of 36 KiB: 1.7 times.
    apart = b_k * size
    crowded = k * (apart & -apart) >= 1 << 22 and m >= 64
    return {"packed": packed, "plain": plain} if crowded else {"plain": plain, "packed": packed}


def _panel_plan(given: _Product, packed: bool) -> ProductPlan:
    """An item for each block of rows and four vectors of columns; the right operand ``packed`` before."""
    device, a, dims, b_batch = given.device, given.a, given.dims, given.b_batch
    m, k, n = given.sizes
    (a_m, a_k), (b_k, b_n) = given.a_steps, given.b_steps
    a_offset, b_offset = given.offsets
    short, code = SHORT[a.dtype], given.code
    width = device.vector_bytes // a.itemsize
    vectors = -(-n // width)
    name = symbol("matmul", short)
    defines = {**given.defines(name), **given.vectors(), "PACK_ROWS": _PACK_ROWS}
    names = [f"{name}_pack", f"{name}_panel"]
    b_step, b_vector = b_k, width
    rearrange = None
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
        rearrange = Plan(pack, items, struct.pack(f"={len(values)}{code}", *values))
        rearrange.nbytes = count * panel_size * a.itemsize
        b_offset, b_step, b_vector, b_batch = 0, width, k * width, new_batch
    panels = max(1, vectors // _TILE_VECTORS)
    rows = _TILE_ROWS * max(1, _ITEM_WORK // (_TILE_ROWS * _TILE_VECTORS * width * k))
    rows = min(rows, _TILE_ROWS * -(-m // _TILE_ROWS))
    row_blocks = -(-m // rows)
    items = prod(dims) * panels * row_blocks
    values = [items, m, n, k, row_blocks, rows, panels, a_offset, a_m, a_k, b_offset, b_step, b_vector,
              int(packed), len(dims), *pad(dims, 1), *pad(given.a_batch), *pad(b_batch)]  # fmt: skip
    plan = given.plan(values, items, device.kernel("matmul", defines, names[1], names, 1))
    plan.rearrange = rearrange
    return plan


# -- a vector ------------------------------------------------------------------------------


def _matrix_by_vector(given: _Product) -> Callable[[], ProductPlan] | None:
    """The plan of a product whose result is a row or a column and whose matrix lies by rows, else None."""
    m, k, n = given.sizes
    if k < given.device.shape["GROUP"] // 4:  # too short for a group of items to share
        return None
    if n == 1 and given.a_steps[1] == 1:
        return partial(_rows_plan, given, False)
    if m == 1 and n > 1 and given.b_steps[0] == 1:
        return partial(_rows_plan, given, True)
    return None


def _rows_plan(given: _Product, swapped: bool) -> ProductPlan:
    """Each element of the result a sum along a row of the matrix: the left operand, or the right one ``swapped``."""
    device = given.device
    m, k, n = given.sizes
    rows, offsets, batches = m, given.offsets, (given.a_batch, given.b_batch)
    row, down, vector_step = given.a_steps[0], given.a_steps[1], given.b_steps[0]
    if swapped:
        rows, offsets, batches = n, offsets[::-1], batches[::-1]
        row, down, vector_step = given.b_steps[1], given.b_steps[0], given.a_steps[1]
    name = symbol("matvec", SHORT[given.a.dtype])
    defines = given.defines(name)
    local = 1
    items = prod(given.dims) * (-(-rows // 4) if device.cpu_shapes else rows)
    if device.cpu_shapes:
        defines |= given.vectors()
    else:
        local = device.shape["GROUP"]
    values = [items, rows, k, *offsets, row, down, vector_step,
              len(given.dims), *pad(given.dims, 1), *pad(batches[0]), *pad(batches[1])]  # fmt: skip
    plan = given.plan(values, items, device.kernel("matvec", defines, name, [name], local))
    plan.swapped = swapped
    return plan


# -- GPUs ------------------------------------------------------------------------------------


def _shares(batch: int, m: int, n: int, k: int) -> tuple[int, int]:
    """Into how many parts k is cut, and how much of k is one: by the shapes alone, as it decides the order of sums."""
    tiles = batch * -(-m // 64) * -(-n // 64)
    if tiles * 2 > _BUSY or k < 1024 or m == 1 or n == 1:
        return 1, k
    share = -(-k // min(-(-_BUSY // tiles), k // 256))
    share = -(-share // 16) * 16  # whole blocks
    return -(-k // share), share


def _gpu_ways(given: _Product) -> Ways:
    device = given.device
    m, k, n = given.sizes
    rows = None if device.cpu_shapes else _matrix_by_vector(given)
    if rows is not None:
        return {"rows": rows}
    tile: Ways = {"tile": partial(_tile_plan, given)}
    if device.cpu_shapes:  # integers
        return tile
    wide = type_defines(SHORT[given.a.dtype])["T_BITS"] == "64"
    blocks = {}
    for name, block in _BLOCKS.items():
        block = block._replace(k=8) if wide else block
        local_bytes = 2 * block.k * (block.m + block.n + 8) * (8 if wide else 4)
        if block.items <= device.shape["LOCAL_SIZE"] and local_bytes <= _LOCAL_BYTES:
            blocks[name] = block
    if given.parts == 1 and min(m, n) < 24:
        return tile
    ways: Ways = {name: partial(_block_plan, given, block) for name, block in blocks.items()}
    groups = {name: given.parts * prod(given.dims) * -(-m // b.m) * -(-n // b.n) for name, b in blocks.items()}
    first = next((name for name in blocks if groups[name] >= _BUSY), list(blocks)[-1])
    return {first: ways[first]} | ways


def _tile_plan(given: _Product) -> ProductPlan:
    """A group of items for each small tile of the result."""
    device = given.device
    m, k, n = given.sizes
    tile = device.shape["TILE"]
    tiles_m, tiles_n = -(-m // tile), -(-n // tile)
    values = [m, n, k, tiles_m, tiles_n, *given.offsets, *given.a_steps, *given.b_steps, *given.batch]
    name = symbol("matmul", SHORT[given.a.dtype])
    kernel = device.kernel("matmul", given.defines(name), f"{name}_tile", [f"{name}_tile"], tile * tile)
    return given.plan(values, prod(given.dims) * tiles_m * tiles_n, kernel)


def _block_plan(given: _Product, block: Block) -> ProductPlan:
    """A group of items for each block of the result."""
    device, a, batches = given.device, given.a, prod(given.dims)
    m, k, n = given.sizes
    short = SHORT[a.dtype]
    stored = "f32" if given.parts > 1 and a.itemsize == 2 and kind(short) == "f" else SHORT[given.stored]
    tiles_m, tiles_n = -(-m // block.m), -(-n // block.n)
    values = [m, n, k, tiles_m, tiles_n, given.share, batches, *given.offsets, *given.a_steps, *given.b_steps,
              *given.batch]  # fmt: skip
    (a_m, a_k), (b_k, b_n) = given.a_steps, given.b_steps
    a_offset, b_offset = given.offsets
    left_load, left_along = _loading(a.itemsize, block.m * block.k // block.items, m, k, a_m, a_k,
                                     [a_offset, *given.a_batch])  # fmt: skip
    right_load, right_along = _loading(a.itemsize, block.n * block.k // block.items, n, k, b_n, b_k,
                                       [b_offset, *given.b_batch])  # fmt: skip
    name = symbol("product", short)
    defines = given.defines(name) | {
        "U": "u16" if short == "f16" else f"S_{short}", "R": stored,
        "BM": block.m, "BN": block.n, "BK": block.k, "TM": block.item_m, "TN": block.item_n,
        "LEFT_LOAD": left_load, "LEFT_ALONG": left_along, "RIGHT_LOAD": right_load, "RIGHT_ALONG": right_along,
    }  # fmt: skip
    kernel = device.kernel("block", defines, name, [name], block.items)
    plan = given.plan(values, given.parts * batches * tiles_m * tiles_n, kernel)
    if given.parts > 1:
        plan.parts, plan.stored = given.parts, given.stored
        plan.result((given.parts, *plan.shape), _F32 if stored == "f32" else a.dtype)
    return plan


def _loading(
    size: int, most: int, lines: int, k: int, line_step: int, k_step: int, others: list[int]
) -> tuple[int, int]:
    """How many elements of ``size`` bytes of an operand are read at once, and whether neighbours lie along k. More
    than one only where all the addresses are aligned and each line is a whole number of them."""
    along = int(abs(k_step) <= abs(line_step))
    near, far, extent = (k_step, line_step, k) if along else (line_step, k_step, lines)
    load = min(4 if size <= 4 else 2, most)
    if near != 1 or any(x % load for x in (far, extent, *others)):
        load = 1
    return load, along
