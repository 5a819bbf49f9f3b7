"""``gpugrad.compile``: a function or module traced once and replayed as one program of fused kernels.

The modules, in the order a call goes through them: ``compiled`` (the function that stands in for the user's),
``attempt`` (one traced call, and running it again), ``guards`` (what a trace depends on), ``tracing`` (listening to the
backend contract), ``program`` (what was heard), ``differentiating`` (a backward program for results that are
differentiated outside), ``fusing`` (groups), ``lowering`` and what is built on it for each kind of device.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gpugrad.compiler.compiled import Compiled, GraphBreak
from gpugrad.compiler.modules import CompiledModule
from gpugrad.nn.module import Module

__all__ = ["Compiled", "CompiledModule", "GraphBreak", "compile"]


def compile(
    model: Any = None,
    *,
    fullgraph: bool = False,
    dynamic: bool | None = None,
    backend: Any = "gpugrad",
    mode: str | None = None,
    options: dict[str, Any] | None = None,
    disable: bool = False,
) -> Any:
    """A function or module that runs as one compiled program: ``step = gpugrad.compile(step)``, or as a decorator.

    The first call with a kind of arguments (shapes, dtypes, devices; values of what is no tensor) runs ``model`` and
    traces it: forward, backward and optimizer steps alike. Later calls replay the trace, as long as what it depends on
    is unchanged; else it is traced anew. Python runs only while tracing, and so do its side effects (printing,
    counting). Where a value of a tensor is read (``item()``, ``if``, ``numpy()``), the function runs eagerly, with a
    warning that names the line, or, with ``fullgraph``, a RuntimeError.

    ``explain()`` of the result tells what was fused, ``source()`` shows the kernels, ``reset()`` forgets all traces.
    ``disable`` returns a function that only calls ``model``. The other options are PyTorch's and change nothing."""
    if model is None:

        def decorate(function: Callable[..., Any]) -> Any:
            return compile(function, fullgraph=fullgraph, disable=disable)

        return decorate
    if isinstance(model, Module):
        return CompiledModule(model, fullgraph=fullgraph, disable=disable)
    if not callable(model):
        raise TypeError(f"compile: expected a function or a module, got {type(model).__name__}")
    return Compiled(model, fullgraph=fullgraph, disable=disable)
