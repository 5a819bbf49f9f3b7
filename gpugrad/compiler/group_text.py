"""A group of steps as kernels for GPUs, in the common dialect of ``kernels/``.

Three shapes of kernel, by what the group has:

* *flat*: elementwise lines only: an item computes one element, or a few neighbouring ones;
* *rows*: anything computed once per row: ``wide`` items of a work-group share a row. Between two reductions over rows
  lies one loop over the row; what a later loop needs again is kept in registers where a row is short, else computed
  again from memory, which nothing overwrites before the last loop;
* *columns*: sums over rows: a work-group has a tile of columns and a chunk of rows.

Every reduction is a fixed tree: of one item's elements in order, of the items of a work-group through local memory,
and, where several work-groups took part, of their partial results, by a second kernel.

Shapes and strides are constants of a text, pointers and offsets arguments: equal layers have one kernel.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any, NamedTuple

import numpy as np

from gpugrad.backends.base import Elementwise
from gpugrad.backends.kernel_source import symbol
from gpugrad.compiler.fusing import Access, Group, Line, Value
from gpugrad.compiler.program import CAST, Buffer, Number
from gpugrad.compiler.serial_text import Text, _result, _small_power, c_type, convert, literal, short_of

#: longest chain of additions into one accumulator
CHAIN = 128
#: elements of a row that one item keeps in registers
KEPT = 8
#: elements of a reduction to one value that one work-group takes
SHARE = 4096
#: most partial results of one value
MOST_PARTS = 16384
_REACH = 2**31 - 2**17


_JOINS = {
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


def _start(how: str, short: str, dtype: np.dtype) -> str:
    """What a reduction starts from."""
    if how in ("sum", "any", "prod", "all"):
        return literal(int(how in ("prod", "all")), c_type(short))
    if short == "bool":
        return str(int(how == "min"))
    if "f" in short:
        return literal(float("-inf" if how == "max" else "inf"), c_type(short))
    bounds = np.iinfo(dtype)
    return literal(int(bounds.min if how == "max" else bounds.max), c_type(short))


class Scratch(NamedTuple):
    """Memory for partial results between the kernels of a group."""

    number: int
    nbytes: int


class Launch(NamedTuple):
    """One kernel of a text: ``groups`` groups of ``local`` items. Its parameters are a pointer for each of ``buffers``,
    then, if there are any ``offsets`` or ``numbers``, a struct of the byte offsets (as elements) of the places that it
    reaches and of the numbers that change from run to run, each in a type."""

    name: str
    groups: int
    local: int
    buffers: tuple[Buffer | Scratch, ...]
    offsets: tuple[Access, ...]
    numbers: tuple[tuple[Number, str], ...]


class GroupText(NamedTuple):
    """Kernels of a group in order of their launches; ``defines`` for the common headers. ``readable`` is ``text`` without
    what the headers bring."""

    text: str
    readable: str
    defines: dict[str, str]
    launches: tuple[Launch, ...]
    scratch: tuple[Scratch, ...]


def group_text(group: Group, local: int = 256, wide_index: bool = False) -> GroupText:
    """The kernels that compute ``group`` with work-groups of ``local`` items (a power of two)."""
    return _Writer(group, local, wide_index).write()


class _Writer:
    """Writes the text of one group."""

    def __init__(self, group: Group, local: int, wide_index: bool) -> None:
        self.group = group
        self.lines = group.lines
        self.shape = group.shape
        self.rows_shape = group.shape[: group.rows]
        self.inner_shape = group.shape[group.rows :]
        self.rows, self.inner = prod(self.rows_shape), prod(self.inner_shape)
        self.local = local
        self.unit = Text()
        self.scratch: list[Scratch] = []
        self.kernels: list[str] = []
        self.launches: list[Launch] = []
        self.wide = wide_index or self._reach() > _REACH
        self.levels = {line.level for line in self.lines}
        self.columns = [k for k, line in enumerate(self.lines) if line.level == "column" and line.store is not None]
        self.totals = [k for k, line in enumerate(self.lines) if line.level == "total" and line.store is not None]
        self.name = symbol(group.name)[:72]

    def write(self) -> GroupText:
        if self.levels & {"row", "row_reduce"}:
            _Rows(self).write()
        elif self.columns:
            _Columns(self).write()
        else:
            _Flat(self).write()
        defines = {"IDX": "i64" if self.wide else "i32"}
        kernels = "\n".join(self.kernels)
        text = self.unit.helpers() + kernels
        if "f64" in text:
            defines["T_f64"] = "1"
        readable = self.unit.helpers(False) + kernels
        return GroupText(text, readable, defines, tuple(self.launches), tuple(self.scratch))

    def _reach(self) -> int:
        """The farthest index, in elements, that anything in the kernels computes."""
        reach = prod(self.shape)
        for line in self.lines:
            for a in (*line.operands, line.store):
                if isinstance(a, Access):
                    span = sum(abs(s) * (n - 1) for s, n in zip(a.strides, self.shape, strict=True))
                    reach = max(reach, span // a.dtype.itemsize)
        return reach

    def join(self, how: str, short: str) -> str:
        """The function that joins two partial results of a reduction."""
        return self.unit.helper(_JOINS[how], "f32" if short in ("f16", "bf16") else short, short == "bool")

    def partial(self, count: int, short: str) -> Scratch:
        """Memory for ``count`` partial results computed in ``short``."""
        self.scratch.append(Scratch(len(self.scratch), count * int(c_type(short)[1:]) // 8))
        return self.scratch[-1]


class _Kernel:
    """One kernel: its parameters and statements."""

    def __init__(self, writer: _Writer, suffix: str, comment: str) -> None:
        self.w = writer
        self.name = f"{writer.name}{suffix}"
        self.comment = comment
        self.buffers: dict[Any, str] = {}
        self.written: set[Any] = set()
        self.shorts: dict[Any, str] = {}
        self.accesses: dict[tuple[int, int], tuple[str, Access]] = {}
        self.numbers: dict[tuple[int, str], str] = {}
        self.local_arrays: dict[str, str] = {}
        self.body: list[str] = []
        self.indent = 1

    # -- statements -----------------------------------------------------------------------------------------
    def say(self, text: str) -> None:
        self.body.append("    " * self.indent + text)

    def open(self, text: str) -> None:
        self.say(text + " {")
        self.indent += 1

    def close(self) -> None:
        self.indent -= 1
        self.say("}")

    # -- parameters -------------------------------------------------------------------------------------------
    def pointer(self, a: Access, write: bool = False) -> str:
        """The name of the pointer to where ``a`` begins."""
        key = (a.buffer.number, a.offset)
        if a.buffer not in self.buffers:
            self.buffers[a.buffer] = f"p{len(self.buffers)}"
            self.shorts[a.buffer] = short_of(a.dtype)
        if write:
            self.written.add(a.buffer)
        if key not in self.accesses:
            self.accesses[key] = (f"x{len(self.accesses)}", a)
        return self.accesses[key][0]

    def scratch(self, s: Scratch, short: str, write: bool) -> str:
        if s not in self.buffers:
            self.buffers[s] = f"parts{s.number}"
            self.shorts[s] = short
        if write:
            self.written.add(s)
        return self.buffers[s]

    def number(self, n: Number, short: str) -> str:
        short = "f32" if short in ("f16", "bf16") else short
        key = (n.index, short)
        if key not in self.numbers:
            self.numbers[key] = f"n{len(self.numbers)}"
        return convert(f"at.{self.numbers[key]}", _field(short), short)

    def local_array(self, short: str) -> str:
        """Local memory for one value of each item."""
        return self.local_arrays.setdefault(short, f"tree_{short}")

    def finish(self, groups: int, local: int) -> None:
        """The kernel's text, and its launch."""
        head = [f"// {self.comment}"]
        numbers = sorted(self.numbers.items(), key=lambda item: (_field(item[0][1]) == "f32", item[1]))
        at = f"At_{self.name}"
        scratch = [(b, name) for b, name in self.buffers.items() if isinstance(b, Scratch)]
        if self.accesses or numbers or scratch:
            fields = [f"i64 {name}_;" for _, name in scratch]
            fields += [f"i64 {name}_;" for name, _ in self.accesses.values()]
            fields += [f"{_field(short)} {name};" for (_, short), name in numbers]
            if sum(_field(short) == "f32" for (_, short), _ in numbers) % 2:
                fields.append("f32 unused;")
            head.append(f"typedef struct {{ {' '.join(fields)} }} {at};")
        parameters = []
        for buffer, name in self.buffers.items():
            const = "" if buffer in self.written else "const "
            short = self.shorts[buffer]
            if isinstance(buffer, Scratch):  # all in one piece of memory
                parameters.append(f"GLOBAL char *{name}_in")
            else:
                parameters.append(f"GLOBAL {const}S_{short} *RESTRICT {name}")
        if self.accesses or numbers or scratch:
            parameters.append(f"{at} at")
        head.append(f"KERNEL void {self.name}({', '.join(parameters)}) {{")
        for short, name in self.local_arrays.items():
            head.append(f"    LOCAL {c_type(short)} {name}[{local}];")
        for b, name in scratch:
            kind = f"GLOBAL {c_type(self.shorts[b])} *"
            head.append(f"    {kind}{name} = ({kind})({name}_in + at.{name}_);")
        for name, a in self.accesses.values():
            const = "" if a.buffer in self.written else "const "
            head.append(f"    GLOBAL {const}S_{short_of(a.dtype)} *{name} = {self.buffers[a.buffer]} + at.{name}_;")
        self.w.kernels.append("\n".join([*head, *self.body, "}\n"]))
        self.w.launches.append(
            Launch(
                self.name,
                groups,
                local,
                tuple(self.buffers),
                tuple(a for _, a in self.accesses.values()),
                tuple((Number(index), _field(short)) for (index, short), _ in numbers),
            )  # fmt: skip
        )

    # -- trees ----------------------------------------------------------------------------------------------------
    def tree(self, value: str, how: str, short: str, width: int, lane: str, stride: int = 1) -> None:
        """Join ``value`` of ``width`` items whose ``lane`` runs from 0; all of them then have the outcome. Lanes of one
        tree are ``stride`` items apart."""
        if width == 1:
            return
        join = self.w.join(how, short)
        array = self.local_array(short)
        self.say(f"{array}[LOCAL_ID] = {value};")
        self.say("BARRIER;")
        self.open(f"for (i32 half_ = {width // 2}; half_ > 0; half_ /= 2)")
        far = f"LOCAL_ID + half_ * {stride}" if stride != 1 else "LOCAL_ID + half_"
        self.say(f"if ({lane} < half_) {array}[LOCAL_ID] = {join}({array}[LOCAL_ID], {array}[{far}]);")
        self.say("BARRIER;")
        self.close()
        self.say(f"{value} = {array}[LOCAL_ID - {lane}{f' * {stride}' if stride != 1 else ''}];")
        self.say("BARRIER;")


