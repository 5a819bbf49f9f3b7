"""What a call costs on small tensors: the interpreter, the way to the device, the graph."""

from __future__ import annotations

from typing import Any

import pytest

import gpugrad as gg

OPS: dict[str, Any] = {
    "add": lambda x, y, m: x + y,
    "add_number": lambda x, y, m: x + 1.5,
    "add_in_place": lambda x, y, m: y.add_(1.0),
    "exp": lambda x, y, m: x.exp(),
    "broadcast_add": lambda x, y, m: m + x,
    "matmul": lambda x, y, m: m @ m,
    "sum": lambda x, y, m: m.sum(),
    "sum_of_rows": lambda x, y, m: m.sum(1),
    "softmax": lambda x, y, m: m.softmax(1),
    "view": lambda x, y, m: m.view(-1),
    "transpose": lambda x, y, m: m.t(),
    "index": lambda x, y, m: m[3],
    "slice": lambda x, y, m: m[2:5, ::2],
    "clone": lambda x, y, m: m.clone(),
    "empty": lambda x, y, m: gg.empty(16, device=x.device),
    "zeros": lambda x, y, m: gg.zeros(16, device=x.device),
}


@pytest.mark.parametrize("recorded", [False, True], ids=["plain", "recorded"])
@pytest.mark.parametrize("name", list(OPS))
def bench_op(name: str, recorded: bool, device: str, per_call: Any) -> None:
    x, m = (gg.rand(*s, device=device, requires_grad=recorded) for s in ((16,), (16, 16)))
    y = gg.rand(16, device=device)
    per_call(lambda: OPS[name](x, y, m))


def bench_item(device: str, per_call: Any) -> None:
    x = gg.rand(1, device=device)
    per_call(x.item)


def bench_module_call(device: str, per_call: Any) -> None:
    layer, x = gg.nn.Linear(16, 16).to(device), gg.rand(4, 16, device=device)
    per_call(lambda: layer(x))


def bench_backward_of_a_small_graph(device: str, per_call: Any) -> None:
    a, b, c = (gg.rand(16, device=device, requires_grad=True) for _ in range(3))
    y = (a * b + c).tanh().sum()
    per_call(lambda: y.backward(retain_graph=True))


def bench_forward_and_backward(device: str, per_call: Any) -> None:
    a, b, c = (gg.rand(16, device=device, requires_grad=True) for _ in range(3))

    def step() -> None:
        a.grad = b.grad = c.grad = None
        (a * b + c).tanh().sum().backward()

    per_call(step)


@pytest.mark.parametrize("kind", ["SGD", "Adam"])
def bench_optimizer_step(kind: str, device: str, per_call: Any) -> None:
    net = gg.nn.Sequential(gg.nn.Linear(2, 16), gg.nn.Linear(16, 16), gg.nn.Linear(16, 1)).to(device)
    for p in net.parameters():
        p.grad = gg.ones_like(p)
    per_call(getattr(gg.optim, kind)(net.parameters(), lr=1e-4).step)


def bench_zero_grad(device: str, per_call: Any) -> None:
    net = gg.nn.Sequential(gg.nn.Linear(2, 16), gg.nn.Linear(16, 16), gg.nn.Linear(16, 1)).to(device)
    per_call(gg.optim.SGD(net.parameters()).zero_grad)
