"""What users get wrong, on every device: the type of each error and what its text says."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

import gpugrad as gg
from gpugrad.errors import DeviceError, DTypeError
from gpugrad.ops import OPS
from tests import pretend

F = gg.nn.functional


def raises(kind, *texts):
    """``pytest.raises`` that also wants every one of ``texts`` in the message, in one line."""
    return _Raises(kind, texts)


class _Raises:
    def __init__(self, kind, texts):
        self.kind, self.texts = kind, texts

    def __enter__(self):
        self.context = pytest.raises(self.kind)
        self.caught = self.context.__enter__()
        return self.caught

    def __exit__(self, *error):
        passed = self.context.__exit__(*error)
        if passed:
            message = str(self.caught.value)
            for text in self.texts:
                assert text in message, f"{text!r} is not in: {message}"
            assert "\n" not in message, f"more than one line: {message}"
        return passed


# -- making tensors -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        [[1, 2], [3]],
        [[1], [2, 3], [4]],
        [[[1]], [[1, 2]]],
        [1, [2]],
        [np.ones(2), np.ones(3)],
        [[1, 2], 3],
    ],
    ids=str,
)
def test_ragged_lists(data, device):
    with raises(ValueError, "tensor: the nested lists are ragged"):
        gg.tensor(data, device=device)


@pytest.mark.parametrize(
    ("data", "named"),
    [
        ("text", "str"),
        (["a", "b"], "str"),
        ([1, "a"], "str"),
        (None, "NoneType"),
        ([1, None], "NoneType"),
        (object(), "object"),
        ([object()], "object"),
        ({1: 2}, "dict"),
        ({1, 2}, "set"),
        (1j, "complex"),
        ([1, 2j], "complex"),
        (np.ones(2, np.complex64), "ndarray"),
        (np.array(["a"]), "ndarray"),
        (np.array([None]), "ndarray"),
        (np.array("2020-01-01", "M8[D]"), "ndarray"),
        (len, "builtin_function_or_method"),
        (b"bytes", "bytes"),
    ],
)
def test_unsupported_data(data, named, device):
    with raises(TypeError, f"tensor: cannot make a tensor of {named}", "elements must be numbers or bools"):
        gg.tensor(data, device=device)


def test_other_creation_mistakes(device):
    for call, kind, text in (
        (lambda: gg.tensor(10**30, device=device), ValueError, "an integer does not fit in int64"),
        (lambda: gg.zeros(-1, device=device), RuntimeError, "zeros: sizes must not be negative, got (-1,)"),
        (lambda: gg.zeros(2.5, device=device), TypeError, "zeros: sizes must be integers"),
        (lambda: gg.full((2,), "a", device=device), TypeError, "expected a Tensor or a number, got str"),
        (lambda: gg.arange(1, 5, 0, device=device), RuntimeError, "arange: step must not be zero"),
        (
            lambda: gg.arange(5, 1, device=device),
            RuntimeError,
            "arange: end 1 is on the wrong side of start 5 for step 1",
        ),
        (lambda: gg.linspace(0, 1, -1, device=device), RuntimeError, "linspace: steps must not be negative, got -1"),
        (lambda: gg.zeros(2, dtype="complex64", device=device), TypeError, "'complex64' is not a dtype gpugrad knows"),
        (lambda: gg.zeros(2, dtype=object, device=device), TypeError, "is not a dtype gpugrad knows"),
        (lambda: gg.tensor([1], dtype="float99", device=device), TypeError, "'float99' is not a dtype gpugrad knows"),
        (
            lambda: gg.ones(2, dtype=gg.int64, device=device, requires_grad=True),
            RuntimeError,
            "only floating-point tensors can require gradients, not int64",
        ),
        (lambda: gg.from_numpy([1, 2]), TypeError, "from_numpy: expected an ndarray, got list"),
        (lambda: gg.from_numpy(np.arange(3)[::-1]), ValueError, "from_numpy: the array has negative strides"),
        (lambda: gg.from_numpy(np.array(["a"])), TypeError, "NumPy dtype <U1 has no gpugrad counterpart"),
        (lambda: gg.ones(2, device=device) + "a", TypeError, "unsupported operand"),
        (lambda: gg.add(gg.ones(2, device=device), "a"), TypeError, "add: expected a Tensor or a number, got str"),
        (lambda: gg.add(gg.ones(2, device=device), [1, 2]), TypeError, "add: expected a Tensor or a number, got list"),
        (lambda: gg.exp(3.0), TypeError, "exp: expected a Tensor, got float"),
        (lambda: gg.matmul(gg.ones(2, device=device), [1, 2]), TypeError, "matmul: expected a Tensor, got list"),
        (lambda: gg.cat([gg.ones(2, device=device), 3]), TypeError, "cat: expected a Tensor, got int"),
    ):
        with raises(kind, text):
            call()


# -- shapes -------------------------------------------------------------------------------------------

BINARY = [op for op in OPS.values() if op.elementwise and op.samples and len(op.samples[0].inputs) == 2]


def two(op, device, first=(3, 4), second=(3, 5)):
    dtype = gg.int64 if "f" not in op.dtypes else gg.float32
    return gg.ones(first, dtype=dtype, device=device), gg.ones(second, dtype=dtype, device=device)


@pytest.mark.parametrize("op", [pytest.param(op, id=op.name) for op in BINARY])
def test_shape_mismatch_in_every_binary_op(op, device):
    assert len(BINARY) > 25
    a, b = two(op, device)
    with raises(RuntimeError, f"{op.name}: ", "(3, 4)", "(3, 5)", "do not broadcast"):
        op.function(a, b)
    if hasattr(op.function, "inplace"):
        with raises(RuntimeError, f"{op.name}_: ", "(3, 4)", "(2, 3, 4)"):
            op.function.inplace(*two(op, device, (3, 4), (2, 3, 4)))
    np.testing.assert_array_equal(a.cpu().numpy(), np.ones((3, 4)), "the refused operation changed its operand")


@pytest.mark.parametrize(
    ("first", "second", "text"),
    [
        ((2, 3), (4, 5), "the last size of the first operand (3) must equal the second last size of the second (4)"),
        ((3,), (4,), "the last size of the first operand (3) must equal the only size of the second (4)"),
        ((2, 3), (2,), "the last size of the first operand (3)"),
        ((4,), (3, 4), "the last size of the first operand (4)"),
        ((2, 3, 4), (3, 4, 5), "batch dimensions do not broadcast"),
        ((), (3, 3), "both operands need at least 1 dimension"),
    ],
)
def test_shape_mismatch_in_matmul(first, second, text, device):
    a, b = gg.ones(first, device=device), gg.ones(second, device=device)
    for call in (gg.matmul, lambda a, b: a @ b):
        with raises(RuntimeError, "matmul: ", text, str(first), str(second), "float32"):
            call(a, b)


SHAPES = [
    (lambda x, y, v: gg.where(x > 0, x, y), "where: shapes"),
    (lambda x, y, v: gg.clamp(x, y, 1), "clamp"),
    (lambda x, y, v: gg.mm(x, v), "mm: expected two matrices"),
    (lambda x, y, v: gg.bmm(x, y), "bmm: expected [b, n, k] and [b, k, m]"),
    (lambda x, y, v: gg.dot(x, x), "dot: expected two 1-d tensors"),
    (lambda x, y, v: gg.outer(x, v), "outer: expected two 1-d tensors"),
    (lambda x, y, v: gg.mv(x, x), "mv: expected a matrix and a vector"),
    (lambda x, y, v: gg.tensordot(x, y, 2), "tensordot: the sizes over dims 2 differ"),
    (lambda x, y, v: gg.einsum("ij,jk->ik", x, y), "einsum: index 'j' has sizes 4 and 3"),
    (lambda x, y, v: gg.einsum("ij->k", x), "einsum: the result of"),
    (lambda x, y, v: gg.einsum("ijk", x), "einsum: term 'ijk' does not fit a tensor of shape (3, 4)"),
    (lambda x, y, v: gg.einsum("ij,jk", x), "has 2 terms for 1 operands"),
    (lambda x, y, v: gg.cat([x, y]), "cat: shapes must agree except in dimension 0, got (3, 4), (3, 5)"),
    (lambda x, y, v: gg.stack([x, y]), "stack: all tensors must have one shape"),
    (lambda x, y, v: x.reshape(5, 3), "reshape: shape (5, 3) is invalid for 12 elements; the tensor has shape (3, 4)"),
    (lambda x, y, v: x.reshape(-1, -1), "may have one -1"),
    (
        lambda x, y, v: x.T.view(12),
        "view: shape (12,) cannot be laid over a tensor of shape (4, 3) with strides (1, 4); use reshape()",
    ),
    (lambda x, y, v: x.view(5), "view: shape (5,) is invalid for 12 elements"),
    (lambda x, y, v: v.expand(3, 5), "expand: a tensor of shape (4,) cannot be expanded to (3, 5)"),
    (lambda x, y, v: x.permute(0, 0), "permute: dims (0, 0) must name each of the 2 dimensions once"),
    (lambda x, y, v: x.split([1, 1]), "split_with_sizes: sizes [1, 1] must add up to the size 3"),
    (lambda x, y, v: x.narrow(1, 3, 2), "narrow: start 3 with length 2 exceeds dimension 1 of size 4"),
    (lambda x, y, v: x.repeat(2), "repeat: 1 repeats for a tensor of 2 dimensions"),
    (lambda x, y, v: x.unfold(1, 5, 1), "unfold: size 5 with step 1 does not fit dimension 1 of size 4"),
    (lambda x, y, v: gg.roll(x, (1, 2), 0), "roll: shifts (1, 2) and dims (0,) must be as many"),
    (lambda x, y, v: x.t().T[None].t(), "t: expected at most 2 dimensions"),
    (lambda x, y, v: F.pad(x, (1, 1, 1)), "must be pairs"),
    (lambda x, y, v: F.pad(x, (-3, -3)), "leaves a negative size"),
    (lambda x, y, v: gg.triu(v), "triu: expected at least 2 dimensions, got shape (4,)"),
    (lambda x, y, v: gg.topk(v, 5), "topk: k = 5 is out of range for dimension 0 of size 4"),
    (lambda x, y, v: gg.kthvalue(v, 0), "kthvalue: k = 0 is out of range"),
    (
        lambda x, y, v: x.scatter(0, gg.zeros(2, dtype=gg.int64, device=x.device), 1.0),
        "scatter: the index of shape (2,) must have as many dimensions",
    ),
    (
        lambda x, y, v: gg.gather(x, 0, gg.zeros(2, 9, dtype=gg.int64, device=x.device)),
        "gather: the index of shape (2, 9)",
    ),
    (
        lambda x, y, v: x.index_add(0, gg.tensor([0], device=x.device), x),
        "index_add: source of shape (3, 4) should have shape (1, 4)",
    ),
    (lambda x, y, v: x.copy_(y), "copy_: a source of shape (3, 5) does not broadcast to (3, 4)"),
    (
        lambda x, y, v: x.__setitem__(0, y[0]),
        "index assignment: a value of shape (5,) does not broadcast to the indexed shape (4,)",
    ),
    (lambda x, y, v: gg.as_strided(x, (9, 9), (4, 1)), "reaches outside the storage of 12 elements"),
    (lambda x, y, v: gg.amax(x[:0]), "amax: no elements to choose from, shape (0, 4)"),
    (lambda x, y, v: F.linear(x, y), "linear: input of shape (3, 4) does not fit weight of shape (3, 5)"),
    (lambda x, y, v: gg.broadcast_tensors(x, y), "broadcast_tensors: shapes (3, 4), (3, 5) do not broadcast"),
    (lambda x, y, v: x.sum((0, 0)), "sum: dimensions (0, 0) name one dimension twice"),
    (lambda x, y, v: v.expand(3, 4).add_(1), "several of its elements share one memory location"),
]


@pytest.mark.parametrize(("call", "text"), SHAPES)
def test_shape_mistakes(call, text, device):
    x, y, v = gg.ones(3, 4, device=device), gg.ones(3, 5, device=device), gg.ones(4, device=device)
    with raises(RuntimeError, text):
        call(x, y, v)


@pytest.mark.parametrize(
    "call",
    [
        lambda x: x.sum(2),
        lambda x: x.mean(-3),
        lambda x: x.transpose(0, 2),
        lambda x: x.squeeze(5),
        lambda x: x.unsqueeze(4),
        lambda x: gg.cat([x, x], 2),
        lambda x: x.cumsum(3),
        lambda x: x.sort(2),
        lambda x: x.argmax(2),
        lambda x: x.flip(2),
        lambda x: x.split(1, 3),
        lambda x: x.size(2),
        lambda x: gg.softmax(x, 2),
        lambda x: x.select(2, 0),
        lambda x: x.flatten(0, 2),
        lambda x: x.norm(dim=2),
        lambda x: x.index_select(2, gg.tensor([0], device=x.device)),
    ],
)
def test_dimension_out_of_range(call, device):
    with raises(IndexError, "is out of range for a tensor of 2 dimensions (expected -"):
        call(gg.ones(3, 4, device=device))


# -- dtypes --------------------------------------------------------------------------------------------


def test_wrong_dtypes(device):
    x = gg.ones(2, 2, device=device)
    i, b = x.long(), x.bool()
    for call, text in (
        (lambda: x & x, "bitwise_and: not defined for floating-point tensors (float32)"),
        (lambda: ~x, "bitwise_not: not defined for floating-point"),
        (lambda: x << 1, "bitwise_left_shift: not defined for floating-point"),
        (lambda: b - b, "sub: not defined for bool tensors"),
        (lambda: -b, "neg: not defined for bool tensors"),
        (lambda: b @ b, "matmul: not defined for bool tensors"),
        (lambda: x @ i, "matmul: expected operands of one dtype, got (2, 2) float32"),
        (lambda: i.mean(), "mean: expected a floating-point tensor, got int64"),
        (lambda: gg.softmax(i, 0), "softmax: expected a floating-point tensor"),
        (lambda: gg.where(x, x, x), "where: the condition must be a bool tensor, not float32"),
        (lambda: x.masked_fill(i, 0), "masked_fill: the mask must be a bool tensor, got int64"),
        (lambda: i**-1, "pow: an integer base has no integer result for the negative exponent -1"),
        (lambda: x.scatter(0, i * 0, i), "scatter: src must have the dtype of the tensor"),
        (lambda: i.add_(0.5), "add_: the result type float32 cannot be stored in a int64 tensor"),
        (lambda: i.requires_grad_(), "only floating-point tensors can require gradients, not int64"),
        (lambda: b.argmax(), "argmax: not defined for bool tensors"),
    ):
        with raises((RuntimeError, TypeError), text):
            call()
    assert issubclass(DTypeError, TypeError) and issubclass(DTypeError, RuntimeError), "either name catches it"


def test_float64_where_there_is_none():
    assert pretend  # its device has no float64
    x = gg.ones(2, device="pretend")
    for call, op in (
        (lambda: gg.zeros(2, dtype=gg.float64, device="pretend"), "zeros"),
        (lambda: gg.tensor(np.ones(2), device="pretend"), "tensor"),
        (lambda: gg.rand(2, dtype=gg.float64, device="pretend"), "rand"),
        (lambda: gg.arange(3, dtype=gg.float64, device="pretend"), "arange"),
        (lambda: x.double(), "to"),
        (lambda: x.to(gg.float64), "to"),
        (lambda: gg.ones(2, dtype=gg.float64).to("pretend"), "to"),
        (lambda: gg.full((2,), 1.0, dtype=gg.float64, device="pretend"), "full"),
        (lambda: gg.ones_like(x, dtype=gg.float64), "full_like"),
        (lambda: x.sum(dtype=gg.float64), "sum"),
        (lambda: gg.linspace(0, 1, 3, dtype=gg.float64, device="pretend"), "linspace"),
        (lambda: gg.eye(2, dtype=gg.float64, device="pretend"), "zeros"),
        (lambda: gg.empty_like(x, dtype=gg.float64), "empty"),
    ):
        with raises(DeviceError, f"{op}: float64 is not supported on pretend:0", "use float32 there"):
            call()
    assert gg.ones(2, dtype=gg.float64).to("pretend", gg.float32).dtype is gg.float32, "converted before it travels"
    with gg.device("pretend"):
        assert (gg.tensor(1.5) * 2).dtype is gg.float32


def test_float64_number_meets_a_device_without_it():
    x = gg.ones(2, device="pretend", requires_grad=True)
    y = (x * gg.tensor(2.0, dtype=gg.float64)).sum()  # 0-d: does not decide the dtype
    y.backward()
    assert x.grad.tolist() == [2, 2]
    with raises(DeviceError, "float64 is not supported on pretend:0"):
        gg.ones(2, dtype=gg.int64, device="pretend") * gg.tensor(2.0, dtype=gg.float64)


# -- devices --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("op", [pytest.param(op, id=op.name) for op in BINARY])
def test_mixed_devices_in_every_binary_op(op, device):
    other = "pretend" if device == "cpu" else "cpu"
    a, b = two(op, device)[0], two(op, other)[0]
    for x, y in ((a, b), (b, a)):
        with raises(
            DeviceError, f"{op.name}: operands are on different devices", "on cpu", f"{x.device}", "move one with .to("
        ):
            op.function(x, y)
    if hasattr(op.function, "inplace"):
        with raises(DeviceError, "different devices"):
            op.function.inplace(a, b)


def test_mixed_devices_elsewhere(device):
    other = "pretend" if device == "cpu" else "cpu"
    x, y = gg.ones(3, 3, device=device), gg.ones(3, 3, device=other)
    i = gg.tensor([0, 1], device=other)
    wide = gg.zeros(3, 3, dtype=gg.int64, device=other)
    for name, call in {
        "matmul": lambda: x @ y,
        "cat": lambda: gg.cat([x, y]),
        "stack": lambda: gg.stack([x, y]),
        "gather": lambda: gg.gather(x, 0, wide),
        "index_select": lambda: gg.index_select(x, 0, i),
        "where": lambda: gg.where(x > 0, x, y),
        "scatter": lambda: x.scatter(0, wide, 1.0),
        "scatter_add": lambda: x.scatter_add(0, wide.to(device), y),
        "embedding": lambda: F.embedding(i, x),
        "clamp": lambda: gg.clamp(x, y, y),
        "index assignment": lambda: x.__setitem__(0, y[0]),
        "tensordot": lambda: gg.tensordot(x, y, 1),
        "einsum": lambda: gg.einsum("ij,jk", x, y),
        "addmm": lambda: gg.addmm(x, x, y),
        "linear": lambda: F.linear(x, y),
        "conv1d": lambda: F.conv1d(x[None], y[None]),
        "masked_fill": lambda: x.masked_fill(y > 0, 1.0),
        "index_add": lambda: x.index_add(0, i, x[:2]),
        "lerp": lambda: gg.lerp(x, y, 0.5),
        "backward": lambda: (x.requires_grad_() * 2).backward(y),
    }.items():
        with pytest.raises(RuntimeError) as caught:
            call()
        message = str(caught.value)
        assert ("device" in message or "move it with" in message) and "cpu" in message and "\n" not in message, (
            f"{name}: {message}"
        )
    x = x.detach()
    assert (x + gg.tensor(2.0)).device.type == device, "a 0-d CPU tensor goes anywhere"
    assert x[gg.tensor([0, 2])].device.type == device, "a CPU index too"


def run_python(code, **environment):
    return subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **environment}, capture_output=True, text=True
    )


@pytest.mark.parametrize(
    ("package", "kind", "install"),
    [("cupy", "cuda", 'pip install "gpugrad[cuda13]"'), ("pyopencl", "opencl", 'pip install "gpugrad[opencl]"')],
)
def test_missing_package_names_its_install_command(package, kind, install):
    code = f"import sys; sys.modules[{package!r}] = None; import gpugrad as gg; gg.zeros(2, device={kind!r})"
    last = run_python(code).stderr.strip().splitlines()[-1]
    assert (
        last.startswith("gpugrad.errors.DeviceError: device " + kind)
        and "which is not installed" in last
        and install in last
    )
    listed = run_python(
        f"import sys; sys.modules[{package!r}] = None; import gpugrad as gg; "
        f"print([str(d) for d, _ in gg.devices()], gg.is_available({kind!r}))"
    )
    assert listed.returncode == 0 and "cpu" in listed.stdout and "False" in listed.stdout


def test_absent_devices():
    for spec, text in {
        "tpu": "device 'tpu' is unknown: expected auto, cpu, cuda, opencl",
        "": "device '' is unknown",
        "cuda:x": "device 'cuda:x': the index must be a number",
        "cpu:1": "there is one CPU device, 'cpu'",
        "cuda:-1": "the index must be a number",
    }.items():
        with raises(DeviceError, text):
            gg.zeros(2, device=spec)
    if not gg.is_available("cuda"):
        with pytest.raises(DeviceError, match="cuda.*(pip install|driver)|CUDA.*(pip install|driver)"):
            gg.zeros(2, device="cuda")
        with pytest.raises(DeviceError, match="(?i)cuda"):
            gg.ones(2).cuda()
    with pytest.raises(DeviceError, match="opencl:99|PyOpenCL|No OpenCL|no OpenCL"):
        gg.zeros(2, device="opencl:99")
    with raises(TypeError, "device must be a string such as 'cpu' or 'opencl:0', not float"):
        gg.zeros(2, device=1.5)
    with raises(ValueError, "register_backend: 'a b' is not a plain name"):
        gg.register_backend("a b", lambda index: None)


# -- values that only the device can see ------------------------------------------------------------------


def read(t):
    """What a user does next: it is here at the latest that a device behind the host has to speak."""
    return [x.tolist() for x in t] if isinstance(t, tuple) else t.tolist()


OUT_OF_RANGE = {
    "index_select": lambda x, i: x.index_select(0, i([0, 3])),
    "index_select negative": lambda x, i: x.index_select(0, i([-1])),
    "index_select dim 1": lambda x, i: x.index_select(1, i([1, 4])),
    "gather": lambda x, i: x.gather(0, i([[0, 3, 1, 1]])),
    "gather negative": lambda x, i: x.gather(1, i([[-1]])),
    "gather far": lambda x, i: x.gather(1, i([[10**12]])),
    "index": lambda x, i: x[i([0, 3])],
    "index negative": lambda x, i: x[i([-4])],
    "index two": lambda x, i: x[i([0, 1]), i([0, 4])],
    "index dim 1": lambda x, i: x[:, i([4])],
    "index assignment": lambda x, i: (x.__setitem__(i([3]), 1.0), x)[1],
    "index assignment two": lambda x, i: (x.__setitem__((i([0]), i([-5])), 1.0), x)[1],
    "embedding": lambda x, i: F.embedding(i([[0, 3]]), x),
    "embedding negative": lambda x, i: F.embedding(i([-1]), x),
    "take": lambda x, i: x.take(i([12])),
    "take_along_dim": lambda x, i: gg.take_along_dim(x, i([[0], [1], [4]]), 1),
    "scatter": lambda x, i: x.scatter(0, i([[3]]), 1.0),
    "scatter_add": lambda x, i: x.scatter_add(1, i([[4]]), gg.ones(1, 1, device=x.device)),
    "scatter_add negative": lambda x, i: x.scatter_add(1, i([[-1]]), gg.ones(1, 1, device=x.device)),
    "scatter_reduce": lambda x, i: x.scatter_reduce(1, i([[9]]), gg.ones(1, 1, device=x.device), "amax"),
    "index_add": lambda x, i: x.index_add(0, i([5]), gg.ones(1, 4, device=x.device)),
    "index_copy": lambda x, i: x.index_copy(0, i([3]), gg.ones(1, 4, device=x.device)),
    "index_fill": lambda x, i: x.index_fill(1, i([4]), 2.0),
    "cross_entropy": lambda x, i: F.cross_entropy(x, i([0, 4, 1])),
    "nll_loss": lambda x, i: F.nll_loss(x, i([0, -1, 1])),
    "cross_entropy large": lambda x, i: F.cross_entropy(x, i([0, 1, 2**40])),
}


@pytest.mark.parametrize("name", OUT_OF_RANGE)
def test_index_out_of_range(name, device):
    x = gg.arange(12.0, device=device).reshape(3, 4)
    with pytest.raises(IndexError) as caught:
        read(OUT_OF_RANGE[name](x, lambda values: gg.tensor(values, device=device)))
        gg.synchronize(device)
    message = str(caught.value)
    assert "out of range" in message and any(c.isdigit() for c in message) and "\n" not in message, message
    # and the device is as usable as before, with nothing left over from the error
    y = gg.arange(6.0, device=device)
    assert y[gg.tensor([5, 0], device=device)].tolist() == [5, 0] and (y * 2).sum().item() == 30
    gg.synchronize(device)


def test_index_errors_name_op_index_and_size(device):
    x = gg.arange(12.0, device=device).reshape(3, 4)
    for call, texts in (
        (lambda: x.index_select(0, gg.tensor([7], device=device)), ("index_select", "7", "3")),
        (lambda: x.gather(1, gg.tensor([[9]], device=device)), ("gather", "9", "4")),
        (lambda: x[gg.tensor([0, -8], device=device)], ("index", "-8", "3")),
        (lambda: F.embedding(gg.tensor([11], device=device), x), ("embedding", "11", "3")),
        (lambda: x.scatter(0, gg.tensor([[6]], device=device), 1.0), ("scatter", "6", "3")),
        (lambda: x.take(gg.tensor([77], device=device)), ("take", "77", "12")),
        (lambda: F.cross_entropy(x, gg.tensor([0, 9, 1], device=device)), ("cross_entropy", "9", "4")),
    ):
        with raises(IndexError, *texts):
            read(call())


def test_gradient_of_an_index_error_is_not_needed(device):
    x = gg.ones(3, 4, device=device, requires_grad=True)
    with pytest.raises(IndexError):
        x[gg.tensor([3], device=device)].sum().backward()
        read(x.grad)


def test_basic_indexing_mistakes(device):
    x = gg.ones(3, 4, device=device)
    for call, kind, text in (
        (lambda: x[3], IndexError, "index 3 is out of range for dimension 0 of size 3"),
        (lambda: x[0, -5], IndexError, "index -5 is out of range for dimension 1 of size 4"),
        (lambda: x[0, 0, 0], IndexError, "too many indices (3) for a tensor of 2 dimensions"),
        (lambda: x[..., ...], IndexError, "only one ellipsis"),
        (lambda: x[1.5], IndexError, "float is not an index"),
        (lambda: x["a"], TypeError, "str is not an index"),
        (lambda: x[::-1], ValueError, "negative step"),
        (
            lambda: x[gg.ones(2, device=device)],
            IndexError,
            "index: a tensor of float32 cannot index another",
        ),
        (lambda: x[gg.ones(3, 3, dtype=gg.bool, device=device)], IndexError, "the mask of shape (3, 3) does not match"),
        (lambda: x[[0, 1], [0, 1, 2]], IndexError, "the index tensors do not broadcast"),
        (lambda: x.sum()[0], IndexError, "too many indices"),
        (lambda: x.select(0, 3), IndexError, "out of range"),
        (lambda: x.gather(0, x), RuntimeError, "gather: the index must be an integer tensor, got float32"),
        (
            lambda: x.index_select(0, gg.zeros(2, 2, dtype=gg.int64, device=device)),
            IndexError,
            "index_select: the index must be 1-d",
        ),
        (lambda: x.gather(0, [0]), TypeError, "gather: expected a Tensor, got list"),
        (lambda: x[[0.5]], IndexError, "index: a tensor of float32 cannot index another"),
    ):
        with raises(kind, text):
            call()


# -- division -----------------------------------------------------------------------------------------------

BY_ZERO = {
    "//": lambda a, b: a // b,
    "%": lambda a, b: a % b,
    "fmod": gg.fmod,
    "floor_divide": gg.floor_divide,
    "remainder": gg.remainder,
    "//=": lambda a, b: a.__ifloordiv__(b),
    "div floor": lambda a, b: gg.div(a, b, rounding_mode="floor"),
    "div trunc": lambda a, b: gg.div(a, b, rounding_mode="trunc"),
}


@pytest.mark.parametrize("dtype", ["int64", "int32", "uint8", "int8"])
@pytest.mark.parametrize("name", BY_ZERO)
def test_integer_division_by_zero(name, dtype, device):
    d = gg.dtypes.as_dtype(dtype)
    a = gg.tensor([1, 2, 3], dtype=d, device=device)
    for b in (0, gg.tensor([1, 0, 2], dtype=d, device=device), gg.tensor(0, dtype=d, device=device)):
        with raises(ZeroDivisionError, "zero"):
            read(BY_ZERO[name](a.clone(), b))
            gg.synchronize(device)
    assert (a // 2).tolist() == [0, 1, 1] and (a % 2).tolist() == [1, 0, 1]


def test_floating_division_by_zero(device):
    a = gg.tensor([1.0, -1.0, 0.0], device=device)
    with raises(ZeroDivisionError, "floor_divide: division by zero"):
        read(a // 0)
    with raises(ZeroDivisionError, "floor_divide: division by zero"):
        read(1 // a)
    quotient = (a / 0).tolist()
    assert quotient[:2] == [np.inf, -np.inf] and np.isnan(quotient[2]) and np.isnan((a % 0).tolist()).all()
    assert (gg.tensor([1, 0], device=device) / 0).tolist()[0] == np.inf


# -- autograd ------------------------------------------------------------------------------------------------


def test_autograd_mistakes(device):
    x = gg.ones(2, 3, device=device, requires_grad=True)
    with raises(RuntimeError, "backward", "(2, 3)"):
        (x * 2).backward()
    with raises(RuntimeError, "backward"):
        gg.ones(1, device=device).backward()
    with raises(RuntimeError, "(3,)", "(2, 3)"):
        (x * 2).backward(gg.ones(3, device=device))
    y = (x * x).sum()
    y.backward()
    with raises(RuntimeError, "already walked", "retain_graph=True"):
        y.backward()
    with raises(RuntimeError, "add_: a leaf that requires grad cannot be changed in place", "no_grad()"):
        x += 1
    with raises(RuntimeError, "a view of a leaf that requires grad"):
        x[0] = 1.0
    with raises(RuntimeError, "only of leaf tensors"):
        (x * 2).requires_grad_(False)
    with raises(TypeError, "grad: expected a Tensor or None, got int"):
        x.grad = 3
    with raises(RuntimeError, "grad: must match the tensor", "(3,)", "(2, 3)"):
        x.grad = gg.ones(3, device=device)
    with raises(RuntimeError, "numpy: the tensor requires grad; call .detach().numpy()"):
        x.cpu().numpy()
    with gg.no_grad():
        x += 1
    assert x[0, 0].item() == 2


def test_saved_value_changed_in_place(device):
    x = gg.ones(2, 3, device=device, requires_grad=True)
    for saver, save in {"mul": lambda h: h * h, "exp": gg.exp, "sin": gg.sin, "matmul": lambda h: h @ h.T}.items():
        h = x * 2
        y = save(h)
        (y if saver == "exp" else h).add_(1)
        with raises(RuntimeError, f"{saver}: ", "was saved for backward and then changed in place by add_", "clone"):
            y.sum().backward()
    h = x * 2
    y = h * h
    h[0] = 5.0
    with raises(RuntimeError, "mul: ", "changed in place by index assignment"):
        y.sum().backward()


def test_conversion_mistakes(device):
    x = gg.ones(2, 3, device=device)
    for call, kind, text in (
        (lambda: bool(x), RuntimeError, "the truth of a tensor of shape (2, 3) is ambiguous; use .any() or .all()"),
        (lambda: bool(x[:0]), RuntimeError, "ambiguous"),
        (lambda: x.item(), RuntimeError, "item: a tensor of shape (2, 3) has 6 elements, not one"),
        (lambda: float(x), ValueError, "a tensor of shape (2, 3) has 6 elements and is no one number"),
        (lambda: int(x[:0]), ValueError, "has 0 elements"),
        (lambda: len(x[0, 0]), TypeError, "len: a 0-d tensor has no length"),
        (lambda: list(x[0, 0]), TypeError, "iter: a 0-d tensor has nothing to go through"),
        (lambda: [1, 2][x[0, 0]], TypeError, "index: a Tensor of shape () and dtype float32 cannot stand for an int"),
        (lambda: x.to([1]), TypeError, "to: expected a device, a dtype or a tensor, got list"),
        (lambda: gg.set_default_dtype(gg.int8), TypeError, "only floating-point types can be the default"),
        (
            lambda: x.view(gg.int64),
            RuntimeError,
            "view: shape (2, 3) with strides (3, 1) is no whole number of int64 elements",
        ),
        (lambda: x == gg.ones(4, 3, device=device), RuntimeError, "eq: shapes (2, 3) and (4, 3) do not broadcast"),
    ):
        with raises(kind, text):
            call()
    if device != "cpu":
        with raises(TypeError, f"numpy: the tensor is on {x.device}; call .cpu().numpy()"):
            x.numpy()
        with pytest.raises(TypeError):
            np.asarray(x)


def test_memory_that_is_not_there():
    with raises(gg.OutOfMemoryError, "cpu: cannot allocate", "(1099511627776, 1024)"):
        gg.empty(2**40, 1024)
    with raises(gg.OutOfMemoryError, "cpu: cannot allocate"):
        gg.zeros(2**62)
