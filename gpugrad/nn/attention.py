"""Multi-head attention, and PyTorch's ``torch.nn.attention``: the choice of an implementation."""

from __future__ import annotations

import contextlib
import enum
from collections.abc import Iterator
from typing import Any

from gpugrad import dtypes
from gpugrad.nn import functional as F
from gpugrad.nn import init
from gpugrad.nn.functional.attention import additive_mask
from gpugrad.nn.linear import NonDynamicallyQuantizableLinear
from gpugrad.nn.module import Module
from gpugrad.nn.parameter import Parameter
from gpugrad.ops import creation
from gpugrad.ops.attention import choice
from gpugrad.tensor import Tensor

__all__ = ["MultiheadAttention", "SDPBackend", "sdpa_kernel"]


class SDPBackend(enum.IntEnum):
    """PyTorch's implementations of scaled_dot_product_attention. Here MATH is the definition, which holds the matrix of
    weights, and all others are the one that works tile by tile, where the device has it."""

    ERROR = -1
    MATH = 0
    FLASH_ATTENTION = 1
    EFFICIENT_ATTENTION = 2
    CUDNN_ATTENTION = 3
    OVERRIDEABLE = 4


@contextlib.contextmanager
def sdpa_kernel(backends: Any, set_priority: bool = False) -> Iterator[None]:
    """Which implementations of scaled_dot_product_attention may run: with ``SDPBackend.MATH`` alone the definition
    does, else the one by tiles wherever it can, and the definition where it cannot. Raises TypeError for others."""
    chosen = backends if isinstance(backends, (list, tuple)) else [backends]
    if not chosen or not all(isinstance(b, SDPBackend) for b in chosen):
        raise TypeError(f"sdpa_kernel: expected an SDPBackend or a list of them, got {backends!r}")
    before = choice.definition
    choice.definition = all(b in (SDPBackend.MATH, SDPBackend.ERROR) for b in chosen)
    try:
        yield
    finally:
        choice.definition = before


