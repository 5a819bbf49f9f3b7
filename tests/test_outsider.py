"""What programs written for PyTorch rely on in passing: how things print, Python's protocols, NumPy in the mix.

Each expression of ``SAME`` is evaluated with both libraries; the texts of the results agree."""

from __future__ import annotations

import copy
import math
import pickle

import numpy as np
import pytest

import gpugrad as gg

PRINTED = {
    "randn": lambda r, s: r.standard_normal(s).astype("f4"),
    "double": lambda r, s: r.standard_normal(s),
    "int": lambda r, s: r.integers(-9, 1000, s),
    "bool": lambda r, s: r.random(s) > 0.5,
    "byte": lambda r, s: r.integers(0, 255, s).astype("u1"),
    "large": lambda r, s: (r.standard_normal(s) * 1e9).astype("f4"),
    "small": lambda r, s: (r.standard_normal(s) * 1e-6).astype("f4"),
    "mixed": lambda r, s: (r.standard_normal(s) * 10.0 ** r.integers(-4, 4, s)).astype("f4"),
    "whole": lambda r, s: np.round(r.standard_normal(s) * 300).astype("f4"),
    "nan": lambda r, s: np.where(r.random(s) > 0.5, np.nan, r.standard_normal(s)).astype("f4"),
    "inf": lambda r, s: np.where(r.random(s) > 0.5, -np.inf, np.round(r.standard_normal(s))).astype("f4"),
    "zeros": lambda r, s: np.zeros(s, "f4"),
}
SHAPES = [(), (1,), (7,), (20,), (2, 3), (5, 20), (40, 40), (1001,), (2, 3, 4), (12, 12, 12), (0,), (2, 0), (1, 1001)]
OPTIONS = [{}, {"precision": 2}, {"threshold": 10}, {"edgeitems": 1, "threshold": 5}, {"linewidth": 120},
           {"sci_mode": True}, {"sci_mode": False}, {"profile": "short"}]  # fmt: skip


@pytest.fixture
def torch():
    return pytest.importorskip("torch")


@pytest.fixture
def options(torch):
    yield lambda **given: (torch.set_printoptions(**given), gg.set_printoptions(**given))
    for library in (torch, gg):
        library.set_printoptions(profile="default")


def as_pytorch(text):
    return text.replace("gpugrad", "torch")


@pytest.mark.parametrize("given", OPTIONS, ids=str)
def test_tensors_print_alike(given, torch, options, monkeypatch):
    # a name two characters longer moves line breaks
    monkeypatch.setattr(gg.dtype, "__repr__", lambda self: f"torch.{self.name}")
    options(**given)
    rng = np.random.default_rng(0)
    for kind, make in PRINTED.items():
        for shape in SHAPES:
            array = np.asarray(make(rng, shape))
            want, got = torch.tensor(array), gg.tensor(array)
            assert repr(got) == repr(want), (kind, shape)
            if kind in ("randn", "double"):
                assert repr(got.requires_grad_()) == repr(want.requires_grad_()), (kind, shape)
                assert repr(got.half()).split("dtype")[0] == repr(want.half()).split("dtype")[0], (kind, shape)


def test_print_options():
    gg.set_printoptions(precision=1)
    try:
        assert str(gg.tensor([1.25, 2.5])) == "tensor([1.2, 2.5])"
        gg.set_printoptions(profile="full")
        assert "..." not in str(gg.arange(2000))
    finally:
        gg.set_printoptions(profile="default")
    assert "..." in str(gg.arange(2000)) and str(gg.tensor(1.25)) == "tensor(1.2500)"
    with pytest.raises(ValueError, match="default, short, full"):
        gg.set_printoptions(profile="tall")


NODES = [
    "x + 1", "x - 1", "x * 2", "x / 2", "-x", "x**2", "x.exp()", "x.sum()", "x.sum(0)", "x.prod()", "x.reshape(3, 2)",
    "x[0]", "x[:1]", "x[..., 1]", "x @ x.reshape(3, 2)", "x.clone()", "x.double()", "x.relu()", "T.cat([x, x])",
    "x.log1p()", "x.expand(4, 2, 3)", "x.norm()", "x.unbind(0)[0]", "x.sigmoid()", "x.clone().mul_(2)",
    "x.cumsum(0)", "x.logcumsumexp(0)", "T.where(x > 0, x, 0.0)",
]  # fmt: skip


