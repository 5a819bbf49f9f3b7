"""A backend's fused routine against the plain definition it stands in for."""

from __future__ import annotations

import numpy as np
import pytest

import gpugrad as gg
import gpugrad.nn.functional as F
from gpugrad.ops import fused

ROWS = [((7,), 0), ((3, 5), 1), ((3, 5), 0), ((2, 3, 4), 1), ((1, 1), -1), ((4, 1000), 1)]


def plainly(monkeypatch, device, function, *args):
    """``function`` with the backend offering nothing."""
    backend = gg.zeros(1, device=device)._backend
    with monkeypatch.context() as patch:
        patch.setattr(backend, "offer", lambda name: None)
        return function(*args)


@pytest.mark.parametrize(("shape", "dim"), ROWS)
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_offered_equals_plain(monkeypatch, device, name, dtype, shape, dim):
    rng = np.random.default_rng(3)
    host = (rng.standard_normal(shape) * 5).astype(np.float32)
    weights = gg.tensor(rng.standard_normal(shape).astype(np.float32), device=device)
    function = getattr(gg, name)
    found = []
    for plain in (False, True):
        x = gg.tensor(host, device=device).to(getattr(gg, dtype)).requires_grad_()

        def run(x=x):
            y = function(x, dim)
            (y.float() * weights).sum().backward()
            return y

        y = plainly(monkeypatch, device, run) if plain else run()
        found.append((y.float().detach().cpu().numpy(), x.grad.float().cpu().numpy()))
    tolerance = {"float32": 2e-6, "float16": 6e-3, "bfloat16": 5e-2}[dtype]
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_extremes(device, name):
    x = gg.tensor([[1000.0, 1001.0, 999.0], [-1000.0, 0.0, -float("inf")], [float("inf"), 0.0, 0.0]], device=device)
    got = getattr(gg, name)(x, 1).to_numpy()
    assert np.isfinite(got[0]).all()
    assert got[1, 1] == (1.0 if name == "softmax" else 0.0)
    assert got[1, 2] == (0.0 if name == "softmax" else -np.inf)
    assert np.isnan(got[2, 0])
    assert not np.isnan(got[1]).any()


# -- norms and cross-entropy: values, gradients and second gradients ----------------------------------

SHAPES = [(5, 7), (2, 3, 8), (300, 128), (3, 4100), (2, 40000)]
IMAGES = [(4, 3), (5, 3, 6), (2, 4, 3, 5), (3, 70, 40, 40), (500, 9)]


def norm_cases():
    for shape in SHAPES:
        yield "layer_norm", shape, lambda x, w, b: F.layer_norm(x, x.shape[-1:], w, b)
        yield "layer_norm without bias", shape, lambda x, w, b: F.layer_norm(x, x.shape[-1:], w)
        yield "layer_norm alone", shape, lambda x, w, b: F.layer_norm(x, x.shape[-1:])
        yield "layer_norm of columns", shape, lambda x, w, b: F.layer_norm(x.transpose(0, -1), (x.shape[0],))
        yield "rms_norm", shape, lambda x, w, b: F.rms_norm(x, x.shape[-1:], w)
        yield "rms_norm alone", shape, lambda x, w, b: F.rms_norm(x, x.shape[-1:])
    for shape in IMAGES:
        yield "batch_norm", shape, lambda x, w, b: F.batch_norm(x, None, None, w, b, True)
        yield "batch_norm alone", shape, lambda x, w, b: F.batch_norm(x, None, None, training=True)
    yield "layer_norm of two", (6, 4, 5), lambda x, w, b: F.layer_norm(x, (4, 5))
    yield "group_norm", (3, 6, 50), lambda x, w, b: F.group_norm(x, 3, w, b)
    yield "instance_norm", (3, 6, 50), lambda x, w, b: F.instance_norm(x, None, None, w, b)


CASES = list(norm_cases())


def leaves_for(name, shape, dtype, device):
    rng = np.random.default_rng(7)
    width = shape[1] if name.split()[0] in ("batch_norm", "group_norm", "instance_norm") else shape[-1]
    arrays = [rng.standard_normal(s).astype(np.float32) * 2 + 0.5 for s in (shape, (width,), (width,))]
    return [gg.tensor(a, device=device).to(dtype).requires_grad_() for a in arrays], rng


@pytest.mark.parametrize("dtype", [gg.float32, gg.float16, gg.bfloat16])
@pytest.mark.parametrize(("name", "shape", "function"), CASES, ids=[f"{n}-{s}" for n, s, _ in CASES])
def test_norms(monkeypatch, device, name, shape, function, dtype):
    found = []
    for plain in (False, True):
        leaves, rng = leaves_for(name, shape, dtype, device)

        def run(leaves=leaves, rng=rng):
            y = function(*leaves)
            g = gg.tensor(rng.standard_normal(tuple(y.shape)).astype(np.float32), device=device)
            (y.float() * g).sum().backward()
            return y

        y = plainly(monkeypatch, device, run) if plain else run()
        assert y.dtype is dtype
        found.append([t.float().detach().cpu().numpy() for t in (y, *(x.grad for x in leaves if x.grad is not None))])
    tolerance = {gg.float32: 2e-5, gg.float16: 1e-2, gg.bfloat16: 8e-2}[dtype]
    assert len(found[0]) == len(found[1])
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * max(1.0, np.abs(b).max()))


