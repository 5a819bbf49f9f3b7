"""Matrix products in compiled programs on the CPU: C text of small ones, which cost less inside a segment than a call
of BLAS through NumPy does, and large ones shared out among the backend's threads, each with a BLAS of one thread."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from gpugrad.compiler.program import View
from gpugrad.compiler.serial_text import short_of

#: multiply-adds up to which the C text is used
MOST_WORK = 1 << 16
#: terms of one sum
MOST_DEPTH = 512
#: elements of the second matrix, which is copied into rows of whole vectors
MOST_PACKED = 1 << 13
#: rows computed together
ROWS = 4
#: multiply-adds from which on a product is shared out, which costs about 30 us; parts, and rows of one
SHARED = 1 << 22
PARTS = 4
LEAST_ROWS = 16


def is_small(a: View, b: View, out: View) -> bool:
    """Whether ``out = a @ b`` is one for :func:`text`: float32 or float64, two-dimensional, little work."""
    if a.dtype not in (np.float32, np.float64) or len(a.shape) != 2 or len(b.shape) != 2 or not out.dense:
        return False
    (m, k), n = a.shape, b.shape[1]
    if not 0 < m * n * k <= MOST_WORK or k > MOST_DEPTH or k * (n + 15) > MOST_PACKED:
        return False
    return not any(s % a.dtype.itemsize for s in (*a.strides, *b.strides))


def text(a: View, b: View) -> str:
    """The function ``@(a, b, out)`` for operands of these shapes and strides: rows of ``out`` a few at a time, all of
    their columns that fit a vector, and the sum over the depth in registers."""
    short = short_of(a.dtype)
    size = a.dtype.itemsize
    (m, k), n = a.shape, b.shape[1]
    am, ak = (s // size for s in a.strides)
    bk, bn = (s // size for s in b.strides)
    lanes = 64 // size
    while lanes > 4 and lanes // 2 >= n:
        lanes //= 2
    packed = bn != 1 or n % lanes != 0
    wide = -(-n // lanes) * lanes
    lines = [
        f"// ({m}, {k}) @ ({k}, {n})",
        f"FUNCTION CONTRACT void @(const {short} *RESTRICT a, const {short} *RESTRICT b, {short} *RESTRICT out) {{",
        f"    typedef {short} V __attribute__((vector_size({lanes * size}), aligned({size})));",
    ]
    if packed:
        lines += [
            f"    {short} rows[{k * wide}] __attribute__((aligned(64)));",
            f"    for (i32 k = 0; k < {k}; k++) {{",
            f"        for (i32 j = 0; j < {n}; j++) rows[k * {wide} + j] = b[k * {bk} + j * {bn}];",
            f"        for (i32 j = {n}; j < {wide}; j++) rows[k * {wide} + j] = 0;",
            "    }",
        ]
    source, step = ("rows", wide) if packed else ("b", bk)
    for first, last, rows in ((0, m - m % ROWS, ROWS), (m - m % ROWS, m, 1)):
        if first == last:
            continue
        lines += [
            f"    for (i32 i = {first}; i < {last}; i += {rows})",
            f"        for (i32 j = 0; j < {n}; j += {lanes}) {{",
            "            V " + ", ".join(f"sum{r} = {{0}}" for r in range(rows)) + ";",
            f"            for (i32 k = 0; k < {k}; k++) {{",
            f"                V y = *(const V *)({source} + k * {step} + j);",
            *(f"                sum{r} += a[(i + {r}) * {am} + k * {ak}] * y;" for r in range(rows)),
            "            }",
        ]
        for r in range(rows):
            where = f"out + (i + {r}) * {n} + j"
            if n % lanes:
                lines.append(
                    f"            __builtin_memcpy({where}, &sum{r}, sizeof({short}) * ({n} - j < {lanes} ? {n} - j : "
                    f"{lanes}));"
                )
            else:
                lines.append(f"            *(V *)({where}) = sum{r};")
        lines.append("        }")
    return "\n".join([*lines, "}", ""])


def shared(share: Callable[..., None], a: np.ndarray, b: np.ndarray, out: np.ndarray) -> None:
    """``out = a @ b``, C-contiguous, by rows or by matrices of a batch: ``dot`` lets go of the interpreter lock, which
    ``matmul`` keeps. What a part is follows from the shapes alone."""
    if a.ndim == 2:
        rows = len(out)
        count = max(1, min(PARTS, rows // LEAST_ROWS))

        def part(i: int) -> None:
            cut = slice(rows * i // count, rows * (i + 1) // count)
            np.dot(a[cut], b, out[cut])
    else:
        flat = out.reshape(-1, *out.shape[-2:])
        places = list(np.ndindex(*out.shape[:-2]))
        count = min(2 * PARTS, len(places))

        def part(i: int) -> None:
            for k in range(len(places) * i // count, len(places) * (i + 1) // count):
                np.dot(a[places[k]], b[places[k]], flat[k])

    share(part, count)


def is_shared(a: View, b: View) -> bool:
    """Whether :func:`shared` gains: there is enough to do, and to share out, in pieces that outweigh their calls."""
    *batch, m, k = a.shape
    n, count = b.shape[-1], int(np.prod(batch))
    if m * n * k * count < SHARED:
        return False
    return m >= 2 * LEAST_ROWS if not batch else count >= 2 and m * n * k >= SHARED >> 5
