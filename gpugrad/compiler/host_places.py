"""Which parts of a program C computes on the CPU, and where its buffers lie."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gpugrad.compiler import host_product
from gpugrad.compiler.fusing import Group
from gpugrad.compiler.memory import Lifetime, plan
from gpugrad.compiler.program import Buffer, Call, Program
from gpugrad.compiler.serial_text import Kernel, Text, Unsupported

#: bytes up to which arguments and results are copied
SMALL = 1 << 16
#: elements computed from which on a group is shared out among threads, which costs about 20 us
LARGE = 1 << 17
#: parts that are shared out: a few for each thread, so that one that is held up does not hold up all
RANGES = 8


class Places:
    """``parts``: pairs of what C or Python is to do, in order; ``slots``: offsets of buffers in the arena ``space``."""

    def __init__(self, program: Program, parts: Sequence[Any], in_place: frozenset[int]) -> None:
        self.program = program
        self.backend = program.backend
        self.in_place = in_place
        self.unit = Text()
        self.slots: dict[int, int] = {}  # buffer number -> offset in the arena
        self.parts: list[Any] = [p for part in parts for p in self._kinds(part)]
        self._lifetimes()
        self._sort()
        self._batches()
        self._memory()

    def _kinds(self, part: Any) -> list[Any]:
        """A part as pairs: ("kernel", Kernel), ("product", (name, step)) or ("step", step)."""
        if isinstance(part, Group):
            try:
                return [("kernel", self.unit.kernel(part))]
            except Unsupported:
                return [("step", s) for s in part.steps]
        if isinstance(part, Call) and part.method == "matmul" and len(part.args) == 2 and not part.kwargs:
            a, b = part.args
            if host_product.is_small(a, b, part.results[0]):
                return [("product", (self.unit.add(host_product.text(a, b), "gg_product"), part))]
        return [("step", part)]

    # -- where things are ------------------------------------------------------------------------------
    @staticmethod
    def _touched(kind: str, part: Any) -> list[tuple[Buffer, bool]]:
        """(buffer, whether C code reaches it) for each use in a part."""
        if kind == "kernel":
            return [(p.buffer, True) for p in part.pointers]
        step = part[1] if kind == "product" else part
        return [(v.buffer, kind == "product") for v in (*step.reads(), *step.writes())]

    def _lifetimes(self) -> None:
        self.first: dict[Buffer, int] = {}
        self.last: dict[Buffer, int] = {}
        self.in_c: set[Buffer] = set()
        self.written: set[Buffer] = set()
        for i, (kind, part) in enumerate(self.parts):
            for b, c in self._touched(kind, part):
                self.first.setdefault(b, i)
                self.last[b] = i
                if c:
                    self.in_c.add(b)
            if kind == "kernel":
                self.written.update(p.buffer for p in part.pointers if p.written)
            else:
                step = part[1] if kind == "product" else part
                self.written.update(v.buffer for v in step.writes())
        for v in self.program.results:
            self.last[v.buffer] = len(self.parts)
            self.first.setdefault(v.buffer, 0)

    def _sort(self) -> None:
        """Sort buffers by where they lie."""
        self.returned: set[Buffer] = set()  # arrays that calls return
        self.direct: set[Buffer] = set()  # of these, what a product is written to instead
        for i, (kind, part) in enumerate(self.parts):
            if kind == "step" and isinstance(part, Call):
                if is_product(part):
                    continue
                for v in part.results:
                    b = v.buffer
                    if b.role in ("temporary", "result") and self.first.get(b) == i:
                        self.returned.add(b)
        results = {v.buffer for v in self.program.results}
        self.arena: list[Buffer] = []
        self.copied: list[Buffer] = []  # arguments
        self.made: list[Buffer] = []
        for b in self.first:
            small = b.nbytes <= SMALL
            copied = small and b in self.in_c and b not in self.written and b not in results
            if b.role == "argument" and copied and b.position not in self.in_place:
                self.copied.append(b)
                self.arena.append(b)
            elif b.role == "temporary" or b.role == "result":
                if b in self.returned:
                    if small and b in self.in_c and b not in results:
                        self.arena.append(b)
                elif b.role == "result" and not small:
                    self.made.append(b)
                else:
                    self.arena.append(b)

    def _batches(self) -> None:
        """``batch[i]``: the first of the large kernels that kernel i is shared out together with, i itself if there is
        none. No kernel of a batch touches what another one of it, or a part between them, writes."""
        self.batch = list(range(len(self.parts)))
        start, touched, written = -1, set[Buffer](), set[Buffer]()  # of the open batch and what came after its start
        for i, (kind, part) in enumerate(self.parts):
            if kind == "step":
                start = -1
                continue
            uses = {b for b, _ in self._touched(kind, part)}
            if kind == "kernel":
                writes = {p.buffer for p in part.pointers if p.written}
            else:
                writes = {v.buffer for v in part[1].writes()}
            if kind == "kernel" and self._is_large(part):
                if start >= 0 and not (uses & written or writes & touched):
                    self.batch[i] = start
                else:
                    start, touched, written = i, set(), set()
            touched |= uses
            written |= writes
        # What happens between the first and the last of a batch counts as one moment.
        self.moment = list(range(len(self.parts)))
        for i in range(len(self.parts) - 1, -1, -1):
            for k in range(self.batch[i] + 1, i + 1) if self.batch[i] != i else ():
                self.moment[k] = self.batch[i]
        self.moment.append(len(self.parts))

    def _memory(self) -> None:
        """Plan the arena: buffers, partial results and scratch."""
        moment = self.moment
        lifetimes = [
            Lifetime(-1 if b in self.copied else moment[self.first[b]], moment[self.last[b]], b.nbytes)
            for b in self.arena
        ]
        extra: list[tuple[int, str]] = []
        for i, (kind, part) in enumerate(self.parts):
            if kind == "kernel":
                if part.partial:
                    extra.append((i, "partial"))
                    lifetimes.append(Lifetime(moment[i], moment[i], part.partial))
                if part.scratch:
                    extra.append((i, "scratch"))
                    copies = RANGES if self._is_large(part) else 1
                    lifetimes.append(Lifetime(moment[i], moment[i], part.scratch * copies))
        offsets, size = plan(lifetimes)
        self.space = self.backend.empty((size + 64,), np.dtype(np.uint8))
        self.base = -self.space.__array_interface__["data"][0] % 64
        for b, offset in zip(self.arena, offsets, strict=False):
            self.slots[b.number] = offset
        self.extra = dict(zip(extra, offsets[len(self.arena) :], strict=True))

    @staticmethod
    def _is_large(kernel: Kernel) -> bool:
        return kernel.work >= LARGE and kernel.chunks >= 2


def is_product(step: Call) -> bool:
    """Whether a step is a product that NumPy can write to where it belongs."""
    if step.method != "matmul" or len(step.args) != 2 or step.kwargs:
        return False
    a, b = step.args
    out = step.results[0]
    return bool(a.dtype in _PRODUCTS and a.dtype == b.dtype == out.dtype and out.dense)


_PRODUCTS = (np.dtype(np.float32), np.dtype(np.float64))
