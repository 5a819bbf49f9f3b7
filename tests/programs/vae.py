"""A variational autoencoder: encoder to mean and log-variance, the reparametrisation trick, BCE plus KL."""

import numpy as np
import torch
from torch import nn, optim
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset


class VAE(nn.Module):
    def __init__(self, latent=8):
        super(VAE, self).__init__()  # noqa: UP008  as many programs still write it
        self.fc1 = nn.Linear(64, 48)
        self.fc21 = nn.Linear(48, latent)
        self.fc22 = nn.Linear(48, latent)
        self.fc3 = nn.Linear(latent, 48)
        self.fc4 = nn.Linear(48, 64)

    def encode(self, x):
        h1 = F.relu(self.fc1(x))
        return self.fc21(h1), self.fc22(h1)

    def reparameterize(self, mu, logvar, eps):
        std = torch.exp(0.5 * logvar)
        return mu + eps * std

    def decode(self, z):
        h3 = F.relu(self.fc3(z))
        return torch.sigmoid(self.fc4(h3))

    def forward(self, x, eps):
        mu, logvar = self.encode(x.view(-1, 64))
        z = self.reparameterize(mu, logvar, eps)
        return self.decode(z), mu, logvar


def loss_function(recon_x, x, mu, logvar):
    BCE = F.binary_cross_entropy(recon_x, x.view(-1, 64), reduction="sum")
    KLD = -0.5 * torch.sum(1 + logvar - mu.pow(2) - logvar.exp())
    return BCE + KLD


def build():
    return VAE()


def train(model, device):
    rng = np.random.default_rng(1)
    noise = np.random.default_rng(2)
    data = torch.tensor(rng.random((100, 1, 8, 8)), dtype=torch.float)
    loader = DataLoader(TensorDataset(data), batch_size=20, shuffle=False, drop_last=True)
    model.to(device)
    optimizer = optim.Adam(model.parameters(), lr=1e-3)
    for _epoch in range(4):
        model.train()
        for _batch_idx, (x,) in enumerate(loader):
            x = x.to(device)
            eps = torch.from_numpy(noise.standard_normal((x.shape[0], 8)).astype("float32")).to(device)
            optimizer.zero_grad()
            recon, mu, logvar = model(x, eps)
            loss = loss_function(recon, x, mu, logvar)
            loss.backward()
            optimizer.step()
            yield loss.item() / len(x)
