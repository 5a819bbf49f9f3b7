"""Views that together make up a tensor: their gradients are joined once.

As views with a node each, every one of n parts would fill the whole shape with zeros to put its gradient
there, and n of them would be added: a cost of n times the tensor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from gpugrad import layout
from gpugrad.autograd.graph import Node, Slot, edge_of
from gpugrad.autograd.modes import mode
from gpugrad.ops import table
from gpugrad.ops.creation import zeros
from gpugrad.ops.joining import cat, stack


class _Parts(Node):
    """Made views along ``dim`` that do not overlap and leave nothing out."""

    __slots__ = ("title", "dim", "join", "meta", "backend")

    def __init__(self, edge: Any, name: str, dim: int, join: Callable[..., Any], views: Sequence[Any]) -> None:
        Node.__init__(self, (edge,))
        self.title = name
        self.dim = dim
        self.join = join
        self.meta = [(v._array.shape, v.dtype) for v in views]
        self.backend = views[0]._backend

    def apply(self, gradient: Any, create_graph: bool) -> tuple[Any, ...]:
        device = table.device_of(self.backend)
        parts = gradient.of
        whole = [
            parts[i] if i in parts else zeros(shape, dtype=dtype, device=device)
            for i, (shape, dtype) in enumerate(self.meta)
        ]
        return (self.join(whole, self.dim),)


def _views(x: Any, d: int, indices: Iterable[Any], name: str, join: Callable[..., Any]) -> tuple[Any, ...]:
    array = x._array
    lead = (slice(None),) * d
    views = tuple(
        table.make_view(x, *layout.basic_index(array.shape, array.strides, (*lead, index))) for index in indices
    )
    edge = edge_of(x) if mode.enabled and views else None
    if edge is not None:
        node = _Parts(edge, name, d, join, views)
        for i, view in enumerate(views):
            view._node = Slot(node, i)
    return views


def consecutive(x: Any, sizes: Iterable[int], dim: int, name: str = "split") -> tuple[Any, ...]:
    """Views of as many elements along ``dim`` as ``sizes`` say, which add up to its size."""
    slices, start = [], 0
    for n in sizes:
        slices.append(slice(start, start + n))
        start += n
    return _views(x, layout.normalize_axis(dim, x._array.ndim, name), slices, name, cat)


def elements(x: Any, dim: int) -> tuple[Any, ...]:
    """Views of the elements along ``dim``, which they lack."""
    d = layout.normalize_axis(dim, x._array.ndim, "unbind")
    return _views(x, d, range(x._array.shape[d]), "unbind", stack)
