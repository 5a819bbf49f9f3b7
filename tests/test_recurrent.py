"""Recurrent layers, their cells and packed sequences: against NumPy, and against PyTorch where it is installed."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

import gpugrad as gg
from gpugrad import nn
from gpugrad.nn.functional import recurrent
from gpugrad.nn.utils import rnn
from tests import gradients
from tests.side_by_side import compare, load

KINDS = ["RNN", "LSTM", "GRU"]
RNG = np.random.RandomState(2)


def normal(*shape):
    return RNG.standard_normal(shape)


# -- against NumPy ------------------------------------------------------------------


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def numpy_step(kind, x, state, w_ih, w_hh, b_ih, b_hh):
    a, b = w_ih @ x + b_ih, w_hh @ state[0] + b_hh
    if kind == "RNN":
        return (np.tanh(a + b),)
    if kind == "LSTM":
        i, f, g, o = np.split(a + b, 4)
        c = sigmoid(f) * state[1] + sigmoid(i) * np.tanh(g)
        return sigmoid(o) * np.tanh(c), c
    (ar, az, an), (br, bz, bn) = np.split(a, 3), np.split(b, 3)
    r, z = sigmoid(ar + br), sigmoid(az + bz)
    return ((1 - z) * np.tanh(an + r * bn) + z * state[0],)


def numpy_layer(kind, xs, hidden, weights, reverse):
    """Outputs of one sequence, and the last state."""
    state = (np.zeros(hidden),) * (2 if kind == "LSTM" else 1)
    outputs = []
    for x in xs[::-1] if reverse else xs:
        state = numpy_step(kind, x, state, *weights)
        outputs.append(state[0])
    return np.array(outputs[::-1] if reverse else outputs), state


@pytest.mark.parametrize("kind", KINDS)
def test_each_sequence_of_a_packed_batch_is_what_it_is_alone(kind, device):
    layer = getattr(nn, kind)(3, 4, num_layers=2, bidirectional=True)
    weights = {k: v.detach().cpu().numpy().astype(np.float64) for k, v in layer.named_parameters()}
    layer = layer.to(device)
    lengths = [2, 5, 1, 4]
    sequences = [normal(n, 3) for n in lengths]
    packed = rnn.pack_sequence([gg.tensor(s.astype(np.float32), device=device) for s in sequences], False)
    out, last = layer(packed)
    found = [s.detach().cpu().numpy() for s in rnn.unpack_sequence(out)]
    last = [s.detach().cpu().numpy() for s in (last if kind == "LSTM" else (last,))]
    for b, xs in enumerate(sequences):
        for k in range(2):
            sides = []
            for d, suffix in enumerate(("", "_reverse")):
                names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
                w = [weights[f"{n}_l{k}{suffix}"] for n in names]
                ys, state = numpy_layer(kind, xs, 4, w, d == 1)
                sides.append(ys)
                for got, want in zip(last, state, strict=True):
                    np.testing.assert_allclose(got[2 * k + d, b], want, rtol=1e-4, atol=1e-5)
            xs = np.concatenate(sides, 1)
        np.testing.assert_allclose(found[b], xs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_cell_repeated_is_the_layer(kind, device):
    layer, cell = getattr(nn, kind)(3, 4).to(device), getattr(nn, kind + "Cell")(3, 4).to(device)
    cell.load_state_dict({k.removesuffix("_l0"): v for k, v in layer.state_dict().items()})
    x = gg.randn(5, 2, 3, device=device)
    out, _ = layer(x)
    state = None
    for t in range(5):
        state = cell(x[t], state)
        h = state[0] if kind == "LSTM" else state
        np.testing.assert_allclose(h.detach().cpu().numpy(), out[t].detach().cpu().numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_second_derivatives(kind):
    layer = getattr(nn, kind)(2, 3, bidirectional=True, dtype=gg.float64)
    w = {k: v.detach() for k, v in layer.named_parameters()}
    states = (gg.zeros(2, 2, 3, dtype=gg.float64),) * 2

    def function(x, w_hh):
        weights = [w_hh if k == "weight_hh_l0" else v for k, v in w.items()]
        hx = states if kind == "LSTM" else states[0]
        run = getattr(recurrent, {"RNN": "rnn_tanh"}.get(kind, kind.lower()))
        return run(x, hx, weights, True, 1, 0.0, False, True, False)[0]

    arrays = [normal(3, 2, 2), normal(*w["weight_hh_l0"].shape)]
    gradients.check_first(function, arrays)
    gradients.check_second(function, arrays)


def test_dropout_lies_between_layers_in_training_only():
    layer = nn.GRU(3, 4, num_layers=2, dropout=0.999999)
    x = gg.randn(5, 2, 3)
    _, h = layer(x)
    _, again = layer.eval()(x)
    np.testing.assert_array_equal(h[0].detach().numpy(), again[0].detach().numpy())
    assert not np.allclose(h[1].detach().numpy(), again[1].detach().numpy())
    only_biases = layer(x)[0].detach().numpy()
    assert not np.allclose(only_biases, layer.train()(x)[0].detach().numpy())
    with pytest.warns(UserWarning, match="num_layers=1"):
        nn.LSTM(3, 4, dropout=0.5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_seed_gives_the_same_weights_everywhere(kind, device):
    found = []
    for where in ("cpu", device):
        gg.manual_seed(3)
        layer = getattr(nn, kind)(3, 4, device=where)
        found.append([p.detach().cpu().numpy() for p in layer.parameters()])
        assert all(abs(p).max() <= 0.5 for p in found[-1])
    for a, b in zip(*found, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("kind", KINDS)
def test_half(kind, device):
    layer = getattr(nn, kind)(3, 4)
    x = gg.randn(4, 2, 3)
    want = layer(x)[0].detach().numpy()
    got = layer.to(device=device, dtype=gg.float16)(x.to(device).half())[0]
    assert got.dtype is gg.float16
    np.testing.assert_allclose(got.detach().float().cpu().numpy(), want, atol=5e-3)


def test_names_shapes_and_repr():
    layer = nn.LSTM(3, 6, num_layers=2, bidirectional=True, proj_size=2, batch_first=True)
    assert [n for n, _ in layer.named_parameters()] == layer._flat_weights_names
    assert [[tuple(w.shape) for w in ws] for ws in layer.all_weights] == [
        [(24, 3), (24, 2), (24,), (24,), (2, 6)],
        [(24, 3), (24, 2), (24,), (24,), (2, 6)],
        [(24, 4), (24, 2), (24,), (24,), (2, 6)],
        [(24, 4), (24, 2), (24,), (24,), (2, 6)],
    ]
    assert repr(layer) == "LSTM(3, 6, proj_size=2, num_layers=2, batch_first=True, bidirectional=True)"
    assert repr(nn.RNNCell(3, 4, bias=False, nonlinearity="relu")) == "RNNCell(3, 4, bias=False, nonlinearity=relu)"
    assert nn.RNN(3, 4, 1, "relu").mode == "RNN_RELU"
    twin = copy.deepcopy(layer)
    x = gg.randn(2, 5, 3)
    np.testing.assert_array_equal(twin(x)[0].detach().numpy(), layer(x)[0].detach().numpy())
    layer.flatten_parameters()


def test_work_is_linear_in_the_number_of_steps():
    """Each step's part of the input is a view, and the gradients of all parts are joined once."""
    x = gg.randn(20, 1, 2, requires_grad=True)
    found, stack = {}, [nn.RNN(2, 2)(x)[0].grad_fn]
    while stack:
        node = stack.pop()
        if node is not None and id(node) not in found and node.title != "accumulate":
            found[id(node)] = node
            stack += [n for n, _ in node.next_functions]
    names = [n.title for n in found.values()]
    assert "slice" not in names and "slice_scatter_into_zeros" not in names
    assert names.count("matmul") + names.count("linear") == 21


