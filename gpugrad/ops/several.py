"""Calls with several results that all have gradients: one node, which waits for the gradients of all of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from gpugrad.autograd.graph import AccumulateGrad, Node, Slot, storage_of
from gpugrad.ops.recording import wrap

#: of a saved tensor: nothing that a derivative depends on
NO_EDGE = None


class SeveralNode(Node):
    """A recorded call of a row with several differentiable results, each of which has a :class:`Slot` of this node.

    ``saved``: pairs of a tensor and where it comes from: the number of an input, ``-1 - k`` for result k, or
    ``NO_EDGE``. ``rule(gradients, values, needed, **params)`` gets the gradients of the results (None where there is
    none), the saved tensors in order and which inputs want a gradient, and returns those of all inputs."""

    __slots__ = ("op", "rule", "saved", "params", "backend", "results")

    def __init__(
        self,
        op: Any,
        rule: Callable[..., Sequence[Any]],
        edges: tuple[Any, ...],
        results: Sequence[Any],
        saved: Sequence[tuple[Any, int | None]],
        params: dict[str, Any],
    ) -> None:
        super().__init__(edges)
        self.op = op
        self.rule = rule
        self.params = params
        self.backend = results[0]._backend
        self.results = len(results)
        self.saved: tuple[tuple[int | None, Any, Any, int], ...] | None = tuple(
            (place, None, None, 0) if t is None else (place, t._array, storage_of(t), storage_of(t).version)
            for t, place in saved
        )
        for i, t in enumerate(results):
            t._node = Slot(self, i)

    @property
    def title(self) -> str:  # type: ignore[override]
        return self.op.name

    def release(self) -> None:
        self.saved = None

    def owns_result(self) -> bool:
        return False  # one gradient may be that of two inputs

    def apply(self, gradient: Any, create_graph: bool) -> tuple[Any, ...]:
        if self.saved is None:
            raise RuntimeError(
                f"{self.op.name}: this graph was already walked and its saved values are freed; pass "
                "retain_graph=True to the first backward to walk it twice"
            )
        values = [self._unpacked(item, create_graph) for item in self.saved]
        gradients = [gradient.of.get(i) for i in range(self.results)]
        needed = [e is not None for e in self.edges]
        return tuple(self.rule(gradients, values, needed, **self.params))

    def _unpacked(self, item: tuple[int | None, Any, Any, int], create_graph: bool) -> Any:
        place, array, storage, version = item
        if array is None:
            return None
        if storage.version != version:
            what = "a value" if place is None else f"its input {place}" if place >= 0 else f"its result {-1 - place}"
            raise RuntimeError(
                f"{self.op.name}: {what}, of shape {tuple(array.shape)}, was saved for backward and then changed in "
                f"place by {storage.changed_by}; change a clone, or do it out of place"
            )
        t = wrap(array, self.backend)
        t._storage = storage
        if create_graph and place is not None:
            edge: Any = self.edges[place] if place >= 0 else Slot(self, -1 - place)
            t._node = edge if edge is None or isinstance(edge, Node) else AccumulateGrad(edge)
        return t
