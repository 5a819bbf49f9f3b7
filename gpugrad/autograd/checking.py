"""Whether derivatives are right: what ``backward`` says against finite differences."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Callable, Iterator
from typing import Any

from gpugrad.autograd import engine
from gpugrad.autograd.graph import Variable, edge_of
from gpugrad.autograd.modes import enable_grad, no_grad


class GradcheckError(RuntimeError):
    """A derivative is wrong, or not the same twice."""


def gradcheck(
    func: Callable[..., Any],
    inputs: Any,
    *,
    eps: float = 1e-6,
    atol: float = 1e-5,
    rtol: float = 1e-3,
    raise_exception: bool = True,
    nondet_tol: float = 0.0,
    check_undefined_grad: bool = True,
    check_grad_dtypes: bool = False,
    check_batched_grad: bool = False,
    check_batched_forward_grad: bool = False,
    check_forward_ad: bool = False,
    check_backward_ad: bool = True,
    fast_mode: bool = False,
    masked: bool | None = None,
) -> bool:
    """True if every derivative of ``func`` by the ``inputs`` that require grad agrees with central differences of step
    ``eps`` within ``atol + rtol * |difference|``; else GradcheckError, or False without ``raise_exception``.

    Inputs should be float64 (a warning says so). They are changed in place one element at a time and restored.
    Derivatives are computed twice and may differ by ``nondet_tol``. ``fast_mode`` is checked in full. The gradient of
    one of several outputs leaves those of the others undefined: ``check_undefined_grad`` asks for nothing more.
    Raises ValueError where no input requires grad, NotImplementedError for forward-mode and batched checks."""
    _refuse(
        "gradcheck",
        check_batched_grad=check_batched_grad,
        check_batched_forward_grad=check_batched_forward_grad,
        check_forward_ad=check_forward_ad,
        masked=bool(masked),
    )
    arguments = tuple(inputs) if isinstance(inputs, (tuple, list)) else (inputs,)
    chosen = _differentiable_inputs(arguments)
    try:
        if check_backward_ad:
            _check(func, arguments, chosen, eps, atol, rtol, nondet_tol, check_grad_dtypes)
    except GradcheckError:
        if raise_exception:
            raise
        return False
    return True


def gradgradcheck(
    func: Callable[..., Any],
    inputs: Any,
    grad_outputs: Any = None,
    *,
    eps: float = 1e-6,
    atol: float = 1e-5,
    rtol: float = 1e-3,
    gen_non_contig_grad_outputs: bool = False,
    raise_exception: bool = True,
    nondet_tol: float = 0.0,
    check_undefined_grad: bool = True,
    check_grad_dtypes: bool = False,
    check_batched_grad: bool = False,
    check_fwd_over_rev: bool = False,
    check_rev_over_rev: bool = True,
    fast_mode: bool = False,
    masked: bool = False,
) -> bool:
    """:func:`gradcheck` of the gradient of ``func``: its second derivatives.

    ``grad_outputs``: what the outputs are weighted with, drawn at random if left out."""
    _refuse(
        "gradgradcheck", check_batched_grad=check_batched_grad, check_fwd_over_rev=check_fwd_over_rev, masked=masked
    )
    arguments = tuple(inputs) if isinstance(inputs, (tuple, list)) else (inputs,)
    if grad_outputs is None:
        outputs = _differentiable_outputs(func(*arguments))
        weights = tuple(_drawn(y, gen_non_contig_grad_outputs) for y in outputs)
    else:
        weights = tuple(grad_outputs) if isinstance(grad_outputs, (tuple, list)) else (grad_outputs,)
    count = len(weights)

    def gradient(*values: Any) -> tuple[Any, ...]:
        xs, vs = values[: len(values) - count], values[len(values) - count :]
        used = [x for x in xs if _wants_gradient(x)]
        with enable_grad():  # the finite differences are taken without
            ys = _differentiable_outputs(func(*xs))
            found = engine.grad(ys, used, list(vs), create_graph=True, allow_unused=True)
        return tuple(g for g in found if g is not None)

    return gradcheck(
        gradient,
        arguments + weights,
        eps=eps,
        atol=atol,
        rtol=rtol,
        raise_exception=raise_exception,
        nondet_tol=nondet_tol,
        check_undefined_grad=check_undefined_grad,
        check_grad_dtypes=check_grad_dtypes,
        check_backward_ad=check_rev_over_rev,
        fast_mode=fast_mode,
    )


def _refuse(name: str, **asked: bool) -> None:
    for argument, value in asked.items():
        if value:
            raise NotImplementedError(
                f"{name}: {argument} is not supported (differentiation goes backwards, one gradient at a time, "
                "and there is no sparse layout); leave it out to check backward"
            )


def _drawn(y: Any, gapped: bool) -> Any:
    if not gapped:
        return y.detach().new_empty(y.shape).normal_().requires_grad_()
    wide = y.detach().new_empty((*y.shape, 2)).normal_()
    return wide.select(-1, 0).detach().requires_grad_()


def _differentiable_inputs(arguments: tuple[Any, ...]) -> list[tuple[int, Any]]:
    chosen = [(i, x) for i, x in enumerate(arguments) if _wants_gradient(x)]
    if not chosen:
        raise ValueError("gradcheck: at least one input must be a tensor that requires grad")
    for i, x in chosen:
        if x.dtype.itemsize < 8:
            warnings.warn(
                f"gradcheck: input {i} is {x.dtype.name}; finite differences need float64 to be exact enough",
                stacklevel=3,
            )
        if any(n > 1 and s == 0 for n, s in zip(x.shape, x.stride(), strict=True)):
            raise RuntimeError(
                f"gradcheck: input {i} of shape {tuple(x.shape)} has elements that share memory (as after expand) and "
                "cannot be changed one at a time; pass a clone"
            )
    return chosen


def _wants_gradient(x: Any) -> bool:
    return isinstance(x, Variable) and edge_of(x) is not None


def _is_floating(y: Any) -> bool:
    return isinstance(y, Variable) and y._array.dtype.kind not in "biu"


def _outputs(result: Any) -> tuple[Any, ...]:
    return tuple(result) if isinstance(result, (tuple, list)) else (result,)


def _differentiable_outputs(result: Any) -> tuple[Any, ...]:
    return tuple(y for y in _outputs(result) if _wants_gradient(y))


def _check(
    func: Callable[..., Any],
    arguments: tuple[Any, ...],
    chosen: list[tuple[int, Any]],
    eps: float,
    atol: float,
    rtol: float,
    nondet_tol: float,
    check_dtypes: bool,
) -> None:
    with enable_grad():
        outputs = _outputs(func(*arguments))
    floating = [o for o, y in enumerate(outputs) if _is_floating(y)]
    xs = [x for _, x in chosen]
    for number, x in chosen:
        numerical = _numerical(lambda: _outputs(func(*arguments)), x, floating, eps)
        for o in floating:
            rows = _analytical(outputs[o], xs, x, check_dtypes)
            again = _analytical(outputs[o], xs, x, False)
            where = f"of output {o} by input {number}"
            for e, (row, second) in enumerate(zip(rows, again, strict=True)):
                for k, (a, b) in enumerate(zip(row, second, strict=True)):
                    if not abs(a - b) <= nondet_tol and not (a != a and b != b):
                        raise GradcheckError(
                            f"gradcheck: the derivative {where} differs from one backward to the next: element {e} by "
                            f"element {k} is {a}, then {b} (nondet_tol={nondet_tol})"
                        )
                    n = numerical[k][o][e]
                    if not _close(a, n, atol, rtol):
                        raise GradcheckError(
                            f"gradcheck: the derivative {where} is wrong: element {e} by element {k} is {a} by "
                            f"backward, {n} by finite differences (eps={eps}, atol={atol}, rtol={rtol})"
                        )


def _close(a: float, n: float, atol: float, rtol: float) -> bool:
    if math.isnan(a) or math.isnan(n):
        return math.isnan(a) and math.isnan(n)
    return a == n or abs(a - n) <= atol + rtol * abs(n)


def _numerical(
    call: Callable[[], tuple[Any, ...]], x: Any, floating: list[int], eps: float
) -> list[dict[int, list[float]]]:
    """For each element of ``x``: output number -> the derivatives of its elements."""
    result = []
    memory = x.data
    with no_grad():
        for index in _indices(tuple(x.shape)):
            before = memory[index].item()
            try:
                memory[index] = before + eps
                above = {o: y.reshape(-1).tolist() for o, y in enumerate(call()) if o in floating}
                memory[index] = before - eps
                below = {o: y.reshape(-1).tolist() for o, y in enumerate(call()) if o in floating}
            finally:
                memory[index] = before
            result.append({o: [(p - q) / (2 * eps) for p, q in zip(above[o], below[o], strict=True)] for o in floating})
    return result


def _indices(shape: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    return itertools.product(*(range(n) for n in shape))


def _analytical(y: Any, xs: list[Any], x: Any, check_dtypes: bool) -> list[list[float]]:
    """For each element of ``y`` the derivatives by the elements of ``x``, by ``backward``."""
    rows = []
    for index in _indices(tuple(y.shape)):
        g = None
        if y.requires_grad:
            seed = y.detach().new_zeros(y.shape)
            seed[index] = 1
            g = engine.grad(y, xs, seed, retain_graph=True, allow_unused=True)[[v is x for v in xs].index(True)]
        if g is None:
            rows.append([0.0] * x.numel())
            continue
        if check_dtypes and g.dtype is not x.dtype:
            raise GradcheckError(f"gradcheck: the gradient of a {x.dtype.name} input is {g.dtype.name}")
        rows.append(g.reshape(-1).tolist())
    return rows
