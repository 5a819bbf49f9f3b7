"""What a traced program depends on besides its arguments, and whether it is still so.

A trace fixes what Python decided while it ran: which tensors the function reached through its closure, its globals, its
modules and optimizers, and the plain values it found there. :class:`Surroundings` walks all of that before a trace,
compares it afterwards, and makes a check which later runs go through first.
"""

from __future__ import annotations

import functools
import random
import sys
import types
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np

from gpugrad.nn.module import Module
from gpugrad.optim.optimizer import Optimizer
from gpugrad.tensor import Tensor

_PLAIN = (bool, int, float, str, bytes, complex, type(None))
#: options of optimizers that are read anew at each run, through ``live``
_LIVE_OPTIONS = frozenset(("lr", "initial_lr", "params"))
#: lists and dicts of more plain values than this are compared as a whole, beyond the second number not at all
MOST_VALUES = 256
MOST_COMPARED = 1 << 14
#: bytes up to which an array of NumPy is compared: 6 us
MOST_BYTES = 1 << 16
MOST_OBJECTS = 200_000
_LIBRARIES = frozenset(("gpugrad", "numpy")) | sys.stdlib_module_names


class Surroundings:
    """All that is reachable from a function: ``tensors`` by id, and the places they and plain values were found in.

    ``reason`` says why the function cannot be replayed at all, if so: it reaches data that could change unnoticed. Of
    objects, classes and modules of users' own only those attributes matter whose names the code uses: a count of epochs
    may go on."""

    def __init__(self, *roots: Any) -> None:
        self.tensors: dict[int, Tensor] = {}
        self.places: list[tuple[Any, Any, Any]] = []  # container, key, value
        self.attributes: list[tuple[Any, str, Any]] = []  # of objects with slots, classes and modules
        self.sizes: list[tuple[Any, int]] = []
        self.arrays: list[tuple[np.ndarray, bytes]] = []  # of NumPy; numbers that follow from them may be constants
        self.snapshots: list[tuple[Any, Any]] = []  # long lists and dicts of plain values, with copies
        self.counts: list[tuple[Optimizer, Any]] = []
        self.reason: str | None = None
        self._names: set[str] = {"forward", "__call__", "training"}  # that the code uses
        self._owners: list[Any] = []  # what is looked at by these names
        self._looked: set[tuple[int, str]] = set()
        self._seen: set[int] = set()
        self._kept: list[Any] = []
        self._pending: deque[Any] = deque(roots)
        while self._pending or self._look():
            if len(self._seen) > MOST_OBJECTS:
                self.reason = f"it reaches more than {MOST_OBJECTS} objects, too many to tell whether they change"
                return
            self._visit(self._pending.popleft())

    # -- walking --------------------------------------------------------------------------------------
    def _visit(self, x: Any) -> None:
        if isinstance(x, _PLAIN) or id(x) in self._seen:
            return
        self._seen.add(id(x))
        self._kept.append(x)
        if isinstance(x, Tensor):
            self.tensors[id(x)] = x
            self._pending += (x._hooks or {}).values()
        elif isinstance(x, (np.ndarray, np.random.Generator, np.random.RandomState, random.Random)):
            self._data(x)
        elif isinstance(x, types.FunctionType):
            self._function(x)
        elif isinstance(x, types.MethodType):
            self._pending += (x.__self__, x.__func__)
        elif isinstance(x, functools.partial):
            self._pending += (x.func, x.args, x.keywords)
        elif isinstance(x, (property, staticmethod, classmethod)):
            self._pending += (getattr(x, "fget", None), getattr(x, "__func__", None))
        elif isinstance(x, Optimizer):
            self._optimizer(x)
        elif isinstance(x, dict):
            self._dict(x)
        elif isinstance(x, (list, tuple, set, frozenset, deque)):
            self._list(x)
        elif isinstance(x, (type, types.ModuleType)):
            name = x.__module__ if isinstance(x, type) else x.__name__
            if name.split(".")[0] not in _LIBRARIES:
                self._owners.append(x)
        else:
            self._object(x)

    def _data(self, x: Any) -> None:
        if isinstance(x, np.ndarray) and x.nbytes <= MOST_BYTES and not x.dtype.hasobject:
            self.arrays.append((x, x.tobytes()))
        elif self.reason is None:
            what = f"an array of {x.size} elements" if isinstance(x, np.ndarray) else "a generator of random numbers"
            self.reason = f"it reaches {what} of NumPy or Python, which may change unnoticed; pass tensors in"

    def _object(self, x: Any) -> None:
        module = type(x).__module__
        if module.startswith("gpugrad.compiler."):
            self._pending.append(getattr(x, "function", None))  # of another compiled function; its traces are its own
            return
        self._pending += type(x).__mro__
        attributes = getattr(x, "__dict__", None)
        if isinstance(attributes, dict) and (module.split(".")[0] == "gpugrad" or isinstance(x, Module)):
            self.sizes.append((attributes, len(attributes)))
            for key, value in attributes.items():
                if module.split(".")[0] == "gpugrad" or not isinstance(value, _PLAIN):
                    self._place(attributes, key, value)
        self._owners.append(x)

    def _look(self) -> bool:
        """Look at the attributes of users' own that the code names; whether there were new ones."""
        before = len(self._looked)
        for owner in self._owners:
            own = getattr(owner, "__dict__", {})
            slots = () if isinstance(owner, (type, types.ModuleType)) else _slots(type(owner))
            for name in self._names:
                if (id(owner), name) in self._looked or not (name in own or name in slots):
                    continue
                self._looked.add((id(owner), name))
                if isinstance(own, dict) and name in own and not isinstance(owner, types.ModuleType):
                    self._place(own, name, own[name])
                else:
                    value = own[name] if name in own else getattr(owner, name, _MISSING)
                    self.attributes.append((owner, name, value))
                    self._pending.append(value)
        return len(self._looked) > before

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
        counts = _step_counts(x)
        if counts:
            self.counts.append((x, counts))
        # load_state_dict replaces groups and states, which a program's live numbers are read from.
        self.places += [(vars(x), "state", x.state), (vars(x), "param_groups", x.param_groups)]
        self.places += [(x.param_groups, i, group) for i, group in enumerate(x.param_groups)]
        self.places += [(x.state, p, state) for p, state in x.state.items()]
        for key, value in vars(x).items():
            if isinstance(value, Tensor):  # such as the norm of the gradients, which steps write
                self._place(vars(x), key, value)
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
        self._pending += (key for key in x if isinstance(key, Tensor))
        if not self._is_long(x, x.values()):
            for key, value in x.items():
                self._place(x, key, value)

    def _list(self, x: Any) -> None:
        self.sizes.append((x, len(x)))
        if isinstance(x, (tuple, frozenset)):
            self._pending.extend(x)
        elif isinstance(x, set):
            self.snapshots.append((x, set(x)))
            self._pending.extend(x)
        elif not self._is_long(x, x):
            for i, value in enumerate(x):
                self._place(x, i, value)

    def _is_long(self, x: Any, values: Any) -> bool:
        """Whether ``x`` is a long row of plain values, which is compared as a whole."""
        if len(x) <= MOST_VALUES or not all(isinstance(v, _PLAIN) for v in values):
            return False
        if len(x) <= MOST_COMPARED:
            self.snapshots.append((x, x.copy()))
        elif self.reason is None:
            self.reason = f"it reaches a {type(x).__name__} of {len(x)} values, which may change unnoticed"
        return True

    def _place(self, container: Any, key: Any, value: Any) -> None:
        if not isinstance(value, types.BuiltinFunctionType):
            self.places.append((container, key, value))
            self._pending.append(value)

    # -- afterwards ------------------------------------------------------------------------------------
    def changed(self) -> str | None:
        """What the function changed besides the values of tensors, or None."""
        for array, content in self.arrays:
            if array.tobytes() != content:
                return "writes to an array of NumPy"
        for container, n in self.sizes:
            if len(container) != n:
                return f"changes the length of a {type(container).__name__} that outlives it"
        for long, copy in self.snapshots:
            if long != copy:
                return f"writes to a {type(long).__name__} that outlives it"
        found = [(key, value, _read(container, key)) for container, key, value in self.places]
        found += [(name, value, getattr(owner, name, _MISSING)) for owner, name, value in self.attributes
                  if not callable(value)]  # fmt: skip
        for key, value, now in found:
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
            tests += _same(now, value, name)
        for owner, attribute, value in self.attributes:
            if isinstance(owner, type) and not isinstance(value, _PLAIN):
                tests.append(f"{name(vars(owner))}.get({attribute!r}) is {name(value)}")
            else:
                tests += _same(f"getattr({name(owner)}, {attribute!r}, None)", value, name)
        for long, copy in self.snapshots:
            tests.append(f"{name(long)} == {name(copy)}")
        for array, content in self.arrays:
            tests.append(f"{name(array)}.tobytes() == {name(content)}")
        for optimizer, counts in self.counts:
            tests.append(f"{name(_step_counts)}({name(optimizer)}) == {name(counts)}")
        for text, objects in extra:
            tests.append(text.format(*map(name, objects)))
        return _joined(tests, names)


