"""Optimizers in mixed precision: clipping within the step, float32 copies of half parameters."""

from __future__ import annotations

import numpy as np
import pytest

import gpugrad as gg
from gpugrad import nn

OPTIMIZERS = {
    "AdamW": lambda p, **k: gg.optim.AdamW(p, lr=0.01, **k),
    "AdamW, amsgrad": lambda p, **k: gg.optim.AdamW(p, lr=0.01, amsgrad=True, **k),
    "Adam, decay": lambda p, **k: gg.optim.Adam(p, lr=0.01, weight_decay=0.1, **k),
    "SGD": lambda p, **k: gg.optim.SGD(p, lr=0.1, **k),
    "SGD, decay": lambda p, **k: gg.optim.SGD(p, lr=0.1, weight_decay=0.1, **k),
    "SGD, momentum": lambda p, **k: gg.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True, **k),
}


def parameters(device, dtype=gg.float32):
    rng = np.random.default_rng(0)
    shapes = [(40, 30), (7,), (), (3, 1, 5), (5000,), (70, 80)]
    return [
        gg.tensor(rng.standard_normal(s).astype(np.float32), device=device).to(dtype).requires_grad_() for s in shapes
    ]


def gradients(params, step, size=1.0):
    rng = np.random.default_rng(step + 1)
    for p in params:
        values = (size * rng.standard_normal(tuple(p.shape))).astype(np.float32)
        p.grad = gg.tensor(values, device=p.device).to(p.dtype)


def both(device, *steps):
    """Parameters twice, alike; with the gradients of ``steps``."""
    ours, theirs = parameters(device), parameters(device)
    for step in steps:
        gradients(ours, step)
        gradients(theirs, step)
    return ours, theirs


def close(ours, theirs, rtol=2e-6, atol=1e-7):
    for p, q in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(p.detach().cpu().numpy(), q.detach().cpu().numpy(), rtol=rtol, atol=atol)


def equal(ours, theirs):
    return all((p == q).all() for p, q in zip(ours, theirs, strict=True))


def eager_and_compiled(model_of, optimizer_of, x_of, steps):
    """For the eager and the compiled training step: the losses, the model and its optimizer after ``steps`` of it."""
    for compiled in (False, True):
        gg.manual_seed(0)
        model = model_of()
        optimizer = optimizer_of(model.parameters())
        x = x_of()

        def train(x, model=model, optimizer=optimizer):
            optimizer.zero_grad()
            loss = (model(x) ** 2).sum()
            loss.backward()
            optimizer.step()
            return loss

        run = gg.compile(train) if compiled else train
        losses = [run(x).item() for _ in range(steps)]
        assert not compiled or "program" in run.explain()
        yield losses, model, optimizer


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("size", [1e-4, 1.0], ids=["below", "above"])
def test_clipping_within_the_step_is_clipping_before_it(device, name, size):
    make = OPTIMIZERS[name]
    ours, theirs = both(device)
    clipping, plain = make(ours, max_grad_norm=0.5), make(theirs)
    for step in range(3):
        gradients(ours, step, size)
        gradients(theirs, step, size)
        before = [p.grad.clone() for p in ours]
        clipping.step()
        total = nn.utils.clip_grad_norm_(theirs, 0.5)
        plain.step()
        assert clipping.grad_norm.item() == pytest.approx(total.item(), rel=1e-6)
        assert all((p.grad == g).all() for p, g in zip(ours, before, strict=True))
    if device == "cpu":
        assert equal(ours, theirs)
    close(ours, theirs)


def test_groups_with_one_limit_are_clipped_together(device):
    ours, theirs = both(device, 0)
    groups = [{"params": ours[:2], "lr": 0.1}, {"params": ours[2:4]}, {"params": ours[4:], "max_grad_norm": None}]
    optimizer = gg.optim.SGD(groups, lr=0.2, max_grad_norm=1.0)
    optimizer.step()
    nn.utils.clip_grad_norm_(theirs[:4], 1.0)
    rates = [0.1, 0.1, 0.2, 0.2, 0.2, 0.2]
    close(ours, [q.detach() - q.grad * lr for q, lr in zip(theirs, rates, strict=True)], rtol=1e-6)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_norm_that_is_not_finite(device, bad):
    ours, theirs = both(device, 0)
    for params in (ours, theirs):
        params[1].grad[3] = bad
    gg.optim.SGD(ours, lr=0.1, max_grad_norm=1.0).step()
    nn.utils.clip_grad_norm_(theirs, 1.0)
    gg.optim.SGD(theirs, lr=0.1).step()
    close(ours, theirs, rtol=1e-6, atol=0)


def test_nothing_is_read_back_while_clipping(device, monkeypatch):
    params = parameters(device)
    optimizer = gg.optim.AdamW(params, max_grad_norm=0.5)
    gradients(params, 0)
    optimizer.step()
    gradients(params, 1)
    kind = type(params[0]._backend)
    with monkeypatch.context() as patch:
        patch.setattr(kind, "to_host", lambda *args: pytest.fail("a value was read back"))
        optimizer.step()


