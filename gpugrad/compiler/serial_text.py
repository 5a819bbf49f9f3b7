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
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from gpugrad.backends import kernel_source
from gpugrad.backends.base import Elementwise
from gpugrad.compiler.fusing import Access, Group, Line, Value
from gpugrad.compiler.program import CAST, Buffer, Number

#: elements of a chunk, about: small enough to share out evenly, large enough that starting one costs nothing
CHUNK = 1 << 14
#: of reductions over rows: most rows that one accumulator adds up (floating sums lose digits with their length), and
#: elements worth a chunk of their own (as each chunk leaves a row of partial results)
MOST_ROWS = 256
COLUMN_CHUNK = 1 << 16
#: columns of a chunk where rows are long: their accumulators stay in the nearest cache
COLUMN_WIDTH = 1 << 11
#: terms of a floating sum that go into one vector of accumulators
BLOCK = 1 << 11


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


class _Writer:
    """Writes one group."""

    def __init__(self, unit: Text, group: Group) -> None:
        self.unit = unit
        self.group = group
        self.lines = group.lines
        self.pointers: dict[tuple[int, int, str], int] = {}
        self.pointer_list: list[Pointer] = []
        self.numbers: dict[int, int] = {}
        levels = {line.level for line in self.lines}
        self.by_rows = bool(levels & {"row", "row_reduce"})
        self.columns = [i for i, line in enumerate(self.lines) if line.level == "column"]
        self.totals = [i for i, line in enumerate(self.lines) if line.level == "total"]
        self._schedule()
        self._dimensions()
        self._chunks()
        self._keep()
        self._out: list[str] = []
        self._indent = 0

    # -- what is computed when ---------------------------------------------------------------------
    def _schedule(self) -> None:
        """``phase[i]``: the loop that line i is computed in, or for row-level lines the loop that they come before.
        Reductions come as early, full-level lines as late as they can."""
        lines = self.lines
        phase = [0] * len(lines)
        for i, line in enumerate(lines):
            for x in line.operands:
                if isinstance(x, Value):
                    ended = lines[x.line].level == "row_reduce"
                    phase[i] = max(phase[i], phase[x.line] + ended)
            if line.store is not None:  # what is overwritten is read before
                for k in self._touching(line.store, i):
                    phase[i] = max(phase[i], phase[k])
        latest = [line.level == "full" and max(phase) or phase[i] for i, line in enumerate(lines)]
        used = [False] * len(lines)
        for i in range(len(lines) - 1, -1, -1):
            line = lines[i]
            if line.level == "full" and not used[i]:
                latest[i] = phase[i]
            if line.store is not None:
                for k in self._touching(line.store, i):
                    latest[k] = min(latest[k], latest[i])
                    used[k] = True
            for x in line.operands:
                if isinstance(x, Value) and lines[x.line].level == "full":
                    latest[x.line] = min(latest[x.line], latest[i])
                    used[x.line] = True
        self.phase = [latest[i] if line.level == "full" else phase[i] for i, line in enumerate(lines)]
        self.phases = max(self.phase, default=0) + 1

    def _touching(self, store: Access, i: int) -> Iterable[int]:
        """Lines before ``i`` that read from memory, or write to, the buffer of ``store``."""
        for k in range(i):
            line = self.lines[k]
            reads = any(isinstance(x, Access) and x.buffer is store.buffer for x in line.operands)
            if reads or (line.store is not None and line.store.buffer is store.buffer):
                yield k

    def _accesses(self) -> Iterable[Access]:
        for line in self.lines:
            for x in line.operands:
                if isinstance(x, Access):
                    yield x
            if line.store is not None:
                yield line.store

    def _dimensions(self) -> None:
        """``rows`` and ``inner``: (size, dimension of the group whose strides count) with neighbours merged where every
        access allows it."""
        group = self.group
        accesses = list(self._accesses())
        for a in accesses:
            if any(s % a.dtype.itemsize for s in a.strides):
                raise Unsupported("strides that are no multiples of the element's size")
        order = list(range(len(group.shape)))
        rows = group.rows
        if not self.by_rows and not self.columns and len(order) > 1:
            order, rows = self._memory_order(order, accesses), len(order) - 1
        merged: list[tuple[int, int, bool]] = []
        for place, d in enumerate(order):
            n, is_row = group.shape[d], place < rows
            if n == 1:
                continue
            if merged:
                size, last, was_row = merged[-1]
                free = not self.by_rows and not self.columns
                if (was_row == is_row or free) and all(a.strides[last] == a.strides[d] * n for a in accesses):
                    merged[-1] = (size * n, d, is_row)
                    continue
            merged.append((n, d, is_row))
        if not self.by_rows and not self.columns:
            merged = [(n, d, k < len(merged) - 1) for k, (n, d, _) in enumerate(merged)]
        self.rows = [(n, d) for n, d, is_row in merged if is_row]
        self.inner = [(n, d) for n, d, is_row in merged if not is_row]
        self.row_count, self.width = _product(self.rows), _product(self.inner)

    def _memory_order(self, order: list[int], accesses: Sequence[Access]) -> list[int]:
        """Dimensions with the one in which most accesses go from element to element last, where that is not the last
        already: nothing but speed depends on the order."""
        shape = self.group.shape

        def unit(d: int) -> int:
            return sum(abs(a.strides[d]) == a.dtype.itemsize for a in accesses)

        wide = [d for d in order if shape[d] > 1]
        if not wide:
            return order
        best = max(wide, key=lambda d: (unit(d), d))
        if best == wide[-1] or unit(best) == unit(wide[-1]):
            return order
        first = next((line.store for line in self.lines if line.store is not None), None)
        rest = [d for d in order if d != best]
        if first is not None:
            rest.sort(key=lambda d: -abs(first.strides[d]))
        return [*rest, best]

    def _chunks(self) -> None:
        rows, width = self.row_count, self.width
        self.piece = width
        if not self.by_rows and len(self.inner) == 1:
            if self.columns and width > 2 * COLUMN_WIDTH:
                self.piece = COLUMN_WIDTH
            elif not self.columns and width >= 2 * CHUNK:
                self.piece = CHUNK
        self.pieces = -(-width // self.piece)
        most = max(1, CHUNK // width)
        if self.columns:
            most = min(MOST_ROWS, max(64, COLUMN_CHUNK // width))
        elif self.totals:
            most = min(MOST_ROWS, most)
        self.parts = -(-rows // min(rows, most))
        self.chunk_rows = -(-rows // self.parts)
        self.parts = -(-rows // self.chunk_rows)
        self.chunks = self.parts * self.pieces

    def _keep(self) -> None:
        """Where values are kept for a later loop: in the memory they are stored to, or in the scratch."""
        self.kept: dict[int, int] = {}  # line -> offset in the scratch
        self.reloaded: set[int] = set()
        writers: dict[Buffer, int] = {}
        for line in self.lines:
            if line.store is not None:
                writers[line.store.buffer] = writers.get(line.store.buffer, 0) + 1
        self.scratch = 0
        for i, line in enumerate(self.lines):
            for x in line.operands:
                if not isinstance(x, Value) or self.lines[x.line].level != "full":
                    continue
                k = x.line
                if self.phase[k] == self.phase[i] or k in self.kept or k in self.reloaded:
                    continue
                store = self.lines[k].store
                if store is not None and writers[store.buffer] == 1:
                    self.reloaded.add(k)
                else:
                    self.kept[k] = self.scratch
                    size = 8 if c_type(short_of(self.lines[k].dtype))[1:] == "64" else 4
                    self.scratch += -(-self.width * size // 64) * 64
        # Partial results: a row of accumulators for each part, or one accumulator for each chunk.
        self.partial = 0
        self.offsets: dict[int, int] = {}
        for i in (*self.columns, *self.totals):
            if self._direct(i):
                continue
            short = short_of(self.lines[i].dtype)
            size = 8 if c_type(short)[1:] == "64" else 4
            count = self.parts * self.width if self.lines[i].level == "column" else self.chunks
            self.offsets[i] = self.partial
            self.partial += -(-count * size // 64) * 64

    def _direct(self, i: int) -> bool:
        """Whether a reduction over rows accumulates in the result itself, or a total is stored at once."""
        line = self.lines[i]
        if line.level == "total":
            return self.chunks == 1
        short = short_of(line.dtype)
        assert line.store is not None
        dense = not self.inner or (
            len(self.inner) == 1 and line.store.strides[self.inner[0][1]] == line.dtype.itemsize
        )
        return self.parts == 1 and dense and short not in ("bool", "f16", "bf16")

    # -- writing ---------------------------------------------------------------------------------------
    def _line(self, text: str = "") -> None:
        self._out.append("    " * self._indent + text.strip())

    def _open(self, text: str) -> None:
        self._line(text + " {")
        self._indent += 1

    def _close(self) -> None:
        self._indent -= 1
        self._line("}")

    def kernel(self, name: str) -> Kernel:
        """How to call it, once the text is written."""
        work = self.row_count * self.width * max(1, sum(line.level != "row" for line in self.lines))
        return Kernel(
            name, tuple(self.pointer_list), tuple(self.numbers), self.chunks, self.partial, self.scratch,
            bool(self.offsets), work,
        )  # fmt: skip

    def text(self) -> str:
        """The function, with @ for its name, after a comment of what it computes."""
        self._indent = 1
        self._body()
        body, self._out = self._out, []
        finish: list[str] = []
        if self.offsets:
            self._finish()
            finish, self._out = self._out, []
        rows, inner = (" x ".join(map(str, [n for n, _ in dims])) or "1" for dims in (self.rows, self.inner))
        head = f"// {', '.join(line.kind for line in self.lines)}: {rows} rows of {inner}\n"
        text = head + f"FUNCTION void @({self._parameters(True)}) {{\n" + "\n".join(body) + "\n}\n"
        if finish:
            text += f"FUNCTION void @_finish({self._parameters(False)}) {{\n" + "\n".join(finish) + "\n}\n"
        return text

    def _parameters(self, chunks: bool) -> str:
        found = [
            f"GLOBAL {'' if p.written else 'const '}S_{p.short} *RESTRICT p{k}" for k, p in enumerate(self.pointer_list)
        ]
        found += [f"f64 n{k}" for k in range(len(self.numbers))]
        if self.partial:
            found.append("GLOBAL char *partial")
        if chunks:
            if self.scratch:
                found.append("GLOBAL char *scratch")
            if self.chunks > 1:
                found.append("IDX first, IDX last")
        return ", ".join(found) or "void"

    def _pointer(self, a: Access, written: bool) -> str:
        key = (a.buffer.number, a.offset, short_of(a.dtype))
        k = self.pointers.get(key)
        if k is None:
            k = self.pointers[key] = len(self.pointer_list)
            self.pointer_list.append(Pointer(a.buffer, a.offset, key[2], written))
        elif written and not self.pointer_list[k].written:
            self.pointer_list[k] = self.pointer_list[k]._replace(written=True)
        return f"p{k}"

    def _index(self, a: Access, level: str) -> str:
        """The index of an element, in the names of the loops around."""
        terms = []
        dims: list[tuple[int, str]] = []
        if level in ("full", "row", "row_reduce"):
            dims += [(d, self._row_name(k)) for k, (_, d) in enumerate(self.rows)]
        if level in ("full", "column"):
            dims += [(d, self._inner_name(k)) for k, (_, d) in enumerate(self.inner)]
        for d, name in dims:
            step = a.strides[d] // a.dtype.itemsize
            if step:
                terms.append(name if step == 1 else f"{name} * {step}" if step > 0 else f"{name} * ({step})")
        return " + ".join(terms) or "0"

    def _row_name(self, k: int) -> str:
        return "row" if len(self.rows) == 1 else f"i{k}"

    def _inner_name(self, k: int) -> str:
        return "j" if k == len(self.inner) - 1 else f"j{k}"

    def _place(self) -> str:
        """The number of an element in its row."""
        terms, step = [], 1
        for k in range(len(self.inner) - 1, -1, -1):
            terms.append(self._inner_name(k) + (f" * {step}" if step > 1 else ""))
            step *= self.inner[k][0]
        return " + ".join(reversed(terms)) or "0"

    # -- the function ------------------------------------------------------------------------------------
    def _body(self) -> None:
        many = self.chunks > 1
        if many:
            self._open("for (IDX chunk = first; chunk < last; chunk++)")
            if self.parts > 1 and self.pieces > 1:
                self._line(f"IDX part = chunk / {self.pieces}, piece = chunk - part * {self.pieces};")
            else:
                self._line(f"IDX {'part' if self.parts > 1 else 'piece'} = chunk;")
            if self.pieces > 1:
                self._line(f"IDX begin = piece * {self.piece}, {self._bound('begin', self.piece, self.width, 'end')};")
        for i in self.columns:
            self._open_column(i)
        for i in self.totals:
            self._line(f"{c_type(short_of(self.lines[i].dtype))} t{i} = {self._start(i)};")
        if self.rows:
            if self.parts > 1:
                bound = self._bound("top", self.chunk_rows, self.row_count, "bottom")
                self._line(f"IDX top = part * {self.chunk_rows}, {bound};")
                self._open("for (IDX row = top; row < bottom; row++)")
            else:
                self._open(f"for (IDX row = 0; row < {self.row_count}; row++)")
            self._row_indices()
        for p in range(self.phases):
            self._row_lines(p)
            self._loop(p)
        if self.rows:
            self._close()
        for i in self.totals:
            if self._direct(i):
                store = self.lines[i].store
                assert store is not None
                self._line(self._stored(store, "0", f"t{i}"))
            else:
                t = c_type(short_of(self.lines[i].dtype))
                self._line(f"((GLOBAL {t} *)(partial + {self.offsets[i]}))[{'chunk' if many else '0'}] = t{i};")
        if many:
            self._close()

    @staticmethod
    def _bound(begin: str, step: int, total: int, name: str) -> str:
        if total % step == 0:
            return f"{name} = {begin} + {step}"
        return f"{name} = {begin} + {step} < {total} ? {begin} + {step} : {total}"

    def _open_column(self, i: int) -> None:
        line = self.lines[i]
        t = c_type(short_of(line.dtype))
        assert line.store is not None
        if self._direct(i):
            self._line(f"GLOBAL {t} *RESTRICT c{i} = {self._pointer(line.store, True)};")
        else:
            where = f" + part * {self.width}" if self.parts > 1 else ""
            self._line(f"GLOBAL {t} *RESTRICT c{i} = (GLOBAL {t} *)(partial + {self.offsets[i]}){where};")
        first, last = ("begin", "end") if self.pieces > 1 else ("0", str(self.width))
        self._line(f"for (IDX k = {first}; k < {last}; k++) c{i}[k] = {self._start(i)};")

    def _row_indices(self) -> None:
        if len(self.rows) < 2:
            return
        rest = "row"
        for k in range(len(self.rows) - 1, -1, -1):
            n = self.rows[k][0]
            if k == 0:
                self._line(f"IDX i0 = {rest};")
            else:
                self._line(f"IDX q{k} = {rest} / {n}, i{k} = {rest} - q{k} * {n};")
                rest = f"q{k}"

    def _row_lines(self, p: int) -> None:
        loads: dict[Any, str] = {}
        for i, line in enumerate(self.lines):
            if line.level == "row" and self.phase[i] == p:
                self._compute(i, loads)

    def _loop(self, p: int) -> None:
        """Loop ``p`` over the elements of a row."""
        members = [i for i, line in enumerate(self.lines) if line.level != "row" and self.phase[i] == p]
        if not members:
            return
        reductions = [i for i in members if self.lines[i].level in ("row_reduce", "total")]
        for i in reductions:
            if self.lines[i].level == "row_reduce":
                self._line(f"{c_type(short_of(self.lines[i].dtype))} v{i} = {self._start(i)};")
        for k, (n, _) in enumerate(self.inner[:-1]):
            self._open(f"for (IDX j{k} = 0; j{k} < {n}; j{k}++)")
        length = self.inner[-1][0] if self.inner else 1
        first, last, most = "0", str(length), length
        if self.pieces > 1:
            first, last, most = "begin", "end", self.piece
        blocks = most > BLOCK and any(
            self.lines[i].kind in ("sum", "prod") and self.lines[i].dtype.kind not in "biu" for i in reductions
        )
        if blocks:
            # As many blocks as terms in a block, where a row is very long.
            block = max(BLOCK, 1 << (most.bit_length() // 2))
            self._open(f"for (IDX block = {first}; block < {last}; block += {block})")
            if most % block == 0 and self.width % self.piece == 0:
                first, last = "block", f"block + {block}"
            else:
                self._line(f"IDX stop = block + {block} < {last} ? block + {block} : {last};")
                first, last = "block", "stop"
        for i in reductions:
            self._line(f"{c_type(short_of(self.lines[i].dtype))} r{i} = {self._start(i)};")
        clauses = [f"reduction({self._clause(i)}:r{i})" for i in reductions]
        if length > 1 and (clauses or self._unit_strides(members)):
            self._line(f"SIMD({' '.join(clauses)})")
        self._open(f"for (IDX j = {first}; j < {last}; j++)" if self.inner else "")
        loads: dict[Any, str] = {}
        for i in members:
            self._compute(i, loads)
        self._close()
        for i in reductions:
            name = f"v{i}" if self.lines[i].level == "row_reduce" else f"t{i}"
            self._line(f"{name} = {self._join(i, name, f'r{i}')};")
        if blocks:
            self._close()
        for _ in self.inner[:-1]:
            self._close()
        for i in reductions:
            line = self.lines[i]
            if line.level == "row_reduce":
                short = short_of(line.dtype)
                if short in ("f16", "bf16"):
                    self._line(f"v{i} = gg_round_{short}(v{i});")
                if line.store is not None:
                    self._line(self._stored(line.store, self._index(line.store, "row"), f"v{i}"))

    def _unit_strides(self, members: Sequence[int]) -> bool:
        d = self.inner[-1][1] if self.inner else None
        if d is None:
            return False
        for i in members:
            line = self.lines[i]
            for a in (*line.operands, line.store if line.level == "full" else None):
                if isinstance(a, Access) and a.strides[d] not in (0, a.dtype.itemsize):
                    return False
        return True

    def _stored(self, store: Access, index: str, value: str) -> str:
        short = short_of(store.dtype)
        return f"ST_{short}({self._pointer(store, True)}, {index}, {value});"

    # -- reductions ------------------------------------------------------------------------------------------
    def _start(self, i: int) -> str:
        line = self.lines[i]
        short = short_of(line.dtype)
        t = c_type(short)
        if line.kind in ("sum", "any"):
            return literal(0, t)
        if line.kind in ("prod", "all"):
            return literal(1, t)
        if t[0] == "f":
            return literal(float("-inf") if line.kind == "max" else float("inf"), t)
        if short == "bool":
            return "0" if line.kind == "max" else "1"
        bits = np.iinfo(line.dtype)
        return literal(bits.min if line.kind == "max" else bits.max, t)

    def _clause(self, i: int) -> str:
        """The name of the reduction in a SIMD clause."""
        line = self.lines[i]
        kind = line.kind
        if kind in ("max", "min"):
            return f"gg_{kind}_{c_type(short_of(line.dtype))}" if line.dtype.kind not in "biu" else kind
        return {"sum": "+", "prod": "*", "any": "|", "all": "&"}[kind]

    def _join(self, i: int, a: str, b: str) -> str:
        line = self.lines[i]
        short = short_of(line.dtype)
        t = c_type(short)
        if line.kind in ("max", "min"):
            return f"gg_{line.kind}imum_{t}({a}, {b})"
        sign = {"sum": "+", "prod": "*", "any": "|", "all": "&"}[line.kind]
        joined = f"{a} {sign} {b}"
        return f"CV_{t}({joined})" if t in ("i8", "u8", "i16", "u16") else joined

    # -- one line ----------------------------------------------------------------------------------------------
    def _compute(self, i: int, loads: dict[Any, str]) -> None:
        line = self.lines[i]
        short = short_of(line.dtype)
        if line.level in ("row_reduce", "column", "total"):
            # The operand is counted as the result's type: any and all look at whether it is zero.
            text = self._operand(line.operands[0], "bool" if line.kind in ("any", "all") else short, line, i, loads)
            if line.level == "column":
                place = self._place()
                self._line(f"c{i}[{place}] = {self._join(i, f'c{i}[{place}]', text)};")
            else:
                self._line(f"r{i} = {self._join(i, f'r{i}', text)};")
            return
        value = self._value(i, line, short, loads)
        self._line(f"{c_type(short)} v{i} = {value};")
        if line.store is not None:
            self._line(self._stored(line.store, self._index(line.store, line.level), f"v{i}"))
        if i in self.kept:
            self._line(f"((GLOBAL {c_type(short)} *)(scratch + {self.kept[i]}))[{self._place()}] = v{i};")

    def _value(self, i: int, line: Line, short: str, loads: dict[Any, str]) -> str:
        compute = short_of(line.compute)
        if line.kernel is None:  # a constant
            x = line.operands[0]
            if isinstance(x, Number):
                return _result(self._number(x), "f64", short)
            return _result(literal(x, c_type(short)), short, short)
        if line.kernel is CAST:
            text = self._operand(line.operands[0], compute, line, i, loads)
            return text if compute == short else _result(text, compute, short)
        truth = short == "bool"
        operands, power = line.operands, _small_power(line, compute)
        if power is not None:
            operands = operands[:1]
        name = self.unit.helper(line.kernel, compute, truth, power)
        arguments = []
        for k, x in enumerate(operands):
            wanted = "bool" if k == 0 and line.kernel.masked else compute
            arguments.append(self._operand(x, wanted, line, i, loads))
        text = f"{name}({', '.join(arguments)})"
        return text if truth else _result(text, compute, short)

    def _number(self, x: Number) -> str:
        return f"n{self.numbers.setdefault(x.index, len(self.numbers))}"

    def _operand(self, x: Any, wanted: str, line: Line, i: int, loads: dict[Any, str]) -> str:
        """Operand ``x`` of line ``i`` in the computing type of ``wanted``."""
        if isinstance(x, Number):
            return convert(self._number(x), "f64", wanted)
        if isinstance(x, Value):
            source = self.lines[x.line]
            short = short_of(source.dtype)
            if source.level != "full" or self.phase[x.line] == self.phase[i]:
                return convert(f"v{x.line}", short, wanted)
            key: Any = x.line
            name = loads.get(key)
            if name is None:
                name = loads[key] = f"k{x.line}"
                if x.line in self.kept:
                    text = f"((GLOBAL {c_type(short)} *)(scratch + {self.kept[x.line]}))[{self._place()}]"
                else:
                    assert source.store is not None
                    text = self._loaded(source.store, "full")
                self._line(f"{c_type(short)} {name} = {text};")
            return convert(name, short, wanted)
        if isinstance(x, Access):
            level = "row" if line.level == "row" else "full"
            key = (x.buffer.number, x.offset, x.strides)
            name = loads.get(key)
            short = short_of(x.dtype)
            if name is None:
                name = loads[key] = f"x{i}_{len(loads)}"
                self._line(f"{c_type(short)} {name} = {self._loaded(x, level)};")
            return convert(name, short, wanted)
        return ("1" if x else "0") if wanted == "bool" else literal(x, c_type(wanted))

    def _loaded(self, a: Access, level: str) -> str:
        return f"LD_{short_of(a.dtype)}({self._pointer(a, False)}, {self._index(a, level)})"

    # -- the end of reductions over rows -------------------------------------------------------------------------
    def _finish(self) -> None:
        """Join partial results two by two, in an order that depends on their number alone."""
        self._indent = 1
        for i, offset in self.offsets.items():
            line = self.lines[i]
            column = line.level == "column"
            t = c_type(short_of(line.dtype))
            count, width = (self.parts, self.width) if column else (self.chunks, 1)
            store = line.store
            assert store is not None
            self._open("")
            self._line(f"GLOBAL {t} *at = (GLOBAL {t} *)(partial + {offset});")
            if count > 1:
                self._open(f"for (IDX step = 1; step < {count}; step *= 2)")
                self._open(f"for (IDX k = 0; k + step < {count}; k += 2 * step)")
                self._line(f"GLOBAL {t} *RESTRICT a = at + k * {width};")
                self._line(f"GLOBAL const {t} *RESTRICT b = at + (k + step) * {width};")
                self._line(f"for (IDX j = 0; j < {width}; j++) a[j] = {self._join(i, 'a[j]', 'b[j]')};")
                self._close()
                self._close()
            if column:
                for k, (n, _) in enumerate(self.inner):
                    name = self._inner_name(k)
                    self._open(f"for (IDX {name} = 0; {name} < {n}; {name}++)")
                self._line(self._stored(store, self._index(store, "column"), f"at[{self._place()}]"))
                for _ in self.inner:
                    self._close()
            else:
                self._line(self._stored(store, "0", "at[0]"))
            self._close()


def _product(dims: Iterable[tuple[int, int]]) -> int:
    total = 1
    for n, _ in dims:
        total *= n
    return total


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
