"""A U-Net that segments circles: pooling, bilinear upsampling, concatenated skips, group norm, Dice plus BCE."""

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F


def block(cin, cout):
    return nn.Sequential(
        nn.Conv2d(cin, cout, 3, padding=1, padding_mode="reflect"),
        nn.GroupNorm(2, cout),
        nn.Mish(),
        nn.Conv2d(cout, cout, 3, padding="same"),
        nn.InstanceNorm2d(cout, affine=True),
        nn.Hardswish(),
    )


class UNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.down1, self.down2, self.mid = block(1, 4), block(4, 8), block(8, 16)
        self.up2 = nn.ConvTranspose2d(16, 8, 2, stride=2)
        self.dec2, self.dec1 = block(16, 8), block(12, 4)
        self.up1 = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
        self.out = nn.Conv2d(4, 1, 1)

    def forward(self, x):
        a = self.down1(x)
        b = self.down2(F.max_pool2d(a, 2))
        m = self.mid(F.avg_pool2d(b, 2))
        x = self.dec2(torch.cat([self.up2(m), b], dim=1))
        x = self.dec1(torch.cat([self.up1(x), a], dim=1))
        return self.out(x)


def dice(logits, target, eps=1.0):
    p = torch.sigmoid(logits)
    overlap = (p * target).sum(dim=(1, 2, 3))
    return 1 - ((2 * overlap + eps) / (p.sum((1, 2, 3)) + target.sum((1, 2, 3)) + eps)).mean()


def build():
    return UNet()


def train(model, device):
    model.to(device)
    rng = np.random.default_rng(12)
    yy, xx = np.mgrid[:16, :16]
    images, masks = [], []
    for _ in range(8):
        cy, cx, r = rng.uniform(4, 12), rng.uniform(4, 12), rng.uniform(2, 5)
        mask = ((yy - cy) ** 2 + (xx - cx) ** 2 < r * r).astype(np.float32)
        masks.append(mask)
        images.append(mask + 0.3 * rng.standard_normal((16, 16)).astype(np.float32))
    x = torch.tensor(np.stack(images), dtype=torch.float32).unsqueeze(1).to(device)
    y = torch.tensor(np.stack(masks)).unsqueeze(1).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1e-2, total_steps=20)
    for step in range(20):
        i = step % 2 * 4
        logits = model(x[i : i + 4])
        loss = dice(logits, y[i : i + 4]) + F.binary_cross_entropy_with_logits(
            logits, y[i : i + 4], pos_weight=torch.tensor(2.0, device=device)
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
        yield loss.item()
