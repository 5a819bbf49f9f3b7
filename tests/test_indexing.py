"""Reading and writing by index, on every device: ``x[...]``, gather, scatter and their kin."""

from __future__ import annotations

import numpy as np
import pytest

import gpugrad as gg
from tests import parity

RNG = np.random.default_rng(5)
X = RNG.standard_normal((4, 5, 6)).astype(np.float32)

# Basic indexing: views. The text is put between the brackets of x[...].
BASIC = [
    "0", "-1", "3", "np.int64(2)", "1, 2", "1, -1, 0", "1, 2, 3", "..., 1", "1, ...", "1, ..., 2", "...", ":", ":, :",
    ":, 1", "1:3", "::2", "1::2", "-2:", ":-1", "5:", "3:1", "1:1", ":100", "-100:2", "::3, 1:4:2", "..., ::2",
    "None", ":, None", "None, ..., None", "1, None, 2:4", "None, 1, None", "..., None, 1", "2:3, ..., 1:2", "(0, 1)",
    "()", "slice(1, 3)", "slice(None, None, 2), 0", ":, :, :", "0, :, 0", "True", "False", "None, True",
]  # fmt: skip

# Advanced indexing: copies. T(...) makes an index tensor on the device, A(...) an ndarray.
ADVANCED = [
    "T([0, 2])", "T([-1, 0, 0])", "T([[0, 1], [3, -4]])", "T([])", "T(2)", "[0, 2]", "[-1]", "A([0, 3])",
    "A([[1], [0]])", "[True, False, True, True]", "range(2)", "T([0, 2]),", ":, T([0, 2])", ":, :, T([5, 0, 5])",
    "..., T([1])", "..., [1, 2]",
    "T([0, 2]), T([1, 3])", "T([[0], [2]]), T([1, 3])", "[0, 2], [1, 3]", "[0, 2], 1", "1, [0, 2]",
    "[0, 2], :, [1, 3]", "[0, 2], :, 3", "0, :, [1, 3]", "[0, 2], None, [1, 3]", ":, [0, 2], [1, 3]", ":, [0, 2], 1",
    "1, :, [0, 2]", "1:3, [0, 2]", "1:3, [0, 2], ::2", "1:3, [0, 2], [4, 5]",
    "[0], [1], [2]", "T([[0], [2]]), [1, 3], 5", "[0, 1], ..., [2, 3]", "..., [0, 1], [2, 3]", "None, [0, 2]",
    "[0, 2], None", ":, None, [0, 2]", "None, :, [0, 2], None, [1, 3]", "T([0]), T([1, 2, 3])",
    "T([0, 1, 2]), T([4])", "T([]), T([1])", "T([[]]), 1",
    "x > 0", "x[:, :, 0] > 0", "x[:, 0, 0] > 0", ":, x[0] > 0", ":, x[0, :, 0] > 0", "..., x[0, 0] > 0",
    "x[:, 0, 0] > 0, 1", "1, x[0, :, 0] > 0", "x[:, 0, 0] > 0, ::2",
    "T([1, 1, 0, 0], 'bool'), T([0, 1, 0, 0, 1], 'bool')", "x > 99", "x[:, 0, 0] > 99", "x[:, 0, 0] > 99, 1",
    "None, x > 0", "x[:, 0, 0] > 0, ..., 1",
    "A([True, False, False, True])", "[True, False, True, False], [0, 1]", "T([0, 1], 'int32')",
    "T([0, 1], 'int16'), T([2, 3], 'int64')", "np.array(1)", "[0, 1], True",
]  # fmt: skip


def library(device):
    def index(values, dtype="int64"):
        return gg.tensor(np.array(values, dtype=dtype), device=device)

    return index


def names(device):
    return {"T": library(device), "A": np.array, "np": np, "x": gg.tensor(X, device=device)}


def numpy_names():
    return {"T": lambda v, dtype="int64": np.array(v, dtype=dtype), "A": np.array, "np": np, "x": X.copy()}


def torch_names(torch):
    def index(values, dtype="int64"):
        if dtype == "int16":  # PyTorch takes int64, int32, uint8-as-mask and bool alone
            dtype = "int64"
        return torch.from_numpy(np.array(values, dtype=dtype))

    return {"T": index, "A": np.array, "np": np, "x": torch.from_numpy(X.copy())}


def run(text, scope):
    return eval(f"x[{text}]", scope)


