"""Regression with LBFGS and a closure: Legendre features of a noisy curve, ridge penalty, a robust loss; first with a
fixed step, then with the strong Wolfe line search."""

import numpy as np
import torch
from torch import nn


def build():
    return nn.Linear(6, 1)


def train(model, device):
    rng = np.random.default_rng(17)
    xs = np.linspace(-1, 1, 80)
    features = np.polynomial.legendre.legvander(xs, 6)[:, 1:]
    x = torch.tensor(features, dtype=torch.float32).to(device)
    y = torch.from_numpy((np.sin(3 * xs) + 0.1 * rng.standard_normal(80)).astype(np.float32)).view(-1, 1).to(device)
    model.to(device)
    criterion = nn.SmoothL1Loss()
    for options in ({"lr": 0.2, "max_iter": 2}, {"lr": 0.3, "max_iter": 2, "line_search_fn": "strong_wolfe"}):
        optimizer = torch.optim.LBFGS(model.parameters(), history_size=5, **options)
        for _ in range(10):

            def closure():
                optimizer.zero_grad()  # noqa: B023
                penalty = sum(p.pow(2).sum() for p in model.parameters())
                loss = criterion(model(x), y) + 1e-2 * penalty
                loss.backward()
                return loss

            loss = optimizer.step(closure)
            yield loss.item()
