"""Arithmetic on shapes and strides: no arrays, no devices.

Strides are in bytes, as NumPy has them. A stride may be 0 (broadcast) or negative.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from itertools import zip_longest
from math import prod
from typing import Any

Shape = tuple[int, ...]


def contiguous_strides(shape: Sequence[int], itemsize: int) -> Shape:
    """Byte strides of a C-contiguous array of ``shape``."""
    strides = []
    step = itemsize
    for n in reversed(shape):
        strides.append(step)
        step *= n if n else 1
    return tuple(reversed(strides))


def is_contiguous(shape: Sequence[int], strides: Sequence[int], itemsize: int) -> bool:
    """Whether the layout is C order without gaps (dimensions of size 1 do not count, and without elements any is)."""
    if 0 in shape:
        return True
    step = itemsize
    for n, s in zip(reversed(shape), reversed(strides), strict=True):
        if n != 1 and s != step:
            return False
        step *= n
    return True


def broadcast_shapes(*shapes: Sequence[int]) -> Shape:
    """The common shape under NumPy's broadcasting rule. Raises ValueError if there is none."""
    result = []
    for sizes in zip_longest(*(reversed(s) for s in shapes), fillvalue=1):
        n = 1
        for m in sizes:
            if m != 1:
                if n not in (1, m):
                    raise ValueError(f"shapes {', '.join(str(tuple(s)) for s in shapes)} do not broadcast")
                n = m
        result.append(n)
    return tuple(reversed(result))


def expand_strides(shape: Sequence[int], strides: Sequence[int], target: Sequence[int]) -> Shape:
    """Strides that show an array of ``shape`` as the larger ``target`` (0 where repeated). Raises ValueError where that
    would read beyond the array."""
    lead = len(target) - len(shape)
    if lead < 0 or any(n != m and n != 1 for n, m in zip(shape, target[lead:], strict=True)):
        raise ValueError(f"shape {tuple(shape)} does not broadcast to {tuple(target)}")
    return (0,) * lead + tuple(
        0 if n == 1 and m != 1 else s for n, s, m in zip(shape, strides, target[lead:], strict=True)
    )


