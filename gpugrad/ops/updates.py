"""Steps of optimizers in as few passes over memory as a device can do: elementwise statements that write in place.

An :class:`~gpugrad.backends.update.Update` lists the statements of a step; each is a row of the ops table. A backend
may offer to do all of them in one pass over all tensors of a parameter group (``offer("update")``); without that they
are done one by one. They compute what the formulas in ``gpugrad/optim`` say, to rounding. Half types and numbers that
are tensors take those formulas instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np

from gpugrad.backends.base import Elementwise
from gpugrad.backends.update import Line, Recipe, Update
from gpugrad.ops import elementwise as e
from gpugrad.ops import fused, inplace
from gpugrad.ops.mapping import elementwise
from gpugrad.ops.table import Sample as S
from gpugrad.ops.table import wrap

_F32, _F64 = np.dtype(np.float32), np.dtype(np.float64)


_MULTIPLY, _ADD, _SUBTRACT, _DIVIDE, _SQRT = np.multiply, np.add, np.subtract, np.divide, np.sqrt


def _row(name: str, c: str, tensors: int, numbers: int, lines: list[Line], domain: Any = (-2.0, 2.0)) -> Elementwise:
    """A row of ``tensors`` operands of one shape and ``numbers`` numbers; its computation for backends."""
    shapes: list[tuple[int, ...]] = [(3, 4)] * tensors + [()] * numbers
    empty = [(0,) if s else s for s in shapes]
    return elementwise(
        name,
        Recipe(*lines),
        c,
        arity=tensors + numbers,
        rule="float",
        dtypes="f",
        domain=domain,
        samples=(S(tuple(shapes)), S(tuple(empty))),
    ).kernel


_axpy = _row("axpy", "a + b * c", 2, 1, [("t", _MULTIPLY, "b c"), ("y", _ADD, "a t")])
_axpby = _row("axpby", "a * c + b * d", 2, 2, [("t", _MULTIPLY, "b d"), ("y", _MULTIPLY, "a c"), ("y", _ADD, "y t")])
_second_moment = _row(
    "second_moment", "a * c + b * b * d", 2, 2,
    [("t", _MULTIPLY, "b b"), ("t", _MULTIPLY, "t d"), ("y", _MULTIPLY, "a c"), ("y", _ADD, "y t")],
)  # fmt: skip
_adam_apply = _row(
    "adam_apply", "a * d - b / (sqrt(c) + g * f) * (e * f)", 3, 4,  # one division less
    [("k", _MULTIPLY, "g f"), ("l", _MULTIPLY, "e f"), ("t", _SQRT, "c"), ("t", _ADD, "t k"), ("t", _DIVIDE, "b t"),
     ("t", _MULTIPLY, "t l"), ("y", _MULTIPLY, "a d"), ("y", _SUBTRACT, "y t")],
    (0.5, 2.0),
)  # fmt: skip
_less_square = _row("less_square", "a - b * b", 2, 0, [("t", _MULTIPLY, "b b"), ("y", _SUBTRACT, "a t")])
_root_quotient = _row(
    "root_quotient", "a / (sqrt(b) + c)", 2, 1,
    [("t", _SQRT, "b"), ("t", _ADD, "t c"), ("y", _DIVIDE, "a t")], (0.5, 2.0)
)  # fmt: skip
_delta = _row(
    "delta", "sqrt(a + d) / sqrt(b + d) * c", 3, 1,
    [("t", _ADD, "b d"), ("t", _SQRT, "t"), ("y", _ADD, "a d"), ("y", _SQRT, "y"), ("y", _DIVIDE, "y t"),
     ("y", _MULTIPLY, "y c")],
    (0.5, 2.0),
)  # fmt: skip
_larger = _row(
    "larger", "GG_MAX(a * c, fabs(b) + d)", 2, 2,
    [("t", np.absolute, "b"), ("t", _ADD, "t d"), ("y", _MULTIPLY, "a c"), ("y", np.maximum, "y t")],
)  # fmt: skip
_less_quotient = _row(
    "less_quotient", "a - b / c * d", 3, 1,
    [("t", _DIVIDE, "b c"), ("t", _MULTIPLY, "t d"), ("y", _SUBTRACT, "a t")], (0.5, 2.0)
)  # fmt: skip
_maximum = e.maximum.kernel


# -- the steps -------------------------------------------------------------------------------
# p: parameter, g: gradient, in whose place comes h = g + weight_decay * p under ``decay``.

_DECAYED = ("h", _axpy, "g p weight_decay")


@cache
def sgd(momentum: bool, nesterov: bool, decay: bool) -> Update:
    """b = keep * b + take * g;  p += step * b, or under Nesterov p += step * (g + momentum * b)."""
    g = "h" if decay else "g"
    statements: list[Any] = [_DECAYED] if decay else []
    numbers = ["weight_decay"] if decay else []
    if momentum:
        statements.append(("b", _axpby, f"b {g} keep take"))
        numbers += ["keep", "take"]
    if nesterov:
        statements.append(("n", _axpy, f"{g} b momentum"))
        numbers.append("momentum")
    statements.append(("p", _axpy, f"p {'n' if nesterov else 'b' if momentum else g} step"))
    return Update("sgd", "p g b" if momentum else "p g", " ".join([*numbers, "step"]), *statements)


@cache
def adam(amsgrad: bool, decay: bool) -> Update:
    """m = beta1 * m + take * g;  v = beta2 * v + rest * g^2;  p = shrink * p - rate * m / (sqrt(v) / root + eps), with
    v its running maximum x under AMSGrad."""
    g = "h" if decay else "g"
    statements: list[Any] = [_DECAYED] if decay else []
    statements += [("m", _axpby, f"m {g} beta1 take"), ("v", _second_moment, f"v {g} beta2 rest")]
    if amsgrad:
        statements.append(("x", _maximum, "x v"))
    statements.append(("p", _adam_apply, f"p m {'x' if amsgrad else 'v'} shrink rate root eps"))
    numbers = "weight_decay " if decay else ""
    return Update("adam", "p g m v x" if amsgrad else "p g m v",
                  numbers + "beta1 take beta2 rest shrink rate root eps", *statements)  # fmt: skip


@cache
def nadam(decay: bool) -> Update:
    """Adam's moments;  p = shrink * p - (now * g + next * m) / (sqrt(v) / root + eps)."""
    g = "h" if decay else "g"
    statements: list[Any] = [_DECAYED] if decay else []
    statements += [
        ("m", _axpby, f"m {g} beta1 take"),
        ("v", _second_moment, f"v {g} beta2 rest"),
        ("n", _axpby, f"m {g} next now"),
        ("p", _adam_apply, "p n v shrink one root eps"),
    ]
    numbers = "weight_decay " if decay else ""
    return Update("nadam", "p g m v", numbers + "beta1 take beta2 rest next now shrink one root eps", *statements)


