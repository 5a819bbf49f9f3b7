"""A siamese network: one encoder for three inputs, triplet loss, then a contrastive loss, L2-normalised embeddings."""

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.utils.data import DataLoader, Dataset


class Triplets(Dataset):
    def __init__(self, n):
        rng = np.random.default_rng(7)
        self.centres = rng.standard_normal((4, 12)).astype(np.float32)
        self.items = []
        for _ in range(n):
            a, b = rng.choice(4, 2, replace=False)
            noise = rng.standard_normal((3, 12)).astype(np.float32) * 0.3
            self.items.append((self.centres[a] + noise[0], self.centres[a] + noise[1], self.centres[b] + noise[2]))

    def __len__(self):
        return len(self.items)

    def __getitem__(self, i):
        return tuple(torch.from_numpy(x) for x in self.items[i])


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(12, 16), nn.PReLU(), nn.Linear(16, 16), nn.ELU(), nn.Linear(16, 4))

    def forward(self, x):
        return F.normalize(self.net(x), p=2, dim=1)


class ContrastiveLoss(nn.Module):
    def __init__(self, margin=1.0):
        super().__init__()
        self.margin = margin

    def forward(self, a, b, label):
        distance = F.pairwise_distance(a, b, keepdim=True)
        return torch.mean(
            (1 - label) * torch.pow(distance, 2) + label * torch.pow(torch.clamp(self.margin - distance, min=0.0), 2)
        )


def build():
    return Encoder()


def train(model, device):
    model.to(device)
    loader = DataLoader(Triplets(80), batch_size=8, shuffle=False)
    triplet = nn.TripletMarginLoss(margin=0.5, p=2)
    contrastive = ContrastiveLoss()
    optimizer = torch.optim.Adagrad(model.parameters(), lr=0.05)
    for epoch in range(2):
        for anchor, positive, negative in loader:
            a, p, n = (model(t.to(device)) for t in (anchor, positive, negative))
            if epoch == 0:
                loss = triplet(a, p, n)
            else:
                zeros = torch.zeros(len(a), 1, device=device)
                loss = contrastive(a, p, zeros) + contrastive(a, n, zeros + 1)
            loss = loss + 0.01 * F.cosine_embedding_loss(a, n, -torch.ones(len(a), device=device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            yield loss.item()