@pytest.mark.parametrize("text", BASIC + ADVANCED)
def test_getitem_as_numpy(text, device):
    want = run(text, numpy_names())
    if text in PLACED_OTHERWISE:
        want = PLACED_OTHERWISE[text](want)
    got = run(text, names(device))
    assert got.device.type == device and tuple(got.shape) == want.shape
    np.testing.assert_array_equal(got.cpu().numpy(), want)


# An integer is taken first, so the index tensors around it count as neighbours or not without it:
# PyTorch differs from NumPy here, and we follow PyTorch.
PLACED_OTHERWISE = {
    "[0, 2], :, 3": lambda want: want,
    "0, :, [1, 3]": np.transpose,
    "1, :, [0, 2]": np.transpose,
}


@pytest.mark.parametrize("text", [t for t in BASIC + ADVANCED if "range" not in t])
@pytest.mark.filterwarnings("ignore")
def test_getitem_as_torch(text, torch):
    want = run(text, torch_names(torch))
    parity.same(run(text, names("cpu")), want)


@pytest.mark.parametrize("text", [t for t in BASIC if t not in ("True", "False", "None, True")])
def test_basic_indexing_makes_views(text, device):
    x = gg.tensor(X, device=device)
    part = run(text, {"np": np, "x": x})
    part.fill_(7.0)
    want = X.copy()
    exec(f"want[{text}] = 7", {"want": want, "np": np})
    np.testing.assert_array_equal(x.cpu().numpy(), want)
    x.zero_()
    assert not part.any().item()


@pytest.mark.parametrize("text", ["T([0, 2])", "x > 0", "[0, 2], [1, 3]", ":, [1]", "[0, 1, 2, 3]", "T([[0]])"])
def test_advanced_indexing_copies(text, device):
    scope = names(device)
    run(text, scope).fill_(7.0)
    np.testing.assert_array_equal(scope["x"].cpu().numpy(), X)


@pytest.mark.parametrize("kind", ["number", "full", "row"])
@pytest.mark.parametrize("text", BASIC + ADVANCED)
def test_setitem_as_numpy(text, kind, device):
    """Index tensors without repeats (with repeats the last one stays, see below)."""
    reference = numpy_names()
    shape = run(text, reference).shape
    if text in PLACED_OTHERWISE and kind != "number":
        shape = PLACED_OTHERWISE[text](np.empty(shape)).shape
    if kind == "number":
        value = np.float32(2.5)
    elif kind == "full":
        value = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    else:
        value = np.arange(shape[-1] if shape else 1, dtype=np.float32).reshape(shape[-1:] if shape else ())
    put = value
    if text in PLACED_OTHERWISE and kind != "number":
        put = PLACED_OTHERWISE[text](np.broadcast_to(value, shape))
    exec(f"x[{text}] = value", reference | {"value": put})
    ours = names(device)
    x = ours["x"]
    exec(f"x[{text}] = value", ours | {"value": 2.5 if kind == "number" else gg.tensor(value, device=device)})
    np.testing.assert_array_equal(x.cpu().numpy(), reference["x"])


@pytest.mark.parametrize(
    "text",
    [
        "[0, 0, 1, 0]",
        "T([[0, 0], [1, 0]])",
        "[0, 0, 1], [2, 2, 2]",
        ":, [3, 3, 1, 3]",
        "..., [5, 5]",
        "[-1, 3, 3]",
    ],
)
def test_setitem_with_repeats_keeps_the_last(text, device):
    ours, reference = names(device), numpy_names()
    shape = run(text, reference).shape
    value = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    exec(f"x[{text}] = value", reference | {"value": value})
    exec(f"x[{text}] = value", ours | {"value": gg.tensor(value, device=device)})
    np.testing.assert_array_equal(ours["x"].cpu().numpy(), reference["x"])


def test_setitem_forms(device):
    x = gg.zeros(3, 4, device=device)
    x[0] = [1, 2, 3, 4]
    x[1, 1:3] = gg.tensor(9)  # a 0-d CPU tensor goes anywhere
    x[2] = gg.ones(1, 4, device=device, dtype=gg.int64)  # cast; leading 1s dropped
    x[x > 8] = -1.5
    x[:, 3] += 10
    x[[0, 2], [0, 1]] *= 5
    np.testing.assert_array_equal(x.cpu().numpy(), [[5, 2, 3, 14], [0, -1.5, -1.5, 10], [1, 5, 1, 11]])
    t = x.T
    t[0, gg.tensor([1], device=device)] = 77  # through a view of other strides
    assert x[1, 0].item() == 77
    i = gg.zeros(3, dtype=gg.int64, device=device)
    i[1] = 2.9
    assert i.tolist() == [0, 2, 0]
    b = gg.zeros(3, dtype=gg.bool, device=device)
    b[1:] = True
    assert b.tolist() == [False, True, True]


