"""Programs that try to catch ``gpugrad.compile`` out: each runs eagerly and compiled, and leaves the same behind."""

from __future__ import annotations

import random
import threading
import types
import warnings

import numpy as np
import pytest

import gpugrad as gg
from gpugrad import nn, optim
from gpugrad.compiler import GraphBreak
from gpugrad.utils.checkpoint import checkpoint

CASES = {}


def case(name):
    """Decorates a program: a function of what compiles (or leaves alone) its functions; returns arrays."""

    def keep(function):
        assert name not in CASES
        CASES[name] = function
        return function

    return keep


def t(x):
    return x.detach().cpu().numpy().copy()


def training_step(net, optimizer, after=lambda: None):
    """A function of a batch: one step that makes what ``net`` gives small."""

    def step(x):
        optimizer.zero_grad()
        loss = net(x).square().mean()
        loss.backward()
        optimizer.step()
        after()
        return loss

    return step


def losses(step, n, width=3, before=lambda i: None, after=lambda: None):
    """What ``n`` batches give, with something done before or after each."""
    found = []
    for i in range(n):
        before(i)
        found.append(t(step(gg.ones(2, width) * (i + 1))))
        after()
    return found


def parameters(net):
    return [t(p) for p in net.parameters()]


@case("state attr")
def rnn_state(C):
    class M(nn.Module):
        def __init__(s):
            super().__init__()
            s.net = nn.Linear(3, 3)
            s.h = gg.zeros(2, 3)

        def forward(s, x):
            s.h = (s.net(x) + s.h).tanh().detach()
            return s.h * 2

    m = M()
    f = C(m.forward)
    return [t(f(gg.ones(2, 3) * i)) for i in range(6)] + [t(m.h)]


@case("buffer iadd")
def buf(C):
    class M(nn.Module):
        def __init__(s):
            super().__init__()
            s.register_buffer("c", gg.zeros(2))

        def forward(s, x):
            s.c += x.sum()
            return s.c * x

    m = M()
    f = C(m.forward)
    return [t(f(gg.ones(2) * i)) for i in range(5)] + [t(m.c)]


@case("buffer reassigned")
def buf2(C):
    class M(nn.Module):
        def __init__(s):
            super().__init__()
            s.register_buffer("c", gg.zeros(2))

        def forward(s, x):
            s.c = s.c * 0.9 + x
            return s.c * x

    m = M()
    f = C(m.forward)
    return [t(f(gg.ones(2) * i)) for i in range(5)] + [t(m.c)]


@case("accumulate with flag")
def accum(C):
    net = nn.Linear(3, 2)
    o = optim.SGD(net.parameters(), lr=0.1)

    def f(x, zero):
        loss = net(x).square().mean() / 2
        loss.backward()
        if zero:
            o.step()
            o.zero_grad()
        return loss

    f = C(f)
    return [t(f(gg.ones(2, 3) * i, i % 2 == 1)) for i in range(8)] + parameters(net)


@case("zero_grad false")
def tonone(C):
    net = nn.Linear(3, 2)
    o = optim.SGD(net.parameters(), lr=0.1)

    def f(x):
        o.zero_grad(set_to_none=False)
        loss = net(x).square().mean()
        loss.backward()
        o.step()
        return loss

    f = C(f)
    return [t(f(gg.ones(2, 3) * i)) for i in range(8)] + [t(p.grad) for p in net.parameters()]


@case("freeze")
def freeze(C):
    net = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2))
    step = C(training_step(net, optim.Adam(net.parameters(), lr=0.1)))

    def before(i):
        if i in (4, 7):
            net[0].requires_grad_(i == 7)

    return losses(step, 10, before=before) + parameters(net)


@case("replace submodule")
def replace(C):
    net = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2))
    f = C(lambda x: net(x))
    r = []
    for i in range(6):
        if i == 3:
            net[1] = nn.Linear(3, 4)
        r.append(t(f(gg.ones(2, 3) * i)))
    return r


