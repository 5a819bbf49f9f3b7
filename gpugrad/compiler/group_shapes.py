"""The shapes of kernels without rows, and what all shapes share: see ``group_text.py``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from gpugrad.backends.base import Elementwise
from gpugrad.compiler.fusing import Access, Line, Value
from gpugrad.compiler.kernel_text import Index, KernelText, Scratch, sum_of
from gpugrad.compiler.program import CAST, Number
from gpugrad.compiler.serial_text import _result, _small_power, c_type, convert, literal, short_of

if TYPE_CHECKING:
    from gpugrad.compiler.group_text import GroupWriter

#: longest chain of additions into one accumulator
CHAIN = 128
#: elements of a reduction to one value that one work-group takes
SHARE = 4096
#: most partial results of one value
MOST_PARTS = 16384

JOINS = {
    how: Elementwise(f"join_{how}", function, expression, 2)
    for how, function, expression in (
        ("sum", np.add, "a + b"),
        ("prod", np.multiply, "a * b"),
        ("max", np.maximum, "GG_MAX(a, b)"),
        ("min", np.minimum, "GG_MIN(a, b)"),
        ("any", np.logical_or, "a | b"),
        ("all", np.logical_and, "a & b"),
    )
}


def start_of(how: str, short: str, dtype: np.dtype) -> str:
    """What a reduction starts from."""
    if how in ("sum", "any", "prod", "all"):
        return literal(int(how in ("prod", "all")), c_type(short))
    if short == "bool":
        return str(int(how == "min"))
    if "f" in short:
        return literal(float("-inf" if how == "max" else "inf"), c_type(short))
    bounds = np.iinfo(dtype)
    return literal(int(bounds.min if how == "max" else bounds.max), c_type(short))


class Shape:
    """What the three shapes of kernel share: how a line is computed."""

    def __init__(self, writer: GroupWriter) -> None:
        self.w = writer
        self.lines = writer.lines
        self.values: dict[int, tuple[str, str]] = {}  # line -> its name, its computing type
        self.loads: dict[Any, str] = {}

    def needed(self, roots: Sequence[int], stop: Sequence[int] | set[int] = ()) -> list[int]:
        """The lines that computing ``roots`` needs, in order, without those in ``stop`` and what only they need."""
        found: set[int] = set()
        todo = list(roots)
        while todo:
            k = todo.pop()
            if k in found or k in stop:
                continue
            found.add(k)
            todo += [v.line for v in self.lines[k].operands if isinstance(v, Value)]
        return sorted(found)

    def operand(self, kernel: KernelText, x: Any, short: str, index: Any) -> str:
        """An operand in the computing type of ``short``; ``index`` gives the place of an access."""
        if isinstance(x, Value):
            name, own = self.values[x.line]
            return convert(name, own, short)
        if isinstance(x, Access):
            return convert(self.load(kernel, x, index), short_of(x.dtype), short)
        if isinstance(x, Number):
            return kernel.number(x, short)
        return ("1" if x else "0") if short == "bool" else literal(x, c_type(short))

    def load(self, kernel: KernelText, a: Access, index: Any) -> str:
        key = load_key(a)
        name = self.loads.get(key)
        if name is None:
            pointer = kernel.pointer(a)
            short = short_of(a.dtype)
            place = index(a)
            name = self.loads[key] = f"a{len(self.loads)}"
            kernel.say(f"{c_type(short)} {name} = LD_{short_of(a.dtype)}({pointer}, {place});")
        return name

    def compute(self, kernel: KernelText, k: int, index: Any, target: str | None = None) -> None:
        """State line ``k`` (a map or a constant), as a variable or into ``target``."""
        line = self.lines[k]
        short = short_of(line.dtype)
        text = self._value(kernel, line, short, index)
        if target is None:
            target = f"v{k}"
            kernel.say(f"{c_type(short)} {target} = {text};")
        else:
            kernel.say(f"{target} = {text};")
        self.values[k] = (target, short)

    def _value(self, kernel: KernelText, line: Line, short: str, index: Any) -> str:
        """What ``line`` computes, as it would be read back from memory of its dtype."""
        source = short_of(line.compute)
        if line.kernel is None or line.kernel is CAST:
            text = self.operand(kernel, line.operands[0], source, index)
            return text if source == short and line.kernel is CAST else _result(text, source, short)
        truth = short == "bool"
        operands, power = line.operands, _small_power(line, source)
        if power is not None:
            operands = operands[:1]
        name = self.w.unit.helper(line.kernel, source, truth, power)
        wanted = ["bool" if n == 0 and line.kernel.masked else source for n in range(len(operands))]
        arguments = [self.operand(kernel, x, t, index) for x, t in zip(operands, wanted, strict=True)]
        text = f"{name}({', '.join(arguments)})"
        return text if truth else _result(text, source, short)

    def target(self, k: int) -> Access:
        """Where line ``k`` is stored."""
        found = self.lines[k].store
        assert found is not None
        return found

    def store(self, kernel: KernelText, k: int, place: str, value: str | None = None) -> None:
        a = self.target(k)
        pointer = kernel.pointer(a, write=True)
        kernel.say(f"ST_{short_of(a.dtype)}({pointer}, {place}, {value or self.values[k][0]});")

    def accumulator(self, k: int) -> tuple[str, str, str, str]:
        """Of a reducing line: how, the dtype it accumulates as, joining function, start."""
        line = self.lines[k]
        short = "bool" if line.kind in ("any", "all") else short_of(line.dtype)
        return line.kind, short, self.w.join(line.kind, short), start_of(line.kind, short, line.dtype)

    def outcome(self, k: int, value: str) -> str:
        """The accumulated ``value`` of line ``k`` in the computing type of its dtype."""
        return convert(value, self.accumulator(k)[1], short_of(self.lines[k].dtype))

    def reduced(self, kernel: KernelText, k: int, index: Any) -> str:
        """The operand of reducing line ``k``."""
        return self.operand(kernel, self.lines[k].operands[0], self.accumulator(k)[1], index)


def load_key(a: Access) -> tuple[Any, ...]:
    """What makes two loads the same one."""
    return (a.buffer.number, a.offset, a.strides, short_of(a.dtype))


class Flat(Shape):
    """Elementwise lines, and totals."""

    def write(self) -> None:
        w = self.w
        size = w.rows * w.inner
        kernel = KernelText(w, "", f"{w.group.name} over {list(w.shape)}: one item for each element")
        stored = [k for k, line in enumerate(self.lines) if line.store is not None and line.level == "full"]
        roots = [*stored, *(v.line for k in w.totals for v in self.lines[k].operands if isinstance(v, Value))]
        share = w.local
        if w.totals:
            share = max(SHARE, -(-size // MOST_PARTS // w.local) * w.local)
            groups = -(-size // share)
            kernel.comment = f"{w.group.name} over {list(w.shape)}: {share} elements for each work-group"
            for k in w.totals:
                _, short, _, start = self.accumulator(k)
                kernel.say(f"{c_type(short)} t{k} = {start};")
            kernel.say(f"IDX end = (GROUP_ID + 1) * {share} < {size} ? (GROUP_ID + 1) * {share} : {size};")
            kernel.open(f"for (IDX i = GROUP_ID * {share} + LOCAL_ID; i < end; i += {w.local})")
        else:
            groups = -(-size // share)
            kernel.say("IDX i = GLOBAL_ID;")
            kernel.say(f"if (i >= {size}) return;")
        place = Index(kernel, "i", w.shape)

        def index(a: Access) -> str:
            return place(a.strides, a.dtype.itemsize) or "0"

        for k in sorted(set(self.needed(roots)) | set(w.totals)):
            if k in w.totals:
                _, _, join, _ = self.accumulator(k)
                kernel.say(f"t{k} = {join}(t{k}, {self.reduced(kernel, k, index)});")
                continue
            self.compute(kernel, k, index)
            if k in stored:
                self.store(kernel, k, index(self.target(k)))
        if w.totals:
            kernel.close()
            finish_totals(self, kernel, groups, w.local)
            return
        kernel.finish(groups, w.local)


def finish_totals(
    shape: Shape, kernel: KernelText, groups: int, local: int, columns: dict[int, tuple[Scratch, int]] | None = None
) -> None:
    """End a kernel whose items have totals ``t<line>``: join those of a work-group, those of all by a second kernel;
    that also joins partial results of columns, given as memory and number of parts."""
    w = shape.w
    parts = {}
    for k in w.totals:
        how, short, _, _ = shape.accumulator(k)
        kernel.tree(f"t{k}", how, short, local, "LOCAL_ID")
        if groups == 1:
            kernel.open("if (LOCAL_ID == 0)")
            shape.store(kernel, k, "0", shape.outcome(k, f"t{k}"))
        else:
            parts[k] = w.partial(groups, short)
            kernel.open("if (LOCAL_ID == 0)")
            kernel.say(f"{kernel.scratch(parts[k], short, True)}[GROUP_ID] = t{k};")
        kernel.close()
    kernel.finish(groups, local)
    if parts:
        last = KernelText(w, "_totals", f"{w.group.name}: the partial results of {groups} work-groups")
        for k, memory in parts.items():
            how, short, join, start = shape.accumulator(k)
            last.say(f"{c_type(short)} t{k} = {start};")
            name = last.scratch(memory, short, False)
            last.say(f"for (IDX i = LOCAL_ID; i < {groups}; i += {local}) t{k} = {join}(t{k}, {name}[i]);")
            last.tree(f"t{k}", how, short, local, "LOCAL_ID")
            last.open("if (LOCAL_ID == 0)")
            shape.store(last, k, "0", shape.outcome(k, f"t{k}"))
            last.close()
        last.finish(1, local)
    for k, (memory, count) in (columns or {}).items():
        _finish_column(shape, k, memory, count, local)


def _finish_column(shape: Shape, k: int, memory: Scratch, count: int, local: int) -> None:
    """A kernel that joins ``count`` partial results of each column of line ``k``."""
    w = shape.w
    across, slices = _tile(w.inner, local)
    last = KernelText(w, f"_columns{k}", f"{w.group.name}: {count} partial results for each of {w.inner} columns")
    how, short, join, start = shape.accumulator(k)
    last.say(f"IDX j = GROUP_ID * {across} + LOCAL_ID % {across};")
    last.say(f"i32 slice = LOCAL_ID / {across};")
    last.say(f"{c_type(short)} c = {start};")
    name = last.scratch(memory, short, False)
    last.open(f"if (j < {w.inner})")
    if count > CHAIN * slices:
        last.open(f"for (IDX block = slice; block < {count}; block += {CHAIN * slices})")
        last.say(f"{c_type(short)} b = {start};")
        last.say(f"IDX end = block + {CHAIN * slices} < {count} ? block + {CHAIN * slices} : {count};")
        last.say(f"for (IDX i = block; i < end; i += {slices}) b = {join}(b, {name}[i * {w.inner} + j]);")
        last.say(f"c = {join}(c, b);")
        last.close()
    else:
        last.say(f"for (IDX i = slice; i < {count}; i += {slices}) c = {join}(c, {name}[i * {w.inner} + j]);")
    last.close()
    last.tree("c", how, short, slices, "slice", across)
    last.open(f"if (slice == 0 && j < {w.inner})")
    _store_column(shape, last, k, "c", "j")
    last.close()
    last.finish(-(-w.inner // across), local)


def _store_column(shape: Shape, kernel: KernelText, k: int, value: str, variable: str) -> None:
    w = shape.w
    a = shape.target(k)
    place = Index(kernel, variable, w.inner_shape)(a.strides[w.group.rows :], a.dtype.itemsize) or "0"
    shape.store(kernel, k, place, shape.outcome(k, value))


def _tile(columns: int, local: int) -> tuple[int, int]:
    """Columns and slices of rows of a work-group's tile."""
    across = 1
    while across < min(columns, 32):
        across *= 2
    return across, local // across


