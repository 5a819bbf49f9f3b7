"""Numbers that change from step to step: learning rates, corrections that count steps, streams of random numbers.

What computes such numbers in Python and hands them to operations asks for them through :func:`live`. A compiled step
(``gpugrad/compiler``) then calls the same function anew each time it runs, where it would otherwise repeat the numbers
of the time it was traced.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

#: the trace that is being made by some thread, if any
recorder: Any = None


def live(function: Callable[[], tuple[float, ...]]) -> tuple[float, ...]:
    """The floats that ``function()`` returns. It may count steps and read options; it calls no operation. The numbers
    are to be handed to operations as they are: arithmetic with them belongs into ``function``."""
    return function() if recorder is None else recorder.live(function)


class Live(float):
    """A number of :func:`live` while a step is traced: number ``index`` of those that a run asks for. Computing with it
    gives a plain number, and ends the trace, which could not repeat the computation."""

    index: int


class LiveInt(int):
    """The same for an integer: the seed or the stream of a random draw."""

    index: int


def mark(value: float, index: int) -> Any:
    """``value`` as number ``index`` of a trace."""
    marked = LiveInt(value) if isinstance(value, int) else Live(value)
    marked.index = index
    return marked


def _plain(x: Any) -> Any:
    return int(x) if isinstance(x, LiveInt) else float(x) if isinstance(x, Live) else x


def _computing(name: str) -> tuple[Callable[..., Any], Callable[..., Any]]:
    function = getattr(operator, name)

    def compute(*operands: Any) -> Any:
        if recorder is not None:
            recorder.broken("computes, outside of live(), with a number that changes from step to step")
        return function(*map(_plain, operands))

    return compute, lambda self, other: compute(other, self)


for _name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "neg", "abs"):
    for _kind in (Live, LiveInt):
        _forward, _swapped = _computing(_name)
        setattr(_kind, f"__{_name}__", _forward)
        if _name not in ("neg", "abs"):
            setattr(_kind, f"__r{_name}__", _swapped)
