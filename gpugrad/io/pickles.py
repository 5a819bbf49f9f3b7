"""An interpreter of pickles that runs no code.

A pickle is a program for a small stack machine. Python's own runs whatever functions the program names; this one
knows plain values and containers, and the few names that its caller hands it. Anything else is refused by name.
"""

from __future__ import annotations

import os
import pickletools
import struct
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO, NoReturn

from gpugrad.errors import FileFormatError, GpugradError

_PUSHED = frozenset(
    "INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT STRING BINSTRING SHORT_BINSTRING UNICODE BINUNICODE "
    "SHORT_BINUNICODE BINUNICODE8 BINBYTES SHORT_BINBYTES BINBYTES8 BYTEARRAY8".split()
)
_NEW: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "EMPTY_DICT": dict,
    "EMPTY_SET": set,
}
_COPIED = (str, bytes, bytearray, list, tuple, dict, set, frozenset)
_SCALARS = (str, int, float, bytes, type(None))


class Known:
    """A name that a pickle may use, and what calling it does (None: it is only handed on)."""

    __slots__ = ("name", "call")

    def __init__(self, name: str, call: Callable[..., Any] | None = None) -> None:
        self.name = name
        self.call = call


class Machine:
    """Runs one pickle after the other out of ``file``.

    ``names``: "module name" to what stands for it, a :class:`Known` or a value; ``missing(module, name)`` raises for
    all others; ``persistent(id)`` gives what stands for a persistent id; ``title`` begins every error."""

    def __init__(
        self,
        file: BinaryIO,
        title: str,
        names: Mapping[str, Any],
        missing: Callable[[str, str], NoReturn],
        persistent: Callable[[Any], Any],
    ) -> None:
        self.file = file
        self.title = title
        self.names = names
        self.missing = missing
        self.persistent = persistent
        self.stack: list[Any] = []
        self.outer: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        here = file.tell()
        # Each element comes out of the file, but a program may copy what it made as often as it likes.
        self.copies_left = 16 * file.seek(0, os.SEEK_END) + (1 << 20)
        file.seek(here)

    def fail(self, reason: str) -> NoReturn:
        """Raise FileFormatError."""
        raise FileFormatError(f"{self.title}: {reason}")

    def run(self) -> Any:
        """The object of the next pickle. Raises FileFormatError for whatever is wrong with it."""
        self.stack, self.outer, self.memo = [], [], {}
        try:
            for opcode, argument, _ in pickletools.genops(self.file):
                name = opcode.name
                if name in _PUSHED:
                    self.stack.append(argument)
                elif name in _NEW:
                    self.stack.append(_NEW[name]())
                elif name == "STOP":
                    return self.stack.pop()
                else:
                    action = _ACTIONS.get(name)
                    if action is None:
                        self.fail(f"its pickle uses the instruction {name}, which plain data does not need")
                    action(self, argument)
        except GpugradError:
            raise
        except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError, struct.error) as e:
            raise FileFormatError(f"{self.title}: its pickle is truncated or damaged ({e})") from e
        self.fail("its pickle has no end")

    # -- the stack -----------------------------------------------------------------
    def _since_mark(self) -> list[Any]:
        items = self.stack
        self.stack = self.outer.pop()
        return items

    def _mark(self, _: Any) -> None:
        self.outer.append(self.stack)
        self.stack = []

    def _tuple(self, count: int) -> None:
        if len(self.stack) < count:
            raise IndexError("too few values for a tuple")
        self.stack[-count:] = [tuple(self.stack[-count:])]

    def _replace_mark(self, make: Callable[[list[Any]], Any]) -> None:
        items = self._since_mark()
        self.stack.append(make(items))

    def _put(self, slot: int) -> None:
        self.memo[slot] = self.stack[-1]

    def _get(self, slot: int) -> None:
        self.stack.append(self.memo[slot])

    # -- containers ----------------------------------------------------------------
    def _extend(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) is not list:
            raise TypeError(f"items for a {type(target).__name__}")
        target.extend(items)

    def _set_items(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) not in (dict, OrderedDict, defaultdict, Counter) or len(items) % 2:
            raise TypeError(f"keys and values for a {type(target).__name__}")
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[_hashable(key)] = value

    def _add_items(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) is not set:
            raise TypeError(f"elements for a {type(target).__name__}")
        target.update(map(_hashable, items))

    def _append(self, _: Any) -> None:
        self._extend([self.stack.pop()])

    def _set_item(self, _: Any) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._set_items([key, value])

    # -- names and calls -----------------------------------------------------------
    def _global(self, both: Any) -> None:
        module, _, name = both.partition(" ")
        self._push_name(module, name)

    def _stack_global(self, _: Any) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        if type(name) is not str or type(module) is not str:
            raise TypeError("a name that is no text")
        self._push_name(module, name)

    def _push_name(self, module: str, name: str) -> None:
        found = self.names.get(f"{module} {name}", self)
        if found is self:
            self.missing(module, name)
        self.stack.append(found)

    def _reduce(self, _: Any) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        if not isinstance(function, Known) or function.call is None or type(arguments) is not tuple:
            raise TypeError(f"a call of {getattr(function, 'name', type(function).__name__)}")
        self.copies_left -= sum(len(a) for a in arguments if isinstance(a, _COPIED))
        if self.copies_left < 0:
            self.fail("its pickle makes far more than the file holds")
        self.stack.append(function.call(*arguments))

    def _build(self, _: Any) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if hasattr(target, "build_from_pickle"):
            target.build_from_pickle(state)
        elif type(target) is OrderedDict and type(state) is dict and state.keys() <= {"_metadata"}:
            target.__dict__.update(state)  # the versions of modules that a state_dict carries
        else:
            raise TypeError(f"attributes for a {type(target).__name__}")

    def _persistent_id(self, _: Any) -> None:
        self.stack.append(self.persistent(self.stack.pop()))