class Columns(Shape):
    """Sums over the rows: tiles of columns, each with a chunk of the rows."""

    def write(self) -> None:
        w = self.w
        across, slices = _tile(w.inner, w.local)
        tiles = -(-w.inner // across)
        chunks = max(1, min(-(-w.rows // (slices * 16)), max(1, 1024 // tiles), 512))
        if w.rows <= slices * 32:
            chunks = 1
        each = -(-w.rows // (chunks * slices))  # rows of one item
        chunks = -(-w.rows // (each * slices))
        kernel = KernelText(w, "", f"{w.group.name} over {w.rows} rows of {w.inner}: tiles of {across} columns and "
                         f"{each * slices} rows")  # fmt: skip
        kernel.say(f"IDX tile = GROUP_ID % {tiles}, chunk = GROUP_ID / {tiles};" if chunks > 1 else
                   "IDX tile = GROUP_ID, chunk = 0;")  # fmt: skip
        kernel.say(f"IDX j = tile * {across} + LOCAL_ID % {across};")
        kernel.say(f"i32 slice = LOCAL_ID / {across};")
        kernel.say(f"IDX first = chunk * {each * slices};")
        kernel.say(f"IDX end = first + {each * slices} < {w.rows} ? first + {each * slices} : {w.rows};")
        reducing = [*w.columns, *w.totals]
        names = {k: f"{'c' if k in w.columns else 't'}{k}" for k in reducing}
        long = each > CHAIN
        for k in reducing:
            _, short, _, start = self.accumulator(k)
            kernel.say(f"{c_type(short)} {names[k]} = {start};")
        kernel.open(f"if (j < {w.inner})")
        across_index = Index(kernel, "j", w.inner_shape)
        if long:  # no chain of more than CHAIN additions
            kernel.open(f"for (IDX block = first + slice; block < end; block += {CHAIN * slices})")
            for k in reducing:
                _, short, _, start = self.accumulator(k)
                kernel.say(f"{c_type(short)} b{k} = {start};")
            kernel.say(f"IDX last = block + {CHAIN * slices} < end ? block + {CHAIN * slices} : end;")
            kernel.open(f"for (IDX row = block; row < last; row += {slices})")
        else:
            kernel.open(f"for (IDX row = first + slice; row < end; row += {slices})")
        down_index = Index(kernel, "row", w.rows_shape)
        across_index = Index(kernel, "j", w.inner_shape)

        def index(a: Access) -> str:
            n = w.group.rows
            return sum_of(down_index(a.strides[:n], a.dtype.itemsize), across_index(a.strides[n:], a.dtype.itemsize))

        stored = [k for k, line in enumerate(self.lines) if line.store is not None and line.level == "full"]
        roots = [*stored, *(v.line for k in reducing for v in self.lines[k].operands if isinstance(v, Value))]
        for k in sorted(set(self.needed(roots)) | set(reducing)):
            if k in reducing:
                _, _, join, _ = self.accumulator(k)
                name = f"b{k}" if long else names[k]
                kernel.say(f"{name} = {join}({name}, {self.reduced(kernel, k, index)});")
                continue
            self.compute(kernel, k, index)
            if k in stored:
                self.store(kernel, k, index(self.target(k)))
        kernel.close()
        if long:
            for k in reducing:
                kernel.say(f"{names[k]} = {self.accumulator(k)[2]}({names[k]}, b{k});")
            kernel.close()
        kernel.close()
        parts = {}
        for k in w.columns:
            how, short, _, _ = self.accumulator(k)
            kernel.tree(names[k], how, short, slices, "slice", across)
            kernel.open(f"if (slice == 0 && j < {w.inner})")
            if chunks == 1:
                _store_column(self, kernel, k, names[k], "j")
            else:
                parts[k] = (w.partial(chunks * w.inner, short), chunks)
                kernel.say(f"{kernel.scratch(parts[k][0], short, True)}[chunk * {w.inner} + j] = {names[k]};")
            kernel.close()
        finish_totals(self, kernel, tiles * chunks, w.local, parts)
