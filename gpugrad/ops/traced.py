"""Derivatives of elementwise rows, written out over arrays.

A vjp is written in ops, and an op on tensors looks at types, dtypes and modes before it asks the backend for
anything. On small arrays that is most of the time. So the vjps of a call are run once on stand-ins, which note what
they ask of ``Backend.map``; what was noted becomes one Python function over arrays, and a walk that is not itself
recorded calls that. There is one definition of each derivative: this is its trace.

A stand-in knows its dtype and nothing else. A vjp that wants more (a shape, a value, another method of the backend)
fails on it, and is called as it is written, as are all vjps while they are recorded.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from gpugrad.autograd.modes import mode

#: ``program(map, g, saved)``: a gradient for each input (None where it has no edge), or None if a saved value was
#: changed in place since; ``map`` is that of the backend, ``saved`` what the node keeps
Program = Callable[[Any, Any, Any], tuple[Any, ...] | None]


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

    def _constant(self, x: Any) -> str:
        if type(x) not in (bool, int, float):
            raise TypeError(f"{type(x).__name__} is no constant")
        name = f"constant{len(self.names)}"
        self.names[name] = x
        return name


def write(plan: Any, dtype: np.dtype, wrap: Callable[[Any, Any], Any]) -> Program | None:
    """The program of a plan (of ``gpugrad.ops.table``) for calls whose tensors all have ``dtype``; None where its
    vjps ask for more than ``map``. ``wrap`` makes a tensor of an array and a backend."""
    recorder = _Recorder()
    gradient = wrap(_StandIn("g", dtype), recorder)
    values = [gradient]
    unpacked, tests = [], []
    for k, position in enumerate(plan.saves):
        name = f"saved{k}"
        number = position in plan.numbers
        values.append(Number(name) if number else wrap(_StandIn(name, dtype), recorder))
        unpacked += [name, f"storage{k}", f"version{k}"]
        if not number:
            tests.append(f"storage{k}.version != version{k}")
    results = ["None"] * plan.arity
    before = mode.enabled
    mode.enabled = False
    try:
        for i, rule, places in plan.rules:
            g = rule.function(*[values[p] for p in places])
            if g is not None:
                results[i] = g._array.name
    except Exception:  # whatever it needs: calling the vjps as they are written finds it, or raises the error itself
        return None
    finally:
        mode.enabled = before
    lines = ["def program(map, g, saved):"]
    if unpacked:
        lines.append(f"    {', '.join(unpacked)} = saved")
    if tests:
        lines += [f"    if {' or '.join(tests)}:", "        return None"]
    lines += [f"    {line}" for line in recorder.lines]
    lines.append(f"    return ({', '.join(results)},)")
    names: dict[str, Any] = recorder.names
    exec("\n".join(lines), names)  # of names and calls made above: nothing of it comes from outside
    return names["program"]
