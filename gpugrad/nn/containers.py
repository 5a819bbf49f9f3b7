"""Modules that hold modules or parameters: Sequential, lists and dicts of them."""

from __future__ import annotations

import operator
import warnings
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from typing import Any

from gpugrad.nn.module import Module, _indented, _tree_repr
from gpugrad.nn.parameter import Parameter
from gpugrad.tensor import Tensor


def _position(index: Any, n: int) -> int:
    """``index`` counted from the front. Raises IndexError."""
    i = operator.index(index)
    if not -n <= i < n:
        raise IndexError(f"index {i} is out of range for {n} entries")
    return i % n


class _ModuleSeries(Module):
    """What Sequential and ModuleList share: children named "0", "1", ... in order."""

    def _renumber(self, modules: list[Module]) -> None:
        """Make ``modules`` the children; all are checked before anything changes."""
        for module in modules:
            if not isinstance(module, Module):
                raise TypeError(f"{type(self).__name__}: every entry must be a Module, not {type(module).__name__}")
        self._modules.clear()
        self._modules.update((str(i), m) for i, m in enumerate(modules))

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[Module]:
        return iter(self._modules.values())

    def __contains__(self, module: object) -> bool:
        return any(m is module for m in self)

    def __setitem__(self, index: int, module: Module) -> None:
        setattr(self, list(self._modules)[_position(index, len(self))], module)

    def __delitem__(self, index: int | slice) -> None:
        modules = list(self)
        del modules[index if isinstance(index, slice) else _position(index, len(modules))]
        self._renumber(modules)

    def append(self, module: Module) -> Any:
        """Add at the end. Returns self."""
        self.add_module(str(len(self)), module)
        return self

    def extend(self, modules: Iterable[Module]) -> Any:
        """Add several at the end. Returns self."""
        if not isinstance(modules, Iterable):
            raise TypeError(
                f"{type(self).__name__}.extend: expected several modules to go through, got {type(modules).__name__}"
            )
        for module in list(modules):
            self.append(module)
        return self

    def insert(self, index: int, module: Module) -> Any:
        """Add before position ``index``. Returns self."""
        n = len(self)
        if not -n <= index <= n:
            raise IndexError(f"insert: index {index} is out of range for {n} entries")
        modules = list(self)
        modules.insert(index, module)
        self._renumber(modules)
        return self

    def pop(self, key: int | slice = -1) -> Any:
        """Take out the module(s) at ``key``, which are returned."""
        taken = self[key]  # type: ignore[index]
        del self[key]
        return taken


class Sequential(_ModuleSeries):
    """Calls its modules one after the other, each on the output of the one before.

    Built from modules (named "0", "1", ...) or from one OrderedDict of names and modules."""

    def __init__(self, *args: Any) -> None:
        super().__init__()
        if len(args) == 1 and isinstance(args[0], OrderedDict):
            for name, module in args[0].items():
                self.add_module(name, module)
        else:
            for i, module in enumerate(args):
                self.add_module(str(i), module)

    def forward(self, input: Any) -> Any:
        for module in self._modules.values():
            input = module(input)
        return input

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return type(self)(OrderedDict(list(self._modules.items())[index]))
        return list(self)[_position(index, len(self))]

    def __delitem__(self, index: int | slice) -> None:
        names = list(self._modules)
        chosen = names[index] if isinstance(index, slice) else [names[_position(index, len(names))]]
        for name in chosen:
            del self._modules[name]
        # Numbered names are numbered anew; names a user gave are left alone.
        if all(name.isdigit() for name in self._modules):
            self._renumber(list(self))

    def __add__(self, other: Sequential) -> Sequential:
        if not isinstance(other, Sequential):
            raise ValueError(
                f"+ joins a Sequential to another one, not to {type(other).__name__}; wrap it in Sequential()"
            )
        return Sequential(*self, *other)

    def __iadd__(self, other: Sequential) -> Sequential:
        if not isinstance(other, Sequential):
            raise ValueError(
                f"+ joins a Sequential to another one, not to {type(other).__name__}; wrap it in Sequential()"
            )
        return self.extend(other)

    def __mul__(self, times: int) -> Sequential:
        if not isinstance(times, int):
            raise TypeError(f"* repeats a Sequential an int number of times, not {type(times).__name__}")
        if times <= 0:
            raise ValueError(f"* repeats a Sequential at least once, not {times} times")
        return Sequential(*(list(self) * times))

    __rmul__ = __mul__


