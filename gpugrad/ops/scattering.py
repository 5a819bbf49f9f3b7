"""Writing by index: scatter, its slice-wise forms, put and masked_scatter.

All of them are one thing that a backend does, ``scatter``: it combines what arrives at one place in a
fixed order.
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from gpugrad import dtypes, layout
from gpugrad.ops import elementwise as e
from gpugrad.ops import table
from gpugrad.ops.creation import cast, clone, full, zeros
from gpugrad.ops.indexing import check_gather, check_index, fill_value, gather, index_select, wrap_index, wrap_take
from gpugrad.ops.movement import expand, reshape, slice_view, unsqueeze
from gpugrad.ops.table import Sample, composite, describe, primitive, public, same_device


def _indices(high: int, *shape: int) -> Any:
    return lambda r: r.integers(0, high, shape)


# -- single elements ----------------------------------------------------------------------


def _scatter_reference(ufunc: Any) -> Any:
    def reference(a: Any, index: Any, src: Any, dim: int) -> Any:
        out = a.copy()
        where = [
            np.arange(n).reshape([-1 if i == j else 1 for j in range(index.ndim)]) for i, n in enumerate(index.shape)
        ]
        where[dim] = index
        src = src[tuple(slice(0, n) for n in index.shape)]
        if ufunc is None:
            out[tuple(where)] = src
        else:
            ufunc.at(out, tuple(where), src)
        return out

    return reference


def _permuted(n: int, rows: int, columns: int) -> Any:
    return lambda r: np.stack([r.permutation(n)[:rows] for _ in range(columns)], 1)


@primitive(
    "scatter",
    (lambda g, b, dim: scatter(g, dim, b, 0.0), None, lambda g, b, dim: gather(g, dim, b)),
    reference=_scatter_reference(None),
    samples=(Sample(((4, 3), _permuted(4, 2, 3), (2, 3)), {"dim": 0}),),
)
def _scatter(backend: Any, a: Any, index: Any, src: Any, dim: int, op: str = "scatter") -> Any:
    out = backend.copy(a)
    if index.size:
        backend.scatter(out, index, src, dim, "set", op)
    return out


@primitive(
    "scatter_add",
    (lambda g: g, None, lambda g, b, dim: gather(g, dim, b)),
    reference=_scatter_reference(np.add),
    samples=(
        Sample(((4, 3), _indices(4, 5, 3), (5, 3)), {"dim": 0}),
        Sample(((2, 3), _indices(3, 2, 6), (2, 6)), {"dim": 1}),
    ),
)
def _scatter_add(backend: Any, a: Any, index: Any, src: Any, dim: int, op: str = "scatter_add") -> Any:
    out = backend.copy(a)
    if index.size:
        backend.scatter(out, index, src, dim, "add", op)
    return out


def _products_of_others(g: Any, a: Any, b: Any, c: Any, dim: int) -> tuple[Any, Any]:
    """Gradients of a product: what the other factors of its place multiply to. With one zero among
    them only the zero gets a gradient, with two nothing does."""
    zero_a, zero_c = e.eq(a, 0), e.eq(c, 0)
    zeros_there = scatter_add(cast(zero_a, g.dtype), dim, b, cast(zero_c, g.dtype))
    whole_a, whole_c = e.where(zero_a, 1.0, a), e.where(zero_c, 1.0, c)
    rest = e.mul(g, _scatter_reduce(whole_a, b, whole_c, dim=dim, mode="multiply"))
    lone, none = e.eq(zeros_there, 1), e.eq(zeros_there, 0)
    for_zero, for_other = e.where(lone, rest, 0.0), e.where(none, rest, 0.0)
    grad_a = e.where(zero_a, for_zero, e.div(for_other, whole_a))
    grad_c = e.where(zero_c, gather(for_zero, dim, b), e.div(gather(for_other, dim, b), whole_c))
    return grad_a, grad_c


def _scatter_reduce_grads(g: Any, a: Any, b: Any, c: Any, y: Any, dim: int, mode: str) -> tuple[Any, Any]:
    if mode == "multiply":
        return _products_of_others(g, a, b, c, dim)
    hit_a = cast(e.eq(a, y), g.dtype)
    hit_c = cast(e.eq(c, gather(y, dim, b)), g.dtype)
    share = e.div(g, scatter_add(hit_a, dim, b, hit_c))
    return e.mul(share, hit_a), e.mul(gather(share, dim, b), hit_c)


@primitive(
    "scatter_reduce",
    (
        lambda g, a, b, c, y, dim, mode: _scatter_reduce_grads(g, a, b, c, y, dim, mode)[0],
        None,
        lambda g, a, b, c, y, dim, mode: _scatter_reduce_grads(g, a, b, c, y, dim, mode)[1],
    ),
    widens=True,
)
def _scatter_reduce(backend: Any, a: Any, index: Any, src: Any, dim: int, mode: str, op: str = "scatter_reduce") -> Any:
    out = backend.copy(a)
    if index.size:
        backend.scatter(out, index, src, dim, mode, op)
    return out


def _reduce_reference(
    a: np.ndarray, index: np.ndarray, src: np.ndarray, dim: int, reduce: str, include_self: bool = True
) -> np.ndarray:
    out = a.copy()
    arrived: dict[Any, list[Any]] = {}
    for place, i in np.ndenumerate(index):
        arrived.setdefault((*place[:dim], i, *place[dim + 1 :]), []).append(src[place])
    combine: Any = {"sum": np.sum, "prod": np.prod, "mean": np.mean, "amax": np.max, "amin": np.min}[reduce]
    for place, values in arrived.items():
        total = combine([a[place]] * include_self + values)
        out[place] = np.floor(total) if a.dtype.kind in "iu" else total
    return out


_REDUCED = tuple(
    Sample(((3, 4), _indices(4, 3, 6), (3, 6)), {"dim": 1, "reduce": reduce, "include_self": own})
    for reduce in ("sum", "prod", "mean", "amax", "amin")
    for own in (True, False)
) + (Sample(((2, 3), _indices(2, 0, 3), (0, 3)), {"dim": 0, "reduce": "amax"}),)


def _scatter_arguments(op: str, x: Any, dim: int, index: Any, src: Any) -> tuple[Any, int, Any, Any]:
    """The tensor, the dimension, the index (None if it names nothing) and the source in the shape of the index;
    0-d ones as 1-d."""
    table.as_tensor_arg(op, x)
    index = check_index(op, x, index)
    if isinstance(src, table.Tensor):
        if src.dtype is not x.dtype:
            raise RuntimeError(f"{op}: src must have the dtype of the tensor, got {describe(x, src)}")
        same_device(op, (x, src))
    else:
        src = full(index._array.shape, fill_value(op, x, src), dtype=x.dtype, device=x.device)
    d = layout.normalize_axis(dim, x._array.ndim, op)
    x, index, src = (t if t._array.ndim else reshape(t, 1) for t in (x, index, src))
    if not index._array.size and index._array.shape != src._array.shape:  # nothing is written, whatever the shapes
        return x, d, None, src
    check_gather(op, x, index, d)
    if any(n > m for i, (n, m) in enumerate(zip(index._array.shape, x._array.shape, strict=True)) if i != d):
        raise RuntimeError(f"{op}: the index is larger than the tensor, got {describe(x, index)}")
    if len(src._array.shape) != len(index._array.shape) or any(
        n < m for n, m in zip(src._array.shape, index._array.shape, strict=True)
    ):
        raise RuntimeError(
            f"{op}: src of shape {tuple(src.shape)} is smaller than the index of shape {tuple(index.shape)}"
        )
    if src._array.shape != index._array.shape:
        src = slice_view(src, index=tuple(slice(0, n) for n in index._array.shape))
    return x, d, index, src


def _scattered(op: str, mode: str, input: Any, dim: int, index: Any, src: Any) -> Any:
    """A copy of ``input`` with ``src`` combined into it by ``mode``: set, add, multiply, max or min."""
    x, d, index, src = _scatter_arguments(op, input, dim, index, src)
    if index is None:
        return clone(input)
    if mode == "set":
        out = _scatter(x, index, src, dim=d, op=op)
    elif mode == "add":
        out = _scatter_add(x, index, src, dim=d, op=op)
    else:
        out = _scatter_reduce(x, index, src, dim=d, mode=mode, op=op)
    return reshape(out, input._array.shape)


def scatter(input: Any, dim: int, index: Any, src: Any = None, *, value: Any = None, reduce: str | None = None) -> Any:
    """A copy of ``input`` with ``input[index[i][j]][j] = src[i][j]`` (dim 0, and so on); ``src`` a tensor, or a
    number, which may be called ``value``. Where an index repeats the last one stays. ``reduce``: add or
    multiply instead (:func:`scatter_reduce` has more). Raises RuntimeError, IndexError."""
    if (src is None) == (value is None):
        raise TypeError("scatter: give src or value, one of them")
    if reduce not in (None, "add", "multiply"):
        raise RuntimeError(f"scatter: reduce must be 'add' or 'multiply', not {reduce!r}; see scatter_reduce()")
    return _scattered("scatter", reduce or "set", input, dim, index, value if src is None else src)


_scatter.op.function = lambda x, index, src, dim: scatter(x, dim, index, src)  # type: ignore[attr-defined]


def scatter_add(input: Any, dim: int, index: Any, src: Any) -> Any:
    """A copy of ``input`` with ``src`` added where ``index`` says; duplicates add up in a fixed order."""
    return _scattered("scatter_add", "add", input, dim, index, table.as_tensor_arg("scatter_add", src))


_scatter_add.op.function = lambda x, index, src, dim: scatter_add(x, dim, index, src)  # type: ignore[attr-defined]

_REDUCTIONS = {"sum": "add", "prod": "multiply", "mean": "add", "amax": "max", "amin": "min"}


def _neutral(dtype: dtypes.DType, reduce: str) -> Any:
    """What changes nothing under ``reduce``."""
    if reduce in ("sum", "mean", "prod"):
        return int(reduce == "prod")
    if dtype.is_floating_point:
        return float("-inf") if reduce == "amax" else float("inf")
    if dtype is dtypes.bool_:
        return reduce == "amin"
    info = dtypes.iinfo(dtype)
    return info.min if reduce == "amax" else info.max


def scatter_reduce(input: Any, dim: int, index: Any, src: Any, reduce: str, *, include_self: bool = True) -> Any:
    """:func:`scatter` combining by ``reduce``: sum, prod, mean, amax, amin; without
    ``include_self`` the elements of ``input`` that are written to do not take part."""
    if reduce not in _REDUCTIONS:
        raise RuntimeError(f"scatter_reduce: reduce must be one of {', '.join(_REDUCTIONS)}, not {reduce!r}")
    return _reduced(
        "scatter_reduce", input, dim, index, table.as_tensor_arg("scatter_reduce", src), reduce, include_self
    )


public("scatter_reduce", samples=_REDUCED, reference=_reduce_reference, dtypes="fi")(scatter_reduce)
_scatter_reduce.op.function = lambda x, index, src, dim, reduce, include_self=True: scatter_reduce(  # type: ignore[attr-defined]
    x, dim, index, src, reduce, include_self=include_self
)


def _reduced(op: str, input: Any, dim: int, index: Any, src: Any, reduce: str, include_self: bool) -> Any:
    start = input
    if not include_self:
        start = _scattered(op, "set", input, dim, index, _neutral(input.dtype, reduce))
    out = _scattered(op, _REDUCTIONS[reduce], start, dim, index, src)
    if reduce != "mean" or not index._array.size:
        return out
    shape, like = input._array.shape, {"dtype": input.dtype, "device": input.device}
    count = full(shape, int(include_self), **like)
    count = e.clamp_min(scatter_add(count, dim, index, full(index._array.shape, 1, **like)), 1)
    return e.div(out, count) if input.dtype.is_floating_point else e.floor_divide(out, count)


# -- whole slices -----------------------------------------------------------------------------


def _slices(op: str, input: Any, dim: int, index: Any, source: Any) -> tuple[int, Any, Any]:
    """The dimension, and ``index`` (1-d) shown in the shape of ``source``, which goes with it."""
    d = layout.normalize_axis(dim, input._array.ndim, op)
    table.as_tensor_arg(op, index)
    if index._array.ndim > 1:
        raise IndexError(f"{op}: the index must be 0-d or 1-d, got shape {tuple(index._array.shape)}")
    index = reshape(check_index(op, input, index), -1)
    if source.dtype is not input.dtype:
        raise RuntimeError(f"{op}: source must have the dtype of the tensor, got {describe(input, source)}")
    want = list(input._array.shape) or [1]
    want[d] = index._array.size
    if list(source._array.shape) != want:
        if source._array.size != prod(want) or source._array.ndim > 1 or len(want) > 1:
            kind = IndexError if op == "index_copy" else RuntimeError
            raise kind(f"{op}: source of shape {tuple(source.shape)} should have shape {tuple(want)} for this index")
        source = reshape(source, want)
    line = reshape(index, [-1 if i == d else 1 for i in range(len(want))])
    return d, expand(line, want), source


def index_add(input: Any, dim: int, index: Any, source: Any, *, alpha: float = 1) -> Any:
    """A copy of ``input`` with the slices of ``alpha * source`` added at ``index`` along ``dim``."""
    d, wide, source = _slices("index_add", input, dim, index, source)
    if alpha != 1:
        source = cast(e.mul(source, alpha), source.dtype)
    return _scattered("index_add", "add", input, d, wide, source)


def index_copy(input: Any, dim: int, index: Any, source: Any) -> Any:
    """A copy of ``input`` with its slices at ``index`` along ``dim`` replaced by those of ``source``."""
    d, wide, source = _slices("index_copy", input, dim, index, source)
    return _scattered("index_copy", "set", input, d, wide, source)


def index_fill(input: Any, dim: int, index: Any, value: Any) -> Any:
    """A copy of ``input`` with its slices at ``index`` along ``dim`` set to ``value``, a number or a 0-d tensor."""
    value = fill_value("index_fill", input, value)
    if isinstance(value, table.Tensor):
        # Where an index stands twice the value is written once: a mask counts it so in its gradient too.
        nowhere = zeros(input._array.shape, dtype=dtypes.bool_, device=input.device)
        return e.where(index_fill(nowhere, dim, index, True), value.to(input.device), input)
    shape = list(input._array.shape) or [1]
    d = layout.normalize_axis(dim, len(shape), "index_fill")
    size, shape[d] = shape[d], table.as_tensor_arg("index_fill", index)._array.size
    source = full(shape, value, dtype=input.dtype, device=input.device)
    d, wide, source = _slices("index_fill", input, dim, wrap_index(index, size), source)
    return _scattered("index_fill", "set", input, d, wide, source)


def index_reduce(input: Any, dim: int, index: Any, source: Any, reduce: str, *, include_self: bool = True) -> Any:
    """A copy of ``input`` with the slices of ``source`` combined into it at ``index`` along ``dim`` by ``reduce``:
    prod, mean, amax or amin; without ``include_self`` the slices written to do not take part themselves."""
    if reduce not in ("prod", "mean", "amax", "amin"):
        raise RuntimeError(f"index_reduce: reduce must be one of prod, mean, amax, amin, not {reduce!r}")
    d, wide, source = _slices("index_reduce", input, dim, index, source)
    return _reduced("index_reduce", input, d, wide, source, reduce, include_self)


# -- over the flattened tensor ---------------------------------------------------------------------


def _put_reference(a: np.ndarray, index: np.ndarray, source: np.ndarray, accumulate: bool = False) -> np.ndarray:
    out = a.copy()
    flat = out.reshape(-1)
    if accumulate:
        np.add.at(flat, index.ravel(), source.ravel())
    else:
        flat[index.ravel()] = source.ravel()
    return out


@composite(
    reference=_put_reference,
    samples=(
        Sample(((3, 4), [[0, 5], [-1, 7]], (2, 2))),
        Sample(((3, 4), [[0, 5], [0, -12]], (2, 2)), {"accumulate": True}),
        Sample(((), [0], (1,))),
        Sample(((3,), _indices(3, 0), (0,))),
    ),
    dtypes="fi",
)
def put(input: Any, index: Any, source: Any, accumulate: bool = False) -> Any:
    """A copy of ``input`` with ``source`` written (or added) at the places ``index`` of the flattened tensor;
    negative ones count from the end. ``index`` and ``source`` have as many elements."""
    index = check_index("put", input, index)
    if source.dtype is not input.dtype:
        raise RuntimeError(f"put: source must have the dtype of the tensor, got {describe(input, source)}")
    if index._array.size != source._array.size:
        raise IndexError(f"put: index and source must have as many elements, got {describe(index, source)}")
    if not input._array.size and index._array.size:
        raise IndexError("put: a tensor without elements has no place to put one")
    place = reshape(wrap_take(index, input._array.size), -1)
    flat = _scattered("put", "add" if accumulate else "set", reshape(input, -1), 0, place, reshape(source, -1))
    return reshape(flat, input._array.shape)


def _masked_scatter_reference(a: np.ndarray, mask: np.ndarray, source: np.ndarray) -> np.ndarray:
    mask, out = np.broadcast_arrays(mask, a)
    out = out.copy()
    out[mask] = source.ravel()[: mask.sum()]
    return out


@composite(
    reference=_masked_scatter_reference,
    samples=(
        Sample(((3, 4), lambda r: r.random((3, 4)) > 0.5, (4, 4))),
        Sample(((3, 1), lambda r: r.random(4) > 0.5, (12,))),
        Sample(((), [True], (2,))),
        Sample(((0, 2), lambda r: r.random((0, 2)) > 0.5, (3,))),
    ),
)
def masked_scatter(input: Any, mask: Any, source: Any) -> Any:
    """``input`` with its elements where ``mask`` (bool, the two broadcast) is true replaced by those of
    ``source`` in order. Raises RuntimeError if these are too few."""
    if mask.dtype is not dtypes.bool_:
        raise RuntimeError(f"masked_scatter: the mask must be a bool tensor, got {mask.dtype.name}")
    if source.dtype is not input.dtype:
        raise RuntimeError(f"masked_scatter: source must have the dtype of the tensor, got {describe(input, source)}")
    same_device("masked_scatter", (input, mask, source))
    try:
        shape = layout.broadcast_shapes(input._array.shape, mask._array.shape)
    except ValueError as error:
        raise RuntimeError(f"masked_scatter: {error}") from None
    size = prod(shape)
    from gpugrad.ops.scans import cumsum

    mask = expand(mask, shape)
    count = cumsum(cast(reshape(mask, -1), dtypes.int64), 0)
    if size > source._array.size and int(count[-1].item()) > source._array.size:
        raise RuntimeError(
            f"masked_scatter: the mask wants {count[-1].item()} elements, source has {source._array.size}"
        )
    if not source._array.size:
        return expand(input, shape)
    order = e.clamp(e.sub(count, 1), 0, source._array.size - 1)
    picked = reshape(index_select(reshape(source, -1), 0, order), shape)
    return e.where(mask, picked, input)


def one_hot(index: Any, num_classes: int = -1) -> Any:
    """int64 ``[*index.shape, num_classes]``: 1 where the class is the index, else 0."""
    index = cast(index, dtypes.int64)
    if num_classes < 0:
        if not index._array.size:
            raise RuntimeError("one_hot: num_classes must be given for an index without elements")
        num_classes = int(index.max().item()) + 1
    out = zeros((*index._array.shape, num_classes), dtype=dtypes.int64, device=index.device)
    return scatter(out, -1, unsqueeze(index, -1), 1)
