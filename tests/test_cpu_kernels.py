"""Large calls of the CPU backend by compiled kernels (gpugrad/backends/cpu_kernels.py): the same as NumPy's, on small
shapes here, and what happens without a compiler."""

import gc
import os
import subprocess
import sys
import threading
import warnings
from functools import cache

import numpy as np
import pytest

import gpugrad as gg
from gpugrad.backends import cpu_kernels, host_build
from gpugrad.backends.base import Elementwise
from gpugrad.backends.cpu import CpuBackend

needs_compiler = pytest.mark.skipif(host_build.compiler() is None, reason="no C compiler")
DTYPES = ["float32", "float64", "float16", "bfloat16"]
TOLERANCE = {"float32": 2e-6, "float64": 1e-14, "float16": 2e-3, "bfloat16": 1.6e-2}


@pytest.fixture
def both():
    """``both(name, *args)``: results by kernels and by NumPy. The kernels' backend takes every call."""
    by_kernels, by_numpy = CpuBackend(), CpuBackend()
    by_kernels.kernels_from, by_numpy.kernels_from = 1, None

    def call(name, *args):
        return [getattr(backend, name)(*args) for backend in (by_kernels, by_numpy)]

    return call


def normal(*shape, dtype="float32", seed=0, scale=1.0):
    values = np.random.default_rng(seed + sum(shape)).standard_normal(shape) * scale
    return values.astype(gg.tensor([], dtype=getattr(gg, dtype)).numpy().dtype)


def close(a, b, dtype, factor=4.0):
    if isinstance(a, tuple):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            close(x, y, dtype, factor)
    elif a is None:
        assert b is None
    else:
        assert a.shape == b.shape and a.dtype == b.dtype and a.flags.c_contiguous
        size = np.abs(b.astype(np.float64))
        size = max(float(size[np.isfinite(size)].max(initial=0)), 1e-30)
        tolerance = TOLERANCE[dtype] * factor
        np.testing.assert_allclose(a.astype(np.float64), b.astype(np.float64), rtol=tolerance, atol=tolerance * size)


@needs_compiler
def test_all_that_is_taken_is_compared_here():
    compared = {
        *(f"fused_{n}{d}" for n in ("softmax", "log_softmax", "cross_entropy") for d in ("", "_backward")),
        *(f"fused_{a}{n}{d}" for a in ("", "add_") for n in ("layer_norm", "rms_norm") for d in ("", "_backward")),
        *("fused_update", "convolve", "convolve_input_grad", "convolve_weight_grad", "max_pool", "max_pool_grad"),
    }
    elsewhere = {"fused_attention", "fused_attention_backward"}  # tests/test_flash_attention.py
    assert set(cpu_kernels.WORK) - elsewhere == compared


@cache
def rows():
    """The elementwise rows of the ops."""
    return {x.name: x for x in gc.get_objects() if type(x) is Elementwise}


@needs_compiler
@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("name", sorted(cpu_kernels.MAPPED))
def test_elementwise_rows_of_several_passes(both, name, dtype):
    row = rows()[name]
    shape = (1 << 9, (1 << 9) + 3)  # large enough for either way, and no whole number of vectors
    inputs = [normal(*shape, dtype=dtype, seed=k) for k in range(row.arity)]
    kind = inputs[0].dtype
    for x in inputs:
        x[0, :5] = [0, -0.0, np.inf, -np.inf, np.nan]
    if row.arity > 1:
        inputs[1][0, :25:5], inputs[0][0, 5:10] = 1.5, [2, 0, np.nan, np.inf, -1]
    a, b = both("map", row, inputs, kind, kind)
    taken, left = both("map_by_kernel", row, inputs, kind, kind)
    assert taken is not None and left is None
    np.testing.assert_array_equal(np.isnan(a), np.isnan(b))
    np.testing.assert_array_equal(np.signbit(a) & ~np.isnan(a), np.signbit(b) & ~np.isnan(b))
    assert a.dtype == b.dtype and a.shape == b.shape
    tolerance = 4 * TOLERANCE[dtype]
    np.testing.assert_allclose(a.astype(np.float64), b.astype(np.float64), rtol=tolerance, atol=tolerance)