def _same(now: str, value: Any, name: Callable[[Any], str]) -> list[str]:
    """Tests that the expression ``now`` gives ``value``."""
    if isinstance(value, (bool, type(None))) or not isinstance(value, _PLAIN):
        return [f"{now} is {name(value)}"]
    if value == 0 and isinstance(value, (float, complex)):  # 0.0 and -0.0 are equal
        return [f"repr({now}) == {repr(value)!r}"]
    if value != value:  # a NaN is equal to nothing
        return [f"{now} != {now}"]
    return [f"{now} == {name(value)}", f"type({now}) is {name(type(value))}"]  # 1 and 1.0 are equal, but for the type


def _slots(kind: type) -> set[str]:
    """The names of an object's slots."""
    found: set[str] = set()
    for c in kind.__mro__:
        slots = vars(c).get("__slots__", ())
        found.update([slots] if isinstance(slots, str) else slots)
    return found


def _step_counts(optimizer: Optimizer) -> list[Any]:
    """How far the step counts of the parameters that are trained are apart: parameters of one count share the numbers
    that follow from it, and a program was made for those that did so when it was traced."""
    counts = [s["step"] for p, s in optimizer.state.items() if "step" in s and p._requires_grad]
    if not counts or isinstance(counts[0], Tensor):
        return []
    first = counts[0]
    return [c - first for c in counts]


def random_state() -> Any:
    """The state of Python's and NumPy's own generators of random numbers."""
    state: Any = np.random.get_state(legacy=False)
    numbers = state["state"]
    return random.getstate(), numbers["key"].tobytes(), numbers["pos"], state["has_gauss"]


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