FEW = CASES[:6] + CASES[-9:-7] + CASES[-3:]


@pytest.mark.parametrize(("name", "shape", "function"), FEW, ids=[n for n, *_ in FEW])
def test_second_gradients_of_norms(monkeypatch, device, name, shape, function):
    """Of an input that another one is computed from, too."""
    if max(shape) > 100:
        shape = (5, 6, 4)
    found = []
    for plain in (False, True):
        (x, w, b), _ = leaves_for(name, shape, gg.float32, device)

        def run(x=x, w=w, b=b):
            y = function(x * w.sum(), w * 1.5, b)
            first = gg.autograd.grad(y.square().sum() + y.exp().mean(), [x, w], create_graph=True)
            return first + gg.autograd.grad(first[0].square().sum() + first[1].sum(), [x, w])

        tensors = plainly(monkeypatch, device, run) if plain else run()
        found.append([t.detach().cpu().numpy() for t in tensors])
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3 * max(1.0, np.abs(b).max()))


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("shape", [(5,), (6, 4), (3, 4, 5), (700, 130)])
@pytest.mark.parametrize("weighted", [False, True])
def test_cross_entropy(monkeypatch, device, dtype, reduction, shape, weighted):
    rng = np.random.default_rng(3)
    dtype = getattr(gg, dtype)
    classes = shape[0] if len(shape) == 1 else shape[1]
    host = rng.standard_normal(shape).astype(np.float32) * 4
    target = rng.integers(0, classes, shape[:1] + shape[2:] if len(shape) > 1 else ())
    if len(shape) > 1:
        host[1, ..., 0] = 1e4  # of a place that is ignored
        target[1] = 2
    weight = gg.tensor(rng.random(classes).astype(np.float32) + 0.5, device=device).to(dtype) if weighted else None
    found = []
    for plain in (False, True):
        x = gg.tensor(host, device=device).to(dtype).requires_grad_()

        def run(x=x):
            ignore = 2 if len(shape) > 1 else -100
            wanted = gg.tensor(target, device=device)
            loss = F.cross_entropy(x, wanted, weight, ignore_index=ignore, reduction=reduction)
            (loss.float() * 1.5).sum().backward()
            return loss

        loss = plainly(monkeypatch, device, run) if plain else run()
        assert loss.dtype is dtype and tuple(loss.shape) == (target.shape if reduction == "none" else ())
        found.append((loss.float().detach().cpu().numpy(), x.grad.float().cpu().numpy()))
    tolerance = {gg.float32: 1e-5, gg.float16: 6e-3, gg.bfloat16: 5e-2}[dtype]
    rows = [i for i in range(shape[0]) if len(shape) == 1 or i != 1]
    if len(shape) > 1:
        assert not found[0][1][1].any()  # an ignored place gets no gradient
    np.testing.assert_allclose(*(f[0] for f in found), rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(*(f[1][rows] for f in found), rtol=tolerance, atol=tolerance)


def test_cross_entropy_again(monkeypatch, device):
    """Second gradients, gradients of the weights, and a class that does not exist."""
    rng = np.random.default_rng(3)
    host, own = rng.standard_normal((6, 4)).astype(np.float32), rng.random(4).astype(np.float32)
    target = gg.tensor([0, 3, 1, -100, 2, 2], device=device)
    found = []
    for plain in (False, True):
        x, w = (gg.tensor(a, device=device, requires_grad=True) for a in (host, own))

        def run(x=x, w=w):
            first = gg.autograd.grad(F.cross_entropy(x * x, target, w), [x, w], create_graph=True)
            second = gg.autograd.grad(first[0].square().sum() + first[1].exp().sum(), [x, w])
            return [*first, *second, *gg.autograd.grad(F.cross_entropy(x, target, w), [x, w])]

        tensors = plainly(monkeypatch, device, run) if plain else run()
        found.append([t.detach().cpu().numpy() for t in tensors])
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    with pytest.raises(IndexError, match="cross_entropy: index 4 is out of range for size 4"):
        F.cross_entropy(gg.zeros(2, 4, device=device), gg.tensor([0, 4], device=device)).item()


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
@pytest.mark.parametrize(("shape", "dim"), [((70, 1000), 0), ((3, 500, 40), 1), ((2, 9000), 1), ((6, 5, 300), 2)])
def test_softmax_of_many(monkeypatch, device, name, shape, dim):
    host = np.random.default_rng(1).standard_normal(shape).astype(np.float32) * 3
    found = []
    for plain in (False, True):
        x = gg.tensor(host, device=device, requires_grad=True)

        def run(x=x):
            y = getattr(gg, name)(x, dim)
            (first,) = gg.autograd.grad(y.square().sum(), [x], retain_graph=True)
            (again,) = gg.autograd.grad(y.square().sum(), [x], create_graph=True)
            return y, first, gg.autograd.grad(again.square().sum(), [x])[0]

        tensors = plainly(monkeypatch, device, run) if plain else run()
        found.append([t.detach().cpu().numpy() for t in tensors])
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4 * np.abs(b).max())


def test_every_routine_is_offered_by_the_cpu():
    backend = gg.zeros(1, device="cpu")._backend
    assert all(backend.offer(name) is not None for name in fused.ROUTINES)
