"""How a program runs on OpenCL and CUDA: a few generated kernels in a row, their arguments settled beforehand.

Groups become kernels (``group_text.py``; on CPU-type OpenCL devices ``serial_launches.py``), equal ones the same one.
Launches whose arguments never change are bound once: as kernel objects of their own on OpenCL, as a graph on CUDA.
Everything else goes through the backend's methods, as in the plain way. The program's own buffers lie in one piece of
memory that is planned once, larger ones come from the backend's pool for as long as they are needed; nothing waits for
the device.
"""

from __future__ import annotations

import itertools
import os
import struct
import threading
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from gpugrad.backends.kernel_core import scalar_packer
from gpugrad.backends.kernel_source import Specialization, record
from gpugrad.compiler import serial_launches
from gpugrad.compiler.fusing import Group
from gpugrad.compiler.group_text import GroupText, group_text
from gpugrad.compiler.kernel_text import Scratch
from gpugrad.compiler.lowering import Action, Lowering, Run
from gpugrad.compiler.memory import Lifetime, plan
from gpugrad.compiler.program import Buffer, Call, Number, Program
from gpugrad.compiler.serial_launches import Part
from gpugrad.compiler.serial_text import Kernel, Unsupported

#: buffers up to this many bytes lie in the planned memory
PLANNED = 1 << 24
#: bytes of parameters that every device takes, less room for what a driver adds
MOST_PARAMETERS = 960


class LaunchLowering(Lowering):
    """``program`` ready to run on a kernel backend."""

    def __init__(self, program: Program) -> None:
        self._texts: dict[str, None] = {}
        self._lock = threading.Lock()
        self.generated = 0  # how many groups are kernels
        super().__init__(program)

    def run(self, arguments: Sequence[Any], numbers: Sequence[float]) -> list[Any]:
        with self._lock:  # the planned memory is the same in each run
            return super().run(arguments, numbers)

    def source(self) -> str:
        if not self._texts:
            return super().source()
        return "\n".join(self._texts)

    def prepare(self) -> list[Action]:
        serial = self.backend.cpu_shapes and self.backend.fp64
        writer = _Serial(self) if serial else _Parallel(self)
        return _replayed(self.backend, writer.prepare())


class Settled(NamedTuple):
    """A launch whose arguments are the same in each run."""

    kernel: Any
    groups: int
    args: list[Any]


def _replayed(backend: Any, actions: Sequence[Action | Settled]) -> list[Action]:
    """The actions with each stretch of settled launches as one."""
    found: list[Action] = []
    for settled, stretch in itertools.groupby(actions, lambda a: isinstance(a, Settled)):
        if settled:
            found.append(_queueing(backend.replay([x for x in stretch if isinstance(x, Settled)])))
        else:
            found += [x for x in stretch if not isinstance(x, Settled)]
    return found


def _queueing(queue: Callable[[], None]) -> Action:
    return lambda run: queue()


