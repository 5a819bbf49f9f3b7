"""Normalisation: rows of their own where a backend has a routine, else composed of other ops.

Half types are normalised in float32 and rounded once, at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

from gpugrad.ops import elementwise as e
from gpugrad.ops import table
from gpugrad.ops.creation import cast, zeros
from gpugrad.ops.fused import (
    as_rows,
    backward_routine,
    computed,
    dense,
    fused_row,
    offered,
    one_kind,
    through_plain,
    widened,
)
from gpugrad.ops.movement import reshape
from gpugrad.ops.several import NO_EDGE, SeveralNode
from gpugrad.ops.statistics import mean as mean_
from gpugrad.ops.table import OPS, Op, wrap


def moments(x: Any, dims: Sequence[int]) -> tuple[Any, Any, Any]:
    """``x`` less its mean, the mean and the biased variance over ``dims``, kept as size 1."""
    mean = mean_(x, dims, keepdim=True)
    centred = e.sub(x, mean)
    return centred, mean, mean_(e.square(centred), dims, keepdim=True)


def _last(x: Any, dims: int) -> tuple[int, ...]:
    return tuple(range(x._array.ndim - dims, x._array.ndim))


def _routine(name: str, x: Any, *vectors: Any) -> tuple[bool, Any]:
    """Whether the routine ``name`` will do for ``x``, and ``x`` widened where only that makes the dtypes one."""
    if not x._array.size or not offered(x, name):
        return False, x
    wide = widened(x)
    return (True, x) if one_kind(x, *vectors) else (one_kind(wide, *vectors), wide)


def _results(backend: Any, arrays: Sequence[Any], shapes: Sequence[Sequence[int]]) -> tuple[Any, ...]:
    """Tensors over what a routine returned, in the shapes of the inputs."""
    return tuple(
        None if a is None else wrap(dense(backend, a, tuple(shape)), backend)
        for a, shape in zip(arrays, shapes, strict=True)
    )


def _zeros_if(wanted: bool, shape: Sequence[int], like: Any) -> Any:
    """What stands for a bias, whose value no gradient depends on."""
    return zeros(tuple(shape), dtype=like.dtype, device=like.device) if wanted else None


# -- layer norm ---------------------------------------------------------------------------------------


def _layer_norm_plain(x: Any, weight: Any, bias: Any, *, dims: int, eps: float) -> Any:
    centred, _, var = moments(widened(x), _last(x, dims))
    y = e.mul(centred, e.rsqrt(e.add(var, eps)))
    y = y if weight is None else e.mul(y, weight)
    return cast(y if bias is None else e.add(y, bias), x.dtype)


def _layer_norm_gradients(
    g: Any, a: Any, b: Any, second: Any, dims: int, eps: float, needed: Sequence[bool]
) -> tuple[Any, ...]:
    shape = tuple(a._array.shape)
    own = shape[len(shape) - dims :]
    routine = backward_routine(g, "layer_norm_backward")
    if routine is None:
        inputs = (a, b, _zeros_if(needed[2], own, a))
        return through_plain(_layer_norm_plain, g, inputs, needed, dims=dims, eps=eps)
    backend, n = a._backend, prod(own)
    weight = b if b is None else dense(backend, b._array, (n,))
    rows = as_rows(backend, g._array, n), as_rows(backend, a._array, n)
    return _results(backend, routine(*rows, weight, second._array, eps, tuple(needed)), (shape, own, own))


@fused_row("layer_norm", _layer_norm_gradients)
def _layer_norm(backend: Any, x: Any, weight: Any, bias: Any, dims: int, eps: float) -> Any:
    n = prod(x.shape[x.ndim - dims :])
    weight, bias = (v if v is None else dense(backend, v, (n,)) for v in (weight, bias))
    y, kept = backend.offer("layer_norm")(as_rows(backend, x, n), weight, bias, eps)
    return dense(backend, y, tuple(x.shape)), kept


def layer_norm(x: Any, weight: Any, bias: Any, dims: int, eps: float) -> Any:
    """(x - mean) / sqrt(var + eps) * weight + bias over the last ``dims`` dimensions, which are the shape of ``weight``
    and ``bias`` where these are not None (Ba et al., "Layer normalization", 2016). The dtype of ``x``."""
    fused, ready = _routine("layer_norm", x, weight, bias)
    if not fused:
        return _layer_norm_plain(x, weight, bias, dims=dims, eps=eps)
    return cast(_layer_norm(ready, weight, bias, dims=dims, eps=eps)[0], x.dtype)


# -- RMS norm -------------------------------------------------------------------------------------------


def _rms_norm_plain(x: Any, weight: Any, *, dims: int, eps: float) -> Any:
    wide = widened(x)
    y = e.mul(wide, e.rsqrt(e.add(mean_(e.square(wide), _last(x, dims), keepdim=True), eps)))
    return cast(y if weight is None else e.mul(y, weight), x.dtype)


def _rms_norm_gradients(
    g: Any, a: Any, b: Any, second: Any, dims: int, eps: float, needed: Sequence[bool]
) -> tuple[Any, ...]:
    routine = backward_routine(g, "rms_norm_backward")
    if routine is None:
        return through_plain(_rms_norm_plain, g, (a, b), needed, dims=dims, eps=eps)
    shape = tuple(a._array.shape)
    own = shape[len(shape) - dims :]
    backend, n = a._backend, prod(own)
    weight = b if b is None else dense(backend, b._array, (n,))
    rows = as_rows(backend, g._array, n), as_rows(backend, a._array, n)
    return _results(backend, routine(*rows, weight, second._array, eps, tuple(needed)), (shape, own))


@fused_row("rms_norm", _rms_norm_gradients)
def _rms_norm(backend: Any, x: Any, weight: Any, dims: int, eps: float) -> Any:
    n = prod(x.shape[x.ndim - dims :])
    weight = weight if weight is None else dense(backend, weight, (n,))
    y, kept = backend.offer("rms_norm")(as_rows(backend, x, n), weight, eps)
    return dense(backend, y, tuple(x.shape)), kept


def rms_norm(x: Any, weight: Any, dims: int, eps: float) -> Any:
    """x / sqrt(mean of x^2 + eps) * weight over the last ``dims`` dimensions, which are the shape of ``weight`` where
    that is not None (Zhang and Sennrich, "Root mean square layer normalization", 2019). The dtype of ``x``."""
    fused, ready = _routine("rms_norm", x, weight)
    if not fused:
        return _rms_norm_plain(x, weight, dims=dims, eps=eps)
    return cast(_rms_norm(ready, weight, dims=dims, eps=eps)[0], x.dtype)


# -- a sum and its norm ------------------------------------------------------------------------------------
# As one row with two results, so that the sum is written once and read from the cache, and the two gradients that meet
# at it are added where one of them is made. Its derivatives are those of the norm at the sum.


def _norm_of_sum_gradients(
    gradients: Sequence[Any], values: Sequence[Any], needed: Sequence[bool], name: str, dims: int, eps: float
) -> tuple[Any, ...]:
    g, beside = gradients
    total, weight, kept = values
    wanted = (needed[0] or needed[1], *needed[2:])
    if g is None:  # the norm was not used
        found: tuple[Any, ...] = (beside, *[None] * (len(needed) - 2))
    else:
        shape = tuple(total._array.shape)
        own = shape[len(shape) - dims :]
        routine = backward_routine(g, f"add_{name}_backward")
        if routine is None:
            inputs = (total, weight, *(_zeros_if(n, own, total) for n in needed[3:]))
            found = through_plain(_PLAIN[name], g, inputs, wanted, dims=dims, eps=eps)
            if wanted[0] and beside is not None:
                found = (e.add(found[0], beside), *found[1:])
        else:
            backend, n = total._backend, prod(own)
            vector = weight if weight is None else dense(backend, weight._array, (n,))
            rows = [None if x is None else as_rows(backend, x._array, n) for x in (g, beside, total)]
            arrays = routine(*rows, vector, kept._array, eps, wanted)
            found = _results(backend, arrays, (shape, *[own] * (len(needed) - 2)))
    return tuple(found[max(0, i - 1)] if n else None for i, n in enumerate(needed))


def _norm_of_sum(name: str, x: Any, residual: Any, vectors: Sequence[Any], dims: int, eps: float) -> tuple[Any, Any]:
    """The norm of ``x + residual`` with ``vectors``, weight and bias, and the sum: by the routine ``add_<name>``."""
    backend, inputs = x._backend, (x, residual, *vectors)
    op = OPS[f"add_{name}_fused"]
    arrays = [None if t is None else t._array for t in inputs]
    outs = [wrap(a, backend) for a in op.forward(backend, *arrays, name=name, dims=dims, eps=eps)]  # type: ignore[misc]
    edges = table._edges(inputs)
    if edges is not None:
        y, total, kept = outs
        saved = [(total, -2), (vectors[0], 2), (kept, NO_EDGE)]
        params = {"name": name, "dims": dims, "eps": eps}
        SeveralNode(op, _norm_of_sum_gradients, edges, (y, total), saved, params)
    return outs[0], outs[1]


def _forward(backend: Any, x: Any, residual: Any, *vectors: Any, name: str, dims: int, eps: float) -> tuple[Any, ...]:
    n, shape = prod(x.shape[x.ndim - dims :]), tuple(x.shape)
    own = [v if v is None else dense(backend, v, (n,)) for v in vectors]
    rows = as_rows(backend, x, n), as_rows(backend, residual, n)
    y, total, kept = backend.offer(f"add_{name}")(*rows, *own, eps)
    return dense(backend, y, shape), dense(backend, total, shape), kept


_PLAIN: dict[str, Callable[..., Any]] = {"layer_norm": _layer_norm_plain, "rms_norm": _rms_norm_plain}
for _name in _PLAIN:
    computed(Op(f"add_{_name}_fused", "several", None, differentiable=True, dtypes="f"), _forward)


def _takes_sum(name: str, x: Any, residual: Any, vectors: Sequence[Any]) -> bool:
    """Whether the routine ``add_<name>`` does this: all of one dtype, and nothing to broadcast."""
    if not x._array.size or tuple(x._array.shape) != tuple(residual._array.shape) or not offered(x, f"add_{name}"):
        return False
    return x.dtype.is_floating_point and one_kind(x, residual, *vectors)


def add_layer_norm(x: Any, residual: Any, weight: Any, bias: Any, dims: int, eps: float) -> tuple[Any, Any]:
    """:func:`layer_norm` of ``x + residual``, and that sum."""
    if _takes_sum("layer_norm", x, residual, (weight, bias)):
        return _norm_of_sum("layer_norm", x, residual, (weight, bias), dims, eps)
    total = e.add(x, residual)
    return layer_norm(total, weight, bias, dims, eps), total


def add_rms_norm(x: Any, residual: Any, weight: Any, dims: int, eps: float) -> tuple[Any, Any]:
    """:func:`rms_norm` of ``x + residual``, and that sum."""
    if _takes_sum("rms_norm", x, residual, (weight,)):
        return _norm_of_sum("rms_norm", x, residual, (weight,), dims, eps)
    total = e.add(x, residual)
    return rms_norm(total, weight, dims, eps), total


# -- batch norm -------------------------------------------------------------------------------------------


def _channels(x: Any, vector: Any) -> Any:
    return reshape(widened(vector), (1, -1) + (1,) * (x._array.ndim - 2))


def _batch_norm_moments(x: Any, weight: Any, bias: Any, eps: float) -> tuple[Any, Any, Any]:
    wide = widened(x)
    centred, mean, var = moments(wide, (0, *range(2, x._array.ndim)))
    # The scale is made per channel first: one pass over the data fewer.
    scale = e.rsqrt(e.add(var, eps))
    y = e.mul(centred, scale if weight is None else e.mul(scale, _channels(x, weight)))
    return cast(y if bias is None else e.add(y, _channels(x, bias)), x.dtype), mean, var


def _batch_norm_plain(x: Any, weight: Any, bias: Any, *, eps: float) -> Any:
    return _batch_norm_moments(x, weight, bias, eps)[0]


def _batch_norm_gradients(g: Any, a: Any, b: Any, second: Any, eps: float, needed: Sequence[bool]) -> tuple[Any, ...]:
    shape = tuple(a._array.shape)
    c = shape[1]
    routine = backward_routine(g, "batch_norm_backward")
    if routine is None:
        return through_plain(_batch_norm_plain, g, (a, b, _zeros_if(needed[2], (c,), a)), needed, eps=eps)
    backend, cube = a._backend, (shape[0], c, prod(shape[2:]))
    weight = b if b is None else dense(backend, b._array, (c,))
    both = dense(backend, g._array, cube), dense(backend, a._array, cube)
    return _results(backend, routine(*both, weight, second._array, eps, tuple(needed)), (shape, (c,), (c,)))


@fused_row("batch_norm", _batch_norm_gradients)
def _batch_norm(backend: Any, x: Any, weight: Any, bias: Any, eps: float) -> Any:
    n, c, *rest = x.shape
    weight, bias = (v if v is None else dense(backend, v, (c,)) for v in (weight, bias))
    y, kept = backend.offer("batch_norm")(dense(backend, x, (n, c, prod(rest))), weight, bias, eps)
    return dense(backend, y, tuple(x.shape)), kept


def batch_norm(x: Any, weight: Any, bias: Any, eps: float) -> tuple[Any, Any, Any]:
    """(x - mean) / sqrt(var + eps) * weight + bias with the moments of each channel of ``[n, c, *]`` (Ioffe and
    Szegedy, "Batch normalization", 2015); ``weight`` and ``bias`` ``[c]`` or None. Also the means and biased variances
    (as many as channels, float32 for half types), which have no graph."""
    fused, ready = _routine("batch_norm", x, weight, bias)
    if not fused:
        y, mean, var = _batch_norm_moments(x, weight, bias, eps)
        return y, mean.detach(), var.detach()
    y, kept = _batch_norm(ready, weight, bias, eps=eps)
    backend = kept._backend
    return cast(y, x.dtype), wrap(kept._array[0], backend), wrap(kept._array[1], backend)


def group_norm(x: Any, groups: int, eps: float) -> Any:
    """(x - mean) / sqrt(var + eps), moments over each of ``groups`` groups of channels of ``[n, c, *]`` (Wu and He,
    "Group normalization", 2018). Raises RuntimeError where ``groups`` does not divide the channels."""
    shape = tuple(x._array.shape)
    rows = reshape(x, (shape[0], groups, prod(shape[1:]) // groups))
    return reshape(layer_norm(rows, None, None, 1, eps), shape)
