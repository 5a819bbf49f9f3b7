"""C text of groups in "serial rows" form: one function computes rows one after another, vector loops inside.

This is the shape for processors: ``host.py`` compiles it with the system's C compiler, CPU-type OpenCL devices take it
too. A function computes *chunks*, pieces of the group's space whose bounds depend on shapes alone, so that chunks can
be shared out among threads without changing a bit of the result::

    void gg_name(pointers.., numbers.., char *partial, char *scratch, IDX first, IDX last)   chunks first to last - 1
    void gg_name_finish(pointers.., numbers.., char *partial)                                afterwards, once

``partial`` (if the kernel asks for it) holds the results of each chunk of a reduction over rows or over everything,
``scratch`` the values of a row between its loops; several callers each need their own scratch.

A row is computed in loops over its elements. A loop computes all that does not wait for a reduction over the row; the
reductions end it, what is computed once per row comes next, then the next loop.
"""

from __future__ import annotations

import re
from functools import cache

from gpugrad.backends import kernel_source
from gpugrad.backends.base import Elementwise
from gpugrad.compiler.fusing import Group
from gpugrad.compiler.serial_plan import BLOCK
from gpugrad.compiler.serial_rows import _Writer
from gpugrad.compiler.serial_values import (
    Kernel,
    Pointer,
    Unsupported,
    _result,
    _small_power,
    c_type,
    convert,
    literal,
    short_of,
)

__all__ = [
    "BLOCK", "Kernel", "Pointer", "Text", "Unsupported", "_Writer", "_result", "_section", "_small_power", "c_type",
    "convert", "literal", "short_of",
]  # fmt: skip


class Text:
    """The functions of one translation unit: what operations compute, and the kernels made of them."""

    def __init__(self) -> None:
        self._helpers: dict[str, dict[str, str]] = {}  # computing dtype -> name -> text
        self._kernels: dict[str, str] = {}  # text with a blank for the name -> name
        self._names: dict[str, int] = {}

    def kernel(self, group: Group) -> Kernel:
        """``group`` as a function; one that is there already if the text is the same. Raises Unsupported."""
        writer = _Writer(self, group)
        body = writer.text()
        name = self._kernels.get(body)
        if name is None:
            name = self._kernels[body] = self.fresh_name(kernel_source.symbol(group.name))
        return writer.kernel(name)

    def fresh_name(self, name: str) -> str:
        """``name``, or with a number behind it if it is taken."""
        count = self._names[name] = self._names.get(name, 0) + 1
        return name if count == 1 else f"{name}_{count}"

    def add(self, body: str, name: str) -> str:
        """A function given as text with @ for its name; returns the name, of an equal one if there is one."""
        found = self._kernels.get(body)
        if found is None:
            found = self._kernels[body] = self.fresh_name(name)
        return found

    def helper(self, kernel: Elementwise, short: str, truth: bool, power: int | None = None) -> str:
        """The name of the function that computes a row of the ops table in the type of ``short``; ``truth``: its result
        is a truth value; ``power``: its second operand is this number."""
        expression = kernel.c.get(kernel_source.kind(short))
        if expression is None:
            raise Unsupported(f"{kernel.name} has no expression for {short}")
        if kernel_source.kind(short) != "f" and set(re.findall(r"sf_\w+", expression)) - {"sf_gcd", "sf_lcm"}:
            raise Unsupported(f"{kernel.name} is not defined for {short}")
        t, parameters = c_type(short), []
        if power is not None:
            # A product of few factors where a general power would stop the loop from becoming vectors.
            product = " * ".join(["a"] * abs(power))
            expression = product if power > 0 else f"(T)1 / ({product})"
        for k in range(kernel.arity if power is None else 1):
            condition = k == 0 and kernel.masked
            parameters.append(f"{'i32' if condition else t} {'abcdefgh'[k]}")
        suffix = "" if power is None else f"{power}".replace("-", "_minus_")
        name = f"{kernel.name}{suffix}_{short if short not in ('f16', 'bf16') else 'f32'}"
        result = f"({expression}) != 0" if truth else expression if t == "f32" else f"CV(TD, {expression})"
        text = f"HELPER {'i32' if truth else t} @({', '.join(parameters)}) {{ return {result}; }}\n"
        section = self._helpers.setdefault("f32" if short in ("f16", "bf16") else short, {})
        known = section.get(name)
        while known is not None and known != text:
            name += "_"
            known = section.get(name)
        section[name] = text
        return name

    def prelude(self, dialect: str) -> str:
        """The dialect, types and functions that everything else stands on."""
        files = (f"dialect/{dialect}.h", "types.h", "vector_math.h")
        return "#define T_f64 1\n" + "".join(kernel_source.text(f) for f in files) + "#undef T_f64\n" + _COMMON

    def helpers(self, whole: bool = True) -> str:
        """What the operations compute, a section for each computing type; with ``whole``, the texts of math.h and
        special.h that they use, too."""
        return "".join(_section(short, texts, whole) for short, texts in sorted(self._helpers.items()))

    def kernels(self) -> str:
        """The kernels."""
        return "\n".join(body.replace("@", name) for body, name in self._kernels.items())