@case("add group")
def group(C):
    a, b = nn.Linear(3, 3), nn.Linear(3, 2)
    o = optim.SGD(a.parameters(), lr=0.1, momentum=0.9)
    step = C(training_step(nn.Sequential(a, b), o))

    def before(i):
        if i == 4:
            o.add_param_group({"params": b.parameters(), "lr": 0.01})

    return losses(step, 10, before=before) + parameters(b)


@case("onecycle inside")
def sched(C):
    net = nn.Linear(3, 2)
    o = optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    s = optim.lr_scheduler.OneCycleLR(o, max_lr=0.2, total_steps=12)
    return losses(C(training_step(net, o, after=s.step)), 10) + parameters(net)


@case("onecycle outside")
def sched2(C):
    net = nn.Linear(3, 2)
    o = optim.AdamW(net.parameters(), lr=0.1)
    s = optim.lr_scheduler.OneCycleLR(o, max_lr=0.2, total_steps=12)
    return losses(C(training_step(net, o)), 10, after=s.step) + parameters(net)


@case("tied")
def tied(C):
    e = nn.Linear(4, 4, bias=False)
    d = nn.Linear(4, 4, bias=False)
    d.weight = e.weight
    step = C(training_step(nn.Sequential(e, d), optim.SGD(e.parameters(), lr=0.1)))
    return losses(step, 6, width=4) + [t(e.weight)]


@case("hooks")
def hooks(C):
    net = nn.Linear(3, 2)
    net.register_forward_hook(lambda m, a, o: o * 2)
    net.weight.register_hook(lambda g: g * 3)
    f = C(lambda x: net(x).sum())
    r = []
    for i in range(5):
        net.zero_grad()
        f(gg.ones(2, 3) * (i + 1)).backward()
        r.append(t(net.weight.grad))
    return r


@case("weight_norm")
def wn(C):
    net = nn.utils.parametrizations.weight_norm(nn.Linear(3, 2))
    return losses(C(training_step(net, optim.SGD(net.parameters(), lr=0.1))), 6) + parameters(net)


@case("spectral_norm")
def sn(C):
    net = nn.utils.parametrizations.spectral_norm(nn.Linear(3, 2))
    return losses(C(training_step(net, optim.SGD(net.parameters(), lr=0.1))), 6) + parameters(net)


@case("bn momentum none")
def bn(C):
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2, momentum=None), nn.ReLU())
    f = C(lambda x: net(x))
    r = []
    for i in range(6):
        if i == 3:
            net.eval()
        if i == 4:
            net.train()
        r.append(t(f(gg.rand(2, 1, 5, 5))))
    return r + [t(net[1].running_mean), t(net[1].num_batches_tracked)]


@case("scaler")
def scaler(C):
    net = nn.Linear(3, 2)
    o = optim.SGD(net.parameters(), lr=0.1)
    s = gg.amp.GradScaler("cpu", init_scale=8.0)

    def f(x):
        o.zero_grad()
        with gg.autocast("cpu", dtype=gg.bfloat16):
            loss = net(x).float().square().mean()
        s.scale(loss).backward()
        s.step(o)
        s.update()
        return loss

    f = C(f)
    return [t(f(gg.ones(2, 3) * (i + 1))) for i in range(6)] + parameters(net)


@case("custom function")
def custom(C):
    class Sq(gg.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x * x

        @staticmethod
        def backward(ctx, g):
            (x,) = ctx.saved_tensors
            return g * x * 5

    f = C(lambda x: Sq.apply(x).sum())
    r = []
    for i in range(4):
        x = (gg.ones(3) * i).requires_grad_()
        f(x).backward()
        r.append(t(x.grad))
    return r


@case("checkpoint")
def ckpt(C):
    net = nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.5), nn.Linear(3, 2))
    step = training_step(lambda x: checkpoint(net, x, use_reentrant=False), optim.SGD(net.parameters(), lr=0.1))
    return losses(C(step), 6) + parameters(net)


