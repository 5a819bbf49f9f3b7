"""What the small educational engines before us could do: a scalar that differentiates itself, networks of
such scalars, and the few manners of their tensors that PyTorch does not share."""

import copy
import math
import pickle
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import gpugrad as gg
from gpugrad import Value, nn

# -- Value: known numbers --------------------------------------------------------


def test_the_example_of_micrograds_readme():
    a = Value(-4.0)
    b = Value(2.0)
    c = a + b
    d = a * b + b**3
    c += c + 1
    c += 1 + c + (-a)
    d += d * 2 + (b + a).relu()
    d += 3 * d + (b - a).relu()
    e = c - d
    f = e**2
    g = f / 2.0
    g += 10.0 / f
    g.backward()
    assert f"{g.data:.4f} {a.grad:.4f} {b.grad:.4f}" == "24.7041 138.8338 645.5773"


def test_the_first_of_its_tests():
    x = Value(-4.0)
    z = 2 * x + 2 + x
    q = z.relu() + z * x
    h = (z * z).relu()
    y = h + q + q * x
    y.backward()
    assert (y.data, x.grad) == (-20.0, 46.0)


def test_a_neuron_by_hand():
    x1, x2 = Value(2.0, label="x1"), Value(0.0, label="x2")
    w1, w2 = Value(-3.0), Value(1.0)
    n = x1 * w1 + x2 * w2 + Value(6.8813735870195432)
    o = n.tanh()
    o.backward()
    assert o.data == pytest.approx(1 / math.sqrt(2))
    assert [v.grad for v in (x1, w1, x2, w2, n)] == pytest.approx([-1.5, 1.0, 0.5, 0.0, 0.5])
    again = Value(6.8813735870195432) + x1.data * w1.data
    e = (2 * again).exp()
    assert ((e - 1) / (e + 1)).data == pytest.approx(o.data)


# -- Value: its manners -------------------------------------------------------------


def test_it_holds_floats_and_starts_without_gradient():
    for given_ in (2, True, np.float32(2.5), np.int64(3), gg.tensor(4.0), Value(5.0)):
        v = Value(given_)
        assert type(v.data) is float and v.data == float(given_)
        assert type(v.grad) is float and v.grad == 0.0
    v.data = 3
    v.grad = 0
    assert type(v.data) is float and type(v.grad) is float
    v.data -= 0.5 * 2
    assert repr(v) == "Value(data=2.0, grad=0.0)"
    assert f"{v:.3f}" == "2.000" and f"{v}" == repr(v)


def test_it_remembers_what_it_was_made_of():
    a, b = Value(2.0, label="a"), Value(3.0, label="b")
    assert (a * b)._prev == {a, b} and (a * b)._op == "*"
    assert (a**3)._op == "**3" and (a**3)._prev == {a}
    assert a.relu()._op == "ReLU" and a.tanh()._op == "tanh" and a._op == "" and a._prev == set()
    assert [v.label for v in (a, b, a * b)] == ["a", "b", ""]


def test_a_value_used_twice_gets_both_shares():
    a = Value(3.0)
    (a + a).backward()
    assert a.grad == 2.0
    a.grad = 0.0
    (a * a * a).backward()
    assert a.grad == 27.0


def test_backward_accumulates_and_walks_twice():
    a = Value(3.0)
    b = a * a
    c = b * 2
    c.backward()
    c.backward()
    assert (a.grad, b.grad, c.grad) == (24.0, 4.0, 2.0)
    (b + 1).backward()
    assert a.grad == 30.0
    a.zero_grad()
    assert a.grad == 0.0


def test_no_grad_records_nothing():
    a = Value(3.0)
    with gg.no_grad():
        b = a * 2
    assert b.data == 6.0 and not b._prev and b._op == ""
    b.backward()
    assert a.grad == 0.0


