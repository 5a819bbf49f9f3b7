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
from gpugrad.autograd.graph import AccumulateGrad, Node, Storage, edge_of, on_new_node, sequence, storage_of
from gpugrad.autograd.modes import mode
from gpugrad.devices import Device
from gpugrad.errors import DeviceError
from gpugrad.ops import traced
from gpugrad.ops.traced import Program, ShapedProgram

Tensor: Any = None  # the class in gpugrad/tensor.py, which binds itself here
_new = object.__new__
_INPUTS = "abcdef"
_RESULTS = {"y": -1, "second": -2}
_LAYOUTS = 256  # how many layouts of its operands a plan remembers

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
    of the operands and the parameters, which are all integers, tuples of such and dtypes."""

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
        "views",
        "by_shape",
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
    ) -> None:
        if name in OPS:
            raise ValueError(f"op {name!r} has a row already")
        self.name = name
        self.kind = kind
        self.function: Callable[..., Any] = _unset
        self.forward: Callable[..., Any] | None = None  # of primitives: what computes them
        self.variadic = _Vjp(vjp) if callable(vjp) and kind == "variadic" else None
        rules = () if vjp is None or self.variadic else vjp if isinstance(vjp, tuple) else (vjp,)
        self.vjps = tuple(None if f is None else _Vjp(f) for f in rules)
        self.plans: dict[int, Plan] = {}
        self.samples = tuple(samples)
        self.reference = reference
        self.domain = domain
        self.differentiable = (vjp is not None) if differentiable is None else differentiable
        self.elementwise = kind == "elementwise"
        self.views = kind == "view"
        self.dtypes = dtypes
        self.torch = torch or name
        self.by_shape = by_shape
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


class _Vjp:
    """A derivative rule and the names of its parameters."""

    __slots__ = ("function", "names")

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        code = function.__code__  # inspect.signature would cost more than the rest of the import
        self.names = code.co_varnames[: code.co_argcount]


class Plan:
    """For the calls of a row in which the same inputs have an edge: ``saves``, the input numbers (-1, -2 for a result)
    of what is kept, ``names`` what the rules call it; ``rules``, the (input number, function, places of its arguments)
    of the derivatives, where place 0 is the gradient and the others are what was saved in order; a rule with other
    arguments has None for places and takes them by name. ``numbers``: inputs known to be Python numbers."""

    __slots__ = ("op", "arity", "numbers", "names", "saves", "rules", "_programs", "_shaped")

    def __init__(self, op: Op, key: int, arity: int) -> None:
        rules = (op.variadic,) if op.variadic else tuple(v for i, v in enumerate(op.vjps) if key >> i & 1)
        names: dict[str, int] = {}
        for rule in rules:
            for n in rule.names if rule else ():
                if n in _RESULTS:
                    names[n] = _RESULTS[n]
                elif len(n) == 1 and n in _INPUTS:
                    names[n] = _INPUTS.index(n)
        self.op = op
        self.arity = arity
        self.numbers = frozenset(i for i in range(arity) if key >> arity + i & 1)
        self.names = tuple(names)
        self.saves = tuple(names.values())
        order = ["g", *names]
        self.rules: list[tuple[int, Any, tuple[int, ...] | None]] = []
        for i, rule in enumerate(() if op.variadic else op.vjps):
            if rule is not None and key >> i & 1:
                plain = all(n in order for n in rule.names)
                self.rules.append((i, rule, tuple(map(order.index, rule.names)) if plain else None))
        self._programs: dict[np.dtype, Program | None] = {}
        self._shaped: dict[Any, ShapedProgram | int | None] = {}

    def program(self, dtype: np.dtype) -> Program | None:
        """The derivatives written out over arrays of ``dtype`` (``gpugrad/ops/traced.py``), None where they cannot
        be."""
        try:
            return self._programs[dtype]
        except KeyError:
            plain = all(places is not None for _, _, places in self.rules)
            found = self._programs[dtype] = traced.write(self, dtype, wrap) if plain else None
            return found

    def shaped(self, node: OpNode, g: Any) -> ShapedProgram | None:
        """The derivatives written out for calls like that of ``node`` and a gradient like ``g``; from the third on, as
        writing takes as long as ten calls."""
        saved = node.saved or ()
        # dtypes among it: of g and, with node.dtypes, of inputs; what is saved is an input
        key = (g.dtype, g.shape, g.strides, node.shapes, node.dtypes, *node.params.values(),
               *[x.strides for x in saved[::3]])  # fmt: skip
        try:
            found = self._shaped.get(key, 0)
        except TypeError:  # a parameter without a hash
            return None
        if type(found) is not int:
            return found
        if len(self._shaped) >= _LAYOUTS:
            self._shaped.clear()
        if found < 2:
            self._shaped[key] = found + 1
            return None
        written = self._shaped[key] = traced.write_shaped(self, node, g, wrap)
        return written


# -- tensors -----------------------------------------------------------------


def bind(cls: type) -> None:
    """Called once by ``gpugrad.tensor`` with its Tensor class."""
    global Tensor
    Tensor = cls


def wrap(array: Any, backend: Any) -> Any:
    """A new tensor over ``array``: no graph, not a view."""
    t = _new(Tensor)
    t._array = array
    t._backend = backend
    t._requires_grad = False
    t._grad = None
    t._node = None
    t._storage = None
    t._base = None
    t._offset = 0
    t._generation = 0
    t._hooks = None
    return t


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


# -- recording ---------------------------------------------------------------


class OpNode(Node):
    """One recorded call of a row.

    ``saved``: array, storage record and its version of each value that ``plan.saves`` names, in one flat tuple (a
    Python number has no record); None once freed. ``shapes`` of the inputs, None for a Python number. ``dtypes``: one
    for each input; or a single one, by those who make nodes of elementwise rows, if that is the dtype of all inputs
    and of the result."""

    __slots__ = ("plan", "saved", "params", "shapes", "dtypes", "backend")

    shapes: tuple[Any, ...]
    dtypes: Any

    def __init__(
        self,
        op: Op,
        edges: tuple[Any, ...],
        saved: tuple[Any, ...] | None,
        params: dict[str, Any],
        meta: Sequence[Any],
        backend: Any,
        plan: Plan | None = None,
    ) -> None:
        Node.__init__(self, edges)
        self.plan = plan or op.plan(edges)
        self.saved = saved
        self.params = params
        self.shapes = tuple([None if m is None else m[0] for m in meta])
        self.dtypes = tuple([None if m is None else m[1] for m in meta])
        self.backend = backend

    @property
    def op(self) -> Op:
        """The row."""
        return self.plan.op

    @property
    def title(self) -> str:  # type: ignore[override]
        return self.plan.op.name

    @property
    def meta(self) -> tuple[Any, ...]:
        """(shape, numpy dtype) of each input, None for a Python number."""
        dtypes = self.dtypes if type(self.dtypes) is tuple else (self.dtypes,) * len(self.shapes)
        return tuple(None if shape is None else (shape, d) for shape, d in zip(self.shapes, dtypes, strict=True))

    def kept(self) -> list[tuple[str, int, Any, Storage | None, int]]:
        """What is saved: (name in the vjps, input number or -1, -2 for a result, array, storage record, version)."""
        saved = self.saved or ()
        pairs = zip(self.plan.names, self.plan.saves, strict=True) if saved else ()
        return [(name, position, *saved[3 * k : 3 * k + 3]) for k, (name, position) in enumerate(pairs)]

    def keep(self, kept: Sequence[tuple[str, int, Any, Storage | None, int]]) -> None:
        """Save this instead, in the form that :meth:`kept` returns."""
        self.saved = tuple([x for item in kept for x in item[2:]])

    def release(self) -> None:
        if self.saved:
            self.saved = None

    def apply(self, gradient: Any, create_graph: bool) -> tuple[Any, ...]:
        saved = self.saved
        if saved is None:
            raise RuntimeError(
                f"{self.title}: this graph was already walked and its saved values are freed; pass "
                "retain_graph=True to the first backward to walk it twice"
            )
        dtype = self.dtypes
        if type(dtype) is not tuple and not create_graph:
            program = self.plan.program(dtype)
            g = gradient._array
            backend = self.backend
            if program is not None and g.dtype is dtype and gradient._backend is backend:
                arrays = program(backend.map, g, saved)
                if arrays is not None:
                    return self._as_gradients(arrays, gradient)
        elif not create_graph and self.plan.op.by_shape and around_forward is None:
            # While the profiler is on, the rows are called, whose names it wants.
            backend = self.backend
            if gradient._backend is backend:
                g = gradient._array
                shaped = self.plan.shaped(self, g)
                if shaped is not None:
                    arrays = shaped[0](backend, g, saved)
                    if arrays is not None:
                        return self._wrapped(arrays, shaped[1])
        return self._apply_in_ops(gradient, saved, create_graph)

    def _as_gradients(self, arrays: tuple[Any, ...], gradient: Any) -> tuple[Any, ...]:
        """What a program made of ``gradient``, in the shapes of the inputs."""
        shapes = self.shapes
        result: list[Any] = []
        for i, array in enumerate(arrays):
            if array is None:
                result.append(None)
                continue
            g = gradient if array is gradient._array else wrap(array, self.backend)
            result.append(g if array.shape == shapes[i] else _sum_to(g, shapes[i]))
        return tuple(result)

    def _wrapped(self, arrays: tuple[Any, ...], own: tuple[bool, ...]) -> tuple[Any, ...]:
        """What a program of the shape made; a storage record says that memory is shared, as a view's does."""
        result: list[Any] = []
        for array, owned in zip(arrays, own):  # noqa: B905  # strict costs as much as the loop
            if array is not None:
                array = wrap(array, self.backend)
                if not owned:
                    array._storage = Storage(array._array.nbytes)
            result.append(array)
        return tuple(result)

    def _apply_in_ops(self, gradient: Any, saved: tuple[Any, ...], create_graph: bool) -> tuple[Any, ...]:
        """The derivatives as the row writes them."""
        plan = self.plan
        op = plan.op
        values = [gradient]
        for k, position in enumerate(plan.saves):
            array, storage, version = saved[3 * k : 3 * k + 3]
            if storage is None:
                values.append(array)  # a Python scalar
            elif create_graph or storage.version != version:
                values.append(self._unpack(position, array, storage, version, create_graph))
            else:
                t = wrap(array, self.backend)
                t._storage = storage
                values.append(t)
        if op.variadic is not None:
            return tuple(op.variadic.function(*self.arguments(op.variadic, values)))
        result: list[Any] = [None] * len(self.edges)
        shapes, dtypes = self.shapes, self.dtypes
        elementwise = op.elementwise
        for i, rule, places in plan.rules:
            if places is None:
                g = rule.function(*self.arguments(rule, values))
            elif len(places) == 2:
                g = rule.function(values[places[0]], values[places[1]])
            else:
                g = rule.function(*[values[p] for p in places])
            if g is not None:
                dtype = dtypes[i] if type(dtypes) is tuple else dtypes
                array = g._array
                if elementwise and array.shape != shapes[i]:
                    g = _sum_to(g, shapes[i])
                if array.dtype is not dtype and array.dtype != dtype:
                    g = _cast(g, dtype)
                result[i] = g
        return tuple(result)

    def arguments(self, rule: _Vjp, values: Sequence[Any]) -> list[Any]:
        """What a rule takes by name: the gradient, saved values, parameters of the call, shapes of inputs."""
        names = self.plan.names
        params = self.params
        arguments = []
        for n in rule.names:
            if n == "g":
                arguments.append(values[0])
            elif n in names:
                arguments.append(values[1 + names.index(n)])
            elif n in params:
                arguments.append(params[n])
            elif n == "shapes":
                arguments.append(list(self.shapes))
            elif n == "needed":
                arguments.append([e is not None for e in self.edges])
            else:  # "a_shape"
                arguments.append(self.shapes[_INPUTS.index(n[0])])
        return arguments

    def _unpack(self, position: int, array: Any, storage: Storage, version: int, create_graph: bool) -> Any:
        if storage.version != version:
            what = "its result" if position < 0 else f"its input {position}"
            raise RuntimeError(
                f"{self.title}: {what}, of shape {tuple(array.shape)}, was saved for backward and then changed in "
                f"place by {storage.changed_by} (version {storage.version}, saved at {version}); "
                "change a clone, or do it out of place"
            )
        t = wrap(array, self.backend)
        t._storage = storage
        if create_graph:
            edge = self.edges[position] if position >= 0 else self if position == -1 else None
            t._node = edge if edge is None or isinstance(edge, Node) else AccumulateGrad(edge)
        return t


