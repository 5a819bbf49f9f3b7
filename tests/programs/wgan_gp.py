"""A Wasserstein GAN with gradient penalty: the gradient of a gradient, three critic steps to one."""

import numpy as np
import torch
import torch.nn as nn
from torch import autograd


def mlp(n, out):
    return nn.Sequential(nn.Linear(n, 24), nn.LeakyReLU(0.2), nn.Linear(24, 24), nn.LeakyReLU(0.2), nn.Linear(24, out))


def gradient_penalty(critic, real, fake, alpha):
    interpolates = alpha * real + (1 - alpha) * fake
    interpolates.requires_grad_(True)
    scores = critic(interpolates)
    gradients = autograd.grad(
        outputs=scores, inputs=interpolates, grad_outputs=torch.ones_like(scores), create_graph=True, retain_graph=True
    )[0]
    gradients = gradients.view(gradients.size(0), -1)
    return ((gradients.norm(2, dim=1) - 1) ** 2).mean() * 10


def build():
    return {"generator": mlp(4, 2), "critic": mlp(2, 1)}


def train(model, device):
    generator, critic = model["generator"].to(device), model["critic"].to(device)
    rng = np.random.default_rng(9)

    def normal(*size):
        return torch.from_numpy(rng.standard_normal(size).astype(np.float32)).to(device)

    opt_g = torch.optim.Adam(generator.parameters(), lr=1e-3, betas=(0.0, 0.9))
    opt_c = torch.optim.Adam(critic.parameters(), lr=1e-3, betas=(0.0, 0.9))
    for step in range(24):
        real = normal(16, 2) * torch.tensor([2.0, 0.5], device=device) + 1
        for p in critic.parameters():
            p.requires_grad = True
        with torch.no_grad():
            fake = generator(normal(16, 4))
        alpha = torch.tensor(rng.random((16, 1)), dtype=torch.float32, device=device)
        loss = critic(fake).mean() - critic(real).mean() + gradient_penalty(critic, real, fake, alpha)
        opt_c.zero_grad()
        loss.backward()
        opt_c.step()
        yield loss.item()
        if step % 3 == 2:
            for p in critic.parameters():
                p.requires_grad = False
            loss = -critic(generator(normal(16, 4))).mean()
            opt_g.zero_grad()
            loss.backward()
            opt_g.step()
            yield loss.item()
