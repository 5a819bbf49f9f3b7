"""Two agents: proximal policy optimisation with generalised advantages, soft actor-critic with squashed actions."""

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.distributions import Independent, TanhTransform, TransformedDistribution, kl_divergence
from torch.distributions.categorical import Categorical
from torch.distributions.normal import Normal


def layer(cin, cout, std=2**0.5):
    linear = nn.Linear(cin, cout)
    nn.init.orthogonal_(linear.weight, std)
    nn.init.constant_(linear.bias, 0.0)
    return linear


def build():
    return {
        "critic": nn.Sequential(layer(4, 16), nn.Tanh(), layer(16, 1, std=1.0)),
        "actor": nn.Sequential(layer(4, 16), nn.Tanh(), layer(16, 3, std=0.01)),
        "policy": nn.Sequential(layer(4, 16), nn.ReLU(), nn.Linear(16, 4)),
        "q": nn.ModuleList([nn.Sequential(layer(6, 16), nn.ReLU(), nn.Linear(16, 1)) for _ in range(2)]),
    }


def ppo(actor, critic, rng, device, steps=8, envs=4):
    optimizer = torch.optim.Adam([*actor.parameters(), *critic.parameters()], lr=2.5e-3, eps=1e-5)
    for _ in range(4):
        obs = torch.tensor(rng.standard_normal((steps, envs, 4)), dtype=torch.float32).to(device)
        actions, rewards = torch.zeros((steps, envs)).to(device), torch.zeros((steps, envs), device=device)
        dones, logprobs = torch.zeros_like(rewards), torch.zeros_like(rewards)
        for t in range(steps):
            actions[t] = torch.as_tensor(rng.integers(0, 3, envs)).to(device)
            with torch.no_grad():
                logprobs[t] = Categorical(logits=actor(obs[t])).log_prob(actions[t])
            rewards[t] = torch.Tensor(rng.random(envs)).to(device).view(-1)
            dones[t] = torch.Tensor(rng.random(envs) < 0.1).to(device)
        with torch.no_grad():
            values, advantages, running = critic(obs).squeeze(-1), torch.zeros_like(rewards), 0
            for t in reversed(range(steps)):
                follow = values[t + 1] * (1.0 - dones[t + 1]) if t < steps - 1 else values[t] * (1.0 - dones[t])
                running = rewards[t] + 0.99 * follow - values[t] + 0.95 * 0.99 * (1.0 - dones[t]) * running
                advantages[t] = running
        flat = [x.reshape((-1, *x.shape[2:])) for x in (obs, actions, logprobs, advantages, advantages + values)]
        order = np.arange(steps * envs)
        rng.shuffle(order)
        for start in range(0, len(order), 8):
            o, a, old, adv, returns = (x[order[start : start + 8]] for x in flat)
            dist = Categorical(logits=actor(o))
            logratio = dist.log_prob(a.long()) - old
            ratio = logratio.exp()
            adv = (adv - adv.mean()) / (adv.std() + 1e-8)
            policy_loss = torch.max(-adv * ratio, -adv * torch.clamp(ratio, 0.8, 1.2)).mean()
            value_loss = 0.5 * ((critic(o).view(-1) - returns) ** 2).mean()
            loss = policy_loss - 0.01 * dist.entropy().mean() + value_loss * 0.5
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_([*actor.parameters(), *critic.parameters()], 0.5)
            optimizer.step()
            yield loss.item()
            yield ((ratio - 1) - logratio).mean().item()


def sac(policy, q, rng, device):
    log_alpha = torch.zeros(1, requires_grad=True, device=device)
    alpha_opt = torch.optim.Adam([log_alpha], lr=1e-2)
    policy_opt, q_opt = torch.optim.Adam(policy.parameters(), 3e-3), torch.optim.Adam(q.parameters(), 1e-2)

    def act(x):
        mean, log_std = policy(x).chunk(2, dim=-1)
        normal = Normal(mean, (torch.tanh(log_std) * 2 - 1).exp())
        raw = normal.loc + normal.scale * torch.from_numpy(rng.standard_normal((16, 2), dtype=np.float32)).to(device)
        squashed = TransformedDistribution(normal, [TanhTransform(cache_size=1)])
        action = squashed.transforms[0](raw)
        return action, squashed.log_prob(action).sum(1, keepdim=True), normal

    for _ in range(20):
        x = torch.from_numpy(rng.standard_normal((16, 4), dtype=np.float32)).to(device)
        with torch.no_grad():
            a, logp, _ = act(x)
            target = 0.3 + 0.9 * (torch.min(*(f(torch.cat([x, a], 1)) for f in q)) - log_alpha.exp() * logp)
        q_loss = sum(F.mse_loss(f(torch.cat([x, a], 1)), target) for f in q)
        q_opt.zero_grad()
        q_loss.backward()
        q_opt.step()
        a, logp, normal = act(x)
        prior = kl_divergence(Independent(normal, 1), Independent(Normal(torch.zeros_like(a), 1.0), 1)).mean()
        loss = (
            log_alpha.exp().detach() * logp - torch.min(*(f(torch.cat([x, a], 1)) for f in q))
        ).mean() + 0.01 * prior
        policy_opt.zero_grad()
        loss.backward()
        policy_opt.step()
        alpha_opt.zero_grad()
        (-log_alpha.exp() * (logp.detach() - 2)).mean().backward()
        alpha_opt.step()
        yield from (q_loss.item(), loss.item(), log_alpha.item())


def train(model, device):
    rng = np.random.default_rng(24)
    yield from ppo(model["actor"].to(device), model["critic"].to(device), rng, device)
    yield from sac(model["policy"].to(device), model["q"].to(device), rng, device)
