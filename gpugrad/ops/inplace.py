"""In-place operations: what they may change, how the change is counted, how it enters the history."""

from __future__ import annotations

from typing import Any

from gpugrad import layout
from gpugrad.autograd.graph import Node, edge_of, set_view_refresh, storage_of
from gpugrad.autograd.modes import mode
from gpugrad.ops.table import OPS, Op, OpNode, record
from gpugrad.ops.table import _edges as table_edges


def check_inplace(name: str, x: Any) -> Any:
    """The edge of ``x`` if in-place ``name`` may change it now. Raises RuntimeError for a leaf
    that requires grad (or a view of one) while recording, and for self-overlapping memory."""
    array = x._array
    if 0 in array.strides and layout.may_overlap_itself(array.shape, array.strides):
        raise RuntimeError(
            f"{name}: the tensor of shape {tuple(array.shape)} is expanded, several of its elements share one memory "
            "location; clone() it before changing it in place"
        )
    if not mode.enabled:
        return None
    base = x._base
    root = x if base is None else base
    if root._requires_grad and root._node is None:
        what = "a leaf" if base is None else "a view of a leaf"
        raise RuntimeError(
            f"{name}: {what} that requires grad cannot be changed in place; do it inside no_grad(), or out of place"
        )
    return edge_of(x)


def changed(name: str, x: Any) -> None:
    """Note that ``name`` wrote into the memory of ``x``."""
    storage = x._storage
    if storage is None:
        storage = storage_of(x)
    storage.version += 1
    storage.changed_by = name


def rewrite(x: Any, node: Node) -> None:
    """``node`` now computes the value of ``x``, which was changed in place.

    If ``x`` is a view, its base is the old base with the new value written into that place,
    and ``x`` (like every other view of the base) is read from it again."""
    base = x._base
    if base is None:
        x._node = node
        x._requires_grad = False
        x._generation += 1
        return
    place = geometry_in_base(x, base)
    array = base._array
    meta = ((array.shape, array.dtype), (x._array.shape, x._array.dtype))
    base._node = OpNode(OPS["as_strided_scatter"], (edge_of(base), node), (), place, meta, base._backend)
    base._generation += 1


def geometry_in_base(x: Any, base: Any) -> dict[str, Any]:
    """Parameters of ``as_strided`` that give the view ``x`` from its base."""
    return {
        "shape": x._array.shape,
        "strides": x._array.strides,
        "offset": x._offset - base._offset,
        "base_strides": base._array.strides,
    }


def _refresh_view(x: Any) -> None:
    base = x._base
    if base._storage is not x._storage:  # the base moved to other memory, which x does not show
        x._base, x._generation = None, 0
        return
    edge = edge_of(base)
    x._generation = base._generation
    if edge is None:
        x._node = None
    else:
        array = base._array
        params = geometry_in_base(x, base)
        x._node = OpNode(OPS["as_strided"], (edge,), (), params, ((array.shape, array.dtype),), base._backend)


set_view_refresh(_refresh_view)


def write(name: str, x: Any, source: Any) -> Any:
    """In place ``x[...] = source`` for a tensor ``source`` that broadcasts to ``x``: the one way by
    which in-place forms of non-elementwise ops store their result. Returns x."""
    edge = check_inplace(name, x)
    source_edge = edge_of(source) if mode.enabled else None
    x._backend.copy(source._array, out=x._array)
    changed(name, x)
    if edge is not None or source_edge is not None:
        overwritten(x, edge, source, source_edge)
    return x


def overwritten(x: Any, edge: Any, source: Any = None, source_edge: Any = None) -> None:
    """The history of ``x`` after all its elements were replaced by ``source`` (None: constants):
    what it was before gets a gradient of zeros."""
    meta = [(x._array.shape, x._array.dtype)] * 2
    if source is not None:
        meta[0] = (source._array.shape, source._array.dtype)
    rewrite(x, OpNode(OPS["overwrite"], (source_edge, edge), (), {}, tuple(meta), x._backend))


def constant_in(x: Any, out: Any) -> Any:
    """``out``, a new tensor of the shape of ``x`` that does not depend on the values of ``x``. As in PyTorch it has a
    graph all the same, which gives ``x`` a gradient of zeros."""
    edges = table_edges((out, x))
    if edges is not None and edges[1] is not None:
        record(OPS["overwrite"], out, (out, x), edges, {})
    return out


def _zeros(g: Any) -> Any:
    from gpugrad.ops.creation import zeros_like

    return zeros_like(g)


Op("overwrite", "elementwise", (lambda g: g, _zeros))
