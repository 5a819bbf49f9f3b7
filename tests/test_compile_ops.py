"""Every row of the ops table compiled: what a replayed program gives is what eager gives."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import gpugrad as gg
from gpugrad.compiler import GraphBreak
from gpugrad.devices import backend_of
from tests.test_ops import CASES, call, make_inputs, rng_for

#: rows whose Python, or that of their derivative, reads values, or whose result has a shape that depends on them
EAGER = set(
    "bincount histc masked_select nonzero repeat_interleave unique unique_consecutive argwhere multinomial cdist "
    "searchsorted bucketize poisson binomial standard_gamma dirichlet matrix_rank ormqr lobpcg isin histogram "
    "histogramdd combinations inv solve det slogdet logdet pinv lu_factor eig eigvals matrix_exp matrix_power".split()
)
SIZE = 12
CHUNKS = [CASES[i : i + SIZE] for i in range(0, len(CASES), SIZE)]


def _call(op, sample, tensors):
    """The row's (first) result, as memory of its own: a view of an argument is not replayed."""
    return call(op, sample, tensors).clone()


def _plain(backend):
    """The backend without its way of running programs: step by step."""

    class Plain:
        def __enter__(self):
            backend.lowering = ""

        def __exit__(self, *error):
            del backend.lowering

    return Plain()


def _tensors(op, sample, dtype, seed, device):
    arrays = make_inputs(op, sample, dtype, rng_for(op.name, seed))
    return [gg.tensor(a, device=device) for a in arrays]


def _traceable(op, sample, kind, device):
    """Whether the row alone is replayed, run step by step; it then agrees with eager."""
    f = gg.compile(lambda *t: _call(op, sample, t))
    with warnings.catch_warnings(), _plain(backend_of(gg.device(device))):
        warnings.simplefilter("ignore", GraphBreak)
        for seed in (1, 2):
            inputs = _tensors(op, sample, kind, seed, device)
            got, expected = f(*inputs), _call(op, sample, inputs)
            if f.traces:
                _close(op, got, expected)
    return bool(f.traces)


def _close(op, got, expected):
    assert got.dtype is expected.dtype and got.shape == expected.shape, op.name
    tolerance = 1e-4 if op.name in ("pow", "std", "var", "float_power") else 2e-5
    a, b = got.detach().cpu().to_numpy(), expected.detach().cpu().to_numpy()
    np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance, err_msg=op.name)


@pytest.mark.parametrize("chunk", CHUNKS, ids=[f"{c[0].id}-to-{c[-1].id}" for c in CHUNKS])
def test_forward_and_backward(chunk, device):
    """A dozen rows as one program, and their gradients as another."""
    rows = []
    for op, sample in (c.values for c in chunk):
        kind = np.float32 if "f" in op.dtypes else np.int64
        if op.name not in EAGER:
            assert _traceable(op, sample, kind, device), f"{op.name} cannot be traced"
            rows.append((op, sample, kind))

    def forward(inputs):
        return [_call(op, sample, t) for (op, sample, _), t in zip(rows, inputs, strict=True)]

    compiled = gg.compile(forward, fullgraph=True)
    for seed in (1, 2, 3):
        made = [_tensors(*row, seed, device) for row in rows]
        leaves = [
            t.requires_grad_() for (op, _, _), ts in zip(rows, made, strict=True) for t in ts
            if op.differentiable and t.dtype.is_floating_point
        ]  # fmt: skip
        results = []
        for f in (compiled, forward):
            outs = f(made)
            total = [o.sum() for o in outs if o.requires_grad]
            for t in leaves:
                t.grad = None
            if total:
                gg.stack(total).sum().backward()
            results.append((outs, [t.grad for t in leaves]))
        for (op, _, _), got, expected in zip(rows, results[0][0], results[1][0], strict=True):
            _close(op, got, expected)
        names = [op for (op, _, _), ts in zip(rows, made, strict=True) for t in ts
                 if op.differentiable and t.dtype.is_floating_point]  # fmt: skip
        for op, got, expected in zip(names, results[0][1], results[1][1], strict=True):
            assert (got is None) == (expected is None), op.name
            if got is not None:
                _close(op, got, expected)
    if rows:
        assert len(compiled.traces) == 1
