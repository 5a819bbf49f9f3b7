"""The contract of ``gpugrad/backends/base.py``, method by method: device kernels against NumPy.

Each test runs on OpenCL with the launch shapes for CPUs, with those for GPUs and with 64-bit index arithmetic, and
on CUDA where there is a device.
"""

from __future__ import annotations

import ctypes
import itertools
import json
import sys
import threading
from types import SimpleNamespace

import ml_dtypes
import numpy as np
import pytest

import gpugrad as gg
from gpugrad import layout
from gpugrad.backends import cpu, cuda, kernel_source, opencl
from gpugrad.backends.base import Elementwise, StridedArray
from gpugrad.errors import DeviceError, OutOfMemoryError

BF16 = np.dtype(ml_dtypes.bfloat16)
F16, F32, F64 = np.dtype("f2"), np.dtype("f4"), np.dtype("f8")
I8, U8, I16, I32, I64 = np.dtype("i1"), np.dtype("u1"), np.dtype("i2"), np.dtype("i4"), np.dtype("i8")
BOOL = np.dtype(bool)
ALL = [BOOL, U8, I8, I16, I32, I64, F16, BF16, F32, F64]
SPEC = cpu.open(0)

ADD = Elementwise("add", np.add, "a + b", 2)
MUL = Elementwise("mul", np.multiply, "a * b", 2)
LESS = Elementwise("less", np.less, "a < b", 2)
WHERE = Elementwise("where", np.where, "a != 0 ? b : c", 3, masked=True)
EXP = Elementwise("exp", np.exp, "exp(a)", 1)
FLOORDIV = Elementwise(
    "floordiv", np.floor_divide, "GG_FLOORDIV(a, b)", 2,
    check=lambda a, b: b == 0, c_check="b == 0", error=(ZeroDivisionError, "floordiv: division by zero"),
)  # fmt: skip


def first_device() -> int:
    for i, info in enumerate(opencl.enumerate_devices(probe=True)):
        if not info.error:
            return i
    pytest.skip("no OpenCL backend that works")


# What else than the dtypes that a test names runs with the shapes for CPUs.
VARIANTS = {"cpu-shapes": None, "gpu-shapes": (F32, F16, I64), "wide": (F32,), "cuda": None}


def over(*dtypes):
    """Parametrise ``dtype``: all of ``dtypes`` with the first variant, the telling ones with the others, since it is
    the compiling that takes the time."""

    def mark(function):
        function.dtypes = dtypes
        return function

    return mark


def pytest_generate_tests(metafunc):
    if "backend" in metafunc.fixturenames:
        asked = metafunc.config.getoption("--device").split(",")
        variants = {v: some for v, some in VARIANTS.items()
                    if "all" in asked or ("cuda" if v == "cuda" else "opencl") in asked}  # fmt: skip
        if not gg.is_available("cuda") and "cuda" not in asked:
            variants.pop("cuda", None)
        dtypes = getattr(metafunc.function, "dtypes", None)
        if dtypes is None:
            metafunc.parametrize("backend", variants, indirect=True, scope="module")
        else:
            pairs = [(v, d) for v, some in variants.items() for d in dtypes if some is None or d in some]
            metafunc.parametrize("backend, dtype", pairs, indirect=["backend"], ids=[f"{v}-{d}" for v, d in pairs],
                                 scope="module")  # fmt: skip


@pytest.fixture(scope="module")
def backend(request):
    if request.param == "cuda":
        return cuda.open(0)
    try:
        backend = opencl.open(first_device(), cpu_shapes=request.param != "gpu-shapes")
    except DeviceError as error:
        pytest.skip(str(error))
    backend.force_wide = request.param == "wide"
    return backend


@pytest.fixture
def rng():
    return np.random.default_rng(7)


def values(rng, shape, dtype, low=-9, high=9):
    dtype = np.dtype(dtype)
    if dtype == BOOL:
        return rng.random(shape) > 0.5
    if dtype.kind in "ui":
        return rng.integers(max(low, 0) if dtype.kind == "u" else low, high, shape).astype(dtype)
    return rng.uniform(low, high, shape).astype(dtype)


def same(backend, result, expected, rtol=0.0, atol=0.0):
    got = backend.to_host(result)
    assert got.shape == expected.shape and got.dtype == expected.dtype
    if got.dtype in (F16, BF16):
        got, expected = got.astype(F32), expected.astype(F32)
    if rtol or atol:
        np.testing.assert_allclose(got, expected, rtol=rtol, atol=atol)
    else:
        np.testing.assert_array_equal(got, expected)


def views(rng, dtype):
    """Arrays of many layouts."""
    x = values(rng, (6, 5, 4), dtype)
    yield x
    yield x.transpose(2, 0, 1)
    yield x[::2, 1:, ::-1]
    yield x[:, 2]
    yield np.broadcast_to(x[:, :1], (6, 5, 4))
    yield x[2, 3, 1]
    yield x[:0]
    yield values(rng, (1,), dtype)
    yield values(rng, (1000,), dtype)


