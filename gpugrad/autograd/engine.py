"""The walk: gradients from outputs back to leaves.

Nodes are taken latest first (a heap on their creation numbers), so every use of a value
has delivered its share before the value's own node runs. The walk is a loop, not a
recursion: a chain of a million nodes needs no stack.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from heapq import heappop, heappush
from typing import Any

from gpugrad.autograd.anomaly import check
from gpugrad.autograd.anomaly import state as anomaly
from gpugrad.autograd.graph import Node, Variable, edge_of
from gpugrad.autograd.modes import mode


def walk(
    roots: Sequence[tuple[Node | Variable, Any]],
    retain_graph: bool,
    create_graph: bool,
    wanted: Sequence[Node | Variable] | None = None,
) -> dict[int, Any]:
    """Propagate the gradients in ``roots``.

    Without ``wanted`` leaves accumulate into ``.grad``. With it nothing is accumulated;
    the result maps ``id(edge)`` to the gradient of each wanted edge reached."""
    before = mode.enabled, mode.autocast
    mode.enabled, mode.autocast = create_graph, False  # gradients keep the dtypes of the way there
    try:
        return _walk(roots, retain_graph, create_graph, wanted)
    finally:
        mode.enabled, mode.autocast = before


def _walk(
    roots: Sequence[tuple[Node | Variable, Any]],
    retain_graph: bool,
    create_graph: bool,
    wanted: Sequence[Node | Variable] | None,
) -> dict[int, Any]:
    pending: dict[int, Any] = {}  # minus the sequence number of a node in the heap -> its gradient so far
    heap: list[tuple[int, Node]] = []
    leaves: dict[int, tuple[Any, Any, Any]] = {}  # id -> leaf, gradient, whether it is ours (True, _SUM)
    captured: dict[int, Any] = {}
    capture_ids = {id(e) for e in wanted} if wanted is not None else None
    useful = _reaching([n for n, _ in roots], capture_ids) if capture_ids is not None else None
    # A chain needs no heap: while one node alone is waiting, it waits in ``node``, with ``gradient``.
    node: Any = None
    gradient: Any = None
    source: Any = None  # the node whose gradients arrive
    arriving: Sequence[Any] = [g for _, g in roots]
    edges: Sequence[Any] = [edge for edge, _ in roots]

    while True:
        incoming = gradient
        for edge, g in zip(edges, arriving):  # noqa: B905  # strict costs as much as the loop
            if edge is None or g is None:
                continue
            if edge._ends_here:
                if capture_ids is None or id(edge) in capture_ids:
                    # A view op gives its result a storage record; so does a saved value.
                    own = source is not None and g is not incoming and g._storage is None and source.owns_result()
                    held = leaves.get(id(edge))
                    if held is None:
                        leaves[id(edge)] = (edge, g, own)
                    else:
                        leaves[id(edge)] = (edge, _added(held[1], g, held[2] is _SUM, create_graph), _SUM)
            elif node is None and not heap:
                node, gradient = edge, g
            elif edge is node:
                gradient = gradient + g
            else:
                if node is not None:
                    pending[-node.sequence] = gradient
                    heappush(heap, (-node.sequence, node))
                    node = None
                number = -edge.sequence
                if number in pending:
                    pending[number] = pending[number] + g
                else:
                    pending[number] = g
                    heappush(heap, (number, edge))
        if node is not None:
            source, node = node, None
        elif heap:
            number, source = heappop(heap)
            gradient = pending.pop(number)
        else:
            break
        if source.hooks:
            gradient = _run_hooks(source.hooks, gradient)
        if capture_ids is not None:
            if id(source) in capture_ids:
                captured[id(source)] = gradient
            assert useful is not None
            if source.sequence not in useful:
                edges = ()
                continue
        edges = source.edges
        arriving = source.apply(gradient, create_graph)
        if anomaly.checking:
            check(source, arriving)
        if not retain_graph:
            source.release()

    for leaf, gradient, owned in leaves.values():
        if capture_ids is None and not leaf._requires_grad:
            continue  # frozen since the graph was made
        if leaf._hooks:
            gradient, owned = _run_hooks(leaf._hooks, gradient), False
        if capture_ids is not None:
            captured[id(leaf)] = gradient
        else:
            _accumulate(leaf, gradient, owned, create_graph)
    return captured


_SUM = "sum"  # made here: nobody but the walk has seen it


def _added(held: Any, gradient: Any, is_sum: bool, create_graph: bool) -> Any:
    """The sum of two gradients of a leaf, in the memory of the first one if that is a sum already."""
    if not is_sum or create_graph or held._array.shape != gradient._array.shape:
        return held + gradient
    held.accumulate_(gradient)
    return held


_turn = threading.Lock()  # walks in several threads may end at one leaf


def _accumulate(leaf: Any, gradient: Any, owned: bool, create_graph: bool) -> None:
    with _turn:
        _add_to_grad(leaf, gradient, owned, create_graph)
    attributes = leaf.__dict__
    if attributes and "_post_hooks" in attributes:
        for hook in list(attributes["_post_hooks"].values()):
            hook(leaf)


def _add_to_grad(leaf: Any, gradient: Any, owned: bool, create_graph: bool) -> None:
    if leaf._grad is None:
        # A clone is contiguous, and nobody else's: in-place changes of one .grad must not show in another.
        if owned and gradient.is_contiguous():
            leaf._grad = gradient
        elif create_graph:
            leaf._grad = gradient.clone()
        else:
            leaf._grad = gradient._wrap(gradient._backend.copy(gradient._array), gradient._backend)
    elif create_graph:
        leaf._grad = leaf._grad + gradient
    else:
        leaf._grad.accumulate_(gradient)


def _free_in_child() -> None:
    """A forked process has not the thread that may have held it."""
    global _turn
    _turn = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_free_in_child)


def _run_hooks(hooks: dict[int, Callable[..., Any]], gradient: Any) -> Any:
    for hook in list(hooks.values()):
        result = hook(gradient)
        if result is not None:
            gradient = result
    return gradient


def _reaching(roots: Sequence[Node | Variable], targets: set[int]) -> set[int]:
    """Sequence numbers of the nodes from which some edge leads on to a target."""
    order: list[Node] = []
    seen: set[int] = set()
    stack = [n for n in roots if isinstance(n, Node)]
    while stack:
        node = stack.pop()
        if node.sequence in seen:
            continue
        seen.add(node.sequence)
        order.append(node)
        stack.extend(e for e in node.edges if isinstance(e, Node) and e.sequence not in seen)
    useful: set[int] = set()
    for node in sorted(order, key=lambda n: n.sequence):  # inputs before the nodes that use them
        for e in node.edges:
            if e is not None and (id(e) in targets or (isinstance(e, Node) and e.sequence in useful)):
                useful.add(node.sequence)
                break
    return useful


def _root_gradients(outputs: Sequence[Any], gradients: Sequence[Any], what: str) -> list[tuple[Any, Any]]:
    roots = []
    for y, g in zip(outputs, gradients, strict=True):
        edge = edge_of(y)
        if edge is None:
            raise RuntimeError(
                f"{what}: the tensor of shape {tuple(y.shape)} does not require grad and has no graph behind it; "
                "set requires_grad=True on what it is computed from, outside no_grad()"
            )
        if g is None:
            if y._array.size != 1:
                raise RuntimeError(
                    f"{what}: a gradient can be made up only for a tensor of one element, this one has shape "
                    f"{tuple(y.shape)}; reduce it (for instance .sum()) or pass gradient="
                )
            if not y.dtype.is_floating_point:
                raise RuntimeError(f"{what}: only floating-point tensors have gradients, not {y.dtype}")
            g = y.ones_like_root()
        else:
            if tuple(g.shape) != tuple(y.shape):
                raise RuntimeError(f"{what}: the gradient has shape {tuple(g.shape)}, the tensor {tuple(y.shape)}")
            if g._backend is not y._backend:
                raise RuntimeError(
                    f"{what}: the gradient is on {g.device}, the tensor on {y.device}; move it with .to()"
                )
            if g.dtype is not y.dtype:
                g = g.to(y.dtype)
        roots.append((edge, g))
    return roots


def backward(
    tensors: Any,
    grad_tensors: Any = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    inputs: Any = None,
) -> None:
    """Add to the ``.grad`` of every leaf that ``tensors`` depend on.

    ``grad_tensors``: gradients with respect to ``tensors`` (None for one-element tensors).
    ``inputs``: restrict the accumulation to these leaves. Raises RuntimeError for a
    non-scalar without a gradient, and for a graph already freed."""
    outputs = _as_list(tensors)
    gradients = _as_list(grad_tensors) if grad_tensors is not None else [None] * len(outputs)
    if len(gradients) != len(outputs):
        raise RuntimeError(f"backward: {len(outputs)} tensors but {len(gradients)} gradients")
    keep = create_graph if retain_graph is None else retain_graph
    roots = _root_gradients(outputs, gradients, "backward")
    if inputs is None:
        walk(roots, keep, create_graph)
        return
    chosen = _as_list(inputs)
    edges = [edge_of(x) for x in chosen]
    if not chosen or any(e is None for e in edges):
        raise RuntimeError("backward: inputs must be tensors that require grad, and at least one")
    found = walk(roots, keep, create_graph, [e for e in edges if e is not None])
    for x, e in zip(chosen, edges, strict=True):
        if id(e) in found:
            _accumulate(x, found[id(e)], False, create_graph)


def grad(
    outputs: Any,
    inputs: Any,
    grad_outputs: Any = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    only_inputs: bool = True,
    allow_unused: bool | None = None,
    is_grads_batched: bool = False,
    materialize_grads: bool = False,
) -> tuple[Any, ...]:
    """One gradient per input, that of all ``outputs`` added up; ``.grad`` is left alone (``only_inputs``, from old
    programs, changes nothing).

    With ``is_grads_batched`` each of ``grad_outputs`` holds several gradients along a first dimension, and so does each
    result: a walk for each. Raises RuntimeError where an input does not require grad or, unless ``allow_unused`` (then
    None) or ``materialize_grads`` (then zeros), was not used; ValueError for ``allow_unused=False`` with
    ``materialize_grads``."""
    if materialize_grads and allow_unused is False:
        raise ValueError("grad: materialize_grads turns unused inputs into zeros; leave out allow_unused=False")
    ys, xs = _as_list(outputs), _as_list(inputs)
    gs = _as_list(grad_outputs) if grad_outputs is not None else [None] * len(ys)
    if not xs:
        raise RuntimeError("grad: inputs must not be empty")
    if len(gs) != len(ys):
        raise RuntimeError(f"grad: {len(ys)} outputs but {len(gs)} grad_outputs")
    if is_grads_batched:
        options = (create_graph, True, allow_unused, False, materialize_grads)
        return _batched_grad(ys, xs, gs, retain_graph or create_graph, *options)
    edges = []
    for i, x in enumerate(xs):
        edge = edge_of(x)
        if edge is None:
            raise RuntimeError(f"grad: input {i} of shape {tuple(x.shape)} does not require grad")
        edges.append(edge)
    keep = create_graph if retain_graph is None else retain_graph
    found = walk(_root_gradients(ys, gs, "grad"), keep, create_graph, edges)
    result = []
    for i, (x, e) in enumerate(zip(xs, edges, strict=True)):
        g = found.get(id(e))
        if g is None and materialize_grads:
            g = x.detach().new_zeros(x.shape)
        if g is None and not allow_unused:
            raise RuntimeError(
                f"grad: input {i} of shape {tuple(x.shape)} was not used in computing the outputs; "
                "pass allow_unused=True to get None for it"
            )
        result.append(g)
    return tuple(result)


def _batched_grad(ys: list[Any], xs: list[Any], gs: list[Any], retain_graph: bool, *options: Any) -> tuple[Any, ...]:
    from gpugrad.autograd.functional import stack  # it is made of what is here

    sizes = {g.shape[0] for g in gs if g is not None and g.ndim}
    if len(sizes) != 1 or any(g is None or not g.ndim for g in gs):
        raise RuntimeError(
            "grad: with is_grads_batched every one of grad_outputs must be a tensor with the same first size, got "
            f"{[None if g is None else tuple(g.shape) for g in gs]}"
        )
    count = sizes.pop()
    if not count:
        raise RuntimeError("grad: with is_grads_batched there must be at least one gradient")
    rows = [grad(ys, xs, [g[i] for g in gs], retain_graph or i + 1 < count, *options) for i in range(count)]
    return tuple(None if column[0] is None else stack(column) for column in zip(*rows, strict=True))


def _as_list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [value]
