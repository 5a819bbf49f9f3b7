"""Large elementwise operations and reductions of the CPU backend, in blocks that fit the cache, on all threads.

Where a block begins depends on shapes alone, never on the number of threads, so neither do results.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

#: elements of a block: its operands still fit a core's caches, and the interpreter's share of the time is small
#: (16M elements of tanh(x*2+y)*exp(-x*x): 43 ms with 2**13, 23 to 25 with 2**15 to 2**17; AdamW: 45, 28, 17 ms)
BLOCK = 1 << 17
#: from how many elements on work is done in blocks, and shared out
LARGE = 1 << 18

Share = Callable[[Callable[[int], None], int], None]


def row_blocks(shape: Sequence[int]) -> tuple[int, int]:
    """(rows in a block, number of blocks) along the first dimension."""
    rows = shape[0]
    width = 1
    for n in shape[1:]:
        width *= n
    step = min(max(1, BLOCK // max(width, 1)), rows)
    return step, -(-rows // step)


def flattened(values: Sequence[Any], shape: tuple[int, ...]) -> tuple[list[Any], tuple[int, ...]] | None:
    """Operands whose first dimension can be cut into blocks, and the shape they then have; None where that would
    not pay: operands that are not C-contiguous, or few rows."""
    same = True
    for v in values:
        if type(v) is np.ndarray and v.ndim:
            if not v.flags.c_contiguous:
                return None
            same = same and v.shape == shape
    if same:
        return [v.reshape(-1) if type(v) is np.ndarray and v.ndim else v for v in values], (_size(shape),)
    if shape[0] < 8:
        return None
    return list(values), shape


def _size(shape: Sequence[int]) -> int:
    n = 1
    for s in shape:
        n *= s
    return n


def map_blocks(
    function: Callable[..., Any], values: Sequence[Any], out: np.ndarray, shape: tuple[int, ...], share: Share,
    cast: Callable[[np.ndarray], np.ndarray] | None = None,
) -> None:  # fmt: skip
    """``out[...] = function(*values)`` block by block; ``values`` and ``shape`` from :func:`flattened`, ``out`` of
    that shape. ``cast`` converts each array operand's block first."""
    step, count = row_blocks(shape)
    rows, ndim = shape[0], len(shape)
    cut = [type(v) is np.ndarray and v.ndim == ndim and v.shape[0] == rows for v in values]
    direct = isinstance(function, np.ufunc) and cast is None

    def block(i: int) -> None:
        part = slice(i * step, min((i + 1) * step, rows))
        operands = [v[part] if c else v for v, c in zip(values, cut, strict=True)]
        if direct:
            function(*operands, out=out[part], casting="unsafe")
            return
        if cast is not None:
            operands = [cast(v) if type(v) is np.ndarray else v for v in operands]
        np.copyto(out[part], function(*operands), "unsafe")

    share(block, count)


def reduce_blocks(
    ufunc: np.ufunc, array: np.ndarray, axes: Sequence[int], dtype: np.dtype | None, share: Share
) -> np.ndarray | None:
    """``ufunc.reduce`` of a large C-contiguous ``array`` over ``axes`` that lie side by side, or None where that is
    not so. Partial results are combined in order of their place."""
    shape = array.shape
    if not array.flags.c_contiguous or list(axes) != list(range(axes[0], axes[-1] + 1)):
        return None
    outer, length = _size(shape[: axes[0]]), _size(shape[axes[0] : axes[-1] + 1])
    inner = _size(shape[axes[-1] + 1 :])
    cube = array.reshape(outer, length, inner)
    options: dict[str, Any] = {} if dtype is None else {"dtype": dtype}
    kind = array.dtype if dtype is None else dtype
    if length * inner <= BLOCK:
        result = np.empty((outer, inner), kind)
        step, count = row_blocks((outer, length * inner))

        if inner == 1:
            cube, target = cube[:, :, 0], result[:, 0]
        else:
            target = result

        def rows(i: int) -> None:
            part = slice(i * step, min((i + 1) * step, outer))
            ufunc.reduce(cube[part], axis=1, out=target[part], **options)

        share(rows, count)
    else:
        step = max(1, BLOCK // inner)
        count = -(-length // step)
        partial = np.empty((outer, count, inner), kind)

        def pieces(i: int) -> None:
            o, p = divmod(i, count)
            piece = cube[o, p * step : min((p + 1) * step, length)]
            partial[o, p] = ufunc.reduce(piece[:, 0] if inner == 1 else piece, axis=0, **options)

        share(pieces, outer * count)
        result = ufunc.reduce(partial, axis=1, **options)
    return result.reshape(shape[: axes[0]] + shape[axes[-1] + 1 :])
