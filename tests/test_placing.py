"""Writing and picking by index: the scatter family, put and take, masks, parts replaced, ``x[...]``."""

from __future__ import annotations

import random

import numpy as np
import pytest

import gpugrad as gg
from tests import parity

RNG = np.random.default_rng(0)
ARRAYS = {
    "x": RNG.standard_normal((3, 4)).astype(np.float32),
    "y": RNG.standard_normal((3, 4)).astype(np.float32),
    "v": RNG.standard_normal(4).astype(np.float32),
    "w": RNG.standard_normal(3).astype(np.float32),
    "z": RNG.standard_normal((2, 3, 4)).astype(np.float32),
    "i": RNG.integers(0, 3, (3, 4)),
    "j": np.array([2, 0, 1]),
    "k": np.array([1, 0, 2, 0]),
    "o": np.array(2.5, np.float32),
    "n": np.array(1),
    "e": np.zeros((0, 3), np.float32),
    "b": RNG.random((3, 4)) > 0.5,
    "c": np.array([True, False, True]),
    "q": RNG.standard_normal((4, 5)).astype(np.float32),
    "u": RNG.standard_normal((2, 4, 5)).astype(np.float32),
    "s": RNG.standard_normal((3, 3)).astype(np.float32),
    "m": RNG.integers(-5, 5, (4, 4)),
    "d": RNG.standard_normal((3, 4)),
}
DOUBLE = {k: v.astype(np.float64) if v.dtype.kind == "f" else v for k, v in ARRAYS.items()}

