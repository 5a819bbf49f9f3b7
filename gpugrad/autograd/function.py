"""Operations whose derivative the user writes: ``Function`` with ``forward`` and ``backward``."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from gpugrad.autograd.graph import AccumulateGrad, Node, Parts, Slot, Variable, edge_of, storage_of
from gpugrad.autograd.modes import mode, no_grad


class FunctionCtx:
    """Carries values from ``forward`` to ``backward``. Any attribute may be set on it."""

    def __init__(self) -> None:
        self.needs_input_grad: tuple[bool, ...] = ()
        self._to_save: tuple[Any, ...] = ()
        self._non_differentiable: tuple[Any, ...] = ()
        self._dirty: tuple[Any, ...] = ()
        self._materialize = True
        self._unpack: Callable[[], tuple[Any, ...]] | None = None

    def save_for_backward(self, *tensors: Any) -> None:
        """Keep inputs or outputs for ``backward``; a later in-place change is detected."""
        self._to_save = tensors

    @property
    def saved_tensors(self) -> tuple[Any, ...]:
        """What :meth:`save_for_backward` kept. Raises RuntimeError if freed or changed in place."""
        if self._unpack is None:
            return self._to_save
        return self._unpack()

    def mark_non_differentiable(self, *outputs: Any) -> None:
        """These outputs get no graph."""
        self._non_differentiable = outputs

    def mark_dirty(self, *inputs: Any) -> None:
        """These inputs were changed in place by ``forward`` and are returned by it."""
        self._dirty = inputs

    def set_materialize_grads(self, value: bool) -> None:
        """Whether ``backward`` sees zeros (default) or None for outputs without gradient."""
        self._materialize = value


class _FunctionNode(Node):
    __slots__ = ("function", "ctx", "saved", "outputs", "freed", "title", "positions", "inputs")

    def __init__(self, edges: tuple[Any, ...], function: type[Function], ctx: FunctionCtx) -> None:
        super().__init__(edges)
        self.function = function
        self.ctx = ctx
        self.title = function.__name__
        self.freed = False
        self.saved: tuple[Any, ...] = ()
        self.outputs: list[tuple[tuple[int, ...], Any, Any]] = []
        self.positions: tuple[int, ...] = ()
        self.inputs: tuple[tuple[tuple[int, ...], Any, Any], ...] = ()  # shape, dtype and backend of each

    def owns_result(self) -> bool:
        return False

    def name(self) -> str:
        """The name of the function and "Backward", as in PyTorch."""
        return f"{self.title}Backward"

    def release(self) -> None:
        self.freed = True
        self.saved = ()

    def unpack(self) -> tuple[Any, ...]:
        if self.freed:
            raise RuntimeError(
                f"{self.title}: this graph was already walked and its saved values are freed; pass retain_graph=True "
                "to the first backward to walk it twice"
            )
        result: list[Any] = []
        for item in self.saved:
            if item is None:
                result.append(None)
                continue
            kind, array, backend, storage, version, edge = item
            if storage.version != version:
                raise RuntimeError(
                    f"{self.title}: a tensor of shape {tuple(array.shape)} that it saved for backward was changed in "
                    f"place by {storage.changed_by} (version {storage.version}, saved at {version}); clone it first"
                )
            tensor = kind._wrap(array, backend)
            tensor._storage = storage
            if mode.enabled and edge is not None:
                tensor._node = self if edge == "output" else edge if isinstance(edge, Node) else AccumulateGrad(edge)
            result.append(tensor)
        return tuple(result)

    def apply(self, gradient: Any, create_graph: bool) -> tuple[Any, ...]:
        parts = gradient.of if isinstance(gradient, Parts) else {0: gradient}
        gradients = []
        for i, (shape, dtype, like) in enumerate(self.outputs):
            g = parts.get(i)
            if g is None and self.ctx._materialize:
                g = like(shape, dtype)
            gradients.append(g)
        result = self.function.backward(self.ctx, *gradients)
        result = result if isinstance(result, tuple) else (result,)
        count = len(self.ctx.needs_input_grad)
        if len(result) > count and any(r is not None for r in result[count:]) or len(result) < count:
            raise RuntimeError(f"{self.title}.backward returned {len(result)} gradients for {count} inputs of forward")
        return tuple(self._fitting(k, result[i]) for k, i in enumerate(self.positions))

    def _fitting(self, k: int, g: Any) -> Any:
        """``g`` as a gradient of tensor argument ``k``: in its dtype, and added up where it was broadcast. Raises
        RuntimeError for what cannot be one."""
        if g is None or self.edges[k] is None:
            return None
        shape, dtype, backend = self.inputs[k]
        what = f"{self.title}.backward: the gradient of argument {self.positions[k]}"
        if not isinstance(g, Variable):
            raise RuntimeError(f"{what} must be a Tensor or None, not {type(g).__name__}")
        tensor: Any = g
        if tensor._backend is not backend:
            where = f"{backend.name}:{backend.index}"
            raise RuntimeError(f"{what} is on {tensor.device}, the argument on {where}; move it there with .to()")
        if tuple(tensor._array.shape) != shape:
            try:
                tensor = tensor.sum_to_size(shape)
            except RuntimeError:
                raise RuntimeError(
                    f"{what} has shape {tuple(tensor.shape)}, the argument {shape}; return one of the argument's shape"
                ) from None
        return tensor if tensor.dtype is dtype else tensor.to(dtype)


class Function:
    """Base of user-defined differentiable operations.

    Subclasses define static ``forward(ctx, *args)`` and ``backward(ctx, *gradients)``, which
    returns one gradient (or None) for each argument; call ``MyFunction.apply(*args)``.
    ``forward(*args)`` with a separate ``setup_context(ctx, inputs, output)`` works too.
    With ``create_graph=True`` what ``backward`` computes is itself differentiated."""

    @staticmethod
    def forward(ctx: Any, *args: Any) -> Any:
        """Compute the result; not recorded."""
        raise NotImplementedError("a Function must define a static method forward(ctx, *args)")

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        """Gradients with respect to the arguments of ``forward``."""
        raise NotImplementedError("a Function must define a static method backward(ctx, *gradients)")

    def __call__(self, *args: Any) -> Any:
        """Old PyTorch had functions that were objects. Raises RuntimeError."""
        name = type(self).__name__
        raise RuntimeError(f"{name}: forward and backward must be static methods, and the call is {name}.apply(...)")

    @classmethod
    def apply(cls, *args: Any) -> Any:
        """Run ``forward`` and record it."""
        ctx = FunctionCtx()
        tensors = [(i, a) for i, a in enumerate(args) if isinstance(a, Variable)]
        recording = mode.enabled
        edges = {i: edge_of(a) if recording else None for i, a in tensors}
        ctx.needs_input_grad = tuple(edges.get(i) is not None for i in range(len(args)))
        before = mode.enabled
        mode.enabled = False
        try:
            setup = getattr(cls, "setup_context", None)
            if setup is None:
                output = cls.forward(ctx, *args)
            else:
                output = cls.forward(*args)
                setup(ctx, args, output)
        finally:
            mode.enabled = before
        if not any(e is not None for e in edges.values()):
            return output
        outputs = output if isinstance(output, tuple) else (output,)
        return cls._record(ctx, args, tensors, edges, output, outputs)

    @classmethod
    def _record(
        cls,
        ctx: FunctionCtx,
        args: tuple[Any, ...],
        tensors: list[tuple[int, Any]],
        edges: dict[int, Any],
        output: Any,
        outputs: tuple[Any, ...],
    ) -> Any:
        positions = tuple(i for i, _ in tensors)
        node = _FunctionNode(tuple(edges[i] for i in positions), cls, ctx)
        node.positions = positions
        node.inputs = tuple((tuple(a._array.shape), a.dtype, a._backend) for _, a in tensors)
        by_id = {id(a): edges[i] for i, a in tensors}
        result_ids = {id(o) for o in outputs}
        node.saved = tuple(
            None
            if t is None
            else (
                type(t),
                t._array,
                t._backend,
                storage_of(t),
                storage_of(t).version,
                by_id[id(t)] if id(t) in by_id else "output" if id(t) in result_ids and len(outputs) == 1 else None,
            )
            for t in ctx._to_save
        )
        ctx._to_save = ()
        ctx._unpack = _weak_unpack(node)
        made = []
        skip = {id(t) for t in ctx._non_differentiable}
        dirty = {id(t) for t in ctx._dirty}
        for i, o in enumerate(outputs):
            if not isinstance(o, Variable):
                node.outputs.append(((), None, _no_gradient))
                made.append(o)
                continue
            if id(o) in by_id and id(o) not in dirty:
                o = o.view_as(o) if hasattr(o, "view_as") else o  # an input handed back: keep its own history
            if id(o) in dirty:
                _check_dirty(cls.__name__, o)
            node.outputs.append((tuple(o._array.shape), o.dtype, _zeros_like(o)))
            if id(o) not in skip and o.dtype.is_floating_point:
                o._node = node if len(outputs) == 1 else Slot(node, i)
                o._requires_grad = False
                o._generation += 1
                o._base = None  # a view that forward made of something is a tensor of its own from here on
            made.append(o)
        return tuple(made) if isinstance(output, tuple) else made[0]


def _check_dirty(name: str, x: Any) -> None:
    """Raises RuntimeError where a changed input's history cannot be rewritten."""
    if x._base is not None:
        raise RuntimeError(f"{name}: an input that is a view cannot be marked dirty; pass x.clone(), or its base")
    if x._requires_grad and x._node is None:
        raise RuntimeError(f"{name}: a leaf that requires grad cannot be changed in place and marked dirty")


