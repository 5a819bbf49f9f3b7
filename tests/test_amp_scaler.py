"""GradScaler beside PyTorch's, step by step: several optimizers, clipping between unscaling and the step, states that
are saved and loaded; and what is read back from the device."""

from __future__ import annotations

import math

import numpy as np
import pytest

import gpugrad as gg

OPTIONS = {"init_scale": 64.0, "growth_factor": 2.0, "backoff_factor": 0.25, "growth_interval": 3}
#: of each step: which of the two optimizers' gradients are not finite (inf, nan), and whether the first is clipped
STEPS = [(), (), ("a",), (), (), ("b",), (), (), (), ("a", "b"), (), (), ()]
CLIPPED = {1, 4, 7, 11}


ALL = range(len(STEPS))


def trained(library, device, steps=ALL, start=None):
    """After each step: scale, count of steps without overflow, all parameters and the moments of the second optimizer.
    ``start``: the states to go on from. Also the states at the end."""
    parameters = {
        name: [
            library.tensor(np.linspace(-1, 1, n, dtype=np.float32) * k, device=device).requires_grad_()
            for k, n in enumerate((3, 5), 1)
        ]
        for name in "ab"
    }
    first = library.optim.SGD(parameters["a"], lr=0.1, momentum=0.9)
    second = library.optim.AdamW(parameters["b"], lr=0.05)
    scaler = library.amp.GradScaler(device, **OPTIONS)
    if start is not None:
        values, states = start
        for p, v in zip([*parameters["a"], *parameters["b"]], values, strict=True):
            with library.no_grad():
                p.copy_(library.tensor(v, device=device))
        for each, state in zip((first, second, scaler), states, strict=True):
            each.load_state_dict(state)
    seen = []
    for i in steps:
        for each in (first, second):
            each.zero_grad()
        loss = 0.0
        for name, bad in (("a", math.inf), ("b", math.nan)):
            factor = bad if name in STEPS[i] else 1.0 + 0.1 * i
            loss = loss + sum(((p * factor) ** 2).sum() for p in parameters[name])
        scaler.scale(loss).backward()
        norm = 0.0
        if i in CLIPPED:
            scaler.unscale_(first)
            norm = float(library.nn.utils.clip_grad_norm_(parameters["a"], 0.5))
        for each in (first, second):
            scaler.step(each)
        scaler.update()
        values = [p.detach().cpu().numpy().copy() for p in (*parameters["a"], *parameters["b"])]
        moments = [s["exp_avg"].detach().cpu().numpy().copy() for s in second.state.values() if "exp_avg" in s]
        state = scaler.state_dict()
        seen.append([np.array([scaler.get_scale(), state["scale"], state["_growth_tracker"], norm]), *values, *moments])
    return seen, (values, [each.state_dict() for each in (first, second, scaler)])


def compare(found, want):
    assert len(found) == len(want)
    for step, (a, b) in enumerate(zip(found, want, strict=True)):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            np.testing.assert_allclose(x, y, rtol=2e-5, atol=1e-6, err_msg=f"step {step}")


def test_step_by_step_as_pytorch(device, torch):
    compare(trained(gg, device)[0], trained(torch, "cpu")[0])


def test_state_goes_on_where_it_was(device):
    whole, _ = trained(gg, device)
    begun, state = trained(gg, device, range(5))
    rest, _ = trained(gg, device, range(5, len(STEPS)), state)
    compare([*begun, *rest], whole)


def test_states_are_those_of_pytorch(torch):
    ours, theirs = trained(gg, "cpu")[1][1][2], trained(torch, "cpu")[1][1][2]
    assert ours == theirs
    for library in (torch, gg):
        scaler = library.amp.GradScaler("cpu")
        scaler.load_state_dict(ours)
        assert scaler.state_dict() == ours


def test_one_optimizer_steps_while_the_other_is_left_out(device):
    a, b = (gg.ones(3, device=device, requires_grad=True) for _ in range(2))
    first, second = gg.optim.AdamW([a], lr=0.5), gg.optim.SGD([b], lr=0.5)
    scaler = gg.amp.GradScaler(device, init_scale=8.0)
    scaler.scale((a * math.inf).sum() + (b * 2.0).sum()).backward()
    assert scaler.step(first) is None
    scaler.step(second)
    assert a.tolist() == [1.0] * 3 and not first.state
    assert b.tolist() == [0.0] * 3
    scaler.update()
    assert scaler.get_scale() == 4.0


@pytest.mark.parametrize("overflow", [False, True])
def test_gradients_are_checked_on_the_device(device, overflow, monkeypatch):
    """However many gradients there are, a step reads one flag back, and ``update`` none."""
    params = [gg.ones(n, device=device, requires_grad=True) for n in (2, 3, 1000, 7, 1)]
    optimizer = gg.optim.SGD(params, lr=0.1)
    scaler = gg.amp.GradScaler(device, init_scale=4.0)
    loss = sum((p * (k + 1.0)).sum() for k, p in enumerate(params))
    scaler.scale(loss * math.inf if overflow else loss).backward()
    backend = params[0]._backend
    read = []
    original = type(backend).to_host

    def to_host(self, array):
        read.append(tuple(array.shape))
        return original(self, array)

    monkeypatch.setattr(type(backend), "to_host", to_host)
    scaler.unscale_(optimizer)
    assert not read
    scaler.step(optimizer)
    scaler.update()
    assert read == [()]
    monkeypatch.undo()
    assert scaler.get_scale() == (2.0 if overflow else 4.0)
    assert params[3].tolist() == ([1.0] * 7 if overflow else pytest.approx([0.6] * 7))


def test_overflow_in_float16_itself(device):
    """The loss is finite and the scaled gradient of a float16 activation is not: the step is left out, and the scale
    falls until it is finite."""
    w = gg.tensor([2.0], device=device, requires_grad=True)
    optimizer = gg.optim.SGD([w], lr=1e-4)
    scaler = gg.amp.GradScaler(device, init_scale=2.0**16)
    taken = []
    for _ in range(10):
        optimizer.zero_grad()
        y = (w.half() * 4.0).float().square().sum()  # its gradient is 16 times 4
        scaler.scale(y).backward()
        before = w.item()
        scaler.step(optimizer)
        scaler.update()
        taken.append(w.item() != before)
    assert taken[0] is False and taken[-1] is True
    assert taken == sorted(taken)
    assert w.grad.isfinite().all()