# Values, dtypes, shapes, or the type of the error, as PyTorch has them. T is the library.
EXPRESSIONS = [
    "T.repeat_interleave(x, j, dim=0, output_size=3)", "T.diagonal_scatter(x, w)", "T.diagonal_scatter(x, w, 1)",
    "T.diagonal_scatter(x, v)", "T.select_scatter(x, v, 0, 1)", "T.select_scatter(x, w, 1, -1)",
    "T.select_scatter(x, w, 0, 1)", "T.select_scatter(x, w, 1, 9)", "T.slice_scatter(x, y[:2], 0, 1, 3)",
    "T.slice_scatter(x, y)", "T.slice_scatter(x, y[:, :2], 1, step=2)", "T.slice_scatter(x, y, dim=0, start=1)",
    "T.as_strided_scatter(x, s, (3, 3), (4, 1), 1)", "T.as_strided_scatter(x, v, (2, 2), (1, 4), 1)",
    "T.masked_scatter(x, b, y)", "x.masked_scatter(b, v)", "x.masked_scatter(c[:, None], y)",
    "x.masked_scatter(i>5, v)", "x.masked_scatter(i, v)", "x.clone().masked_scatter_(b, z)", "T.put(x, j, w)",
    "x.put(i, y)", "x.put(i, y, accumulate=True)", "x.clone().put_(T.tensor([-1, 0]), T.tensor([1., 2.]))",
    "x.put(T.tensor([12]), T.tensor([1.]))", "x.put(j, v)", "x.put(j, d.flatten()[:3])", "T.take(x, i)",
    "x.take(T.tensor([-1, 11]))", "x.take(T.tensor([12]))", "x.take(x)", "T.index_put(x, (j, ), y)",
    "T.index_put(x, (j, k[:3]), w)", "T.index_put(x, (k, k), v, accumulate=True)",
    "T.index_put(x, [k[:3]], T.tensor(1.), True)", "x.index_put((b, ), o)", "x.index_put((j, ), d)",
    "x.index_put((j, j, j), w)", "x.index_put(j, w)", "T.index_add(x, 0, j, y)", "x.index_add(0, j, y, alpha=2)",
    "x.index_add(1, k, y, alpha=-0.5)", "x.index_add(0, k, y)", "x.index_add(0, j, d)",
    "i.index_add(0, j, i, alpha=3)", "o.index_add(0, n-1, o)", "T.index_reduce(x, 0, j, y, 'prod')",
    "x.index_reduce(0, T.tensor([0, 0, 1]), y, 'mean')",
    "x.index_reduce(0, T.tensor([0, 0, 1]), y, 'mean', include_self=False)", "x.index_reduce(1, k, y, 'amax')",
    "x.index_reduce(1, k, y, 'amin', include_self=False)", "i.index_reduce(1, k, i, 'mean')",
    "x.index_reduce(1, k, y, 'sum')", "x.index_fill(0, j[:2], 5)", "x.index_fill(1, T.tensor([0, -1]), 5)",
    "x.index_fill(0, j, o)", "x.index_fill(0, j, v)", "i.index_fill(0, j, 2.7)",
    "o.index_fill(0, T.tensor([0]), 3.)", "x.index_copy(0, j, y)", "x.index_copy(0, j[:2], y[:2])",
    "x.index_copy(0, j[:2], y)", "T.scatter(x, 0, i, y)", "x.scatter(1, i, 3.5)", "x.scatter(1, i, value=2)",
    "x.scatter(1, i, y, reduce='add')", "x.scatter(1, i, y, reduce='multiply')",
    "x.scatter(1, i, 2., reduce='multiply')", "x.scatter(1, i, y, reduce='mean')", "x.scatter(0, i[:, :2], y)",
    "x.scatter(0, i, y[:2])", "x.scatter(0, i, d)", "x.scatter(0, j, w)", "o.scatter(0, T.tensor(0), T.tensor(1.))",
    "o.scatter(0, T.tensor([0]), T.tensor([1.]))", "v.scatter(0, T.tensor(1), T.tensor(7.))",
    "x.scatter(0, T.zeros(0, dtype=T.int64), y)", "i.scatter(1, i, 2.9)", "x.scatter_add(0, i, y)",
    "x.scatter_add(0, i, 2.)", "x.scatter_reduce(0, i, y, 'sum')", "x.scatter_reduce(0, i, y, 'prod')",
    "x.scatter_reduce(0, i, y, 'mean')", "x.scatter_reduce(0, i, y, 'amax')",
    "x.scatter_reduce(0, i, y, 'amin', include_self=False)", "x.scatter_reduce(1, i, y, 'mean', include_self=False)",
    "x.scatter_reduce(1, i, y, 'prod', include_self=False)", "x.scatter_reduce(1, i, y, 'sum', include_self=False)",
    "i.scatter_reduce(1, i, i, 'mean', include_self=False)", "i.scatter_reduce(1, i, i, 'amax', include_self=False)",
    "x.scatter_reduce(1, i, y, 'add')", "x.clone().scatter_reduce_(1, i, y, 'amax')", "x.clone().fill_diagonal_(5)",
    "z.clone().fill_diagonal_(5)", "s[None].expand(3, 3, 3).clone().fill_diagonal_(2)",
    "T.zeros(7, 3).fill_diagonal_(1, wrap=True)", "T.zeros(3, 7).fill_diagonal_(1, wrap=True)",
    "v.clone().fill_diagonal_(1)", "T.fill(x, 3)", "T.fill(i, 3.7)", "T.fill(x, o)", "T.fill(x, v)",
    "T.empty_strided((2, 3), (4, 1)).fill_(1)", "T.take_along_dim(x, i)", "T.take_along_dim(x, i, 1)",
    "T.take_along_dim(x, i[:1], 0)", "T.take_along_dim(x, i[:, :1], dim=1)", "T.take_along_dim(x, x, 1)",
    "T.take_along_dim(x, k, 1)", "T.gather(x, 1, i)", "x.gather(0, i[:2])", "x.gather(0, i[:, :2])",
    "v.gather(0, k)", "v.gather(0, n)", "o.gather(0, T.tensor(0))", "o.gather(0, T.tensor([0, 0]))",
    "x.gather(1, v)", "x.gather(1, j)", "x.gather(2, i)", "x.index_select(0, j)", "x.index_select(1, n)",
    "x.index_select(0, v)", "x.index_select(0, i)", "o.index_select(0, T.tensor([0]))", "T.where(b, x, y)",
    "T.where(b, x, 0)", "T.where(b, 1, 0)", "T.where(b, 1.5, x)", "T.where(b, i, 2.5)", "T.where(b, 1, 2.5)",
    "T.where(b)", "T.where(c[:, None], x, o)", "T.where(x, x, y)", "x.where(b, y)", "x.where(b, 0)",
    "x.masked_fill(b, 0)", "x.masked_fill(b, o)", "x.masked_fill(b, v)", "x.masked_fill(c[:, None], 3)",
    "i.masked_fill(b, 2.5)", "i.masked_fill(b, o)", "x.masked_fill(i, 1)", "b.masked_fill(b, 3)",
    "v.masked_fill(b, 1)", "T.tensor([1, 2], dtype=T.uint8).masked_fill(T.tensor([True, False]), 300)",
    "T.masked_select(x, b)", "x.masked_select(c[:, None])", "v.masked_select(b)", "x.masked_select(i)",
    "o.masked_select(T.tensor(True))", "T.nonzero(b)", "T.nonzero(b, as_tuple=True)", "T.nonzero(o)",
    "T.nonzero(o, as_tuple=True)", "T.nonzero(e)", "T.argwhere(i)", "T.argwhere(o)",

]  # fmt: skip


