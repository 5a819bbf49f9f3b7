"""A small LLaMA: RMSNorm, rotary embeddings, grouped queries, SwiGLU, tied weights, gradient accumulation, KV cache."""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn


class RMSNorm(nn.Module):
    def __init__(self, dim, eps=1e-5):
        super().__init__()
        self.eps, self.weight = eps, nn.Parameter(torch.ones(dim))

    def forward(self, x):
        return (x.float() * torch.rsqrt(x.float().pow(2).mean(-1, keepdim=True) + self.eps)).type_as(x) * self.weight


def rotate(x, cos, sin):
    a, b = x.reshape(*x.shape[:-1], -1, 2).unbind(-1)
    cos, sin = cos[None, :, None, :], sin[None, :, None, :]
    return torch.stack([a * cos - b * sin, a * sin + b * cos], dim=-1).flatten(3)


class Block(nn.Module):
    def __init__(self, dim, heads, kv_heads, hidden):
        super().__init__()
        self.h, self.kv, self.d = heads, kv_heads, dim // heads
        self.wq, self.wo = nn.Linear(dim, dim, bias=False), nn.Linear(dim, dim, bias=False)
        self.wk, self.wv = (nn.Linear(dim, kv_heads * self.d, bias=False) for _ in "kv")
        self.w1, self.w3 = (nn.Linear(dim, hidden, bias=False) for _ in range(2))
        self.w2 = nn.Linear(hidden, dim, bias=False)
        self.norm1, self.norm2, self.cache = RMSNorm(dim), RMSNorm(dim), None

    def forward(self, x, pos, cos, sin):
        b, t, _ = x.shape
        h = self.norm1(x)
        q, k = (rotate(w(h).view(b, t, -1, self.d), cos, sin) for w in (self.wq, self.wk))
        v = self.wv(h).view(b, t, self.kv, self.d)
        if self.cache is not None:
            for kept, new in zip(self.cache, (k, v), strict=True):
                kept[:b, pos : pos + t] = new
            k, v = (kept[:b, : pos + t] for kept in self.cache)
        k = k[:, :, :, None, :].expand(-1, -1, -1, self.h // self.kv, -1).reshape(b, -1, self.h, self.d)
        q, k, v = (y.transpose(1, 2) for y in (q, k, v.repeat_interleave(self.h // self.kv, dim=2)))
        out = F.scaled_dot_product_attention(q, k, v, is_causal=t > 1)
        x = x + self.wo(out.transpose(1, 2).contiguous().view(b, t, -1))
        h = self.norm2(x)
        return x + self.w2(F.silu(self.w1(h)) * self.w3(h))


class Llama(nn.Module):
    def __init__(self, vocab=30, dim=16, layers=2, context=20):
        super().__init__()
        self.embed, self.output = nn.Embedding(vocab, dim), nn.Linear(dim, vocab, bias=False)
        self.embed.weight = self.output.weight
        self.layers, self.norm = nn.ModuleList([Block(dim, 4, 2, 32) for _ in range(layers)]), RMSNorm(dim)
        angles = torch.outer(torch.arange(context).float(), 1.0 / 10000 ** (torch.arange(0, 4, 2).float() / 4))
        self.register_buffer("turn", torch.stack([angles.cos(), angles.sin()]), persistent=False)

    def forward(self, tokens, pos=0):
        x = self.embed(tokens)
        for layer in self.layers:
            x = layer(x, pos, *self.turn[:, pos : pos + tokens.size(1)])
        return self.output(self.norm(x))

    @torch.inference_mode()
    def generate(self, tokens, count):
        for layer in self.layers:
            layer.cache = [torch.zeros(tokens.size(0), 20, 2, 4, device=tokens.device) for _ in "kv"]
        step, pos = tokens, 0
        for _ in range(count):
            logits = self(step, pos)[:, -1]
            best, _ = torch.topk(logits, 3)
            logits[logits < best[:, [-1]]] = -float("inf")
            pos, step = pos + step.size(1), logits.softmax(-1).argmax(-1, keepdim=True)
            tokens = torch.cat((tokens, step), dim=1)
        return tokens, logits


def build():
    return Llama()


def train(model, device):
    model.to(device)
    rng, data = np.random.default_rng(20), torch.arange(200) * 7 % 30
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3, betas=(0.9, 0.95), weight_decay=0.1)
    for step in range(20):
        optimizer.param_groups[0]["lr"] = 5e-3 * (min(step + 1, 4) / 4) * 0.5 * (1 + math.cos(math.pi * step / 20))
        for _ in range(2):
            starts = rng.integers(0, 180, 3)
            x, y = (torch.stack([data[i + k : i + k + 10] for i in starts]).to(device) for k in (0, 1))
            loss = F.cross_entropy(model(x).flatten(0, 1), y.flatten()) / 2
            loss.backward()
            yield loss.item()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    model.eval()
    tokens, logits = model.generate(data[None, :5].to(device).repeat(2, 1), 6)
    yield from (float(tokens.sum()), logits.max().item())
