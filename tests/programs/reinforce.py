"""REINFORCE on a corridor: a policy of two actions, discounted returns normalised, the actions drawn from the policy's
probabilities by numbers that NumPy provides."""

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
import torch.optim as optim
from torch.distributions import Categorical

EPS = np.finfo(np.float32).eps.item()


class Policy(nn.Module):
    def __init__(self):
        super().__init__()
        self.affine1 = nn.Linear(2, 16)
        self.dropout = nn.Dropout(p=0.0)
        self.affine2 = nn.Linear(16, 2)
        self.saved_log_probs = []
        self.rewards = []

    def forward(self, x):
        x = self.dropout(self.affine1(x))
        x = F.relu(x)
        return F.softmax(self.affine2(x), dim=1)


def build():
    return Policy()


def train(policy, device):
    policy.to(device)
    rng = np.random.default_rng(8)
    optimizer = optim.Adam(policy.parameters(), lr=1e-2)
    for _episode in range(20):
        position, entropies = 0, []
        for _t in range(12):
            state = torch.tensor([[position / 5, 1.0]], dtype=torch.float32, device=device)
            probs = policy(state)
            m = Categorical(probs)
            action = torch.tensor([int(rng.random() > probs[0, 0].item())], device=device)
            policy.saved_log_probs.append(m.log_prob(action))
            entropies.append(m.entropy())
            position += 1 if action.item() == 1 else -1
            policy.rewards.append(1.0 if position >= 3 else -0.1)
            if abs(position) >= 3:
                break
        R, returns = 0, []
        for r in policy.rewards[::-1]:
            R = r + 0.99 * R
            returns.insert(0, R)
        returns = torch.tensor(returns, device=device)
        returns = (returns - returns.mean()) / (returns.std() + EPS)
        policy_loss = [-log_prob * R for log_prob, R in zip(policy.saved_log_probs, returns, strict=True)]
        optimizer.zero_grad()
        loss = torch.cat(policy_loss).sum() - 0.01 * torch.stack(entropies).sum()
        loss.backward()
        optimizer.step()
        del policy.rewards[:]
        del policy.saved_log_probs[:]
        yield loss.item()
