"""Compiled programs on the CPU: generated C against eager NumPy, how it is built and kept, and running without it."""

from __future__ import annotations

import math
import os
import re
import stat
import subprocess
import sys
import warnings

import numpy as np
import pytest

import gpugrad as gg
from gpugrad import nn
from gpugrad.backends import host_build
from gpugrad.backends.cpu import CpuBackend
from gpugrad.compiler import host_places, memory, recomputing
from gpugrad.compiler.host import HostLowering
from gpugrad.ops.table import OPS, wrap

needs_compiler = pytest.mark.skipif(host_build.compiler() is None, reason="no C compiler")
TOLERANCE = {gg.float32: 4e-6, gg.float64: 1e-13, gg.float16: 8e-3, gg.bfloat16: 4e-2}


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    """A cache of this module's own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GPUGRAD_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(CpuBackend, "lowering", "host")
        yield


def numbers(t):
    return t.detach().to(gg.float64).numpy()


def same(eager, compiled, dtype, what=""):
    assert eager.dtype == compiled.dtype and eager.shape == compiled.shape, what
    tolerance = TOLERANCE.get(dtype, 1e-6)
    a, b = numbers(eager), numbers(compiled)
    size = np.abs(a[np.isfinite(a)]).max(initial=0)
    np.testing.assert_allclose(b, a, rtol=5 * tolerance, atol=tolerance * (1 + size / 10), err_msg=what)


def replayed(function, *args):
    """What ``function`` returns when its program is run, not traced."""
    compiled = gg.compile(function, fullgraph=True)
    compiled(*args)
    value = compiled(*args)
    assert all(isinstance(x, HostLowering) for x in compiled.lowerings())
    return value, compiled


# -- what is computed -----------------------------------------------------------------------------------


SPECIAL = ("erfinv", "lgamma", "digamma", "frexp_mantissa", "frexp_exponent")


def rows_of(dtype):
    """Elementwise calls of the ops table that are defined for a dtype."""
    rng = np.random.default_rng(0)
    for op in OPS.values():
        kernel = getattr(op.function, "kernel", None)
        special = kernel is not None and "sf_" in str(kernel.c)  # slow to build: a few stand for all of them
        if not op.elementwise or not op.samples or special and (dtype is not gg.float32 or op.name not in SPECIAL):
            continue
        sample = op.samples[0]
        tensors = []
        for x in sample.inputs:
            if isinstance(x, tuple):
                values = rng.uniform(*op.domain, x)
            else:
                values = np.asarray(x(rng) if callable(x) else x)
            if not dtype.is_floating_point and values.dtype.kind == "f":
                values = np.floor(values * 3)
            t = gg.tensor(values)
            tensors.append(t if t.dtype is gg.bool else t.to(dtype))
        try:
            op.function(*tensors, **sample.kwargs)
        except (TypeError, RuntimeError, ArithmeticError, gg.GpugradError):
            continue  # refused for this dtype, as other tests hold
        yield op, tensors, sample.kwargs


@needs_compiler
@pytest.mark.parametrize("dtype", [gg.float32, gg.float64, gg.bfloat16, gg.int32, gg.uint8, gg.bool], ids=str)
def test_elementwise_rows(dtype):
    calls = list(rows_of(dtype))
    assert len(calls) > 20

    def every():
        return [op.function(*tensors, **kwargs).clone() for op, tensors, kwargs in calls]

    eager = every()
    compiled, _ = replayed(every)
    for (op, _, _), a, b in zip(calls, eager, compiled, strict=True):
        same(a, b, dtype, op.name)


_EXACT = {"exp": np.exp, "expm1": np.expm1, "tanh": np.tanh, "log": np.log, "log1p": np.log1p,
          "erf": np.vectorize(math.erf)}  # fmt: skip


@needs_compiler
@pytest.mark.parametrize("name", _EXACT)
def test_vector_math(name):
    """Within 2.5 units in the last place of the exact value, special values included."""
    rng = np.random.default_rng(1)
    x = [rng.standard_normal(20_000) * s for s in (1e-3, 0.1, 1, 5, 30)]
    x = np.concatenate([*x, np.exp(rng.uniform(-87, 87, 20_000)) * rng.choice([-1, 1], 20_000)]).astype(np.float32)
    ends = [0, -0.0, np.inf, -np.inf, np.nan, 1e-45, -1e-45, -1, 88.72, 88.8, -87.4, -103.9, -104.5, 3e38]
    x = np.concatenate([x, np.array(ends, np.float32)])
    value, _ = replayed(lambda t: getattr(gg, name)(t), gg.tensor(x))
    y = value.numpy()
    with np.errstate(all="ignore"):
        exact = _EXACT[name](x.astype(np.float64))
        rounded = exact.astype(np.float32)
        finite = np.isfinite(rounded)
        ulps = np.abs(y[finite] - exact[finite]) / np.spacing(np.maximum(np.abs(rounded[finite]), 1.2e-38))
    assert ulps.max() < 2.5
    np.testing.assert_array_equal(y[~finite], rounded[~finite])
    np.testing.assert_array_equal(np.signbit(y[finite]), np.signbit(rounded[finite]))


def random_program(seed):
    """A function of a tensor that it changes and of others, of random shapes, layouts and dtype."""
    r = np.random.default_rng(seed)
    shape = tuple(int(r.choice([1, 2, 3, 5, 16, 17, 64, 130])) for _ in range(r.integers(1, 4)))
    if r.random() < 0.25:
        shape = (*shape[:-1][:1], int(r.choice([3000, 5000, 40000])))
    dtype = [gg.float32, gg.float32, gg.float64, gg.float16, gg.bfloat16, gg.int64][r.integers(0, 6)]

    def data(size):
        if dtype is gg.int64:
            return gg.tensor(r.integers(-9, 9, size))
        return gg.tensor(r.standard_normal(size)).to(dtype)

    inputs = []
    for _ in range(r.integers(1, 4)):
        size = tuple(1 if r.random() < 0.2 else n for n in shape)[
            r.integers(0, len(shape)) if r.random() < 0.3 else 0 :
        ]
        t = data(size)
        if t.ndim > 1 and r.random() < 0.3:
            t = data(size[::-1]).permute(*range(t.ndim)[::-1])
        inputs.append(t.flip(0) if r.random() < 0.1 else t)
    script = [(r.random(), int(r.integers(0, 10**6)), r.random()) for _ in range(r.integers(3, 14))]
    floats = [gg.tanh, gg.exp, gg.sigmoid, gg.abs, gg.relu, lambda q: q**3, lambda q: gg.where(q > 0, q, q * 0.1)]
    integers = [gg.abs, gg.relu, lambda q: q - 1, lambda q: (q == 2) * q]

    def one(kind, a, u, x, y):
        if kind < 0.4:
            return [gg.mul, gg.add, gg.sub, gg.maximum][a % 4](x, y)
        if kind < 0.6:
            return (integers if dtype is gg.int64 else floats)[a % (4 if dtype is gg.int64 else 7)](x)
        if kind < 0.85 and x.ndim:
            axes = [x.ndim - 1] if u < 0.3 else [d for d in range(x.ndim) if a >> d & 1] or [0]
            name = ["amax", "amin", "sum"][a % 3] if dtype is gg.int64 else ["mean", "amax", "amin", "mean"][a % 4]
            return getattr(x, name)(dim=axes, keepdim=u < 0.8)
        if kind < 0.93:
            return x.transpose(0, 1) if x.ndim > 1 else x * 2
        return x[..., ::2] if x.ndim and x.shape[-1] > 1 else x * 2

    def function(changed, *tensors):
        values, results = list(tensors), []
        for kind, a, u in script:
            x, y = values[a % len(values)], values[a // 7 % len(values)]
            if kind > 0.96:
                if x.ndim <= changed.ndim and np.broadcast_shapes(x.shape, changed.shape) == changed.shape:
                    changed.mul_(2).add_(x)
                continue
            try:
                np.broadcast_shapes(x.shape, y.shape)
            except ValueError:
                y = x
            values.append(one(kind, a, u, x, y))
            if u > 0.6:
                results.append(values[-1] * 1)
        return [*results, values[-1] * 1]

    return function, data(shape), inputs, dtype


@needs_compiler
@pytest.mark.parametrize("seed", range(24))
def test_random_programs(seed):
    function, changed, inputs, dtype = random_program(seed)
    a, b = changed.clone(), changed.clone()
    eager = function(a, *inputs)
    compiled = gg.compile(function, fullgraph=True)
    compiled(changed.clone(), *inputs)
    for x, y in zip([*eager, a], [*compiled(b, *inputs), b], strict=True):
        same(x, y, dtype)


@needs_compiler
def test_long_sums_are_accurate():
    x = gg.tensor(np.random.default_rng(0).random(3_000_001).astype(np.float32))
    rows = x[:3_000_000].reshape(3, -1).clone()
    value, _ = replayed(lambda t, r: (t.sum(), r.sum(1), r.t().contiguous().sum(0), r.sum(0)), x, rows)
    exact = numbers(x)
    assert abs(float(value[0]) / exact.sum() - 1) < 3e-7
    for got in value[1:3]:
        np.testing.assert_allclose(numbers(got), exact[:-1].reshape(3, -1).sum(1), rtol=3e-7)
    np.testing.assert_allclose(numbers(value[3]), exact[:-1].reshape(3, -1).sum(0), rtol=3e-7)


@needs_compiler
def test_extremes_pass_nan_on():
    x = gg.tensor(np.random.default_rng(0).standard_normal((40, 33)).astype(np.float32))
    x[3, 32] = float("nan")
    x[7, 0] = float("-inf")
    value, _ = replayed(lambda t: (t.amax(1), t.amin(0), (t * 2).amax()), x)
    for a, b in zip((x.amax(1), x.amin(0), (x * 2).amax()), value, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())
    assert math.isnan(float(value[2]))


@needs_compiler
def test_same_bits_for_any_number_of_threads():
    rng = np.random.default_rng(0)
    x, y = (gg.tensor(rng.standard_normal((900, 700)).astype(np.float32)) for _ in range(2))
    compiled = gg.compile(lambda a, b: ((a * b).tanh().sum(0), a.exp().sum(), gg.softmax(a * b, 1)), fullgraph=True)
    found = []
    before = gg.get_num_threads()
    try:
        for threads in (1, 2, 3):
            gg.set_num_threads(threads)
            compiled(x, y)
            found.append([t.numpy().tobytes() for t in compiled(x, y)])
    finally:
        gg.set_num_threads(before)
    assert found[0] == found[1] == found[2]


@needs_compiler
@pytest.mark.parametrize("shapes", [((4, 3), (3, 5)), ((100, 2), (2, 16)), ((7, 100), (100, 33)), ((1, 40), (40, 1))])
@pytest.mark.parametrize("layout", ["plain", "first", "second", "both"])
def test_small_products(shapes, layout):
    rng = np.random.default_rng(0)
    (m, k), (_, n) = shapes
    a = gg.tensor(rng.standard_normal((k, m) if layout in ("first", "both") else (m, k)))
    b = gg.tensor(rng.standard_normal((n, k) if layout in ("second", "both") else (k, n)))

    def product(x, y):
        x = x.t() if layout in ("first", "both") else x
        y = y.t() if layout in ("second", "both") else y
        return (x @ y) * 2, x.float() @ y.float()

    value, compiled = replayed(product, a, b)
    assert "gg_product" in compiled.source()
    for x, y in zip(product(a, b), value, strict=True):
        same(x, y, x.dtype)


def training(compiled, optimizer=gg.optim.SGD, **options):
    gg.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
                        nn.Linear(75, 32), nn.LayerNorm(32), nn.GELU(), nn.Dropout(0.2), nn.Linear(32, 10))  # fmt: skip
    optim = optimizer(net.parameters(), lr=0.01, **options)
    x, target = gg.randn(8, 1, 12, 12), gg.randint(0, 10, (8,))

    def step(x, target):
        optim.zero_grad()
        loss = nn.functional.cross_entropy(net(x), target)
        loss.backward()
        optim.step()
        return loss

    run = gg.compile(step, fullgraph=True) if compiled else step
    losses = [float(run(x, target)) for _ in range(5)]
    return losses, [p.detach().numpy() for p in net.parameters()]


@needs_compiler
@pytest.mark.parametrize("options", [{"momentum": 0.9}, {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1}])
def test_training(options):
    eager, compiled = training(False, **options), training(True, **options)
    np.testing.assert_allclose(compiled[0], eager[0], rtol=1e-4)
    for a, b in zip(eager[1], compiled[1], strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-3, atol=1e-5)


@needs_compiler
def test_errors_of_calls_are_raised_and_leave_it_usable():
    weight = gg.randn(10, 4)
    compiled = gg.compile(lambda i: nn.functional.embedding(i, weight) * 2, fullgraph=True)
    good, bad = gg.tensor([1, 2]), gg.tensor([1, 10])
    compiled(good)
    with pytest.raises(IndexError, match="10 is out of range"):
        compiled(bad)
    np.testing.assert_array_equal(compiled(good).numpy(), weight.numpy()[[1, 2]] * 2)


# -- memory ------------------------------------------------------------------------------------------------


def test_plan_never_lays_living_buffers_over_each_other():
    rng = np.random.default_rng(0)
    for _ in range(50):
        lives = []
        for _ in range(rng.integers(1, 60)):
            first = int(rng.integers(0, 40))
            lives.append(memory.Lifetime(first, first + int(rng.integers(0, 15)), int(rng.integers(0, 5000))))
        offsets, size = memory.plan(lives)
        assert all(o % memory.ALIGNMENT == 0 and o + x.nbytes <= size for o, x in zip(offsets, lives, strict=True))
        for i, (o, x) in enumerate(zip(offsets, lives, strict=True)):
            for p, y in list(zip(offsets, lives, strict=True))[:i]:
                if x.first <= y.last and y.first <= x.last and x.nbytes and y.nbytes:
                    assert o + x.nbytes <= p or p + y.nbytes <= o


def test_plan_uses_memory_again():
    chain = [memory.Lifetime(i, i + 1, 1000) for i in range(100)]
    assert memory.plan(chain)[1] <= 3 * 1024


@needs_compiler
@pytest.mark.parametrize("n", [10, 100_000])
def test_results_of_runs_are_apart(n):
    x = gg.arange(n, dtype=gg.float32)
    compiled = gg.compile(lambda t: (t * 2, (t + 1)[::2]), fullgraph=True)
    compiled(x)
    first = compiled(x)
    kept = [t.numpy().copy() for t in first]
    second = compiled(x + 5)
    for t, k in zip(first, kept, strict=True):
        np.testing.assert_array_equal(t.numpy(), k)
    np.testing.assert_array_equal(second[0].numpy(), (np.arange(n) + 5) * 2)


@needs_compiler
@pytest.mark.parametrize("n", [9, 70_000])
def test_arguments_with_negative_strides(n):
    forward = np.arange(n, dtype=np.float32)
    x = wrap(forward[::-1], gg.ones(1)._backend)
    value, _ = replayed(lambda t: t * 2 + 1, x)
    np.testing.assert_array_equal(value.numpy(), forward[::-1] * 2 + 1)


@needs_compiler
def test_arguments_are_written_in_place():
    x = gg.zeros(5)
    compiled = gg.compile(lambda t: t.add_(1) * 1, fullgraph=True)
    for k in range(3):
        assert compiled(x).tolist() == [k + 1] * 5
    assert x.tolist() == [3] * 5


@needs_compiler
def test_equal_groups_are_one_kernel():
    layers = [nn.LayerNorm(16) for _ in range(4)]
    extra = [gg.randn(16, 16) for _ in range(4)]

    def forward(x):
        for layer, w in zip(layers, extra, strict=True):
            x = layer(x) @ w
        return x

    with gg.no_grad():
        _, compiled = replayed(forward, gg.randn(8, 16))
    assert compiled.source().count("FUNCTION void gg_") == 1
    assert compiled.source().count("FUNCTION CONTRACT void gg_product") == 1


# -- building ----------------------------------------------------------------------------------------------


@needs_compiler
def test_damaged_libraries_are_built_again():
    text = '__attribute__((visibility("default"))) int answer(void) { return 42; }\n'
    path = host_build.library(text)
    assert path == host_build.library(text) and stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert host_build.library(text).stat().st_size == len(whole)
    assert host_build.load(text)[0].answer() == 42
    path.with_suffix(".sum").unlink()
    assert host_build.library(text).with_suffix(".sum").is_file()


@needs_compiler
@pytest.mark.skipif(os.name != "posix", reason="modes of files")
def test_folders_that_others_can_write_are_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("GPUGRAD_CACHE", str(tmp_path))
    (tmp_path / "host").mkdir()
    (tmp_path / "host").chmod(0o777)
    with pytest.raises(gg.GpugradError, match="GPUGRAD_CACHE"):
        host_build.library("int x;\n")


@needs_compiler
def test_what_the_compiler_refuses_names_it():
    with pytest.raises(host_build.BuildError, match="refused generated code"):
        host_build.library("this is no C\n")


@needs_compiler
def test_two_processes_build_the_same(tmp_path):
    script = (
        "import gpugrad as gg; from gpugrad.backends.cpu import CpuBackend; CpuBackend.lowering = 'host'\n"
        "f = gg.compile(lambda x: (x * 3).exp().sum(), fullgraph=True); x = gg.ones(7); f(x); print(float(f(x)))\n"
    )
    env = os.environ | {"GPUGRAD_CACHE": str(tmp_path)}
    runs = [subprocess.Popen([sys.executable, "-c", script], env=env, stdout=subprocess.PIPE, text=True) for _ in "ab"]
    for run in runs:
        out, _ = run.communicate(timeout=120)
        assert run.returncode == 0 and abs(float(out) - 7 * math.exp(3)) < 1e-3


@needs_compiler
def test_a_failing_build_runs_by_numpy(monkeypatch):
    def refuse(text):
        raise host_build.BuildError("compile: cc refused")

    monkeypatch.setattr(host_build, "load", refuse)
    compiled = gg.compile(lambda x: x * 2 + 1, fullgraph=True)
    with pytest.warns(RuntimeWarning, match="more slowly"):
        compiled(gg.ones(3))
    assert compiled(gg.ones(3)).tolist() == [3, 3, 3]


# -- without a compiler ---------------------------------------------------------------------------------------


@pytest.fixture
def no_compiler(monkeypatch):
    monkeypatch.setattr(host_build, "compiler", lambda: None)
    monkeypatch.setattr(gg.ones(1)._backend, "kernels_from", None)  # nothing more to say


@pytest.mark.parametrize("dtype", [gg.float32, gg.float64])
def test_blocks(no_compiler, dtype):
    rng = np.random.default_rng(0)
    x, y = (gg.tensor(rng.standard_normal((700, 800))).to(dtype) for _ in range(2))
    row = gg.tensor(rng.standard_normal(800)).to(dtype)

    def chain(a, b, r):
        c = gg.tanh(a * 2 + b) * gg.exp(-a * a) + r
        d = gg.where(c > 0, c, c * 0.1)
        return d, (d - d.mean(1, keepdim=True)).sum(0), c.add_(1)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        value, compiled = replayed(chain, x, y, row)
    assert "FUNCTION" not in compiled.source()
    for a, b in zip(chain(x, y, row), value, strict=True):
        same(a, b, dtype)


def test_training_by_blocks(no_compiler):
    eager, compiled = training(False, gg.optim.SGD, momentum=0.9), training(True, gg.optim.SGD, momentum=0.9)
    np.testing.assert_allclose(compiled[0], eager[0], rtol=1e-4)


@pytest.mark.parametrize("given, found", [("", None), ("no-such-compiler-anywhere", None)])
def test_the_compiler_can_be_named(monkeypatch, given, found):
    monkeypatch.setenv("GPUGRAD_CC", given)
    assert host_build.compiler.__wrapped__() is found


def shared_pieces(compiled):
    """The calls in a program's run that are shared out among threads."""
    return re.findall(r"^// +gg_part_\d+\(\)$", compiled.source(), re.M)