@pytest.mark.filterwarnings("ignore::UserWarning")  # PyTorch's, about functions in beta
@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_as_pytorch(expression, torch):
    parity.check(expression, ARRAYS, torch)


GRADIENTS = [
    "x.scatter(1, i, y)", "x.scatter_add(1, i, y)", "x.scatter_reduce(1, i, y, 'sum')",
    *(
        f"x.scatter_reduce(1, i, {src}, '{how}', include_self={own})"
        for how in ("prod", "mean", "amax", "amin")
        for own in (True, False)
        for src in ("y", "T.round(y)")
    ),
    "T.round(x).scatter_reduce(1, i, T.round(y), 'prod')", "x.scatter(1, i, o.item())",
    "x.index_add(0, j, y, alpha=2)", "x.index_copy(0, j[:2], y[:2])", "x.index_fill(0, j[:2], o)",
    "x.index_reduce(1, k, y, 'prod')", "x.index_reduce(1, k, y, 'mean')", "x.index_reduce(1, k, y, 'amax')",
    "x.put(j, w)", "x.put(j, w, accumulate=True)", "x.index_put((k[:3], k[:3]), w, accumulate=True)",
    "x.index_put((j,), y)", "x.masked_scatter(b, y)", "x.masked_fill(b, o)", "T.where(b, x, y)", "x.masked_select(b)",
    "x.take(i)", "T.take_along_dim(x, i, 1)", "x.gather(1, i)", "T.diagonal_scatter(x, w)",
    "T.select_scatter(x, v, 0, 1)", "T.slice_scatter(x, y[:2], 0, 1, 3)", "x.clone().fill_diagonal_(3)",
    "(x * 1).index_put_((j,), y)", "(x * 1).scatter_(1, i, y)", "(x * 1).masked_scatter_(b, y)",
    "(x * 1).index_reduce_(1, k, y, 'amin')", "(x * 1).put_(j, w)",
]  # fmt: skip


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("expression", GRADIENTS)
def test_gradients_as_pytorch(expression, torch):
    import re

    names = set(re.findall(r"\b[a-z]\b", expression))
    parity.gradients(expression, {k: v for k, v in DOUBLE.items() if k in names}, torch)


# -- without PyTorch, on each device ----------------------------------------------------------------

REDUCE = {"sum": np.add, "prod": np.multiply, "amax": np.maximum, "amin": np.minimum}


@pytest.mark.parametrize("include_self", [True, False])
@pytest.mark.parametrize("reduce", ["sum", "prod", "mean", "amax", "amin"])
def test_scatter_reduce_against_a_loop(reduce, include_self, device):
    x, y, i = ARRAYS["x"], ARRAYS["y"], ARRAYS["i"]
    want, groups = x.copy(), {}
    for (r, c), place in np.ndenumerate(i):
        groups.setdefault((r, place), []).append(y[r, c])
    for place, values in groups.items():
        values = [x[place]] * include_self + values
        want[place] = np.mean(values) if reduce == "mean" else REDUCE[reduce].reduce(values)
    got = gg.tensor(x, device=device).scatter_reduce(
        1, gg.tensor(i, device=device), gg.tensor(y, device=device), reduce, include_self=include_self
    )
    np.testing.assert_allclose(got.cpu().numpy(), want, rtol=1e-5)


def test_index_put_accumulates(device):
    x = gg.zeros(3, 2, device=device)
    rows = gg.tensor([0, 2, 0], device=device)
    assert x.index_put_((rows,), gg.ones(3, 2, device=device), accumulate=True) is x
    assert x.tolist() == [[2, 2], [0, 0], [1, 1]]
    assert x.index_put((None, gg.tensor([1], device=device)), gg.zeros(3, 1, device=device)).tolist() == [
        [2, 0],
        [0, 0],
        [1, 0],
    ]


