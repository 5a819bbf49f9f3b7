"""Cutting a tensor into views along a dimension."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

from gpugrad import layout
from gpugrad.ops import table
from gpugrad.ops.movement import narrow
from gpugrad.ops.parts import consecutive, elements
from gpugrad.ops.table import Sample as S
from gpugrad.ops.table import composite


def _length(op: str, input: Any, dim: int) -> int:
    """Size of ``dim``. Raises RuntimeError for a 0-d tensor."""
    shape = input._array.shape
    if not shape:
        raise RuntimeError(f"{op}: a 0-d tensor cannot be split; unsqueeze() it first")
    return shape[layout.normalize_axis(dim, len(shape), op)]


def split(tensor: Any, split_size_or_sections: Any = None, dim: int = 0, *, split_size: Any = None) -> tuple[Any, ...]:
    """Views of consecutive parts along ``dim``: of one size (the last may be smaller), or of
    the sizes listed; the method calls them ``split_size``. Raises RuntimeError where they do not add up."""
    split_size_or_sections = split_size if split_size_or_sections is None else split_size_or_sections
    if isinstance(split_size_or_sections, table.Tensor) and not split_size_or_sections._array.ndim:
        split_size_or_sections = split_size_or_sections.item()
    if not isinstance(split_size_or_sections, (int, np.integer)):
        return split_with_sizes(tensor, split_size_or_sections, dim)
    n = _length("split", tensor, dim)
    size = int(split_size_or_sections)
    if size < 0 or (size == 0 and n):
        raise RuntimeError(f"split: the size of a part must be positive, got {size}")
    return consecutive(tensor, [min(size, n - i) for i in range(0, n, size)] if n else [0], dim)


def split_with_sizes(input: Any, split_sizes: Sequence[int], dim: int = 0) -> tuple[Any, ...]:
    """Views of consecutive parts of the sizes listed, which must add up to the size of ``dim``."""
    n = _length("split_with_sizes", input, dim)
    sizes = [operator.index(s) for s in split_sizes]
    if sum(sizes) != n or any(s < 0 for s in sizes):
        raise RuntimeError(f"split_with_sizes: sizes {sizes} must add up to the size {n} of dimension {dim}")
    return consecutive(input, sizes, dim)


def chunk(input: Any, chunks: int, dim: int = 0) -> tuple[Any, ...]:
    """At most ``chunks`` views of equal size along ``dim`` (the last may be smaller)."""
    n = _length("chunk", input, dim)
    if chunks < 1:
        raise RuntimeError(f"chunk: the number of chunks must be positive, got {chunks}")
    if not n:  # there is nothing to share out, and each gets it
        return consecutive(input, [0] * chunks, dim)
    return split(input, -(-n // chunks), dim)


def unbind(input: Any, dim: int = 0) -> tuple[Any, ...]:
    """Views of the elements along ``dim``, which they lack."""
    if not input._array.ndim:
        raise IndexError("unbind: a 0-d tensor has no dimension to take apart")
    return elements(input, dim)


def _split_reference(axis: int | None) -> Any:
    def reference(a: np.ndarray, indices_or_sections: Any, dim: int = 0) -> np.ndarray:
        return np.array_split(a, indices_or_sections, dim if axis is None else axis)[0]

    return reference


def _one_of(*given: Any) -> Any:
    """The one argument given, whatever it is called. Raises TypeError."""
    found = [x for x in given if x is not None]
    if len(found) != 1:
        raise TypeError("tensor_split: give either indices or sections, by position or by name")
    return found[0]


@composite(
    reference=_split_reference(None),
    samples=(
        S(((7, 2),), {"indices_or_sections": 3}),
        S(((2, 5),), {"indices_or_sections": (1, 3), "dim": -1}),
        S(((0, 3),), {"indices_or_sections": 2}),
    ),
)
def tensor_split(
    input: Any, indices_or_sections: Any = None, dim: int = 0, *, indices: Any = None, sections: Any = None
) -> tuple[Any, ...]:
    """Views along ``dim``: as many as an int says (the first ones longer by one where it does not
    divide: ``sections``), or cut before each of the ``indices`` listed (a tuple, or a 0-d or 1-d int64 CPU
    tensor)."""
    n = _length("tensor_split", input, dim)
    given = _one_of(indices_or_sections, indices, sections)
    if isinstance(given, table.Tensor):
        if given._array.ndim > 1 or given.dtype.name != "int64" or given._backend.name != "cpu":
            raise RuntimeError(
                f"tensor_split: indices_or_sections must be a 0-d or 1-d int64 CPU tensor, got {table.describe(given)}"
            )
        given = given.tolist()
    if isinstance(given, (int, np.integer)):
        if given < 1:
            raise RuntimeError(f"tensor_split: the number of sections must be positive, got {given}")
        short, longer = divmod(n, int(given))
        return consecutive(input, [short + (i < longer) for i in range(given)], dim)
    d = layout.normalize_axis(dim, input._array.ndim, "tensor_split")
    bounds = [slice(a, b).indices(n)[:2] for a, b in zip([0, *given], [*given, n], strict=True)]
    return tuple(narrow(input, d, a, max(b - a, 0)) for a, b in bounds)


def _even(op: str, input: Any, indices_or_sections: Any, dim: int, least: int) -> tuple[Any, ...]:
    """``tensor_split`` as the h, v and d forms have it: an int has to divide the size."""
    ndim = input._array.ndim
    if ndim < least:
        raise RuntimeError(f"{op}: expected at least {least} dimensions, got shape {tuple(input._array.shape)}")
    if isinstance(indices_or_sections, (int, np.integer)):
        n = input._array.shape[dim]
        if indices_or_sections < 1 or n % indices_or_sections:
            raise RuntimeError(f"{op}: dimension {dim} of size {n} does not divide into {indices_or_sections} parts")
    return tensor_split(input, indices_or_sections, dim)


def hsplit(
    input: Any, indices_or_sections: Any = None, *, indices: Any = None, sections: Any = None
) -> tuple[Any, ...]:
    """:func:`tensor_split` along the second dimension (the first of a 1-d tensor); an int must divide it."""
    return _even(
        "hsplit", input, _one_of(indices_or_sections, indices, sections), 0 if input._array.ndim == 1 else 1, 1
    )


def vsplit(
    input: Any, indices_or_sections: Any = None, *, indices: Any = None, sections: Any = None
) -> tuple[Any, ...]:
    """:func:`tensor_split` along the first of at least two dimensions; an int must divide it."""
    return _even("vsplit", input, _one_of(indices_or_sections, indices, sections), 0, 2)


def dsplit(
    input: Any, indices_or_sections: Any = None, *, indices: Any = None, sections: Any = None
) -> tuple[Any, ...]:
    """:func:`tensor_split` along the third dimension; an int must divide it."""
    return _even("dsplit", input, _one_of(indices_or_sections, indices, sections), 2, 3)


def unsafe_split(input: Any, split_size: int, dim: int = 0) -> tuple[Any, ...]:
    """:func:`split`."""
    return split(input, split_size, dim)


def unsafe_chunk(input: Any, chunks: int, dim: int = 0) -> tuple[Any, ...]:
    """:func:`chunk`."""
    return chunk(input, chunks, dim)


def unsafe_split_with_sizes(input: Any, split_sizes: Sequence[int], dim: int = 0) -> tuple[Any, ...]:
    """:func:`split_with_sizes`."""
    return split_with_sizes(input, split_sizes, dim)