@needs_compiler
def test_steps_over_many_tensors_are_shared_out_together():
    """Large kernels that do not touch each other's memory are one piece of work, also with small ones in between."""
    rng = np.random.default_rng(0)
    sizes = [host_places.LARGE, 7, host_places.LARGE + 1, 30, host_places.LARGE]
    starts = [rng.standard_normal(n).astype(np.float32) for n in sizes]

    def stepped(compiled):
        parameters = [gg.tensor(a).requires_grad_() for a in starts]
        for p in parameters:
            p.grad = p.detach() * 0.5
        optimizer = gg.optim.AdamW(parameters, lr=0.01)
        step = gg.compile(optimizer.step) if compiled else optimizer.step
        for _ in range(4):
            step()
        return [p.detach().numpy() for p in parameters], step

    eager, _ = stepped(False)
    compiled, step = stepped(True)
    assert len(shared_pieces(step)) == 1
    for a, b in zip(eager, compiled, strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-5, atol=1e-6)


@needs_compiler
def test_large_steps_that_need_each_other_stay_apart():
    x = gg.tensor(np.random.default_rng(0).standard_normal((600, 700)).astype(np.float32))

    def function(t):
        a = t * 2 + t.mean(0)
        b = a.tanh() - a.amax()
        return b.sum(0), b * 0.5 + b.mean()

    value, _ = replayed(function, x)
    for a, b in zip(function(x), value, strict=True):
        np.testing.assert_allclose(b.numpy(), a.numpy(), rtol=2e-5, atol=1e-3)


