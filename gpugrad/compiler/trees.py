"""Tensors in arguments and results: taken out of tuples, lists and dicts, and put back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from gpugrad.tensor import Tensor


def flatten(x: Any, leaves: list[Any]) -> Any:
    """Append the leaves of ``x`` to ``leaves``; returns its shape without them, hashable."""
    kind = type(x)
    if kind is tuple or kind is list:
        return kind, tuple(flatten(e, leaves) for e in x)
    if kind is dict:
        return dict, tuple(x), tuple(flatten(e, leaves) for e in x.values())
    if isinstance(x, tuple) and hasattr(x, "_fields"):  # a named tuple
        return kind, tuple(flatten(e, leaves) for e in x)
    leaves.append(x)
    return None


def builder(shape: Any) -> Callable[[Sequence[Any]], Any]:
    """The inverse: a function of the leaves."""
    if shape is None:
        return lambda leaves: leaves[0]

    def build(node: Any, leaves: Any) -> Any:
        if node is None:
            return next(leaves)
        kind = node[0]
        if kind is dict:
            return {k: build(e, leaves) for k, e in zip(node[1], node[2], strict=True)}
        values = [build(e, leaves) for e in node[1]]
        if kind is list:
            return values
        return tuple(values) if kind is tuple else kind(*values)

    return lambda leaves: build(shape, iter(leaves))


def signature(leaf: Any) -> Any:
    """What a trace fixes of an argument: of a tensor everything but its values, else the value itself."""
    if isinstance(leaf, Tensor):
        array = leaf._array
        return (
            type(leaf), array.shape, array.strides, array.dtype, id(leaf._backend), leaf.requires_grad,
            leaf._node is None,
        )  # fmt: skip
    if isinstance(leaf, (bool, int, float, str, bytes, complex, type(None))):
        return type(leaf), leaf if leaf else repr(leaf)  # 0.0 and -0.0 are equal
    return type(leaf), id(leaf)
