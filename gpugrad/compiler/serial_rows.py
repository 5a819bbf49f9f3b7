"""The function of one group in "serial rows" form: see ``serial_text.py``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from gpugrad.compiler.fusing import Access, Group, Line, Value
from gpugrad.compiler.program import CAST, Number
from gpugrad.compiler.serial_plan import BLOCK, Plan
from gpugrad.compiler.serial_values import (
    Kernel,
    Pointer,
    _result,
    _small_power,
    c_type,
    convert,
    literal,
    short_of,
)

if TYPE_CHECKING:
    from gpugrad.compiler.serial_text import Text


class _Writer(Plan):
    """Writes one group."""

    def __init__(self, unit: Text, group: Group) -> None:
        super().__init__(group)
        self.unit = unit
        self.pointers: dict[tuple[int, int, str], int] = {}
        self.pointer_list: list[Pointer] = []
        self.numbers: dict[int, int] = {}
        self._out: list[str] = []
        self._indent = 0

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
            self._line(f"{self._type(i)} t{i} = {self._start(i)};")
        if self.rows:
            if self.parts > 1 and self.chunk_rows == 1:
                # No loop: GCC takes one of a single turn apart, and then finds no vectors in the loops inside.
                self._line("IDX row = part;")
                self._open("")
            elif self.parts > 1:
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
                t = self._type(i)
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
        length = self.inner[-1][0] if self.inner else 1
        first, last, most = "0", str(length), length
        if self.pieces > 1:
            first, last, most = "begin", "end", self.piece
        blocks = most > BLOCK and any(
            self.lines[i].kind in ("sum", "prod") and self.lines[i].dtype.kind not in "biu" for i in reductions
        )
        self._open_rows(reductions, blocks)
        for k, (n, _) in enumerate(self.inner[:-1]):
            self._open(f"for (IDX j{k} = 0; j{k} < {n}; j{k}++)")
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
            self._line(f"{self._type(i)} r{i} = {self._start(i)};")
        clauses = [f"reduction({self._clause(i)}:r{i})" for i in reductions]
        if length > 1 and (clauses or self._unit_strides(members)):
            self._line(f"SIMD({' '.join(clauses)})")
        self._open(f"for (IDX j = {first}; j < {last}; j++)" if self.inner else "")
        loads: dict[Any, str] = {}
        for i in members:
            self._compute(i, loads)
        self._close()
        for i in reductions:
            self._take_block(i, f"r{i}", blocks)
        if blocks:
            self._close()
        for _ in self.inner[:-1]:
            self._close()
        self._close_rows(reductions, blocks)

    def _type(self, i: int) -> str:
        return c_type(short_of(self.lines[i].dtype))

    # What a row is reduced to, block by block. What the additions of blocks' sums round off is added up apart (Knuth,
    # The Art of Computer Programming 2, 4.2.2, theorem B): a long row has many of them.
    def _carries(self, i: int, blocks: bool) -> bool:
        line = self.lines[i]
        return blocks and line.level == "row_reduce" and line.kind == "sum" and line.dtype.kind not in "biu"

    def _open_rows(self, reductions: Sequence[int], blocks: bool) -> None:
        for i in reductions:
            if self.lines[i].level == "row_reduce":
                t = self._type(i)
                self._line(f"{t} v{i} = {self._start(i)}{f', e{i} = 0' if self._carries(i, blocks) else ''};")

    def _take_block(self, i: int, value: str, blocks: bool) -> None:
        """Join a block's ``value`` to what its row, or all rows, came to before."""
        if self._carries(i, blocks):
            t = self._type(i)
            self._line(f"{t} s{i} = v{i} + {value}, z{i} = s{i} - v{i};")
            self._line(f"e{i} += (v{i} - (s{i} - z{i})) + ({value} - z{i});")
            self._line(f"v{i} = s{i};")
        else:
            name = f"v{i}" if self.lines[i].level == "row_reduce" else f"t{i}"
            self._line(f"{name} = {self._join(i, name, value)};")

    def _close_rows(self, reductions: Sequence[int], blocks: bool) -> None:
        for i in reductions:
            line = self.lines[i]
            if line.level == "row_reduce":
                if self._carries(i, blocks):
                    self._line(f"if (e{i} - e{i} == 0) v{i} += e{i};  // neither infinite nor NaN")
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