def test_numbers_on_both_sides():
    v = Value(4.0)
    for other in (3, 3.0, np.float64(3), np.int64(3), np.float32(3), True):
        n = float(other)
        pairs = [
            (v + other, 4 + n), (other + v, n + 4), (v - other, 4 - n), (other - v, n - 4), (v * other, 4 * n),
            (other * v, n * 4), (v / other, 4 / n), (other / v, n / 4), (v**other, 4**n), (other**v, n**4),
        ]  # fmt: skip
        for result, expected in pairs:
            assert type(result) is Value and result.data == pytest.approx(expected)


def test_comparisons_are_of_numbers():
    a, b = Value(1.0), Value(2.0)
    assert a < b and a <= 1 and b > 1.5 and b >= np.float64(2) and a == 1 and a != b and 0 < a
    assert a == Value(1.0) and len({a, Value(1.0)}) == 2  # as keys they are two
    assert a != "1" and max(a, b) is b and bool(b) and not Value(0.0)
    with pytest.raises(TypeError):
        a < "1"  # noqa: B015
    assert float(b) == 2.0 and int(b) == 2 and b.item() == 2.0


@pytest.mark.parametrize("wrong", ["2", None, [1.0], 1j, b"2"])
def test_what_is_no_number_is_refused(wrong):
    with pytest.raises(TypeError, match="Value: data must be a number, not"):
        Value(wrong)
    with pytest.raises(TypeError, match="grad must be a number"):
        Value(1.0).grad = wrong
    with pytest.raises(TypeError):
        Value(1.0) + wrong
    with pytest.raises(TypeError):
        wrong ** Value(1.0)


def test_mixing_with_tensors_is_refused():
    with pytest.raises(TypeError):
        Value(1.0) * gg.ones(2)
    with pytest.raises(TypeError):
        gg.ones(2) * Value(1.0)


def test_a_long_chain_needs_no_stack():
    x = y = Value(1.0)
    for _ in range(50_000):
        y = y + x
    y.backward()
    assert (y.data, x.grad) == (50_001.0, 50_001.0)


def test_the_derivative_is_that_of_the_numbers_at_the_time():
    a, b = Value(2.0), Value(5.0)
    c = a * b
    b.data = 100.0
    c.backward()
    assert a.grad == 5.0


def test_copies_are_new_leaves():
    a = Value(2.0, label="a")
    a.grad = 3.0
    for b in (copy.copy(a), copy.deepcopy(a), pickle.loads(pickle.dumps(a))):
        assert (b.data, b.grad, b.label) == (2.0, 3.0, "a")
        (a * b).backward()  # a node of its own: both get their gradient
        assert (a.grad, b.grad) == (5.0, 5.0)
        a.grad = 3.0
    with pytest.raises(RuntimeError, match="cannot be copied"):
        copy.deepcopy(a * 2)


def test_dropping_the_last_reference_frees_the_graph():
    import gc
    import weakref

    gc.disable()
    try:
        a = Value(2.0)
        b = (a * 3).tanh()
        b.backward()
        seen = weakref.ref(b)
        del b
        assert seen() is None
    finally:
        gc.enable()


# -- Value: against the tensors -----------------------------------------------------

UNARY = ["relu", "tanh", "sigmoid", "exp", "log", "sqrt", "sin", "cos", "abs", "neg"]
EDGES = [0.0, -0.0, 1.0, -1.0, 0.5, 700.0, -700.0, 1000.0, -1000.0, math.inf, -math.inf, math.nan]
floats = st.floats(-50, 50, allow_nan=False, width=32)


def value_call(name, v):
    return {"abs": abs, "neg": lambda x: -x}[name](v) if name in ("abs", "neg") else getattr(v, name)()


def as_tensors(function, *numbers):
    """Result and gradients of ``function`` of float64 tensors."""
    tensors = [gg.tensor(x, dtype=gg.float64, device="cpu", requires_grad=True) for x in numbers]
    result = function(*tensors)
    result.backward()
    return [result.item(), *(t.grad.item() for t in tensors)]


def as_values(function, *numbers):
    values = [Value(x) for x in numbers]
    result = function(*values)
    result.backward()
    return [result.data, *(v.grad for v in values)]


