"""Copies between arrays whose neighbouring elements lie along different dimensions: transposes, by tiles."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Sequence
from math import prod

import numpy as np

from gpugrad.backends.kernel_core import MAX_DIMS, KernelCore, Plan, Strides, coalesce, elements, pad
from gpugrad.backends.kernel_source import SHORT, symbol

#: shorter dimensions are copied as rows
_SHORTEST = 16


def transpose_plan(
    device: KernelCore,
    shape: Sequence[int],
    strides: tuple[Strides, Strides],
    offsets: tuple[int, int],
    dtype: np.dtype,
) -> Plan | None:
    """The launch that copies elements of ``dtype``, an unsigned integer, between two layouts of ``shape`` (source and
    target, in bytes); None where these do not call for tiles. The result is to be filled in."""
    size = dtype.itemsize
    dims, steps = coalesce(shape, *(elements(s, size) for s in strides))
    i, j = (next((k for k, s in enumerate(own) if s == 1 and dims[k] >= _SHORTEST), None) for own in steps)
    if i is None or j is None or i == j or len(dims) - 2 > MAX_DIMS or not prod(dims):
        return None
    side = 64 if device.cpu_shapes else 32
    others = [k for k in range(len(dims)) if k not in (i, j)]
    batch = [dims[k] for k in others]
    i_tiles, j_tiles = -(-dims[i] // side), -(-dims[j] // side)
    items = i_tiles * j_tiles * prod(batch)
    index, code = device._index_type([(shape, s, o, size) for s, o in zip(strides, offsets, strict=True)])
    values = [items, i_tiles, j_tiles, dims[i], dims[j], steps[0][j], steps[1][i], *(o // size for o in offsets)]
    values += [len(batch), *pad(batch, 1)]
    values += itertools.chain.from_iterable(pad([s[k] for k in others]) for s in steps)
    local = 4 if device.cpu_shapes else device.shape["GROUP"]
    groups = device._groups(items, local) if device.cpu_shapes else items
    plan = Plan(None, groups, struct.pack(f"={len(values)}{code}", *values))
    name = symbol("transpose", SHORT[dtype])
    defines = {"NAME": name, "U": SHORT[dtype], "IDX": index}
    plan.kernel = device.kernel("transpose", defines, f"{name}_tiles", [f"{name}_tiles"], local)
    return plan
