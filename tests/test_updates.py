"""Steps of optimizers in one pass: as the plain definitions, for any layout, counted, and the same on any number of
threads; clipping; numbers that change from step to step."""

from __future__ import annotations

import math

import numpy as np
import pytest

import gpugrad as gg
from gpugrad import live, nn, optim
from gpugrad.ops import updates

#: every step there is, with every option that changes what is done
STEPS = {
    "sgd": lambda p: optim.SGD(p, lr=0.1),
    "sgd_decay": lambda p: optim.SGD(p, lr=0.1, weight_decay=0.1, maximize=True),
    "sgd_momentum": lambda p: optim.SGD(p, lr=0.1, momentum=0.9, dampening=0.5),
    "sgd_nesterov": lambda p: optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.1),
    "adam": lambda p: optim.Adam(p, lr=0.1),
    "adam_decay": lambda p: optim.Adam(p, lr=0.1, weight_decay=0.1, amsgrad=True),
    "adamw": lambda p: optim.AdamW(p, lr=0.1, weight_decay=0.1),
    "adamw_amsgrad": lambda p: optim.AdamW(p, lr=0.1, amsgrad=True, maximize=True),
    "nadam": lambda p: optim.NAdam(p, lr=0.1),
    "nadam_decay": lambda p: optim.NAdam(p, lr=0.1, weight_decay=0.1),
    "nadam_decoupled": lambda p: optim.NAdam(p, lr=0.1, weight_decay=0.1, decoupled_weight_decay=True),
    "adamax": lambda p: optim.Adamax(p, lr=0.1, weight_decay=0.1),
    "rmsprop": lambda p: optim.RMSprop(p, lr=0.1),
    "rmsprop_all": lambda p: optim.RMSprop(p, lr=0.1, momentum=0.5, centered=True, weight_decay=0.1, maximize=True),
    "adagrad": lambda p: optim.Adagrad(p, lr=0.1, lr_decay=0.1, weight_decay=0.1),
    "adadelta": lambda p: optim.Adadelta(p, lr=0.5, weight_decay=0.1),
}

#: tensors in the state of a parameter, where that is not two
STATES = {"sgd": 0, "sgd_decay": 0, "sgd_momentum": 1, "sgd_nesterov": 1, "adagrad": 1, "rmsprop": 1,
          "adam_decay": 3, "adamw_amsgrad": 3, "rmsprop_all": 3}  # fmt: skip

SHAPES = [(3,), (), (2, 5), (0, 4), (4, 1, 3), (7, 1000), (33,), (5000,)]


def parameters(device, shapes=SHAPES, dtype="float32"):
    """Leaves with gradients; those of two dimensions lie in memory by columns, every third gradient by rows."""
    rng = np.random.default_rng(5)
    result = []
    for i, shape in enumerate(shapes):
        start, gradient = (gg.tensor(rng.normal(size=shape[::-1]).astype(dtype), device=device) for _ in range(2))
        p = start.permute(*range(len(shape))[::-1]).detach().requires_grad_()
        g = gradient.permute(*range(len(shape))[::-1])
        p.grad = g.contiguous() if i % 3 else g
        result.append(p)
    return result


def everything(o, ps):
    """Parameters and state after some steps, as arrays."""
    found = [p.detach().cpu().numpy() for p in ps]
    for p in ps:
        found += [v.cpu().numpy() for v in o.state.get(p, {}).values() if isinstance(v, gg.Tensor)]
    return found


def steps(name, ps, count=3):
    o = STEPS[name](ps)
    for _ in range(count):
        o.step()
    return everything(o, ps)


def without_offers(monkeypatch, device):
    backend = gg.zeros(1, device=device)._backend
    monkeypatch.setattr(backend, "offer", lambda name: None)


@pytest.mark.parametrize("name", list(STEPS))
def test_offered_steps_equal_plain_ones(name, device, monkeypatch):
    offered = steps(name, parameters(device))
    with monkeypatch.context() as patch:
        without_offers(patch, device)
        plain = steps(name, parameters(device))
    assert len(offered) == len(plain) == len(SHAPES) * (1 + STATES.get(name, 2))
    for a, b in zip(offered, plain, strict=True):
        np.testing.assert_allclose(a, b, rtol=3e-6, atol=1e-7)
    start = [p.detach().cpu().numpy() for p in parameters(device)]
    assert all(not a.size or np.abs(a - b).max() > 1e-3 for a, b in zip(offered, start, strict=False))


