"""A tagger: packed sequences through a bidirectional LSTM, a conditional random field on top, Viterbi decoding."""

import numpy as np
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence, pad_sequence


class CRF(nn.Module):
    def __init__(self, tags):
        super().__init__()
        self.start, self.end = nn.Parameter(torch.empty(tags)), nn.Parameter(torch.empty(tags))
        self.transitions = nn.Parameter(torch.empty(tags, tags))
        for p in self.parameters():
            nn.init.uniform_(p, -0.1, 0.1)

    def score(self, emissions, tags, mask):
        steps, batch = tags.shape
        score = self.start[tags[0]] + emissions[0, torch.arange(batch), tags[0]]
        for i in range(1, steps):
            score = score + self.transitions[tags[i - 1], tags[i]] * mask[i]
            score = score + emissions[i, torch.arange(batch), tags[i]] * mask[i]
        last = tags[mask.long().sum(dim=0) - 1, torch.arange(batch)]
        return score + self.end[last]

    def normalizer(self, emissions, mask):
        score = self.start + emissions[0]
        for i in range(1, emissions.size(0)):
            following = score.unsqueeze(2) + self.transitions + emissions[i].unsqueeze(1)
            score = torch.where(mask[i].unsqueeze(1), torch.logsumexp(following, dim=1), score)
        return torch.logsumexp(score + self.end, dim=1)

    def forward(self, emissions, tags, mask):
        return -(self.score(emissions, tags, mask) - self.normalizer(emissions, mask)).sum() / mask.float().sum()

    def decode(self, emissions, mask):
        score, history = self.start + emissions[0], []
        for i in range(1, emissions.size(0)):
            following, index = (score.unsqueeze(2) + self.transitions + emissions[i].unsqueeze(1)).max(dim=1)
            score = torch.where(mask[i].unsqueeze(1), following, score)
            history.append(index)
        score += self.end
        ends, paths = mask.long().sum(dim=0) - 1, []
        for b in range(score.size(0)):
            path = [score[b].max(dim=0)[1].item()]
            for index in reversed(history[: ends[b]]):
                path.append(index[b][path[-1]].item())
            paths.append(path[::-1])
        return paths


class Tagger(nn.Module):
    def __init__(self, vocab=20, tags=4):
        super().__init__()
        self.embedding = nn.Embedding(vocab, 8, padding_idx=0, max_norm=2.0)
        self.rnn = nn.LSTM(8, 6, num_layers=2, bidirectional=True, batch_first=True)
        self.linear, self.crf = nn.Linear(12, tags), CRF(tags)
        for name, p in self.rnn.named_parameters():
            if "weight_hh" in name:
                nn.init.orthogonal_(p.data)
            elif "bias" in name:
                p.data.fill_(0)
                n = p.size(0)
                p.data[n // 4 : n // 2].fill_(1)

    def forward(self, tokens, lengths):
        packed = pack_padded_sequence(self.embedding(tokens), lengths.cpu(), batch_first=True, enforce_sorted=False)
        self.rnn.flatten_parameters()
        out, (hidden, _) = self.rnn(packed)
        out, _ = pad_packed_sequence(out, batch_first=True, padding_value=0.0, total_length=tokens.size(1))
        return self.linear(out).transpose(0, 1), hidden


def build():
    return Tagger()


def train(model, device):
    model.to(device)
    rng = np.random.default_rng(23)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(20):
        lengths = torch.from_numpy(rng.integers(2, 8, 5))
        tokens = [torch.from_numpy(rng.integers(1, 20, n)) for n in lengths.tolist()]
        tokens = pad_sequence(tokens, batch_first=True).to(device)
        mask = (torch.arange(tokens.size(1))[None] < lengths[:, None]).to(device).t()
        emissions, hidden = model(tokens, lengths)
        loss = model.crf(emissions, (tokens % 4).t(), mask) + 1e-3 * hidden.pow(2).mean()
        model.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        yield loss.item()
    with torch.no_grad():
        paths = model.crf.decode(model(tokens, lengths)[0], mask)
    assert [len(p) for p in paths] == lengths.tolist()
    yield float(sum(sum(p) for p in paths))