def test_put_and_take_count_from_the_end(device):
    x = gg.tensor(ARRAYS["x"], device=device)
    index = gg.tensor([[0, -1], [5, -12]], device=device)
    np.testing.assert_array_equal(x.take(index).cpu().numpy(), ARRAYS["x"].reshape(-1)[[[0, -1], [5, -12]]])
    want = ARRAYS["x"].copy()
    np.put(want, [2, -3], [7.0, 8.0])
    got = x.put(gg.tensor([2, -3], device=device), gg.tensor([7.0, 8.0], device=device))
    np.testing.assert_array_equal(got.cpu().numpy(), want)


def test_masked_scatter_and_fill_diagonal(device):
    x, mask = gg.tensor(ARRAYS["x"], device=device), gg.tensor(ARRAYS["b"], device=device)
    want = ARRAYS["x"].copy()
    want[ARRAYS["b"]] = ARRAYS["y"].reshape(-1)[: ARRAYS["b"].sum()]
    np.testing.assert_array_equal(x.masked_scatter(mask, gg.tensor(ARRAYS["y"], device=device)).cpu().numpy(), want)
    with pytest.raises(RuntimeError, match="the mask wants"):
        x.masked_scatter(x < 99, gg.zeros(3, device=device))
    want = np.zeros((7, 3), np.float32)
    np.fill_diagonal(want, 4, wrap=True)
    np.testing.assert_array_equal(gg.zeros(7, 3, device=device).fill_diagonal_(4, wrap=True).cpu().numpy(), want)


def test_one_value_where_a_mask_is_true(device):
    x = gg.tensor(ARRAYS["x"], device=device, requires_grad=True)
    y = x * 1
    y[y > 0] = 0
    rows = gg.tensor([True, False, True], device=device)
    y[rows] = gg.tensor(2.0)
    want = np.where(ARRAYS["x"] > 0, 0, ARRAYS["x"])
    want[[0, 2]] = 2
    np.testing.assert_array_equal(y.detach().cpu().numpy(), want)
    y.sum().backward()
    np.testing.assert_array_equal(x.grad.cpu().numpy(), (ARRAYS["x"] <= 0) & np.array([[False], [True], [False]]))
    with pytest.raises(IndexError, match="mask"):
        y[gg.ones(4, dtype=gg.bool, device=device)] = 1