# -- packing ------------------------------------------------------------------------


def test_packing_by_hand(device):
    x = gg.tensor([[1.0, 2.0, 3.0], [4.0, 0.0, 0.0], [5.0, 6.0, 0.0]], device=device).unsqueeze(2)
    p = rnn.pack_padded_sequence(x, [3, 1, 2], batch_first=True, enforce_sorted=False)
    assert p.data.flatten().tolist() == [1, 5, 4, 2, 6, 3]
    assert p.batch_sizes.tolist() == [3, 2, 1] and p.batch_sizes.device.type == "cpu"
    assert p.sorted_indices.tolist() == [0, 2, 1] and p.unsorted_indices.tolist() == [0, 2, 1]
    assert p.data.device.type == p.sorted_indices.device.type == device
    for first in (True, False):
        padded, lengths = rnn.pad_packed_sequence(p, batch_first=first, padding_value=9.0, total_length=4)
        assert lengths.tolist() == [3, 1, 2]
        rows = padded.squeeze(2) if first else padded.squeeze(2).t()
        assert rows.tolist() == [[1, 2, 3, 9], [4, 9, 9, 9], [5, 6, 9, 9]]
    assert [s.flatten().tolist() for s in rnn.unpack_sequence(p)] == [[1, 2, 3], [4], [5, 6]]


