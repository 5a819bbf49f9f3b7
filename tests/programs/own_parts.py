"""What people write themselves: differentiable functions, an optimizer around another, a schedule, hooks; checkpoints
that recompute, a saved and restored state, frozen parts, an adversarial head."""

import copy
import io

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.checkpoint import checkpoint, checkpoint_sequential


class ReverseGradient(Function):
    @staticmethod
    def forward(ctx, x, strength):
        ctx.strength = strength
        return x.view_as(x)

    @staticmethod
    def backward(ctx, grad):
        return grad.neg() * ctx.strength, None


class MeanAndMax(Function):
    @staticmethod
    def forward(ctx, x):
        largest, where = x.max(0)
        ctx.save_for_backward(where)
        ctx.rows = x.size(0)
        ctx.mark_non_differentiable(where)
        return x.mean(0), largest, where

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_mean, grad_max, _):
        (where,) = ctx.saved_tensors
        grad = (grad_mean / ctx.rows).unsqueeze(0).repeat(ctx.rows, 1)
        return grad.scatter_add_(0, where.unsqueeze(0), grad_max.unsqueeze(0))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(12, 6))
        self.register_parameter("bias", None)
        nn.init.xavier_normal_(self.weight)
        self.scales = nn.ParameterList([torch.full((12,), 0.5 * (i + 1)) for i in range(3)])
        self.body = nn.Sequential(nn.Linear(12, 12), nn.ELU(inplace=True), nn.Linear(12, 12), nn.Mish(inplace=True))
        self.heads = nn.ModuleDict({"label": nn.Linear(12, 3), "domain": nn.Linear(12, 2)})
        self.register_buffer("steps", torch.zeros(1, dtype=torch.long))

    def stem(self, x, *, gain):
        h = torch.tanh(F.linear(x, self.weight, self.bias)) * gain
        for scale in self.scales:
            h = h * scale
        return h

    def forward(self, x):
        self.steps += 1
        h = checkpoint(self.stem, x, gain=1.5, use_reentrant=False)
        h = h + checkpoint_sequential(self.body, 2, h, use_reentrant=True)
        mean, largest, where = MeanAndMax.apply(h)
        assert mean.requires_grad and not where.requires_grad
        extra = (mean.pow(2).sum() + largest.sum()) * 0.01
        return self.heads["label"](h), self.heads["domain"](ReverseGradient.apply(h, 0.5)), extra


class SharpnessAware(torch.optim.Optimizer):
    def __init__(self, params, base, rho=0.05, **kwargs):
        super().__init__(params, dict(rho=rho, **kwargs))
        self.base = base(self.param_groups, **kwargs)
        self.param_groups = self.base.param_groups

    @torch.no_grad()
    def ascend(self):
        used = [p for g in self.param_groups for p in g["params"] if p.grad is not None]
        norm = torch.norm(torch.stack([p.grad.norm(p=2) for p in used]), p=2)
        for p in used:
            self.state[p]["before"] = p.data.clone()
            p.add_(p.grad * (self.param_groups[0]["rho"] / (norm + 1e-12)))

    @torch.no_grad()
    def step(self, closure):
        with torch.enable_grad():
            loss = closure()
        self.ascend()
        with torch.enable_grad():
            closure()
        for p, state in self.state.items():
            if "before" in state:
                p.data = state["before"]
        self.base.step()
        return loss


class WarmUp(LRScheduler):
    def get_lr(self):
        return [base * min(1.0, (self.last_epoch + 1) / 5) for base in self.base_lrs]


def build():
    return Net()


def train(model, device):
    model.to(device)
    rng, seen = np.random.default_rng(25), {}
    x = torch.from_numpy(rng.standard_normal((24, 6), dtype=np.float32)).to(device)
    y, domain = torch.from_numpy(rng.integers(0, 3, 24)).to(device), torch.from_numpy(rng.integers(0, 2, 24)).to(device)
    handles = [model.heads["label"].register_forward_hook(lambda m, args, out: seen.update(out=out.detach()))]
    handles += [model.heads["label"].register_full_backward_hook(lambda m, gi, go: seen.update(grad=go[0].norm()))]
    handles += [model.weight.register_hook(lambda g: g * 2)]
    optimizer = SharpnessAware(model.parameters(), torch.optim.SGD, lr=0.1, momentum=0.9)
    schedule = WarmUp(optimizer.base)

    def closure():
        optimizer.zero_grad()
        label, adversary, extra = model(x)
        loss = F.cross_entropy(label, y) + F.cross_entropy(adversary, domain) + extra
        loss.backward()
        return loss

    best = (float("inf"), None)
    for _ in range(20):
        loss = optimizer.step(closure).item()
        schedule.step()
        if loss < best[0]:
            best = (loss, copy.deepcopy(model.state_dict()))
        yield from (loss, seen["out"].norm().item(), seen["grad"].item())
    for handle in handles:
        handle.remove()
    file = io.BytesIO()
    torch.save({"model": best[1], "optimizer": optimizer.base.state_dict(), "loss": best[0]}, file)
    file.seek(0)
    restored = torch.load(file, map_location=device)
    model.load_state_dict(restored["model"])
    twin = copy.deepcopy(model)
    assert all(p.grad is None for p in twin.parameters())
    twin.body.requires_grad_(False)
    twin(x)[0].logsumexp(1).mean().backward()
    yield float(sum(p.grad.view(-1).abs().sum() for p in twin.parameters() if p.grad is not None))
