"""The ops table and the machinery every row shares: dispatch, recording, in-place, views.

A row (:class:`Op`) says how an operation is computed, how it is differentiated and on what
it is tested. Derivatives (vjps: vector-Jacobian products) are written in ops, so the
derivative of a derivative needs no further rule.

**A vjp's parameter names say what it needs**, and only that is saved:

``g``                  gradient with respect to the result
``a``, ``b``, ``c``    the first, second, third input
``y``, ``second``      the result; the second of two results
``a_shape``, ...       shape of an input, without keeping the input
anything else          the parameter of that name the op was called with

For example ``vjp=lambda g, y: g * (1 - y * y)`` saves the result and nothing else. An
elementwise vjp need not undo broadcasting, and no vjp need restore its input's dtype: that
is done here for all of them.
"""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from gpugrad import dtypes
from gpugrad.autograd.graph import storage_of
from gpugrad.autograd.modes import mode
from gpugrad.devices import Device
from gpugrad.errors import DeviceError
from gpugrad.ops import recording
from gpugrad.ops.recording import OpNode as OpNode
from gpugrad.ops.recording import Plan, Vjp, record, record_one, record_tensors, wrap
from gpugrad.ops.recording import _edges as _edges
from gpugrad.ops.recording import make_node as make_node
from gpugrad.ops.recording import note as note

Tensor: Any = None  # the class in gpugrad/tensor.py, which binds itself here

OPS: dict[str, Op] = {}

#: what the profiler puts around the ``forward`` of rows that are declared while it is on
around_forward: Callable[[Op, Callable[..., Any]], Callable[..., Any]] | None = None


class Sample(NamedTuple):
    """Inputs an op is tested on.

    ``inputs``: for each tensor argument a shape (filled with floats from the op's domain), a
    nested list of numbers, or a function of a ``numpy.random.Generator`` returning an ndarray.
    ``kwargs``: the other arguments. ``args_as_list``: the tensors are passed as one list."""

    inputs: tuple[Any, ...]
    kwargs: Mapping[str, Any] = MappingProxyType({})
    args_as_list: bool = False


class Op:
    """A row of the table. ``function`` is what users call; ``reference`` computes the same on
    ndarrays; ``domain`` bounds the random floats it is tested on; ``torch`` is PyTorch's
    dotted name where that is not ``name``; ``by_shape``: its vjps may be traced for the layout
    of the operands and the parameters, which are all integers, tuples of such and dtypes; ``widens``: its vjps take
    several steps, which half types do in float32 to be rounded once, as those of all elementwise rows."""

    __slots__ = (
        "name",
        "kind",
        "function",
        "vjps",
        "variadic",
        "forward",
        "plans",
        "samples",
        "reference",
        "domain",
        "differentiable",
        "elementwise",
        "dtypes",
        "torch",
        "by_shape",
        "widens",
    )

    def __init__(
        self,
        name: str,
        kind: str,
        vjp: Any = None,
        *,
        samples: Sequence[Sample] = (),
        reference: Callable[..., Any] | None = None,
        domain: tuple[float, float] = (-2.0, 2.0),
        differentiable: bool | None = None,
        dtypes: str = "fib",
        torch: str | None = None,
        by_shape: bool = False,
        widens: bool = False,
    ) -> None:
        if name in OPS:
            raise ValueError(f"op {name!r} has a row already")
        self.name = name
        self.kind = kind
        self.function: Callable[..., Any] = _unset
        self.forward: Callable[..., Any] | None = None  # of primitives: what computes them
        self.variadic = Vjp(vjp) if callable(vjp) and kind == "variadic" else None
        rules = () if vjp is None or self.variadic else vjp if isinstance(vjp, tuple) else (vjp,)
        self.vjps = tuple(None if f is None else Vjp(f) for f in rules)
        self.plans: dict[int, Plan] = {}
        self.samples = tuple(samples)
        self.reference = reference
        self.domain = domain
        self.differentiable = (vjp is not None) if differentiable is None else differentiable
        self.elementwise = kind == "elementwise"
        self.dtypes = dtypes
        self.torch = torch or name
        self.by_shape = by_shape
        self.widens = widens or self.elementwise
        OPS[name] = self

    def plan(self, edges: Sequence[Any]) -> Plan:
        """What a call whose inputs have these edges saves, and how its derivatives are called."""
        key = 0
        bit = 1
        for e in edges:
            if e is not None:
                key |= bit
            bit <<= 1
        return self.plans.get(key) or self.new_plan(key, len(edges))

    def new_plan(self, key: int, arity: int) -> Plan:
        """The plan of calls with ``arity`` inputs; bit i of ``key``: input i has an edge, bit arity + i: it is a Python
        number (which only the callers that keep to it say)."""
        found = self.plans[key] = Plan(self, key, arity)
        return found

    def __repr__(self) -> str:
        return f"<op {self.name}>"


