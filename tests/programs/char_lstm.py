"""A character-level LSTM: embedding, two layers, hidden state carried over and detached, clipped gradients."""

import numpy as np
import torch
from torch import nn

TEXT = "the quick brown fox jumps over the lazy dog while the five boxing wizards jump quickly and quietly; " * 8


class CharRNN(nn.Module):
    def __init__(self, vocab, hidden=32, layers=2):
        super().__init__()
        self.encoder = nn.Embedding(vocab, hidden)
        self.rnn = nn.LSTM(hidden, hidden, num_layers=layers, batch_first=True)
        self.decoder = nn.Linear(hidden, vocab)
        self.hidden_size, self.num_layers = hidden, layers

    def forward(self, x, state=None):
        out, state = self.rnn(self.encoder(x), state)
        return self.decoder(out.reshape(-1, out.size(2))), state

    def init_hidden(self, batch, device):
        weight = next(self.parameters())
        return (
            weight.new_zeros(self.num_layers, batch, self.hidden_size).to(device),
            weight.new_zeros(self.num_layers, batch, self.hidden_size).to(device),
        )


chars = sorted(set(TEXT))
stoi = {c: i for i, c in enumerate(chars)}


def build():
    return CharRNN(len(chars))


def train(model, device):
    model = model.to(device)
    data = torch.tensor([stoi[c] for c in TEXT], dtype=torch.long)
    batch, steps = 4, 10
    data = data[: len(data) // batch * batch].view(batch, -1)
    optimizer = torch.optim.RMSprop(model.parameters(), lr=2e-3)
    criterion = nn.CrossEntropyLoss()
    state = model.init_hidden(batch, device)
    for step in range(20):
        start = step * steps % (data.size(1) - steps - 1)
        x = data[:, start : start + steps].to(device)
        y = data[:, start + 1 : start + steps + 1].to(device)
        state = tuple(s.detach() for s in state)
        logits, state = model(x, state)
        loss = criterion(logits, y.reshape(-1))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
        yield loss.item()
    model.eval()
    with torch.no_grad():
        x, state = torch.tensor([[stoi["t"]]], device=device), None
        text = "t"
        for _ in range(8):
            logits, state = model(x, state)
            x = torch.softmax(logits, dim=-1).argmax(dim=-1, keepdim=True)
            text += chars[x.item()]
        yield float(np.mean([stoi[c] for c in text]))
