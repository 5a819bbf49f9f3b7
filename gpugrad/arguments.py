"""What PyTorch's argument parser does alike for every function, done alike for every function here.

- the first parameter may be given as ``input=`` (or NumPy's ``x=``), whatever its name is here;
- NumPy's ``axis``, ``keepdims`` and ``x2`` stand for ``dim``, ``keepdim`` and ``other``;
- ``out=`` stores the result in a tensor, or a tuple of tensors, that exists already.

A call without named arguments pays for one more Python call and nothing else.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from typing import Any

from gpugrad.autograd.modes import mode
from gpugrad.errors import DeviceError, DTypeError
from gpugrad.ops import autocast, creation, inplace
from gpugrad.ops.table import describe
from gpugrad.tensor import Tensor

#: another name -> the parameter it stands for, where a function has that parameter
_ALIASES = {
    "axis": "dim",
    "keepdims": "keepdim",
    "x2": "other",
    "sections": "indices_or_sections",
    "indices": "indices_or_sections",
    "tensor_indices_or_sections": "indices_or_sections",
    "split_size": "split_size_or_sections",
}
_OF_ONE = {"clamp_min": {"min": "other"}, "clamp_max": {"max": "other"}}
#: functions whose results must match ``out=`` in dtype where they are several
_EXACT_PAIRS = ("max", "min")
#: names by which all of ``*sizes`` may be given at once
_WHOLE = ("size", "dims", "repeats")


def parameters(function: Any) -> tuple[str, ...]:
    """Names of the parameters of ``function``, those of what it wraps if it is a wrapper."""
    function = getattr(function, "__wrapped__", function)
    code = function.__code__
    names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    return names + _WHOLE if code.co_flags & inspect.CO_VARARGS else names


def _aliases(name: str, function: Any) -> tuple[dict[str, str], tuple[str, ...]]:
    """(other name -> parameter, "*" for all of ``*sizes``) and the names by which the first parameter
    may also be given."""
    names = parameters(function)
    aliases = {a: p for a, p in (_ALIASES | _OF_ONE.get(name, {})).items() if p in names and a not in names}
    code = getattr(function, "__wrapped__", function).__code__
    if code.co_flags & inspect.CO_VARARGS:
        own = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
        aliases |= dict.fromkeys((w for w in _WHOLE if w not in own), "*")
    takes_a_tensor = names and names[0] in ("input", "x", "a", "A")
    return aliases, tuple(n for n in ("input", "x") if n not in names) if takes_a_tensor else ()


def _renamed(
    name: str, args: tuple[Any, ...], named: dict[str, Any], aliases: dict[str, str], first: tuple[str, ...]
) -> tuple[Any, ...]:
    """``args`` and, in place, ``named`` under the names that the function has."""
    for alias in first:
        if alias in named:
            if args:
                raise TypeError(f"{name}: the first argument is given twice, by position and as {alias}=")
            args = (named.pop(alias),)
    for alias in aliases:
        if alias in named:
            if aliases[alias] == "*":
                sizes = named.pop(alias)
                args += tuple(sizes) if isinstance(sizes, (tuple, list)) else (sizes,)
                continue
            if aliases[alias] in named:
                raise TypeError(f"{name}: {alias} and {aliases[alias]} are one argument under two names; give one")
            named[aliases[alias]] = named.pop(alias)
    return args


def function(
    name: str, function: Callable[..., Any], out: bool, exact: bool = False, listed: str | None = None
) -> Callable[..., Any]:
    """``function`` as users call it; with ``out`` it takes ``out=``, which with ``exact`` must have the dtype of
    the result. A function that makes a tensor from numbers makes one of the dtype of ``out``. ``listed``: what
    autocast's lists call it, if that is not ``name``."""
    aliases, first = _aliases(name, function)
    known = parameters(function)
    makes = "dtype" in known and "requires_grad" in known and not first and known[0] != "input"

    def plain(*args: Any, **named: Any) -> Any:
        target = named.pop("out", None) if out else None
        if makes and isinstance(target, Tensor) and not any(isinstance(a, Tensor) for a in args[:2]):
            named["dtype"] = named.get("dtype") or target.dtype
        args = _renamed(name, args, named, aliases, first)
        if target is None:
            return function(*args, **named)
        return store(name, function(*args, **named), target, exact)

    def call(*args: Any, **named: Any) -> Any:
        try:
            return plain(*args, **named) if named else function(*args)
        except (AttributeError, TypeError) as error:
            return _read_again(name, plain, args, named, error)

    found = _like(function, call, name)
    return autocast.listed(listed or name, found) if (listed or name) in autocast.NAMES else found