@pytest.mark.parametrize("name", UNARY)
@pytest.mark.parametrize("x", EDGES)
def test_functions_agree_with_those_of_tensors(name, x):
    expected = as_tensors(lambda t: getattr(t, name)(), x)
    np.testing.assert_allclose(as_values(lambda v: value_call(name, v), x), expected, rtol=1e-12, atol=1e-300)


@pytest.mark.parametrize(
    "op", [lambda a, b: a + b, lambda a, b: a - b, lambda a, b: a * b, lambda a, b: a / b], ids="+-*/"
)
@given(a=floats, b=floats)
def test_arithmetic_agrees_with_that_of_tensors(op, a, b):
    np.testing.assert_allclose(as_values(op, a, b), as_tensors(op, a, b), rtol=1e-10)


@pytest.mark.parametrize("b", [0.0, 1.0, 2.0, 3.0, -1.0, -2.0, 0.5, -0.5, 400.0, 401.0])
@pytest.mark.parametrize("a", [0.0, 1.0, 2.5, -2.0, -7.0, 1e200, -1e200])
def test_powers_agree_with_those_of_tensors(a, b):
    expected = as_tensors(lambda t: t**b, a)
    np.testing.assert_allclose(as_values(lambda v: v**b, a), expected, rtol=1e-10)
    np.testing.assert_allclose(as_values(lambda v: v ** Value(b), a), expected, rtol=1e-10)
    if a > 0:
        expected = as_tensors(lambda t: t ** gg.tensor(b, dtype=gg.float64, device="cpu"), a)
        np.testing.assert_allclose(as_values(lambda v, w: v**w, a, b), as_tensors(lambda t, u: t**u, a, b), rtol=1e-10)


def test_agrees_with_pytorch(torch):
    def both(kind):
        a, b = kind(-0.7), kind(1.3)
        c = (a * b + b**3).tanh() * (a - b).exp() + (2 / b).log() - (-a) ** 0.5
        d = c.sigmoid() * a.relu() + c.sin() / (b**2 + 1) + 1.5**b
        d.backward()
        return a, b, d

    a, b, d = both(Value)
    ta, tb, td = both(lambda x: torch.tensor(x, dtype=torch.float64, requires_grad=True))
    assert d.data == pytest.approx(td.item(), rel=1e-14)
    assert (a.grad, b.grad) == pytest.approx((ta.grad.item(), tb.grad.item()), rel=1e-13)


# -- networks of Values ---------------------------------------------------------------


def test_shapes_of_the_results_and_names():
    model = nn.MLP(3, [4, 2])
    out = model([1.0, Value(2.0), np.float32(3)])
    assert isinstance(out, list) and len(out) == 2 and all(isinstance(v, Value) for v in out)
    assert isinstance(nn.MLP(3, [4, 1])([1, 2, 3]), Value)
    assert isinstance(nn.MLP(2, [1, 1, 1])([1, 2]), Value)
    assert len(nn.Layer(3, 4)([1, 2, 3])) == 4
    assert isinstance(nn.Neuron(2)([1, 2]), Value)
    assert len(model.parameters()) == 3 * 4 + 4 + 4 * 2 + 2
    assert repr(nn.MLP(2, [2, 1])) == "MLP of [Layer of [ReLUNeuron(2), ReLUNeuron(2)], Layer of [LinearNeuron(2)]]"


def test_inputs_may_be_arrays_and_tensors():
    neuron = nn.Neuron(2, nonlin=False)
    expected = neuron([0.5, -1.0]).data
    for x in ((0.5, -1.0), np.array([0.5, -1.0]), gg.tensor([0.5, -1.0]), iter([0.5, -1.0])):
        assert neuron(x).data == expected
    with pytest.raises(RuntimeError, match="no gradient on to a tensor"):
        neuron(gg.ones(2, requires_grad=True))
    with pytest.raises(ValueError, match=r"LinearNeuron\(2\) takes 2 inputs, got 3"):
        neuron([1, 2, 3])


