"""The model: GPT-2's transformer, and the parts of LLaMA's that can take the place of its own."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from typing import Any, NamedTuple

import gpugrad as gg
from gpugrad import nn
from gpugrad.nn import functional as F
from gpugrad.utils.checkpoint import checkpoint


@dataclass(frozen=True)
class Config:
    """What decides about a model's shapes.

    ``kv_heads``: heads of keys and values, 0 for as many as ``heads``. ``rope``: positions turn queries and keys
    instead of being learned. ``rmsnorm``, ``swiglu``: LLaMA's norms and feed-forward part. ``bias``: of the linear maps
    and of layer norm. ``hidden``: width of the feed-forward part, 0 for the usual one. ``eps``: of the norms."""

    layers: int
    heads: int
    channels: int
    context: int
    vocabulary: int = 0
    kv_heads: int = 0
    rope: bool = False
    rmsnorm: bool = False
    swiglu: bool = False
    bias: bool = True
    dropout: float = 0.0
    hidden: int = 0
    eps: float = 1e-5

    def __post_init__(self) -> None:
        if self.channels % self.heads:
            raise ValueError(f"{self.channels} channels cannot be shared out among {self.heads} heads")
        if self.kv_heads and self.heads % self.kv_heads:
            raise ValueError(f"{self.heads} heads cannot share {self.kv_heads} heads of keys and values")
        if self.rope and self.width % 2:
            raise ValueError(f"rope turns pairs of channels, but a head has {self.width}")

    @property
    def width(self) -> int:
        """Channels of a head."""
        return self.channels // self.heads

    @property
    def groups(self) -> int:
        """Heads of keys and values."""
        return self.kv_heads or self.heads

    def as_dict(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Config:
        """What :meth:`as_dict` gave; names it does not know are left out."""
        return cls(**{f.name: values[f.name] for f in fields(cls) if f.name in values})


class Size(NamedTuple):
    """A model's shape, and the batch and highest learning rate that it is trained with unless told otherwise."""

    config: Config
    batch: int
    lr: float


# The rates of GPT-2's sizes are those of Brown et al. ("Language models are few-shot learners", 2020), table 2.1.
SIZES = {
    "tiny": Size(Config(4, 4, 128, 64), 12, 3e-3),
    "small": Size(Config(6, 6, 384, 256), 64, 1e-3),
    "medium": Size(Config(8, 8, 512, 512), 32, 1e-3),
    "gpt2": Size(Config(12, 12, 768, 1024), 8, 6e-4),
    "gpt2-medium": Size(Config(24, 16, 1024, 1024), 4, 3e-4),
    "gpt2-large": Size(Config(36, 20, 1280, 1024), 2, 2.5e-4),
    "gpt2-xl": Size(Config(48, 25, 1600, 1024), 1, 2e-4),
}


def new_cache(config: Config, batch: int, device: Any) -> list[nn.KVCache]:
    """What keeps keys and values of tokens seen, for each block."""
    return [nn.KVCache(batch, config.groups, config.context, config.width, device=device) for _ in range(config.layers)]


def _norm(config: Config) -> nn.Module:
    if config.rmsnorm:
        return nn.RMSNorm(config.channels, eps=config.eps)
    return nn.LayerNorm(config.channels, eps=config.eps, bias=config.bias)


def normed(norm: nn.Module, x: gg.Tensor, added: gg.Tensor | None) -> tuple[gg.Tensor, gg.Tensor]:
    """The norm of ``x + added``, and that sum: in one pass where the device has a routine for it."""
    if added is None:
        return norm(x), x
    if isinstance(norm, nn.RMSNorm):
        return F.add_rms_norm(added, x, norm.normalized_shape, norm.weight, norm.eps)
    return F.add_layer_norm(added, x, norm.normalized_shape, norm.weight, norm.bias, norm.eps)


class Attention(nn.Module):
    """Causal self-attention of several heads, with fewer heads of keys and values if the config says so."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.qkv = nn.Linear(config.channels, config.channels + 2 * config.groups * config.width, bias=config.bias)
        self.out = nn.Linear(config.channels, config.channels, bias=config.bias)

    def forward(self, x: gg.Tensor, rotary: nn.Module | None = None, cache: nn.KVCache | None = None) -> gg.Tensor:
        c = self.config
        batch, time, channels = x.shape
        parts = self.qkv(x).split([channels, c.groups * c.width, c.groups * c.width], -1)
        q, k, v = (p.reshape(batch, time, -1, c.width).transpose(1, 2) for p in parts)
        before = 0 if cache is None else cache.seen
        if rotary is not None:
            q, k = rotary(q, before), rotary(k, before)
        mask = None
        if cache is not None:
            k, v = cache.append(k, v)
            mask = cache.mask(time) if before else None
        y = F.scaled_dot_product_attention(
            q, k, v, mask, c.dropout if self.training else 0.0, not before, enable_gqa=c.groups != c.heads
        )
        return self.out(y.transpose(1, 2).reshape(batch, time, channels))


class FeedForward(nn.Module):
    """Two linear maps with GELU between them, in the approximation by tanh that GPT-2 has."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        hidden = config.hidden or 4 * config.channels
        self.up = nn.Linear(config.channels, hidden, bias=config.bias)
        self.down = nn.Linear(hidden, config.channels, bias=config.bias)

    def forward(self, x: gg.Tensor) -> gg.Tensor:
        return self.down(F.gelu(self.up(x), approximate="tanh"))