def record(
    op: Op, out: Any, inputs: Sequence[Any], edges: tuple[Any, ...], params: dict[str, Any], second: Any = None
) -> None:
    """Give ``out``, just computed from ``inputs``, its node."""
    out._node = make_node(op, out, inputs, edges, params, second)


def make_node(
    op: Op, out: Any, inputs: Sequence[Any], edges: tuple[Any, ...], params: dict[str, Any], second: Any = None
) -> OpNode:
    """The node of a call of ``op``; saves what the plan says."""
    shapes: list[Any] = []
    dtypes: list[Any] = []
    for x in inputs:
        if isinstance(x, Tensor):
            shapes.append(x._array.shape)
            dtypes.append(x._array.dtype)
        else:
            shapes.append(None)
            dtypes.append(None)
    return note(op.plan(edges), out, inputs, edges, tuple(shapes), tuple(dtypes), params, second)


def note(
    plan: Plan,
    out: Any,
    inputs: Sequence[Any],
    edges: tuple[Any, ...],
    shapes: tuple[Any, ...],
    dtypes: Any,
    params: dict[str, Any],
    second: Any = None,
) -> OpNode:
    """The node of a call that has ``plan``, put together here because every recorded call comes by: no constructor, as
    two more Python calls would be a fifth of the time."""
    node = _new(OpNode)
    node.edges = edges
    node.sequence = next(sequence)
    node.hooks = None
    node.plan = plan
    node.params = params
    node.shapes = shapes
    node.dtypes = dtypes
    backend = out._backend
    saves = plan.saves
    if saves:
        saved: list[Any] = []
        for position in saves:
            x = inputs[position] if position >= 0 else out if position == -1 else second
            if isinstance(x, Tensor):
                storage = x._storage
                if storage is None:
                    storage = x._storage = Storage(x._array.nbytes)
                saved += (x._array, storage, storage.version)
                if position >= 0:
                    backend = x._backend  # another one if the call moved x
            else:
                saved += (x, None, 0)
        node.saved = tuple(saved)
    else:
        node.saved = ()
    node.backend = backend
    if on_new_node:
        on_new_node[0](node)
    return node


