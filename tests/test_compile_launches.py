"""Compiled programs as kernels: OpenCL with the launch shapes for GPUs and for CPUs, with 64-bit indices, and CUDA.

Each function is run compiled there and eagerly on the CPU. A program must not lose a group to the plain way, or the
test would show nothing of the generated kernels.
"""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

import gpugrad as gg
from gpugrad.backends import cuda, opencl
from gpugrad.compiler import launches
from gpugrad.compiler.fusing import Group, fuse
from gpugrad.compiler.launches import LaunchLowering
from gpugrad.compiler.program import CAST, Buffer, Map, Program, View
from gpugrad.devices import Device, _factories, _open, backend_of
from gpugrad.errors import DeviceError
from tests.test_device_backends import first_device

VARIANTS = ("gpu_shapes", "cpu_shapes", "wide_shapes")
#: what also runs with 64-bit indices
WIDE = ("test_chain", "test_broadcasting_and_layouts", "test_in_place_updates", "test_long_sums_are_accurate")


def pytest_generate_tests(metafunc):
    if "place" in metafunc.fixturenames:
        asked = metafunc.config.getoption("--device").split(",")
        variants = list(VARIANTS) if "all" in asked or "opencl" in asked else []
        if "cuda" in asked or ("all" in asked and gg.is_available("cuda")):
            variants.append("cuda_shapes")
        if metafunc.function.__name__ not in WIDE:
            variants = [v for v in variants if v != "wide_shapes"]
        metafunc.parametrize("place", variants, indirect=True, scope="module")


@pytest.fixture(scope="module")
def place(request):
    """A device whose backend compiles to launches of the shapes asked for."""
    kind = request.param

    def make(index):
        backend = cuda.open(0) if kind == "cuda_shapes" else opencl.open(first_device(), kind == "cpu_shapes")
        backend.name, backend.lowering, backend.force_wide = kind, "launches", kind == "wide_shapes"
        return backend

    gg.register_backend(kind, make)
    try:
        backend_of(Device(kind, 0))
    except DeviceError as error:
        pytest.skip(str(error))
    yield f"{kind}:0"
    _factories.pop(kind)
    _open.pop((kind, 0))


def tensor(place, *shape, dtype="float32", low=-3.0, high=3.0):
    x = np.random.uniform(low, high, shape)
    if dtype == "bool":
        return gg.tensor(x > 0, device=place)
    return gg.tensor(x.astype(np.float32)).to(getattr(gg, dtype)).to(place)


def host(x):
    return x.detach().cpu().to(gg.float32).numpy() if x.dtype == gg.bfloat16 else x.detach().cpu().numpy()


def close(found, wanted, rtol, atol):
    assert found.dtype == wanted.dtype and found.shape == wanted.shape
    if rtol or atol:
        np.testing.assert_allclose(host(found), host(wanted), rtol=rtol, atol=atol)
    else:
        np.testing.assert_array_equal(host(found), host(wanted))


def compiled(function, *args, rtol=2e-6, atol=2e-6, alone=0):
    """``function`` compiled, after its results were found equal to eager ones of the CPU, also when run again."""
    wanted = function(*[a.cpu() for a in args])
    compiled = gg.compile(function, fullgraph=True)
    for _ in range(3):
        found = compiled(*args)
        for f, w in zip(*[r if isinstance(r, tuple) else (r,) for r in (found, wanted)], strict=True):
            close(f, w, rtol, atol)
    for lowering in compiled.lowerings():
        assert isinstance(lowering, LaunchLowering)
        assert lowering.generated >= sum(isinstance(p, Group) for p in lowering.parts) - alone
    return compiled


def test_chain(place):
    x, y = tensor(place, 1000), tensor(place, 1000)
    f = compiled(lambda x, y: gg.tanh(x * 2 + y) * gg.exp(-x * x), x, y)
    (lowering,) = f.lowerings()
    assert lowering.generated == 1
    assert "tanh_f32(" in f.source() and "exp_f32(" in f.source()


