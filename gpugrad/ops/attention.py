"""Attention: a weighted mean of values, the weights a softmax of products of queries and keys.

``_plain`` is the definition, in terms of other ops. A backend may offer to do all of it tile by tile without ever
holding the weights ``[l, s]``: a row of its own (see ``gpugrad/ops/fused.py``), whose gradients are the routine
``attention_backward``, or taken through the definition where they are to be differentiated again.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from gpugrad import dtypes, layout
from gpugrad.ops import elementwise as e
from gpugrad.ops.autocast import listed
from gpugrad.ops.creation import cast, full, tril
from gpugrad.ops.fused import backward_routine, fused_row, offered, softmax, through_plain
from gpugrad.ops.linear import matmul
from gpugrad.ops.movement import expand, reshape, transpose, unsqueeze
from gpugrad.ops.reductions import amax
from gpugrad.ops.table import Sample, composite, describe, wrap
from gpugrad.random import default_generator

_NOWHERE = -math.inf


class _Choice(threading.local):
    """Whether this thread wants the definition, whatever is offered."""

    definition = False


choice = _Choice()


def _reference(
    q: Any, k: Any, v: Any, attn_mask: Any = None, is_causal: bool = False, scale: Any = None, enable_gqa: bool = False
) -> Any:
    if enable_gqa:
        k, v = (np.repeat(x, q.shape[-3] // x.shape[-3], -3) for x in (k, v))
    scores = q @ np.swapaxes(k, -1, -2) * (1 / math.sqrt(q.shape[-1]) if scale is None else scale)
    if is_causal:
        scores = np.where(np.tri(*scores.shape[-2:]) > 0, scores, -np.inf)
    if attn_mask is not None:
        scores = np.where(attn_mask, scores, -np.inf) if attn_mask.dtype == bool else scores + attn_mask
    weights = np.exp(scores)  # the samples are small numbers
    total = weights.sum(-1, keepdims=True)
    return weights / np.where(total == 0, 1, total) @ v


_BOOLEAN = [[True, False, True, True, False], [False] * 5, [True] * 5]
_QKV = ((2, 3, 4), (2, 5, 4), (2, 5, 2))
_SAMPLES = (
    Sample(_QKV),
    Sample(_QKV, {"is_causal": True}),
    Sample(((6, 3, 4), (2, 5, 4), (2, 5, 4)), {"enable_gqa": True, "scale": 0.3}),
    Sample((*_QKV, (3, 5))),
    Sample((*_QKV, _BOOLEAN)),
    Sample(((3, 4), (5, 4), (5, 2))),
    Sample(((2, 3, 4), (2, 0, 4), (2, 0, 2))),
    Sample(((0, 3, 4), (0, 5, 4), (0, 5, 2))),
)


def _weights(query: Any, key: Any, mask: Any, causal: bool, scale: float | None) -> Any:
    """``softmax(query @ key.T * scale + mask)``: ``[..., l, e]`` and ``[..., s, e]`` give ``[..., l, s]``.

    ``mask``: bool, True where a key takes part, or floating, added. ``causal``: query i sees the keys up
    to i. ``scale``: default 1/sqrt(e). A query that sees no key has only weights of 0."""
    width = query._array.shape[-1]
    if scale is None:
        scale = 1.0 / math.sqrt(width) if width else 1.0
    scores = matmul(e.mul(query, scale), transpose(key, -1, -2))
    if causal:
        mask = tril(full(scores._array.shape[-2:], True, dtype=dtypes.bool_, device=scores.device))
    if mask is not None:
        _check_mask(mask, scores._array.shape)
        scores = e.where(mask, scores, _NOWHERE) if mask.dtype is dtypes.bool_ else e.add(scores, mask)
    if mask is None or causal or not scores._array.size:
        return softmax(scores, -1)
    blind = e.eq(amax(scores.detach(), -1, keepdim=True), _NOWHERE)
    # Scores of 0 in such a row keep NaN out of the gradient; the weights are then taken away.
    return e.where(blind, 0.0, softmax(e.where(blind, 0.0, scores), -1))


def _check_mask(mask: Any, want: Sequence[int]) -> None:
    """Raise RuntimeError unless ``mask`` broadcasts to the scores, of shape ``want``."""
    have = mask._array.shape
    if len(have) > len(want) or any(n not in (1, m) for n, m in zip(have[::-1], want[::-1], strict=False)):
        raise RuntimeError(
            f"scaled_dot_product_attention: attn_mask of shape {tuple(have)} does not broadcast to the scores of shape "
            f"{tuple(want)}: [..., queries, keys]"
        )


def _check_groups(query: Any, key: Any, value: Any) -> int:
    """The heads of ``query``. Raises RuntimeError unless those of ``key`` and ``value`` divide them."""
    heads = query._array.shape[-3] if query._array.ndim > 2 else 0
    if not heads or any(
        x._array.ndim < 3 or not x._array.shape[-3] or heads % x._array.shape[-3] for x in (key, value)
    ):
        raise RuntimeError(
            "scaled_dot_product_attention: with enable_gqa the number of heads (dimension -3) of key and value must "
            f"divide that of query; got {describe(query, key, value)}"
        )
    return heads


def _repeat_heads(query: Any, key: Any, value: Any) -> tuple[Any, Any]:
    """``key`` and ``value`` with each head (dimension -3) standing for as many in a row as ``query`` has
    to each of theirs (Ainslie et al., "GQA", 2023). Raises RuntimeError unless the numbers divide."""
    heads = _check_groups(query, key, value)

    def repeated(x: Any) -> Any:
        shape = tuple(x._array.shape)
        times = heads // shape[-3]
        if times == 1:
            return x
        wide = expand(unsqueeze(x, -3), (*shape[:-2], times, *shape[-2:]))
        return reshape(wide, (*shape[:-3], heads, *shape[-2:]))

    return repeated(key), repeated(value)


def _check(query: Any, key: Any, value: Any, mask: Any, causal: bool) -> None:
    """Raise RuntimeError unless the arguments of scaled_dot_product_attention fit each other."""
    op = "scaled_dot_product_attention"
    got = f"got {describe(query, key, value)}"
    if min(x._array.ndim for x in (query, key, value)) < 2:
        raise RuntimeError(f"{op}: query, key and value need at least 2 dimensions, [..., length, width]; {got}")
    if not query.dtype is key.dtype is value.dtype:
        raise RuntimeError(f"{op}: query, key and value must have one dtype, {got}; convert with .to(dtype)")
    if not query.dtype.is_floating_point:
        raise RuntimeError(f"{op}: query, key and value must be floating-point, {got}; convert with .float()")
    if query._array.shape[-1] != key._array.shape[-1]:
        raise RuntimeError(f"{op}: query and key must have one width (last dimension), {got}")
    if key._array.shape[-2] != value._array.shape[-2]:
        raise RuntimeError(f"{op}: key and value must have one length (dimension -2), {got}")
    if mask is None:
        return
    if causal:
        raise RuntimeError(f"{op}: is_causal=True stands for a mask; give it or attn_mask, not both")
    if mask.dtype not in (dtypes.bool_, dtypes.float32, query.dtype):
        raise RuntimeError(
            f"{op}: attn_mask must be bool or have the dtype of query, got {mask.dtype.name} for {query.dtype.name}"
        )


class How(NamedTuple):
    """What the result depends on besides the tensors. ``groups``: key and value may have fewer heads than the query;
    ``dropout``: the probability and the seed and stream of the mask."""

    causal: bool
    scale: float
    groups: bool
    dropout: tuple[float, int, int] | None


def _plain(query: Any, key: Any, value: Any, mask: Any, *, how: How) -> Any:
    """The definition, of checked arguments."""
    dtype = query.dtype
    if how.groups:
        key, value = _repeat_heads(query, key, value)
    if dtype.itemsize < 4:
        query, key, value = (cast(x, dtypes.float32) for x in (query, key, value))
    if mask is not None and mask.dtype is not dtypes.bool_:
        mask = cast(mask, query.dtype)
    weights = _weights(query, key, mask, how.causal, how.scale)
    if how.dropout is not None:
        weights = _dropped(weights, *how.dropout)
    return cast(matmul(weights, value), dtype)


def _dropped(weights: Any, p: float, seed: int, stream: int) -> Any:
    """``weights``, each taken away with probability ``p`` and the others divided by 1 - p: by the bits that
    ``rand`` draws for their shape as ``stream`` of ``seed``."""
    if p == 1.0:
        return e.mul(weights, 0.0)
    backend = weights._backend
    drawn = backend.random("uniform", tuple(weights._array.shape), dtypes.float32.numpy, seed, stream)
    return e.where(e.ge(wrap(drawn, backend), p), e.mul(weights, 1.0 / (1.0 - p)), 0.0)


# -- as one row -----------------------------------------------------------------------------------


def _four(backend: Any, array: Any) -> Any:
    """``[..., n, m]`` of up to four dimensions as ``[batch, heads, n, m]``."""
    missing = 4 - array.ndim
    if not missing:
        return array
    return backend.as_strided(array, (1,) * missing + tuple(array.shape), (0,) * missing + tuple(array.strides), 0)


def _spread(backend: Any, mask: Any, shape: Sequence[int]) -> Any:
    """``mask`` in ``shape`` by strides of 0."""
    if mask is None:
        return None
    shape = tuple(shape)
    return backend.as_strided(mask, shape, layout.expand_strides(mask.shape, mask.strides, shape), 0)


def _like(backend: Any, array: Any, shape: Sequence[int]) -> Any:
    """A result ``[batch, heads, n, m]`` without the dimensions that ``_four`` added."""
    drop = array.ndim - len(shape)
    return backend.as_strided(array, tuple(shape), tuple(array.strides)[drop:], 0) if drop else array


def _attention_gradients(
    g: Any, a: Any, b: Any, c: Any, d: Any, y: Any, second: Any, how: How, needed: Sequence[bool]
) -> tuple[Any, ...]:
    routine = None if needed[3] else backward_routine(g, "attention_backward")
    if routine is None:
        return through_plain(_plain, g, (a, b, c, d), needed, how=how)
    backend = g._backend
    four = [_four(backend, x._array) for x in (g, a, b, c, y)]
    keys = four[2].shape[2]
    mask = _spread(backend, None if d is None else d._array, (*four[1].shape[:3], keys))
    found = routine(*four, second._array, mask, how.causal, how.scale, how.dropout, tuple(needed[:3]))
    return *(
        None if x is None else wrap(_like(backend, x, like._array.shape), backend)
        for x, like in zip(found, (a, b, c), strict=True)
    ), None  # fmt: skip


@fused_row("attention", _attention_gradients)
def _attention(backend: Any, query: Any, key: Any, value: Any, mask: Any, how: How) -> Any:
    q, k, v = (_four(backend, x) for x in (query, key, value))
    mask = _spread(backend, mask, (*q.shape[:3], k.shape[2]))
    out, kept = backend.offer("attention")(q, k, v, mask, how.causal, how.scale, how.dropout)
    return _like(backend, out, (*query.shape[:-1], value.shape[-1])), kept


def _joined(query: Any, key: Any, value: Any, mask: Any, groups: bool) -> tuple[Any, ...] | None:
    """Queries, keys and values of at most four dimensions, with the leading ones equal but for the heads of
    ``groups``; None where the routine cannot have them so."""
    shapes = [tuple(x._array.shape) for x in (query, key, value)]
    if groups:
        lead = shapes[0][:-3]
        if shapes[1][:-2] != shapes[2][:-2] or shapes[1][:-3] != lead or len(lead) > 1:
            return None
        return query, key, value
    if not shapes[0][:-2] == shapes[1][:-2] == shapes[2][:-2]:
        try:
            common = layout.broadcast_shapes(*(s[:-2] for s in shapes))
            if common != layout.broadcast_shapes(*(s[:-2] for s in shapes[:2])):
                return None  # fewer weights than results
        except (RuntimeError, ValueError):
            return None  # the definition says what does not fit
        query, key, value = (expand(x, (*common, *x._array.shape[-2:])) for x in (query, key, value))
    if query._array.ndim > 4:
        if mask is not None and mask._array.ndim > 2:
            return None
        query, key, value = (reshape(x, (1, -1, *x._array.shape[-2:])) for x in (query, key, value))
    return query, key, value


def _in_tiles(query: Any, key: Any, value: Any, mask: Any, how: How) -> Any:
    """The result by the backend's routine, or None where there is none for these arguments."""
    takes = None if choice.definition else offered(query, "attention_takes")
    width, keys = query._array.shape[-1], key._array.shape[-2]
    if takes is None or not (query._array.size and keys and value._array.size):
        return None
    if any(x is not None and x._backend is not query._backend for x in (key, value, mask)):
        return None
    if not takes(query._array.dtype, width, value._array.shape[-1], query._array.shape[-2]):
        return None
    joined = _joined(query, key, value, mask, how.groups)
    if joined is None:
        return None
    if mask is not None:
        if mask.dtype is not dtypes.bool_:
            mask = cast(mask, dtypes.float32 if query.dtype.itemsize < 4 else query.dtype)
        lead = (*joined[0]._array.shape[:-1], keys)
        if mask._array.ndim > len(lead):
            return None
        _check_mask(mask, lead)
    out, _ = _attention(*joined, mask, how=how)
    shape = (*joined[0]._array.shape[:-1], value._array.shape[-1])
    if query._array.ndim <= 4:
        return out
    lead = layout.broadcast_shapes(*(tuple(x._array.shape[:-2]) for x in (query, key, value)))
    return reshape(out, (*lead, *shape[-2:]))