def put(backend, x):
    """``x`` on the backend with the same strides as here."""
    if not x.size:
        return backend.from_host(x)
    if x.ndim == 2 and x.flags.f_contiguous:
        return backend.from_host(x.T).transpose((1, 0))
    base = x
    while base.base is not None and isinstance(base.base, np.ndarray):
        base = base.base
    whole = backend.from_host(base)
    offset = x.__array_interface__["data"][0] - base.__array_interface__["data"][0]
    assert base.strides == layout.contiguous_strides(base.shape, base.itemsize)
    return backend.as_strided(whole, x.shape, x.strides, offset)


# -- memory, copies -------------------------------------------------------------------


@over(*ALL)
def test_round_trip_and_strided_copy(backend, rng, dtype):
    for x in views(rng, dtype):
        same(backend, backend.from_host(x), x)
        same(backend, put(backend, x), x)
        copied = backend.copy(put(backend, x))
        assert copied.is_contiguous
        same(backend, copied, x)


@over(*ALL)
def test_casts(backend, rng, dtype):
    source = dtype
    x = values(rng, (3, 37), source, 0, 9)
    special = {"f": [0.0, -0.0, 0.5, 1.5, 2.5, 3.0e-8, 65504.0, 1e-3], "i": [0, 1, 5, 127], "u": [0, 1, 5, 127]}
    if source != BOOL:
        x[0, :4] = special.get(source.kind, special["f"])[:4]
    for target in ALL:
        same(backend, backend.copy(put(backend, x), target), SPEC.copy(x, target))


def test_half_rounding_is_to_nearest_even(backend):
    bits = np.arange(0, 2**32, 65521, dtype=np.uint32)
    x = bits.view(F32)
    for dtype in (F16, BF16):
        with np.errstate(all="ignore"):
            same(backend, backend.copy(backend.from_host(x), dtype), x.astype(dtype))
            double = x[np.isfinite(x)].astype(F64) * (1 + 2.0**-40)
            same(backend, backend.copy(backend.from_host(double), dtype), double.astype(dtype))
    every = np.arange(65536, dtype=np.uint16)
    for dtype in (F16, BF16):
        same(backend, backend.copy(backend.from_host(every.view(dtype)), F32), every.view(dtype).astype(F32))


def test_copy_into_overlap(backend, rng):
    x = values(rng, (1000,), F32)
    for source, target in ((np.s_[:-1], np.s_[1:]), (np.s_[1:], np.s_[:-1]), (np.s_[::-1], np.s_[:])):
        on_device, expected = backend.from_host(x), x.copy()
        backend.copy(on_device[source], out=on_device[target])
        expected[target] = x[source]
        same(backend, on_device, expected)


def test_copy_broadcasts_into_out(backend, rng):
    row, out = values(rng, (5,), I32), backend.from_host(np.zeros((4, 5), F32))
    backend.copy(backend.from_host(row), out=out)
    same(backend, out, np.broadcast_to(row, (4, 5)).astype(F32))


@over(*ALL)
def test_fill_and_arange(backend, dtype):
    out = backend.from_host(np.zeros((7, 9), dtype))
    backend.fill(out[::2, 1::3], 3)
    expected = np.zeros((7, 9), dtype)
    expected[::2, 1::3] = 3
    same(backend, out, expected)
    if dtype != BOOL:
        same(backend, backend.arange(50, 2, 1, dtype), SPEC.arange(50, 2, 1, dtype))
        same(backend, backend.arange(0, 2, 1, dtype), SPEC.arange(0, 2, 1, dtype))
    if dtype in (F32, F64):
        same(backend, backend.arange(1000, 0.1, 0.3, dtype), SPEC.arange(1000, 0.1, 0.3, dtype), rtol=1e-7)


def test_eight_dimensions_are_enough(backend, rng):
    x = values(rng, (2, 3, 2, 3, 2, 3, 2, 3), F32).transpose(7, 2, 4, 1, 0, 6, 3, 5)
    same(backend, backend.copy(put(backend, x)), x)


# -- elementwise -----------------------------------------------------------------------


@over(*ALL)
def test_map_layouts(backend, rng, dtype):
    for x in views(rng, dtype):
        y = x[..., :1] if x.ndim else x
        product = backend.map(MUL, [put(backend, x), put(backend, y)], dtype, dtype)
        same(backend, product, SPEC.map(MUL, [x, y], dtype, dtype))
        same(backend, backend.map(LESS, [put(backend, x), 2], dtype, BOOL), SPEC.map(LESS, [x, 2], dtype, BOOL))


def test_map_mixed_dtypes_and_where(backend, rng):
    a, b, c = values(rng, (8, 1), BOOL), values(rng, (33,), F16), values(rng, (8, 33), I32)
    same(backend, backend.map(WHERE, [put(backend, a), put(backend, b), put(backend, c)], F32, F32),
         SPEC.map(WHERE, [a, b, c], F32, F32))  # fmt: skip
    same(backend, backend.map(ADD, [put(backend, b), put(backend, c)], F32, BF16), SPEC.map(ADD, [b, c], F32, BF16))


def test_map_keeps_a_shared_dense_order(backend, rng):
    x = values(rng, (4, 5), F32).T
    result = backend.map(ADD, [put(backend, x), put(backend, x)], F32, F32)
    assert result.strides == x.strides
    same(backend, result, x + x)


