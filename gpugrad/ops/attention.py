"""Attention: a weighted mean of values, the weights a softmax of products of queries and keys.

The plain definition in terms of other ops. A backend may one day do all of :func:`attend` in one pass
(see ``gpugrad/ops/fused.py``); dropout of the weights, which such a pass leaves out, is added in
``gpugrad.nn.functional``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from gpugrad import dtypes
from gpugrad.ops import elementwise as e
from gpugrad.ops.autocast import listed
from gpugrad.ops.creation import cast, full, tril
from gpugrad.ops.fused import softmax
from gpugrad.ops.linear import matmul
from gpugrad.ops.movement import expand, reshape, transpose, unsqueeze
from gpugrad.ops.reductions import amax
from gpugrad.ops.table import Sample, composite, describe

_NOWHERE = -math.inf


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
        _check_mask(mask, scores)
        scores = e.where(mask, scores, _NOWHERE) if mask.dtype is dtypes.bool_ else e.add(scores, mask)
    if mask is None or causal or not scores._array.size:
        return softmax(scores, -1)
    blind = e.eq(amax(scores.detach(), -1, keepdim=True), _NOWHERE)
    # Scores of 0 in such a row keep NaN out of the gradient; the weights are then taken away.
    return e.where(blind, 0.0, softmax(e.where(blind, 0.0, scores), -1))


def _check_mask(mask: Any, scores: Any) -> None:
    have, want = mask._array.shape, scores._array.shape
    if len(have) > len(want) or any(n not in (1, m) for n, m in zip(have[::-1], want[::-1], strict=False)):
        raise RuntimeError(
            f"scaled_dot_product_attention: attn_mask of shape {tuple(have)} does not broadcast to the scores of shape "
            f"{tuple(want)}: [..., queries, keys]"
        )


def _repeat_heads(query: Any, key: Any, value: Any) -> tuple[Any, Any]:
    """``key`` and ``value`` with each head (dimension -3) standing for as many in a row as ``query`` has
    to each of theirs (Ainslie et al., "GQA", 2023). Raises RuntimeError unless the numbers divide."""
    heads = query._array.shape[-3] if query._array.ndim > 2 else 0
    if not heads or any(
        x._array.ndim < 3 or not x._array.shape[-3] or heads % x._array.shape[-3] for x in (key, value)
    ):
        raise RuntimeError(
            "scaled_dot_product_attention: with enable_gqa the number of heads (dimension -3) of key and value must "
            f"divide that of query; got {describe(query, key, value)}"
        )

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


@listed("scaled_dot_product_attention")
def weighted_values(
    query: Any,
    key: Any,
    value: Any,
    mask: Any,
    causal: bool,
    scale: float | None,
    groups: bool,
    drop: Callable[[Any], Any] | None,
) -> Any:
    """:func:`attend`, with ``drop`` applied to the weights. Half types are computed in float32 throughout."""
    _check(query, key, value, mask, causal)
    dtype = query.dtype
    if groups:
        key, value = _repeat_heads(query, key, value)
    if dtype.itemsize < 4:
        query, key, value = (cast(x, dtypes.float32) for x in (query, key, value))
    if mask is not None and mask.dtype is not dtypes.bool_:
        mask = cast(mask, query.dtype)
    weights = _weights(query, key, mask, causal, scale)
    return cast(matmul(weights if drop is None else drop(weights), value), dtype)


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
    return weighted_values(query, key, value, attn_mask, is_causal, scale, enable_gqa, None)