def test_gradients_through_packing(device):
    x = gg.ones(3, 2, 1, device=device, requires_grad=True)
    padded, _ = rnn.pad_packed_sequence(rnn.pack_padded_sequence(x, gg.tensor([1, 3]), enforce_sorted=False))
    (padded * gg.arange(6.0, device=device).reshape(3, 2, 1)).sum().backward()
    assert x.grad.flatten().tolist() == [0, 1, 0, 3, 0, 5]


def test_packed_sequence_is_a_named_tuple(device):
    p = rnn.pack_sequence([gg.ones(1, 2), gg.ones(3, 2)], enforce_sorted=False)
    assert p._fields == ("data", "batch_sizes", "sorted_indices", "unsorted_indices")
    data, sizes, order, back = p
    assert data is p[0] is p.data and sizes is p.batch_sizes and order is p[2] and back is p[3]
    assert p.to(gg.float32) is p and p.cpu() is p and not p.is_cuda and not p.is_pinned() and p.pin_memory() is p
    there = p.to(device)
    assert isinstance(there, rnn.PackedSequence) and there.sorted_indices.device.type == device
    assert there.batch_sizes.device.type == "cpu"
    assert p.half().data.dtype is gg.float16 and p.long().data.dtype is gg.int64 and p.byte().data.dtype is gg.uint8
    again = pickle.loads(pickle.dumps(p))
    assert isinstance(again, rnn.PackedSequence) and again.batch_sizes.tolist() == [2, 1, 1]
    pair = rnn.PackedSequence((p.data, p.batch_sizes))
    assert pair.sorted_indices is None and pair.unsorted_indices is None
    with pytest.raises(AssertionError, match="pair"):
        rnn.PackedSequence(p.data)


def test_pad_sequence(device):
    a, b = gg.tensor([1, 2, 3], device=device), gg.tensor([4], device=device)
    assert rnn.pad_sequence([a, b]).tolist() == [[1, 4], [2, 0], [3, 0]]
    assert rnn.pad_sequence((a, b), True, 7).tolist() == [[1, 2, 3], [4, 7, 7]]
    assert rnn.pad_sequence([b, a], True, padding_side="left").tolist() == [[0, 0, 4], [1, 2, 3]]
    assert rnn.pad_sequence(x for x in (a, b)).dtype is gg.int64


def test_errors():
    x = gg.ones(3, 2, 1)
    for lengths, text in (([2, 3], "enforce_sorted=False"), ([3], "batch of 2"), ([3, 0], r"\[1, 3\]"), ([4, 1], "4")):
        with pytest.raises(RuntimeError, match=text):
            rnn.pack_padded_sequence(x, lengths)
    with pytest.raises(RuntimeError, match="empty"):
        rnn.pack_padded_sequence(gg.ones(0, 2, 1), [1, 1])
    with pytest.raises(IndexError):
        rnn.pack_padded_sequence(gg.ones(3), [1])
    with pytest.raises(ValueError, match="total_length=2"):
        rnn.pad_packed_sequence(rnn.pack_padded_sequence(x, [3, 2]), total_length=2)
    for bad in ([], 3, [gg.ones(())]):
        with pytest.raises(RuntimeError):
            rnn.pad_sequence(bad)
    with pytest.raises(RuntimeError, match="padding_side"):
        rnn.pad_sequence([x], padding_side="top")
    with pytest.raises(TypeError, match="batch_first"):
        recurrent.gru(x, x)


# -- against PyTorch ------------------------------------------------------------------

OPTIONS = [
    {},
    {"bias": False},
    {"num_layers": 3},
    {"bidirectional": True},
    {"num_layers": 2, "bidirectional": True, "batch_first": True, "bias": False},
]


