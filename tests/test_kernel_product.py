"""Matrix products on the kernel backends: every kernel that may be chosen, and how the choice is made."""

from __future__ import annotations

import json
import subprocess
import sys
from types import SimpleNamespace

import ml_dtypes
import numpy as np
import pytest

from gpugrad.backends import kernel_product, kernel_tuning, opencl
from gpugrad.backends.kernel_tuning import Tuner, rounded
from gpugrad.errors import DeviceError

F32 = np.dtype(np.float32)
BF16 = np.dtype(ml_dtypes.bfloat16)


def _open(config, cpu_shapes):
    if not {"opencl", "all"} & set(config.getoption("--device").split(",")):
        pytest.skip("needs OpenCL")
    try:
        return opencl.open(0, cpu_shapes=cpu_shapes)
    except DeviceError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module", params=[True, False], ids=["cpu-shapes", "gpu-shapes"])
def backend(request):
    return _open(request.config, request.param)


def ways(backend, a, b):
    """Every way to a product, each as (name, plan)."""
    found = {}

    def choose(given, candidates):
        found.update({name: make() for name, make in candidates.items()})
        return next(iter(found.values()))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernel_product, "_choose", choose)
        kernel_product.product_plan(backend, a, b, a.dtype)
    return found


def operand(backend, rng, rows, columns, layout, dtype=F32, batch=()):
    """Numbers and the same on the device: "n" by rows, "t" by columns, "s" every second column of every row, "o" from
    an odd offset on."""
    if layout == "t":
        x = rng.integers(-4, 5, (*batch, columns, rows)).astype(dtype)
        order = (*range(len(batch)), len(batch) + 1, len(batch))
        return x.swapaxes(-1, -2), backend.from_host(x).transpose(order)
    if layout == "s":
        x = rng.integers(-4, 5, (*batch, rows, 2 * columns)).astype(dtype)
        return x[..., ::2], backend.from_host(x)[..., ::2]
    if layout == "o":
        x = rng.integers(-4, 5, (*batch, rows, columns + 1)).astype(dtype)
        return x[..., 1:], backend.from_host(x)[..., 1:]
    x = rng.integers(-4, 5, (*batch, rows, columns)).astype(dtype)
    return x, backend.from_host(x)


SIZES = [(64, 32, 64), (130, 36, 68), (33, 7, 61), (25, 130, 24), (1, 300, 70), (70, 300, 1), (7, 5, 3)]


@pytest.mark.parametrize("m, k, n", SIZES)
@pytest.mark.parametrize("layouts", ["nn", "nt", "tt", "os"])
def test_every_kernel_gives_the_exact_product_of_integers(backend, m, k, n, layouts):
    rng = np.random.default_rng(1)
    x, a = operand(backend, rng, m, k, layouts[0])
    y, b = operand(backend, rng, k, n, layouts[1])
    plans = ways(backend, a, b)
    assert plans
    for name, plan in plans.items():
        got = backend.to_host(backend._multiply(plan, a, b))
        np.testing.assert_array_equal(got, x.astype(F32) @ y.astype(F32), err_msg=name)


@pytest.mark.parametrize("dtype", [np.float64, np.float16, BF16, np.int64, np.int32, np.int8], ids=str)
def test_other_dtypes(backend, dtype):
    dtype = np.dtype(dtype)
    if not backend.supports(dtype):
        pytest.skip("no such dtype here")
    rng = np.random.default_rng(2)
    for m, k, n, layouts in ((40, 48, 72, "nn"), (40, 48, 72, "tt"), (1, 80, 30, "nt")):
        x, a = operand(backend, rng, m, k, layouts[0], dtype)
        y, b = operand(backend, rng, k, n, layouts[1], dtype)
        exact = x.astype(np.int64) @ y.astype(np.int64)
        got = backend.to_host(backend.matmul(a, b))
        assert got.dtype == dtype
        np.testing.assert_array_equal(got.astype(np.float64), exact.astype(dtype).astype(np.float64))


def test_batches_broadcast_and_permuted(backend):
    rng = np.random.default_rng(3)
    x, a = operand(backend, rng, 36, 40, "n", batch=(3, 2))
    y, b = operand(backend, rng, 40, 44, "t", batch=(2, 3))
    a, x = a.view(a.shape, (a.strides[0], 0, *a.strides[2:]), 0), np.broadcast_to(x[:, :1], x.shape)
    b, y = b.transpose((1, 0, 2, 3)), y.transpose(1, 0, 2, 3)
    for name, plan in ways(backend, a, b).items():
        np.testing.assert_array_equal(backend.to_host(backend._multiply(plan, a, b)), x @ y, err_msg=name)


def test_every_choice_gives_the_same_bits(backend):
    rng = np.random.default_rng(4)
    for m, k, n in ((130, 77, 140), (40, 3000, 30)):
        a = backend.from_host(rng.standard_normal((m, k)).astype(F32))
        b = backend.from_host(rng.standard_normal((k, n)).astype(F32))
        results = {name: backend.to_host(backend._multiply(plan, a, b)) for name, plan in ways(backend, a, b).items()}
        assert len(results) > 1
        assert len({r.tobytes() for r in results.values()}) == 1


def test_a_long_sum_is_cut_by_the_shapes_alone(request):
    backend = _open(request.config, False)
    rng = np.random.default_rng(5)
    x = rng.standard_normal((20, 5000)).astype(F32)
    a = backend.from_host(x)
    plan = next(iter(ways(backend, a, a.transpose((1, 0))).values()))
    assert plan.parts > 1
    got = backend.to_host(backend.matmul(a, a.transpose((1, 0))))
    np.testing.assert_allclose(got, x.astype(np.float64) @ x.T, rtol=1e-5, atol=1e-3)
    half = x.astype(np.float16)
    there = backend.from_host(half)
    got = backend.to_host(backend.matmul(there, there.transpose((1, 0))))
    assert got.dtype == np.float16
    exact = half.astype(np.float64) @ half.T.astype(np.float64)
    np.testing.assert_allclose(got.astype(np.float64), exact, rtol=1e-3, atol=0.1)