@pytest.mark.parametrize("shape", [(), (1,), (7,), (3, 5), (2, 1, 4), (33, 65), (5, 3, 4099)])
def test_sizes(place, shape):
    compiled(lambda x: (x * x + 1, gg.relu(x) - 0.5), tensor(place, *shape))


def test_broadcasting_and_layouts(place):
    x, row, column = tensor(place, 24, 40), tensor(place, 40), tensor(place, 24, 1)
    compiled(lambda x, r, c: x * r + c, x, row, column)
    compiled(lambda x, r, c: (x.t() * 2 + c.t()).t() * r, x, row, column)
    compiled(lambda x: x[::2, 1:].sin() + x[1::2, :-1], x)
    compiled(lambda x: gg.cat([x * 2, x.abs()], 1) + 1, x)
    compiled(lambda x, r: (x.reshape(4, 6, 8, 5).permute(2, 0, 3, 1) + 1) * r[:6], x, row)
    compiled(lambda x: x.expand(3, 24, 40) * 2, x)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_types_are_rounded_between_lines(place, dtype):
    x, y = tensor(place, 300, dtype=dtype), tensor(place, 300, dtype=dtype)
    compiled(lambda x, y: (x * y + x) * 3 - y, x, y, rtol=0, atol=0)
    compiled(lambda x: (x.float() * 1.1).to(getattr(gg, dtype)) * x, x, rtol=0, atol=0)
    compiled(lambda x: (x.reshape(30, 10).sum(1), x.reshape(30, 10).amax(0)), x, rtol=0, atol=0)


def test_integers_and_booleans(place):
    i, j = tensor(place, 70, dtype="int32", high=90.0), tensor(place, 70, dtype="int64", high=90.0)
    small, mask = tensor(place, 70, dtype="int8", low=-100.0, high=100.0), tensor(place, 70, dtype="bool")
    compiled(lambda i, j: (i * i + 7, j - i, i.sum(), j.amax(), (i * 2).prod()), i, j, rtol=0, atol=0)
    compiled(lambda s: (s * s + 100, -s, s.amin()), small, rtol=0, atol=0)
    compiled(
        lambda m, i: (gg.where(m, i, -i), m & (i > 3), ~m, m.sum(), (i > 1).any(), m.all()), mask, i, rtol=0, atol=0
    )
    compiled(lambda m: (m * 2.5, m.float().mean(), m.reshape(7, 10).any(0), m.reshape(7, 10).all(1)), mask)


def test_float64_where_there_is_one(place):
    if not backend_of(Device(place.split(":")[0], 0)).fp64:
        pytest.skip("no float64 on this device")
    x, h = tensor(place, 50, dtype="float64"), tensor(place, 50, dtype="float16")
    compiled(lambda x: (x.exp() * 0.1).sum(), x, rtol=1e-14, atol=1e-14)
    compiled(lambda x, h: ((x * 1.00001).half() + h, x.bfloat16() * 2, (x + h).float()), x, h, rtol=0, atol=0)


def test_nan_and_infinity(place):
    x = gg.tensor([1.0, float("nan"), float("inf"), -float("inf"), -0.0, 3.0], device=place)
    compiled(lambda x: (x.amax(), x.reshape(2, 3).amax(1), x.reshape(2, 3).amin(0), gg.relu(x), x * 0, gg.exp(x)), x)
    compiled(lambda x: (x + float("inf"), x.clamp(-1.0, 2.0), gg.tanh(x), (x > 0).sum()), x)