def test_overlapping_assignment(device):
    x = gg.arange(12.0, device=device).reshape(3, 4)
    x[:, 1:] = x[:, :-1]
    np.testing.assert_array_equal(x.cpu().numpy(), [[0, 0, 1, 2], [4, 4, 5, 6], [8, 8, 9, 10]])
    y = gg.arange(6.0, device=device)
    y[:-1] = y[1:]
    assert y.tolist() == [1, 2, 3, 4, 5, 5]
    z = gg.arange(9.0, device=device).reshape(3, 3)
    z += z.T
    np.testing.assert_array_equal(z.cpu().numpy(), np.arange(9.0).reshape(3, 3) + np.arange(9.0).reshape(3, 3).T)


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int8", "int16", "int32", "int64", "float16", "bfloat16"])
def test_every_dtype(dtype, device):
    d = gg.dtypes.as_dtype(dtype)
    host = np.arange(20).reshape(4, 5).astype(d.numpy)
    x = gg.tensor(host, device=device)
    i = gg.tensor([3, 0, 3], device=device)
    assert x[1:, ::2].tolist() == host[1:, ::2].tolist()
    assert x[i].tolist() == host[[3, 0, 3]].tolist()
    assert x[:, i].tolist() == host[:, [3, 0, 3]].tolist()
    assert x[i, i].tolist() == host[[3, 0, 3], [3, 0, 3]].tolist()
    assert x[x > 5].tolist() == host[host > 5].tolist()
    x[i] = gg.tensor(host[:3], device=device)
    host[[3, 0, 3]] = host[:3].copy()
    assert x.tolist() == host.tolist()


GRADIENTS = [
    *(t for t in BASIC if t != "False"),
    *(t for t in ADVANCED if "range" not in t),
]


@pytest.mark.parametrize("text", GRADIENTS)
@pytest.mark.filterwarnings("ignore")
def test_gradient_as_torch(text, torch):
    found = []
    for lib, scope in ((gg, names("cpu")), (torch, torch_names(torch))):
        scope["x"] = scope["x"].detach().double().requires_grad_()
        out = run(text, scope)
        weights = np.cos(np.arange(out.numel(), dtype=np.float64)).reshape(tuple(out.shape))
        (out * (gg.tensor(weights) if lib is gg else torch.from_numpy(weights))).sum().backward()
        found.append(scope["x"].grad)
    parity.same(*found)


@pytest.mark.parametrize(
    "text",
    [
        "1",
        "1:3, ::2",
        "None, ..., 2",
        "[0, 2, 0]",
        ":, [1, 1, 4]",
        "[0, 0], [1, 1]",
        "x > 0",
        "x[:, 0, 0] > 0, 1",
        "[[0, 1], [1, 0]], :, [2, 3]",
        "T([-1, -1, 0])",
    ],
)
def test_gradient_on_device(text, device):
    found = []
    for place in ("cpu", device):
        scope = names(place)
        x = scope["x"].requires_grad_()
        scope["x"] = x
        out = run(text, scope)
        (out * out).sum().backward()
        found.append(x.grad.cpu().numpy())
    np.testing.assert_allclose(found[1], found[0], rtol=1e-6)


@pytest.mark.parametrize(
    "text",
    [
        "1",
        "1:3, ::2",
        "..., 0",
        "[0, 2]",
        ":, [1, 4]",
        "[0, 1], [1, 1]",
        "c",
        ":, None, 1",
    ],
)
def test_gradient_through_assignment(text, torch):
    """Both what was there and what was put there have gradients."""
    found = []
    for lib, scope in ((gg, names("cpu")), (torch, torch_names(torch))):
        x = scope["x"].detach().double().requires_grad_()
        make = gg.tensor if lib is gg else torch.tensor
        mask = make(X[:, :, 0] > 0)
        shape = tuple(eval(f"x[{text}]", {"x": x.detach(), "c": mask}).shape)
        value = make(np.sin(np.arange(float(np.prod(shape)))).reshape(shape)).requires_grad_()
        y = x * 2
        exec(f"y[{text}] = value", {"y": y, "value": value, "c": mask})
        weights = np.cos(np.arange(y.numel(), dtype=np.float64)).reshape(tuple(y.shape))
        (y * y * make(weights)).sum().backward()
        found.append((x.grad, value.grad))
    for ours, theirs in zip(*found, strict=True):
        parity.same(ours, theirs)


