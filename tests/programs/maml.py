"""Meta-learning (MAML): inner gradient steps on copies of the weights, the outer gradient taken through them."""

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.weights = nn.ParameterList()
        for n, m in ((1, 20), (20, 20), (20, 1)):
            w = nn.Parameter(torch.empty(m, n))
            nn.init.xavier_uniform_(w)
            self.weights.append(w)
            self.weights.append(nn.Parameter(torch.zeros(m)))

    def forward(self, x, weights=None):
        weights = list(self.weights) if weights is None else weights
        x = torch.tanh(F.linear(x, weights[0], weights[1]))
        x = torch.tanh(F.linear(x, weights[2], weights[3]))
        return F.linear(x, weights[4], weights[5])


def build():
    return Net()


def train(model, device):
    model.to(device)
    rng = np.random.default_rng(10)
    meta = torch.optim.Adam(model.parameters(), lr=5e-3)
    for _ in range(20):
        total = 0.0
        for _task in range(3):
            amplitude, phase = rng.uniform(0.5, 2.0), rng.uniform(0, np.pi)
            xs = rng.uniform(-3, 3, (20, 1)).astype(np.float32)
            ys = (amplitude * np.sin(xs + phase)).astype(np.float32)
            x, y = torch.from_numpy(xs).to(device), torch.from_numpy(ys).to(device)
            fast = list(model.weights)
            for _inner in range(2):
                loss = F.mse_loss(model(x[:10], fast), y[:10])
                grads = torch.autograd.grad(loss, fast, create_graph=True)
                fast = [w - 0.05 * g for w, g in zip(fast, grads)]  # noqa: B905
            total = total + F.mse_loss(model(x[10:], fast), y[10:])
        total = total / 3
        meta.zero_grad()
        total.backward()
        meta.step()
        yield total.item()
