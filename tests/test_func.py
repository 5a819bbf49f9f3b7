"""``gpugrad.func``: transforms of functions against PyTorch's, and against formulas."""

from __future__ import annotations

import numpy as np
import pytest

import gpugrad as gg
from gpugrad import func

X = np.random.default_rng(0).standard_normal((3, 4))
Y = np.random.default_rng(1).standard_normal(4)


def program(f, t):
    """Everything at once, for either library: ``f`` its func module, ``t`` makes a tensor."""
    x, y = t(X), t(Y)

    def scalar(a, b):
        return (a.sin() * b).sum()

    def vector(a):
        return a[0] * a + a.exp()

    results = [
        f.grad(scalar)(x, y),
        *f.grad(scalar, argnums=(0, 1))(x, y),
        f.grad(f.grad(lambda a: a**3))(t(np.array(2.0))),
        f.jacrev(vector)(y),
        f.jacfwd(vector)(y),
        f.hessian(lambda a: (a**3).prod())(y),
        f.vmap(lambda a: a.sum() * a)(x),
        f.vmap(lambda a, b: a @ b, in_dims=(1, None))(x, t(X[:, 0])),
        f.vmap(lambda a, b: a * b, in_dims=(0, None), out_dims=1)(x, y),
        f.vmap(f.grad(lambda w, r: (w * r).tanh().sum()), in_dims=(None, 0))(y, x),
        f.vmap(f.vmap(lambda a: a * a))(x),
        f.vmap(f.jacrev(vector))(x),
    ]
    output, pull = f.vjp(vector, y)
    results += [output, *pull(t(X[0]))]
    results += list(f.jvp(vector, (y,), (t(X[1]),)))
    g, (value, aux) = f.grad_and_value(lambda a: (a.sum() ** 2, a * 2), has_aux=True)(y)
    results += [g, value, aux]
    tree = f.grad(lambda p, a: (p["w"] * a).sum() + p["b"].sum() ** 2)({"w": y, "b": x}, y)
    return results + [tree["w"], tree["b"]]


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")  # PyTorch's jvp
def test_against_pytorch():
    torch = pytest.importorskip("torch")
    got, want = program(func, gg.tensor), program(torch.func, torch.tensor)
    for i, (a, b) in enumerate(zip(got, want, strict=True)):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-9, atol=1e-12, err_msg=str(i))


def test_on_device(device):
    x = gg.tensor(X[0], dtype=gg.float32, device=device)
    slope = func.grad(lambda a: (a**3).sum())(x)
    np.testing.assert_allclose(slope.cpu().numpy(), 3 * X[0] ** 2, rtol=1e-5)
    assert not slope.requires_grad and slope.device.type == device
    rows = func.vmap(func.grad(lambda a: a.square().sum()))(gg.tensor(X, dtype=gg.float32, device=device))
    np.testing.assert_allclose(rows.cpu().numpy(), 2 * X, rtol=1e-5)


def test_gradient_stays_connected_to_what_it_depends_on():
    w = gg.tensor(3.0, requires_grad=True)
    slope = func.grad(lambda a: w * a * a)(gg.tensor(2.0))
    assert slope.requires_grad
    slope.backward()
    assert w.grad.item() == 4


def test_gradients_of_each_sample():
    gg.manual_seed(0)
    model = gg.nn.Linear(4, 2)
    parameters = {k: v.detach() for k, v in model.named_parameters()}
    xs, ys = gg.tensor(X, dtype=gg.float32), gg.tensor([0, 1, 1])

    def loss(p, x, y):
        return gg.nn.functional.cross_entropy(func.functional_call(model, p, (x,)), y)

    each = func.vmap(func.grad(loss), in_dims=(None, 0, 0))(parameters, xs, ys)
    for i in range(3):
        model.zero_grad()
        gg.nn.functional.cross_entropy(model(xs[i]), ys[i]).backward()
        np.testing.assert_allclose(each["weight"][i].numpy(), model.weight.grad.numpy(), rtol=1e-5, atol=1e-7)


def test_ensemble():
    models = [gg.nn.Linear(4, 2) for _ in range(3)]
    parameters, buffers = func.stack_module_state(models)
    x = gg.tensor(X, dtype=gg.float32)
    out = func.vmap(lambda p, b: func.functional_call(models[0], (p, b), (x,)))(parameters, buffers)
    for i, m in enumerate(models):
        np.testing.assert_allclose(out[i].detach().numpy(), m(x).detach().numpy(), rtol=1e-6)


def test_randomness():
    x = gg.zeros(3, 2)
    with pytest.raises(RuntimeError, match="draws random numbers"):
        func.vmap(lambda a: a + gg.rand(2))(x)
    same = func.vmap(lambda a: a + gg.rand(2), randomness="same")(x)
    assert (same[0] == same[1]).all()
    different = func.vmap(lambda a: a + gg.rand(2), randomness="different")(x)
    assert not (different[0] == different[1]).any()


def test_mistakes():
    with pytest.raises(RuntimeError, match="0-d tensor"):
        func.grad(lambda a: a)(gg.ones(2))
    with pytest.raises(RuntimeError, match="floating-point"):
        func.grad(lambda a: a.sum())(gg.tensor([1, 2]))
    with pytest.raises(RuntimeError, match="argnums=2"):
        func.grad(lambda a: a.sum(), argnums=2)(gg.ones(2))
    with pytest.raises(ValueError, match="one size"):
        func.vmap(lambda a, b: a)(gg.ones(2), gg.ones(3))
    with pytest.raises(ValueError, match="no argument"):
        func.vmap(lambda a: a, in_dims=None)(gg.ones(2))
