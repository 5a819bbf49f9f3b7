"""What a tensor has to do with gradients: leaves, hooks, the walk back."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any, Self

from gpugrad import autograd
from gpugrad.autograd.graph import Node, edge_of, storage_of
from gpugrad.hooks import HookDict
from gpugrad.ops import table
from gpugrad.tensor_info import TensorInfo


class TensorGrad(TensorInfo):
    """The part of Tensor that is about its place in the autograd graph."""

    __slots__ = ()

    @property
    def requires_grad(self) -> bool:
        """Whether operations on it are recorded for differentiation."""
        return self._requires_grad or edge_of(self) is not None

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        self.requires_grad_(value)

    def requires_grad_(self, mode: bool = True) -> Self:
        """Set whether this leaf wants a gradient. Raises RuntimeError for integers and non-leaves."""
        if mode and not self.dtype.is_floating_point:
            raise RuntimeError(
                f"requires_grad: only floating-point tensors can require gradients, not {self.dtype.name}"
            )
        if not mode and not self.is_leaf:
            raise RuntimeError("requires_grad: only of leaf tensors can it be taken back; use .detach()")
        if self.is_leaf:
            self._requires_grad = bool(mode)
        return self

    @property
    def is_leaf(self) -> bool:
        """Whether it was made by the user rather than by a recorded operation."""
        edge = edge_of(self)
        return edge is None or edge is self

    def _is_view(self) -> bool:
        """Whether this tensor shows memory of another one."""
        return self._base is not None

    @property
    def grad_fn(self) -> Node | None:
        """The node that computed it, None for a leaf."""
        edge_of(self)
        return self._node

    @property
    def grad(self) -> Any:
        """The accumulated gradient, None before the first backward."""
        return self._grad

    @grad.setter
    def grad(self, value: Any) -> None:
        if value is not None:
            if not isinstance(value, table.Tensor):
                raise TypeError(f"grad: expected a Tensor or None, got {type(value).__name__}")
            if value.shape != self.shape or value._backend is not self._backend or value.dtype is not self.dtype:
                raise RuntimeError(f"grad: must match the tensor: {table.describe(value)} for {table.describe(self)}")
        self._grad = value

    @grad.deleter
    def grad(self) -> None:
        self._grad = None

    @property
    def data(self) -> Self:
        """The same memory, outside the graph; changes to it are not seen by autograd."""
        out: Self = table.wrap(self._array, self._backend)
        out._offset = self._offset
        return out

    @data.setter
    def data(self, value: Any) -> None:
        if not isinstance(value, table.Tensor):
            raise TypeError(f"data: expected a Tensor, got {type(value).__name__}")
        if self.requires_grad and not value.dtype.is_floating_point:
            raise RuntimeError(f"data: a tensor that requires grad must be floating-point, not {value.dtype.name}")
        self._array = value._array
        self._backend = value._backend
        self._storage = value._storage
        self._offset = value._offset
        self._base = None

    def backward(
        self, gradient: Any = None, retain_graph: bool | None = None, create_graph: bool = False, inputs: Any = None
    ) -> None:
        """Add to the ``.grad`` of the leaves this tensor depends on. ``gradient``: of some scalar with
        respect to this tensor, needed unless it has one element."""
        autograd.backward(self, gradient, retain_graph, create_graph, inputs)

    def detach(self) -> Self:
        """The same memory, outside the graph."""
        out: Self = table.wrap(self._array, self._backend)
        out._storage = storage_of(self)
        out._offset = self._offset
        return out

    def detach_(self) -> Self:
        """Take this tensor out of the graph. Raises RuntimeError for views."""
        if self._base is not None:
            raise RuntimeError(
                f"detach_: this tensor of shape {tuple(self.shape)} is a view and shares its base's graph; use detach()"
            )
        self._node = None
        self._requires_grad = False
        return self

    @property
    def _version(self) -> int:
        return 0 if self._storage is None else self._storage.version

    def register_hook(self, hook: Callable[[Self], Any]) -> Any:
        """Call ``hook(gradient)`` when the gradient of this tensor is computed; what it returns, if
        anything, replaces it. Returns a handle with ``remove()``."""
        edge = edge_of(self)
        if edge is None:
            raise RuntimeError("register_hook: the tensor does not require grad")
        owner = self if edge is self else edge
        attribute = "_hooks" if edge is self else "hooks"
        if getattr(owner, attribute) is None:
            setattr(owner, attribute, HookDict())
        return getattr(owner, attribute).add(hook)

    def retain_grad(self) -> None:
        """Keep the gradient of this non-leaf in ``.grad`` too. Raises RuntimeError for a tensor without a graph."""
        if not self.requires_grad:
            raise RuntimeError(
                f"retain_grad: this tensor of shape {tuple(self.shape)} does not require grad, so it gets no gradient"
            )
        if self.is_leaf:
            return
        held = weakref.ref(self)

        def keep(gradient: Any) -> None:
            tensor = held()
            if tensor is not None:
                tensor._grad = gradient.clone() if tensor._grad is None else tensor._grad + gradient

        keep.tensor = held  # type: ignore[attr-defined]  # for drawings
        self.register_hook(keep)
        self.__dict__["retains_grad"] = True

    def register_post_accumulate_grad_hook(self, hook: Callable[[Self], None]) -> Any:
        """Call ``hook(self)`` after ``.grad`` of this leaf was added to."""
        return self.__dict__.setdefault("_post_hooks", HookDict()).add(hook)
