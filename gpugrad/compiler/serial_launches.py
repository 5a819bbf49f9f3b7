"""Programs on CPU-type OpenCL devices: groups in the "serial rows" form of ``serial_text.py``, as launches.

There a work-item is a thread that does much: a large group is one launch, whose items share its chunks out; many small
groups and small matrix products in a row are one launch of one item, as a launch costs more than they do.

Reductions accumulate in :data:`LANES` neighbouring accumulators, which compilers turn into one vector, where the host's
compiler is told by a pragma that it may.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from gpugrad.backends import kernel_source
from gpugrad.compiler.fusing import Group
from gpugrad.compiler.program import Buffer, Call, Number, View
from gpugrad.compiler.serial_text import BLOCK, Kernel, Text, _section, _Writer

#: neighbouring accumulators of a reduction; in rows of LONG elements a few vectors of them, so that one sum need not
#: wait for the last (with 64 instead of 16 a sum of 16M elements takes half the time)
LANES, MANY_LANES, LONG = 16, 64, 1024
#: elements computed, all lines together, from which on a group is a launch of its own, shared out among threads
LARGE = 1 << 16
#: work-groups of a large group, at most: a few for each thread
SHARES = 64
#: buffers of one launch, by the bytes of parameters that every device takes
MOST_BUFFERS = 48

# In sections of float32: functions that become vector instructions, in place of calls of the device's library.
_FUNCTIONS = {name: f"gg_{name}_f32(x)" for name in ("exp", "expm1", "tanh", "log", "log1p", "erf")}
_FUNCTIONS |= {name: f"__builtin_{name}f(x)" for name in ("sqrt", "fabs", "floor", "ceil", "trunc", "rint")}
_FUNCTIONS |= {"isnan": "((x) != (x))", "isinf": "(__builtin_fabsf(x) == GG_INFINITY)",
               "isfinite": "(__builtin_fabsf(x) < GG_INFINITY)"}  # fmt: skip


class Part(NamedTuple):
    """One call in a launch: the function and, for each parameter, ("pointer", buffer, offset, short, written),
    ("number", index), ("extra", name) for memory of its own, or ("bounds",)."""

    name: str
    parameters: tuple[tuple[Any, ...], ...]
    shares: int


class LaneText(Text):
    """The functions of one text for OpenCL."""

    def kernel(self, group: Group) -> Kernel:
        writer = _LaneWriter(self, group)
        body = writer.text()
        name = self.add(body, kernel_source.symbol(group.name)[:64])
        return writer.kernel(name)

    def helpers(self, whole: bool = True) -> str:
        if not whole:
            return super().helpers(False)
        # The section of f32 comes last: what the device's own names stand for does not come back.
        sections = [_section(short, texts, True) for short, texts in sorted(self._helpers.items()) if short != "f32"]
        if "f32" in self._helpers:
            sections += [f"#undef {name}\n#define {name}(x) {text}\n" for name, text in _FUNCTIONS.items()]
            sections.append(_section("f32", self._helpers["f32"], True))
        return "".join(sections)


class _LaneWriter(_Writer):
    """Writes one group, reductions in lanes."""

    def _loop(self, p: int) -> None:
        members = [i for i, line in enumerate(self.lines) if line.level != "row" and self.phase[i] == p]
        reductions = [i for i in members if self.lines[i].level in ("row_reduce", "total")]
        length = self.inner[-1][0] if self.inner else 1
        if not reductions or length < 2 * LANES:
            super()._loop(p)
            return
        first, last, most = ("begin", "end", self.piece) if self.pieces > 1 else ("0", str(length), length)
        blocks = most > BLOCK
        self._open_rows(reductions, blocks)
        for k, (n, _) in enumerate(self.inner[:-1]):
            self._open(f"for (IDX j{k} = 0; j{k} < {n}; j{k}++)")
        if blocks:
            block = max(BLOCK, 1 << (most.bit_length() // 2))
            self._open(f"for (IDX block = {first}; block < {last}; block += {block})")
            self._line(f"IDX stop = block + {block} < {last} ? block + {block} : {last};")
            first, last = "block", "stop"
        lanes = MANY_LANES if length >= LONG and len(members) <= 4 else LANES
        for i in reductions:
            self._line(f"{self._type(i)} r{i}[{lanes}];")
            self._line(f"for (i32 lane = 0; lane < {lanes}; lane++) r{i}[lane] = {self._start(i)};")
        self._line(f"IDX whole{p} = {first} + ({last} - {first}) / {lanes} * {lanes};")
        self._open(f"for (IDX top = {first}; top < whole{p}; top += {lanes})")
        self._open(f"LANE_LOOP for (i32 lane = 0; lane < {lanes}; lane++)")
        self._line("IDX j = top + lane;")
        self._lane_body(members, reductions)
        self._close()
        self._close()
        self._open(f"for (IDX j = whole{p}; j < {last}; j++)")
        self._line(f"i32 lane = (i32)(j - whole{p});")
        self._lane_body(members, reductions)
        self._close()
        for i in reductions:
            joined = self._join(i, f"r{i}[lane]", f"r{i}[lane + half_]")
            self._line(f"for (i32 half_ = {lanes // 2}; half_ > 0; half_ /= 2)")
            self._line(f"    for (i32 lane = 0; lane < half_; lane++) r{i}[lane] = {joined};")
            self._take_block(i, f"r{i}[0]", blocks)
        if blocks:
            self._close()
        for _ in self.inner[:-1]:
            self._close()
        self._close_rows(reductions, blocks)

    def _lane_body(self, members: Sequence[int], reductions: Sequence[int]) -> None:
        """The elements' lines, the accumulators being those of a lane."""
        begin = len(self._out)
        loads: dict[Any, str] = {}
        for i in members:
            self._compute(i, loads)
        for i in reductions:
            for n in range(begin, len(self._out)):
                self._out[n] = re.sub(rf"\br{i}\b", f"r{i}[lane]", self._out[n])