@case("retain/grad inside")
def retain(C):
    x = gg.rand(3).requires_grad_()

    def f(y):
        a = (x * y).sum()
        a.backward(retain_graph=True)
        a.backward()
        (g,) = gg.autograd.grad((x * x).sum(), x)
        return g

    f = C(f)
    r = []
    for i in range(4):
        r.append(t(f(gg.ones(3) * i)))
        r.append(t(x.grad))
    return r


@case("method instances")
def methods(C):
    class N(nn.Module):
        def __init__(s, k):
            super().__init__()
            s.w = nn.Parameter(gg.full((2,), float(k)))

        def forward(s, x):
            return s.w * x

    N.forward = C(N.forward)
    a, b = N(2), N(3)
    return [t(m(gg.ones(2) * i)) for i in range(5) for m in (a, b)]


@case("exceptions")
def exc(C):
    net = nn.Linear(3, 2)

    def f(x, i):
        y = net(x)
        if i == 1:
            raise ValueError("no")
        return y

    f = C(f)
    r = []
    for i in (1, 0, 1, 0, 0):
        try:
            r.append(t(f(gg.ones(2, 3), i)))
        except ValueError:
            r.append(np.zeros(1))
    return r


@case("dtypes")
def dtypes_(C):
    f = C(lambda x: (x * 2 + 1).sum(0))
    r = []
    for d in (gg.float64, gg.float16, gg.bfloat16, gg.int32, gg.uint8, gg.bool):
        for _ in range(2):
            r.append(f(gg.ones(3, 2, dtype=d)).to(gg.float64).numpy())
    return r


@case("out alias")
def outalias(C):
    def f(x):
        y = x * 2
        return y, y[1:], y

    f = C(f)
    r = []
    for i in range(3):
        a, b, c = f(gg.ones(3) * i)
        b.mul_(10)
        r += [t(a), t(b), np.array([a is c])]
    return r


@case("p.data")
def pdata(C):
    w = nn.Parameter(gg.ones(3))
    f = C(lambda x: x * w)
    r = []
    for i in range(5):
        if i == 2:
            w.data.mul_(2)
        if i == 3:
            w.data = gg.full((3,), 7.0)
        r.append(t(f(gg.ones(3))))
    return r


@case("dict value")
def noargs(C):
    s = {"k": 1.0}
    f = C(lambda x: x * s["k"])
    r = []
    for i in range(4):
        s["k"] = float(i)
        r.append(t(f(gg.ones(2))))
    return r


@case("numpy arg mutated")
def npargs(C):
    f = C(lambda x, a: x * gg.tensor(a))
    r = []
    a = np.ones(2, np.float32)
    for i in range(4):
        a[:] = i
        r.append(t(f(gg.ones(2), a)))
    return r


@case("Python's random numbers")
def pyrand(C):
    random.seed(0)
    f = C(lambda x: x * random.random())
    return [t(f(gg.ones(2))) for i in range(4)]


@case("threads")
def thr(C):
    f = C(lambda x: (x * 2).exp().sum())
    f(gg.ones(50))
    f(gg.ones(50))
    res = [None] * 4

    def w(i):
        for _ in range(200):
            res[i] = t(f(gg.ones(50) * i * 0.01))

    ts = [threading.Thread(target=w, args=(i,)) for i in range(4)]
    [x.start() for x in ts]
    [x.join() for x in ts]
    return res


@case("ema")
def ema(C):
    a, b = nn.Linear(3, 2), nn.Linear(3, 2)

    def f(x):
        with gg.no_grad():
            for p, q in zip(a.parameters(), b.parameters(), strict=True):
                q.mul_(0.9).add_(p, alpha=0.1)
        return b(x)

    f = C(f)
    r = []
    for _ in range(5):
        r.append(t(f(gg.ones(2, 3))))
        with gg.no_grad():
            a.weight.add_(1)
    return r


@case("module dtype moves")
def dev(C):
    net = nn.Linear(3, 2)
    f = C(lambda x: net(x))
    r = [t(f(gg.ones(2, 3))) for _ in range(2)]
    net.double()
    r += [t(f(gg.ones(2, 3, dtype=gg.float64))) for _ in range(2)]
    net.float()
    r += [t(f(gg.ones(2, 3))) for _ in range(2)]
    return r