def _unset(*args: Any, **kwargs: Any) -> Any:
    raise RuntimeError("this row of the ops table has no function yet")


# -- tensors -----------------------------------------------------------------


def bind(cls: type) -> None:
    """Called once by ``gpugrad.tensor`` with its Tensor class."""
    global Tensor
    Tensor = recording.Tensor = cls


def make_view(x: Any, shape: Sequence[int], strides: Sequence[int], offset: int) -> Any:
    """A tensor that shares memory with ``x``: ``offset`` bytes after its first element."""
    storage = storage_of(x)
    base = x._base
    if base is None or base._storage is not storage:
        base = x
    total = x._offset + offset
    array = x._backend.as_strided(base._array, shape, strides, total - base._offset)
    out = wrap(array, x._backend)
    out._storage = storage
    out._base = base
    out._offset = total
    out._generation = base._generation
    return out


def describe(*inputs: Any) -> str:
    """Shapes, dtypes and devices of the operands, for error messages."""
    parts = []
    for x in inputs:
        if isinstance(x, Tensor):
            parts.append(f"{tuple(x._array.shape)} {x.dtype.name} on {x.device}")
        else:
            parts.append(repr(x))
    return " and ".join(parts)


def as_tensor_arg(op: str, x: Any) -> Any:
    """``x`` if it is a tensor. Raises TypeError naming ``op``."""
    if isinstance(x, Tensor):
        return x
    raise TypeError(f"{op}: expected a Tensor, got {type(x).__name__}; make one with gpugrad.tensor(...)")


def same_device(op: str, tensors: Sequence[Any]) -> Any:
    """The backend that all tensors are on. Raises DeviceError naming both."""
    backend = tensors[0]._backend
    for t in tensors:
        if t._backend is not backend:
            raise DeviceError(
                f"{op}: operands are on different devices: {describe(*tensors)}; move one with "
                f".to({str(tensors[0].device)!r})"
            )
    return backend


def pair(op: str, fields: str, values: tuple[Any, ...]) -> Any:
    """``values`` as a named tuple, as PyTorch returns from ops with several results."""
    key = (op, fields)
    kind = _pairs.get(key)
    if kind is None:
        kind = _pairs[key] = type(op, (namedtuple(op, fields),), {"__slots__": (), "__repr__": _pair_repr})
    return kind(*values)


def _pair_repr(self: Any) -> str:
    lines = ",\n".join(f"{name}={value!r}" for name, value in zip(self._fields, self, strict=True))
    return f"gpugrad.return_types.{type(self).__name__}(\n{lines})"


_pairs: dict[tuple[str, str], Any] = {}


def device_of(backend: Any) -> Device:
    """The Device a backend stands for."""
    found = _devices.get(backend)
    if found is None:
        found = _devices[backend] = Device(backend.name, backend.index)
    return found


_devices: dict[Any, Device] = {}


# -- dtype rules -------------------------------------------------------------


def result_type(*operands: Any) -> dtypes.DType:
    """PyTorch's promotion: tensors with dimensions decide; a 0-d tensor, and below it a Python
    number, matters only where it brings a higher category (bool < integer < floating)."""
    if not operands:
        raise TypeError("result_type: expected two tensors or numbers, got none")
    dim = zero = number = None
    for x in operands:
        if isinstance(x, Tensor):
            d = x.dtype
            if x._array.ndim:
                dim = d if dim is None else dtypes.promote_types(dim, d)
            else:
                zero = d if zero is None else dtypes.promote_types(zero, d)
        elif isinstance(x, dtypes.DType):
            dim = x if dim is None else dtypes.promote_types(dim, x)
        else:
            d = number_dtype(x)
            number = d if number is None else dtypes.promote_types(number, d)
    return _combine(dim, _combine(zero, number))


