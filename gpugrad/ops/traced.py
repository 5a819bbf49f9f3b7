"""Derivatives of elementwise rows, written out over arrays.

A vjp is written in ops, and an op on tensors looks at types, dtypes and modes before it asks the backend for
anything. On small arrays that is most of the time. So the vjps of a call are run once on stand-ins, which note what
they ask of ``Backend.map``; what was noted becomes one Python function over arrays, and a walk that is not itself
recorded calls that. There is one definition of each derivative: this is its trace.

The stand-ins of elementwise rows know their dtype and nothing else, so one program serves all shapes. Rows that say
so (``by_shape``: products, sums, views) are traced once for each layout of their operands and each set of parameters,
on stand-ins that know theirs. A vjp that wants more (a value, another method of the backend) fails on a stand-in, and
is called as it is written, as are all vjps while they are recorded.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np

from gpugrad import layout
from gpugrad.autograd.modes import mode
from gpugrad.dtypes import HALVES

_F32 = np.dtype(np.float32)

#: ``program(map, g, saved)``: a gradient for each input (None where it has no edge), or None if a saved value was
#: changed in place since; ``map`` is that of the backend, ``saved`` what the node keeps
Program = Callable[[Any, Any, Any], tuple[Any, ...] | None]
#: the same of a row that is traced by shape: ``program(backend, g, saved)``, and for each gradient whether it is
#: memory of its own, not a view
ShapedProgram = tuple[Program, tuple[bool, ...]]


class _StandIn:
    """An array of which the dtype is known; ``name`` is what the program calls it."""

    __slots__ = ("dtype", "name")
    #: asked for where dtypes are promoted: of one floating dtype and bools comes that dtype, whatever this is
    ndim = 1

    def __init__(self, name: str, dtype: np.dtype) -> None:
        self.name = name
        self.dtype = dtype


def _unknown(self: Any, *others: Any) -> Any:
    raise TypeError("the number is not known while a derivative is traced")


class Number:
    """A Python number that is another one in each call: to be handed to ops as it is, not computed with."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    # The others raise TypeError by themselves.
    __eq__ = __ne__ = __bool__ = __hash__ = _unknown


