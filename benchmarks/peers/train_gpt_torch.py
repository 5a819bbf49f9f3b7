"""The training of examples/train_gpt.py once more, in PyTorch: same weights, same batches, same schedule.

    python -m benchmarks.peers.train_gpt_torch --text shakespeare --steps 50 --dtype float32

trains with both and prints how far the losses of each step are apart. What is shared with the example is what decides
about the numbers and belongs to neither framework: configuration, first weights, batches, learning rates.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "examples"))

import gpt.model as ours
from gpt.step import Step, make_optimizer
from gpt.text import Characters, Tokens, read_text
from gpt.training import DEFAULTS, learning_rate

import gpugrad as gg

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class Block(nn.Module):
    def __init__(self, c: ours.Config) -> None:
        super().__init__()
        self.heads = c.heads
        self.norm1, self.norm2 = (nn.LayerNorm(c.channels, c.eps, bias=c.bias) for _ in range(2))
        self.attention = nn.ModuleDict(
            {
                "qkv": nn.Linear(c.channels, 3 * c.channels, bias=c.bias),
                "out": nn.Linear(c.channels, c.channels, bias=c.bias),
            }
        )
        self.feed = nn.ModuleDict(
            {
                "up": nn.Linear(c.channels, 4 * c.channels, bias=c.bias),
                "down": nn.Linear(4 * c.channels, c.channels, bias=c.bias),
            }
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, time, channels = x.shape
        qkv = self.attention["qkv"](self.norm1(x)).view(batch, time, 3, self.heads, channels // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.attention["out"](y.transpose(1, 2).reshape(batch, time, channels))
        return x + self.feed["down"](F.gelu(self.feed["up"](self.norm2(x)), approximate="tanh"))


class GPT(nn.Module):
    """The model of examples/gpt/model.py without LLaMA's parts, with the same names of weights."""

    def __init__(self, c: ours.Config) -> None:
        super().__init__()
        self.tokens = nn.Embedding(c.vocabulary, c.channels)
        self.positions = nn.Embedding(c.context, c.channels)
        self.blocks = nn.ModuleList([Block(c) for _ in range(c.layers)])
        self.norm = nn.LayerNorm(c.channels, c.eps, bias=c.bias)

    def loss(self, index: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        x = self.tokens(index) + self.positions.weight[: index.shape[1]]
        for block in self.blocks:
            x = block(x)
        logits = F.linear(self.norm(x), self.tokens.weight)
        return F.cross_entropy(logits.flatten(0, 1), target.flatten())


def first_weights(config: ours.Config, seed: int) -> dict[str, np.ndarray]:
    """Those that examples/train_gpt.py begins with."""
    gg.manual_seed(seed)
    return {name: value.cpu().numpy() for name, value in ours.GPT(config).state_dict().items()}


def train_ours(
    config: ours.Config, tokens: Tokens, settings: dict[str, Any], device: str
) -> tuple[list[float], float, dict[str, np.ndarray]]:
    """Loss of every step, seconds, and the weights at the end, with gpugrad."""
    where = gg.device(device)
    gg.manual_seed(settings["seed"])
    model = ours.GPT(config).to(where)
    optimizer = make_optimizer(model, settings)
    step = Step(model, optimizer, where, settings)

    def batch(i: int) -> list[gg.Tensor]:
        arrays = tokens.batch(settings["seed"], i, (settings["accumulate"], settings["batch_size"]), config.context)
        return [gg.from_numpy(a).to(where) for a in arrays]

    step.warm_up(*batch(0))
    losses = []
    began = time.perf_counter()
    for i in range(settings["steps"]):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(i, settings)
        losses.append(step(*batch(i))[0])
    values = [loss.item() for loss in losses]
    seconds = time.perf_counter() - began
    return values, seconds, {name: value.cpu().numpy() for name, value in model.state_dict().items()}


def train_torch(
    config: ours.Config, tokens: Tokens, settings: dict[str, Any], device: str = "cpu"
) -> tuple[list[float], float, dict[str, np.ndarray]]:
    """The same with PyTorch."""
    model = GPT(config).to(device)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(torch.from_numpy(first_weights(config, settings["seed"])[name]))
    parameters = list(model.parameters())
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": settings["weight_decay"]},
            {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
        ],
        lr=settings["lr"],
        betas=(0.9, settings["beta2"]),
        fused=True,
    )
    half = settings["dtype"] != "float32"
    count, losses = settings["accumulate"], []
    began = time.perf_counter()
    for i in range(settings["steps"]):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(i, settings)
        arrays = tokens.batch(settings["seed"], i, (count, settings["batch_size"]), config.context)
        x, y = (torch.from_numpy(a).to(device) for a in arrays)
        optimizer.zero_grad()
        total = torch.zeros((), device=device)
        for j in range(count):
            with torch.autocast(torch.device(device).type, DTYPES[settings["dtype"]], enabled=half):
                loss = model.loss(x[j], y[j]) / count
            loss.backward()
            total += loss.detach()
        nn.utils.clip_grad_norm_(parameters, settings["clip"])
        optimizer.step()
        losses.append(total)
    values = [loss.item() for loss in losses]
    seconds = time.perf_counter() - began
    return values, seconds, {name: value.detach().cpu().numpy() for name, value in model.state_dict().items()}


def main() -> None:
    parser = argparse.ArgumentParser(description="Train a GPT with gpugrad and with PyTorch and compare the losses.")
    parser.add_argument("--text", help="as of examples/train_gpt.py")
    parser.add_argument("--size", choices=list(ours.SIZES), default="tiny")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--accumulate", type=int, default=1)
    parser.add_argument("--dtype", choices=list(DTYPES), default="float32")
    parser.add_argument("--compile", action="store_true", help="gpugrad's step compiled")
    parser.add_argument("--device", default="cpu", help="gpugrad's; PyTorch takes the same if it is cpu or cuda")
    options = parser.parse_args()
    size = ours.SIZES[options.size]
    name, text = read_text(options.text)
    alphabet = Characters(text)
    tokens = Tokens.split(alphabet.encode(text))
    config = replace(size.config, vocabulary=alphabet.size)
    settings = {**DEFAULTS, "batch_size": options.batch_size or size.batch, "accumulate": options.accumulate}
    settings["lr"] = size.lr
    settings |= {"steps": options.steps, "dtype": options.dtype, "compile": options.compile}
    mine, my_seconds, _ = train_ours(config, tokens, settings, options.device)
    other = options.device if options.device.startswith("cuda") else "cpu"
    theirs, their_seconds, _ = train_torch(config, tokens, settings, other)
    apart = np.abs(np.array(mine) / np.array(theirs) - 1)
    print(f"{options.size} on {name}, {options.dtype}: {options.steps} steps")
    print(
        f"gpugrad on {options.device}{' compiled' * options.compile}: {my_seconds:.2f} s, PyTorch {their_seconds:.2f} s"
    )
    for i in sorted({0, options.steps // 4, options.steps // 2, options.steps - 1}):
        print(f"  step {i + 1}: {mine[i]:.6f} {theirs[i]:.6f}, apart {apart[i]:.1e}")
    print(f"largest relative distance of a step's losses: {apart.max():.1e} (step {apart.argmax() + 1})")


if __name__ == "__main__":
    main()