def _hashable(key: Any) -> Any:
    """``key``, if hashing it is harmless. (Hashing tuples nested deeply enough would overflow C's stack.)"""
    parts = key if type(key) is tuple else (key,)
    if not all(isinstance(part, _SCALARS) for part in parts):
        raise TypeError("a key that is neither a number nor a text")
    return key


def _pairs(items: list[Any]) -> dict[Any, Any]:
    return {_hashable(k): v for k, v in zip(items[::2], items[1::2], strict=True)}


_ACTIONS: dict[str, Callable[[Machine, Any], None]] = {
    "PROTO": lambda m, a: None,
    "FRAME": lambda m, a: None,
    "MARK": Machine._mark,
    "POP": lambda m, a: void(m.stack.pop() if m.stack else m._since_mark()),
    "POP_MARK": lambda m, a: void(m._since_mark()),
    "DUP": lambda m, a: m.stack.append(m.stack[-1]),
    "TUPLE": lambda m, a: m._replace_mark(tuple),
    "TUPLE1": lambda m, a: m._tuple(1),
    "TUPLE2": lambda m, a: m._tuple(2),
    "TUPLE3": lambda m, a: m._tuple(3),
    "LIST": lambda m, a: m._replace_mark(list),
    "DICT": lambda m, a: m._replace_mark(_pairs),
    "FROZENSET": lambda m, a: m._replace_mark(lambda items: frozenset(map(_hashable, items))),
    "APPEND": Machine._append,
    "APPENDS": lambda m, a: m._extend(m._since_mark()),
    "SETITEM": Machine._set_item,
    "SETITEMS": lambda m, a: m._set_items(m._since_mark()),
    "ADDITEMS": lambda m, a: m._add_items(m._since_mark()),
    "PUT": Machine._put,
    "BINPUT": Machine._put,
    "LONG_BINPUT": Machine._put,
    "MEMOIZE": lambda m, a: m._put(len(m.memo)),
    "GET": Machine._get,
    "BINGET": Machine._get,
    "LONG_BINGET": Machine._get,
    "GLOBAL": Machine._global,
    "STACK_GLOBAL": Machine._stack_global,
    "REDUCE": Machine._reduce,
    "NEWOBJ": Machine._reduce,
    "BUILD": Machine._build,
    "BINPERSID": Machine._persistent_id,
}


def void(_: Any) -> None:
    """Nothing: lets a lambda drop a value."""


# -- plain names -------------------------------------------------------------------


def _typed(name: str, make: Callable[..., Any], *kinds: Any) -> Known:
    """A call of ``make`` with up to as many arguments as ``kinds``, each of its kind."""

    def call(*arguments: Any) -> Any:
        if len(arguments) > len(kinds) or not all(map(isinstance, arguments, kinds)):
            raise TypeError(f"a call of {name} with {len(arguments)} arguments")
        return make(*arguments)

    return Known(name, call)


def _ordered(pairs: Any) -> Any:
    return OrderedDict((_hashable(k), v) for k, v in pairs)


_FACTORIES: dict[str, Any] = {t.__name__: t for t in (list, dict, set, int, float, str, bool)}


def _defaultdict(kind: Known | None = None, items: dict[Any, Any] | None = None) -> Any:
    return defaultdict(None if kind is None else _FACTORIES[kind.name], items or {})


def _encode(text: str, encoding: str = "utf-8") -> bytes:
    if encoding not in ("latin1", "latin-1", "utf-8", "utf8", "ascii"):
        raise ValueError(f"the text encoding {encoding}")
    return text.encode(encoding)


def _plain_names() -> dict[str, Known]:
    sequence = (list, tuple)
    kinds = {
        "list": _typed("list", list, sequence),
        "tuple": _typed("tuple", tuple, sequence),
        "dict": _typed("dict", lambda items=(): _pairs([x for pair in items for x in pair]), sequence),
        "set": _typed("set", lambda items=(): set(map(_hashable, items)), sequence),
        "frozenset": _typed("frozenset", lambda items=(): frozenset(map(_hashable, items)), sequence),
        "bytearray": _typed("bytearray", lambda data=b"", code="latin1": bytearray(
            data if isinstance(data, bytes) else _encode(data, code)), (bytes, str), str),
        "bytes": _typed("bytes", bytes, sequence),
        "int": _typed("int", int, (int, float)),
        "float": _typed("float", float, (int, float)),
        "bool": _typed("bool", bool, (int, float)),
        "str": _typed("str", str, str),
        "complex": _typed("complex", complex, (int, float), (int, float)),
        "range": _typed("range", range, int, int, int),
        "slice": _typed("slice", slice, (int, type(None)), (int, type(None)), (int, type(None))),
    }  # fmt: skip
    found = {f"{module} {name}": known for module in ("builtins", "__builtin__") for name, known in kinds.items()}
    found["collections OrderedDict"] = _typed("OrderedDict", lambda pairs=(): _ordered(pairs), sequence)
    found["collections defaultdict"] = _typed("defaultdict", _defaultdict, (Known, type(None)), dict)
    found["collections Counter"] = _typed("Counter", Counter, dict)
    found["_codecs encode"] = _typed("encode", _encode, str, str)
    return found


#: the names of Python's own plain types
PLAIN = _plain_names()
