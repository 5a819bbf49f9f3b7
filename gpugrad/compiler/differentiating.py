"""Compiled functions whose results are differentiated outside: a program for the way there, one for the way back.

After the function has run, its graph is walked back once while the tracer still listens, with gradients that are
arguments of the backward program. What that program reads of the forward one is handed over, as autograd's saved values
are; the graph itself is dropped, and one node stands for all of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from gpugrad.autograd import engine
from gpugrad.autograd.graph import Node, Parts, Slot, edge_of, storage_of
from gpugrad.compiler.program import Buffer, Call, Fill, Map, Number, Program, Reduce, Step, View
from gpugrad.compiler.trees import builder
from gpugrad.ops.table import wrap
from gpugrad.tensor import Tensor


class Boundary(Node):
    """Between an argument and its history: while a function is traced, walks end here."""

    __slots__ = ("behind", "received")
    title = "compiled"

    def __init__(self, behind: Any) -> None:
        Node.__init__(self, ())
        self.behind = behind
        self.received = False

    def open(self) -> None:
        """Let gradients pass on to the history."""
        self.edges = (self.behind,)

    def apply(self, gradient: Any, create_graph: bool) -> tuple[Any, ...]:
        if not self.edges:
            self.received = True
            return ()
        return (gradient,)


class CompiledNode(Node):
    """The backward of one run of a compiled function: ``saved`` are the arrays its program takes besides gradients."""

    __slots__ = ("of", "saved", "versions")
    title = "compiled"

    def __init__(self, of: Differentiated, edges: tuple[Any, ...], saved: list[Any], versions: list[Any]) -> None:
        Node.__init__(self, edges)
        self.of = of
        self.saved: list[Any] | None = saved
        self.versions = versions

    def release(self) -> None:
        self.saved = None

    def apply(self, gradient: Any, create_graph: bool) -> tuple[Any, ...]:
        if self.saved is None:
            raise RuntimeError(
                "compiled: this graph was already walked and its saved values are freed; pass retain_graph=True to the "
                "first backward to walk it twice"
            )
        if create_graph:
            raise RuntimeError(
                "compiled: the gradients of a compiled function cannot be differentiated again; call the function "
                "itself, uncompiled, where create_graph is needed"
            )
        for storage, version in self.versions:
            if storage.version != version:
                raise RuntimeError(
                    f"compiled: a value saved for backward was changed in place by {storage.changed_by} (version "
                    f"{storage.version}, saved at {version}); change a clone, or do it after backward"
                )
        return self.of.gradients(gradient, self.saved)


class Differentiated:
    """How the results of a forward program are given their node, and what the node does."""

    def __init__(self) -> None:
        self.backward: Any = None  # the lowered backward program, None if nothing has a gradient
        self.backend: Any = None
        self.count = 0  # results of the forward program that are the user's; those that are saved come after them
        self.outputs: list[int] = []  # which of them are differentiable
        self.shapes: list[tuple[tuple[int, ...], Any]] = []  # of these
        #: for each saved argument of the backward program: ("saved", n), or ("input", n) of the forward's inputs
        self.saved: list[tuple[str, int]] = []
        self.edges: list[Any] = []  # leaf tensors, or numbers of inputs
        self.found: list[int | None] = []  # for each edge the result of the backward program
        self.watched: list[Any] = []  # tensors, or numbers of inputs, whose memory the backward program reads
        self.shared: list[int] = []  # results of the backward program over memory that others have as well
        self.first_saved: list[Any] = []
        self.kept: set[Buffer | None] = set()  # memory that is not the program's own and is read on the way back
        self.fresh: dict[int, int] = {}  # id of a tensor that the traced run returned -> number of the result

    def results(self, values: list[Any], inputs: Sequence[Tensor]) -> list[Tensor]:
        """Tensors for the forward program's results ``values``."""
        made = [wrap(v, self.backend) for v in values[: self.count]]
        self._connect(made, values[self.count :], inputs)
        return made

    def _connect(self, made: Sequence[Tensor], extra: Sequence[Any], inputs: Sequence[Tensor]) -> None:
        saved = [extra[n] if kind == "saved" else inputs[n]._array for kind, n in self.saved]
        edges = tuple(edge_of(inputs[e]) if isinstance(e, int) else e for e in self.edges)
        versions = []
        for t in self.watched:
            storage = storage_of(inputs[t] if isinstance(t, int) else t)
            versions.append((storage, storage.version))
        node = CompiledNode(self, edges, saved, versions)
        for k, n in enumerate(self.outputs):
            made[n]._node = node if len(self.outputs) == 1 else Slot(node, k)
            made[n]._requires_grad = False

    def gradients(self, gradient: Any, saved: list[Any]) -> tuple[Any, ...]:
        """One gradient for each edge."""
        backend = self.backend
        parts = gradient.of if isinstance(gradient, Parts) else {0: gradient}
        arguments = []
        for k, (shape, dtype) in enumerate(self.shapes):
            if k in parts:
                array = parts[k]._array
                if array.dtype != dtype or not parts[k].is_contiguous():
                    array = backend.copy(array, dtype)
            else:
                array = backend.empty(shape, dtype)
                backend.fill(array, 0)
            arguments.append(array)
        values = self.backward.run([*arguments, *saved], ())
        for n in self.shared:
            values[n] = backend.copy(values[n])
        return tuple(None if n is None else wrap(values[n], backend) for n in self.found)

    def first(self, results: list[Any], shape: Any, inputs: Sequence[Tensor]) -> Any:
        """The results of the traced run itself, with the program's node instead of the graph that was traced."""
        made: dict[int, Tensor] = {}
        numbers: list[Tensor] = []
        leaves = []
        for x in results:
            if isinstance(x, Tensor) and id(x) in self.fresh:
                if id(x) not in made:
                    t = wrap(x._array, x._backend)
                    made[id(x)] = t
                    numbers.append(t)
                leaves.append(made[id(x)])
            else:
                leaves.append(x)
        by_number = [None] * self.count
        for x in results:
            if isinstance(x, Tensor) and id(x) in self.fresh:
                by_number[self.fresh[id(x)]] = made[id(x)]  # type: ignore[call-overload]
        self._connect(by_number, self.first_saved, inputs)  # type: ignore[arg-type]
        self.first_saved = []
        return builder(shape)(leaves)