def test_map_out(backend, rng):
    x = values(rng, (6, 8), F32)
    on_device, expected = backend.from_host(x), x.copy()
    assert backend.map(ADD, [on_device, 1.5], F32, F32, out=on_device) is on_device
    same(backend, on_device, expected + np.float32(1.5))
    backend.map(ADD, [on_device[:, :-1], on_device[:, 1:]], F32, F32, out=on_device[:, 1:])
    expected = expected + np.float32(1.5)
    expected[:, 1:] = expected[:, :-1] + expected[:, 1:]
    same(backend, on_device, expected)
    narrow = backend.from_host(np.zeros((6, 8), I32))
    backend.map(ADD, [put(backend, x), 0.0], F32, F32, out=narrow)
    same(backend, narrow, x.astype(I32))


def test_map_scalars(backend):
    x = backend.from_host(np.ones(3, F32))
    same(backend, backend.map(MUL, [x, 1e300], F32, F32), np.full(3, np.inf, F32))
    same(backend, backend.map(MUL, [x, True], F32, F32), np.ones(3, F32))
    same(backend, backend.map(ADD, [backend.from_host(np.ones(3, U8)), -2], U8, U8), np.full(3, 255, U8))
    same(backend, backend.map(ADD, [backend.from_host(np.ones(3, F64)), 0.1], F64, F64), np.full(3, 1.1))


def test_zero_division_is_raised_at_the_next_read(backend):
    x = backend.from_host(np.array([5, -7, 9], I32))
    y = backend.from_host(np.array([2, 0, 3], I32))
    result = backend.map(FLOORDIV, [x, y], I32, I32)
    with pytest.raises(ZeroDivisionError, match="floordiv: division by zero"):
        backend.to_host(result)
    backend.synchronize()
    same(backend, backend.map(FLOORDIV, [x, 2], I32, I32), np.array([2, -4, 4], I32))
    backend.map(FLOORDIV, [x, 0], I32, I32)
    with pytest.raises(ZeroDivisionError):
        backend.synchronize()


@pytest.mark.parametrize("name", ["MIN", "MAX", "FLOORDIV", "REMAINDER", "FMOD"])
@over(U8, I8, I32, I64, F32)
def test_math_of_two(backend, rng, name, dtype):
    reference = {"MIN": np.minimum, "MAX": np.maximum, "FLOORDIV": np.floor_divide, "REMAINDER": np.remainder,
                 "FMOD": np.fmod}[name]  # fmt: skip
    a, b = values(rng, (500,), dtype), values(rng, (500,), dtype)
    if dtype.kind in "ui":
        b[b == 0] = 3
        a[:2], b[:2] = np.iinfo(dtype).min, np.iinfo(dtype).max
        if dtype.kind == "i":
            b[2:4] = -1
    else:
        a[:9] = [np.nan, 1, np.inf, 5, 0.0, -0.0, 3, -3, 6]
        b[:9] = [1, np.nan, 2, np.inf, 2, 3, 0, 0, -3]
    row = Elementwise(name.lower(), reference, f"GG_{name}(a, b)", 2)
    same(backend, backend.map(row, [backend.from_host(a), backend.from_host(b)], dtype, dtype),
         SPEC.map(row, [a, b], dtype, dtype))  # fmt: skip


def test_integer_powers_and_shifts(backend):
    a = np.array([0, 1, -1, 2, 3, -5, 10, 7, -1, 1, 2], I32)
    b = np.array([0, 5, 7, 10, 40, 3, 9, 31, -3, -2, -1], I32)
    with np.errstate(all="ignore"):
        units = {1: (1, 1), -1: (1, -1)}
        expected = [int(x) ** int(y) if y >= 0 else units.get(int(x), (0, 0))[y % 2] for x, y in zip(a, b, strict=True)]
    wrapped = np.array([e & 0xFFFFFFFF for e in expected], np.uint32).view(I32)
    power = Elementwise("ipow", np.power, "GG_IPOW(a, b)", 2)
    same(backend, backend.map(power, [backend.from_host(a), backend.from_host(b)], I32, I32), wrapped)
    counts = np.array([0, 1, 31, 32, 40, -1], I32)
    left = Elementwise("shl", np.left_shift, "GG_SHL(a, b)", 2)
    right = Elementwise("shr", np.right_shift, "GG_SHR(a, b)", 2)
    c = backend.from_host(counts)
    same(backend, backend.map(left, [backend.from_host(np.full(6, 3, I32)), c], I32, I32),
         np.array([3, 6, -(2**31), 0, 0, 0], I32))  # fmt: skip
    same(backend, backend.map(right, [backend.from_host(np.full(6, -8, I32)), c], I32, I32),
         np.array([-8, -4, -1, -1, -1, -1], I32))  # fmt: skip


# -- reductions, scans, order --------------------------------------------------------------

SHAPES = [((5000,), (0,)), ((3, 9001), (1,)), ((700, 3), (1,)), ((700, 3), (0,)), ((600, 70), (0,)),
          ((4, 6, 5, 7), (0, 2, 3)), ((4, 6, 5, 7), (1,)), ((4, 6, 5, 7), (0, 1, 2, 3)), ((3, 4), ()),
          ((1, 4, 1), (0, 2)), ((), ())]  # fmt: skip


