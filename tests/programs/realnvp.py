"""A normalising flow (RealNVP): coupling layers, log-determinants, the likelihood under torch.distributions."""

import numpy as np
import torch
from torch import nn
from torch.distributions import MultivariateNormal, Normal


class Coupling(nn.Module):
    def __init__(self, mask):
        super().__init__()
        self.register_buffer("mask", torch.tensor(mask))
        self.scale = nn.Sequential(nn.Linear(2, 16), nn.SiLU(), nn.Linear(16, 2), nn.Tanh())
        self.shift = nn.Sequential(nn.Linear(2, 16), nn.SiLU(), nn.Linear(16, 2))

    def forward(self, x):
        held = x * self.mask
        s = self.scale(held) * (1 - self.mask)
        t = self.shift(held) * (1 - self.mask)
        return held + (1 - self.mask) * (x * torch.exp(s) + t), s.sum(dim=1)


def build():
    return nn.ModuleList([Coupling([1.0, 0.0] if i % 2 else [0.0, 1.0]) for i in range(4)])


def train(flow, device):
    flow.to(device)
    rng = np.random.default_rng(11)
    angle = rng.uniform(0, np.pi, 200)
    moons = np.stack([np.cos(angle), np.sin(angle)], 1) + 0.1 * rng.standard_normal((200, 2))
    data = torch.tensor(moons, dtype=torch.float32, device=device)
    prior = Normal(torch.zeros(2, device=device), torch.ones(2, device=device))
    optimizer = torch.optim.NAdam(flow.parameters(), lr=5e-3)
    for step in range(20):
        z = data[step % 4 * 50 : step % 4 * 50 + 50]
        total = torch.zeros(z.shape[0], device=device)
        for layer in flow:
            z, log_det = layer(z)
            total += log_det
        loss = -(prior.log_prob(z).sum(-1) + total).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield loss.item()
    with torch.no_grad():
        full = MultivariateNormal(torch.zeros(2), torch.eye(2))
        yield full.log_prob(z.cpu()).mean().item()
