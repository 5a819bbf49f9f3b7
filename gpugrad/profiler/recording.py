"""Listening to the backends: what is replaced while a profiler is on, and put back afterwards.

Off, nothing is in the way of an operation. On, four things are replaced:

* the class of each open backend, by a subclass whose contract methods time the inherited ones. Calls that methods make
  among themselves are part of the outer call, in the threads a backend starts for its own work too;
* ``forward`` of each primitive row of the ops table, to know for which operation the contract is called (elementwise
  kernels carry their name);
* ``apply`` of the graph's nodes and the walk around them: what is called inside is the backward of that node, or adds
  gradients up;
* the one function through which optimizers run a step.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter_ns
from typing import Any

from gpugrad.autograd import engine
from gpugrad.autograd.graph import Node, Slot
from gpugrad.backends.base import WORKER_THREADS, Backend, Elementwise, Timeline
from gpugrad.devices import Device, on_open, opened
from gpugrad.ops import table
from gpugrad.optim import optimizer
from gpugrad.profiler.costs import arrays, cost

#: methods of the contract that compute nothing and move nothing on the device
_SILENT = frozenset(
    "info supports extent empty as_strided windows synchronize memory_stats reset_peak_memory_stats export adopt "
    "address release_cached offer factorize_on_host timeline".split()
)
_METHODS = tuple(n for n, f in vars(Backend).items() if n[0] != "_" and callable(f) and n not in _SILENT)


class _Here(threading.local):
    """Of a thread: whether it is inside a recorded call, and what it is doing."""

    def __init__(self) -> None:
        self.inside = threading.current_thread().name.startswith(WORKER_THREADS)
        self.op = ""  # the row, or the node of the graph, that is being computed
        self.phase = ""  # "backward", "Adam.step"; "" in the forward
        self.ranges: tuple[str, ...] = ()


here = _Here()


class Event:
    """One call of an operation.

    ``name`` (of the operation, with its phase in parentheses where that is not the forward), ``op``, ``phase``,
    ``call`` (which method of the backend, with which kernel), ``device``, ``thread``, ``ranges`` (names of the
    :class:`record_function` blocks around it, outermost first), ``input_shapes``, ``bytes``, ``flops``; ``start_ns``
    and ``end_ns``: when the host made the call, by ``time.perf_counter_ns``; ``spans_ns``: when the device worked for
    it."""

    __slots__ = (
        "op",
        "phase",
        "call",
        "device",
        "thread",
        "ranges",
        "input_shapes",
        "bytes",
        "flops",
        "start_ns",
        "end_ns",
        "timeline",
        "_mark",
        "_spans",
    )

    def __init__(
        self, op: str, call: str, device: Device, began: int, ended: int, timeline: Timeline, mark: Any
    ) -> None:
        self.op = op
        self.phase = here.phase
        self.call = call
        self.device = device
        self.thread = threading.current_thread().name
        self.ranges = here.ranges
        self.input_shapes: tuple[tuple[int, ...], ...] = ()
        self.bytes = self.flops = 0
        self.start_ns = began
        self.end_ns = ended
        self.timeline = timeline
        self._mark = mark
        self._spans: list[tuple[int, int]] | None = None

    @property
    def name(self) -> str:
        return f"{self.op} ({self.phase})" if self.phase else self.op

    key = name

    @property
    def spans_ns(self) -> list[tuple[int, int]]:
        """(begin, end) of each piece of the device's work; waits until it is done."""
        if self._spans is None:
            self._spans = self.timeline.spans(self._mark)
            self._mark = None
        return self._spans

    @property
    def device_time_ns(self) -> int:
        return sum(end - begin for begin, end in self.spans_ns)

    @property
    def device_time(self) -> float:
        """Microseconds that the device worked."""
        return self.device_time_ns / 1e3

    @property
    def cpu_time(self) -> float:
        """Microseconds that the host spent in the call."""
        return (self.end_ns - self.start_ns) / 1e3

    def __repr__(self) -> str:
        return f"<{self.name} on {self.device}: {self.device_time:.1f} us, {self.bytes} bytes, {self.flops} FLOPs>"


class Range:
    """One pass through a :class:`record_function` block."""

    __slots__ = ("name", "thread", "start_ns", "end_ns")

    def __init__(self, name: str, began: int, ended: int) -> None:
        self.name = name
        self.thread = threading.current_thread().name
        self.start_ns = began
        self.end_ns = ended


Listener = Callable[[Event | Range], None]