@case("empty batches")
def empty(C):
    net = nn.Linear(3, 2)
    f = C(lambda x: net(x).relu().sum(0))
    return [t(f(gg.ones(n, 3))) for n in (2, 0, 2, 0, 5)]


class _Slotted:
    __slots__ = ("v",)


class _Config:
    v = 1.0


_slotted, _config, _module = _Slotted(), _Config(), types.ModuleType("settings")
_array, _long, _table = np.ones(2, np.float32), [1.0] * 300, dict.fromkeys(range(300), 1.0)

#: what a function reads, and how it is changed
STATES = {
    "slot": (lambda x: x * _slotted.v, lambda k: setattr(_slotted, "v", k)),
    "attribute of a class": (lambda x: x * _Config.v, lambda k: setattr(_Config, "v", k)),
    "attribute of a class, through an object": (lambda x: x * _config.v, lambda k: setattr(_Config, "v", k)),
    "attribute of a module": (lambda x: x * _module.v, lambda k: setattr(_module, "v", k)),
    "array of NumPy": (lambda x: x * float(_array[0]), _array.fill),
    "long list": (lambda x: x * _long[0], lambda k: _long.__setitem__(0, k)),
    "long dict": (lambda x: x * _table[0], lambda k: _table.__setitem__(0, k)),
    "type of a number": (lambda x: x.int() * _slotted.v, lambda k: setattr(_slotted, "v", int(k) if k < 3 else k)),
}


@pytest.mark.parametrize("what", STATES)
def test_changed_surroundings_are_noticed(what):
    function, change = STATES[what]
    compiled = gg.compile(function)
    x = gg.tensor([1.0, 2.0])
    for k in (1.0, 1.0, 3.0, 1.0):
        change(k)
        got, want = compiled(x), function(x)
        assert got.tolist() == want.tolist() and got.dtype is want.dtype
    assert compiled.traces


def test_arguments_are_told_apart_by_all_of_their_value():
    compiled = gg.compile(lambda x, z: 1 / (x * z))
    for z in (0.0, 0.0, -0.0, 1, 1.0, True):
        got, want = compiled(gg.ones(2), z), compiled.function(gg.ones(2), z)
        assert got.tolist() == want.tolist() and got.dtype is want.dtype
    array = np.ones(2, np.float32)
    compiled = gg.compile(lambda x, a: x * float(a[0]))
    for k in (1, 1, 3):
        array.fill(k)
        assert compiled(gg.ones(1), array).item() == k


def test_hooks_with_effects_run_each_time():
    seen = []
    w = gg.tensor([1.0, 2.0], requires_grad=True)
    w.register_hook(lambda g: seen.append(1))

    def step(x):
        w.grad = None
        (x * w).sum().backward()

    compiled = gg.compile(step)
    with pytest.warns(GraphBreak, match="changes the length"):
        for _ in range(5):
            compiled(gg.ones(2))
    assert len(seen) == 5


def test_large_data_within_reach_is_no_constant():
    data = np.zeros((100, 200), np.float32)
    compiled = gg.compile(lambda x, i: x + float(data[i, 0]))
    with pytest.warns(GraphBreak, match="array of 20000 elements"):
        for k in range(3):
            data[:] = k
            assert compiled(gg.zeros(1), 3).item() == k


def test_small_data_within_reach_is_compared():
    data = np.zeros((100, 2), np.float32)
    compiled = gg.compile(lambda x: x + float(data[3, 0]), fullgraph=True)
    for k in (0, 0, 1, 1, 2):
        data[:] = k
        assert compiled(gg.zeros(1)).item() == k
    assert len(compiled.explain().splitlines()) > 1


@pytest.mark.parametrize("name", CASES)
def test_the_same_is_left_behind(name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", GraphBreak)
        found = []
        for compiling in (lambda f: f, gg.compile):
            gg.manual_seed(0)
            found.append(CASES[name](compiling))
    eager, compiled = found
    assert len(eager) == len(compiled)
    for a, b in zip(compiled, eager, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
