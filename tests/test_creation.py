"""Making tensors and taking them apart again: data, ranges, dtypes, devices, copies, conversions."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys
import threading

import ml_dtypes
import numpy as np
import pytest

import gpugrad as gg
from tests import parity

ALL = ["bool", "uint8", "int8", "int16", "int32", "int64", "float16", "bfloat16", "float32", "float64"]


@pytest.fixture
def restore_defaults():
    dtype = gg.get_default_dtype()
    yield
    gg.set_default_dtype(dtype)
    gg.set_default_device("cpu")


# -- from data ----------------------------------------------------------------------------------

DATA = [
    "T.tensor(3)", "T.tensor(2.5)", "T.tensor(True)", "T.tensor([])", "T.tensor([[]])", "T.tensor([1, 2])",
    "T.tensor([1, 2.5])", "T.tensor([True, False])", "T.tensor([True, 2])", "T.tensor([[1, 2], [3, 4]])",
    "T.tensor((1, 2))",
    "T.tensor([(1, 2), [3, 4]])", "T.tensor(range(3))", "T.tensor([1, 2], dtype=T.float16)",
    "T.tensor([1.9, -1.9], dtype=T.int32)", "T.tensor([0, 1, 2], dtype=T.bool)", "T.tensor(np.float64(2.5))",
    "T.tensor(np.int32(2))",
    "T.tensor(np.arange(3))", "T.tensor(np.arange(3.0))", "T.tensor(np.float32([1, 2]))",
    "T.tensor(np.arange(6).reshape(2, 3).T)", "T.tensor([np.float32(1), np.float32(2)])", "T.tensor(np.array(True))",
    "T.tensor([np.arange(2), np.arange(2)])",
    "T.tensor([float('inf'), float('nan')])", "T.tensor(2**40)", "T.tensor([2**31, 1])",
    "T.tensor([T.tensor(1.0), T.tensor(2.0)])", "T.tensor([T.tensor(1), 2])", "T.tensor(10**400)", "T.tensor(2**63)",
    "T.tensor([[1, 2], [3]])", "T.tensor('a')", "T.tensor(None)",
    "T.tensor([None, 1])", "T.tensor(object())", "T.tensor({1: 2})", "T.tensor([1, 2]).dtype",
    "T.tensor(1.0, dtype=T.float64).dtype", "T.as_tensor([1, 2])", "T.as_tensor(np.arange(3), dtype=T.float32)",
    "T.Tensor([1, 2]).dtype", "T.Tensor([1.5, 2])", "T.Tensor(2, 3).shape",
    "T.Tensor(T.Size([2, 3])).shape", "T.Tensor().shape", "T.Tensor(np.ones((2, 2)))",
    "T.from_numpy(np.arange(3.0))", "T.from_numpy([1])", "T.from_numpy(np.arange(3)[::-1])",
    "T.from_numpy(np.array(['a']))", "T.tensor(np.arange(3)[::-1].copy())",
]  # fmt: skip

RANGES = [
    "T.arange(5)", "T.arange(0)", "T.arange(5.0)", "T.arange(1, 5)", "T.arange(1, 10, 3)", "T.arange(10, 1, -3)",
    "T.arange(0, 1, 0.1)", "T.arange(1, 2.5, 0.5)", "T.arange(0.5)", "T.arange(5, dtype=T.float32)",
    "T.arange(5, dtype=T.uint8)", "T.arange(2.9, dtype=T.int32)", "T.arange(0, 5, 1.5, dtype=T.int64)",
    "T.arange(0, 4.5, dtype=T.int64)", "T.arange(0, 10, 2.5, dtype=T.int32)", "T.arange()", "T.arange(5, 5)",
    "T.arange(5, 1)", "T.arange(1, 5, 0)", "T.arange(1, 5, -1)",
    "T.arange(0, 1, 1 / 3)", "T.arange(-3, 3)", "T.arange(3, dtype=T.bfloat16)", "T.arange(2**33, 2**33 + 3)",
    "T.arange(T.tensor(4))", "T.arange(start=1, end=4)", "T.arange(end=3)", "T.arange(1, 4, step=2)",
    "T.arange(0, 1e6, 250000.0)", "T.arange(True)",
    "T.linspace(0, 1, 5)", "T.linspace(0, 1, 1)", "T.linspace(0, 1, 0)", "T.linspace(-3, 7, 11)",
    "T.linspace(1, 1, 3)", "T.linspace(5, -5, 4)", "T.linspace(0, 10, 11, dtype=T.int64)",
    "T.linspace(0, 1, 3, dtype=T.float16)", "T.linspace(0, 1, -1)", "T.linspace(start=0, end=1, steps=3)",
    "T.logspace(0, 2, 3)", "T.logspace(0, 3, 4, base=2)",
    "T.eye(3)", "T.eye(2, 4)", "T.eye(4, 2)", "T.eye(0)", "T.eye(3, dtype=T.int32)", "T.eye(2, dtype=T.bool)",
    "T.full((2, 3), 7)", "T.full((2,), 2.5)", "T.full((), True)", "T.full((2,), 7, dtype=T.float32)",
    "T.full([2, 0], 1.0)", "T.full((2,), T.tensor(3.0))", "T.zeros(2, 3)", "T.zeros((2, 3))", "T.zeros([2])",
    "T.zeros(())", "T.zeros(2, dtype=T.int8)", "T.ones(2, 0, 3)", "T.ones(T.Size([2, 3]))", "T.zeros(-1)",
    "T.zeros(2.5)",
    "T.empty(2, 3).shape", "T.empty((2,), dtype=T.bool).dtype", "T.zeros_like(T.ones(2, 3, dtype=T.int16))",
    "T.ones_like(T.zeros(2), dtype=T.float64)", "T.full_like(T.zeros(2, 2), 3)",
    "T.full_like(T.zeros(2, dtype=T.int64), 3)", "T.empty_like(T.zeros(2, 3)).shape", "T.ones(2).new_zeros(3)",
    "T.ones(2, dtype=T.int32).new_full((2,), 5)", "T.ones(2).new_tensor([1, 2])",
    "T.ones(2, dtype=T.float64).new_ones((2, 2))", "T.ones(2).new_empty((3,)).shape",
    "T.zeros(2, requires_grad=True).requires_grad", "T.arange(3.0, requires_grad=True).requires_grad",
    "T.zeros(2, dtype=T.int64, requires_grad=True)", "T.tril(T.ones(3, 3))", "T.triu(T.arange(9).reshape(3, 3), 1)",
    "T.finfo(T.float32).eps", "T.finfo(T.bfloat16).max", "T.finfo(T.float16).tiny", "T.iinfo(T.int8).min",
    "T.iinfo(T.float32)", "T.numel(T.ones(2, 3))", "T.is_tensor(3)", "T.is_floating_point(T.ones(2))",
    "T.promote_types(T.int8, T.uint8)", "T.result_type(T.ones(2, dtype=T.int8), 2.5)", "T.float32", "T.half",
    "T.long", "T.ones(2).dtype.is_floating_point", "T.int8.itemsize", "T.get_default_dtype()",
]  # fmt: skip


@pytest.mark.parametrize("expression", DATA + RANGES)
@pytest.mark.filterwarnings("ignore")
def test_as_torch(expression, torch):
    parity.check(expression, {}, torch)


@pytest.mark.parametrize("dtype", ALL)
def test_every_dtype_on_every_device(dtype, device):
    if dtype == "float64" and not gg.ones(1, device=device)._backend.supports(np.dtype(np.float64)):
        pytest.skip("no float64 there")
    d = gg.dtypes.as_dtype(dtype)
    host = np.array([[0, 1, 2], [3, 100, 127]]).astype(d.numpy)
    for t in (
        gg.tensor(host, device=device),
        gg.tensor(host.tolist(), dtype=d, device=device),
        gg.tensor(host, dtype=dtype).to(device),
    ):
        assert t.dtype is d and t.device.type == device and tuple(t.shape) == (2, 3)
        np.testing.assert_array_equal(t.cpu().to_numpy(), host)
    for name, value in (("zeros", 0), ("ones", 1)):
        t = getattr(gg, name)(2, 2, dtype=d, device=device)
        np.testing.assert_array_equal(t.to_numpy(), np.full((2, 2), value, d.numpy))
    full = gg.full((2, 3), 5, dtype=d, device=device)
    np.testing.assert_array_equal(full.to_numpy(), np.full((2, 3), 5).astype(d.numpy))
    if d.category:
        np.testing.assert_array_equal(
            gg.arange(2, 90, 3, dtype=d, device=device).to_numpy(), np.arange(2, 90, 3).astype(d.numpy)
        )
    assert gg.eye(3, 4, dtype=d, device=device).to_numpy().tolist() == np.eye(3, 4).astype(d.numpy).tolist()
    np.testing.assert_array_equal(gg.full_like(full, 1).to_numpy(), np.ones((2, 3), d.numpy))
    assert gg.empty(0, 3, dtype=d, device=device).tolist() == []


@pytest.mark.parametrize("expression", [
    "arange(0, 1, 0.1)", "arange(10, 1, -3)", "linspace(-3, 7, 11)", "arange(1000.0)", "arange(2**33, 2**33 + 3)",
    "eye(3, 5)", "full((3,), -2.5)", "linspace(0, 1, 1001)", "arange(5, dtype=gg.float16)",
    "arange(-5, 5, dtype=gg.bfloat16)",
])  # fmt: skip
def test_ranges_are_the_same_on_every_device(expression, device):
    with gg.device(device):
        there = eval(f"gg.{expression}", {"gg": gg})
    here = eval(f"gg.{expression}", {"gg": gg})
    assert there.device.type == device
    np.testing.assert_allclose(there.to_numpy().astype(float), here.to_numpy().astype(float), rtol=2e-7, atol=0)


# -- casts -----------------------------------------------------------------------------------------


def test_casts(device, torch):
    """Every dtype to every other: truncation toward zero, wrapping, not-zero for bool, rounding to nearest even."""
    floats = np.array(
        [
            0.0,
            -0.0,
            0.4,
            -0.4,
            0.5,
            1.5,
            2.5,
            -1.9,
            3.99,
            100.7,
            1e-8,
            65504.0,
            1 + 2**-9,
            1 + 3 * 2**-9,
            2**-24,
            2**-25,
        ]
    )
    integers = np.array([0, 1, 2, 100, 127, 128, 200, 255, 256, -1, -128, -129, 40000, 2**31, 2**40])
    for source in ALL:
        s = gg.dtypes.as_dtype(source)
        with np.errstate(all="ignore"):
            host = (floats if s.is_floating_point else integers).astype(s.numpy)
        if s.is_floating_point and source != "float64":
            host = host[np.isfinite(host.astype(float))]
        if source == "float64" and not gg.ones(1, device=device)._backend.supports(np.dtype(np.float64)):
            continue
        for target in ALL:
            if target == "float64" and not gg.ones(1, device=device)._backend.supports(np.dtype(np.float64)):
                continue
            t = gg.dtypes.as_dtype(target)
            values = host
            if s.is_floating_point and t.category == 1:  # out of range is undefined
                info = np.iinfo(t.numpy)
                wide = host.astype(np.float64)
                values = (
                    host[(wide > max(info.min, -1e9) - 1) & (wide < min(info.max, 1e9))]
                    if info.min
                    else host[(wide > -1) & (wide < info.max)]
                )
            want = parity.to_torch(values, torch).to(getattr(torch, target))
            got = gg.tensor(values, device=device).to(t)
            assert got.dtype is t
            np.testing.assert_array_equal(got.cpu().double().numpy(), want.double().numpy(), f"{source} to {target}")


def test_cast_methods():
    x = gg.tensor([1.7, -1.7])
    names = {
        "float": "float32",
        "double": "float64",
        "half": "float16",
        "bfloat16": "bfloat16",
        "long": "int64",
        "int": "int32",
        "short": "int16",
        "char": "int8",
        "byte": "uint8",
        "bool": "bool",
    }
    for method, dtype in names.items():
        if method != "byte":
            assert getattr(x, method)().dtype.name == dtype
    assert gg.tensor([1, 2]).byte().dtype is gg.uint8
    assert x.long().tolist() == [1, -1]
    assert x.float() is x and x.to(gg.float32) is x and x.to("cpu") is x
    assert x.to(gg.float32, copy=True) is not x
    assert x.to(gg.tensor(1, dtype=gg.int16)).dtype is gg.int16
    assert x.type(gg.int32).dtype is gg.int32 and x.type() == "gpugrad.FloatTensor"
    assert x.type_as(gg.tensor(1)).dtype is gg.int64
    assert x.to(float).dtype is gg.float32 and x.to(int).dtype is gg.int64 and x.to(bool).dtype is gg.bool
    with pytest.raises(TypeError, match="to: expected a device, a dtype or a tensor, got list"):
        x.to([1])
    with pytest.raises(TypeError, match="to: unexpected argument speed"):
        x.to("cpu", speed=3)


def test_moves(device):
    host = np.arange(12, dtype=np.float32).reshape(3, 4)
    x = gg.tensor(host)
    there = x.to(device)
    assert there.device.type == device and str(there.device).split(":")[0] == device
    back = there.T.cpu()
    np.testing.assert_array_equal(back.numpy(), host.T)
    assert there.to(device) is there
    assert there.to(device, gg.float16).dtype is gg.float16
    assert x.to(there).device == there.device
    leaf = gg.tensor(host, requires_grad=True)
    (leaf.to(device) ** 2).sum().cpu().backward()
    np.testing.assert_array_equal(leaf.grad.numpy(), 2 * host)
    assert leaf.grad.device.type == "cpu"


# -- sharing memory with NumPy ---------------------------------------------------------------------


def test_from_numpy_shares_memory():
    host = np.arange(6.0).reshape(2, 3)
    x = gg.from_numpy(host)
    host[0, 0] = 50
    assert x[0, 0].item() == 50 and x.dtype is gg.float64
    x[1, 2] = -1
    assert host[1, 2] == -1
    assert gg.from_numpy(host.T).stride() == (1, 3)
    assert gg.as_tensor(host)[0, 0].item() == 50
    gg.as_tensor(host)[0, 1] = 4.5
    assert host[0, 1] == 4.5
    assert gg.tensor(host) is not host and not np.shares_memory(gg.tensor(host).numpy(), host)
    half = np.ones(3, ml_dtypes.bfloat16)
    assert gg.from_numpy(half).dtype is gg.bfloat16


def test_numpy_shares_memory():
    x = gg.zeros(2, 3)
    x.numpy()[0, 1] = 3
    assert x[0, 1].item() == 3
    x.T[2, 0] = 4
    assert x.numpy()[0, 2] == 4
    assert np.shares_memory(x.numpy(), x[1].numpy())
    assert np.asarray(x).shape == (2, 3) and np.asarray(x, dtype=np.float64).dtype == np.float64
    assert np.array(x) is not x.numpy() and not np.shares_memory(np.array(x), x.numpy())
    assert x.detach().numpy().dtype == np.float32
    assert gg.ones(2, requires_grad=True).numpy(force=True).tolist() == [1, 1]
    assert gg.from_dlpack(np.arange(3)).tolist() == [0, 1, 2]
    assert (np.float32(2) * gg.ones(2)).tolist() == [2, 2]
    assert (np.ones(2, np.float32) + x[0, :2].numpy()).tolist() == [1, 4]


def test_numpy_scalars_and_generic_arrays():
    assert (gg.ones(2) * np.float64(2.5)).dtype is gg.float32
    assert (gg.ones(2, dtype=gg.int64) * np.int32(2)).dtype is gg.int64
    assert gg.tensor(np.arange(3, dtype=">i4")).tolist() == [0, 1, 2]
    assert gg.from_numpy(np.arange(3, dtype=">f8")).tolist() == [0, 1, 2]


# -- conversion to Python ----------------------------------------------------------------------------


def test_conversions(device):
    x = gg.tensor([[1.5, 2.0]], device=device)
    assert x.tolist() == [[1.5, 2.0]] and x[0, 0].item() == 1.5 and type(x[0, 0].item()) is float
    assert type(gg.tensor(3, device=device).item()) is int and gg.tensor(True, device=device).item() is True
    assert gg.tensor(2.5, dtype=gg.bfloat16, device=device).item() == 2.5
    assert type(gg.tensor(2.5, dtype=gg.bfloat16, device=device).item()) is float
    assert gg.tensor([2.5], dtype=gg.bfloat16, device=device).tolist() == [2.5]
    assert float(x[0, 1]) == 2.0 and int(x[0, 0]) == 1 and bool(x[0, 0]) and not bool(gg.zeros(1, 1, device=device))
    assert [10, 20, 30][gg.tensor(1, device=device)] == 20
    assert len(x) == 1 and [t.tolist() for t in x] == [[1.5, 2.0]]
    a, b = x[0]
    assert (a.item(), b.item()) == (1.5, 2.0)
    assert 2.0 in x and 7.0 not in x
    assert f"{x[0, 0]:.2f}" == "1.50"
    assert round(float(gg.tensor(0.1, device=device)), 6) == 0.1
    assert list(gg.arange(3, device=device).unbind())[2].item() == 2
    assert repr(x).startswith("tensor([[1.5000, 2.0000]]") and (device == "cpu") == ("device" not in repr(x))


def test_shape_vocabulary():
    x = gg.zeros(2, 3, 4)
    assert x.shape == (2, 3, 4) and x.size() == gg.Size([2, 3, 4]) and x.size(1) == 3 and x.size(-1) == 4
    assert x.shape.numel() == 24 and x.numel() == x.nelement() == 24 and x.dim() == x.ndim == x.ndimension() == 3
    assert x.element_size() == x.itemsize == 4 and x.nbytes == 96
    assert isinstance(x.shape, tuple) and repr(x.shape) == "gpugrad.Size([2, 3, 4])"
    assert x.is_cpu and not x.is_cuda and x.get_device() == -1 and not x.is_complex()
    n, *rest = x.shape
    assert (n, rest) == (2, [3, 4])
    assert hash(x) == hash(x) and x in {x: 1}


# -- copies ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int64", "bool"])
def test_pickle_and_deepcopy(dtype, device):
    x = gg.tensor([[0, 1], [1, 0]], dtype=dtype, device=device)
    for other in (
        pickle.loads(pickle.dumps(x)),
        copy.deepcopy(x),
        copy.deepcopy([x])[0],
        pickle.loads(pickle.dumps(x.T)).T,
    ):
        assert other.device == x.device and other.dtype is x.dtype and other.tolist() == x.tolist()
        other.fill_(1)
        assert x[0, 0].item() == 0
    shared = copy.copy(x)
    shared[0, 0] = 1
    assert x[0, 0].item() == 1


def test_copies_of_leaves():
    x = gg.ones(2, requires_grad=True)
    (x * 3).sum().backward()
    other = copy.deepcopy(x)
    assert other.requires_grad and other.is_leaf and other.grad.tolist() == [3, 3]
    other.grad.zero_()
    assert x.grad.tolist() == [3, 3]
    again = pickle.loads(pickle.dumps(x))
    assert again.requires_grad and again.is_leaf
    with pytest.raises(RuntimeError, match="only leaf tensors can be deep-copied"):
        copy.deepcopy(x * 2)
    twice = copy.deepcopy([x, x])
    assert twice[0] is twice[1]
    assert pickle.loads(pickle.dumps(gg.float32)) is gg.float32 and copy.deepcopy(gg.bfloat16) is gg.bfloat16
    assert pickle.loads(pickle.dumps(gg.device("cpu"))) == gg.device("cpu")


def test_tensor_of_a_tensor_is_a_detached_copy(device):
    x = gg.ones(2, device=device, requires_grad=True)
    y = gg.tensor(x * 2)
    assert not y.requires_grad and y.device == x.device
    y.zero_()
    assert gg.tensor(x, dtype=gg.float16).dtype is gg.float16
    assert x.tolist() == [1, 1]


# -- defaults -------------------------------------------------------------------------------------------


def test_default_dtype(restore_defaults):
    gg.set_default_dtype(gg.float64)
    assert (
        gg.tensor(1.5).dtype
        is gg.zeros(1).dtype
        is gg.rand(1).dtype
        is gg.linspace(0, 1, 2).dtype
        is gg.arange(1.5).dtype
        is gg.float64
    )
    assert (gg.tensor(1) / 2).dtype is gg.float64 and gg.sqrt(gg.tensor(4)).dtype is gg.float64
    assert (gg.tensor([1]) * 2.5).dtype is gg.float64
    assert (
        gg.full((1,), 2.0).dtype is gg.float64 and gg.tensor([]).dtype is gg.float64 and gg.eye(2).dtype is gg.float64
    )
    assert gg.tensor(1).dtype is gg.int64 and gg.tensor(np.float32(1)).dtype is gg.float32
    gg.set_default_dtype(gg.float16)
    assert (gg.tensor(1) / 2).dtype is gg.float16
    with pytest.raises(TypeError, match="only floating-point types can be the default"):
        gg.set_default_dtype(gg.int64)


def test_default_device(device, restore_defaults):
    gg.set_default_device(device)
    assert gg.get_default_device().type == device
    made = [
        gg.zeros(2),
        gg.ones(1),
        gg.tensor([1]),
        gg.arange(3),
        gg.eye(2),
        gg.full((1,), 2),
        gg.rand(2),
        gg.randn(1),
        gg.randint(3, (2,)),
        gg.randperm(3),
        gg.linspace(0, 1, 2),
        gg.empty(1),
        gg.as_tensor([1]),
        gg.Tensor([1]),
    ]
    assert {t.device.type for t in made} == {device}
    assert gg.zeros(1, device="cpu").device.type == "cpu"
    assert gg.zeros_like(gg.zeros(1, device="cpu")).device.type == "cpu"
    with gg.device("cpu"):
        assert gg.zeros(1).device.type == "cpu"
        with gg.device(device):
            assert gg.zeros(1).device.type == device
        assert gg.zeros(1).device.type == "cpu"
    assert gg.zeros(1).device.type == device
    seen = []
    with gg.device("cpu"):
        thread = threading.Thread(target=lambda: seen.append(gg.zeros(1).device.type))
        thread.start()
        thread.join()
    assert seen == [device], "the context belongs to its thread"


def test_device_context_is_left_after_an_error(device):
    with pytest.raises(ZeroDivisionError), gg.device(device):
        raise ZeroDivisionError
    assert gg.zeros(1).device.type == "cpu"


def run_python(code, **environment):
    return subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **environment}, capture_output=True, text=True
    )


def test_environment_variable(device):
    if device == "pretend":
        pytest.skip("exists in this process only")
    code = "import gpugrad as gg; x = gg.ones(3); print(x.device.type, (x * 2).tolist())"
    assert run_python(code, GPUGRAD_DEVICE=device).stdout.split(maxsplit=1) == [device, "[2.0, 2.0, 2.0]\n"]


def test_environment_variable_is_checked():
    done = run_python("import gpugrad as gg; gg.ones(3)", GPUGRAD_DEVICE="toaster")
    assert "device 'toaster' is unknown" in done.stderr
    assert run_python("import gpugrad as gg; print(gg.ones(3).device)", GPUGRAD_DEVICE="").stdout == "cpu\n"
    done = run_python(
        "import gpugrad as gg; gg.ones(3); gg.zeros(2); print(gg.ones(3).device.type)", GPUGRAD_DEVICE="auto"
    )
    assert done.stdout.strip() in ("cpu", "opencl", "cuda") and done.stderr.count("device auto is") == 1


def test_device_names():
    assert gg.device("cpu") == "cpu" == gg.device(gg.device("cpu")) and gg.device("CPU").type == "cpu"
    assert str(gg.device("cpu:0")) == "cpu" and repr(gg.device("cpu")) == "device(type='cpu')"
    assert (
        gg.device("cuda:1").index == 1
        and str(gg.device("cuda", 1)) == "cuda:1"
        and repr(gg.device("cuda:1")) == "device(type='cuda', index=1)"
    )
    assert gg.device("cuda") == "cuda:0" != gg.device("cuda:1") and len({gg.device("cuda"), gg.device("cuda:0")}) == 1
    assert gg.zeros(1).device == gg.device("cpu") and gg.zeros(1).device == "cpu" and gg.zeros(1).device != "cuda"
    assert gg.is_available("cpu") and not gg.is_available("cuda:63")
    assert any(str(d) == "cpu" for d, _ in gg.devices())


def test_tensor_of_one_number_is_its_value():
    assert gg.Tensor(5).item() == 5.0
    assert gg.Tensor(5).shape == ()
    assert gg.Tensor(None).shape == (0,)
    assert gg.Tensor(2, 3).shape == (2, 3)
    assert gg.Tensor.ones(2).to_numpy().tolist() == [1.0, 1.0]


def test_attributes_of_users_are_copied_with_a_tensor():
    p = gg.nn.Parameter(gg.ones(2))
    p.no_decay, p.groups = True, [1, 2]
    p.register_post_accumulate_grad_hook(lambda t: None)
    for other in (copy.copy(p), copy.deepcopy(p), pickle.loads(pickle.dumps(p))):
        assert type(other) is gg.nn.Parameter and other.requires_grad
        assert other.no_decay is True and other.groups == [1, 2] and not hasattr(other, "_post_hooks")
    assert copy.deepcopy(p).groups is not p.groups and copy.copy(p).data_ptr() == p.data_ptr()
