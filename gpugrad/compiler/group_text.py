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

from math import prod
from typing import NamedTuple

from gpugrad.backends.kernel_source import symbol
from gpugrad.compiler.fusing import Access, Group
from gpugrad.compiler.group_rows import Rows
from gpugrad.compiler.group_shapes import JOINS, Columns, Flat
from gpugrad.compiler.kernel_text import Launch, Scratch
from gpugrad.compiler.serial_text import Text, c_type

_REACH = 2**31 - 2**17


class GroupText(NamedTuple):
    """Kernels of a group in order of their launches; ``defines`` for the common headers. ``readable`` is ``text``
    without what the headers bring."""

    text: str
    readable: str
    defines: dict[str, str]
    launches: tuple[Launch, ...]
    scratch: tuple[Scratch, ...]


def group_text(group: Group, local: int = 256, wide_index: bool = False) -> GroupText:
    """The kernels that compute ``group`` with work-groups of ``local`` items (a power of two)."""
    return GroupWriter(group, local, wide_index).write()


class GroupWriter:
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
            Rows(self).write()
        elif self.columns:
            Columns(self).write()
        else:
            Flat(self).write()
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
        return self.unit.helper(JOINS[how], "f32" if short in ("f16", "bf16") else short, short == "bool")

    def partial(self, count: int, short: str) -> Scratch:
        """Memory for ``count`` partial results computed in ``short``."""
        self.scratch.append(Scratch(len(self.scratch), count * int(c_type(short)[1:]) // 8))
        return self.scratch[-1]