def test_nonlin_is_the_relu():
    gg.manual_seed(1)
    bent = nn.Neuron(2)
    straight = nn.Neuron(2, nonlin=False)
    straight.w = bent.w
    outputs = [(bent([x, y]).data, straight([x, y]).data) for x in (-2, 1) for y in (-1, 2)]
    assert all(b == max(0.0, s) for b, s in outputs) and any(s < 0 for _, s in outputs)


def test_weights_come_from_our_generator():
    gg.manual_seed(3)
    first = [p.data for p in nn.MLP(2, [4, 1]).parameters()]
    gg.manual_seed(3)
    assert [p.data for p in nn.MLP(2, [4, 1]).parameters()] == first
    weights = np.array([w.data for w in nn.Neuron(2000).w])
    assert weights.min() < -0.99 and weights.max() > 0.99 and abs(weights.mean()) < 0.05


def test_a_network_of_values_is_the_same_network_of_tensors():
    gg.manual_seed(2)
    small = nn.MLP(2, [5, 3])
    large = nn.Sequential(nn.Linear(2, 5), nn.ReLU(), nn.Linear(5, 3)).to(gg.float64)
    with gg.no_grad():
        for layer, linear in zip(small.layers, (large[0], large[2]), strict=True):
            linear.weight.copy_(gg.tensor([[w.data for w in n.w] for n in layer.neurons], dtype=gg.float64))
            linear.bias.copy_(gg.tensor([n.b.data for n in layer.neurons], dtype=gg.float64))
    x = [0.3, -0.8]
    outputs = small(x)
    expected = large(gg.tensor(x, dtype=gg.float64))
    assert [v.data for v in outputs] == pytest.approx(expected.tolist())
    sum(outputs).backward()
    expected.sum().backward()
    grads = [w.grad for n in small.layers[0].neurons for w in n.w]
    assert grads == pytest.approx(large[0].weight.grad.flatten().tolist())
    small.zero_grad()
    assert all(p.grad == 0.0 for p in small.parameters())


def test_four_examples_are_learnt():
    gg.manual_seed(0)
    xs = [[2.0, 3.0, -1.0], [3.0, -1.0, 0.5], [0.5, 1.0, 1.0], [1.0, 1.0, -1.0]]
    ys = [1.0, -1.0, -1.0, 1.0]
    model = nn.MLP(3, [4, 4, 1])
    for _ in range(200):
        loss = sum((model(x) - y) ** 2 for x, y in zip(xs, ys, strict=True))
        model.zero_grad()
        loss.backward()
        for p in model.parameters():
            p.data -= 0.02 * p.grad
    assert loss.data < 0.05


# -- max-margin loss --------------------------------------------------------------------


def test_max_margin_loss(device):
    scores = gg.tensor([0.5, -2.0, 3.0, -0.5], device=device, requires_grad=True)
    signs = gg.tensor([1.0, -1.0, -1.0, 1.0], device=device)
    assert nn.functional.max_margin_loss(scores, signs, reduction="none").tolist() == [0.5, 0.0, 4.0, 1.5]
    loss = nn.MaxMarginLoss()(scores, signs)
    loss.backward()
    assert loss.item() == 1.5 and scores.grad.tolist() == [-0.25, 0.0, 0.25, -0.25]
    assert nn.functional.max_margin_loss(scores, signs, margin=2.0, reduction="sum").item() == 9.0
    with pytest.raises(RuntimeError, match="max_margin_loss: input has shape"):
        nn.functional.max_margin_loss(scores, signs.unsqueeze(1))
    with pytest.raises(ValueError):
        nn.MaxMarginLoss(reduction="most")


def test_max_margin_loss_of_values_is_that_of_tensors():
    scores, signs = [0.5, -2.0, 3.0, -0.5], [1, -1, -1, 1]
    values = [Value(s) for s in scores]
    losses = [(1 + -yi * s).relu() for yi, s in zip(signs, values, strict=True)]
    loss = sum(losses) * (1.0 / len(losses))
    loss.backward()
    t = gg.tensor(scores, requires_grad=True)
    expected = nn.functional.max_margin_loss(t, gg.tensor(signs).float())
    expected.backward()
    assert loss.data == expected.item() and [v.grad for v in values] == t.grad.tolist()


