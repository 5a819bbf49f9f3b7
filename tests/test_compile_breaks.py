"""What a program cannot repeat: each such function says why, once, and computes as it would without ``compile``."""

from __future__ import annotations

import functools

import numpy as np
import pytest

import gpugrad as gg
from gpugrad import live, nn
from gpugrad.compiler import GraphBreak
from tests import pretend  # noqa: F401  (the second device)

LONG = {"list": [0] * 5000, "dict": dict.fromkeys(range(5000), 0)}
ARRAY = np.zeros(3)
SAVED = gg.ones(3)


class Scaled(gg.optim.Optimizer):
    """A user's optimizer, which computes its numbers in Python."""

    def __init__(self, params):
        super().__init__(params, {"lr": 0.1})

    def step(self, closure=None):
        with gg.no_grad():
            for group in self.param_groups:
                for p in group["params"]:
                    p.sub_(p.grad, alpha=group["lr"])


def _two_devices(x):
    other = gg.ones(3, device="pretend") * 2
    return x * 2 + other.cpu()


def _other_dtype(x):
    return (x * 2).view(gg.int32) + 1


def _long_list(x):
    LONG["list"][7] += 1
    return x * 2


def _long_dict(x):
    LONG["dict"][7] += 1
    return x * 2


def _numpy(x):
    ARRAY[0] += 1
    return x * 2


def _numbers(x):
    (step,) = live.live(lambda: (0.5,))
    return x * (step + 1.0)


def _swapped_numbers(x):
    (step,) = live.live(lambda: (0.5,))
    return x * (1.0 - step) * abs(-step)


def _no_view_of_its_own(x):
    return SAVED[1:]


BREAKS = [
    (_two_devices, "on two devices, cpu and pretend"),
    (_other_dtype, "float32 memory as int32"),
    (_long_list, "writes to a list"),
    (_long_dict, "writes to a dict"),
    (_numpy, "array of NumPy"),
    (_numbers, "with a number that changes"),
    (_swapped_numbers, "with a number that changes"),
    (_no_view_of_its_own, "not its own"),
]


@pytest.mark.parametrize(("function", "why"), BREAKS, ids=[f.__name__.strip("_") for f, _ in BREAKS])
@pytest.mark.filterwarnings("ignore::gpugrad.errors.HostTripWarning")
def test_reasons(function, why):
    x = gg.tensor([1.0, 2.0, 3.0])
    want = function(x).tolist()
    compiled = gg.compile(function)
    with pytest.warns(GraphBreak, match=why):
        got = [compiled(x) for _ in range(4)]
    assert all(g.tolist() == want for g in got)


def _parameter():
    p = nn.Parameter(gg.ones(3))
    p.grad = gg.ones(3)
    return p


def test_reasons_of_gradients():
    p, other = _parameter(), gg.ones(3) * 7

    def takes_away(x):
        p.grad = None
        return x * 2

    def from_outside(x):
        p.grad = other
        return x * 2

    def other_memory(x):
        p.data = x * 3
        return x * 2

    x = gg.tensor([1.0, 2.0, 3.0])
    for function, why in [(takes_away, "gradient of a tensor away"), (from_outside, "memory from outside"),
                          (other_memory, "other memory")]:  # fmt: skip
        p.grad = gg.ones(3)
        compiled = gg.compile(function)
        with pytest.warns(GraphBreak, match=why):
            assert compiled(x).tolist() == [2.0, 4.0, 6.0]
    assert p.tolist() == [3.0, 6.0, 9.0]


def test_an_optimizer_of_a_user_is_not_compiled():
    results = []
    for wrap in (lambda f: f, gg.compile):
        p = nn.Parameter(gg.ones(3))
        optimizer = Scaled([p])

        def step(x, p=p, optimizer=optimizer):
            optimizer.zero_grad()
            loss = (p * x).sum()
            loss.backward()
            optimizer.step()
            return loss.detach()

        run = wrap(step)
        x = gg.tensor([1.0, 2.0, 3.0])
        if wrap is gg.compile:
            with pytest.warns(GraphBreak, match="steps Scaled"):
                losses = [run(x).item() for _ in range(4)]
        else:
            losses = [run(x).item() for _ in range(4)]
        results.append([losses, p.tolist()])
    assert results[0] == results[1]


def test_a_graph_is_walked_inside_or_outside():
    x = gg.tensor([1.0, 2.0], requires_grad=True)

    @gg.compile
    def both(x):
        y = (x * x).sum()
        y.backward()
        return y

    for _ in range(3):
        out = both(x)
    with pytest.raises(RuntimeError, match="walked inside the compiled function|already walked"):
        out.backward()


def test_an_argument_from_a_graph_is_not_walked_through():
    w = gg.tensor([1.0, 2.0], requires_grad=True)

    @gg.compile
    def inside(h):
        (h * h).sum().backward()
        return h.detach() * 2

    with pytest.raises(RuntimeError, match="walks a graph back beyond an argument"):
        inside(w * 3)


def test_what_functions_are_made_of():
    """Partial functions, bound methods, names that have no value yet."""

    def scaled(factor, x):
        if factor < 0:
            return later  # noqa: F821  (assigned below, never read)
        return x * factor

    compiled = gg.compile(functools.partial(scaled, 3.0), fullgraph=True)
    for n in (1, 2, 3):
        assert compiled(gg.ones(2) * n).tolist() == [3.0 * n] * 2

    def outer():
        def f(x):
            return unset if x.ndim > 5 else x + 1

        compiled = gg.compile(f, fullgraph=True)
        results = [compiled(gg.ones(2) * n).tolist() for n in (1, 2, 3)]
        unset = None
        return results

    assert outer() == [[2.0, 2.0], [3.0, 3.0], [4.0, 4.0]]


def test_a_compiled_module_is_the_module():
    model = nn.Sequential(nn.Linear(2, 3), nn.Tanh())
    compiled = gg.compile(model)
    x = gg.ones(4, 2)
    for _ in range(3):
        got = compiled(x)
    np.testing.assert_allclose(got.detach().numpy(), model(x).detach().numpy(), rtol=1e-6)
    np.testing.assert_allclose(compiled.forward(x).detach().numpy(), got.detach().numpy())
    assert repr(compiled) == f"CompiledModule({model!r})"
    assert getattr(compiled, "0") is model[0] and list(compiled.state_dict()) == list(model.state_dict())
    assert "tanh" in compiled.explain() and isinstance(compiled.source(), str)
    compiled.train(False)
    assert not model.training
    with pytest.raises(AttributeError, match="nonsense"):
        compiled.nonsense  # noqa: B018
