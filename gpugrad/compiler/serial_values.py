"""What texts in "serial rows" form are made of: types, numbers, conversions, and the kernels as they are called."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from gpugrad.backends import kernel_source
from gpugrad.compiler.fusing import Line
from gpugrad.compiler.program import Buffer


class Unsupported(Exception):
    """The group cannot be written in this form; run its steps one by one."""


class Pointer(NamedTuple):
    """A pointer parameter: ``offset`` bytes into ``buffer``, elements of the type named ``short``."""

    buffer: Buffer
    offset: int
    short: str
    written: bool


class Kernel(NamedTuple):
    """A group as a function of the text: its ``name``, the arguments for this group, and how to call it."""

    name: str
    pointers: tuple[Pointer, ...]
    numbers: tuple[int, ...]  #: which of the run's numbers are passed, as f64
    chunks: int
    partial: int  #: bytes needed for partial results; 0: no such parameter
    scratch: int  #: bytes needed for rows of values; 0: no such parameter
    finish: bool  #: whether ``name_finish`` has to be called after all chunks
    work: int  #: elements computed, all lines together


def c_type(short: str) -> str:
    """The type of a value in a register. Truth values are whole words there, as wide as what they are compared from."""
    return "i32" if short == "bool" else kernel_source.compute_type(short)


def short_of(dtype: np.dtype) -> str:
    """The name of a dtype in texts."""
    found = kernel_source.SHORT.get(dtype)
    if found is None:
        raise Unsupported(f"{dtype} has no name in kernels")
    return found


def literal(x: Any, t: str) -> str:
    """The Python number ``x`` as a constant of the C type ``t``."""
    if t in ("f32", "f64"):
        value = float(np.float32(x)) if t == "f32" else float(x)
        if value != value:
            return f"({t})F32_BITS(0x7fc00000u)"
        if value in (float("inf"), float("-inf")):
            return f"({'-' if value < 0 else ''}({t})GG_INFINITY)"
        text = repr(value) if t == "f64" else np.format_float_scientific(np.float32(value), unique=True, trim="0")
        if t == "f32":
            short = repr(float(text))
            text = short if np.float32(short) == np.float32(value) else text
            text += "f"
        return f"({text})" if text[0] == "-" else text
    bits = int(t[1:])
    value = int(x) % (1 << bits)
    if t[0] == "i" and value >> (bits - 1):
        value -= 1 << bits
    if value == -(1 << 63):
        return "(-9223372036854775807 - 1)"
    return f"({value})" if value < 0 else f"{value}u" if t[0] == "u" and value > 2**31 else str(value)


def convert(text: str, source: str, target: str) -> str:
    """A value of dtype ``source`` as one of the computing type of ``target``."""
    if target == "bool":
        return text if source == "bool" else f"({text} != 0)"
    t = c_type(target)
    return text if c_type(source) == t and source != "bool" else f"CV_{t}({text})"


def _small_power(line: Line, compute: str) -> int | None:
    """The exponent, where a line is a floating power by a small whole number."""
    if line.kernel is None or line.kernel.name != "pow" or kernel_source.kind(compute) != "f":
        return None
    x: Any = line.operands[1]
    if isinstance(x, (int, float)) and not isinstance(x, bool) and x in (2, 3, 4, -1, -2, -3):
        return int(x)
    return None


def _result(text: str, source: str, short: str) -> str:
    """A value computed in ``source`` as it would be read back from memory of dtype ``short``."""
    if short not in ("f16", "bf16"):
        return convert(text, source, short)
    narrow = f"gg_round_to_odd({text})" if source == "f64" else convert(text, source, "f32")
    return f"gg_round_{short}({narrow})"
