"""Names of the package that are not ops: argument aliases, ``out=``, memory shared with other libraries, settings."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

import gpugrad as gg
from gpugrad import surface

# -- names of arguments -----------------------------------------------------------------


def test_numpy_names(device):
    x = gg.arange(12.0, device=device).reshape(3, 4)
    assert gg.sum(x, axis=1).tolist() == x.sum(1).tolist()
    assert x.amax(axis=0, keepdims=True).shape == (1, 4)
    assert gg.cat([x, x], axis=1).shape == (3, 8)
    assert gg.softmax(input=x, dim=1).shape == (3, 4)
    assert gg.add(x=x, x2=1).tolist() == gg.add(input=x, other=1).tolist() == (x + 1).tolist()
    assert gg.pow(input=x, exponent=2).tolist() == (x * x).tolist()


def test_one_argument_under_two_names():
    x = gg.ones(2, 3)
    with pytest.raises(TypeError, match="axis and dim"):
        gg.sum(x, dim=0, axis=1)
    with pytest.raises(TypeError, match="given twice|multiple values"):
        gg.exp(x, input=x)
    with pytest.raises(TypeError):
        gg.exp(x, nonsense=1)


# -- out= -----------------------------------------------------------------------------------


def test_out(device):
    x = gg.tensor([[1.0, 2.0], [3.0, 4.0]], device=device)
    out = gg.empty(2, 2, device=device)
    assert gg.mul(x, 3, out=out) is out and out.tolist() == [[3, 6], [9, 12]]
    column = gg.zeros(2, 3, device=device)[:, 1]
    gg.sum(x, 1, out=column)
    assert column.tolist() == [3, 7]
    wide = gg.empty(0, dtype=gg.float64) if device == "cpu" else gg.empty(0, device=device)
    assert gg.add(x, x, out=wide).tolist() == [[2, 4], [6, 8]]
    assert gg.matmul(x, x, out=gg.empty(0, device=device)).tolist() == [[7, 10], [15, 22]]
    values, indices = gg.empty(0, device=device), gg.empty(0, dtype=gg.int64, device=device)
    got = gg.max(x, 1, out=(values, indices))
    assert got.values is values and values.tolist() == [2, 4] and indices.tolist() == [1, 1]


def test_out_of_another_shape_warns():
    with pytest.warns(UserWarning, match="resized"):
        out = gg.exp(gg.zeros(3), out=gg.empty(2))
    assert out.tolist() == [1, 1, 1]


def test_out_is_refused():
    x = gg.ones(3, requires_grad=True)
    with pytest.raises(RuntimeError, match="requires grad"):
        gg.exp(x, out=gg.empty(3))
    with gg.no_grad():
        gg.exp(x, out=gg.empty(3))
    with pytest.raises(RuntimeError, match="cannot be stored"):
        gg.exp(x.detach(), out=gg.empty(3, dtype=gg.int64))
    with pytest.raises(TypeError, match="must be a Tensor"):
        gg.exp(x.detach(), out=np.empty(3))
    with pytest.raises(TypeError):
        gg.isnan(x, out=gg.empty(3))


def test_out_exists_where_it_does_in_pytorch():
    """PyTorch's stubs say which functions have it."""
    pytest.importorskip("torch")
    from tools.pytorch_coverage import Stubs

    stubs = Stubs(keep_out=True).functions
    here = {n: n not in surface.WITHOUT_OUT for n in surface.functions() if not n.endswith("_")}
    differ = {n for n, takes in here.items() if n in stubs and takes != any("out" in o for o in stubs[n])}
    assert not differ


# -- memory of other libraries ------------------------------------------------------------------


def test_shares_memory_with_numpy():
    x = gg.arange(6.0).reshape(2, 3)
    theirs = np.from_dlpack(x)
    theirs[0, 0] = 7
    assert x[0, 0].item() == 7
    back = gg.from_dlpack(theirs)
    back[1, 2] = 9
    assert theirs[1, 2] == 9 and x[1, 2].item() == 9
    assert gg.from_dlpack(theirs, copy=True).data_ptr() != x.data_ptr()
    assert gg.from_dlpack(theirs.T).stride() == (1, 3)


def test_shares_memory_with_pytorch():
    torch = pytest.importorskip("torch")
    x = gg.arange(6).reshape(2, 3)
    theirs = torch.from_dlpack(x)
    theirs[0, 1] = 42
    assert x[0, 1].item() == 42 and theirs.data_ptr() == x.data_ptr()
    mine = gg.from_dlpack(torch.arange(4.0)[1:])
    assert mine.tolist() == [1, 2, 3]
    with pytest.raises(BufferError, match="detach"):
        torch.from_dlpack(gg.ones(2, requires_grad=True))
    with pytest.raises(BufferError, match="bfloat16"):
        gg.from_dlpack(torch.ones(2, dtype=torch.bfloat16))


def test_memory_that_cannot_be_shared(device):
    x = gg.ones(3, device=device)
    assert not hasattr(x, "__cuda_array_interface__") or device == "cuda"
    if device in ("opencl", "pretend"):
        with pytest.raises(BufferError, match="cpu"):
            np.from_dlpack(x)
    with pytest.raises(TypeError, match="__dlpack__"):
        gg.from_dlpack([1.0])


def test_addresses():
    x = gg.zeros(4, 4)
    assert x[1:].data_ptr() == x.data_ptr() + 16
    assert x[1:].untyped_storage().data_ptr() == x.untyped_storage().data_ptr()
    assert x.untyped_storage().nbytes() == 64
    assert x.is_set_to(x.view(4, 4)) and not x.is_set_to(x.t())


# -- devices ----------------------------------------------------------------------------------------