class Block(nn.Module):
    """Attention and feed-forward part, each added to what comes in, each after a norm.

    What the feed-forward part gives is handed on beside the stream that it is to be added to: the next norm adds it."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.norm1 = _norm(config)
        self.attention = Attention(config)
        self.norm2 = _norm(config)
        if config.swiglu:
            self.feed = nn.SwiGLU(config.channels, config.hidden or None, config.bias)
        else:
            self.feed = FeedForward(config)
        self.drop = nn.Dropout(config.dropout)

    def forward(
        self,
        x: gg.Tensor,
        added: gg.Tensor | None = None,
        rotary: nn.Module | None = None,
        cache: nn.KVCache | None = None,
    ) -> tuple[gg.Tensor, gg.Tensor]:
        h, x = normed(self.norm1, x, added)
        h, x = normed(self.norm2, x, self.drop(self.attention(h, rotary, cache)))
        return x, self.drop(self.feed(h))

    def last_maps(self) -> list[nn.Linear]:
        """The linear maps whose results are added to what comes in."""
        return [self.attention.out, self.feed.down_proj if isinstance(self.feed, nn.SwiGLU) else self.feed.down]


class GPT(nn.Module):
    """Tokens ``[batch, time]`` to logits ``[batch, time, vocabulary]`` (Radford et al., "Language models are
    unsupervised multitask learners", 2019); the output matrix is the embedding's.

    ``checkpointing``: blocks keep only their inputs, and are computed again for the gradients."""

    def __init__(self, config: Config, checkpointing: bool = False) -> None:
        super().__init__()
        self.config, self.checkpointing = config, checkpointing
        self.tokens = nn.Embedding(config.vocabulary, config.channels)
        if config.rope:
            self.rotary = nn.RotaryEmbedding(config.width, config.context)
        else:
            self.positions = nn.Embedding(config.context, config.channels)
        self.drop = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList([Block(config) for _ in range(config.layers)])
        self.norm = _norm(config)
        self.apply(_initialise)
        # Each block adds twice to the stream; this keeps its variance at the end what it is at the start.
        with gg.no_grad():
            for block in self.blocks:
                for last in block.last_maps():
                    last.weight.mul_(1 / math.sqrt(2 * config.layers))

    def forward(self, index: gg.Tensor, cache: list[nn.KVCache] | None = None) -> gg.Tensor:
        """``cache``: of :func:`new_cache`, which holds what is before ``index``, and then also that. Raises ValueError
        for more tokens than fit."""
        return F.linear(self.features(index, cache), self.tokens.weight)

    def features(self, index: gg.Tensor, cache: list[nn.KVCache] | None = None) -> gg.Tensor:
        """``[batch, time, channels]``: what the logits are made of."""
        begin = cache[0].seen if cache else 0
        end = begin + index.shape[1]
        if end > self.config.context:
            raise ValueError(f"{end} tokens are more than the context of {self.config.context}")
        x = self.tokens(index)
        if not self.config.rope:
            x = x + self.positions.weight[begin:end]
        x = self.drop(x)
        rotary = self.rotary if self.config.rope else None
        added = None
        for i, block in enumerate(self.blocks):
            if self.checkpointing and self.training:
                again = {"use_reentrant": False, "preserve_rng_state": self.config.dropout > 0}
                x, added = checkpoint(block, x, added, rotary, **again)
            else:
                x, added = block(x, added, rotary, cache[i] if cache else None)
        return normed(self.norm, x, added)[0]

    def loss(self, index: gg.Tensor, target: gg.Tensor) -> gg.Tensor:
        """Mean cross-entropy, nats per token, of the tokens ``target`` that follow those of ``index``. Where there are
        many logits, they are made for some of the tokens at a time."""
        x = self.features(index)
        return F.linear_cross_entropy(x.reshape(-1, x.shape[-1]), self.tokens.weight, target.reshape(-1))

    def flops_per_token(self) -> int:
        """Of a training step, forward and backward: 6 for each weight (4 for one that is not learned), 12 for each
        channel, layer and position of the context for attention, as Chowdhery et al. ("PaLM", 2022, appendix B) count
        them."""
        c = self.config
        used = [p for name, p in self.named_parameters() if name != "positions.weight"]
        weights = sum((6 if p.requires_grad else 4) * p.numel() for p in used)
        return weights + 12 * c.layers * c.channels * c.context


def _initialise(module: nn.Module) -> None:
    """Normal with deviation 0.02, biases 0, as GPT-2 began."""
    if isinstance(module, (nn.Linear, nn.Embedding)):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)
