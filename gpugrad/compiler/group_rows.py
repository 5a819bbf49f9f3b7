"""The shape of kernels for anything computed once per row: see ``group_text.py``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from gpugrad.compiler.fusing import Access, Value
from gpugrad.compiler.group_shapes import CHAIN, Shape, finish_totals, load_key
from gpugrad.compiler.kernel_text import Index, KernelText, sum_of
from gpugrad.compiler.serial_text import _result, c_type, short_of

if TYPE_CHECKING:
    from gpugrad.compiler.group_text import GroupWriter

#: elements of a row that one item keeps in registers
KEPT = 8


class Rows(Shape):
    """Anything computed once per row."""

    def __init__(self, writer: GroupWriter) -> None:
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
        self.row_loads: dict[Any, str] = {}  # elements for whole rows
        self.loops_loads: dict[Any, str] = {}  # of the loop that is being written, held ones
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
        """The full lines that computing ``roots`` needs; those ``available`` from earlier loops are noted as held."""
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
        return [load_key(a) for a in accesses if not self._by_row(a)]

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
        kernel = self.kernel = KernelText(w, "", f"{w.group.name} over {w.rows} rows of {w.inner}: {share}")
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
        if self.guarded:  # items beyond the last row read and store nothing, as its owner may be writing over it
            kernel.say(f"i32 inside = row < {w.rows};")
        self.down = Index(kernel, "row", w.rows_shape)
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
        finish_totals(self, kernel, self.groups, w.local, self.parts)

    def _row_place(self, a: Access) -> str:
        return self.down(a.strides[: self.w.group.rows], a.dtype.itemsize)

    def load(self, kernel: KernelText, a: Access, index: Any) -> str:
        key = load_key(a)
        if self._by_row(a):
            found = self.row_loads.get(key)
            if found is None:
                found = self.row_loads[key] = f"s{len(self.row_loads)}"
                short = short_of(a.dtype)
                value = f"LD_{short}({kernel.pointer(a)}, {self._row_place(a) or '0'})"
                kernel.say(f"{c_type(short)} {found} = {f'inside ? {value} : 0' if self.guarded else value};")
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
        if self.guarded:
            kernel.open("if (inside)")
        self.loads, self.loops_loads = {}, {}
        across = Index(kernel, "j", w.inner_shape)

        def index(a: Access) -> str:
            return sum_of(self._row_place(a), across(a.strides[w.group.rows :], a.dtype.itemsize))

        for k in sorted({*lines, *roots, *ends}):
            if k in self.reduces:
                name = f"b{k}" if blocks else f"r{k}"
                kernel.say(f"{name} = {self.accumulator(k)[2]}({name}, {self.reduced(kernel, k, index)});")
            elif k in self.full:
                if k in lines:
                    self.compute(kernel, k, index, f"{self.held[k]}[k]" if k in self.held else None)
                if k in ends:
                    self.store(kernel, k, index(self.target(k)))
            else:
                self._accumulate(k, self.reduced(kernel, k, index))
        if self.guarded:
            kernel.close()
            apart = [k for k in ends if k in w.columns and not self.in_registers]
            if apart:  # the host adds up all parts
                kernel.open("else")
                for k in apart:
                    self._accumulate(k, self.accumulator(k)[3])
                kernel.close()
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

    def _accumulate(self, k: int, value: str) -> None:
        """Add ``value``, of one element, to line ``k``, a sum over rows or over everything."""
        kernel = self.kernel
        join = self.accumulator(k)[2]
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
            self.store(self.kernel, k, self._row_place(self.target(k)) or "0")
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