class _Writer:
    """Makes the actions of a program."""

    def __init__(self, lowering: LaunchLowering) -> None:
        self.lowering = lowering
        self.backend = lowering.backend
        self.parts = lowering.parts
        self.memory: Any = None  # that is planned
        self.slots: dict[Any, int] = {}  # offsets in it, of buffers and of what else is asked for by a name

    # -- memory ---------------------------------------------------------------------------------------------
    def plan(self, ours: Sequence[bool], extra: Sequence[tuple[str, int, int]]) -> None:
        """Settle where the buffers lie that our kernels write first (``ours``: whether each part is one), and memory
        that parts need for themselves: ``extra``, of each a name, the part, the bytes. Calls return their own memory.
        ``entering`` and ``leaving``: what happens to memory before and after each part."""
        first: dict[Buffer, int] = {}
        last: dict[Buffer, int] = {}
        for number, part in enumerate(self.parts):
            for step in part.steps if isinstance(part, Group) else [part]:
                for v in (*step.reads(), *step.writes()):
                    first.setdefault(v.buffer, number)
                    last[v.buffer] = number
        results = {v.buffer for v in self.lowering.program.results}
        self.entering: dict[int, list[Action]] = {}
        self.leaving: dict[int, list[Action]] = {}
        planned: list[Buffer] = []
        for buffer, number in first.items():
            temporary = buffer.role == "temporary" and buffer not in results
            if ours[number] and buffer.role in ("temporary", "result"):
                self.lowering._made.add(buffer)
                if temporary and buffer.nbytes <= PLANNED:
                    planned.append(buffer)
                    continue
                self.entering.setdefault(number, []).append(self._allocating(buffer))
            if temporary:
                self.leaving.setdefault(last[buffer], []).append(_forgetting(buffer.number))
        lifetimes = [Lifetime(first[b], last[b], b.nbytes) for b in planned]
        lifetimes += [Lifetime(number, number, nbytes) for _, number, nbytes in extra]
        if not lifetimes:
            return
        offsets, nbytes = plan(lifetimes)
        self.memory = self.backend._allocate(nbytes)
        self.slots = dict(zip([*planned, *(name for name, _, _ in extra)], offsets, strict=True))
        for buffer in planned:
            size = buffer.dtype.itemsize
            self.lowering._fixed[buffer.number] = self.backend.array_type(
                self.memory, self.slots[buffer], (buffer.nbytes // size,), (size,), buffer.dtype
            )

    def _allocating(self, buffer: Buffer) -> Action:
        empty, number, dtype = self.backend.empty, buffer.number, buffer.dtype
        shape = (buffer.nbytes // dtype.itemsize,)

        def allocate(run: Run) -> None:
            run.memory[number] = empty(shape, dtype)

        return allocate

    # -- launches ---------------------------------------------------------------------------------------------
    def site(
        self,
        kernel: Any,
        groups: int,
        buffers: Sequence[Any],
        offsets: Sequence[tuple[Any, int, int]],
        numbers: Sequence[tuple[Number, str]],
    ) -> Action | Settled:
        """One launch of the program. ``buffers``: buffers of the program or memory itself; ``offsets``: (buffer, byte,
        size of an element) of places, 64-bit words of a struct of parameters; ``numbers`` of the run, which follow in
        the struct."""
        submit = self.backend._launch
        places = [(b.number if isinstance(b, Buffer) else -1, offset, size) for b, offset, size in offsets]
        indices = [n.index for n, _ in numbers]
        packers = [scalar_packer(short) for _, short in numbers]
        padding = b"\0\0\0\0" * (sum(short == "f32" for _, short in numbers) % 2)
        pack = struct.Struct(f"={len(places)}q").pack
        memories = [None if isinstance(b, Buffer) else b for b in buffers]
        where = [b.number if isinstance(b, Buffer) else -1 for b in buffers]
        fixed = self.lowering._fixed

        def packed(memory: Sequence[Any]) -> bytes:
            return pack(*[
                (memory[n].offset + offset) // size if n >= 0 else offset // size for n, offset, size in places
            ])  # fmt: skip

        def arguments(memory: Sequence[Any]) -> list[Any]:
            return [memory[n].buffer if n >= 0 else m for n, m in zip(where, memories, strict=True)]

        moving = [n for n in where if n >= 0 and fixed[n] is None]
        if not moving and not indices:
            return Settled(kernel, groups, arguments(fixed) + ([packed(fixed)] if places else []))

        def launch(run: Run) -> None:
            args = arguments(run.memory)
            if places or indices:
                values = packed(run.memory)
                if indices:
                    values += b"".join(p(run.numbers[i]) for p, i in zip(packers, indices, strict=True)) + padding
                args.append(values)
            submit(kernel, groups, *args)

        return launch


class _Parallel(_Writer):
    """On GPUs: a group is one kernel, or a few one after another."""

    def prepare(self) -> list[Action | Settled]:
        texts = [self._text(part) if isinstance(part, Group) else None for part in self.parts]
        extra = []
        for number, text in enumerate(texts):
            for s in text.scratch if text is not None else ():
                extra.append((f"{number}.{s.number}", number, s.nbytes))
        self.plan([isinstance(part, Group) for part in self.parts], extra)
        actions: list[Action | Settled] = []
        for number, (part, text) in enumerate(zip(self.parts, texts, strict=True)):
            actions += self.entering.get(number, [])
            actions += self.lowering.prepare_part(part) if text is None else self._sites(text, number)
            actions += self.leaving.get(number, [])
        return actions

    def _text(self, group: Group) -> GroupText | None:
        try:
            text = group_text(group, self.backend.shape["LOCAL_SIZE"], self.backend.force_wide)
        except Unsupported:
            return None
        if any(8 * (len(x.buffers) + len(x.offsets) + len(x.numbers)) > MOST_PARAMETERS for x in text.launches):
            return None
        return text

    def _sites(self, text: GroupText, number: int) -> list[Action | Settled]:
        self.lowering._texts[text.readable] = None
        self.lowering.generated += 1
        defines = {**text.defines, "TEXT": text.text}
        names = [launch.name for launch in text.launches]
        sites = []
        for x in text.launches:
            kernel = self.backend.kernel("generated", defines, x.name, names, x.local)
            buffers = [self.memory if isinstance(b, Scratch) else b for b in x.buffers]
            offsets: list[tuple[Any, int, int]] = []
            for b in x.buffers:
                if isinstance(b, Scratch):
                    offsets.append((None, self.slots[f"{number}.{b.number}"], 1))
            offsets += [(a.buffer, a.offset, a.dtype.itemsize) for a in x.offsets]
            sites.append(self.site(kernel, x.groups, buffers, offsets, x.numbers))
        return sites


class _Serial(_Writer):
    """On CPU-type devices: large groups one by one, small ones together."""

    def prepare(self) -> list[Action | Settled]:
        unit = serial_launches.LaneText()
        kernels: list[Kernel | None] = []
        parts: list[list[Part]] = []  # of each part, the calls that compute it; none where it goes the plain way
        extra: list[tuple[str, int, int]] = []
        for number, part in enumerate(self.parts):
            calls: list[Part] = []
            kernel = None
            if isinstance(part, Group):
                try:
                    kernel = unit.kernel(part)
                    _record_twin(part)
                except Unsupported:
                    kernel = None
            elif isinstance(part, Call) and serial_launches.is_small_product(part):
                calls = [serial_launches.product_part(unit, part)]
            if kernel is not None:
                self.lowering.generated += 1
                own = f"{number}."
                calls = [serial_launches.part_of(kernel, own)]
                if kernel.finish:
                    calls.append(serial_launches.finish_of(kernel, own))
                if kernel.partial:
                    extra.append((f"{own}partial", number, kernel.partial))
                if kernel.scratch:
                    extra.append((f"{own}scratch", number, kernel.scratch * calls[0].shares))
            kernels.append(kernel)
            parts.append(calls)
        ours = [bool(calls) or isinstance(part, Group) for calls, part in zip(parts, self.parts, strict=True)]
        self.plan(ours, extra)
        return self._launches(unit, parts)

    def _launches(self, unit: serial_launches.LaneText, parts: list[list[Part]]) -> list[Action | Settled]:
        """The actions, once the memory is planned."""
        found: list[Any] = []  # actions, and launches to be made into actions
        open_parts: list[Part] = []
        touched: set[Any] = set()
        after: list[Action] = []

        def close() -> None:
            if open_parts:
                found.append(serial_launches.launch_of(open_parts, self.slots, len(found)))
            found.extend(after)
            open_parts.clear()
            touched.clear()
            after.clear()

        for number, calls in enumerate(parts):
            if not calls:
                close()
                found += self.entering.get(number, [])
                found += self.lowering.prepare_part(self.parts[number])
                found += self.leaving.get(number, [])
                continue
            found += self.entering.get(number, [])  # an allocation may come before what is still open
            for call in calls:
                outside = {w[1] for w in call.parameters if w[0] == "pointer" and w[1] not in self.slots}
                if call.shares > 1:
                    close()
                    found.append(serial_launches.launch_of([call], self.slots, len(found)))
                    continue
                if len(touched | outside) > serial_launches.MOST_BUFFERS:
                    close()
                touched |= outside
                open_parts.append(call)
            after += self.leaving.get(number, [])
        close()
        launches = [x for x in found if isinstance(x, serial_launches.SerialLaunch)]
        if not launches:
            return found
        wrappers = dict.fromkeys(x.text for x in launches)
        functions = unit.kernels() + "\n" + "\n".join(wrappers)
        self.lowering._texts[unit.helpers(False) + functions] = None
        defines = {"IDX": "i64", "T_f64": "1", "GG_SERIAL": "1", "TEXT": unit.helpers() + functions}
        names = list(dict.fromkeys(x.name for x in launches))
        actions: list[Action | Settled] = []
        for x in found:
            if isinstance(x, serial_launches.SerialLaunch):
                kernel = self.backend.kernel("generated", defines, x.name, names, 1)
                buffers = [self.memory if b is None else b for b in x.buffers]
                actions.append(self.site(kernel, x.groups, buffers, x.offsets, x.numbers))
            else:
                actions.append(x)
        return actions


def _record_twin(group: Group) -> None:
    """Where kernels are recorded (``tools/compile_cuda.py``), note what a GPU would compute ``group`` with."""
    path = os.environ.get("GPUGRAD_RECORD_KERNELS")
    if path:
        text = group_text(group)
        defines = (*text.defines.items(), ("TEXT", text.text))
        record(Specialization("generated", defines, tuple(x.name for x in text.launches)), path)


def _forgetting(number: int) -> Action:
    def forget(run: Run) -> None:
        run.memory[number] = None

    return forget