@pytest.mark.parametrize("kind", ["sum", "prod", "max", "min", "any", "all"])
@over(BOOL, I32, BF16, F32)
def test_reduce(backend, rng, kind, dtype):
    for shape, axes in SHAPES:
        x = values(rng, shape, dtype, 0 if kind == "any" else -3, 4)
        result = BOOL if kind in ("any", "all") else I64 if kind in ("sum", "prod") and dtype in (BOOL, I32) else dtype
        if kind == "prod" and dtype in (F32, BF16):
            x = (1 + x / 3000).astype(dtype)
        for y in (x, x.transpose()):
            axes_y = tuple(sorted(x.ndim - 1 - a for a in axes)) if y is not x else axes
            got = backend.reduce(kind, put(backend, y), axes_y, result)
            tolerance = {F32: 1e-5, BF16: 1e-2}.get(result, 0) if kind in ("sum", "prod") else 0
            same(backend, got, SPEC.reduce(kind, y, axes_y, result), rtol=tolerance, atol=tolerance * 100)


def test_reduce_many_elements_accurately(backend, rng):
    x = rng.random(3_000_000).astype(F32)
    exact = x.astype(F64).sum()
    got = float(backend.to_host(backend.reduce("sum", backend.from_host(x), (0,), F32)))
    assert abs(got - exact) / exact < 2e-7
    same(backend, backend.reduce("sum", backend.from_host(x.reshape(1500, 2000)), (0,), F32),
         x.reshape(1500, 2000).astype(F64).sum(0).astype(F32), rtol=2e-6)  # fmt: skip


def test_reduce_is_deterministic(backend, rng):
    x = backend.from_host(rng.standard_normal((200, 3001)).astype(F32))
    for axes in ((0,), (1,), (0, 1)):
        first, second = (backend.to_host(backend.reduce("sum", x, axes, F32)) for _ in range(2))
        assert first.tobytes() == second.tobytes()


def test_reduce_of_nothing(backend):
    x = backend.from_host(np.zeros((3, 0), F32))
    same(backend, backend.reduce("sum", x, (1,), F32), np.zeros(3, F32))
    same(backend, backend.reduce("prod", x, (1,), F32), np.ones(3, F32))
    same(backend, backend.reduce("any", x, (0, 1), BOOL), np.zeros((), BOOL))
    same(backend, backend.reduce("all", x, (1,), BOOL), np.ones(3, BOOL))
    same(backend, backend.reduce("max", x, (0,), F32), np.zeros((0,), F32))