@needs_compiler
def test_large_work_is_shared_out():
    x = gg.ones(host_places.LARGE * 2)
    _, compiled = replayed(lambda t: t * 2 + 1, x)
    assert len(shared_pieces(compiled)) == 1


@pytest.mark.parametrize(
    ("n", "c", "size", "o", "kernel", "stride", "padding", "groups"),
    [
        (4, 3, 20, 16, 3, 1, 1, 1),  # one image's positions end inside a vector
        (2, 8, 33, 20, 5, 1, 0, 2),
        (3, 3, 40, 8, 7, 2, 3, 1),  # strided: the input's gradient goes by columns
        (2, 32, 17, 32, 3, 2, 1, 32),  # depthwise
        (64, 1, 28, 32, 3, 1, 0, 1),
        (2, 5, 9, 7, 1, 1, 0, 1),  # a bare product
        (1, 4, 6, 4, 3, 1, 0, 1),
    ],
)
def test_convolution_and_pooling_by_kernels(n, c, size, o, kernel, stride, padding, groups):
    F = gg.nn.functional
    gg.manual_seed(0)
    x = gg.randn(n, c, size, size, requires_grad=True)
    w = gg.randn(o, c // groups, kernel, kernel, requires_grad=True)

    def step(x, w):
        y = F.max_pool2d(F.conv2d(x, w, stride=stride, padding=padding, groups=groups), 2)
        return y.detach(), *gg.autograd.grad((y * y).sum(), (x, w))

    compiled = gg.compile(step, fullgraph=True)
    for want, *found in zip(step(x, w), compiled(x, w), compiled(x, w), compiled(x, w), strict=True):
        for got in found:
            np.testing.assert_allclose(
                got.numpy(), want.detach().numpy(), rtol=2e-4, atol=2e-5 * float(want.abs().max())
            )
    text = compiled.source()
    assert ("host_convolve(" in text) == (kernel > 1 and host_build.compiler() is not None)


def test_products_give_blas_its_threads_back():
    from threadpoolctl import ThreadpoolController

    def threads():
        return [x["num_threads"] for x in ThreadpoolController().select(user_api="blas").info()]

    gg.manual_seed(0)
    x, w, v = gg.randn(64, 4, 20, 20), gg.randn(8, 4, 3, 3), gg.randn(8 * 18 * 18, 64)
    compiled = gg.compile(lambda x: gg.nn.functional.conv2d(x, w).reshape(64, -1) @ v, fullgraph=True)
    before = threads()
    want = gg.nn.functional.conv2d(x, w).reshape(64, -1) @ v
    for _ in range(3):
        np.testing.assert_allclose(compiled(x).numpy(), want.numpy(), rtol=1e-4, atol=1e-2)
        assert threads() == before
    if host_build.compiler() is not None:
        assert "run(product, " in compiled.source()


def test_what_is_cheap_is_computed_again_instead_of_kept():
    """The backward pass of a layer norm makes its normalised rows anew from the input: 80 MiB moved, not 128."""
    gg.manual_seed(0)
    x, w, b = (gg.randn(*s, requires_grad=True) for s in ((512, 256), (256,), (256,)))
    g = gg.randn(512, 256)

    def f():
        y = nn.functional.layer_norm(x, (256,), w, b)
        return y.detach(), *gg.autograd.grad(y, (x, w, b), g)

    compiled = gg.compile(f, fullgraph=True)
    for want, first, again in zip(f(), compiled(), compiled(), strict=True):
        np.testing.assert_allclose(first.numpy(), want.numpy(), rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(again.numpy(), want.numpy(), rtol=1e-4, atol=1e-4)
    (traces,) = compiled._traces.values()
    parts = traces[0].lowering.parts
    stored = [line.store for part in parts for line in part.lines if line.store]
    assert not [s for s in stored if s.buffer.role == "temporary" and s.buffer.nbytes >= recomputing.LEAST]


def test_what_would_have_to_be_kept_instead_is_kept():
    """Computing ``y`` again would read two arrays instead of one; ``exp`` is not cheap."""
    gg.manual_seed(0)
    x, v = gg.randn(512, 256), gg.randn(512, 256)

    def f(x, v):
        y = (x * 2).exp()
        total = y.sum(0)
        return y / total, (x * v).sum() * (y - total).sum(1)

    compiled = gg.compile(f, fullgraph=True)
    for want, *found in zip(f(x, v), compiled(x, v), compiled(x, v), strict=True):
        for got in found:
            np.testing.assert_allclose(got.numpy(), want.numpy(), rtol=2e-4, atol=1e-3)
