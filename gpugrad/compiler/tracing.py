"""Listening to a function while it runs: which calls of the backend contract it makes, with which memory.

The function runs once as ever, and the results of that run are real ones. Meanwhile the class of each open backend is a
subclass that notes every call of the contract in a :class:`~gpugrad.compiler.program.Program`: forward, backward and
optimizer alike, as all of them come down to such calls. Fused routines are not offered, so that what is noted are the
plain definitions, which the compiler fuses itself.

What cannot be repeated ends the trace with a reason (:meth:`Tracer.broken`), never the function: it goes on to its
end, and is run eagerly from then on. Reading a value is the usual reason: Python may decide by it.
"""

from __future__ import annotations

import functools
import os
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gpugrad import layout, live
from gpugrad.autograd import engine
from gpugrad.backends.base import Backend
from gpugrad.compiler.program import CAST, Buffer, Call, Fill, Map, Number, Program, Reduce, Step, View
from gpugrad.devices import on_open, opened
from gpugrad.optim import optimizer

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_lock = threading.RLock()

#: tensors of more elements than this, made from Python or NumPy values, are taken for data, not for constants
MOST_CONSTANTS = 64

_READS = ("to_host", "export", "address", "adopt", "nonzero")
_SILENT = frozenset(
    "info supports as_strided windows synchronize memory_stats reset_peak_memory_stats release_cached timeline "
    "extent".split()
)
_METHODS = tuple(n for n, f in vars(Backend).items() if n[0] != "_" and callable(f) and n not in _SILENT)


