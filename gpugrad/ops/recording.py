"""Recording a call of a row: what its derivatives need is planned, saved in a node, and later handed to them.

What a call saves is the same in every call of a row in which the same inputs want a gradient: a :class:`Plan`.
:func:`note` makes the :class:`OpNode` of one call, whose ``apply`` calls the derivatives, or what was traced of them
(``gpugrad/ops/traced.py``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from gpugrad import dtypes
from gpugrad.autograd.graph import AccumulateGrad, Node, Storage, edge_of, on_new_node, sequence
from gpugrad.autograd.modes import mode
from gpugrad.ops import traced
from gpugrad.ops.traced import Program, ShapedProgram

if TYPE_CHECKING:
    from gpugrad.ops.table import Op

Tensor: Any = None  # the class in gpugrad/tensor.py, which ``table.bind`` puts here
_new = object.__new__
INPUTS = "abcdef"
_RESULTS = {"y": -1, "second": -2}
_LAYOUTS = 256  # how many layouts of its operands a plan remembers


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


class Vjp:
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
                elif len(n) == 1 and n in INPUTS:
                    names[n] = INPUTS.index(n)
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
        if not isinstance(found, int):
            return found
        if len(self._shaped) >= _LAYOUTS:
            self._shaped.clear()
        if found < 2:
            self._shaped[key] = found + 1
            return None
        written = self._shaped[key] = traced.write_shaped(self, node, g, wrap)
        return written


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
            apart = dtype.itemsize == 2 and any(s is not None and s != g.shape for s in self.shapes)
            if program is not None and g.dtype is dtype and gradient._backend is backend and not apart:
                arrays = program(backend.map, g, saved)
                if arrays is not None:
                    return self._as_gradients(arrays, gradient)
        elif not create_graph and self.plan.op.by_shape:
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
        if op.widens:
            values = [_in_float32(v) for v in values]
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

    def arguments(self, rule: Vjp, values: Sequence[Any]) -> list[Any]:
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
                arguments.append(self.shapes[INPUTS.index(n[0])])
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
            else:
                saved += (x, None, 0)
        node.saved = tuple(saved)
    else:
        node.saved = ()
    node.backend = out._backend
    if on_new_node:
        on_new_node[0](node)
    return node


def record_one(op: Op, out: Any, x: Any, params: dict[str, Any]) -> None:
    """:func:`record` for the one input ``x``, if that has an edge."""
    edge = edge_of(x)
    if edge is not None:
        array = x._array
        plan = op.plans.get(1) or op.new_plan(1, 1)
        out._node = note(plan, out, (x,), (edge,), (array.shape,), (array.dtype,), params)


def record_tensors(op: Op, out: Any, inputs: tuple[Any, ...], arrays: Sequence[Any], params: dict[str, Any]) -> None:
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


# -- undoing what broadcasting and promotion did -----------------------------------


def _in_float32(x: Any) -> Any:
    """Tensors of half types in float32; anything else as it is."""
    if isinstance(x, Tensor) and x._array.dtype in dtypes.HALVES:
        return _cast(x, dtypes.float32.numpy)
    return x


def _cast(x: Any, dtype: np.dtype) -> Any:
    from gpugrad.ops.creation import cast

    return cast(x, dtypes.from_numpy(dtype))


def _sum_to(g: Any, shape: Sequence[int]) -> Any:
    from gpugrad.ops.reductions import sum_to

    return sum_to(g, shape)