@cache
def adamax(decay: bool) -> Update:
    """m = beta1 * m + take * g;  u = max(beta2 * u, |g| + eps);  p -= rate * m / u."""
    g = "h" if decay else "g"
    statements: list[Any] = [_DECAYED] if decay else []
    statements += [
        ("m", _axpby, f"m {g} beta1 take"),
        ("u", _larger, f"u {g} beta2 eps"),
        ("p", _less_quotient, "p m u rate"),
    ]
    return Update("adamax", "p g m u", ("weight_decay " if decay else "") + "beta1 take beta2 eps rate",
                  *statements)  # fmt: skip


@cache
def rmsprop(momentum: bool, centered: bool, decay: bool) -> Update:
    """v = alpha * v + rest * g^2, less the square of a = alpha * a + rest * g where centered;  u = g / (sqrt(v) + eps);
    p += step * u, or with b = momentum * b + u, p += step * b."""
    g, spread = "h" if decay else "g", "v"
    arrays, numbers = "p g v", ["weight_decay"] if decay else []
    statements: list[Any] = [_DECAYED] if decay else []
    statements.append(("v", _second_moment, f"v {g} alpha rest"))
    numbers += ["alpha", "rest"]
    if centered:
        arrays, spread = arrays + " a", "s"
        statements += [("a", _axpby, f"a {g} alpha rest"), ("s", _less_square, "v a")]
    statements.append(("u", _root_quotient, f"{g} {spread} eps"))
    numbers.append("eps")
    if momentum:
        arrays += " b"
        statements.append(("b", _axpby, "b u momentum one"))
        numbers += ["momentum", "one"]
    statements.append(("p", _axpy, f"p {'b' if momentum else 'u'} step"))
    return Update("rmsprop", arrays, " ".join([*numbers, "step"]), *statements)


@cache
def adagrad(decay: bool) -> Update:
    """s += g^2;  p -= rate * g / (sqrt(s) + eps)."""
    g = "h" if decay else "g"
    statements: list[Any] = [_DECAYED] if decay else []
    statements += [("s", _second_moment, f"s {g} one one"), ("p", _adam_apply, f"p {g} s one rate one eps")]
    return Update("adagrad", "p g s", ("weight_decay " if decay else "") + "one rate eps", *statements)


@cache
def adadelta(decay: bool) -> Update:
    """v = rho * v + rest * g^2;  u = sqrt(a + eps) / sqrt(v + eps) * g;  a = rho * a + rest * u^2;  p += step * u."""
    g = "h" if decay else "g"
    statements: list[Any] = [_DECAYED] if decay else []
    statements += [
        ("v", _second_moment, f"v {g} rho rest"),
        ("u", _delta, f"a v {g} eps"),
        ("a", _second_moment, "a u rho rest"),
        ("p", _axpy, "p u step"),
    ]
    return Update("adadelta", "p g v a", ("weight_decay " if decay else "") + "rho rest eps step", *statements)


