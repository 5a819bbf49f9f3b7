"""Derivatives traced for a layout: the same values, errors and ownership as from the rules they were traced from."""

from __future__ import annotations

import numpy as np
import pytest

import gpugrad as gg
from gpugrad.ops import recording, table

CALLS = 5  # a layout is traced from its third call on


def tensor(shape, device, **options):
    count = int(np.prod(shape))
    return gg.tensor(np.linspace(-1, 1, count, dtype=np.float32).reshape(shape), device=device, **options)


FUNCTIONS = {
    "linear": lambda x, w, b: gg.nn.functional.linear(x, w, b),
    "linear without bias": lambda x, w, b: gg.nn.functional.linear(x, w),
    "matmul": lambda x, w, b: x @ w.T,
    "batched matmul": lambda x, w, b: gg.stack([x, x]) @ gg.stack([w.T, w.T]),
    "sum": lambda x, w, b: x.sum(),
    "sum of rows": lambda x, w, b: x.sum(0, keepdim=True) * b.sum(),
    "sum in another dtype": lambda x, w, b: x.half().sum(1, dtype=gg.float32),
    "reshape": lambda x, w, b: x.reshape(2, 6),
    "reshape of a turned one": lambda x, w, b: x.T.reshape(2, 6),
    "permute": lambda x, w, b: x.reshape(2, 2, 3).permute(2, 0, 1),
}


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("turned", [False, True], ids=["", "turned"])
def test_every_call_gives_the_same_gradients(device, name, turned):
    def gradients():
        inputs = [tensor(s, device, requires_grad=True) for s in ((4, 3), (5, 3), (5,))]
        y = FUNCTIONS[name](*inputs)
        g = tensor(y.shape, device)
        if turned and y.ndim == 2:
            g = g.T.contiguous().T  # the same values, other strides
        y.backward(g)
        return [None if x.grad is None else x.grad.tolist() for x in inputs]

    first = gradients()
    assert any(g is not None for g in first)
    for _ in range(CALLS):
        assert gradients() == first


def test_layouts_and_parameters_are_told_apart(device):
    for _ in range(CALLS):
        for shape, dim in (((3, 4), 0), ((3, 4), 1), ((4, 3), 0), ((4, 4), 0), ((4, 4), 1)):
            x = tensor(shape, device, requires_grad=True)
            g = tensor((shape[1 - dim],), device)
            x.sum(dim).backward(g)
            expected = np.broadcast_to(np.expand_dims(g.cpu().numpy(), dim), shape)
            assert x.grad.cpu().numpy().tolist() == expected.tolist()


def test_traced_derivatives_notice_a_change_in_place(device):
    w = tensor((5, 3), device, requires_grad=True)
    for _ in range(CALLS):
        (tensor((4, 3), device) @ w.T).sum().backward()
    x = tensor((4, 3), device)
    y = gg.nn.functional.linear(x, w, tensor((5,), device))
    for _ in range(CALLS):
        y.sum().backward(retain_graph=True)
    x.add_(1)
    with pytest.raises(RuntimeError, match="linear: its input 0"):
        y.sum().backward()


def test_a_gradient_that_is_a_view_is_copied(device):
    for _ in range(CALLS):
        x, z = (tensor((6,), device, requires_grad=True) for _ in range(2))
        g = tensor((2, 3), device)
        gg.autograd.backward([x.reshape(2, 3), z.reshape(2, 3)], [g, g])
        x.grad.mul_(0)
        assert z.grad.tolist() == g.reshape(-1).tolist() == tensor((6,), device).tolist()
        s = tensor((3, 4), device, requires_grad=True)
        s.sum(0).backward(gg.ones(4, device=device))
        assert s.grad.is_contiguous()
        s.grad[0, 0] = 7.0
        assert s.grad.sum().item() == 18.0


def test_second_derivatives_after_tracing(device):
    for _ in range(CALLS):
        x, w = tensor((4, 3), device, requires_grad=True), tensor((5, 3), device, requires_grad=True)
        y = gg.nn.functional.linear(x, w, gg.zeros(5, device=device))
        y.square().sum().backward()
    y = gg.nn.functional.linear(x, w, gg.zeros(5, device=device))
    (first,) = gg.autograd.grad(y.square().sum(), x, create_graph=True)
    (second,) = gg.autograd.grad(first.sum(), w)
    plain = 2 * (np.ones((4, 3), "f") @ w.detach().cpu().numpy().T).T @ x.detach().cpu().numpy()
    plain += 2 * (x.detach().cpu().numpy() @ w.detach().cpu().numpy().T).T @ np.ones((4, 3), "f")
    np.testing.assert_allclose(second.cpu().numpy(), plain, rtol=1e-5, atol=1e-5)


def test_ever_new_shapes_are_not_all_remembered():
    plans = table.OPS["sum"].plans
    for n in range(1, 2 * recording._LAYOUTS):
        x = gg.ones(n, requires_grad=True)
        x.sum().backward()
        assert x.grad.shape == (n,)
    assert all(len(plan._shaped) <= recording._LAYOUTS for plan in plans.values())


@pytest.mark.parametrize("name", ["linear", "matmul", "sum", "reshape", "permute"])
def test_these_rows_are_traced(device, name):
    calls = {
        "linear": lambda x: gg.nn.functional.linear(x, x, x[:, 0].detach()),
        "matmul": lambda x: x @ x,
        "sum": lambda x: x.sum(1),
        "reshape": lambda x: x.reshape(2, 8),
        "permute": lambda x: x.permute(1, 0),
    }
    for plan in table.OPS[name].plans.values():
        plan._shaped.clear()
    for _ in range(CALLS):
        y = calls[name](tensor((4, 4), device, requires_grad=True))
        y.backward(tensor(y.shape, device))
    assert any(type(p) is tuple for plan in table.OPS[name].plans.values() for p in plan._shaped.values())