def test_routines_are_offered_by_the_cpu_and_by_kernels():
    assert all(gg.zeros(1, device="cpu")._backend.offer(name) is not None for name in updates.ROUTINES)
    if gg.is_available("opencl"):
        assert gg.zeros(1, device="opencl")._backend.offer("update") is not None


@pytest.mark.parametrize("name", ["sgd_momentum", "adamw", "adadelta"])
def test_large_steps_are_the_same_for_any_number_of_threads(name):
    shapes = [(700, 700), (30, 11), (300_001,), (5,), (8, 2), (3,)]
    before, ends = gg.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            gg.set_num_threads(threads)
            ends.append(steps(name, parameters("cpu", shapes)))
    finally:
        gg.set_num_threads(before)
    for end in ends[1:]:
        for a, b in zip(ends[0], end, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("dtype", ["float64", "float16", "bfloat16"])
def test_other_dtypes_and_mixed_groups(dtype, device):
    """In one group with float32: each parameter takes its own way to nearly the same numbers."""
    if dtype == "float64" and not gg.zeros(1, device=device)._backend.supports(np.dtype("f8")):
        pytest.skip("this device has no float64")
    for name in ("adamw", "sgd_nesterov", "rmsprop_all"):
        ps = parameters(device, [(3, 4), (7,)])
        qs = [p.detach().to(getattr(gg, dtype)).requires_grad_() for p in ps]
        for p, q in zip(ps, qs, strict=True):
            q.grad = p.grad.to(q.dtype)
        o = STEPS[name]([ps[0], qs[0], ps[1], qs[1]])
        for _ in range(2):
            o.step()
        for p, q in zip(ps, qs, strict=True):
            assert q.dtype is getattr(gg, dtype)
            tolerance = {"float64": 2e-6, "float16": 5e-3, "bfloat16": 5e-2}[dtype]
            a, b = p.detach().cpu().numpy(), q.detach().float().cpu().numpy()
            np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


def test_parameters_that_join_later(torch):
    """Their steps are counted from their first gradient on, and their first momentum is that gradient."""
    for kind, options in (("Adam", {}), ("SGD", {"momentum": 0.9, "dampening": 0.5}), ("NAdam", {})):
        ends = []
        for t in (gg, torch):
            a, b = (t.tensor([1.0, -2.0], dtype=t.float64).requires_grad_() for _ in range(2))
            o = getattr(t.optim, kind)([a, b], lr=0.1, **options)
            for i in range(5):
                o.zero_grad()
                ((a**2).sum() if i < 2 else (a**2).sum() + (b**3).sum()).backward()
                o.step()
            ends.append([*a.tolist(), *b.tolist()])
        np.testing.assert_allclose(ends[0], ends[1], rtol=1e-7)  # PyTorch keeps NAdam's product in float32


def test_a_step_counts_as_a_write(device):
    w = gg.ones(3, device=device).requires_grad_()
    for o in (optim.SGD([w], lr=0.1, momentum=0.9), optim.AdamW([w], lr=0.1)):
        y = (w * w).sum()
        w.grad = gg.ones(3, device=device)
        o.step()
        with pytest.raises(RuntimeError, match="step"):
            y.backward()


def test_parameters_that_share_memory_are_stepped_one_after_the_other(device):
    memory = gg.arange(6.0, device=device)
    ps = [memory[:4].detach().requires_grad_(), memory[2:].detach().requires_grad_()]
    for p in ps:
        p.grad = gg.ones(4, device=device)
    optim.SGD(ps, lr=0.5, weight_decay=0.5).step()
    expected = np.arange(6.0)
    for part in (slice(0, 4), slice(2, 6)):
        expected[part] -= 0.5 * (1 + 0.5 * expected[part])
    np.testing.assert_allclose(memory.cpu().numpy(), expected, rtol=1e-6)


def test_extremes(device):
    """NaN and infinities go where the formulas put them, and only there."""
    p = gg.tensor([1.0, math.inf, math.nan, 2.0, 3.0], device=device).requires_grad_()
    p.grad = gg.tensor([math.nan, 1.0, 1.0, math.inf, 0.0], device=device)
    o = optim.AdamW([p], lr=0.1)
    o.step()
    got = p.detach().cpu().numpy()
    assert np.isnan(got[[0, 2, 3]]).all() and np.isposinf(got[1]) and got[4] == pytest.approx(3 * 0.999)


# -- numbers that change from step to step ------------------------------------------------------


class Recorder:
    """Stands in for the compiler: computing with its numbers is an error."""

    def __init__(self):
        self.functions = []

    def live(self, function):
        self.functions.append(function)
        return tuple(live.mark(value, i) for i, value in enumerate(function()))

    def broken(self, reason):
        raise AssertionError(reason)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("name", list(STEPS))
def test_live_numbers_reach_the_backend_as_they_are(name, dtype, monkeypatch):
    ends = []
    for recorded in (False, True):
        ps = [p.detach().to(getattr(gg, dtype)).requires_grad_() for p in parameters("cpu", [(3,), (2, 5)])]
        for p in ps:
            p.grad = gg.ones(*p.shape, dtype=p.dtype)
        o = STEPS[name](ps)
        with monkeypatch.context() as patch:
            without_offers(patch, "cpu")
            if recorded:
                patch.setattr(live, "recorder", Recorder())
            for _ in range(3):
                o.step()
            if recorded:
                assert len(live.recorder.functions) == 3  # one for each step of the group
        ends.append(everything(o, ps))
    for a, b in zip(*ends, strict=True):
        np.testing.assert_array_equal(a, b)


def test_repeated_live_functions_give_the_numbers_of_the_next_steps(monkeypatch):
    """As a compiled step does: the first step's functions, called again, count on and see changed options."""
    p, q = parameters("cpu", [(3,), (3,)])
    first, other = optim.AdamW([p], lr=0.1), optim.AdamW([q], lr=0.1)
    recorder = Recorder()
    with monkeypatch.context() as patch:
        patch.setattr(live, "recorder", recorder)
        without_offers(patch, "cpu")
        first.step()
    other.step()
    seen = []
    run = updates.run
    monkeypatch.setattr(
        updates, "run", lambda update, columns, numbers: seen.append(numbers) or run(update, columns, numbers)
    )
    for lr in (0.1, 0.01, 0.5):
        first.param_groups[0]["lr"] = other.param_groups[0]["lr"] = lr
        other.step()
        assert recorder.functions[0]() == seen[-1]
    assert first.state[p]["step"] == other.state[q]["step"] == 4


def test_which_steps_can_be_compiled():
    class Mine(optim.Adam):
        def step(self, closure=None):
            return super().step(closure)

    assert all(k.traceable for k in (optim.SGD, optim.Adam, optim.AdamW, optim.NAdam, optim.RMSprop, optim.Rprop))
    assert not any(k.traceable for k in (optim.Optimizer, optim.RAdam, optim.ASGD, optim.LBFGS, Mine))


# -- clipping ----------------------------------------------------------------------------------------


def test_clipping_equals_its_definition(device, monkeypatch):
    for largest in (1e6, 3.0):
        found = []
        for plain in (False, True):
            ps = parameters(device)
            with monkeypatch.context() as patch:
                if plain:
                    without_offers(patch, device)
                norm = nn.utils.clip_grad_norm_(ps, largest)
            found.append([norm.cpu().numpy(), *[p.grad.cpu().numpy() for p in ps]])
        for a, b in zip(*found, strict=True):
            np.testing.assert_allclose(a, b, rtol=2e-6)
        before = np.concatenate([p.grad.cpu().numpy().reshape(-1) for p in parameters(device)]).astype(np.float64)
        exact = np.sqrt((before**2).sum())
        assert found[0][0] == pytest.approx(exact, rel=1e-6)
        after = np.sqrt(sum((g.astype(np.float64) ** 2).sum() for g in found[0][1:]))
        assert after == pytest.approx(min(exact, largest), rel=1e-5)


def test_clipping_many_elements_and_shared_gradients():
    p = gg.zeros(3_000_000).requires_grad_()
    p.grad = gg.full((3_000_000,), 0.1)
    assert nn.utils.clip_grad_norm_([p], 1e9).item() == pytest.approx(0.1 * math.sqrt(3e6), rel=1e-6)
    a, b = gg.ones(2).requires_grad_(), gg.ones(2).requires_grad_()
    a.grad = b.grad = gg.tensor([3.0, 4.0])
    saved = a.grad
    version = saved._storage.version if saved._storage else 0
    norm = nn.utils.clip_grad_norm_([a, b], 1.0).item()
    assert norm == pytest.approx(math.sqrt(50))
    np.testing.assert_allclose(saved.numpy(), np.array([3.0, 4.0]) / 50, rtol=1e-5)  # once for each parameter
    assert saved._storage.version == version + 2
    with pytest.raises(RuntimeError, match="non-finite norm"):
        a.grad = gg.tensor([math.nan, 1.0])
        nn.utils.clip_grad_norm_([a], 1.0, error_if_nonfinite=True)


def many_gradients(device, dtype=np.float32):
    """Forty parameters: of all sizes, none and a single element too, with gradients of all kinds of strides."""
    rng = np.random.default_rng(4)
    ps = []
    for i in range(40):
        shape = [(7, 5 + i), (), (0, 3), (4096 + i,), (2, 3, 17)][i % 5]
        p = gg.zeros(shape, device=device, dtype=getattr(gg, np.dtype(dtype).name)).requires_grad_()
        host = rng.standard_normal((*shape, 2)).astype(dtype)
        g = gg.tensor(host, device=device)
        if i % 3 == 0:
            p.grad = g[..., 1]  # with gaps
        elif i % 3 == 1 and len(shape) == 2:
            p.grad = gg.tensor(np.ascontiguousarray(host[..., 0].T), device=device).t()
        else:
            p.grad = gg.cat([g.reshape(-1)[:1], g[..., 0].reshape(-1)])[1:].reshape(shape)  # not aligned
        ps.append(p)
    return ps


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("largest", [1e9, 1.0])
def test_clipping_many_tensors(device, dtype, largest):
    if not gg.zeros(1, device=device)._backend.supports(np.dtype(dtype)):
        pytest.skip("no such dtype here")
    found = []
    for _ in range(2):
        ps = many_gradients(device, dtype)
        before = [p.grad.cpu().numpy().astype(np.float64) for p in ps]
        norm = nn.utils.clip_grad_norm_(ps, largest)
        exact = np.sqrt(sum((g**2).sum() for g in before))
        assert norm.item() == pytest.approx(exact, rel=1e-6)
        after = [p.grad.cpu().numpy() for p in ps]
        for a, b in zip(after, before, strict=True):
            np.testing.assert_allclose(a, b * min(1, largest / (exact + 1e-6)), rtol=3e-6)
        found.append([norm.cpu().numpy(), *after])
    for a, b in zip(*found, strict=True):
        np.testing.assert_array_equal(a, b)
    assert nn.utils.clip_grad_norm_([p for p in ps if not p.numel()], 1.0).item() == 0.0


def test_norms_of_many_equal_numbers(device):
    """Where rounding goes one way all the time."""
    p = gg.zeros(3_000_001, device=device).requires_grad_()
    p.grad = gg.full((3_000_001,), 0.1, device=device)
    assert nn.utils.clip_grad_norm_([p], 1e9).item() == pytest.approx(0.1 * math.sqrt(3e6), rel=1e-6)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_norms_of_what_is_not_finite(device, bad):
    ps = many_gradients(device)
    with gg.no_grad():
        ps[3].grad[4000] = bad
    norm = nn.utils.clip_grad_norm_(ps, 1.0).item()
    assert math.isnan(norm) if math.isnan(bad) else norm == math.inf


def test_clipping_takes_a_handful_of_launches(device, monkeypatch):
    backend = gg.zeros(1, device=device)._backend
    if not hasattr(backend, "_launch"):
        pytest.skip("there are no launches here")
    ps = [gg.zeros(300 + i, device=device).requires_grad_() for i in range(40)]
    for p in ps:
        p.grad = gg.ones_like(p)
    launch, count = backend._launch, []
    monkeypatch.setattr(backend, "_launch", lambda *args: (count.append(1), launch(*args))[1])
    read = backend._read
    monkeypatch.setattr(backend, "_read", lambda *args: pytest.fail("a value was read back"))
    norm = nn.utils.clip_grad_norm_(ps, 1.0)
    assert len(count) <= 3 + 3 + 6  # forty tensors are three launches, and the factor is a few more
    optimizer = optim.AdamW(ps, max_grad_norm=1.0)
    optimizer.step()  # which also makes the state
    count.clear()
    optimizer.step()
    assert len(count) <= 40 + 3 + 6
    monkeypatch.setattr(backend, "_read", read)
    assert norm.item() == pytest.approx(math.sqrt(sum(300 + i for i in range(40))), rel=1e-6)
    assert optimizer.grad_norm.item() == pytest.approx(1.0, rel=1e-5)
