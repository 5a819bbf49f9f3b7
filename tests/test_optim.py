"""Optimizers and schedules against PyTorch's values; saving, groups, hooks, errors."""

from __future__ import annotations

import copy
import json
import pickle
import warnings

import numpy as np
import pytest

import gpugrad as gg
from gpugrad import nn, optim
from gpugrad.optim import lr_scheduler as lrs
from tests.optim_cases import (
    OPTIMIZERS,
    PLATEAUS,
    REFERENCE,
    SCHEDULES,
    groups,
    loss,
    optimize,
    parameters,
    record,
    schedule,
)


@pytest.fixture(scope="module")
def reference():
    return json.loads(REFERENCE.read_text())


@pytest.mark.parametrize("name", list(OPTIMIZERS))
def test_optimizer_like_pytorch(name, device, reference):
    np.testing.assert_allclose(optimize(gg, name, device), reference["optimizers"][name], rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("name", [*SCHEDULES, *PLATEAUS])
def test_schedule_like_pytorch(name, reference):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_allclose(schedule(gg, name), reference["schedules"][name], rtol=1e-9, atol=1e-12)


def test_the_recorded_values_are_pytorchs(torch, reference):
    again = record(torch)
    for kind in ("optimizers", "schedules"):
        assert again[kind].keys() == reference[kind].keys()
        for name, value in again[kind].items():
            np.testing.assert_allclose(value, reference[kind][name], rtol=1e-7, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("kind", [optim.Adam, optim.AdamW, optim.RMSprop])
def test_capturable_and_tensor_rates_give_the_same(kind, device):
    ends = []
    for options in ({"lr": 0.1}, {"lr": 0.1, "capturable": True}, {"lr": gg.tensor(0.1), "capturable": True}):
        a, b = parameters(gg, device)
        o = kind([a, b], **options)
        for _ in range(3):
            o.zero_grad()
            loss(a, b).backward()
            o.step()
        ends.append(a.detach().cpu().numpy())
        assert isinstance(o.state[a]["step"], gg.Tensor) == ("capturable" in options)
    np.testing.assert_allclose(ends[1], ends[0], rtol=2e-5)
    np.testing.assert_allclose(ends[2], ends[0], rtol=2e-5)


# -- saving and groups ---------------------------------------------------------------------
@pytest.mark.parametrize("name", ["sgd_momentum", "adam_all", "adamw", "rmsprop_all", "adagrad_all", "sgd_groups"])
def test_resuming_from_a_state_dict_gives_the_same_run(name, device):
    expected = optimize(gg, name, device, steps=6)
    a, b = parameters(gg, device)
    first = OPTIMIZERS[name](optim, a, b)
    for _ in range(3):
        first.zero_grad()
        loss(a, b).backward()
        first.step()
    state = copy.deepcopy(first.state_dict())
    second = OPTIMIZERS[name](optim, a, b)
    for group in second.param_groups:
        group["lr"] = 123.0
    second.load_state_dict(state)
    for _ in range(3):
        second.zero_grad()
        loss(a, b).backward()
        second.step()
    found = [*a.detach().cpu().tolist(), *sum(b.detach().cpu().tolist(), [])]
    np.testing.assert_array_equal(found, expected)


def test_state_dict_layout():
    a, b = parameters(gg)
    o = optim.Adam([{"params": [a]}, {"params": [b], "lr": 0.5}])
    loss(a, b).backward()
    o.step()
    state = o.state_dict()
    assert [g["params"] for g in state["param_groups"]] == [[0], [1]] and state["param_groups"][1]["lr"] == 0.5
    assert set(state["state"][0]) == {"step", "exp_avg", "exp_avg_sq"}


def test_pytorchs_state_dict_loads(torch):
    """Ours takes over where PyTorch's optimizer stopped (its step count is a tensor)."""
    a, b = parameters(torch, dtype="float64")
    theirs = torch.optim.Adam([a, b], lr=0.1)
    for _ in range(3):
        theirs.zero_grad()
        loss(a, b).backward()
        theirs.step()
    state = theirs.state_dict()
    state["state"] = {i: {k: gg.tensor(v.numpy()) for k, v in s.items()} for i, s in state["state"].items()}
    x, y = (gg.tensor(p.detach().numpy(), requires_grad=True) for p in (a, b))
    ours = optim.Adam([x, y], lr=9.0)
    ours.load_state_dict(state)
    for o, p, q in ((theirs, a, b), (ours, x, y)):
        o.zero_grad()
        loss(p, q).backward()
        o.step()
    np.testing.assert_allclose(x.detach().numpy(), a.detach().numpy(), rtol=1e-12)


def test_loading_moves_and_converts(device):
    a, b = parameters(gg)
    source = optim.SGD([a, b], lr=0.1, momentum=0.9)
    loss(a, b).backward()
    source.step()
    c, d = parameters(gg, device)
    target = optim.SGD([c, d], lr=0.1, momentum=0.9)
    target.load_state_dict(source.state_dict())
    moved = target.state[c]["momentum_buffer"]
    assert moved.device == gg.device(device)
    moved.zero_()
    assert source.state[a]["momentum_buffer"].abs().sum().item() > 0  # a copy, not a share
    with pytest.raises(ValueError, match="1 parameter groups were saved, this SGD has 2"):
        optim.SGD([{"params": [c]}, {"params": [d]}]).load_state_dict(source.state_dict())
    with pytest.raises(ValueError, match="saved with 2 parameters, this SGD's has 1"):
        optim.SGD([c]).load_state_dict(source.state_dict())


def test_groups_and_names():
    net = nn.Linear(2, 2)
    o = optim.AdamW(net.named_parameters(), lr=0.1)
    assert o.param_groups[0]["param_names"] == ["weight", "bias"]
    extra = nn.Parameter(gg.ones(1))
    with pytest.raises(ValueError, match="groups with and without names cannot be mixed"):
        o.add_param_group({"params": extra})
    o.add_param_group({"params": [("extra", extra)], "weight_decay": 0.0})
    assert o.param_groups[1]["param_names"] == ["extra"]
    assert o.param_groups[1]["weight_decay"] == 0.0 and o.param_groups[1]["lr"] == 0.1
    text = repr(o)
    assert text.startswith("AdamW (\nParameter Group 0\n    amsgrad: False\n    betas: (0.9, 0.999)") and text.endswith(
        "\n)"
    )
    again = pickle.loads(pickle.dumps(o))
    assert again.param_groups[0]["lr"] == 0.1 and again.step() is None


def test_mistakes():
    p = nn.Parameter(gg.ones(2))
    for build, kind, text in (
        (lambda: optim.SGD(p), TypeError, "params is a single Tensor .* put it in a list"),
        (lambda: optim.SGD([]), ValueError, "SGD: there are no parameters to optimize"),
        (lambda: optim.SGD([1]), TypeError, "SGD: every parameter must be a Tensor, not int"),
        (lambda: optim.SGD([p * 2]), ValueError, "is no leaf"),
        (lambda: optim.SGD([p, p]), UserWarning, "listed twice in one group"),
        (lambda: optim.SGD([{"params": [p]}, {"params": [p]}]), ValueError, "already belongs to another one"),
        (lambda: optim.SGD([{"params": {p}}]), TypeError, "params is a set"),
        (lambda: optim.SGD([("a", p), nn.Parameter(gg.ones(1))]), ValueError, "names"),
        (lambda: optim.SGD([p], lr=-1), ValueError, "lr must be at least 0, got -1"),
        (lambda: optim.SGD([p], momentum=-1), ValueError, "momentum must be at least 0, got -1"),
        (lambda: optim.SGD([p], nesterov=True), ValueError, "nesterov=True needs momentum > 0"),
        (
            lambda: optim.SGD([p], fused=True, foreach=True),
            RuntimeError,
            "fused=True and foreach=True exclude each other",
        ),
        (lambda: optim.SGD([p], lr=gg.ones(2)), ValueError, "tensor of one element"),
        (lambda: optim.Adam([p], betas=(1.0, 0.9)), ValueError, r"betas\[0\] must lie in \[0, 1\), got 1.0"),
        (lambda: optim.Adam([p], eps=-1), ValueError, "eps must be at least 0, got -1"),
        (lambda: optim.Adam([p], weight_decay=float("nan")), ValueError, "weight_decay must be at least 0, got nan"),
        (lambda: optim.RMSprop([p], alpha=-1), ValueError, "alpha must be at least 0, got -1"),
        (lambda: optim.Adagrad([p], lr_decay=-1), ValueError, "lr_decay must be at least 0, got -1"),
    ):
        with pytest.raises(kind, match=text):
            build()


# -- stepping ------------------------------------------------------------------------------
def test_closure_zero_grad_and_missing_gradients(device):
    a, b = parameters(gg, device)
    o = optim.SGD([a, b], lr=0.1)
    before = b.detach().cpu().numpy()

    def closure():
        o.zero_grad()
        value = (a**2).sum()
        value.backward()
        return value

    assert o.step(closure).item() == pytest.approx(1.5**2 + 2**2 + 0.25**2)
    np.testing.assert_array_equal(b.detach().cpu().numpy(), before)  # no gradient, no change
    o.zero_grad(set_to_none=False)
    assert a.grad.abs().sum().item() == 0 and b.grad is None
    o.zero_grad()
    assert a.grad is None


def test_a_step_is_not_recorded_and_keeps_leaves():
    a, b = parameters(gg)
    o = optim.Adam([a, b])
    loss(a, b).backward()
    o.step()
    assert a.is_leaf and a.requires_grad and not o.state[a]["exp_avg"].requires_grad


def test_hooks_run_once_also_for_users_own_optimizers():
    class Plain(optim.Optimizer):
        def __init__(self, params, lr):
            super().__init__(params, {"lr": lr})

        def step(self, closure=None):
            for group in self.param_groups:
                for p in group["params"]:
                    with gg.no_grad():
                        p.sub_(p.grad * group["lr"])

    a, b = parameters(gg)
    for o in (Plain([a, b], 0.1), optim.AdamW([a, b])):
        loss(a, b).backward()
        log = []
        first = o.register_step_pre_hook(lambda *args, log=log: log.append("pre"))
        o.register_step_post_hook(lambda *args, log=log: log.append("post"))
        o.step()
        first.remove()
        o.step()
        assert log == ["pre", "post", "post"]
    o.register_state_dict_post_hook(lambda o, s: {**s, "extra": 1})
    assert o.state_dict()["extra"] == 1
    o.register_load_state_dict_pre_hook(lambda o, s: log.append("load"))
    o.load_state_dict(o.state_dict())
    assert log[-1] == "load"


def test_differentiable_step():
    """The derivative of the loss after a step with respect to the learning rate: -|g|^2 for SGD."""
    lr = gg.tensor(0.1, requires_grad=True)
    start = gg.tensor([1.0, -2.0], requires_grad=True)
    p = start * 1.0
    o = optim.SGD([p], lr=lr, differentiable=True)
    p.grad = gg.tensor([3.0, 4.0])
    o.step()
    p.sum().backward()
    assert lr.grad.item() == -7.0 and start.grad.tolist() == [1.0, 1.0]


# -- schedules ---------------------------------------------------------------------------------
@pytest.mark.parametrize("name", [n for n in SCHEDULES if n not in ("lambda", "multiplicative")])
def test_schedule_resumes_from_a_state_dict(name):
    expected = schedule(gg, name)
    o = groups(gg)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        s = SCHEDULES[name](lrs, o)
        for _ in range(7):
            o.step()
            s.step()
        saved = copy.deepcopy((o.state_dict(), s.state_dict()))
        o = groups(gg)
        s = SCHEDULES[name](lrs, o)
    o.load_state_dict(saved[0])
    s.load_state_dict(saved[1])
    for row in expected[7:]:
        assert [float(g[k]) for g in o.param_groups for k in ("lr", "momentum")] == pytest.approx(row, rel=1e-12)
        assert s.get_last_lr() == [g["lr"] for g in o.param_groups]
        o.step()
        s.step()


def test_lambda_state_keeps_callable_objects():
    class Warmup:
        def __init__(self, n):
            self.n = n

        def __call__(self, epoch):
            return epoch / self.n

    s = lrs.LambdaLR(groups(gg), [Warmup(5), lambda e: 1.0])
    state = s.state_dict()
    assert state["lr_lambdas"] == [{"n": 5}, None]
    other = lrs.LambdaLR(groups(gg), [Warmup(9), lambda e: 1.0])
    other.load_state_dict(state)
    assert other.lr_lambdas[0].n == 5


def test_rate_in_a_tensor_is_changed_in_place():
    p = nn.Parameter(gg.ones(1))
    lr = gg.tensor(0.5)
    o = optim.SGD([p], lr=lr)
    s = lrs.ExponentialLR(o, 0.5)
    p.grad = gg.ones(1)
    o.step()
    s.step()
    assert o.param_groups[0]["lr"] is lr and lr.item() == 0.25 and s.get_last_lr() == [0.25]


def test_schedule_mistakes():
    o = groups(gg)
    other = groups(gg)
    for build, kind, text in (
        (lambda: lrs.StepLR(3, 1), TypeError, "StepLR: expected an Optimizer, got int"),
        (lambda: lrs.StepLR(groups(gg), 1, last_epoch=3), KeyError, "initial_lr"),
        (lambda: lrs.LambdaLR(o, [len]), ValueError, "lr_lambda needs one value per parameter group, 2, not 1"),
        (lambda: lrs.ConstantLR(o, 2.0), ValueError, "factor must lie in .* got 2.0"),
        (lambda: lrs.LinearLR(o, 0.0), ValueError, "start_factor must lie in .* got 0.0"),
        (lambda: lrs.OneCycleLR(o, 1.0), ValueError, "give total_steps, or both epochs and steps_per_epoch"),
        (
            lambda: lrs.OneCycleLR(o, 1.0, total_steps=-3),
            ValueError,
            "total_steps must be an int of at least 1, got -3",
        ),
        (lambda: lrs.OneCycleLR(o, 1.0, total_steps=3, anneal_strategy="exp"), ValueError, "'cos' or 'linear'"),
        (lambda: lrs.CyclicLR(o, 0.1, 1.0, mode="square"), ValueError, "mode 'square' is unknown"),
        (
            lambda: lrs.CyclicLR(optim.Adagrad([nn.Parameter(gg.ones(1))]), 0.1, 1.0),
            ValueError,
            "Adagrad has neither momentum nor betas",
        ),
        (lambda: lrs.CosineAnnealingWarmRestarts(o, 0), ValueError, "T_0 must be an int of at least 1, got 0"),
        (lambda: lrs.ReduceLROnPlateau(o, "down"), ValueError, "mode 'down' is unknown"),
        (lambda: lrs.ReduceLROnPlateau(o, factor=1.5), ValueError, "factor must be below 1, got 1.5"),
        (lambda: lrs.SequentialLR(o, [lrs.StepLR(o, 1)], [3]), ValueError, "1 schedulers need 0 milestones"),
        (
            lambda: lrs.ChainedScheduler([lrs.StepLR(o, 1), lrs.StepLR(other, 1)]),
            ValueError,
            "drives another optimizer",
        ),
        (lambda: lrs.ChainedScheduler([]), ValueError, "list of schedulers is empty"),
    ):
        with pytest.raises(kind, match=text):
            build()
    one = lrs.OneCycleLR(o, 1.0, total_steps=1)
    o.step()
    one.step()
    with pytest.raises(ValueError, match="step 2 is past the end"):
        one.step()


def test_stepping_the_schedule_first_is_pointed_out():
    s = lrs.StepLR(groups(gg), 1)
    with pytest.warns(UserWarning, match=r"StepLR.step\(\) ran although .* call optimizer.step\(\) first"):
        s.step()


# -- the point of it all ---------------------------------------------------------------------------
@pytest.mark.parametrize("make", [
    lambda p: optim.SGD(p, lr=0.3, momentum=0.9),
    lambda p: optim.Adam(p, lr=0.05),
    lambda p: optim.AdamW(p, lr=0.05),
    lambda p: optim.RMSprop(p, lr=0.01),
    lambda p: optim.Adagrad(p, lr=0.2),
])  # fmt: skip
def test_learns_exclusive_or(make, device):
    gg.manual_seed(3)
    x = gg.tensor([[0.0, 0], [0, 1], [1, 0], [1, 1]], device=device)
    y = gg.tensor([0, 1, 1, 0], device=device)
    net = nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 2)).to(device)
    o = make(net.parameters())
    for _ in range(100):
        o.zero_grad()
        value = nn.functional.cross_entropy(net(x), y)
        value.backward()
        o.step()
    assert value.item() < 0.1
    assert net(x).argmax(1).tolist() == [0, 1, 1, 0]