def _field(short: str) -> str:
    """The type in which a number of ``short`` is handed over."""
    return short if short in ("f32", "f64") else "i64"


class _Index:
    """Texts of indices that follow from one variable running over ``shape`` in C order."""

    def __init__(self, kernel: _Kernel, variable: str, shape: Sequence[int]) -> None:
        self.kernel = kernel
        self.variable = variable
        self.shape = tuple(shape)
        self.said: set[int] = set()

    def __call__(self, strides: Sequence[int], itemsize: int) -> str:
        """The index in elements; states the coordinates it needs."""
        steps = [s // itemsize if n > 1 else 0 for s, n in zip(strides, self.shape, strict=True)]
        if not any(steps):
            return ""
        single = self._single(steps)
        if single is not None:
            return _times(self.variable, single)
        return " + ".join(_times(self._coordinate(d), s) for d, s in enumerate(steps) if s)

    def _single(self, steps: Sequence[int]) -> int | None:
        """The one stride that the variable itself has, if the dimensions follow each other."""
        step, size = None, 1
        for n, s in zip(reversed(self.shape), reversed(steps), strict=True):
            if n == 1:
                continue
            if step is None:
                step = s
            elif s != step * size:
                return None
            size *= n
        return step

    def _coordinate(self, d: int) -> str:
        name = f"{self.variable}{d}"
        if d not in self.said:
            self.said.add(d)
            below, above = prod(self.shape[d + 1 :]), prod(self.shape[:d])
            text = self.variable + (f" / {below}" if below > 1 else "") + (f" % {self.shape[d]}" if above > 1 else "")
            self.kernel.say(f"IDX {name} = {text};")
        return name


def _times(variable: str, step: int) -> str:
    return variable if step == 1 else f"{variable} * {step}"


def _sum(*terms: str) -> str:
    return " + ".join(t for t in terms if t) or "0"


class _Shape:
    """What the three shapes of kernel share: how a line is computed."""

    def __init__(self, writer: _Writer) -> None:
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

    def operand(self, kernel: _Kernel, x: Any, short: str, index: Any) -> str:
        """An operand in the computing type of ``short``; ``index`` gives the place of an access."""
        if isinstance(x, Value):
            name, own = self.values[x.line]
            return convert(name, own, short)
        if isinstance(x, Access):
            return convert(self.load(kernel, x, index), short_of(x.dtype), short)
        if isinstance(x, Number):
            return kernel.number(x, short)
        return ("1" if x else "0") if short == "bool" else literal(x, c_type(short))

    def load(self, kernel: _Kernel, a: Access, index: Any) -> str:
        key = _key(a)
        name = self.loads.get(key)
        if name is None:
            pointer = kernel.pointer(a)
            short = short_of(a.dtype)
            place = index(a)
            name = self.loads[key] = f"a{len(self.loads)}"
            kernel.say(f"{c_type(short)} {name} = LD_{short_of(a.dtype)}({pointer}, {place});")
        return name

    def compute(self, kernel: _Kernel, k: int, index: Any, target: str | None = None) -> None:
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

    def _value(self, kernel: _Kernel, line: Line, short: str, index: Any) -> str:
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

    def store(self, kernel: _Kernel, k: int, place: str, value: str | None = None) -> None:
        a = self.lines[k].store
        assert a is not None
        pointer = kernel.pointer(a, write=True)
        kernel.say(f"ST_{short_of(a.dtype)}({pointer}, {place}, {value or self.values[k][0]});")

    def accumulator(self, k: int) -> tuple[str, str, str, str]:
        """Of a reducing line: how, the dtype it accumulates as, joining function, start."""
        line = self.lines[k]
        short = "bool" if line.kind in ("any", "all") else short_of(line.dtype)
        return line.kind, short, self.w.join(line.kind, short), _start(line.kind, short, line.dtype)

    def outcome(self, k: int, value: str) -> str:
        """The accumulated ``value`` of line ``k`` in the computing type of its dtype."""
        return convert(value, self.accumulator(k)[1], short_of(self.lines[k].dtype))

    def reduced(self, kernel: _Kernel, k: int, index: Any) -> str:
        """The operand of reducing line ``k``."""
        return self.operand(kernel, self.lines[k].operands[0], self.accumulator(k)[1], index)


class _Flat(_Shape):
    """Elementwise lines, and totals."""

    def write(self) -> None:
        w = self.w
        size = w.rows * w.inner
        kernel = _Kernel(w, "", f"{w.group.name} over {list(w.shape)}: one item for each element")
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
        place = _Index(kernel, "i", w.shape)

        def index(a: Access) -> str:
            return place(a.strides, a.dtype.itemsize) or "0"

        for k in sorted(set(self.needed(roots)) | set(w.totals)):
            if k in w.totals:
                _, _, join, _ = self.accumulator(k)
                kernel.say(f"t{k} = {join}(t{k}, {self.reduced(kernel, k, index)});")
                continue
            self.compute(kernel, k, index)
            if k in stored:
                self.store(kernel, k, index(self.lines[k].store))
        if w.totals:
            kernel.close()
            _finish_totals(self, kernel, groups, w.local)
            return
        kernel.finish(groups, w.local)


def _finish_totals(
    shape: _Shape, kernel: _Kernel, groups: int, local: int, columns: dict[int, tuple[Scratch, int]] | None = None
) -> None:
    """End a kernel whose items have totals ``t<line>``: join those of a work-group, and those of all by a second kernel;
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
        last = _Kernel(w, "_totals", f"{w.group.name}: the partial results of {groups} work-groups")
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


def _finish_column(shape: _Shape, k: int, memory: Scratch, count: int, local: int) -> None:
    """A kernel that joins ``count`` partial results of each column of line ``k``."""
    w = shape.w
    across, slices = _tile(w.inner, local)
    last = _Kernel(w, f"_columns{k}", f"{w.group.name}: {count} partial results for each of {w.inner} columns")
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


def _store_column(shape: _Shape, kernel: _Kernel, k: int, value: str, variable: str) -> None:
    w = shape.w
    a = shape.lines[k].store
    assert a is not None
    place = _Index(kernel, variable, w.inner_shape)(a.strides[w.group.rows :], a.dtype.itemsize) or "0"
    shape.store(kernel, k, place, shape.outcome(k, value))


def _tile(columns: int, local: int) -> tuple[int, int]:
    """Columns and slices of rows of a work-group's tile."""
    across = 1
    while across < min(columns, 32):
        across *= 2
    return across, local // across


class _Columns(_Shape):
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
        kernel = _Kernel(w, "", f"{w.group.name} over {w.rows} rows of {w.inner}: tiles of {across} columns and "
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
        across_index = _Index(kernel, "j", w.inner_shape)
        if long:  # no chain of more than CHAIN additions
            kernel.open(f"for (IDX block = first + slice; block < end; block += {CHAIN * slices})")
            for k in reducing:
                _, short, _, start = self.accumulator(k)
                kernel.say(f"{c_type(short)} b{k} = {start};")
            kernel.say(f"IDX last = block + {CHAIN * slices} < end ? block + {CHAIN * slices} : end;")
            kernel.open(f"for (IDX row = block; row < last; row += {slices})")
        else:
            kernel.open(f"for (IDX row = first + slice; row < end; row += {slices})")
        down_index = _Index(kernel, "row", w.rows_shape)
        across_index = _Index(kernel, "j", w.inner_shape)

        def index(a: Access) -> str:
            n = w.group.rows
            return _sum(down_index(a.strides[:n], a.dtype.itemsize), across_index(a.strides[n:], a.dtype.itemsize))

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
                self.store(kernel, k, index(self.lines[k].store))
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
        _finish_totals(self, kernel, tiles * chunks, w.local, parts)


class _Rows(_Shape):
    """Anything computed once per row."""

    def __init__(self, writer: _Writer) -> None:
        super().__init__(writer)
        w = writer
        self.wide = 1  # items that share a row
        while self.wide < w.local and self.wide * 4 < w.inner:
            self.wide *= 2
        self.slots = w.local // self.wide  # rows at a time of a work-group
        self.steps = -(-w.inner // self.wide)  # elements of a row that an item has
        self.turns = 1  # rows of a slot, one after another
        if w.columns or w.totals:
            self.turns = max(1, min(CHAIN, -(-w.rows // max(256, 65536 // w.inner))))
        self.groups = -(-w.rows // (self.slots * self.turns))
        self.guarded = w.rows % (self.slots * self.turns) != 0
        self.full = {k for k, line in enumerate(self.lines) if line.level == "full"}
        self.stored = [k for k in sorted(self.full) if self.lines[k].store is not None]
        self.reduces = [k for k, line in enumerate(self.lines) if line.level == "row_reduce"]
        self._schedule()
        self.row_loads: dict[Any, str] = {}
        #: partial results of columns, in registers while a work-group goes from row to row if there are few
        self.in_registers = bool(w.columns) and self.steps <= 2 * KEPT
        count = self.groups * self.slots
        self.parts = {k: (w.partial(count * w.inner, self.accumulator(k)[1]), count) for k in w.columns}

    # -- what is computed in which loop ---------------------------------------------------------------------------
    def _schedule(self) -> None:
        """``loops``: for each, the reductions that it ends with and the full lines that it computes; the last one also
        does the ``ends``, all that leaves the kernel. ``held``: lines and loads whose values stay in registers."""
        phase: list[int] = []
        for line in self.lines:
            found = [phase[v.line] + (v.line in self.reduces) for v in line.operands if isinstance(v, Value)]
            phase.append(max(found, default=0))
        self.phase = phase
        self.ends = [*self.stored, *self.w.columns, *self.w.totals]
        last = max([phase[k] for k in (*self.ends, *self.reduces)], default=0)
        self.loops: list[tuple[list[int], list[int]]] = []
        self.held: dict[Any, str] = {}
        seen: set[Any] = set()
        for p in range(last + 1):
            roots = [k for k in self.reduces if phase[k] == p]
            lines = self._closure([*roots, *(self.ends if p == last else [])], seen)
            loads = {key for k in (*lines, *roots, *(self.ends if p == last else [])) for key in self._loads_of(k)}
            if self.steps <= KEPT:
                for key in loads & seen:
                    self.held[key] = f"h{len(self.held)}"
                seen |= set(lines) | loads
            self.loops.append((roots, sorted(lines)))

    def _closure(self, roots: Sequence[int], available: set[Any]) -> set[int]:
        """The full lines that computing ``roots`` needs; of those ``available`` from earlier loops it notes to hold them."""
        found: set[int] = set()
        todo = list(roots)
        while todo:
            k = todo.pop()
            if k in self.full:
                if k in found:
                    continue
                if k in available:
                    self.held[k] = f"h{len(self.held)}" if k not in self.held else self.held[k]
                    continue
                found.add(k)
            elif k not in roots:
                continue
            todo += [v.line for v in self.lines[k].operands if isinstance(v, Value)]
        return found

    def _loads_of(self, k: int) -> list[Any]:
        accesses = [a for a in self.lines[k].operands if isinstance(a, Access)]
        return [_key(a) for a in accesses if not self._by_row(a)]

    def _by_row(self, a: Access) -> bool:
        """Whether ``a`` is one element for a whole row."""
        n = self.w.group.rows
        return not any(s for s, d in zip(a.strides[n:], self.w.inner_shape, strict=True) if d > 1)

    # -- the kernel -------------------------------------------------------------------------------------------------
    def write(self) -> None:
        w, wide, steps = self.w, self.wide, self.steps
        share = f"{wide} items for each row" if wide > 1 else "an item for each row"
        if self.turns > 1:
            share += f", {self.turns} rows one after another"
        kernel = self.kernel = _Kernel(w, "", f"{w.group.name} over {w.rows} rows of {w.inner}: {share}")
        kernel.say(f"i32 lane = LOCAL_ID % {wide};" if wide > 1 else "const i32 lane = 0;")
        kernel.say(f"IDX slot = GROUP_ID * {self.slots} + LOCAL_ID / {wide};")
        for k in w.totals:
            kernel.say(f"{c_type(self.accumulator(k)[1])} t{k} = {self.accumulator(k)[3]};")
        if self.in_registers:
            for k in w.columns:
                _, short, _, start = self.accumulator(k)
                kernel.say(f"{c_type(short)} c{k}[{steps}];")
                kernel.say(f'_Pragma("unroll") for (i32 k = 0; k < {steps}; k++) c{k}[k] = {start};')
        if self.turns > 1:
            kernel.open(f"for (i32 turn = 0; turn < {self.turns}; turn++)")
            kernel.say(f"IDX row = slot * {self.turns} + turn;")
        else:
            kernel.say("IDX row = slot;")
        if self.guarded:  # items beyond the last row compute it too, and store nothing
            kernel.say(f"i32 inside = row < {w.rows};")
            kernel.say(f"row = inside ? row : {w.rows - 1};")
        self.down = _Index(kernel, "row", w.rows_shape)
        for line in self.lines:
            for a in (*line.operands, line.store):
                if isinstance(a, Access):
                    self._row_place(a)
        for key, name in self.held.items():
            short = short_of(self.lines[key].dtype) if isinstance(key, int) else key[3]
            kernel.say(f"{c_type(short)} {name}[{steps}];")
        self.loaded: set[Any] = set()  # what is in registers
        for p in range(len(self.loops)):
            self._row_lines(p)
            self._loop(p)
        self._row_lines(len(self.loops))
        self._store_rows()
        if self.turns > 1:
            kernel.close()
        if self.in_registers:
            self._store_registers()
        _finish_totals(self, kernel, self.groups, w.local, self.parts)

    def _row_place(self, a: Access) -> str:
        return self.down(a.strides[: self.w.group.rows], a.dtype.itemsize)

    def load(self, kernel: _Kernel, a: Access, index: Any) -> str:
        key = _key(a)
        if self._by_row(a):
            found = self.row_loads.get(key)
            if found is None:
                found = self.row_loads[key] = f"s{len(self.row_loads)}"
                short = short_of(a.dtype)
                kernel.say(f"{c_type(short)} {found} = LD_{short}({kernel.pointer(a)}, {self._row_place(a) or '0'});")
            return found
        if key in self.held and key not in self.loops_loads:
            name = f"{self.held[key]}[k]"
            if key not in self.loaded:
                self.loaded.add(key)
                short = short_of(a.dtype)
                kernel.say(f"{name} = LD_{short}({kernel.pointer(a)}, {index(a)});")
            self.loops_loads[key] = name
        if key in self.loops_loads:
            return self.loops_loads[key]
        return super().load(kernel, a, index)

    def _row_lines(self, p: int) -> None:
        """What is computed once per row before loop ``p``."""
        for k, line in enumerate(self.lines):
            if line.level == "row" and self.phase[k] == p:
                self.compute(self.kernel, k, lambda a: self._row_place(a) or "0")

    def _loop(self, p: int) -> None:
        w, kernel, steps = self.w, self.kernel, self.steps
        roots, lines = self.loops[p]
        ends = self.ends if p == len(self.loops) - 1 else []
        if not roots and not ends:
            return
        for k in (*lines, *roots, *ends):  # what the whole row shares
            for a in self.lines[k].operands:
                if isinstance(a, Access) and self._by_row(a):
                    self.load(kernel, a, None)
        for k in roots:
            kernel.say(f"{c_type(self.accumulator(k)[1])} r{k} = {self.accumulator(k)[3]};")
        blocks = steps > CHAIN and bool(roots)
        unroll = '_Pragma("unroll") ' if self.held or (self.in_registers and ends) else ""
        if blocks:  # no chain of more than CHAIN additions
            kernel.open(f"for (i32 block = 0; block < {steps}; block += {CHAIN})")
            for k in roots:
                kernel.say(f"{c_type(self.accumulator(k)[1])} b{k} = {self.accumulator(k)[3]};")
            kernel.say(f"i32 last = block + {CHAIN} < {steps} ? block + {CHAIN} : {steps};")
            kernel.open("for (i32 k = block; k < last; k++)")
        else:
            kernel.open(f"{unroll}for (i32 k = 0; k < {steps}; k++)")
        kernel.say(f"IDX j = lane + k * {self.wide};" if self.wide > 1 else "IDX j = k;")
        ragged = w.inner % self.wide != 0
        if ragged:
            kernel.open(f"if (j < {w.inner})")
        self.loads, self.loops_loads = {}, {}
        across = _Index(kernel, "j", w.inner_shape)

        def index(a: Access) -> str:
            return _sum(self._row_place(a), across(a.strides[w.group.rows :], a.dtype.itemsize))

        for k in sorted({*lines, *roots, *ends}):
            if k in self.reduces:
                name = f"b{k}" if blocks else f"r{k}"
                kernel.say(f"{name} = {self.accumulator(k)[2]}({name}, {self.reduced(kernel, k, index)});")
            elif k in self.full:
                if k in lines:
                    self.compute(kernel, k, index, f"{self.held[k]}[k]" if k in self.held else None)
                if k in ends:
                    self._guard(lambda k=k: self.store(kernel, k, index(self.lines[k].store)))  # type: ignore[misc]
            else:
                self._accumulate(k, index)
        if ragged:
            kernel.close()
        kernel.close()
        if blocks:
            for k in roots:
                kernel.say(f"r{k} = {self.accumulator(k)[2]}(r{k}, b{k});")
            kernel.close()
        for k in roots:
            how, short, _, _ = self.accumulator(k)
            kernel.tree(f"r{k}", how, short, self.wide, "lane")
            own = short_of(self.lines[k].dtype)
            kernel.say(f"{c_type(own)} v{k} = {_result(f'r{k}', short, own)};")
            self.values[k] = (f"v{k}", own)

    def _guard(self, say: Any) -> None:
        if self.guarded:
            self.kernel.open("if (inside)")
        say()
        if self.guarded:
            self.kernel.close()

    def _accumulate(self, k: int, index: Any) -> None:
        """Add one element to line ``k``, a sum over rows or over everything."""
        kernel = self.kernel
        _, _, join, start = self.accumulator(k)
        value = self.reduced(kernel, k, index)
        if self.guarded:
            value = f"inside ? {value} : {start}"
        if k in self.w.totals:
            kernel.say(f"t{k} = {join}(t{k}, {value});")
        elif self.in_registers:
            kernel.say(f"c{k}[k] = {join}(c{k}[k], {value});")
        else:
            name = kernel.scratch(self.parts[k][0], self.accumulator(k)[1], True)
            place = f"{name}[slot * {self.w.inner} + j]"
            if self.turns > 1:
                value = f"turn ? {join}({place}, {value}) : ({value})"
            kernel.say(f"{place} = {value};")

    def _store_rows(self) -> None:
        rows = [k for k, x in enumerate(self.lines) if x.level in ("row", "row_reduce") and x.store is not None]
        if not rows:
            return
        if self.wide > 1:  # others may still be reading what is overwritten
            self.kernel.say("BARRIER;")
        self.kernel.open("if (lane == 0 && inside)" if self.guarded else "if (lane == 0)")
        for k in rows:
            store = self.lines[k].store
            assert store is not None
            self.store(self.kernel, k, self._row_place(store) or "0")
        self.kernel.close()

    def _store_registers(self) -> None:
        kernel = self.kernel
        kernel.open(f'_Pragma("unroll") for (i32 k = 0; k < {self.steps}; k++)')
        kernel.say(f"IDX j = lane + k * {self.wide};")
        kernel.open(f"if (j < {self.w.inner})")
        for k in self.w.columns:
            name = kernel.scratch(self.parts[k][0], self.accumulator(k)[1], True)
            kernel.say(f"{name}[slot * {self.w.inner} + j] = c{k}[k];")
        kernel.close()
        kernel.close()


def _key(a: Access) -> tuple[Any, ...]:
    """What makes two loads the same one."""
    return (a.buffer.number, a.offset, a.strides, short_of(a.dtype))