@needs_compiler
def test_elementwise_rows_that_stay_with_numpy():
    backend = CpuBackend()
    backend.kernels_from = 1
    row, x = rows()["gelu_exact"], normal(600, 500)
    single = x.dtype
    assert backend.map_by_kernel(row, [x], single, single) is not None
    assert backend.map_by_kernel(rows()["exp"], [x], single, single) is None
    assert backend.map_by_kernel(row, [x[:, ::2]], single, single) is None
    assert backend.map_by_kernel(row, [x.astype("f8")], np.dtype("f8"), np.dtype("f8")) is None
    backward = rows()["gelu_exact_backward"]
    assert backend.map_by_kernel(backward, [x, x[:1]], single, single) is None
    for least in (x.size + 1, None):
        backend.kernels_from = least
        assert backend.map_by_kernel(row, [x], single, single) is None


@needs_compiler
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape, axis", [((5, 7), 1), ((3, 200), 1), ((2, 64, 3), 1), ((33, 1), 0), ((4, 1031), 1)])
def test_softmax(both, dtype, shape, axis):
    x, g = normal(*shape, dtype=dtype, scale=4), normal(*shape, dtype=dtype, seed=1)
    for name in ("softmax", "log_softmax"):
        a, b = both(f"fused_{name}", x, axis)
        close(a, b, dtype)
        close(*both(f"fused_{name}_backward", g, b, axis), dtype)
        turned = np.asfortranarray(x)[::-1]
        close(*both(f"fused_{name}", turned, axis), dtype)


@needs_compiler
@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_special_values_of_softmax(both, name):
    x = normal(8, 70)
    x[0, 3], x[1, 69], x[2, 5], x[3] = np.nan, np.inf, -np.inf, -np.inf
    x[4], x[5, :2], x[6] = 1e30, (-3e38, 3e38), -0.0
    with np.errstate(all="ignore"):
        a, b = both(f"fused_{name}", x, 1)
    np.testing.assert_array_equal(np.isnan(a), np.isnan(b))
    np.testing.assert_array_equal(np.isinf(a), np.isinf(b))
    close(np.nan_to_num(a), np.nan_to_num(b), "float32")


@needs_compiler
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [1, 31, 64, 100, 1030])
@pytest.mark.parametrize("given", [(True, True), (True, False), (False, False)])
def test_norms(both, dtype, n, given):
    rows = 70
    x, g = normal(rows, n, dtype=dtype), normal(rows, n, dtype=dtype, seed=1)
    residual, beside = normal(rows, n, dtype=dtype, seed=2), normal(rows, n, dtype=dtype, seed=3)
    weight, bias = (normal(n, dtype=dtype, seed=4 + i) if there else None for i, there in enumerate(given))
    loose = 64.0 if n == 1 else 8.0
    for needed in ((True, True, True), (True, False, False), (False, True, True)):
        _, (_, moments) = both("fused_layer_norm", x, weight, bias, 1e-5)
        close(*both("fused_layer_norm", x, weight, bias, 1e-5), dtype, loose)
        close(*both("fused_layer_norm_backward", g, x, weight, moments, 1e-5, needed), dtype, 16 * loose)
        close(*both("fused_add_layer_norm_backward", g, beside, x, weight, moments, 1e-5, needed), dtype, 16 * loose)
        _, (_, squares) = both("fused_rms_norm", x, weight, 1e-5)
        close(*both("fused_rms_norm", x, weight, 1e-5), dtype, loose)
        close(*both("fused_rms_norm_backward", g, x, weight, squares, 1e-5, needed[:2]), dtype, 16 * loose)
        close(*both("fused_add_rms_norm_backward", g, beside, x, weight, squares, 1e-5, needed[:2]), dtype, 16 * loose)
    close(*both("fused_add_layer_norm", x, residual, weight, bias, 1e-5), dtype, loose)
    close(*both("fused_add_rms_norm", x, residual, weight, 1e-5), dtype, loose)