def cases():
    for kind in KINDS:
        extra = {"RNN": [{"nonlinearity": "relu", "num_layers": 2}], "GRU": []}.get(
            kind, [{"proj_size": 2}, {"proj_size": 3, "num_layers": 2, "bidirectional": True, "batch_first": True}]
        )
        for o in OPTIONS + extra:
            yield pytest.param(kind, o, id="-".join([kind, *(f"{k}={v}" for k, v in o.items())]))


def states(kind, options, batch):
    n = options.get("num_layers", 1) * (2 if options.get("bidirectional") else 1)
    tail = () if batch is None else (batch,)
    h = {"h": normal(n, *tail, options.get("proj_size", 4))}
    return h | ({"c": normal(n, *tail, 4)} if kind == "LSTM" else {})


def forward(library, module, x, h=None, c=None):
    return module(x, h if c is None else (h, c)) if h is not None else module(x)


@pytest.mark.parametrize(("kind", "options"), list(cases()))
@pytest.mark.parametrize("form", ["batch", "no state", "unbatched"])
def test_like_pytorch(kind, options, form, torch):
    batch = None if form == "unbatched" else 2
    shape = (5, 3) if batch is None else (2, 5, 3) if options.get("batch_first") else (5, 2, 3)
    arrays = {"x": normal(*shape)} | ({} if form == "no state" else states(kind, options, batch))
    make = lambda t: getattr(t.nn, kind)(3, 4, **options)  # noqa: E731
    compare(torch, make, forward, arrays, dtype="float64", train=form == "batch")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(1, 2, 3), (4, 0, 3), (6, 1, 3)])
def test_like_pytorch_on_devices(kind, shape, device, torch):
    options = {"num_layers": 2, "bidirectional": True}
    arrays = {"x": normal(*shape)} | states(kind, options, shape[1])
    compare(torch, lambda t: getattr(t.nn, kind)(3, 4, **options), forward, arrays, device)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("lengths", [[3, 3, 3], [4, 2, 1], [1, 4, 4]])
@pytest.mark.parametrize("given", [True, False])
def test_packed_like_pytorch(kind, lengths, given, torch):
    options = {"num_layers": 2, "bidirectional": True, "proj_size": 2} if kind == "LSTM" else {"bidirectional": True}
    arrays = {"x": normal(3, 4, 3)} | (states(kind, options, 3) if given else {})

    def call(library, module, x, h=None, c=None):
        pack = library.nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        out, last = forward(library, module, pack, h, c)
        assert out.batch_sizes.tolist() == pack.batch_sizes.tolist()
        return out.data, last, library.nn.utils.rnn.pad_packed_sequence(out, padding_value=3.0)

    compare(torch, lambda t: getattr(t.nn, kind)(3, 4, **options), call, arrays, dtype="float64")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("batch", [(2,), (), (0,)])
def test_cells_like_pytorch(kind, bias, batch, device, torch):
    arrays = {"x": normal(*batch, 3), "h": normal(*batch, 4)} | ({"c": normal(*batch, 4)} if kind == "LSTM" else {})
    compare(torch, lambda t: getattr(t.nn, kind + "Cell")(3, 4, bias=bias), forward, arrays, device)


def test_initial_values_are_drawn_in_pytorchs_order(torch):
    """Not the same numbers, but the same draws: as many values of each shape, in the same order."""
    for make in (
        lambda t: t.nn.LSTM(3, 4, 2, bidirectional=True, proj_size=2),
        lambda t: t.nn.GRU(3, 4, bias=False),
        lambda t: t.nn.RNNCell(3, 4),
    ):
        ours, theirs = make(gg), make(torch)
        assert [(k, tuple(p.shape)) for k, p in ours.named_parameters()] == [
            (k, tuple(p.shape)) for k, p in theirs.named_parameters()
        ]
        assert repr(ours) == repr(theirs)


def _raises(function, library):
    try:
        function(library)
    except (RuntimeError, TypeError, ValueError, AttributeError, IndexError, AssertionError) as error:
        return error
    return None


