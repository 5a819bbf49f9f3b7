"""Random programs, compiled and not: the same values, gradients and in-place effects.

``GPUGRAD_FUZZ=n`` tries n programs for each device instead of a few."""

from __future__ import annotations

import os
import random

import numpy as np
import pytest

import gpugrad as gg
import gpugrad.nn.functional as F

SEEDS = range(int(os.environ.get("GPUGRAD_FUZZ", "24")))

UNARY = [
    lambda x: x.tanh(), lambda x: x.exp().clamp(max=5.0), lambda x: x.sigmoid(), lambda x: -x, lambda x: x * 0.5 + 1,
    lambda x: F.gelu(x), lambda x: F.relu(x), lambda x: x.square(), lambda x: x.abs(), lambda x: F.silu(x),
    lambda x: x.sin(), lambda x: (x.square() + 1).log(), lambda x: (x.square() + 0.5).sqrt(), lambda x: x.clamp(-1, 1),
    lambda x: gg.where(x > 0, x, 0.1 * x), lambda x: (x > 0.2).float() * x,
]  # fmt: skip
ROWS = [
    lambda x: F.softmax(x, -1), lambda x: F.log_softmax(x, -1), lambda x: F.layer_norm(x, (x.shape[-1],)),
    lambda x: x - x.mean(-1, keepdim=True), lambda x: x.cumsum(-1),
    lambda x: x / (1 + x.square().sum(-1, keepdim=True)),
    lambda x: x - x.amax(-1, keepdim=True), lambda x: x.flip(-1), lambda x: x + x.sum(0, keepdim=True),
]  # fmt: skip
BINARY = [
    lambda a, b: a + b, lambda a, b: a * b, lambda a, b: a - b, lambda a, b: a / (b.abs() + 1),
    lambda a, b: gg.maximum(a, b), lambda a, b: gg.where(a > b, a, b * 2),
]  # fmt: skip
SHAPE = [
    lambda x: x.transpose(0, -1).contiguous().transpose(0, -1), lambda x: x.reshape(-1, x.shape[-1]).reshape(x.shape),
    lambda x: gg.cat([x[..., 1:], x[..., :1]], -1), lambda x: x.transpose(0, -1).reshape(x.shape),
    lambda x: x.expand((2, *x.shape)).sum(0), lambda x: x[..., ::2].repeat_interleave(2, -1)[..., : x.shape[-1]],
    lambda x: gg.stack([x, x * 2]).mean(0), lambda x: F.pad(x, (1, 1))[..., 1:-1],
]  # fmt: skip


def program(seed):
    """A function of a list of tensors, made of random operations."""
    rng = random.Random(seed)
    rows, inner = rng.choice([(3, 4), (5, 8), (2, 33), (7, 16), (64, 40), (1, 6), (6, 1)])
    shapes = [(rows, inner), (rows, inner), (inner,), (rows, 1), (2, rows, inner)]
    plan = [
        (rng.random(), rng.randrange(100), rng.randrange(100), rng.randrange(100)) for _ in range(rng.randint(4, 22))
    ]

    def function(inputs):
        pool = list(inputs)
        outputs = []
        for kind, what, i, j in plan:
            a, b = pool[i % len(pool)], pool[j % len(pool)]
            if kind < 0.3:
                x = UNARY[what % len(UNARY)](a)
            elif kind < 0.5:
                x = ROWS[what % len(ROWS)](a)
            elif kind < 0.75:
                x = BINARY[what % len(BINARY)](a, b)
            elif kind < 0.88:
                x = SHAPE[what % len(SHAPE)](a)
            elif kind < 0.94:
                x = (a * 1.5).mul_(0.5).add_(b if tuple((a + b).shape) == tuple(a.shape) else 1.0)
            else:
                outputs.append(a.sum(what % a.ndim) if what % 2 else a.mean())
                continue
            pool.append(x)
        return [pool[-1] * 1.0, *outputs]

    return function, shapes


@pytest.mark.parametrize("seed", SEEDS)
def test_random_programs(seed, device):
    if device == "opencl" and seed >= 6 and "GPUGRAD_FUZZ" not in os.environ:
        pytest.skip("a few on this device: each compiles kernels of its own")
    function, shapes = program(seed)
    compiled = gg.compile(function, fullgraph=True)
    for run in range(3):
        rng = np.random.default_rng((seed, run))
        values = [rng.standard_normal(s).astype(np.float32) for s in shapes]
        found = []
        for f in (function, compiled):
            inputs = [gg.tensor(v, device=device, requires_grad=True) for v in values]
            outs = f(inputs)
            sum((o * (i + 1)).sum() for i, o in enumerate(outs)).backward()
            found.append([o.detach().cpu().numpy() for o in outs] + [
                None if t.grad is None else t.grad.cpu().numpy() for t in inputs])  # fmt: skip
        for a, b in zip(*found, strict=True):
            assert (a is None) == (b is None)
            if a is not None:
                scale = max(0.1, np.abs(a[np.isfinite(a)]).max(initial=0))
                np.testing.assert_allclose(b, a, rtol=2e-4, atol=2e-5 * scale)
    assert len(compiled.traces) == 1
