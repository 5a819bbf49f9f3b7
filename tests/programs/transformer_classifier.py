"""A Transformer encoder that classifies sequences: padding mask, sinusoidal positions, warm-up, GELU, label counts."""

import math

import numpy as np
import torch
import torch.nn as nn
from torch.optim.lr_scheduler import LambdaLR


class PositionalEncoding(nn.Module):
    def __init__(self, d_model, max_len=64):
        super().__init__()
        position = torch.arange(max_len).unsqueeze(1)
        div_term = torch.exp(torch.arange(0, d_model, 2) * (-math.log(10000.0) / d_model))
        pe = torch.zeros(1, max_len, d_model)
        pe[0, :, 0::2] = torch.sin(position * div_term)
        pe[0, :, 1::2] = torch.cos(position * div_term)
        self.register_buffer("pe", pe)

    def forward(self, x):
        return x + self.pe[:, : x.size(1)]


class Classifier(nn.Module):
    def __init__(self, vocab=20, d_model=16, classes=3):
        super().__init__()
        self.embedding = nn.Embedding(vocab, d_model, padding_idx=0)
        self.position = PositionalEncoding(d_model)
        layer = nn.TransformerEncoderLayer(d_model, nhead=4, dim_feedforward=32, dropout=0.0, activation="gelu",
                                           batch_first=True, norm_first=True)  # fmt: skip
        self.encoder = nn.TransformerEncoder(
            layer, num_layers=2, norm=nn.LayerNorm(d_model), enable_nested_tensor=False
        )
        self.head = nn.Linear(d_model, classes)

    def forward(self, tokens):
        mask = tokens == 0
        x = self.embedding(tokens) * math.sqrt(self.embedding.embedding_dim)
        x = self.encoder(self.position(x), src_key_padding_mask=mask)
        x = x.masked_fill(mask.unsqueeze(-1), 0.0).sum(dim=1) / (~mask).sum(dim=1, keepdim=True)
        return self.head(x)


def build():
    return Classifier()


def train(model, device):
    rng = np.random.default_rng(5)
    tokens = rng.integers(1, 20, (48, 12))
    lengths = rng.integers(4, 13, 48)
    tokens[np.arange(12)[None, :] >= lengths[:, None]] = 0
    labels = (tokens.sum(1) % 3).astype(np.int64)
    tokens, labels = torch.from_numpy(tokens), torch.from_numpy(labels)
    model.to(device).train()
    decay = [p for p in model.parameters() if p.dim() >= 2]
    rest = [p for p in model.parameters() if p.dim() < 2]
    optimizer = torch.optim.AdamW(
        [{"params": decay, "weight_decay": 0.01}, {"params": rest, "weight_decay": 0.0}], lr=3e-3, betas=(0.9, 0.98)
    )
    scheduler = LambdaLR(optimizer, lambda step: min((step + 1) / 5, 1.0))
    for step in range(20):
        i = step % 3 * 16
        x, y = tokens[i : i + 16].to(device), labels[i : i + 16].to(device)
        loss = nn.functional.nll_loss(torch.log_softmax(model(x), dim=-1), y)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm=1.0)
        optimizer.step()
        scheduler.step()
        yield loss.item()