# -- manners of their tensors --------------------------------------------------------------


def test_what_tensor_takes():
    assert gg.Tensor(None).shape == (0,) and gg.Tensor().shape == (0,)
    assert gg.Tensor(5).shape == () and gg.Tensor(5).item() == 5.0 and gg.Tensor(5).dtype is gg.float32
    assert gg.Tensor(True).item() == 1.0 and gg.Tensor(3.5).item() == 3.5
    assert gg.Tensor([[1, 2], [3, 4]]).tolist() == [[1.0, 2.0], [3.0, 4.0]]
    assert gg.Tensor(np.arange(3)).dtype is gg.float32
    assert gg.Tensor(2, 3).shape == (2, 3)
    x = gg.Tensor([1, 2], requires_grad=True)
    (x * x).sum().backward()
    assert x.requires_grad and x.grad.tolist() == [2.0, 4.0]


def test_creation_on_the_class(device):
    with gg.device(device):
        assert gg.Tensor.ones(2, 3).tolist() == [[1.0] * 3] * 2
        assert gg.Tensor.zeros((2,)).tolist() == [0.0, 0.0]
        assert gg.Tensor.empty(0, 3).shape == (0, 3)
        assert gg.Tensor.ones(2, dtype=gg.int64).dtype is gg.int64
        assert gg.Tensor.zeros(2, requires_grad=True).requires_grad


def test_to_numpy_copies_from_any_device(device):
    x = gg.tensor([1.0, 2.0], device=device, requires_grad=True)
    array = x.to_numpy()
    assert type(array) is np.ndarray and array.dtype == np.float32
    array[0] = 7
    assert x.tolist() == [1.0, 2.0]


def test_the_dtypes_namespace():
    for name in ("float16", "bfloat16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "bool"):
        assert getattr(gg.dtypes, name) is getattr(gg, name)
    assert gg.ones(2, dtype=gg.dtypes.int32).dtype is gg.dtypes.int32


def test_zero_size(device):
    empty = gg.zeros(0, 3, device=device, requires_grad=True)
    assert empty.sum().item() == 0.0 and np.isnan(empty.mean().item())
    result = (empty * 2 + 1).relu() @ gg.ones(3, 2, device=device)
    assert result.shape == (0, 2)
    result.sum().backward()
    assert empty.grad.shape == (0, 3)
    assert (gg.zeros(2, 0, device=device) @ gg.zeros(0, 2, device=device)).tolist() == [[0.0, 0.0], [0.0, 0.0]]


def test_division_by_zero(device):
    x = gg.tensor([1.0, -1.0, 0.0], device=device)
    assert (x / 0).tolist()[:2] == [math.inf, -math.inf] and math.isnan((x / 0).tolist()[2])
    assert (gg.tensor([1, 2], device=device) / 0).tolist() == [math.inf, math.inf]
    for numerator, denominator in (([1, 2], [1, 0]), ([1.0], [0.0])):
        with pytest.raises(ZeroDivisionError):
            (gg.tensor(numerator, device=device) // gg.tensor(denominator, device=device)).tolist()
    with pytest.raises(ZeroDivisionError):
        (x // 0).tolist()


def test_log_softmax(device):
    x = gg.tensor([[1.0, 2.0, 3.0], [1e4, 0.0, -1e4]], device=device, requires_grad=True)
    y = x.log_softmax(dim=1)
    expected = np.array([[-2.4076059, -1.4076059, -0.40760595], [0.0, -1e4, -2e4]])
    np.testing.assert_allclose(y.to_numpy(), expected, rtol=1e-5, atol=1e-6)
    y[0, 2].backward()
    np.testing.assert_allclose(x.grad.to_numpy()[0], [-0.09003057, -0.24472848, 0.33475903], rtol=1e-5)


def test_import_stays_light():
    code = "import gpugrad, sys; print([m for m in ('gpugrad.value', 'gpugrad.viz', 'gpugrad.nn') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "[]", done.stderr
