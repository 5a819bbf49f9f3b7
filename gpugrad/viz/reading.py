"""From recorded graphs to boxes and arrows. Loops, not recursion: graphs may be deep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gpugrad import dtypes
from gpugrad.autograd.graph import AccumulateGrad, Node, Slot, edge_of
from gpugrad.ops.table import OpNode
from gpugrad.tensor import Tensor
from gpugrad.value import Value
from gpugrad.viz.drawing import Box, Drawing

# -- values ------------------------------------------------------------------


def read_values(outputs: Sequence[Value], names: Mapping[str, Value], max_elements: int) -> Drawing:
    """The graph of scalars: a box for each Value with its label, operation, number and gradient."""
    named = {id(v): name for name, v in names.items()}
    roots = {id(v) for v in outputs}
    drawing = Drawing()
    index: dict[int, int] = {}
    for v in sorted(_reachable(outputs, lambda n: n.edges), key=lambda n: n.sequence):
        name = named.get(id(v)) or v.label
        kind = "output" if id(v) in roots and v.edges else "op" if v.edges else "input"
        title = f"{name} = {v._op}" if name and v._op else name or v._op
        lines = [title] if title else []
        index[id(v)] = drawing.add(Box(kind, [*lines, f"data {v.data:.4g}", f"grad {v.grad:.4g}"]))
        drawing.arrows += [(index[id(e)], index[id(v)]) for e in v.edges]
    return drawing


def _reachable(roots: Sequence[Any], edges: Any) -> list[Any]:
    seen: dict[int, Any] = {}
    stack = list(roots)
    while stack:
        node = stack.pop()
        if id(node) not in seen:
            seen[id(node)] = node
            stack.extend(e for e in edges(node) if e is not None)
    return list(seen.values())


# -- tensors -----------------------------------------------------------------


def read_tensors(outputs: Sequence[Tensor], names: Mapping[str, Tensor], max_elements: int) -> Drawing:
    """The graph of tensors: a box for each leaf, each operation and each constant of known shape."""
    return _Reader(outputs, names, max_elements).drawing


class _Facts:
    """What is known of one result: from the tensor itself, or from what a node that uses it has kept."""

    def __init__(self) -> None:
        self.name = ""
        self.shape: tuple[int, ...] | None = None
        self.dtype: Any = None
        self.value: np.ndarray | None = None
        self.grad: np.ndarray | None = None
        self.has_grad = False


class _Reader:
    def __init__(self, outputs: Sequence[Tensor], names: Mapping[str, Tensor], max_elements: int) -> None:
        self.limit = max_elements
        self.drawing = Drawing()
        self.facts: dict[int, _Facts] = {}
        roots = [edge_of(y) for y in outputs]
        found = _reachable([r for r in roots if r is not None], _inputs)
        for x in found:
            if isinstance(x, Tensor):
                self.learn(x, x)
            else:
                self.learn_from_node(x)
        self.constants: dict[int, int] = {}  # id of an array -> its box
        for name, x in names.items():
            edge = edge_of(x)
            self.learn(x._array if edge is None else edge, x).name = name
        for y, root in zip(outputs, roots, strict=True):
            self.learn(root if root is not None else y._array, y)
        self.draw(found, roots, outputs)

    # -- gathering ---------------------------------------------------------
    def about(self, edge: Any) -> _Facts:
        return self.facts.setdefault(id(edge), _Facts())

    def learn(self, edge: Any, x: Tensor) -> _Facts:
        known = self.about(edge)
        known.shape, known.dtype = tuple(x.shape), x.dtype
        if x.numel() <= self.limit:
            known.value = x.to_numpy()
        if x._grad is not None:
            known.has_grad = True
            if x.numel() <= self.limit:
                known.grad = x._grad.to_numpy()
        return known

    def learn_from_node(self, node: Node) -> None:
        """What ``node`` kept tells of the results it used, and maybe of its own."""
        for hook in (node.hooks or {}).values():
            tensor = getattr(hook, "tensor", None)  # retain_grad()'s hook knows the tensor
            if tensor is not None and tensor() is not None:
                self.learn(node, tensor())
        if not isinstance(node, OpNode):
            return
        inputs = _inputs(node)
        for edge, meta in zip(inputs, node.meta, strict=False):
            if edge is not None and meta is not None:
                known = self.about(edge)
                known.shape, known.dtype = tuple(meta[0]), dtypes.from_numpy(np.dtype(meta[1]))
        for position, array in self.saved(node):
            target = node if position == -1 else inputs[position] if 0 <= position < len(inputs) else None
            if target is not None:
                known = self.about(target)
                known.shape, known.dtype = tuple(array.shape), dtypes.from_numpy(array.dtype)
                if array.size <= self.limit:
                    known.value = node.backend.to_host(array)

    @staticmethod
    def saved(node: OpNode) -> list[tuple[int, Any]]:
        """The backend's arrays that ``node`` still holds unchanged: (input number or -1 for the result, array)."""
        return [(i, array) for _, i, array, storage, version in node.kept() if storage and storage.version == version]

    # -- drawing -----------------------------------------------------------
    def draw(self, found: Sequence[Any], roots: Sequence[Any], outputs: Sequence[Tensor]) -> None:
        index: dict[int, int] = {}
        ends = {id(r) for r in roots}
        leaves = [x for x in found if isinstance(x, Tensor)]
        for leaf in leaves:
            index[id(leaf)] = self.drawing.add(Box("input", self.lines(self.facts[id(leaf)], "")))
        for node in sorted((x for x in found if isinstance(x, Node)), key=lambda n: n.sequence):
            kind = "output" if id(node) in ends else "op"
            box = self.drawing.add(Box(kind, self.lines(self.about(node), _title(node))))
            index[id(node)] = box
            for i, edge in enumerate(_inputs(node)):
                start = index[id(edge)] if edge is not None else self.constant(node, i)
                if start is not None:
                    self.drawing.arrows.append((start, box))
        for y, root in zip(outputs, roots, strict=True):
            if root is None:  # nothing was recorded: the tensor alone
                self.drawing.add(Box("constant", self.lines(self.facts[id(y._array)], "")))

    def constant(self, node: Node, i: int) -> int | None:
        """The box of an input that wants no gradient; None where nothing is known of it. What the node saved of it
        tells which array it is, so that one that is used twice is drawn once, with its name."""
        if not isinstance(node, OpNode) or i >= len(node.meta):
            return None
        for _, position, array, storage, _ in node.kept():
            if position == i and storage is None:
                return self.drawing.add(Box("constant", [str(array)]))  # a Python number
        if node.meta[i] is None:
            return None
        for position, array in self.saved(node):
            if position == i:
                return self.known_constant(node, array)
        known = _Facts()
        known.shape, known.dtype = tuple(node.meta[i][0]), dtypes.from_numpy(np.dtype(node.meta[i][1]))
        return self.drawing.add(Box("constant", self.lines(known, "")))

    def known_constant(self, node: OpNode, array: Any) -> int:
        found = self.constants.get(id(array))
        if found is None:
            known = self.about(array)
            known.shape, known.dtype = tuple(array.shape), dtypes.from_numpy(array.dtype)
            if array.size <= self.limit:
                known.value = node.backend.to_host(array)
            found = self.constants[id(array)] = self.drawing.add(Box("constant", self.lines(known, "")))
        return found

    def lines(self, known: _Facts, title: str) -> list[str]:
        """The text of a box."""
        head = f"{known.name} = {title}" if known.name and title else known.name or title
        lines = [head] if head else []
        if known.shape is not None:
            lines.append(f"{known.dtype.name} {list(known.shape)}")
        if known.value is not None:
            lines += _numbers(known.value, "")
        if known.grad is not None:
            lines += _numbers(known.grad, "grad ")
        elif known.has_grad:
            lines.append("grad computed")
        return lines


