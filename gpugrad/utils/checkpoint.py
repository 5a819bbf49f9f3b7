"""``torch.utils.checkpoint``: parts of a model whose intermediate values are computed again for the gradient instead
of being kept (Chen et al., "Training deep nets with sublinear memory cost", 2016)."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from gpugrad import autograd, random
from gpugrad.amp.autocast_mode import settings
from gpugrad.autograd.graph import Node
from gpugrad.tensor import Tensor

__all__ = ["CheckpointError", "checkpoint", "checkpoint_sequential", "noop_context_fn"]


class CheckpointError(RuntimeError):
    """The second computation did not give what the first gave."""


def noop_context_fn() -> tuple[Any, Any]:
    """Two contexts that do nothing."""
    return contextlib.nullcontext(), contextlib.nullcontext()


def _leaves(outputs: Iterable[Tensor]) -> list[Tensor]:
    """The leaf tensors whose gradients the graph of ``outputs`` leads to."""
    found: dict[int, Tensor] = {}
    seen: set[int] = set()
    todo: list[Any] = [x.grad_fn if x.grad_fn is not None else x for x in outputs if x.requires_grad]
    while todo:
        edge = todo.pop()
        if edge is None or id(edge) in seen:
            continue
        seen.add(id(edge))
        if isinstance(edge, Node):
            todo.extend(edge.edges)
        else:
            found[id(edge)] = edge
    return list(found.values())


@contextlib.contextmanager
def _without_hooks(leaves: Iterable[Any]) -> Iterator[None]:
    """The hooks of ``leaves`` are to see the whole gradient, which arrives after this walk inside the walk."""
    kept = [(leaf, leaf._hooks) for leaf in leaves]
    for leaf, _ in kept:
        leaf._hooks = None
    try:
        yield
    finally:
        for leaf, hooks in kept:
            leaf._hooks = hooks


class _Again(autograd.Function):
    """Gives results computed before; for the gradients, ``run`` computes them again."""

    @staticmethod
    def forward(ctx: Any, run: Callable[..., Any], results: list[Tensor], count: int, *tensors: Tensor) -> Any:
        ctx.run, ctx.count = run, count
        ctx.leaves = tensors[count:]  # themselves: what is saved comes back as another tensor
        ctx.save_for_backward(*tensors[:count])
        ctx.set_materialize_grads(False)
        ctx.shapes = [tuple(r.shape) for r in results]
        ctx.mark_non_differentiable(*(r for r in results if not r.dtype.is_floating_point))
        return tuple(results)

    @staticmethod
    @autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Any) -> Any:
        saved = ctx.saved_tensors
        needed = ctx.needs_input_grad[3 : 3 + ctx.count]
        inputs = [x.detach().requires_grad_(n) for x, n in zip(saved, needed, strict=True)]
        with autograd.enable_grad():
            results = ctx.run(inputs)
        if [tuple(r.shape) for r in results] != ctx.shapes:
            raise CheckpointError(
                f"checkpoint: the second computation gave shapes {[tuple(r.shape) for r in results]}, the first "
                f"{ctx.shapes}; the function must do the same each time"
            )
        wanted = [*(x for x in inputs if x.requires_grad), *ctx.leaves]
        pairs = [(r, g) for r, g in zip(results, gradients, strict=True) if g is not None and r.requires_grad]
        found: list[Any] = [None] * len(wanted)
        if pairs and wanted:
            roots, given = zip(*pairs, strict=True)
            with _without_hooks(ctx.leaves):
                found = list(autograd.grad(roots, wanted, given, retain_graph=True, allow_unused=True))
        own = iter(found)
        return (None, None, None, *(next(own) if x.requires_grad else None for x in inputs), *own)


def checkpoint(
    function: Callable[..., Any],
    *args: Any,
    use_reentrant: bool | None = None,
    context_fn: Callable[[], tuple[Any, Any]] = noop_context_fn,
    determinism_check: str = "default",
    debug: bool = False,
    early_stop: bool = True,
    **kwargs: Any,
) -> Any:
    """``function(*args, **kwargs)``, a tensor or a tuple with tensors, of which only inputs and outputs are kept: the
    backward pass runs ``function`` again, under the same random state (``preserve_rng_state=True``).

    ``function`` must compute the same each time. Parameters that it uses get gradients as well; with
    ``use_reentrant=True`` only if one of the arguments requires a gradient, as in PyTorch. ``context_fn`` gives two
    contexts, for the first and the second run. ``debug``, ``early_stop`` and ``determinism_check`` change nothing: the
    shapes of the results are compared always. Raises ValueError for unknown keywords of the reentrant form,
    CheckpointError where shapes differ. Second derivatives are not defined through it (RuntimeError)."""
    preserve = kwargs.pop("preserve_rng_state", True)
    if use_reentrant is None:
        warnings.warn("checkpoint: pass use_reentrant=False (or True) explicitly; True is assumed", stacklevel=2)
        use_reentrant = True
    if use_reentrant and kwargs:
        raise ValueError(f"checkpoint: unknown keywords {sorted(kwargs)}; use_reentrant=False passes them on")
    first, second = context_fn()
    if not autograd.is_grad_enabled():
        with first:
            return function(*args, **kwargs)
    places = [i for i, a in enumerate(args) if isinstance(a, Tensor)]
    tensors = [args[i] for i in places]
    if use_reentrant and not any(x.requires_grad for x in tensors):
        warnings.warn("checkpoint: no input requires a gradient, so none flows to what is inside", stacklevel=2)
        with first, autograd.no_grad():
            return function(*args, **kwargs)
    # Asked for only where needed: a compiled step cannot repeat it.
    state = random.get_rng_state() if preserve else None
    casts = settings()  # autocast as it is now

    def call(inputs: list[Tensor]) -> Any:
        values = list(args)
        for i, x in zip(places, inputs, strict=True):
            values[i] = x
        return function(*values, **kwargs)

    def run(inputs: list[Tensor]) -> list[Tensor]:
        before = random.get_rng_state() if preserve else None
        if state is not None:
            random.set_rng_state(state)
        try:
            with second, casts:
                out = call(inputs)
        finally:
            if before is not None:
                random.set_rng_state(before)
        return [r for r in (out if isinstance(out, tuple) else (out,)) if isinstance(r, Tensor)]

    with first:  # recorded, to learn which parameters are used; that graph is dropped on return
        inputs = [x.detach().requires_grad_(x.requires_grad) for x in tensors]
        out = call(inputs)
    parts = list(out) if isinstance(out, tuple) else [out]
    results = [r for r in parts if isinstance(r, Tensor)]
    own = {id(x) for x in inputs}
    leaves = [x for x in _leaves(results) if id(x) not in own]
    again = iter(_Again.apply(run, [r.detach() for r in results], len(inputs), *tensors, *leaves))
    parts = [next(again) if isinstance(r, Tensor) else r for r in parts]
    return tuple(parts) if isinstance(out, tuple) else parts[0]


def checkpoint_sequential(
    functions: Any, segments: int, input: Any, use_reentrant: bool | None = None, **kwargs: Any
) -> Any:
    """The modules of a Sequential (or a list of functions) one after the other, in ``segments`` parts of which all but
    the last are checkpointed."""
    preserve = kwargs.pop("preserve_rng_state", True)
    if kwargs:
        raise ValueError(f"checkpoint_sequential: unknown keywords {sorted(kwargs)}")
    if use_reentrant is None:
        warnings.warn(
            "checkpoint_sequential: pass use_reentrant=False (or True) explicitly; True is assumed", stacklevel=2
        )
        use_reentrant = True
    steps = list(functions.children()) if hasattr(functions, "children") else list(functions)

    def part(start: int, stop: int) -> Callable[[Any], Any]:
        def run(x: Any) -> Any:
            for step in steps[start:stop]:
                x = step(x)
            return x

        return run

    size = len(steps) // segments
    for i in range(segments - 1):
        piece = part(i * size, (i + 1) * size)
        input = checkpoint(piece, input, use_reentrant=use_reentrant, preserve_rng_state=preserve)
    return part((segments - 1) * size, len(steps))(input)
