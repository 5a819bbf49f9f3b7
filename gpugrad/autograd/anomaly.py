"""Finding the operation whose derivative is NaN: nodes remember the line that made them, and the walk looks
at each gradient."""

from __future__ import annotations

import functools
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from gpugrad import live
from gpugrad.autograd.graph import Node, on_new_node

_PACKAGE = str(Path(__file__).parent.parent)
_lines: WeakKeyDictionary[Node, list[traceback.FrameSummary]] = WeakKeyDictionary()


class _State:
    """``checking`` is read by the walk for every node, so it is a plain attribute."""

    remembering = False
    checking = False


state = _State()


def _remember(node: Node) -> None:
    frames = [f for f in traceback.extract_stack() if not f.filename.startswith(_PACKAGE)]
    _lines[node] = frames


def _set(remembering: bool, checking: bool) -> None:
    if remembering and live.recorder is not None:  # a program has neither the nodes nor their lines
        live.recorder.broken("turns on anomaly detection, which needs each operation to run by itself")
    state.remembering, state.checking = remembering, checking
    on_new_node[:] = [_remember] if remembering else []


def check(node: Node, gradients: Sequence[Any]) -> None:
    """Raises RuntimeError, naming the operation and the line that called it, if a gradient holds NaN."""
    for i, g in enumerate(gradients):
        if g is not None and hasattr(g, "isnan") and bool(g.isnan().any().item()):
            raise RuntimeError(
                f"{node.title}: the gradient for its input {i}, of shape {tuple(g.shape)}, holds NaN; {_where(node)}"
            )


def _where(node: Node) -> str:
    frames = _lines.get(node)
    if not frames:
        return (
            "it was called before anomaly detection was on, so the line is not known: compute the forward pass with "
            "it on as well"
        )
    calls = "".join(traceback.format_list(frames))
    return f"the operation was called at\n{calls}"


class detect_anomaly:
    """Inside, operations remember the line that called them, and ``backward`` raises RuntimeError at the
    first derivative that is NaN (unless ``check_nan`` is False), with that line. Slow: for finding bugs.
    Functions of ``gpugrad.compile`` run eagerly meanwhile. A context manager and a decorator."""

    def __init__(self, check_nan: bool = True) -> None:
        self._check_nan = check_nan
        self._before: list[tuple[bool, bool]] = []

    def __enter__(self) -> None:
        self._before.append((state.remembering, state.checking))
        _set(True, self._check_nan)

    def __exit__(self, *error: object) -> None:
        _set(*self._before.pop())

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapped(*args: Any, **options: Any) -> Any:
            with type(self)(self._check_nan):
                return function(*args, **options)

        return wrapped


class set_detect_anomaly:
    """Turns :class:`detect_anomaly` on or off; as a context manager, for its block."""

    def __init__(self, mode: bool, check_nan: bool = True) -> None:
        self._before = (state.remembering, state.checking)
        _set(bool(mode), bool(mode) and check_nan)

    def __enter__(self) -> None:
        return None

    def __exit__(self, *error: object) -> None:
        _set(*self._before)


def is_anomaly_enabled() -> Any:
    """Whether operations remember the lines that call them."""
    return state.remembering
