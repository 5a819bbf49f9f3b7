"""Derivatives of functions: Jacobians, Hessians and their products with vectors.

``func`` takes the inputs as arguments and returns a tensor or a tuple of tensors; ``inputs`` is a tensor or a tuple.
It is called with stand-ins of the inputs that want gradients, so ``.grad`` is left alone. What does not depend on an
input has derivative zero there, or with ``strict`` raises RuntimeError. With ``create_graph`` the results can be
differentiated.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from gpugrad.autograd import engine
from gpugrad.autograd.function import Function
from gpugrad.autograd.graph import Variable
from gpugrad.autograd.modes import enable_grad

__all__ = ["hessian", "hvp", "jacobian", "jvp", "vhp", "vjp"]


def jacobian(
    func: Callable[..., Any],
    inputs: Any,
    create_graph: bool = False,
    strict: bool = False,
    vectorize: bool = False,
    strategy: str = "reverse-mode",
) -> Any:
    """All derivatives of ``func``: of shape (output's shape, input's shape); a tuple of them for several inputs or
    outputs, one of tuples (outputs, then inputs) for both. One walk for each element of the outputs.

    ``vectorize`` promises PyTorch's speed only and changes nothing here. Raises NotImplementedError for
    ``strategy="forward-mode"``."""
    _only_reverse("jacobian", "strategy", strategy)
    with enable_grad():
        xs, several_inputs = _prepared("jacobian", inputs, create_graph)
        ys, several_outputs = _called("jacobian", func, xs, strict)
        rows = tuple(_one_jacobian(y, xs, create_graph, strict) for y in ys)
    if not create_graph:
        rows = tuple(_detached(row) for row in rows)
    shaped = tuple(row if several_inputs else row[0] for row in rows)
    return shaped if several_outputs else shaped[0]


def _one_jacobian(y: Any, xs: tuple[Any, ...], create_graph: bool, strict: bool) -> tuple[Any, ...]:
    found: list[list[Any]] = [[] for _ in xs]
    flat = y.reshape(-1)
    for i in range(flat.numel()):
        gradients = _gradients("jacobian", (flat[i],), xs, None, create_graph, strict)
        for column, g in zip(found, gradients, strict=True):
            column.append(g)
    return tuple(
        stack(column).reshape((*y.shape, *x.shape)) if column else x.new_zeros((*y.shape, *x.shape))
        for column, x in zip(found, xs, strict=True)
    )


def hessian(
    func: Callable[..., Any],
    inputs: Any,
    create_graph: bool = False,
    strict: bool = False,
    vectorize: bool = False,
    outer_jacobian_strategy: str = "reverse-mode",
) -> Any:
    """All second derivatives of a ``func`` with one output of one element: of shape (input's shape twice), for several
    inputs a tuple of tuples. ``vectorize`` and the strategy are as for :func:`jacobian`."""
    _only_reverse("hessian", "outer_jacobian_strategy", outer_jacobian_strategy)
    several = isinstance(inputs, tuple)

    def slope(*xs: Any) -> Any:
        gradient = jacobian(lambda *a: _scalar("hessian", func(*a)).reshape(()), xs, create_graph=True)
        if strict:
            for i, g in enumerate(gradient):
                if not g.requires_grad:
                    raise RuntimeError(f"hessian: the derivative by input {i} is independent of all inputs")
        return gradient

    result = jacobian(slope, inputs, create_graph, strict)
    return result if several else result[0]


def vjp(
    func: Callable[..., Any], inputs: Any, v: Any = None, create_graph: bool = False, strict: bool = False
) -> tuple[Any, Any]:
    """``func(*inputs)`` and the product of ``v``, shaped as the outputs, with the Jacobian: shaped as the inputs.

    ``v`` may be left out for one output of one element."""
    with enable_grad():
        xs, several_inputs = _prepared("vjp", inputs, create_graph)
        ys, several_outputs = _called("vjp", func, xs, strict)
        vs = _vector("vjp", v, ys, several_outputs, "output")
        result = _gradients("vjp", ys, xs, vs, create_graph, strict)
    return _packed(ys, several_outputs, create_graph), _packed(result, several_inputs, create_graph)


def jvp(
    func: Callable[..., Any], inputs: Any, v: Any = None, create_graph: bool = False, strict: bool = False
) -> tuple[Any, Any]:
    """``func(*inputs)`` and the product of the Jacobian with ``v``, shaped as the inputs: shaped as the outputs.

    By differentiating twice, as the walk goes backwards only: uJ is linear in u, and its derivative by u along v is Jv.
    ``v`` may be left out for one input of one element."""
    with enable_grad():
        xs, several_inputs = _prepared("jvp", inputs, create_graph)
        vs = _vector("jvp", v, xs, several_inputs, "input")
        ys, several_outputs = _called("jvp", func, xs, strict)
        result = _forward_product("jvp", ys, xs, vs, create_graph, strict)
    return _packed(ys, several_outputs, create_graph), _packed(result, several_outputs, create_graph)


def _forward_product(
    name: str, ys: tuple[Any, ...], xs: tuple[Any, ...], vs: tuple[Any, ...], create_graph: bool, strict: bool
) -> tuple[Any, ...]:
    us = tuple(y.detach().new_zeros(y.shape).requires_grad_() for y in ys)
    backwards = _gradients(name, ys, xs, us, True, strict)
    return _gradients(name, backwards, us, vs, create_graph, strict and create_graph)


def vhp(
    func: Callable[..., Any], inputs: Any, v: Any = None, create_graph: bool = False, strict: bool = False
) -> tuple[Any, Any]:
    """``func(*inputs)``, of one element, and the product of ``v``, shaped as the inputs, with the Hessian.

    ``v`` may be left out for one input of one element."""
    with enable_grad():
        xs, several = _prepared("vhp", inputs, create_graph)
        vs = _vector("vhp", v, xs, several, "input")
        y, slope = _slope("vhp", func, xs, strict)
        result = _gradients("vhp", slope, xs, vs, create_graph, strict)
    return _packed((y,), False, create_graph), _packed(result, several, create_graph)


def hvp(
    func: Callable[..., Any], inputs: Any, v: Any = None, create_graph: bool = False, strict: bool = False
) -> tuple[Any, Any]:
    """``func(*inputs)``, of one element, and the product of the Hessian with ``v``, shaped as the inputs.

    The same numbers as :func:`vhp` where the Hessian is symmetric, for one more walk."""
    with enable_grad():
        xs, several = _prepared("hvp", inputs, create_graph)
        vs = _vector("hvp", v, xs, several, "input")
        y, slope = _slope("hvp", func, xs, strict)
        result = _forward_product("hvp", slope, xs, vs, create_graph, strict)
    return _packed((y,), False, create_graph), _packed(result, several, create_graph)


def _slope(name: str, func: Callable[..., Any], xs: tuple[Any, ...], strict: bool) -> tuple[Any, tuple[Any, ...]]:
    """The single output and its gradient, recorded."""
    y = _scalar(name, func(*xs))
    _called(name, lambda *_: y, xs, strict)
    return y, _gradients(name, (y,), xs, None, True, strict)


# -- arguments and results ---------------------------------------------------------


def _only_reverse(name: str, argument: str, strategy: str) -> None:
    if strategy == "forward-mode":
        raise NotImplementedError(
            f"{name}: there is no forward-mode differentiation; {argument}='reverse-mode' gives the same numbers"
        )
    if strategy != "reverse-mode":
        raise ValueError(f"{name}: {argument} must be 'reverse-mode', not {strategy!r}")


def _tuple_of_tensors(name: str, what: str, value: Any) -> tuple[tuple[Any, ...], bool]:
    several = isinstance(value, tuple)
    values = value if several else (value,)
    for x in values:
        if not isinstance(x, Variable):
            raise TypeError(f"{name}: {what} must be a Tensor or a tuple of Tensors, not {_kind(value, x)}")
    return values, several


def _kind(value: Any, element: Any) -> str:
    return f"a tuple that holds a {type(element).__name__}" if isinstance(value, tuple) else type(value).__name__


def _prepared(name: str, inputs: Any, create_graph: bool) -> tuple[tuple[Any, ...], bool]:
    """Tensors of the same values to differentiate by: with ``create_graph`` linked to the user's."""
    given: tuple[Any, ...]
    given, several = _tuple_of_tensors(name, "inputs", inputs)
    linked = tuple(x.view_as(x) if create_graph and x.requires_grad else x.detach().requires_grad_() for x in given)
    return linked, several


def _called(name: str, func: Callable[..., Any], xs: tuple[Any, ...], strict: bool) -> tuple[tuple[Any, ...], bool]:
    ys, several = _tuple_of_tensors(name, "what func returns", func(*xs))
    for i, y in enumerate(ys):
        if strict and not y.requires_grad:
            raise RuntimeError(f"{name}: output {i} of func is independent of all inputs")
    return ys, several


def _scalar(name: str, y: Any) -> Any:
    if not isinstance(y, Variable):
        raise RuntimeError(f"{name}: func must return one Tensor of one element, not {type(y).__name__}")
    if y._array.size != 1:
        raise RuntimeError(f"{name}: func must return one element, not shape {tuple(y._array.shape)}")
    return y


def _vector(name: str, v: Any, like: tuple[Any, ...], several: bool, what: str) -> tuple[Any, ...]:
    """``v`` checked against ``like``; ones for a single element."""
    if v is None:
        if len(like) != 1 or like[0].numel() != 1:
            raise RuntimeError(f"{name}: v may be left out only for one {what} of one element")
        return (like[0].detach().new_ones(like[0].shape),)
    vs, _ = _tuple_of_tensors(name, "v", v)
    if len(vs) != len(like):
        raise RuntimeError(f"{name}: v has {len(vs)} tensors for {len(like)} {what}s")
    for i, (a, b) in enumerate(zip(vs, like, strict=True)):
        if a.shape != b.shape:
            raise RuntimeError(f"{name}: v[{i}] has shape {tuple(a.shape)}, {what} {i} {tuple(b.shape)}")
    return vs


def _gradients(
    name: str, ys: tuple[Any, ...], xs: tuple[Any, ...], vs: Any, create_graph: bool, strict: bool
) -> tuple[Any, ...]:
    """The gradient of each of ``xs``, zeros where there is none; with ``strict`` that is an error."""
    used = [i for i, y in enumerate(ys) if y.requires_grad]
    found: Sequence[Any] = [None] * len(xs)
    if used:
        weights = None if vs is None else [vs[i] for i in used]
        found = engine.grad(
            [ys[i] for i in used], xs, weights, retain_graph=True, create_graph=create_graph, allow_unused=True
        )
    result = []
    for i, (g, x) in enumerate(zip(found, xs, strict=True)):
        if g is None:
            if strict:
                raise RuntimeError(f"{name}: what is differentiated does not depend on input {i}")
            g = x.detach().new_zeros(x.shape)
        elif strict and create_graph and not g.requires_grad:
            raise RuntimeError(
                f"{name}: the derivative by input {i} is independent of all inputs, so with strict it cannot be "
                "differentiated again"
            )
        result.append(g)
    return tuple(result)


def _detached(tensors: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(t.detach() for t in tensors)


def _packed(tensors: tuple[Any, ...], several: bool, create_graph: bool) -> Any:
    kept = tensors if create_graph else _detached(tensors)
    return kept if several else kept[0]


class _Stack(Function):
    """Tensors of one shape along a new first dimension."""

    @staticmethod
    def forward(ctx: Any, *rows: Any) -> Any:
        result = rows[0].new_empty((len(rows), *rows[0].shape))
        for i, row in enumerate(rows):
            result[i].copy_(row)
        return result

    @staticmethod
    def backward(ctx: Any, g: Any) -> tuple[Any, ...]:
        return tuple(g[i] for i in range(len(ctx.needs_input_grad)))


def stack(rows: Sequence[Any]) -> Any:
    """``rows`` along a new first dimension, differentiable. Autograd knows no op, so it has its own."""
    return _Stack.apply(*rows)
