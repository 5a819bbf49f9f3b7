"""Backward hooks of a module: the gradients seen at its boundary."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gpugrad.autograd import Function
from gpugrad.tensor import Tensor


class _Boundary(Function):
    """The identity on several tensors; ``seen(grads)`` may replace the gradients that pass."""

    @staticmethod
    def forward(ctx: Any, seen: Callable[..., Any], *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.seen = seen
        ctx.set_materialize_grads(False)
        return tuple(t.view(t.shape) for t in tensors)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Any, ...]:
        return (None, *ctx.seen(grads))


class BackwardHooks:
    """Runs a module's backward hooks for one call of its forward.

    Identities are put around the module: the outer one sees the gradients of the outputs
    (and runs the pre-hooks), the inner one those of the inputs (and runs the hooks). Where no
    input needs a gradient, the hooks run with ``grad_input`` of None as soon as the gradients
    of the outputs are there.
    """

    def __init__(self, module: Any, hooks: list[Callable[..., Any]], pre_hooks: list[Callable[..., Any]]) -> None:
        self.module = module
        self.hooks = hooks
        self.pre_hooks = pre_hooks
        self.grad_outputs: tuple[Any, ...] = ()
        self.n_inputs = 0
        self.watching_inputs = False

    def wrap_inputs(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """``args`` with its differentiable tensors passed through the inner identity."""
        self.n_inputs = len(args)
        where = [i for i, a in enumerate(args) if isinstance(a, Tensor) and a.requires_grad]
        if not self.hooks or not where:
            return args
        self.watching_inputs = True

        def seen(grads: tuple[Any, ...]) -> tuple[Any, ...]:
            full: list[Any] = [None] * len(args)
            for i, g in zip(where, grads, strict=True):
                full[i] = g
            full = list(self._run_hooks(tuple(full)))
            return tuple(full[i] for i in where)

        wrapped = _Boundary.apply(seen, *(args[i] for i in where))
        result = list(args)
        for i, t in zip(where, wrapped if isinstance(wrapped, tuple) else (wrapped,), strict=True):
            result[i] = t
        return tuple(result)

    def wrap_output(self, output: Any) -> Any:
        """``output`` (a tensor or a tuple of them) passed through the outer identity."""
        values = output if isinstance(output, tuple) else (output,)
        where = [i for i, a in enumerate(values) if isinstance(a, Tensor) and a.requires_grad]
        if not where:
            return output

        def seen(grads: tuple[Any, ...]) -> tuple[Any, ...]:
            full: list[Any] = [None] * len(values)
            for i, g in zip(where, grads, strict=True):
                full[i] = g
            outputs = tuple(full)
            for hook in self.pre_hooks:
                replaced = hook(self.module, outputs)
                if replaced is not None:
                    outputs = replaced if isinstance(replaced, tuple) else (replaced,)
            self.grad_outputs = outputs
            if self.hooks and not self.watching_inputs:
                self._run_hooks((None,) * self.n_inputs)
            return tuple(outputs[i] for i in where)

        wrapped = _Boundary.apply(seen, *(values[i] for i in where))
        result = list(values)
        for i, t in zip(where, wrapped if isinstance(wrapped, tuple) else (wrapped,), strict=True):
            result[i] = t
        if not isinstance(output, tuple):
            return result[0]
        return type(output)(*result) if hasattr(output, "_fields") else tuple(result)

    def _run_hooks(self, grad_inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        for hook in self.hooks:
            replaced = hook(self.module, grad_inputs, self.grad_outputs)
            if replaced is not None:
                replaced = replaced if isinstance(replaced, tuple) else (replaced,)
                if len(replaced) != len(grad_inputs):
                    raise RuntimeError(
                        f"backward hook of {type(self.module).__name__} returned {len(replaced)} "
                        f"gradients for {len(grad_inputs)} inputs; return one per input, or None"
                    )
                grad_inputs = replaced
        return grad_inputs
