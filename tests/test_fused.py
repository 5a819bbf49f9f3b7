"""A backend's fused routine against the plain definition it stands in for."""

from __future__ import annotations

import numpy as np
import pytest

import gpugrad as gg
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
@pytest.mark.parametrize("name", sorted(fused.ROUTINES))
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


@pytest.mark.parametrize("name", sorted(fused.ROUTINES))
def test_extremes(device, name):
    x = gg.tensor([[1000.0, 1001.0, 999.0], [-1000.0, 0.0, -float("inf")], [float("inf"), 0.0, 0.0]], device=device)
    got = getattr(gg, name)(x, 1).to_numpy()
    assert np.isfinite(got[0]).all()
    assert got[1, 1] == (1.0 if name == "softmax" else 0.0)
    assert got[1, 2] == (0.0 if name == "softmax" else -np.inf)
    assert np.isnan(got[2, 0])
    assert not np.isnan(got[1]).any()
