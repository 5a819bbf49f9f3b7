"""How a program runs: the part all devices share, and the plain way, call by call.

A :class:`Lowering` is made once for a traced program and then run with new arguments any number of times. This one asks
the backend for one contract method after another, which every device can do. ``host.py`` (CPU) and ``launches.py``
(OpenCL, CUDA) override :meth:`Lowering.prepare` to compute groups of steps at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from gpugrad.compiler.fusing import Group
from gpugrad.compiler.program import CAST, Buffer, Call, Fill, Map, Number, Program, Reduce, Step, View
from gpugrad.compiler.recomputing import recomputed

#: what one piece of a lowered program does, given the run's memory: see :class:`Run`
Action = Callable[["Run"], None]


class Run:
    """One run: ``memory[n]`` is an array over buffer n (its first element is offset 0; any shape), ``numbers`` the
    numbers of this run."""

    __slots__ = ("memory", "numbers")

    def __init__(self, memory: list[Any], numbers: Sequence[float]) -> None:
        self.memory = memory
        self.numbers = numbers


class Lowering:
    """``program`` ready to run on its backend."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.backend = program.backend
        self.parts: list[Group | Step] = recomputed(program)
        self._fixed: list[Any] = [b.array if b.role == "outside" else None for b in program.buffers]
        self._made: set[Buffer] = set()  # buffers that have been written, as preparing goes through the steps
        self._empty: list[tuple[int, tuple[int, ...], Any]] = []
        self._arguments = [(b.number, b.position) for b in program.buffers if b.position >= 0]
        self.actions: list[Action] = self.prepare()
        # What nothing writes has no elements, or was asked for uninitialised.
        written = {v.buffer for s in program.steps for v in s.writes()}
        unwritten = (program.used() | {v.buffer for v in program.results}) - written
        self._empty += [
            (b.number, (b.nbytes // b.dtype.itemsize,), b.dtype) for b in unwritten if b.role in ("temporary", "result")
        ]
        self._results = [self._reader(v) for v in program.results]

    def run(self, arguments: Sequence[Any], numbers: Sequence[float]) -> list[Any]:
        """Arrays for the program's results, in order; ``arguments`` are the arrays of the function's tensors."""
        memory = self._fixed.copy()
        for number, position in self._arguments:
            memory[number] = arguments[position]
        for number, shape, dtype in self._empty:
            memory[number] = self.backend.empty(shape, dtype)
        run = Run(memory, numbers)
        for action in self.actions:
            action(run)
        return [read(run) for read in self._results]

    def source(self) -> str:
        """The kernels that were generated for it, as text."""
        return "// no kernels were generated: this device runs the steps one by one\n" + repr(self.program)

    # -- for subclasses -----------------------------------------------------------------------------
    def prepare(self) -> list[Action]:
        """The actions of a run, in order."""
        return [action for part in self.parts for action in self.prepare_part(part)]

    def prepare_part(self, part: Group | Step) -> list[Action]:
        """The actions of one part, step by step."""
        steps = part.steps if isinstance(part, Group) else [part]
        return [self.step(s) for s in steps]

    def step(self, step: Step) -> Action:
        """One step as one call of the backend."""
        if isinstance(step, Map):
            return self._map(step)
        if isinstance(step, Reduce):
            return self._reduce(step)
        if isinstance(step, Fill):
            return self._fill(step)
        return self._call(step)

    def _reader(self, v: View) -> Callable[[Run], Any]:
        """What gives the array of ``v`` in a run."""
        number, offset, shape, strides = v.buffer.number, v.offset, v.shape, v.strides
        as_strided = self.backend.as_strided

        def read(run: Run) -> Any:
            array = run.memory[number]
            if array.shape == shape and array.strides == strides and not offset:
                return array
            return as_strided(array, shape, strides, offset)

        return read

    def _operand(self, x: Any) -> Callable[[Run], Any]:
        """What gives an argument of a call in a run: arrays for views, numbers of the run for their places."""
        if isinstance(x, View):
            return self._reader(x)
        if isinstance(x, Number):
            index = x.index
            return lambda run: run.numbers[index]
        if isinstance(x, (list, tuple)) and any(isinstance(e, (View, Number, list, tuple)) for e in x):
            kind = type(x)
            parts = [self._operand(e) for e in x]
            return lambda run: kind(p(run) for p in parts)
        return lambda run: x

    def _target(self, v: View) -> Callable[[Run], Any] | None:
        """What gives the memory to write ``v`` to, or None where the call's fresh array becomes that memory."""
        return None if self._is_fresh(v) else self._reader(v)

    def _is_fresh(self, v: View) -> bool:
        """Whether a write of ``v`` is the first of a buffer, and of all of it: a call may then make it anew. A buffer
        that is first written in part is allocated before each run."""
        buffer = v.buffer
        if buffer.role not in ("temporary", "result") or buffer in self._made:
            return False
        self._made.add(buffer)
        if v.dense and not v.offset and v.size * v.dtype.itemsize == buffer.nbytes:
            return True
        self._empty.append((buffer.number, (buffer.nbytes // buffer.dtype.itemsize,), buffer.dtype))
        return False

    def _map(self, step: Map) -> Action:
        backend, kernel, compute, result = self.backend, step.kernel, step.compute, step.out.dtype
        number = step.out.buffer.number
        operands = [self._operand(x) for x in step.inputs]
        target = self._target(step.out)
        if kernel is CAST:
            (source,) = operands
            if target is None:

                def cast(run: Run) -> None:
                    run.memory[number] = backend.copy(source(run), result)
            else:

                def cast(run: Run) -> None:
                    backend.copy(source(run), None, target(run))

            return cast
        if target is None:

            def fresh(run: Run) -> None:
                run.memory[number] = backend.map(kernel, [x(run) for x in operands], compute, result)

            return fresh

        def into(run: Run) -> None:
            backend.map(kernel, [x(run) for x in operands], compute, result, target(run))

        return into

    def _reduce(self, step: Reduce) -> Action:
        backend, kind, axes, dtype = self.backend, step.kind, step.axes, step.out.dtype
        number, source, target = step.out.buffer.number, self._operand(step.input), self._target(step.out)

        def reduce(run: Run) -> None:
            value = backend.reduce(kind, source(run), axes, dtype)
            if target is None:
                run.memory[number] = value
            else:
                backend.copy(value, None, target(run))

        return reduce

    def _fill(self, step: Fill) -> Action:
        backend, out, value = self.backend, step.out, step.value
        number, target = out.buffer.number, self._target(out)
        shape = (out.buffer.nbytes // out.dtype.itemsize,) if not out.dense or out.offset else out.shape
        reader = self._reader(out)

        def fill(run: Run) -> None:
            if target is None:
                run.memory[number] = backend.empty(shape, out.dtype)
            backend.fill(reader(run), value)

        return fill

    def _call(self, step: Call) -> Action:
        backend, method = self.backend, step.method
        args = [self._operand(x) for x in step.args]
        kwargs = {k: self._operand(x) for k, x in step.kwargs.items()}
        results = [(v.buffer.number, self._target(v)) for v in step.results]
        single = step.single

        def call(run: Run) -> None:
            value = getattr(backend, method)(*[a(run) for a in args], **{k: a(run) for k, a in kwargs.items()})
            for (number, target), array in zip(results, (value,) if single else value, strict=True):
                if target is None:
                    run.memory[number] = array
                else:
                    backend.copy(array, None, target(run))

        return call if results else lambda run: _silent(backend, method, args, kwargs, run)


def _silent(backend: Any, method: str, args: Any, kwargs: Any, run: Run) -> None:
    getattr(backend, method)(*[a(run) for a in args], **{k: a(run) for k, a in kwargs.items()})
