"""Averages of weights, and schedules: those of users, those that go on from an epoch, SWALR."""

from __future__ import annotations

import numpy as np
import pytest

import gpugrad as gg
from gpugrad import nn, optim

# -- averages of weights ---------------------------------------------------------------------


def network(t, weights=None):
    net = t.nn.Sequential(t.nn.Linear(3, 4), t.nn.BatchNorm1d(4), t.nn.ReLU(), t.nn.Linear(4, 1))
    if weights is not None:
        net.load_state_dict({k: t.tensor(v) for k, v in weights.items()})
    return net


@pytest.mark.parametrize("kind", ["swa", "ema", "ema_multi", "swa_multi", "own", "buffers"])
def test_averaged_models(kind, torch):
    start = {k: v.numpy() for k, v in network(torch).state_dict().items()}
    x = np.random.default_rng(3).normal(size=(6, 3)).astype(np.float32)
    found = []
    for t in (gg, torch):
        swa = t.optim.swa_utils
        options = {
            "swa": {},
            "ema": {"avg_fn": swa.get_ema_avg_fn(0.8)},
            "ema_multi": {"multi_avg_fn": swa.get_ema_multi_avg_fn(0.8)},
            "swa_multi": {"multi_avg_fn": swa.get_swa_multi_avg_fn()},
            "own": {"avg_fn": lambda mean, new, n: 0.3 * mean + 0.7 * new + n * 0.01},
            "buffers": {"multi_avg_fn": swa.get_ema_multi_avg_fn(0.5), "use_buffers": True},
        }[kind]
        net = network(t, start)
        mean = swa.AveragedModel(net, **options)
        o = t.optim.SGD(net.parameters(), lr=0.1)
        for _ in range(4):
            o.zero_grad()
            net(t.tensor(x)).pow(2).mean().backward()
            o.step()
            mean.update_parameters(net)
        assert int(mean.n_averaged) == 4
        before = mean.module[1].running_mean.tolist()
        swa.update_bn([(t.tensor(x[:3]), 1), (t.tensor(x[3:]), 2)], mean)
        assert mean.module[1].momentum == 0.1 and mean.training
        state = {k: v.tolist() for k, v in mean.state_dict().items()}
        mean.eval()
        found.append((state, before, mean(t.tensor(x)).tolist()))
    assert list(found[0][0]) == list(found[1][0])
    for name, value in found[1][0].items():
        np.testing.assert_allclose(found[0][0][name], value, rtol=1e-4, atol=1e-6, err_msg=name)
    np.testing.assert_allclose(found[0][1], found[1][1], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found[0][2], found[1][2], rtol=1e-3, atol=1e-5)


def test_averaged_model_on_a_device(device):
    net = nn.Linear(2, 1)
    mean = optim.swa_utils.AveragedModel(net, device=device)
    mean.update_parameters(net)
    with gg.no_grad():
        net.weight.add_(1.0)
    mean.update_parameters(net)
    np.testing.assert_allclose(mean.module.weight.detach().cpu().numpy(), net.weight.detach().numpy() - 0.5, rtol=1e-6)
    assert mean.n_averaged.device == gg.device(device) and int(mean.n_averaged) == 2


@pytest.mark.parametrize("options", [{}, {"anneal_strategy": "linear", "anneal_epochs": 4}, {"anneal_epochs": 0}])
def test_swalr(options, torch):
    runs = []
    for t in (gg, torch):
        p = [t.ones(1).requires_grad_(), t.ones(1).requires_grad_()]
        o = t.optim.SGD([{"params": p[:1]}, {"params": p[1:], "lr": 0.5}], lr=1.0)
        s = t.optim.swa_utils.SWALR(o, [0.05, 0.1], **options)
        rows = []
        for _ in range(12):
            o.step()
            s.step()
            rows.append(s.get_last_lr())
        runs.append(rows)
    np.testing.assert_allclose(runs[0], runs[1], rtol=1e-12)


# -- schedules ---------------------------------------------------------------------------


def test_schedules_of_users():
    seen = []

    class Warm(optim.lr_scheduler._LRScheduler):
        def __init__(self, optimizer, n, last_epoch=-1):
            self.n = n
            super().__init__(optimizer, last_epoch)

        def get_lr(self):
            seen.append(self._get_lr_called_within_step)
            return [base * min(1.0, (self.last_epoch + 1) / self.n) for base in self.base_lrs]

    p = gg.ones(1).requires_grad_()
    o = optim.SGD([p], lr=0.4)
    s = Warm(o, 4)
    rates = []
    for _ in range(5):
        rates.append(s.get_last_lr()[0])
        o.step()
        s.step()
    assert rates == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.4])
    s.get_lr()
    assert seen == [True] * 6 + [False]


RESUMED = {
    "step": lambda s, o: s.StepLR(o, 4, last_epoch=5),
    "multistep": lambda s, o: s.MultiStepLR(o, [2, 6], last_epoch=3),
    "exponential": lambda s, o: s.ExponentialLR(o, 0.9, last_epoch=3),
    "multiplicative": lambda s, o: s.MultiplicativeLR(o, lambda e: 0.9, last_epoch=3),
    "linear": lambda s, o: s.LinearLR(o, 0.1, total_iters=8, last_epoch=3),
    "polynomial": lambda s, o: s.PolynomialLR(o, 9, last_epoch=3),
    "cosine": lambda s, o: s.CosineAnnealingLR(o, 6, last_epoch=3),
    "restarts": lambda s, o: s.CosineAnnealingWarmRestarts(o, 3, 2, last_epoch=4),
    "cyclic": lambda s, o: s.CyclicLR(o, 0.1, 1.0, 4, last_epoch=3),
    "one_cycle": lambda s, o: s.OneCycleLR(o, 1.0, total_steps=20, last_epoch=3),
}


@pytest.mark.parametrize("name", list(RESUMED))
@pytest.mark.parametrize("kind", ["SGD", "Adam"])
def test_schedules_that_go_on_from_an_epoch(name, kind, torch):
    runs = []
    for t in (gg, torch):
        p = [t.ones(1).requires_grad_(), t.ones(1).requires_grad_()]
        groups = [{"params": p[:1]}, {"params": p[1:], "lr": 0.2}]
        o = t.optim.SGD(groups, lr=0.5, momentum=0.7) if kind == "SGD" else t.optim.Adam(groups, lr=0.5)
        for group in o.param_groups:
            group.update(initial_lr=group["lr"], max_lr=1.0, min_lr=1e-5, max_momentum=0.95, base_momentum=0.85)
        s = RESUMED[name](t.optim.lr_scheduler, o)
        rows = []
        for _ in range(8):
            rows.append(
                [*s.get_last_lr(), *(g["momentum"] if kind == "SGD" else g["betas"][0] for g in o.param_groups)]
            )
            o.step()
            s.step()
        runs.append(rows)
    np.testing.assert_allclose(runs[0], runs[1], rtol=1e-9)
