"""Convolution and pooling of the CPU backend against loops and the contract's general path."""

from __future__ import annotations

import numpy as np
import pytest

import gpugrad as gg
from gpugrad.backends import cpu_convolution
from gpugrad.backends.base import Backend
from gpugrad.backends.cpu import CpuBackend
from gpugrad.ops.window import _conv_reference

CPU = CpuBackend()
CASES = [  # x, weight, stride, dilation, groups
    ((5, 3, 9, 8), (4, 3, 3, 3), (1, 1), (1, 1), 1),
    ((2, 3, 6, 30), (4, 3, 5, 2), (1, 1), (1, 2), 1),
    ((3, 4, 7, 7), (6, 4, 1, 1), (1, 1), (1, 1), 1),
    ((1, 4, 7, 7), (6, 4, 1, 1), (1, 1), (1, 1), 1),
    ((3, 2, 11, 9), (4, 2, 3, 3), (2, 3), (1, 1), 1),
    ((3, 2, 5, 5), (4, 2, 5, 5), (1, 1), (1, 1), 1),
    ((4, 6, 8, 8), (6, 1, 3, 3), (1, 1), (1, 1), 6),
    ((4, 6, 9, 8), (6, 1, 3, 3), (2, 2), (2, 1), 6),
    ((3, 4, 8, 8), (8, 1, 3, 3), (1, 1), (1, 1), 4),
    ((3, 6, 8, 8), (4, 3, 2, 2), (1, 2), (1, 1), 2),
    ((2, 3, 20), (5, 3, 4), (1,), (1,), 1),
    ((2, 3, 5, 6, 7), (4, 3, 2, 3, 2), (1, 1, 1), (1, 1, 1), 1),
    ((2, 3, 5, 6, 4), (4, 3, 2, 3, 2), (2, 1, 1), (1, 1, 2), 1),
]


@pytest.fixture(params=["one block", "many blocks"])
def blocks(request, monkeypatch):
    """With blocks of a single image as well, whatever the size."""
    if request.param == "many blocks":
        monkeypatch.setattr(cpu_convolution, "COLUMNS", 4)
        monkeypatch.setattr(cpu_convolution, "SMALL", 0)


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("x", "w", "stride", "dilation", "groups"), CASES)
def test_all_three_products(x, w, stride, dilation, groups, dtype):
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal(x).astype(dtype), rng.standard_normal(w).astype(dtype)
    close = {"rtol": 1e-4, "atol": 1e-4} if dtype == np.float32 else {"rtol": 1e-10, "atol": 1e-10}
    y = CPU.convolve(x, w, stride, dilation, groups)
    np.testing.assert_allclose(y, _conv_reference(x, w, stride=stride, dilation=dilation, groups=groups), **close)
    g = rng.standard_normal(y.shape).astype(dtype)
    dx = CPU.convolve_input_grad(g, w, x.shape[2:], stride, dilation, groups)
    np.testing.assert_allclose(
        dx, Backend.convolve_input_grad(CPU, g, w, x.shape[2:], stride, dilation, groups), **close
    )
    dw = CPU.convolve_weight_grad(g, x, w.shape[2:], stride, dilation, groups)
    np.testing.assert_allclose(
        dw, Backend.convolve_weight_grad(CPU, g, x, w.shape[2:], stride, dilation, groups), **close
    )
    assert y.dtype == dx.dtype == dw.dtype == dtype
    assert dx.shape == x.shape and dw.shape == w.shape


def test_layouts_and_halves():
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((2, 8, 9, 3)).astype(np.float32), rng.standard_normal((4, 3, 3, 3)).astype(np.float32)
    turned = x.transpose(0, 3, 1, 2)
    want = CPU.convolve(np.ascontiguousarray(turned), w, (1, 1), (1, 1), 1)
    np.testing.assert_array_equal(CPU.convolve(turned, w, (1, 1), (1, 1), 1), want)
    half = CPU.convolve(turned.astype(np.float16), w.astype(np.float16), (1, 1), (1, 1), 1)
    assert half.dtype == np.float16
    np.testing.assert_allclose(half, want, rtol=0.02, atol=0.05)


def test_the_same_bits_with_any_number_of_threads():
    groups = 16
    before = gg.get_num_threads()
    x, w = gg.randn(24, 16, 30, 30, requires_grad=True), gg.randn(16, 16 // groups, 3, 3, requires_grad=True)
    found = []
    try:
        for n in (1, 2, 3):
            gg.set_num_threads(n)
            x.grad = w.grad = None
            y = gg.conv2d(x, w, groups=groups)
            y.square().sum().backward()
            found.append([y.detach().numpy().tobytes(), x.grad.numpy().tobytes(), w.grad.numpy().tobytes()])
    finally:
        gg.set_num_threads(before)
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("size", [(6, 8), (7, 9), (2, 2), (3, 2)])
@pytest.mark.parametrize("values", ["random", "ties", "nan", "infinite"])
def test_pooling_by_two(size, values):
    rng = np.random.default_rng(1)
    x = rng.standard_normal((3, 4, *size)).astype(np.float32)
    if values == "ties":
        x = np.round(x)
    elif values == "nan":
        x[rng.random(x.shape) < 0.2] = np.nan
    elif values == "infinite":
        x[rng.random(x.shape) < 0.4] = -np.inf
    best, index = CPU.max_pool(x, (2, 2), (2, 2), (1, 1))
    h, w = size[0] // 2, size[1] // 2
    for n, c, i, j in np.ndindex(3, 4, h, w):
        window = x[n, c, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].reshape(-1)
        k = int(np.argmax(np.isnan(window))) if np.isnan(window).any() else int(np.argmax(window))
        np.testing.assert_array_equal(best[n, c, i, j], window[k])
        assert index[n, c, i, j] == (2 * i + k // 2) * size[1] + 2 * j + k % 2