def _record_one(op: Op, out: Any, x: Any, params: dict[str, Any]) -> None:
    """:func:`record` for the one input ``x``, if that has an edge."""
    edge = edge_of(x)
    if edge is not None:
        array = x._array
        plan = op.plans.get(1) or op.new_plan(1, 1)
        out._node = note(plan, out, (x,), (edge,), (array.shape,), (array.dtype,), params)


def _record_tensors(
    op: Op, out: Any, inputs: tuple[Any, ...], arrays: Sequence[Any], params: dict[str, Any]
) -> None:
    """:func:`record` for ``inputs`` that are all tensors, if one of them has an edge."""
    key = 0
    bit = 1
    edges = []
    for x in inputs:
        edge = x._node if x._base is None else edge_of(x)
        if edge is None and x._requires_grad:
            edge = x
        edges.append(edge)
        if edge is not None:
            key |= bit
        bit <<= 1
    if key:
        plan = op.plans.get(key) or op.new_plan(key, len(edges))
        shapes, dtypes = tuple([a.shape for a in arrays]), tuple([a.dtype for a in arrays])
        out._node = note(plan, out, inputs, tuple(edges), shapes, dtypes, params)


def _edges(inputs: Sequence[Any]) -> tuple[Any, ...] | None:
    """Edges of the inputs, or None if no gradient is asked for."""
    if not mode.enabled:
        return None
    edges = tuple([edge_of(x) if isinstance(x, Tensor) else None for x in inputs])
    for e in edges:
        if e is not None:
            return edges
    return None


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
    if lower.category > higher.category:
        return lower if higher.category == 0 or lower.category == 2 else higher
    return higher


def _cast(x: Any, dtype: np.dtype) -> Any:
    from gpugrad.ops.creation import cast

    return cast(x, dtypes.from_numpy(dtype))


def _sum_to(g: Any, shape: Sequence[int]) -> Any:
    from gpugrad.ops.reductions import sum_to

    return sum_to(g, shape)


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
                        _record_one(op, out, x, params)
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
                        _record_tensors(op, out, inputs, arrays, params)
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
                _record_one(op, out, x, params)
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