def test_options_out_of_range_and_where_they_are_kept():
    p = [gg.ones(2, requires_grad=True)]
    with pytest.raises(ValueError, match="max_grad_norm must be at least 0"):
        gg.optim.AdamW(p, max_grad_norm=-1.0)
    state = gg.optim.AdamW(p, max_grad_norm=2.0, master_weights=True).state_dict()
    assert state["param_groups"][0]["max_grad_norm"] == 2.0 and state["param_groups"][0]["master_weights"]
    assert "max_grad_norm" not in gg.optim.AdamW(p).state_dict()["param_groups"][0]  # PyTorch's layout


def test_differentiable_and_capturable_steps_clip_too():
    for options in ({"capturable": True}, {"lr": gg.tensor(0.01)}):
        ours, theirs = both("cpu", 0)
        gg.optim.AdamW(ours, max_grad_norm=0.5, **options).step()
        nn.utils.clip_grad_norm_(theirs, 0.5)
        gg.optim.AdamW(theirs, **options).step()
        assert equal(ours, theirs)


@pytest.mark.parametrize("clip", [None, 0.5])
def test_compiled_step_clips(device, clip):
    eager, compiled = eager_and_compiled(
        lambda: nn.Sequential(nn.Linear(6, 10), nn.Tanh(), nn.Linear(10, 3)).to(device),
        lambda p: gg.optim.AdamW(p, lr=0.01, max_grad_norm=clip),
        lambda: gg.randn(5, 6, device=device),
        6,
    )
    assert eager[0] == pytest.approx(compiled[0], rel=2e-5)
    if clip is not None:
        assert eager[2].grad_norm.item() == pytest.approx(compiled[2].grad_norm.item(), rel=2e-4)


# -- float32 copies ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [gg.float16, gg.bfloat16])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_master_weights_are_the_steps_of_float32(device, name, dtype):
    make = OPTIMIZERS[name]
    half, full = parameters(device, dtype), [p.detach().float().requires_grad_() for p in parameters(device, dtype)]
    a, b = make(half, master_weights=True, max_grad_norm=1.0), make(full, max_grad_norm=1.0)
    for step in range(4):
        gradients(half, step)
        for p, q in zip(half, full, strict=True):
            q.grad = p.grad.float()
        a.step()
        b.step()
    copies = [a.state[p]["master"] for p in half]
    close(copies, full)
    assert all(p.dtype is dtype for p in half) and equal(half, [c.to(dtype) for c in copies])


def test_small_steps_are_not_lost(device):
    """1 + 1e-4 is 1 in bfloat16; a hundred such steps are 1.01 all the same."""
    for master, want in ((True, 1.0078125), (False, 1.0)):
        p = gg.ones(3, dtype=gg.bfloat16, device=device, requires_grad=True)
        optimizer = gg.optim.SGD([p], lr=1e-4, master_weights=master)
        for _ in range(100):
            p.grad = -gg.ones_like(p)
            optimizer.step()
        assert p.tolist() == [want] * 3


def test_master_weights_are_saved_and_loaded(device):
    def run(steps, state=None, start=None):
        params = parameters(device, gg.bfloat16)
        optimizer = gg.optim.AdamW(params, lr=0.01, master_weights=True)
        if state is not None:
            optimizer.load_state_dict(state)
            with gg.no_grad():
                for p, q in zip(params, start, strict=True):
                    p.copy_(q)
        for step in steps:
            gradients(params, step)
            optimizer.step()
        return params, optimizer

    whole, _ = run(range(6))
    half, optimizer = run(range(3))
    state = optimizer.state_dict()
    assert all(t.dtype is gg.float32 for s in state["state"].values() for t in s.values() if isinstance(t, gg.Tensor))
    rest, loaded = run(range(3, 6), state, half)
    assert all(s["master"].dtype is gg.float32 and s["exp_avg"].dtype is gg.float32 for s in loaded.state.values())
    assert equal(whole, rest)


def test_master_weights_leave_wide_parameters_alone(device):
    a, b = both(device, 0)
    first, second = gg.optim.AdamW(a, master_weights=True), gg.optim.AdamW(b)
    first.step()
    second.step()
    assert equal(a, b) and not any("master" in first.state[p] for p in a)


def test_compiled_step_of_half_parameters(device):
    eager, compiled = eager_and_compiled(
        lambda: nn.Linear(8, 4).to(device).to(gg.bfloat16),
        lambda p: gg.optim.AdamW(p, lr=0.01, master_weights=True, max_grad_norm=1.0),
        lambda: gg.randn(5, 8, device=device).to(gg.bfloat16),
        5,
    )
    close(*([o.state[m.weight]["master"]] for _, m, o in (eager, compiled)), rtol=2e-2, atol=2e-3)