def part_of(kernel: Kernel, extra: str) -> Part:
    """The chunks of a group, as a call; memory of its own is named after ``extra``."""
    parameters = _common(kernel, extra)
    if kernel.scratch:
        parameters.append(("extra", f"{extra}scratch", kernel.scratch))
    if kernel.chunks > 1:
        parameters.append(("bounds", kernel.chunks))
    large = kernel.work >= LARGE and kernel.chunks > 1
    return Part(kernel.name, tuple(parameters), min(kernel.chunks, SHARES) if large else 1)


def finish_of(kernel: Kernel, extra: str) -> Part:
    """The end of a group with reductions over rows."""
    return Part(f"{kernel.name}_finish", tuple(_common(kernel, extra)), 1)


def _common(kernel: Kernel, extra: str) -> list[tuple[Any, ...]]:
    found: list[tuple[Any, ...]] = [("pointer", *p) for p in kernel.pointers]
    found += [("number", index) for index in kernel.numbers]
    if kernel.partial:
        found.append(("extra", f"{extra}partial", 0))
    return found


# -- small matrix products -----------------------------------------------------------------------------------

#: multiply-adds up to which a product is part of a launch of one item
MOST_WORK = 1 << 17
#: elements of the second matrix, which is copied into rows of whole vectors
MOST_PACKED = 1 << 13


def is_small_product(step: Any) -> bool:
    """Whether a step is a matrix product for :func:`product_part`."""
    if not isinstance(step, Call) or step.method != "matmul" or len(step.args) != 2 or step.kwargs:
        return False
    a, b = step.args
    out = step.results[0]
    if a.dtype != np.float32 or len(a.shape) != 2 or len(b.shape) != 2 or not out.dense:
        return False
    (m, k), n = a.shape, b.shape[1]
    return 0 < m * k * n <= MOST_WORK and k * (n + LANES - 1) <= MOST_PACKED and k <= 4096


def product_part(unit: Text, step: Call) -> Part:
    """A small product as a call."""
    a, b = step.args
    out = step.results[0]
    name = unit.add(_product_text(a, b), "gg_product")
    places = tuple(("pointer", v.buffer, v.offset, "f32", v is out) for v in (a, b, out))
    return Part(name, places, 1)


