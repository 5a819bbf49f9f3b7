"""Inverted residuals with squeeze-and-excitation, activations in place, stochastic depth, mixup and cutmix, BatchNorm
statistics recomputed for averaged weights, accuracy of the best k."""

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, update_bn


class SqueezeExcitation(nn.Module):
    def __init__(self, channels, squeeze):
        super().__init__()
        self.fc1, self.fc2 = nn.Conv2d(channels, squeeze, 1), nn.Conv2d(squeeze, channels, 1)
        self.act, self.gate = nn.SiLU(inplace=True), nn.Hardsigmoid()

    def forward(self, x):
        return x * self.gate(self.fc2(self.act(self.fc1(F.adaptive_avg_pool2d(x, 1)))))


def conv_bn(cin, cout, kernel=3, stride=1, groups=1, act=nn.SiLU):
    layers = [nn.Conv2d(cin, cout, kernel, stride, (kernel - 1) // 2, groups=groups, bias=False)]
    layers += [nn.BatchNorm2d(cout, eps=1e-3, momentum=0.1)] + ([act(inplace=True)] if act else [])
    return nn.Sequential(*layers)


class MBConv(nn.Module):
    def __init__(self, cin, cout, expand, kernel, stride, act):
        super().__init__()
        hidden, self.residual = cin * expand, stride == 1 and cin == cout
        self.block = nn.Sequential(
            conv_bn(cin, hidden, 1, act=act),
            conv_bn(hidden, hidden, kernel, stride, groups=hidden, act=act),
            SqueezeExcitation(hidden, max(1, cin // 4)),
            conv_bn(hidden, cout, 1, act=None),
        )

    def forward(self, x, keep):
        out = self.block(x)
        return x + out.div(0.9) * keep.view(-1, 1, 1, 1) if self.residual else out


class EfficientNet(nn.Module):
    def __init__(self, classes=4):
        super().__init__()
        self.stem = conv_bn(3, 6, stride=2, act=nn.Hardswish)
        self.blocks = nn.ModuleList(
            [MBConv(6, 8, 2, 3, 2, nn.ELU), MBConv(8, 8, 2, 5, 1, nn.Mish), MBConv(8, 8, 3, 3, 1, nn.ReLU6)]
        )
        self.head = nn.Sequential(conv_bn(8, 12, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, classes))
        self.apply(lambda m: nn.init.kaiming_normal_(m.weight) if isinstance(m, nn.Conv2d) else None)

    def forward(self, x, keep=None):
        keep = torch.full((len(self.blocks), x.size(0)), 0.9, device=x.device) if keep is None else keep
        x = self.stem(x)
        for block, k in zip(self.blocks, keep):  # noqa: B905
            x = block(x, k)
        return self.head(x)


def accuracy(output, target, topk=(1,)):
    with torch.no_grad():
        _, pred = output.topk(max(topk), 1, True, True)
        correct = pred.t().eq(target.view(1, -1).expand_as(pred.t()))
        return [correct[:k].reshape(-1).float().sum(0, keepdim=True).mul_(100.0 / target.size(0)) for k in topk]


def build():
    return EfficientNet()


def train(model, device):
    model.to(device).train()
    rng = np.random.default_rng(21)
    x = torch.from_numpy(rng.standard_normal((8, 3, 16, 16), dtype=np.float32)).to(device)
    y = torch.from_numpy(rng.integers(0, 4, 8)).to(device)
    optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9, weight_decay=1e-4, nesterov=True)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=20)
    averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.8))
    for step in range(20):
        lam, other = rng.beta(1.0, 1.0), torch.from_numpy(rng.permutation(8)).to(device)
        if step % 2:
            mixed = lam * x + (1 - lam) * x[other, :]
        else:
            (a, b), (c, d) = np.sort(rng.integers(0, 17, (2, 2)), axis=1)
            mixed, lam = x.clone(), 1 - (b - a) * (d - c) / 256
            mixed[:, :, a:b, c:d] = x[other, :, a:b, c:d]
        keep = torch.from_numpy(np.floor(0.9 + rng.random((3, 8))).astype("float32")).to(device)
        out = model(mixed, keep)
        loss = F.cross_entropy(out, y) * lam + F.cross_entropy(out, y[other], label_smoothing=0.1) * (1.0 - lam)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
        averaged.update_parameters(model)
        yield from (loss.item(), accuracy(out, y, topk=(1, 3))[1].item())
    update_bn([(x[:4], y[:4]), (x[4:], y[4:])], averaged)
    averaged.eval()
    with torch.no_grad():
        yield F.cross_entropy(averaged(x), y).item()