def number_dtype(x: Any) -> dtypes.DType:
    """The dtype a Python number has on its own. Raises TypeError for anything else."""
    if isinstance(x, (bool, np.bool_)):
        return dtypes.bool_
    if isinstance(x, (int, np.integer)):
        return dtypes.int64
    if isinstance(x, (float, np.floating)):
        return dtypes.get_default_dtype()
    raise TypeError(f"expected a Tensor or a number, got {type(x).__name__}; make a tensor with gpugrad.tensor(...)")


def _combine(higher: Any, lower: Any) -> Any:
    if higher is None or lower is None:
        return higher or lower
    return lower if lower.category > higher.category else higher


# -- rows: primitives and views ----------------------------------------------


def primitive(name: str, vjp: Any = None, **row: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Declare a row computed by ``forward(backend, *arrays, **params)``.

    The decorated function becomes ``call(*tensors, **params)``; ``forward`` may return a
    tuple, of which the first is differentiable."""
    op = Op(name, "primitive", vjp, **row)

    def declare(forward: Callable[..., Any]) -> Callable[..., Any]:
        op.forward = forward if around_forward is None else around_forward(op, forward)

        differentiable = bool(op.vjps)

        def call(*inputs: Any, **params: Any) -> Any:
            x = inputs[0]
            backend = x._backend
            if len(inputs) == 1:
                value = op.forward(backend, x._array, **params)  # type: ignore[misc]
                if type(value) is not tuple:
                    out = wrap(value, backend)
                    if differentiable and mode.enabled:
                        record_one(op, out, x, params)
                    return out
            else:
                for x in inputs:
                    if x._backend is not backend:
                        same_device(name, inputs)
                arrays = [x._array for x in inputs]
                value = op.forward(backend, *arrays, **params)  # type: ignore[misc]
                if type(value) is not tuple:
                    out = wrap(value, backend)
                    if differentiable and mode.enabled:
                        record_tensors(op, out, inputs, arrays, params)
                    return out
            edges = _edges(inputs) if differentiable and mode.enabled else None
            outs = tuple(wrap(v, backend) for v in value)
            if edges is not None:
                record(op, outs[0], inputs, edges, params, outs[1])
            return outs

        call.__name__ = call.__qualname__ = name
        call.__doc__ = forward.__doc__
        call.op = op  # type: ignore[attr-defined]
        op.function = call
        return call

    return declare


def view(name: str, vjp: Any, **row: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Declare a row that makes a view: ``geometry(x, **params)`` returns the new shape, the
    strides (bytes) and the offset in bytes from the first element of ``x``."""
    op = Op(name, "view", vjp, **row)

    def declare(geometry: Callable[..., Any]) -> Callable[..., Any]:
        def call(x: Any, **params: Any) -> Any:
            out = make_view(x, *geometry(x._array, **params))
            if mode.enabled:
                record_one(op, out, x, params)
            return out

        call.__name__ = call.__qualname__ = name
        call.__doc__ = geometry.__doc__
        call.op = op  # type: ignore[attr-defined]
        op.function = call
        return call

    return declare


def composite(name: str | None = None, **row: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Declare a row composed of other ops: differentiable through them."""

    def declare(function: Callable[..., Any]) -> Callable[..., Any]:
        op = Op(name or function.__name__, "composite", None, **({"differentiable": True} | row))
        op.function = function
        function.op = op  # type: ignore[attr-defined]
        return function

    return declare


def public(op_name: str, **row: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Make the decorated function what users call for an existing row (it checks and
    normalises arguments, then calls the row); further fields of the row may be given."""

    def declare(function: Callable[..., Any]) -> Callable[..., Any]:
        op = OPS[op_name]
        op.function = function
        for key, value in row.items():
            setattr(op, key, value)
        function.op = op  # type: ignore[attr-defined]
        return function

    return declare
