"""``gpugrad.compile``: what is traced, when it is run again, and when not."""

from __future__ import annotations

import gc
import warnings
import weakref

import numpy as np
import pytest

import gpugrad as gg
import gpugrad.nn.functional as F
from gpugrad import nn, optim
from gpugrad.compiler import GraphBreak
from tests.test_programs import PROGRAMS, load, modules_of


@pytest.fixture(autouse=True)
def _default(request):
    """New tensors go to the device under test."""
    before = gg.get_default_device()
    if "device" in request.fixturenames and "path" not in request.fixturenames:
        gg.set_default_device(request.getfixturevalue("device"))
    yield
    gg.set_default_device(before)


def close(a, b, tolerance=1e-5):
    np.testing.assert_allclose(a.detach().cpu().numpy(), b.detach().cpu().numpy(), rtol=tolerance, atol=tolerance)


def mlp():
    return nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 8), nn.GELU(), nn.Linear(8, 2))


def steps(make_optimizer, compiled, model=mlp, n=6, change_lr=True, clip=False):
    """Losses and final parameters of a few steps."""
    gg.manual_seed(3)
    net = model()
    optimizer = make_optimizer(net.parameters())

    def step(x, y):
        optimizer.zero_grad()
        loss = F.cross_entropy(net(x), y)
        loss.backward()
        if clip:
            nn.utils.clip_grad_norm_(net.parameters(), 0.1)
        optimizer.step()
        return loss

    fn = gg.compile(step, fullgraph=True) if compiled else step
    rng = np.random.default_rng(0)
    losses = []
    for i in range(n):
        x = gg.tensor(rng.standard_normal((5, 3)).astype(np.float32))
        y = gg.tensor(rng.integers(0, 2, 5))
        losses.append(fn(x, y).item())
        if change_lr and i == 3:
            optimizer.param_groups[0]["lr"] *= 0.1
    return losses, [p.detach().cpu().numpy() for p in net.parameters()], fn


