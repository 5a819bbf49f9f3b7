"""Ops that a backend may compute in one pass: how they are declared, and softmax.

Each has one plain definition, in terms of other ops. ``offered`` is the one place where ops
ask a backend whether it has a faster routine of that name; tests compare the two. What a
routine ``fused_<name>`` of a backend takes and returns is in ``ROUTINES``. A backward pass is a routine too. Where it
is to be differentiated again, or is not offered, gradients are taken through the plain definition.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gpugrad import dtypes, layout
from gpugrad.autograd import engine
from gpugrad.autograd.modes import mode
from gpugrad.errors import DTypeError
from gpugrad.ops import elementwise as e
from gpugrad.ops import table
from gpugrad.ops.creation import cast, rounded_once
from gpugrad.ops.movement import reshape, view_as_shape
from gpugrad.ops.reductions import amax
from gpugrad.ops.reductions import sum as sum_
from gpugrad.ops.table import Op, Sample, composite, primitive, record, wrap

#: What routines take and return. Arrays are not empty. "Rows" are C-contiguous ``[rows, n]``, a weight and a bias
#: contiguous ``[n]`` of the dtype of x, or None; half types are computed in float32, and statistics ("work dtype") are
#: float32 for them. ``needed`` says which results are wanted: the others are None.
ROUTINES = {
    "softmax": "(x, axis) -> exp(x) / sum of exp(x) along axis, of x's dtype; any strides, without overflow",
    "softmax_backward": "(gradient, y, axis) -> y * (gradient - sum of gradient * y along axis); any strides",
    "log_softmax": "(x, axis) -> x - log(sum of exp(x) along axis), of x's dtype; any strides, without overflow",
    "log_softmax_backward": "(gradient, y, axis) -> gradient - exp(y) * sum of gradient along axis; any strides",
    "layer_norm": "(x rows, weight, bias, eps) -> y = (x - mean) / sqrt(var + eps) * weight + bias as rows of x's "
    "dtype, and moments [2, rows] in the work dtype: each row's mean and biased variance, that of x - mean",
    "layer_norm_backward": "(gradient rows, x rows, weight, moments, eps, needed) -> gradients of x (rows), weight and "
    "bias ([n]), all of x's dtype; with h = (x - mean) / sqrt(var + eps) and t = gradient * weight they are "
    "(t - mean of t - h * mean of t * h) / sqrt(var + eps), sum over rows of gradient * h, sum over rows of gradient",
    "rms_norm": "(x rows, weight, eps) -> y = x / sqrt(mean of x^2 + eps) * weight as rows of x's dtype, and the means "
    "of x^2, [rows] in the work dtype",
    "rms_norm_backward": "(gradient rows, x rows, weight, squares, eps, needed) -> gradients of x (rows) and weight "
    "([n]) of x's dtype; with s = 1 / sqrt(squares + eps) and t = gradient * weight they are "
    "s * t - x * s^3 * mean of t * x, sum over rows of gradient * x * s",
    "add_layer_norm": "(x rows, residual rows, weight, bias, eps) -> layer_norm's y of x + residual, that sum as rows "
    "of x's dtype, and the moments of its rows as it was rounded",
    "add_layer_norm_backward": "(gradient rows, beside rows or None, sum rows, weight, moments, eps, needed) -> as "
    "layer_norm_backward's at the sum; beside, where it is given, is added to the gradient of the sum",
    "add_rms_norm": "(x rows, residual rows, weight, eps) -> rms_norm's y of x + residual, that sum, and the squares",
    "add_rms_norm_backward": "(gradient rows, beside rows or None, sum rows, weight, squares, eps, needed) -> as "
    "rms_norm_backward's at the sum, with beside added",
    "batch_norm": "(x C-contiguous [n, c, m], weight [c], bias [c], eps) -> y as layer_norm's, of x's shape and dtype, "
    "with moments [2, c] over n and m",
    "batch_norm_backward": "(gradient, x [n, c, m], weight, moments, eps, needed) -> as layer_norm_backward's; "
    "gradients of weight and bias are sums over n and m",
    "cross_entropy": "(x rows, target int64 [rows], weight or None, ignore, op) -> loss [rows] and stats [3, rows] in "
    "the work dtype. stats: each row's maximum, the sum of exp(x - maximum), and its share: weight[target] (1 "
    "without), 0 where the target is ignore. loss: share * (log(sum) - (x[target] - maximum)), 0 where the target is "
    "ignore, whatever x is. A target that is neither ignore nor in [0, n) raises OutOfRangeError as take does, naming "
    "op",
    "cross_entropy_backward": "(gradient [rows] of any stride, 0 included, in the work dtype, x rows, target, stats) "
    "-> (exp(x - maximum) / sum - (1 at the target)) * gradient * share as rows of x's dtype, 0 where share is 0",
    "attention_takes": "(dtype, e, w, l) -> whether attention and attention_backward do l queries of this dtype and "
    "width e with values of width w, and gain by it",
    "attention": "(q [b, h, l, e], k [b, g, s, e], v [b, g, s, w], mask or None, causal, scale, dropout) -> "
    "softmax(q @ k.T * scale + mask) @ v, [b, h, l, w], and what attention_backward is to get: for each row the "
    "logarithm of the sum of exp of its scores, [b, h, l] in the work dtype (or, of a few weights, these themselves, "
    "[b, h, l, s]), without holding the scores. Any strides; g divides h, and h / g heads in a row "
    "have one key. mask, [b, h, l, s]: bool, False where -inf is added, or of the work dtype, added. causal: query i "
    "sees the keys up to i. dropout: None, or (p, seed, stream): weight number n in C order of [b, h, l, s] is 0 where "
    "element n of the uniform float32 numbers of seed and stream is less than p, the others are divided by 1 - p. With "
    "a mask, a row that sees no key is 0",
    "attention_backward": "(gradient, q, k, v, the result, what attention gave with it, mask, causal, scale, dropout, "
    "needed) -> gradients of q, k and v, of their shapes and dtypes",
}


def offered(x: Any, name: str) -> Callable[..., Any] | None:
    """The routine ``name`` of the backend that ``x`` is on, or None."""
    return x._backend.offer(name)


# -- declaring rows whose routine has several inputs ---------------------------------------------


def fused_row(name: str, gradients: Callable[..., Any]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Declare the row ``<name>_fused``: ``forward(backend, *arrays, **params)`` calls the routine and returns the
    result and what it keeps for backward. ``gradients`` gives those of all inputs at once; its parameters are named as
    a vjp's, ``needed`` says which inputs want one. Inputs may be None."""
    op = Op(f"{name}_fused", "variadic", gradients, dtypes="f")

    def declare(forward: Callable[..., Any]) -> Callable[..., Any]:
        computed(op, forward)

        def call(*inputs: Any, **params: Any) -> tuple[Any, Any]:
            backend = inputs[0]._backend
            arrays = [None if x is None else x._array for x in inputs]
            value, kept = op.forward(backend, *arrays, **params)  # type: ignore[misc]
            out, second = wrap(value, backend), wrap(kept, backend)
            edges = table._edges(inputs)
            if edges is not None:
                record(op, out, inputs, edges, params, second)
            return out, second

        call.__name__ = call.__qualname__ = op.name
        call.__doc__ = forward.__doc__
        op.function = call
        return call

    return declare


