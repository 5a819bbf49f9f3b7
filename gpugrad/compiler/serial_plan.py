"""How a group is computed row after row: what in which loop, in which order of dimensions, in which chunks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from gpugrad.compiler.fusing import Access, Group, Value
from gpugrad.compiler.program import Buffer
from gpugrad.compiler.serial_values import Unsupported, c_type, short_of

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


class Plan:
    """How one group is computed: in which loop each line, over which dimensions, in which chunks, kept where."""

    def __init__(self, group: Group) -> None:
        self.group = group
        self.lines = group.lines
        levels = {line.level for line in self.lines}
        self.by_rows = bool(levels & {"row", "row_reduce"})
        self.columns = [i for i, line in enumerate(self.lines) if line.level == "column"]
        self.totals = [i for i, line in enumerate(self.lines) if line.level == "total"]
        self._schedule()
        self._dimensions()
        self._chunks()
        self._keep()

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
        dense = not self.inner or (len(self.inner) == 1 and line.store.strides[self.inner[0][1]] == line.dtype.itemsize)
        return self.parts == 1 and dense and short not in ("bool", "f16", "bf16")


def _product(dims: Iterable[tuple[int, int]]) -> int:
    total = 1
    for n, _ in dims:
        total *= n
    return total
