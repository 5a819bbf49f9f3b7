"""Hooks of all modules at once: run around every forward and backward, or on every registration."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from gpugrad.hooks import HookDict, RemovableHandle


class CallHook(NamedTuple):
    """A hook around forward, of one module or of all."""

    call: Callable[..., Any]
    with_kwargs: bool = False
    always_call: bool = False


class _Entry(NamedTuple):
    kind: str
    hook: Any


#: hooks that run when modules are called; one table, so that a module asks one question when there are none
CALLS = HookDict()
#: hooks that run when a parameter, buffer or module is assigned
REGISTRATIONS = HookDict()


def of_kind(table: HookDict, kind: str) -> list[Any]:
    """The hooks registered as ``kind``, in order."""
    return [entry.hook for entry in table.values() if entry.kind == kind]


def registered(kind: str, module: Any, name: str, value: Any) -> Any:
    """``value``, or what the registration hooks put in its place."""
    for hook in of_kind(REGISTRATIONS, kind):
        replaced = hook(module, name, value)
        value = value if replaced is None else replaced
    return value


def register_module_forward_pre_hook(hook: Callable[..., Any]) -> RemovableHandle:
    """``hook(module, args)`` before the forward of every module; a result replaces ``args``."""
    return CALLS.add(_Entry("forward_pre", CallHook(hook)))


def register_module_forward_hook(
    hook: Callable[..., Any], *, with_kwargs: bool = False, always_call: bool = False
) -> RemovableHandle:
    """``hook(module, args, output)`` after the forward of every module, before the module's own hooks; a result
    replaces the output. Options as of :meth:`Module.register_forward_hook`."""
    return CALLS.add(_Entry("forward", CallHook(hook, with_kwargs, always_call)))


def register_module_full_backward_hook(hook: Callable[..., Any]) -> RemovableHandle:
    """``hook(module, grad_input, grad_output)`` in the backward of every module; a result replaces ``grad_input``."""
    return CALLS.add(_Entry("backward", hook))


def register_module_backward_hook(hook: Callable[..., Any]) -> RemovableHandle:
    """The old name of :func:`register_module_full_backward_hook`."""
    return register_module_full_backward_hook(hook)


def register_module_full_backward_pre_hook(hook: Callable[..., Any]) -> RemovableHandle:
    """``hook(module, grad_output)`` before the backward of every module; a result replaces it."""
    return CALLS.add(_Entry("backward_pre", hook))


def register_module_parameter_registration_hook(hook: Callable[..., Any]) -> RemovableHandle:
    """``hook(module, name, parameter)`` whenever a module is given a parameter; a result takes its place."""
    return REGISTRATIONS.add(_Entry("parameter", hook))


def register_module_buffer_registration_hook(hook: Callable[..., Any]) -> RemovableHandle:
    """``hook(module, name, buffer)`` whenever a module is given a buffer; a result takes its place."""
    return REGISTRATIONS.add(_Entry("buffer", hook))


def register_module_module_registration_hook(hook: Callable[..., Any]) -> RemovableHandle:
    """``hook(module, name, submodule)`` whenever a module is given a submodule; a result takes its place."""
    return REGISTRATIONS.add(_Entry("module", hook))
