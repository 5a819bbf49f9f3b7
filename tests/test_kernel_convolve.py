"""Convolution on the kernel backends against the CPU's, over shapes that take every way of ``kernel_convolve.py``."""

from __future__ import annotations

import numpy as np
import pytest

from gpugrad import layout
from gpugrad.backends import cpu, kernel_convolve, opencl
from gpugrad.errors import DeviceError

SPEC = cpu.open(0)
F32 = np.dtype(np.float32)

# input [n, c, *size], outputs, kernel, stride, dilation, groups
SHAPES = [
    ((2, 3, 20, 23), 7, (3, 3), (1, 1), (1, 1), 1),  # positions in whole and broken vectors
    ((3, 5, 9, 70), 13, (3, 5), (1, 1), (2, 1), 1),
    ((1, 2, 12, 40), 65, (2, 3), (1, 2), (1, 1), 1),  # every second element; more outputs than a tile
    ((2, 6, 11, 9), 12, (3, 3), (2, 3), (1, 1), 2),
    ((2, 70, 6, 5), 20, (3, 3), (1, 1), (1, 1), 1),  # more rows than are packed at a time
    ((5, 4, 7, 8), 9, (1, 1), (1, 1), (1, 1), 1),
    ((2, 4, 7, 8), 9, (1, 1), (2, 2), (1, 1), 1),
    ((1, 8, 1, 1), 16, (1, 1), (1, 1), (1, 1), 1),
    ((2, 6, 10, 37), 6, (3, 3), (1, 1), (1, 1), 6),  # depthwise
    ((2, 6, 10, 7), 12, (3, 2), (1, 1), (1, 2), 6),
    ((2, 6, 11, 40), 6, (3, 3), (2, 2), (1, 1), 6),
    ((2, 8, 9, 18), 12, (2, 2), (1, 1), (1, 1), 4),  # two in, three out of each group
    ((3, 4, 50), 5, (7,), (3,), (2,), 1),
    ((3, 4, 50), 4, (7,), (1,), (1,), 4),
    ((2, 3, 5, 6, 7), 4, (2, 3, 2), (1, 2, 1), (2, 1, 1), 1),
    ((2, 4, 5, 6, 7), 4, (2, 3, 2), (1, 2, 1), (1, 1, 1), 4),
]  # fmt: skip


@pytest.fixture(scope="module", params=[True, False], ids=["cpu-shapes", "gpu-shapes"])
def backend(request):
    if not {"opencl", "all"} & set(request.config.getoption("--device").split(",")):
        pytest.skip("needs OpenCL")
    try:
        return opencl.open(0, cpu_shapes=request.param)
    except DeviceError as error:
        pytest.skip(str(error))


@pytest.fixture(params=["few positions", "many positions"])
def positions(request, monkeypatch, backend):
    """What small images take by themselves, and what large ones take."""
    if request.param == "many positions":
        if not backend.cpu_shapes:
            pytest.skip("the same on GPUs")
        monkeypatch.setattr(kernel_convolve, "_ITEMS", 2)
        monkeypatch.setattr(kernel_convolve, "_POSITIONS", 1)
        backend._plans.clear()


def check(backend, got, expected, dtype):
    got = backend.to_host(got)
    assert got.dtype == expected.dtype and got.shape == expected.shape
    scale = float(np.abs(expected.astype(np.float64)).max()) or 1.0
    tolerance = {2: 2e-2, 4: 1e-5, 8: 1e-13}[dtype.itemsize] * scale
    np.testing.assert_allclose(got.astype(np.float64), expected.astype(np.float64), rtol=0, atol=tolerance)


