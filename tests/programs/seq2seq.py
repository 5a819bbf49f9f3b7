"""Sequence to sequence with GRUs: packed source sequences, additive attention, teacher forcing, ignored padding."""

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence, pad_sequence

PAD, SOS, EOS = 0, 1, 2


class Encoder(nn.Module):
    def __init__(self, vocab, hidden):
        super().__init__()
        self.embedding = nn.Embedding(vocab, hidden, padding_idx=PAD)
        self.gru = nn.GRU(hidden, hidden, bidirectional=True)
        self.fc = nn.Linear(2 * hidden, hidden)

    def forward(self, src, lengths):
        packed = pack_padded_sequence(self.embedding(src), lengths, enforce_sorted=False)
        outputs, hidden = self.gru(packed)
        outputs, _ = pad_packed_sequence(outputs)
        return outputs, torch.tanh(self.fc(torch.cat((hidden[-2], hidden[-1]), dim=1)))


class Attention(nn.Module):
    def __init__(self, hidden):
        super().__init__()
        self.attn = nn.Linear(3 * hidden, hidden)
        self.v = nn.Parameter(torch.rand(hidden))

    def forward(self, hidden, outputs, mask):
        steps = outputs.size(0)
        energy = torch.tanh(self.attn(torch.cat((hidden.unsqueeze(0).expand(steps, -1, -1), outputs), dim=2)))
        scores = torch.einsum("tbh,h->bt", energy, self.v).masked_fill(mask, -1e9)
        return F.softmax(scores, dim=1)


class Decoder(nn.Module):
    def __init__(self, vocab, hidden):
        super().__init__()
        self.embedding = nn.Embedding(vocab, hidden)
        self.attention = Attention(hidden)
        self.cell = nn.GRUCell(3 * hidden, hidden)
        self.out = nn.Linear(hidden, vocab)

    def forward(self, token, hidden, outputs, mask):
        weights = self.attention(hidden, outputs, mask)
        context = torch.bmm(weights.unsqueeze(1), outputs.transpose(0, 1)).squeeze(1)
        hidden = self.cell(torch.cat((self.embedding(token), context), dim=1), hidden)
        return self.out(hidden), hidden


def build():
    return {"encoder": Encoder(12, 8), "decoder": Decoder(12, 8)}


def train(model, device):
    encoder, decoder = model["encoder"].to(device), model["decoder"].to(device)
    rng = np.random.default_rng(13)
    optimizer = torch.optim.Adamax([*encoder.parameters(), *decoder.parameters()], lr=1e-2)
    criterion = nn.CrossEntropyLoss(ignore_index=PAD)
    for _ in range(20):
        lengths = rng.integers(2, 7, 6)
        sequences = [torch.from_numpy(rng.integers(3, 12, n)) for n in lengths]
        src = pad_sequence(sequences, padding_value=PAD).to(device)
        trg = pad_sequence(
            [torch.cat([torch.tensor([SOS]), s.flip(0), torch.tensor([EOS])]) for s in sequences], padding_value=PAD
        ).to(device)
        outputs, hidden = encoder(src, torch.from_numpy(lengths))
        mask = (src == PAD).t()
        logits = []
        for t in range(trg.size(0) - 1):
            step, hidden = decoder(trg[t], hidden, outputs, mask)
            logits.append(step)
        loss = criterion(torch.stack(logits).flatten(0, 1), trg[1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_value_([*encoder.parameters(), *decoder.parameters()], 0.5)
        optimizer.step()
        yield loss.item()
