"""Deep Q-learning on a line: replay buffer, target network with soft updates, gather, masked next values."""

import random
from collections import deque, namedtuple

import torch
import torch.nn as nn
import torch.optim as optim

Transition = namedtuple("Transition", ("state", "action", "next_state", "reward"))


class DQN(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer1, self.layer2, self.layer3 = nn.Linear(2, 24), nn.Linear(24, 24), nn.Linear(24, 2)

    def forward(self, x):
        x = nn.functional.relu(self.layer1(x))
        x = nn.functional.relu(self.layer2(x))
        return self.layer3(x)


def build():
    return DQN()


def train(policy_net, device):
    rng = random.Random(15)
    target_net = DQN().to(device)
    policy_net.to(device)
    target_net.load_state_dict(policy_net.state_dict())
    optimizer = optim.AdamW(policy_net.parameters(), lr=1e-3, amsgrad=True)
    memory = deque([], maxlen=500)
    position, goal = 0.0, 1.0
    for _step in range(60):
        state = torch.tensor([position, goal], dtype=torch.float32, device=device).unsqueeze(0)
        if rng.random() > 0.5:
            with torch.no_grad():
                action = policy_net(state).max(1).indices.view(1, 1)
        else:
            action = torch.tensor([[rng.randrange(2)]], device=device, dtype=torch.long)
        position += 0.25 if action.item() else -0.25
        reward = torch.tensor([-abs(goal - position)], device=device)
        done = abs(goal - position) < 0.1 or abs(position) > 1.5
        following = None if done else torch.tensor([[position, goal]], dtype=torch.float32, device=device)
        memory.append(Transition(state, action, following, reward))
        if done:
            position = 0.0
        if len(memory) < 16:
            continue
        batch = Transition(*zip(*rng.sample(list(memory), 16)))  # noqa: B905
        mask = torch.tensor(tuple(s is not None for s in batch.next_state), device=device, dtype=torch.bool)
        following = torch.cat([s for s in batch.next_state if s is not None])
        values = policy_net(torch.cat(batch.state)).gather(1, torch.cat(batch.action))
        next_values = torch.zeros(16, device=device)
        with torch.no_grad():
            next_values[mask] = target_net(following).max(1).values
        expected = next_values * 0.99 + torch.cat(batch.reward)
        loss = nn.SmoothL1Loss()(values, expected.unsqueeze(1))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_value_(policy_net.parameters(), 100)
        optimizer.step()
        target, policy = target_net.state_dict(), policy_net.state_dict()
        for key in policy:
            target[key] = policy[key] * 0.05 + target[key] * 0.95
        target_net.load_state_dict(target)
        yield loss.item()