@pytest.mark.parametrize("shape, outputs, kernel, stride, dilation, groups", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_convolution_and_its_adjoints(backend, positions, shape, outputs, kernel, stride, dilation, groups, dtype):
    dtype = np.dtype(dtype)
    if dtype != F32 and shape[0] != 2:
        pytest.skip("one batch size is enough for the other dtypes")
    if not backend.supports(dtype):
        pytest.skip("no such dtype here")
    rng = np.random.default_rng(3)
    x = rng.standard_normal(shape).astype(dtype)
    w = rng.standard_normal((outputs, shape[1] // groups, *kernel)).astype(dtype)
    args = (stride, dilation, groups)
    expected = SPEC.convolve(x, w, *args)
    g = rng.standard_normal(expected.shape).astype(dtype)
    dx, dw, dg = (backend.from_host(a) for a in (x, w, g))
    check(backend, backend.convolve(dx, dw, *args), expected, dtype)
    check(backend, backend.convolve_input_grad(dg, dw, shape[2:], *args),
          SPEC.convolve_input_grad(g, w, shape[2:], *args), dtype)  # fmt: skip
    check(backend, backend.convolve_weight_grad(dg, dx, kernel, *args),
          SPEC.convolve_weight_grad(g, x, kernel, *args), dtype)  # fmt: skip


@pytest.mark.parametrize("groups", [1, 4])
def test_views_are_read_where_they_are(backend, positions, groups):
    """Reversed, transposed and cut inputs, whose neighbours in memory are NaN."""
    rng = np.random.default_rng(4)
    whole = np.full((3, 6, 12, 44), np.nan, F32)
    whole[1:, 1:5, 2:10, 3:40] = rng.standard_normal((2, 4, 8, 37))
    x = whole[1:, 1:5, 2:10, 3:40]
    w = rng.standard_normal((8, 4 // groups, 3, 3)).astype(F32)
    there = backend.from_host(whole)[1:, 1:5, 2:10, 3:40]
    every = slice(None)
    back = slice(None, None, -1)
    for cut in ((every,), (every, every, back, back), (every, every, every, slice(0, 30, 2))):
        for order in ((0, 1, 2, 3), (0, 1, 3, 2)):
            mine, theirs = x[cut].transpose(order), there[cut].transpose(order)
            args = ((1, 1), (1, 1), groups)
            expected = SPEC.convolve(np.ascontiguousarray(mine), w, *args)
            check(backend, backend.convolve(theirs, backend.from_host(w), *args), expected, F32)
            check(backend, backend.convolve_weight_grad(backend.from_host(expected), theirs, (3, 3), *args),
                  SPEC.convolve_weight_grad(expected, np.ascontiguousarray(mine), (3, 3), *args), F32)  # fmt: skip


@pytest.mark.parametrize("groups, outputs", [(1, 8), (1, 3), (4, 4)])
def test_infinity_stays_with_the_windows_that_hold_it(backend, positions, groups, outputs):
    x = np.ones((1, 4, 6, 23), F32)
    x[0, 1, 2, 20] = np.inf
    w = np.ones((outputs, 4 // groups, 3, 3), F32)
    args = ((1, 1), (1, 1), groups)
    expected = SPEC.convolve(x, w, *args)
    got = backend.to_host(backend.convolve(backend.from_host(x), backend.from_host(w), *args))
    np.testing.assert_array_equal(got, expected)
    g = np.ones(expected.shape, F32)
    got = backend.to_host(backend.convolve_weight_grad(backend.from_host(g), backend.from_host(x), (3, 3), *args))
    np.testing.assert_array_equal(got, SPEC.convolve_weight_grad(g, x, (3, 3), *args))


def test_the_same_bits_every_time(backend, positions):
    rng = np.random.default_rng(5)
    x, g = (backend.from_host(rng.standard_normal(s).astype(F32)) for s in ((9, 3, 15, 15), (9, 8, 13, 13)))
    runs = [backend.to_host(backend.convolve_weight_grad(g, x, (3, 3), (1, 1), (1, 1), 1)) for _ in range(3)]
    assert runs[0].tobytes() == runs[1].tobytes() == runs[2].tobytes()


def test_more_spatial_dimensions_than_kernels_know(backend):
    x, w = backend.full((1, 1, 2, 2, 2, 2), 1, F32), backend.full((1, 1, 1, 1, 1, 1), 1, F32)
    with pytest.raises(RuntimeError, match="at most 3"):
        backend.convolve_input_grad(x, w, (2,) * 4, (1,) * 4, (1,) * 4, 1)


def test_nothing_to_convolve(backend):
    for n, o in ((0, 3), (2, 0)):
        x, w = backend.full((n, 2, 4, 4), 1, F32), backend.full((o, 2, 3, 3), 1, F32)
        y = backend.convolve(x, w, (1, 1), (1, 1), 1)
        assert y.shape == (n, o, *layout.window_counts((4, 4), (3, 3), (1, 1), (1, 1)))
        assert not backend.to_host(backend.convolve_input_grad(y, w, (4, 4), (1, 1), (1, 1), 1)).any()
        assert not backend.to_host(backend.convolve_weight_grad(y, x, (3, 3), (1, 1), (1, 1), 1)).any()