@needs_compiler
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("classes", [3, 64, 205])
def test_cross_entropy(both, dtype, classes):
    x = normal(40, classes, dtype=dtype, scale=3)
    target = np.random.default_rng(0).integers(0, classes, 40)
    target[5], x[5, 1] = -100, np.inf
    weight = np.abs(normal(classes, dtype=dtype)) + normal(1, dtype=dtype) ** 2
    for w in (None, weight):
        (loss, stats), other = both("fused_cross_entropy", x, target, w, -100, "cross_entropy")
        close((loss, stats), other, dtype if dtype == "float32" else "float32", 8)
        assert loss[5] == 0
        for g in (normal(40, seed=9), np.broadcast_to(np.float32(0.25), (40,))):
            a, b = both("fused_cross_entropy_backward", g, x, target, stats)
            close(a, b, dtype)
            assert not a[5].any()
    target[7] = classes
    for backend_error in ("by kernels", "by NumPy"):
        backend = CpuBackend()
        backend.kernels_from = 1 if backend_error == "by kernels" else None
        with pytest.raises(IndexError, match=f"index {classes} is out of range for size {classes}"):
            backend.fused_cross_entropy(x, target, None, -100, "cross_entropy")


@needs_compiler
@pytest.mark.parametrize("groups, channels, outs", [(1, 3, 5), (2, 4, 6), (6, 6, 6)])
@pytest.mark.parametrize(
    "kernel, stride, dilation", [((3, 3), (1, 1), (1, 1)), ((2, 4), (2, 1), (1, 2)), ((5,), (1,), (2,))]
)
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_convolution(both, groups, channels, outs, kernel, stride, dilation, dtype):
    size = (14, 17)[: len(kernel)]
    x = normal(3, channels, *size, dtype=dtype)
    w = normal(outs, channels // groups, *kernel, dtype=dtype, seed=1)
    a, b = both("convolve", x, w, stride, dilation, groups)
    close(a, b, dtype, 8)
    g = normal(*b.shape, dtype=dtype, seed=2)
    close(*both("convolve_input_grad", g, w, size, stride, dilation, groups), dtype, 8)
    close(*both("convolve_weight_grad", g, x, kernel, stride, dilation, groups), dtype, 16)


@needs_compiler
@pytest.mark.parametrize(
    "kernel, stride, dilation", [((2, 2), (2, 2), (1, 1)), ((3, 2), (1, 2), (2, 1)), ((3,), (1,), (1,))]
)
@pytest.mark.parametrize("dtype", ["float32", "float16", "int32"])
def test_pooling(both, kernel, stride, dilation, dtype):
    size = (11, 12)[: len(kernel)]
    x = np.random.default_rng(0).integers(-4, 4, (3, 2, *size)).astype(dtype)
    if dtype != "int32":
        x[0, 1, 3] = np.nan
    (best, index), (best_, index_) = both("max_pool", x, kernel, stride, dilation)
    np.testing.assert_array_equal(best, best_)
    np.testing.assert_array_equal(index, index_)
    g = np.random.default_rng(1).integers(-8, 8, best.shape).astype(dtype)
    np.testing.assert_array_equal(*both("max_pool_grad", g, index, size, kernel, stride, dilation))


OPTIMIZERS = {
    "SGD": {"momentum": 0.9, "weight_decay": 0.1, "nesterov": True}, "Adam": {"amsgrad": True}, "AdamW": {},
    "RMSprop": {"momentum": 0.5, "centered": True}, "Adagrad": {}, "Adadelta": {}, "Adamax": {},
}  # fmt: skip


@needs_compiler
@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_steps_of_optimizers(monkeypatch, name, dtype):
    """By kernels, by NumPy: one step after the other, tensors that are not contiguous among them."""
    found = []
    for least in (1, None):
        monkeypatch.setattr(gg.ones(1)._backend, "kernels_from", least)
        starts = [normal(*s, dtype=dtype) for s in ((3, 5), (4097,), (1,), (0,), (6, 4))]
        parameters = [gg.tensor(s).requires_grad_() for s in starts]
        parameters.append(gg.tensor(normal(8, 6, dtype=dtype)).t().detach().requires_grad_())
        parameters.append(gg.tensor(normal(8, 6, dtype=dtype))[:, ::2].detach().requires_grad_())
        optimizer = getattr(gg.optim, name)(parameters, **OPTIMIZERS[name])
        for step in range(3):
            for i, p in enumerate(parameters):
                p.grad = gg.tensor(normal(*p.shape, dtype=dtype, seed=10 * step + i))
            optimizer.step()
        found.append([p.detach().numpy() for p in parameters])
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, rtol=8 * TOLERANCE[dtype], atol=8 * TOLERANCE[dtype])


