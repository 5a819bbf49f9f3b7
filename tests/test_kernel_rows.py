"""Fused rows, transposes and conversions of the kernel backends against the CPU's, with the launch shapes of both kinds
of device."""

from __future__ import annotations

import numpy as np
import pytest

from gpugrad.backends import cpu, opencl
from gpugrad.errors import DeviceError, OutOfRangeError

SPEC = cpu.open(0)
F16, F32, F64 = np.dtype("f2"), np.dtype("f4"), np.dtype("f8")
TOLERANCE = {F16: 4e-3, F32: 4e-6, F64: 1e-12}


@pytest.fixture(scope="module", params=[True, False], ids=["cpu-shapes", "gpu-shapes"])
def backend(request):
    if not {"opencl", "all"} & set(request.config.getoption("--device").split(",")):
        pytest.skip("needs OpenCL")
    try:
        return opencl.open(0, cpu_shapes=request.param)
    except DeviceError as error:
        pytest.skip(str(error))


def same(backend, name, dtype, *args):
    """The routine ``name`` gives on ``backend`` what it gives on the CPU; arrays are uploaded."""
    want = SPEC.offer(name)(*args)
    given = [backend.from_host(a) if isinstance(a, np.ndarray) else a for a in args]
    got = backend.offer(name)(*given)
    for a, b in zip(*((r if isinstance(r, tuple) else (r,)) for r in (got, want)), strict=True):
        assert (a is None) == (b is None)
        if b is not None:
            a = backend.to_host(a)
            assert a.dtype == b.dtype and a.shape == b.shape
            wide = b.astype(np.float64)
            bound = TOLERANCE[dtype] * max(1.0, np.abs(wide).max())
            np.testing.assert_allclose(a.astype(np.float64), wide, rtol=TOLERANCE[dtype], atol=bound)
    return want


def numbers(shape, dtype, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


SHAPES = [((5, 7), 1), ((3, 64), 1), ((2, 3000), 1), ((6, 9, 70), 1), ((40, 3), 0), ((3, 4, 130), 0)]


@pytest.mark.parametrize("dtype", [F16, F32], ids=str)
@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_softmax(backend, name, dtype):
    for shape, axis in SHAPES:
        y = same(backend, name, dtype, 3 * numbers(shape, dtype), axis)
        same(backend, f"{name}_backward", dtype, numbers(shape, dtype, 1), y, axis)


def test_softmax_of_strided_operands(backend):
    x = numbers((8, 40, 48), F32)
    there = backend.from_host(x)
    for axis, view in [(2, (slice(1, None), slice(None, None, 2))), (1, (slice(None), slice(3, 30), slice(1, 9)))]:
        got = backend.to_host(backend.fused_softmax(there[view], axis))
        np.testing.assert_allclose(got, SPEC.fused_softmax(x[view], axis), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("dtype", [F16, F32], ids=str)
@pytest.mark.parametrize("shape", [(5, 7), (70, 64), (1300, 12), (3, 3000)], ids=str)
def test_norms(backend, shape, dtype):
    x, g = numbers(shape, dtype) + dtype.type(0.5), numbers(shape, dtype, 1)
    w, b = numbers(shape[1:], dtype, 2), numbers(shape[1:], dtype, 3)
    for weight, bias in [(w, b), (w, None), (None, None)]:
        _, moments = same(backend, "layer_norm", dtype, x, weight, bias, 1e-5)
        for needed in [(True, weight is not None, bias is not None), (False, weight is not None, True)]:
            same(backend, "layer_norm_backward", dtype, g, x, weight, moments, 1e-5, needed)
    for weight in (w, None):
        _, squares = same(backend, "rms_norm", dtype, x, weight, 1e-5)
        same(backend, "rms_norm_backward", dtype, g, x, weight, squares, 1e-5, (True, weight is not None))


@pytest.mark.parametrize("dtype", [F16, F32], ids=str)
def test_cross_entropy(backend, dtype):
    for rows, n in [(6, 10), (4, 512), (3, 2001)]:
        x, target = 3 * numbers((rows, n), dtype), np.random.default_rng(1).integers(0, n, rows)
        target[1] = -100
        x[1] = np.inf
        weight = np.abs(numbers(n, dtype, 2))
        same(backend, "cross_entropy", dtype, x[2:], target[2:], weight, -100, "op")
        loss, stats = SPEC.fused_cross_entropy(x[2:], target[2:], None, -100, "op")
        for g in (numbers(rows - 2, loss.dtype, 3), np.broadcast_to(loss.dtype.type(0.25), (rows - 2,))):
            same(backend, "cross_entropy_backward", dtype, g, x[2:], target[2:], stats)
        got, kept = backend.fused_cross_entropy(backend.from_host(x), backend.from_host(target), None, -100, "op")
        assert backend.to_host(got)[1] == 0
        ones = backend.from_host(np.ones(rows, loss.dtype))
        dx = backend.fused_cross_entropy_backward(ones, backend.from_host(x), backend.from_host(target), kept)
        assert not backend.to_host(dx)[1].any()


def test_cross_entropy_refuses_a_class(backend):
    x = backend.from_host(numbers((3, 5), F32))
    backend.fused_cross_entropy(x, backend.from_host(np.array([0, 5, 1])), None, -100, "loss")
    with pytest.raises(OutOfRangeError, match="loss: index 5 is out of range for size 5"):
        backend.synchronize()


@pytest.mark.parametrize("dtype", [np.dtype("u1"), F16, F32, F64], ids=str)
def test_transposes(backend, dtype):
    if not backend.supports(dtype):
        pytest.skip("this device has no float64")
    for shape, order in [
        ((100, 77), (1, 0)),
        ((3, 40, 50), (2, 1, 0)),
        ((5, 17, 33, 20), (0, 3, 1, 2)),
        ((90, 16), (1, 0)),
    ]:
        x = (50 * np.random.default_rng(0).standard_normal(shape)).astype(np.int8).astype(dtype)
        there = backend.from_host(x)
        np.testing.assert_array_equal(backend.to_host(backend.copy(there.transpose(order))), x.transpose(order))
        out = backend.empty([2 * n for n in x.transpose(order).shape], dtype)
        part = out[tuple(slice(1, n + 1) for n in x.transpose(order).shape)]
        backend.copy(there.transpose(order), out=part)
        np.testing.assert_array_equal(backend.to_host(part), x.transpose(order))


def test_rounding_to_half(backend):
    """Every half, its neighbours in float32, what lies between two halves, and anything."""
    halves = np.arange(1 << 16, dtype=np.uint16).view(F16).astype(F32)
    sorted_ = np.sort(halves[np.isfinite(halves)])
    between = sorted_[:-1] + np.diff(sorted_) / 2
    anything = np.random.default_rng(0).integers(0, 1 << 32, 100_000, dtype=np.uint32).view(F32)
    limits = np.array([65519.996, 65520, 1e38, -1e38, 1e-45, 2.9802322e-08, 2.980233e-08], F32)
    x = np.concatenate([halves, np.nextafter(sorted_, F32.type(np.inf)), np.nextafter(sorted_, F32.type(-np.inf)),
                        between, anything, limits])  # fmt: skip
    with np.errstate(all="ignore"):
        want = x.astype(F16)
    got = backend.to_host(backend.copy(backend.from_host(x), F16))
    np.testing.assert_array_equal(np.isnan(got), np.isnan(want))
    kept = ~np.isnan(want)
    np.testing.assert_array_equal(got.view(np.uint16)[kept], want.view(np.uint16)[kept])