def computed(op: Op, forward: Callable[..., Any]) -> None:
    """Say what computes a row; the profiler may have something around it."""
    around = table.around_forward
    op.forward = forward if around is None else around(op, forward)


def backward_routine(g: Any, name: str) -> Callable[..., Any] | None:
    """The routine for a backward pass, or None if there is none, or if what it computes is to be differentiated."""
    return None if mode.enabled else g._backend.offer(name)


def through_plain(
    plain: Callable[..., Any], g: Any, inputs: Sequence[Any], needed: Sequence[bool], **params: Any
) -> tuple[Any, ...]:
    """Gradients, for the incoming ``g``, of ``plain(*inputs, **params)`` with respect to the ``needed`` inputs (None
    for the others): differentiable again where operations are recorded now."""
    recorded = mode.enabled
    mode.enabled = True
    try:
        # Aliases: an input may have been computed from another one, and then counts once all the same.
        own = [_alias(x, recorded) if n else x for x, n in zip(inputs, needed, strict=True)]
        wanted = [x for x, n in zip(own, needed, strict=True) if n]
        found = iter(engine.grad([plain(*own, **params)], wanted, [g], create_graph=recorded))
    finally:
        mode.enabled = recorded
    return tuple(next(found) if n else None for n in needed)


def _alias(x: Any, recorded: bool) -> Any:
    if recorded and (x._requires_grad or x._node is not None):
        return view_as_shape(x, x._array.shape)
    leaf = wrap(x._array, x._backend)
    leaf._requires_grad = True
    return leaf


