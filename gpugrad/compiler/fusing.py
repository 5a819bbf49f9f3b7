"""Which steps are computed together: elementwise work and reductions in one pass over memory.

A :class:`Group` is a set of steps over one iteration space. The space has ``rows`` (any number of leading dimensions)
and an inner part; a line of a group is computed

* at ``"full"`` level: for each element of the space;
* at ``"row"`` level: once per row;
* ``"row_reduce"``: a reduction of a full-level operand over the inner part, giving a row-level value;
* ``"column"``: a reduction over all rows, giving one value per inner place;  both of these end the group's work on
* ``"total"``: a reduction over everything;                                   that value: nothing in it uses them.

Spaces are matched by their C order, not by their shapes: 12 x 64 x 128 elements and 768 x 128 are one space. A step
joins a group if what it reads there was written at the very place it reads (or for its row), so that row after row can
be computed without anything else being done first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from gpugrad import layout
from gpugrad.backends.base import Elementwise
from gpugrad.compiler.program import Again, Buffer, Call, Fill, Map, Number, Program, Reduce, Step, View

MOST_LINES = 96
#: longest row that a group keeps values of between a reduction over it and their next use
LONGEST_ROW = 1 << 16
#: work below this many elements is grouped even if nothing is shared: a launch costs more than the arithmetic
SMALL = 1 << 12
#: how many of the latest groups are looked at for that
NEAR = 32


class Value(NamedTuple):
    """The value of an earlier line of the group."""

    line: int


class Access(NamedTuple):
    """Memory as a group's line reaches it: ``offset`` bytes into ``buffer``, plus a stride in bytes for each dimension
    of the group's ``shape`` (0 where it does not depend on it; row-level lines have 0 for the inner ones, column
    results 0 for the rows, totals 0 everywhere)."""

    buffer: Buffer
    offset: int
    strides: tuple[int, ...]
    dtype: np.dtype


class Line(NamedTuple):
    """One step as it is computed in a group.

    ``kernel``: the elementwise kernel, or None for a reduction (``kind`` says which) or a constant (kind "fill", its
    only operand the number). Operands are converted to ``compute`` (halves compute in float32), results to ``dtype``.
    ``store``: where the result goes, None if nobody outside the group reads it."""

    kernel: Elementwise | None
    kind: str
    operands: tuple[Value | Access | Number | float | int | bool, ...]
    compute: np.dtype
    dtype: np.dtype
    level: str
    store: Access | None


class Group:
    """Lines over ``shape``; the first ``rows`` dimensions are the rows."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.steps: list[Map | Reduce | Fill] = []
        self.levels: list[str] = []
        self.size = 0
        self.inner: int | None = None  # elements of a row, once a reduction has settled it
        self.cuts: set[int] = set()  # where dimensions end: products of sizes counted from the last one
        self.outs: list[_Form] = []
        self.shape: tuple[int, ...] = ()
        self.rows = 0
        self.lines: list[Line] = []

    @property
    def name(self) -> str:
        """What it computes, in short."""
        names = [s.name for s in self.steps]
        return "_".join(names[:6]) + (f"_and_{len(names) - 6}" if len(names) > 6 else "")

    # -- joining ---------------------------------------------------------------------------------
    def accepts(self, step: Map | Reduce | Fill) -> str | None:
        """The level at which ``step`` can be computed here, or None."""
        if len(self.steps) >= MOST_LINES:
            return None
        level, inner = self._level(step)
        if level is None:
            return None
        cuts = self.cuts | _cuts(step, self.size if level != "row" else self.size // (inner or 1), inner, level)
        if not _chain(cuts) or not self._in_step(step, level, inner):
            return None
        return level

    def _level(self, step: Map | Reduce | Fill) -> tuple[str | None, int | None]:
        """The level of ``step`` and the inner size that the group has with it."""
        source = step.input if isinstance(step, Reduce) else step.out
        n = source.size
        self_size = self.size if self.steps else n
        if isinstance(step, Reduce):
            if n != self_size or n == 0:
                return None, None
            kind, inner = _reduction_kind(step)
            if kind == "total":
                return kind, self.inner
            if kind is None or inner is None or (self.inner is not None and self.inner != inner):
                return None, None
            return kind, inner
        if n == self_size:
            return "full", self.inner
        if self.inner is not None and n * self.inner == self_size:
            return "row", self.inner
        return None, None

    def _in_step(self, step: Map | Reduce | Fill, level: str, inner: int | None) -> bool:
        """Whether all that ``step`` shares with earlier steps here is shared element by element, or row by row."""
        out = step.out
        full = step.input.shape if isinstance(step, Reduce) else out.shape
        for k, other in enumerate(self.steps):
            if any(v.overlaps(other.out) for v in step.reads()):
                if self.levels[k] in ("column", "total"):
                    return False
                for v in step.reads():
                    if v.overlaps(other.out) and not self._same_place(k, v, full, level, inner):
                        return False
                if self.levels[k] in ("row", "row_reduce") and level == "full" and (inner or 0) > LONGEST_ROW:
                    return False
            if out.overlaps(other.out) and not (
                level == self.levels[k] and level in ("full", "row") and _form(out, out.shape) == self.outs[k]
            ):
                return False
            space = other.input.shape if isinstance(other, Reduce) else other.out.shape
            for v in other.reads():
                if out.overlaps(v) and not (
                    level == self.levels[k]
                    and level in ("full", "row")
                    and v.dtype == out.dtype
                    and _form(v, space) == _form(out, out.shape)
                ):
                    return False
        return True

    def _same_place(self, k: int, v: View, full: Sequence[int], level: str, inner: int | None) -> bool:
        """Whether ``v``, read over the space ``full`` at ``level``, is what line ``k`` writes: element by element, or
        row by row."""
        writer = self.levels[k]
        if v.dtype != self.steps[k].out.dtype:
            return False
        form = _form(v, full)
        if writer == "full":
            return level != "row" and form == self.outs[k]
        if level == "row":
            return form == self.outs[k]
        return inner is not None and form == self.outs[k].spread(inner)

    def add(self, step: Map | Reduce | Fill, level: str) -> None:
        """Take ``step`` in, at the level that :meth:`accepts` gave."""
        if not self.steps:
            self.size = (step.input if isinstance(step, Reduce) else step.out).size
        _, inner = self._level(step)
        self.inner = inner
        rows = self.size // (inner or 1)
        self.cuts |= _cuts(step, rows if level == "row" else self.size, inner, level)
        self.steps.append(step)
        self.levels.append(level)
        self.outs.append(_form(step.out, step.out.shape))

    # -- finished ----------------------------------------------------------------------------------
    def finish(self, needed: set[int]) -> None:
        """Settle shape and lines; ``needed``: the steps whose results something outside the group reads."""
        self.cuts |= {1, self.size}
        if self.inner:
            self.cuts.add(self.inner)
        cuts = sorted(self.cuts)
        self.shape = tuple(b // a for a, b in zip(cuts, cuts[1:], strict=False))[::-1] if self.size else (0,)
        # Without reductions over rows the last dimension is the inner one.
        inner = self.inner if self.inner is not None else (self.shape[-1] if self.shape else 1)
        done, self.rows = 1, len(self.shape)
        while self.rows and done < inner:
            self.rows -= 1
            done *= self.shape[self.rows]
        writers: list[tuple[int, View]] = []
        for i, (step, level) in enumerate(zip(self.steps, self.levels, strict=True)):
            space = step.input.shape if isinstance(step, Reduce) else step.out.shape
            dims = slice(0, self.rows) if level == "row" else slice(0, len(self.shape))

            def operand(v: Any, space: Any = space, dims: slice = dims, level: str = level) -> Any:
                if not isinstance(v, View):
                    return v
                for k, out in reversed(writers):
                    if v.overlaps(out):
                        return Value(k)
                return self._access(v, space, dims)

            store = self._store(step, level) if i in needed else None
            if isinstance(step, Map):
                operands = tuple(operand(v) for v in step.inputs)
                line = Line(step.kernel, step.name, operands, step.compute, step.out.dtype, level, store)
            elif isinstance(step, Fill):
                line = Line(None, "fill", (step.value,), step.out.dtype, step.out.dtype, level, store)
            else:
                line = Line(None, step.kind, (operand(step.input),), step.out.dtype, step.out.dtype, level, store)
            self.lines.append(line)
            writers.append((i, step.out))

    def _access(self, v: View, space: Sequence[int], dims: slice) -> Access:
        strides = layout.expand_strides(v.shape, v.strides, space)
        inside = _refine(space, strides, self.shape[dims])
        return Access(v.buffer, v.offset, inside + (0,) * (len(self.shape) - len(inside)), v.dtype)

    def _store(self, step: Map | Reduce | Fill, level: str) -> Access:
        out = step.out
        if level == "full":
            return self._access(out, out.shape, slice(0, len(self.shape)))
        if level in ("row", "row_reduce"):
            return self._access(out, out.shape, slice(0, self.rows))
        if level == "total":
            return Access(out.buffer, out.offset, (0,) * len(self.shape), out.dtype)
        inner = _refine(out.shape, out.strides, self.shape[self.rows :])
        return Access(out.buffer, out.offset, (0,) * self.rows + inner, out.dtype)

    def __repr__(self) -> str:
        return f"<group {self.number}: {self.name} over {self.shape}>"


class _Form(NamedTuple):
    """Where the elements of a view lie in C order, with neighbouring dimensions merged: equal forms, equal places."""

    buffer: int
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def spread(self, inner: int) -> _Form:
        """The same place for each of ``inner`` neighbours."""
        shape, strides = _merged((*self.shape, inner), (*self.strides, 0))
        return _Form(self.buffer, self.offset, shape, strides)


def _form(v: View, space: Sequence[int]) -> _Form:
    shape, strides = _merged(space, layout.expand_strides(v.shape, v.strides, space))
    return _Form(v.buffer.number, v.offset, shape, strides)


def _merged(shape: Sequence[int], strides: Sequence[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    sizes: list[int] = []
    steps: list[int] = []
    for n, s in zip(shape, strides, strict=True):
        if n == 1:
            continue
        if sizes and steps[-1] == s * n:
            sizes[-1] *= n
            steps[-1] = s
        else:
            sizes.append(n)
            steps.append(s)
    return tuple(sizes), tuple(steps)


def _cuts(step: Map | Reduce | Fill, size: int, inner: int | None, level: str) -> set[int]:
    """Where the dimensions of a step end, its operands' neighbouring dimensions merged where all of them can be."""
    space = step.input.shape if isinstance(step, Reduce) else step.out.shape
    views = [step.input] if isinstance(step, Reduce) else [step.out, *step.reads()]
    layouts = [layout.expand_strides(v.shape, v.strides, space) for v in views]
    cuts: set[int] = set()
    done, last = 1, 0
    factor = (inner or 1) if level == "row" else 1
    for d in range(len(space) - 1, -1, -1):
        if space[d] == 1:
            continue
        if done > 1 and not all(s[d] == s[last] * space[last] for s in layouts):
            cuts.add(done * factor)
        done *= space[d]
        last = d
    if level in ("row_reduce", "column") and inner is not None:
        cuts.add(inner)
    if isinstance(step, Reduce) and level == "column":
        cuts |= _own_cuts(step.out)
    if isinstance(step, Reduce) and level == "row_reduce" and inner is not None:
        cuts |= {c * inner for c in _own_cuts(step.out)}
    cuts.discard(1)
    return cuts


def _own_cuts(v: View) -> set[int]:
    shape, _ = _merged(v.shape, v.strides)
    cuts, done = set(), 1
    for n in reversed(shape):
        done *= n
        cuts.add(done)
    return cuts


def _chain(cuts: set[int]) -> bool:
    """Whether each divides the next."""
    ordered = sorted(cuts)
    return all(b % a == 0 for a, b in zip(ordered, ordered[1:], strict=False))


def _refine(shape: Sequence[int], strides: Sequence[int], finer: Sequence[int]) -> tuple[int, ...]:
    """Strides over ``finer``, a shape of as many elements whose dimensions end wherever the view's strides break."""
    merged, steps = _merged(shape, strides)
    result: list[int] = []
    d = len(merged) - 1
    left = merged[d] if merged else 1
    step = steps[d] if merged else 0
    for n in reversed(finer):
        if n == 1:
            result.append(0)
            continue
        while left == 1 and d > 0:
            d -= 1
            left, step = merged[d], steps[d]
        result.append(step)
        left //= n
        step *= n
    return tuple(reversed(result))


def _reduction_kind(step: Reduce) -> tuple[str | None, int | None]:
    """("row_reduce", inner), ("column", inner) or ("total", None); (None, None) if it is none of these."""
    shape = step.input.shape
    axes = [a for a in step.axes if shape[a] != 1]
    kept = [d for d in range(len(shape)) if d not in step.axes and shape[d] != 1]
    if not kept:
        return "total", None
    if not axes:
        return None, None
    if min(axes) > max(kept):
        inner = 1
        for a in axes:
            inner *= shape[a]
        return "row_reduce", inner
    if max(axes) < min(kept):
        inner = 1
        for d in kept:
            inner *= shape[d]
        return "column", inner
    return None, None


# -- the pass ------------------------------------------------------------------------------------------


class _Uses:
    """Which groups read and write a buffer, to know how far up a step may move."""

    def __init__(self) -> None:
        self.of: dict[Buffer, list[tuple[int, View, bool]]] = {}

    def bound(self, step: Step) -> int:
        """The last group that ``step`` has to come after, or be part of."""
        last = -1
        for v in step.reads():
            for number, other, written in self.of.get(v.buffer, ()):
                if written and number > last and v.overlaps(other):
                    last = number
        for v in step.writes():
            for number, other, _ in self.of.get(v.buffer, ()):
                if number > last and v.overlaps(other):
                    last = number
        return last

    def sharing(self, step: Step) -> set[int]:
        """The groups that touch a buffer which ``step`` touches."""
        return {n for v in (*step.reads(), *step.writes()) for n, _, _ in self.of.get(v.buffer, ())}

    def note(self, number: int, step: Step) -> None:
        for v in step.reads():
            self.of.setdefault(v.buffer, []).append((number, v, False))
        for v in step.writes():
            self.of.setdefault(v.buffer, []).append((number, v, True))


def fusible(step: Step) -> bool:
    """Whether a step can be part of a group at all."""
    if isinstance(step, Call):
        return False
    if isinstance(step, Map) and step.kernel.check is not None:
        return False
    if isinstance(step, Reduce):
        return _reduction_kind(step)[0] is not None and step.input.size > 0
    return step.out.size > 0


def fuse(program: Program) -> list[Group | Call | Map | Reduce | Fill]:
    """The program as groups, in an order in which they can run one after another; what cannot be fused stands alone."""
    groups: list[Any] = []
    uses = _Uses()
    for step in program.steps:
        place = _place(groups, uses, step) if fusible(step) else None
        if place is None:
            if fusible(step):
                group = Group(len(groups))
                level = group.accepts(step)  # type: ignore[arg-type]
                if level is not None:
                    group.add(step, level)  # type: ignore[arg-type]
                    groups.append(group)
                else:
                    groups.append(step)
            else:
                groups.append(step)
            uses.note(len(groups) - 1, step)
        else:
            number, level = place
            groups[number].add(step, level)
            uses.note(number, step)
    _finish(program, groups, uses)
    return groups


def _place(groups: list[Any], uses: _Uses, step: Any) -> tuple[int, str] | None:
    bound = uses.bound(step)
    sharing = uses.sharing(step)
    candidates = {n for n in sharing if n >= bound}
    if isinstance(step, Again):  # anywhere but where it was computed before
        home = max((n for n, _, written in uses.of.get(step.origin, ()) if written), default=-1)
        candidates = set(range(max(bound, home + 1), len(groups)))
    if step.out.size <= SMALL:
        near = range(max(bound, len(groups) - NEAR, 0), len(groups))
        candidates.update(n for n in near if isinstance(groups[n], Group) and groups[n].size <= SMALL)
    for number in sorted(candidates, reverse=True):
        group = groups[number]
        if isinstance(group, Group):
            level = group.accepts(step)
            if level is not None:
                return number, level
    return None


def _finish(program: Program, groups: list[Any], uses: _Uses) -> None:
    """Settle the groups: a result is stored if it leaves the program, or another group reads its buffer."""
    results = {v.buffer for v in program.results}
    for number, group in enumerate(groups):
        if not isinstance(group, Group):
            continue
        needed = set()
        for i, step in enumerate(group.steps):
            buffer = step.out.buffer
            outside = buffer.role != "temporary" or buffer in results
            if outside or any(n != number for n, _, written in uses.of[buffer] if not written or n != number):
                needed.add(i)
        group.finish(needed)