def test_in_place_op_keeps_what_it_overwrites(device):
    """``h *= b`` needs the old h for the gradient of b, and ``h.sin_()`` for its own."""
    a = gg.tensor(ARRAYS["x"], device=device, requires_grad=True)
    b = gg.tensor(ARRAYS["y"], device=device, requires_grad=True)
    h = a * 1
    h *= b
    h.sin_()
    h.sum().backward()
    cos = np.cos(ARRAYS["x"] * ARRAYS["y"])
    np.testing.assert_allclose(a.grad.cpu().numpy(), cos * ARRAYS["y"], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(b.grad.cpu().numpy(), cos * ARRAYS["x"], rtol=1e-5, atol=1e-6)
    with pytest.raises(RuntimeError, match="mul_: the result would have 3 dimensions"):
        gg.ones(2, 3, device=device).mul_(gg.ones(1, 2, 3, device=device))


OLD_WAYS = [
    "x[[[0, 2]]]", "x[[[0, 2], [1, 1]]]", "x[[slice(0, 2), 1]]", "x[[None, 0]]", "x[[j, j]]", "x[[n, n]]",
    "x[[0, ...]]",
    "x[[[True, False, True]]]", "x[T.tensor([1, 0, 1], dtype=T.uint8)]", "x[T.tensor(1, dtype=T.uint8)]",
    "x[np.array([1, 0, 1], np.uint8)]", "x[T.tensor([[1, 0, 1, 0]] * 3, dtype=T.uint8)]", "x[[0, 2]]",
]  # fmt: skip


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("expression", OLD_WAYS)
def test_old_ways_of_indexing_as_pytorch(expression, torch):
    parity.check(expression, ARRAYS, torch)


def test_old_ways_of_indexing_warn():
    x = gg.tensor(ARRAYS["x"])
    with pytest.warns(UserWarning, match="tuple of indices"):
        assert x[[[0, 2], [1, 1]]].shape == (2,)
    with pytest.warns(UserWarning, match="mask"):
        assert x[gg.tensor([1, 0, 1], dtype=gg.uint8)].shape == (2, 4)


# -- random index expressions ------------------------------------------------------------------------------


def _random_item(rnd, rng, left):
    """One random index and how many dimensions it takes."""
    n, kind = left[0], rnd.random()
    if kind < 0.2:
        return rnd.randint(-n - (rnd.random() < 0.05), max(n - 1, 0)), 1
    if kind < 0.45:
        ends = [rnd.choice([None, rnd.randint(-n - 2, n + 2)]) for _ in range(2)]
        return slice(*ends, rnd.choice([None, 1, 2, 3])), 1
    if kind < 0.55:
        return rnd.choice([None, True, False]), 0
    if kind < 0.85 and n:
        shape = rnd.choice([(1,), (2,), (3,), (2, 1), (1, 3), (2, 3), (0,)])
        return rng.integers(-n, n, shape), 1
    dims = 1 if len(left) < 2 or rnd.random() < 0.7 else 2
    return rng.random(tuple(left[:dims])) < 0.5, dims


def _random_index(rnd, rng, shape):
    items, left = [], list(shape)
    dots = rnd.random() < 0.2
    while left and len(items) < 4:
        if dots and rnd.random() < 0.3:
            items.append(Ellipsis)
            left, dots = left[rnd.randint(0, len(left)) :], False
            continue
        item, used = _random_item(rnd, rng, left)
        items.append(item)
        left = left[used:]
        if rnd.random() < 0.2:
            break
    return tuple(items)


def _indexed(library, make, x, index, mode, value):
    leaf = make(x, requires_grad=True)
    # PyTorch counts a mask that is no tensor as one dimension behind an ellipsis.
    index = tuple(make(i) if isinstance(i, np.ndarray) and (k % 2 or i.ndim > 1) else i for k, i in enumerate(index))
    leaves = [leaf]
    if mode == "get":
        out = leaf[index]
    else:
        out = leaf * 1
        leaves.append(make(value, requires_grad=True))
        if mode == "set":
            out[index] = leaves[1]
        elif mode == "number":
            out[index] = 2.5
        else:
            out[index] *= leaves[1]
    weights = make(np.cos(np.arange(out.numel())).reshape(tuple(out.shape)))
    (out * out * weights).sum().backward()
    grads = [np.zeros(t.shape) if t.grad is None else np.asarray(t.grad) for t in leaves]
    return [np.asarray(out.detach()), *grads]


@pytest.mark.parametrize("seed", range(40))
def test_random_indexing_as_pytorch(seed, torch):
    """Reading and writing with ten random mixes each: values and gradients, or the type of the error."""
    rnd, rng = random.Random(seed), np.random.default_rng(seed)
    for _ in range(10):
        shape = tuple(rnd.choice([0, 1, 2, 3, 4, 3, 2]) for _ in range(rnd.randint(1, 4)))
        x, index = rng.standard_normal(shape), _random_index(rnd, rng, shape)
        mode = rnd.choice(["get", "set", "number", "multiply"])
        try:
            full = tuple(
                torch.tensor(x)[tuple(torch.tensor(i) if isinstance(i, np.ndarray) else i for i in index)].shape
            )
        except (RuntimeError, IndexError, ValueError, TypeError):
            full = ()
        value = rng.standard_normal(rnd.choice([full, full[1:], tuple(rnd.choice([1, n]) for n in full), ()]))
        results = []
        for library, make in ((gg, gg.tensor), (torch, lambda a, **k: parity.to_torch(a, torch, **k))):
            try:
                results.append(_indexed(library, make, x, index, mode, value))
            except (RuntimeError, IndexError, ValueError, TypeError) as error:
                results.append(error)
        got, want = results
        if isinstance(want, Exception):
            assert isinstance(got, type(want)), (shape, index, mode, want, got)
            continue
        assert not isinstance(got, Exception), (shape, index, mode, got)
        for g, w in zip(got, want, strict=True):
            assert g.shape == w.shape, (shape, index, mode)
            np.testing.assert_allclose(g, w, rtol=1e-12, atol=1e-12, err_msg=repr((shape, index, mode)))
