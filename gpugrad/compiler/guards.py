"""What a traced program depends on besides its arguments, and whether it is still so.

A trace fixes what Python decided while it ran: which tensors the function reached through its closure, its globals, its
modules and optimizers, and the plain values it found there. :class:`Surroundings` walks all of that before a trace,
compares it afterwards, and makes a check which later runs go through first.
"""

from __future__ import annotations

import functools
import types
from collections import deque
from collections.abc import Callable
from typing import Any

from gpugrad.optim.optimizer import Optimizer
from gpugrad.tensor import Tensor

_PLAIN = (bool, int, float, str, bytes, complex, type(None))
#: options of optimizers that are read anew at each run, through ``live``
_LIVE_OPTIONS = frozenset(("lr", "initial_lr", "params"))
#: lists and dicts of more plain values than this are taken for data, which is not compared
MOST_VALUES = 256
MOST_OBJECTS = 200_000


class Surroundings:
    """All that is reachable from a function: ``tensors`` by id, and the places they and plain values were found in."""

    def __init__(self, *roots: Any) -> None:
        self.tensors: dict[int, Tensor] = {}
        self.places: list[tuple[Any, Any, Any]] = []  # container, key, value
        self.sizes: list[tuple[Any, int]] = []
        self._seen: set[int] = set()
        self._kept: list[Any] = []
        self._names: set[str] = set()  # that the code uses
        self._objects: list[Any] = []  # of users' classes
        self._pending: deque[Any] = deque(roots)
        while self._pending and len(self._seen) < MOST_OBJECTS:
            self._visit(self._pending.popleft())
        self._leave_out_unused()

    # -- walking --------------------------------------------------------------------------------------
    def _visit(self, x: Any) -> None:
        if isinstance(x, _PLAIN) or id(x) in self._seen or isinstance(x, (type, types.ModuleType)):
            return
        self._seen.add(id(x))
        self._kept.append(x)
        if isinstance(x, Tensor):
            self.tensors[id(x)] = x
        elif isinstance(x, types.FunctionType):
            self._function(x)
        elif isinstance(x, types.MethodType):
            self._pending += (x.__self__, x.__func__)
        elif isinstance(x, functools.partial):
            self._pending += (x.func, x.args, x.keywords)
        elif isinstance(x, Optimizer):
            self._optimizer(x)
        elif isinstance(x, dict):
            self._dict(x)
        elif isinstance(x, (list, tuple, set, frozenset, deque)):
            self._list(x)
        elif type(x).__module__.startswith("gpugrad.compiler."):
            self._pending.append(getattr(x, "function", None))  # of another compiled function; its traces are its own
        elif hasattr(x, "__dict__"):
            if type(x).__module__.split(".")[0] != "gpugrad":
                self._objects.append(x)
            self._dict(x.__dict__)

    def _function(self, f: types.FunctionType) -> None:
        if f.__module__ and f.__module__.split(".")[0] == "gpugrad":
            return
        for cell in f.__closure__ or ():
            try:
                value = cell.cell_contents
            except ValueError:  # a name that has no value yet
                continue
            self._place(cell, "cell_contents", value)
        names = _names_in(f.__code__)
        self._names |= names
        for name in sorted(names & f.__globals__.keys()):
            self._place(f.__globals__, name, f.__globals__[name])
        self._pending += (f.__defaults__ or (), f.__kwdefaults__ or {}, getattr(f, "__wrapped__", None))

    def _optimizer(self, x: Optimizer) -> None:
        # load_state_dict replaces groups and states, which a program's live numbers are read from.
        self.places += [(vars(x), "state", x.state), (vars(x), "param_groups", x.param_groups)]
        self.places += [(x.param_groups, i, group) for i, group in enumerate(x.param_groups)]
        self.places += [(x.state, p, state) for p, state in x.state.items()]
        self.sizes += [(x.state, len(x.state)), (x.param_groups, len(x.param_groups))]
        for group in x.param_groups:
            self._list(group["params"])
            for key, value in group.items():
                if key not in _LIVE_OPTIONS:
                    self._place(group, key, value)
        for state in x.state.values():
            if isinstance(state, dict):
                self.sizes.append((state, len(state)))
                for key, value in state.items():
                    if not isinstance(value, _PLAIN):
                        self._place(state, key, value)

    def _dict(self, x: dict[Any, Any]) -> None:
        self.sizes.append((x, len(x)))
        data = len(x) > MOST_VALUES
        for key, value in x.items():
            if isinstance(key, Tensor):
                self._pending.append(key)
            if not (data and isinstance(value, _PLAIN)):
                self._place(x, key, value)

    def _list(self, x: Any) -> None:
        self.sizes.append((x, len(x)))
        data = len(x) > MOST_VALUES
        if isinstance(x, (set, frozenset, tuple)):
            self._pending.extend(x)
            return
        for i, value in enumerate(x):
            if not (data and isinstance(value, _PLAIN)):
                self._place(x, i, value)

    def _place(self, container: Any, key: Any, value: Any) -> None:
        if isinstance(value, (types.ModuleType, types.BuiltinFunctionType)):
            return
        self.places.append((container, key, value))
        self._pending.append(value)

    def _leave_out_unused(self) -> None:
        """Plain attributes of users' objects matter only if the code that runs uses their names: a count of epochs may
        go on."""
        methods = [
            (name, f.__code__)
            for kind in {c for x in self._objects for c in type(x).__mro__}
            for name, f in vars(kind).items()
            if isinstance(f, types.FunctionType)
        ]
        names = self._names | {"forward", "__call__", "training"}
        while True:
            more = set().union(*(_names_in(code) for name, code in methods if name in names)) | names
            if more == names:
                break
            names = more
        own = {id(x.__dict__) for x in self._objects}
        self.places = [
            (c, k, v) for c, k, v in self.places if k in names or id(c) not in own or not isinstance(v, _PLAIN)
        ]

    # -- afterwards ------------------------------------------------------------------------------------
    def changed(self) -> str | None:
        """What the function changed besides the values of tensors, or None."""
        for container, n in self.sizes:
            if len(container) != n:
                return f"changes the length of a {type(container).__name__} that outlives it"
        for container, key, value in self.places:
            now = _read(container, key)
            if now is not value and not (isinstance(value, _PLAIN) and type(now) is type(value) and now == value):
                return f"assigns to {key!r}, which outlives it"
        return None

    def check(self, extra: list[tuple[str, tuple[Any, ...]]]) -> Callable[[], bool]:
        """A function that tells whether all is as it was, and ``extra`` holds: expressions over ``x``, ``y``, ..."""
        tests: list[str] = []
        names: dict[str, Any] = {}

        def name(x: Any) -> str:
            key = f"o{len(names)}"
            names[key] = x
            return key

        for container, n in self.sizes:
            tests.append(f"len({name(container)}) == {n}")
        for container, key, value in self.places:
            if isinstance(container, types.CellType):
                now = f"{name(container)}.cell_contents"
            elif isinstance(container, dict):
                now = f"{name(container)}.get({name(key) if not isinstance(key, str) else repr(key)})"
            else:
                now = f"{name(container)}[{key!r}]"
            if isinstance(value, (bool, type(None))) or not isinstance(value, _PLAIN):
                tests.append(f"{now} is {name(value)}")
            elif value == value:  # a NaN is never what it was
                tests.append(f"{now} == {name(value)}")
        for text, objects in extra:
            tests.append(text.format(*map(name, objects)))
        return _joined(tests, names)


def _names_in(code: types.CodeType) -> set[str]:
    """The names of globals and attributes that a function uses, with the functions inside it."""
    names: set[str] = set()
    codes = [code]
    while codes:
        one = codes.pop()
        names.update(one.co_names)
        codes += [c for c in one.co_consts if isinstance(c, types.CodeType)]
    return names


def _joined(tests: list[str], names: dict[str, Any]) -> Callable[[], bool]:
    """All ``tests`` as one function; in pieces, as Python limits how deep an expression may be nested."""
    lines = ["def check():", "    try:"]
    for i in range(0, len(tests), 50):
        lines.append(f"        if not ({' and '.join(tests[i : i + 50])}): return False")
    lines += ["        return True", "    except (LookupError, ValueError, AttributeError):", "        return False"]
    exec("\n".join(lines), names)  # the text is made of the names and literals above
    return names["check"]


def _read(container: Any, key: Any) -> Any:
    try:
        return container.cell_contents if isinstance(container, types.CellType) else container[key]
    except (LookupError, ValueError):
        return _MISSING


_MISSING = object()