class Tracer:
    """One trace. ``with tracer: function()``; afterwards ``program`` (None if nothing was computed) and ``reason``."""

    def __init__(self) -> None:
        self.thread = threading.get_ident()
        self.inside = False
        self.reason: str | None = None
        self.program: Program | None = None
        self.numbers = 0
        self.live_functions: list[Callable[[], Sequence[float]]] = []
        self.walked = False  # whether a graph was walked back
        self._known: dict[int, list[tuple[int, int, int, Buffer]]] = {}  # owner -> first byte, last byte, origin
        self._kept: list[Any] = []  # every array and owner met: memory is not used again during a trace
        self._constants: set[Buffer] = set()
        self.arrays: dict[Buffer, Any] = {}  # that were registered: a buffer's offset 0 is the first element
        self._replaced: list[tuple[Any, str, Any]] = []

    # -- beginning and ending -------------------------------------------------------------------------
    def __enter__(self) -> Tracer:
        _lock.acquire()
        live.recorder = self
        on_open.append(self._watch)
        for backend in opened():
            self._watch(backend)
        self._replace(optimizer, "run_step", self._stepping(optimizer.run_step))
        self._replace(engine, "_walk", self._walking(engine._walk))
        return self

    def __exit__(self, *error: object) -> None:
        live.recorder = None
        on_open.remove(self._watch)
        while self._replaced:
            setattr(*self._replaced.pop())
        _lock.release()

    def _replace(self, owner: Any, name: str, new: Any) -> None:
        self._replaced.append((owner, name, getattr(owner, name)))
        setattr(owner, name, new)

    def _watch(self, backend: Any) -> None:
        kind = type(backend)
        if kind not in _tracing_classes:
            _tracing_classes[kind] = _tracing(kind)
        self._replace(backend, "__class__", _tracing_classes[kind])

    def _stepping(self, run: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(run)
        def noted(step: Any, which: Any, *args: Any) -> Any:
            if self.listens() and not getattr(type(which), "traceable", False):
                self.broken(f"steps {type(which).__name__}, whose numbers change from step to step in Python")
            return run(step, which, *args)

        return noted

    def _walking(self, walk: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(walk)
        def noted(*args: Any) -> Any:
            if threading.get_ident() == self.thread:
                self.walked = True
            return walk(*args)

        return noted

    def listens(self) -> bool:
        """Whether this is the thread that is traced, outside of a backend's own work."""
        return not self.inside and self.reason is None and threading.get_ident() == self.thread

    def broken(self, why: str) -> None:
        """End the trace: ``why`` says what the user's line does that cannot be repeated."""
        if self.reason is None and threading.get_ident() == self.thread:
            self.reason = f"{_users_line()} {why}"

    # -- numbers that change -------------------------------------------------------------------------------
    def live(self, function: Callable[[], tuple[float, ...]]) -> tuple[float, ...]:
        """Called for :func:`gpugrad.live.live`."""
        values = function()
        if threading.get_ident() != self.thread:
            return values
        marked = tuple(live.mark(v, self.numbers + i) for i, v in enumerate(values))
        self.numbers += len(marked)
        self.live_functions.append(function)
        return marked

    # -- memory --------------------------------------------------------------------------------------------
    def argument(self, array: Any, backend: Any, position: int) -> None:
        """Make the memory of ``array`` known as that of argument ``position``."""
        if self._overlapping(array, backend) is not None:
            self.broken("is given two tensors that share memory")
            return
        buffer = self._register(array, backend, "argument")
        if buffer is not None:
            buffer.position = position

    def _register(self, array: Any, backend: Any, role: str) -> Buffer | None:
        program = self._program_of(backend)
        if program is None:
            return None
        owner, offset, _ = backend.extent(array)
        low, high = layout.byte_range(array.shape, array.strides, array.dtype.itemsize)
        buffer = Buffer(len(program.buffers), high - low, array.dtype, role, array if role == "outside" else None)
        program.buffers.append(buffer)
        self.arrays[buffer] = array
        self._known.setdefault(id(owner), []).append((offset + low, offset + high, offset, buffer))
        self._kept += (owner, array)
        return buffer

    def knows(self, array: Any, backend: Any) -> Buffer | None:
        """The buffer that ``array`` is in, if the program uses it."""
        return self._overlapping(array, backend) if self.program is not None and array.size else None

    def _overlapping(self, array: Any, backend: Any) -> Buffer | None:
        owner, offset, _ = backend.extent(array)
        low, high = layout.byte_range(array.shape, array.strides, array.dtype.itemsize)
        for first, last, _, buffer in self._known.get(id(owner), ()):
            if first < offset + high and offset + low < last:
                return buffer
        return None

    def _program_of(self, backend: Any) -> Program | None:
        if self.program is None:
            self.program = Program(backend)
        elif self.program.backend is not backend:
            self.broken(f"computes on two devices, {self.program.backend.name} and {backend.name}")
            return None
        return self.program

    def view(self, array: Any, backend: Any) -> View | None:
        """``array`` as a view of a known buffer, or of one from outside; None if the trace has ended."""
        program = self._program_of(backend)
        if program is None:
            return None
        owner, offset, size = backend.extent(array)
        low, high = layout.byte_range(array.shape, array.strides, array.dtype.itemsize)
        entries = self._known.get(id(owner), [])
        for first, last, origin, buffer in entries:
            if first <= offset + low and offset + high <= last or not array.size:
                if buffer.dtype != array.dtype:
                    self.broken(f"looks at {buffer.dtype} memory as {array.dtype}")
                    return None
                return View(buffer, offset - origin, tuple(array.shape), tuple(array.strides), array.dtype)
        if any(first < offset + high and offset + low < last for first, last, _, _ in entries):
            self.broken("uses overlapping parts of one piece of memory")
            return None
        # From outside: all of it may be looked at later, through other views.
        if entries:
            buffer_size = high - low
            span = (offset + low, offset + high)
        else:
            buffer_size, span = size, (0, size)
        buffer = Buffer(len(program.buffers), buffer_size, array.dtype, "outside", array)
        program.buffers.append(buffer)
        self._known.setdefault(id(owner), []).append((*span, offset, buffer))
        self._kept += (owner, array)
        return View(buffer, 0, tuple(array.shape), tuple(array.strides), array.dtype)

    def _fresh(self, array: Any, backend: Any) -> View | None:
        """The view of an array that a call returned: of new memory, unless it returned what it was given."""
        owner, _, _ = backend.extent(array)
        if id(owner) not in self._known:
            buffer = self._register(array, backend, "temporary")
            if buffer is None:
                return None
        return self.view(array, backend)

    def fold(self, kept: set[Buffer]) -> None:
        """Take steps with constant operands out of the program; ``kept``: buffers that leave it."""
        if self.program is not None:
            self.program.fold(self.arrays, self._constants, kept)

    def is_constant(self, buffer: Buffer) -> bool:
        """Whether the buffer holds a constant that the function made."""
        return buffer in self._constants

    # -- noting calls -----------------------------------------------------------------------------------------
    def note(self, backend: Any, method: str, args: tuple[Any, ...], kwargs: dict[str, Any], value: Any) -> None:
        """Add one call of the contract to the program."""
        try:
            noted = getattr(self, f"_note_{method}", None)
            if noted is not None:
                steps = noted(backend, value, *args, **kwargs)
            else:
                steps = self._note_call(backend, value, method, args, kwargs)
        except NotImplementedError as error:
            self.broken(f"computes on a device that cannot be traced: {error}")
            return
        if self.reason is None and steps:
            assert self.program is not None
            self.program.steps.extend(steps)

    def _operand(self, x: Any, backend: Any) -> Any:
        if isinstance(x, (live.Live, live.LiveInt)):
            return Number(x.index)
        if isinstance(x, (bool, int, float, str, np.dtype)) or x is None:
            return x
        if isinstance(x, (list, tuple)):
            return type(x)([self._operand(e, backend) for e in x])
        if hasattr(x, "strides"):
            return self.view(x, backend)
        return x

    def _note_empty(self, backend: Any, value: Any, *args: Any, **kwargs: Any) -> list[Step]:
        self._fresh(value, backend)
        return []

    def _note_from_host(self, backend: Any, value: Any, array: np.ndarray) -> list[Step]:
        if array.size > MOST_CONSTANTS:
            self.broken(
                f"makes a tensor of {array.size} elements from values of Python or NumPy, which may differ from run to "
                "run; make it outside and pass it in"
            )
            return []
        buffer = self._register(value, backend, "outside")
        if buffer is not None:
            self._constants.add(buffer)
        return []

    def _note_map(
        self, backend: Any, value: Any, kernel: Any, inputs: Sequence[Any], compute: Any, result: Any, out: Any = None
    ) -> list[Step]:
        operands = [self._operand(x, backend) for x in inputs]
        target = self._fresh(value, backend) if out is None else self.view(out, backend)
        if target is None or self.reason is not None:
            return []
        for x in operands:
            if isinstance(x, View) and x.overlaps(target) and not _same(x, target):
                return [Call("map", (kernel, operands, compute, target.dtype, target), {}, (), (target,), True)]
        return [Map(kernel, operands, compute, target)]

    def _note_copy(self, backend: Any, value: Any, array: Any, dtype: Any = None, out: Any = None) -> list[Step]:
        source = self.view(array, backend)
        target = self._fresh(value, backend) if out is None else self.view(out, backend)
        if source is None or target is None:
            return []
        if source.overlaps(target) and not _same(source, target):
            return [Call("copy", (source, None, target), {}, (), (target,), True)]
        return [Map(CAST, (source,), source.dtype, target)]

    def _note_fill(self, backend: Any, value: Any, out: Any, number: Any) -> list[Step]:
        target = self.view(out, backend)
        return [] if target is None else [Fill(self._operand(number, backend), target)]

    def _note_reduce(
        self, backend: Any, value: Any, kind: str, array: Any, axes: Sequence[int], dtype: Any
    ) -> list[Step]:
        source, target = self.view(array, backend), self._fresh(value, backend)
        if source is None or target is None:
            return []
        if kind in ("sum", "prod", "max", "min") and source.size and all(source.shape[a] == 1 for a in axes):
            shape = [(n, s) for d, (n, s) in enumerate(zip(source.shape, source.strides, strict=True)) if d not in axes]
            same = View(source.buffer, source.offset, tuple(n for n, _ in shape), tuple(s for _, s in shape),
                        source.dtype)  # fmt: skip
            return [Map(CAST, (same,), source.dtype, target)]
        return [Reduce(kind, source, axes, target)]

    def _note_scatter(
        self, backend: Any, value: Any, out: Any, index: Any, source: Any, axis: int, mode: str, op: str
    ) -> list[Step]:
        views = [self.view(x, backend) for x in (out, index, source)]
        if any(v is None for v in views):
            return []
        return [Call("scatter", (*views, axis, mode, op), {}, (), (views[0],), True)]  # type: ignore[arg-type]

    def _note_offer(self, backend: Any, value: Any, name: str) -> list[Step]:
        return []

    def _note_call(self, backend: Any, value: Any, method: str, args: Any, kwargs: Any) -> list[Step]:
        if method in _READS:
            self.broken(_READING.get(method, "reads values back"))
            return []
        operands = [self._operand(x, backend) for x in args]
        named = {k: self._operand(x, backend) for k, x in kwargs.items()}
        single = not isinstance(value, (tuple, list))
        results = [self._fresh(v, backend) for v in ((value,) if single else value)]
        if any(r is None for r in results):
            return []
        return [Call(method, operands, named, results, (), single)]  # type: ignore[arg-type]


_READING = {
    "to_host": "reads the values of a tensor, by which Python may decide what comes next",
    "nonzero": "computes a tensor whose shape depends on values",
    "export": "shares memory with another library",
    "adopt": "shares memory with another library",
    "address": "asks for an address in memory",
}


def _same(a: View, b: View) -> bool:
    return a.offset == b.offset and a.shape == b.shape and a.strides == b.strides


def _users_line() -> str:
    """Where the user's code is now: the innermost line outside this package."""
    frame: Any = sys._getframe(1)
    while frame is not None and os.path.abspath(frame.f_code.co_filename).startswith(_PACKAGE + os.sep):
        frame = frame.f_back
    if frame is None:
        return "a line"
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"


_tracing_classes: dict[type, type] = {}


def _tracing(kind: Any) -> type:
    """A subclass of a backend's class that tells the tracer of the calls of the contract."""
    members: dict[str, Any] = {name: _noting(name, getattr(kind, name)) for name in _METHODS if name != "offer"}

    def offer(self: Any, name: str) -> Callable[..., Any] | None:
        tracer = live.recorder
        return None if tracer is not None and tracer.listens() else kind.offer(self, name)

    members |= {"offer": offer, "__module__": kind.__module__}
    return type(kind.__name__, (kind,), members)


def _noting(method: str, original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        tracer = live.recorder
        if tracer is None or not tracer.listens():
            return original(self, *args, **kwargs)
        tracer.inside = True
        try:
            value = original(self, *args, **kwargs)
        finally:
            tracer.inside = False
        tracer.note(self, method, args, kwargs, value)
        return value

    return call
