"""Denoising diffusion in two dimensions: a schedule of noise, time embeddings, averaged weights."""

import copy
import math

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F


class Denoiser(nn.Module):
    def __init__(self, width=24):
        super().__init__()
        self.width = width
        self.inp = nn.Linear(2, width)
        self.time = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.norm = nn.LayerNorm(width)
        self.body = nn.Sequential(nn.Linear(width, 2 * width), nn.GLU(), nn.Softplus(), nn.Linear(width, 2))

    def embed(self, t):
        half = self.width // 2
        freqs = torch.exp(-math.log(1000) * torch.arange(half, dtype=torch.float32, device=t.device) / half)
        args = t[:, None].float() * freqs[None]
        return torch.cat([torch.cos(args), torch.sin(args)], dim=-1)

    def forward(self, x, t):
        return self.body(self.norm(self.inp(x) + self.time(self.embed(t))))


def build():
    return Denoiser()


def train(model, device):
    model.to(device)
    ema = copy.deepcopy(model).requires_grad_(False)
    rng = np.random.default_rng(14)
    betas = torch.linspace(1e-4, 0.05, 50, device=device)
    alphas_bar = torch.cumprod(1.0 - betas, dim=0)
    optimizer = torch.optim.RAdam(model.parameters(), lr=1e-2)
    for _ in range(20):
        x0 = torch.from_numpy(rng.standard_normal((32, 2)).astype("float32") * [1, 0.2]).float().to(device)
        t = torch.from_numpy(rng.integers(0, 50, 32)).to(device)
        eps = torch.from_numpy(rng.standard_normal((32, 2)).astype("float32")).to(device)
        a = alphas_bar.gather(0, t).view(-1, 1)
        xt = a.sqrt() * x0 + (1 - a).sqrt() * eps
        loss = F.huber_loss(model(xt, t), eps, delta=0.5)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            for e, p in zip(ema.parameters(), model.parameters()):  # noqa: B905
                e.lerp_(p, 0.1)
        yield loss.item()
    with torch.no_grad():
        yield F.mse_loss(ema(xt, t), eps).item()
