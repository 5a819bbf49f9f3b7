"""Parts of language models: rotary positions, gated feed-forward layers, the cache of keys and values."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpugrad import dtypes
from gpugrad.autograd import no_grad
from gpugrad.nn import functional as F
from gpugrad.nn.linear import Linear
from gpugrad.nn.module import Module
from gpugrad.ops import creation
from gpugrad.tensor import Tensor


class RotaryEmbedding(Module):
    """Turns features by angles that grow with the position (Su et al., "RoFormer: enhanced transformer with rotary
    position embedding", 2021): pair i at position t by ``t / base^(2 i / width)``.

    ``forward(input, position=0)``: ``[..., length, features]`` to the same shape and dtype. ``position``: that of the
    first of ``length`` in a row, or an integer tensor ``[length]`` (or ``[..., length]`` that broadcasts to the
    input's) with that of each. The first ``width`` of the features are turned; ``interleaved`` says what is a pair, see
    :func:`gpugrad.nn.functional.rotary_embedding`. Positions are 0 to ``max_positions - 1``; the tables ``cos`` and
    ``sin`` ``[max_positions, width / 2]`` are buffers that are not saved.

    Raises ValueError for an odd width, RuntimeError for shapes that do not fit and positions outside the tables,
    IndexError for positions of a tensor that are outside."""

    cos: Tensor
    sin: Tensor

    def __init__(
        self,
        width: int,
        max_positions: int = 2048,
        base: float = 10000.0,
        interleaved: bool = False,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        if width < 2 or width % 2:
            raise ValueError(f"RotaryEmbedding: width must be an even number of features, got {width}")
        self.width = width
        self.max_positions = max_positions
        self.base = base
        self.interleaved = interleaved
        angles = np.outer(np.arange(max_positions), float(base) ** (-np.arange(0, width, 2) / width))
        # On the host, in float64: late positions in float32 are off by whole thousandths of a turn.
        for name, table in (("cos", np.cos(angles)), ("sin", np.sin(angles))):
            values = creation.tensor(table.astype(np.float32), dtype=dtype or dtypes.float32, device=device)
            self.register_buffer(name, values, persistent=False)

    def forward(self, input: Tensor, position: int | Tensor = 0) -> Tensor:
        length = input.shape[-2] if input.dim() > 1 else 0
        if isinstance(position, Tensor):
            where = position.reshape(-1)
            cos, sin = (
                table.index_select(0, where).reshape(*position.shape, self.width // 2) for table in (self.cos, self.sin)
            )
        else:
            if position < 0 or position + length > self.max_positions:
                raise RuntimeError(
                    f"RotaryEmbedding: positions {position} to {position + length - 1} are not all within the "
                    f"{self.max_positions} it was made for; raise max_positions"
                )
            cos, sin = self.cos[position : position + length], self.sin[position : position + length]
        return F.rotary_embedding(input, cos, sin, self.interleaved)

    def extra_repr(self) -> str:
        return f"{self.width}, max_positions={self.max_positions}, base={self.base:g}, interleaved={self.interleaved}"


class SwiGLU(Module):
    """``down_proj(silu(gate_proj(x)) * up_proj(x))`` (Shazeer, "GLU variants improve transformer", 2020):
    ``[*, features]`` to ``[*, features]``.

    ``hidden``: width in between, by default 8/3 of ``features`` rounded up to a multiple of 8, which makes as many
    parameters as a plain layer of four times the width. The three maps start as :class:`Linear`."""

    def __init__(
        self, features: int, hidden: int | None = None, bias: bool = False, device: Any = None, dtype: Any = None
    ) -> None:
        super().__init__()
        hidden = -(-8 * features // 24) * 8 if hidden is None else hidden
        self.gate_proj = Linear(features, hidden, bias, device=device, dtype=dtype)
        self.up_proj = Linear(features, hidden, bias, device=device, dtype=dtype)
        self.down_proj = Linear(hidden, features, bias, device=device, dtype=dtype)

    def forward(self, input: Tensor) -> Tensor:
        return self.down_proj(F.swiglu(self.gate_proj(input), self.up_proj(input)))


class KVCache(Module):
    """Keys and values of the positions that were seen, so that a model which writes one token after the other computes
    each but once. Its memory, ``keys`` ``[batch, heads, length, width]`` and ``values`` (of ``value_width``), is
    allocated at once and written in place; it is not saved, and no gradient flows through it.

    Two ways to use it::

        keys, values = cache.append(key, value)             # [batch, heads, positions seen, width]
        out = F.scaled_dot_product_attention(query, keys, values, attn_mask=cache.mask(query.shape[-2]))

        keys, values = cache.write(key, value, position)    # [batch, heads, length, width], always
        out = F.scaled_dot_product_attention(query, keys, values, attn_mask=cache.mask_at(position))

    The second takes the positions as an integer tensor ``[n]`` on the device: all shapes stay the same from token to
    token, so a compiled step (``gg.compile``) is traced once. Positions not written yet hold 0; the mask hides them."""

    keys: Tensor
    values: Tensor

    def __init__(
        self,
        batch: int,
        heads: int,
        length: int,
        width: int,
        value_width: int | None = None,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        self.length = length
        self.seen = 0
        for name, size in (("keys", width), ("values", width if value_width is None else value_width)):
            memory = creation.zeros((batch, heads, length, size), device=device, dtype=dtype)
            self.register_buffer(name, memory, persistent=False)

    def _check(self, key: Tensor, value: Tensor) -> int:
        """How many positions are handed over. Raises RuntimeError where shapes do not fit."""
        n = key.shape[-2] if key.dim() == 4 else -1
        for name, given, mine in (("key", key, self.keys), ("value", value, self.values)):
            batch, heads, _, width = mine.shape
            if tuple(given.shape) != (batch, heads, n, width):
                raise RuntimeError(
                    f"KVCache: {name} of shape {tuple(given.shape)} does not fit a cache of {tuple(mine.shape)}: it "
                    f"must be ({batch}, {heads}, n, {width}), with one n for key and value"
                )
        return n

    @no_grad()
    def append(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Keep keys ``[batch, heads, n, width]`` and values of the next n positions; views of all kept so far. Raises
        RuntimeError where shapes do not fit, and where the cache is full."""
        n = self._check(key, value)
        stop = self.seen + n
        if stop > self.length:
            raise RuntimeError(
                f"KVCache: {self.seen} of {self.length} positions are taken, so {n} more have no place; make it longer "
                "or call reset()"
            )
        self.keys[:, :, self.seen : stop].copy_(key)
        self.values[:, :, self.seen : stop].copy_(value)
        self.seen = stop
        return self.keys[:, :, :stop], self.values[:, :, :stop]

    @no_grad()
    def write(self, key: Tensor, value: Tensor, position: Tensor) -> tuple[Tensor, Tensor]:
        """Keep keys and values of n positions at ``position`` (integers ``[n]``); all of ``keys`` and ``values``. Does
        not change ``seen``. Raises RuntimeError where shapes do not fit, IndexError for a position outside."""
        n = self._check(key, value)
        if tuple(position.shape) != (n,):
            raise RuntimeError(
                f"KVCache: position must have shape ({n},), one for each key, not {tuple(position.shape)}"
            )
        self.keys.index_copy_(2, position, key.detach().to(self.keys.dtype))
        self.values.index_copy_(2, position, value.detach().to(self.values.dtype))
        return self.keys, self.values

    def mask(self, queries: int) -> Tensor | None:
        """Bool ``[queries, seen]``: which keys each of the last ``queries`` positions may see, itself and those before;
        None for a single query, which sees all."""
        if queries == 1:
            return None
        return self._mask(creation.arange(self.seen - queries, self.seen, device=self.keys.device), self.seen)

    def mask_at(self, position: Tensor) -> Tensor:
        """Bool ``[n, length]``: the keys that queries at ``position`` (integers ``[n]``) may see."""
        return self._mask(position, self.length)

    def _mask(self, position: Tensor, length: int) -> Tensor:
        return creation.arange(length, device=self.keys.device) <= position.unsqueeze(-1)

    def reset(self, seen: int = 0) -> None:
        """Forget all positions, or those from ``seen`` on. Raises ValueError unless so many were appended."""
        if not 0 <= seen <= self.seen:
            raise ValueError(f"KVCache.reset: {seen} is not between 0 and the {self.seen} positions that were seen")
        self.seen = seen

    def extra_repr(self) -> str:
        batch, heads, length, width = self.keys.shape
        return f"{batch}, {heads}, {length}, {width}, seen={self.seen}"