def differentiate(
    tracer: Any, program: Program, outputs: list[Tensor], numbers: dict[int, int], inputs: list[Tensor], around: Any,
    lower: Callable[[Program], Any],
) -> Differentiated | None:  # fmt: skip
    """Walk back from ``outputs`` (``numbers``: which result of the program each tensor is), and split the program
    in two. ``inputs``: the tensors the function was called with. None, with the tracer's reason, if that cannot be."""
    self = Differentiated()
    self.backend = backend = program.backend
    self.count = len(program.results)
    self.fresh = numbers
    self.outputs = [numbers[id(t)] for t in outputs]
    marker = len(program.steps)
    arguments: list[Buffer] = []
    gradients = []
    for t in outputs:
        tracer.inside = True
        array = backend.empty(t._array.shape, t._array.dtype)
        backend.fill(array, 1)
        tracer.inside = False
        buffer = tracer._register(array, backend, "argument")
        arguments.append(buffer)
        gradients.append(wrap(array, backend))
        self.shapes.append((tuple(array.shape), array.dtype))
    wanted, self.edges = [], []
    for i, t in enumerate(inputs):
        edge = edge_of(t)
        if edge is not None:
            wanted.append(edge)
            self.edges.append(i)
    for t in around.tensors.values():
        if t._requires_grad and t._node is None:
            wanted.append(t)
            self.edges.append(t)
        elif t._node is not None and tracer.knows(t._array, backend):
            tracer.broken(f"uses a tensor of shape {tuple(t.shape)} from outside that was computed from others")
            return None
    # Hooks of leaves run when their gradient arrives, at each run; what is traced ends before them.
    hooks = [(t, t._hooks) for t in {id(e): e for e in wanted if not isinstance(e, Node)}.values()]
    for leaf, _ in hooks:
        leaf._hooks = None
    try:
        roots: Any = [(edge_of(t), g) for t, g in zip(outputs, gradients, strict=True)]
        captured = engine.walk(roots, True, False, wanted)
    except RuntimeError as error:
        tracer.broken(f"cannot be walked back: {error}")
    finally:
        for leaf, kept in hooks:
            leaf._hooks = kept
    if tracer.reason is not None:
        return None
    views: list[View] = []
    for edge in wanted:
        g = captured.get(id(edge))
        self.found.append(None if g is None else len(views))
        if g is not None:
            view = tracer.view(g._array, backend)
            if view is None:
                return None
            views.append(view)
    used = [i for i, n in enumerate(self.found) if n is not None]
    self.edges = [self.edges[i] for i in used]
    self.found = [self.found[i] for i in used]
    back = _split(self, tracer, program, marker, arguments, views)
    if back is None:
        return None
    positions = {id(t): i for i, t in enumerate(inputs)}
    for t in (*inputs, *around.tensors.values()):
        if tracer.knows(t._array, backend) in self.kept:
            self.watched.append(positions.get(id(t), t))
    self.backward = lower(back)
    return self


