"""``gpugrad.compile``: the function that stands in for the user's, and its traces."""

from __future__ import annotations

import functools
import threading
import warnings
from collections.abc import Callable
from typing import Any

from gpugrad import dtypes, live
from gpugrad.autograd import anomaly
from gpugrad.autograd.modes import mode
from gpugrad.compiler.attempt import Attempt, Trace
from gpugrad.compiler.fusing import Group
from gpugrad.compiler.lowering import Lowering
from gpugrad.compiler.trees import flatten, signature
from gpugrad.devices import current_device

#: programs that one function may have before it is run eagerly from then on
MOST_PROGRAMS = 16
#: traces that may be in vain (an optimizer makes its state in the first step) before a set of arguments runs eagerly
MOST_VAIN = 3

_turn = threading.RLock()  # held while a function is traced, and while the order of traces changes


class GraphBreak(UserWarning):
    """A compiled function runs eagerly: it does something that a program cannot repeat."""


class Compiled:
    """``function``, traced at its first call for each kind of arguments, and replayed afterwards."""

    def __init__(self, function: Callable[..., Any], fullgraph: bool = False, disable: bool = False) -> None:
        functools.update_wrapper(self, function)
        self.function = function
        self.fullgraph = fullgraph
        self.disable = disable
        self._traces: dict[Any, list[Trace]] = {}
        self._vain: dict[Any, int] = {}
        self._eager: dict[Any, str] = {}  # arguments that are run eagerly, and why
        self._count = 0
        self._reasons: list[str] = []

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        return self if instance is None else functools.partial(self, instance)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self.disable or live.recorder is not None or anomaly.state.remembering:  # programs name no lines
            return self.function(*args, **kwargs)
        leaves: list[Any] = []
        shape = flatten((args, kwargs) if kwargs else args, leaves)
        key = (shape, *map(signature, leaves), mode.enabled, mode.inference, mode.autocast, bool(kwargs),
               dtypes.get_default_dtype(), current_device())  # fmt: skip
        trace = self._known(key, leaves)
        if trace is not None:
            return trace.run(leaves)
        if key in self._eager:
            return self.function(*args, **kwargs)
        return self._first(key, args, kwargs, shape, leaves)

    def _known(self, key: Any, leaves: list[Any]) -> Trace | None:
        """The trace that these arguments can be run with. Lists of traces are replaced, never changed, as other
        threads may be reading them."""
        traces = self._traces.get(key, [])
        for trace in traces:
            if trace.holds() and trace.fits(leaves):
                if trace is not traces[0] and _turn.acquire(blocking=False):
                    try:
                        self._put_first(key, trace)
                    finally:
                        _turn.release()
                return trace
        return None

    def _put_first(self, key: Any, trace: Trace) -> None:
        self._traces[key] = [trace, *(t for t in self._traces.get(key, ()) if t is not trace)]

    # -- tracing -----------------------------------------------------------------------------------------
    def _first(self, key: Any, args: Any, kwargs: Any, shape: Any, leaves: list[Any]) -> Any:
        attempt = None
        with _turn:
            trace = self._known(key, leaves)  # another thread may have made it meanwhile
            if trace is None and self._count < MOST_PROGRAMS:
                attempt = Attempt(self.function, shape, leaves, bool(kwargs))
                value = attempt.run()
                if attempt.vain is None and attempt.reason is None:
                    self._count += 1
                    self._put_first(key, attempt.trace)
        if trace is not None:
            return trace.run(leaves)
        if attempt is None:
            self._give_up(key, f"it was traced {self._count} times, for arguments or surroundings that keep changing")
            return self.function(*args, **kwargs)
        if attempt.vain:
            self._vain[key] = self._vain.get(key, 0) + 1
            if self._vain[key] >= MOST_VAIN:
                self._give_up(key, attempt.vain)
        elif attempt.reason is not None:
            self._give_up(key, attempt.reason)
        return value

    def _give_up(self, key: Any, reason: str) -> None:
        self._eager[key] = reason
        name = getattr(self.function, "__qualname__", repr(self.function))
        text = f"compile: {name} runs eagerly with these arguments: {reason}"
        if self.fullgraph:
            raise RuntimeError(text)
        if reason not in self._reasons:
            self._reasons.append(reason)
            warnings.warn(text, GraphBreak, stacklevel=4)

    # -- what it did -----------------------------------------------------------------------------------------
    @property
    def traces(self) -> list[Trace]:
        """All traces made so far."""
        return [t for traces in self._traces.values() for t in traces]

    def lowerings(self) -> list[Lowering]:
        """The lowered programs of all traces, the backward ones after their forward ones."""
        return [x for t in self.traces for _, x in t.lowerings()]

    def source(self) -> str:
        """The kernels that were generated, as text; empty before the first call."""
        return "\n\n".join(x.source() for x in self.lowerings())

    def explain(self) -> str:
        """What was traced, fused and left alone, and what runs eagerly and why."""
        lines = []
        name = getattr(self.function, "__qualname__", repr(self.function))
        if not self.traces and not self._eager:
            return f"{name}: not called yet; call it once with real arguments"
        for i, t in enumerate(self.traces):
            for what, lowering in t.lowerings():
                program, parts = lowering.program, lowering.parts
                groups = [p for p in parts if isinstance(p, Group)]
                fused = sum(len(g.steps) for g in groups)
                lines.append(
                    f"{name}, program {i}{what} on {program.backend.name}: {len(program.steps)} steps, {fused} of them "
                    f"in {len(groups)} groups, {len(parts) - len(groups)} alone; {len(program.live)} sources of "
                    f"changing numbers; {t.guards} conditions"
                )
                lines += [f"  {_part(p)}" for p in parts]
        for reason in self._eager.values():
            lines.append(f"{name} runs eagerly with some arguments: {reason}")
        return "\n".join(lines)

    def reset(self) -> None:
        """Forget all traces."""
        self._traces.clear()
        self._vain.clear()
        self._eager.clear()
        self._reasons.clear()
        self._count = 0


def _part(part: Any) -> str:
    if isinstance(part, Group):
        inner = "x".join(map(str, part.shape[part.rows :])) or "1"
        rows = "x".join(map(str, part.shape[: part.rows])) or "1"
        return f"fused over {rows} rows of {inner}: {', '.join(s.name for s in part.steps)}"
    return f"alone: {part.name} {' '.join(str(list(v.shape)) for v in part.reads())} (not elementwise, not a reduction)"