@needs_compiler
def test_the_number_of_threads_changes_no_bit():
    x, g, w = normal(300, 777), normal(300, 777, seed=1), normal(777, seed=2)
    found = []
    for threads in (1, 3):
        backend = CpuBackend()
        backend.kernels_from, backend.threads = 1, threads
        y, moments = backend.fused_layer_norm(x, w, None, 1e-5)
        found.append([y, *backend.fused_layer_norm_backward(g, x, w, moments, 1e-5, (True,) * 3),
                      backend.fused_softmax(x, 1)])  # fmt: skip
    for a, b in zip(*found, strict=True):
        np.testing.assert_array_equal(a, b)


def test_small_calls_are_left_to_numpy(monkeypatch):
    backend = CpuBackend()
    assert backend.kernels_from == cpu_kernels.LARGE or "GPUGRAD_CPU_KERNELS" in os.environ
    backend.kernels_from = cpu_kernels.LARGE

    def refuse():
        raise AssertionError("a small call asked for kernels")

    backend.host_kernels = refuse
    backend.fused_softmax(normal(250, 250), 1)
    backend.convolve(normal(8, 1, 28, 28), normal(6, 1, 5, 5), (1, 1), (1, 1), 1)
    backend.convolve(normal(64, 64, 16, 16), normal(256, 64, 1, 1), (1, 1), (1, 1), 1)
    with pytest.raises(AssertionError):
        backend.fused_softmax(normal(1025, 64), 1)


@pytest.mark.parametrize("given, found", [("", cpu_kernels.LARGE), ("0", None), ("5", 5), ("x", cpu_kernels.LARGE)])
def test_the_switch(monkeypatch, given, found):
    monkeypatch.setenv("GPUGRAD_CPU_KERNELS", given)
    assert CpuBackend().kernels_from == found


