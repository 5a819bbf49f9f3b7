"""One kernel of a group as text: its parameters, statements, indices and trees.

A kernel is written statement by statement; what it turns out to need of memory and numbers becomes its parameters.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple

from gpugrad.compiler.fusing import Access
from gpugrad.compiler.program import Buffer, Number
from gpugrad.compiler.serial_text import c_type, convert, short_of

if TYPE_CHECKING:
    from gpugrad.compiler.group_text import GroupWriter


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


class KernelText:
    """One kernel: its parameters and statements."""

    def __init__(self, writer: GroupWriter, suffix: str, comment: str) -> None:
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


class Index:
    """Texts of indices that follow from one variable running over ``shape`` in C order."""

    def __init__(self, kernel: KernelText, variable: str, shape: Sequence[int]) -> None:
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


def sum_of(*terms: str) -> str:
    return " + ".join(t for t in terms if t) or "0"
