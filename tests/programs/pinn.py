"""A physics-informed network: the residual of u'' = -pi^2 sin(pi x) from second derivatives by autograd."""

import math

import torch
import torch.nn as nn


def build():
    return nn.Sequential(nn.Linear(1, 16), nn.Tanh(), nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 1))


def train(net, device):
    net.to(device)
    x = torch.linspace(-1, 1, 41, device=device).reshape(-1, 1).requires_grad_()
    ends = torch.tensor([[-1.0], [1.0]], device=device)
    optimizer = torch.optim.Adam(net.parameters(), lr=5e-3)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=2)
    for _ in range(20):
        u = net(x)
        (du,) = torch.autograd.grad(u.sum(), x, create_graph=True)
        (d2u,) = torch.autograd.grad(du, x, grad_outputs=torch.ones_like(du), create_graph=True)
        residual = d2u + math.pi**2 * torch.sin(math.pi * x)
        loss = residual.square().mean() + 10 * net(ends).pow(2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step(loss.item())
        yield loss.item()