def test_without_a_compiler_numpy_does_it_and_says_so_once(monkeypatch):
    monkeypatch.setattr(host_build, "compiler", lambda: None)
    backend = CpuBackend()
    backend.kernels_from = 1
    x = normal(4, 9)
    with pytest.warns(RuntimeWarning, match="(?s)no C compiler.*GPUGRAD_CPU_KERNELS=0"):
        y = backend.fused_softmax(x, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(backend.fused_softmax(x, 1), y)
    monkeypatch.setenv("GPUGRAD_CC", "")  # switched off: nothing to say
    backend.kernels_from = 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(backend.fused_softmax(x, 1), y)


REDUCED = [((40, 70), (0, 1)), ((40, 700), (1,)), ((700, 40), (0,)), ((9, 30, 50), (1,)), ((9, 30, 50), (0, 2)),
           ((5000,), (0,)), ((3, 4, 5, 600), (1, 3)), ((700, 1), (0,)), ((1, 700), (0,)),
           ((2, 3, 4, 5, 6), (0, 2, 4))]  # fmt: skip


@needs_compiler
@pytest.mark.parametrize("kind", ["sum", "prod", "max", "min"])
@pytest.mark.parametrize("dtype", [*DTYPES, "int32", "int64", "uint8", "bool"])
def test_reductions(both, kind, dtype):
    """Those that go to kernels and those that do not: the same as NumPy's."""
    floating, taken = dtype in DTYPES, 0
    for shape, axes in REDUCED:
        x = normal(*shape, scale=9.0)
        if kind == "prod" and floating:
            x = 1 + 0.001 * x
        elif floating:
            x.flat[7] = np.inf if kind == "sum" else np.nan
        x = gg.tensor(x).to(getattr(gg, dtype))._array
        result = np.dtype("i8") if kind in ("sum", "prod") and not floating else x.dtype
        close(*both("_reduce_any", kind, x, axes, result), dtype if floating else "float64")
        taken += both("reduce_by_kernel", kind, x, axes, result)[0] is not None
    assert taken >= (2 if kind in ("max", "min") and dtype in ("float32", "float64") else 5)


def test_which_reductions_go_to_kernels():
    single, half = normal(1024, 1024), normal(1024, 256, dtype="float16")
    work = cpu_kernels.reduced
    assert work("sum", single, (0, 1)) == work("prod", single, (1,)) == 1 << 18
    assert work("max", single, (0,)) == 1 << 18 and work("max", half, (1,)) == 1 << 18
    assert not work("max", single, (1,)), "NumPy's is quicker"
    assert not work("sum", single.reshape(-1, 64), (1,)), "rows are short"
    assert not work("sum", single[:, ::2], (0,)), "not dense"
    assert not work("any", half, (0,)) and not work("sum", half, ())
    x = normal(1024, 64, dtype="bfloat16")
    assert not work("sum", x, (0, 1)) and not work("sum", x, (1,)) and work("sum", x, (0,))


@needs_compiler
def test_a_compiler_that_fails_leaves_the_parameters_as_they_were(monkeypatch):
    """A step that cannot be built is taken once, by NumPy."""

    def refuse(text, flags=()):
        raise host_build.BuildError("cc refused")

    monkeypatch.setattr(host_build, "load", refuse)
    backend = gg.ones(1)._backend
    monkeypatch.setattr(backend, "kernels_from", 1)
    monkeypatch.setattr(backend, "_host", None)
    p = gg.ones(5, requires_grad=True)
    q = gg.ones(2, 10)[:, ::2].detach().requires_grad_()  # not dense: done without a kernel
    p.grad, q.grad = gg.ones(5), gg.ones(2, 5)
    with pytest.warns(RuntimeWarning, match="cc refused"):
        gg.optim.SGD([q, p], lr=0.5).step()
    assert p.tolist() == [0.5] * 5 and q.tolist() == [[0.5] * 5] * 2 and backend.kernels_from is None


@needs_compiler
def test_threads_may_meet():
    """Several threads at their first large call, of a backend that has no kernels yet."""
    backend = CpuBackend()
    backend.kernels_from = 1
    x = normal(64, 300)
    expected = CpuBackend().fused_log_softmax(x, 1)
    found = [None] * 4

    def work(i):
        found[i] = backend.fused_log_softmax(x, 1)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    for y in found:
        close(y, expected, "float32")
        np.testing.assert_array_equal(y, found[0])


@needs_compiler
@pytest.mark.skipif(not hasattr(os, "fork"), reason="fork")
def test_a_forked_child_goes_on():
    script = (
        "import os, warnings, gpugrad as gg\n"
        "warnings.simplefilter('ignore', DeprecationWarning)\n"
        "x = gg.ones(50, 300)\n"
        "first = gg.softmax(x, 1)\n"
        "child = os.fork()\n"
        "if not child:\n"
        "    same = bool((gg.softmax(x, 1) == first).all()) and bool(gg.log_softmax(x, 0).isfinite().all())\n"
        "    os._exit(0 if same else 1)\n"
        "assert os.waitpid(child, 0)[1] == 0\n"
        "print('done')\n"
    )
    env = os.environ | {"GPUGRAD_CPU_KERNELS": "1", "GPUGRAD_THREADS": "2"}
    done = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "done", done.stderr