def test_infinity_and_nan_stay_in_their_rows(backend):
    a = np.ones((30, 40), F32)
    a[3, 5], a[4, 6] = np.inf, np.nan
    b = np.ones((40, 50), F32)
    b[5, 7] = 0
    got = backend.to_host(backend.matmul(backend.from_host(a), backend.from_host(b)))
    with np.errstate(invalid="ignore"):
        np.testing.assert_array_equal(got, a @ b)


# -- tuning -----------------------------------------------------------------------------------


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GPUGRAD_CACHE", str(tmp_path))
    monkeypatch.setenv("GPUGRAD_TUNE", "1")
    return tmp_path


def tuner(*identity):
    return Tuner(identity or ("device", "driver 1"), ("matmul.c",))


def timed(seconds):
    """A measurement by a table, which counts."""
    calls = []

    def measure(name, times):
        calls.append(name)
        return seconds[name] * times

    return measure, calls


def test_the_fastest_is_taken_and_remembered(cache):
    measure, calls = timed({"a": 3e-3, "b": 1e-3, "c": 2e-3})
    assert tuner().choose("key", ["a", "b", "c"], measure) == "b"
    assert calls
    again, none = timed({"a": 1e-3, "b": 9e-3, "c": 9e-3})
    other = tuner()
    assert other.choose("key", ["a", "b", "c"], again) == "b" and not none  # in another process, say
    assert other.choose("other key", ["a", "b", "c"], again) == "a" and none
    assert tuner("device", "driver 2").choose("key", ["a", "b", "c"], again) == "a"
    assert len(list((cache / "tuning").iterdir())) == 2


def test_nearly_as_fast_is_not_faster(cache):
    measure, _ = timed({"a": 1.0e-3, "b": 0.98e-3})
    assert tuner().choose("key", ["a", "b"], measure) == "a"


def test_switched_off(cache, monkeypatch):
    monkeypatch.setenv("GPUGRAD_TUNE", "0")
    measure, calls = timed({"a": 3e-3, "b": 1e-3})
    assert tuner().choose("key", ["a", "b"], measure) == "a"
    assert not calls and not (cache / "tuning").exists()


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "null", '{"format": 1}', '{"format": 1, "choices": {"key": 3}}', '{"format": 99, "choices": {}}',
     '{"format": 1, "choices": {"key": "no such kernel"}}', b"\xff\xfe\x00"],
    ids=repr,
)  # fmt: skip
def test_a_damaged_file_is_replaced(cache, content):
    path = tuner().path
    path.parent.mkdir(parents=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    measure, calls = timed({"a": 3e-3, "b": 1e-3})
    assert tuner().choose("key", ["a", "b"], measure) == "b"
    assert calls
    assert json.loads(path.read_text())["choices"] == {"key": "b"}


def test_a_folder_that_cannot_be_written_costs_only_time(cache):
    (cache / "tuning").write_text("a file where the folder should be")
    measure, _ = timed({"a": 3e-3, "b": 1e-3})
    one = tuner()
    assert one.choose("key", ["a", "b"], measure) == "b"
    assert one.choose("key", ["a", "b"], timed({})[0]) == "b"


def test_two_processes_add_to_one_file(cache):
    code = (
        "import sys\n"
        "from gpugrad.backends.kernel_tuning import Tuner\n"
        "t = Tuner(('device', 'driver 1'), ('matmul.c',))\n"
        "for i in range(20):\n"
        "    t.choose(f'{sys.argv[1]} {i}', ['a', 'b'], lambda name, n: n * (1e-3 if name == 'b' else 2e-3))\n"
    )
    running = [subprocess.Popen([sys.executable, "-c", code, name]) for name in ("one", "two")]
    assert [p.wait(60) for p in running] == [0, 0]
    choices = json.loads(tuner().path.read_text())["choices"]
    assert set(choices.values()) == {"b"} and len(choices) >= 20
    assert not [f for f in (cache / "tuning").iterdir() if f.suffix != ".json" or f.name.startswith(".")]


def test_sizes_that_share_a_choice():
    assert [rounded(n) for n in (1, 3, 5, 6, 7, 9, 13, 48, 49, 100, 1000, 1024)] == [
        1, 3, 6, 6, 8, 12, 16, 48, 64, 128, 1024, 1024,
    ]  # fmt: skip


def test_products_are_tuned_on_the_device(cache, request, monkeypatch):
    backend = _open(request.config, None)
    monkeypatch.setattr(kernel_product, "_TUNED_WORK", 1000)
    monkeypatch.setattr(kernel_tuning, "_SAMPLE", 1e-5)
    x = np.arange(64 * 64, dtype=F32).reshape(64, 64) % 7
    a = backend.from_host(x)
    np.testing.assert_array_equal(backend.to_host(backend.matmul(a, a)), x @ x)
    (choice,) = json.loads(backend.tuner.path.read_text())["choices"].items()
    assert choice[0] == "f32 1x64x64x64 nn" and choice[1] in ways(backend, a, a)
    other = opencl.open(0)
    other.tuner.choose = lambda key, names, measure: SimpleNamespace(seen=key)  # not asked for small products
    small = other.from_host(x[:4, :4])
    np.testing.assert_array_equal(other.to_host(other.matmul(small, small)), x[:4, :4] @ x[:4, :4])