class MultiheadAttention(Module):
    """Several attentions side by side (Vaswani et al., "Attention is all you need", 2017).

    ``forward(query, key, value, key_padding_mask=None, need_weights=True, attn_mask=None,
    average_attn_weights=True, is_causal=False)``: ``query`` ``[l, n, embed]`` and ``key``, ``value``
    ``[s, n, kdim]``, ``[s, n, vdim]`` (``batch_first``: n first; all 2-d without batch) give ``[l, n, embed]``
    and the weights (None unless ``need_weights``). Masks: see
    :func:`gpugrad.nn.functional.multi_head_attention_forward`; ``is_causal``: a hint that ``attn_mask`` is the
    causal mask.

    ``in_proj_weight`` ``[3 embed, embed]`` (or ``q_proj_weight``, ``k_proj_weight``, ``v_proj_weight`` where kdim or
    vdim differ) starts Xavier-uniform, biases 0, ``out_proj`` as :class:`Linear`. Raises AssertionError,
    ValueError, RuntimeError where sizes do not fit."""

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        dropout: float = 0.0,
        bias: bool = True,
        add_bias_kv: bool = False,
        add_zero_attn: bool = False,
        kdim: int | None = None,
        vdim: int | None = None,
        batch_first: bool = False,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        if embed_dim <= 0 or num_heads <= 0:
            raise ValueError(
                f"MultiheadAttention: embed_dim={embed_dim} and num_heads={num_heads} must be greater than 0"
            )
        self.embed_dim = embed_dim
        self.kdim = embed_dim if kdim is None else kdim
        self.vdim = embed_dim if vdim is None else vdim
        self._qkv_same_embed_dim = self.kdim == embed_dim and self.vdim == embed_dim
        self.num_heads = num_heads
        self.dropout = dropout
        self.batch_first = batch_first
        self.head_dim = embed_dim // num_heads
        if self.head_dim * num_heads != embed_dim:
            raise AssertionError(
                f"MultiheadAttention: embed_dim={embed_dim} must be a multiple of num_heads={num_heads}"
            )

        def new(*shape: int) -> Parameter:
            return Parameter(creation.empty(shape, device=device, dtype=dtype))

        same = self._qkv_same_embed_dim
        self.register_parameter("q_proj_weight", None if same else new(embed_dim, embed_dim))
        self.register_parameter("k_proj_weight", None if same else new(embed_dim, self.kdim))
        self.register_parameter("v_proj_weight", None if same else new(embed_dim, self.vdim))
        self.register_parameter("in_proj_weight", new(3 * embed_dim, embed_dim) if same else None)
        self.register_parameter("in_proj_bias", new(3 * embed_dim) if bias else None)
        self.out_proj = NonDynamicallyQuantizableLinear(embed_dim, embed_dim, bias=bias, device=device, dtype=dtype)
        self.register_parameter("bias_k", new(1, 1, embed_dim) if add_bias_kv else None)
        self.register_parameter("bias_v", new(1, 1, embed_dim) if add_bias_kv else None)
        self.add_zero_attn = add_zero_attn
        self._reset_parameters()

    def _reset_parameters(self) -> None:
        for weight in (self.in_proj_weight, self.q_proj_weight, self.k_proj_weight, self.v_proj_weight):
            if weight is not None:
                init.xavier_uniform_(weight)
        if self.in_proj_bias is not None:
            init.constant_(self.in_proj_bias, 0.0)
            init.constant_(self.out_proj.bias, 0.0)
        for bias in (self.bias_k, self.bias_v):
            if bias is not None:
                init.xavier_normal_(bias)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        turn = self.batch_first and query.dim() == 3
        if turn:
            if key.dim() != 3 or value.dim() != 3:
                raise AssertionError(
                    f"MultiheadAttention: for a batched query key and value must be 3-d too, got {tuple(key.shape)} "
                    f"and {tuple(value.shape)}"
                )
            # The same tensors stay the same tensors: then one product projects them.
            same_key, same_value = query is key, key is value
            query = query.transpose(0, 1)
            key = query if same_key else key.transpose(0, 1)
            value = key if same_value else value.transpose(0, 1)
        out, weights = F.multi_head_attention_forward(
            query,
            key,
            value,
            self.embed_dim,
            self.num_heads,
            self.in_proj_weight,
            self.in_proj_bias,
            self.bias_k,
            self.bias_v,
            self.add_zero_attn,
            self.dropout,
            self.out_proj.weight,
            self.out_proj.bias,
            training=self.training,
            key_padding_mask=key_padding_mask,
            need_weights=need_weights,
            attn_mask=attn_mask,
            use_separate_proj_weight=not self._qkv_same_embed_dim,
            q_proj_weight=self.q_proj_weight,
            k_proj_weight=self.k_proj_weight,
            v_proj_weight=self.v_proj_weight,
            average_attn_weights=average_attn_weights,
            is_causal=is_causal,
        )
        return out.transpose(0, 1) if turn else out, weights

    def merge_masks(
        self, attn_mask: Tensor | None, key_padding_mask: Tensor | None, query: Tensor
    ) -> tuple[Tensor | None, int | None]:
        """Both masks as one: ``(mask, type)`` with type 0 for ``attn_mask`` alone ``[l, l]``, 1 for
        ``key_padding_mask`` alone ``[n, l]``, 2 for both ``[n, heads, l, l]``, None for none. ``query`` is
        ``[n, l, embed]``."""
        merged, kind = attn_mask, None if attn_mask is None else 0
        if key_padding_mask is not None:
            merged, kind = key_padding_mask, 1
        if attn_mask is not None:
            batch, length = query.shape[:2]
            wide = (
                attn_mask.reshape(batch, -1, length, length)
                if attn_mask.dim() == 3
                else attn_mask.reshape(1, 1, length, length)
            )
            merged, kind = wide.expand(batch, self.num_heads, length, length), 2
            if key_padding_mask is not None:
                padding = key_padding_mask.reshape(batch, 1, 1, length).expand(batch, self.num_heads, length, length)
                both_bool = merged.dtype is padding.dtype is dtypes.bool_
                if both_bool:
                    merged = merged | padding
                else:
                    merged = additive_mask(merged, "attn_mask", query.dtype) + additive_mask(  # type: ignore[operator]
                        padding, "key_padding_mask", query.dtype
                    )
        return merged, kind