def as_rows(backend: Any, array: Any, width: int) -> Any:
    """``array`` as C-contiguous ``[size / width, width]``: a view, or a copy where its strides do not allow it."""
    return dense(backend, array, (array.size // width, width))


def dense(backend: Any, array: Any, shape: tuple[int, ...]) -> Any:
    """``array`` as a C-contiguous one of ``shape``: itself, a view, or a copy where its strides do not allow it."""
    if not layout.is_contiguous(array.shape, array.strides, array.itemsize):
        array = backend.copy(array)
    if tuple(array.shape) == shape:
        return array
    return backend.as_strided(array, shape, layout.contiguous_strides(shape, array.itemsize), 0)


def one_kind(x: Any, *others: Any) -> bool:
    """Whether the other tensors, where given, have the dtype and the device of ``x``."""
    backend, dtype = x._backend, x._array.dtype
    return all(o is None or (o._backend is backend and o._array.dtype == dtype) for o in others)


def widened(x: Any) -> Any:
    """Half types in float32."""
    return cast(x, dtypes.float32) if x._array.dtype in dtypes.HALVES else x


# -- softmax --------------------------------------------------------------------------------------

_ROWS = (
    Sample(((3, 4),), {"dim": 1}),
    Sample(((2, 3, 4),), {"dim": 0}),
    Sample(((2, 0),), {"dim": 0}),
    Sample(([[1000.0, 1001.0], [-1000.0, 0.0]],), {"dim": -1}),
)


def _softmax_reference(a: Any, dim: int) -> Any:
    p = np.exp(a - a.max(axis=dim, keepdims=True)) if a.size else a
    return p / p.sum(axis=dim, keepdims=True)


def _floating(x: Any, dtype: Any, op: str) -> Any:
    if dtype is not None:
        return cast(x, dtypes.as_dtype(dtype))
    if not x.dtype.is_floating_point:
        raise DTypeError(f"{op}: expected a floating-point tensor, got {x.dtype.name}; convert it with .float()")
    return x


def _along(input: Any, dim: int, dtype: Any, op: str, fused: Callable[..., Any], plain: Callable[..., Any]) -> Any:
    """``fused`` where the backend offers ``op``, else ``plain`` of x less its maximum along ``dim``."""
    x = _floating(input, dtype, op)
    axis = layout.normalize_axis(dim, x._array.ndim, op)
    if not x._array.size:
        return e.mul(x, 1.0)
    if not x._array.ndim:
        return reshape(_along(reshape(x, 1), 0, None, op, fused, plain), ())
    if offered(x, op):
        return fused(x, axis=axis)
    return _of_primitives(x, axis, plain)


@rounded_once
def _of_primitives(x: Any, axis: int, plain: Callable[..., Any]) -> Any:
    return plain(e.sub(x, amax(x.detach(), axis, keepdim=True)), axis)


def _softmax_gradient(g: Any, y: Any, axis: int) -> Any:
    routine = backward_routine(g, "softmax_backward")
    if routine is not None:
        return wrap(routine(g._array, y._array, axis), g._backend)
    return e.mul(y, e.sub(g, sum_(e.mul(g, y), axis, keepdim=True)))


@primitive("softmax_fused", (_softmax_gradient,))
def _softmax(backend: Any, a: Any, axis: int) -> Any:
    return backend.offer("softmax")(a, axis)


def _softmax_plain(z: Any, axis: int) -> Any:
    p = e.exp(z)
    return e.div(p, sum_(p, axis, keepdim=True))


@composite(reference=_softmax_reference, samples=_ROWS, dtypes="f")
def softmax(input: Any, dim: int, *, dtype: Any = None) -> Any:
    """exp(x) / sum(exp(x)) along ``dim``, computed without overflow."""
    return _along(input, dim, dtype, "softmax", _softmax, _softmax_plain)


def _log_softmax_reference(a: Any, dim: int) -> Any:
    z = a - a.max(axis=dim, keepdims=True) if a.size else a
    return z - np.log(np.exp(z).sum(axis=dim, keepdims=True))


def _log_softmax_gradient(g: Any, y: Any, axis: int) -> Any:
    routine = backward_routine(g, "log_softmax_backward")
    if routine is not None:
        return wrap(routine(g._array, y._array, axis), g._backend)
    return e.sub(g, e.mul(e.exp(y), sum_(g, axis, keepdim=True)))


@primitive("log_softmax_fused", (_log_softmax_gradient,))
def _log_softmax(backend: Any, a: Any, axis: int) -> Any:
    return backend.offer("log_softmax")(a, axis)


def _log_softmax_plain(z: Any, axis: int) -> Any:
    return e.sub(z, e.log(sum_(e.exp(z), axis, keepdim=True)))


@composite(reference=_log_softmax_reference, samples=_ROWS, dtypes="f")
def log_softmax(input: Any, dim: int, *, dtype: Any = None) -> Any:
    """log(softmax(x)) along ``dim``, accurate where the probability is tiny."""
    return _along(input, dim, dtype, "log_softmax", _log_softmax, _log_softmax_plain)


# -- cross-entropy of class indices ------------------------------------------------------------------


def _cross_entropy_plain(x: Any, target: Any, weight: Any, *, ignore: int, op: str, mean: bool) -> Any:
    from gpugrad.ops.indexing import gather, index_select

    work = widened(x)
    used = e.ne(target, ignore)
    index = e.where(used, target, 0)
    chosen = reshape(gather(log_softmax(work, 1), 1, reshape(index, (-1, 1)), op=op), -1)
    share: Any = used
    if weight is not None:
        own = index_select(widened(weight), 0, index)
        chosen = e.mul(chosen, own)
        share = e.where(used, own, 0.0)
    # where() and not a product: what an ignored place holds may be infinite.
    loss = e.neg(e.where(used, chosen, 0.0))
    return e.div(sum_(loss), sum_(share, dtype=loss.dtype)) if mean else loss


def _cross_entropy_gradients(
    g: Any, a: Any, b: Any, c: Any, second: Any, ignore: int, op: str, mean: bool, needed: Sequence[bool]
) -> tuple[Any, ...]:
    routine = None if needed[2] else backward_routine(g, "cross_entropy_backward")
    if routine is None:
        return through_plain(_cross_entropy_plain, g, (a, b, c), needed, ignore=ignore, op=op, mean=mean)
    backend, stats, each = g._backend, second._array, g._array
    rows = stats.shape[1]
    if mean:
        total = backend.reduce("sum", stats[2], (0,), stats.dtype)
        each = backend.map(e.div.kernel, (each, total), stats.dtype, stats.dtype)
        each = backend.as_strided(each, (rows,), (0,), 0)
    x = dense(backend, a._array, tuple(a._array.shape))
    return wrap(routine(each, x, dense(backend, b._array, (rows,)), stats), backend), None, None


@fused_row("cross_entropy", _cross_entropy_gradients)
def _cross_entropy(backend: Any, x: Any, target: Any, weight: Any, ignore: int, op: str, mean: bool) -> Any:
    rows, classes = x.shape
    weight = weight if weight is None else dense(backend, weight, (classes,))
    x, target = dense(backend, x, (rows, classes)), dense(backend, target, (rows,))
    loss, stats = backend.offer("cross_entropy")(x, target, weight, ignore, op)
    if mean:
        total, share = (backend.reduce("sum", a, (0,), a.dtype) for a in (loss, stats[2]))
        loss = backend.map(e.div.kernel, (total, share), loss.dtype, loss.dtype)
    return loss, stats


def cross_entropy(x: Any, target: Any, weight: Any, ignore: int, op: str, mean: bool) -> Any:
    """-log(softmax(x)) of logits ``[rows, classes]`` at the classes ``target`` (int64 ``[rows]``), times
    ``weight[class]``; 0 where the target is ``ignore``. ``[rows]``, or with ``mean`` their sum divided by that of
    the weights (1 without) of the targets that are not ignored. Half types give float32.

    Raises IndexError for another class outside [0, classes), in the name of ``op``."""
    plain = not x._array.size or not one_kind(x, weight) or target._backend is not x._backend
    if plain or not offered(x, "cross_entropy"):
        return _cross_entropy_plain(x, target, weight, ignore=ignore, op=op, mean=mean)
    return _cross_entropy(x, target, weight, ignore=ignore, op=op, mean=mean)[0]