class ModuleList(_ModuleSeries):
    """A list of modules whose parameters are known to the module that holds it."""

    def __init__(self, modules: Iterable[Module] | None = None) -> None:
        super().__init__()
        if modules is not None:
            self.extend(modules)

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return type(self)(list(self)[index])
        return self._modules[str(_position(index, len(self)))]

    def __add__(self, other: Iterable[Module]) -> ModuleList:
        return ModuleList([*self, *other])

    def __iadd__(self, modules: Iterable[Module]) -> ModuleList:
        return self.extend(modules)

    def __repr__(self) -> str:
        """As Module's, with equal neighbours written once."""
        children = []
        first = 0
        for text, group in groupby(repr(m) for m in self):
            n = len(list(group))
            label = f"({first})" if n == 1 else f"({first}-{first + n - 1})"
            children.append(f"{label}: {'' if n == 1 else f'{n} x '}{_indented(text)}")
            first += n
        return _tree_repr(self._get_name(), [], children)


class Container(Module):
    """The oldest container: modules by keyword, without a forward."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__()
        warnings.warn("Container: use ModuleDict, or assign modules as attributes", FutureWarning, stacklevel=2)
        for name, module in kwargs.items():
            self.add_module(name, module)


class ModuleDict(Module):
    """A dict of modules whose parameters are known to the module that holds it."""

    def __init__(self, modules: Mapping[str, Module] | Iterable[tuple[str, Module]] | None = None) -> None:
        super().__init__()
        if modules is not None:
            self.update(modules)

    def __getitem__(self, key: str) -> Module:
        return self._modules[key]

    def __setitem__(self, key: str, module: Module) -> None:
        self.add_module(key, module)

    def __delitem__(self, key: str) -> None:
        del self._modules[key]

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[str]:
        return iter(self._modules)

    def __contains__(self, key: object) -> bool:
        return key in self._modules

    def clear(self) -> None:
        """Remove all."""
        self._modules.clear()

    def pop(self, key: str) -> Module:
        """Remove and return."""
        return self._modules.pop(key)

    def keys(self) -> Iterable[str]:
        """Names."""
        return self._modules.keys()

    def items(self) -> Iterable[tuple[str, Module]]:
        """Names and modules."""
        return self._modules.items()

    def values(self) -> Iterable[Module]:
        """Modules."""
        return self._modules.values()

    def update(self, modules: Mapping[str, Module] | Iterable[tuple[str, Module]]) -> None:
        """Add or replace from a mapping or from pairs."""
        for key, module in _pairs("ModuleDict.update", "module", modules):
            self[key] = module


def _pairs(op: str, kind: str, given: Any) -> Iterable[tuple[str, Any]]:
    """What a mapping or an iterable of pairs gives a name each. Raises TypeError for anything else."""
    if isinstance(given, (Mapping, ModuleDict, ParameterDict)):
        return given.items()
    pairs = list(given) if isinstance(given, Iterable) else None
    if pairs is None or not all(isinstance(p, (tuple, list)) and len(p) == 2 for p in pairs):
        got = type(given).__name__ if pairs is None else f"a {type(given).__name__} of other things"
        raise TypeError(f"{op}: expected a dict or (name, {kind}) pairs, got {got}")
    return pairs


def _as_parameter(value: Any) -> Any:
    """Plain tensors become parameters; everything else stays what it is."""
    return Parameter(value) if isinstance(value, Tensor) and not isinstance(value, Parameter) else value


def _describe(value: Any) -> str:
    if isinstance(value, Tensor):
        size = "x".join(str(n) for n in value.shape)
        kind = "Parameter" if isinstance(value, Parameter) else "Tensor"
        return f"{kind} containing: [{value.dtype} of size {size}]" + (
            "" if value.device.type == "cpu" else f" ({value.device})"
        )
    return f"Object of type: {type(value).__name__}"


class ParameterList(Module):
    """A list of parameters known to the module that holds it. Tensors become parameters."""

    def __init__(self, values: Iterable[Any] | None = None) -> None:
        super().__init__()
        self._size = 0
        if values is not None:
            self.extend(values)

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[Any]:
        return (getattr(self, str(i)) for i in range(self._size))

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return type(self)(list(self)[index])
        return getattr(self, str(_position(index, self._size)))

    def __setitem__(self, index: int, value: Any) -> None:
        setattr(self, str(_position(index, self._size)), _as_parameter(value))

    def append(self, value: Any) -> ParameterList:
        """Add at the end. Returns self."""
        setattr(self, str(self._size), _as_parameter(value))
        self._size += 1
        return self

    def extend(self, values: Iterable[Any]) -> ParameterList:
        """Add several at the end. Returns self."""
        if not isinstance(values, Iterable) or isinstance(values, Tensor):
            raise TypeError(
                f"ParameterList.extend: expected several parameters to go through, got {type(values).__name__}"
            )
        for value in list(values):
            self.append(value)
        return self

    def __iadd__(self, values: Iterable[Any]) -> ParameterList:
        return self.extend(values)

    def extra_repr(self) -> str:
        return "\n".join(f"  ({i}): {_describe(v)}" for i, v in enumerate(self))


class ParameterDict(Module):
    """A dict of parameters known to the module that holds it. Tensors become parameters."""

    def __init__(self, parameters: Any = None) -> None:
        super().__init__()
        self._keys: dict[str, None] = {}
        if parameters is not None:
            self.update(parameters)

    def __getitem__(self, key: str) -> Any:
        if key not in self._keys:
            raise KeyError(key)
        return getattr(self, key)

    def __setitem__(self, key: str, value: Any) -> None:
        if key not in self._keys and hasattr(self, key):
            raise KeyError(f"ParameterDict: the name '{key}' is taken by an attribute; choose another key")
        setattr(self, key, _as_parameter(value))
        self._keys[key] = None

    def __delitem__(self, key: str) -> None:
        del self._keys[key]
        delattr(self, key)

    def __len__(self) -> int:
        return len(self._keys)

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __reversed__(self) -> Iterator[str]:
        return reversed(self._keys)

    def __contains__(self, key: object) -> bool:
        return key in self._keys

    def __or__(self, other: ParameterDict) -> ParameterDict:
        joined = self.copy()
        joined.update(other)
        return joined

    def __ior__(self, other: ParameterDict) -> ParameterDict:
        self.update(other)
        return self

    def keys(self) -> Iterable[str]:
        """Names."""
        return self._keys.keys()

    def items(self) -> Iterable[tuple[str, Any]]:
        """Names and values."""
        return ((k, self[k]) for k in self._keys)

    def values(self) -> Iterable[Any]:
        """Values."""
        return (self[k] for k in self._keys)

    def get(self, key: str, default: Any = None) -> Any:
        """The value, or ``default``."""
        return self[key] if key in self._keys else default

    def setdefault(self, key: str, default: Any = None) -> Any:
        """The value, put there first if it was absent."""
        if key not in self._keys:
            self[key] = default
        return self[key]

    def pop(self, key: str) -> Any:
        """Remove and return."""
        value = self[key]
        del self[key]
        return value

    def popitem(self) -> tuple[str, Any]:
        """Take out the (name, parameter) added last."""
        key = next(reversed(self._keys))
        return key, self.pop(key)

    def clear(self) -> None:
        """Remove all."""
        for key in list(self._keys):
            del self[key]

    def copy(self) -> ParameterDict:
        """A new dict of the same parameters."""
        return ParameterDict(OrderedDict(self.items()))

    def fromkeys(self, keys: Iterable[str], default: Any = None) -> ParameterDict:
        """A new dict with ``default`` under each of ``keys``."""
        return ParameterDict((k, default) for k in keys)

    def update(self, parameters: Any) -> None:
        """Add or replace from a mapping (in the order of its names, unless it is an OrderedDict or a ParameterDict) or
        from pairs. Raises TypeError."""
        pairs = _pairs("ParameterDict.update", "parameter", parameters)
        # As in PyTorch, whose optimizers save their states by the order of the parameters.
        plain = isinstance(parameters, Mapping) and not isinstance(parameters, OrderedDict)
        for key, value in sorted(pairs, key=lambda pair: pair[0]) if plain else pairs:
            self[key] = value

    def extra_repr(self) -> str:
        return "\n".join(f"  ({k}): {_describe(v)}" for k, v in self.items())