@pytest.mark.parametrize("rows, inner", [(7, 1), (100, 2), (37, 10), (129, 40), (5, 700), (3, 3000), (2, 40_000)])
def test_rows(place, rows, inner):
    def softmax(x, g):
        y = gg.softmax(x * 2, -1)
        x = x.detach().requires_grad_()
        (gg.log_softmax(x, -1) * g).sum().backward()
        return y, x.grad, x.sum(1), x.amax(1) + 1, (x - x.mean(1, keepdim=True)).square().mean(1)

    x, g = tensor(place, rows, inner), tensor(place, rows, inner)
    compiled(softmax, x, g, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("rows, inner", [(1, 3), (100, 2), (64, 10), (600, 48), (40, 1030), (3000, 7), (9, 5000)])
def test_columns_and_totals(place, rows, inner):
    x, b = tensor(place, rows, inner), tensor(place, inner)

    def sums(x, b):
        y = x * 2 + b
        return y, y.sum(0), (y * y).sum(), x.amax(0), y.mean()

    compiled(sums, x, b, rtol=2e-5, atol=2e-4)
    compiled(lambda x: (x.sum(0), (x - x.mean(0)).abs().sum(0), x.sum()), x, rtol=2e-5, atol=2e-4)


@pytest.mark.parametrize("rows, inner", [(3, 4), (50, 16), (70, 300), (300, 33), (20, 5000)])
def test_rows_with_columns(place, rows, inner):
    def normed(x, w, b, g):
        leaves = [t.detach().requires_grad_() for t in (x, w, b)]
        y = gg.nn.functional.layer_norm(leaves[0], (inner,), leaves[1], leaves[2])
        (y * g).sum().backward()
        return y.detach(), *[t.grad for t in leaves]

    x, w, b, g = tensor(place, rows, inner), tensor(place, inner), tensor(place, inner), tensor(place, rows, inner)
    compiled(normed, x, w, b, g, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("n", [3000, 3_000_000])
def test_long_sums_are_accurate(place, n):
    x = gg.full((n,), 0.1, device=place)
    total, rows = gg.compile(lambda x: ((x * 1.0).sum(), (x.reshape(2, -1) * 1.0).sum(1)))(x)
    exact = n * float(np.float32(0.1))
    assert abs(total.item() - exact) < 1e-5 * exact
    assert abs(rows.sum().item() - exact) < 1e-5 * exact


def test_results_are_the_same_bits_each_time(place):
    x = tensor(place, 700, 130)
    f = gg.compile(lambda x: ((x * x).sum(), (x * x).sum(0), (x * x).sum(1)))
    f(x)  # traced, and run eagerly
    first = [host(v) for v in f(x)]
    for _ in range(3):
        for a, b in zip(first, f(x), strict=True):
            assert a.tobytes() == host(b).tobytes()


def network(where):
    gg.manual_seed(1)
    model = gg.nn.Sequential(gg.nn.Linear(12, 32), gg.nn.Tanh(), gg.nn.LayerNorm(32), gg.nn.Linear(32, 5)).to(where)
    return model


def train(kind, x, y, where, compile_it):
    """Losses and parameters of a few steps with a learning rate that changes from step to step."""
    model = network(where)
    options = {"momentum": 0.9} if kind == "SGD" else {}
    optimizer = getattr(gg.optim, kind)(model.parameters(), lr=0.05, **options)

    def step(x, y):
        optimizer.zero_grad()
        loss = gg.nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    run = gg.compile(step) if compile_it else step
    losses = []
    for n in range(8):
        for group in optimizer.param_groups:
            group["lr"] = 0.05 / (1 + n)
        losses.append(run(x, y).item())
    assert not compile_it or run.lowerings(), run.explain()
    return losses, [host(p) for p in model.parameters()]


@pytest.mark.parametrize("kind", ["SGD", "Adam", "AdamW"])
def test_training_steps(place, kind):
    x = tensor(place, 60, 12)
    y = gg.tensor(np.arange(60) % 5, device=place)
    outcomes = [train(kind, x.to(where), y.to(where), where, where == place) for where in ("cpu", place)]
    np.testing.assert_allclose(outcomes[1][0], outcomes[0][0], rtol=2e-4)
    for a, b in zip(outcomes[1][1], outcomes[0][1], strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-4)


def test_equal_layers_are_one_kernel(place):
    x = tensor(place, 33, 20)
    w = [tensor(place, 20, 20) for _ in range(3)]

    def layers(x, *w):
        for a in w:
            x = gg.tanh(x @ a + 1)
        return x

    f = compiled(layers, x, *w, rtol=1e-5, atol=1e-5)
    (lowering,) = f.lowerings()
    assert lowering.generated == 3 and f.source().count("KERNEL void") == 1


def test_changing_arguments_are_found_where_they_are(place):
    whole = tensor(place, 5, 64)
    f = gg.compile(lambda x: gg.relu(x) + 1)
    for k in range(5):
        close(f(whole[k]), gg.relu(whole[k]) + 1, 0, 0)


def test_in_place_updates(place):
    x = tensor(place, 6, 8)
    expected = host(x) * 2 + 1

    def update(x):
        before = x.exp()
        x.mul_(2).add_(1)
        return before * x

    wanted = np.exp(host(x)) * expected
    found = gg.compile(update)(x)
    np.testing.assert_allclose(host(found), wanted, rtol=1e-5)
    np.testing.assert_allclose(host(x), expected, rtol=1e-6)
    x.copy_(gg.tensor((expected - 1) / 2))
    f = gg.compile(update)
    f(x)
    again = host(x).copy()
    found = f(x)
    np.testing.assert_allclose(host(x), again * 2 + 1, rtol=1e-6)
    np.testing.assert_allclose(host(found), np.exp(again) * (again * 2 + 1), rtol=1e-5)


def test_settled_launches_become_a_cuda_graph():
    """The cuda backend with CuPy's streams replaced by what their documentation says of capturing."""
    done, stream_of = [], ["default"]

    class Graph:
        def __init__(self, launches):
            self.launches = launches

        def launch(self, stream):
            assert stream == "default"
            done.extend(self.launches)

    class Stream:
        null = "default"

        def __enter__(self):
            stream_of.append(self)

        def __exit__(self, *error):
            assert stream_of.pop() is self

        def begin_capture(self):
            assert stream_of[-1] is self
            self.captured = []

        def end_capture(self):
            return Graph(self.captured)

    def kernel(name):
        def launch(grid, block, args):
            values = [bytes(a) if isinstance(a, np.ndarray) else a for a in args]
            (done if stream_of[-1] == "default" else stream_of[-1].captured).append((name, grid, block, values))

        return launch, (64,)

    backend = cuda.CudaBackend.__new__(cuda.CudaBackend)
    backend._use, backend._by_value, backend._cuda = lambda: None, {}, SimpleNamespace(Stream=Stream)
    given = [(kernel("first"), 3, ["x", b"\1\0\0\0"]), (kernel("second"), 1, ["y"])]
    expected = [("first", (3,), (64,), ["x", b"\1\0\0\0"]), ("second", (1,), (64,), ["y"])]
    queue = backend.replay(given)
    assert done == []
    queue()
    assert done == expected
    backend.replay(given[:1])()
    assert done == expected + expected[:1]


def test_kernels_for_gpus_are_recorded_where_others_run(tmp_path, monkeypatch):
    """``tools/compile_cuda.py`` gets what a GPU would run, whatever runs here."""
    from gpugrad.backends import kernel_source

    monkeypatch.setenv("GPUGRAD_RECORD_KERNELS", str(tmp_path / "kernels"))
    program = Program(None)
    x = View(Buffer(0, 4000, np.dtype(np.float32), "argument"), 0, (1000,), (4,), np.dtype(np.float32))
    y = View(Buffer(1, 4000, np.dtype(np.float32), "result"), 0, (1000,), (4,), np.dtype(np.float32))
    program.steps, program.results = [Map(CAST, (x,), x.dtype, y)], [y]
    (group,) = fuse(program)
    launches._record_twin(group)
    (found,) = kernel_source.read_record(tmp_path / "kernels")
    assert found.kernels == ("gg_cast",) and kernel_source.gpu_twin(found) is found
    assert "KERNEL void gg_cast(" in kernel_source.assemble(found, "cuda")