def test_device_is_a_class():
    d = gg.device("cpu")
    assert isinstance(d, gg.device) and gg.device(d) == d and d.type == "cpu"
    assert gg.device("cuda", 1) == gg.device("cuda:1")
    assert pickle.loads(pickle.dumps(gg.device("cuda:1"))) == gg.device("cuda", 1)
    with pytest.raises(gg.DeviceError, match="unknown"):
        gg.device("foo")
    with pytest.raises(gg.DeviceError, match="unknown"):
        gg.device("foo", 0)


def test_cuda_namespace():
    assert gg.cuda.is_available() == gg.is_available("cuda")
    if not gg.cuda.is_available():
        assert gg.cuda.device_count() == 0 and gg.cuda.memory_allocated() == 0 and not gg.cuda.is_bf16_supported()
        with pytest.raises(gg.DeviceError):
            gg.cuda.get_device_name()
    gg.cuda.manual_seed_all(5)
    assert gg.initial_seed() == 5
    gg.cuda.empty_cache()


def test_memory_goes_back(device):
    x = gg.ones(1000, device=device)
    backend = x._backend
    del x
    backend.release_cached()
    stats = gg.memory_stats(device)
    assert stats["reserved"] >= stats["allocated"] >= 0


# -- settings -----------------------------------------------------------------------------------------


def test_threads():
    before = gg.get_num_threads()
    try:
        gg.set_num_threads(1)
        assert gg.get_num_threads() == 1
        x = gg.randn(32, 16, 32, 32)
        w = gg.randn(16, 1, 3, 3)
        one = gg.nn.functional.conv2d(x, w, groups=16).exp().sum(0)
        gg.set_num_threads(2)
        assert (gg.nn.functional.conv2d(x, w, groups=16).exp().sum(0) == one).all()
    finally:
        gg.set_num_threads(before)
    with pytest.raises(RuntimeError, match="positive"):
        gg.set_num_threads(0)


def test_switches():
    gg.backends.cudnn.benchmark = True
    assert gg.backends.cudnn.benchmark is True
    with gg.backends.cudnn.flags(benchmark=False):
        assert gg.backends.cudnn.benchmark is False
    assert gg.backends.cudnn.benchmark is True and not gg.backends.mps.is_available()
    with pytest.raises(AttributeError, match="no switch"):
        gg.backends.cudnn.benchmrak = True
    gg.set_float32_matmul_precision("high")
    assert gg.get_float32_matmul_precision() == "high"
    gg.set_float32_matmul_precision("highest")
    gg.use_deterministic_algorithms(True)
    assert gg.are_deterministic_algorithms_enabled()
    gg.use_deterministic_algorithms(False)


def test_fork_rng():
    gg.manual_seed(1)
    with gg.random.fork_rng():
        inside = gg.rand(3)
    assert (gg.rand(3) == inside).all()


# -- questions, typed constructors ---------------------------------------------------------------------


def test_questions():
    x = gg.ones(2)
    assert gg.is_tensor(x) and not gg.is_tensor(3) and gg.is_floating_point(x) and not gg.is_complex(x)
    assert gg.is_signed(x) and not gg.is_signed(x.byte()) and gg.is_nonzero(x[:1])
    assert gg.numel(x) == 2 and gg.get_device(x) == -1 and gg.typename(x) == "gpugrad.FloatTensor"
    assert gg.can_cast(gg.int64, gg.float16) and not gg.can_cast(gg.float16, gg.int64)
    assert gg.can_cast(gg.int8, gg.uint8) and gg.can_cast(gg.uint8, gg.int8)
    with pytest.raises(RuntimeError, match="elements"):
        gg.is_nonzero(x)


def test_typed_constructors():
    x = gg.LongTensor([1, 2])
    assert x.dtype is gg.int64 and isinstance(x, gg.LongTensor) and not isinstance(x, gg.FloatTensor)
    assert gg.FloatTensor(2, 3).shape == (2, 3)
    assert x.type() == "gpugrad.LongTensor" and x.type(gg.FloatTensor).dtype is gg.float32
    assert x.type("torch.DoubleTensor").dtype is gg.float64
    gg.set_default_tensor_type("torch.DoubleTensor")
    assert gg.zeros(1).dtype is gg.float64
    gg.set_default_tensor_type(gg.FloatTensor)
    assert gg.zeros(1).dtype is gg.float32


def test_memory_formats():
    x = gg.ones(2, 3, 4, 5)
    assert (
        x.to(memory_format=gg.channels_last).is_contiguous() and x.contiguous(memory_format=gg.contiguous_format) is x
    )
    assert not x.is_contiguous(memory_format=gg.channels_last)
    assert x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2).is_contiguous(memory_format=gg.channels_last)


def test_python_functions_in_place():
    x = gg.tensor([[1.0, 2.0], [3.0, 4.0]])
    assert x.apply_(lambda v: v * 10).tolist() == [[10, 20], [30, 40]]
    assert x.map_(gg.tensor([1.0, 2.0]), lambda a, b: a + b).tolist() == [[11, 22], [31, 42]]
    with pytest.raises(RuntimeError, match="requires grad"):
        gg.ones(1, requires_grad=True).apply_(abs)


def test_absent_names_say_why():
    with pytest.raises(AttributeError, match="no complex numbers"):
        _ = gg.fft
    with pytest.raises(AttributeError, match="gpugrad has no nonsense"):
        _ = gg.nonsense
    assert not hasattr(gg, "jit")


def test_pickled_for_an_absent_device(monkeypatch):
    x = gg.ones(2)
    function, arguments, _ = x.__reduce__()
    arguments = (*arguments[:3], "cuda:97", *arguments[4:])
    with pytest.warns(UserWarning, match="comes to the CPU"):
        y = function(*arguments)
    assert y.tolist() == [1, 1] and y.is_cpu