def _inputs(node: Any) -> tuple[Any, ...]:
    """The edges of a node; those that only pass a gradient on to a leaf are the leaf itself."""
    if not isinstance(node, Node):
        return ()
    return tuple(e.variable if isinstance(e, AccumulateGrad) else e for e in node.edges)


def _title(node: Node) -> str:
    if isinstance(node, Slot):
        return f"output {node.index}"
    if not isinstance(node, OpNode):
        return node.title
    name = node.title.removesuffix("_fused")
    simple = ", ".join(f"{k}={v}" for k, v in node.params.items() if v is not False and _is_plain(v))
    return f"{name}({simple})" if simple else name


def _is_plain(v: Any) -> bool:
    """Whether a parameter is short enough to be shown: numbers, names and short tuples of them."""
    if isinstance(v, (tuple, list)):
        return len(v) <= 4 and all(isinstance(x, (bool, int, float)) for x in v)
    return isinstance(v, (bool, int, float)) or isinstance(v, str) and len(v) <= 12


def _numbers(array: np.ndarray, prefix: str) -> list[str]:
    """The lines of the printed array, a line for each row of a matrix."""
    if array.dtype in dtypes.HALVES:
        array = array.astype(np.float32)
    text = np.array2string(array, separator=", ", prefix=prefix, formatter={"float_kind": lambda v: f"{v:.4g}"})
    first, *rest = text.split("\n")
    return [prefix + first, *rest]
