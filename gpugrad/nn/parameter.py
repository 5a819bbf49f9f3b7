"""Tensors that a module owns: :class:`Parameter` (learned) and :class:`Buffer` (kept)."""

from __future__ import annotations

from typing import Any

from gpugrad.ops import creation
from gpugrad.tensor import Tensor, adopt


class Parameter(Tensor):
    """A tensor that a :class:`~gpugrad.nn.Module` lists among its parameters once it is
    assigned as an attribute.

    ``data``: Tensor of any shape (default: empty, float32); the parameter shares its memory.
    ``requires_grad``: whether gradients are wanted; True needs a floating dtype (RuntimeError).
    """

    __slots__ = ()

    def __new__(cls, data: Tensor | None = None, requires_grad: bool = True) -> Parameter:
        parameter = _adopt(cls, data)
        return parameter.requires_grad_() if requires_grad else parameter

    def __repr__(self, **kwargs: Any) -> str:
        return "Parameter containing:\n" + Tensor.__repr__(self.detach(), **kwargs)


class Buffer(Tensor):
    """A tensor that a module keeps, moves and (if ``persistent``) saves, but does not learn.

    Assigning one as an attribute is the same as ``register_buffer(name, data, persistent)``.
    """

    __slots__ = ()
    persistent: bool = True

    def __new__(cls, data: Tensor | None = None, *, persistent: bool = True) -> Buffer:
        buffer = _adopt(cls, data)
        buffer.persistent = persistent
        return buffer


def _adopt(cls: type, data: Tensor | None) -> Any:
    """A ``cls`` over the memory of ``data``, outside its graph."""
    if data is None:
        data = creation.empty(0)
    if not isinstance(data, Tensor):
        raise TypeError(
            f"{cls.__name__}: data must be a Tensor, not {type(data).__name__}; "
            f"wrap it: {cls.__name__}(gpugrad.tensor(...))"
        )
    return adopt(cls, data.detach())
