"""A graph network on an edge list: messages by index_add and scatter, an own autograd Function, weight norm."""

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F


class Swish(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        s = torch.sigmoid(x)
        ctx.save_for_backward(x, s)
        return x * s

    @staticmethod
    def backward(ctx, grad):
        x, s = ctx.saved_tensors
        return grad * (s + x * s * (1 - s))


class GCNConv(nn.Module):
    def __init__(self, cin, cout):
        super().__init__()
        self.lin = nn.Linear(cin, cout, bias=False)
        self.bias = nn.Parameter(torch.zeros(cout))

    def forward(self, x, edges):
        src, dst = edges
        n = x.size(0)
        degree = torch.zeros(n, device=x.device).scatter_add_(0, dst, torch.ones_like(dst, dtype=x.dtype)) + 1
        norm = degree.rsqrt()
        h = self.lin(x)
        out = torch.zeros_like(h).index_add_(0, dst, h[src] * (norm[src] * norm[dst])[:, None])
        return out + h / degree[:, None] + self.bias


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = GCNConv(6, 8), GCNConv(8, 3)
        self.pool = nn.Linear(3, 3)

    def forward(self, x, edges):
        x = Swish.apply(self.conv1(x, edges))
        x = self.conv2(x, edges)
        best = torch.full((x.size(0), 3), -1e9, device=x.device).scatter_reduce(
            0, edges[1][:, None].expand(-1, 3), x[edges[0]], reduce="amax"
        )
        return F.log_softmax(x + 0.1 * self.pool(best.clamp(min=-10)), dim=1)


def build():
    return Net()


def train(model, device):
    rng = np.random.default_rng(16)
    model.to(device)
    x = torch.from_numpy(rng.standard_normal((20, 6)).astype(np.float32)).to(device)
    edges = torch.from_numpy(rng.integers(0, 20, (2, 60))).to(device)
    y = torch.from_numpy(rng.integers(0, 3, 20)).to(device)
    labelled = torch.zeros(20, dtype=torch.bool)
    labelled[::2] = True
    labelled = labelled.to(device)
    optimizer = torch.optim.Adadelta(model.parameters(), lr=0.5)
    for _ in range(20):
        optimizer.zero_grad()
        out = model(x, edges)
        loss = F.nll_loss(out[labelled], y[labelled])
        loss.backward()
        optimizer.step()
        yield loss.item()
    accuracy = (model(x, edges).argmax(dim=1)[~labelled] == y[~labelled]).float().mean()
    yield accuracy.item()