class Recorder:
    """Tells the listeners of every call. What is replaced is replaced for the first of them and put back after the
    last one."""

    def __init__(self) -> None:
        self.listeners: tuple[Listener, ...] = ()
        self.timelines: dict[Any, Timeline] = {}
        self._lock = threading.RLock()
        self._replaced: list[tuple[Any, str, Any]] = []
        self._nodes: set[type[Node]] = set()

    def add(self, listener: Listener) -> None:
        with self._lock:
            if not self.listeners:
                try:
                    self._install()
                except BaseException:
                    self._uninstall()
                    raise
            self.listeners = (*self.listeners, listener)

    def remove(self, listener: Listener) -> None:
        with self._lock:
            self.listeners = tuple(x for x in self.listeners if x != listener)
            if not self.listeners:
                self._uninstall()

    def tell(self, what: Event | Range) -> None:
        for listener in self.listeners:
            listener(what)

    def timeline_of(self, backend: Any) -> Timeline | None:
        return self.timelines.get(backend)

    # -- replacing and putting back --------------------------------------------------------
    def _replace(self, owner: Any, name: str, new: Any) -> None:
        self._replaced.append((owner, name, getattr(owner, name)))
        setattr(owner, name, new)

    def _install(self) -> None:
        on_open.append(self._watch)
        for backend in opened():
            self._watch(backend)
        self._replace(table, "around_forward", _named)
        for op in table.OPS.values():
            if op.forward is not None:
                op.forward = _named(op, op.forward)
        self._replace(engine, "_walk", self._walk(engine._walk))
        self._replace(optimizer, "run_step", _stepping(optimizer.run_step))

    def _uninstall(self) -> None:
        on_open.remove(self._watch)
        while self._replaced:
            setattr(*self._replaced.pop())
        for op in table.OPS.values():
            op.forward = getattr(op.forward, "plain", op.forward)
        self._nodes.clear()
        for timeline in self.timelines.values():
            timeline.close()
        self.timelines = {}

    def _watch(self, backend: Any) -> None:
        with self._lock:
            if backend not in self.timelines:
                self.timelines[backend] = backend.timeline()
                kind = type(backend)
                if kind not in _listeners:
                    _listeners[kind] = _listening(kind)
                self._replace(backend, "__class__", _listeners[kind])

    def _walk(self, walk: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(walk)
        def named(*args: Any) -> Any:
            self._watch_nodes(Node)
            with _doing("accumulate", "backward"):
                return walk(*args)

        return named

    def _watch_nodes(self, kind: type[Node]) -> None:
        """Name what ``apply`` of every kind of node calls; kinds may be defined at any time, so before each walk."""
        with self._lock:
            for child in kind.__subclasses__():
                apply = child.__dict__.get("apply")
                if apply is not None and child is not Slot and child not in self._nodes and self._replaced:
                    self._nodes.add(child)
                    self._replace(child, "apply", _applying(apply))
                self._watch_nodes(child)


recorder = Recorder()


@contextmanager
def _doing(op: str, phase: str) -> Iterator[None]:
    before = here.op, here.phase
    here.op, here.phase = op, phase
    try:
        yield
    finally:
        here.op, here.phase = before


def _named(op: table.Op, forward: Callable[..., Any]) -> Callable[..., Any]:
    """``forward`` of the row ``op``: what it calls is that operation's, unless a derivative is being computed."""

    @functools.wraps(forward)
    def named(*args: Any, **params: Any) -> Any:
        with _doing(here.op or op.name, here.phase):
            return forward(*args, **params)

    named.plain = forward  # type: ignore[attr-defined]
    return named


def _applying(apply: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(apply)
    def named(node: Any, *args: Any) -> Any:
        with _doing(node.title, "backward"):
            return apply(node, *args)

    return named


def _stepping(run: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(run)
    def named(step: Any, optimizer: Any, *args: Any) -> Any:
        kind = type(optimizer).__name__
        with _doing("", f"{kind}.step"), record_function(f"Optimizer.step#{kind}.step"):
            return run(step, optimizer, *args)

    return named


@contextmanager
def unheard() -> Iterator[None]:
    """What this thread calls inside is not recorded."""
    before, here.inside = here.inside, True
    try:
        yield
    finally:
        here.inside = before


# -- backends that listen ---------------------------------------------------------------------


_listeners: dict[Any, type] = {}


def _listening(kind: Any) -> type:
    """A subclass of a backend's class that records the calls of the contract."""
    members: dict[str, Any] = {name: _timed(name, getattr(kind, name)) for name in _METHODS}

    def offer(self: Any, name: str) -> Callable[..., Any] | None:
        routine = kind.offer(self, name)
        if routine is None:
            return None
        timed = _timed(f"fused_{name}", lambda backend, *args, **kwargs: routine(*args, **kwargs))
        return functools.partial(timed, self)

    members["offer"] = offer
    members["__module__"] = kind.__module__
    return type(kind.__name__, (kind,), members)


def _timed(method: str, original: Callable[..., Any]) -> Callable[..., Any]:
    cost_of = cost(method)

    @functools.wraps(original)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        timeline = recorder.timeline_of(self)
        if here.inside or timeline is None:
            return original(self, *args, **kwargs)
        here.inside = True
        began = perf_counter_ns()
        mark = timeline.start()
        try:
            value = original(self, *args, **kwargs)
        finally:
            timeline.stop(mark)
            ended = perf_counter_ns()
            here.inside = False
        kernel, text = _call(method, args)
        event = Event(here.op or kernel, text, table.device_of(self), began, ended, timeline, mark)
        event.bytes, event.flops = cost_of(value, *args, **kwargs)
        event.input_shapes = tuple(tuple(x.shape) for x in arrays(args))
        recorder.tell(event)
        return value

    return call


def _call(method: str, args: tuple[Any, ...]) -> tuple[str, str]:
    """What to call the operation if no row is known, and how the backend was called: ("add", "map add")."""
    first = args[0] if args else None
    if isinstance(first, Elementwise):
        return first.name, f"{method} {first.name}"
    if isinstance(first, str):
        return first, f"{method} {first}"
    return method, method


# -- the user's own ranges --------------------------------------------------------------------


class record_function:
    """Gives a name to what happens inside, for profilers that are on: a context manager and a decorator.

    ``args`` is a remark that the name is shown with. Without a profiler it costs next to nothing."""

    def __init__(self, name: str, args: str | None = None) -> None:
        self.name = name if args is None else f"{name}({args})"
        self._entered: list[tuple[tuple[str, ...], int]] = []

    def __enter__(self) -> record_function:
        self._entered.append((here.ranges, perf_counter_ns()))
        if recorder.listeners:
            here.ranges = (*here.ranges, self.name)
        return self

    def __exit__(self, *error: object) -> None:
        here.ranges, began = self._entered.pop()
        recorder.tell(Range(self.name, began, perf_counter_ns()))

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def named(*args: Any, **kwargs: Any) -> Any:
            with type(self)(self.name):
                return function(*args, **kwargs)

        return named
