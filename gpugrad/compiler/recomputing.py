"""Values that are cheaper to compute again than to keep: what one group would write and another read back.

A temporary that costs a pass over memory each time it is written or read is computed in the group that wants it, if it
takes little arithmetic and no more reading than it saves: the normalised rows of a layer norm, say, follow from the
input and two numbers per row. (Griewank and Walther, "Evaluating derivatives", 2008, chapter 12, is about the general
trade of memory for arithmetic.) The program is fused anew and kept only if it moves fewer bytes.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from gpugrad.compiler.fusing import Access, Group, fuse
from gpugrad.compiler.program import Again, Buffer, Map, Program, Reduce, Step, View

#: kernels that cost next to nothing beside the memory they save
_CHEAP = frozenset(("add", "sub", "mul", "div", "neg", "square", "cast", "relu", "maximum", "minimum", "where", "abs"))
#: bytes from which on a temporary is worth it
LEAST = 1 << 18
#: operands of no more than this share of a temporary count as free
SHARE = 8


class _Uses(NamedTuple):
    """Who writes and reads the buffers: positions of steps."""

    writers: dict[Buffer, list[int]]
    readers: dict[Buffer, list[int]]


def recomputed(program: Program) -> list[Any]:
    """The parts of ``program``, as :func:`fuse` gives them; its steps are changed where computing again saves memory
    traffic."""
    parts = fuse(program)
    steps, buffers = program.steps, len(program.buffers)
    if _rewrite(program, parts):
        program.prune()
        better = fuse(program)
        if _traffic(better) < _traffic(parts):
            return better
        program.steps = steps
        del program.buffers[buffers:]
        parts = fuse(program)  # groups settle steps of the program as it is
    return parts


def _traffic(parts: list[Any]) -> int:
    """Bytes that groups read and write, each operand once per group."""
    total = 0
    for group in parts:
        if not isinstance(group, Group):
            continue
        accesses = {x for line in group.lines for x in (*line.operands, line.store) if isinstance(x, Access)}
        for x in accesses:
            reached = x.dtype.itemsize
            for n, stride in zip(group.shape, x.strides, strict=True):
                reached *= n if stride else 1
            total += reached
    return total


def _rewrite(program: Program, parts: list[Any]) -> bool:
    """Put copies of cheap steps before the groups that read their results; whether there were any."""
    steps = list(program.steps)
    group_of = {id(s): number for number, g in enumerate(parts) if isinstance(g, Group) for s in g.steps}
    uses = _note(steps)
    results = {v.buffer for v in program.results}
    # (group, old buffer) -> new buffer; and the new steps of a group, in order
    again: dict[tuple[int, Buffer], Buffer] = {}
    added: dict[int, list[Again]] = {}
    for i, step in enumerate(steps):
        b = step.writes()[0].buffer if step.writes() else None
        home = group_of.get(id(step))
        if b is None or home is None or not _is_cheap(step, uses, results):
            continue
        assert isinstance(step, Map)
        places = {group_of.get(id(steps[r])) for r in uses.readers.get(b, ())} - {home}
        if not places or None in places:
            continue
        chosen = sorted(p for p in places if p is not None)
        if not all(_gains(step, i, p, parts, uses, again, home, group_of, steps, results) for p in chosen):
            continue
        for place in chosen:
            new = Buffer(len(program.buffers), b.nbytes, b.dtype, "temporary")
            program.buffers.append(new)
            inputs = [_moved(x, place, again) for x in step.inputs]
            again[place, b] = new
            added.setdefault(place, []).append(
                Again(step.kernel, inputs, step.compute, step.out._replace(buffer=new), b)
            )
    if not added:
        return False
    program.steps = _inserted(steps, group_of, added, again)
    return True


def _note(steps: list[Step]) -> _Uses:
    uses = _Uses({}, {})
    for i, step in enumerate(steps):
        for v in step.writes():
            uses.writers.setdefault(v.buffer, []).append(i)
        for v in step.reads():
            uses.readers.setdefault(v.buffer, []).append(i)
    return uses


def _is_cheap(step: Step, uses: _Uses, results: set[Buffer]) -> bool:
    """Whether ``step`` alone makes a large temporary, whole, by little arithmetic."""
    if not isinstance(step, Map) or step.kernel.name not in _CHEAP or step.kernel.check is not None:
        return False
    out = step.out
    b = out.buffer
    return (
        b.role == "temporary"
        and b not in results
        and b.nbytes >= LEAST
        and len(uses.writers[b]) == 1
        and out.dense
        and not out.offset
        and out.size * b.dtype.itemsize == b.nbytes
    )


def _gains(
    step: Map,
    at: int,
    place: int,
    parts: list[Any],
    uses: _Uses,
    again: dict[tuple[int, Buffer], Buffer],
    home: int,
    group_of: dict[int, int],
    steps: list[Step],
    results: set[Buffer],
) -> bool:
    """Whether group ``place`` can compute ``step`` again and reads no more for it than it did."""
    known = {v.buffer for s in parts[place].steps for v in s.reads()}
    extra = 0
    for v in step.reads():
        c = v.buffer
        if any(w > at for w in uses.writers.get(c, ())):
            return False  # it is something else by then
        if (place, c) in again or c.nbytes * SHARE <= step.out.buffer.nbytes:
            continue
        kept = c.role != "temporary" or c in results or any(
            group_of.get(id(steps[r])) != home for r in uses.readers.get(c, ())
        )  # fmt: skip
        if not kept:
            return False  # it would have to be written instead
        extra += c not in known
    return extra <= 1


def _moved(x: Any, place: int, again: dict[tuple[int, Buffer], Buffer]) -> Any:
    new = again.get((place, x.buffer)) if isinstance(x, View) else None
    return x if new is None else x._replace(buffer=new)


def _inserted(
    steps: list[Step], group_of: dict[int, int], added: dict[int, list[Again]], again: dict[tuple[int, Buffer], Buffer]
) -> list[Step]:
    """The steps with the added ones before the first of their group that reads one of them."""
    result: list[Step] = []
    waiting = dict(added)
    for step in steps:
        place = group_of.get(id(step), -1)
        if any((place, v.buffer) in again for v in step.reads()):
            result += waiting.pop(place, [])
            step = _redirected(step, place, again)
        result.append(step)
    return result


def _redirected(step: Step, place: int, again: dict[tuple[int, Buffer], Buffer]) -> Step:
    if isinstance(step, Map):
        return Map(step.kernel, [_moved(x, place, again) for x in step.inputs], step.compute, step.out)
    assert isinstance(step, Reduce)
    return Reduce(step.kind, _moved(step.input, place, again), step.axes, step.out)
