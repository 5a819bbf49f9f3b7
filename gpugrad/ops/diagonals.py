"""Diagonals and triangles: views of them, tensors made from them, their indices."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpugrad import dtypes, layout
from gpugrad.devices import device as resolve_device
from gpugrad.errors import DTypeError
from gpugrad.ops import inplace, table
from gpugrad.ops.creation import backend_for, check_options, clone
from gpugrad.ops.movement import reshape
from gpugrad.ops.table import Sample as S
from gpugrad.ops.table import composite, primitive, public, view


@view(
    "diagonal",
    lambda g, a_shape, offset, dim1, dim2: _diagonal_scatter(g, shape=a_shape, offset=offset, dim1=dim1, dim2=dim2),
    reference=lambda a, offset=0, dim1=0, dim2=1: np.diagonal(a, offset, dim1, dim2),
    samples=(S(((4, 5),)), S(((4, 5),), {"offset": 1}), S(((2, 4, 3),), {"offset": -1, "dim1": 1, "dim2": 2})),
)
def _diagonal(array: Any, offset: int, dim1: int, dim2: int) -> Any:
    return _diagonal_geometry(array.shape, array.strides, offset, dim1, dim2)


def _diagonal_geometry(shape: Any, strides: Any, offset: int, dim1: int, dim2: int) -> Any:
    n, m = shape[dim1], shape[dim2]
    length = max(0, min(n, m - offset) if offset >= 0 else min(n + offset, m))
    start = 0
    if length:
        start = offset * strides[dim2] if offset >= 0 else -offset * strides[dim1]
    rest = [i for i in range(len(shape)) if i not in (dim1, dim2)]
    return [shape[i] for i in rest] + [length], [strides[i] for i in rest] + [strides[dim1] + strides[dim2]], start


@primitive(
    "diagonal_scatter_into_zeros", (lambda g, offset, dim1, dim2: _diagonal(g, offset=offset, dim1=dim1, dim2=dim2),)
)
def _diagonal_scatter(backend: Any, a: Any, shape: tuple[int, ...], offset: int, dim1: int, dim2: int) -> Any:
    """Zeros of ``shape`` with ``a`` on a diagonal: the adjoint of ``diagonal``."""
    out = backend.empty(shape, a.dtype)
    backend.fill(out, 0)
    backend.copy(a, out=backend.as_strided(out, *_diagonal_geometry(out.shape, out.strides, offset, dim1, dim2)))
    return out


@public("diagonal")
def diagonal(input: Any, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Any:
    """A view of a diagonal of two dimensions, as the last dimension."""
    ndim = input._array.ndim
    d1, d2 = (layout.normalize_axis(d, ndim, "diagonal") for d in (dim1, dim2))
    if d1 == d2:
        raise RuntimeError(f"diagonal: dim1 and dim2 are the same dimension {dim1}")
    return _diagonal(input, offset=offset, dim1=d1, dim2=d2)


_view_of_diagonal = diagonal  # where a parameter has that name


def _embedded(a: np.ndarray, offset: int = 0, dim1: int = -2, dim2: int = -1) -> np.ndarray:
    n = a.shape[-1] + abs(offset)
    out = np.zeros((*a.shape[:-1], n, n), a.dtype)
    i = np.arange(a.shape[-1])
    out[..., i + max(-offset, 0), i + max(offset, 0)] = a
    return np.moveaxis(out, (-2, -1), (dim1, dim2))


@composite(
    reference=_embedded,
    samples=(
        S(((3,),)),
        S(((2, 3),), {"offset": 1}),
        S(((2, 3),), {"offset": -2, "dim1": 0, "dim2": 1}),
        S(((2, 2),), {"dim1": -1, "dim2": 0}),
        S(((0,),), {"offset": 1}),
    ),
)
def diag_embed(input: Any, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Any:
    """Zeros but for the diagonals that two new dimensions ``dim1`` and ``dim2`` have: the last dimension
    of ``input``. Raises RuntimeError if the two are one, IndexError for a 0-d tensor."""
    shape = input._array.shape
    if not shape:
        raise IndexError("diag_embed: a 0-d tensor has no dimension to lay on a diagonal")
    ndim = len(shape) + 1
    d1, d2 = (layout.normalize_axis(d, ndim, "diag_embed") for d in (dim1, dim2))
    if d1 == d2:
        raise RuntimeError(f"diag_embed: dim1 and dim2 are the same dimension {dim1}")
    n = shape[-1] + abs(offset)
    full = [n if i in (d1, d2) else -1 for i in range(ndim)]
    rest = iter(shape[:-1])
    return _diagonal_scatter(
        input, shape=tuple(next(rest) if m < 0 else m for m in full), offset=offset, dim1=d1, dim2=d2
    )


@composite(
    reference=lambda a, diagonal=0: np.diag(a, diagonal),
    samples=(S(((3,),)), S(((3, 4),)), S(((3,),), {"diagonal": 1}), S(((4, 3),), {"diagonal": -1})),
)
def diag(input: Any, diagonal: int = 0) -> Any:
    """The matrix with the 1-d ``input`` on a diagonal, or a copy of that diagonal of a matrix. Raises
    RuntimeError for other numbers of dimensions."""
    if input._array.ndim == 1:
        return diag_embed(input, diagonal)
    if input._array.ndim == 2:
        return clone(_view_of_diagonal(input, diagonal))
    raise RuntimeError(f"diag: expected a 1-d or 2-d tensor, got {table.describe(input)}; see diag_embed(), diagonal()")


def diagflat(input: Any, offset: int = 0) -> Any:
    """The matrix with all elements of ``input`` on a diagonal."""
    return diag_embed(reshape(input, -1), offset)


@composite(reference=np.trace, samples=(S(((3, 4),)), S(((0, 2),)), S(((1, 1),))))
def trace(input: Any) -> Any:
    """The sum of the diagonal of a matrix. Raises RuntimeError for other shapes."""
    from gpugrad.ops.reductions import sum as sum_

    if input._array.ndim != 2:
        raise RuntimeError(f"trace: expected a matrix, got {table.describe(input)}")
    return sum_(diagonal(input))


def fill_diagonal_(input: Any, fill_value: float, wrap: bool = False) -> Any:
    """In place: the elements ``[i, i, ..., i]`` set to ``fill_value``. With ``wrap`` the diagonal of a tall
    matrix begins anew below its end. Raises RuntimeError for fewer than 2 dimensions, and for more
    than 2 unless all sizes are equal."""
    array = input._array
    shape, strides = array.shape, array.strides
    if len(shape) < 2 or (len(shape) > 2 and len(set(shape)) > 1):
        raise RuntimeError(
            f"fill_diagonal_: expected a matrix, or more dimensions of one size, got {table.describe(input)}"
        )
    edge = inplace.check_inplace("fill_diagonal_", input)
    if edge is not None:
        from gpugrad.ops.creation import zeros

        mask = fill_diagonal_(zeros(shape, dtype=dtypes.bool_, device=input.device), True, wrap)
        from gpugrad.ops.indexing import masked_fill

        return inplace.write("fill_diagonal_", input, masked_fill(input, mask, fill_value))
    step = sum(strides)
    starts = range(0, shape[0], shape[1] + 1) if wrap and len(shape) == 2 and shape[1] else (0,)
    for start in starts:
        n = min(shape[0] - start, *shape[1:])
        if n > 0:
            line = input._backend.as_strided(array, (n,), (step,), start * strides[0])
            input._backend.fill(line, fill_value)
    inplace.changed("fill_diagonal_", input)
    return input


def _triangle_indices(
    name: str, row: int, col: int, keep: Any, dtype: Any, device: Any, options: dict[str, Any]
) -> Any:
    check_options(name, options)
    if row < 0 or col < 0:
        raise RuntimeError(f"{name}: the sizes must not be negative, got {row} and {col}")
    d = dtypes.int64 if dtype is None else dtypes.as_dtype(dtype)
    if d not in (dtypes.int32, dtypes.int64):
        raise DTypeError(f"{name}: dtype must be int32 or int64, not {d.name}")
    backend = backend_for(resolve_device(device), d, name)
    where = np.stack(np.nonzero(keep(np.ones((row, col), bool)))).astype(d.numpy)
    return table.wrap(backend.from_host(where), backend)


def tril_indices(row: int, col: int, offset: int = 0, *, dtype: Any = None, device: Any = None, **options: Any) -> Any:
    """``[2, n]``: rows and columns of the lower triangle of a ``row`` by ``col`` matrix, up to diagonal
    ``offset``, row by row. int64 unless dtype says int32."""
    return _triangle_indices("tril_indices", row, col, lambda m: np.tril(m, offset), dtype, device, options)


def triu_indices(row: int, col: int, offset: int = 0, *, dtype: Any = None, device: Any = None, **options: Any) -> Any:
    """``[2, n]``: rows and columns of the upper triangle of a ``row`` by ``col`` matrix, from diagonal
    ``offset`` on, row by row. int64 unless dtype says int32."""
    return _triangle_indices("triu_indices", row, col, lambda m: np.triu(m, offset), dtype, device, options)


def _block_reference(*arrays: np.ndarray) -> np.ndarray:
    blocks = [np.atleast_2d(a) for a in arrays]
    out = np.zeros((sum(b.shape[0] for b in blocks), sum(b.shape[1] for b in blocks)), blocks[0].dtype)
    i = j = 0
    for b in blocks:
        out[i : i + b.shape[0], j : j + b.shape[1]] = b
        i, j = i + b.shape[0], j + b.shape[1]
    return out


@composite(reference=_block_reference, samples=(S(((2, 3), (1, 2))), S(((), (3,), (2, 1))), S(((0, 2), (2, 2)))))
def block_diag(*tensors: Any) -> Any:
    """The matrix with the tensors (2-d, 1-d as rows, 0-d) as blocks along its diagonal, zeros else; dtypes
    are promoted. Raises RuntimeError for more dimensions."""
    from gpugrad.ops.creation import zeros
    from gpugrad.ops.joining import cat, pad_constant

    if not tensors:
        return zeros(1, 0)
    blocks = []
    for x in tensors:
        table.as_tensor_arg("block_diag", x)
        if x._array.ndim > 2:
            raise RuntimeError(f"block_diag: expected tensors of at most 2 dimensions, got {table.describe(x)}")
        blocks.append(x if x._array.ndim == 2 else reshape(x, (1, x._array.size)))
    width = sum(b._array.shape[1] for b in blocks)
    rows, before = [], 0
    for b in blocks:
        m = b._array.shape[1]
        rows.append(pad_constant(b, (before, width - before - m), 0))
        before += m
    return cat(rows, 0)
