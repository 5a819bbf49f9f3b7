"""First and second derivatives against finite differences, in float64 on the CPU."""

from __future__ import annotations

import numpy as np

import gpugrad as gg


def leaves(arrays, device="cpu"):
    """Tensors of the arrays; the floating ones require grad."""
    return [
        gg.tensor(a, device=device, requires_grad=a.dtype.kind == "f" or a.dtype.name == "bfloat16") for a in arrays
    ]


def _weights(shape, seed):
    return np.random.default_rng(seed).standard_normal(shape)


def _scalar(function, arrays, seed=0):
    """sum(w * function(arrays)) with fixed random weights, as a float."""
    out = function(*[gg.tensor(a) for a in arrays])
    return float((out.double() * gg.tensor(_weights(tuple(out.shape), seed))).sum().item())


def analytic(function, arrays, create_graph=False, seed=0):
    """Gradients of the weighted sum with respect to the floating inputs."""
    tensors = leaves(arrays)
    out = function(*tensors)
    if not out.requires_grad:
        return tensors, [None for t in tensors if t.requires_grad]
    total = (out * gg.tensor(_weights(tuple(out.shape), seed))).sum()
    wanted = [t for t in tensors if t.requires_grad]
    return tensors, list(gg.autograd.grad(total, wanted, create_graph=create_graph, allow_unused=True))


def numeric(function, arrays, eps=1e-6):
    """The same by central differences."""
    result = []
    for k, a in enumerate(arrays):
        if a.dtype.kind != "f":
            continue
        g = np.zeros_like(a)
        for i in np.ndindex(*a.shape):
            ends = []
            for step in (eps, -eps):
                moved = [x.copy() for x in arrays]
                moved[k][i] += step
                ends.append(function(moved))
            g[i] = (ends[0] - ends[1]) / (2 * eps)
        result.append(g)
    return result


def check_first(function, arrays, rtol=1e-5, atol=1e-7):
    _, found = analytic(function, arrays)
    expected = numeric(lambda xs: _scalar(function, xs), arrays)
    assert len(found) == len(expected)
    for g, n in zip(found, expected, strict=True):
        got = np.zeros_like(n) if g is None else g.numpy()
        assert got.shape == n.shape
        np.testing.assert_allclose(got, n, rtol=rtol, atol=atol)


def check_second(function, arrays, rtol=1e-4, atol=1e-6):
    """The gradient of (random weights . first gradients) against differences of that number."""

    def first_dot(xs):
        _, grads = analytic(function, xs)
        return sum(
            float((g.detach() * gg.tensor(_weights(tuple(g.shape), 100 + i))).sum().item())
            for i, g in enumerate(grads)
            if g is not None
        )

    tensors, grads = analytic(function, arrays, create_graph=True)
    wanted = [t for t in tensors if t.requires_grad]
    total = None
    for i, g in enumerate(grads):
        if g is not None and g.requires_grad:
            part = (g * gg.tensor(_weights(tuple(g.shape), 100 + i))).sum()
            total = part if total is None else total + part
    expected = numeric(first_dot, arrays)
    if total is None:
        found = [None] * len(wanted)
    else:
        found = list(gg.autograd.grad(total, wanted, allow_unused=True))
    for g, n in zip(found, expected, strict=True):
        got = np.zeros_like(n) if g is None else g.numpy()
        np.testing.assert_allclose(got, n, rtol=rtol, atol=atol)
