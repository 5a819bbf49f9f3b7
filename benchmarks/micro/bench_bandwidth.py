"""Large operations: bytes per second against what a copy on the same device reaches."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gpugrad as gg

N = 1 << 22  # 16 MB of float32
SIDE = 1 << 11

#: operation on x, y of N elements and m of SIDE x SIDE (N too); arrays of N that it reads or writes at least
KERNELS: dict[str, tuple[Any, int]] = {
    "copy": (lambda x, y, m: x.clone(), 2),
    "fill": (lambda x, y, m: gg.ones_like(x), 1),
    "add": (lambda x, y, m: x + y, 3),
    "add_in_place": (lambda x, y, m: y.add_(x), 3),
    "exp": (lambda x, y, m: x.exp(), 2),
    "tanh": (lambda x, y, m: x.tanh(), 2),
    "to_half": (lambda x, y, m: x.half(), 2),
    "add_row": (lambda x, y, m: m + x[:SIDE], 2),
    "add_column": (lambda x, y, m: m + x[:SIDE, None], 2),
    "transposed_copy": (lambda x, y, m: m.t().contiguous(), 2),
    "sum": (lambda x, y, m: x.sum(), 1),
    "sum_of_rows": (lambda x, y, m: m.sum(1), 1),
    "sum_of_columns": (lambda x, y, m: m.sum(0), 1),
    "max_of_rows": (lambda x, y, m: m.amax(1), 1),
    "cumsum": (lambda x, y, m: x.cumsum(0), 2),
    "softmax": (lambda x, y, m: m.softmax(1), 2),
    "layer_norm": (lambda x, y, m: gg.nn.functional.layer_norm(m, (SIDE,)), 2),
    "gelu": (lambda x, y, m: gg.nn.functional.gelu(x), 2),
    "random": (lambda x, y, m: gg.rand_like(x), 1),
    "gather_rows": (lambda x, y, m: m[gg.arange(SIDE, device=m.device)], 2),
}


@pytest.mark.parametrize("name", list(KERNELS))
def bench_kernel(name: str, device: str, finished: Any) -> None:
    x, y = gg.rand(N, device=device), gg.rand(N, device=device)
    m = gg.rand(SIDE, SIDE, device=device)
    function, arrays = KERNELS[name]
    with gg.no_grad():
        finished(lambda: function(x, y, m), arrays * 4 * N)


@pytest.mark.parametrize(("kind", "arrays"), [("SGD", 3), ("Adam", 7), ("AdamW", 7)])
def bench_optimizer(kind: str, arrays: int, device: str, finished: Any) -> None:
    """Reads parameter, gradient and state, writes parameter and state."""
    ps = [gg.rand(N // 8, device=device, requires_grad=True) for _ in range(8)]
    for p in ps:
        p.grad = gg.rand(N // 8, device=device)
    finished(getattr(gg.optim, kind)(ps, lr=1e-4).step, arrays * 4 * N)


def bench_clip_grad_norm(device: str, finished: Any) -> None:
    ps = [gg.rand(N // 8, device=device, requires_grad=True) for _ in range(8)]
    for p in ps:
        p.grad = gg.rand(N // 8, device=device)
    finished(lambda: gg.nn.utils.clip_grad_norm_(ps, 1.0), 3 * 4 * N)


def bench_to_device(device: str, finished: Any) -> None:
    host = np.random.default_rng(0).random(N, dtype=np.float32)
    finished(lambda: gg.tensor(host, device=device), 2 * 4 * N)


def bench_to_host(device: str, finished: Any) -> None:
    x = gg.rand(N, device=device)
    finished(lambda: x.cpu().numpy().copy(), 2 * 4 * N)


@pytest.mark.parametrize("mib", [1, 16, 64])
def bench_allocation(mib: int, device: str, per_call: Any) -> None:
    per_call(lambda: gg.empty(mib << 18, device=device))
