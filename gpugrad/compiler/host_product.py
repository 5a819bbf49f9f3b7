"""Small matrix products in compiled programs on the CPU, as C text: inside a segment they cost less than a call of BLAS
through NumPy does. Others are the backend's (``backends/products.py``)."""

from __future__ import annotations

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
