"""Declaring and calling elementwise rows.

The path from ``a + b`` to the backend's ``map`` is the hottest of the library: type tests
for the common case first, everything else in functions of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from gpugrad import dtypes
from gpugrad.autograd.graph import Storage, edge_of
from gpugrad.autograd.modes import mode
from gpugrad.backends.base import Elementwise
from gpugrad.errors import DeviceError, DTypeError
from gpugrad.ops import inplace, table
from gpugrad.ops.table import Op, describe, make_node, note, record, result_type, same_device, wrap
from gpugrad.ops.traced import Number

_NO_PARAMS: dict[str, Any] = {}
_NUMBERS = frozenset((bool, int, float, Number))  # none of which changes a floating dtype


class _Rule(dict[np.dtype, tuple[np.dtype, np.dtype]]):
    """Promoted dtype -> (dtype to compute in, dtype of the result)."""

    def __init__(self, function: Callable[[dtypes.DType], tuple[dtypes.DType, dtypes.DType]]) -> None:
        super().__init__()
        self.function = function

    def __missing__(self, key: np.dtype) -> tuple[np.dtype, np.dtype]:
        compute, result = self.function(dtypes.from_numpy(key))
        pair = (compute.numpy, result.numpy)
        if compute.is_floating_point == dtypes.from_numpy(key).is_floating_point:
            self[key] = pair  # the rest depends on the default dtype of the moment
        return pair


def _floating(d: dtypes.DType) -> tuple[dtypes.DType, dtypes.DType]:
    d = d if d.is_floating_point else dtypes.get_default_dtype()
    return d, d


def _refuse(kinds: str, what: str) -> Callable[[dtypes.DType], tuple[dtypes.DType, dtypes.DType]]:
    def rule(d: dtypes.DType) -> tuple[dtypes.DType, dtypes.DType]:
        if "bif"[d.category] in kinds:
            raise DTypeError(f"not defined for {what} tensors ({d.name}); convert them with .to(dtype) first")
        return d, d

    return rule


RULES: dict[str, Callable[[dtypes.DType], tuple[dtypes.DType, dtypes.DType]]] = {
    "promote": lambda d: (d, d),
    "float": _floating,
    "compare": lambda d: (d, dtypes.bool_),
    "logical": lambda d: (dtypes.bool_, dtypes.bool_),
    "integer": _refuse("f", "floating-point"),
    "shift": _refuse("fb", "floating-point and bool"),
    "number": _refuse("b", "bool"),
    "exponent": lambda d: (d, dtypes.int32),
    "count": lambda d: (d, d) if d.category else (dtypes.int64, dtypes.int64),
}


def elementwise(
    name: str,
    numpy: Callable[..., Any],
    c: str | dict[str, str],
    vjp: Any = None,
    *,
    rule: str = "promote",
    arity: int = 1,
    check: Callable[..., Any] | None = None,
    c_check: str | None = None,
    error: tuple[type[Exception], str] | None = None,
    masked: bool = False,
    bools: bool = True,
    **row: Any,
) -> Any:
    """Declare the row of an elementwise op; returns the function that users call.

    ``numpy`` and ``c`` compute it (see :class:`gpugrad.backends.base.Elementwise`), ``rule``
    names its dtype rule in ``RULES``. Without ``bools`` one bool among two operands is refused, whatever the
    other is. The function has an ``inplace`` twin."""
    vjp = tuple(vjp) if isinstance(vjp, (tuple, list)) else (vjp,) if vjp is not None else None
    row.setdefault("reference", numpy)
    if "samples" not in row:
        row["samples"] = _DEFAULT_SAMPLES[arity]
    op = Op(name, "elementwise", vjp, **row)
    kernel = Elementwise(name, numpy, c, arity, check, c_check, error, masked)
    make = {1: _unary, 2: _binary}.get(arity, _nary)
    call = make(op, kernel, _Rule(RULES[rule])) if bools else _binary(op, kernel, _Rule(RULES[rule]), _not_bool)
    call.__name__ = call.__qualname__ = name
    call.op = op  # type: ignore[attr-defined]
    call.kernel = kernel  # type: ignore[attr-defined]
    if arity == 2:
        operator = _binary(op, kernel, _Rule(RULES[rule]), None if bools else _not_bool, True)
        operator.__name__ = operator.__qualname__ = name
        call.operator = operator  # type: ignore[attr-defined]
    twin = _inplace(op, kernel, _Rule(RULES[rule]), None if bools else _not_bool)
    call.inplace = twin  # type: ignore[attr-defined]
    op.function = call
    return call


S = table.Sample
_DEFAULT_SAMPLES = {
    1: (S(((3, 4),)), S(((),)), S(((0, 3),)), S(((2, 3, 5),))),
    2: (S(((3, 4), (3, 4))), S(((3, 1), (4,))), S(((), (2, 3))), S(((0, 3), (3,))), S(((2, 1, 4), (3, 1)))),
    3: (S(((3, 4), (3, 4), (3, 4))), S(((3, 1), (4,), ())), S(((0, 2), (2,), (1,)))),
}


def _unary(op: Op, kernel: Elementwise, rule: _Rule) -> Callable[..., Any]:
    differentiable = bool(op.vjps)
    plan: table.Plan | None = None

    def call(input: Any) -> Any:
        nonlocal plan
        if not isinstance(input, table.Tensor):
            table.as_tensor_arg(op.name, input)
        array = input._array
        backend = input._backend
        dtype = array.dtype
        try:
            compute, result = rule[dtype]
        except DTypeError as error:
            raise DTypeError(f"{op.name}: {error}") from None
        out = wrap(backend.map(kernel, (array,), compute, result), backend)
        if differentiable and mode.enabled:
            edge = input._node if input._base is None else edge_of(input)
            if edge is None and input._requires_grad:
                edge = input
            if edge is not None:
                if plan is None:
                    plan = op.plan((edge,))
                dtypes = dtype if dtype is compute and dtype is result else (dtype,)
                out._node = note(plan, out, (input,), (edge,), (array.shape,), dtypes, _NO_PARAMS)
        return out

    return call


def _not_bool(name: str, *operands: Any) -> None:
    for x in operands:
        if isinstance(x, (bool, np.bool_)) or (isinstance(x, table.Tensor) and x._array.dtype == bool):
            raise DTypeError(
                f"{name}: not defined for bools; use logical_xor or logical_not on them, or convert with .to(dtype); "
                f"operands: {describe(*operands)}"
            )


def _binary(
    op: Op, kernel: Elementwise, rule: _Rule, refuse: Callable[..., None] | None = None, operator: bool = False
) -> Callable[..., Any]:
    """The function of a row with two inputs; as an ``operator`` it leaves what it cannot combine to the other
    operand. Every line here is part of the time of ``a + b``: the common cases are found by the fewest looks, and what
    a node needs is taken from what was looked at already."""
    differentiable = bool(op.vjps)
    quick = _NUMBERS if refuse is None else _NUMBERS - {bool}
    plans = op.plans

    def call(input: Any, other: Any) -> Any:
        Tensor = table.Tensor
        a_is_tensor, b_is_tensor = isinstance(input, Tensor), isinstance(other, Tensor)
        number = 0  # the plan's bit for an input that is a number
        if a_is_tensor and b_is_tensor and input._backend is other._backend:
            backend = input._backend
            x, y = input._array, other._array
            dtype = x.dtype
            if dtype is not y.dtype and dtype != y.dtype:
                if refuse is not None:
                    refuse(op.name, input, other)
                dtype = result_type(input, other).numpy
        elif a_is_tensor and type(other) in quick and input._array.dtype.kind == "f":
            backend, x, y = input._backend, input._array, other
            dtype = x.dtype
            number = 8
        elif b_is_tensor and type(input) in quick and other._array.dtype.kind == "f":
            backend, x, y = other._backend, input, other._array
            dtype = y.dtype
            number = 4
        else:
            if operator and not (is_operand(input) and is_operand(other)):
                return NotImplemented
            (input, other), backend = settle(op.name, (input, other))
            if refuse is not None:
                refuse(op.name, input, other)
            dtype = result_type(input, other).numpy
            x = input._array if a_is_tensor else input
            y = other._array if b_is_tensor else other
        try:
            compute, result = rule[dtype]
            out = wrap(backend.map(kernel, (x, y), compute, result), backend)
        except (TypeError, ValueError) as error:
            raise explain(op.name, error, input, other) from None
        if differentiable and mode.enabled:
            a = b = None  # the edges: edge_of() without the call, but for views
            if a_is_tensor:
                a = input._node if input._base is None else edge_of(input)
                if a is None and input._requires_grad:
                    a = input
            if b_is_tensor:
                b = other._node if other._base is None else edge_of(other)
                if b is None and other._requires_grad:
                    b = other
            if a is not None or b is not None:
                if number:
                    shapes = (x.shape, None) if number == 8 else (None, y.shape)
                    dtypes = dtype if dtype is compute and dtype is result else (dtype, dtype)
                elif a_is_tensor and b_is_tensor:
                    shapes = (x.shape, y.shape)
                    alike = x.dtype is y.dtype and dtype is compute and dtype is result
                    dtypes = dtype if alike else (x.dtype, y.dtype)
                else:
                    record(op, out, (input, other), (a, b), _NO_PARAMS)
                    return out
                key = number + 3 if a is not None and b is not None else number + 1 if b is None else number + 2
                plan = plans.get(key) or op.new_plan(key, 2)
                out._node = note(plan, out, (input, other), (a, b), shapes, dtypes, _NO_PARAMS)
        return out

    return call


def is_operand(x: Any) -> bool:
    """Whether operators take ``x``: a tensor or a number."""
    return isinstance(x, (table.Tensor, bool, int, float, np.number, np.bool_))


def _nary(op: Op, kernel: Elementwise, rule: _Rule) -> Callable[..., Any]:
    def call(*inputs: Any) -> Any:
        inputs, backend = settle(op.name, inputs)
        typed = inputs[1:] if kernel.masked else inputs
        try:
            compute, result = rule[result_type(*typed).numpy]
            arrays = [x._array if isinstance(x, table.Tensor) else x for x in inputs]
            out = wrap(backend.map(kernel, arrays, compute, result), backend)
        except (TypeError, ValueError) as error:
            raise explain(op.name, error, *inputs) from None
        if op.vjps:
            edges = table._edges(inputs)
            if edges is not None:
                record(op, out, inputs, edges, _NO_PARAMS)
        return out

    return call


def _inplace(op: Op, kernel: Elementwise, rule: _Rule, refuse: Callable[..., None] | None = None) -> Callable[..., Any]:
    """``x = op(x, ...)`` written into the memory of ``x``."""
    name = op.name + "_"

    def call(x: Any, *others: Any, **named: Any) -> Any:
        for operand in named:
            if operand not in ("other", "exponent"):
                raise TypeError(f"{name}: there is no argument {operand}")
            others += (named[operand],)
        inputs, backend = settle(op.name, (x, *others))
        if refuse is not None:
            refuse(name, *inputs)
        if backend is not x._backend:
            raise DeviceError(f"{name}: the operands are on different devices: {describe(x, *others)}")
        edge = inplace.check_inplace(name, x)
        _check_fits(name, x, inputs)
        try:
            promoted = result_type(*(inputs[1:] if kernel.masked else inputs))
            compute, result = rule[promoted.numpy]
            _check_castable(name, dtypes.from_numpy(result), x.dtype)
            edges = table._edges(inputs)
            arrays = [t._array if isinstance(t, table.Tensor) else t for t in inputs]
            node = None
            if edges is not None and op.vjps:
                node = make_node(op, x, inputs, edges, _NO_PARAMS)
                _save_what_was(node, x, inputs)
            backend.map(kernel, arrays, compute, x._array.dtype, x._array)
        except (TypeError, ValueError) as error:
            raise explain(name, error, x, *others) from None
        inplace.changed(name, x)
        if node is not None:
            _resave_result(node, x)
            inplace.rewrite(x, node)
        elif edge is not None:  # no derivative: what x was no longer matters
            inplace.overwritten(x, edge)
        return x

    call.__name__ = name
    return call


def _check_fits(name: str, x: Any, inputs: tuple[Any, ...]) -> None:
    ndim = x._array.ndim
    for t in inputs:
        if isinstance(t, table.Tensor) and t._array.ndim > ndim:
            raise RuntimeError(
                f"{name}: the result would have {t._array.ndim} dimensions, the tensor it is written to has "
                f"{ndim}; operands: {describe(*inputs)}"
            )


def _save_what_was(node: Any, x: Any, inputs: tuple[Any, ...]) -> None:
    """What the derivative needs of ``x`` itself, which is about to be overwritten, is saved as a copy."""
    kept = node.kept()
    if any(position >= 0 and inputs[position] is x for _, position, *_ in kept):
        array = x._backend.copy(x._array)
        copy = (array, Storage(array.nbytes), 0)
        node.keep([
            (name, position, *copy) if position >= 0 and inputs[position] is x else (name, position, *rest)
            for name, position, *rest in kept
        ])  # fmt: skip


def _resave_result(node: Any, x: Any) -> None:
    """The saved result is what x holds after the write, so it carries the new version."""
    storage = x._storage
    node.keep([
        (name, position, array, storage, storage.version) if position == -1 else (name, position, array, s, v)
        for name, position, array, s, v in node.kept()
    ])  # fmt: skip


def _check_castable(name: str, result: dtypes.DType, target: dtypes.DType) -> None:
    if result.category > target.category:
        raise DTypeError(f"the result type {result.name} cannot be stored in a {target.name} tensor")


def settle(op: str, inputs: tuple[Any, ...]) -> tuple[tuple[Any, ...], Any]:
    """Operands ready to combine, and their backend: numbers stay numbers, a 0-d CPU tensor
    follows the others to their device. Raises TypeError, DeviceError."""
    Tensor = table.Tensor
    tensors = [x for x in inputs if isinstance(x, Tensor)]
    for x in inputs:
        if not isinstance(x, (Tensor, bool, int, float, np.number, np.bool_)):
            raise TypeError(
                f"{op}: expected a Tensor or a number, got {type(x).__name__}; make a tensor with gpugrad.tensor(...)"
            )
    inputs = tuple(x.item() if isinstance(x, (np.number, np.bool_)) else x for x in inputs)
    if not tensors:
        raise TypeError(f"{op}: at least one operand must be a Tensor, got {', '.join(map(repr, inputs))}")
    backend = tensors[0]._backend
    if any(t._backend is not backend for t in tensors):
        fixed = [t for t in tensors if not (t._array.ndim == 0 and t._backend.name == "cpu")]
        backend = same_device(op, fixed or tensors)
        place = table.device_of(backend)
        inputs = tuple(
            _follow(x, place, inputs) if isinstance(x, Tensor) and x._backend is not backend else x for x in inputs
        )
    return inputs, backend


def _follow(x: Any, place: Any, inputs: tuple[Any, ...]) -> Any:
    """The 0-d ``x`` on the device of the others: a float64 that does not decide the result's dtype
    goes to devices without float64 too."""
    promoted = result_type(*inputs)
    if x.dtype is dtypes.float64 and promoted.itemsize < x.dtype.itemsize:
        x = x.to(promoted)
    return x.to(place)


def explain(name: str, error: Exception, *inputs: Any) -> Exception:
    """The user's error for what a rule or a backend refused."""
    if isinstance(error, TypeError):
        kind = DTypeError if isinstance(error, DTypeError) else TypeError
        return kind(f"{name}: {error}; operands: {describe(*inputs)}")
    shapes = " and ".join(str(tuple(x._array.shape)) for x in inputs if isinstance(x, table.Tensor))
    return RuntimeError(
        f"{name}: shapes {shapes} do not "
        f"broadcast; sizes must be equal or 1, counted from the last dimension; operands: {describe(*inputs)}"
    )
