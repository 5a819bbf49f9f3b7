"""One traced call of a function, and what it takes to run it again."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import Any

from gpugrad.autograd.graph import Node, edge_of, storage_of
from gpugrad.autograd.modes import mode
from gpugrad.compiler.differentiating import Boundary, Differentiated, differentiate
from gpugrad.compiler.guards import Surroundings, random_state
from gpugrad.compiler.lowering import Lowering
from gpugrad.compiler.program import Program, View
from gpugrad.compiler.tracing import Tracer
from gpugrad.compiler.trees import builder, flatten
from gpugrad.ops.table import wrap
from gpugrad.tensor import Tensor

_LOWERINGS = {"host": "gpugrad.compiler.host:HostLowering", "launches": "gpugrad.compiler.launches:LaunchLowering"}


def lower(program: Program) -> Lowering:
    """``program`` ready to run, in the way of its backend."""
    name = _LOWERINGS.get(program.backend.lowering)
    if name is None:
        return Lowering(program)
    module, _, kind = name.partition(":")
    return getattr(importlib.import_module(module), kind)(program)


class Spent(Node):
    """Stands behind a result whose graph was walked inside the compiled function."""

    __slots__ = ()
    title = "compiled"

    def __init__(self) -> None:
        Node.__init__(self, ())

    def apply(self, gradient: Any, create_graph: bool) -> tuple[Any, ...]:
        raise RuntimeError(
            "compiled: the graph of this result was walked inside the compiled function and is gone; call backward "
            "either inside or outside of it"
        )


class Trace:
    """One traced program with what it stands on: run it with :meth:`run` if :attr:`holds` says so."""

    def __init__(self) -> None:
        self.holds: Callable[[], bool] = lambda: True
        self.lowering: Lowering | None = None
        self.program: Program | None = None
        self.inputs: list[int] = []  # which leaves of the arguments are its tensors
        self.build: Callable[[Sequence[Any]], Any] = lambda leaves: None
        #: of each leaf of the result: ("result", n), ("leaf", n) of the arguments, or ("value", object)
        self.results: list[tuple[str, Any]] = []
        self.spent: set[int] = set()
        self.gradients: list[tuple[Any, int]] = []  # tensor or number of a leaf, number of the result
        self.versions: list[tuple[Any, int, str]] = []
        self.differentiated: Differentiated | None = None
        self.outside: set[int] = set()  # owners of memory from outside
        self.guards = 0
        self.kept: list[Any] = []  # arguments that are known by their id
        self.same: list[tuple[int, int]] = []
        self.known: list[tuple[int, Any]] = []

    def run(self, leaves: list[Any]) -> Any:
        inputs = [leaves[i] for i in self.inputs]
        backend, values = None, []
        if self.lowering is not None:
            assert self.program is not None
            backend = self.program.backend
            numbers = self.program.numbers() if self.program.live else ()
            values = self.lowering.run([t._array for t in inputs], numbers)
        for storage, count, by in self.versions:
            storage.version += count
            storage.changed_by = by
        if self.differentiated is not None:
            made = self.differentiated.results(values, inputs)
        else:
            made = [wrap(v, backend) for v in values]
        for n in self.spent:
            made[n]._node = Spent()
        for where, n in self.gradients:
            (leaves[where] if isinstance(where, int) else where)._grad = made[n]
        return self.build(
            [made[x] if kind == "result" else leaves[x] if kind == "leaf" else x for kind, x in self.results]
        )

    def lowerings(self) -> list[tuple[str, Lowering]]:
        """Its lowered programs, each with how :meth:`Compiled.explain` calls it."""
        both = ("", self.lowering), (", backward", self.differentiated.backward if self.differentiated else None)
        return [(what, lowering) for what, lowering in both if lowering is not None]

    def fits(self, leaves: list[Any]) -> bool:
        """Whether arguments that were one tensor when this was traced, or one from outside, are so now, and no other
        argument shares memory with another, or with what the program knows from outside."""
        if any(leaves[i] is not x for i, x in self.known) or any(leaves[i] is not leaves[j] for i, j in self.same):
            return False
        owners = set()
        for i in self.inputs:
            t = leaves[i]
            owner = id(t._backend.extent(t._array)[0])
            if owner in owners or owner in self.outside:
                return False
            owners.add(owner)
        return True


class Attempt:
    """One traced call. After :meth:`run`, either ``trace`` can be run again, or ``reason`` says why it cannot, or
    ``vain`` why not yet."""

    def __init__(self, function: Callable[..., Any], shape: Any, leaves: list[Any], named: bool) -> None:
        self.function = function
        self.named = named
        self.build_arguments = builder(shape)
        self.leaves = leaves
        self.trace = Trace()
        self.trace.kept = [x for x in leaves if not isinstance(x, Tensor)]
        self.reason: str | None = None
        self.vain: str | None = None
        self.tracer = Tracer()

    def run(self) -> Any:
        """Call the function, listening; returns what it returned."""
        leaves = self.leaves
        around = Surroundings(self.function, *_reached(leaves))
        inputs, given = self._inputs(around)
        watched = [*around.tensors.values(), *(x for x in leaves if isinstance(x, Tensor))]
        before = [(t, t._grad, t._storage.version if t._storage else 0, t._array) for t in watched]
        tracer = self.tracer
        if around.reason is not None:
            tracer.reason = around.reason
        chance = random_state()
        with tracer:
            try:
                for position, i in enumerate(inputs):
                    tracer.argument(leaves[i]._array, leaves[i]._backend, position)
            except NotImplementedError as error:
                tracer.broken(str(error))
            arguments = self.build_arguments(given)
            args, kwargs = arguments if self.named else (arguments, {})
            value = self.function(*args, **kwargs)
            if random_state() != chance:
                tracer.broken("draws random numbers of Python or NumPy; draw them outside, or with gpugrad")
            results: list[Any] = []
            shape = flatten(value, results)
            made = {id(t): t for t in results if isinstance(t, Tensor)}
            differentiable = [] if tracer.walked else [t for t in made.values() if edge_of(t) is not None
                                                       and id(t) not in map(id, given)
                                                       and id(t) not in around.tensors]  # fmt: skip
            self.trace.inputs = inputs
            if tracer.reason is None:
                self._settle(results, shape, given, around, before, differentiable)
        self.reason = tracer.reason
        if self.reason is None and self.vain is None:
            self.trace.lowering = None if self.trace.program is None else lower(self.trace.program)
            if self.trace.differentiated is not None:
                # The results of this run are those of the program, so that their backward is the program's, too.
                return self.trace.differentiated.first(results, shape, [leaves[i] for i in inputs])
        return self._opened(value, given)

    def _inputs(self, around: Surroundings) -> tuple[list[int], list[Any]]:
        """Which leaves are the program's arguments, and the leaves that the function is called with."""
        inputs: list[int] = []
        given = list(self.leaves)
        first: dict[int, int] = {}
        for i, x in enumerate(self.leaves):
            if not isinstance(x, Tensor):
                continue
            if id(x) in around.tensors:
                self.trace.known.append((i, x))
            elif id(x) in first:
                self.trace.same.append((i, first[id(x)]))
                given[i] = given[first[id(x)]]
            else:
                first[id(x)] = i
                inputs.append(i)
                if x._node is not None and mode.enabled:
                    # Its history stays outside: what the function sees is a leaf over the same memory.
                    alias = wrap(x._array, x._backend)
                    alias._storage = storage_of(x)
                    alias._node = Boundary(edge_of(x))
                    given[i] = alias
        return inputs, given

    def _settle(
        self,
        results: list[Any],
        shape: Any,
        given: list[Any],
        around: Any,
        before: list[Any],
        differentiable: list[Any],
    ) -> None:
        """Find out what the program leaves behind, and what it stands on."""
        tracer, trace = self.tracer, self.trace
        if any(isinstance(x._node, Boundary) and x._node.received for x in given if isinstance(x, Tensor)):
            raise RuntimeError(
                "compile: the function walks a graph back beyond an argument that was computed outside; call it "
                "uncompiled, or with the argument detached"
            )
        changed = around.changed()
        if changed is not None:
            self.vain = changed
            return
        extra: list[tuple[str, tuple[Any, ...]]] = []
        outputs: list[View] = []
        gradients = self._gradients(before, extra, outputs)
        if gradients is None:
            return
        position = {id(x): i for i, x in enumerate(self.leaves) if isinstance(x, Tensor)}
        position |= {id(given[i]): i for i in range(len(given)) if isinstance(given[i], Tensor)}
        trace.gradients = [(position.get(id(t), t), n) for t, n in gradients]
        numbers: dict[int, int] = {}
        for x in results:
            if not isinstance(x, Tensor):
                trace.results.append(("value", x))
            elif id(x) in position:
                trace.results.append(("leaf", position[id(x)]))
            elif id(x) in around.tensors:
                trace.results.append(("value", x))
            else:
                if id(x) not in numbers:
                    numbers[id(x)] = len(outputs)
                    view = tracer.view(x._array, x._backend)
                    if view is None:
                        return
                    if view.buffer.role in ("argument", "outside") and not tracer.is_constant(view.buffer):
                        tracer.broken("returns a view of memory that is not its own")
                        return
                    outputs.append(view)
                    if edge_of(x) is not None and not any(x is d for d in differentiable):
                        trace.spent.add(numbers[id(x)])
                trace.results.append(("result", numbers[id(x)]))
        trace.build = builder(shape)
        self._versions(before)
        program = tracer.program
        if program is not None:
            program.live = tracer.live_functions
            program.results = outputs
            if not differentiable:
                tracer.fold({v.buffer for v in outputs})
            if differentiable:
                leaves = [given[i] for i in trace.inputs]
                trace.differentiated = differentiate(tracer, program, differentiable, numbers, leaves, around, lower)
                if tracer.reason is not None:
                    return
            self._prepare(program)
            trace.program = program
        self._guard(around, before, extra)

    def _gradients(self, before: list[Any], extra: list[Any], outputs: list[View]) -> list[tuple[Any, int]] | None:
        """Which tensors got a new gradient, as (tensor, number of the result); None if the trace has ended."""
        found: list[tuple[Any, int]] = []
        done: set[int] = set()
        for t, old, _, array in before:
            if id(t) in done:
                continue
            done.add(id(t))
            if t._array is not array:
                self.tracer.broken("gives a tensor other memory")
                return None
            new = t._grad
            if new is old:
                if old is not None:
                    extra.append(("{}._grad is {} and {}._array is {}", (t, old, old, old._array)))
                continue
            if new is None:
                self.tracer.broken("takes the gradient of a tensor away without giving it another")
                return None
            if old is None:
                extra.append(("{}._grad is None", (t,)))
            view = self.tracer.view(new._array, new._backend)
            if view is None:
                return None
            if view.buffer.role in ("argument", "outside"):
                self.tracer.broken("makes memory from outside the gradient of a tensor")
                return None
            found.append((t, len(outputs)))
            outputs.append(view)
        return found

    def _versions(self, before: list[Any]) -> None:
        done: set[int] = set()
        for t, old, version, _ in before:
            for x, was in ((t, version), (old, None)):
                storage = x._storage if x is not None else None
                if storage is None or id(storage) in done or was is None:
                    continue
                done.add(id(storage))
                if storage.version != was:
                    self.trace.versions.append((storage, storage.version - was, storage.changed_by))

    def _prepare(self, program: Program) -> None:
        for v in program.results:
            if v.buffer.role == "temporary":
                v.buffer.role = "result"
        program.prune()

    def _guard(self, around: Surroundings, before: list[Any], extra: list[Any]) -> None:
        trace, tracer = self.trace, self.tracer
        owners = {}
        for t in around.tensors.values():
            extra.append(("{}._array is {}", (t, t._array)))
            extra.append((f"{{}}._requires_grad is {t._requires_grad}", (t,)))
            owners[id(t._backend.extent(t._array)[0])] = t
            if t._grad is not None:
                owners[id(t._grad._backend.extent(t._grad._array)[0])] = t
        for _, old, _, _ in before:
            if old is not None:
                owners[id(old._backend.extent(old._array)[0])] = old
        program = trace.program
        for b in program.buffers if program is not None else ():
            if b.role == "outside" and not tracer.is_constant(b):
                assert program is not None
                owner = id(program.backend.extent(b.array)[0])
                if owner not in owners and b in program.used():
                    tracer.reason = (
                        f"it uses a tensor of shape {tuple(b.array.shape)} that is not found from its arguments, "
                        "closure and globals, so that nobody could tell when it is replaced; pass it in"
                    )
                    return
                trace.outside.add(owner)
        trace.guards = len(extra) + len(around.places) + len(around.sizes)
        trace.holds = around.check(extra)

    def _opened(self, value: Any, given: list[Any]) -> Any:
        """What the function returned; the history of its arguments goes on behind them."""
        for x in given:
            if isinstance(x, Tensor) and isinstance(x._node, Boundary):
                x._node.open()
        return value


def _reached(leaves: list[Any]) -> list[Any]:
    """What is reached through arguments: objects, and hooks of tensors."""
    return [x for x in leaves if not isinstance(x, Tensor)] + [
        hook for x in leaves if isinstance(x, Tensor) for hook in (x._hooks or {}).values()
    ]