def test_second_gradient_of_indexing():
    x = gg.tensor(X[0], dtype=gg.float64, requires_grad=True)
    i = gg.tensor([0, 2, 0])
    (g,) = gg.autograd.grad((x[i] ** 3).sum(), x, create_graph=True)
    (second,) = gg.autograd.grad((g**2).sum(), x)
    count = np.array([2, 0, 1, 0, 0])[:, None]
    host = X[0].astype(np.float64)
    np.testing.assert_allclose(second.numpy(), count**2 * 36 * host**3, rtol=1e-12)


# -- the named ops ------------------------------------------------------------------------------

V = {
    "x": RNG.standard_normal((3, 4)).astype(np.float32),
    "y": RNG.standard_normal((3, 4)).astype(np.float32),
    "z": RNG.standard_normal((2, 3, 4)).astype(np.float32),
    "i": np.array([2, 0, 2, 1]),
    "n": np.array([-1, 0]),
    "j": np.array([[0, 1, 2, 0], [2, 0, 1, 1]]),
    "k": np.array([[3, 0], [1, 1], [2, 3]]),
    "b": np.array([[True, False, True, True], [False] * 4, [False, True, False, True]]),
    "c": np.array([True, False, True, True]),
    "q": np.arange(12).reshape(3, 4),
    "e": np.zeros((0,), np.int64),
    "s": np.array([[0, 0, 2, 0], [3, 0, 0, 4]]),
    "w": np.array([[1.0, np.nan], [0.0, -0.0]], np.float32),
}
NAMED = [
    "T.index_select(x, 0, i)", "T.index_select(x, 1, i)", "T.index_select(x, -1, e)", "T.index_select(z, 1, i)",
    "x.index_select(0, i[0])", "T.index_select(q, 0, i.int())", "T.index_select(x, 2, i)", "T.index_select(x, 0, k)",
    "T.gather(x, 0, j)", "T.gather(x, 1, k)", "T.gather(x, 1, k[:2])", "T.gather(x, 1, k[:, :0])",
    "T.gather(q, 1, k)", "x.gather(-1, k)", "T.gather(x, 0, i)", "T.gather(x, 1, j.T)",
    "T.gather(z, 2, k[None].expand(2, 3, 2))",
    "T.take_along_dim(x, j, 0)", "T.take_along_dim(x, k, 1)", "T.take_along_dim(x, i)",
    "T.take_along_dim(z, k[None], 2)", "T.take(x, i)", "T.take(x, n)", "T.take(x, k)",
    "T.scatter(x, 0, j, y[:2])", "T.scatter(x, 1, T.argsort(y), y)", "T.scatter(x, 1, k[:, :1], 5.0)",
    "T.scatter(q, 1, k[:, :1], 5)", "T.scatter(x, 0, j, y)", "T.scatter(x, 0, j, y[:1])", "T.scatter(x, 0, i, y[0])",
    "T.scatter(x, 1, k, y[:, :2], reduce='add')", "T.scatter(x, 1, k, 2.0, reduce='multiply')",
    "T.scatter_add(x, 0, j, y)", "T.scatter_add(x, 1, k, y)", "T.scatter_add(q, 1, k, q)",
    "T.scatter_add(x, 1, k, q)", "x.clone().scatter_add_(0, j, y)", "x.clone().scatter_(1, k[:, :1], 2)",
    *(f"T.scatter_reduce(x, 1, k, y, {r!r}, include_self={s})"
      for r in ("sum", "prod", "mean", "amax", "amin") for s in (True, False)),
    "T.scatter_reduce(q, 1, k, q, 'mean')", "T.scatter_reduce(q, 1, k, q, 'amax', include_self=False)",
    "T.scatter_reduce(x, 1, k, y, 'median')",
    "T.index_add(x, 0, i[:2], y[:2])", "T.index_add(x, 0, i, T.cat([y, y[:1]]))",
    "T.index_add(x, 1, i, y, alpha=0.5)", "T.index_add(q, 1, i, q)", "T.index_add(x, 0, i, y)",
    "T.index_copy(x, 0, i[:2], y[:2])", "T.index_copy(x, 1, T.argsort(y[0]), y)", "T.index_copy(x, 0, i, y)",
    "T.index_fill(x, 0, i, 2.5)", "T.index_fill(x, 1, e, 2.5)", "T.index_fill(q, 1, i, 3)",
    "x.clone().index_fill_(1, i[:1], -1)", "T.masked_fill(x, b, 7)", "T.masked_fill(x, c, -1.5)",
    "T.masked_fill(q, b, 3)", "T.masked_fill(x, b, x[0, 0])", "T.masked_fill(x, q, 1)",
    "x.clone().masked_fill_(b, 0)", "T.masked_fill(x, b, y)",
    "T.masked_select(x, b)", "T.masked_select(x, c)", "T.masked_select(z, b)", "T.masked_select(x, x > 99)",
    "T.masked_select(q, b)", "T.masked_select(x, q)", "T.nonzero(s)", "T.nonzero(s, as_tuple=True)", "T.nonzero(b)",
    "T.nonzero(w)", "T.nonzero(e)", "T.nonzero(s[0])", "T.nonzero(s[0, 0])", "T.nonzero(s[1, 0])", "T.nonzero(s * 0)",
    "T.nonzero(z > 0)", "T.argwhere(s)", "T.where(b)", "T.where(s > 1, s, -s)", "x.nonzero().shape[1]",
    "T.nn.functional.embedding(j, x)", "T.nn.functional.embedding(e, x)", "T.nn.functional.embedding(j[0, 0], x)",
    "T.nn.functional.embedding(k % 3, y)", "T.nn.functional.one_hot(j)", "T.nn.functional.one_hot(j, 5)",
    "T.nn.functional.one_hot(i[:2], num_classes=3)",
]  # fmt: skip