def _weak_unpack(node: _FunctionNode) -> Callable[[], tuple[Any, ...]]:
    import weakref

    held = weakref.ref(node)  # the node owns the ctx; a strong reference back would be a cycle

    def unpack() -> tuple[Any, ...]:
        alive = held()
        if alive is None:
            raise RuntimeError("saved_tensors was read after the graph it belongs to was freed")
        return alive.unpack()

    return unpack


def _zeros_like(o: Any) -> Callable[..., Any]:
    kind, backend = type(o), o._backend

    def zeros(shape: tuple[int, ...], dtype: Any) -> Any:
        return kind._wrap(backend.empty(shape, dtype.numpy), backend).zero_()

    return zeros


def _no_gradient(shape: tuple[int, ...], dtype: Any) -> None:
    return None


class _OnceNode(Node):
    """Stands where a derivative is not to be differentiated."""

    __slots__ = ()
    title = "once_differentiable"

    def apply(self, gradient: Any, create_graph: bool) -> tuple[Any, ...]:
        raise RuntimeError(
            "a backward marked @once_differentiable was to be differentiated again; remove the mark if it is made of "
            "differentiable operations"
        )


def once_differentiable(backward: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator for the ``backward`` of a :class:`Function` whose result has no right derivative of its own: it runs
    unrecorded, and differentiating what it returns raises RuntimeError."""

    @functools.wraps(backward)
    def wrapper(ctx: Any, *gradients: Any) -> Any:
        with no_grad():
            results = backward(ctx, *gradients)
        edges = tuple(edge_of(g) for g in gradients if isinstance(g, Variable)) if mode.enabled else ()
        if not any(e is not None for e in edges):
            return results
        node = _OnceNode(edges)
        return tuple(_recorded(r, node) for r in results) if isinstance(results, tuple) else _recorded(results, node)

    return wrapper


def _recorded(result: Any, node: Node) -> Any:
    if not isinstance(result, Variable):
        return result
    stand_in = result.detach()  # type: ignore[attr-defined]
    stand_in._node = node
    return stand_in
