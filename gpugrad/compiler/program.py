"""What a traced step is made of: buffers, views of them, and the calls of the backend contract in their order.

A :class:`Program` is the list of what one backend was asked to do while a function ran. Operands are :class:`View` s,
never arrays, so the list can be run again over other memory. Elementwise work (:class:`Map`), reductions
(:class:`Reduce`) and constants (:class:`Fill`) are known from inside and can be fused; everything else is a
:class:`Call` of a contract method, run as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from gpugrad import layout
from gpugrad.backends.base import Elementwise


class Buffer:
    """A piece of memory.

    ``role``: ``"argument"`` (an argument of the function, bound at each run), ``"outside"`` (memory that was there
    before and stays: parameters, optimizer state, constants; ``array`` is an array over it, from whose first element
    the offsets of views count, backwards too), ``"result"`` (leaves the program, so each run needs fresh memory) or
    ``"temporary"`` (the program's own, to be planned). ``dtype``: of all views of it."""

    __slots__ = ("number", "nbytes", "dtype", "role", "array", "position")

    def __init__(self, number: int, nbytes: int, dtype: np.dtype, role: str, array: Any = None) -> None:
        self.number = number
        self.nbytes = nbytes
        self.dtype = dtype
        self.role = role
        self.array = array
        self.position = -1  # of an argument: which of the function's tensors it is

    def __repr__(self) -> str:
        return f"{self.role[0]}{self.number}"


class View(NamedTuple):
    """A layout over a buffer: ``offset`` and ``strides`` in bytes, as those of arrays."""

    buffer: Buffer
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: np.dtype

    @property
    def size(self) -> int:
        n = 1
        for s in self.shape:
            n *= s
        return n

    @property
    def dense(self) -> bool:
        """Whether the elements lie in C order without gaps."""
        return layout.is_contiguous(self.shape, self.strides, self.dtype.itemsize)

    def span(self) -> tuple[int, int]:
        """(first, past the last) byte of the buffer that it reaches."""
        low, high = layout.byte_range(self.shape, self.strides, self.dtype.itemsize)
        return self.offset + low, self.offset + high

    def overlaps(self, other: View) -> bool:
        """Whether both may reach one byte (spans are compared: views that interleave count as overlapping)."""
        if self.buffer is not other.buffer:
            return False
        (a, b), (c, d) = self.span(), other.span()
        return a < d and c < b

    def __repr__(self) -> str:
        where = f"+{self.offset}" if self.offset else ""
        return f"{self.buffer!r}{where}{list(self.shape)}"


class Number(NamedTuple):
    """A number that changes from run to run: entry ``index`` of the list that :meth:`Program.numbers` makes."""

    index: int  # type: ignore[assignment]


Operand = View | Number | float | int | bool


class Map:
    """``out = kernel(*inputs)`` elementwise: inputs (each broadcasts to ``out.shape``) are converted to ``compute``
    (halves compute in float32), the outcome to ``out.dtype``. ``out`` may be one of the inputs, never overlaps
    another way. A cast or copy is a Map of the kernel :data:`CAST`, whose ``compute`` is the input's dtype."""

    __slots__ = ("kernel", "inputs", "compute", "out")

    def __init__(self, kernel: Elementwise, inputs: Sequence[Operand], compute: np.dtype, out: View) -> None:
        self.kernel = kernel
        self.inputs = tuple(inputs)
        self.compute = compute
        self.out = out

    @property
    def name(self) -> str:
        return self.kernel.name

    def reads(self) -> Iterator[View]:
        return (x for x in self.inputs if isinstance(x, View))

    def writes(self) -> tuple[View, ...]:
        return (self.out,)

    def __repr__(self) -> str:
        return f"{self.out!r} = {self.name}({', '.join(map(repr, self.inputs))})"


class Again(Map):
    """A Map that computes once more, elsewhere, what another one wrote to ``origin``: see ``recomputing.py``."""

    __slots__ = ("origin",)

    def __init__(
        self, kernel: Elementwise, inputs: Sequence[Operand], compute: np.dtype, out: View, origin: Buffer
    ) -> None:
        super().__init__(kernel, inputs, compute, out)
        self.origin = origin


class Reduce:
    """``out = kind over axes of input`` (kind in sum, prod, max, min, any, all; ``axes`` sorted): ``out.shape`` lacks
    them. Accumulates in ``out.dtype``, float32 for half types; max and min pass NaN on."""

    __slots__ = ("kind", "input", "axes", "out")

    def __init__(self, kind: str, input: View, axes: Sequence[int], out: View) -> None:
        self.kind = kind
        self.input = input
        self.axes = tuple(axes)
        self.out = out

    @property
    def name(self) -> str:
        return self.kind

    def reads(self) -> Iterator[View]:
        yield self.input

    def writes(self) -> tuple[View, ...]:
        return (self.out,)

    def __repr__(self) -> str:
        return f"{self.out!r} = {self.kind}({self.input!r}, axes={list(self.axes)})"


class Fill:
    """``out[...] = value``."""

    __slots__ = ("value", "out")

    def __init__(self, value: Any, out: View) -> None:
        self.value = value
        self.out = out

    name = "fill"

    def reads(self) -> Iterator[View]:
        return iter(())

    def writes(self) -> tuple[View, ...]:
        return (self.out,)

    def __repr__(self) -> str:
        return f"{self.out!r} = {self.value!r}"


class Call:
    """``results = backend.<method>(*args, **kwargs)``, with views (also inside lists and tuples) for arrays and
    :class:`Number` s for numbers that change. ``results``: views of the fresh arrays it returns, in order; ``stores``:
    the views among its arguments that it writes to."""

    __slots__ = ("method", "args", "kwargs", "results", "stores", "single")

    def __init__(
        self,
        method: str,
        args: Sequence[Any],
        kwargs: dict[str, Any],
        results: Sequence[View],
        stores: Sequence[View],
        single: bool,
    ) -> None:
        self.method = method
        self.args = tuple(args)
        self.kwargs = kwargs
        self.results = tuple(results)
        self.stores = tuple(stores)
        self.single = single  # whether it returns one array, not a tuple of them

    @property
    def name(self) -> str:
        return self.method

    def reads(self) -> Iterator[View]:
        return views_in((*self.args, *self.kwargs.values()))

    def writes(self) -> tuple[View, ...]:
        return self.results + self.stores

    def __repr__(self) -> str:
        results = ", ".join(map(repr, self.results))
        return f"{results}{' = ' if results else ''}{self.method}({', '.join(map(repr, self.args))})"


Step = Map | Reduce | Fill | Call

#: results of constant operands are computed once if they have no more bytes than this
MOST_FOLDED = 1 << 18

#: the kernel of casts and copies
CAST = Elementwise("cast", lambda a: a, "a", 1)


def views_in(value: Any) -> Iterator[View]:
    """The views in an argument of a call."""
    if isinstance(value, View):
        yield value
    elif isinstance(value, (list, tuple)):
        for v in value:
            yield from views_in(v)


def _repeats(step: Step) -> bool:
    """Whether a step gives the same whenever it runs."""
    if isinstance(step, Call):
        scalars = (*step.args, *step.kwargs.values())
        return step.method in ("arange", "take", "gather", "sort", "scan") and not any(
            isinstance(x, Number) for x in scalars
        )
    if isinstance(step, Map):
        return step.kernel.check is None and not any(isinstance(x, Number) for x in step.inputs)
    return not isinstance(step, Fill) or not isinstance(step.value, Number)


class Program:
    """The steps of one backend in order, and what feeds them.

    ``live``: functions to be called in order at the start of each run, whose numbers together are the list that
    :class:`Number` s point into. ``results``: views that outlive a run, each over a buffer with role "result" or, where
    the function returned what it was given, another."""

    def __init__(self, backend: Any) -> None:
        self.backend = backend
        self.steps: list[Step] = []
        self.buffers: list[Buffer] = []
        self.live: list[Callable[[], Sequence[float]]] = []
        self.results: list[View] = []

    def numbers(self) -> list[float]:
        """The numbers of this run: calls what makes them."""
        found: list[float] = []
        for function in self.live:
            found.extend(function())
        return found

    def prune(self) -> int:
        """Take out steps whose results nobody reads; returns how many."""
        needed = {v.buffer for v in self.results}
        kept: list[Step] = []
        for step in reversed(self.steps):
            if any(v.buffer.role != "temporary" or v.buffer in needed for v in step.writes()):
                kept.append(step)
                needed.update(v.buffer for v in step.reads())
        kept.reverse()
        gone = len(self.steps) - len(kept)
        self.steps = kept
        return gone

    def fold(self, arrays: dict[Buffer, Any], constants: set[Buffer], kept: set[Buffer]) -> int:
        """Take out small steps whose operands are constants (an arange, a mask made of two of them); returns how many.

        ``arrays``: memory of the traced run by buffer, ``constants``: buffers that hold constants already, ``kept``:
        those that leave the program. What such a step wrote is kept as it was in that run."""
        writes: dict[Buffer, int] = {}
        for step in self.steps:
            for v in step.writes():
                writes[v.buffer] = writes.get(v.buffer, 0) + 1
        known = set(constants)
        left: list[Step] = []
        for step in self.steps:
            out = step.writes()[0].buffer if len(step.writes()) == 1 else None
            if (
                out is None
                or out.role != "temporary"
                or out in kept
                or writes[out] > 1
                or out.nbytes > MOST_FOLDED
                or not all(v.buffer in known for v in step.reads())
                or not _repeats(step)
            ):
                left.append(step)
                continue
            known.add(out)
            if isinstance(step, Fill):  # as cheap as reading it: stays, unless all that read it go
                left.append(step)
            else:
                out.role, out.array = "outside", arrays[out]
                constants.add(out)
        gone = len(self.steps) - len(left)
        self.steps = left
        return gone

    def used(self) -> set[Buffer]:
        """The buffers that some step reads or writes."""
        return {v.buffer for step in self.steps for v in (*step.reads(), *step.writes())}

    def __repr__(self) -> str:
        return "\n".join(map(repr, self.steps))