@pytest.mark.parametrize("n", [9, 5000])
def test_nan_is_passed_on(backend, n):
    x = np.arange(2 * n, dtype=F32).reshape(2, n)
    x[0, n // 2] = np.nan
    for kind in ("max", "min"):
        same(backend, backend.reduce(kind, backend.from_host(x), (1,), F32), SPEC.reduce(kind, x, (1,), F32))
        same(backend, backend.reduce(kind, backend.from_host(x), (0,), F32), SPEC.reduce(kind, x, (0,), F32))


@over(BOOL, U8, I64, F16, F32)
def test_arg_reduce(backend, rng, dtype):
    for shape, axis in (((5000,), 0), ((40, 30), 0), ((40, 30), 1), ((2, 3, 4), 1)):
        x = values(rng, shape, dtype)
        for kind in ("argmax", "argmin"):
            same(backend, backend.arg_reduce(kind, put(backend, x), axis), SPEC.arg_reduce(kind, x, axis))
            if dtype in (F16, F32):
                y = x.copy()
                y[(shape[0] // 2,) * len(shape[:1])] = np.nan
                same(backend, backend.arg_reduce(kind, put(backend, y), axis), SPEC.arg_reduce(kind, y, axis))


@over(I32, BF16, F32)
def test_scan(backend, rng, dtype):
    for shape, axis in (((10_000,), 0), ((3, 2500), 1), ((2500, 3), 0), ((4, 5, 6), 1), ((0, 3), 0)):
        x = values(rng, shape, dtype, 0, 3)
        tolerance = {F32: 1e-4, BF16: 1e-2}.get(dtype, 0)
        result = I64 if dtype == I32 else dtype
        total = backend.scan("sum", put(backend, x), axis, result)
        same(backend, total, SPEC.scan("sum", x, axis, result), rtol=tolerance)
        small = (1 + x / 9000).astype(dtype)
        same(backend, backend.scan("prod", put(backend, small), axis, dtype), SPEC.scan("prod", small, axis, dtype),
             rtol=tolerance * 3)  # fmt: skip
        for kind in ("max", "min"):
            same(backend, backend.scan(kind, put(backend, x), axis, dtype), SPEC.scan(kind, x, axis, dtype))


@over(BOOL, U8, I64, BF16, F32)
@pytest.mark.parametrize("descending", [False, True])
def test_sort(backend, rng, dtype, descending):
    for shape, axis in (((5000,), 0), ((7, 300), 1), ((33, 5), 0), ((3, 17, 2), 1), ((4, 0), 1), ((1,), 0), ((), 0)):
        x = values(rng, shape, dtype)
        if dtype in (BF16, F32) and x.size > 20:
            x.reshape(-1)[::7] = np.nan
        got, positions = backend.sort(put(backend, x), axis, descending)
        if x.ndim == 0:
            same(backend, got, x)
            continue
        expected = SPEC.sort(x, axis, descending)
        same(backend, got, expected[0])
        same(backend, positions, expected[1])


def test_sort_of_a_view_with_an_offset(backend, rng):
    x = values(rng, (300,), F32)
    got, positions = backend.sort(backend.from_host(x)[100:], 0, False)
    same(backend, got, np.sort(x[100:]))
    same(backend, positions, np.argsort(x[100:], kind="stable"))


def test_nonzero(backend, rng):
    x = values(rng, (20, 7), I32, 0, 2)
    same(backend, backend.nonzero(put(backend, x)), np.flatnonzero(x).astype(I64))


@over(F16, F32)
def test_softmax(backend, rng, dtype):
    for shape, axis in (((6, 10), 1), ((3, 700), 1), ((30, 5), 0), ((2, 3, 40), 1), ((7,), 0), ((0, 3), 1)):
        x = values(rng, shape, dtype, -50, 50)
        for y in (x, np.ascontiguousarray(x.T).T):
            exact = y.astype(F64)
            shifted = exact - exact.max(axis, keepdims=True) if y.size else exact
            log = shifted - np.log(np.exp(shifted).sum(axis, keepdims=True))
            tolerance = 2e-3 if dtype == F16 else 1e-6
            same(backend, backend.offer("softmax")(put(backend, y), axis), np.exp(log).astype(dtype), atol=tolerance)
            same(backend, backend.offer("log_softmax")(put(backend, y), axis), log.astype(dtype), tolerance, tolerance)


# -- products -----------------------------------------------------------------------------------


@over(I64, F16, BF16, F32, F64)
def test_matmul(backend, rng, dtype):
    sizes = [(1, 1, 1), (3, 5, 4), (17, 70, 130), (6, 64, 64), (33, 0, 9), (0, 4, 4), (65, 129, 1), (1, 300, 70),
             (100, 33, 65)]  # fmt: skip
    for (m, k, n), (ta, tb) in itertools.product(sizes, itertools.product((0, 1), repeat=2)):
        a = values(rng, (k, m) if ta else (m, k), dtype, -2, 3)
        b = values(rng, (n, k) if tb else (k, n), dtype, -2, 3)
        a, b = a.T if ta else a, b.T if tb else b
        got = backend.matmul(put(backend, a), put(backend, b))
        tolerance = {F16: 2e-3, BF16: 2e-2, F32: 1e-5, F64: 1e-12}.get(dtype, 0)
        same(backend, got, SPEC.matmul(a, b), rtol=tolerance, atol=tolerance * 100)


def test_matmul_batches(backend, rng):
    a, b = values(rng, (2, 3, 20, 30), F32), values(rng, (2, 3, 30, 70), F32)
    one = values(rng, (1, 30, 70), F32)
    cases = [(a, b), (a, np.broadcast_to(one, b.shape)), (a[:, ::2], b[:, ::2]), (a[..., ::2], b[..., ::2, :]),
             (np.broadcast_to(a[:1], a.shape), b.transpose(1, 0, 2, 3).transpose(1, 0, 2, 3)),
             (b.transpose(0, 1, 3, 2), a.transpose(0, 1, 3, 2)), (a[:, :, :0], b),
             (a[..., :0], b[..., :0, :])]  # fmt: skip
    for x, y in cases:
        same(backend, backend.matmul(put(backend, x), put(backend, y)), SPEC.matmul(x, y), rtol=1e-5, atol=1e-4)


# -- indexing -------------------------------------------------------------------------------------


@over(BOOL, I16, F32, F64)
@pytest.mark.parametrize("integer", [I64, U8], ids=str)
def test_take_and_gather(backend, rng, dtype, integer):
    for x in (values(rng, (6, 40, 5), dtype), values(rng, (5, 40, 6), dtype).transpose(2, 1, 0)):
        for axis in range(3):
            index = rng.integers(0, x.shape[axis], 11).astype(integer)
            same(backend, backend.take(put(backend, x), put(backend, index[::-2]), axis, "take"),
                 np.take(x, index[::-2], axis))  # fmt: skip
            shape = [4, 3, 2]
            shape[axis] = 9
            index = rng.integers(0, x.shape[axis], shape).astype(integer)
            picked = backend.gather(put(backend, x), put(backend, index), axis, "gather")
            same(backend, picked, SPEC.gather(x, index, axis, "gather"))
    same(backend, backend.take(put(backend, x), put(backend, np.zeros(0, integer)), 0, "take"), x[:0])


@pytest.mark.parametrize("bad", [-1, 5, 2**40])
def test_index_out_of_range(backend, bad):
    x = backend.from_host(np.arange(10, dtype=F32).reshape(5, 2))
    index = backend.from_host(np.array([0, bad, 1], I64))
    result = backend.take(x, index, 0, "embedding")
    with pytest.raises(IndexError, match=rf"embedding: index {bad} is out of range for size 5"):
        backend.to_host(result)
    same(backend, backend.take(x, backend.from_host(np.array([4], I64)), 0, "take"), np.array([[8, 9]], F32))
    column = backend.from_host(np.array([[0, bad]], I64))
    backend.gather(x, column, 0, "gather")
    with pytest.raises(IndexError, match=rf"gather: index {bad} "):
        backend.synchronize()
    backend.scatter(x, column, backend.from_host(np.ones((1, 2), F32)), 0, "add", "scatter_add")
    with pytest.raises(IndexError, match=rf"scatter_add: index {bad} "):
        backend.synchronize()


def test_the_first_failing_launch_is_named(backend):
    x = backend.from_host(np.zeros(3, F32))
    for op, i in (("fine", 2), ("first", 7), ("second", 8)):
        backend.take(x, backend.from_host(np.array([i], I64)), 0, op)
    with pytest.raises(IndexError, match="first: index 7"):
        backend.synchronize()


@pytest.mark.parametrize("mode", ["set", "add", "multiply", "max", "min"])
@over(BOOL, I32, BF16, F32)
def test_scatter(backend, rng, mode, dtype):
    out = values(rng, (6, 50, 5), dtype, 1, 4)
    for axis in range(3):
        shape = [4, 3, 5]
        shape[axis] = 40
        index = rng.integers(0, out.shape[axis], shape)
        rows = np.broadcast_to(rng.integers(0, out.shape[axis], [40 if i == axis else 1 for i in range(3)]), shape)
        mixed = np.broadcast_to(index[:, :, :1], shape) if axis != 2 else index
        for where in (index, rows, mixed):
            source = values(rng, shape, dtype, 1, 3)
            expected = out.copy()
            SPEC.scatter(expected, where, source, axis, mode, "scatter")
            target = backend.from_host(out)
            backend.scatter(target, put(backend, where), put(backend, source), axis, mode, "scatter")
            tolerance = {BF16: 1e-2, F32: 1e-5}.get(dtype, 0) if mode in ("add", "multiply") else 0
            same(backend, target, expected, rtol=tolerance)


def test_scatter_add_into_a_view_twice_gives_the_same_bits(backend, rng):
    index = rng.integers(0, 10, 3000)
    source = rng.standard_normal((3000, 7)).astype(F32)
    results = []
    for _ in range(2):
        out = backend.from_host(np.zeros((7, 20), F32))
        view = out.transpose((1, 0))[::2]
        rows = backend.as_strided(backend.from_host(index), (3000, 7), (8, 0), 0)
        backend.scatter(view, rows, backend.from_host(source), 0, "add", "index_add")
        results.append(backend.to_host(out))
    assert results[0].tobytes() == results[1].tobytes()
    expected = np.zeros((10, 7))
    np.add.at(expected, index, source.astype(F64))
    np.testing.assert_allclose(results[0].T[::2], expected, rtol=1e-3, atol=1e-4)
    assert not results[0].T[1::2].any()


# -- random -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind, dtype",
    [("bits", I64), *itertools.product(("uniform", "normal"), (F16, BF16, F32, F64))],
    ids=str,
)
def test_random_is_the_same_stream_to_the_bit(backend, kind, dtype):
    for shape, seed, stream in (((1,), 0, 0), ((7, 11), 1234, 5), ((100_003,), -1, 2**63 + 9), ((0,), 0, 0)):
        got = backend.to_host(backend.random(kind, shape, dtype, seed, stream))
        expected = SPEC.random(kind, shape, dtype, seed, stream)
        assert got.dtype == expected.dtype and got.tobytes() == expected.tobytes()


# -- windows ------------------------------------------------------------------------------------------

WINDOWS = [((9,), (3,), (1,), (1,)), ((10, 11), (3, 2), (2, 1), (1, 2)), ((8, 40), (2, 5), (1, 1), (2, 1)),
           ((9, 9), (2, 2), (3, 3), (1, 1)), ((4, 600), (2, 3), (1, 2), (1, 1)),
           ((5, 6, 7), (2, 3, 2), (1, 2, 1), (2, 1, 1))]  # fmt: skip


@pytest.mark.parametrize("size, kernel, stride, dilation", WINDOWS, ids=str)
@over(BF16, F32)
def test_windows(backend, rng, size, kernel, stride, dilation, dtype):
    x = rng.integers(-5, 5, (2, 3, *size)).astype(dtype)
    counts = layout.window_counts(size, kernel, stride, dilation)
    windows = rng.integers(-5, 5, (2, 3, *counts, *kernel)).astype(dtype)
    s = len(size)
    columns = rng.integers(-5, 5, (2, 3, *kernel, *counts)).astype(dtype)
    back = columns.transpose(0, 1, *range(2 + s, 2 + 2 * s), *range(2, 2 + s))
    for w in (windows, back):
        same(backend, backend.fold(put(backend, w), size, stride, dilation), SPEC.fold(w, size, stride, dilation))
    for y in (x, x.transpose(1, 0, *range(2, 2 + s)), x[:, :, ::-1]):
        got, index = backend.max_pool(put(backend, y), kernel, stride, dilation)
        expected, places = SPEC.max_pool(y, kernel, stride, dilation)
        same(backend, got, expected)
        same(backend, index, places)
    gradient = rng.integers(-5, 5, places.shape).astype(dtype)
    same(backend, backend.max_pool_grad(put(backend, gradient), index, size, kernel, stride, dilation),
         SPEC.max_pool_grad(gradient, places, size, kernel, stride, dilation))  # fmt: skip


def test_max_pool_of_nan(backend):
    x = np.arange(16, dtype=F32).reshape(1, 1, 4, 4)
    x[0, 0, 1, 1] = np.nan
    got, index = backend.max_pool(backend.from_host(x), (2, 2), (2, 2), (1, 1))
    expected, places = SPEC.max_pool(x, (2, 2), (2, 2), (1, 1))
    same(backend, got, expected)
    same(backend, index, places)


@pytest.mark.parametrize("groups", [1, 2])
def test_convolve(backend, rng, groups):
    x, w = values(rng, (3, 4, 9, 8), F32), values(rng, (6, 4 // groups, 3, 2), F32)
    args = ((2, 1), (1, 2), groups)
    expected = SPEC.convolve(x, w, *args)
    g = values(rng, expected.shape, F32)
    same(backend, backend.convolve(put(backend, x), put(backend, w), *args), expected, rtol=1e-5, atol=1e-3)
    same(backend, backend.convolve_input_grad(put(backend, g), put(backend, w), (9, 8), *args),
         SPEC.convolve_input_grad(g, w, (9, 8), *args), rtol=1e-5, atol=1e-3)  # fmt: skip
    same(backend, backend.convolve_weight_grad(put(backend, g), put(backend, x), (3, 2), *args),
         SPEC.convolve_weight_grad(g, x, (3, 2), *args), rtol=1e-5, atol=1e-3)  # fmt: skip


# -- the machinery ---------------------------------------------------------------------------------------


def test_memory_figures_and_running_out(backend):
    before = backend.memory_stats()
    array = backend.empty((1 << 20,), F32)
    during = backend.memory_stats()
    assert during["allocated"] >= before["allocated"] + array.nbytes
    assert during["peak"] >= during["allocated"] and during["reserved"] >= during["allocated"]
    del array
    assert backend.memory_stats()["allocated"] == before["allocated"]
    with pytest.raises(OutOfMemoryError, match=r"cannot allocate 4,398,046,511,104 bytes: .* in use"):
        backend.empty((1 << 40,), F32)
    same(backend, backend.arange(3, 0, 1, I64), np.arange(3))


def test_threads_may_launch_at_once(backend):
    x = backend.from_host(np.zeros(1000, F32))
    wrong = []

    def work(number):
        for _ in range(50):
            if not (backend.to_host(backend.map(ADD, [x, number], F32, F32)) == number).all():
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong


def test_devices_are_listed_in_order_and_absent_ones_named():
    kinds = [info.kind for info in opencl.enumerate_devices()]
    assert kinds == sorted(kinds, key=["gpu", "accelerator", "cpu"].index)
    with pytest.raises(DeviceError, match=r"opencl:99 does not exist: .*opencl:0"):
        opencl.open(99)


def test_no_double_in_single_precision_sources():
    row = kernel_source.Specialization("map", (("T", "f32"),), ())
    source = kernel_source.assemble(row, "opencl")
    assert "cl_khr_fp64" in source and "#ifdef GG_FP64" in source


def test_record(tmp_path):
    path = tmp_path / "kernels.jsonl"
    row = kernel_source.Specialization("map", (("NAME", "gg_x"), ("T", "f32")), ("gg_x_dense",))
    for _ in range(2):
        kernel_source.record(row, str(path))
    assert kernel_source.read_record(str(path)) == [row]
    assert json.loads(path.read_text().splitlines()[0])[0] == "map"


def test_missing_pieces_are_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyopencl", None)
    for call in (opencl.enumerate_devices, opencl.open):
        with pytest.raises(DeviceError, match=r'PyOpenCL, which is not installed: pip install "gpugrad\[opencl\]"'):
            call()
    monkeypatch.setitem(sys.modules, "cupy", None)
    for call in (cuda.enumerate_devices, cuda.open):
        with pytest.raises(DeviceError, match=r'CuPy, which is not installed: pip install "gpugrad\[cuda13\]"'):
            call()


def test_no_platform_and_a_driver_that_cannot_compile(monkeypatch):
    cl = pytest.importorskip("pyopencl")
    index = first_device()

    class Broken:
        def __init__(self, *args):
            pass

        def build(self, *args, **options):
            raise cl.RuntimeError("clBuildProgram failed\nerror: unknown target CPU 'generic'\nmore")

    with monkeypatch.context() as patch:
        patch.setattr(cl, "Program", Broken)
        with pytest.raises(DeviceError, match="cannot run kernels: error: unknown target CPU 'generic'. Choose"):
            opencl.open(index)
        assert "cannot run kernels" in opencl.enumerate_devices(probe=True)[index].error
    monkeypatch.setattr(cl, "get_platforms", list)
    assert opencl.enumerate_devices() == []
    with pytest.raises(DeviceError, match=r'no OpenCL device was found: .*pip install "gpugrad\[opencl\]"'):
        opencl.open(0)


class HostMemory:
    """A buffer as the cuda backend sees it: something with an address."""

    def __init__(self, array):
        self.array = np.ascontiguousarray(array)
        self.ptr = self.array.ctypes.data


class HostBlas:
    """cuBLAS's strided batched product, by its documentation, over host memory."""

    CUBLAS_COMPUTE_32F, CUBLAS_COMPUTE_64F, CUBLAS_GEMM_DEFAULT = 68, 70, -1

    @staticmethod
    def gemmStridedBatchedEx(handle, ta, tb, m, n, k, alpha, a, at, lda, sa, b, bt, ldb, sb, beta, c, ct, ldc, sc,
                             count, compute, algorithm):  # fmt: skip
        def columns(pointer, rows, cols, leading, stride, transposed):
            assert leading >= max(1, cols if transposed else rows)
            shape, steps = ((rows, cols), (4, 4 * leading)) if not transposed else ((rows, cols), (4 * leading, 4))
            reach = 4 * ((count - 1) * stride + (leading * ((rows if transposed else cols) - 1))
                         + (cols if transposed else rows))  # fmt: skip
            memory = (ctypes.c_char * reach).from_address(pointer)
            flat = np.frombuffer(memory, np.float32)
            return np.lib.stride_tricks.as_strided(flat, (count, *shape), (4 * stride, *steps))

        assert ctypes.c_float.from_address(alpha).value == 1 and ctypes.c_float.from_address(beta).value == 0
        product = columns(a, m, k, lda, sa, ta) @ columns(b, k, n, ldb, sb, tb)
        columns(c, m, n, ldc, sc, False)[...] = product


def test_what_cublas_is_asked_for(rng):
    """The cuda backend's products with cuBLAS replaced by its definition: every transposition, batch and edge."""
    backend = cuda.CudaBackend.__new__(cuda.CudaBackend)
    one, zero = np.ones(1, np.float32), np.zeros(1, np.float32)
    asked: list[int] = []

    class Blas(HostBlas):
        @staticmethod
        def gemmStridedBatchedEx(*args):
            asked.append(args[21])
            HostBlas.gemmStridedBatchedEx(*args)

    backend._blas = Blas, {"f32": (0, 68, one, zero), "f32 high": (0, 77, one, zero), "f32 medium": (0, 75, one, zero)}
    backend._use = lambda: None
    backend._cuda = SimpleNamespace(device=SimpleNamespace(get_cublas_handle=lambda: 0))

    def array(x):
        return StridedArray(HostMemory(x), 0, x.shape, layout.contiguous_strides(x.shape, 4), F32)

    def flat(*shape):
        return array(values(rng, shape, F32))

    def host(a):
        memory = a.buffer.array.reshape(-1)[a.offset // 4 :]
        return np.lib.stride_tricks.as_strided(memory, a.shape, a.strides)

    backend.empty = lambda shape, dtype: array(np.zeros(shape, dtype))
    backend.copy = lambda a: array(host(a))
    for m, k, n in ((3, 5, 4), (1, 5, 4), (3, 1, 4), (3, 5, 1), (1, 1, 1)):
        a, b = flat(2, 3, 2 * m, 2 * k), flat(2, 3, 2 * k, 2 * n)
        flips = (0, 1, 3, 2)
        for x, y in (
            (a[:, :, :m, :k], b[:, :, :k, :n]),
            (a[:, :, m:, k:], b[:, :, k:, n:]),
            (a[:, :, ::2, ::2], b[:, :, ::2, ::2]),
            (flat(2, 3, k, m).transpose(flips), flat(2, 3, n, k).transpose(flips)),
            (a[:, ::2, :m, :k], b[:, ::2, :k, :n]),
            (a[0, 0, :m, :k], b[1, 2, :k, :n]),
            (a[:, :, m - 1 :: -1, :k] if m > 1 else a[:, :, :1, :k], b[:, :, :k, :n]),
        ):
            np.testing.assert_allclose(host(backend.matmul(x, y)), host(x) @ host(y), rtol=1e-4, atol=1e-4)
        shared = a[:1, :1, :m, :k]
        shared = shared.view((2, 3, m, k), (0, 0, *shared.strides[2:]), 0)
        y = b[:, :, :k, :n]
        np.testing.assert_allclose(host(backend.matmul(shared, y)), host(shared) @ host(y), rtol=1e-4, atol=1e-4)
    assert set(asked) == {68}
    try:
        for precision, compute in (("high", 77), ("medium", 75), ("highest", 68)):
            gg.set_float32_matmul_precision(precision)
            assert cuda.matmul.allow_tf32 == (precision != "highest")
            backend.matmul(shared, y)
            assert asked[-1] == compute
        cuda.matmul.allow_tf32 = True
        assert gg.get_float32_matmul_precision() == "high"
    finally:
        gg.set_float32_matmul_precision("highest")