def infer_shape(size: int, shape: Sequence[int]) -> Shape:
    """``shape`` with its one -1 worked out for ``size`` elements. Raises ValueError."""
    shape = tuple(operator.index(n) for n in shape)
    known = prod(n for n in shape if n != -1)
    holes = shape.count(-1)
    if holes > 1 or any(n < -1 for n in shape):
        raise ValueError(f"shape {shape} may have one -1 and no other negative size")
    if holes:
        if known == 0 or size % known:
            raise ValueError(f"shape {shape} is invalid for {size} elements")
        return tuple(size // known if n == -1 else n for n in shape)
    if known != size:
        raise ValueError(f"shape {shape} is invalid for {size} elements")
    return shape


def view_strides(shape: Sequence[int], strides: Sequence[int], target: Sequence[int], itemsize: int) -> Shape | None:
    """Strides that show the same memory as ``target`` (same number of elements), or None
    where no single set of strides can."""
    if prod(target) == 0:
        return contiguous_strides(target, itemsize)
    # Group the old dimensions into maximal runs that lie in memory like one dimension,
    # then lay the new dimensions, from the last one on, over those runs.
    runs: list[list[int]] = []  # [elements, stride of the innermost]
    for n, s in zip(shape, strides, strict=True):
        if n == 1:
            continue
        if runs and runs[-1][1] == n * s:
            runs[-1][0] *= n
            runs[-1][1] = s
        else:
            runs.append([n, s])
    result: list[int] = []
    left, step = (1, itemsize)
    for n in reversed(target):
        if n == 1:
            result.append(step * left if not runs else step)
            continue
        if left == 1:
            left, step = runs.pop()
        if left % n:
            return None
        result.append(step)
        left //= n
        step *= n
    return tuple(reversed(result))


def basic_index(shape: Sequence[int], strides: Sequence[int], index: Any) -> tuple[list[int], list[int], int]:
    """Shape, strides and byte offset of ``array[index]`` for integers, slices, ``...``, None.

    Raises IndexError for an integer out of range or too many indices."""
    items = index if isinstance(index, tuple) else (index,)
    used = sum(1 for i in items if i is not None and i is not Ellipsis)
    if used > len(shape):
        raise IndexError(f"too many indices: {used} for a tensor of {len(shape)} dimensions")
    new_shape: list[int] = []
    new_strides: list[int] = []
    added: list[int] = []
    offset = axis = 0
    for item in items:
        if item is None:
            added.append(len(new_shape))
            new_shape.append(1)
            new_strides.append(0)
        elif item is Ellipsis:
            rest = len(shape) - used
            new_shape += shape[axis : axis + rest]
            new_strides += strides[axis : axis + rest]
            axis += rest
        elif isinstance(item, slice):
            start, stop, step = item.indices(shape[axis])
            n = len(range(start, stop, step))
            new_shape.append(n)
            new_strides.append(strides[axis] * step)
            offset += start * strides[axis] if n else 0
            axis += 1
        else:
            i = operator.index(item)
            n = shape[axis]
            if not -n <= i < n:
                raise IndexError(f"index {i} is out of range for dimension {axis} of size {n}")
            offset += (i + n if i < 0 else i) * strides[axis]
            axis += 1
    new_shape += shape[axis:]
    new_strides += strides[axis:]
    for i in reversed(added):  # as if the new dimension had been the outer one of the next
        if i + 1 < len(new_shape):
            new_strides[i] = new_shape[i + 1] * new_strides[i + 1]
    return new_shape, new_strides, offset


def windows(
    shape: Sequence[int],
    strides: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    dilation: Sequence[int],
) -> tuple[Shape, Shape]:
    """Shape ``[n, c, *out, *kernel]`` and strides of the sliding windows of ``[n, c, *size]``."""
    out = window_counts(shape[2:], kernel, stride, dilation)
    outer = tuple(s * t for s, t in zip(strides[2:], stride, strict=True))
    inner = tuple(s * d for s, d in zip(strides[2:], dilation, strict=True))
    return (*shape[:2], *out, *kernel), (*strides[:2], *outer, *inner)


def window_counts(size: Sequence[int], kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int]) -> Shape:
    """How many windows fit along each dimension."""
    return tuple((n - d * (k - 1) - 1) // t + 1 for n, k, t, d in zip(size, kernel, stride, dilation, strict=True))


def normalize_axis(axis: int, ndim: int, op: str = "", added: int = 0) -> int:
    """``axis`` counted from the front. A 0-d tensor accepts 0 and -1. ``added``: dimensions that the
    op adds, among which the axis may be too. Raises IndexError."""
    axis = operator.index(axis)
    bound = ndim + added or 1
    if not -bound <= axis < bound:
        where = f"{op}: " if op else ""
        raise IndexError(
            f"{where}dimension {axis} is out of range for a tensor of {ndim} dimensions "
            f"(expected {-bound} to {bound - 1})"
        )
    return axis + bound if axis < 0 else axis


def normalize_axes(axes: int | Iterable[int] | None, ndim: int, op: str = "") -> Shape:
    """Sorted distinct non-negative axes; None or () means all. Raises IndexError, RuntimeError."""
    if axes is None:
        return tuple(range(ndim))
    if not isinstance(axes, Iterable):
        return (normalize_axis(axes, ndim, op),) if ndim else _zero_d(axes, op)
    given = tuple(axes)
    if not given:
        return tuple(range(ndim))
    result = tuple(sorted(normalize_axis(a, ndim, op) for a in given))
    if len(set(result)) != len(result):
        raise RuntimeError(f"{op or 'reduction'}: dimensions {given} name one dimension twice")
    return result if ndim else ()


def _zero_d(axis: int, op: str) -> Shape:
    normalize_axis(axis, 0, op)
    return ()


def reduced_shape(shape: Sequence[int], axes: Sequence[int], keepdim: bool) -> Shape:
    """``shape`` after reducing ``axes``."""
    if keepdim:
        return tuple(1 if i in axes else n for i, n in enumerate(shape))
    return tuple(n for i, n in enumerate(shape) if i not in axes)


def may_overlap_itself(shape: Sequence[int], strides: Sequence[int]) -> bool:
    """Whether two different indices can name the same element (0 strides, sliding windows).

    Exact for views made by slicing, permuting and expanding; a layout that interleaves
    dimensions in a more tangled way counts as overlapping."""
    if 0 in shape:
        return False
    extent = 0
    for s, n in sorted((abs(s), n) for n, s in zip(shape, strides, strict=True) if n > 1):
        if s <= extent:
            return True
        extent += s * (n - 1)
    return False


def byte_range(shape: Sequence[int], strides: Sequence[int], itemsize: int) -> tuple[int, int]:
    """First and one-past-last byte touched, relative to the first element."""
    if 0 in shape:
        return 0, 0
    low = sum(s * (n - 1) for n, s in zip(shape, strides, strict=True) if s < 0)
    high = sum(s * (n - 1) for n, s in zip(shape, strides, strict=True) if s > 0)
    return low, high + itemsize