class _Recorder:
    """Takes the backend's place: notes the calls of ``map`` as lines of the program."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.names: dict[str, Any] = {}

    def map(self, kernel: Any, inputs: Any, compute: np.dtype, result: np.dtype) -> _StandIn:
        n = len(self.lines)
        operands = [x.name if isinstance(x, (_StandIn, Number)) else self._constant(x) for x in inputs]
        self.names |= {f"kernel{n}": kernel, f"compute{n}": compute, f"result{n}": result}
        self.lines.append(f"t{n} = map(kernel{n}, ({', '.join(operands)},), compute{n}, result{n})")
        return _StandIn(f"t{n}", result)

    def round(self, results: list[str | None], dtype: np.dtype) -> bool:
        """Let the lines that make ``results`` make them in ``dtype``; False if other lines read one of them too."""
        for name in results:
            if name is not None and name[0] == "t":
                if any(f"{name}," in line for line in self.lines):
                    return False
                self.names[f"result{name[1:]}"] = dtype
        return True

    def _constant(self, x: Any) -> str:
        if type(x) not in (bool, int, float):
            raise TypeError(f"{type(x).__name__} is no constant")
        name = f"constant{len(self.names)}"
        self.names[name] = x
        return name


class _Placed(_StandIn):
    """An array of which the layout is known too."""

    __slots__ = ("shape", "strides", "ndim", "size", "itemsize", "nbytes", "_recorder")

    def __init__(self, name: str, dtype: np.dtype, shape: Any, strides: Any, recorder: Any) -> None:
        super().__init__(name, dtype)
        self.shape = tuple(shape)
        self.strides = tuple(strides)
        self.ndim = len(self.shape)
        self.size = prod(self.shape)
        self.itemsize = dtype.itemsize
        self.nbytes = self.size * dtype.itemsize
        self._recorder = recorder

    def transpose(self, axes: tuple[int, ...]) -> _Placed:
        shape, strides = [self.shape[i] for i in axes], [self.strides[i] for i in axes]
        return self._recorder.add(f"{self.name}.transpose({axes})", self.dtype, shape, strides)


class _ShapedRecorder(_Recorder):
    """Notes the methods that products, sums and views are made of. What it says of the layout of a result holds on
    every backend; where that cannot be said it refuses."""

    def __init__(self) -> None:
        super().__init__()
        self.computed: set[str] = set()  # names of results that are no views

    def add(self, line: str, dtype: np.dtype, shape: Any, strides: Any = None) -> _Placed:
        name = f"t{len(self.lines)}"
        self.lines.append(f"{name} = {line}")
        if strides is None:
            self.computed.add(name)
            strides = layout.contiguous_strides(tuple(shape), dtype.itemsize)
        return _Placed(name, dtype, shape, strides, self)

    def map(self, kernel: Any, inputs: Any, compute: np.dtype, result: np.dtype) -> Any:
        raise TypeError("the layout of what map() makes depends on the backend")

    def matmul(self, a: _Placed, b: _Placed) -> _Placed:
        if a.ndim != 2 or b.ndim != 2:
            raise TypeError("only of two matrices is the product known to be contiguous")
        return self.add(f"backend.matmul({a.name}, {b.name})", a.dtype, (a.shape[0], b.shape[1]))

    def reduce(self, kind: str, array: _Placed, axes: Any, dtype: np.dtype) -> _Placed:
        names = {f"axes{len(self.lines)}": tuple(axes), f"dtype{len(self.lines)}": dtype}
        self.names |= names
        shape = layout.reduced_shape(array.shape, axes, False)
        return self.add(f"backend.reduce({kind!r}, {array.name}, {', '.join(names)})", dtype, shape)

    def as_strided(self, array: _Placed, shape: Any, strides: Any, offset: int) -> _Placed:
        place = f"{tuple(shape)}, {tuple(strides)}, {offset}"
        return self.add(f"backend.as_strided({array.name}, {place})", array.dtype, shape, strides)

    def _view(self, array: _Placed, shape: Any) -> _Placed:
        strides = layout.view_strides(array.shape, array.strides, shape, array.itemsize)
        if strides is None:
            raise TypeError("a copy, not a view")
        return self.as_strided(array, shape, strides, 0)


def write(plan: Any, dtype: np.dtype, wrap: Callable[[Any, Any], Any]) -> Program | None:
    """The program of a plan (of ``gpugrad.ops.table``) for calls whose tensors all have ``dtype``; None where its
    vjps ask for more than ``map``, or give another dtype. ``wrap`` makes a tensor of an array and a backend. Of half
    types the steps are float32, and the gradients rounded once."""
    recorder = _Recorder()
    work = _F32 if dtype in HALVES else dtype
    values = [wrap(_StandIn("g", work), recorder)]
    for k, position in enumerate(plan.saves):
        name = f"saved{k}"
        values.append(Number(name) if position in plan.numbers else wrap(_StandIn(name, work), recorder))
    results = _run_rules(plan, lambda rule, places: [values[p] for p in places])
    if results is None or any(r is not None and r.dtype != work for r in results):
        return None
    names = [r and r.name for r in results]
    if work is not dtype and not recorder.round(names, dtype):
        return None
    return _compiled("map", plan, recorder, names)


def write_shaped(plan: Any, node: Any, g: Any, wrap: Callable[[Any, Any], Any]) -> ShapedProgram | None:
    """The program of a plan for calls as that of ``node``, with a gradient array as ``g``; None where its vjps ask for
    more than the recorder knows, or give another dtype than the input's."""
    recorder = _ShapedRecorder()
    values = [wrap(_Placed("g", g.dtype, g.shape, g.strides, recorder), recorder)]
    for k in range(len(plan.saves)):
        x = node.saved[3 * k]
        values.append(wrap(_Placed(f"saved{k}", x.dtype, x.shape, x.strides, recorder), recorder))
    results = _run_rules(plan, lambda rule, places: node.arguments(rule, values))
    if results is None:
        return None
    for result, dtype in zip(results, node.dtypes, strict=True):
        if result is not None and result.dtype != dtype:
            return None
    program = _compiled("backend", plan, recorder, [r and r.name for r in results])
    return program, tuple(r is not None and r.name in recorder.computed for r in results)


def _run_rules(plan: Any, arguments: Callable[[Any, Any], list[Any]]) -> list[Any] | None:
    """The stand-ins that the rules of a plan return, one for each input; None where they cannot be traced."""
    results: list[Any] = [None] * plan.arity
    before = mode.enabled
    mode.enabled = False
    try:
        for i, rule, places in plan.rules:
            g = rule.function(*arguments(rule, places))
            if g is not None:
                results[i] = g._array
    except Exception:  # whatever it needs: calling the vjps as they are written finds it, or raises the error itself
        return None
    finally:
        mode.enabled = before
    return results


def _compiled(first: str, plan: Any, recorder: _Recorder, results: list[str | None]) -> Program:
    """What was recorded as a function of ``first``, the gradient and what a node saves."""
    unpacked, tests = [], []
    for k, position in enumerate(plan.saves):
        unpacked += [f"saved{k}", f"storage{k}", f"version{k}"]
        if position not in plan.numbers:
            tests.append(f"storage{k}.version != version{k}")
    lines = [f"def program({first}, g, saved):"]
    if unpacked:
        lines.append(f"    {', '.join(unpacked)} = saved")
    if tests:
        lines += [f"    if {' or '.join(tests)}:", "        return None"]
    lines += [f"    {line}" for line in recorder.lines]
    lines.append(f"    return ({', '.join(map(str, results))},)")
    names: dict[str, Any] = recorder.names
    exec("\n".join(lines), names)  # of names and calls made above: nothing of it comes from outside
    return names["program"]
