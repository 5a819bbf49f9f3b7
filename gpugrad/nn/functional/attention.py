"""Attention as functions: of queries, keys and values, and of several heads with their projections."""

from __future__ import annotations

import math
import warnings
from typing import Any

from gpugrad import dtypes
from gpugrad.nn.functional.dropout import dropout
from gpugrad.ops import attention as ops
from gpugrad.ops.creation import zeros
from gpugrad.ops.elementwise import where
from gpugrad.ops.fused import softmax
from gpugrad.ops.joining import cat, pad_constant
from gpugrad.ops.linear import linear
from gpugrad.tensor import Tensor


def scaled_dot_product_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """``dropout(softmax(query @ key.T * scale + attn_mask)) @ value`` (Vaswani et al., "Attention is all you
    need", 2017): ``[..., l, e]``, ``[..., s, e]`` and ``[..., s, v]`` give ``[..., l, v]``.

    ``attn_mask``: broadcast to ``[..., l, s]``; bool, True where a key takes part, or floating, added to
    the scores. ``dropout_p`` applies always: pass 0 when not training. ``is_causal``: query i sees keys
    0 to i. ``scale``: default 1/sqrt(e). ``enable_gqa``: fewer heads in key and value than in query. A
    query that sees no key gives 0. Raises RuntimeError where shapes or dtypes do not fit."""
    if not 0.0 <= dropout_p <= 1.0:
        raise RuntimeError(f"scaled_dot_product_attention: dropout_p={dropout_p} is not a probability in [0, 1]")
    return ops.weighted_values(query, key, value, attn_mask, is_causal, scale, enable_gqa, dropout_p)


# -- several heads -------------------------------------------------------------


def additive_mask(mask: Tensor | None, name: str, dtype: dtypes.DType, other: Tensor | None = None) -> Tensor | None:
    """A bool mask (True: ignore) as numbers to add to scores; a floating one as it is. ``other``: a mask
    whose kind should be the same. Raises AssertionError for other dtypes."""
    if mask is None:
        return None
    if mask.dtype is not dtypes.bool_ and not mask.is_floating_point():
        raise AssertionError(f"{name} must be bool or floating-point, not {mask.dtype.name}; convert it with .bool()")
    if other is not None and other.dtype is not mask.dtype:
        warnings.warn(
            f"{name} is {mask.dtype.name} and the other mask {other.dtype.name}; use one kind for both", stacklevel=4
        )
    if mask.is_floating_point():
        return mask
    return where(mask, -math.inf, zeros((), dtype=dtype, device=mask.device))


def _require(condition: bool, text: str) -> None:
    if not condition:
        raise AssertionError(f"multi_head_attention_forward: {text}")


def _check_dims(
    query: Tensor, key: Tensor, value: Tensor, padding: Tensor | None, mask: Tensor | None, heads: int
) -> bool:
    """Whether there is a batch dimension. Raises AssertionError for numbers of dimensions that do not fit."""
    _require(query.dim() in (2, 3), f"query must be [length, width] or with a batch 3-d, got {tuple(query.shape)}")
    batched = query.dim() == 3
    kind = "a batched query" if batched else "a query without batch"
    _require(
        key.dim() == value.dim() == query.dim(),
        f"for {kind} key and value must be {query.dim()}-d too, got {tuple(key.shape)} and {tuple(value.shape)}",
    )
    if padding is not None:
        _require(
            padding.dim() == query.dim() - 1,
            f"for {kind} key_padding_mask must be {query.dim() - 1}-d, got {tuple(padding.shape)}",
        )
    if mask is not None:
        _require(mask.dim() in (2, 3), f"attn_mask must be 2-d or 3-d, got {tuple(mask.shape)}")
        if not batched and mask.dim() == 3:
            want = (heads, query.shape[0], key.shape[0])
            _require(tuple(mask.shape) == want, f"attn_mask must have shape {want}, got {tuple(mask.shape)}")
    return batched


