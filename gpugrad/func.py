"""Functions of functions, as in ``torch.func``: gradients, Jacobians, maps over a batch, and modules as
functions of their parameters.

The transforms nest in any order. Arguments may be tensors or dicts, lists and tuples of them. ``vmap`` calls
the function once for each element of the batch and stacks what it returns: the same values as a batched
call, without its speed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from gpugrad import autograd, random
from gpugrad.absent import missing
from gpugrad.autograd.graph import Node, edge_of
from gpugrad.autograd.modes import enable_grad
from gpugrad.nn.module import Module
from gpugrad.nn.utils.stateless import functional_call
from gpugrad.ops.creation import zeros_like
from gpugrad.ops.joining import stack
from gpugrad.ops.movement import movedim, reshape, select
from gpugrad.tensor import Tensor

__all__ = [
    "functional_call",
    "grad",
    "grad_and_value",
    "hessian",
    "jacfwd",
    "jacrev",
    "jvp",
    "stack_module_state",
    "vjp",
    "vmap",
]

# -- trees of tensors --------------------------------------------------------------------


def _leaves(tree: Any) -> list[Any]:
    """What is not a dict, list or tuple, in order."""
    if isinstance(tree, dict):
        return [leaf for v in tree.values() for leaf in _leaves(v)]
    if isinstance(tree, (list, tuple)):
        return [leaf for v in tree for leaf in _leaves(v)]
    return [tree]


def _rebuilt(tree: Any, leaves: Any) -> Any:
    """``tree`` with its leaves taken from the iterator ``leaves``."""
    if isinstance(tree, dict):
        return type(tree)((k, _rebuilt(v, leaves)) for k, v in tree.items())
    if isinstance(tree, (list, tuple)):
        parts = [_rebuilt(v, leaves) for v in tree]
        return type(tree)(*parts) if hasattr(tree, "_fields") else type(tree)(parts)
    return next(leaves)


def _map(function: Callable[[Any], Any], tree: Any) -> Any:
    return _rebuilt(tree, iter([function(leaf) for leaf in _leaves(tree)]))


# -- gradients ------------------------------------------------------------------------------


def _tracked(x: Any, name: str) -> Any:
    """``x`` as an own place in the graph, connected to where it came from."""
    if not isinstance(x, Tensor) or not x.is_floating_point():
        what = f"a {x.dtype.name} tensor" if isinstance(x, Tensor) else type(x).__name__
        raise RuntimeError(f"{name}: can differentiate with respect to floating-point tensors, not to {what}")
    return x * 1 if x.requires_grad else x.detach().requires_grad_()


def _others_matter(result: Any, own: Sequence[Any]) -> bool:
    """Whether the graph of ``result`` leads to a leaf that is none of ``own`` (of which those that are no
    leaves lead on to what an outer transform tracks)."""
    mine = {id(x) for x in own if x.is_leaf}
    pending, seen = [edge_of(result)], set()
    while pending:
        node = pending.pop()
        if node is None or id(node) in mine or id(node) in seen:
            continue
        seen.add(id(node))
        if not isinstance(node, Node):
            return True
        pending += node.edges
    return False


def _loosened(trees: Any, own: Sequence[Any]) -> Any:
    """Results outside the graph unless they depend on more than what the transform itself tracked."""
    return _map(lambda t: t if not isinstance(t, Tensor) or _others_matter(t, own) else t.detach(), trees)


def _split_arguments(name: str, args: tuple[Any, ...], argnums: Any) -> tuple[list[int], bool]:
    several = isinstance(argnums, (tuple, list))
    places = [n + len(args) if n < 0 else n for n in (argnums if several else (argnums,))]
    if any(not 0 <= n < len(args) for n in places):
        raise RuntimeError(f"{name}: argnums={argnums} names arguments that a call with {len(args)} does not have")
    return places, several


def _with_tracked(name: str, args: tuple[Any, ...], argnums: Any) -> tuple[list[Any], list[Any], bool]:
    """(arguments with those chosen tracked, the trees chosen, whether there are several)."""
    places, several = _split_arguments(name, args, argnums)
    own = list(args)
    for n in places:
        own[n] = _map(lambda x: _tracked(x, name), args[n])
    return own, [own[n] for n in places], several


def _with_respect_to(output: Any, leaves: Sequence[Any], weight: Any = None) -> list[Any]:
    """d(output)/d(leaf) weighted by ``weight``; zeros where there is no connection."""
    if not output.requires_grad:
        return [zeros_like(x) for x in leaves]
    grads = autograd.grad(output, list(leaves), weight, create_graph=True, allow_unused=True)
    return [zeros_like(x) if g is None else g for g, x in zip(grads, leaves, strict=True)]


def grad_and_value(func: Callable[..., Any], argnums: Any = 0, has_aux: bool = False) -> Callable[..., Any]:
    """A function that returns (gradient, value) of ``func``, which returns one number: the gradient with
    respect to argument ``argnums`` (a tuple of gradients for a tuple). With ``has_aux``, ``func`` returns
    (number, anything) and the value is that pair. Raises RuntimeError if the result is no single number."""

    def call(*args: Any, **options: Any) -> Any:
        with enable_grad():
            own, chosen, several = _with_tracked("grad", args, argnums)
            value = func(*own, **options)
            value, aux = value if has_aux else (value, None)
            if not isinstance(value, Tensor) or value.dim() != 0:
                shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
                raise RuntimeError(f"grad: the function must return a 0-d tensor, got {shape}; reduce it, or use vjp")
            leaves = _leaves(chosen)
            slopes = iter(_with_respect_to(value, leaves))
            grads = tuple(_rebuilt(tree, slopes) for tree in chosen)
            grads, value, aux = _loosened((grads, value, aux), leaves)
        return (grads if several else grads[0]), ((value, aux) if has_aux else value)

    return call


def grad(func: Callable[..., Any], argnums: Any = 0, has_aux: bool = False) -> Callable[..., Any]:
    """:func:`grad_and_value` without the value (but with what ``has_aux`` adds)."""
    both = grad_and_value(func, argnums, has_aux)

    def call(*args: Any, **options: Any) -> Any:
        gradient, value = both(*args, **options)
        return (gradient, value[1]) if has_aux else gradient

    return call


def vjp(func: Callable[..., Any], *primals: Any, has_aux: bool = False) -> Any:
    """(output, function from a weight of the output's shape to the tuple of gradients of the weighted sum)."""
    with enable_grad():
        own, chosen, _ = _with_tracked("vjp", primals, tuple(range(len(primals))))
        output = func(*own)
        output, aux = output if has_aux else (output, None)
    leaves = _leaves(chosen)

    def pull(weights: Any) -> Any:
        with enable_grad():
            total = [zeros_like(x) for x in leaves]
            for y, w in zip(_leaves(output), _leaves(weights), strict=True):
                total = [t + g for t, g in zip(total, _with_respect_to(y, leaves, w), strict=True)]
        slopes = iter(_loosened(total, leaves))
        return tuple(_rebuilt(tree, slopes) for tree in chosen)

    shown = _loosened(output, leaves)
    return (shown, pull, aux) if has_aux else (shown, pull)


def jvp(func: Callable[..., Any], primals: Any, tangents: Any, *, has_aux: bool = False) -> Any:
    """(output, its change along ``tangents``), by the gradient of a gradient with respect to its weight."""
    with enable_grad():
        own, chosen, _ = _with_tracked("jvp", tuple(primals), tuple(range(len(primals))))
        output = func(*own)
        output, aux = output if has_aux else (output, None)
        leaves, along = _leaves(chosen), _leaves(tuple(tangents))
        changes = []
        for y in _leaves(output):
            weight = zeros_like(y).requires_grad_()
            slopes = _with_respect_to(y, leaves, weight)
            product = sum((g * t).sum() for g, t in zip(slopes, along, strict=True))
            (change,) = _with_respect_to(product, [weight])
            changes.append(change)
    change = _loosened(_rebuilt(output, iter(changes)), leaves)
    shown = _loosened(output, leaves)
    return (shown, change, aux) if has_aux else (shown, change)


def jacrev(func: Callable[..., Any], argnums: Any = 0, *, has_aux: bool = False, **unused: Any) -> Callable[..., Any]:
    """A function that returns the Jacobian of ``func``: for each output, of shape
    ``output.shape + input.shape``; one backward pass for each number of the output."""

    def call(*args: Any, **options: Any) -> Any:
        with enable_grad():
            own, chosen, several = _with_tracked("jacrev", args, argnums)
            output = func(*own, **options)
            output, aux = output if has_aux else (output, None)
            leaves = _leaves(chosen)

            def rows(y: Any) -> Any:
                flat = reshape(y, -1)
                slopes = [_with_respect_to(select(flat, 0, i), leaves) for i in range(flat.numel())]
                columns = [stack(c) if c else zeros_like(x).expand(0, *x.shape)
                           for c, x in zip(zip(*slopes, strict=True), leaves, strict=True)]  # fmt: skip
                shaped = iter([reshape(c, (*y.shape, *x.shape)) for c, x in zip(columns, leaves, strict=True)])
                parts = tuple(_rebuilt(tree, shaped) for tree in chosen)
                return parts if several else parts[0]

            result, aux = _loosened((_map(rows, output), aux), leaves)
        return (result, aux) if has_aux else result

    return call


#: the same Jacobian; there is no forward mode here, so it costs what :func:`jacrev` costs
jacfwd = jacrev


def hessian(func: Callable[..., Any], argnums: Any = 0) -> Callable[..., Any]:
    """A function that returns the matrix of second derivatives of ``func``."""
    return jacrev(jacrev(func, argnums), argnums)


# -- maps over a batch -------------------------------------------------------------------------


def vmap(
    func: Callable[..., Any], in_dims: Any = 0, out_dims: Any = 0, randomness: str = "error", *, chunk_size: Any = None
) -> Callable[..., Any]:
    """A function that maps ``func`` over dimension ``in_dims`` of its arguments (an int for all of them, or a
    tuple with one for each: an int, None for an argument passed on whole, or a tree of such) and stacks the
    results along ``out_dims``. ``func`` is called once for each element. ``randomness``: "different" draws in
    each call, the "same" draws in all, or an "error" if it draws. Raises ValueError, RuntimeError."""
    if randomness not in ("error", "different", "same"):
        raise RuntimeError(f"vmap: randomness must be error, different or same, not {randomness!r}")

    def call(*args: Any, **options: Any) -> Any:
        dims = _spread(in_dims, args)
        leaves = _leaves(args)
        sizes = {x.shape[d] for x, d in zip(leaves, dims, strict=True) if d is not None}
        if len(sizes) != 1:
            raise ValueError(
                f"vmap: the mapped dimensions must have one size, got {sorted(sizes)}"
                if sizes
                else "vmap: in_dims maps over no argument"
            )
        results = []
        before = random.get_rng_state()
        for i in range(sizes.pop()):
            if randomness == "same":
                random.set_rng_state(before)
            slices = [x if d is None else select(x, d, i) for x, d in zip(leaves, dims, strict=True)]
            results.append(func(*_rebuilt(args, iter(slices)), **options))
            if randomness == "error" and random.get_rng_state() != before:
                raise RuntimeError("vmap: the function draws random numbers; say randomness='different' or 'same'")
        if not results:
            raise RuntimeError("vmap: the mapped dimension has size 0, so the shape of the result is not known")
        return _stacked_results(results, out_dims)

    return call


def _spread(in_dims: Any, tree: Any) -> list[Any]:
    """One mapped dimension, or None, for each leaf of ``tree``."""
    if in_dims is None or isinstance(in_dims, int):
        return [in_dims if isinstance(leaf, Tensor) else None for leaf in _leaves(tree)]
    values = list(tree.values()) if isinstance(tree, dict) else list(tree)
    parts = list(in_dims.values()) if isinstance(in_dims, dict) else list(in_dims)
    if len(values) != len(parts):
        raise ValueError(f"vmap: in_dims {in_dims} has {len(parts)} entries for {len(values)} arguments")
    return [d for part, value in zip(parts, values, strict=True) for d in _spread(part, value)]


def _stacked_results(results: list[Any], out_dims: Any) -> Any:
    first = results[0]
    dims = list(out_dims) if isinstance(out_dims, (tuple, list)) else None
    columns = []
    for n, column in enumerate(zip(*(_leaves(r) for r in results), strict=True)):
        if not all(isinstance(x, Tensor) for x in column):
            raise ValueError(f"vmap: the function must return tensors, got {type(column[0]).__name__}")
        columns.append(movedim(stack(list(column)), 0, dims[n] if dims is not None else out_dims))
    return _rebuilt(first, iter(columns))


# -- modules ---------------------------------------------------------------------------------------


def stack_module_state(models: Sequence[Module]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Parameters and buffers of several modules of one class, each stacked along a new first dimension: two dicts by
    dotted name. Raises RuntimeError."""
    models = list(models)
    if not models:
        raise RuntimeError("stack_module_state: expected at least one model, got none")
    if len({m.training for m in models}) > 1:
        raise RuntimeError("stack_module_state: the models must all be in training or all in evaluation")
    if any(type(m) is not type(models[0]) for m in models):
        names = ", ".join(sorted({type(m).__name__ for m in models}))
        raise RuntimeError(f"stack_module_state: the models must be of one class, got {names}")
    parameters = [dict(m.named_parameters()) for m in models]
    buffers = [dict(m.named_buffers()) for m in models]
    return _stacked(parameters), _stacked(buffers)


def _stacked(tables: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    result = {}
    for name in tables[0]:
        tensors = [table[name] for table in tables]
        wanted = {t.requires_grad for t in tensors}
        if len(wanted) > 1:
            raise RuntimeError(f"stack_module_state: '{name}' requires gradients in some of the models only")
        result[name] = stack([t.detach() for t in tensors]).requires_grad_(wanted.pop())
    return result


__getattr__ = missing("func")