@pytest.mark.parametrize("expression", NODES)
def test_nodes_have_pytorch_names(expression, torch):
    names = []
    for T in (torch, gg):
        x = T.ones(2, 3, requires_grad=True)
        y = eval(expression, {"T": T, "x": x})
        name = y.grad_fn.name()
        assert f"grad_fn=<{name}>" in repr(y) and repr(y.grad_fn).startswith(f"<{name} object at 0x")
        names.append(name)
    assert names[0] == names[1]


def test_node_of_a_function():
    class Twice(gg.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x * 2

        @staticmethod
        def backward(ctx, g):
            return g * 2

    y = Twice.apply(gg.ones(1, requires_grad=True))
    assert repr(y) == "tensor([2.], grad_fn=<TwiceBackward>)" and y.grad_fn.name() == "TwiceBackward"


SAME = """
T.Size([2, 3]) + (1,) | (1,) + T.Size([2, 3]) | T.Size([2, 3])[:1] | T.Size([2, 3]) * 2 | T.ones(2, 3).shape[1:]
pickle.loads(pickle.dumps(T.Size([2, 3])))
T.zeros(T.ones(2).shape + (4,)).shape | T.finfo(T.float32) | T.iinfo(T.int8)
np.sqrt(x) | np.exp(x) + x
np.add(x, 1) | x + np.ones(3) | x * np.float64(2) | x == np.arange(3.0)
type(np.sin(x)).__name__ | x.storage().size() | len(x.storage()) | list(x.T.storage()) | x[1].storage()[0]
x.untyped_storage().nbytes() | x.dim_order() | x.T.dim_order() | x.to_dense() is x
x.max(0) | x.sort() | x.topk(1) | x.aminmax() | T.linalg.slogdet(T.eye(2)) | x.median(1) | T.frexp(T.tensor(2.5))
T.tensor([np.float64(1), 2]).dtype | T.tensor([np.float32(1), 2.0]).dtype | T.tensor([[1.0], [np.float64(1)]]).dtype
T.tensor([np.ones(2)]).dtype | T.tensor([T.tensor(1.0, dtype=T.float64)]).dtype | T.tensor([np.float16(1)]).dtype
T.tensor([np.int32(1), 2]).dtype | T.tensor([np.int32(1), 2.0]).dtype | T.can_cast(T.int8, T.uint8)
T.is_inference_mode_enabled() | T.utils.dlpack.from_dlpack(x) | repr(T.nn.Parameter(T.ones(2)))
T.nn.Linear(1, 1).load_state_dict(T.nn.Linear(1, 1).state_dict()) | isinstance(2.5, T.types.Number)
T.nn.Linear(1, 1).load_state_dict({}, strict=False) | T.autograd.grad((r * 2).sum(), r, None, None, False, True)
T.distributions.Normal(T.zeros(2), 1.0) | T.distributions.Gamma(T.tensor([1.0]), T.tensor([2.0]))
T.distributions.transforms.ExpTransform() == T.distributions.transforms.ExpTransform()
T.distributions.AffineTransform(0.0, 2.0) == T.distributions.AffineTransform(0.0, 3.0)
T.distributions.ComposeTransform([T.distributions.ExpTransform()]) | T.distributions.constraints.real_vector
f"{T.tensor(2.5):>8.1f}" | f"{x}" | "%.2f" % T.tensor(2.5)
str({"a": T.tensor(1.0)}) | str([T.tensor(True), T.zeros(2)])
copy.copy(x) | copy.deepcopy([x, x])[0] | math.sqrt(T.tensor(4.0))
"""


@pytest.mark.parametrize("expression", [e.strip() for line in SAME.strip().split("\n") for e in line.split(" | ")])
@pytest.mark.filterwarnings("ignore")
def test_same_text(expression, torch):
    texts = []
    for T in (torch, gg):
        x, r = T.arange(6.0).reshape(2, 3), T.ones(2, requires_grad=True)
        names = {"T": T, "x": x, "r": r, "np": np, "math": math, "copy": copy, "pickle": pickle}
        texts.append(repr(eval(expression, names)))
    assert as_pytorch(texts[1]) == texts[0]


def test_numpy_functions_make_tensors():
    """Without PyTorch: ufuncs give tensors, == compares elements, an operator with an ndarray is a tensor."""
    x = gg.arange(3.0)
    for y, want in (
        (np.exp(x), np.exp([0.0, 1, 2])),
        (x + np.ones(3), [1.0, 2, 3]),
        (x == np.array([0, 5, 2]), [1, 0, 1]),
    ):
        assert isinstance(y, gg.Tensor)
        np.testing.assert_allclose(y.numpy(), want, rtol=1e-6)
    assert (x + np.ones(3)).dtype is gg.float64 and (x != np.zeros(3)).tolist() == [False, True, True]


def test_inference_mode_is_told_from_no_grad():
    with gg.no_grad():
        assert not gg.is_inference_mode_enabled()
    with gg.inference_mode():
        assert gg.is_inference_mode_enabled() and not gg.is_grad_enabled()
        with gg.inference_mode(False):
            assert not gg.is_inference_mode_enabled()
        assert gg.is_inference_mode_enabled()
    assert not gg.is_inference_mode_enabled()

    @gg.inference_mode()
    def inside():
        return gg.is_inference_mode_enabled()

    assert inside() and not gg.is_inference_mode_enabled()


def test_storage_shares_memory():
    x = gg.arange(6.0).reshape(2, 3)
    storage = x[1].storage()
    storage[0] = 9.0
    assert x[0, 0].item() == 9.0 and storage.tolist() == [9.0, 1, 2, 3, 4, 5] and storage.dtype is gg.float32
    assert repr(gg.tensor([1, 2]).storage()).startswith(" 1\n 2\n[")


def test_retain_grad_without_a_graph():
    with pytest.raises(RuntimeError, match="does not require grad"):
        gg.ones(2).retain_grad()


class Exponential(gg.distributions.Distribution):
    """A user's distribution, as PyTorch's documentation shows how to write one."""

    arg_constraints = {"rate": gg.distributions.constraints.positive}
    support = gg.distributions.constraints.nonnegative

    def __init__(self, rate, validate_args=None):
        self.rate = rate
        super().__init__(rate.shape, gg.Size(), validate_args=validate_args)

    def expand(self, batch_shape, _instance=None):
        new = self._get_checked_instance(Exponential, _instance)
        new.rate = self.rate.expand(batch_shape)
        super(Exponential, new).__init__(batch_shape, gg.Size(), validate_args=False)
        return new

    def log_prob(self, value):
        if self._validate_args:
            self._validate_sample(value)
        return self.rate.log() - self.rate * value


def test_users_distribution_and_transform():
    d = Exponential(gg.tensor([1.0, 2.0]))
    np.testing.assert_allclose(d.log_prob(gg.ones(2)).tolist(), [-1.0, math.log(2) - 2], rtol=1e-6)
    with pytest.raises(ValueError, match="support"):
        d.log_prob(-gg.ones(2))
    assert d.expand((3, 2)).rate.shape == (3, 2)

    class Child(Exponential):
        def __init__(self):
            super().__init__(gg.ones(1))

    with pytest.raises(NotImplementedError, match="expand of its own"):
        Child().expand((2,))

    class Shift(gg.distributions.Transform):
        def _call(self, x):
            return x + 1

        def _inverse(self, y):
            return y - 1

    assert Shift()(gg.zeros(1)).item() == 1 and Shift().inv(gg.ones(1)).item() == 0 and Shift() == Shift()


def test_generators_say_their_device():
    assert gg.Generator().device == gg.device("cpu") and gg.Generator(device="cpu").device.type == "cpu"
    gg.manual_seed(12)
    assert gg.default_generator.initial_seed() == 12
