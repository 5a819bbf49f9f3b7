"""The same program on gpugrad and on PyTorch: values, dtypes, shapes, gradients, errors."""

from __future__ import annotations

import itertools
import re
import zlib

import ml_dtypes
import numpy as np
import pytest

import gpugrad as gg
from gpugrad import dtypes
from gpugrad.ops import OPS
from tests import parity
from tests.test_ops import call, make_inputs

BF16 = np.dtype(ml_dtypes.bfloat16)
NAMES = ["bool", "uint8", "int8", "int16", "int32", "int64", "float16", "bfloat16", "float32", "float64"]
RNG = np.random.default_rng(11)

ARRAYS = {
    "x": RNG.standard_normal((3, 4)).astype(np.float32),
    "y": RNG.standard_normal((3, 4)).astype(np.float32),
    "z": RNG.standard_normal((2, 3, 4)).astype(np.float32),
    "v": RNG.standard_normal(4).astype(np.float32),
    "w": np.array([3.0, np.nan, -np.inf, 0.0, -0.0, np.inf, 1.0], np.float32),
    "d": RNG.standard_normal((3, 4)),
    "h": RNG.standard_normal((3, 4)).astype(np.float16),
    "k": RNG.standard_normal((3, 4)).astype(BF16),
    "i": RNG.integers(-9, 9, (3, 4)),
    "j": np.array([[7, -7, 7, -7], [3, -3, 5, 1], [2, 9, -8, 4]], np.int32),
    "u": np.array([0, 1, 127, 128, 200, 255], np.uint8),
    "s": np.array([-128, -1, 0, 1, 100, 127], np.int8),
    "b": RNG.random((3, 4)) > 0.5,
    "c": np.array([True, False, True, True]),
    "e": np.zeros((0, 3), np.float32),
    "o": np.array(2.5, np.float32),
    "n": np.array(3),
    "t": np.array([[1.0, 1.0, 0.0], [2.0, 2.0, 2.0]], np.float32),
    "m": RNG.standard_normal((4, 5)).astype(np.float32),
    "q": RNG.standard_normal((2, 4, 5)).astype(np.float32),
}


# -- rows of the ops table ---------------------------------------------------------------------


def torch_function(op, torch):
    found = torch
    for part in op.torch.split("."):
        found = getattr(found, part, None)
        if found is None:
            return None
    return found


def torch_call(op, sample, tensors, torch):
    """The row's sample given to PyTorch, with its argument order where that is another."""
    special = {
        "slice": lambda x, index: x[index],
        "cast": lambda x, dtype: x.to(getattr(torch, np.dtype(dtype).name)),
        "expand": lambda x, shape: x.expand(shape),
        "index_select": lambda x, index, dim: torch.index_select(x, dim, index),
        "gather": lambda x, index, dim: torch.gather(x, dim, index),
        "scatter": lambda x, index, src, dim: torch.scatter(x, dim, index, src),
        "scatter_reduce": lambda x, index, src, dim, reduce, include_self=True: torch.scatter_reduce(
            x, dim, index, src, reduce, include_self=include_self
        ),
        "put": lambda x, index, source, accumulate=False: x.put(index, source, accumulate),
        "tensor_split": lambda x, indices_or_sections, dim=0: torch.tensor_split(x, indices_or_sections, dim),
        "scatter_add": lambda x, index, src, dim: torch.scatter_add(x, dim, index, src),
        "einsum": lambda *xs, equation: torch.einsum(equation, *xs),
    }.get(op.name)
    if special is not None:
        return special(*tensors, **sample.kwargs)
    if op.kind in ("primitive", "view", "composite", "variadic", "elementwise"):
        function = torch_function(op, torch)
        if function is None:
            pytest.skip("PyTorch has no such function")
        return function(list(tensors), **sample.kwargs) if sample.args_as_list else function(*tensors, **sample.kwargs)
    return None


ELSEWHERE = {"windows", "convolution", "max_pool"}  # other calling conventions; tested with their layers
ELSEWHERE |= set("inv solve solve_triangular det slogdet cholesky lu_factor qr qr_r geqrf svd svdvals eig eigh".split())
ELSEWHERE |= set("eigvalsh pinv logdet cholesky_solve householder_product matrix_power matrix_exp".split())
# ... as half is refused: tests/test_linalg.py
ROWS = [
    (op, s, i) for op in OPS.values() for i, s in enumerate(op.samples) if op.name not in ELSEWHERE and op.reference
]


def seeded(*key):
    return np.random.default_rng(zlib.crc32(repr(key).encode()))


def row_cases():
    """Each row's samples in the dtypes it is defined for."""
    for op, sample, i in ROWS:
        for name in NAMES:
            if "bif"[dtypes.as_dtype(name).category] in op.dtypes:
                yield pytest.param(op, sample, name, id=f"{op.name}-{i}-{name}")


@pytest.mark.parametrize(("op", "sample", "dtype"), list(row_cases()))
def test_rows(op, sample, dtype, device, torch):
    if dtype == "float64" and device == "pretend":
        pytest.skip("no float64 there")
    d = dtypes.as_dtype(dtype)
    with np.errstate(invalid="ignore"):
        arrays = make_inputs(op, sample, d.numpy, seeded(op.name, dtype))
    try:
        want = torch_call(op, sample, [parity.to_torch(a, torch) for a in arrays], torch)
    except (RuntimeError, TypeError, NotImplementedError) as error:
        pytest.skip(f"PyTorch refuses: {error}")
    want = want[0] if isinstance(want, tuple) else want
    if device == "pretend" and want.dtype == torch.float64:
        want = want.float()  # what is float64 whatever the inputs is float32 where there is none
    got = call(op, sample, [gg.tensor(a, device=device) for a in arrays])
    parity.same(got, want, rtol=4 * parity.TOLERANCE.get(str(want.dtype).removeprefix("torch."), 0), atol=1e-5)


# PyTorch allows a number with a bool tensor in fewer ops than we do.
MORE_HERE = {("a - 1", "bool"), ("1 - a", "bool"), ("abs(a)", "bool")}

FLOAT_ROWS = [
    pytest.param(op, s, id=f"{op.name}-{i}")
    for op, s, i in ROWS
    if op.differentiable and op.name != "cast" and "f" in op.dtypes
]