def in_projection(
    query: Tensor, key: Tensor, value: Tensor, weights: Tensor | tuple[Tensor, Tensor, Tensor], bias: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values by their linear maps: ``weights`` one ``[3 e, e]`` (done as few products as the
    inputs allow) or three; ``bias`` ``[3 e]``."""
    if isinstance(weights, tuple):
        biases = (None, None, None) if bias is None else bias.chunk(3)
        q, k, v = (linear(x, w, b) for x, w, b in zip((query, key, value), weights, biases, strict=True))
        return q, k, v
    e = query.shape[-1]
    if key is value and query is key:
        q, k, v = linear(query, weights, bias).split(e, -1)
        return q, k, v
    if key is value:
        w_q, w_kv = weights.split([e, 2 * e])
        b_q, b_kv = (None, None) if bias is None else bias.split([e, 2 * e])
        return (linear(query, w_q, b_q), *linear(key, w_kv, b_kv).split(e, -1))
    return in_projection(query, key, value, tuple(weights.chunk(3)), bias)


def _checked_mask(mask: Tensor, batch: int, heads: int, queries: int, keys: int) -> Tensor:
    """``attn_mask`` as ``[1 or batch * heads, queries, keys]``."""
    want = (queries, keys) if mask.dim() == 2 else (batch * heads, queries, keys)
    if tuple(mask.shape) != want:
        raise RuntimeError(
            f"multi_head_attention_forward: a {mask.dim()}-d attn_mask must have shape {want} here, got "
            f"{tuple(mask.shape)}"
        )
    return mask.unsqueeze(0) if mask.dim() == 2 else mask


def _combined(
    mask: Tensor | None, padding: Tensor | None, batch: int, heads: int, source: int, extra: int
) -> Tensor | None:
    """``attn_mask`` and ``key_padding_mask``, both as numbers, in one mask for ``[batch * heads, queries, source]``;
    the last ``extra`` keys, which neither knows, take part always."""
    if extra:
        mask = None if mask is None else pad_constant(mask, (0, extra))
        padding = None if padding is None else pad_constant(padding, (0, extra))
    if padding is None:
        return mask
    _require(
        tuple(padding.shape) == (batch, source),
        f"key_padding_mask must have shape {(batch, source - extra)}, got "
        f"{(padding.shape[0], padding.shape[1] - extra)}",
    )
    wide = padding.reshape(batch, 1, 1, source).expand(batch, heads, 1, source).reshape(batch * heads, 1, source)
    return wide if mask is None else mask + wide


def _split_heads(x: Tensor, heads: int) -> Tensor:
    """``[length, batch, width]`` as ``[batch * heads, length, width / heads]``."""
    length, batch, width = x.shape
    return x.reshape(length, batch * heads, width // heads).transpose(0, 1)


def _given_heads(x: Tensor, batch: int, heads: int, head: int, name: str) -> Tensor:
    want = (batch * heads, x.shape[1], head)
    _require(tuple(x.shape) == want, f"{name} must have shape {want}, got {tuple(x.shape)}")
    return x


def _checked_weights(
    key: Tensor, value: Tensor, together: Tensor | None, separate: tuple[Tensor | None, ...] | None
) -> Any:
    """The weights of the projections: one tensor, or three if ``separate`` is given."""
    shapes = f"key {tuple(key.shape)} and value {tuple(value.shape)}"
    if separate is None:
        _require(key.shape == value.shape, f"{shapes} must have one shape")
        _require(together is not None, "in_proj_weight is None; with separate weights say use_separate_proj_weight")
        return together
    _require(key.shape[:2] == value.shape[:2], f"{shapes} must have one length and one batch size")
    _require(
        all(w is not None for w in separate),
        "use_separate_proj_weight needs q_proj_weight, k_proj_weight and v_proj_weight",
    )
    return separate


def multi_head_attention_forward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    embed_dim_to_check: int,
    num_heads: int,
    in_proj_weight: Tensor | None,
    in_proj_bias: Tensor | None,
    bias_k: Tensor | None,
    bias_v: Tensor | None,
    add_zero_attn: bool,
    dropout_p: float,
    out_proj_weight: Tensor,
    out_proj_bias: Tensor | None,
    training: bool = True,
    key_padding_mask: Tensor | None = None,
    need_weights: bool = True,
    attn_mask: Tensor | None = None,
    use_separate_proj_weight: bool = False,
    q_proj_weight: Tensor | None = None,
    k_proj_weight: Tensor | None = None,
    v_proj_weight: Tensor | None = None,
    static_k: Tensor | None = None,
    static_v: Tensor | None = None,
    average_attn_weights: bool = True,
    is_causal: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """What :class:`gpugrad.nn.MultiheadAttention` computes. ``query`` ``[l, n, e]`` (or ``[l, e]``), ``key`` and
    ``value`` ``[s, n, *]``; gives ``[l, n, e]`` and, if ``need_weights``, the weights ``[n, l, s]``, or
    ``[n, heads, l, s]`` unless ``average_attn_weights``.

    ``key_padding_mask`` ``[n, s]`` and ``attn_mask`` ``[l, s]`` or ``[n * heads, l, s]``: bool, True where a
    key is ignored, or floating, added. ``is_causal`` is a hint that ``attn_mask`` is the causal mask.
    Raises AssertionError or RuntimeError where shapes do not fit."""
    batched = _check_dims(query, key, value, key_padding_mask, attn_mask, num_heads)
    if not batched:
        alone = query is key, key is value
        query = query.unsqueeze(1)
        key = query if alone[0] else key.unsqueeze(1)
        value = key if alone[1] else value.unsqueeze(1)
        if key_padding_mask is not None:
            key_padding_mask = key_padding_mask.unsqueeze(0)
    length, batch, width = query.shape
    if is_causal and attn_mask is None:
        raise RuntimeError(
            "multi_head_attention_forward: is_causal is a hint about attn_mask, which is missing; pass "
            "Transformer.generate_square_subsequent_mask(length)"
        )
    padding = additive_mask(key_padding_mask, "key_padding_mask", query.dtype, attn_mask)
    causal = is_causal and padding is None and not need_weights
    mask = None if causal else additive_mask(attn_mask, "attn_mask", query.dtype)
    _require(width == embed_dim_to_check, f"query must have width {embed_dim_to_check}, got {width}")
    head = width // num_heads
    _require(head * num_heads == width, f"width {width} must be a multiple of num_heads={num_heads}")
    separate = (q_proj_weight, k_proj_weight, v_proj_weight) if use_separate_proj_weight else None
    weights = _checked_weights(key, value, in_proj_weight, separate)
    q, k, v = in_projection(query, key, value, weights, in_proj_bias)
    if mask is not None:
        mask = _checked_mask(mask, batch, num_heads, length, key.shape[0])
    _require((bias_k is None) == (bias_v is None), "bias_k and bias_v come together or not at all")
    extra = 0
    if bias_k is not None and bias_v is not None:
        _require(static_k is None and static_v is None, "bias_k and bias_v do not go with static_k and static_v")
        k = cat([k, bias_k.expand(1, batch, width)])
        v = cat([v, bias_v.expand(1, batch, width)])
        extra = 1

    q = _split_heads(q, num_heads)
    k = _split_heads(k, num_heads) if static_k is None else _given_heads(static_k, batch, num_heads, head, "static_k")
    v = _split_heads(v, num_heads) if static_v is None else _given_heads(static_v, batch, num_heads, head, "static_v")
    if add_zero_attn:
        nothing = zeros((batch * num_heads, 1, head), dtype=k.dtype, device=k.device)
        k, v = cat([k, nothing], 1), cat([v, nothing], 1)
        extra += 1
    source = k.shape[1]
    mask = _combined(mask, padding, batch, num_heads, source, extra)
    p = dropout_p if training else 0.0
    if need_weights:
        scores = (q * math.sqrt(1.0 / head)).matmul(k.transpose(1, 2))
        attention = dropout(softmax(scores if mask is None else scores + mask, -1), p)
        heads = attention.matmul(v)
    else:
        attention = None
        heads = scaled_dot_product_attention(q, k, v, mask, p, causal)
    joined = heads.transpose(0, 1).reshape(length * batch, width)
    out = linear(joined, out_proj_weight, out_proj_bias).reshape(length, batch, out_proj_weight.shape[0])
    if attention is not None:
        attention = attention.reshape(batch, num_heads, length, source)
        if average_attn_weights:
            attention = attention.mean(1)
    if not batched:
        return out.squeeze(1), None if attention is None else attention.squeeze(0)
    return out, attention
