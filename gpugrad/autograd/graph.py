"""What differentiation knows of a tensor, and the nodes of the graph.

A :class:`Variable` holds an array and its place in the graph. A :class:`Node` stands for
one recorded operation and points to the nodes of its inputs (``edges``); a leaf that
requires a gradient is its own edge. A node never refers to its own output, so when the
last tensor that leads to a graph goes, reference counting alone frees the graph.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

#: the numbers of nodes, in the order of their creation
sequence: Iterator[int] = count(1)

#: what is called with every new node: empty, or the one function of ``autograd/anomaly.py``
on_new_node: list[Callable[[Node], None]] = []


class Storage:
    """What tensors that share memory share: how often it was written in place, and by whom."""

    __slots__ = ("version", "changed_by", "nbytes")

    def __init__(self, nbytes: int) -> None:
        self.version = 0
        self.changed_by = ""
        self.nbytes = nbytes


class Variable:
    """An array of a backend with its place in the graph: what every tensor is.

    ``Variable(tensor, requires_grad=False)``, as old PyTorch programs have it, is a tensor of the same memory outside
    the graph. Raises TypeError for what is not a tensor.

    ``_base``: the tensor that this one is a view of (never itself a view), else None.
    ``_offset``: bytes from the start of the storage. ``_generation``: of a base, how often an
    in-place operation rewrote its history; of a view, which of those its node reflects."""

    __slots__ = (
        "_array",
        "_backend",
        "_requires_grad",
        "_grad",
        "_node",
        "_storage",
        "_base",
        "_offset",
        "_generation",
        "_hooks",
        "__dict__",
        "__weakref__",
    )

    _array: Any
    _backend: Any
    _requires_grad: bool
    _grad: Any
    _node: Node | None
    _storage: Storage | None
    _base: Any
    _offset: int
    _generation: int
    _hooks: dict[int, Callable[..., Any]] | None

    _ends_here = True  # as an edge: the walk asks this of every edge, and isinstance costs three times as much

    def __new__(cls, data: Any, requires_grad: bool = False) -> Any:
        if not isinstance(data, Variable):
            raise TypeError(
                f"Variable: expected a Tensor, got {type(data).__name__}; make one with gpugrad.tensor(...)"
            )
        alias: Any = data.detach()  # type: ignore[attr-defined]
        return alias.requires_grad_(requires_grad)


class Node:
    """One recorded operation. Subclasses define ``apply`` and may hold saved values."""

    __slots__ = ("edges", "sequence", "hooks", "__weakref__")

    #: What the operation is called in error messages and drawings.
    title = "node"
    edges: tuple[Node | Variable | None, ...]
    hooks: dict[int, Callable[..., Any]] | None

    _ends_here = False

    def __init__(self, edges: tuple[Node | Variable | None, ...]) -> None:
        self.edges = edges
        self.sequence = next(sequence)
        self.hooks = None
        if on_new_node:
            on_new_node[0](self)

    def apply(self, gradient: Any, create_graph: bool) -> tuple[Any, ...]:
        """Gradients with respect to the inputs, one for each edge (None where there is none)."""
        raise NotImplementedError

    def release(self) -> None:
        """Drop saved values: the graph will not be walked again."""

    def owns_result(self) -> bool:
        """Whether gradients from ``apply`` belong to nobody else (unless they share memory
        with the incoming one), so that the engine may keep them without a copy."""
        return True

    @property
    def next_functions(self) -> tuple[tuple[Node | None, int], ...]:
        """PyTorch's name for the edges."""
        return tuple((e if isinstance(e, Node) else AccumulateGrad(e) if e is not None else None, 0)
                     for e in self.edges)  # fmt: skip

    def name(self) -> str:
        """PyTorch's name for such a node: ``AddBackward0`` of an addition."""
        from gpugrad.autograd.naming import node_name

        meta = getattr(self, "meta", ())
        ndim = len(meta[0][0]) if meta and meta[0] is not None else 0
        return node_name(self.title, getattr(self, "params", {}), ndim)

    def __repr__(self) -> str:
        return f"<{self.name()} object at {id(self):#x}>"


class AccumulateGrad(Node):
    """Passes a gradient on to a leaf: lets a value saved from a leaf be differentiated again."""

    __slots__ = ()
    title = "accumulate"

    def __init__(self, leaf: Variable | None) -> None:
        super().__init__((leaf,))

    @property
    def variable(self) -> Any:
        """The leaf."""
        return self.edges[0]

    @property
    def next_functions(self) -> tuple[tuple[Node | None, int], ...]:
        """None: the graph ends at a leaf."""
        return ()

    def apply(self, gradient: Any, create_graph: bool) -> tuple[Any, ...]:
        return (gradient,)


class Parts:
    """The gradients of a node's several outputs, by output number; they add up entrywise."""

    __slots__ = ("of",)

    def __init__(self, of: dict[int, Any]) -> None:
        self.of = of

    def __add__(self, other: Parts) -> Parts:
        merged = dict(self.of)
        for i, g in other.of.items():
            merged[i] = merged[i] + g if i in merged else g
        return Parts(merged)


class Slot(Node):
    """Output ``index`` of a node with several outputs: its parent gets :class:`Parts`."""

    __slots__ = ("index",)

    def __init__(self, parent: Node, index: int) -> None:
        super().__init__((parent,))
        self.index = index

    @property
    def title(self) -> str:  # type: ignore[override]
        parent = self.edges[0]
        assert isinstance(parent, Node)
        return parent.title

    def apply(self, gradient: Any, create_graph: bool) -> tuple[Any, ...]:
        return (Parts({self.index: gradient}),)


_refresh: Callable[[Any], None] | None = None


def set_view_refresh(function: Callable[[Any], None]) -> None:
    """``ops`` says here how the node of a view is made anew after its base was rewritten."""
    global _refresh
    _refresh = function


def edge_of(x: Any) -> Node | Variable | None:
    """Where a gradient of ``x`` goes: its node, itself if it is a leaf that wants one, or None."""
    base = x._base
    if base is not None and base._generation != x._generation:
        assert _refresh is not None
        _refresh(x)
    node = x._node
    if node is not None:
        return node
    return x if x._requires_grad else None


def storage_of(x: Any) -> Storage:
    """The storage record of ``x``, made on first use."""
    storage = x._storage
    if storage is None:
        storage = x._storage = Storage(x._array.nbytes)
    return storage