OPTIMIZERS = {
    "sgd": lambda p: optim.SGD(p, lr=0.1),
    "momentum": lambda p: optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01),
    "adam": lambda p: optim.Adam(p, lr=0.01),
    "adamw": lambda p: optim.AdamW(p, lr=0.01, weight_decay=0.1),
    "rmsprop": lambda p: optim.RMSprop(p, lr=0.01),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_step_as_in_eager(name, device):
    eager_losses, eager, _ = steps(OPTIMIZERS[name], False)
    losses, weights, fn = steps(OPTIMIZERS[name], True)
    np.testing.assert_allclose(losses, eager_losses, rtol=1e-5)
    for a, b in zip(weights, eager, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    assert len(fn.traces) >= 1, "the step was never replayed"


def test_clipping_inside(device):
    eager, _, _ = steps(OPTIMIZERS["sgd"], False, clip=True)
    losses, _, fn = steps(OPTIMIZERS["sgd"], True, clip=True)
    np.testing.assert_allclose(losses, eager, rtol=1e-5)
    assert fn.traces


def test_a_loaded_optimizer_is_seen(device):
    """load_state_dict replaces options and state, which a program reads its numbers from."""

    def losses(compiled):
        gg.manual_seed(0)
        net = nn.Linear(3, 2)
        optimizer = optim.Adam(net.parameters(), lr=0.1)

        def step(x):
            optimizer.zero_grad()
            loss = net(x).square().sum()
            loss.backward()
            optimizer.step()
            return loss

        fn = gg.compile(step, fullgraph=True) if compiled else step
        x = gg.ones(4, 3)
        found = [fn(x).item() for _ in range(4)]
        optimizer.load_state_dict(optimizer.state_dict())
        optimizer.param_groups[0]["lr"] = 0.3
        found += [fn(x).item() for _ in range(4)]
        optimizer.param_groups[0]["betas"] = (0.5, 0.6)
        return found + [fn(x).item() for _ in range(4)]

    np.testing.assert_allclose(losses(True), losses(False), rtol=1e-5)


def test_python_runs_only_while_tracing():
    calls = []

    @gg.compile
    def f(x):
        calls.append(1)
        return x * 2

    del calls[:]
    # The list is reachable and grows: a change that replaying would leave out, so the function stays eager.
    with pytest.warns(GraphBreak, match="changes the length of a list"):
        for _ in range(4):
            f(gg.ones(3))
    assert len(calls) == 4
    runs = [0]

    def count():
        runs[0] += 1

    class Silent:
        def __call__(self):
            count()

    g = gg.compile(lambda x: x + 1)
    assert g(gg.zeros(2)).tolist() == [1, 1]
    assert g(gg.ones(2)).tolist() == [2, 2]
    assert len(g.traces) == 1


def test_new_shapes_dtypes_and_numbers_are_traced_anew(device):
    f = gg.compile(lambda x, k: (x * k).sum(0))
    for shape in ((3, 2), (4, 2), (3, 2)):
        x = gg.rand(shape)
        close(f(x, 2.0), (x * 2.0).sum(0))
    close(f(gg.ones(3, 2), 5.0), gg.full((2,), 15.0))
    assert len(f.traces) == 3
    assert f(gg.ones(3, 2, dtype=gg.int64), 2).tolist() == [6, 6]
    assert len(f.traces) == 4
    x = gg.rand(2, 3).t()  # another layout
    close(f(x, 2.0), (x * 2.0).sum(0))
    assert len(f.traces) == 5


def test_too_many_kinds_of_arguments():
    f = gg.compile(lambda x, k: x * k)
    with pytest.warns(GraphBreak, match="keep changing"):
        for k in range(30):
            assert f(gg.ones(2), float(k)).tolist() == [k, k]


def test_gradients_outside(device):
    net = mlp()
    compiled = gg.compile(net)
    for _ in range(3):
        x = gg.rand(4, 3, requires_grad=True)
        loss = compiled(x).square().mean()
        loss.backward()
        got = [p.grad.clone() for p in net.parameters()] + [x.grad.clone()]
        net.zero_grad()
        x.grad = None
        net(x).square().mean().backward()
        for a, b in zip(got, [p.grad for p in net.parameters()] + [x.grad], strict=True):
            close(a, b)
        net.zero_grad()
    assert len(compiled._compiled.traces) == 1


def test_gradients_of_an_intermediate_argument_go_on(device):
    w = gg.rand(3, requires_grad=True)
    f = gg.compile(lambda a, b: (a * b, a + b))
    for _ in range(3):
        w.grad = None
        h = (w * 2).exp()
        p, q = f(h, w)
        (p.sum() + (q * 3).sum()).backward()
        got = w.grad.clone()
        w.grad = None
        h = (w * 2).exp()
        ((h * w).sum() + ((h + w) * 3).sum()).backward()
        close(got, w.grad)
    p, q = f((w * 2).exp(), w)  # only one of the results is used
    w.grad = None
    q.sum().backward()
    got = w.grad.clone()
    w.grad = None
    ((w * 2).exp() + w).sum().backward()
    close(got, w.grad)


def test_the_graph_is_freed_and_can_be_kept(device):
    x = gg.rand(3, requires_grad=True)
    f = gg.compile(lambda x: (x * x).sum())
    for _ in range(2):
        y = f(x)
        y.backward(retain_graph=True)
        y.backward()
        with pytest.raises(RuntimeError, match="retain_graph"):
            y.backward()
        close(x.grad, 4 * x)
        x.grad = None
    with pytest.raises(RuntimeError, match="cannot be differentiated again"):
        gg.autograd.grad(f(x), x, create_graph=True)


def test_equal_gradients_do_not_share_memory(device):
    a, b = gg.rand(3, requires_grad=True), gg.rand(3, requires_grad=True)
    f = gg.compile(lambda: (a + b).sum())
    for _ in range(2):
        f().backward()
        a.grad.mul_(5)
        assert b.grad.tolist() == [1, 1, 1]
        a.grad = b.grad = None


def test_changing_a_saved_value_is_found(device):
    w = gg.rand(3, requires_grad=True)
    f = gg.compile(lambda x: (x * w).sum())
    x = gg.rand(3, requires_grad=True)
    f(x).backward()
    y = f(x)
    with gg.no_grad():
        w.mul_(2)
    with pytest.raises(RuntimeError, match="changed in place by mul_"):
        y.backward()


def test_reading_a_value_is_eager_and_names_the_line(device):
    def f(x):
        if x.sum() > 0:  # the line
            return x * 2
        return x - 1

    compiled = gg.compile(f)
    with pytest.warns(GraphBreak, match=r"test_compile\.py:\d+ reads the values of a tensor"):
        assert compiled(gg.ones(2)).tolist() == [2, 2]
    assert compiled(-gg.ones(2)).tolist() == [-2, -2]
    assert "runs eagerly" in compiled.explain()
    with pytest.raises(RuntimeError, match="reads the values"):
        gg.compile(f, fullgraph=True)(gg.ones(2))


@pytest.mark.parametrize(
    ("f", "why"),
    [
        (lambda x: x * float(x.sum()), "reads the values"),
        (lambda x: gg.tensor(x.numpy() + 1), "NumPy|reads the values"),
        (lambda x: x[x > 0].sum(), "depends on values|reads the values"),
        (lambda x: x + gg.from_numpy(np.ones(2, np.float32)), "not found from its arguments"),
        (lambda x: x + gg.tensor(np.ones((100, 2), np.float32)), "values of Python or NumPy"),
        (lambda x: gg.manual_seed(1) and x * 1, "random"),
    ],
)
def test_what_cannot_be_repeated(f, why):
    compiled = gg.compile(f)
    with pytest.warns(GraphBreak, match=why):
        first = compiled(gg.ones(2))
    close(first, f(gg.ones(2)))
    close(compiled(gg.ones(2) * 3), f(gg.ones(2) * 3))


def test_random_draws_go_on_as_in_eager(device):
    f = gg.compile(lambda x: (F.dropout(x, 0.5) + gg.rand_like(x)) * gg.randn(4))
    x = gg.ones(3, 4)
    gg.manual_seed(5)
    eager = [f.function(x) for _ in range(4)]
    gg.manual_seed(5)
    for expected in eager:
        close(f(x), expected)
    assert len(f.traces) == 1
    assert gg.default_generator.get_state()[1] == 3 * 4


def test_training_mode_is_a_condition(device):
    net = nn.Sequential(nn.BatchNorm1d(3), nn.Dropout(0.5))
    compiled = gg.compile(net)
    x = gg.rand(6, 3)
    mean = [net[0].running_mean.clone()]
    for _ in range(3):
        compiled(x)
        mean.append(net[0].running_mean.clone())
    assert not np.allclose(mean[2].cpu().numpy(), mean[3].cpu().numpy()), "the running mean goes on"
    compiled.eval()
    close(compiled(x), net(x))
    close(compiled(x), net(x))
    assert int(net[0].num_batches_tracked.item()) == 3
    other = nn.BatchNorm1d(3)
    for _ in range(3):
        other(x)
    close(net[0].running_var, other.running_var)


def test_replaced_parameters_and_values_are_noticed(device):
    net = nn.Linear(3, 2)
    scale = [2.0]
    f = gg.compile(lambda x: net(x) * scale[0])
    x = gg.rand(4, 3)
    for _ in range(2):
        close(f(x), net(x) * 2)
    net.weight.data = gg.rand(2, 3)
    close(f(x), net(x) * 2)
    net.bias = nn.Parameter(gg.rand(2))
    close(f(x), net(x) * 2)
    scale[0] = 3.0
    close(f(x), net(x) * 3)
    net.load_state_dict({"weight": gg.ones(2, 3), "bias": gg.zeros(2)})  # in place: no new trace
    n = len(f.traces)
    close(f(x), net(x) * 3)
    assert len(f.traces) == n


def test_arguments_that_share_memory(device):
    f = gg.compile(lambda a, b: a.mul_(2) + b)
    a, b = gg.ones(3), gg.ones(3)
    assert f(a, b).tolist() == [3, 3, 3]
    assert f(a, b).tolist() == [5, 5, 5]
    assert f(a, a).tolist() == [16, 16, 16]
    both = gg.ones(4)
    with pytest.warns(GraphBreak, match="share memory"):
        assert f(both[:3], both[1:]).tolist() == [4, 4, 3]
    assert both.tolist() == [2, 2, 2, 1]


def test_in_place_writes_count_as_such(device):
    x = gg.ones(3)
    f = gg.compile(lambda x: x.add_(1))
    for i in range(3):
        assert f(x) is x
        assert x.tolist() == [i + 2] * 3
        assert x._version == i + 1


def test_results_are_new_each_time(device):
    f = gg.compile(lambda x: (x + 1, {"twice": x * 2, "none": None}, [x.sum(), 3]))
    first = f(gg.ones(3))
    second = f(gg.zeros(3))
    third = f(gg.full((3,), 5.0))
    assert first[0].tolist() == [2, 2, 2] and first[1]["twice"].tolist() == [2, 2, 2] and first[2][0].item() == 3
    assert second[0].tolist() == [1, 1, 1] and second[2] == [second[2][0], 3] and second[1]["none"] is None
    assert third[1]["twice"].tolist() == [10, 10, 10]


def test_gradients_that_are_kept_stay(device):
    """A gradient that somebody holds on to is not overwritten by the next run."""
    net = nn.Linear(3, 2)

    def step(x):
        net.zero_grad()
        net(x).sum().backward()

    f = gg.compile(step)
    kept = []
    for i in range(5):
        f(gg.full((1, 3), float(i)))
        kept.append(net.weight.grad if i % 2 else net.weight.grad.detach())
    for i, g in enumerate(kept):
        assert g.tolist() == [[i] * 3] * 2


def test_accumulating_gradients(device):
    net = nn.Linear(3, 1, bias=False)
    f = gg.compile(lambda x: net(x).sum().backward())
    for i in range(1, 5):
        f(gg.ones(2, 3))
        assert net.weight.grad.tolist() == [[2.0 * i] * 3]


def test_a_view_of_an_argument_is_returned():
    f = gg.compile(lambda x: x[1:])
    x = gg.arange(4)
    with pytest.warns(GraphBreak, match="not its own"):
        y = f(x)
    y[0] = 9
    assert x.tolist() == [0, 9, 2, 3]


def test_constants(device):
    f = gg.compile(lambda x: x * gg.tensor([1.0, 2.0]) + gg.zeros(2) + gg.arange(2))
    for _ in range(3):
        assert f(gg.ones(2)).tolist() == [1, 3]
    assert len(f.traces) == 1


def test_modes_are_conditions(device):
    x = gg.rand(3, requires_grad=True)
    f = gg.compile(lambda x: x * 2)
    assert f(x).requires_grad and f(x).requires_grad
    with gg.no_grad():
        assert not f(x).requires_grad
    assert f(x).requires_grad


def test_errors_pass_through():
    @gg.compile
    def f(x, y):
        return x @ y

    with pytest.raises(RuntimeError, match="matmul"):
        f(gg.ones(2, 3), gg.ones(2, 3))
    close(f(gg.ones(2, 3), gg.ones(3, 2)), gg.full((2, 2), 3.0))
    close(f(gg.ones(2, 3), gg.ones(3, 2)), gg.full((2, 2), 3.0))


def test_a_bad_index_is_still_an_error(device):
    table = gg.rand(4, 3)
    f = gg.compile(lambda i: F.embedding(i, table) * 2)
    close(f(gg.tensor([1, 2])), table[1:3] * 2)
    close(f(gg.tensor([0, 3])), table[gg.tensor([0, 3])] * 2)
    with pytest.raises(IndexError):
        f(gg.tensor([0, 4])).tolist()


def test_decorator_module_method_and_disable():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.lin = nn.Linear(2, 2)

        @gg.compile
        def forward(self, x):
            return self.lin(x).relu()

    net = Net()
    x = gg.rand(3, 2)
    close(net(x), net.lin(x).relu())
    close(net(x), net.lin(x).relu())
    compiled = gg.compile(net.lin)
    assert list(compiled.state_dict()) == ["weight", "bias"]
    assert compiled.in_features == 2
    assert gg.compile(fullgraph=True)(lambda x: x + 1)(gg.ones(1)).item() == 2
    off = gg.compile(lambda x: x.item(), disable=True)
    assert off(gg.ones(1)) == 1
    with pytest.raises(TypeError, match="expected a function"):
        gg.compile(3)


def test_explain_and_source(device):
    f = gg.compile(lambda x: F.softmax(x * 2 + 1, -1).sum(0))
    assert "not called yet" in f.explain()
    f(gg.rand(8, 16))
    assert "fused over" in f.explain()
    assert f.source()
    f.reset()
    assert "not called yet" in f.explain()


def test_nested_and_checkpointed(device):
    inner = gg.compile(lambda x: x.tanh())
    outer = gg.compile(lambda x: inner(x) * 2)
    x = gg.rand(3)
    for _ in range(3):
        close(outer(x), x.tanh() * 2)


def test_memory_is_let_go():
    def use():
        net = nn.Linear(4, 4)
        f = gg.compile(lambda x: net(x).relu())
        for _ in range(3):
            f(gg.rand(2, 4))
        return weakref.ref(net.weight)

    gone = use()
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda p: p.stem)
def test_programs_with_compiled_modules(path, device):
    """Every program of tests/programs, its modules compiled: the losses are those of the eager run."""
    if device == "pretend":
        pytest.skip("as the cpu's plain lowering")
    if path.stem in ("maml", "wgan_gp", "pinn"):
        pytest.skip("differentiates gradients, which compiled functions refuse")

    def losses(compiled):
        gg.manual_seed(0)
        program = load(path, "gpugrad")
        model = program.build()
        parts = {k: m.to(device) for k, m in modules_of(model).items()}
        if compiled:
            for m in parts.values():
                m.forward = gg.compile(m.forward)
        return [float(x) for x in program.train(model, device)]

    expected = losses(False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", GraphBreak)
        got = losses(True)
    np.testing.assert_allclose(got, expected, rtol=2e-4, atol=1e-5)