def method(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """``function`` as a method: with NumPy's names if it has a parameter that has one there."""
    aliases, _ = _aliases(name, function)
    if not aliases and name.rstrip("_") not in _FACTORS:
        return function

    def plain(*args: Any, **named: Any) -> Any:
        return function(*_renamed(name, args, named, aliases, ()), **named)

    def call(*args: Any, **named: Any) -> Any:
        try:
            return plain(*args, **named) if named else function(*args)
        except (AttributeError, TypeError) as error:
            return _read_again(name, plain, args, named, error)

    return _like(function, call, name)


def _read_again(name: str, function: Callable[..., Any], args: Any, named: dict[str, Any], error: Exception) -> Any:
    """The call that failed with ``error``, in a form that PyTorch takes too: factors before what they multiply, two
    numbers to compute with. Else an error: TypeError if what has not the attributes of a tensor was an argument."""
    if type(error) is TypeError:
        old = _old_order(name, args)
        if old is not None:
            return function(*old[0], **old[1], **named)
        if name in _OF_NUMBERS and len(args) > 1 and all(isinstance(a, _NUMBER) for a in args[:2]):
            return function(creation.tensor(args[0]), *args[1:], **named)
    elif isinstance(error, AttributeError) and not isinstance(error.obj, (Tensor, type)):
        given = [*args, *named.values()]
        given += [x for a in given if isinstance(a, (list, tuple)) for x in a]
        if any(x is error.obj for x in given):
            raise TypeError(
                f"{name}: expected a Tensor, got {type(error.obj).__name__}; make one with gpugrad.tensor(...)"
            ) from None
    raise error


_NUMBER = (bool, int, float)
_OF_NUMBERS = frozenset("add div divide floor_divide mul multiply sub subtract true_divide".split())

#: functions to which old programs give the factors first -> what these are called
_FACTORS = (
    dict.fromkeys(("add", "sub", "subtract"), ("alpha",))
    | dict.fromkeys(("addcdiv", "addcmul"), ("value",))
    | dict.fromkeys(("addbmm", "addmm", "addmv", "addr", "baddbmm"), ("beta", "alpha"))
)


def _old_order(name: str, args: tuple[Any, ...]) -> tuple[list[Any], dict[str, Any]] | None:
    """The arguments, and the factors among them by name, of a call like ``addcmul(x, 0.5, a, b)`` or
    ``add(x, 2, y)``; None for any other. Warns, as the order is deprecated."""
    names = _FACTORS.get(name.rstrip("_"), ())
    if names == ("alpha",):
        places = [1] if len(args) == 3 and isinstance(args[1], _NUMBER) else []
    else:
        places = [i for i, a in enumerate(args) if isinstance(a, _NUMBER)]
    if not 0 < len(places) <= len(names) or places[-1] == len(args) - 1:
        return None
    factors = {n: args[i] for n, i in zip(names, places, strict=False)}
    rest = [a for i, a in enumerate(args) if i not in places]
    new = ", ".join(["...", *(f"{n}={v}" for n, v in factors.items())])
    warnings.warn(f"{name}: factors before the tensors are the old order; write {name}({new})", stacklevel=4)
    return rest, factors


def of_tensors(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """``function`` of two tensors, neither of which may be a number."""

    def call(*args: Any, **named: Any) -> Any:
        for x in (*args[:2], *([named["other"]] if "other" in named else ())):
            if not isinstance(x, Tensor):
                raise TypeError(
                    f"{name}: both arguments must be tensors, got {type(x).__name__}; gpugrad.tensor(...) makes one"
                )
        return function(*args, **named)

    direct = getattr(function, "inplace", None)
    call = _like(function, call, name)
    if direct is not None:
        call.inplace = of_tensors(name + "_", direct)  # type: ignore[attr-defined]
    return call


def _like(function: Any, call: Any, name: str) -> Any:
    call.__name__ = call.__qualname__ = name
    call.__doc__ = function.__doc__
    call.__wrapped__ = getattr(function, "__wrapped__", function)
    for attribute in ("op", "inplace"):
        if hasattr(function, attribute):
            setattr(call, attribute, getattr(function, attribute))
    return call


def store(name: str, result: Any, out: Any, exact: bool = False) -> Any:
    """``result`` written into ``out``, which is returned; tuples member by member. ``out`` is
    resized if its shape is another, with a warning unless it was empty.

    Raises TypeError if ``out`` is no tensor, RuntimeError if a gradient is asked for, DTypeError (both) if
    the dtype of the result cannot be stored in that of ``out`` or, with ``exact``, is another, DeviceError for two
    devices."""
    if isinstance(result, tuple):
        if not isinstance(out, (tuple, list)) or len(out) != len(result):
            raise TypeError(f"{name}: out must be a tuple of {len(result)} tensors")
        exact = exact or name in _EXACT_PAIRS
        stored = tuple(store(name, r, o, exact) for r, o in zip(result, out, strict=True))
        return type(result)(*stored) if hasattr(result, "_fields") else stored
    if not isinstance(out, Tensor):
        raise TypeError(f"{name}: out must be a Tensor, not {type(out).__name__}")
    if mode.enabled and (result.requires_grad or out.requires_grad):
        raise RuntimeError(
            f"{name}: a result stored through out= has no derivative, but an argument requires grad; "
            "leave out= away, or call it inside no_grad()"
        )
    if result._backend is not out._backend:
        raise DeviceError(f"{name}: the result and out are on different devices: {describe(result, out)}")
    if result.dtype is not out.dtype and (exact or not can_cast(result.dtype, out.dtype)):
        raise DTypeError(
            f"{name}: a {result.dtype.name} result cannot be stored in an out of {out.dtype.name}; make out of "
            f"dtype gpugrad.{result.dtype.name}"
        )
    if result.shape != out.shape:
        if out.numel():
            warnings.warn(
                f"{name}: out of shape {tuple(out.shape)} is resized to {tuple(result.shape)}; give an empty tensor or "
                "one of the right shape",
                UserWarning,
                stacklevel=3,
            )
        out.resize_(result.shape)
    return inplace.write(name, out, creation.cast(result, out.dtype))


def can_cast(from_: Any, to: Any) -> bool:
    """Whether values of dtype ``from_`` may be stored as ``to``: floating numbers not in an integer
    dtype, numbers not in bool."""
    return not (from_.category > to.category)