@pytest.mark.parametrize("expression", NAMED)
@pytest.mark.filterwarnings("ignore")
def test_named_ops_as_torch(expression, device, torch):
    parity.check(expression, V, torch, device=device)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "int64", "uint8"])
def test_repeated_indices_add_up_in_a_fixed_order(dtype, device):
    """Many hits on few places, twice: the same bits, and but for rounding the sums of a plain loop."""
    rng = np.random.default_rng(2)
    d = gg.dtypes.as_dtype(dtype)
    n, places = 3000, 7
    index = rng.integers(0, places, n)
    source = (
        (rng.standard_normal((n, 3)) * 5).astype(d.numpy)
        if d.is_floating_point
        else rng.integers(0, 200, (n, 3)).astype(d.numpy)
    )
    x = gg.zeros(places, 3, dtype=d, device=device)
    results = [
        gg.index_add(x, 0, gg.tensor(index, device=device), gg.tensor(source, device=device)).cpu().to_numpy()
        for _ in range(2)
    ]
    assert results[0].tobytes() == results[1].tobytes()
    want = np.zeros((places, 3), np.float64 if d.is_floating_point else d.numpy)
    for i, row in zip(index, source, strict=True):
        want[i] += row.astype(want.dtype)
    rounding = {"float32": 1e-4, "float16": 1e-3, "bfloat16": 1e-2}.get(dtype, 0)
    got = results[0].astype(want.dtype)
    np.testing.assert_allclose(got, want, rtol=rounding, atol=20 * rounding if d.itemsize == 2 else rounding)


def test_scatter_keeps_the_last_of_repeats(device):
    index = gg.tensor([[0, 0, 1, 0], [2, 2, 2, 2]], device=device)
    source = gg.tensor([[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]], device=device)
    assert gg.scatter(gg.zeros(2, 3, device=device), 1, index, source).tolist() == [[4, 3, 0], [0, 0, 8]]
    row = gg.index_copy(
        gg.zeros(3, device=device), 0, gg.tensor([1, 1, 0], device=device), gg.tensor([1.0, 2.0, 3.0], device=device)
    )
    assert row.tolist() == [3, 2, 0]


def test_gradients_are_the_same_bits_twice(device):
    rng = np.random.default_rng(3)
    weight = rng.standard_normal((11, 8)).astype(np.float32)
    index = rng.integers(0, 11, (40, 50))
    bits = []
    for _ in range(2):
        w = gg.tensor(weight, device=device, requires_grad=True)
        gg.nn.functional.embedding(gg.tensor(index, device=device), w).exp().sum().backward()
        bits.append(w.grad.cpu().numpy().tobytes())
    assert bits[0] == bits[1]


def test_large_index(device):
    n = 100_003
    host = np.random.default_rng(4).permutation(n)
    x = gg.arange(n, device=device)
    p = gg.tensor(host, device=device)
    np.testing.assert_array_equal(x[p].cpu().numpy(), host)
    inverse = gg.scatter(gg.zeros(n, dtype=gg.int64, device=device), 0, p, x)
    np.testing.assert_array_equal(inverse[p].cpu().numpy(), np.arange(n))
    assert gg.nonzero(x % 1000 == 7).flatten().tolist() == list(range(7, n, 1000))