WRONG = {
    "1-d": lambda t, m: m(t.ones(3)),
    "4-d": lambda t, m: m(t.ones(1, 2, 3, 3)),
    "features": lambda t, m: m(t.ones(5, 2, 4)),
    "no steps": lambda t, m: m(t.ones(0, 2, 3)),
    "float64": lambda t, m: m(t.ones(5, 2, 3).double()),
    "integers": lambda t, m: m(t.ones(5, 2, 3).long()),
    "3-d state of 2-d input": lambda t, m: m(t.ones(5, 3), _state(t, m, 1, 1, 4)),
    "2-d state of 3-d input": lambda t, m: m(t.ones(5, 2, 3), _state(t, m, 1, 4)),
    "batch of state": lambda t, m: m(t.ones(5, 2, 3), _state(t, m, 1, 3, 4)),
    "layers of state": lambda t, m: m(t.ones(5, 2, 3), _state(t, m, 2, 2, 4)),
    "packed features": lambda t, m: m(t.nn.utils.rnn.pack_sequence([t.ones(2, 4)])),
    "proj": lambda t, m: type(m)(3, 4, proj_size=5),
    "dropout": lambda t, m: type(m)(3, 4, 2, dropout=1.5),
    "bool dropout": lambda t, m: type(m)(3, 4, 2, dropout=True),
    "hidden": lambda t, m: type(m)(3, 0),
    "float hidden": lambda t, m: type(m)(3, 4.0),
    "input": lambda t, m: type(m)(0, 4),
    "layers": lambda t, m: type(m)(3, 4, 0),
    "missing": lambda t, m: type(m)(3),
    "unknown": lambda t, m: type(m)(3, 4, wrong=1),
    "base": lambda t, m: t.nn.RNNBase("X", 3, 4),
    "nonlinearity": lambda t, m: t.nn.RNN(3, 4, nonlinearity="x"),
}


def _state(t, module, *shape):
    h = t.ones(*shape)
    return (h, h) if type(module).__name__ == "LSTM" else h


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", list(WRONG))
def test_what_is_wrong_is_refused_as_in_pytorch(kind, name, torch):
    want = _raises(lambda t: WRONG[name](t, getattr(t.nn, kind)(3, 4)), torch)
    got = _raises(lambda t: WRONG[name](t, getattr(t.nn, kind)(3, 4)), gg)
    if (name, kind) != ("packed features", "LSTM"):  # PyTorch reads on where it should not
        assert isinstance(want, Exception)
    assert isinstance(got, type(want) if want else RuntimeError), (got, want)


@pytest.mark.parametrize("kind", KINDS)
def test_wrong_cells(kind, torch):
    for input, state in (((1, 2, 3), None), ((2, 4), None), ((2, 3), (3, 4)), ((2, 3), (2, 5)), ((2, 3), (1, 2, 4))):
        found = []
        for t in (torch, gg):
            cell = getattr(t.nn, kind + "Cell")(3, 4)
            h = None if state is None else (t.ones(*state),) * 2 if kind == "LSTM" else t.ones(*state)
            found.append(_raises(lambda t, c=cell, h=h, i=input: c(t.ones(*i), h), t))
        assert isinstance(found[0], Exception) and isinstance(found[1], type(found[0])), found


def test_top_level_functions_like_pytorch(torch):
    layer = torch.nn.LSTM(3, 4, 2, bidirectional=True)
    ours = load(nn.LSTM(3, 4, 2, bidirectional=True), layer, "cpu", "float32")
    x, h = normal(5, 2, 3).astype(np.float32), normal(4, 2, 4).astype(np.float32)
    options = (True, 2, 0.0, False, True, False)
    want = torch.lstm(torch.tensor(x), [torch.tensor(h)] * 2, layer._flat_weights, *options)
    got = recurrent.lstm(gg.tensor(x), [gg.tensor(h)] * 2, ours._flat_weights, *options)
    for g, w in zip(got, want, strict=True):
        np.testing.assert_allclose(g.detach().numpy(), w.detach().numpy(), rtol=1e-4, atol=1e-5)
    sizes = [2, 2, 1]
    want = torch.lstm(torch.tensor(x.reshape(10, 3)[:5]), torch.tensor(sizes), [torch.tensor(h)] * 2,
                      layer._flat_weights, *options[:-1])  # fmt: skip
    got = recurrent.lstm(gg.tensor(x.reshape(10, 3)[:5]), gg.tensor(sizes), [gg.tensor(h)] * 2,
                         ours._flat_weights, *options[:-1])  # fmt: skip
    for g, w in zip(got, want, strict=True):
        np.testing.assert_allclose(g.detach().numpy(), w.detach().numpy(), rtol=1e-4, atol=1e-5)