_COMMON = """
#define FUNCTION static __attribute__((noinline))
HELPER f32 gg_round_f16(f32 x) {
    S_f16 held[1];
    ST_f16(held, 0, x);
    return LD_f16(held, 0);
}
HELPER f32 gg_round_bf16(f32 x) { return F32_BITS((u32)gg_bf16_bits(x) << 16); }

// The larger and the smaller one; a NaN wins.
#define GG_EXTREMES(t)                                                                                                \\
    HELPER t gg_maximum_##t(t a, t b) { return (a > b || a != a) ? a : b; }                                           \\
    HELPER t gg_minimum_##t(t a, t b) { return (a < b || a != a) ? a : b; }
GG_EXTREMES(i8)
GG_EXTREMES(u8)
GG_EXTREMES(i16)
GG_EXTREMES(u16)
GG_EXTREMES(i32)
GG_EXTREMES(u32)
GG_EXTREMES(i64)
GG_EXTREMES(u64)
GG_EXTREMES(f32)
#ifdef GG_FP64
GG_EXTREMES(f64)
#endif
"""


@cache
def _defined(files: tuple[str, ...]) -> tuple[list[str], list[str]]:
    """Functions and tables that files define in the type T, and macros whose meaning depends on T."""
    text = "".join(kernel_source.text(f) for f in files)
    names = re.findall(r"^HELPER [\w ]*?(\w+)\(", text, re.M) + re.findall(r"^CONSTANT \w+ (\w+)\[", text, re.M)
    macros = re.findall(r"#define (SF_EPS|SF_PI|SF_COUNT|SF_POLY|SF_CHEB|GG_TRIG)\b", text)
    return list(dict.fromkeys(names)), list(dict.fromkeys(macros))


def _section(short: str, helpers: dict[str, str], whole: bool) -> str:
    """Functions that compute in the type of ``short``. The files they use are written for one type T: here their names
    get the type as a suffix."""
    defines = kernel_source.type_defines(short) | {"T": c_type(short)}
    body = "".join(text.replace("@", name) for name, text in helpers.items())
    before, after = "", ""
    if whole:
        files: tuple[str, ...] = ("math.h",)
        if "sf_" in body:
            files += ("coefficients.h", "special.h")
        names, macros = _defined(files)
        before = "".join(f"#define {n} {n}_{short}\n" for n in names)
        before += "".join(kernel_source.text(f) for f in files)
        after = "".join(f"#undef {n}\n" for n in (*names, *macros))
    head = "".join(f"#define {k} {v}\n" for k, v in defines.items())
    tail = "".join(f"#undef {k}\n" for k in defines)
    if not whole:
        return f"// in {c_type(short)} (T)\n{body}\n"
    return head + before + body + after + tail
