"""The kernel backends' attention: ``kernels/attention.c``, one launch forward and two or three backward.

What the routines take and return is in ROUTINES of ``gpugrad/ops/fused.py``.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from gpugrad.backends.base import StridedArray
from gpugrad.backends.cpu_attention import Dropout, beside, dropout_limit
from gpugrad.backends.kernel_core import KernelCore, Plan, scalar_packer
from gpugrad.backends.kernel_rows import _work
from gpugrad.backends.kernel_source import ATTENTION_KERNELS, SHORT, symbol, type_defines

#: the widest queries and values: those of a tile have to fit into local memory, on CPU-type devices into the cache
WIDEST = 128
#: of an item on a CPU-type device: see kernels/attention.c
QUERIES, KEYS = 256, 64
#: items of a CPU-type device that a backward pass has at least, if there are keys enough
PARTS = 8
#: widths that kernels/attention_mma.c does
MMA_WIDTHS = (32, 64, 128)
#: bytes of local memory that every device has
_LOCAL = 32 << 10

_BLOCKS = ((64, 64, 16), (64, 32, 16), (32, 32, 16), (32, 16, 16), (16, 16, 16), (16, 16, 8), (16, 8, 8), (8, 8, 8))
_NAMES = ("q", "k", "v", "mask", "out", "g", "dq", "dk", "dv")


class _AttentionPlan(Plan):
    """One launch and how its results lie in memory."""

    __slots__ = ("scale",)
    scale: bytes


def gpu_blocks(width: int, value_width: int, size: int, items: int) -> tuple[int, int, int]:
    """(queries, keys, side): what a group of a GPU has in local memory, and its items, ``side`` by ``side``, of which
    ``items`` are allowed. The largest of a few that leave room for what is kept there, elements of ``size`` bytes."""
    widest = max(width, value_width) + 1
    for rows, keys, side in _BLOCKS:
        if side * side > items:
            continue
        count = max(rows, keys) * (width + 1 + value_width + 1 + widest) + rows * (keys + 1 + side + 1)
        if count * size + rows * keys <= _LOCAL:
            return rows, keys, side
    return _BLOCKS[-1]


class _Way(NamedTuple):
    """A family of kernels, the queries and keys that a group (or an item) has at once, the items of a group, and
    whether each item does something of its own."""

    family: str
    rows: int
    keys: int
    local: int
    each_item: bool


def fits_tensor_cores(arrays: dict[str, StridedArray]) -> bool:
    """Whether ``kernels/attention_mma.c`` does these: half types, a width that it has, and rows of which each begins at
    a multiple of 16 bytes with its elements side by side."""
    q, v = arrays["q"], arrays["v"]
    if SHORT[q.dtype] not in ("f16", "bf16") or q.shape[3] != v.shape[3] or q.shape[3] not in MMA_WIDTHS:
        return False
    return all(
        x.strides[3] == x.itemsize and not any(s % 16 for s in (x.offset, *x.strides[:3])) for x in arrays.values()
    )


def mma_rows(width: int) -> int:
    """How many rows of the other side the kernels for tensor cores have in shared memory: what registers allow."""
    return 64 if width <= 64 else 32


def attention_defines(
    name: str, dtype: np.dtype, width: int, value_width: int, mask: StridedArray | None, index: str
) -> dict[str, Any]:
    """What all kernels of attention are told."""
    short = SHORT[dtype]
    defines: dict[str, Any] = {"NAME": name, "X": short, "IDX": index, "E": width, "W": value_width, "GG_CONTRACT": 1,
                               **type_defines(short)}  # fmt: skip
    if short == "bf16":
        defines["BITS_BF16"] = 1
    if mask is not None:
        defines["MASK"] = SHORT[mask.dtype]
        if mask.dtype == np.bool_:
            defines["BOOLEAN"] = 1
    return defines


def attention_values(
    items: int, sizes: Sequence[int], tiles: int, chunk: int, causal: bool, arrays: dict[str, StridedArray]
) -> list[int]:
    """The argument ``Attention`` of the kernels; ``sizes``: heads, heads to one key, queries and keys."""
    values = [items, *sizes, tiles, chunk, causal]
    for name in _NAMES:
        x = arrays.get(name)
        values += [0] * 5 if x is None else [x.offset // x.itemsize, *(s // x.itemsize for s in x.strides)]
    return values


class AttentionOps(KernelCore):
    """Attention of the kernel backends."""

    #: whether the device has the tensor cores of CUDA's sm_80
    tensor_cores = False

    def fused_attention_takes(self, dtype: np.dtype, width: int, value_width: int, queries: int) -> bool:
        if not 0 < max(width, value_width) <= WIDEST or not width:
            return False
        return not self.cpu_shapes or self.vector_bytes >= 2 * _work(dtype).itemsize

    # -- what a launch is made of -----------------------------------------------------------
    @property
    def _most_items(self) -> int:
        """Of a group of a GPU; a CPU-type device writes down what a GPU would be told."""
        return 256 if self.cpu_shapes else self.shape["GROUP"]

    def _attention_way(self, which: str, arrays: dict[str, StridedArray], dropout: Dropout) -> _Way:
        """How the kernel ``which`` is done here."""
        q, v = arrays["q"], arrays["v"]
        width, value_width = q.shape[3], v.shape[3]
        size = _work(q.dtype).itemsize
        if which == "delta":
            return _Way("attention", 1, 1, 64, True)
        if self.cpu_shapes:
            return _Way("attention", QUERIES, KEYS, 1, True)
        if self.tensor_cores and dropout is None and fits_tensor_cores(arrays):
            return _Way("attention_mma", 64, mma_rows(width), 128, False)
        rows, keys, side = gpu_blocks(width, value_width, size, self._most_items)
        return _Way("attention", rows, keys, side * side, False)

    def _attention_kernel(
        self,
        which: str,
        way: _Way,
        arrays: dict[str, StridedArray],
        mask: StridedArray | None,
        index: str,
        dropout: Dropout,
    ) -> Any:
        q, v = arrays["q"], arrays["v"]
        size = _work(q.dtype).itemsize
        name = symbol(way.family, SHORT[q.dtype])
        if way.family == "attention_mma":
            defines = attention_defines(name, q.dtype, q.shape[3], v.shape[3], mask, index)
            defines |= {"BQ": way.rows, "BK": way.keys}
            names: Sequence[str] = ("forward", "queries", "keys")
        else:
            rows, keys, side = gpu_blocks(q.shape[3], v.shape[3], size, self._most_items)
            defines = attention_defines(name, q.dtype, q.shape[3], v.shape[3], mask, index)
            defines |= {"BQ": rows, "BK": keys, "SIDE": side}
            names = ATTENTION_KERNELS
            if dropout is not None:
                defines["DROPOUT"] = 1
            if self.cpu_shapes:
                width = self.vector_bytes // size
                defines |= {"VW": width, "V": f"{'float' if size == 4 else 'double'}{width}"}
                names = ("forward", "delta", "both")
        return self.kernel(way.family, defines, f"{name}_{which}", [f"{name}_{n}" for n in names], way.local)

    def _attention_plan(
        self,
        which: str,
        arrays: dict[str, StridedArray],
        mask: StridedArray | None,
        causal: bool,
        scale: float,
        dropout: Dropout,
        chunk: int = 0,
    ) -> _AttentionPlan:
        q, k = arrays["q"], arrays["k"]
        key = ("attention", which, causal, scale, dropout is None, chunk,
               *[(x.dtype.num, x.shape, x.strides, x.offset) for x in arrays.values()],
               None if mask is None else (mask.dtype.num, mask.strides, mask.offset))  # fmt: skip
        plan = self._plans.get(key)
        if plan is not None:
            return plan
        given = arrays if mask is None else arrays | {"mask": mask}
        way = self._attention_way(which, arrays, dropout)
        batch, heads, length, _ = q.shape
        groups, keys = k.shape[1:3]
        if which == "delta":
            tiles, items = 1, batch * heads * length
        elif which in ("forward", "queries"):
            tiles = -(-length // way.rows)
            items = batch * heads * tiles
        else:  # with tensor cores the rows of a group are keys here
            tiles = -(-keys // (chunk or (way.rows if way.family == "attention_mma" else way.keys)))
            items = batch * groups * tiles
        layouts = [(x.shape, x.strides, x.offset, x.itemsize) for x in given.values()]
        if chunk:  # gradients of queries for each chunk of keys, one after another
            whole = given["dq"].size * given["dq"].itemsize
            layouts.append(((tiles,), (whole,), 0, given["dq"].itemsize))
        index, code = self._index_type([*layouts, ((items * KEYS,), (1,), 0, 1)])
        kernel = self._attention_kernel(which, way, arrays, mask, index, dropout)
        values = attention_values(items, (heads, heads // groups, length, keys), tiles, chunk, causal, given)
        plan = _AttentionPlan(
            kernel, -(-items // way.local) if way.each_item else items, struct.pack(f"={len(values)}{code}", *values)
        )
        plan.scale = scalar_packer(SHORT[q.dtype])(scale)
        plan.pack = lambda stride: struct.pack(f"={code}", stride)
        return self._remember(key, plan)

    @staticmethod
    def _random_arguments(plan: _AttentionPlan, dropout: Dropout, pack: Any) -> tuple[bytes, ...]:
        p, seed, stream = (0.0, 0, 0) if dropout is None else dropout
        mask = (1 << 64) - 1
        return (plan.scale, pack(1 / (1 - p)), struct.pack("=I", dropout_limit(p)),
                struct.pack("=Q", seed & mask), struct.pack("=Q", stream & mask))  # fmt: skip

    # -- the routines -----------------------------------------------------------------------
    def fused_attention(
        self,
        q: StridedArray,
        k: StridedArray,
        v: StridedArray,
        mask: StridedArray | None,
        causal: bool,
        scale: float,
        dropout: Dropout,
    ) -> tuple[StridedArray, StridedArray]:
        out = beside(self.empty, q, v.shape[3], q.dtype)
        logs = self.empty(q.shape[:3], _work(q.dtype))
        plan = self._attention_plan("forward", {"q": q, "k": k, "v": v, "out": out}, mask, causal, scale, dropout)
        extra = self._random_arguments(plan, dropout, scalar_packer(SHORT[q.dtype]))
        self._launch(plan.kernel, plan.groups, q.buffer, k.buffer, v.buffer, (q if mask is None else mask).buffer,
                     out.buffer, logs.buffer, *extra, plan.params)  # fmt: skip
        return out, logs

    def fused_attention_backward(
        self,
        gradient: StridedArray,
        q: StridedArray,
        k: StridedArray,
        v: StridedArray,
        out: StridedArray,
        logs: StridedArray,
        mask: StridedArray | None,
        causal: bool,
        scale: float,
        dropout: Dropout,
        needed: Sequence[bool],
    ) -> tuple[StridedArray | None, ...]:
        work = _work(q.dtype)
        logs = logs if not logs.offset and logs.is_contiguous else self.copy(logs)
        given = {"q": q, "k": k, "v": v, "g": gradient}
        options = mask, causal, scale, dropout
        delta = self.empty(q.shape[:3], work)
        plan = self._attention_plan("delta", given | {"out": out}, *options)
        self._launch(plan.kernel, plan.groups, gradient.buffer, out.buffer, delta.buffer, plan.params)
        inputs = [x.buffer for x in (q, k, v, q if mask is None else mask, gradient, logs, delta)]
        pack = scalar_packer(SHORT[q.dtype])
        dk, dv = beside(self.empty, k, k.shape[3], k.dtype), beside(self.empty, v, v.shape[3], v.dtype)
        dq: StridedArray | None = None
        if self.cpu_shapes:
            dq = self._attention_both(inputs, given, dk, dv, options, pack)
        else:
            if needed[0]:
                dq = beside(self.empty, q, q.shape[3], q.dtype)
                plan = self._attention_plan("queries", given | {"dq": dq}, *options)
                self._launch(plan.kernel, plan.groups, *inputs, dq.buffer,
                             *self._random_arguments(plan, dropout, pack), plan.params)  # fmt: skip
            if needed[1] or needed[2]:
                plan = self._attention_plan("keys", given | {"dk": dk, "dv": dv}, *options)
                self._launch(plan.kernel, plan.groups, *inputs, dk.buffer, dv.buffer,
                             *self._random_arguments(plan, dropout, pack), plan.params)  # fmt: skip
        return tuple(x if n else None for x, n in zip((dq, dk, dv), needed, strict=True))

    def _attention_both(
        self, inputs: list[Any], given: dict[str, StridedArray], dk: StridedArray, dv: StridedArray, options: Any,
        pack: Any,
    ) -> StridedArray:  # fmt: skip
        """All gradients by one launch: fills ``dk`` and ``dv``, returns that of the queries."""
        q, k = given["q"], given["k"]
        batch, heads, length, width = q.shape
        groups, keys = k.shape[1:3]
        work = _work(q.dtype)
        lanes = self.vector_bytes // work.itemsize
        padded = -(-width // lanes) * lanes
        # Few heads: their keys are cut into chunks, of which each has gradients of queries of its own.
        tiles = -(-keys // KEYS)
        chunks = max(1, min(-(-PARTS // (batch * groups)), tiles))
        chunk = -(-tiles // chunks) * KEYS
        chunks = -(-keys // chunk)
        one = beside(self.empty, q, padded, work)
        size = batch * heads * length * padded
        parts = self.empty((chunks, size), work) if chunks > 1 else one
        target = parts.view(one.shape, one.strides, 0)
        mask, causal, scale, dropout = options
        arrays = given | {"dq": target, "dk": dk, "dv": dv}
        plan = self._attention_plan("both", arrays, mask, causal, scale, dropout, chunk)
        self._launch(plan.kernel, plan.groups, *inputs, parts.buffer, dk.buffer, dv.buffer, plan.pack(size),
                     *self._random_arguments(plan, dropout, pack), plan.params)  # fmt: skip
        if chunks > 1:
            one = self.reduce("sum", parts, (0,), work).view(one.shape, one.strides, 0)
        own = one.view(q.shape, one.strides, 0)
        return own if padded == width and q.dtype == work else self.copy(own, q.dtype)