@cache
def clipped(update: Update) -> Update:
    """``update`` of the gradient g times one more number, the last."""

    def renamed(operands: str) -> str:
        return " ".join("clipped" if name == "g" else name for name in operands.split())

    statements = [(target, kernel, renamed(operands)) for target, kernel, operands in update.statements]
    first = ("clipped", e.mul.kernel, "g clip")
    return Update(f"{update.name}_clipped", " ".join(update.arrays), " ".join((*update.numbers, "clip")), first,
                  *statements)  # fmt: skip


# -- doing them --------------------------------------------------------------------------------

#: What a backend may offer. Arrays are float32 or float64, of one dtype; several of one call share no memory but where
#: they are the same array.
ROUTINES = {
    "update": "(update, columns, numbers) -> None: every statement of update, in order, for each tensor. columns: for "
    "each of the update's arrays those of all tensors, which agree in shape; numbers: floats, or C-contiguous arrays "
    "without dimensions of the others' dtype, so that what was computed on the device is not read back",
    "total_norm": "(arrays) -> array without dimensions: the root of the sum of all squares, which are summed in "
    "float64 or pairwise",
    "scale": "(arrays, factor) -> None: each array times factor, an array without dimensions of their dtype, in place",
}


def fusible(columns: Sequence[Sequence[Any]]) -> bool:
    """Whether the steps here apply to these tensors (for each array of a step those of all parameters): float32 or
    float64, of one dtype, on one device, and all of a parameter of one shape."""
    first = columns[0][0]
    dtype, backend = first._array.dtype, first._backend
    if dtype != _F32 and dtype != _F64:
        return False
    shapes = [t._array.shape for t in columns[0]]
    for column in columns:
        for t, shape in zip(column, shapes, strict=True):
            array = t._array
            if array.shape != shape or array.dtype is not dtype and array.dtype != dtype or t._backend is not backend:
                return False
    return True


def run(update: Update, columns: Sequence[Sequence[Any]], numbers: Sequence[Any]) -> None:
    """In place ``update`` of all the tensors in ``columns``, which are :func:`fusible`. The numbers, floats or arrays
    without dimensions, are handed to the backend as they are."""
    routine = fused.offered(columns[0][0], "update")
    apart = _written("step", [t for i in update.written for t in columns[i]])
    arrays = [[t._array for t in column] for column in columns]
    if routine is not None and apart:
        routine(update, arrays, numbers)
        return
    for tensors in zip(*arrays, strict=True):  # in order, as parameters may share memory
        if routine is not None:
            routine(update, [[a] for a in tensors], numbers)
        else:
            _plainly(update, columns[0][0]._backend, tensors, numbers)


def _written(name: str, tensors: Sequence[Any]) -> bool:
    """Count that ``name`` writes to each of ``tensors``; whether no two of them share memory."""
    for t in tensors:
        inplace.changed(name, t)
    return len({t._storage for t in tensors}) == len(tensors)


def _plainly(update: Update, backend: Any, arrays: Sequence[Any], numbers: Sequence[Any]) -> None:
    """One statement after the other."""
    dtype = arrays[0].dtype
    values: list[Any] = [*arrays, *numbers, *[None] * update.temporaries]
    for target, kernel, operands in update.places:
        values[target] = backend.map(kernel, [values[i] for i in operands], dtype, dtype, values[target])


def _alike(tensors: Sequence[Any]) -> bool:
    """Whether ``tensors`` are float32 or float64, of one dtype, on one device."""
    dtype, backend = tensors[0]._array.dtype, tensors[0]._backend
    return (dtype == _F32 or dtype == _F64) and all(t._array.dtype == dtype and t._backend is backend for t in tensors)


def takes(tensors: Sequence[Any], number: Any) -> bool:
    """Whether the step of these gradients may have the tensor ``number`` for a number."""
    return _alike([*tensors, number])


def total_norm(tensors: Sequence[Any]) -> Any:
    """The Euclidean norm of all tensors together, of their dtype and without dimensions; None where no routine
    computes it at once."""
    routine = fused.offered(tensors[0], "total_norm") if _alike(tensors) else None
    return None if routine is None else wrap(routine([t._array for t in tensors]), tensors[0]._backend)


def scale_(tensors: Sequence[Any], factor: Any) -> None:
    """In place each of ``tensors`` times the tensor ``factor``, which has one element and follows them to their devices
    and dtypes."""
    routine = fused.offered(tensors[0], "scale") if tensors and _alike(tensors) else None
    if routine is None:
        for t in tensors:
            t.mul_(factor.to(device=t.device, dtype=t.dtype))
        return
    first = tensors[0]
    factor = factor.to(device=first.device, dtype=first.dtype)
    arrays = [t._array for t in tensors]
    for part in [arrays] if _written("mul_", tensors) else [[a] for a in arrays]:
        routine(part, factor._array)