def both(op, sample, key, torch):
    """((our leaves, our result), (PyTorch's)) of a row in float64, and random weights of the result's shape."""
    if op.name == "clamp" and sample is op.samples[1]:
        pytest.skip("PyTorch fails on bounds that are broadcast")
    if op.name == "vander":
        pytest.skip("PyTorch fails on its own gradient, which it overwrites in place")
    arrays = make_inputs(op, sample, np.float64, seeded(op.name, key))
    ours = [gg.tensor(a, requires_grad=a.dtype.kind == "f") for a in arrays]
    theirs = [parity.to_torch(a, torch, requires_grad=a.dtype.kind == "f") for a in arrays]
    got, want = call(op, sample, ours), torch_call(op, sample, theirs, torch)
    want = want[0] if isinstance(want, tuple) else want
    if not want.requires_grad:
        pytest.skip("not differentiable in PyTorch")
    return (ours, got), (theirs, want), seeded("weights").standard_normal(tuple(want.shape))


@pytest.mark.parametrize(("op", "sample"), FLOAT_ROWS)
def test_gradients_of_rows(op, sample, torch):
    (ours, got), (theirs, want), weights = both(op, sample, "gradient", torch)
    (got * gg.tensor(weights)).sum().backward()
    (want * torch.from_numpy(weights)).sum().backward()
    for g, w in zip(ours, theirs, strict=True):
        assert (g.grad is None) == (w.grad is None)
        if g.grad is not None:
            parity.same(g.grad, w.grad, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize(("op", "sample"), FLOAT_ROWS)
def test_second_gradients_of_rows(op, sample, torch):
    """The gradient of a weighted sum of the first gradients."""
    (ours, got), (theirs, want), weights = both(op, sample, "second", torch)
    totals = []
    for lib, result, leaves in ((gg, got, ours), (torch, want, theirs)):
        wanted = [t for t in leaves if t.requires_grad]
        make = gg.tensor if lib is gg else torch.from_numpy
        first = lib.autograd.grad((result * make(weights)).sum(), wanted, create_graph=True, allow_unused=True)
        numbers = seeded("more weights")
        parts = [(g * make(numbers.standard_normal(tuple(g.shape)))).sum() for g in first if g is not None]
        totals.append((sum(parts[1:], parts[0]), wanted))
    if not totals[1][0].requires_grad:
        pytest.skip("the first gradient is constant")
    if not totals[0][0].requires_grad:
        second = [None for _ in totals[0][1]]
    else:
        second = gg.autograd.grad(*totals[0], allow_unused=True)
    try:
        expected = torch.autograd.grad(*totals[1], allow_unused=True)
    except NotImplementedError as error:
        pytest.skip(f"PyTorch has no second derivative: {error}")
    for g, w in zip(second, expected, strict=True):
        w = None if w is None else w.numpy(force=True)
        found = np.zeros_like(w) if g is None and w is not None else None if g is None else g.numpy()
        if w is None:
            assert found is None or not found.any()
        else:
            np.testing.assert_allclose(found, w, rtol=1e-8, atol=1e-10)


# -- special values ------------------------------------------------------------------------------

EDGES = np.array(
    [
        0.0,
        -0.0,
        1.0,
        -1.0,
        0.5,
        -0.5,
        2.5,
        -1.5,
        3.0,
        1e-30,
        -1e30,
        88.0,
        300.0,
        -300.0,
        np.inf,
        -np.inf,
        np.nan,
    ]
)
# PyTorch has no limit there (i0 at inf is NaN) or no NaN (igamma of NaN and 0 is 0); tests/test_special.py has ours.
OTHER_LIMITS = {"zeta", "igamma", "igammac", "i0", "i1", "logaddexp2", "signbit"}
ELEMENTWISE = [
    op
    for op in OPS.values()
    if op.elementwise and op.samples and "f" in op.dtypes and op.name not in {"where", "clamp"} | OTHER_LIMITS
]


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
@pytest.mark.parametrize("op", [pytest.param(op, id=op.name) for op in ELEMENTWISE])
def test_special_values(op, dtype, device, torch):
    """inf, nan, both zeros, overflow and underflow, in every combination; the sign of zero too."""
    arity = len(op.samples[0].inputs)
    with np.errstate(over="ignore"):
        a, b = (x.reshape(-1).astype(dtypes.as_dtype(dtype).numpy) for x in np.meshgrid(EDGES, EDGES))
    if op.name == "floor_divide":
        a, b = a[b != 0], b[b != 0]
    if op.name in ("copysign", "remainder", "fmod"):  # the sign of NaN; quotients beyond float32
        keep = np.isfinite(b.astype(float)) & ((np.abs(b.astype(float)) > 1e-20) | (b == 0))
        a, b = a[keep], b[keep]
    arrays = [a, b][:arity]
    function = torch_function(op, torch)
    if function is None:
        pytest.skip("PyTorch has no such function")
    try:
        want = function(*[parity.to_torch(x, torch) for x in arrays])
    except NotImplementedError as error:
        pytest.skip(f"PyTorch refuses: {error}")
    if dtype == "float64" and device == "pretend":
        pytest.skip("no float64 there")
    got = op.function(*[gg.tensor(x, device=device) for x in arrays])
    parity.same(got, want, rtol=max(1e-6, 2 * parity.TOLERANCE[dtype]), atol=1e-37 if dtype[-1] == "4" else 1e-6)
    if want.is_floating_point() and op.name not in (
        "maximum",
        "minimum",
        "clamp_min",
        "clamp_max",
        "fmax",
        "fmin",
        "relu",
        "fmod",
        "remainder",
        "sign",
        "i1e",  # docs/numerics.md: a zero keeps its sign
    ):
        zero = (want == 0).numpy() & ~(np.isinf(a.astype(float)))
        np.testing.assert_array_equal(
            np.signbit(got.cpu().double().numpy())[zero], np.signbit(want.double().numpy())[zero], "the sign of zero"
        )


INTEGER_PAIRS = (
    "add sub mul pow square neg abs maximum minimum bitwise_not bitwise_and bitwise_or bitwise_xor floor_divide "
    "remainder fmod sign floor clamp_min relu"
).split()


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int16", "int32", "int64"])
@pytest.mark.parametrize("name", INTEGER_PAIRS)
def test_integers_wrap(name, dtype, device, torch):
    """Overflow wraps; division and remainder round as the signs say."""
    info = np.iinfo(dtype)
    edges = np.array([info.min, info.min + 1, -7 if info.min else 7, 0, 1, 3, 7, info.max - 1, info.max], dtype)
    a, b = (x.reshape(-1) for x in np.meshgrid(edges, edges))
    op = OPS[name]
    if name in ("floor_divide", "remainder", "fmod"):
        keep = (b != 0) & ~((a == info.min) & (b == np.array(-1).astype(dtype)))
        a, b = a[keep], b[keep]
    if name == "pow":
        b = np.minimum(np.abs(b.astype(np.int64)) % 9, 9).astype(dtype)
    arrays = [a, b][: len(op.samples[0].inputs)]
    want = torch_function(op, torch)(*[parity.to_torch(x, torch) for x in arrays])
    parity.same(op.function(*[gg.tensor(x, device=device) for x in arrays]), want)


# -- promotion ------------------------------------------------------------------------------------


@pytest.mark.parametrize("shapes", [((2,), (2,)), ((2,), ()), ((), (2,)), ((), ())], ids=str)
@pytest.mark.parametrize("op", ["add", "mul", "div", "eq", "pow", "maximum", "where", "result_type", "cat"])
def test_promotion_of_tensors(op, shapes, torch):
    for first, second in itertools.product(NAMES, NAMES):
        if op == "pow" and "bool" in (first, second):
            continue
        a, b = (np.ones(s, dtypes.as_dtype(n).numpy) for s, n in zip(shapes, (first, second), strict=True))
        expression = {"where": "T.where(a > 0, a, b)", "cat": "T.cat([a.reshape(-1), b.reshape(-1)])"}.get(
            op, f"T.{op}(a, b)"
        )
        try:
            parity.check(expression, {"a": a, "b": b}, torch)
        except AssertionError as error:
            raise AssertionError(f"{op}({first}{shapes[0]}, {second}{shapes[1]})") from error


@pytest.mark.parametrize("number", ["True", "3", "2.5"])
@pytest.mark.parametrize("dtype", NAMES)
@pytest.mark.parametrize(
    "form",
    [
        "a + {}",
        "{} + a",
        "a * {}",
        "a / {}",
        "{} / a",
        "a > {}",
        "a == {}",
        "T.where(a > 0, a, {})",
        "T.result_type(a, {})",
    ],
)
def test_promotion_with_numbers(form, dtype, number, torch):
    for shape in ((3,), ()):
        parity.check(form.format(number), {"a": np.ones(shape, dtypes.as_dtype(dtype).numpy)}, torch)


@pytest.mark.parametrize("dtype", NAMES)
@pytest.mark.parametrize("form", [
    "a - 1", "1 - a", "a // 2", "7 // a", "a % 2", "7 % a", "a ** 2", "2 ** a", "a ** 0.5", "a ** 2.0", "a ** 3", "-a",
    "abs(a)", "~a", "a & 1", "a | True", "a ^ 3", "a << 1", "a >> 1", "2 << a", "T.fmod(a, 2.0)", "a // 2.0", "a % 2.5",
    "T.sigmoid(a)", "T.maximum(a, a)", "T.clamp(a, 0.5, 1.5)", "T.clamp(a, 0, 2)", "T.clamp(a, max=1)", "T.relu(a)",
    "T.floor(a)", "T.sqrt(a)",
])  # fmt: skip
def test_operators_on_every_dtype(form, dtype, torch):
    if (form, dtype) in MORE_HERE:
        pytest.skip("defined here, not in PyTorch")
    parity.check(form, {"a": np.array([1, 1, 3, 2], np.int64).astype(dtypes.as_dtype(dtype).numpy)}, torch)


# -- expressions --------------------------------------------------------------------------------

REDUCTIONS = [
    f"T.{name}({args})"
    for name in ("sum", "prod", "mean", "amax", "amin", "std", "var", "any", "all", "logsumexp")
    for args in ("x", "x, 0", "x, -1", "x, dim=1, keepdim=True", "z, (0, 2)", "z, (0, -1), keepdim=True", "o",
                 "z, dim=(1,)", "x, 2", "x, -3")
    if not (name == "prod" and "(" in args) and not (name in ("logsumexp",) and args in ("x", "o"))
] + [
    "T.sum(x, dtype=T.float64)", "T.sum(i)", "T.sum(b)", "T.sum(u)", "T.sum(h)", "T.sum(k, 0)",
    "T.sum(i, 1, dtype=T.int32)", "T.prod(j, 1)", "T.prod(u)",
    "T.sum(e)", "T.sum(e, 0)", "T.prod(e)", "T.prod(e, 0)", "T.mean(e)", "T.mean(e, 0)", "T.mean(i)",
    "T.mean(i, dtype=T.float32)", "T.mean(h)",
    "T.any(e)", "T.all(e)", "T.any(i, 1)", "T.amax(e)", "T.amax(e, 1)", "T.amax(e, 0)", "T.max(e, 0)",
    "T.argmax(e, 0)", "T.argmin(e, 1)", "T.max(e)", "T.argmax(e)", "T.logsumexp(e, 0)", "T.logsumexp(e, 1)",
    "T.std(x, 1, correction=0)", "T.std(x, 1, unbiased=False)", "T.var(x, unbiased=False)",
    "T.var(x, 0, correction=2)", "T.var(o)" , "T.std(e, 0)",
    "T.var_mean(x, 1)", "T.std_mean(x, 0, keepdim=True)", "T.var(x, (0, 1), keepdim=True)", "x.std(0, False)",
    "T.max(x)", "T.max(x, 1)", "T.max(x, 0, keepdim=True)", "T.min(x, -1)", "T.max(x, y)", "T.min(x, y)",
    "T.max(i, 1)", "T.max(b, 1)", "T.max(u)", "T.max(w)",
    "T.max(w, 0)", "T.min(w, 0)", "T.max(t, 1)", "T.min(t, 1)", "T.max(o, 0)", "x.max(1).values", "x.min(1).indices",
    "x.max(dim=1)[1]", "T.aminmax(x)", "T.aminmax(x, dim=1)",
    "T.amax(w)", "T.amin(w)", "T.amax(i, 1)", "T.amax(b)", "T.argmax(x)", "T.argmax(x, 1)",
    "T.argmin(x, 0, keepdim=True)", "T.argmax(t, 1)", "T.argmax(w)",
    "T.argmin(i, 1)", "T.argmax(x, keepdim=True)", "T.argmax(o)", "T.argmax(h, 1)", "T.argmax(u)",
    "T.median(x)", "T.median(x, 1)", "T.median(x, 0, keepdim=True)", "T.median(w)", "T.median(w, 0)", "T.median(i)",
    "T.median(o)", "x.median(1).values",
    "T.count_nonzero(i)", "T.count_nonzero(t, 1)", "T.count_nonzero(t, (0, 1))", "T.count_nonzero(b)",
    "T.logsumexp(w, 0)", "T.logsumexp(x * 1000, 1)", "T.logsumexp(x - inf, 1)", "T.logsumexp(z, (0, 1))",
    "T.norm(x)", "T.norm(x, 1)", "T.norm(x, 2, 1)", "T.norm(x, 3, dim=0)", "T.norm(x, inf)", "T.norm(x, -inf, 1)",
    "T.norm(x, 0, 1)", "T.norm(x, p='fro')", "T.norm(x, 0.5, 1)",
    "T.norm(x, 2, (0, 1), keepdim=True)", "T.norm(i)", "T.norm(h)", "T.norm(e)", "x.norm(dim=1)",
    "T.norm(x, dim=1, dtype=T.float64)",
    "T.cumsum(x, 0)", "T.cumsum(x, -1)", "T.cumprod(x, 1)", "T.cumsum(i, 1)", "T.cumsum(b, 0)", "T.cumsum(u, 0)",
    "T.cumprod(j, 1)", "T.cumsum(o, 0)", "T.cumsum(e, 0)",
    "T.cumsum(x, 0, dtype=T.float64)", "T.cumsum(h, 1)", "T.cumsum(x, 2)", "T.cumprod(w, 0)", "T.cumsum(w, 0)",
    "T.sum(x, (0, 0))", "T.sum(x, ())", "T.sum(o, 0)", "T.sum(o, 1)",
]  # fmt: skip

ORDER = [
    "T.sort(x)", "T.sort(x, 0)", "T.sort(x, descending=True)", "T.sort(w)", "T.sort(w, descending=True)",
    "T.sort(i, dim=1, stable=True)", "T.sort(t, dim=1, stable=True)",
    "T.sort(b, dim=1, stable=True)", "T.sort(u)", "T.sort(s, descending=True)", "T.sort(h)", "T.sort(k)[0]",
    "T.sort(o)", "T.sort(e, 0)", "x.sort(1).values", "x.sort(1).indices",
    "T.argsort(x)", "T.argsort(x, 0, descending=True)", "T.argsort(t, stable=True)", "T.topk(x, 2)",
    "T.topk(x, 2, 0)", "T.topk(x, 3, largest=False)", "T.topk(x, 0)",
    "T.topk(x, 5)", "T.topk(o, 1)", "T.topk(x, 2).values", "T.kthvalue(x, 2)", "T.kthvalue(x, 1, 0, keepdim=True)",
    "T.kthvalue(x, 0)", "T.kthvalue(x, 5)", "T.msort(x)",
    "T.searchsorted(T.sort(v)[0], y)", "T.searchsorted(T.sort(v)[0], y, right=True)",
    "T.searchsorted(T.sort(x, 1)[0], y)", "T.searchsorted(T.sort(v)[0], 0.5)",
    "T.searchsorted(T.sort(v)[0], v, side='right', out_int32=True)",
]  # fmt: skip

PRODUCTS = [
    "x @ m", "x @ v", "v @ m", "v @ v", "z @ m", "z @ v", "z @ q", "x @ q", "v @ q", "q.mT @ v", "z[:, None] @ q",
    "z[None] @ q[:, None]", "x @ x", "v @ x", "x @ i", "x @ d", "i @ i.T",
    "b @ b.T", "o @ x", "x @ o", "T.matmul(z, x.T)", "e @ T.zeros(3, 2)", "e.T @ T.zeros(0, 5)",
    "T.zeros(0, 3, 4) @ m", "z @ T.zeros(2, 4, 0)", "h @ h.T", "j @ j.T", "u[:, None] @ u[None]",
    "T.mm(x, m)", "T.mm(x, v)", "T.bmm(z, q)", "T.bmm(x, m)", "T.mv(x, v)", "T.mv(v, x)", "T.dot(v, v)",
    "T.dot(x, x)", "T.outer(v, v)", "T.addmm(x @ m, x, m, beta=2, alpha=3)",
    "T.addmm(T.ones(5), x, m)", "T.baddbmm(z @ q, z, q, beta=0.5)", "T.addmm(x @ m * nan, x, m, beta=0)",
    "T.tensordot(x, m, 1)", "T.tensordot(z, q, ([0, 2], [0, 1]))", "T.tensordot(x, y, 2)",
    "T.tensordot(x, y, 0)", "T.tensordot(x, m, ([0], [0]))", "T.tensordot(x, m, dims=([1], [0]))",
    "T.einsum('ij,jk->ik', x, m)", "T.einsum('ij,jk', x, m)", "T.einsum('ij->ji', x)", "T.einsum('ij->', x)",
    "T.einsum('ij->j', x)", "T.einsum('ii->i', x[:, :3])", "T.einsum('ii', x[:, :3])",
    "T.einsum('bij,bjk->bik', z, q)", "T.einsum('...ij,jk->...ik', z, m)", "T.einsum('i,j->ij', v, v)",
    "T.einsum('ij,ij->i', x, y)", "T.einsum('ij,kj,lj->ikl', x, y, x)",
    "T.einsum('ij,j,i->', x, v, x[:, 0])", "T.einsum('b...,b...->...', z, z)", "T.einsum('ij, jk -> ki', x, m)",
    "T.einsum('ij,jk->il', x, m)", "T.einsum('ij,ij->ij', x, m)", "T.einsum('ij', x)",
    "T.einsum('ji', x)", "T.einsum('ijk,kl', z, m)", "T.einsum('ij,jk->ik', x)", "T.einsum('ij,ij,ij->i', x, y, x)",
    "T.einsum('...,...->...', x, z)", "T.einsum('i,->i', v, o)",
]  # fmt: skip

MOVEMENT = [
    "x.reshape(2, 6)", "x.reshape(-1)", "x.reshape(2, -1)", "x.reshape((4, 3))", "x.reshape(5, -1)",
    "x.reshape(-1, -1)", "x.reshape(13)", "e.reshape(3, 0)", "e.reshape(-1)", "e.reshape(-1, 3)", "e.reshape(-1, 0)",
    "o.reshape(1, 1)", "o.reshape(())", "x.T.reshape(12)", "x.view(6, 2)", "x.T.view(12)", "x.T.view(4, 3)",
    "z.transpose(0, 1).view(-1)", "x[:, ::2].view(-1)", "x[:, :2].view(3, 2, 1)", "z.view(2, 12)", "z.view(6, -1)",
    "x.permute(1, 0)", "z.permute(2, 0, 1)", "z.permute((0, -1, 1))", "z.permute(0, 1)", "z.permute(0, 0, 1)",
    "T.permute(z, (1, 2, 0))", "z.transpose(0, 2)", "z.transpose(-1, -2)", "z.transpose(0, 3)", "x.t()", "z.t()",
    "v.t()", "o.t()", "z.mT", "x.T",
    "T.movedim(z, 0, 2)", "T.movedim(z, (0, 1), (2, 0))", "T.movedim(z, 0, 3)", "v.expand(3, 4)",
    "x[:, :1].expand(3, 5)", "x[:, :1].expand(-1, 5)", "x.expand(2, 3, 4)", "x.expand(2, -1, 4)", "x.expand(3, 5)",
    "x.expand(-1, 3, 4)", "v.expand(4, 3)",
    "T.broadcast_to(v, (2, 4))", "T.broadcast_tensors(x, v)", "T.broadcast_tensors(x, m)", "x[None].squeeze()",
    "x[None].squeeze(0)", "x[None].squeeze(1)", "x[None, :, None].squeeze((0, 2))", "x.unsqueeze(0)",
    "x.unsqueeze(-1)", "x.unsqueeze(3)", "o.unsqueeze(0)", "o.squeeze()",
    "z.flatten()", "z.flatten(1)", "z.flatten(0, 1)", "z.flatten(2, 1)", "o.flatten()", "z.ravel()",
    "T.unflatten(x, 1, (2, 2))", "T.unflatten(x, -1, (2, -1))", "T.unflatten(x, 1, (3, 2))", "x.narrow(1, 1, 2)",
    "x.narrow(0, -2, 1)", "x.narrow(1, 3, 2)",
    "x.select(0, 1)", "x.select(1, -1)", "x.select(0, 3)", "T.diagonal(x)", "T.diagonal(x, 1)", "T.diagonal(x, -1)",
    "T.diagonal(z, 0, 1, 2)", "T.diagonal(x, 9)", "T.diagonal(x, 0, 0, 0)", "x.unfold(1, 2, 1)", "x.unfold(0, 2, 2)",
    "x.unfold(1, 5, 1)", "z.unfold(2, 3, 1)",
    "T.as_strided(x, (2, 2), (4, 1), 1)", "T.as_strided(x, (3,), (5,))", "T.as_strided(x, (9, 9), (4, 1))",
    "T.cat([x, y])", "T.cat([x, y], 1)", "T.cat((x, y, x), dim=-1)", "T.cat([x, i])", "T.cat([x, m])",
    "T.cat([x, v])", "T.cat([])", "T.cat([x, T.zeros(0)])", "T.cat([o, o])", "T.cat([h, x])",
    "T.cat([u, b.reshape(-1)])", "T.concat([x, y])",
    "T.stack([x, y])", "T.stack([x, y], 1)", "T.stack([x, y], -1)", "T.stack([x, m])", "T.stack([o, o])",
    "T.stack([x, i])", "T.hstack([x, y])", "T.hstack([v, v])", "T.vstack([v, v])", "T.vstack([x, v])",
    "T.split(x, 2)", "T.split(x, 3, 1)", "T.split(x, [1, 2])", "T.split(x, [1, 1])", "T.split(x, (1, 3), dim=1)",
    "T.chunk(x, 2, 1)", "T.chunk(x, 3, 1)", "T.chunk(x, 7)", "T.chunk(x, 0)", "x.split(4)", "T.unbind(x)",
    "T.unbind(x, 1)", "T.unbind(e)", "T.split(e, 2)", "T.split(x, 0)",
    "T.flip(x, (0,))", "x.flip(0, 1)", "x.flip(-1)", "T.flip(x, (0, 0))", "T.flip(x, ())", "T.fliplr(x)",
    "T.flipud(x)", "T.roll(x, 1)", "T.roll(x, 5)", "T.roll(x, -1, 0)", "T.roll(x, (1, 2), (0, 1))",
    "T.roll(x, (1, 2), 0)", "x.roll(1, 1)", "T.roll(e, 1, 0)",
    "x.repeat(2, 1)", "x.repeat(2, 1, 3)", "x.repeat(2)", "v.repeat(0)", "T.tile(x, (2,))", "T.tile(x, (2, 1, 2))",
    "o.repeat(3)", "T.meshgrid(v, v[:2], indexing='ij')", "T.meshgrid(v, v[:2], indexing='xy')",
    "T.meshgrid([v, v[:2], v[:3]], indexing='xy')",
    "T.tril(x)", "T.triu(x)", "T.tril(x, 1)", "T.triu(x, -1)", "T.tril(z, -1)", "T.triu(b)", "T.tril(i, 5)",
    "T.triu(v)", "T.tril(x * inf)",
    *(f"T.nn.functional.pad(z, {p}, mode='{m}')" for m in ("constant", "reflect", "replicate", "circular")
      for p in ((1, 2), (2, 0), (0, 0), (1, 1, 1, 0), (-1, 1), (1, 1, 1)) if len(p) != 4 or m == "constant"),
    "T.nn.functional.pad(x, (1, 1, 2, 0), value=7.0)", "T.nn.functional.pad(x, (-1, -1))",
    "T.nn.functional.pad(x, (-3, -3))", "T.nn.functional.pad(i, (1, 0), value=3)",
    "T.nn.functional.pad(z, (4, 0), mode='reflect')", "T.nn.functional.pad(z, (5, 0), mode='circular')",
    "T.nn.functional.pad(z[None], (1, 1, 2, 0), mode='reflect')",
    "T.nn.functional.pad(z[None], (1, 1, 2, 0), mode='replicate')",
]  # fmt: skip

CHOICE = [
    "T.where(b, x, y)", "T.where(b, x, 0)", "T.where(b, 1.0, x)", "T.where(b, 1.0, 2.0)", "T.where(b, 1, 2)",
    "T.where(b, x, i)", "T.where(b, x, d)", "T.where(b)", "T.where(x, x, y)", "T.where(x > 0, x, v)",
    "T.where(c, x, o)", "x.where(b, y)",
    "T.clamp(x, -0.5, 0.5)", "T.clamp(x, min=0)", "T.clamp(x, max=0.25)", "T.clamp(x, 1, -1)", "T.clamp(x, y, y + 1)",
    "T.clamp(x, y)", "T.clamp(x, max=v)", "T.clamp(i, 0.5, 2.5)", "T.clamp(i, -2, 2)", "T.clamp(w, -1, 1)",
    "T.clamp(x)", "x.clip(0, 1)", "x.clamp_min(0.1)", "T.clamp(x, nan, 1)",
    "x.clamp(min=0, max=1)", "T.clamp(u, max=130)", "T.clamp(b, 0, 1)",
    "j // 2", "j // -2", "-j // 3", "x // 0.5", "x // -0.3", "j % 3", "j % -3", "x % 0.7", "x % -0.7", "T.fmod(j, 3)",
    "T.fmod(j, -3)", "T.fmod(x, -0.7)", "x % inf", "x // inf", "x % 0", "T.fmod(x, 0)", "w % 2", "w // 2", "s // 3",
    "s % 7", "s % -7",
    "i / 2", "i / i.abs().add(1)", "u / 2", "b / 2", "T.div(x, y, rounding_mode='floor')",
    "T.div(x, 0.3, rounding_mode='trunc')", "T.div(j, 2, rounding_mode='trunc')",
    "T.div(-j, 2, rounding_mode='floor')", "T.div(x, y, rounding_mode=None)", "x / 0", "0 / x", "o / 0", "i / 0",
    "T.add(x, y, alpha=2)", "T.sub(x, y, alpha=0.5)", "T.add(i, i, alpha=3)", "u + u", "s + s", "u * 2", "s * 2",
    "u - 1", "s - 1", "-u", "-s", "T.abs(s)", "~u", "s // -1 + 0", "u + 300", "u + 3.5", "h + 1e-9", "k * 3", "h * d",
    "h + k", "b + b", "b * b", "b - b", "-b", "b + 1", "b * 2.5",
    "T.round(w)", "T.round(x, decimals=2)", "T.round(x * 100, decimals=-1)", "T.round(i)", "T.sign(w)", "T.sgn(x)",
    "x ** y", "x.abs() ** y", "i ** 2", "2 ** i.abs()", "i ** -1", "i ** i.abs()", "i ** 0.5", "x ** i", "2.0 ** x",
    "0 ** x", "x ** 0", "w ** 2", "w ** 0.5", "w ** -1", "w ** 0", "1 ** w", "s ** 2", "T.pow(2, i.abs())",
    "x.eq(y)", "x.ne(0)", "w == w", "w != w", "w > 0", "w <= inf", "i == x", "u == -1", "u < 256", "s == 200",
    "u > -1", "b == 1", "b > 0", "x == None", "x != None", "T.equal(x, x)", "T.equal(x, y)",
    "T.allclose(x, x + 1e-9)", "T.isclose(x, y)",
    "T.logical_and(x, b)", "T.logical_or(i, x)", "T.logical_xor(w, b[0, 0])", "T.logical_not(w)", "T.logical_not(i)",
    "i & 3", "i | j", "i ^ 1", "~i", "~b", "b & c", "b | True", "b ^ b", "x & x", "i << 2", "i >> 1", "j >> 40",
    "j << 31", "s << 7", "u << 7", "u >> 9", "i & b", "3 & i", "1 << i.abs()",
    "T.atan2(w[:, None], w)", "T.hypot(x, y)", "T.copysign(x, w[4])", "T.copysign(w, -1.0)",
    "T.logaddexp(w[:, None], w)", "T.lerp(x, y, 0.3)", "T.lerp(x, y, v)", "T.addcmul(x, y, v, value=2)",
    "T.addcdiv(x, y, v, value=2)", "T.isclose(w, w, equal_nan=True)", "T.isclose(i, j.long(), atol=2)",
    "T.isclose(w[:, None], w)", "T.isnan(i)", "T.isinf(w)", "T.isfinite(b)", "T.frac(x * 9)", "T.sigmoid(w)",
    "T.relu(w)", "T.erf(w)", "T.erfc(x * 4)", "T.expm1(x / 1e4)", "T.log1p(x.abs() / 1e5)",
    "T.softmax(x, 1)", "T.softmax(w, 0)", "T.log_softmax(x, 0)", "T.log_softmax(x * 1e4, 1)", "x.softmax(-1)",
    "T.softmax(x, 0, dtype=T.float64)", "T.softmax(e, 0)", "T.softmax(i, 1)", "T.softmax(h, 1)", "T.rsqrt(w)",
    "T.reciprocal(w)", "T.reciprocal(i)", "T.square(i)", "T.square(b)", "T.exp(b)", "T.trunc(w)",
]  # fmt: skip

GEOMETRY = [
    f"({view}).{what}"
    for view in (
        "x", "x.T", "x[1:]", "x[:, 1]", "x[::2, 1:3]", "z.permute(2, 0, 1)", "z[1]", "x[None]", "x[:, None, :]",
        "v.expand(3, 4)", "x.reshape(2, 6)", "x.T.reshape(12)", "x.T.contiguous()", "o", "x.unsqueeze(0)", "x[:, :1]",
        "T.diagonal(x)", "x.unfold(1, 2, 1)", "z[:, 1:2, 2]", "x.view(3, 2, 2)", "x[2]", "x.detach()", "z.flatten(1)",
        "T.zeros(2, 0, 3)", "x.split(2)[1]", "x.narrow(1, 2, 1)", "z.transpose(0, 1)[1:]", "x[1, 1:].unsqueeze(0)",
        "x[..., -1]",
    )
    for what in ("stride()", "is_contiguous()", "storage_offset()", "size()", "numel()", "dim()")
]  # fmt: skip


@pytest.mark.parametrize("expression", REDUCTIONS + ORDER + PRODUCTS + MOVEMENT + CHOICE + GEOMETRY)
@pytest.mark.filterwarnings("ignore")
def test_expression(expression, device, torch):
    if device == "pretend" and re.search(r"\bd\b|float64", expression):
        pytest.skip("no float64 there")
    parity.check(expression, ARRAYS, torch, device=device)


# -- aliasing, in place ----------------------------------------------------------------------------

ALIASING = [
    "y = x.view(2, 6); y.mul_(2); r = x", "y = x.T; y[0, 1] = 9; r = x", "y = x[1]; y += 5; r = x",
    "y = x.T.reshape(12); y += 5; r = x", "y = x.reshape(12); y += 5; r = x",
    "a, b_ = x.split(2); b_.zero_(); r = x", "y = x[:, ::2]; y.fill_(3); r = x",
    "y = T.diagonal(x); y.copy_(T.arange(3.)); r = x", "y = x.unsqueeze(0)[0, 2]; y.neg_(); r = x",
    "y = x.clone(); y.zero_(); r = x", "y = x.contiguous(); y.zero_(); r = x",
    "y = x.T.contiguous(); y.zero_(); r = x", "y = x.detach(); y.add_(1); r = x", "y = x.flatten(); y.sub_(1); r = x",
    "y = x.to(T.float32); y.zero_(); r = x",
    "y = x.float(); y.zero_(); r = x", "x[1:] = x[:-1].clone(); r = x", "x += x.T[:3, :3].sum(); r = x",
    "x -= i; r = x", "x *= 2; x /= 3; x **= 2; r = x",
    "j //= 2; r = j", "j %= 3; r = j", "j += 1.5; r = j", "j /= 2; r = j", "j *= 2; r = j", "b |= c; r = b",
    "b &= c; r = b", "b ^= True; r = b", "j <<= 2; r = j", "j >>= 1; r = j", "x.clamp_(0, 1); r = x",
    "x.clamp_(min=0.2); r = x",
    "x.add_(y, alpha=2); r = x", "x.sub_(y, alpha=2); r = x", "x.addcmul_(x, y, value=0.5); r = x",
    "x.addcdiv_(x, y, value=0.5); r = x", "x.lerp_(y, 0.25); r = x", "x.masked_fill_(b, -1); r = x",
    "x.tril_(); r = x", "x.cumsum_(1); r = x", "x.exp_().log_(); r = x", "x.relu_(); r = x", "x.sigmoid_(); r = x",
    "x.tanh_(); r = x",
    "v.expand(3, 4).add_(1); r = v", "u += 300; r = u", "u.fill_(3.7); r = u", "x.copy_(i); r = x",
    "x.copy_(v); r = x", "i.copy_(x * 3); r = i", "x.copy_(m); r = x", "x.add_(m); r = x", "v.add_(x); r = v",
    "x.pow_(2); r = x", "x.floor_(); r = x", "x.round_(); r = x",
    "x.index_add_(0, T.tensor([0, 0, 2]), y); r = x", "x.index_fill_(1, T.tensor([0, 2]), 5); r = x",
    "x.index_copy_(0, T.tensor([2, 0]), y[:2]); r = x", "x.scatter_(1, T.tensor([[0], [1], [3]]), 7.0); r = x",
    "x.scatter_add_(0, T.tensor([[0, 0, 1, 2]]), y); r = x", "x.zero_(); r = x", "x.bernoulli_(0.0); r = x",
]  # fmt: skip


@pytest.mark.parametrize("program", ALIASING)
def test_in_place_and_aliasing(program, torch):
    outcomes = []
    for library, make in ((torch, lambda a: parity.to_torch(a, torch)), (gg, parity.to_gpugrad)):
        names = {"T": library, **{k: make(v) for k, v in ARRAYS.items()}}
        try:
            exec(program, names)
            outcomes.append(names["r"])
        except (RuntimeError, TypeError, ValueError, IndexError) as error:
            outcomes.append(error)
    want, got = outcomes
    if isinstance(want, Exception):
        assert isinstance(got, type(want)), f"PyTorch refuses: {want!r}; gpugrad: {got!r}"
    else:
        assert not isinstance(got, Exception), f"gpugrad refuses: {got!r}"
        parity.same(got, want)


# -- gradients at kinks ------------------------------------------------------------------------------

KINKS = {
    "p": np.array([[-1.0, 0.0, 2.0], [2.0, 2.0, 0.0]]),
    "q": np.array([[0.0, 0.0, 2.0], [1.0, 3.0, -0.0]]),
    "l": np.array([0.0, 2.0, 0.0, 3.0]),
    "r": np.array([3.0, 1.0, 3.0, 2.0, 1.0]),
    "g": np.zeros((2, 3)),
    "a": RNG.standard_normal((3, 4)),
    "c": RNG.standard_normal((4, 3)),
    "w": RNG.standard_normal(4),
    "i": np.array([2, 0, 2]),
    "s": np.array(1.5),
}
KINKED = [
    "T.abs(p)", "T.relu(p)", "T.sign(p)", "T.maximum(p, q)", "T.minimum(p, q)", "T.max(p)", "T.min(p)", "T.max(p, 1)",
    "T.min(p, 1)", "T.amax(p, 1)", "T.amin(p, (0, 1))", "T.amax(p)", "T.max(p, 0, keepdim=True)",
    "T.aminmax(p, dim=1)[1]",
    "T.clamp(p, 0, 2)", "T.clamp(p, min=0)", "T.clamp(p, max=2)", "T.clamp(p, q, q + 1)", "T.clamp(p, q)",
    "T.clamp(p, max=q)", "T.clamp(p, 2, 0)", "T.norm(g)", "T.norm(g, 2, 1)", "T.norm(p, 1)", "T.norm(p, 3, 1)",
    "T.norm(p, inf)", "T.norm(p, inf, 1)", "T.norm(p, -inf)", "T.norm(g, 1)",
    "T.sort(r, stable=True)", "T.sort(r, descending=True, stable=True)", "T.topk(r, 2)", "T.kthvalue(r, 3)",
    "T.median(r)", "T.median(p, 1)", "T.prod(l)", "T.prod(p)", "T.prod(p, 1)", "T.prod(l[:3], 0)", "T.prod(l[1:2])",
    "T.cumprod(l, 0)", "T.cumprod(p, 1)", "T.cumprod(p, 0)", "T.cumsum(p, 1)",
    "p ** 2", "p ** 3", "q ** 0", "p ** 1", "q ** q", "2 ** p", "0 ** q.abs()", "T.pow(q.abs(), 0.5 * p + 3)",
    "q ** 1.0", "T.floor(p)", "T.round(p)", "T.trunc(p)", "p % 2", "T.fmod(p, 1.5)", "p % (q.detach() + 4)",
    "T.remainder(p, q + 4)", "T.frac(p)",
    "T.where(p > q, p, q)", "T.where(p > 0, p, 0.0)", "T.where(p > 0, T.log(p.clamp(min=1e-3)), p)",
    "T.logsumexp(p, 1)", "T.logsumexp(a, (0, 1))", "T.softmax(p, 1)", "T.log_softmax(p, 0)", "T.std(a, 1)",
    "T.var(a, 0, correction=0)", "T.var_mean(a, 1)", "T.std_mean(a, 1)", "T.mean(a, 1)", "T.copysign(p, q)",
    "T.atan2(p, q + 5)", "T.hypot(p, q + 5)", "T.logaddexp(p, q)",
    "T.nn.functional.leaky_relu(p, 0.1)", "T.nn.functional.softplus(p)", "T.nn.functional.gelu(p)",
    "T.nn.functional.gelu(p, approximate='tanh')", "T.nn.functional.silu(p)", "T.sigmoid(p * 50)", "T.tanh(p * 50)",
    "T.erf(p)", "T.sqrt(p * p + 1)",
    "a @ c", "a @ w", "w @ c", "T.outer(w, w)", "T.einsum('ij,ji->i', a, c)", "T.einsum('ij,kj,lj->ikl', a, a, a)",
    "T.einsum('ii->i', a[:, :3])", "T.tensordot(a, c, ([0], [1]))", "T.addmm(s, a, c)", "a * s", "s / (a * a + 1)",
    "a + w", "a.T + w[:3]", "T.div(a, 0.7, rounding_mode='floor') + a",
    "a[i]", "a[:, i]", "a[i, i]", "a[i, :, None]", "a[1:, ::2]", "a[a.detach() > 0]", "T.index_select(a, 0, i)",
    "T.gather(a, 0, i[None].expand(2, 3))", "T.take(a, i)", "T.take_along_dim(a, i[:, None], 1)", "a[..., -1]",
    "a[None, 1]",
    "T.scatter_add(a, 0, i[:, None].expand(3, 4), c.T)", "T.index_add(a, 0, i, c.T, alpha=2)",
    "T.index_copy(a, 0, i[:2], c.T[:2])", "T.masked_fill(a, a.detach() > 0, 2.0)",
    "T.masked_select(a, a.detach() > 0)", "T.index_fill(a, 1, i, 2.0)", "T.scatter(a, 1, T.argsort(a), c.T)",
    "T.scatter(a, 1, i[:, None], 5.0)",
    "T.scatter_reduce(a, 0, i[:, None].expand(3, 4), c.T, 'amax')",
    "T.scatter_reduce(a, 0, i[:, None].expand(3, 4), c.T, 'prod')",
    "T.scatter_reduce(a, 0, i[:, None].expand(3, 4), c.T, 'mean')",
    "T.scatter_reduce(a, 0, i[:, None].expand(3, 4), c.T, 'amin', include_self=False)",
    "T.scatter_reduce(a, 0, i[:, None].expand(3, 4), c.T, 'sum', include_self=False)",
    "T.cat([a, c.T, a])", "T.stack([a, c.T], 1)", "T.roll(a, (1, 2), (0, 1))", "T.flip(a, (0, 1))", "a.repeat(2, 3)",
    "T.tile(w, (2, 2))", "T.tril(a)", "T.triu(a, 1)", "T.nn.functional.pad(a, (1, -1, 2, 0))",
    "T.nn.functional.pad(a, (1, 2), mode='reflect')", "T.nn.functional.pad(a, (1, 2), mode='circular')",
    "T.nn.functional.pad(a, (1, 2), mode='replicate')", "a.unfold(1, 2, 1)", "T.diagonal(a, 1)", "a.expand(2, 3, 4)",
    "T.as_strided(a, (3, 3), (2, 1))", "a.T.reshape(-1)", "a.permute(1, 0)[1:]", "T.movedim(a, 0, 1)",
    "a.split(2)[1]", "a.chunk(2, 1)[0]", "T.meshgrid(w, w, indexing='ij')", "T.lerp(a, c.T, 0.3)",
    "a.float().double()", "T.clone(a)", "T.norm(a, 0.5, 1)", "T.round(a, decimals=1)",
]  # fmt: skip


@pytest.mark.parametrize("expression", KINKED)
@pytest.mark.filterwarnings("ignore")
def test_gradient_of_expression(expression, torch):
    parity.gradients(expression, KINKS, torch)


# -- printing ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("expression", [
    "x", "i", "b", "o", "e", "h", "z[:, :2]", "x.T", "u", "w", "x * 1e6", "x * 1e-7", "T.arange(2000)",
    "T.zeros(2, 3)", "T.tensor([1.5, 2.0])", "d", "T.tensor([1e10, 1.0])",
])  # fmt: skip
def test_repr_has_the_numbers(expression, torch):
    """The same numbers in the same order; spaces and line breaks may differ."""
    texts = [
        repr(parity.evaluate(expression, ARRAYS, lib, make))
        for lib, make in ((gg, parity.to_gpugrad), (torch, lambda a: parity.to_torch(a, torch)))
    ]
    ours, theirs = (
        t.replace("torch", "gpugrad").replace("\n", " ").replace(" ", "").replace("True", "1").replace("False", "0")
        for t in texts
    )
    assert ours == theirs