@listed("scaled_dot_product_attention")
def weighted_values(
    query: Any,
    key: Any,
    value: Any,
    mask: Any,
    causal: bool,
    scale: float | None,
    groups: bool,
    p: float,
) -> Any:
    """:func:`attend`, with each weight taken away with probability ``p`` and the others divided by 1 - p. Half types
    are computed in float32 throughout."""
    _check(query, key, value, mask, causal)
    width = query._array.shape[-1]
    if scale is None:
        scale = 1.0 / math.sqrt(width) if width else 1.0
    if groups:
        _check_groups(query, key, value)
    dropout = None
    if p and 0 not in query._array.shape[:-1] and 0 not in key._array.shape[:-1]:
        # Where no element of a mask is random nothing is drawn.
        dropout = (p, *default_generator.next_stream()) if p < 1.0 else (p, 0, 0)
    how = How(causal, scale, groups, dropout)
    if p < 1.0:
        out = _in_tiles(query, key, value, mask, how)
        if out is not None:
            return out
    return _plain(query, key, value, mask, how=how)


@composite(
    "scaled_dot_product_attention",
    reference=_reference,
    samples=_SAMPLES,
    dtypes="f",
    torch="nn.functional.scaled_dot_product_attention",
)
def attend(
    query: Any,
    key: Any,
    value: Any,
    attn_mask: Any = None,
    *,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Any:
    """``softmax(query @ key.T * scale + attn_mask) @ value`` (Vaswani et al., "Attention is all you need",
    2017): ``[..., l, e]``, ``[..., s, e]`` and ``[..., s, v]`` give ``[..., l, v]``.

    Raises RuntimeError where shapes or dtypes do not fit."""
    return weighted_values(query, key, value, attn_mask, is_causal, scale, enable_gqa, 0.0)