def _product_text(a: View, b: View) -> str:
    """``@(a, b, out)``: rows of ``out`` a few at a time, LANES columns of them, the sum over the depth in registers."""
    (m, k), n = a.shape, b.shape[1]
    am, ak = (s // 4 for s in a.strides)
    bk, bn = (s // 4 for s in b.strides)
    lanes = LANES
    while lanes > 4 and lanes // 2 >= n:
        lanes //= 2
    wide = -(-n // lanes) * lanes
    lines = [
        f"// ({m}, {k}) @ ({k}, {n})",
        "FUNCTION void @(GLOBAL const f32 *RESTRICT a, GLOBAL const f32 *RESTRICT b, GLOBAL f32 *RESTRICT out) {",
        f"    f32 rows[{k * wide}] __attribute__((aligned(64)));",
        f"    for (i32 k = 0; k < {k}; k++) {{",
        f"        for (i32 j = 0; j < {n}; j++) rows[k * {wide} + j] = b[k * {bk} + j * {bn}];",
        f"        for (i32 j = {n}; j < {wide}; j++) rows[k * {wide} + j] = 0;",
        "    }",
    ]
    for first, last, rows in ((0, m - m % 4, 4), (m - m % 4, m, 1)):
        if first == last:
            continue
        lines += [
            f"    for (i32 i = {first}; i < {last}; i += {rows})",
            f"        for (i32 j = 0; j < {wide}; j += {lanes}) {{",
            *(f"            float{lanes} sum{r} = 0;" for r in range(rows)),
            f"            for (i32 k = 0; k < {k}; k++) {{",
            f"                float{lanes} y = *(const float{lanes} *)(rows + k * {wide} + j);",
            *(f"                sum{r} += a[(i + {r}) * {am} + k * {ak}] * y;" for r in range(rows)),
            "            }",
            f"            i32 count = {n} - j < {lanes} ? {n} - j : {lanes};",
        ]
        for r in range(rows):
            lines.append(f"            f32 got{r}[{lanes}] __attribute__((aligned(64)));")
            lines.append(f"            *(float{lanes} *)got{r} = sum{r};")
            lines.append(f"            for (i32 l = 0; l < count; l++) out[(i + {r}) * {n} + j + l] = got{r}[l];")
        lines.append("        }")
    return "\n".join([*lines, "}", ""])


# -- launches ------------------------------------------------------------------------------------------------


class SerialLaunch(NamedTuple):
    """A kernel that makes the calls ``parts``: by ``groups`` groups of one item that share the chunks of the only one,
    or by one item. Its parameters are a pointer for each of ``buffers`` (None is the planned memory), then a struct of
    ``offsets`` (buffer, byte, size of an element) and of ``numbers``."""

    name: str
    groups: int
    buffers: tuple[Buffer | None, ...]
    offsets: tuple[tuple[Buffer | None, int, int], ...]
    numbers: tuple[tuple[Number, str], ...]
    text: str


def launch_of(parts: Sequence[Part], slots: dict[Any, int], number: int) -> SerialLaunch:
    """``slots``: offsets in the planned memory, of buffers and of "extra" memory by its name. They are constants of the
    text where many parts are one launch; the text of a large part has them as arguments, for others like it."""
    shares = parts[0].shares
    large = shares > 1
    buffers: dict[Buffer | None, str] = {}
    written: set[Buffer] = set()
    shorts: dict[Buffer, str] = {}
    offsets: dict[tuple[Buffer | None, int, int], str] = {}
    numbers: dict[int, str] = {}

    def address(kind: str, what: Any) -> str:
        if kind == "extra":
            name, size = what
            buffers.setdefault(None, "arena")
            if not large:
                return f"arena + {slots[name]}"
            at = offsets.setdefault((None, slots[name], 1), f"x{len(offsets)}")
            return f"arena + at.{at}" + (f" + GROUP_ID * {size}" if size else "")
        buffer, offset, short, is_written = what
        if buffer in slots and not large:
            buffers.setdefault(None, "arena")
            return f"(GLOBAL {'' if is_written else 'const '}S_{short} *)(arena + {slots[buffer] + offset})"
        own = buffers.setdefault(buffer, f"p{len(buffers)}")
        shorts[buffer] = short
        if is_written:
            written.add(buffer)
        at = offsets.setdefault((buffer, offset, buffer.dtype.itemsize), f"x{len(offsets)}")
        return f"{own} + at.{at}"

    calls = []
    for part in parts:
        arguments = []
        for kind, *what in part.parameters:
            if kind == "number":
                arguments.append("at." + numbers.setdefault(what[0], f"n{len(numbers)}"))
            elif kind != "bounds":
                arguments.append(address(kind, what))
            elif large:
                arguments.append(f"{what[0]} * GROUP_ID / {shares}, {what[0]} * (GROUP_ID + 1) / {shares}")
            else:
                arguments.append(f"0, {what[0]}")
        calls.append(f"    {part.name}({', '.join(arguments)});")
    name = f"{parts[0].name}_shared" if large else f"gg_segment_{number}"
    parameters = []
    for buffer, own in buffers.items():
        if buffer is None:
            parameters.append("GLOBAL char *arena")
        else:
            parameters.append(f"GLOBAL {'' if buffer in written else 'const '}S_{shorts[buffer]} *{own}")
    head = []
    if offsets or numbers:
        fields = [f"i64 {x};" for x in offsets.values()] + [f"f64 {n};" for n in numbers.values()]
        head.append(f"typedef struct {{ {' '.join(fields)} }} At_{name};")
        parameters.append(f"At_{name} at")
    text = "\n".join([*head, f"KERNEL void {name}({', '.join(parameters)}) {{", *calls, "}", ""])
    return SerialLaunch(
        name, shares, tuple(buffers), tuple(offsets), tuple((Number(i), "f64") for i in numbers), text
    )  # fmt: skip