def _split(
    self: Differentiated, tracer: Any, program: Program, marker: int, arguments: list[Buffer], views: list[View]
) -> Program | None:
    """The backward program, taken off the end of ``program``; what it reads becomes results of ``program``."""
    forward = set(map(id, program.steps[:marker]))
    tracer.fold({v.buffer for v in (*program.results, *views)})
    back = Program(program.backend)
    back.steps = [s for s in program.steps if id(s) not in forward]
    program.steps = [s for s in program.steps if id(s) in forward]
    back.results = views
    back.prune()
    if any(isinstance(x, Number) for step in back.steps for x in _scalars(step)):
        tracer.broken("needs a number in its backward that changes from step to step")
        return None
    written = {v.buffer for step in program.steps for v in step.writes()}
    twins: dict[Buffer, Buffer] = {}

    def twin(b: Buffer) -> Buffer:
        found = twins.get(b)
        if found is not None:
            return found
        role, position = b.role, -1
        if b not in arguments and b.role in ("outside", "argument"):
            self.kept.add(b)
        if b in arguments:
            position = arguments.index(b)
        elif b.role == "argument":
            position = len(arguments) + len(self.saved)
            self.saved.append(("input", b.position))
        elif b.role == "temporary" and (b in written or b in made_before):
            role, position = "argument", len(arguments) + len(self.saved)
            self.saved.append(("saved", len(program.results) - self.count))
            array = tracer.arrays[b]
            program.results.append(View(b, 0, tuple(array.shape), tuple(array.strides), array.dtype))
            self.first_saved.append(array)
        new = Buffer(len(back.buffers), b.nbytes, b.dtype, role, b.array)
        new.position = position
        back.buffers.append(new)
        twins[b] = new
        return new

    made_before = {v.buffer for v in program.results}
    back.steps = [_moved(step, twin) for step in back.steps]
    back.results = [v._replace(buffer=twin(v.buffer)) for v in back.results]
    met: set[Buffer] = set()
    for n, v in enumerate(back.results):
        if v.buffer.role == "temporary":
            v.buffer.role = "result"
        if v.buffer.role != "result" or v.buffer in met:
            self.shared.append(n)
        met.add(v.buffer)
    return back


def _scalars(step: Step) -> Sequence[Any]:
    if isinstance(step, Map):
        return step.inputs
    if isinstance(step, Call):
        return (*step.args, *step.kwargs.values())
    return (step.value,) if isinstance(step, Fill) else ()


def _moved(step: Step, twin: Callable[[Buffer], Buffer]) -> Step:
    """``step`` over other buffers."""

    def move(x: Any) -> Any:
        if isinstance(x, View):
            return x._replace(buffer=twin(x.buffer))
        if isinstance(x, Number) or not isinstance(x, (list, tuple)):
            return x
        return type(x)([move(e) for e in x])

    if isinstance(step, Map):
        return Map(step.kernel, [move(x) for x in step.inputs], step.compute, move(step.out))
    if isinstance(step, Reduce):
        return Reduce(step.kind, move(step.input), step.axes, move(step.out))
    if isinstance(step, Fill):
        return Fill(step.value, move(step.out))
    kwargs = {k: move(x) for k, x in step.kwargs.items()}
    return Call(step.method, [move(x) for x in step.args], kwargs, [move(v) for v in step.results],
                [move(v) for v in step.stores], step.single)  # fmt: skip
