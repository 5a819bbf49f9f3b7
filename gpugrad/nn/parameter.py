"""Tensors that a module owns: :class:`Parameter` (learned), :class:`Buffer` (kept), and those without a shape yet."""

from __future__ import annotations

from collections.abc import Sequence
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

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        """A parameter with a copy of the values, without the gradient, as in PyTorch: a copied model starts clean."""
        twin = super().__deepcopy__(memo)
        twin.grad = None
        return twin

    def __repr__(self, **kwargs: Any) -> str:
        return "Parameter containing:\n" + Tensor.__repr__(self, **kwargs)


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


class UninitializedTensorMixin:
    """What both kinds share: a dtype and a device, but neither shape nor values before :meth:`materialize`."""

    __slots__ = ()

    @property
    def shape(self) -> Any:
        raise RuntimeError(
            "an uninitialised parameter has no shape yet; run the lazy module that owns it once, or call materialize()"
        )

    def materialize(self: Any, shape: Sequence[int], device: Any = None, dtype: Any = None) -> None:
        """Become an ordinary tensor of ``shape`` with arbitrary values."""
        self.data = creation.empty(tuple(shape), dtype=dtype or self.dtype, device=device or self.device)
        self.__class__ = self._becomes

    def __repr__(self, **kwargs: Any) -> str:
        return f"<{type(self).__name__}>"

    def __reduce_ex__(self: Any, protocol: Any) -> Any:
        return (type(self), (self.requires_grad, str(self.device), self.dtype))

    def __deepcopy__(self: Any, memo: dict[int, Any]) -> Any:
        twin = memo[id(self)] = type(self)(self.requires_grad, self.device, self.dtype)
        return twin


class UninitializedParameter(UninitializedTensorMixin, Parameter):
    """A parameter whose shape is not known yet."""

    __slots__ = ()
    _becomes = Parameter

    def __new__(cls, requires_grad: bool = True, device: Any = None, dtype: Any = None) -> UninitializedParameter:
        p = adopt(cls, creation.empty((0,), dtype=dtype, device=device))
        return p.requires_grad_() if requires_grad else p


class UninitializedBuffer(UninitializedTensorMixin, Tensor):
    """A buffer whose shape is not known yet."""

    __slots__ = ()
    _becomes = Tensor

    def __new__(cls, requires_grad: bool = False, device: Any = None, dtype: Any = None) -> UninitializedBuffer:
        b = adopt(cls, creation.empty((0,), dtype=dtype, device=device))
        return b.requires_grad_() if requires_grad else b


def is_lazy(tensor: Any) -> bool:
    """Whether ``tensor`` has no shape yet."""
    return isinstance(tensor, UninitializedTensorMixin)
